// What attackers are made of: raw connections from any address of 127.0.0.0/8, and TLS clients that say what they like.
#ifndef SYNCSTATE_TESTS_HOSTILE_ATTACKER_HPP
#define SYNCSTATE_TESTS_HOSTILE_ATTACKER_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/proof.hpp"
#include "syncstate/tcp/endpoint.hpp"
#include "syncstate/tcp/native_socket.hpp"
#include "tcp/link_harness.hpp"

namespace hostile {

using namespace std::chrono_literals;
namespace ss = syncstate;
namespace protocol = syncstate::protocol;
using ss::tcp::NativeSocket;

constexpr auto patience = 30s;  // a limit, not a pause
constexpr std::string_view password = "a password";

/// Address number `i` of many, and none that a client uses who did not choose: 127.1.0.1, 127.1.0.2, ...
inline std::string address_number(std::size_t i) {
  return "127." + std::to_string(1 + i / 64'000) + "." + std::to_string(i / 250 % 256) + "." +
         std::to_string(1 + i % 250);
}

/// Connects from `from`, any port. Blocks, for loopback takes every connection while the queue has room.
/// Errors: std::system_error.
inline NativeSocket connect_from(const std::string& from, const std::string& endpoint) {
  const auto check = [](bool is_done, const char* what) {
    if (!is_done) throw std::system_error(errno, std::generic_category(), what);
  };
  const ss::tcp::Endpoint server = ss::tcp::parse_endpoint(endpoint);
  NativeSocket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  check(socket.is_open(), "socket");
  const int on = 1;
  // Without it a bound source keeps its port for itself, and the ports of one address serve all attackers.
  check(::setsockopt(socket.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == 0, "setsockopt");
  check(::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "setsockopt");
  // Ends with a reset instead of lingering, or thousands of attackers would use up the ports of the machine.
  const linger reset{1, 0};
  check(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0, "setsockopt");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  check(::inet_pton(AF_INET, from.c_str(), &address.sin_addr) == 1, "inet_pton");
  check(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "bind");
  check(::inet_pton(AF_INET, server.host.c_str(), &address.sin_addr) == 1, "inet_pton");
  address.sin_port = htons(server.port);
  check(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
  return socket;
}

/// Waits until the other end has closed, reading what comes; false if it does not within `limit`.
inline bool waits_for_close(const NativeSocket& socket, std::chrono::milliseconds limit = patience) {
  const auto until = std::chrono::steady_clock::now() + limit;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) return true;
    if (size > 0) continue;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd ready{socket.get(), POLLIN, 0};
    ::poll(&ready, 1, static_cast<int>(left.count()));
  }
}

/// Whether the other end has closed by now.
inline bool is_closed(const NativeSocket& socket) { return waits_for_close(socket, 0ms); }

/// Sends all of it, or as much as the other end takes; false if that closed.
inline bool send_raw(const NativeSocket& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

/// One frame that a server sent.
struct Received {
  protocol::FrameKind kind;
  ss::Bytes body;
};

/// A TLS client by hand: it trusts everybody, and says what it is told to.
class Attacker {
 public:
  Attacker(const std::string& from, const std::string& endpoint, std::shared_ptr<SSL_CTX> context = nullptr)
      : peer_(connect_from(from, endpoint), false, context ? std::move(context) : shared_context()) {}

  /// Does the TLS handshake; false if the server ends it.
  bool shake_hands() {
    peer_.think();
    return wait([this] { return peer_.is_open(); }) && flush();  // our last word opens the server's end
  }

  /// The proof that this channel asks for.
  [[nodiscard]] protocol::Proof proof(std::string_view word = password) {
    constexpr std::string_view label = "EXPORTER-Channel-Binding";
    ss::Bytes binding(32);
    SSL_export_keying_material(peer_.ssl(), reinterpret_cast<unsigned char*>(binding.data()), binding.size(),
                               label.data(), label.size(), nullptr, 0, 0);
    return protocol::make_proof(word, protocol::ProofRole::client, binding);
  }

  /// Shakes hands and proves itself; false if the server does not say welcome, and then `goodbye` tells why.
  bool log_in(std::string_view word = password) {
    if (!shake_hands()) return false;
    protocol::Hello hello;
    hello.proof = proof(word);
    send(hello);
    return wait_for<protocol::Welcome>().has_value();
  }

  /// Seals a frame, and sends it as far as the server takes it by and by.
  template <class Message>
  void send(const Message& message) {
    ss::Bytes bytes;
    protocol::append_frame(bytes, message);
    send_bytes(bytes);
  }

  /// Seals any bytes, and sends them. False once the server has closed.
  bool send_bytes(ss::ByteView bytes) {
    constexpr std::size_t piece = 16'384;  // a record each
    while (!bytes.empty() && !peer_.is_at_end) {
      const ss::ByteView first = bytes.first(std::min(piece, bytes.size()));
      bytes = bytes.subspan(first.size());
      offer(first);
      if (!flush()) return false;
    }
    return !peer_.is_at_end;
  }
  bool send_bytes(std::initializer_list<int> values) {
    ss::Bytes bytes;
    for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
    return send_bytes(bytes);
  }

  /// Seals bytes and does not wait until they are sent.
  void offer(ss::ByteView bytes) {
    if (keeps_plain) plain_sent.insert(plain_sent.end(), bytes.begin(), bytes.end());
    peer_.write(ss::as_string_view(bytes));
  }
  template <class Message>
  void offer_frame(const Message& message) {
    ss::Bytes bytes;
    protocol::append_frame(bytes, message);
    offer(bytes);
  }

  /// Sends what was sealed; waits for room, reading only if it usually does. False once the server has closed.
  bool flush() {
    return wait([this] {
      while (peer_.flush()) {
      }
      return peer_.unsent_bytes() == 0;
    });
  }
  /// Sends what the kernel takes at once; returns what is left.
  std::size_t send_what_fits() {
    while (peer_.flush()) {
    }
    return peer_.unsent_bytes();
  }

  /// The next frame; none once the server has closed.
  std::optional<Received> next_frame() {
    std::optional<Received> frame;
    wait([&] {
      parse();
      if (next_ == frames_.size()) return false;
      frame = std::move(frames_[next_++]);
      return true;
    });
    return frame;
  }

  /// Reads until a message of this kind came; none once the server has closed.
  template <class Message>
  std::optional<Message> wait_for() {
    while (auto frame = next_frame()) {
      if (frame->kind == protocol::FrameKind::goodbye && Message::kind != protocol::FrameKind::goodbye) {
        goodbye_ = protocol::decode_body<protocol::Goodbye>(frame->body);
        return std::nullopt;
      }
      if (frame->kind == Message::kind) {
        body_ = std::move(frame->body);  // views in the message look at it
        return protocol::decode_body<Message>(body_);
      }
    }
    return std::nullopt;
  }

  /// Reads until the server has closed; the reason it gave, none if it closed without a word.
  std::optional<ss::StateErrc> goodbye() {
    while (!goodbye_) {
      const auto last = wait_for<protocol::Goodbye>();
      if (!last) break;
      goodbye_ = *last;
    }
    if (goodbye_) return goodbye_->reason;
    return std::nullopt;
  }

  /// Waits until the server has closed; false if it does not.
  bool waits_for_close() {
    wait([] { return false; });
    return peer_.is_at_end;
  }

  /// Whether the server has closed by now. Reads.
  [[nodiscard]] bool is_closed() {
    peer_.take();
    return peer_.is_at_end;
  }

  /// Ends our side of the connection; the server's answer can still be read.
  void end_sending() { ::shutdown(peer_.handle(), SHUT_WR); }

  [[nodiscard]] harness::RawPeer& peer() { return peer_; }

  bool reads = true;  ///< whether waiting for room to send reads what comes
  bool keeps_plain = false;
  ss::Bytes plain_sent;

 private:
  static std::shared_ptr<SSL_CTX> shared_context() {
    static const std::shared_ptr<SSL_CTX> context = harness::RawPeer::make_context(false);
    return context;
  }

  /// Sends and reads until `is_done()`; false once the server has closed, or patience is at its end.
  template <class F>
  bool wait(F is_done) {
    const auto until = std::chrono::steady_clock::now() + patience;
    for (;;) {
      if (is_done()) return true;
      while (peer_.flush()) {
      }
      if (peer_.is_at_end) return false;
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      if (left.count() <= 0) return false;
      const int what = (reads ? POLLIN : 0) | (peer_.unsent_bytes() > 0 ? POLLOUT : 0);
      pollfd ready{peer_.handle(), static_cast<short>(what), 0};
      ::poll(&ready, 1, static_cast<int>(left.count()));
      if (reads) {
        peer_.take();
      } else if ((ready.revents & (POLLERR | POLLHUP)) != 0) {
        peer_.is_at_end = true;
      }
    }
  }

  void parse() {
    if (peer_.received.empty()) return;
    reader_.feed(ss::as_byte_view(peer_.received), [this](const protocol::Frame& frame) {
      frames_.push_back({frame.kind, ss::Bytes(frame.body.begin(), frame.body.end())});
      return true;
    });
    peer_.received.clear();
  }

  harness::RawPeer peer_;
  protocol::FrameReader reader_{std::numeric_limits<std::size_t>::max()};
  std::vector<Received> frames_;
  std::size_t next_ = 0;
  ss::Bytes body_;
  std::optional<protocol::Goodbye> goodbye_;
};

}  // namespace hostile

#endif
