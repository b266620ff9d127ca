// The ascending order of many keys, found without following a pointer for each comparison.
#ifndef SYNCSTATE_DETAIL_MODEL_KEY_SORT_HPP
#define SYNCSTATE_DETAIL_MODEL_KEY_SORT_HPP

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/codec/portable_order.hpp"
#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/key_order.hpp"

namespace syncstate::detail {

/// A key's index, beside a number that orders as the key does, as far as it can tell.
struct KeyPlace {
  std::uint64_t prefix;
  std::uint32_t index;
};

/// Eight bytes of a key from `depth` on, the first most significant; zeros after its end.
inline std::uint64_t bytes_at(ByteView key, std::size_t depth) {
  std::uint64_t prefix = 0;
  for (std::size_t i = depth; i < depth + 8; ++i) {
    prefix = prefix << 8 | (i < key.size() ? std::to_integer<std::uint64_t>(key[i]) : 0);
  }
  return prefix;
}

/// Sorts places of keys that agree in their first `depth` bytes: by the eight bytes that come after all that
/// they have in common, then those that are still equal likewise.
template <class K>
void sort_by_bytes(const DenseArray<K>& keys, KeyPlace* first, KeyPlace* last, std::size_t depth) {
  const auto bytes_of = [&](const KeyPlace& place) { return content_view(keys[place.index]); };
  while (last - first > 1) {
    const ByteView sample = bytes_of(*first);
    std::size_t agreed = sample.size();
    for (KeyPlace* place = first + 1; place != last; ++place) {
      const ByteView key = bytes_of(*place);
      const std::size_t limit = (std::min)(agreed, key.size());
      agreed = depth;
      while (agreed < limit && key[agreed] == sample[agreed]) ++agreed;
    }
    for (KeyPlace* place = first; place != last; ++place) place->prefix = bytes_at(bytes_of(*place), agreed);
    std::sort(first, last, [](const KeyPlace& a, const KeyPlace& b) { return a.prefix < b.prefix; });

    depth = agreed + 8;
    // The longest run of equals is left to the loop: then calls nest no deeper than the logarithm of the
    // count, however long the keys are that somebody chose.
    KeyPlace* longest = last;
    KeyPlace* longest_end = last;
    for (KeyPlace *run = first, *end = first; run != last; run = end) {
      while (end != last && end->prefix == run->prefix) ++end;
      if (end - run < 2) continue;
      // Zeros after an end look like zeros in a key; only a comparison tells them apart.
      if (std::any_of(run, end, [&](const KeyPlace& place) { return bytes_of(place).size() < depth; })) {
        std::sort(run, end, [&](const KeyPlace& a, const KeyPlace& b) {
          return KeyLess<K>{}(keys[a.index], keys[b.index]);
        });
      } else if (end - run <= longest_end - longest) {
        sort_by_bytes<K>(keys, run, end, depth);
      } else {
        sort_by_bytes<K>(keys, longest, longest_end, depth);
        longest = run;
        longest_end = end;
      }
    }
    first = longest;
    last = longest_end;
  }
}

/// The indices of the keys in ascending order of the keys.
template <class K>
std::vector<KeyPlace> sorted_places(const DenseArray<K>& keys) {
  std::vector<KeyPlace> places(keys.size());
  for (std::uint32_t i = 0; i < places.size(); ++i) {
    places[i].index = i;
    if constexpr (CharOfEitherSign<K>) {
      places[i].prefix = static_cast<std::make_unsigned_t<K>>(keys[i]);
    } else if constexpr (std::unsigned_integral<K>) {
      places[i].prefix = keys[i];
    } else if constexpr (std::signed_integral<K>) {
      places[i].prefix = static_cast<std::uint64_t>(static_cast<std::int64_t>(keys[i])) ^ std::uint64_t{1}
                                                                                              << 63;
    }
  }
  if constexpr (std::integral<K>) {
    std::sort(places.begin(), places.end(),
              [](const KeyPlace& a, const KeyPlace& b) { return a.prefix < b.prefix; });
  } else if constexpr (is_byte_like<K>) {
    if (!places.empty()) sort_by_bytes<K>(keys, places.data(), places.data() + places.size(), 0);
  } else {
    std::sort(places.begin(), places.end(), [&](const KeyPlace& a, const KeyPlace& b) {
      return KeyLess<K>{}(keys[a.index], keys[b.index]);
    });
  }
  return places;
}

}  // namespace syncstate::detail

#endif
