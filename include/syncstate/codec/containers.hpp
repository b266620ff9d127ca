// Codecs of vector, array, set and map.
#ifndef SYNCSTATE_CODEC_CONTAINERS_HPP
#define SYNCSTATE_CODEC_CONTAINERS_HPP

#include <array>
#include <concepts>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/codec/byte_containers.hpp"
#include "syncstate/codec/memory.hpp"
#include "syncstate/codec/portable_order.hpp"
#include "syncstate/codec/rules.hpp"

namespace syncstate {

/// A varint count, then the elements.
template <class T, class Allocator>
  requires(!is_byte_like<std::vector<T, Allocator>>)
struct Codec<std::vector<T, Allocator>> : detail::BuiltIn<T> {
  using Vector = std::vector<T, Allocator>;
  static constexpr bool is_sequence = true;
  static consteval std::size_t min_bytes() { return 1; }

  static std::size_t size(const Vector& value) {
    std::size_t size = varint_size(value.size());
    for (const T& element : value) size += detail::encoded_size<T>(element);
    return size;
  }

  static constexpr bool owns_memory = true;
  static std::size_t owned_bytes(const Vector& value) {
    if constexpr (std::same_as<T, bool>) {
      return block_bytes_of(value.capacity());
    } else {
      return block_bytes_of(value.capacity()) + detail::owned_by_all<T>(value);
    }
  }

  static void encode(const Vector& value, ByteWriter& out) {
    static_assert(detail::Explain<Vector>::is_done);
    out.count_memory(block_bytes_of(value.size()));
    out.put_varint(value.size());
    for (const T& element : value) Codec<T>::encode(element, out);
  }

  static Vector decode(ByteReader& in) {
    static_assert(detail::Explain<Vector>::is_done);
    std::size_t count = detail::read_count(in, detail::min_bytes<T>());
    Vector out;
    // All at once: growing by doubling would need up to three times the bytes × sizeof(T) that we allow a
    // peer.
    in.take_memory(block_bytes_of(count));
    out.reserve(count);
    for (; count > 0; --count) out.push_back(Codec<T>::decode(in));
    return out;
  }

  static std::string type_name() { return "[" + Codec<T>::type_name() + "]"; }

 private:
  static std::size_t block_bytes_of(std::size_t count) {
    return detail::block_bytes(std::same_as<T, bool> ? count / 8 : count * sizeof(T));
  }
};

/// The elements; the type fixes how many.
template <class T, std::size_t length>
  requires(!is_byte_like<std::array<T, length>>)
struct Codec<std::array<T, length>> : detail::BuiltIn<T> {
  using Array = std::array<T, length>;
  static constexpr bool is_sequence = length > 0;
  static consteval std::size_t min_bytes() { return length * detail::min_bytes<T>(); }

  static std::size_t size(const Array& value) {
    std::size_t size = 0;
    for (const T& element : value) size += detail::encoded_size<T>(element);
    return size;
  }

  static std::size_t owned_bytes(const Array& value) { return detail::owned_by_all<T>(value); }

  static void encode(const Array& value, ByteWriter& out) {
    static_assert(detail::Explain<Array>::is_done);
    for (const T& element : value) Codec<T>::encode(element, out);
  }

  static Array decode(ByteReader& in) {
    static_assert(detail::Explain<Array>::is_done);
    return decode(in, std::make_index_sequence<length>{});
  }

  static std::string type_name() { return "[" + Codec<T>::type_name() + ";" + std::to_string(length) + "]"; }

 private:
  template <std::size_t... indices>
  static Array decode([[maybe_unused]] ByteReader& in, std::index_sequence<indices...>) {
    // Braces evaluate from left to right, and T needs no default constructor.
    return Array{{(static_cast<void>(indices), Codec<T>::decode(in))...}};
  }
};

/// A varint count, then the elements in ascending order; any other order is refused. Elements that hold a plain
/// `char` ascend as if it were unsigned, because machines differ in its sign.
template <class T, class Compare, class Allocator>
struct Codec<std::set<T, Compare, Allocator>> : detail::BuiltIn<T> {
  using Set = std::set<T, Compare, Allocator>;
  static constexpr bool is_sequence = true;
  static consteval std::size_t min_bytes() { return 1; }

  static std::size_t size(const Set& value) {
    std::size_t size = varint_size(value.size());
    for (const T& element : value) size += detail::encoded_size<T>(element);
    return size;
  }

  static constexpr bool owns_memory = true;
  static std::size_t owned_bytes(const Set& value) {
    return value.size() * detail::tree_node_bytes<T> + detail::owned_by_all<T>(value);
  }

  static void encode(const Set& value, ByteWriter& out) {
    static_assert(detail::Explain<Set>::is_done);
    out.count_memory(value.size() * detail::tree_node_bytes<T>);
    out.put_varint(value.size());
    if constexpr (detail::depends_on_char_sign<T>()) {
      for (const T* element : detail::sorted_portably(value, detail::ElementItself{})) {
        Codec<T>::encode(*element, out);
      }
    } else {
      for (const T& element : value) Codec<T>::encode(element, out);
    }
  }

  static Set decode(ByteReader& in) {
    static_assert(detail::Explain<Set>::is_done);
    std::size_t count = detail::read_count(in, detail::min_bytes<T>());
    in.take_memory(count * detail::tree_node_bytes<T>);
    Set out;
    if constexpr (detail::depends_on_char_sign<T>()) {
      const T* last = nullptr;
      for (; count > 0; --count) {
        T element = Codec<T>::decode(in);
        if (last != nullptr && detail::compare_portably(*last, element) >= 0)
          ByteReader::fail("a set out of order");
        const auto [at, is_new] = out.insert(std::move(element));
        if (!is_new) ByteReader::fail("a set with two elements that it takes for the same");
        last = &*at;
      }
      return out;
    }
    for (; count > 0; --count) {
      T element = Codec<T>::decode(in);
      if (!out.empty() && !out.key_comp()(*out.rbegin(), element)) ByteReader::fail("a set out of order");
      out.insert(out.end(), std::move(element));
    }
    return out;
  }

  static std::string type_name() { return "set<" + Codec<T>::type_name() + ">"; }
};

/// A varint count, then key and value of each entry in ascending order of the keys; any other order is refused. Keys
/// that hold a plain `char` ascend as if it were unsigned, because machines differ in its sign.
template <class K, class V, class Compare, class Allocator>
struct Codec<std::map<K, V, Compare, Allocator>> : detail::BuiltIn<K, V> {
  using Map = std::map<K, V, Compare, Allocator>;
  static constexpr bool is_sequence = true;
  static consteval std::size_t min_bytes() { return 1; }

  static std::size_t size(const Map& value) {
    std::size_t size = varint_size(value.size());
    for (const auto& entry : value) {
      size += detail::encoded_size<K>(entry.first) + detail::encoded_size<V>(entry.second);
    }
    return size;
  }

  static constexpr bool owns_memory = true;
  static std::size_t owned_bytes(const Map& value) {
    std::size_t bytes = value.size() * node_bytes;
    if constexpr (!detail::is_flat<K>() || !detail::is_flat<V>()) {
      for (const auto& entry : value) {
        bytes += detail::owned_bytes<K>(entry.first) + detail::owned_bytes<V>(entry.second);
      }
    }
    return bytes;
  }

  static void encode(const Map& value, ByteWriter& out) {
    static_assert(detail::Explain<Map>::is_done);
    out.count_memory(value.size() * node_bytes);
    out.put_varint(value.size());
    const auto put = [&out](const typename Map::value_type& entry) {
      Codec<K>::encode(entry.first, out);
      Codec<V>::encode(entry.second, out);
    };
    if constexpr (detail::depends_on_char_sign<K>()) {
      for (const auto* entry : detail::sorted_portably(value, detail::KeyOfEntry{})) put(*entry);
    } else {
      for (const auto& entry : value) put(entry);
    }
  }

  static Map decode(ByteReader& in) {
    static_assert(detail::Explain<Map>::is_done);
    std::size_t count = detail::read_count(in, detail::min_bytes<K>() + detail::min_bytes<V>());
    in.take_memory(count * node_bytes);
    Map out;
    if constexpr (detail::depends_on_char_sign<K>()) {
      const K* last = nullptr;
      for (; count > 0; --count) {
        K key = Codec<K>::decode(in);
        if (last != nullptr && detail::compare_portably(*last, key) >= 0)
          ByteReader::fail("a map out of order");
        const auto [at, is_new] = out.emplace(std::move(key), Codec<V>::decode(in));
        if (!is_new) ByteReader::fail("a map with two keys that it takes for the same");
        last = &at->first;
      }
      return out;
    }
    for (; count > 0; --count) {
      K key = Codec<K>::decode(in);
      if (!out.empty() && !out.key_comp()(out.rbegin()->first, key)) ByteReader::fail("a map out of order");
      out.emplace_hint(out.end(), std::move(key), Codec<V>::decode(in));
    }
    return out;
  }

  static std::string type_name() { return "{" + Codec<K>::type_name() + ":" + Codec<V>::type_name() + "}"; }

 private:
  static constexpr std::size_t node_bytes = detail::tree_node_bytes<typename Map::value_type>;
};

}  // namespace syncstate

#endif
