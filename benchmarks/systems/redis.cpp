// Redis over TLS, nothing kept on disk; its publishers and subscribers speak RESP2.
#include <charconv>
#include <csignal>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/sample_map.hpp"
#include "systems/redis_server.hpp"
#include "systems/start.hpp"
#include "systems/wire_system.hpp"

namespace benchmarks {
namespace {

class RedisDialect final : public Dialect {
 public:
  RedisDialect(RedisWrites writes, const SystemOptions& options) : writes_(writes), options_(options) {}

  void greet_as_publisher(wire::Wire& wire, SSL_CTX* context) override { wire.start_tls_client(context); }

  void greet_as_subscriber(wire::Wire& wire, SSL_CTX* context) override {
    wire.start_tls_client(context);
    std::string out;
    write_command({"SUBSCRIBE", sample_channel}, out);
    wire.send_all(out);
    wire.receive_until(":1\r\n");
  }

  void write_update(std::size_t /*publisher*/, std::uint64_t number, std::string& out) override {
    const std::string value = short_value(number, options_);
    if (writes_ != RedisWrites::publish) write_command({"SET", short_key(number, options_), value}, out);
    if (writes_ != RedisWrites::set) write_command({"PUBLISH", sample_channel, value}, out);
  }

  std::size_t read_answers(std::size_t /*publisher*/, std::string_view text, std::size_t& answered,
                           std::string& /*reply*/) override {
    std::size_t at = 0;
    std::string_view last;
    // SET answers +OK, PUBLISH the number of subscribers.
    const char sign = writes_ == RedisWrites::set ? '+' : ':';
    for (std::size_t here = 0; take_reply(text, here, last); at = here) answered += text[at] == sign ? 1 : 0;
    return at;
  }

  std::size_t read_deliveries(std::string_view text, std::vector<std::uint64_t>& delivered,
                              std::string& /*reply*/) override {
    std::size_t at = 0;
    std::string_view value;
    while (take_reply(text, at, value)) delivered.push_back(sample_number(value));
    return at;
  }

 private:
  RedisWrites writes_;
  SystemOptions options_;
};

}  // namespace

std::unique_ptr<System> start_redis(RedisWrites writes, const SystemOptions& options) {
  auto server = start_redis_server();
  if (!server) return nullptr;
  return std::make_unique<WireSystem>(std::move(server), std::make_unique<RedisDialect>(writes, options));
}

}  // namespace benchmarks
