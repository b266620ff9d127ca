// Which pending link gives way, against a plain list that is searched from end to end.
#include "syncstate/detail/server/pending_links.hpp"

#include <algorithm>
#include <cstdint>
#include <list>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "support/catch.hpp"

namespace pending_links_test {

namespace {

using syncstate::detail::PendingLinks;

struct Plain {
  std::list<std::pair<PendingLinks::LinkId, std::string>> links;  // the oldest first

  [[nodiscard]] std::string most_crowded() const {
    std::map<std::string, int> count;
    for (const auto& [link, address] : links) ++count[address];
    const auto fewer = [&](const auto& a, const auto& b) { return count[a.second] < count[b.second]; };
    return std::max_element(links.begin(), links.end(), fewer)->second;
  }
  [[nodiscard]] PendingLinks::LinkId oldest_of(const std::string& address) const {
    return std::find_if(links.begin(), links.end(), [&](const auto& l) { return l.second == address; })
        ->first;
  }
};

}  // namespace

TEST_CASE("the pending links of the most crowded address are at hand", "[protocol][guarantee_9]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  PendingLinks links;
  Plain plain;
  for (PendingLinks::LinkId next = 1; next < 3'000; ++next) {
    const std::string address(1, static_cast<char>('a' + random() % 7));
    const PendingLinks::LinkId link = next * 7'919 % 3'001;  // in no order
    links.add(link, address);
    plain.links.emplace_back(link, address);
    while (!plain.links.empty() && random() % 17 < 8) {
      const auto any = std::next(plain.links.begin(), static_cast<long>(random() % plain.links.size()));
      CHECK(links.remove(any->first));
      CHECK(!links.remove(any->first));
      CHECK(links.address_of(any->first) == nullptr);
      plain.links.erase(any);
    }
    REQUIRE(links.size() == plain.links.size());
    if (plain.links.empty()) continue;
    REQUIRE(links.most_crowded() == plain.most_crowded());
    REQUIRE(links.oldest_of_most_crowded() == plain.oldest_of(plain.most_crowded()));
    REQUIRE(*links.address_of(plain.links.back().first) == plain.links.back().second);
  }
}

}  // namespace pending_links_test
