// Builds the error text for a call that did not end in time: it says whether there was no link, or no answer.
#ifndef SYNCSTATE_DETAIL_REMOTE_WHY_LATE_HPP
#define SYNCSTATE_DETAIL_REMOTE_WHY_LATE_HPP

#include <chrono>
#include <string>
#include <string_view>

#include "syncstate/error.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/status.hpp"

namespace syncstate::detail {

/// Returns the detail of an `unavailable` or `outcome_unknown` error: what did not come, within which limit, and why.
///
/// `limit_name` is the option, or the argument, that set `limit`. The message of the code `unavailable` always stands
/// before the detail, so the detail does not repeat it.
inline std::string why_late(const LinkStatus& status, std::string_view limit_name, Duration limit) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
  const std::string within = "within " + std::string(limit_name) + " (" + std::to_string(ms) + " ms)";
  if (status.state == LinkState::live) return "the link is live, but the answer did not come " + within;
  std::string text = "there was no live link " + within;
  if (!status.reason) return text;
  const bool is_repeated = status.reason == StateErrc::unavailable;
  if (is_repeated && status.detail.empty()) return text;
  text += "; the last attempt ended with: ";
  if (is_repeated) return text + status.detail;
  return text + status.reason.message() + (status.detail.empty() ? "" : ": " + status.detail);
}

}  // namespace syncstate::detail

#endif
