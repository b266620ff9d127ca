// How every thread of the library is started: with a name, and without signals.
#ifndef SYNCSTATE_THREADS_OWN_THREAD_HPP
#define SYNCSTATE_THREADS_OWN_THREAD_HPP

#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// What a thread of the library does; its name says so.
enum class ThreadKind { io, handshake, hook, remote, executor, resolver };

/// Makes the name of a new thread, as debuggers and `/proc/<pid>/task/<tid>/comm` show it: its kind and a number,
/// `ss-io-0`. Numbers count up within a process and begin again at 0 after 9,999. At most 15 characters, as the system
/// keeps no more.
/// Threads: any.
inline std::string next_thread_name(ThreadKind kind) {
  constexpr std::size_t kinds = 6;
  static constexpr std::array<std::string_view, kinds> names{"ss-io",     "ss-hs",   "ss-hook",
                                                             "ss-remote", "ss-exec", "ss-resolve"};
  static std::array<std::atomic<unsigned>, kinds> counts{};
  const auto index = static_cast<std::size_t>(kind);
  return std::string(names[index]) + "-" + std::to_string(counts[index]++ % 10'000);
}

/// Returns the signals that threads of the library block: all but those by which the system reports a fault of the very
/// instruction that a thread runs (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS), and SIGABRT, which `abort`
/// raises. So a signal that is sent to the process (SIGTERM, SIGINT, SIGCHLD, SIGPROF, ...) is taken by a thread of the
/// program, whatever was blocked when the library's threads were made.
inline sigset_t blocked_signals() {
  sigset_t set;
  ::sigfillset(&set);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
    ::sigdelset(&set, fault);
  return set;
}

/// Starts a thread that runs `f`. All threads of the library are started here.
///
/// The thread blocks `blocked_signals()` from its first instruction on, and has a name of its own.
/// Errors: `std::system_error` if the thread can't be started; nothing has changed then.
template <class F>
[[nodiscard]] std::thread start_thread(ThreadKind kind, F f) {
  // A thread inherits the mask of the one that starts it: set there, no signal can come in between.
  struct Mask {
    Mask() {
      const sigset_t blocked = blocked_signals();
      ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
    }
    Mask(const Mask&) = delete;
    Mask& operator=(const Mask&) = delete;
    ~Mask() { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); }
    sigset_t before{};
  };
  const std::string name = next_thread_name(kind);
  const Mask mask;
  std::thread thread([name, f = std::move(f)]() mutable {
    ::pthread_setname_np(::pthread_self(), name.c_str());
    f();
  });
  ::pthread_setname_np(thread.native_handle(),
                       name.c_str());  // by now, also where the thread has not run yet
  return thread;
}

}  // namespace syncstate::detail

#endif
