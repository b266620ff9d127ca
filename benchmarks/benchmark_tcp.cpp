// The whole way over TLS on loopback, beside the floor and the peers: servers in processes of their own, clients in the
// one that measures.
#include "support/harness.hpp"
#include "tcp/cases.hpp"

int main(int argc, char** argv) {
  using namespace benchmarks;
  return run_benchmarks(argc, argv,
                        {{"latency", "Latency over TLS, one in flight", measure_latency},
                         {"latency_one_cpu", "Latency over TLS, one in flight, everything on one CPU",
                          measure_latency_on_one_cpu, true}});
}
