// A listening socket that outlives every shortage.
#ifndef SYNCSTATE_TCP_ACCEPTOR_HPP
#define SYNCSTATE_TCP_ACCEPTOR_HPP

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "syncstate/async/asio.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/unique_function.hpp"
#include "syncstate/error.hpp"
#include "syncstate/tcp/endpoint.hpp"
#include "syncstate/tcp/native_socket.hpp"
#include "syncstate/tcp/resolver.hpp"
#include "syncstate/threads/home_process.hpp"

#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

namespace syncstate::tcp {

/// Opens a listening socket; port 0 has the system pick one. A name is resolved here and now.
/// Errors: StateError with the system's code (address in use, ...) and the endpoint as detail.
inline NativeSocket listen_on(const Endpoint& endpoint) {
  detail::Resolved resolved = detail::resolve_now(endpoint, AI_PASSIVE);
  const std::string where = "listening on " + to_string(endpoint);
  if (resolved.addresses.empty())
    throw StateError(StateErrc::invalid_option, where + ": " + resolved.failure);
  int error = 0;
  for (const SocketAddress& address : resolved.addresses) {
    NativeSocket socket(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    const int off = 0;
    if (socket.is_open() && ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (address.family() != AF_INET6 ||
         ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
        ::bind(socket.get(), address.data(), address.size) == 0 && ::listen(socket.get(), SOMAXCONN) == 0) {
      return socket;
    }
    error = errno;
  }
  throw StateError(std::error_code(error, std::generic_category()), where);
}

/// Accepts connections until it is stopped. Out of descriptors or memory it pauses for 100 ms and goes on.
///
/// Threads : `on_accept` runs on the executor, which must be serial; `stop` and `endpoint` from any thread.
/// Lifetime: the listening socket closes, and `on_accept` is destroyed, soon after `stop` or the destructor,
///           on the executor or with its context.
class Acceptor {
 public:
  /// Gets a connected non-blocking socket and the peer's numeric address. Must not throw.
  using OnAccept = syncstate::detail::UniqueFunction<void(NativeSocket, std::string)>;

  /// Whose the listening socket was before.
  enum class Origin {
    opened,  ///< nobody's: it was opened for this acceptor, and `stop` ends the listening itself
    adopted  ///< the user's: other processes may go on accepting from it, and `stop` closes this copy only
  };

  /// Takes over a socket that is listening, or bound and about to. Nothing is accepted before `start`, and the context
  /// hears nothing of the socket: until then the process may fork, and start its copy of the acceptor in the child.
  /// Errors: StateErrc::invalid_option if it is no such socket; `listener` stays the caller's then.
  Acceptor(const asio::any_io_executor& executor, NativeSocket&& listener, Origin origin = Origin::adopted)
      : executor_(executor), core_(std::make_shared<Core>(executor, origin)) {
    const SocketAddress address = local_address(listener.get());
    if (address.family() != AF_INET && address.family() != AF_INET6) {
      throw StateError(StateErrc::invalid_option, "listener: not a bound TCP socket");
    }
    if (::listen(listener.get(), SOMAXCONN) != 0) {
      throw StateError(StateErrc::invalid_option, "listener: " + std::generic_category().message(errno));
    }
    endpoint_ = to_string(numeric_endpoint(address));
    core_->is_v6 = address.family() == AF_INET6;
    core_->listener = std::move(listener);
  }

  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;
  ~Acceptor() { stop(); }

  /// Accepts from now on. Once.
  /// Errors: std::system_error of Asio (out of memory or descriptors).
  void start(OnAccept on_accept) {
    core_->open();
    home_.settle();
    core_->home.settle();
    core_->on_accept = std::move(on_accept);
    asio::post(executor_, [core = core_] { core->wait(core); });
    // From here on the operations own it, so that its context may be destroyed before this.
    running_ = std::move(core_);
  }

  /// Accepts nothing more; a call of `on_accept` may still be under way on another thread. In a child that was forked
  /// off after `start`, only closes the child's copy of the listening socket: the parent goes on accepting.
  void stop() {
    if (home_.is_elsewhere()) {
      auto core = running_.lock();
      running_.reset();
      if (core && core->acceptor.is_open()) ::close(core->acceptor.native_handle());
      return syncstate::detail::leave_behind(std::move(core));
    }
    core_.reset();
    if (const auto core = running_.lock()) {
      running_.reset();
      asio::post(executor_, [core] { core->close(); });
    }
  }

  /// Where it listens, with the port the system picked: "127.0.0.1:43121".
  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }

 private:
  struct Core {
    Core(const asio::any_io_executor& executor, Origin origin_of_listener)
        : acceptor(executor), pause(executor), origin(origin_of_listener) {}

    /// Puts the listener under Asio's care.
    void open() {
      acceptor.assign(is_v6 ? asio::ip::tcp::v6() : asio::ip::tcp::v4(), listener.get());
      (void)listener.release();
      acceptor.native_non_blocking(true);
    }

    void wait(const std::shared_ptr<Core>& self) {
      if (!acceptor.is_open()) return;
      acceptor.async_wait(asio::ip::tcp::acceptor::wait_read, [self](std::error_code error) {
        if (error == asio::error::operation_aborted) return;
        self->accept(self);
      });
    }

    void accept(const std::shared_ptr<Core>& self) {
      if (home.is_elsewhere()) return;  // on a context of the user's: the connections are the parent's
      constexpr int at_once = 16;       // then what else waits for this thread has a turn
      for (int i = 0; i < at_once && acceptor.is_open(); ++i) {
        SocketAddress address;
        NativeSocket socket(
            ::accept4(acceptor.native_handle(), address.data(), &address.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (socket.is_open()) {
          on_accept(std::move(socket), numeric_endpoint(address).host);
          continue;
        }
        switch (errno) {
          case EAGAIN: return wait(self);
          // The connection was lost before we came for it: an error of its own, not of the listener.
          case EINTR:
          case ECONNABORTED:
          case EPROTO:
          case EPERM:
          case ENETDOWN:
          case ENETUNREACH:
          case EHOSTDOWN:
          case EHOSTUNREACH:
          case ENONET:
          case ENOPROTOOPT: continue;
          // EMFILE, ENFILE, ENOBUFS, ENOMEM: the listener stays readable, so waiting for that would spin.
          default: return wait_a_while(self);
        }
      }
      wait(self);
    }

    void wait_a_while(const std::shared_ptr<Core>& self) {
      pause.expires_after(std::chrono::milliseconds(100));
      pause.async_wait([self](std::error_code error) {
        if (!error) self->accept(self);
      });
    }

    void close() {
      // A child that was forked off may have a copy of the socket: to close this one would not end the listening.
      if (origin == Origin::opened && acceptor.is_open()) {
        ::shutdown(acceptor.native_handle(), SHUT_RDWR);
      }
      std::error_code ignored;
      acceptor.close(ignored);
      pause.cancel();
      on_accept = {};
    }

    NativeSocket listener;  // until `open`
    bool is_v6 = false;
    asio::ip::tcp::acceptor acceptor;
    asio::steady_timer pause;
    const Origin origin;
    OnAccept on_accept;
    syncstate::detail::HomeProcess home;
  };

  asio::any_io_executor executor_;
  std::shared_ptr<Core> core_;   // before start
  std::weak_ptr<Core> running_;  // after
  std::string endpoint_;
  syncstate::detail::HomeProcess home_;
};

}  // namespace syncstate::tcp

#endif
