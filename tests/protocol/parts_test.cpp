// The small parts that sessions and servers are made of, each by itself.
#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"
#include "syncstate/backoff.hpp"
#include "syncstate/detail/server/link_table.hpp"
#include "syncstate/detail/wire/initial_state_reader.hpp"
#include "syncstate/inproc.hpp"

namespace parts_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using detail::LinkTable;
using Reader = detail::InitialStateReader<std::string, std::string>;

/// The error that `f` throws; 0 if none.
template <class F>
StateErrc error_of(F&& f) {
  try {
    f();
  } catch (const StateError& error) {
    return wire::reason_of(error);
  }
  return StateErrc{};
}

Bytes initial_state(const std::vector<std::pair<std::string, std::string>>& entries) {
  Bytes out;
  for (const auto& entry : entries) {
    detail::append_sized(entry.first, out);
    detail::append_sized(entry.second, out);
  }
  return out;
}

}  // namespace

// Frames

TEST_CASE("frames are cut out of pieces of any size", "[protocol]") {
  Bytes all;
  std::vector<Bytes> bodies;
  for (const std::size_t size : {0U, 1U, 126U, 127U, 128U, 300U, 20'000U}) {
    bodies.push_back(Bytes(size, static_cast<std::byte>(size)));
    const Bytes frame = raw_frame(4, bodies.back());
    CHECK(frame.size() == varint_size(size + 1) + 1 + size);
    all.insert(all.end(), frame.begin(), frame.end());
  }
  for (const std::size_t size : {1U, 2U, 3U, 100U, 129U, 30'000U}) {
    INFO("pieces of " << size);
    wire::FrameReader reader(1 << 20);
    std::vector<Bytes> came;
    for (std::size_t i = 0; i < all.size(); i += size) {
      reader.feed(ByteView(all).subspan(i, std::min(size, all.size() - i)), [&](const wire::Frame& frame) {
        came.emplace_back(frame.body.begin(), frame.body.end());
        return true;
      });
    }
    CHECK(came == bodies);
    CHECK(reader.pending_bytes() == 0);
  }
}

TEST_CASE("a reader of frames keeps what came, never what a length claims", "[protocol][guarantee_9]") {
  wire::FrameReader reader(1 << 20);
  reader.feed(Bytes{std::byte{0x80}, std::byte{0x80}, std::byte{0x40}},
              [](const wire::Frame&) { return true; });
  CHECK(reader.pending_bytes() == 3);
  reader.feed(Bytes(10), [](const wire::Frame&) { return true; });
  CHECK(reader.pending_bytes() == 13);
}

TEST_CASE("a reader stops at the frame that ends the session", "[protocol]") {
  wire::FrameReader reader(100);
  int frames = 0;
  Bytes two = raw_frame(4);
  const Bytes second = raw_frame(4);
  two.insert(two.end(), second.begin(), second.end());
  reader.feed(two, [&](const wire::Frame&) {
    ++frames;
    return false;
  });
  CHECK(frames == 1);
}

// Initial states

TEST_CASE("an initial state is put together from pieces of any size", "[protocol]") {
  const auto map = make_master<std::string>(50, std::string(200, 'v'));
  Bytes all;
  protocol::InitialCursor cursor;
  const detail::FrozenSource<std::string, std::string> source(detail::MapAccess::frozen(map));
  while (source.encode_initial(cursor, 37, all)) {
  }
  for (const std::size_t size : {1U, 2U, 199U, 100'000U}) {
    INFO("pieces of " << size);
    Reader reader({});
    for (std::size_t i = 0; i < all.size(); i += size) {
      reader.feed(ByteView(all).subspan(i, std::min(size, all.size() - i)));
    }
    const auto frozen = reader.finish(map.hash());
    CHECK(frozen->hash() == map.hash());
    CHECK(frozen->size() == 50);
  }
  SECTION("a map without keys is a map too") {
    Reader reader({});
    CHECK(reader.finish(make_master<std::string>(0, "").hash())->size() == 0);
  }
  SECTION("one of another hash is refused") {
    Reader reader({});
    reader.feed(all);
    CHECK(error_of([&] { reader.finish(MapHash()); }) == StateErrc::hash_mismatch);
  }
  SECTION("one that ends within an entry is refused") {
    Reader reader({});
    reader.feed(ByteView(all).first(all.size() - 1));
    CHECK(error_of([&] { reader.finish(map.hash()); }) == StateErrc::decode_error);
  }
}

TEST_CASE("an initial state that breaks a rule or a limit is refused as it comes",
          "[protocol][guarantee_10]") {
  Limits limits;
  limits.keys_per_map = 2;
  limits.value_bytes = 10;
  limits.map_bytes = 40;
  Reader reader(limits);
  const auto feed = [&](const Bytes& bytes) { return error_of([&] { reader.feed(bytes); }); };
  SECTION("keys that do not ascend") {
    CHECK(feed(initial_state({{"b", ""}, {"a", ""}})) == StateErrc::decode_error);
  }
  SECTION("a key that comes twice") {
    CHECK(feed(initial_state({{"a", ""}, {"a", ""}})) == StateErrc::decode_error);
  }
  SECTION("keys ascend as unsigned bytes") {
    CHECK(feed(initial_state({{"\x7F", ""}, {"\x80", ""}})) == StateErrc{});
  }
  SECTION("too many keys") {
    CHECK(feed(initial_state({{"a", ""}, {"b", ""}})) == StateErrc{});
    CHECK(feed(initial_state({{"c", ""}})) == StateErrc::too_large);
  }
  SECTION("a length is refused before its bytes are waited for") {
    CHECK(feed(Bytes{std::byte{11}}) == StateErrc::too_large);
  }
  SECTION("a value's length too") {
    CHECK(feed(Bytes{std::byte{1}, std::byte{'a'}, std::byte{11}}) == StateErrc::too_large);
  }
  SECTION("as large as allowed") {
    CHECK(feed(initial_state({{"0123456789", "0123456789"}})) == StateErrc{});
  }
  SECTION("more in all than allowed") { CHECK(feed(Bytes(41)) == StateErrc::too_large); }
  SECTION("a length of 2^63") {
    Bytes bytes;
    ByteWriter(bytes).put_varint(std::uint64_t{1} << 63);
    CHECK(feed(bytes) == StateErrc::too_large);
  }
  SECTION("a length in a longer form") {
    CHECK(feed(Bytes{std::byte{0x81}, std::byte{0x00}}) == StateErrc::decode_error);
  }
  SECTION("a length without an end") { CHECK(feed(Bytes(12, std::byte{0xFF})) == StateErrc::decode_error); }
}

TEST_CASE("an initial state of values that are no values is refused", "[protocol][guarantee_10]") {
  detail::InitialStateReader<std::int64_t, bool> reader({});
  Bytes bytes{std::byte{1}, std::byte{0}, std::byte{1}, std::byte{2}};  // 0: neither true nor false
  CHECK(error_of([&] { reader.feed(bytes); }) == StateErrc::decode_error);
}

// Links

TEST_CASE("links are bounded, in all and by address", "[protocol][guarantee_9]") {
  Limits limits;
  limits.links = 5;
  limits.links_per_address = 3;
  LinkTable table(limits);
  LinkTable::LinkId id = 0;
  for (int i = 0; i < 3; ++i) CHECK(table.admit(++id, "a", t0).is_admitted);
  CHECK_FALSE(table.admit(99, "a", t0).is_admitted);
  CHECK(table.admit(++id, "b", t0).is_admitted);
  CHECK(table.admit(++id, "b", t0).is_admitted);
  CHECK_FALSE(table.admit(99, "c", t0).is_admitted);
  CHECK(table.total() == 5);
  table.closed(1, "a", t0);
  CHECK(table.admit(++id, "c", t0).is_admitted);
  CHECK(table.total() == 5);
}

TEST_CASE("an address that fills the room for unproven links gives way", "[protocol][guarantee_9]") {
  Limits limits;
  limits.pending_links = 4;
  LinkTable table(limits);
  CHECK(table.admit(1, "good", t0).is_admitted);
  for (LinkTable::LinkId id = 2; id <= 4; ++id) CHECK(table.admit(id, "flood", t0).is_admitted);
  CHECK_FALSE(table.admit(5, "flood", t0).is_admitted);
  const auto newcomer = table.admit(6, "good", t0);
  CHECK(newcomer.is_admitted);
  CHECK(newcomer.evicted == 2U);  // the oldest from there
  table.closed(2, "flood", t0);
  table.authenticated(1);  // makes room without anybody's loss
  const auto next = table.admit(7, "flood", t0);
  CHECK(next.is_admitted);
  CHECK_FALSE(next.evicted);
  CHECK(table.total() == 5);
}

TEST_CASE("links that end without a proof use up an address's room, and proofs give it back",
          "[protocol][guarantee_9]") {
  Limits limits;
  limits.unproven_links_per_minute = 6;
  LinkTable table(limits);
  LinkTable::LinkId id = 0;
  const auto come_and_go = [&](const char* address, TimePoint now, bool proves_itself) {
    if (!table.admit(++id, address, now).is_admitted) return false;
    if (proves_itself) table.authenticated(id);
    table.closed(id, address, now);
    return true;
  };
  for (int i = 0; i < 100; ++i) CHECK(come_and_go("fleet", t0, true));
  for (int i = 0; i < 6; ++i) CHECK(come_and_go("flood", t0, false));
  CHECK_FALSE(come_and_go("flood", t0, false));
  CHECK_FALSE(come_and_go("flood", t0 + 9'999ms, true));
  CHECK(come_and_go("bystander", t0, false));
  CHECK(come_and_go("flood", t0 + 10s, false));  // six in a minute, spread over it
  CHECK_FALSE(come_and_go("flood", t0 + 10s, false));
  CHECK(come_and_go("flood", t0 + 80s, false));
  CHECK(table.total() == 0);
}

TEST_CASE("an attacker with many addresses does not fill the memory, nor have all others forgotten",
          "[protocol][guarantee_9]") {
  Limits limits;
  limits.addresses = 100;
  limits.unproven_links_per_minute = 3;
  LinkTable table(limits);
  LinkTable::LinkId id = 0;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(table.admit(++id, "known", t0).is_admitted);
    table.closed(id, "known", t0);
  }
  REQUIRE(table.admit(++id, "linked", t0).is_admitted);
  for (int i = 0; i < 1'000; ++i) {
    const std::string address = "one of many " + std::to_string(i);
    REQUIRE(table.admit(++id, address, t0).is_admitted);
    table.closed(id, address, t0);
    REQUIRE(table.addresses() <= 100);
  }
  CHECK_FALSE(table.admit(++id, "known", t0).is_admitted);
  CHECK(table.total() == 1);
}

TEST_CASE("wrong proofs bar an address for a minute", "[protocol][guarantee_9]") {
  const Limits limits;
  LinkTable table(limits);
  for (int i = 0; i < 10; ++i) {
    CHECK_FALSE(table.is_barred("a", t0 + std::chrono::seconds(i)));
    table.proof_failed("a", t0 + std::chrono::seconds(i));
  }
  CHECK(table.is_barred("a", t0 + 10s));
  CHECK_FALSE(table.is_barred("b", t0 + 10s));
  CHECK(table.is_barred("a", t0 + 59'999ms));
  CHECK_FALSE(table.is_barred("a", t0 + 60s));  // the first is a minute ago
  table.proof_failed("a", t0 + 60s);
  CHECK(table.is_barred("a", t0 + 60s));
  CHECK_FALSE(table.is_barred("a", t0 + 200s));
}

TEST_CASE("the proofs of a barred address are not told apart, and do not count", "[protocol][guarantee_9]") {
  using Standing = wire::ProofStanding;
  const Limits limits;
  LinkTable table(limits);
  for (int i = 0; i < 10; ++i) CHECK(table.proof_checked(1, "a", Standing::wrong, t0));
  // Links of other threads were let go on with their proofs before the tenth of these was wrong.
  for (const Standing standing : {Standing::right, Standing::retired, Standing::wrong}) {
    CHECK_FALSE(table.proof_checked(2, "a", standing, t0 + 1s));
    CHECK(table.proof_checked(3, "b", standing, t0 + 1s));
  }
  CHECK(table.is_barred("a", t0 + 59'999ms));
  for (const Standing standing : {Standing::right, Standing::retired, Standing::wrong}) {
    CHECK(table.proof_checked(4, "a", standing, t0 + 60s));
  }
}

TEST_CASE("links opened side by side have ten wrong proofs together", "[protocol][guarantee_9]") {
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();
  inproc::StateServer<std::string, std::string, int> server(time, port, {.passwords = {"right"}});
  server.start();
  std::vector<std::unique_ptr<inproc::StateRemote>> guessers;
  for (int i = 0; i < 15; ++i) {
    const RemoteCoreOptions options{.password = "wrong " + std::to_string(i)};
    guessers.push_back(std::make_unique<inproc::StateRemote>(time, port, options));
  }
  time.advance(0ms);
  std::map<std::error_code, int> reasons;
  for (const auto& guesser : guessers) ++reasons[guesser->status().reason];
  CHECK(reasons[StateErrc::unauthorized] == 10);
  CHECK(reasons[StateErrc::busy] == 5);
}

// Backoff

TEST_CASE("the wait before a reconnect is anything up to a bound that doubles", "[protocol]") {
  const auto seed = GENERATE(range(0U, 5U));
  INFO("seed " << seed);
  std::mt19937_64 rng(seed);
  const BackoffOptions options;
  for (const auto& [attempt, most] : std::vector<std::pair<unsigned, std::chrono::milliseconds>>{
           {0, 250ms},
           {1, 500ms},
           {2, 1s},
           {6, 16s},
           {7, 30s},
           {64, 30s},
           {std::numeric_limits<unsigned>::max(), 30s}}) {
    INFO("attempt " << attempt);
    auto least = 1h * 1.0;
    auto longest = 0h * 1.0;
    for (int i = 0; i < 300; ++i) {
      const auto wait = backoff(options, attempt, rng);
      if (wait < 0ms || wait > most) FAIL("a wait of " << wait.count() << " ms");
      least = std::min<decltype(least)>(least, wait);
      longest = std::max<decltype(longest)>(longest, wait);
    }
    CHECK(least < most * 0.1);  // jittered from the first on: no crowd comes back at once
    CHECK(longest > most * 0.9);
  }
  CHECK(backoff({0ms, 0ms}, 3, rng) == 0ms);
}

}  // namespace parts_test
