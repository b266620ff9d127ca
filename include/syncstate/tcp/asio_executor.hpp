// The roles' executor over Asio.
#ifndef SYNCSTATE_TCP_ASIO_EXECUTOR_HPP
#define SYNCSTATE_TCP_ASIO_EXECUTOR_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "syncstate/async/asio.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/unique_function.hpp"
#include "syncstate/detail/visibility.hpp"
#include "syncstate/detail/waiters.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/threads/home_process.hpp"

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>

namespace syncstate::tcp {

/// Runs tasks on an Asio context, one at a time, in turn with what else its `asio_executor` runs: links,
/// timers.
///
/// Threads : any member from any thread.
/// Lifetime: the context must outlive it, unless `stop` was called before. `stop`, or the last reference
///           going away with no task posted, destroys what has not run.
class AsioExecutor final : public Executor, public std::enable_shared_from_this<AsioExecutor> {
 public:
  /// On a context that any number of threads may run: makes a strand of its own.
  static std::shared_ptr<AsioExecutor> on_strand(const asio::any_io_executor& executor) {
    const Strand strand(executor);
    return std::shared_ptr<AsioExecutor>(
        new AsioExecutor(strand, [strand] { return strand.running_in_this_thread(); }));
  }

  /// On a context that exactly one thread runs. Whoever waits in `wait_until` looks as long as `spin` says before it
  /// sleeps.
  static std::shared_ptr<AsioExecutor> on_single_thread(asio::io_context& context,
                                                        std::chrono::microseconds spin = {}) {
    const auto executor = context.get_executor();
    return std::shared_ptr<AsioExecutor>(new AsioExecutor(
        executor, [executor] { return executor.running_in_this_thread(); }, spin));
  }

  ~AsioExecutor() override { stop(); }

  /// A handler of the context that is one of this executor's tasks, as long as it runs: what it defers runs at its end,
  /// without another way through the context.
  class Handler {
   public:
    /// With null it is an ordinary handler.
    explicit Handler(std::shared_ptr<AsioExecutor> executor) : executor_(std::move(executor)) {
      if (!executor_) return;
      outer_ = executor_->thread_.load(std::memory_order_relaxed);
      executor_->thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    }
    Handler(const Handler&) = delete;
    Handler& operator=(const Handler&) = delete;
    ~Handler() {
      if (!executor_) return;
      executor_->run_waiting();
      executor_->thread_.store(outer_, std::memory_order_relaxed);
    }

   private:
    std::shared_ptr<AsioExecutor> executor_;
    std::thread::id outer_;  // a handler may run its own context
  };

  /// Notes that the threads that run this executor are in this process.
  void settle() noexcept { home_.settle(); }

  /// Takes `settle` back, where there is no thread to be had.
  void unsettle() noexcept { home_.forget(); }

  /// A child that was forked off after `settle`: there the context is a copy that must do nothing, for its sockets, and
  /// its epoll set, are the parent's.
  [[nodiscard]] bool is_of_other_process() const override { return home_.is_elsewhere(); }

  /// What sockets and timers that belong to this executor are made with. Serial. Not after `stop`.
  [[nodiscard]] asio::any_io_executor asio_executor() const {
    const std::lock_guard lock(mutex_);
    return executor_;
  }

  [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }

  void post(Task task) override {
    if (is_of_other_process()) return leave(std::move(task));
    std::unique_lock lock(mutex_);
    if (is_stopped_) return;
    tasks_.push_back(std::move(task));
    schedule(lock);
  }

  void defer(Task task) override {
    if (!is_in_handler()) return post(std::move(task));
    if (!is_stopped_) deferred_.push_back(std::move(task));
  }

  void post_at(TimePoint when, Task task) override {
    if (is_of_other_process()) return leave(std::move(task));
    std::unique_lock lock(mutex_);
    if (is_stopped_) return;
    timed_.push_back(Timed{when, ++timed_count_, std::move(task)});
    std::push_heap(timed_.begin(), timed_.end(), is_later);
    if (when < armed_for_) schedule(lock);
  }

  [[nodiscard]] bool runs_here() const override {
    if (is_of_other_process()) return false;
    const std::lock_guard lock(mutex_);
    // A context tells it only to code of the library that runs the context.
    return !is_stopped_ && (is_in_handler() || runs_here_());
  }

  bool wait_until(TimePoint limit, syncstate::detail::UniqueFunction<bool()> is_done) override {
    if (spin_ > spin_.zero()) {
      const TimePoint until = (std::min)(limit, now() + spin_);
      do {
        if (is_done()) return true;
        std::this_thread::yield();
      } while (now() < until);
    }
    return waiters_.wait_until(limit, is_done);
  }

  void wake_waiters() override { waiters_.wake(); }

  /// Runs nothing more, except a task that is under way; what has not run is destroyed here and now. After it
  /// the context is not touched again.
  void stop() {
    if (is_of_other_process()) return;
    std::vector<Task> tasks;
    std::vector<Timed> timed;
    std::unique_lock lock(mutex_);
    if (is_stopped_) return;
    is_stopped_ = true;
    tasks.swap(tasks_);  // destroyed after the lock is gone: a task's end may run code of its owner
    timed.swap(timed_);
    // The timer belongs to its own pending wait: while there is one its context lives.
    if (auto timer = timer_.lock()) asio::post(executor_, [timer] { timer->cancel(); });
    executor_ = {};
    runs_here_ = {};
    lock.unlock();
    // Whoever is about to wake the context has done so before it goes.
    for (int left = scheduling_; left > 0; left = scheduling_) scheduling_.wait(left);
  }

 private:
  using Strand = asio::strand<asio::any_io_executor>;

  static constexpr int rounds_per_handler = 4;

  struct Timed {
    TimePoint when;
    std::uint64_t number;
    Task task;
  };
  /// A call of `run` that is due. Where the context is destroyed instead of run, the tasks go with it: they hold what
  /// holds this executor, and would keep each other for ever.
  class Round {
   public:
    explicit Round(std::shared_ptr<AsioExecutor> self) : self_(std::move(self)) {}
    Round(Round&&) = default;
    Round& operator=(Round&&) = delete;
    ~Round() {
      if (!self_) return;
      if (self_->is_of_other_process()) {
        syncstate::detail::leave_behind(std::move(self_));
        return;
      }
      self_->drop_all();
    }
    void operator()() { std::exchange(self_, nullptr)->run(); }

   private:
    std::shared_ptr<AsioExecutor> self_;
  };

  /// In a child that was forked off: a thread of the parent may have held the mutex, and a task may hold what must not be
  /// destroyed there.
  static void leave(Task&& task) { syncstate::detail::leave_behind(std::move(task)); }

  void drop_all() {
    std::vector<Task> tasks;  // destroyed after the lock is gone, as in `stop`
    std::vector<Timed> timed;
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    tasks.swap(tasks_);
    timed.swap(timed_);
    executor_ = {};
    runs_here_ = {};
  }

  // For a heap with the earliest on top, and the first posted among equals.
  static bool is_later(const Timed& a, const Timed& b) {
    return a.when != b.when ? a.when > b.when : a.number > b.number;
  }

  AsioExecutor(asio::any_io_executor executor, syncstate::detail::UniqueFunction<bool()> runs_here,
               std::chrono::microseconds spin = {})
      : executor_(std::move(executor)), runs_here_(std::move(runs_here)), spin_(spin) {}

  // Has `run` called soon. Lets go of the lock first: the thread that wakes up needs it at once.
  void schedule(std::unique_lock<std::mutex>& lock) {
    if (is_scheduled_) return;
    is_scheduled_ = true;
    std::optional<asio::any_io_executor> executor(executor_);
    ++scheduling_;
    lock.unlock();
    try {
      asio::post(*executor, Round(shared_from_this()));
    } catch (...) {  // out of memory: whoever posts next tries again
      lock.lock();
      is_scheduled_ = false;
      lock.unlock();
      executor.reset();
      end_scheduling();
      throw;
    }
    executor.reset();
    end_scheduling();
  }

  // From here on the context may go.
  void end_scheduling() {
    if (--scheduling_ == 0) scheduling_.notify_all();
  }

  /// Returns whether this thread is in one of this executor's tasks.
  [[nodiscard]] bool is_in_handler() const {
    return thread_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }

  // On the executor.
  void run() {
    if (is_of_other_process()) return;
    {
      const std::lock_guard lock(mutex_);
      if (is_stopped_) return;
      const TimePoint time = now();
      while (!timed_.empty() && timed_.front().when <= time) {
        std::pop_heap(timed_.begin(), timed_.end(), is_later);
        tasks_.push_back(std::move(timed_.back().task));
        timed_.pop_back();
      }
    }
    { const Handler handler(shared_from_this()); }

    std::unique_lock lock(mutex_);
    if (is_stopped_) return;
    is_scheduled_ = false;
    arm();
    if (!tasks_.empty()) schedule(lock);
  }

  // On the executor: runs the tasks that wait, and what those defer, some rounds long. What is left then waits until
  // other handlers of the context had a turn.
  void run_waiting() {
    for (int round = 0; round < rounds_per_handler; ++round) {
      if (deferred_.empty()) {
        const std::lock_guard lock(mutex_);
        if (tasks_.empty()) return;
        deferred_.swap(tasks_);
      }
      std::vector<Task> batch = std::move(spare_);
      batch.swap(deferred_);
      for (Task& task : batch) {
        if (is_stopped_) return deferred_.clear();
        task();
        task = {};
      }
      batch.clear();
      spare_ = std::move(batch);
    }
    std::unique_lock lock(mutex_);
    if (is_stopped_) return deferred_.clear();
    tasks_.insert(tasks_.begin(), std::make_move_iterator(deferred_.begin()),
                  std::make_move_iterator(deferred_.end()));
    deferred_.clear();
    if (!tasks_.empty()) schedule(lock);
  }

  // Under the lock, on the executor: has `run` called when the earliest timed task is due.
  void arm() {
    if (timed_.empty() || timed_.front().when >= armed_for_) return;
    armed_for_ = timed_.front().when;
    auto timer = timer_.lock();
    if (!timer) {
      timer = std::make_shared<asio::steady_timer>(executor_);
      timer_ = timer;
    }
    timer->expires_at(armed_for_);  // and cancels the wait for a later time
    timer->async_wait([timer, weak = weak_from_this()](std::error_code error) {
      if (error == asio::error::operation_aborted) return;
      if (const auto self = weak.lock()) self->on_timer();
    });
  }

  void on_timer() {
    {
      const std::lock_guard lock(mutex_);
      armed_for_ = (TimePoint::max)();
      if (is_stopped_ || is_scheduled_) return;  // whoever is scheduled looks at the time, too
      is_scheduled_ = true;
    }
    run();
  }

  std::atomic<std::thread::id> thread_{};  // in one of its tasks, else empty
  mutable std::mutex mutex_;
  asio::any_io_executor executor_;
  mutable syncstate::detail::UniqueFunction<bool()> runs_here_;
  const std::chrono::microseconds spin_;
  std::vector<Task> tasks_;
  std::vector<Task> deferred_;  // these two on the executor only, without the lock; empty between handlers
  std::vector<Task> spare_;     // no task: room for the next ones
  std::vector<Timed> timed_;    // a heap
  std::uint64_t timed_count_ = 0;
  TimePoint armed_for_ = (TimePoint::max)();
  std::weak_ptr<asio::steady_timer> timer_;
  bool is_scheduled_ = false;
  std::atomic<int> scheduling_{0};       // threads that wake the context right now
  std::atomic<bool> is_stopped_{false};  // set under the lock
  syncstate::detail::HomeProcess home_;
  syncstate::detail::Waiters waiters_;
};

}  // namespace syncstate::tcp

#endif
