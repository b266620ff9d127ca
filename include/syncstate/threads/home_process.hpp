// The process in which the threads of an object exist.
#ifndef SYNCSTATE_THREADS_HOME_PROCESS_HPP
#define SYNCSTATE_THREADS_HOME_PROCESS_HPP

#include <pthread.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>

#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/error.hpp"

namespace syncstate::detail {

// The functions that fork() is to call belong to the library that registers them: dlclose removes them. So each shared
// library has variables of its own here (hidden), and registers for itself, when it is loaded: a flag that says so once for the
// whole process would stay when the functions go. They are no function-local
// variables: if the process forked while another thread initialized one, the child would wait for that thread for ever.

/// The id of this process as far as this library knows it, or 0.
[[gnu::visibility("hidden")]] inline constinit std::atomic<pid_t> known_process_id{0};

/// Has `known_process_id` read again in every child that `fork` makes, as long as this library is loaded.
[[gnu::visibility("hidden")]] inline const bool is_process_id_kept = [] {
  const bool is_kept = ::pthread_atfork(nullptr, nullptr, [] {
                         known_process_id.store(::getpid(), std::memory_order_relaxed);
                       }) == 0;
  if (is_kept) known_process_id.store(::getpid(), std::memory_order_relaxed);
  return is_kept;
}();

/// Returns the id of this process. It makes a system call only if `fork` could not be told to keep the id.
///
/// Threads: any.
[[gnu::visibility("hidden")]] inline pid_t process_id() noexcept {
  const pid_t known = known_process_id.load(std::memory_order_relaxed);
  return known != 0 ? known : ::getpid();
}

/// The process in which the threads of an object were started.
///
/// A child that is forked off has a copy of the object, but none of its threads. Its locks may be held by threads that
/// do not exist there, and what it knows of sockets belongs to the parent. So such a copy does nothing any more: its
/// destructor leaves everything behind (`leave_behind`), and its blocking calls throw.
///
/// Threads: any. It takes no lock, so that a child may ask at any time.
class HomeProcess {
 public:
  HomeProcess() = default;
  /// Notes what the other one noted. GCC 11 needs it for members that are initialized by `here()`.
  HomeProcess(const HomeProcess& other) noexcept : id_(other.id_.load(std::memory_order_relaxed)) {}
  /// Returns one that has noted this process.
  static HomeProcess here() noexcept { return HomeProcess(process_id()); }

  /// Notes this process. Does nothing if a process was noted before.
  void settle() noexcept {
    pid_t none = 0;
    id_.compare_exchange_strong(none, process_id(), std::memory_order_relaxed);
  }

  /// Notes this process, also where another one was noted.
  void move_here() noexcept { id_.store(process_id(), std::memory_order_relaxed); }

  /// Notes nothing any more: the threads could not be had.
  void forget() noexcept { id_.store(0, std::memory_order_relaxed); }

  /// Returns whether another process was noted: this one was forked off from it. False as long as none was.
  [[nodiscard]] bool is_elsewhere() const noexcept {
    const pid_t id = id_.load(std::memory_order_relaxed);
    return id != 0 && id != process_id();
  }

  /// Errors: `stopped` if `is_elsewhere()`; `what` names the object, as in "this server".
  void expect_here(const char* what) const {
    if (is_elsewhere()) throw StateError(StateErrc::stopped, forked_text(what));
  }

 private:
  explicit HomeProcess(pid_t id) noexcept : id_(id) {}

  std::atomic<pid_t> id_{0};
};

}  // namespace syncstate::detail

#endif
