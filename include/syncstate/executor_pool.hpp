// Many serial executors that share a few threads: what hooks run on.
#ifndef SYNCSTATE_EXECUTOR_POOL_HPP
#define SYNCSTATE_EXECUTOR_POOL_HPP

#include <memory>
#include <utility>

#include "syncstate/executor.hpp"

namespace syncstate {

/// An executor whose turn a caller can wait for without ever blocking itself.
class SerialExecutor : public Executor {
 public:
  /// Runs `task` here, after everything posted before, and returns when it has run.
  ///
  /// An idle executor runs it on the calling thread; so does one whose earlier tasks have not started, after
  /// these. Otherwise the caller sleeps until its turn. A task must not throw.
  /// Errors: `would_deadlock` where the wait could never end: from a task of this executor, or from one that
  ///         this executor waits for, over any number of executors and pools; `stopped` after `stop()`, also
  ///         when that comes during the wait. `task` has not run then.
  virtual void run_blocking(Task task) = 0;

  /// Runs `task` on the calling thread, before it returns, if the executor is idle; else as `post`. Never waits.
  virtual void dispatch(Task task) { post(std::move(task)); }
};

/// Where serial executors come from.
///
/// Threads : every member from any thread.
class ExecutorPool {
 public:
  ExecutorPool() = default;
  ExecutorPool(const ExecutorPool&) = delete;
  ExecutorPool& operator=(const ExecutorPool&) = delete;
  virtual ~ExecutorPool() = default;

  /// One more serial executor. It may outlive the pool, and then drops what is posted to it.
  [[nodiscard]] virtual std::shared_ptr<SerialExecutor> make_serial() = 0;

  /// No task starts any more; tasks that wait are destroyed. Returns when no task runs, but at once when
  /// called from one.
  virtual void stop() = 0;
};

}  // namespace syncstate

#endif
