// Reads the value that `set` sends.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_VALUE_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_VALUE_HPP

#include <unistd.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "json_text.hpp"
#include "printable.hpp"
#include "read_file.hpp"
#include "strict_json.hpp"

namespace config_service {

/// How deep a value may be nested: as deep as the library sends it.
inline constexpr std::size_t max_value_depth = 64;

/// Builds one value from the parts of a text.
class ValueBuilder {
 public:
  void single(Json value) { place(std::move(value)); }
  void begin(bool is_array) {
    open_.push_back({is_array ? Json::array() : Json::object(), std::move(name_)});
    name_.clear();
  }
  void name(const std::string& name) { name_ = name; }
  void end(bool) {
    Open closed = std::move(open_.back());
    open_.pop_back();
    name_ = std::move(closed.name);
    place(std::move(closed.container));
  }
  [[nodiscard]] static std::string json_where() { return "an object"; }

  [[nodiscard]] Json take() { return std::move(root_); }

 private:
  struct Open {
    Json container;
    std::string name;  // the container's own, in the object around it
  };

  void place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Json& around = open_.back().container; around.is_array()) {
      around.push_back(std::move(value));
    } else {
      around[std::move(name_)] = std::move(value);
    }
  }

  Json root_;
  std::vector<Open> open_;  // innermost last
  std::string name_;        // of the member that comes next
};

/// Returns the value given on the command line; `-` means that it is read from standard input.
/// Errors: Failure.
inline Json read_value(const std::string& argument) {
  constexpr std::size_t most = std::size_t{16} << 20U;  // an event carries less
  const bool is_piped = argument == "-";
  const std::string text =
      is_piped ? read_to_end(STDIN_FILENO, "the value on standard input", most) : argument;
  ValueBuilder builder;
  try {
    StrictJson(text, max_value_depth, builder).parse();
  } catch (const JsonRefusedAt& refused) {
    const std::string where = is_piped ? "standard input:" : "the value:";
    std::string why = where + refused.what();
    if (refused.is_syntax()) {
      why += ": this is no JSON";
      if (!is_piped && !text.starts_with('"')) {
        why += "; a string stands in double quotes, within single ones for the shell: '" +
               (text.size() <= 100 ? json_text(Json(text)) : "\"...\"") + "'";
      }
    }
    throw Failure(ExitCode::command_line, why);
  }
  return builder.take();
}

}  // namespace config_service

#endif
