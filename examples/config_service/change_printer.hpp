// Prints what changes from one state to the next: each change once, and none left out.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CHANGE_PRINTER_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CHANGE_PRINTER_HPP

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <string>
#include <syncstate/diff.hpp>
#include <syncstate/replica.hpp>
#include <syncstate/view.hpp>
#include <utility>

#include "console.hpp"
#include "document.hpp"

namespace config_service {

using Replica = syncstate::Replica<std::string, Json>;
using View = syncstate::View<std::string, Json>;
using Diff = syncstate::Diff<std::string, Json>;

/// `2026-11-22T22:05:57.123Z`
inline std::string utc_now() {
  using std::chrono::system_clock;
  const auto now = std::chrono::floor<std::chrono::milliseconds>(system_clock::now());
  const std::time_t seconds = system_clock::to_time_t(now);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[40];
  const std::size_t size = std::strftime(text, sizeof(text), "%FT%T", &parts);
  std::snprintf(text + size, sizeof(text) - size, ".%03dZ",
                static_cast<int>(now.time_since_epoch().count() % 1'000));
  return text;
}

/// Remembers the state up to which it has printed.
///
/// Threads: any.
class ChangePrinter {
 public:
  /// Prints changes from `start` on; after `most` of them no more, unless that is 0. Prints on `console`, which must
  /// outlive it. Waits if the reader is slow: the replica merges what comes meanwhile.
  ChangePrinter(Console& console, View start, std::uint64_t most)
      : console_(console), last_(std::move(start)), most_(most) {}

  /// Prints what the replica, perhaps one of another document, shows differently by now.
  void advance(const Replica& replica) { advance(replica, nullptr, nullptr); }

  /// The same where the last step is known: `diff` led from `before` to what the replica shows.
  void advance(const Replica& replica, const Diff* diff, const View* before) {
    const std::lock_guard lock(mutex_);
    View now = replica.view();
    const bool is_same_document = now.hash() == last_.hash();
    if (is_same_document && now.position() == last_.position()) return;
    if (is_same_document && last_.epoch() != 0 && now.epoch() != last_.epoch()) {
      console_.err().write(
          "the master was restarted: update ids start again at 0, and values are those of the file");
    }
    if (is_same_document && before != nullptr && before->position() == last_.position()) {
      for (const auto& [key, value] : diff->changes()) print_line(now, key, &before->at(key), &value);
    } else {
      compare(now);
    }
    last_ = std::move(now);
  }

  [[nodiscard]] bool is_done() const {
    const std::lock_guard lock(mutex_);
    return most_ != 0 && printed_ >= most_;
  }

 private:
  /// For when no diff is at hand: something was applied before we listened, or it is another document.
  void compare(const View& now) {
    auto older = last_.begin();
    auto newer = now.begin();
    while (older != last_.end() || newer != now.end()) {
      if (newer == now.end() || (older != last_.end() && older->first < newer->first)) {
        print_line(now, older->first, &older->second, nullptr);
        ++older;
      } else if (older == last_.end() || newer->first < older->first) {
        print_line(now, newer->first, nullptr, &newer->second);
        ++newer;
      } else {
        if (older->second != newer->second) print_line(now, newer->first, &older->second, &newer->second);
        ++older;
        ++newer;
      }
    }
  }

  void print_line(const View& now, const std::string& key, const Json* before, const Json* after) {
    if (!is_pointer(key) || (most_ != 0 && printed_ >= most_)) return;
    ++printed_;
    console_.out().write_waiting(utc_now() + "  update " + std::to_string(now.update_id()) + "  " +
                                 pointer_text(key) + "  " +
                                 (before != nullptr ? json_text(*before) : "(nothing)") + " -> " +
                                 (after != nullptr ? json_text(*after) : "(nothing)"));
  }

  Console& console_;
  mutable std::mutex mutex_;
  View last_;
  std::uint64_t most_;
  std::uint64_t printed_ = 0;
};

}  // namespace config_service

#endif
