// How much memory this thread ever asked for: counted where one file of the program includes counted_new.hpp.
#ifndef SYNCSTATE_TESTS_SUPPORT_ALLOCATED_BYTES_HPP
#define SYNCSTATE_TESTS_SUPPORT_ALLOCATED_BYTES_HPP

#include <cstddef>

namespace syncstate::testing {

/// Bytes that this thread ever asked for. What was given back is not taken off, so the difference of two
/// readings is never less than the memory in use at any time between them.
inline thread_local std::size_t allocated_bytes = 0;

/// Bytes that this thread has of the allocator now, with what that adds to each; less where another thread gives them
/// back.
inline thread_local std::ptrdiff_t live_bytes = 0;

}  // namespace syncstate::testing

#endif
