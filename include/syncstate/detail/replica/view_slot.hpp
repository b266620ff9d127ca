// One copy of a replica's values, counted by the views that read it.
#ifndef SYNCSTATE_DETAIL_REPLICA_VIEW_SLOT_HPP
#define SYNCSTATE_DETAIL_REPLICA_VIEW_SLOT_HPP

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// What the scheduler may do between two steps of a reader or of the writer: nothing, but for tests, which put
/// the other one there.
struct NoInterrupt {
  static void between_steps() noexcept {}  // of a reader that takes a view
  static void between_sums() noexcept {}   // of the writer that looks whether a slot is read
};

/// Threads by number, from 1 on; beyond 2^32 - 1 some number comes again.
inline unsigned thread_number() noexcept {
  static std::atomic<unsigned> threads{0};
  thread_local unsigned number = 0;
  while (number == 0) [[unlikely]]
    number = threads.fetch_add(1, std::memory_order_relaxed) + 1;
  return number;
}

/// How many views have come and gone, counted apart for some threads each, so that readers on different
/// processors do not take a cache line from each other.
///
/// A view may go by another thread than it came, so one thread's counters alone mean nothing; the sums do.
///
/// The counters of an owner that is gone are closed: then who comes or goes counts in `remaining_` as well, and
/// knows when it was the last.
class ViewCounters {
 public:
  ViewCounters() : count_(stripe_count()), stripes_(std::make_unique<Stripe[]>(count_)) {}

  /// A view comes: in the total order of all seq_cst operations when the writer may not have been told of a
  /// reader yet, relaxed when another view is held meanwhile, which keeps the writer and the end away.
  void enter(std::memory_order order) noexcept {
    if ((own_stripe().entered.fetch_add(1, order) & closed) != 0) [[unlikely]]
      remaining_.fetch_add(1, std::memory_order_relaxed);
  }

  /// A view goes. True if it was the last one and the counters are closed: then they are the caller's to
  /// destroy. Otherwise they must not be touched again.
  [[nodiscard]] bool leave() noexcept {
    // Not closed by then: the owner lives or will count this one among those that are gone, and may do so and
    // destroy the counters right now. Closed: without our own subtraction nobody comes to 0.
    if ((own_stripe().left.fetch_add(1, std::memory_order_release) & closed) == 0) [[likely]]
      return false;
    return remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1;
  }

  /// True if no view is there, and none can come but by `view()` of the slot shown.
  ///
  /// Why it is right: those who left are counted first. Whoever is seen to have left has come before that, by
  /// happens-before (release here, acquire there), so that is seen as well: `entered` is at least `left`, and
  /// equal only if everyone who is seen to have come is seen to have left. A view that still is there is the
  /// last of a chain of copies, whose first one came while the slot was shown and is seen for that reason
  /// (`ViewStore::view`). Take the last one of the chain that is seen to have come: its successor came before
  /// it left, so had it been seen to have left, its successor would have been seen to have come. Hence it is
  /// seen to have come and not to have left.
  template <class Interrupt>
  [[nodiscard]] bool is_empty() const noexcept {
    std::uint64_t left = 0;
    for (std::size_t i = 0; i < count_; ++i) left += stripes_[i].left.load(std::memory_order_acquire);
    Interrupt::between_sums();
    std::uint64_t entered = 0;
    for (std::size_t i = 0; i < count_; ++i) entered += stripes_[i].entered.load(std::memory_order_seq_cst);
    return entered == left;
  }

  /// The owner goes. True if no view is there: then the counters are the caller's to destroy.
  ///
  /// Each counter tells exactly what it counted before it was closed; what came and went since is in
  /// `remaining_`, which can't be 0 before we have added the rest.
  [[nodiscard]] bool close() noexcept {
    std::uint64_t there = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      there += stripes_[i].entered.fetch_or(closed, std::memory_order_acq_rel);
      there -= stripes_[i].left.fetch_or(closed, std::memory_order_acq_rel);
    }
    return remaining_.fetch_add(there - not_all_added, std::memory_order_acq_rel) + there == not_all_added;
  }

 private:
  static constexpr std::uint64_t closed = std::uint64_t{1} << 63;
  static constexpr std::uint64_t not_all_added = std::uint64_t{1} << 62;

  struct alignas(64) Stripe {  // a cache line
    std::atomic<std::uint64_t> entered{0};
    std::atomic<std::uint64_t> left{0};
  };

  /// Twice as many as processors: two threads that run at once seldom share one.
  static std::size_t stripe_count() {
    static const std::size_t count = std::bit_ceil(
        2 * std::clamp(std::size_t{std::thread::hardware_concurrency()}, std::size_t{2}, std::size_t{64}));
    return count;
  }

  [[nodiscard]] Stripe& own_stripe() const noexcept { return stripes_[thread_number() & (count_ - 1)]; }

  const std::size_t count_;  // a power of two
  const std::unique_ptr<Stripe[]> stripes_;
  std::atomic<std::uint64_t> remaining_{not_all_added};
};

/// What a `View` points at.
///
/// Invariant: `position` and `values` change only while no view is there and the slot is not the one shown; so
/// whoever reads them by a view reads one state.
template <class K, class V>
struct ViewSlot {
  explicit ViewSlot(std::shared_ptr<const FrozenState<K, V>> f) : frozen(std::move(f)) {}
  ViewSlot(const ViewSlot&) = delete;
  ViewSlot& operator=(const ViewSlot&) = delete;
  ~ViewSlot() = default;

  void add_view() noexcept { views.enter(std::memory_order_relaxed); }  // by one who holds a view
  void drop_view() noexcept {
    if (views.leave()) delete this;
  }
  /// The store is done with the slot, which ends with its last view.
  void close() noexcept {
    if (views.close()) delete this;
  }

  const std::shared_ptr<const FrozenState<K, V>> frozen;
  ViewCounters views;
  Position position;
  DenseArray<V> values;

  // The writer's notes: how this copy differs from the one shown. Readers would wait for a cache line that
  // they share with these.
  alignas(64) std::vector<std::uint32_t> stale;  // ordinals, perhaps with repeats
  bool is_wholly_stale = true;                   // then `stale` says nothing, and `values` may be empty
};

}  // namespace syncstate::detail

#endif
