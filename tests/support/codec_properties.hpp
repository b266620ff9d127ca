// What must hold for every codec and every value: checked byte by byte. Needs support/counted_new.hpp in the
// program.
#ifndef SYNCSTATE_TESTS_SUPPORT_CODEC_PROPERTIES_HPP
#define SYNCSTATE_TESTS_SUPPORT_CODEC_PROPERTIES_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>

#include "support/catch.hpp"
#include "support/counted_new.hpp"
#include "syncstate/codec.hpp"

namespace syncstate::testing {

/// `01 ff` for two such bytes
inline std::string hex(ByteView bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte b : bytes) {
    if (!text.empty()) text += ' ';
    text += digits[std::to_integer<unsigned>(b) >> 4];
    text += digits[std::to_integer<unsigned>(b) & 0xf];
  }
  return text;
}

template <class T>
Bytes whole(const T& value) {
  Bytes bytes;
  encode_whole(value, bytes);
  return bytes;
}

/// The encoding within other values, where strings have a length.
template <class T>
Bytes nested(const T& value) {
  Bytes bytes;
  ByteWriter out(bytes);
  Codec<T>::encode(value, out);
  return bytes;
}

/// What is known about a codec.
struct CodecFacts {
  std::size_t element_bytes;  ///< memory that a byte of input may cost
  bool is_canonical = true;   ///< no two encodings give the same value
};

/// Decodes, notes what that allocated, and encodes again.
template <class T>
Bytes recode(ByteView bytes, std::size_t& spent) {
  const std::size_t before = allocated_bytes;
  const auto note = [&] { spent = allocated_bytes - before; };
  try {
    const T value = decode_whole<T>(bytes);
    note();
    return whole(value);
  } catch (...) {
    note();
    throw;
  }
}

/// All that the checks below need to know of a type, so that they are compiled once for all types.
struct CodecUnderTest {
  Bytes (*recode)(ByteView bytes, std::size_t& spent);
  CodecFacts facts;
};

/// Decodes bytes that nobody vouches for, from a buffer of exactly their size so that a sanitizer sees each
/// byte read beyond it. Says what went wrong, or nothing.
inline std::string trouble_with(const CodecUnderTest& codec, ByteView bytes) {
  const std::unique_ptr<std::byte[]> exact(new std::byte[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), exact.get());

  std::string trouble;
  std::size_t spent = 0;
  try {
    const Bytes again = codec.recode(ByteView(exact.get(), bytes.size()), spent);
    if (codec.facts.is_canonical && !std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) {
      trouble = "decodes, but encodes to " + hex(again);
    }
  } catch (const StateError& error) {
    if (error.code() != StateErrc::decode_error) trouble = std::string("refused with ") + error.what();
  } catch (const std::exception& error) {
    trouble = std::string("refused with another exception: ") + error.what();
  }
  // An error takes a few strings.
  constexpr std::size_t error_bytes = 2'048;
  if (spent > bytes.size() * codec.facts.element_bytes + error_bytes) {
    trouble += " allocates " + std::to_string(spent);
  }
  return trouble.empty() ? trouble : hex(bytes) + ": " + trouble;
}

/// Every truncation, every one-byte change and every overlong claim is a value or refused.
inline void check_changes(const CodecUnderTest& codec, const Bytes& bytes) {
  const auto check = [&](const char* change, ByteView changed) {
    const std::string trouble = trouble_with(codec, changed);
    if (!trouble.empty()) FAIL_CHECK(change << ", " << trouble);
  };
  for (std::size_t size = 0; size < bytes.size(); ++size) check("cut off", ByteView(bytes).first(size));
  Bytes changed = bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (unsigned other = 1; other < 256; ++other) {
      changed[i] = bytes[i] ^ static_cast<std::byte>(other);
      check("a byte changed", changed);
    }
    changed[i] = bytes[i];
  }
  // Lengths that nothing can hold, and the largest that the input could, in place of each byte.
  for (std::size_t i = 0; i <= bytes.size(); ++i) {
    for (const std::uint64_t claim :
         {~std::uint64_t{0}, std::uint64_t{1} << 32, std::uint64_t{bytes.size() - i}}) {
      Bytes claimed(bytes.data(), bytes.data() + i);
      ByteWriter(claimed).put_varint(claim);
      if (i < bytes.size()) claimed.insert(claimed.end(), bytes.data() + i + 1, bytes.data() + bytes.size());
      check("a length put in", claimed);
    }
  }
}

/// What a copy of the value asked the heap for: all that the copy holds beyond itself.
template <class T>
std::size_t bytes_of_copy(const T& value) {
  const std::size_t before = allocated_bytes;
  [[maybe_unused]] const T copy = value;
  return allocated_bytes - before;
}

/// Decode(encode(x)) == x, and all of the above; and `memory_bytes` says no less than what is held.
template <class T>
void check_codec(const T& value, const CodecFacts& facts) {
  const Bytes bytes = whole(value);
  const bool size_is_right = whole_size(value) == bytes.size();
  const bool comes_back = decode_whole<T>(bytes) == value;
  const bool least_is_right = detail::min_bytes<T>() <= nested(value).size();
  const bool memory_is_right = bytes_of_copy(value) + sizeof(T) <= memory_bytes(T(value));
  INFO(type_name<T>() << " as " << hex(bytes));
  CHECK((size_is_right && comes_back && least_is_right && memory_is_right));
  check_changes({&recode<T>, facts}, bytes);
  if constexpr (!is_byte_like<T>) {
    Bytes longer = bytes;
    longer.push_back(std::byte{0});
    CHECK_THROWS_AS(decode_whole<T>(longer), StateError);
  }
}

}  // namespace syncstate::testing

#endif
