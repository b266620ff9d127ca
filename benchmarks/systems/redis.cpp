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
#include "systems/program.hpp"
#include "systems/start.hpp"
#include "systems/wire_system.hpp"

namespace benchmarks {
namespace {

/// Appends an array of strings, which is what every command is.
void write_command(std::initializer_list<std::string_view> words, std::string& out) {
  out += '*';
  out += std::to_string(words.size());
  out += "\r\n";
  for (const std::string_view word : words) {
    out += '$';
    out += std::to_string(word.size());
    out += "\r\n";
    out += word;
    out += "\r\n";
  }
}

/// Reads one reply from `text` at `at`, and moves `at` behind it; the last string of it goes to `last`. False if it has
/// not come whole.
bool take_reply(std::string_view text, std::size_t& at, std::string_view& last) {
  std::string_view line;
  std::size_t here = at;
  if (!take_line(text, here, line)) return false;
  wire::require(!line.empty() && line[0] != '-', "a Redis command");
  long long count = 0;
  std::from_chars(line.data() + 1, line.data() + line.size(), count);
  if (line[0] == '$' && count >= 0) {
    const auto size = static_cast<std::size_t>(count);
    if (text.size() < here + size + 2) return false;
    last = text.substr(here, size);
    here += size + 2;
  } else if (line[0] == '*') {
    for (long long i = 0; i < count; ++i) {
      if (!take_reply(text, here, last)) return false;
    }
  }
  at = here;
  return true;
}

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
  const auto program = find_program("redis-server");
  if (!program) return nullptr;
  std::signal(SIGPIPE, SIG_IGN);
  auto place = std::make_unique<Workplace>();
  const in_port_t port = free_port();
  // clang-format off
  const std::vector<std::string> command{
      *program, "--port", "0", "--tls-port", std::to_string(port), "--bind", "127.0.0.1",
      "--tls-cert-file", place->path_of("server.crt"), "--tls-key-file", place->path_of("server.key"),
      "--tls-ca-cert-file", place->path_of("server.crt"), "--tls-auth-clients", "no", "--tls-protocols", "TLSv1.3",
      "--save", "", "--appendonly", "no", "--dir", place->path_of("")};
  // clang-format on
  auto server = std::make_unique<Program>(std::move(place), port, command, "Ready to accept connections");
  return std::make_unique<WireSystem>(std::move(server), std::make_unique<RedisDialect>(writes, options));
}

}  // namespace benchmarks
