// Looks at what a stranger sends to a TLS server before OpenSSL does.
#ifndef SYNCSTATE_TCP_HELLO_GUARD_HPP
#define SYNCSTATE_TCP_HELLO_GUARD_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "syncstate/bytes.hpp"

namespace syncstate::tcp::detail {

/// Refuses handshake messages that are longer than they need to be, as long as they are not encrypted.
///
/// OpenSSL reserves what the length of a ClientHello claims, up to 128 KiB, as soon as it has read that length. And it
/// compares each key share in it with each group in it: 13,000 shares and 32,000 groups, all in 128 KiB, take 0.3 s.
///
/// Shape of a record : kind u8, version u16, length u16, then so many bytes.
/// Shape of a message: kind u8, length u24, then so many bytes, over any number of records of kind 22.
class HelloGuard {
 public:
  /// Units: bytes of one message.
  explicit HelloGuard(std::size_t most_bytes) : most_bytes_(most_bytes) {}

  /// Looks at the next bytes of the stream. False if they begin a message that is too long.
  bool passes(ByteView bytes) {
    while (!bytes.empty()) {
      if (record_left_ == 0) {
        if (!record_.takes(bytes)) continue;
        record_left_ = record_.number(3, 2);
        continue;
      }
      const ByteView part = bytes.first((std::min)(bytes.size(), record_left_));
      bytes = bytes.subspan(part.size());
      record_left_ -= part.size();
      if (record_.number(0, 1) == handshake && !passes_messages(part)) return false;
    }
    return true;
  }

  /// The length of the message that was refused.
  [[nodiscard]] std::size_t refused_bytes() const { return refused_bytes_; }

  /// Whether a handshake message has come as a whole.
  [[nodiscard]] bool has_message() const { return has_message_; }

 private:
  static constexpr std::size_t handshake = 22;

  /// The first bytes of a record or message, which may come one by one.
  template <std::size_t size>
  class Header {
   public:
    /// Takes one byte; true once it is whole. What comes next begins another one.
    bool takes(ByteView& bytes) {
      if (have_ == size) have_ = 0;
      bytes_[have_++] = std::to_integer<std::uint8_t>(bytes.front());
      bytes = bytes.subspan(1);
      return have_ == size;
    }
    [[nodiscard]] std::size_t number(std::size_t at, std::size_t width) const {
      std::size_t value = 0;
      for (std::size_t i = 0; i < width; ++i) value = value << 8 | bytes_[at + i];
      return value;
    }

   private:
    std::array<std::uint8_t, size> bytes_{};
    std::size_t have_ = 0;
  };

  bool passes_messages(ByteView bytes) {
    while (!bytes.empty()) {
      const std::size_t part = (std::min)(bytes.size(), message_left_);
      bytes = bytes.subspan(part);
      message_left_ -= part;
      if (part > 0 && message_left_ == 0) has_message_ = true;
      if (bytes.empty() || !message_.takes(bytes)) continue;
      message_left_ = message_.number(1, 3);
      if (message_left_ == 0) has_message_ = true;
      if (message_left_ <= most_bytes_) continue;
      refused_bytes_ = message_left_;
      return false;
    }
    return true;
  }

  const std::size_t most_bytes_;
  std::size_t refused_bytes_ = 0;
  bool has_message_ = false;
  Header<5> record_;
  std::size_t record_left_ = 0;
  Header<4> message_;
  std::size_t message_left_ = 0;
};

}  // namespace syncstate::tcp::detail

#endif
