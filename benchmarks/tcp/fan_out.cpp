// One publisher, many subscribers: what a delivery costs, how late the last one comes, and how fast it goes.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/statistics.hpp"
#include "systems/system.hpp"
#include "tcp/cases.hpp"

namespace benchmarks {
namespace {

/// What a while of publishing came to.
struct Flow {
  double updates_per_second = missing;     ///< until every subscriber has the last
  double deliveries_per_second = missing;  ///< how often a subscriber was told of something
  double server_us_per_update = missing;
  double server_us_per_delivery = missing;
  /// Of every delivery: the age of the oldest update that came with it.
  double lag_p50_ms = missing;
  double lag_p99_ms = missing;
  /// Until the last subscriber has an update.
  double last_p50_ms = missing;
  double last_p99_ms = missing;
};

constexpr Clock::duration second = std::chrono::seconds(1);
constexpr double never = std::numeric_limits<double>::infinity();

double milliseconds(Clock::duration time) { return microseconds(time) / 1e3; }

/// Anything is faster than nothing.
bool is_faster(const Flow& flow, const Flow& than) {
  return !(flow.updates_per_second <= than.updates_per_second);
}

class FanOut final : public Witness {
 public:
  FanOut(System& system, std::size_t subscribers)
      : system_(system),
        apart_(system.make_apart_publisher()),
        seen_(subscribers, 0),
        published_at_(most_published),
        arrived_(most_published) {
    system.add_publisher();
    before_ = system.server_resident_bytes();
    system.add_subscribers(subscribers);
    idle_ = system.server_resident_bytes();
    flow_limited(std::chrono::milliseconds(20), 1);
  }

  /// The server's memory for each subscriber now, and before anything was published.
  [[nodiscard]] double bytes_per_subscriber() const {
    return per_subscriber(system_.server_resident_bytes());
  }
  [[nodiscard]] double idle_bytes_per_subscriber() const { return per_subscriber(idle_); }

  void answered(std::size_t /*publisher*/, std::size_t count) override {
    unanswered_ -= std::min(count, unanswered_);
  }

  void delivered(std::size_t subscriber, std::uint64_t number) override {
    std::uint64_t& seen = seen_[subscriber];
    if (number <= seen) return;
    const auto now = Clock::now();
    last_news_ = now;
    ++deliveries_;
    lags_.push_back(static_cast<float>(milliseconds(now - published_at_[seen + 1])));
    if (tells_last_ || !system_.merges()) {
      for (std::uint64_t one = seen + 1; one <= number; ++one) {
        if (++arrived_[one] < seen_.size()) continue;
        ++everywhere_;
        lasts_.push_back(milliseconds(now - published_at_[one]));
      }
    }
    seen = number;
  }

  /// Publishes so many updates a second, whether the subscribers keep up or not.
  Flow flow_paced(Clock::duration time, double per_second) {
    tells_last_ = true;
    begin();
    const auto step =
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / per_second));
    auto due = start_;
    while (due < start_ + time && !is_stuck()) {
      for (const auto now = Clock::now(); due <= now && due < start_ + time; due += step) publish();
      system_.flush();
      system_.turn(due - Clock::now(), *this);
    }
    return end();
  }

  /// Publishes as fast as at most `in_flight` updates are not with all of the subscribers, where each is brought to each
  /// of them. Where these are sure to get the newest state, as fast as so many are not answered: there the publisher
  /// need not know what subscribers do, and works apart from them.
  Flow flow_limited(Clock::duration time, std::size_t in_flight) {
    tells_last_ = false;
    begin();
    if (apart_ != nullptr) {
      std::atomic<bool> stop = false;
      std::thread thread([&] { apart_->run(in_flight, stop, [&] { return take_number(); }); });
      while (Clock::now() < start_ + time && published_ + in_flight < most_published)
        system_.turn(second / 100, *this);
      stop = true;
      thread.join();
      return end();
    }
    while (Clock::now() < start_ + time && !is_stuck()) {
      while (out() < in_flight) publish();
      system_.flush();
      system_.turn(second, *this);
    }
    return end();
  }

 private:
  [[nodiscard]] double per_subscriber(double bytes) const {
    return (bytes - before_) / static_cast<double>(seen_.size());
  }

  /// What an update is called that is published now.
  std::uint64_t take_number() {
    const std::uint64_t number = published_ + 1;
    published_at_.at(number) = Clock::now();
    published_ = number;
    return number;
  }

  /// Where the newest state is sure to come, what is not answered; else what is not with all subscribers.
  [[nodiscard]] std::size_t out() const {
    return system_.merges() ? unanswered_ : static_cast<std::size_t>(published_ - everywhere_);
  }

  void publish() {
    ++unanswered_;
    system_.publish(0, take_number());
  }

  [[nodiscard]] bool is_up_to_date() const {
    return std::all_of(seen_.begin(), seen_.end(), [&](std::uint64_t seen) { return seen == published_; });
  }

  /// Nothing has come for long, though something is due: a subscriber was left out.
  [[nodiscard]] bool is_stuck() const {
    return Clock::now() > std::max(start_, last_news_) + 10 * second && !is_up_to_date();
  }

  void begin() {
    lags_.clear();
    lasts_.clear();
    deliveries_ = 0;
    everywhere_ = published_;
    published_before_ = published_;
    cpu_ = system_.server_cpu_seconds();
    start_ = Clock::now();
  }

  Flow end() {
    while (!is_up_to_date() && !is_stuck()) system_.turn(second, *this);
    if (is_stuck()) return Flow{0, 0, never, never, never, never, never, never};
    const double time = seconds(Clock::now() - start_);
    const double cpu_us = (system_.server_cpu_seconds() - cpu_) * 1e6;
    const auto all = static_cast<double>(published_ - published_before_);
    const auto told = static_cast<double>(deliveries_);
    const std::vector<double> lags(lags_.begin(), lags_.end());
    Flow flow{all / time, told / time, cpu_us / all, cpu_us / told, median(lags), percentile(lags, 0.99)};
    if (!lasts_.empty()) {
      flow.last_p50_ms = median(lasts_);
      flow.last_p99_ms = percentile(lasts_, 0.99);
    }
    return flow;
  }

  static constexpr std::size_t most_published = 5'000'000;

  System& system_;
  std::unique_ptr<ApartPublisher> apart_;
  std::vector<std::uint64_t> seen_;  // of each subscriber
  double before_ = 0;
  double idle_ = 0;
  std::atomic<std::uint64_t> published_ = 0;
  std::uint64_t published_before_ = 0;  // this flow
  std::uint64_t everywhere_ = 0;  // where each update is brought to each subscriber: that many they all have
  std::size_t unanswered_ = 0;
  std::size_t deliveries_ = 0;
  bool tells_last_ = false;
  std::vector<Clock::time_point>
      published_at_;                    // of each update; a subscriber looks after the publisher has written
  std::vector<std::uint32_t> arrived_;  // subscribers that have each update
  std::vector<float> lags_;
  std::vector<double> lasts_;
  Clock::time_point last_news_;
  double cpu_ = 0;
  Clock::time_point start_;
};

/// What a system gave.
struct Figures {
  double idle_bytes = missing;          // of the server, for each subscriber
  double loaded_bytes = missing;        // the same after all the flows
  Flow paced;                           // at a pace that all are asked to keep
  std::map<std::size_t, Flow> limited;  // by the number in flight

  /// The faster of the two.
  [[nodiscard]] Flow best() const {
    Flow best;
    for (const auto& [in_flight, flow] : limited) {
      if (is_faster(flow, best)) best = flow;
    }
    return best;
  }
};

struct Plan {
  std::size_t subscribers;
  double updates_per_second;  // the pace
  Clock::duration time;       // of each flow
  std::vector<SystemKind> kinds;
  bool is_barred;
};

/// Compares ours with the best peer: how much faster, and what its pace costs.
void compare(Report& report, const std::string& ours, const Flow& peer, const Flow& ours_best,
             const Flow& ours_paced) {
  report.add("updates/s that every subscriber has: " + ours + " : best peer", "",
             ours_best.updates_per_second / peer.updates_per_second, "≥ 10");
  const std::string paced = "at the best peer's best rate: ";
  report.add(paced + ours + " keeps", "updates/s", ours_paced.updates_per_second);
  report.add(paced + "lag of " + ours + ", p99", "ms", ours_paced.lag_p99_ms);
  report.add(paced + "lag p99, " + ours + " : peer", "", ours_paced.lag_p99_ms / peer.lag_p99_ms, "< 1");
  report.add(paced + "server CPU of " + ours + " per update", "µs", ours_paced.server_us_per_update);
  report.add(paced + "server CPU per update, " + ours + " : peer", "",
             ours_paced.server_us_per_update / peer.server_us_per_update, "≤ 0.333");
}

void report_figures(Report& report, SystemKind kind, const Plan& plan, const Figures& figures) {
  const auto add = [&](const std::string& what, std::string_view unit, double value) {
    report.add_beside(name_of(kind), what, unit, value);
  };
  add("server memory per subscriber, idle", "KiB", figures.idle_bytes / 1024);
  add("server memory per subscriber, after load", "KiB", figures.loaded_bytes / 1024);
  const std::string paced = std::to_string(static_cast<int>(plan.updates_per_second)) + " updates/s: ";
  add(paced + "kept", "updates/s", figures.paced.updates_per_second);
  add(paced + "server CPU per delivery", "µs", figures.paced.server_us_per_delivery);
  add(paced + "the last subscriber has it, p50", "ms", figures.paced.last_p50_ms);
  add(paced + "the last subscriber has it, p99", "ms", figures.paced.last_p99_ms);
  for (const auto& [in_flight, flow] : figures.limited) {
    const std::string limited = std::to_string(in_flight) + " in flight: ";
    add(limited + "updates every subscriber has", "updates/s", flow.updates_per_second);
    add(limited + "deliveries", "deliveries/s", flow.deliveries_per_second);
    add(limited + "server CPU per update", "µs", flow.server_us_per_update);
    add(limited + "lag, p50", "ms", flow.lag_p50_ms);
    add(limited + "lag, p99", "ms", flow.lag_p99_ms);
  }
}

void measure(const Settings& settings, Report& report, Plan plan) {
  plan.subscribers = settings.count(plan.subscribers, 5);
  if (settings.is_quick) plan.time = second / 20;
  std::map<SystemKind, std::unique_ptr<System>> started;
  for (const SystemKind kind : plan.kinds) started[kind] = start_system(kind);

  std::map<SystemKind, Figures> all;
  Flow best_peer;
  std::map<SystemKind, Flow> ours_at_best;
  for (const SystemKind kind : plan.kinds) {
    Figures& figures = all[kind];
    figures.limited[64] = Flow{};
    // The floor, one write for each delivery, would take 1,024 of them to say the same again.
    if (!is_floor(kind)) figures.limited[1'024] = Flow{};
    if (started[kind] != nullptr) {
      FanOut fan_out(*started[kind], plan.subscribers);
      figures.idle_bytes = fan_out.idle_bytes_per_subscriber();
      figures.paced = fan_out.flow_paced(plan.time, plan.updates_per_second);
      for (auto& [in_flight, flow] : figures.limited) {
        if (figures.paced.updates_per_second > 0) flow = fan_out.flow_limited(plan.time, in_flight);
      }
      if (is_ours(kind) && best_peer.updates_per_second > 0) {
        ours_at_best[kind] = fan_out.flow_paced(plan.time, best_peer.updates_per_second);
      }
      figures.loaded_bytes = fan_out.bytes_per_subscriber();
      started[kind].reset();
    }
    report_figures(report, kind, plan, figures);
    const Flow best = figures.best();
    if (is_peer(kind) && is_faster(best, best_peer)) best_peer = best;
  }

  const bool is_large = plan.is_barred && plan.subscribers >= 1'000;
  if (plan.is_barred) {
    report.add("the best rate of the best peer", "updates/s", best_peer.updates_per_second);
    report.add("lag of that peer, p99", "ms", best_peer.lag_p99_ms);
    report.add("server CPU of that peer per update", "µs", best_peer.server_us_per_update);
  }
  for (const auto& [kind, ours] : all) {
    if (!is_ours(kind)) continue;
    const std::string name(name_of(kind));
    report.add("server CPU per delivery at " + std::to_string(static_cast<int>(plan.updates_per_second)) +
                   " updates/s: " + name + " : bare TLS",
               "", ours.paced.server_us_per_delivery / all[SystemKind::bare_tls].paced.server_us_per_delivery,
               is_large ? "≤ 1.25" : "");
    report.add("server memory per replica, idle: " + name, "KiB", ours.idle_bytes / 1024,
               is_large ? "≤ 24" : "");
    report.add("server memory per replica, after load: " + name, "KiB", ours.loaded_bytes / 1024,
               is_large ? "≤ 24" : "");
    if (plan.is_barred) compare(report, name, best_peer, ours.best(), ours_at_best[kind]);
  }
}

const std::vector<SystemKind> everyone{
    SystemKind::bare_tcp, SystemKind::bare_tls,  SystemKind::redis,           SystemKind::nats,
    SystemKind::nats_kv,  SystemKind::syncstate, SystemKind::syncstate_inline};

}  // namespace

void measure_fan_out_100(const Settings& settings, Report& report) {
  measure(settings, report, {100, 200, second, everyone, true});
}
void measure_fan_out_1000(const Settings& settings, Report& report) {
  measure(settings, report, {1'000, 200, 2 * second, everyone, true});
}
void measure_fan_out_4000(const Settings& settings, Report& report) {
  measure(settings, report, {4'000, 20, 5 * second, {SystemKind::bare_tls, SystemKind::syncstate}, false});
}

}  // namespace benchmarks
