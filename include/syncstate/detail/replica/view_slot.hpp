// One copy of a replica's values, counted by the views that read it.
#ifndef SYNCSTATE_DETAIL_REPLICA_VIEW_SLOT_HPP
#define SYNCSTATE_DETAIL_REPLICA_VIEW_SLOT_HPP

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// What a `View` points at. The store holds one reference to each of its slots, every view one more.
///
/// Invariant: `position` and `values` change only while the store's reference is the only one and the slot is
/// not the one shown; so whoever reads them by a view reads one state.
template <class K, class V>
struct ViewSlot {
  explicit ViewSlot(std::shared_ptr<const FrozenState<K, V>> f) : frozen(std::move(f)) {}
  ViewSlot(const ViewSlot&) = delete;
  ViewSlot& operator=(const ViewSlot&) = delete;
  ~ViewSlot() = default;

  void add_ref() noexcept { refs.fetch_add(1, std::memory_order_relaxed); }  // by one who holds a reference
  void release() noexcept {
    if (refs.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  const std::shared_ptr<const FrozenState<K, V>> frozen;
  Position position;
  DenseArray<V> values;

  // The writer's notes: how this copy differs from the one shown.
  std::vector<std::uint32_t> stale;  // ordinals, perhaps with repeats
  bool is_wholly_stale = true;       // then `stale` says nothing, and `values` may be empty

  // On a cache line of its own: readers write it, and would slow each other's reads of the rest.
  alignas(64) std::atomic<std::uint64_t> refs{1};
};

}  // namespace syncstate::detail

#endif
