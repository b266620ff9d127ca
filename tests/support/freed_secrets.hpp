// Looks through every block of memory that is given back for texts that should have been overwritten. Include it in one
// file of a program: it replaces `free` and `realloc` for all of it, OpenSSL and the C library included.
#ifndef SYNCSTATE_TESTS_SUPPORT_FREED_SECRETS_HPP
#define SYNCSTATE_TESTS_SUPPORT_FREED_SECRETS_HPP

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "support/sanitized.hpp"

namespace support {

/// While one of these lives, the blocks that any thread frees are searched. Not under a sanitizer, which has a `free`
/// of its own.
class FreedSecrets {
 public:
  static constexpr bool is_possible = !is_sanitized;

  /// Searches for these texts, which must outlive this object.
  explicit FreedSecrets(std::vector<std::string_view> texts) : texts_(std::move(texts)) { current() = this; }
  FreedSecrets(const FreedSecrets&) = delete;
  FreedSecrets& operator=(const FreedSecrets&) = delete;
  ~FreedSecrets() { current() = nullptr; }

  /// How many freed blocks held one of the texts.
  [[nodiscard]] std::size_t found() const { return found_; }
  /// How many blocks were searched.
  [[nodiscard]] std::size_t searched() const { return searched_; }

  static void look_through(const void* block) noexcept {
    FreedSecrets* const self = current().load(std::memory_order_acquire);
    if (self == nullptr || block == nullptr) return;
    const std::size_t size = ::malloc_usable_size(const_cast<void*>(block));
    ++self->searched_;
    for (const std::string_view text : self->texts_) {
      if (::memmem(block, size, text.data(), text.size()) != nullptr) ++self->found_;
    }
  }

 private:
  static std::atomic<FreedSecrets*>& current() {
    static constinit std::atomic<FreedSecrets*> searcher{nullptr};
    return searcher;
  }

  std::vector<std::string_view> texts_;
  std::atomic<std::size_t> found_{0};
  std::atomic<std::size_t> searched_{0};
};

}  // namespace support

#if !SYNCSTATE_TESTS_HAVE_ADDRESS_SANITIZER && !SYNCSTATE_TESTS_HAVE_THREAD_SANITIZER
extern "C" {
void __libc_free(void* block);  // glibc's own

void free(void* block) noexcept {
  support::FreedSecrets::look_through(block);
  __libc_free(block);
}

void* realloc(void* block, std::size_t size) noexcept {
  void* const larger = std::malloc(size == 0 ? 1 : size);
  if (larger == nullptr || block == nullptr) return larger;
  const std::size_t before = ::malloc_usable_size(block);
  std::memcpy(larger, block, before < size ? before : size);
  free(block);
  return larger;
}
}
#endif

#endif
