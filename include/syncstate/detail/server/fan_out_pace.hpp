// How long a lane merges commits between two rounds of bringing them to its followers.
#ifndef SYNCSTATE_DETAIL_SERVER_FAN_OUT_PACE_HPP
#define SYNCSTATE_DETAIL_SERVER_FAN_OUT_PACE_HPP

#include <algorithm>
#include <chrono>
#include <optional>

#include "syncstate/executor.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Rests after rounds that more and more commits come in: the next round then brings many of them by one diff.
///
/// Of a few commits each is worth its own round: to bring them late would cost as much. The more come while a round
/// lasts, the longer the rest, up to what leaves the round its share of the time.
class FanOutPace {
 public:
  /// `share`: of the time, that rounds have at least; above 0, at most 1.
  explicit FanOutPace(double share) : longest_(1 / share - 1) {}

  /// A round begins, with the commits since the last one.
  void begin(TimePoint now, UpdateId commits) {
    const std::chrono::duration<double> since_last = began_ ? now - *began_ : (Duration::max)();
    // Two at the same time, after a clock that stood still, tell nothing.
    commits_per_second_ = since_last.count() > 0 ? static_cast<double>(commits) / since_last.count() : 0;
    began_ = now;
  }

  /// How long to wait now that all followers had their turns.
  [[nodiscard]] Duration rest(TimePoint now) const {
    const std::chrono::duration<double> round = now - *began_;
    const double commits = commits_per_second_ * round.count();
    const double weight = std::clamp((commits - few_commits) / (many_commits - few_commits), 0.0, 1.0);
    const auto time = std::chrono::duration_cast<Duration>(round * (longest_ * weight));
    return time < shortest ? Duration::zero() : time;
  }

 private:
  static constexpr double few_commits = 4;
  static constexpr double many_commits = 16;
  static constexpr Duration shortest = std::chrono::microseconds(100);  // a timer takes a moment itself

  const double longest_;  // rounds
  std::optional<TimePoint> began_;
  double commits_per_second_ = 0;
};

}  // namespace syncstate::detail

#endif
