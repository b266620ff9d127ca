// The order of values that hold a plain char: the same on machines where char is signed and where it is not.
#ifndef SYNCSTATE_CODEC_PORTABLE_ORDER_HPP
#define SYNCSTATE_CODEC_PORTABLE_ORDER_HPP

#include <algorithm>
#include <array>
#include <chrono>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "syncstate/codec/aggregates.hpp"
#include "syncstate/codec/byte_containers.hpp"
#include "syncstate/codec/rules.hpp"

// `char` and `wchar_t` are signed on some machines (x86) and unsigned on others (ARM). So `<` of these types, and of
// every type that holds them and is compared part by part, differs between machines. This file compares them as
// unsigned numbers, at any depth. `KeyLess` uses this for keys, and the codecs of sets and maps for the order in which
// they encode.

namespace syncstate::detail {

/// A character type that is signed on some machines and unsigned on others.
template <class T>
concept CharOfEitherSign = std::same_as<T, char> || std::same_as<T, wchar_t>;

template <class T>
concept HasLess = requires(const T& a, const T& b) {
  { a < b } -> std::convertible_to<bool>;
};

template <class T>
inline constexpr bool is_std_array = false;
template <class T, std::size_t length>
inline constexpr bool is_std_array<std::array<T, length>> = true;

template <class T>
consteval bool depends_on_char_sign();

template <class... Ts>
consteval bool any_depends_on_char_sign(Types<Ts...>) {
  return (depends_on_char_sign<Ts>() || ...);
}

template <class... Ts>
consteval bool have_less(Types<Ts...>) {
  return ((is_byte_like<Ts> || HasLess<Ts>)&&...);
}

/// Returns whether an encodable T must be compared part by part, because something in it depends on the sign of `char`.
///
/// That is true for aggregates only if they have `<=>` and `==`, defaulted ones or their own: the two can't be told
/// apart. An aggregate that has only its own `operator<` is compared by that, and so is a type with its own codec:
/// their order is the user's choice.
template <class T>
consteval bool depends_on_char_sign() {
  if constexpr (CharOfEitherSign<T>) {
    return true;
  } else if constexpr (!Encodable<T> || !HasParts<T>) {
    return false;
  } else if constexpr (is_byte_like<T>) {
    // Strings compare as unsigned bytes on every machine.
    return !is_byte_string<T> && std::same_as<typename T::value_type, char>;
  } else if constexpr (std::is_aggregate_v<T> && !is_std_array<T>) {
    if constexpr (std::three_way_comparable<T>) {
      using Parts = typename Codec<T>::Parts;
      return have_less(Parts{}) && any_depends_on_char_sign(Parts{});
    } else {
      return false;
    }
  } else {
    return any_depends_on_char_sign(typename Codec<T>::Parts{});
  }
}

/// Compares types that have parts, by `compare_portably`. The primary template is for aggregates; the specializations
/// below are for types of the standard library.
template <class T>
struct PartsOrder;

/// Returns a number below, equal to or above 0 if `a` is ordered before, equal to or after `b`.
template <class T>
int compare_portably(const T& a, const T& b) {
  if constexpr (CharOfEitherSign<T>) {
    using Unsigned = std::make_unsigned_t<T>;
    const auto x = static_cast<Unsigned>(a);
    const auto y = static_cast<Unsigned>(b);
    return x < y ? -1 : y < x ? 1 : 0;
  } else if constexpr (!depends_on_char_sign<T>()) {
    return a < b ? -1 : b < a ? 1 : 0;
  } else if constexpr (std::is_enum_v<T>) {
    using Underlying = std::underlying_type_t<T>;
    return compare_portably(static_cast<Underlying>(a), static_cast<Underlying>(b));
  } else if constexpr (is_byte_like<T>) {
    return compare_bytes(content_view(a), content_view(b));
  } else {
    return PartsOrder<T>::compare(a, b);
  }
}

/// The first of the parts that differ decides.
template <class... Ts, std::size_t... indices>
int compare_tuples(const std::tuple<const Ts&...>& a, const std::tuple<const Ts&...>& b,
                   std::index_sequence<indices...>) {
  int order = 0;
  ((order = order != 0 ? order : compare_portably<Ts>(std::get<indices>(a), std::get<indices>(b))), ...);
  return order;
}

/// Compares two ranges element by element; a range that ends first is ordered before.
template <class Iterator, class F>
int compare_ranges(Iterator a, Iterator a_end, Iterator b, Iterator b_end, F compare) {
  for (; a != a_end && b != b_end; ++a, ++b) {
    if (const int order = compare(*a, *b); order != 0) return order;
  }
  return a != a_end ? 1 : b != b_end ? -1 : 0;
}

template <class T>
struct PartsOrder {
  static int compare(const T& a, const T& b) {
    return with_members<Aggregate<T>::count>(a, [&]<class... Ms>(const Ms&... of_a) {
      return with_members<Aggregate<T>::count>(b, [&](const Ms&... of_b) {
        return compare_tuples<Ms...>(std::tuple<const Ms&...>(of_a...), std::tuple<const Ms&...>(of_b...),
                                     std::index_sequence_for<Ms...>{});
      });
    });
  }
};

template <class A, class B>
struct PartsOrder<std::pair<A, B>> {
  static int compare(const std::pair<A, B>& a, const std::pair<A, B>& b) {
    const int order = compare_portably(a.first, b.first);
    return order != 0 ? order : compare_portably(a.second, b.second);
  }
};

template <class... Ts>
struct PartsOrder<std::tuple<Ts...>> {
  static int compare(const std::tuple<Ts...>& a, const std::tuple<Ts...>& b) {
    return compare_tuples<Ts...>(std::tuple<const Ts&...>(a), std::tuple<const Ts&...>(b),
                                 std::index_sequence_for<Ts...>{});
  }
};

template <class T>
struct PartsOrder<std::optional<T>> {
  static int compare(const std::optional<T>& a, const std::optional<T>& b) {
    if (!a.has_value() || !b.has_value()) return int{a.has_value()} - int{b.has_value()};
    return compare_portably(*a, *b);
  }
};

template <class... Ts>
struct PartsOrder<std::variant<Ts...>> {
  using Variant = std::variant<Ts...>;
  static int compare(const Variant& a, const Variant& b) {
    // A variant without a value comes first, as with `<`.
    const std::size_t at = a.index() + 1;
    const std::size_t other = b.index() + 1;
    if (at != other) return at < other ? -1 : 1;
    return compare_alternatives(a, b, std::index_sequence_for<Ts...>{});
  }

 private:
  template <std::size_t... indices>
  static int compare_alternatives(const Variant& a, const Variant& b, std::index_sequence<indices...>) {
    int order = 0;
    ((order = a.index() == indices
                  ? compare_portably<Ts>(*std::get_if<indices>(&a), *std::get_if<indices>(&b))
                  : order),
     ...);
    return order;
  }
};

template <class T, class Allocator>
struct PartsOrder<std::vector<T, Allocator>> {
  static int compare(const std::vector<T, Allocator>& a, const std::vector<T, Allocator>& b) {
    return compare_ranges(a.begin(), a.end(), b.begin(), b.end(), compare_portably<T>);
  }
};

template <class T, std::size_t length>
struct PartsOrder<std::array<T, length>> {
  static int compare(const std::array<T, length>& a, const std::array<T, length>& b) {
    return compare_ranges(a.begin(), a.end(), b.begin(), b.end(), compare_portably<T>);
  }
};

template <class Rep, class Period>
struct PartsOrder<std::chrono::duration<Rep, Period>> {
  using Value = std::chrono::duration<Rep, Period>;
  static int compare(const Value& a, const Value& b) { return compare_portably(a.count(), b.count()); }
};

template <class Clock, class Duration>
struct PartsOrder<std::chrono::time_point<Clock, Duration>> {
  using Value = std::chrono::time_point<Clock, Duration>;
  static int compare(const Value& a, const Value& b) {
    return compare_portably(a.time_since_epoch(), b.time_since_epoch());
  }
};

/// Returns the elements of a set or map in the portable order of what `key_of` returns, whatever the container's own
/// comparison is.
template <class Container, class F>
std::vector<const typename Container::value_type*> sorted_portably(const Container& container, F key_of) {
  std::vector<const typename Container::value_type*> elements;
  elements.reserve(container.size());
  for (const auto& element : container) elements.push_back(&element);
  std::sort(elements.begin(), elements.end(),
            [&](const auto* a, const auto* b) { return compare_portably(key_of(*a), key_of(*b)) < 0; });
  return elements;
}

struct ElementItself {
  template <class T>
  const T& operator()(const T& element) const {
    return element;
  }
};

struct KeyOfEntry {
  template <class Entry>
  const auto& operator()(const Entry& entry) const {
    return entry.first;
  }
};

template <class T, class Compare, class Allocator>
struct PartsOrder<std::set<T, Compare, Allocator>> {
  using Set = std::set<T, Compare, Allocator>;
  static int compare(const Set& a, const Set& b) {
    const auto of_a = sorted_portably(a, ElementItself{});
    const auto of_b = sorted_portably(b, ElementItself{});
    return compare_ranges(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(),
                          [](const T* x, const T* y) { return compare_portably(*x, *y); });
  }
};

template <class K, class V, class Compare, class Allocator>
struct PartsOrder<std::map<K, V, Compare, Allocator>> {
  using Map = std::map<K, V, Compare, Allocator>;
  static int compare(const Map& a, const Map& b) {
    const auto of_a = sorted_portably(a, KeyOfEntry{});
    const auto of_b = sorted_portably(b, KeyOfEntry{});
    return compare_ranges(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(),
                          [](const auto* x, const auto* y) {
                            const int order = compare_portably(x->first, y->first);
                            return order != 0 ? order : compare_portably(x->second, y->second);
                          });
  }
};

}  // namespace syncstate::detail

#endif
