// The server without any transport: hosts maps by hash, runs hooks, serves links.
#ifndef SYNCSTATE_SERVER_CORE_HPP
#define SYNCSTATE_SERVER_CORE_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
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
#include "syncstate/detail/check_limits.hpp"
#include "syncstate/detail/limit_text.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/server/birthplace.hpp"
#include "syncstate/detail/server/byte_share.hpp"
#include "syncstate/detail/server/hosted_slot.hpp"
#include "syncstate/detail/server/link_table.hpp"
#include "syncstate/detail/server/live_links.hpp"
#include "syncstate/detail/server/server_link.hpp"
#include "syncstate/detail/server/upload_order.hpp"
#include "syncstate/detail/tick_period.hpp"
#include "syncstate/detail/wire/initial_state_reader.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/event.hpp"
#include "syncstate/executor_pool.hpp"
#include "syncstate/hook.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/link.hpp"
#include "syncstate/master_handle.hpp"
#include "syncstate/protocol/passwords.hpp"
#include "syncstate/protocol/server_session.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/threads/home_process.hpp"

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

  /// Errors: `invalid_option` for limits with which no client could do anything.
  [[nodiscard]] static std::shared_ptr<ServerCore> create(ServerCoreOptions options,
                                                          std::shared_ptr<ExecutorPool> hooks) {
    const protocol::WipesAtEnd wiping(options.passwords, options.retired_passwords);
    detail::check_limits(options.limits);
    return std::shared_ptr<ServerCore>(new ServerCore(std::move(options), std::move(hooks)));
  }

  /// Adds a hook; hooks run in the order added.
  /// Errors: `already_started`; `stopped`.
  template <Hook<K, V, E> H>
  void add_hook(H hook) {
    const std::lock_guard lock(mutex_);
    expect_running("add_hook");
    if (is_started_) throw StateError(StateErrc::already_started, "add hooks before start()");
    hooks_->push_back(
        [hook = std::move(hook)](Map& map, const Event<E>& event, const EventContext& context) mutable {
          detail::call_hook(hook, map, event, context);
        });
  }

  /// Adds code to run once for each map that comes to live here, before anyone can see it.
  /// Errors: `already_started`, also once a map is hosted: it would have missed this hook; `stopped`.
  template <InitHook<K, V> H>
  void add_init_hook(H hook) {
    const std::lock_guard lock(mutex_);
    expect_running("add_init_hook");
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
        throw StateError(StateErrc::too_large,
                         detail::beyond_limit(detail::of_bytes("an initial value", whole_size(value)),
                                              "value_bytes", options_.limits.value_bytes));
      }
    }
    const MapHash hash = map.hash();
    {
      const std::lock_guard lock(mutex_);
      if (is_stopped_) throw StateError(StateErrc::stopped);
      if (entries_.contains(hash)) throw StateError(StateErrc::already_hosted, hash.hex());
      if (entries_.size() >= options_.limits.maps) throw StateError(StateErrc::busy, no_more_maps());
      entries_[hash].is_found = true;
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

  /// Lets links in. Maps that were hosted in a process from which this one was forked off begin another life before.
  /// Errors: `invalid_option` for an empty password where that is not allowed; `already_started`; `stopped`.
  void start() {
    std::vector<std::shared_ptr<Slot>> to_settle;
    {
      const std::lock_guard lock(mutex_);
      expect_startable();
      for (const auto& [hash, entry] : entries_) {
        if (entry.slot) to_settle.push_back(entry.slot);
      }
    }
    for (const auto& slot : to_settle) slot->settle_in_process();  // may wait for a change of the map
    const std::lock_guard lock(mutex_);
    expect_startable();
    is_started_ = true;
    for (auto& [hash, entry] : entries_) {
      if (entry.slot) entry.slot->stay();
    }
  }

  /// Takes the passwords `current` from now on, and no others; links that proved themselves go on until `disconnect`.
  ///
  /// To replace one without a gap: set both as current, give every client the new one, then set the new one alone as
  /// current and the old one as retired. A proof of a retired password is `unauthorized` too, but is not held against its
  /// address: so a client that was forgotten does not keep out other clients of its address.
  /// Errors    : `invalid_option` if `current` is empty, or holds an empty password where that is not allowed;
  ///             `stopped` after `stop`; nothing has changed then.
  /// Complexity: each proof is tried with each password of both lists, one HMAC-SHA-256 each.
  void set_passwords(std::vector<std::string> current, std::vector<std::string> retired = {}) {
    auto taken = protocol::keep_passwords(std::move(current), std::move(retired));
    const std::lock_guard lock(mutex_);
    expect_running("set_passwords");
    expect_usable(*taken);
    passwords_ = std::move(taken);
  }

  /// Ends the links of all peers that `is_meant` is true for; returns how many.
  ///
  /// Call it after `set_passwords`, after a change of the certificates that are trusted, or to throw a peer out. Each of
  /// these links is closed with `link_closed` on its own thread, soon after this returns. Clients connect again within a
  /// second, and what they prove then decides: a client with a current password is back, any other is `unauthorized`.
  /// Links that have not proved themselves yet are judged as soon as they have; they are not in the number returned.
  ///
  /// Threads   : `is_meant` is called on this thread, and later perhaps on those of links that prove themselves, on several
  ///             at once. It may call the server.
  /// Errors    : what `is_meant` throws here; no link is ended then. What it throws later ends that link, and is passed
  ///             to `on_error`. `stopped` after `stop`, which ends all links.
  /// Complexity: O(links).
  ///
  /// ```cpp
  /// server.set_passwords({fresh}, {old});
  /// server.disconnect([](const ss::Peer&) { return true; });  // back within a second: those that prove `fresh`
  /// ```
  template <std::predicate<const Peer&> F>
  std::size_t disconnect(F is_meant) {
    expect_not_stopped("disconnect");
    const auto found = links_.find(detail::PeerTest(std::move(is_meant)));
    for (const auto& link : found) {
      on_lane_of(link, [](detail::ServerLink& l) { l.disconnect(); });
    }
    return found.size();
  }

  /// Asks the authorizer again about every open channel, upload and unanswered request of every link; call it when the
  /// authorizer's answers change.
  ///
  /// What is forbidden now is refused as `forbidden`: a channel that follows gets no further diff, and any other is closed
  /// if none of the four actions is allowed with its map. Links stay open, and events that came before keep their answers:
  /// their channel is refused behind these. A client of ours asks again for what was refused within
  /// `BackoffOptions::most`; nobody tells it earlier that a right was given back.
  ///
  /// Threads   : the authorizer is called on each link's own thread, soon after this returns.
  /// Errors    : `stopped` after `stop`.
  /// Complexity: O(links), and for each link O(open channels + requests), on its thread.
  void recheck() {
    expect_not_stopped("recheck");
    for (const auto& link : links_.all()) {
      on_lane_of(link, [](detail::ServerLink& l) { l.recheck(); });
    }
  }

  /// Throws `stopped` if `stop` was called: `call` would change nothing.
  void expect_not_stopped(const char* call) const {
    const std::lock_guard lock(mutex_);
    expect_running(call);
  }

  /// Ends every session with `stopped`, and lets no hook start any more; waits for those that run.
  ///
  /// A client whose event was sent and not answered gets `outcome_unknown`: the answer of a hook that still runs is not
  /// sent.
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
    auto lane = std::make_shared<detail::Lane>(std::move(executor), tick(), options_.fan_out_share);
    const std::lock_guard lock(mutex_);
    lanes_.push_back(lane);
    return lane;
  }

  /// A lane for links whose clients have not proven themselves yet. Commits do not wake it.
  [[nodiscard]] std::shared_ptr<detail::Lane> add_entry_lane(std::shared_ptr<Executor> executor) {
    auto lane = std::make_shared<detail::Lane>(std::move(executor), tick());
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
    const TimePoint now = lane->executor().now();
    {
      const std::lock_guard lock(mutex_);
      if (!is_started_ || is_stopped_) return nullptr;
    }
    const std::uint64_t id = links_.expect();
    const auto admission = table_.admit(id, address, now);
    if (admission.evicted) evict(*admission.evicted);
    if (!admission.is_admitted) {
      links_.closed(id);
      return nullptr;
    }
    try {
      auto owner = std::make_shared<detail::ServerLink>(this->shared_from_this(), lane, make_link(), id,
                                                        address, std::move(next_lane));
      lane->add(owner);
      const std::lock_guard lock(mutex_);
      pending_[id] = owner;
      return owner;
    } catch (...) {
      links_.closed(id);
      table_.closed(id, address, now);
      throw;
    }
  }

  /// The bytes that all links hold together beyond `Limits::own_link_bytes` of each.
  [[nodiscard]] std::size_t link_bytes() const { return account_->bytes(); }

  /// The bytes that are counted by `Limits::all_map_bytes`.
  [[nodiscard]] std::size_t map_bytes() const { return uploaded_bytes_->load(); }

  /// The bytes that are counted by `Limits::all_answer_bytes`.
  [[nodiscard]] std::size_t answer_bytes() const { return answers_->bytes(); }

  /// The bytes that are counted by `Limits::all_event_bytes`.
  [[nodiscard]] std::size_t event_bytes() const { return waiting_event_bytes_->load(); }

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
  [[nodiscard]] bool may_open(const Peer& peer, const MapHash& map, bool follows) const override {
    if (follows) return is_allowed(peer, Action::follow, map);
    return is_allowed(peer, Action::init, map) || is_allowed(peer, Action::follow, map) ||
           is_allowed(peer, Action::fetch, map) || is_allowed(peer, Action::send_event, map);
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
  [[nodiscard]] bool settle(const std::shared_ptr<detail::ServerLink>& link) override {
    return links_.settle(link->id(), link, link->shared_peer(), options_.on_error);
  }
  void closed(std::uint64_t link, const std::string& address, TimePoint now) override {
    links_.closed(link);
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
    const bool follows = open.mode != protocol::FollowMode::none;
    if (!(may_init && !follows) && !may_open(link->peer(), open.hash, follows)) {
      return link->refuse(open.channel, StateErrc::forbidden, {});
    }
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(open.hash);
    if (found != entries_.end()) {
      if (const auto slot = found->second.slot) {
        lock.unlock();
        return link->opened(open.channel, slot);
      }
      // Another client is asked for this map already.
      add_waiter(open.hash, found->second, link, open, may_init, follows);
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
      return link->refuse(open.channel, StateErrc::busy, no_more_maps());
    }
    Entry& entry = entries_[open.hash];
    entry.number = ++last_entry_;
    add_waiter(open.hash, entry, link, open, may_init, follows);
    ask_next(open.hash, entry);
  }

  void upload_came(detail::ServerLink& link, protocol::ChannelId channel, ByteView bytes) override {
    const auto upload = find_upload(link.id(), channel);
    if (!upload) return;
    upload->bytes += bytes.size();
    const std::size_t most = options_.limits.all_map_bytes;
    bool has_room = true;
    // What was decoded takes other room than its bytes: small values more, JSON many times as much. So a frame is decoded in
    // pieces, and the rest of it not at all once there is no room.
    while (has_room && !bytes.empty()) {
      const ByteView piece = bytes.first((std::min)(bytes.size(), upload_piece_bytes));
      bytes = bytes.subspan(piece.size());
      has_room = upload->share.take(upload->reader.growth_bytes(piece.size()), most);
      if (!has_room) break;
      try {
        upload->reader.feed(piece);
      } catch (const StateError& error) {
        if (error.code() != StateErrc::too_large) throw;
        // An honest client may have other limits.
        link.refuse(channel, StateErrc::too_large, error.detail());
        return channel_closed(link, channel);
      }
      has_room = upload->share.set(upload->reader.hosted_bytes(), most);
    }
    if (has_room) return;
    link.refuse(channel, StateErrc::busy,
                detail::beyond_limit("the maps of this server take " + std::to_string(map_bytes()) +
                                         " bytes of memory with as much of this one as came",
                                     "all_map_bytes", most));
    channel_closed(link, channel);
  }

  void upload_ended(const std::shared_ptr<detail::ServerLink>& link, protocol::ChannelId channel) override {
    const auto serial = pool_->make_serial();
    std::shared_ptr<Upload> upload;
    {
      const std::lock_guard lock(mutex_);
      const auto found = uploads_.find({link->id(), channel});
      if (found == uploads_.end()) return;
      upload = found->second;
      end_upload(found);
      Entry& entry = entries_.at(upload->hash);
      ++entry.verifications;
      upload->entry = entry.number;
    }
    // Hashing a large map and running init hooks takes time: not the link's time.
    serial->post([self = this->shared_from_this(), upload, serial] { self->finish_upload(*upload, serial); });
  }

  void upload_goes_on(detail::ServerLink& link, protocol::ChannelId channel) override {
    std::shared_ptr<Upload> dropped;  // goes when the lock has
    const std::lock_guard lock(mutex_);
    const auto found = uploads_.find({link.id(), channel});
    if (found == uploads_.end()) return;
    Upload& upload = *found->second;
    upload.recent_bytes = upload.bytes - std::exchange(upload.bytes_before, upload.bytes);
    upload.is_new = false;
    const auto entry = entries_.find(upload.hash);
    if (entry->second.askable.is_empty()) return;
    if (entry->second.uploads.size() >= most_uploads) {
      if (is_ahead(upload, entry->second)) return;
      dropped = found->second;
      end_upload(found);  // its client waits on, like those that were not asked
    }
    ask_next(entry->first, entry->second);
  }

  /// Complexity: O(log channels that wait).
  void channel_closed(detail::ServerLink& link, protocol::ChannelId channel) override {
    std::shared_ptr<Upload> dropped;  // goes when the lock has
    const std::lock_guard lock(mutex_);
    const detail::ChannelOfLink id{link.id(), channel};
    const auto waits = waiting_.find(id);
    if (waits == waiting_.end()) return;
    const auto entry = entries_.find(waits->second);
    waiting_.erase(waits);
    entry->second.waiters.erase(id);
    entry->second.askable.remove(link.address(), id);
    if (const auto found = uploads_.find(id); found != uploads_.end()) {
      dropped = found->second;
      end_upload(found);
    }
    pass_upload_on(entry);
  }

  void recheck_uploads(detail::ServerLink& link) override {
    std::vector<std::pair<protocol::ChannelId, MapHash>> uploads;
    {
      const std::lock_guard lock(mutex_);
      for (auto at = uploads_.lower_bound({link.id(), 0});
           at != uploads_.end() && at->first.first == link.id(); ++at) {
        uploads.emplace_back(at->first.second, at->second->hash);
      }
    }
    for (const auto& [channel, hash] : uploads) {
      if (!is_allowed(link.peer(), Action::init, hash)) forbid_upload(link, channel);
    }
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
  static constexpr std::size_t maps_per_look = 64;
  static constexpr std::size_t upload_piece_bytes = std::size_t{64} << 10;

  static constexpr std::size_t most_alike = 16;

  /// A channel that is opened or refused once its map is hosted or can't be; its client may be asked for the map, too.
  struct Waiter {
    std::weak_ptr<detail::ServerLink> link;
    bool may_init = true;
    bool follows = false;  ///< asked to follow the map
  };

  struct Failure {
    StateErrc reason;
    std::string detail;
  };

  struct Upload {
    Upload(const MapHash& h, std::weak_ptr<detail::ServerLink> by, const Limits& limits,
           detail::SharedBytesCount all)
        : hash(h), from(std::move(by)), share(std::move(all)), reader(limits) {}
    MapHash hash;
    std::weak_ptr<detail::ServerLink> from;
    detail::ByteShare share;
    detail::InitialStateReader<K, V> reader;
    std::atomic<std::size_t> bytes{0};  ///< that came
    // With the mutex held:
    std::size_t bytes_before = 0;  ///< as of the last `upload_goes_on`
    std::size_t recent_bytes = 0;  ///< that came between the last two
    bool is_new = true;            ///< there was none yet
    std::uint64_t entry = 0;       ///< its number, while the upload is verified
  };
  using Uploads = std::map<detail::ChannelOfLink, std::shared_ptr<Upload>>;

  /// A hash that is hosted (with a slot), or about to be.
  struct Entry {
    std::uint64_t number = 0;  ///< tells it from a later one of the same hash
    std::shared_ptr<Slot> slot;
    std::map<detail::ChannelOfLink, Waiter> waiters;  ///< until the slot is there
    detail::UploadOrder askable;  ///< those of them that may be asked for the map, and were not
    std::vector<detail::ChannelOfLink> uploads;  ///< those that send it
    std::size_t verifications = 0;               ///< uploads that are whole and are being verified
    bool is_found = false;  ///< one was right, or this process hosts the map; its init hooks run
    std::optional<detail::ByteShare> share;  ///< of a map that a client brought
  };
  using Entries = std::map<MapHash, Entry>;

  /// Uploads of one map at a time. Two of them are kept while others take turns: the one of which most has come, and the one
  /// of which most came recently.
  static constexpr std::size_t most_uploads = 4;

  ServerCore(ServerCoreOptions options, std::shared_ptr<ExecutorPool> hooks)
      : options_(std::move(options)),
        pool_(std::move(hooks)),
        passwords_(
            protocol::keep_passwords(std::move(options_.passwords), std::move(options_.retired_passwords))),
        table_(options_.limits) {}

  [[nodiscard]] std::chrono::milliseconds tick() const {
    constexpr std::chrono::milliseconds most{500};
    return detail::tick_period(options_.limits, most, options_.limits.upload_time);
  }

  void expect_usable(const protocol::Passwords& passwords) const {
    const std::vector<std::string>& current = passwords.current;
    if (current.empty()) throw StateError(StateErrc::invalid_option, "a server needs a password");
    if (options_.allow_empty_password) return;
    if (std::find(current.begin(), current.end(), std::string()) != current.end()) {
      throw StateError(StateErrc::invalid_option, "an empty password is allowed only with mutual TLS");
    }
  }

  /// With the mutex held.
  void expect_running(const char* call) const {
    if (!is_stopped_) return;
    throw StateError(StateErrc::stopped,
                     std::string(call) + ": this server was stopped, and does not start again");
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

  [[nodiscard]] std::string no_more_maps() const {
    return detail::beyond_limit("this server hosts as many maps as it may", "maps", options_.limits.maps);
  }

  template <class F>
  static void on_lane_of(const std::shared_ptr<detail::ServerLink>& link, F f) {
    detail::ServerLink::post(link, std::move(f));
  }

  /// Where a map comes to live.
  class Birthplace final : public detail::Birthplace {
   public:
    [[nodiscard]] bool is_elsewhere() const override { return home_.is_elsewhere(); }
    void move_here() override { home_.move_here(); }
    void forget() override { home_.forget(); }

   private:
    detail::HomeProcess home_ = detail::HomeProcess::here();
  };

  std::shared_ptr<Slot> make_slot(Map map, std::shared_ptr<SerialExecutor> serial) {
    return std::make_shared<Slot>(
        std::move(map), options_.limits, std::move(serial), hooks_, options_.on_error, waiting_event_bytes_,
        answers_, options_.hooks_on_io_threads,
        [weak = this->weak_from_this()](const protocol::DiffSource* source, const detail::Lane* answering) {
          if (const auto self = weak.lock()) self->committed(source, answering);
        },
        std::make_unique<Birthplace>());
  }

  void committed(const protocol::DiffSource* source, const detail::Lane* answering) {
    const std::lock_guard lock(mutex_);
    for (const auto& lane : lanes_) {
      if (lane.get() != answering) lane->map_changed(source);
    }
  }

  /// With the mutex held.
  void add_waiter(const MapHash& hash, Entry& entry, const std::shared_ptr<detail::ServerLink>& link,
                  const protocol::Open& open, bool may_init, bool follows) {
    const detail::ChannelOfLink id{link->id(), open.channel};
    entry.waiters.emplace(id, Waiter{link, may_init, follows});
    waiting_.emplace(id, hash);
    if (may_init && !entry.is_found) entry.askable.add(link->address(), id);
  }

  /// With the mutex held: asks the client whose turn it is for the map. Returns false if there is none.
  bool ask_next(const MapHash& hash, Entry& entry) {
    while (const auto id = entry.askable.next()) {
      const auto link = entry.waiters.at(*id).link.lock();
      if (!link) continue;
      uploads_[*id] = std::make_shared<Upload>(hash, link, options_.limits, uploaded_bytes_);
      entry.uploads.push_back(*id);
      on_lane_of(link, [self = this->shared_from_this(), channel = id->second, hash](detail::ServerLink& l) {
        if (self->is_allowed(l.peer(), Action::init, hash)) return l.want_upload(channel);
        self->forbid_upload(l, channel);  // its right may have been taken while it waited
      });
      return true;
    }
    return false;
  }

  /// With the mutex held: the entry that an upload which is being verified is for.
  [[nodiscard]] typename Entries::iterator find_entry(const Upload& upload) {
    const auto entry = entries_.find(upload.hash);
    return entry != entries_.end() && entry->second.number == upload.entry ? entry : entries_.end();
  }

  /// With the mutex held: nothing more is taken of this upload. Its channel waits on.
  void end_upload(typename Uploads::iterator upload) {
    std::erase(entries_.at(upload->second->hash).uploads, upload->first);
    uploads_.erase(upload);
  }

  /// With the mutex held: whether an upload keeps its place though others wait for one. Of equal ones the oldest does.
  [[nodiscard]] bool is_ahead(const Upload& upload, const Entry& entry) const {
    const Upload* most = &upload;
    const Upload* fastest = &upload;
    bool is_younger = false;  // the ones looked at are younger than `upload`
    for (const auto& id : entry.uploads) {
      const Upload& other = *uploads_.at(id);
      if (&other == &upload) is_younger = true;
      const auto beats = [&](std::size_t theirs, std::size_t ours) {
        return theirs > ours || (theirs == ours && !is_younger);
      };
      if (beats(other.bytes, upload.bytes)) most = &other;
      if (!other.is_new && beats(other.recent_bytes, upload.recent_bytes)) fastest = &other;
    }
    return most == &upload || fastest == &upload;
  }

  /// The peer may not bring the map that is wanted of it any longer: the next one that waits for this map is asked.
  void forbid_upload(detail::ServerLink& link, protocol::ChannelId channel) {
    link.refuse(channel, StateErrc::forbidden, "this map is not hosted yet");
    channel_closed(link, channel);
  }

  std::shared_ptr<Upload> find_upload(std::uint64_t link, protocol::ChannelId channel) {
    const std::lock_guard lock(mutex_);
    const auto found = uploads_.find({link, channel});
    return found == uploads_.end() ? nullptr : found->second;
  }

  /// With the mutex held: an upload of this map came to nothing, perhaps. If there is no other, the next client is asked; if
  /// there is none, nobody can bring the map.
  void pass_upload_on(typename Entries::iterator entry) {
    Entry& at = entry->second;
    if (!at.uploads.empty() || at.verifications > 0 || at.is_found || ask_next(entry->first, at)) return;
    for (const auto& [id, waiter] : take_waiters(at)) {
      const auto link = waiter.link.lock();
      if (!link) continue;
      on_lane_of(link, [channel = id.second, may_init = waiter.may_init](detail::ServerLink& l) {
        if (may_init) {
          l.refuse(channel, StateErrc::peer_silent, "the initial state did not come in time");
        } else {
          l.refuse(channel, StateErrc::forbidden, "this map is not hosted yet");
        }
      });
    }
    entries_.erase(entry);
  }

  /// With the mutex held.
  std::map<detail::ChannelOfLink, Waiter> take_waiters(Entry& entry) {
    auto waiters = std::exchange(entry.waiters, {});
    for (const auto& [id, waiter] : waiters) waiting_.erase(id);
    return waiters;
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
      // Wrong bytes end the session that sent them; another client that waits for the map may do better.
      if (const auto link = upload.from.lock()) {
        on_lane_of(link, [why = protocol::close_for_exception()](detail::ServerLink& l) { l.end(why); });
      }
      const std::lock_guard lock(mutex_);
      if (const auto entry = find_entry(upload); entry != entries_.end()) {
        --entry->second.verifications;
        pass_upload_on(entry);
      }
      return;
    }
    std::vector<std::shared_ptr<Upload>> dropped;  // go when the lock has
    {
      const std::lock_guard lock(mutex_);
      const auto found = find_entry(upload);
      if (found == entries_.end()) return;  // another one was first, and its init hooks failed
      Entry& entry = found->second;
      --entry.verifications;
      if (std::exchange(entry.is_found, true)) return;  // another one was first: its clients wait for that
      entry.share.emplace(std::move(upload.share));
      entry.askable = {};
      for (const auto& id : std::exchange(entry.uploads, {})) {
        dropped.push_back(std::move(uploads_.at(id)));
        uploads_.erase(id);
      }
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
    for (const auto& [id, waiter] : finish_entry(hash, slot)) {
      if (const auto link = waiter.link.lock()) {
        // Its right may have been taken while it waited.
        on_lane_of(link, [self = this->shared_from_this(), channel = id.second, follows = waiter.follows,
                          slot](detail::ServerLink& l) {
          if (!self->may_open(l.peer(), slot->hash(), follows)) {
            return l.refuse(channel, StateErrc::forbidden, {});
          }
          l.opened(channel, slot);
        });
      }
    }
  }

  /// The map can't live here: everyone who waits for it hears why.
  void fail_entry(const MapHash& hash, const Failure& failure) {
    for (const auto& [id, waiter] : finish_entry(hash, nullptr)) {
      if (const auto link = waiter.link.lock()) {
        on_lane_of(link, [channel = id.second, failure](detail::ServerLink& l) {
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
      return Failure{protocol::reason_of(error), std::string(protocol::beginning_of(error.detail()))};
    } catch (const std::exception& error) {
      return Failure{otherwise, protocol::text_of(error)};
    } catch (...) {
      return Failure{otherwise, {}};
    }
  }

  /// With the mutex held.
  void expect_startable() const {
    if (is_stopped_) throw StateError(StateErrc::stopped);
    if (is_started_) throw StateError(StateErrc::already_started);
    expect_usable(*passwords_);
  }

  /// Gives the entry its slot, or removes it; returns who waited.
  std::map<detail::ChannelOfLink, Waiter> finish_entry(const MapHash& hash,
                                                       const std::shared_ptr<Slot>& slot) {
    const std::lock_guard lock(mutex_);
    const auto entry = entries_.find(hash);
    if (entry == entries_.end()) return {};
    auto waiters = take_waiters(entry->second);
    if (slot) {
      entry->second.slot = slot;
      entry->second.askable = {};
      alike_.emplace(slot->hosted().keys_hash(), hash);
      if (is_started_) slot->stay();
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
    link.refuse(open.channel, StateErrc::not_hosted, "this server takes no uploads");
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
  Entries entries_;
  std::uint64_t last_entry_ = 0;
  Uploads uploads_;
  std::map<detail::ChannelOfLink, MapHash> waiting_;  // all waiters, by channel
  std::multimap<MapHash, MapHash> alike_;             // hosted maps by the hash of their keys
  std::vector<std::shared_ptr<detail::Lane>> lanes_;
  std::vector<std::shared_ptr<detail::Lane>> entry_lanes_;
  const std::shared_ptr<protocol::ServerAccount> account_ =
      std::make_shared<protocol::ServerAccount>(options_.limits);
  const detail::SharedBytesCount uploaded_bytes_ = std::make_shared<std::atomic<std::size_t>>(0);
  const std::shared_ptr<detail::AnswerRoom> answers_ =
      std::make_shared<detail::AnswerRoom>(options_.limits.all_answer_bytes);
  const detail::SharedBytesCount waiting_event_bytes_ = std::make_shared<std::atomic<std::size_t>>(0);
  detail::LiveLinks links_;
  std::unordered_map<std::uint64_t, std::weak_ptr<detail::ServerLink>> pending_;
  detail::LinkTable table_;
};

}  // namespace syncstate

#endif
