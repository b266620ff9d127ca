// Decides what the sender of an event, or the client that brought a map, is told of an exception that a hook threw.
#ifndef SYNCSTATE_DETAIL_SERVER_HOOK_FAILURE_HPP
#define SYNCSTATE_DETAIL_SERVER_HOOK_FAILURE_HPP

#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "syncstate/error.hpp"
#include "syncstate/protocol/peer_text.hpp"

namespace syncstate::detail {

/// A code, and a text of at most `protocol::peer_text_bytes` that does not repeat the message of the code.
struct HookFailure {
  StateErrc code;
  std::string text;
};

/// Returns whether a code that a hook throws is told to the sender of the event.
///
/// These codes say something about the event or the map. All others would say something wrong to the sender: that its
/// own link, password or server failed (`unavailable`, `unauthorized`), or that the event may have run
/// (`outcome_unknown`).
inline bool is_told_to_senders(StateErrc code) {
  switch (code) {
    case StateErrc::frozen:
    case StateErrc::unfrozen:
    case StateErrc::key_not_found:
    case StateErrc::duplicate_key:
    case StateErrc::wrong_position:
    case StateErrc::wrong_epoch:
    case StateErrc::in_transaction:
    case StateErrc::forbidden:
    case StateErrc::busy:
    case StateErrc::hash_mismatch:
    case StateErrc::type_mismatch:
    case StateErrc::hook_failed:
    case StateErrc::too_large:
    case StateErrc::decode_error:
    case StateErrc::invalid_option:
    case StateErrc::not_encodable: return true;
    case StateErrc::epoch_changed:
    case StateErrc::unauthorized:
    case StateErrc::unavailable:
    case StateErrc::outcome_unknown:
    case StateErrc::stopped:
    case StateErrc::init_failed:
    case StateErrc::already_hosted:
    case StateErrc::would_deadlock:
    case StateErrc::protocol_error:
    case StateErrc::version_mismatch:
    case StateErrc::not_hosted:
    case StateErrc::peer_silent:
    case StateErrc::certificate_rejected:
    case StateErrc::tls_failed:
    case StateErrc::already_started:
    case StateErrc::link_closed: return false;
  }
  return false;  // a number that is no code
}

/// Returns what a system error says besides the message of its code.
inline std::string_view text_besides_code(std::string_view text, const std::string& message) {
  if (!text.ends_with(message)) return text;
  text.remove_suffix(message.size());
  if (text.ends_with(": ")) text.remove_suffix(2);
  return text;
}

/// In a handler: describes the exception for a peer. `otherwise` is the code for everything that has no code to tell;
/// `keeps_codes`: codes for which `is_told_to_senders` returns true are told.
///
/// Of an exception with nested ones the outermost one is described. The error handler gets all of them.
/// Complexity: O(length of the text) for a system error, O(`protocol::peer_text_bytes`) otherwise.
inline HookFailure describe_hook_failure(StateErrc otherwise, bool keeps_codes) {
  const auto described = [&](const std::system_error& error, auto text_besides) {
    const auto code = static_cast<StateErrc>(error.code().value());
    const bool is_ours = is_state_category(error.code().category());
    const bool is_kept = is_ours && (code == otherwise || (keeps_codes && is_told_to_senders(code)));
    if (!is_kept) return HookFailure{otherwise, protocol::text_of(error)};
    return HookFailure{code, std::string(protocol::beginning_of(text_besides()))};
  };
  try {
    throw;
  } catch (const StateError& error) {
    return described(error, [&]() -> std::string_view { return error.detail(); });
  } catch (const std::system_error& error) {
    return described(error, [&] { return text_besides_code(error.what(), error.code().message()); });
  } catch (const std::exception& error) {
    return HookFailure{otherwise, protocol::text_of(error)};
  } catch (...) {
    return HookFailure{otherwise, "it threw something that is no std::exception"};
  }
}

}  // namespace syncstate::detail

#endif
