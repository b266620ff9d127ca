// SHA-256 by OpenSSL, fed in small pieces.
#ifndef SYNCSTATE_DETAIL_MODEL_SHA256_HPP
#define SYNCSTATE_DETAIL_MODEL_SHA256_HPP

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>

#include "syncstate/bytes.hpp"

namespace syncstate::detail {

/// One SHA-256 computation: `update` any number of times, then `finish` once.
class Sha256 {
 public:
  using Digest = std::array<std::byte, 32>;

  Sha256() : context_(EVP_MD_CTX_new()) {
    if (context_ == nullptr || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) fail();
  }

  void update(ByteView bytes) {
    if (buffer_.size() + bytes.size() > buffer_bytes) flush();
    if (bytes.size() > buffer_bytes) {
      digest(bytes);
    } else {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
  }

  /// Eight bytes, most significant first, then the bytes they count: how the hash of a map tells entries
  /// apart.
  void update_sized(ByteView bytes) {
    const std::uint64_t size = bytes.size();
    std::array<std::byte, 8> length;
    for (std::size_t i = 0; i < 8; ++i) {
      length[i] = static_cast<std::byte>(size >> (56 - 8 * i));
    }
    update(length);
    update(bytes);
  }

  [[nodiscard]] Digest finish() {
    flush();
    Digest digest;
    if (EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr) != 1)
      fail();
    return digest;
  }

 private:
  // EVP costs some 30 ns a call, as much as hashing 40 bytes: short keys and values go in by the block.
  static constexpr std::size_t buffer_bytes = std::size_t{64} << 10;

  struct FreeContext {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };

  void flush() {
    digest(buffer_);
    buffer_.clear();
  }

  void digest(ByteView bytes) {
    if (EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) fail();
  }

  [[noreturn]] static void fail() {
    throw std::runtime_error("syncstate: SHA-256 is not available from OpenSSL");
  }

  std::unique_ptr<EVP_MD_CTX, FreeContext> context_;
  Bytes buffer_;
};

}  // namespace syncstate::detail

#endif
