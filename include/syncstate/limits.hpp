// Every limit that protects one peer from another, by name, with its default.
#ifndef SYNCSTATE_LIMITS_HPP
#define SYNCSTATE_LIMITS_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "syncstate/detail/requirements.hpp"

namespace syncstate {

/// What a server grants its peers, and a client its server. The defaults are those of the documentation; what each
/// protects from is in docs/security.md. Servers and remotes refuse values that leave nothing that works.
///
/// A time is kept to within a heartbeat: an action happens at its time, or later by at most a quarter of the shortest
/// time here, and never by more than half a second.
///
/// The two ends of a link may have any limits. They tell each other those that would end a session (protocol.md,
/// section 6) and keep to them. A request, event or diff beyond another limit fails alone, and the error names the
/// limit and its value. Three limits of a server do not fail alone: a link whose memory exceeds `link_bytes`,
/// `own_link_bytes` or `all_link_bytes` ends with `busy`.
struct Limits {
  /// From accept to authenticated; whoever needs longer is closed.
  std::chrono::milliseconds authentication_time{5'000};
  /// Links accepted but not authenticated yet, over all addresses.
  std::size_t pending_links = 128;
  /// Links at one time, over all addresses.
  std::size_t links = 16'384;
  /// Links at one time from one address.
  std::size_t links_per_address = 16'384;
  /// Failed proofs in a minute from one address; further attempts are refused `busy`.
  std::size_t failed_proofs_per_minute = 10;
  /// Links in a minute from one address that ended without a proof; further ones are closed unseen, before they cost
  /// a TLS handshake. So many at once, then so many spread over a minute.
  std::size_t unproven_links_per_minute = 300;
  /// Addresses without a link whose failures are remembered; beyond, those that failed least are forgotten.
  std::size_t addresses = 65'536;
  /// The ClientHello of a TLS handshake, in bytes. Ordinary ones have 300 to 1,800.
  std::uint64_t client_hello_bytes = 4'096;
  /// The certificates that a peer shows in a TLS handshake, all together, in bytes. Three with RSA keys of 4,096 bits have
  /// some 6,000.
  std::uint64_t certificate_chain_bytes = std::uint64_t{16} << 10;
  /// TLS key updates that a peer may ask for in a minute; a link that asks for more is closed. Each costs as much as
  /// hundreds of bytes, and a peer has good reason for one in many gigabytes.
  std::size_t key_updates_per_minute = 8;

  /// What one link may hold in the server, in bytes: frames that are not whole, channels, requests and answers that wait,
  /// what it was sent and has not read. Beyond it the session ends with `busy`. Events that wait for their hooks, and
  /// initial states, are counted by the limits on them instead.
  std::uint64_t link_bytes = std::uint64_t{8} << 20;
  /// What a link may hold in any case, in bytes, whatever the others hold.
  std::uint64_t own_link_bytes = std::uint64_t{128} << 10;
  /// What all links together may hold beyond their `own_link_bytes`, in bytes; a link that asks for more ends with `busy`.
  std::uint64_t all_link_bytes = std::uint64_t{1} << 30;

  /// The largest frame before authentication, in bytes.
  std::uint64_t frame_bytes_before_authentication = 1'024;
  /// The largest frame after authentication, in bytes; the other end cuts its frames to this size.
  std::uint64_t frame_bytes = std::uint64_t{1} << 20;
  /// What we put into one frame at most, in bytes, so that maps on one link take turns.
  std::uint64_t piece_bytes = std::uint64_t{64} << 10;

  /// Maps hosted by one server.
  std::size_t maps = 1'024;
  /// Keys of one map.
  std::size_t keys_per_map = std::size_t{16} << 20;
  /// Bytes of one map's initial state, as it travels.
  std::uint64_t map_bytes = std::uint64_t{1} << 30;
  /// What all maps together take that clients brought, those under way too, in bytes of memory: keys once, values twice, as
  /// they were and as they are, and tables; beyond, further ones are refused `busy`. What hooks set is not part of it.
  std::uint64_t all_map_bytes = std::uint64_t{8} << 30;
  /// An initial state of which nothing came for this long is given up, for those who wait for the same map.
  std::chrono::milliseconds upload_silence{15'000};
  /// After this long another client that waits for the same map is asked for it, too, and so on each time it has passed; the
  /// first whole initial state is taken.
  std::chrono::milliseconds upload_patience{5'000};
  /// From the asking for an initial state to its end, however much comes meanwhile.
  std::chrono::milliseconds upload_time{600'000};
  /// The encoding of one value, in bytes, and of one key of an initial state that comes. A client refuses a diff with a larger
  /// value, however it comes.
  std::uint64_t value_bytes = std::uint64_t{16} << 20;
  /// What a client keeps of one link's diffs, values, fetched states and lists that are not whole yet, in bytes of
  /// memory; beyond, the diff, fetch or list that would grow fails. A client whose maps are larger needs more.
  std::uint64_t staged_bytes = std::uint64_t{1} << 30;
  /// The encoding of one event, in bytes; a larger one is answered `too_large`, and has not run.
  std::uint64_t event_bytes = std::uint64_t{1} << 20;

  /// Events of one link that were not answered yet.
  std::size_t events_in_flight = 1'024;
  /// Bytes of events of one link whose hooks have not run; a single event always fits.
  std::uint64_t event_bytes_in_flight = std::uint64_t{16} << 20;
  /// Bytes of all events that wait for their hooks, those of links that are gone too; an event beyond is answered `busy`,
  /// and has not run.
  std::uint64_t all_event_bytes = std::uint64_t{1} << 30;
  /// Requests (`get_diff`, `fetch`, ...) of one link that were not answered yet; a client has further ones wait.
  std::size_t requests_in_flight = 1'024;
  /// Answers kept per sender for repeats.
  std::size_t answers_per_sender = 1'024;
  /// Senders remembered per map; beyond, an idle one is forgotten, of the client (certificate subject, or address without
  /// one) that has most. Those that open channels have are not: one per link and map.
  std::size_t senders_per_map = 65'536;
  /// What the senders of a map that no open channel has, and the answers kept for all of its senders, may take, in bytes of
  /// memory; beyond, those of the client that has most of it are forgotten.
  std::uint64_t answer_bytes_per_map = std::uint64_t{256} << 20;
  /// The same for all maps of a server together; beyond, those of the maps that have most of it are forgotten.
  std::uint64_t all_answer_bytes = std::uint64_t{1} << 30;

  /// A heartbeat goes out after this long, or after a third of the other end's `silence` if that is shorter (but not
  /// after less than 10 ms for that reason), whatever else is sent.
  std::chrono::milliseconds heartbeat_every{5'000};
  /// A peer from which nothing came for this long loses its link, at once. With less than 30 ms here, the other end needs
  /// a `heartbeat_every` of its own of at most a third of it; otherwise the link is lost and sought again for ever.
  std::chrono::milliseconds silence{15'000};

  /// Rounds of a transfer before one copy-on-write snapshot is pinned.
  unsigned transfer_rounds = 3;
};

}  // namespace syncstate

#endif
