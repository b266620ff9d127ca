// Calls that are due when a replica has reached an update id or a position.
#ifndef SYNCSTATE_DETAIL_REPLICA_PENDING_WAITS_HPP
#define SYNCSTATE_DETAIL_REPLICA_PENDING_WAITS_HPP

#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "syncstate/detail/unique_function.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// What a wait is for: an update id of whichever epoch the replica is in, or a position.
struct WaitTarget {
  // NOLINTBEGIN(google-explicit-constructor)
  WaitTarget(UpdateId id) : update_id(id) {}
  WaitTarget(Position at) : update_id(at.update_id), epoch(at.epoch) {}
  // NOLINTEND(google-explicit-constructor)

  UpdateId update_id;
  std::optional<Epoch> epoch;  ///< none for an update id
};

/// Functions, ordered by what they wait for. Each is taken out before it is called, so it is called once.
///
/// A wait for a position in the replica's own epoch is kept with those for an update id, and becomes due like them. One
/// for another epoch is kept apart until the replica goes over to that epoch. So a diff within an epoch costs one look
/// at the lowest id.
///
/// Threads: the owner's lock.
class PendingWaits {
 public:
  using Function = UniqueFunction<void(std::error_code)>;
  struct Wait {
    std::shared_ptr<Function> function;
    bool is_for_position;
  };
  using Calls = std::multimap<UpdateId, Wait>;

  /// Adds a wait of a replica that is in the epoch `current`.
  void add(const WaitTarget& target, Epoch current, std::shared_ptr<Function> function) {
    Calls& calls = target.epoch && *target.epoch != current ? of_other_epochs_[*target.epoch] : here_;
    calls.emplace(target.update_id, Wait{std::move(function), target.epoch.has_value()});
  }

  /// False if it was taken already.
  bool remove(const WaitTarget& target, const std::shared_ptr<Function>& function) {
    if (remove_from(here_, target.update_id, function)) return true;
    if (!target.epoch) return false;
    const auto apart = of_other_epochs_.find(*target.epoch);
    if (apart == of_other_epochs_.end() || !remove_from(apart->second, target.update_id, function))
      return false;
    if (apart->second.empty()) of_other_epochs_.erase(apart);
    return true;
  }

  /// Moves the waits for `id` or less in the replica's epoch to `out`, in ascending order. Allocates nothing.
  void take_upto(UpdateId id, Calls& out) noexcept {
    while (!here_.empty() && here_.begin()->first <= id) out.insert(here_.extract(here_.begin()));
  }

  /// Goes over to the epoch `next`. Moves to `out` the waits for a position in the epoch that the replica leaves, and
  /// those for an update id unless `keeps_ids`. The waits for `next` become due like all others. Allocates nothing.
  void change_epoch(Epoch next, bool keeps_ids, Calls& out) noexcept {
    if (keeps_ids) {
      for (auto at = here_.begin(); at != here_.end();) {
        const auto wait = at++;
        if (wait->second.is_for_position) out.insert(here_.extract(wait));
      }
    } else {
      out.merge(here_);
    }
    const auto arrived = of_other_epochs_.find(next);
    if (arrived == of_other_epochs_.end()) return;
    here_.merge(arrived->second);
    of_other_epochs_.erase(arrived);
  }

  /// Moves the waits for another epoch than the replica's to `out`. Allocates nothing.
  void take_other_epochs(Calls& out) noexcept {
    for (auto& [epoch, calls] : of_other_epochs_) out.merge(calls);
    of_other_epochs_.clear();
  }

  void take_all(Calls& out) noexcept {
    out.merge(here_);
    take_other_epochs(out);
  }

 private:
  static bool remove_from(Calls& calls, UpdateId id, const std::shared_ptr<Function>& function) {
    const auto [first, last] = calls.equal_range(id);
    for (auto it = first; it != last; ++it) {
      if (it->second.function != function) continue;
      calls.erase(it);
      return true;
    }
    return false;
  }

  Calls here_;
  std::map<Epoch, Calls> of_other_epochs_;
};

}  // namespace syncstate::detail

#endif
