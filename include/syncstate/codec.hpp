// Values as bytes: the customization point Codec<T>, the built-in codecs, and whole encodings.
//
// Type names are built from structure alone, so that two peers whose types mean the same have the same name,
// whatever their compilers and machines call them:
//
//   name  = "bool" | "char" | "byte"
//         | "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64"   integers; enumerations as their
//         underlying type | "f32" | "f64" | "string" | "json" | "bytes" vector of a byte type | "[" name "]"
//         vector | "[" name ";" count "]"                      array; "[byte;16]" for every byte type |
//         "set<" name ">" | "{" name ":" name "}"                       map | name "?" optional | "{" [ name
//         { "," name } ] "}"               pair, tuple, aggregate; "{}" also std::monostate | "<" name { "|"
//         name } ">"                   variant | "duration<" num "/" den "," name ">"        a tick in
//         seconds, and the type that counts them | "time_point<" num "/" den "," name ">" | what a user's
//         Codec<T>::type_name() says
#ifndef SYNCSTATE_CODEC_HPP
#define SYNCSTATE_CODEC_HPP

#include <cstddef>
#include <exception>
#include <new>
#include <string>

#include "syncstate/bytes.hpp"
#include "syncstate/codec/aggregates.hpp"
#include "syncstate/codec/byte_containers.hpp"
#include "syncstate/codec/chrono.hpp"
#include "syncstate/codec/compounds.hpp"
#include "syncstate/codec/containers.hpp"
#include "syncstate/codec/json_opt_in.hpp"
#include "syncstate/codec/memory.hpp"
#include "syncstate/codec/rules.hpp"
#include "syncstate/codec/scalars.hpp"

namespace syncstate {

/// What T is called on the wire; see the grammar above.
template <class T>
std::string type_name() {
  static_assert(detail::Explain<T>::is_done);
  return Codec<T>::type_name();
}

/// Appends the whole encoding of a value: what the hash covers, and what travels as key, value or event.
///
/// "Whole" means that the length is known from outside: strings and byte containers are their contents alone,
/// all else is what `Codec<T>` writes.
/// Errors: `too_large` for a value that `decode_whole` would refuse for its memory; those of the codec.
template <class T>
void encode_whole(const T& value, Bytes& out) {
  static_assert(detail::Explain<T>::is_done);
  ByteWriter writer(out);
  if constexpr (is_byte_like<T>) {
    writer.put(content_view(value));
  } else {
    const std::size_t before = out.size();
    Codec<T>::encode(value, writer);
    if constexpr (!detail::is_flat<T>()) {
      if (writer.memory() > detail::most_decoded_bytes(out.size() - before)) [[unlikely]] {
        throw StateError(StateErrc::too_large, "a value of " + std::to_string(out.size() - before) +
                                                   " encoded bytes takes " + std::to_string(writer.memory()) +
                                                   " of memory: spread it over several keys or events");
      }
    }
  }
}

/// The value of a whole encoding; bytes left over are refused.
///
/// What vectors, sets, maps and JSON take within it is limited, before they take it: 16 MiB, and 16 bytes for each byte
/// of the encoding. Strings, which take no more than twice their bytes, and what a user's codec allocates do not count.
/// Errors: StateErrc::decode_error.
template <class T>
T decode_whole(ByteView bytes) {
  static_assert(detail::Explain<T>::is_done);
  if constexpr (is_byte_like<T>) {
    return detail::from_contents<T>(bytes);
  } else {
    try {
      ByteReader reader(bytes);
      if constexpr (!detail::is_flat<T>()) reader.limit_memory(detail::most_decoded_bytes(bytes.size()));
      T value = Codec<T>::decode(reader);
      reader.expect_end();
      return value;
    } catch (const StateError&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      // A user's type may refuse a value in its own way; to us it is still the sender's fault. What was thrown goes
      // along, for `on_error`.
      std::throw_with_nested(StateError(StateErrc::decode_error, error.what()));
    } catch (...) {
      std::throw_with_nested(StateError(StateErrc::decode_error, "a codec threw what is no std::exception"));
    }
  }
}

/// The number of bytes that `encode_whole` appends.
/// Complexity: no allocation but where a user's codec or JSON does not tell its size.
template <class T>
std::size_t whole_size(const T& value) {
  static_assert(detail::Explain<T>::is_done);
  if constexpr (is_byte_like<T>) {
    return value.size();
  } else {
    return detail::encoded_size(value);
  }
}

/// What a value holds in memory: `sizeof(T)`, and an estimate of all blocks that it owns, the allocator's overhead
/// included. Logs, stages and the limits on memory count this; an encoding may be a hundred times smaller.
///
/// Built-in types and JSON are looked at. A type of a user's own says it by `Codec<T>::memory_bytes`; without that,
/// a trivially copyable one holds `sizeof(T)`, and any other, or one that says `encode_as_json`, is taken for
/// `sizeof(T)` and 32 bytes for each byte of its encoding.
/// Errors    : those of the user's codec.
/// Complexity: constant for values that own nothing, strings, byte containers and vectors of such values; else as many
///             steps as the value has parts. A type without `memory_bytes` costs what `Codec<T>::size` or `encode` does.
template <class T>
std::size_t memory_bytes(const T& value) {
  static_assert(detail::Explain<T>::is_done);
  return sizeof(T) + detail::owned_bytes(value);
}

}  // namespace syncstate

#endif
