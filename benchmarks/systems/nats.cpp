// NATS over TLS, and its key-value store JetStream KV in memory.
#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/sample_map.hpp"
#include "systems/program.hpp"
#include "systems/start.hpp"
#include "systems/wire_system.hpp"

namespace benchmarks {
namespace {

/// `PUB subject [reply] size`, then the content.
void write_publication(std::string_view subject, std::string_view reply, std::string_view content,
                       std::string& out) {
  out += "PUB ";
  out += subject;
  out += ' ';
  if (!reply.empty()) {
    out += reply;
    out += ' ';
  }
  out += std::to_string(content.size());
  out += "\r\n";
  out += content;
  out += "\r\n";
}

/// What a client hears.
struct Word {
  enum Kind { message, ping, pong, other } kind = other;
  std::string_view reply;  // the subject to answer to; may be none
  std::string_view content;
};

/// Reads one word from `text` at `at`, and moves `at` behind it; false if it has not come whole.
bool take_word(std::string_view text, std::size_t& at, Word& word) {
  std::size_t here = at;
  std::string_view line;
  if (!take_line(text, here, line)) return false;
  wire::require(!line.starts_with("-ERR"), "a NATS command");
  word = Word{};
  if (line.starts_with("MSG ")) {
    std::size_t size = 0;
    const std::string_view digits = line.substr(line.rfind(' ') + 1);
    std::from_chars(digits.data(), digits.data() + digits.size(), size);
    if (text.size() < here + size + 2) return false;
    // MSG subject id [reply] size
    const std::string_view front = line.substr(0, line.rfind(' '));
    word = {Word::message, front.substr(front.rfind(' ') + 1), text.substr(here, size)};
    here += size + 2;
  } else if (line == "PING") {
    word.kind = Word::ping;
  } else if (line == "PONG") {
    word.kind = Word::pong;
  }
  at = here;
  return true;
}

/// Begins a session, while blocking: its INFO comes before TLS does.
void greet_nats(wire::Wire& wire, SSL_CTX* context) {
  wire.receive_until("\r\n");
  wire.start_tls_client(context);
  wire.send_all(
      "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\"lang\":\"c\","
      "\"version\":\"1\",\"protocol\":1}\r\nPING\r\n");
  std::string heard;
  while (!heard.ends_with("PONG\r\n")) heard += wire.receive_until("\r\n");
}

/// Sends a request to JetStream, while blocking, and has its answer.
void ask_jetstream(wire::Wire& wire, const std::string& subject, const std::string& content) {
  std::string out = "SUB _INBOX.ask 9\r\nUNSUB 9 1\r\n";
  write_publication(subject, "_INBOX.ask", content, out);
  wire.send_all(out);
  const std::string answer = wire.receive_until("}\r\n");
  if (answer.find("\"error\"") != std::string::npos) throw std::runtime_error("JetStream: " + answer);
}

/// What publishers and subscribers have in common: they answer a PING.
class NatsDialect : public Dialect {
 protected:
  /// Calls `each(word)` for what is whole.
  template <class F>
  static std::size_t read_words(std::string_view text, std::string& reply, F each) {
    std::size_t at = 0;
    for (Word word; take_word(text, at, word);) {
      if (word.kind == Word::ping) {
        reply += "PONG\r\n";
      } else {
        each(word);
      }
    }
    return at;
  }

 public:
};

/// PUB to SUB; a PING behind each write tells when the server has taken it.
class CoreDialect final : public NatsDialect {
 public:
  explicit CoreDialect(const SystemOptions& options) : options_(options) {}

  void greet_as_publisher(wire::Wire& wire, SSL_CTX* context) override {
    greet_nats(wire, context);
    batches_.emplace_back();
  }
  void greet_as_subscriber(wire::Wire& wire, SSL_CTX* context) override {
    greet_nats(wire, context);
    wire.send_all("SUB " + std::string(sample_channel) + " 1\r\nPING\r\n");
    wire.receive_until("PONG\r\n");
  }

  void write_update(std::size_t /*publisher*/, std::uint64_t number, std::string& out) override {
    write_publication(sample_channel, "", short_value(number, options_), out);
  }
  void write_end_of_batch(std::size_t publisher, std::size_t count, std::string& out) override {
    if (!options_.answers) return;
    out += "PING\r\n";
    batches_[publisher].push_back(count);
  }

  std::size_t read_answers(std::size_t publisher, std::string_view text, std::size_t& answered,
                           std::string& reply) override {
    return read_words(text, reply, [&](const Word& word) {
      if (word.kind != Word::pong) return;
      answered += batches_[publisher].front();
      batches_[publisher].pop_front();
    });
  }

  std::size_t read_deliveries(std::string_view text, std::vector<std::uint64_t>& delivered,
                              std::string& reply) override {
    return read_words(text, reply, [&](const Word& word) {
      if (word.kind == Word::message) delivered.push_back(sample_number(word.content));
    });
  }

 private:
  SystemOptions options_;
  std::vector<std::deque<std::size_t>> batches_;  // sizes, of each publisher's that are not answered
};

/// Puts to a bucket in memory, each acknowledged. It keeps the newest value of a key, so a watcher that is behind gets
/// that.
class KvDialect final : public NatsDialect {
 public:
  explicit KvDialect(const SystemOptions& options) : options_(options) {}

  [[nodiscard]] bool merges() const override { return true; }

  void greet_as_publisher(wire::Wire& wire, SSL_CTX* context) override {
    greet_nats(wire, context);
    make_bucket(wire, publishers_ == 0);
    wire.send_all("SUB " + ack_subject(publishers_++) + " 1\r\nPING\r\n");
    wire.receive_until("PONG\r\n");
  }

  void greet_as_subscriber(wire::Wire& wire, SSL_CTX* context) override {
    greet_nats(wire, context);
    make_bucket(wire, publishers_ == 0 && subscribers_ == 0);
    const std::string subject = "_INBOX.watch" + std::to_string(subscribers_++);
    wire.send_all("SUB " + subject + " 1\r\n");
    // A watch of its own client asks for `last_per_subject`, which makes NATS 2.9 look for each message among all: six
    // times as slow. The bucket is empty now, so what is new is all there is.
    ask_jetstream(wire, "$JS.API.CONSUMER.CREATE.KV_b",
                  R"({"stream_name":"KV_b","config":{"deliver_policy":"new","ack_policy":"none",)"
                  R"("replay_policy":"instant","max_deliver":1,"mem_storage":true,"num_replicas":1,)"
                  R"("filter_subject":"$KV.b.>","deliver_subject":")" +
                      subject + "\"}}");
  }

  void write_update(std::size_t publisher, std::uint64_t number, std::string& out) override {
    write_publication("$KV.b." + short_key(number, options_), ack_subject(publisher),
                      short_value(number, options_), out);
  }

  std::size_t read_answers(std::size_t /*publisher*/, std::string_view text, std::size_t& answered,
                           std::string& reply) override {
    return read_words(text, reply, [&](const Word& word) {
      if (word.kind != Word::message) return;
      wire::require(word.content.find("\"error\"") == std::string_view::npos, "a put");
      ++answered;
    });
  }

  std::size_t read_deliveries(std::string_view text, std::vector<std::uint64_t>& delivered,
                              std::string& reply) override {
    return read_words(text, reply, [&](const Word& word) {
      if (word.kind == Word::message) delivered.push_back(stream_sequence(word.reply));
    });
  }

 private:
  /// `$JS.ACK.<stream>.<consumer>.<tries>.<stream sequence>....`: how many updates the bucket has seen. Its value alone
  /// would not tell where several publishers overtake each other.
  static std::uint64_t stream_sequence(std::string_view reply) {
    for (int dots = 0; dots < 5; ++dots) reply.remove_prefix(std::min(reply.find('.') + 1, reply.size()));
    std::uint64_t sequence = 0;
    std::from_chars(reply.data(), reply.data() + reply.size(), sequence);
    return sequence;
  }

  static std::string ack_subject(std::size_t publisher) { return "_INBOX.ack" + std::to_string(publisher); }

  static void make_bucket(wire::Wire& wire, bool is_first) {
    if (!is_first) return;
    ask_jetstream(
        wire, "$JS.API.STREAM.CREATE.KV_b",
        R"({"name":"KV_b","subjects":["$KV.b.>"],"retention":"limits","storage":"memory",)"
        R"("discard":"new","max_msgs_per_subject":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,)"
        R"("max_age":0,"num_replicas":1,"allow_rollup_hdrs":true,"deny_delete":true,"allow_direct":true})");
  }

  SystemOptions options_;
  std::size_t publishers_ = 0;
  std::size_t subscribers_ = 0;
};

}  // namespace

std::unique_ptr<System> start_nats(bool keeps_state, const SystemOptions& options) {
  const auto program = find_program("nats-server");
  if (!program) return nullptr;
  std::signal(SIGPIPE, SIG_IGN);
  auto place = std::make_unique<Workplace>();
  const in_port_t port = free_port();
  std::string configuration = "listen: \"127.0.0.1:" + std::to_string(port) + "\"\ntls { cert_file: \"" +
                              place->path_of("server.crt") + "\", key_file: \"" +
                              place->path_of("server.key") + "\", timeout: 30 }\n";
  if (keeps_state) configuration += "jetstream { store_dir: \"" + place->path_of("store") + "\" }\n";
  place->write("nats.conf", configuration);
  const std::vector<std::string> command{*program, "-c", place->path_of("nats.conf")};
  auto server = std::make_unique<Program>(std::move(place), port, command, "Server is ready");
  if (keeps_state)
    return std::make_unique<WireSystem>(std::move(server), std::make_unique<KvDialect>(options));
  return std::make_unique<WireSystem>(std::move(server), std::make_unique<CoreDialect>(options));
}

}  // namespace benchmarks
