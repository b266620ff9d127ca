// Where exceptions of users' code go that have no caller to go to.
#ifndef SYNCSTATE_ERROR_HANDLER_HPP
#define SYNCSTATE_ERROR_HANDLER_HPP

#include <exception>
#include <functional>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate {

/// Told of every exception that code of users threw where the library called it: hooks, callbacks, authorizers,
/// codecs; and of memory that ran out there. Nothing else comes of it than what the call's own documentation says.
///
/// Threads: called on the thread on which it was thrown, on several at once where there are several; it must not
///          block, and what it throws itself is dropped.
using ErrorHandler = std::function<void(std::exception_ptr)>;

namespace detail {

inline void report(const ErrorHandler& handler, std::exception_ptr error) noexcept {
  try {
    if (handler && error) handler(std::move(error));
  } catch (...) {  // who reports errors has nobody to report his own to
  }
}

/// Runs `f`; what it throws goes to the handler. Returns whether it came to its end.
template <class F>
bool contain(const ErrorHandler& handler, F&& f) noexcept {
  try {
    f();
    return true;
  } catch (...) {
    report(handler, std::current_exception());
    return false;
  }
}

}  // namespace detail
}  // namespace syncstate

#endif
