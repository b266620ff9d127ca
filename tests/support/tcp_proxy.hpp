// A TCP proxy on loopback that a test can cut: what a lost link looks like to both ends.
#ifndef SYNCSTATE_TESTS_SUPPORT_TCP_PROXY_HPP
#define SYNCSTATE_TESTS_SUPPORT_TCP_PROXY_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// Passes bytes between its clients and one port, until it is told to cut.
///
/// Threads: any member from any thread; two threads of its own a connection.
class TcpProxy {
 public:
  explicit TcpProxy(std::uint16_t target_port) : target_port_(target_port) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (::bind(listener_, as_address(address), size) != 0 || ::listen(listener_, 16) != 0 ||
        ::getsockname(listener_, as_address(address), &size) != 0) {
      throw std::runtime_error("the proxy can't listen");
    }
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { accept_all(); });
  }
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;
  ~TcpProxy() {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
    }
    ::shutdown(listener_, SHUT_RDWR);
    accepting_.join();
    cut();
    for (std::thread& pump : pumps_) pump.join();
    ::close(listener_);
    for (const int socket : sockets_) ::close(socket);
  }

  [[nodiscard]] std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }

  /// Breaks every connection. New ones are made as before, unless `set_closed(true)`.
  void cut() {
    const std::lock_guard lock(mutex_);
    for (const int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
  }

  /// While closed, connections are accepted and broken at once.
  void set_closed(bool is_closed) {
    const std::lock_guard lock(mutex_);
    is_closed_ = is_closed;
  }

 private:
  static sockaddr* as_address(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }
  static sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  void accept_all() {
    for (;;) {
      const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) return;
      const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in address = loopback(target_port_);
      const bool is_connected = ::connect(server, as_address(address), sizeof address) == 0;
      const std::lock_guard lock(mutex_);
      if (is_ending_ || is_closed_ || !is_connected) {
        ::close(client);
        ::close(server);
        continue;
      }
      sockets_.push_back(client);
      sockets_.push_back(server);
      pumps_.emplace_back([client, server] { pump(client, server); });
      pumps_.emplace_back([client, server] { pump(server, client); });
    }
  }

  static void pump(int from, int to) {
    std::vector<char> buffer(64 * 1024);
    for (;;) {
      const ssize_t got = ::recv(from, buffer.data(), buffer.size(), 0);
      if (got <= 0) break;
      for (ssize_t sent = 0; sent < got;) {
        const ssize_t n =
            ::send(to, buffer.data() + sent, static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += n;
      }
    }
    ::shutdown(from, SHUT_RDWR);
    ::shutdown(to, SHUT_RDWR);
  }

  std::uint16_t target_port_;
  std::uint16_t port_ = 0;
  int listener_ = -1;
  std::thread accepting_;
  std::mutex mutex_;
  bool is_ending_ = false;
  bool is_closed_ = false;
  std::vector<int> sockets_;
  std::vector<std::thread> pumps_;
};

}  // namespace support

#endif
