// Compares numbers as they are written, digit by digit, without rounding.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_DECIMAL_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_DECIMAL_HPP

#include <algorithm>
#include <string>
#include <string_view>

namespace config_service {

/// A JSON number as digits and a power of ten. Equal for `150`, `1.50e2` and `1500e-1`.
struct Decimal {
  bool is_negative = false;
  std::string digits;      ///< no zero at either end; empty for zero
  long long exponent = 0;  ///< the number is 0.digits times ten to this power; 0 for zero

  friend bool operator==(const Decimal&, const Decimal&) = default;
};

/// Reads a number as JSON writes it. An exponent beyond a trillion counts as a trillion.
inline Decimal decimal_of(std::string_view number) {
  Decimal result;
  result.is_negative = number.starts_with('-');
  if (result.is_negative) number.remove_prefix(1);

  const auto mantissa_end = std::min(number.find_first_of("eE"), number.size());
  std::string_view exponent = number.substr(mantissa_end);
  const std::string_view mantissa = number.substr(0, mantissa_end);

  const auto point = std::min(mantissa.find('.'), mantissa.size());
  result.digits = mantissa.substr(0, point);
  if (point < mantissa.size()) result.digits += mantissa.substr(point + 1);
  const auto first = std::min(result.digits.find_first_not_of('0'), result.digits.size());
  result.digits.erase(0, first);
  result.digits.erase(result.digits.find_last_not_of('0') + 1);
  if (result.digits.empty()) return result;

  if (!exponent.empty()) exponent.remove_prefix(1);  // the e
  const bool is_small = exponent.starts_with('-');
  long long power = 0;
  for (const char c : exponent) {
    if (c >= '0' && c <= '9') power = std::min(power * 10 + (c - '0'), 1'000'000'000'000LL);
  }
  result.exponent =
      (is_small ? -power : power) + static_cast<long long>(point) - static_cast<long long>(first);
  return result;
}

}  // namespace config_service

#endif
