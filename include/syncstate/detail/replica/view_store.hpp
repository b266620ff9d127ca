// The copies of a replica's values: one shown, one to write the next state into, others held by views.
#ifndef SYNCSTATE_DETAIL_REPLICA_VIEW_STORE_HPP
#define SYNCSTATE_DETAIL_REPLICA_VIEW_STORE_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/replica/view_slot.hpp"
#include "syncstate/types.hpp"
#include "syncstate/view.hpp"

namespace syncstate::detail {

/// Left-right with counted views: readers take the slot shown, the writer changes another and shows that.
///
/// A slot that was shown some diffs ago is brought up to date by copying only what changed since, so a diff
/// costs what it names twice over, not the map. Only when views hold all other slots is a new copy made.
///
/// Threads : `view()` from any, at any time; all else is the writer's, one at a time.
/// Lifetime: slots live at least as long as the store, because a reader may be about to come; views keep
///           theirs longer.
template <class K, class V, class Interrupt = NoInterrupt>
class ViewStore {
 public:
  using Slot = ViewSlot<K, V>;

  /// Shows these values, one for each ordinal.
  ViewStore(std::shared_ptr<const FrozenState<K, V>> frozen, Position position, DenseArray<V> values)
      : frozen_(std::move(frozen)) {
    auto first = std::make_unique<Slot>(frozen_);
    first->values = std::move(values);
    first->position = position;
    first->is_wholly_stale = false;
    slots_.push_back(first.get());
    shown_.store(first.release());
  }

  ViewStore(const ViewStore&) = delete;
  ViewStore& operator=(const ViewStore&) = delete;
  ~ViewStore() {
    for (Slot* slot : slots_) slot->close();
  }

  /// What is shown now. Waits for nobody; begins anew only when the writer has shown another state meanwhile.
  ///
  /// Why it is right: coming, looking what is shown, showing, and looking who has come are all in one total
  /// order (seq_cst). We come, then look whether the slot is still shown. If it is, we came before the moment
  /// the writer shows another, and the writer looks who has come to a slot only after that: it sees us, and
  /// leaves the slot alone until it sees us go. If it is not, we go again and have read nothing. That the slot
  /// was retired, rewritten and shown again in between does no harm: then it is the newest state.
  [[nodiscard]] View<K, V> view() const noexcept {
    for (;;) {
      Slot* const slot = shown_.load(std::memory_order_seq_cst);
      Interrupt::between_steps();
      slot->views.enter(std::memory_order_seq_cst);
      if (shown_.load(std::memory_order_seq_cst) == slot) [[likely]]
        return View<K, V>(slot);
      slot->drop_view();
    }
  }

  [[nodiscard]] Position position() const { return shown().position; }

  /// Shows the state that has these changes over what is shown. On an exception what is shown stays.
  /// Complexity: O(changes of this diff and the last), as long as no view holds the slot of the last but one.
  void apply(const ChangeSet<V>& changes, Position to) {
    Slot& slot = spare_slot();
    bring_up_to_date(slot);
    for (const auto& [ordinal, value] : changes) slot.values[ordinal] = value;
    show(slot, changes, {}, to);
  }

  /// The same with values that are taken along, and with keys that fall back to their initial values before.
  /// On an exception the changes still have their values.
  void apply(ChangeSet<V>&& changes, const std::vector<std::uint32_t>& fallen_back, Position to) {
    Slot& slot = spare_slot();
    if (changes.size() == frozen_->size() && changes.is_sorted()) {
      // Nothing stays, so nothing is copied.
      slot.is_wholly_stale = true;
      slot.values = DenseArray<V>();
      slot.values.reserve(changes.size());
      for (auto& change : changes) slot.values.push_back(std::move(change.second));
    } else {
      bring_up_to_date(slot);
      for (const std::uint32_t ordinal : fallen_back) slot.values[ordinal] = frozen_->initial(ordinal);
      for (auto& [ordinal, value] : changes) slot.values[ordinal] = std::move(value);
    }
    show(slot, changes, fallen_back, to);
  }

  /// Copies of the values that exist now; for tests.
  [[nodiscard]] std::size_t copies() const {
    return static_cast<std::size_t>(
        std::count_if(slots_.begin(), slots_.end(), [](const Slot* slot) { return !slot->values.empty(); }));
  }

 private:
  // A spare copy beyond the first is freed when this many diffs did without it: readers that hold views for a
  // moment, again and again, do not make the writer copy the whole map each time.
  static constexpr unsigned idle_applies = 16;

  [[nodiscard]] const Slot& shown() const { return *shown_.load(std::memory_order_relaxed); }

  Slot& add_slot() {
    auto slot = std::make_unique<Slot>(frozen_);
    slots_.push_back(slot.get());
    return *slot.release();
  }

  [[nodiscard]] bool is_free(const Slot& slot) const {
    return &slot != &shown() && slot.views.template is_empty<Interrupt>();
  }

  /// A slot that nobody reads, the cheapest to bring up to date.
  Slot& spare_slot() {
    Slot* best = nullptr;
    const auto cost = [this](const Slot& slot) {
      if (slot.values.empty()) return std::size_t{frozen_->size()} + 1;
      return slot.is_wholly_stale ? std::size_t{frozen_->size()} : slot.stale.size();
    };
    for (Slot* slot : slots_) {
      if (is_free(*slot) && (best == nullptr || cost(*slot) < cost(*best))) best = slot;
    }
    return best != nullptr ? *best : add_slot();
  }

  void bring_up_to_date(Slot& slot) {
    const DenseArray<V>& newest = shown().values;
    const bool is_partial = !slot.is_wholly_stale && slot.values.size() == newest.size();
    slot.is_wholly_stale = true;  // until it is shown: an exception may leave it anywhere
    if (is_partial) {
      for (const std::uint32_t ordinal : slot.stale) slot.values[ordinal] = newest[ordinal];
    } else {
      const std::size_t have = slot.values.size();  // fewer than all if an exception ended the last attempt
      for (std::size_t i = 0; i < have; ++i) slot.values[i] = newest[i];
      slot.values.reserve(newest.size());
      for (std::size_t i = have; i < newest.size(); ++i) slot.values.push_back(newest[i]);
    }
    slot.stale.clear();
  }

  /// From here on nothing throws.
  void show(Slot& slot, const ChangeSet<V>& changes, const std::vector<std::uint32_t>& fallen_back,
            Position to) noexcept {
    for (Slot* other : slots_) {
      if (other != &slot) note_stale(*other, changes, fallen_back);
    }
    slot.stale.clear();
    slot.position = to;
    slot.is_wholly_stale = false;
    shown_.store(&slot, std::memory_order_seq_cst);
    free_surplus();
  }

  void note_stale(Slot& slot, const ChangeSet<V>& changes,
                  const std::vector<std::uint32_t>& fallen_back) noexcept {
    if (slot.is_wholly_stale) return;
    // Beyond half of the keys, copying all of them in a row is the quicker way.
    bool fits = slot.stale.size() + changes.size() + fallen_back.size() <= frozen_->size() / 2 + 1;
    if (fits) {
      try {
        slot.stale.insert(slot.stale.end(), fallen_back.begin(), fallen_back.end());
        for (const auto& change : changes) slot.stale.push_back(change.first);
      } catch (...) {
        fits = false;  // out of memory: then it is copied as a whole one day
      }
    }
    if (!fits) {
      slot.is_wholly_stale = true;
      slot.stale.clear();
    }
  }

  void free_surplus() noexcept {
    Slot* surplus = nullptr;
    std::size_t spares = 0;
    for (Slot* slot : slots_) {
      if (slot->values.empty() || !is_free(*slot)) continue;
      ++spares;
      if (surplus == nullptr || slot->is_wholly_stale || slot->stale.size() > surplus->stale.size())
        surplus = slot;
    }
    if (spares < 2) {
      idle_ = 0;
    } else if (spares > 2 || ++idle_ > idle_applies) {
      surplus->values = DenseArray<V>();
      surplus->stale = {};
      surplus->is_wholly_stale = true;
      idle_ = 0;
    }
  }

  const std::shared_ptr<const FrozenState<K, V>> frozen_;
  std::vector<Slot*> slots_;
  unsigned idle_ = 0;  // diffs in a row that left two spare copies
  // On a cache line of its own: all readers read it, and only showing another slot takes it from them.
  alignas(64) std::atomic<Slot*> shown_{nullptr};
};

}  // namespace syncstate::detail

#endif
