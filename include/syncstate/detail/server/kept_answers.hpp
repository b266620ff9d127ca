// The last answers of one sender, kept for repeats of its events.
#ifndef SYNCSTATE_DETAIL_SERVER_KEPT_ANSWERS_HPP
#define SYNCSTATE_DETAIL_SERVER_KEPT_ANSWERS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
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
    return {0, error, detail.empty() ? nullptr : std::make_shared<const std::string>(std::move(detail))};
  }
  [[nodiscard]] std::size_t detail_bytes() const { return detail ? detail->size() : 0; }
};

/// A queue of answers whose numbers ascend, in one piece of memory that grows with what it holds.
///
/// `SenderTable` keeps one per sender. An empty queue takes no memory besides itself.
class KeptAnswers {
 public:
  [[nodiscard]] std::size_t size() const { return count_; }

  /// The bytes that one answer counts for. A queue that grows holds room for up to twice its answers.
  static std::size_t bytes_of(const EventOutcome& outcome) { return sizeof(Kept) + outcome.detail_bytes(); }

  /// Adds an answer; `number` is above those of all others.
  /// Complexity: O(1), amortised.
  void push(std::uint64_t number, EventOutcome outcome) {
    if (count_ == kept_.size()) grow();
    at(count_) = Kept{number, std::move(outcome)};
    ++count_;
  }

  /// Removes the oldest answer, and returns what it counted for. There is one.
  std::size_t pop_oldest() {
    Kept& oldest = at(0);
    const std::size_t bytes = bytes_of(oldest.outcome);
    oldest.outcome.detail.reset();
    first_ = (first_ + 1) % kept_.size();
    --count_;
    return bytes;
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

  [[nodiscard]] std::size_t index(std::size_t i) const {
    return first_ + i < kept_.size() ? first_ + i : first_ + i - kept_.size();
  }
  [[nodiscard]] Kept& at(std::size_t i) { return kept_[index(i)]; }
  [[nodiscard]] const Kept& at(std::size_t i) const { return kept_[index(i)]; }

  void grow() {
    std::vector<Kept> larger(std::max<std::size_t>(2 * kept_.size(), 1));
    for (std::size_t i = 0; i < count_; ++i) larger[i] = std::move(at(i));
    kept_.swap(larger);
    first_ = 0;
  }

  std::vector<Kept> kept_;  // a ring
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

}  // namespace syncstate::detail

#endif
