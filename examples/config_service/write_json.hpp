// From the leaves of a map back to the JSON document that they were taken from.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_WRITE_JSON_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_WRITE_JSON_HPP

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "document.hpp"

namespace config_service {

/// Writes the part of a map's document that lies at or below a pointer.
class JsonWriter {
 public:
  /// `map` must not change meanwhile.
  explicit JsonWriter(const Map& map, std::FILE* out) : map_(map), out_(out) {}

  /// False if nothing lies there.
  bool write(std::string_view pointer) {
    for (const auto& [key, value] : map_) {
      if (is_pointer(key) && is_at_or_below(key, pointer)) leaves_.push_back({&key, &value});
    }
    if (leaves_.empty()) return false;
    begin(0, leaves_.size(), pointer.size());
    while (!open_.empty()) advance();
    text_ += '\n';
    flush();
    return true;
  }

  static bool is_at_or_below(std::string_view key, std::string_view pointer) {
    return key.starts_with(pointer) && (key.size() == pointer.size() || key[pointer.size()] == '/');
  }

 private:
  struct Leaf {
    const std::string* pointer;
    const Json* value;
  };
  /// One member of a container: all leaves from `begin` to `end` lie below its pointer.
  struct Member {
    std::size_t begin;
    std::size_t end;
    std::size_t pointer_bytes;
    std::string name;
  };
  struct Container {
    bool is_array;
    std::vector<Member> members;
    std::size_t next = 0;
  };

  /// Writes the value that the leaves between `from` and `to` make up; their pointers begin with its own.
  void begin(std::size_t from, std::size_t to, std::size_t pointer_bytes) {
    if (leaves_[from].pointer->size() == pointer_bytes) {
      // A leaf may have been set to a container, too.
      return append_json(text_, *leaves_[from].value, Layout::indented, open_.size());
    }
    open_.push_back(Container{false, {}});
    Container& container = open_.back();
    // Ascending order keeps together what lies below one member.
    for (std::size_t at = from; at < to;) {
      const std::string_view key = *leaves_[at].pointer;
      const std::size_t token_end = std::min(key.find('/', pointer_bytes + 1), key.size());
      const std::size_t first = at;
      while (at < to && is_at_or_below(*leaves_[at].pointer, key.substr(0, token_end))) ++at;
      const std::string_view token = key.substr(pointer_bytes + 1, token_end - pointer_bytes - 1);
      container.members.push_back({first, at, token_end, unescaped(token)});
    }
    const std::string_view own = std::string_view(*leaves_[from].pointer).substr(0, pointer_bytes);
    container.is_array = is_array(container.members) && !map_.contains(std::string(object_mark).append(own));
    std::sort(container.members.begin(), container.members.end(),
              [by_index = container.is_array](const Member& a, const Member& b) {
                return by_index ? as_index(a.name) < as_index(b.name) : a.name < b.name;
              });
    text_ += container.is_array ? '[' : '{';
  }

  static bool is_array(const std::vector<Member>& members) {
    const auto size = static_cast<long long>(members.size());
    return std::all_of(members.begin(), members.end(), [size](const Member& m) {
      const long long index = as_index(m.name);
      return index >= 0 && index < size;
    });
  }

  void advance() {
    Container& container = open_.back();
    if (container.next == container.members.size()) {
      const char bracket = container.is_array ? ']' : '}';
      open_.pop_back();
      new_line();
      text_ += bracket;
      return;
    }
    const auto [from, to, pointer_bytes, name] = std::move(container.members[container.next]);
    if (container.next++ > 0) text_ += ',';
    new_line();
    if (!container.is_array) text_ += json_text(Json(name)) + ": ";
    begin(from, to, pointer_bytes);
    if (text_.size() > std::size_t{1} << 20) flush();
  }

  void new_line() {
    text_ += '\n';
    text_.append(2 * open_.size(), ' ');
  }

  void flush() {
    std::fwrite(text_.data(), 1, text_.size(), out_);
    text_.clear();
  }

  const Map& map_;
  std::FILE* out_;
  std::vector<Leaf> leaves_;
  std::vector<Container> open_;  // innermost last
  std::string text_;
};

}  // namespace config_service

#endif
