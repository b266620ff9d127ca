// Identity (docs/guarantees.md, 1): the hash of a map, the order of its keys, and finding them.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/catch.hpp"
#include "syncstate/detail/model/packed_keys.hpp"
#include "syncstate/detail/model/random.hpp"
#include "syncstate/detail/model/sha256.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate::testing::identity_test {

struct Seat {
  std::string room;
  int number;
  auto operator<=>(const Seat&) const = default;
};

enum class Color : std::uint8_t { red, green, blue };

namespace {

using TextEntries = std::vector<std::pair<std::string, std::string>>;

template <class T>
T converted(const std::string& text) {
  const auto* const first = reinterpret_cast<const typename T::value_type*>(text.data());
  return T(first, first + text.size());
}

template <class K, class V>
MapHash hash_of(const TextEntries& entries) {
  StateMap<K, V> map(Role::master);
  for (const auto& [key, value] : entries) map.push(converted<K>(key), converted<V>(value));
  map.freeze();
  return map.hash();
}

std::string unhex(const std::string& hex) {
  std::string text;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return text;
}

std::string value_of(const nlohmann::json& push) {
  if (!push.contains("value_repeat")) return unhex(push.at("value_hex"));
  const auto& repeat = push.at("value_repeat");
  return std::string(repeat.at("count").get<std::size_t>(), unhex(repeat.at("byte_hex")).at(0));
}

template <class K>
std::vector<K> keys_in_order(std::vector<K> keys) {
  StateMap<K, int> map(Role::master);
  for (const K& key : keys) map.push(key, 1);
  map.freeze();
  keys.clear();
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

}  // namespace

TEST_CASE("hashes equal the vectors, for every kind of string and in any order of push") {
  std::ifstream file(SYNCSTATE_TEST_DATA_DIR "/hash_vectors.json");
  const nlohmann::json vectors = nlohmann::json::parse(file).at("vectors");
  REQUIRE(vectors.size() >= 8);
  const auto seed = static_cast<unsigned>(detail::random_u64());
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (const auto& vector : vectors) {
    INFO(vector.at("name").get<std::string>());
    const MapHash expected = MapHash::from_hex(vector.at("sha256").get<std::string>());
    TextEntries entries;
    for (const auto& push : vector.at("pushes")) {
      entries.emplace_back(unhex(push.at("key_hex")), value_of(push));
    }
    for (int order = 0; order < 6; ++order) {
      CHECK(hash_of<std::string, std::string>(entries) == expected);
      CHECK(hash_of<std::vector<std::byte>, std::vector<std::byte>>(entries) == expected);
      CHECK(hash_of<std::vector<signed char>, std::vector<char>>(entries) == expected);
      CHECK(hash_of<std::vector<char>, std::string>(entries) == expected);
      CHECK(hash_of<std::string, std::vector<unsigned char>>(entries) == expected);
      std::shuffle(entries.begin(), entries.end(), random);
    }
  }
}

TEST_CASE("what is not byte-like hashes by its codec's bytes") {
  StateMap<int, std::pair<bool, std::string>> map(Role::master);
  map.push(300, {true, "x"});
  map.push(-1, {false, ""});
  map.freeze();
  detail::Sha256 sha;
  detail::Sha256 keys_sha;
  const auto add = [&](int key, const std::pair<bool, std::string>& value) {
    Bytes bytes;
    encode_whole(key, bytes);
    sha.update_sized(bytes);
    keys_sha.update_sized(bytes);
    bytes.clear();
    encode_whole(value, bytes);
    sha.update_sized(bytes);
  };
  add(-1, {false, ""});
  add(300, {true, "x"});
  CHECK(map.hash() == MapHash(sha.finish()));
  const auto& frozen = *detail::MapAccess::frozen(map);
  CHECK(frozen.keys_hash() == MapHash(keys_sha.finish()));
  CHECK(frozen.keys_hash() != frozen.hash());
}

TEST_CASE("keys ascend: bytes unsigned, all else by <") {
  using Chars = std::vector<signed char>;
  CHECK(keys_in_order<Chars>({{-1}, {1}, {}, {1, 0}, {-128, 5}}) ==
        std::vector<Chars>{{}, {1}, {1, 0}, {-128, 5}, {-1}});
  CHECK(keys_in_order<std::string>(
            {"b", "\xC3\xA9", "", "aaaaaaaab", "aaaaaaaaa", std::string("a\0", 2), "a"}) ==
        std::vector<std::string>{"", "a", std::string("a\0", 2), "aaaaaaaaa", "aaaaaaaab", "b", "\xC3\xA9"});
  const auto lowest = std::numeric_limits<std::int64_t>::min();
  const auto highest = std::numeric_limits<std::int64_t>::max();
  CHECK(keys_in_order<std::int64_t>({5, -5, lowest, 0, highest}) ==
        std::vector<std::int64_t>{lowest, -5, 0, 5, highest});
  CHECK(keys_in_order<std::uint64_t>({1, ~std::uint64_t{0}, 0}) ==
        std::vector<std::uint64_t>{0, 1, ~std::uint64_t{0}});
  CHECK(keys_in_order<std::int8_t>({5, -128, 127}) == std::vector<std::int8_t>{-128, 5, 127});
  CHECK(keys_in_order<bool>({true, false}) == std::vector<bool>{false, true});
  CHECK(keys_in_order<Color>({Color::blue, Color::red}) == std::vector<Color>{Color::red, Color::blue});
  CHECK(keys_in_order<Seat>({{"b", 1}, {"a", 10}, {"a", -2}}) ==
        std::vector<Seat>{{"a", -2}, {"a", 10}, {"b", 1}});
}

TEST_CASE("any keys are sorted, however long what they have in common") {
  const auto seed = static_cast<unsigned>(detail::random_u64());
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> keys;
    const std::string common(random() % 30, 'c');
    for (auto i = random() % 200; i > 0; --i) {
      std::string key = random() % 50 == 0 ? "" : common;
      for (auto length = random() % 25; length > 0; --length)
        key += "\0a\xFF"[random() % (1U + static_cast<unsigned>(round) % 3U)];
      keys.push_back(key);
    }
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    std::vector<std::string> shuffled = keys;
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    REQUIRE(keys_in_order(shuffled) == keys);
  }
  std::vector<std::string> nested;
  for (std::size_t i = 0; i < 3000; ++i) nested.push_back(std::string(i, 'n'));
  std::vector<std::string> shuffled = nested;
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  CHECK(keys_in_order(shuffled) == nested);
}

TEST_CASE("keys that differ in any one byte, or in their length, are told apart") {
  for (std::size_t size = 0; size < 70; ++size) {
    const std::string text(size, 'k');
    std::string other = text;
    REQUIRE(detail::are_equal_bytes(text.data(), other.data(), size));
    for (char& c : other) {
      c = 'x';
      REQUIRE_FALSE(detail::are_equal_bytes(text.data(), other.data(), size));
      c = 'k';
    }
  }
  // On average short, then long: compared in one block, and one by one.
  for (const std::size_t longest : {40u, 300u}) {
    StateMap<std::string, int> map(Role::master);
    std::vector<std::string> keys;
    for (std::size_t size = 0; size <= longest; ++size) keys.push_back(std::string(size, 'k'));
    for (std::size_t at = 0; at < longest; ++at) {
      keys.push_back(std::string(longest, 'k'));
      keys.back()[at] = 'x';
    }
    for (std::size_t i = 0; i < keys.size(); ++i) map.push(keys[i], static_cast<int>(i));
    map.freeze();
    for (std::size_t i = 0; i < keys.size(); ++i) CHECK(*map.get(keys[i]) == static_cast<int>(i));
    CHECK(map.get(std::string(longest + 1, 'k')) == nullptr);

    const auto& frozen = *detail::MapAccess::frozen(map);
    detail::PackedKeys packed;
    packed.prepare(frozen.keys());
    for (const std::string& key : frozen.keys()) packed.add(as_byte_view(key));
    CHECK(packed.has_block() == (longest == 40));
    for (std::uint32_t i = 0; packed.has_block() && i < frozen.size(); ++i) {
      for (std::uint32_t k = 0; k < frozen.size(); ++k)
        REQUIRE(packed.is(i, as_byte_view(frozen.key(k))) == (i == k));
    }
  }
}

TEST_CASE("keys are found by key and by ordinal, whatever their type") {
  const auto seed = static_cast<unsigned>(detail::random_u64());
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  StateMap<std::string, int> texts(Role::master);
  StateMap<std::uint64_t, int> numbers(Role::master);
  StateMap<Seat, int> seats(Role::master);
  std::unordered_map<std::string, int> expected;
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t n = random() % 100'000;
    const std::string text = std::string(n % 40, 'k') + std::to_string(n);
    const bool is_new = expected.emplace(text, i).second;
    if (is_new) {
      texts.push(text, i);
      numbers.push(n, i);
      seats.push({"room", static_cast<int>(n)}, i);
    } else {
      REQUIRE_THROWS_AS(texts.push(text, i), StateError);
      REQUIRE_THROWS_AS(numbers.push(n, i), StateError);
      REQUIRE_THROWS_AS(seats.push({"room", static_cast<int>(n)}, i), StateError);
    }
  }
  const auto check_all = [&] {
    for (std::uint64_t n = 0; n < 100'000; ++n) {
      const std::string text = std::string(n % 40, 'k') + std::to_string(n);
      const auto found = expected.find(text);
      const int* const by_text = texts.get(text);
      const int* const by_number = numbers.get(n);
      const int* const by_seat = seats.get({"room", static_cast<int>(n)});
      if (found == expected.end()) {
        REQUIRE((by_text == nullptr && by_number == nullptr && by_seat == nullptr));
      } else {
        REQUIRE((*by_text == found->second && *by_number == found->second && *by_seat == found->second));
      }
    }
  };
  check_all();
  texts.freeze();
  numbers.freeze();
  seats.freeze();
  check_all();
  std::uint32_t ordinal = 0;
  for (const auto& [key, value] : texts) {
    REQUIRE(texts.key(key) == Ordinal(ordinal));
    REQUIRE(&texts[Ordinal(ordinal)] == &value);
    ++ordinal;
  }
}

TEST_CASE("a hash reads and writes hexadecimal digits") {
  StateMap<int, int> map(Role::master);
  map.freeze();
  const std::string hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  CHECK(map.hash().hex() == hex);
  CHECK(MapHash::from_hex(hex) == map.hash());
  CHECK(MapHash::from_hex("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855") == map.hash());
  CHECK(MapHash::from_bytes(map.hash().bytes()) == map.hash());
  CHECK_THROWS_AS(MapHash::from_hex(hex.substr(1)), StateError);
  CHECK_THROWS_AS(MapHash::from_hex("g" + hex.substr(1)), StateError);
  CHECK_THROWS_AS(MapHash::from_bytes(ByteView(map.hash().bytes()).first(31)), StateError);
  CHECK(MapHash() < map.hash());
  CHECK(std::unordered_map<MapHash, int>{{map.hash(), 1}}.count(MapHash::from_hex(hex)) == 1);
}

TEST_CASE("SHA-256 does not depend on the pieces it is fed in") {
  const Bytes text(200'000, std::byte{'x'});
  detail::Sha256 whole;
  whole.update(text);
  const auto expected = whole.finish();
  for (const std::size_t piece :
       {std::size_t{7}, std::size_t{65'535}, std::size_t{65'536}, std::size_t{65'537}}) {
    detail::Sha256 sha;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      sha.update(ByteView(text).subspan(at, std::min(piece, text.size() - at)));
    }
    CHECK(sha.finish() == expected);
  }
}

}  // namespace syncstate::testing::identity_test
