// Frames out of bytes that come in pieces, and the body of every message.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "fuzz_input.hpp"
#include "syncstate/protocol/messages.hpp"

namespace {

using namespace syncstate;
using namespace syncstate::protocol;
using fuzzing::Input;
using fuzzing::is_same;
using fuzzing::require;

/// What a reader made of a stream.
struct Reading {
  struct Whole {
    FrameKind kind;
    Bytes body;
    bool operator==(const Whole&) const = default;
  };
  std::vector<Whole> frames;
  std::error_code error;  ///< how it broke off
  std::size_t pending = 0;
  bool operator==(const Reading&) const = default;
};

/// Reads `stream` in pieces of these sizes, over and over; without any, in one piece. Ends behind `most` frames,
/// as a session does that is over.
Reading read(ByteView stream, std::size_t limit, ByteView sizes, std::size_t most) {
  FrameReader reader(limit);
  Reading reading;
  std::size_t turn = 0;
  const auto on_frame = [&](const Frame& frame) {
    require(frame.body.size() < limit, "no frame is beyond the limit");
    require(reading.frames.size() < most, "nothing comes once the callback has said that it is enough");
    reading.frames.push_back({frame.kind, Bytes(frame.body.begin(), frame.body.end())});
    return reading.frames.size() < most;
  };
  try {
    while (!stream.empty() && reading.frames.size() < most) {
      std::size_t size = stream.size();
      if (!sizes.empty())
        size = std::min(size, std::to_integer<std::size_t>(sizes[turn++ % sizes.size()]) + 1);
      // A buffer of the piece's own, gone afterwards: what the reader keeps it has to copy.
      const Bytes piece(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(size));
      stream = stream.subspan(size);
      reader.feed(piece, on_frame);
      require(reader.pending_bytes() < limit + 5, "what waits is no more than one frame");
    }
    reading.pending = reader.pending_bytes();
  } catch (const StateError& error) {
    reading.error = error.code();
    require(error.code() == StateErrc::too_large || error.code() == StateErrc::protocol_error,
            "a bad length is too_large or a protocol_error");
  }
  return reading;
}

template <class Message>
Bytes body_of(const Message& message) {
  Bytes body;
  ByteWriter out(body);
  message.encode(out);
  return body;
}

/// True for a text that `clean_peer_text` may have changed: it replaces characters by U+FFFD or a space, and cuts.
bool may_be_cleaned(std::string_view text) {
  return text.find("\xEF\xBF\xBD") != std::string_view::npos || text.find(' ') != std::string_view::npos ||
         text.size() > 508;
}

/// Two things do not come back as they were: an error of a number beyond those that we can hold comes as the largest, and
/// a text for people is cleaned.
template <class Message>
bool may_differ(const Message& message) {
  bool may_differ = false;
  if constexpr (requires { message.reason; }) {
    may_differ = static_cast<std::uint64_t>(message.reason) >= 1U << 30;
  }
  if constexpr (requires { message.detail; }) may_differ = may_differ || may_be_cleaned(message.detail);
  return may_differ;
}

/// A body is refused with `decode_error`, or it is that of the message which it decodes to.
template <class Message>
void check_body(ByteView body) {
  std::optional<Message> message;
  try {
    message = decode_body<Message>(body);
  } catch (const StateError& error) {
    require(error.code() == StateErrc::decode_error, "a bad body is a decode_error");
    return;
  }
  const Bytes again = body_of(*message);
  require(may_differ(*message) || is_same(again, body), "a message encodes to the body it came in");
  require(is_same(body_of(decode_body<Message>(again)), again),
          "what was encoded decodes to the same message");

  Bytes framed;
  append_frame(framed, *message);
  FrameReader reader(framed.size());
  std::size_t frames = 0;
  reader.feed(framed, [&](const Frame& frame) {
    ++frames;
    require(frame.kind == Message::kind && is_same(frame.body, again), "a frame gives back what was put in");
    return true;
  });
  require(frames == 1 && reader.pending_bytes() == 0, "a message is one frame");
}

/// Lists to the end of a body: what is read is written again. `read_and_write` returns false for an entry that need not
/// come back as it was.
template <class Each>
void check_list(ByteView bytes, Each read_and_write) {
  bool comes_back = true;
  Bytes again;
  ByteWriter out(again);
  try {
    ByteReader in(bytes);
    while (!in.is_at_end()) comes_back = read_and_write(in, out) && comes_back;
  } catch (const StateError& error) {
    require(error.code() == StateErrc::decode_error, "a bad list is a decode_error");
    return;
  }
  require(!comes_back || is_same(again, bytes), "a list is written as it was read");
}

void check_entries(ByteView entries) {
  Bytes again;
  ByteWriter out(again);
  try {
    for_each_entry(entries, [&](std::uint64_t ordinal, ByteView value) {
      out.put_varint(ordinal);
      out.put_sized(value);
    });
  } catch (const StateError& error) {
    require(error.code() == StateErrc::decode_error, "bad entries are a decode_error");
    return;
  }
  require(is_same(again, entries), "entries are written as they were read");
}

void check_any_body(FrameKind kind, ByteView body) {
  switch (kind) {
    case FrameKind::hello: return check_body<Hello>(body);
    case FrameKind::welcome: return check_body<Welcome>(body);
    case FrameKind::goodbye: return check_body<Goodbye>(body);
    case FrameKind::heartbeat:
      return check_list(body, [](ByteReader& in, ByteWriter& out) {
        HeartbeatEntry::decode(in).encode(out);
        return true;
      });
    case FrameKind::open: return check_body<Open>(body);
    case FrameKind::upload: return check_body<Upload>(body);
    case FrameKind::upload_end: return check_body<UploadEnd>(body);
    case FrameKind::close_channel: return check_body<CloseChannel>(body);
    case FrameKind::follow: return check_body<Follow>(body);
    case FrameKind::unfollow: return check_body<Unfollow>(body);
    case FrameKind::get_update_id: return check_body<GetUpdateId>(body);
    case FrameKind::get_diff: return check_body<GetDiff>(body);
    case FrameKind::fetch: return check_body<Fetch>(body);
    case FrameKind::list: return check_body<List>(body);
    case FrameKind::event_type: return check_body<EventType>(body);
    case FrameKind::event_part: return check_body<EventPart>(body);
    case FrameKind::event: return check_body<EventMessage>(body);
    case FrameKind::opened: return check_body<Opened>(body);
    case FrameKind::upload_wanted: return check_body<UploadWanted>(body);
    case FrameKind::refused: return check_body<Refused>(body);
    case FrameKind::update_id: return check_body<UpdateIdMessage>(body);
    case FrameKind::state: return check_body<StatePiece>(body);
    case FrameKind::state_end: return check_body<StateEnd>(body);
    case FrameKind::hosted:
      check_list(body, [](ByteReader& in, ByteWriter& out) {
        const auto info = HostedMapInfo::decode(in);
        info.encode(out);
        return !may_be_cleaned(info.key_type) && !may_be_cleaned(info.value_type);
      });
      return check_body<Hosted>(body);
    case FrameKind::step: return check_body<Step>(body);
    case FrameKind::diff: return check_body<DiffMessage>(body);
    case FrameKind::transfer: check_entries(body); return check_body<Transfer>(body);
    case FrameKind::value_part: return check_body<ValuePart>(body);
    case FrameKind::answer: return check_body<Answer>(body);
    case FrameKind::answer_error: return check_body<AnswerError>(body);
    case FrameKind::get_sender: return check_body<GetSender>(body);
    case FrameKind::sender: return check_body<SenderMessage>(body);
    case FrameKind::limits: return check_body<ClientLimits>(body);
  }
}

/// A stream of frames that are frames, so that the fuzzer need not find out about lengths.
Bytes make_stream(Input& input) {
  Bytes stream;
  while (!input.is_empty()) {
    const std::size_t start = open_frame(stream);
    stream.push_back(static_cast<std::byte>(input.take_byte()));
    const ByteView body = input.take_bytes();
    stream.insert(stream.end(), body.begin(), body.end());
    close_frame(stream, start);
  }
  return stream;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t limits[] = {1, 2, 100, 127, 128, 300, 1'024, std::size_t{1} << 20};
  Input input(data, size);
  const std::size_t limit = limits[input.below(std::size(limits))];
  const bool is_framed = input.flip();
  // None as a rule.
  const std::size_t most = input.flip() ? 1 + input.below(8) : ~std::size_t{0};
  const ByteView sizes = input.take_bytes();
  const ByteView rest = input.take_rest();
  Bytes stream(rest.begin(), rest.end());
  if (is_framed) {
    Input framed(reinterpret_cast<const std::uint8_t*>(rest.data()), rest.size());
    stream = make_stream(framed);
  }

  const Reading at_once = read(stream, limit, {}, most);
  const Bytes ones{std::byte{0}};
  Reading by_bytes = read(stream, limit, ones, most);
  Reading in_pieces = read(stream, limit, sizes, most);
  // Once a reader broke off, or was told to, what it still held is nobody's.
  if (at_once.error || at_once.frames.size() == most) by_bytes.pending = in_pieces.pending = at_once.pending;
  require(by_bytes == at_once, "the same frames come byte by byte");
  require(in_pieces == at_once, "the same frames come in any pieces");

  for (const Reading::Whole& frame : at_once.frames) {
    const Bytes exact = frame.body;  // nothing behind it
    check_any_body(frame.kind, exact);
  }
  return 0;
}
