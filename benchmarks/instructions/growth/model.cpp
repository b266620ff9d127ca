// Costs of the model: lookups, commits and diffs by the number of keys.
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "growth/growth.hpp"
#include "support/harness.hpp"
#include "support/sample_map.hpp"
#include "syncstate/syncstate.hpp"

namespace {

using namespace benchmarks;
namespace ss = syncstate;

std::shared_ptr<Map> make_master(std::size_t keys) {
  return std::make_shared<Map>(fill(Map(ss::Role::master), keys));
}

const GrowthCase lookup{
    "get by 64 keys, n keys in the map", Growth::constant, 500, [](std::size_t n) {
      const auto map = make_master(n);
      std::vector<std::string> keys;  // many, for one may lie further from its place than another
      for (std::size_t i = 0; i < 64; ++i) keys.push_back(sample_key(i * n / 64));
      return [map, keys] {
        for (const std::string& key : keys) keep(*map->get(key));
      };
    }};

const GrowthCase commit{"commit of one key, n keys in the map", Growth::constant, 500, [](std::size_t n) {
                          const auto map = make_master(n);
                          map->set(sample_key(8), "the first commit makes the list of recent changes");
                          return [map] { map->set(sample_key(7), "changed"); };
                        }};

const GrowthCase diff{"diff of one key, n keys in the map", Growth::constant, 500, [](std::size_t n) {
                        const auto map = make_master(n);
                        map->set(sample_key(7), "changed");
                        return [map] { keep(map->diff(0, 1)); };
                      }};

const GrowthCase freeze{"freeze of n keys", Growth::linearithmic, 500, [](std::size_t n) {
                          const auto map = std::make_shared<Map>(ss::Role::master);
                          for (std::size_t i = 0; i < n; ++i)
                            map->push(sample_key(i * 7'919 % n), sample_value(i));
                          return [map] { map->freeze(); };
                        }};

}  // namespace
