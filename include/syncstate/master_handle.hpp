// How the process that hosts a map changes it: between events, from any thread.
#ifndef SYNCSTATE_MASTER_HANDLE_HPP
#define SYNCSTATE_MASTER_HANDLE_HPP

#include <concepts>
#include <memory>
#include <utility>

#include "syncstate/detail/unique_function.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

namespace detail {

/// What a handle needs of a hosted map.
template <class K, class V>
class MasterMap {
 public:
  MasterMap() = default;
  MasterMap(const MasterMap&) = delete;
  MasterMap& operator=(const MasterMap&) = delete;
  virtual ~MasterMap() = default;

  virtual Position modify(UniqueFunction<void(StateMap<K, V>&)> change) = 0;
  [[nodiscard]] virtual const MapHash& hash() const = 0;
  [[nodiscard]] virtual Position head() const = 0;
};

}  // namespace detail

/// A hold on a hosted map; init hooks get one, and `host` returns one.
///
/// Threads : any member from any thread.
/// Lifetime: cheap to copy; may outlive the server, whose maps then answer `stopped`.
template <class K, class V>
class MasterHandle {
 public:
  explicit MasterHandle(std::shared_ptr<detail::MasterMap<K, V>> map) : map_(std::move(map)) {}

  /// Runs `change(StateMap<K, V>&)` between events, as one transaction, committed and pushed like an event's.
  ///
  /// Blocks until it has run. Returns the position that it committed as, or the head when it set nothing.
  /// Errors: what `change` throws, unchanged, and then nothing of it is kept; `would_deadlock` from a hook or another
  ///         `modify` of the same map (an init hook may call it, but not inside another `modify`), or from a hook
  ///         of another map for which a hook of this map waits, directly or over others; `stopped` after `stop()` or a failed init hook; `too_large`.
  template <std::invocable<StateMap<K, V>&> F>
  Position modify(F&& change) const {
    return map_->modify([&change](StateMap<K, V>& map) { change(map); });
  }

  /// The map's hash.
  [[nodiscard]] const MapHash& hash() const { return map_->hash(); }

  /// The head: this life of the map, and the number of commits so far.
  [[nodiscard]] Position position() const { return map_->head(); }

  /// The number of commits so far.
  [[nodiscard]] UpdateId update_id() const { return map_->head().update_id; }

  /// This life of the map.
  [[nodiscard]] Epoch epoch() const { return map_->head().epoch; }

 private:
  std::shared_ptr<detail::MasterMap<K, V>> map_;
};

}  // namespace syncstate

#endif
