// Whether this program is built with a sanitizer that changes what memory it takes.
#ifndef SYNCSTATE_TESTS_SUPPORT_SANITIZED_HPP
#define SYNCSTATE_TESTS_SUPPORT_SANITIZED_HPP

namespace support {

/// True with AddressSanitizer or ThreadSanitizer. They add shadow memory, and AddressSanitizer keeps up to 256 MiB that the
/// program has freed (its quarantine): what is resident then says little about what the program holds.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool is_sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool is_sanitized = true;
#else
constexpr bool is_sanitized = false;
#endif
#else
constexpr bool is_sanitized = false;
#endif

}  // namespace support

#endif
