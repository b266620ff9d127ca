// The map: a closed set of keys with values that the master changes and replicas follow.
#ifndef SYNCSTATE_STATE_MAP_HPP
#define SYNCSTATE_STATE_MAP_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/codec/nesting.hpp"
#include "syncstate/concepts.hpp"
#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/diff_log.hpp"
#include "syncstate/detail/model/diff_verdict.hpp"
#include "syncstate/detail/model/entry_draft.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/model/print.hpp"
#include "syncstate/detail/model/random.hpp"
#include "syncstate/detail/model/read_interface.hpp"
#include "syncstate/detail/model/recency_list.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/error.hpp"
#include "syncstate/modification.hpp"
#include "syncstate/remote.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

/// How much a map remembers besides its state. The log ends at whichever bound is met first.
struct MapOptions {
  /// Diffs kept one by one, for `diff(from, upto)` below the head and for replicas that want every step; 0
  /// keeps none.
  std::size_t log_diffs = 4'096;
  /// What these diffs may take together, in bytes of memory: what their values hold (`memory_bytes`) counts, not their
  /// encodings. A diff that is larger by itself empties the log.
  std::uint64_t log_bytes = std::uint64_t{16} << 20;
};

/// A map whose keys are added with `push` until `freeze`, and whose values change by numbered commits ever
/// after.
///
/// `StateMap(Role::master)` is the one copy that may be changed; `StateMap(remote)` is a replica, which
/// `sync` and `set_update_id` move along when the user says so: nothing happens in the background. Inside a
/// hook the map is an open transaction: reading shows what was set so far, and `update_id()` does not move.
///
/// Threads : like a standard container; distinct maps are independent, a shared one needs the caller's lock.
/// Lifetime: keys and values are copied in; what `get` points at lasts until the map next changes. A map that
///           was moved from may only be assigned to or destroyed. Moving out of an open transaction leaves the
///           source as it is and gives a map without a state.
/// Errors  : a member that throws has changed nothing.
template <class K, class V>
class StateMap : public detail::ReadInterface<StateMap<K, V>, K, V> {
  static_assert(detail::ExplainKey<K>::is_done);
  static_assert(detail::ExplainValue<V>::is_done);

  using FrozenState = detail::FrozenState<K, V>;
  using Key = detail::KeyArg<K>;

 public:
  using key_type = K;
  using mapped_type = V;

  /// A map without any network: a master, or a replica that is moved by `apply` alone.
  explicit StateMap(Role role, MapOptions options = {})
      : role_(role), options_(options), log_(options.log_diffs, options.log_bytes) {}

  /// A replica of what `remote` knows.
  /// Errors: `invalid_option` if `remote` is null.
  template <class R>
    requires Remote<R, K, V>
  StateMap(std::shared_ptr<R> remote, MapOptions options = {}) : StateMap(Role::replica, options) {
    remote_ = detail::make_any_remote<K, V>(std::move(remote));
  }

  /// The copy of a replica keeps its position and its remote; the copy of a master is a master with a fresh
  /// epoch. What an open transaction has set is not copied.
  /// Errors: `in_transaction` if `other` was moved out of an open transaction.
  StateMap(const StateMap& other)
      : detail::ReadInterface<StateMap, K, V>(other),
        role_(other.role_),
        options_(other.options_),
        remote_(other.remote_),
        draft_(other.draft_),
        frozen_(other.frozen_),
        values_(other.values_),
        recency_(other.recency_),
        log_(other.log_),
        epoch_(other.role_ == Role::master && other.frozen_ != nullptr ? detail::random_nonzero_u64()
                                                                       : other.epoch_),
        update_id_(other.update_id_) {
    other.require_state();
  }

  /// Takes everything, so that a standard container that grows moves its maps and every master keeps its epoch.
  ///
  /// An open transaction stays what and where it is, because the code that commits it refers to `other`. The new map
  /// then has no state: every member but the destructor and assignment throws `in_transaction`.
  StateMap(StateMap&& other) noexcept
      : detail::ReadInterface<StateMap, K, V>(),
        role_(other.role_),
        has_no_state_(other.has_no_state_ || other.transaction_ != nullptr),
        options_(other.options_),
        draft_(std::move(other.draft_)),  // of an open transaction it is empty
        log_(other.options_.log_diffs, other.options_.log_bytes) {
    if (!has_no_state_) take_all_but_draft(other);
  }

  /// Errors: `in_transaction`.
  StateMap& operator=(const StateMap& other) {
    if (transaction_ != nullptr) throw StateError(StateErrc::in_transaction);
    if (this != &other) {
      StateMap copy(other);
      take(copy);
    }
    return *this;
  }

  /// Errors: `in_transaction`, for either map.
  StateMap& operator=(StateMap&& other) {
    if (transaction_ != nullptr) throw StateError(StateErrc::in_transaction);
    other.require_no_transaction();
    if (this != &other) take(other);
    return *this;
  }

  ~StateMap() = default;

  /// Adds a key with its initial value.
  /// Errors    : `frozen` after `freeze`, `duplicate_key`, `too_large` beyond 2^32 - 2 keys, or for JSON nested too
  ///             deep.
  /// Complexity: O(1) on average; for JSON as `set`.
  void push(K key, V&& initial_value) {
    require_pushable(initial_value);
    draft_.push(std::move(key), std::move(initial_value));
  }
  void push(K key, const V& initial_value) {
    require_pushable(initial_value);
    draft_.push(std::move(key), initial_value);
  }

  /// Closes the key set, then waits until the remote, if there is one, knows the map; zero only closes it. On
  /// a frozen map it only waits.
  ///
  /// Errors    : `in_transaction`; whatever the remote throws (`unavailable`, `unauthorized`, `init_failed`,
  ///             ...): the map is frozen and readable all the same.
  /// Complexity: O(n log n), or O(n) if the keys were pushed in ascending order.
  void freeze(Duration timeout = std::chrono::seconds(5)) {
    require_no_transaction();
    if (frozen_ == nullptr) {
      draft_.sort();
      detail::DenseArray<V> values = draft_.values();
      const Epoch epoch = first_epoch();
      frozen_ = FrozenState::make(draft_);
      values_ = std::move(values);
      epoch_ = epoch;
      // What a server is told when the map is opened: known by then, so that a replica is not kept waiting for it.
      if (remote_ != nullptr) (void)frozen_->keys_hash();
    }
    if (remote_ != nullptr && timeout > Duration::zero()) remote_->init(*this, timeout);
  }

  [[nodiscard]] bool is_frozen() const {
    if (frozen_ == nullptr) require_state();
    return frozen_ != nullptr;
  }

  /// The life of the master this state belongs to; 0 before a replica heard of one, and before `freeze`.
  [[nodiscard]] Epoch epoch() const {
    require_state();
    return epoch_;
  }

  /// How many commits this state holds.
  [[nodiscard]] UpdateId update_id() const {
    require_state();
    return update_id_;
  }

  /// The epoch and the update id; in an open transaction, those of the state that it began with.
  [[nodiscard]] Position position() const {
    require_state();
    return Position{epoch_, update_id_};
  }

  /// The key's value, or null if there is no such key. Works before `freeze` too.
  [[nodiscard]] const V* get(Key key) const {
    if (frozen_ == nullptr) [[unlikely]] {
      require_state();
      const std::uint32_t at = draft_.find(key);
      return at == FrozenState::npos ? nullptr : &draft_.values()[at];
    }
    const std::uint32_t ordinal = frozen_->find(key);
    return ordinal == FrozenState::npos ? nullptr : &value_ref(ordinal);
  }

  /// Works before `freeze` too.
  [[nodiscard]] bool contains(Key key) const { return get(key) != nullptr; }

  /// Works before `freeze` too.
  [[nodiscard]] std::size_t size() const {
    if (frozen_ != nullptr) [[likely]]
      return frozen_->size();
    require_state();
    return draft_.size();
  }

  /// Changes one value: a commit of its own, or part of the open transaction. Returns the map's update id
  /// then.
  ///
  /// Setting an equal value is a change.
  /// Errors    : `unfrozen` before `freeze`, `frozen` on a replica, `key_not_found`, `too_large` for JSON nested too
  ///             deep.
  /// Complexity: O(1). For a V that is JSON, its depth is looked at: O(parts of the JSON). A V that has JSON among its
  ///             parts is encoded once more for that: O(bytes of its encoding).
  UpdateId set(Key key, V&& value) { return set_at(writable_ordinal(key), std::move(value)); }
  UpdateId set(Key key, const V& value) { return set_at(writable_ordinal(key), value); }

  /// Changes several values by one commit: `begin_modification().set(...).set(...).commit()`.
  /// Errors: `unfrozen` before `freeze`, `frozen` on a replica.
  [[nodiscard]] Modification<K, V> begin_modification() {
    require_writable();
    return Modification<K, V>(*this, frozen_);
  }

  /// Moves a replica on to `id`, if it is not there yet, by one request. Ends at the head if that is below
  /// `id`, or if the master keeps `id` no longer apart. On a master nothing happens. Returns the update id
  /// reached.
  /// Errors: `unfrozen`, `in_transaction`; what the remote throws, `unavailable` above all.
  UpdateId set_update_id(UpdateId id) {
    (void)this->frozen_ref();
    require_no_transaction();
    if (role_ == Role::replica && remote_ != nullptr && update_id_ < id) {
      apply(remote_->fetch_updates(std::as_const(*this), id));
    }
    return update_id_;
  }

  /// Moves a replica on to `at`, the position that `send_event` or `modify` returned: reading afterwards shows that
  /// write.
  ///
  /// As above, but a state of another epoch never counts as one that holds the write: if the map is in another epoch,
  /// or its master was restarted, one request is made, and the map must be in the epoch of `at` afterwards.
  /// Errors: as above; `epoch_changed` if the master is not in that epoch, or nothing brings the map there. Then the
  ///         map is unchanged; `sync` moves it to the master's own epoch.
  UpdateId set_update_id(Position at) {
    (void)this->frozen_ref();
    require_no_transaction();
    const bool is_own_epoch = epoch_ == at.epoch;
    if (is_own_epoch && update_id_ >= at.update_id) return update_id_;
    if (role_ == Role::replica && remote_ != nullptr) {
      // A remote counts from where the map is. In another epoch than the map's a number means nothing to it, so it is
      // asked for the head.
      const bool is_fresh = epoch_ == 0 && update_id_ == 0;
      const UpdateId upto = is_own_epoch || is_fresh ? at.update_id : ~UpdateId{0};
      const Diff<K, V> diff = remote_->fetch_updates(std::as_const(*this), upto);
      if (diff.epoch() != at.epoch) throw_epoch_changed(at, diff.epoch());
      apply(diff);
    } else if (!is_own_epoch) {
      throw_epoch_changed(at, epoch_);
    }
    return update_id_;
  }

  /// Moves a replica on to the head, by one request. Returns the update id reached.
  /// Errors: as `set_update_id` with an update id.
  UpdateId sync() { return set_update_id(~UpdateId{0}); }

  /// Applies all of a diff, or nothing. Returns whether the map has moved.
  ///
  /// A diff of the map's own epoch must begin at or before the map's update id, unless it is full. If it also ends
  /// there, it changes nothing. A map at its initial state with epoch 0 takes any epoch, if the diff begins there or
  /// is full. A diff of another epoch must be full; then every key that it does not name has its initial value
  /// again. A diff that names changes and ends at update id 0 is refused. A master takes nothing that would change
  /// it. A `Replica` takes and refuses the same diffs.
  ///
  /// Errors    : `unfrozen`; `in_transaction`; `hash_mismatch` for another map's diff; `wrong_position`;
  ///             `wrong_epoch` for another epoch's diff that is not full, or on a master; `epoch_changed` for
  ///             one that is full under `EpochPolicy::hold`; `frozen` on a master that the diff would move.
  /// Complexity: O(diff.size()); for a full diff also O(keys changed since the initial state).
  bool apply(const Diff<K, V>& diff, EpochPolicy policy = EpochPolicy::accept) {
    (void)this->frozen_ref();
    require_no_transaction();
    if (!detail::is_same_map(frozen_, detail::MapAccess::frozen(diff))) {
      throw StateError(StateErrc::hash_mismatch, "the diff is of another map");
    }
    if (role_ == Role::master && diff.epoch() != epoch_) {
      throw StateError(StateErrc::wrong_epoch, "a master takes no diffs");
    }
    const detail::DiffVerdict verdict = detail::judge(diff, Position{epoch_, update_id_}, policy);
    if (verdict.effect == detail::DiffEffect::refused) {
      throw StateError(verdict.error, verdict.detail != nullptr ? verdict.detail : "");
    }
    if (verdict.effect == detail::DiffEffect::none) return false;
    if (role_ == Role::master) throw StateError(StateErrc::frozen, "a master takes no diffs");

    detail::ChangeSet<V> changes = detail::MapAccess::diff_ordinals(diff);
    const std::size_t named = changes.size();
    if (diff.is_full()) {
      for (std::uint32_t at = recency_.newest(); at != detail::RecencyList::npos; at = recency_.older(at)) {
        if (changes.find(at) == nullptr) changes.set(at, frozen_->initial(at));
      }
    }
    if (verdict.effect == detail::DiffEffect::starts_over) {
      start_over(changes, named, diff.upto_update_id());
    } else {
      install(changes, diff.upto_update_id());
    }
    epoch_ = diff.epoch();
    return true;
  }

  /// The changes that lead from `from` to `upto`, or to the head where `upto` lies beyond it or the log no
  /// longer reaches back to `from`. In ascending order of the keys; empty if `upto <= from`.
  ///
  /// Errors    : `unfrozen`; `wrong_position` if `from` is beyond the head.
  /// Complexity: O(m log m) for m keys changed since `from`, however old it is and however many keys there
  /// are; below the head, m changes in the log.
  /// Source    : docs/design.md, the recency list.
  [[nodiscard]] Diff<K, V> diff(UpdateId from, UpdateId upto) const {
    (void)this->frozen_ref();
    if (from > update_id_)
      throw StateError(StateErrc::wrong_position, "the diff would start beyond the head");
    detail::ChangeSet<V> changes;
    UpdateId reached = from;
    if (upto > from && upto < update_id_ && log_.reaches_back_to(from)) {
      reached = log_.for_each_between(
          from, upto, [&](std::uint32_t ordinal, const V& value) { changes.set(ordinal, value); });
      changes.sort();
    } else if (upto > from) {
      changes = changed_since(from);
      reached = update_id_;
    }
    return detail::MapAccess::make_diff(frozen_, epoch_, from, reached, false, std::move(changes));
  }

  /// `{first: 1, second: 2}`
  template <class Traits>
    requires(detail::Printable<K> && detail::Printable<V>)
  friend std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                                      const StateMap& map) {
    detail::print_entries(out, map);
    return out;
  }

 private:
  friend detail::ReadInterface<StateMap, K, V>;
  friend class Modification<K, V>;
  friend class Diff<K, V>;
  friend struct detail::MapAccess;

  [[nodiscard]] const FrozenState& frozen_ref() const {
    if (frozen_ == nullptr) [[unlikely]] {
      require_state();
      throw StateError(StateErrc::unfrozen);
    }
    return *frozen_;
  }

  [[nodiscard]] const V& value_ref(std::uint32_t ordinal) const {
    if (transaction_ != nullptr) [[unlikely]] {
      if (const V* const pending = transaction_->find(ordinal); pending != nullptr) return *pending;
    }
    return values_[ordinal];
  }

  /// Errors: `in_transaction` if this map was moved out of an open transaction.
  void require_state() const {
    if (has_no_state_) [[unlikely]]
      throw StateError(StateErrc::in_transaction,
                       "this map was moved out of an open transaction, so it has no state");
  }

  void require_no_transaction() const {
    if (transaction_ != nullptr) throw StateError(StateErrc::in_transaction);
    require_state();
  }

  [[noreturn]] static void throw_epoch_changed(Position wanted, Epoch found) {
    throw StateError(StateErrc::epoch_changed, "the position is of epoch " + std::to_string(wanted.epoch) +
                                                   ", but the map is in epoch " + std::to_string(found) +
                                                   " at its master: read its state anew with sync");
  }

  void require_writable() const {
    (void)frozen_ref();
    if (role_ != Role::master)
      throw StateError(StateErrc::frozen, "a replica is changed by its master alone");
  }

  [[nodiscard]] std::uint32_t writable_ordinal(Key key) const {
    require_writable();
    const std::uint32_t ordinal = frozen_->find(key);
    if (ordinal == FrozenState::npos) throw StateError(StateErrc::key_not_found);
    return ordinal;
  }

  [[nodiscard]] Epoch first_epoch() const { return role_ == Role::master ? detail::random_nonzero_u64() : 0; }

  void adopt(std::shared_ptr<const FrozenState> frozen) {
    values_ = frozen->initial_values();
    epoch_ = first_epoch();
    frozen_ = std::move(frozen);
  }

  void take(StateMap& other) noexcept {
    draft_ = std::move(other.draft_);
    take_all_but_draft(other);
  }

  void take_all_but_draft(StateMap& other) noexcept {
    role_ = other.role_;
    has_no_state_ = false;
    options_ = other.options_;
    remote_ = std::move(other.remote_);
    frozen_ = std::move(other.frozen_);
    values_ = std::move(other.values_);
    recency_ = std::move(other.recency_);
    log_ = std::move(other.log_);
    epoch_ = other.epoch_;
    update_id_ = other.update_id_;
  }

  void become_master() {
    (void)frozen_ref();
    require_no_transaction();
    if (role_ == Role::master) return;
    epoch_ = detail::random_nonzero_u64();
    role_ = Role::master;
    remote_.reset();
  }

  void renew_epoch() {
    require_no_transaction();
    epoch_ = detail::random_nonzero_u64();
  }

  void begin_transaction() {
    require_writable();
    require_no_transaction();
    if (spare_ == nullptr) spare_ = std::make_unique<detail::ChangeSet<V>>();
    transaction_ = std::move(spare_);
  }

  UpdateId commit_transaction() {
    if (!transaction_->empty()) install(*transaction_, update_id_ + 1);
    end_transaction();
    return update_id_;
  }

  /// Whatever it has set and was not committed is lost.
  void end_transaction() noexcept {
    constexpr std::size_t most_kept = 64;  // keys: the memory of a larger one is given back
    if (transaction_ == nullptr) return;
    transaction_->clear();
    if (transaction_->capacity() <= most_kept) spare_ = std::move(transaction_);
    transaction_.reset();
  }

  UpdateId commit(const std::shared_ptr<const FrozenState>& frozen, detail::ChangeSet<V>& changes) {
    require_writable();
    if (!detail::is_same_map(frozen_, frozen)) {
      throw StateError(StateErrc::hash_mismatch, "the modification is of another map");
    }
    if (transaction_ != nullptr) {
      transaction_->absorb(std::move(changes));
    } else if (!changes.empty()) {
      install(changes, update_id_ + 1);
      changes.clear();
    }
    return update_id_;
  }

  /// Errors: as `push`, except `duplicate_key`.
  void require_pushable(const V& initial_value) const {
    if (frozen_ != nullptr) throw StateError(StateErrc::frozen);
    require_state();
    detail::check_nesting(initial_value);
  }

  // What a logged value counts: the memory that it holds. The value itself lies in the log's change.
  [[nodiscard]] static std::size_t logged_bytes(const V& value) {
    return detail::DiffLog<V>::change_overhead_bytes + detail::owned_bytes(value);
  }

  // The three that follow do everything that may throw first; only then do they touch the state.

  template <class Value>
  UpdateId set_at(std::uint32_t ordinal, Value&& value) {
    detail::check_nesting<V>(value);
    if (transaction_ != nullptr) {
      transaction_->set(ordinal, std::forward<Value>(value));
    } else {
      commit_one(ordinal, std::forward<Value>(value));
    }
    return update_id_;
  }

  void commit_one(std::uint32_t ordinal, V&& value) {
    log_one(ordinal, value);
    values_[ordinal] = std::move(value);
    finish_one(ordinal);
  }

  void commit_one(std::uint32_t ordinal, const V& value) {
    if constexpr (std::is_nothrow_copy_assignable_v<V>) {
      log_one(ordinal, value);
      values_[ordinal] = value;
      finish_one(ordinal);
    } else if constexpr (detail::HasCapacity<V>) {
      // Where bytes fit into what is there, and do not leave most of it empty, copying them can't fail.
      const std::size_t room = values_[ordinal].capacity();
      if (value.size() > room || value.size() + 64 < room / 2) return commit_one(ordinal, V(value));
      log_one(ordinal, value);
      values_[ordinal] = value;
      finish_one(ordinal);
    } else {
      commit_one(ordinal, V(value));
    }
  }

  void log_one(std::uint32_t ordinal, const V& value) {
    recency_.prepare(frozen_->size());
    const std::size_t bytes = log_overhead_bytes + logged_bytes(value);
    if (log_.takes(bytes)) {
      const std::pair<std::uint32_t, const V&> change(ordinal, value);
      log_.append(update_id_, update_id_ + 1, bytes, std::span(&change, 1));
    } else {
      log_.clear();
    }
  }

  void finish_one(std::uint32_t ordinal) noexcept {
    ++update_id_;
    recency_.touch(ordinal, update_id_);
  }

  void install(detail::ChangeSet<V>& changes, UpdateId upto) {
    recency_.prepare(frozen_->size());
    std::size_t bytes = log_overhead_bytes;
    for (const auto& change : std::as_const(changes)) bytes += logged_bytes(change.second);
    if (log_.takes(bytes)) {
      log_.append(update_id_, upto, bytes, std::as_const(changes));
    } else {
      log_.clear();
    }
    for (auto& change : changes) {
      values_[change.first] = std::move(change.second);
      recency_.touch(change.first, upto);
    }
    update_id_ = upto;
  }

  // Another history: only the first `named` changes have happened in it, the rest falls back to the initial
  // state.
  void start_over(detail::ChangeSet<V>& changes, std::size_t named, UpdateId upto) {
    recency_.prepare(frozen_->size());
    log_.clear();
    recency_.clear();
    for (auto& change : changes) {
      values_[change.first] = std::move(change.second);
      if (named > 0) {
        recency_.touch(change.first, upto);
        --named;
      }
    }
    update_id_ = upto;
  }

  [[nodiscard]] detail::ChangeSet<V> changed_since(UpdateId from) const {
    // The list is in no order that memory likes. Of what is not much less than the map, the map itself is the
    // quicker index, and still no more than some times the answer.
    const std::size_t many = frozen_->size() / 16;
    std::vector<std::uint32_t> ordinals;
    detail::MapAccess::for_each_changed_since(*this, from, [&](std::uint32_t ordinal, const V&) {
      ordinals.push_back(ordinal);
      return ordinals.size() <= many;
    });
    detail::ChangeSet<V> changes;
    if (ordinals.size() > many) {
      changes.reserve(recency_.size());
      for (std::uint32_t ordinal = 0; ordinal < frozen_->size(); ++ordinal) {
        if (recency_.changed_at(ordinal) > from) changes.append(ordinal, values_[ordinal]);
      }
    } else {
      std::sort(ordinals.begin(), ordinals.end());
      changes.reserve(ordinals.size());
      for (const std::uint32_t ordinal : ordinals) changes.append(ordinal, values_[ordinal]);
    }
    return changes;
  }

  [[nodiscard]] Diff<K, V> full_diff() const {
    (void)frozen_ref();
    return detail::MapAccess::make_diff(frozen_, epoch_, 0, update_id_, true, changed_since(0));
  }

  static constexpr std::size_t log_overhead_bytes = detail::DiffLog<V>::entry_overhead_bytes;

  Role role_;
  bool has_no_state_ = false;  // made by a move out of an open transaction, and not assigned to since
  MapOptions options_;
  std::shared_ptr<detail::AnyRemote<K, V>> remote_;
  detail::EntryDraft<K, V> draft_;  // empty once frozen
  std::shared_ptr<const FrozenState> frozen_;
  detail::DenseArray<V> values_;  // by ordinal; as committed, whatever an open transaction has set
  detail::RecencyList recency_;
  detail::DiffLog<V> log_;
  Epoch epoch_ = 0;
  UpdateId update_id_ = 0;
  std::unique_ptr<detail::ChangeSet<V>> transaction_;
  std::unique_ptr<detail::ChangeSet<V>> spare_;  // empty: room for the next transaction
};

}  // namespace syncstate

#endif
