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

constexpr std::uint32_t large_initial = 300'000;

/// Hosts a map with two large initial values, at the ordinals 1 and 3.
std::shared_ptr<Map> initial_map() {
  StateMap<std::string, Bulk> map(Role::master);
  map.push("a", Bulk{10, 1});
  map.push("b", Bulk{large_initial, 2});
  map.push("c", Bulk{20, 3});
  map.push("d", Bulk{large_initial, 4});
  map.freeze(0s);
  return std::make_shared<Map>(std::move(map), Limits{});
}

/// A server's session that is asked for the initial state of such a map; counts the encodings of large values.
struct FetchSide {
  FetchSide() {
    server.maps[map->hash()] = map;
    server.authenticate();
    for (wire::InitialCursor cursor; map->encode_initial(cursor, 10 * large_initial, expected);) {
    }
    Bulk::on_encode = [this](const Bulk& value) { encoded_large += value.bytes == large_initial ? 1 : 0; };
  }
  ~FetchSide() { Bulk::on_encode = nullptr; }
  FetchSide(const FetchSide&) = delete;
  FetchSide& operator=(const FetchSide&) = delete;

  void fetch(std::size_t count) {
    Bytes frames;
    for (std::size_t i = 0; i < count; ++i) {
      wire::Fetch ask;
      ask.request = ++last_request;
      ask.hash = map->hash();
      ask.key_type = "string";
      ask.value_type = "bulk";
      wire::append_frame(frames, ask);
    }
    server.feed(frames);
    REQUIRE_FALSE(server.session.is_over());
  }
  void take() { read(server.take()); }
  void take_all() { read(server.take_all()); }

  std::shared_ptr<Map> map = initial_map();
  ServerSide server;
  Bytes expected;
  std::map<wire::ChannelId, Bytes> states;  // by request
  std::size_t encoded_large = 0;
  wire::ChannelId last_request = 0;

 private:
  void read(ByteView bytes) {
    for (const OwnedFrame& frame : split_frames(bytes)) {
      if (frame.kind != wire::FrameKind::state) continue;
      const auto part = wire::decode_body<wire::StatePiece>(frame.body);
      CHECK(part.bytes.size() <= piece);
      states[part.request].insert(states[part.request].end(), part.bytes.begin(), part.bytes.end());
    }
  }
};

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
  CHECK(Bulk::encoded == 2 * 2 + 1);  // the small ones by each, the large one once for both
  CHECK(first.entry == nullptr);
}

TEST_CASE("fetches in flight share the encoding of a large initial value, however many they are",
          "[protocol]") {
  const std::size_t fetches = GENERATE(8U, 64U);
  INFO(fetches << " fetches");
  FetchSide side;
  side.fetch(fetches);
  side.take();
  CHECK(side.encoded_large == 1);  // each fetch had no more than a piece yet
  for (int i = 0; i < 7; ++i) side.take();
  side.fetch(fetches);  // these begin while others are within the first large value
  side.take_all();
  CHECK(side.encoded_large == 2);
  CHECK(side.states.size() == 2 * fetches);
  for (const auto& [request, bytes] : side.states) CHECK(bytes == side.expected);
  // No link sends it any more, so the memory is gone, and another fetch encodes it once more.
  side.encoded_large = 0;
  side.fetch(1);
  side.take_all();
  CHECK(side.encoded_large == 2);
}

TEST_CASE("fetches that follow each other encode a large initial value once for each time it is sent",
          "[protocol]") {
  FetchSide side;
  for (int i = 1; i <= 5; ++i) {
    side.fetch(1);
    side.take_all();
    CHECK(side.encoded_large == 2 * static_cast<std::size_t>(i));
  }
}

TEST_CASE("a link that ends with many fetches in flight had its large value encoded once", "[protocol]") {
  FetchSide side;
  const long uses_before = side.map.use_count();
  side.fetch(1'000);
  for (int i = 0; i < 20; ++i) side.take();
  CHECK(side.map.use_count() == uses_before + 1'000);
  Bulk::encoded = 0;
  side.server.feed(frame_of(wire::Goodbye{}));
  CHECK(side.server.session.is_over());
  CHECK(Bulk::encoded == 0);
  CHECK(side.encoded_large == 1);
  CHECK(side.map.use_count() == uses_before);
}

TEST_CASE("the encoding of a large initial value ends with the last that sends it", "[protocol]") {
  const auto map = initial_map();
  wire::InitialCursor first;
  wire::InitialCursor second;
  Bytes out;
  REQUIRE(map->encode_initial(first, piece, out));
  REQUIRE(map->encode_initial(second, piece, out));
  REQUIRE(first.entry != nullptr);
  CHECK(first.entry == second.entry);
  CHECK(first.entry.use_count() == 2);
  CHECK(first.entry->capacity() == first.entry->size());
  const std::weak_ptr<const Bytes> encoding = first.entry;
  first = {};
  CHECK_FALSE(encoding.expired());
  while (second.next_key == 1) map->encode_initial(second, piece, out);
  CHECK(encoding.expired());
}

TEST_CASE("an initial value that fits a piece is never kept, and opens the next piece", "[protocol]") {
  StateMap<std::string, Bulk> frozen(Role::master);
  frozen.push("a", Bulk{40'000, 1});
  frozen.push("b", Bulk{50'000, 2});
  frozen.push("c", Bulk{60'000, 3});
  frozen.freeze();
  const detail::FrozenSource<std::string, Bulk> source(detail::MapAccess::frozen(frozen));
  wire::InitialCursor whole;
  Bytes expected;
  REQUIRE(source.encode_initial(whole, large, expected));
  wire::InitialCursor cursor;
  Bytes all;
  for (std::uint32_t key = 1; key <= 3; ++key) {
    REQUIRE(source.encode_initial(cursor, piece, all));
    CHECK(cursor.next_key == key);
    CHECK(cursor.offset == 0);
    CHECK(cursor.entry == nullptr);
  }
  CHECK_FALSE(source.encode_initial(cursor, piece, all));
  CHECK(all == expected);
}

TEST_CASE("threads that want one large initial value have it encoded once, and hold up nobody else",
          "[protocol]") {
  const auto map = initial_map();
  wire::InitialCursor known;  // finds which values are large
  for (Bytes out; map->encode_initial(known, piece, out); out.clear()) {
  }
  std::size_t encoded_first = 0;
  std::thread same;
  wire::InitialCursor second;
  Bytes second_out;
  Bulk::on_encode = [&](const Bulk& value) {
    if (value.fill != 2) return;
    if (++encoded_first != 1) return;
    // Would never return if all large values had one lock.
    std::thread([&] {
      wire::InitialCursor other{.next_key = 3};
      Bytes out;
      CHECK(map->encode_initial(other, piece, out));
    }).join();
    same = std::thread([&] { map->encode_initial(second, piece, second_out); });
    for (int i = 0; i < 1'000; ++i) std::this_thread::yield();
  };
  wire::InitialCursor first;
  Bytes first_out;
  REQUIRE(map->encode_initial(first, piece, first_out));
  if (same.joinable()) same.join();
  Bulk::on_encode = nullptr;
  CHECK(encoded_first == 1);
  CHECK(first.entry == second.entry);
  CHECK(first_out == second_out);
}

TEST_CASE("a codec that throws in a large initial value costs that fetch alone", "[protocol]") {
  const auto map = initial_map();
  wire::InitialCursor known;
  Bytes expected;
  while (map->encode_initial(known, piece, expected)) {
  }
  Bulk::on_encode = [](const Bulk& value) {
    if (value.bytes == large_initial) throw StateError(StateErrc::not_encodable);
  };
  wire::InitialCursor cursor;
  Bytes out;
  CHECK_THROWS_AS(map->encode_initial(cursor, piece, out), StateError);
  Bulk::on_encode = nullptr;
  wire::InitialCursor other;
  Bytes all;
  while (map->encode_initial(other, piece, all)) {
  }
  CHECK(all == expected);
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
