// How messages are cut out of the byte stream: a length, a kind, a body.
#ifndef SYNCSTATE_PROTOCOL_FRAME_HPP
#define SYNCSTATE_PROTOCOL_FRAME_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "syncstate/bytes.hpp"
#include "syncstate/detail/limit_text.hpp"

namespace syncstate::protocol {

/// What a frame says. The numbers travel: append, never renumber.
///
/// Shape of a frame: length  varint, the bytes that follow, 1 .. the limit in force
///                   kind    u8, one of these; an unknown kind ends the session
///                   body    length - 1 bytes, laid out by kind (messages.hpp, docs/protocol.md)
///
/// Complexity: beside each kind stands what a frame costs its receiver besides reading the body's bytes. M is the number of
/// maps that the server hosts, C that of the channels of the link. Nothing else on the receiver makes a frame dearer:
/// benchmarks/instructions/growth counts it.
enum class FrameKind : std::uint8_t {
  // both ways
  hello = 1,      // an HMAC for each password, current and retired
  welcome = 2,    // an HMAC
  goodbye = 3,    // the link ends: O(C)
  heartbeat = 4,  // O(log C) for each entry
  // client to server
  open = 16,           // O(log M + log C)
  upload = 17,         // O(bytes), what was decoded included
  upload_end = 18,     // O(keys): sorts and hashes the state once
  close_channel = 19,  // O(log M + log C)
  follow = 20,         // O(log C), then a diff: as `diff`, in pieces, as the link takes it
  unfollow = 21,       // O(log C)
  get_update_id = 22,  // O(log C)
  get_diff = 23,       // O(log C), then as `diff`
  fetch = 24,          // O(log M + log C), then O(bytes of the state), in pieces
  list = 25,           // O(1), then O(maps listed), in pieces
  event_type = 26,     // O(log C)
  event_part = 27,     // O(log C)
  event = 28,          // O(log C), then decoding and the hooks in their turn
  // server to client
  opened = 32,         // O(log C), and what waited for it
  upload_wanted = 33,  // O(log C), then O(bytes of the state), in pieces
  refused = 34,        // O(log C)
  update_id = 35,      // O(log C)
  state = 36,          // O(bytes), what was decoded included
  state_end = 37,      // O(keys): sorts and hashes the state once
  hosted = 38,         // O(maps named)
  step = 39,           // O(log C), and for each key that is named O(1)
  diff = 40,           // O(log C), and for each key that is named O(1)
  transfer = 41,       // O(log C), and for each key that is named O(1); at the end of a whole state O(keys)
  value_part = 42,     // O(log C)
  answer = 43,         // O(log C)
  answer_error = 44,   // O(log C)
  // appended later, both ways
  get_sender = 45,  // O(log C + log senders of the map)
  sender = 46,      // O(log C)
  limits = 47,      // O(1); client to server
};

/// One frame as it came; `body` dies with the bytes it was cut from.
struct Frame {
  FrameKind kind{};
  ByteView body;
};

/// Leaves room for the length of a frame, whose kind and body are to follow. Returns where it begins.
inline std::size_t open_frame(Bytes& out) {
  out.push_back(std::byte{0});
  return out.size() - 1;
}

/// Ends the frame that begins at `start`: its length is known now.
inline void close_frame(Bytes& out, std::size_t start) {
  const std::uint64_t length = out.size() - start - 1;
  if (length < 0x80) {  // most are so short, and the others pay for moving
    out[start] = static_cast<std::byte>(length);
    return;
  }
  std::array<std::byte, 10> head{};
  std::byte* const end = write_varint(length, head.data());
  out[start] = head[0];
  out.insert(out.begin() + static_cast<std::ptrdiff_t>(start + 1), head.data() + 1, end);
}

/// Appends one message as a frame. `Message` has `kind` and `encode(ByteWriter&)`.
template <class Message>
void append_frame(Bytes& out, const Message& message) {
  const std::size_t start = open_frame(out);
  ByteWriter writer(out);
  writer.put_u8(static_cast<std::uint8_t>(Message::kind));
  message.encode(writer);
  close_frame(out, start);
}

/// Appends bytes to what will not be larger than `most`: grows by doubling, but not beyond that.
inline void append_within(Bytes& to, ByteView bytes, std::size_t most) {
  const std::size_t size = to.size() + bytes.size();
  if (size > to.capacity()) to.reserve((std::max)(size, (std::min)(2 * to.capacity(), most)));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

/// Cuts frames out of bytes that arrive in pieces of any size.
///
/// Memory: what arrived and is not a whole frame yet, up to twice while it grows, never what a length claims.
class FrameReader {
 public:
  /// `limit` is the member of `Limits` that `max_frame_bytes` comes from, for error texts.
  explicit FrameReader(std::size_t max_frame_bytes, const char* limit = "frame_bytes")
      : max_frame_bytes_(max_frame_bytes), limit_(limit) {}

  void set_max_frame_bytes(std::size_t bytes, const char* limit = "frame_bytes") {
    max_frame_bytes_ = bytes;
    limit_ = limit;
  }

  /// Calls `on_frame(Frame)` for every whole frame in what came so far and `in`, until it returns false.
  /// Errors: `too_large` for a length beyond the limit, `protocol_error` for an empty frame or a bad length.
  template <class F>
  void feed(ByteView in, F&& on_frame) {
    if (pending_.empty()) {
      const ByteView rest = cut(in, on_frame);
      pending_.assign(rest.begin(), rest.end());
      return;
    }
    append_within(pending_, in, max_frame_bytes_ + 5);
    // The frames are views into `moving`, so that a callback that ends the session may clear us.
    Bytes moving = std::move(pending_);
    pending_.clear();
    const ByteView rest = cut(moving, on_frame);
    if (rest.size() == moving.size()) {
      pending_ = std::move(moving);  // nothing whole yet: keep the buffer as it grew
    } else {
      pending_.assign(rest.begin(), rest.end());
    }
  }

  /// Bytes kept of a frame that is not whole yet.
  [[nodiscard]] std::size_t pending_bytes() const { return pending_.size(); }

  /// The memory that they take.
  [[nodiscard]] std::size_t held_bytes() const { return pending_.capacity(); }

  /// Forgets them; in a callback of `feed`, what comes after the frame is forgotten.
  void clear() { Bytes().swap(pending_); }

 private:
  template <class F>
  ByteView cut(ByteView in, F& on_frame) {
    for (;;) {
      const auto head = read_length(in);
      if (!head) return in;
      if (in.size() - head->bytes < head->length) return in;
      const ByteView whole = in.subspan(head->bytes, head->length);
      in = in.subspan(head->bytes + head->length);
      const Frame frame{static_cast<FrameKind>(std::to_integer<std::uint8_t>(whole.front())),
                        whole.subspan(1)};
      if (!on_frame(frame)) return {};
    }
  }

  struct Head {
    std::size_t bytes;
    std::size_t length;
  };

  [[nodiscard]] std::optional<Head> read_length(ByteView in) const {
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < in.size(); ++i) {
      const auto b = std::to_integer<std::uint8_t>(in[i]);
      // Five bytes say 34 bits, far beyond any limit: what goes on is an attack or not our protocol.
      if (i == 5) {
        throw StateError(
            StateErrc::too_large,
            detail::beyond_limit("the length of a frame has more than 5 bytes", limit_, max_frame_bytes_));
      }
      length |= static_cast<std::uint64_t>(b & 0x7f) << (7 * i);
      if ((b & 0x80) != 0) continue;
      if (b == 0 && i != 0) throw StateError(StateErrc::protocol_error, "a frame's length is not canonical");
      if (length == 0) throw StateError(StateErrc::protocol_error, "an empty frame");
      if (length > max_frame_bytes_) {
        throw StateError(StateErrc::too_large,
                         detail::beyond_limit(detail::of_bytes("a frame", length), limit_, max_frame_bytes_));
      }
      return Head{i + 1, length};
    }
    return std::nullopt;
  }

  std::size_t max_frame_bytes_;
  const char* limit_;
  Bytes pending_;
};

}  // namespace syncstate::protocol

#endif
