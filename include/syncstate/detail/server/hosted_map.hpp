// A map that lives on a server: changed on its serial executor, read by the sessions that stream it.
#ifndef SYNCSTATE_DETAIL_SERVER_HOSTED_MAP_HPP
#define SYNCSTATE_DETAIL_SERVER_HOSTED_MAP_HPP

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/detail/limit_text.hpp"
#include "syncstate/detail/model/key_hash.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/server/large_values.hpp"
#include "syncstate/detail/server/ordinal_window.hpp"
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
  [[nodiscard]] const MapHash* map_hash() const override { return &hash(); }
  [[nodiscard]] const MapHash& keys_hash() const { return frozen().keys_hash(); }
  [[nodiscard]] std::uint32_t size() const { return frozen().size(); }
  [[nodiscard]] const Limits& limits() const { return limits_; }

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
      std::unique_lock lock(mutex_);
      if (encoders_ != 0) [[unlikely]]
        wait_for_encoders(lock);
      keep_for_snapshots(pending);
      if constexpr (!is_byte_like<V>) {
        if (!large_pending_.empty() || !large_.empty()) return commit_with_large(pending);
      }
      const UpdateId id = MapAccess::commit_transaction(map_);
      head_ = id;
      return id;
    } catch (...) {
      MapAccess::rollback_transaction(map_);
      throw;
    }
  }

  /// Begins another life of the map, with the state that it has; on the map's serial executor only, before there is any
  /// session.
  void renew_epoch() {
    const std::lock_guard lock(mutex_);
    MapAccess::renew_epoch(map_);
    epoch_ = map_.epoch();
  }

  /// Returns whether a transaction is open; on the map's serial executor only.
  [[nodiscard]] bool is_in_transaction() const { return MapAccess::in_transaction(map_); }

  /// Calls `read(map)` between transactions; on the map's serial executor only.
  template <class F>
  decltype(auto) read(F&& f) const {
    return f(map_);
  }

  // protocol::DiffSource

  [[nodiscard]] Position head() const override {
    return Position{epoch_.load(std::memory_order_relaxed), head_.load()};
  }

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

  /// Complexity: O(what the piece names), and for all pieces of a pass together: where it names few of the keys, some
  /// 32 times the keys changed since its start; else the keys of the map. Of a value in parts O(part), and once its
  /// encoding, for which the map's mutex is not held.
  protocol::PassPiece encode_pass(protocol::PassCursor& cursor, std::size_t budget, Bytes& out) override {
    for (;;) {
      std::unique_lock lock(mutex_);
      if (const auto piece = try_pass(cursor, budget, out, lock)) return *piece;
    }
  }

  /// Complexity: O(what the piece names), and for all pieces of a pass together some 32 times the changes that the log
  /// has in that range; values in parts as above.
  protocol::PassPiece encode_logged(protocol::PassCursor& cursor, std::size_t budget, Bytes& out) override {
    if (cursor.at_end) return protocol::PassPiece::finished;
    for (;;) {
      std::unique_lock lock(mutex_);
      if (const auto piece = try_logged(cursor, budget, out, lock)) return *piece;
    }
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

  bool encode_initial(protocol::InitialCursor& cursor, std::size_t budget, Bytes& out) const override {
    return initial_.encode_initial(cursor, budget, out);
  }

 private:
  static constexpr std::size_t most_snapshots = 4;
  static constexpr std::size_t most_seen_at_once = 65'536;  // keys

  /// The values that changed since the snapshot was pinned, as they were then.
  struct Snapshot final : protocol::PinnedSnapshot {
    using protocol::PinnedSnapshot::PinnedSnapshot;
    struct Kept {
      V value;
      UpdateId changed_at;
    };
    using KeptValues = std::unordered_map<std::uint32_t, Kept, NumberHash>;  // by ordinal
    KeptValues kept;
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

  /// Refuses values that no peer would take, and notes which ones go in parts.
  void check_sizes(const ChangeSet<V>& pending) {
    if constexpr (!is_byte_like<V>) large_pending_.clear();
    for (const auto& [ordinal, value] : pending) {
      const std::size_t size = whole_size(value);
      if (size > limits_.value_bytes) {
        throw StateError(StateErrc::too_large,
                         beyond_limit(of_bytes("a value", size), "value_bytes", limits_.value_bytes));
      }
      if constexpr (!is_byte_like<V>) {
        if (size > limits_.piece_bytes) large_pending_.push_back(ordinal);
        if constexpr (!is_flat<V>()) {
          // Few values are that large in memory: of those the encoding tells whether it may be decoded.
          if (owned_bytes(value) > most_decoded_bytes(0)) {
            Bytes scratch;
            encode_whole(value, scratch);
          }
        }
      }
    }
  }

  /// Commits where values go in parts, or some version of one was noted before.
  UpdateId commit_with_large(const ChangeSet<V>& pending) {
    const UpdateId next = map_.update_id() + 1;
    try {
      for (const std::uint32_t ordinal : large_pending_) large_.note(ordinal, next);
      for (const auto& change : pending) large_.supersede(change.first, next);
      head_ = MapAccess::commit_transaction(map_);
    } catch (...) {
      for (const std::uint32_t ordinal : large_pending_) large_.forget(ordinal, next);
      throw;
    }
    large_.sweep([this](std::uint32_t ordinal, UpdateId version) { return is_held(ordinal, version); });
    return head_;
  }

  /// True while the map, its log or a snapshot has this version of a value.
  [[nodiscard]] bool is_held(std::uint32_t ordinal, UpdateId version) const {
    if (MapAccess::changed_at(map_, ordinal) == version) return true;
    if (version > 0 && MapAccess::log(map_).reaches_back_to(version - 1)) return true;
    return std::any_of(snapshots_.begin(), snapshots_.end(), [&](const auto& weak) {
      const auto snapshot = weak.lock();
      if (!snapshot) return false;
      const auto kept = snapshot->kept.find(ordinal);
      return kept != snapshot->kept.end() && kept->second.changed_at == version;
    });
  }

  /// Values stay where they are while somebody encodes one without the mutex; who wants to begin meanwhile waits.
  void wait_for_encoders(std::unique_lock<std::mutex>& lock) {
    is_commit_waiting_ = true;
    encoders_changed_.wait(lock, [this] { return encoders_ == 0; });
    is_commit_waiting_ = false;
    encoders_changed_.notify_all();
  }

  void drop_dead_snapshots() {
    std::erase_if(snapshots_, [](const auto& weak) { return weak.expired(); });
  }

  void revoke_oldest_snapshot() {
    if (const auto oldest = snapshots_.front().lock()) {
      oldest->is_revoked = true;
      // Somebody may be encoding one of its values: it goes when that is done.
      if (encoders_ == 0) {
        oldest->kept.clear();
      } else {
        revoked_.push_back(std::move(oldest->kept));
        oldest->kept.clear();
      }
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
      } else if (large_.is_large(ordinal, MapAccess::changed_at(map_, ordinal))) {
        return merged_.fits = false;
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

  /// As `encode_pass`; nothing where values may have changed while the mutex was given up, and nothing was appended.
  std::optional<protocol::PassPiece> try_pass(protocol::PassCursor& cursor, std::size_t budget, Bytes& out,
                                              std::unique_lock<std::mutex>& lock) {
    const auto* snapshot = static_cast<const Snapshot*>(cursor.snapshot.get());
    if (snapshot != nullptr && snapshot->is_revoked) return protocol::PassPiece::lost;
    const std::size_t start = out.size();
    for (std::size_t seen = 0; seek_changed(cursor, seen); ++seen) {
      if (seen >= most_seen_at_once) {  // others want the mutex
        if (out.size() != start) return protocol::PassPiece::entries;
        return std::nullopt;
      }
      const std::uint32_t ordinal = cursor.ordinal;
      const auto [value, changed_at] = value_for(ordinal, snapshot);
      const bool is_named = changed_at > cursor.from && changed_at <= cursor.target;
      // A value whose first parts are out, and that changed since, comes again as a whole, later.
      if (is_named && (cursor.offset == 0 || cursor.value_changed_at == changed_at)) {
        cursor.value_changed_at = changed_at;
        bool is_again = false;
        const auto piece = append_piece(cursor, *value, start, budget, out, lock, is_again);
        if (is_again) return std::nullopt;
        if (piece) {
          if (cursor.ordinal != ordinal) leave(cursor);
          return *piece;
        }
      }
      cursor.ordinal = ordinal + 1;
      leave(cursor);
    }
    cursor.at_end = true;
    return out.size() == start ? protocol::PassPiece::finished : protocol::PassPiece::entries;
  }

  /// As `encode_logged`; nothing where the log may have changed, as above.
  std::optional<protocol::PassPiece> try_logged(protocol::PassCursor& cursor, std::size_t budget, Bytes& out,
                                                std::unique_lock<std::mutex>& lock) {
    const auto& log = MapAccess::log(map_);
    if (!log.reaches_back_to(cursor.from)) return protocol::PassPiece::lost;
    const auto range = log.range(cursor.from, cursor.target);
    const std::size_t start = out.size();
    while (seek_logged(cursor, range)) {
      const std::uint64_t place = range.begin + cursor.window.back();
      const std::uint32_t ordinal = log.ordinal_at(place);
      if (ordinal != cursor.ordinal) cursor.offset = 0;
      cursor.ordinal = ordinal;
      cursor.value_changed_at = is_byte_like<V> ? cursor.target : log.update_id_at(place);
      bool is_again = false;
      const auto piece = append_piece(cursor, log.value_at(place), start, budget, out, lock, is_again);
      if (is_again) return std::nullopt;
      if (piece) {
        if (cursor.ordinal != ordinal) leave(cursor);
        return *piece;
      }
      cursor.ordinal = ordinal + 1;
      leave(cursor);
    }
    cursor.at_end = true;
    return out.size() == start ? protocol::PassPiece::finished : protocol::PassPiece::entries;
  }

  /// Goes on from an ordinal that is done with.
  static void leave(protocol::PassCursor& cursor) {
    cursor.offset = 0;
    cursor.encoding.reset();
    if (!cursor.window.empty()) cursor.window.pop_back();
  }

  /// Sets the cursor's ordinal to the next one that may have changed since its start; false if there is none.
  ///
  /// Where few keys did, they are taken from the list of recent changes, some of the smallest ordinals at a time: a
  /// pass keeps no more than that. Else all keys are gone through: `seen` counts those that did not change, and the call
  /// ends, at such a key, when they are too many.
  bool seek_changed(protocol::PassCursor& cursor, std::size_t& seen) const {
    const std::uint32_t size = frozen().size();
    if (cursor.is_dense) {
      while (cursor.ordinal < size && MapAccess::changed_at(map_, cursor.ordinal) <= cursor.from &&
             seen < most_seen_at_once) {
        ++cursor.ordinal;
        ++seen;
      }
      return cursor.ordinal < size;
    }
    if (cursor.window.empty()) {
      if (cursor.is_last_window || cursor.ordinal >= size) return false;
      if (!fill_window(cursor)) return seek_changed(cursor, seen);
      if (cursor.window.empty()) return false;
    }
    if (cursor.ordinal != cursor.window.back()) cursor.offset = 0;
    cursor.ordinal = cursor.window.back();
    return true;
  }

  /// Fills the cursor's window with the ordinals that come next; false where too many keys changed, so that it is dense.
  bool fill_window(protocol::PassCursor& cursor) const {
    const std::size_t few = frozen().size() / 64;
    OrdinalWindow window(cursor.ordinal, window_size(few));
    std::size_t changed = 0;
    MapAccess::for_each_changed_since(map_, cursor.from, [&](std::uint32_t ordinal, const V&) {
      window.show(ordinal, ordinal);
      return ++changed <= few;
    });
    cursor.is_dense = changed > few;
    if (cursor.is_dense) return false;
    cursor.window = window.take();
    cursor.is_last_window = !window.has_more();
    return true;
  }

  /// Fills the cursor's window with places in the log, relative to the range; false if nothing is left.
  bool seek_logged(protocol::PassCursor& cursor, const typename DiffLog<V>::Range& range) const {
    if (cursor.window.empty() && !cursor.is_last_window) {
      const auto count = static_cast<std::size_t>(range.end - range.begin);
      OrdinalWindow window(cursor.ordinal, window_size(count));
      for (std::size_t i = 0; i < count; ++i) {
        window.show(MapAccess::log(map_).ordinal_at(range.begin + i), static_cast<std::uint32_t>(i));
      }
      cursor.window = window.take();
      cursor.is_last_window = !window.has_more();
    }
    return !cursor.window.empty();
  }

  /// Returns how many places a cursor holds at a time: a pass looks at all `changes` 32 times at most.
  static constexpr std::size_t window_size(std::size_t changes) {
    return std::max<std::size_t>(2'048, changes / 32);
  }

  /// Appends the entry at the cursor, or a part of its value; says what to return if the piece is full. Where the
  /// mutex was given up and the value may not be there any more, sets `is_again`, and has appended nothing.
  std::optional<protocol::PassPiece> append_piece(protocol::PassCursor& cursor, const V& value,
                                                  std::size_t start, std::size_t budget, Bytes& out,
                                                  std::unique_lock<std::mutex>& lock, bool& is_again) {
    const std::size_t entry_start = out.size();
    const bool has_entries = entry_start != start;
    if (cursor.offset == 0) {
      if constexpr (is_byte_like<V>) {
        if (content_view(value).size() <= budget) append_entry(cursor.ordinal, value, out);
      } else if (!large_.is_large(cursor.ordinal, cursor.value_changed_at)) {
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
    ByteView whole;
    if constexpr (is_byte_like<V>) {
      whole = content_view(value);
    } else {
      if (!find_encoding(cursor, value, lock)) {
        is_again = true;
        return std::nullopt;
      }
      whole = encoding_of(cursor).bytes;
    }
    append_value_part(cursor.ordinal, whole, cursor.offset, budget, out);
    cursor.offset += std::min<std::uint64_t>(budget, whole.size() - cursor.offset);
    if (cursor.offset == whole.size()) {
      cursor.offset = 0;
      ++cursor.ordinal;
    }
    return protocol::PassPiece::value_part;
  }

  static LargeValues::Encoding& encoding_of(const protocol::PassCursor& cursor) {
    return *static_cast<LargeValues::Encoding*>(cursor.encoding.get());
  }

  /// Sees to it that the cursor has the encoding of its value: its own, another stream's, or one made now, without the
  /// mutex. False if somebody else had to be waited for: then the map may have changed.
  bool find_encoding(protocol::PassCursor& cursor, const V& value, std::unique_lock<std::mutex>& lock) {
    const std::uint32_t ordinal = cursor.ordinal;
    const UpdateId version = cursor.value_changed_at;
    if (cursor.encoding) {
      const LargeValues::Encoding& own = encoding_of(cursor);
      if (own.ordinal != ordinal || own.version != version || own.is_revoked) cursor.encoding.reset();
    }
    if (!cursor.encoding) cursor.encoding = large_.find(ordinal, version);
    if (cursor.encoding) {
      const LargeValues::Encoding& known = encoding_of(cursor);
      if (known.is_ready) return true;
      encoders_changed_.wait(lock, [&] { return known.is_ready || known.is_revoked; });
      return false;
    }
    if (is_commit_waiting_) {
      encoders_changed_.wait(lock, [this] { return !is_commit_waiting_; });
      return false;
    }
    const std::shared_ptr<LargeValues::Encoding> fresh = large_.begin(ordinal, version);
    ++encoders_;
    lock.unlock();
    const auto finish = [&](bool is_good) {
      lock.lock();
      --encoders_;
      fresh->is_ready = is_good;
      if (!is_good) LargeValues::revoke(*fresh);
      if (encoders_ == 0) revoked_.clear();
      encoders_changed_.notify_all();
    };
    try {
      encode_whole(value, fresh->bytes);
    } catch (...) {
      finish(false);
      throw;
    }
    finish(true);
    cursor.encoding = fresh;
    return true;
  }

  Map map_;
  const Limits limits_;
  FrozenSource<K, V> initial_;
  mutable std::mutex
      mutex_;  // between commits and encoders; never held while user code runs, but codecs of small values
  std::atomic<Epoch> epoch_;
  std::atomic<UpdateId> head_;
  Merged merged_;
  std::vector<std::weak_ptr<Snapshot>> snapshots_;
  LargeValues large_;
  std::vector<std::uint32_t> large_pending_;  // of the open transaction: ordinals of values that go in parts
  std::size_t encoders_ = 0;  // who encode a value without the mutex: nothing is committed meanwhile
  bool is_commit_waiting_ = false;
  std::condition_variable encoders_changed_;
  std::vector<typename Snapshot::KeptValues>
      revoked_;  // values of revoked snapshots that may be in use by encoders
};

}  // namespace syncstate::detail

#endif
