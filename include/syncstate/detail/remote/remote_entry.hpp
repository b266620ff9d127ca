// What a remote core keeps of each map, follower, event and request, over all links.
#ifndef SYNCSTATE_DETAIL_REMOTE_REMOTE_ENTRY_HPP
#define SYNCSTATE_DETAIL_REMOTE_REMOTE_ENTRY_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/detail/remote/remote_map.hpp"
#include "syncstate/detail/remote/remote_operation.hpp"
#include "syncstate/event.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// An event that was not answered yet, or the place of one that was answered before an earlier one.
struct RemoteEvent {
  std::shared_ptr<EventCall> call;  ///< null once it is answered
  TimePoint deadline;
  std::uint64_t number;        ///< 0 until it is first sent
  bool is_on_link = false;     ///< sent on the link of now; on the next one it is repeated
  bool is_first_time = false;  ///< sent on no link before that one
};

/// Why the server refuses a channel, and when it is asked again.
struct RemoteRefusal {
  std::error_code reason;
  std::string detail;
  TimePoint since{};
  TimePoint retry_at{};
};

/// Somebody who follows a map, on a channel of his own.
struct RemoteFollower {
  std::shared_ptr<DiffReceiver> receiver;
  protocol::ChannelId channel = 0;
  bool is_open = false;
  bool is_current = false;  ///< what the receiver has was the head, on the current channel
  Position head{};          ///< told last by the server on this channel, in the channel's epoch
  TimePoint head_told_at{};
  std::optional<RemoteRefusal> refusal{};  ///< of following; the map itself may be open all the same

  /// Notes that it has no channel on the link.
  void lose_channel() {
    channel = 0;
    is_open = is_current = false;
  }
};

struct RemoteEntry;

/// Something asked once: a diff (with a receiver), a head, an initial state (with a collector), or the list
/// of maps.
struct RemoteRequest {
  std::shared_ptr<Operation> done{};
  RemoteEntry* entry =
      nullptr;     ///< the map that a diff or a head is asked of: the request waits until it is open
  MapHash hash{};  ///< of the initial state
  std::shared_ptr<DiffReceiver> receiver{};
  UpdateId upto = 0;
  std::shared_ptr<Position> head{};
  std::shared_ptr<StateCollector> collector{};
  std::pair<std::string, std::string> types{};
  std::shared_ptr<std::vector<protocol::HostedMapInfo>> maps{};
  std::optional<TimePoint> give_up_at{};  ///< where no caller waits who would
};

/// A map that a remote opens on every link, and what waits for it.
///
/// Invariant: the events up to `sent_events` are on the link or answered, and the first of them is not answered.
struct RemoteEntry {
  MapIdentity identity;
  protocol::ChannelId channel = 0;  ///< 0 while it is not asked for on this link
  bool is_open = false;
  std::uint64_t sender = 0;        ///< 0: none yet
  Epoch sender_epoch = 0;          ///< the one in which `sender` was given
  std::uint64_t last_number = 0;   ///< of the events of `sender`
  bool is_sender_asked = false;    ///< on the channel of now
  bool has_sender = false;         ///< the channel of now has `sender`: events may be sent
  std::deque<RemoteEvent> events;  ///< those with a number first, in its order
  std::size_t sent_events = 0;     ///< how many of them are on the link: the first ones
  std::vector<std::shared_ptr<Operation>> openers;
  std::list<RemoteFollower> followers;   ///< a list: channels point at them
  std::list<RemoteRequest> waiting;      ///< for the map to be open
  std::size_t requests = 0;              ///< about it: those that wait, and those that were sent
  std::optional<RemoteRefusal> refusal;  ///< of the map
  bool is_watched = false;               ///< every tick looks at it
  bool is_in_backlog = false;            ///< has events that wait for room on the link

  /// True while a tick may find something to do here.
  [[nodiscard]] bool has_pending() const {
    return !events.empty() || !openers.empty() || !waiting.empty() || refusal ||
           std::any_of(followers.begin(), followers.end(),
                       [](const RemoteFollower& f) { return f.refusal.has_value(); });
  }

  /// The event on the link with this number; null if there is none that is not answered.
  /// Complexity: O(log(events)); constant for the first one.
  RemoteEvent* find_sent(std::uint64_t number) {
    if (sent_events == 0) return nullptr;
    if (events.front().number == number) return &events.front();
    const auto end_of_sent = events.begin() + static_cast<std::ptrdiff_t>(sent_events);
    const auto found = std::lower_bound(events.begin(), end_of_sent, number,
                                        [](const RemoteEvent& e, std::uint64_t n) { return e.number < n; });
    return found != end_of_sent && found->number == number && found->call ? &*found : nullptr;
  }

  /// Takes an event that `find_sent` found, for it is answered.
  /// Complexity: constant, over all events.
  std::shared_ptr<EventCall> take_sent(RemoteEvent& event) {
    auto call = std::move(event.call);
    while (sent_events != 0 && !events.front().call) {
      events.pop_front();
      --sent_events;
    }
    return call;
  }

  template <class F>
  void erase_events_if(F is_unwanted) {
    std::erase_if(events, [&](const RemoteEvent& e) { return !e.call || is_unwanted(e); });
    sent_events = static_cast<std::size_t>(
        std::count_if(events.begin(), events.end(), [](const RemoteEvent& e) { return e.is_on_link; }));
  }

  /// The map has no channel on the link any more, or none yet.
  void lose_channel() {
    channel = 0;
    is_open = is_sender_asked = has_sender = false;
  }

  /// The channel is lost: all of them wait for the next one.
  void take_events_back() {
    std::erase_if(events, [](const RemoteEvent& e) { return !e.call; });
    for (RemoteEvent& event : events) event.is_on_link = false;
    sent_events = 0;
  }
};

}  // namespace syncstate::detail

#endif
