// What is told of many samples: percentiles, and how a figure is written.
#ifndef SYNCSTATE_BENCHMARKS_SUPPORT_STATISTICS_HPP
#define SYNCSTATE_BENCHMARKS_SUPPORT_STATISTICS_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace benchmarks {

/// The sample that a share of `rank` (0 .. 1) of all samples lies below. There must be one.
[[nodiscard]] inline double percentile(std::vector<double> samples, double rank) {
  const auto last = static_cast<double>(samples.size() - 1);
  const auto index = static_cast<std::ptrdiff_t>(std::lround(rank * last));
  std::nth_element(samples.begin(), samples.begin() + index, samples.end());
  return samples[static_cast<std::size_t>(index)];
}

[[nodiscard]] inline double median(const std::vector<double>& samples) { return percentile(samples, 0.5); }

/// Three digits that matter, thousands apart: `0.412`, `38.5`, `126,000`.
[[nodiscard]] inline std::string write_figure(double value) {
  if (value == 0) return "0";
  const int digits_before = static_cast<int>(std::floor(std::log10(std::abs(value)))) + 1;
  const double step = std::pow(10.0, std::max(-9, digits_before - 3));
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", std::clamp(3 - digits_before, 0, 9),
                std::round(value / step) * step);
  std::string figure = text;
  const std::size_t point = std::min(figure.find('.'), figure.size());
  const std::size_t first = value < 0 ? 1 : 0;
  for (std::size_t at = point; at > first + 3;) figure.insert(at -= 3, ",");
  return figure;
}

}  // namespace benchmarks

#endif
