// A socket handle with an owner, and addresses as text.
#ifndef SYNCSTATE_TCP_NATIVE_SOCKET_HPP
#define SYNCSTATE_TCP_NATIVE_SOCKET_HPP

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "syncstate/async/asio.hpp"
#include "syncstate/tcp/endpoint.hpp"

#include <asio/ip/tcp.hpp>

namespace syncstate::tcp {

/// Owns a native socket handle, and closes it.
class NativeSocket {
 public:
  NativeSocket() = default;
  explicit NativeSocket(int handle) : handle_(handle) {}
  NativeSocket(NativeSocket&& other) noexcept : handle_(std::exchange(other.handle_, -1)) {}
  NativeSocket& operator=(NativeSocket&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~NativeSocket() {
    if (handle_ >= 0) ::close(handle_);
  }

  [[nodiscard]] int get() const { return handle_; }
  [[nodiscard]] bool is_open() const { return handle_ >= 0; }
  /// Gives the handle away.
  [[nodiscard]] int release() { return std::exchange(handle_, -1); }

 private:
  int handle_ = -1;
};

/// A socket address of any family, as the system calls want it.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);

  [[nodiscard]] sockaddr* data() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] const sockaddr* data() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }

  friend bool operator==(const SocketAddress& a, const SocketAddress& b) {
    return a.size == b.size && std::memcmp(&a.storage, &b.storage, a.size) == 0;
  }
};

/// Numeric host and port. A v4 address mapped into v6 is written as v4, so that a host has one name.
inline Endpoint numeric_endpoint(const SocketAddress& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.family() == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address.storage, sizeof v4);
    ::inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
    return {text.data(), ntohs(v4.sin_port)};
  }
  if (address.family() == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address.storage, sizeof v6);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
      ::inet_ntop(AF_INET, v6.sin6_addr.s6_addr + 12, text.data(), text.size());
      return {text.data(), ntohs(v6.sin6_port)};
    }
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
    std::string host = text.data();
    if (v6.sin6_scope_id != 0) {
      std::array<char, IF_NAMESIZE> name{};
      host += '%';
      host += ::if_indextoname(v6.sin6_scope_id, name.data()) != nullptr ? std::string(name.data())
                                                                         : std::to_string(v6.sin6_scope_id);
    }
    return {std::move(host), ntohs(v6.sin6_port)};
  }
  return {};
}

/// What limits count by: the address as text, but of a v6 address only its first 64 bits, for whoever has one of these
/// has as a rule all that share them.
inline std::string network_of(const Endpoint& endpoint) {
  in6_addr v6{};
  if (::inet_pton(AF_INET6, endpoint.host.substr(0, endpoint.host.find('%')).c_str(), &v6) != 1) {
    return endpoint.host;
  }
  // On one link everybody shares these bits; and behind a translator (RFC 6052) a v4 address says who it is.
  if (IN6_IS_ADDR_LINKLOCAL(&v6)) return endpoint.host;
  constexpr std::array<std::uint8_t, 12> translated{0, 0x64, 0xff, 0x9b};
  if (std::equal(translated.begin(), translated.end(), std::begin(v6.s6_addr))) {
    std::array<char, INET_ADDRSTRLEN> v4{};
    ::inet_ntop(AF_INET, std::begin(v6.s6_addr) + 12, v4.data(), v4.size());
    return v4.data();
  }
  std::fill(std::begin(v6.s6_addr) + 8, std::end(v6.s6_addr), std::uint8_t{0});
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET6, &v6, text.data(), text.size());
  return std::string(text.data()) + "/64";
}

/// The address a socket is bound to; empty if it has none.
inline SocketAddress local_address(int handle) {
  SocketAddress address;
  if (::getsockname(handle, address.data(), &address.size) != 0) return {};
  return address;
}

/// Puts a native socket under Asio's care.
/// Errors: std::system_error of Asio (out of memory or descriptors).
inline asio::ip::tcp::socket adopt(const asio::any_io_executor& executor, NativeSocket socket) {
  const bool is_v6 = local_address(socket.get()).family() == AF_INET6;
  asio::ip::tcp::socket adopted(executor);
  adopted.assign(is_v6 ? asio::ip::tcp::v6() : asio::ip::tcp::v4(), socket.get());
  (void)socket.release();
  return adopted;
}

}  // namespace syncstate::tcp

#endif
