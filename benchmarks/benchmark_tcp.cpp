// The whole way over TLS on loopback: servers in processes of their own, clients in the one that measures.
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "support/bare_tls.hpp"
#include "support/child_process.hpp"
#include "support/harness.hpp"
#include "support/sample_map.hpp"
#include "support/statistics.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/test_data.hpp"

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

namespace {

using namespace benchmarks;
using namespace std::chrono_literals;
namespace ss = syncstate;
using Replica = ss::Replica<std::string, std::string>;

/// Sets one key.
struct SetOne {
  std::string key, value;
};
/// Sets as many keys as it says, from the first on.
struct SetMany {
  std::uint32_t count;
  std::string value;
};
using MyEvent = std::variant<SetOne, SetMany>;
using Event = ss::Event<MyEvent>;

constexpr std::size_t keys = 1'000;
constexpr auto patience = 60s;
constexpr const char* password = "benchmark";

void apply(Map& map, const SetOne& event) { map.set(event.key, event.value); }
void apply(Map& map, const SetMany& event) {
  for (std::uint32_t i = 0; i < event.count; ++i) map.set(sample_key(i), event.value);
}

void serve_map(ChildDuty& duty) {
  ss::tcp::TcpStateServer<std::string, std::string, MyEvent> server(
      ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                             .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                 ss::tcp::test_data::private_key_pem),
                             .password = password});
  server.add_hook([](Map& map, const Event& event) {
    std::visit([&](const auto& content) { apply(map, content); }, event.content);
  });
  server.host(fill(Map(ss::Role::master), keys));
  server.start();
  duty.listens_at(server.endpoint());
  duty.wait_for_end();
}

ss::tcp::RemoteOptions options_for(const ChildProcess& server) {
  return {.endpoint = server.endpoint(),
          .tls = ss::tcp::ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
          .password = password};
}

/// A connection that sends events.
class Sender {
 public:
  explicit Sender(const ChildProcess& server)
      : remote_(std::make_shared<ss::tcp::TcpStateRemote>(options_for(server))),
        map_(fill(Map(remote_), keys)),
        last_(map_.sync()) {}

  /// Another event each time, as its number says.
  [[nodiscard]] Event next() {
    ++number_;
    return Event{SetOne{sample_key(number_ % keys), sample_value(number_)}};
  }
  /// Sends an event and waits for its answer.
  ss::UpdateId send() { return send(next()); }
  ss::UpdateId send(const Event& event) { return last_ = remote_->send_event(map_.hash(), event); }

  /// The update id of the last answer.
  [[nodiscard]] ss::UpdateId last() const { return last_; }

  /// Sends `count` events with at most `in_flight` unanswered, each as soon as that allows; `each(time)`
  /// hears how long it took. Returns once all are answered.
  template <class F>
  void send_all(std::size_t count, std::size_t in_flight, F each) {
    const auto run = std::make_shared<Run<F>>(Run<F>{*this, count, count, std::move(each), {}});
    asio::post(remote_->get_executor(), [run, in_flight] {
      for (std::size_t i = 0; i < in_flight; ++i) run->send_next(run);
    });
    run->done.get_future().get();
  }
  void send_all(std::size_t count, std::size_t in_flight) {
    send_all(count, in_flight, [](Clock::duration) {});
  }

 private:
  /// On the remote's own thread, where handlers run: so nothing here needs a lock.
  template <class F>
  struct Run {
    Sender& sender;
    std::size_t unsent;
    std::size_t unanswered;
    F each;
    std::promise<void> done;

    void send_next(const std::shared_ptr<Run>& self) {
      if (unsent == 0) return;
      --unsent;
      sender.remote_->async_send_event(sender.map_.hash(), sender.next(),
                                       [self, start = Clock::now()](std::error_code error, ss::UpdateId id) {
                                         self->answered(self, error, id, Clock::now() - start);
                                       });
    }

    void answered(const std::shared_ptr<Run>& self, std::error_code error, ss::UpdateId id,
                  Clock::duration time) {
      if (unanswered == 0) return;
      if (error) {
        unsent = unanswered = 0;
        return done.set_exception(std::make_exception_ptr(std::system_error(error)));
      }
      each(time);
      sender.last_ = std::max(sender.last_, id);
      send_next(self);
      if (--unanswered == 0) done.set_value();
    }
  };

  std::shared_ptr<ss::tcp::TcpStateRemote> remote_;
  Map map_;
  ss::UpdateId last_;
  std::uint64_t number_ = 0;
};

/// Replicas that follow, each over a connection of its own, all on one thread.
class Followers {
 public:
  Followers(const ChildProcess& server, std::size_t count, ss::ReplicaOptions options = {})
      : work_(context_.get_executor()), thread_([this] { context_.run(); }) {
    for (std::size_t i = 0; i < count; ++i) {
      auto remote = std::make_shared<ss::tcp::TcpStateRemote>(context_, options_for(server));
      remotes_.push_back(remote);
      replicas_.push_back(std::make_unique<Replica>(fill(Map(std::move(remote)), keys), options));
    }
  }
  ~Followers() {
    replicas_.clear();
    remotes_.clear();
    work_.reset();
    thread_.join();
  }
  Followers(const Followers&) = delete;
  Followers& operator=(const Followers&) = delete;

  [[nodiscard]] std::size_t size() const { return replicas_.size(); }

  void wait_for(ss::UpdateId id) {
    for (const auto& replica : replicas_) {
      if (!replica->wait_for(id, patience)) throw std::runtime_error("a replica did not come along");
    }
  }

  /// The moment at which the last replica shows `id`, which must not have come yet.
  [[nodiscard]] std::future<Clock::time_point> arrival_of(ss::UpdateId id) {
    struct Arrival {
      explicit Arrival(std::size_t replicas) : missing(replicas) {}
      std::atomic<std::size_t> missing;
      std::promise<Clock::time_point> moment;
    };
    const auto arrival = std::make_shared<Arrival>(replicas_.size());
    for (const auto& replica : replicas_) {
      replica->on_reached(id, [arrival](std::error_code error) {
        if (!error && --arrival->missing == 0) arrival->moment.set_value(Clock::now());
      });
    }
    return arrival->moment.get_future();
  }

 private:
  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
  std::vector<std::shared_ptr<ss::tcp::TcpStateRemote>> remotes_;
  std::vector<std::unique_ptr<Replica>> replicas_;
};

/// Samples of one way, and its median within this run.
struct Samples {
  std::vector<double> all;
  void add(Clock::duration time) { all.push_back(microseconds(time)); }
};

void add_latency(Report& report, const std::string& name, const Samples& samples) {
  report.add(name + ", p50", "µs", median(samples.all));
  report.add(name + ", p99", "µs", percentile(samples.all, 0.99));
}

void measure_latency(const Settings& settings, Report& report) {
  const ChildProcess echo([](ChildDuty& duty) {
    serve_echo(duty, ss::tcp::test_data::certificate_pem, ss::tcp::test_data::private_key_pem);
  });
  // Two masters, so that an answer is measured where nobody follows, and an idle one costs nothing.
  const ChildProcess alone(serve_map);
  const ChildProcess followed(serve_map);
  EchoClient echo_client(echo.endpoint());
  Sender sender(alone);
  Sender followed_sender(followed);
  Followers followers(followed, 1);
  followers.wait_for(followed_sender.send());

  Samples echoed, answered, answered_async, seen;
  // In short turns, so that what else the machine does hits all of them alike.
  const std::size_t turns = settings.count(20, 1);
  const std::size_t per_turn = settings.count(250, 20);
  for (std::size_t turn = 0; turn < turns; ++turn) {
    for (std::size_t i = 0; i < per_turn; ++i) {
      const auto start = Clock::now();
      echo_client.ping();
      echoed.add(Clock::now() - start);
    }
    for (std::size_t i = 0; i < per_turn; ++i) {
      const auto start = Clock::now();
      sender.send();
      answered.add(Clock::now() - start);
    }
    sender.send_all(per_turn, 1, [&](Clock::duration time) { answered_async.add(time); });
    for (std::size_t i = 0; i < per_turn; ++i) {
      auto arrival = followers.arrival_of(followed_sender.last() + 1);
      const auto start = Clock::now();
      followed_sender.send();
      seen.add(arrival.get() - start);
    }
  }
  add_latency(report, "bare TLS echo of 64 bytes", echoed);
  add_latency(report, "event → answer, `send_event`", answered);
  add_latency(report, "event → answer, `async_send_event`", answered_async);
  add_latency(report, "event → visible on a replica of another connection", seen);
  const double floor = median(echoed.all);
  report.add("`send_event` : bare echo", "", median(answered.all) / floor, "< 3");
  report.add("`async_send_event` : bare echo", "", median(answered_async.all) / floor, "< 3");
  report.add("visible : bare echo", "", median(seen.all) / floor);
}

void measure_throughput(const Settings& settings, Report& report) {
  for (const std::size_t in_flight : {std::size_t{1}, std::size_t{64}, std::size_t{1'024}}) {
    for (const bool is_followed : {false, true}) {
      const ChildProcess server(serve_map);
      Sender sender(server);
      Followers followers(server, is_followed ? 1 : 0);
      const std::size_t count = settings.count(in_flight == 1 ? 5'000 : 100'000, 100);
      sender.send_all(settings.count(2'000, 10), in_flight);
      const auto start = Clock::now();
      sender.send_all(count, in_flight);
      followers.wait_for(sender.last());
      const double rate = static_cast<double>(count) / seconds(Clock::now() - start);
      report.add("one sender, " + std::to_string(in_flight) + " in flight" +
                     (is_followed ? ", and one replica that follows" : ", nobody follows"),
                 "events/s", rate);
    }
  }
}

void measure_fan_out(const Settings& settings, Report& report) {
  const std::size_t replicas = settings.count(100, 5);
  {
    const ChildProcess server(serve_map);
    Sender sender(server);
    Followers followers(server, replicas);
    followers.wait_for(sender.send());

    Samples last;
    const std::size_t count = settings.count(1'000, 10);
    const double cpu = server.cpu_seconds();
    for (std::size_t i = 0; i < count; ++i) {
      auto arrival = followers.arrival_of(sender.last() + 1);
      const auto start = Clock::now();
      sender.send();
      last.add(arrival.get() - start);
    }
    const double used = server.cpu_seconds() - cpu;
    add_latency(report, "event → visible on the last replica, one in flight", last);
    report.add("the server's CPU time meanwhile", "µs/delivery",
               used * 1e6 / static_cast<double>(count * replicas));

    for (const std::size_t in_flight : {std::size_t{64}, std::size_t{1'024}}) {
      const std::size_t events = settings.count(50'000, 100);
      const auto start = Clock::now();
      sender.send_all(events, in_flight);
      followers.wait_for(sender.last());
      report.add("commits until all replicas show the last, " + std::to_string(in_flight) + " in flight",
                 "commits/s", static_cast<double>(events) / seconds(Clock::now() - start));
    }
  }
  {
    const ChildProcess server(serve_map);
    Sender sender(server);
    Followers followers(server, replicas, {.every_step = true});
    followers.wait_for(sender.send());
    const std::size_t events = settings.count(5'000, 100);
    const auto start = Clock::now();
    sender.send_all(events, 64);
    followers.wait_for(sender.last());
    report.add("each commit to each replica (`every_step`), 64 in flight", "deliveries/s",
               static_cast<double>(events * replicas) / seconds(Clock::now() - start));
  }
}

/// The descriptors of this process that are TCP sockets with a peer.
std::set<int> connections() {
  std::set<int> found;
  const std::unique_ptr<DIR, decltype([](DIR* d) { ::closedir(d); })> handles(::opendir("/proc/self/fd"));
  if (!handles) throw std::runtime_error("/proc/self/fd can't be read");
  while (const dirent* entry = ::readdir(handles.get())) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    const int handle = std::atoi(entry->d_name);
    if (::getpeername(handle, reinterpret_cast<sockaddr*>(&peer), &size) == 0 && peer.ss_family == AF_INET) {
      found.insert(handle);
    }
  }
  return found;
}

/// Bytes that came over a TCP connection, as its kernel counts them.
double received_bytes(int handle) {
  // glibc's tcp_info ends before the field, which the kernel has had since 4.1; its place is fixed.
  constexpr std::size_t bytes_received_at = 128;
  std::array<char, 256> info{};
  socklen_t size = info.size();
  if (::getsockopt(handle, IPPROTO_TCP, TCP_INFO, info.data(), &size) != 0 || size < bytes_received_at + 8) {
    throw std::runtime_error("TCP_INFO can't be read");
  }
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, info.data() + bytes_received_at, sizeof bytes);
  return static_cast<double>(bytes);
}

void measure_bytes(const Settings& settings, Report& report) {
  const ChildProcess server(serve_map);
  Followers followers(server, 1);
  const std::set<int> sockets = connections();
  if (sockets.size() != 1) throw std::runtime_error("one connection expected");
  Sender sender(server);
  followers.wait_for(sender.send());

  const std::size_t count = settings.count(1'000, 50);
  double before = received_bytes(*sockets.begin());
  for (std::size_t i = 0; i < count; ++i) followers.wait_for(sender.send());
  report.add("one 16-byte value changed", "bytes/update",
             (received_bytes(*sockets.begin()) - before) / static_cast<double>(count), "< 64");

  before = received_bytes(*sockets.begin());
  for (std::size_t i = 0; i < 10; ++i) {
    followers.wait_for(sender.send(Event{SetMany{static_cast<std::uint32_t>(keys), sample_value(i)}}));
  }
  report.add("1,000 16-byte values changed in one commit", "bytes/value",
             (received_bytes(*sockets.begin()) - before) / static_cast<double>(10 * keys));
}

void measure_memory(const Settings& settings, Report& report) {
  const ChildProcess server(serve_map);
  Sender sender(server);
  Followers first(server, 50);  // what the server makes room for once
  first.wait_for(sender.send());
  const double before = server.resident_bytes();
  Followers more(server, settings.count(1'000, 20));
  more.wait_for(sender.send());
  report.add("server, resident, per idle replica over TLS", "KiB",
             (server.resident_bytes() - before) / 1024 / static_cast<double>(more.size()));
}

}  // namespace

int main(int argc, char** argv) {
  return run_benchmarks(argc, argv,
                        {{"latency", "Latency over TLS, one event in flight", measure_latency},
                         {"latency_one_cpu", "Latency over TLS, one event in flight, everything on one CPU",
                          measure_latency, true},
                         {"throughput", "Events over TLS, pipelined", measure_throughput},
                         {"fan_out", "Fan-out over TLS, 100 replicas", measure_fan_out},
                         {"bytes", "TCP payload to a replica", measure_bytes},
                         {"memory", "Memory", measure_memory}});
}
