// A TCP proxy in a process of its own: counts what passes after the TLS handshake, and can stop the way to the client.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_PROXY_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_PROXY_HPP

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/child_process.hpp"
#include "systems/loop.hpp"
#include "systems/server.hpp"
#include "systems/wire.hpp"

namespace benchmarks {

/// What passed over the last connection after its TLS handshake.
struct ProxyCounts {
  std::atomic<std::uint64_t> bytes_to_server{0};
  std::atomic<std::uint64_t> bytes_to_client{0};
  std::atomic<std::uint64_t> round_trips{0};  ///< times that the server's word followed the client's
};

/// Finds the end of a client's TLS 1.3 handshake: its first encrypted record, which is the Finished.
class HandshakeEnd {
 public:
  /// How many of these bytes lie behind it.
  std::size_t feed(std::string_view bytes) {
    while (!is_past_ && !bytes.empty()) {
      if (header_.size() < header_bytes) {
        header_ += bytes.front();
        bytes.remove_prefix(1);
        if (header_.size() == header_bytes) {
          rest_ = static_cast<std::size_t>(static_cast<unsigned char>(header_[3]) << 8 |
                                           static_cast<unsigned char>(header_[4]));
        }
        continue;
      }
      const std::size_t part = std::min(rest_, bytes.size());
      bytes.remove_prefix(part);
      rest_ -= part;
      if (rest_ > 0) continue;
      is_past_ = header_[0] == encrypted;
      header_.clear();
    }
    return is_past_ ? bytes.size() : 0;
  }
  [[nodiscard]] bool is_past() const { return is_past_; }

 private:
  static constexpr std::size_t header_bytes = 5;
  static constexpr char encrypted = 23;

  std::string header_;
  std::size_t rest_ = 0;
  bool is_past_ = false;
};

/// Stands before a server. One thread; writes block, so a client must read while it writes much.
class Proxy {
 public:
  explicit Proxy(in_port_t upstream) : counts_(shared_counts()) {
    server_.emplace([upstream, counts = counts_](ChildDuty& duty) { Worker(upstream, *counts).serve(duty); });
  }
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;
  ~Proxy() {
    server_.reset();
    ::munmap(counts_, sizeof(ProxyCounts));
  }

  [[nodiscard]] std::string endpoint() const { return "127.0.0.1:" + server_->endpoint(); }
  [[nodiscard]] const ProxyCounts& counts() const { return *counts_; }
  /// Whether what the server says is left with it.
  void stall(bool is_stalled) { server_->tell(is_stalled ? 's' : 'r'); }

 private:
  class Worker {
   public:
    Worker(in_port_t upstream, ProxyCounts& counts)
        : upstream_(upstream), counts_(counts), listener_(wire::listen()) {}

    void serve(ChildDuty& duty) {
      loop_.add(listener_.first.get(), listening);
      loop_.add(duty.end_handle(), commanding);
      duty.listens_at(std::to_string(listener_.second));
      for (bool is_done = false; !is_done;) {
        loop_.turn(Clock::duration::max(), [&](std::uint32_t number) {
          if (number == listening) {
            accept();
          } else if (number == commanding) {
            const auto word = duty.next_word();
            is_done = !word;
            if (word) stall(*word == 's');
          } else {
            forward(number);
          }
        });
      }
    }

   private:
    static constexpr std::uint32_t listening = 0xffff'fffe;
    static constexpr std::uint32_t commanding = 0xffff'ffff;

    struct Pair {
      std::optional<wire::Handle> client;
      std::optional<wire::Handle> server;
      HandshakeEnd handshake{};
      bool client_spoke_last = false;
    };

    void accept() {
      Pair pair{wire::Handle(::accept(listener_.first.get(), nullptr, nullptr)), wire::connect(upstream_)};
      const int on = 1;
      for (const int handle : {pair.client->get(), pair.server->get()}) {
        ::setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      }
      const auto number = static_cast<std::uint32_t>(2 * pairs_.size());
      loop_.add(pair.client->get(), number);
      loop_.add(pair.server->get(), number + 1);
      pairs_.push_back(std::move(pair));
      counts_.bytes_to_server = counts_.bytes_to_client = counts_.round_trips = 0;
    }

    void stall(bool is_stalled) {
      for (std::size_t i = 0; i < pairs_.size(); ++i) {
        if (!pairs_[i].server) continue;
        const int handle = pairs_[i].server->get();
        if (is_stalled) {
          loop_.remove(handle);
        } else {
          loop_.add(handle, static_cast<std::uint32_t>(2 * i + 1));
        }
      }
    }

    void forward(std::uint32_t number) {
      Pair& pair = pairs_[number / 2];
      if (!pair.client) return;
      const bool is_from_client = number % 2 == 0;
      const int from = is_from_client ? pair.client->get() : pair.server->get();
      const int to = is_from_client ? pair.server->get() : pair.client->get();
      const ssize_t size = ::recv(from, chunk_.data(), chunk_.size(), 0);
      std::string_view bytes(chunk_.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
      if (!bytes.empty()) count(pair, is_from_client, bytes);
      while (!bytes.empty()) {
        const ssize_t sent = ::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) break;
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      }
      if (size > 0 && bytes.empty()) return;
      pair.client.reset();
      pair.server.reset();
    }

    void count(Pair& pair, bool is_from_client, std::string_view bytes) {
      if (is_from_client) {
        const std::size_t counted = pair.handshake.feed(bytes);
        counts_.bytes_to_server += counted;
        if (counted > 0) pair.client_spoke_last = true;
      } else if (pair.handshake.is_past()) {
        counts_.bytes_to_client += bytes.size();
        if (std::exchange(pair.client_spoke_last, false)) ++counts_.round_trips;
      }
    }

    in_port_t upstream_;
    ProxyCounts& counts_;
    std::pair<wire::Handle, in_port_t> listener_;
    Loop loop_;
    std::vector<Pair> pairs_;
    std::array<char, 64 * 1024> chunk_{};
  };

  static ProxyCounts* shared_counts() {
    void* memory =
        ::mmap(nullptr, sizeof(ProxyCounts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    wire::require(memory != MAP_FAILED, "mmap");
    return new (memory) ProxyCounts;
  }

  ProxyCounts* counts_;
  std::optional<ForkedServer> server_;
};

}  // namespace benchmarks

#endif
