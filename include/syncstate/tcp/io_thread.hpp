// An Asio context with the one thread that runs it.
#ifndef SYNCSTATE_TCP_IO_THREAD_HPP
#define SYNCSTATE_TCP_IO_THREAD_HPP

#include <pthread.h>
#include <sys/resource.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "syncstate/async/asio.hpp"
#include "syncstate/tcp/asio_executor.hpp"

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

namespace syncstate::tcp {

/// One thread that does a server's or remote's I/O where no Asio context of the user's does.
///
/// Threads : `executor` from any thread; construction and end from one.
/// End     : `stop`, or the destructor, ends the thread after the handler it is in, waits for it, and
///           destroys what has not run. On its own thread it can't wait, and returns at once. The executor
///           may be kept: it is stopped, and harmless.
class IoThread {
 public:
  /// `name` shows in debuggers; the system keeps 15 characters. Before it sleeps, the thread goes on looking for work for
  /// as long as `spin` says; so does whoever waits for what it does.
  /// Where threads compete for a CPU, one with a higher `niceness` gives way, see nice(2).
  explicit IoThread(const std::string& name, std::chrono::microseconds spin = {}, int niceness = 0)
      : state_(std::make_shared<State>()) {
    executor_ = AsioExecutor::on_single_thread(state_->context, spin);
    thread_ = std::thread([state = state_, executor = executor_, spin, niceness]() mutable {
      // On Linux niceness is a thread's own. If the system does not let us, the thread competes like any other.
      if (niceness > 0) (void)::setpriority(PRIO_PROCESS, 0, niceness);
      run(state->context, spin);
      // Nothing that outlives this thread may touch the context, which goes with the last reference to the
      // state.
      executor->stop();
      executor.reset();
    });
    ::pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  }

  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;
  ~IoThread() { stop(); }

  /// The thread as the roles see it.
  [[nodiscard]] const std::shared_ptr<AsioExecutor>& executor() const { return executor_; }

  /// What sockets and timers on this thread are made with. Not after `stop`.
  [[nodiscard]] asio::any_io_executor asio_executor() const { return executor_->asio_executor(); }

  void stop() {
    if (!thread_.joinable()) return;
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

  std::shared_ptr<State> state_;
  std::shared_ptr<AsioExecutor> executor_;
  std::thread thread_;
};

}  // namespace syncstate::tcp

#endif
