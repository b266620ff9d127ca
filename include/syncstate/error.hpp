// What can go wrong, by name: the error enumeration, its category and the exception that carries it.
#ifndef SYNCSTATE_ERROR_HPP
#define SYNCSTATE_ERROR_HPP

#include <cstring>
#include <string>
#include <system_error>
#include <type_traits>

#include "syncstate/detail/requirements.hpp"
#include "syncstate/detail/visibility.hpp"

namespace syncstate {

/// Every error of this library. The numbers travel between peers: append, never renumber.
enum class StateErrc {
  frozen = 1,
  unfrozen = 2,
  key_not_found = 3,
  duplicate_key = 4,
  wrong_position = 5,
  wrong_epoch = 6,
  epoch_changed = 7,
  in_transaction = 8,
  unauthorized = 9,
  forbidden = 10,
  unavailable = 11,
  outcome_unknown = 12,
  stopped = 13,
  busy = 14,
  hash_mismatch = 15,
  type_mismatch = 16,
  hook_failed = 17,
  init_failed = 18,
  already_hosted = 19,
  too_large = 20,
  would_deadlock = 21,
  decode_error = 22,
  protocol_error = 23,
  version_mismatch = 24,
  not_hosted = 25,
  peer_silent = 26,
  certificate_rejected = 27,
  tls_failed = 28,
  invalid_option = 29,
  already_started = 30,
  link_closed = 31,
  not_encodable = 32,
};

namespace detail {

class SYNCSTATE_VISIBLE StateCategory final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "syncstate"; }

  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<StateErrc>(value)) {  // no default: -Wswitch names the one we forgot
      case StateErrc::frozen:
        return "this map can't be changed here: its keys are fixed by freeze(), its values by the master";
      case StateErrc::unfrozen: return "the key set is still open: call freeze() first";
      case StateErrc::key_not_found: return "no such key; the key set was fixed by freeze()";
      case StateErrc::duplicate_key: return "this key was pushed already";
      case StateErrc::wrong_position: return "the diff does not start at or before this position";
      case StateErrc::wrong_epoch: return "the diff is of another life of the master";
      case StateErrc::epoch_changed: return "the master was restarted: its history is another one";
      case StateErrc::in_transaction: return "not possible inside a hook: the map is an open transaction";
      case StateErrc::unauthorized: return "the passwords of the two sides differ";
      case StateErrc::forbidden: return "the server does not allow this";
      case StateErrc::unavailable: return "no server was reached, or none answered, in time";
      case StateErrc::outcome_unknown: return "no answer came; it may have run";
      case StateErrc::stopped: return "stopped";
      case StateErrc::busy: return "a limit of the server is reached: try again later";
      case StateErrc::hash_mismatch:
        return "the server hosts a map with these keys, but another initial state";
      case StateErrc::type_mismatch: return "the types of the two sides differ";
      case StateErrc::hook_failed: return "a hook threw: nothing of this event was kept";
      case StateErrc::init_failed: return "an init hook threw: the map is not hosted";
      case StateErrc::already_hosted: return "a map with this hash is hosted already";
      case StateErrc::too_large: return "larger than the limit";
      case StateErrc::would_deadlock: return "a blocking call from a thread that it would wait for";
      case StateErrc::decode_error: return "the bytes are not an encoding of this type";
      case StateErrc::protocol_error: return "the peer broke the protocol";
      case StateErrc::version_mismatch: return "the peer speaks no version of the protocol that we do";
      case StateErrc::not_hosted: return "the server does not host this map";
      case StateErrc::peer_silent: return "nothing came from the peer for too long";
      case StateErrc::certificate_rejected: return "the certificate does not hold";
      case StateErrc::tls_failed: return "TLS failed";
      case StateErrc::invalid_option: return "an option has an unusable value";
      case StateErrc::already_started: return "not possible after start()";
      case StateErrc::link_closed: return "the link was closed";
      case StateErrc::not_encodable: return "this value has no encoding";
    }
    return "unknown syncstate error";
  }
};

}  // namespace detail

/// The category of `StateErrc`; its name is "syncstate".
///
/// A shared library may have an object of its own for it, so compare by `is_state_category`, or compare an error code
/// with a `StateErrc`: both compare names.
SYNCSTATE_VISIBLE inline const std::error_category& state_category() noexcept {
  static const detail::StateCategory category;
  return category;
}

/// Returns true for the category of `StateErrc`, also for that of another shared library in this process.
[[nodiscard]] inline bool is_state_category(const std::error_category& category) noexcept {
  const std::error_category& ours = state_category();
  return &category == &ours || std::strcmp(category.name(), ours.name()) == 0;
}

inline std::error_code make_error_code(StateErrc code) noexcept {
  return {static_cast<int>(code), state_category()};
}

/// Returns true if `code` is this error, whichever shared library it comes from.
[[nodiscard]] inline bool operator==(const std::error_code& code, StateErrc error) noexcept {
  return code.value() == static_cast<int>(error) && is_state_category(code.category());
}

/// What blocking calls throw: a named code, and a detail a person can act on.
class SYNCSTATE_VISIBLE StateError : public std::system_error {
 public:
  explicit StateError(StateErrc code) : std::system_error(make_error_code(code)) {}
  StateError(StateErrc code, const std::string& detail) : StateError(make_error_code(code), detail) {}
  explicit StateError(std::error_code code) : std::system_error(code) {}
  StateError(std::error_code code, const std::string& detail)
      : std::system_error(detail.empty() ? std::system_error(code) : std::system_error(code, detail)),
        detail_(detail) {}

  /// What was said besides the code; may be empty.
  [[nodiscard]] const std::string& detail() const noexcept { return detail_; }

 private:
  std::string detail_;
};

}  // namespace syncstate

template <>
struct std::is_error_code_enum<syncstate::StateErrc> : std::true_type {};

#endif
