// Codecs of strings and byte containers, whose bytes are their contents.
#ifndef SYNCSTATE_CODEC_BYTE_CONTAINERS_HPP
#define SYNCSTATE_CODEC_BYTE_CONTAINERS_HPP

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "syncstate/codec/memory.hpp"
#include "syncstate/codec/rules.hpp"

namespace syncstate {

namespace detail {

template <class T>
concept ByteElement = std::same_as<T, std::byte> || std::same_as<T, char> || std::same_as<T, unsigned char> ||
                      std::same_as<T, signed char> || std::same_as<T, char8_t>;

template <class T>
inline constexpr bool is_byte_string = false;
template <ByteElement C, class Traits, class Allocator>
inline constexpr bool is_byte_string<std::basic_string<C, Traits, Allocator>> = true;

template <class T>
inline constexpr bool is_byte_vector = false;
template <ByteElement C, class Allocator>
inline constexpr bool is_byte_vector<std::vector<C, Allocator>> = true;

template <class T>
inline constexpr bool is_byte_array = false;
template <ByteElement C, std::size_t size>
inline constexpr bool is_byte_array<std::array<C, size>> = true;

}  // namespace detail

/// True for strings and for vectors and arrays of bytes: types whose contents are their bytes.
template <class T>
inline constexpr bool is_byte_like =
    detail::is_byte_string<T> || detail::is_byte_vector<T> || detail::is_byte_array<T>;

namespace detail {

/// Strings and byte vectors: assigning one to another copies bytes, and allocates only if they do not fit.
template <class T>
concept HasCapacity = is_byte_string<T> || is_byte_vector<T>;

}  // namespace detail

/// The contents of a string or byte container, without a copy.
/// Lifetime: as good as `value`.
template <class T>
  requires(is_byte_like<T>)
ByteView content_view(const T& value) {
  return std::as_bytes(std::span(value.data(), value.size()));
}

namespace detail {

/// Returns a number below, equal to or above 0 if `a` is ordered before, equal to or after `b`, as unsigned bytes.
inline int compare_bytes(ByteView a, ByteView b) {
  const std::size_t common = (std::min)(a.size(), b.size());
  const int order = common == 0 ? 0 : std::memcmp(a.data(), b.data(), common);
  if (order != 0) return order;
  return a.size() < b.size() ? -1 : b.size() < a.size() ? 1 : 0;
}

/// A string or byte container with these contents.
template <class T>
T from_contents(ByteView contents) {
  using Element = typename T::value_type;
  const auto* data = reinterpret_cast<const Element*>(contents.data());  // a byte type may alias anything
  if constexpr (is_byte_array<T>) {
    T out{};
    if (contents.size() != out.size()) ByteReader::fail("a byte array of another length");
    std::copy_n(data, out.size(), out.data());
    return out;
  } else {
    return T(data, data + contents.size());
  }
}

}  // namespace detail

/// Within other values: a varint length, then the contents. As a whole value, the contents alone.
template <class T>
  requires(detail::is_byte_string<T> || detail::is_byte_vector<T>)
struct Codec<T> : detail::BuiltIn<> {
  static consteval std::size_t min_bytes() { return 1; }
  static std::size_t size(const T& value) { return varint_size(value.size()) + value.size(); }
  static constexpr bool owns_memory = true;
  static std::size_t owned_bytes(const T& value) {
    // Counted for each commit, so simply. A string keeps a few bytes within itself, fewer than half its size; no block
    // takes more than 24 bytes beside what is asked for.
    const std::size_t capacity = value.capacity();
    return capacity < (detail::is_byte_string<T> ? sizeof(T) / 2 : 1) ? 0 : capacity + 24;
  }
  static void encode(const T& value, ByteWriter& out) {
    if constexpr (!detail::is_byte_string<T>) out.count_memory(detail::block_bytes(value.size()));
    out.put_sized(content_view(value));
  }
  static T decode(ByteReader& in) {
    const ByteView contents = in.read_sized();
    if constexpr (!detail::is_byte_string<T>) in.take_memory(detail::block_bytes(contents.size()));
    return detail::from_contents<T>(contents);
  }
  static std::string type_name() { return detail::is_byte_string<T> ? "string" : "bytes"; }
};

/// The contents alone, everywhere: the type fixes the length.
template <class T>
  requires(detail::is_byte_array<T>)
struct Codec<T> : detail::BuiltIn<> {
  static constexpr std::size_t length = std::tuple_size_v<T>;
  static consteval std::size_t min_bytes() { return length; }
  static std::size_t size(const T&) { return length; }
  static void encode(const T& value, ByteWriter& out) { out.put(content_view(value)); }
  static T decode(ByteReader& in) { return detail::from_contents<T>(in.read_bytes(length)); }
  static std::string type_name() { return "[byte;" + std::to_string(length) + "]"; }
};

}  // namespace syncstate

#endif
