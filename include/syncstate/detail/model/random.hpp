// Random numbers nobody can guess: epochs, hash seeds.
#ifndef SYNCSTATE_DETAIL_MODEL_RANDOM_HPP
#define SYNCSTATE_DETAIL_MODEL_RANDOM_HPP

#include <openssl/rand.h>

#include <cstdint>
#include <stdexcept>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Sixty-four unpredictable bits.
inline std::uint64_t random_u64() {
  unsigned char bytes[8];
  if (RAND_bytes(bytes, sizeof bytes) != 1) throw std::runtime_error("syncstate: no randomness from OpenSSL");
  std::uint64_t value = 0;
  for (const unsigned char byte : bytes) value = value << 8 | byte;
  return value;
}

/// As `random_u64`, but never 0: an epoch of 0 means "none yet".
inline std::uint64_t random_nonzero_u64() {
  for (;;) {
    if (const std::uint64_t value = random_u64(); value != 0) return value;
  }
}

}  // namespace syncstate::detail

#endif
