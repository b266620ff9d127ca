// Finds where a CBOR item ends, without recursion and before anything is built from it.
#ifndef SYNCSTATE_CODEC_CBOR_EXTENT_HPP
#define SYNCSTATE_CODEC_CBOR_EXTENT_HPP

#include <cstddef>
#include <cstdint>

#include "syncstate/bytes.hpp"

namespace syncstate::detail {

/// The number that follows the first byte of a CBOR item (RFC 8949, section 3).
inline std::uint64_t read_cbor_argument(ByteReader& in, unsigned info) {
  if (info < 24) return info;
  if (info > 27) ByteReader::fail("CBOR without a definite length");
  std::uint64_t argument = 0;
  for (const std::byte b : in.read_bytes(std::uint64_t{1} << (info - 24))) {
    argument = argument << 8 | std::to_integer<std::uint64_t>(b);
  }
  return argument;
}

/// A CBOR item with all that is in it.
struct CborItem {
  ByteView bytes;
  std::uint64_t items;  ///< itself, and all items within it, keys too
};

/// Reads one CBOR item. Whether its values are ones that JSON knows is left to the
/// parser.
///
/// Refused are items without a definite length (we write none, and a parser recurses into strings made of
/// strings), tags, lengths that the input can't hold, integers below those of 64 bits, and an item of more than
/// `most_items` items, itself and keys included.
/// Errors    : StateErrc::decode_error.
/// Complexity: O(items); no memory.
inline CborItem read_cbor_item(ByteReader& in, std::uint64_t most_items) {
  const ByteView start = in.rest();
  // Items owed by all open arrays and maps together. Each costs a byte at least, so they never exceed the
  // input, and whoever reserves room for what an array promises reserves for no more than that.
  std::uint64_t owed = 1;
  std::uint64_t items = 0;
  while (owed > 0) {
    --owed;
    ++items;
    const unsigned first = in.read_u8();
    const unsigned major_type = first >> 5;
    const std::uint64_t argument = read_cbor_argument(in, first & 0x1f);
    switch (major_type) {
      case 1:
        if (argument > static_cast<std::uint64_t>(INT64_MAX))
          ByteReader::fail("a CBOR integer beyond 64 bits");
        break;
      case 2:
      case 3: in.read_bytes(argument); break;
      case 4:
      case 5: {
        const std::uint64_t per_entry = major_type == 4 ? 1 : 2;
        if (argument > in.remaining() / per_entry) ByteReader::fail("more CBOR items than bytes for them");
        owed += argument * per_entry;
        break;
      }
      case 6: ByteReader::fail("CBOR with a tag");
      default: break;
    }
    if (owed > in.remaining()) ByteReader::fail("more CBOR items than bytes for them");
    if (items + owed > most_items) {
      ByteReader::fail("CBOR of too many values and keys");
    }
  }
  return {start.first(start.size() - in.remaining()), items};
}

}  // namespace syncstate::detail

#endif
