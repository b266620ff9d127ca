// Something asked of a remote that ends once: answered, failed, or given up by its caller.
#ifndef SYNCSTATE_DETAIL_REMOTE_REMOTE_OPERATION_HPP
#define SYNCSTATE_DETAIL_REMOTE_REMOTE_OPERATION_HPP

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/detail/hook_waits.hpp"
#include "syncstate/detail/running_hooks.hpp"
#include "syncstate/detail/unique_function.hpp"
#include "syncstate/error.hpp"
#include "syncstate/event.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// The shared state of one request or event: whoever ends it first decides how it ended.
///
/// Threads: every member from any thread; `on_done`, and `ending` and `ended` of what derives from this, are called
/// once, on the thread that ends it, with no lock held.
class Operation {
 public:
  using OnDone = UniqueFunction<void(std::error_code, const std::string&, Position)>;

  [[nodiscard]] static std::shared_ptr<Operation> create(OnDone on_done = {}) {
    return std::make_shared<Operation>(std::move(on_done));
  }
  explicit Operation(OnDone on_done) : on_done_(std::move(on_done)) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  virtual ~Operation() = default;

  /// Ends it, unless it has ended. Returns whether this call did.
  bool finish(std::error_code error, const std::string& detail = {}, Position position = {}) {
    std::string kept(detail);  // before it is claimed: whoever claims it must end it
    if (!claim()) return false;
    end(error, std::move(kept), position);
    return true;
  }

  /// It goes out now. False if its caller gave it up before.
  bool mark_sent() {
    State was = State::waiting;
    return state_.compare_exchange_strong(was, State::sent) || was == State::sent;
  }

  [[nodiscard]] bool is_finished() const { return state_ == State::ended; }
  /// True from then on until it ends.
  [[nodiscard]] bool is_sent() const { return state_ == State::sent; }

  /// The caller's patience is over: ends as `unavailable`, or `outcome_unknown` if it was sent. When this returns it has
  /// ended, by whomever.
  void give_up(std::string detail) {
    const auto was = claim();
    if (!was) return state_.wait(State::ending);
    const StateErrc reason = *was == State::sent ? StateErrc::outcome_unknown : StateErrc::unavailable;
    end(make_error_code(reason), std::move(detail), {});
  }

  /// Returns the position of an event that was run, or throws the error that the operation ended with. Call it only
  /// once it is finished.
  Position result() const {
    if (error_) throw StateError(error_, detail_);
    return position_;
  }

 protected:
  /// Called before the end can be seen by anyone.
  virtual void ending() noexcept {}

  virtual void ended(std::error_code error, const std::string& detail, Position position) {
    OnDone on_done = std::move(on_done_);
    if (on_done) on_done(error, detail, position);
  }

  /// Returns whether it has ended, or ends now: then `ending` was called, or is called later.
  [[nodiscard]] bool has_begun_to_end() const { return state_ >= State::ending; }

 private:
  enum class State {
    waiting,
    sent,
    ending,  // somebody writes down how it ended
    ended
  };

  /// Whoever ends it is the first to come here, and is told in which state it was.
  std::optional<State> claim() {
    State was = state_;
    while (was < State::ending) {
      if (state_.compare_exchange_weak(was, State::ending)) return was;
    }
    return std::nullopt;
  }

  void end(std::error_code error, std::string detail, Position position) {
    error_ = error;
    detail_ = std::move(detail);
    position_ = position;
    ending();
    state_ = State::ended;
    state_.notify_all();
    ended(error_, detail_, position_);
  }

  OnDone on_done_;
  std::atomic<State> state_{State::waiting};
  // Written by whoever ends it, read once it has ended.
  std::error_code error_;
  std::string detail_;
  Position position_;
};

/// An event, and the caller that waits for its answer.
class EventCall : public Operation {
 public:
  explicit EventCall(SerializedEvent event, OnDone on_done = {})
      : Operation(std::move(on_done)), event_(std::move(event)) {}

  ~EventCall() override { stop_waiting(); }

  [[nodiscard]] const SerializedEvent& event() const { return event_; }

  /// Notes that the calling thread will wait for the answer. Call it before the event is handed on.
  void wait_on_this_thread() {
    if (RunningHooks::is_any_here()) {
      waits_in_ = std::make_unique<const std::vector<MapLife>>(RunningHooks::maps_here());
    }
  }

  /// Returns false if the event could run only after a hook that waits for it: a hook of this map on the thread that
  /// waits for the answer, or one that waits, over any number of other hooks, for such a hook. A thread that runs no
  /// hook may wait for every event.
  [[nodiscard]] bool may_wait_for(const MapHash& hash, Epoch epoch) {
    return waits_in_ == nullptr || waits_from_hooks_for(MapLife{hash, epoch});
  }

 protected:
  void ending() noexcept override { stop_waiting(); }

 private:
  [[nodiscard]] bool waits_from_hooks_for(const MapLife& map) {
    if (!HookWaits::add(this, *waits_in_, map)) return false;
    if (has_begun_to_end()) stop_waiting();  // the caller gave up meanwhile
    return true;
  }
  void stop_waiting() noexcept {
    if (waits_in_ != nullptr) HookWaits::remove(this);
  }

  const SerializedEvent event_;
  std::unique_ptr<const std::vector<MapLife>> waits_in_;  // null for a thread that runs no hook
};

}  // namespace syncstate::detail

#endif
