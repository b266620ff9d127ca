// The codec of nlohmann::json, and of types that say encode_as_json: CBOR. Its own header, for json.hpp is a
// large one.
//
// A document may be nested 64 deep and have `max_json_nodes` values and keys. Others are refused on either side, before
// any code recurses into them and before they take memory. `push` and `set` of a map check the depth, too. A decoded
// integer may have changed from signed to unsigned, which compares equal; floats stay floats.
#ifndef SYNCSTATE_CODEC_JSON_HPP
#define SYNCSTATE_CODEC_JSON_HPP

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/codec/cbor_extent.hpp"

namespace syncstate {

/// How many values and keys a document may have, all levels together: a value counts one, and so does the key of each
/// entry of an object. Each takes 80 bytes at most, besides what is in strings and binaries; so a document that came from
/// a peer holds no more than 20 MiB and, for strings, twice its encoding.
inline constexpr std::size_t max_json_nodes = std::size_t{1} << 18;

namespace detail {

/// What a node of a document takes at most, besides what is in strings and binaries: an empty object within an array.
/// An entry of an object takes no more than the two nodes that it counts for.
inline constexpr std::size_t json_node_bytes = 80;

/// Arrays and objects within each other, the outermost included.
inline constexpr std::size_t max_json_depth = 64;

[[noreturn]] inline void refuse_deep_json() {
  throw StateError(StateErrc::too_large, "JSON nested more than 64 deep");
}

/// Throws for a document that is nested too deep to be encoded.
/// Errors    : `too_large`.
/// Complexity: O(nodes); not recursive, whatever the depth.
inline void check_json_depth(const nlohmann::json& document) {
  std::vector<std::pair<const nlohmann::json*, std::size_t>> open;  // containers, and how deep each is
  if (document.is_structured()) open.emplace_back(&document, 1);
  while (!open.empty()) {
    const auto [container, depth] = open.back();
    open.pop_back();
    if (depth > max_json_depth) refuse_deep_json();
    for (const nlohmann::json& inner : *container) {
      if (inner.is_structured()) open.emplace_back(&inner, depth + 1);
    }
  }
}

/// Throws where a document can't be encoded, or not without recursing too deep. Returns the number of its nodes.
inline std::size_t check_json(const nlohmann::json& document) {
  struct Open {
    const nlohmann::json* value;
    std::size_t depth;  // of the value's own container
  };
  std::vector<Open> open{{&document, 1}};
  std::size_t nodes = 1;
  while (!open.empty()) {
    const auto [value, depth] = open.back();
    open.pop_back();
    if (value->is_discarded()) throw StateError(StateErrc::not_encodable, "JSON that was discarded");
    if (value->is_binary() && value->get_binary().has_subtype()) {
      throw StateError(StateErrc::not_encodable, "JSON binary with a subtype");
    }
    if (!value->is_structured()) continue;
    if (depth > max_json_depth) refuse_deep_json();
    nodes += value->size() * (value->is_object() ? 2 : 1);
    if (nodes > max_json_nodes) {
      throw StateError(StateErrc::too_large, "JSON of more than " + std::to_string(max_json_nodes) +
                                                 " values and keys: spread it over several keys of the map");
    }
    for (const nlohmann::json& inner : *value) {
      if (inner.is_structured() || inner.is_binary() || inner.is_discarded())
        open.push_back({&inner, depth + 1});
    }
  }
  return nodes;
}

/// The memory that a document owns beyond `sizeof(nlohmann::json)`: its nodes, keys, strings and arrays.
/// Complexity: O(nodes); not recursive, whatever the depth.
inline std::size_t json_owned_bytes(const nlohmann::json& document) {
  using Json = nlohmann::json;
  std::size_t bytes = 0;
  std::vector<const Json*> open;  // structured ones that are counted, but for what is in them
  const auto count = [&](const Json& value) {
    if (value.is_string()) {
      const auto& text = value.get_ref<const Json::string_t&>();
      bytes += block_bytes(sizeof text) + owned_bytes(text);
    } else if (value.is_binary()) {
      const Json::binary_t& binary = value.get_binary();
      bytes += block_bytes(sizeof binary) + block_bytes(binary.capacity());
    } else if (value.is_array()) {
      const auto& array = value.get_ref<const Json::array_t&>();
      bytes += block_bytes(sizeof array) + block_bytes(array.capacity() * sizeof(Json));
      if (!array.empty()) open.push_back(&value);
    } else if (value.is_object()) {
      const auto& object = value.get_ref<const Json::object_t&>();
      bytes += block_bytes(sizeof object) + object.size() * tree_node_bytes<Json::object_t::value_type>;
      if (!object.empty()) open.push_back(&value);
    }
  };
  count(document);
  while (!open.empty()) {
    const Json& outer = *open.back();
    open.pop_back();
    if (outer.is_array()) {
      for (const Json& inner : outer) count(inner);
    } else {
      for (const auto& [key, inner] : outer.get_ref<const Json::object_t&>()) {
        bytes += owned_bytes(key);
        count(inner);
      }
    }
  }
  return bytes;
}

/// Builds a document from what the parser tells, and stops it where it would descend too deep.
class JsonBuilder {
 public:
  using Json = nlohmann::json;

  bool null() { return add(Json()); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(Json::number_integer_t value) { return add(Json(value)); }
  bool number_unsigned(Json::number_unsigned_t value) { return add(Json(value)); }
  bool number_float(Json::number_float_t value, const Json::string_t&) { return add(Json(value)); }
  bool string(Json::string_t& value) { return add(Json(std::move(value))); }
  bool binary(Json::binary_t& value) { return add(Json(std::move(value))); }

  bool start_object(std::size_t) { return descend(Json::object()); }
  bool key(Json::string_t& key) {
    auto& object = *open_.back();
    if (object.contains(key)) return false;
    entry_ = &object[key];
    return true;
  }
  bool end_object() { return ascend(); }

  bool start_array(std::size_t size) {
    if (!descend(Json::array())) return false;
    // read_cbor_item has seen that all arrays together promise no more than the input can hold.
    open_.back()->get_ref<Json::array_t&>().reserve(size);
    return true;
  }
  bool end_array() { return ascend(); }

  template <class Exception>
  bool parse_error(std::size_t, const std::string&, const Exception&) {
    return false;
  }

  [[nodiscard]] Json take() { return std::move(root_); }

 private:
  /// Puts a value where the next one belongs.
  Json& place(Json&& value) {
    if (open_.empty()) return root_ = std::move(value);
    if (open_.back()->is_object()) return *entry_ = std::move(value);
    open_.back()->push_back(std::move(value));
    return open_.back()->back();
  }
  bool add(Json&& value) {
    place(std::move(value));
    return true;
  }
  bool descend(Json&& container) {
    if (open_.size() == max_json_depth) return false;
    open_.push_back(&place(std::move(container)));
    return true;
  }
  bool ascend() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;  // innermost last; none moves while one within it is open
  Json* entry_ = nullptr;    // where the value of the key just read belongs
};

}  // namespace detail

/// CBOR (RFC 8949) with definite lengths and no tags.
/// Errors: encoding throws `too_large` for a document nested more than 64 deep or of more than `max_json_nodes` values
///         and keys, and `not_encodable` for one that was discarded or has a binary with a subtype.
template <>
struct Codec<nlohmann::json> : detail::BuiltIn<> {
  static constexpr bool is_key = false;  // 1 == 1.0, yet their encodings differ
  static constexpr bool owns_memory = true;
  static consteval std::size_t min_bytes() { return 1; }

  static void encode(const nlohmann::json& value, ByteWriter& out) {
    out.count_memory(detail::check_json(value) * detail::json_node_bytes);
    const std::vector<std::uint8_t> cbor = nlohmann::json::to_cbor(value);
    out.put(std::as_bytes(std::span(cbor)));
  }

  static nlohmann::json decode(ByteReader& in) {
    const auto [item, nodes] = detail::read_cbor_item(in, max_json_nodes);
    in.take_memory(static_cast<std::size_t>(nodes) * detail::json_node_bytes);
    // Read as char: nlohmann_json up to 3.11.2 uses std::char_traits of the type that it reads, and libc++ 19 has these
    // for character types only.
    const auto* first = reinterpret_cast<const char*>(item.data());
    detail::JsonBuilder builder;
    if (!nlohmann::json::sax_parse(first, first + item.size(), &builder,
                                   nlohmann::json::input_format_t::cbor)) {
      ByteReader::fail("CBOR that is no JSON, or nested more than 64 deep");
    }
    return builder.take();
  }

  static void check_nesting(const nlohmann::json& value) { detail::check_json_depth(value); }

  static std::size_t memory_bytes(const nlohmann::json& value) {
    return sizeof(nlohmann::json) + detail::json_owned_bytes(value);
  }

  static std::string type_name() { return "json"; }
};

namespace detail {

/// By way of a document; what `to_json` and `from_json` throw passes through.
template <class T>
struct JsonBridge {
  static void encode(const T& value, ByteWriter& out) {
    const nlohmann::json document = value;
    Codec<nlohmann::json>::encode(document, out);
  }
  static T decode(ByteReader& in) { return Codec<nlohmann::json>::decode(in).get<T>(); }
};

}  // namespace detail

}  // namespace syncstate

#endif
