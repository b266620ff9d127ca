// What operations cost, counted: copies of values and bytes that are asked for, never time.
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/allocated_bytes.hpp"
#include "support/catch.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate::testing::costs_test {

/// Counts how often it is copied.
struct Tallied {
  Tallied() = default;
  explicit Tallied(int v) : value(v) {}
  Tallied(const Tallied& other) : value(other.value) { ++copies; }
  Tallied(Tallied&&) noexcept = default;
  Tallied& operator=(const Tallied& other) {
    value = other.value;
    ++copies;
    return *this;
  }
  Tallied& operator=(Tallied&&) noexcept = default;
  ~Tallied() = default;

  int value = 0;
  static inline std::size_t copies = 0;
};

}  // namespace syncstate::testing::costs_test

template <>
struct syncstate::Codec<syncstate::testing::costs_test::Tallied> {
  using Tallied = testing::costs_test::Tallied;
  static void encode(const Tallied& v, ByteWriter& out) { out.put_varint(static_cast<unsigned>(v.value)); }
  static Tallied decode(ByteReader& in) { return Tallied(static_cast<int>(in.read_varint())); }
  static std::string type_name() { return "tallied"; }
};

namespace syncstate::testing::costs_test {
namespace {

std::string name_of(int i) { return "key " + std::to_string(i); }

template <class V>
StateMap<std::string, V> make_master(int keys, const V& value) {
  StateMap<std::string, V> map(Role::master);
  for (int i = 0; i < keys; ++i) map.push(name_of(i), value);
  map.freeze();
  return map;
}

/// What a diff up to the head cost.
struct Cost {
  std::size_t copies;
  std::size_t bytes;
  bool operator==(const Cost&) const = default;
};

/// Is memory counted here? Another file of this program is to include counted_new.hpp.
bool is_counting() {
  const std::size_t before = allocated_bytes;
  const std::vector<int> some(100);
  return allocated_bytes - before >= some.size() * sizeof(int);
}

Cost cost_of_diff(const StateMap<std::string, Tallied>& map, UpdateId from, std::size_t expected) {
  Tallied::copies = 0;
  const std::size_t before = allocated_bytes;
  const auto diff = map.diff(from, map.update_id());
  const Cost cost{Tallied::copies, allocated_bytes - before};
  CHECK(diff.size() == expected);
  return cost;
}

}  // namespace

TEST_CASE("a diff up to the head costs what it names, however many keys there are and however old it is") {
  REQUIRE(is_counting());
  std::vector<Cost> costs;
  for (const int keys : {1'000, 10'000, 50'000}) {
    auto map = make_master(keys, Tallied(0));
    for (int i = 0; i < keys; ++i) map.set(name_of(i), Tallied(1));
    const UpdateId from = map.update_id();
    for (int i = 0; i < 50; ++i) map.set(name_of(i * (keys / 50)), Tallied(2));
    costs.push_back(cost_of_diff(map, from, 50));
    // The same keys again and again, until the log has long forgotten `from`: no less is named, and no more.
    for (int i = 0; i < 10'000; ++i) map.set(name_of(i % 50 * (keys / 50)), Tallied(3));
    CHECK(cost_of_diff(map, from, 50) == costs.back());
  }
  CHECK(costs.front().copies == 50);
  for (const Cost& cost : costs) CHECK(cost == costs.front());
}

TEST_CASE("a commit of one key asks for no memory once the log is full") {
  REQUIRE(is_counting());
  auto map = make_master(100, std::string(16, 'v'));
  const std::string value(16, 'w');
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i) names.push_back(name_of(i));
  const auto commit = [&](std::size_t times) {
    const std::size_t before = allocated_bytes;
    for (std::size_t i = 0; i < times; ++i) map.set(names[i % names.size()], value);
    return allocated_bytes - before;
  };
  commit(2 * MapOptions{}.log_diffs);
  CHECK(commit(10'000) == 0);
}

TEST_CASE("values that were large do not stay so in the map or in the log") {
  REQUIRE(is_counting());
  constexpr std::size_t large = 100'000;
  StateMap<std::string, std::string> map(Role::master, {.log_diffs = 4, .log_bytes = std::size_t{1} << 20});
  map.push("a", "");
  map.freeze();
  const std::string much(large, 'x');
  const std::string little(20, 'y');
  for (int i = 0; i < 200; ++i) map.set("a", much);
  for (int i = 0; i < 6; ++i) map.set("a", little);
  CHECK(map.get("a")->capacity() < 200);
  // Were the memory of large values used again, the next ones would ask for none.
  const std::size_t before = allocated_bytes;
  for (int i = 0; i < 4; ++i) map.set("a", much);
  CHECK(allocated_bytes - before >= 4 * large);
}

}  // namespace syncstate::testing::costs_test
