// Makes any text safe to print on a terminal.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_PRINTABLE_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_PRINTABLE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <syncstate/protocol/peer_text.hpp>

namespace config_service {

namespace detail {

struct CodePoints {
  std::uint32_t first;
  std::uint32_t last;
};

/// Code points that steer a terminal, change the order of what is read, or cannot be seen.
inline constexpr CodePoints unprintable[] = {
    {0x0, 0x1f},         // C0: ESC, line ends, tabs
    {0x7f, 0x9f},        // DEL, C1
    {0xad, 0xad},        // soft hyphen
    {0x34f, 0x34f},      // combining grapheme joiner
    {0x61c, 0x61c},      // Arabic letter mark
    {0x115f, 0x1160},    // Hangul fillers
    {0x17b4, 0x17b5},    // Khmer inherent vowels
    {0x180b, 0x180f},    // Mongolian selectors and separator
    {0x200b, 0x200f},    // zero width characters, directional marks
    {0x2028, 0x202e},    // line and paragraph separators, directional embeddings and overrides
    {0x2060, 0x206f},    // word joiner, invisible operators, directional isolates
    {0x2800, 0x2800},    // Braille without a dot
    {0x3164, 0x3164},    // Hangul filler
    {0xd800, 0xdfff},    // surrogates
    {0xfdd0, 0xfdef},    // no characters
    {0xfe00, 0xfe0f},    // variation selectors
    {0xfeff, 0xfeff},    // byte order mark
    {0xffa0, 0xffa0},    // Hangul filler
    {0xfff0, 0xfffb},    // interlinear annotations
    {0x110bd, 0x110bd},  // Kaithi number signs
    {0x110cd, 0x110cd},  //
    {0x13430, 0x1345f},  // Egyptian format controls
    {0x1bca0, 0x1bca3},  // shorthand format controls
    {0x1d173, 0x1d17a},  // musical format controls
    {0xe0000, 0xe0fff},  // tags, variation selectors
};

inline bool is_printable(std::uint32_t code_point) {
  if ((code_point & 0xfffeU) == 0xfffeU) return false;  // no characters
  return std::none_of(std::begin(unprintable), std::end(unprintable), [code_point](const CodePoints& range) {
    return code_point >= range.first && code_point <= range.last;
  });
}

inline void append_unit(std::string& out, std::uint32_t unit) {
  char text[8];
  std::snprintf(text, sizeof text, "\\u%04x", static_cast<unsigned>(unit));
  out += text;
}

inline void append_byte(std::string& out, char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  out += text;
}

}  // namespace detail

/// `text` with everything that is not plainly visible written out: control characters, line ends, directional and
/// invisible characters as in JSON (`\u202e`), bytes that are no UTF-8 as `\xff`. So it stays on one line, cannot
/// steer a terminal, and JSON stays the same JSON. What is written out already stays as it is.
///
/// Everything this program prints goes through here; on its way to a file or pipe, too, which may end on a terminal.
inline std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto [code, bytes] = syncstate::protocol::utf8::read(text);
    if (code == syncstate::protocol::utf8::invalid) {
      for (const char byte : text.substr(0, bytes)) detail::append_byte(out, byte);
    } else if (detail::is_printable(code)) {
      out += text.substr(0, bytes);
    } else if (code < 0x10000) {
      detail::append_unit(out, code);
    } else {
      detail::append_unit(out, 0xd800 + ((code - 0x10000) >> 10U));
      detail::append_unit(out, 0xdc00 + ((code - 0x10000) & 0x3ffU));
    }
    text.remove_prefix(bytes);
  }
  return out;
}

/// The same for a text of several lines that this program made itself: its line feeds stay.
inline std::string printable_lines(std::string_view text) {
  std::string out;
  for (;;) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    out += printable(text.substr(0, end));
    if (end == text.size()) return out;
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

}  // namespace config_service

#endif
