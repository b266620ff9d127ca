// A server core that strangers and password holders send scripts of right and slightly broken messages to, on virtual
// time, while one honest client with a replica goes on being served.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fuzz_input.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using namespace syncstate::fuzzing;
using protocol::ChannelId;
using protocol::FrameKind;

constexpr std::size_t honest_keys = 5;
constexpr std::size_t most_steps = 300;

/// So small that scripts reach them; yet no two addresses together can take all links from the honest one.
Limits small_limits() {
  Limits limits;
  limits.links = 8;
  limits.links_per_address = 3;
  limits.pending_links = 4;
  limits.frame_bytes = 4'096;
  limits.piece_bytes = 256;
  limits.maps = 3;
  limits.keys_per_map = 16;
  limits.map_bytes = 4'096;
  limits.value_bytes = 1'500;
  limits.event_bytes = 2'000;
  limits.events_in_flight = 6;
  limits.requests_in_flight = 3;
  limits.answers_per_sender = 16;
  limits.senders_per_map = 4'096;
  return limits;
}

/// An initial state as an upload carries it.
Bytes initial_bytes(const Map& map) {
  Bytes bytes;
  ByteWriter out(bytes);
  for (const auto& [key, value] : map) {
    out.put_sized(key);
    out.put_sized(value);
  }
  return bytes;
}

/// A map that the attackers know, with the bytes they would upload.
struct KnownMap {
  explicit KnownMap(Map m) : map(std::move(m)), bytes(initial_bytes(map)) {}
  Map map;
  Bytes bytes;
};

/// The honest client's map, then two that nobody hosts yet.
const std::array<KnownMap, 3>& known_maps() {
  static const std::array<KnownMap, 3> maps{KnownMap(make_master(honest_keys)),
                                            KnownMap(make_master(3, "stranger")),
                                            KnownMap(make_master(16, std::string(200, 's')))};
  return maps;
}

/// Somebody with links of his own, who may know the password.
struct Attacker {
  std::shared_ptr<RawPeer> peer;
  bool has_said_hello = false;
  ChannelId last_id = 0;
  std::map<ChannelId, std::uint64_t> senders;  ///< of channels that were opened; 0: none
  std::set<ChannelId> asked;                   ///< channels for which a sender was asked
  std::vector<std::uint64_t> known_senders;    ///< of all its links
  std::map<ChannelId, std::size_t> uploads;    ///< bytes sent so far, of channels whose upload was wanted
  std::map<ChannelId, std::size_t> maps;       ///< which known map a channel asked for
  std::map<ChannelId, std::uint64_t> next_numbers;  ///< of events
  Position head;                                    ///< of some map, as the server said it
};

class Script {
 public:
  explicit Script(Input input) : input_(input) {
    ServerCoreOptions options;
    options.passwords = {password};
    options.limits = small_limits();
    options.map_options.log_diffs = 4;
    server_ = std::make_unique<Server>(time_, port_, options);
    server_->add_hook([this](Map& map, const Change& event) { run_hook(map, event.content); });
    server_->add_init_hook([this](const Handle& handle) { handles_.emplace(handle.hash(), handle); });
    is_uploaded_ = input_.flip();
    if (!is_uploaded_) {
      MapOptions map_options;
      map_options.log_diffs = 4;
      server_->host(make_master(honest_keys, "-", map_options));
    }
    server_->start();
    if (is_uploaded_ && input_.flip()) connect(0);  // the map may be known before its owner brings it

    RemoteCoreOptions remote;
    remote.password = password;
    remote.seed = 1;
    remote.event_timeout = 24h;
    remote_ = std::make_shared<inproc::StateRemote>(time_, port_, remote);
    Map map(remote_);
    push_keys(map, honest_keys);
    map.freeze(0s);
    ReplicaOptions follow;
    follow.every_step = input_.flip();
    replica_ = std::make_unique<Follower>(std::move(map), follow);
  }
  Script(const Script&) = delete;
  Script& operator=(const Script&) = delete;
  ~Script() {
    replica_.reset();
    remote_.reset();
    server_.reset();
    time_.run_ready();
  }

  void run() {
    for (std::size_t i = 0; i < most_steps && !input_.is_empty(); ++i) {
      step();
      for (Attacker& attacker : attackers_) look(attacker);
    }
    heal();
    check_honest();
  }

 private:
  // The master's side.

  void run_hook(Map& map, const Command& command) {
    ++runs_[command.value];
    if (command.what == "set" || command.what == "fail") map.set(command.key, command.value);
    if (command.what == "all") {
      std::vector<std::string> keys;
      for (const auto& [key, value] : map) keys.push_back(key);
      for (const std::string& key : keys) map.set(key, command.value);
    }
    if (command.what == "fail") throw std::runtime_error("as it was told to");
  }

  void modify() {
    const auto found = handles_.find(known_maps()[input_.below(known_maps().size())].map.hash());
    const unsigned keys = input_.take_byte();
    const std::size_t size = input_.take_byte() * std::size_t{6};
    const std::string value(size, static_cast<char>(input_.take_byte()));
    if (found == handles_.end()) return;
    try {
      found->second.modify([&](Map& map) {
        for (std::size_t i = 0; i < 8; ++i) {
          if ((keys >> i & 1) != 0 && map.contains(key_name(i))) map.set(key_name(i), value);
        }
      });
    } catch (const StateError& error) {
      require(error.code() == StateErrc::too_large, "a change fails for a large value only");
    }
  }

  // The honest client.

  void send_honest() {
    const std::string value = "honest event " + std::to_string(honest_.size());
    const bool fails = input_.below(8) == 0;
    Change event{{fails ? "fail" : "set", key_name(input_.below(honest_keys)), value}};
    const auto call = std::make_shared<detail::EventCall>(serialize_event(event));
    remote_->core().send_event(known_maps()[0].map.hash(), call);
    honest_.push_back({Sent{call}, value, fails});
  }

  void heal() {
    port_->faults() = {};
    port_->set_unreachable(false);
    port_->resume_reading();
    // Whoever began an upload and does not go on keeps the others from the map until his link ends.
    if (is_uploaded_) {
      for (Attacker& attacker : attackers_) {
        if (attacker.peer) attacker.peer->abort();
      }
    }
    time_.run_ready();
  }

  void check_honest() {
    send_honest();
    const bool are_answered = time_.run_until(
        [this] {
          return std::all_of(honest_.begin(), honest_.end(),
                             [](const Honest& event) { return event.sent.is_finished(); });
        },
        300s);
    require(are_answered, "every event of the honest client is answered");
    for (const Honest& event : honest_) {
      const std::error_code error = event.sent.error();
      const std::error_code expected =
          event.fails ? make_error_code(StateErrc::hook_failed) : std::error_code();
      if (error != expected)
        fail("an honest event is answered as it should be, not with: " + error.message());
      require(runs_[event.value] == 1, "an honest event is run once");
    }

    const Handle& handle = handles_.at(known_maps()[0].map.hash());
    const UpdateId head = handle.update_id();
    require(time_.run_until([&] { return replica_->update_id() >= head; }, 120s),
            "the replica comes to the head");
    std::vector<std::string> wanted;
    handle.modify([&](Map& map) { wanted = values_of(map); });
    require(handle.update_id() == head && replica_->update_id() == head, "nothing changes behind our back");
    require(replica_->epoch() == handle.epoch(), "the replica is of the master's epoch");
    require(values_of(replica_->view()) == wanted, "the replica equals the master");
    require(replica_->status().state == LinkState::live, "the honest client is connected in the end");
  }

  // The attackers.

  static std::string address_of(std::size_t attacker) { return attacker < 2 ? "192.0.2.1" : "192.0.2.2"; }

  void connect(std::size_t which) {
    Attacker& attacker = attackers_[which];
    if (attacker.peer) attacker.peer->abort();
    std::vector<std::uint64_t> known = std::move(attacker.known_senders);
    attacker = Attacker{};
    attacker.known_senders = std::move(known);
    attacker.peer = RawPeer::connect(time_, *port_, address_of(which));
    const std::size_t how = input_.below(8);
    if (how == 0) return;
    attacker.has_said_hello = how != 1;
    attacker.peer->send_hello(how == 1 ? "HelloWorlds" : password);
    if (input_.below(4) != 0) time_.run_ready();
  }

  /// What the server says must be well formed, and nothing but a goodbye for strangers.
  static void look(Attacker& attacker) {
    if (!attacker.peer) return;
    for (const RawPeer::Received& frame : attacker.peer->received()) {
      require(attacker.has_said_hello || frame.kind == FrameKind::goodbye,
              "strangers hear nothing but a goodbye");
      look_at(attacker, frame);
    }
    attacker.peer->forget();
  }

  static void look_at(Attacker& attacker, const RawPeer::Received& frame) {
    switch (frame.kind) {
      case FrameKind::welcome: protocol::decode_body<protocol::Welcome>(frame.body); return;
      case FrameKind::goodbye: protocol::decode_body<protocol::Goodbye>(frame.body); return;
      case FrameKind::heartbeat: return;
      case FrameKind::opened: {
        const auto m = protocol::decode_body<protocol::Opened>(frame.body);
        require(m.head.epoch != 0, "an epoch is never 0");
        attacker.senders.try_emplace(m.channel, 0);
        attacker.head = m.head;
        return;
      }
      case FrameKind::sender: {
        const auto m = protocol::decode_body<protocol::SenderMessage>(frame.body);
        require(attacker.senders.contains(m.channel), "only an open channel gets a sender");
        require(std::exchange(attacker.senders[m.channel], m.sender) == 0, "a channel gets one sender");
        attacker.known_senders.push_back(m.sender);
        return;
      }
      case FrameKind::upload_wanted: {
        const auto m = protocol::decode_body<protocol::UploadWanted>(frame.body);
        require(attacker.uploads.emplace(m.channel, 0).second, "an upload is wanted once on a channel");
        return;
      }
      case FrameKind::refused: {
        const auto m = protocol::decode_body<protocol::Refused>(frame.body);
        attacker.senders.erase(m.channel);
        return;
      }
      case FrameKind::update_id: protocol::decode_body<protocol::UpdateIdMessage>(frame.body); return;
      case FrameKind::state: protocol::decode_body<protocol::StatePiece>(frame.body); return;
      case FrameKind::state_end: protocol::decode_body<protocol::StateEnd>(frame.body); return;
      case FrameKind::hosted: {
        const auto m = protocol::decode_body<protocol::Hosted>(frame.body);
        ByteReader in(m.maps);
        while (!in.is_at_end()) protocol::HostedMapInfo::decode(in);
        return;
      }
      case FrameKind::step: protocol::decode_body<protocol::Step>(frame.body); return;
      case FrameKind::diff: {
        const auto m = protocol::decode_body<protocol::DiffMessage>(frame.body);
        protocol::for_each_entry(m.entries, [](std::uint64_t, ByteView) {});
        return;
      }
      case FrameKind::transfer: {
        const auto m = protocol::decode_body<protocol::Transfer>(frame.body);
        protocol::for_each_entry(m.entries, [](std::uint64_t, ByteView) {});
        return;
      }
      case FrameKind::value_part: protocol::decode_body<protocol::ValuePart>(frame.body); return;
      case FrameKind::answer: protocol::decode_body<protocol::Answer>(frame.body); return;
      case FrameKind::answer_error: protocol::decode_body<protocol::AnswerError>(frame.body); return;
      default: fail("a frame that a server never sends");
    }
  }

  ChannelId take_new_id(Attacker& attacker) {
    if (input_.below(32) == 0) return input_.take_number();
    return ++attacker.last_id;
  }

  /// A channel that is one, as a rule; 0 is none.
  template <class V>
  ChannelId take_from(const std::map<ChannelId, V>& channels) {
    if (channels.empty() || input_.below(32) == 0) return input_.take_number();
    return std::next(channels.begin(), static_cast<std::ptrdiff_t>(input_.below(channels.size())))->first;
  }

  Position take_position(const Attacker& attacker) {
    const Epoch epochs[] = {attacker.head.epoch, 0, attacker.head.epoch + 1};
    const UpdateId head = attacker.head.update_id;
    const UpdateId ids[] = {0, head, head / 2, head + 1, ~UpdateId{0}};
    const Epoch epoch = epochs[input_.below(std::size(epochs))];
    return {epoch, epoch == 0 && input_.below(8) != 0 ? 0 : ids[input_.below(std::size(ids))]};
  }

  protocol::FollowMode take_mode() { return static_cast<protocol::FollowMode>(input_.below(3)); }

  /// Text as there are types of, or any.
  std::string take_type() { return input_.below(16) == 0 ? take_text() : type_name<std::string>(); }
  std::string take_text() { return std::string(as_string_view(input_.take_bytes())); }

  void open(Attacker& attacker) {
    const std::size_t which = input_.below(known_maps().size() + 1);
    protocol::Open open;
    open.channel = take_new_id(attacker);
    if (which < known_maps().size()) {
      open.hash = known_maps()[which].map.hash();
      attacker.maps[open.channel] = which;
    }
    open.key_type = take_type();
    open.value_type = take_type();
    open.position = take_position(attacker);
    open.mode = take_mode();
    attacker.peer->send(open);
    if (input_.below(4) == 0) ask_for_sender(attacker, open.channel);
  }

  /// Once per channel in most cases; as one it had before, one of somebody else, or a new one.
  void ask_for_sender(Attacker& attacker, ChannelId channel) {
    if (!attacker.asked.insert(channel).second && input_.below(32) != 0) return;
    const Attacker& other = attackers_[input_.below(attackers_.size())];
    protocol::GetSender ask;
    ask.channel = channel;
    if (!other.known_senders.empty() && input_.flip()) {
      ask.sender = other.known_senders[input_.below(other.known_senders.size())];
    }
    attacker.peer->send(ask);
  }

  /// The next piece of what was asked for, or of something else.
  void upload(Attacker& attacker) {
    const ChannelId channel = take_from(attacker.uploads);
    protocol::Upload message;
    message.channel = channel;
    const std::size_t how = input_.below(8);
    if (how == 0) {
      message.bytes = input_.take_bytes();
      return attacker.peer->send(message);
    }
    const ByteView whole = known_maps()[attacker.maps[channel] % known_maps().size()].bytes;
    std::size_t& sent = attacker.uploads[channel];
    sent = std::min(sent, whole.size());
    const std::size_t size = how < 4 ? input_.take_byte() : whole.size();
    message.bytes = whole.subspan(sent, std::min(size, whole.size() - sent));
    sent += message.bytes.size();
    attacker.peer->send(message);
    if (sent == whole.size() && how != 7) attacker.peer->send(protocol::UploadEnd{channel});
  }

  void send_event(Attacker& attacker) {
    const ChannelId channel = take_from(attacker.senders);
    if (input_.below(16) != 0) ask_for_sender(attacker, channel);
    if (input_.below(8) != 0) {
      protocol::EventType type;
      type.channel = channel;
      type.type = type_name<Command>();
      attacker.peer->send(type);
    }
    constexpr const char* verbs[] = {"set", "all", "fail", "nothing"};
    const Command command{verbs[input_.below(4)], key_name(input_.below(honest_keys + 1)),
                          std::string(input_.take_byte() * std::size_t{8}, 'e')};
    const Bytes bytes = Change{command}.serialize();
    ByteView rest = bytes;
    for (std::size_t parts = input_.below(3); parts > 0; --parts) {
      protocol::EventPart part;
      part.channel = channel;
      part.bytes = rest.first(std::min<std::size_t>(input_.take_byte(), rest.size()));
      rest = rest.subspan(part.bytes.size());
      attacker.peer->send(part);
    }
    protocol::EventMessage event;
    event.channel = channel;
    std::uint64_t& next = attacker.next_numbers[channel];
    // The next number, one again, or one of the future.
    event.number = input_.below(4) == 0 ? input_.take_number() : ++next;
    event.bytes = input_.below(16) == 0 ? input_.take_bytes() : rest;
    attacker.peer->send(event);
  }

  void send_message(Attacker& attacker) {
    RawPeer& peer = *attacker.peer;
    switch (input_.below(16)) {
      case 0:
      case 1: return open(attacker);
      case 2:
      case 3: return upload(attacker);
      case 4:
      case 5: return send_event(attacker);
      case 6: return peer.send(protocol::UploadEnd{take_from(attacker.uploads)});
      case 7: return peer.send(protocol::CloseChannel{take_from(attacker.maps)});
      case 8: {
        protocol::Follow message;
        message.channel = take_from(attacker.senders);
        message.position = take_position(attacker);
        message.mode = take_mode();
        return peer.send(message);
      }
      case 9: return peer.send(protocol::Unfollow{take_from(attacker.senders)});
      case 10: {
        protocol::GetUpdateId message;
        message.request = take_new_id(attacker);
        message.channel = take_from(attacker.senders);
        return peer.send(message);
      }
      case 11: {
        protocol::GetDiff message;
        message.request = take_new_id(attacker);
        message.channel = take_from(attacker.senders);
        message.from = take_position(attacker);
        message.upto = take_position(attacker).update_id;
        return peer.send(message);
      }
      case 12: {
        protocol::Fetch message;
        message.request = take_new_id(attacker);
        message.hash = known_maps()[input_.below(known_maps().size())].map.hash();
        message.key_type = take_type();
        message.value_type = take_type();
        return peer.send(message);
      }
      case 13: return peer.send(protocol::List{take_new_id(attacker)});
      case 14: return peer.send_frame(static_cast<std::uint8_t>(FrameKind::heartbeat), {});
      default: {
        if (input_.flip()) return peer.send_bytes(input_.take_bytes());
        const std::uint8_t kind = input_.take_byte();
        return peer.send_frame(kind, input_.take_bytes());
      }
    }
  }

  void step() {
    constexpr Duration pauses[] = {1ms, 500ms, 1s, 4s, 6s, 20s};
    switch (input_.below(16)) {
      case 0: return connect(input_.below(attackers_.size()));
      case 1: {
        Attacker& attacker = attackers_[input_.below(attackers_.size())];
        if (attacker.peer) attacker.peer->abort();
        return;
      }
      case 2: return port_->cut_all();
      case 3: time_.advance(pauses[input_.below(std::size(pauses))]); return;
      case 4: return set_faults();
      case 5: return modify();
      case 6: return send_honest();
      case 7: {
        std::size_t left = input_.below(64);
        time_.run_until([&] { return left-- == 0; }, 0ms);
        return;
      }
      case 8: time_.run_ready(); return;
      default: {
        Attacker& attacker = attackers_[input_.below(attackers_.size())];
        if (!attacker.peer) connect(static_cast<std::size_t>(&attacker - attackers_.data()));
        for (std::size_t count = 1 + input_.below(4); count > 0; --count) send_message(attacker);
        if (input_.flip()) time_.run_ready();
      }
    }
  }

  void set_faults() {
    constexpr std::size_t reads[] = {1, 7, 100, std::numeric_limits<std::size_t>::max()};
    constexpr std::size_t buffers[] = {1, 300, std::size_t{128} << 10};
    inproc::WireFaults& faults = port_->faults();
    faults.read_bytes = reads[input_.below(std::size(reads))];
    faults.buffer_bytes = buffers[input_.below(std::size(buffers))];
    faults.is_client_deaf = input_.below(4) == 1;
    faults.is_server_deaf = input_.below(4) == 1;
    port_->set_unreachable(input_.below(8) == 1);
    port_->resume_reading();
  }

  struct Honest {
    Sent sent;
    std::string value;
    bool fails;
  };

  Input input_;
  inproc::VirtualTime time_;
  std::shared_ptr<inproc::Port> port_ = std::make_shared<inproc::Port>();
  std::map<std::string, int> runs_;  ///< how often hooks were run for a value
  std::map<MapHash, Handle> handles_;
  std::unique_ptr<Server> server_;
  std::array<Attacker, 4> attackers_;
  std::shared_ptr<inproc::StateRemote> remote_;
  std::unique_ptr<Follower> replica_;
  std::vector<Honest> honest_;
  bool is_uploaded_ = false;  ///< the honest client brings its map, and the attackers may be faster
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script(Input(data, size)).run();
  return 0;
}
