// Which of the clients that wait for a map is asked for its initial state next.
#ifndef SYNCSTATE_DETAIL_SERVER_UPLOAD_ORDER_HPP
#define SYNCSTATE_DETAIL_SERVER_UPLOAD_ORDER_HPP

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "syncstate/protocol/messages.hpp"

namespace syncstate::detail {

/// A channel of a link.
using ChannelOfLink = std::pair<std::uint64_t, protocol::ChannelId>;

/// Channels whose clients may be asked for an initial state, in the order in which they are asked.
///
/// Addresses take turns, the links of an address take turns, and so do the channels of a link: a client is asked after one
/// channel of each other address at most, and within its address after one channel of each other link.
///
/// Threads   : one at a time.
/// Complexity: O(log channels) for each member.
class UploadOrder {
 public:
  [[nodiscard]] bool is_empty() const { return order_.empty(); }

  void add(const std::string& address, ChannelOfLink channel) {
    Address& at = place(addresses_, order_, address);
    Link& link = place(at.links, at.order, channel.first);
    link.channels.insert(channel.second);
  }

  /// Ignores a channel that is not there.
  void remove(const std::string& address, ChannelOfLink channel) {
    const auto at = addresses_.find(address);
    if (at == addresses_.end()) return;
    const auto link = at->second.links.find(channel.first);
    if (link == at->second.links.end() || link->second.channels.erase(channel.second) == 0) return;
    if (!link->second.channels.empty()) return;
    at->second.order.erase(link->second.turn);
    at->second.links.erase(link);
    if (!at->second.links.empty()) return;
    order_.erase(at->second.turn);
    addresses_.erase(at);
  }

  /// Removes the channel whose turn it is, and returns it; none if there is none.
  std::optional<ChannelOfLink> next() {
    if (order_.empty()) return std::nullopt;
    const auto at = addresses_.find(order_.begin()->second);
    const auto link = at->second.links.find(at->second.order.begin()->second);
    const ChannelOfLink channel{link->first, *link->second.channels.begin()};
    move_back(at->second.order, link->second.turn);
    move_back(order_, at->second.turn);
    const std::string address = at->first;
    remove(address, channel);
    return channel;
  }

 private:
  using Turn = std::uint64_t;
  struct Link {
    Turn turn = 0;
    std::set<protocol::ChannelId> channels;
  };
  struct Address {
    Turn turn = 0;
    std::map<std::uint64_t, Link> links;
    std::map<Turn, std::uint64_t> order;
  };

  /// The entry of this key; a new one has its turn after all others.
  template <class Entries, class Key>
  typename Entries::mapped_type& place(Entries& entries, std::map<Turn, Key>& order, const Key& key) {
    const auto [found, is_new] = entries.try_emplace(key);
    if (is_new) {
      found->second.turn = ++last_turn_;
      order.emplace(last_turn_, key);
    }
    return found->second;
  }

  template <class Key>
  void move_back(std::map<Turn, Key>& order, Turn& turn) {
    auto node = order.extract(turn);
    turn = ++last_turn_;
    if (node) node.key() = turn;  // always: GCC's -Wnull-dereference does not know
    order.insert(std::move(node));
  }

  Turn last_turn_ = 0;
  std::map<std::string, Address> addresses_;
  std::map<Turn, std::string> order_;
};

}  // namespace syncstate::detail

#endif
