// A few threads that many serial executors share: what a real server's hooks run on.
#ifndef SYNCSTATE_THREADS_HOOK_POOL_HPP
#define SYNCSTATE_THREADS_HOOK_POOL_HPP

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/visibility.hpp"
#include "syncstate/detail/waiters.hpp"
#include "syncstate/error.hpp"
#include "syncstate/executor_pool.hpp"
#include "syncstate/threads/home_process.hpp"
#include "syncstate/threads/own_thread.hpp"

namespace syncstate {

namespace detail {

struct HookLane;

/// A thread asleep in `run_blocking`. On that thread's stack.
struct HookWait {
  std::thread::id thread = std::this_thread::get_id();
  enum { pending, done, dropped } state = pending;
  // Guarded by the wait graph's mutex:
  const HookLane* waits_for = nullptr;  // or null: the graph does not have it
  HookWait* before = nullptr;
  HookWait* after = nullptr;
};

/// The waits of threads for lanes, in all pools that code of one library or program made: a circle of waits may lead
/// through several pools. Each lane says which thread runs it.
///
/// A pool keeps the graph that it was made with. So code that was compiled into another library, and has static variables of
/// its own, looks at the same one.
/// Threads: every member from any thread. Its mutex is held for a few instructions, and taken after a pool's, never before.
class HookWaitGraph {
 public:
  SYNCSTATE_VISIBLE static HookWaitGraph& of_process() {
    static constinit HookWaitGraph graph;
    return graph;
  }

  /// In a child that was forked off, before anything else runs there: makes a new mutex, because a thread of the parent may
  /// have locked the old one, and forgets the waits, because the threads that wait in the parent do not exist here. The
  /// mutex is not locked before the fork: its owner may wait for a lock that the program itself takes before each fork.
  static void renew_in_child() {
    HookWaitGraph& graph = of_process();
    ::new (static_cast<void*>(&graph.mutex_)) std::mutex;
    graph.first_ = nullptr;
  }

  /// Notes that the thread of `wait` waits for `lane`. Returns false, and notes nothing, if that wait could never end.
  /// Complexity: O(waits in the circle, times all waits).
  [[nodiscard]] bool add(HookWait& wait, const HookLane& lane);

  /// The thread of `wait` does not wait any more.
  void remove(HookWait& wait) {
    const std::lock_guard lock(mutex_);
    if (wait.waits_for == nullptr) return;
    wait.waits_for = nullptr;
    (wait.before != nullptr ? wait.before->after : first_) = wait.after;
    if (wait.after != nullptr) wait.after->before = wait.before;
  }

  /// This thread begins to run a task of `lane`, or with an empty id ends to.
  void set_runner(HookLane& lane, std::thread::id thread);

 private:
  [[nodiscard]] const HookLane* lane_awaited_by(std::thread::id thread) const {
    for (const HookWait* wait = first_; wait != nullptr; wait = wait->after) {
      if (wait->thread == thread) return wait->waits_for;
    }
    return nullptr;
  }

  std::mutex mutex_;
  HookWait* first_ = nullptr;
};

/// Has every child that `fork` makes begin without waits, as long as this library is loaded; see home_process.hpp for why each
/// library registers for itself.
[[gnu::visibility("hidden")]] inline const bool is_hook_wait_graph_renewed =
    ::pthread_atfork(nullptr, nullptr, [] { HookWaitGraph::renew_in_child(); }) == 0;

/// One serial executor's queue; all of it but `runner` is guarded by the pool's mutex.
struct HookLane {
  struct Entry {
    Executor::Task task;
    HookWait* wait = nullptr;  // of the thread that sleeps until this entry has run, or null
  };
  std::deque<Entry> entries;
  std::condition_variable changed;  // the lane became free, or somebody's entry has run
  std::size_t sleepers = 0;
  bool is_active = false;    // a thread runs one of its tasks
  bool is_in_ready = false;  // the pool's ready list names it
  bool is_closed = false;
  std::atomic<std::thread::id> runner{};  // set under the wait graph's mutex

  /// Returns whether this thread runs one of its tasks.
  [[nodiscard]] bool runs_here() const {
    return runner.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
};

// A thread waits for one lane at most, and a lane is run by one thread at most: the graph is a set of chains, and a circle
// can only close where somebody begins to wait.
inline bool HookWaitGraph::add(HookWait& wait, const HookLane& lane) {
  const std::lock_guard lock(mutex_);
  for (const HookLane* at = &lane; at != nullptr;) {
    const std::thread::id runner = at->runner.load(std::memory_order_relaxed);
    if (runner == wait.thread) return false;
    at = runner == std::thread::id() ? nullptr : lane_awaited_by(runner);
  }
  wait.waits_for = &lane;
  wait.before = nullptr;
  wait.after = first_;
  if (first_ != nullptr) first_->before = &wait;
  first_ = &wait;
  return true;
}

inline void HookWaitGraph::set_runner(HookLane& lane, std::thread::id thread) {
  const std::lock_guard lock(mutex_);
  lane.runner.store(thread, std::memory_order_relaxed);
}

/// The queues and threads behind a `HookPool`, kept alive by its threads and executors.
class HookPoolState : public std::enable_shared_from_this<HookPoolState> {
 public:
  explicit HookPoolState(std::size_t threads) : wanted_threads_(threads) {}

  using Task = Executor::Task;
  using LanePtr = std::shared_ptr<HookLane>;
  struct Timer {
    LanePtr lane;
    Task task;
  };

  void post(const LanePtr& lane, Task task) {
    if (is_elsewhere()) return;  // without the lock, which a thread of the parent may have held
    {
      const std::lock_guard lock(mutex_);
      if (is_stopped_ || lane->is_closed) return;  // the caller's `task` dies after the lock is gone
      start_threads();
      lane->entries.push_back({std::move(task), nullptr});
      if (!make_ready(lane)) return;
    }
    work_.notify_one();  // without the lock, which the thread that wakes up needs at once
  }

  void dispatch(const LanePtr& lane, Task task) {
    if (is_elsewhere()) return;
    std::unique_lock lock(mutex_);
    if (is_stopped_ || lane->is_closed) return;
    start_threads();
    const bool is_idle = !lane->is_active && lane->entries.empty();
    lane->entries.push_back({std::move(task), nullptr});
    const bool needs_thread = is_idle ? run_front(lane, lock) : make_ready(lane);
    lock.unlock();
    if (needs_thread) work_.notify_one();
  }

  void post_at(const LanePtr& lane, TimePoint when, Task task) {
    if (is_elsewhere()) return;
    const std::lock_guard lock(mutex_);
    if (is_stopped_ || lane->is_closed) return;
    start_threads();
    const auto timer = timers_.emplace(std::pair(when, next_sequence_++), Timer{lane, std::move(task)}).first;
    // All threads: each that sleeps must know the new earliest time, whichever gets work first.
    if (timer == timers_.begin()) work_.notify_all();
  }

  void run_blocking(const LanePtr& lane, Task task) {
    expect_here();
    if (lane->runs_here()) throw StateError(StateErrc::would_deadlock);
    HookWait wait;
    std::unique_lock lock(mutex_);
    if (is_stopped_ || lane->is_closed) throw StateError(StateErrc::stopped);
    // Else it is ours below, whatever waits in it.
    if (lane->is_active && !graph_.add(wait, *lane)) throw StateError(StateErrc::would_deadlock);
    lane->entries.push_back({std::move(task), &wait});
    while (wait.state == HookWait::pending) {
      if (!lane->is_active) {
        graph_.remove(wait);
        if (run_front(lane, lock)) work_.notify_one();  // ours, or one that it must come after
      } else {
        ++lane->sleepers;
        lane->changed.wait(lock);
        --lane->sleepers;
      }
    }
    graph_.remove(wait);
    if (wait.state == HookWait::dropped) throw StateError(StateErrc::stopped);
  }

  void close(const LanePtr& lane) {
    if (is_elsewhere()) return;
    std::deque<HookLane::Entry> dropped;  // these two die after the lock is gone
    std::vector<Timer> dropped_timers;
    const std::lock_guard lock(mutex_);
    close_locked(*lane, dropped);
    for (auto it = timers_.begin(); it != timers_.end();) {
      if (it->second.lane != lane) {
        ++it;
        continue;
      }
      dropped_timers.push_back(std::move(it->second));
      it = timers_.erase(it);
    }
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (!is_stopped_) {
      if (!timers_.empty()) take_due_timers(std::chrono::steady_clock::now());
      if (!ready_.empty()) {
        const LanePtr lane = std::move(ready_.front());
        ready_.pop_front();
        lane->is_in_ready = false;
        // A caller of run_blocking may have been quicker.
        // What is ready after it needs no other thread: this one looks again.
        if (!lane->is_active && !lane->entries.empty()) run_front(lane, lock);
      } else if (timers_.empty()) {
        work_.wait(lock);
      } else {
        const TimePoint next = timers_.begin()->first.first;  // a copy: the timer may be gone meanwhile
        work_.wait_until(lock, next);
      }
    }
  }

  void stop() {
    if (is_elsewhere()) return;
    std::deque<HookLane::Entry> dropped;
    decltype(timers_) dropped_timers;
    std::unique_lock lock(mutex_);
    is_stopped_ = true;
    for (const auto& weak : lanes_) {
      if (const auto lane = weak.lock()) close_locked(*lane, dropped);
    }
    dropped_timers.swap(timers_);
    ready_.clear();
    work_.notify_all();
    lock.unlock();
    dropped.clear();  // before the wait below: a running task may wait for the end of one that never ran
    dropped_timers.clear();
    lock.lock();
    if (is_any_run_here()) return;
    idle_.wait(lock, [this] { return running_ == nullptr; });
  }

  /// Starts the threads that are not there yet.
  /// Errors: `std::system_error` if one can't be started; those that were started stay until `join`.
  void start() {
    expect_here();
    const std::lock_guard lock(mutex_);
    if (!is_stopped_) start_threads();
  }

  /// Returns whether this thread runs a task of this pool. False in a child that was forked off.
  /// Complexity: O(tasks that run).
  [[nodiscard]] bool runs_here() {
    if (is_elsewhere()) return false;
    const std::lock_guard lock(mutex_);
    return is_any_run_here();
  }

  /// Waits for the threads to end; on one of them it returns at once, and they end by themselves. Call it after `stop`.
  void join() {
    bool is_inside = runs_here();
    std::vector<std::thread> threads;
    {
      const std::lock_guard lock(mutex_);
      threads.swap(threads_);
    }
    for (const auto& thread : threads) is_inside = is_inside || thread.get_id() == std::this_thread::get_id();
    for (auto& thread : threads) {
      if (is_inside) {
        thread.detach();  // the thread holds this, and ends after the task that it is in
      } else {
        thread.join();
      }
    }
  }

  [[nodiscard]] bool is_elsewhere() const { return home_.is_elsewhere(); }
  void expect_here() const { home_.expect_here("this pool of hook threads"); }

  LanePtr make_lane() {
    expect_here();
    auto lane = std::make_shared<HookLane>();
    const std::lock_guard lock(mutex_);
    lane->is_closed = is_stopped_;
    // Swept when it would grow, so the list stays in proportion to the lanes alive.
    if (lanes_.size() == lanes_.capacity()) {
      std::erase_if(lanes_, [](const auto& weak) { return weak.expired(); });
    }
    lanes_.push_back(lane);
    return lane;
  }

  Waiters& waiters() { return waiters_; }

 private:
  /// With the mutex held.
  void start_threads() {
    if (threads_.size() == wanted_threads_) return;
    home_.settle();  // before there is a thread, for a child that is forked off meanwhile
    try {
      while (threads_.size() < wanted_threads_) {
        threads_.push_back(start_thread(ThreadKind::hook, [state = shared_from_this()] { state->work(); }));
      }
    } catch (...) {
      if (threads_.empty()) home_.forget();
      throw;
    }
  }

  /// Returns whether a thread must look for it.
  bool make_ready(const LanePtr& lane) {
    if (lane->is_active || lane->is_in_ready) return false;
    lane->is_in_ready = true;
    ready_.push_back(lane);
    return true;
  }

  void take_due_timers(TimePoint now) {
    while (!timers_.empty() && timers_.begin()->first.first <= now) {
      Timer timer = std::move(timers_.begin()->second);
      timers_.erase(timers_.begin());
      timer.lane->entries.push_back({std::move(timer.task), nullptr});
      if (make_ready(timer.lane)) work_.notify_one();
    }
  }

  /// Runs one task of a lane that nobody runs, then lets the next lane have its turn. Returns whether a
  /// thread must look for what is left in this one.
  bool run_front(const LanePtr& lane, std::unique_lock<std::mutex>& lock) {
    HookLane::Entry entry = std::move(lane->entries.front());
    lane->entries.pop_front();
    lane->is_active = true;
    Running running(running_);
    graph_.set_runner(*lane, running.thread);
    lock.unlock();

    entry.task();
    entry.task = Task();  // dies as part of its own turn, without a lock

    lock.lock();
    graph_.set_runner(*lane, std::thread::id());
    lane->is_active = false;
    running.leave(running_);
    if (running_ == nullptr && is_stopped_) idle_.notify_all();
    if (entry.wait != nullptr) {
      entry.wait->state = HookWait::done;
      graph_.remove(*entry.wait);
    }
    if (lane->sleepers > 0) lane->changed.notify_all();
    return !lane->entries.empty() && make_ready(lane);
  }

  void close_locked(HookLane& lane, std::deque<HookLane::Entry>& dropped) {
    lane.is_closed = true;
    for (auto& entry : lane.entries) {
      if (entry.wait != nullptr) entry.wait->state = HookWait::dropped;
      dropped.push_back(std::move(entry));
    }
    lane.entries.clear();
    lane.changed.notify_all();
  }

  /// One task that runs, of those of the pool. On the stack of the thread that runs it; guarded by the mutex.
  struct Running {
    explicit Running(Running*& first) : after(first) {
      if (after != nullptr) after->before = this;
      first = this;
    }
    void leave(Running*& first) {
      (before != nullptr ? before->after : first) = after;
      if (after != nullptr) after->before = before;
    }

    std::thread::id thread = std::this_thread::get_id();
    Running* before = nullptr;
    Running* after;
  };

  /// With the mutex held.
  [[nodiscard]] bool is_any_run_here() const {
    for (const Running* at = running_; at != nullptr; at = at->after) {
      if (at->thread == std::this_thread::get_id()) return true;
    }
    return false;
  }

  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable idle_;
  std::deque<LanePtr> ready_;  // each in turn runs one task
  std::map<std::pair<TimePoint, std::uint64_t>, Timer> timers_;
  std::uint64_t next_sequence_ = 0;
  std::vector<std::weak_ptr<HookLane>> lanes_;
  Running* running_ = nullptr;  // the last that began
  bool is_stopped_ = false;
  const std::size_t wanted_threads_;
  std::vector<std::thread> threads_;
  HomeProcess home_;
  Waiters waiters_;
  HookWaitGraph& graph_ = HookWaitGraph::of_process();
};

}  // namespace detail

/// Threads for hooks: serial executors take turns on them, task by task. They start with `start()`, or with the first
/// task that needs one.
///
/// A task of one executor may wait for another by `run_blocking`, even when every thread is taken: the thread that
/// waits runs what it waits for itself.
///
/// Threads : every member from any thread.
/// End     : `join()`, or the destructor; on a thread of the pool neither waits.
/// Fork    : in a child that was forked off after the threads were started no task runs; `join()` and the destructor
///           return at once, `start()`, `make_serial()` and `run_blocking` throw `stopped`.
class HookPool final : public ExecutorPool {
 public:
  /// Errors: `invalid_option` for no threads.
  explicit HookPool(std::size_t threads) {
    if (threads == 0)
      throw StateError(StateErrc::invalid_option,
                       "`threads` of a HookPool (`hook_threads` of a server) must be at least 1");
    state_ = std::make_shared<detail::HookPoolState>(threads);
  }

  ~HookPool() override { join(); }

  /// Starts the threads. May be called again.
  /// Errors: `std::system_error` if one can't be had; `stopped` in a child that was forked off after they were started.
  void start() { state_->start(); }

  /// True inside a task of this pool. False in a child that was forked off after the threads were started.
  [[nodiscard]] bool runs_here() const { return state_->runs_here(); }

  /// Stops, and ends the threads. For the owner of the pool; tasks may keep the pool itself alive for longer.
  void join() {
    if (state_ == nullptr) return;
    if (state_->is_elsewhere()) {
      auto state = state_;
      return detail::leave_behind(std::move(state));
    }
    state_->stop();
    state_->join();
  }

  [[nodiscard]] std::shared_ptr<SerialExecutor> make_serial() override {
    return std::make_shared<Serial>(state_);
  }

  void stop() override { state_->stop(); }

 private:
  class Serial final : public SerialExecutor {
   public:
    explicit Serial(std::shared_ptr<detail::HookPoolState> state)
        : state_(std::move(state)), lane_(state_->make_lane()) {}
    ~Serial() override {
      if (state_->is_elsewhere()) {
        detail::leave_behind(std::move(state_), std::move(lane_));
        return;
      }
      state_->close(lane_);
    }

    [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }
    void post(Task task) override { state_->post(lane_, std::move(task)); }
    void post_at(TimePoint when, Task task) override { state_->post_at(lane_, when, std::move(task)); }
    [[nodiscard]] bool runs_here() const override { return lane_->runs_here(); }
    [[nodiscard]] bool is_of_other_process() const override { return state_->is_elsewhere(); }
    bool wait_until(TimePoint limit, detail::UniqueFunction<bool()> is_done) override {
      return state_->waiters().wait_until(limit, is_done);
    }
    void wake_waiters() override { state_->waiters().wake(); }
    void run_blocking(Task task) override {
      const auto state = state_;  // a task may drop the last reference to this executor
      const auto lane = lane_;
      state->run_blocking(lane, std::move(task));
    }
    void dispatch(Task task) override {
      const auto state = state_;  // as above
      const auto lane = lane_;
      state->dispatch(lane, std::move(task));
    }

   private:
    std::shared_ptr<detail::HookPoolState> state_;
    detail::HookPoolState::LanePtr lane_;
  };

  std::shared_ptr<detail::HookPoolState> state_;
};

}  // namespace syncstate

#endif
