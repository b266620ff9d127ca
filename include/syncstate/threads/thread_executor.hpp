// An executor that is one thread with a timer queue.
#ifndef SYNCSTATE_THREADS_THREAD_EXECUTOR_HPP
#define SYNCSTATE_THREADS_THREAD_EXECUTOR_HPP

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/waiters.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/threads/home_process.hpp"
#include "syncstate/threads/own_thread.hpp"

namespace syncstate {

/// Runs its tasks on one thread of its own, on the steady clock. The thread starts with the first task.
///
/// Threads : every member from any thread.
/// End     : the destructor destroys the tasks that have not run and waits for the running one; on its own
///           thread it can't, and returns at once.
/// Fork    : in a child that was forked off after the first task, no task runs (`post` and `post_at` destroy theirs), and the
///           destructor returns at once.
class ThreadExecutor final : public Executor {
 public:
  ThreadExecutor() : state_(std::make_shared<State>()) {}

  ~ThreadExecutor() override {
    if (home_.is_elsewhere()) {
      detail::leave_behind(std::move(state_), std::move(thread_));
      return;
    }
    state_->stop();
    if (!thread_.joinable()) return;
    if (runs_here()) {
      thread_.detach();  // the thread holds the state, and ends after the task that it is in
    } else {
      thread_.join();
    }
  }

  /// The clock of every thread executor, for code that has none yet.
  [[nodiscard]] static TimePoint steady_now() { return std::chrono::steady_clock::now(); }

  [[nodiscard]] TimePoint now() const override { return steady_now(); }

  /// Errors: `std::system_error` if its thread can't be started.
  void post(Task task) override {
    if (home_.is_elsewhere()) return;  // without a lock, which a thread of the parent may have held
    const std::lock_guard lock(state_->mutex);
    start_thread();
    state_->ready.push_back(std::move(task));
    state_->changed.notify_one();
  }

  /// Errors: as `post`.
  void post_at(TimePoint when, Task task) override {
    if (home_.is_elsewhere()) return;
    const std::lock_guard lock(state_->mutex);
    start_thread();
    state_->timers.emplace(std::pair(when, state_->next_sequence++), std::move(task));
    state_->changed.notify_one();
  }

  [[nodiscard]] bool runs_here() const override {
    return state_->thread.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }

  [[nodiscard]] bool is_of_other_process() const override { return home_.is_elsewhere(); }

  bool wait_until(TimePoint limit, detail::UniqueFunction<bool()> is_done) override {
    return state_->waiters.wait_until(limit, is_done);
  }

  void wake_waiters() override { state_->waiters.wake(); }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Task> ready;
    std::map<std::pair<TimePoint, std::uint64_t>, Task> timers;  // equal times in the order posted
    std::uint64_t next_sequence = 0;
    bool is_stopped = false;
    detail::Waiters waiters;
    std::atomic<std::thread::id> thread{};  // empty before it runs, and afterwards

    void stop() {
      decltype(ready) dropped_ready;
      decltype(timers) dropped_timers;
      const std::lock_guard lock(mutex);
      is_stopped = true;
      dropped_ready.swap(ready);  // destroyed after the lock is gone: a task's end may run code of its owner
      dropped_timers.swap(timers);
      changed.notify_all();
    }

    void take_due_timers(TimePoint now) {
      while (!timers.empty() && timers.begin()->first.first <= now) {
        ready.push_back(std::move(timers.begin()->second));
        timers.erase(timers.begin());
      }
    }
  };

  /// With the mutex held.
  void start_thread() {
    if (thread_.joinable()) return;
    home_.settle();  // before there is a thread, for a child that is forked off meanwhile
    try {
      thread_ = detail::start_thread(detail::ThreadKind::executor, [state = state_] { run(*state); });
    } catch (...) {
      home_.forget();
      throw;
    }
  }

  static void run(State& state) {
    state.thread.store(std::this_thread::get_id(), std::memory_order_relaxed);
    std::unique_lock lock(state.mutex);
    while (!state.is_stopped) {
      if (!state.timers.empty()) state.take_due_timers(std::chrono::steady_clock::now());
      if (!state.ready.empty()) {
        Task task = std::move(state.ready.front());
        state.ready.pop_front();
        lock.unlock();
        task();
        task = Task();  // may be the end of the executor itself
        lock.lock();
      } else if (state.timers.empty()) {
        state.changed.wait(lock);
      } else {
        const TimePoint next = state.timers.begin()->first.first;  // a copy: the timer may be gone meanwhile
        state.changed.wait_until(lock, next);
      }
    }
    state.thread.store(std::thread::id(), std::memory_order_relaxed);  // another thread may get that id
  }

  std::shared_ptr<State> state_;
  std::thread thread_;  // guarded by the state's mutex until the end
  detail::HomeProcess home_;
};

}  // namespace syncstate

#endif
