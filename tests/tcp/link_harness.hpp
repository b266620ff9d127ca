// What the tests of links share: an owner that remembers, a peer that misbehaves, a loop that waits.
#ifndef SYNCSTATE_TESTS_TCP_LINK_HARNESS_HPP
#define SYNCSTATE_TESTS_TCP_LINK_HARNESS_HPP

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "support/certificates.hpp"
#include "syncstate/link.hpp"
#include "syncstate/tcp/acceptor.hpp"
#include "syncstate/tcp/native_socket.hpp"
#include "syncstate/tcp/test_data.hpp"
#include "syncstate/tcp/tls_context.hpp"
#include "syncstate/tcp/tls_link.hpp"

#include <asio/io_context.hpp>

namespace harness {

using namespace std::chrono_literals;
namespace ss = syncstate;
using ss::tcp::ClientTls;
using ss::tcp::NativeSocket;
using ss::tcp::ServerTls;
using ss::tcp::TlsContext;
using ss::tcp::TlsLink;

inline TlsContext server_context() {
  return TlsContext(
      ServerTls::from_pem(ss::tcp::test_data::certificate_pem, ss::tcp::test_data::private_key_pem));
}
inline TlsContext client_context() {
  return TlsContext(ClientTls::from_pem(ss::tcp::test_data::certificate_pem));
}

/// Two ends of a TCP connection over the loopback.
struct SocketPair {
  NativeSocket client;
  NativeSocket server;
};
inline SocketPair connected_pair(int send_buffer_bytes = 0) {
  const auto check = [](bool is_good) {
    if (!is_good) throw std::system_error(errno, std::generic_category());
  };
  NativeSocket listener = ss::tcp::listen_on({"127.0.0.1", 0});
  const ss::tcp::SocketAddress address = ss::tcp::local_address(listener.get());
  SocketPair pair;
  pair.client = NativeSocket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (send_buffer_bytes > 0) {  // and the receivers', which is set before connecting
    check(::setsockopt(pair.client.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof(int)) == 0);
    check(::setsockopt(pair.client.get(), SOL_SOCKET, SO_RCVBUF, &send_buffer_bytes, sizeof(int)) == 0);
    check(::setsockopt(listener.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof(int)) == 0);
    check(::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &send_buffer_bytes, sizeof(int)) == 0);
  }
  check(::connect(pair.client.get(), address.data(), address.size) == 0);
  pair.server = NativeSocket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  check(pair.server.is_open());
  return pair;
}

/// Remembers all it is told, and sends what is put into `outbox`.
struct Owner final : ss::LinkOwner {
  void on_open(const ss::LinkInfo& given) override {
    ++opened;
    info = given;
    if (when_open) when_open();
  }
  void on_bytes(ss::ByteView bytes) override {
    received += ss::as_string_view(bytes);
    if (when_bytes) when_bytes();
  }
  void produce(ss::Bytes& out) override {
    ++produced;
    const std::size_t size = std::min(outbox.size(), frame_bytes);
    const auto bytes = ss::as_byte_view(std::string_view(outbox).substr(0, size));
    out.insert(out.end(), bytes.begin(), bytes.end());
    outbox.erase(0, size);
    if (when_produce) when_produce();
  }
  void on_closed(std::error_code given, const std::string& text) override {
    ++closed;
    reason = given;
    detail = text;
    if (when_closed) when_closed();
  }

  std::size_t frame_bytes = std::size_t{64} << 10;
  int opened = 0;
  int produced = 0;
  int closed = 0;
  ss::LinkInfo info;
  std::string received;
  std::string outbox;
  std::error_code reason;
  std::string detail;
  std::function<void()> when_open;
  std::function<void()> when_bytes;
  std::function<void()> when_produce;
  std::function<void()> when_closed;
};

/// Plain OpenSSL at the other end of a socket, over memory, so that a test decides what travels when.
class RawPeer {
 public:
  /// A client that verifies nothing, or a server with the test certificate. Give `context` for anything else.
  RawPeer(NativeSocket socket, bool is_server, std::shared_ptr<SSL_CTX> context = nullptr)
      : socket_(std::move(socket)), context_(context ? std::move(context) : make_context(is_server)) {
    ssl_.reset(SSL_new(context_.get()));
    incoming_ = BIO_new(BIO_s_mem());
    outgoing_ = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl_.get(), incoming_, outgoing_);
    is_server ? SSL_set_accept_state(ssl_.get()) : SSL_set_connect_state(ssl_.get());
  }

  static std::shared_ptr<SSL_CTX> make_context(bool is_server) {
    std::shared_ptr<SSL_CTX> context(SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method()),
                                     SSL_CTX_free);
    if (is_server) {
      const auto bio = [](std::string_view pem) {
        return std::unique_ptr<BIO, decltype(&BIO_free)>(
            BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
      };
      const std::unique_ptr<X509, decltype(&X509_free)> certificate(
          PEM_read_bio_X509(bio(ss::tcp::test_data::certificate_pem).get(), nullptr, nullptr, nullptr),
          X509_free);
      const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
          PEM_read_bio_PrivateKey(bio(ss::tcp::test_data::private_key_pem).get(), nullptr, nullptr, nullptr),
          EVP_PKEY_free);
      SSL_CTX_use_certificate(context.get(), certificate.get());
      SSL_CTX_use_PrivateKey(context.get(), key.get());
      SSL_CTX_set_num_tickets(context.get(), 0);
    }
    return context;
  }

  [[nodiscard]] SSL* ssl() { return ssl_.get(); }
  [[nodiscard]] bool is_open() const { return SSL_is_init_finished(ssl_.get()) == 1; }
  [[nodiscard]] int handle() const { return socket_.get(); }

  /// Takes what the socket has; reads all there is to read into `received`. Never blocks.
  void take() {
    std::array<char, 4096> buffer;
    for (;;) {
      const ssize_t size =
          ::recv(socket_.get(), buffer.data(), std::min(buffer.size(), read_limit), MSG_DONTWAIT);
      if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) is_at_end = true;
      if (size <= 0) break;
      BIO_write(incoming_, buffer.data(), static_cast<int>(size));
    }
    think();
  }

  /// Does what OpenSSL can do with what came so far.
  void think() {
    std::array<char, 4096> buffer;
    ERR_clear_error();
    if (!is_open() && SSL_do_handshake(ssl_.get()) != 1) return;
    for (int size = 1; size > 0;) {
      ERR_clear_error();
      size = SSL_read(ssl_.get(), buffer.data(), static_cast<int>(buffer.size()));
      if (size > 0) received.append(buffer.data(), static_cast<std::size_t>(size));
      if (size <= 0 && SSL_get_error(ssl_.get(), size) == SSL_ERROR_ZERO_RETURN) saw_close_notify = true;
    }
  }

  /// Seals `text`; `flush` sends it.
  void write(std::string_view text) { SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size())); }

  /// Sends at most `limit` of the bytes that wait; false if none do, or the socket is full.
  bool flush(std::size_t limit = ~std::size_t{0}) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(outgoing_, &data);
    unsent_.append(data, static_cast<std::size_t>(size));
    (void)BIO_reset(outgoing_);
    const ssize_t sent =
        ::send(socket_.get(), unsent_.data(), std::min(unsent_.size(), limit), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0) return false;
    if (keeps_sent) all_sent.append(unsent_, 0, static_cast<std::size_t>(sent));
    unsent_.erase(0, static_cast<std::size_t>(sent));
    return true;
  }

  [[nodiscard]] std::size_t unsent_bytes() const { return unsent_.size(); }

  void close() { const NativeSocket gone = std::move(socket_); }
  /// Gives the socket away, open as it is.
  [[nodiscard]] NativeSocket take_socket() { return std::move(socket_); }

  std::string received;
  bool saw_close_notify = false;
  bool is_at_end = false;  // or broken
  bool keeps_sent = false;
  std::string all_sent;  // on the wire, if it is to be kept
  std::size_t read_limit = 4096;

 private:
  NativeSocket socket_;
  std::shared_ptr<SSL_CTX> context_;
  ss::tcp::detail::SslPtr ssl_;
  BIO* incoming_ = nullptr;
  BIO* outgoing_ = nullptr;
  std::string unsent_;
};

/// Runs `io` (unless it should rest) and `step` until `is_done()`; false if that takes ten seconds.
inline bool run_until(asio::io_context& io, const std::function<bool()>& is_done,
                      const std::function<void()>& step = {}, bool runs_io = true) {
  const auto limit = std::chrono::steady_clock::now() + 10s;
  while (!is_done()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    io.restart();
    if (step) {
      step();
      if (runs_io) io.poll();
    } else {
      io.run_one_for(1s);
    }
  }
  return true;
}

/// `size` bytes that tell where they belong.
inline std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + (i * 31 + i / 251) % 26);
  return text;
}

/// A client's and a server's link over one connection.
struct LinkPair {
  explicit LinkPair(asio::io_context& io, TlsContext server_tls = server_context(),
                    TlsContext client_tls = client_context(), const std::string& host = "localhost",
                    int buffer_bytes = 0) {
    SocketPair pair = connected_pair(buffer_bytes);
    server = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), server_tls,
                                  "10.0.0.1");
    client = TlsLink::make_client(ss::tcp::adopt(io.get_executor(), std::move(pair.client)), client_tls, host,
                                  "10.0.0.2");
    server->start(server_owner);
    client->start(client_owner);
  }

  [[nodiscard]] bool is_open() const { return server_owner->opened == 1 && client_owner->opened == 1; }

  std::shared_ptr<Owner> server_owner = std::make_shared<Owner>();
  std::shared_ptr<Owner> client_owner = std::make_shared<Owner>();
  std::shared_ptr<TlsLink> server;
  std::shared_ptr<TlsLink> client;
};

}  // namespace harness

#endif
