// The cases of benchmark_tcp.
#ifndef SYNCSTATE_BENCHMARKS_TCP_CASES_HPP
#define SYNCSTATE_BENCHMARKS_TCP_CASES_HPP

#include "support/harness.hpp"

namespace benchmarks {

/// One update in flight: until another client has it, and until it is answered.
void measure_latency(const Settings& settings, Report& report);
void measure_latency_on_one_cpu(const Settings& settings, Report& report);

/// The same of blocking calls, with threads of the library's own.
void measure_latency_blocking(const Settings& settings, Report& report);
void measure_latency_blocking_on_one_cpu(const Settings& settings, Report& report);

/// Updates as fast as they are answered.
void measure_events(const Settings& settings, Report& report);

/// One publisher and so many subscribers.
void measure_fan_out_100(const Settings& settings, Report& report);
void measure_fan_out_1000(const Settings& settings, Report& report);
void measure_fan_out_4000(const Settings& settings, Report& report);

/// One update on the wire.
void measure_bytes(const Settings& settings, Report& report);

/// Until a client that comes anew can read.
void measure_join_100k(const Settings& settings, Report& report);
void measure_join_1m(const Settings& settings, Report& report);

/// A subscriber that reads nothing for long.
void measure_stall(const Settings& settings, Report& report);

}  // namespace benchmarks

#endif
