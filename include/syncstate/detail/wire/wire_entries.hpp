// Ordinals and values as they travel: the bytes of a diff's entries and of an initial state.
#ifndef SYNCSTATE_DETAIL_WIRE_WIRE_ENTRIES_HPP
#define SYNCSTATE_DETAIL_WIRE_WIRE_ENTRIES_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/protocol/diff_source.hpp"

namespace syncstate::detail {

/// Appends a value's whole encoding behind its length.
template <class T>
void append_sized(const T& value, Bytes& out) {
  ByteWriter writer(out);
  if constexpr (is_byte_like<T>) {
    writer.put_sized(content_view(value));
  } else {
    // Most values take fewer than 128 bytes: leave room for that length, and move the few that take more.
    const std::size_t start = out.size();
    writer.put_u8(0);
    encode_whole(value, out);
    const std::size_t size = out.size() - start - 1;
    if (size < 0x80) {
      out[start] = static_cast<std::byte>(size);
      return;
    }
    Bytes length;
    ByteWriter(length).put_varint(size);
    out[start] = length.front();
    out.insert(out.begin() + static_cast<std::ptrdiff_t>(start) + 1, length.begin() + 1, length.end());
  }
}

/// Appends one entry of a diff: ordinal, length, value.
template <class V>
void append_entry(std::uint32_t ordinal, const V& value, Bytes& out) {
  if constexpr (is_byte_like<V>) {
    // Both numbers at once: with values of a few bytes, each growth of `out` is what counts.
    const ByteView contents = content_view(value);
    std::array<std::byte, 2 * 10> numbers;
    std::byte* end = write_varint(ordinal, numbers.data());
    end = write_varint(contents.size(), end);
    out.insert(out.end(), numbers.data(), end);
    out.insert(out.end(), contents.begin(), contents.end());
  } else {
    ByteWriter(out).put_varint(ordinal);
    append_sized(value, out);
  }
}

/// Appends a part of a large value as a `value_part` frame's body has it (without the stream).
inline void append_value_part(std::uint32_t ordinal, ByteView value, std::uint64_t offset, std::size_t budget,
                              Bytes& out) {
  ByteWriter writer(out);
  writer.put_varint(ordinal);
  writer.put_varint(value.size());
  writer.put_varint(offset);
  writer.put(value.subspan(static_cast<std::size_t>(offset),
                           std::min(budget, value.size() - static_cast<std::size_t>(offset))));
}

/// An initial state as a source of the bytes that `upload` and `fetch` carry.
template <class K, class V>
class FrozenSource final : public protocol::InitialSource {
 public:
  explicit FrozenSource(std::shared_ptr<const FrozenState<K, V>> frozen) : frozen_(std::move(frozen)) {}

  bool encode_initial(std::uint32_t& next_key, std::uint64_t& offset, std::size_t budget,
                      Bytes& out) const override {
    const std::size_t start = out.size();
    const auto has_room = [&] { return out.size() - start < budget; };
    while (next_key < frozen_->size() && has_room()) {
      const std::size_t entry_start = out.size();
      append_sized(frozen_->key(next_key), out);
      append_sized(frozen_->initial(next_key), out);
      // An entry that began in an earlier piece goes on from where that ended; a long one ends in a later
      // piece.
      out.erase(out.begin() + static_cast<std::ptrdiff_t>(entry_start),
                out.begin() + static_cast<std::ptrdiff_t>(entry_start + static_cast<std::size_t>(offset)));
      if (out.size() - start > budget) {
        offset += start + budget - entry_start;
        out.resize(start + budget);
        break;
      }
      offset = 0;
      ++next_key;
    }
    return out.size() != start;
  }

 private:
  std::shared_ptr<const FrozenState<K, V>> frozen_;
};

}  // namespace syncstate::detail

#endif
