// What a thread waits that calls `send_event`, or that and `wait_for`, with threads of the library's own behind it.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/statistics.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "systems/syncstate_server.hpp"
#include "systems/system.hpp"
#include "tcp/cases.hpp"

namespace benchmarks {
namespace {

namespace ss = syncstate;
using namespace std::chrono_literals;

/// A sender and a replica, each with a connection and a thread of its own.
class Caller {
 public:
  Caller(const std::string& endpoint, std::chrono::microseconds spin)
      : remote_(connect(endpoint, spin)),
        map_(fill(Map(remote_), sample_keys)),
        replica_(fill(Map(connect(endpoint, spin)), sample_keys)) {}

  void run(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto start = Clock::now();
      const ss::Position at = remote_->send_event(map_.hash(), set_sample(++number_, sample_keys));
      answered_.push_back(microseconds(Clock::now() - start));
      if (!replica_.wait_for(at, 10s)) throw std::runtime_error("a replica did not come along");
      seen_.push_back(microseconds(Clock::now() - start));
    }
  }

  [[nodiscard]] const std::vector<double>& answered() const { return answered_; }
  [[nodiscard]] const std::vector<double>& seen() const { return seen_; }

 private:
  static std::shared_ptr<ss::tcp::TcpStateRemote> connect(const std::string& endpoint,
                                                          std::chrono::microseconds spin) {
    auto options = sample_remote_options(endpoint);
    options.spin = spin;
    return std::make_shared<ss::tcp::TcpStateRemote>(std::move(options));
  }

  std::shared_ptr<ss::tcp::TcpStateRemote> remote_;
  Map map_;
  ss::Replica<std::string, std::string> replica_;
  std::uint64_t number_ = 0;
  std::vector<double> answered_;
  std::vector<double> seen_;
};

void measure_blocking_ways(const Settings& settings, Report& report, bool is_on_one_cpu) {
  struct Way {
    SystemKind kind;
    std::chrono::microseconds spin;
    std::unique_ptr<ForkedServer> server = nullptr;
    std::unique_ptr<Caller> caller = nullptr;
  };
  std::vector<Way> ways;
  ways.push_back({SystemKind::syncstate, 0us});
  ways.push_back({SystemKind::syncstate_inline, 0us});
  // Nobody can spin where all share a CPU.
  if (!is_on_one_cpu) ways.push_back({SystemKind::syncstate_spinning, 100us});
  // Servers first: a process with threads is not forked.
  for (Way& way : ways) {
    way.server = std::make_unique<ForkedServer>([&way](ChildDuty& duty) {
      auto options = sample_server_options();
      options.hooks_on_io_threads = way.kind != SystemKind::syncstate;
      options.spin = way.spin;
      serve_sample_map(duty, sample_keys, std::move(options));
    });
  }
  for (Way& way : ways) {
    way.caller = std::make_unique<Caller>(way.server->endpoint(), way.spin);
    Caller(way.server->endpoint(), way.spin).run(20);  // so that the server is warm
  }
  const std::size_t turns = settings.count(20, 1);
  for (std::size_t turn = 0; turn < turns; ++turn) {
    for (const Way& way : ways) way.caller->run(settings.count(250, 20));
  }
  for (const Way& way : ways) {
    for (const auto& [rank, text] : {std::pair{0.5, ", p50"}, {0.99, ", p99"}, {0.999, ", p99.9"}}) {
      report.add_beside(name_of(way.kind), std::string("`send_event` returns") + text, "µs",
                        percentile(way.caller->answered(), rank));
    }
    for (const auto& [rank, text] : {std::pair{0.5, ", p50"}, {0.99, ", p99"}, {0.999, ", p99.9"}}) {
      report.add_beside(name_of(way.kind),
                        std::string("`wait_for` on another connection's replica, too") + text, "µs",
                        percentile(way.caller->seen(), rank));
    }
  }
}

}  // namespace

void measure_latency_blocking(const Settings& settings, Report& report) {
  measure_blocking_ways(settings, report, false);
}
void measure_latency_blocking_on_one_cpu(const Settings& settings, Report& report) {
  measure_blocking_ways(settings, report, true);
}

}  // namespace benchmarks
