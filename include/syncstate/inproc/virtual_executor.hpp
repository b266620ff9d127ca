// Virtual time: executors whose clock only the test moves, all on one thread, always in the same order.
#ifndef SYNCSTATE_INPROC_VIRTUAL_EXECUTOR_HPP
#define SYNCSTATE_INPROC_VIRTUAL_EXECUTOR_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "syncstate/error.hpp"
#include "syncstate/executor_pool.hpp"

namespace syncstate::inproc {

namespace detail {

/// One executor's identity in the queue.
struct VirtualLane {
  bool is_running = false;  ///< a task of it is on the stack
  bool is_stopped = false;
};

/// The queue and the clock that all executors of one `VirtualTime` share.
class VirtualQueue {
 public:
  using Task = Executor::Task;

  [[nodiscard]] TimePoint now() const { return now_; }

  void add(TimePoint when, std::shared_ptr<VirtualLane> lane, Task task) {
    if (is_stopped_ || lane->is_stopped) return;  // destroys the task
    tasks_.emplace(Key{(std::max)(when, now_), next_sequence_++}, Entry{std::move(lane), std::move(task)});
  }

  /// Runs the first task that is due by `limit`, moving the time up to it; false when there is none.
  /// A lane on the stack stays as it is: a serial executor never runs two tasks at once.
  bool run_one(TimePoint limit, const VirtualLane* only = nullptr) {
    for (auto it = tasks_.begin(); it != tasks_.end() && it->first.first <= limit; ++it) {
      if (it->second.lane->is_running || (only != nullptr && it->second.lane.get() != only)) continue;
      now_ = (std::max)(now_, it->first.first);
      const auto entry = tasks_.extract(it);
      run(*entry.mapped().lane, entry.mapped().task);
      return true;
    }
    return false;
  }

  static void run(VirtualLane& lane, Task& task) {
    struct Running {
      explicit Running(VirtualLane& l) : lane(l) { lane.is_running = true; }
      Running(const Running&) = delete;
      Running& operator=(const Running&) = delete;
      ~Running() { lane.is_running = false; }
      VirtualLane& lane;
    };
    const Running running(lane);
    task();
  }

  /// Nothing was due: the time goes on to `limit`, unless that is "for ever".
  void move_to(TimePoint limit) {
    if (limit != (TimePoint::max)()) now_ = (std::max)(now_, limit);
  }

  bool wait_until(TimePoint limit, syncstate::detail::UniqueFunction<bool()>& is_done) {
    while (!is_done()) {
      if (run_one(limit)) continue;
      move_to(limit);
      return is_done();
    }
    return true;
  }

  void stop(VirtualLane& lane) {
    lane.is_stopped = true;
    std::vector<Entry> dropped;  // destroyed last: a task may hold whatever posts when it dies
    for (auto it = tasks_.begin(); it != tasks_.end();) {
      if (it->second.lane.get() != &lane) {
        ++it;
        continue;
      }
      dropped.push_back(std::move(it->second));
      it = tasks_.erase(it);
    }
  }

  void stop_all() {
    is_stopped_ = true;
    const auto dropped = std::move(tasks_);
    tasks_.clear();
  }

  [[nodiscard]] bool is_stopped() const { return is_stopped_; }
  [[nodiscard]] std::size_t size() const { return tasks_.size(); }
  [[nodiscard]] std::optional<TimePoint> next_time() const {
    if (tasks_.empty()) return std::nullopt;
    return tasks_.begin()->first.first;
  }

 private:
  using Key = std::pair<TimePoint, std::uint64_t>;  // equal times run in the order posted
  struct Entry {
    std::shared_ptr<VirtualLane> lane;
    Task task;
  };

  // Not the epoch of the clock: a default TimePoint stands for "never" in many places.
  TimePoint now_ = TimePoint{} + std::chrono::hours(24);
  std::uint64_t next_sequence_ = 0;
  std::map<Key, Entry> tasks_;
  bool is_stopped_ = false;
};

}  // namespace detail

/// One serial executor on a `VirtualTime`.
///
/// Threads : all executors of one `VirtualTime` belong to one thread, the one that drives it.
/// Lifetime: may outlive the `VirtualTime`, and then drops what is posted to it.
class VirtualExecutor final : public SerialExecutor {
 public:
  explicit VirtualExecutor(std::shared_ptr<detail::VirtualQueue> queue) : queue_(std::move(queue)) {}
  ~VirtualExecutor() override { stop(); }

  [[nodiscard]] TimePoint now() const override { return queue_->now(); }
  void post(Task task) override { queue_->add(queue_->now(), lane_, std::move(task)); }
  void post_at(TimePoint when, Task task) override { queue_->add(when, lane_, std::move(task)); }
  [[nodiscard]] bool runs_here() const override { return lane_->is_running; }

  /// Runs the tasks of all executors on this time but those on the stack, and moves the time when none is
  /// due. With nothing to run up to `limit` the time is `limit` afterwards; "for ever" ends at once then.
  bool wait_until(TimePoint limit, syncstate::detail::UniqueFunction<bool()> is_done) override {
    return queue_->wait_until(limit, is_done);
  }

  void wake_waiters() override {}  // whoever waits runs the tasks itself, and looks after each

  [[nodiscard]] std::shared_ptr<Executor> make_sibling() override {
    return std::make_shared<VirtualExecutor>(queue_);
  }

  void run_blocking(Task task) override {
    if (lane_->is_running) throw StateError(StateErrc::would_deadlock);
    if (lane_->is_stopped || queue_->is_stopped()) throw StateError(StateErrc::stopped);
    const auto lane = lane_;  // a task may drop the last reference to this executor
    const auto queue = queue_;
    bool has_run = false;
    queue->add(queue->now(), lane, [&] {
      Task local = std::move(task);
      local();
      has_run = true;
    });
    while (!has_run) {
      if (!queue->run_one(queue->now(), lane.get())) throw StateError(StateErrc::stopped);
    }
  }

  /// Destroys the tasks that wait, and takes no more.
  void stop() { queue_->stop(*lane_); }

 private:
  std::shared_ptr<detail::VirtualQueue> queue_;
  std::shared_ptr<detail::VirtualLane> lane_ = std::make_shared<detail::VirtualLane>();
};

/// Hook executors on virtual time.
class VirtualExecutorPool final : public ExecutorPool {
 public:
  explicit VirtualExecutorPool(std::shared_ptr<detail::VirtualQueue> queue) : queue_(std::move(queue)) {}

  [[nodiscard]] std::shared_ptr<SerialExecutor> make_serial() override {
    auto executor = std::make_shared<VirtualExecutor>(queue_);
    if (is_stopped_) executor->stop();
    std::erase_if(executors_, [](const auto& weak) { return weak.expired(); });
    executors_.push_back(executor);
    return executor;
  }

  void stop() override {
    is_stopped_ = true;
    for (const auto& weak : executors_) {
      if (const auto executor = weak.lock()) executor->stop();
    }
  }

 private:
  std::shared_ptr<detail::VirtualQueue> queue_;
  std::vector<std::weak_ptr<VirtualExecutor>> executors_;
  bool is_stopped_ = false;
};

/// A world of executors on one clock that stands still until it is told to move.
///
/// Tasks run in the order of their times, those of the same time in the order posted; so every run is the
/// same.
///
/// Threads : one, for this and for every executor made from it.
/// End     : the destructor destroys every task that has not run.
class VirtualTime {
 public:
  VirtualTime() = default;
  VirtualTime(const VirtualTime&) = delete;
  VirtualTime& operator=(const VirtualTime&) = delete;
  ~VirtualTime() { queue_->stop_all(); }

  /// Always the same at the start.
  [[nodiscard]] TimePoint now() const { return queue_->now(); }

  [[nodiscard]] std::shared_ptr<VirtualExecutor> make_executor() {
    return std::make_shared<VirtualExecutor>(queue_);
  }

  [[nodiscard]] std::shared_ptr<VirtualExecutorPool> make_pool() {
    return std::make_shared<VirtualExecutorPool>(queue_);
  }

  /// Runs until no task is due, those posted meanwhile too; returns how many ran. The time stays.
  std::size_t run_ready() { return run_to(queue_->now()); }

  /// Lets `duration` pass and runs what becomes due, each task at its own time; returns how many ran.
  std::size_t advance(Duration duration) { return run_to(queue_->now() + duration); }

  /// Runs, and moves the time, until `is_done()` or until `limit` has passed; returns what `is_done()` says.
  bool run_until(syncstate::detail::UniqueFunction<bool()> is_done, Duration limit) {
    return queue_->wait_until(queue_->now() + limit, is_done);
  }

  /// The tasks that wait, timers too.
  [[nodiscard]] std::size_t pending() const { return queue_->size(); }

  /// When the next task is due; none when nothing waits.
  [[nodiscard]] std::optional<TimePoint> next_time() const { return queue_->next_time(); }

 private:
  std::size_t run_to(TimePoint limit) {
    std::size_t count = 0;
    while (queue_->run_one(limit)) ++count;
    queue_->move_to(limit);
    return count;
  }

  std::shared_ptr<detail::VirtualQueue> queue_ = std::make_shared<detail::VirtualQueue>();
};

}  // namespace syncstate::inproc

#endif
