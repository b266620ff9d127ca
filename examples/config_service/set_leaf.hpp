// Checks a change on the server: refuses values that no JSON document can hold.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_SET_LEAF_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_SET_LEAF_HPP

#include <cmath>
#include <stdexcept>
#include <string>
#include <string_view>
#include <syncstate/protocol/peer_text.hpp>
#include <vector>

#include "document.hpp"

namespace config_service {

inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const auto [code, bytes] = syncstate::protocol::utf8::read(text);
    if (code == syncstate::protocol::utf8::invalid) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

/// Says why a value of another program's client can't be written as JSON; null if it can.
inline const char* why_not_json(const Json& value) {
  std::vector<const Json*> open{&value};
  while (!open.empty()) {
    const Json& part = *open.back();
    open.pop_back();
    if (part.is_binary()) return "JSON has no bytes: send text";
    if (part.is_number_float() && !std::isfinite(part.get<double>())) {
      return "JSON has no infinity and no NaN: send null, or text";
    }
    if (part.is_string() && !is_utf8(part.get_ref<const std::string&>())) return "text of JSON must be UTF-8";
    if (part.is_object()) {
      for (const auto& member : part.items()) {
        if (!is_utf8(member.key())) return "names of JSON must be UTF-8";
      }
    }
    if (part.is_structured()) {
      for (const Json& member : part) open.push_back(&member);
    }
  }
  return nullptr;
}

/// Returns the leaf that a change is for.
/// Errors: std::runtime_error, whose text reaches the sender.
inline const Json& changed_leaf(const Map& map, const SetLeaf& change) {
  const Json* const leaf = is_pointer(change.pointer) ? map.get(change.pointer) : nullptr;
  if (leaf == nullptr)
    throw std::runtime_error(pointer_text(change.pointer) + " is no leaf of this document");
  if (const char* const why = why_not_json(change.value)) throw std::runtime_error(why);
  return *leaf;
}

}  // namespace config_service

#endif
