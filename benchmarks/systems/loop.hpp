// One thread's wait for many descriptors.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_LOOP_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_LOOP_HPP

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "support/harness.hpp"
#include "systems/wire.hpp"

namespace benchmarks {

/// An epoll descriptor, level-triggered. Each descriptor has a number of the caller's, below 2^32.
class Loop {
 public:
  Loop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

  void add(int handle, std::uint32_t number) { control(EPOLL_CTL_ADD, handle, number, EPOLLIN); }
  /// Whether the descriptor's being writable counts, too.
  void watch_writing(int handle, std::uint32_t number, bool does_count) {
    control(EPOLL_CTL_MOD, handle, number, does_count ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
  /// Leaves the descriptor alone, until it is added again.
  void remove(int handle) { control(EPOLL_CTL_DEL, handle, 0, 0); }

  /// Waits for at most `limit`; calls `ready(number)` for each descriptor that is ready.
  template <class F>
  void turn(Clock::duration limit, F ready) {
    std::array<epoll_event, 64> events;  // NOLINT: filled by the call
    const int count = wait(events, limit);
    for (int i = 0; i < count; ++i) ready(events[static_cast<std::size_t>(i)].data.u32);
  }

 private:
  void control(int what, int handle, std::uint32_t number, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u32 = number;
    wire::require(::epoll_ctl(epoll_.get(), what, handle, &event) == 0, "epoll_ctl");
  }

  int wait(std::array<epoll_event, 64>& events, Clock::duration limit) {
    using std::chrono::nanoseconds;
    const auto room = static_cast<int>(events.size());
    const bool is_endless = limit == Clock::duration::max();
    const auto rest = std::max<std::int64_t>(0, std::chrono::duration_cast<nanoseconds>(limit).count());
    const timespec time{rest / 1'000'000'000, rest % 1'000'000'000};
    for (;;) {
      const int count = is_endless || rest == 0
                            ? ::epoll_wait(epoll_.get(), events.data(), room, is_endless ? -1 : 0)
                            : ::epoll_pwait2(epoll_.get(), events.data(), room, &time, nullptr);
      if (count >= 0) return count;
      wire::require(errno == EINTR, "epoll_wait");
    }
  }

  wire::Handle epoll_;
};

}  // namespace benchmarks

#endif
