// Large values in parts: encoded once for all who stream them, without the map's lock, and forgotten with their version.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "protocol/session_harness.hpp"
#include "support/catch.hpp"
#include "syncstate/detail/server/hosted_map.hpp"
#include "syncstate/detail/wire/wire_entries.hpp"
#include "syncstate/protocol/messages.hpp"

namespace syncstate::testing::large_values_test {

/// A value of any size whose codec counts how often it encodes, and says first that it begins.
struct Bulk {
  std::uint32_t bytes = 0;
  std::uint8_t fill = 0;
  bool operator==(const Bulk&) const = default;

  static inline std::size_t encoded = 0;
  static inline std::function<void(const Bulk&)> on_encode;
};

}  // namespace syncstate::testing::large_values_test

template <>
struct syncstate::Codec<syncstate::testing::large_values_test::Bulk> {
  using Bulk = testing::large_values_test::Bulk;
  static std::size_t size(const Bulk& value) { return std::size_t{value.bytes} + 1; }
  static void encode(const Bulk& value, ByteWriter& out) {
    ++Bulk::encoded;
    if (Bulk::on_encode) Bulk::on_encode(value);
    out.put_u8(value.fill);
    out.bytes().insert(out.bytes().end(), value.bytes, static_cast<std::byte>(value.fill));
  }
  static Bulk decode(ByteReader& in) {
    const std::uint8_t fill = in.read_u8();
    const ByteView rest = in.read_bytes(in.remaining());
    return Bulk{static_cast<std::uint32_t>(rest.size()), fill};
  }
  static std::string type_name() { return "bulk"; }
};

namespace syncstate::testing::large_values_test {
namespace {

namespace wire = protocol;
using Map = detail::HostedMap<std::string, Bulk>;
using Encoding = detail::LargeValues::Encoding;

constexpr std::uint32_t large = 1'000'000;
constexpr std::size_t piece = 64 << 10;

std::shared_ptr<Map> host(std::uint32_t keys, MapOptions options = {}) {
  return std::make_shared<Map>(make_master<Bulk>(keys, Bulk{}, options), Limits{});
}

wire::PassCursor cursor_of(UpdateId from, UpdateId target) {
  wire::PassCursor cursor;
  cursor.from = from;
  cursor.target = target;
  return cursor;
}

/// What a pass gives, put together.
struct Taken {
  std::map<std::uint64_t, Bytes> values;
  std::vector<std::uint64_t> order;
  std::size_t pieces = 0;

  void take(wire::PassPiece kind, ByteView bytes) {
    ++pieces;
    if (kind == wire::PassPiece::entries) {
      wire::for_each_entry(bytes, [&](std::uint64_t ordinal, ByteView value) {
        order.push_back(ordinal);
        values[ordinal] = Bytes(value.begin(), value.end());
      });
      return;
    }
    ByteReader in(bytes);
    const std::uint64_t ordinal = in.read_varint();
    const std::uint64_t total = in.read_varint();
    const std::uint64_t offset = in.read_varint();
    Bytes& value = values[ordinal];
    if (offset == 0) {
      order.push_back(ordinal);
      value.clear();
    }
    CHECK(value.size() == offset);
    value.insert(value.end(), in.rest().begin(), in.rest().end());
    CHECK(value.size() <= total);
  }
};

/// One call; false when the pass is over.
bool step(Map& map, wire::PassCursor& cursor, bool is_logged, Taken& taken, std::size_t budget = piece) {
  Bytes out;
  const auto kind = is_logged ? map.encode_logged(cursor, budget, out) : map.encode_pass(cursor, budget, out);
  REQUIRE(kind != wire::PassPiece::lost);
  if (kind == wire::PassPiece::finished) return false;
  taken.take(kind, out);
  return true;
}

Bytes bytes_of(const Bulk& value) {
  Bytes bytes;
  encode_whole(value, bytes);
  return bytes;
}

}  // namespace

TEST_CASE("a large value is encoded once, however many stream it in turns", "[protocol]") {
  const bool is_logged = GENERATE(false, true);
  const auto map = host(3);
  commit<Bulk>(*map, {{0, {large, 1}}, {2, {large, 2}}});
  Bulk::encoded = 0;
  // Two that stream the same values at the same pace, and one that is ahead by half a value.
  std::vector<wire::PassCursor> cursors(3, cursor_of(0, 1));
  std::vector<Taken> taken(3);
  for (int i = 0; i < 8; ++i) REQUIRE(step(*map, cursors[2], is_logged, taken[2]));
  CHECK(Bulk::encoded == 1);
  for (bool is_any = true; is_any;) {
    is_any = false;
    for (std::size_t i = 0; i < 3; ++i) is_any = step(*map, cursors[i], is_logged, taken[i]) || is_any;
  }
  CHECK(Bulk::encoded == 2);
  for (const Taken& one : taken) {
    CHECK(one.values == std::map<std::uint64_t, Bytes>{{0, bytes_of({large, 1})}, {2, bytes_of({large, 2})}});
    CHECK(one.pieces == 2 * 16);
  }
  for (const auto& cursor : cursors) CHECK(cursor.encoding == nullptr);
}

TEST_CASE("the encoding of a large value ends with its version, whoever is still within it", "[protocol]") {
  const auto map = host(2, {.log_diffs = 2});
  commit<Bulk>(*map, {{0, {large, 1}}});
  wire::PassCursor stalled = cursor_of(0, 1);
  Taken taken;
  REQUIRE(step(*map, stalled, false, taken));
  const auto encoding = std::static_pointer_cast<Encoding>(stalled.encoding);
  REQUIRE(encoding != nullptr);
  CHECK(encoding->bytes.size() == large + 1);
  commit<Bulk>(*map, {{0, {5, 2}}});
  CHECK_FALSE(encoding->is_revoked);  // the log still has it
  for (int i = 0; i < 3; ++i) commit<Bulk>(*map, {{1, {5, 3}}});
  CHECK(encoding->is_revoked);
  CHECK(encoding->bytes.capacity() == 0);
  // What the stalled one finds then is that the value has changed since.
  CHECK_FALSE(step(*map, stalled, false, taken));
}

TEST_CASE("a diff that is to fit a frame does not encode the large value in it", "[protocol]") {
  const auto map = host(2);
  commit<Bulk>(*map, {{0, {large, 1}}});
  Bulk::encoded = 0;
  Bytes out;
  CHECK(map->encode_merged(0, piece, out) == std::nullopt);
  CHECK(Bulk::encoded == 0);
  commit<Bulk>(*map, {{0, {10, 1}}});
  CHECK(map->encode_merged(0, piece, out) == 2);
}

TEST_CASE("a large value is encoded without the map's lock, and stays until that is done", "[protocol]") {
  const bool is_logged = GENERATE(false, true);
  const auto map = host(2);
  commit<Bulk>(*map, {{0, {large, 1}}});
  std::thread committer;
  Bulk::on_encode = [&](const Bulk& value) {
    if (value.bytes != large || committer.joinable()) return;
    // Would never return if the lock were held.
    Bytes out;
    std::thread([&] { CHECK(map->logged_upto(0, 1) == 1); }).join();
    committer = std::thread([&] { commit<Bulk>(*map, {{0, {7, 9}}}); });
    for (int i = 0; i < 1'000; ++i) std::this_thread::yield();
    CHECK(map->head().update_id == 1);
    CHECK(value == Bulk{large, 1});
  };
  wire::PassCursor cursor = cursor_of(0, 1);
  Taken taken;
  REQUIRE(step(*map, cursor, is_logged, taken));
  CHECK(taken.values.at(0).size() == piece);
  committer.join();
  Bulk::on_encode = nullptr;
  CHECK(map->head().update_id == 2);
}

TEST_CASE("a codec that throws while a large value is streamed costs that stream alone", "[protocol]") {
  const auto map = host(2);
  commit<Bulk>(*map, {{0, {large, 1}}});
  Bulk::on_encode = [](const Bulk&) { throw StateError(StateErrc::not_encodable); };
  wire::PassCursor cursor = cursor_of(0, 1);
  Bytes out;
  CHECK_THROWS_AS(map->encode_pass(cursor, piece, out), StateError);
  Bulk::on_encode = nullptr;
  Taken taken;
  wire::PassCursor other = cursor_of(0, 1);
  while (step(*map, other, false, taken)) {
  }
  CHECK(taken.values.at(0) == bytes_of({large, 1}));
  commit<Bulk>(*map, {{0, {1, 1}}});  // nobody is waited for
}

TEST_CASE("an initial state encodes each large value once, however many pieces it takes", "[protocol]") {
  StateMap<std::string, Bulk> map(Role::master);
  map.push("a", Bulk{10, 1});
  map.push("b", Bulk{large, 2});
  map.push("c", Bulk{20, 3});
  map.freeze();
  const detail::FrozenSource<std::string, Bulk> source(detail::MapAccess::frozen(map));
  wire::InitialCursor whole;
  Bytes expected;
  REQUIRE(source.encode_initial(whole, 2 * large, expected));
  Bulk::encoded = 0;
  wire::InitialCursor first;
  wire::InitialCursor second;
  Bytes a;
  Bytes b;
  for (bool is_any = true; is_any;) {
    const std::size_t before = a.size();
    is_any = source.encode_initial(first, piece, a);
    CHECK(a.size() - before <= piece);
    is_any = source.encode_initial(second, piece, b) || is_any;
  }
  CHECK(a == expected);
  CHECK(b == expected);
  CHECK(Bulk::encoded <= 2 * 4);  // three values each, and one that is cut by the end of a piece
  CHECK(first.entry == nullptr);
}

TEST_CASE("passes name each key once, in order, with its last value, however many there are", "[protocol]") {
  const std::uint64_t seed = GENERATE(1U, 2U, 3U, 4U);
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  // Few of many keys are found by the list of recent changes, many by going through all.
  const std::uint32_t keys = seed % 2 == 0 ? 1'000 : 200'000;
  const auto map = host(keys, {.log_diffs = 10'000});
  std::map<std::uint64_t, Bytes> expected;
  const UpdateId from = 3;
  UpdateId target = 0;
  for (int i = 0; i < 1'500; ++i) {
    std::vector<std::pair<std::uint32_t, Bulk>> changes;
    for (auto n = 1 + random() % 3; n > 0; --n) {
      const auto ordinal = static_cast<std::uint32_t>(random() % keys);
      const Bulk value{static_cast<std::uint32_t>(random() % (i % 100 == 0 ? 9'000 : 50)),
                       static_cast<std::uint8_t>(random())};
      changes.emplace_back(ordinal, value);
    }
    target = commit<Bulk>(*map, changes);
    if (target <= from) continue;
    for (const auto& [ordinal, value] : changes) expected[ordinal] = bytes_of(value);
  }
  for (const bool is_logged : {false, true}) {
    wire::PassCursor cursor = cursor_of(from, target);
    Taken taken;
    while (step(*map, cursor, is_logged, taken, 1'000)) {
    }
    CHECK(taken.values == expected);
    CHECK(taken.order.size() == expected.size());
    CHECK(std::is_sorted(taken.order.begin(), taken.order.end()));
    CHECK(cursor.at_end);
  }
}

}  // namespace syncstate::testing::large_values_test
