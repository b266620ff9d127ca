// The last diffs one by one, within bounds: for exact diffs below the head and for replicas that want every
// step.
#ifndef SYNCSTATE_DETAIL_MODEL_DIFF_LOG_HPP
#define SYNCSTATE_DETAIL_MODEL_DIFF_LOG_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "syncstate/types.hpp"

namespace syncstate::detail {

/// What led from one update id to another.
template <class V>
struct DiffLogEntry {
  UpdateId from = 0;
  UpdateId upto = 0;
  std::vector<std::pair<std::uint32_t, V>> changes;  ///< by ordinal, each key once
  std::size_t bytes = 0;                             ///< what it counts against the bound
};

/// Entries without gaps: each begins where the one before ends, and the last ends at the head.
template <class V>
class DiffLog {
 public:
  using Entry = DiffLogEntry<V>;

  static constexpr std::size_t entry_overhead_bytes = sizeof(Entry) + 16;
  static constexpr std::size_t change_overhead_bytes = sizeof(std::pair<std::uint32_t, V>);

  DiffLog(std::size_t max_entries, std::size_t max_bytes)
      : max_entries_(max_entries), max_bytes_(max_bytes) {}

  /// True if an entry that counts this many bytes could be kept at all.
  [[nodiscard]] bool takes(std::size_t bytes) const { return max_entries_ > 0 && bytes <= max_bytes_; }

  /// An empty entry to fill and `append`; it brings memory of an entry that was dropped.
  [[nodiscard]] Entry take_spare() noexcept { return std::exchange(spare_, Entry{}); }

  /// Adds an entry that `takes` allows, and drops the oldest while there are too many or they are too big.
  /// May throw before anything has changed, never later.
  void append(Entry&& entry) {
    const std::size_t bytes = entry.bytes;
    entries_.push_back(std::move(entry));
    bytes_ += bytes;
    while (entries_.size() > max_entries_ || bytes_ > max_bytes_) {
      bytes_ -= entries_.front().bytes;
      entries_.front().changes.clear();
      std::swap(spare_, entries_.front());
      entries_.pop_front();
    }
  }

  void clear() noexcept {
    entries_.clear();
    bytes_ = 0;
  }

  /// True if what happened since `from` is all here.
  [[nodiscard]] bool reaches_back_to(UpdateId from) const {
    return !entries_.empty() && entries_.front().from <= from;
  }

  /// The entry that leads on from `from`, or null.
  [[nodiscard]] const Entry* step_after(UpdateId from) const {
    const auto at = first_beyond(from);
    return at != entries_.end() && at->from == from ? &*at : nullptr;
  }

  /// Calls `f(entry)` for the entries that lead from `from` to `upto`, or to the first end of an entry beyond
  /// it; `reaches_back_to(from)` holds. Returns where they lead.
  template <class F>
  UpdateId for_each_between(UpdateId from, UpdateId upto, F f) const {
    UpdateId reached = from;
    for (auto at = first_beyond(from); at != entries_.end() && reached < upto; ++at) {
      f(*at);
      reached = at->upto;
    }
    return reached;
  }

 private:
  [[nodiscard]] auto first_beyond(UpdateId id) const {
    return std::upper_bound(entries_.begin(), entries_.end(), id,
                            [](UpdateId wanted, const Entry& entry) { return wanted < entry.upto; });
  }

  std::deque<Entry> entries_;
  Entry spare_;
  std::size_t max_entries_;
  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
};

}  // namespace syncstate::detail

#endif
