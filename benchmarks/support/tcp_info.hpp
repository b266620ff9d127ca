// What the kernel knows of TCP connections.
#ifndef SYNCSTATE_BENCHMARKS_SUPPORT_TCP_INFO_HPP
#define SYNCSTATE_BENCHMARKS_SUPPORT_TCP_INFO_HPP

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>

namespace benchmarks {

/// Bytes that came over a TCP connection: what it carries, TLS included, TCP and IP headers not.
[[nodiscard]] inline double received_bytes(int handle) {
  // glibc's tcp_info ends before the field, which the kernel has had since 4.1; its place is fixed.
  constexpr std::size_t bytes_received_at = 128;
  std::array<char, 256> info{};
  socklen_t size = info.size();
  if (::getsockopt(handle, IPPROTO_TCP, TCP_INFO, info.data(), &size) != 0 || size < bytes_received_at + 8) {
    throw std::runtime_error("TCP_INFO can't be read");
  }
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, info.data() + bytes_received_at, sizeof bytes);
  return static_cast<double>(bytes);
}

/// The descriptors of this process that are TCP sockets with a peer.
[[nodiscard]] inline std::set<int> tcp_connections() {
  std::set<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    const int handle = std::stoi(entry.path().filename().string());
    if (::getpeername(handle, reinterpret_cast<sockaddr*>(&peer), &size) == 0 && peer.ss_family == AF_INET) {
      found.insert(handle);
    }
  }
  return found;
}

}  // namespace benchmarks

#endif
