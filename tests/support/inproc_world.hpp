// A server and its clients on virtual time, with the types that the tests of roles and guarantees use.
#ifndef SYNCSTATE_TESTS_SUPPORT_INPROC_WORLD_HPP
#define SYNCSTATE_TESTS_SUPPORT_INPROC_WORLD_HPP

#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/inproc.hpp"
#include "syncstate/replica.hpp"
#include "syncstate/syncstate.hpp"

namespace syncstate::testing {

using namespace std::chrono_literals;

/// The tests' event: `set` a key, set `all` of them, set `nothing`, or set the key and `fail`.
struct Command {
  std::string what;
  std::string key;
  std::string value;
};

using Map = StateMap<std::string, std::string>;
using Change = Event<Command>;
using Server = inproc::StateServer<std::string, std::string, Command>;
using Remote = inproc::StateRemote;
using Follower = Replica<std::string, std::string>;
using Handle = MasterHandle<std::string, std::string>;

inline const std::string password = "HelloWorld";

inline std::string key_name(std::size_t i) {
  return "key" + std::string(i < 10 ? "0" : "") + std::to_string(i);
}

inline void push_keys(Map& map, std::size_t keys, const std::string& initial = "-") {
  for (std::size_t i = 0; i < keys; ++i) map.push(key_name(i), initial);
}

inline Map make_master(std::size_t keys = 4, const std::string& initial = "-", MapOptions options = {}) {
  Map map(Role::master, options);
  push_keys(map, keys, initial);
  map.freeze();
  return map;
}

/// The values in the order of the keys.
template <class M>
std::vector<std::string> values_of(const M& map) {
  std::vector<std::string> values;
  for (const auto& [key, value] : map) values.push_back(value);
  return values;
}

/// The code that `call` throws; none if it returns.
template <class F>
std::error_code error_of(F&& call) {
  try {
    call();
  } catch (const StateError& error) {
    return error.code();
  }
  return {};
}

/// What `call` says besides the code that it throws.
template <class F>
std::string detail_of(F&& call) {
  try {
    call();
  } catch (const StateError& error) {
    return error.detail();
  }
  return "nothing was thrown";
}

/// One server at a time behind a port. Remotes and replicas are made after it and so end before it.
struct World {
  explicit World(ServerCoreOptions options = {}) { restart(std::move(options)); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() {
    server.reset();
    time.run_ready();  // its links hear of it, on whichever lane they are
  }

  /// The next server of this port, with maps and epochs of its own.
  void restart(ServerCoreOptions options = {}, bool is_started = true) {
    server.reset();
    if (options.passwords.empty()) options.passwords = {password};
    server = std::make_unique<Server>(time, port, std::move(options));
    server->add_hook([this](Map& map, const Change& event) { run(map, event.content); });
    if (is_started) server->start();
  }

  std::shared_ptr<Remote> connect(RemoteCoreOptions options = {}) {
    if (options.password.empty()) options.password = password;
    options.seed = 1;
    return std::make_shared<Remote>(time, port, std::move(options));
  }

  /// A replica map that the server hosts.
  Map make_map(const std::shared_ptr<Remote>& remote, std::size_t keys = 4,
               const std::string& initial = "-") {
    Map map(remote);
    push_keys(map, keys, initial);
    map.freeze();
    return map;
  }

  /// Hosts a map that equals those of `make_map`.
  Handle host(std::size_t keys = 4, const std::string& initial = "-", MapOptions options = {}) {
    return server->host(make_master(keys, initial, options));
  }

  /// Runs `count` tasks; returns false when nothing was left to do within `limit`.
  bool run_steps(std::size_t count, Duration limit = 0ms) {
    std::size_t steps = 0;
    return time.run_until([&] { return steps++ == count; }, limit);
  }

  template <class F>
  bool wait(F is_done, Duration limit = 120s) {
    return time.run_until(std::move(is_done), limit);
  }

  void run(Map& map, const Command& command) {
    runs.push_back(command.value);
    if (command.what == "set" || command.what == "fail") map.set(command.key, command.value);
    if (command.what == "all") {
      std::vector<std::string> keys;
      for (const auto& [key, value] : map) keys.push_back(key);
      for (const std::string& key : keys) map.set(key, command.value);
    }
    if (command.what == "fail") throw std::runtime_error(command.value);
  }

  inproc::VirtualTime time;
  std::shared_ptr<inproc::VirtualExecutor> clock = time.make_executor();  ///< for what a test does at a time
  std::shared_ptr<inproc::Port> port = std::make_shared<inproc::Port>();
  std::vector<std::string> runs;  ///< the value of every command that hooks were run for
  std::unique_ptr<Server> server;
};

inline Change set_key(const std::string& key, const std::string& value) {
  return Change{{"set", key, value}};
}
inline Change set_all(const std::string& value) { return Change{{"all", "", value}}; }

/// An event on its way, and how it ended.
struct Sent {
  static Sent send(World&, const std::shared_ptr<Remote>& remote, const MapHash& hash, const Change& event) {
    Sent sent;
    const auto call = std::make_shared<detail::EventCall>(serialize_event(event));
    sent.done = call;
    remote->core().send_event(hash, call);
    return sent;
  }
  [[nodiscard]] bool is_finished() const { return done->is_finished(); }
  [[nodiscard]] UpdateId result() const { return done->result(); }
  [[nodiscard]] Position position() const { return done->result(); }
  [[nodiscard]] std::error_code error() const {
    return error_of([this] { done->result(); });
  }

  std::shared_ptr<detail::Operation> done;
};

}  // namespace syncstate::testing

#endif
