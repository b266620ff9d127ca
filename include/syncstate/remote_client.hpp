// What users meet of a remote, whatever its transport: maps, diffs, events, status.
#ifndef SYNCSTATE_REMOTE_CLIENT_HPP
#define SYNCSTATE_REMOTE_CLIENT_HPP

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/detail/leave_behind.hpp"
#include "syncstate/detail/limit_text.hpp"
#include "syncstate/detail/model/key_text.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/remote/diff_assembler.hpp"
#include "syncstate/detail/remote/remote_map.hpp"
#include "syncstate/detail/remote/remote_operation.hpp"
#include "syncstate/detail/remote/why_late.hpp"
#include "syncstate/detail/wire/initial_state_reader.hpp"
#include "syncstate/detail/wire/wire_entries.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/event.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/remote.hpp"
#include "syncstate/remote_core.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/status.hpp"

namespace syncstate {

/// One map that a server hosts, as `hosted` lists it.
using HostedMapInfo = protocol::HostedMapInfo;

namespace detail {

/// Reads the initial state of another map with the same keys, to say what makes the hashes differ.
template <class K, class V>
class StateComparer final : public StateCollector {
 public:
  StateComparer(std::shared_ptr<const FrozenState<K, V>> ours, const MapHash& theirs, const Limits& limits,
                std::function<void(std::string)> describe)
      : ours_(std::move(ours)), theirs_(theirs), reader_(limits), describe_(std::move(describe)) {}

  void feed(ByteView bytes) override { reader_.feed(bytes); }

  void finish() override {
    const auto theirs = reader_.finish(theirs_);
    for (std::uint32_t i = 0; i < ours_->size() && i < theirs->size(); ++i) {
      Bytes a;
      Bytes b;
      encode_whole(ours_->initial(i), a);
      encode_whole(theirs->initial(i), b);
      if (a == b) continue;
      describe_("the first key whose initial value differs is " + key_text(ours_->key(i)));
      return;
    }
  }

  void drop() override { reader_.drop(); }
  [[nodiscard]] std::size_t held_bytes() const override { return reader_.held_bytes(); }

 private:
  std::shared_ptr<const FrozenState<K, V>> ours_;
  MapHash theirs_;
  InitialStateReader<K, V> reader_;
  std::function<void(std::string)> describe_;
};

/// Reads the initial state of a map that is known by its hash alone.
template <class K, class V>
class StateFetcher final : public StateCollector {
 public:
  StateFetcher(const MapHash& hash, const Limits& limits) : hash_(hash), reader_(limits) {}

  void feed(ByteView bytes) override {
    reader_.feed(bytes);
    received_bytes_ += bytes.size();
  }
  void finish() override { frozen_ = reader_.finish(hash_); }
  void drop() override {
    reader_.drop();
    received_bytes_ = 0;
  }
  [[nodiscard]] std::size_t held_bytes() const override { return reader_.held_bytes(); }
  [[nodiscard]] const std::shared_ptr<const FrozenState<K, V>>& frozen() const { return frozen_; }
  /// Returns how many bytes of the state have come over the current link. Threads: any.
  [[nodiscard]] std::size_t received_bytes() const { return received_bytes_; }

 private:
  MapHash hash_;
  InitialStateReader<K, V> reader_;
  std::atomic<std::size_t> received_bytes_{0};
  std::shared_ptr<const FrozenState<K, V>> frozen_;
};

}  // namespace detail

/// The remote at the heart of every transport: one long-lived link, shared by all maps that use it.
///
/// It reconnects by itself, opens each map anew as `freeze` did and resumes it from its position.
///
/// Threads : any member from any thread; blocking ones throw `would_deadlock` on the remote's own thread,
///           where status callbacks run.
/// Lifetime: held by `std::shared_ptr`, by every map and replica that uses it too.
/// Fork    : in a child that was forked off after the remote was started, its members throw `stopped`; see the
///           transport.
class RemoteClient : public std::enable_shared_from_this<RemoteClient> {
 public:
  RemoteClient(const RemoteClient&) = delete;
  RemoteClient& operator=(const RemoteClient&) = delete;

  /// Starts the remote's own thread, if it has one, and begins to connect; may be called again. Every use of the remote
  /// does the same, except `set_password` (and `reload_tls` of a transport).
  /// Errors: `std::system_error` if the thread can't be started.
  void start() { begin(); }

  /// Makes the map known to the server, and waits until it is hosted. Called by `StateMap::freeze`.
  /// Errors: `unavailable` when `timeout` passes (the remote goes on trying), and whatever the server or TLS
  ///         refuses the map with: `unauthorized`, `type_mismatch`, `hash_mismatch`, `init_failed`, ...
  template <class K, class V>
  void init(const StateMap<K, V>& map, Duration timeout) {
    refuse_own_thread();
    const auto done = detail::Operation::create();
    core_->open(identify(detail::MapAccess::frozen(map)), done);
    await(done, timeout, [&] { return detail::why_late(core_->status(), "the timeout given", timeout); });
  }

  /// The diff from the map's position to `upto`, or to the head. Called by `sync` and `set_update_id`.
  /// Errors: `unavailable`, and as `init`.
  template <class K, class V>
  [[nodiscard]] Diff<K, V> fetch_updates(const StateMap<K, V>& map, UpdateId upto) {
    refuse_own_thread();
    const auto& frozen = detail::MapAccess::frozen(map);
    const auto done = detail::Operation::create();
    const auto catcher =
        std::make_shared<detail::DiffCatcher<K, V>>(frozen, Position{map.epoch(), map.update_id()});
    core_->fetch_diff(identify(frozen), upto, catcher, done);
    await_request(done);
    return std::move(*catcher->diff());
  }

  /// Where the head of the map is: the master's epoch, and how many commits it has made.
  /// Errors: `unavailable`, and as `init`.
  template <class K, class V>
  [[nodiscard]] Position head(const StateMap<K, V>& map) {
    refuse_own_thread();
    const auto done = detail::Operation::create();
    const auto head = std::make_shared<Position>();
    core_->fetch_head(identify(detail::MapAccess::frozen(map)), head, done);
    await_request(done);
    return *head;
  }

  /// `follow` wants to know which map, not what its values are.
  static constexpr bool follow_reads_values = false;

  /// Follows the map in the background. Called by `Replica`.
  template <class K, class V>
  [[nodiscard]] Subscription follow(const StateMap<K, V>& map,
                                    std::type_identity_t<std::shared_ptr<DiffSink<K, V>>> sink) {
    begin();
    const auto& frozen = detail::MapAccess::frozen(map);
    const auto receiver = std::make_shared<detail::SinkReceiver<K, V>>(frozen, std::move(sink));
    core_->follow(identify(frozen), receiver);
    return Subscription([core = core_, receiver] {
      if (core->executor().is_of_other_process()) return;  // the remote has left both behind
      receiver->end();
      core->unfollow(receiver);
    });
  }

  /// A replica of a map that is known by its hash alone, at its initial state, which the server sends.
  /// Errors: `not_hosted`, `type_mismatch`, `unavailable`, and as `init`.
  template <class K, class V>
  [[nodiscard]] StateMap<K, V> attach(const MapHash& hash) {
    refuse_own_thread();
    const auto done = detail::Operation::create();
    const auto fetcher = std::make_shared<detail::StateFetcher<K, V>>(hash, core_->options().limits);
    core_->fetch_state(hash, type_name<K>(), type_name<V>(), fetcher, done);
    await_request(done, [&] {
      return "; " + std::to_string(fetcher->received_bytes()) + " bytes of the initial state have come";
    });
    auto map = detail::MapAccess::make_map<K, V>(Role::replica, fetcher->frozen(),
                                                 detail::make_any_remote<K, V>(shared_from_this()));
    init(map, core_->options().request_timeout);
    return map;
  }

  /// The maps that the server hosts.
  /// Errors: `unavailable`, and as `init`.
  [[nodiscard]] std::vector<HostedMapInfo> hosted() {
    refuse_own_thread();
    const auto done = detail::Operation::create();
    const auto maps = std::make_shared<std::vector<HostedMapInfo>>();
    core_->list(maps, done);
    await_request(done);
    return std::move(*maps);
  }

  /// Sends an event to the master of the map and waits for its answer: the position that it committed as.
  ///
  /// Events of one thread run in the order sent. When the call returns, a replica may not show the effect yet; it does
  /// after `replica.wait_for(position, limit)`.
  /// Errors: `hook_failed` with the text of what the hook threw, or the code and detail of a `StateError` that it threw
  ///         (see `Hook`); `too_large`, `type_mismatch`, `busy` if the server has no room, `not_hosted` for a map that
  ///         this remote has neither frozen nor attached; `would_deadlock` on the remote's own thread, and in a hook
  ///         (or init hook, or `modify`) if the event could run only after that hook; `stopped`. While the server
  ///         refuses this client: `unauthorized`, `forbidden`, `certificate_rejected`.
  ///         `unavailable`: no link came in time. After all of these it has certainly not run, or its hook took it
  ///         back.
  ///         `outcome_unknown`: no answer came, it may have run.
  template <class E>
  Position send_event(const MapHash& hash, const Event<E>& event) {
    return send_event(hash, serialize_event(event));
  }
  Position send_event(const MapHash& hash, const SerializedEvent& event) {
    refuse_own_thread();
    const auto done = std::make_shared<detail::EventCall>(event);
    done->wait_on_this_thread();
    start_event(hash, event.bytes.size(), done);
    // The core ends it at its deadline; a little later nobody is there to do so.
    return await(done, core_->options().event_timeout + std::chrono::seconds(1), [&] {
      return detail::why_late(core_->status(), "event_timeout", core_->options().event_timeout);
    });
  }

  /// Proves this password from the next connection on; a link that is live goes on. Unless one is live, the remote
  /// connects at once, also where it waits after `unauthorized`. The former password is wiped.
  void set_password(std::string password) {
    expect_here();
    core_->set_password(std::move(password));
    protocol::wipe(password);
  }

  /// Ends the remote for good, also while other threads wait in blocking calls: these throw `stopped`, and so do later
  /// ones. An event that was sent and has no answer ends with `outcome_unknown`, because it may have run. Maps and
  /// replicas keep what they show; the status of the remote and its replicas is `failed`, with `stopped` as reason. May
  /// be called again. Never waits for the network.
  void stop() {
    expect_here();
    core_->stop();
  }

  /// How the link is doing.
  [[nodiscard]] LinkStatus status() const {
    if (is_of_other_process()) return forked_status();
    begin();
    return core_->status();
  }

  /// Calls `f(status)` on the remote's own thread: once with the current status, and then whenever the status changes.
  /// So `f` misses nothing, and there is no need to call `status()` as well. It must not block.
  ///
  /// After the remote has stopped, no callback is called, not even a new one.
  template <std::invocable<const LinkStatus&> F>
  void on_status(F f) {
    begin();
    core_->on_status(std::move(f));
  }

  /// Where the remote works and calls back.
  [[nodiscard]] std::shared_ptr<Executor> executor() const {
    begin();
    return core_->shared_executor();
  }

 protected:
  explicit RemoteClient(std::shared_ptr<detail::RemoteCore> core) : core_(std::move(core)) {}
  virtual ~RemoteClient() = default;

  /// Starts the remote's own thread, if it has one. Called once, before the core starts.
  virtual void start_thread() const {}

  /// Makes the remote connect; part of every use.
  /// Errors: as `start`; `stopped` in a child that was forked off after that.
  void begin() const {
    expect_here();
    if (is_begun_.load(std::memory_order_acquire)) return;
    std::call_once(begun_, [this] {
      start_thread();
      core_->start();
      is_begun_.store(true, std::memory_order_release);
    });
  }

  /// Errors: `stopped` in a child that was forked off after the remote was started.
  void expect_here() const {
    if (is_of_other_process()) throw StateError(StateErrc::stopped, detail::forked_text("this remote"));
  }

  /// Leaves the core behind. For the destructor in such a child.
  void leave_core_behind() {
    auto core = core_;
    detail::leave_behind(std::move(core));
  }

  [[nodiscard]] detail::RemoteCore& core() const { return *core_; }

  [[nodiscard]] std::weak_ptr<detail::RemoteCore> weak_core() const { return core_; }

  /// Hands an event to the core; `call` hears how it ended.
  /// Errors: `too_large`.
  void start_event(const MapHash& hash, std::size_t bytes, std::shared_ptr<detail::EventCall> call) {
    begin();
    if (bytes > core_->options().limits.event_bytes) {
      throw StateError(StateErrc::too_large,
                       detail::beyond_limit(detail::of_bytes("an event", bytes), "event_bytes",
                                            core_->options().limits.event_bytes));
    }
    core_->send_event(hash, std::move(call));
  }

 private:
  [[nodiscard]] bool is_of_other_process() const { return core_->executor().is_of_other_process(); }

  static LinkStatus forked_status() {
    LinkStatus status;
    status.state = LinkState::failed;
    status.reason = make_error_code(StateErrc::stopped);
    status.detail = detail::forked_text("this remote");
    return status;
  }

  /// Begins a blocking call.
  void refuse_own_thread() const {
    begin();
    if (core_->executor().runs_here()) {
      throw StateError(StateErrc::would_deadlock, "a blocking call on the remote's own thread");
    }
  }

  /// `why_late()` gives the text of the error if it does not end within `limit`.
  template <class F>
  Position await(const std::shared_ptr<detail::Operation>& done, Duration limit, F&& why_late) {
    Executor& executor = core_->executor();
    const bool has_ended = executor.wait_until(executor.now() + limit, [&] { return done->is_finished(); });
    if (!has_ended) done->give_up(why_late());
    return done->result();
  }

  /// `progress()` tells what has come of the answer.
  template <class F>
  UpdateId await_request(const std::shared_ptr<detail::Operation>& done, F&& progress) {
    const auto limit = core_->options().request_timeout;
    return await(done, limit, [&] {
      const LinkStatus now = core_->status();
      const std::string why = detail::why_late(now, "request_timeout", limit);
      return now.state == LinkState::live ? why + progress() : why;
    });
  }
  UpdateId await_request(const std::shared_ptr<detail::Operation>& done) {
    return await_request(done, [] { return std::string(); });
  }

  template <class K, class V>
  detail::MapIdentity identify(const std::shared_ptr<const detail::FrozenState<K, V>>& frozen) const {
    detail::MapIdentity identity;
    identity.hash = frozen->hash();
    identity.keys_hash = frozen->keys_hash();
    identity.key_type = type_name<K>();
    identity.value_type = type_name<V>();
    const std::weak_ptr<const detail::FrozenState<K, V>> weak = frozen;
    identity.initial = [weak]() -> std::shared_ptr<const protocol::InitialSource> {
      const auto alive = weak.lock();
      return alive ? std::make_shared<detail::FrozenSource<K, V>>(alive) : nullptr;
    };
    identity.comparer =
        [weak, limits = core_->options().limits](
            const MapHash& other,
            std::function<void(std::string)> describe) -> std::unique_ptr<detail::StateCollector> {
      const auto alive = weak.lock();
      if (!alive) return nullptr;
      return std::make_unique<detail::StateComparer<K, V>>(alive, other, limits, std::move(describe));
    };
    return identity;
  }

  std::shared_ptr<detail::RemoteCore> core_;
  mutable std::once_flag begun_;
  mutable std::atomic<bool> is_begun_{false};
};

}  // namespace syncstate

#endif
