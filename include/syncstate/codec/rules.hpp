// The customization point of the codec, and the rules by which a type is encodable or not.
#ifndef SYNCSTATE_CODEC_RULES_HPP
#define SYNCSTATE_CODEC_RULES_HPP

#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>

#include "syncstate/bytes.hpp"

namespace syncstate {

/// How values of type T become bytes: the one customization point.
///
/// Specialise it for a type of yours that is no aggregate, or that should look otherwise on the wire:
///
///     template <>
///     struct syncstate::Codec<Angle> {
///       static void encode(const Angle& v, ByteWriter& out) { out.put_varint(v.ticks()); }
///       static Angle decode(ByteReader& in) { return Angle::from_ticks(in.read_varint()); }
///       static std::string type_name() { return "angle"; }
///     };
///
/// 1. `decode` reads exactly what `encode` wrote, and needs no end mark after it.
/// 2. `decode` never trusts its input: it throws `StateError{decode_error}` (ByteReader does so by itself).
/// 3. Equal values have equal encodings, of one byte at least: the hash covers them.
/// 4. `type_name` is the same on every machine, and another one whenever the encoding is another one.
/// 5. Optional: `static std::size_t size(const T&)`, the number of bytes `encode` writes, where that is
///    cheaper to know than to try.
/// 6. Optional: `static std::size_t memory_bytes(const T&)`, what a decoded value holds in memory: `sizeof(T)` and
///    all memory it owns elsewhere. Logs, stages and limits count it; it is called for each commit, so it should
///    be cheaper than encoding. Without it, `memory_bytes` (codec.hpp) estimates.
template <class T>
struct Codec;

namespace detail {

/// Why a type is not encodable.
enum class Rule {
  none,
  no_codec,
  unordered,
  is_union,
  plain_enum,
  has_base,
  has_c_array,
  has_bit_field,
  has_reference,
  too_many_members,
  uncountable,
  recursive,
  element_of_nothing,
  memory_not_a_size
};

/// The largest number of members an aggregate may have.
inline constexpr std::size_t max_members = 32;

template <class... Ts>
struct Types {};

/// What our own codecs say about themselves beyond the customization point; a user's codec has none of it:
///   Parts        the types it is made of, as Types<...>
///   rule         the rule it breaks by itself, whatever its parts are
///   min_bytes()  the least its encoding can take; a function, so that nothing recurses before it is asked
///   is_sequence  it holds any number of its parts, so they must cost a byte each
///   is_key       whether it may be, or be within, a key
///   owns_memory  whether a value owns memory beyond itself, besides what its parts own
///   check_nesting(value)  optional: see codec/nesting.hpp
template <class T>
concept HasParts = requires { typename Codec<T>::Parts; };

template <class T>
concept HasSize = requires(const T& value) {
  { Codec<T>::size(value) } -> std::convertible_to<std::size_t>;
};

template <class T>
concept HasMemoryBytes = requires(const T& value) {
  { Codec<T>::memory_bytes(value) } -> std::same_as<std::size_t>;
};

/// A codec has a member of this name, of any shape.
template <class T>
concept NamesMemoryBytes = requires { &Codec<T>::memory_bytes; };

/// A plain object type: what `Codec<T>` can be asked about at all.
template <class T>
inline constexpr bool is_plain =
    std::is_object_v<T> && !std::is_array_v<T> && !std::is_const_v<T> && !std::is_volatile_v<T>;

template <class T>
concept HasCodecMembers = requires(const T& value, ByteWriter& out, ByteReader& in) {
  Codec<T>::encode(value, out);
  { Codec<T>::decode(in) } -> std::same_as<T>;
  { Codec<T>::type_name() } -> std::convertible_to<std::string>;
};

/// The least number of bytes that any value of an encodable T takes within another one.
template <class T>
consteval std::size_t min_bytes() {
  if constexpr (HasParts<T>) {
    return Codec<T>::min_bytes();
  } else {
    return 1;  // demand 3 on a user's codec
  }
}

template <class... Ts>
consteval std::size_t min_bytes_of_all(Types<Ts...>) {
  return (std::size_t{0} + ... + min_bytes<Ts>());
}

/// The rule T breaks by itself. `Path` is what T was found in, outermost first.
template <class T, class... Path>
consteval Rule own_rule() {
  if constexpr ((std::same_as<T, Path> || ...)) {
    return Rule::recursive;
  } else if constexpr (std::is_array_v<T>) {
    return Rule::has_c_array;
  } else if constexpr (std::is_reference_v<T>) {
    return Rule::has_reference;
  } else if constexpr (!is_plain<T>) {
    return Rule::no_codec;
  } else if constexpr (HasParts<T>) {
    return Codec<T>::rule;
  } else {
    if (!HasCodecMembers<T>) return Rule::no_codec;
    return NamesMemoryBytes<T> && !HasMemoryBytes<T> ? Rule::memory_not_a_size : Rule::none;
  }
}

template <class T, class... Path>
consteval Rule rule_of();

template <class... Path, class... Ts>
consteval Rule rule_of_all(Types<Ts...>) {
  Rule found = Rule::none;
  // The comma keeps the first rule broken.
  ((found = found == Rule::none ? rule_of<Ts, Path...>() : found), ...);
  return found;
}

/// The first rule that T or something in it breaks.
template <class T, class... Path>
consteval Rule rule_of() {
  constexpr Rule own = own_rule<T, Path...>();
  if constexpr (own != Rule::none) {
    return own;
  } else if constexpr (HasParts<T>) {
    constexpr Rule inner = rule_of_all<Path..., T>(typename Codec<T>::Parts{});
    if constexpr (inner != Rule::none) {
      return inner;
    } else if constexpr (Codec<T>::is_sequence) {
      return min_bytes_of_all(typename Codec<T>::Parts{}) == 0 ? Rule::element_of_nothing : Rule::none;
    } else {
      return Rule::none;
    }
  } else {
    return Rule::none;
  }
}

template <class T, class... Path>
struct Explain;

template <class... Path, class... Ts>
consteval bool explain_all(Types<Ts...>) {
  return (Explain<Ts, Path...>::is_done && ...);
}

template <class T, class... Path>
consteval bool explain_parts() {
  if constexpr (own_rule<T, Path...>() != Rule::none) {
    return false;
  } else if constexpr (HasParts<T>) {
    if constexpr (explain_all<Path..., T>(typename Codec<T>::Parts{})) {
      static_assert(
          rule_of<T>() != Rule::element_of_nothing,
          "the elements of this container encode to nothing, so any length would be believed: count "
          "them instead, or specialise syncstate::Codec<T>");
    }
    return rule_of<T>() == Rule::none;
  } else {
    return true;
  }
}

/// Instantiated where a type that is not encodable is used: says which rule is broken, by which type.
template <class T, class... Path>
struct Explain {
  static constexpr Rule rule = own_rule<T, Path...>();
  static_assert(
      rule != Rule::no_codec,
      "T has no encoding: make it an aggregate of encodable members, or specialise syncstate::Codec<T>");
  static_assert(
      rule != Rule::unordered,
      "an unordered container has no one order, so no one encoding and no one hash: use std::map or "
      "std::set, or specialise syncstate::Codec<T>");
  static_assert(rule != Rule::is_union,
                "a union does not say what it holds: use std::variant, or specialise "
                "syncstate::Codec<T>");
  static_assert(
      rule != Rule::plain_enum,
      "an enumeration needs a fixed underlying type (enum class, or enum E : int): without one it can't hold "
      "every number a peer may send, and its size is the compiler's choice; or specialise "
      "syncstate::Codec<T>");
  static_assert(
      rule != Rule::has_base,
      "an aggregate must have no base class: make the base a member, or specialise syncstate::Codec<T>");
  static_assert(rule != Rule::has_c_array,
                "C arrays are not encodable: use std::array, or specialise syncstate::Codec<T>");
  static_assert(rule != Rule::has_bit_field,
                "an aggregate must have no bit-fields: use whole members, or specialise syncstate::Codec<T>");
  static_assert(
      rule != Rule::has_reference,
      "an aggregate must have no reference members: hold the value, or specialise syncstate::Codec<T>");
  static_assert(
      rule != Rule::too_many_members,
      "an aggregate must have no more than 32 members (each element of a C array counts as one): group "
      "them in aggregates of their own, or specialise syncstate::Codec<T>");
  static_assert(rule != Rule::uncountable,
                "the members of this aggregate can't be counted: specialise syncstate::Codec<T>");
  static_assert(
      rule != Rule::recursive,
      "T contains itself: its type name would have no end and nothing would bound its depth; specialise "
      "syncstate::Codec<T>");

  static_assert(rule != Rule::memory_not_a_size,
                "Codec<T>::memory_bytes must be callable as std::size_t memory_bytes(const T&): change its "
                "signature, or leave it out");

  static constexpr bool is_done = explain_parts<T, Path...>();
};

template <class T>
consteval bool may_be_key();

template <class... Ts>
consteval bool may_all_be_keys(Types<Ts...>) {
  return (may_be_key<Ts>() && ...);
}

/// Whether no part of an encodable T is one that two machines may order or compare differently.
template <class T>
consteval bool may_be_key() {
  if constexpr (HasParts<T>) {
    if constexpr (Codec<T>::is_key) {
      return may_all_be_keys(typename Codec<T>::Parts{});
    } else {
      return false;
    }
  } else {
    return true;
  }
}

/// What our codecs have in common; each overrides what is otherwise.
template <class... Ts>
struct BuiltIn {
  using Parts = Types<Ts...>;
  static constexpr Rule rule = Rule::none;
  static constexpr bool is_sequence = false;
  static constexpr bool is_key = true;
  static constexpr bool owns_memory = false;
};

/// The number of bytes `Codec<T>::encode` writes for this value.
/// Complexity: as `Codec<T>::size` where there is one; else the value is encoded once, aside.
template <class T>
std::size_t encoded_size(const T& value) {
  if constexpr (HasSize<T>) {
    return Codec<T>::size(value);
  } else {
    Bytes scratch;
    ByteWriter out(scratch);
    Codec<T>::encode(value, out);
    return scratch.size();
  }
}

/// Reads how many elements follow, each of `least` bytes or more: never more than the input can hold.
inline std::size_t read_count(ByteReader& in, std::size_t least) {
  const std::uint64_t count = in.read_varint();
  if (count > in.remaining() / least) ByteReader::fail("more elements than bytes for them");
  return static_cast<std::size_t>(count);
}

}  // namespace detail

/// A type with an encoding: built in, an aggregate of encodable members, or one with a `Codec<T>` of its own.
///
/// Does not itself explain a refusal; `type_name<T>()` and every function that encodes do, by
/// `static_assert`.
template <class T>
concept Encodable = detail::rule_of<T>() == detail::Rule::none;

}  // namespace syncstate

#endif
