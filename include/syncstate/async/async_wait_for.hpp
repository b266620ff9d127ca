// Waiting for a replica without blocking: an Asio operation over `Replica::on_reached`.
#ifndef SYNCSTATE_ASYNC_ASYNC_WAIT_FOR_HPP
#define SYNCSTATE_ASYNC_ASYNC_WAIT_FOR_HPP

#include <memory>
#include <system_error>
#include <type_traits>
#include <utility>

#include "syncstate/async/asio.hpp"

#include <asio/async_result.hpp>
#include <asio/error.hpp>
#include <asio/system_executor.hpp>

#include "syncstate/async/async_call.hpp"
#include "syncstate/replica.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

namespace detail {

/// One wait that is under way; kept alive by the replica until it is over.
template <class Handler>
class AsyncWait : public std::enable_shared_from_this<AsyncWait<Handler>> {
 public:
  explicit AsyncWait(Handler handler) : call_(std::move(handler), asio::system_executor()) {}

  template <class K, class V>
  void start(Replica<K, V>& replica, auto target) {
    set_cancel(call_.handler(), [weak = this->weak_from_this()] {
      const auto self = weak.lock();
      if (self && self->pending_.cancel())
        self->call_.complete(self, std::error_code(asio::error::operation_aborted));
    });
    pending_ = replica.on_reached(target, [self = this->shared_from_this()](std::error_code code) {
      self->call_.complete(self, code);
    });
  }

 private:
  using Call = AsyncCall<Handler, asio::system_executor>;

  Call call_;
  PendingCall pending_;
};

/// Starts a wait for an update id or a position.
template <class K, class V, class Target, class Token>
auto start_async_wait(Replica<K, V>& replica, Target target, Token&& token) {
  return asio::async_initiate<Token, void(std::error_code)>(
      [](auto handler, Replica<K, V>* from, Target wanted) {
        using Handler = std::decay_t<decltype(handler)>;
        std::make_shared<AsyncWait<Handler>>(std::move(handler))->start(*from, wanted);
      },
      token, &replica, target);
}

}  // namespace detail

/// Completes when the state at `at`, or a newer one of its epoch, is shown: `replica.wait_for` as an Asio operation.
///
/// Signature: `void(std::error_code)`: none; `epoch_changed` as `wait_for`; `stopped` if the replica ends;
///            `asio::error::operation_aborted` if cancelled.
/// Threads  : the handler runs on its associated executor, never inside this call.
/// Cancel   : through the token's cancellation slot, every type; from the handler's executor, as Asio
/// demands.
/// Lifetime : the replica may end before the operation does.
///
/// ```cpp
/// co_await ss::async_wait_for(replica, at, asio::use_awaitable);
/// ```
template <class K, class V, class Token>
auto async_wait_for(Replica<K, V>& replica, Position at, Token&& token) {
  return detail::start_async_wait(replica, at, std::forward<Token>(token));
}

/// The same for an update id of whichever epoch the replica is in.
template <class K, class V, class Token>
auto async_wait_for(Replica<K, V>& replica, UpdateId id, Token&& token) {
  return detail::start_async_wait(replica, id, std::forward<Token>(token));
}

}  // namespace syncstate

#endif
