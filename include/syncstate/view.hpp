// A view: one whole state of a replica, held for as long as one likes.
#ifndef SYNCSTATE_VIEW_HPP
#define SYNCSTATE_VIEW_HPP

#include <cstdint>
#include <utility>

#include "syncstate/detail/model/read_interface.hpp"
#include "syncstate/detail/replica/view_slot.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

namespace detail {
template <class K, class V, class Interrupt>
class ViewStore;
}

/// One whole state of a replica: what it showed when `view()` was called, unchanged however long it is kept.
///
/// Reads like a `StateMap`: `get`, `at`, `contains`, `size`, `begin`, `end`, `key`, `operator[]`, `hash`.
/// Threads : copies in different threads are independent; a copy costs one atomic increment.
/// Lifetime: may outlive the replica. It delays nobody and pins one copy of the values at worst. A view moved
///           from can only be assigned or destroyed.
template <class K, class V>
class View : public detail::ReadInterface<View<K, V>, K, V> {
  using Base = detail::ReadInterface<View, K, V>;

 public:
  View(const View& other) noexcept : Base(), slot_(other.slot_) {
    if (slot_ != nullptr) slot_->add_view();
  }
  View(View&& other) noexcept : Base(), slot_(std::exchange(other.slot_, nullptr)) {}
  View& operator=(View other) noexcept {
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~View() {
    if (slot_ != nullptr) slot_->drop_view();
  }

  [[nodiscard]] Position position() const { return slot_->position; }
  UpdateId update_id() const { return slot_->position.update_id; }
  /// 0 as long as no master was heard of.
  [[nodiscard]] Epoch epoch() const { return slot_->position.epoch; }

 private:
  friend Base;
  template <class, class, class>
  friend class detail::ViewStore;

  /// Of a slot that has counted it already.
  explicit View(detail::ViewSlot<K, V>* slot) noexcept : slot_(slot) {}

  [[nodiscard]] const detail::FrozenState<K, V>& frozen_ref() const { return *slot_->frozen; }
  [[nodiscard]] const V& value_ref(std::uint32_t ordinal) const { return slot_->values[ordinal]; }

  detail::ViewSlot<K, V>* slot_;
};

}  // namespace syncstate

#endif
