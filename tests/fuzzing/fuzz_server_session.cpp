// A server session driven by a script: right and broken frames, time, a role that answers now, later or not at all.
#include <cstddef>
#include <cstdint>
#include <deque>
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

/// The client and the role around one session, and what both know to be so.
class Script {
 public:
  explicit Script(Input input) : input_(input) {
    session_.on_open(testing::passwords(), testing::test_binding(), false, now_);
  }

  void run() {
    piece_ = input_.below(4);
    if (input_.flip()) say_hello();
    while (!input_.is_empty()) step();
    drain();
    now_ += 1h;
    tick();
    require(is_closed_, "a session to which nothing comes ends");
    drain();
  }

  // The session's sink.

  void operator()(const wire::ProofChecked& action) {
    expect_action();
    require(!is_authenticated_, "a client proves itself before it is authenticated");
    has_right_proof_ = action.standing == wire::ProofStanding::right;
  }
  void operator()(const wire::ClientAuthenticated&) {
    expect_action();
    require(has_said_hello_ && has_right_proof_, "nobody is authenticated without the proof");
    require(!std::exchange(is_authenticated_, true), "a client is authenticated once");
  }
  void operator()(const wire::OpenAsked& action) {
    expect_action();
    expect_new(action.open.channel);
    channels_[action.open.channel] = Channel{State::asked, action.open};
    require(channels_.size() <= limits_.maps, "the maps of a link are bounded");
    thrower_.maybe_throw();
    if (answers_at_once_) answer_open(action.open.channel);
  }
  void operator()(const wire::UploadCame& action) {
    expect_action();
    require(state_of(action.channel) == State::uploading, "only a wanted upload comes");
    thrower_.maybe_throw();
  }
  void operator()(const wire::UploadEnded& action) {
    expect_action();
    require(state_of(action.channel) == State::uploading, "only a wanted upload ends");
    channels_[action.channel].state = State::uploaded;
    thrower_.maybe_throw();
    if (answers_at_once_) answer_open(action.channel);
  }
  void operator()(const wire::UploadGoesOn& action) {
    expect_action();
    require(state_of(action.channel) == State::uploading, "only a wanted upload goes on");
    thrower_.maybe_throw();
  }
  void operator()(const wire::ChannelClosed& action) {
    expect_action();
    require(channels_.erase(action.channel) == 1, "only a channel there is can be closed");
  }
  void operator()(const wire::FollowAsked& action) {
    expect_action();
    const ChannelId id = action.follow.channel;
    require(state_of(id) == State::open, "only an open channel is followed");
    if (input_.below(4) == 0) session_.refuse(id, StateErrc::forbidden, "");
    if (!session_.follow(action.follow)) channels_.erase(id);
  }
  void operator()(const wire::DiffAsked& action) {
    expect_action();
    expect_new(action.ask.request);
    require(state_of(action.ask.channel) == State::open, "only of an open channel diffs are asked for");
    session_.send_diff(action.ask);
  }
  void operator()(const wire::HeadAsked& action) {
    expect_action();
    expect_new(action.ask.request);
    require(state_of(action.ask.channel) == State::open, "only of an open channel the head is asked for");
    session_.send_head(action.ask);
  }
  void operator()(const wire::FetchAsked& action) {
    expect_action();
    expect_new(action.fetch.request);
    thrower_.maybe_throw();
    if (action.fetch.hash == map_->hash()) {
      session_.send_initial(action.fetch.request, map_);
    } else {
      session_.refuse(action.fetch.request, StateErrc::not_hosted, "");
    }
  }
  void operator()(const wire::ListAsked& action) {
    expect_action();
    expect_new(action.request);
    thrower_.maybe_throw();
    for (std::uint8_t i = 1; i <= 3; ++i) list_.maps.insert(MapHash({std::byte{i}}));
    session_.send_hosted(action.request, list_);
  }
  void operator()(const wire::SenderAsked& action) {
    expect_action();
    Channel* const channel = find(action.channel);
    require(channel != nullptr && channel->state == State::open,
            "only of an open channel a sender is asked for");
    require(!std::exchange(channel->is_sender_asked, true), "a sender is asked for once");
    thrower_.maybe_throw();
    if (input_.below(4) == 0) return;  // the client waits in vain
    channel->sender = action.channel + 1'000;
    session_.give_sender(action.channel, channel->sender);
  }
  void operator()(const wire::EventCame& action) {
    expect_action();
    require(action.sender != 0 && action.sender == find(action.ticket.channel)->sender,
            "an event is of the sender that its channel has");
    require(state_of(action.ticket.channel) == State::open, "events come on open channels only");
    require(action.bytes.size() <= limits_.event_bytes, "no event is beyond the limit");
    require(action.ticket.bytes == action.bytes.size(), "an event's ticket says what it takes");
    events_.push_back(action.ticket);
    require(events_.size() <= limits_.events_in_flight, "the events in flight are bounded");
    std::size_t bytes = 0;
    for (const wire::EventTicket& event : events_) bytes += event.bytes;
    require(events_.size() == 1 || bytes <= limits_.event_bytes_in_flight, "and so are their bytes");
    thrower_.maybe_throw();
    if (answers_at_once_) answer_event();
  }
  void operator()(const wire::CloseSession& action) {
    require(!std::exchange(is_closed_, true), "a session ends once");
    require(action.reason != StateErrc{}, "a session ends for a reason");
  }

 private:
  enum class State { asked, uploading, uploaded, open };
  struct Expected {
    std::uint64_t number;
    std::optional<UpdateId> update_id;  ///< none: an error
  };
  struct Channel {
    State state = State::asked;
    wire::Open open;
    std::optional<Position> at{};    ///< of the stream; none if there is none, or we do not know
    std::deque<Expected> answers{};  ///< that the role gave and the client has not got
    bool is_sender_asked = false;
    std::uint64_t sender = 0;
  };

  void expect_action() {
    require(!is_closed_, "nothing is asked of the role once the session is over");
    require(has_said_hello_, "nothing is asked of the role before the client is authenticated");
  }
  void expect_new(ChannelId id) {
    require(id > last_id_, "every channel and request is new");
    last_id_ = id;
  }
  [[nodiscard]] Channel* find(ChannelId id) {
    const auto found = channels_.find(id);
    return found == channels_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] std::optional<State> state_of(ChannelId id) const {
    const auto found = channels_.find(id);
    return found == channels_.end() ? std::nullopt : std::optional(found->second.state);
  }

  // The client.

  void feed(ByteView bytes) {
    in_pieces(bytes, piece_, [this](ByteView piece) {
      watch(piece);
      session_.on_bytes(piece, now_, *this);
    });
    if (thrower_.has_thrown()) require(is_closed_, "what the role throws ends the session");
  }

  /// Reads along: a client that unfollows, or follows in a way of its own, has streams that we know nothing of.
  void watch(ByteView bytes) {
    try {
      watcher_.feed(bytes, [this](const wire::Frame& frame) {
        if (frame.kind != FrameKind::unfollow) return true;
        ByteReader in(frame.body);
        const auto found = channels_.find(in.read_varint());
        if (found != channels_.end()) found->second.at.reset();
        return true;
      });
    } catch (const StateError&) {
      watcher_ = wire::FrameReader(1);
    }
  }

  void say_hello() {
    has_said_hello_ = true;
    feed(testing::hello_frame());
  }
  void say_wrong_hello() { feed(testing::hello_frame("guess")); }

  ChannelId take_new_id() {
    if (input_.below(16) == 0) return input_.take_number();
    return next_id_ = std::max(next_id_, last_id_) + 1;
  }
  ChannelId take_channel() {
    if (input_.below(16) == 0) return input_.take_number();
    if (channels_.empty()) return next_id_;
    return std::next(channels_.begin(), static_cast<std::ptrdiff_t>(input_.below(channels_.size())))->first;
  }
  MapHash take_hash() { return input_.below(4) == 0 ? MapHash() : map_->hash(); }

  void open() {
    wire::Open open;
    open.channel = take_new_id();
    open.hash = take_hash();
    open.key_type = open.value_type = "string";
    open.position = take_position(input_, map_->head());
    open.mode = take_mode(input_);
    feed(frame_of(open));
  }

  void send_message() {
    switch (input_.below(16)) {
      case 0:
      case 1: return open();
      case 2: {
        wire::Upload message;
        message.channel = take_channel();
        message.bytes = input_.take_bytes();
        return feed(frame_of(message));
      }
      case 3: return feed(frame_of(wire::UploadEnd{take_channel()}));
      case 4: return feed(frame_of(wire::CloseChannel{take_channel()}));
      case 5: {
        wire::Follow message;
        message.channel = take_channel();
        message.position = take_position(input_, map_->head());
        message.mode = take_mode(input_);
        return feed(frame_of(message));
      }
      case 6: return feed(frame_of(wire::Unfollow{take_channel()}));
      case 7: {
        wire::GetUpdateId message;
        message.request = take_new_id();
        message.channel = take_channel();
        return feed(frame_of(message));
      }
      case 8: {
        wire::GetDiff message;
        message.request = take_new_id();
        message.channel = take_channel();
        message.from = take_position(input_, map_->head());
        message.upto = take_position(input_, map_->head()).update_id;
        return feed(frame_of(message));
      }
      case 9: {
        wire::Fetch message;
        message.request = take_new_id();
        message.hash = take_hash();
        message.key_type = message.value_type = "string";
        return feed(frame_of(message));
      }
      case 10: return feed(frame_of(wire::List{take_new_id()}));
      case 11: {
        wire::EventType message;
        message.channel = take_channel();
        message.type = take_text(input_);
        return feed(frame_of(message));
      }
      case 12: {
        wire::EventPart message;
        message.channel = take_channel();
        message.bytes = input_.take_bytes();
        return feed(frame_of(message));
      }
      case 13:
      case 14: {
        const ChannelId id = take_channel();
        Channel* const channel = find(id);
        const bool is_known = channel != nullptr && channel->is_sender_asked;
        if ((!is_known && input_.below(16) != 0) || input_.below(64) == 0) {
          feed(frame_of(wire::GetSender{id, input_.take_byte()}));
        }
        wire::EventMessage message;
        message.channel = id;
        message.number = input_.take_number();
        message.bytes = input_.take_bytes();
        return feed(frame_of(message));
      }
      default: {
        wire::Goodbye message;
        message.reason = take_reason(input_);
        message.detail = take_text(input_);
        return feed(frame_of(message));
      }
    }
  }

  void step() {
    switch (input_.below(16)) {
      case 0: return feed(input_.take_bytes());
      case 1: return feed(take_frame(input_));
      case 2: return input_.below(4) == 0 ? say_wrong_hello() : say_hello();
      case 3: now_ += take_pause(input_); return tick();
      case 4:
      case 5: return produce();
      case 6: return answer_some_open();
      case 7: return answer_event();
      case 8: return commit();
      case 9: answers_at_once_ = !answers_at_once_; return;
      case 10:
        if (input_.below(8) == 0) thrower_.arm(1 + input_.below(2));
        return;
      case 11:
        if (input_.below(8) == 0) {
          const StateErrc reason = take_reason(input_);
          session_.fail(reason, take_text(input_), *this);
        }
        return;
      default: return send_message();
    }
  }

  void tick() { session_.on_tick(now_, *this); }

  // The role.

  /// The first channel that waits for an answer, from some channel on.
  void answer_some_open() {
    const ChannelId from = take_channel();
    for (auto it = channels_.lower_bound(from); it != channels_.end(); ++it) {
      if (it->second.state == State::asked || it->second.state == State::uploaded) {
        return answer_open(it->first);
      }
    }
  }

  void answer_open(ChannelId id) {
    Channel& channel = channels_[id];
    const std::size_t how = input_.below(4);
    if (channel.state == State::asked && how == 1) {
      session_.want_upload(id);
      channel.state = State::uploading;
    } else if (how == 2) {
      const StateErrc reason = take_reason(input_);
      session_.refuse(id, reason, take_text(input_), MapHash());
      channels_.erase(id);
    } else if (session_.opened(id, map_)) {
      channel.state = State::open;
      if (channel.open.mode != wire::FollowMode::none) channel.at = channel.open.position;
      if (const auto early = session_.early_ask_of(id)) (*this)(*early);
    } else {
      channels_.erase(id);
    }
  }

  void answer_event() {
    if (events_.empty()) return;
    const auto which = events_.begin() + static_cast<std::ptrdiff_t>(input_.below(events_.size()));
    const wire::EventTicket event = *which;
    events_.erase(which);
    const auto channel = channels_.find(event.channel);
    if (input_.flip()) {
      const UpdateId head = map_->head().update_id;
      if (channel != channels_.end()) channel->second.answers.push_back({event.number, head});
      session_.answer(event, head);
    } else {
      if (channel != channels_.end()) channel->second.answers.push_back({event.number, std::nullopt});
      const StateErrc reason = take_reason(input_);
      session_.answer_error(event, reason, take_text(input_));
    }
  }

  /// Some keys, all to one value of some length.
  void commit() {
    const unsigned keys = input_.take_byte();
    const std::size_t size = input_.take_byte() * std::size_t{3};
    const std::string value(size, static_cast<char>(input_.take_byte()));
    std::vector<std::pair<std::uint32_t, std::string>> changes;
    for (std::uint32_t i = 0; i < map_keys; ++i) {
      if ((keys >> i & 1) != 0) changes.emplace_back(i, value);
    }
    try {
      testing::commit(*map_, changes);
    } catch (const StateError& error) {
      require(error.code() == StateErrc::too_large, "a commit fails for a large value only");
    }
  }

  // What goes out.

  void produce() {
    session_.look_at_maps();
    require(session_.held_bytes() == session_.counted_bytes(), "what is held is what was charged");
    const bool is_wanted = session_.wants_to_send();
    Bytes out;
    session_.produce(out);
    require(is_wanted == !out.empty(), "a session gives something exactly when it says that it would");
    // Answers wait up to a frame's size, replies of the role for each map, then come pieces.
    const std::size_t most = limits_.frame_bytes + 700 * (limits_.maps + 1) + 4 * limits_.piece_bytes + 1'024;
    require(out.size() <= most, "what a session gives at a time is bounded");
    for (const testing::OwnedFrame& frame : frames_of(out)) check_frame(frame);
    if (!is_closed_) return;
    require(!session_.wants_to_send(), "a session that is over gives its last bytes at once");
  }

  void check_frame(const testing::OwnedFrame& frame) {
    require(!has_said_goodbye_, "nothing comes behind a goodbye");
    require(is_authenticated_ || frame.kind == FrameKind::goodbye, "a stranger hears nothing but a goodbye");
    switch (frame.kind) {
      case FrameKind::welcome:
        wire::decode_body<wire::Welcome>(frame.body);
        require(!std::exchange(has_welcomed_, true), "a client is welcomed once");
        return;
      case FrameKind::goodbye:
        wire::decode_body<wire::Goodbye>(frame.body);
        require(is_closed_, "a goodbye is the end");
        has_said_goodbye_ = true;
        return;
      case FrameKind::opened: wire::decode_body<wire::Opened>(frame.body); return;
      case FrameKind::sender: wire::decode_body<wire::SenderMessage>(frame.body); return;
      case FrameKind::upload_wanted: wire::decode_body<wire::UploadWanted>(frame.body); return;
      case FrameKind::refused: wire::decode_body<wire::Refused>(frame.body); return;
      case FrameKind::update_id: wire::decode_body<wire::UpdateIdMessage>(frame.body); return;
      default: break;
    }
    require(!is_closed_, "nothing is made for a client once the session is over");
    switch (frame.kind) {
      case FrameKind::heartbeat: {
        ByteReader in(frame.body);
        while (!in.is_at_end()) wire::HeartbeatEntry::decode(in);
        return;
      }
      case FrameKind::state: {
        const auto m = wire::decode_body<wire::StatePiece>(frame.body);
        require(m.bytes.size() <= limits_.piece_bytes, "a piece of a state is bounded");
        return;
      }
      case FrameKind::state_end: wire::decode_body<wire::StateEnd>(frame.body); return;
      case FrameKind::hosted: wire::decode_body<wire::Hosted>(frame.body); return;
      case FrameKind::step: {
        const auto m = wire::decode_body<wire::Step>(frame.body);
        return moved(m.stream, std::nullopt, false, 1);
      }
      case FrameKind::diff: {
        const auto m = wire::decode_body<wire::DiffMessage>(frame.body);
        wire::for_each_entry(m.entries, [](std::uint64_t ordinal, ByteView) {
          require(ordinal < map_keys, "entries are of keys there are");
        });
        return moved(m.stream, m.epoch, m.is_full, m.advance);
      }
      case FrameKind::transfer: {
        const auto m = wire::decode_body<wire::Transfer>(frame.body);
        wire::for_each_entry(m.entries, [](std::uint64_t, ByteView) {});
        require(m.entries.size() <= limits_.piece_bytes, "a piece of a transfer is bounded");
        return;
      }
      case FrameKind::value_part: {
        const auto m = wire::decode_body<wire::ValuePart>(frame.body);
        require(m.offset + m.bytes.size() <= m.total && m.total <= limits_.value_bytes,
                "a part lies within its value");
        return;
      }
      case FrameKind::answer: {
        const auto m = wire::decode_body<wire::Answer>(frame.body);
        return answered(m.channel, m.number, m.update_id);
      }
      case FrameKind::answer_error: {
        const auto m = wire::decode_body<wire::AnswerError>(frame.body);
        return answered(m.channel, m.number, std::nullopt);
      }
      default: fail("a frame that a server never sends");
    }
  }

  /// A followed stream moves on by this.
  void moved(ChannelId stream, std::optional<Epoch> epoch, bool is_full, UpdateId advance) {
    const auto found = channels_.find(stream);
    if (found == channels_.end() || !found->second.at) return;
    Position& at = *found->second.at;
    const Position before = at;
    if (epoch) at.epoch = *epoch;
    at.update_id = is_full ? advance : at.update_id + advance;
    require(at.epoch == map_->head().epoch, "the first diff of a stream says the epoch");
    require(at.update_id <= map_->head().update_id, "no stream is ahead of the master");
    require(before.epoch != at.epoch || at.update_id >= before.update_id, "no stream leads back");
  }

  void answered(ChannelId id, std::uint64_t number, std::optional<UpdateId> update_id) {
    const auto found = channels_.find(id);
    require(found != channels_.end(), "a channel that is gone has no answers");
    std::deque<Expected>& answers = found->second.answers;
    require(!answers.empty() && answers.front().number == number && answers.front().update_id == update_id,
            "answers come as the role gave them, in that order");
    answers.pop_front();
    if (!update_id) return;
    for (const auto& [other, channel] : channels_) {
      require(!channel.at || channel.at->update_id >= *update_id,
              "an answer comes after the diff of its effect");
    }
  }

  /// Until nothing is left; then whoever follows has all there is.
  void drain() {
    for (int i = 0; (session_.look_at_maps(), session_.wants_to_send()); ++i) {
      require(i < 10'000, "a session comes to an end of what it has to send");
      produce();
    }
    if (is_closed_) return;
    for (const auto& [id, channel] : channels_) {
      require(!channel.at || *channel.at == map_->head(), "whoever follows stands at the head in the end");
      require(channel.answers.empty(), "every answer goes out in the end");
    }
  }

  Input input_;
  const Limits limits_ = small_limits();
  TimePoint now_ = testing::t0;
  testing::CountedList list_;
  wire::ServerSession session_{limits_, now_};
  std::shared_ptr<Hosted> map_ = std::make_shared<Hosted>(master(), limits_);
  wire::FrameReader watcher_{limits_.frame_bytes};
  Thrower thrower_;
  std::map<ChannelId, Channel> channels_;
  std::vector<wire::EventTicket> events_;
  ChannelId last_id_ = 0;  // that the role has heard of
  ChannelId next_id_ = 0;  // that the client has used
  std::size_t piece_ = 0;
  bool answers_at_once_ = true;
  bool has_said_hello_ = false;
  bool has_right_proof_ = false;
  bool is_authenticated_ = false;
  bool has_welcomed_ = false;
  bool has_said_goodbye_ = false;
  bool is_closed_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script(Input(data, size)).run();
  return 0;
}
