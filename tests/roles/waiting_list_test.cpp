// Who waits for a map on a server, and whose turn it is; which links of a lane follow a map.
#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/detail/server/followers.hpp"
#include "syncstate/detail/server/lane.hpp"
#include "syncstate/detail/server/waiting_list.hpp"

namespace syncstate::testing {
namespace {

detail::Waiter waiter(std::uint64_t link, protocol::ChannelId channel) {
  detail::Waiter w;
  w.link_id = link;
  w.channel = channel;
  return w;
}

using Turns = std::vector<std::pair<std::uint64_t, protocol::ChannelId>>;

Turns take_all_in_turn(detail::WaitingList& list, std::uint64_t last) {
  Turns turns;
  while (const auto next = list.take_next(last)) {
    turns.emplace_back(next->link_id, next->channel);
    last = next->link_id;  // and fails in its turn
  }
  return turns;
}

}  // namespace

TEST_CASE("the next who waits for a map is of another link, where there is one", "[server]") {
  detail::WaitingList list;
  for (protocol::ChannelId channel = 1; channel <= 3; ++channel) list.add(waiter(1, channel));
  list.add(waiter(2, 1));
  list.add(waiter(3, 7));
  SECTION("links take turns, the first to come first") {
    CHECK(take_all_in_turn(list, 9) == Turns{{1, 1}, {2, 1}, {3, 7}, {1, 2}, {1, 3}});
  }
  SECTION("the link that failed last comes last") {
    CHECK(take_all_in_turn(list, 1) == Turns{{2, 1}, {3, 7}, {1, 1}, {1, 2}, {1, 3}});
  }
  SECTION("a channel that was closed has no turn") {
    list.remove(2, 1);
    list.remove(1, 1);
    list.remove(1, 5);  // does not wait
    list.remove(8, 1);  // nor does any channel of this link
    CHECK(take_all_in_turn(list, 9) == Turns{{1, 2}, {3, 7}, {1, 3}});
  }
  SECTION("all at once") {
    CHECK(list.take_all().size() == 5);
    CHECK(list.empty());
    CHECK_FALSE(list.take_next(9));
  }
}

TEST_CASE("a link follows a map until its last channel is closed", "[server]") {
  // The links are only compared.
  std::vector<std::byte> places(3);
  const auto link = [&](std::size_t i) { return reinterpret_cast<detail::ServerLink*>(&places[i]); };
  const auto set_of = [](const std::vector<detail::ServerLink*>& links) {
    return std::set<detail::ServerLink*>(links.begin(), links.end());
  };
  detail::Followers followers(0);
  for (std::size_t i = 0; i < 3; ++i) followers.add_channel(link(i));
  followers.add_channel(link(1));
  CHECK(followers.links().size() == 3);
  followers.remove_channel(link(1));
  CHECK(set_of(followers.links()) == std::set{link(0), link(1), link(2)});
  followers.remove_channel(link(0));
  CHECK(set_of(followers.links()) == std::set{link(1), link(2)});
  followers.remove_channel(link(2));
  followers.remove_channel(link(2));  // it follows no more
  CHECK(set_of(followers.links()) == std::set{link(1)});
  followers.remove_channel(link(1));
  CHECK(followers.empty());
}

}  // namespace syncstate::testing
