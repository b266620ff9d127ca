// The map that is measured: string keys like JSON pointers, values of 16 bytes.
#ifndef SYNCSTATE_BENCHMARKS_SUPPORT_SAMPLE_MAP_HPP
#define SYNCSTATE_BENCHMARKS_SUPPORT_SAMPLE_MAP_HPP

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "syncstate/executor.hpp"
#include "syncstate/state_map.hpp"

namespace benchmarks {

using Map = syncstate::StateMap<std::string, std::string>;

/// How many keys it has where nothing else is said.
inline constexpr std::size_t sample_keys = 1'000;

/// `/service/0000017/limit`.
[[nodiscard]] inline std::string sample_key(std::size_t number) {
  std::string key = "/service/0000000/limit";
  for (std::size_t at = 16; number > 0 && at > 9; number /= 10)
    key[--at] = static_cast<char>('0' + number % 10);
  return key;
}

/// 16 hexadecimal digits.
[[nodiscard]] inline std::string sample_value(std::uint64_t number) {
  std::string value(16, '0');
  for (std::size_t at = value.size(); number > 0; number >>= 4) value[--at] = "0123456789abcdef"[number & 15];
  return value;
}

/// The number that a value of `sample_value` tells.
[[nodiscard]] inline std::uint64_t sample_number(std::string_view value) {
  std::uint64_t number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number, 16);
  return number;
}

/// Gives a map `keys` keys, and freezes it, which waits that long for its server.
inline Map fill(Map map, std::size_t keys, syncstate::Duration timeout = std::chrono::seconds(5)) {
  for (std::size_t i = 0; i < keys; ++i) map.push(sample_key(i), sample_value(i));
  map.freeze(timeout);
  return map;
}

}  // namespace benchmarks

#endif
