// Counts the members of an aggregate, and finds those that structured bindings can't handle.
#ifndef SYNCSTATE_CODEC_MEMBER_COUNT_HPP
#define SYNCSTATE_CODEC_MEMBER_COUNT_HPP

#include <concepts>
#include <cstddef>
#include <exception>
#include <type_traits>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Stands for an initializer of any type. It converts to a nested aggregate as a whole, so no braces are
/// elided and a nested aggregate counts as one; only C arrays, to which nothing converts, count once per
/// element.
template <class Aggregate, std::size_t index>
struct AnyInitializer {
  template <class Member>
    requires(!std::same_as<Member, Aggregate>)
  operator Member() const {
    std::terminate();  // never called, but a compiler may want it defined
  }
};

/// As above, for members that are references.
template <class Aggregate, std::size_t index>
struct AnyReference {
  template <class Member>
    requires(!std::same_as<Member, Aggregate>)
  operator Member&() const {
    std::terminate();
  }
};

/// Converts to the bases of an aggregate only.
template <class Aggregate>
struct AnyBase {
  template <class Base>
    requires(std::is_base_of_v<Base, Aggregate> && !std::same_as<Base, Aggregate>)
  operator Base() const {
    std::terminate();
  }
};

template <class T>
concept HasBase = requires { T{AnyBase<T>{}}; };

template <class T, template <class, std::size_t> class Any, std::size_t... indices>
consteval bool takes(std::index_sequence<indices...>) {
  return requires { T{Any<T, indices>{}...}; };
}

inline constexpr std::size_t uncountable = static_cast<std::size_t>(-1);

/// The largest number of initializers that T takes, or `limit + 1` if that is more than `limit`. The numbers
/// it takes are without gaps: once the members left out have defaults, all that follow have.
template <class T, template <class, std::size_t> class Any, std::size_t limit, std::size_t count = 0,
          bool has_begun = false>
consteval std::size_t count_initializers() {
  if constexpr (count > limit) {
    return has_begun ? count : uncountable;
  } else if constexpr (takes<T, Any>(std::make_index_sequence<count>{})) {
    if constexpr (takes<T, Any>(std::make_index_sequence<count + 1>{})) {
      return count_initializers<T, Any, limit, count + 1, true>();
    } else {
      return count;
    }
  } else {
    return count_initializers<T, Any, limit, count + 1, false>();
  }
}

template <class T, std::size_t... before, std::size_t... after>
consteval bool takes_braces(std::index_sequence<before...>, std::index_sequence<after...>) {
  return requires { T{AnyInitializer<T, before>{}..., {}, AnyInitializer<T, after>{}...}; };
}

template <class T, std::size_t index, std::size_t after>
consteval bool takes_braces_at() {
  return takes_braces<T>(std::make_index_sequence<index>{}, std::make_index_sequence<after>{});
}

/// Whether the element at `index`, given as `{}`, leaves room for fewer initializers than it should: then it
/// is a C array, and took the room of several.
template <class T, std::size_t count, std::size_t index>
consteval bool is_long_array() {
  if constexpr (takes_braces_at<T, index, count - index - 1>()) {
    return false;
  } else {
    return []<std::size_t... fewer>(std::index_sequence<fewer...>) {
      return (takes_braces_at<T, index, fewer>() || ...);
    }(std::make_index_sequence<count - index - 1>{});
  }
}

/// Whether an aggregate that takes `count` initializers has a C array of two elements or more.
template <class T, std::size_t count>
consteval bool has_long_array() {
  return []<std::size_t... indices>(std::index_sequence<indices...>) {
    return (is_long_array<T, count, indices>() || ...);
  }(std::make_index_sequence<count>{});
}

}  // namespace syncstate::detail

#endif
