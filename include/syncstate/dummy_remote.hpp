// A remote that leads nowhere.
#ifndef SYNCSTATE_DUMMY_REMOTE_HPP
#define SYNCSTATE_DUMMY_REMOTE_HPP

#include "syncstate/diff.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

/// Never has news, never fails: for maps without a master, and for tests.
///
/// Threads: has no state, so any.
struct DummyRemote {
  template <class K, class V>
  void init(const StateMap<K, V>&) {}

  template <class K, class V>
  [[nodiscard]] Diff<K, V> fetch_updates(const StateMap<K, V>& map, UpdateId) {
    return Diff<K, V>(map, map.epoch(), map.update_id(), map.update_id());
  }
};

}  // namespace syncstate

#endif
