// The closed key set and the initial state: what `freeze` fixes and everyone shares.
#ifndef SYNCSTATE_DETAIL_MODEL_FROZEN_STATE_HPP
#define SYNCSTATE_DETAIL_MODEL_FROZEN_STATE_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"
#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/entry_draft.hpp"
#include "syncstate/detail/model/key_hash.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/detail/model/packed_keys.hpp"
#include "syncstate/detail/model/sha256.hpp"
#include "syncstate/map_hash.hpp"

namespace syncstate::detail {

/// Hashes the whole encoding of `value`, after its length.
template <class T>
void update_with(Sha256& sha, const T& value, Bytes& scratch) {
  if constexpr (is_byte_like<T>) {
    sha.update_sized(content_view(value));
  } else {
    scratch.clear();
    encode_whole(value, scratch);
    sha.update_sized(scratch);
  }
}

/// Keys in ascending order with their initial values, found by key or by ordinal, and their hash.
///
/// Threads : immutable, so any.
/// Lifetime: held by `std::shared_ptr<const FrozenState>` by every copy, diff and view of the map.
template <class K, class V>
class FrozenState {
 public:
  static constexpr std::uint32_t npos = KeyTable::npos;

  /// From keys in any order.
  /// Errors: `duplicate_key`, `too_large`.
  [[nodiscard]] static std::shared_ptr<const FrozenState> make(DenseArray<K> keys, DenseArray<V> values) {
    EntryDraft<K, V> draft(std::move(keys), std::move(values));
    return make(draft);
  }

  /// Takes what was pushed. On an exception the draft holds what it held before.
  [[nodiscard]] static std::shared_ptr<const FrozenState> make(EntryDraft<K, V>& draft) {
    draft.sort();
    Sha256 sha;
    Bytes scratch;
    PackedKeys packed;
    if constexpr (is_byte_like<K>) packed.prepare(draft.keys());
    for (std::uint32_t i = 0; i < draft.size(); ++i) {
      if constexpr (is_byte_like<K>) packed.add(content_view(draft.keys()[i]));
      update_with(sha, draft.keys()[i], scratch);
      update_with(sha, draft.values()[i], scratch);
    }
    return std::make_shared<const FrozenState>(std::move(draft), std::move(packed), MapHash(sha.finish()));
  }

  FrozenState(EntryDraft<K, V>&& draft, PackedKeys&& packed, const MapHash& hash) noexcept
      : entries_(std::move(draft)), packed_(std::move(packed)), hash_(hash) {}

  [[nodiscard]] std::uint32_t size() const { return entries_.size(); }
  [[nodiscard]] const K& key(std::uint32_t ordinal) const { return entries_.keys()[ordinal]; }
  [[nodiscard]] const V& initial(std::uint32_t ordinal) const { return entries_.values()[ordinal]; }
  [[nodiscard]] const DenseArray<K>& keys() const { return entries_.keys(); }
  [[nodiscard]] const DenseArray<V>& initial_values() const { return entries_.values(); }

  /// The ordinal of a key, or `npos`.
  [[nodiscard]] std::uint32_t find(KeyArg<K> key) const {
    if constexpr (is_byte_like<K>) {
      if (packed_.has_block()) [[likely]]
        return entries_.find(key, packed_);
    }
    return entries_.find(key);
  }

  [[nodiscard]] const MapHash& hash() const { return hash_; }

  /// SHA-256 over the sized bytes of the keys alone, in ascending order. Computed when first asked for.
  [[nodiscard]] const MapHash& keys_hash() const {
    if (const MapHash* known = keys_hash_.load(std::memory_order_acquire)) return *known;
    Sha256 sha;
    Bytes scratch;
    for (const K& key : keys()) update_with(sha, key, scratch);
    auto computed = std::make_unique<const MapHash>(sha.finish());
    const MapHash* first = nullptr;  // two threads may come to here; both have the same result
    if (!keys_hash_.compare_exchange_strong(first, computed.get(), std::memory_order_acq_rel)) return *first;
    return *computed.release();
  }

  FrozenState(const FrozenState&) = delete;
  FrozenState& operator=(const FrozenState&) = delete;
  ~FrozenState() { delete keys_hash_.load(std::memory_order_acquire); }

 private:
  EntryDraft<K, V> entries_;
  PackedKeys packed_;
  MapHash hash_;
  mutable std::atomic<const MapHash*> keys_hash_{nullptr};
};

/// True when ordinals mean the same in both.
template <class K, class V>
bool is_same_map(const std::shared_ptr<const FrozenState<K, V>>& a,
                 const std::shared_ptr<const FrozenState<K, V>>& b) {
  return a == b || (a != nullptr && b != nullptr && a->hash() == b->hash());
}

}  // namespace syncstate::detail

#endif
