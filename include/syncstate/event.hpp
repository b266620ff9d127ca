// An event: a user's message to the master, the only way in for clients.
#ifndef SYNCSTATE_EVENT_HPP
#define SYNCSTATE_EVENT_HPP

#include <string>

#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"

namespace syncstate {

/// An event as it travels: bytes, and the name of the type they encode.
struct SerializedEvent {
  std::string type_name;
  Bytes bytes;

  friend bool operator==(const SerializedEvent&, const SerializedEvent&) = default;
};

/// A message of the user's type `E`, often a variant of everything that may be asked for.
///
/// ```cpp
/// remote->send_event(map.hash(), ss::Event<MyEvent>{ChangeValue{"1", "Updated"}});
/// ```
template <class E>
struct Event {
  E content;

  [[nodiscard]] Bytes serialize() const {
    Bytes bytes;
    bytes.reserve(64);  // many take no more: one allocation
    encode_whole(content, bytes);
    return bytes;
  }

  /// Errors: `decode_error`.
  [[nodiscard]] static Event deserialize(ByteView bytes) { return Event{decode_whole<E>(bytes)}; }
};

/// What `send_event` sends.
template <class E>
[[nodiscard]] SerializedEvent serialize_event(const Event<E>& event) {
  static const std::string type = type_name<E>();
  return SerializedEvent{type, event.serialize()};
}

}  // namespace syncstate

#endif
