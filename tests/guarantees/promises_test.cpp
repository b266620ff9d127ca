// What docs/guarantees.md promises besides the ten guarantees.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"
#include "syncstate/backoff.hpp"

namespace syncstate::testing::promises_test {
namespace {

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("promise: every lost link leads back to a live one, wherever it was lost") {
  // From the first byte of the hello to the first diff: the map is uploaded by every life of the server.
  bool was_cut = true;
  for (std::size_t cut_after = 0; was_cut; cut_after += 7) {
    World world;
    world.port->faults().read_bytes = 3;
    const auto remote = world.connect();
    Map map(remote);
    push_keys(map, 4);
    map.freeze(0ms);
    Follower replica(Map(map), {});
    const auto is_live = [&] { return replica.status().state == LinkState::live && replica.epoch() != 0; };
    world.run_steps(cut_after);
    was_cut = !is_live();
    INFO("cut after " << cut_after << " steps");
    world.port->cut_all();
    world.time.run_ready();
    REQUIRE(world.wait(is_live));
    const UpdateId id = remote->send_event(map.hash(), set_key("key00", "x"));
    REQUIRE(replica.wait_for(id, 1s));
    // And again, with the server gone for a while and another one in its place.
    world.port->set_unreachable(true);
    world.restart();
    world.run_steps(cut_after, 60s);
    world.port->set_unreachable(false);
    REQUIRE(world.wait([&] { return is_live() && replica.update_id() == 0; }));
    REQUIRE(remote->send_event(map.hash(), set_key("key00", "y")).update_id == 1);
    REQUIRE(replica.wait_for(1, 1s));
  }
}

TEST_CASE("promise: a replica follows through any number of cuts at any time") {
  const auto seed = GENERATE(range(1u, 6u));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  World world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), {});
  for (int i = 0; i < 200; ++i) {
    world.port->faults().read_bytes = 1 + random() % 100;
    handle.modify([&](Map& map) { map.set(key_name(random() % 4), std::to_string(i)); });
    world.run_steps(random() % 200, std::chrono::milliseconds(random() % 500));
    if (random() % 2 == 0) world.port->cut_all();
  }
  handle.modify([](Map& map) { map.set("key00", "last"); });
  REQUIRE(replica.wait_for(201, 120s));
  CHECK(replica.view().at("key00") == "last");
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::live; }));
}

TEST_CASE("promise: failed keeps its reason and is still retried, at the slowest pace") {
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();
  const auto remote =
      std::make_shared<Remote>(time, port, RemoteCoreOptions{.password = password, .seed = 1});
  Map map(remote);
  push_keys(map, 4);
  map.freeze(0ms);
  Follower replica(Map(map), {});
  {
    inproc::StateServer<std::string, std::int64_t, Command> other(time, port, {.passwords = {password}});
    other.start();
    CHECK(error_of([&] { map.freeze(); }) == StateErrc::type_mismatch);
    for (int minute = 0; minute < 10; ++minute) {
      CHECK(replica.status().state == LinkState::failed);
      CHECK(replica.status().reason == StateErrc::type_mismatch);
      CHECK_THAT(replica.status().detail, contains_text("{string: i64}"));
      CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "x")); }) ==
            StateErrc::type_mismatch);
      time.advance(1min);
    }
    CHECK(remote->status().state == LinkState::live);
  }
  Server server(time, port, {.passwords = {password}});
  server.start();
  REQUIRE(time.run_until([&] { return replica.status().state == LinkState::live; }, 60s));
}

TEST_CASE(
    "promise: reads are valid before any server answered and while it is down, and their age is known") {
  World world;
  world.port->set_unreachable(true);
  const auto remote = world.connect();
  Map map(remote);
  push_keys(map, 2);
  map.freeze(0ms);
  Follower replica(Map(map), {});
  CHECK(values_of(replica.view()) == Texts{"-", "-"});
  CHECK(replica.epoch() == 0);
  CHECK(replica.age() == Duration::max());
  CHECK(replica.status().state == LinkState::connecting);

  world.port->set_unreachable(false);
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::live; }));
  CHECK(remote->send_event(map.hash(), set_key("key00", "x")).update_id == 1);
  REQUIRE(replica.wait_for(1, 1s));
  // A link at rest says every 5 s that nothing is new.
  for (int i = 0; i < 30; ++i) {
    world.time.advance(1s);
    CHECK(replica.age() <= 6s);
  }

  world.server->stop();
  world.time.run_ready();
  const Duration age = replica.age();
  world.time.advance(10min);
  CHECK(replica.age() == age + 10min);
  CHECK(replica.status().state == LinkState::stale);
  CHECK(values_of(replica.view()) == Texts{"x", "-"});
}

TEST_CASE("promise: a replica that is live knows the age of what it shows") {
  // Looked at after every step: at the head from the start, one diff behind, and a transfer behind.
  const std::size_t commits = GENERATE(0u, 1u, 40u);
  const bool every_step = GENERATE(false, true);
  const bool has_callback = GENERATE(false, true);  // while it is due, what comes is staged
  INFO(commits << " commits, every step: " << every_step << ", callback: " << has_callback);
  ServerCoreOptions options;
  options.limits.piece_bytes = 100;
  World world(options);
  const Handle handle = world.host(20);
  for (std::size_t i = 0; i < commits; ++i) {
    handle.modify([&](Map& map) { map.set(key_name(i % 20), std::string(30, 'x')); });
  }
  const auto remote = world.connect();
  Follower replica(world.make_map(remote, 20), ReplicaOptions{.every_step = every_step});
  if (has_callback) replica.on_update([](const auto&) {});
  world.port->faults().read_bytes = has_callback ? 10'000 : 50;  // many steps at once, or a part of one
  for (int round = 0; round < 3; ++round) {
    bool is_live = false;
    while (!is_live) {
      REQUIRE(world.time.pending() != 0);
      world.run_steps(1, 60s);
      is_live = replica.status().state == LinkState::live;
      if (!is_live) continue;
      // A replica that was live before may be live again a callback before it shows what came meanwhile.
      if (has_callback && round != 0) world.time.run_ready();
      CHECK(replica.age() == 0ms);
      CHECK(replica.update_id() == handle.update_id());
    }
    handle.modify([&](Map& map) { map.set("key00", std::to_string(round)); });
    world.port->cut_all();
    world.time.run_ready();
    CHECK(replica.status().state == LinkState::stale);
  }
}

TEST_CASE("promise: backoff is fully jittered from the first attempt on, and capped") {
  std::mt19937_64 rng(1);
  const BackoffOptions options;
  for (unsigned attempt = 0; attempt < 100; ++attempt) {
    auto cap = 250ms;
    for (unsigned i = 0; i < attempt && cap < 30s; ++i) cap *= 2;
    cap = std::min<std::chrono::milliseconds>(cap, 30s);
    std::chrono::milliseconds least = 1h;
    std::chrono::milliseconds most = 0ms;
    for (int i = 0; i < 1'000; ++i) {
      const auto wait = backoff(options, attempt, rng);
      least = std::min(least, wait);
      most = std::max(most, wait);
    }
    CHECK(least < cap / 20);
    CHECK(most <= cap);
    CHECK(most > cap - cap / 20);
  }
}

TEST_CASE("promise: callbacks run once per applied diff, after it is visible, and may use the replica") {
  World world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), {});
  std::vector<UpdateId> heard;
  replica.on_update([&](const auto& diff, const auto& before) {
    heard.push_back(diff.upto_update_id());
    CHECK(before.update_id() == diff.from_update_id());
    CHECK(replica.update_id() == diff.upto_update_id());
    CHECK(replica.view().at("key00") == std::to_string(diff.upto_update_id()));
    CHECK(replica.status().state == LinkState::live);
    replica.on_reached(diff.upto_update_id(), [](std::error_code) {});
    // What could never return is refused.
    CHECK(error_of([&] { replica.wait_for(diff.upto_update_id() + 1, 1s); }) == StateErrc::would_deadlock);
  });
  for (UpdateId id = 1; id <= 10; ++id) {
    handle.modify([id](Map& map) { map.set("key00", std::to_string(id)); });
    world.time.run_ready();
  }
  CHECK(heard == std::vector<UpdateId>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
}

TEST_CASE("promise: no destructor waits for the network") {
  World world;
  auto remote = world.connect();
  auto replica = std::make_unique<Follower>(world.make_map(remote), ReplicaOptions{});
  const MapHash hash = replica->hash();
  remote->send_event(hash, set_key("key00", "w"));  // from here on events leave at once
  world.port->faults().is_server_deaf = true;
  const Sent sent = Sent::send(world, remote, hash, set_key("key00", "x"));
  world.time.run_ready();
  const TimePoint before = world.time.now();
  replica.reset();
  remote.reset();
  world.server.reset();
  CHECK(world.time.now() == before);
  world.time.run_ready();
  CHECK(sent.error() == StateErrc::outcome_unknown);
}

TEST_CASE(
    "promise: on a link that follows a map, the answer to an event comes after the diff that holds its "
    "effect") {
  const std::size_t read_bytes = GENERATE(1u, 50u, 100'000u);
  ServerCoreOptions options;
  options.limits.piece_bytes = 100;  // so that some effects are transfers
  World world(options);
  const Handle handle = world.host(20);
  const auto remote = world.connect();
  Follower merged(world.make_map(remote, 20), {});
  Follower every_step(world.make_map(remote, 20), ReplicaOptions{.every_step = true});
  REQUIRE(world.wait([&] { return merged.epoch() != 0 && every_step.epoch() != 0; }));
  world.port->faults().read_bytes = read_bytes;
  world.port->faults().buffer_bytes = 1;
  std::vector<Sent> sent;
  for (int i = 0; i < 40; ++i) {
    const std::string value(static_cast<std::size_t>(i), 'x');
    const Change change = i % 5 == 0   ? Change{{"nothing", "", value}}
                          : i % 3 == 0 ? set_all(value)
                                       : set_key("key00", value);
    sent.push_back(Sent::send(world, remote, handle.hash(), change));
  }
  const auto check = [&] {
    for (const Sent& event : sent) {
      if (!event.is_finished()) continue;
      if (event.result() > merged.update_id() || event.result() > every_step.update_id()) {
        FAIL("answered as " << event.result() << ", shown " << merged.update_id() << " and "
                            << every_step.update_id());
      }
    }
    return sent.back().is_finished();
  };
  REQUIRE(world.wait(check));
}

TEST_CASE("promise: frames of different maps take turns, at most 64 KiB each") {
  World world;
  const Handle large = world.host(100, std::string(100, '-'));
  const Handle small = world.host(2);
  large.modify([](Map& map) {
    for (std::size_t i = 0; i < 100; ++i) map.set(key_name(i), std::string(40'000, 'x'));
  });
  const auto peer = connect_raw(world.time, *world.port, password);
  world.port->faults().buffer_bytes = 1;
  peer->send(open_of(large.hash(), 1, protocol::FollowMode::merged));
  peer->send(open_of(small.hash(), 2, protocol::FollowMode::merged));
  REQUIRE(world.wait([&] { return peer->find<protocol::Transfer>().has_value(); }));
  small.modify([](Map& map) { map.set("key00", "urgent"); });
  world.time.run_ready();
  std::size_t urgent_at = 0;
  std::size_t end_at = 0;
  const auto& frames = peer->received();
  for (std::size_t i = 0; i < frames.size(); ++i) {
    CHECK(frames[i].body.size() <= (std::size_t{64} << 10) + 16);
    if (frames[i].kind == protocol::FrameKind::step) urgent_at = i;
    if (frames[i].kind == protocol::FrameKind::diff) {
      if (protocol::decode_body<protocol::DiffMessage>(frames[i].body).stream == 1) end_at = i;
    }
  }
  REQUIRE(urgent_at != 0);
  REQUIRE(end_at > 50);
  CHECK(urgent_at < 10);
}

}  // namespace syncstate::testing::promises_test
