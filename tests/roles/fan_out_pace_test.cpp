// When commits are brought one by one, and when they are merged.
#include <algorithm>
#include <chrono>
#include <cstdint>

#include "support/catch.hpp"
#include "syncstate/detail/server/fan_out_pace.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/types.hpp"

namespace fan_out_pace_test {

using namespace std::chrono_literals;
namespace ss = syncstate;
using ss::detail::FanOutPace;

namespace {

/// What a pace comes to after many rounds of `round` each, while commits come once `every` so long.
struct Steady {
  ss::Duration rest;
  double commits_per_round;
};

Steady steady(double share, ss::Duration round, ss::Duration every) {
  FanOutPace pace(share);
  ss::TimePoint now{};
  ss::UpdateId told = 0;
  Steady result{};
  for (int i = 0; i < 100; ++i) {
    // The next round begins when the rest is over, and something has come.
    now = std::max(now + result.rest, ss::TimePoint{} + static_cast<std::int64_t>(told + 1) * every);
    const auto head = static_cast<ss::UpdateId>((now - ss::TimePoint{}) / every);
    pace.begin(now, head - told);
    result.commits_per_round = static_cast<double>(head - told);
    told = head;
    now += round;
    result.rest = pace.rest(now);
  }
  return result;
}

}  // namespace

TEST_CASE("commits that come one by one are brought one by one, however long a round takes") {
  CHECK(steady(0.25, 8ms, 20ms).rest == 0s);
  CHECK(steady(0.25, 8ms, 5ms).rest == 0s);
  CHECK(steady(0.25, 8ms, 2ms).rest == 0s);
  CHECK(steady(0.01, 1s, 600ms).rest == 0s);
}

TEST_CASE("many commits a round are merged for as long as the share says") {
  CHECK(steady(0.25, 8ms, 100us).rest == 24ms);
  CHECK(steady(0.25, 8ms, 100us).commits_per_round == 320);
  CHECK(steady(0.5, 8ms, 100us).rest == 8ms);
  CHECK(steady(1, 8ms, 100us).rest == 0s);
}

TEST_CASE("between a few and many commits a round the rest grows") {
  ss::Duration last{};
  for (const auto every : {1500us, 1000us, 700us}) {
    const ss::Duration rest = steady(0.25, 8ms, every).rest;
    CHECK(rest > last);
    CHECK(rest < 24ms);
    last = rest;
  }
}

TEST_CASE("a round that is shorter than a timer is followed by no rest") {
  CHECK(steady(0.25, 30us, 1us).rest == 0s);
  CHECK(steady(0.25, 40us, 1us).rest == 120us);
}

TEST_CASE("a first round, and one after a quiet time, is followed by no rest") {
  FanOutPace pace(0.25);
  ss::TimePoint now{};
  pace.begin(now, 1'000);
  CHECK(pace.rest(now + 8ms) == 0s);
  now += 1h;
  pace.begin(now, 1'000);
  CHECK(pace.rest(now + 8ms) == 0s);
  pace.begin(now, 1'000);  // a clock that stands still
  CHECK(pace.rest(now + 8ms) == 0s);
}

}  // namespace fan_out_pace_test
