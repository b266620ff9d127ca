// The remote of a server that is reached over TLS.
#ifndef SYNCSTATE_TCP_STATE_REMOTE_HPP
#define SYNCSTATE_TCP_STATE_REMOTE_HPP

#include "syncstate/async/asio.hpp"

#include <asio/any_io_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/async/async_call.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/event.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/protocol/passwords.hpp"
#include "syncstate/remote_client.hpp"
#include "syncstate/remote_core.hpp"
#include "syncstate/tcp/asio_executor.hpp"
#include "syncstate/tcp/connector.hpp"
#include "syncstate/tcp/endpoint.hpp"
#include "syncstate/tcp/io_thread.hpp"
#include "syncstate/tcp/tls.hpp"
#include "syncstate/tcp/tls_context.hpp"
#include "syncstate/tcp/trial_handshake.hpp"
#include "syncstate/threads/own_thread.hpp"

namespace syncstate::tcp {

/// What a remote is made with.
struct RemoteOptions {
  /// `"host:port"` or `"[v6 address]:port"`; the name is resolved anew at each attempt.
  std::string endpoint{};
  /// More places where the same server, or its stand-in, may be found; tried in turn, with every address of
  /// each.
  std::vector<std::string> more_endpoints{};
  /// Whom to trust.
  ClientTls tls{};
  /// Any bytes; empty only towards a server that knows its clients by certificate.
  std::string password{};
  /// How long an event waits for its answer; then it ends as `unavailable`, or `outcome_unknown` if it was
  /// sent.
  std::chrono::milliseconds event_timeout{10'000};
  /// How long a blocking request (`sync`, `set_update_id`, `attach`, `hosted`) waits before it is
  /// `unavailable`.
  std::chrono::milliseconds request_timeout{5'000};
  /// The pace of reconnecting.
  BackoffOptions backoff{};
  /// How long the steps of one attempt to connect may take.
  ConnectorOptions connect{};
  Limits limits{};
  /// On a context of the user's: only one thread ever runs it. That spares a strand, and a blocking call in any of the
  /// context's handlers is refused (`would_deadlock`) instead of failing after its time limit.
  bool context_has_one_thread = false;
  /// How long the remote's own thread looks for work before it sleeps, and a blocking call for its end: to be woken may
  /// take longer than the work (docs/performance.md has figures). It wants a CPU of its own. Not on a context of the
  /// user's.
  std::chrono::microseconds spin{0};
  /// Told what status callbacks and codecs throw, on the remote's thread. Without it that is dropped.
  ErrorHandler on_error = nullptr;
};

/// One long-lived TLS connection to a server, shared by every map that uses it; it reconnects by itself.
///
/// Without a context it begins to connect with its first use (`freeze` of a map, `attach`, `send_event`, `status`, ...)
/// or with `start()`: then its thread starts.
///
/// Threads : any member from any thread. Without a context it has one thread of its own, which does the I/O,
///           applies diffs and runs status callbacks; on a context of the user's a strand of that does.
/// Lifetime: held by `std::shared_ptr`, by every map and replica that uses it too. The context must outlive
/// it.
/// End     : the destructor ends the connection and what waits (`stopped`); it does not wait for the network.
/// Fork    : a process may fork before the first use, as daemon() does, and use the remote in the child. In a child
///           that is forked off later (with a context: after construction) the destructor lets go and returns at once,
///           `status` is `failed` with `stopped`, everything else throws `stopped`, and the parent's connection goes
///           on.
class TcpStateRemote final : public RemoteClient {
 public:
  /// Connects on a thread of its own, from the first use on.
  /// Errors: `invalid_option` for an endpoint, certificate or key that can't be used, or that no server would accept, and for
  ///         limits with which no server could do anything.
  explicit TcpStateRemote(RemoteOptions options)
      : TcpStateRemote(own_thread(options.spin), std::move(options)) {}

  /// The same on the user's context, which any number of threads may run; it begins to connect at once.
  /// Blocking calls need a thread of the context besides their own: where one thread runs it, call none of them in a
  /// handler (only those on the remote's own strand are refused, with `would_deadlock`, unless the option
  /// `context_has_one_thread` says so).
  TcpStateRemote(asio::io_context& context, RemoteOptions options)
      : TcpStateRemote(
            Runner{options.context_has_one_thread ? AsioExecutor::on_single_thread(context)
                                                  : AsioExecutor::on_strand(context.get_executor()),
                   nullptr},
            std::move(options)) {}

  ~TcpStateRemote() {
    if (executor_->is_of_other_process()) {
      leave_core_behind();
      syncstate::detail::leave_behind(std::move(executor_), std::move(thread_), std::move(connector_));
      return;
    }
    core().stop();
    // Without a thread, the user's context does what is left; a thread that was not started has nothing to do.
    if (!thread_ || !thread_->is_started()) return;
    if (executor_->runs_here()) {
      // Inside a callback of our own: the thread ends itself once it has come back from there.
      executor_->post([thread = std::shared_ptr<IoThread>(std::move(thread_))] {});
      return;
    }
    std::promise<void> done;
    executor_->post([&] { done.set_value(); });
    done.get_future().wait();
  }

  /// From the next connection on, trusts and shows what `tls` says; a link that is live goes on. Files are read again, also
  /// where `tls` is what the remote was made with. Unless a link is live, the remote connects at once.
  /// Errors: `invalid_option` for a certificate, key or trusted certificates that can't be used; nothing has changed then.
  void reload_tls(ClientTls tls) {
    expect_here();
    const std::lock_guard lock(tls_mutex_);
    connector_->set_tls(make_usable_context(tls));
    tls_ = std::move(tls);
    core().retry_now();
  }

  /// Reads the files of the certificate, key and trusted certificates in use again.
  /// Errors: as above.
  void reload_tls() {
    expect_here();
    const std::lock_guard lock(tls_mutex_);
    connector_->set_tls(make_usable_context(tls_));
    core().retry_now();
  }

  /// `send_event` as an Asio operation: `void(std::error_code, Position)`. A handler may take an `UpdateId` instead.
  ///
  /// Errors: as `send_event`; `asio::error::operation_aborted` if cancelled before it was sent,
  ///         `outcome_unknown` if after. Events keep the order of the calls.
  /// Lifetime: the remote keeps the handler until it is called. A handler that holds the remote, as a coroutine may,
  ///           and whose context is destroyed before it was called, keeps both for ever.
  ///
  /// ```cpp
  /// const ss::Event<MyEvent> event{ChangeValue{"1", "Updated"}};  // named: GCC 12 destroys braced temporaries in a
  ///                                                               // co_await expression twice
  /// const ss::Position at = co_await remote->async_send_event(map.hash(), event, asio::use_awaitable);
  /// co_await ss::async_wait_for(replica, at, asio::use_awaitable);
  /// ```
  template <class E, class Token>
  auto async_send_event(const MapHash& hash, const Event<E>& event, Token&& token) {
    begin();
    return asio::async_initiate<Token, void(std::error_code, Position)>(
        [this](auto handler, const MapHash& to, SerializedEvent serialized) {
          this->start_async(std::move(handler), to,
                            std::move(serialized));  // bare, Clang 14 sees no use of this
        },
        token, hash, serialize_event(event));
  }

  /// Where handlers without an executor of their own run: the remote's thread or strand.
  [[nodiscard]] asio::any_io_executor get_executor() const {
    begin();
    return executor_->asio_executor();
  }

 private:
  /// What does the remote's work: a thread of its own, or a strand of the user's context.
  struct Runner {
    std::shared_ptr<AsioExecutor> executor;
    std::unique_ptr<IoThread> thread;
  };

  static Runner own_thread(std::chrono::microseconds spin) {
    auto thread = std::make_unique<IoThread>(syncstate::detail::ThreadKind::remote, spin);
    auto executor = thread->executor();
    return Runner{std::move(executor), std::move(thread)};
  }

  TcpStateRemote(Runner runner, RemoteOptions options) try
      : TcpStateRemote(runner, make_connector(runner.executor, options), options) {
  } catch (...) {
    protocol::wipe(options.password);
    throw;
  }

  TcpStateRemote(Runner& runner, std::shared_ptr<TlsConnector> connector, RemoteOptions& options)
      : RemoteClient(make_core(runner.executor, connector, options)),
        executor_(std::move(runner.executor)),
        thread_(std::move(runner.thread)),
        connector_(std::move(connector)),
        tls_(std::move(options.tls)) {
    if (thread_) return;
    executor_->settle();
    start();
  }

  void start_thread() const override {
    if (thread_) thread_->start();
  }

  static std::shared_ptr<TlsConnector> make_connector(const std::shared_ptr<AsioExecutor>& executor,
                                                      RemoteOptions& options) {
    std::vector<Endpoint> endpoints{parse_endpoint(options.endpoint)};
    for (const std::string& more : options.more_endpoints) endpoints.push_back(parse_endpoint(more));
    TlsLinkOptions& link = options.connect.link;  // both are bounds, so the smaller one holds
    link.key_updates_per_minute =
        (std::min)(link.key_updates_per_minute, options.limits.key_updates_per_minute);
    link.certificate_chain_bytes =
        (std::min)(link.certificate_chain_bytes, options.limits.certificate_chain_bytes);
    return std::make_shared<TlsConnector>(executor, std::move(endpoints), make_usable_context(options.tls),
                                          options.connect);
  }

  /// Returns a context that connections can be made with.
  /// Errors: `invalid_option`, with the reason, for a certificate, key or trusted certificates that can't be used.
  static TlsContext make_usable_context(const ClientTls& tls) {
    TlsContext context(tls);
    detail::try_client(context);
    return context;
  }

  static std::shared_ptr<syncstate::detail::RemoteCore> make_core(
      const std::shared_ptr<AsioExecutor>& executor, const std::shared_ptr<TlsConnector>& connector,
      RemoteOptions& options) {
    RemoteCoreOptions core;
    const protocol::WipesAtEnd wiping(core.password);
    core.password = std::move(options.password);
    protocol::wipe(options.password);
    core.event_timeout = options.event_timeout;
    core.request_timeout = options.request_timeout;
    core.backoff = options.backoff;
    core.limits = options.limits;
    core.on_error = std::move(options.on_error);
    return syncstate::detail::RemoteCore::create(executor, connector, std::move(core));
  }

  using EventCall = syncstate::detail::EventCall;

  /// An event whose handler runs where it says itself.
  template <class Handler>
  class AsyncEvent final : public EventCall, public std::enable_shared_from_this<AsyncEvent<Handler>> {
   public:
    AsyncEvent(SerializedEvent event, Handler handler, const asio::any_io_executor& fallback)
        : EventCall(std::move(event)), call_(std::move(handler), fallback) {}
    [[nodiscard]] const Handler& handler() const { return call_.handler(); }

   private:
    void ended(std::error_code error, const std::string&, Position position) override {
      call_.complete(this->shared_from_this(), error, position);
    }
    syncstate::detail::AsyncCall<Handler, asio::any_io_executor> call_;
  };

  /// An event whose handler runs where the remote does, which costs less.
  template <class Handler>
  class LocalAsyncEvent final : public EventCall,
                                public std::enable_shared_from_this<LocalAsyncEvent<Handler>> {
   public:
    LocalAsyncEvent(SerializedEvent event, Handler handler, std::shared_ptr<AsioExecutor> executor)
        : EventCall(std::move(event)), handler_(std::move(handler)), executor_(std::move(executor)) {}
    [[nodiscard]] const Handler& handler() const { return handler_; }

   private:
    void ended(std::error_code error, const std::string&, Position position) override {
      executor_->defer([self = this->shared_from_this(), error, position] {
        syncstate::detail::call_handler(std::move(self->handler_), error, position);
      });
    }
    Handler handler_;
    std::shared_ptr<AsioExecutor> executor_;
  };

  template <class Handler>
  void start_async(Handler handler, const MapHash& hash, SerializedEvent event) {
    const std::size_t bytes = event.bytes.size();
    if constexpr (syncstate::detail::has_own_executor<Handler>) {
      start_call(hash, bytes,
                 std::make_shared<AsyncEvent<Handler>>(std::move(event), std::move(handler), get_executor()));
    } else {
      start_call(hash, bytes,
                 std::make_shared<LocalAsyncEvent<Handler>>(std::move(event), std::move(handler), executor_));
    }
  }

  template <class Call>
  void start_call(const MapHash& hash, std::size_t bytes, const std::shared_ptr<Call>& call) {
    syncstate::detail::set_cancel(call->handler(),
                                  [core = weak_core(), weak = std::weak_ptr<EventCall>(call)] {
                                    const auto alive = core.lock();
                                    const auto operation = weak.lock();
                                    if (alive && operation)
                                      alive->cancel(operation, asio::error::operation_aborted);
                                  });
    try {
      start_event(hash, bytes, call);
    } catch (const StateError& error) {
      call->finish(error.code(), error.detail());
    }
  }

  std::shared_ptr<AsioExecutor> executor_;
  std::unique_ptr<IoThread> thread_;
  std::shared_ptr<TlsConnector> connector_;
  std::mutex tls_mutex_;  // of `tls_`
  ClientTls tls_;
};

}  // namespace syncstate::tcp

#endif
