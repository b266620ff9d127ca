// Maps and diffs against a naive model, over random histories (docs/guarantees.md, 2).
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate::testing::history_test {
namespace {

using Map = StateMap<int, std::string>;
using State = std::map<int, std::string>;
using IntDiff = Diff<int, std::string>;

State state_of(const Map& map) {
  State state;
  for (const auto& [key, value] : map) state.emplace(key, value);
  return state;
}

State applied(State state, const IntDiff& diff, const State& initial) {
  if (diff.is_full()) state = initial;
  std::set<int> seen;
  for (const auto& [key, value] : diff.changes()) {
    CHECK(seen.insert(key).second);  // each key once
    state[key] = value;
  }
  return state;
}

// One master, and every state it ever had, the plain way.
struct History {
  History(unsigned seed, MapOptions options) : random(seed), map(Role::master, options) {
    std::vector<int> keys;
    const int count = pick(1, 12);
    for (int i = 0; i < count; ++i) keys.push_back(i * 3 - 7);
    std::shuffle(keys.begin(), keys.end(), random);
    for (const int key : keys) map.push(key, "initial " + std::to_string(key));
    map.freeze();
    states.push_back(state_of(map));
    set_in.emplace_back();
  }

  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }
  int any_key() { return pick(0, static_cast<int>(map.size()) - 1) * 3 - 7; }
  std::string any_value() {
    return pick(0, 5) == 0 ? std::string()
                           : std::string(pick(0, 20) == 0 ? 60 : 3, 'v') + std::to_string(++values);
  }

  void step() {
    State next = states.back();
    std::set<int> keys;
    if (pick(0, 3) == 0) {
      auto modification = map.begin_modification();
      const int count = pick(0, 15);
      for (int i = 0; i < count; ++i) {
        const int key = any_key();
        next[key] = any_value();
        keys.insert(key);
        modification.set(key, next[key]);
        REQUIRE(*modification.get(key) == next[key]);
      }
      const UpdateId before = map.update_id();
      REQUIRE(modification.commit() == before + (keys.empty() ? 0 : 1));
    } else {
      const int key = any_key();
      next[key] = any_value();
      keys.insert(key);
      REQUIRE(map.set(key, next[key]) == states.size());
    }
    if (!keys.empty()) {
      states.push_back(next);
      set_in.push_back(keys);
    }
    REQUIRE(map.update_id() + 1 == states.size());
  }

  std::set<int> keys_set_in(UpdateId from, UpdateId upto) const {
    std::set<int> keys;
    for (UpdateId id = from + 1; id <= upto; ++id) keys.insert(set_in[id].begin(), set_in[id].end());
    return keys;
  }

  std::mt19937 random;
  Map map;
  std::vector<State> states;          // by update id
  std::vector<std::set<int>> set_in;  // the keys each commit set
  int values = 0;
};

Map make_replica(const Map& master) {
  return detail::MapAccess::make_map<int, std::string>(Role::replica, detail::MapAccess::frozen(master),
                                                       nullptr);
}

std::set<int> keys_of(const IntDiff& diff) {
  std::set<int> keys;
  for (const auto& [key, value] : diff.changes()) REQUIRE(keys.insert(key).second);  // no key twice
  return keys;
}

constexpr unsigned histories = 700;
const MapOptions all_options[] = {{}, {.log_diffs = 0}, {.log_diffs = 5}, {.log_bytes = 700}};

}  // namespace

TEST_CASE("linear history: diff(a, b) applied at a is the state at its end, for all a and b") {
  for (unsigned seed = 0; seed < histories; ++seed) {
    for (std::size_t option = 0; option < std::size(all_options); ++option) {
      INFO("seed " << seed << ", options " << option);
      History history(seed, all_options[option]);
      const int steps = history.pick(0, 25);
      for (int i = 0; i < steps; ++i) history.step();
      const UpdateId head = history.map.update_id();
      REQUIRE(state_of(history.map) == history.states[head]);
      for (UpdateId a = 0; a <= head; ++a) {
        for (UpdateId b = 0; b <= head + 2; ++b) {
          const IntDiff diff = history.map.diff(a, b);
          const UpdateId upto = diff.upto_update_id();
          REQUIRE(diff.from_update_id() == a);
          REQUIRE(diff.epoch() == history.map.epoch());
          if (b <= a) {
            REQUIRE((diff.is_empty() && upto == a));
          } else if (b >= head || option == 0) {
            REQUIRE(upto == std::min(b, head));  // the default log reaches back to the beginning
          } else {
            const bool is_exact_or_head = upto == b || upto == head;
            REQUIRE(is_exact_or_head);
            if (option == 1) REQUIRE(upto == head);
            if (option == 2 && a + 5 >= head) REQUIRE(upto == b);
          }
          REQUIRE(applied(history.states[a], diff, history.states[0]) == history.states[upto]);
          REQUIRE(keys_of(diff) == history.keys_set_in(a, upto));
        }
        REQUIRE_THROWS_AS(history.map.diff(head + 1, a), StateError);
      }
      const IntDiff full = IntDiff::full(history.map);
      REQUIRE(full.is_full());
      REQUIRE(applied(State(), full, history.states[0]) == history.states[head]);
      REQUIRE(keys_of(full) == history.keys_set_in(0, head));
    }
  }
}

TEST_CASE("replicas fed with single, merged, overlapping and full diffs end equal to the master") {
  for (unsigned seed = 0; seed < histories; ++seed) {
    INFO("seed " << seed);
    History history(seed, all_options[seed % std::size(all_options)]);
    Map replica = make_replica(history.map);
    Map relayed = make_replica(history.map);
    for (int round = 0; round < 12; ++round) {
      for (int i = history.pick(0, 4); i > 0; --i) history.step();
      const UpdateId head = history.map.update_id();
      const auto any_id = [&](UpdateId low, UpdateId high) {
        return std::uniform_int_distribution<UpdateId>(low, high)(history.random);
      };
      const UpdateId from = any_id(0, replica.update_id());
      std::optional<IntDiff> diff = history.map.diff(from, any_id(from, head));
      switch (history.pick(0, 3)) {
        case 0: break;
        case 1: {
          const UpdateId next_from = any_id(0, diff->upto_update_id());
          diff->merge(history.map.diff(next_from, any_id(next_from, head)));
          break;
        }
        case 2: diff->merge(IntDiff::full(history.map)); break;
        case 3: diff = IntDiff::full(history.map); break;
      }
      if (history.pick(0, 1) == 0) {
        const IntDiff before = *diff;
        diff->compress();
        std::vector<int> keys;
        for (const auto& [key, value] : diff->changes()) keys.push_back(key);
        REQUIRE(std::is_sorted(keys.begin(), keys.end()));
        REQUIRE(applied(State(), *diff, State()) == applied(State(), before, State()));
      }
      const Position was{replica.epoch(), replica.update_id()};
      const bool has_moved = replica.apply(*diff);
      const Position is{replica.epoch(), replica.update_id()};
      REQUIRE(has_moved == (is != was));
      REQUIRE(is.update_id == std::max(was.update_id, diff->upto_update_id()));
      REQUIRE(state_of(replica) == history.states[replica.update_id()]);

      // A replica hands on what it got, from wherever its own reader stands.
      const IntDiff handed_on = replica.diff(relayed.update_id(), any_id(0, replica.update_id()));
      relayed.apply(handed_on);
      REQUIRE(state_of(relayed) == history.states[relayed.update_id()]);
      if (replica.epoch() != 0) REQUIRE(replica.epoch() == history.map.epoch());
    }
  }
}

TEST_CASE("changes name each key once, however they are gathered") {
  const unsigned seed = GENERATE(range(0U, 300U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  const int keys = pick(1, 40);
  detail::ChangeSet<int> changes;
  std::map<std::uint32_t, int> expected;
  for (int step = 0; step < 60; ++step) {
    const auto ordinal = static_cast<std::uint32_t>(pick(0, keys - 1));
    switch (pick(0, 9)) {
      case 0: changes.sort(); break;
      case 1: changes.prepare(static_cast<std::size_t>(pick(0, 12))); break;
      case 2: {
        detail::ChangeSet<int> later;
        for (int i = pick(0, 9); i > 0; --i) {
          const auto other = static_cast<std::uint32_t>(pick(0, keys - 1));
          later.set(other, ++step);
          expected[other] = step;
        }
        changes.absorb(std::move(later));
        break;
      }
      default: changes.set(ordinal, step); expected[ordinal] = step;
    }
    REQUIRE(changes.size() == expected.size());
    for (const auto& [key, value] : expected) {
      const int* const found = changes.find(key);
      REQUIRE(found != nullptr);
      REQUIRE(*found == value);
    }
  }
}

TEST_CASE("ordinals that a peer chose to collide in an index do so under no seed but the one that it knew") {
  constexpr std::uint64_t slots = 4'096;
  const auto count_slots = [](const std::vector<std::uint32_t>& ordinals, detail::HashSeed seed) {
    std::set<std::uint64_t> taken;
    for (const std::uint32_t ordinal : ordinals) taken.insert(detail::hash_ordinal(ordinal, seed) % slots);
    return taken.size();
  };
  const std::vector<detail::HashSeed> seeds{
      {0, 0}, {1, 2}, {0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9}, {0x243F6A8885A308D3, 0x13198A2E03707344}};
  for (const detail::HashSeed& known : seeds) {
    std::vector<std::uint32_t> chosen;
    for (std::uint32_t ordinal = 0; chosen.size() < 1'000; ++ordinal) {
      if (detail::hash_ordinal(ordinal, known) % slots < 16) chosen.push_back(ordinal);
    }
    REQUIRE(count_slots(chosen, known) <= 16);
    // What no peer can know; the constants are digits of pi. Of 1,000 that fall at random, some 890 are apart.
    CHECK(count_slots(chosen, {0xA4093822299F31D0, 0x082EFA98EC4E6C89}) > 700);
    CHECK(count_slots(chosen, {0x452821E638D01377, 0xBE5466CF34E90C6C}) > 700);
  }
}

TEST_CASE("a restarted master: a full diff of a new epoch replaces the state wholly") {
  for (unsigned seed = 0; seed < histories; ++seed) {
    INFO("seed " << seed);
    History first(seed, all_options[seed % std::size(all_options)]);
    Map restarted = detail::MapAccess::make_map<int, std::string>(
        Role::master, detail::MapAccess::frozen(first.map), nullptr);
    Map replica = make_replica(first.map);
    for (int i = first.pick(0, 12); i > 0; --i) first.step();
    replica.apply(first.map.diff(0, ~UpdateId{0}));
    for (int i = first.pick(0, 12); i > 0; --i) restarted.set(first.any_key(), first.any_value());
    const State old_state = state_of(replica);
    const Position old_position{replica.epoch(), replica.update_id()};

    if (old_position.epoch != 0) {
      CHECK_THROWS_AS(replica.apply(restarted.diff(0, ~UpdateId{0})), StateError);
      CHECK_THROWS_AS(replica.apply(IntDiff::full(restarted), EpochPolicy::hold), StateError);
      REQUIRE(state_of(replica) == old_state);
      REQUIRE((Position{replica.epoch(), replica.update_id()}) == old_position);
    }
    REQUIRE(replica.apply(IntDiff::full(restarted)));
    REQUIRE(state_of(replica) == state_of(restarted));
    REQUIRE(replica.epoch() == restarted.epoch());
    REQUIRE(replica.update_id() == restarted.update_id());

    // What it knows of the past belongs to the new epoch alone.
    const UpdateId joined_at = restarted.update_id();
    std::vector<State> states{state_of(restarted)};
    for (UpdateId id = joined_at; id < joined_at + 5; ++id) {
      restarted.set(first.any_key(), first.any_value());
      states.push_back(state_of(restarted));
      replica.apply(restarted.diff(id, id + 1));
    }
    for (UpdateId a = joined_at; a <= joined_at + 5; ++a) {
      for (UpdateId b = a; b <= joined_at + 5; ++b) {
        const IntDiff diff = replica.diff(a, b);
        REQUIRE(applied(states[a - joined_at], diff, first.states[0]) ==
                states[diff.upto_update_id() - joined_at]);
      }
    }
    REQUIRE(applied(State(), IntDiff::full(replica), first.states[0]) == state_of(restarted));
  }
}

}  // namespace syncstate::testing::history_test
