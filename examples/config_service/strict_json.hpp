// Reads JSON text. Refuses, with line and column, what could not be written back unchanged.
//
// Parsers disagree about such text, or change it silently: names that stand twice, integers beyond 64 bits, digits
// beyond those of a double, a NUL with more text after it.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_STRICT_JSON_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_STRICT_JSON_HPP

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "decimal.hpp"
#include "json_text.hpp"

namespace config_service {

/// Says why a text is refused. The sinks of `StrictJson` throw it, too.
class JsonRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The same, with the position.
class JsonRefusedAt : public JsonRefused {
 public:
  /// `at` points into `text`.
  JsonRefusedAt(std::string_view text, std::size_t at, const std::string& why, bool is_syntax)
      : JsonRefused(position_text(text.substr(0, at)) + ": " + why), is_syntax_(is_syntax) {}

  /// True if the text is no JSON at all.
  [[nodiscard]] bool is_syntax() const { return is_syntax_; }

 private:
  /// `line:column`, both from 1; columns count characters.
  static std::string position_text(std::string_view before) {
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    before.remove_prefix(before.rfind('\n') + 1);  // npos + 1 is 0
    const auto column = 1 + std::count_if(before.begin(), before.end(), [](char c) {
                          return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;
                        });
    return std::to_string(line) + ":" + std::to_string(column);
  }

  bool is_syntax_;
};

/// Iterates over a text and records how far the parser has read.
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

/// Parses a text and passes its parts to a sink, in their order:
///   single(Json)           a value without members
///   begin(is_array)        an array or object
///   name(string)           of the member that comes next; `json_where()` of the sink names the object in errors
///   end(is_array)
/// What the sink throws as `JsonRefused` gets its position here.
///
/// Nesting takes no stack: neither the parser nor this class recurses.
template <class Sink>
class StrictJson {
 public:
  /// Refuses containers that are nested more than `most_levels` deep.
  StrictJson(std::string_view text, std::size_t most_levels, Sink& sink)
      : text_(text), most_levels_(most_levels), sink_(sink), furthest_(text.data()) {}

  /// Errors: JsonRefusedAt; the sink has got what came before.
  void parse() {
    // The parser would take a NUL for the end of the text.
    if (const auto nul = text_.find('\0'); nul != text_.npos) {
      throw JsonRefusedAt(text_, nul, "a NUL byte: JSON is text", true);
    }
    try {
      const char* const end = text_.data() + text_.size();
      Json::sax_parse(TrackedChar(text_.data(), &furthest_), TrackedChar(end, &furthest_), this);
    } catch (const JsonRefusedAt&) {
      throw;
    } catch (const JsonRefused& refused) {
      throw JsonRefusedAt(text_, last_read(), refused.what(), false);
    }
  }

  // What the parser calls; see nlohmann::json_sax.

  bool null() { return pass(Json()); }
  bool boolean(bool value) { return pass(Json(value)); }
  bool number_unsigned(Json::number_unsigned_t value) { return pass(Json(value)); }
  bool number_integer(Json::number_integer_t value) {
    // This is a number with a sign: as an integer, -0 would lose it.
    return pass(value == 0 ? Json(-0.0) : Json(value));
  }
  bool number_float(double value, const std::string& token) {
    if (token.find_first_of(".eE") == token.npos) {
      refuse_token(token, "the integer " + shown(token) + " needs more than 64 bits: write it as a string");
    }
    if (decimal_of(token) != decimal_of(number_text(value))) {
      refuse_token(token, "the number " + shown(token) + " would become " + number_text(value) +
                              ", the nearest that a double holds: write that, or a string");
    }
    return pass(Json(value));
  }
  bool string(std::string& value) { return pass(Json(std::move(value))); }
  bool binary(Json::binary_t&) { throw JsonRefused("binary"); }  // not of a text

  bool start_object(std::size_t) { return begin(false); }
  bool start_array(std::size_t) { return begin(true); }
  bool end_object() { return end(false); }
  bool end_array() { return end(true); }
  bool key(const std::string& name) {
    if (!names_.back().insert(name).second) {
      throw JsonRefusedAt(text_, last_quoted(),
                          "the name " + json_text(Json(name)) + " occurs twice in " + sink_.json_where(),
                          false);
    }
    sink_.name(name);
    return true;
  }

  template <class Exception>
  bool parse_error(std::size_t, const std::string& token, const Exception& error) {
    if constexpr (std::is_same_v<Exception, Json::out_of_range>) {
      refuse_token(token,
                   "the number " + shown(token) + " is beyond those of a double: write it as a string");
    }
    // "[json.exception.parse_error.101] parse error at line 1, column 2: what is wrong"
    std::string_view why = error.what();
    if (const auto end = why.find("] "); end != why.npos) why.remove_prefix(end + 2);
    if (why.starts_with("parse error at ")) why.remove_prefix(std::min(why.find(": ") + 2, why.size()));
    const bool is_within_token = why.find("; last read: ") != why.npos;
    throw JsonRefusedAt(text_, is_within_token ? last_read() : begin_of(last_token(token)), std::string(why),
                        true);
  }

 private:
  bool pass(Json value) {
    sink_.single(std::move(value));
    return true;
  }

  bool begin(bool is_array) {
    if (names_.size() == most_levels_) {
      throw JsonRefused("nested more than " + with_commas(most_levels_) + " deep");
    }
    names_.emplace_back();
    sink_.begin(is_array);
    return true;
  }

  bool end(bool is_array) {
    names_.pop_back();
    sink_.end(is_array);
    return true;
  }

  static std::string with_commas(std::size_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
    return text;
  }

  static std::string shown(const std::string& token) {
    constexpr std::size_t most = 60;
    return token.size() <= most ? token : token.substr(0, most) + "...";
  }

  [[noreturn]] void refuse_token(const std::string& token, const std::string& why) const {
    throw JsonRefusedAt(text_, begin_of(token), why, false);
  }

  /// Returns the last token in `read`, the characters that the parser gives for an unexpected token. They begin with the
  /// last string or number, even if other tokens follow it.
  static std::string_view last_token(std::string_view read) {
    constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyz";
    constexpr std::string_view structural = "{}[],:";
    if (read.empty()) return read;
    if (structural.find(read.back()) != read.npos) return read.substr(read.size() - 1);
    if (letters.find(read.back()) == read.npos) return read;  // a string or number
    return read.substr(read.find_last_not_of(letters) + 1);   // true, false or null; npos + 1 is 0
  }

  /// Returns where the character is that was read last.
  [[nodiscard]] std::size_t last_read() const {
    const auto read = static_cast<std::size_t>(furthest_ - text_.data());
    return read - std::min<std::size_t>(read, 1);
  }

  /// Returns where a token begins that was read last. To find the end of a number, the parser reads one more character.
  [[nodiscard]] std::size_t begin_of(std::string_view token) const {
    for (const std::size_t end : {last_read() + 1, last_read()}) {
      if (text_.substr(0, end).ends_with(token)) return end - token.size();
    }
    return last_read();
  }

  /// Returns where the string begins whose closing quote was read last.
  [[nodiscard]] std::size_t last_quoted() const {
    std::size_t at = last_read();
    do {
      at = text_.rfind('"', at - 1);
    } while (is_escaped(at));
    return at;
  }
  [[nodiscard]] bool is_escaped(std::size_t at) const {
    std::size_t backslashes = 0;
    while (backslashes < at && text_[at - 1 - backslashes] == '\\') ++backslashes;
    return backslashes % 2 != 0;
  }

  std::string_view text_;
  std::size_t most_levels_;
  Sink& sink_;
  const char* furthest_;
  std::vector<std::unordered_set<std::string>> names_;  // of each open container; innermost last
};

}  // namespace config_service

#endif
