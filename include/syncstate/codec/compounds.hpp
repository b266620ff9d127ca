// Codecs of optional, pair, tuple and variant.
#ifndef SYNCSTATE_CODEC_COMPOUNDS_HPP
#define SYNCSTATE_CODEC_COMPOUNDS_HPP

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>

#include "syncstate/codec/memory.hpp"
#include "syncstate/codec/rules.hpp"

namespace syncstate {

namespace detail {

/// `A,B,C`
template <class... Ts>
std::string names_between(const char* separator) {
  std::string names;
  ((names += (names.empty() ? "" : separator) + Codec<Ts>::type_name()), ...);
  return names;
}

}  // namespace detail

/// One byte, 0 for none and 1 for one, then the value if there is one.
template <class T>
struct Codec<std::optional<T>> : detail::BuiltIn<T> {
  static consteval std::size_t min_bytes() { return 1; }
  static std::size_t size(const std::optional<T>& value) {
    return 1 + (value.has_value() ? detail::encoded_size<T>(*value) : 0);
  }
  static std::size_t owned_bytes(const std::optional<T>& value) {
    return value.has_value() ? detail::owned_bytes<T>(*value) : 0;
  }
  static void encode(const std::optional<T>& value, ByteWriter& out) {
    out.put_u8(value.has_value() ? 1 : 0);
    if (value.has_value()) Codec<T>::encode(*value, out);
  }
  static std::optional<T> decode(ByteReader& in) {
    const std::uint8_t tag = in.read_u8();
    if (tag > 1) ByteReader::fail("an optional that is neither empty nor full");
    if (tag == 0) return std::nullopt;
    return std::optional<T>(std::in_place, Codec<T>::decode(in));
  }
  static std::string type_name() { return Codec<T>::type_name() + "?"; }
};

/// The first, then the second.
template <class A, class B>
struct Codec<std::pair<A, B>> : detail::BuiltIn<A, B> {
  static consteval std::size_t min_bytes() { return detail::min_bytes<A>() + detail::min_bytes<B>(); }
  static std::size_t size(const std::pair<A, B>& value) {
    return detail::encoded_size<A>(value.first) + detail::encoded_size<B>(value.second);
  }
  static std::size_t owned_bytes(const std::pair<A, B>& value) {
    return detail::owned_bytes<A>(value.first) + detail::owned_bytes<B>(value.second);
  }
  static void encode(const std::pair<A, B>& value, ByteWriter& out) {
    Codec<A>::encode(value.first, out);
    Codec<B>::encode(value.second, out);
  }
  static std::pair<A, B> decode(ByteReader& in) {
    return std::pair<A, B>{Codec<A>::decode(in), Codec<B>::decode(in)};  // braces: from left to right
  }
  static std::string type_name() { return "{" + detail::names_between<A, B>(",") + "}"; }
};

/// The elements in their order.
template <class... Ts>
struct Codec<std::tuple<Ts...>> : detail::BuiltIn<Ts...> {
  static consteval std::size_t min_bytes() { return detail::min_bytes_of_all(detail::Types<Ts...>{}); }
  static std::size_t size(const std::tuple<Ts...>& value) {
    return std::apply(
        [](const Ts&... elements) { return (std::size_t{0} + ... + detail::encoded_size<Ts>(elements)); },
        value);
  }
  static std::size_t owned_bytes(const std::tuple<Ts...>& value) {
    return std::apply(
        [](const Ts&... elements) { return (std::size_t{0} + ... + detail::owned_bytes<Ts>(elements)); },
        value);
  }
  static void encode(const std::tuple<Ts...>& value, [[maybe_unused]] ByteWriter& out) {
    std::apply([&](const Ts&... elements) { (Codec<Ts>::encode(elements, out), ...); }, value);
  }
  static std::tuple<Ts...> decode([[maybe_unused]] ByteReader& in) {
    return std::tuple<Ts...>{Codec<Ts>::decode(in)...};  // braces: from left to right
  }
  static std::string type_name() { return "{" + detail::names_between<Ts...>(",") + "}"; }
};

/// The varint index of the alternative, then its value.
/// Errors: encoding a variant that lost its value to an exception throws `not_encodable`.
template <class... Ts>
struct Codec<std::variant<Ts...>> : detail::BuiltIn<Ts...> {
  using Variant = std::variant<Ts...>;
  static consteval std::size_t min_bytes() { return 1; }

  static std::size_t size(const Variant& value) {
    refuse_valueless(value);
    return varint_size(value.index()) +
           std::visit([]<class T>(const T& held) { return detail::encoded_size<T>(held); }, value);
  }

  static std::size_t owned_bytes(const Variant& value) {
    if (value.valueless_by_exception()) return 0;
    return std::visit([]<class T>(const T& held) { return detail::owned_bytes<T>(held); }, value);
  }

  static void encode(const Variant& value, ByteWriter& out) {
    refuse_valueless(value);
    out.put_varint(value.index());
    std::visit([&]<class T>(const T& held) { Codec<T>::encode(held, out); }, value);
  }

  static Variant decode(ByteReader& in) {
    const std::uint64_t index = in.read_varint();
    if (index >= sizeof...(Ts)) ByteReader::fail("a variant has no such alternative");
    return decode(in, static_cast<std::size_t>(index), std::index_sequence_for<Ts...>{});
  }

  static std::string type_name() { return "<" + detail::names_between<Ts...>("|") + ">"; }

 private:
  static void refuse_valueless(const Variant& value) {
    if (value.valueless_by_exception()) throw StateError(StateErrc::not_encodable, "a valueless variant");
  }

  template <std::size_t... indices>
  static Variant decode(ByteReader& in, std::size_t index, std::index_sequence<indices...>) {
    using Decode = Variant (*)(ByteReader&);
    static constexpr std::array<Decode, sizeof...(Ts)> decoders{
        [](ByteReader& from) { return Variant(std::in_place_index<indices>, Codec<Ts>::decode(from)); }...};
    return decoders[index](in);
  }
};

}  // namespace syncstate

#endif
