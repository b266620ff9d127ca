// The reading members that a map and a view have in common.
#ifndef SYNCSTATE_DETAIL_MODEL_READ_INTERFACE_HPP
#define SYNCSTATE_DETAIL_MODEL_READ_INTERFACE_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/error.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Steps over anything with `entry_ref(i)`, which gives a key and a value.
///
/// What it points at is made on the way and const, so `for (auto& [key, value] : map)` compiles as well as
/// `for (const auto& [key, value] : map)`.
template <class Owner, class K, class V>
class EntryIterator {
 public:
  using value_type = std::pair<const K&, const V&>;
  using reference = const value_type;
  using difference_type = std::ptrdiff_t;
  using iterator_category = std::input_iterator_tag;
  using iterator_concept = std::forward_iterator_tag;
  struct pointer {
    value_type entry;
    const value_type* operator->() const { return &entry; }
  };

  EntryIterator() = default;
  EntryIterator(const Owner* owner, std::size_t at) : owner_(owner), at_(at) {}

  reference operator*() const { return owner_->entry_ref(at_); }
  pointer operator->() const { return pointer{owner_->entry_ref(at_)}; }
  EntryIterator& operator++() {
    ++at_;
    return *this;
  }
  EntryIterator operator++(int) {
    EntryIterator before = *this;
    ++at_;
    return before;
  }
  friend bool operator==(const EntryIterator&, const EntryIterator&) = default;

 private:
  const Owner* owner_ = nullptr;
  std::size_t at_ = 0;
};

/// Reading by key, by ordinal and in ascending order, over two members of `Derived` (which may be private to
/// all but this class): `frozen_ref()`, and `value_ref(ordinal)`, the value as it is now.
template <class Derived, class K, class V>
class ReadInterface {
 public:
  using const_iterator = EntryIterator<ReadInterface, K, V>;
  using iterator = const_iterator;

  /// The key's value, or null if there is no such key.
  [[nodiscard]] const V* get(KeyArg<K> key) const {
    const std::uint32_t ordinal = self().frozen_ref().find(key);
    return ordinal == FrozenState<K, V>::npos ? nullptr : &self().value_ref(ordinal);
  }

  /// The key's value. May be called for its error alone.
  /// Errors: `key_not_found`.
  const V& at(KeyArg<K> key) const {
    const V* const value = self().get(key);
    if (value == nullptr) throw StateError(StateErrc::key_not_found);
    return *value;
  }

  /// The value at an ordinal of this key set. A template, so that braces always mean a key: `map.at({2})`.
  /// Errors: `key_not_found` if there are fewer keys.
  template <std::same_as<Ordinal> O>
  const V& at(O ordinal) const {
    if (ordinal.index() >= self().frozen_ref().size()) throw StateError(StateErrc::key_not_found);
    return self().value_ref(ordinal.index());
  }

  /// As `at(ordinal)`: the check costs less than a mistake.
  [[nodiscard]] const V& operator[](Ordinal ordinal) const { return at(ordinal); }

  [[nodiscard]] bool contains(KeyArg<K> key) const {
    return self().frozen_ref().find(key) != FrozenState<K, V>::npos;
  }

  [[nodiscard]] std::size_t size() const { return self().frozen_ref().size(); }

  /// Where the key stands among all keys: a shortcut for reading it again and again.
  /// Errors: `key_not_found`.
  [[nodiscard]] Ordinal key(KeyArg<K> key) const {
    const std::uint32_t ordinal = self().frozen_ref().find(key);
    if (ordinal == FrozenState<K, V>::npos) throw StateError(StateErrc::key_not_found);
    return Ordinal(ordinal);
  }

  /// The identity of this map on every machine.
  [[nodiscard]] const MapHash& hash() const { return self().frozen_ref().hash(); }

  /// Pairs of key and value, in ascending order of the keys.
  [[nodiscard]] const_iterator begin() const {
    (void)self().frozen_ref();
    return {this, 0};
  }
  [[nodiscard]] const_iterator end() const { return {this, self().frozen_ref().size()}; }

 protected:
  ReadInterface() = default;
  ReadInterface(const ReadInterface&) = default;
  ReadInterface& operator=(const ReadInterface&) = default;
  ~ReadInterface() = default;

 private:
  friend const_iterator;

  [[nodiscard]] const Derived& self() const { return static_cast<const Derived&>(*this); }
  [[nodiscard]] std::pair<const K&, const V&> entry_ref(std::size_t i) const {
    const auto ordinal = static_cast<std::uint32_t>(i);
    return {self().frozen_ref().key(ordinal), self().value_ref(ordinal)};
  }
};

}  // namespace syncstate::detail

#endif
