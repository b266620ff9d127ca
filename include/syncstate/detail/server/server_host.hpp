// What a server link needs of the server core and of a hosted map, without their types.
#ifndef SYNCSTATE_DETAIL_SERVER_SERVER_HOST_HPP
#define SYNCSTATE_DETAIL_SERVER_SERVER_HOST_HPP

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "syncstate/authorizer.hpp"
#include "syncstate/bytes.hpp"
#include "syncstate/detail/server/sender_table.hpp"
#include "syncstate/error_handler.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/server_session.hpp"

namespace syncstate::detail {

class ServerLink;
struct EventInlet;
struct SenderOwner;

/// What a link needs of the server core; the core knows the types, the link does not.
///
/// Threads: every member from the executor of the link it is called for, so from many threads.
class ServerHost {
 public:
  ServerHost() = default;
  ServerHost(const ServerHost&) = delete;
  ServerHost& operator=(const ServerHost&) = delete;
  virtual ~ServerHost() = default;

  [[nodiscard]] virtual const Limits& limits() const = 0;
  /// What all links hold together.
  [[nodiscard]] virtual const std::shared_ptr<protocol::ServerAccount>& account() const = 0;
  [[nodiscard]] virtual std::shared_ptr<const protocol::Passwords> passwords() const = 0;
  [[nodiscard]] virtual const ErrorHandler& on_error() const = 0;
  /// What the authorizer says; true without one.
  [[nodiscard]] virtual bool is_allowed(const Peer& peer, Action action, const MapHash& map) const = 0;
  /// Whether a map that is hosted is opened for this peer, which asks to follow it or not.
  [[nodiscard]] virtual bool may_open(const Peer& peer, const MapHash& map, bool follows) const = 0;

  [[nodiscard]] virtual bool is_barred(const std::string& address, TimePoint now) = 0;
  /// Counts a proof; false if its address has used up its failed proofs, and the answer must be `busy`.
  [[nodiscard]] virtual bool proof_checked(std::uint64_t link, const std::string& address,
                                           protocol::ProofStanding standing, TimePoint now) = 0;
  virtual void authenticated(std::uint64_t link) = 0;
  /// Whether the server ends its links. True before it asks its lanes to.
  [[nodiscard]] virtual bool is_stopped() const = 0;
  /// The link's client has proved itself. Returns false if the link is to end: a `disconnect` that came meanwhile is for
  /// its peer.
  [[nodiscard]] virtual bool settle(const std::shared_ptr<ServerLink>& link) = 0;
  virtual void closed(std::uint64_t link, const std::string& address, TimePoint now) = 0;

  virtual void open_asked(const std::shared_ptr<ServerLink>& link, protocol::Open open) = 0;
  virtual void upload_came(ServerLink& link, protocol::ChannelId channel, ByteView bytes) = 0;
  virtual void upload_ended(const std::shared_ptr<ServerLink>& link, protocol::ChannelId channel) = 0;
  /// The upload has gone on for another `Limits::upload_patience`.
  virtual void upload_goes_on(ServerLink& link, protocol::ChannelId channel) = 0;
  virtual void channel_closed(ServerLink& link, protocol::ChannelId channel) = 0;
  /// Asks the authorizer again about the uploads of this link, and gives up those that are forbidden now.
  virtual void recheck_uploads(ServerLink& link) = 0;
  virtual void fetch_asked(ServerLink& link, const protocol::Fetch& fetch) = 0;
  /// As `protocol::HostedSource`, of the maps that this peer may fetch.
  virtual std::optional<MapHash> encode_hosted(const Peer& peer, const std::optional<MapHash>& after,
                                               Bytes& out) = 0;
};

/// A hosted map as its links see it, without its types.
///
/// Threads: every member from any thread.
class HostedBase {
 public:
  HostedBase() = default;
  HostedBase(const HostedBase&) = delete;
  HostedBase& operator=(const HostedBase&) = delete;
  virtual ~HostedBase() = default;

  [[nodiscard]] virtual const MapHash& hash() const = 0;
  [[nodiscard]] virtual std::shared_ptr<protocol::DiffSource> source() = 0;
  /// Returns the place where the events of this link for this map come in; one for each link, until `close_inlet`.
  [[nodiscard]] virtual std::shared_ptr<EventInlet> make_inlet(const std::shared_ptr<ServerLink>& link) = 0;
  /// The link is gone, or needs its inlet no more. What waits still runs.
  virtual void close_inlet(EventInlet& inlet) = 0;
  /// Returns whether no event of this inlet waits or runs.
  [[nodiscard]] virtual bool is_idle(EventInlet& inlet) = 0;
  /// Returns `known` if that is a sender of this owner, else a new one. It is remembered until `release_sender`, and a
  /// while longer. From now on its events run behind those that came for it over other links.
  [[nodiscard]] virtual std::uint64_t hold_sender(EventInlet& inlet, std::uint64_t known,
                                                  const SenderOwner& owner) = 0;
  virtual void release_sender(EventInlet& inlet, std::uint64_t sender) = 0;
  /// The link has no more use for this sender: forgets it, unless it is held, or events of the inlet wait.
  virtual void forget_sender(EventInlet& inlet, std::uint64_t sender) = 0;
  /// Keeps the bytes of an event until `run_events`, or returns the answer that refuses it.
  [[nodiscard]] virtual std::optional<EventOutcome> event_came(const std::shared_ptr<EventInlet>& inlet,
                                                               const protocol::EventCame& event,
                                                               bool is_allowed) = 0;
  /// Runs the events that came since the last call in their order, when it is their link's turn, and answers through the
  /// link's lane. One that is not allowed is answered in its turn, too, so that a repeat gets the same answer. Bytes that
  /// are no event end the session then, and nothing behind them runs.
  virtual void run_events(EventInlet& inlet) = 0;
};

}  // namespace syncstate::detail

#endif
