// A completion handler that waits to be called, once: what every Asio operation of ours is made of.
#ifndef SYNCSTATE_ASYNC_ASYNC_CALL_HPP
#define SYNCSTATE_ASYNC_ASYNC_CALL_HPP

#include "syncstate/async/asio.hpp"

#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/cancellation_type.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>

#include <memory>
#include <type_traits>
#include <utility>

namespace syncstate::detail {

/// Keeps a handler, and its context running, until the operation is over.
///
/// Threads: `complete` from any thread; the handler runs on its own executor, never inside `complete`.
template <class Handler, class FallbackExecutor>
class AsyncCall : public std::enable_shared_from_this<AsyncCall<Handler, FallbackExecutor>> {
  using HandlerExecutor = asio::associated_executor_t<Handler, FallbackExecutor>;

 public:
  AsyncCall(Handler handler, const FallbackExecutor& fallback)
      : handler_(std::move(handler)), work_(asio::get_associated_executor(handler_, fallback)) {}

  /// Calls `cancel()` when the token's slot asks for it. Before anything can complete: completing clears the
  /// slot.
  template <class F>
  void on_cancel(F cancel) {
    auto slot = asio::get_associated_cancellation_slot(handler_);
    if (!slot.is_connected()) return;
    slot.assign([cancel = std::move(cancel)](asio::cancellation_type type) mutable {
      if (type != asio::cancellation_type::none) cancel();
    });
  }

  /// The operation is over; once.
  template <class... Args>
  void complete(Args... args) {
    // Its context must not run dry, and be destroyed by whoever ran it, while `post` still works on it here.
    const auto until_posted = work_;
    asio::post(work_.get_executor(), [self = this->shared_from_this(), ... args = std::move(args)]() mutable {
      auto slot = asio::get_associated_cancellation_slot(self->handler_);
      if (slot.is_connected()) slot.clear();
      self->work_.reset();
      Handler handler = std::move(self->handler_);
      std::move(handler)(std::move(args)...);
    });
  }

 private:
  Handler handler_;
  asio::executor_work_guard<HandlerExecutor> work_;
};

}  // namespace syncstate::detail

#endif
