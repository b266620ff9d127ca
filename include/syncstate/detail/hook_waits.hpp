// Records which hooks of this process wait for events and changes of which maps, to recognise a circle of such waits.
#ifndef SYNCSTATE_DETAIL_HOOK_WAITS_HPP
#define SYNCSTATE_DETAIL_HOOK_WAITS_HPP

#include <pthread.h>

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/running_hooks.hpp"
#include "syncstate/detail/visibility.hpp"

namespace syncstate::detail {

/// The waits of hooks for events of maps, and for changes of maps by `modify`. A hook of a map waits for an event or a
/// change of another map, which can run only when the hook of the other map that runs now has ended. If such waits form
/// a circle, none of them can end.
///
/// `EventCall` and `ModifyWait` add and remove waits; only those of threads that run a hook come here.
/// Threads   : every member from any thread.
/// Complexity: O(n²) for n hooks that wait at the same time.
class HookWaits {
 public:
  /// Notes that the caller of `owner`, whose thread runs hooks of all maps in `from`, now waits for an event or a
  /// change of `to`, and for none of another map. Returns false, and notes nothing, if that wait could never end.
  [[nodiscard]] static bool add(const void* owner, const std::vector<MapLife>& from, const MapLife& to) {
    HookWaits& all = instance();
    const std::lock_guard lock(all.mutex_);
    all.erase(owner);
    if (all.leads_to(to, from)) return false;
    for (const MapLife& map : from) all.waits_.push_back(Wait{owner, map, to});
    return true;
  }

  /// Returns whether such a wait could end, and notes nothing. For tests, which wait until other waits are noted.
  [[nodiscard]] static bool could_add(const std::vector<MapLife>& from, const MapLife& to) {
    HookWaits& all = instance();
    const std::lock_guard lock(all.mutex_);
    return !all.leads_to(to, from);
  }

  /// Notes that the caller of `owner` no longer waits. Never throws.
  static void remove(const void* owner) noexcept {
    HookWaits& all = instance();
    const std::lock_guard lock(all.mutex_);
    all.erase(owner);
  }

  /// In a child that was forked off, before anything else runs there: forgets the waits, which are those of threads that the
  /// child does not have. One of these threads may have held the mutex, and have been changing the list.
  static void renew_in_child() {
    HookWaits& all = instance();
    ::new (static_cast<void*>(&all.mutex_)) std::mutex;
    if (all.waits_.capacity() == 0) return;
    leave_behind(std::move(all.waits_));
    ::new (static_cast<void*>(&all.waits_)) std::vector<Wait>;
  }

 private:
  struct Wait {
    const void* owner;
    MapLife from;
    MapLife to;
  };

  SYNCSTATE_VISIBLE static HookWaits& instance();

  /// Returns whether waits lead from `start` to one of `ends`, or `start` is one of them.
  [[nodiscard]] bool leads_to(const MapLife& start, const std::vector<MapLife>& ends) const {
    std::vector<MapLife> reached{start};
    for (std::size_t i = 0; i < reached.size(); ++i) {
      if (std::find(ends.begin(), ends.end(), reached[i]) != ends.end()) return true;
      for (const Wait& wait : waits_) {
        const bool is_new = std::find(reached.begin(), reached.end(), wait.to) == reached.end();
        if (wait.from == reached[i] && is_new) reached.push_back(wait.to);
      }
    }
    return false;
  }

  void erase(const void* owner) noexcept {
    std::erase_if(waits_, [owner](const Wait& wait) { return wait.owner == owner; });
  }

  std::mutex mutex_;
  std::vector<Wait> waits_;
};

// No function-local variable: see threads/home_process.hpp, also for what is hidden.
SYNCSTATE_VISIBLE inline HookWaits hook_waits;

inline HookWaits& HookWaits::instance() { return hook_waits; }

/// Has every child that `fork` makes begin without waits, as long as this library is loaded.
[[gnu::visibility("hidden")]] inline const bool are_hook_waits_renewed =
    ::pthread_atfork(nullptr, nullptr, [] { HookWaits::renew_in_child(); }) == 0;

/// The wait of a thread for its change of a map by `modify`. `HostedSlot::modify` makes one.
///
/// Threads : `begin` on the thread that waits, `end` on the thread that runs the change, if it runs.
/// Lifetime: on the stack of the thread that waits.
class ModifyWait {
 public:
  ModifyWait() = default;
  ModifyWait(const ModifyWait&) = delete;
  ModifyWait& operator=(const ModifyWait&) = delete;
  ~ModifyWait() { end(); }

  /// Notes that this thread now waits for a change of `to`, if it runs a hook: any other thread may wait for all.
  /// Returns false if that wait could never end.
  [[nodiscard]] bool begin(const MapLife& to) {
    const std::vector<MapLife> from = RunningHooks::maps_here();
    is_noted_ = !from.empty();
    return !is_noted_ || HookWaits::add(this, from, to);
  }

  /// Forgets the wait. Call it where the change has run, before another hook of the map can run: one that then waits
  /// for a hook of this thread closes no circle.
  void end() noexcept {
    if (std::exchange(is_noted_, false)) HookWaits::remove(this);
  }

 private:
  bool is_noted_ = false;
};

}  // namespace syncstate::detail

#endif
