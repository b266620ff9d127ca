// A modification: several values changed by one commit.
#ifndef SYNCSTATE_MODIFICATION_HPP
#define SYNCSTATE_MODIFICATION_HPP

#include <cstdint>
#include <memory>
#include <utility>

#include "syncstate/codec/nesting.hpp"
#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/model/key_order.hpp"
#include "syncstate/error.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

template <class K, class V>
class StateMap;

/// Collects changes to a master's map, which shows none of them before `commit`. Destroyed without it, it
/// changes nothing.
///
/// Lifetime: the map must outlive it and stay where it is. A modification that was moved from may only be assigned
///           to or destroyed.
/// Threads : as the map.
template <class K, class V>
class Modification {
 public:
  Modification(const Modification&) = delete;
  Modification& operator=(const Modification&) = delete;
  Modification(Modification&&) noexcept = default;
  Modification& operator=(Modification&&) noexcept = default;
  ~Modification() = default;

  /// Sets a value; for a key set before, the last one counts.
  /// Errors    : `key_not_found`; `too_large` for JSON nested too deep.
  /// Complexity: as `StateMap::set`.
  Modification& set(detail::KeyArg<K> key, V&& value) & {
    const std::uint32_t ordinal = ordinal_for(key, value);
    changes_.set(ordinal, std::move(value));
    return *this;
  }
  Modification& set(detail::KeyArg<K> key, const V& value) & {
    const std::uint32_t ordinal = ordinal_for(key, value);
    changes_.set(ordinal, value);
    return *this;
  }
  Modification&& set(detail::KeyArg<K> key, V&& value) && { return std::move(set(key, std::move(value))); }
  Modification&& set(detail::KeyArg<K> key, const V& value) && { return std::move(set(key, value)); }

  /// The value as it will be: what was set here, else what the map has; null for an unknown key.
  [[nodiscard]] const V* get(detail::KeyArg<K> key) const {
    const std::uint32_t ordinal = frozen_->find(key);
    if (ordinal == detail::FrozenState<K, V>::npos) return nullptr;
    const V* const own = changes_.find(ordinal);
    return own != nullptr ? own : map_->get(key);
  }

  /// Makes one commit of everything set, or joins the open transaction. Returns the update id of the map,
  /// which has not moved if nothing was set. The modification is empty afterwards and may be used again.
  /// Errors: `hash_mismatch` if another map was assigned to this one meanwhile.
  UpdateId commit() { return map_->commit(frozen_, changes_); }

 private:
  friend class StateMap<K, V>;

  Modification(StateMap<K, V>& map, std::shared_ptr<const detail::FrozenState<K, V>> frozen)
      : map_(&map), frozen_(std::move(frozen)) {}

  /// Returns the ordinal of a key that `value` is to be set for, before the value is moved or copied.
  /// Errors: as `set`.
  [[nodiscard]] std::uint32_t ordinal_for(detail::KeyArg<K> key, const V& value) const {
    const std::uint32_t ordinal = frozen_->find(key);
    if (ordinal == detail::FrozenState<K, V>::npos) throw StateError(StateErrc::key_not_found);
    detail::check_nesting(value);
    return ordinal;
  }

  StateMap<K, V>* map_;
  std::shared_ptr<const detail::FrozenState<K, V>> frozen_;
  detail::ChangeSet<V> changes_;
};

}  // namespace syncstate

#endif
