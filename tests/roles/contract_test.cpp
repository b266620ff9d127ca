// What a user of server and remote relies on when links break and peers misbehave, beyond the ten guarantees.

#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace contract_test {

using namespace syncstate;
using namespace syncstate::testing;

TEST_CASE(
    "events of several maps that were in flight when a link broke stay within the limit of the next link") {
  World world;
  const auto remote = world.connect();
  Map one = world.make_map(remote, 2);
  Map two = world.make_map(remote, 3);
  for (const Map* map : {&one, &two}) remote->send_event(map->hash(), set_key("key00", "-"));
  world.port->faults().is_server_deaf = true;
  std::vector<Sent> sent;
  for (int i = 0; i < 600; ++i) sent.push_back(Sent::send(world, remote, one.hash(), set_key("key00", "a")));
  for (int i = 0; i < 1'000; ++i)
    sent.push_back(Sent::send(world, remote, two.hash(), set_key("key00", "b")));
  for (int i = 0; i < 1'000; ++i)
    sent.push_back(Sent::send(world, remote, one.hash(), set_key("key00", "c")));
  world.run_steps(4'000, 100ms);
  world.port->cut_all();
  world.port->faults().is_server_deaf = false;
  REQUIRE(world.wait([&] { return sent.back().is_finished() && sent[1'599].is_finished(); }));
  for (const Sent& event : sent) CHECK_FALSE(event.error());
  CHECK(world.runs.size() == 2 + sent.size());
  CHECK(world.port->connections() == 2);
}

TEST_CASE("maps of other types are told apart on one remote, though their hashes are equal") {
  World world;
  const auto remote = world.connect();
  Map map = world.make_map(remote, 1, "a");
  StateMap<std::string, std::vector<std::byte>> other(remote);
  other.push(key_name(0), {std::byte{'a'}});
  CHECK(error_of([&] { other.freeze(); }) == StateErrc::type_mismatch);
  CHECK(detail_of([&] { other.sync(); }) ==
        "this remote knows the map as {string: string}, not as {string: bytes}");
  CHECK(other.hash() == map.hash());
  Replica<std::string, std::vector<std::byte>> replica(std::move(other));
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::failed; }));
  CHECK(replica.status().reason == StateErrc::type_mismatch);
  CHECK(map.sync() == 0);
}

TEST_CASE("an error without a detail is its message alone") {
  CHECK(std::string(StateError(StateErrc::stopped, "").what()) ==
        std::string(StateError(StateErrc::stopped).what()));
  CHECK(std::string(StateError(StateErrc::stopped, "why").what()) == "why: stopped");
}

TEST_CASE("a channel that is refused once its map is hosted leaves nothing behind") {
  ServerCoreOptions options;
  options.limits.senders_per_map = 1;
  World world(options);
  const Handle handle = world.host();
  auto peer = connect_raw(world.time, *world.port, password);
  protocol::ChannelId channel = 0;
  const auto open = [&](std::uint64_t sender, Position position, protocol::FollowMode mode) {
    protocol::Open ask;
    ask.channel = ++channel;
    ask.hash = handle.hash();
    ask.key_type = ask.value_type = "string";
    ask.position = position;
    ask.mode = mode;
    peer->forget();
    peer->send(ask);
    peer->send(protocol::GetSender{channel, sender});
    world.time.run_ready();
    REQUIRE(peer->find<protocol::Opened>());
    const auto given = peer->find<protocol::SenderMessage>();
    return given ? given->sender : 0;
  };
  const Position ahead{handle.epoch(), 7};
  std::uint64_t sender = 0;
  SECTION("it is opened ahead of the master") { sender = open(0, ahead, protocol::FollowMode::merged); }
  SECTION("it is to follow from ahead of the master") {
    sender = open(0, {}, protocol::FollowMode::none);
    protocol::Follow follow;
    follow.channel = channel;
    follow.position = ahead;
    follow.mode = protocol::FollowMode::merged;
    peer->send(follow);
    world.time.run_ready();
  }
  REQUIRE(peer->find<protocol::Refused>());
  // The link has no sender for this map any more, so it may ask for one on another channel.
  const std::uint64_t next = open(sender, {}, protocol::FollowMode::none);
  CHECK(next != 0);
  if (sender != 0) CHECK(next == sender);
  // Once the link is gone, the sender is held by nobody, and the next one takes its place.
  peer->abort();
  peer = connect_raw(world.time, *world.port, password);
  CHECK(open(0, {}, protocol::FollowMode::none) != next);
  peer->abort();
  peer = connect_raw(world.time, *world.port, password);
  CHECK(open(next, {}, protocol::FollowMode::none) != next);
}

namespace {

/// A value whose codec may fail in its own way: 13 can't be decoded, and 14 not encoded again.
struct Moody {
  int mood = 0;
  bool was_decoded = false;
};

}  // namespace

}  // namespace contract_test

template <>
struct syncstate::Codec<contract_test::Moody> {
  static void encode(const contract_test::Moody& moody, ByteWriter& out) {
    if (moody.was_decoded && moody.mood == 14) throw std::out_of_range("not again");
    Codec<int>::encode(moody.mood, out);
  }
  static contract_test::Moody decode(ByteReader& in) {
    const int mood = Codec<int>::decode(in);
    if (mood == 13) throw std::out_of_range("not today");
    return contract_test::Moody{mood, true};
  }
  static std::string type_name() { return "moody"; }
};

namespace contract_test {

TEST_CASE("whatever a codec of a user's throws ends the session that brought the bytes, and others go on") {
  World world;
  inproc::StateServer<std::string, Moody, Moody> server(world.time, world.port, {.passwords = {password}});
  server.start();
  for (const int mood : {13, 14}) {
    const auto remote = world.connect();
    StateMap<std::string, Moody> bad(remote);
    bad.push("mood", Moody{mood});
    CHECK(error_of([&] { bad.freeze(); }) ==
          (mood == 13 ? StateErrc::decode_error : StateErrc::protocol_error));
    CHECK(remote->status().state == LinkState::failed);
  }
  const auto other = world.connect();
  StateMap<std::string, Moody> good(other);
  good.push("mood", Moody{1});
  good.freeze();
  CHECK(other->send_event(good.hash(), Event<Moody>{{2}}).update_id == 0);
}

TEST_CASE("a server says how many events it takes at a time, and a remote keeps to that") {
  ServerCoreOptions options;
  options.limits.events_in_flight = 8;
  World world(std::move(options));
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  std::vector<Sent> sent;
  for (int i = 0; i < 50; ++i) sent.push_back(Sent::send(world, remote, map.hash(), set_key("key00", "x")));
  REQUIRE(world.wait([&] { return sent.back().is_finished(); }));
  for (const Sent& event : sent) CHECK_FALSE(event.error());
  CHECK(world.port->connections() == 1);
}

TEST_CASE("maps that nobody has any more take no room on a remote's link") {
  ServerCoreOptions options;
  options.limits.maps = 50;
  World world(std::move(options));
  RemoteCoreOptions mine;
  mine.limits.maps = 3;
  const auto remote = world.connect(mine);
  MapHash first;
  for (int i = 0; i < 40; ++i) {
    const Map map = world.make_map(remote, 2, "map " + std::to_string(i));
    if (i == 0) first = map.hash();
    world.time.advance(1s);
  }
  const Map last = world.make_map(remote, 2, "last");
  SECTION("the server gives up no map for it, and a living one is served as before") {
    CHECK(world.connect()->hosted().size() == 41);
    CHECK(remote->send_event(last.hash(), set_key("key00", "x")).update_id == 1);
  }
  SECTION("one that was forgotten can't be sent to by its hash, but freezes again") {
    CHECK(error_of([&] { remote->send_event(first, set_key("key00", "x")); }) == StateErrc::not_hosted);
    const Map again = world.make_map(remote, 2, "map 0");
    CHECK(remote->send_event(first, set_key("key00", "x")).update_id == 1);
  }
}

TEST_CASE("a map of which no copy lives is still sent events by its hash") {
  World world;
  const auto remote = world.connect();
  const MapHash hash = world.make_map(remote).hash();
  world.time.advance(10s);
  CHECK(remote->send_event(hash, set_key("key00", "x")).update_id == 1);
  CHECK(remote->send_event(hash, set_key("key00", "y")).update_id == 2);
}

namespace {

struct CountingSink final : DiffSink<std::string, std::string> {
  std::error_code on_diff(Diff<std::string, std::string> diff) override {
    ++calls;
    at = {diff.epoch(), diff.upto_update_id()};
    return {};
  }
  void on_current(TimePoint) override { ++calls; }
  void on_status(const LinkStatus&) override { ++calls; }
  Position position() const override { return at; }
  bool every_step() const override { return false; }
  EpochPolicy epoch_policy() const override { return EpochPolicy::accept; }

  Position at;
  int calls = 0;
};

}  // namespace

TEST_CASE("a sink is not called any more once its subscription has ended") {
  // The diff of an event is on its way; the subscription ends after each step of that in turn.
  bool is_under_way = true;
  for (std::size_t steps = 0; is_under_way; ++steps) {
    INFO("after step " << steps);
    World world;
    const auto remote = world.connect();
    const Map map = world.make_map(remote);
    const auto sink = std::make_shared<CountingSink>();
    Subscription subscription = remote->follow(map, sink);
    remote->send_event(map.hash(), set_key("key00", "x"));
    REQUIRE(world.wait([&] { return sink->at.update_id == 1; }));
    const auto sent = Sent::send(world, remote, map.hash(), set_key("key00", "y"));
    world.run_steps(steps);
    is_under_way = sink->at.update_id == 1;
    subscription.reset();
    const int calls = sink->calls;
    REQUIRE(world.wait([&] { return sent.is_finished(); }));
    world.time.advance(20s);
    REQUIRE(sink->calls == calls);
  }
}

}  // namespace contract_test
