// A Redis server over TLS that keeps nothing on disk, and its language, RESP2.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_REDIS_SERVER_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_REDIS_SERVER_HPP

#include <charconv>
#include <csignal>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "systems/dialect.hpp"
#include "systems/program.hpp"
#include "systems/wire.hpp"

namespace benchmarks {

/// Null where it is not installed.
[[nodiscard]] inline std::unique_ptr<Program> start_redis_server() {
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
  return std::make_unique<Program>(std::move(place), port, command, "Ready to accept connections");
}

/// Appends an array of strings, which is what every command is.
inline void write_command(std::initializer_list<std::string_view> words, std::string& out) {
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
inline bool take_reply(std::string_view text, std::size_t& at, std::string_view& last) {
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

}  // namespace benchmarks

#endif
