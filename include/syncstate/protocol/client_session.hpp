// The client's side of one connection: bytes and time in, actions and bytes out.
#ifndef SYNCSTATE_PROTOCOL_CLIENT_SESSION_HPP
#define SYNCSTATE_PROTOCOL_CLIENT_SESSION_HPP

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

#include "syncstate/event.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/protocol/frame.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/proof.hpp"
#include "syncstate/protocol/session.hpp"

namespace syncstate::protocol {

/// The server proved that it knows the password: maps may be opened.
struct ServerAuthenticated {};
/// A map is open; `sender` is the identity its events carry.
struct ChannelOpened {
  ChannelId channel;
  Position head;
  std::uint64_t sender;
};
/// The server wants this map's initial state: answer with `upload`.
struct UploadAsked {
  ChannelId channel;
};
/// The server refuses this channel or request; it is gone.
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
using ClientAction = std::variant<ServerAuthenticated, ChannelOpened, UploadAsked, ChannelRefused,
                                  UpdateIdCame, StateCame, StateEnded, HostedCame, DiffStaged, ValueStaged,
                                  DiffCame, StepCame, EventAnswered, EventRefused, HeadHeard, CloseSession>;

/// One connection's protocol state on the client, without any I/O.
///
/// `on_bytes` and `on_tick` give actions to a sink, any callable that takes each alternative of
/// `ClientAction`; the sink may call back into the session. `produce` gives the bytes to send.
///
/// Threads : one at a time.
/// Lifetime: `limits` outlives the session.
class ClientSession {
 public:
  ClientSession(const Limits& limits, TimePoint now)
      : limits_(&limits),
        frames_(limits.frame_bytes_before_authentication),
        opened_at_(now),
        last_heard_(now),
        last_heartbeat_(now) {}

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

  /// Time passed. Call at least once a second.
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
    } else if (now - last_heartbeat_ >= limits_->heartbeat_every) {
      last_heartbeat_ = now;
      is_heartbeat_due_ = true;
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
  /// How many events the server takes on this link before it has answered; more would end the session.
  [[nodiscard]] std::uint64_t events_in_flight() const { return events_in_flight_; }
  /// How many bytes of them; but a single event always goes.
  [[nodiscard]] std::uint64_t event_bytes_in_flight() const { return event_bytes_in_flight_; }
  [[nodiscard]] bool is_over() const { return is_over_; }

  // What the role asks for; only after `ServerAuthenticated`.

  /// Opens a map; answered by `ChannelOpened`, `UploadAsked` or `ChannelRefused`. The channel in `open` is
  /// chosen here.
  ChannelId open(Open open) {
    open.channel = ++last_id_;
    channels_[open.channel] = ChannelState::asked;
    if (open.mode != FollowMode::none) streams_[open.channel].at = open.position;
    append_frame(control_, open);
    return open.channel;
  }

  /// Sends the initial state that `UploadAsked` asked for.
  void upload(ChannelId channel, std::shared_ptr<const InitialSource> source) {
    uploads_.push_back(UploadTask{channel, std::move(source), 0, 0});
  }

  /// Gives a channel up; nothing more is heard of it.
  void close_channel(ChannelId channel) {
    forget(channel);
    append_frame(control_, CloseChannel{channel});
  }

  /// Follows an open map from a position; once per channel, for diffs name no position of their own, and
  /// those under way from before could not be told apart.
  void follow(ChannelId channel, Position at, FollowMode mode) {
    Follow message;
    message.channel = channel;
    message.position = at;
    message.mode = mode;
    streams_[channel] = Stream{at, false, {}};
    append_frame(control_, message);
  }

  /// Ends the diffs of a channel. Those under way are dropped.
  void unfollow(ChannelId channel) {
    streams_.erase(channel);
    append_frame(control_, Unfollow{channel});
  }

  /// Asks where the head is; answered by `UpdateIdCame`.
  ChannelId get_update_id(ChannelId channel) {
    append_frame(control_, GetUpdateId{++last_id_, channel});
    return last_id_;
  }

  /// Asks for one diff; answered by `DiffCame` with the request as its stream.
  ChannelId get_diff(ChannelId channel, Position from, UpdateId upto) {
    streams_[++last_id_] = Stream{from, true, {}};
    append_frame(control_, GetDiff{last_id_, channel, from, upto});
    return last_id_;
  }

  /// Asks for the initial state of a hosted map; answered by `StateCame` and `StateEnded`.
  ChannelId fetch(const MapHash& hash, std::string key_type, std::string value_type) {
    append_frame(control_, Fetch{++last_id_, hash, std::move(key_type), std::move(value_type)});
    return last_id_;
  }

  /// Asks which maps are hosted; answered by `HostedCame`.
  ChannelId list() {
    append_frame(control_, List{++last_id_});
    lists_[last_id_];
    return last_id_;
  }

  /// Sends an event on an open channel; answered by `EventAnswered` or `EventRefused`.
  void send_event(ChannelId channel, std::uint64_t sender, std::uint64_t number,
                  std::shared_ptr<const SerializedEvent> event) {
    events_.push_back(EventTask{channel, sender, number, std::move(event), 0});
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
    append_frame(control_, Goodbye{why.reason, shorten(why.detail)});
    sink(why);
  }

 private:
  struct UploadTask {
    ChannelId channel;
    std::shared_ptr<const InitialSource> source;
    std::uint32_t next_key;
    std::uint64_t offset;
  };
  struct EventTask {
    ChannelId channel;
    std::uint64_t sender;
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
    std::optional<PartialValue> partial{};
    bool is_in_transfer = false;  // something is staged
  };
  enum class ChannelState { asked, uploading, open };

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
        ChannelState* state = known_channel(m.channel);
        if (state == nullptr) return;
        if (*state == ChannelState::open) break_off("a channel that is open already");
        *state = ChannelState::open;
        sink(ChannelOpened{m.channel, m.head, m.sender});
        return;
      }
      case FrameKind::upload_wanted: {
        const ChannelId channel = decode_body<UploadWanted>(frame.body).channel;
        ChannelState* state = known_channel(channel);
        if (state == nullptr) return;
        if (*state != ChannelState::asked) break_off("an upload that was asked for already");
        *state = ChannelState::uploading;
        sink(UploadAsked{channel});
        return;
      }
      case FrameKind::refused: {
        auto m = decode_body<Refused>(frame.body);
        expect_asked(m.channel);
        forget(m.channel);
        sink(ChannelRefused{m.channel, m.reason, std::move(m.detail), m.other});
        return;
      }
      case FrameKind::update_id: {
        const auto m = decode_body<UpdateIdMessage>(frame.body);
        expect_asked(m.request);
        sink(UpdateIdCame{m.request, m.head});
        return;
      }
      case FrameKind::state: {
        const auto m = decode_body<StatePiece>(frame.body);
        expect_asked(m.request);
        sink(StateCame{m.request, m.bytes});
        return;
      }
      case FrameKind::state_end: {
        const ChannelId request = decode_body<StateEnd>(frame.body).channel;
        expect_asked(request);
        sink(StateEnded{request});
        return;
      }
      case FrameKind::hosted: return on_hosted(decode_body<Hosted>(frame.body), sink);
      case FrameKind::step: return on_step(decode_body<Step>(frame.body), sink);
      case FrameKind::diff: return on_diff(decode_body<DiffMessage>(frame.body), sink);
      case FrameKind::transfer: {
        const auto m = decode_body<Transfer>(frame.body);
        if (Stream* stream = known_stream(m.stream)) {
          stream->partial.reset();
          stream->is_in_transfer = true;
          sink(DiffStaged{m.stream, m.entries});
        }
        return;
      }
      case FrameKind::value_part: return on_value_part(decode_body<ValuePart>(frame.body), sink);
      case FrameKind::answer: {
        const auto m = decode_body<Answer>(frame.body);
        expect_asked(m.channel);
        if (m.more >= std::max<std::uint64_t>(events_in_flight_, limits_->events_in_flight))
          break_off("more answers than events");
        for (std::uint64_t i = 0; i <= m.more && !is_over_; ++i) {
          sink(EventAnswered{m.channel, m.number + i, m.update_id + i});
        }
        return;
      }
      case FrameKind::answer_error: {
        auto m = decode_body<AnswerError>(frame.body);
        expect_asked(m.channel);
        sink(EventRefused{m.channel, m.number, m.reason, std::move(m.detail)});
        return;
      }
      default: break_off("a frame that a server never sends");
    }
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
    is_authenticated_ = true;
    events_in_flight_ = welcome.events_in_flight;
    event_bytes_in_flight_ = welcome.event_bytes_in_flight;
    last_heartbeat_ = now;
    frames_.set_max_frame_bytes(limits_->frame_bytes);
    sink(ServerAuthenticated{});
  }

  template <class Sink>
  void on_goodbye(const Goodbye& goodbye, Sink& sink) {
    is_over_ = true;
    sink(CloseSession{goodbye.reason, goodbye.detail});
  }

  template <class Sink>
  void on_heartbeat(ByteView body, Sink& sink) {
    ByteReader in(body);
    while (!in.is_at_end()) {
      const auto entry = HeartbeatEntry::decode(in);
      if (known_stream(entry.channel) != nullptr) sink(HeadHeard{entry.channel, entry.update_id});
    }
  }

  template <class Sink>
  void on_hosted(const Hosted& hosted, Sink& sink) {
    const auto asked = lists_.find(hosted.request);
    if (asked == lists_.end()) break_off("a list that was not asked for");
    std::vector<HostedMapInfo>& maps = asked->second;
    ByteReader in(hosted.maps);
    while (!in.is_at_end()) {
      maps.push_back(HostedMapInfo::decode(in));
      if (maps.size() > limits_->maps) break_off("more maps than a server may host");
    }
    if (hosted.more) return;
    HostedCame came{hosted.request, std::move(maps)};
    lists_.erase(asked);
    sink(std::move(came));
  }

  /// Ends the session for an answer to what was never asked; one to what we gave up may still be under way.
  void expect_asked(ChannelId id) const {
    if (id == 0 || id > last_id_) break_off("an answer to what was never asked");
  }

  /// Null for a channel that we gave up, or that was refused.
  ChannelState* known_channel(ChannelId id) {
    const auto found = channels_.find(id);
    if (found != channels_.end()) return &found->second;
    if (id == 0 || id > last_id_) break_off("a channel that was never opened");
    return nullptr;
  }

  /// Null for a stream that we gave up: its frames may still be under way.
  Stream* known_stream(ChannelId id) {
    const auto found = streams_.find(id);
    if (found != streams_.end()) return &found->second;
    if (id == 0 || id > last_id_) break_off("a stream that was never opened");
    return nullptr;
  }

  static UpdateId advanced(UpdateId from, UpdateId advance) {
    if (advance > std::numeric_limits<UpdateId>::max() - from) break_off("an update id beyond 64 bits");
    return from + advance;
  }

  template <class Sink>
  void on_step(const Step& m, Sink& sink) {
    Stream* stream = known_stream(m.stream);
    if (stream == nullptr) return;
    if (stream->at.epoch == 0) break_off("a step before the epoch is known");
    if (stream->is_one_shot) break_off("a step in answer to a request");
    if (stream->is_in_transfer) break_off("a step within a transfer");
    const UpdateId from = stream->at.update_id;
    stream->at.update_id = advanced(from, 1);
    stream->partial.reset();
    sink(StepCame{m.stream, stream->at.epoch, from, from + 1, m.ordinal, m.value});
  }

  template <class Sink>
  void on_diff(const DiffMessage& m, Sink& sink) {
    Stream* stream = known_stream(m.stream);
    if (stream == nullptr) return;
    const Epoch before = stream->at.epoch;
    const Epoch epoch = m.epoch.value_or(before);
    if (epoch == 0) break_off("a diff without an epoch");
    if (!m.is_full && before != 0 && epoch != before) break_off("a diff of another epoch that is not full");
    const UpdateId from = m.is_full ? 0 : stream->at.update_id;
    const UpdateId upto = advanced(from, m.advance);
    if (epoch == before && upto < stream->at.update_id) break_off("a diff that leads back");
    stream->at = Position{epoch, upto};
    stream->is_in_transfer = false;
    stream->partial.reset();
    const DiffCame came{m.stream, epoch, from, upto, m.is_full, m.entries};
    if (stream->is_one_shot) streams_.erase(m.stream);
    sink(came);
  }

  template <class Sink>
  void on_value_part(const ValuePart& m, Sink& sink) {
    Stream* stream = known_stream(m.stream);
    if (stream == nullptr) return;
    if (m.total > limits_->value_bytes) throw StateError(StateErrc::too_large, "a value is beyond the limit");
    if (m.offset == 0) stream->partial = PartialValue{m.ordinal, m.total, {}};
    if (!stream->partial) break_off("a part of a value without its beginning");
    PartialValue& partial = *stream->partial;
    if (partial.ordinal != m.ordinal || partial.total != m.total || partial.bytes.size() != m.offset ||
        m.bytes.size() > m.total - m.offset) {
      break_off("a part of a value that does not fit the one before");
    }
    partial.bytes.insert(partial.bytes.end(), m.bytes.begin(), m.bytes.end());
    if (partial.bytes.size() < m.total) return;
    const Bytes whole = std::move(partial.bytes);
    stream->partial.reset();
    stream->is_in_transfer = true;
    sink(ValueStaged{m.stream, m.ordinal, whole});
  }

  void forget(ChannelId channel) {
    channels_.erase(channel);
    streams_.erase(channel);
    event_types_.erase(channel);
    lists_.erase(channel);
    std::erase_if(uploads_, [&](const UploadTask& task) { return task.channel == channel; });
    std::erase_if(events_, [&](const EventTask& task) { return task.channel == channel; });
  }

  void append_heartbeat(Bytes& out) {
    is_heartbeat_due_ = false;
    const std::size_t start = open_frame(out);
    ByteWriter writer(out);
    writer.put_u8(static_cast<std::uint8_t>(FrameKind::heartbeat));
    for (const auto& [id, stream] : streams_) {
      if (!stream.is_one_shot) HeartbeatEntry{id, stream.at.update_id}.encode(writer);
    }
    close_frame(out, start);
  }

  void produce_upload(Bytes& out) {
    UploadTask task = std::move(uploads_.front());
    uploads_.pop_front();
    Bytes bytes;
    if (!task.source->encode_initial(task.next_key, task.offset, limits_->piece_bytes, bytes)) {
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
    std::string& type = event_types_[task.channel];
    if (type != task.event->type_name) {
      type = task.event->type_name;
      append_frame(out, EventType{task.channel, type});
    }
    const ByteView rest = ByteView(task.event->bytes).subspan(task.sent);
    if (rest.size() > limits_->piece_bytes) {
      EventPart part;
      part.channel = task.channel;
      part.bytes = rest.first(limits_->piece_bytes);
      append_frame(out, part);
      task.sent += limits_->piece_bytes;
      return;
    }
    EventMessage message;
    message.channel = task.channel;
    message.sender = task.sender;
    message.number = task.number;
    message.bytes = rest;
    append_frame(out, message);
    events_.pop_front();
  }

  const Limits* limits_;
  FrameReader frames_;
  TimePoint opened_at_;
  TimePoint last_heard_;
  TimePoint last_heartbeat_;
  Proof awaited_proof_{};
  Bytes control_;
  std::map<ChannelId, ChannelState> channels_;
  std::map<ChannelId, Stream> streams_;
  std::map<ChannelId, std::string> event_types_;
  std::map<ChannelId, std::vector<HostedMapInfo>> lists_;
  std::deque<UploadTask> uploads_;
  std::deque<EventTask> events_;
  ChannelId last_id_ = 0;
  std::uint64_t events_in_flight_ = 0;
  std::uint64_t event_bytes_in_flight_ = 0;
  bool is_authenticated_ = false;
  bool is_over_ = false;
  bool is_heartbeat_due_ = false;
};

}  // namespace syncstate::protocol

#endif
