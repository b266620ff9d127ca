// A TLS server that knows the password and sends whatever a test likes, on a thread of its own.
#ifndef SYNCSTATE_TESTS_HOSTILE_EVIL_SERVER_HPP
#define SYNCSTATE_TESTS_HOSTILE_EVIL_SERVER_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/proof.hpp"
#include "syncstate/tcp/native_socket.hpp"
#include "syncstate/tcp/test_data.hpp"

namespace hostile {

/// One connection of an `EvilServer`, behind the handshake. Blocks; every member fails once the client has closed.
class EvilLink {
 public:
  struct Received {
    syncstate::protocol::FrameKind kind;
    syncstate::Bytes body;
  };

  explicit EvilLink(SSL* ssl) : ssl_(ssl) {}

  /// False once the client takes no more.
  bool send_bytes(syncstate::ByteView bytes) {
    while (!bytes.empty()) {
      const int sent =
          SSL_write(ssl_, bytes.data(), static_cast<int>(std::min<std::size_t>(bytes.size(), 1 << 20)));
      if (sent <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
    return true;
  }
  template <class Message>
  bool send(const Message& message) {
    syncstate::Bytes frame;
    syncstate::protocol::append_frame(frame, message);
    return send_bytes(frame);
  }

  /// The next frame of this kind; throws if none comes.
  template <class Message>
  Message await() {
    for (;;) {
      while (next_ < received_.size()) {
        const Received& frame = received_[next_++];
        if (frame.kind == Message::kind) return syncstate::protocol::decode_body<Message>(frame.body);
      }
      std::array<std::byte, 16'384> buffer;
      const int size = SSL_read(ssl_, buffer.data(), static_cast<int>(buffer.size()));
      if (size <= 0) throw std::runtime_error("the client has closed");
      frames_.feed(syncstate::ByteView(buffer).first(static_cast<std::size_t>(size)),
                   [this](const syncstate::protocol::Frame& frame) {
                     received_.push_back({frame.kind, {frame.body.begin(), frame.body.end()}});
                     return true;
                   });
    }
  }

  /// Proves itself as an honest server does.
  void welcome(std::string_view secret) {
    await<syncstate::protocol::Hello>();
    constexpr std::string_view label = "EXPORTER-Channel-Binding";
    syncstate::Bytes binding(32);
    if (SSL_export_keying_material(ssl_, reinterpret_cast<unsigned char*>(binding.data()), binding.size(),
                                   label.data(), label.size(), nullptr, 0, 0) != 1) {
      throw std::runtime_error("no channel binding");
    }
    syncstate::protocol::Welcome welcome;
    welcome.events_in_flight = welcome.event_bytes_in_flight = ~std::uint64_t{0};
    welcome.proof = syncstate::protocol::make_proof(secret, syncstate::protocol::ProofRole::server, binding);
    send(welcome);
  }

 private:
  SSL* ssl_;
  syncstate::protocol::FrameReader frames_{std::numeric_limits<std::size_t>::max()};
  std::vector<Received> received_;
  std::size_t next_ = 0;
};

/// Runs `script` on each connection in turn, once it is secured; a script that throws ends its connection.
class EvilServer {
 public:
  using Script = std::function<void(EvilLink&)>;

  explicit EvilServer(Script script)
      : script_(std::move(script)), context_(SSL_CTX_new(TLS_server_method()), SSL_CTX_free) {
    use_test_certificate();
    listener_ = syncstate::tcp::NativeSocket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
        ::listen(listener_.get(), 16) != 0 ||
        ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no socket to listen on");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~EvilServer() {
    is_stopped_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);
    ::shutdown(connection_, SHUT_RDWR);
    thread_.join();
  }

  [[nodiscard]] std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  void use_test_certificate() {
    namespace data = syncstate::tcp::test_data;
    const auto bio_of = [](std::string_view pem) {
      return std::unique_ptr<BIO, decltype(&BIO_free)>(
          BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
    };
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(
        PEM_read_bio_X509(bio_of(data::certificate_pem).get(), nullptr, nullptr, nullptr), X509_free);
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
        PEM_read_bio_PrivateKey(bio_of(data::private_key_pem).get(), nullptr, nullptr, nullptr),
        EVP_PKEY_free);
    if (SSL_CTX_use_certificate(context_.get(), certificate.get()) != 1 ||
        SSL_CTX_use_PrivateKey(context_.get(), key.get()) != 1) {
      throw std::runtime_error("the test certificate can't be used");
    }
  }

  void run() {
    // Writing to a client that has closed is an error for this thread, and no signal that ends the process.
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    while (!is_stopped_) {
      const syncstate::tcp::NativeSocket socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!socket.is_open()) continue;
      connection_ = socket.get();
      const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context_.get()), SSL_free);
      SSL_set_fd(ssl.get(), socket.get());
      if (!is_stopped_ && SSL_accept(ssl.get()) == 1) {
        try {
          EvilLink link(ssl.get());
          script_(link);
        } catch (const std::exception&) {
          // The client has closed, which is what it should do.
        }
      }
      connection_ = -1;
    }
  }

  Script script_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  syncstate::tcp::NativeSocket listener_;
  std::uint16_t port_ = 0;
  std::atomic<int> connection_{-1};
  std::atomic<bool> is_stopped_{false};
  std::thread thread_;
};

}  // namespace hostile

#endif
