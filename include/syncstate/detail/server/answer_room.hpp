// The memory that the senders of all maps of a server share.
#ifndef SYNCSTATE_DETAIL_SERVER_ANSWER_ROOM_HPP
#define SYNCSTATE_DETAIL_SERVER_ANSWER_ROOM_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// The bytes that the sender tables of all maps of one server hold together, and the limit on them.
///
/// Each table takes its bytes in steps of `step_bytes()`, so an event seldom touches what all maps share. When the limit
/// is exceeded, `make_room` has the largest tables forget.
///
/// Threads: every member from any thread. A table calls `make_room`, `enter` and `leave` without its own mutex, because
///          `make_room` calls `shrink_to`.
class AnswerRoom {
 public:
  /// One table.
  class Holder {
   public:
    Holder() = default;
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;
    virtual ~Holder() = default;

    /// Returns the bytes that the holder has taken and not given back.
    [[nodiscard]] virtual std::size_t taken_bytes() const = 0;
    /// Forgets until the holder has taken at most `enough` bytes, as far as that is possible.
    virtual void shrink_to(std::size_t enough) noexcept = 0;
  };

  /// Units: bytes.
  explicit AnswerRoom(std::size_t most)
      : most_(most), step_bytes_(std::clamp<std::size_t>(most / 1'024, 1, most_step_bytes)) {}
  AnswerRoom(const AnswerRoom&) = delete;
  AnswerRoom& operator=(const AnswerRoom&) = delete;

  [[nodiscard]] std::size_t step_bytes() const { return step_bytes_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

  /// Counts bytes that a holder has. Returns true if `make_room` must be called.
  [[nodiscard]] bool take(std::size_t bytes) {
    return bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes > most_;
  }
  void give_back(std::size_t bytes) { bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  void enter(Holder* holder) {
    const std::lock_guard lock(mutex_);
    holders_.push_back(holder);
  }
  /// Returns when no `shrink_to` of this holder runs; none follows.
  void leave(Holder* holder) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase(holders_, holder);
  }

  /// Has the holders that have most forget, until a sixteenth of the room is free. If another thread does so already,
  /// returns at once.
  ///
  /// Complexity: O(maps × log maps + what is forgotten); amortised over a sixteenth of the room.
  void make_room() noexcept {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return;
    try {
      if (bytes() > most_) level(most_ - most_ / 16);
    } catch (const std::bad_alloc&) {
      // The next step that a table takes tries again.
    }
  }

 private:
  static constexpr std::size_t most_step_bytes = std::size_t{16} << 10;

  void level(std::size_t enough) {
    using Place = std::pair<std::size_t, Holder*>;
    const auto is_smaller = [](const Place& a, const Place& b) { return a.first < b.first; };
    std::vector<Place> by_bytes;
    by_bytes.reserve(holders_.size());
    for (Holder* holder : holders_) by_bytes.emplace_back(holder->taken_bytes(), holder);
    std::make_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
    while (bytes() > enough && !by_bytes.empty()) {
      std::pop_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
      const auto [before, largest] = by_bytes.back();
      by_bytes.pop_back();
      // Down to the size of the next one and below, so that each turn makes progress.
      const std::size_t next = by_bytes.empty() ? 0 : by_bytes.front().first;
      const std::size_t surplus = (std::max)(bytes() - (std::min)(bytes(), enough), step_bytes_);
      const std::size_t wanted = before - (std::min)(before, surplus);
      largest->shrink_to(
          (std::min)((std::max)(next - next / 8, wanted), before - (std::min)(before, step_bytes_)));
      const std::size_t after = largest->taken_bytes();
      if (after >= before) continue;  // nothing is left that it can forget
      by_bytes.emplace_back(after, largest);
      std::push_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
    }
  }

  const std::size_t most_;
  const std::size_t step_bytes_;
  std::atomic<std::size_t> bytes_{0};
  std::mutex mutex_;
  std::vector<Holder*> holders_;
};

}  // namespace syncstate::detail

#endif
