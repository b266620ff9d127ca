// Every message of the protocol: its fields, and how they lie in a frame's body.
#ifndef SYNCSTATE_PROTOCOL_MESSAGES_HPP
#define SYNCSTATE_PROTOCOL_MESSAGES_HPP

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "syncstate/bytes.hpp"
#include "syncstate/error.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/protocol/frame.hpp"
#include "syncstate/protocol/peer_limits.hpp"
#include "syncstate/protocol/peer_text.hpp"
#include "syncstate/types.hpp"

namespace syncstate::protocol {

/// The version of the protocol this library speaks.
inline constexpr std::uint64_t protocol_version = 1;

/// Chosen by the client, once per link: names an opened map, or a request, in every later frame.
using ChannelId = std::uint64_t;

/// The longest name of a type, in bytes, in `open`, `fetch` and `event_type`.
inline constexpr std::size_t most_type_bytes = 4'096;

/// `HMAC-SHA256(password, role || channel binding)`.
using Proof = std::array<std::byte, 32>;

/// How a map is followed.
enum class FollowMode : std::uint8_t {
  none = 0,       ///< not at all: diffs come only when asked for
  merged = 1,     ///< the newest state as soon as the link takes it
  every_step = 2  ///< commit by commit, while the master's log reaches
};

namespace wire {

template <std::size_t N>
std::array<std::byte, N> read_array(ByteReader& in) {
  std::array<std::byte, N> out{};
  const ByteView bytes = in.read_bytes(N);
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

inline MapHash read_hash(ByteReader& in) { return MapHash(read_array<32>(in)); }
inline void put_hash(ByteWriter& out, const MapHash& hash) { out.put(ByteView(hash.bytes())); }
inline std::string read_text(ByteReader& in) { return std::string(as_string_view(in.read_sized())); }
/// A text that is shown to people: cut to `peer_text_bytes`, and cleaned.
inline std::string read_peer_text(ByteReader& in) { return clean_peer_text(as_string_view(in.read_sized())); }

/// A reason that this version does not know keeps its number; 0 would say that nothing went wrong.
inline StateErrc read_reason(ByteReader& in) {
  const std::uint64_t number = in.read_varint();
  if (number == 0) ByteReader::fail("an error of number 0");
  return static_cast<StateErrc>(std::min<std::uint64_t>(number, 1U << 30));
}

inline FollowMode read_mode(ByteReader& in) {
  const std::uint8_t mode = in.read_u8();
  if (mode > static_cast<std::uint8_t>(FollowMode::every_step)) ByteReader::fail("an unknown follow mode");
  return static_cast<FollowMode>(mode);
}

inline ByteView read_rest(ByteReader& in) { return in.read_bytes(in.remaining()); }

}  // namespace wire

/// The client's first frame: what it speaks, and that it knows the password.
///
/// Body: "SYNC", oldest version varint, newest version varint, proof 32 bytes.
struct Hello {
  static constexpr FrameKind kind = FrameKind::hello;
  static constexpr std::string_view magic = "SYNC";
  std::uint64_t oldest_version = protocol_version;
  std::uint64_t newest_version = protocol_version;
  Proof proof{};

  void encode(ByteWriter& out) const {
    out.put(magic);
    out.put_varint(oldest_version);
    out.put_varint(newest_version);
    out.put(ByteView(proof));
  }
  static Hello decode(ByteReader& in) {
    if (as_string_view(in.read_bytes(magic.size())) != magic) ByteReader::fail("not the syncstate protocol");
    Hello m;
    m.oldest_version = in.read_varint();
    m.newest_version = in.read_varint();
    m.proof = wire::read_array<32>(in);
    return m;
  }
};

/// The server's first frame, sent only once the client's proof holds.
///
/// Tells what this server takes, so that a client with other limits never sends what would end the session.
///
/// Body: version varint, events in flight varint, event bytes in flight varint, event bytes varint, requests in flight
/// varint, channels varint, frame bytes varint, silence in ms varint, proof 32 bytes.
struct Welcome {
  static constexpr FrameKind kind = FrameKind::welcome;
  std::uint64_t version = protocol_version;
  std::uint64_t events_in_flight = 1'024;  ///< what this server takes on one link before it has answered
  std::uint64_t event_bytes_in_flight = std::uint64_t{16}
                                        << 20;         ///< the same in bytes; a single event always fits
  std::uint64_t event_bytes = std::uint64_t{1} << 20;  ///< one event
  std::uint64_t requests_in_flight = 1'024;            ///< on one link before they are answered
  std::uint64_t channels = 1'024;                      ///< on one link
  std::uint64_t frame_bytes = usual_frame_bytes;       ///< one frame, as its length says
  std::uint64_t silence_ms = std::uint64_t(usual_silence.count());  ///< after which it ends the session
  Proof proof{};

  void encode(ByteWriter& out) const {
    out.put_varint(version);
    out.put_varint(events_in_flight);
    out.put_varint(event_bytes_in_flight);
    out.put_varint(event_bytes);
    out.put_varint(requests_in_flight);
    out.put_varint(channels);
    out.put_varint(frame_bytes);
    out.put_varint(silence_ms);
    out.put(ByteView(proof));
  }
  static Welcome decode(ByteReader& in) {
    Welcome m;
    m.version = in.read_varint();
    m.events_in_flight = in.read_varint();
    m.event_bytes_in_flight = in.read_varint();
    m.event_bytes = in.read_varint();
    m.requests_in_flight = in.read_varint();
    m.channels = in.read_varint();
    m.frame_bytes = in.read_varint();
    m.silence_ms = in.read_varint();
    m.proof = wire::read_array<32>(in);
    return m;
  }
};

/// Tells what a client takes. It is the client's first frame after `welcome`, if the values are not 1 MiB and 15 s.
///
/// Body: frame bytes varint, silence in ms varint.
struct ClientLimits {
  static constexpr FrameKind kind = FrameKind::limits;
  std::uint64_t frame_bytes = usual_frame_bytes;                    ///< one frame, as its length says
  std::uint64_t silence_ms = std::uint64_t(usual_silence.count());  ///< after which it ends the session

  void encode(ByteWriter& out) const {
    out.put_varint(frame_bytes);
    out.put_varint(silence_ms);
  }
  static ClientLimits decode(ByteReader& in) {
    ClientLimits m;
    m.frame_bytes = in.read_varint();
    m.silence_ms = in.read_varint();
    return m;
  }
};

/// The last frame of a session: why it ends.
///
/// Body: error varint (a `StateErrc`), detail (length varint, UTF-8).
struct Goodbye {
  static constexpr FrameKind kind = FrameKind::goodbye;
  StateErrc reason{};
  std::string detail;

  void encode(ByteWriter& out) const {
    out.put_varint(static_cast<std::uint64_t>(reason));
    out.put_sized(detail);
  }
  static Goodbye decode(ByteReader& in) {
    Goodbye m;
    m.reason = wire::read_reason(in);
    m.detail = wire::read_peer_text(in);
    return m;
  }
};

/// "I am still here." The body is a list of (channel varint, update id varint): from a client where it
/// stands, from a server where the head is, for every map followed on this link.
struct HeartbeatEntry {
  ChannelId channel = 0;
  UpdateId update_id = 0;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_varint(update_id);
  }
  static HeartbeatEntry decode(ByteReader& in) {
    HeartbeatEntry e;
    e.channel = in.read_varint();
    e.update_id = in.read_varint();
    return e;
  }
};

/// Appends heartbeats: at least one frame, and as many as the entries need if the peer takes only small ones.
class HeartbeatFrames {
 public:
  HeartbeatFrames(Bytes& out, std::uint64_t most_bytes)
      : out_(&out), most_bytes_(most_bytes), start_(begin()) {}
  HeartbeatFrames(const HeartbeatFrames&) = delete;
  HeartbeatFrames& operator=(const HeartbeatFrames&) = delete;

  void add(const HeartbeatEntry& entry) {
    if (out_->size() - start_ + most_entry_bytes > most_bytes_) {
      close_frame(*out_, start_);
      start_ = begin();
    }
    ByteWriter writer(*out_);
    entry.encode(writer);
  }

  void end() { close_frame(*out_, start_); }

 private:
  static constexpr std::size_t most_entry_bytes = 20;

  std::size_t begin() {
    const std::size_t start = open_frame(*out_);
    out_->push_back(static_cast<std::byte>(FrameKind::heartbeat));
    return start;
  }

  Bytes* out_;
  std::uint64_t most_bytes_;
  std::size_t start_;
};

/// Opens a map on a channel, and follows it if asked to.
///
/// Body: channel varint, hash 32 bytes, keys hash 32 bytes, key type (length varint, text), value type (the
/// same), epoch u64 (big-endian), update id varint, follow mode u8.
struct Open {
  static constexpr FrameKind kind = FrameKind::open;
  ChannelId channel = 0;
  MapHash hash;
  MapHash keys_hash;
  std::string key_type;
  std::string value_type;
  Position position;
  FollowMode mode = FollowMode::none;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    wire::put_hash(out, hash);
    wire::put_hash(out, keys_hash);
    out.put_sized(key_type);
    out.put_sized(value_type);
    out.put_u64_be(position.epoch);
    out.put_varint(position.update_id);
    out.put_u8(static_cast<std::uint8_t>(mode));
  }
  static Open decode(ByteReader& in) {
    Open m;
    m.channel = in.read_varint();
    m.hash = wire::read_hash(in);
    m.keys_hash = wire::read_hash(in);
    m.key_type = wire::read_text(in);
    m.value_type = wire::read_text(in);
    m.position.epoch = in.read_u64_be();
    m.position.update_id = in.read_varint();
    m.mode = wire::read_mode(in);
    return m;
  }
};

/// A piece of an initial state on its way to the server. Body: channel varint, bytes to the end.
/// The pieces joined are, for each key in ascending order: key (length varint, bytes), value (the same).
struct Upload {
  static constexpr FrameKind kind = FrameKind::upload;
  ChannelId channel = 0;
  ByteView bytes;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put(bytes);
  }
  static Upload decode(ByteReader& in) {
    Upload m;
    m.channel = in.read_varint();
    m.bytes = wire::read_rest(in);
    return m;
  }
};

/// A message whose body is one channel or request, a varint.
template <FrameKind Kind>
struct ChannelOnly {
  static constexpr FrameKind kind = Kind;
  ChannelId channel = 0;

  void encode(ByteWriter& out) const { out.put_varint(channel); }
  static ChannelOnly decode(ByteReader& in) { return ChannelOnly{in.read_varint()}; }
};

/// The initial state has been sent wholly.
using UploadEnd = ChannelOnly<FrameKind::upload_end>;
/// The client has no more use for this channel.
using CloseChannel = ChannelOnly<FrameKind::close_channel>;
/// Diffs of this channel end.
using Unfollow = ChannelOnly<FrameKind::unfollow>;
/// The server does not host the map yet: upload it.
using UploadWanted = ChannelOnly<FrameKind::upload_wanted>;
/// The initial state asked for with `fetch` is whole.
using StateEnd = ChannelOnly<FrameKind::state_end>;
/// Which maps are hosted?
using List = ChannelOnly<FrameKind::list>;

/// Follows an open map from a position.
///
/// Body: channel varint, epoch u64, update id varint, follow mode u8.
struct Follow {
  static constexpr FrameKind kind = FrameKind::follow;
  ChannelId channel = 0;
  Position position;
  FollowMode mode = FollowMode::merged;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_u64_be(position.epoch);
    out.put_varint(position.update_id);
    out.put_u8(static_cast<std::uint8_t>(mode));
  }
  static Follow decode(ByteReader& in) {
    Follow m;
    m.channel = in.read_varint();
    m.position.epoch = in.read_u64_be();
    m.position.update_id = in.read_varint();
    m.mode = wire::read_mode(in);
    if (m.mode == FollowMode::none) ByteReader::fail("follow without a mode");
    return m;
  }
};

/// Where is the head? Body: request varint, channel varint.
struct GetUpdateId {
  static constexpr FrameKind kind = FrameKind::get_update_id;
  ChannelId request = 0;
  ChannelId channel = 0;

  void encode(ByteWriter& out) const {
    out.put_varint(request);
    out.put_varint(channel);
  }
  static GetUpdateId decode(ByteReader& in) {
    GetUpdateId m;
    m.request = in.read_varint();
    m.channel = in.read_varint();
    return m;
  }
};

/// One diff, from a position to an update id, or to the head if that is below or the log does not reach.
///
/// Body: request varint, channel varint, epoch u64, from varint, upto varint.
struct GetDiff {
  static constexpr FrameKind kind = FrameKind::get_diff;
  ChannelId request = 0;
  ChannelId channel = 0;
  Position from;
  UpdateId upto = 0;

  void encode(ByteWriter& out) const {
    out.put_varint(request);
    out.put_varint(channel);
    out.put_u64_be(from.epoch);
    out.put_varint(from.update_id);
    out.put_varint(upto);
  }
  static GetDiff decode(ByteReader& in) {
    GetDiff m;
    m.request = in.read_varint();
    m.channel = in.read_varint();
    m.from.epoch = in.read_u64_be();
    m.from.update_id = in.read_varint();
    m.upto = in.read_varint();
    return m;
  }
};

/// The initial state of a hosted map, by its hash. Body: request varint, hash 32 bytes, key type, value type.
struct Fetch {
  static constexpr FrameKind kind = FrameKind::fetch;
  ChannelId request = 0;
  MapHash hash;
  std::string key_type;
  std::string value_type;

  void encode(ByteWriter& out) const {
    out.put_varint(request);
    wire::put_hash(out, hash);
    out.put_sized(key_type);
    out.put_sized(value_type);
  }
  static Fetch decode(ByteReader& in) {
    Fetch m;
    m.request = in.read_varint();
    m.hash = wire::read_hash(in);
    m.key_type = wire::read_text(in);
    m.value_type = wire::read_text(in);
    return m;
  }
};

/// The type of the events that follow on a channel. Body: channel varint, type (length varint, text).
struct EventType {
  static constexpr FrameKind kind = FrameKind::event_type;
  ChannelId channel = 0;
  std::string type;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_sized(type);
  }
  static EventType decode(ByteReader& in) {
    EventType m;
    m.channel = in.read_varint();
    m.type = wire::read_text(in);
    return m;
  }
};

/// A leading piece of an event that does not fit one frame. Body: channel varint, bytes to the end.
struct EventPart {
  static constexpr FrameKind kind = FrameKind::event_part;
  ChannelId channel = 0;
  ByteView bytes;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put(bytes);
  }
  static EventPart decode(ByteReader& in) {
    EventPart m;
    m.channel = in.read_varint();
    m.bytes = wire::read_rest(in);
    return m;
  }
};

/// Asks for a sender, under which the events of this channel are sent; once per channel, before its first event.
/// It may follow `open` at once, and is then answered after `opened`.
///
/// Body: channel varint, sender u64 (big-endian): the one that this client had before for this map, or 0.
struct GetSender {
  static constexpr FrameKind kind = FrameKind::get_sender;
  ChannelId channel = 0;
  std::uint64_t sender = 0;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_u64_be(sender);
  }
  static GetSender decode(ByteReader& in) {
    GetSender m;
    m.channel = in.read_varint();
    m.sender = in.read_u64_be();
    return m;
  }
};

/// An event, or the last piece of one. Its sender is the one that its channel has.
///
/// Body: channel varint, number varint, bytes to the end.
struct EventMessage {
  static constexpr FrameKind kind = FrameKind::event;
  ChannelId channel = 0;
  std::uint64_t number = 0;
  ByteView bytes;

  void encode(ByteWriter& out) const {
    std::array<std::byte, 20> head;  // in one piece: events are many
    std::byte* end = write_varint(channel, head.data());
    end = write_varint(number, end);
    out.put(ByteView(head.data(), end));
    out.put(bytes);
  }
  static EventMessage decode(ByteReader& in) {
    EventMessage m;
    m.channel = in.read_varint();
    m.number = in.read_varint();
    m.bytes = wire::read_rest(in);
    return m;
  }
};

/// The map is hosted. Body: channel varint, epoch u64, head varint.
struct Opened {
  static constexpr FrameKind kind = FrameKind::opened;
  ChannelId channel = 0;
  Position head;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_u64_be(head.epoch);
    out.put_varint(head.update_id);
  }
  static Opened decode(ByteReader& in) {
    Opened m;
    m.channel = in.read_varint();
    m.head.epoch = in.read_u64_be();
    m.head.update_id = in.read_varint();
    return m;
  }
};

/// The sender that a channel has from now on, until it is closed: the one that was asked for if the server knows it as
/// this client's, else a new one.
///
/// Body: channel varint, sender u64 (big-endian), never 0.
struct SenderMessage {
  static constexpr FrameKind kind = FrameKind::sender;
  ChannelId channel = 0;
  std::uint64_t sender = 0;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_u64_be(sender);
  }
  static SenderMessage decode(ByteReader& in) {
    SenderMessage m;
    m.channel = in.read_varint();
    m.sender = in.read_u64_be();
    if (m.sender == 0) ByteReader::fail("a sender of 0");
    return m;
  }
};

/// The server does not do what was asked on this channel or request, and says why.
///
/// Body: channel varint, error varint, detail (length varint, text), then nothing, or with `hash_mismatch`
/// the 32-byte hash of the hosted map that has the same keys.
struct Refused {
  static constexpr FrameKind kind = FrameKind::refused;
  ChannelId channel = 0;
  StateErrc reason{};
  std::string detail;
  std::optional<MapHash> other;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_varint(static_cast<std::uint64_t>(reason));
    out.put_sized(detail);
    if (other) wire::put_hash(out, *other);
  }
  static Refused decode(ByteReader& in) {
    Refused m;
    m.channel = in.read_varint();
    m.reason = wire::read_reason(in);
    m.detail = wire::read_peer_text(in);
    if (!in.is_at_end()) m.other = wire::read_hash(in);
    return m;
  }
};

/// The head. Body: request varint, epoch u64, update id varint.
struct UpdateIdMessage {
  static constexpr FrameKind kind = FrameKind::update_id;
  ChannelId request = 0;
  Position head;

  void encode(ByteWriter& out) const {
    out.put_varint(request);
    out.put_u64_be(head.epoch);
    out.put_varint(head.update_id);
  }
  static UpdateIdMessage decode(ByteReader& in) {
    UpdateIdMessage m;
    m.request = in.read_varint();
    m.head.epoch = in.read_u64_be();
    m.head.update_id = in.read_varint();
    return m;
  }
};

/// A piece of an initial state on its way to the client, laid out as in `Upload`.
struct StatePiece {
  static constexpr FrameKind kind = FrameKind::state;
  ChannelId request = 0;
  ByteView bytes;

  void encode(ByteWriter& out) const {
    out.put_varint(request);
    out.put(bytes);
  }
  static StatePiece decode(ByteReader& in) {
    StatePiece m;
    m.request = in.read_varint();
    m.bytes = wire::read_rest(in);
    return m;
  }
};

/// One hosted map, as `hosted` lists it: hash, keys hash, key type, value type, number of keys varint. The types are for
/// people: names of more than `peer_text_bytes` come cut.
struct HostedMapInfo {
  MapHash hash;
  MapHash keys_hash;
  std::string key_type;
  std::string value_type;
  std::uint64_t keys = 0;

  void encode(ByteWriter& out) const {
    wire::put_hash(out, hash);
    wire::put_hash(out, keys_hash);
    out.put_sized(key_type);
    out.put_sized(value_type);
    out.put_varint(keys);
  }
  static HostedMapInfo decode(ByteReader& in) {
    HostedMapInfo m;
    m.hash = wire::read_hash(in);
    m.keys_hash = wire::read_hash(in);
    m.key_type = wire::read_peer_text(in);
    m.value_type = wire::read_peer_text(in);
    m.keys = in.read_varint();
    return m;
  }
};

/// Hosted maps. Body: request varint, more u8 (1: further frames follow), then maps to the end.
struct Hosted {
  static constexpr FrameKind kind = FrameKind::hosted;
  ChannelId request = 0;
  bool more = false;
  ByteView maps;

  void encode(ByteWriter& out) const {
    out.put_varint(request);
    out.put_u8(more ? 1 : 0);
    out.put(maps);
  }
  static Hosted decode(ByteReader& in) {
    Hosted m;
    m.request = in.read_varint();
    const std::uint8_t more = in.read_u8();
    if (more > 1) ByteReader::fail("a flag that is neither 0 nor 1");
    m.more = more == 1;
    m.maps = wire::read_rest(in);
    return m;
  }
};

/// One commit that changed one key, the commonest diff of all: the stream advances by 1.
///
/// Body: stream varint, ordinal varint, the value's bytes to the end.
struct Step {
  static constexpr FrameKind kind = FrameKind::step;
  ChannelId stream = 0;
  std::uint64_t ordinal = 0;
  ByteView value;

  void encode(ByteWriter& out) const {
    out.put_varint(stream);
    out.put_varint(ordinal);
    out.put(value);
  }
  static Step decode(ByteReader& in) {
    Step m;
    m.stream = in.read_varint();
    m.ordinal = in.read_varint();
    m.value = wire::read_rest(in);
    return m;
  }
};

/// The diff that moves a stream on, together with what its transfer staged before.
///
/// Body: stream varint, flags u8 (1 full, 2 an epoch follows), epoch u64 if flagged, advance varint, entries
/// to the end. The stream's update id grows by `advance`; a full diff counts from 0. An entry is ordinal
/// varint, value (length varint, bytes).
struct DiffMessage {
  static constexpr FrameKind kind = FrameKind::diff;
  static constexpr std::uint8_t full_flag = 1;
  static constexpr std::uint8_t epoch_flag = 2;
  ChannelId stream = 0;
  bool is_full = false;
  std::optional<Epoch> epoch;
  UpdateId advance = 0;
  ByteView entries;

  void encode(ByteWriter& out) const {
    out.put_varint(stream);
    out.put_u8(static_cast<std::uint8_t>((is_full ? full_flag : 0) | (epoch ? epoch_flag : 0)));
    if (epoch) out.put_u64_be(*epoch);
    out.put_varint(advance);
    out.put(entries);
  }
  static DiffMessage decode(ByteReader& in) {
    DiffMessage m;
    m.stream = in.read_varint();
    const std::uint8_t flags = in.read_u8();
    if ((flags & ~(full_flag | epoch_flag)) != 0) ByteReader::fail("an unknown flag");
    m.is_full = (flags & full_flag) != 0;
    if ((flags & epoch_flag) != 0) m.epoch = in.read_u64_be();
    m.advance = in.read_varint();
    m.entries = wire::read_rest(in);
    return m;
  }
};

/// A piece of a diff too large for one frame, to be staged and not shown. Body: stream varint, entries to the
/// end.
struct Transfer {
  static constexpr FrameKind kind = FrameKind::transfer;
  ChannelId stream = 0;
  ByteView entries;

  void encode(ByteWriter& out) const {
    out.put_varint(stream);
    out.put(entries);
  }
  static Transfer decode(ByteReader& in) {
    Transfer m;
    m.stream = in.read_varint();
    m.entries = wire::read_rest(in);
    return m;
  }
};

/// A piece of a value too large for one frame. Body: stream varint, ordinal varint, total varint, offset
/// varint, bytes to the end. A value whose pieces stop before `total` (any other frame of the stream comes
/// between) is dropped: it changed meanwhile, and its new value follows.
struct ValuePart {
  static constexpr FrameKind kind = FrameKind::value_part;
  ChannelId stream = 0;
  std::uint64_t ordinal = 0;
  std::uint64_t total = 0;
  std::uint64_t offset = 0;
  ByteView bytes;

  void encode(ByteWriter& out) const {
    out.put_varint(stream);
    out.put_varint(ordinal);
    out.put_varint(total);
    out.put_varint(offset);
    out.put(bytes);
  }
  static ValuePart decode(ByteReader& in) {
    ValuePart m;
    m.stream = in.read_varint();
    m.ordinal = in.read_varint();
    m.total = in.read_varint();
    m.offset = in.read_varint();
    m.bytes = wire::read_rest(in);
    return m;
  }
};

/// The event was run, and perhaps those that follow it, too.
///
/// Body: channel varint, number varint, update id varint, then nothing, or more varint, above 0: so many events with the
/// next numbers were run as well, each committed by the next update id.
struct Answer {
  static constexpr FrameKind kind = FrameKind::answer;
  ChannelId channel = 0;
  std::uint64_t number = 0;
  UpdateId update_id = 0;
  std::uint64_t more = 0;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_varint(number);
    out.put_varint(update_id);
    if (more != 0) out.put_varint(more);
  }
  static Answer decode(ByteReader& in) {
    Answer m;
    m.channel = in.read_varint();
    m.number = in.read_varint();
    m.update_id = in.read_varint();
    if (in.is_at_end()) return m;
    m.more = in.read_varint();
    const std::uint64_t room = ~(std::max)(m.number, m.update_id);
    if (m.more == 0 || m.more > room) ByteReader::fail("an impossible number of answers");
    return m;
  }
};

/// The event had no effect, or its effect is not known. Body: channel varint, number varint, error varint,
/// detail.
struct AnswerError {
  static constexpr FrameKind kind = FrameKind::answer_error;
  ChannelId channel = 0;
  std::uint64_t number = 0;
  StateErrc reason{};
  std::string detail;

  void encode(ByteWriter& out) const {
    out.put_varint(channel);
    out.put_varint(number);
    out.put_varint(static_cast<std::uint64_t>(reason));
    out.put_sized(detail);
  }
  static AnswerError decode(ByteReader& in) {
    AnswerError m;
    m.channel = in.read_varint();
    m.number = in.read_varint();
    m.reason = wire::read_reason(in);
    m.detail = wire::read_peer_text(in);
    return m;
  }
};

/// Decodes a whole body: whatever is left over is refused.
template <class Message>
Message decode_body(ByteView body) {
  ByteReader in(body);
  Message message = Message::decode(in);
  in.expect_end();
  return message;
}

/// Walks the entries of a diff: calls `on_entry(std::uint64_t ordinal, ByteView value)` for each.
template <class F>
void for_each_entry(ByteView entries, F&& on_entry) {
  ByteReader in(entries);
  while (!in.is_at_end()) {
    const std::uint64_t ordinal = in.read_varint();
    const ByteView value = in.read_sized();
    on_entry(ordinal, value);
  }
}

}  // namespace syncstate::protocol

#endif
