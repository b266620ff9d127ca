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
  void start(Replica<K, V>& replica, UpdateId id) {
    set_cancel(call_.handler(), [weak = this->weak_from_this()] {
      const auto self = weak.lock();
      if (self && self->pending_.cancel())
        self->call_.complete(self, std::error_code(asio::error::operation_aborted));
    });
    pending_ = replica.on_reached(
        id, [self = this->shared_from_this()](std::error_code code) { self->call_.complete(self, code); });
  }

 private:
  using Call = AsyncCall<Handler, asio::system_executor>;

  Call call_;
  PendingCall pending_;
};

}  // namespace detail

/// Completes when the state at `id`, or a newer one, is shown: `replica.wait_for` as an Asio operation.
///
/// Signature: `void(std::error_code)`: none; `epoch_changed` if the master was restarted meanwhile; `stopped`
///            if the replica ends; `asio::error::operation_aborted` if cancelled.
/// Threads  : the handler runs on its associated executor, never inside this call.
/// Cancel   : through the token's cancellation slot, every type; from the handler's executor, as Asio
/// demands.
/// Lifetime : the replica may end before the operation does.
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
