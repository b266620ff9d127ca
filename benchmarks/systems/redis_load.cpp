#include "systems/redis_load.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/harness.hpp"
#include "support/sample_map.hpp"
#include "systems/loop.hpp"
#include "systems/redis_server.hpp"
#include "systems/wire.hpp"

namespace benchmarks {
namespace {

/// Sends all of `requests`, reading meanwhile; `take(text)` says how much of what has come is whole, until `is_done()`.
template <class Take, class IsDone>
void exchange(wire::Wire& wire, std::string_view requests, Take take, IsDone is_done) {
  Loop loop;
  loop.add(wire.handle(), 0);
  wire.send(requests);
  std::string in;
  while (!is_done()) {
    loop.watch_writing(wire.handle(), 0, wire.has_rest());
    loop.turn(Clock::duration::max(), [&](std::uint32_t) {
      if (wire.has_rest()) wire.send_rest();
      const bool is_open = wire.receive([&](std::string_view bytes) {
        in += bytes;
        in.erase(0, take(in));
      });
      wire::require(is_open, "Redis");
    });
  }
}

class Load final : public RedisLoad {
 public:
  Load(std::unique_ptr<Program> server, std::size_t keys)
      : server_(std::move(server)), keys_(keys), context_(wire::make_client_context()) {
    std::string all;
    for (std::size_t i = 0; i < keys; ++i) write_command({"SET", sample_key(i), sample_value(i)}, all);
    wire::Wire wire = connect();
    std::size_t answered = 0;
    exchange(
        wire, all,
        [&](std::string_view text) {
          std::size_t at = 0;
          for (std::string_view last; take_reply(text, at, last);) ++answered;
          return at;
        },
        [&] { return answered == keys; });
    // MGET of a thousand at a time, all sent at once.
    constexpr std::size_t together = 1'000;
    for (std::size_t begin = 0; begin < keys; begin += together) {
      const std::size_t end = std::min(keys, begin + together);
      requests_ += "*" + std::to_string(end - begin + 1) + "\r\n$4\r\nMGET\r\n";
      for (std::size_t i = begin; i < end; ++i) {
        const std::string key = sample_key(i);
        requests_ += "$" + std::to_string(key.size()) + "\r\n" + key + "\r\n";
      }
    }
  }

  double load_ms() override {
    std::vector<std::string> values;
    values.reserve(keys_);
    const auto start = Clock::now();
    wire::Wire wire = connect();
    exchange(
        wire, requests_, [&](std::string_view text) { return take_values(text, values); },
        [&] { return values.size() == keys_; });
    return microseconds(Clock::now() - start) / 1e3;
  }

 private:
  [[nodiscard]] wire::Wire connect() const {
    wire::Wire wire(wire::connect(server_->port()));
    wire.start_tls_client(context_.get());
    wire.stop_blocking();
    return wire;
  }

  /// Adds the values that have come whole, in the order of the keys.
  static std::size_t take_values(std::string_view text, std::vector<std::string>& values) {
    std::size_t at = 0;
    for (std::string_view line; at < text.size();) {
      std::size_t here = at;
      if (text[at] == '*') {
        if (!take_line(text, here, line)) return at;
      } else {
        std::string_view value;
        if (!take_reply(text, here, value)) return at;
        values.emplace_back(value);
      }
      at = here;
    }
    return at;
  }

  std::unique_ptr<Program> server_;
  std::size_t keys_;
  wire::Context context_;
  std::string requests_;
};

}  // namespace

std::unique_ptr<RedisLoad> start_redis_load(std::size_t keys) {
  auto server = start_redis_server();
  if (!server) return nullptr;
  return std::make_unique<Load>(std::move(server), keys);
}

}  // namespace benchmarks
