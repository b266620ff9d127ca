// The replica: whole states, in order, callbacks after visibility, waits that end.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/dummy_remote.hpp"
#include "syncstate/inproc/virtual_executor.hpp"
#include "syncstate/replica.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/threads/thread_executor.hpp"

namespace replica_test {

namespace ss = syncstate;
using namespace std::chrono_literals;
using ss::StateErrc;

namespace {

/// An int that can refuse to be copied, and knows how many of it there are.
struct Fragile {
  Fragile() : Fragile(0) {}
  explicit Fragile(int v) : value(v) { ++alive; }
  Fragile(const Fragile& other) : value(other.value) {
    fail_perhaps();
    ++alive;
  }
  Fragile(Fragile&& other) noexcept : value(other.value) { ++alive; }
  Fragile& operator=(const Fragile& other) {
    fail_perhaps();
    value = other.value;
    return *this;
  }
  Fragile& operator=(Fragile&&) noexcept = default;
  ~Fragile() { --alive; }

  static void fail_perhaps() {
    if (copies_left >= 0 && copies_left-- == 0) throw std::bad_alloc();
  }

  int value;
  static inline int alive = 0;
  static inline int copies_left = -1;  // so many copies succeed, the next throws; -1: all succeed
};

}  // namespace

}  // namespace replica_test

template <>
struct syncstate::Codec<replica_test::Fragile> {
  static void encode(const replica_test::Fragile& v, ByteWriter& out) {
    out.put_varint(static_cast<unsigned>(v.value));
  }
  static replica_test::Fragile decode(ByteReader& in) {
    return replica_test::Fragile(static_cast<int>(in.read_varint()));
  }
  static std::string type_name() { return "fragile"; }
};

namespace replica_test {

namespace {

constexpr auto test_limit = 60s;  // a limit, not a pause: nothing here takes that long

template <class V>
using MapOf = ss::StateMap<std::string, V>;
using Map = MapOf<int>;
using Diff = ss::Diff<std::string, int>;
using View = ss::View<std::string, int>;
using Replica = ss::Replica<std::string, int>;

/// Hands the test what a replica gave to `follow`.
template <class V>
struct ScriptedRemote {
  explicit ScriptedRemote(std::shared_ptr<ss::Executor> e = nullptr) : own_executor(std::move(e)) {}

  void init(const MapOf<V>&) {}
  ss::Diff<std::string, V> fetch_updates(const MapOf<V>& map, ss::UpdateId) {
    return ss::Diff<std::string, V>(map, map.epoch(), map.update_id(), map.update_id());
  }
  ss::Subscription follow(const MapOf<V>& map, std::shared_ptr<ss::DiffSink<std::string, V>> to) {
    // It does not say that it leaves the values alone, so they are there.
    for (const auto& [key, value] : map) CHECK(map.get(key) == &value);
    sink = std::move(to);
    return ss::Subscription([this] { is_ended = true; });
  }
  std::shared_ptr<ss::Executor> executor() { return own_executor; }

  std::shared_ptr<ss::Executor> own_executor;
  std::shared_ptr<ss::DiffSink<std::string, V>> sink;
  std::atomic<bool> is_ended{false};
};

template <class M>
void push_keys(M& map, int keys) {
  for (int i = 0; i < keys; ++i) {
    map.push("key" + std::to_string(i), typename M::mapped_type(0));
  }
}

template <class V = int>
MapOf<V> make_master(int keys) {
  MapOf<V> map(ss::Role::master);
  push_keys(map, keys);
  map.freeze();
  return map;
}

template <class R, class V = int>
MapOf<V> make_replica_map(std::shared_ptr<R> remote, int keys) {
  MapOf<V> map(std::move(remote));
  push_keys(map, keys);
  map.freeze();
  return map;
}

/// A master, a remote and the virtual time they live in.
struct World {
  explicit World(int key_count = 4) : keys(key_count), master(make_master(key_count)) {}

  Map replica_map() { return make_replica_map<ScriptedRemote<int>>(remote, keys); }
  std::error_code give(const Diff& diff) { return remote->sink->on_diff(diff); }
  std::error_code give(ss::UpdateId from, ss::UpdateId upto) { return give(master.diff(from, upto)); }
  /// The master sets a key and the replica gets that step.
  std::error_code step(const std::string& key, int value) {
    const ss::UpdateId from = master.update_id();
    master.set(key, value);
    return give(from, master.update_id());
  }
  /// Another life of the master, which has set these keys.
  Diff full_diff_of_new_master(const std::vector<std::pair<std::string, int>>& changes) {
    master = make_master(keys);
    for (const auto& [key, value] : changes) master.set(key, value);
    return Diff::full(master);
  }

  int keys;
  ss::inproc::VirtualTime time;
  Map master;
  std::shared_ptr<ScriptedRemote<int>> remote = std::make_shared<ScriptedRemote<int>>(time.make_executor());
};

template <class Readable>
std::vector<int> values_of(const Readable& state) {
  std::vector<int> values;
  for (const auto& [key, value] : state) values.push_back(value);
  return values;
}

template <class F>
std::error_code code_of(F&& f) {
  try {
    f();
  } catch (const ss::StateError& error) {
    return error.code();
  }
  return {};
}

/// Something that one thread tells another.
class Flag {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    is_set_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, test_limit, [this] { return is_set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_set_ = false;
};

/// A thread that says when somebody waits on it.
struct ToldWhenWaiting final : ss::Executor {
  ss::TimePoint now() const override { return thread.now(); }
  void post(Task task) override { thread.post(std::move(task)); }
  void post_at(ss::TimePoint when, Task task) override { thread.post_at(when, std::move(task)); }
  bool runs_here() const override { return thread.runs_here(); }
  bool wait_until(ss::TimePoint limit, ss::detail::UniqueFunction<bool()> is_done) override {
    waiting.set();
    return thread.wait_until(limit, std::move(is_done));
  }
  void wake_waiters() override { thread.wake_waiters(); }

  Flag waiting;
  ss::ThreadExecutor thread;
};

}  // namespace

TEST_CASE("a replica can be read before any server was heard of") {
  World world;
  Replica replica(world.replica_map());
  CHECK(replica.update_id() == 0);
  CHECK(replica.epoch() == 0);
  CHECK(replica.hash() == world.master.hash());
  CHECK(replica.view().at("key1") == 0);
  CHECK(replica.status().state == ss::LinkState::connecting);
  CHECK(replica.age() == ss::Duration::max());
}

TEST_CASE("a replica begins at its map's state and position") {
  World world;
  world.master.set("key2", 5);
  Map map = world.replica_map();
  map.apply(world.master.diff(0, 1));
  Replica replica(std::move(map));
  CHECK(replica.view().at("key2") == 5);
  CHECK(world.remote->sink->position() == ss::Position{world.master.epoch(), 1});
}

TEST_CASE("a diff is visible when on_diff has returned, and older views stay") {
  World world;
  Replica replica(world.replica_map());
  const View before = replica.view();
  REQUIRE_FALSE(world.step("key1", 7));
  const View after = replica.view();
  CHECK(after.at("key1") == 7);
  CHECK(after[after.key("key1")] == 7);
  CHECK(after.position() == ss::Position{world.master.epoch(), 1});
  CHECK(after.hash() == before.hash());
  CHECK(*before.get("key1") == 0);
  CHECK(before.get("nothing") == nullptr);
  CHECK(before.update_id() == 0);
}

TEST_CASE("only a frozen replica can be followed") {
  World world;
  Map unfrozen(world.remote);
  CHECK(code_of([&] { Replica replica(std::move(unfrozen)); }) == StateErrc::unfrozen);
  CHECK(code_of([&] { Replica replica(make_master(1)); }) == StateErrc::invalid_option);
  CHECK(code_of([&] { Replica replica(world.replica_map(), {.poll_every = 0s}); }) ==
        StateErrc::invalid_option);
}

TEST_CASE("a replica of a map without a remote can be read") {
  Map map(ss::Role::replica);
  push_keys(map, 2);
  map.freeze();
  Replica replica(std::move(map));
  CHECK(replica.view().size() == 2);
  CHECK_FALSE(replica.wait_for(1, 0s));
}

TEST_CASE("diffs that do not fit change nothing") {
  World world;
  Replica replica(world.replica_map());
  REQUIRE_FALSE(world.step("key1", 1));
  for (int i = 2; i < 5; ++i) world.master.set("key1", i);
  CHECK(world.give(3, 4) == StateErrc::wrong_position);
  CHECK(world.give(2, 4) == StateErrc::wrong_position);  // one commit too late
  CHECK(replica.status().state == ss::LinkState::failed);
  CHECK(replica.status().reason == StateErrc::wrong_position);

  Map other_life = make_master(world.keys);
  other_life.set("key1", 9);
  other_life.set("key1", 9);
  CHECK(world.give(other_life.diff(0, 2)) == StateErrc::wrong_epoch);
  CHECK(world.give(Diff(make_master(world.keys + 1), world.master.epoch(), 1, 2)) ==
        StateErrc::hash_mismatch);
  CHECK(replica.view().at("key1") == 1);
  CHECK(replica.update_id() == 1);

  CHECK_FALSE(world.give(0, 1));  // a repeat
  CHECK_FALSE(world.give(0, 3));  // an overlap
  CHECK(replica.update_id() == 3);
  CHECK(replica.view().at("key1") == 3);
  CHECK(replica.status().state == ss::LinkState::connecting);  // what the remote said last
}

TEST_CASE("every view is one state of the master, and never an older one than before") {
  const auto seed = GENERATE(range(0U, 60U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto below = [&random](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  const int keys = 1 + static_cast<int>(below(12));
  World world(keys);
  Replica replica(world.replica_map());
  const bool has_callbacks = below(2) == 0;
  std::vector<int> follower = values_of(world.master);  // moved by what callbacks name alone
  ss::UpdateId follower_id = 0;
  if (has_callbacks) {
    replica.on_update([&](const Diff& diff, const View& before) {
      CHECK(before.update_id() == follower_id);
      CHECK(values_of(before) == follower);
      for (const auto& [key, value] : diff.changes()) follower[before.key(key).index()] = value;
      follower_id = diff.upto_update_id();
    });
  }
  std::vector<std::vector<int>> history{values_of(world.master)};
  std::vector<View> kept;
  for (int round = 0; round < 60; ++round) {
    for (std::size_t commits = below(4); commits > 0; --commits) {
      auto modification = world.master.begin_modification();
      for (std::size_t sets = 1 + below(3); sets > 0; --sets) {
        modification.set("key" + std::to_string(below(static_cast<std::size_t>(keys))),
                         static_cast<int>(below(1000)));
      }
      modification.commit();
      history.push_back(values_of(world.master));
    }
    const ss::UpdateId have = world.remote->sink->position().update_id;
    const ss::UpdateId from = have - std::min<ss::UpdateId>(have, below(3));
    const ss::UpdateId upto = from + below(5);
    const bool is_full = below(8) == 0;
    CHECK_FALSE(world.give(is_full ? Diff::full(world.master) : world.master.diff(from, upto)));
    if (below(2) == 0) world.time.run_ready();

    const View view = replica.view();
    REQUIRE(view.update_id() < history.size());
    CHECK(values_of(view) == history[view.update_id()]);
    if (!kept.empty()) CHECK(view.update_id() >= kept.back().update_id());
    if (below(3) == 0) kept.push_back(view);
    if (below(5) == 0 && !kept.empty()) kept.erase(kept.begin());
  }
  for (const View& view : kept) CHECK(values_of(view) == history[view.update_id()]);
  world.time.run_ready();
  CHECK(replica.update_id() == world.remote->sink->position().update_id);
  if (has_callbacks) CHECK(follower == values_of(replica.view()));
}

TEST_CASE("callbacks run once per diff, after it is visible, with the view it replaced") {
  World world;
  Replica replica(world.replica_map());
  std::vector<std::string> calls;
  replica.on_update([&](const auto& diff, const auto& before) {
    CHECK(replica.update_id() == diff.upto_update_id());
    CHECK(replica.view().at("key1") == static_cast<int>(diff.upto_update_id()));
    CHECK(before.update_id() == diff.from_update_id());
    CHECK(before.at("key1") == static_cast<int>(before.update_id()));
    calls.push_back(std::to_string(diff.from_update_id()) + ".." + std::to_string(diff.upto_update_id()));
  });
  const auto move_only = std::make_shared<int>(0);
  replica.on_update(
      [count = std::make_unique<int>(0), move_only](const Diff&) mutable { *move_only = ++*count; });

  CHECK_FALSE(world.step("key1", 1));
  CHECK(calls.empty());  // never inside on_diff
  CHECK(replica.update_id() == 1);
  world.time.run_ready();
  CHECK(calls == std::vector<std::string>{"0..1"});
  CHECK_FALSE(world.step("key1", 2));
  world.time.run_ready();
  CHECK(calls == std::vector<std::string>{"0..1", "1..2"});
  CHECK(*move_only == 2);
}

TEST_CASE("a map and a replica give the same verdict on any diff, and the right one") {
  constexpr ss::Epoch own = 7;
  constexpr ss::Epoch other = 8;
  const std::vector<ss::Position> positions{{0, 0}, {0, 2}, {own, 0}, {own, 1}, {own, 2}, {own, 3}};
  constexpr ss::UpdateId last = 4;
  int taken = 0;
  int refused = 0;
  int passed_over = 0;

  for (const ss::Position at : positions) {
    for (const ss::Epoch epoch : {ss::Epoch{0}, own, other}) {
      for (ss::UpdateId from = 0; from <= last; ++from) {
        for (ss::UpdateId upto = from; upto <= last; ++upto) {
          for (const bool is_full : {false, true}) {
            for (const bool has_keys : {false, true}) {
              for (const ss::EpochPolicy policy : {ss::EpochPolicy::accept, ss::EpochPolicy::hold}) {
                INFO("at " << at.epoch << "/" << at.update_id << ", diff " << epoch << ": " << from << ".."
                           << upto << (is_full ? ", full" : "") << (has_keys ? ", with keys" : "")
                           << (policy == ss::EpochPolicy::hold ? ", hold" : ""));
                World world;
                Map map = world.replica_map();
                if (at != ss::Position{}) map.apply(Diff(map, at.epoch, 0, at.update_id));
                Diff diff(map, epoch, from, upto, is_full);
                if (has_keys) diff.set("key1", 9);
                Replica replica(Map(map), {.epoch_policy = policy});
                REQUIRE(replica.view().position() == at);

                // What the documentation says, one sentence a line.
                const bool has_no_history = at == ss::Position{};
                std::error_code expected;
                bool moves = true;
                if (epoch == at.epoch && !is_full && from > at.update_id)
                  expected = StateErrc::wrong_position;
                if (epoch == at.epoch && !expected && upto <= at.update_id) moves = false;
                if (epoch != at.epoch && has_no_history && !is_full && from > 0)
                  expected = StateErrc::wrong_position;
                if (epoch != at.epoch && !has_no_history && !is_full) expected = StateErrc::wrong_epoch;
                if (epoch != at.epoch && !has_no_history && is_full && policy == ss::EpochPolicy::hold)
                  expected = StateErrc::epoch_changed;
                if (epoch != at.epoch && !expected && upto == 0 && has_keys)
                  expected = StateErrc::wrong_position;
                if (expected) moves = false;

                bool has_moved = false;
                const std::error_code of_map = code_of([&] { has_moved = map.apply(diff, policy); });
                const std::error_code of_replica = world.give(diff);
                REQUIRE(of_map == expected);
                REQUIRE(of_replica == expected);
                REQUIRE(has_moved == moves);
                const ss::Position expected_position = moves ? ss::Position{epoch, upto} : at;
                REQUIRE(map.epoch() == expected_position.epoch);
                REQUIRE(map.update_id() == expected_position.update_id);
                REQUIRE(replica.view().position() == expected_position);
                REQUIRE(world.remote->sink->position() == expected_position);
                const int expected_value = moves && has_keys ? 9 : 0;
                REQUIRE(map.at("key1") == expected_value);
                REQUIRE(replica.view().at("key1") == expected_value);
                if (expected) REQUIRE(replica.status().reason == expected);
                ++(expected ? refused : moves ? taken : passed_over);
              }
            }
          }
        }
      }
    }
  }
  CHECK((taken > 100 && refused > 100 && passed_over > 100));  // the table has all kinds
}

TEST_CASE("the diff of a callback begins where `before` stands, however it came") {
  World world;
  world.master.set("key0", 1);
  Replica replica(world.replica_map());
  struct Seen {
    ss::UpdateId before;
    ss::UpdateId from;
    ss::UpdateId upto;
    bool is_full;
    std::map<std::string, int> changes;
    bool operator==(const Seen&) const = default;
  };
  std::vector<Seen> seen;
  replica.on_update([&](const Diff& diff, const View& before) {
    Seen call{before.update_id(), diff.from_update_id(), diff.upto_update_id(), diff.is_full(), {}};
    for (const auto& [key, value] : diff.changes()) call.changes.emplace(key, value);
    CHECK(call.changes.size() == diff.size());
    CHECK(diff.epoch() == world.master.epoch());
    seen.push_back(std::move(call));
  });
  const auto change = [&](const std::string& key, int value) { world.master.set(key, value); };
  const auto take = [&] { return std::exchange(seen, {}); };
  using Calls = std::vector<Seen>;

  REQUIRE_FALSE(world.give(0, 1));
  world.time.run_ready();
  CHECK(take() == Calls{{0, 0, 1, false, {{"key0", 1}}}});

  change("key1", 2);
  change("key2", 3);
  REQUIRE_FALSE(world.give(0, 3));  // a merged diff that begins before the replica's position
  world.time.run_ready();
  CHECK(take() == Calls{{1, 1, 3, false, {{"key0", 1}, {"key1", 2}, {"key2", 3}}}});

  change("key3", 4);
  REQUIRE_FALSE(world.give(Diff::full(world.master)));  // a full one, in the same epoch
  world.time.run_ready();
  CHECK(take() == Calls{{3, 3, 4, false, {{"key0", 1}, {"key1", 2}, {"key2", 3}, {"key3", 4}}}});

  // A full diff may begin anywhere.
  REQUIRE_FALSE(world.give(Diff(world.master, world.master.epoch(), 9, 10, true).set("key3", 5)));
  world.time.run_ready();
  CHECK(take() == Calls{{4, 4, 10, false, {{"key0", 0}, {"key1", 0}, {"key2", 0}, {"key3", 5}}}});

  // What is staged while callbacks are due is merged, and begins where the first of it ended.
  const ss::Epoch epoch = world.master.epoch();
  REQUIRE_FALSE(world.give(Diff(world.master, epoch, 10, 11).set("key0", 6)));
  REQUIRE_FALSE(world.give(Diff(world.master, epoch, 9, 12).set("key1", 7)));
  REQUIRE_FALSE(world.give(Diff(world.master, epoch, 12, 13).set("key2", 8)));
  world.time.run_ready();
  CHECK(take() == Calls{{10, 10, 11, false, {{"key0", 6}}}, {11, 11, 13, false, {{"key1", 7}, {"key2", 8}}}});
  REQUIRE_FALSE(world.give(Diff(world.master, epoch, 13, 14).set("key0", 9)));
  REQUIRE_FALSE(world.give(Diff(world.master, epoch, 14, 15).set("key1", 10)));
  REQUIRE_FALSE(world.give(Diff(world.master, epoch, 0, 16, true).set("key0", 9)));
  world.time.run_ready();
  CHECK(take() == Calls{{13, 13, 14, false, {{"key0", 9}}},
                        {14, 14, 16, false, {{"key0", 9}, {"key1", 0}, {"key2", 0}, {"key3", 0}}}});

  // Into another epoch it leads from 0, because the old update ids mean nothing there.
  REQUIRE_FALSE(world.give(world.full_diff_of_new_master({{"key2", 11}})));
  world.time.run_ready();
  CHECK(take() == Calls{{16, 0, 1, false, {{"key0", 0}, {"key2", 11}}}});
}

TEST_CASE("diffs that come while callbacks run are merged") {
  World world;
  Replica replica(world.replica_map());
  std::vector<std::string> calls;
  replica.on_update([&](const Diff& diff) {
    calls.push_back(std::to_string(diff.from_update_id()) + ".." + std::to_string(diff.upto_update_id()));
  });
  for (int i = 1; i <= 5; ++i) CHECK_FALSE(world.step("key" + std::to_string(i % 3), i));
  CHECK(replica.update_id() == 1);  // the others wait for its callbacks
  CHECK(world.remote->sink->position().update_id == 5);
  CHECK_FALSE(replica.wait_for(6, 0s));  // runs the callbacks: this thread is the only one
  CHECK(calls == std::vector<std::string>{"0..1", "1..5"});
  CHECK(values_of(replica.view()) == values_of(world.master));
}

TEST_CASE("every step reaches the callbacks of a replica that asks for it, within bounds") {
  World world;
  Replica replica(world.replica_map(), {.every_step = true});
  CHECK(world.remote->sink->every_step());
  std::vector<ss::UpdateId> seen;
  replica.on_update([&](const Diff& diff) { seen.push_back(diff.upto_update_id()); });
  for (int i = 1; i <= 10; ++i) CHECK_FALSE(world.step("key1", i));
  world.time.run_ready();
  CHECK(seen == std::vector<ss::UpdateId>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});

  seen.clear();
  for (int i = 11; i <= 6'000; ++i) REQUIRE_FALSE(world.step("key1", i));
  world.time.run_ready();
  CHECK(seen.size() == 4'097);  // one round, 4,096 staged, the rest merged into the last
  CHECK(seen.back() == 6'000);
  CHECK(replica.view().at("key1") == 6'000);
}

TEST_CASE("what a callback throws is reported and stops nothing") {
  World world;
  std::vector<std::string> errors;
  Replica replica(world.replica_map(), {.on_error = [&](std::exception_ptr error) {
                    try {
                      std::rethrow_exception(error);
                    } catch (const std::exception& e) {
                      errors.emplace_back(e.what());
                    }
                  }});
  int calls = 0;
  replica.on_update([](const Diff&) { throw std::runtime_error("of no use"); });
  replica.on_update([&](const Diff&) { ++calls; });
  for (int i = 0; i < 2; ++i) {
    CHECK_FALSE(world.step("key1", i));
    world.time.run_ready();
  }
  CHECK(calls == 2);
  CHECK(errors == std::vector<std::string>{"of no use", "of no use"});
}

TEST_CASE("a new epoch brings keys back to their initial values, and callbacks are told") {
  World world;
  world.master.set("key3", 3);
  Map map = world.replica_map();
  map.apply(world.master.diff(0, 1));  // key3 was changed before there was a Replica
  Replica replica(std::move(map));
  CHECK_FALSE(world.step("key1", 1));
  const ss::Epoch first = replica.epoch();
  std::vector<ss::Epoch> formers;
  std::vector<std::pair<std::string, int>> named;
  replica.on_update([&](const Diff& diff, const View& before) {
    CHECK_FALSE(diff.is_full());
    CHECK(diff.from_update_id() == 0);
    CHECK(diff.epoch() != before.epoch());
    formers.push_back(before.epoch());
    for (const auto& [key, value] : diff.changes()) named.emplace_back(key, value);
  });
  CHECK_FALSE(world.give(world.full_diff_of_new_master({{"key2", 2}})));
  world.time.run_ready();
  CHECK(replica.epoch() == world.master.epoch());
  CHECK(replica.update_id() == 1);
  CHECK(values_of(replica.view()) == std::vector<int>{0, 0, 2, 0});
  std::sort(named.begin(), named.end());
  CHECK(named == std::vector<std::pair<std::string, int>>{{"key1", 0}, {"key2", 2}, {"key3", 0}});

  const ss::Epoch second = replica.epoch();
  CHECK_FALSE(world.give(world.full_diff_of_new_master({})));  // a master that has changed nothing yet
  world.time.run_ready();
  CHECK(replica.update_id() == 0);
  CHECK(values_of(replica.view()) == std::vector<int>{0, 0, 0, 0});
  CHECK(formers == std::vector<ss::Epoch>{first, second});

  CHECK_FALSE(
      world.give(world.full_diff_of_new_master({})));  // nothing changes but the epoch: nothing to call for
  world.time.run_ready();
  CHECK(replica.epoch() == world.master.epoch());
  CHECK(formers.size() == 2);
}

TEST_CASE("under hold a replica keeps its state and says so") {
  World world;
  Replica replica(world.replica_map(), {.epoch_policy = ss::EpochPolicy::hold});
  CHECK(world.remote->sink->epoch_policy() == ss::EpochPolicy::hold);
  CHECK_FALSE(world.step("key1", 1));  // the first epoch is no change of it
  std::error_code wait_code;
  replica.on_reached(9, [&](std::error_code code) { wait_code = code; });
  std::vector<ss::LinkState> told;
  replica.on_status([&](const ss::LinkStatus& status) { told.push_back(status.state); });

  CHECK(world.give(world.full_diff_of_new_master({{"key2", 2}})) == StateErrc::epoch_changed);
  world.remote->sink->on_status(
      {.state = ss::LinkState::live, .since = world.time.now(), .reason = {}, .detail = {}});
  world.time.run_ready();
  CHECK(replica.view().at("key1") == 1);
  CHECK(replica.view().at("key2") == 0);
  CHECK(replica.status().state == ss::LinkState::failed);
  CHECK(replica.status().reason == StateErrc::epoch_changed);
  CHECK(told == std::vector<ss::LinkState>{ss::LinkState::failed});
  CHECK(wait_code == StateErrc::epoch_changed);
}

TEST_CASE("wait_for ends with the state shown, with its limit, or with the epoch") {
  World world;
  Replica replica(world.replica_map());
  const auto later = world.time.make_executor();
  const auto start = world.time.now();
  CHECK(replica.wait_for(0, 0s));

  later->post_at(start + 2s, [&] { world.step("key1", 1); });
  CHECK_FALSE(replica.wait_for(1, 1s));
  CHECK(world.time.now() == start + 1s);
  CHECK(replica.wait_for(1, ss::Duration::max()));
  CHECK(world.time.now() == start + 2s);
  CHECK(replica.view().at("key1") == 1);

  later->post_at(start + 3s, [&] { world.give(world.full_diff_of_new_master({{"key1", 5}, {"key1", 6}})); });
  CHECK(code_of([&] { replica.wait_for(2, 5s); }) == StateErrc::epoch_changed);
  CHECK(world.time.now() == start + 3s);
  CHECK(replica.wait_for(2, 5s));
}

TEST_CASE("numbers of a new epoch are not taken for those of the old one while callbacks hold it back") {
  World world;
  Replica replica(world.replica_map());
  for (int i = 1; i <= 5; ++i) CHECK_FALSE(world.step("key1", i));
  replica.on_update([](const Diff&) {});
  CHECK_FALSE(world.step("key1", 6));  // its callbacks are due
  CHECK_FALSE(world.give(world.full_diff_of_new_master({{"key1", 77}})));
  CHECK(replica.update_id() == 6);  // still the former life
  CHECK(replica.wait_for(1, 1s));   // update id 1 of the new one
  CHECK(replica.view().at("key1") == 77);
}

TEST_CASE("a wait for a position waits for its epoch, and for its update id there") {
  std::vector<std::string> calls;  // outlives the replica, whose end ends a wait
  World world;
  Replica replica(world.replica_map());
  for (int i = 1; i <= 5; ++i) CHECK_FALSE(world.step("key1", i));
  const ss::Position old = replica.position();
  CHECK(old == ss::Position{world.master.epoch(), 5});
  CHECK(replica.wait_for(old, 0s));
  CHECK(replica.wait_for(ss::Position{old.epoch, 2}, 0s));
  CHECK_FALSE(replica.wait_for(ss::Position{old.epoch, 6}, 0s));

  const Diff first = world.full_diff_of_new_master({{"key1", 11}});
  const ss::Epoch next = world.master.epoch();
  const auto note = [&](std::string name) {
    return [&calls, &replica, name](std::error_code code) {
      calls.push_back(name + (code ? ": " + code.message() : " at " + std::to_string(replica.update_id())));
    };
  };
  replica.on_reached(ss::Position{next, 1}, note("next 1"));
  replica.on_reached(ss::Position{next, 2}, note("next 2"));
  auto cancelled = replica.on_reached(ss::Position{next, 1}, note("cancelled"));
  replica.on_reached(ss::Position{old.epoch, 6}, note("old 6"));
  replica.on_reached(ss::Position{old.epoch + next, 1}, note("never"));
  replica.on_reached(7, note("7"));
  CHECK(calls.empty());
  CHECK_FALSE(replica.wait_for(ss::Position{next, 1}, 0s));
  CHECK(cancelled.cancel());
  CHECK_FALSE(cancelled.cancel());

  CHECK_FALSE(world.give(first));
  const std::string over = ": " + make_error_code(StateErrc::epoch_changed).message();
  std::sort(calls.begin(), calls.end());
  CHECK(calls == std::vector<std::string>{"7" + over, "next 1 at 1", "old 6" + over});
  calls.clear();
  CHECK_FALSE(world.step("key1", 12));
  CHECK(calls == std::vector<std::string>{"next 2 at 2"});
  CHECK(code_of([&] { replica.wait_for(old, 60s); }) == StateErrc::epoch_changed);
  CHECK(code_of([&] { replica.wait_for(ss::Position{old.epoch, 0}, 60s); }) == StateErrc::epoch_changed);
  calls.clear();
  replica.on_reached(old, note("old 5"));
  CHECK(calls == std::vector<std::string>{"old 5" + over});
}

TEST_CASE("a position that no master gave is no wish for one that comes") {
  World world;
  Replica replica(world.replica_map());
  CHECK(replica.position() == ss::Position{});
  CHECK(replica.wait_for(replica.position(), 0s));
  std::error_code of_position;
  std::error_code of_number = StateErrc::busy;
  replica.on_reached(ss::Position{0, 1}, [&](std::error_code code) { of_position = code; });
  replica.on_reached(1, [&](std::error_code code) { of_number = code; });
  CHECK_FALSE(of_position);
  CHECK_FALSE(world.step("key1", 1));  // the first epoch, and its update id 1
  CHECK(of_position == StateErrc::epoch_changed);
  CHECK_FALSE(of_number);
  CHECK(code_of([&] { replica.wait_for(ss::Position{}, 60s); }) == StateErrc::epoch_changed);
}

TEST_CASE("a replica remembers the last 16 epochs that it has left") {
  World world;
  Replica replica(world.replica_map());
  CHECK_FALSE(world.step("key1", 1));
  std::vector<ss::Position> lives{replica.position()};
  const auto is_over = [&](std::size_t life) {
    return code_of([&] { replica.wait_for(lives[life], 0s); }) == StateErrc::epoch_changed;
  };
  for (std::size_t left = 1; left <= 20; ++left) {
    CHECK_FALSE(world.give(world.full_diff_of_new_master({{"key1", 2}})));
    lives.push_back(replica.position());
    INFO("has left " << left);
    for (std::size_t life = 0; life < left; ++life) CHECK(is_over(life) == (left - life <= 16));
    CHECK(replica.wait_for(lives.back(), 0s));
  }
  // One that comes back counts once, as the last one left.
  const Map current = world.master;  // a copy of a master has another epoch
  const ss::Epoch returning = lives[10].epoch;
  Diff back(current, returning, 0, 1, true);
  for (int i = 0; i < 3; ++i) {
    CHECK_FALSE(world.give(back));
    CHECK(replica.wait_for(lives[10], 0s));
    CHECK_FALSE(world.give(world.full_diff_of_new_master({})));
    CHECK(is_over(10));
  }
  lives.push_back(replica.position());
  for (const std::size_t life : {10U, 20U, 12U}) CHECK(is_over(life));
  for (int i = 0; i < 15; ++i) CHECK_FALSE(world.give(world.full_diff_of_new_master({})));
  CHECK(is_over(10));
  CHECK_FALSE(world.give(world.full_diff_of_new_master({})));
  CHECK_FALSE(is_over(10));
}

TEST_CASE("a wait that was over at once under hold, and one that can't come true any more") {
  World world;
  Replica replica(world.replica_map(), {.epoch_policy = ss::EpochPolicy::hold});
  const Diff first = [&] {
    world.master.set("key1", 1);
    return world.master.diff(0, 1);
  }();
  const ss::Position mine{world.master.epoch(), 1};
  const Diff other = world.full_diff_of_new_master({{"key1", 9}});
  const ss::Position theirs{world.master.epoch(), 1};
  std::error_code of_mine = StateErrc::busy;
  std::error_code of_theirs;
  replica.on_reached(mine, [&](std::error_code code) { of_mine = code; });
  replica.on_reached(theirs, [&](std::error_code code) { of_theirs = code; });
  CHECK_FALSE(world.give(first));
  CHECK_FALSE(of_mine);
  CHECK(of_theirs == StateErrc::epoch_changed);  // it will never go over to that epoch
  CHECK(code_of([&] { replica.wait_for(theirs, 60s); }) == StateErrc::epoch_changed);
  CHECK_FALSE(
      replica.wait_for(ss::Position{mine.epoch, 2}, 0s));  // its own master is there, as far as it knows

  CHECK(world.give(other) == StateErrc::epoch_changed);
  CHECK(replica.wait_for(mine, 0s));
  CHECK(code_of([&] { replica.wait_for(ss::Position{mine.epoch, 2}, 60s); }) == StateErrc::epoch_changed);
  CHECK(code_of([&] { replica.wait_for(2, 60s); }) == StateErrc::epoch_changed);
  CHECK(replica.status().reason == StateErrc::epoch_changed);

  // Its own master is back, and has no news: it waits for some again.
  world.remote->sink->on_current(world.time.now());
  CHECK_FALSE(replica.status().reason);
  CHECK_FALSE(replica.wait_for(ss::Position{mine.epoch, 2}, 0s));
  CHECK_FALSE(replica.wait_for(2, 0s));
}

TEST_CASE("an epoch counts as left when the next one is accepted, and as come to when it is shown") {
  World world;
  Replica replica(world.replica_map());
  replica.on_update([](const Diff&) {});
  CHECK_FALSE(world.step("key1", 1));  // its callbacks are due: what comes now is not shown
  const ss::Position old = replica.position();
  CHECK_FALSE(world.give(world.full_diff_of_new_master({{"key1", 5}})));
  const ss::Position next{world.master.epoch(), 1};
  CHECK(replica.position() == old);
  std::optional<std::error_code> ended;
  replica.on_reached(next, [&](std::error_code code) {
    ended = code;
    CHECK(replica.position() == next);
  });
  CHECK_FALSE(ended);
  CHECK(code_of([&] { replica.wait_for(old, 0s); }) == StateErrc::epoch_changed);
  CHECK(replica.wait_for(next, 1s));
  REQUIRE(ended);
  CHECK_FALSE(*ended);
}

TEST_CASE("no wait succeeds once a replica has ended, whatever it has shown") {
  World world;
  auto replica = std::make_optional<Replica>(world.replica_map());
  CHECK_FALSE(world.step("key1", 1));
  const ss::Position shown = replica->position();
  Replica& ending = *replica;
  std::vector<std::error_code> codes;
  const auto note = [&](std::error_code code) { codes.push_back(code); };
  replica->on_reached(9, [&](std::error_code code) {
    note(code);
    // Its end is under way, and tells us so.
    ending.on_reached(1, note);
    ending.on_reached(0, note);
    ending.on_reached(shown, note);
    ending.on_reached(ss::Position{shown.epoch + 1, 1}, note);
    codes.push_back(code_of([&] { ending.wait_for(0, 0s); }));
    codes.push_back(code_of([&] { ending.wait_for(1, 60s); }));
    codes.push_back(code_of([&] { ending.wait_for(shown, 60s); }));
  });
  replica->on_reached(ss::Position{shown.epoch + 1, 1}, note);
  replica.reset();
  CHECK(codes == std::vector<std::error_code>(9, StateErrc::stopped));
}

TEST_CASE("on_reached calls once, at once if reached, and can be cancelled") {
  World world;
  auto replica = std::make_optional<Replica>(world.replica_map());
  std::vector<std::string> calls;
  const auto note = [&](std::string name) {
    return
        [&calls, name](std::error_code code) { calls.push_back(name + (code ? ": " + code.message() : "")); };
  };
  auto at_once = replica->on_reached(0, note("zero"));
  CHECK(calls == std::vector<std::string>{"zero"});
  CHECK_FALSE(at_once.cancel());
  replica->on_reached(2, note("two"));
  replica->on_reached(1, note("one"));
  auto cancelled = replica->on_reached(1, note("cancelled"));
  replica->on_reached(3, note("three"));
  CHECK(cancelled.cancel());
  CHECK_FALSE(cancelled.cancel());
  world.master.set("key1", 1);
  world.master.set("key1", 2);
  CHECK_FALSE(world.give(0, 2));
  CHECK(calls == std::vector<std::string>{"zero", "one", "two"});
  replica.reset();
  REQUIRE(calls.size() == 4);
  CHECK(calls.back() == "three: stopped");
}

TEST_CASE("waiting where the wait could not end is refused") {
  World world;
  Replica replica(world.replica_map());
  std::error_code in_callback;
  std::error_code in_status;
  std::error_code in_reached;
  std::error_code on_remote;
  bool reached_already = false;
  replica.on_update([&](const Diff& diff) {
    in_callback = code_of([&] { replica.wait_for(diff.upto_update_id() + 1, 1s); });
    reached_already = replica.wait_for(diff.upto_update_id(), 1s);
  });
  replica.on_status([&](const ss::LinkStatus&) { in_status = code_of([&] { replica.wait_for(99, 1s); }); });
  replica.on_reached(1, [&](std::error_code) { in_reached = code_of([&] { replica.wait_for(99, 1s); }); });
  world.remote->own_executor->post([&] {
    on_remote = code_of([&] { replica.wait_for(99, 1s); });
    world.remote->sink->on_status({.state = ss::LinkState::live, .since = {}, .reason = {}, .detail = {}});
    world.step("key1", 1);
  });
  world.time.run_ready();
  CHECK(in_callback == StateErrc::would_deadlock);
  CHECK(in_status == StateErrc::would_deadlock);
  CHECK(in_reached == StateErrc::would_deadlock);
  CHECK(on_remote == StateErrc::would_deadlock);

  in_reached = {};
  replica.on_reached(2, [&](std::error_code) { in_reached = code_of([&] { replica.wait_for(99, 1s); }); });
  world.step("key1", 2);  // on this thread, so it is this one that brings the diffs
  CHECK(in_reached == StateErrc::would_deadlock);
  CHECK(reached_already);
}

TEST_CASE("status is told when it changes") {
  World world;
  Replica replica(world.replica_map());
  std::vector<ss::LinkStatus> told;
  replica.on_status([&](const ss::LinkStatus& status) { told.push_back(status); });
  const ss::LinkStatus live{
      .state = ss::LinkState::live, .since = world.time.now(), .reason = {}, .detail = {}};
  for (int i = 0; i < 2; ++i) {
    world.remote->sink->on_status(live);
    world.time.run_ready();
  }
  CHECK(told ==
        std::vector<ss::LinkStatus>{ss::LinkStatus{
            .state = ss::LinkState::connecting, .since = world.time.now(), .reason = {}, .detail = {}}});
  told.clear();
  world.remote->sink->on_current(world.time.now());
  world.time.run_ready();
  CHECK(told == std::vector<ss::LinkStatus>{live});
  CHECK(replica.status() == live);

  // No callback gets the same status twice in a row: neither when another one is added, nor when a change is undone
  // before it is told.
  std::vector<ss::LinkStatus> told_later;
  replica.on_status([&](const ss::LinkStatus& status) { told_later.push_back(status); });
  world.time.run_ready();
  CHECK(told_later == std::vector<ss::LinkStatus>{live});
  ss::LinkStatus stale = live;
  stale.state = ss::LinkState::stale;
  world.remote->sink->on_status(stale);
  world.remote->sink->on_status(live);
  world.time.run_ready();
  CHECK(told == std::vector<ss::LinkStatus>{live});
  CHECK(told_later == std::vector<ss::LinkStatus>{live});
}

TEST_CASE("a replica of a user's own remote is live once its age is known") {
  const bool every_step = GENERATE(false, true);
  const bool has_callbacks = GENERATE(false, true);
  INFO("every step: " << every_step << ", callbacks: " << has_callbacks);
  World world;
  Replica replica(world.replica_map(), {.every_step = every_step});
  if (has_callbacks) replica.on_update([](const Diff&) {});
  std::vector<ss::LinkState> told;
  const auto check = [&](bool is_live) {
    CHECK((replica.status().state == ss::LinkState::live) == is_live);
    CHECK((replica.age() != ss::Duration::max()) == is_live);
  };
  replica.on_status([&](const ss::LinkStatus& status) {
    told.push_back(status.state);
    check(status.state == ss::LinkState::live);
  });
  world.remote->sink->on_status({.state = ss::LinkState::live, .since = {}, .reason = {}, .detail = {}});
  check(false);
  CHECK_FALSE(world.step("key1", 1));
  check(!every_step);
  CHECK_FALSE(world.step("key1", 2));  // staged if there are callbacks
  check(!every_step);
  world.remote->sink->on_current(world.time.now());
  check(!every_step || !has_callbacks);
  world.time.run_ready();
  CHECK(replica.update_id() == 2);
  check(true);
  CHECK(told.back() == ss::LinkState::live);

  world.time.advance(1s);
  CHECK_FALSE(world.step("key1", 3));
  world.time.run_ready();
  CHECK(replica.age() == (every_step ? 1s : 0s));  // no news of the head but what `on_current` told
}

TEST_CASE("a callback whose thread can't be started is refused, and the replica takes diffs without it") {
  struct WithoutThread final : ss::Executor {
    ss::TimePoint now() const override { return executor->now(); }
    void post(Task task) override {
      if (fails) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
      executor->post(std::move(task));
    }
    void post_at(ss::TimePoint when, Task task) override { executor->post_at(when, std::move(task)); }
    bool runs_here() const override { return executor->runs_here(); }
    bool wait_until(ss::TimePoint limit, ss::detail::UniqueFunction<bool()> is_done) override {
      return executor->wait_until(limit, std::move(is_done));
    }
    void wake_waiters() override { executor->wake_waiters(); }

    std::shared_ptr<ss::Executor> executor;
    bool fails = true;
  };
  World world;
  const auto executor = std::make_shared<WithoutThread>();
  executor->executor = world.time.make_executor();
  Replica replica(world.replica_map(), {.executor = executor});
  int updates = 0;
  int states = 0;
  CHECK_THROWS_AS(replica.on_update([&](const Diff&) { ++updates; }), std::system_error);
  CHECK_THROWS_AS(replica.on_status([&](const ss::LinkStatus&) { ++states; }), std::system_error);
  CHECK_FALSE(world.step("key1", 1));
  CHECK(replica.view().at("key1") == 1);
  executor->fails = false;
  replica.on_update([&](const Diff&) { ++updates; });
  CHECK_FALSE(world.step("key1", 2));
  world.time.run_ready();
  CHECK(updates == 1);
  CHECK(states == 0);
}

TEST_CASE("age tells how long ago the state shown was the newest") {
  World world;
  Replica replica(world.replica_map());
  CHECK_FALSE(world.step("key1", 1));
  world.time.advance(3s);
  CHECK(replica.age() == 3s);
  world.remote->sink->on_current(world.time.now() - 1s);
  CHECK(replica.age() == 1s);
  world.remote->sink->on_current(world.time.now() - 2s);  // older news changes nothing
  CHECK(replica.age() == 1s);

  const auto other = world.time.make_executor();
  ss::Duration in_callback{};
  replica.on_update([&](const Diff& diff) {
    if (diff.upto_update_id() != 2) return;
    other->wait_until(other->now() + 5s, [] { return false; });
    world.step("key1", 3);  // staged behind this callback: what is shown is no longer the newest
    world.remote->sink->on_current(world.time.now());
    in_callback = replica.age();
  });
  CHECK_FALSE(world.step("key1", 2));
  CHECK(replica.age() == 0s);
  world.time.run_ready();
  CHECK(in_callback == 5s);
  CHECK(replica.update_id() == 3);
  CHECK(replica.age() == 0s);
}

TEST_CASE("a replica may end inside its own callback, and no callback starts after") {
  World world;
  auto replica = std::make_optional<Replica>(world.replica_map());
  int calls = 0;
  replica->on_update([&](const Diff&, const View& before) {
    ++calls;
    replica.reset();
    CHECK(before.at("key1") == 0);  // still ours
  });
  replica->on_update([&](const Diff&) { ++calls; });
  CHECK_FALSE(world.step("key1", 1));
  CHECK_FALSE(world.step("key1", 2));
  world.time.run_ready();
  CHECK(calls == 1);
  CHECK(world.remote->is_ended);
  CHECK(world.step("key1", 3) == StateErrc::stopped);  // a remote may be late
  world.time.run_ready();
  CHECK(calls == 1);
}

TEST_CASE("callbacks that are due when a replica ends do not start") {
  World world;
  int calls = 0;
  {
    Replica replica(world.replica_map());
    replica.on_update([&](const Diff&) { ++calls; });
    CHECK_FALSE(world.step("key1", 1));
  }
  world.time.run_ready();
  CHECK(calls == 0);
}

TEST_CASE("the destructor waits for a callback that runs on another thread") {
  auto remote = std::make_shared<ScriptedRemote<int>>();
  Map master = make_master(2);
  auto replica = std::make_optional<Replica>(make_replica_map<ScriptedRemote<int>>(remote, 2));
  Flag started;
  Flag release;
  std::atomic<bool> ended{false};
  replica->on_update([&](const Diff&) {
    started.set();
    release.wait();
    for (int i = 0; i < 20'000; ++i)
      std::this_thread::yield();  // long enough to be overtaken by who does not wait
    ended = true;
  });
  master.set("key1", 1);
  CHECK_FALSE(remote->sink->on_diff(master.diff(0, 1)));
  REQUIRE(started.wait());
  // Told by the replica's own end, before it waits for the callback.
  replica->on_reached(9, [&](std::error_code code) {
    if (code == StateErrc::stopped) release.set();
  });
  replica.reset();
  CHECK(ended);
}

TEST_CASE("a wait on another thread ends when the replica does") {
  const auto executor = std::make_shared<ToldWhenWaiting>();
  const auto remote = std::make_shared<ScriptedRemote<int>>();
  auto replica = std::make_optional<Replica>(make_replica_map<ScriptedRemote<int>>(remote, 2),
                                             ss::ReplicaOptions{.executor = executor});
  std::error_code code;
  std::thread waiter([&] { code = code_of([&] { replica->wait_for(1, test_limit); }); });
  REQUIRE(executor->waiting.wait());
  replica.reset();
  waiter.join();
  CHECK(code == StateErrc::stopped);
}

TEST_CASE("views may outlive the replica, and copies of the values are few") {
  constexpr int keys = 10;
  const int alive_before = Fragile::alive;
  {
    auto remote = std::make_shared<ScriptedRemote<Fragile>>();
    auto master = make_master<Fragile>(keys);
    std::optional<ss::View<std::string, Fragile>> kept;
    {
      ss::Replica<std::string, Fragile> replica(
          make_replica_map<ScriptedRemote<Fragile>, Fragile>(remote, keys));
      const auto follow = [&] {
        const auto from = master.update_id();
        master.set("key1", Fragile(static_cast<int>(from) + 1));
        return remote->sink->on_diff(master.diff(from, from + 1));
      };
      for (int i = 0; i < 5; ++i) REQUIRE_FALSE(follow());
      const int with_two = Fragile::alive;
      kept = replica.view();
      for (int i = 0; i < 50; ++i) REQUIRE_FALSE(follow());
      const int logged = 50;  // the master's log holds a value for each commit
      CHECK(Fragile::alive <= with_two + keys + logged);
      CHECK(kept->at("key1").value == 5);
      kept.reset();
      for (int i = 0; i < 50; ++i) REQUIRE_FALSE(follow());
      CHECK(Fragile::alive <= with_two + 2 * logged);
      kept = replica.view();
    }
    remote->sink.reset();
    CHECK(kept->at("key1").value == 105);
    CHECK(kept->size() == keys);
  }
  CHECK(Fragile::alive == alive_before);
}

namespace {

struct ModestRemote : ScriptedRemote<Fragile> {
  static constexpr bool follow_reads_values = false;

  ss::Subscription follow(const MapOf<Fragile>& map, std::shared_ptr<ss::DiffSink<std::string, Fragile>> to) {
    begins_at = {map.epoch(), map.update_id()};
    sink = std::move(to);
    return ss::Subscription([] {});
  }

  ss::Position begins_at;
};

}  // namespace

TEST_CASE("a replica takes the values of its map, unless somebody still reads them there") {
  constexpr int keys = 4;
  auto master = make_master<Fragile>(keys);
  master.set("key2", Fragile(5));
  const auto begin = [&](auto map) {
    map.apply(master.diff(0, 1));
    Fragile::copies_left = 0;
    std::optional<ss::Replica<std::string, Fragile>> replica;
    try {
      replica.emplace(std::move(map));
    } catch (const std::bad_alloc&) {
    }
    Fragile::copies_left = -1;
    return replica.has_value() && replica->view().at("key2").value == 5;
  };
  CHECK_FALSE(begin(
      make_replica_map<ScriptedRemote<Fragile>, Fragile>(std::make_shared<ScriptedRemote<Fragile>>(), keys)));
  MapOf<Fragile> alone(ss::Role::replica);
  push_keys(alone, keys);
  alone.freeze();
  CHECK(begin(std::move(alone)));
  const auto remote = std::make_shared<ModestRemote>();
  CHECK(begin(make_replica_map<ModestRemote, Fragile>(remote, keys)));
  CHECK(remote->begins_at == ss::Position{master.epoch(), 1});
}

TEST_CASE("what had changed before a replica took its map falls back in a new epoch") {
  auto master = make_master<Fragile>(4);
  master.set("key2", Fragile(5));
  const auto remote = std::make_shared<ModestRemote>();
  auto map = make_replica_map<ModestRemote, Fragile>(remote, 4);
  map.apply(master.diff(0, 1));
  ss::Replica<std::string, Fragile> replica(std::move(map));
  REQUIRE_FALSE(remote->sink->on_diff(ss::Diff<std::string, Fragile>::full(make_master<Fragile>(4))));
  CHECK(replica.view().at("key2").value == 0);
}

TEST_CASE("a diff that can't be copied changes nothing, and is taken later") {
  constexpr int keys = 4;
  auto remote = std::make_shared<ScriptedRemote<Fragile>>();
  auto master = make_master<Fragile>(keys);
  ss::Replica<std::string, Fragile> replica(make_replica_map<ScriptedRemote<Fragile>, Fragile>(remote, keys));
  const auto values = [&] {
    std::vector<int> all;
    const auto view = replica.view();
    for (const auto& [key, value] : view) all.push_back(value.value);
    return all;
  };
  int next = 1;
  for (int round = 0; round < 40; ++round) {
    const auto from = master.update_id();
    master.begin_modification()
        .set("key" + std::to_string(round % keys), Fragile(next))
        .set("key0", Fragile(next + 1))
        .commit();
    next += 2;
    const std::vector<int> shown = values();
    std::optional<ss::View<std::string, Fragile>> pinned;  // every other time the spare copy is taken
    if (round % 2 == 0) pinned = replica.view();
    int failures = 0;
    for (int copies = 0;; ++copies) {
      auto diff = master.diff(from, from + 1);
      Fragile::copies_left = copies;
      const std::error_code code = remote->sink->on_diff(std::move(diff));
      Fragile::copies_left = -1;
      if (!code) break;
      ++failures;
      CHECK(code == std::errc::not_enough_memory);
      CHECK(values() == shown);
      CHECK(replica.update_id() == from);
      CHECK(replica.status().state == ss::LinkState::failed);
    }
    CHECK(failures > 0);
    std::vector<int> expected;
    for (const auto& [key, value] : master) expected.push_back(value.value);
    CHECK(values() == expected);
    CHECK(replica.status().state == ss::LinkState::connecting);
  }
}

namespace {

/// Can only be asked; every fetch does what the test wants.
struct PolledRemote {
  void init(const Map&) {}
  Diff fetch_updates(const Map& map, ss::UpdateId) {
    ++fetches;
    if (during_fetch) during_fetch();
    if (error) throw ss::StateError(*error);
    if (map.epoch() != master.epoch() && map.epoch() != 0) return Diff::full(master);
    return master.diff(map.update_id(), master.update_id());
  }

  Map master = make_master(4);
  std::optional<StateErrc> error;
  std::function<void()> during_fetch;
  int fetches = 0;
};

}  // namespace

TEST_CASE("a remote that can't be followed is polled") {
  ss::inproc::VirtualTime time;
  auto remote = std::make_shared<PolledRemote>();
  int reports = 0;
  Replica replica(make_replica_map<PolledRemote>(remote, 4),
                  {.poll_every = 100ms,
                   .executor = time.make_executor(),
                   .on_error = [&](const std::exception_ptr&) { ++reports; }});
  std::vector<ss::UpdateId> seen;
  replica.on_update([&](const Diff& diff) { seen.push_back(diff.upto_update_id()); });
  CHECK(remote->fetches == 0);
  time.run_ready();
  CHECK(remote->fetches == 1);
  CHECK(replica.status().state == ss::LinkState::live);
  CHECK(replica.age() == 0s);

  remote->master.set("key1", 1);
  CHECK(replica.wait_for(1, 1s));
  CHECK(replica.view().at("key1") == 1);
  time.run_ready();
  CHECK(seen == std::vector<ss::UpdateId>{1});
  CHECK(remote->fetches == 2);

  remote->error = StateErrc::unavailable;
  time.advance(1s);
  CHECK(remote->fetches == 12);
  CHECK(replica.status().state == ss::LinkState::stale);
  CHECK(replica.status().reason == StateErrc::unavailable);
  CHECK(replica.age() >= 1s);
  remote->error = StateErrc::unauthorized;
  time.advance(100ms);
  CHECK(replica.status().state == ss::LinkState::failed);
  CHECK(reports == 0);  // what a remote is there to say is no accident
  remote->during_fetch = [] { throw std::runtime_error("an accident"); };
  time.advance(100ms);
  CHECK(replica.status().detail == "an accident");
  CHECK(reports == 1);
  remote->during_fetch = nullptr;

  remote->error.reset();
  remote->master = make_master(4);
  remote->master.set("key2", 2);
  time.advance(100ms);
  CHECK(replica.status().state == ss::LinkState::live);
  CHECK(values_of(replica.view()) == std::vector<int>{0, 0, 2, 0});
  CHECK(replica.epoch() == remote->master.epoch());
  remote->master.set("key2", 3);
  time.advance(100ms);
  CHECK(replica.view().at("key2") == 3);
}

TEST_CASE("what a slow poll brought is as old as the question") {
  ss::inproc::VirtualTime time;
  const auto clock = time.make_executor();
  auto remote = std::make_shared<PolledRemote>();
  Replica replica(make_replica_map<PolledRemote>(remote, 4),
                  {.poll_every = 10s, .executor = time.make_executor()});
  CHECK(replica.age() == ss::Duration::max());
  remote->during_fetch = [&] { clock->wait_until(time.now() + 2s, [] { return false; }); };
  const bool has_news = GENERATE(false, true);
  if (has_news) remote->master.set("key1", 1);
  time.run_ready();
  CHECK(replica.status().state == ss::LinkState::live);
  CHECK(replica.update_id() == (has_news ? 1U : 0U));
  CHECK(replica.age() == 2s);
  // Nothing new for a while: each poll makes it as young as that.
  for (int i = 0; i < 5; ++i) {
    time.advance(12s);
    CHECK(replica.age() <= 12s);
    CHECK(replica.age() >= 2s);
  }
  // And polls that fail make it older and older.
  remote->error = StateErrc::unavailable;
  const ss::Duration before = replica.age();
  time.advance(60s);
  CHECK(replica.age() >= before + 48s);
}

TEST_CASE("a diff that is refused leaves the age as it was") {
  World world;
  Replica replica(world.replica_map(), {.epoch_policy = ss::EpochPolicy::hold});
  CHECK_FALSE(world.step("key1", 1));
  world.time.advance(3s);
  CHECK(world.give(world.full_diff_of_new_master({{"key2", 2}})) == StateErrc::epoch_changed);
  CHECK(replica.age() == 3s);
}

namespace {

/// A replica of large texts that shows every step, and its master. Callbacks do not run until `time` does.
struct LargeSteps {
  static constexpr std::size_t value_bytes = std::size_t{1} << 20;
  using Texts = MapOf<std::string>;

  explicit LargeSteps(ss::UpdateId key_count) : keys(key_count) {
    Texts followed(remote);
    for (Texts* map : {&master, &followed}) {
      for (ss::UpdateId i = 0; i < keys; ++i) map->push(key(i), "-");
      map->freeze();
    }
    replica.emplace(std::move(followed),
                    ss::ReplicaOptions{.every_step = true, .executor = time.make_executor()});
  }

  /// Commits one key with a new value of a mebibyte, and gives the replica the diff.
  void step() {
    const ss::UpdateId from = master.update_id();
    master.set(key(from), std::string(value_bytes, static_cast<char>('a' + from % 26)));
    REQUIRE_FALSE(remote->sink->on_diff(master.diff(from, from + 1)));
  }
  [[nodiscard]] std::string key(ss::UpdateId of) const { return "key" + std::to_string(of % keys); }

  ss::UpdateId keys;
  ss::inproc::VirtualTime time;
  std::shared_ptr<ScriptedRemote<std::string>> remote =
      std::make_shared<ScriptedRemote<std::string>>(time.make_executor());
  Texts master{ss::Role::master};
  std::optional<ss::Replica<std::string, std::string>> replica;
};

}  // namespace

TEST_CASE("steps that wait for slow callbacks take 16 MiB and no more, and none is lost", "[staged]") {
  constexpr int steps = 50;
  LargeSteps large(4);
  std::vector<ss::UpdateId> heard;
  ss::UpdateId at = 0;
  bool is_joined = true;
  large.replica->on_update([&](const auto& diff) {
    is_joined = is_joined && diff.from_update_id() == at;
    at = diff.upto_update_id();
    heard.push_back(at);
  });
  for (int i = 0; i < steps; ++i) large.step();
  CHECK(large.replica->update_id() == 1);
  large.time.run_ready();
  CHECK(large.replica->update_id() == steps);
  CHECK(is_joined);
  CHECK(at == steps);
  // The first is shown at once. What is staged are steps of 16 MiB together; the rest is one merged diff.
  CHECK(heard.size() >= 16);
  CHECK(heard.size() <= 18);
  for (const auto& [key, value] : large.master) CHECK(large.replica->view().at(key) == value);
}

TEST_CASE("steps are staged again once there is room", "[staged]") {
  World world;
  Replica replica(world.replica_map(), {.every_step = true});
  std::vector<ss::UpdateId> heard;
  replica.on_update([&](const Diff& diff) { heard.push_back(diff.upto_update_id()); });
  for (int round = 0; round < 3; ++round) {
    heard.clear();
    for (int i = 0; i < 3'000; ++i) REQUIRE_FALSE(world.step("key1", i));
    world.time.run_ready();
    CHECK(heard.size() == 3'000);
  }
}

TEST_CASE("each step that is shown makes room for another one, while others wait", "[staged]") {
  constexpr int steps = 60;
  LargeSteps large(1);
  int heard = 0;
  large.replica->on_update([&](const auto&) {
    ++heard;
    if (large.master.update_id() < steps) large.step();  // as many wait as before
  });
  for (int i = 0; i < 15; ++i) large.step();
  large.time.run_ready();
  CHECK(large.replica->update_id() == steps);
  CHECK(heard == steps);
}

TEST_CASE("the end of a polling replica does not wait for the network") {
  auto remote = std::make_shared<PolledRemote>();
  Flag fetching;
  Flag release;
  Flag fetched;
  remote->during_fetch = [&] {
    fetching.set();
    release.wait();
    fetched.set();
  };
  {
    Replica replica(make_replica_map<PolledRemote>(remote, 4));
    REQUIRE(fetching.wait());
  }
  release.set();
  CHECK(fetched.wait());
}

TEST_CASE("a replica on the dummy remote stays where it is") {
  ss::inproc::VirtualTime time;
  Replica replica(make_replica_map<ss::DummyRemote>(std::make_shared<ss::DummyRemote>(), 2),
                  {.executor = time.make_executor()});
  time.advance(10s);
  CHECK(replica.update_id() == 0);
  CHECK(replica.status().state == ss::LinkState::live);
}

TEST_CASE("readers on other threads see whole states, in order, while diffs are applied") {
  constexpr int keys = 16;
  constexpr int commits = 3'000;
  constexpr int readers = 3;
  auto remote = std::make_shared<ScriptedRemote<int>>();
  Map master = make_master(keys);
  Replica replica(make_replica_map<ScriptedRemote<int>>(remote, keys));
  std::atomic<int> callbacks{0};
  std::atomic<bool> is_callback_right{true};
  replica.on_update([&](const Diff& diff, const View& before) {
    ++callbacks;
    if (replica.update_id() < diff.upto_update_id() || before.update_id() != diff.from_update_id()) {
      is_callback_right = false;
    }
  });
  std::atomic<bool> done{false};
  std::atomic<int> mixtures{0};
  std::atomic<int> steps_back{0};
  std::vector<std::thread> threads;
  for (int r = 0; r < readers; ++r) {
    threads.emplace_back([&, r] {
      std::mt19937 random(static_cast<unsigned>(r));
      std::vector<View> kept;
      ss::UpdateId last = 0;
      while (!done) {
        const View view = replica.view();
        if (view.update_id() < last) ++steps_back;
        last = view.update_id();
        if (random() % 64 == 0) kept.push_back(view);
        if (kept.size() > 3) kept.erase(kept.begin());
        for (const View* one : {&view, kept.empty() ? &view : &kept[random() % kept.size()]}) {
          for (const auto& [key, value] : *one) {
            if (value != static_cast<int>(one->update_id()))
              ++mixtures;  // every commit sets all keys to its id
          }
        }
      }
    });
  }
  for (int i = 1; i <= commits; ++i) {
    auto modification = master.begin_modification();
    for (int k = 0; k < keys; ++k) modification.set("key" + std::to_string(k), i);
    modification.commit();
    const auto from = static_cast<ss::UpdateId>(i) - 1;
    if (remote->sink->on_diff(master.diff(from, from + 1))) FAIL("a diff was refused");
  }
  CHECK(replica.wait_for(commits, test_limit));
  done = true;
  for (auto& thread : threads) thread.join();
  CHECK(mixtures == 0);
  CHECK(steps_back == 0);
  CHECK(is_callback_right);
  CHECK(callbacks > 0);
}

}  // namespace replica_test
