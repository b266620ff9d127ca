// Who may do what with which map: the one question a server asks its owner.
#ifndef SYNCSTATE_AUTHORIZER_HPP
#define SYNCSTATE_AUTHORIZER_HPP

#include <functional>
#include <string_view>

#include "syncstate/map_hash.hpp"
#include "syncstate/peer.hpp"

namespace syncstate {

/// What a peer wants to do with a map. More actions may be added in later versions: compare with the ones that you
/// allow (`==`), never with the ones that you refuse (`!=`).
///
/// A new request of an ordinary kind is asked about as one of these four: for instance, reading one value by its key is
/// `fetch`. An action of a new kind is never covered by a right that was given to one of these.
enum class Action {
  init,       ///< bring a map that the server does not host yet
  follow,     ///< hear of every change
  fetch,      ///< read without following: initial state, one diff, the head, the map's place in `hosted`
  send_event  ///< have the hooks run on an event
};

/// `"init"`, `"follow"`, `"fetch"` or `"send_event"`.
constexpr std::string_view to_string(Action action) {
  switch (action) {
    case Action::init: return "init";
    case Action::follow: return "follow";
    case Action::fetch: return "fetch";
    case Action::send_event: return "send_event";
  }
  return "unknown";
}

/// Says whether a peer that proved a password may do this. Returning false refuses this one action as `forbidden`; the
/// link stays open. Without an authorizer the four ordinary actions are allowed.
///
/// An authorizer names what it allows, and returns false for everything else, also for actions that it does not know.
/// An authorizer that names what it refuses would allow each action that a later version adds.
///
/// The server asks each time: for `init` and `follow` when a map is opened, for `fetch` and `send_event` at each
/// request and event. A map that is hosted already is opened for a peer that may do any of the four, and the peer is
/// told the head then; `hosted` leaves out maps that the peer may not fetch.
///
/// Threads: called on the I/O threads, on several at once where a server has them; it must not block.
/// Errors : an exception counts as false, and is passed to `on_error`.
///
/// ```cpp
/// options.authorizer = [](const ss::Peer& peer, ss::Action action, const ss::MapHash&) {
///   switch (action) {
///     case ss::Action::init:
///     case ss::Action::follow:
///     case ss::Action::fetch: return true;
///     case ss::Action::send_event: return peer.certificate_subject == "CN=dispatcher";
///   }
///   return false;  // an action of a later version
/// };
/// ```
using Authorizer = std::function<bool(const Peer&, Action, const MapHash&)>;

}  // namespace syncstate

#endif
