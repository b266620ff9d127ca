// Where a map gets its diffs from and sends its events to: what a remote must offer, and what it may.
#ifndef SYNCSTATE_REMOTE_HPP
#define SYNCSTATE_REMOTE_HPP

#include <concepts>
#include <memory>
#include <system_error>
#include <type_traits>
#include <utility>

#include "syncstate/diff.hpp"
#include "syncstate/error.hpp"
#include "syncstate/event.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/status.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

/// Where a map gets its diffs from. Users write these for what is no byte stream: a database, a file, a test.
///
/// 1. `remote.init(map)`, or `remote.init(map, timeout)` with a `Duration`: called by `freeze`; returns when
///    the map is known at the other end, throws `StateError` (`unavailable`, ...) if it can't be.
/// 2. `remote.fetch_updates(map, upto)` gives a `Diff<K, V>` from the map's own position to `upto`, or to the
///    head if that is lower or `upto` is not kept apart; an empty one if there is no news. It never waits for
///    commits that do not exist. Throws `StateError`, `unavailable` if the other end can't be reached.
/// 3. Optional: `remote.follow(map, sink)` gives a `Subscription`; until that ends, every new diff goes to
///    the sink, a `std::shared_ptr<DiffSink<K, V>>`, from `sink->position()` on. Without it a `Replica` polls
///    `fetch_updates`. With `static constexpr bool follow_reads_values = false;` it is given a map without
///    values: the `Replica` has taken them, where it would have copied them.
/// 4. Optional: `remote.executor()` gives the `std::shared_ptr<Executor>` its sinks are called on.
///
/// ```cpp
/// struct FileRemote {
///   void init(const Map& map) { read(path); }
///   ss::Diff<std::string, int> fetch_updates(const Map& map, ss::UpdateId) {
///     ss::Diff<std::string, int> diff(map, 1, 0, ++reads, true);
///     for (auto& [key, value] : read(path)) diff.set(key, value);
///     return diff;
///   }
/// };
/// ```
template <class R, class K, class V>
concept Remote =
    requires(R& remote, const StateMap<K, V>& map, UpdateId upto) {
      { remote.fetch_updates(map, upto) } -> std::convertible_to<Diff<K, V>>;
    } &&
    (
        requires(R& remote, const StateMap<K, V>& map) { remote.init(map); } ||
        requires(R& remote, const StateMap<K, V>& map, Duration timeout) { remote.init(map, timeout); });

/// Where events go to.
///
/// 1. `remote.send_event(hash, event)` with a `const SerializedEvent&` returns the update id the event
///    committed as, or the head if it set nothing; throws `StateError` (`unavailable`: certainly not run;
///    `outcome_unknown`: it may have run; `hook_failed`, ...).
///
/// ```cpp
/// struct LoggingBroadcaster {
///   ss::UpdateId send_event(const ss::MapHash& map, const ss::SerializedEvent& event) { ... }
/// };
/// ```
template <class R>
concept EventBroadcaster = requires(R& remote, const MapHash& map, const SerializedEvent& event) {
  { remote.send_event(map, event) } -> std::convertible_to<UpdateId>;
};

/// Who follows a map: a remote calls it with everything that is new. Implemented by `Replica`.
///
/// Threads: called on one executor at a time, the remote's.
template <class K, class V>
class DiffSink {
 public:
  DiffSink() = default;
  DiffSink(const DiffSink&) = delete;
  DiffSink& operator=(const DiffSink&) = delete;
  virtual ~DiffSink() = default;

  /// Takes a diff. An error says that it was not taken: the subscription pauses until the next reconnect.
  ///
  /// Without `every_step()` the diff counts as one to the head of now. With it, it does not: only `on_current` sets the
  /// age then, and a replica is `live` only once its age is known.
  virtual std::error_code on_diff(Diff<K, V> diff) = 0;
  /// Takes the news that what was accepted last was the head as of `when`, or is newer. Call it at least where a
  /// subscription begins at the head, and with `every_step()` after the diff that leads to the head.
  virtual void on_current(TimePoint when) = 0;
  /// Takes how the link is doing.
  virtual void on_status(const LinkStatus& status) = 0;
  /// What was accepted so far; the next diff starts there, or before.
  [[nodiscard]] virtual Position position() const = 0;
  /// True if diffs must not be merged as long as the master's log reaches.
  [[nodiscard]] virtual bool every_step() const = 0;
  [[nodiscard]] virtual EpochPolicy epoch_policy() const = 0;
};

/// Keeps a sink following; its end ends that, without waiting: after it no call to the sink starts, but one that the
/// remote is just making on its own thread may still run.
class [[nodiscard]] Subscription {
 public:
  /// Follows nothing.
  Subscription() = default;
  /// Ends when the last owner of `guard` goes.
  explicit Subscription(std::shared_ptr<void> guard) : guard_(std::move(guard)) {}
  /// Ends with a call of `end`.
  template <std::invocable F>
  explicit Subscription(F end) : guard_(std::make_shared<CallAtEnd<F>>(std::move(end))) {}

  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;
  Subscription(Subscription&&) = default;
  Subscription& operator=(Subscription&&) = default;

  /// Ends it now.
  void reset() { guard_.reset(); }
  [[nodiscard]] explicit operator bool() const { return guard_ != nullptr; }

 private:
  template <class F>
  struct CallAtEnd {
    explicit CallAtEnd(F f) : end(std::move(f)) {}
    CallAtEnd(const CallAtEnd&) = delete;
    CallAtEnd& operator=(const CallAtEnd&) = delete;
    ~CallAtEnd() { end(); }
    F end;
  };

  std::shared_ptr<void> guard_;
};

namespace detail {

/// Any remote of a map, behind one interface.
template <class K, class V>
class AnyRemote {
 public:
  AnyRemote() = default;
  AnyRemote(const AnyRemote&) = delete;
  AnyRemote& operator=(const AnyRemote&) = delete;
  virtual ~AnyRemote() = default;

  virtual void init(const StateMap<K, V>& map, Duration timeout) = 0;
  [[nodiscard]] virtual Diff<K, V> fetch_updates(const StateMap<K, V>& map, UpdateId upto) = 0;
  /// False if it must be polled; `follow` gives an empty subscription then.
  [[nodiscard]] virtual bool can_follow() const = 0;
  /// False if `follow` can do with a map that has no values any more.
  [[nodiscard]] virtual bool follow_reads_values() const = 0;
  virtual Subscription follow(const StateMap<K, V>& map, std::shared_ptr<DiffSink<K, V>> sink) = 0;
  /// Null if it offers none.
  [[nodiscard]] virtual std::shared_ptr<Executor> executor() = 0;
};

template <class K, class V, class R>
class RemoteAdapter final : public AnyRemote<K, V> {
 public:
  explicit RemoteAdapter(std::shared_ptr<R> remote) : remote_(std::move(remote)) {}

  void init(const StateMap<K, V>& map, Duration timeout) override {
    if constexpr (requires { remote_->init(map, timeout); }) {
      remote_->init(map, timeout);
    } else {
      remote_->init(map);
    }
  }

  Diff<K, V> fetch_updates(const StateMap<K, V>& map, UpdateId upto) override {
    return remote_->fetch_updates(map, upto);
  }

  bool can_follow() const override { return follows; }

  bool follow_reads_values() const override {
    if constexpr (requires { R::follow_reads_values; }) {
      return R::follow_reads_values;
    } else {
      return true;
    }
  }

  Subscription follow(const StateMap<K, V>& map, std::shared_ptr<DiffSink<K, V>> sink) override {
    if constexpr (follows) {
      return remote_->follow(map, std::move(sink));
    } else {
      (void)map;
      (void)sink;
      return Subscription();
    }
  }

  std::shared_ptr<Executor> executor() override {
    if constexpr (requires { std::shared_ptr<Executor>(remote_->executor()); }) {
      return remote_->executor();
    } else {
      return nullptr;
    }
  }

 private:
  static constexpr bool follows =
      requires(R& remote, const StateMap<K, V>& map, std::shared_ptr<DiffSink<K, V>> sink) {
        { remote.follow(map, std::move(sink)) } -> std::convertible_to<Subscription>;
      };

  std::shared_ptr<R> remote_;
};

/// Errors: `invalid_option` for a null pointer.
template <class K, class V, class R>
  requires Remote<R, K, V>
[[nodiscard]] std::shared_ptr<AnyRemote<K, V>> make_any_remote(std::shared_ptr<R> remote) {
  if (remote == nullptr) throw StateError(StateErrc::invalid_option, "the remote of a map is null");
  return std::make_shared<RemoteAdapter<K, V, R>>(std::move(remote));
}

}  // namespace detail
}  // namespace syncstate

#endif
