// The internal door to maps and diffs, for the server core and the replica.
#ifndef SYNCSTATE_DETAIL_MODEL_MAP_ACCESS_HPP
#define SYNCSTATE_DETAIL_MODEL_MAP_ACCESS_HPP

#include <cstdint>
#include <memory>
#include <utility>

#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/diff_log.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/model/recency_list.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

template <class K, class V>
class StateMap;
template <class K, class V>
class Diff;

namespace detail {

template <class K, class V>
class AnyRemote;

/// Reaches what `StateMap` and `Diff` keep to themselves.
///
/// Threads: `value`, `changed_at`, `for_each_changed_since`, `log`, copying the map and `update_id()`
/// read the committed state only. Other threads may use them while one thread has a transaction open; whoever
/// commits excludes them for as long as `commit_transaction` takes.
struct MapAccess {
  /// Null before `freeze`.
  template <class K, class V>
  [[nodiscard]] static const std::shared_ptr<const FrozenState<K, V>>& frozen(const StateMap<K, V>& map) {
    return map.frozen_;
  }

  /// A frozen map at its initial state; a master has a fresh epoch, a replica none yet.
  template <class K, class V, class... MapOptions>
  [[nodiscard]] static StateMap<K, V> make_map(Role role, std::shared_ptr<const FrozenState<K, V>> frozen,
                                               std::shared_ptr<AnyRemote<K, V>> remote,
                                               const MapOptions&... options) {
    StateMap<K, V> map(role, options...);
    map.remote_ = std::move(remote);
    map.adopt(std::move(frozen));
    return map;
  }

  /// Null if there is none.
  template <class K, class V>
  [[nodiscard]] static const std::shared_ptr<AnyRemote<K, V>>& remote(const StateMap<K, V>& map) {
    return map.remote_;
  }

  template <class K, class V>
  [[nodiscard]] static Role role(const StateMap<K, V>& map) {
    return map.role_;
  }

  /// The committed value.
  template <class K, class V>
  [[nodiscard]] static const V& value(const StateMap<K, V>& map, std::uint32_t ordinal) {
    return map.values_[ordinal];
  }

  /// All committed values, by ordinal.
  template <class K, class V>
  [[nodiscard]] static const DenseArray<V>& values(const StateMap<K, V>& map) {
    return map.values_;
  }
  /// Leaves a map that still knows what and where it is, and has nothing that could be read.
  template <class K, class V>
  [[nodiscard]] static DenseArray<V> take_values(StateMap<K, V>& map) {
    return std::exchange(map.values_, {});
  }

  /// The update id that changed the key last; 0 if it was never changed.
  template <class K, class V>
  [[nodiscard]] static UpdateId changed_at(const StateMap<K, V>& map, std::uint32_t ordinal) {
    return map.recency_.changed_at(ordinal);
  }

  /// Calls `f(ordinal, value)` for every key changed after `from`, the newest first, until it returns false.
  /// Complexity: O(keys visited).
  template <class K, class V, class F>
  static void for_each_changed_since(const StateMap<K, V>& map, UpdateId from, F f) {
    const RecencyList& recency = map.recency_;
    for (std::uint32_t at = recency.newest(); at != RecencyList::npos; at = recency.older(at)) {
      if (recency.changed_at(at) <= from || !f(at, std::as_const(map).values_[at])) return;
    }
  }

  /// The diffs kept one by one; as old as the map's last change.
  template <class K, class V>
  [[nodiscard]] static const DiffLog<V>& log(const StateMap<K, V>& map) {
    return map.log_;
  }

  template <class K, class V>
  static void begin_transaction(StateMap<K, V>& map) {
    map.begin_transaction();
  }
  /// What the open transaction has set so far.
  template <class K, class V>
  [[nodiscard]] static const ChangeSet<V>& pending(const StateMap<K, V>& map) {
    return *map.transaction_;
  }
  /// Returns the new update id, or the old one if nothing was set. On an exception the transaction is still
  /// open.
  template <class K, class V>
  static UpdateId commit_transaction(StateMap<K, V>& map) {
    return map.commit_transaction();
  }
  template <class K, class V>
  static void rollback_transaction(StateMap<K, V>& map) noexcept {
    map.end_transaction();
  }
  template <class K, class V>
  [[nodiscard]] static bool in_transaction(const StateMap<K, V>& map) {
    return map.transaction_ != nullptr;
  }

  /// Makes a frozen map a master: of a fresh epoch, and without a remote, if it was a replica.
  template <class K, class V>
  static void become_master(StateMap<K, V>& map) {
    map.become_master();
  }

  /// Begins another life of a frozen master, with the state that it has.
  template <class K, class V>
  static void renew_epoch(StateMap<K, V>& map) {
    map.renew_epoch();
  }

  template <class K, class V>
  [[nodiscard]] static const std::shared_ptr<const FrozenState<K, V>>& frozen(const Diff<K, V>& diff) {
    return diff.frozen_;
  }
  /// The changes of a diff by ordinal, in no particular order.
  template <class K, class V>
  [[nodiscard]] static const ChangeSet<V>& diff_ordinals(const Diff<K, V>& diff) {
    return diff.changes_;
  }
  template <class K, class V>
  [[nodiscard]] static ChangeSet<V>& diff_ordinals(Diff<K, V>& diff) {
    return diff.changes_;
  }
  template <class K, class V>
  [[nodiscard]] static Diff<K, V> make_diff(std::shared_ptr<const FrozenState<K, V>> frozen, Epoch epoch,
                                            UpdateId from, UpdateId upto, bool is_full,
                                            ChangeSet<V>&& changes) {
    return Diff<K, V>(std::move(frozen), epoch, from, upto, is_full, std::move(changes));
  }
};

}  // namespace detail
}  // namespace syncstate

#endif
