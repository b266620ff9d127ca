// The server without any transport: hosts maps by hash, runs hooks, serves links.
#ifndef SYNCSTATE_SERVER_CORE_HPP
#define SYNCSTATE_SERVER_CORE_HPP

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "syncstate/authorizer.hpp"
#include "syncstate/codec.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/server/byte_share.hpp"
#include "syncstate/detail/server/hosted_slot.hpp"
#include "syncstate/detail/server/link_table.hpp"
#include "syncstate/detail/server/server_link.hpp"
#include "syncstate/detail/server/waiting_list.hpp"
#include "syncstate/detail/wire/initial_state_reader.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/event.hpp"
#include "syncstate/executor_pool.hpp"
#include "syncstate/hook.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/link.hpp"
#include "syncstate/master_handle.hpp"
#include "syncstate/protocol/server_session.hpp"
#include "syncstate/state_map.hpp"

namespace syncstate {

/// What a server core is made with.
struct ServerCoreOptions {
  /// Several at once while one is being replaced; see `set_passwords`.
  std::vector<std::string> passwords{};
  /// Former passwords, which let nobody in; see `set_passwords`.
  std::vector<std::string> retired_passwords{};
  /// An empty password is refused by `start` unless the transport knows its peers by certificate.
  bool allow_empty_password = false;
  /// Whether clients may bring maps; if not, only maps given to `host` are served.
  bool allow_uploads = true;
  /// Runs hooks where their events come in, on the lane's executor, as long as nobody else changes the map; see
  /// `tcp::ServerOptions`.
  bool hooks_on_io_threads = false;
  /// See `tcp::ServerOptions`. Above 0, at most 1.
  double fan_out_share = 0.25;
  /// How maps that clients bring are kept.
  MapOptions map_options{};
  Limits limits{};
  /// Who may do what; without one, everybody who knows a password may do everything.
  Authorizer authorizer = nullptr;
  /// Told what hooks, init hooks, codecs and the authorizer throw.
  ErrorHandler on_error = nullptr;
};

/// Hosts maps of one kind by their hash and serves any number of links, over any transports at once.
///
/// Hooks run on executors of the pool, serially for each map; sessions run on the lanes, one executor each.
/// The core has no thread, socket or clock of its own.
///
/// Threads : every member from any thread.
/// Lifetime: made by `create`; links hold it until they are closed.
/// End     : `stop` ends sessions and hooks; maps answer `stopped` from then on.
template <class K, class V, class E>
class ServerCore final : public detail::ServerHost, public std::enable_shared_from_this<ServerCore<K, V, E>> {
 public:
  using Map = StateMap<K, V>;
  using Slot = detail::HostedSlot<K, V, E>;

  [[nodiscard]] static std::shared_ptr<ServerCore> create(ServerCoreOptions options,
                                                          std::shared_ptr<ExecutorPool> hooks) {
    return std::shared_ptr<ServerCore>(new ServerCore(std::move(options), std::move(hooks)));
  }

  /// Adds a hook; hooks run in the order added.
  /// Errors: `already_started`.
  template <Hook<K, V, E> H>
  void add_hook(H hook) {
    const std::lock_guard lock(mutex_);
    if (is_started_) throw StateError(StateErrc::already_started, "add hooks before start()");
    if constexpr (std::invocable<H&, Map&, const Event<E>&, const EventContext&>) {
      hooks_->push_back(std::move(hook));
    } else {
      hooks_->push_back([hook = std::move(hook)](Map& map, const Event<E>& event,
                                                 const EventContext&) mutable { hook(map, event); });
    }
  }

  /// Adds code to run once for each map that comes to live here, before anyone can see it.
  /// Errors: `already_started`, also once a map is hosted: it would have missed this hook.
  template <InitHook<K, V> H>
  void add_init_hook(H hook) {
    const std::lock_guard lock(mutex_);
    if (is_started_ || !entries_.empty()) {
      throw StateError(StateErrc::already_started, "add init hooks before start() and before host()");
    }
    init_hooks_->push_back(std::move(hook));
  }

  /// Hosts a map of this process; a replica becomes a master with a fresh epoch.
  /// Errors: `unfrozen`, `already_hosted`, `init_failed`, `too_large`, `busy` beyond `Limits::maps`,
  /// `stopped`.
  MasterHandle<K, V> host(Map map) {
    if (!map.is_frozen()) throw StateError(StateErrc::unfrozen);
    detail::MapAccess::become_master(map);
    for (const auto& [key, value] : map) {
      if (whole_size(value) > options_.limits.value_bytes) {
        throw StateError(StateErrc::too_large, "an initial value beyond Limits::value_bytes");
      }
    }
    const MapHash hash = map.hash();
    {
      const std::lock_guard lock(mutex_);
      if (is_stopped_) throw StateError(StateErrc::stopped);
      if (entries_.contains(hash)) throw StateError(StateErrc::already_hosted, hash.hex());
      if (entries_.size() >= options_.limits.maps)
        throw StateError(StateErrc::busy, "no more maps: Limits::maps");
      entries_[hash];
    }
    std::shared_ptr<Slot> slot;
    try {
      std::exception_ptr error;
      slot = make_slot(std::move(map), pool_->make_serial());
      slot->serial().run_blocking([&] {
        try {
          slot->initialise(*init_hooks_);
        } catch (...) {
          error = std::current_exception();
        }
      });
      if (error) std::rethrow_exception(error);
    } catch (...) {
      fail_entry(hash, describe(StateErrc::init_failed));
      throw;
    }
    publish(hash, slot);
    return MasterHandle<K, V>(slot);
  }

  /// Lets links in.
  /// Errors: `invalid_option` for an empty password where that is not allowed; `already_started`; `stopped`.
  void start() {
    const std::lock_guard lock(mutex_);
    if (is_stopped_) throw StateError(StateErrc::stopped);
    if (is_started_) throw StateError(StateErrc::already_started);
    expect_usable(*passwords_);
    is_started_ = true;
  }

  /// Takes the passwords `current` from now on, and no others; links that proved themselves go on until `disconnect`.
  ///
  /// To replace one without a gap: set both as current, give every client the new one, then set the new one alone as
  /// current and the old one as retired. A proof of a retired password is `unauthorized` too, but is not held against its
  /// address: so a client that was forgotten does not keep out other clients of its address.
  /// Errors    : `invalid_option` if `current` is empty, or holds an empty password where that is not allowed; nothing
  ///             has changed then.
  /// Complexity: each proof is tried with each password of both lists, one HMAC-SHA-256 each.
  void set_passwords(std::vector<std::string> current, std::vector<std::string> retired = {}) {
    auto taken = protocol::keep_passwords(std::move(current), std::move(retired));
    const std::lock_guard lock(mutex_);
    expect_usable(*taken);
    passwords_ = std::move(taken);
  }

  /// Ends every session with `stopped`, and lets no hook start any more; waits for those that run.
  void stop() {
    std::vector<std::shared_ptr<detail::Lane>> lanes;
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(is_stopped_, true)) return;
      lanes = entry_lanes_;
      lanes.insert(lanes.end(), lanes_.begin(), lanes_.end());
      for (auto& [hash, entry] : entries_) {
        if (entry.slot) entry.slot->stop();
      }
    }
    for (const auto& lane : lanes) {
      lane->executor().post([lane] {
        const auto links = lane->links();
        for (const auto& link : links) link->end(StateErrc::stopped, "the server stops");
      });
    }
    pool_->stop();
  }

  /// A lane for the links of one executor; a transport makes one for each of its I/O executors.
  [[nodiscard]] std::shared_ptr<detail::Lane> add_lane(std::shared_ptr<Executor> executor) {
    auto lane = std::make_shared<detail::Lane>(std::move(executor), options_.fan_out_share);
    const std::lock_guard lock(mutex_);
    lanes_.push_back(lane);
    return lane;
  }

  /// A lane for links whose clients have not proven themselves yet. Commits do not wake it.
  [[nodiscard]] std::shared_ptr<detail::Lane> add_entry_lane(std::shared_ptr<Executor> executor) {
    auto lane = std::make_shared<detail::Lane>(std::move(executor));
    const std::lock_guard lock(mutex_);
    entry_lanes_.push_back(lane);
    return lane;
  }

  /// Takes a connection that was just accepted; call on the lane's executor.
  ///
  /// `address` is what limits count by: one string for whoever is to share them. `make_link()` gives the
  /// `std::shared_ptr<Link>`, and is called only if there is room for it: a connection that there is none for costs
  /// nothing more. With a `next_lane`, the link moves there, by `Link::move_on`, as soon as its client has proven itself.
  /// Returns who is to hear of the link, or null.
  /// Errors: what `make_link` throws.
  template <std::invocable MakeLink>
  [[nodiscard]] std::shared_ptr<LinkOwner> accept(const std::shared_ptr<detail::Lane>& lane,
                                                  const std::string& address, MakeLink&& make_link,
                                                  std::shared_ptr<detail::Lane> next_lane = nullptr) {
    const std::uint64_t id = next_link_++;
    const TimePoint now = lane->executor().now();
    {
      const std::lock_guard lock(mutex_);
      if (!is_started_ || is_stopped_) return nullptr;
    }
    const auto admission = table_.admit(id, address, now);
    if (admission.evicted) evict(*admission.evicted);
    if (!admission.is_admitted) return nullptr;
    try {
      auto owner = std::make_shared<detail::ServerLink>(this->shared_from_this(), lane, make_link(), id,
                                                        address, std::move(next_lane));
      lane->add(owner);
      const std::lock_guard lock(mutex_);
      pending_[id] = owner;
      return owner;
    } catch (...) {
      table_.closed(id, address, now);
      throw;
    }
  }

  /// The bytes that all links hold together beyond `Limits::own_link_bytes` of each.
  [[nodiscard]] std::size_t link_bytes() const { return account_->bytes(); }

  /// How many links there are now.
  [[nodiscard]] std::size_t link_count() const { return table_.total(); }

  // detail::ServerHost

  [[nodiscard]] const Limits& limits() const override { return options_.limits; }
  [[nodiscard]] const std::shared_ptr<protocol::ServerAccount>& account() const override { return account_; }
  [[nodiscard]] std::shared_ptr<const protocol::Passwords> passwords() const override {
    const std::lock_guard lock(mutex_);
    return passwords_;
  }
  [[nodiscard]] const ErrorHandler& on_error() const override { return options_.on_error; }
  [[nodiscard]] bool is_allowed(const Peer& peer, Action action, const MapHash& map) const override {
    bool is_allowed = true;
    if (options_.authorizer) {
      detail::contain(options_.on_error, [&] {
        is_allowed = false;
        is_allowed = options_.authorizer(peer, action, map);
      });
    }
    return is_allowed;
  }
  [[nodiscard]] bool is_barred(const std::string& address, TimePoint now) override {
    return table_.is_barred(address, now);
  }
  [[nodiscard]] bool proof_checked(std::uint64_t link, const std::string& address,
                                   protocol::ProofStanding standing, TimePoint now) override {
    return table_.proof_checked(link, address, standing, now);
  }
  void authenticated(std::uint64_t link) override {
    table_.authenticated(link);
    const std::lock_guard lock(mutex_);
    pending_.erase(link);
  }
  [[nodiscard]] bool is_stopped() const override {
    const std::lock_guard lock(mutex_);
    return is_stopped_;
  }
  void closed(std::uint64_t link, const std::string& address, TimePoint now) override {
    table_.closed(link, address, now);
    const std::lock_guard lock(mutex_);
    pending_.erase(link);
  }

  void open_asked(const std::shared_ptr<detail::ServerLink>& link, protocol::Open open) override {
    if (!types_agree(open.key_type, open.value_type)) {
      return link->refuse(open.channel, StateErrc::type_mismatch,
                          describe_types(open.key_type, open.value_type));
    }
    const bool may_init = is_allowed(link->peer(), Action::init, open.hash);
    if (!may_open(link->peer(), open, may_init)) return link->refuse(open.channel, StateErrc::forbidden, {});
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(open.hash);
    if (found != entries_.end()) {
      if (const auto slot = found->second.slot) {
        lock.unlock();
        return link->opened(open.channel, slot, open.sender);
      }
      // Somebody else's upload of this very map is under way: one at a time, the others wait for it.
      waiting_[{link->id(), open.channel}] = open.hash;
      found->second.waiters.add(Waiter{link, link->id(), open.channel, open.sender, may_init});
      return;
    }
    if (!options_.allow_uploads) {
      const std::vector<MapHash> alike = hosted_with_keys(open.keys_hash);
      lock.unlock();
      return refuse_upload(*link, open, alike);
    }
    if (!may_init) {
      lock.unlock();
      return link->refuse(open.channel, StateErrc::forbidden, "this map is not hosted yet");
    }
    if (entries_.size() >= options_.limits.maps) {
      lock.unlock();
      return link->refuse(open.channel, StateErrc::busy, "this server hosts as many maps as it may");
    }
    entries_[open.hash];
    start_upload(open.hash, Waiter{link, link->id(), open.channel, open.sender, may_init});
    lock.unlock();
    link->want_upload(open.channel);
  }

  void upload_came(detail::ServerLink& link, protocol::ChannelId channel, ByteView bytes) override {
    const auto upload = find_upload(link.id(), channel);
    if (!upload) return;
    // What was decoded takes other room than its bytes: small values more, JSON many times as much.
    const std::size_t memory_before = upload->reader.memory();
    bool has_room = upload->share.take(bytes.size(), options_.limits.all_map_bytes);
    if (has_room) {
      upload->reader.feed(bytes);
      const std::size_t memory = upload->reader.memory() - memory_before;
      has_room = upload->share.take(memory, options_.limits.all_map_bytes);
    }
    if (has_room) return;
    link.refuse(channel, StateErrc::busy, "all maps together are as large as they may be");
    channel_closed(link, channel);
  }

  void upload_ended(const std::shared_ptr<detail::ServerLink>& link, protocol::ChannelId channel) override {
    const auto upload = find_upload(link->id(), channel);
    if (!upload) return;
    const auto serial = pool_->make_serial();
    {
      const std::lock_guard lock(mutex_);
      uploads_.erase({link->id(), channel});
    }
    // Hashing a large map and running init hooks takes time: not the link's time.
    serial->post([self = this->shared_from_this(), upload, serial] { self->finish_upload(*upload, serial); });
  }

  /// Complexity: O(log n) of the channels that wait, uploads and maps.
  void channel_closed(detail::ServerLink& link, protocol::ChannelId channel) override {
    std::unique_lock lock(mutex_);
    if (const auto waits = waiting_.find({link.id(), channel}); waits != waiting_.end()) {
      const auto entry = entries_.find(waits->second);
      if (entry != entries_.end()) entry->second.waiters.remove(link.id(), channel);
      waiting_.erase(waits);
    }
    const auto found = uploads_.find({link.id(), channel});
    if (found == uploads_.end()) return;
    const auto upload = std::move(found->second);  // goes when the lock has
    uploads_.erase(found);
    pass_upload_on(upload->hash, link.id(), lock);
    if (lock.owns_lock()) lock.unlock();
  }

  void fetch_asked(detail::ServerLink& link, const protocol::Fetch& fetch) override {
    if (!types_agree(fetch.key_type, fetch.value_type)) {
      return link.refuse(fetch.request, StateErrc::type_mismatch,
                         describe_types(fetch.key_type, fetch.value_type));
    }
    if (!is_allowed(link.peer(), Action::fetch, fetch.hash)) {
      return link.refuse(fetch.request, StateErrc::forbidden, {});
    }
    std::shared_ptr<Slot> slot;
    {
      const std::lock_guard lock(mutex_);
      const auto found = entries_.find(fetch.hash);
      if (found != entries_.end()) slot = found->second.slot;
    }
    if (!slot) return link.refuse(fetch.request, StateErrc::not_hosted, fetch.hash.hex());
    link.session().send_initial(fetch.request, slot->source());
  }

  /// Looks at `maps_per_look` maps at most, so that the mutex is free again soon.
  std::optional<MapHash> encode_hosted(const Peer& peer, const std::optional<MapHash>& after,
                                       Bytes& out) override {
    std::vector<std::pair<MapHash, std::shared_ptr<Slot>>> maps;
    std::optional<MapHash> last;
    bool has_more = false;
    {
      const std::lock_guard lock(mutex_);
      auto at = after ? entries_.upper_bound(*after) : entries_.begin();
      for (std::size_t looked = 0; at != entries_.end() && looked < maps_per_look; ++at, ++looked) {
        last = at->first;
        if (at->second.slot) maps.emplace_back(at->first, at->second.slot);
      }
      has_more = at != entries_.end();
    }
    ByteWriter writer(out);
    for (const auto& [hash, slot] : maps) {
      if (!is_allowed(peer, Action::fetch, hash)) continue;
      const auto& map = slot->hosted();
      protocol::HostedMapInfo{hash, map.keys_hash(), key_type_, value_type_, map.size()}.encode(writer);
    }
    return has_more ? last : std::nullopt;
  }

 private:
  using Waiter = detail::Waiter;

  static constexpr std::size_t maps_per_look = 64;

  static constexpr std::size_t most_alike = 16;

  struct Failure {
    StateErrc reason;
    std::string detail;
  };

  /// A hash that is hosted (with a slot), or about to be.
  struct Entry {
    std::shared_ptr<Slot> slot;
    detail::WaitingList waiters;
    std::optional<detail::ByteShare> share;  ///< of a map that a client brought
  };

  struct Upload {
    Upload(const MapHash& h, Waiter w, const Limits& limits, detail::SharedBytesCount all)
        : hash(h), from(std::move(w)), share(std::move(all)), reader(limits) {}
    MapHash hash;
    Waiter from;
    detail::ByteShare share;
    detail::InitialStateReader<K, V> reader;
  };
  using UploadId = std::pair<std::uint64_t, protocol::ChannelId>;

  ServerCore(ServerCoreOptions options, std::shared_ptr<ExecutorPool> hooks)
      : options_(std::move(options)),
        pool_(std::move(hooks)),
        passwords_(
            protocol::keep_passwords(std::move(options_.passwords), std::move(options_.retired_passwords))),
        table_(options_.limits) {}

  void expect_usable(const protocol::Passwords& passwords) const {
    const std::vector<std::string>& current = passwords.current;
    if (current.empty()) throw StateError(StateErrc::invalid_option, "a server needs a password");
    if (options_.allow_empty_password) return;
    if (std::find(current.begin(), current.end(), std::string()) != current.end()) {
      throw StateError(StateErrc::invalid_option, "an empty password is allowed only with mutual TLS");
    }
  }

  /// Whether a map, once it is hosted, is opened for this peer: to follow it, or else for anything that he may do.
  [[nodiscard]] bool may_open(const Peer& peer, const protocol::Open& open, bool may_init) const {
    if (open.mode != protocol::FollowMode::none) return is_allowed(peer, Action::follow, open.hash);
    return may_init || is_allowed(peer, Action::follow, open.hash) ||
           is_allowed(peer, Action::fetch, open.hash) || is_allowed(peer, Action::send_event, open.hash);
  }

  /// A pending link gives its room to a newcomer.
  void evict(std::uint64_t link) {
    std::shared_ptr<detail::ServerLink> old;
    {
      const std::lock_guard lock(mutex_);
      const auto found = pending_.find(link);
      if (found != pending_.end()) old = found->second.lock();
    }
    if (!old) return;
    on_lane_of(old, [](detail::ServerLink& l) {
      if (!l.session().is_authenticated()) l.abort();  // it may have proven itself meanwhile
    });
  }

  [[nodiscard]] bool types_agree(const std::string& key_type, const std::string& value_type) const {
    return key_type == key_type_ && value_type == value_type_;
  }
  [[nodiscard]] std::string describe_types(const std::string& key_type, const std::string& value_type) const {
    return "the server's map is {" + key_type_ + ": " + value_type_ + "}, the client's {" + key_type + ": " +
           value_type + "}";
  }

  template <class F>
  static void on_lane_of(const std::shared_ptr<detail::ServerLink>& link, F f) {
    detail::ServerLink::post(link, std::move(f));
  }

  std::shared_ptr<Slot> make_slot(Map map, std::shared_ptr<SerialExecutor> serial) {
    return std::make_shared<Slot>(
        std::move(map), options_.limits, std::move(serial), hooks_, options_.on_error, waiting_event_bytes_,
        options_.hooks_on_io_threads,
        [weak = this->weak_from_this()](const protocol::DiffSource* source, const detail::Lane* answering) {
          if (const auto self = weak.lock()) self->committed(source, answering);
        });
  }

  void committed(const protocol::DiffSource* source, const detail::Lane* answering) {
    const std::lock_guard lock(mutex_);
    for (const auto& lane : lanes_) {
      if (lane.get() != answering) lane->map_changed(source);
    }
  }

  /// With the mutex held: this link is to send the map.
  void start_upload(const MapHash& hash, Waiter from) {
    const auto link = from.link.lock();
    const UploadId id{link->id(), from.channel};
    uploads_[id] = std::make_shared<Upload>(hash, std::move(from), options_.limits, uploaded_bytes_);
  }

  std::shared_ptr<Upload> find_upload(std::uint64_t link, protocol::ChannelId channel) {
    const std::lock_guard lock(mutex_);
    const auto found = uploads_.find({link, channel});
    return found == uploads_.end() ? nullptr : found->second;
  }

  /// The upload of this map by `failed` came to nothing: the next who waits and may is asked, if there is one, other
  /// links first. May let go of the lock.
  /// Complexity: O(log n) for each who is asked or told that it may not.
  void pass_upload_on(const MapHash& hash, std::uint64_t failed, std::unique_lock<std::mutex>& lock) {
    const auto entry = entries_.find(hash);
    if (entry == entries_.end()) return;
    while (auto next = entry->second.waiters.take_next(failed)) {
      const protocol::ChannelId channel = next->channel;
      waiting_.erase({next->link_id, channel});
      const auto link = next->link.lock();
      if (!link) continue;
      if (!next->may_init) {
        on_lane_of(link, [channel](detail::ServerLink& l) {
          l.refuse(channel, StateErrc::forbidden, "this map is not hosted yet");
        });
        continue;
      }
      start_upload(hash, std::move(*next));
      lock.unlock();
      on_lane_of(link, [channel](detail::ServerLink& l) { l.want_upload(channel); });
      return;
    }
    entries_.erase(entry);
  }

  /// On an executor of the pool: verifies what came, runs the init hooks, and lets the map be seen.
  void finish_upload(Upload& upload, const std::shared_ptr<SerialExecutor>& serial) {
    std::shared_ptr<Slot> slot;
    try {
      auto frozen = upload.reader.finish(upload.hash);
      Map map =
          detail::MapAccess::make_map<K, V>(Role::master, std::move(frozen), nullptr, options_.map_options);
      slot = make_slot(std::move(map), serial);
    } catch (...) {
      // Wrong bytes end the session that sent them; whoever else waits for the map may do better.
      if (const auto link = upload.from.link.lock()) {
        on_lane_of(link, [why = protocol::close_for_exception()](detail::ServerLink& l) { l.end(why); });
      }
      const auto from = upload.from.link.lock();
      std::unique_lock lock(mutex_);
      pass_upload_on(upload.hash, from ? from->id() : 0, lock);
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      const auto entry = entries_.find(upload.hash);
      if (entry == entries_.end()) return;
      waiting_[{upload.from.link_id, upload.from.channel}] = upload.hash;
      entry->second.waiters.add(upload.from);
      entry->second.share.emplace(std::move(upload.share));
    }
    try {
      slot->initialise(*init_hooks_);
    } catch (...) {
      return fail_entry(upload.hash, describe(StateErrc::init_failed));
    }
    publish(upload.hash, slot);
  }

  /// The map is there: everyone who waits for it hears so.
  void publish(const MapHash& hash, const std::shared_ptr<Slot>& slot) {
    for (const Waiter& waiter : finish_entry(hash, slot)) {
      if (const auto link = waiter.link.lock()) {
        on_lane_of(link,
                   [waiter, slot](detail::ServerLink& l) { l.opened(waiter.channel, slot, waiter.sender); });
      }
    }
  }

  /// The map can't live here: everyone who waits for it hears why.
  void fail_entry(const MapHash& hash, const Failure& failure) {
    for (const Waiter& waiter : finish_entry(hash, nullptr)) {
      if (const auto link = waiter.link.lock()) {
        on_lane_of(link, [channel = waiter.channel, failure](detail::ServerLink& l) {
          l.refuse(channel, failure.reason, failure.detail);
        });
      }
    }
  }

  /// In a handler: what was thrown, as it is told to a peer. What is no `StateError` (out of memory, or a
  /// codec of the user's) is called `otherwise`.
  static Failure describe(StateErrc otherwise) {
    try {
      throw;
    } catch (const StateError& error) {
      return Failure{protocol::reason_of(error), error.detail()};
    } catch (const std::exception& error) {
      return Failure{otherwise, error.what()};
    } catch (...) {
      return Failure{otherwise, {}};
    }
  }

  /// Gives the entry its slot, or removes it; returns who waited.
  std::vector<Waiter> finish_entry(const MapHash& hash, const std::shared_ptr<Slot>& slot) {
    const std::lock_guard lock(mutex_);
    const auto entry = entries_.find(hash);
    if (entry == entries_.end()) return {};
    std::vector<Waiter> waiters = entry->second.waiters.take_all();
    for (const Waiter& waiter : waiters) waiting_.erase({waiter.link_id, waiter.channel});
    if (slot) {
      entry->second.slot = slot;
      alike_.emplace(slot->hosted().keys_hash(), hash);
      if (is_stopped_) slot->stop();
    } else {
      entries_.erase(entry);
    }
    return waiters;
  }

  /// With the mutex held: maps that differ from this one in their initial values alone; `most_alike` of them at most.
  /// Complexity: O(log maps).
  [[nodiscard]] std::vector<MapHash> hosted_with_keys(const MapHash& keys_hash) const {
    std::vector<MapHash> alike;
    for (auto at = alike_.lower_bound(keys_hash);
         at != alike_.end() && at->first == keys_hash && alike.size() < most_alike; ++at) {
      alike.push_back(at->second);
    }
    return alike;
  }

  /// Says why a map that is not hosted can't be brought either; names another one only to who may read that.
  void refuse_upload(detail::ServerLink& link, const protocol::Open& open,
                     const std::vector<MapHash>& alike) {
    for (const MapHash& hash : alike) {
      if (!is_allowed(link.peer(), Action::fetch, hash)) continue;
      return link.refuse(open.channel, StateErrc::hash_mismatch, "the keys are the same", hash);
    }
    link.refuse(open.channel, StateErrc::not_hosted, "and this server takes no uploads");
  }

  ServerCoreOptions options_;
  std::shared_ptr<ExecutorPool> pool_;
  std::shared_ptr<const protocol::Passwords> passwords_;
  const std::string key_type_ = type_name<K>();
  const std::string value_type_ = type_name<V>();
  std::shared_ptr<typename Slot::Hooks> hooks_ = std::make_shared<typename Slot::Hooks>();
  std::shared_ptr<std::vector<detail::UniqueFunction<void(MasterHandle<K, V>)>>> init_hooks_ =
      std::make_shared<std::vector<detail::UniqueFunction<void(MasterHandle<K, V>)>>>();
  mutable std::mutex mutex_;  // never held while user code runs
  bool is_started_ = false;
  bool is_stopped_ = false;
  std::map<MapHash, Entry> entries_;
  std::map<UploadId, std::shared_ptr<Upload>> uploads_;
  std::map<UploadId, MapHash> waiting_;    // in whose `waiters` a channel is
  std::multimap<MapHash, MapHash> alike_;  // hosted maps by the hash of their keys
  std::vector<std::shared_ptr<detail::Lane>> lanes_;
  std::vector<std::shared_ptr<detail::Lane>> entry_lanes_;
  const std::shared_ptr<protocol::ServerAccount> account_ =
      std::make_shared<protocol::ServerAccount>(options_.limits);
  const detail::SharedBytesCount uploaded_bytes_ = std::make_shared<std::atomic<std::size_t>>(0);
  const detail::SharedBytesCount waiting_event_bytes_ = std::make_shared<std::atomic<std::size_t>>(0);
  std::atomic<std::uint64_t> next_link_{1};
  std::unordered_map<std::uint64_t, std::weak_ptr<detail::ServerLink>> pending_;
  detail::LinkTable table_;
};

}  // namespace syncstate

#endif
