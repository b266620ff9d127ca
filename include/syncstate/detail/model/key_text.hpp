// A key as text, for messages that people read.
#ifndef SYNCSTATE_DETAIL_MODEL_KEY_TEXT_HPP
#define SYNCSTATE_DETAIL_MODEL_KEY_TEXT_HPP

#include <concepts>
#include <string>
#include <string_view>

#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"

namespace syncstate::detail {

/// `"text"` for strings, the number for integers, the encoding in hexadecimal digits for all else.
template <class K>
std::string key_text(const K& key) {
  if constexpr (std::same_as<K, std::string>) {
    return '"' + key + '"';
  } else if constexpr (std::integral<K>) {
    return std::to_string(key);
  } else {
    Bytes bytes;
    encode_whole(key, bytes);
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text = "0x";
    for (const std::byte b : bytes) {
      text += digits[std::to_integer<unsigned>(b) >> 4];
      text += digits[std::to_integer<unsigned>(b) & 15];
    }
    return text;
  }
}

}  // namespace syncstate::detail

#endif
