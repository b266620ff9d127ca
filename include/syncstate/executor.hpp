// Where code runs and what time it is: the one interface between the roles and threads or timers.
#ifndef SYNCSTATE_EXECUTOR_HPP
#define SYNCSTATE_EXECUTOR_HPP

#include <chrono>
#include <memory>
#include <utility>

#include "syncstate/detail/unique_function.hpp"

namespace syncstate {

/// A point of steady time; on a virtual executor a number that only the test moves.
using TimePoint = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

/// A serial executor: runs tasks one at a time, in the order posted, and tells the time.
///
/// Transports supply real ones (threads, Asio), tests a virtual one. Roles never ask a clock or start a
/// thread.
///
/// Threads : every member from any thread.
/// Lifetime: held by `std::shared_ptr`; tasks that have not run when it stops are destroyed unrun.
class Executor {
 public:
  using Task = detail::UniqueFunction<void()>;

  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  [[nodiscard]] virtual TimePoint now() const = 0;

  /// Runs `task` later, never inside this call. A task must not throw.
  virtual void post(Task task) = 0;

  /// As `post`; but from a task of this very executor it needs no wake-up: `task` runs soon after that one has
  /// returned.
  virtual void defer(Task task) { post(std::move(task)); }

  /// Runs `task` at `when` or soon after. Can't be taken back: a task that may have become pointless
  /// holds a weak pointer and looks.
  virtual void post_at(TimePoint when, Task task) = 0;

  /// True while the calling thread runs a task of this executor.
  [[nodiscard]] virtual bool runs_here() const = 0;

  /// Blocks the calling thread until `is_done()` or until `limit`; returns what `is_done()` says at last.
  ///
  /// `is_done` locks what it needs. Whoever makes it true calls `wake_waiters()` afterwards. A real executor
  /// sleeps on a condition variable; a virtual one runs its tasks, and moves its time when there are none.
  /// Must not be called where `runs_here()`: callers check that first and refuse with `would_deadlock`.
  virtual bool wait_until(TimePoint limit, detail::UniqueFunction<bool()> is_done) = 0;

  /// Has every thread in `wait_until` look again.
  virtual void wake_waiters() = 0;

  /// Returns whether this process was forked off after the threads that run this executor were started: they do not
  /// exist here, so no task runs any more, and every wait would last for ever. Takes no lock. Returns false if the
  /// executor has no threads of its own, as a virtual one.
  [[nodiscard]] virtual bool is_of_other_process() const { return false; }

  /// Another serial executor on the same clock, for code of users that may block; null where that takes a
  /// thread.
  [[nodiscard]] virtual std::shared_ptr<Executor> make_sibling() { return nullptr; }
};

}  // namespace syncstate

#endif
