// Threads that sleep until a condition they test themselves may have changed.
#ifndef SYNCSTATE_DETAIL_WAITERS_HPP
#define SYNCSTATE_DETAIL_WAITERS_HPP

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "syncstate/detail/unique_function.hpp"
#include "syncstate/executor.hpp"

namespace syncstate::detail {

/// What `Executor::wait_until` and `wake_waiters` are made of on real threads.
///
/// Threads: any.
class Waiters {
 public:
  /// Blocks until `is_done()` or until `limit`; returns what `is_done()` says at last.
  /// `is_done` is called without our lock, so it may take locks of its own.
  bool wait_until(TimePoint limit, UniqueFunction<bool()>& is_done) {
    std::unique_lock lock(mutex_);
    ++sleepers_;
    bool is_late = false;
    for (;;) {
      // Taken before the look: a wake between the look and the sleep is not lost.
      const std::uint64_t seen = wakes_;
      lock.unlock();
      const bool done = is_done();
      lock.lock();
      if (done || is_late) {
        --sleepers_;
        return done;
      }
      while (wakes_ == seen && !is_late) {
        if (limit == (TimePoint::max)()) {
          changed_.wait(lock);
        } else {
          is_late = changed_.wait_until(lock, limit) == std::cv_status::timeout;
        }
      }
    }
  }

  /// Has every thread in `wait_until` look again.
  void wake() {
    {
      const std::lock_guard lock(mutex_);
      if (sleepers_ == 0) return;
      ++wakes_;
    }
    changed_.notify_all();  // without the lock, which those that wake up need at once
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t wakes_ = 0;
  std::size_t sleepers_ = 0;
};

}  // namespace syncstate::detail

#endif
