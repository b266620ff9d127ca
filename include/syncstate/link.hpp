// The one interface between the roles and a transport: a link, and whoever owns its session.
#ifndef SYNCSTATE_LINK_HPP
#define SYNCSTATE_LINK_HPP

#include <memory>
#include <string>
#include <system_error>

#include "syncstate/bytes.hpp"
#include "syncstate/detail/unique_function.hpp"
#include "syncstate/peer.hpp"

namespace syncstate {

/// What a transport tells when a link can carry frames.
struct LinkInfo {
  Peer peer;
  Bytes channel_binding;  ///< fresh on every channel and equal at both ends (TLS: the exporter of RFC 9266)
};

/// A transport connection as the roles see it: a reliable ordered byte stream that asks for bytes.
///
/// Implemented by transports.
/// Threads: every call, in both directions, comes from one executor: the link's.
class Link {
 public:
  Link() = default;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  virtual ~Link() = default;

  /// There may be something to send: `LinkOwner::produce` is called as soon as the transport can take bytes.
  /// Never from inside this call.
  virtual void wake() = 0;

  /// Sends what `produce` still gives, then closes; gives up after a second.
  virtual void close_gracefully() = 0;

  /// Sends what `produce` gives, as far as the transport takes it at this moment, then closes: waits neither for room
  /// nor for the peer's end. For a silent peer. Must not be called from inside a call to the owner.
  virtual void close_without_waiting() { abort(); }

  /// Closes at once.
  virtual void abort() = 0;

  /// Goes on on the executor that the transport made this link for once its peer has proven itself. `then` runs there,
  /// before anything else is heard of the link; until then nothing more is heard of it here, and it must not be called.
  /// Call it from `LinkOwner::on_bytes`, at the end. A link that stays on one executor runs `then` at once.
  virtual void move_on(detail::UniqueFunction<void()> then) { then(); }
};

/// The role's side of a link: it holds the session. Implemented by the roles.
class LinkOwner {
 public:
  LinkOwner() = default;
  LinkOwner(const LinkOwner&) = delete;
  LinkOwner& operator=(const LinkOwner&) = delete;
  virtual ~LinkOwner() = default;

  /// The link is secured and can carry frames. Called once, before everything below but `on_closed`.
  virtual void on_open(const LinkInfo& info) = 0;

  /// Bytes came; the view dies with the call.
  virtual void on_bytes(ByteView bytes) = 0;

  /// The transport can take bytes: append some 64 KiB at most to `out`, which comes empty. Appending nothing
  /// says that there is nothing to send until the next `wake`. Not called while earlier bytes are not wholly
  /// taken.
  virtual void produce(Bytes& out) = 0;

  /// The link is gone, for this reason. Called exactly once, and nothing after it.
  virtual void on_closed(std::error_code reason, const std::string& detail) = 0;
};

/// Makes a client's links. Implemented by transports.
class Connector {
 public:
  Connector() = default;
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;
  virtual ~Connector() = default;

  /// Starts one attempt over every endpoint and every address, names resolved anew. `owner` hears `on_open`,
  /// or `on_closed` with the reason of the last failure; never from inside this call.
  virtual std::shared_ptr<Link> connect(std::shared_ptr<LinkOwner> owner) = 0;
};

}  // namespace syncstate

#endif
