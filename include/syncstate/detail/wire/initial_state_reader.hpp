// Puts an initial state together again out of the pieces of an upload or a fetch.
#ifndef SYNCSTATE_DETAIL_WIRE_INITIAL_STATE_READER_HPP
#define SYNCSTATE_DETAIL_WIRE_INITIAL_STATE_READER_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"
#include "syncstate/detail/limit_text.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/map_hash.hpp"

namespace syncstate::detail {

/// Decodes keys and values as they arrive, within the limits; the peer is not trusted.
template <class K, class V>
class InitialStateReader {
 public:
  explicit InitialStateReader(const Limits& limits) : limits_(limits) {}

  /// Errors: `decode_error`, `too_large`; the reader is of no use afterwards.
  void feed(ByteView bytes) {
    total_bytes_ += bytes.size();
    if (total_bytes_ > limits_.map_bytes)
      throw StateError(StateErrc::too_large,
                       beyond_limit("an initial state of at least " + std::to_string(total_bytes_) + " bytes",
                                    "map_bytes", limits_.map_bytes));
    if (!pending_.empty()) {
      pending_.insert(pending_.end(), bytes.begin(), bytes.end());
      bytes = pending_;
    }
    ByteReader in(bytes);
    std::size_t used = 0;
    while (read_entry(in)) used = bytes.size() - in.remaining();
    if (used == 0 && !pending_.empty()) return;
    // The room of a large entry goes with it.
    Bytes rest(bytes.begin() + static_cast<std::ptrdiff_t>(used), bytes.end());
    pending_.swap(rest);
  }

  /// The keys that came so far.
  [[nodiscard]] std::size_t size() const { return keys_.size(); }

  /// Returns the memory that is taken, whether it is used or not: by the keys and values, and by an entry that is not whole.
  /// Units: bytes.
  /// Complexity: O(1).
  [[nodiscard]] std::size_t held_bytes() const {
    return pending_.capacity() + keys_.capacity() * sizeof(K) + values_.capacity() * sizeof(V) + owned_bytes_;
  }
  /// Returns what a server holds that hosts the map as far as it came; never less than `held_bytes()`. A hosted map keeps
  /// each value as it was and as it is, and finds its keys by tables.
  /// Units: bytes.
  /// Complexity: O(1).
  [[nodiscard]] std::size_t hosted_bytes() const {
    return held_bytes() + size() * (sizeof(V) + index_bytes) + owned_bytes_;
  }

  /// Returns what `feed` of this many bytes may take besides what is held, also while it moves its contents to more room.
  /// What the decoded values own is not part of it.
  /// Units: bytes.
  /// Complexity: O(1).
  [[nodiscard]] std::size_t growth_bytes(std::size_t more) const {
    std::size_t bytes = more;
    if (pending_.size() + more > pending_.capacity()) bytes += 2 * pending_.capacity();
    const std::size_t most_entries = keys_.size() + more / 2;  // a key and a value take a byte each at least
    if (most_entries > keys_.capacity()) bytes += 2 * keys_.capacity() * sizeof(K);
    if (most_entries > values_.capacity()) bytes += 2 * values_.capacity() * sizeof(V);
    return bytes;
  }

  /// Begins anew.
  void drop() { *this = InitialStateReader(limits_); }

  /// The state, once every piece came; verified against the hash it is said to have.
  /// Errors: `decode_error` for an entry that is not whole, `hash_mismatch`.
  std::shared_ptr<const FrozenState<K, V>> finish(const MapHash& expected) {
    if (!pending_.empty()) ByteReader::fail("the initial state ends inside an entry");
    auto frozen = FrozenState<K, V>::make(std::move(keys_), std::move(values_));
    if (frozen->hash() != expected) {
      throw StateError(StateErrc::hash_mismatch, "the initial state has the hash " + frozen->hash().hex());
    }
    return frozen;
  }

 private:
  // What a hosted map takes for each key, besides the key and the values: 16 bytes of the table of keys, 16 of the list of
  // changes, and a second copy of a short key with its place.
  static constexpr std::size_t index_bytes = 16 + 16 + 20;

  /// The next sized field, if it is whole. A length is believed only as far as the limit goes.
  std::optional<ByteView> read_field(ByteReader& in, std::size_t most) {
    ByteReader ahead = in;
    if (ahead.remaining() < 10 && !has_whole_varint(ahead.rest())) return std::nullopt;
    const std::uint64_t size = ahead.read_varint();
    if (size > most) {
      throw StateError(StateErrc::too_large,
                       beyond_limit(of_bytes("a key or value", size), "value_bytes", most));
    }
    if (size > ahead.remaining()) return std::nullopt;
    const ByteView field = ahead.read_bytes(size);
    in = ahead;
    return field;
  }

  static bool has_whole_varint(ByteView bytes) {
    for (const std::byte b : bytes) {
      if ((b & std::byte{0x80}) == std::byte{0}) return true;
    }
    return false;
  }

  bool read_entry(ByteReader& in) {
    ByteReader ahead = in;
    const auto key_bytes = read_field(ahead, limits_.value_bytes);
    if (!key_bytes) return false;
    const auto value_bytes = read_field(ahead, limits_.value_bytes);
    if (!value_bytes) return false;
    if (keys_.size() >= limits_.keys_per_map) {
      throw StateError(StateErrc::too_large, beyond_limit("an initial state has more keys than are allowed",
                                                          "keys_per_map", limits_.keys_per_map));
    }
    K key = decode_whole<K>(*key_bytes);
    if (keys_.size() != 0 && !KeyLess<K>{}(keys_[keys_.size() - 1], key))
      ByteReader::fail("the keys do not ascend");
    V value = decode_whole<V>(*value_bytes);
    owned_bytes_ += owned_bytes(key) + owned_bytes(value);
    keys_.push_back(std::move(key));
    values_.push_back(std::move(value));
    in = ahead;
    return true;
  }

  Limits limits_;
  DenseArray<K> keys_;
  DenseArray<V> values_;
  Bytes pending_;
  std::size_t total_bytes_ = 0;
  std::size_t owned_bytes_ = 0;  // what the keys and values own beyond themselves
};

}  // namespace syncstate::detail

#endif
