// Codecs of bool, integers, characters, enumerations, floating-point numbers and std::monostate.
#ifndef SYNCSTATE_CODEC_SCALARS_HPP
#define SYNCSTATE_CODEC_SCALARS_HPP

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <variant>

#include "syncstate/codec/json_opt_in.hpp"
#include "syncstate/codec/rules.hpp"

namespace syncstate {

namespace detail {

/// Integers that say a number, not a character or a truth.
template <class T>
concept Number = std::integral<T> && sizeof(T) <= 8 && !std::same_as<T, bool> && !std::same_as<T, char> &&
                 !std::same_as<T, char8_t> && !std::same_as<T, char16_t> && !std::same_as<T, char32_t> &&
                 !std::same_as<T, wchar_t> && !std::is_const_v<T> && !std::is_volatile_v<T>;

/// One raw byte, whatever its sign is on this machine.
template <class T>
concept RawByte = std::same_as<T, std::byte> || std::same_as<T, char> || std::same_as<T, char8_t>;

template <class T>
concept WideChar = std::same_as<T, char16_t> || std::same_as<T, char32_t> || std::same_as<T, wchar_t>;

/// Only where the underlying type is fixed does an enumeration take a number in braces.
template <class T>
concept HasFixedUnderlying = requires { T{std::underlying_type_t<T>{}}; };

/// Maps 0, -1, 1, -2, ... to 0, 1, 2, 3, ... so that small numbers of either sign are short.
constexpr std::uint64_t zigzag(std::int64_t v) {
  return (static_cast<std::uint64_t>(v) << 1) ^ (v < 0 ? ~std::uint64_t{0} : std::uint64_t{0});
}

constexpr std::int64_t unzigzag(std::uint64_t v) {
  return static_cast<std::int64_t>((v >> 1) ^ ((v & 1) != 0 ? ~std::uint64_t{0} : std::uint64_t{0}));
}

template <class T>
constexpr std::uint64_t to_varint(T v) {
  if constexpr (std::is_signed_v<T>) {
    return zigzag(v);
  } else {
    return v;
  }
}

template <class T>
T from_varint(std::uint64_t raw) {
  if constexpr (std::is_signed_v<T>) {
    const std::int64_t v = unzigzag(raw);
    if (v < (std::numeric_limits<T>::min)() || v > (std::numeric_limits<T>::max)()) {
      ByteReader::fail("a number beyond its type");
    }
    return static_cast<T>(v);
  } else {
    if (raw > (std::numeric_limits<T>::max)()) ByteReader::fail("a number beyond its type");
    return static_cast<T>(raw);
  }
}

template <class T>
std::string number_name() {
  return (std::is_signed_v<T> ? "i" : "u") + std::to_string(sizeof(T) * 8);
}

}  // namespace detail

/// One byte, 0 or 1.
template <>
struct Codec<bool> : detail::BuiltIn<> {
  static consteval std::size_t min_bytes() { return 1; }
  static std::size_t size(bool) { return 1; }
  static void encode(bool value, ByteWriter& out) { out.put_u8(value ? 1 : 0); }
  static bool decode(ByteReader& in) {
    const std::uint8_t v = in.read_u8();
    if (v > 1) ByteReader::fail("a bool that is neither 0 nor 1");
    return v == 1;
  }
  static std::string type_name() { return "bool"; }
};

/// A canonical varint; signed numbers are zigzagged first. Named by sign and width, so `long` and `long long`
/// of 64 bits are both `i64`.
template <detail::Number T>
struct Codec<T> : detail::BuiltIn<> {
  static consteval std::size_t min_bytes() { return 1; }
  static std::size_t size(const T& value) { return varint_size(detail::to_varint(value)); }
  static void encode(const T& value, ByteWriter& out) { out.put_varint(detail::to_varint(value)); }
  static T decode(ByteReader& in) { return detail::from_varint<T>(in.read_varint()); }
  static std::string type_name() { return detail::number_name<T>(); }
};

/// The byte itself.
template <detail::RawByte T>
struct Codec<T> : detail::BuiltIn<> {
  static consteval std::size_t min_bytes() { return 1; }
  static std::size_t size(const T&) { return 1; }
  static void encode(const T& value, ByteWriter& out) { out.put_u8(static_cast<std::uint8_t>(value)); }
  static T decode(ByteReader& in) { return static_cast<T>(in.read_u8()); }
  static std::string type_name() { return std::same_as<T, std::byte> ? "byte" : "char"; }
};

/// As the unsigned number of the same width.
template <detail::WideChar T>
struct Codec<T> : detail::BuiltIn<> {
  using Unsigned = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint32_t>;
  static consteval std::size_t min_bytes() { return 1; }
  static std::size_t size(const T& value) { return varint_size(static_cast<Unsigned>(value)); }
  static void encode(const T& value, ByteWriter& out) { out.put_varint(static_cast<Unsigned>(value)); }
  static T decode(ByteReader& in) { return static_cast<T>(detail::from_varint<Unsigned>(in.read_varint())); }
  static std::string type_name() { return detail::number_name<Unsigned>(); }
};

/// As its underlying type, which must be fixed (`enum class`, or `enum E : int`). Any number of that type
/// decodes, enumerator or not: who switches over an enumeration that came from a peer needs a default.
template <class T>
  requires(std::is_enum_v<T> && detail::is_plain<T> && !encode_as_json<T> && !std::same_as<T, std::byte>)
struct Codec<T> : detail::BuiltIn<std::underlying_type_t<T>> {
  using Underlying = std::underlying_type_t<T>;
  static constexpr detail::Rule rule =
      detail::HasFixedUnderlying<T> ? detail::Rule::none : detail::Rule::plain_enum;
  static consteval std::size_t min_bytes() { return 1; }
  static std::size_t size(const T& value) { return Codec<Underlying>::size(static_cast<Underlying>(value)); }
  static void encode(const T& value, ByteWriter& out) {
    static_assert(detail::Explain<T>::is_done);
    Codec<Underlying>::encode(static_cast<Underlying>(value), out);
  }
  static T decode(ByteReader& in) { return static_cast<T>(Codec<Underlying>::decode(in)); }
  static std::string type_name() { return Codec<Underlying>::type_name(); }
};

/// The bits of IEEE 754, least significant byte first: every NaN and both zeros come back as they were.
template <class T>
  requires(std::same_as<T, float> || std::same_as<T, double>)
struct Codec<T> : detail::BuiltIn<> {
  static_assert(std::numeric_limits<T>::is_iec559);
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  static constexpr bool is_key = false;  // NaN has no place in an order, and -0.0 == 0.0 has two encodings
  static consteval std::size_t min_bytes() { return sizeof(T); }
  static std::size_t size(const T&) { return sizeof(T); }
  static void encode(const T& value, ByteWriter& out) {
    const auto bits = std::bit_cast<Bits>(value);
    for (unsigned shift = 0; shift < 8 * sizeof(T); shift += 8) {
      out.put_u8(static_cast<std::uint8_t>(bits >> shift));
    }
  }
  static T decode(ByteReader& in) {
    Bits bits = 0;
    unsigned shift = 0;
    for (const std::byte b : in.read_bytes(sizeof(T))) {
      bits |= static_cast<Bits>(b) << shift;
      shift += 8;
    }
    return std::bit_cast<T>(bits);
  }
  static std::string type_name() { return sizeof(T) == 4 ? "f32" : "f64"; }
};

/// Nothing at all.
template <>
struct Codec<std::monostate> : detail::BuiltIn<> {
  static consteval std::size_t min_bytes() { return 0; }
  static std::size_t size(std::monostate) { return 0; }
  static void encode(std::monostate, ByteWriter&) {}
  static std::monostate decode(ByteReader&) { return {}; }
  static std::string type_name() { return "{}"; }
};

}  // namespace syncstate

#endif
