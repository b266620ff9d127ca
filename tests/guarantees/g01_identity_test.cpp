// Guarantee 1: a map's hash is its identity on every machine.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/catch.hpp"
#include "syncstate/codec_json.hpp"
#include "syncstate/detail/model/sha256.hpp"
#include "syncstate/syncstate.hpp"

namespace syncstate::testing::g01_identity_test {
namespace {

using Entries = std::vector<std::pair<std::string, std::string>>;

template <class T>
T converted(const std::string& text) {
  const auto* const first = reinterpret_cast<const typename T::value_type*>(text.data());
  return T(first, first + text.size());
}

template <class T>
std::string hash_of(const Entries& entries) {
  StateMap<T, T> map(Role::master);
  for (const auto& [key, value] : entries) map.push(converted<T>(key), converted<T>(value));
  map.freeze();
  return map.hash().hex();
}

std::string unhex(const std::string& hex) {
  std::string text;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return text;
}

std::string value_of(const nlohmann::json& push) {
  if (!push.contains("value_repeat")) return unhex(push.at("value_hex"));
  const auto& repeat = push.at("value_repeat");
  return std::string(repeat.at("count").get<std::size_t>(), unhex(repeat.at("byte_hex")).at(0));
}

/// SHA-256 over what the guarantee lists, spelled out.
std::string hash_by_hand(const std::vector<std::pair<Bytes, Bytes>>& ascending) {
  detail::Sha256 sha;
  for (const auto& [key, value] : ascending) {
    for (const Bytes& bytes : {key, value}) {
      Bytes length;
      for (int shift = 56; shift >= 0; shift -= 8) {
        length.push_back(static_cast<std::byte>(std::uint64_t{bytes.size()} >> shift));
      }
      sha.update(length);
      sha.update(bytes);
    }
  }
  return MapHash(sha.finish()).hex();
}

template <class T>
Bytes codec_bytes(const T& value) {
  Bytes bytes;
  ByteWriter out(bytes);
  Codec<T>::encode(value, out);
  return bytes;
}

struct Place {
  std::string room;
  int seat;
  auto operator<=>(const Place&) const = default;
};

struct WithDouble {
  double x;
  auto operator<=>(const WithDouble&) const = default;
};

}  // namespace

TEST_CASE("guarantee 1: the hashes equal the Rust crate's, for strings and bytes and in any order of push") {
  std::ifstream file(SYNCSTATE_TEST_DATA_DIR "/hash_vectors.json");
  const nlohmann::json vectors = nlohmann::json::parse(file).at("vectors");
  REQUIRE(vectors.size() >= 8);
  std::mt19937 random(1);
  for (const auto& vector : vectors) {
    INFO(vector.at("name").get<std::string>());
    const auto expected = vector.at("sha256").get<std::string>();
    Entries entries;
    for (const auto& push : vector.at("pushes"))
      entries.emplace_back(unhex(push.at("key_hex")), value_of(push));
    for (int order = 0; order < 5; ++order) {
      CHECK(hash_of<std::string>(entries) == expected);
      CHECK(hash_of<std::vector<std::byte>>(entries) == expected);
      std::shuffle(entries.begin(), entries.end(), random);
    }
  }
}

TEST_CASE(
    "guarantee 1: strings and byte containers hash by their contents, keys ascending as unsigned bytes") {
  const auto bytes = [](const std::string& text) {
    const ByteView view = as_byte_view(text);
    return Bytes(view.begin(), view.end());
  };
  const Entries entries = {
      {"\xff", "last"}, {"", "first"}, {"a", std::string(300, 'v')}, {"\x80", ""}, {"ab", "x"}};
  const std::string expected = hash_by_hand({{bytes(""), bytes("first")},
                                             {bytes("a"), bytes(std::string(300, 'v'))},
                                             {bytes("ab"), bytes("x")},
                                             {bytes("\x80"), bytes("")},
                                             {bytes("\xff"), bytes("last")}});
  CHECK(hash_of<std::string>(entries) == expected);
  CHECK(hash_of<std::vector<std::byte>>(entries) == expected);
  CHECK(hash_of<std::vector<char>>(entries) == expected);
  CHECK(hash_of<std::vector<signed char>>(entries) == expected);
  CHECK(hash_of<std::vector<unsigned char>>(entries) == expected);
}

TEST_CASE("guarantee 1: all else hashes by its codec's bytes, keys ascending by <") {
  StateMap<Place, std::vector<int>> map(Role::master);
  map.push({"b", -1}, {1, 2, 300});
  map.push({"a", 10}, {});
  map.push({"a", -10}, {-1});
  map.freeze();
  using Value = std::vector<int>;
  CHECK(map.hash().hex() == hash_by_hand({{codec_bytes(Place{"a", -10}), codec_bytes(Value{-1})},
                                          {codec_bytes(Place{"a", 10}), codec_bytes(Value{})},
                                          {codec_bytes(Place{"b", -1}), codec_bytes(Value{1, 2, 300})}}));
  // Zigzag would order them 0, -1, 1: it is the numbers that count.
  StateMap<std::int64_t, bool> numbers(Role::master);
  for (const std::int64_t n : {1, -1, 0}) numbers.push(n, n == 0);
  numbers.freeze();
  CHECK(numbers.hash().hex() == hash_by_hand({{codec_bytes(std::int64_t{-1}), codec_bytes(false)},
                                              {codec_bytes(std::int64_t{0}), codec_bytes(true)},
                                              {codec_bytes(std::int64_t{1}), codec_bytes(false)}}));
}

TEST_CASE("guarantee 1: the hash is that of the initial state, whatever happens to the map") {
  StateMap<std::string, std::string> map(Role::master);
  map.push("a", "1");
  map.push("b", "2");
  map.freeze();
  const MapHash hash = map.hash();
  map.set("a", "other");
  CHECK(map.hash() == hash);
  const auto copy = map;
  CHECK(copy.hash() == hash);
  CHECK(copy.epoch() != map.epoch());
  StateMap<std::string, std::string> other(Role::master);
  other.push("a", "other");
  other.push("b", "2");
  other.freeze();
  CHECK(other.hash() != hash);
}

TEST_CASE("guarantee 1: keys without one order and values without one encoding do not compile") {
  STATIC_REQUIRE(StateKey<std::string>);
  STATIC_REQUIRE(StateKey<Place>);
  STATIC_REQUIRE(StateKey<std::optional<std::int8_t>>);
  STATIC_REQUIRE_FALSE(StateKey<double>);
  STATIC_REQUIRE_FALSE(StateKey<float>);
  STATIC_REQUIRE_FALSE(StateKey<std::pair<int, double>>);
  STATIC_REQUIRE_FALSE(StateKey<std::vector<float>>);
  STATIC_REQUIRE_FALSE(StateKey<std::variant<int, double>>);
  STATIC_REQUIRE_FALSE(StateKey<WithDouble>);
  STATIC_REQUIRE_FALSE(StateKey<nlohmann::json>);
  STATIC_REQUIRE_FALSE(StateKey<std::pair<int, nlohmann::json>>);
  STATIC_REQUIRE_FALSE(StateKey<std::unordered_map<int, int>>);
  STATIC_REQUIRE_FALSE(StateKey<std::unordered_set<int>>);

  STATIC_REQUIRE(StateValue<double>);
  STATIC_REQUIRE(StateValue<nlohmann::json>);
  STATIC_REQUIRE(StateValue<std::map<int, std::string>>);
  STATIC_REQUIRE_FALSE(StateValue<std::unordered_map<int, int>>);
  STATIC_REQUIRE_FALSE(StateValue<std::unordered_set<std::string>>);
  STATIC_REQUIRE_FALSE(StateValue<std::vector<std::unordered_map<int, int>>>);
}

}  // namespace syncstate::testing::g01_identity_test
