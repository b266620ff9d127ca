// Builds error texts that name the limit that was exceeded.
#ifndef SYNCSTATE_DETAIL_LIMIT_TEXT_HPP
#define SYNCSTATE_DETAIL_LIMIT_TEXT_HPP

#include <cstdint>
#include <string>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Returns `what`, the name of the member of `Limits` that it exceeds, and its value:
/// `"an event of 300 bytes, and Limits::event_bytes is 200"`.
inline std::string beyond_limit(std::string what, const char* limit, std::uint64_t most) {
  what += ", and Limits::";
  what += limit;
  what += " is ";
  what += std::to_string(most);
  return what;
}

/// The same for something of `bytes` bytes: `of_bytes("an event", 300)` returns `"an event of 300 bytes"`.
inline std::string of_bytes(const char* what, std::uint64_t bytes) {
  return std::string(what) + " of " + std::to_string(bytes) + " bytes";
}

}  // namespace syncstate::detail

#endif
