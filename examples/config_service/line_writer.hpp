// Writes lines on a thread of its own, so that a reader that does not read, or a full disk, delays no other thread.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_LINE_WRITER_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_LINE_WRITER_HPP

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace config_service {

/// A bounded queue of lines and the thread that writes them to a file, pipe or terminal.
///
/// A line for which the queue has no room is dropped; one that can't be written is lost. Both are counted. As soon as
/// it can be written, a line in the place of the missing ones says how many there are. After a failed write, the next
/// line is tried again.
///
/// Threads : any.
/// Lifetime: the thread may hang in a write that never ends. No other thread waits for it: it shares the ownership of
///           its state, and ends with the process.
class LineWriter {
 public:
  /// Is called on the writer's thread with the reason of a failed write, if the write before did not fail.
  using OnFailure = std::function<void(const std::string&)>;

  /// The queue takes `most_bytes`, or one longer line.
  explicit LineWriter(int file, OnFailure on_failure = {}, std::size_t most_bytes = std::size_t{1} << 20)
      : state_(std::make_shared<State>()) {
    state_->file = file;
    state_->on_failure = std::move(on_failure);
    state_->most_bytes = most_bytes;
    std::thread([state = state_] { run(*state); }).detach();
  }

  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;
  ~LineWriter() { (void)finish(std::chrono::seconds(0)); }

  /// Queues a line (or several, with line feeds between them), or drops it. Never waits.
  void write(std::string_view line) {
    const std::lock_guard lock(state_->mutex);
    state_->add(line);
  }

  /// Queues a line, and waits for room if there is none, until `give_up`.
  void write_waiting(std::string_view line) {
    std::unique_lock lock(state_->mutex);
    state_->has_room.wait(lock, [&] { return state_->is_given_up || state_->fits(line.size() + 1); });
    state_->add(line);
  }

  /// From now on no caller waits for room.
  void give_up() {
    const std::lock_guard lock(state_->mutex);
    state_->is_given_up = true;
    state_->has_room.notify_all();
  }

  /// What was not written.
  struct Missing {
    std::uint64_t lines = 0;   ///< all that are missing
    std::uint64_t untold = 0;  ///< those of them that no line in the output tells of
    std::string why;
  };

  /// Takes no more lines. Waits until everything queued is written, for at most `limit` if there is one.
  Missing finish(std::optional<std::chrono::milliseconds> limit) {
    std::unique_lock lock(state_->mutex);
    state_->is_closed = true;
    state_->is_given_up = true;
    state_->has_room.notify_all();
    state_->has_work.notify_all();
    const auto is_over = [&] { return state_->is_over; };
    if (limit) {
      state_->ended.wait_for(lock, *limit, is_over);
    } else {
      state_->ended.wait(lock, is_over);
    }
    const std::uint64_t stuck = state_->lines_in_flight() + lines_of(state_->queue) + state_->dropped;
    return {state_->all_missing + stuck, state_->untold + stuck, state_->why};
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable has_work;
    std::condition_variable has_room;
    std::condition_variable ended;

    int file = -1;
    OnFailure on_failure;
    std::size_t most_bytes = 0;

    std::string queue;          // whole lines
    std::uint64_t dropped = 0;  // lines for which there was no room behind `queue`
    bool is_given_up = false;
    bool is_closed = false;
    bool is_over = false;  // the thread has ended

    // What the thread writes now. Only the thread changes it, so the thread reads it without the lock.
    std::string batch;
    std::size_t notice_bytes = 0;  // at its front: what tells of missing lines
    std::size_t written = 0;

    std::uint64_t all_missing = 0;
    std::uint64_t untold = 0;
    std::string why;
    bool works = true;        // the last write did not fail
    bool is_at_start = true;  // of a line

    [[nodiscard]] bool fits(std::size_t bytes) const {
      return queue.empty() || queue.size() + bytes <= most_bytes;
    }

    void add(std::string_view line) {
      // After a dropped line all further ones are dropped, until the thread has reported it.
      if (is_closed || dropped > 0 || !fits(line.size() + 1)) {
        dropped += 1 + static_cast<std::uint64_t>(std::count(line.begin(), line.end(), '\n'));
        return;
      }
      queue += line;
      queue += '\n';
      has_work.notify_one();
    }

    [[nodiscard]] std::uint64_t lines_in_flight() const {
      return lines_of(std::string_view(batch).substr(std::max(written, notice_bytes)));
    }
  };

  static std::uint64_t lines_of(std::string_view text) {
    return static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n'));
  }

  static void run(State& state) {
    std::unique_lock lock(state.mutex);
    for (;;) {
      state.has_work.wait(
          lock, [&] { return state.is_closed || !state.queue.empty() || (state.untold > 0 && state.works); });
      const bool is_last = state.queue.empty() && state.is_closed;
      if (!is_last || state.untold > 0) write_batch(state, lock);
      if (is_last) break;
    }
    state.is_over = true;
    state.ended.notify_all();
  }

  static void write_batch(State& state, std::unique_lock<std::mutex>& lock) {
    state.batch = state.is_at_start ? "" : "\n";
    if (state.untold > 0) {
      state.batch += "(" + std::to_string(state.untold) +
                     (state.untold == 1 ? " line is missing here: " : " lines are missing here: ") +
                     state.why + ")\n";
    }
    state.notice_bytes = state.batch.size();
    state.written = 0;
    state.batch += std::exchange(state.queue, {});
    const std::uint64_t dropped_behind = std::exchange(state.dropped, 0);
    state.has_room.notify_all();

    int error = 0;
    while (error == 0 && state.written < state.batch.size()) {
      // A pipe takes so few bytes as a whole or not at all. So it is known what was written, even while a write hangs.
      const std::size_t piece = std::min<std::size_t>(state.batch.size() - state.written, 4'096);
      const char* const from = state.batch.data() + state.written;
      lock.unlock();
      const ssize_t wrote = ::write(state.file, from, piece);
      error = wrote > 0 ? 0 : wrote < 0 ? errno : EIO;
      if (error == EAGAIN) {
        pollfd writable{state.file, POLLOUT, 0};
        ::poll(&writable, 1, -1);
      }
      if (error == EAGAIN || error == EINTR) error = 0;
      lock.lock();
      if (wrote > 0) {
        state.written += static_cast<std::size_t>(wrote);
        state.is_at_start = state.batch[state.written - 1] == '\n';
      }
    }

    if (state.written >= state.notice_bytes) state.untold = 0;
    const std::uint64_t lost = state.lines_in_flight() + dropped_behind;
    state.batch.clear();
    state.notice_bytes = state.written = 0;
    state.all_missing += lost;
    state.untold += lost;
    const bool worked = std::exchange(state.works, error == 0);
    if (error != 0) {
      state.why = std::generic_category().message(error);
    } else if (dropped_behind > 0) {
      state.why = "they came faster than they were read";
    }
    if (error != 0 && worked && state.on_failure) {
      lock.unlock();
      state.on_failure(state.why);
      lock.lock();
    }
  }

  std::shared_ptr<State> state_;
};

}  // namespace config_service

#endif
