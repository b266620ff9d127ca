// What OpenSSL says went wrong, in words.
#ifndef SYNCSTATE_TCP_TLS_ERROR_HPP
#define SYNCSTATE_TCP_TLS_ERROR_HPP

#include <openssl/err.h>

#include <array>
#include <string>
#include <system_error>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::tcp::detail {

/// The words for one code of OpenSSL's error queue.
inline std::string openssl_message(unsigned long code) {
  if (code == 0) return "no reason given";
  if (ERR_SYSTEM_ERROR(code)) return std::generic_category().message(ERR_GET_REASON(code));
  if (const char* reason = ERR_reason_error_string(code)) return reason;
  std::array<char, 256> text{};
  ERR_error_string_n(code, text.data(), text.size());
  return text.data();
}

/// Empties this thread's error queue; the oldest entry is what went wrong first.
inline unsigned long take_openssl_error() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  return code;
}

inline std::string take_openssl_message() { return openssl_message(take_openssl_error()); }

}  // namespace syncstate::tcp::detail

#endif
