// Something asked of a remote that ends once: answered, failed, or given up by its caller.
#ifndef SYNCSTATE_DETAIL_REMOTE_REMOTE_OPERATION_HPP
#define SYNCSTATE_DETAIL_REMOTE_REMOTE_OPERATION_HPP

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>

#include "syncstate/detail/unique_function.hpp"
#include "syncstate/error.hpp"
#include "syncstate/event.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// The shared state of one request or event: whoever ends it first decides how it ended.
///
/// Threads: every member from any thread; `on_done`, or `ended` of what derives from this, is called once, by whoever
/// ends it, with no lock held.
class Operation {
 public:
  using OnDone = UniqueFunction<void(std::error_code, const std::string&, UpdateId)>;

  [[nodiscard]] static std::shared_ptr<Operation> create(OnDone on_done = {}) {
    return std::make_shared<Operation>(std::move(on_done));
  }
  explicit Operation(OnDone on_done) : on_done_(std::move(on_done)) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  virtual ~Operation() = default;

  /// Ends it, unless it has ended. Returns whether this call did.
  bool finish(std::error_code error, const std::string& detail = {}, UpdateId update_id = 0) {
    {
      const std::lock_guard lock(mutex_);
      if (is_finished_) return false;
      error_ = error;
      detail_ = detail;
      update_id_ = update_id;
      is_finished_ = true;
    }
    ended(error, detail, update_id);
    return true;
  }

  /// It goes out now. False if its caller gave it up before.
  bool mark_sent() {
    const std::lock_guard lock(mutex_);
    if (is_finished_) return false;
    was_sent_ = true;
    return true;
  }

  [[nodiscard]] bool is_finished() const { return is_finished_; }
  [[nodiscard]] bool was_sent() const {
    const std::lock_guard lock(mutex_);
    return was_sent_;
  }

  /// The caller's patience is over: ends as `unavailable`, or `outcome_unknown` if it was sent.
  void give_up(const std::string& detail) {
    // Marked sent between the two lines it ends as unavailable though it may run: so both in one.
    std::error_code error;
    {
      const std::lock_guard lock(mutex_);
      if (is_finished_) return;
      is_finished_ = true;
      error = error_ = make_error_code(was_sent_ ? StateErrc::outcome_unknown : StateErrc::unavailable);
      detail_ = detail;
    }
    ended(error, detail, 0);
  }

  /// What became of it: the update id, or the error thrown. Only once finished.
  UpdateId result() const {
    const std::lock_guard lock(mutex_);
    if (error_) throw StateError(error_, detail_);
    return update_id_;
  }

 protected:
  virtual void ended(std::error_code error, const std::string& detail, UpdateId update_id) {
    OnDone on_done = std::move(on_done_);
    if (on_done) on_done(error, detail, update_id);
  }

 private:
  mutable std::mutex mutex_;
  OnDone on_done_;
  std::atomic<bool> is_finished_{false};  // set under the lock
  bool was_sent_ = false;
  std::error_code error_;
  std::string detail_;
  UpdateId update_id_ = 0;
};

/// An event, and whoever waits for its answer.
class EventCall : public Operation {
 public:
  explicit EventCall(SerializedEvent event, OnDone on_done = {})
      : Operation(std::move(on_done)), event_(std::move(event)) {}

  /// The event, which lives as long as `call`.
  [[nodiscard]] static std::shared_ptr<const SerializedEvent> event_of(
      const std::shared_ptr<EventCall>& call) {
    return {call, &call->event_};
  }

 private:
  const SerializedEvent event_;
};

}  // namespace syncstate::detail

#endif
