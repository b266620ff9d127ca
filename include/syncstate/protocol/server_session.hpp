// The server's side of one connection: bytes and time in, actions and bytes out.
#ifndef SYNCSTATE_PROTOCOL_SERVER_SESSION_HPP
#define SYNCSTATE_PROTOCOL_SERVER_SESSION_HPP

#include <algorithm>
#include <cassert>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "syncstate/detail/chain.hpp"
#include "syncstate/detail/lazy_queue.hpp"
#include "syncstate/detail/limit_text.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/protocol/diff_stream.hpp"
#include "syncstate/protocol/frame.hpp"
#include "syncstate/protocol/hosted_source.hpp"
#include "syncstate/protocol/memory_account.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/passwords.hpp"
#include "syncstate/protocol/peer_limits.hpp"
#include "syncstate/protocol/proof.hpp"
#include "syncstate/protocol/session.hpp"

namespace syncstate::protocol {

/// A client's proof was checked, and the answer is not made yet. The role counts it; it may call `set_busy(true)` in the
/// sink, and then the answer is `busy`, right or wrong.
struct ProofChecked {
  ProofStanding standing;
};
/// The client proved that it knows a password.
struct ClientAuthenticated {
  std::size_t password_index;  ///< which of `Passwords::current`, as they were at the time of the proof
};
/// A map is to be opened: answer with `opened`, `want_upload` or `refuse`, now or later.
struct OpenAsked {
  Open open;
};
/// A piece of an upload that was wanted; the bytes die with the call.
struct UploadCame {
  ChannelId channel;
  ByteView bytes;
};
/// The upload is whole: answer with `opened` or `refuse`.
struct UploadEnded {
  ChannelId channel;
};
/// An upload has gone on for another `Limits::upload_patience`: somebody else may be asked for the map, too.
struct UploadGoesOn {
  ChannelId channel;
};
/// The client gave a channel up, or it was refused; whatever was asked on it needs no answer.
struct ChannelClosed {
  ChannelId channel;
};
/// An initial state is wanted: answer with `send_initial` or `refuse`.
struct FetchAsked {
  Fetch fetch;
};
/// The hosted maps are wanted: answer with `send_hosted`.
struct ListAsked {
  ChannelId request;
};
/// Diffs of an open map are wanted: answer with `follow` or `refuse`.
struct FollowAsked {
  Follow follow;
};
/// One diff of an open map is wanted: answer with `send_diff` or `refuse`.
struct DiffAsked {
  GetDiff ask;
};
/// The head of an open map is wanted: answer with `send_head` or `refuse`.
struct HeadAsked {
  GetUpdateId ask;
};
/// A sender is wanted for an open map: answer with `give_sender`, now or later.
struct SenderAsked {
  ChannelId channel;
  std::uint64_t known;  ///< the one that the client had before, or 0
};
/// Which event an answer is for; made by the session, given back with the answer.
struct EventTicket {
  ChannelId channel = 0;
  std::uint64_t number = 0;
  std::size_t bytes = 0;  ///< what it holds of `Limits::event_bytes_in_flight`
};
/// An event came for an open map: answer with `answer` or `answer_error`, and its ticket.
struct EventCame {
  EventTicket ticket;
  std::uint64_t sender;     ///< the one given to its channel
  const std::string* type;  ///< as the client named it on this channel; dies with the call
  ByteView bytes;           ///< dies with the call
};
/// What a server session wants done.
using ServerAction = std::variant<ProofChecked, ClientAuthenticated, OpenAsked, UploadCame, UploadEnded,
                                  UploadGoesOn, ChannelClosed, FollowAsked, DiffAsked, HeadAsked, FetchAsked,
                                  ListAsked, SenderAsked, EventCame, CloseSession>;

/// One connection's protocol state on the server, without any I/O.
///
/// `on_bytes` and `on_tick` give actions to a sink, any callable that takes each alternative of
/// `ServerAction`; the sink may call back into the session. `produce` gives the bytes to send. Diffs are
/// pulled from the maps when the link can take them, so nothing is ever queued for a slow peer but a
/// position.
///
/// Memory  : everything that the client makes the session and its role hold is charged to one account
///           (`Limits::link_bytes`); beyond it the session ends with `busy`. What events take that wait for their hooks is
///           bounded by `Limits::event_bytes_in_flight` besides.
/// Threads : one at a time.
/// Lifetime: `limits` outlives the session.
class ServerSession {
 public:
  /// `account`: of all links of the server, or null where there is no other link.
  ServerSession(const Limits& limits, TimePoint accepted_at, std::shared_ptr<ServerAccount> account = nullptr)
      : limits_(&limits),
        account_(limits, std::move(account)),
        frames_(limits.frame_bytes_before_authentication, "frame_bytes_before_authentication"),
        accepted_at_(accepted_at),
        last_heard_(accepted_at),
        last_heartbeat_(accepted_at),
        last_named_(accepted_at) {}
  ServerSession(const ServerSession&) = delete;
  ServerSession& operator=(const ServerSession&) = delete;
  ~ServerSession() {
    end();
    drop_control();
    charge_role(0);
    recharge(output_bytes_, 0);
  }

  /// The link is secured. `passwords` may be refused wholesale: with `busy`, every proof is turned away
  /// unseen.
  void on_open(std::shared_ptr<const Passwords> passwords, Bytes channel_binding, bool is_busy,
               TimePoint now) {
    passwords_ = std::move(passwords);
    binding_ = std::move(channel_binding);
    is_busy_ = is_busy;
    last_heard_ = now;
  }

  /// As `passwords` of `on_open`, until the client has proved itself.
  void set_passwords(std::shared_ptr<const Passwords> passwords) { passwords_ = std::move(passwords); }

  /// As `is_busy` of `on_open`, until the client has proved itself.
  void set_busy(bool is_busy) { is_busy_ = is_busy; }

  /// Bytes came.
  template <class Sink>
  void on_bytes(ByteView in, TimePoint now, Sink&& sink) {
    if (is_over_) return;
    last_heard_ = now;
    try {
      frames_.feed(in, [&](const Frame& frame) {
        handle(frame, now, sink);
        return !is_over_;
      });
      charge_frames();
      if (!is_over_) account_.expect_room();
    } catch (...) {
      fail(close_for_exception(), sink);  // this session ends, the process goes on
    }
  }

  /// Does what is due at `now`. Call it several times within the shortest time of the limits, see
  /// `detail::tick_period`.
  template <class Sink>
  void on_tick(TimePoint now, Sink&& sink) {
    if (is_over_) return;
    if (!is_authenticated_) {
      if (now - accepted_at_ >= limits_->authentication_time) {
        fail(StateErrc::peer_silent, "no proof of the password in time", sink);
      }
      return;
    }
    if (now - last_heard_ >= limits_->silence) {
      return fail(StateErrc::peer_silent, "nothing came from the client for too long", sink);
    }
    if (now - last_heartbeat_ >= heartbeat_every_) {
      last_heartbeat_ = now;
      is_heartbeat_due_ = true;
      if (peer_.heartbeat_names_streams(*limits_, now - last_named_)) {
        last_named_ = now;
        heartbeat_names_streams_ = true;
        look_at_maps();  // nobody has to rely on `map_changed`
      }
    }
    give_up_slow_uploads(now, sink);
  }

  /// A map may have committed: the channels that follow it have something to send.
  /// Complexity: O(channels that have this map open).
  void map_changed(const DiffSource* map) {
    const auto found = opened_.find(map);
    if (found != opened_.end()) mark_behind(found->second);
  }

  /// As `map_changed` for every map. Complexity: O(channels).
  void look_at_maps() {
    for (auto& [map, opened] : opened_) mark_behind(opened);
  }

  /// Appends what is to be sent next, some `Limits::piece_bytes` at a time; nothing when there is nothing.
  /// Complexity: O(what is appended), whatever else is open on the link; a heartbeat is O(channels followed).
  /// Errors: what a codec throws; the session is then of no more use than to `fail`.
  ///
  /// The link keeps what it got until the kernel takes it, and calls again then: so it is charged until the next call.
  void produce(Bytes& out) {
    if (!control_.empty()) {
      out.insert(out.end(), control_.begin(), control_.end());
      drop_control();
    }
    if (!is_over_ && is_authenticated_) {
      if (is_heartbeat_due_) append_heartbeat(out);
      if (answers_waiting_ != 0) bring_answers();
      produce_turns(out);
      append_answers(out);
    }
    recharge(output_bytes_, out.size());
  }

  /// True when `produce` would give something. What a map has committed counts once `map_changed` told of it, or an answer
  /// waits for it.
  /// Complexity: O(1); while answers wait, O(channels of the maps they are about).
  [[nodiscard]] bool wants_to_send() const {
    if (!control_.empty()) return true;
    if (is_over_ || !is_authenticated_) return false;
    return is_heartbeat_due_ || !turns_.empty() || (answers_waiting_ != 0 && brings_answers());
  }

  [[nodiscard]] bool is_authenticated() const { return is_authenticated_; }
  [[nodiscard]] bool is_over() const { return is_over_; }
  /// How often a heartbeat is due: `on_tick` is to be called at least twice in that time.
  [[nodiscard]] std::chrono::milliseconds heartbeat_every() const { return heartbeat_every_; }

  /// The bytes that wait here to be sent, or for the rest of what they are part of: all that a slow peer holds
  /// besides positions. Bounded by `Limits`, whatever the map does meanwhile.
  /// Complexity: O(channels and answers that wait).
  [[nodiscard]] std::size_t buffered_bytes() const {
    std::size_t bytes = control_.size() + frames_.pending_bytes() + partial_event_bytes_;
    for (const auto& [id, channel] : channels_) bytes += bytes_of_answers(channel);
    return bytes;
  }

  /// The bytes that this link holds in the server, as charged to its account.
  [[nodiscard]] std::size_t held_bytes() const { return account_.bytes(); }

  /// Computes the same from what there is; tests compare the two.
  /// Complexity: O(channels, answers and requests).
  [[nodiscard]] std::size_t counted_bytes() const {
    std::size_t bytes = control_.capacity() + frame_bytes_ + output_bytes_ + held_by_role_;
    for (const auto& [id, channel] : channels_) bytes += bytes_of(channel);
    return bytes + requests_.size() * request_bytes;
  }

  /// The role holds this many bytes for the link by now, besides what each open channel is charged for. Beyond
  /// `Limits::link_bytes` the session ends with `busy` when what came has been handled.
  void charge_role(std::size_t bytes) { recharge(held_by_role_, bytes); }

  // What the role answers.

  /// The map asked for on `channel` is hosted: diffs flow if the client asked to follow.
  ///
  /// Returns whether the channel is open now: it may be closed since it was asked for, and is refused at once
  /// if its position lies ahead of the master. If so, call `early_ask_of` next.
  bool opened(ChannelId channel, std::shared_ptr<DiffSource> source) {
    const auto found = channels_.find(channel);
    if (found == channels_.end() || is_over_) return false;
    Channel& c = found->second;
    if (c.state == Channel::State::uploading) uploading_.remove(c);  // another client's came first
    c.state = Channel::State::open;
    c.source = std::move(source);
    c.opened = &opened_[c.source.get()];
    c.opened->channels.push_back(c);
    send_now(Opened{channel, c.source->head()});
    return c.mode == FollowMode::none || start_stream(channel, c, c.wished, c.mode);
  }

  /// The sender that was asked for on this channel before it was open: to be treated as `SenderAsked` now. Gives each
  /// ask once.
  [[nodiscard]] std::optional<SenderAsked> early_ask_of(ChannelId channel) {
    const auto found = channels_.find(channel);
    if (found == channels_.end() || found->second.sender_state != SenderState::asked_early)
      return std::nullopt;
    found->second.sender_state = SenderState::asked;
    return SenderAsked{channel, found->second.sender};
  }

  /// The events of `channel` are `sender`'s from now on; never 0. Ignored if the channel was closed meanwhile.
  void give_sender(ChannelId channel, std::uint64_t sender) {
    const auto found = channels_.find(channel);
    if (found == channels_.end() || is_over_) return;
    found->second.sender = sender;
    found->second.sender_state = SenderState::given;
    send_now(SenderMessage{channel, sender});
  }

  /// The server has no such map: the client is to send its initial state.
  void want_upload(ChannelId channel) {
    const auto found = channels_.find(channel);
    if (found == channels_.end() || is_over_) return;
    if (found->second.state != Channel::State::asked) return;  // it was opened meanwhile
    found->second.state = Channel::State::uploading;
    uploading_.push_back(found->second);
    found->second.is_upload_under_way = true;
    send_now(UploadWanted{channel});
  }

  /// Starts the diffs that `FollowAsked` is about.
  ///
  /// Returns whether the channel is open still: it is refused at once if its position lies ahead of the master.
  bool follow(const Follow& follow) {
    const auto found = channels_.find(follow.channel);
    if (found == channels_.end() || is_over_) return false;
    return start_stream(follow.channel, found->second, follow.position, follow.mode);
  }

  /// Sends the diff that `DiffAsked` is about.
  void send_diff(const GetDiff& ask) {
    const auto found = channels_.find(ask.channel);
    if (found == channels_.end() || is_over_) return;
    const std::shared_ptr<DiffSource>& source = found->second.source;
    const Position head = source->head();
    if ((ask.from.epoch == 0 && ask.from.update_id != 0) ||
        (ask.from.epoch == head.epoch && ask.from.update_id > head.update_id)) {
      return refuse(ask.request, StateErrc::wrong_position, "this position lies ahead of the master");
    }
    add_request(DiffStream(ask.request, source, ask.from, ask.upto, *limits_, piece_bytes_));
  }

  /// Tells where the head is that `HeadAsked` is about.
  void send_head(const GetUpdateId& ask) {
    const auto found = channels_.find(ask.channel);
    if (found == channels_.end() || is_over_) return;
    send_now(UpdateIdMessage{ask.request, found->second.source->head()});
  }

  /// What was asked with this channel or request is not done.
  void refuse(ChannelId channel, StateErrc reason, std::string detail, std::optional<MapHash> other = {}) {
    if (is_over_) return;
    drop_channel(channel);
    send_now(Refused{channel, reason, peer_.fit(std::move(detail)), other});
  }

  /// Whether diffs flow on this channel.
  [[nodiscard]] bool is_followed(ChannelId channel) const {
    const auto found = channels_.find(channel);
    return found != channels_.end() && found->second.stream != nullptr;
  }

  /// The client may not have this open channel any longer: no diff flows from now on, and what comes for the channel is
  /// dropped as if it were closed. The channel is one of `take_revoked` as soon as every event that came before is answered.
  void revoke(ChannelId channel) {
    const auto found = channels_.find(channel);
    if (found == channels_.end() || is_over_) return;
    if (std::exchange(found->second.is_revoked, true)) return;
    end_stream(found->second);
    revoked_.push_back(channel);
  }

  /// Whether a channel was revoked and is not refused yet.
  [[nodiscard]] bool has_revoked() const { return !revoked_.empty(); }

  /// The revoked channels on which no event waits for its answer: to be refused now. Each is given once.
  /// Complexity: O(revoked channels).
  [[nodiscard]] std::vector<ChannelId> take_revoked() {
    std::vector<ChannelId> ready;
    std::erase_if(revoked_, [&](ChannelId id) {
      const auto found = channels_.find(id);
      if (found == channels_.end()) return true;
      if (found->second.unfinished != 0) return false;
      ready.push_back(id);
      return true;
    });
    return ready;
  }

  /// Refuses the requests whose answers are not wholly sent and for whose map `is_refused` returns true.
  /// Complexity: O(requests), and a call for each.
  template <std::predicate<const MapHash&> F>
  void refuse_requests(StateErrc reason, F&& is_refused) {
    std::vector<ChannelId> refused;
    // Each goes around once, so that their order stays.
    for (std::size_t left = requests_.size(); left > 0; --left) {
      Request request = std::move(requests_.front());
      requests_.pop_front();
      const auto [id, source] = request_source(request);
      const MapHash* const map = source == nullptr ? nullptr : source->map_hash();
      if (map == nullptr || !is_refused(*map)) {
        requests_.push_back(std::move(request));
        continue;
      }
      account_.give_back(request_bytes);
      refused.push_back(id);
    }
    if (requests_.empty()) turns_.remove(requests_turn_);
    for (const ChannelId id : refused) refuse(id, reason, {});
  }

  /// Sends a map's initial state.
  void send_initial(ChannelId request, std::shared_ptr<const InitialSource> source) {
    if (!is_over_) add_request(InitialRequest{request, std::move(source)});
  }

  /// Sends the list of hosted maps, which outlive the session. They are listed when their turn comes, a frame at a time,
  /// and until then a list takes no more than any request.
  void send_hosted(ChannelId request, HostedSource& maps) {
    if (!is_over_) add_request(ListRequest{request, &maps, std::nullopt});
  }

  /// The event committed as `update_id`, or changed nothing and met the head `update_id`.
  void answer(const EventTicket& event, UpdateId update_id) {
    queue_answer(event, PendingAnswers{event.number, 1, update_id, update_id, StateErrc{}, nullptr});
  }

  /// The event had no effect, or its effect is not known. `detail` may be null, and is no longer than `shorten` leaves it.
  void answer_error(const EventTicket& event, StateErrc reason, std::shared_ptr<const std::string> detail) {
    queue_answer(event, PendingAnswers{event.number, 1, 0, 0, reason, std::move(detail)});
  }
  void answer_error(const EventTicket& event, StateErrc reason, std::string detail) {
    answer_error(event, reason, std::make_shared<const std::string>(shorten(std::move(detail))));
  }

  /// Ends the session from this side, for this reason.
  template <class Sink>
  void fail(StateErrc reason, const std::string& detail, Sink&& sink) {
    fail(CloseSession{reason, detail}, sink);
  }
  template <class Sink>
  void fail(const CloseSession& why, Sink&& sink) {
    if (is_over_) return;
    end();
    send_now(Goodbye{why.reason, peer_.fit(why.detail)});
    sink(why);
  }

 private:
  /// Answers to events in a row, each committed by the update after that of the one before; or one error.
  struct PendingAnswers {
    std::uint64_t number;
    std::uint64_t count;
    UpdateId update_id;
    UpdateId due_at;  ///< the first not before the peer has this update, each other one an update later
    StateErrc error;
    std::shared_ptr<const std::string> detail;

    [[nodiscard]] bool is_followed_by(const PendingAnswers& next) const {
      return error == StateErrc{} && next.error == StateErrc{} && next.number == number + count &&
             next.update_id == update_id + count;
    }
  };

  /// The type of events before their client named it.
  static const std::string& no_type() {
    static const std::string empty;
    return empty;
  }

  enum class SenderState : std::uint8_t { none, asked_early, asked, given };

  /// Something that takes its turn in what is sent: a channel that is behind, or all requests together.
  struct Turn {
    detail::ChainPlace<Turn> turn;
  };
  struct OpenMap;

  struct Channel : Turn {
    enum class State { asked, uploading, uploaded, open };
    ChannelId id = 0;
    State state = State::asked;
    OpenMap* opened = nullptr;  ///< the channels of the same map; null until it is open
    detail::ChainPlace<Channel> place_in_opened;
    detail::ChainPlace<Channel> place_in_answering;
    detail::ChainPlace<Channel> place_in_uploading;
    Position wished;
    FollowMode mode = FollowMode::none;
    std::shared_ptr<DiffSource> source;
    std::unique_ptr<DiffStream> stream;
    std::shared_ptr<const std::string> event_type;  ///< null: none was named
    Bytes event_bytes;                              ///< the parts that came of an event that is not whole
    std::uint64_t dropped_event_bytes = 0;          ///< that came of one that is too large, and are not kept
    detail::LazyQueue<PendingAnswers> answers;
    std::size_t unanswered = 0;  ///< how many events they answer
    std::size_t unfinished = 0;  ///< events without an answer sent, also those that have not run
    std::uint64_t sender = 0;    ///< whose events come here, or the one that was asked for early
    SenderState sender_state = SenderState::none;
    bool was_followed = false;
    bool is_revoked = false;                    ///< see `revoke`
    std::optional<TimePoint> upload_wanted_at;  ///< as of the first tick after it was
    TimePoint upload_heard_at{};
    TimePoint upload_went_on_at{};     ///< when that was told last
    bool is_upload_under_way = false;  ///< it was asked for, and its end has not come
  };

  /// The channels that have one map open.
  struct OpenMap {
    detail::Chain<Channel, &Channel::place_in_opened> channels;
    UpdateId reached = 0;         ///< see `reached_by`, as of the round of answers `as_of`
    std::uint64_t as_of = 0;      ///< 0: of none
    std::uint64_t marked_in = 0;  ///< the last round in which answers had its streams take their turns
  };

  struct InitialRequest {
    ChannelId request;
    std::shared_ptr<const InitialSource> source;
    InitialCursor cursor{};
  };
  struct ListRequest {
    ChannelId request;
    HostedSource* maps;
    std::optional<MapHash> after;
  };
  using Request = std::variant<DiffStream, InitialRequest, ListRequest>;

  // What things take, with what the allocator adds and with what the role keeps for them.
  static constexpr std::size_t allocation_bytes = 16;
  static constexpr std::size_t node_bytes = 48;
  /// Of one channel in the role: that it waits for its map, uploads it, or follows it.
  static constexpr std::size_t role_bytes = 1'024;
  static constexpr std::size_t channel_bytes =
      sizeof(OpenMap) + node_bytes + sizeof(Channel) + sizeof(ChannelId) + node_bytes + role_bytes;
  static constexpr std::size_t stream_bytes =
      sizeof(DiffStream) + DiffStream::kept_bytes + 2 * allocation_bytes;
  /// Twice, for a queue has room for as many again.
  static constexpr std::size_t request_bytes =
      2 * sizeof(Request) + DiffStream::kept_bytes + allocation_bytes;
  static constexpr std::size_t text_bytes = sizeof(std::string) + 4 * allocation_bytes;

  /// Of a type that is this channel's alone, perhaps.
  static std::size_t bytes_of_type(const Channel& channel) {
    return channel.event_type ? text_bytes + channel.event_type->size() : 0;
  }
  static std::size_t bytes_of(const PendingAnswers& answers) {
    return 2 * sizeof answers + (answers.detail ? text_bytes + answers.detail->size() : 0);
  }
  static std::size_t bytes_of_answers(const Channel& channel) {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < channel.answers.size(); ++i) bytes += bytes_of(channel.answers[i]);
    return bytes;
  }
  static std::size_t bytes_of(const Channel& channel) {
    return channel_bytes + (channel.stream ? stream_bytes : 0) + bytes_of_type(channel) +
           channel.event_bytes.capacity() + bytes_of_answers(channel);
  }

  /// Charges `now` bytes in place of `before`, and remembers them there.
  void recharge(std::size_t& before, std::size_t now) {
    if (now == before) return;
    now > before ? account_.add(now - before) : account_.give_back(before - now);
    before = now;
  }
  void charge_frames() { recharge(frame_bytes_, frames_.held_bytes()); }

  /// Appends a frame that goes before all else.
  template <class Message>
  void send_now(const Message& message) {
    const std::size_t before = control_.capacity();
    append_frame(control_, message);
    account_.add(control_.capacity() - before);
  }
  void drop_control() {
    account_.give_back(control_.capacity());
    Bytes().swap(control_);
  }

  void add_request(Request request) {
    requests_.push_back(std::move(request));
    turns_.push_back(requests_turn_);
    account_.add(request_bytes);
  }

  void end_stream(Channel& channel) {
    if (!channel.stream) return;
    channel.stream.reset();
    turns_.remove(channel);
    account_.give_back(stream_bytes);
  }

  /// The id of a request, and what it reads; null for a list.
  static std::pair<ChannelId, const InitialSource*> request_source(const Request& request) {
    if (const auto* const diff = std::get_if<DiffStream>(&request)) return {diff->id(), &diff->source()};
    if (const auto* const initial = std::get_if<InitialRequest>(&request)) {
      return {initial->request, initial->source.get()};
    }
    return {std::get<ListRequest>(request).request, nullptr};
  }

  template <class Sink>
  void handle(const Frame& frame, TimePoint now, Sink& sink) {
    if (!is_authenticated_) {
      if (frame.kind != FrameKind::hello) break_off("the first frame must be a hello");
      authenticate(decode_body<Hello>(frame.body), now, sink);
      return;
    }
    // Whatever is answered at once waits here for a peer that does not read.
    if (control_.size() > most_control_bytes()) {
      throw StateError(
          StateErrc::busy,
          detail::beyond_limit(detail::of_bytes("this client has not read answers", control_.size()),
                               "frame_bytes", limits_->frame_bytes));
    }
    switch (frame.kind) {
      case FrameKind::heartbeat: return on_heartbeat(frame.body);
      case FrameKind::goodbye: return on_goodbye(decode_body<Goodbye>(frame.body), sink);
      case FrameKind::open: return on_open_map(decode_body<Open>(frame.body), sink);
      case FrameKind::upload: return on_upload(decode_body<Upload>(frame.body), now, sink);
      case FrameKind::upload_end: return on_upload_end(decode_body<UploadEnd>(frame.body).channel, sink);
      case FrameKind::close_channel:
        return on_close_channel(decode_body<CloseChannel>(frame.body).channel, sink);
      case FrameKind::follow: return on_follow(decode_body<Follow>(frame.body), sink);
      case FrameKind::unfollow: return on_unfollow(decode_body<Unfollow>(frame.body).channel);
      case FrameKind::get_update_id: return on_get_update_id(decode_body<GetUpdateId>(frame.body), sink);
      case FrameKind::get_diff: return on_get_diff(decode_body<GetDiff>(frame.body), sink);
      case FrameKind::fetch: {
        auto fetch = decode_body<Fetch>(frame.body);
        expect_new_id(fetch.request);
        expect_room_for_request();
        if (is_too_long(fetch.key_type) || is_too_long(fetch.value_type)) {
          return refuse(fetch.request, StateErrc::too_large, type_too_long());
        }
        sink(FetchAsked{std::move(fetch)});
        return;
      }
      case FrameKind::list: {
        const ChannelId request = decode_body<List>(frame.body).channel;
        expect_new_id(request);
        expect_room_for_request();
        sink(ListAsked{request});
        return;
      }
      case FrameKind::event_type: return on_event_type(decode_body<EventType>(frame.body));
      case FrameKind::event_part: return on_event_part(decode_body<EventPart>(frame.body));
      case FrameKind::event: return on_event(decode_body<EventMessage>(frame.body), sink);
      case FrameKind::get_sender: return on_get_sender(decode_body<GetSender>(frame.body), sink);
      case FrameKind::limits: return on_limits(decode_body<ClientLimits>(frame.body));
      case FrameKind::hello:
      case FrameKind::welcome:
      case FrameKind::opened:
      case FrameKind::upload_wanted:
      case FrameKind::refused:
      case FrameKind::update_id:
      case FrameKind::state:
      case FrameKind::state_end:
      case FrameKind::hosted:
      case FrameKind::step:
      case FrameKind::diff:
      case FrameKind::transfer:
      case FrameKind::value_part:
      case FrameKind::answer:
      case FrameKind::answer_error:
      case FrameKind::sender: break;
    }
    break_off("a frame that a client never sends");
  }

  template <class Sink>
  void authenticate(const Hello& hello, TimePoint now, Sink& sink) {
    if (hello.oldest_version > protocol_version || hello.newest_version < protocol_version) {
      return fail(StateErrc::version_mismatch,
                  "this server speaks version " + std::to_string(protocol_version), sink);
    }
    static constexpr const char* busy_text =
        "too many failed proofs from this address: try again in a minute";
    if (is_busy_) return fail(StateErrc::busy, busy_text, sink);
    const CheckedProof checked =
        passwords_ ? check_client_proof(hello.proof, *passwords_, binding_) : CheckedProof{};
    sink(ProofChecked{checked.standing});
    if (is_busy_) return fail(StateErrc::busy, busy_text, sink);
    if (checked.standing != ProofStanding::right) return fail(StateErrc::unauthorized, "", sink);
    // What a link may hold at all bounds what it may send at a time.
    send_now(Welcome{
        .version = protocol_version,
        .events_in_flight = limits_->events_in_flight,
        .event_bytes_in_flight = limits_->event_bytes_in_flight,
        .event_bytes = std::min<std::size_t>(limits_->event_bytes, limits_->link_bytes / 2),
        .requests_in_flight = limits_->requests_in_flight,
        .channels = limits_->maps,
        .frame_bytes = (std::max<std::uint64_t>)(least_frame_bytes,
                                                 (std::min)(limits_->frame_bytes, limits_->link_bytes / 4)),
        .silence_ms = static_cast<std::uint64_t>(limits_->silence.count()),
        .proof = make_proof(passwords_->current[checked.index], ProofRole::server, binding_)});
    Bytes().swap(binding_);
    passwords_.reset();
    is_authenticated_ = true;
    last_heartbeat_ = last_named_ = now;
    frames_.set_max_frame_bytes(limits_->frame_bytes);
    sink(ClientAuthenticated{checked.index});
  }

  void on_heartbeat(ByteView body) {
    ByteReader in(body);
    while (!in.is_at_end()) HeartbeatEntry::decode(in);  // where a replica stands is for people and for later
  }

  /// The client sends this before its first channel or request, so nothing that depends on it was sent yet.
  void on_limits(const ClientLimits& told) {
    if (last_id_ != 0) break_off("limits after the first channel or request");
    if (told.frame_bytes < least_frame_bytes) break_off("a client that takes no frames of 128 bytes");
    peer_ = PeerLimits{told.frame_bytes, bounded_ms(told.silence_ms)};
    piece_bytes_ = own_piece_bytes();
    heartbeat_every_ = peer_.heartbeat_every(*limits_);
  }

  /// No piece is larger than a fourth of what the link may hold at all.
  [[nodiscard]] std::size_t own_piece_bytes() const {
    const std::size_t room = (std::max)(limits_->link_bytes / 4, std::size_t{1});
    return peer_.piece_bytes((std::min)(limits_->piece_bytes, room));
  }

  /// Returns how many bytes of answers an honest client, which opens and asks no more than it may, can have waiting
  /// here; at least one frame.
  [[nodiscard]] std::size_t most_control_bytes() const {
    constexpr std::size_t answer_bytes = 512;
    return (std::max)(limits_->frame_bytes, answer_bytes * (limits_->maps + limits_->requests_in_flight));
  }

  template <class Sink>
  void on_goodbye(const Goodbye& goodbye, Sink& sink) {
    end();
    sink(CloseSession{StateErrc::link_closed, goodbye.detail});
  }

  /// Nothing is answered any more; what is kept for that goes at once.
  void end() {
    is_over_ = true;
    while (!channels_.empty()) drop_channel(channels_.begin()->first);
    account_.give_back(requests_.size() * request_bytes);
    requests_.clear();
    turns_.remove(requests_turn_);
    frames_.clear();
    charge_frames();
    assert(account_.bytes() == counted_bytes());
    answers_waiting_ = 0;
    partial_event_bytes_ = 0;
    revoked_.clear();
  }

  template <class Sink>
  void on_open_map(Open open, Sink& sink) {
    expect_new_id(open.channel);
    expect_possible(open.position);
    if (channels_.size() >= limits_->maps) {
      refuse(open.channel, StateErrc::busy,
             detail::beyond_limit(std::to_string(channels_.size()) + " maps are open on this link", "maps",
                                  limits_->maps));
      return;
    }
    if (is_too_long(open.key_type) || is_too_long(open.value_type)) {
      refuse(open.channel, StateErrc::too_large, type_too_long());
      return;
    }
    account_.take(channel_bytes);
    Channel& channel = channels_[open.channel];
    channel.id = open.channel;
    channel.wished = open.position;
    channel.mode = open.mode;
    sink(OpenAsked{std::move(open)});
  }

  static bool is_too_long(const std::string& type) { return type.size() > most_type_bytes; }
  static std::string type_too_long() {
    return "the name of a type is longer than " + std::to_string(most_type_bytes) + " bytes";
  }

  /// Channels and requests are numbered in the order they are asked for, so that none is taken for an older
  /// one.
  void expect_new_id(ChannelId id) {
    if (id <= last_id_) break_off("a channel or request that is not new");
    last_id_ = id;
  }

  /// The channel of this id; null when it was refused or is closed, which the client may not have known yet.
  Channel* find_channel(ChannelId id) {
    if (id == 0 || id > last_id_) break_off("a channel that was never opened");
    const auto found = channels_.find(id);
    return found == channels_.end() ? nullptr : &found->second;
  }

  template <class Sink>
  void on_upload(const Upload& upload, TimePoint now, Sink& sink) {
    Channel* channel = find_channel(upload.channel);
    if (channel == nullptr) return;
    if (!channel->is_upload_under_way) break_off("an upload that nobody asked for");
    if (channel->state != Channel::State::uploading) return;  // the map is open: another client's came first
    if (!upload.bytes.empty()) channel->upload_heard_at = now;
    sink(UploadCame{upload.channel, upload.bytes});
  }

  /// Clients that wait for the same map must not wait for one that does not go on with it.
  template <class Sink>
  void give_up_slow_uploads(TimePoint now, Sink& sink) {
    std::vector<ChannelId> slow;
    std::vector<ChannelId> going_on;
    for (Channel* at = uploading_.first(); at != nullptr; at = uploading_.next(*at)) {
      Channel& channel = *at;
      if (!channel.upload_wanted_at) {
        channel.upload_wanted_at = now;
        channel.upload_heard_at = (std::max)(channel.upload_heard_at, now);
        channel.upload_went_on_at = now;
      }
      const bool is_slow = now - channel.upload_heard_at >= limits_->upload_silence ||
                           now - *channel.upload_wanted_at >= limits_->upload_time;
      if (is_slow) {
        slow.push_back(channel.id);
      } else if (now - channel.upload_went_on_at >= limits_->upload_patience) {
        channel.upload_went_on_at = now;
        going_on.push_back(channel.id);
      }
    }
    for (const ChannelId id : slow) {
      refuse(id, StateErrc::peer_silent, "the initial state did not come in time");
      sink(ChannelClosed{id});
    }
    for (const ChannelId id : going_on) sink(UploadGoesOn{id});
  }

  template <class Sink>
  void on_upload_end(ChannelId id, Sink& sink) {
    Channel* channel = find_channel(id);
    if (channel == nullptr) return;
    if (!std::exchange(channel->is_upload_under_way, false))
      break_off("the end of an upload that nobody asked for");
    if (channel->state != Channel::State::uploading) return;  // as above
    channel->state = Channel::State::uploaded;
    uploading_.remove(*channel);
    sink(UploadEnded{id});
  }

  template <class Sink>
  void on_close_channel(ChannelId id, Sink& sink) {
    if (find_channel(id) == nullptr) return;
    drop_channel(id);
    sink(ChannelClosed{id});
  }

  /// Its events that have not run are in flight still: closing channels is no way to send more of them.
  void drop_channel(ChannelId id) {
    const auto found = channels_.find(id);
    if (found == channels_.end()) return;
    Channel& channel = found->second;
    events_in_flight_ -= channel.unanswered;
    answers_waiting_ -= channel.unanswered;
    partial_event_bytes_ -= channel.event_bytes.size();
    account_.give_back(bytes_of(channel));
    uploading_.remove(channel);
    answering_.remove(channel);
    turns_.remove(channel);
    if (channel.opened != nullptr) {
      channel.opened->channels.remove(channel);
      if (channel.opened->channels.empty()) opened_.erase(channel.source.get());
    }
    channels_.erase(found);
  }

  /// As `find_channel`, of a channel that must be open; null also for one that was revoked, which the client may not know
  /// yet.
  Channel* open_channel(ChannelId id) {
    Channel* channel = find_channel(id);
    if (channel == nullptr || channel->is_revoked) return nullptr;
    if (channel->state != Channel::State::open) break_off("a channel that is not open yet");
    return channel;
  }

  template <class Sink>
  void on_follow(const Follow& follow, Sink& sink) {
    Channel* channel = open_channel(follow.channel);
    if (channel == nullptr) return;
    // Diffs name no position: those of a stream before, still under way, would be taken for those of this
    // one.
    if (channel->was_followed) break_off("a channel that was followed already");
    expect_possible(follow.position);
    sink(FollowAsked{follow});
  }

  static void expect_possible(Position at) {
    if (at.epoch == 0 && at.update_id != 0) break_off("a position without an epoch");
  }

  /// False if the channel is refused, and gone.
  bool start_stream(ChannelId id, Channel& channel, Position at, FollowMode mode) {
    const Position head = channel.source->head();
    if (at.epoch == head.epoch && at.update_id > head.update_id) {
      refuse(id, StateErrc::wrong_position, "this position lies ahead of the master");
      return false;
    }
    channel.was_followed = true;
    channel.stream = std::make_unique<DiffStream>(id, channel.source, at, mode, *limits_, piece_bytes_);
    account_.add(stream_bytes);
    mark_behind(channel);
    return true;
  }

  void on_unfollow(ChannelId id) {
    if (Channel* channel = open_channel(id)) end_stream(*channel);
  }

  template <class Sink>
  void on_get_update_id(const GetUpdateId& ask, Sink& sink) {
    expect_new_id(ask.request);
    expect_room_for_request();
    if (open_channel(ask.channel) == nullptr) return refuse_request(ask.request);
    sink(HeadAsked{ask});
  }

  template <class Sink>
  void on_get_diff(const GetDiff& ask, Sink& sink) {
    expect_new_id(ask.request);
    expect_room_for_request();
    if (open_channel(ask.channel) == nullptr) return refuse_request(ask.request);
    sink(DiffAsked{ask});
  }

  void refuse_request(ChannelId request) {
    refuse(request, StateErrc::not_hosted, "the channel is not open");
  }

  /// Requests that are not answered yet are bounded.
  void expect_room_for_request() const {
    if (requests_.size() >= limits_->requests_in_flight) {
      throw StateError(StateErrc::busy,
                       detail::beyond_limit("one more request than may wait for its answer on this link",
                                            "requests_in_flight", limits_->requests_in_flight));
    }
  }

  /// Once per channel, so that a channel's events are of one sender, and so that asking is bounded by opening.
  template <class Sink>
  void on_get_sender(const GetSender& ask, Sink& sink) {
    Channel* const channel = find_channel(ask.channel);
    if (channel == nullptr || channel->is_revoked) return;
    if (channel->sender_state != SenderState::none) break_off("a sender asked for twice on one channel");
    if (channel->state != Channel::State::open) {
      channel->sender_state = SenderState::asked_early;
      channel->sender = ask.sender;
      return;
    }
    channel->sender_state = SenderState::asked;
    sink(SenderAsked{ask.channel, ask.sender});
  }

  /// Most channels of a link have the same type, which is kept once.
  void on_event_type(EventType type) {
    Channel* const channel = open_channel(type.channel);
    if (channel == nullptr) return;
    if (is_too_long(type.type)) throw StateError(StateErrc::too_large, type_too_long());
    std::shared_ptr<const std::string> named = last_event_type_.lock();
    if (!named || *named != type.type) {
      named = std::make_shared<const std::string>(std::move(type.type));
      last_event_type_ = named;
    }
    // Charged for each channel: no one of them knows when the last of the others goes.
    account_.give_back(bytes_of_type(*channel));
    channel->event_type = std::move(named);
    account_.add(bytes_of_type(*channel));
  }

  void on_event_part(const EventPart& part) {
    if (Channel* channel = open_channel(part.channel)) append_event(*channel, part.bytes);
  }

  /// The events of a link that are not whole share the room of one: a client sends them one after the other. If one is
  /// too large for that, only its size is kept, and it is refused once it is whole.
  void append_event(Channel& channel, ByteView bytes) {
    if (channel.dropped_event_bytes != 0 || bytes.size() > limits_->event_bytes - partial_event_bytes_) {
      channel.dropped_event_bytes += channel.event_bytes.size() + bytes.size();
      partial_event_bytes_ -= channel.event_bytes.size();
      account_.give_back(channel.event_bytes.capacity());
      Bytes().swap(channel.event_bytes);
      return;
    }
    const std::size_t before = channel.event_bytes.capacity();
    append_within(channel.event_bytes, bytes, limits_->event_bytes);
    account_.add(channel.event_bytes.capacity() - before);
    partial_event_bytes_ += bytes.size();
  }

  template <class Sink>
  void on_event(const EventMessage& event, Sink& sink) {
    Channel* channel = open_channel(event.channel);
    if (channel == nullptr) return;
    if (channel->sender_state != SenderState::given)
      break_off("an event on a channel that has no sender yet");
    if (events_in_flight_ >= limits_->events_in_flight) {
      throw StateError(StateErrc::busy,
                       detail::beyond_limit("one more event than may wait for its answer on this link",
                                            "events_in_flight", limits_->events_in_flight));
    }
    if (event.bytes.size() > limits_->event_bytes || channel->dropped_event_bytes != 0) [[unlikely]] {
      return refuse_large_event(*channel, event);
    }
    // The channel may be gone when the sink returns, so what the action shows lives here.
    const std::shared_ptr<const std::string> type = channel->event_type;
    Bytes whole;
    ByteView bytes = event.bytes;
    if (!channel->event_bytes.empty()) {
      append_event(*channel, event.bytes);
      if (channel->dropped_event_bytes != 0)
        return refuse_large_event(*channel, {event.channel, event.number, {}});
      whole.swap(channel->event_bytes);
      account_.give_back(whole.capacity());
      partial_event_bytes_ -= whole.size();
      bytes = whole;
    }
    if (event_bytes_in_flight_ != 0 &&
        event_bytes_in_flight_ + bytes.size() > limits_->event_bytes_in_flight) {
      throw StateError(StateErrc::busy,
                       detail::beyond_limit(detail::of_bytes("events that wait for their hooks on this link",
                                                             event_bytes_in_flight_ + bytes.size()),
                                            "event_bytes_in_flight", limits_->event_bytes_in_flight));
    }
    ++events_in_flight_;
    ++channel->unfinished;
    event_bytes_in_flight_ += bytes.size();
    sink(EventCame{
        {event.channel, event.number, bytes.size()}, channel->sender, type ? type.get() : &no_type(), bytes});
  }

  /// The event has not run, and is answered at once. The events behind it run all the same.
  void refuse_large_event(Channel& channel, const EventMessage& event) {
    const std::uint64_t bytes =
        std::exchange(channel.dropped_event_bytes, 0) + channel.event_bytes.size() + event.bytes.size();
    partial_event_bytes_ -= channel.event_bytes.size();
    account_.give_back(channel.event_bytes.capacity());
    Bytes().swap(channel.event_bytes);
    ++events_in_flight_;
    ++channel.unfinished;
    answer_error(
        EventTicket{event.channel, event.number, 0}, StateErrc::too_large,
        detail::beyond_limit(detail::of_bytes("an event", bytes), "event_bytes", limits_->event_bytes));
  }

  void queue_answer(const EventTicket& event, PendingAnswers answer) {
    if (is_over_) return;
    event_bytes_in_flight_ -= (std::min)(event_bytes_in_flight_, event.bytes);  // it has run, and is gone
    const auto found = channels_.find(event.channel);
    if (found == channels_.end()) {
      --events_in_flight_;
      return;
    }
    Channel& channel = found->second;
    ++channel.unanswered;
    ++answers_waiting_;
    if (!channel.answers.empty() && channel.answers.back().is_followed_by(answer)) {
      ++channel.answers.back().count;
    } else {
      account_.add(bytes_of(answer));
      answering_.push_back(channel);
      channel.answers.push_back(std::move(answer));  // answers keep the order of their events
    }
  }

  void append_heartbeat(Bytes& out) {
    is_heartbeat_due_ = false;
    HeartbeatFrames frames(out, peer_.frame_bytes);
    if (std::exchange(heartbeat_names_streams_, false)) {
      for (const auto& [id, channel] : channels_) {
        if (channel.stream) frames.add(HeartbeatEntry{id, channel.stream->head().update_id});
      }
    }
    frames.end();
  }

  void mark_behind(Channel& channel) {
    if (channel.stream && channel.stream->is_behind()) turns_.push_back(channel);
  }
  void mark_behind(OpenMap& opened) {
    for (Channel* at = opened.channels.first(); at != nullptr; at = opened.channels.next(*at))
      mark_behind(*at);
  }

  /// One frame for each stream that is behind and one for the requests in turn, until the piece is full or nobody has
  /// anything. Goes on with the next one in the next piece, so that none starves.
  void produce_turns(Bytes& out) {
    while (out.size() < limits_->piece_bytes && !turns_.empty()) {
      Turn& next = *turns_.first();
      turns_.remove(next);
      if (&next == &requests_turn_) {
        produce_request(out);
        if (!requests_.empty()) turns_.push_back(requests_turn_);
        continue;
      }
      Channel& channel = static_cast<Channel&>(next);
      channel.stream->produce(out);
      mark_behind(channel);
    }
  }

  void produce_request(Bytes& out) {
    Request request = std::move(requests_.front());
    requests_.pop_front();
    bool is_done = true;
    try {
      is_done = std::visit([&](auto& r) { return produce_from(r, out); }, request);
    } catch (...) {  // a codec threw: the request is gone, and so is its charge
      account_.give_back(request_bytes);
      throw;
    }
    if (is_done) return account_.give_back(request_bytes);
    requests_.push_back(std::move(request));
  }

  static bool produce_from(DiffStream& stream, Bytes& out) {
    stream.produce(out);
    return stream.is_done();
  }

  bool produce_from(InitialRequest& r, Bytes& out) const {
    StatePiece piece;
    Bytes bytes;
    piece.request = r.request;
    if (!r.source->encode_initial(r.cursor, piece_bytes_, bytes)) {
      append_frame(out, StateEnd{r.request});
      return true;
    }
    piece.bytes = bytes;
    append_frame(out, piece);
    return false;
  }

  /// A list that fits one frame answers the lists behind it, too: a client that asks for many at once has the server look
  /// at its maps no more often than it is sent them.
  bool produce_from(ListRequest& r, Bytes& out) {
    const bool is_first = !r.after;
    Bytes bytes;
    do {
      r.after = r.maps->encode_hosted(r.after, bytes);
    } while (r.after && bytes.size() < piece_bytes_);
    if (!append_hosted(Hosted{r.request, r.after.has_value(), bytes}, out)) return true;
    if (r.after) return false;
    while (is_first && bytes.size() <= piece_bytes_ && !requests_.empty() &&
           out.size() < limits_->piece_bytes) {
      const auto* const next = std::get_if<ListRequest>(&requests_.front());
      if (next == nullptr || next->after) break;
      append_frame(out, Hosted{next->request, false, bytes});
      requests_.pop_front();
      account_.give_back(request_bytes);
    }
    return true;
  }

  /// Appends a list in as many frames as the client's limit makes it. Returns false if one of its maps does not fit a
  /// frame: then the request is refused.
  bool append_hosted(const Hosted& list, Bytes& out) {
    if (list.maps.size() <= piece_bytes_) {
      append_frame(out, list);
      return true;
    }
    ByteReader in(list.maps);
    std::size_t from = 0;
    std::size_t end = 0;
    while (!in.is_at_end()) {
      HostedMapInfo::decode(in);
      const std::size_t next = list.maps.size() - in.remaining();
      if (next - from > piece_bytes_ && end > from) {
        append_frame(out, Hosted{list.request, true, list.maps.subspan(from, end - from)});
        from = end;
      }
      if (next - from + frame_head_bytes > peer_.frame_bytes) {
        const Refused refused{
            list.request,
            StateErrc::too_large,
            peer_.fit(detail::beyond_limit(detail::of_bytes("an entry of the list", next - from),
                                           "frame_bytes", peer_.frame_bytes)),
            {}};
        append_frame(out, refused);
        return false;
      }
      end = next;
    }
    append_frame(out, Hosted{list.request, list.more, list.maps.subspan(from, end - from)});
    return true;
  }

  /// Up to which update id the answers about a map may go: every stream of it on this link has their effect.
  static UpdateId reached_by(const OpenMap& opened) {
    UpdateId reached = ~UpdateId{0};
    for (const Channel* at = opened.channels.first(); at != nullptr; at = opened.channels.next(*at)) {
      if (!at->stream) continue;
      const Position position = at->stream->at();
      const bool is_of_epoch = position.epoch == at->source->head().epoch;
      reached = (std::min)(reached, is_of_epoch ? position.update_id : 0);
    }
    return reached;
  }

  /// The same, looked up once in a round, however many channels have answers about the map.
  static UpdateId reached_in(std::uint64_t round, OpenMap& opened) {
    if (opened.as_of != round) {
      opened.reached = reached_by(opened);
      opened.as_of = round;
    }
    return opened.reached;
  }

  /// How many of the channel's next answers may go out.
  static std::uint64_t due_answers(const Channel& channel, UpdateId reached) {
    const PendingAnswers& next = channel.answers[0];
    if (next.due_at > reached) return 0;
    const std::uint64_t more = reached - next.due_at;
    return more >= next.count ? next.count : more + 1;
  }

  /// Whether an answer is due, or will be after what its streams have to send.
  [[nodiscard]] bool brings_answers() const {
    for (const Channel* at = answering_.first(); at != nullptr; at = answering_.next(*at)) {
      if (due_answers(*at, reached_by(*at->opened)) > 0) return true;
      const auto& channels = at->opened->channels;
      for (const Channel* other = channels.first(); other != nullptr; other = channels.next(*other)) {
        if (other->stream && other->stream->is_behind()) return true;
      }
    }
    return false;
  }

  /// Streams that answers wait for take their turns, whether or not `map_changed` told of the commits.
  void bring_answers() {
    ++round_;
    for (Channel* at = answering_.first(); at != nullptr; at = answering_.next(*at)) {
      if (std::exchange(at->opened->marked_in, round_) != round_) mark_behind(*at->opened);
    }
  }

  /// Answers go out once the peer has the diff that holds their effect; channels take turns.
  void append_answers(Bytes& out) {
    if (answers_waiting_ == 0) return;
    ++round_;
    Channel* const last = answering_.last();
    for (Channel* at = answering_.first(); at != nullptr && out.size() < 2 * limits_->piece_bytes;) {
      Channel& channel = *at;
      at = at == last ? nullptr : answering_.next(channel);
      append_answers_of(channel, reached_in(round_, *channel.opened), out);
      answering_.remove(channel);
      if (!channel.answers.empty()) answering_.push_back(channel);
    }
  }

  void append_answers_of(Channel& channel, UpdateId reached, Bytes& out) {
    while (!channel.answers.empty() && out.size() < 2 * limits_->piece_bytes) {
      const std::uint64_t count = due_answers(channel, reached);
      if (count == 0) break;
      PendingAnswers& next = channel.answers.front();
      if (next.error == StateErrc{}) {
        append_frame(out, Answer{channel.id, next.number, next.update_id, count - 1});
      } else {
        append_frame(out, AnswerError{channel.id, next.number, next.error,
                                      next.detail ? peer_.fit(*next.detail) : std::string()});
      }
      channel.unanswered -= count;
      channel.unfinished -= count;
      answers_waiting_ -= count;
      events_in_flight_ -= count;
      if (next.count == count) {
        account_.give_back(bytes_of(next));
        channel.answers.pop_front();
        continue;
      }
      next.number += count;
      next.update_id += count;
      next.due_at += count;
      next.count -= count;
    }
  }

  const Limits* limits_;
  PeerLimits peer_;
  std::size_t piece_bytes_ = own_piece_bytes();
  std::chrono::milliseconds heartbeat_every_ = peer_.heartbeat_every(*limits_);
  LinkAccount account_;
  FrameReader frames_;
  TimePoint accepted_at_;
  TimePoint last_heard_;
  TimePoint last_heartbeat_;
  TimePoint last_named_;  // the last heartbeat that named the streams
  std::shared_ptr<const Passwords> passwords_;
  Bytes binding_;
  Bytes control_;  // frames ready to go, before anything else
  std::map<ChannelId, Channel> channels_;
  detail::LazyQueue<Request> requests_;
  std::weak_ptr<const std::string> last_event_type_;
  std::unordered_map<const DiffSource*, OpenMap> opened_;
  // The streams that are behind, and the requests where there are any, the next one first.
  detail::Chain<Turn, &Turn::turn> turns_;
  Turn requests_turn_;
  detail::Chain<Channel, &Channel::place_in_answering> answering_;  // that have answers waiting
  detail::Chain<Channel, &Channel::place_in_uploading> uploading_;
  std::uint64_t round_ = 0;  // of looking at how far streams have come
  ChannelId last_id_ = 0;    // the newest channel or request of the client
  std::vector<ChannelId> revoked_;
  std::size_t answers_waiting_ = 0;
  std::size_t events_in_flight_ = 0;
  std::size_t event_bytes_in_flight_ = 0;  // of those whose hooks have not run
  std::size_t frame_bytes_ = 0;            // charged for the frame that is not whole
  std::size_t output_bytes_ = 0;           // charged for what `produce` gave last
  std::size_t held_by_role_ = 0;           // charged by `charge_role`
  std::size_t partial_event_bytes_ = 0;    // of those that are not whole, over all channels
  bool is_busy_ = false;
  bool is_authenticated_ = false;
  bool is_over_ = false;
  bool is_heartbeat_due_ = false;
  bool heartbeat_names_streams_ = false;
};

}  // namespace syncstate::protocol

#endif
