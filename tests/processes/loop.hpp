// The driver's one thread: waits for descriptors and points in time, and runs what is due.
#ifndef SYNCSTATE_TESTS_PROCESSES_LOOP_HPP
#define SYNCSTATE_TESTS_PROCESSES_LOOP_HPP

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

namespace processes {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

/// Thrown out of `Loop::run_until` after SIGINT, SIGTERM or SIGHUP, so that everything is put away.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("interrupted") {}
};

/// Runs callbacks for descriptors that are ready and for times that have come.
///
/// Threads: one.
class Loop {
 public:
  Loop() {
    struct sigaction action {};
    action.sa_handler = [](int) { is_interrupted() = 1; };
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Calls `f` whenever `fd`, which must not block, is ready for `events`; it may be called without need.
  /// A descriptor without events is not looked at, not even for a hang-up.
  void watch(int fd, short events, std::function<void()> f) { watched_[fd] = {events, std::move(f)}; }
  void set_events(int fd, short events) { watched_.at(fd).events = events; }
  void forget(int fd) { watched_.erase(fd); }

  /// Calls `f` once, at `when`. What it refers to must live as long as the loop runs.
  void at(TimePoint when, std::function<void()> f) { timers_.emplace(when, std::move(f)); }
  void after(std::chrono::milliseconds wait, std::function<void()> f) {
    at(Clock::now() + wait, std::move(f));
  }

  /// Runs until `is_done()`, which is asked after each turn; false if that took longer than `limit`.
  /// Errors: `Interrupted`.
  template <class F>
  bool run_until(F is_done, std::chrono::milliseconds limit) {
    const TimePoint end = Clock::now() + limit;
    while (!is_done()) {
      if (Clock::now() >= end) return false;
      turn(end);
    }
    return true;
  }

 private:
  struct Watched {
    short events;
    std::function<void()> f;
  };

  static volatile std::sig_atomic_t& is_interrupted() {
    static volatile std::sig_atomic_t flag = 0;
    return flag;
  }

  void turn(TimePoint end) {
    if (is_interrupted() != 0) throw Interrupted();
    if (!timers_.empty()) end = std::min(end, timers_.begin()->first);
    std::vector<pollfd> fds;
    for (const auto& [fd, watched] : watched_) {
      if (watched.events != 0) fds.push_back(pollfd{fd, watched.events, 0});
    }
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    const int ready =
        ::poll(fds.data(), fds.size(), static_cast<int>(std::clamp<decltype(wait)>(wait, 0, 1'000)));
    if (ready < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "poll");
    for (const pollfd& each : fds) {
      if (ready <= 0 || each.revents == 0) continue;
      const auto found = watched_.find(each.fd);
      if (found == watched_.end()) continue;  // forgotten meanwhile
      const auto f = found->second.f;         // which may forget itself
      f();
    }
    while (!timers_.empty() && timers_.begin()->first <= Clock::now()) {
      const auto f = std::move(timers_.begin()->second);
      timers_.erase(timers_.begin());
      f();
    }
  }

  std::map<int, Watched> watched_;
  std::multimap<TimePoint, std::function<void()>> timers_;
};

}  // namespace processes

#endif
