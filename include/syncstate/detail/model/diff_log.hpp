// The last diffs one by one, within bounds: for exact diffs below the head and for replicas that want every
// step.
#ifndef SYNCSTATE_DETAIL_MODEL_DIFF_LOG_HPP
#define SYNCSTATE_DETAIL_MODEL_DIFF_LOG_HPP

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "syncstate/detail/model/ring.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Diffs without gaps: each begins where the one before ends, and the last ends at the head.
///
/// Their changes stand in one row, in chunks. What drops out at the front is assigned to anew at the back, so
/// that a log which is full logs without allocating, unless a value grows.
template <class V>
class DiffLog {
  struct Change {
    std::uint32_t ordinal = 0;
    std::optional<V> value;  // of a change that was dropped, until it is used again
  };
  struct Entry {
    UpdateId upto = 0;
    std::uint64_t end = 0;  // how many changes were ever logged, up to its last
    std::size_t bytes = 0;  // what it counts against the bound
  };

 public:
  static constexpr std::size_t entry_overhead_bytes = sizeof(Entry);
  static constexpr std::size_t change_overhead_bytes = sizeof(Change);

  DiffLog(std::size_t max_entries, std::size_t max_bytes)
      : max_entries_(max_entries), max_bytes_(max_bytes) {}

  /// True if a diff that counts this many bytes could be kept at all.
  [[nodiscard]] bool takes(std::size_t bytes) const { return max_entries_ > 0 && bytes <= max_bytes_; }

  /// Adds a diff that `takes` allows: a range of pairs of ordinal and value, each key once. Drops the oldest
  /// while there are too many or they are too big.
  /// Errors: may throw before anything has changed, never later.
  template <class Changes>
  void append(UpdateId from, UpdateId upto, std::size_t bytes, const Changes& changes) {
    const std::uint64_t begin = entries_.empty() ? first_ : entries_.back().end;
    std::uint64_t at = begin;
    for (const auto& [ordinal, value] : changes) {
      Change& change = free_change(at++);
      change.ordinal = ordinal;
      change.value = value;
    }
    if (entries_.empty()) from_ = from;
    entries_.push_back(Entry{upto, at, bytes});
    bytes_ += bytes;
    while (entries_.size() > max_entries_ || bytes_ > max_bytes_) drop_oldest();
  }

  void clear() noexcept {
    entries_.clear();
    chunks_.clear();
    spare_ = {};
    bytes_ = 0;
    first_ = 0;
    chunks_begin_ = 0;
  }

  /// True if what happened since `from` is all here.
  [[nodiscard]] bool reaches_back_to(UpdateId from) const { return !entries_.empty() && from_ <= from; }

  /// Where the diffs lead that begin at `from` and end at `upto`, or at the first end beyond it;
  /// `reaches_back_to(from)` holds.
  [[nodiscard]] UpdateId reach(UpdateId from, UpdateId upto) const {
    const UpdateId head = entries_.back().upto;
    if (from >= upto || from >= head) return from;
    return upto < head ? entries_[first_beyond(upto - 1)].upto : head;
  }

  /// Calls `f(ordinal, value)` for the changes of these diffs, the oldest first. Returns `reach(from, upto)`.
  template <class F>
  UpdateId for_each_between(UpdateId from, UpdateId upto, F f) const {
    UpdateId reached = from;
    std::size_t i = first_beyond(from);
    std::uint64_t at = i == 0 ? first_ : entries_[i - 1].end;
    for (; i < entries_.size() && reached < upto; ++i) {
      for (; at != entries_[i].end; ++at) {
        const Change& change = change_at(at);
        f(change.ordinal, *change.value);
      }
      reached = entries_[i].upto;
    }
    return reached;
  }

  /// Places of changes, the oldest first. They stand for the same changes as long as the log reaches back to these.
  struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };

  /// The places of the changes in the diffs that begin at `from` and end at `upto`; `reaches_back_to(from)` holds.
  /// Complexity: O(log diffs).
  [[nodiscard]] Range range(UpdateId from, UpdateId upto) const {
    if (from >= upto) return {};
    const std::size_t first = first_beyond(from);
    const std::size_t last = first_beyond(upto - 1);
    return {first == 0 ? first_ : entries_[first - 1].end,
            last < entries_.size() ? entries_[last].end : entries_.back().end};
  }

  [[nodiscard]] std::uint32_t ordinal_at(std::uint64_t place) const { return change_at(place).ordinal; }
  [[nodiscard]] const V& value_at(std::uint64_t place) const { return *change_at(place).value; }
  /// Where the diff leads that the change is of.
  /// Complexity: O(log diffs).
  [[nodiscard]] UpdateId update_id_at(std::uint64_t place) const {
    std::size_t low = 0;
    for (std::size_t high = entries_.size(); low < high;) {
      const std::size_t middle = low + (high - low) / 2;
      if (entries_[middle].end > place) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return entries_[low].upto;
  }

 private:
  static constexpr std::size_t chunk_size = 64;
  // A dropped value beyond this is destroyed, for who knows how long it would wait for its reuse.
  static constexpr std::size_t most_reused_bytes = 512;

  /// The first diff that ends beyond `id`, or their number.
  [[nodiscard]] std::size_t first_beyond(UpdateId id) const {
    std::size_t low = 0;
    for (std::size_t high = entries_.size(); low < high;) {
      const std::size_t middle = low + (high - low) / 2;
      if (entries_[middle].upto > id) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  [[nodiscard]] const Change& change_at(std::uint64_t at) const {
    const std::size_t place = at - chunks_begin_;
    return chunks_[place / chunk_size][place % chunk_size];
  }

  Change& free_change(std::uint64_t at) {
    const std::size_t place = at - chunks_begin_;
    if (place / chunk_size == chunks_.size()) {
      if (spare_.empty()) spare_.resize(chunk_size);
      chunks_.push_back(std::move(spare_));
      spare_ = {};
    }
    return chunks_[place / chunk_size][place % chunk_size];
  }

  void drop_oldest() noexcept {
    const Entry oldest = entries_.front();
    const std::size_t count = oldest.end - first_;
    if (oldest.bytes > entry_overhead_bytes + count * (change_overhead_bytes + most_reused_bytes)) {
      for (std::uint64_t at = first_; at != oldest.end; ++at) {
        const std::size_t place = at - chunks_begin_;
        chunks_[place / chunk_size][place % chunk_size].value.reset();
      }
    }
    entries_.pop_front();
    from_ = oldest.upto;
    first_ = oldest.end;
    bytes_ -= oldest.bytes;
    for (; first_ - chunks_begin_ >= chunk_size; chunks_begin_ += chunk_size) {
      spare_ = std::move(chunks_.front());
      chunks_.pop_front();
    }
  }

  Ring<Entry> entries_;
  Ring<std::vector<Change>> chunks_;
  std::vector<Change> spare_;       // a chunk to be used again, or none
  std::uint64_t chunks_begin_ = 0;  // how many changes were logged before the first one of the first chunk
  std::uint64_t first_ = 0;         // ... before the first one that is not dropped
  UpdateId from_ = 0;               // where the first diff begins; means nothing if there is none
  std::size_t max_entries_;
  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
};

}  // namespace syncstate::detail

#endif
