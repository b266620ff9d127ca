// One update in flight: from its publisher through the server to a subscriber on another connection, and to the answer.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/statistics.hpp"
#include "systems/system.hpp"
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

/// A system with clients of its own for each way that is measured.
struct LatencyWay {
  SystemKind kind;
  bool has_subscriber;
  bool waits_for_answer;
  std::unique_ptr<System> system = nullptr;
  std::unique_ptr<OneInFlight> updates = nullptr;

  [[nodiscard]] const std::vector<double>& samples() const {
    return has_subscriber ? updates->seen() : updates->answered();
  }
  [[nodiscard]] double percentile(double rank) const {
    return samples().empty() ? missing : benchmarks::percentile(samples(), rank);
  }
};

void measure_ways(const Settings& settings, Report& report, bool is_on_one_cpu) {
  std::vector<LatencyWay> ways;
  for (const bool has_subscriber : {true, false}) {
    for (const SystemKind kind :
         {SystemKind::bare_tcp, SystemKind::bare_tls, SystemKind::redis, SystemKind::redis_state,
          SystemKind::nats, SystemKind::nats_kv, SystemKind::syncstate, SystemKind::syncstate_inline,
          SystemKind::syncstate_spinning}) {
      // There is nobody to spin where all share a CPU.
      if (kind == SystemKind::syncstate_spinning && is_on_one_cpu) continue;
      // Where the floor and core NATS bring an update to a subscriber, nothing is said to its publisher.
      const bool is_silent = is_floor(kind) || kind == SystemKind::nats;
      ways.push_back(LatencyWay{kind, has_subscriber, !has_subscriber || !is_silent});
    }
  }
  for (LatencyWay& way : ways) way.system = start_system(way.kind, {.answers = way.waits_for_answer});
  for (LatencyWay& way : ways) {
    way.updates = std::make_unique<OneInFlight>(way.system.get(), way.waits_for_answer, way.has_subscriber);
  }
  // In short turns, so that what else the machine does hits all of them alike.
  const std::size_t turns = settings.count(20, 1);
  const std::size_t per_turn = settings.count(250, 20);
  for (std::size_t turn = 0; turn < turns; ++turn) {
    for (const LatencyWay& way : ways) way.updates->run(per_turn);
  }

  for (const LatencyWay& way : ways) {
    const std::string what = way.has_subscriber ? "visible to another client" : "answered, nobody follows";
    for (const auto& [rank, text] : {std::pair{0.5, ", p50"}, {0.99, ", p99"}, {0.999, ", p99.9"}}) {
      report.add_beside(name_of(way.kind), what + text, "µs", way.percentile(rank));
    }
  }
  for (const LatencyWay& ours : ways) {
    if (!is_ours(ours.kind)) continue;
    for (const LatencyWay& other : ways) {
      if (is_ours(other.kind) || other.has_subscriber != ours.has_subscriber) continue;
      const bool is_barred = is_on_one_cpu && ours.has_subscriber;
      report.add((ours.has_subscriber ? "visible, p50: " : "answered, p50: ") +
                     std::string(name_of(ours.kind)) + " : " + std::string(name_of(other.kind)),
                 "", ours.percentile(0.5) / other.percentile(0.5),
                 !is_barred || other.kind == SystemKind::bare_tcp ? ""
                 : other.kind == SystemKind::bare_tls             ? "≤ 1.25"
                                                                  : "< 1");
    }
  }
}

}  // namespace

void measure_latency(const Settings& settings, Report& report) { measure_ways(settings, report, false); }
void measure_latency_on_one_cpu(const Settings& settings, Report& report) {
  measure_ways(settings, report, true);
}

}  // namespace benchmarks
