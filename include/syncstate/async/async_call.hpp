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

/// Whether a handler says where it is to run; else that is up to the operation.
template <class Handler>
inline constexpr bool has_own_executor = [] {
  struct NoExecutor {};
  return !std::is_same_v<asio::associated_executor_t<Handler, NoExecutor>, NoExecutor>;
}();

/// Lets `cancel()` be called when the token's slot asks for it. Before anything can complete: completing clears the
/// slot.
template <class Handler, class F>
void set_cancel(const Handler& handler, F cancel) {
  auto slot = asio::get_associated_cancellation_slot(handler);
  if (!slot.is_connected()) return;
  slot.assign([cancel = std::move(cancel)](asio::cancellation_type type) mutable {
    if (type != asio::cancellation_type::none) cancel();
  });
}

/// The operation is over: calls its handler.
template <class Handler, class... Args>
void call_handler(Handler handler, Args... args) {
  auto slot = asio::get_associated_cancellation_slot(handler);
  if (slot.is_connected()) slot.clear();
  std::move(handler)(std::move(args)...);
}

/// Keeps a handler, and its context running, until the operation is over.
///
/// Threads: `complete` from any thread; the handler runs on its own executor, never inside `complete`.
template <class Handler, class FallbackExecutor>
class AsyncCall {
  using HandlerExecutor = asio::associated_executor_t<Handler, FallbackExecutor>;

 public:
  AsyncCall(Handler handler, const FallbackExecutor& fallback)
      : handler_(std::move(handler)), work_(asio::get_associated_executor(handler_, fallback)) {}

  [[nodiscard]] const Handler& handler() const { return handler_; }

  /// The operation is over; once. `owner` keeps this.
  template <class... Args>
  void complete(std::shared_ptr<void> owner, Args... args) {
    // Its context must not run dry, and be destroyed by whoever ran it, while `post` still works on it here.
    const auto until_posted = work_;
    asio::post(work_.get_executor(), [this, owner = std::move(owner), ... args = std::move(args)]() mutable {
      work_.reset();
      call_handler(std::move(handler_), std::move(args)...);
    });
  }

 private:
  Handler handler_;
  asio::executor_work_guard<HandlerExecutor> work_;
};

}  // namespace syncstate::detail

#endif
