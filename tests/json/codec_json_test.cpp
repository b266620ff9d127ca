// The codec of JSON: documents and opted-in types come back, hostile CBOR is refused, depth costs no stack.
#include "syncstate/codec_json.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "support/catch.hpp"
#include "support/codec_properties.hpp"
#include "syncstate/concepts.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/state_map.hpp"

namespace lobby {

struct Lobby {
  std::string name;
  int players = 0;
  bool operator==(const Lobby&) const = default;
};

void to_json(nlohmann::json& out, const Lobby& value) {
  out = {{"name", value.name}, {"players", value.players}};
}

void from_json(const nlohmann::json& in, Lobby& value) {
  in.at("name").get_to(value.name);
  in.at("players").get_to(value.players);
}

}  // namespace lobby

template <>
inline constexpr bool syncstate::encode_as_json<lobby::Lobby> = true;

namespace {

using lobby::Lobby;
using nlohmann::json;
using syncstate::Bytes;
using syncstate::decode_whole;
using syncstate::memory_bytes;
using syncstate::StateErrc;
using syncstate::StateError;
using syncstate::StateKey;
using syncstate::StateValue;
using syncstate::type_name;
using syncstate::testing::bytes_of_copy;
using syncstate::testing::check_codec;
using syncstate::testing::CodecFacts;
using syncstate::testing::hex;
using syncstate::testing::whole;

/// JSON within an aggregate, not last: an item must tell its own end.
struct Report {
  json before;
  Lobby lobby;
  std::optional<json> maybe;
  std::vector<json> list;
  json after;
  int number = 0;
  bool operator==(const Report&) const = default;
};

// An entry of an object takes two bytes at least, and a node of a tree with a key and a value; the parser
// keeps the key beside it for a moment.
constexpr CodecFacts facts{128, false};

json random_json(std::mt19937_64& rng, int depth) {
  switch (rng() % (depth > 0 ? 9 : 7)) {
    case 0: return nullptr;
    case 1: return rng() % 2 == 0;
    case 2: return static_cast<std::int64_t>(rng() >> (rng() % 64));
    case 3: return -static_cast<std::int64_t>(rng() >> (1 + rng() % 63));
    case 4: return static_cast<double>(rng() >> (rng() % 64)) / 8;
    case 5: return std::string(rng() % 30, 'x');
    case 6: return json::binary(std::vector<std::uint8_t>(rng() % 5, 0xff));
    case 7: {
      json array = json::array();
      for (auto n = rng() % 4; n > 0; --n) array.push_back(random_json(rng, depth - 1));
      return array;
    }
    default: {
      json object = json::object();
      for (auto n = rng() % 4; n > 0; --n) object[std::to_string(rng() % 100)] = random_json(rng, depth - 1);
      return object;
    }
  }
}

json nested_json(int depth, bool in_objects) {
  json document = 1;
  for (; depth > 0; --depth) {
    json outer = in_objects ? json::object() : json::array();
    if (in_objects) {
      outer["k"] = std::move(document);
    } else {
      outer.push_back(std::move(document));
    }
    document = std::move(outer);
  }
  return document;
}

Bytes bytes_of(std::initializer_list<unsigned> values) {
  Bytes bytes;
  for (const unsigned v : values) bytes.push_back(static_cast<std::byte>(v));
  return bytes;
}

template <class F>
std::error_code code_of(F&& f) {
  try {
    f();
  } catch (const StateError& error) {
    return error.code();
  }
  return {};
}

template <class T = json>
bool is_refused(const Bytes& bytes) {
  return code_of([&] { decode_whole<T>(bytes); }) == StateErrc::decode_error;
}

}  // namespace

TEST_CASE("codec_json: documents come back, and hostile bytes are values or refused") {
  const std::uint64_t seed = 20'26;
  INFO("seed " << seed);
  std::mt19937_64 rng(seed);
  for (int round = 0; round < 25; ++round) check_codec(random_json(rng, 3), facts);
}

TEST_CASE("codec_json: kinds and numbers are kept") {
  const json document = {{"one", 1},
                         {"float", 1.0},
                         {"negative zero", -0.0},
                         {"most", std::numeric_limits<std::uint64_t>::max()},
                         {"least", std::numeric_limits<std::int64_t>::min()},
                         {"tiny", std::numeric_limits<double>::denorm_min()},
                         {"infinite", std::numeric_limits<double>::infinity()},
                         {"array", json::array()},
                         {"object", json::object()},
                         {"", nullptr},
                         {"bytes", json::binary({1, 2, 255})}};
  check_codec(document, facts);
  const json back = decode_whole<json>(whole(document));
  CHECK(back["one"].is_number_integer());
  CHECK(back["float"].is_number_float());
  CHECK(back["most"] == std::numeric_limits<std::uint64_t>::max());
  CHECK(back["array"].is_array());
  CHECK(back["object"].is_object());
  CHECK(back["bytes"].is_binary());
  CHECK(decode_whole<json>(whole(json(std::numeric_limits<double>::quiet_NaN()))).is_number_float());
  CHECK(decode_whole<json>(whole(json("\xff not UTF-8"))) == json("\xff not UTF-8"));
}

TEST_CASE("codec_json: the bytes are CBOR") {
  CHECK(hex(whole(json(nullptr))) == "f6");
  CHECK(hex(whole(json(true))) == "f5");
  CHECK(hex(whole(json(500))) == "19 01 f4");
  CHECK(hex(whole(json(-1))) == "20");
  CHECK(hex(whole(json(1.0))) == "fa 3f 80 00 00");
  CHECK(hex(whole(json("a"))) == "61 61");
  CHECK(hex(whole(json{{"b", json::array({1, 2})}, {"a", 1}})) == "a2 61 61 01 61 62 82 01 02");
  CHECK(hex(whole(json::binary({7}))) == "41 07");
  CHECK(hex(whole(Lobby{"x", 2})) == "a2 64 6e 61 6d 65 61 78 67 70 6c 61 79 65 72 73 02");
}

TEST_CASE("codec_json: types that say so are JSON, alone and within others") {
  CHECK(type_name<json>() == "json");
  CHECK(type_name<Lobby>() == "json");
  CHECK(type_name<Report>() == "{json,json,json?,[json],json,i32}");
  check_codec(Lobby{"red", 3}, facts);
  check_codec(Report{{1, "two"}, {"blue", 4}, json::object(), {json(), json("x")}, json::array({3}), 7},
              facts);
  check_codec(std::map<std::string, json>{{"a", 1}, {"b", nullptr}}, facts);
  check_codec(std::variant<int, json>(json("x")), facts);
  check_codec(std::pair<json, json>(json(1), json(2)), facts);
  check_codec(std::tuple<json, int>(json("x"), 5), facts);
  check_codec(std::tuple<json>(json("x")), facts);
  check_codec(std::array<json, 1>{json("x")}, facts);
  CHECK(is_refused<Lobby>(whole(json{{"name", "no players"}})));
  CHECK(is_refused<Lobby>(whole(json{{"name", 1}, {"players", 1}})));
}

TEST_CASE("codec_json: 64 levels are a document, one more is refused on either side") {
  for (const bool in_objects : {false, true}) {
    const json deepest = nested_json(64, in_objects);
    CHECK(decode_whole<json>(whole(deepest)) == deepest);
    const json deeper = nested_json(65, in_objects);
    CHECK(code_of([&] { whole(deeper); }) == StateErrc::too_large);
    std::vector<std::uint8_t> cbor = json::to_cbor(deeper);
    Bytes bytes;
    for (const std::uint8_t b : cbor) bytes.push_back(static_cast<std::byte>(b));
    CHECK(is_refused(bytes));
  }
}

TEST_CASE("codec_json: nested 100,000 deep is refused, not crashed on") {
  CHECK(code_of([] { whole(nested_json(100'000, false)); }) == StateErrc::too_large);
  CHECK(code_of([] { whole(nested_json(100'000, true)); }) == StateErrc::too_large);
  // Arrays, objects, tags, and strings, bytes, arrays and objects without a length.
  for (const unsigned nest : {0x81u, 0xc1u, 0x7fu, 0x5fu, 0x9fu, 0xbfu}) {
    INFO("of " << nest);
    CHECK(is_refused(Bytes(100'000, static_cast<std::byte>(nest))));
  }
  Bytes arrays(100'000, std::byte{0x81});
  arrays.push_back(std::byte{0});  // complete
  CHECK(is_refused(arrays));
  Bytes objects;
  for (int i = 0; i < 100'000; ++i) {
    for (const unsigned b : {0xa1u, 0x61u, 0x61u}) objects.push_back(static_cast<std::byte>(b));
  }
  objects.push_back(std::byte{0});
  CHECK(is_refused(objects));
}

TEST_CASE("codec_json: a map refuses 100,000 levels before it copies them, wherever they come in") {
  using syncstate::Diff;
  using syncstate::Role;
  using syncstate::StateMap;
  const json deep = nested_json(100'000, false);  // is not copied: that would overflow the stack
  StateMap<std::string, json> master(Role::master);
  CHECK(code_of([&] { master.push("b", nested_json(100'000, true)); }) == StateErrc::too_large);
  CHECK(code_of([&] { master.push("b", nested_json(65, true)); }) == StateErrc::too_large);
  CHECK(code_of([&] { master.push("b", deep); }) == StateErrc::too_large);
  CHECK(!master.contains("b"));
  master.push("a", nested_json(64, true));
  master.freeze();
  CHECK(code_of([&] { master.set("a", deep); }) == StateErrc::too_large);
  CHECK(code_of([&] { master.set("a", nested_json(65, false)); }) == StateErrc::too_large);
  CHECK(code_of([&] { master.begin_modification().set("a", nested_json(100'000, false)); }) ==
        StateErrc::too_large);
  CHECK(code_of([&] { master.begin_modification().set("a", deep); }) == StateErrc::too_large);
  auto modification = master.begin_modification();
  CHECK(code_of([&] { modification.set("a", deep); }) == StateErrc::too_large);
  CHECK(code_of([&] { modification.set("a", nested_json(100'000, true)); }) == StateErrc::too_large);
  CHECK(modification.commit() == 0);
  Diff<std::string, json> diff(master, master.epoch(), 0, 1);
  CHECK(code_of([&] { diff.set("a", deep); }) == StateErrc::too_large);
  CHECK(code_of([&] { diff.set("a", nested_json(100'000, true)); }) == StateErrc::too_large);
  CHECK(diff.is_empty());
  CHECK(master.update_id() == 0);
  master.set("a", nested_json(64, false));
  CHECK(*master.get("a") == nested_json(64, false));

  // Within other values too.
  StateMap<int, std::vector<Report>> reports(Role::master);
  const auto with = [](json after) {
    std::vector<Report> list(1);
    list[0].after = std::move(after);
    return list;
  };
  CHECK(code_of([&] { reports.push(1, with(nested_json(100'000, true))); }) == StateErrc::too_large);
  const std::vector<Report> deep_reports = with(nested_json(100'000, true));
  CHECK(code_of([&] { reports.push(1, deep_reports); }) == StateErrc::too_large);
  reports.push(1, with(nested_json(64, true)));
  reports.freeze();
  CHECK(code_of([&] { reports.set(1, with(nested_json(100'000, false))); }) == StateErrc::too_large);
  CHECK(code_of([&] { reports.begin_modification().set(1, deep_reports); }) == StateErrc::too_large);
  Diff<int, std::vector<Report>> of_reports(reports, reports.epoch(), 0, 1);
  CHECK(code_of([&] { of_reports.set(1, deep_reports); }) == StateErrc::too_large);
  CHECK(reports.update_id() == 0);
}

TEST_CASE("codec_json: values in braces may be given to every setter") {
  using syncstate::StateMap;
  StateMap<std::string, json> map(syncstate::Role::master);
  map.push("a", {});
  map.push("b", {1, 2});
  map.push("c", {{"name", "value"}});
  map.freeze();
  CHECK(*map.get("a") == json());
  CHECK(*map.get("b") == json::array({1, 2}));
  CHECK(map.get("c")->at("name") == "value");
  map.begin_modification().set("a", {3}).set("b", "text").set("c", {}).commit();
  auto modification = map.begin_modification();
  modification.set("c", {{"other", 4}});
  modification.commit();
  CHECK(*map.get("a") == json::array({3}));
  CHECK(*map.get("b") == "text");
  CHECK(map.get("c")->at("other") == 4);
  syncstate::Diff<std::string, json> diff(map, map.epoch(), 2, 3);
  diff.set("a", {}).set("b", {5, 6});
  CHECK(diff.size() == 2);

  StateMap<int, std::vector<std::string>> lists(syncstate::Role::master);
  lists.push(1, {});
  lists.push(2, {"x", "y"});
  lists.freeze();
  lists.begin_modification().set(1, {"z"}).set(2, {}).commit();
  CHECK(lists.get(1)->front() == "z");
  CHECK(lists.get(2)->empty());
}

TEST_CASE(
    "codec_json: what our side encodes the other decodes, and one value or key too many is refused on "
    "either") {
  const std::size_t most = syncstate::max_json_nodes;
  CHECK(most == 262'144);
  // The array itself, and what is in it.
  json widest = json::array();
  for (std::size_t i = 1; i < most; ++i) widest.push_back(i % 2 == 0 ? json::array() : json(0));
  CHECK(decode_whole<json>(whole(widest)) == widest);
  widest.push_back(0);
  CHECK(code_of([&] { whole(widest); }) == StateErrc::too_large);
  // Keys count as values do.
  json named = json::object();
  for (std::size_t i = 0; i < (most - 2) / 2; ++i) named[std::to_string(i)] = 0;
  CHECK(decode_whole<json>(whole(named)) == named);
  named["one more"] = 0;
  CHECK(code_of([&] { whole(named); }) == StateErrc::too_large);
  // Spread over levels, it is the sum that counts.
  json halves = json::array({json(most / 2 - 2, 0), json(most / 2 - 2, 0), 0});
  CHECK(decode_whole<json>(whole(halves)) == halves);
  halves.push_back(0);
  CHECK(code_of([&] { whole(halves); }) == StateErrc::too_large);
}

TEST_CASE("codec_json: hostile documents of too many values are refused before they take memory") {
  const std::size_t most = syncstate::max_json_nodes;
  for (const unsigned leaf : {0x80U, 0xa0U, 0x60U, 0x40U, 0xf6U}) {
    Bytes bytes =
        bytes_of({0x9a, 0, 4, 0, 0});  // an array of `most` elements, which with itself are one too many
    bytes.insert(bytes.end(), most, static_cast<std::byte>(leaf));
    const std::size_t before = syncstate::testing::allocated_bytes;
    CHECK(is_refused(bytes));
    CHECK(syncstate::testing::allocated_bytes - before < 2'048);
    // One fewer is a document, which holds what is documented.
    bytes[2] = std::byte{3}, bytes[3] = bytes[4] = std::byte{0xff};
    bytes.pop_back();
    const json document = decode_whole<json>(bytes);
    CHECK(document.size() == most - 1);
    CHECK(memory_bytes(document) <= 80 * most);
  }
  // Objects of one entry within each other, and entries of objects: keys count.
  Bytes objects = bytes_of({0x9a, 0, 2, 0, 0});
  for (std::size_t i = 0; i < most / 2; ++i) {
    objects.push_back(std::byte{0xa1});
    objects.push_back(std::byte{0x60});
    objects.push_back(std::byte{0xa0});
  }
  CHECK(is_refused(objects));
  // Within other values too, and for types that are JSON on the wire alone.
  Bytes nested_in = bytes_of({1, 0x9a, 0, 4, 0, 0});
  nested_in.insert(nested_in.end(), most, std::byte{0xf6});
  CHECK(is_refused<std::optional<json>>(nested_in));
}

TEST_CASE("codec_json: many documents in one value are limited as one is, on either side") {
  // Each empty object takes one byte of the encoding.
  std::vector<json> many(180'000, json::object());
  CHECK(decode_whole<std::vector<json>>(whole(many)) == many);
  many.resize(1'000'000, json::object());
  CHECK(code_of([&] { whole(many); }) == StateErrc::too_large);
  Bytes bytes;
  syncstate::ByteWriter(bytes).put_varint(1'000'000);
  bytes.insert(bytes.end(), 1'000'000, std::byte{0xa0});
  std::size_t spent = syncstate::testing::allocated_bytes;
  CHECK(is_refused<std::vector<json>>(bytes));
  spent = syncstate::testing::allocated_bytes - spent;
  CHECK(spent < 33'000'000);
}

TEST_CASE("codec_json: a claimed length costs no memory") {
  for (const unsigned kind : {0x5bu, 0x7bu, 0x9bu, 0xbbu}) {
    for (const unsigned high : {0x00u, 0x7fu, 0x80u, 0xffu}) {
      Bytes claim = bytes_of({kind, high, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00});
      const std::size_t before = syncstate::testing::allocated_bytes;
      CHECK(is_refused(claim));
      CHECK(syncstate::testing::allocated_bytes - before < 2'048);
    }
  }
  // Each array claims all that is left: together they may not promise more than there is.
  Bytes greedy;
  for (unsigned depth = 0; depth < 60; ++depth) {
    for (const unsigned b : {0x99u, 0x10u, 0x00u}) greedy.push_back(static_cast<std::byte>(b));
  }
  greedy.resize(10'000);
  const std::size_t before = syncstate::testing::allocated_bytes;
  CHECK(is_refused(greedy));
  CHECK(syncstate::testing::allocated_bytes - before < 2'048);
}

TEST_CASE("codec_json: what is no JSON is refused") {
  CHECK(is_refused({}));
  CHECK(is_refused(bytes_of({0x01, 0x01})));                          // two items
  CHECK(is_refused(bytes_of({0xff})));                                // a break without a beginning
  CHECK(is_refused(bytes_of({0x1c})));                                // reserved
  CHECK(is_refused(bytes_of({0xf7})));                                // undefined
  CHECK(is_refused(bytes_of({0xa1, 0x01, 0x01})));                    // a key that is no string
  CHECK(is_refused(bytes_of({0xa2, 0x61, 0x61, 1, 0x61, 0x61, 2})));  // a key twice
  CHECK(is_refused(bytes_of({0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0})));     // below the integers of 64 bits
  CHECK(!is_refused(bytes_of({0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})));
}

TEST_CASE("codec_json: memory_bytes counts every node, key, string and array") {
  const auto exact = [](const char* what, const json& document) {
    const json copy = document;
    const std::size_t owned = memory_bytes(copy) - sizeof(json);
    const std::size_t spent = bytes_of_copy(document);
    INFO(what << " owns " << spent << ", said to own " << owned);
    CHECK((owned >= spent && owned <= 2 * spent));
  };
  exact("a number", 1);
  exact("an empty string", "");
  exact("a string", std::string(1'000, 'x'));
  exact("bytes", json::binary(std::vector<std::uint8_t>(100)));
  exact("empty arrays", json(1'000, json::array()));
  exact("empty objects", json(1'000, json::object()));
  exact("empty strings", json(1'000, json("")));
  exact("no bytes", json(1'000, json::binary({})));
  exact("objects of one", json(1'000, json{{"", {{"", {{"", 0}}}}}}));
  exact("long keys", json(100, json{{std::string(100, 'k'), std::string(100, 'v')}}));
  std::mt19937_64 rng(7);
  for (int round = 0; round < 100; ++round) exact("something, seed 7", random_json(rng, 5));
  // Deeper than anything that is encoded: counted without recursion.
  CHECK(memory_bytes(nested_json(100'000, true)) > 100'000 * 128);
  // Of a type that is JSON on the wire alone, only its encoding is known.
  CHECK(memory_bytes(Lobby{"x", 1}) == sizeof(Lobby) + 32 * whole(Lobby{"x", 1}).size());
}

TEST_CASE("codec_json: what has no encoding is refused by name") {
  CHECK(code_of([] { whole(json(json::value_t::discarded)); }) == StateErrc::not_encodable);
  CHECK(code_of([] { whole(json::array({json::binary({1}, 5)})); }) == StateErrc::not_encodable);
}

static_assert(StateValue<json> && StateValue<Lobby> && StateValue<Report> && StateValue<std::vector<json>>);
static_assert(!StateKey<json> && !StateKey<Lobby> && !StateKey<Report> && !StateKey<std::pair<int, json>>);
