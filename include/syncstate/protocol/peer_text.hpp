// Texts that peers send each other for people: bounded, and cleaned before anything else sees them.
#ifndef SYNCSTATE_PROTOCOL_PEER_TEXT_HPP
#define SYNCSTATE_PROTOCOL_PEER_TEXT_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::protocol {

/// The bytes that a text of a peer takes at most, after cleaning.
inline constexpr std::size_t peer_text_bytes = 512;

namespace utf8 {

/// One character at the beginning of a text, and how many bytes it takes.
struct Character {
  std::uint32_t code;  ///< `invalid` for bytes that begin no character
  std::size_t bytes;   ///< at least 1
};

inline constexpr std::uint32_t invalid = 0xFFFFFFFF;

/// Reads the character at the beginning of `text`, which is not empty. Overlong forms, surrogates and numbers beyond
/// U+10FFFF are invalid; an invalid sequence counts the bytes that could have begun a character, at least one.
inline Character read(std::string_view text) {
  const auto byte = [&](std::size_t i) -> std::uint32_t { return static_cast<unsigned char>(text[i]); };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  std::size_t length = 0;
  std::uint32_t lowest = 0x80;  // of the second byte
  std::uint32_t highest = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) length = 2;
  if (first >= 0xE0 && first <= 0xEF) length = 3;
  if (first >= 0xF0 && first <= 0xF4) length = 4;
  if (length == 0) return {invalid, 1};
  if (first == 0xE0) lowest = 0xA0;   // below: overlong
  if (first == 0xED) highest = 0x9F;  // above: surrogates
  if (first == 0xF0) lowest = 0x90;   // below: overlong
  if (first == 0xF4) highest = 0x8F;  // above: beyond U+10FFFF
  std::uint32_t code = first & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < lowest || byte(i) > highest) return {invalid, i};
    code = code << 6 | (byte(i) & 0x3F);
    lowest = 0x80;
    highest = 0xBF;
  }
  return {code, length};
}

/// Ends a line, or moves to another place in it.
inline bool is_line_or_tab(std::uint32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x85 || code == 0x2028 || code == 0x2029;
}

/// Changes what a terminal does, the direction of the text around it, or is there without being seen.
inline bool is_control(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code <= 0x9F) ||       // C0, DEL, C1
         code == 0x061C || code == 0x200E || code == 0x200F ||  // marks of direction
         (code >= 0x202A && code <= 0x202E) ||                  // embeddings and overrides
         (code >= 0x2066 && code <= 0x206F) ||                  // isolates, deprecated format characters
         code == 0x200B || code == 0x2060 || code == 0xFEFF ||  // no width
         (code >= 0xFFF9 && code <= 0xFFFB) ||                  // annotations
         (code >= 0xE0000 && code <= 0xE007F);                  // tags
}

}  // namespace utf8

/// Returns a text of a peer as it may be shown: valid UTF-8 of at most `peer_text_bytes` bytes, cut between characters,
/// without controls.
///
/// Line ends and tabs become spaces. Bytes that are no UTF-8, and all other controls (C0, DEL, C1, marks of direction,
/// characters that take no width), become U+FFFD.
/// Complexity: O(peer_text_bytes), however long `text` is.
inline std::string clean_peer_text(std::string_view text) {
  constexpr std::string_view replacement = "\xEF\xBF\xBD";
  std::string out;
  while (!text.empty()) {
    const utf8::Character next = utf8::read(text);
    std::string_view shown = text.substr(0, next.bytes);
    if (utf8::is_line_or_tab(next.code)) {
      shown = " ";
    } else if (next.code == utf8::invalid || utf8::is_control(next.code)) {
      shown = replacement;
    }
    if (out.size() + shown.size() > peer_text_bytes) break;
    out += shown;
    text.remove_prefix(next.bytes);
  }
  return out;
}

/// Returns the beginning of a text, at most `most` bytes, not cut within a character of valid UTF-8.
/// Complexity: O(1).
inline std::string_view beginning_of(std::string_view text, std::size_t most = peer_text_bytes) {
  if (text.size() <= most) return text;
  std::size_t size = most;
  const auto is_inside_character = [&] { return (static_cast<unsigned char>(text[size]) & 0xC0U) == 0x80; };
  while (size > 0 && size + 4 > most && is_inside_character()) --size;  // a character takes at most 4 bytes
  return text.substr(0, size);
}

/// Cuts a text that goes to a peer as `beginning_of` does.
/// A text that is cut is a copy, so that the memory of the rest is given back, however long the text was.
/// Complexity: O(1), besides giving back the rest.
inline std::string shorten(std::string text, std::size_t most = peer_text_bytes) {
  if (text.size() <= most) return text;
  return std::string(beginning_of(text, most));
}

/// Returns what an exception says, cut as by `shorten`. A null text reads as an empty one.
/// Complexity: O(`peer_text_bytes`): the rest of a longer text is neither read nor copied.
inline std::string text_of(const std::exception& error) {
  const char* const text = error.what();
  if (text == nullptr) return {};
  std::size_t size = 0;
  while (size <= peer_text_bytes && text[size] != '\0') ++size;
  return std::string(beginning_of({text, size}));
}

}  // namespace syncstate::protocol

#endif
