// What the targets that drive a session share: frames to look at, and bytes fed in pieces.
#ifndef SYNCSTATE_TESTS_FUZZING_SESSION_SCRIPT_HPP
#define SYNCSTATE_TESTS_FUZZING_SESSION_SCRIPT_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz_input.hpp"
#include "protocol/session_harness.hpp"

namespace syncstate::fuzzing {

using namespace std::chrono_literals;
namespace wire = syncstate::protocol;
using testing::frame_of;

using Map = StateMap<std::string, std::string>;
using Hosted = detail::HostedMap<std::string, std::string>;

/// So small that scripts reach them.
inline Limits small_limits() {
  Limits limits;
  limits.frame_bytes = 2'048;
  limits.piece_bytes = 128;
  limits.maps = 3;
  limits.keys_per_map = 16;
  limits.map_bytes = 4'096;
  limits.value_bytes = 700;
  limits.staged_bytes = 1'500;
  limits.event_bytes = 300;
  limits.events_in_flight = 4;
  limits.requests_in_flight = 3;
  return limits;
}

inline constexpr std::uint32_t map_keys = 6;

/// A master to copy: hashing one anew for every script would be most of the work.
inline const Map& master() {
  static const Map map = testing::make_master<std::string>(map_keys, "-");
  return map;
}

inline Duration take_pause(Input& input) {
  constexpr Duration pauses[] = {0ms, 1ms, 1s, 5s, 14'999ms, 15s, 1h};
  return pauses[input.below(std::size(pauses))];
}

/// Before the map, at some point of it, or ahead of it; of its epoch, of none or of another.
inline Position take_position(Input& input, Position head) {
  const Epoch epochs[] = {head.epoch, 0, head.epoch + 1};
  const UpdateId ids[] = {0, head.update_id, head.update_id / 2, head.update_id + 1, ~UpdateId{0}};
  const Epoch epoch = epochs[input.below(std::size(epochs))];
  return {epoch, ids[input.below(std::size(ids))]};
}

inline StateErrc take_reason(Input& input) { return static_cast<StateErrc>(1 + input.below(40)); }

inline wire::FollowMode take_mode(Input& input) { return static_cast<wire::FollowMode>(input.below(3)); }

inline std::string take_text(Input& input) { return std::string(as_string_view(input.take_bytes())); }

/// Any kind, also such as there are none.
inline Bytes take_frame(Input& input) {
  const unsigned kind = input.take_byte();
  return testing::raw_frame(kind, input.take_bytes());
}

/// Whole frames, or the session that made them is wrong.
inline std::vector<testing::OwnedFrame> frames_of(ByteView bytes) {
  std::vector<testing::OwnedFrame> frames;
  wire::FrameReader reader(std::size_t{1} << 20);
  reader.feed(bytes, [&](const wire::Frame& frame) {
    frames.push_back({frame.kind, Bytes(frame.body.begin(), frame.body.end())});
    return true;
  });
  require(reader.pending_bytes() == 0, "a session sends whole frames");
  return frames;
}

/// Gives bytes to `feed` in pieces of `piece` bytes, each from a buffer of its own; 0 is all at once.
template <class Feed>
void in_pieces(ByteView bytes, std::size_t piece, Feed feed) {
  while (!bytes.empty()) {
    const std::size_t size = piece == 0 ? bytes.size() : std::min(piece, bytes.size());
    const Bytes own(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    bytes = bytes.subspan(size);
    feed(ByteView(own));
  }
}

/// A role that throws in the middle of an action, as one does that finds the bytes of a value wrong.
class Thrower {
 public:
  void arm(std::size_t how) { how_ = how; }
  [[nodiscard]] bool has_thrown() const { return has_thrown_; }

  void maybe_throw() {
    const std::size_t how = std::exchange(how_, 0);
    if (how == 0) return;
    has_thrown_ = true;
    if (how == 1) throw StateError(StateErrc::decode_error, "no value of this type");
    throw std::runtime_error("out of something");
  }

 private:
  std::size_t how_ = 0;
  bool has_thrown_ = false;
};

}  // namespace syncstate::fuzzing

#endif
