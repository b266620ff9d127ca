// From the text of a JSON file to the map of its leaves, without a tree of it in between.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_JSON_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_JSON_HPP

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <syncstate/limits.hpp>
#include <unordered_set>
#include <utility>
#include <vector>

#include "document.hpp"
#include "failure.hpp"

namespace config_service {

/// Pushes each leaf into a map as the parser comes by; fails on what the map could not give back as it was.
class LeafReader {
 public:
  explicit LeafReader(Map& map) : map_(map) {}

  bool null() { return add(Json()); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(Json::number_integer_t value) { return add(Json(value)); }
  bool number_unsigned(Json::number_unsigned_t value) { return add(Json(value)); }
  bool number_float(Json::number_float_t value, const std::string&) { return add(Json(value)); }
  bool string(std::string& value) {
    if (value.size() + 9 > syncstate::Limits{}.value_bytes) return fail("a string of more than 16 MiB");
    return add(Json(std::move(value)));
  }
  bool binary(Json::binary_t&) { return fail("binary"); }

  bool start_object(std::size_t) { return descend(false); }
  bool start_array(std::size_t) { return descend(true); }
  bool end_array() { return ascend(Json::array()); }
  bool end_object() {
    const Level& object = open_.back();
    const bool looks_like_array =
        object.size > 0 && object.has_only_indices && object.largest == object.size - 1;
    if (looks_like_array &&
        !push(std::string(object_mark) + path_.substr(0, object.path_bytes), Json::object())) {
      return false;
    }
    return ascend(Json::object());
  }

  bool key(const std::string& name) {
    Level& object = open_.back();
    if (!object.names.insert(name).second) {
      return fail("the name " + json_text(Json(name)) + " stands twice in " + where(object));
    }
    const long long index = as_index(name);
    object.has_only_indices = object.has_only_indices && index >= 0;
    if (index >= 0) object.largest = std::max(object.largest, static_cast<std::size_t>(index));
    ++object.size;
    path_.resize(object.path_bytes);
    path_ += '/';
    path_ += escaped(name);
    return true;
  }

  template <class Exception>
  bool parse_error(std::size_t, const std::string&, const Exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: what is wrong": where, we say
    // ourselves.
    std::string_view text = error.what();
    if (const auto end = text.find("] "); end != text.npos) text.remove_prefix(end + 2);
    if (text.starts_with("parse error at ")) text.remove_prefix(std::min(text.find(": ") + 2, text.size()));
    return fail(std::string(text));
  }

  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  struct Level {
    bool is_array;
    std::size_t path_bytes;  // of the container's own pointer, at the front of path_
    std::size_t size = 0;
    bool has_only_indices = true;
    std::size_t largest = 0;
    std::unordered_set<std::string> names;
  };

  bool fail(std::string why) {
    error_ = std::move(why);
    return false;
  }

  std::string where(const Level& level) const {
    return level.path_bytes == 0 ? "the document"
                                 : pointer_text(std::string_view(path_).substr(0, level.path_bytes));
  }

  /// The next value begins: in an array that makes its pointer.
  void begin_value() {
    if (open_.empty() || !open_.back().is_array) return;
    Level& array = open_.back();
    path_.resize(array.path_bytes);
    path_ += '/';
    path_ += std::to_string(array.size++);
  }

  bool push(std::string pointer, Json value) {
    key_bytes_ += pointer.size();
    if (key_bytes_ > syncstate::Limits{}.map_bytes) return fail("the pointers take more than 1 GiB together");
    map_.push(std::move(pointer), std::move(value));
    return true;
  }

  bool add(Json value) {
    begin_value();
    return push(path_, std::move(value));
  }

  bool descend(bool is_array) {
    if (open_.size() == max_document_depth) return fail("nested more than 1,000 deep");
    begin_value();
    open_.push_back(Level{is_array, path_.size(), 0, true, 0, {}});
    return true;
  }

  bool ascend(Json if_empty) {
    const Level level = std::move(open_.back());
    open_.pop_back();
    path_.resize(level.path_bytes);
    return level.size > 0 || push(path_, std::move(if_empty));
  }

  Map& map_;
  std::vector<Level> open_;  // innermost last
  std::string path_;         // the pointer of the value that is being read
  std::size_t key_bytes_ = 0;
  std::string error_;
};

/// Steps over a text and tells how far the parser has come.
class TrackedChar {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TrackedChar(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}

  reference operator*() const { return *at_; }
  TrackedChar& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  friend bool operator==(const TrackedChar& a, const TrackedChar& b) { return a.at_ == b.at_; }
  friend bool operator!=(const TrackedChar& a, const TrackedChar& b) { return a.at_ != b.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

/// Reads a file, a pipe or a device to its end.
/// Errors: Failure; also if there are more than `most` bytes.
inline std::string read_file(const std::string& path, const std::string& what, std::size_t most) {
  const auto fail = [&] {
    throw Failure(ExitCode::file, what + " " + printable(path) + " can't be read: " + std::strerror(errno));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (file == nullptr) fail();
  std::string text;
  std::size_t size = 0;
  do {
    text.resize(std::max<std::size_t>(2 * size, 4'096));
    size += std::fread(text.data() + size, 1, text.size() - size, file.get());
    if (size > most) {
      throw Failure(ExitCode::file,
                    what + " " + printable(path) + " is larger than " + std::to_string(most >> 20U) + " MiB");
    }
  } while (size == text.size());
  if (std::ferror(file.get()) != 0) fail();
  text.resize(size);
  return text;
}

/// The leaves of a JSON file: a master, not frozen yet.
/// Errors: Failure, with the line.
inline Map read_json(const std::string& path) {
  const std::string text = read_file(path, "the JSON file", std::size_t{256} << 20U);
  Map map(syncstate::Role::master);
  LeafReader reader(map);
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const char* furthest = begin;
  if (!Json::sax_parse(TrackedChar(begin, &furthest), TrackedChar(end, &furthest), &reader)) {
    std::size_t line = 1;
    for (const char* at = begin; at + 1 < furthest; ++at) line += *at == '\n' ? 1U : 0U;
    throw Failure(ExitCode::file,
                  printable(path) + ":" + std::to_string(line) + ": " + printable(reader.error()));
  }
  return map;
}

}  // namespace config_service

#endif
