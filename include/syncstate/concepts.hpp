// What a type must be to serve as a map's key or value.
#ifndef SYNCSTATE_CONCEPTS_HPP
#define SYNCSTATE_CONCEPTS_HPP

#include <concepts>
#include <type_traits>

#include "syncstate/codec.hpp"

namespace syncstate {

/// A type whose values can be ordered: by their bytes, or by `<`.
template <class K>
concept Ordered = is_byte_like<K> || requires(const K& a, const K& b) {
  { a < b } -> std::convertible_to<bool>;
};

/// A type that no machine orders or compares differently: no floating-point number and no JSON, at any depth.
template <class K>
concept ExactlyComparable = Encodable<K> && detail::may_be_key<K>();

/// The key of a map. Users choose an existing type, or write one:
///
///     struct Seat { std::string room; int number; auto operator<=>(const Seat&) const = default; };
///     static_assert(syncstate::StateKey<Seat>);
///
/// 1. Encodable: built in, an aggregate of encodable members, or with a `Codec<K>` of its own.
/// 2. Copyable.
/// 3. Strings and byte containers are ordered by their bytes, unsigned; all else by `<`, a strict total order
///    that is the same on every machine (meaning: the compiler cannot check this one). Machines differ in the sign of
///    `char` and `wchar_t`. So these are ordered as unsigned, also in enumerations, pairs, containers and aggregates
///    with a defaulted `<=>`: aggregates with one of these in them are compared member by member. In an `operator<`
///    of their own, users compare them as `unsigned char`. An aggregate with a `char` or `wchar_t` in it that has `<=>`
///    and `==` is never compared by its `<=>`, also one that you wrote: to have an order of your own, give the type an
///    `operator<` and no `<=>`.
/// 4. No floating-point number, JSON or unordered container, at any depth: the order and the hash of the keys
///    are the map's identity.
template <class K>
concept StateKey = Encodable<K> && std::copyable<K> && Ordered<K> && ExactlyComparable<K>;

/// The value of a map. Users choose an existing type, or write one:
///
///     struct Player { std::string name; std::optional<int> team; double health; };
///     static_assert(syncstate::StateValue<Player>);
///
/// 1. Encodable: built in, an aggregate of encodable members, or with a `Codec<V>` of its own. Unordered
///    containers are not, at any depth: equal ones would have unequal hashes.
/// 2. Copyable: every copy of a map holds its own.
/// 3. Nothrow-movable: a diff is applied wholly or not at all.
template <class V>
concept StateValue = Encodable<V> && std::copyable<V> && std::is_nothrow_move_constructible_v<V> &&
                     std::is_nothrow_move_assignable_v<V>;

namespace detail {

/// For `static_assert`s where a map is made of K and V: as the concepts, but says what is wrong.
template <class K>
struct ExplainKey {
  static_assert(Explain<K>::is_done);
  static_assert(std::copyable<K>, "a key must be copyable");
  static_assert(Ordered<K>, "a key must have an order: give K an operator<");
  static_assert(
      !Encodable<K> || ExactlyComparable<K>,
      "a key must hold no floating-point number and no JSON: their order and encoding are no identity");
  static constexpr bool is_done = StateKey<K>;
};

template <class V>
struct ExplainValue {
  static_assert(Explain<V>::is_done);
  static_assert(std::copyable<V>, "a value must be copyable");
  static_assert(std::is_nothrow_move_constructible_v<V> && std::is_nothrow_move_assignable_v<V>,
                "a value must be movable without exceptions");
  static constexpr bool is_done = StateValue<V>;
};

}  // namespace detail

}  // namespace syncstate

#endif
