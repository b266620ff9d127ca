// A global operator new that counts. Include it in one file of a program; it replaces the operator for all of
// it.
#ifndef SYNCSTATE_TESTS_SUPPORT_COUNTED_NEW_HPP
#define SYNCSTATE_TESTS_SUPPORT_COUNTED_NEW_HPP

#include <cstddef>
#include <cstdlib>
#include <new>

#include "support/allocated_bytes.hpp"

// Not inlined: GCC would take the `free` within one for a mismatch with the `new` around the other.
[[gnu::noinline]] void* operator new(std::size_t size) {
  syncstate::testing::allocated_bytes += size;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

// Sanitizers have one of their own, which our operator delete would not match.
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  syncstate::testing::allocated_bytes += size;
  return std::malloc(size == 0 ? 1 : size);
}

[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

#endif
