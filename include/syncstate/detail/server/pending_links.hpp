// The links whose clients have not proven themselves yet, by link, by address, and by how many an address has.
#ifndef SYNCSTATE_DETAIL_SERVER_PENDING_LINKS_HPP
#define SYNCSTATE_DETAIL_SERVER_PENDING_LINKS_HPP

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Pending links in the order they came, with the address that has most of them at hand.
///
/// Used by `LinkTable`, under its mutex.
/// Complexity: O(log addresses) for every member.
class PendingLinks {
 public:
  using LinkId = std::uint64_t;

  [[nodiscard]] std::size_t size() const { return links_.size(); }

  /// The address of a pending link, or null if the link is not pending.
  [[nodiscard]] const std::string* address_of(LinkId link) const {
    const auto found = links_.find(link);
    return found == links_.end() ? nullptr : &found->second.crowd->first;
  }

  /// The address that has most pending links; of several the one whose oldest link is oldest. There is a link.
  [[nodiscard]] const std::string& most_crowded() const { return ranks_.rbegin()->second->first; }

  /// The oldest pending link of the address that has most. There is a link.
  [[nodiscard]] LinkId oldest_of_most_crowded() const { return ranks_.rbegin()->second->second.front().link; }

  void add(LinkId link, const std::string& address) {
    assert(!links_.contains(link));
    Links one{Arrived{link, next_++}};
    Ranks rank;
    rank.emplace(Rank{}, crowds_.end());
    const auto crowd = crowds_.try_emplace(address).first;
    Place& place = links_[link];  // from here on nothing can fail
    Links& links = crowd->second;
    auto node = links.empty() ? rank.extract(rank.begin()) : ranks_.extract(rank_of(links));
    links.splice(links.end(), one);
    place = Place{crowd, std::prev(links.end())};
    node.key() = rank_of(links);
    node.mapped() = crowd;
    ranks_.insert(std::move(node));
  }

  /// Returns false if the link is not pending.
  bool remove(LinkId link) {
    const auto found = links_.find(link);
    if (found == links_.end()) return false;
    const auto [crowd, at] = found->second;
    links_.erase(found);
    Links& links = crowd->second;
    auto node = ranks_.extract(rank_of(links));
    links.erase(at);
    if (links.empty()) {
      crowds_.erase(crowd);
    } else {
      node.key() = rank_of(links);
      ranks_.insert(std::move(node));
    }
    return true;
  }

 private:
  struct Arrived {
    LinkId link;
    std::uint64_t number;  // rises with each that comes
  };
  using Links = std::list<Arrived>;  // the oldest first
  using Crowds = std::map<std::string, Links>;
  struct Place {
    Crowds::iterator crowd;
    Links::iterator at;
  };
  // How many links, and how old the oldest one is: of two addresses with as many, the older rank is the larger.
  using Rank = std::pair<std::size_t, std::uint64_t>;
  using Ranks = std::map<Rank, Crowds::iterator>;

  static std::uint64_t oldest(const Links& links) {
    return (std::numeric_limits<std::uint64_t>::max)() - links.front().number;
  }
  static Rank rank_of(const Links& links) { return {links.size(), oldest(links)}; }

  std::unordered_map<LinkId, Place> links_;
  Crowds crowds_;
  Ranks ranks_;  // the address that gives way is the last
  std::uint64_t next_ = 0;
};

}  // namespace syncstate::detail

#endif
