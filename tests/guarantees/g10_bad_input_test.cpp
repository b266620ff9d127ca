// Guarantee 10: wrong bytes end the session that sent them with a clear code, and change nothing else.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::g10_bad_input_test {
namespace {

using protocol::FrameKind;

Bytes bytes_of(std::initializer_list<unsigned> list) {
  Bytes bytes;
  for (const unsigned b : list) bytes.push_back(static_cast<std::byte>(b));
  return bytes;
}

template <class Message>
Bytes body_of(const Message& message) {
  Bytes body;
  ByteWriter out(body);
  message.encode(out);
  return body;
}

/// A server with a map, a replica that follows it over a link of its own, and peers that misbehave.
struct Victim {
  Victim() {
    handle.modify([](Map& map) { map.set("key00", "before"); });
    REQUIRE(replica.wait_for(1, 1s));
  }

  /// A peer with channel 1 open and channel 2 waiting for its upload to be sent.
  std::shared_ptr<RawPeer> make_peer() {
    auto peer = connect_raw(world.time, *world.port, password);
    peer->send(open_of(handle.hash(), 1, protocol::FollowMode::merged));
    peer->send(open_of(stranger.hash(), 2));
    world.time.run_ready();
    REQUIRE(peer->find<protocol::Opened>().has_value());
    REQUIRE(peer->find<protocol::UploadWanted>().has_value());
    peer->forget();
    return peer;
  }

  /// Nothing has come of it but the end of that session.
  void check_unharmed() {
    REQUIRE(world.runs.empty());
    const UpdateId head = handle.update_id();
    REQUIRE(head == commits);
    REQUIRE(replica.update_id() == head);
    REQUIRE(replica.status().state == LinkState::live);
    REQUIRE(handle.modify([](Map& map) { map.set("key01", "on"); }).update_id == ++commits);
    REQUIRE(replica.wait_for(commits, 0ms));
    REQUIRE(remote->hosted().size() == 1);
    REQUIRE(world.port->connections() >= 1);
    world.time.run_ready();
    REQUIRE(world.server->core().link_count() == 1);
  }

  World world;
  Handle handle = world.host();
  Map stranger = make_master(3, "stranger");
  std::shared_ptr<Remote> remote = world.connect();
  Follower replica{world.make_map(remote), {}};
  UpdateId commits = 1;
};

struct Wrong {
  const char* what;
  StateErrc code;
  std::function<void(RawPeer&, const Victim&)> send;
  bool is_found_later =
      false;  ///< a whole upload, or an event, is decoded apart from the link, which goes on meanwhile
};

std::vector<Wrong> wrongs() {
  const auto frame = [](FrameKind kind, Bytes body) {
    return [kind, body](RawPeer& peer, const Victim&) {
      peer.send_frame(static_cast<std::uint8_t>(kind), body);
    };
  };
  const auto raw = [](Bytes bytes) {
    return [bytes](RawPeer& peer, const Victim&) { peer.send_bytes(bytes); };
  };
  return {
      {"an unknown kind", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim&) { peer.send_frame(200, {}); }},
      {"a frame of the server's", StateErrc::protocol_error, frame(FrameKind::answer, bytes_of({1, 1, 1}))},
      {"a second hello", StateErrc::protocol_error, frame(FrameKind::hello, body_of(protocol::Hello{}))},
      {"an empty frame", StateErrc::protocol_error, raw(bytes_of({0}))},
      {"a length beyond the limit", StateErrc::too_large, raw(bytes_of({0xff, 0xff, 0xff, 0x7f}))},
      {"a length without end", StateErrc::too_large, raw(Bytes(20, std::byte{0xff}))},
      {"a length that is not canonical", StateErrc::protocol_error, raw(bytes_of({0x81, 0x00, 4}))},
      {"an open cut off", StateErrc::decode_error, frame(FrameKind::open, Bytes(20, std::byte{1}))},
      {"an open with more behind it", StateErrc::decode_error,
       [](RawPeer& peer, const Victim& victim) {
         Bytes body = body_of(open_of(victim.handle.hash(), 7));
         body.push_back(std::byte{0});
         peer.send_frame(static_cast<std::uint8_t>(FrameKind::open), body);
       }},
      {"a type name that claims 4 GiB", StateErrc::decode_error,
       [](RawPeer& peer, const Victim& victim) {
         Bytes body = body_of(open_of(victim.handle.hash(), 7));
         body.resize(1 + 32 + 32);
         ByteWriter(body).put_varint(0xFFFFFFFF);
         peer.send_frame(static_cast<std::uint8_t>(FrameKind::open), body);
       }},
      {"a channel opened twice", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim& victim) { peer.send(open_of(victim.handle.hash(), 1)); }},
      {"a position without an epoch", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim& victim) {
         auto open = open_of(victim.handle.hash(), 7);
         open.position.update_id = 5;
         peer.send(open);
       }},
      {"an unknown follow mode", StateErrc::decode_error,
       [](RawPeer& peer, const Victim& victim) {
         Bytes body = body_of(open_of(victim.handle.hash(), 7));
         body.back() = std::byte{9};
         peer.send_frame(static_cast<std::uint8_t>(FrameKind::open), body);
       }},
      {"an upload that nobody asked for", StateErrc::protocol_error,
       frame(FrameKind::upload, bytes_of({1, 0}))},
      {"an upload that ends inside an entry", StateErrc::decode_error,
       [](RawPeer& peer, const Victim&) {
         peer.send_frame(static_cast<std::uint8_t>(FrameKind::upload), bytes_of({2, 3, 'k'}));
         peer.send(protocol::UploadEnd{2});
       },
       true},
      {"an upload of descending keys", StateErrc::decode_error,
       frame(FrameKind::upload, bytes_of({2, 1, 'b', 1, 'x', 1, 'a', 1, 'x'}))},
      {"the upload of another map", StateErrc::hash_mismatch,
       [](RawPeer& peer, const Victim&) {
         peer.send_frame(static_cast<std::uint8_t>(FrameKind::upload), bytes_of({2, 1, 'k', 1, 'v'}));
         peer.send(protocol::UploadEnd{2});
       },
       true},
      {"the end of an upload that nobody asked for", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim&) { peer.send(protocol::UploadEnd{1}); }},
      {"an event for a map that is not open yet", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim&) {
         peer.send(protocol::EventMessage{2, 1, {}});
       }},
      {"an event that is none", StateErrc::decode_error,
       [](RawPeer& peer, const Victim&) {
         const Bytes garbage = bytes_of({9, 9, 9});
         peer.send(protocol::GetSender{1, 0});
         peer.send(protocol::EventType{1, type_name<Command>()});
         peer.send(protocol::EventMessage{1, 1, garbage});
       },
       true},
      {"an event on a channel that has no sender", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim&) {
         peer.send(protocol::EventType{1, type_name<Command>()});
         peer.send(protocol::EventMessage{1, 1, {}});
       }},
      {"a sender asked for twice", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim&) {
         peer.send(protocol::GetSender{1, 0});
         peer.send(protocol::GetSender{1, 0});
       }},
      {"a second sender for one map on one link", StateErrc::protocol_error,
       [](RawPeer& peer, const Victim& victim) {
         peer.send(open_of(victim.handle.hash(), 7));
         peer.send(protocol::GetSender{1, 0});
         peer.send(protocol::GetSender{7, 0});
       }},
      {"a follow without a mode", StateErrc::decode_error,
       frame(FrameKind::follow, bytes_of({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}))},
      {"a heartbeat of half a pair", StateErrc::decode_error, frame(FrameKind::heartbeat, bytes_of({1}))},
      {"a varint that is not canonical", StateErrc::decode_error,
       frame(FrameKind::list, bytes_of({0x81, 0x00}))},
      {"a varint beyond 64 bits", StateErrc::decode_error,
       frame(FrameKind::list, Bytes(11, std::byte{0xff}))},
  };
}

}  // namespace

TEST_CASE("guarantee 10: wrong bytes from a client end its session with a clear code, and all others go on") {
  Victim victim;
  for (const std::size_t read_bytes : {std::size_t{1'000'000}, std::size_t{1}}) {
    for (const Wrong& wrong : wrongs()) {
      INFO(wrong.what << ", read in pieces of " << read_bytes);
      if (read_bytes == 1 && wrong.code == StateErrc::too_large) continue;  // megabytes, byte by byte
      const auto peer = victim.make_peer();
      victim.world.port->faults().read_bytes = read_bytes;
      wrong.send(*peer, victim);
      peer->send_frame(static_cast<std::uint8_t>(FrameKind::list), bytes_of({77}));  // not heard any more
      victim.world.time.run_ready();
      victim.world.port->faults().read_bytes = 1'000'000;
      CHECK(peer->goodbye() == wrong.code);
      CHECK_FALSE(peer->is_open());
      if (!wrong.is_found_later) CHECK_FALSE(peer->find<protocol::Hosted>().has_value());
      victim.check_unharmed();
    }
  }
}

TEST_CASE("guarantee 10: no bytes of any kind harm the server or its other clients") {
  Victim victim;
  std::vector<Bytes> good;  // what a client may well send, to be spoiled
  const auto keep = [&](const auto& message) { protocol::append_frame(good.emplace_back(), message); };
  keep(open_of(victim.handle.hash(), 5, protocol::FollowMode::every_step));
  keep(protocol::CloseChannel{1});
  keep(protocol::Unfollow{1});
  keep(protocol::Follow{1, {}, protocol::FollowMode::merged});
  keep(protocol::GetUpdateId{9, 1});
  keep(protocol::GetDiff{10, 1, {}, 1});
  keep(protocol::Fetch{11, victim.handle.hash(), "string", "string"});
  keep(protocol::List{12});
  keep(protocol::UploadEnd{2});
  const Bytes upload = bytes_of({1, 'k', 1, 'v'});
  keep(protocol::Upload{2, upload});
  for (unsigned seed = 1; seed <= 400; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const auto peer = victim.make_peer();
    for (int i = 0; i < 6; ++i) {
      Bytes frame = good[random() % good.size()];
      const std::size_t changes = random() % 3;
      for (std::size_t c = 0; c < changes; ++c)
        frame[random() % frame.size()] = static_cast<std::byte>(random());
      if (random() % 8 == 0) frame.resize(random() % frame.size());
      peer->send_bytes(frame);
      victim.world.time.run_ready();
    }
    if (!peer->is_open()) REQUIRE(peer->goodbye() != StateErrc{});
    peer->abort();
    victim.world.time.run_ready();
    victim.check_unharmed();
  }
}

TEST_CASE("guarantee 10: events before one that is none run, and those behind it do not") {
  Victim victim;
  const auto raw = connect_raw(victim.world.time, *victim.world.port, password);
  raw->send(open_of(victim.handle.hash()));
  raw->send(protocol::GetSender{1, 0});
  const auto set = [](const std::string& value) { return Change{{"set", "key02", value}}.serialize(); };
  const Bytes first = set("first");
  const Bytes wrong = bytes_of({9, 9, 9});
  const Bytes third = set("third");
  raw->send(protocol::EventType{1, type_name<Command>()});
  raw->send(protocol::EventMessage{1, 1, first});
  raw->send(protocol::EventMessage{1, 2, wrong});
  raw->send(protocol::EventMessage{1, 3, third});
  victim.world.time.run_ready();
  CHECK(raw->goodbye() == StateErrc::decode_error);
  CHECK_FALSE(raw->is_open());
  CHECK(victim.world.runs == std::vector<std::string>{"first"});
  victim.world.runs.clear();
  ++victim.commits;
  victim.check_unharmed();
}

TEST_CASE("guarantee 10: a channel closed before its link is woken no more") {
  Victim victim;
  const auto peer = victim.make_peer();
  peer->send(protocol::CloseChannel{1});
  victim.world.time.run_ready();
  const std::size_t frames = peer->received().size();
  victim.handle.modify([](Map& map) { map.set("key02", "x"); });
  ++victim.commits;
  victim.world.time.run_ready();
  CHECK(peer->received().size() == frames);
  peer->abort();
  victim.world.time.run_ready();
  victim.check_unharmed();
}

TEST_CASE("guarantee 10: a client that asks and never reads is ended before its answers take much memory") {
  ServerCoreOptions options;
  options.limits.frame_bytes = 20'000;
  // An honest client may have answers to as many channels and requests waiting.
  options.limits.maps = options.limits.requests_in_flight = 20;
  World world(options);
  const Handle handle = world.host();
  const auto peer = connect_raw(world.time, *world.port, password);
  world.port->faults().is_client_deaf = true;
  world.port->faults().buffer_bytes = 1;
  const std::string question = GENERATE("open", "get_diff", "get_update_id", "fetch", "list");
  INFO(question);
  peer->send(open_of(handle.hash(), 1));
  for (unsigned i = 2; i < 6'000; ++i) {
    auto open = open_of(handle.hash(), i);
    open.value_type = "i64";
    if (question == "open") peer->send(open);
    if (question == "get_diff") peer->send(protocol::GetDiff{i, 99, {}, 1});
    if (question == "get_update_id") peer->send(protocol::GetUpdateId{i, 1});
    if (question == "fetch") peer->send(protocol::Fetch{i, MapHash(), "string", "string"});
    if (question == "list") peer->send(protocol::List{i});
  }
  world.time.run_ready();
  world.time.advance(2s);
  CHECK(world.server->core().link_count() == 0);
}

TEST_CASE(
    "guarantee 10: wrong bytes from a server end the session, are told, and change nothing on the replica") {
  struct Case {
    const char* what;
    StateErrc code;
    std::function<void(RawPeer&, protocol::ChannelId)> send;
  };
  const auto diff = [](protocol::ChannelId stream, UpdateId advance, ByteView entries) {
    protocol::DiffMessage message;
    message.stream = stream;
    message.advance = advance;
    message.entries = entries;
    return message;
  };
  const std::vector<Case> cases = {
      {"an unknown kind", StateErrc::protocol_error, [](RawPeer& peer, auto) { peer.send_frame(99, {}); }},
      {"a frame of the client's", StateErrc::protocol_error,
       [](RawPeer& peer, auto) { peer.send(protocol::List{1}); }},
      {"a frame beyond the limit", StateErrc::too_large,
       [](RawPeer& peer, auto) { peer.send_bytes(Bytes(9, std::byte{0xff})); }},
      {"an ordinal beyond the last key", StateErrc::decode_error,
       [=](RawPeer& peer, auto stream) {
         const Bytes entries = bytes_of({0, 1, 'x', 4, 1, 'x'});
         peer.send(diff(stream, 1, entries));
       }},
      {"a key that is named twice", StateErrc::decode_error,
       [=](RawPeer& peer, auto stream) {
         const Bytes entries = bytes_of({1, 1, 'x', 1, 1, 'y'});
         peer.send(diff(stream, 1, entries));
       }},
      {"an entry cut off", StateErrc::decode_error,
       [=](RawPeer& peer, auto stream) {
         const Bytes entries = bytes_of({0, 1, 'x', 1, 9, 'x'});
         peer.send(diff(stream, 1, entries));
       }},
      {"a step of no key", StateErrc::decode_error,
       [](RawPeer& peer, auto stream) {
         protocol::Step step;
         step.stream = stream;
         step.ordinal = 1'000'000;
         peer.send(step);
       }},
      {"an update id beyond 64 bits", StateErrc::protocol_error,
       [=](RawPeer& peer, auto stream) { peer.send(diff(stream, ~UpdateId{0}, {})); }},
      {"a stream that was never opened", StateErrc::protocol_error,
       [=](RawPeer& peer, auto) { peer.send(diff(1'000, 1, {})); }},
      {"another epoch by a diff that is not full", StateErrc::protocol_error,
       [=](RawPeer& peer, auto stream) {
         auto message = diff(stream, 1, {});
         message.epoch = 8;
         peer.send(message);
       }},
      {"a part of a value without its beginning", StateErrc::protocol_error,
       [](RawPeer& peer, auto stream) {
         const Bytes part(1);
         peer.send(protocol::ValuePart{stream, 0, 10, 5, part});
       }},
      {"an answer to an event that was not sent", StateErrc::protocol_error,
       [](RawPeer& peer, auto) {
         peer.send(protocol::Answer{1, 77, 1});
       }},
  };
  for (const Case& wrong : cases) {
    INFO(wrong.what);
    World world;
    world.server.reset();
    std::shared_ptr<RawPeer> master;
    RawPeer::listen(world.time, *world.port, [&](const std::shared_ptr<RawPeer>& peer) { master = peer; });
    const auto remote = world.connect();
    Map map(remote);
    push_keys(map, 4);
    map.freeze(0ms);
    Follower replica(Map(map), {});
    world.time.run_ready();
    REQUIRE(master);
    master->send_welcome(password);
    world.time.run_ready();
    const auto opens = master->all<protocol::Open>();
    REQUIRE(opens.size() == 2);
    for (const auto& open : opens) master->send(protocol::Opened{open.channel, {7, 1}});
    auto first = diff(opens[1].channel, 1, {});
    const Bytes entries = bytes_of({0, 4, 'g', 'o', 'o', 'd'});
    first.entries = entries;
    first.epoch = 7;
    master->send(first);
    world.time.run_ready();
    REQUIRE(replica.update_id() == 1);
    REQUIRE(replica.status().state == LinkState::live);
    const auto before = values_of(replica.view());

    wrong.send(*master, opens[1].channel);
    world.time.run_ready();
    CHECK(master->goodbye() == wrong.code);
    CHECK_FALSE(master->is_open());
    CHECK(replica.update_id() == 1);
    CHECK(replica.epoch() == 7);
    CHECK(values_of(replica.view()) == before);
    CHECK(replica.status().state == LinkState::failed);
    CHECK(replica.status().reason == wrong.code);

    // A server that makes sense again is found, at the slowest pace.
    world.restart();
    REQUIRE(world.wait([&] { return replica.status().state == LinkState::live; }));
    CHECK(remote->send_event(map.hash(), set_key("key00", "again")).update_id == 1);
    REQUIRE(replica.wait_for(1, 1s));
    CHECK(replica.view().at("key00") == "again");
  }
}

TEST_CASE("guarantee 10: what does not fit is refused by name on both sides, and the link goes on") {
  World world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  const Map map = world.make_map(remote);

  // Another type of values.
  StateMap<std::string, std::int64_t> other(remote);
  other.push("key00", 1);
  CHECK(error_of([&] { other.freeze(); }) == StateErrc::type_mismatch);
  CHECK_THAT(detail_of([&] { other.freeze(); }),
             contains_text("{string: i64}") && contains_text("{string: string}"));
  // Another type of events.
  const auto send_number = [&] { remote->send_event(map.hash(), Event<std::int64_t>{5}); };
  CHECK(error_of(send_number) == StateErrc::type_mismatch);
  CHECK_THAT(detail_of(send_number), contains_text("i64") && contains_text(type_name<Command>()));
  // An event beyond the limit never leaves.
  const auto send_large = [&] {
    remote->send_event(map.hash(), set_key("key00", std::string(1 << 20, 'x')));
  };
  CHECK(error_of(send_large) == StateErrc::too_large);
  CHECK(world.runs.empty());

  CHECK(world.port->connections() == 1);
  CHECK(remote->status().state == LinkState::live);
  CHECK(remote->send_event(map.hash(), set_key("key00", "x")).update_id == 1);
}

}  // namespace syncstate::testing::g10_bad_input_test
