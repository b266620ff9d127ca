// The client's side of one connection: bytes and time in, actions and bytes out.
#ifndef SYNCSTATE_PROTOCOL_CLIENT_SESSION_HPP
#define SYNCSTATE_PROTOCOL_CLIENT_SESSION_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "syncstate/detail/limit_text.hpp"
#include "syncstate/event.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/protocol/frame.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/peer_limits.hpp"
#include "syncstate/protocol/proof.hpp"
#include "syncstate/protocol/session.hpp"

namespace syncstate::protocol {

/// The server proved that it knows the password: maps may be opened.
struct ServerAuthenticated {};
/// A map is open.
struct ChannelOpened {
  ChannelId channel;
  Position head;
};
/// The events of an open map are this sender's: `send_event` may be called.
struct SenderGiven {
  ChannelId channel;
  std::uint64_t sender;
};
/// The server wants this map's initial state: answer with `upload`.
struct UploadAsked {
  ChannelId channel;
};
/// The server refuses this channel or request, or its answer is beyond a limit of ours; it is gone.
struct ChannelRefused {
  ChannelId channel;
  StateErrc reason;
  std::string detail;
  std::optional<MapHash> other;
};
/// The answer to `get_update_id`.
struct UpdateIdCame {
  ChannelId request;
  Position head;
};
/// A piece of a fetched initial state; the bytes die with the call.
struct StateCame {
  ChannelId request;
  ByteView bytes;
};
/// A fetched initial state is whole.
struct StateEnded {
  ChannelId request;
};
/// The answer to `list`, whole.
struct HostedCame {
  ChannelId request;
  std::vector<HostedMapInfo> maps;
};
/// Entries to stage and not to show; the bytes die with the call.
struct DiffStaged {
  ChannelId stream;
  ByteView entries;
};
/// One value to stage and not to show; the bytes die with the call.
struct ValueStaged {
  ChannelId stream;
  std::uint64_t ordinal;
  ByteView value;
};
/// A diff is whole: what was staged, then these entries. The bytes die with the call.
struct DiffCame {
  ChannelId stream;
  Epoch epoch;
  UpdateId from;
  UpdateId upto;
  bool is_full;
  ByteView entries;
};
/// A commit of one key; the bytes die with the call.
struct StepCame {
  ChannelId stream;
  Epoch epoch;
  UpdateId from;
  UpdateId upto;
  std::uint64_t ordinal;
  ByteView value;
};
/// An event was run.
struct EventAnswered {
  ChannelId channel;
  std::uint64_t number;
  UpdateId update_id;
};
/// An event had no effect, or its effect is not known.
struct EventRefused {
  ChannelId channel;
  std::uint64_t number;
  StateErrc reason;
  std::string detail;
};
/// A heartbeat said where the head of a followed map is.
struct HeadHeard {
  ChannelId channel;
  UpdateId head;
};

/// What a client session wants done.
using ClientAction =
    std::variant<ServerAuthenticated, ChannelOpened, SenderGiven, UploadAsked, ChannelRefused, UpdateIdCame,
                 StateCame, StateEnded, HostedCame, DiffStaged, ValueStaged, DiffCame, StepCame,
                 EventAnswered, EventRefused, HeadHeard, CloseSession>;

/// One connection's protocol state on the client, without any I/O. The server is not trusted: every field of its frames
/// is bounded by our own limits, and what answers nothing that was asked or sent ends the session.
///
/// `on_bytes` and `on_tick` give actions to a sink, any callable that takes each alternative of
/// `ClientAction`; the sink may call back into the session. `produce` gives the bytes to send.
///
/// Threads : one at a time.
/// Lifetime: `limits` outlives the session.
/// Cost    : a frame costs O(log(channels and requests) + its bytes) here, plus one action of the sink, or one for each
///           entry of a heartbeat and each event of an answer; `on_tick` O(1); a heartbeat of ours O(streams).
/// Memory  : O(channels), `Limits::requests_in_flight` requests, one frame of `Limits::frame_bytes` that is not whole, and
///           `Limits::staged_bytes` for all that is not whole of diffs, values, initial states and lists.
class ClientSession {
 public:
  ClientSession(const Limits& limits, TimePoint now)
      : limits_(&limits),
        frames_(limits.frame_bytes_before_authentication, "frame_bytes_before_authentication"),
        opened_at_(now),
        last_heard_(now),
        last_heartbeat_(now),
        last_named_(now) {}

  /// The link is secured: the hello with our proof goes out first.
  void on_open(std::string_view password, ByteView channel_binding, TimePoint now) {
    opened_at_ = last_heard_ = now;
    awaited_proof_ = make_proof(password, ProofRole::server, channel_binding);
    Hello hello;
    hello.proof = make_proof(password, ProofRole::client, channel_binding);
    append_frame(control_, hello);
  }

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
      if (now - opened_at_ >= limits_->authentication_time) {
        fail(StateErrc::peer_silent, "the server did not answer the hello in time", sink);
      }
      return;
    }
    if (now - last_heard_ >= limits_->silence) {
      fail(StateErrc::peer_silent, "nothing came from the server for too long", sink);
    } else if (now - last_heartbeat_ >= heartbeat_every_) {
      last_heartbeat_ = now;
      is_heartbeat_due_ = true;
      if (peer_.heartbeat_names_streams(*limits_, now - last_named_)) {
        last_named_ = now;
        heartbeat_names_streams_ = true;
      }
    }
  }

  /// Appends what is to be sent next, some `Limits::piece_bytes` at a time; nothing when there is nothing.
  /// Errors: what a codec throws; the session is then of no more use than to `fail`.
  void produce(Bytes& out) {
    out.insert(out.end(), control_.begin(), control_.end());
    control_.clear();
    if (is_over_ || !is_authenticated_) return;
    if (is_heartbeat_due_) append_heartbeat(out);
    while (out.size() < limits_->piece_bytes && (!uploads_.empty() || !events_.empty())) {
      if (!events_.empty()) produce_event(out);
      if (!uploads_.empty()) produce_upload(out);
    }
  }

  /// True when `produce` would give something.
  [[nodiscard]] bool wants_to_send() const {
    if (!control_.empty()) return true;
    return !is_over_ && is_authenticated_ && (is_heartbeat_due_ || !uploads_.empty() || !events_.empty());
  }

  [[nodiscard]] bool is_authenticated() const { return is_authenticated_; }
  /// How often a heartbeat is due: `on_tick` is to be called at least twice in that time.
  [[nodiscard]] std::chrono::milliseconds heartbeat_every() const { return heartbeat_every_; }
  /// How many events may be on this link before they are answered: what the server takes (more would end the session),
  /// within our own limit.
  [[nodiscard]] std::uint64_t events_in_flight() const { return events_in_flight_; }
  /// How many bytes of them, as above; but a single event always goes.
  [[nodiscard]] std::uint64_t event_bytes_in_flight() const { return event_bytes_in_flight_; }
  /// How many bytes one event may have: the server refuses a larger one.
  [[nodiscard]] std::uint64_t event_bytes() const { return event_bytes_; }
  /// How many channels the server takes on this link; it refuses further ones.
  [[nodiscard]] std::uint64_t most_channels() const { return most_channels_; }
  /// Returns how many channels are open: as many as the server counts, or more.
  [[nodiscard]] std::size_t channels() const { return channels_.size(); }
  /// The largest frame that the server takes; a larger one ends the session.
  [[nodiscard]] std::uint64_t server_frame_bytes() const { return peer_.frame_bytes; }
  /// Returns whether a message whose type names have `type_bytes` bytes together fits the server's frames.
  [[nodiscard]] bool fits_frame(std::size_t type_bytes) const { return peer_.fits(type_bytes); }
  [[nodiscard]] bool is_over() const { return is_over_; }

  // What the role asks for; only after `ServerAuthenticated`.

  /// Opens a map; answered by `ChannelOpened`, `UploadAsked` or `ChannelRefused`. The channel in `open` is
  /// chosen here.
  ChannelId open(Open open) {
    open.channel = ++last_id_;
    channels_.try_emplace(open.channel);
    if (open.mode != FollowMode::none) streams_[open.channel].at = open.position;
    append_frame(control_, open);
    return open.channel;
  }

  /// Sends the initial state that `UploadAsked` asked for.
  void upload(ChannelId channel, std::shared_ptr<const InitialSource> source) {
    uploads_.push_back(UploadTask{channel, std::move(source)});
  }

  /// Gives a channel up; nothing more is heard of it, nor of what was asked about it.
  /// Complexity: O(log(channels)); what of it waits to be sent is looked for among all that waits.
  void close_channel(ChannelId channel) {
    forget_channel(channel);
    append_frame(control_, CloseChannel{channel});
  }

  /// Follows an open map from a position; once per channel, for diffs name no position of their own, and
  /// those under way from before could not be told apart.
  void follow(ChannelId channel, Position at, FollowMode mode) {
    Follow message;
    message.channel = channel;
    message.position = at;
    message.mode = mode;
    drop_stream(channel);
    streams_[channel].at = at;
    append_frame(control_, message);
  }

  /// Ends the diffs of a channel. Those under way are dropped.
  void unfollow(ChannelId channel) {
    drop_stream(channel);
    append_frame(control_, Unfollow{channel});
  }

  // Requests. Each is answered once, or refused by `ChannelRefused`; only while `has_room_for_request()`.

  /// False while as many requests are unanswered as the server takes, or as `Limits::requests_in_flight` if that is
  /// less. Those that were given up count too: the server may still count them, and ends the session for more than it
  /// takes.
  [[nodiscard]] bool has_room_for_request() const { return requests_.size() < requests_in_flight_; }

  /// Asks where the head is; answered by `UpdateIdCame`.
  ChannelId get_update_id(ChannelId channel) {
    const ChannelId request = new_request(RequestKind::head, channel);
    append_frame(control_, GetUpdateId{request, channel});
    return request;
  }

  /// Asks for one diff; answered by `DiffCame` with the request as its stream.
  ChannelId get_diff(ChannelId channel, Position from, UpdateId upto) {
    const ChannelId request = new_request(RequestKind::diff, channel);
    Stream& stream = streams_[request];
    stream.at = from;
    stream.is_one_shot = true;
    append_frame(control_, GetDiff{request, channel, from, upto});
    return request;
  }

  /// Asks for the initial state of a hosted map; answered by `StateCame` and `StateEnded`.
  ChannelId fetch(const MapHash& hash, std::string key_type, std::string value_type) {
    const ChannelId request = new_request(RequestKind::state, 0);
    append_frame(control_, Fetch{request, hash, std::move(key_type), std::move(value_type)});
    return request;
  }

  /// Asks which maps are hosted; answered by `HostedCame`.
  ChannelId list() {
    const ChannelId request = new_request(RequestKind::list, 0);
    append_frame(control_, List{request});
    return request;
  }

  /// Gives a request up: what came of it is dropped at once, and its answer when it comes. Nothing more is heard of it.
  void forget_request(ChannelId request) {
    const auto found = requests_.find(request);
    if (found == requests_.end()) return;
    found->second.is_forgotten = true;
    found->second.maps = {};
    count_staged(found->second.staged, 0);
    drop_stream(request);
  }

  /// Says what the role keeps of a diff, or of a fetched state, that is not whole yet; the session counts it until
  /// then. If all streams and requests of this link together exceed `Limits::staged_bytes`, the session refuses, with
  /// `too_large`, the stream or request of which it delivered something last.
  void set_staged(ChannelId id, std::size_t bytes) {
    if (const auto stream = streams_.find(id); stream != streams_.end()) {
      count_staged(stream->second.staged, bytes);
    } else if (const auto request = requests_.find(id); request != requests_.end()) {
      count_staged(request->second.staged, bytes);
    }
  }
  /// What is kept of answers and diffs that are not whole, in bytes.
  [[nodiscard]] std::size_t staged_bytes() const { return staged_bytes_; }

  /// Asks for the sender of this channel's events: `known`, or a new one for 0. Answered by `SenderGiven`; once per
  /// channel, from `open` on.
  void get_sender(ChannelId channel, std::uint64_t known) {
    const auto found = channels_.find(channel);
    if (found == channels_.end()) return;  // refused meanwhile
    found->second.awaits_sender = true;
    append_frame(control_, GetSender{channel, known});
  }

  /// Sends an event on a channel that has its sender; answered by `EventAnswered` or `EventRefused`.
  void send_event(ChannelId channel, std::uint64_t number, std::shared_ptr<const SerializedEvent> event) {
    const auto found = channels_.find(channel);
    if (found == channels_.end()) return;  // refused meanwhile
    events_.push_back(EventTask{channel, number, std::move(event), 0});
    ++found->second.queued_events;
  }

  /// Ends the session from this side, for this reason.
  template <class Sink>
  void fail(StateErrc reason, const std::string& detail, Sink&& sink) {
    fail(CloseSession{reason, detail}, sink);
  }
  template <class Sink>
  void fail(const CloseSession& why, Sink&& sink) {
    if (is_over_) return;
    is_over_ = true;
    append_frame(control_, Goodbye{why.reason, peer_.fit(why.detail)});
    sink(why);
  }

 private:
  static constexpr unsigned most_full_diffs = 8;  // of one stream

  struct UploadTask {
    ChannelId channel;
    std::shared_ptr<const InitialSource> source;
    InitialCursor cursor{};
  };
  struct EventTask {
    ChannelId channel;
    std::uint64_t number;
    std::shared_ptr<const SerializedEvent> event;
    std::size_t sent;
  };
  struct PartialValue {
    std::uint64_t ordinal;
    std::uint64_t total;
    Bytes bytes;
  };
  struct Stream {
    Position at;
    bool is_one_shot = false;
    bool is_in_transfer = false;  // something is staged
    unsigned full_diffs = 0;
    std::optional<PartialValue> partial{};
    std::size_t partial_bytes = 0;     // as counted in `staged_bytes_`
    std::size_t staged = 0;            // as counted in `staged_bytes_`: what the role keeps
    std::uint64_t last_heartbeat = 0;  // the number of the last one that named it
  };
  enum class ChannelState : std::uint8_t { asked, uploading, open };
  struct Channel {
    ChannelState state = ChannelState::asked;
    bool awaits_sender = false;
    std::string event_type{};             // of the last event sent
    std::uint64_t highest_number = 0;     // of the events that were sent whole
    std::uint64_t unanswered_events = 0;  // of those
    std::size_t queued_events = 0;
    std::size_t requests = 0;  // about it, unanswered
  };
  enum class RequestKind : std::uint8_t { head, diff, state, list };
  /// A question whose answer has not come. One that was given up stays until then, without anything that grows.
  struct Request {
    RequestKind kind;
    ChannelId channel;  // 0 if it is about none
    bool is_forgotten = false;
    std::vector<HostedMapInfo> maps{};
    std::size_t staged = 0;  // as counted in `staged_bytes_`
  };
  using Requests = std::map<ChannelId, Request>;

  template <class Sink>
  void handle(const Frame& frame, TimePoint now, Sink& sink) {
    if (frame.kind == FrameKind::goodbye) return on_goodbye(decode_body<Goodbye>(frame.body), sink);
    if (!is_authenticated_) {
      if (frame.kind != FrameKind::welcome) break_off("the first frame must be a welcome");
      return on_welcome(decode_body<Welcome>(frame.body), now, sink);
    }
    switch (frame.kind) {
      case FrameKind::heartbeat: return on_heartbeat(frame.body, sink);
      case FrameKind::opened: {
        const auto m = decode_body<Opened>(frame.body);
        if (m.head.epoch == 0) break_off("an epoch of 0");
        Channel* channel = known_channel(m.channel);
        if (channel == nullptr) return;
        if (channel->state == ChannelState::open) break_off("a channel that is open already");
        if (channel->state == ChannelState::uploading)
          forget_upload(m.channel);  // another client's was there first
        channel->state = ChannelState::open;
        sink(ChannelOpened{m.channel, m.head});
        return;
      }
      case FrameKind::sender: {
        const auto m = decode_body<SenderMessage>(frame.body);
        Channel* channel = known_channel(m.channel);
        if (channel == nullptr) return;
        if (channel->state != ChannelState::open) break_off("a sender for a channel that is not open");
        if (!std::exchange(channel->awaits_sender, false)) break_off("a sender that was not asked for");
        sink(SenderGiven{m.channel, m.sender});
        return;
      }
      case FrameKind::upload_wanted: {
        const ChannelId id = decode_body<UploadWanted>(frame.body).channel;
        Channel* channel = known_channel(id);
        if (channel == nullptr) return;
        if (channel->state != ChannelState::asked) break_off("an upload that was asked for already");
        channel->state = ChannelState::uploading;
        sink(UploadAsked{id});
        return;
      }
      case FrameKind::refused: return on_refused(decode_body<Refused>(frame.body), sink);
      case FrameKind::update_id: {
        const auto m = decode_body<UpdateIdMessage>(frame.body);
        const auto request = known_request(m.request, RequestKind::head);
        if (end_request(request)) sink(UpdateIdCame{m.request, m.head});
        return;
      }
      case FrameKind::state: {
        const auto m = decode_body<StatePiece>(frame.body);
        const auto request = known_request(m.request, RequestKind::state);
        if (!is_wanted(request)) return;
        sink(StateCame{m.request, m.bytes});
        if (has_too_much_staged()) refuse_stream(m.request, too_much_staged(), sink);
        return;
      }
      case FrameKind::state_end: {
        const ChannelId id = decode_body<StateEnd>(frame.body).channel;
        const auto request = known_request(id, RequestKind::state);
        if (end_request(request)) sink(StateEnded{id});
        return;
      }
      case FrameKind::hosted: return on_hosted(decode_body<Hosted>(frame.body), sink);
      case FrameKind::step: return on_step(decode_body<Step>(frame.body), sink);
      case FrameKind::diff: return on_diff(decode_body<DiffMessage>(frame.body), sink);
      case FrameKind::transfer: {
        const auto m = decode_body<Transfer>(frame.body);
        if (Stream* stream = known_stream(m.stream)) {
          if (const auto bytes = too_large_value_in(m.entries)) return refuse_value(m.stream, bytes, sink);
          drop_partial(*stream);
          stream->is_in_transfer = true;
          sink(DiffStaged{m.stream, m.entries});
          if (has_too_much_staged()) refuse_stream(m.stream, too_much_staged(), sink);
        }
        return;
      }
      case FrameKind::value_part: return on_value_part(decode_body<ValuePart>(frame.body), sink);
      case FrameKind::answer: {
        const auto m = decode_body<Answer>(frame.body);
        Channel* channel = known_channel(m.channel);
        if (channel == nullptr) return;
        take_answers(*channel, m.number, m.more);
        for (std::uint64_t i = 0; i <= m.more && !is_over_; ++i) {
          sink(EventAnswered{m.channel, m.number + i, m.update_id + i});
        }
        return;
      }
      case FrameKind::answer_error: {
        auto m = decode_body<AnswerError>(frame.body);
        Channel* channel = known_channel(m.channel);
        if (channel == nullptr) return;
        take_answers(*channel, m.number, 0);
        sink(EventRefused{m.channel, m.number, m.reason, std::move(m.detail)});
        return;
      }
      case FrameKind::hello:
      case FrameKind::welcome:
      case FrameKind::goodbye:
      case FrameKind::open:
      case FrameKind::upload:
      case FrameKind::upload_end:
      case FrameKind::close_channel:
      case FrameKind::follow:
      case FrameKind::unfollow:
      case FrameKind::get_update_id:
      case FrameKind::get_diff:
      case FrameKind::fetch:
      case FrameKind::list:
      case FrameKind::event_type:
      case FrameKind::event_part:
      case FrameKind::event:
      case FrameKind::get_sender:
      case FrameKind::limits: break;
    }
    break_off("a frame that a server never sends");
  }

  template <class Sink>
  void on_welcome(const Welcome& welcome, TimePoint now, Sink& sink) {
    if (welcome.version != protocol_version) {
      return fail(StateErrc::version_mismatch, "the server chose a version we did not offer", sink);
    }
    if (!proofs_equal(welcome.proof, awaited_proof_)) {
      return fail(StateErrc::unauthorized, "the server does not know the password", sink);
    }
    if (welcome.events_in_flight == 0) {
      return fail(StateErrc::protocol_error, "a server that takes no event", sink);
    }
    if (welcome.frame_bytes < least_frame_bytes) {
      return fail(StateErrc::protocol_error, "a server that takes no frames of 128 bytes", sink);
    }
    if (welcome.requests_in_flight == 0) {
      return fail(StateErrc::protocol_error, "a server that takes no request", sink);
    }
    is_authenticated_ = true;
    peer_ = PeerLimits{welcome.frame_bytes, bounded_ms(welcome.silence_ms)};
    piece_bytes_ = peer_.piece_bytes(limits_->piece_bytes);
    heartbeat_every_ = peer_.heartbeat_every(*limits_);
    event_bytes_ = welcome.event_bytes;
    most_channels_ = welcome.channels;
    requests_in_flight_ = std::min<std::uint64_t>(welcome.requests_in_flight, limits_->requests_in_flight);
    tell_limits();
    events_in_flight_ = std::min<std::uint64_t>(welcome.events_in_flight, limits_->events_in_flight);
    event_bytes_in_flight_ =
        std::min<std::uint64_t>(welcome.event_bytes_in_flight, limits_->event_bytes_in_flight);
    last_heartbeat_ = last_named_ = now;
    frames_.set_max_frame_bytes(limits_->frame_bytes);
    sink(ServerAuthenticated{});
  }

  /// Tells the server this client's limits, so that it sends nothing that would end this session. Call it before
  /// anything is asked of the server.
  void tell_limits() {
    const ClientLimits own{limits_->frame_bytes, static_cast<std::uint64_t>(limits_->silence.count())};
    if (own.frame_bytes == usual_frame_bytes && limits_->silence == usual_silence) return;
    append_frame(control_, own);
  }

  template <class Sink>
  void on_goodbye(const Goodbye& goodbye, Sink& sink) {
    is_over_ = true;
    sink(CloseSession{goodbye.reason, goodbye.detail});
  }

  /// Names each stream at most once, so that it costs no more than there are streams, besides reading it.
  template <class Sink>
  void on_heartbeat(ByteView body, Sink& sink) {
    ++heartbeats_;
    ByteReader in(body);
    while (!in.is_at_end()) {
      const auto entry = HeartbeatEntry::decode(in);
      Stream* stream = known_stream(entry.channel);
      if (stream == nullptr) continue;
      if (std::exchange(stream->last_heartbeat, heartbeats_) == heartbeats_) {
        break_off("a heartbeat that names a channel twice");
      }
      sink(HeadHeard{entry.channel, entry.update_id});
    }
  }

  template <class Sink>
  void on_hosted(const Hosted& hosted, Sink& sink) {
    const auto request = known_request(hosted.request, RequestKind::list);
    if (is_wanted(request) && !add_maps(request->second, hosted.maps)) {
      const std::string why = too_long_list();
      forget_request(hosted.request);
      if (!hosted.more) end_request(request);
      sink(ChannelRefused{hosted.request, StateErrc::too_large, why, {}});
      return;
    }
    if (hosted.more) return;
    HostedCame came{hosted.request, {}};
    if (is_wanted(request)) came.maps = std::move(request->second.maps);
    if (end_request(request)) sink(std::move(came));
  }

  /// False if there are more than our limits allow; the list is then incomplete.
  bool add_maps(Request& request, ByteView maps) {
    ByteReader in(maps);
    std::size_t bytes = request.staged;
    while (!in.is_at_end()) {
      if (request.maps.size() >= limits_->maps) return false;
      const HostedMapInfo& map = request.maps.emplace_back(HostedMapInfo::decode(in));
      bytes += sizeof(map) + map.key_type.size() + map.value_type.size();
    }
    count_staged(request.staged, bytes);
    return !has_too_much_staged();
  }

  std::string too_long_list() const {
    if (has_too_much_staged()) return too_much_staged();
    return detail::beyond_limit("the server lists more maps than this client takes", "maps", limits_->maps);
  }

  template <class Sink>
  void on_refused(Refused m, Sink& sink) {
    if (const auto request = requests_.find(m.channel); request != requests_.end()) {
      if (!end_request(request)) return;
    } else {
      if (known_channel(m.channel) == nullptr) return;
      forget_channel(m.channel);
    }
    sink(ChannelRefused{m.channel, m.reason, std::move(m.detail), m.other});
  }

  // What was asked. An id above `last_id_` was never given out. One that is neither a channel nor a request is a channel
  // that we gave up: its frames may still be under way.

  void expect_given_up(ChannelId id) const {
    if (id == 0 || id > last_id_) break_off("a channel, stream or request that was never opened");
    if (requests_.contains(id)) break_off("an answer of another kind than the request");
  }

  /// Null for a channel that we gave up, or that was refused.
  Channel* known_channel(ChannelId id) {
    const auto found = channels_.find(id);
    if (found != channels_.end()) return &found->second;
    expect_given_up(id);
    return nullptr;
  }

  /// Null for a stream that we gave up.
  Stream* known_stream(ChannelId id) {
    const auto found = streams_.find(id);
    if (found != streams_.end()) return &found->second;
    if (const auto request = requests_.find(id);
        request == requests_.end() || request->second.kind != RequestKind::diff) {
      expect_given_up(id);
    }
    return nullptr;
  }

  /// The end for a request that died with its channel.
  Requests::iterator known_request(ChannelId id, RequestKind kind) {
    const auto found = requests_.find(id);
    if (found == requests_.end()) {
      if (id == 0 || id > last_id_) break_off("an answer to what was never asked");
      if (id > last_lost_request_) break_off("an answer to a request that was answered already");
    } else if (found->second.kind != kind) {
      break_off("an answer of another kind than the request");
    }
    return found;
  }

  [[nodiscard]] bool is_wanted(Requests::iterator request) const {
    return request != requests_.end() && !request->second.is_forgotten;
  }

  /// The answer is whole, or there will be none. Returns whether the role still waits for it.
  bool end_request(Requests::iterator request) {
    if (request == requests_.end()) return false;
    const bool was_wanted = !request->second.is_forgotten;
    if (request->second.channel != 0) --channels_.find(request->second.channel)->second.requests;
    count_staged(request->second.staged, 0);
    if (request->second.kind == RequestKind::diff) drop_stream(request->first);
    requests_.erase(request);
    return was_wanted;
  }

  ChannelId new_request(RequestKind kind, ChannelId channel) {
    const auto about = channels_.find(channel);
    if (about != channels_.end()) ++about->second.requests;
    requests_.try_emplace(++last_id_, Request{kind, about != channels_.end() ? channel : 0});
    return last_id_;
  }

  /// Ends the session unless 1 + `more` events, from `number` on, were sent on the channel and not answered.
  static void take_answers(Channel& channel, std::uint64_t number, std::uint64_t more) {
    if (more >= channel.unanswered_events || number == 0 || number > channel.highest_number ||
        more > channel.highest_number - number) {
      break_off("an answer to an event that was not sent");
    }
    channel.unanswered_events -= more + 1;
  }

  // What is kept of what is not whole.

  /// `slot` is counted as `bytes` from now on.
  void count_staged(std::size_t& slot, std::size_t bytes) {
    staged_bytes_ = staged_bytes_ - slot + bytes;
    slot = bytes;
  }

  [[nodiscard]] bool has_too_much_staged() const { return staged_bytes_ > limits_->staged_bytes; }
  std::string too_much_staged() const {
    return detail::beyond_limit(
        detail::of_bytes("diffs and states that are not whole, on this client's link,", staged_bytes_),
        "staged_bytes", limits_->staged_bytes);
  }

  /// Drops a diff or a state that is beyond a limit of ours, and nothing else of the link: an honest server may have
  /// other limits.
  template <class Sink>
  void refuse_stream(ChannelId id, std::string why, Sink& sink) {
    if (requests_.contains(id)) {
      forget_request(id);  // what still comes of it is dropped
    } else {
      close_channel(id);
    }
    sink(ChannelRefused{id, StateErrc::too_large, std::move(why), {}});
  }

  template <class Sink>
  void refuse_value(ChannelId id, std::uint64_t bytes, Sink& sink) {
    refuse_stream(
        id, detail::beyond_limit(detail::of_bytes("a value", bytes), "value_bytes", limits_->value_bytes),
        sink);
  }

  /// Returns the bytes of the first value that is larger than `Limits::value_bytes`, or 0.
  /// Complexity: O(1) where all entries together are not larger than that.
  [[nodiscard]] std::size_t too_large_value_in(ByteView entries) const {
    std::size_t found = 0;
    if (entries.size() <= limits_->value_bytes) [[likely]]
      return found;
    for_each_entry(entries, [&](std::uint64_t, ByteView value) {
      if (found == 0 && value.size() > limits_->value_bytes) found = value.size();
    });
    return found;
  }

  void drop_partial(Stream& stream) {
    if (!stream.partial) return;
    stream.partial.reset();
    count_staged(stream.partial_bytes, 0);
  }

  void drop_stream(ChannelId id) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    drop_partial(found->second);
    count_staged(found->second.staged, 0);
    streams_.erase(found);
  }

  static UpdateId advanced(UpdateId from, UpdateId advance) {
    if (advance > (std::numeric_limits<UpdateId>::max)() - from) break_off("an update id beyond 64 bits");
    return from + advance;
  }

  template <class Sink>
  void on_step(const Step& m, Sink& sink) {
    Stream* stream = known_stream(m.stream);
    if (stream == nullptr) return;
    if (stream->at.epoch == 0) break_off("a step before the epoch is known");
    if (stream->is_one_shot) break_off("a step in answer to a request");
    if (stream->is_in_transfer) break_off("a step within a transfer");
    if (m.value.size() > limits_->value_bytes) [[unlikely]]
      return refuse_value(m.stream, m.value.size(), sink);
    const UpdateId from = stream->at.update_id;
    stream->at.update_id = advanced(from, 1);
    drop_partial(*stream);
    sink(StepCame{m.stream, stream->at.epoch, from, from + 1, m.ordinal, m.value});
  }

  template <class Sink>
  void on_diff(const DiffMessage& m, Sink& sink) {
    Stream* stream = known_stream(m.stream);
    if (stream == nullptr) {
      if (const auto request = requests_.find(m.stream); request != requests_.end()) end_request(request);
      return;
    }
    if (const auto bytes = too_large_value_in(m.entries)) {
      refuse_value(m.stream, bytes, sink);
      if (const auto request = requests_.find(m.stream); request != requests_.end()) end_request(request);
      return;
    }
    const Epoch before = stream->at.epoch;
    const Epoch epoch = m.epoch.value_or(before);
    if (epoch == 0) break_off("a diff without an epoch");
    if (!m.is_full && before != 0 && epoch != before) break_off("a diff of another epoch that is not full");
    // A full diff costs as much as the map has keys, however few bytes it has. An honest server sends one where it finds
    // the stream in another epoch.
    if (m.is_full && ++stream->full_diffs > most_full_diffs) break_off("too many full diffs on one stream");
    const UpdateId from = m.is_full ? 0 : stream->at.update_id;
    const UpdateId upto = advanced(from, m.advance);
    if (epoch == before && upto < stream->at.update_id) break_off("a diff that leads back");
    stream->at = Position{epoch, upto};
    stream->is_in_transfer = false;
    drop_partial(*stream);
    count_staged(stream->staged, 0);
    const DiffCame came{m.stream, epoch, from, upto, m.is_full, m.entries};
    if (stream->is_one_shot) end_request(requests_.find(m.stream));
    sink(came);
  }

  template <class Sink>
  void on_value_part(const ValuePart& m, Sink& sink) {
    Stream* stream = known_stream(m.stream);
    if (stream == nullptr) return;
    if (m.total > limits_->value_bytes) {
      return refuse_value(m.stream, m.total, sink);
    }
    if (m.offset == 0) {
      drop_partial(*stream);
      stream->partial = PartialValue{m.ordinal, m.total, {}};
    }
    if (!stream->partial) break_off("a part of a value without its beginning");
    PartialValue& partial = *stream->partial;
    if (partial.ordinal != m.ordinal || partial.total != m.total || partial.bytes.size() != m.offset ||
        m.bytes.size() > m.total - m.offset) {
      break_off("a part of a value that does not fit the one before");
    }
    append_within(partial.bytes, m.bytes, static_cast<std::size_t>(m.total));
    if (partial.bytes.size() < m.total) {
      count_staged(stream->partial_bytes, partial.bytes.capacity());
      if (has_too_much_staged()) refuse_stream(m.stream, too_much_staged(), sink);
      return;
    }
    const Bytes whole = std::move(partial.bytes);
    drop_partial(*stream);
    stream->is_in_transfer = true;
    sink(ValueStaged{m.stream, m.ordinal, whole});
    if (has_too_much_staged()) refuse_stream(m.stream, too_much_staged(), sink);
  }

  void forget_channel(ChannelId id) {
    drop_stream(id);
    const auto found = channels_.find(id);
    if (found == channels_.end()) return;
    const Channel channel = std::move(found->second);
    channels_.erase(found);
    if (channel.state == ChannelState::uploading) forget_upload(id);
    if (channel.queued_events != 0) {
      std::erase_if(events_, [&](const EventTask& task) { return task.channel == id; });
    }
    if (channel.requests == 0) return;
    lose_requests_of(id);
  }

  /// Gives up what was asked about a channel that is gone.
  ///
  /// The server counts a request for a diff until it has sent the answer or a refusal, whatever becomes of the channel:
  /// it counts here for as long. It counts no question about the head, and the channel's end may overtake the answer.
  void lose_requests_of(ChannelId channel) {
    for (auto at = requests_.begin(); at != requests_.end();) {
      const auto request = at++;
      if (request->second.channel != channel) continue;
      if (request->second.kind == RequestKind::diff) {
        forget_request(request->first);
        request->second.channel = 0;
      } else {
        last_lost_request_ = last_id_;
        requests_.erase(request);
      }
    }
  }

  void forget_upload(ChannelId channel) {
    std::erase_if(uploads_, [&](const UploadTask& task) { return task.channel == channel; });
  }

  void append_heartbeat(Bytes& out) {
    is_heartbeat_due_ = false;
    HeartbeatFrames frames(out, peer_.frame_bytes);
    if (std::exchange(heartbeat_names_streams_, false)) {
      for (const auto& [id, stream] : streams_) {
        if (!stream.is_one_shot) frames.add(HeartbeatEntry{id, stream.at.update_id});
      }
    }
    frames.end();
  }

  void produce_upload(Bytes& out) {
    UploadTask task = std::move(uploads_.front());
    uploads_.pop_front();
    Bytes bytes;
    if (!task.source->encode_initial(task.cursor, piece_bytes_, bytes)) {
      append_frame(out, UploadEnd{task.channel});
      return;
    }
    Upload piece;
    piece.channel = task.channel;
    piece.bytes = bytes;
    append_frame(out, piece);
    uploads_.push_back(std::move(task));  // uploads of several maps take turns
  }

  void produce_event(Bytes& out) {
    EventTask& task = events_.front();
    Channel& channel = channels_.find(task.channel)->second;  // `forget_channel` takes its events along
    if (channel.event_type != task.event->type_name) {
      channel.event_type = task.event->type_name;
      append_frame(out, EventType{task.channel, channel.event_type});
    }
    const ByteView rest = ByteView(task.event->bytes).subspan(task.sent);
    if (rest.size() > piece_bytes_) {
      EventPart part;
      part.channel = task.channel;
      part.bytes = rest.first(piece_bytes_);
      append_frame(out, part);
      task.sent += piece_bytes_;
      return;
    }
    EventMessage message;
    message.channel = task.channel;
    message.number = task.number;
    message.bytes = rest;
    append_frame(out, message);
    channel.highest_number = (std::max)(channel.highest_number, task.number);
    ++channel.unanswered_events;
    --channel.queued_events;
    events_.pop_front();
  }

  const Limits* limits_;
  FrameReader frames_;
  TimePoint opened_at_;
  TimePoint last_heard_;
  TimePoint last_heartbeat_;
  TimePoint last_named_;  // the last heartbeat that named the streams
  Proof awaited_proof_{};
  Bytes control_;
  std::map<ChannelId, Channel> channels_;
  std::map<ChannelId, Stream> streams_;  // of channels, and of requests for a diff
  Requests requests_;                    // not answered yet
  std::deque<UploadTask> uploads_;
  std::deque<EventTask> events_;
  ChannelId last_id_ = 0;
  ChannelId last_lost_request_ =
      0;  // requests up to here may have been lost with their channel, and be answered still
  std::size_t staged_bytes_ = 0;  // the sum of all `staged` and `partial_bytes`
  std::uint64_t heartbeats_ = 0;  // those of the server
  PeerLimits peer_;
  std::size_t piece_bytes_ = peer_.piece_bytes(limits_->piece_bytes);
  std::chrono::milliseconds heartbeat_every_ = limits_->heartbeat_every;
  std::uint64_t events_in_flight_ = 0;
  std::uint64_t event_bytes_in_flight_ = 0;
  std::uint64_t event_bytes_ = 0;
  std::uint64_t most_channels_ = 0;
  std::uint64_t requests_in_flight_ = 0;
  bool is_authenticated_ = false;
  bool is_over_ = false;
  bool is_heartbeat_due_ = false;
  bool heartbeat_names_streams_ = false;
};

}  // namespace syncstate::protocol

#endif
