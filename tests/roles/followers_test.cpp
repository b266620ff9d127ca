// Which links of a lane follow a map.
#include <cstddef>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/detail/server/followers.hpp"
#include "syncstate/detail/server/lane.hpp"

namespace syncstate::testing::followers_test {

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

}  // namespace syncstate::testing::followers_test
