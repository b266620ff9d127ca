// What the other side of a link told that it takes, so that it is never sent what would end its session.
#ifndef SYNCSTATE_PROTOCOL_PEER_LIMITS_HPP
#define SYNCSTATE_PROTOCOL_PEER_LIMITS_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "syncstate/limits.hpp"
#include "syncstate/protocol/peer_text.hpp"

namespace syncstate::protocol {

/// Every side takes frames of this many bytes; a peer that says that it does not breaks the protocol.
inline constexpr std::uint64_t least_frame_bytes = 128;
/// What a frame has besides the bytes that can be cut: kind, numbers, hash. No frame that can be cut has more.
inline constexpr std::size_t frame_head_bytes = 64;
/// The limits of a client that sends no `limits`.
inline constexpr std::uint64_t usual_frame_bytes = std::uint64_t{1} << 20;
inline constexpr std::chrono::milliseconds usual_silence{15'000};
/// The time between two heartbeats that a peer can have by its silence alone: it bounds what a peer costs that tells a
/// silence of 0.
inline constexpr std::chrono::milliseconds shortest_told_heartbeat{10};

/// What the sender of frames keeps to: its own limits, and what its peer takes.
struct PeerLimits {
  std::uint64_t frame_bytes = usual_frame_bytes;
  std::chrono::milliseconds silence = usual_silence;

  /// Returns how much of a message that can be cut goes into one frame: at most `most`, which is above 0.
  [[nodiscard]] std::size_t piece_bytes(std::size_t most) const {
    return static_cast<std::size_t>(std::min<std::uint64_t>(most, frame_bytes - frame_head_bytes));
  }

  /// Returns how long to wait for the next heartbeat: the peer hears three in the time after which it would leave, unless
  /// that takes more of them than `shortest_told_heartbeat` allows, and `own` has a longer `heartbeat_every`.
  [[nodiscard]] std::chrono::milliseconds heartbeat_every(const Limits& own) const {
    return (std::min)(own.heartbeat_every, (std::max)(silence / 3, shortest_told_heartbeat));
  }

  /// Returns whether a heartbeat that goes out now names the streams. That costs far more than all else in it, so it is
  /// done about as often as our own limits say, however short a silence the peer told; the others are empty.
  ///
  /// `since`: from the last one that did to now.
  [[nodiscard]] bool heartbeat_names_streams(const Limits& own, std::chrono::nanoseconds since) const {
    return since > own.heartbeat_every - heartbeat_every(own);
  }

  /// Returns a text that fits a frame, cut as `shorten` does.
  [[nodiscard]] std::string fit(std::string text) const {
    return shorten(std::move(text), static_cast<std::size_t>(std::min<std::uint64_t>(
                                        frame_bytes - frame_head_bytes, peer_text_bytes)));
  }

  /// Returns whether a message fits a frame that has texts of this many bytes, and two hashes besides.
  [[nodiscard]] bool fits(std::size_t text_bytes) const { return text_bytes + 96 + 8 <= frame_bytes; }
};

/// Returns a time in ms, cut so that sums of it do not overflow; a peer may send any number.
inline std::chrono::milliseconds bounded_ms(std::uint64_t ms) {
  constexpr std::uint64_t most = 365ULL * 24 * 60 * 60 * 1'000;
  return std::chrono::milliseconds(static_cast<std::int64_t>((std::min)(ms, most)));
}

}  // namespace syncstate::protocol

#endif
