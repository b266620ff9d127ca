// Work that must not hold up what else an Asio context has to do.
#ifndef SYNCSTATE_TCP_TURN_QUEUE_HPP
#define SYNCSTATE_TCP_TURN_QUEUE_HPP

#include <deque>
#include <memory>
#include <utility>

#include "syncstate/async/asio.hpp"
#include "syncstate/detail/unique_function.hpp"

#include <asio/any_io_executor.hpp>
#include <asio/post.hpp>

namespace syncstate::tcp {

/// Runs tasks one by one, in the order they came. Between two of them the context runs everything else that is ready.
///
/// A server on a context of the user's own gives the steps of TLS handshakes to one queue. So however many strangers
/// connect, a link that is through waits for at most two such steps.
///
/// Threads : on the executor, which must be serial.
/// Lifetime: what has not run is destroyed with the context.
class TurnQueue : public std::enable_shared_from_this<TurnQueue> {
 public:
  using Task = syncstate::detail::UniqueFunction<void()>;

  static std::shared_ptr<TurnQueue> make(asio::any_io_executor executor) {
    return std::shared_ptr<TurnQueue>(new TurnQueue(std::move(executor)));
  }

  void post(Task task) {
    tasks_.push_back(std::move(task));
    if (!is_scheduled_) schedule();
  }

 private:
  explicit TurnQueue(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  /// Where the context is destroyed instead of run, the tasks go with it: they hold links, and those hold this queue.
  class Turn {
   public:
    explicit Turn(std::shared_ptr<TurnQueue> queue) : queue_(std::move(queue)) {}
    Turn(Turn&&) = default;
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (queue_) std::exchange(queue_->tasks_, {}).clear();
    }
    void operator()() { std::exchange(queue_, nullptr)->run(); }

   private:
    std::shared_ptr<TurnQueue> queue_;
  };

  void schedule() {
    asio::post(executor_, Turn(shared_from_this()));
    is_scheduled_ = true;
  }

  void run() {
    is_scheduled_ = false;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    if (!tasks_.empty()) schedule();  // behind what is ready now
    task();
  }

  asio::any_io_executor executor_;
  std::deque<Task> tasks_;
  bool is_scheduled_ = false;
};

}  // namespace syncstate::tcp

#endif
