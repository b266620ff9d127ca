// Executors of simulated processes: clocks that jump, hooks and callbacks that take their time.
#ifndef SYNCSTATE_TESTS_SIMULATION_EXECUTORS_HPP
#define SYNCSTATE_TESTS_SIMULATION_EXECUTORS_HPP

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "simulation/chance.hpp"
#include "syncstate/executor_pool.hpp"
#include "syncstate/inproc/virtual_executor.hpp"

namespace syncstate::simulation {

using namespace std::chrono_literals;

/// How far one process's clock is ahead of the others'. It jumps; timers that are set already do not notice.
struct Clock {
  Duration ahead{};
};

/// A process's executor on its own clock.
class ProcessExecutor final : public Executor {
 public:
  /// `after_step` runs between tasks while somebody waits here.
  ProcessExecutor(std::shared_ptr<Executor> inner, std::shared_ptr<const Clock> clock,
                  std::shared_ptr<const std::function<void()>> after_step)
      : inner_(std::move(inner)), clock_(std::move(clock)), after_step_(std::move(after_step)) {}

  [[nodiscard]] TimePoint now() const override { return inner_->now() + clock_->ahead; }
  void post(Task task) override { inner_->post(std::move(task)); }
  void post_at(TimePoint when, Task task) override { inner_->post_at(when - clock_->ahead, std::move(task)); }
  [[nodiscard]] bool runs_here() const override { return inner_->runs_here(); }
  bool wait_until(TimePoint limit, detail::UniqueFunction<bool()> is_done) override {
    return inner_->wait_until(limit == TimePoint::max() ? limit : limit - clock_->ahead, [&] {
      (*after_step_)();
      return is_done();
    });
  }
  void wake_waiters() override { inner_->wake_waiters(); }
  [[nodiscard]] std::shared_ptr<Executor> make_sibling() override {
    return std::make_shared<ProcessExecutor>(inner_->make_sibling(), clock_, after_step_);
  }

 private:
  std::shared_ptr<Executor> inner_;
  std::shared_ptr<const Clock> clock_;
  std::shared_ptr<const std::function<void()>> after_step_;
};

/// How long a task waits for its turn, as if the ones before took long.
struct Slowness {
  std::chrono::milliseconds most{0};
};

/// Keeps the order of its tasks, and has each wait a while.
class SlowExecutor final : public SerialExecutor {
 public:
  SlowExecutor(std::shared_ptr<inproc::VirtualExecutor> inner, std::shared_ptr<const Slowness> slowness,
               Chance& chance)
      : inner_(std::move(inner)), slowness_(std::move(slowness)), chance_(&chance) {}

  [[nodiscard]] TimePoint now() const override { return inner_->now(); }
  void post(Task task) override {
    const Duration wait = slowness_->most > 0ms ? chance_->between(0ms, slowness_->most) : Duration::zero();
    due_ = std::max(due_, now() + wait);
    inner_->post_at(due_, std::move(task));
  }
  void post_at(TimePoint when, Task task) override { inner_->post_at(when, std::move(task)); }
  [[nodiscard]] bool runs_here() const override { return inner_->runs_here(); }
  bool wait_until(TimePoint limit, detail::UniqueFunction<bool()> is_done) override {
    return inner_->wait_until(limit, std::move(is_done));
  }
  void wake_waiters() override {}
  void run_blocking(Task task) override { inner_->run_blocking(std::move(task)); }
  void stop() { inner_->stop(); }

 private:
  std::shared_ptr<inproc::VirtualExecutor> inner_;
  std::shared_ptr<const Slowness> slowness_;
  Chance* chance_;
  TimePoint due_{};
};

/// What a master's hooks run on.
class SlowPool final : public ExecutorPool {
 public:
  SlowPool(inproc::VirtualTime& time, std::shared_ptr<const Slowness> slowness, Chance& chance)
      : time_(&time), slowness_(std::move(slowness)), chance_(&chance) {}

  [[nodiscard]] std::shared_ptr<SerialExecutor> make_serial() override {
    auto executor = std::make_shared<SlowExecutor>(time_->make_executor(), slowness_, *chance_);
    if (is_stopped_) executor->stop();
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
  inproc::VirtualTime* time_;
  std::shared_ptr<const Slowness> slowness_;
  Chance* chance_;
  std::vector<std::weak_ptr<SlowExecutor>> executors_;
  bool is_stopped_ = false;
};

}  // namespace syncstate::simulation

#endif
