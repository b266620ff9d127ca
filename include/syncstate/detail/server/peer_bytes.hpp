// What a server holds of the certificate of a link's peer.
#ifndef SYNCSTATE_DETAIL_SERVER_PEER_BYTES_HPP
#define SYNCSTATE_DETAIL_SERVER_PEER_BYTES_HPP

#include <cstddef>
#include <string>

#include "syncstate/peer.hpp"

namespace syncstate::detail {

/// Returns the bytes that the texts of a peer's certificate take in memory, with what the allocator adds; 0 without one.
///
/// `ServerLink` charges them to its link's account, and batches of events count them, which keep a peer when its link is
/// gone.
/// Complexity: O(names).
[[nodiscard]] inline std::size_t certificate_bytes(const Peer& peer) {
  constexpr std::size_t block_bytes = 16;
  const auto bytes_of = [](const std::string& text) {
    return text.capacity() > std::string().capacity() ? text.capacity() + block_bytes : 0;
  };
  std::size_t bytes = bytes_of(peer.certificate_subject) + bytes_of(peer.certificate_serial);
  if (!peer.certificate_names.empty())
    bytes += peer.certificate_names.capacity() * sizeof(std::string) + block_bytes;
  for (const std::string& name : peer.certificate_names) bytes += bytes_of(name);
  return bytes;
}

}  // namespace syncstate::detail

#endif
