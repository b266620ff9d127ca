// How often sessions look at the time.
#ifndef SYNCSTATE_DETAIL_TICK_PERIOD_HPP
#define SYNCSTATE_DETAIL_TICK_PERIOD_HPP

#include <algorithm>
#include <chrono>

#include "syncstate/limits.hpp"

namespace syncstate::detail {

/// Returns the time between two looks: a quarter of the shortest time in `limits`, at most `most`, at least 1 ms. So an
/// action is late by at most a quarter of that time, and heartbeats go out often enough.
///
/// `other`: one more time that matters, besides those in `limits`; above 0.
inline std::chrono::milliseconds tick_period(const Limits& limits, std::chrono::milliseconds most,
                                             std::chrono::milliseconds other) {
  const auto shortest =
      (std::min)({limits.heartbeat_every, limits.silence, limits.authentication_time, limits.upload_silence,
                  limits.upload_patience, limits.upload_time, other});
  return std::clamp(shortest / 4, std::chrono::milliseconds(1), most);
}

}  // namespace syncstate::detail

#endif
