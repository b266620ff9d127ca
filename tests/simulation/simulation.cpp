// Runs simulations: a range of seeds, or one after the other until told to stop.
//
//   simulation                       2,000 seeds
//   simulation --seeds 200           the first 200
//   simulation --first 5000          2,000 from there on
//   simulation --seed 17             one, with the whole story
//   simulation --forever             from a random seed on, until interrupted
//   simulation --jobs 2              in so many processes
//   simulation --twice               each seed twice: the runs must be the same, byte for byte
//
// Ends with 1 at the first seed at which something was wrong, and says how to see it again.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include "simulation/simulation.hpp"

namespace {

using syncstate::simulation::Simulation;
using syncstate::simulation::Tally;

struct Options {
  std::uint64_t first = 1;
  std::uint64_t count = 2'000;
  std::uint64_t jobs = 1;
  bool tells_story = false;
  bool runs_twice = false;
};

/// Draws the seeds that the library takes once in a process, so that the first run is like any other.
void warm_up() {
  syncstate::StateMap<std::string, std::string> map(syncstate::Role::master);
  map.push("key", "");
  map.freeze();
  (void)map.get("key");
}

/// False if something was wrong.
bool run(std::uint64_t seed, bool tells_story, bool runs_twice, Tally& total) {
  std::uint64_t first_digest = 0;
  if (runs_twice) {
    Simulation first(seed);
    first.run();
    first_digest = first.tally().digest;
  }
  Simulation simulation(seed);
  simulation.run();
  const Tally& tally = simulation.tally();
  if (runs_twice && tally.digest != first_digest) {
    std::cout << "seed " << seed << " gave two runs that differ\n";
    return false;
  }
  total.events += tally.events;
  total.faults += tally.faults;
  total.steps += tally.steps;
  total.replicas += tally.replicas;
  total.digest ^= tally.digest * (2 * seed + 1);
  if (tells_story) std::cout << simulation.trace().tail(0);
  if (!simulation.trace().has_failed()) return true;
  std::cout << "\nseed " << seed << ": " << simulation.trace().failure() << "\n";
  if (!tells_story) {
    std::cout << "The last of what happened:\n"
              << simulation.trace().tail(40) << "The whole story: simulation --seed " << seed << "\n";
  }
  return false;
}

/// The seeds of one of the processes.
int work(const Options& options, std::uint64_t job) {
  Tally total;
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t done = 0;
  for (std::uint64_t i = job; i < options.count; i += options.jobs) {
    if (!run(options.first + i, options.tells_story, options.runs_twice, total)) {
      std::cout << done << " seeds were good before\n" << std::flush;
      return 1;
    }
    ++done;
    if (done % 10'000 == 0)
      std::cout << done << " seeds so far, the last " << options.first + i << "\n" << std::flush;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::cout << done << " seeds from " << options.first + job << ": " << total.events << " events, "
            << total.faults << " faults, " << total.replicas << " replicas, " << total.steps
            << " steps, digest " << std::hex << total.digest << std::dec << ", " << took.count() << " s\n"
            << std::flush;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    const auto number = [&]() -> std::uint64_t {
      if (++i == arguments.size()) {
        std::cerr << name << " needs a number\n";
        std::exit(2);
      }
      return std::stoull(arguments[i]);
    };
    if (name == "--seeds") {
      options.count = number();
    } else if (name == "--first") {
      options.first = number();
    } else if (name == "--jobs") {
      options.jobs = number();
    } else if (name == "--seed") {
      options.first = number();
      options.count = 1;
      options.tells_story = true;
    } else if (name == "--twice") {
      options.runs_twice = true;
    } else if (name == "--forever") {
      options.first = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
      options.count = std::numeric_limits<std::uint64_t>::max() - options.first;
    } else {
      std::cerr << "unknown: " << name << "; see the head of simulation.cpp\n";
      return 2;
    }
  }
  if (options.count == 0 || options.jobs == 0) {
    std::cerr << "no seeds, no proof\n";
    return 2;
  }
  warm_up();
  if (options.jobs == 1) return work(options, 0);
  std::vector<pid_t> children;
  for (std::uint64_t job = 0; job < options.jobs; ++job) {
    const pid_t child = ::fork();
    if (child < 0) return 2;
    if (child == 0) std::_Exit(work(options, job));
    children.push_back(child);
  }
  int result = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) result = 1;
  }
  return result;
}
