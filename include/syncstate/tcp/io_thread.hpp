// An Asio context with the one thread that runs it.
#ifndef SYNCSTATE_TCP_IO_THREAD_HPP
#define SYNCSTATE_TCP_IO_THREAD_HPP

#include <sys/resource.h>
#include <sys/types.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "syncstate/async/asio.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/tcp/asio_executor.hpp"
#include "syncstate/threads/home_process.hpp"
#include "syncstate/threads/own_thread.hpp"

#include <asio/execution_context.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

namespace syncstate::tcp {

/// One thread that does a server's or remote's I/O where no Asio context of the user's does.
///
/// What is posted before `start` runs after it. Until then the process may fork, and start it in the child.
/// Threads : `executor` from any thread; construction, `start` and end from one.
/// End     : `stop`, or the destructor, ends the thread after the handler it is in, waits for it, and
///           destroys what has not run. On its own thread it can't wait, and returns at once. The executor
///           may be kept: it is stopped, and harmless.
/// Fork    : in a child that was forked off after `start`, `stop` and the destructor return at once, and nothing of the
///           parent's is touched.
class IoThread {
 public:
  /// `kind` is for the thread's name. Before it sleeps, the thread goes on looking for work for as long as `spin` says;
  /// so does a thread that waits for what it does. Where threads compete for a CPU, one with a higher `niceness` gives
  /// way, see nice(2).
  explicit IoThread(syncstate::detail::ThreadKind kind, std::chrono::microseconds spin = {}, int niceness = 0)
      : kind_(kind),
        spin_(spin),
        niceness_(niceness),
        state_(std::make_shared<State>()),
        executor_(AsioExecutor::on_single_thread(state_->context, spin)) {}

  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;
  ~IoThread() { stop(); }

  /// The thread as the roles see it.
  [[nodiscard]] const std::shared_ptr<AsioExecutor>& executor() const { return executor_; }

  /// What sockets and timers on this thread are made with. Not after `stop`.
  [[nodiscard]] asio::any_io_executor asio_executor() const { return executor_->asio_executor(); }

  [[nodiscard]] bool is_started() const { return thread_.joinable(); }

  /// In a child that was forked off before `start`, gives the context an epoll set of its own: until then it shares that of
  /// the parent. Anywhere else it does nothing. `start` does the same; where several contexts know each other, do it for all
  /// of them before the first thread starts.
  void renew_after_fork() {
    if (is_started() || made_in_ == syncstate::detail::process_id()) return;
    state_->context.notify_fork(asio::execution_context::fork_child);
    made_in_ = syncstate::detail::process_id();
  }

  /// Starts the thread, unless it was started.
  /// Errors: `std::system_error` if it can't be started.
  void start() {
    if (is_started()) return;
    renew_after_fork();
    // Before there is a thread: a child that another thread forks off meanwhile must know that it has not got it.
    executor_->settle();
    try {
      start_thread();
    } catch (...) {
      executor_->unsettle();
      throw;
    }
  }

  void stop() {
    if (state_ == nullptr) return;
    if (executor_->is_of_other_process()) {
      return syncstate::detail::leave_behind(std::move(state_), std::move(executor_), std::move(thread_));
    }
    if (!is_started()) {
      executor_->stop();
      state_.reset();
      return;
    }
    state_->context.stop();
    if (thread_.get_id() == std::this_thread::get_id()) {
      thread_.detach();
    } else {
      thread_.join();
    }
    state_.reset();  // the context, or where detached the thread's own reference to it
  }

 private:
  struct State {
    asio::io_context context{1};
    asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  };

  void start_thread() {
    thread_ = syncstate::detail::start_thread(
        kind_, [state = state_, executor = executor_, spin = spin_, niceness = niceness_]() mutable {
          // On Linux niceness is a thread's own. If the system does not let us, the thread competes like any other.
          if (niceness > 0) (void)::setpriority(PRIO_PROCESS, 0, niceness);
          run(state->context, spin);
          // Nothing that outlives this thread may touch the context, which goes with the last reference to the
          // state.
          executor->stop();
          executor.reset();
        });
  }

  static void run(asio::io_context& context, std::chrono::microseconds spin) {
    if (spin <= spin.zero()) {
      context.run();
      return;
    }
    while (!context.stopped()) {
      if (!finds_work(context, spin)) context.run_one();
    }
  }

  /// Looks until there is some, and does it.
  static bool finds_work(asio::io_context& context, std::chrono::microseconds limit) {
    const auto until = std::chrono::steady_clock::now() + limit;
    do {
      if (context.poll() > 0) return true;
    } while (!context.stopped() && std::chrono::steady_clock::now() < until);
    return false;
  }

  const syncstate::detail::ThreadKind kind_;
  const std::chrono::microseconds spin_;
  const int niceness_;
  pid_t made_in_ = syncstate::detail::process_id();
  std::shared_ptr<State> state_;  // null after `stop`
  std::shared_ptr<AsioExecutor> executor_;
  std::thread thread_;
};

}  // namespace syncstate::tcp

#endif
