// The codec: every built-in type against hostile bytes, golden bytes and names, and what must not compile.
#include "syncstate/codec.hpp"

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <ratio>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "support/catch.hpp"
#include "support/codec_properties.hpp"
#include "syncstate/concepts.hpp"
#include "syncstate/detail/model/key_order.hpp"

namespace codec_test {

namespace {

using namespace std::chrono_literals;
using syncstate::Bytes;
using syncstate::ByteView;
using syncstate::decode_whole;
using syncstate::Encodable;
using syncstate::memory_bytes;
using syncstate::StateErrc;
using syncstate::StateError;
using syncstate::StateKey;
using syncstate::StateValue;
using syncstate::type_name;
using syncstate::detail::Rule;
using syncstate::detail::rule_of;
using syncstate::testing::allocated_bytes;
using syncstate::testing::bytes_of_copy;
using syncstate::testing::check_codec;
using syncstate::testing::CodecFacts;
using syncstate::testing::hex;
using syncstate::testing::nested;
using syncstate::testing::whole;

enum class Color : std::uint8_t { red, green, blue = 200 };
enum class Depth : std::int16_t { sea = -11'000, land = 8'849 };
enum Plain { off, on };
enum Switch : bool { closed, open };

struct Point {
  int x = 0;
  int y = 0;
  auto operator<=>(const Point&) const = default;
};

/// Aggregates within an aggregate, where elided braces could be taken for members.
struct Segment {
  Point from;
  std::array<int, 3> weights{};
  Point to;
  auto operator<=>(const Segment&) const = default;
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

struct Nothing {
  bool operator==(const Nothing&) const = default;
};

struct Largest {  // 32 members
  int a1, a2, a3, a4, a5, a6, a7, a8, b1, b2, b3, b4, b5, b6, b7, b8;
  int c1, c2, c3, c4, c5, c6, c7, c8, d1, d2, d3, d4, d5, d6, d7, d8;
  bool operator==(const Largest&) const = default;
};

/// No aggregate and without a default: a codec of its own, the least that one may be.
class Angle {
 public:
  explicit Angle(unsigned degrees) : degrees_(degrees) {
    if (degrees >= 360) throw std::out_of_range("an angle of 360 degrees or more");
  }
  [[nodiscard]] unsigned degrees() const { return degrees_; }
  bool operator==(const Angle&) const = default;

 private:
  unsigned degrees_;
};

struct Turn {
  Angle angle;
  Point around;
  Angle back;
  bool operator==(const Turn&) const = default;
};

}  // namespace

}  // namespace codec_test

template <>
struct syncstate::Codec<codec_test::Angle> {
  static void encode(const codec_test::Angle& value, ByteWriter& out) { out.put_varint(value.degrees()); }
  static codec_test::Angle decode(ByteReader& in) {
    return codec_test::Angle(static_cast<unsigned>(in.read_varint()));
  }
  static std::string type_name() { return "angle"; }
};

namespace codec_test {

/// Owns memory that only its codec can tell of.
struct Blob {
  explicit Blob(std::size_t bytes) : data(bytes) {}
  std::vector<char> data;
};
/// The same, and its codec does not tell.
struct Mute : Blob {
  using Blob::Blob;
};
struct WrongCount {
  std::shared_ptr<int> owned;
};

}  // namespace codec_test

template <>
struct syncstate::Codec<codec_test::Blob> {
  static void encode(const codec_test::Blob& value, ByteWriter& out) { out.put_varint(value.data.size()); }
  static codec_test::Blob decode(ByteReader& in) {
    return codec_test::Blob(static_cast<std::size_t>(in.read_varint()));
  }
  static std::string type_name() { return "blob"; }
  static std::size_t memory_bytes(const codec_test::Blob& value) {
    return sizeof(codec_test::Blob) + value.data.capacity();
  }
};

template <>
struct syncstate::Codec<codec_test::Mute> {
  static void encode(const codec_test::Mute& value, ByteWriter& out) {
    Codec<codec_test::Blob>::encode(value, out);
  }
  static codec_test::Mute decode(ByteReader& in) {
    return codec_test::Mute(static_cast<std::size_t>(in.read_varint()));
  }
  static std::string type_name() { return "mute"; }
};

template <>
struct syncstate::Codec<codec_test::WrongCount> {
  static void encode(const codec_test::WrongCount&, ByteWriter& out) { out.put_u8(0); }
  static codec_test::WrongCount decode(ByteReader& in) { return in.read_u8(), codec_test::WrongCount{}; }
  static std::string type_name() { return "wrong_count"; }
  static void memory_bytes(const codec_test::WrongCount&) {}
};

namespace codec_test {

namespace {

/// Values of any built-in type, small ones and extreme ones.
class RandomValues {
 public:
  explicit RandomValues(std::uint64_t seed) : rng_(seed) {}

  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(rng_() % limit); }

  void make(bool& out) { out = below(2) == 1; }
  void make(std::byte& out) { out = static_cast<std::byte>(below(256)); }
  template <std::integral T>
  void make(T& out) {
    // Of every width, so that all lengths of varint are met; and the ends.
    const auto bits = rng_() >> below(64);
    constexpr T ends[] = {std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), T{0}, T{1}};
    out = below(4) == 0 ? ends[below(4)] : static_cast<T>(bits);
    if (std::is_signed_v<T> && below(2) == 1) out = static_cast<T>(~out);
  }
  template <std::floating_point T>
  void make(T& out) {
    constexpr T ends[] = {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::denorm_min(), T{0}};
    out = below(4) == 0 ? ends[below(3)] : static_cast<T>(std::ldexp(static_cast<double>(rng_()), -70));
  }
  template <class T>
    requires(std::is_enum_v<T> && !std::same_as<T, std::byte>)
  void make(T& out) {
    std::underlying_type_t<T> number{};
    make(number);
    out = static_cast<T>(number);
  }
  template <class T>
    requires(syncstate::detail::is_byte_string<T> ||
             requires(T& t) { t.push_back(typename T::value_type{}); })
  void make(T& out) {
    out.clear();
    for (std::size_t size = below(5); size > 0; --size) {
      typename T::value_type element{};
      make(element);
      out.push_back(std::move(element));
    }
  }
  template <class T, std::size_t size>
  void make(std::array<T, size>& out) {
    for (T& element : out) make(element);
  }
  template <class T>
  void make(std::set<T>& out) {
    std::vector<T> elements;
    make(elements);
    out = std::set<T>(elements.begin(), elements.end());
  }
  template <class K, class V>
  void make(std::map<K, V>& out) {
    std::vector<std::pair<K, V>> entries;
    make(entries);
    out = std::map<K, V>(entries.begin(), entries.end());
  }
  template <class T>
  void make(std::optional<T>& out) {
    out.reset();
    if (below(3) > 0) make(out.emplace());
  }
  template <class A, class B>
  void make(std::pair<A, B>& out) {
    make(out.first);
    make(out.second);
  }
  template <class... Ts>
  void make(std::tuple<Ts...>& out) {
    std::apply([&](Ts&... elements) { (make(elements), ...); }, out);
  }
  void make(std::monostate&) {}
  template <class... Ts>
  void make(std::variant<Ts...>& out) {
    const std::size_t index = below(sizeof...(Ts));
    std::size_t i = 0;
    ((i++ == index ? make(out.template emplace<Ts>()) : void()), ...);
  }
  template <class Rep, class Period>
  void make(std::chrono::duration<Rep, Period>& out) {
    Rep count{};
    make(count);
    out = std::chrono::duration<Rep, Period>(count);
  }
  template <class Clock, class Duration>
  void make(std::chrono::time_point<Clock, Duration>& out) {
    Duration since{};
    make(since);
    out = std::chrono::time_point<Clock, Duration>(since);
  }
  void make(Point& out) {
    make(out.x);
    make(out.y);
  }
  void make(Segment& out) {
    make(out.from);
    make(out.weights);
    make(out.to);
  }
  void make(Nothing&) {}
  void make(Everything& out) {
    make(out.flag);
    make(out.point);
    make(out.choice);
    make(out.segments);
    make(out.files);
    make(out.three);
    make(out.timed);
    make(out.bits);
  }

 private:
  std::mt19937_64 rng_;
};

/// Memory that a byte of input may cost: that of the largest element a container within T has; what a
/// std::map or std::set keeps beside each element comes on top.
template <class T>
void check_values(std::size_t element_bytes = sizeof(T)) {
  static constexpr std::uint64_t seed = 20'26;
  INFO("seed " << seed);
  RandomValues values(seed);
  for (int round = 0; round < 6; ++round) {
    T value{};
    values.make(value);
    check_codec(value, CodecFacts{element_bytes});
  }
}

constexpr std::size_t node_bytes = 4 * sizeof(void*);

}  // namespace

TEST_CASE("codec: scalars come back, and hostile bytes are values or refused") {
  check_values<bool>();
  check_values<char>();
  check_values<signed char>();
  check_values<unsigned char>();
  check_values<char8_t>();
  check_values<char16_t>();
  check_values<char32_t>();
  check_values<wchar_t>();
  check_values<std::byte>();
  check_values<short>();
  check_values<unsigned short>();
  check_values<int>();
  check_values<unsigned>();
  check_values<long>();
  check_values<unsigned long>();
  check_values<long long>();
  check_values<unsigned long long>();
  check_values<float>();
  check_values<double>();
  check_values<Color>();
  check_values<Depth>();
  check_values<std::monostate>();
  check_codec(open, CodecFacts{1});
}

TEST_CASE("codec: strings and byte containers come back, and hostile bytes are values or refused") {
  check_values<std::string>();
  check_values<std::u8string>();
  check_values<std::vector<std::byte>>();
  check_values<std::vector<char>>();
  check_values<std::vector<unsigned char>>();
  check_values<std::vector<signed char>>();
  check_values<std::vector<char8_t>>();
  check_values<std::array<std::byte, 5>>();
  check_values<std::array<char, 1>>();
  check_values<std::array<unsigned char, 0>>();
}

TEST_CASE("codec: containers come back, and hostile bytes are values or refused") {
  check_values<std::vector<int>>(sizeof(int));
  check_values<std::vector<double>>(sizeof(double));
  check_values<std::vector<bool>>(1);
  check_values<std::vector<std::string>>();
  check_values<std::vector<std::optional<std::uint64_t>>>(sizeof(std::optional<std::uint64_t>));
  check_values<std::vector<std::vector<std::uint16_t>>>(sizeof(std::vector<int>) + sizeof(std::uint16_t));
  check_values<std::vector<std::pair<bool, std::byte>>>(sizeof(std::pair<bool, std::byte>));
  check_values<std::array<int, 4>>();
  check_values<std::array<std::string, 2>>();
  check_values<std::array<int, 0>>();
  check_values<std::set<int>>(sizeof(int) + 4 + node_bytes);
  check_values<std::set<std::string>>(sizeof(std::string) + node_bytes);
  check_values<std::map<int, int>>(2 * sizeof(int) + node_bytes);
  check_values<std::map<std::string, std::vector<int>>>(sizeof(std::string) + sizeof(std::vector<int>) +
                                                        node_bytes);
}

TEST_CASE("codec: optional, pair, tuple and variant come back, and hostile bytes are values or refused") {
  check_values<std::optional<int>>();
  check_values<std::optional<std::optional<bool>>>();
  check_values<std::optional<std::monostate>>();
  check_values<std::pair<int, std::string>>();
  check_values<std::tuple<>>();
  check_values<std::tuple<int>>();
  check_values<std::tuple<std::tuple<int>, std::string, double>>();
  check_values<std::variant<int>>();
  check_values<std::variant<std::monostate, int, std::string, std::vector<int>>>();
}

TEST_CASE("codec: durations and time points come back, and hostile bytes are values or refused") {
  check_values<std::chrono::nanoseconds>();
  check_values<std::chrono::hours>();
  check_values<std::chrono::duration<double>>();
  check_values<std::chrono::system_clock::time_point>();
  check_values<std::chrono::sys_seconds>();
}

TEST_CASE("codec: aggregates come back, and hostile bytes are values or refused") {
  check_values<Nothing>();
  check_values<Point>();
  check_values<Segment>();
  check_values<std::vector<Segment>>(sizeof(Segment));
  check_values<Everything>(sizeof(Segment) + node_bytes + sizeof(std::string) + sizeof(Bytes));
  Largest largest{};
  largest.a1 = 1;
  largest.d8 = -1;
  check_codec(largest, CodecFacts{sizeof(Largest)});
}

TEST_CASE("codec: a codec of a user's own, and aggregates and containers of such a type") {
  check_codec(Angle(90), CodecFacts{1, false});
  check_codec(Turn{Angle(10), {1, 2}, Angle(300)}, CodecFacts{1, false});
  check_codec(std::vector<Angle>{Angle(1), Angle(2)}, CodecFacts{sizeof(Angle), false});
  CHECK(type_name<Turn>() == "{angle,{i32,i32},angle}");
  CHECK(syncstate::whole_size(Turn{Angle(10), {1, 2}, Angle(300)}) == 5);
  // What it throws itself is the sender's fault all the same.
  try {
    decode_whole<Angle>(whole(400u));
    FAIL("an angle of 400 degrees");
  } catch (const StateError& error) {
    CHECK(error.code() == StateErrc::decode_error);
    CHECK(error.detail() == "an angle of 360 degrees or more");
  }
}

TEST_CASE("codec: the bytes are as documented") {
  CHECK(hex(whole(true)) == "01");
  CHECK(hex(whole(std::uint8_t{200})) == "c8 01");
  CHECK(hex(whole(std::int8_t{-1})) == "01");
  CHECK(hex(whole(300)) == "d8 04");
  CHECK(hex(whole(300u)) == "ac 02");
  CHECK(hex(whole(-2)) == "03");
  CHECK(hex(whole(std::numeric_limits<std::int64_t>::min())) == "ff ff ff ff ff ff ff ff ff 01");
  CHECK(hex(whole(std::numeric_limits<std::uint64_t>::max())) == "ff ff ff ff ff ff ff ff ff 01");
  CHECK(hex(whole('\xe9')) == "e9");
  CHECK(hex(whole(std::byte{0xe9})) == "e9");
  CHECK(hex(whole(u8'a')) == "61");
  CHECK(hex(whole(u'\u20ac')) == "ac 41");
  CHECK(hex(whole(U'\U0001f600')) == "80 ec 07");
  CHECK(hex(whole(Color::blue)) == "c8 01");
  CHECK(hex(whole(Depth::sea)) == "ef ab 01");
  CHECK(hex(whole(1.0f)) == "00 00 80 3f");
  CHECK(hex(whole(-2.5)) == "00 00 00 00 00 00 04 c0");
  CHECK(hex(whole(std::monostate{})).empty());

  CHECK(hex(whole(std::string("abc"))) == "61 62 63");
  CHECK(hex(nested(std::string("abc"))) == "03 61 62 63");
  CHECK(hex(nested(std::vector<signed char>{-1, 2})) == "02 ff 02");
  CHECK(hex(whole(std::array<char, 2>{'a', 'b'})) == "61 62");
  CHECK(hex(nested(std::array<char, 2>{'a', 'b'})) == "61 62");

  CHECK(hex(whole(std::vector<int>{1, -1})) == "02 02 01");
  CHECK(hex(whole(std::vector<bool>{true, false})) == "02 01 00");
  CHECK(hex(whole(std::vector<std::string>{"a", ""})) == "02 01 61 00");
  CHECK(hex(whole(std::array<int, 2>{1, -1})) == "02 01");
  CHECK(hex(whole(std::set<int>{3, 1})) == "02 02 06");
  CHECK(hex(whole(std::map<std::string, int>{{"b", 2}, {"a", 1}})) == "02 01 61 02 01 62 04");

  CHECK(hex(whole(std::optional<int>())) == "00");
  CHECK(hex(whole(std::optional<int>(1))) == "01 02");
  CHECK(hex(whole(std::pair<int, bool>(1, true))) == "02 01");
  CHECK(hex(whole(std::tuple<int, std::string>(1, "a"))) == "02 01 61");
  CHECK(hex(whole(std::variant<int, std::string>("a"))) == "01 01 61");
  CHECK(hex(whole(std::variant<std::monostate, int>())) == "00");
  CHECK(hex(whole(1500ms)) == "b8 17");
  CHECK(hex(whole(std::chrono::sys_seconds(-1s))) == "01");
  CHECK(hex(whole(Segment{{1, 2}, {3, 4, 5}, {6, 7}})) == "02 04 06 08 0a 0c 0e");
  CHECK(hex(whole(Nothing{})).empty());
}

TEST_CASE("codec: type names are built from structure") {
  CHECK(type_name<bool>() == "bool");
  CHECK(type_name<char>() == "char");
  CHECK(type_name<char8_t>() == "char");
  CHECK(type_name<char16_t>() == "u16");
  CHECK(type_name<char32_t>() == "u32");
  CHECK(type_name<std::byte>() == "byte");
  CHECK(type_name<std::int8_t>() == "i8");
  CHECK(type_name<std::uint8_t>() == "u8");
  CHECK(type_name<std::int16_t>() == "i16");
  CHECK(type_name<std::uint16_t>() == "u16");
  CHECK(type_name<std::uint32_t>() == "u32");
  CHECK(type_name<int>() == "i32");
  CHECK(type_name<std::int64_t>() == "i64");
  CHECK(type_name<long long>() == "i64");
  CHECK(type_name<unsigned long long>() == type_name<std::uint64_t>());
  CHECK(type_name<float>() == "f32");
  CHECK(type_name<double>() == "f64");
  CHECK(type_name<Color>() == "u8");
  CHECK(type_name<Depth>() == "i16");
  CHECK(type_name<std::monostate>() == "{}");
  CHECK(type_name<std::string>() == "string");
  CHECK(type_name<std::vector<std::byte>>() == "bytes");
  CHECK(type_name<std::vector<char>>() == "bytes");
  CHECK(type_name<std::vector<signed char>>() == "bytes");
  CHECK(type_name<std::vector<unsigned char>>() == "bytes");
  CHECK(type_name<std::u8string>() == "string");
  CHECK(type_name<std::vector<std::string>>() == "[string]");
  CHECK(type_name<std::vector<std::uint16_t>>() == "[u16]");
  CHECK(type_name<std::array<unsigned char, 2>>() == "[byte;2]");
  CHECK(type_name<std::array<std::string, 2>>() == "[string;2]");
  CHECK(type_name<std::array<std::byte, 16>>() == "[byte;16]");
  CHECK(type_name<std::array<char, 16>>() == "[byte;16]");
  CHECK(type_name<std::vector<int>>() == "[i32]");
  CHECK(type_name<std::vector<bool>>() == "[bool]");
  CHECK(type_name<std::array<int, 3>>() == "[i32;3]");
  CHECK(type_name<std::set<int>>() == "set<i32>");
  CHECK(type_name<std::set<std::string>>() == "set<string>");
  CHECK(type_name<std::map<std::int64_t, std::string>>() == "{i64:string}");
  CHECK(type_name<std::map<std::string, std::int64_t>>() == "{string:i64}");
  CHECK(type_name<std::optional<int>>() == "i32?");
  CHECK(type_name<std::optional<std::optional<bool>>>() == "bool??");
  CHECK(type_name<std::pair<std::string, std::int64_t>>() == "{string,i64}");
  CHECK(type_name<std::tuple<>>() == "{}");
  CHECK(type_name<std::tuple<int, bool>>() == "{i32,bool}");
  CHECK(type_name<std::tuple<bool, int>>() == "{bool,i32}");
  CHECK(type_name<std::tuple<std::string>>() == "{string}");
  CHECK(type_name<std::variant<std::string, int>>() == "<string|i32>");
  CHECK(type_name<std::variant<int, std::string>>() == "<i32|string>");
  // How a tick is counted and how long it is are both in the name, for every type that may count.
  CHECK(type_name<std::chrono::nanoseconds>() == "duration<1/1000000000,i64>");
  CHECK(type_name<std::chrono::milliseconds>() == "duration<1/1000,i64>");
  CHECK(type_name<std::chrono::seconds>() == "duration<1/1,i64>");
  CHECK(type_name<std::chrono::duration<std::int64_t, std::ratio<60>>>() == "duration<60/1,i64>");
  CHECK(type_name<std::chrono::duration<std::int64_t, std::ratio<2, 4>>>() == "duration<1/2,i64>");
  CHECK(type_name<std::chrono::duration<double>>() == "duration<1/1,f64>");
  CHECK(type_name<std::chrono::duration<float, std::milli>>() == "duration<1/1000,f32>");
  CHECK(type_name<std::chrono::duration<std::int32_t>>() == "duration<1/1,i32>");
  CHECK(type_name<std::chrono::duration<std::uint64_t, std::milli>>() == "duration<1/1000,u64>");
  CHECK(type_name<std::chrono::duration<char>>() == "duration<1/1,char>");
  CHECK(type_name<std::chrono::sys_seconds>() == "time_point<1/1,i64>");
  CHECK(type_name<std::chrono::sys_time<std::chrono::milliseconds>>() == "time_point<1/1000,i64>");
  CHECK(type_name<std::chrono::sys_time<std::chrono::duration<double>>>() == "time_point<1/1,f64>");
  CHECK(type_name<
            std::chrono::time_point<std::chrono::steady_clock, std::chrono::duration<float, std::milli>>>() ==
        "time_point<1/1000,f32>");
  CHECK(type_name<Nothing>() == "{}");
  CHECK(type_name<Segment>() == "{{i32,i32},[i32;3],{i32,i32}}");
  CHECK(type_name<Everything>() ==
        "{bool,{i32,i32}?,<{}|i32|string>,[{{i32,i32},[i32;3],{i32,i32}}],{string:bytes},{char,f32,u8},"
        "{string,duration<1/1000,i64>},[bool]}");
}

namespace {

template <class T>
std::string refusal(std::initializer_list<unsigned> bytes) {
  Bytes input;
  for (const unsigned b : bytes) input.push_back(static_cast<std::byte>(b));
  try {
    decode_whole<T>(input);
  } catch (const StateError& error) {
    return error.code() == StateErrc::decode_error ? error.detail() : error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("codec: each value has one encoding, any other is refused by name") {
  CHECK(refusal<bool>({2}) == "a bool that is neither 0 nor 1");
  CHECK(refusal<unsigned>({0x80, 0x00}) == "a varint longer than needed");
  CHECK(refusal<std::uint64_t>({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}) ==
        "a varint beyond 64 bits");
  CHECK(refusal<std::uint8_t>({0x80, 0x02}) == "a number beyond its type");
  CHECK(refusal<std::int8_t>({0x80, 0x02}) == "a number beyond its type");
  CHECK(refusal<std::int8_t>({0xff, 0x01}).empty());
  CHECK(refusal<char16_t>({0x80, 0x80, 0x04}) == "a number beyond its type");
  CHECK(refusal<Color>({0x80, 0x02}) == "a number beyond its type");
  CHECK(refusal<std::array<char, 2>>({1}) == "a byte array of another length");
  CHECK(refusal<std::vector<double>>({2, 0, 0, 0, 0, 0, 0, 0, 0, 0}) == "more elements than bytes for them");
  CHECK(refusal<std::set<int>>({2, 4, 2}) == "a set out of order");
  CHECK(refusal<std::set<int>>({2, 2, 2}) == "a set out of order");
  CHECK(refusal<std::map<int, int>>({2, 4, 0, 2, 0}) == "a map out of order");
  CHECK(refusal<std::map<int, int>>({2, 2, 0, 2, 0}) == "a map out of order");
  CHECK(refusal<std::optional<int>>({2}) == "an optional that is neither empty nor full");
  CHECK(refusal<std::variant<int, bool>>({2, 0}) == "a variant has no such alternative");
  CHECK(refusal<int>({2, 0}) == "bytes after the end of the value");
  CHECK(refusal<int>({}) == "the bytes end too early");
}

TEST_CASE("codec: floating-point numbers come back bit by bit") {
  for (const std::uint64_t bits :
       {0x7ff8000000000001ull, 0xfff0000000000000ull, 0x8000000000000000ull, 1ull}) {
    const double value = std::bit_cast<double>(bits);
    CHECK(std::bit_cast<std::uint64_t>(decode_whole<double>(whole(value))) == bits);
  }
}

TEST_CASE("codec: a claimed length costs no memory") {
  // A million empty optionals may be decoded; as many claimed with no bytes behind them may not cost a thing.
  using Element = std::optional<std::array<std::uint64_t, 16>>;
  Bytes claim;
  syncstate::ByteWriter(claim).put_varint(1'000'000);
  claim.resize(claim.size() + 100);
  const std::size_t before = syncstate::testing::allocated_bytes;
  CHECK_THROWS_AS(decode_whole<std::vector<Element>>(claim), StateError);
  CHECK(syncstate::testing::allocated_bytes - before < 2'048);
}

TEST_CASE("codec: memory_bytes tells what a decoded value holds, however few bytes encode it") {
  struct Named {
    std::string name;
    std::optional<std::vector<std::string>> more;
  };
  struct Flat {
    std::array<std::optional<std::pair<int, double>>, 100> all;
  };
  // Each empty string takes one byte of the encoding.
  const std::vector<std::string> empty_strings(1'000);
  CHECK(memory_bytes(empty_strings) >= 1'000 * sizeof(std::string));
  const auto exact = [](const auto& value) {
    using T = std::decay_t<decltype(value)>;
    const T copy = value;
    const std::size_t owned = memory_bytes(copy) - sizeof(T);
    const std::size_t spent = bytes_of_copy(value);
    INFO(type_name<T>() << " owns " << spent << ", said to own " << owned);
    // Each block may take the allocator's header besides, and none is smaller than 32 bytes.
    CHECK((owned >= spent && owned <= 2 * spent));
  };
  exact(1);
  exact(std::string("short"));
  exact(std::string(1'000, 'x'));
  exact(std::vector<std::byte>(1'000));
  exact(empty_strings);
  exact(std::vector<std::string>(100, std::string(100, 'x')));
  exact(std::vector<std::vector<std::vector<std::int64_t>>>(10, {100, {1, 2, 3}}));
  exact(std::vector<std::optional<std::array<double, 100>>>(50));
  exact(std::vector<bool>(10'000));
  exact(std::set<std::int64_t>{1, 2, 3});
  exact(std::map<std::uint8_t, std::uint8_t>{{1, 2}, {3, 4}});
  exact(std::map<std::string, Named>{{std::string(99, 'k'), {std::string(99, 'n'), {{"a", "b"}}}}});
  exact(std::variant<int, std::string, std::vector<Named>>{std::vector<Named>(7)});
  exact(std::tuple<int, std::string, std::vector<int>>{1, std::string(50, 't'), {1, 2, 3, 4}});
  exact(std::vector<Flat>(3));
  CHECK(memory_bytes(Flat{}) == sizeof(Flat));
  CHECK(memory_bytes(12ms) == sizeof(12ms));
  // Room that is not used is held all the same.
  std::string roomy = "r";
  roomy.reserve(100'000);
  CHECK(memory_bytes(roomy) > 100'000);
}

TEST_CASE(
    "codec: a value may take 16 MiB and 16 bytes for each of its encoding, and not more, on either side") {
  const auto limit = [](const char* what, const auto& fits, const auto& beyond, Bytes hostile) {
    INFO(what);
    using T = std::decay_t<decltype(fits)>;
    CHECK(decode_whole<T>(whole(fits)) == fits);
    try {
      whole(beyond);
      FAIL_CHECK("encoded beyond the limit");
    } catch (const StateError& error) {
      CHECK(error.code() == StateErrc::too_large);
    }
    const std::size_t before = allocated_bytes;
    CHECK_THROWS_AS(decode_whole<T>(hostile), StateError);
    CHECK(allocated_bytes - before <= 16 * hostile.size() + (std::size_t{17} << 20));
  };
  const auto repeated = [](std::size_t count, unsigned element) {
    Bytes bytes;
    syncstate::ByteWriter(bytes).put_varint(count);
    bytes.insert(bytes.end(), count, static_cast<std::byte>(element));
    return bytes;
  };
  using Big = std::optional<std::array<double, 100>>;
  limit("optionals", std::vector<Big>(20'000), std::vector<Big>(22'000), repeated(1'000'000, 0));
  limit("strings", std::vector<std::string>(1'000'000), std::vector<std::string>(2'000'000),
        repeated(4'000'000, 0));
  limit("vectors", std::vector<std::vector<int>>(2'000'000), std::vector<std::vector<int>>(3'000'000),
        repeated(4'000'000, 0));
  using Bits = std::vector<Bytes>;
  limit("vectors of a byte", Bits(400'000, Bytes(1)), Bits(800'000, Bytes(1)), repeated(2'000'000, 1));
  std::set<std::vector<int>> sets;
  for (int i = 0; i < 100; ++i) sets.insert({i});
  limit("sets", std::vector<std::set<std::vector<int>>>(1'000, sets),
        std::vector<std::set<std::vector<int>>>(4'000, sets), repeated(3'000'000, 0));
}

TEST_CASE("codec: a codec of a user's own says what its values hold, or it is estimated") {
  CHECK(memory_bytes(Blob(100'000)) == sizeof(Blob) + 100'000);
  CHECK(memory_bytes(std::vector<Blob>(1, Blob(100'000))) > 100'000 + 2 * sizeof(Blob));
  // Trivially copyable: it owns nothing.
  CHECK(memory_bytes(Angle(90)) == sizeof(Angle));
  // Nothing but an encoding to go by: each of its bytes stands for 32.
  CHECK(memory_bytes(Mute(100'000)) == sizeof(Mute) + 3 * 32);
  CHECK(memory_bytes(std::optional<Mute>(Mute(1))) == sizeof(std::optional<Mute>) + 32);
}

static_assert(rule_of<WrongCount>() == Rule::memory_not_a_size && !Encodable<WrongCount>);
static_assert(rule_of<Blob>() == Rule::none && rule_of<std::vector<WrongCount>>() == Rule::memory_not_a_size);

TEST_CASE("codec: a variant that lost its value is refused") {
  using Pair = std::pair<std::string, int>;
  std::variant<int, Pair> value(1);
  CHECK_THROWS_AS(
      value.emplace<Pair>(std::piecewise_construct, std::tuple(std::string::npos, 'x'), std::tuple(1)),
      std::length_error);
  REQUIRE(value.valueless_by_exception());
  try {
    whole(value);
    FAIL("a valueless variant was encoded");
  } catch (const StateError& error) {
    CHECK(error.code() == StateErrc::not_encodable);
  }
}

TEST_CASE("codec: keys of bytes are ordered unsigned, all others by <") {
  using syncstate::detail::KeyLess;
  const std::vector<signed char> high{-1};
  const std::vector<signed char> low{1};
  CHECK(KeyLess<std::vector<signed char>>{}(low, high));
  CHECK(!KeyLess<std::vector<signed char>>{}(high, low));
  CHECK(KeyLess<std::string>{}("a", "\xff"));
  CHECK(KeyLess<std::string>{}("a", "aa"));
  CHECK(!KeyLess<std::string>{}("a", "a"));
  CHECK(KeyLess<std::vector<std::byte>>{}(Bytes{}, Bytes{std::byte{0}}));
  CHECK(KeyLess<std::array<char, 1>>{}({'a'}, {'\xff'}));
  CHECK(KeyLess<int>{}(-1, 1));
  CHECK(KeyLess<Point>{}({1, 2}, {1, 3}));
}

namespace {

/// Has an order of its own, by number and then by row.
struct ByNumber {
  char row;
  int number;
  friend bool operator<(const ByNumber& a, const ByNumber& b) {
    return a.number != b.number ? a.number < b.number
                                : static_cast<unsigned char>(a.row) < static_cast<unsigned char>(b.row);
  }
};
/// Has the order of its members.
struct ByMembers {
  char row;
  int number;
  auto operator<=>(const ByMembers&) const = default;
};
/// Takes letters for the same whatever their case.
struct WithoutCase {
  bool operator()(char a, char b) const { return (a | 0x20) < (b | 0x20); }
};

}  // namespace

// That no machine differs is tested by tests/char_sign.
TEST_CASE("codec: a plain char is ordered as unsigned at any depth") {
  using syncstate::detail::depends_on_char_sign;
  using syncstate::detail::KeyLess;
  static_assert(depends_on_char_sign<char>() && depends_on_char_sign<std::pair<int, std::vector<char>>>());
  static_assert(!depends_on_char_sign<std::string>() &&
                !depends_on_char_sign<std::pair<std::string, signed char>>());
  static_assert(!depends_on_char_sign<std::vector<std::uint8_t>>() && !depends_on_char_sign<ByNumber>());
  CHECK(KeyLess<char>{}('a', '\xff'));
  CHECK(KeyLess<ByMembers>{}({'a', 2}, {'\xff', 1}));
  CHECK(KeyLess<ByMembers>{}({'a', 1}, {'a', 2}));
  CHECK(!KeyLess<ByMembers>{}({'a', 2}, {'a', 2}));
  CHECK(KeyLess<ByNumber>{}({'\xff', 1}, {'a', 2}));
  CHECK(KeyLess<std::pair<ByNumber, char>>{}({{'z', 1}, '\xff'}, {{'a', 2}, 'a'}));
  CHECK(KeyLess<std::pair<ByNumber, char>>{}({{'z', 1}, 'a'}, {{'z', 1}, '\xff'}));
  using Ticks = std::chrono::duration<char>;
  CHECK(KeyLess<Ticks>{}(Ticks('a'), Ticks('\xff')));
  using Time = std::chrono::time_point<std::chrono::system_clock, Ticks>;
  CHECK(KeyLess<Time>{}(Time(Ticks('a')), Time(Ticks('\xff'))));
  using Chars = std::map<char, char>;
  CHECK(KeyLess<Chars>{}({{'a', 'b'}}, {{'a', '\xff'}}));
  CHECK(KeyLess<Chars>{}({{'a', 'b'}, {'\xff', 'a'}}, {{'\x80', 'b'}}));
  CHECK(KeyLess<Chars>{}({}, {{'\x80', 'b'}}));

  // Sets and maps encode in this order, and refuse any other, whatever they compare with themselves.
  const auto bytes_of = [](const auto& value) {
    Bytes bytes;
    syncstate::encode_whole(value, bytes);
    return bytes;
  };
  const auto bytes = [](std::initializer_list<unsigned> list) {
    Bytes out;
    for (const unsigned b : list) out.push_back(static_cast<std::byte>(b));
    return out;
  };
  CHECK(bytes_of(std::set<char>{'\xff', 'a', '\x80'}) == bytes({3, 'a', 0x80, 0xff}));
  CHECK(bytes_of(std::set<char, std::greater<>>{'\xff', 'a', '\x80'}) == bytes({3, 'a', 0x80, 0xff}));
  CHECK(bytes_of(std::map<char, bool>{{'\xff', true}, {'a', false}}) == bytes({2, 'a', 0, 0xff, 1}));
  CHECK(decode_whole<std::set<char>>(bytes({3, 'a', 0x80, 0xff})) == std::set<char>{'\xff', 'a', '\x80'});
  CHECK(refusal<std::set<char>>({2, 0x80, 'a'}) == "a set out of order");
  CHECK(refusal<std::set<char>>({2, 'a', 'a'}) == "a set out of order");
  CHECK(refusal<std::set<char, WithoutCase>>({2, 'A', 'a'}) ==
        "a set with two elements that it takes for the same");
  CHECK(refusal<std::map<char, bool>>({2, 0x80, 0, 'a', 0}) == "a map out of order");
  CHECK(refusal<std::map<char, bool>>({2, 'a', 0, 'a', 0}) == "a map out of order");
  CHECK(refusal<std::map<char, bool, WithoutCase>>({2, 'A', 0, 'a', 0}) ==
        "a map with two keys that it takes for the same");
}

// ---- what must not compile, and why ----

namespace {

struct Base {
  int x;
};
struct Derived : Base {
  int y;
};
struct NoMembers {};
struct DerivedFromNothing : NoMembers {
  int y;
};
struct ArrayFirst {
  int x[3];
  int y;
};
struct ArrayBetween {
  Point p;
  std::string s;
  int x[2];
  Point q;
};
struct ArrayOfOne {
  int x[1];
};
struct Text {
  char text[20];
};
struct BitFields {
  int x : 3;
  unsigned y : 5;
};
static_assert(rule_of<BitFields>() == Rule::has_bit_field);
enum class Small : unsigned char { zero };
struct LastBitField {
  std::string x;
  Point y;
  Small z : 2;
};
static_assert(rule_of<LastBitField>() == Rule::has_bit_field);
struct FirstBitField {
  bool x : 1;
  std::vector<Point> y;
  double z;
};
static_assert(rule_of<FirstBitField>() == Rule::has_bit_field);
struct Reference {
  int& x;
};
struct ConstReference {
  const int& x;
  int y;
};
struct TooLarge {
  Largest all;
  int a1, a2, a3, a4, a5, a6, a7, a8, b1, b2, b3, b4, b5, b6, b7, b8;
  int c1, c2, c3, c4, c5, c6, c7, c8, d1, d2, d3, d4, d5, d6, d7, d8;
};
union Either {
  int x;
  float y;
};
struct Tree {
  int value;
  std::vector<Tree> children;
};
struct Pointer {
  std::unique_ptr<int> p;
};
struct Hidden {
  int x = 0;

 private:
  [[maybe_unused]] int y_ = 0;
};
struct Constant {
  const int x;
  std::string y;
};
struct Measured {
  std::string name;
  double value;
  auto operator<=>(const Measured&) const = default;
};
struct Unordered {
  int x;
};
struct MoveOnly {
  int x;
  MoveOnly(MoveOnly&&) = default;
};

static_assert(rule_of<Derived>() == Rule::has_base);
static_assert(rule_of<DerivedFromNothing>() == Rule::has_base);
static_assert(rule_of<ArrayFirst>() == Rule::has_c_array);
static_assert(rule_of<ArrayBetween>() == Rule::has_c_array);
static_assert(rule_of<ArrayOfOne>() == Rule::has_c_array);
static_assert(rule_of<Text>() == Rule::has_c_array);
static_assert(rule_of<int[3]>() == Rule::has_c_array);
static_assert(rule_of<Reference>() == Rule::has_reference);
static_assert(rule_of<ConstReference>() == Rule::has_reference);
static_assert(rule_of<TooLarge>() == Rule::too_many_members);
static_assert(rule_of<Either>() == Rule::is_union);
static_assert(rule_of<Plain>() == Rule::plain_enum);
static_assert(rule_of<Tree>() == Rule::recursive);
static_assert(rule_of<Pointer>() == Rule::no_codec);
static_assert(rule_of<Hidden>() == Rule::no_codec);
static_assert(rule_of<int*>() == Rule::no_codec);
static_assert(rule_of<void>() == Rule::no_codec);
static_assert(rule_of<long double>() == Rule::no_codec);
static_assert(rule_of<std::string_view>() == Rule::no_codec);
static_assert(rule_of<std::unordered_map<int, int>>() == Rule::unordered);
static_assert(rule_of<std::optional<std::unordered_set<int>>>() == Rule::unordered);
static_assert(rule_of<std::vector<std::monostate>>() == Rule::element_of_nothing);
static_assert(rule_of<std::vector<Nothing>>() == Rule::element_of_nothing);
static_assert(rule_of<std::vector<std::array<int, 0>>>() == Rule::element_of_nothing);
static_assert(rule_of<std::set<std::tuple<>>>() == Rule::element_of_nothing);
static_assert(rule_of<std::map<std::monostate, std::monostate>>() == Rule::element_of_nothing);
static_assert(rule_of<std::array<Nothing, 2>>() == Rule::element_of_nothing);
static_assert(Encodable<std::map<int, std::monostate>> && Encodable<std::optional<Nothing>>);
static_assert(Encodable<Constant> && Encodable<Everything> && Encodable<Largest>);

static_assert(StateKey<std::string> && StateKey<std::vector<std::byte>> &&
              StateKey<std::vector<signed char>>);
static_assert(StateKey<int> && StateKey<Point> && StateKey<Color> && StateKey<std::pair<std::string, int>>);
static_assert(StateKey<std::chrono::milliseconds> && StateKey<std::optional<int>>);
static_assert(!StateKey<double> && !StateKey<std::pair<double, int>> && !StateKey<std::vector<double>>);
static_assert(!StateKey<std::optional<float>> && !StateKey<Measured> &&
              !StateKey<std::variant<int, Measured>>);
static_assert(!StateKey<std::chrono::duration<double>> && !StateKey<std::map<int, std::vector<float>>>);
static_assert(!StateKey<std::unordered_set<int>> && !StateKey<Unordered> && !StateKey<std::string_view>);

static_assert(StateValue<double> && StateValue<Measured> && StateValue<Everything> && StateValue<Angle>);
static_assert(!StateValue<std::unordered_map<int, int>> && !StateValue<std::vector<std::unordered_set<int>>>);
static_assert(!StateValue<std::unique_ptr<int>> && !StateValue<MoveOnly> && !StateValue<Tree>);

}  // namespace

}  // namespace codec_test
