// A server over TLS: the server core, an acceptor, and threads.
#ifndef SYNCSTATE_TCP_STATE_SERVER_HPP
#define SYNCSTATE_TCP_STATE_SERVER_HPP

#include "syncstate/async/asio.hpp"

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/authorizer.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/hook.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/master_handle.hpp"
#include "syncstate/protocol/passwords.hpp"
#include "syncstate/server_core.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/tcp/acceptor.hpp"
#include "syncstate/tcp/asio_executor.hpp"
#include "syncstate/tcp/io_thread.hpp"
#include "syncstate/tcp/tls.hpp"
#include "syncstate/tcp/tls_context.hpp"
#include "syncstate/tcp/tls_link.hpp"
#include "syncstate/tcp/trial_handshake.hpp"
#include "syncstate/tcp/turn_queue.hpp"
#include "syncstate/threads/home_process.hpp"
#include "syncstate/threads/hook_pool.hpp"
#include "syncstate/threads/own_thread.hpp"

namespace syncstate::tcp {

/// What a server is made with.
struct ServerOptions {
  /// Where to listen: `"host:port"` or `"[v6 address]:port"`; port 0 lets the system choose, see
  /// `endpoint()`.
  std::string endpoint{};
  /// A bound TCP socket to listen on instead, which the server takes over; -1: none.
  int listener = -1;
  /// The certificate and key, and whether clients must show one.
  ServerTls tls{};
  /// Any bytes. Empty only with `ServerTls::require_client_certificates`.
  std::string password{};
  /// Further passwords that are taken too, while one is being replaced; see `set_passwords`.
  std::vector<std::string> more_passwords{};
  /// Former passwords, which let nobody in; see `set_passwords`.
  std::vector<std::string> retired_passwords{};
  /// Whether clients may bring maps; if not, only maps given to `host` are served.
  bool allow_uploads = true;
  /// Threads (or strands of the user's context) that do I/O; links are spread over them.
  std::size_t io_threads = 1;
  /// Threads that accept connections, do TLS handshakes and check proofs, so that strangers do not hold up links that are
  /// through: a link goes on on its I/O thread once its client has proven itself. They give way to other threads on the
  /// same CPU (niceness 10). Not on a context of the user's: there a strand does this work, one step of a handshake at a
  /// time, and everything that is ready on the context runs between two steps.
  std::size_t handshake_threads = 1;
  /// Threads that run hooks: serially for one map, side by side for different ones.
  std::size_t hook_threads = 2;
  /// Runs hooks on the I/O thread on which their events come in, unless somebody else is changing that map: the lowest
  /// latency, for hooks that take microseconds and never wait. As long as a hook runs there, nothing else happens on
  /// that thread's links. Init hooks, `modify` and what is too much for a moment still go to the hook threads.
  bool hooks_on_io_threads = false;
  /// The share of an I/O thread's time that goes at least into bringing commits to replicas while commits never end;
  /// above 0, at most 1. While many commits come in the time that one takes to reach all, what follows is merged for a
  /// while after each round of sending: with 0.25 for up to three times as long as that took, with 1 not at all. So there
  /// is time for events, however many replicas there are, and diffs hold more. For a handful of replicas it makes no
  /// difference, and commits that come one by one go out at once.
  double fan_out_share = 0.25;
  /// How long an I/O thread looks for work before it sleeps: to be woken may take longer than the work (docs/performance.md
  /// has figures). Each such thread wants a CPU of its own. Not on a context of the user's, who may do the same there.
  std::chrono::microseconds spin{0};
  /// How maps that clients bring are kept.
  MapOptions map_options{};
  Limits limits{};
  /// Who may do what; without one, everybody who knows a password may do everything.
  Authorizer authorizer = nullptr;
  /// Told what hooks, init hooks, codecs and the authorizer throw, on the thread on which they do. Without it that is
  /// dropped; senders and clients hear of it in any case.
  ErrorHandler on_error = nullptr;
};

/// Hosts maps of one kind by their hash, runs hooks on the events that come for them, and streams what they
/// change.
///
/// Threads : any member from any thread. I/O runs on `io_threads` threads of its own, handshakes on `handshake_threads`,
///           or both on the user's context; hooks on `hook_threads` threads, always its own.
/// End     : `stop` or the destructor: sessions end, `endpoint` is free again, hooks that run are waited for,
///           but not the network. Maps and handles answer `stopped` from then on.
/// Fork    : the threads start in `start`; a process may fork before, as daemon() does, and start the server in the child.
///           Maps that were hosted before have another epoch there, so that several children may do so.
///           In a child that is forked off after `start`, the destructor and `stop` let go and return at once, everything
///           else throws `stopped`, and the parent's links go on.
template <class K, class V, class E>
class TcpStateServer {
 public:
  using Map = StateMap<K, V>;

  /// Errors: `invalid_option` for no threads, a share out of its range, or limits with which no client could do anything.
  explicit TcpStateServer(ServerOptions options) : TcpStateServer(nullptr, std::move(options)) {}

  /// The same with the I/O on the user's context, which any number of threads may run and which must outlive
  /// it.
  TcpStateServer(asio::io_context& context, ServerOptions options)
      : TcpStateServer(&context, std::move(options)) {}

  TcpStateServer(const TcpStateServer&) = delete;
  TcpStateServer& operator=(const TcpStateServer&) = delete;
  ~TcpStateServer() { stop(); }

  /// Adds a hook, called as `hook(state, event)` or `hook(state, event, context)` for every event, in the
  /// order added.
  /// Errors: `already_started`; `stopped`.
  template <Hook<K, V, E> H>
  void add_hook(H hook) {
    expect_here();
    core_->add_hook(std::move(hook));
  }

  /// Adds code to run once for each map that comes to live here, before anyone can see it.
  /// Errors: `already_started`, also once a map is hosted; `stopped`.
  template <InitHook<K, V> H>
  void add_init_hook(H hook) {
    expect_here();
    core_->add_init_hook(std::move(hook));
  }

  /// Hosts a map of this process, before or after `start`.
  /// Errors: `unfrozen`, `already_hosted`, `init_failed`, `too_large`, `busy`, `stopped`.
  MasterHandle<K, V> host(Map map) {
    expect_here();
    return core_->host(std::move(map));
  }

  /// Listens from now on; returns at once.
  ///
  /// A handshake is tried in memory first: a certificate that no client of ours could use (its key, its extended key
  /// usage, its times by this machine's clock) is refused here, and not found out by clients that can't connect.
  /// Errors: `invalid_option` for a certificate, key, endpoint or password that can't be used, with the reason; the
  ///         system's own (`std::errc::address_in_use`, ...) if it can't listen or start threads, and then the server
  ///         is stopped; `already_started`; `stopped`.
  void start() {
    expect_here();
    const std::lock_guard lock(mutex_);
    reload_tls();
    for (auto& thread : threads_) thread->renew_after_fork();  // all of them, for each may wake another
    open_listener();
    try {
      core_->start();
    } catch (...) {
      // A process that forks before it tries again must not share what listens with its child.
      if (options_.listener < 0) acceptor_.reset();
      throw;
    }
    {
      const std::lock_guard endpoint_lock(endpoint_mutex_);
      endpoint_ = acceptor_->endpoint();
    }
    home_.settle();
    try {
      hook_pool_->start();
      for (auto& thread : threads_) thread->start();
      for (auto& gate : desk_->gates) gate.executor->settle();
      for (auto& ear : desk_->ears) ear.executor->settle();
      acceptor_->start([desk = desk_](NativeSocket socket, std::string address) {
        take(desk, std::move(socket), std::move(address));
      });
    } catch (...) {  // out of threads, memory or descriptors
      end();
      throw;
    }
  }

  /// Shows this certificate to everybody who connects from now on; links that are open go on. Files are read anew, also
  /// where `tls` is what the server was made with.
  /// Errors: `invalid_option` for a certificate or key that can't be used (as for `start`), or where clients had to
  ///         show certificates and would not have to any more, for that takes a new server; `stopped` after `stop`;
  ///         nothing has changed then.
  void reload_tls(ServerTls tls) {
    expect_here();
    core_->expect_not_stopped("reload_tls");
    const std::lock_guard lock(tls_mutex_);
    if (options_.tls.requires_client_certificates() && !tls.requires_client_certificates()) {
      throw StateError(
          StateErrc::invalid_option,
          "reload_tls: clients have to show certificates, and `tls` would not require them: only a new "
          "server can stop asking for them");
    }
    desk_->set_context(make_usable_context(tls));
    options_.tls = std::move(tls);
  }

  /// Reads the files of the certificate, key and authorities in use again.
  /// Errors: as above.
  void reload_tls() {
    expect_here();
    core_->expect_not_stopped("reload_tls");
    const std::lock_guard lock(tls_mutex_);
    desk_->set_context(make_usable_context(options_.tls));
  }

  /// Takes the passwords `current` from now on, and no others; links that proved themselves go on until `disconnect`.
  ///
  /// To replace one without a gap: set both as current, give every client the new one, then set the new one alone as
  /// current and the old one as retired. A proof of a retired password is `unauthorized` too, but is not held against its
  /// address: so a client that was forgotten does not keep out other clients of its address.
  /// Errors    : `invalid_option` if `current` is empty, or holds an empty password without mutual TLS; `stopped` after
  ///             `stop`; nothing has changed then.
  /// Complexity: each proof is tried with each password of both lists, one HMAC-SHA-256 each.
  void set_passwords(std::vector<std::string> current, std::vector<std::string> retired = {}) {
    expect_here();
    core_->set_passwords(std::move(current), std::move(retired));
  }

  /// Ends the links of all peers that `is_meant` is true for; returns how many. See `ServerCore::disconnect`.
  ///
  /// ```cpp
  /// server.set_passwords({fresh}, {old});
  /// server.disconnect([](const ss::Peer&) { return true; });  // each client proves itself again within a second
  /// ```
  template <std::predicate<const Peer&> F>
  std::size_t disconnect(F is_meant) {
    expect_here();
    return core_->disconnect(std::move(is_meant));
  }

  /// Asks the authorizer again about all that is open; call it when its answers change. See `ServerCore::recheck`.
  void recheck() {
    expect_here();
    core_->recheck();
  }

  /// Ends everything; may be called again. In a hook it only begins to: nothing more is accepted or run, and
  /// the threads end with the next call, or the destructor.
  void stop() {
    if (home_.is_elsewhere()) return let_go();
    if (hook_pool_->runs_here()) {
      core_->stop();
      return;
    }
    const std::lock_guard lock(mutex_);
    end();
  }

  /// Where it listens, with the port the system chose: `"127.0.0.1:43121"`. After `start`.
  [[nodiscard]] std::string endpoint() const {
    expect_here();
    const std::lock_guard lock(endpoint_mutex_);
    return endpoint_;
  }

  /// How many clients are connected, those included that have not proved themselves yet.
  [[nodiscard]] std::size_t link_count() const {
    expect_here();
    return core_->link_count();
  }

  /// The core, to which other transports may add lanes of their own.
  /// Errors: `stopped` in a child that was forked off after `start`.
  [[nodiscard]] const std::shared_ptr<ServerCore<K, V, E>>& core() const {
    expect_here();
    return core_;
  }

 private:
  using ThreadKind = syncstate::detail::ThreadKind;

  /// One I/O executor, and the core's lane for its links.
  struct Ear {
    std::shared_ptr<AsioExecutor> executor;
    std::shared_ptr<syncstate::detail::Lane> lane;
  };

  /// Options whose passwords are overwritten in the end, if the core has not taken them.
  struct WipedOptions : ServerOptions {
    explicit WipedOptions(ServerOptions options) : ServerOptions(std::move(options)) {}
    WipedOptions(const WipedOptions&) = delete;
    WipedOptions& operator=(const WipedOptions&) = delete;
    ~WipedOptions() {
      const protocol::WipesAtEnd wiping(this->password, this->more_passwords, this->retired_passwords);
    }
  };

  /// One executor for handshakes, and the core's lane for links whose clients have not proven themselves.
  struct Gate {
    std::shared_ptr<AsioExecutor> executor;
    std::shared_ptr<syncstate::detail::Lane> lane;
    std::shared_ptr<TurnQueue> turns;
  };

  /// What a connection needs that comes in while the server goes.
  class Desk {
   public:
    std::shared_ptr<ServerCore<K, V, E>> core;
    std::vector<Ear> ears;
    std::vector<Gate> gates;
    // Of the acceptor's executor, the first gate's:
    std::size_t next_ear = 0;
    std::size_t next_gate = 0;

    void set_context(std::shared_ptr<const TlsContext> context) {
      const std::lock_guard lock(mutex_);
      context_ = std::move(context);
    }
    [[nodiscard]] std::shared_ptr<const TlsContext> context() const {
      const std::lock_guard lock(mutex_);
      return context_;
    }

   private:
    mutable std::mutex mutex_;
    std::shared_ptr<const TlsContext> context_;
  };

  TcpStateServer(asio::io_context* context, ServerOptions options)
      : options_(std::move(options)),
        endpoint_(options_.endpoint),
        hook_pool_(std::make_shared<HookPool>(options_.hook_threads)),
        core_(ServerCore<K, V, E>::create(core_options(), hook_pool_)) {
    if (options_.io_threads == 0) throw StateError(StateErrc::invalid_option, "io_threads starts at 1");
    if (options_.handshake_threads == 0) {
      throw StateError(StateErrc::invalid_option, "handshake_threads is 0, and starts at 1");
    }
    if (!(options_.fan_out_share > 0 && options_.fan_out_share <= 1)) {
      throw StateError(StateErrc::invalid_option, "fan_out_share is above 0, and at most 1");
    }
    for (std::size_t i = 0; i < options_.io_threads; ++i) {
      std::shared_ptr<AsioExecutor> executor;
      if (context != nullptr) {
        executor = AsioExecutor::on_strand(context->get_executor());
      } else {
        threads_.push_back(std::make_unique<IoThread>(ThreadKind::io, options_.spin));
        executor = threads_.back()->executor();
      }
      desk_->ears.push_back(Ear{executor, core_->add_lane(executor)});
    }
    const std::size_t gates = context != nullptr ? 1 : options_.handshake_threads;
    for (std::size_t i = 0; i < gates; ++i) {
      std::shared_ptr<AsioExecutor> executor;
      if (context != nullptr) {
        executor = AsioExecutor::on_strand(context->get_executor());
      } else {
        constexpr int niceness = 10;
        threads_.push_back(
            std::make_unique<IoThread>(ThreadKind::handshake, std::chrono::microseconds(0), niceness));
        executor = threads_.back()->executor();
      }
      desk_->gates.push_back(
          Gate{executor, core_->add_entry_lane(executor), TurnQueue::make(executor->asio_executor())});
    }
    desk_->core = core_;
  }

  /// Errors: `stopped` in a child that was forked off after `start`.
  void expect_here() const { home_.expect_here("this server"); }

  /// Ends everything. With the mutex held.
  void end() {
    if (acceptor_) acceptor_->stop();
    core_->stop();
    hook_pool_->join();
    const bool are_running = !threads_.empty() && std::all_of(threads_.begin(), threads_.end(),
                                                              [](const auto& t) { return t->is_started(); });
    if (are_running) {
      // The gates first: a link that is about to move on does so now.
      for (auto& gate : desk_->gates) flush(*gate.executor);
      for (auto& ear : desk_->ears) flush(*ear.executor);
    }
    for (auto& thread : threads_) thread->stop();
    threads_.clear();
  }

  /// In a child that was forked off after `start`. Takes no lock: a thread of the parent may have held it.
  void let_go() {
    acceptor_.reset();  // closes this process's copy of the socket
    syncstate::detail::leave_behind(std::move(hook_pool_), std::move(core_), std::move(threads_),
                                    std::move(desk_));
  }

  ServerCoreOptions core_options() {
    ServerCoreOptions core;
    core.passwords.reserve(1 + options_.more_passwords.size());  // a list that grows leaves copies behind
    core.passwords.push_back(std::move(options_.password));
    protocol::wipe(options_.password);
    for (std::string& more : options_.more_passwords) core.passwords.push_back(std::move(more));
    core.retired_passwords = std::move(options_.retired_passwords);
    protocol::wipe_all(options_.more_passwords);
    core.allow_empty_password = options_.tls.requires_client_certificates();
    core.allow_uploads = options_.allow_uploads;
    core.hooks_on_io_threads = options_.hooks_on_io_threads;
    core.fan_out_share = options_.fan_out_share;
    core.map_options = options_.map_options;
    core.limits = options_.limits;
    core.authorizer = std::move(options_.authorizer);
    core.on_error = std::move(options_.on_error);
    return core;
  }

  /// A context that a client of ours can connect to.
  static std::shared_ptr<const TlsContext> make_usable_context(const ServerTls& tls) {
    auto context = std::make_shared<const TlsContext>(tls);
    detail::try_server(*context);
    return context;
  }

  /// Opens the listening socket, or takes over the user's, unless an earlier `start` that failed has done so.
  void open_listener() {
    if (acceptor_) return;
    const auto executor = desk_->gates.front().executor->asio_executor();
    if (options_.listener >= 0) {
      // Taken over once, also where `start` fails and is called again: by then the number may be somebody else's.
      if (!listener_) listener_.emplace(options_.listener);
      acceptor_.emplace(executor, std::move(*listener_), Acceptor::Origin::adopted);
    } else {
      acceptor_.emplace(executor, listen_on(parse_endpoint(options_.endpoint)), Acceptor::Origin::opened);
    }
  }

  /// A connection came: the next gate takes it.
  static void take(const std::shared_ptr<Desk>& desk, NativeSocket socket, std::string address) {
    const Gate& gate = desk->gates[desk->next_gate++ % desk->gates.size()];
    const Ear& ear = desk->ears[desk->next_ear++ % desk->ears.size()];
    gate.executor->post(
        [desk, gate, ear, socket = std::move(socket), address = std::move(address)]() mutable {
          // Out of memory or descriptors: this connection is closed, others go on.
          syncstate::detail::contain(desk->core->on_error(), [&] {
            std::shared_ptr<TlsLink> link;
            const auto make_link = [&] {
              TlsLinkOptions options;
              // The core limits the time until authentication.
              options.handshake_time = std::chrono::milliseconds(0);
              options.key_updates_per_minute = desk->core->limits().key_updates_per_minute;
              options.client_hello_bytes = desk->core->limits().client_hello_bytes;
              options.certificate_chain_bytes = desk->core->limits().certificate_chain_bytes;
              options.next_executor = ear.executor;
              options.turns = gate.turns;
              link = TlsLink::make_server(adopt(gate.executor->asio_executor(), std::move(socket)),
                                          *desk->context(), address, options, gate.executor);
              return link;
            };
            auto owner = desk->core->accept(gate.lane, network_of({address, 0}), make_link, ear.lane);
            if (owner) link->start(std::move(owner));
          });
        });
  }

  /// Lets an executor do what was posted to it, so that goodbyes get out.
  static void flush(AsioExecutor& executor) {
    if (executor.runs_here()) return;
    std::promise<void> done;
    executor.post([&] { executor.post([&] { executor.post([&] { done.set_value(); }); }); });
    done.get_future().wait();
  }

  WipedOptions options_;
  std::mutex tls_mutex_;  // of `options_.tls`; a hook may reload it while `stop` waits for that hook
  // `stop` holds the other mutex while it waits for hooks, which may ask where we listen.
  mutable std::mutex endpoint_mutex_;
  std::string endpoint_;
  std::shared_ptr<HookPool> hook_pool_;
  std::shared_ptr<ServerCore<K, V, E>> core_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  std::shared_ptr<Desk> desk_ = std::make_shared<Desk>();
  std::optional<NativeSocket> listener_;  // the user's, once taken over; the acceptor has it if it can use it
  std::optional<Acceptor> acceptor_;
  syncstate::detail::HomeProcess home_;  // noted by `start`
};

}  // namespace syncstate::tcp

#endif
