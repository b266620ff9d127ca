// The links of a lane that follow a map.
#ifndef SYNCSTATE_DETAIL_SERVER_FOLLOWERS_HPP
#define SYNCSTATE_DETAIL_SERVER_FOLLOWERS_HPP

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "syncstate/types.hpp"

namespace syncstate::detail {

class ServerLink;

/// The links that have a map open, each once, however many of its channels do.
///
/// Threads: one at a time.
class Followers {
 public:
  /// `head`: of the map, now that the first of them comes.
  explicit Followers(UpdateId head) : told(head) {}

  UpdateId told;  ///< the head when they were woken last

  /// In no particular order.
  [[nodiscard]] const std::vector<ServerLink*>& links() const { return links_; }
  [[nodiscard]] bool empty() const { return links_.empty(); }

  /// One more channel of `link` has the map open. Complexity: O(1).
  void add_channel(ServerLink* link) {
    const auto [place, is_new] = places_.try_emplace(link, Place{links_.size(), 0});
    if (is_new) {
      try {
        links_.push_back(link);
      } catch (...) {
        places_.erase(place);
        throw;
      }
    }
    ++place->second.channels;
  }

  /// One channel less; the link goes with its last one. Complexity: O(1).
  void remove_channel(const ServerLink* link) {
    const auto place = places_.find(link);
    if (place == places_.end() || --place->second.channels > 0) return;
    const std::size_t index = place->second.index;
    places_.erase(place);
    if (index + 1 != links_.size()) {
      links_[index] = links_.back();
      places_.find(links_[index])->second.index = index;
    }
    links_.pop_back();
  }

 private:
  struct Place {
    std::size_t index;
    std::size_t channels;
  };

  std::vector<ServerLink*> links_;
  std::unordered_map<const ServerLink*, Place> places_;
};

}  // namespace syncstate::detail

#endif
