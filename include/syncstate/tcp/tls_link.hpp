// A link over TLS 1.3: drives OpenSSL over Asio's readiness, for either side.
#ifndef SYNCSTATE_TCP_TLS_LINK_HPP
#define SYNCSTATE_TCP_TLS_LINK_HPP

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "syncstate/async/asio.hpp"
#include "syncstate/bytes.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/unique_function.hpp"
#include "syncstate/detail/visibility.hpp"
#include "syncstate/error.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/link.hpp"
#include "syncstate/tcp/asio_executor.hpp"
#include "syncstate/tcp/minute_count.hpp"
#include "syncstate/tcp/native_socket.hpp"
#include "syncstate/tcp/peer_certificate.hpp"
#include "syncstate/tcp/socket_bio.hpp"
#include "syncstate/tcp/tls_context.hpp"
#include "syncstate/tcp/tls_error.hpp"
#include "syncstate/tcp/turn_queue.hpp"
#include "syncstate/threads/home_process.hpp"

#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

namespace syncstate::tcp {

/// How long a link may take over what depends on its peer.
struct TlsLinkOptions {
  /// From start to open; zero waits for as long as the owner does.
  std::chrono::milliseconds handshake_time{5'000};
  /// What `close_gracefully` grants.
  std::chrono::milliseconds close_time{1'000};
  /// See `Limits`.
  std::size_t key_updates_per_minute = Limits{}.key_updates_per_minute;
  std::size_t client_hello_bytes = Limits{}.client_hello_bytes;
  std::uint64_t certificate_chain_bytes = Limits{}.certificate_chain_bytes;
  /// Where the link goes on after `move_on`; null: where it is.
  std::shared_ptr<AsioExecutor> next_executor{};
  /// The steps of the handshake wait here for their turn; null: they do not wait. On the socket's executor.
  std::shared_ptr<TurnQueue> turns{};
};

/// One TLS connection, server's or client's end.
///
/// Threads : everything, calls in both directions included, on the socket's executor, which must be serial: a
///           strand, or a context that one thread runs. Only `start` may be called from elsewhere, and first
///           of all. After `move_on` it is the next executor instead.
/// Lifetime: keeps its owner and itself alive until `on_closed` was called. Where the Asio context is
///           destroyed before, the owner is released without that call, and the link is inert from then on.
/// Memory  : a server's end has nothing of OpenSSL's before a ClientHello has come as a whole, only its bytes. While
///           nothing is in flight, no buffers, but of a process's first eight links those of OpenSSL; what the kernel
///           did not take yet is kept.
class TlsLink final : public Link, public std::enable_shared_from_this<TlsLink> {
 public:
  /// A server's end of an accepted connection. With the executor of the socket's owner, where there is one, what links
  /// and owners have to do for each other takes fewer ways through Asio.
  static std::shared_ptr<TlsLink> make_server(asio::ip::tcp::socket socket, const TlsContext& context,
                                              std::string peer_address, TlsLinkOptions options = {},
                                              std::shared_ptr<AsioExecutor> executor = nullptr) {
    std::shared_ptr<TlsLink> link(new TlsLink(Side::server, std::move(socket), std::move(peer_address),
                                              std::string(), options, std::move(executor)));
    link->context_ = std::make_unique<const TlsContext>(context);
    link->io_.guard_hellos(options.client_hello_bytes);
    return link;
  }

  /// A client's end of a connection to `host`, the endpoint's host as configured.
  static std::shared_ptr<TlsLink> make_client(asio::ip::tcp::socket socket, const TlsContext& context,
                                              const std::string& host, std::string peer_address,
                                              TlsLinkOptions options = {},
                                              std::shared_ptr<AsioExecutor> executor = nullptr) {
    std::shared_ptr<TlsLink> link(new TlsLink(Side::client, std::move(socket), std::move(peer_address),
                                              context.name_for(host).text, options, std::move(executor)));
    link->use(context.make_client_ssl(host));
    return link;
  }

  /// Begins the handshake. `owner` hears `on_open`, then the rest; never from inside this call.
  void start(std::shared_ptr<LinkOwner> owner) {
    const auto held = std::make_shared<Held>(shared_from_this(), std::move(owner));
    held_ = held;
    asio::post(socket_->get_executor(), [held] {
      TlsLink& link = *held->link;
      if (link.state_ != State::handshaking) return;
      if (link.options_.handshake_time.count() > 0) link.start_timer(held, link.options_.handshake_time);
      link.on_ready(held);
    });
  }

  void move_on(syncstate::detail::UniqueFunction<void()> then) override {
    keep_buffers();  // its peer has proven itself
    if (!options_.next_executor) return then();
    moves_on_ = std::move(then);
  }

  void wake() override {
    if (state_ != State::open) return;
    has_more_ = true;
    if (is_in_turn_ || is_writing()) return;
    if (const auto held = held_.lock()) post_turn(held);
  }

  void close_gracefully() override {
    if (state_ == State::handshaking) return abort();
    if (state_ != State::open) return;
    const auto held = held_.lock();
    if (!held) return;
    state_ = State::flushing;
    has_more_ = true;
    start_timer(held, options_.close_time);
    post_turn(held);
  }

  void close_without_waiting() override {
    if (state_ != State::open || is_in_turn_) return abort();
    const auto held = held_.lock();
    if (!held) return;
    state_ = State::flushing;
    has_more_ = true;
    write(held);
    close(held, StateErrc::link_closed, "closed by this side");
  }

  void abort() override {
    if (const auto held = held_.lock()) close(held, StateErrc::link_closed, "closed by this side");
  }

 private:
  enum class Side { server, client };
  enum class State {
    handshaking,
    open,
    flushing,   // close_gracefully: what produce still gives goes out; what comes is dropped
    lingering,  // everything is sent, the end too; waits for the peer's end, for closing now could lose ours
    closed
  };

  // To give back OpenSSL's two buffers of 17 KiB after each record, and to get them for the next one, takes a
  // microsecond. So the first few links of a process keep theirs; many links must not. A server's link is one of them only
  // once its client has proven itself: strangers would take the places.
  class KeepsBuffers {
   public:
    KeepsBuffers() : is_granted_(links()++ < most_links) {}
    KeepsBuffers(const KeepsBuffers&) = delete;
    KeepsBuffers& operator=(const KeepsBuffers&) = delete;
    ~KeepsBuffers() { --links(); }
    [[nodiscard]] bool is_granted() const { return is_granted_; }

   private:
    static constexpr int most_links = 8;
    SYNCSTATE_VISIBLE static std::atomic<int>& links() {
      static std::atomic<int> count{0};
      return count;
    }
    const bool is_granted_;
  };

  // What pending operations hold. The link itself points to it weakly: so link and owner may point at each
  // other and are still released when the Asio context destroys its operations.
  struct Held {
    Held(std::shared_ptr<TlsLink> link_, std::shared_ptr<LinkOwner> owner_)
        : link(std::move(link_)), owner(std::move(owner_)) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() {
      // If a context of the user's ends in a forked child, the connection is the parent's.
      if (home.is_elsewhere()) {
        syncstate::detail::leave_behind(std::move(link), std::move(owner));
        return;
      }
      if (link) link->release();
    }

    // Null once the link has moved on: then this belongs to operations on the executor that it left, and those must not
    // touch it. Written and read on that executor only.
    std::shared_ptr<TlsLink> link;
    std::shared_ptr<LinkOwner> owner;
    const syncstate::detail::HomeProcess home = syncstate::detail::HomeProcess::here();
  };
  using HeldPtr = std::shared_ptr<Held>;

  // What a link takes along to its next executor.
  struct Arrival {
    NativeSocket socket;
    syncstate::detail::UniqueFunction<void()> then;
  };

  static constexpr std::size_t record_bytes = std::size_t{16} << 10;
  static constexpr std::size_t read_bytes_per_turn = std::size_t{64} << 10;
  // A record costs as much as so many bytes, however few it holds.
  static constexpr std::size_t least_record_bytes = 64;
  static constexpr int frames_per_turn = 4;
  static constexpr int unsent_bytes = 64 << 10;
  // More than a record: what is beyond are answers to key updates of a peer that does not read them.
  static constexpr std::size_t most_unsent_bytes = std::size_t{64} << 10;

  TlsLink(Side side, asio::ip::tcp::socket socket, std::string peer_address, std::string expected_name,
          TlsLinkOptions options, std::shared_ptr<AsioExecutor> executor)
      : side_(side),
        options_(options),
        executor_(std::move(executor)),
        peer_address_(std::move(peer_address)),
        expected_name_(std::move(expected_name)),
        socket_(std::move(socket)),
        io_(socket_->native_handle()) {
    std::error_code ignored;
    socket_->native_non_blocking(true, ignored);
    const int on = 1;
    const int handle = socket_->native_handle();
    ::setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // What a slow peer has not been sent yet stays with us as a position, not in the kernel as bytes.
    ::setsockopt(handle, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof unsent_bytes);
  }

  void use(detail::SslPtr ssl) {
    ssl_ = std::move(ssl);
    BIO* bio = detail::make_socket_bio(io_);
    SSL_set_bio(ssl_.get(), bio, bio);
    // The end of a stream without close_notify is no clean end, whatever an SSL_CTX of the user's says.
    SSL_clear_options(ssl_.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_set_max_cert_list(ssl_.get(), static_cast<long>(options_.certificate_chain_bytes));
    SSL_set_msg_callback(ssl_.get(), on_tls_message);
    SSL_set_msg_callback_arg(ssl_.get(), this);
  }

  void keep_buffers() {
    if (keeps_buffers_ || !ssl_) return;
    keeps_buffers_.emplace();
    if (keeps_buffers_->is_granted()) SSL_clear_mode(ssl_.get(), SSL_MODE_RELEASE_BUFFERS);
  }

  // What OpenSSL needs for a link, some 70 KiB during the handshake, is made for a client that has sent a ClientHello.
  // Returns false until then, and once the link is closed.
  bool has_hello(const HeldPtr& held) {
    if (ssl_) return true;
    const std::string during = "during the TLS handshake: ";
    switch (io_.gather(options_.client_hello_bytes)) {
      case detail::SocketIo::Gathered::more: wait(held); return false;
      case detail::SocketIo::Gathered::whole: break;
      case detail::SocketIo::Gathered::no_handshake:
        close(held, StateErrc::tls_failed,
              during + "the first byte is not that of a ClientHello: the peer does not speak TLS");
        return false;
      case detail::SocketIo::Gathered::too_large: refuse_hello(held); return false;
      case detail::SocketIo::Gathered::end:
        close(held, StateErrc::link_closed,
              during + (io_.error() != 0 ? std::generic_category().message(io_.error())
                                         : "the peer closed the connection without a goodbye"));
        return false;
    }
    try {
      use(context_->make_server_ssl());
    } catch (const std::exception& failure) {  // out of memory
      close(held, StateErrc::tls_failed, during + failure.what());
      return false;
    }
    context_.reset();
    return true;
  }

  void refuse_hello(const HeldPtr& held) {
    const std::size_t size = io_.refused_hello_bytes();
    const std::string what = size > 0 ? "a ClientHello of " + std::to_string(size) + " bytes"
                                      : "a ClientHello in very many records";
    close(held, StateErrc::tls_failed,
          "during the TLS handshake: " + what + ", and at most " +
              std::to_string(options_.client_hello_bytes) + " are allowed (Limits::client_hello_bytes)");
  }

  static void on_tls_message(int is_sent, int, int type, const void* data, std::size_t size, SSL* ssl,
                             void* link) {
    if (is_sent != 0 || type != SSL3_RT_HANDSHAKE || size == 0) return;
    if (static_cast<TlsLink*>(link)->takes_handshake_message(*static_cast<const unsigned char*>(data)))
      return;
    // OpenSSL would go through all of them that have come before it lets anybody else have a turn. At the end of the
    // stream it stops.
    SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
  }

  // After the handshake: a key update, or from a server a session ticket, which none of ours sends.
  bool takes_handshake_message(unsigned char kind) {
    if (state_ == State::handshaking && kind != SSL3_MT_KEY_UPDATE) return true;
    return key_updates_.add(std::chrono::steady_clock::now());
  }

  // The socket has news.
  void on_ready(const HeldPtr& held) {
    if (held->home.is_elsewhere() || state_ == State::closed || !has_hello(held)) return;
    if (state_ == State::handshaking && options_.turns) return wait_for_turn(held);
    take_ready_turn(held);
  }

  void take_ready_turn(const HeldPtr& held) {
    {
      const AsioExecutor::Handler handler(executor_);
      take_turn(held, true);
    }
    if (!held->link) return;
    // What came of it is on its way before the kernel is asked for more.
    if (state_ != State::closed && !is_in_turn_) wait(held);
  }

  // A step of the handshake takes its time: other links first.
  void wait_for_turn(const HeldPtr& held) {
    if (std::exchange(waits_for_turn_, true)) return;
    options_.turns->post([held] {
      if (!held->link) return;
      held->link->waits_for_turn_ = false;
      held->link->take_ready_turn(held);
    });
  }

  // Everything that can be done now without waiting, within limits, so that links take turns.
  void take_turn(const HeldPtr& held, bool is_ready) {
    if (state_ == State::closed) return;
    if (is_in_turn_) {  // the owner runs the Asio context inside a callback
      takes_another_turn_ = true;
      return;
    }
    is_in_turn_ = true;
    takes_another_turn_ = false;
    const bool waits_later = is_ready;  // `on_ready` does it
    if (is_ready) {
      io_.look_again();
      if (!io_.flush()) close(held, StateErrc::link_closed, std::generic_category().message(io_.error()));
    }
    if (state_ == State::handshaking) {
      shake_hands(held);
      is_ready = true;  // frames may have come together with the end of the handshake
    }
    if (state_ != State::handshaking) {
      if (state_ != State::closed && (is_ready || has_unread_)) read(held);
      if (state_ != State::closed && !moves_on_ && (is_ready || !writes_after_reading_)) write(held);
    }
    is_in_turn_ = false;
    if (state_ == State::closed) return;
    if (moves_on_) return hand_over(held);
    if (is_another_turn_due()) post_turn(held);
    if (!waits_later) wait(held);
  }

  // Leaves this executor for the next one. The caller must not touch the link any more unless `held->link` is set.
  void hand_over(const HeldPtr& held) {
    // What is pending here keeps `held`, which does not lead to the link any more; Asio cancels it, or has it in its queue.
    auto next = std::make_shared<Held>(nullptr, held->owner);
    auto arrive = std::make_unique<Arrival>();
    std::error_code error;
    arrive->socket = NativeSocket(socket_->release(error));
    if (error) return close(held, StateErrc::link_closed, error.message());
    arrive->then = std::exchange(moves_on_, {});
    socket_.reset();
    is_read_pending_ = false;
    is_write_pending_ = false;
    is_turn_posted_ = false;
    takes_another_turn_ = false;
    held->owner.reset();
    held_ = next;
    next->link = std::move(held->link);
    const auto executor = options_.next_executor;
    executor->post(
        [next = std::move(next), arrive = std::move(arrive)] { next->link->arrive(next, *arrive); });
  }

  // On the next executor.
  void arrive(const HeldPtr& held, Arrival& arrival) {
    executor_ = options_.next_executor;
    try {
      socket_ = adopt(executor_->asio_executor(), std::move(arrival.socket));
    } catch (const std::exception& failure) {  // out of memory or descriptors
      release();
      arrival.then();
      held->owner->on_closed(make_error_code(StateErrc::link_closed), failure.what());
      held->owner.reset();
      return;
    }
    arrival.then();
    take_turn(held, true);  // what this defers runs after this task
    if (held->link && state_ != State::closed) wait(held);
  }

  void shake_hands(const HeldPtr& held) {
    clear_errors();
    const int result = SSL_do_handshake(ssl_.get());
    if (result != 1) {
      if (SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ) fail(held, result);
      return;
    }
    timer_.reset();
    io_.end_guard();
    if (side_ == Side::client) keep_buffers();

    LinkInfo info;
    info.peer.address = peer_address_;
    try {
      if (side_ == Side::server) describe_peer(info.peer);
    } catch (const StateError& error) {  // a verify callback of the user's took it nevertheless
      return close(held, StateErrc::tls_failed, "the client's certificate: " + error.detail());
    }
    // RFC 9266; no context and an empty one are the same in TLS 1.3.
    constexpr std::string_view label = "EXPORTER-Channel-Binding";
    info.channel_binding.resize(32);
    if (SSL_export_keying_material(ssl_.get(), reinterpret_cast<unsigned char*>(info.channel_binding.data()),
                                   info.channel_binding.size(), label.data(), label.size(), nullptr, 0,
                                   0) != 1) {
      return close(held, StateErrc::tls_failed, "channel binding: " + detail::take_openssl_message());
    }
    state_ = State::open;
    has_more_ = true;
    held->owner->on_open(info);
  }

  // Tells about the certificate that the client showed, if it showed one and OpenSSL verified it.
  void describe_peer(Peer& peer) const {
    const detail::X509Ptr certificate(SSL_get1_peer_certificate(ssl_.get()));
    if (certificate && SSL_get_verify_result(ssl_.get()) == X509_V_OK)
      detail::describe_certificate(*certificate, peer);
  }

  void read(const HeldPtr& held) {
    has_unread_ = false;
    if (io_.unsent_bytes() > most_unsent_bytes) return;
    std::array<std::byte, record_bytes> record;  // on the stack: an idle session has no buffer
    // What the owner makes of a record goes out before the next one is looked at, where that costs no way through Asio.
    const std::size_t most = executor_ ? record_bytes : read_bytes_per_turn;
    for (std::size_t total = 0; total < most;) {
      clear_errors();
      std::size_t size = 0;
      const int result = SSL_read_ex(ssl_.get(), record.data(), record.size(), &size);
      if (key_updates_.is_exceeded()) {
        return close(held, StateErrc::tls_failed,
                     "too many key updates or session tickets: more than " +
                         std::to_string(options_.key_updates_per_minute) +
                         " in a minute (Limits::key_updates_per_minute)");
      }
      if (result != 1) {
        if (SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ) fail(held, result);
        return;
      }
      total += (std::max)(size, least_record_bytes);
      if (state_ == State::open) held->owner->on_bytes(ByteView(record.data(), size));
      if (state_ == State::closed || moves_on_) return;
      if (io_.is_drained() && SSL_has_pending(ssl_.get()) == 0) return;  // asking again would only be told so
    }
    // What OpenSSL has decrypted or read ahead raises no readiness: look again without waiting for any.
    has_unread_ = true;
  }

  void write(const HeldPtr& held) {
    for (int frame = 0; frame < frames_per_turn; ++frame) {
      if (!unsealed_.empty()) {
        unsealed_begin_ += seal(held, ByteView(unsealed_).subspan(unsealed_begin_));
        if (state_ == State::closed || unsealed_begin_ < unsealed_.size()) return;
        unsealed_ = Bytes();
        unsealed_begin_ = 0;
      }
      if (io_.unsent_bytes() > 0) return;
      if (!has_more_ || state_ == State::lingering) break;
      has_more_ = false;
      Bytes bytes = take_scratch();
      held->owner->produce(bytes);
      if (state_ == State::closed) return;
      if (!bytes.empty()) {
        has_more_ = true;  // until it gives nothing
        const std::size_t sealed = seal(held, bytes);
        if (state_ == State::closed) return;
        if (sealed < bytes.size()) {
          unsealed_.assign(bytes.begin() + static_cast<std::ptrdiff_t>(sealed), bytes.end());
        }
      }
      give_scratch(std::move(bytes));
    }
    if (state_ == State::flushing && !has_more_ && !is_writing()) {
      state_ = State::lingering;
      clear_errors();
      SSL_shutdown(ssl_.get());
    }
    if (state_ == State::lingering && io_.unsent_bytes() == 0) {
      std::error_code ignored;
      socket_->shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    }
  }

  // Record by record, until the kernel takes no more; returns how much was sealed. Of a record that OpenSSL
  // did not finish, which TLS 1.3 gives it no reason for, the rest must be offered again unchanged.
  std::size_t seal(const HeldPtr& held, ByteView bytes) {
    writes_after_reading_ = false;
    std::size_t total = 0;
    while (total < bytes.size() && io_.unsent_bytes() == 0) {
      clear_errors();
      std::size_t size = 0;
      const int result = SSL_write_ex(ssl_.get(), bytes.data() + total, bytes.size() - total, &size);
      if (result != 1) {
        writes_after_reading_ = SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ;
        if (!writes_after_reading_) fail(held, result);
        break;
      }
      total += size;
    }
    return total;
  }

  // Whether bytes of the last frame are not wholly taken by the kernel.
  [[nodiscard]] bool is_writing() const { return !unsealed_.empty() || io_.unsent_bytes() > 0; }

  // What others left in this thread's queue must not be taken for the outcome of the next call. Looking costs much less
  // than clearing.
  static void clear_errors() {
    if (ERR_peek_error() != 0) ERR_clear_error();
  }

  // Closes, for the reason for which OpenSSL did not do what it was asked.
  void fail(const HeldPtr& held, int result) {
    if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_ZERO_RETURN) {
      if (state_ == State::open) SSL_shutdown(ssl_.get());
      return close(held, StateErrc::link_closed, "closed by the peer");
    }
    const unsigned long error = detail::take_openssl_error();
    const std::string during = state_ == State::handshaking ? "during the TLS handshake: " : "";
    if (const int number = io_.error(); number != 0) {
      return close(held, StateErrc::link_closed, during + std::generic_category().message(number));
    }
    if (io_.refused_hello_bytes() > 0) return refuse_hello(held);
    if (io_.is_at_end()) {
      return close(held, StateErrc::link_closed, during + "the peer closed the connection without a goodbye");
    }
    if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
      return close(held, StateErrc::certificate_rejected, verify_failure());
    }
    if (side_ == Side::client && is_about_our_certificate(error)) {
      if (SSL_get_certificate(ssl_.get()) == nullptr) {
        return close(
            held, StateErrc::certificate_rejected,
            "the server asks for a certificate, and this client has none: use ClientTls::with_certificate");
      }
      return close(held, StateErrc::certificate_rejected,
                   "the server refused our certificate: " + detail::openssl_message(error));
    }
    close(held, StateErrc::tls_failed, during + detail::openssl_message(error));
  }

  [[nodiscard]] std::string verify_failure() const {
    return (side_ == Side::client ? "the server's certificate: " : "the client's certificate: ") +
           detail::certificate_fault(ssl_.get(), expected_name_);
  }

  static bool is_about_our_certificate(unsigned long error) {
    if (ERR_GET_LIB(error) != ERR_LIB_SSL) return false;
    switch (ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET) {
      case SSL_AD_BAD_CERTIFICATE:
      case SSL_AD_UNSUPPORTED_CERTIFICATE:
      case SSL_AD_CERTIFICATE_REVOKED:
      case SSL_AD_CERTIFICATE_EXPIRED:
      case SSL_AD_CERTIFICATE_UNKNOWN:
      case SSL_AD_UNKNOWN_CA:
      case SSL_AD_CERTIFICATE_REQUIRED: return true;
      default: return false;
    }
  }

  [[nodiscard]] bool is_another_turn_due() const {
    return has_unread_ || takes_another_turn_ || (has_more_ && !is_writing());
  }

  // The next turn is when the socket is ready, if none is due before.
  void wait(const HeldPtr& held) {
    if (io_.unsent_bytes() <= most_unsent_bytes) {
      wait_for(held, asio::ip::tcp::socket::wait_read, is_read_pending_);
    }
    if (io_.unsent_bytes() > 0) wait_for(held, asio::ip::tcp::socket::wait_write, is_write_pending_);
  }

  void wait_for(const HeldPtr& held, asio::ip::tcp::socket::wait_type what, bool& is_pending) {
    if (is_pending) return;
    is_pending = true;
    socket_->async_wait(what, [held, &is_pending](std::error_code error) {
      if (!held->link) return;
      is_pending = false;  // a member of *held->link
      if (error == asio::error::operation_aborted) return;
      held->link->on_ready(held);
    });
  }

  void post_turn(const HeldPtr& held) {
    if (is_turn_posted_) return;
    is_turn_posted_ = true;
    auto turn = [held] {
      if (!held->link) return;
      held->link->is_turn_posted_ = false;
      held->link->take_turn(held, false);
    };
    if (executor_) {
      executor_->defer(std::move(turn));
    } else {
      asio::post(socket_->get_executor(), std::move(turn));
    }
  }

  void start_timer(const HeldPtr& held, std::chrono::milliseconds time) {
    timer_ = std::make_unique<asio::steady_timer>(socket_->get_executor(), time);
    timer_->async_wait([held, limits = state_](std::error_code error) {
      if (!held->link) return;
      TlsLink& link = *held->link;
      const bool is_closing = link.state_ == State::flushing || link.state_ == State::lingering;
      if (error) return;
      if (limits == State::handshaking && link.state_ == limits) {
        link.close(held, StateErrc::peer_silent,
                   "the TLS handshake took too long");  // worth another try soon
      } else if (limits == State::flushing && is_closing) {
        link.close(held, StateErrc::link_closed, "closed by this side; the peer took too long over it");
      }
    });
  }

  // Always tells the owner later: it may be in the middle of a call to us.
  void close(const HeldPtr& held, StateErrc reason, std::string detail) {
    if (state_ == State::closed) return;
    const bool was_asked_to = state_ == State::flushing || state_ == State::lingering;
    if (was_asked_to && reason == StateErrc::link_closed) detail = "closed by this side";
    const asio::any_io_executor executor = socket_->get_executor();
    release();
    asio::post(executor, [held, reason, detail = std::move(detail)] {
      held->owner->on_closed(make_error_code(reason), detail);
      held->owner.reset();
    });
  }

  // Gives back all that belongs to Asio, OpenSSL or the kernel.
  void release() {
    state_ = State::closed;
    moves_on_ = {};
    held_.reset();
    timer_.reset();
    ssl_.reset();
    context_.reset();
    // A child that was forked off may have a copy of the socket; the peer is to learn of the end all the same.
    if (socket_) ::shutdown(socket_->native_handle(), SHUT_RDWR);
    socket_.reset();
    unsealed_ = Bytes();
  }

  // One buffer per thread to produce into, moved out while in use: a callback may run other links.
  static Bytes& scratch() {
    thread_local Bytes bytes;
    return bytes;
  }
  static Bytes take_scratch() {
    Bytes bytes = std::move(scratch());
    bytes.clear();
    return bytes;
  }
  static void give_scratch(Bytes bytes) {
    if (bytes.capacity() <= (std::size_t{256} << 10)) scratch() = std::move(bytes);
  }

  const Side side_;
  const TlsLinkOptions options_;
  std::shared_ptr<AsioExecutor> executor_;  // or null
  const std::string peer_address_;
  const std::string expected_name_;

  std::optional<KeepsBuffers> keeps_buffers_;
  State state_ = State::handshaking;
  bool has_unread_ = false;  // the turn ended before all that came was read
  bool has_more_ = false;    // produce may have something
  bool writes_after_reading_ = false;
  bool is_in_turn_ = false;
  bool takes_another_turn_ = false;
  bool is_turn_posted_ = false;
  bool is_read_pending_ = false;  // at most one wait of each kind
  bool is_write_pending_ = false;
  bool waits_for_turn_ = false;
  syncstate::detail::UniqueFunction<void()>
      moves_on_;  // set: the turn ends, and the link goes to its next executor

  std::optional<asio::ip::tcp::socket> socket_;
  detail::SocketIo io_;                        // before ssl_, whose BIO points at it
  detail::SslPtr ssl_;                         // a server's: null until the ClientHello is whole
  std::unique_ptr<const TlsContext> context_;  // a server's, until then
  std::unique_ptr<asio::steady_timer> timer_;
  // What of the last frame is not sealed yet, because the kernel is full.
  // Invariant: while anything is here or in io_, produce is not called.
  Bytes unsealed_;
  std::size_t unsealed_begin_ = 0;
  std::weak_ptr<Held> held_;
  detail::MinuteCount key_updates_{options_.key_updates_per_minute};  // of the peer
};

}  // namespace syncstate::tcp

#endif
