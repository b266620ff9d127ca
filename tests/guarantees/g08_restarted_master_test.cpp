// Guarantee 8: a restarted master is noticed, and nobody is shown two histories as one.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::g08_restarted_master_test {
namespace {

using Texts = std::vector<std::string>;

Handle set_keys(const Handle& handle, std::size_t commits, const std::string& key, const std::string& value) {
  for (std::size_t i = 0; i < commits; ++i) {
    handle.modify([&](Map& map) { map.set(key, value + std::to_string(i)); });
  }
  return handle;
}

void upload(RawPeer& peer, const Map& map, protocol::ChannelId channel = 1) {
  const detail::FrozenSource<std::string, std::string> source(detail::MapAccess::frozen(map));
  protocol::InitialCursor cursor;
  Bytes bytes;
  while (source.encode_initial(cursor, 1'000, bytes)) {
  }
  protocol::Upload piece;
  piece.channel = channel;
  piece.bytes = bytes;
  peer.send(piece);
  peer.send(protocol::UploadEnd{channel});
}

}  // namespace

TEST_CASE("guarantee 8: under accept a replica takes over the new master's state, ahead of it or behind") {
  const std::size_t commits_before = GENERATE(2u, 9u);
  const std::size_t commits_after = GENERATE(0u, 1u, 5u, 30u);
  World world;
  Handle handle = set_keys(world.host(), commits_before, "key00", "old");
  handle.modify([](Map& map) { map.set("key01", "old only"); });
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), {});
  REQUIRE(replica.wait_for(handle.update_id(), 1s));
  const Epoch epoch = replica.epoch();
  CHECK(epoch == handle.epoch());

  world.restart();
  handle = set_keys(world.host(), commits_after, "key00", "new");
  REQUIRE(handle.epoch() != epoch);
  REQUIRE(world.wait([&] { return replica.epoch() == handle.epoch(); }));
  CHECK(replica.update_id() == commits_after);
  // A key that the new master never set has its initial value again.
  const std::string expected = commits_after == 0 ? "-" : "new" + std::to_string(commits_after - 1);
  CHECK(values_of(replica.view()) == Texts{expected, "-", "-", "-"});
  CHECK(replica.status().state == LinkState::live);

  // The new history goes on from there.
  handle.modify([](Map& map) { map.set("key02", "on"); });
  REQUIRE(replica.wait_for(commits_after + 1, 1s));
  CHECK(replica.view().at("key02") == "on");
}

TEST_CASE("guarantee 8: callbacks hear of keys that fell back to their initial value") {
  World world;
  const Handle handle = world.host();
  handle.modify([](Map& map) { map.begin_modification().set("key01", "x").set("key02", "y").commit(); });
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), {});
  REQUIRE(replica.wait_for(1, 1s));
  Texts heard;
  replica.on_update([&](const auto& diff, const auto& before) {
    CHECK_FALSE(diff.is_full());
    for (const auto& [key, value] : diff.changes()) heard.push_back(key + ":" + before.at(key) + ">" + value);
  });
  world.restart();
  const Handle next = world.host();
  next.modify([](Map& map) { map.begin_modification().set("key00", "z").set("key02", "y2").commit(); });
  REQUIRE(world.wait([&] { return replica.epoch() == next.epoch(); }));
  world.time.run_ready();
  std::sort(heard.begin(), heard.end());
  CHECK(heard == Texts{"key00:->z", "key01:x>-", "key02:y>y2"});
}

TEST_CASE("guarantee 8: under hold a replica keeps its last state and says so, also on later reconnects") {
  World world;
  const Handle handle = set_keys(world.host(), 3, "key00", "old");
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), ReplicaOptions{.epoch_policy = EpochPolicy::hold});
  Follower other(world.make_map(remote), {});
  REQUIRE(replica.wait_for(3, 1s));

  world.restart();
  const Handle next = set_keys(world.host(), 5, "key00", "new");
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::failed; }));
  for (int i = 0; i < 3; ++i) {
    CHECK(replica.status().reason == StateErrc::epoch_changed);
    CHECK(replica.epoch() == handle.epoch());
    CHECK(replica.update_id() == 3);
    CHECK(replica.view().at("key00") == "old2");
    // It is one replica's choice: the link serves the others.
    REQUIRE(world.wait([&] { return other.epoch() == next.epoch(); }));
    CHECK(other.view().at("key00") == "new4");
    const UpdateId head = next.update_id();
    CHECK(remote->send_event(next.hash(), set_key("key01", "x")).update_id == head + 1);
    const auto connections = world.port->connections();
    world.port->cut_all();
    REQUIRE(world.wait([&] { return world.port->connections() > connections; }));
    world.time.advance(1s);
    REQUIRE(remote->status().state == LinkState::live);
  }
}

TEST_CASE("guarantee 8: a plain map refuses another epoch's diff unless it is full") {
  World world;
  const Handle handle = set_keys(world.host(), 3, "key00", "old");
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  CHECK(map.sync() == 3);
  Map master = make_master();
  master.set("key01", "x");
  CHECK(error_of([&] { map.apply(master.diff(0, 1)); }) == StateErrc::wrong_epoch);
  const auto full = Diff<std::string, std::string>::full(master);
  CHECK(error_of([&] { map.apply(full, EpochPolicy::hold); }) == StateErrc::epoch_changed);
  CHECK(map.epoch() == handle.epoch());
  CHECK(map.update_id() == 3);
  CHECK(map.apply(full));
  CHECK(values_of(map) == Texts{"-", "x", "-", "-"});

  // And over the wire: the same map asks the restarted master.
  world.restart();
  const Handle next = set_keys(world.host(), 1, "key02", "new");
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  CHECK(map.sync() == 1);
  CHECK(map.epoch() == next.epoch());
  CHECK(values_of(map) == Texts{"-", "-", "new0", "-"});
}

TEST_CASE("guarantee 8: a wait ends with epoch_changed when the master was restarted") {
  World world;
  world.host();
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), {});
  REQUIRE(world.wait([&] { return replica.epoch() != 0; }));
  std::error_code ended = StateErrc::busy;
  auto call = replica.on_reached(7, [&](std::error_code code) { ended = code; });
  world.restart();
  set_keys(world.host(), 10, "key00", "new");
  CHECK(error_of([&] { replica.wait_for(8, 120s); }) == StateErrc::epoch_changed);
  CHECK(ended == StateErrc::epoch_changed);
  CHECK(replica.wait_for(8, 1s));
}

namespace {

/// A replica and a plain map that stand at update id 5 of a master, which was restarted since; and the position of the
/// first event of the new master, sent by another client before the replica has heard of the restart.
struct Restarted {
  explicit Restarted(EpochPolicy policy)
      : replica((set_keys(world.host(), 5, "key00", "old"), world.make_map(remote)),
                ReplicaOptions{.epoch_policy = policy}),
        plain(world.make_map(remote)),
        fresh(world.make_map(remote)) {
    REQUIRE(replica.wait_for(5, 1s));
    REQUIRE(plain.set_update_id(5) == 5);
    before = replica.position();
    REQUIRE(plain.position() == before);
    world.restart();
    writer = world.connect();
    at = writer->send_event(world.make_map(writer).hash(), set_key("key00", "new"));
    REQUIRE(at.epoch != before.epoch);
    REQUIRE(at.update_id == 1);
    REQUIRE(replica.position() == before);
  }

  World world;
  std::shared_ptr<Remote> remote = world.connect();
  Follower replica;
  Map plain;
  Map fresh;
  std::shared_ptr<Remote> writer;
  Position before;
  Position at;
};

}  // namespace

TEST_CASE("guarantee 8: under accept a wait for a write waits for the new master's state") {
  Restarted t(EpochPolicy::accept);
  std::error_code ended = StateErrc::busy;
  std::string shown;
  const auto pending = t.replica.on_reached(t.at, [&](std::error_code code) {
    ended = code;
    shown = t.replica.view().at("key00");
  });
  CHECK(ended == StateErrc::busy);
  CHECK_FALSE(t.replica.wait_for(t.at, 0s));  // 5 of the old epoch is not 1 of the new one
  CHECK(t.replica.view().at("key00") == "old4");
  CHECK(t.replica.wait_for(t.at, 60s));
  CHECK(t.replica.view().position() == t.at);
  CHECK(t.replica.view().at("key00") == "new");
  CHECK_FALSE(ended);
  CHECK(shown == "new");

  // What was written to the old master can't be read any more, and nobody waits for it.
  const TimePoint now = t.world.time.now();
  CHECK(error_of([&] { t.replica.wait_for(t.before, 60s); }) == StateErrc::epoch_changed);
  t.replica.on_reached(t.before, [&](std::error_code code) { ended = code; });
  CHECK(ended == StateErrc::epoch_changed);
  CHECK(error_of([&] { t.replica.wait_for(Position{t.before.epoch, 0}, 60s); }) == StateErrc::epoch_changed);
  CHECK(t.world.time.now() == now);
}

TEST_CASE("guarantee 8: under hold a wait for a write of the new master ends at once") {
  Restarted t(EpochPolicy::hold);
  const bool has_heard_of_it = GENERATE(false, true);
  INFO("has heard of it: " << has_heard_of_it);
  if (has_heard_of_it) {
    REQUIRE(t.world.wait([&] { return t.replica.status().reason == StateErrc::epoch_changed; }));
  }
  const TimePoint now = t.world.time.now();
  CHECK(error_of([&] { t.replica.wait_for(t.at, 60s); }) == StateErrc::epoch_changed);
  std::error_code ended;
  t.replica.on_reached(t.at, [&](std::error_code code) { ended = code; });
  CHECK(ended == StateErrc::epoch_changed);
  CHECK(t.world.time.now() == now);

  // The state that it holds was reached, and stays so.
  CHECK(t.replica.wait_for(t.before, 0s));
  CHECK(t.replica.wait_for(Position{t.before.epoch, 4}, 0s));
  CHECK(t.replica.view().at("key00") == "old4");
  if (has_heard_of_it) {  // a newer one will not come
    CHECK(error_of([&] {
            t.replica.wait_for(Position{t.before.epoch, 6}, 60s);
          }) == StateErrc::epoch_changed);
    CHECK(error_of([&] { t.replica.wait_for(6, 60s); }) == StateErrc::epoch_changed);
    CHECK(t.world.time.now() == now);
  }
}

TEST_CASE("guarantee 8: a plain map reads a write of the new master, and never one of another") {
  Restarted t(EpochPolicy::accept);
  SECTION("its position is ahead by number") {
    CHECK(t.plain.set_update_id(t.at) == 1);
    CHECK(t.plain.position() == t.at);
    CHECK(values_of(t.plain) == Texts{"new", "-", "-", "-"});
    CHECK(t.plain.set_update_id(t.at) == 1);
  }
  SECTION("it was never moved") {
    CHECK(t.fresh.set_update_id(t.at) == 1);
    CHECK(t.fresh.position() == t.at);
  }
  SECTION("the write is of the old master, and was lost") {
    const Position lost{t.before.epoch, 6};
    CHECK(error_of([&] { t.plain.set_update_id(lost); }) == StateErrc::epoch_changed);
    CHECK(t.plain.position() == t.before);
    CHECK(values_of(t.plain) == Texts{"old4", "-", "-", "-"});
    CHECK(error_of([&] { t.fresh.set_update_id(lost); }) == StateErrc::epoch_changed);
    CHECK(t.fresh.position() == Position{});
    CHECK(t.plain.sync() == 1);
    CHECK(t.plain.epoch() == t.at.epoch);
    CHECK(error_of([&] { t.plain.set_update_id(t.before); }) == StateErrc::epoch_changed);
    CHECK(t.plain.position() == t.at);
  }
  SECTION("what it shows already needs no server") {
    t.world.server.reset();
    CHECK(t.plain.set_update_id(t.before) == 5);
    CHECK(error_of([&] { t.plain.set_update_id(t.at); }) == StateErrc::unavailable);
    CHECK(t.plain.position() == t.before);
  }
}

TEST_CASE(
    "guarantee 8: an answer's position is of the master that ran the event, wherever the restart comes") {
  // The server goes after each step of the way of an event, and the remote finds the next one.
  bool is_answered_first = false;
  for (std::size_t steps = 0; !is_answered_first; ++steps) {
    INFO("after step " << steps);
    World world;
    const Handle old = set_keys(world.host(), 5, "key00", "old");
    const auto remote = world.connect();
    const Map map = world.make_map(remote);
    const Sent sent = Sent::send(world, remote, map.hash(), set_key("key01", "a"));
    world.run_steps(steps);
    is_answered_first = sent.is_finished();
    const Position expected{old.epoch(), 6};
    world.restart();
    const Handle next = set_keys(world.host(), 2, "key00", "new");
    world.run_steps(1'000);  // the remote hears of it
    REQUIRE(world.wait([&] { return sent.is_finished() && remote->status().state == LinkState::live; }));
    const Position later = remote->send_event(map.hash(), set_key("key02", "b"));
    REQUIRE(later.epoch == next.epoch());
    REQUIRE(later == next.position());
    std::string value;
    next.modify([&](const Map& state) { value = state.at("key01"); });
    if (sent.error()) {
      REQUIRE(sent.error() == StateErrc::outcome_unknown);
      REQUIRE(value == "-");
    } else if (value == "a") {  // it had not gone out before the restart
      REQUIRE(sent.position() == Position{next.epoch(), 3});
    } else {
      REQUIRE(sent.position() == expected);
    }
  }
}

TEST_CASE(
    "guarantee 8: on every reconnect a remote does what freeze did, so a master that lost its maps has them "
    "again") {
  World world;
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  Follower replica(Map(map), {});
  CHECK(remote->send_event(map.hash(), set_key("key00", "a")).update_id == 1);
  for (int i = 0; i < 3; ++i) {
    world.restart();  // hosts nothing
    const Epoch epoch = replica.epoch();
    REQUIRE(world.wait([&] { return replica.epoch() != epoch && replica.epoch() != 0; }));
    CHECK(replica.update_id() == 0);
    CHECK(values_of(replica.view()) == Texts{"-", "-", "-", "-"});
    CHECK(remote->send_event(map.hash(), set_key("key00", "b")).update_id == 1);
    REQUIRE(replica.wait_for(1, 1s));
    CHECK(replica.view().at("key00") == "b");
  }
}

TEST_CASE("guarantee 8: of many clients that bring one map back, one uploads and the others wait for it") {
  World world;
  const Map map = make_master(40, std::string(50, 'i'));
  std::vector<std::shared_ptr<RawPeer>> peers;
  for (int i = 0; i < 4; ++i) {
    peers.push_back(connect_raw(world.time, *world.port, password));
    peers.back()->send(open_of(map.hash()));
    world.time.run_ready();
  }
  const auto asked = [&] {
    std::vector<std::size_t> who;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      if (peers[i]->find<protocol::UploadWanted>()) who.push_back(i);
    }
    return who;
  };
  CHECK(asked() == std::vector<std::size_t>{0});

  SECTION("the upload of the first serves all") {
    upload(*peers[0], map);
    world.time.run_ready();
    CHECK(asked() == std::vector<std::size_t>{0});
    for (const auto& peer : peers) CHECK(peer->find<protocol::Opened>().has_value());
  }
  SECTION("the next one is asked when a link is lost during the upload") {
    protocol::Upload half;
    half.channel = 1;
    const Bytes bytes(1, std::byte{5});
    half.bytes = bytes;
    peers[0]->send(half);
    world.time.run_ready();
    peers[0]->abort();
    world.time.run_ready();
    CHECK(asked() == std::vector<std::size_t>{0, 1});
    peers[1]->send(protocol::CloseChannel{1});  // this one thinks better of it
    world.time.run_ready();
    CHECK(asked() == std::vector<std::size_t>{0, 1, 2});
    upload(*peers[2], map);
    world.time.run_ready();
    CHECK(asked() == std::vector<std::size_t>{0, 1, 2});
    CHECK(peers[2]->find<protocol::Opened>().has_value());
    CHECK(peers[3]->find<protocol::Opened>().has_value());
  }
  SECTION("an upload that is not the map it is said to be ends its session, and the next one is asked") {
    upload(*peers[0], make_master(40, std::string(50, 'x')));
    world.time.run_ready();
    CHECK(peers[0]->goodbye() == StateErrc::hash_mismatch);
    CHECK_FALSE(peers[0]->is_open());
    CHECK(asked() == std::vector<std::size_t>{0, 1});
    upload(*peers[1], map);
    world.time.run_ready();
    for (std::size_t i = 1; i < peers.size(); ++i) CHECK(peers[i]->find<protocol::Opened>().has_value());
  }
}

}  // namespace syncstate::testing::g08_restarted_master_test
