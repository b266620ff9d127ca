// Decides what a diff does to a state: maps and replicas share this one answer.
#ifndef SYNCSTATE_DETAIL_MODEL_DIFF_VERDICT_HPP
#define SYNCSTATE_DETAIL_MODEL_DIFF_VERDICT_HPP

#include "syncstate/error.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// What a diff does to a state.
enum class DiffEffect {
  refused,     ///< nothing: it does not fit, and `DiffVerdict::error` says why
  none,        ///< nothing: it holds nothing newer
  moves_on,    ///< it leads on within the history of the state
  starts_over  ///< it replaces the state by one of another epoch
};

/// The answer of `judge`.
struct DiffVerdict {
  DiffEffect effect;
  StateErrc error{};             ///< means nothing unless the diff is refused
  const char* detail = nullptr;  ///< what the error code alone does not say; may be null
};

/// Decides what `diff` does to a state of the same map at `at`. Used by `StateMap::apply`, and by `Replica` for every
/// diff that comes in.
///
/// - A diff of the state's own epoch must begin at or before the state, unless it is full. If it also ends there, it
///   changes nothing.
/// - An initial state without an epoch takes a diff of any epoch that begins there, or is full.
/// - A diff of another epoch must be full, and `policy` must accept it.
/// - No diff may name changes and end at update id 0: that is the initial state.
/// Complexity: O(1).
template <class AnyDiff>
[[nodiscard]] DiffVerdict judge(const AnyDiff& diff, const Position& at, EpochPolicy policy) {
  if (diff.epoch() == at.epoch) {
    if (diff.from_update_id() > at.update_id && !diff.is_full()) {
      return {DiffEffect::refused, StateErrc::wrong_position};
    }
    return {diff.upto_update_id() <= at.update_id ? DiffEffect::none : DiffEffect::moves_on};
  }
  const bool has_no_history = at.epoch == 0 && at.update_id == 0;
  if (!has_no_history) {
    if (!diff.is_full()) return {DiffEffect::refused, StateErrc::wrong_epoch};
    if (policy == EpochPolicy::hold) return {DiffEffect::refused, StateErrc::epoch_changed};
  } else if (diff.from_update_id() > 0 && !diff.is_full()) {
    return {DiffEffect::refused, StateErrc::wrong_position};
  }
  if (diff.upto_update_id() == 0 && !diff.is_empty()) {
    return {DiffEffect::refused, StateErrc::wrong_position,
            "the diff names changes but ends at update id 0, which is the initial state"};
  }
  return {has_no_history ? DiffEffect::moves_on : DiffEffect::starts_over};
}

}  // namespace syncstate::detail

#endif
