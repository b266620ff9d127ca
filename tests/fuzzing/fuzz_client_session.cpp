// A client session driven by a script: right and broken frames of a server, time, and a role that opens, follows,
// sends and gives up.
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "session_script.hpp"

namespace {

using namespace syncstate;
using namespace syncstate::fuzzing;
using wire::ChannelId;
using wire::FrameKind;

/// Takes the entries of one stream, as a remote does: what is no entry of this map throws.
class Taker final : public detail::DiffAssembler<std::string, std::string> {
 public:
  Taker() : DiffAssembler(detail::MapAccess::frozen(master())) {}
  [[nodiscard]] Position position() const override { return {}; }

 private:
  std::error_code take(Diff<std::string, std::string> diff) override {
    require(detail::MapAccess::diff_ordinals(diff).size() <= map_keys, "a diff names each key once");
    return {};
  }
};

/// The server and the role around one session, and what both know to be so.
class Script {
 public:
  explicit Script(Input input) : input_(input) { session_.on_open("secret", testing::test_binding(), now_); }

  void run() {
    piece_ = input_.below(4);
    if (input_.flip()) welcome();
    while (!input_.is_empty()) step();
    drain();
    now_ += 1h;
    tick();
    require(is_closed_, "a session to which nothing comes ends");
    drain();
    // The server's bytes are what the client works for: a frame has two at least, an entry of a heartbeat as many, and an
    // answer speaks of events that were sent.
    require(actions_ <= fed_bytes_ / 2 + sent_events_ + 1,
            "a session's work is bounded by the bytes that came");
  }

  // The session's sink.

  void operator()(const wire::ServerAuthenticated&) {
    expect_action();
    require(!std::exchange(is_authenticated_, true), "a server is authenticated once");
    require(session_.events_in_flight() > 0, "a server takes some event");
  }
  void operator()(const wire::ChannelOpened& action) {
    expect_action();
    require(action.head.epoch != 0, "a master has an epoch");
    require(channels_.contains(action.channel), "only a channel that was asked for is opened");
    require(!std::exchange(channels_[action.channel].is_open, true), "a channel is opened once");
    thrower_.maybe_throw();
  }
  void operator()(const wire::SenderGiven& action) {
    expect_action();
    const auto channel = channels_.find(action.channel);
    require(channel != channels_.end() && channel->second.is_open, "only an open channel gets a sender");
    require(channel->second.is_sender_asked, "only a sender that was asked for is given");
    require(!std::exchange(channel->second.has_sender, true), "a sender is given once");
    require(action.sender != 0, "a sender is never 0");
    thrower_.maybe_throw();
  }
  void operator()(const wire::UploadAsked& action) {
    expect_action();
    require(channels_.contains(action.channel), "only a channel that was asked for is uploaded");
    require(!channels_[action.channel].is_open, "an open channel is not uploaded");
    require(!std::exchange(channels_[action.channel].is_wanted, true), "an upload is wanted once");
    thrower_.maybe_throw();
    if (input_.below(4) != 0) {
      session_.upload(action.channel, initial_);
    } else {
      close(action.channel);
    }
  }
  void operator()(const wire::ChannelRefused& action) {
    expect_action();
    require(channels_.contains(action.channel) || requests_.contains(action.channel),
            "only what was asked for is refused, and once");
    forget(action.channel);
    thrower_.maybe_throw();
  }
  void operator()(const wire::UpdateIdCame& action) { end_request(action.request, Asked::head); }
  void operator()(const wire::StateCame& action) {
    expect_action();
    require(is_asked(action.request, Asked::state), "only a state that is asked for comes");
    require(action.bytes.size() < limits_.frame_bytes, "a piece is no larger than a frame");
    thrower_.maybe_throw();
  }
  void operator()(const wire::StateEnded& action) { end_request(action.request, Asked::state); }
  void operator()(const wire::HostedCame& action) {
    end_request(action.request, Asked::list);
    require(action.maps.size() <= limits_.maps, "a list is bounded");
  }
  void operator()(const wire::DiffStaged& action) {
    Taker& taker = *stream_of(action.stream).taker;
    taker.stage(action.entries);
    session_.set_staged(action.stream, taker.staged_bytes());
    thrower_.maybe_throw();
  }
  void operator()(const wire::ValueStaged& action) {
    require(action.value.size() <= limits_.value_bytes, "no value is beyond the limit");
    Taker& taker = *stream_of(action.stream).taker;
    taker.stage_value(action.ordinal, action.value);
    session_.set_staged(action.stream, taker.staged_bytes());
  }
  void operator()(const wire::DiffCame& action) {
    Stream& stream = stream_of(action.stream);
    require(action.epoch != 0 && action.from <= action.upto, "a diff has an epoch and leads forward");
    if (action.is_full) {
      require(action.from == 0, "a full diff counts from 0");
    } else {
      require(action.from == stream.at.update_id, "a diff follows the one before");
      require(stream.at.epoch == 0 || action.epoch == stream.at.epoch, "only a full diff changes the epoch");
    }
    require(action.epoch != stream.at.epoch || action.upto >= stream.at.update_id, "no diff leads back");
    stream.at = {action.epoch, action.upto};
    const std::shared_ptr<Taker> taker = stream.taker;
    if (stream.is_one_shot) {
      require(requests_.erase(action.stream) == 1, "a diff that was asked for comes once");
      streams_.erase(action.stream);
    }
    (void)taker->close({action.epoch, action.from, action.upto, action.is_full}, action.entries);
    thrower_.maybe_throw();
  }
  void operator()(const wire::StepCame& action) {
    Stream& stream = stream_of(action.stream);
    require(!stream.is_one_shot, "no step answers a request");
    require(action.epoch != 0 && action.epoch == stream.at.epoch, "a step is of the stream's epoch");
    require(action.from == stream.at.update_id && action.upto == action.from + 1, "a step is one commit");
    stream.at.update_id = action.upto;
    (void)stream.taker->step({action.epoch, action.from, action.upto, false}, action.ordinal, action.value);
    thrower_.maybe_throw();
  }
  void operator()(const wire::EventAnswered& action) { end_event(action.channel); }
  void operator()(const wire::EventRefused& action) { end_event(action.channel); }
  void operator()(const wire::HeadHeard& action) { (void)stream_of(action.channel); }
  void operator()(const wire::CloseSession& action) {
    require(!std::exchange(is_closed_, true), "a session ends once");
    require(action.reason != StateErrc{}, "a session ends for a reason");
  }

 private:
  struct Channel {
    bool is_open = false;
    bool is_wanted = false;
    bool was_followed = false;
    bool is_sender_asked = false;
    bool has_sender = false;
    std::uint64_t next_event = 1;
    std::uint64_t unanswered = 0;
  };
  enum class Asked { head, diff, state, list };
  struct Request {
    Asked kind;
    ChannelId channel;
  };
  struct Stream {
    Position at;
    bool is_one_shot = false;
    std::shared_ptr<Taker> taker = std::make_shared<Taker>();
  };

  void expect_action() {
    ++actions_;
    require(!is_closed_, "nothing is told to the role once the session is over");
    require(has_welcomed_, "nothing is told to the role before the server is authenticated");
  }
  bool is_asked(ChannelId id, Asked kind) const {
    const auto found = requests_.find(id);
    return found != requests_.end() && found->second.kind == kind;
  }
  void end_request(ChannelId id, Asked kind) {
    expect_action();
    require(is_asked(id, kind), "only what was asked for is answered, by its kind, and once");
    requests_.erase(id);
  }
  void end_event(ChannelId id) {
    expect_action();
    require(channels_.contains(id), "events of channels that the role has are answered");
    require(channels_[id].unanswered-- > 0, "only events that were sent are answered, and once");
  }
  Stream& stream_of(ChannelId id) {
    expect_action();
    const auto found = streams_.find(id);
    require(found != streams_.end(), "diffs come on streams that the role has");
    return found->second;
  }
  void forget(ChannelId id) {
    if (channels_.erase(id) == 1) {
      for (auto at = requests_.begin(); at != requests_.end();) {
        if (at->second.channel == id) {
          streams_.erase(at->first);
          at = requests_.erase(at);
        } else {
          ++at;
        }
      }
    }
    streams_.erase(id);
    requests_.erase(id);
  }

  // The server.

  void feed(ByteView bytes) {
    fed_bytes_ += bytes.size();
    in_pieces(bytes, piece_, [this](ByteView piece) { session_.on_bytes(piece, now_, *this); });
    if (!is_closed_) {
      require(session_.staged_bytes() <= limits_.staged_bytes, "what is not whole is bounded");
    }
    if (thrower_.has_thrown()) require(is_closed_, "what the role throws ends the session");
  }

  void welcome() {
    has_welcomed_ = true;
    feed(testing::welcome_frame());
  }

  /// A channel or request there is, or was, or never was.
  ChannelId take_id() {
    if (input_.below(16) == 0) return input_.take_number();
    return last_id_ == 0 ? 0 : 1 + input_.take_byte() % last_id_;
  }
  ChannelId take_stream() {
    if (streams_.empty() || input_.below(16) == 0) return take_id();
    return std::next(streams_.begin(), static_cast<std::ptrdiff_t>(input_.below(streams_.size())))->first;
  }

  /// Entries that are some, of keys there are as a rule.
  Bytes take_entries() {
    Bytes entries;
    ByteWriter out(entries);
    for (std::size_t count = input_.below(4); count > 0; --count) {
      out.put_varint(input_.below(map_keys + 1));
      out.put_sized(input_.take_bytes());
    }
    return entries;
  }

  void send_message() {
    switch (input_.below(16)) {
      case 0: {
        const ChannelId id = take_id();
        feed(frame_of(wire::Opened{id, take_position(input_, head_)}));
        const std::uint64_t sender = input_.take_byte();
        if (sender % 2 != 0) feed(frame_of(wire::SenderMessage{id, sender}));
        return;
      }
      case 1: return feed(frame_of(wire::UploadWanted{take_id()}));
      case 2: {
        wire::Refused message;
        message.channel = take_id();
        message.reason = take_reason(input_);
        message.detail = take_text(input_);
        if (input_.flip()) message.other = MapHash();
        return feed(frame_of(message));
      }
      case 3: return feed(frame_of(wire::UpdateIdMessage{take_id(), take_position(input_, head_)}));
      case 4: {
        wire::StatePiece message;
        message.request = take_id();
        message.bytes = input_.take_bytes();
        return feed(frame_of(message));
      }
      case 5: return feed(frame_of(wire::StateEnd{take_id()}));
      case 6: return send_hosted();
      case 7:
      case 8: {
        wire::Step message;
        message.stream = take_stream();
        message.ordinal = input_.below(map_keys + 1);
        message.value = input_.take_bytes();
        return feed(frame_of(message));
      }
      case 9:
      case 10: {
        wire::DiffMessage message;
        message.stream = take_stream();
        message.is_full = input_.flip();
        if (input_.flip()) message.epoch = input_.below(3);
        message.advance = input_.take_number();
        const Bytes entries = take_entries();
        message.entries = entries;
        return feed(frame_of(message));
      }
      case 11: {
        wire::Transfer message;
        message.stream = take_stream();
        const Bytes entries = take_entries();
        message.entries = entries;
        return feed(frame_of(message));
      }
      case 12: return send_value_part();
      case 13: return send_answer();
      case 14: {
        Bytes body;
        ByteWriter out(body);
        for (std::size_t count = input_.below(4); count > 0; --count) {
          wire::HeartbeatEntry{take_stream(), input_.take_number()}.encode(out);
        }
        return feed(testing::raw_frame(static_cast<unsigned>(FrameKind::heartbeat), body));
      }
      default: {
        const std::size_t how = input_.below(8);
        if (how == 1) return feed(frame_of(wire::SenderMessage{take_id(), input_.take_byte()}));
        if (how != 0) {
          return feed(frame_of(
              wire::AnswerError{take_id(), input_.take_number(), take_reason(input_), take_text(input_)}));
        }
        return feed(frame_of(wire::Goodbye{take_reason(input_), take_text(input_)}));
      }
    }
  }

  /// To events that were sent as a rule, and to so many more as there may be.
  void send_answer() {
    wire::Answer message;
    message.channel = take_id();
    message.number = input_.take_number();
    message.update_id = input_.take_number();
    message.more = input_.take_number();
    feed(frame_of(message));
  }

  void send_hosted() {
    wire::Hosted message;
    message.request = take_id();
    for (const auto& [id, request] : requests_) {
      if (request.kind == Asked::list && input_.below(16) != 0) message.request = id;
    }
    message.more = input_.flip();
    Bytes maps;
    ByteWriter out(maps);
    for (std::size_t count = input_.below(4); count > 0; --count) {
      wire::HostedMapInfo{MapHash(), MapHash(), take_text(input_), "string", input_.take_number()}.encode(
          out);
    }
    message.maps = maps;
    feed(frame_of(message));
  }

  /// The next part of the value under way as a rule, so that some become whole.
  void send_value_part() {
    wire::ValuePart message;
    if (part_.total == 0 || input_.below(8) == 0) {
      part_.stream = take_stream();
      part_.ordinal = input_.below(map_keys + 1);
      part_.total = 1 + input_.take_byte() * std::uint64_t{4};
      part_.offset = 0;
    }
    message = part_;
    message.bytes = input_.take_bytes();
    if (input_.below(8) != 0 && message.bytes.size() > part_.total - part_.offset) {
      message.bytes = message.bytes.first(part_.total - part_.offset);
    }
    part_.offset += message.bytes.size();
    if (part_.offset >= part_.total) part_.total = 0;
    feed(frame_of(message));
  }

  void step() {
    switch (input_.below(16)) {
      case 0: return feed(input_.take_bytes());
      case 1: return feed(take_frame(input_));
      case 2: return welcome();
      case 3: now_ += take_pause(input_); return tick();
      case 4: return produce();
      case 5:
        if (input_.below(8) == 0) thrower_.arm(1 + input_.below(2));
        return;
      case 6:
        if (input_.below(8) == 0) {
          const StateErrc reason = take_reason(input_);
          session_.fail(reason, take_text(input_), *this);
        }
        return;
      case 7:
      case 8:
      case 9:
      case 10:
        // The role asks for things once the server has proved itself, and of a session that is not over.
        if (is_authenticated_ && !is_closed_) ask();
        return;
      default: return send_message();
    }
  }

  void tick() { session_.on_tick(now_, *this); }

  // The role.

  void note(ChannelId id) {
    require(id > last_id_, "every channel and request is new");
    last_id_ = id;
  }

  /// Some channel there is; 0 if there is none.
  ChannelId take_channel() {
    if (channels_.empty()) return 0;
    return std::next(channels_.begin(), static_cast<std::ptrdiff_t>(input_.below(channels_.size())))->first;
  }

  void close(ChannelId id) {
    session_.close_channel(id);
    forget(id);
  }

  void ask() {
    const std::size_t what = input_.below(12);
    if (what == 0 || what == 1) return open();
    const bool has_room = session_.has_room_for_request();
    require(has_room || limits_.requests_in_flight != 0, "there is room for a first request");
    if (what == 2 && has_room) return note_request(session_.list(), Asked::list);
    if (what == 3 && has_room) {
      return note_request(session_.fetch(MapHash(), "string", take_text(input_)), Asked::state);
    }
    if (what == 11 && !requests_.empty()) {
      const ChannelId request = requests_.begin()->first;
      session_.forget_request(request);
      return forget(request);
    }
    const ChannelId id = take_channel();
    if (id == 0) return open();
    Channel& channel = channels_[id];
    if (what == 4) return close(id);
    if (what == 9 && !std::exchange(channel.is_sender_asked, true)) {
      return session_.get_sender(id, input_.take_number());
    }
    if (!channel.is_open) return;
    switch (what) {
      case 5:
        if (has_room) note_request(session_.get_update_id(id), Asked::head, id);
        return;
      case 6: {
        if (!has_room) return;
        const Position from = take_position(input_, head_);
        const ChannelId request = session_.get_diff(id, from, input_.take_number());
        note_request(request, Asked::diff, id);
        streams_[request] = Stream{from, true};
        return;
      }
      case 7:
        session_.unfollow(id);
        streams_.erase(id);
        return;
      case 8:
        if (std::exchange(channel.was_followed, true)) return;
        streams_[id] = Stream{take_position(input_, head_)};
        return session_.follow(id, streams_[id].at, wire::FollowMode::merged);
      default: {
        if (!channel.has_sender) return;
        auto event = std::make_shared<SerializedEvent>();
        event->type_name = take_text(input_);
        event->bytes.resize(input_.take_byte() * std::size_t{2});
        return session_.send_event(id, channel.next_event++, std::move(event));
      }
    }
  }

  void note_request(ChannelId id, Asked kind, ChannelId channel = 0) {
    note(id);
    requests_.emplace(id, Request{kind, channel});
    require(requests_.size() <= limits_.requests_in_flight, "unanswered requests are bounded");
  }

  void open() {
    wire::Open open;
    open.key_type = open.value_type = "string";
    open.position = take_position(input_, head_);
    open.mode = take_mode(input_);
    const ChannelId id = session_.open(open);
    note(id);
    channels_[id] = Channel{};
    if (open.mode == wire::FollowMode::none) return;
    channels_[id].was_followed = true;
    streams_[id] = Stream{open.position};
  }

  // What goes out.

  void produce() {
    const bool is_wanted = session_.wants_to_send();
    Bytes out;
    session_.produce(out);
    require(is_wanted == !out.empty(), "a session gives something exactly when it says that it would");
    std::size_t pulled = 0;
    for (const testing::OwnedFrame& frame : frames_of(out)) {
      check_frame(frame);
      if (frame.kind == FrameKind::upload || frame.kind == FrameKind::event ||
          frame.kind == FrameKind::event_part) {
        require(!is_closed_, "nothing is made for a server once the session is over");
        pulled += frame.body.size();
      }
    }
    require(pulled <= 4 * limits_.piece_bytes, "what a session gives at a time is bounded");
    if (is_closed_) require(!session_.wants_to_send(), "a session that is over gives its last bytes at once");
  }

  void check_frame(const testing::OwnedFrame& frame) {
    require(!has_said_goodbye_, "nothing comes behind a goodbye");
    if (!std::exchange(has_said_hello_, true)) {
      require(frame.kind == FrameKind::hello, "a client's first word is the hello");
    } else if (frame.kind == FrameKind::hello) {
      fail("a client says hello once");
    } else if (!is_authenticated_) {
      require(frame.kind == FrameKind::goodbye, "a server without a proof hears nothing but a goodbye");
    }
    switch (frame.kind) {
      case FrameKind::hello: wire::decode_body<wire::Hello>(frame.body); return;
      case FrameKind::goodbye:
        wire::decode_body<wire::Goodbye>(frame.body);
        require(is_closed_, "a goodbye is the end");
        has_said_goodbye_ = true;
        return;
      case FrameKind::heartbeat: {
        ByteReader in(frame.body);
        while (!in.is_at_end()) wire::HeartbeatEntry::decode(in);
        return;
      }
      case FrameKind::open: wire::decode_body<wire::Open>(frame.body); return;
      case FrameKind::upload: wire::decode_body<wire::Upload>(frame.body); return;
      case FrameKind::upload_end: wire::decode_body<wire::UploadEnd>(frame.body); return;
      case FrameKind::close_channel: wire::decode_body<wire::CloseChannel>(frame.body); return;
      case FrameKind::follow: wire::decode_body<wire::Follow>(frame.body); return;
      case FrameKind::unfollow: wire::decode_body<wire::Unfollow>(frame.body); return;
      case FrameKind::get_update_id: wire::decode_body<wire::GetUpdateId>(frame.body); return;
      case FrameKind::get_diff: wire::decode_body<wire::GetDiff>(frame.body); return;
      case FrameKind::fetch: wire::decode_body<wire::Fetch>(frame.body); return;
      case FrameKind::list: wire::decode_body<wire::List>(frame.body); return;
      case FrameKind::event_type: wire::decode_body<wire::EventType>(frame.body); return;
      case FrameKind::event_part: wire::decode_body<wire::EventPart>(frame.body); return;
      case FrameKind::event: {
        const auto event = wire::decode_body<wire::EventMessage>(frame.body);
        ++channels_[event.channel].unanswered;
        ++sent_events_;
        return;
      }
      case FrameKind::get_sender: wire::decode_body<wire::GetSender>(frame.body); return;
      case FrameKind::limits:
        wire::decode_body<wire::ClientLimits>(frame.body);
        require(!std::exchange(has_told_limits_, true), "a client tells its limits once");
        return;
      default: fail("a frame that a client never sends");
    }
  }

  void drain() {
    for (int i = 0; session_.wants_to_send(); ++i) {
      require(i < 10'000, "a session comes to an end of what it has to send");
      produce();
    }
  }

  Input input_;
  const Limits limits_ = small_limits();
  const Position head_{2, 9};  ///< what the server says of its master, where it says the truth
  TimePoint now_ = testing::t0;
  wire::ClientSession session_{limits_, now_};
  std::shared_ptr<const wire::InitialSource> initial_ = std::make_shared<Hosted>(master(), limits_);
  Thrower thrower_;
  std::map<ChannelId, Channel> channels_;
  std::map<ChannelId, Stream> streams_;
  std::map<ChannelId, Request> requests_;
  std::size_t actions_ = 0;
  std::size_t fed_bytes_ = 0;
  std::size_t sent_events_ = 0;
  wire::ValuePart part_;
  ChannelId last_id_ = 0;
  std::size_t piece_ = 0;
  bool has_welcomed_ = false;
  bool is_authenticated_ = false;
  bool has_said_hello_ = false;
  bool has_told_limits_ = false;
  bool has_said_goodbye_ = false;
  bool is_closed_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script(Input(data, size)).run();
  return 0;
}
