// Texts of peers: cut and cleaned where they are decoded, on both sides.
#include <cstddef>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"
#include "syncstate/protocol/peer_text.hpp"

namespace peer_text_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using wire::clean_peer_text;

const std::string replaced = "\xEF\xBF\xBD";

/// True if `text` is what a terminal and a log may be given: valid UTF-8, bounded, without controls. Written apart from
/// the library's code.
bool is_clean(const std::string& text) {
  if (text.size() > 512) return false;
  for (std::size_t i = 0; i < text.size();) {
    const auto b = static_cast<unsigned char>(text[i]);
    const std::size_t length = b < 0x80 ? 1 : b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : b >= 0xC0 ? 2 : 0;
    if (length == 0 || i + length > text.size()) return false;
    unsigned code = length == 1 ? b : b & (0x7FU >> length);
    for (std::size_t k = 1; k < length; ++k) {
      const auto c = static_cast<unsigned char>(text[i + k]);
      if (c < 0x80 || c > 0xBF) return false;
      code = code * 64 + (c - 0x80U);
    }
    const unsigned smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < smallest[length] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    if (code < 32 || (code >= 127 && code < 160)) return false;
    for (const unsigned bad : {0x61CU, 0x200EU, 0x200FU, 0x202AU, 0x202BU, 0x202CU, 0x202DU, 0x202EU, 0x2066U,
                               0x2067U, 0x2068U, 0x2069U, 0x2028U, 0x2029U, 0xFEFFU}) {
      if (code == bad) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace

TEST_CASE("texts of peers are cleaned", "[protocol]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", ""},
      {"the map is not hosted: {string: i64}", "the map is not hosted: {string: i64}"},
      {"gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x90\x99",
       "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x90\x99"},
      {std::string("a\0b", 3), "a" + replaced + "b"},
      {"\x1B[31mred\x07", replaced + "[31mred" + replaced},
      {"one\ntwo\r\nthree\tfour\vfive", "one two  three four five"},
      {"\x7F\xC2\x80\xC2\x9B", replaced + replaced + replaced},  // DEL, two of C1
      {"a\xC2\x85\xE2\x80\xA8\xE2\x80\xA9z", "a   z"},           // line ends of Unicode
      {"\xE2\x80\xAE"
       "evil\xE2\x81\xA6",
       replaced + "evil" + replaced},
      {"\xD8\x9C\xE2\x80\x8E\xE2\x80\x8F\xEF\xBB\xBF", replaced + replaced + replaced + replaced},
      {"\xF3\xA0\x81\x81", replaced},                                   // a tag: not seen
      {"\x80\xFF\xC0\xAF", replaced + replaced + replaced + replaced},  // no UTF-8, the last overlong
      {"\xE0\x80\x80", replaced + replaced + replaced},                 // overlong
      {"\xED\xA0\x80", replaced + replaced + replaced},                 // a surrogate
      {"\xF4\x90\x80\x80", replaced + replaced + replaced + replaced},  // beyond U+10FFFF
      {"\xE2\x82", replaced},                                           // cut off
      {"\xE2\x82z", replaced + "z"},
  };
  for (const auto& [text, expected] : cases) {
    INFO(to_hex(as_byte_view(text)));
    CHECK(clean_peer_text(text) == expected);
    CHECK(is_clean(clean_peer_text(text)));
  }
}

TEST_CASE("texts of peers are cut to 512 bytes, not within a character", "[protocol]") {
  CHECK(clean_peer_text(std::string(512, 'x')).size() == 512);
  CHECK(clean_peer_text(std::string(513, 'x')).size() == 512);
  CHECK(clean_peer_text(std::string(1'000'000, '\0')).size() == 510);
  for (std::size_t before = 505; before < 513; ++before) {
    INFO(before);
    const std::string text = std::string(before, 'x') + "\xF0\x9F\x90\x99" + std::string(9, 'y');
    const std::string cleaned = clean_peer_text(text);
    CHECK(is_clean(cleaned));
    CHECK(cleaned.size() == (before <= 508 || before == 512 ? 512 : before));
    CHECK(wire::shorten(text) == cleaned);
  }
  CHECK(wire::shorten(std::string(2'000, '\x80')).size() >= 508);
}

TEST_CASE("whatever bytes a text has, what is shown of it is clean", "[protocol]") {
  const unsigned seed = GENERATE(range(0u, 20u));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::string_view parts[] = {"\xE2\x80", "\xF0\x9F", "\xAE",    "\xC2",
                                    "\x85",     "abc",      "\x1B[2J", "\xEF\xBB\xBF"};
  for (int i = 0; i < 500; ++i) {
    std::string text;
    while (text.size() < random() % 800) {
      if (random() % 2 == 0) {
        text += parts[random() % std::size(parts)];
      } else {
        text += static_cast<char>(random());
      }
    }
    REQUIRE(is_clean(clean_peer_text(text)));
  }
}

TEST_CASE("every text for people is cleaned where it is decoded", "[protocol]") {
  const std::string dirty = "\x1B]0;x\x07" + std::string(100'000, '\n') + "\xE2\x80\xAE";
  const std::string clean = clean_peer_text(dirty);
  const auto again = [](const auto& message) {
    using Message = std::decay_t<decltype(message)>;
    Bytes body;
    ByteWriter out(body);
    message.encode(out);
    ByteReader in(body);
    return Message::decode(in);
  };
  CHECK(again(wire::Goodbye{StateErrc::stopped, dirty}).detail == clean);
  CHECK(again(wire::Refused{1, StateErrc::busy, dirty, {}}).detail == clean);
  CHECK(again(wire::AnswerError{1, 1, StateErrc::hook_failed, dirty}).detail == clean);
  const auto map = again(wire::HostedMapInfo{MapHash(), MapHash(), dirty, "a" + dirty, 1});
  CHECK(map.key_type == clean);
  CHECK(map.value_type == clean_peer_text("a" + dirty));

  // A server hears a client's goodbye through the same function.
  ServerSide server;
  server.authenticate();
  server.feed(frame_of(wire::Goodbye{StateErrc::stopped, dirty}));
  REQUIRE(server.log.closes.size() == 1);
  CHECK(server.log.closes[0].detail == clean);
}

}  // namespace peer_text_test
