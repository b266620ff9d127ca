// The server's end of one link.
#ifndef SYNCSTATE_DETAIL_SERVER_SERVER_LINK_HPP
#define SYNCSTATE_DETAIL_SERVER_SERVER_LINK_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "syncstate/authorizer.hpp"
#include "syncstate/detail/server/event_turns.hpp"
#include "syncstate/detail/server/lane.hpp"
#include "syncstate/detail/server/peer_bytes.hpp"
#include "syncstate/detail/server/sender_table.hpp"
#include "syncstate/detail/server/server_host.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/link.hpp"
#include "syncstate/protocol/hosted_source.hpp"
#include "syncstate/protocol/server_session.hpp"

namespace syncstate::detail {

/// Drives one server session: what the link brings goes in, what the session wants is done.
///
/// Threads: on the lane's executor. A link whose client has proven itself may change to another lane, see `move_on`.
class ServerLink final : public LinkOwner,
                         public protocol::HostedSource,
                         public std::enable_shared_from_this<ServerLink> {
 public:
  ServerLink(std::shared_ptr<ServerHost> host, std::shared_ptr<Lane> lane, std::shared_ptr<Link> link,
             std::uint64_t id, std::string address, std::shared_ptr<Lane> next_lane = nullptr)
      : host_(std::move(host)),
        first_lane_(std::move(lane)),
        next_lane_(std::move(next_lane)),
        link_(std::move(link)),
        id_(id),
        address_(std::move(address)),
        least_heartbeat_(served_by(first_lane_->tick())),
        session_(host_->limits(), first_lane_->executor().now(), host_->account()) {}

  /// The lane that the link is on; see `post`.
  /// Threads: any.
  [[nodiscard]] const std::shared_ptr<Lane>& lane() const {
    return has_moved_.load(std::memory_order_acquire) ? next_lane_ : first_lane_;
  }

  /// Runs `f(link)` on the executor of the link's lane, guarded. If the link moves on meanwhile, on the next lane's.
  /// Threads: any.
  template <class F>
  static void post(const std::shared_ptr<ServerLink>& link, F f) {
    const std::shared_ptr<Lane>& lane = link->lane();
    lane->executor().post([link, is_first = lane == link->first_lane_, f = std::move(f)]() mutable {
      if (!is_first || !link->leaves_) return link->guard([&] { f(*link); });
      // The link's arrival was posted there before.
      link->next_lane_->executor().post(
          [link, f = std::move(f)]() mutable { link->guard([&] { f(*link); }); });
    });
  }

  [[nodiscard]] protocol::ServerSession& session() { return session_; }
  /// Of a link that is open.
  [[nodiscard]] const Peer& peer() const { return *peer_; }
  /// The same, for those who keep it; it does not change once the link has settled.
  [[nodiscard]] std::shared_ptr<const Peer> shared_peer() const { return peer_; }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  /// What the limits count the link by.
  [[nodiscard]] const std::string& address() const { return address_; }

  /// The map asked for on `channel` is hosted; its commits wake this link from now on.
  void opened(protocol::ChannelId channel, const std::shared_ptr<HostedBase>& map) {
    if (!link_ || session_.is_over()) return;
    forget_asked(channel);
    forget_map(channel);
    lane()->add_follower(map->source().get(), this);
    maps_[channel] = OpenMap{map, 0, nullptr};
    if (!session_.opened(channel, map->source())) {
      forget_map(channel);
    } else if (const auto early = session_.early_ask_of(channel)) {
      perform(*early);
    }
    wake();
  }

  void refuse(protocol::ChannelId channel, StateErrc reason, const std::string& detail,
              std::optional<MapHash> other = {}) {
    forget_asked(channel);
    session_.refuse(channel, reason, detail, other);
    wake();
  }

  void want_upload(protocol::ChannelId channel) {
    session_.want_upload(channel);
    wake();
  }

  void answer(const protocol::EventTicket& event, EventOutcome outcome) {
    if (outcome.error == StateErrc{}) {
      session_.answer(event, outcome.update_id);
    } else {
      session_.answer_error(event, outcome.error, std::move(outcome.detail));
    }
  }

  /// Ends the session, saying why.
  void end(StateErrc reason, const std::string& detail) { session_.fail(reason, detail, sink()); }
  void end(const protocol::CloseSession& why) { session_.fail(why, sink()); }

  /// Ends the session so that its client connects again and proves itself once more. Clients do not take the reason for a
  /// refusal: one with a right password is back within a second, and any other learns more from its next proof.
  void disconnect() {
    end(StateErrc::link_closed,
        "the server ended this link; a client that may still come in connects again by itself");
    wake();
  }

  /// Asks the authorizer again about everything that the peer has open or under way, and refuses what is forbidden now.
  /// Complexity: O(open channels + requests under way), each with up to four calls of the authorizer.
  void recheck() {
    if (session_.is_over() || !session_.is_authenticated()) return;
    for (const auto& [channel, open] : maps_) {
      if (!host_->may_open(*peer_, open.map->hash(), session_.is_followed(channel))) session_.revoke(channel);
    }
    session_.refuse_requests(StateErrc::forbidden, [this](const MapHash& map) {
      return !host_->is_allowed(*peer_, Action::fetch, map);
    });
    host_->recheck_uploads(*this);
    refuse_revoked();
    wake();
  }

  /// Closes the link without a word.
  void abort() {
    if (link_) link_->abort();
  }

  /// Runs `f`, which may run out of memory or call codecs of the user's: what it throws ends this session and nothing
  /// else.
  template <class F>
  void guard(F&& f) noexcept {
    const auto self = shared_from_this();
    try {
      f();
    } catch (...) {
      give_up(std::current_exception());
    }
  }

  /// The map committed: those who follow it on this link have something to send. Complexity: O(its channels here).
  void map_changed(const protocol::DiffSource* map) {
    session_.map_changed(map);
    wake();
  }

  /// Asks the link to fetch what the session has to send, if there is anything.
  void wake() {
    if (link_ && session_.wants_to_send()) link_->wake();
  }

  void tick(TimePoint now) {
    guard([&] {
      session_.on_tick(now, sink());
      wake();
    });
  }

  // protocol::HostedSource

  std::optional<MapHash> encode_hosted(const std::optional<MapHash>& after, Bytes& out) override {
    return host_->encode_hosted(*peer_, after, out);
  }

  // LinkOwner

  void on_open(const LinkInfo& info) override {
    guard([&] {
      peer_ = std::make_shared<Peer>(info.peer);
      peer_bytes_ = certificate_bytes(*peer_);
      charge_peer();
      const TimePoint now = lane()->executor().now();
      session_.on_open(host_->passwords(), info.channel_binding, host_->is_barred(address_, now), now);
    });
  }

  void on_bytes(ByteView bytes) override {
    guard([&] {
      const TimePoint now = lane()->executor().now();
      // Links that were opened side by side have as many guesses together as one after the other.
      // And a password that was withdrawn meanwhile is not taken any more.
      if (!session_.is_authenticated()) {
        session_.set_busy(host_->is_barred(address_, now));
        session_.set_passwords(host_->passwords());
        if (next_lane_) return on_first_bytes(bytes, now);
      }
      session_.on_bytes(bytes, now, sink());
      run_events();
      wake();
      if (session_.heartbeat_every() < least_heartbeat_ && !is_hurried_) [[unlikely]]
        hurry();
    });
  }

  void produce(Bytes& out) override {
    guard([&] {
      try {
        session_.produce(out);
      } catch (...) {
        out.clear();  // perhaps half a frame
        session_.fail(protocol::close_for_exception(), sink());
        session_.produce(out);
      }
      if (session_.has_revoked()) refuse_revoked();  // the last of their answers may have gone out
    });
  }

  void on_closed(std::error_code, const std::string&) override {
    const auto self = shared_from_this();
    lane()->remove(this);
    link_.reset();
    session_.charge_role(0);
    for (const auto& [channel, open] : std::exchange(maps_, {})) {
      if (open.sender != 0) open.map->release_sender(*open.inlet, open.sender);
    }
    for (const auto& [map, inlet] : std::exchange(inlets_, {})) map->close_inlet(*inlet.inlet);
    host_->closed(id_, address_, lane()->executor().now());
    // Uploads under way are given up through the same door as closed channels.
    for (const protocol::ChannelId channel : std::exchange(asked_, {})) {
      contain(host_->on_error(), [&] { host_->channel_closed(*this, channel); });
    }
  }

  struct OpenMap {
    std::shared_ptr<HostedBase> map;
    std::uint64_t sender;  ///< whose events come on this channel; 0 until its client asks for one
    std::shared_ptr<EventInlet> inlet;  ///< where they come in; null until then
  };
  /// The maps open on this link, by channel.
  [[nodiscard]] const std::map<protocol::ChannelId, OpenMap>& maps() const { return maps_; }

 private:
  struct Arrived {
    std::shared_ptr<HostedBase> map;
    std::shared_ptr<EventInlet> inlet;
  };
  struct Inlet {
    std::shared_ptr<EventInlet> inlet;
    std::size_t channels = 0;  ///< of this link that have the map open
  };

  /// The senders of one map on this link: one at a time, so that a link takes one place of `Limits::senders_per_map`.
  struct LinkSender {
    std::uint64_t made = 0;  ///< the last one that was new; 0: none
    bool is_held = false;    ///< one of its channels has a sender
  };

  /// Hands what the session wants done to the `perform` for it.
  struct Sink {
    ServerLink* self;
    template <class Action>
    void operator()(Action&& action) const {
      self->perform(action);
    }
  };
  Sink sink() { return Sink{this}; }

  void perform(const protocol::ProofChecked& action) {
    if (!host_->proof_checked(id_, address_, action.standing, lane()->executor().now()))
      session_.set_busy(true);
  }
  void perform(const protocol::ClientAuthenticated& action) {
    peer_->password_index = action.password_index;
    host_->authenticated(id_);
    settle();
  }
  void perform(const protocol::OpenAsked& action) {
    asked_.push_back(action.open.channel);
    host_->open_asked(shared_from_this(), action.open);
  }
  void perform(const protocol::UploadCame& action) {
    host_->upload_came(*this, action.channel, action.bytes);
  }
  void perform(const protocol::UploadEnded& action) {
    host_->upload_ended(shared_from_this(), action.channel);
  }
  void perform(const protocol::UploadGoesOn& action) { host_->upload_goes_on(*this, action.channel); }
  void perform(const protocol::ChannelClosed& action) {
    forget_asked(action.channel);
    forget_map(action.channel);
    host_->channel_closed(*this, action.channel);
  }
  void perform(const protocol::FollowAsked& action) {
    const protocol::ChannelId channel = action.follow.channel;
    if (!may(Action::follow, channel)) {
      session_.refuse(channel, StateErrc::forbidden, {});
    } else if (session_.follow(action.follow)) {
      return;
    }
    perform(protocol::ChannelClosed{channel});
  }
  void perform(const protocol::DiffAsked& action) {
    if (!may(Action::fetch, action.ask.channel)) return refuse_request(action.ask.request);
    session_.send_diff(action.ask);
  }
  void perform(const protocol::HeadAsked& action) {
    if (!may(Action::fetch, action.ask.channel)) return refuse_request(action.ask.request);
    session_.send_head(action.ask);
  }
  void perform(const protocol::FetchAsked& action) { host_->fetch_asked(*this, action.fetch); }
  void perform(const protocol::ListAsked& action) { session_.send_hosted(action.request, *this); }
  void perform(const protocol::SenderAsked& action) {
    const auto found = maps_.find(action.channel);
    if (found == maps_.end()) return;
    OpenMap& open = found->second;
    LinkSender& mine = senders_[open.map->hash()];
    if (mine.is_held) {
      return end(StateErrc::protocol_error,
                 "this link has a sender for this map on another channel: send its events there");
    }
    if (!open.inlet) open.inlet = inlet_for(open.map);
    charge_peer();
    open.sender =
        open.map->hold_sender(*open.inlet, action.known, SenderOwner{peer_->certificate_subject, address_});
    mine.is_held = true;
    if (open.sender != action.known) {
      // However often a link asks, one sender of its making is remembered.
      const std::uint64_t former = std::exchange(mine.made, open.sender);
      if (former != 0) open.map->forget_sender(*open.inlet, former);
    }
    session_.give_sender(action.channel, open.sender);
  }
  void perform(const protocol::EventCame& action) {
    const auto found = maps_.find(action.ticket.channel);
    if (found == maps_.end()) return;
    const auto& [map, sender, inlet] = found->second;
    const auto refusal =
        map->event_came(inlet, action, host_->is_allowed(*peer_, Action::send_event, map->hash()));
    if (refusal) return answer(action.ticket, *refusal);
    if (!inlet->has_arrived) arrived_.push_back(Arrived{map, inlet});
    inlet->has_arrived = true;
  }
  void perform(const protocol::CloseSession& action) {
    report(host_->on_error(), action.cause);
    if (!link_) return;
    // A silent peer would not close its end of the link either, so the link does not wait for it.
    action.reason == StateErrc::peer_silent ? link_->close_without_waiting() : link_->close_gracefully();
  }

  /// Makes this link look at the time more often than its lane does, because its client leaves after a short silence.
  /// Complexity: O(1), and a tick of this link alone each time.
  void hurry() {
    is_hurried_ = true;
    Executor& executor = lane()->executor();
    const auto wait = (std::max)(session_.heartbeat_every() / 2, std::chrono::milliseconds(1));
    executor.post_at(executor.now() + wait, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self || !self->link_ || self->session_.is_over()) return;
      self->tick(self->lane()->executor().now());
      self->hurry();
    });
  }

  /// Takes no more than the proof here: what came behind it belongs to the next lane.
  /// Complexity: O(bytes up to the end of the first frame), of which there are at most
  ///             `Limits::frame_bytes_before_authentication` and its length.
  void on_first_bytes(ByteView bytes, TimePoint now) {
    while (!bytes.empty() && !session_.is_authenticated() && !session_.is_over()) {
      session_.on_bytes(bytes.first(1), now, sink());  // nobody knows yet where the frame ends
      bytes = bytes.subspan(1);
    }
    if (session_.is_authenticated() && !session_.is_over()) return move_on(bytes);
    wake();
  }

  /// The client has proven itself: the link leaves the lane of strangers, and goes on with `rest` on the next one.
  void move_on(ByteView rest) {
    if (!link_) return;
    auto then = [self = shared_from_this(), rest = Bytes(rest.begin(), rest.end())] {
      self->guard([&] {
        self->has_moved_.store(true, std::memory_order_release);
        self->next_lane_->add(self);
        // `stop` may have been at the lane already.
        if (self->host_->is_stopped()) return self->end(StateErrc::stopped, "the server stops");
        self->wake();
        if (!rest.empty()) self->on_bytes(rest);
      });
    };
    leaves_ = true;
    first_lane_->remove(this);
    link_->move_on(std::move(then));
  }

  /// The link can be found by its peer from now on, also while it moves to its next lane.
  void settle() {
    if (!host_->settle(shared_from_this())) disconnect();
  }

  /// Refuses the revoked channels whose events are all answered.
  void refuse_revoked() {
    for (const protocol::ChannelId channel : session_.take_revoked()) {
      session_.refuse(channel, StateErrc::forbidden, "the server's rules have changed");
      perform(protocol::ChannelClosed{channel});
    }
  }

  /// Whether the peer may do this with the map open on `channel`.
  [[nodiscard]] bool may(Action action, protocol::ChannelId channel) const {
    const auto found = maps_.find(channel);
    return found != maps_.end() && host_->is_allowed(*peer_, action, found->second.map->hash());
  }

  void refuse_request(protocol::ChannelId request) { session_.refuse(request, StateErrc::forbidden, {}); }

  /// Has the events run that came together. Those before wrong bytes, too.
  void run_events() {
    const std::vector<Arrived> arrived = std::exchange(arrived_, {});
    for (const Arrived& of : arrived) {
      of.inlet->has_arrived = false;
      of.map->run_events(*of.inlet);
    }
  }

  /// The channel is answered, or gone. Complexity: O(log n), and moves few bytes.
  void forget_asked(protocol::ChannelId channel) {
    const auto found = std::lower_bound(asked_.begin(), asked_.end(), channel);
    if (found != asked_.end() && *found == channel) asked_.erase(found);
  }

  /// Not even the goodbye could be made.
  void give_up(std::exception_ptr error) noexcept {
    report(host_->on_error(), std::move(error));
    contain(host_->on_error(), [this] { abort(); });
  }

  /// The lane wakes us for a map as long as one channel has it open.
  void forget_map(protocol::ChannelId channel) {
    const auto found = maps_.find(channel);
    if (found == maps_.end()) return;
    const OpenMap closed = std::move(found->second);
    maps_.erase(found);
    if (closed.sender != 0) {
      closed.map->release_sender(*closed.inlet, closed.sender);
      senders_[closed.map->hash()].is_held = false;
    }
    if (closed.inlet) release_inlet(closed.map);
    charge_peer();
    lane()->remove_follower(closed.map->source().get(), this);
  }

  /// Charges what this link keeps of its client's certificate, and for its senders: for each map a `LinkSender`, until the
  /// link is gone, and while one of its channels has a sender, or events of it wait, an inlet, its queue, and the sender's
  /// place and owner.
  /// Complexity: O(1).
  void charge_peer() {
    const std::size_t names = peer_->certificate_subject.size() + address_.size() + peer_->address.size();
    session_.charge_role(peer_bytes_ + senders_.size() * link_sender_bytes +
                         inlets_.size() * (inlet_bytes + 2 * names));
  }

  /// One inlet for all channels of a map, so that the events of this link run in the order in which they came.
  const std::shared_ptr<EventInlet>& inlet_for(const std::shared_ptr<HostedBase>& map) {
    Inlet& inlet = inlets_[map];
    if (!inlet.inlet) inlet.inlet = map->make_inlet(shared_from_this());
    ++inlet.channels;
    return inlet.inlet;
  }

  /// Keeps the inlet while events of it wait: the map may be opened again on this link.
  void release_inlet(const std::shared_ptr<HostedBase>& map) {
    const auto found = inlets_.find(map);
    if (found == inlets_.end()) return;  // never
    if (--found->second.channels == 0 && map->is_idle(*found->second.inlet)) {
      map->close_inlet(*found->second.inlet);
      inlets_.erase(found);
    }
  }

  /// Returns the shortest time between heartbeats for which a lane that ticks so often looks at the time often enough.
  static Duration served_by(Duration tick) {
    return tick > std::chrono::milliseconds(1) ? 2 * tick
                                               : Duration::zero();  // no link ticks more often than that
  }

  static constexpr std::size_t block_bytes = 16;  // what the allocator adds to a block
  static constexpr std::size_t node_bytes = 48;   // what a container adds to an element
  static constexpr std::size_t link_sender_bytes = sizeof(MapHash) + sizeof(LinkSender) + node_bytes;
  static constexpr std::size_t inlet_bytes = sizeof(Inlet) + 2 * node_bytes + sizeof(EventInlet) +
                                             sizeof(EventQueue) + 6 * block_bytes +
                                             SenderTable::sender_bytes + SenderTable::owner_bytes;

  std::shared_ptr<ServerHost> host_;
  const std::shared_ptr<Lane> first_lane_;
  const std::shared_ptr<Lane> next_lane_;  // once the client has proven itself; or null
  std::atomic<bool> has_moved_{false};     // to the next lane; set there
  bool leaves_ = false;                    // the first lane, on whose executor alone this is looked at
  bool is_hurried_ = false;                // see `hurry`
  std::shared_ptr<Link> link_;             // until on_closed, which breaks the circle
  std::uint64_t id_;
  std::string address_;
  const Duration least_heartbeat_;  // see `served_by`; all lanes of a server tick as often
  std::shared_ptr<Peer> peer_;      // null until on_open; shared and constant once the link has settled
  std::size_t peer_bytes_ = 0;      // see `certificate_bytes`
  protocol::ServerSession session_;
  std::map<protocol::ChannelId, OpenMap> maps_;
  std::unordered_map<std::shared_ptr<HostedBase>, Inlet> inlets_;
  std::map<MapHash, LinkSender> senders_;
  std::vector<protocol::ChannelId> asked_;  // ascending, as a client numbers its channels
  std::vector<Arrived> arrived_;            // within `on_bytes` only
};

// What a lane does with its links, here where they are known.

inline void Lane::add(const std::shared_ptr<ServerLink>& link) {
  links_[link->id()] = link;
  if (!is_ticking_) schedule_tick();
}

inline void Lane::remove(const ServerLink* link) {
  for (const auto& [channel, open] : link->maps()) remove_follower(open.map->source().get(), link);
  links_.erase(link->id());
}

inline void Lane::run_round() {
  std::vector<const protocol::DiffSource*> changed;
  std::vector<ReadyAnswers> answers;
  {
    const std::lock_guard lock(mutex_);
    is_round_due_ = false;
    if (!is_resting_) {
      changed.swap(changed_);
      changed_set_.clear();
    }
    answers.swap(answers_);
  }
  const TimePoint began = executor_->now();
  std::size_t woken = 0;
  UpdateId commits = 0;
  for (const protocol::DiffSource* map : changed) {
    const auto found = followers_.find(map);
    if (found == followers_.end()) continue;
    Followers& followers = found->second;
    const UpdateId head = map->head().update_id;
    commits += head - std::exchange(followers.told, head);
    woken += followers.links().size();
    for (ServerLink* link : followers.links())
      link->map_changed(map);  // never calls back, so the list stays as it is
  }
  if (woken > 0) pace_.begin(began, commits);
  if (woken > few) {
    // Behind the turns of those just woken.
    executor_->defer([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->rest();
    });
  }
  for (ReadyAnswers& ready : answers) {
    if (const auto link = ready.link.lock()) {
      link->guard([&] {
        for (EventAnswer& answer : ready.answers) link->answer(answer.event, std::move(answer.outcome));
        if (ready.end) link->end(*ready.end);
        link->wake();
      });
    }
  }
}

inline void Lane::run_tick() {
  is_ticking_ = false;
  const TimePoint now = executor_->now();
  const auto links = this->links();  // a tick may end a link, and an ending link leaves the list
  for (const auto& link : links) link->tick(now);
  if (!links_.empty()) schedule_tick();
}

}  // namespace syncstate::detail

#endif
