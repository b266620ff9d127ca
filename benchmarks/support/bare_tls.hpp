// The floor: an echo over TLS 1.3 with nothing but OpenSSL, non-blocking sockets and epoll.
#ifndef SYNCSTATE_BENCHMARKS_SUPPORT_BARE_TLS_HPP
#define SYNCSTATE_BENCHMARKS_SUPPORT_BARE_TLS_HPP

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "support/child_process.hpp"

namespace benchmarks {

using support::ChildDuty;
using support::ChildProcess;

inline constexpr std::size_t echo_bytes = 64;

namespace bare {

inline void require(bool is_done, const char* what) {
  if (!is_done) throw std::runtime_error(std::string("bare TLS: ") + what + " failed");
}

/// Closes a descriptor.
class Handle {
 public:
  explicit Handle(int handle) : handle_(handle) { require(handle >= 0, "a descriptor"); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { ::close(handle_); }
  [[nodiscard]] int get() const { return handle_; }

 private:
  int handle_;
};

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* session) const { SSL_free(session); }
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Context = std::unique_ptr<SSL_CTX, Free>;
using Session = std::unique_ptr<SSL, Free>;
using PemText = std::unique_ptr<BIO, Free>;
using Certificate = std::unique_ptr<X509, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;

inline Context make_context(const SSL_METHOD* method) {
  Context context(SSL_CTX_new(method));
  require(context && SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) == 1, "SSL_CTX_new");
  // One system call per record instead of two.
  SSL_CTX_set_read_ahead(context.get(), 1);
  return context;
}

/// One connection, driven by readiness.
class Connection {
 public:
  Connection(SSL_CTX* context, int socket)
      : socket_(socket), epoll_(::epoll_create1(0)), ssl_(SSL_new(context)) {
    const int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    require(::fcntl(socket, F_SETFL, O_NONBLOCK) == 0, "fcntl");
    epoll_event event{};
    event.events = EPOLLIN;
    require(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket, &event) == 0, "epoll_ctl");
    require(ssl_ && SSL_set_fd(ssl_.get(), socket) == 1, "SSL_set_fd");
  }

  /// Adds another descriptor, whose readiness ends `wait` with false.
  void end_with(int handle) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = 1;
    require(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, handle, &event) == 0, "epoll_ctl");
  }

  void shake_hands(bool is_server) {
    is_server ? SSL_set_accept_state(ssl_.get()) : SSL_set_connect_state(ssl_.get());
    for (int result = 0; (result = SSL_do_handshake(ssl_.get())) != 1;) {
      require(SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ && wait(), "the handshake");
    }
  }

  void send(const std::array<char, echo_bytes>& message) {
    require(SSL_write(ssl_.get(), message.data(), echo_bytes) == static_cast<int>(echo_bytes), "SSL_write");
  }

  /// False when the peer, or the descriptor of `end_with`, came to its end.
  bool receive(std::array<char, echo_bytes>& message) {
    for (;;) {
      if (!wait()) return false;
      const int result = SSL_read(ssl_.get(), message.data(), echo_bytes);
      if (result == static_cast<int>(echo_bytes)) return true;
      if (SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ) return false;
    }
  }

 private:
  bool wait() {
    epoll_event event{};
    int ready = 0;
    do {
      ready = ::epoll_wait(epoll_.get(), &event, 1, -1);
    } while (ready < 0 && errno == EINTR);
    return ready == 1 && event.data.u32 == 0;
  }

  Handle socket_;
  Handle epoll_;
  Session ssl_;
};

inline sockaddr_in loopback(in_port_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace bare

/// Serves one client of an echo.
inline void serve_echo(ChildDuty& duty, std::string_view certificate_pem, std::string_view key_pem) {
  using namespace bare;
  ::signal(SIGPIPE, SIG_IGN);
  const Context context = make_context(TLS_server_method());
  SSL_CTX_set_num_tickets(context.get(), 0);
  const PemText certificate_text(
      BIO_new_mem_buf(certificate_pem.data(), static_cast<int>(certificate_pem.size())));
  const PemText key_text(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())));
  const Certificate certificate(PEM_read_bio_X509(certificate_text.get(), nullptr, nullptr, nullptr));
  const Key key(PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, nullptr));
  require(SSL_CTX_use_certificate(context.get(), certificate.get()) == 1 &&
              SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1,
          "the certificate");

  const Handle listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  require(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
              ::listen(listener.get(), 1) == 0 &&
              ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0,
          "listening");
  duty.listens_at(std::to_string(ntohs(address.sin_port)));
  Connection connection(context.get(), ::accept(listener.get(), nullptr, nullptr));
  connection.shake_hands(true);
  connection.end_with(duty.end_handle());
  std::array<char, echo_bytes> message{};
  while (connection.receive(message)) connection.send(message);
}

/// The other end: `ping` sends a message and waits until it is back.
class EchoClient {
 public:
  explicit EchoClient(const std::string& port)
      : context_(bare::make_context(TLS_client_method())), connection_(context_.get(), connect(port)) {
    connection_.shake_hands(false);
  }

  void ping() {
    connection_.send(message_);
    bare::require(connection_.receive(message_), "receiving");
  }

 private:
  static int connect(const std::string& port) {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = bare::loopback(static_cast<in_port_t>(std::stoi(port)));
    bare::require(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
                  "connect");
    return socket;
  }

  bare::Context context_;
  bare::Connection connection_;
  std::array<char, echo_bytes> message_{};
};

}  // namespace benchmarks

#endif
