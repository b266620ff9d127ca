// A map at home on a server: its values, its serial executor, its hooks and its senders.
#ifndef SYNCSTATE_DETAIL_SERVER_HOSTED_SLOT_HPP
#define SYNCSTATE_DETAIL_SERVER_HOSTED_SLOT_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/detail/hook_waits.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/limit_text.hpp"
#include "syncstate/detail/running_hooks.hpp"
#include "syncstate/detail/server/answer_room.hpp"
#include "syncstate/detail/server/birthplace.hpp"
#include "syncstate/detail/server/byte_share.hpp"
#include "syncstate/detail/server/event_turns.hpp"
#include "syncstate/detail/server/hook_failure.hpp"
#include "syncstate/detail/server/hosted_map.hpp"
#include "syncstate/detail/server/sender_table.hpp"
#include "syncstate/detail/server/server_host.hpp"
#include "syncstate/detail/server/server_link.hpp"
#include "syncstate/detail/unique_function.hpp"
#include "syncstate/error.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/event.hpp"
#include "syncstate/executor_pool.hpp"
#include "syncstate/hook.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/master_handle.hpp"
#include "syncstate/protocol/server_session.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate::detail {

template <class K, class V, class E>
using HookFunction = UniqueFunction<void(StateMap<K, V>&, const Event<E>&, const EventContext&)>;

/// A map at home on a server, with what runs on it: its serial executor, hooks and senders.
template <class K, class V, class E>
class HostedSlot final : public HostedBase,
                         public MasterMap<K, V>,
                         public std::enable_shared_from_this<HostedSlot<K, V, E>> {
 public:
  using Map = StateMap<K, V>;
  using Hooks = std::vector<HookFunction<K, V, E>>;

  /// `committed` is told of every commit, on the map's executor, with the lane that hears of it anyway, or
  /// null; `on_error` of what hooks throw. `waiting_bytes` counts the events of all maps that wait for their hooks, `answers` what is kept for senders of all maps.
  /// `runs_where_events_come`: on the thread that brings them, where the executor is idle.
  HostedSlot(Map map, const Limits& limits, std::shared_ptr<SerialExecutor> serial,
             std::shared_ptr<Hooks> hooks, ErrorHandler on_error, SharedBytesCount waiting_bytes,
             std::shared_ptr<AnswerRoom> answers, bool runs_where_events_come,
             UniqueFunction<void(const protocol::DiffSource*, const Lane*)> committed,
             std::unique_ptr<Birthplace> birthplace)
      : map_(std::make_shared<HostedMap<K, V>>(std::move(map), limits)),
        serial_(std::move(serial)),
        hooks_(std::move(hooks)),
        on_error_(std::move(on_error)),
        turns_(std::move(waiting_bytes), limits.all_event_bytes),
        runs_where_events_come_(runs_where_events_come),
        senders_(limits, std::move(answers)),
        committed_(std::move(committed)),
        birthplace_(std::move(birthplace)) {}

  [[nodiscard]] SerialExecutor& serial() { return *serial_; }
  [[nodiscard]] const HostedMap<K, V>& hosted() const { return *map_; }

  /// Runs the init hooks; on the map's executor, before anyone knows of the map.
  /// Errors: what a hook throws, as `init_failed` with its text.
  template <class InitHooks>
  void initialise(InitHooks& init_hooks) {
    state_ = State::initialising;
    const RunningHooks running = run_hooks_here();
    try {
      for (auto& hook : init_hooks) hook(MasterHandle<K, V>(this->shared_from_this()));
    } catch (...) {
      state_ = State::dead;
      report(on_error_, std::current_exception());
      throw StateError(StateErrc::init_failed, describe_hook_failure(StateErrc::init_failed, false).text);
    }
    state_ = State::live;
  }

  /// Where the map was hosted in another process, and this one was forked off from it: begins another life of the map, once.
  /// For the parent, and other children of it, may go on from the same position with other commits. `modify`, `head` and the
  /// start of the server call it, so that nobody in this process sees a position of the life that it has inherited.
  void settle_in_process() const {
    if (!birthplace_->is_elsewhere()) return;
    const auto renew = [this] {
      if (!birthplace_->is_elsewhere()) return;
      map_->renew_epoch();
      birthplace_->move_here();
    };
    serial_->runs_here() ? renew() : serial_->run_blocking(renew);
  }

  /// The server has started: its links have positions of this life, which goes on in whatever process they do.
  void stay() { birthplace_->forget(); }

  /// From now on nothing changes the map.
  void stop() { state_ = State::dead; }

  // HostedBase

  [[nodiscard]] std::shared_ptr<protocol::DiffSource> source() override { return map_; }
  [[nodiscard]] std::shared_ptr<EventInlet> make_inlet(const std::shared_ptr<ServerLink>& link) override {
    const Peer& peer = link->peer();
    auto inlet = std::make_shared<EventInlet>(
        link, link->lane(),
        EventContext{peer.address, peer.certificate_subject, map_->hash(), link->shared_peer()});
    turns_.open(*inlet);
    return inlet;
  }
  void close_inlet(EventInlet& inlet) override { turns_.close(inlet); }
  [[nodiscard]] bool is_idle(EventInlet& inlet) override { return turns_.is_idle(inlet); }

  [[nodiscard]] std::uint64_t hold_sender(EventInlet& inlet, std::uint64_t known,
                                          const SenderOwner& owner) override {
    SenderTable::Held held = senders_.hold(known, owner, turns_.queue_of(inlet));
    turns_.join(inlet, std::move(held.queue));
    return held.sender;
  }
  void release_sender(EventInlet& inlet, std::uint64_t sender) override {
    senders_.release(sender, turns_.is_idle(inlet));
  }
  void forget_sender(EventInlet& inlet, std::uint64_t sender) override {
    if (turns_.is_idle(inlet)) senders_.forget(sender);
  }

  [[nodiscard]] std::optional<EventOutcome> event_came(const std::shared_ptr<EventInlet>& inlet,
                                                       const protocol::EventCame& came,
                                                       bool is_allowed) override {
    static const std::string our_type = type_name<E>();
    if (is_allowed && *came.type != our_type) {
      return EventOutcome::failed(
          StateErrc::type_mismatch,
          protocol::shorten("the server's events are " + our_type + ", the client's " + *came.type));
    }
    // Links come and go, and what they sent still waits: no link's own limit bounds that.
    const WaitingEvent event{came.ticket, came.sender, 0, is_allowed};
    if (turns_.add(inlet, event, is_allowed ? came.bytes : ByteView())) return std::nullopt;
    return EventOutcome::failed(StateErrc::busy,
                                beyond_limit("too many events wait for this server's hooks for one more of " +
                                                 std::to_string(came.bytes.size()) + " bytes",
                                             "all_event_bytes", map_->limits().all_event_bytes));
  }

  void run_events(EventInlet& inlet) override {
    if (!turns_.push(inlet)) return;
    try {
      auto run = [self = this->shared_from_this()] { self->run_waiting(); };
      runs_where_events_come_ ? serial_->dispatch(std::move(run)) : serial_->post(std::move(run));
    } catch (...) {
      turns_.not_run();
      throw;
    }
  }

  // MasterMap

  Position modify(UniqueFunction<void(Map&)> change) override {
    if (state_ == State::dead) throw StateError(StateErrc::stopped);
    settle_in_process();
    if (serial_->runs_here()) {
      if (state_ == State::initialising && !map_->is_in_transaction()) return position_of(commit(change));
      throw StateError(
          StateErrc::would_deadlock,
          "`modify` inside a hook or a change of the same map would wait for its own end: change the "
          "map that the hook or the change was given");
    }
    ModifyWait wait;
    if (RunningHooks::is_any_here() && !wait.begin(MapLife{map_->hash(), map_->head().epoch})) {
      throw StateError(
          StateErrc::would_deadlock,
          "`modify` would wait for a hook that waits, over one or more events or changes, for a hook "
          "of this thread: call `modify` when the hook has ended, or wait for no event in a hook");
    }
    UpdateId id = 0;
    std::exception_ptr error;
    serial_->run_blocking([&] {
      try {
        if (state_ == State::dead) throw StateError(StateErrc::stopped);
        const RunningHooks running = run_hooks_here();
        id = commit(change);
      } catch (...) {
        error = std::current_exception();
      }
      wait.end();
    });
    if (error) std::rethrow_exception(error);
    return position_of(id);
  }
  [[nodiscard]] const MapHash& hash() const override { return map_->hash(); }
  [[nodiscard]] Position head() const override {
    if (serial_->is_of_other_process()) throw StateError(StateErrc::stopped, forked_text("this server"));
    settle_in_process();
    return map_->head();
  }

 private:
  enum class State { initialising, live, dead };

  /// Thrown for bytes that are no event.
  struct WrongBytes {
    protocol::CloseSession end;
  };

  /// How long the hooks of one map go on before others have a turn on their thread.
  static constexpr std::chrono::microseconds slice{200};
  /// Sending an answer and reading the clock cost as much as a short hook, so up to `most_together` events share one answer,
  /// unless hooks were slow recently. Then others would wait for answers that are there.
  static constexpr std::size_t most_together = EventTurns::turn_events;
  static constexpr std::chrono::microseconds slow{1'000};
  static constexpr std::size_t cautious_for = 1'024;

  /// Returns an object that marks this thread, while it lives, as one that runs hooks or changes by `modify`.
  [[nodiscard]] RunningHooks run_hooks_here() const { return RunningHooks(map_->hash(), map_->head().epoch); }

  /// The epoch of a hosted map never changes within a process.
  [[nodiscard]] Position position_of(UpdateId id) const { return Position{map_->head().epoch, id}; }

  /// One transaction, and the news of it for all lanes.
  template <class F>
  UpdateId commit(F& change) {
    const UpdateId before = map_->head().update_id;
    const UpdateId id = map_->transact(change);
    // The commit stands, whatever becomes of the news.
    if (id != before) contain(on_error_, [&] { committed_(map_.get(), nullptr); });
    return id;
  }

  /// Runs events that wait, turn by turn, for a slice of time. On the map's executor.
  void run_waiting() {
    const RunningHooks running = run_hooks_here();
    TimePoint now = serial_->now();
    const TimePoint until = now + slice;
    std::size_t together = 1;
    while (std::unique_ptr<EventBatch> batch = turns_.take()) {
      const std::size_t before = batch->remaining();
      std::size_t most = turns_.turn_left();
      do {
        run_together(*batch, (std::min)(most, together), now);
        together = (std::min)(2 * together, most_together);
        most = most_together;
      } while (batch->remaining() > 0 && now < until && turns_.is_alone());
      const std::size_t count = before - batch->remaining();
      if (!turns_.finish(std::move(batch), count, now >= until)) return;
      if (now >= until) return serial_->post([self = this->shared_from_this()] { self->run_waiting(); });
    }
  }

  /// Runs up to `most` events of a batch, and answers them. `now` is when that began, and then when it ended.
  void run_together(EventBatch& batch, std::size_t most, TimePoint& now) {
    const std::size_t count = (std::min)(batch.remaining(), cautious_ > 0 ? 1 : most);
    const UpdateId before = map_->head().update_id;
    std::vector<EventAnswer> answers;
    answers.reserve(count);
    std::optional<protocol::CloseSession> end;
    try {
      for (std::size_t i = 0; i < count; ++i) {
        const WaitingEvent& event = batch.front();
        answers.push_back(EventAnswer{event.ticket, run(event, batch.front_bytes(), batch.from()->context)});
        batch.pop();
      }
    } catch (WrongBytes& wrong) {
      batch.from()->is_over = true;
      batch.drop_all();
      end = std::move(wrong.end);
    }
    const bool has_committed = map_->head().update_id != before;
    if (has_committed) contain(on_error_, [&] { committed_(map_.get(), batch.from()->lane.get()); });
    batch.from()->lane->answer(batch.from()->link, std::move(answers), has_committed ? map_.get() : nullptr,
                               std::move(end));
    const TimePoint ended = serial_->now();
    cautious_ -= (std::min)(cautious_, count);
    if (ended - now >= slow) cautious_ = cautious_for;
    now = ended;
  }

  /// Runs an event whose turn it is, unless it was run before.
  /// Errors: throws `WrongBytes`, also for an event that was run before.
  EventOutcome run(const WaitingEvent& event, ByteView bytes, const EventContext& context) {
    if (!event.is_allowed) {
      return run_once(event, [] { return EventOutcome::failed(StateErrc::forbidden); });
    }
    const Event<E> content = decode(bytes);
    return run_once(event, [&] { return run_hooks(content, context); });
  }

  template <class F>
  EventOutcome run_once(const WaitingEvent& event, F&& run) {
    EventOutcome outcome;
    switch (senders_.look_up(event.sender, event.ticket.number, outcome)) {
      case SenderTable::Verdict::repeat: break;  // also of a map that is dead by now: it did run
      case SenderTable::Verdict::unknown:
        if (event.ticket.number == 0) {
          return EventOutcome::failed(
              StateErrc::protocol_error,
              "an event of number 0 is never run: the first event of a sender has number 1");
        }
        return EventOutcome::failed(StateErrc::outcome_unknown,
                                    "this event, or its sender, is too old to be remembered");
      case SenderTable::Verdict::run:
        if (state_ == State::dead) return EventOutcome::failed(StateErrc::stopped);
        outcome = run();
        senders_.record(event.sender, event.ticket.number, outcome);
    }
    return outcome;
  }

  static Event<E> decode(ByteView bytes) {
    try {
      return Event<E>::deserialize(bytes);
    } catch (...) {
      throw WrongBytes{protocol::close_for_exception()};
    }
  }

  EventOutcome run_hooks(const Event<E>& event, const EventContext& context) {
    auto change = [&](Map& map) {
      for (auto& hook : *hooks_) hook(map, event, context);
    };
    try {
      return EventOutcome{map_->transact(change)};
    } catch (...) {
      report(on_error_, std::current_exception());
      HookFailure failure = describe_hook_failure(StateErrc::hook_failed, true);
      return EventOutcome::failed(failure.code, std::move(failure.text));
    }
  }

  std::shared_ptr<HostedMap<K, V>> map_;
  std::shared_ptr<SerialExecutor> serial_;
  std::shared_ptr<Hooks> hooks_;
  const ErrorHandler on_error_;
  EventTurns turns_;
  const bool runs_where_events_come_;
  SenderTable senders_;
  UniqueFunction<void(const protocol::DiffSource*, const Lane*)> committed_;
  const std::unique_ptr<Birthplace> birthplace_;
  std::atomic<State> state_{State::initialising};
  std::size_t cautious_ = 0;  // events to come that are answered one by one; on the map's executor
};

}  // namespace syncstate::detail

#endif
