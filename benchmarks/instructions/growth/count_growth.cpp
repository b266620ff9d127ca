// Runs the growth cases whose instructions run.sh counts under callgrind. Prints two lines for each case, one for each
// size: the size, how many times as many instructions are allowed at the larger one, and the case's name.
//
// Each operation runs in a world that was built for it, after the same was done once before: so memory was allocated
// and functions were bound.
#include "growth/growth.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <vector>

#include "counted.hpp"

namespace {

using benchmarks::Growth;
using benchmarks::GrowthCase;

constexpr double most_times(Growth growth) {
  switch (growth) {
    case Growth::constant: return 1.5;
    case Growth::logarithmic: return 2.5;
    case Growth::linear: return 10;
    case Growth::linearithmic: return 14;
  }
  return 0;
}

void count(const GrowthCase& growth_case, std::size_t size) {
  growth_case.prepare(size)();
  GrowthCase::Operation operation = growth_case.prepare(size);
  std::printf("%zu %.1f %s\n", size, most_times(growth_case.most()), growth_case.name().c_str());
  benchmarks::run_counted(operation);
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::vector<const GrowthCase*> cases = GrowthCase::all();
  std::sort(cases.begin(), cases.end(), [](const auto* a, const auto* b) { return a->name() < b->name(); });
  for (const GrowthCase* growth_case : cases) {
    try {
      if (growth_case == cases.front()) benchmarks::fix_random_numbers();
      count(*growth_case, growth_case->size());
      count(*growth_case, 8 * growth_case->size());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "count_growth: %s: %s\n", growth_case->name().c_str(), error.what());
      return 1;
    }
  }
  return 0;
}
