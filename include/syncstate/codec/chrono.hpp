// Codecs of durations and time points.
#ifndef SYNCSTATE_CODEC_CHRONO_HPP
#define SYNCSTATE_CODEC_CHRONO_HPP

#include <chrono>
#include <cstddef>
#include <string>

#include "syncstate/codec/memory.hpp"
#include "syncstate/codec/rules.hpp"

namespace syncstate {

namespace detail {

/// `1/1000,i64` for milliseconds
template <class Duration>
std::string ticks_name() {
  using Period = typename Duration::period;
  return std::to_string(Period::num) + "/" + std::to_string(Period::den) + "," +
         Codec<typename Duration::rep>::type_name();
}

}  // namespace detail

/// The number of ticks; how long a tick is stands in the type name.
template <class Rep, class Period>
struct Codec<std::chrono::duration<Rep, Period>> : detail::BuiltIn<Rep> {
  using Value = std::chrono::duration<Rep, Period>;
  static consteval std::size_t min_bytes() { return detail::min_bytes<Rep>(); }
  static std::size_t size(const Value& value) { return detail::encoded_size<Rep>(value.count()); }
  static std::size_t owned_bytes(const Value& value) {
    if constexpr (detail::is_flat<Rep>()) return 0;
    return detail::owned_bytes<Rep>(value.count());
  }
  static void encode(const Value& value, ByteWriter& out) { Codec<Rep>::encode(value.count(), out); }
  static Value decode(ByteReader& in) { return Value(Codec<Rep>::decode(in)); }
  static std::string type_name() { return "duration<" + detail::ticks_name<Value>() + ">"; }
};

/// The number of ticks since the clock's epoch. The clock is not part of the type name: both sides must mean
/// the same one, and only clocks such as `system_clock` mean the same on two machines.
template <class Clock, class Duration>
struct Codec<std::chrono::time_point<Clock, Duration>> : detail::BuiltIn<Duration> {
  using Value = std::chrono::time_point<Clock, Duration>;
  static consteval std::size_t min_bytes() { return detail::min_bytes<Duration>(); }
  static std::size_t size(const Value& value) {
    return detail::encoded_size<Duration>(value.time_since_epoch());
  }
  static std::size_t owned_bytes(const Value& value) {
    return detail::owned_bytes<Duration>(value.time_since_epoch());
  }
  static void encode(const Value& value, ByteWriter& out) {
    Codec<Duration>::encode(value.time_since_epoch(), out);
  }
  static Value decode(ByteReader& in) { return Value(Codec<Duration>::decode(in)); }
  static std::string type_name() { return "time_point<" + detail::ticks_name<Duration>() + ">"; }
};

}  // namespace syncstate

#endif
