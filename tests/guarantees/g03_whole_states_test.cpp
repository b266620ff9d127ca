// Guarantee 3: a replica shows the state at some update id, never a mixture, and never goes back within an
// epoch.
#include <cstddef>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"

namespace syncstate::testing::g03_whole_states_test {
namespace {

/// What every key is set to by commit `id`.
std::string value_of(UpdateId id, std::size_t bytes) {
  std::string value = std::to_string(id);
  return value + std::string(bytes > value.size() ? bytes - value.size() : 0, '.');
}

/// Looks at a replica after every step of the world.
struct Watcher {
  explicit Watcher(const Follower& r, std::size_t bytes) : replica(r), value_bytes(bytes) {}

  void look() {
    const auto view = replica.view();
    const std::string expected = view.update_id() == 0 ? "-" : value_of(view.update_id(), value_bytes);
    for (const auto& [key, value] : view) {
      if (value != expected) FAIL("at " << view.update_id() << " " << key << " is " << value);
    }
    if (view.epoch() == epoch && view.update_id() < newest) {
      FAIL("from " << newest << " back to " << view.update_id());
    }
    states += view.update_id() != newest ? 1 : 0;
    epoch = view.epoch();
    newest = view.update_id();
  }

  const Follower& replica;
  std::size_t value_bytes;
  Epoch epoch = 0;
  UpdateId newest = 0;
  std::size_t states = 0;
};

struct Load {
  const char* name;
  std::size_t keys;
  std::size_t value_bytes;
};

}  // namespace

TEST_CASE(
    "guarantee 3: a view never mixes two update ids and never goes back, whatever the frames and links do") {
  // Frames of 200 bytes: the first load fits one frame, the second is a transfer, of the third every value is
  // cut.
  const auto load = GENERATE(Load{"frames", 5, 12}, Load{"transfers", 40, 12}, Load{"cut values", 6, 700});
  const bool is_every_step = GENERATE(false, true);
  const auto seed = GENERATE(1u, 2u, 3u);
  INFO(load.name << (is_every_step ? ", every step" : "") << ", seed " << seed);
  std::mt19937 random(seed);
  const auto below = [&random](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };

  ServerCoreOptions options;
  options.limits.piece_bytes = 200;
  World world(options);
  const Handle handle = world.host(load.keys);
  const auto remote = world.connect();
  Follower replica(world.make_map(remote, load.keys), ReplicaOptions{.every_step = is_every_step});
  Watcher watcher(replica, load.value_bytes);
  const auto run = [&](std::size_t steps) {
    world.time.run_until(
        [&, left = steps]() mutable {
          watcher.look();
          return left-- == 0;
        },
        0ms);
  };

  std::size_t cuts = 0;
  for (UpdateId id = 1; id <= 250; ++id) {
    world.port->faults().read_bytes = 1 + below(300);
    world.port->faults().buffer_bytes = 1 + below(2'000);
    handle.modify([&](Map& map) {
      const std::string value = value_of(id, load.value_bytes);
      for (std::size_t key = 0; key < load.keys; ++key) map.set(key_name(key), value);
    });
    run(below(40));
    if (below(25) == 0) {
      ++cuts;
      world.port->cut_all();
      run(below(10));
      world.time.advance(std::chrono::milliseconds(below(400)));
      watcher.look();
    }
  }
  world.port->faults().read_bytes = 5'000;
  REQUIRE(world.wait([&] {
    watcher.look();
    return replica.update_id() == 250;
  }));
  CHECK(cuts > 0);
  CHECK(watcher.states > 10);
}

TEST_CASE("guarantee 3: a transfer to which a writer never leaves time shows whole states too, and ends") {
  ServerCoreOptions options;
  options.limits.piece_bytes = 200;
  World world(options);
  const Handle handle = world.host(60);
  const auto write = [&](UpdateId id) {
    handle.modify([&](Map& map) {
      for (std::size_t key = 0; key < 60; ++key) map.set(key_name(key), value_of(id, 20));
    });
  };
  UpdateId id = 0;
  for (int i = 0; i < 3; ++i) write(++id);
  world.port->faults().read_bytes = 100;
  world.port->faults().buffer_bytes = 1;  // one frame in flight
  const auto remote = world.connect();
  Follower replica(world.make_map(remote, 60), {});
  Watcher watcher(replica, 20);
  for (int step = 0; step < 3'000; ++step) {
    world.run_steps(3);
    watcher.look();
    write(++id);
  }
  // Without a snapshot the keys that change on and on would keep every transfer open for ever.
  CHECK(watcher.states >= 3);
  REQUIRE(world.wait([&] { return replica.update_id() == id; }));
  watcher.look();
}

TEST_CASE("guarantee 3: what a cut link had staged is never shown") {
  ServerCoreOptions options;
  options.limits.piece_bytes = 200;
  World world(options);
  const Handle handle = world.host(60);
  const auto remote = world.connect();
  Follower replica(world.make_map(remote, 60), {});
  REQUIRE(world.wait([&] { return replica.epoch() != 0; }));
  Watcher watcher(replica, 20);
  world.port->faults().read_bytes = 50;
  for (UpdateId id = 1; id <= 60; ++id) {
    handle.modify([&](Map& map) {
      for (std::size_t key = 0; key < 60; ++key) map.set(key_name(key), value_of(id, 20));
    });
    world.run_steps(static_cast<std::size_t>(id));  // the transfer is cut ever later
    world.port->cut_all();
    watcher.look();
    if (id % 10 != 0) continue;
    REQUIRE(world.wait([&] {
      watcher.look();
      return replica.update_id() == id;
    }));
  }
}

}  // namespace syncstate::testing::g03_whole_states_test
