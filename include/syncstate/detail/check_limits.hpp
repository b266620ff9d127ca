// Which limits leave nothing that works, found before anything is started with them.
#ifndef SYNCSTATE_DETAIL_CHECK_LIMITS_HPP
#define SYNCSTATE_DETAIL_CHECK_LIMITS_HPP

#include <chrono>
#include <cstddef>
#include <string>

#include "syncstate/error.hpp"
#include "syncstate/limits.hpp"

namespace syncstate::detail {

/// A password proof of a version to come may be longer than today's 40 bytes.
inline constexpr std::size_t least_frame_bytes = 128;
/// The shortest ClientHello that an ordinary TLS 1.3 client sends has some 200 bytes.
inline constexpr std::size_t least_client_hello_bytes = 512;

/// Refuses limits with which no peer could do anything, whatever it does. Called by the cores of servers and remotes.
///
/// Limits that only forbid a part (no maps of clients, no kept answers) are allowed.
/// Errors: `invalid_option` with the name of the limit, its value and the least that works.
inline void check_limits(const Limits& limits) {
  const auto refuse = [](const std::string& name, const std::string& value, const std::string& rule) {
    throw StateError(StateErrc::invalid_option, "Limits::" + name + " is " + value + ", but must be " + rule);
  };
  const auto at_least = [&](const char* name, std::size_t value, std::size_t least) {
    if (value < least) refuse(name, std::to_string(value), "at least " + std::to_string(least));
  };
  const auto positive = [&](const char* name, std::chrono::milliseconds value) {
    if (value.count() <= 0) refuse(name, std::to_string(value.count()) + " ms", "above 0 ms");
  };
  positive("authentication_time", limits.authentication_time);
  at_least("pending_links", limits.pending_links, 1);
  at_least("links", limits.links, 1);
  at_least("links_per_address", limits.links_per_address, 1);
  at_least("failed_proofs_per_minute", limits.failed_proofs_per_minute, 1);
  at_least("unproven_links_per_minute", limits.unproven_links_per_minute, 1);
  at_least("client_hello_bytes", limits.client_hello_bytes, least_client_hello_bytes);
  at_least("frame_bytes_before_authentication", limits.frame_bytes_before_authentication, least_frame_bytes);
  at_least("frame_bytes", limits.frame_bytes, limits.frame_bytes_before_authentication);
  at_least("piece_bytes", limits.piece_bytes, 1);
  positive("upload_silence", limits.upload_silence);
  positive("upload_patience", limits.upload_patience);
  positive("upload_time", limits.upload_time);
  at_least("events_in_flight", limits.events_in_flight, 1);
  at_least("event_bytes_in_flight", limits.event_bytes_in_flight, 1);
  at_least("requests_in_flight", limits.requests_in_flight, 1);
  positive("heartbeat_every", limits.heartbeat_every);
  if (limits.silence <= limits.heartbeat_every) {
    refuse("silence", std::to_string(limits.silence.count()) + " ms",
           "longer than heartbeat_every, " + std::to_string(limits.heartbeat_every.count()) + " ms");
  }
}

}  // namespace syncstate::detail

#endif
