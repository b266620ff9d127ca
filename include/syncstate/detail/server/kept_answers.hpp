// The last answers of one sender, kept for repeats of its events.
#ifndef SYNCSTATE_DETAIL_SERVER_KEPT_ANSWERS_HPP
#define SYNCSTATE_DETAIL_SERVER_KEPT_ANSWERS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/error.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// What became of an event.
struct EventOutcome {
  UpdateId update_id = 0;
  StateErrc error{};                            ///< 0: it was run
  std::shared_ptr<const std::string> detail{};  ///< null: nothing to say; shared, for it is kept and told

  [[nodiscard]] static EventOutcome failed(StateErrc error, std::string detail = {}) {
    if (detail.empty()) return {0, error, nullptr};
    detail.shrink_to_fit();  // it is kept for long, and a hook may have built it in a larger buffer
    return {0, error, std::make_shared<const std::string>(std::move(detail))};
  }
  /// Returns the memory that the detail takes: with its counts, and with what the allocator adds to two blocks.
  [[nodiscard]] std::size_t detail_bytes() const {
    return detail ? sizeof(std::string) + 3 * 16 + detail->capacity() : 0;
  }
};

/// A queue of answers whose numbers ascend, in one piece of memory that grows and shrinks with what it holds.
///
/// `SenderTable` keeps one per sender. An empty queue takes no memory besides itself.
class KeptAnswers {
 public:
  [[nodiscard]] std::size_t size() const { return count_; }

  /// Returns the memory that the queue takes besides itself: its room, used or not, and the details.
  /// Complexity: O(1).
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  /// Adds an answer; `number` is above those of all others.
  /// Complexity: O(1), amortised.
  void push(std::uint64_t number, EventOutcome outcome) {
    if (count_ == kept_.size()) move_to(std::max<std::size_t>(2 * kept_.size(), 1));
    bytes_ += outcome.detail_bytes();
    at(count_) = Kept{number, std::move(outcome)};
    ++count_;
  }

  /// Removes the oldest answer, to make room for another one. There is one.
  void pop_oldest() {
    Kept& oldest = at(0);
    bytes_ -= oldest.outcome.detail_bytes();
    oldest.outcome.detail.reset();
    first_ = (first_ + 1) & (kept_.size() - 1);
    --count_;
  }

  /// Removes the oldest `count` answers, of which there are as many, and gives back the room that is not needed any more.
  /// Never throws: if there is no memory to move to, the room stays as it is.
  /// Complexity: O(size).
  void forget(std::size_t count) noexcept {
    for (; count > 0; --count) pop_oldest();
    std::size_t needed = count_ == 0 ? 0 : 1;
    while (needed < count_) needed *= 2;
    if (needed == kept_.size()) return;
    try {
      move_to(needed);
    } catch (const std::bad_alloc&) {
    }
  }

  /// The answer to the event of this number, or null if it is not kept.
  /// Complexity: O(log size).
  [[nodiscard]] const EventOutcome* find(std::uint64_t number) const {
    std::size_t low = 0;
    for (std::size_t high = count_; low < high;) {
      const std::size_t middle = low + (high - low) / 2;
      if (at(middle).number < number) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < count_ && at(low).number == number ? &at(low).outcome : nullptr;
  }

 private:
  struct Kept {
    std::uint64_t number = 0;
    EventOutcome outcome;
  };
  static constexpr std::size_t block_bytes = 16;  // what the allocator adds to a block

  [[nodiscard]] static std::size_t bytes_of_room(std::size_t size) {
    return size == 0 ? 0 : size * sizeof(Kept) + block_bytes;
  }

  [[nodiscard]] std::size_t index(std::size_t i) const { return (first_ + i) & (kept_.size() - 1); }
  [[nodiscard]] Kept& at(std::size_t i) { return kept_[index(i)]; }
  [[nodiscard]] const Kept& at(std::size_t i) const { return kept_[index(i)]; }

  void move_to(std::size_t size) {
    std::vector<Kept> other(size);
    for (std::size_t i = 0; i < count_; ++i) other[i] = std::move(at(i));
    bytes_ += bytes_of_room(size) - bytes_of_room(kept_.size());
    kept_.swap(other);
    first_ = 0;
  }

  std::vector<Kept> kept_;  // a ring; its size is 0 or a power of two
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace syncstate::detail

#endif
