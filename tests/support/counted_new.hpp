// A global operator new that counts. Include it in one file of a program; it replaces the operator for all of
// it.
#ifndef SYNCSTATE_TESTS_SUPPORT_COUNTED_NEW_HPP
#define SYNCSTATE_TESTS_SUPPORT_COUNTED_NEW_HPP

#include <malloc.h>

#include <cstddef>
#include <cstdlib>
#include <new>

#include "support/allocated_bytes.hpp"

namespace syncstate::testing {

inline void* count_memory(void* memory) {
  if (memory != nullptr)
    live_bytes += static_cast<std::ptrdiff_t>(::malloc_usable_size(memory) + sizeof(void*));
  return memory;
}
inline void free_counted(void* memory) {
  if (memory != nullptr)
    live_bytes -= static_cast<std::ptrdiff_t>(::malloc_usable_size(memory) + sizeof(void*));
  std::free(memory);
}

}  // namespace syncstate::testing

// Not inlined: GCC would take the `free` within one for a mismatch with the `new` around the other.
[[gnu::noinline]] void* operator new(std::size_t size) {
  syncstate::testing::allocated_bytes += size;
  if (void* memory = syncstate::testing::count_memory(std::malloc(size == 0 ? 1 : size))) return memory;
  throw std::bad_alloc();
}

// Sanitizers have one of their own, which our operator delete would not match.
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  syncstate::testing::allocated_bytes += size;
  return syncstate::testing::count_memory(std::malloc(size == 0 ? 1 : size));
}

[[gnu::noinline]] void operator delete(void* memory) noexcept { syncstate::testing::free_counted(memory); }
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept {
  syncstate::testing::free_counted(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  syncstate::testing::free_counted(memory);
}

#endif
