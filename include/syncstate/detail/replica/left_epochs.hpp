// The epochs that a replica was in before.
#ifndef SYNCSTATE_DETAIL_REPLICA_LEFT_EPOCHS_HPP
#define SYNCSTATE_DETAIL_REPLICA_LEFT_EPOCHS_HPP

#include <algorithm>
#include <array>
#include <cstddef>

#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Remembers the last 16 different epochs that were left, so that no call waits for a position in one of them. Epochs
/// are random and have no order, so nothing says whether an epoch that is not remembered here is over or still to come.
///
/// Complexity: O(1) memory, no allocation. `add` and `contains` look at 16 numbers.
/// Threads   : the owner's lock.
class LeftEpochs {
 public:
  static constexpr std::size_t most = 16;

  /// Remembers `epoch` as the one left last. Forgets the one left longest ago, if there is no room.
  void add(Epoch epoch) noexcept {
    const auto end = epochs_.begin() + static_cast<std::ptrdiff_t>(count_);
    auto place = std::find(epochs_.begin(), end, epoch);
    if (place == end) {
      if (count_ < most) {
        ++count_;
      } else {
        --place;
      }
    }
    std::move_backward(epochs_.begin(), place, place + 1);
    epochs_.front() = epoch;
  }

  [[nodiscard]] bool contains(Epoch epoch) const noexcept {
    const auto end = epochs_.begin() + static_cast<std::ptrdiff_t>(count_);
    return std::find(epochs_.begin(), end, epoch) != end;
  }

 private:
  std::array<Epoch, most> epochs_{};  // the one left last comes first
  std::size_t count_ = 0;
};

}  // namespace syncstate::detail

#endif
