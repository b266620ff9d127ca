// Guarantee 2: one commit, one update id, and every diff leads exactly where it says.
#include <algorithm>
#include <cstddef>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"

namespace syncstate::testing::g02_linear_history_test {
namespace {

using Texts = std::vector<std::string>;
constexpr std::size_t keys = 8;

/// One random commit; some set a key to the value that it has, some set it back to the initial one.
void change_something(Map& map, std::mt19937& random) {
  const std::size_t count = 1 + random() % 3;
  for (std::size_t i = 0; i < count; ++i) {
    map.set(key_name(random() % keys), random() % 4 == 0 ? "-" : std::to_string(random() % 5));
  }
}

}  // namespace

TEST_CASE("guarantee 2: every commit adds exactly 1 to the update id, and 0 is the initial state") {
  Map map = make_master(keys);
  CHECK(map.update_id() == 0);
  CHECK(map.set("key00", "a") == 1);
  CHECK(map.set("key00", "a") == 2);
  CHECK(map.begin_modification().set("key01", "b").set("key02", "c").set("key01", "d").commit() == 3);
  CHECK(map.begin_modification().commit() == 3);
  CHECK(map.update_id() == 3);

  World world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  const Map copy = world.make_map(remote);
  for (UpdateId id = 1; id <= 20; id += 3) {
    CHECK(remote->send_event(copy.hash(), set_all("x")).update_id == id);
    CHECK(handle.modify([](Map& m) { m.set("key00", "y"); }).update_id == id + 1);
    CHECK(remote->send_event(copy.hash(), set_key("key01", "z")).update_id == id + 2);
    CHECK(handle.update_id() == id + 2);
  }
}

TEST_CASE("guarantee 2: diff(a, b) applied at a is the state at its end, for all a and b") {
  constexpr UpdateId head = 40;
  const std::size_t log_diffs = GENERATE(0u, 1u, 7u, 4'096u);
  const auto seed = GENERATE(range(1u, 6u));
  INFO("log of " << log_diffs << ", seed " << seed);
  std::mt19937 random(seed);
  Map master = make_master(keys, "-", MapOptions{.log_diffs = log_diffs});
  Map follower(Role::replica);
  push_keys(follower, keys);
  follower.freeze();
  std::vector<Map> replicas{follower};
  std::vector<Texts> states{values_of(master)};
  while (master.update_id() < head) {
    detail::MapAccess::begin_transaction(master);
    change_something(master, random);
    detail::MapAccess::commit_transaction(master);
    states.push_back(values_of(master));
    follower.apply(master.diff(follower.update_id(), master.update_id()));
    replicas.push_back(follower);
  }
  for (UpdateId a = 0; a <= head; ++a) {
    for (UpdateId b = 0; b <= head + 2; ++b) {
      const auto diff = master.diff(a, b);
      INFO("diff(" << a << ", " << b << ")");
      if (b <= a) {
        REQUIRE(diff.is_empty());
        REQUIRE(diff.upto_update_id() == a);
        continue;
      }
      const bool is_logged = log_diffs >= head - a;
      // Every commit of this test is small, so the log ends with its number of diffs alone.
      const UpdateId expected = is_logged ? std::min(b, head) : head;
      REQUIRE(diff.from_update_id() == a);
      REQUIRE(diff.epoch() == master.epoch());
      REQUIRE(diff.upto_update_id() == expected);
      Map at_a = replicas[a];
      at_a.apply(diff);
      REQUIRE(at_a.update_id() == expected);
      REQUIRE(values_of(at_a) == states[expected]);
    }
  }
  CHECK(error_of([&] { static_cast<void>(master.diff(head + 1, head + 2)); }) == StateErrc::wrong_position);
}

TEST_CASE("guarantee 2: set_update_id over a link ends at the update id wished for, or at the head") {
  constexpr UpdateId head = 25;
  const std::size_t log_diffs = GENERATE(0u, 6u, 4'096u);
  INFO("log of " << log_diffs);
  World world;
  std::mt19937 random(1);
  const Handle handle = world.host(keys, "-", MapOptions{.log_diffs = log_diffs});
  const auto remote = world.connect();
  std::vector<Map> replicas{world.make_map(remote, keys)};
  while (handle.update_id() < head) {
    handle.modify([&](Map& map) { change_something(map, random); });
    replicas.push_back(replicas.back());
    REQUIRE(replicas.back().sync() == handle.update_id());
  }
  for (UpdateId a = 0; a <= head; a += 3) {
    for (UpdateId b = 0; b <= head + 2; ++b) {
      Map map = replicas[a];
      const UpdateId reached = map.set_update_id(b);
      INFO("from " << a << " to " << b);
      if (b <= a) {
        REQUIRE(reached == a);
      } else {
        const bool is_logged = log_diffs >= head - a;
        REQUIRE(reached == (is_logged ? std::min(b, head) : head));
      }
      REQUIRE(map.update_id() == reached);
      REQUIRE(values_of(map) == values_of(replicas[reached]));
    }
  }
}

TEST_CASE("guarantee 2: who asks for every step is told of every commit, one by one") {
  World world;
  const Handle handle = world.host(keys);
  const auto remote = world.connect();
  Follower replica(world.make_map(remote, keys), ReplicaOptions{.every_step = true});
  std::vector<std::pair<UpdateId, UpdateId>> steps;
  replica.on_update(
      [&](const auto& diff) { steps.emplace_back(diff.from_update_id(), diff.upto_update_id()); });
  std::mt19937 random(1);
  std::vector<std::pair<UpdateId, UpdateId>> expected;
  for (UpdateId id = 0; id < 500; ++id) {
    handle.modify([&](Map& map) { change_something(map, random); });
    expected.emplace_back(id, id + 1);
  }
  REQUIRE(replica.wait_for(500, 10s));
  world.time.run_ready();
  CHECK(steps == expected);
}

}  // namespace syncstate::testing::g02_linear_history_test
