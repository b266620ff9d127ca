// What values hold in memory: the parts of `memory_bytes` that the built-in codecs share.
#ifndef SYNCSTATE_CODEC_MEMORY_HPP
#define SYNCSTATE_CODEC_MEMORY_HPP

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <type_traits>

#include "syncstate/codec/rules.hpp"

namespace syncstate::detail {

/// What one byte of an encoding is taken for where a codec does not say what its values hold: what a
/// `std::vector<std::string>` takes for each empty string.
inline constexpr std::size_t estimated_memory_per_byte = 32;

/// What a block of `size` bytes takes from the heap, with the allocator's own header; 0 for no block.
constexpr std::size_t block_bytes(std::size_t size) {
  return size == 0 ? 0 : std::max<std::size_t>(32, (size + 8 + 15) & ~std::size_t{15});
}

/// What a tree's node for one element takes: three links and a colour, then the element.
template <class Element>
inline constexpr std::size_t tree_node_bytes = block_bytes(4 * sizeof(void*) + sizeof(Element));

/// The most memory that the blocks of one value may take where its encoding takes `encoded` bytes; strings count
/// apart, for they take no more than twice their bytes.
constexpr std::size_t most_decoded_bytes(std::size_t encoded) {
  return (std::size_t{16} << 20) + 16 * encoded;
}

template <class T>
consteval bool is_flat();

template <class... Ts>
consteval bool are_all_flat(Types<Ts...>) {
  return (is_flat<Ts>() && ...);
}

/// True if values of T own no memory beyond `sizeof(T)`. Of a user's type this is taken for true where it is trivially
/// copyable and its codec does not say otherwise.
template <class T>
consteval bool is_flat() {
  if constexpr (HasParts<T>) {
    if constexpr (Codec<T>::owns_memory) {
      return false;
    } else {
      return are_all_flat(typename Codec<T>::Parts{});
    }
  } else {
    return std::is_trivially_copyable_v<T> && !HasMemoryBytes<T>;
  }
}

/// Our own codecs of types that are not flat say it this way, without the `sizeof(T)` that the value lies in.
template <class T>
concept HasOwnedBytes = requires(const T& value) {
  { Codec<T>::owned_bytes(value) } -> std::same_as<std::size_t>;
};

/// The memory that a value owns beyond `sizeof(T)`.
/// Complexity: constant for flat types, strings, byte containers and vectors of flat types; else the parts that own
/// memory are visited. Of a user's type as its `memory_bytes`, or, without one, as `encoded_size`.
template <class T>
std::size_t owned_bytes([[maybe_unused]] const T& value) {
  if constexpr (is_flat<T>()) {
    return 0;
  } else if constexpr (HasOwnedBytes<T>) {
    return Codec<T>::owned_bytes(value);
  } else if constexpr (HasMemoryBytes<T>) {
    const std::size_t bytes = Codec<T>::memory_bytes(value);
    return bytes > sizeof(T) ? bytes - sizeof(T) : 0;
  } else {
    return estimated_memory_per_byte * encoded_size(value);
  }
}

/// The memory that the elements of a range own beyond themselves.
template <class T, class Range>
std::size_t owned_by_all([[maybe_unused]] const Range& range) {
  std::size_t bytes = 0;
  if constexpr (!is_flat<T>()) {
    for (const T& element : range) bytes += owned_bytes<T>(element);
  }
  return bytes;
}

}  // namespace syncstate::detail

#endif
