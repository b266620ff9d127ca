// Costs of sets of changes, whose ordinals a peer may have chosen.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "growth/growth.hpp"
#include "support/harness.hpp"
#include "syncstate/detail/model/change_set.hpp"

namespace {

using namespace benchmarks;
using syncstate::detail::ChangeSet;

/// Ordinals that an index without a seed, which multiplies by the golden ratio, puts side by side.
std::vector<std::uint32_t> colliding_ordinals(std::size_t count) {
  std::vector<std::uint32_t> ordinals;
  const std::size_t slots = 4 * count;
  for (std::uint32_t ordinal = 0; ordinals.size() < count; ++ordinal) {
    const std::uint64_t mixed = std::uint64_t{ordinal} * 0x9E3779B97F4A7C15U >> 32;
    if (mixed % slots < slots / 256) ordinals.push_back(ordinal);
  }
  return ordinals;
}

const GrowthCase chosen{
    "set of n keys whose ordinals a peer chose", Growth::linear, 1'000, [](std::size_t n) {
      const auto ordinals = std::make_shared<const std::vector<std::uint32_t>>(colliding_ordinals(n));
      return [ordinals] {
        ChangeSet<int> changes;
        changes.set(ordinals->back(), 0);  // the last first: from here on they do not ascend
        for (const std::uint32_t ordinal : *ordinals) changes.set(ordinal, 1);
        keep(changes.size());
      };
    }};

const GrowthCase shuffled{"set of n keys that do not ascend", Growth::linear, 1'000, [](std::size_t n) {
                            return [n] {
                              ChangeSet<int> changes;
                              for (std::size_t i = n; i-- > 0;) changes.set(static_cast<std::uint32_t>(i), 1);
                              keep(changes.size());
                            };
                          }};

}  // namespace
