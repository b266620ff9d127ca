// A TCP proxy that does to its connections what bad networks do.
#ifndef SYNCSTATE_TESTS_PROCESSES_FAULT_PROXY_HPP
#define SYNCSTATE_TESTS_PROCESSES_FAULT_PROXY_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "processes/loop.hpp"

namespace processes {

/// Where a server listens.
struct Address {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
};

/// The way bytes go through a proxy.
enum class Way : std::uint8_t { to_server, to_client };

/// How a connection ends.
enum class Cut : std::uint8_t {
  reset,        ///< both sides learn it the hard way
  close,        ///< both sides read an end
  server_only,  ///< the client is told nothing: its bytes vanish
  client_only   ///< the server is told nothing
};

/// Passes bytes between its clients and one server, and delays, stalls, cuts, crumbles or refuses.
///
/// Faults hold for all its connections, of which a client has one at a time. A fault with an end goes away by itself.
/// Threads : those of the loop: one.
/// Lifetime: the loop must not run when it is gone.
class FaultProxy {
 public:
  FaultProxy(Loop& loop, Address server) : loop_(loop), server_(std::move(server)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in address = ip_address({});
    socklen_t size = sizeof address;
    if (::bind(listener_, generic(address), size) != 0 || ::listen(listener_, 16) != 0 ||
        ::getsockname(listener_, generic(address), &size) != 0) {
      throw std::system_error(errno, std::generic_category(), "a proxy can't listen");
    }
    port_ = ntohs(address.sin_port);
    loop_.watch(listener_, POLLIN, [this] { accept_one(); });
  }
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;
  ~FaultProxy() {
    while (!links_.empty()) drop(links_.begin()->first, Cut::reset);
    loop_.forget(listener_);
    ::close(listener_);
  }

  [[nodiscard]] std::uint16_t port() const { return port_; }
  /// New connections go there.
  void set_server(Address server) { server_ = std::move(server); }
  /// How many connections were broken, refused or swallowed.
  [[nodiscard]] unsigned cuts() const { return cuts_; }

  void cut_now(Cut cut) {
    while (const auto id = first_whole()) {
      ++cuts_;
      drop(*id, cut);
    }
  }
  /// Cuts when so many bytes more have gone that way, wherever in a message that is, and calls `then`.
  void cut_after(Way way, std::size_t bytes, Cut cut, std::function<void()> then = {}) {
    way_of(way).bytes_left = bytes;
    way_of(way).cut = cut;
    way_of(way).then_call = std::move(then);
    if (bytes == 0) {
      way_of(way).bytes_left.reset();
      cut_now(cut);
    }
  }
  /// Nothing goes that way until then; what is sent meanwhile waits, at last in the kernel of its sender.
  void stall(Way way, TimePoint until) { set_until(way_of(way).stalled_until, until); }
  /// What comes until then goes on so much later.
  void delay(Way way, std::chrono::milliseconds by, TimePoint until) {
    way_of(way).delay = by;
    set_until(way_of(way).delayed_until, until);
  }
  /// Until then bytes go on a few at a time, a millisecond apart.
  void crumble(Way way, std::size_t bytes, TimePoint until) {
    way_of(way).crumb_bytes = bytes;
    set_until(way_of(way).crumbled_until, until);
  }
  /// Until then connections are accepted and reset at once.
  void refuse(TimePoint until) { refused_until_ = until; }
  /// Until then connections are accepted, and never answered.
  void swallow(TimePoint until) { swallowed_until_ = until; }

  /// Ends every fault. What was lost stays lost: who was not told of it has to find out.
  void heal() {
    for (WayFaults& way : ways_) way = WayFaults{};
    refused_until_ = swallowed_until_ = TimePoint{};
    for (auto at = links_.begin(); at != links_.end();) pump((at++)->first);
  }

 private:
  static constexpr std::size_t most_held_bytes = 256 * 1024;

  struct WayFaults {
    TimePoint stalled_until{};
    TimePoint delayed_until{};
    std::chrono::milliseconds delay{0};
    TimePoint crumbled_until{};
    std::size_t crumb_bytes = 0;
    std::optional<std::size_t> bytes_left{};
    Cut cut = Cut::reset;
    std::function<void()> then_call{};
  };

  struct Chunk {
    TimePoint due;
    std::string bytes;
  };

  /// One way of one connection.
  struct Stream {
    std::deque<Chunk> chunks;
    std::size_t held_bytes = 0;
    bool has_ended = false;  // its sender sends no more
    bool has_passed_end = false;
    bool wants_room = false;  // its receiver takes no more for now
    TimePoint next_crumb{};
  };

  /// A client's socket and the server's; one of them is -1 after a cut that only the other side noticed.
  struct Link {
    int client = -1;
    int server = -1;
    bool is_connected = false;
    std::array<Stream, 2> streams{};
    TimePoint wake_at = TimePoint::max();
  };

  static sockaddr* generic(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }
  static sockaddr_in ip_address(const Address& where) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(where.port);
    ::inet_pton(AF_INET, where.host.c_str(), &address.sin_addr);
    return address;
  }
  static void close_hard(int fd) {
    const linger now{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    ::close(fd);
  }

  WayFaults& way_of(Way way) { return ways_[static_cast<std::size_t>(way)]; }

  void set_until(TimePoint& which, TimePoint until) {
    which = until;
    for (auto at = links_.begin(); at != links_.end();) pump((at++)->first);
  }

  std::optional<int> first_whole() const {
    const auto found = std::find_if(links_.begin(), links_.end(), [](const auto& entry) {
      return entry.second.client >= 0 && entry.second.server >= 0;
    });
    return found == links_.end() ? std::nullopt : std::optional(found->first);
  }

  void accept_one() {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0) return;
    if (Clock::now() < refused_until_) {
      ++cuts_;
      close_hard(client);
      return;
    }
    const int id = ++last_id_;
    Link& link = links_[id];
    link.client = client;
    loop_.watch(client, POLLIN, [this, id] { pump(id); });
    if (Clock::now() < swallowed_until_) {
      ++cuts_;
      return;
    }
    link.server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    for (const int fd : {link.client, link.server}) {
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    loop_.watch(link.server, POLLOUT, [this, id] { pump(id); });
    sockaddr_in address = ip_address(server_);
    if (::connect(link.server, generic(address), sizeof address) != 0 && errno != EINPROGRESS) {
      drop(id, Cut::reset);
    }
  }

  void drop_socket(int& fd, bool is_hard) {
    if (fd < 0) return;
    loop_.forget(fd);
    if (is_hard) {
      close_hard(fd);
    } else {
      ::close(fd);
    }
    fd = -1;
  }

  void drop(int id, Cut cut) {
    const auto found = links_.find(id);
    if (found == links_.end()) return;
    Link& link = found->second;
    if (cut != Cut::client_only) drop_socket(link.server, cut != Cut::close);
    if (cut != Cut::server_only) drop_socket(link.client, cut != Cut::close);
    if (link.client < 0 && link.server < 0) {
      links_.erase(found);
      return;
    }
    link.streams = {};
    loop_.set_events(link.client < 0 ? link.server : link.client, POLLIN);
  }

  /// The other side is gone, and this one was not told: its bytes vanish.
  void drain(int id, Link& link) {
    std::array<char, 65'536> buffer;
    int& fd = link.client < 0 ? link.server : link.client;
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return;
    drop_socket(fd, true);
    links_.erase(id);
  }

  void pump(int id) {
    const auto found = links_.find(id);
    if (found == links_.end()) return;
    Link& link = found->second;
    if (link.client < 0 || link.server < 0) return drain(id, link);
    if (!link.is_connected && !finish_connecting(id, link)) return;
    for (const Way way : {Way::to_server, Way::to_client}) {
      const bool is_up = way == Way::to_server;
      if (!read_some(link, way, is_up ? link.client : link.server)) return drop(id, Cut::reset);
      if (const auto cut = write_some(link, way, is_up ? link.server : link.client)) return drop(id, *cut);
    }
    if (link.streams[0].has_passed_end && link.streams[1].has_passed_end) {
      drop_socket(link.client, false);
      drop_socket(link.server, false);
      links_.erase(id);
      return;
    }
    set_interest(id, link);
  }

  bool finish_connecting(int id, Link& link) {
    int error = 0;
    socklen_t size = sizeof error;
    pollfd writable{link.server, POLLOUT, 0};
    ::getsockopt(link.server, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      drop(id, Cut::reset);
      return false;
    }
    if (::poll(&writable, 1, 0) <= 0) {
      loop_.set_events(link.client, 0);  // its bytes can wait
      return false;
    }
    link.is_connected = true;
    return true;
  }

  bool read_some(Link& link, Way way, int from) {
    Stream& stream = link.streams[static_cast<std::size_t>(way)];
    const WayFaults& faults = way_of(way);
    const TimePoint now = Clock::now();
    if (stream.has_ended || stream.held_bytes >= most_held_bytes || now < faults.stalled_until) return true;
    std::array<char, 65'536> buffer;
    const ssize_t got = ::recv(from, buffer.data(), buffer.size(), 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) {
      stream.has_ended = true;
      return true;
    }
    // What comes later must not overtake.
    const TimePoint earliest = stream.chunks.empty() ? now : stream.chunks.back().due;
    const TimePoint due = now < faults.delayed_until ? now + faults.delay : now;
    stream.chunks.push_back(
        {std::max(due, earliest), std::string(buffer.data(), static_cast<std::size_t>(got))});
    stream.held_bytes += static_cast<std::size_t>(got);
    return true;
  }

  /// Returns how to cut the connection, if it ends here.
  std::optional<Cut> write_some(Link& link, Way way, int to) {
    Stream& stream = link.streams[static_cast<std::size_t>(way)];
    WayFaults& faults = way_of(way);
    const TimePoint now = Clock::now();
    stream.wants_room = false;
    while (!stream.chunks.empty() && now >= faults.stalled_until) {
      Chunk& chunk = stream.chunks.front();
      if (chunk.due > now || stream.next_crumb > now) break;
      std::size_t size = chunk.bytes.size();
      const bool is_crumbled = now < faults.crumbled_until;
      if (is_crumbled) size = std::min(size, std::max<std::size_t>(faults.crumb_bytes, 1));
      if (faults.bytes_left) size = std::min(size, *faults.bytes_left);
      const ssize_t sent = ::send(to, chunk.bytes.data(), size, MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return Cut::reset;
        stream.wants_room = true;
        break;
      }
      chunk.bytes.erase(0, static_cast<std::size_t>(sent));
      stream.held_bytes -= static_cast<std::size_t>(sent);
      if (chunk.bytes.empty()) stream.chunks.pop_front();
      if (is_crumbled) stream.next_crumb = now + std::chrono::milliseconds(1);
      if (faults.bytes_left && (*faults.bytes_left -= static_cast<std::size_t>(sent)) == 0) {
        faults.bytes_left.reset();
        ++cuts_;
        if (const auto call = std::exchange(faults.then_call, {})) loop_.at(now, call);
        return faults.cut;
      }
    }
    if (stream.chunks.empty() && stream.has_ended && !stream.has_passed_end) {
      stream.has_passed_end = true;
      ::shutdown(to, SHUT_WR);
    }
    return std::nullopt;
  }

  void set_interest(int id, Link& link) {
    const TimePoint now = Clock::now();
    TimePoint wake_at = TimePoint::max();
    std::array<short, 2> events{};  // of the client's socket, and of the server's
    for (const Way way : {Way::to_server, Way::to_client}) {
      const auto index = static_cast<std::size_t>(way);
      const Stream& stream = link.streams[index];
      const WayFaults& faults = ways_[index];
      if (now < faults.stalled_until) {
        wake_at = std::min(wake_at, faults.stalled_until);
        continue;
      }
      if (!stream.has_ended && stream.held_bytes < most_held_bytes) {
        events[index] = static_cast<short>(events[index] | POLLIN);
      }
      if (stream.wants_room) {
        events[1 - index] = static_cast<short>(events[1 - index] | POLLOUT);
      } else if (!stream.chunks.empty()) {
        wake_at = std::min(wake_at, std::max(stream.chunks.front().due, stream.next_crumb));
      }
    }
    loop_.set_events(link.client, events[0]);
    loop_.set_events(link.server, events[1]);
    if (wake_at < link.wake_at) {
      link.wake_at = wake_at;
      loop_.at(wake_at, [this, id] {
        const auto found = links_.find(id);
        if (found == links_.end()) return;
        found->second.wake_at = TimePoint::max();
        pump(id);
      });
    }
  }

  Loop& loop_;
  Address server_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  int last_id_ = 0;
  std::map<int, Link> links_;
  std::array<WayFaults, 2> ways_{};
  TimePoint refused_until_{};
  TimePoint swallowed_until_{};
  unsigned cuts_ = 0;
};

}  // namespace processes

#endif
