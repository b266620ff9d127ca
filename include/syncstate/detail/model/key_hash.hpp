// A fast hash over keys, seeded so that nobody can choose keys that collide; and the table made with it.
#ifndef SYNCSTATE_DETAIL_MODEL_KEY_HASH_HPP
#define SYNCSTATE_DETAIL_MODEL_KEY_HASH_HPP

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"
#include "syncstate/codec/portable_order.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/detail/model/random.hpp"
#include "syncstate/detail/visibility.hpp"

namespace syncstate::detail {

/// What makes the hashes of one process differ from those of any other.
struct HashSeed {
  std::uint64_t first;
  std::uint64_t second;

  /// The seed of this process. A shared library may have one of its own: what is hashed with a seed keeps the seed.
  SYNCSTATE_VISIBLE [[nodiscard]] static HashSeed of_process() {
    static const HashSeed seed{random_u64(), random_u64()};
    return seed;
  }
};

/// Both halves of the 128-bit product, folded into one: every bit of `a` and `b` reaches every bit of the
/// result.
inline std::uint64_t fold_multiply(std::uint64_t a, std::uint64_t b) {
#ifdef __SIZEOF_INT128__
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
#else
  const std::uint64_t a_low = a & 0xFFFFFFFF, a_high = a >> 32, b_low = b & 0xFFFFFFFF, b_high = b >> 32;
  const std::uint64_t low = a_low * b_low, mid = a_high * b_low + (low >> 32);
  const std::uint64_t mid2 = a_low * b_high + (mid & 0xFFFFFFFF);
  return (mid2 << 32 | (low & 0xFFFFFFFF)) ^ (a_high * b_high + (mid >> 32) + (mid2 >> 32));
#endif
}

inline std::uint64_t hash_bytes(const void* data, std::size_t size, HashSeed seed) {
  const auto load64 = [](const unsigned char* p) {
    std::uint64_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
  };
  const auto load32 = [](const unsigned char* p) {
    std::uint32_t v;
    std::memcpy(&v, p, sizeof v);
    return std::uint64_t{v};
  };
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint64_t state = seed.second;
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  if (size > 16) {
    std::size_t left = size;
    for (; left > 16; left -= 16, p += 16)
      state = fold_multiply(load64(p) ^ seed.first, load64(p + 8) ^ state);
    a = load64(p + left - 16);  // the last 16 bytes, some of them for the second time
    b = load64(p + left - 8);
  } else if (size >= 8) {
    a = load64(p);
    b = load64(p + size - 8);
  } else if (size >= 4) {
    a = load32(p);
    b = load32(p + size - 4);
  } else if (size > 0) {
    a = static_cast<std::uint64_t>(p[0]) << 16 | static_cast<std::uint64_t>(p[size / 2]) << 8 | p[size - 1];
  }
  // The size tells apart what the overlapping loads do not ("aaaa" and "aaaaa").
  return fold_multiply(fold_multiply(a ^ seed.first, b ^ state) ^ size, seed.first);
}

inline std::uint64_t hash_number(std::uint64_t number, HashSeed seed) {
  return fold_multiply(fold_multiply(number ^ seed.first, seed.second | 1) ^ seed.second, seed.first | 1);
}

/// Hashes the ordinal of a key: cheaper than `hash_number`, for an index that is asked once per change.
inline std::uint64_t hash_ordinal(std::uint32_t ordinal, HashSeed seed) {
  return fold_multiply(ordinal ^ seed.first, seed.second | 1);
}

/// Hashes numbers that a peer chooses, for standard containers, whose own hash of a number is that number.
struct NumberHash {
  std::size_t operator()(std::uint64_t number) const { return hash_number(number, seed); }

  HashSeed seed = HashSeed::of_process();
};

/// The hash of a key. Keys that compare equal must have equal encodings, as `StateKey` demands.
template <class K>
std::uint64_t hash_key(KeyArg<K> key, HashSeed seed) {
  using Arg = std::remove_cvref_t<KeyArg<K>>;
  if constexpr (std::same_as<Arg, std::string_view> || std::same_as<Arg, ByteView>) {
    return hash_bytes(key.data(), key.size(), seed);
  } else if constexpr (is_byte_like<K>) {
    const ByteView bytes = content_view(key);
    return hash_bytes(bytes.data(), bytes.size(), seed);
  } else if constexpr (std::is_integral_v<K> || std::is_enum_v<K>) {
    return hash_number(static_cast<std::uint64_t>(key), seed);
  } else {
    // Taken out while in use: a user's codec may look up keys itself.
    thread_local Bytes kept;
    Bytes bytes = std::move(kept);
    bytes.clear();
    encode_whole(key, bytes);
    const std::uint64_t hash = hash_bytes(bytes.data(), bytes.size(), seed);
    constexpr std::size_t most_kept = 4'096;  // the memory of a larger one is given back
    if (bytes.capacity() <= most_kept) kept = std::move(bytes);
    return hash;
  }
}

template <class K>
bool equal_keys(const K& stored, KeyArg<K> wanted) {
  using Arg = std::remove_cvref_t<KeyArg<K>>;
  if constexpr (std::same_as<Arg, std::string_view>) {
    return std::string_view(stored) == wanted;
  } else if constexpr (std::same_as<Arg, ByteView>) {
    return as_string_view(ByteView(stored)) == as_string_view(wanted);
  } else if constexpr (is_byte_like<K>) {
    return as_string_view(content_view(stored)) == as_string_view(content_view(wanted));
  } else if constexpr (std::is_integral_v<K>) {
    return stored == wanted;
  } else if constexpr (depends_on_char_sign<K>()) {
    return compare_portably(stored, wanted) == 0;
  } else {
    const KeyLess<K> less;
    return !less(stored, wanted) && !less(wanted, stored);
  }
}

/// An open-addressing table from the hash of a key to its index; the keys themselves lie elsewhere.
///
/// A slot is 32 bits: the index in as many low bits as it needs, and in the rest as much of the hash as fits,
/// so that nearly every key that is compared is the right one.
class KeyTable {
 public:
  static constexpr std::uint32_t npos = 0xFFFFFFFF;

  KeyTable() : seed_(HashSeed::of_process()) {}

  [[nodiscard]] HashSeed seed() const { return seed_; }

  /// The index stored under `hash` for which `is_key(index)` holds, or `npos`.
  template <class F>
  [[nodiscard]] std::uint32_t find(std::uint64_t hash, F is_key) const {
    if (slots_.empty()) return npos;
    const std::uint32_t tag = static_cast<std::uint32_t>(hash) & tag_mask_;
    for (std::size_t at = place(hash);; at = (at + 1) & (slots_.size() - 1)) {
      const std::uint32_t slot = slots_[at];
      if (slot == npos) return npos;
      if ((slot & tag_mask_) == tag) {
        const std::uint32_t index = slot & ~tag_mask_;
        if (is_key(index)) return index;
      }
    }
  }

  /// Makes room for `count` keys; `hash_of(index)` for those in it already. Either wholly done or not at all.
  template <class F>
  void reserve(std::size_t count, std::size_t size, F hash_of) {
    if (2 * count <= slots_.size()) return;
    KeyTable larger(seed_, std::bit_ceil(2 * count < 16 ? std::size_t{16} : 2 * count));
    for (std::size_t i = 0; i < size; ++i)
      larger.insert(hash_of(static_cast<std::uint32_t>(i)), static_cast<std::uint32_t>(i));
    *this = std::move(larger);
  }

  /// Room must have been reserved, and the key must not be in it.
  void insert(std::uint64_t hash, std::uint32_t index) {
    std::size_t at = place(hash);
    while (slots_[at] != npos) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = (static_cast<std::uint32_t>(hash) & tag_mask_) | index;
  }

  /// Every index becomes `renamed[index]`, a permutation.
  void rename(const std::vector<std::uint32_t>& renamed) {
    for (std::uint32_t& slot : slots_) {
      if (slot != npos) slot = (slot & tag_mask_) | renamed[slot & ~tag_mask_];
    }
  }

 private:
  KeyTable(HashSeed seed, std::size_t slot_count) : seed_(seed), slots_(slot_count, npos) {
    // Half of the slots stay empty, so an index is less than half of what its bits could say: no slot in use
    // looks like npos. Beyond 2^32 slots there are no bits left for a tag.
    const auto bits = static_cast<unsigned>(std::countr_zero(slot_count));
    shift_ = 64 - bits;
    tag_mask_ = bits >= 32 ? 0 : ~((std::uint32_t{1} << bits) - 1);
  }

  [[nodiscard]] std::size_t place(std::uint64_t hash) const { return hash >> shift_; }

  HashSeed seed_;
  std::vector<std::uint32_t> slots_;
  unsigned shift_ = 63;
  std::uint32_t tag_mask_ = 0;
};

}  // namespace syncstate::detail

#endif
