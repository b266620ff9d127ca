// A subscriber that reads nothing for long, and lives: what that costs the server, and how it comes back.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>

#include "systems/system.hpp"
#include "tcp/cases.hpp"

namespace benchmarks {
namespace {

constexpr double mebibyte = 1024 * 1024;

/// Publishes as fast as it is answered, whatever the subscriber does.
class FullLoad final : public Witness {
 public:
  explicit FullLoad(System& system) : system_(system) {
    system.add_publisher();
    system.add_subscribers(1);
  }

  void answered(std::size_t /*publisher*/, std::size_t count) override { unanswered_ -= count; }
  void delivered(std::size_t /*subscriber*/, std::uint64_t number) override { delivered_ = number; }

  [[nodiscard]] std::uint64_t published() const { return published_; }

  /// Goes on until `is_done()`, which is asked now and then.
  template <class F>
  void publish_until(F is_done) {
    constexpr std::size_t in_flight = 1'024;
    constexpr auto pause = std::chrono::milliseconds(20);
    for (auto next = Clock::now(); next > Clock::now() || !is_done();) {
      if (next <= Clock::now()) next = Clock::now() + pause;
      for (; unanswered_ < in_flight; ++unanswered_) system_.publish(0, ++published_);
      system_.flush();
      system_.turn(pause, *this);
    }
    while (unanswered_ > 0) system_.turn(System::endless, *this);
  }

  /// Waits until the subscriber has the last.
  void catch_up() {
    while (delivered_ < published_) system_.turn(System::endless, *this);
  }

 private:
  System& system_;
  std::size_t unanswered_ = 0;
  std::uint64_t published_ = 0;
  std::uint64_t delivered_ = 0;
};

void measure(const Settings& settings, Report& report, SystemKind kind) {
  double rate = missing, cut_after = missing, before = missing, peak = missing, catch_up_ms = missing,
         catch_up_bytes = missing;
  const std::size_t keys = settings.count(100'000, 1'000);
  if (const auto system = start_system(kind, {.answers = true, .keys = keys, .can_stall = true})) {
    FullLoad load(*system);
    // Every key is set once, so that all the room they take is taken.
    load.publish_until([&] { return load.published() >= keys; });
    load.catch_up();
    before = system->server_resident_bytes();
    const std::size_t files = system->server_open_files();
    const std::uint64_t published_before = load.published();

    system->stall(true);
    const auto time =
        settings.is_quick ? Clock::duration(std::chrono::milliseconds(300)) : std::chrono::seconds(30);
    const auto start = Clock::now();
    peak = before;
    bool is_cut = false;
    load.publish_until([&] {
      peak = std::max(peak, system->server_resident_bytes());
      is_cut = system->server_open_files() < files;
      return is_cut || Clock::now() - start >= time;
    });
    const double took = seconds(Clock::now() - start);
    rate = static_cast<double>(load.published() - published_before) / took;
    cut_after = is_cut ? took : std::numeric_limits<double>::infinity();
    if (!is_cut) {
      const double received = system->received_bytes();
      const auto resumed = Clock::now();
      system->stall(false);
      load.catch_up();
      catch_up_ms = microseconds(Clock::now() - resumed) / 1e3;
      catch_up_bytes = system->received_bytes() - received;
    } else {
      catch_up_ms = catch_up_bytes = std::numeric_limits<double>::infinity();
    }
  }
  const auto add = [&](const char* what, const char* unit, double value) {
    report.add_beside(name_of(kind), what, unit, value);
  };
  add("updates meanwhile", "updates/s", rate);
  add("cut off after", "s", cut_after);
  add("server memory before", "MiB", before / mebibyte);
  add("server memory, the most meanwhile", "MiB", peak / mebibyte);
  add("until it has caught up, once it reads", "ms", catch_up_ms);
  add("what it reads for that", "MiB", catch_up_bytes / mebibyte);
}

}  // namespace

void measure_stall(const Settings& settings, Report& report) {
  for (const SystemKind kind :
       {SystemKind::redis_state, SystemKind::nats, SystemKind::nats_kv, SystemKind::syncstate}) {
    measure(settings, report, kind);
  }
}

}  // namespace benchmarks
