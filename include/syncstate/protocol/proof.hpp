// How each side proves that it knows the password, without sending it.
#ifndef SYNCSTATE_PROTOCOL_PROOF_HPP
#define SYNCSTATE_PROTOCOL_PROOF_HPP

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <string>
#include <string_view>

#include "syncstate/bytes.hpp"
#include "syncstate/error.hpp"
#include "syncstate/protocol/messages.hpp"

namespace syncstate::protocol {

/// Who proves: the role is part of what is signed, so a proof can't be sent back to its maker.
enum class ProofRole { client, server };

/// HMAC-SHA256(password, "client" or "server", channel binding).
///
/// The binding is fresh on every channel and equal at its two ends (RFC 9266), so a proof can be neither
/// replayed on another channel nor relayed through one.
inline Proof make_proof(std::string_view password, ProofRole role, ByteView channel_binding) {
  Bytes text;
  ByteWriter writer(text);
  writer.put(role == ProofRole::client ? std::string_view("client") : std::string_view("server"));
  writer.put(channel_binding);
  Proof proof{};
  unsigned int size = 0;
  // OpenSSL takes an int for the key's length; a null key with length 0 would mean "the key of last time".
  static constexpr char no_password = 0;
  const void* key = password.empty() ? static_cast<const void*>(&no_password) : password.data();
  if (HMAC(EVP_sha256(), key, static_cast<int>(password.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(),
           reinterpret_cast<unsigned char*>(proof.data()), &size) == nullptr ||
      size != proof.size()) {
    throw StateError(StateErrc::tls_failed, "HMAC-SHA256 failed");
  }
  return proof;
}

/// Compares in constant time.
inline bool proofs_equal(const Proof& a, const Proof& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

/// Overwrites a secret before its memory is given back; also what is left of one in a string that was moved from.
inline void wipe(std::string& secret) {
  secret.resize(secret.capacity());
  OPENSSL_cleanse(secret.data(), secret.size());
  secret.clear();
}

}  // namespace syncstate::protocol

#endif
