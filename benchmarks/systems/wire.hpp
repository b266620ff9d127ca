// A connection of the floor and of the peers' clients: OpenSSL on a non-blocking socket, or the bare socket.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_WIRE_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_WIRE_HPP

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace benchmarks::wire {

inline void require(bool is_done, const char* what) {
  if (!is_done) throw std::runtime_error(std::string("wire: ") + what + " failed");
}

/// Closes a descriptor.
class Handle {
 public:
  explicit Handle(int handle) : handle_(handle) { require(handle >= 0, "a descriptor"); }
  Handle(Handle&& from) noexcept : handle_(std::exchange(from.handle_, -1)) {}
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (handle_ >= 0) ::close(handle_);
  }
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

inline Context make_context(const SSL_METHOD* method) {
  Context context(SSL_CTX_new(method));
  require(context && SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) == 1, "SSL_CTX_new");
  // One system call for all records that came together instead of two for each.
  SSL_CTX_set_read_ahead(context.get(), 1);
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  return context;
}

inline Context make_client_context() { return make_context(TLS_client_method()); }

inline Context make_server_context(std::string_view certificate_pem, std::string_view key_pem) {
  Context context = make_context(TLS_server_method());
  SSL_CTX_set_num_tickets(context.get(), 0);
  const auto text = [](std::string_view pem) {
    return std::unique_ptr<BIO, Free>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  };
  const std::unique_ptr<X509, Free> certificate(
      PEM_read_bio_X509(text(certificate_pem).get(), nullptr, nullptr, nullptr));
  const std::unique_ptr<EVP_PKEY, Free> key(
      PEM_read_bio_PrivateKey(text(key_pem).get(), nullptr, nullptr, nullptr));
  require(SSL_CTX_use_certificate(context.get(), certificate.get()) == 1 &&
              SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1,
          "the certificate");
  return context;
}

inline sockaddr_in loopback(in_port_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

/// A socket that is connected to a port of this machine.
inline Handle connect(in_port_t port) {
  Handle socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  require(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
          "connect");
  return socket;
}

/// A socket that listens on a free port of this machine, and which.
inline std::pair<Handle, in_port_t> listen() {
  Handle socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  require(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
              ::listen(socket.get(), 512) == 0 &&
              ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0,
          "listening");
  return {std::move(socket), ntohs(address.sin_port)};
}

/// One connection: blocking until `stop_blocking`, driven by readiness from then on.
class Wire {
 public:
  explicit Wire(Handle socket) : socket_(std::move(socket)) {
    const int on = 1;
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }

  /// Speaks TLS from now on; without one of these calls the bare socket is used.
  void start_tls_client(SSL_CTX* context) {
    start_tls(context);
    require(SSL_connect(ssl_.get()) == 1, "the handshake");
  }
  /// The handshake comes with the first `receive`.
  void start_tls_server(SSL_CTX* context) {
    start_tls(context);
    SSL_set_accept_state(ssl_.get());
  }

  void stop_blocking() { require(::fcntl(socket_.get(), F_SETFL, O_NONBLOCK) == 0, "fcntl"); }

  [[nodiscard]] int handle() const { return socket_.get(); }

  /// While blocking: sends all of it.
  void send_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = write(bytes);
      require(sent.value_or(0) > 0, "sending");
      bytes.remove_prefix(*sent);
    }
  }
  /// While blocking: what comes, until it ends in `end`.
  std::string receive_until(std::string_view end) {
    std::string text;
    std::array<char, 4096> chunk{};
    while (!text.ends_with(end)) {
      const auto size = read(chunk.data(), chunk.size());
      require(size.value_or(0) > 0, "receiving");
      text.append(chunk.data(), *size);
    }
    return text;
  }

  /// Sends it, in one write if the system takes that; keeps what it does not take, unless the peer has gone.
  void send(std::string_view bytes) {
    if (has_rest()) {
      unsent_ += bytes;
      return;
    }
    bytes.remove_prefix(send_some(bytes));
    unsent_ = bytes;
  }
  /// True as long as `send_rest` is to be called when the socket can be written.
  [[nodiscard]] bool has_rest() const { return !unsent_.empty(); }
  void send_rest() {
    sent_ += send_some(std::string_view(unsent_).substr(sent_));
    if (sent_ < unsent_.size()) return;
    unsent_.clear();
    sent_ = 0;
  }

  /// Calls `sink(bytes)` for what has come. False once the peer has gone.
  template <class F>
  bool receive(F sink) {
    std::array<char, 16 * 1024> chunk;  // NOLINT: read into
    do {
      const auto size = read(chunk.data(), chunk.size());
      if (!size) return true;
      if (*size == 0) return false;
      sink(std::string_view(chunk.data(), *size));
    } while (ssl_ && SSL_has_pending(ssl_.get()) == 1);
    return true;
  }

 private:
  /// Returns how much the system took; all of it where nobody is there to take it.
  std::size_t send_some(std::string_view bytes) {
    std::size_t total = 0;
    while (total < bytes.size()) {
      const auto sent = write(bytes.substr(total));
      if (!sent) return total;
      if (*sent == 0) return bytes.size();
      total += *sent;
    }
    return total;
  }

  void start_tls(SSL_CTX* context) {
    ssl_.reset(SSL_new(context));
    require(ssl_ && SSL_set_fd(ssl_.get(), socket_.get()) == 1, "SSL_set_fd");
  }

  /// Nothing if the socket is not ready; 0 for the end.
  std::optional<std::size_t> read(char* into, std::size_t size) {
    if (!ssl_) return done(::recv(socket_.get(), into, size, 0));
    const int result = SSL_read(ssl_.get(), into, static_cast<int>(size));
    return result > 0 ? static_cast<std::size_t>(result) : tls_done(result);
  }
  std::optional<std::size_t> write(std::string_view bytes) {
    if (!ssl_) return done(::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
    const int result = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    return result > 0 ? static_cast<std::size_t>(result) : tls_done(result);
  }

  static std::optional<std::size_t> done(ssize_t result) {
    if (result >= 0) return static_cast<std::size_t>(result);
    if (errno == EAGAIN) return std::nullopt;
    return 0;
  }
  std::optional<std::size_t> tls_done(int result) {
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return std::nullopt;
    ERR_clear_error();
    return 0;
  }

  Handle socket_;
  std::unique_ptr<SSL, Free> ssl_;
  std::string unsent_;
  std::size_t sent_ = 0;  // of `unsent_`
};

}  // namespace benchmarks::wire

#endif
