// Hooks: the users' code that the master runs.
#ifndef SYNCSTATE_HOOK_HPP
#define SYNCSTATE_HOOK_HPP

#include <concepts>
#include <memory>
#include <string>
#include <type_traits>

#include "syncstate/event.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/peer.hpp"

namespace syncstate {

template <class K, class V>
class StateMap;
template <class K, class V>
class MasterHandle;

/// Who sent an event, and to which map.
struct EventContext {
  std::string peer_address;  ///< numeric address without port; empty if the event came from this process
  std::string certificate_subject;  ///< of a verified client certificate, RFC 2253; empty without one
  MapHash map;
  /// Everything that is known of the peer, as the authorizer is told it; null if the event came from this process.
  std::shared_ptr<const Peer> peer{};
};

/// Code the master runs for every event. Users write these, usually as a lambda.
///
/// 1. Callable as `hook(state, event)` or `hook(state, event, context)`; the result is ignored.
/// 2. Move-constructible; it need not be copyable.
/// 3. May throw: nothing of this event is kept, and its sender learns `hook_failed` with what the exception says. A
/// `StateError` keeps its code and detail if the code says something about the event or the map. These codes do:
/// `frozen`, `unfrozen`, `key_not_found`, `duplicate_key`, `wrong_position`, `wrong_epoch`, `in_transaction`,
/// `forbidden`, `busy`, `hash_mismatch`, `type_mismatch`, `hook_failed`, `too_large`, `decode_error`, `invalid_option`,
/// `not_encodable`. Every other code, which the sender would take for a fault of its own link or server (`unavailable`,
/// `unauthorized`, `outcome_unknown`, ...), is told as `hook_failed`, with the text of the `StateError`.
/// A text is cut to 512 bytes. Of nested exceptions the sender learns the outermost one; `on_error` gets all of them.
/// 4. `state`, `event` and `context` die when the call returns (meaning: the compiler cannot check this one).
/// 5. Runs serially for one map, at the same time for different maps: what hooks share outside the map needs
/// a lock.
/// 6. Must not wait for an event of its own map, nor for a change of it by `modify`: these run after the hook. Such a
/// wait is refused with `would_deadlock` (see docs/guarantees.md for the waits that are not recognised).
///
/// ```cpp
/// server.add_hook([](Map& state, const ss::Event<MyEvent>& event, const ss::EventContext& from) {
///   if (from.certificate_subject.empty()) throw std::runtime_error("who are you?");
///   std::visit([&](const ChangeValue& e) { state.set(e.key, e.value); }, event.content);
/// });
/// ```
template <class H, class K, class V, class E>
concept Hook = std::move_constructible<std::decay_t<H>> &&
               (std::invocable<std::decay_t<H>&, StateMap<K, V>&, const Event<E>&, const EventContext&> ||
                std::invocable<std::decay_t<H>&, StateMap<K, V>&, const Event<E>&>);

/// Code the master runs once when a map comes to live on a server, before anyone sees the map.
///
/// 1. Callable as `hook(handle)` with a `MasterHandle<K, V>`; the result is ignored. It may keep the handle.
/// 2. Move-constructible; it need not be copyable.
/// 3. May throw: the map is not hosted, and `host`, or `freeze` of the clients that wait for the map, report
/// `init_failed` with what the exception says, cut to 512 bytes.
///
/// ```cpp
/// server.add_init_hook([](ss::MasterHandle<std::string, std::string> state) {
///   state.modify([](Map& map) { map.set("started", "yes"); });
/// });
/// ```
template <class H, class K, class V>
concept InitHook =
    std::move_constructible<std::decay_t<H>> && std::invocable<std::decay_t<H>&, MasterHandle<K, V>>;

namespace detail {

/// Calls a hook with as many arguments as it takes.
template <class H, class K, class V, class E>
void call_hook(H& hook, StateMap<K, V>& state, const Event<E>& event, const EventContext& context) {
  if constexpr (std::invocable<H&, StateMap<K, V>&, const Event<E>&, const EventContext&>) {
    static_cast<void>(hook(state, event, context));
  } else {
    static_cast<void>(hook(state, event));
  }
}

}  // namespace detail
}  // namespace syncstate

#endif
