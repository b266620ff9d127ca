// Keys and values while keys may still be added.
#ifndef SYNCSTATE_DETAIL_MODEL_ENTRY_DRAFT_HPP
#define SYNCSTATE_DETAIL_MODEL_ENTRY_DRAFT_HPP

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/codec/byte_containers.hpp"
#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/key_hash.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/detail/model/key_sort.hpp"
#include "syncstate/detail/model/packed_keys.hpp"
#include "syncstate/error.hpp"

namespace syncstate::detail {

/// Unique keys in the order they were pushed, or in ascending order after `sort`; values beside them.
///
/// Every member that throws leaves the draft as it was.
template <class K, class V>
class EntryDraft {
 public:
  static constexpr std::uint32_t npos = KeyTable::npos;

  EntryDraft() = default;

  /// Errors: `duplicate_key`, `too_large`; the draft is gone then.
  EntryDraft(DenseArray<K> keys, DenseArray<V> values) : keys_(std::move(keys)), values_(std::move(values)) {
    if (keys_.size() >= npos) throw StateError(StateErrc::too_large, "a map has 2^32 - 2 keys at most");
    table_.reserve(keys_.size(), 0, [](std::uint32_t) { return std::uint64_t{0}; });
    for (std::uint32_t i = 0; i < keys_.size(); ++i) {
      const std::uint64_t hash = hash_of(i);
      if (find(hash, keys_[i]) != npos) throw StateError(StateErrc::duplicate_key);
      table_.insert(hash, i);
      is_ascending_ = is_ascending_ && (i == 0 || KeyLess<K>{}(keys_[i - 1], keys_[i]));
    }
  }

  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(keys_.size()); }
  [[nodiscard]] const DenseArray<K>& keys() const { return keys_; }
  [[nodiscard]] const DenseArray<V>& values() const { return values_; }

  /// The index of a key, or `npos`.
  [[nodiscard]] std::uint32_t find(KeyArg<K> key) const { return find(hash_key<K>(key, table_.seed()), key); }

  /// The same, where `packed` are the keys' bytes.
  [[nodiscard]] std::uint32_t find(KeyArg<K> key, const PackedKeys& packed) const
    requires(is_byte_like<K>)
  {
    const ByteView bytes = key_bytes(key);
    return table_.find(hash_key<K>(key, table_.seed()), [&](std::uint32_t i) { return packed.is(i, bytes); });
  }

  /// Errors: `duplicate_key`, `too_large`.
  void push(K key, V value) {
    if (keys_.size() >= npos - 1) throw StateError(StateErrc::too_large, "a map has 2^32 - 2 keys at most");
    const std::uint64_t hash = hash_key<K>(key, table_.seed());
    if (find(hash, key) != npos) throw StateError(StateErrc::duplicate_key);
    const bool is_ascending = is_ascending_ && (keys_.empty() || KeyLess<K>{}(keys_[keys_.size() - 1], key));
    table_.reserve(keys_.size() + 1, keys_.size(), [this](std::uint32_t i) { return hash_of(i); });
    const auto index = static_cast<std::uint32_t>(keys_.size());
    keys_.push_back(std::move(key));
    try {
      values_.push_back(std::move(value));
    } catch (...) {
      keys_.pop_back();
      throw;
    }
    table_.insert(hash, index);
    is_ascending_ = is_ascending;
  }

  void reserve(std::size_t count) {
    keys_.reserve(count);
    values_.reserve(count);
    table_.reserve(count, keys_.size(), [this](std::uint32_t i) { return hash_of(i); });
  }

  /// Puts the keys in ascending order.
  void sort() {
    if (is_ascending_) return;
    const std::vector<KeyPlace> order = sorted_places<K>(keys_);
    std::vector<std::uint32_t> renamed(order.size());
    DenseArray<K> keys;
    DenseArray<V> values;
    keys.reserve(order.size());
    values.reserve(order.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) {  // from here on nothing throws
      renamed[order[i].index] = i;
      keys.push_back(std::move(keys_[order[i].index]));
      values.push_back(std::move(values_[order[i].index]));
    }
    keys_ = std::move(keys);
    values_ = std::move(values);
    table_.rename(renamed);
    is_ascending_ = true;
  }

 private:
  [[nodiscard]] std::uint64_t hash_of(std::uint32_t index) const {
    return hash_key<K>(keys_[index], table_.seed());
  }
  [[nodiscard]] std::uint32_t find(std::uint64_t hash, KeyArg<K> key) const {
    return table_.find(hash, [&](std::uint32_t i) { return equal_keys<K>(keys_[i], key); });
  }

  DenseArray<K> keys_;
  DenseArray<V> values_;
  KeyTable table_;
  bool is_ascending_ = true;
};

}  // namespace syncstate::detail

#endif
