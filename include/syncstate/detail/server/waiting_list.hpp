// The channels that wait until a map is hosted.
#ifndef SYNCSTATE_DETAIL_SERVER_WAITING_LIST_HPP
#define SYNCSTATE_DETAIL_SERVER_WAITING_LIST_HPP

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "syncstate/protocol/messages.hpp"

namespace syncstate::detail {

class ServerLink;

/// A channel that waits for its map.
struct Waiter {
  std::weak_ptr<ServerLink> link;
  std::uint64_t link_id = 0;
  protocol::ChannelId channel = 0;
  std::uint64_t sender = 0;
  bool may_init = true;
};

/// The channels that wait for one map, grouped by link, so that none of its operations looks at all of them.
///
/// Threads: the caller's lock.
class WaitingList {
 public:
  /// Complexity: O(log n).
  void add(Waiter waiter) {
    const auto known = by_link_.find(waiter.link_id);
    if (known != by_link_.end()) {
      known->second->channels[waiter.channel] = Wish{waiter.sender, waiter.may_init};
      return;
    }
    std::list<Group> group;
    group.push_back(Group{std::move(waiter.link), waiter.link_id, {}});
    group.front().channels[waiter.channel] = Wish{waiter.sender, waiter.may_init};
    by_link_.emplace(waiter.link_id, group.begin());
    groups_.splice(groups_.end(), group);
  }

  /// Removes a channel, if it waits. Complexity: O(log n).
  void remove(std::uint64_t link, protocol::ChannelId channel) {
    const auto known = by_link_.find(link);
    if (known == by_link_.end()) return;
    known->second->channels.erase(channel);
    drop_if_empty(known);
  }

  /// Removes and returns the channel that waits longest, of another link than `last` where there is one.
  /// Complexity: O(log n).
  std::optional<Waiter> take_next(std::uint64_t last) {
    if (groups_.empty()) return std::nullopt;
    if (groups_.front().link_id == last) groups_.splice(groups_.end(), groups_, groups_.begin());
    Group& group = groups_.front();
    const auto first = group.channels.begin();
    Waiter next = waiter_of(group, *first);
    group.channels.erase(first);
    drop_if_empty(by_link_.find(next.link_id));
    return next;
  }

  /// Removes and returns all. Complexity: O(n).
  std::vector<Waiter> take_all() {
    std::vector<Waiter> all;
    for (const Group& group : groups_) {
      for (const auto& channel : group.channels) all.push_back(waiter_of(group, channel));
    }
    by_link_.clear();
    groups_.clear();
    return all;
  }

  [[nodiscard]] bool empty() const { return groups_.empty(); }

 private:
  struct Wish {
    std::uint64_t sender = 0;
    bool may_init = true;
  };
  struct Group {
    std::weak_ptr<ServerLink> link;
    std::uint64_t link_id;
    std::map<protocol::ChannelId, Wish> channels;  // in the order in which they were opened
  };

  static Waiter waiter_of(const Group& group, const std::pair<const protocol::ChannelId, Wish>& channel) {
    return Waiter{group.link, group.link_id, channel.first, channel.second.sender, channel.second.may_init};
  }

  using ByLink = std::map<std::uint64_t, std::list<Group>::iterator>;

  void drop_if_empty(ByLink::iterator group) {
    if (!group->second->channels.empty()) return;
    groups_.erase(group->second);
    by_link_.erase(group);
  }

  std::list<Group> groups_;  // the link whose turn is next is the first
  ByLink by_link_;
};

}  // namespace syncstate::detail

#endif
