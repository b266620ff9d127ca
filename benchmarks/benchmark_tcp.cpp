// The whole way over TLS on loopback, beside the floor and the peers: servers in processes of their own, clients in the
// one that measures.
#include "support/harness.hpp"
#include "tcp/cases.hpp"

int main(int argc, char** argv) {
  using namespace benchmarks;
  return run_benchmarks(
      argc, argv,
      {{"latency", "Latency over TLS, one in flight", measure_latency},
       {"latency_one_cpu", "Latency over TLS, one in flight, everything on one CPU",
        measure_latency_on_one_cpu, true},
       {"latency_blocking", "Latency over TLS of blocking calls, the library's own threads",
        measure_latency_blocking},
       {"latency_blocking_one_cpu",
        "Latency over TLS of blocking calls, the library's own threads, everything on one CPU",
        measure_latency_blocking_on_one_cpu, true},
       {"events", "Updates over TLS, pipelined", measure_events},
       {"fan_out_100", "Fan-out over TLS to 100 subscribers", measure_fan_out_100},
       {"fan_out_1000", "Fan-out over TLS to 1,000 subscribers", measure_fan_out_1000},
       {"fan_out_4000", "Fan-out over TLS to 4,000 subscribers", measure_fan_out_4000, false, true},
       {"bytes", "TCP payload of one update that sets one value", measure_bytes},
       {"join_100k", "A client that joins, 100,000 keys with 16 bytes each", measure_join_100k},
       {"join_1m", "A client that joins, 1,000,000 keys with 16 bytes each", measure_join_1m},
       {"stall", "A subscriber that reads nothing for 30 s under full load, 100,000 keys", measure_stall,
        false, true}});
}
