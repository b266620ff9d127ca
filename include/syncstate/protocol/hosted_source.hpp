// What a server session needs to list the hosted maps.
#ifndef SYNCSTATE_PROTOCOL_HOSTED_SOURCE_HPP
#define SYNCSTATE_PROTOCOL_HOSTED_SOURCE_HPP

#include <optional>

#include "syncstate/bytes.hpp"
#include "syncstate/map_hash.hpp"

namespace syncstate::protocol {

/// The maps that a server hosts, as one client may see them. The role implements it; a session pulls from it.
class HostedSource {
 public:
  HostedSource() = default;
  HostedSource(const HostedSource&) = delete;
  HostedSource& operator=(const HostedSource&) = delete;
  virtual ~HostedSource() = default;

  /// Appends some of the maps behind `after`, in the order of their hashes, each as a `HostedMapInfo`.
  ///
  /// Returns the last one that it looked at, to go on from; nothing when it looked at the last of all.
  /// Complexity: O(1): it looks at a bounded number of maps at a time.
  virtual std::optional<MapHash> encode_hosted(const std::optional<MapHash>& after, Bytes& out) = 0;
};

}  // namespace syncstate::protocol

#endif
