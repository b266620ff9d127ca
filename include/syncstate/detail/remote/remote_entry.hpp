// What a remote core keeps of each map, follower, event and request, over all links.
#ifndef SYNCSTATE_DETAIL_REMOTE_REMOTE_ENTRY_HPP
#define SYNCSTATE_DETAIL_REMOTE_REMOTE_ENTRY_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
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

/// An event that was not answered yet.
struct RemoteEvent {
  std::shared_ptr<EventCall> call;
  TimePoint deadline;
  std::uint64_t number;     ///< 0 until it is first sent
  bool is_on_link = false;  ///< sent on the link of now; on the next one it is repeated
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
  std::optional<RemoteRefusal> refusal{};  ///< of following; the map itself may be open all the same
};

/// A map that a remote opens on every link, and what waits for it.
struct RemoteEntry {
  MapIdentity identity;
  protocol::ChannelId channel = 0;  ///< 0 while it is not asked for on this link
  bool is_open = false;
  std::uint64_t sender = 0;
  Epoch sender_epoch = 0;
  std::uint64_t last_number = 0;
  std::deque<RemoteEvent> events;  ///< those with a number first, in its order
  std::size_t sent_events = 0;     ///< how many of them are on the link: the first ones
  std::vector<std::shared_ptr<Operation>> openers;
  std::vector<RemoteFollower> followers;
  std::optional<RemoteRefusal> refusal;  ///< of the map

  template <class F>
  void erase_events_if(F is_unwanted) {
    std::erase_if(events, is_unwanted);
    sent_events = static_cast<std::size_t>(
        std::count_if(events.begin(), events.end(), [](const RemoteEvent& e) { return e.is_on_link; }));
  }

  /// The link is lost: all of them wait for the next one.
  void take_events_back() {
    for (RemoteEvent& event : events) event.is_on_link = false;
    sent_events = 0;
  }
};

/// Something asked once: a diff (with a receiver), a head, an initial state (with a collector), or the list
/// of maps.
struct RemoteRequest {
  std::shared_ptr<Operation> done{};
  MapHash hash{};
  std::shared_ptr<DiffReceiver> receiver{};
  UpdateId upto = 0;
  std::shared_ptr<Position> head{};
  std::shared_ptr<StateCollector> collector{};
  std::pair<std::string, std::string> types{};
  std::shared_ptr<std::vector<protocol::HostedMapInfo>> maps{};
  protocol::ChannelId id = 0;  ///< 0 while it is not asked on this link

  /// What concerns one map waits until that is open.
  [[nodiscard]] bool needs_open_map() const { return receiver || head; }
};

}  // namespace syncstate::detail

#endif
