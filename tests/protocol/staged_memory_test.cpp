// What a client says it holds of a diff that is not whole, compared with the memory that it asked for.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "support/allocated_bytes.hpp"
#include "support/catch.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/remote/diff_assembler.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate::testing::staged_memory_test {
namespace {

constexpr int keys = 1'000;

template <class V>
StateMap<std::string, V> make_map() {
  StateMap<std::string, V> map(Role::master);
  for (int i = 0; i < keys; ++i) map.push(std::to_string(i), V{});
  map.freeze();
  return map;
}

std::vector<std::uint64_t> ordinals(bool ascending) {
  std::vector<std::uint64_t> all;
  for (std::uint64_t i = 0; i < keys; ++i) all.push_back(i);
  if (!ascending) std::reverse(all.begin(), all.end());
  return all;
}

/// `value_of(i)` is the value of entry number i, which owns `blocks_per_value` blocks of memory.
template <class V, class F>
void check_staged_bytes(bool ascending, std::size_t blocks_per_value, F value_of) {
  INFO((ascending ? "ascending" : "descending") << " ordinals of " << type_name<V>());
  const StateMap<std::string, V> map = make_map<V>();
  detail::DiffCatcher<std::string, V> receiver(detail::MapAccess::frozen(map), {});
  const std::vector<std::uint64_t> order = ordinals(ascending);
  std::size_t i = 0;
  const std::ptrdiff_t before = live_bytes;
  for (const std::uint64_t ordinal : order) {
    const V value = value_of(++i);
    Bytes bytes;
    encode_whole(value, bytes);
    receiver.stage_value(ordinal, bytes);
  }
  const auto live = static_cast<std::size_t>(live_bytes - before);
  REQUIRE(live >= keys * sizeof(V));  // allocations are counted here
  const std::size_t staged = receiver.staged_bytes();
  receiver.drop_staged();
  const std::ptrdiff_t left = live_bytes - before;
  // The allocator adds a few bytes to each block; the set has two besides those of the values.
  const std::size_t added = 32 * (keys * blocks_per_value + 2);
  CHECK(staged + added >= live);
  CHECK(staged <= live + added);
  CHECK(receiver.staged_bytes() == 0);
  CHECK(left == 0);
}

}  // namespace

TEST_CASE("staged entries are counted as the memory that they take, in whatever order",
          "[protocol][guarantee_10]") {
  const bool ascending = GENERATE(true, false);
  check_staged_bytes<std::uint32_t>(ascending, 0,
                                    [](std::size_t i) { return static_cast<std::uint32_t>(i); });
  check_staged_bytes<std::string>(ascending, 1, [](std::size_t i) { return std::string(100 + i, 'x'); });
}

TEST_CASE("a step holds its own key only, and drops what was staged", "[protocol]") {
  using Strings = StateMap<std::string, std::string>;
  const Strings map = make_map<std::string>();
  detail::DiffCatcher<std::string, std::string> receiver(detail::MapAccess::frozen(map), {});
  Bytes bytes;
  encode_whole(std::string(100, 'x'), bytes);
  receiver.stage_value(1, bytes);
  REQUIRE_FALSE(receiver.step({7, 4, 5, false}, 2, bytes));
  CHECK(receiver.staged_bytes() == 0);
  REQUIRE(receiver.diff());
  CHECK(receiver.diff()->size() == 1);
  CHECK(receiver.diff()->upto_update_id() == 5);
  CHECK_THROWS_AS(receiver.step({7, 5, 6, false}, keys, bytes), StateError);
  CHECK(receiver.staged_bytes() == 0);
}

TEST_CASE("a diff names each key once, but what was staged may come again", "[protocol][guarantee_10]") {
  using Strings = StateMap<std::string, std::string>;
  const Strings map = make_map<std::string>();
  const auto entries = [](std::initializer_list<std::uint64_t> named) {
    Bytes bytes;
    ByteWriter out(bytes);
    for (const std::uint64_t ordinal : named) {
      out.put_varint(ordinal);
      out.put_sized("value " + std::to_string(bytes.size()));
    }
    return bytes;
  };
  // In any order and of any size: a set of changes finds a key in other ways once it has more than a few.
  const std::vector<Bytes> twice = {entries({1, 1}), entries({1, 2, 1}), entries({5, 4, 3, 2, 5}),
                                    entries({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 3}),
                                    entries({12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 12})};
  for (const Bytes& bytes : twice) {
    detail::DiffCatcher<std::string, std::string> receiver(detail::MapAccess::frozen(map), {});
    try {
      (void)receiver.close({7, 0, 1, false}, bytes);
      FAIL("it was taken");
    } catch (const StateError& error) {
      CHECK(error.code() == StateErrc::decode_error);
    }
    CHECK_FALSE(receiver.diff());
  }
  detail::DiffCatcher<std::string, std::string> receiver(detail::MapAccess::frozen(map), {});
  receiver.stage(entries({1, 2}));
  REQUIRE_FALSE(receiver.close({7, 0, 1, false}, entries({2, 3})));
  REQUIRE(receiver.diff());
  CHECK(receiver.diff()->size() == 3);
}

}  // namespace syncstate::testing::staged_memory_test
