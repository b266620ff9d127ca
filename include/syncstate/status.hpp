// How a link or a replica is doing.
#ifndef SYNCSTATE_STATUS_HPP
#define SYNCSTATE_STATUS_HPP

#include <string>
#include <string_view>
#include <system_error>

#include "syncstate/executor.hpp"

namespace syncstate {

/// The states of a link to the master, or of a map that follows over one.
enum class LinkState {
  connecting,  ///< has not been live yet
  live,        ///< follows the master
  stale,       ///< was live; the link is lost and sought again
  failed       ///< refused for a named reason; still tried again, at the pace `BackoffOptions` gives refusals
};

/// `"connecting"`, `"live"`, `"stale"` or `"failed"`.
constexpr std::string_view to_string(LinkState state) {
  switch (state) {
    case LinkState::connecting: return "connecting";
    case LinkState::live: return "live";
    case LinkState::stale: return "stale";
    case LinkState::failed: return "failed";
  }
  return "unknown";
}

/// What `status()` tells, and what a status callback is given.
struct LinkStatus {
  LinkState state = LinkState::connecting;
  TimePoint since{};       ///< when this state began, on the executor's clock
  std::error_code reason;  ///< why it is not live; empty when it is, or when nothing failed yet
  std::string detail;      ///< what was said besides the code; may be empty

  friend bool operator==(const LinkStatus&, const LinkStatus&) = default;
};

}  // namespace syncstate

#endif
