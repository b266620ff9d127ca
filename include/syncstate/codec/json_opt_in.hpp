// How a type says that it is encoded as JSON; the encoding itself is in syncstate/codec_json.hpp.
#ifndef SYNCSTATE_CODEC_JSON_OPT_IN_HPP
#define SYNCSTATE_CODEC_JSON_OPT_IN_HPP

#include <cstddef>
#include <string>
#include <type_traits>

#include "syncstate/codec/memory.hpp"
#include "syncstate/codec/rules.hpp"

namespace syncstate {

/// Specialise it as true, beside your type, and its `to_json` and `from_json` (found by ADL) are its
/// encoding:
///
///     template <>
///     inline constexpr bool syncstate::encode_as_json<Lobby> = true;
///
/// Declared here so that whether `syncstate/codec_json.hpp` is included never changes an encoding: without
/// that header such a type does not compile.
template <class T>
inline constexpr bool encode_as_json = false;

namespace detail {

/// Defined by `syncstate/codec_json.hpp`; depends on T so that it is looked up where it is used.
template <class T>
struct JsonBridge;

template <class T>
concept HasJsonBridge = requires { sizeof(JsonBridge<T>); };

}  // namespace detail

/// CBOR of what `to_json` makes of the value.
template <class T>
  requires(encode_as_json<T>)
struct Codec<T> : detail::BuiltIn<> {
  static constexpr bool is_key = false;  // equal documents may have unequal encodings
  static consteval std::size_t min_bytes() { return 1; }
  static constexpr bool owns_memory = !std::is_trivially_copyable_v<T>;
  /// How `to_json` reads a value says nothing about what it holds: its encoding is asked.
  static std::size_t owned_bytes(const T& value) {
    return detail::estimated_memory_per_byte * detail::encoded_size(value);
  }
  static void encode(const T& value, ByteWriter& out) {
    static_assert(detail::HasJsonBridge<T>, "T says encode_as_json: #include <syncstate/codec_json.hpp>");
    if constexpr (detail::HasJsonBridge<T>) detail::JsonBridge<T>::encode(value, out);
  }
  static T decode(ByteReader& in) {
    static_assert(detail::HasJsonBridge<T>, "T says encode_as_json: #include <syncstate/codec_json.hpp>");
    return detail::JsonBridge<T>::decode(in);
  }
  static std::string type_name() { return "json"; }
};

}  // namespace syncstate

#endif
