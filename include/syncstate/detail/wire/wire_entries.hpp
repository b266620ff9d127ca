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
#include "syncstate/detail/wire/large_entries.hpp"
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
  writer.put(value.subspan(offset, (std::min)(budget, value.size() - offset)));
}

/// An initial state as a source of the bytes that `upload` and `fetch` carry.
///
/// An entry larger than a piece is encoded once for all cursors that are within it at the time; they own the bytes
/// together, and the bytes end with the last of them. Other entries are never kept: one that does not fit the rest of a
/// piece opens the next piece. Entries of strings are never encoded: their parts are copied from where they lie.
template <class K, class V>
class FrozenSource final : public protocol::InitialSource {
 public:
  explicit FrozenSource(std::shared_ptr<const FrozenState<K, V>> frozen) : frozen_(std::move(frozen)) {}

  /// Complexity: O(budget), however many cursors are under way; and once for all cursors that are within an entry larger
  ///             than the budget its encoding.
  bool encode_initial(protocol::InitialCursor& cursor, std::size_t budget, Bytes& out) const override {
    const std::size_t start = out.size();
    std::uint32_t next_large = next_large_from(cursor.next_key);
    while (cursor.next_key < frozen_->size() && out.size() - start < budget) {
      const bool is_large = cursor.next_key == next_large;
      const std::size_t room = budget - (out.size() - start);
      if (!append_part(cursor, is_large, budget, room, out)) break;
      cursor.offset = 0;
      cursor.entry.reset();
      ++cursor.next_key;
      if (is_large) next_large = next_large_from(cursor.next_key);
    }
    return out.size() != start;
  }

 private:
  static constexpr bool is_all_bytes = is_byte_like<K> && is_byte_like<V>;

  [[nodiscard]] std::uint32_t next_large_from(std::uint32_t ordinal) const {
    return is_all_bytes ? LargeEntries::none : large_.next_from(ordinal);
  }

  /// Appends what is left of the entry at the cursor, or as much as there is room for. Returns whether that was all.
  bool append_part(protocol::InitialCursor& cursor, bool is_large, std::size_t budget, std::size_t room,
                   Bytes& out) const {
    if constexpr (is_all_bytes) {
      return append_bytes(cursor, room, out);
    } else {
      if (!cursor.entry && is_large) {
        cursor.entry = large_.share(cursor.next_key, [&] { return encoding_of(cursor.next_key); });
      } else if (!cursor.entry) {
        const std::size_t entry_start = out.size();
        append_entry_of(cursor.next_key, out);
        const std::size_t size = out.size() - entry_start;
        if (size <= room) return true;
        if (size > budget) {
          const auto begin = out.begin() + static_cast<std::ptrdiff_t>(entry_start);
          cursor.entry = large_.share(cursor.next_key, [&] { return Bytes(begin, out.end()); });
        }
        out.resize(entry_start);
        if (!cursor.entry) return false;
      }
      return append_rest(cursor, ByteView(*cursor.entry), room, out);
    }
  }

  /// Appends a part of a field that begins `before` bytes into its entry.
  static bool append_rest(protocol::InitialCursor& cursor, ByteView field, std::size_t room, Bytes& out,
                          std::uint64_t before = 0) {
    const std::size_t from = cursor.offset - before;
    const ByteView part = field.subspan(from, (std::min)(room, field.size() - from));
    out.insert(out.end(), part.begin(), part.end());
    cursor.offset += part.size();
    return from + part.size() == field.size();
  }

  /// As `append_part`, of a key and a value whose bytes lie there already.
  bool append_bytes(protocol::InitialCursor& cursor, std::size_t room, Bytes& out) const {
    const std::size_t end = out.size() + room;
    std::uint64_t before = 0;
    for (const ByteView contents :
         {content_view(frozen_->key(cursor.next_key)), content_view(frozen_->initial(cursor.next_key))}) {
      std::array<std::byte, 10> length;
      const std::byte* length_end = write_varint(contents.size(), length.data());
      for (const ByteView field : {ByteView(length.data(), length_end), contents}) {
        if (cursor.offset < before + field.size() &&
            !append_rest(cursor, field, end - out.size(), out, before)) {
          return false;
        }
        before += field.size();
      }
    }
    return true;
  }

  void append_entry_of(std::uint32_t ordinal, Bytes& out) const {
    append_sized(frozen_->key(ordinal), out);
    append_sized(frozen_->initial(ordinal), out);
  }

  /// Returns an entry's bytes, in no more room than they take.
  [[nodiscard]] Bytes encoding_of(std::uint32_t ordinal) const {
    Bytes bytes;
    append_entry_of(ordinal, bytes);
    bytes.shrink_to_fit();
    return bytes;
  }

  std::shared_ptr<const FrozenState<K, V>> frozen_;
  mutable LargeEntries large_;  // stays empty where keys and values are bytes
};

}  // namespace syncstate::detail

#endif
