// Writes JSON values as text that means exactly the same values: on one line, or indented.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_JSON_TEXT_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_JSON_TEXT_HPP

#include <charconv>
#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "printable.hpp"

namespace config_service {

using Json = nlohmann::json;

/// Returns the shortest digits that mean this number, with a fraction or an exponent, so that it is read as a floating
/// point number again. JSON has no infinity and no NaN: for them it returns "null".
inline std::string number_text(double number) {
  if (!std::isfinite(number)) return "null";
  const double size = std::abs(number);
  const bool is_plain = size == 0 || (size >= 1e-4 && size < 1e15);
  char digits[32];  // the longest are "-1.2345678901234567e-308" and "-0.00012345678901234567"
  const auto result = std::to_chars(std::begin(digits), std::end(digits), number,
                                    is_plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(std::begin(digits), result.ptr);
  if (is_plain && text.find('.') == text.npos) text += ".0";
  return text;
}

/// How a value with members is laid out.
enum class Layout {
  one_line,
  indented  ///< each member on a line of its own
};

namespace detail {

/// Appends a value that has no members. Bytes that are not UTF-8, which only a foreign program can send, become U+FFFD.
inline void append_single(std::string& out, const Json& value) {
  if (value.is_number_float()) {
    out += number_text(value.get<double>());
  } else {
    out += printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
}

}  // namespace detail

/// Appends a value. If it is indented, its lines after the first begin `levels` levels deep.
/// Complexity: O(its text); does not recurse, whatever the depth.
inline void append_json(std::string& out, const Json& value, Layout layout, std::size_t levels = 0) {
  struct Open {
    const Json* container;
    Json::const_iterator next;
  };
  std::vector<Open> open;  // innermost last
  const auto begin = [&](const Json& part) {
    if (!part.is_structured() || part.empty()) {
      detail::append_single(out, part);
    } else {
      out += part.is_array() ? '[' : '{';
      open.push_back({&part, part.begin()});
    }
  };
  const auto new_line = [&] {
    if (layout == Layout::one_line) return;
    out += '\n';
    out.append(2 * (levels + open.size()), ' ');
  };

  begin(value);
  while (!open.empty()) {
    Open& top = open.back();
    const Json& container = *top.container;
    if (top.next == container.end()) {
      open.pop_back();
      new_line();
      out += container.is_array() ? ']' : '}';
      continue;
    }
    if (top.next != container.begin()) out += ',';
    new_line();
    if (container.is_object()) {
      detail::append_single(out, Json(top.next.key()));
      out += layout == Layout::one_line ? ":" : ": ";
    }
    begin(*top.next++);
  }
}

/// Returns a value on one line.
inline std::string json_text(const Json& value) {
  std::string text;
  append_json(text, value, Layout::one_line);
  return text;
}

}  // namespace config_service

#endif
