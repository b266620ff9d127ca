// A map at home on a server: its values, its serial executor, its hooks and its senders.
#ifndef SYNCSTATE_DETAIL_SERVER_HOSTED_SLOT_HPP
#define SYNCSTATE_DETAIL_SERVER_HOSTED_SLOT_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
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
  HostedSlot(Map map, const Limits& limits, std::shared_ptr<SerialExecutor> serial,
             std::shared_ptr<Hooks> hooks, ErrorHandler on_error, SharedBytesCount waiting_bytes,
             UniqueFunction<void(const protocol::DiffSource*, const Lane*)> committed)
      : map_(std::make_shared<HostedMap<K, V>>(std::move(map), limits)),
        serial_(std::move(serial)),
        hooks_(std::move(hooks)),
        on_error_(std::move(on_error)),
        waiting_bytes_(std::move(waiting_bytes)),
        most_waiting_bytes_(limits.all_event_bytes),
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

  void event_came(const std::shared_ptr<ServerLink>& link, const protocol::EventCame& came,
                  bool is_allowed) override {
    static const std::string our_type = type_name<E>();
    if (is_allowed && *came.type != our_type) {
      link->answer(came.ticket,
                   EventOutcome{0, StateErrc::type_mismatch,
                                "the server's events are " + our_type + ", the client's " + *came.type});
      return;
    }
    // Links come and go, and what they sent still waits: no link's own limit bounds that.
    ByteShare share(waiting_bytes_);
    if (!share.take(sizeof(Pending) + came.bytes.size(), most_waiting_bytes_)) {
      link->answer(came.ticket,
                   EventOutcome{0, StateErrc::busy, "too many events wait for this server's hooks"});
      return;
    }
    Pending pending{link->lane(),
                    link,
                    came.ticket,
                    came.sender,
                    is_allowed,
                    is_allowed ? std::optional(Event<E>::deserialize(came.bytes)) : std::nullopt,
                    EventContext{link->peer().address, link->peer().certificate_subject, map_->hash()},
                    std::move(share)};
    serial_->post(
        [self = this->shared_from_this(), pending = std::move(pending)]() mutable { self->run(pending); });
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
    std::shared_ptr<Lane> lane;
    std::weak_ptr<ServerLink> link;
    protocol::EventTicket ticket;
    std::uint64_t sender;
    bool is_allowed;
    std::optional<Event<E>> event;  ///< none where it is not allowed
    EventContext context;
    ByteShare share;
  };

  /// One transaction, and the news of it for all lanes but `answering`.
  template <class F>
  UpdateId commit(F& change, const Lane* answering = nullptr) {
    const UpdateId before = map_->head().update_id;
    const UpdateId id = map_->transact(change);
    // The commit stands, whatever becomes of the news.
    if (id != before) contain(on_error_, [&] { committed_(map_.get(), answering); });
    return id;
  }

  /// On the map's executor: runs the event unless it was seen before, and answers.
  void run(Pending& pending) {
    EventOutcome outcome;
    bool has_committed = false;
    const std::uint64_t number = pending.ticket.number;
    switch (senders_.look_up(pending.sender, number, outcome)) {
      case SenderTable::Verdict::repeat: break;  // also of a map that is dead by now: it did run
      case SenderTable::Verdict::unknown:
        outcome.error = StateErrc::outcome_unknown;
        outcome.detail = "this event, or its sender, is too old to be remembered";
        break;
      case SenderTable::Verdict::run:
        if (state_ == State::dead) {
          outcome.error = StateErrc::stopped;
          break;
        }
        if (pending.is_allowed) {
          outcome = run_hooks(pending, has_committed);
        } else {
          outcome.error = StateErrc::forbidden;
        }
        senders_.record(pending.sender, number, outcome);
    }
    pending.lane->answer(std::move(pending.link), pending.ticket, std::move(outcome),
                         has_committed ? map_.get() : nullptr);
  }

  EventOutcome run_hooks(const Pending& pending, bool& has_committed) {
    EventOutcome outcome;
    auto change = [&](Map& map) {
      for (auto& hook : *hooks_) hook(map, *pending.event, pending.context);
    };
    try {
      const UpdateId before = map_->head().update_id;
      outcome.update_id = commit(change, pending.lane.get());
      has_committed = outcome.update_id != before;
    } catch (const StateError& error) {
      report(on_error_, std::current_exception());
      outcome.error = error.code() == StateErrc::too_large ? StateErrc::too_large : StateErrc::hook_failed;
      outcome.detail = error.what();
    } catch (const std::exception& error) {
      report(on_error_, std::current_exception());
      outcome.error = StateErrc::hook_failed;
      outcome.detail = error.what();
    } catch (...) {
      report(on_error_, std::current_exception());
      outcome.error = StateErrc::hook_failed;
      outcome.detail = "a hook threw something that is no std::exception";
    }
    outcome.detail = protocol::shorten(std::move(outcome.detail));
    return outcome;
  }

  std::shared_ptr<HostedMap<K, V>> map_;
  std::shared_ptr<SerialExecutor> serial_;
  std::shared_ptr<Hooks> hooks_;
  const ErrorHandler on_error_;
  const SharedBytesCount waiting_bytes_;
  const std::size_t most_waiting_bytes_;
  SenderTable senders_;
  UniqueFunction<void(const protocol::DiffSource*, const Lane*)> committed_;
  std::atomic<State> state_{State::initialising};
};

}  // namespace syncstate::detail

#endif
