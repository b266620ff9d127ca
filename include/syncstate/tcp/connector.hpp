// A client's links: every address of every endpoint in turn, until one is open.
#ifndef SYNCSTATE_TCP_CONNECTOR_HPP
#define SYNCSTATE_TCP_CONNECTOR_HPP

#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/async/asio.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/error.hpp"
#include "syncstate/link.hpp"
#include "syncstate/tcp/endpoint.hpp"
#include "syncstate/tcp/native_socket.hpp"
#include "syncstate/tcp/resolver.hpp"
#include "syncstate/tcp/tls_context.hpp"
#include "syncstate/tcp/tls_link.hpp"
#include "syncstate/threads/home_process.hpp"

#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

namespace syncstate::tcp {

/// How long one step of an attempt may take.
struct ConnectorOptions {
  /// For finding the addresses of one name.
  std::chrono::milliseconds resolve_time{10'000};
  /// For the TCP connection to one address.
  std::chrono::milliseconds connect_time{3'000};
  /// For the TLS handshake with one address, and for closing.
  TlsLinkOptions link{};
};

namespace detail {

/// Where an attempt goes: shared by a connector and its links.
struct DialPlan {
  asio::any_io_executor executor;
  std::vector<Endpoint> endpoints;
  TlsContext tls;
  ConnectorOptions options;
  std::shared_ptr<AsioExecutor> serial;  // what `executor` belongs to, or null
};

/// A client's link: first the search for an address that answers, then the TlsLink it was found for.
///
/// Threads : everything on the plan's executor.
/// Lifetime: as TlsLink.
class DialingLink final : public Link, public std::enable_shared_from_this<DialingLink> {
 public:
  explicit DialingLink(std::shared_ptr<const DialPlan> plan) : plan_(std::move(plan)) {}

  void start(std::shared_ptr<LinkOwner> owner) {
    const auto held = std::make_shared<Held>(shared_from_this(), std::move(owner));
    held_ = held;
    asio::post(plan_->executor, [held] { held->link->try_next(held); });
  }

  void wake() override {
    if (is_open_) tls_->wake();
  }

  void close_gracefully() override {
    if (is_open_) return tls_->close_gracefully();
    abort();
  }

  void close_without_waiting() override {
    if (is_open_) return tls_->close_without_waiting();
    abort();
  }

  void abort() override {
    if (is_closed_) return;
    if (is_open_) return tls_->abort();
    if (const auto held = held_.lock()) close(held, StateErrc::link_closed, "closed by this side");
  }

 private:
  // What pending operations hold; see TlsLink.
  struct Held {
    Held(std::shared_ptr<DialingLink> link_, std::shared_ptr<LinkOwner> owner_)
        : link(std::move(link_)), owner(std::move(owner_)) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() {
      if (home.is_elsewhere()) {
        syncstate::detail::leave_behind(std::move(link), std::move(owner));
        return;
      }  // as in TlsLink
      link->release();
    }

    std::shared_ptr<DialingLink> link;
    std::shared_ptr<LinkOwner> owner;
    const syncstate::detail::HomeProcess home = syncstate::detail::HomeProcess::here();
  };
  using HeldPtr = std::shared_ptr<Held>;

  // Stands between a TlsLink and the owner until one of them is open.
  class Trial final : public LinkOwner {
   public:
    explicit Trial(HeldPtr held) : held_(std::move(held)) {}
    void on_open(const LinkInfo& info) override {
      if (held_->link->is_closed_) return;
      held_->link->is_open_ = true;
      held_->owner->on_open(info);
    }
    void on_bytes(ByteView bytes) override { held_->owner->on_bytes(bytes); }
    void produce(Bytes& out) override { held_->owner->produce(out); }
    void on_closed(std::error_code reason, const std::string& detail) override {
      const HeldPtr held = std::move(held_);
      DialingLink& link = *held->link;
      if (link.is_closed_) return;
      link.tls_.reset();
      if (link.is_open_) {
        link.release();
        const auto owner = std::move(held->owner);
        owner->on_closed(reason, detail);
        return;
      }
      link.note_failure(reason, detail);
      link.try_next(held);
    }

   private:
    HeldPtr held_;
  };

  // The next address, else the next endpoint, else the end.
  void try_next(const HeldPtr& held) {
    if (held->home.is_elsewhere()) return;
    end_step();
    while (!is_closed_) {
      if (next_address_ < addresses_.size()) {
        if (connect(held, addresses_[next_address_++])) return;
      } else if (next_endpoint_ < plan_->endpoints.size()) {
        if (resolve(held, plan_->endpoints[next_endpoint_++])) return;
      } else {
        return close(held, reason_, std::move(failure_));
      }
    }
  }

  // True if what comes next will be called by a pending operation.
  bool resolve(const HeldPtr& held, const Endpoint& endpoint) {
    at_ = to_string(endpoint);
    if (take_addresses(resolve_now(endpoint, AI_NUMERICHOST))) return false;
    try {
      lookup_.emplace(plan_->executor, endpoint);
    } catch (const std::system_error& error) {
      note_failure(make_error_code(StateErrc::unavailable), error.what());
      return false;
    }
    start_timer(held, plan_->options.resolve_time, "finding the address took too long");
    lookup_->async_wait([held, step = step_](std::error_code) {
      DialingLink& link = *held->link;
      if (link.step_ != step) return;
      Resolved resolved = link.lookup_->take();
      if (resolved.addresses.empty()) {
        link.note_failure(make_error_code(StateErrc::unavailable), resolved.failure);
      }
      link.take_addresses(std::move(resolved));
      link.try_next(held);
    });
    return true;
  }

  bool take_addresses(Resolved resolved) {
    addresses_ = std::move(resolved.addresses);
    next_address_ = 0;
    return !addresses_.empty();
  }

  bool connect(const HeldPtr& held, const SocketAddress& address) {
    const Endpoint& configured = plan_->endpoints[next_endpoint_ - 1];
    const Endpoint numeric = numeric_endpoint(address);
    at_ = to_string(numeric);
    if (numeric.host != configured.host) at_ = to_string(configured) + " at " + at_;
    NativeSocket native(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!native.is_open() ||
        (::connect(native.get(), address.data(), address.size) != 0 && errno != EINPROGRESS)) {
      note_failure(errno);
      return false;
    }
    try {
      socket_.emplace(adopt(plan_->executor, std::move(native)));
    } catch (const std::system_error& error) {
      note_failure(make_error_code(StateErrc::unavailable), error.code().message());
      return false;
    }
    start_timer(held, plan_->options.connect_time, "connecting took too long");
    socket_->async_wait(asio::ip::tcp::socket::wait_write, [held, step = step_, address](std::error_code) {
      if (held->link->step_ == step) held->link->on_connected(held, address);
    });
    return true;
  }

  void on_connected(const HeldPtr& held, const SocketAddress& address) {
    const int handle = socket_->native_handle();
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(handle, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    // TCP can connect a socket with itself where the port is one the system may pick for it.
    if (error == 0 && local_address(handle) == address) error = ECONNREFUSED;
    if (error != 0) {
      note_failure(error);
      return try_next(held);
    }
    const std::string& host = plan_->endpoints[next_endpoint_ - 1].host;
    try {
      // Anew: an Asio socket that has waited to write once is woken for that beside every read from then on.
      NativeSocket connected(socket_->release());
      tls_ = TlsLink::make_client(adopt(plan_->executor, std::move(connected)), plan_->tls, host,
                                  numeric_endpoint(address).host, plan_->options.link, plan_->serial);
    } catch (const StateError& failure) {
      note_failure(failure.code(), failure.detail());
      return try_next(held);
    } catch (const std::system_error& failure) {  // Asio's, out of descriptors or memory
      note_failure(make_error_code(StateErrc::unavailable), failure.code().message());
      return try_next(held);
    }
    end_step();
    tls_->start(std::make_shared<Trial>(held));
  }

  void start_timer(const HeldPtr& held, std::chrono::milliseconds time, const char* why) {
    timer_.emplace(plan_->executor, time);
    timer_->async_wait([held, step = step_, why](std::error_code) {
      DialingLink& link = *held->link;
      if (link.step_ != step) return;
      link.note_failure(make_error_code(StateErrc::unavailable), why);
      link.try_next(held);
    });
  }

  void note_failure(int number) {
    note_failure(make_error_code(StateErrc::unavailable), std::generic_category().message(number));
  }
  void note_failure(std::error_code reason, const std::string& detail) {
    reason_ = reason;
    failure_ = at_ + ": " + detail;
  }

  void close(const HeldPtr& held, std::error_code reason, std::string detail) {
    release();
    asio::post(plan_->executor, [held, reason, detail = std::move(detail)] {
      const auto owner = std::move(held->owner);
      owner->on_closed(reason, detail);
    });
  }
  void close(const HeldPtr& held, StateErrc reason, std::string detail) {
    close(held, make_error_code(reason), std::move(detail));
  }

  // What was pending is cancelled, and ignored if it was too late for that.
  void end_step() {
    ++step_;
    timer_.reset();
    lookup_.reset();
    socket_.reset();
  }

  void release() {
    is_closed_ = true;
    is_open_ = false;
    held_.reset();
    end_step();
    if (tls_) std::exchange(tls_, nullptr)->abort();
  }

  const std::shared_ptr<const DialPlan> plan_;
  std::size_t next_endpoint_ = 0;
  std::vector<SocketAddress> addresses_;
  std::size_t next_address_ = 0;
  std::string at_;  // what is being tried, for messages
  std::error_code reason_;
  std::string failure_;
  bool is_open_ = false;
  bool is_closed_ = false;

  unsigned step_ = 0;  // pending operations of an earlier one are stale
  std::optional<NameLookup> lookup_;
  std::optional<asio::ip::tcp::socket> socket_;
  std::optional<asio::steady_timer> timer_;
  std::shared_ptr<TlsLink> tls_;
  std::weak_ptr<Held> held_;
};

}  // namespace detail

/// Makes a client's links over TLS.
///
/// Threads: `connect`, and all calls of the links it makes, on the executor, which must be serial.
class TlsConnector final : public Connector {
 public:
  /// Errors: StateErrc::invalid_option if there is no endpoint, or one with port 0.
  TlsConnector(asio::any_io_executor executor, std::vector<Endpoint> endpoints, TlsContext tls,
               ConnectorOptions options = {})
      : TlsConnector(
            detail::DialPlan{std::move(executor), std::move(endpoints), std::move(tls), options, {}}) {}

  /// The same for an owner whose tasks run on `executor`, too.
  /// Errors: as above.
  TlsConnector(const std::shared_ptr<AsioExecutor>& executor, std::vector<Endpoint> endpoints, TlsContext tls,
               ConnectorOptions options = {})
      : TlsConnector(detail::DialPlan{executor->asio_executor(), std::move(endpoints), std::move(tls),
                                      options, executor}) {}

  std::shared_ptr<Link> connect(std::shared_ptr<LinkOwner> owner) override {
    auto link = std::make_shared<detail::DialingLink>(plan());
    link->start(std::move(owner));
    return link;
  }

  /// Uses this for every attempt that begins from now on; links and attempts under way keep what they have.
  /// Threads: any.
  void set_tls(TlsContext tls) {
    const std::lock_guard lock(mutex_);
    plan_ = std::make_shared<const detail::DialPlan>(
        detail::DialPlan{plan_->executor, plan_->endpoints, std::move(tls), plan_->options, plan_->serial});
  }

 private:
  [[nodiscard]] std::shared_ptr<const detail::DialPlan> plan() const {
    const std::lock_guard lock(mutex_);
    return plan_;
  }

  explicit TlsConnector(detail::DialPlan plan) : plan_(std::make_shared<detail::DialPlan>(std::move(plan))) {
    if (plan_->endpoints.empty()) throw StateError(StateErrc::invalid_option, "no endpoint to connect to");
    for (const Endpoint& endpoint : plan_->endpoints) {
      if (endpoint.port == 0) {
        throw StateError(StateErrc::invalid_option,
                         "endpoint '" + to_string(endpoint) + "': no server is at port 0");
      }
    }
  }

  mutable std::mutex mutex_;
  std::shared_ptr<const detail::DialPlan> plan_;
};

}  // namespace syncstate::tcp

#endif
