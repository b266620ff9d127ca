// Updates as fast as they are answered: one sender or eight, each with so many unanswered, and one subscriber or none.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "systems/system.hpp"
#include "tcp/cases.hpp"

namespace benchmarks {
namespace {

/// Keeps every publisher's share of `in_flight` updates unanswered.
class Pipeline final : public Witness {
 public:
  Pipeline(System& system, std::size_t publishers, bool has_subscriber)
      : system_(system), unanswered_(publishers), has_subscriber_(has_subscriber) {
    for (std::size_t i = 0; i < publishers; ++i) system.add_publisher();
    if (has_subscriber) system.add_subscribers(1);
  }

  void answered(std::size_t publisher, std::size_t count) override {
    unanswered_[publisher] -= count;
    all_unanswered_ -= count;
  }
  void delivered(std::size_t /*subscriber*/, std::uint64_t number) override {
    // With several publishers updates overtake each other: what counts is how many there were.
    delivered_ = system_.merges() ? number : delivered_ + 1;
  }

  /// Publishes `count`, and waits until all are answered and delivered; returns how many that were in a second.
  double run(std::size_t count, std::size_t in_flight) {
    const auto start = Clock::now();
    for (std::size_t unsent = count; unsent > 0 || !is_done();) {
      for (std::size_t i = 0; i < unanswered_.size(); ++i) {
        for (; unsent > 0 && unanswered_[i] < in_flight; --unsent) {
          system_.publish(i, ++published_);
          ++unanswered_[i];
          ++all_unanswered_;
        }
      }
      system_.flush();
      if (!is_done()) system_.turn(System::endless, *this);
    }
    return static_cast<double>(count) / seconds(Clock::now() - start);
  }

 private:
  [[nodiscard]] bool is_done() const {
    return all_unanswered_ == 0 && (!has_subscriber_ || delivered_ == published_);
  }

  System& system_;
  std::vector<std::size_t> unanswered_;  // of each publisher
  std::size_t all_unanswered_ = 0;
  bool has_subscriber_;
  std::uint64_t published_ = 0;
  std::uint64_t delivered_ = 0;
};

struct EventWay {
  SystemKind kind;
  std::size_t publishers;
  bool has_subscriber;
  std::unique_ptr<System> system = nullptr;
};

std::string describe(const EventWay& way, std::size_t in_flight) {
  return std::string(way.publishers == 1 ? "one sender, " : "eight senders, ") + std::to_string(in_flight) +
         " in flight" + (way.publishers == 1 ? "" : " each") + (way.has_subscriber ? ", one follows" : "");
}

}  // namespace

void measure_events(const Settings& settings, Report& report) {
  std::vector<EventWay> ways;
  for (const std::size_t publishers : {std::size_t{1}, std::size_t{8}}) {
    for (const bool has_subscriber : {false, true}) {
      for (const SystemKind kind :
           {SystemKind::bare_tls, has_subscriber ? SystemKind::redis_state : SystemKind::redis_set,
            SystemKind::nats, SystemKind::nats_kv, SystemKind::syncstate, SystemKind::syncstate_inline}) {
        ways.push_back(EventWay{kind, publishers, has_subscriber});
      }
    }
  }
  for (EventWay& way : ways) way.system = start_system(way.kind, {.answers = true});

  std::map<std::string, std::map<SystemKind, double>> rates;
  for (EventWay& way : ways) {
    const std::size_t windows[] = {64, 1'024};
    if (way.system == nullptr) {
      for (const std::size_t in_flight : windows) rates[describe(way, in_flight)][way.kind] = missing;
      continue;
    }
    Pipeline pipeline(*way.system, way.publishers, way.has_subscriber);
    for (const std::size_t in_flight : windows) {
      pipeline.run(settings.count(10'000, 100), in_flight);
      rates[describe(way, in_flight)][way.kind] = pipeline.run(settings.count(100'000, 500), in_flight);
    }
    way.system.reset();
  }
  for (const EventWay& way : ways) {
    for (const std::size_t in_flight : {std::size_t{64}, std::size_t{1'024}}) {
      const std::string what = describe(way, in_flight);
      report.add_beside(name_of(way.kind), what, "updates/s", rates[what][way.kind]);
    }
  }
  for (const auto& [what, rate] : rates) {
    const SystemKind redis =
        rate.contains(SystemKind::redis_set) ? SystemKind::redis_set : SystemKind::redis_state;
    for (const SystemKind ours : {SystemKind::syncstate, SystemKind::syncstate_inline}) {
      report.add(what + ": " + std::string(name_of(ours)) + " : " + std::string(name_of(redis)), "",
                 rate.at(ours) / rate.at(redis), what == "one sender, 1024 in flight" ? "≥ 3" : "");
    }
  }
}

}  // namespace benchmarks
