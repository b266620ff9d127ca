// Which sanitizer this program is built with.
#ifndef SYNCSTATE_TESTS_SUPPORT_SANITIZED_HPP
#define SYNCSTATE_TESTS_SUPPORT_SANITIZED_HPP

// GCC defines macros of its own for this, Clang 14 has only __has_feature.
#if defined(__SANITIZE_ADDRESS__)
#define SYNCSTATE_TESTS_HAVE_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SYNCSTATE_TESTS_HAVE_ADDRESS_SANITIZER 1
#endif
#endif
#ifndef SYNCSTATE_TESTS_HAVE_ADDRESS_SANITIZER
#define SYNCSTATE_TESTS_HAVE_ADDRESS_SANITIZER 0
#endif

#if defined(__SANITIZE_THREAD__)
#define SYNCSTATE_TESTS_HAVE_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SYNCSTATE_TESTS_HAVE_THREAD_SANITIZER 1
#endif
#endif
#ifndef SYNCSTATE_TESTS_HAVE_THREAD_SANITIZER
#define SYNCSTATE_TESTS_HAVE_THREAD_SANITIZER 0
#endif

namespace support {

constexpr bool has_address_sanitizer = SYNCSTATE_TESTS_HAVE_ADDRESS_SANITIZER != 0;
constexpr bool has_thread_sanitizer = SYNCSTATE_TESTS_HAVE_THREAD_SANITIZER != 0;

/// True with AddressSanitizer or ThreadSanitizer. They add shadow memory, and AddressSanitizer keeps up to 256 MiB that the
/// program has freed (its quarantine): what is resident then says little about what the program holds.
constexpr bool is_sanitized = has_address_sanitizer || has_thread_sanitizer;

}  // namespace support

#endif
