// The client without any transport: one long-lived link, shared by every map that uses it.
#ifndef SYNCSTATE_REMOTE_CORE_HPP
#define SYNCSTATE_REMOTE_CORE_HPP

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "syncstate/backoff.hpp"
#include "syncstate/detail/check_limits.hpp"
#include "syncstate/detail/limit_text.hpp"
#include "syncstate/detail/model/random.hpp"
#include "syncstate/detail/remote/remote_entry.hpp"
#include "syncstate/detail/remote/remote_map.hpp"
#include "syncstate/detail/remote/remote_operation.hpp"
#include "syncstate/detail/remote/why_late.hpp"
#include "syncstate/detail/tick_period.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/event.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/link.hpp"
#include "syncstate/protocol/client_session.hpp"
#include "syncstate/protocol/passwords.hpp"
#include "syncstate/protocol/proof.hpp"
#include "syncstate/status.hpp"

namespace syncstate {

/// What a remote core is made with.
struct RemoteCoreOptions {
  std::string password{};
  /// How long an event waits for its answer, asynchronous or not: then it ends with `unavailable`, or `outcome_unknown`
  /// if it was sent.
  std::chrono::milliseconds event_timeout{10'000};
  /// How long a blocking request (`sync`, `set_update_id`, `attach`, `hosted`) waits before it is
  /// `unavailable`.
  std::chrono::milliseconds request_timeout{5'000};
  BackoffOptions backoff{};
  Limits limits{};
  /// Told what status callbacks and codecs throw.
  ErrorHandler on_error = nullptr;
  /// Seeds the jitter; 0 takes a random seed when the remote starts, so that processes that are forked off before do not all
  /// come back at the same times.
  std::uint64_t seed = 0;
};

namespace detail {

/// Keeps one link to a server: reconnects by itself, opens every map anew and resumes each from its position,
/// and repeats unanswered events within the epoch they were sent to.
///
/// Threads : the asynchronous calls from any thread; all work, and every callback, on the executor.
/// Lifetime: made by `create`; `stop` lets go of everything.
/// Cost    : a call, and an answer to it, costs O(log(maps) + log(requests)), however many maps there are and whatever
///           waits for them. What comes on a channel costs O(log(channels)) and what its receiver does. A link that is
///           made, lost or refused costs O(everything). A tick: see there.
class RemoteCore final : public std::enable_shared_from_this<RemoteCore> {
 public:
  using ChannelId = protocol::ChannelId;

  /// Errors: `invalid_option` for limits with which no server could do anything.
  [[nodiscard]] static std::shared_ptr<RemoteCore> create(std::shared_ptr<Executor> executor,
                                                          std::shared_ptr<Connector> connector,
                                                          RemoteCoreOptions options) {
    const protocol::WipesAtEnd wiping(options.password);
    detail::check_limits(options.limits);
    return std::shared_ptr<RemoteCore>(
        new RemoteCore(std::move(executor), std::move(connector), std::move(options)));
  }

  ~RemoteCore() {
    // Whoever let go of us last may have done so before the executor heard of `stop`, and on any thread.
    if (link_) executor_->post([link = std::move(link_)] { link->abort(); });
    shut_down();
    protocol::wipe(options_.password);
  }

  [[nodiscard]] Executor& executor() const { return *executor_; }
  [[nodiscard]] const std::shared_ptr<Executor>& shared_executor() const { return executor_; }
  [[nodiscard]] const RemoteCoreOptions& options() const { return options_; }

  /// Starts to connect.
  void start() {
    post([](RemoteCore& self) {
      self.is_started_ = true;
      if (self.options_.seed == 0) self.rng_.seed(random_u64());
      self.connect();
      self.schedule_tick();
    });
  }

  /// Ends everything: what waits ends with `stopped`, and an event that was sent and has no answer with
  /// `outcome_unknown`, because it may have run. Never waits for the network.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      is_stopped_ = true;
    }
    post_always([](RemoteCore& self) {
      if (self.is_shut_down_) return;
      self.status_callbacks_.clear();
      self.guard([&] { self.set_status(LinkState::failed, StateErrc::stopped); });  // replicas hear of it
      self.shut_down();
    });
  }

  /// Proves this password from the next connection on, and connects at once unless the link is live.
  void set_password(std::string password) {
    std::vector<std::string> one;
    one.push_back(std::move(password));
    protocol::wipe(password);
    // Wiped also where the executor never comes to this.
    post([kept = protocol::keep_passwords(std::move(one))](RemoteCore& self) {
      protocol::wipe(self.options_.password);
      self.options_.password = kept->current.front();
      self.connect_anew();
    });
  }

  /// What connections are made with has changed: connects at once unless the link is live.
  void retry_now() {
    post([](RemoteCore& self) { self.connect_anew(); });
  }

  [[nodiscard]] LinkStatus status() const {
    const std::lock_guard lock(mutex_);
    return status_;
  }

  /// Calls `f(status)` on the executor: once with the status at the time when the executor gets to it, then whenever
  /// the status changes. It must not block.
  void on_status(UniqueFunction<void(const LinkStatus&)> f) {
    post([f = std::make_shared<UniqueFunction<void(const LinkStatus&)>>(std::move(f))](RemoteCore& self) {
      // The status changes on this executor alone, so no change lies between this call and those that follow.
      self.status_callbacks_.push_back(f);
      const LinkStatus status = self.status_;
      contain(self.options_.on_error, [&] { (*f)(status); });
    });
  }

  /// Makes the map known, and opens it now and after every reconnect. `done` hears when it is open, or why
  /// not; while the server can't be reached it hears nothing. The map is opened also for one who has given up
  /// waiting before the executor came to it.
  void open(MapIdentity identity, std::shared_ptr<Operation> done) {
    post_unless_stopped(done, [identity = std::move(identity), done](RemoteCore& self) mutable {
      if (const auto clash = self.find_clash(identity)) {
        return self.finish(*done, StateErrc::type_mismatch, *clash);
      }
      Entry& entry = self.enter(std::move(identity));
      if (entry.is_open) return self.finish(*done, {});
      if (const LinkStatus& s = self.status_; s.state == LinkState::failed)
        return self.finish(*done, s.reason, s.detail);
      entry.openers.push_back(std::move(done));
      self.watch(entry);
      self.open_anew(entry);
    });
  }

  /// Follows a map: diffs go to `receiver` from its position on, until `unfollow` with the same receiver.
  void follow(MapIdentity identity, std::shared_ptr<DiffReceiver> receiver) {
    post([identity = std::move(identity), receiver = std::move(receiver)](RemoteCore& self) mutable {
      if (const auto clash = self.find_clash(identity)) {
        receiver->on_status(
            LinkStatus{LinkState::failed, self.executor_->now(), StateErrc::type_mismatch, *clash});
        return;
      }
      Entry& entry = self.enter(std::move(identity));
      Follower& follower = entry.followers.emplace_back(Follower{.receiver = std::move(receiver)});
      self.followers_[follower.receiver.get()] = {&entry, std::prev(entry.followers.end())};
      self.tell_follower(entry, follower);
      self.open_entry(entry);
      self.open_follower(entry, follower);
    });
  }

  /// Complexity: constant besides closing its channel, however many follow.
  void unfollow(std::shared_ptr<DiffReceiver> receiver) {
    post([receiver = std::move(receiver)](RemoteCore& self) {
      const auto found = self.followers_.find(receiver.get());
      if (found == self.followers_.end()) return;
      const auto [entry, follower] = found->second;
      self.followers_.erase(found);
      self.close_channel(follower->channel);
      entry->followers.erase(follower);
      self.wake();
    });
  }

  /// Fetches one diff from the receiver's position to `upto`, or to the head if that is below.
  void fetch_diff(MapIdentity identity, UpdateId upto, std::shared_ptr<DiffReceiver> receiver,
                  std::shared_ptr<Operation> done) {
    post_operation(done, [identity = std::move(identity), upto, receiver = std::move(receiver),
                          done](RemoteCore& self) mutable {
      if (const auto clash = self.find_clash(identity)) {
        return self.finish(*done, StateErrc::type_mismatch, *clash);
      }
      Entry& entry = self.enter(std::move(identity));
      if (const LinkStatus& s = self.status_; s.state == LinkState::failed)
        return self.finish(*done, s.reason, s.detail);
      self.open_anew(entry);
      self.ask(Request{.done = done, .entry = &entry, .receiver = std::move(receiver), .upto = upto});
    });
  }

  /// Asks where the head of a map is.
  void fetch_head(MapIdentity identity, std::shared_ptr<Position> head, std::shared_ptr<Operation> done) {
    post_operation(done,
                   [identity = std::move(identity), head = std::move(head), done](RemoteCore& self) mutable {
                     if (const auto clash = self.find_clash(identity)) {
                       return self.finish(*done, StateErrc::type_mismatch, *clash);
                     }
                     Entry& entry = self.enter(std::move(identity));
                     if (const LinkStatus& s = self.status_; s.state == LinkState::failed)
                       return self.finish(*done, s.reason, s.detail);
                     self.open_anew(entry);
                     self.ask(Request{.done = done, .entry = &entry, .head = std::move(head)});
                   });
  }

  /// Fetches the initial state of a hosted map.
  void fetch_state(const MapHash& hash, std::string key_type, std::string value_type,
                   std::shared_ptr<StateCollector> collector, std::shared_ptr<Operation> done) {
    post_operation(done, [hash, types = std::make_pair(std::move(key_type), std::move(value_type)),
                          collector = std::move(collector), done](RemoteCore& self) mutable {
      if (const LinkStatus& s = self.status_; s.state == LinkState::failed)
        return self.finish(*done, s.reason, s.detail);
      self.ask(Request{.done = std::move(done),
                       .hash = hash,
                       .collector = std::move(collector),
                       .types = std::move(types)});
    });
  }

  /// Asks which maps the server hosts.
  void list(std::shared_ptr<std::vector<protocol::HostedMapInfo>> maps, std::shared_ptr<Operation> done) {
    post_operation(done, [maps = std::move(maps), done](RemoteCore& self) mutable {
      if (const LinkStatus& s = self.status_; s.state == LinkState::failed)
        return self.finish(*done, s.reason, s.detail);
      self.ask(Request{.done = std::move(done), .maps = std::move(maps)});
    });
  }

  /// Sends an event; `call` hears the position or the error. Events of one caller keep their order.
  void send_event(const MapHash& hash, std::shared_ptr<EventCall> call) {
    std::shared_ptr<AskedEvents> asked;
    {
      const std::lock_guard lock(mutex_);
      if (!is_stopped_) {
        const bool is_first = asked_ == nullptr;
        if (is_first) asked_ = std::make_shared<AskedEvents>();
        asked_->push_back(AskedEvent{hash, std::move(call)});
        if (!is_first) return;
        asked = asked_;
      }
    }
    if (!asked) return finish(*call, StateErrc::stopped);
    executor_->post([weak = weak_from_this(), asked = std::move(asked)] {
      const auto self = weak.lock();
      if (self && !self->is_shut_down_) return self->take_events(asked);
      for (const AskedEvent& event : *asked) event.call->finish(StateErrc::stopped);
      if (self) self->executor_->wake_waiters();
    });
  }

  /// Gives up on an operation: it ends with `reason` if nothing else has ended it.
  void cancel(std::shared_ptr<Operation> operation, std::error_code reason) {
    post([operation = std::move(operation), reason](RemoteCore& self) {
      // What is left of it goes with the next tick.
      self.finish(*operation, operation->is_sent() ? make_error_code(StateErrc::outcome_unknown) : reason);
    });
  }

 private:
  using PendingEvent = RemoteEvent;
  using Follower = RemoteFollower;
  using Entry = RemoteEntry;
  using Request = RemoteRequest;

  /// Where what comes on a channel goes: to a map, or to one of its followers.
  struct Route {
    Entry* entry = nullptr;
    Follower* follower = nullptr;  ///< null for the channel of the map itself
  };
  struct FollowerPlace {
    Entry* entry;
    std::list<Follower>::iterator follower;
  };

  /// An event on its way to the executor.
  struct AskedEvent {
    MapHash hash;
    std::shared_ptr<EventCall> call;
  };
  using AskedEvents = std::vector<AskedEvent>;

  /// Hears of one link; deaf once the core has let go of it.
  class LinkEar final : public LinkOwner {
   public:
    LinkEar(std::weak_ptr<RemoteCore> core, std::uint64_t attempt)
        : core_(std::move(core)), attempt_(attempt) {}

    void on_open(const LinkInfo& info) override {
      if (const auto core = current()) core->link_opened(info);
    }
    void on_bytes(ByteView bytes) override {
      if (const auto core = current()) core->bytes_came(bytes);
    }
    void produce(Bytes& out) override {
      if (const auto core = current()) core->produce(out);
    }
    void on_closed(std::error_code reason, const std::string& detail) override {
      if (const auto core = current()) core->link_closed(reason, detail);
    }

   private:
    std::shared_ptr<RemoteCore> current() const {
      auto core = core_.lock();
      return core && core->attempt_ == attempt_ ? core : nullptr;
    }

    std::weak_ptr<RemoteCore> core_;
    std::uint64_t attempt_;
  };

  RemoteCore(std::shared_ptr<Executor> executor, std::shared_ptr<Connector> connector,
             RemoteCoreOptions options)
      : executor_(std::move(executor)),
        connector_(std::move(connector)),
        options_(std::move(options)),
        rng_(options_.seed) {
    protocol::wipe(options.password);
    status_.since = executor_->now();
    constexpr std::chrono::milliseconds most{250};
    const auto timeout =
        options_.event_timeout.count() > 0 ? options_.event_timeout : options_.limits.upload_time;
    tick_ = detail::tick_period(options_.limits, most, timeout);
  }

  // Getting onto the executor.

  template <class F>
  void post_always(F f) {
    {
      // Events asked for after this are not to overtake it.
      const std::lock_guard lock(mutex_);
      asked_.reset();
    }
    executor_->post([weak = weak_from_this(), f = std::move(f)]() mutable {
      if (const auto self = weak.lock()) f(*self);
    });
  }

  template <class F>
  void post(F f) {
    post_always([f = std::move(f)](RemoteCore& self) mutable {
      if (!self.is_shut_down_) f(self);
    });
  }

  /// As `post`; a stopped core ends the operation instead, and one that has ended by then is not begun.
  template <class F>
  void post_operation(const std::shared_ptr<Operation>& done, F f) {
    post_unless_stopped(done, [done, f = std::move(f)](RemoteCore& self) mutable {
      if (!done->is_finished()) f(self);
    });
  }

  /// As `post`; a stopped core ends the operation instead.
  template <class F>
  void post_unless_stopped(const std::shared_ptr<Operation>& done, F f) {
    {
      const std::lock_guard lock(mutex_);
      if (is_stopped_) {
        finish(*done, StateErrc::stopped);
        return;
      }
      asked_.reset();  // as above
    }
    executor_->post([weak = weak_from_this(), f = std::move(f), done]() mutable {
      const auto self = weak.lock();
      if (!self) {
        done->finish(StateErrc::stopped);
      } else if (self->is_shut_down_) {
        self->finish(*done, StateErrc::stopped);
      } else {
        f(*self);
      }
    });
  }

  void finish(Operation& operation, std::error_code error, const std::string& detail = {}) {
    operation.finish(error, detail);
    executor_->wake_waiters();
  }

  // The link.

  void connect() {
    ++attempt_;
    session_.reset();
    link_ = connector_->connect(std::make_shared<LinkEar>(weak_from_this(), attempt_));
  }

  /// Gives up an attempt under way, or the wait for the next one, for one with what is right now.
  void connect_anew() {
    is_password_refused_ = false;
    if (!is_started_) return;
    if (session_ && session_->is_authenticated()) return;
    failures_ = 0;
    close_reason_.reset();
    close_detail_.clear();
    ++attempt_;  // what the link that is given up has to say is not heard
    if (const auto given_up = std::exchange(link_, nullptr)) given_up->abort();
    // A refusal of what was shown before says nothing about what is shown now: callers wait for the new attempt.
    if (status_.state == LinkState::failed) set_status(was_live_ ? LinkState::stale : LinkState::connecting);
    connect();
  }

  void link_opened(const LinkInfo& info) {
    guard([&] {
      const TimePoint now = executor_->now();
      session_.emplace(options_.limits, now);
      session_->on_open(options_.password, info.channel_binding, now);
      wake();
    });
  }

  void bytes_came(ByteView bytes) {
    if (!session_) return;
    guard([&] {
      session_->on_bytes(bytes, executor_->now(), sink());
      if (std::exchange(has_answers_, false)) {
        executor_->wake_waiters();
        send_backlog();
      }
      if (!ready_requests_.empty()) start_requests();  // a late answer to one that was given up made room
      wake();
    });
  }

  void produce(Bytes& out) {
    if (!session_) return;
    guard([&] {
      try {
        session_->produce(out);
      } catch (...) {
        out.clear();  // perhaps half a frame
        session_->fail(protocol::close_for_exception(), sink());
        session_->produce(out);
      }
    });
  }

  /// Runs `f`, which may run out of memory or call codecs of the user's: what it throws costs this link, and another
  /// is made.
  template <class F>
  void guard(F&& f) noexcept {
    if (contain(options_.on_error, f)) return;
    contain(options_.on_error, [this] {
      if (link_) link_->abort();
    });
  }

  void wake() {
    if (link_ && session_ && session_->wants_to_send()) link_->wake();
  }

  /// Hands what the session wants done to the `perform` for it.
  struct Sink {
    RemoteCore* self;
    template <class Action>
    void operator()(Action&& action) const {
      self->perform(action);
    }
  };
  Sink sink() { return Sink{this}; }

  void link_closed(std::error_code reason, const std::string& detail) {
    ++attempt_;  // whatever else this link has to say is not heard
    link_.reset();
    session_.reset();
    if (close_reason_) {
      reason = *std::exchange(close_reason_, std::nullopt);
      lose_link(reason, std::exchange(close_detail_, {}));
    } else {
      lose_link(reason, detail);
    }
  }

  void lose_link(std::error_code reason, const std::string& detail) {
    for (auto& [hash, entry] : entries_) {
      entry.lose_channel();
      entry.refusal.reset();
      entry.take_events_back();
      for (Follower& follower : entry.followers) {
        follower.receiver->drop_staged();
        follower.lose_channel();
        follower.refusal.reset();
      }
    }
    take_requests_back();
    for (Entry* entry : std::exchange(backlog_, {})) entry->is_in_backlog = false;
    events_in_flight_ = 0;
    event_bytes_in_flight_ = 0;
    channels_.clear();
    if (is_shut_down_) return;
    const bool is_refusal = is_refusal_code(reason);
    set_status(is_refusal ? LinkState::failed : (was_live_ ? LinkState::stale : LinkState::connecting),
               reason, detail);
    if (is_refusal) fail_waiting(reason, detail);
    // The proof was wrong, or is not looked at because others were: another one soon would be counted against all clients
    // of this address.
    if (reason == StateErrc::unauthorized) is_password_refused_ = true;
    const bool is_proof_to_wait =
        is_password_refused_ && (reason == StateErrc::unauthorized || reason == StateErrc::busy);
    const auto wait = is_proof_to_wait ? backoff_after_unauthorized(options_.backoff, rng_)
                                       : backoff(options_.backoff, is_refusal ? 64U : failures_, rng_);
    ++failures_;
    executor_->post_at(executor_->now() + wait, [weak = weak_from_this(), attempt = attempt_] {
      const auto self = weak.lock();
      if (self && self->attempt_ == attempt && !self->is_shut_down_) self->connect();
    });
  }

  /// Codes that say that trying again soon is of no use.
  static bool is_refusal_code(std::error_code code) {
    for (const StateErrc refusal :
         {StateErrc::unauthorized, StateErrc::forbidden, StateErrc::version_mismatch,
          StateErrc::certificate_rejected, StateErrc::tls_failed, StateErrc::decode_error,
          StateErrc::protocol_error, StateErrc::type_mismatch, StateErrc::hash_mismatch, StateErrc::too_large,
          StateErrc::invalid_option}) {
      if (code == refusal) return true;
    }
    return false;
  }

  /// Nobody who waits for the server is served by waiting longer. What was sent to it may still be answered.
  void fail_waiting(std::error_code reason, const std::string& detail) {
    for (auto& [hash, entry] : entries_) {
      for (const auto& opener : std::exchange(entry.openers, {})) finish(*opener, reason, detail);
      for (const PendingEvent& event : entry.events) {
        if (event.number == 0) finish(*event.call, reason, detail);
      }
    }
    for (auto& [hash, entry] : entries_) {
      for (const Request& request : std::exchange(entry.waiting, {})) end_request(request, reason, detail);
    }
    for (const Request& request : std::exchange(ready_requests_, {})) end_request(request, reason, detail);
    for (auto& [hash, entry] : entries_) drop_finished(entry);
  }

  void shut_down() {
    if (std::exchange(is_shut_down_, true)) return;
    ++attempt_;
    take_requests_back();
    for (auto& [hash, entry] : entries_) {
      for (const auto& opener : entry.openers) finish(*opener, StateErrc::stopped);
      for (const PendingEvent& event : entry.events) {
        if (!event.call) continue;
        finish(*event.call, event.number == 0 ? StateErrc::stopped : StateErrc::outcome_unknown);
      }
      for (const Request& request : entry.waiting) finish(*request.done, StateErrc::stopped);
    }
    for (const Request& request : ready_requests_) finish(*request.done, StateErrc::stopped);
    watched_.clear();
    backlog_.clear();
    channels_.clear();
    followers_.clear();
    ready_requests_.clear();
    entries_.clear();
    status_callbacks_.clear();
    if (link_) link_->abort();
    link_.reset();
    session_.reset();
  }

  [[nodiscard]] std::chrono::milliseconds half_a_heartbeat() const {
    return (std::max)(session_->heartbeat_every() / 2, std::chrono::milliseconds(1));
  }

  void schedule_tick() {
    // If the server leaves after a short silence, we look more often than our own limits ask.
    const bool is_linked = session_ && session_->is_authenticated();
    const auto wait = is_linked ? (std::min)(tick_, half_a_heartbeat()) : tick_;
    executor_->post_at(executor_->now() + wait, [weak = weak_from_this(), number = ++last_tick_] {
      const auto self = weak.lock();
      if (!self || self->is_shut_down_ || self->last_tick_ != number) return;
      self->guard([&] { self->tick(); });
      self->schedule_tick();
    });
  }

  /// Complexity: O(what waits for an answer, a retry or a map to be open); of the maps of which nothing waits, a few.
  void tick() {
    const TimePoint now = executor_->now();
    if (session_) session_->on_tick(now, sink());
    for (std::size_t i = 0; i < watched_.size();) {
      Entry& entry = *watched_[i];
      look_after(entry, now);
      if (entry.has_pending()) {
        ++i;
        continue;
      }
      entry.is_watched = false;
      watched_[i] = watched_.back();
      watched_.pop_back();
    }
    drop_finished_requests(now);
    let_go_of_dead_maps();
    wake();
  }

  /// Has every tick look at the entry, as long as something is pending there.
  void watch(Entry& entry) {
    if (entry.is_watched) return;
    watched_.push_back(&entry);
    entry.is_watched = true;
  }

  void look_after(Entry& entry, TimePoint now) {
    for (const PendingEvent& event : entry.events) {
      if (now < event.deadline) break;  // they were queued in the order of their deadlines
      if (!event.call) continue;
      event.call->give_up(why_late(status_, "event_timeout", options_.event_timeout));
      executor_->wake_waiters();
    }
    if (entry.refusal && now >= entry.refusal->retry_at) open_anew(entry);
    for (Follower& follower : entry.followers) {
      if (!follower.refusal || now < follower.refusal->retry_at) continue;
      follower.refusal.reset();
      open_follower(entry, follower);
    }
    drop_finished(entry);
  }

  /// A map of which no copy lives, and that nobody waits for, takes no room on the link. Its entry is kept for events
  /// that may come by its hash, and opens it again then; not for ever more of them, though.
  /// Complexity: a few entries each time, so that all are looked at in turn.
  void let_go_of_dead_maps() {
    constexpr std::size_t at_a_time = 64;
    auto at = entries_.size() <= at_a_time ? entries_.begin() : entries_.upper_bound(last_looked_at_);
    for (std::size_t count = (std::min)(entries_.size(), at_a_time); count > 0 && !entries_.empty();
         --count) {
      if (at == entries_.end()) at = entries_.begin();
      last_looked_at_ = at->first;
      Entry& entry = at->second;
      if (is_wanted(entry)) {
        ++at;
        continue;
      }
      if (entry.is_open) {
        close_channel(entry.channel);
        entry.lose_channel();
      }
      const bool is_one_too_many = entry.channel == 0 && entries_.size() > options_.limits.maps;
      at = is_one_too_many && !entry.is_watched && !entry.is_in_backlog ? entries_.erase(at) : std::next(at);
    }
  }

  static bool is_wanted(const Entry& entry) {
    return !entry.events.empty() || !entry.openers.empty() || !entry.followers.empty() ||
           entry.requests != 0 || entry.identity.initial();
  }

  /// Operations end elsewhere too (their callers give up); what is left of them goes here.
  void drop_finished(Entry& entry) {
    std::erase_if(entry.openers, [](const auto& opener) { return opener->is_finished(); });
    // An event that was sent keeps its place until its answer comes: the numbers of the others count on it.
    entry.erase_events_if([](const PendingEvent& e) { return e.number == 0 && e.call->is_finished(); });
    entry.requests -= std::erase_if(entry.waiting, [](const Request& r) { return r.done->is_finished(); });
  }

  // Status.

  void set_status(LinkState state, std::error_code reason = {}, const std::string& detail = {}) {
    LinkStatus status;
    {
      const std::lock_guard lock(mutex_);
      if (status_.state != state) status_.since = executor_->now();
      if (status_.state == state && status_.reason == reason && status_.detail == detail) return;
      status_.state = state;
      status_.reason = reason;
      status_.detail = detail;
      status = status_;
    }
    if (state == LinkState::live) was_live_ = true;
    const auto callbacks = status_callbacks_;
    for (const auto& callback : callbacks) contain(options_.on_error, [&] { (*callback)(status); });
    tell_followers();
  }

  static LinkStatus status_of(const RemoteRefusal& refusal) {
    return LinkStatus{LinkState::failed, refusal.since, refusal.reason, refusal.detail};
  }

  LinkStatus status_for(const Entry& entry) const {
    return entry.refusal ? status_of(*entry.refusal) : status_;
  }

  void tell_followers() {
    for (auto& [hash, entry] : entries_) {
      for (Follower& follower : entry.followers) tell_follower(entry, follower);
    }
  }

  void tell_follower(const Entry& entry, Follower& follower) {
    const LinkStatus status =
        follower.refusal && !entry.refusal ? status_of(*follower.refusal) : status_for(entry);
    // A receiver counts as live only once what it has was the head: until then its age is not known.
    if (status.state == LinkState::live && !follower.is_current) return;
    follower.receiver->on_status(status);
  }

  /// Returns false for a receiver that stands in another epoch, whatever the two update ids are.
  static bool is_at_head(const Follower& follower) {
    const Position at = follower.receiver->position();
    return at.epoch == follower.head.epoch && at.update_id >= follower.head.update_id;
  }

  /// Notes where the head is now.
  void head_told(Follower& follower, Position head) {
    follower.head = head;
    follower.head_told_at = executor_->now();
  }

  /// Notes that what the follower has was the head as of `when`, or is newer.
  void follower_is_current(const Entry& entry, Follower& follower, TimePoint when) {
    follower.receiver->on_current(when);
    if (!std::exchange(follower.is_current, true)) tell_follower(entry, follower);
  }

  // Maps.

  /// Maps of different types may have one hash. Which of them is meant here was said by the first, as long as
  /// it lives or is open; for another one this says so.
  [[nodiscard]] std::optional<std::string> find_clash(const MapIdentity& identity) const {
    const auto found = entries_.find(identity.hash);
    if (found == entries_.end()) return std::nullopt;
    const MapIdentity& known = found->second.identity;
    if (known.key_type == identity.key_type && known.value_type == identity.value_type) return std::nullopt;
    if (found->second.channel == 0 && !known.initial()) return std::nullopt;
    return "this remote knows the map as {" + known.key_type + ": " + known.value_type + "}, not as {" +
           identity.key_type + ": " + identity.value_type + "}";
  }

  Entry& enter(MapIdentity identity) {
    const auto [found, is_new] = entries_.try_emplace(identity.hash);
    Entry& entry = found->second;
    // A new copy of a map that died meanwhile brings the initial state back.
    if (is_new || !entry.identity.initial()) entry.identity = std::move(identity);
    return entry;
  }

  bool is_ready() const { return session_ && session_->is_authenticated() && !session_->is_over(); }

  void open_entry(Entry& entry) {
    if (!is_ready() || entry.channel != 0 || entry.refusal) return;
    if (const auto why = why_not_open(entry)) return refuse(entry, nullptr, why->first, why->second);
    entry.channel = session_->open(open_message(entry, {}, protocol::FollowMode::none));
    channels_[entry.channel] = Route{&entry, nullptr};
    if (!entry.events.empty()) ask_for_sender(entry);
    wake();
  }

  /// Once per channel. Until it is answered no event of the map is sent, so that each can be repeated on another link.
  void ask_for_sender(Entry& entry) {
    if (!std::exchange(entry.is_sender_asked, true)) session_->get_sender(entry.channel, entry.sender);
  }

  /// Whoever asks in person is not kept waiting by an earlier refusal.
  void open_anew(Entry& entry) {
    const bool was_refused = std::exchange(entry.refusal, std::nullopt).has_value();
    open_entry(entry);
    if (!was_refused) return;
    for (Follower& follower : entry.followers) open_follower(entry, follower);
  }

  void open_follower(Entry& entry, Follower& follower) {
    if (!is_ready() || follower.channel != 0 || entry.refusal || follower.refusal) return;
    if (const auto why = why_not_open(entry)) return refuse(entry, &follower, why->first, why->second);
    const auto mode =
        follower.receiver->every_step() ? protocol::FollowMode::every_step : protocol::FollowMode::merged;
    follower.channel = session_->open(open_message(entry, follower.receiver->position(), mode));
    channels_[follower.channel] = Route{&entry, &follower};
    wake();
  }

  /// Returns the error if the limits that the server told forbid this: it would refuse it, or end the session for it.
  [[nodiscard]] std::optional<std::pair<StateErrc, std::string>> why_not_open(const Entry& entry) const {
    if (session_->channels() >= session_->most_channels()) {
      return std::pair(StateErrc::busy,
                       "the server's end of this link: " +
                           beyond_limit(std::to_string(session_->channels()) + " channels are open", "maps",
                                        session_->most_channels()));
    }
    return why_not_named(entry.identity.key_type.size(), entry.identity.value_type.size());
  }

  /// The same for a message that names a map's types.
  [[nodiscard]] std::optional<std::pair<StateErrc, std::string>> why_not_named(std::size_t key_type,
                                                                               std::size_t value_type) const {
    if (key_type > protocol::most_type_bytes || value_type > protocol::most_type_bytes) {
      return std::pair(StateErrc::too_large,
                       "the name of a type has " + std::to_string((std::max)(key_type, value_type)) +
                           " bytes, and may have " + std::to_string(protocol::most_type_bytes));
    }
    if (session_->fits_frame(key_type + value_type)) return std::nullopt;
    return std::pair(StateErrc::too_large,
                     "the server's end of this link: " +
                         beyond_limit(of_bytes("the names of the map's types", key_type + value_type),
                                      "frame_bytes", session_->server_frame_bytes()));
  }

  static protocol::Open open_message(const Entry& entry, Position position, protocol::FollowMode mode) {
    protocol::Open open;
    open.hash = entry.identity.hash;
    open.keys_hash = entry.identity.keys_hash;
    open.key_type = entry.identity.key_type;
    open.value_type = entry.identity.value_type;
    open.position = position;
    open.mode = mode;
    return open;
  }

  void close_channel(ChannelId channel) {
    channels_.erase(channel);
    if (channel != 0 && is_ready()) session_->close_channel(channel);
  }

  /// Both null for a channel that is not known.
  Route route_of(ChannelId channel) const {
    const auto known = channels_.find(channel);
    return known != channels_.end() ? known->second : Route{};
  }

  /// The receiver of a stream: a follower's, or a request's.
  DiffReceiver* receiver_of(ChannelId stream) {
    const Route route = route_of(stream);
    if (route.entry != nullptr) return route.follower != nullptr ? route.follower->receiver.get() : nullptr;
    const auto request = asked_requests_.find(stream);
    return request != asked_requests_.end() ? request->second.receiver.get() : nullptr;
  }

  // Requests. One waits in its entry until the map is open, then in `ready_requests_` until the session has room for it,
  // then in `asked_requests_` for its answer. Each step costs O(log(requests)).

  void ask(Request request) {
    Entry* entry = request.entry;
    if (entry != nullptr && !entry->is_open) {
      entry->waiting.push_back(std::move(request));
      ++entry->requests;
      return watch(*entry);
    }
    ready_requests_.push_back(std::move(request));
    if (entry != nullptr) ++entry->requests;
    start_requests();
  }

  void start_requests() {
    if (!is_ready()) return;
    while (!ready_requests_.empty() && session_->has_room_for_request()) {
      const Request request = std::move(ready_requests_.front());
      ready_requests_.pop_front();
      if (request.done->is_finished()) {
        forget_request(request);
      } else if (const auto why = why_not_asked(request)) {
        end_request(request, why->first, why->second);
      } else {
        asked_requests_.try_emplace(send_request(request), request);
      }
    }
    wake();
  }

  [[nodiscard]] std::optional<std::pair<StateErrc, std::string>> why_not_asked(const Request& request) const {
    if (!request.collector) return std::nullopt;
    return why_not_named(request.types.first.size(), request.types.second.size());
  }

  ChannelId send_request(const Request& request) {
    if (request.collector) return session_->fetch(request.hash, request.types.first, request.types.second);
    if (request.maps) return session_->list();
    const ChannelId channel = request.entry->channel;
    if (request.head) return session_->get_update_id(channel);
    return session_->get_diff(channel, request.receiver->position(), request.upto);
  }

  /// It is in no list any more.
  static void forget_request(const Request& request) {
    if (request.entry != nullptr) --request.entry->requests;
  }

  void end_request(const Request& request, std::error_code error, const std::string& detail = {}) {
    forget_request(request);
    finish(*request.done, error, detail);
  }
  /// Its answer came; there is room for another one.
  void end_request(std::map<ChannelId, Request>::iterator asked, std::error_code error,
                   const std::string& detail = {}) {
    const Request request = std::move(asked->second);
    asked_requests_.erase(asked);
    end_request(request, error, detail);
    start_requests();
  }

  /// The link is lost: those that were asked are asked again on the next one.
  void take_requests_back() {
    std::list<Request> again;
    for (auto& [id, request] : std::exchange(asked_requests_, {})) {
      if (request.receiver) request.receiver->drop_staged();
      if (request.collector) request.collector->drop();
      again.push_back(std::move(request));
    }
    again.splice(again.end(), ready_requests_);
    for (Request& request : again) {
      Entry* entry = request.entry;
      if (entry != nullptr) watch(*entry);
      (entry != nullptr ? entry->waiting : ready_requests_).push_back(std::move(request));
    }
  }

  /// Callers give up: then nothing of the request is kept, and its answer is dropped when it comes.
  void drop_finished_requests(TimePoint now) {
    std::vector<std::shared_ptr<Operation>> overdue;
    const auto is_over = [&](const Request& request) {
      if (request.give_up_at && now >= *request.give_up_at) overdue.push_back(request.done);
      return request.done->is_finished() || (request.give_up_at && now >= *request.give_up_at);
    };
    for (auto at = asked_requests_.begin(); at != asked_requests_.end();) {
      if (!is_over(at->second)) {
        ++at;
        continue;
      }
      if (session_) session_->forget_request(at->first);
      forget_request(at->second);
      at = asked_requests_.erase(at);
    }
    for (auto at = ready_requests_.begin(); at != ready_requests_.end();) {
      if (!is_over(*at)) {
        ++at;
        continue;
      }
      forget_request(*at);
      at = ready_requests_.erase(at);
    }
    for (const auto& operation : overdue) finish(*operation, StateErrc::unavailable);
  }

  /// Ends what is asked of a map that is not open any more.
  void end_requests_of(Entry& entry, std::error_code reason, const std::string& detail) {
    std::list<Request> ended = std::exchange(entry.waiting, {});
    if (entry.requests != ended.size()) {
      for (auto at = asked_requests_.begin(); at != asked_requests_.end();) {
        const auto request = at++;
        if (request->second.entry != &entry) continue;
        ended.push_back(std::move(request->second));
        asked_requests_.erase(request);
      }
      for (auto at = ready_requests_.begin(); at != ready_requests_.end();) {
        const auto request = at++;
        if (request->entry == &entry) ended.splice(ended.end(), ready_requests_, request);
      }
    }
    for (const Request& request : ended) end_request(request, reason, detail);
  }

  // Events.

  /// What was asked for together, in the order of the calls.
  void take_events(const std::shared_ptr<AskedEvents>& asked) {
    {
      const std::lock_guard lock(mutex_);
      if (asked_ == asked) asked_.reset();
    }
    const TimePoint deadline = executor_->now() + options_.event_timeout;
    Entry* entry = nullptr;
    for (AskedEvent& event : *asked) {
      if (entry == nullptr || entry->identity.hash != event.hash) {
        if (entry != nullptr) send_events(*entry);
        const auto found = entries_.find(event.hash);
        entry = found == entries_.end() ? nullptr : &found->second;
        if (entry != nullptr) open_entry(*entry);
      }
      if (entry == nullptr) {
        finish(*event.call, StateErrc::not_hosted,
               "this remote does not know the map: freeze or attach it first");
      } else if (entry->refusal || status_.state == LinkState::failed) {
        const LinkStatus status = status_for(*entry);
        finish(*event.call, status.reason, status.detail);
      } else if (entry->is_open && !event.call->may_wait_for(event.hash, entry->sender_epoch)) {
        refuse_deadlock(*event.call);
      } else {
        entry->events.push_back(PendingEvent{std::move(event.call), deadline, 0});
        watch(*entry);
      }
    }
    if (entry != nullptr) send_events(*entry);
    wake();
  }

  void refuse_deadlock(EventCall& call) {
    finish(call, StateErrc::would_deadlock,
           "a hook waits for this event, and the event could run only after that hook: change the map that "
           "the hook was "
           "given, or do not wait for the answer (async_send_event)");
  }

  /// The map is open now, and its epoch known: ends the events that wait for a hook that waits for them. They were
  /// never sent.
  void refuse_deadlocks(Entry& entry) {
    bool is_any = false;
    for (const PendingEvent& event : entry.events) {
      if (event.number != 0 || event.call->may_wait_for(entry.identity.hash, entry.sender_epoch)) continue;
      refuse_deadlock(*event.call);
      is_any = true;
    }
    if (is_any) entry.erase_events_if([](const PendingEvent& e) { return e.call->is_finished(); });
  }

  void send_events(Entry& entry) {
    if (!is_ready() || entry.channel == 0 || entry.events.empty()) return;
    if (!entry.has_sender) return ask_for_sender(entry);
    const std::uint64_t most = session_->events_in_flight();
    const std::uint64_t most_bytes = session_->event_bytes_in_flight();
    while (entry.sent_events < entry.events.size() && events_in_flight_ < most) {
      PendingEvent& event = entry.events[entry.sent_events];
      const std::size_t bytes = event.call->event().bytes.size();
      if (event_bytes_in_flight_ != 0 && event_bytes_in_flight_ + bytes > most_bytes) break;
      // One that was sent before keeps its place: the server answers it as it did.
      if (event.number == 0 && !fits_server(*event.call)) [[unlikely]] {
        entry.events.erase(entry.events.begin() + static_cast<std::ptrdiff_t>(entry.sent_events));
        continue;
      }
      // Whoever gave up meanwhile does not expect it to run, or to run much later.
      if (event.number != 0 ? event.call->is_finished() : !event.call->mark_sent()) {
        entry.events.erase(entry.events.begin() + static_cast<std::ptrdiff_t>(entry.sent_events));
        continue;
      }
      event.is_first_time = event.number == 0;
      if (event.number == 0) event.number = ++entry.last_number;
      event.is_on_link = true;
      ++entry.sent_events;
      // The session keeps the call for as long as it needs the event.
      session_->send_event(entry.channel, event.number, {event.call, &event.call->event()});
      ++events_in_flight_;
      event_bytes_in_flight_ += bytes;
    }
    if (entry.sent_events < entry.events.size() && !entry.is_in_backlog) {
      backlog_.push_back(&entry);
      entry.is_in_backlog = true;
    }
  }

  /// Returns whether the server takes this event; if it does not, ends it here, before its bytes are sent.
  bool fits_server(EventCall& call) {
    const std::size_t bytes = call.event().bytes.size();
    const std::size_t type = call.event().type_name.size();
    if (bytes > session_->event_bytes()) [[unlikely]] {
      finish(call, StateErrc::too_large,
             "the server's end of this link: " +
                 beyond_limit(of_bytes("an event", bytes), "event_bytes", session_->event_bytes()));
      return false;
    }
    if (type > protocol::most_type_bytes || !session_->fits_frame(type)) [[unlikely]] {
      const auto why = why_not_named(type, 0);
      finish(call, why->first, why->second);
      return false;
    }
    return true;
  }

  /// There is room for more events: the maps whose events wait take turns.
  void send_backlog() {
    for (std::size_t count = backlog_.size(); count > 0; --count) {
      if (!is_ready() || events_in_flight_ >= session_->events_in_flight()) return;
      Entry& entry = *backlog_.front();
      backlog_.pop_front();
      entry.is_in_backlog = false;
      const std::size_t before = events_in_flight_;
      send_events(entry);
      if (entry.is_in_backlog && events_in_flight_ == before) return;  // its next event does not fit yet
    }
  }

  /// The channel of its events is lost; they are repeated on the next one.
  void take_events_back(Entry& entry) {
    for (const PendingEvent& event : entry.events) {
      if (!event.is_on_link || !event.call) continue;
      --events_in_flight_;
      event_bytes_in_flight_ -= event.call->event().bytes.size();
    }
    entry.take_events_back();
  }

  /// An answer carries no epoch: it is of the epoch that `opened` named for its channel, which is `sender_epoch`. A
  /// channel of another epoch has no event on it yet (see `adopt_sender`), so no update id is paired with an epoch not
  /// its own.
  void end_event(ChannelId channel, std::uint64_t number, std::error_code error, UpdateId update_id,
                 const std::string& detail) {
    Entry* entry = route_of(channel).entry;
    if (entry == nullptr) return;
    PendingEvent* const event = entry->find_sent(number);
    if (event == nullptr) protocol::break_off("an answer to an event that was not sent");
    const auto done = entry->take_sent(*event);
    event_bytes_in_flight_ -= done->event().bytes.size();
    --events_in_flight_;
    has_answers_ = true;
    done->finish(error, detail, Position{entry->sender_epoch, update_id});
  }

  // What the session wants done.

  void perform(const protocol::ServerAuthenticated&) {
    failures_ = 0;
    is_password_refused_ = false;
    set_status(LinkState::live);
    if (half_a_heartbeat() < tick_) schedule_tick();
    for (auto& [hash, entry] : entries_) {
      const bool is_wanted = !entry.events.empty() || !entry.openers.empty() || !entry.followers.empty();
      // A map of which no copy lives is opened again when somebody sends it an event.
      if (!is_wanted && !entry.identity.initial()) continue;
      open_entry(entry);
      for (Follower& follower : entry.followers) open_follower(entry, follower);
    }
    start_requests();
  }

  void perform(const protocol::ChannelOpened& action) {
    const auto [entry, follower] = route_of(action.channel);
    if (entry == nullptr) return;
    if (follower != nullptr) {
      follower->is_open = true;
      head_told(*follower, action.head);
      // What the map was refused for is over: somebody brought it meanwhile, perhaps this very channel.
      if (entry->refusal) open_anew(*entry);
      if (follower->receiver->position() == action.head) {
        follower_is_current(*entry, *follower, follower->head_told_at);
      }
      return;
    }
    entry->is_open = true;
    if (entry->sender_epoch != action.head.epoch) adopt_sender(*entry, 0, action.head.epoch);
    refuse_deadlocks(*entry);
    for (const auto& opener : std::exchange(entry->openers, {})) finish(*opener, {});
    for (Follower& each : entry->followers) {
      if (each.is_current) tell_follower(*entry, each);
      open_follower(*entry, each);
    }
    send_events(*entry);
    ready_requests_.splice(ready_requests_.end(), entry->waiting);
    start_requests();
  }

  void perform(const protocol::SenderGiven& action) {
    const auto [entry, follower] = route_of(action.channel);
    if (entry == nullptr || follower != nullptr) return;
    if (entry->sender != action.sender) adopt_sender(*entry, action.sender, entry->sender_epoch);
    entry->has_sender = true;
    send_events(*entry);
  }

  /// Starts again with number 1, as another sender or in another epoch. Within an epoch and under the same sender,
  /// unanswered events are repeated under their numbers. Here they can't be, because the master does not know them: it
  /// could not tell whether they ran.
  void adopt_sender(Entry& entry, std::uint64_t sender, Epoch epoch) {
    const char* const why = entry.sender_epoch != epoch
                                ? "the master was restarted meanwhile"
                                : "the server does not remember the earlier events of this client any more";
    for (const PendingEvent& event : entry.events) {
      if (event.number != 0 && event.call) finish(*event.call, StateErrc::outcome_unknown, why);
    }
    entry.erase_events_if([](const PendingEvent& e) { return e.number != 0; });
    entry.sender = sender;
    entry.sender_epoch = epoch;
    entry.last_number = 0;
  }

  void perform(const protocol::UploadAsked& action) {
    const auto [entry, follower] = route_of(action.channel);
    if (entry == nullptr) return;
    if (auto source = entry->identity.initial()) {
      session_->upload(action.channel, std::move(source));
      return;
    }
    close_channel(action.channel);
    refuse(*entry, follower, StateErrc::not_hosted, "the server lost this map, and no copy of it lives here");
  }

  void perform(const protocol::ChannelRefused& action) {
    const auto [entry, follower] = route_of(action.channel);
    if (entry == nullptr) {
      const auto request = asked_requests_.find(action.channel);
      if (request != asked_requests_.end()) end_request(request, action.reason, action.detail);
      return;
    }
    channels_.erase(action.channel);
    if (follower != nullptr && !follower->is_open && !entry->is_open) {
      // The map's own channel hears the same, or has heard it, and tells everyone.
      follower->channel = 0;
      return;
    }
    if (action.reason == StateErrc::hash_mismatch && action.other && follower == nullptr &&
        start_comparison(*entry, *action.other, action.detail)) {
      return;
    }
    refuse(*entry, follower, action.reason, action.detail);
  }

  /// The channel of a follower, or of the map itself if that is null, is gone.
  /// Complexity: O(what waits for it), and of the map itself, O(its followers).
  void refuse(Entry& entry, Follower* follower, StateErrc reason, const std::string& detail) {
    const TimePoint now = executor_->now();
    const RemoteRefusal refusal{make_error_code(reason), detail, now,
                                now + backoff(options_.backoff, reason == StateErrc::busy ? 2U : 64U, rng_)};
    watch(entry);
    if (follower != nullptr) {
      follower->lose_channel();
      follower->refusal = refusal;
      follower->receiver->drop_staged();  // the server may refuse a channel in the middle of a transfer
      return tell_follower(entry, *follower);
    }
    entry.lose_channel();
    entry.refusal = refusal;
    for (const auto& opener : std::exchange(entry.openers, {})) finish(*opener, reason, detail);
    for (const PendingEvent& event : entry.events) {
      // A server that takes a right away answers what it took before. So an event that was sent on this channel alone,
      // and has no answer, was not taken.
      const bool was_not_taken =
          event.number == 0 || (reason == StateErrc::forbidden && event.is_on_link && event.is_first_time);
      if (was_not_taken && event.call) finish(*event.call, reason, detail);
    }
    take_events_back(entry);
    entry.erase_events_if([](const PendingEvent& e) { return e.call->is_finished(); });
    end_requests_of(entry, make_error_code(reason), detail);
    drop_finished(entry);
    for (Follower& each : entry.followers) tell_follower(entry, each);
    start_requests();
    send_backlog();
  }

  /// Finds out which key makes the difference before the refusal is passed on.
  bool start_comparison(Entry& entry, const MapHash& other, const std::string& detail) {
    auto text = std::make_shared<std::string>(detail);
    std::shared_ptr<StateCollector> collector =
        entry.identity.comparer(other, [text](std::string found) { *text = std::move(found); });
    if (!collector) return false;
    const ChannelId channel = entry.channel;
    auto done = Operation::create([weak = weak_from_this(), hash = entry.identity.hash, channel, text](
                                      std::error_code, const std::string&, Position) {
      const auto self = weak.lock();
      if (!self || self->is_shut_down_) return;
      const auto found = self->entries_.find(hash);
      if (found == self->entries_.end() || found->second.channel != channel) return;
      self->refuse(found->second, nullptr, StateErrc::hash_mismatch, *text);
    });
    ask(Request{.done = std::move(done),
                .hash = other,
                .collector = std::move(collector),
                .types = {entry.identity.key_type, entry.identity.value_type},
                .give_up_at = executor_->now() + options_.request_timeout});
    return true;
  }

  void perform(const protocol::UpdateIdCame& action) {
    const auto request = asked_requests_.find(action.request);
    if (request == asked_requests_.end()) return;
    *request->second.head = action.head;
    end_request(request, {});
  }

  void perform(const protocol::StateCame& action) {
    const auto request = asked_requests_.find(action.request);
    if (request == asked_requests_.end()) return;
    try {
      request->second.collector->feed(action.bytes);
      session_->set_staged(action.request, request->second.collector->held_bytes());
    } catch (const StateError& error) {
      // A server may host larger maps than we take: that is no reason to end the link.
      if (error.code() != StateErrc::too_large) throw;
      session_->forget_request(action.request);
      end_request(request, error.code(), error.detail());
    }
  }

  void perform(const protocol::StateEnded& action) {
    const auto request = asked_requests_.find(action.request);
    if (request == asked_requests_.end()) return;
    request->second.collector->finish();
    end_request(request, {});
  }

  void perform(protocol::HostedCame& action) {
    const auto request = asked_requests_.find(action.request);
    if (request == asked_requests_.end()) return;
    *request->second.maps = std::move(action.maps);
    end_request(request, {});
  }

  void perform(const protocol::DiffStaged& action) {
    if (DiffReceiver* receiver = receiver_of(action.stream)) {
      receiver->stage(action.entries);
      session_->set_staged(action.stream, receiver->staged_bytes());
    }
  }
  void perform(const protocol::ValueStaged& action) {
    if (DiffReceiver* receiver = receiver_of(action.stream)) {
      receiver->stage_value(action.ordinal, action.value);
      session_->set_staged(action.stream, receiver->staged_bytes());
    }
  }
  void perform(const protocol::DiffCame& action) {
    const DiffHead head{action.epoch, action.from, action.upto, action.is_full};
    if (DiffReceiver* receiver = receiver_of(action.stream)) {
      diff_taken(action.stream, *receiver, receiver->close(head, action.entries));
    }
  }
  void perform(const protocol::StepCame& action) {
    const DiffHead head{action.epoch, action.from, action.upto, false};
    if (DiffReceiver* receiver = receiver_of(action.stream)) {
      diff_taken(action.stream, *receiver, receiver->step(head, action.ordinal, action.value));
    }
  }

  void diff_taken(ChannelId stream, DiffReceiver& receiver, std::error_code error) {
    const auto [entry, follower] = route_of(stream);
    if (entry == nullptr) {
      const auto request = asked_requests_.find(stream);
      if (request != asked_requests_.end()) end_request(request, error);
      return;
    }
    if (!error) {
      if (follower == nullptr) return;
      // Merged diffs lead to the head as it was when they were made. A single step may be far behind it: with one that
      // leads to the head told last, or beyond it, the follower is no older than that news.
      if (!receiver.every_step()) {
        follower_is_current(*entry, *follower, executor_->now());
      } else if (is_at_head(*follower)) {
        follower_is_current(*entry, *follower, follower->head_told_at);
      }
      return;
    }
    // A new master's diff is held off on purpose; or the replica is ending, and will close its channel.
    // Neither wants more of this stream, and neither is the server's fault.
    if (error == StateErrc::epoch_changed || error == StateErrc::stopped) {
      session_->unfollow(stream);
      return;
    }
    throw StateError(error, "the server sent a diff that does not follow");
  }

  void perform(const protocol::EventAnswered& action) {
    end_event(action.channel, action.number, {}, action.update_id, {});
  }
  void perform(const protocol::EventRefused& action) {
    end_event(action.channel, action.number, action.reason, 0, action.detail);
  }

  void perform(const protocol::HeadHeard& action) {
    const auto [entry, follower] = route_of(action.channel);
    if (follower == nullptr) return;
    head_told(*follower, Position{follower->head.epoch, action.head});
    if (is_at_head(*follower)) follower_is_current(*entry, *follower, follower->head_told_at);
  }

  void perform(const protocol::CloseSession& action) {
    report(options_.on_error, action.cause);
    close_reason_ = make_error_code(action.reason);
    close_detail_ = action.detail;
    if (!link_) return;
    // As in a ServerLink.
    action.reason == StateErrc::peer_silent ? link_->close_without_waiting() : link_->close_gracefully();
  }

  std::shared_ptr<Executor> executor_;
  std::shared_ptr<Connector> connector_;
  RemoteCoreOptions options_;
  std::mt19937_64 rng_;
  std::chrono::milliseconds tick_{};  ///< between two looks at the time
  std::uint64_t last_tick_ = 0;       ///< the number of the next look

  mutable std::mutex mutex_;  // guards these three, which other threads use
  LinkStatus status_;
  bool is_stopped_ = false;
  std::shared_ptr<AskedEvents>
      asked_;  // those that the executor has not come to, if nothing was posted since

  // On the executor only:
  std::shared_ptr<Link> link_;
  std::optional<protocol::ClientSession> session_;
  std::optional<std::error_code> close_reason_;  // why the session asked to close, until the link has
  std::string close_detail_;
  std::uint64_t attempt_ = 0;
  unsigned failures_ = 0;
  bool was_live_ = false;
  bool is_password_refused_ = false;  // by the last server that looked at a proof of it
  bool is_started_ = false;
  bool is_shut_down_ = false;
  std::map<MapHash, Entry> entries_;
  MapHash last_looked_at_;       // by `let_go_of_dead_maps`
  std::vector<Entry*> watched_;  // those at which every tick looks
  std::deque<Entry*> backlog_;   // those whose events wait for room on the link
  std::map<ChannelId, Route> channels_;
  std::unordered_map<const DiffReceiver*, FollowerPlace> followers_;
  std::list<Request> ready_requests_;
  std::map<ChannelId, Request> asked_requests_;
  std::size_t events_in_flight_ = 0;
  std::size_t event_bytes_in_flight_ = 0;
  bool has_answers_ = false;  // came with the bytes that are being taken
  std::vector<std::shared_ptr<UniqueFunction<void(const LinkStatus&)>>> status_callbacks_;
};

}  // namespace detail
}  // namespace syncstate

#endif
