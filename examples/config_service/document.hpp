// A JSON document as a map: every JSON pointer (RFC 6901) to a leaf is a key. Leaves are scalars and empty
// containers.
//
// The pointers tell everything about the containers between them but one thing: whether {"0": .., "1": ..} is
// an object or an array. Such an object, and no other, has one more key, "object:" and its pointer, which is
// never changed.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_DOCUMENT_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_DOCUMENT_HPP

#include <cstddef>
#include <string>
#include <string_view>
#include <syncstate/codec_json.hpp>
#include <syncstate/map_hash.hpp>
#include <syncstate/state_map.hpp>

#include "json_text.hpp"
#include "printable.hpp"

namespace config_service {

using Map = syncstate::StateMap<std::string, Json>;

/// The one event: a leaf gets another value, which may be any JSON.
struct SetLeaf {
  std::string pointer;
  Json value;
};

/// How deep a document may be nested. Beyond, pointers take more memory, and lines more indentation, than a configuration
/// is meant to.
inline constexpr std::size_t max_document_depth = 1'000;

inline constexpr std::string_view object_mark = "object:";

/// False for the keys that only keep the shape.
inline bool is_pointer(std::string_view key) { return key.empty() || key.front() == '/'; }

/// One name as it stands in a pointer: ~ and / are written ~0 and ~1.
inline std::string escaped(std::string_view name) {
  std::string token;
  token.reserve(name.size());
  for (const char c : name) {
    if (c == '~') {
      token += "~0";
    } else if (c == '/') {
      token += "~1";
    } else {
      token += c;
    }
  }
  return token;
}

/// The name behind a token of a pointer.
inline std::string unescaped(std::string_view token) {
  std::string name;
  name.reserve(token.size());
  for (std::size_t i = 0; i < token.size(); ++i) {
    if (token[i] == '~' && i + 1 < token.size() && (token[i + 1] == '0' || token[i + 1] == '1')) {
      name += token[++i] == '0' ? '~' : '/';
    } else {
      name += token[i];
    }
  }
  return name;
}

/// A number as the index of an array is written: digits without a leading zero. -1 if it is none, or a huge
/// one.
inline long long as_index(std::string_view token) {
  if (token.empty() || token.size() > 12 || (token.size() > 1 && token.front() == '0')) return -1;
  long long index = 0;
  for (const char c : token) {
    if (c < '0' || c > '9') return -1;
    index = index * 10 + (c - '0');
  }
  return index;
}

/// A pointer as it is printed: in quotes where it would be mistaken for something else.
inline std::string pointer_text(std::string_view pointer) {
  bool is_plain = !pointer.empty();
  for (const char c : pointer) is_plain = is_plain && static_cast<unsigned char>(c) > ' ' && c != '"';
  is_plain = is_plain && printable(pointer) == pointer;
  return is_plain ? std::string(pointer) : json_text(Json(pointer));
}

}  // namespace config_service

#endif
