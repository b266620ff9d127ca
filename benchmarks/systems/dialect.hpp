// What the clients of the floor and of the peers say and hear; how they send and wait is `WireSystem`'s.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_DIALECT_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_DIALECT_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/sample_map.hpp"
#include "systems/system.hpp"
#include "systems/wire.hpp"

namespace benchmarks {

/// The protocol of one kind of server, client side: bytes in, numbers out.
class Dialect {
 public:
  Dialect() = default;
  Dialect(const Dialect&) = delete;
  Dialect& operator=(const Dialect&) = delete;
  virtual ~Dialect() = default;

  /// As `System::merges`.
  [[nodiscard]] virtual bool merges() const { return false; }

  /// Makes a new connection that of a publisher or a subscriber, while it is blocking; `context` for TLS.
  virtual void greet_as_publisher(wire::Wire& wire, SSL_CTX* context) = 0;
  virtual void greet_as_subscriber(wire::Wire& wire, SSL_CTX* context) = 0;

  /// Appends the update `number` to `out`.
  virtual void write_update(std::size_t publisher, std::uint64_t number, std::string& out) = 0;
  /// Appends what is said after the `count` updates that go in one write.
  virtual void write_end_of_batch(std::size_t /*publisher*/, std::size_t /*count*/, std::string& /*out*/) {}

  /// Reads what a publisher hears; adds to `answered`, and what is to be answered to `reply`. Returns how much was
  /// whole.
  virtual std::size_t read_answers(std::size_t publisher, std::string_view text, std::size_t& answered,
                                   std::string& reply) = 0;
  /// Reads what a subscriber hears; adds the numbers to `delivered`, and what is to be answered to `reply`. Returns how
  /// much was whole.
  virtual std::size_t read_deliveries(std::string_view text, std::vector<std::uint64_t>& delivered,
                                      std::string& reply) = 0;
};

/// Where the peers publish updates, one channel for all of them: the cheapest they can do.
inline constexpr std::string_view sample_channel = "limit.17";

/// Where the peers keep the value that an update sets: in turn each of as many keys as our map has, named short.
[[nodiscard]] inline std::string short_key(std::uint64_t number, const SystemOptions& options) {
  return "limit." + std::to_string(number % options.keys);
}

/// The value that an update sets, which tells its number.
[[nodiscard]] inline std::string short_value(std::uint64_t number, const SystemOptions& options) {
  return sample_value(number).substr(16 - options.value_bytes);
}

/// Takes up to and with `end` from `text` at `at`; false if that has not come yet.
inline bool take_line(std::string_view text, std::size_t& at, std::string_view& line) {
  const std::size_t end = text.find("\r\n", at);
  if (end == std::string_view::npos) return false;
  line = text.substr(at, end - at);
  at = end + 2;
  return true;
}

}  // namespace benchmarks

#endif
