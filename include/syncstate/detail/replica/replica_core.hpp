// What a replica is behind its public face: takes diffs, shows states, calls back, ends waits.
#ifndef SYNCSTATE_DETAIL_REPLICA_REPLICA_CORE_HPP
#define SYNCSTATE_DETAIL_REPLICA_REPLICA_CORE_HPP

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/dense_array.hpp"
#include "syncstate/detail/model/diff_verdict.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/replica/left_epochs.hpp"
#include "syncstate/detail/replica/pending_waits.hpp"
#include "syncstate/detail/replica/view_store.hpp"
#include "syncstate/detail/unique_function.hpp"
#include "syncstate/detail/waiters.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/error.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/remote.hpp"
#include "syncstate/replica_options.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/status.hpp"
#include "syncstate/threads/home_process.hpp"
#include "syncstate/threads/thread_executor.hpp"
#include "syncstate/types.hpp"
#include "syncstate/view.hpp"

namespace syncstate::detail {

/// The sink of a replica's subscription.
///
/// A diff is applied and shown where it comes in, on the remote's thread: no thread hop. Then its callbacks
/// run on the callback executor; until they have returned, further diffs are accepted but staged, so
/// `accepted_` may be ahead of what is shown.
///
/// Threads : every member from any thread. Code of users is called with no lock held.
/// Lifetime: shared by the replica, its remote and the calls that are under way; `close()` is its end for
/// users.
template <class K, class V>
class ReplicaCore final : public DiffSink<K, V>, public std::enable_shared_from_this<ReplicaCore<K, V>> {
 public:
  using UpdateCallback = UniqueFunction<void(const Diff<K, V>&, const View<K, V>&)>;
  using StatusCallback = UniqueFunction<void(const LinkStatus&)>;
  using WaitFunction = PendingWaits::Function;

  // How far `every_step` lets callbacks fall behind before the newest diffs are merged.
  static constexpr std::size_t max_staged_diffs = 4'096;
  static constexpr std::size_t max_staged_bytes = std::size_t{16} << 20;
  static constexpr Duration retry_after = std::chrono::milliseconds(100);

  /// Begins at the state and position of `map`, a frozen replica; its values are copied, or taken out of it.
  ReplicaCore(StateMap<K, V>& map, bool takes_values, ReplicaOptions options)
      : frozen_(MapAccess::frozen(map)),
        options_(std::move(options)),
        remote_executor_(executor_of(map)),
        given_executor_(choose_executor()),
        touched_(touched_in(map)),
        store_(frozen_, Position{map.epoch(), map.update_id()},
               takes_values ? MapAccess::take_values(map) : MapAccess::values(map)),
        accepted_(store_.position()) {
    status_.since = now();
    remote_status_ = status_;
  }

  // --- What the remote calls.

  /// A merged diff leads to the head. A single step may be followed by others: the remote calls `on_current` at the
  /// last.
  std::error_code on_diff(Diff<K, V> diff) override {
    return accept(std::move(diff), options_.every_step ? std::nullopt : std::optional(now()));
  }

  /// Takes a diff that led to the head as of `as_of`, if that is given.
  std::error_code accept(Diff<K, V>&& diff, std::optional<TimePoint> as_of) {
    const auto self = this->shared_from_this();  // what is called below may end the replica
    std::unique_lock lock(mutex_);
    if (is_closed_) return StateErrc::stopped;
    Ended ended;
    const DiffVerdict verdict = verdict_on(diff);
    std::error_code result;
    if (verdict.effect == DiffEffect::refused) {
      result = verdict.error;
    } else if (verdict.effect != DiffEffect::none) {
      const Position to{diff.epoch(), diff.upto_update_id()};
      result = catch_all([&] { has_open_round_ || !staged_.empty() ? stage(std::move(diff)) : show(diff); });
      if (!result) {
        if (accepted_.epoch != to.epoch) leave_epoch_for(to.epoch, ended);
        accepted_ = to;
        if (as_of) accepted_head_at_ = as_of;
        if (staged_.empty()) shown_head_at_ = accepted_head_at_;
        take_reached(ended);
      }
    }
    is_holding_ = result == StateErrc::epoch_changed;
    if (is_holding_) pending_.take_all(ended.by_epoch);
    refused_ = result;
    publish_status();
    end_waits(lock, ended);
    return result;
  }

  void on_current(TimePoint when) override {
    const std::lock_guard lock(mutex_);
    accepted_head_at_ = (std::max)(accepted_head_at_.value_or(when), when);
    if (staged_.empty()) note_head_shown();
    if (!is_holding_) return;
    is_holding_ = false;  // the master of the epoch that is held is back
    refused_ = {};
    publish_status();
  }

  void on_status(const LinkStatus& status) override {
    const std::lock_guard lock(mutex_);
    remote_status_ = status;
    publish_status();
  }

  [[nodiscard]] Position position() const override {
    const std::lock_guard lock(mutex_);
    return accepted_;
  }
  [[nodiscard]] bool every_step() const override { return options_.every_step; }
  [[nodiscard]] EpochPolicy epoch_policy() const override { return options_.epoch_policy; }

  // --- What the replica calls.

  [[nodiscard]] View<K, V> view() const noexcept { return store_.view(); }
  [[nodiscard]] const FrozenState<K, V>& frozen() const { return *frozen_; }

  [[nodiscard]] TimePoint now() const {
    if (given_executor_ != nullptr) return given_executor_->now();
    return ThreadExecutor::steady_now();
  }

  /// Returns whether this process was forked off from the one with the threads that bring diffs or run callbacks. Takes
  /// no lock.
  [[nodiscard]] bool is_of_other_process() const {
    if (!home_.is_elsewhere()) return false;
    const auto remote_executor = remote_executor_.lock();
    const ThreadExecutor* const own = own_executor_seen_.load(std::memory_order_acquire);
    return (given_executor_ != nullptr && given_executor_->is_of_other_process()) ||
           (remote_executor != nullptr && remote_executor->is_of_other_process()) ||
           (own != nullptr && own->is_of_other_process());
  }

  /// Errors: `stopped` if `is_of_other_process()`.
  void expect_here() const {
    if (is_of_other_process()) throw StateError(StateErrc::stopped, forked_text("this replica"));
  }

  [[nodiscard]] LinkStatus status() const {
    if (is_of_other_process()) {
      LinkStatus status;
      status.state = LinkState::failed;
      status.reason = make_error_code(StateErrc::stopped);
      status.detail = forked_text("this replica");
      return status;
    }
    const std::lock_guard lock(mutex_);
    return status_;
  }

  [[nodiscard]] Duration age() const {
    if (is_of_other_process()) return (Duration::max)();
    const std::lock_guard lock(mutex_);
    if (!shown_head_at_) return (Duration::max)();
    return (std::max)(now() - *shown_head_at_, Duration::zero());
  }

  void add_update_callback(UpdateCallback callback) { add_callback(update_callbacks_, std::move(callback)); }
  /// Adds a callback: it is called with the current status once the executor gets to it, then for every change.
  void add_status_callback(StatusCallback callback) {
    auto listener = std::make_shared<StatusListener>(StatusListener{std::move(callback), std::nullopt});
    const std::lock_guard lock(mutex_);
    add_to(status_callbacks_, std::move(listener), [this] { post_status(); });
  }

  /// Calls `*function` once: with success when the state at `target` is shown, or with what made that impossible.
  void add_wait(const WaitTarget& target, std::shared_ptr<WaitFunction> function) {
    const auto self = this->shared_from_this();
    std::unique_lock lock(mutex_);
    const auto outcome = outcome_of(target);
    if (!outcome) {
      pending_.add(target, accepted_.epoch, std::move(function));
      return;
    }
    call_out(lock, [&] { report_errors([&] { (*function)(*outcome); }); });
  }

  bool remove_wait(const WaitTarget& target, const std::shared_ptr<WaitFunction>& function) {
    if (is_of_other_process()) return false;
    const std::lock_guard lock(mutex_);
    return pending_.remove(target, function);
  }

  bool wait_for(const WaitTarget& target, Duration limit) {
    expect_here();
    const auto self = this->shared_from_this();
    struct Outcome {
      std::mutex mutex;
      std::optional<std::error_code> code;
    };
    const auto outcome = std::make_shared<Outcome>();
    {
      const std::lock_guard lock(mutex_);
      if (const auto known = outcome_of(target)) {
        if (*known) throw StateError(*known);
        return true;
      }
      if (is_needed_here()) throw StateError(StateErrc::would_deadlock);
    }
    const auto function = std::make_shared<WaitFunction>([outcome](std::error_code code) {
      const std::lock_guard lock(outcome->mutex);
      outcome->code = code;
    });
    add_wait(target, function);
    const auto is_done = [outcome] {
      const std::lock_guard lock(outcome->mutex);
      return outcome->code.has_value();
    };
    const TimePoint start = now();
    const TimePoint until = limit < (TimePoint::max)() - start ? start + limit : (TimePoint::max)();
    if (!wait_until(until, is_done) && remove_wait(target, function)) return false;
    // Taken out of the list but not called yet: the call is on its way, on another thread.
    if (!is_done()) wait_until((TimePoint::max)(), is_done);
    if (!outcome->code)
      throw StateError(StateErrc::would_deadlock);  // that call is further up this very stack
    if (*outcome->code) throw StateError(*outcome->code);
    return true;
  }

  /// The executor of callbacks and of polling, with a thread of our own if nobody gave one.
  Executor& executor() {
    const std::lock_guard lock(mutex_);
    return locked_executor();
  }

  [[nodiscard]] bool is_closed() const {
    const std::lock_guard lock(mutex_);
    return is_closed_;
  }

  /// In a handler: code of a user's threw this, and what it was called for is told in the status.
  void report_error() const noexcept { report(options_.on_error, std::current_exception()); }

  /// Keeps `guard` until `close()`, or drops it at once if that was.
  void keep(std::shared_ptr<void> guard) {
    const std::lock_guard lock(mutex_);
    if (!is_closed_) kept_ = std::move(guard);
  }

  /// Ends waits with `stopped` and waits for the call into user code that is under way, unless it is further
  /// down on this very thread. After it none starts.
  void close() {
    const auto self = this->shared_from_this();
    decltype(staged_) staged;  // these die without the lock: they are code of users, too
    std::optional<Round> round;
    decltype(update_callbacks_) update_callbacks;
    decltype(status_callbacks_) status_callbacks;
    std::shared_ptr<void> kept;
    std::unique_lock lock(mutex_);
    is_closed_ = true;
    staged.swap(staged_);
    round.swap(round_);
    kept.swap(kept_);
    Ended ended;
    pending_.take_all(ended.by_close);
    end_waits(lock, ended);
    idle_.wait(lock, [this] { return calls_ == nullptr || is_calling_here_only(); });
    update_callbacks.swap(update_callbacks_);
    status_callbacks.swap(status_callbacks_);
  }

 private:
  template <class F>
  using Callbacks = std::shared_ptr<const std::vector<std::shared_ptr<F>>>;  // copied to be changed

  /// A status callback and the status that it got last: it gets no status twice in a row, and it always gets the first
  /// one.
  struct StatusListener {
    StatusCallback callback;
    std::optional<LinkStatus> told;
  };

  /// One applied diff whose callbacks have not run.
  struct Round {
    Diff<K, V> diff;
    View<K, V> before;
    Callbacks<UpdateCallback> callbacks;  // as they were when the diff was shown
  };

  /// A call into code of users, on the stack of the thread that makes it.
  struct Call {
    std::thread::id thread;
    Call* next;
  };

  /// Waits that are over, to be told when the lock is gone.
  struct Ended {
    PendingWaits::Calls reached;
    PendingWaits::Calls by_epoch;
    PendingWaits::Calls by_close;
  };

  static std::vector<std::uint64_t> touched_in(const StateMap<K, V>& map) {
    std::vector<std::uint64_t> touched((map.size() + 63) / 64);
    MapAccess::for_each_changed_since(map, 0, [&](std::uint32_t ordinal, const V&) {
      touch(touched, ordinal);
      return true;
    });
    return touched;
  }

  static std::shared_ptr<Executor> executor_of(const StateMap<K, V>& map) {
    const auto& remote = MapAccess::remote(map);
    return remote != nullptr ? remote->executor() : nullptr;
  }

  std::shared_ptr<Executor> choose_executor() const {
    if (options_.executor != nullptr) return options_.executor;
    const auto remote_executor = remote_executor_.lock();
    return remote_executor != nullptr ? remote_executor->make_sibling() : nullptr;
  }

  // --- Taking a diff. All under the lock.

  DiffVerdict verdict_on(const Diff<K, V>& diff) const {
    if (!is_same_map(frozen_, MapAccess::frozen(diff))) {
      return {DiffEffect::refused, StateErrc::hash_mismatch};
    }
    return judge(diff, accepted_, options_.epoch_policy);
  }

  void stage(Diff<K, V> diff) {
    const std::size_t bytes = options_.every_step ? size_of(diff) : 0;
    const bool has_room =
        options_.every_step && staged_.size() < max_staged_diffs && staged_bytes_ + bytes <= max_staged_bytes;
    if (staged_.empty() || has_room) {
      staged_.push_back(std::move(diff));
    } else {
      staged_.back().merge(diff);  // never more than the whole map
    }
    staged_bytes_ += bytes;
  }

  static std::size_t size_of(const Diff<K, V>& diff) {
    std::size_t bytes = 0;
    for (const auto& change : MapAccess::diff_ordinals(diff))
      bytes += owned_bytes(change.second) + sizeof(change);
    return bytes;
  }

  /// Applies a diff and makes it visible; on an exception nothing has changed, the diff neither. Takes its
  /// values along: into the store, or into the round of its callbacks, which is opened here.
  void show(Diff<K, V>& diff) {
    const Position to{diff.epoch(), diff.upto_update_id()};
    if (update_callbacks_ == nullptr) {
      store_.apply(std::move(MapAccess::diff_ordinals(diff)), fallen_back(diff), to);
      touch_all(diff);
      return;
    }
    const Position before = store_.position();
    std::optional<Diff<K, V>> rebased;  // relative to `before`, where the diff itself is not
    if (diff.is_full() || (diff.epoch() == before.epoch && diff.from_update_id() != before.update_id)) {
      rebased = rebase(diff, before);
    }
    Diff<K, V>& change = rebased ? *rebased : diff;
    std::optional<View<K, V>> before_view;
    if (!change.is_empty()) {
      before_view = store_.view();
      post_round();  // before the diff is visible: it may be the one thing that fails
    }
    store_.apply(std::as_const(MapAccess::diff_ordinals(change)), to);
    touch_all(diff);
    if (before_view) {
      round_.emplace(Round{std::move(change), std::move(*before_view), update_callbacks_});
      has_open_round_ = true;
    }
  }

  void touch_all(const Diff<K, V>& diff) {
    if (diff.is_full()) std::fill(touched_.begin(), touched_.end(), 0);
    for (const auto& named : MapAccess::diff_ordinals(diff)) touch(touched_, named.first);
  }

  /// The keys that have their initial values again by a full diff that does not name them.
  std::vector<std::uint32_t> fallen_back(const Diff<K, V>& diff) const {
    std::vector<std::uint32_t> ordinals;
    if (!diff.is_full()) return ordinals;
    std::vector<std::uint64_t> named(touched_.size());
    for (const auto& change : MapAccess::diff_ordinals(diff)) touch(named, change.first);
    for (std::size_t word = 0; word < touched_.size(); ++word) {
      for (std::uint64_t left = touched_[word] & ~named[word]; left != 0; left &= left - 1) {
        ordinals.push_back(static_cast<std::uint32_t>(word * 64) + lowest_bit(left));
      }
    }
    return ordinals;
  }

  /// The same step as a diff that is not full and begins at `before`: names also what falls back to its
  /// initial value. Into another life of the master it leads from 0.
  Diff<K, V> rebase(const Diff<K, V>& diff, Position before) const {
    ChangeSet<V> changes = MapAccess::diff_ordinals(diff);
    for (const std::uint32_t ordinal : fallen_back(diff)) changes.set(ordinal, frozen_->initial(ordinal));
    const UpdateId from = diff.epoch() == before.epoch ? before.update_id : 0;
    return MapAccess::make_diff(frozen_, diff.epoch(), from, diff.upto_update_id(), false,
                                std::move(changes));
  }

  static std::uint32_t lowest_bit(std::uint64_t word) {
    return static_cast<std::uint32_t>(std::countr_zero(word));
  }

  static void touch(std::vector<std::uint64_t>& bits, std::uint32_t ordinal) {
    bits[ordinal / 64] |= std::uint64_t{1} << (ordinal % 64);
  }

  /// Shows what was staged while callbacks ran, up to the next diff that has callbacks.
  void show_staged(Ended& ended) {
    while (!staged_.empty() && !has_open_round_) {
      const std::size_t bytes = options_.every_step ? size_of(staged_.front()) : 0;
      if (const std::error_code code = catch_all([this] { show(staged_.front()); })) {
        refused_ = code;  // it was accepted, so it stays ours to show
        publish_status();
        retry_later();
        break;
      }
      staged_.pop_front();
      staged_bytes_ -= (std::min)(staged_bytes_, bytes);
    }
    if (staged_.empty()) {
      note_head_shown();
      staged_bytes_ = 0;
    }
    take_reached(ended);
  }

  /// Notes that all that was accepted is shown. The replica may be `live` from the first time on that this has an age.
  void note_head_shown() {
    const bool is_first = !shown_head_at_ && accepted_head_at_;
    shown_head_at_ = accepted_head_at_;
    if (is_first) publish_status();
  }

  void retry_later() noexcept {
    try {
      Executor& executor = locked_executor();
      executor.post_at(executor.now() + retry_after, [weak = this->weak_from_this()] {
        if (const auto self = weak.lock()) self->show_staged_again();
      });
    } catch (...) {
      // Out of memory for this, too: the next callback round or retry finds what is staged.
    }
  }

  void show_staged_again() {
    std::unique_lock lock(mutex_);
    if (is_closed_ || has_open_round_) return;
    Ended ended;
    refused_ = is_holding_ ? make_error_code(StateErrc::epoch_changed) : std::error_code();
    show_staged(ended);
    publish_status();
    end_waits(lock, ended);
  }

  // --- Waits.

  /// Returns how a wait that begins now ends, or nothing if that is not known yet.
  ///
  /// A diff that is accepted but not shown yet does not count, and neither does an update id of a former epoch: the
  /// replica leaves an epoch when it accepts a diff of the next one.
  [[nodiscard]] std::optional<std::error_code> outcome_of(const WaitTarget& target) const {
    if (is_closed_) return make_error_code(StateErrc::stopped);
    if (target.epoch && *target.epoch != accepted_.epoch) {
      if (is_out_of_reach(*target.epoch)) return make_error_code(StateErrc::epoch_changed);
      return std::nullopt;
    }
    const Position shown = store_.position();
    if (shown.epoch == accepted_.epoch && shown.update_id >= target.update_id) return std::error_code();
    if (is_holding_) return make_error_code(StateErrc::epoch_changed);
    return std::nullopt;
  }

  /// Returns whether the replica has left an epoch, or will never go over to it. The epoch is not the replica's own.
  [[nodiscard]] bool is_out_of_reach(Epoch epoch) const {
    const bool has_no_history = accepted_ == Position{};
    return epoch == 0 || (holds_epochs() && !has_no_history) || left_epochs_.contains(epoch);
  }

  [[nodiscard]] bool holds_epochs() const { return options_.epoch_policy == EpochPolicy::hold; }

  /// Ends the waits for the epoch that the replica leaves. Epoch 0 is not left: a wait for an update id that began
  /// before any master was known is for the first epoch.
  void leave_epoch_for(Epoch next, Ended& ended) noexcept {
    if (accepted_.epoch != 0) left_epochs_.add(accepted_.epoch);
    pending_.change_epoch(next, accepted_.epoch == 0, ended.by_epoch);
    if (holds_epochs()) pending_.take_other_epochs(ended.by_epoch);
  }

  void take_reached(Ended& ended) noexcept {
    const Position shown = store_.position();
    if (shown.epoch == accepted_.epoch) pending_.take_upto(shown.update_id, ended.reached);
  }

  void end_waits(std::unique_lock<std::mutex>& lock, Ended& ended) {
    if (ended.reached.empty() && ended.by_epoch.empty() && ended.by_close.empty()) return;
    call_out(lock, [&] {
      for (auto& [id, wait] : ended.reached) report_errors([&f = *wait.function] { f({}); });
      for (auto& [id, wait] : ended.by_epoch) {
        report_errors([&f = *wait.function] { f(make_error_code(StateErrc::epoch_changed)); });
      }
      for (auto& [id, wait] : ended.by_close) {
        report_errors([&f = *wait.function] { f(make_error_code(StateErrc::stopped)); });
      }
      ended = Ended();  // what the functions hold dies without the lock as well
      waiters_.wake();
      if (given_executor_ != nullptr) given_executor_->wake_waiters();
    });
  }

  bool wait_until(TimePoint limit, UniqueFunction<bool()> is_done) {
    if (given_executor_ != nullptr) return given_executor_->wait_until(limit, std::move(is_done));
    return waiters_.wait_until(limit, is_done);
  }

  /// True on a thread that a wait would need: inside one of our calls, or on an executor that brings diffs or
  /// runs callbacks.
  [[nodiscard]] bool is_needed_here() const {
    for (const Call* call = calls_; call != nullptr; call = call->next) {
      if (call->thread == std::this_thread::get_id()) return true;
    }
    const auto remote_executor = remote_executor_.lock();
    return (given_executor_ != nullptr && given_executor_->runs_here()) ||
           (own_executor_ != nullptr && own_executor_->runs_here()) ||
           (remote_executor != nullptr && remote_executor->runs_here());
  }

  // --- Calling code of users.

  template <class F>
  void add_callback(Callbacks<F>& callbacks, F callback) {
    auto shared = std::make_shared<F>(std::move(callback));
    const std::lock_guard lock(mutex_);
    // An empty task starts the executor's thread, if it has none yet.
    add_to(callbacks, std::move(shared), [this] { locked_executor().post([] {}); });
  }

  /// With the lock held. `prepare` posts a task: if the executor's thread can't be started, the caller that registers
  /// gets the error, not a remote, and nothing has changed.
  template <class F, class Prepare>
  static void add_to(Callbacks<F>& callbacks, std::shared_ptr<F> callback, Prepare prepare) {
    auto longer = std::make_shared<std::vector<std::shared_ptr<F>>>();
    if (callbacks != nullptr) *longer = *callbacks;
    longer->push_back(std::move(callback));
    prepare();
    callbacks = std::move(longer);
  }

  Executor& locked_executor() {
    if (given_executor_ != nullptr) return *given_executor_;
    if (own_executor_ == nullptr) {
      own_executor_ = std::make_unique<ThreadExecutor>();
      own_executor_seen_.store(own_executor_.get(), std::memory_order_release);
    }
    return *own_executor_;
  }

  /// Runs `f` with the lock released and known to `close()`.
  template <class F>
  void call_out(std::unique_lock<std::mutex>& lock, F f) {
    Call call{std::this_thread::get_id(), calls_};
    calls_ = &call;
    lock.unlock();
    f();
    lock.lock();
    Call** at = &calls_;
    while (*at != &call) at = &(*at)->next;
    *at = call.next;
    idle_.notify_all();
  }

  [[nodiscard]] bool is_calling_here_only() const {
    for (const Call* call = calls_; call != nullptr; call = call->next) {
      if (call->thread != std::this_thread::get_id()) return false;
    }
    return true;
  }

  template <class F>
  void report_errors(F f) {
    contain(options_.on_error, f);
  }

  void post_round() {
    locked_executor().post([weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) self->run_round();
    });
  }

  void run_round() {
    std::unique_lock lock(mutex_);
    if (!round_) return;  // the replica has ended
    std::optional<Round> round = std::move(round_);
    round_.reset();
    call_out(lock, [&] {
      for (const auto& callback : *round->callbacks) {
        if (is_closed()) break;
        report_errors([&] { (*callback)(round->diff, round->before); });
      }
      round.reset();  // lets go of `before`, so that its copy can take the next diff
    });
    has_open_round_ = false;
    if (is_closed_) return;
    Ended ended;
    show_staged(ended);
    end_waits(lock, ended);
  }

  /// Tells the remote's status; but `failed` while the last diff could not be taken, and not `live` before the age of
  /// what is shown is known.
  void publish_status() noexcept {
    catch_all([this] { try_publish_status(); });  // out of memory for a text: the next one is told
  }

  void try_publish_status() {
    LinkStatus next = remote_status_;
    if (refused_) {
      next.state = LinkState::failed;
      next.reason = refused_;
      next.detail.clear();
      next.since = status_.state == LinkState::failed && status_.reason == refused_ ? status_.since : now();
    } else if (next.state == LinkState::live && !shown_head_at_) {
      const bool is_the_same = status_.state == LinkState::connecting;
      next = LinkStatus{LinkState::connecting, is_the_same ? status_.since : now(), {}, {}};
    }
    if (next == status_) return;
    status_ = std::move(next);
    if (status_callbacks_ != nullptr) post_status();
  }

  void post_status() {
    if (has_status_posted_ || is_closed_) return;
    locked_executor().post([weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) self->run_status();
    });
    has_status_posted_ = true;
  }

  void run_status() {
    std::unique_lock lock(mutex_);
    has_status_posted_ = false;
    if (is_closed_ || status_callbacks_ == nullptr) return;
    const LinkStatus status = status_;
    std::vector<std::shared_ptr<StatusListener>> listeners;
    for (const auto& listener : *status_callbacks_) {
      if (listener->told == status) continue;
      listener->told = status;
      listeners.push_back(listener);
    }
    call_out(lock, [&] {
      for (const auto& listener : listeners) {
        if (is_closed()) break;
        report_errors([&] { listener->callback(status); });
      }
      listeners.clear();  // what their functions hold is destroyed without the lock
    });
  }

  /// Runs `f` and makes an error code of what it throws: copies of values may.
  template <class F>
  static std::error_code catch_all(F f) {
    try {
      f();
      return {};
    } catch (const std::system_error& error) {
      return error.code();
    } catch (const std::bad_alloc&) {
      return std::make_error_code(std::errc::not_enough_memory);
    } catch (...) {
      return std::make_error_code(std::errc::state_not_recoverable);
    }
  }

  const std::shared_ptr<const FrozenState<K, V>> frozen_;
  const ReplicaOptions options_;
  const std::weak_ptr<Executor>
      remote_executor_;  // weak: its tasks may hold us. Empty if the remote names none
  const std::shared_ptr<Executor> given_executor_;  // null: `own_executor_`, when it is needed
  Waiters waiters_;                                 // of `wait_for`, where there is no given executor

  mutable std::mutex mutex_;
  std::condition_variable idle_;        // a call into code of users has returned
  std::vector<std::uint64_t> touched_;  // a bit per ordinal: may differ from its initial value
  ViewStore<K, V> store_;               // changed under the lock, read without
  Position accepted_;                   // what is shown, plus what is staged
  LeftEpochs left_epochs_;
  bool is_holding_ = false;        // the last diff was of another epoch, and is not taken
  std::deque<Diff<K, V>> staged_;  // at most one, unless every step counts
  std::size_t staged_bytes_ = 0;
  std::optional<Round> round_;
  bool has_open_round_ = false;  // callbacks are due or run: what comes now is staged
  std::optional<TimePoint> accepted_head_at_;
  std::optional<TimePoint> shown_head_at_;
  PendingWaits pending_;
  Callbacks<UpdateCallback> update_callbacks_;
  Callbacks<StatusListener> status_callbacks_;
  bool has_status_posted_ = false;
  LinkStatus remote_status_;
  LinkStatus status_;
  std::error_code refused_;  // why the last diff was not taken
  Call* calls_ = nullptr;
  bool is_closed_ = false;
  std::shared_ptr<void> kept_;
  const HomeProcess home_ = HomeProcess::here();
  std::atomic<const ThreadExecutor*> own_executor_seen_{nullptr};  // to read the next without the lock
  std::unique_ptr<ThreadExecutor> own_executor_;  // last, so first to end: its tasks hold us weakly
};

}  // namespace syncstate::detail

#endif
