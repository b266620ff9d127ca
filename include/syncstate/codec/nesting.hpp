// Checks the depth of values that may be nested without bound, before other code recurses into them.
#ifndef SYNCSTATE_CODEC_NESTING_HPP
#define SYNCSTATE_CODEC_NESTING_HPP

#include "syncstate/codec/rules.hpp"

namespace syncstate::detail {

/// The codec of a type whose values may be nested without bound has `static void check_nesting(const T&)`, which throws
/// if the value is nested too deep. Copying or comparing such a value would overflow the stack; moving or destroying it
/// does not.
template <class T>
concept ChecksNesting = requires(const T& value) { Codec<T>::check_nesting(value); };

template <class T>
consteval bool may_nest_without_bound();

template <class... Ts>
consteval bool may_any_nest(Types<Ts...>) {
  return (may_nest_without_bound<Ts>() || ...);
}

/// Whether T is such a type, or has one among its parts.
template <class T>
consteval bool may_nest_without_bound() {
  if constexpr (ChecksNesting<T>) {
    return true;
  } else if constexpr (HasParts<T>) {
    return may_any_nest(typename Codec<T>::Parts{});
  } else {
    return false;
  }
}

/// Refuses a value that is nested too deep to be encoded, before the map copies it.
/// Errors    : `too_large`; if only parts of the value may be nested, also what its encoding throws.
/// Complexity: nothing for types that can't be nested without bound. O(parts) for JSON itself. A value that only has JSON
///             among its parts is encoded once more, to count its bytes. Not recursive, whatever the depth.
template <class T>
void check_nesting([[maybe_unused]] const T& value) {
  if constexpr (ChecksNesting<T>) {
    Codec<T>::check_nesting(value);
  } else if constexpr (may_nest_without_bound<T>()) {
    (void)encoded_size(value);
  }
}

}  // namespace syncstate::detail

#endif
