// What is measured, seen from its clients: something that takes updates from publishers and brings them to subscribers.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_SYSTEM_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_SYSTEM_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "support/harness.hpp"
#include "support/sample_map.hpp"

namespace benchmarks {

/// Hears what reaches the clients, inside `System::turn`.
class Witness {
 public:
  virtual ~Witness() = default;
  /// The server has answered the next `count` updates of a publisher.
  virtual void answered(std::size_t publisher, std::size_t count) = 0;
  /// A subscriber has update `number` of the publishers' count, or a newer state that holds it.
  virtual void delivered(std::size_t subscriber, std::uint64_t number) = 0;
};

/// Publishes on the thread that calls it.
class ApartPublisher {
 public:
  virtual ~ApartPublisher() = default;
  /// As fast as at most `in_flight` updates are not answered, until `stop`; `next()` gives their numbers. Returns when
  /// all are answered.
  virtual void run(std::size_t in_flight, const std::atomic<bool>& stop,
                   const std::function<std::uint64_t()>& next) = 0;
};

/// A server in a process of its own, with publishers and subscribers in this one: each has a connection of its own, and
/// one thread, the caller's, does all of them.
class System {
 public:
  /// No limit, for `turn`.
  static constexpr Clock::duration endless = Clock::duration::max();

  System() = default;
  System(const System&) = delete;
  System& operator=(const System&) = delete;
  virtual ~System() = default;

  /// True where a subscriber that is behind gets one state in place of many updates.
  [[nodiscard]] virtual bool merges() const { return false; }

  /// Connects one more, and returns once it is ready.
  virtual void add_publisher() = 0;
  virtual void add_subscribers(std::size_t count) = 0;

  /// Takes an update, which tells its number. `flush` sends it at the latest.
  virtual void publish(std::size_t publisher, std::uint64_t number) = 0;
  /// Sends what was published, all of it in one write where one suffices.
  virtual void flush() = 0;
  /// Waits until something comes, at most for `limit`, and tells the witness of it.
  virtual void turn(Clock::duration limit, Witness& witness) = 0;

  /// A publisher with a thread of its own, as others have processes of their own; null where `merges()` is false.
  [[nodiscard]] virtual std::unique_ptr<ApartPublisher> make_apart_publisher() { return nullptr; }

  /// CPU seconds that the server has used so far.
  [[nodiscard]] virtual double server_cpu_seconds() const = 0;
  /// The server's resident memory.
  [[nodiscard]] virtual double server_resident_bytes() const = 0;
  /// How many descriptors the server has open.
  [[nodiscard]] virtual std::size_t server_open_files() const = 0;

  /// TCP payload that the first subscriber has received.
  [[nodiscard]] virtual double received_bytes() const = 0;
  /// The first subscriber reads nothing, and goes on to say that it lives, or reads again.
  virtual void stall(bool is_stalled) = 0;
};

/// What there is to measure.
enum class SystemKind {
  bare_tcp,            ///< the floor without TLS
  bare_tls,            ///< the floor
  redis,               ///< PUBLISH to SUBSCRIBE
  redis_set,           ///< SET, which nobody hears of
  redis_state,         ///< SET and PUBLISH in one write, so that the state is kept, too
  nats,                ///< core NATS: PUB to SUB
  nats_kv,             ///< JetStream KV in memory: put, acknowledged, to a watch
  syncstate,           ///< an event, through a hook and a commit, to a replica
  syncstate_inline,    ///< the same with `ServerOptions::hooks_on_io_threads`
  syncstate_spinning,  ///< that, and whoever waits looks for work for a while before it sleeps
};

[[nodiscard]] constexpr bool is_floor(SystemKind kind) { return kind <= SystemKind::bare_tls; }
[[nodiscard]] constexpr bool is_ours(SystemKind kind) { return kind >= SystemKind::syncstate; }
[[nodiscard]] constexpr bool is_peer(SystemKind kind) { return !is_floor(kind) && !is_ours(kind); }

/// What a system is asked to do besides.
struct SystemOptions {
  /// Publishers hear of each update that the server has it. Redis and syncstate always say so.
  bool answers = false;
  /// How many keys updates set in turn.
  std::size_t keys = sample_keys;
  /// The size of a value of the peers' in text, 1 to 16.
  std::size_t value_bytes = 16;
  /// Clients of ours reach their server through a proxy, for `stall`.
  bool can_stall = false;
};

/// How a system is called in a table.
[[nodiscard]] std::string_view name_of(SystemKind kind);

/// Starts the server of a system; null where that is not installed. Before this process has used much memory: what a
/// server of ours finds free there counts as its own.
[[nodiscard]] std::unique_ptr<System> start_system(SystemKind kind, const SystemOptions& options = {});

}  // namespace benchmarks

#endif
