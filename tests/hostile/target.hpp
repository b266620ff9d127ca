// What is attacked: a server in a process of its own, and an honest client that it must go on serving.
#ifndef SYNCSTATE_TESTS_HOSTILE_TARGET_HPP
#define SYNCSTATE_TESTS_HOSTILE_TARGET_HPP

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "hostile/attacker.hpp"
#include "support/catch.hpp"
#include "support/child_process.hpp"
#include "support/sanitized.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/test_data.hpp"

namespace hostile {

using Map = ss::StateMap<std::string, std::string>;
struct Set {
  std::string key;
  std::string value;
};
using Event = ss::Event<Set>;
using Server = ss::tcp::TcpStateServer<std::string, std::string, Set>;
using Remote = ss::tcp::TcpStateRemote;
using Replica = ss::Replica<std::string, std::string>;

/// Commits that `Target::start_updates` has the server make.
constexpr ss::UpdateId updates = 100'000;

constexpr double kibibyte = 1024;
constexpr double mebibyte = 1024 * kibibyte;

using support::is_sanitized;  // then figures of memory are told, not checked

struct TargetOptions {
  ss::Limits limits{};
  std::size_t open_files =
      0;  ///< as many files may the server open, besides those it starts with; 0: as the machine says
};

/// An initial state, as an attacker brings it: the map, and its bytes as they travel.
struct InitialState {
  Map map{ss::Role::master};
  ss::Bytes bytes;
};
inline InitialState initial_state(const std::vector<std::pair<std::string, std::string>>& ascending) {
  InitialState state;
  ss::ByteWriter out(state.bytes);
  for (const auto& [key, value] : ascending) {
    state.map.push(key, value);
    out.put_sized(key);
    out.put_sized(value);
  }
  state.map.freeze();
  return state;
}

/// A frame that opens a map.
inline protocol::Open open_frame(protocol::ChannelId channel, const ss::MapHash& hash,
                                 protocol::FollowMode mode = protocol::FollowMode::none) {
  protocol::Open open;
  open.channel = channel;
  open.hash = hash;
  open.key_type = ss::type_name<std::string>();
  open.value_type = ss::type_name<std::string>();
  open.mode = mode;
  return open;
}

/// A hash that no map has.
inline ss::MapHash made_up_hash(std::size_t number) {
  std::array<std::byte, 32> bytes{};
  for (std::size_t i = 0; i < sizeof number; ++i) bytes[i] = static_cast<std::byte>(number >> (8 * i));
  return ss::MapHash(bytes);
}

/// The server under attack, and what is measured of it.
///
/// Its honest client comes from 127.0.0.1. It follows the map "home", which the server hosts.
class Target {
 public:
  explicit Target(TargetOptions options = {})
      : limits_(options.limits), server_([&](support::ChildDuty& duty) { serve(duty, options); }) {
    honest_ = connect();
    Map map = home(honest_);
    map.freeze(patience);
    // The link is live, so the first status is not `connecting`.
    honest_->on_status([lost = lost_](const ss::LinkStatus& status) {
      if (status.state != ss::LinkState::live) ++*lost;
    });
    home_hash_ = map.hash();
    replica_.emplace(std::move(map));
    check_still_serves();
    files_before_ = server_.open_files();
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target() { CHECK(end() == 0); }

  /// Ends the server; its exit code says whether it lived until then.
  int end() {
    replica_.reset();
    honest_.reset();
    return server_.end();
  }

  [[nodiscard]] const std::string& endpoint() const { return server_.endpoint(); }
  [[nodiscard]] const ss::MapHash& home_hash() const { return home_hash_; }
  [[nodiscard]] Replica& replica() { return *replica_; }
  [[nodiscard]] support::ChildProcess& process() { return server_; }

  /// A client with the password.
  [[nodiscard]] std::shared_ptr<Remote> connect() const {
    return std::make_shared<Remote>(
        ss::tcp::RemoteOptions{.endpoint = server_.endpoint(),
                               .tls = ss::tcp::ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
                               .password = std::string(password),
                               .event_timeout = patience,
                               .request_timeout = patience,
                               .backoff = {.first = 10ms, .most = 200ms},
                               .limits = limits_});
  }

  /// The honest client sends an event, and sees what it changed, over the link it has had from the beginning.
  void check_still_serves() {
    const std::string value = "still here " + std::to_string(++rounds_);
    const ss::Position at = honest_->send_event(home_hash_, Event{{"a", value}});
    CHECK(replica_->wait_for(at, patience));
    CHECK(replica_->view().at("a") == value);
    CHECK(*lost_ == 0);
  }

  /// Another honest client connects, and is served.
  void check_lets_in() const {
    Map map = connect()->attach<std::string, std::string>(home_hash_);
    CHECK(map.sync() > 0);
  }

  /// Lets go of the hooks that a map with the key "held" waits in.
  void let_go() { server_.tell('g'); }
  /// Has the server make `updates` commits to the honest client's map.
  void start_updates() { server_.tell('u'); }

  /// Memory is compared with what the server has now.
  void remember_memory() {
    server_.forget_peak();
    memory_before_ = server_.resident_bytes();
  }
  /// At its peak the server took no more than `most` bytes beyond what it had at `remember_memory`.
  void check_memory(const char* what, double most) {
    const double grown = server_.peak_resident_bytes() - memory_before_;
    std::printf("%s: memory +%.0f KiB at the peak, %.0f KiB allowed\n", what, grown / kibibyte,
                most / kibibyte);
    if (!is_sanitized) CHECK(grown <= most);
  }

  /// File descriptors beyond those it had before the attack.
  [[nodiscard]] std::size_t more_files() const {
    return server_.open_files() - std::min(server_.open_files(), files_before_);
  }
  /// Waits until the server has closed what the attackers opened.
  void check_files_are_closed() {
    // Each round makes the server do something, so that this is no mere waiting.
    const auto until = std::chrono::steady_clock::now() + patience;
    while (more_files() > 0 && std::chrono::steady_clock::now() < until) check_still_serves();
    CHECK(more_files() == 0);
  }

 private:
  /// Holds hooks until somebody opens it.
  class Gate {
   public:
    void pass() {
      std::unique_lock lock(mutex_);
      opened_.wait(lock, [this] { return is_open_; });
    }
    void open() {
      const std::lock_guard lock(mutex_);
      is_open_ = true;
      opened_.notify_all();
    }

   private:
    std::mutex mutex_;
    std::condition_variable opened_;
    bool is_open_ = false;
  };

  static Map home(Map map) {
    map.push("a", "first a");
    map.push("b", "first b");
    return map;
  }
  static Map home(const std::shared_ptr<Remote>& remote) { return home(Map(remote)); }

  static void serve(support::ChildDuty& duty, const TargetOptions& options) {
    ::malloc_trim(0);  // what earlier tests left free would hide what this server takes
    Gate gate;
    Server server(
        ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                               .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                   ss::tcp::test_data::private_key_pem),
                               .password = std::string(password),
                               .limits = options.limits});
    server.add_hook([&gate](Map& map, const Event& event) {
      if (map.contains("held")) gate.pass();
      map.set(event.content.key, event.content.value);
    });
    Map map = home(Map(ss::Role::master));
    map.freeze();
    const auto handle = server.host(std::move(map));
    server.start();
    if (options.open_files > 0) allow_files(options.open_files);
    duty.listens_at(server.endpoint());
    while (const auto word = duty.next_word()) {
      if (*word == 'g') gate.open();
      if (*word != 'u') continue;
      for (ss::UpdateId i = 0; i < updates; ++i) {
        handle.modify([i](Map& state) { state.set("b", std::to_string(i)); });
      }
    }
    gate.open();
  }

  /// As many descriptors as are free below the limit; some that are open may lie above it.
  static void allow_files(std::size_t more) {
    std::size_t end = 0;
    for (std::size_t free = 0; free < more; ++end)
      free += ::fcntl(static_cast<int>(end), F_GETFD) < 0 ? 1 : 0;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) throw std::runtime_error("getrlimit failed");
    limit.rlim_cur = end;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) throw std::runtime_error("setrlimit failed");
  }

  ss::Limits limits_;
  support::ChildProcess server_;
  std::shared_ptr<std::atomic<int>> lost_ = std::make_shared<std::atomic<int>>(0);
  std::shared_ptr<Remote> honest_;
  ss::MapHash home_hash_;
  std::optional<Replica> replica_;
  int rounds_ = 0;
  double memory_before_ = 0;
  std::size_t files_before_ = 0;
};

}  // namespace hostile

#endif
