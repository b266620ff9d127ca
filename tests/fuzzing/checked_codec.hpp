// What a fuzzer demands of a codec: bytes are a value or refused, at a bounded price.
#ifndef SYNCSTATE_TESTS_FUZZING_CHECKED_CODEC_HPP
#define SYNCSTATE_TESTS_FUZZING_CHECKED_CODEC_HPP

#include <cstddef>
#include <string>
#include <type_traits>

#include "fuzz_input.hpp"
#include "support/counted_new.hpp"
#include "syncstate/codec.hpp"

namespace syncstate::fuzzing {

/// What is known about a codec besides.
struct CodecFacts {
  std::size_t bytes_per_byte;  ///< memory that a byte of input may cost
  bool is_canonical = true;    ///< no two encodings give the same value
};

template <class T>
Bytes encode(const T& value) {
  Bytes bytes;
  encode_whole(value, bytes);
  return bytes;
}

/// Within other values: what was written is read, no byte more.
template <class T>
void check_nested(const T& value, ByteView again) {
  Bytes bytes;
  ByteWriter out(bytes);
  Codec<T>::encode(value, out);
  require(detail::encoded_size(value) == bytes.size(), "the size of a nested encoding is foretold");
  require(detail::min_bytes<T>() <= bytes.size(), "no encoding is shorter than the least");
  out.put_u8(0xA5);
  ByteReader in(bytes);
  const T second = Codec<T>::decode(in);
  require(in.remaining() == 1, "a nested encoding is read to its end and not beyond");
  require(is_same(encode(second), again), "a nested value comes back");
}

/// Decodes bytes that nobody vouches for. They are refused with `decode_error`, or they are a value that comes
/// back from its own encoding; where the codec is canonical that encoding is the very bytes.
template <class T>
void check_codec(ByteView bytes, const CodecFacts& facts) {
  const std::size_t before = testing::allocated_bytes;
  const auto require_cheap = [&] {
    // An error takes a few strings.
    constexpr std::size_t error_bytes = 2'048;
    require(testing::allocated_bytes - before <= bytes.size() * facts.bytes_per_byte + error_bytes,
            "memory is bounded by the input");
  };
  try {
    const T value = decode_whole<T>(bytes);
    require_cheap();
    const Bytes again = encode(value);
    require(whole_size(value) == again.size(), "the size of an encoding is foretold");
    if (facts.is_canonical) require(is_same(again, bytes), "what is decoded was the one encoding");
    const T second = decode_whole<T>(again);
    require(is_same(encode(second), again), "an encoding decodes to what encodes the same");
    // Not every value equals itself: there are NaNs.
    if (value == value) require(second == value, "an encoding decodes to an equal value");
    if constexpr (detail::may_be_key<T>()) require(value == value, "what may be a key equals itself");
    check_nested(value, again);
  } catch (const StateError& error) {
    require_cheap();
    require(error.code() == StateErrc::decode_error, "bad bytes are a decode_error");
  }
}

}  // namespace syncstate::fuzzing

#endif
