// Who may do what with which map: the one question a server asks its owner.
#ifndef SYNCSTATE_AUTHORIZER_HPP
#define SYNCSTATE_AUTHORIZER_HPP

#include <functional>
#include <string_view>

#include "syncstate/link.hpp"
#include "syncstate/map_hash.hpp"

namespace syncstate {

/// What a peer wants to do with a map.
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

/// Says whether a peer that knows the password may do this; false refuses the one action as `forbidden`, and its
/// link goes on. Without an authorizer everything is allowed.
///
/// It is asked each time: for `init` and `follow` when a map is opened, for `fetch` and `send_event` at every one. A
/// map that is hosted already is opened for whoever may do any of the four, and he is told its head then; `hosted`
/// leaves out what may not be fetched.
///
/// Threads: called on the I/O threads, on several at once where a server has them; it must not block.
/// Errors : what it throws counts as false, and `on_error` is told.
///
/// ```cpp
/// options.authorizer = [](const ss::Peer& peer, ss::Action action, const ss::MapHash&) {
///   return action != ss::Action::send_event || peer.certificate_subject == "CN=dispatcher";
/// };
/// ```
using Authorizer = std::function<bool(const Peer&, Action, const MapHash&)>;

}  // namespace syncstate

#endif
