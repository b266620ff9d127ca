// What the two kinds of session share.
#ifndef SYNCSTATE_PROTOCOL_SESSION_HPP
#define SYNCSTATE_PROTOCOL_SESSION_HPP

#include <exception>
#include <string>

#include "syncstate/error.hpp"
#include "syncstate/protocol/peer_text.hpp"

namespace syncstate::protocol {

/// The session is over: let the link send what `produce` still gives, then close it.
struct CloseSession {
  StateErrc reason;
  std::string detail;
  std::exception_ptr
      cause{};  ///< what code of users threw, or memory that ran out; null where nothing of ours did
};

/// The code of an error as it travels.
inline StateErrc reason_of(const StateError& error) {
  return is_state_category(error.code().category()) ? static_cast<StateErrc>(error.code().value())
                                                    : StateErrc::protocol_error;
}

/// In a handler: the exception that was being handled when the current one was thrown by `std::throw_with_nested`, or
/// null. It catches the exception, because a `dynamic_cast` would need -frtti.
inline std::exception_ptr cause_of_current_exception() noexcept {
  try {
    throw;
  } catch (const std::nested_exception& with_cause) {
    return with_cause.nested_ptr();
  } catch (...) {
    return nullptr;
  }
}

/// In a handler: why a session ends for what was thrown. A `StateError` is the peer's doing, as a rule; what is none
/// comes out of a codec of the user's, or memory ran out, and is his to hear of.
inline CloseSession close_for_exception() {
  try {
    throw;
  } catch (const StateError& error) {
    return CloseSession{reason_of(error), std::string(beginning_of(error.detail())),
                        cause_of_current_exception()};
  } catch (const std::exception& error) {
    return CloseSession{StateErrc::protocol_error, text_of(error), std::current_exception()};
  } catch (...) {
    return CloseSession{StateErrc::protocol_error, "something that is no std::exception was thrown",
                        std::current_exception()};
  }
}

/// Ends the session: the peer sent something that it must not.
[[noreturn]] inline void break_off(const char* why) { throw StateError(StateErrc::protocol_error, why); }

}  // namespace syncstate::protocol

#endif
