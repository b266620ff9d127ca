// What the two kinds of session share.
#ifndef SYNCSTATE_PROTOCOL_SESSION_HPP
#define SYNCSTATE_PROTOCOL_SESSION_HPP

#include <string>

#include "syncstate/error.hpp"

namespace syncstate::protocol {

/// The session is over: let the link send what `produce` still gives, then close it.
struct CloseSession {
  StateErrc reason;
  std::string detail;
};

/// The code of an error as it travels.
inline StateErrc reason_of(const StateError& error) {
  return error.code().category() == state_category() ? static_cast<StateErrc>(error.code().value())
                                                     : StateErrc::protocol_error;
}

/// What goes to the peer as text is for people, and bounded.
inline std::string shorten(std::string text) {
  constexpr std::size_t most = 512;
  if (text.size() <= most) return text;
  std::size_t size = most;
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0U) == 0x80)
    --size;  // no half of a character
  text.resize(size);
  return text;
}

/// Ends the session: the peer sent something that it must not.
[[noreturn]] inline void break_off(const char* why) { throw StateError(StateErrc::protocol_error, why); }

}  // namespace syncstate::protocol

#endif
