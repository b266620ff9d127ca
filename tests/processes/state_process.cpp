// One process of a service over TLS: a master, a replica or a sender, told what to do by lines on its standard input.
//
//   state_process master  listen=HOST:PORT
//   state_process replica connect=HOST:PORT [every_step=1]
//   state_process sender  connect=HOST:PORT name=NAME slot=N seed=N timeout=MS [follow=1] [steady=1]
//   and all of them: heartbeat=MS silence=MS
//
// The first line it reads is `pem` and the certificate (for a master the private key, too), in hexadecimal. Then:
//
//   quit               every role: ends with exit code 0
//   dump               master: its state, as `head EPOCH ID DIGEST`
//   where              replica: what it shows, as `at EPOCH ID DIGEST`
//   send COUNT         sender: so many events, without waiting for their answers
//
// What it writes is described where it is written; `violation TEXT` is what must never be. A line is written at once
// and whole, so what a process said is known, however suddenly it died.
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "processes/model.hpp"
#include "syncstate/tcp.hpp"

namespace ss = syncstate;
using namespace std::chrono_literals;
using processes::Act;
using processes::Kind;

namespace {

using Map = ss::StateMap<std::string, std::string>;
using Server = ss::tcp::TcpStateServer<std::string, std::string, Act>;
using Remote = ss::tcp::TcpStateRemote;
using Replica = ss::Replica<std::string, std::string>;
using View = ss::View<std::string, std::string>;

constexpr const char* password = "a password for tests";

/// Writes a line in one piece. Whoever does not read it holds us up, as a full disk would.
void say(const std::string& line) {
  static std::mutex mutex;
  const std::string text = line + "\n";
  const std::lock_guard lock(mutex);
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) std::_Exit(3);  // nobody listens any more
    written += static_cast<std::size_t>(n);
  }
}

template <class... Parts>
void say_all(const Parts&... parts) {
  std::ostringstream line;
  line << std::dec;
  const char* gap = "";
  ((line << gap << parts, gap = " "), ...);
  say(line.str());
}

std::string from_hex(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

/// The arguments `name=value`, and what came as the first line.
struct Options {
  std::map<std::string, std::string> values;
  std::string certificate_pem;
  std::string key_pem;

  [[nodiscard]] std::string text(const std::string& name) const {
    const auto found = values.find(name);
    return found == values.end() ? "" : found->second;
  }
  [[nodiscard]] std::uint64_t number(const std::string& name) const {
    const std::string value = text(name);
    return value.empty() ? 0 : std::stoull(value);
  }
  [[nodiscard]] std::chrono::milliseconds time(const std::string& name) const {
    return std::chrono::milliseconds(number(name));
  }
  [[nodiscard]] ss::Limits limits() const {
    ss::Limits limits;
    limits.heartbeat_every = time("heartbeat");
    limits.silence = time("silence");
    return limits;
  }
};

/// Calls `obey(command, rest)` for each line until `quit`, or until the driver is gone.
template <class F>
void obey_lines(F obey) {
  std::string line;
  while (std::getline(std::cin, line) && line != "quit") {
    std::istringstream words(line);
    std::string command;
    words >> command;
    obey(command, words);
  }
}

// The master.

/// What hooks read and set, as processes::apply_first and its like expect it.
auto reading(const Map& map) {
  return [&map](const std::string& key) { return map.at(key); };
}
auto setting(Map& map) {
  return [&map](const std::string& key, std::string value) { map.set(key, std::move(value)); };
}

void run_first_hook(Map& map, const Act& act) {
  if (act.kind == Kind::pass) return;
  if (act.kind == Kind::slow) {
    const std::uint64_t digest = processes::digest_of(map);
    for (int i = 0; i < 60; ++i) {
      if (processes::digest_of(map) != digest) say("violation a map changed under its hook");
    }
  }
  processes::apply_first(act, reading(map), setting(map));
}

void run_second_hook(Map& map, const Act& act) {
  if (act.kind == Kind::pass) {
    // No hook set anything: EPOCH, the head, SENDER, NUMBER.
    say_all("passed", map.epoch(), map.update_id(), act.sender, act.number);
    return;
  }
  if (act.kind == Kind::fail) {
    // A hook threw, after what the first had set: EPOCH, SENDER, NUMBER.
    say_all("threw", map.epoch(), act.sender, act.number);
    throw std::runtime_error("as " + act.sender + " wished");
  }
  processes::apply_second(act, reading(map), setting(map));
  // The last hook is about to return: EPOCH, the id it commits as, and the event.
  say_all("ran", map.epoch(), map.update_id() + 1, act.sender, act.number, act.slot,
          static_cast<unsigned>(act.kind), act.size);
}

int run_master(const Options& options) {
  std::mutex mutex;  // these outlive the server, whose init hook may still run when it is told to end
  std::optional<ss::MasterHandle<std::string, std::string>> handle;
  Server server(
      ss::tcp::ServerOptions{.endpoint = options.text("listen"),
                             .tls = ss::tcp::ServerTls::from_pem(options.certificate_pem, options.key_pem),
                             .password = password,
                             .io_threads = 2,
                             .limits = options.limits()});
  server.add_hook([](Map& map, const ss::Event<Act>& event) { run_first_hook(map, event.content); });
  server.add_hook([](Map& map, const ss::Event<Act>& event) { run_second_hook(map, event.content); });
  server.add_init_hook([&](ss::MasterHandle<std::string, std::string> hosted) {
    say_all("epoch", hosted.epoch());  // the map came to live here
    const std::lock_guard lock(mutex);
    handle = std::move(hosted);
  });
  server.start();
  say_all("listening", server.endpoint());
  obey_lines([&](const std::string& command, std::istream&) {
    if (command != "dump") return;
    std::optional<ss::MasterHandle<std::string, std::string>> hosted;
    {
      const std::lock_guard lock(mutex);
      hosted = handle;
    }
    if (!hosted) return say("head 0 0 0");
    hosted->modify([](Map& map) {
      const std::string fault = processes::fault_of(reading(map));
      if (!fault.empty()) say_all("violation", "the master's state:", fault);
      say_all("head", map.epoch(), map.update_id(), processes::digest_of(map));
    });
  });
  return 0;
}

// The clients.

std::shared_ptr<Remote> make_remote(const Options& options) {
  return std::make_shared<Remote>(
      ss::tcp::RemoteOptions{.endpoint = options.text("connect"),
                             .tls = ss::tcp::ClientTls::from_pem(options.certificate_pem),
                             .password = password,
                             .event_timeout = options.time("timeout"),
                             .backoff = {.first = 20ms, .most = 500ms},
                             .limits = options.limits()});
}

/// The map at its initial state. Whether a server is there shows later.
Map make_map(const std::shared_ptr<Remote>& remote) {
  Map map(remote);
  for (auto& [key, value] : processes::initial_state()) map.push(key, value);
  map.freeze(0ms);
  return map;
}

/// Checks what one reader is shown, one view after the other: whole, and never older than before.
class Watcher {
 public:
  explicit Watcher(std::string who) : who_(std::move(who)) {}

  void look_at(const View& view) {
    if (view.epoch() == epoch_ && view.update_id() == update_id_) return;
    if (view.epoch() == epoch_) {
      if (view.update_id() < update_id_) {
        say_all("violation", who_, "was shown", view.update_id(), "after", update_id_);
      }
    } else if (!epochs_.insert(view.epoch()).second) {
      say_all("violation", who_, "was shown epoch", view.epoch(), "again");
    }
    epoch_ = view.epoch();
    update_id_ = view.update_id();
    const std::string fault = processes::fault_of([&](const std::string& key) { return view.at(key); });
    if (!fault.empty()) say_all("violation", who_, "was shown", epoch_, update_id_, fault);
  }

  [[nodiscard]] ss::UpdateId update_id() const { return update_id_; }

 private:
  std::string who_;
  ss::Epoch epoch_ = 0;
  ss::UpdateId update_id_ = 0;
  std::set<ss::Epoch> epochs_{0};
};

/// What the callbacks of a replica were told, kept beside what it shows.
class Follower {
 public:
  explicit Follower(Replica& replica) : replica_(&replica) {}

  void on_update(const ss::Diff<std::string, std::string>& diff, const View& before) {
    const View view = replica_->view();
    if (view.epoch() != diff.epoch() || view.update_id() != diff.upto_update_id()) {
      say_all("violation", "a callback for", diff.epoch(), diff.upto_update_id(), "was shown", view.epoch(),
              view.update_id());
    }
    if (before.epoch() == diff.epoch() && before.update_id() != diff.from_update_id()) {
      say_all("violation", "a diff from", diff.from_update_id(), "replaced the view at", before.update_id());
    }
    // A replica that was quicker than `on_update` had applied something by then.
    if (told_.empty()) told_ = {before.begin(), before.end()};
    for (const auto& [key, value] : diff.changes()) told_.at(key) = value;
    const std::uint64_t digest = processes::digest_of(view);
    if (processes::digest_of(told_) != digest) {
      say_all("violation", "the diffs up to", diff.upto_update_id(), "don't add up to the view");
    }
    watcher_.look_at(view);
    // A state was applied and is shown: EPOCH, ID, DIGEST.
    say_all("seen", view.epoch(), view.update_id(), digest);
  }

 private:
  Replica* replica_;
  std::map<std::string, std::string> told_;
  Watcher watcher_{"a callback"};
};

/// Reads while states are replaced: whenever there is a new one, several times in a row.
void read_on(Replica& replica, const std::atomic<bool>& is_done) {
  Watcher watcher("a reader");
  while (!is_done) {
    try {
      replica.wait_for(watcher.update_id() + 1, 200ms);
    } catch (const ss::StateError& error) {
      if (error.code() == ss::StateErrc::stopped) return;
      if (error.code() != ss::StateErrc::epoch_changed) say_all("violation", "wait_for:", error.what());
    }
    for (int i = 0; i < 20; ++i) watcher.look_at(replica.view());
  }
}

int run_replica(const Options& options) {
  const auto remote = make_remote(options);
  Replica replica(make_map(remote), ss::ReplicaOptions{.every_step = options.number("every_step") != 0,
                                                       .on_error = [](const std::exception_ptr&) {
                                                         say("violation a callback threw");
                                                       }});
  const auto follower = std::make_shared<Follower>(replica);
  replica.on_update([follower](const auto& diff, const auto& before) { follower->on_update(diff, before); });
  std::atomic<bool> is_done = false;
  std::thread reading([&] { read_on(replica, is_done); });
  say("ready");
  obey_lines([&](const std::string& command, std::istream&) {
    if (command != "where") return;
    const View view = replica.view();
    say_all("at", view.epoch(), view.update_id(), processes::digest_of(view));
  });
  is_done = true;
  reading.join();
  return 0;
}

int run_sender(const Options& options) {
  const auto remote = make_remote(options);
  Map map = make_map(remote);
  const ss::MapHash hash = map.hash();
  std::shared_ptr<Replica> follower;
  std::optional<Map> kept;  // a copy that lives, so that a restarted master can be given the map
  if (options.number("follow") != 0) {
    follower = std::make_shared<Replica>(std::move(map));
  } else {
    try {
      map.freeze(1ms);  // without a replica, this is what makes the map known to the remote
    } catch (const ss::StateError& error) {
      if (error.code() != ss::StateErrc::unavailable) say_all("note", "freeze:", error.what());
    }
    kept = std::move(map);
  }
  std::mt19937_64 rng(options.number("seed"));
  const bool is_steady = options.number("steady") != 0;
  Act act{.sender = options.text("name"), .slot = static_cast<std::uint32_t>(options.number("slot"))};
  say("ready");
  obey_lines([&](const std::string& command, std::istream& rest) {
    int count = 0;
    if (command != "send" || !(rest >> count)) return;
    for (; count > 0; --count) {
      ++act.number;
      const auto dice = rng() % 100;
      act.kind = dice < 68   ? Kind::count
                 : dice < 88 ? Kind::note
                 : dice < 90 ? Kind::blob
                 : dice < 91 ? Kind::slow
                 : dice < 95 ? Kind::fail
                             : Kind::pass;
      act.size = act.kind != Kind::blob ? 0
                 : is_steady            ? 20'000
                                        : static_cast<std::uint32_t>(rng() % 150'000);
      const ss::Event<Act> event{act};
      remote->async_send_event(
          hash, event,
          [number = act.number, weak = std::weak_ptr(follower)](std::error_code error, ss::UpdateId id) {
            if (!error) {
              // NUMBER was answered with ID; and where a replica lives here, it showed EPOCH ID by then.
              if (const auto replica = weak.lock()) {
                const View view = replica->view();
                say_all("answered", number, id, view.epoch(), view.update_id());
              } else {
                say_all("answered", number, id);
              }
            } else if (error == ss::StateErrc::outcome_unknown) {
              say_all("unknown", number);
            } else if (error == ss::StateErrc::hook_failed) {
              say_all("failed", number);
            } else if (error == ss::StateErrc::unavailable || error == ss::StateErrc::stopped) {
              say_all("refused", number, error.message());  // it did not run
            } else {
              say_all("violation event", number, "ended with", error.message());
            }
          });
    }
  });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw std::runtime_error("state_process master|replica|sender name=value...");
    const std::string role = argv[1];
    Options options;
    for (int i = 2; i < argc; ++i) {
      const std::string argument = argv[i];
      const std::size_t equals = argument.find('=');
      if (equals == std::string::npos) throw std::runtime_error("not name=value: " + argument);
      options.values[argument.substr(0, equals)] = argument.substr(equals + 1);
    }
    std::string line;
    std::getline(std::cin, line);
    std::istringstream words(line);
    std::string pem;
    std::string certificate;
    std::string private_key;
    words >> pem >> certificate >> private_key;
    if (pem != "pem") throw std::runtime_error("the first line is not a certificate");
    options.certificate_pem = from_hex(certificate);
    options.key_pem = from_hex(private_key);
    if (role == "master") return run_master(options);
    if (role == "replica") return run_replica(options);
    if (role == "sender") return run_sender(options);
    throw std::runtime_error("no such role: " + role);
  } catch (const std::exception& error) {
    say_all("violation", "ended by", error.what());
    return 2;
  }
}
