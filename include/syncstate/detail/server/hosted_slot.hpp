// A map at home on a server: its values, its serial executor, its hooks and its senders.
#ifndef SYNCSTATE_DETAIL_SERVER_HOSTED_SLOT_HPP
#define SYNCSTATE_DETAIL_SERVER_HOSTED_SLOT_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/detail/server/byte_share.hpp"
#include "syncstate/detail/server/hosted_map.hpp"
#include "syncstate/detail/server/sender_table.hpp"
#include "syncstate/detail/server/server_host.hpp"
#include "syncstate/detail/server/server_link.hpp"
#include "syncstate/detail/unique_function.hpp"
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
  /// null; `on_error` of what hooks throw. `waiting_bytes` counts the events of all maps that wait for their hooks.
  /// `runs_where_events_come`: on the thread that brings them, where the executor is idle.
  HostedSlot(Map map, const Limits& limits, std::shared_ptr<SerialExecutor> serial,
             std::shared_ptr<Hooks> hooks, ErrorHandler on_error, SharedBytesCount waiting_bytes,
             bool runs_where_events_come,
             UniqueFunction<void(const protocol::DiffSource*, const Lane*)> committed)
      : map_(std::make_shared<HostedMap<K, V>>(std::move(map), limits)),
        serial_(std::move(serial)),
        hooks_(std::move(hooks)),
        on_error_(std::move(on_error)),
        waiting_bytes_(std::move(waiting_bytes)),
        most_waiting_bytes_(limits.all_event_bytes),
        runs_where_events_come_(runs_where_events_come),
        senders_(limits),
        committed_(std::move(committed)) {}

  [[nodiscard]] SerialExecutor& serial() { return *serial_; }
  [[nodiscard]] const HostedMap<K, V>& hosted() const { return *map_; }

  /// Runs the init hooks; on the map's executor, before anyone knows of the map.
  /// Errors: what a hook throws, as `init_failed` with its message.
  template <class InitHooks>
  void initialise(InitHooks& init_hooks) {
    state_ = State::initialising;
    try {
      for (auto& hook : init_hooks) hook(MasterHandle<K, V>(this->shared_from_this()));
    } catch (const std::exception& error) {
      state_ = State::dead;
      report(on_error_, std::current_exception());
      throw StateError(StateErrc::init_failed, error.what());
    } catch (...) {
      state_ = State::dead;
      report(on_error_, std::current_exception());
      throw StateError(StateErrc::init_failed, "an init hook threw something that is no std::exception");
    }
    state_ = State::live;
  }

  /// From now on nothing changes the map.
  void stop() { state_ = State::dead; }

  // HostedBase

  [[nodiscard]] std::shared_ptr<protocol::DiffSource> source() override { return map_; }
  [[nodiscard]] std::uint64_t hold_sender(std::uint64_t sender) override { return senders_.hold(sender); }
  void release_sender(std::uint64_t sender) override { senders_.release(sender); }

  void event_came(const std::shared_ptr<ServerLink>& link, const protocol::EventCame& came, bool is_allowed,
                  std::unique_ptr<EventBatch>& batch) override {
    static const std::string our_type = type_name<E>();
    if (is_allowed && *came.type != our_type) {
      link->answer(came.ticket, EventOutcome::failed(StateErrc::type_mismatch,
                                                     protocol::shorten("the server's events are " + our_type +
                                                                       ", the client's " + *came.type)));
      return;
    }
    if (!batch) {
      batch = std::make_unique<Batch>(
          link, EventContext{link->peer().address, link->peer().certificate_subject, map_->hash()},
          waiting_bytes_, take_spare());
    }
    Batch& into = static_cast<Batch&>(*batch);
    // Links come and go, and what they sent still waits: no link's own limit bounds that.
    const std::size_t bytes = sizeof(Pending) + came.bytes.size();
    if (!into.share.take(bytes, most_waiting_bytes_)) {
      into.share.give_back(bytes);
      link->answer(came.ticket,
                   EventOutcome::failed(StateErrc::busy, "too many events wait for this server's hooks"));
      return;
    }
    std::optional<Event<E>> event;
    if (is_allowed) event.emplace(Event<E>::deserialize(came.bytes));
    into.events.push_back(Pending{came.ticket, came.sender, is_allowed, std::move(event)});
  }

  void run_events(std::unique_ptr<EventBatch> batch) override {
    {
      const std::lock_guard lock(waiting_mutex_);
      waiting_.emplace_back(static_cast<Batch*>(batch.release()));
      if (std::exchange(is_running_, true)) return;
    }
    auto run = [self = this->shared_from_this()] { self->run_waiting(); };
    runs_where_events_come_ ? serial_->dispatch(std::move(run)) : serial_->post(std::move(run));
  }

  // MasterMap

  UpdateId modify(UniqueFunction<void(Map&)> change) override {
    if (serial_->runs_here() && state_ == State::initialising) return commit(change);
    if (state_ == State::dead) throw StateError(StateErrc::stopped);
    UpdateId id = 0;
    std::exception_ptr error;
    serial_->run_blocking([&] {
      try {
        if (state_ == State::dead) throw StateError(StateErrc::stopped);
        id = commit(change);
      } catch (...) {
        error = std::current_exception();
      }
    });
    if (error) std::rethrow_exception(error);
    return id;
  }
  [[nodiscard]] const MapHash& hash() const override { return map_->hash(); }
  [[nodiscard]] Position head() const override { return map_->head(); }

 private:
  enum class State { initialising, live, dead };

  struct Pending {
    protocol::EventTicket ticket;
    std::uint64_t sender;
    bool is_allowed;
    std::optional<Event<E>> event;  ///< none where it is not allowed
  };

  struct Batch final : EventBatch {
    Batch(const std::shared_ptr<ServerLink>& from, EventContext sent_by, const SharedBytesCount& all,
          std::vector<Pending> room)
        : lane(from->lane()), link(from), context(std::move(sent_by)), events(std::move(room)), share(all) {}
    std::shared_ptr<Lane> lane;
    std::weak_ptr<ServerLink> link;
    EventContext context;
    std::vector<Pending> events;
    std::size_t next = 0;  ///< the first that has not run
    ByteShare share;
  };

  /// How long the hooks of one map go on before others have a turn on their thread.
  static constexpr std::chrono::microseconds slice{200};
  /// To tell what became of an event, and to look at the time, takes as long as a short hook: so many events share it,
  /// unless hooks have been slow of late. Then others would wait for news that is there.
  static constexpr std::size_t most_together = 16;
  static constexpr std::chrono::microseconds slow{1'000};
  static constexpr std::size_t cautious_for = 1'024;
  static constexpr std::size_t most_kept = 1'024;  // events that there is room for when none waits

  /// One transaction, and the news of it for all lanes.
  template <class F>
  UpdateId commit(F& change) {
    const UpdateId before = map_->head().update_id;
    const UpdateId id = map_->transact(change);
    // The commit stands, whatever becomes of the news.
    if (id != before) contain(on_error_, [&] { committed_(map_.get(), nullptr); });
    return id;
  }

  /// On the map's executor: runs the events that wait, for a slice of time.
  void run_waiting() {
    const TimePoint until = serial_->now() + slice;
    while (Batch* const batch = first_waiting()) {
      run_some(*batch, until);
      if (batch->next < batch->events.size())
        return serial_->post([self = this->shared_from_this()] { self->run_waiting(); });
      batch->events.clear();
      const std::lock_guard lock(waiting_mutex_);
      if (batch->events.capacity() <= most_kept) spare_.swap(batch->events);
      waiting_.pop_front();
    }
  }

  std::vector<Pending> take_spare() {
    const std::lock_guard lock(waiting_mutex_);
    return std::exchange(spare_, {});
  }

  /// The first batch that waits; with none, whoever brings the next has to have it run.
  Batch* first_waiting() {
    const std::lock_guard lock(waiting_mutex_);
    if (waiting_.empty()) is_running_ = false;
    return waiting_.empty() ? nullptr : waiting_.front().get();
  }

  /// Runs events of a batch until there are no more, or the time is over, and tells what became of them.
  void run_some(Batch& batch, TimePoint until) {
    TimePoint now = until - slice;
    for (std::size_t together = 1; batch.next < batch.events.size() && now < until;) {
      const TimePoint before = now;
      const std::size_t count = std::min(batch.events.size() - batch.next, cautious_ > 0 ? 1 : together);
      run_together(batch, count);
      now = serial_->now();
      cautious_ -= std::min(cautious_, count);
      if (now - before >= slow) cautious_ = cautious_for;
      together = std::min(2 * together, most_together);
    }
  }

  void run_together(Batch& batch, std::size_t count) {
    const UpdateId before = map_->head().update_id;
    std::vector<EventAnswer> answers;
    answers.reserve(count);
    for (; count > 0; --count) {
      Pending& pending = batch.events[batch.next++];
      answers.push_back(EventAnswer{pending.ticket, run(pending, batch.context)});
      pending.event.reset();
    }
    const bool has_committed = map_->head().update_id != before;
    if (has_committed) contain(on_error_, [&] { committed_(map_.get(), batch.lane.get()); });
    batch.lane->answer(batch.link, std::move(answers), has_committed ? map_.get() : nullptr);
  }

  /// Runs the event unless it was seen before.
  EventOutcome run(const Pending& pending, const EventContext& context) {
    EventOutcome outcome;
    const std::uint64_t number = pending.ticket.number;
    switch (senders_.look_up(pending.sender, number, outcome)) {
      case SenderTable::Verdict::repeat: break;  // also of a map that is dead by now: it did run
      case SenderTable::Verdict::unknown:
        return EventOutcome::failed(StateErrc::outcome_unknown,
                                    "this event, or its sender, is too old to be remembered");
      case SenderTable::Verdict::run:
        if (state_ == State::dead) {
          outcome.error = StateErrc::stopped;
          break;
        }
        if (pending.is_allowed) {
          outcome = run_hooks(*pending.event, context);
        } else {
          outcome.error = StateErrc::forbidden;
        }
        senders_.record(pending.sender, number, outcome);
    }
    return outcome;
  }

  EventOutcome run_hooks(const Event<E>& event, const EventContext& context) {
    auto change = [&](Map& map) {
      for (auto& hook : *hooks_) hook(map, event, context);
    };
    StateErrc reason = StateErrc::hook_failed;
    std::string detail;
    try {
      return EventOutcome{map_->transact(change)};
    } catch (const StateError& error) {
      if (error.code() == StateErrc::too_large) reason = StateErrc::too_large;
      detail = error.what();
      report(on_error_, std::current_exception());
    } catch (const std::exception& error) {
      detail = error.what();
      report(on_error_, std::current_exception());
    } catch (...) {
      detail = "a hook threw something that is no std::exception";
      report(on_error_, std::current_exception());
    }
    return EventOutcome::failed(reason, protocol::shorten(std::move(detail)));
  }

  std::shared_ptr<HostedMap<K, V>> map_;
  std::shared_ptr<SerialExecutor> serial_;
  std::shared_ptr<Hooks> hooks_;
  const ErrorHandler on_error_;
  const SharedBytesCount waiting_bytes_;
  const std::size_t most_waiting_bytes_;
  const bool runs_where_events_come_;
  SenderTable senders_;
  UniqueFunction<void(const protocol::DiffSource*, const Lane*)> committed_;
  std::atomic<State> state_{State::initialising};
  std::mutex waiting_mutex_;
  std::deque<std::unique_ptr<Batch>> waiting_;
  std::vector<Pending> spare_;  // empty: room for the events of the next batch
  bool is_running_ = false;     // a task that runs them is posted, or under way
  std::size_t cautious_ = 0;    // events to come that are answered one by one; on the map's executor
};

}  // namespace syncstate::detail

#endif
