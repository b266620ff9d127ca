// The smallest few of many ordinals, so that a pass goes in their order without having sorted all.
#ifndef SYNCSTATE_DETAIL_SERVER_ORDINAL_WINDOW_HPP
#define SYNCSTATE_DETAIL_SERVER_ORDINAL_WINDOW_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Chooses the `most` smallest ordinals, from one on, of those it is shown: each once, with the last place it was shown
/// with.
/// Complexity: O(log most) for each ordinal shown, amortized; memory for `most` of them.
class OrdinalWindow {
 public:
  OrdinalWindow(std::uint32_t first, std::size_t most) : first_(first), most_(most) {}

  /// Places ascend from call to call.
  void show(std::uint32_t ordinal, std::uint32_t place) {
    if (ordinal < first_ || ordinal > last_) return;
    items_.push_back(Item{ordinal, place});
    if (items_.size() >= 4 * most_) shrink();
  }

  /// The places of what was chosen, by descending ordinals.
  [[nodiscard]] std::vector<std::uint32_t> take() {
    shrink();
    std::vector<std::uint32_t> places;
    places.reserve(items_.size());
    for (auto item = items_.rbegin(); item != items_.rend(); ++item) places.push_back(item->place);
    return places;
  }
  /// Once taken: ordinals beyond what was chosen were shown.
  [[nodiscard]] bool has_more() const { return has_more_; }

 private:
  struct Item {
    std::uint32_t ordinal;
    std::uint32_t place;
  };

  void shrink() {
    std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
      return a.ordinal != b.ordinal ? a.ordinal < b.ordinal : a.place > b.place;
    });
    const auto same = [](const Item& a, const Item& b) { return a.ordinal == b.ordinal; };
    items_.erase(std::unique(items_.begin(), items_.end(), same), items_.end());
    if (items_.size() <= most_) return;
    items_.resize(most_);
    last_ = items_.back().ordinal;
    has_more_ = true;
  }

  std::uint32_t first_;
  std::uint32_t last_ = 0xFFFFFFFF;  // what is beyond has no place among the smallest any more
  std::size_t most_;
  std::vector<Item> items_;
  bool has_more_ = false;
};

}  // namespace syncstate::detail

#endif
