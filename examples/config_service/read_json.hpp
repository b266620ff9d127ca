// From the text of a JSON file to the map of its leaves, without a tree of it in between.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_JSON_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_JSON_HPP

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <syncstate/limits.hpp>
#include <utility>
#include <vector>

#include "descriptor.hpp"
#include "document.hpp"
#include "failure.hpp"
#include "printable.hpp"
#include "read_file.hpp"
#include "strict_json.hpp"

namespace config_service {

/// Pushes each leaf into a map as the parser reaches it. It is the sink of a `StrictJson`.
/// Errors: JsonRefused for what the map could not hold.
class LeafReader {
 public:
  explicit LeafReader(Map& map) : map_(map) {}

  void single(Json value) {
    constexpr std::size_t overhead = 9;  // of an encoded string
    if (value.is_string() &&
        value.get_ref<const std::string&>().size() + overhead > syncstate::Limits{}.value_bytes) {
      throw JsonRefused("a string of more than 16 MiB");
    }
    begin_value();
    push(path_, std::move(value));
  }

  void begin(bool is_array) {
    begin_value();
    open_.push_back(Level{is_array, path_.size()});
  }

  void name(const std::string& name) {
    Level& object = open_.back();
    const long long index = as_index(name);
    object.has_only_indices = object.has_only_indices && index >= 0;
    if (index >= 0) object.largest = std::max(object.largest, static_cast<std::size_t>(index));
    ++object.size;
    path_.resize(object.path_bytes);
    path_ += '/';
    path_ += escaped(name);
  }

  void end(bool is_array) {
    const Level level = open_.back();
    open_.pop_back();
    path_.resize(level.path_bytes);
    const bool looks_like_array = level.size > 0 && level.has_only_indices && level.largest == level.size - 1;
    if (!is_array && looks_like_array) push(std::string(object_mark) + path_, Json::object());
    if (level.size == 0) push(path_, is_array ? Json::array() : Json::object());
  }

  /// Names the innermost container for an error.
  [[nodiscard]] std::string json_where() const {
    const std::size_t bytes = open_.back().path_bytes;
    return bytes == 0 ? "the document" : pointer_text(std::string_view(path_).substr(0, bytes));
  }

 private:
  struct Level {
    bool is_array;
    std::size_t path_bytes;  // of the container's own pointer, at the front of path_
    std::size_t size = 0;
    bool has_only_indices = true;
    std::size_t largest = 0;
  };

  /// The next value begins: in an array that makes its pointer.
  void begin_value() {
    if (open_.empty() || !open_.back().is_array) return;
    Level& array = open_.back();
    path_.resize(array.path_bytes);
    path_ += '/';
    path_ += std::to_string(array.size++);
  }

  void push(std::string pointer, Json value) {
    key_bytes_ += pointer.size();
    if (key_bytes_ > syncstate::Limits{}.map_bytes) {
      throw JsonRefused("the pointers take more than 1 GiB together");
    }
    map_.push(std::move(pointer), std::move(value));
  }

  Map& map_;
  std::vector<Level> open_;  // innermost last
  std::string path_;         // the pointer of the value that is being read
  std::size_t key_bytes_ = 0;
};

/// Returns the leaves of a JSON file: a master, not frozen yet.
/// Errors: Failure, with line and column.
inline Map read_json(const std::string& path) {
  const std::string name = "the JSON file " + printable(path);
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) throw Failure(ExitCode::file, name + " can't be read: " + std::strerror(errno));
  const std::string text = read_to_end(file.get(), name, std::size_t{256} << 20U);
  Map map(syncstate::Role::master);
  LeafReader reader(map);
  try {
    StrictJson(text, max_document_depth, reader).parse();
  } catch (const JsonRefused& refused) {
    throw Failure(ExitCode::file, printable(path) + ":" + printable(refused.what()));
  }
  return map;
}

}  // namespace config_service

#endif
