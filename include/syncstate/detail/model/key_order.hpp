// The ascending order of keys, and how a key is passed to a lookup.
#ifndef SYNCSTATE_DETAIL_MODEL_KEY_ORDER_HPP
#define SYNCSTATE_DETAIL_MODEL_KEY_ORDER_HPP

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/codec/byte_containers.hpp"
#include "syncstate/codec/portable_order.hpp"

namespace syncstate::detail {

template <class K>
struct KeyArgument {
  using Type = const K&;
};
template <>
struct KeyArgument<std::string> {
  using Type = std::string_view;
};
template <>
struct KeyArgument<std::vector<std::byte>> {
  using Type = ByteView;
};

/// What a lookup takes: every K converts to it, and text or bytes get there without a copy.
template <class K>
using KeyArg = typename KeyArgument<K>::Type;

inline ByteView key_bytes(std::string_view key) { return as_byte_view(key); }
inline ByteView key_bytes(ByteView key) { return key; }
template <class K>
  requires(is_byte_like<K>)
ByteView key_bytes(const K& key) {
  return content_view(key);
}

inline bool is_less(ByteView a, ByteView b) {
  const std::size_t common = (std::min)(a.size(), b.size());
  const int order = common == 0 ? 0 : std::memcmp(a.data(), b.data(), common);
  return order != 0 ? order < 0 : a.size() < b.size();
}

/// Unsigned byte order for strings and byte containers, whatever the sign of their elements; `<` for all else, but with
/// every plain `char` in it compared as an unsigned one, because machines differ in its sign.
template <class K>
struct KeyLess {
  bool operator()(KeyArg<K> a, KeyArg<K> b) const {
    if constexpr (is_byte_like<K>) {
      return is_less(key_bytes(a), key_bytes(b));
    } else if constexpr (depends_on_char_sign<K>()) {
      return compare_portably(a, b) < 0;
    } else {
      return a < b;
    }
  }
};

}  // namespace syncstate::detail

#endif
