// A map that lives on a server: changed on its serial executor, read by the sessions that stream it.
#ifndef SYNCSTATE_DETAIL_SERVER_HOSTED_MAP_HPP
#define SYNCSTATE_DETAIL_SERVER_HOSTED_MAP_HPP

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/detail/model/key_hash.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/wire/wire_entries.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate::detail {

/// One hosted map: the master's `StateMap`, and its diffs as bytes.
///
/// A transaction's writes lie beside the values until it commits, so sessions go on reading committed values
/// while a hook runs; only the commit itself and the encoding of a frame exclude each other.
///
/// Threads: `transact` one at a time (the map's serial executor sees to it); everything else from any thread.
template <class K, class V>
class HostedMap final : public protocol::DiffSource {
 public:
  using Map = StateMap<K, V>;

  /// `map` is a frozen master.
  HostedMap(Map map, const Limits& limits)
      : map_(std::move(map)),
        limits_(limits),
        initial_(MapAccess::frozen(map_)),
        epoch_(map_.epoch()),
        head_(map_.update_id()) {
    (void)keys_hash();  // computed here, on the map's executor, rather than when a link first asks
  }

  [[nodiscard]] const MapHash& hash() const { return frozen().hash(); }
  [[nodiscard]] const MapHash& keys_hash() const { return frozen().keys_hash(); }
  [[nodiscard]] std::uint32_t size() const { return frozen().size(); }

  /// Runs `change(map)` as one transaction: all of it commits as one update id, or, if it throws, nothing
  /// does.
  ///
  /// Returns the update id committed, or the head when nothing was set.
  /// Errors: what `change` throws; `too_large` for a value beyond `Limits::value_bytes`.
  template <class F>
  UpdateId transact(F&& change) {
    MapAccess::begin_transaction(map_);
    try {
      change(map_);
      const ChangeSet<V>& pending = MapAccess::pending(map_);
      check_sizes(pending);
      const std::lock_guard lock(mutex_);
      keep_for_snapshots(pending);
      const UpdateId id = MapAccess::commit_transaction(map_);
      head_ = id;
      return id;
    } catch (...) {
      MapAccess::rollback_transaction(map_);
      throw;
    }
  }

  /// Calls `read(map)` between transactions; on the map's serial executor only.
  template <class F>
  decltype(auto) read(F&& f) const {
    return f(map_);
  }

  // protocol::DiffSource

  [[nodiscard]] Position head() const override { return Position{epoch_, head_.load()}; }

  std::optional<UpdateId> encode_merged(UpdateId from, std::size_t budget, Bytes& out) override {
    const std::lock_guard lock(mutex_);
    // Sessions at one position ask for the same bytes: they are encoded once.
    if (!merged_.is_valid || merged_.from != from || merged_.upto != head_ || merged_.budget != budget) {
      encode_merged_anew(from, budget);
    }
    if (!merged_.fits) return std::nullopt;
    out.insert(out.end(), merged_.bytes.begin(), merged_.bytes.end());
    return merged_.upto;
  }

  protocol::PassPiece encode_pass(protocol::PassCursor& cursor, std::size_t budget, Bytes& out) override {
    const std::lock_guard lock(mutex_);
    const auto* snapshot = static_cast<const Snapshot*>(cursor.snapshot.get());
    if (snapshot != nullptr && snapshot->is_revoked) return protocol::PassPiece::lost;
    const std::size_t start = out.size();
    for (; cursor.ordinal < frozen().size(); ++cursor.ordinal, cursor.offset = 0) {
      const auto [value, changed_at] = value_for(cursor.ordinal, snapshot);
      if (changed_at <= cursor.from || changed_at > cursor.target) continue;
      // A value whose first parts are out, and that changed since, comes again as a whole, later.
      if (cursor.offset != 0 && cursor.value_changed_at != changed_at) continue;
      cursor.value_changed_at = changed_at;
      const auto piece = append_piece(cursor, *value, start, budget, out);
      if (piece) return *piece;
    }
    cursor.at_end = true;
    return out.size() == start ? protocol::PassPiece::finished : protocol::PassPiece::entries;
  }

  protocol::PassPiece encode_logged(protocol::PassCursor& cursor, std::size_t budget, Bytes& out) override {
    if (cursor.at_end) return protocol::PassPiece::finished;
    const std::lock_guard lock(mutex_);
    const auto& log = MapAccess::log(map_);
    if (!log.reaches_back_to(cursor.from)) return protocol::PassPiece::lost;
    std::vector<std::pair<std::uint32_t, const V*>> changes;
    log.for_each_between(cursor.from, cursor.target, [&](std::uint32_t ordinal, const V& value) {
      if (ordinal >= cursor.ordinal) changes.emplace_back(ordinal, &value);
    });
    std::stable_sort(changes.begin(), changes.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    const std::size_t start = out.size();
    for (std::size_t i = 0; i < changes.size(); ++i) {
      if (i + 1 < changes.size() && changes[i + 1].first == changes[i].first) continue;  // the last one holds
      if (changes[i].first != cursor.ordinal) cursor.offset = 0;
      cursor.ordinal = changes[i].first;
      cursor.value_changed_at =
          cursor.target;  // as of then: what tells the bytes kept of a large value from others
      const auto piece = append_piece(cursor, *changes[i].second, start, budget, out);
      if (piece) return *piece;
      cursor.offset = 0;
      ++cursor.ordinal;
    }
    cursor.at_end = true;
    return out.size() == start ? protocol::PassPiece::finished : protocol::PassPiece::entries;
  }

  [[nodiscard]] UpdateId logged_upto(UpdateId from, UpdateId upto) const override {
    const std::lock_guard lock(mutex_);
    const auto& log = MapAccess::log(map_);
    if (!log.reaches_back_to(from)) return from;
    return log.reach(from, upto);
  }

  std::shared_ptr<const protocol::PinnedSnapshot> pin_snapshot(UpdateId at_least) override {
    const std::lock_guard lock(mutex_);
    drop_dead_snapshots();
    for (auto newest = snapshots_.rbegin(); newest != snapshots_.rend(); ++newest) {
      if (auto snapshot = newest->lock(); snapshot && snapshot->update_id() >= at_least) return snapshot;
    }
    // Each costs every commit a little, and may grow into a copy of the map: replicas that do not read must
    // neither add to that nor keep the others from theirs.
    if (snapshots_.size() >= most_snapshots) revoke_oldest_snapshot();
    auto snapshot = std::make_shared<Snapshot>(head_);
    snapshots_.push_back(snapshot);
    return snapshot;
  }

  bool encode_initial(std::uint32_t& next_key, std::uint64_t& offset, std::size_t budget,
                      Bytes& out) const override {
    return initial_.encode_initial(next_key, offset, budget, out);
  }

 private:
  static constexpr std::size_t most_snapshots = 4;

  /// The values that changed since the snapshot was pinned, as they were then.
  struct Snapshot final : protocol::PinnedSnapshot {
    using protocol::PinnedSnapshot::PinnedSnapshot;
    struct Kept {
      V value;
      UpdateId changed_at;
    };
    std::unordered_map<std::uint32_t, Kept, NumberHash> kept;  // by ordinal
    bool is_revoked = false;
  };

  /// The last merged diff that somebody asked for.
  struct Merged {
    bool is_valid = false;
    bool fits = false;
    UpdateId from = 0;
    UpdateId upto = 0;
    std::size_t budget = 0;
    Bytes bytes;
  };

  [[nodiscard]] const FrozenState<K, V>& frozen() const { return *MapAccess::frozen(map_); }

  void check_sizes(const ChangeSet<V>& pending) const {
    for (const auto& [ordinal, value] : pending) {
      if (whole_size(value) > limits_.value_bytes) {
        throw StateError(StateErrc::too_large,
                         "a value of more than " + std::to_string(limits_.value_bytes) + " bytes");
      }
    }
  }

  void drop_dead_snapshots() {
    std::erase_if(snapshots_, [](const auto& weak) { return weak.expired(); });
  }

  void revoke_oldest_snapshot() {
    if (const auto oldest = snapshots_.front().lock()) {
      oldest->is_revoked = true;
      oldest->kept.clear();
    }
    snapshots_.erase(snapshots_.begin());
  }

  /// Copy on write: what the commit is about to replace stays readable for the snapshots that need it.
  void keep_for_snapshots(const ChangeSet<V>& pending) {
    if (snapshots_.empty()) return;
    drop_dead_snapshots();
    for (const auto& weak : snapshots_) {
      const auto snapshot = weak.lock();
      if (!snapshot) continue;
      for (const auto& change : pending) {
        const std::uint32_t ordinal = change.first;
        if (snapshot->kept.contains(ordinal)) continue;
        const UpdateId changed_at = MapAccess::changed_at(map_, ordinal);
        if (changed_at <= snapshot->update_id()) {
          snapshot->kept.emplace(ordinal,
                                 typename Snapshot::Kept{MapAccess::value(map_, ordinal), changed_at});
        }
      }
    }
  }

  /// A key's value and when it changed, at the head or in a snapshot.
  std::pair<const V*, UpdateId> value_for(std::uint32_t ordinal, const Snapshot* snapshot) const {
    const UpdateId changed_at = MapAccess::changed_at(map_, ordinal);
    if (snapshot != nullptr && changed_at > snapshot->update_id()) {
      const auto& kept = snapshot->kept.at(ordinal);
      return {&kept.value, kept.changed_at};
    }
    return {&MapAccess::value(map_, ordinal), changed_at};
  }

  void encode_merged_anew(UpdateId from, std::size_t budget) {
    merged_.is_valid = false;
    merged_.fits = true;
    merged_.bytes.clear();
    MapAccess::for_each_changed_since(map_, from, [&](std::uint32_t ordinal, const V& value) {
      if constexpr (is_byte_like<V>) {
        if (content_view(value).size() > budget) return merged_.fits = false;
      }
      append_entry(ordinal, value, merged_.bytes);
      return merged_.fits = merged_.bytes.size() <= budget;
    });
    merged_.from = from;
    merged_.upto = head_;
    merged_.budget = budget;
    merged_.is_valid = true;
    if (!merged_.fits) Bytes().swap(merged_.bytes);
  }

  /// Appends the entry at the cursor, or a part of its value; says what to return if the piece is full.
  std::optional<protocol::PassPiece> append_piece(protocol::PassCursor& cursor, const V& value,
                                                  std::size_t start, std::size_t budget, Bytes& out) {
    const std::size_t entry_start = out.size();
    const bool has_entries = entry_start != start;
    if (cursor.offset == 0) {
      if constexpr (is_byte_like<V>) {
        if (content_view(value).size() <= budget) append_entry(cursor.ordinal, value, out);
      } else {
        append_entry(cursor.ordinal, value, out);
      }
      if (out.size() != entry_start && out.size() - entry_start <= budget) {
        if (out.size() - start <= budget) return std::nullopt;
        out.resize(entry_start);  // it opens the next piece
        return protocol::PassPiece::entries;
      }
      out.resize(entry_start);
      if (has_entries) return protocol::PassPiece::entries;
    }
    const ByteView whole = whole_view(cursor, value);
    append_value_part(cursor.ordinal, whole, cursor.offset, budget, out);
    cursor.offset += std::min<std::uint64_t>(budget, whole.size() - cursor.offset);
    if (cursor.offset == whole.size()) {
      cursor.offset = 0;
      ++cursor.ordinal;
      Bytes().swap(large_bytes_);
    }
    return protocol::PassPiece::value_part;
  }

  /// The bytes of a value that is sent in parts. Those of a string are there; others are encoded, the last
  /// one kept.
  ByteView whole_view(const protocol::PassCursor& cursor, const V& value) {
    if constexpr (is_byte_like<V>) {
      return content_view(value);
    } else {
      if (large_ordinal_ != cursor.ordinal || large_changed_at_ != cursor.value_changed_at ||
          large_bytes_.empty() || cursor.value_changed_at == 0) {
        large_bytes_.clear();
        encode_whole(value, large_bytes_);
        large_ordinal_ = cursor.ordinal;
        large_changed_at_ = cursor.value_changed_at;
      }
      return large_bytes_;
    }
  }

  Map map_;
  const Limits limits_;
  FrozenSource<K, V> initial_;
  mutable std::mutex mutex_;  // between commits and encoders; never held while user code runs, but codecs
  const Epoch epoch_;
  std::atomic<UpdateId> head_;
  Merged merged_;
  std::vector<std::weak_ptr<Snapshot>> snapshots_;
  std::uint32_t large_ordinal_ = 0;
  UpdateId large_changed_at_ = 0;
  Bytes large_bytes_;
};

}  // namespace syncstate::detail

#endif
