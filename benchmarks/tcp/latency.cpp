// One update in flight: from its publisher through the server to a subscriber on another connection, and to the answer.
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/statistics.hpp"
#include "systems/systems.hpp"
#include "tcp/cases.hpp"

namespace benchmarks {
namespace {

/// Sends one update after the other, each when the last has come and, where that is waited for, been answered.
class OneInFlight final : public Witness {
 public:
  OneInFlight(System* system, bool waits_for_answer, bool has_subscriber)
      : system_(system), waits_for_answer_(waits_for_answer), has_subscriber_(has_subscriber) {
    if (system == nullptr) return;
    system->add_publisher();
    if (has_subscriber) system->add_subscribers(1);
    run(50);
    seen_.clear();
    answered_.clear();
  }

  void answered(std::size_t /*publisher*/, std::size_t count) override {
    has_answer_ = true;
    if (waits_for_answer_)
      answered_.push_back(microseconds(Clock::now() - start_) / static_cast<double>(count));
  }
  void delivered(std::size_t /*subscriber*/, std::uint64_t number) override {
    if (number < number_ || is_seen_) return;
    is_seen_ = true;
    seen_.push_back(microseconds(Clock::now() - start_));
  }

  void run(std::size_t count) {
    if (system_ == nullptr) return;
    for (std::size_t i = 0; i < count; ++i) {
      ++number_;
      has_answer_ = !waits_for_answer_;
      is_seen_ = !has_subscriber_;
      start_ = Clock::now();
      system_->publish(0, number_);
      system_->flush();
      while (!has_answer_ || !is_seen_) system_->turn(System::endless, *this);
    }
  }

  /// Until the subscriber has it.
  [[nodiscard]] const std::vector<double>& seen() const { return seen_; }
  [[nodiscard]] const std::vector<double>& answered() const { return answered_; }

 private:
  System* system_;
  bool waits_for_answer_;
  bool has_subscriber_;
  std::uint64_t number_ = 0;
  Clock::time_point start_;
  bool has_answer_ = false;
  bool is_seen_ = false;
  std::vector<double> seen_;
  std::vector<double> answered_;
};

void add_row(Report& report, const std::string& name, const std::vector<double>& samples) {
  for (const auto& [rank, text] : {std::pair{0.5, ", p50"}, {0.99, ", p99"}, {0.999, ", p99.9"}}) {
    report.add(name + text, "µs", samples.empty() ? missing : percentile(samples, rank));
  }
}

void measure(const Settings& settings, Report& report, bool is_barred) {
  Systems systems;
  struct Row {
    std::string name;
    System* system;
    bool has_subscriber;
    bool waits_for_answer;
  };
  // All servers first, then the clients.
  std::vector<Row> rows;
  const auto add = [&](const char* name, SystemKind kind, bool has_subscriber, bool waits_for_answer) {
    rows.push_back(
        Row{name, systems.start(kind, {.answers = waits_for_answer}), has_subscriber, waits_for_answer});
  };
  add("visible: bare TLS", SystemKind::bare_tls, true, false);
  add("visible: bare TCP", SystemKind::bare_tcp, true, false);
  add("visible: Redis PUBLISH", SystemKind::redis, true, true);
  add("visible: Redis SET + PUBLISH", SystemKind::redis_set, true, true);
  add("visible: NATS", SystemKind::nats, true, false);
  add("visible: JetStream KV", SystemKind::nats_kv, true, true);
  add("visible: syncstate", SystemKind::syncstate, true, true);
  add("answered: bare TLS", SystemKind::bare_tls, false, true);
  add("answered: bare TCP", SystemKind::bare_tcp, false, true);
  add("answered: Redis PUBLISH", SystemKind::redis, false, true);
  add("answered: Redis SET + PUBLISH", SystemKind::redis_set, false, true);
  add("answered: JetStream KV", SystemKind::nats_kv, false, true);
  add("answered: syncstate", SystemKind::syncstate, false, true);

  std::vector<std::unique_ptr<OneInFlight>> all;
  for (const Row& row : rows) {
    all.push_back(std::make_unique<OneInFlight>(row.system, row.waits_for_answer, row.has_subscriber));
  }
  // In short turns, so that what else the machine does hits all of them alike.
  const std::size_t turns = settings.count(20, 1);
  const std::size_t per_turn = settings.count(250, 20);
  for (std::size_t turn = 0; turn < turns; ++turn) {
    for (const auto& one : all) one->run(per_turn);
  }
  std::map<std::string, double> p50;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& samples = rows[i].has_subscriber ? all[i]->seen() : all[i]->answered();
    add_row(report, rows[i].name, samples);
    p50[rows[i].name] = samples.empty() ? missing : median(samples);
  }
  const auto compare = [&](const std::string& what, const std::string& other, const char* bar) {
    report.add(what + ", p50: syncstate : " + other, "",
               p50.at(what + ": syncstate") / p50.at(what + ": " + other), is_barred ? bar : "");
  };
  compare("visible", "bare TLS", "≤ 1.25");
  compare("visible", "Redis PUBLISH", "< 1");
  compare("visible", "Redis SET + PUBLISH", "< 1");
  compare("visible", "NATS", "< 1");
  compare("visible", "JetStream KV", "< 1");
  compare("answered", "bare TLS", "");
}

}  // namespace

void measure_latency(const Settings& settings, Report& report) { measure(settings, report, false); }
void measure_latency_on_one_cpu(const Settings& settings, Report& report) { measure(settings, report, true); }

}  // namespace benchmarks
