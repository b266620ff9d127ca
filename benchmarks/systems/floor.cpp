// The floor: a server that brings 64 bytes from a publisher to every subscriber, and does nothing that can be left out.
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "syncstate/tcp/test_data.hpp"
#include "systems/loop.hpp"
#include "systems/start.hpp"
#include "systems/wire_system.hpp"

namespace benchmarks {
namespace {

constexpr std::size_t message_bytes = 64;

/// What the first byte on a connection says.
enum Role : char { publisher = 'p', publisher_with_answers = 'a', subscriber = 's' };

/// One thread, epoll; one write for each delivery, one read for all that has come.
class FloorServer {
 public:
  explicit FloorServer(SSL_CTX* context) : context_(context), listener_(wire::listen()) {
    loop_.add(listener_.first.get(), listening);
  }

  [[nodiscard]] in_port_t port() const { return listener_.second; }

  void serve_until(int end_handle) {
    loop_.add(end_handle, ending);
    while (!is_done_) {
      loop_.turn(Clock::duration::max(), [this](std::uint32_t number) { serve(number); });
    }
  }

 private:
  static constexpr std::uint32_t listening = 0xffff'fffe;
  static constexpr std::uint32_t ending = 0xffff'ffff;

  struct Link {
    std::unique_ptr<wire::Wire> wire;  // none once it has gone
    char role = 0;
    std::string in{};
    bool is_watched = false;
  };

  void serve(std::uint32_t number) {
    if (number == ending) {
      is_done_ = true;
    } else if (number == listening) {
      accept();
    } else {
      serve_link(number);
    }
  }

  void accept() {
    auto link = std::make_unique<wire::Wire>(wire::Handle(::accept(listener_.first.get(), nullptr, nullptr)));
    link->stop_blocking();
    if (context_ != nullptr) link->start_tls_server(context_);
    loop_.add(link->handle(), static_cast<std::uint32_t>(links_.size()));
    links_.push_back(Link{std::move(link)});
  }

  void serve_link(std::uint32_t number) {
    Link& link = links_[number];
    if (!link.wire) return;
    if (link.wire->has_rest()) {
      link.wire->send_rest();
      watch(number);
    }
    const bool is_open = link.wire->receive([&](std::string_view bytes) { take(number, bytes); });
    if (is_open) return;
    std::erase(subscribers_, number);
    link.wire.reset();
  }

  void take(std::uint32_t number, std::string_view bytes) {
    Link& link = links_[number];
    if (link.role == 0) {
      link.role = bytes.front();
      bytes.remove_prefix(1);
      if (link.role == subscriber) subscribers_.push_back(number);
      send(number, "k");
    }
    if (!link.in.empty()) {
      const std::size_t missing = std::min(message_bytes - link.in.size(), bytes.size());
      link.in += bytes.substr(0, missing);
      bytes.remove_prefix(missing);
      if (link.in.size() < message_bytes) return;
      deliver(number, link.in);
      link.in.clear();
    }
    for (; bytes.size() >= message_bytes; bytes.remove_prefix(message_bytes)) {
      deliver(number, bytes.substr(0, message_bytes));
    }
    link.in = bytes;
  }

  void deliver(std::uint32_t from, std::string_view message) {
    for (const std::uint32_t to : subscribers_) send(to, message);
    if (links_[from].role == publisher_with_answers) send(from, message);
  }

  void send(std::uint32_t number, std::string_view bytes) {
    links_[number].wire->send(bytes);
    watch(number);
  }

  void watch(std::uint32_t number) {
    Link& link = links_[number];
    if (link.is_watched == link.wire->has_rest()) return;
    link.is_watched = link.wire->has_rest();
    loop_.watch_writing(link.wire->handle(), number, link.is_watched);
  }

  SSL_CTX* context_;
  std::pair<wire::Handle, in_port_t> listener_;
  Loop loop_;
  std::vector<Link> links_;
  std::vector<std::uint32_t> subscribers_;
  bool is_done_ = false;
};

/// 64 bytes each way, which begin with the number.
class FloorDialect final : public Dialect {
 public:
  FloorDialect(bool is_tls, bool has_answers) : is_tls_(is_tls), has_answers_(has_answers) {}

  void greet_as_publisher(wire::Wire& wire, SSL_CTX* context) override {
    greet(wire, context, has_answers_ ? publisher_with_answers : publisher);
  }
  void greet_as_subscriber(wire::Wire& wire, SSL_CTX* context) override { greet(wire, context, subscriber); }

  void write_update(std::size_t /*publisher*/, std::uint64_t number, std::string& out) override {
    std::array<char, message_bytes> message{};
    std::memcpy(message.data(), &number, sizeof number);
    out.append(message.data(), message.size());
  }

  std::size_t read_answers(std::size_t /*publisher*/, std::string_view text, std::size_t& answered,
                           std::string& /*reply*/) override {
    const std::size_t count = text.size() / message_bytes;
    answered += count;
    return count * message_bytes;
  }

  std::size_t read_deliveries(std::string_view text, std::vector<std::uint64_t>& delivered,
                              std::string& /*reply*/) override {
    std::size_t at = 0;
    for (; text.size() - at >= message_bytes; at += message_bytes) {
      std::uint64_t number = 0;
      std::memcpy(&number, text.data() + at, sizeof number);
      delivered.push_back(number);
    }
    return at;
  }

 private:
  void greet(wire::Wire& wire, SSL_CTX* context, char role) const {
    if (is_tls_) wire.start_tls_client(context);
    wire.send_all(std::string_view(&role, 1));
    wire.receive_until("k");
  }

  bool is_tls_;
  bool has_answers_;
};

}  // namespace

std::unique_ptr<System> start_floor(bool is_tls, const SystemOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);
  auto server = std::make_unique<ForkedServer>([is_tls](ChildDuty& duty) {
    const wire::Context context = is_tls
                                      ? wire::make_server_context(syncstate::tcp::test_data::certificate_pem,
                                                                  syncstate::tcp::test_data::private_key_pem)
                                      : nullptr;
    FloorServer floor(context.get());
    duty.listens_at(std::to_string(floor.port()));
    floor.serve_until(duty.end_handle());
  });
  return std::make_unique<WireSystem>(std::move(server),
                                      std::make_unique<FloorDialect>(is_tls, options.answers));
}

}  // namespace benchmarks
