// A replica: follows a map in the background and is read from any thread.
#ifndef SYNCSTATE_REPLICA_HPP
#define SYNCSTATE_REPLICA_HPP

#include <concepts>
#include <memory>
#include <system_error>
#include <type_traits>
#include <utility>

#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/replica/replica_core.hpp"
#include "syncstate/detail/replica/replica_poller.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/error.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/remote.hpp"
#include "syncstate/replica_options.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/status.hpp"
#include "syncstate/types.hpp"
#include "syncstate/view.hpp"

namespace syncstate {

template <class K, class V>
class Replica;

/// Code that a replica runs once for each diff that it has applied, in order, after the state is visible. A
/// diff that changes nothing, as the first word of a master with no news, is none.
///
/// 1. Callable as `callback(diff)` or `callback(diff, before)`; `before` is the view that the diff replaced.
/// 2. `diff` leads from `before` to a newer state, names keys that fell back to their initial value too, is
///    never full, and names no key twice. In another life of the master it begins at 0.
/// 3. Both die when the call returns; a copy of `before` may be kept.
/// 4. May throw: `ReplicaOptions::on_error` is told, and nothing else happens.
///
/// ```cpp
/// replica.on_update([](const auto& diff, const auto& before) {
///   for (auto& [key, value] : diff.changes()) log(key, before.at(key), value);
/// });
/// ```
template <class F, class K, class V>
concept UpdateCallback =
    std::invocable<F&, const Diff<K, V>&, const View<K, V>&> || std::invocable<F&, const Diff<K, V>&>;

/// A call that is due when a position or an update id is reached; see `Replica::on_reached`. Dropping it changes
/// nothing.
///
/// Threads: any.
class PendingCall {
 public:
  PendingCall() = default;

  /// True if the function was not called and now never will be.
  bool cancel() { return cancel_ && cancel_(); }

 private:
  template <class K, class V>
  friend class Replica;
  template <class F>
  explicit PendingCall(F cancel) : cancel_(std::move(cancel)) {}

  detail::UniqueFunction<bool()> cancel_;
};

/// Follows a map in the background, and is read from any thread.
///
/// Shows the state at some update id, never a mixture, and within an epoch never an older one than before. It
/// begins with the state of the map it is made of, and is valid from then on, whether a server can be reached
/// or not.
///
/// A diff is applied on the remote's thread as it comes in; then its callbacks run, on
/// `ReplicaOptions::executor` or the replica's own thread, one at a time. The next diff is applied when they
/// have returned; diffs that come meanwhile are merged, or queued for `every_step`. A remote that can't be
/// followed is polled on that executor.
///
/// Threads : every member from any thread. No lock of ours is held while code of yours runs.
/// Lifetime: keeps its remote alive. Views may outlive it.
/// End     : the destructor ends the subscription and every wait (`stopped`), and waits for a running
///           callback, but not for the network. None starts after it. Inside a callback of its own it does
///           not wait.
/// Fork    : in a child that is forked off, the state that was shown stays readable, and no diff comes any more if the
///           remote or the callbacks have threads: then the destructor returns at once, `status` is `failed` with
///           `stopped`, `age` is `Duration::max()`, and `wait_for`, `on_reached`, `on_update` and `on_status` throw
///           `stopped`.
template <class K, class V>
class Replica {
  using Core = detail::ReplicaCore<K, V>;

 public:
  using key_type = K;
  using mapped_type = V;

  /// Errors    : `unfrozen`; `in_transaction`; `invalid_option` for a master, or for no time between polls.
  /// Complexity: of a map with a `RemoteClient`, or with no remote, O(keys) only for a bit each; else the values are
  ///             copied.
  explicit Replica(StateMap<K, V>&& map, ReplicaOptions options = {})
      : core_(make_core(map, options)), remote_(detail::MapAccess::remote(map)) {
    if (remote_ == nullptr) return;  // stays as it is: reading works all the same
    if (remote_->can_follow()) {
      const StateMap<K, V> followed = std::move(map);
      subscription_ = remote_->follow(followed, core_);
    } else {
      auto poller = std::make_shared<detail::ReplicaPoller<K, V>>(std::move(map), core_, options.poll_every);
      core_->keep(poller);
      poller->start(core_->executor());
    }
  }

  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  ~Replica() {
    if (core_->is_of_other_process()) {
      detail::leave_behind(std::move(core_), std::move(remote_), std::move(subscription_));
      return;
    }
    subscription_.reset();
    core_->close();
  }

  /// What is shown now, one whole state. What it refers to lives as long as the view does: keep it in a variable where
  /// you keep a reference to a value.
  /// Complexity: O(1), waits for nobody: two or three atomic instructions.
  [[nodiscard]] View<K, V> view() const noexcept { return core_->view(); }

  /// The epoch and the update id, of one state.
  [[nodiscard]] Position position() const noexcept { return view().position(); }
  [[nodiscard]] UpdateId update_id() const noexcept { return view().update_id(); }
  /// 0 as long as no master was heard of.
  [[nodiscard]] Epoch epoch() const noexcept { return view().epoch(); }
  [[nodiscard]] const MapHash& hash() const { return core_->frozen().hash(); }

  /// Calls `callback(diff)` or `callback(diff, before)` for every diff applied from now on.
  ///
  /// Diffs applied before are not told. To miss none, register first and read `view()` after that: the callback gets
  /// every diff that the view does not have. It may also get a diff that the view has already; its `upto_update_id()`
  /// is not above the view's.
  /// Errors: `std::system_error` if the thread for it can't be started.
  template <class F>
    requires UpdateCallback<std::decay_t<F>, K, V>
  void on_update(F&& callback) {
    core_->expect_here();
    if constexpr (std::invocable<std::decay_t<F>&, const Diff<K, V>&, const View<K, V>&>) {
      core_->add_update_callback(typename Core::UpdateCallback(std::forward<F>(callback)));
    } else {
      core_->add_update_callback(
          [f = std::forward<F>(callback)](const Diff<K, V>& diff, const View<K, V>&) mutable { f(diff); });
    }
  }

  /// Calls `callback(status)`, where `on_update` callbacks run: once with the current status, and then when the status
  /// changes. A status that was soon replaced may be left out; the last one never is. So the callback misses nothing,
  /// and there is no need to call `status()` as well.
  template <class F>
    requires std::invocable<std::decay_t<F>&, const LinkStatus&>
  void on_status(F&& callback) {
    core_->expect_here();
    core_->add_status_callback(typename Core::StatusCallback(std::forward<F>(callback)));
  }

  /// Waits until the state at `at`, or a newer one of its epoch, is shown. Returns false if that took longer than
  /// `limit`.
  ///
  /// `at` is what `send_event` or `modify` returned: true means that the views taken from now on show that write. A
  /// state of another epoch never counts. If the replica has not heard of the epoch of `at` yet, it waits for the
  /// master of that epoch.
  /// Errors: `epoch_changed` if the replica leaves that epoch, or has left it (the last 16 are remembered), or will
  ///         never be in it, under `EpochPolicy::hold`; `stopped` if the replica ends; `would_deadlock` if the wait
  ///         could never end: in a callback of this replica, and on the executor of its callbacks or of its remote.
  bool wait_for(Position at, Duration limit) { return core_->wait_for(at, limit); }

  /// The same for an update id in the replica's epoch, whichever that is. If the id came from elsewhere, for example
  /// from an answer, and the master was restarted meanwhile, it is of another epoch, and this may return true too
  /// early: then wait for the position.
  bool wait_for(UpdateId id, Duration limit) { return core_->wait_for(id, limit); }

  /// Calls `function(error_code)` exactly once, unless cancelled: without an error when the state at `at`, or a newer
  /// one of its epoch, is shown, at once if it is shown already; otherwise with `epoch_changed` or `stopped`, as
  /// `wait_for`.
  ///
  /// It is called on the thread on which it becomes due, usually the remote's, and must be short.
  template <class F>
    requires std::invocable<std::decay_t<F>&, std::error_code>
  PendingCall on_reached(Position at, F&& function) {
    return add_wait(at, std::forward<F>(function));
  }

  /// The same for an update id of whichever epoch the replica is in.
  template <class F>
    requires std::invocable<std::decay_t<F>&, std::error_code>
  PendingCall on_reached(UpdateId id, F&& function) {
    return add_wait(id, std::forward<F>(function));
  }

  [[nodiscard]] LinkStatus status() const { return core_->status(); }

  /// Returns how long ago the state shown was known to be the master's newest, or newer than that; `Duration::max()` if
  /// it never was.
  ///
  /// A merged diff leads to the newest state. With `every_step`, a step does not: the age counts from the last time
  /// that the server told how far the master is (on each new link, then with each heartbeat), so it may be as long as a
  /// heartbeat while nothing is missing. A user's own remote tells it with `DiffSink::on_current`.
  [[nodiscard]] Duration age() const { return core_->age(); }

 private:
  template <class F>
  PendingCall add_wait(detail::WaitTarget target, F&& function) {
    core_->expect_here();
    auto shared = std::make_shared<typename Core::WaitFunction>(std::forward<F>(function));
    PendingCall call([core = std::weak_ptr<Core>(core_), target, weak = std::weak_ptr(shared)] {
      const auto owner = core.lock();
      const auto waiting = weak.lock();
      return owner != nullptr && waiting != nullptr && owner->remove_wait(target, waiting);
    });
    core_->add_wait(target, std::move(shared));
    return call;
  }

  static std::shared_ptr<Core> make_core(StateMap<K, V>& map, const ReplicaOptions& options) {
    if (!map.is_frozen()) throw StateError(StateErrc::unfrozen);
    if (detail::MapAccess::in_transaction(map)) throw StateError(StateErrc::in_transaction);
    if (detail::MapAccess::role(map) == Role::master) {
      throw StateError(StateErrc::invalid_option, "a master follows nobody: make the Replica of a replica");
    }
    if (options.poll_every <= Duration::zero()) {
      throw StateError(StateErrc::invalid_option, "poll_every must be above zero");
    }
    const auto& remote = detail::MapAccess::remote(map);
    const bool takes_values = remote == nullptr || (remote->can_follow() && !remote->follow_reads_values());
    return std::make_shared<Core>(map, takes_values, options);
  }

  std::shared_ptr<Core> core_;
  std::shared_ptr<detail::AnyRemote<K, V>> remote_;
  Subscription subscription_;
};

/// So that `Replica replica(std::move(map))` knows its types.
template <class K, class V>
Replica(StateMap<K, V>&&) -> Replica<K, V>;
template <class K, class V>
Replica(StateMap<K, V>&&, ReplicaOptions) -> Replica<K, V>;

}  // namespace syncstate

#endif
