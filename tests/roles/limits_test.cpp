// Limits with which nothing could work are refused, what is exactly at a limit is allowed, and errors name the limit.
#include "syncstate/limits.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"
#include "syncstate/detail/check_limits.hpp"

namespace syncstate::testing::limits_test {
namespace {

using namespace std::chrono_literals;

struct BadLimit {
  std::string name;
  void (*set)(Limits&);
};

const std::vector<BadLimit>& bad_limits() {
  static const std::vector<BadLimit> all = {
      {"authentication_time", [](Limits& l) { l.authentication_time = -1ms; }},
      {"pending_links", [](Limits& l) { l.pending_links = 0; }},
      {"links", [](Limits& l) { l.links = 0; }},
      {"links_per_address", [](Limits& l) { l.links_per_address = 0; }},
      {"failed_proofs_per_minute", [](Limits& l) { l.failed_proofs_per_minute = 0; }},
      {"unproven_links_per_minute", [](Limits& l) { l.unproven_links_per_minute = 0; }},
      {"client_hello_bytes", [](Limits& l) { l.client_hello_bytes = 511; }},
      {"frame_bytes_before_authentication", [](Limits& l) { l.frame_bytes_before_authentication = 127; }},
      {"frame_bytes", [](Limits& l) { l.frame_bytes = l.frame_bytes_before_authentication - 1; }},
      {"piece_bytes", [](Limits& l) { l.piece_bytes = 0; }},
      {"upload_silence", [](Limits& l) { l.upload_silence = 0ms; }},
      {"upload_patience", [](Limits& l) { l.upload_patience = 0ms; }},
      {"upload_time", [](Limits& l) { l.upload_time = 0ms; }},
      {"events_in_flight", [](Limits& l) { l.events_in_flight = 0; }},
      {"event_bytes_in_flight", [](Limits& l) { l.event_bytes_in_flight = 0; }},
      {"requests_in_flight", [](Limits& l) { l.requests_in_flight = 0; }},
      {"heartbeat_every", [](Limits& l) { l.heartbeat_every = 0ms; }},
      {"silence", [](Limits& l) { l.silence = l.heartbeat_every; }},
  };
  return all;
}

}  // namespace

TEST_CASE("servers and remotes refuse limits with which nothing could work, by name") {
  World world;
  for (const BadLimit& bad : bad_limits()) {
    INFO(bad.name);
    Limits limits;
    bad.set(limits);
    const auto is_named = contains_text("Limits::" + bad.name + " is ");
    ServerCoreOptions server;
    server.passwords = {password};
    server.limits = limits;
    CHECK_THROWS_WITH((ServerCore<std::string, std::string, Command>::create(server, world.time.make_pool())),
                      is_named);
    RemoteCoreOptions remote;
    remote.password = password;
    remote.limits = limits;
    CHECK_THROWS_WITH(detail::RemoteCore::create(world.time.make_executor(), nullptr, remote), is_named);
  }
}

TEST_CASE("the smallest limits that are allowed serve a client") {
  Limits limits;
  limits.pending_links = limits.links = limits.links_per_address = 1;
  limits.failed_proofs_per_minute = limits.unproven_links_per_minute = 1;
  limits.frame_bytes_before_authentication = detail::least_frame_bytes;
  limits.piece_bytes = limits.events_in_flight = limits.event_bytes_in_flight = limits.requests_in_flight = 1;
  limits.silence = limits.heartbeat_every + 1ms;
  ServerCoreOptions options;
  options.limits = limits;
  World world(options);
  const auto remote = world.connect();
  const Map map = world.make_map(remote, 2);
  CHECK(remote->send_event(map.hash(), set_key("key00", "a")).update_id == 1);
}

namespace {

/// A server with the limits of a test, a map of four keys, and a client that sends frames.
struct LimitedWorld {
  explicit LimitedWorld(const Limits& limits) : world(with(limits)), handle(world.host()) { connect(); }

  static ServerCoreOptions with(const Limits& limits) {
    ServerCoreOptions options;
    options.limits = limits;
    return options;
  }
  void connect() { peer = connect_raw(world.time, *world.port, password); }

  /// Channel 1 is open, and has a sender.
  void open_for_events() {
    peer->send(open_of(handle.hash()));
    peer->send(protocol::GetSender{1, 0});
    peer->send(protocol::EventType{1, sample().type_name});
    world.time.run_ready();
  }
  static SerializedEvent sample(const std::string& value = {}) {
    return serialize_event(set_key(key_name(0), value));
  }
  /// An event whose encoding has this many bytes, below 16,384.
  static Bytes event_of(std::size_t bytes) {
    for (std::size_t size = bytes; size > 0; --size) {
      Bytes encoded = sample(std::string(size, 'v')).bytes;
      if (encoded.size() == bytes) return encoded;
    }
    FAIL("no event has " << bytes << " bytes");
    return {};
  }
  void send_event(ByteView bytes) {
    protocol::EventMessage message;
    message.channel = 1;
    message.number = ++number;
    message.bytes = bytes;
    peer->send(message);
  }
  void send_part(ByteView bytes) {
    protocol::EventPart part;
    part.channel = 1;
    part.bytes = bytes;
    peer->send(part);
  }

  /// The session goes on.
  void check_allowed() {
    world.time.run_ready();
    CHECK(peer->is_open());
    CHECK(peer->goodbye() == StateErrc{});
  }
  /// The session ended, for this limit, and the next one of this client has nothing of it.
  void check_ended(StateErrc reason, const std::string& limit) {
    world.time.run_ready();
    CHECK(peer->goodbye() == reason);
    REQUIRE(peer->find<protocol::Goodbye>());
    CHECK_THAT(peer->find<protocol::Goodbye>()->detail, contains_text("Limits::" + limit));
    connect();
    CHECK(peer->is_open());
  }
  /// The last event has not run, for its size, and the session goes on.
  void check_event_refused(std::size_t bytes) {
    const std::size_t before = world.runs.size();
    check_allowed();
    CHECK(world.runs.size() == before);
    const auto answers = peer->all<protocol::AnswerError>();
    REQUIRE_FALSE(answers.empty());
    CHECK(answers.back().number == number);
    CHECK(answers.back().reason == StateErrc::too_large);
    CHECK(answers.back().detail ==
          "an event of " + std::to_string(bytes) + " bytes, and Limits::event_bytes is 200");
  }
  void check_refused(protocol::ChannelId id, const std::string& limit, StateErrc reason = StateErrc::busy) {
    world.time.run_ready();
    std::optional<protocol::Refused> found;
    for (const auto& refused : peer->all<protocol::Refused>()) {
      if (refused.channel == id) found = refused;
    }
    REQUIRE(found);
    CHECK(found->reason == reason);
    CHECK_THAT(found->detail, contains_text("Limits::" + limit));
    check_allowed();
  }

  World world;
  Handle handle;
  std::shared_ptr<RawPeer> peer;
  std::uint64_t number = 0;
};

Bytes entries_of(std::size_t count, std::size_t value_bytes) {
  Bytes bytes;
  ByteWriter out(bytes);
  for (std::size_t i = 0; i < count; ++i) {
    out.put_sized(key_name(i));
    out.put_sized(std::string(value_bytes, 'v'));
  }
  return bytes;
}

}  // namespace

TEST_CASE("as many maps as a server may host are hosted, and one more is busy") {
  Limits limits;
  limits.maps = 3;
  LimitedWorld t(limits);  // hosts one
  const bool is_brought = GENERATE(false, true);
  CAPTURE(is_brought);
  t.world.host(5);
  if (is_brought) {
    const Map map = t.world.make_map(t.world.connect(), 6);
    t.peer->send(open_of(make_master(7).hash()));
    t.check_refused(1, "maps is 3");
  } else {
    CHECK_NOTHROW(t.world.host(6));
    CHECK_THAT(detail_of([&] { t.world.host(7); }), contains_text("Limits::maps is 3"));
    CHECK(error_of([&] { t.world.host(7); }) == StateErrc::busy);
  }
  CHECK(t.world.connect()->hosted().size() == 3);
}

TEST_CASE("a link has as many maps open as a server may host, and one more is busy") {
  Limits limits;
  limits.maps = 3;
  LimitedWorld t(limits);
  for (protocol::ChannelId channel = 1; channel <= 4; ++channel) {
    t.peer->send(open_of(t.handle.hash(), channel, protocol::FollowMode::merged));
  }
  t.world.time.run_ready();
  CHECK(t.peer->all<protocol::Opened>().size() == 3);
  t.check_refused(4, "maps is 3");
  // Another link has its own three, and a channel that is closed makes room.
  const auto other = connect_raw(t.world.time, *t.world.port, password);
  other->send(open_of(t.handle.hash()));
  t.peer->send(protocol::CloseChannel{2});
  t.peer->send(open_of(t.handle.hash(), 5));
  t.peer->send(open_of(t.handle.hash(), 6));
  t.check_refused(6, "maps is 3");
  CHECK(t.peer->all<protocol::Opened>().size() == 4);
  CHECK(other->find<protocol::Opened>());
}

TEST_CASE("an event of exactly the bytes that are allowed runs, whole and in parts") {
  static constexpr std::size_t most = 200;
  Limits limits;
  limits.event_bytes = most;
  LimitedWorld t(limits);
  t.open_for_events();
  const Bytes event = LimitedWorld::event_of(most);
  const Bytes larger = LimitedWorld::event_of(most + 1);
  SECTION("whole") {
    t.send_event(event);
    t.check_allowed();
    CHECK(t.world.runs.size() == 1);
    t.send_event(larger);
    t.check_event_refused(201);
  }
  SECTION("in parts") {
    const std::size_t first = GENERATE(std::size_t{1}, most / 2, most - 1, most);
    t.send_part(ByteView(event).first(first));
    t.send_event(ByteView(event).subspan(first));
    t.check_allowed();
    CHECK(t.world.runs.size() == 1);
    t.send_part(ByteView(larger).first(first));
    t.check_allowed();
    t.send_event(ByteView(larger).subspan(first));
    t.check_event_refused(201);
  }
  SECTION("in parts, of which none is the last") {
    t.send_part(ByteView(event).first(most / 2));
    t.send_part(ByteView(event).subspan(most / 2));
    t.check_allowed();
    t.send_part(ByteView(event).first(1));
    t.check_allowed();
    // Of an event that is too large nothing is kept, however long it goes on.
    for (int i = 0; i < 100; ++i) t.send_part(event);
    t.check_allowed();
    CHECK(t.world.runs.empty());
    t.send_event({});
    t.check_event_refused(100 * most + most + 1);
    t.send_event(event);
    t.check_allowed();
    CHECK(t.world.runs.size() == 1);
  }
  SECTION("of a client's own limit, before it is sent") {
    RemoteCoreOptions options;
    options.limits.event_bytes = most - 1;
    const auto remote = t.world.connect(options);
    const Map map = t.world.make_map(remote);
    const auto send = [&](const Bytes& bytes) {
      remote->send_event(map.hash(), SerializedEvent{LimitedWorld::sample().type_name, bytes});
    };
    CHECK_NOTHROW(send(LimitedWorld::event_of(most - 1)));
    CHECK(error_of([&] { send(event); }) == StateErrc::too_large);
    CHECK_THAT(detail_of([&] { send(event); }),
               contains_text("an event of 200 bytes, and Limits::event_bytes is 199"));
    CHECK(remote->status().state == LinkState::live);
    CHECK(t.world.runs.size() == 1);
  }
}

TEST_CASE("as many events and bytes of them as a link may have in flight are taken, and one more ends it") {
  Limits limits;
  limits.events_in_flight = 5;
  limits.event_bytes_in_flight = 500;
  LimitedWorld t(limits);
  t.open_for_events();
  const bool is_number = GENERATE(true, false);
  CAPTURE(is_number);
  const Bytes event = LimitedWorld::event_of(is_number ? 50 : 125);
  const std::size_t count = is_number ? 5 : 4;
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < count; ++i) t.send_event(event);
    t.check_allowed();  // they have run, and there is room again
  }
  CHECK(t.world.runs.size() == 2 * count);
  for (std::size_t i = 0; i < count; ++i) t.send_event(event);
  t.send_event(LimitedWorld::event_of(30));
  t.check_ended(StateErrc::busy, is_number ? "events_in_flight is 5" : "event_bytes_in_flight is 500");
}

TEST_CASE("as many requests as a link may have in flight are answered, and one more ends it") {
  Limits limits;
  limits.requests_in_flight = 5;
  limits.piece_bytes = 100;
  LimitedWorld t(limits);
  protocol::ChannelId last = 0;
  const auto ask = [&](std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      protocol::Fetch fetch;
      fetch.request = ++last;
      fetch.hash = t.handle.hash();
      fetch.key_type = fetch.value_type = type_name<std::string>();
      t.peer->send(fetch);
    }
  };
  for (int round = 0; round < 2; ++round) {
    ask(5);
    t.check_allowed();
  }
  CHECK(t.peer->all<protocol::StateEnd>().size() == 10);
  ask(6);
  t.check_ended(StateErrc::busy, "requests_in_flight is 5");
}

TEST_CASE("a list of maps goes in frames of a piece, and looks at a few maps at a time") {
  constexpr std::size_t count = 300;
  Limits limits;
  limits.piece_bytes = 1'000;
  LimitedWorld t(limits);
  for (std::size_t i = 1; i < count; ++i) t.world.host(1, std::to_string(i));
  t.peer->send(protocol::List{1});
  t.check_allowed();
  // A map takes some 80 bytes, and the mutex of all maps is held for 64 of them at a time.
  constexpr std::size_t most_of_a_look = 64 * 100;
  std::size_t frames = 0;
  std::size_t bytes = 0;
  for (const auto& list : t.peer->all<protocol::Hosted>()) {
    CHECK(list.maps.size() <= limits.piece_bytes + most_of_a_look);
    bytes += list.maps.size();
    ++frames;
    CHECK(list.more == (frames < t.peer->all<protocol::Hosted>().size()));
  }
  CHECK(bytes >= count * 64);
  CHECK(frames >= count / 64);
  CHECK(t.world.connect()->hosted().size() == count);

  std::optional<MapHash> after;
  std::size_t looks = 0;
  do {
    Bytes some;
    after = t.world.server->core().encode_hosted(Peer{}, after, some);
    CHECK(some.size() <= most_of_a_look);
    ++looks;
  } while (after && looks < count);
  CHECK(looks == (count + 63) / 64);
}

TEST_CASE("a frame of exactly the bytes that are allowed is taken") {
  Limits limits;
  limits.frame_bytes = 2'001;
  LimitedWorld t(limits);
  const auto heartbeat = static_cast<std::uint8_t>(protocol::FrameKind::heartbeat);
  SECTION("of a client that proved itself") {
    t.peer->send_frame(heartbeat, Bytes(2'000));  // a thousand entries about channel 0
    t.check_allowed();
    t.peer->send_frame(heartbeat, Bytes(2'001));
    t.check_ended(StateErrc::too_large, "frame_bytes is 2001");
  }
  SECTION("of a stranger") {
    const auto hello = static_cast<std::uint8_t>(protocol::FrameKind::hello);
    const auto stranger_sends = [&](std::size_t bytes) {
      const auto stranger = RawPeer::connect(t.world.time, *t.world.port);
      stranger->send_frame(hello, Bytes(bytes - 1));
      t.world.time.run_ready();
      return stranger->find<protocol::Goodbye>().value_or(protocol::Goodbye{});
    };
    CHECK(stranger_sends(1'024).reason != StateErrc::too_large);
    const auto refused = stranger_sends(1'025);
    CHECK(refused.reason == StateErrc::too_large);
    CHECK_THAT(refused.detail,
               contains_text("a frame of 1025 bytes, and Limits::frame_bytes_before_authentication is 1024"));
  }
  SECTION("of a length that no limit has") {
    t.peer->send_bytes(Bytes(6, std::byte{0xFF}));
    t.check_ended(StateErrc::too_large, "frame_bytes is 2001");
  }
}

TEST_CASE("a value of exactly the bytes that are allowed is set, hosted and brought") {
  Limits limits;
  limits.value_bytes = 50;
  LimitedWorld t(limits);
  const std::string fits(50, 'v');
  const std::string larger(51, 'v');
  const std::string named = "a value of 51 bytes, and Limits::value_bytes is 50";
  const auto remote = t.world.connect();
  const Map map = t.world.make_map(remote);
  CHECK(remote->send_event(map.hash(), set_key(key_name(0), fits)).update_id == 1);
  CHECK(error_of([&] { remote->send_event(map.hash(), set_key(key_name(0), larger)); }) ==
        StateErrc::too_large);
  CHECK(detail_of([&] { remote->send_event(map.hash(), set_key(key_name(0), larger)); }) == named);
  CHECK(t.handle.modify([&](Map& state) { state.set(key_name(1), fits); }).update_id == 2);
  CHECK(detail_of([&] { t.handle.modify([&](Map& state) { state.set(key_name(1), larger); }); }) == named);
  CHECK(t.handle.update_id() == 2);
  CHECK_NOTHROW(t.world.host(5, fits));
  CHECK(error_of([&] { t.world.host(5, larger); }) == StateErrc::too_large);
  CHECK_THAT(detail_of([&] { t.world.host(5, larger); }), contains_text("Limits::value_bytes is 50"));
  CHECK_NOTHROW(t.world.make_map(remote, 6, fits));
}

TEST_CASE("an initial state of exactly what is allowed is taken, and what is beyond is named") {
  Limits limits;
  limits.keys_per_map = 3;
  limits.value_bytes = 50;
  const std::size_t entry = entries_of(1, 50).size();
  limits.map_bytes = 3 * entry;
  LimitedWorld t(limits);
  const auto bring = [&](const Bytes& bytes) {
    t.peer->send(open_of(make_master(3, std::string(50, 'v')).hash()));
    t.world.time.run_ready();
    if (!t.peer->find<protocol::UploadWanted>()) return;  // it is hosted already
    t.peer->send(upload_of(bytes));
    t.peer->send(protocol::UploadEnd{1});
    t.world.time.run_ready();
  };
  SECTION("of all three") {
    bring(entries_of(3, 50));
    CHECK(t.peer->find<protocol::Opened>());
    t.check_allowed();
  }
  SECTION("one key more") {
    bring(entries_of(4, 1));
    t.check_refused(1, "keys_per_map is 3", StateErrc::too_large);
  }
  SECTION("one byte of a value more") {
    bring(entries_of(1, 51));
    t.check_refused(1, "value_bytes is 50", StateErrc::too_large);
  }
  SECTION("one byte more in all") {
    Bytes bytes = entries_of(3, 50);
    bytes.push_back(std::byte{0});
    bring(bytes);
    t.check_refused(1, "map_bytes is " + std::to_string(3 * entry), StateErrc::too_large);
  }
}

TEST_CASE("what all maps and all events together may take is named when it is used up") {
  Limits limits;
  limits.all_map_bytes = 10'000;
  limits.all_event_bytes = 1'000;
  LimitedWorld t(limits);
  SECTION("maps") {
    t.peer->send(open_of(make_master(3).hash()));
    t.world.time.run_ready();
    t.peer->send(upload_of(entries_of(1, 20'000)));
    t.check_refused(1, "all_map_bytes is 10000");
    CHECK(t.world.server->core().map_bytes() == 0);
  }
  SECTION("events") {
    t.open_for_events();
    t.send_event(LimitedWorld::event_of(2'000));
    t.check_allowed();
    const auto refused = t.peer->find<protocol::AnswerError>();
    REQUIRE(refused);
    CHECK(refused->reason == StateErrc::busy);
    CHECK_THAT(refused->detail, contains_text("Limits::all_event_bytes is 1000"));
    CHECK(t.world.server->core().event_bytes() == 0);
    t.send_event(LimitedWorld::event_of(100));
    t.check_allowed();
    CHECK(t.world.runs.size() == 1);
  }
}

namespace {

/// What a client asks of a server, beside a replica and events of another map on the same link.
struct Exchange {
  explicit Exchange(const Limits& of_server, const Limits& of_client) : world(with(of_server)) {
    RemoteCoreOptions options;
    options.limits = of_client;
    options.request_timeout = 20s;
    remote = world.connect(options);
    bystander.emplace(world.make_map(remote, 2, "bystander"), ReplicaOptions{});
    REQUIRE(world.wait([&] { return bystander->status().state == LinkState::live; }));
  }
  static ServerCoreOptions with(const Limits& limits) {
    ServerCoreOptions options;
    options.limits = limits;
    return options;
  }

  /// The link is the first one still, and what has nothing to do with a request that failed goes on.
  void check_bystander() {
    INFO("remote: " << to_string(remote->status().state) << ", " << remote->status().detail);
    const UpdateId id = remote->send_event(bystander->hash(), set_key("key00", "x"));
    CHECK(bystander->wait_for(id, 10s));
    CHECK(bystander->status().state == LinkState::live);
    CHECK(world.port->connections() == 1);
    REQUIRE(remote->status().state == LinkState::live);
  }

  World world;
  std::shared_ptr<Remote> remote;
  std::optional<Follower> bystander;
};

struct Action {
  const char* name;
  std::function<void(Exchange&)> run;
};

/// Throws the status of a replica that is refused; returns once it has what `handle` has.
void follow(Exchange& t, const Handle& handle, std::size_t keys, const std::string& initial,
            std::size_t size) {
  Follower replica(t.world.make_map(t.remote, keys, initial), {});
  const auto is_there = [&] { return replica.epoch() != 0 && replica.update_id() == handle.update_id(); };
  REQUIRE(t.world.wait([&] { return is_there() || replica.status().state == LinkState::failed; }, 20s));
  if (!is_there()) throw StateError(replica.status().reason, replica.status().detail);
  CHECK(replica.view().at("key00").size() == size);
}

const std::vector<Action>& actions() {
  static const std::vector<Action> all = {
      {"list 6 maps",
       [](Exchange& t) {
         for (int i = 0; i < 4; ++i) (void)t.world.host(1, "listed " + std::to_string(i));
         (void)t.world.host(5, "listed");
         const std::size_t count = t.remote->hosted().size();
         CHECK(count == 6);
       }},
      {"bring 50 keys", [](Exchange& t) { (void)t.world.make_map(t.remote, 50, std::string(400, 'b')); }},
      {"bring a large value",
       [](Exchange& t) { (void)t.world.make_map(t.remote, 2, std::string(90'000, 'l')); }},
      {"open 5 maps",
       [](Exchange& t) {
         std::vector<Map> maps;
         for (std::size_t i = 0; i < 5; ++i) maps.push_back(t.world.make_map(t.remote, 3, std::to_string(i)));
       }},
      {"attach 50 keys",
       [](Exchange& t) {
         const Handle handle = t.world.host(50, std::string(400, 'a'));
         const Map map = t.remote->attach<std::string, std::string>(handle.hash());
         CHECK(map.size() == 50);
       }},
      {"follow a large diff",
       [](Exchange& t) {
         const Handle handle = t.world.host(50, "f");
         handle.modify([](Map& map) {
           for (std::size_t i = 0; i < 50; ++i) map.set(key_name(i), std::string(4'000, 'f'));
         });
         follow(t, handle, 50, "f", 4'000);
       }},
      {"follow a large value",
       [](Exchange& t) {
         const Handle handle = t.world.host(2, "v");
         handle.modify([](Map& map) { map.set("key00", std::string(90'000, 'v')); });
         follow(t, handle, 2, "v", 90'000);
       }},
      {"fetch a large value",
       [](Exchange& t) {
         const Handle handle = t.world.host(2, "s");
         Map map = t.world.make_map(t.remote, 2, "s");
         handle.modify([](Map& state) { state.set("key00", std::string(90'000, 's')); });
         const UpdateId id = map.sync();
         CHECK(id == 1);
       }},
      {"send a large event",
       [](Exchange& t) {
         t.remote->send_event(t.bystander->hash(), Change{{"nothing", "", std::string(90'000, 'e')}});
       }},
      {"send 40 events at once",
       [](Exchange& t) {
         std::vector<Sent> sent;
         for (int i = 0; i < 40; ++i) {
           sent.push_back(Sent::send(t.world, t.remote, t.bystander->hash(), set_key("key01", "y")));
         }
         REQUIRE(t.world.wait([&] { return sent.back().is_finished(); }));
         for (const Sent& event : sent) (void)event.result();
       }},
      {"ask 40 things at once",
       [](Exchange& t) {
         const auto maps = std::make_shared<std::vector<HostedMapInfo>>();
         std::vector<std::shared_ptr<detail::Operation>> asked;
         for (int i = 0; i < 40; ++i) {
           asked.push_back(detail::Operation::create());
           t.remote->core().list(maps, asked.back());
         }
         REQUIRE(t.world.wait([&] { return asked.back()->is_finished(); }));
         for (const auto& each : asked) (void)each->result();
       }},
      {"be silent for 2 minutes", [](Exchange& t) { t.world.time.advance(2min); }},
  };
  return all;
}

/// A limit on one side, and the actions that fail for it.
struct Difference {
  const char* limit;
  bool is_of_server;
  void (*set)(Limits&);
  StateErrc code = {};
  std::vector<std::string> failing = {};
};

const std::vector<Difference>& differences() {
  constexpr bool server = true;
  constexpr bool client = false;
  constexpr auto large = StateErrc::too_large;
  constexpr auto busy = StateErrc::busy;
  const auto tiny_frames = [](Limits& l) { l.frame_bytes = l.frame_bytes_before_authentication = 128; };
  const auto large_pieces = [](Limits& l) { l.piece_bytes = std::size_t{8} << 20; };
  const auto tiny_pieces = [](Limits& l) { l.piece_bytes = 1; };
  const auto small_frames = [](Limits& l) { l.frame_bytes = 1'024; };
  const auto impatient = [](Limits& l) {
    l.heartbeat_every = 900ms;
    l.silence = 1s;
  };
  const auto very_impatient = [](Limits& l) {
    l.heartbeat_every = 40ms;
    l.silence = 150ms;
  };
  const auto calm = [](Limits& l) {
    l.heartbeat_every = 1h;
    l.silence = 2h;
  };
  const auto one_event = [](Limits& l) { l.events_in_flight = 1; };
  const auto one_event_byte = [](Limits& l) { l.event_bytes_in_flight = 1; };
  const auto one_request = [](Limits& l) { l.requests_in_flight = 1; };
  const auto few_values = [](Limits& l) { l.value_bytes = 1'000; };
  const auto few_events = [](Limits& l) { l.event_bytes = 1'000; };
  const auto few_keys = [](Limits& l) { l.keys_per_map = 10; };
  const auto few_map_bytes = [](Limits& l) { l.map_bytes = 10'000; };
  const auto few_maps = [](Limits& l) { l.maps = 4; };
  static const std::vector<Difference> all = {
      {"frame_bytes", server, tiny_frames},
      {"frame_bytes", client, tiny_frames, large, {"list 6 maps", "ask 40 things at once"}},
      {"frame_bytes", server, small_frames},
      {"frame_bytes", client, small_frames},
      {"piece_bytes", server, large_pieces},
      {"piece_bytes", client, large_pieces},
      {"piece_bytes", server, tiny_pieces},
      {"piece_bytes", client, tiny_pieces},
      {"silence", server, impatient},
      {"silence", client, impatient},
      {"silence", server, very_impatient},
      {"silence", client, very_impatient},
      {"heartbeat_every", server, calm},
      {"heartbeat_every", client, calm},
      {"events_in_flight", server, one_event},
      {"events_in_flight", client, one_event},
      {"event_bytes_in_flight", server, one_event_byte},
      {"event_bytes_in_flight", client, one_event_byte},
      {"requests_in_flight", server, one_request},
      {"requests_in_flight", client, one_request},
      {"event_bytes", server, few_events, large, {"send a large event"}},
      {"event_bytes", client, few_events, large, {"send a large event"}},
      {"value_bytes",
       server,
       few_values,
       large,
       {"bring a large value", "follow a large diff", "follow a large value", "fetch a large value"}},
      {"value_bytes",
       client,
       few_values,
       large,
       {"follow a large diff", "follow a large value", "fetch a large value"}},
      {"keys_per_map", server, few_keys, large, {"bring 50 keys"}},
      {"keys_per_map", client, few_keys, large, {"attach 50 keys"}},
      {"map_bytes", server, few_map_bytes, large, {"bring 50 keys", "bring a large value"}},
      {"map_bytes", client, few_map_bytes, large, {"attach 50 keys"}},
      {"maps", server, few_maps, busy, {"list 6 maps", "open 5 maps"}},
      {"maps", client, few_maps, large, {"list 6 maps"}},
      {"staged_bytes",
       client,
       [](Limits& l) { l.staged_bytes = 10'000; },
       large,
       {"attach 50 keys", "follow a large diff", "follow a large value", "fetch a large value"}},
      {"staged_bytes", server, [](Limits& l) { l.staged_bytes = 0; }},
      {"all_map_bytes",
       server,
       [](Limits& l) { l.all_map_bytes = 20'000; },
       busy,
       {"bring 50 keys", "bring a large value"}},
      {"all_event_bytes",
       server,
       [](Limits& l) { l.all_event_bytes = 10'000; },
       busy,
       {"send a large event"}},
      {"link_bytes",
       server,
       [](Limits& l) { l.link_bytes = std::size_t{128} << 10; },
       large,
       {"send a large event"}},
      {"link_bytes", client, [](Limits& l) { l.link_bytes = 1; }},
      {"transfer_rounds", server, [](Limits& l) { l.transfer_rounds = 0; }},
      {"senders_per_map", server, [](Limits& l) { l.senders_per_map = 1; }},
      {"answers_per_sender", server, [](Limits& l) { l.answers_per_sender = 0; }},
      {"answer_bytes_per_map", server, [](Limits& l) { l.answer_bytes_per_map = l.all_answer_bytes = 0; }},
      {"upload_silence", server,
       [](Limits& l) { l.upload_silence = l.upload_patience = l.upload_time = 1s; }},
      {"key_updates_per_minute", client, [](Limits& l) { l.key_updates_per_minute = 0; }},
      {"links", client, [](Limits& l) { l.links = l.links_per_address = l.pending_links = 1; }},
      {"links", server, [](Limits& l) { l.links = l.links_per_address = l.pending_links = 1; }},
  };
  return all;
}

}  // namespace

TEST_CASE("whatever limits of two honest peers differ, a request fails by name and the link lives",
          "[honest_limits]") {
  const auto number = GENERATE(range(std::size_t{0}, differences().size()));
  const Difference& difference = differences()[number];
  Limits changed;
  difference.set(changed);
  INFO("Limits::" << difference.limit << " of the " << (difference.is_of_server ? "server" : "client"));
  for (const Action& action : actions()) {
    INFO(action.name);
    Exchange t(difference.is_of_server ? changed : Limits(), difference.is_of_server ? Limits() : changed);
    std::error_code error;
    std::string detail;
    try {
      action.run(t);
    } catch (const StateError& thrown) {
      error = thrown.code();
      detail = thrown.detail();
    }
    INFO("failed with " << error.message() << ": " << detail);
    const bool fails = std::find(difference.failing.begin(), difference.failing.end(), action.name) !=
                       difference.failing.end();
    CHECK(error == (fails ? make_error_code(difference.code) : std::error_code()));
    if (fails) {
      const std::size_t named = detail.find("Limits::");
      CHECK(named != std::string::npos);
      CHECK(detail.find_first_of("0123456789", named) != std::string::npos);
    }
    t.check_bystander();
  }
}

}  // namespace syncstate::testing::limits_test
