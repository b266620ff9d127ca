// Waiting for a replica without blocking: an Asio operation over `Replica::on_reached`.
#ifndef SYNCSTATE_ASYNC_ASYNC_WAIT_FOR_HPP
#define SYNCSTATE_ASYNC_ASYNC_WAIT_FOR_HPP

#include <memory>
#include <system_error>
#include <type_traits>
#include <utility>

#include "syncstate/async/asio.hpp"

#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/cancellation_type.hpp>
#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>

#include "syncstate/replica.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

namespace detail {

/// One wait that is under way; kept alive by the replica until it is over.
template <class Handler>
class AsyncWait : public std::enable_shared_from_this<AsyncWait<Handler>> {
  using HandlerExecutor = asio::associated_executor_t<Handler>;

 public:
  explicit AsyncWait(Handler handler)
      : handler_(std::move(handler)), work_(asio::get_associated_executor(handler_)) {}

  template <class K, class V>
  void start(Replica<K, V>& replica, UpdateId id) {
    auto slot = asio::get_associated_cancellation_slot(handler_);
    if (slot.is_connected()) {  // before anything can complete: completing clears the slot
      slot.assign([weak = this->weak_from_this()](asio::cancellation_type type) {
        const auto self = weak.lock();
        if (self == nullptr || type == asio::cancellation_type::none) return;
        if (self->call_.cancel()) self->complete(asio::error::operation_aborted);
      });
    }
    call_ = replica.on_reached(
        id, [self = this->shared_from_this()](std::error_code code) { self->complete(code); });
  }

 private:
  /// Never calls the handler itself: we are on the remote's thread, or inside the initiating call.
  void complete(std::error_code code) {
    asio::post(work_.get_executor(), [self = this->shared_from_this(), code] {
      auto slot = asio::get_associated_cancellation_slot(self->handler_);
      if (slot.is_connected()) slot.clear();
      self->work_.reset();
      Handler handler = std::move(self->handler_);
      std::move(handler)(code);
    });
  }

  Handler handler_;
  asio::executor_work_guard<HandlerExecutor> work_;  // the handler's context runs until it was called
  PendingCall call_;
};

}  // namespace detail

/// Completes when the state at `id`, or a newer one, is shown: `replica.wait_for` as an Asio operation.
///
/// Signature: `void(std::error_code)`: none; `epoch_changed` if the master was restarted meanwhile; `stopped`
/// if the
///            replica ends; `asio::error::operation_aborted` if cancelled.
/// Threads  : the handler runs on its associated executor, never inside this call.
/// Cancel   : through the token's cancellation slot, every type; from the handler's executor, as Asio
/// demands. Lifetime : the replica may end before the operation does.
///
/// ```cpp
/// co_await ss::async_wait_for(replica, id, asio::use_awaitable);
/// ```
template <class K, class V, class Token>
auto async_wait_for(Replica<K, V>& replica, UpdateId id, Token&& token) {
  return asio::async_initiate<Token, void(std::error_code)>(
      [](auto handler, Replica<K, V>* from, UpdateId wanted) {
        using Handler = std::decay_t<decltype(handler)>;
        std::make_shared<detail::AsyncWait<Handler>>(std::move(handler))->start(*from, wanted);
      },
      token, &replica, id);
}

}  // namespace syncstate

#endif
