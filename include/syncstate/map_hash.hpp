// The identity of a map: SHA-256 over its initial state.
#ifndef SYNCSTATE_MAP_HASH_HPP
#define SYNCSTATE_MAP_HASH_HPP

#include <array>
#include <compare>
#include <cstddef>
#include <cstring>
#include <iosfwd>
#include <string>
#include <string_view>

#include "syncstate/bytes.hpp"
#include "syncstate/error.hpp"

namespace syncstate {

/// SHA-256 over, for each key in ascending order, the sized bytes of the key and of its initial value.
///
/// Two maps are the same map, on any machine, exactly when their hashes are equal.
class MapHash {
 public:
  static constexpr std::size_t size_bytes = 32;

  /// All zeros: the hash of no map.
  constexpr MapHash() = default;
  constexpr explicit MapHash(const std::array<std::byte, size_bytes>& bytes) : bytes_(bytes) {}

  /// Errors: `decode_error` unless there are exactly 32 bytes.
  [[nodiscard]] static MapHash from_bytes(ByteView bytes) {
    if (bytes.size() != size_bytes) throw StateError(StateErrc::decode_error, "a map hash has 32 bytes");
    MapHash hash;
    std::memcpy(hash.bytes_.data(), bytes.data(), size_bytes);
    return hash;
  }

  /// Errors: `decode_error` unless there are exactly 64 hexadecimal digits, of either case.
  [[nodiscard]] static MapHash from_hex(std::string_view hex) {
    if (hex.size() != 2 * size_bytes)
      throw StateError(StateErrc::decode_error, "a map hash has 64 hex digits");
    MapHash hash;
    for (std::size_t i = 0; i < size_bytes; ++i) {
      hash.bytes_[i] = static_cast<std::byte>(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
    }
    return hash;
  }

  /// 64 hexadecimal digits, lower case.
  [[nodiscard]] std::string hex() const {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    text.reserve(2 * size_bytes);
    for (const std::byte b : bytes_) {
      text += digits[std::to_integer<unsigned>(b) >> 4];
      text += digits[std::to_integer<unsigned>(b) & 15];
    }
    return text;
  }

  [[nodiscard]] constexpr const std::array<std::byte, size_bytes>& bytes() const { return bytes_; }

  friend constexpr auto operator<=>(const MapHash&, const MapHash&) = default;

  /// Prints `hex()`.
  template <class Traits>
  friend std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                                      const MapHash& hash) {
    return out << hash.hex();
  }

 private:
  static unsigned digit(char c) {
    if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a') + 10;
    if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A') + 10;
    throw StateError(StateErrc::decode_error, "a map hash is written in hexadecimal digits");
  }

  std::array<std::byte, size_bytes> bytes_{};
};

}  // namespace syncstate

/// Eight of the bytes: they are random already.
template <>
struct std::hash<syncstate::MapHash> {
  std::size_t operator()(const syncstate::MapHash& map) const noexcept {
    std::size_t value = 0;
    std::memcpy(&value, map.bytes().data(), sizeof value);
    return value;
  }
};

#endif
