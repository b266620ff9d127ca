// A diff: the changes that lead from one update id to another.
#ifndef SYNCSTATE_DIFF_HPP
#define SYNCSTATE_DIFF_HPP

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <utility>

#include "syncstate/codec/nesting.hpp"
#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/model/print.hpp"
#include "syncstate/detail/model/read_interface.hpp"
#include "syncstate/error.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

/// The changes that lead from one update id to another, within an epoch; every key at most once.
///
/// A full diff is relative to the initial state: a key it does not name has its initial value. It can be
/// applied anywhere.
/// Threads : like a standard container.
/// Lifetime: holds its values, and shares the keys with its map; independent of the map otherwise. A diff that was
///           moved from may only be assigned to or destroyed.
template <class K, class V>
class Diff {
 public:
  using const_iterator = detail::EntryIterator<Diff, K, V>;

  /// Pairs of key and value; valid as long as the diff, unchanged.
  class Changes {
   public:
    explicit Changes(const Diff& diff) : diff_(&diff) {}
    [[nodiscard]] const_iterator begin() const { return {diff_, 0}; }
    [[nodiscard]] const_iterator end() const { return {diff_, diff_->size()}; }
    [[nodiscard]] std::size_t size() const { return diff_->size(); }
    [[nodiscard]] bool empty() const { return diff_->is_empty(); }

   private:
    const Diff* diff_;
  };

  /// The same, together with a diff that would be gone otherwise.
  class OwnedChanges {
   public:
    explicit OwnedChanges(Diff&& diff) : diff_(std::move(diff)) {}
    [[nodiscard]] const_iterator begin() const { return {&diff_, 0}; }
    [[nodiscard]] const_iterator end() const { return {&diff_, diff_.size()}; }
    [[nodiscard]] std::size_t size() const { return diff_.size(); }
    [[nodiscard]] bool empty() const { return diff_.is_empty(); }

   private:
    Diff diff_;
  };

  /// A diff without changes yet, for the keys of `like`: what a `Remote` of your own fills with `set`.
  /// Errors: `unfrozen` if `like` is; `wrong_position` if `upto` lies before `from`.
  Diff(const StateMap<K, V>& like, Epoch epoch, UpdateId from, UpdateId upto, bool is_full = false)
      : Diff(detail::MapAccess::frozen(like), epoch, from, upto, is_full, detail::ChangeSet<V>()) {
    (void)like.frozen_ref();
    if (upto < from) throw StateError(StateErrc::wrong_position, "a diff can't lead backwards");
  }

  /// The full diff of a map: every key changed since the initial state.
  /// Errors: `unfrozen`.
  [[nodiscard]] static Diff full(const StateMap<K, V>& map) { return map.full_diff(); }

  /// Names one more change; for a key named already, the last value counts.
  /// Errors    : `key_not_found`; `too_large` for JSON nested too deep.
  /// Complexity: as `StateMap::set`.
  Diff& set(detail::KeyArg<K> key, V&& value) {
    const std::uint32_t ordinal = ordinal_for(key, value);
    changes_.set(ordinal, std::move(value));
    return *this;
  }
  Diff& set(detail::KeyArg<K> key, const V& value) {
    const std::uint32_t ordinal = ordinal_for(key, value);
    changes_.set(ordinal, value);
    return *this;
  }

  [[nodiscard]] Changes changes() const& { return Changes(*this); }
  [[nodiscard]] OwnedChanges changes() && { return OwnedChanges(std::move(*this)); }

  /// How many keys it names.
  [[nodiscard]] std::size_t size() const { return changes_.size(); }
  [[nodiscard]] bool is_empty() const { return changes_.empty(); }
  [[nodiscard]] Epoch epoch() const { return epoch_; }
  [[nodiscard]] UpdateId from_update_id() const { return from_; }
  [[nodiscard]] UpdateId upto_update_id() const { return upto_; }
  [[nodiscard]] bool is_full() const { return is_full_; }

  /// Makes this diff lead to where `next` leads. `next` begins within or at the end of this one, or is full.
  ///
  /// Errors    : `hash_mismatch` for another map's diff, `wrong_epoch` for another epoch's unless it is full,
  ///             `wrong_position` if there is a gap; this diff is unchanged then.
  /// Complexity: O(next.size()).
  Diff& merge(const Diff& next) {
    if (!detail::is_same_map(frozen_, next.frozen_)) {
      throw StateError(StateErrc::hash_mismatch, "the diff is of another map");
    }
    if (next.epoch_ != epoch_ && !next.is_full_) throw StateError(StateErrc::wrong_epoch);
    if (next.epoch_ == epoch_) {
      if (!next.is_full_ && next.from_ > upto_) throw StateError(StateErrc::wrong_position);
      if (next.upto_ <= upto_) return *this;  // nothing in it is newer than what is here
    }
    detail::ChangeSet<V> newer = next.changes_;
    if (next.is_full_) {
      changes_ = std::move(newer);
      epoch_ = next.epoch_;
      from_ = next.from_;
      is_full_ = true;
    } else {
      changes_.absorb(std::move(newer));
    }
    upto_ = next.upto_;
    return *this;
  }

  /// Puts the changes in ascending order of their keys.
  Diff& compress() {
    changes_.sort();
    return *this;
  }

  /// `diff 3..5 {key: value}`
  template <class Traits>
    requires(detail::Printable<K> && detail::Printable<V>)
  friend std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                                      const Diff& diff) {
    out << (diff.is_full_ ? "full diff " : "diff ") << diff.from_ << ".." << diff.upto_ << " ";
    detail::print_entries(out, diff.changes());
    return out;
  }

 private:
  friend const_iterator;
  friend struct detail::MapAccess;

  Diff(std::shared_ptr<const detail::FrozenState<K, V>> frozen, Epoch epoch, UpdateId from, UpdateId upto,
       bool is_full, detail::ChangeSet<V>&& changes)
      : frozen_(std::move(frozen)),
        epoch_(epoch),
        from_(from),
        upto_(upto),
        is_full_(is_full),
        changes_(std::move(changes)) {}

  /// Returns the ordinal of a key that `value` is to be set for, before the value is moved or copied.
  /// Errors: as `set`.
  [[nodiscard]] std::uint32_t ordinal_for(detail::KeyArg<K> key, const V& value) const {
    const std::uint32_t ordinal = frozen_->find(key);
    if (ordinal == detail::FrozenState<K, V>::npos) throw StateError(StateErrc::key_not_found);
    detail::check_nesting(value);
    return ordinal;
  }

  [[nodiscard]] std::pair<const K&, const V&> entry_ref(std::size_t i) const {
    const auto& change = changes_[i];
    return {frozen_->key(change.first), change.second};
  }

  std::shared_ptr<const detail::FrozenState<K, V>> frozen_;
  Epoch epoch_;
  UpdateId from_;
  UpdateId upto_;
  bool is_full_;
  detail::ChangeSet<V> changes_;
};

}  // namespace syncstate

#endif
