// How long to wait before the next attempt to connect.
#ifndef SYNCSTATE_BACKOFF_HPP
#define SYNCSTATE_BACKOFF_HPP

#include <algorithm>
#include <chrono>
#include <random>

#include "syncstate/detail/requirements.hpp"

namespace syncstate {

/// The pace of a remote's attempts to connect.
struct BackoffOptions {
  std::chrono::milliseconds first{250};  ///< the most the first wait takes
  /// The most that a wait takes, except after `unauthorized`; after any other refusal, the most that the first wait takes.
  std::chrono::milliseconds most{30'000};
  /// The most that a wait takes after `unauthorized`; it takes at least half of it. A server counts failed proofs by
  /// address (`Limits::failed_proofs_per_minute`), so a client that tries a wrong password more often would keep out
  /// other clients of its address.
  std::chrono::milliseconds unauthorized{60'000};
};

/// The wait before reconnect number `attempt` (from 0): uniform in [0, min(most, first * 2^attempt)].
///
/// Fully jittered from the first one, so that a thousand clients of a restarted server do not come back at
/// once.
template <std::uniform_random_bit_generator Rng>
std::chrono::milliseconds backoff(const BackoffOptions& options, unsigned attempt, Rng& rng) {
  auto cap = options.first;
  for (unsigned i = 0; i < attempt && cap < options.most; ++i) cap *= 2;
  cap = (std::min)(cap, options.most);
  std::uniform_int_distribution<std::chrono::milliseconds::rep> wait(
      0, std::max<decltype(cap.count())>(cap.count(), 0));
  return std::chrono::milliseconds(wait(rng));
}

/// The wait before the next attempt after `unauthorized`: uniform in [unauthorized / 2, unauthorized].
template <std::uniform_random_bit_generator Rng>
std::chrono::milliseconds backoff_after_unauthorized(const BackoffOptions& options, Rng& rng) {
  const auto most = std::max<std::chrono::milliseconds::rep>(options.unauthorized.count(), 0);
  std::uniform_int_distribution<std::chrono::milliseconds::rep> wait(most / 2, most);
  return std::chrono::milliseconds(wait(rng));
}

}  // namespace syncstate

#endif
