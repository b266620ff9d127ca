// What the benchmarks of attacks share: the server, the client that should not notice, a shared counter.
#ifndef SYNCSTATE_BENCHMARKS_ATTACK_PARTS_HPP
#define SYNCSTATE_BENCHMARKS_ATTACK_PARTS_HPP

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "hostile/attacker.hpp"
#include "support/child_process.hpp"
#include "support/harness.hpp"
#include "support/sample_map.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/test_data.hpp"

namespace benchmarks {

using namespace std::chrono_literals;
namespace ss = syncstate;
using support::ChildDuty;
using support::ChildProcess;

struct SetOne {
  std::string key, value;
};
using AttackEvent = ss::Event<SetOne>;

constexpr std::size_t attack_keys = 1'000;

/// A certificate and its key as PEM text.
struct Identity {
  std::string certificate_pem{ss::tcp::test_data::certificate_pem};
  std::string key_pem{ss::tcp::test_data::private_key_pem};
};

/// Hosts one map until its parent is done.
inline void serve_map(ChildDuty& duty, const Identity& identity = {}) {
  ss::tcp::TcpStateServer<std::string, std::string, SetOne> server(
      ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                             .tls = ss::tcp::ServerTls::from_pem(identity.certificate_pem, identity.key_pem),
                             .password = std::string(hostile::password)});
  server.add_hook(
      [](Map& map, const AttackEvent& event) { map.set(event.content.key, event.content.value); });
  server.host(fill(Map(ss::Role::master), attack_keys));
  server.start();
  duty.listens_at(server.endpoint());
  duty.wait_for_end();
}

inline std::shared_ptr<ss::tcp::TcpStateRemote> connect_to(const ChildProcess& server,
                                                           const Identity& identity = {}) {
  return std::make_shared<ss::tcp::TcpStateRemote>(
      ss::tcp::RemoteOptions{.endpoint = server.endpoint(),
                             .tls = ss::tcp::ClientTls::from_pem(identity.certificate_pem),
                             .password = std::string(hostile::password),
                             .event_timeout = 30s,
                             .request_timeout = 30s});
}

/// The client that should not notice.
class Honest {
 public:
  explicit Honest(const ChildProcess& server, const Identity& identity = {})
      : remote_(connect_to(server, identity)), map_(fill(Map(remote_), attack_keys)) {
    remote_->on_status([lost = lost_](const ss::LinkStatus& status) {
      if (status.state == ss::LinkState::stale) ++*lost;
    });
  }

  /// Sends an event, and waits for its answer; returns how long that took, in microseconds.
  double send() {
    ++number_;
    const auto start = Clock::now();
    remote_->send_event(map_.hash(), AttackEvent{{sample_key(number_ % attack_keys), sample_value(number_)}});
    return microseconds(Clock::now() - start);
  }
  [[nodiscard]] const ss::MapHash& hash() const { return map_.hash(); }
  /// How often it lost its link.
  [[nodiscard]] std::size_t lost() const { return *lost_; }

 private:
  std::shared_ptr<ss::tcp::TcpStateRemote> remote_;
  Map map_;
  std::uint64_t number_ = 0;
  std::shared_ptr<std::atomic<std::size_t>> lost_ = std::make_shared<std::atomic<std::size_t>>(0);
};

/// The latencies of events sent one after the other for this long.
inline std::vector<double> latencies(Honest& honest, Clock::duration time) {
  std::vector<double> all;
  for (const auto end = Clock::now() + time; Clock::now() < end;) all.push_back(honest.send());
  return all;
}

/// A counter that parent and child share.
class SharedCounter {
 public:
  SharedCounter()
      : memory_(::mmap(nullptr, sizeof(Counter), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    counter_ = new (memory_) Counter(0);
  }
  SharedCounter(const SharedCounter&) = delete;
  SharedCounter& operator=(const SharedCounter&) = delete;
  ~SharedCounter() { ::munmap(memory_, sizeof(Counter)); }
  [[nodiscard]] std::atomic<std::uint64_t>& get() { return *counter_; }

 private:
  using Counter = std::atomic<std::uint64_t>;
  void* memory_;
  Counter* counter_ = nullptr;
};

}  // namespace benchmarks

#endif
