// Records which maps' hooks the current thread runs, to recognise a wait that only the end of such a hook could end.
#ifndef SYNCSTATE_DETAIL_RUNNING_HOOKS_HPP
#define SYNCSTATE_DETAIL_RUNNING_HOOKS_HPP

#include <utility>
#include <vector>

#include "syncstate/detail/visibility.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// One life of one map. Epochs are random, so it is hosted in one place only, and a remote that was told this epoch
/// reaches that place, over any transport.
struct MapLife {
  MapHash hash;
  Epoch epoch = 0;

  friend bool operator==(const MapLife&, const MapLife&) = default;
};

/// Says, from its construction to its destruction, that this thread runs hooks, init hooks or changes by `modify` of a
/// map. `HostedSlot` makes one around them; `RemoteClient::send_event` asks for those of its thread.
///
/// Threads : the one that makes it.
/// Lifetime: on the stack. The hash must outlive it.
class RunningHooks {
 public:
  RunningHooks(const MapHash& hash, Epoch epoch)
      : hash_(&hash), epoch_(epoch), outer_(std::exchange(innermost_, this)) {}
  RunningHooks(const RunningHooks&) = delete;
  RunningHooks& operator=(const RunningHooks&) = delete;
  ~RunningHooks() { innermost_ = outer_; }

  /// Returns whether this thread runs hooks of any map.
  [[nodiscard]] static bool is_any_here() { return innermost_ != nullptr; }

  /// Returns the maps whose hooks this thread runs, the innermost first. A hook that changes another map by `modify`
  /// runs inside the hook of its own map.
  [[nodiscard]] static std::vector<MapLife> maps_here() {
    std::vector<MapLife> maps;
    for (const RunningHooks* at = innermost_; at != nullptr; at = at->outer_) {
      maps.push_back(MapLife{*at->hash_, at->epoch_});
    }
    return maps;
  }

 private:
  SYNCSTATE_VISIBLE static inline constinit thread_local const RunningHooks* innermost_ = nullptr;

  const MapHash* hash_;
  Epoch epoch_;
  const RunningHooks* outer_;
};

}  // namespace syncstate::detail

#endif
