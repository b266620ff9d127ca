// Bytes, and the two cursors every encoding is made with.
#ifndef SYNCSTATE_BYTES_HPP
#define SYNCSTATE_BYTES_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "syncstate/error.hpp"

namespace syncstate {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

/// The bytes of a string, without a copy.
inline ByteView as_byte_view(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

/// Bytes seen as text, without a copy.
inline std::string_view as_string_view(ByteView bytes) {
  // char may alias anything, so this view is as good as the bytes it shows.
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Writes what `ByteWriter::put_varint` appends, 10 bytes at most; returns where it ends.
inline std::byte* write_varint(std::uint64_t v, std::byte* out) {
  for (; v >= 0x80; v >>= 7) *out++ = static_cast<std::byte>(v | 0x80);
  *out++ = static_cast<std::byte>(v);
  return out;
}

/// Writes eight bytes, most significant first; returns where they end.
inline std::byte* write_u64_be(std::uint64_t v, std::byte* out) {
  for (std::size_t i = 8; i-- > 0; v >>= 8) out[i] = static_cast<std::byte>(v);
  return out + 8;
}

/// Appends encodings to a vector that the caller owns.
class ByteWriter {
 public:
  explicit ByteWriter(Bytes& out) : out_(&out) {}

  void put(std::byte b) { out_->push_back(b); }
  void put_u8(std::uint8_t v) { out_->push_back(static_cast<std::byte>(v)); }
  void put(ByteView bytes) { out_->insert(out_->end(), bytes.begin(), bytes.end()); }
  void put(std::string_view text) { put(as_byte_view(text)); }

  /// LEB128: seven bits a byte, least significant first, the shortest form only.
  void put_varint(std::uint64_t v) {
    if (v < 0x80) return put_u8(static_cast<std::uint8_t>(v));
    std::array<std::byte, 10> bytes;
    put(ByteView(bytes.data(), write_varint(v, bytes.data())));
  }

  /// Eight bytes, most significant first.
  void put_u64_be(std::uint64_t v) {
    std::array<std::byte, 8> bytes;
    write_u64_be(v, bytes.data());
    put(bytes);
  }

  /// A varint length, then the bytes.
  void put_sized(ByteView bytes) {
    put_varint(bytes.size());
    put(bytes);
  }
  void put_sized(std::string_view text) { put_sized(as_byte_view(text)); }

  [[nodiscard]] Bytes& bytes() { return *out_; }

  /// Notes that what is written takes this much memory besides its bytes once it is decoded: what the codec will tell
  /// `ByteReader::take_memory`.
  void count_memory(std::size_t bytes) { memory_ += bytes; }
  [[nodiscard]] std::size_t memory() const { return memory_; }

 private:
  Bytes* out_;
  std::size_t memory_ = 0;
};

/// The number of bytes `put_varint(v)` writes: 1 to 10.
constexpr std::size_t varint_size(std::uint64_t v) {
  std::size_t size = 1;
  while (v >= 0x80) {
    v >>= 7;
    ++size;
  }
  return size;
}

/// Reads encodings from bytes that somebody else wrote and that are not trusted.
///
/// Errors: every member throws `StateError{decode_error}` instead of reading past the end.
class ByteReader {
 public:
  explicit ByteReader(ByteView in) : in_(in) {}

  [[nodiscard]] std::size_t remaining() const { return in_.size(); }
  [[nodiscard]] bool is_at_end() const { return in_.empty(); }
  /// What was not read yet.
  [[nodiscard]] ByteView rest() const { return in_; }

  std::uint8_t read_u8() {
    if (in_.empty()) fail("the bytes end too early");
    const auto v = std::to_integer<std::uint8_t>(in_.front());
    in_ = in_.subspan(1);
    return v;
  }

  /// The next `size` bytes, a view into the input.
  ByteView read_bytes(std::uint64_t size) {
    if (size > in_.size()) fail("a length reaches past the end");
    const ByteView out = in_.first(size);
    in_ = in_.subspan(size);
    return out;
  }

  /// A canonical varint: a longer form than needed, or one beyond 64 bits, is refused.
  std::uint64_t read_varint() {
    std::uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
      const std::uint8_t b = read_u8();
      if (shift == 63 && b > 1) fail("a varint beyond 64 bits");
      v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
      if ((b & 0x80) == 0) {
        if (b == 0 && shift != 0) fail("a varint longer than needed");
        return v;
      }
    }
  }

  std::uint64_t read_u64_be() {
    std::uint64_t v = 0;
    for (const std::byte b : read_bytes(8)) v = v << 8 | std::to_integer<std::uint64_t>(b);
    return v;
  }

  /// A varint length, then that many bytes, a view into the input.
  ByteView read_sized() { return read_bytes(read_varint()); }

  /// Throws unless everything was read.
  void expect_end() const {
    if (!in_.empty()) fail("bytes after the end of the value");
  }

  /// Lets `take_memory` spend this much from now on; without that it may spend any amount.
  void limit_memory(std::size_t bytes) { memory_left_ = bytes; }
  /// Spends memory for what is decoded. A codec whose values take many times their bytes calls it before it allocates.
  void take_memory(std::size_t bytes) {
    if (bytes > memory_left_) fail("a value that takes too much memory for its bytes");
    memory_left_ -= bytes;
  }

  [[noreturn]] static void fail(const char* why) { throw StateError(StateErrc::decode_error, why); }

 private:
  ByteView in_;
  std::size_t memory_left_ = static_cast<std::size_t>(-1);
};

}  // namespace syncstate

#endif
