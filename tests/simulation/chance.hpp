// All chance of a simulation, from one seed: its own, and what the library asks OpenSSL for.
#ifndef SYNCSTATE_TESTS_SIMULATION_CHANCE_HPP
#define SYNCSTATE_TESTS_SIMULATION_CHANCE_HPP

#include <openssl/rand.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "syncstate/executor.hpp"

namespace syncstate::simulation {

/// Draws from one sequence; the same seed gives the same draws on every machine.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : random_(seed) {}

  /// 0 .. n - 1.
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
  std::size_t between(std::size_t least, std::size_t most) { return least + below(most - least + 1); }
  Duration between(std::chrono::milliseconds least, std::chrono::milliseconds most) {
    return least + std::chrono::milliseconds(below(static_cast<std::size_t>((most - least).count()) + 1));
  }
  bool one_in(std::size_t n) { return below(n) == 0; }
  template <class T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }

 private:
  std::mt19937_64 random_;
};

// OpenSSL 3 calls this way deprecated, and offers no other that is as short.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/// While it lives epochs and sender ids come out of the seed, too. One at a time in a process.
class SeededOpenssl {
 public:
  explicit SeededOpenssl(std::uint64_t seed) {
    source() = std::mt19937_64(seed);
    static const RAND_METHOD method{nullptr, &draw, nullptr, nullptr, &draw, &status};
    RAND_set_rand_method(&method);
  }
  SeededOpenssl(const SeededOpenssl&) = delete;
  SeededOpenssl& operator=(const SeededOpenssl&) = delete;
  ~SeededOpenssl() { RAND_set_rand_method(RAND_OpenSSL()); }

 private:
  static std::mt19937_64& source() {
    static std::mt19937_64 random;
    return random;
  }
  static int draw(unsigned char* bytes, int count) {
    for (int i = 0; i < count; ++i) bytes[i] = static_cast<unsigned char>(source()());
    return 1;
  }
  static int status() { return 1; }
};

#pragma GCC diagnostic pop

}  // namespace syncstate::simulation

#endif
