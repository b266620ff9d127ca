// Changes by ordinal, at most one for each key.
#ifndef SYNCSTATE_DETAIL_MODEL_CHANGE_SET_HPP
#define SYNCSTATE_DETAIL_MODEL_CHANGE_SET_HPP

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "syncstate/detail/model/key_hash.hpp"

namespace syncstate::detail {

/// What a modification, an open transaction and a diff hold: new values by ordinal, in the order first set.
///
/// A handful is searched one by one, an ascending list by halving, all else through an index that is built
/// when it is first needed. The index is seeded, for peers choose ordinals: nobody can choose those that collide.
/// Errors    : every member that throws leaves the set as it was.
/// Complexity: `set` and `find` O(1) expected and amortized, whatever the ordinals; in an ascending list O(log size).
template <class V>
class ChangeSet {
 public:
  using Change = std::pair<std::uint32_t, V>;

  [[nodiscard]] std::size_t size() const { return changes_.size(); }
  [[nodiscard]] bool empty() const { return changes_.empty(); }
  /// In ascending order, as far as it is known.
  [[nodiscard]] bool is_sorted() const { return is_sorted_; }
  [[nodiscard]] auto begin() const { return changes_.begin(); }
  [[nodiscard]] auto end() const { return changes_.end(); }
  [[nodiscard]] auto begin() { return changes_.begin(); }
  [[nodiscard]] auto end() { return changes_.end(); }
  [[nodiscard]] const Change& operator[](std::size_t i) const { return changes_[i]; }

  /// Sets the key's value; the last one counts.
  void set(std::uint32_t ordinal, V value) {
    if (is_beyond_all(ordinal)) {
      changes_.emplace_back(ordinal, std::move(value));
    } else {
      set_among(ordinal, std::move(value));
    }
  }

  [[nodiscard]] std::size_t capacity() const { return changes_.capacity(); }
  /// The memory of this set, in bytes, without what the values own beyond themselves. Complexity: constant.
  [[nodiscard]] std::size_t own_bytes() const {
    return changes_.capacity() * sizeof(Change) + index_.capacity() * sizeof(index_[0]);
  }
  /// Makes room for this many keys in all.
  void reserve(std::size_t count) { changes_.reserve(count); }

  /// Sets the value of a key beyond all that are set already.
  void append(std::uint32_t ordinal, V value) {
    assert(is_beyond_all(ordinal));
    changes_.emplace_back(ordinal, std::move(value));
  }

  /// The key's new value, or null.
  [[nodiscard]] const V* find(std::uint32_t ordinal) const {
    const std::size_t at = place_of(ordinal);
    return at == npos ? nullptr : &changes_[at].second;
  }

  /// After this, setting `more` further keys does not throw (given that moving a value does not).
  void prepare(std::size_t more) {
    const std::size_t count = changes_.size() + more;
    if (count > changes_.capacity()) grow(count);
    if (count > few && 2 * count > index_.size()) {
      index_.assign(std::bit_ceil(2 * count), empty_slot);
      is_indexed_ = false;
      if (!is_sorted_) build_index();
    }
  }

  /// Sets everything `later` sets.
  void absorb(ChangeSet&& later) {
    if (empty()) {
      *this = std::move(later);
      later.clear();
      return;
    }
    prepare(later.size());
    for (Change& change : later.changes_) set(change.first, std::move(change.second));
    later.clear();
  }

  /// Ascending ordinals.
  void sort() {
    if (is_sorted_) return;
    std::sort(changes_.begin(), changes_.end(),
              [](const Change& a, const Change& b) { return a.first < b.first; });
    is_sorted_ = true;
    is_indexed_ = false;
  }

  void clear() {
    changes_.clear();
    is_sorted_ = true;
    is_indexed_ = false;
  }

 private:
  static constexpr std::size_t npos = static_cast<std::size_t>(-1);
  static constexpr std::size_t few = 8;
  static constexpr std::uint32_t empty_slot = 0xFFFFFFFF;

  /// Sets the value of a key that is not beyond all: apart, so that the usual case is small.
  void set_among(std::uint32_t ordinal, V&& value) {
    std::size_t slot = 0;
    if (const std::size_t at = is_indexed_ ? place_in_index(ordinal, slot) : place_of(ordinal); at != npos) {
      changes_[at].second = std::move(value);
      return;
    }
    if (is_indexed_ && changes_.size() < changes_.capacity() && 2 * (changes_.size() + 1) <= index_.size()) {
      index_[slot] = static_cast<std::uint32_t>(changes_.size());
      changes_.emplace_back(ordinal, std::move(value));
      return;
    }
    if (changes_.size() == changes_.capacity()) grow(changes_.size() + 1);
    // `prepare` may have indexed a handful already.
    const bool needs_index = is_indexed_ || changes_.size() >= few;
    if (needs_index && !is_indexed_) build_index();
    if (needs_index && 2 * (changes_.size() + 1) > index_.size()) build_index();
    changes_.emplace_back(ordinal, std::move(value));
    if (needs_index) insert_into_index(changes_.size() - 1);
    is_sorted_ = false;
  }

  [[nodiscard]] bool is_beyond_all(std::uint32_t ordinal) const {
    return is_sorted_ && (changes_.empty() || changes_.back().first < ordinal);
  }

  [[nodiscard]] std::size_t place_of(std::uint32_t ordinal) const {
    if (is_sorted_) {
      if (changes_.empty() || changes_.back().first < ordinal) return npos;
      const auto at =
          std::lower_bound(changes_.begin(), changes_.end(), ordinal,
                           [](const Change& change, std::uint32_t o) { return change.first < o; });
      return at->first == ordinal ? static_cast<std::size_t>(at - changes_.begin()) : npos;
    }
    if (!is_indexed_) {  // then there are few
      for (std::size_t i = 0; i < changes_.size(); ++i) {
        if (changes_[i].first == ordinal) return i;
      }
      return npos;
    }
    std::size_t slot = 0;
    return place_in_index(ordinal, slot);
  }

  /// Sets `slot` to where the ordinal is found, or belongs.
  [[nodiscard]] std::size_t place_in_index(std::uint32_t ordinal, std::size_t& slot) const {
    for (slot = slot_of(ordinal);; slot = (slot + 1) & (index_.size() - 1)) {
      if (index_[slot] == empty_slot) return npos;
      if (changes_[index_[slot]].first == ordinal) return index_[slot];
    }
  }

  void grow(std::size_t count) { changes_.reserve((std::max)(count, 2 * changes_.capacity())); }

  void build_index() {
    const std::size_t slot_count = (std::max)(std::bit_ceil(2 * (changes_.size() + 1)), index_.size());
    if (2 * (changes_.size() + 1) > index_.size()) {
      std::vector<std::uint32_t>(2 * slot_count, empty_slot).swap(index_);
    } else {
      std::fill(index_.begin(), index_.end(), empty_slot);
    }
    is_indexed_ = true;
    seed_ = HashSeed::of_process();
    for (std::size_t i = 0; i < changes_.size(); ++i) insert_into_index(i);
  }

  void insert_into_index(std::size_t i) {
    std::size_t at = slot_of(changes_[i].first);
    while (index_[at] != empty_slot) at = (at + 1) & (index_.size() - 1);
    index_[at] = static_cast<std::uint32_t>(i);
  }

  [[nodiscard]] std::size_t slot_of(std::uint32_t ordinal) const {
    return hash_ordinal(ordinal, seed_) & (index_.size() - 1);
  }

  std::vector<Change> changes_;
  std::vector<std::uint32_t> index_;  // a power of two of slots, or none
  HashSeed seed_{};                   // of the index
  bool is_sorted_ = true;
  bool is_indexed_ = false;  // when false and not sorted, there are at most `few` changes
};

}  // namespace syncstate::detail

#endif
