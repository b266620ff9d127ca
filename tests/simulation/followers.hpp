// Everybody who follows a map in a simulation, with what is checked at each.
#ifndef SYNCSTATE_TESTS_SIMULATION_FOLLOWERS_HPP
#define SYNCSTATE_TESTS_SIMULATION_FOLLOWERS_HPP

#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "simulation/oracle.hpp"
#include "simulation/trace.hpp"
#include "syncstate/remote.hpp"
#include "syncstate/replica.hpp"

namespace syncstate::simulation {

inline State values_of(const View<std::string, std::string>& view) {
  State values;
  for (const auto& [key, value] : view) values.push_back(value);
  return values;
}

/// A replica that is looked at after every step.
class WatchedReplica {
 public:
  WatchedReplica(std::string name, Map map, ReplicaOptions options, bool sees_every_step, Oracle& oracle,
                 Trace& trace)
      : name_(std::move(name)),
        options_(options),
        sees_every_step_(sees_every_step),
        oracle_(&oracle),
        trace_(&trace),
        hash_(map.hash()),
        seen_{map.epoch(), map.update_id()} {
    // Registered at once: in this thread nothing has run since the replica was made.
    replica_ = std::make_unique<Replica<std::string, std::string>>(std::move(map), std::move(options));
    replica_->on_update([this](const auto& diff, const auto& before) { updated(diff, before); });
  }

  /// What it shows is checked, if it is new.
  void look() {
    if (!replica_) return;
    const auto view = replica_->view();
    const Position at = view.position();
    if (at == seen_) return;
    oracle_->check_step(name_, hash_, seen_, at);
    oracle_->check_state(name_, hash_, at, values_of(view));
    if (options_.epoch_policy == EpochPolicy::hold && seen_.epoch != 0 && at.epoch != seen_.epoch) {
      trace_->fail(name_, " was to hold, and took another life");
    }
    seen_ = at;
  }

  /// Its next callback destroys it.
  void end_in_callback() { ends_in_callback_ = true; }
  [[nodiscard]] bool has_ended() const { return replica_ == nullptr; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const MapHash& hash() const { return hash_; }
  [[nodiscard]] bool holds() const { return options_.epoch_policy == EpochPolicy::hold; }
  [[nodiscard]] Replica<std::string, std::string>& replica() { return *replica_; }

 private:
  void updated(const Diff<std::string, std::string>& diff, const View<std::string, std::string>& before) {
    trace_->add(name_, " is told ", diff.from_update_id(), "..", diff.upto_update_id());
    const Position from = before.position();
    // What changes nothing is not told: another life that begins with the same values, for one.
    if (told_ != Position{} && from != told_) {
      const State* const last_told = oracle_->state_at(name_, hash_, told_);
      if (last_told == nullptr || *last_told != values_of(before)) {
        trace_->fail(name_, " was not told of what led to ", from.update_id);
      }
    }
    told_ = {diff.epoch(), diff.upto_update_id()};
    oracle_->check_state(name_, hash_, from, values_of(before));
    if (diff.is_full()) trace_->fail(name_, " is told a full diff");
    if (from.epoch == diff.epoch() && diff.from_update_id() != from.update_id) {
      trace_->fail(name_, " is told a diff that does not begin at what it replaced");
    }
    oracle_->check_diff(name_, hash_, from, diff);
    if (sees_every_step_ && from.epoch == diff.epoch() && diff.upto_update_id() != from.update_id + 1) {
      trace_->fail(name_, " missed a step: ", from.update_id, " to ", diff.upto_update_id());
    }
    if (ends_in_callback_) replica_.reset();
  }

  std::string name_;
  ReplicaOptions options_;
  bool sees_every_step_;
  Oracle* oracle_;
  Trace* trace_;
  MapHash hash_;
  Position seen_;
  Position told_;
  bool ends_in_callback_ = false;
  std::unique_ptr<Replica<std::string, std::string>> replica_;
};

/// A sink of its own: takes every diff at once, and so knows whether an answer came before its diff.
class Ear final : public DiffSink<std::string, std::string> {
 public:
  Ear(std::string name, const MapHash& hash, Oracle& oracle, Trace& trace)
      : name_(std::move(name)), hash_(hash), oracle_(&oracle), trace_(&trace), state_(oracle.initial(hash)) {}

  std::error_code on_diff(Diff<std::string, std::string> diff) override {
    const Position to{diff.epoch(), diff.upto_update_id()};
    trace_->add(name_, " hears ", diff.is_full() ? "full " : "", diff.from_update_id(), "..", to.update_id);
    oracle_->check_diff(name_, hash_, at_, diff);
    oracle_->check_step(name_, hash_, at_, to);
    if (diff.epoch() != at_.epoch && at_.epoch != 0 && !diff.is_full()) {
      trace_->fail(name_, " hears a diff of another life that is not full");
    }
    if (diff.is_full()) state_ = oracle_->initial(hash_);
    const auto& keys = oracle_->keys(hash_);
    for (const auto& [key, value] : diff.changes()) {
      state_[static_cast<std::size_t>(std::lower_bound(keys.begin(), keys.end(), key) - keys.begin())] =
          value;
    }
    oracle_->check_state(name_, hash_, to, state_);
    at_ = to;
    return {};
  }
  void on_current(TimePoint) override {}
  void on_status(const LinkStatus& status) override { is_live_ = status.state == LinkState::live; }
  [[nodiscard]] Position position() const override { return at_; }
  [[nodiscard]] bool every_step() const override { return false; }
  [[nodiscard]] EpochPolicy epoch_policy() const override { return EpochPolicy::accept; }

  /// An event was answered on this link: its diff must be here.
  void answered(Epoch epoch, UpdateId id) {
    if (is_live_ && at_.epoch == epoch && at_.update_id < id) {
      trace_->fail(name_, " is at ", at_.update_id, " when the answer for ", id, " comes");
    }
  }
  [[nodiscard]] const State& state() const { return state_; }

 private:
  std::string name_;
  MapHash hash_;
  Oracle* oracle_;
  Trace* trace_;
  State state_;
  Position at_;
  bool is_live_ = false;
};

}  // namespace syncstate::simulation

#endif
