// The peer of a link, as authorizers and hooks are told it.
#ifndef SYNCSTATE_PEER_HPP
#define SYNCSTATE_PEER_HPP

#include <cstddef>
#include <string>
#include <vector>

#include "syncstate/detail/requirements.hpp"

namespace syncstate {

/// The peer at the other end of a link, as far as the transport and the session know it.
struct Peer {
  std::string address{};              ///< numeric address without port; one string per host
  std::string certificate_subject{};  ///< of a verified client certificate, RFC 2253; empty without one
  /// The subject alternative names of a verified client certificate, in its order: "DNS:x", "IP:x", "URI:x" and
  /// "email:x", each with exactly the text that the certificate holds. Names of other kinds are left out.
  std::vector<std::string> certificate_names{};
  /// The serial number of a verified client certificate, as `openssl x509 -serial` prints it: "0123AB". It is unique for
  /// one issuer. Empty without a certificate.
  std::string certificate_serial{};
  /// Which of the server's current passwords the peer proved: an index into `current` of the last `set_passwords` before
  /// the proof, or of the passwords that the server was made with. It stays as it is when `set_passwords` is called again.
  std::size_t password_index = 0;
};

}  // namespace syncstate

#endif
