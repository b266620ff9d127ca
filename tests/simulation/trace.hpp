// What happened in a simulation, line by line, and the first thing that was wrong.
#ifndef SYNCSTATE_TESTS_SIMULATION_TRACE_HPP
#define SYNCSTATE_TESTS_SIMULATION_TRACE_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/executor.hpp"

namespace syncstate::simulation {

/// The story of one run. Two runs of one seed have the same digest: of every line, and of all bytes that were
/// delivered.
class Trace {
 public:
  explicit Trace(std::function<TimePoint()> now) : now_(std::move(now)), start_(now_()) {}

  template <class... Parts>
  void add(const Parts&... parts) {
    std::ostringstream line;
    const auto passed = std::chrono::duration_cast<std::chrono::milliseconds>(now_() - start_).count();
    char time[32];
    std::snprintf(time, sizeof time, "%7lld.%03lld  ", static_cast<long long>(passed / 1'000),
                  static_cast<long long>(passed % 1'000));
    line << time;
    (line << ... << parts);
    lines_.push_back(line.str());
    digest(as_byte_view(lines_.back()));
  }

  /// FNV-1a.
  void digest(ByteView bytes) {
    for (const std::byte b : bytes)
      digest_ = (digest_ ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3ULL;
  }

  /// Something is wrong; the first one is what the run is stopped for.
  template <class... Parts>
  void fail(const Parts&... parts) {
    add("WRONG: ", parts...);
    if (failure_.empty()) failure_ = lines_.back();
  }

  [[nodiscard]] bool has_failed() const { return !failure_.empty(); }
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] std::uint64_t digest() const { return digest_; }

  /// The last lines, all of them for 0.
  [[nodiscard]] std::string tail(std::size_t count) const {
    std::string text;
    for (std::size_t i = count == 0 || count > lines_.size() ? 0 : lines_.size() - count; i < lines_.size();
         ++i) {
      text += lines_[i] + "\n";
    }
    return text;
  }

 private:
  std::function<TimePoint()> now_;
  TimePoint start_;
  std::vector<std::string> lines_;
  std::string failure_;
  std::uint64_t digest_ = 0xcbf29ce484222325ULL;
};

}  // namespace syncstate::simulation

#endif
