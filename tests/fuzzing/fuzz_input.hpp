// What every fuzz target reads its input with, and how it says that a property does not hold.
#ifndef SYNCSTATE_TESTS_FUZZING_FUZZ_INPUT_HPP
#define SYNCSTATE_TESTS_FUZZING_FUZZ_INPUT_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>

#include "syncstate/bytes.hpp"

/// The entry of a target: libFuzzer calls it with what it made up, replay_main.cpp with what was kept.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace syncstate::fuzzing {

/// A property does not hold: the program ends, which is what a fuzzer takes for a find.
[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "does not hold: %s\n", what.c_str());
  std::abort();
}

inline void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

/// Decisions taken from the front of the input, one after the other. When it is used up all further ones are
/// 0, so that every input, cut anywhere, is a script.
///
/// Never take two among the arguments of one call: compilers differ in the order, and so would the script.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : in_(std::as_bytes(std::span(data, size))) {}

  [[nodiscard]] bool is_empty() const { return in_.empty(); }

  std::uint8_t take_byte() {
    if (in_.empty()) return 0;
    const auto b = std::to_integer<std::uint8_t>(in_.front());
    in_ = in_.subspan(1);
    return b;
  }

  /// One of 0 .. limit - 1, from one byte.
  std::size_t below(std::size_t limit) { return take_byte() % limit; }

  bool flip() { return below(2) == 1; }

  /// A number that is small as a rule, and now and then of any size.
  std::uint64_t take_number() {
    const std::uint8_t first = take_byte();
    if (first < 248) return first;
    std::uint64_t number = 0;
    for (int i = first - 247; i > 0; --i) number = number << 8 | take_byte();
    return number;
  }

  /// A length byte, then that many bytes, or as many as there are.
  ByteView take_bytes() {
    const std::size_t wished = take_byte();
    const std::size_t size = std::min(wished, in_.size());
    const ByteView out = in_.first(size);
    in_ = in_.subspan(size);
    return out;
  }

  ByteView take_rest() { return std::exchange(in_, {}); }

 private:
  ByteView in_;
};

inline bool is_same(ByteView a, ByteView b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

}  // namespace syncstate::fuzzing

#endif
