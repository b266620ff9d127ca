// What the programs that are run under callgrind share: the counted function, and random numbers without chance.
#ifndef SYNCSTATE_BENCHMARKS_INSTRUCTIONS_COUNTED_HPP
#define SYNCSTATE_BENCHMARKS_INSTRUCTIONS_COUNTED_HPP

#include <openssl/rand.h>

#include <cstdint>
#include <stdexcept>

// The scripts name this function to callgrind, which counts while it runs. Weak: the compiler calls it as it stands, and
// never a copy made for one caller.
extern "C" [[gnu::noinline, gnu::weak]] void syncstate_counted(void (*run)(void*), void* what) {
  run(what);
  asm volatile("" : : : "memory");
}

namespace benchmarks {

/// Calls `f()` where callgrind counts.
template <class F>
void run_counted(F& f) {
  syncstate_counted([](void* what) { (*static_cast<F*>(what))(); }, &f);
}

/// Gives OpenSSL random numbers that come from a counter, so that hash seeds and epochs are the same in each run.
/// Errors: throws std::runtime_error if OpenSSL refuses it.
inline void fix_random_numbers() {
  static RAND_METHOD method{};  // OpenSSL keeps the pointer until the process ends
  method.bytes = [](unsigned char* out, int length) {
    static std::uint64_t state = 0;
    for (int i = 0; i < length; ++i) {
      state += 0x9E3779B97F4A7C15U;
      std::uint64_t mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9U;
      mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
      out[i] = static_cast<unsigned char>(mixed >> 56);
    }
    return 1;
  };
  method.status = [] { return 1; };
  if (RAND_set_rand_method(&method) != 1) throw std::runtime_error("OpenSSL refuses RAND_set_rand_method");
}

}  // namespace benchmarks

#endif
