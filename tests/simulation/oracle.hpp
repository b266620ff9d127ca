// What must be true, kept in the dumbest way: every state of every life of every map, and every event that ran.
#ifndef SYNCSTATE_TESTS_SIMULATION_ORACLE_HPP
#define SYNCSTATE_TESTS_SIMULATION_ORACLE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "simulation/trace.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate::simulation {

using Map = StateMap<std::string, std::string>;

/// What an event asks for. A sender numbers its events of one map upwards.
struct Command {
  enum class What : std::uint8_t {
    set_one,
    set_some,
    set_all,
    set_nothing,
    throw_early,  ///< in the first hook, after it set a key
    throw_late    ///< in the second hook, after both set keys
  };
  std::uint32_t sender = 0;
  std::uint64_t number = 0;
  What what = What::set_one;
  std::uint32_t first_key = 0;
  std::string value;

  [[nodiscard]] bool throws() const { return what == What::throw_early || what == What::throw_late; }
};

/// Values in ascending order of their keys.
using State = std::vector<std::string>;
using EventName = std::pair<std::uint32_t, std::uint64_t>;

/// One life of one map on a master.
struct Life {
  std::size_t order = 0;      ///< lives of one map follow each other
  std::vector<State> states;  ///< by update id
  std::vector<std::set<std::size_t>> changed =
      std::vector<std::set<std::size_t>>(1);  ///< the keys that each commit set, by update id
  std::map<std::uint32_t, std::uint64_t> last_number;

  [[nodiscard]] UpdateId head() const { return states.size() - 1; }
  /// The keys set after `from`, up to `upto`.
  [[nodiscard]] std::set<std::size_t> changed_in(UpdateId from, UpdateId upto) const {
    std::set<std::size_t> keys;
    for (UpdateId id = from + 1; id <= upto; ++id) keys.insert(changed[id].begin(), changed[id].end());
    return keys;
  }
};

/// What became of an event where it ran.
struct Run {
  Epoch epoch = 0;
  bool threw = false;
  UpdateId update_id = 0;  ///< committed as, or the head it met
};

/// Told by the hooks what happens on masters; asked whether what others see can be.
class Oracle {
 public:
  explicit Oracle(Trace& trace) : trace_(&trace) {}

  /// A map by its initial state.
  void know(const Map& map) {
    State& initial = initial_[map.hash()];
    std::vector<std::string>& keys = keys_[map.hash()];
    for (const auto& [key, value] : map) {
      keys.push_back(key);
      initial.push_back(value);
    }
  }
  [[nodiscard]] const State& initial(const MapHash& hash) const { return initial_.at(hash); }
  [[nodiscard]] const std::vector<std::string>& keys(const MapHash& hash) const { return keys_.at(hash); }

  /// A number for a sender that has not sent anything yet.
  std::uint32_t new_sender() { return ++last_sender_; }

  /// A map comes to live on a master.
  void begin(const MapHash& hash, Epoch epoch) {
    Life& life = lives_[{hash, epoch}];
    if (!life.states.empty()) trace_->fail("two lives have one epoch");
    life.order = ++last_order_;
    life.states.push_back(initial_.at(hash));
  }

  /// The master's next commit will be this.
  void commit(const MapHash& hash, Epoch epoch, const std::map<std::size_t, std::string>& changes) {
    Life& life = lives_.at({hash, epoch});
    State next = life.states.back();
    std::set<std::size_t> keys;
    for (const auto& [key, value] : changes) {
      next[key] = value;
      keys.insert(key);
    }
    life.states.push_back(std::move(next));
    life.changed.push_back(std::move(keys));
  }

  /// The hooks begin to run for an event.
  void run(const MapHash& hash, Epoch epoch, const Command& command) {
    const EventName name{command.sender, command.number};
    Life& life = lives_.at({hash, epoch});
    std::uint64_t& last = life.last_number[command.sender];
    if (command.number <= last) {
      trace_->fail("event ", command.number, " of sender ", command.sender, " runs after event ", last);
    }
    last = command.number;
    if (!runs_.emplace(name, Run{epoch, command.throws(), life.head()}).second) {
      trace_->fail("event ", command.number, " of sender ", command.sender, " runs twice");
    }
  }
  void ran(const Command& command, UpdateId update_id) {
    runs_.at({command.sender, command.number}).update_id = update_id;
  }

  [[nodiscard]] const Run* find_run(const EventName& name) const {
    const auto found = runs_.find(name);
    return found == runs_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] const Life* find_life(const MapHash& hash, Epoch epoch) const {
    const auto found = lives_.find({hash, epoch});
    return found == lives_.end() ? nullptr : &found->second;
  }

  /// What was true at a position; null, and a failure, if no master was ever there.
  const State* state_at(const std::string& who, const MapHash& hash, Position at) {
    if (at.epoch == 0) {
      if (at.update_id != 0) trace_->fail(who, " has an update id without an epoch");
      return &initial_.at(hash);
    }
    const Life* const life = find_life(hash, at.epoch);
    if (life == nullptr || at.update_id > life->head()) {
      trace_->fail(who, " is where no master was: ", at.update_id);
      return nullptr;
    }
    return &life->states[at.update_id];
  }

  /// Guarantee 3: what somebody shows is one whole state.
  void check_state(const std::string& who, const MapHash& hash, Position at, const State& shown) {
    const State* const expected = state_at(who, hash, at);
    if (expected == nullptr || *expected == shown) return;
    for (std::size_t i = 0; i < shown.size(); ++i) {
      if (shown[i] == (*expected)[i]) continue;
      trace_->fail(who, " shows at ", at.update_id, " for ", keys_.at(hash)[i], " '", shown[i], "', not '",
                   (*expected)[i], "'");
    }
  }

  /// Guarantee 3: nobody goes back, and never to an earlier life.
  void check_step(const std::string& who, const MapHash& hash, Position from, Position to) {
    if (from.epoch == to.epoch) {
      if (to.update_id < from.update_id)
        trace_->fail(who, " goes back from ", from.update_id, " to ", to.update_id);
      return;
    }
    const Life* const before = find_life(hash, from.epoch);
    const Life* const after = find_life(hash, to.epoch);
    if (before != nullptr && (after == nullptr || after->order < before->order)) {
      trace_->fail(who, " goes back to an earlier life");
    }
  }

  /// Guarantee 4: a diff within one life names exactly what was set.
  void check_diff(const std::string& who, const MapHash& hash, Position from,
                  const Diff<std::string, std::string>& diff) {
    const Life* const life = find_life(hash, diff.epoch());
    if (life == nullptr || diff.upto_update_id() > life->head()) {
      return trace_->fail(who, " got a diff to where no master was");
    }
    std::set<std::size_t> named;
    const std::vector<std::string>& keys = keys_.at(hash);
    const State& after = life->states[diff.upto_update_id()];
    for (const auto& [key, value] : diff.changes()) {
      const auto at =
          static_cast<std::size_t>(std::lower_bound(keys.begin(), keys.end(), key) - keys.begin());
      if (!named.insert(at).second) trace_->fail(who, " got a diff that names ", key, " twice");
      if (value != after[at]) trace_->fail(who, " got another value for ", key);
    }
    const UpdateId since = from.epoch == diff.epoch() ? from.update_id : 0;
    if (diff.from_update_id() > since) trace_->fail(who, " got a diff with a gap before it");
    const auto expected = life->changed_in(diff.from_update_id(), diff.upto_update_id());
    const bool is_other_life = from.epoch != 0 && from.epoch != diff.epoch() && !diff.is_full();
    if (is_other_life) {
      // Relative to a state of another life it names what fell back to its initial value, too.
      for (const std::size_t key : expected) {
        if (!named.contains(key)) trace_->fail(who, " got a diff that leaves out ", keys[key]);
      }
    } else if (named != expected) {
      trace_->fail(who, " got a diff ", diff.from_update_id(), "..", diff.upto_update_id(), " that names ",
                   named.size(), " keys where ", expected.size(), " were set");
    }
  }

 private:
  Trace* trace_;
  std::map<MapHash, State> initial_;
  std::map<MapHash, std::vector<std::string>> keys_;
  std::map<std::pair<MapHash, Epoch>, Life> lives_;
  std::map<EventName, Run> runs_;
  std::size_t last_order_ = 0;
  std::uint32_t last_sender_ = 0;
};

}  // namespace syncstate::simulation

#endif
