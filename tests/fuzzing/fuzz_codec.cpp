// Every built-in codec, chosen by the first byte, against the bytes that follow.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "checked_codec.hpp"

namespace {

using syncstate::ByteView;
using syncstate::fuzzing::CodecFacts;

enum class Color : std::uint8_t { red, green, blue = 200 };
enum class Depth : std::int16_t { sea = -11'000, land = 8'849 };
enum Switch : bool { closed, open };

struct Point {
  int x = 0;
  int y = 0;
  auto operator<=>(const Point&) const = default;
};

struct Segment {
  Point from;
  std::array<int, 3> weights{};
  Point to;
  auto operator<=>(const Segment&) const = default;
};

struct Nothing {
  bool operator==(const Nothing&) const = default;
};

struct Everything {
  bool flag = false;
  std::optional<Point> point;
  std::variant<std::monostate, int, std::string> choice;
  std::vector<Segment> segments;
  std::map<std::string, std::vector<std::byte>> files;
  std::tuple<char, float, Color> three;
  std::pair<std::string, std::chrono::milliseconds> timed;
  std::vector<bool> bits;
  bool operator==(const Everything&) const = default;
};

/// Without a default and choosy: a codec of its own.
class Angle {
 public:
  explicit Angle(std::uint64_t degrees) : degrees_(degrees) {
    if (degrees >= 360) throw std::out_of_range("an angle of 360 degrees or more");
  }
  [[nodiscard]] std::uint64_t degrees() const { return degrees_; }
  auto operator<=>(const Angle&) const = default;

 private:
  std::uint64_t degrees_;
};

struct Turn {
  Angle angle;
  std::vector<Angle> more;
  bool operator==(const Turn&) const = default;
};

}  // namespace

template <>
struct syncstate::Codec<Angle> {
  static void encode(const Angle& value, ByteWriter& out) { out.put_varint(value.degrees()); }
  static Angle decode(ByteReader& in) { return Angle(in.read_varint()); }
  static std::string type_name() { return "angle"; }
};

namespace {

/// The codec of T at what one byte of input may cost: a string holds a byte of it beside a terminator, a
/// container an element of its least encoding, and std::set and std::map a node.
template <class T, std::size_t bytes_per_byte>
void check(ByteView bytes) {
  syncstate::fuzzing::check_codec<T>(bytes, CodecFacts{bytes_per_byte});
}

constexpr std::size_t node = 4 * sizeof(void*);
constexpr std::size_t text = sizeof(std::string) + 1;

// The corpus names these by their number: append.
constexpr void (*checks[])(ByteView) = {
    check<bool, 0>,
    check<char, 0>,
    check<signed char, 0>,
    check<unsigned char, 0>,
    check<char8_t, 0>,
    check<char16_t, 0>,
    check<char32_t, 0>,
    check<wchar_t, 0>,
    check<std::byte, 0>,
    check<short, 0>,
    check<unsigned short, 0>,
    check<int, 0>,
    check<unsigned, 0>,
    check<long, 0>,
    check<unsigned long, 0>,
    check<long long, 0>,
    check<unsigned long long, 0>,
    check<float, 0>,
    check<double, 0>,
    check<Color, 0>,
    check<Depth, 0>,
    check<Switch, 0>,
    check<std::monostate, 0>,
    check<std::string, 2>,
    check<std::u8string, 2>,
    check<std::vector<std::byte>, 1>,
    check<std::vector<char>, 1>,
    check<std::vector<unsigned char>, 1>,
    check<std::array<std::byte, 5>, 0>,
    check<std::array<unsigned char, 0>, 0>,
    check<std::vector<int>, sizeof(int)>,
    check<std::vector<std::uint64_t>, sizeof(std::uint64_t)>,
    check<std::vector<double>, 1>,
    check<std::vector<bool>, 1>,
    check<std::vector<std::string>, text>,
    check<std::vector<std::optional<std::uint64_t>>, sizeof(std::optional<std::uint64_t>)>,
    check<std::vector<std::vector<std::uint16_t>>, sizeof(std::vector<int>) + sizeof(std::uint16_t)>,
    check<std::vector<std::pair<bool, std::byte>>, 1>,
    check<std::vector<std::variant<std::monostate, std::string>>, 1 + text + sizeof(void*)>,
    check<std::array<int, 4>, 0>,
    check<std::array<std::string, 2>, 2>,
    check<std::array<int, 0>, 0>,
    check<std::set<int>, sizeof(int) + 4 + node>,
    check<std::set<std::string>, text + node>,
    check<std::set<std::pair<std::string, Point>>, sizeof(std::pair<std::string, Point>) + node>,
    check<std::map<int, int>, (sizeof(std::pair<int, int>) + node) / 2>,
    check<std::map<std::string, std::vector<int>>, text + sizeof(std::vector<int>) + sizeof(int) + node>,
    check<std::map<std::uint8_t, std::map<std::string, std::set<int>>>,
          2 * (text + sizeof(std::set<int>) + node)>,
    check<std::optional<int>, 0>,
    check<std::optional<std::optional<bool>>, 0>,
    check<std::optional<std::monostate>, 0>,
    check<std::pair<int, std::string>, 2>,
    check<std::tuple<>, 0>,
    check<std::tuple<std::tuple<int>, std::string, double>, 2>,
    check<std::variant<int>, 0>,
    check<std::variant<std::monostate, int, std::string, std::vector<int>>, sizeof(int)>,
    check<std::chrono::nanoseconds, 0>,
    check<std::chrono::duration<double>, 0>,
    check<std::chrono::system_clock::time_point, 0>,
    check<std::chrono::sys_seconds, 0>,
    check<Nothing, 0>,
    check<Point, 0>,
    check<Segment, 0>,
    check<std::vector<Segment>, sizeof(Segment) / 7 + 1>,
    check<Everything, sizeof(Segment) + node + text + sizeof(std::vector<std::byte>)>,
    check<std::vector<Everything>, sizeof(Everything)>,
    check<Angle, 0>,
    check<Turn, sizeof(Angle)>,
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  syncstate::fuzzing::Input input(data, size);
  const std::size_t which = input.below(std::size(checks));
  checks[which](input.take_rest());
  return 0;
}
