// JSON values as CBOR: documents, containers of them, and a type that says encode_as_json.
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checked_codec.hpp"
#include "syncstate/codec_json.hpp"

namespace fuzzed {

/// A type of a user's, whose from_json is as choosy as users' are.
struct Lobby {
  std::string name;
  std::uint8_t players = 0;
  std::vector<double> scores;
  bool operator==(const Lobby&) const = default;
};

inline void to_json(nlohmann::json& out, const Lobby& lobby) {
  out = {{"name", lobby.name}, {"players", lobby.players}, {"scores", lobby.scores}};
}
inline void from_json(const nlohmann::json& in, Lobby& lobby) {
  in.at("name").get_to(lobby.name);
  in.at("players").get_to(lobby.players);
  in.at("scores").get_to(lobby.scores);
}

}  // namespace fuzzed

template <>
inline constexpr bool syncstate::encode_as_json<fuzzed::Lobby> = true;

namespace {

using nlohmann::json;
using syncstate::Bytes;
using syncstate::ByteView;
using syncstate::fuzzing::CodecFacts;
using syncstate::fuzzing::require;

/// A null takes one byte of input and becomes a json in an array, or the value of an object's entry: a node with
/// its key. What a string or a container holds lies on the heap apart, with its terminator.
constexpr std::size_t bytes_per_byte = sizeof(json) + sizeof(std::string) + 4 * sizeof(void*) + 48;

/// Arrays and objects within each other, the outermost included; without recursion, for it is what we doubt.
std::size_t depth_of(const json& document) {
  std::size_t deepest = 0;
  std::vector<std::pair<const json*, std::size_t>> open{{&document, 0}};
  while (!open.empty()) {
    const auto [value, above] = open.back();
    open.pop_back();
    if (!value->is_structured()) continue;
    deepest = std::max(deepest, above + 1);
    for (const json& inner : *value) open.push_back({&inner, above + 1});
  }
  return deepest;
}

void check_document(ByteView bytes) {
  try {
    const json document = syncstate::decode_whole<json>(bytes);
    require(depth_of(document) <= 64, "no document is nested more than 64 deep");
    // Nested exactly as deep as it came: the very bytes in one more array are beyond the limit.
    if (depth_of(document) == 64) {
      Bytes deeper{std::byte{0x81}};
      deeper.insert(deeper.end(), bytes.begin(), bytes.end());
      bool is_refused = false;
      try {
        (void)syncstate::decode_whole<json>(deeper);
      } catch (const syncstate::StateError&) {
        is_refused = true;
      }
      require(is_refused, "a document nested 65 deep is refused");
    }
  } catch (const syncstate::StateError&) {
  }
}

/// The same document as text and back: what the codec lets in is one that JSON can say, but for byte strings and
/// what is no Unicode.
void check_text(ByteView bytes) {
  try {
    const json document = syncstate::decode_whole<json>(bytes);
    (void)document.dump(-1, ' ', false, json::error_handler_t::replace);
  } catch (const syncstate::StateError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  syncstate::fuzzing::Input input(data, size);
  const std::size_t which = input.below(4);
  const ByteView bytes = input.take_rest();
  // Not canonical: numbers in longer forms than needed are read, and an object's keys in any order.
  const CodecFacts facts{bytes_per_byte, false};
  switch (which) {
    case 0:
      syncstate::fuzzing::check_codec<json>(bytes, facts);
      check_document(bytes);
      check_text(bytes);
      break;
    case 1: syncstate::fuzzing::check_codec<std::vector<json>>(bytes, facts); break;
    case 2: syncstate::fuzzing::check_codec<std::map<std::string, json>>(bytes, facts); break;
    default:
      // A document, then the value made of it.
      syncstate::fuzzing::check_codec<fuzzed::Lobby>(bytes, CodecFacts{2 * bytes_per_byte, false});
      break;
  }
  return 0;
}
