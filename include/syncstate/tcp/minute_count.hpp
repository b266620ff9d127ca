// How often a peer did something within a minute.
#ifndef SYNCSTATE_TCP_MINUTE_COUNT_HPP
#define SYNCSTATE_TCP_MINUTE_COUNT_HPP

#include <chrono>
#include <cstddef>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::tcp::detail {

/// Counts what a peer does, against a limit for a minute. A minute begins with the first count after the previous
/// minute is over; earlier counts are then forgotten.
///
/// Threads: one at a time.
class MinuteCount {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit MinuteCount(std::size_t most) : most_(most) {}

  /// Counts one more at `now`, which never goes back. Returns false if that exceeds the limit.
  bool add(TimePoint now) {
    if (count_ == 0 || now - since_ >= std::chrono::minutes(1)) {
      since_ = now;
      count_ = 0;
    }
    return ++count_ <= most_;
  }

  /// Returns whether the last minute's count exceeds the limit.
  [[nodiscard]] bool is_exceeded() const { return count_ > most_; }

 private:
  const std::size_t most_;
  std::size_t count_ = 0;
  TimePoint since_{};
};

}  // namespace syncstate::tcp::detail

#endif
