// What either side demands of the other's certificate, on every link, whoever made the SSL_CTX.
#ifndef SYNCSTATE_TCP_CERTIFICATE_RULES_HPP
#define SYNCSTATE_TCP_CERTIFICATE_RULES_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "syncstate/detail/visibility.hpp"
#include "syncstate/error.hpp"
#include "syncstate/peer.hpp"
#include "syncstate/tcp/peer_certificate.hpp"
#include "syncstate/tcp/server_name.hpp"
#include "syncstate/tcp/tls_error.hpp"

namespace syncstate::tcp::detail {

/// Who shows the certificate that is checked.
enum class Shower { server, client };

/// What the check of one link's peer needs besides OpenSSL's own state, and what it found.
struct PeerCheck {
  Shower shower;
  SSL_verify_cb next;  ///< the callback of the user's context, or null; it has the last word
  std::string fault;   ///< why the certificate was refused, where OpenSSL's own words do not tell enough
};

SYNCSTATE_VISIBLE inline int peer_check_index() {
  static const int index = SSL_get_ex_new_index(
      0, nullptr, nullptr, nullptr, [](void*, void* peer_check, CRYPTO_EX_DATA*, int, long, void*) {
        delete static_cast<PeerCheck*>(peer_check);
      });
  return index;
}

/// Whether a certificate has a subject alternative name that can be a host.
inline bool names_a_host(const X509* certificate) {
  struct FreeNames {
    void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
  };
  const std::unique_ptr<GENERAL_NAMES, FreeNames> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const int type = sk_GENERAL_NAME_value(names.get(), i)->type;
    if (type == GEN_DNS || type == GEN_IPADD) return true;
  }
  return false;
}

/// Whether a certificate holds the v4 address that is expected in its form as a v6 address (`::ffff:127.0.0.1`).
inline bool names_mapped_address(X509* certificate, X509_VERIFY_PARAM* expected) {
  struct FreeText {
    void operator()(char* text) const { OPENSSL_free(text); }
  };
  const std::unique_ptr<char, FreeText> text(X509_VERIFY_PARAM_get1_ip_asc(expected));
  in_addr v4{};
  if (!text || ::inet_pton(AF_INET, text.get(), &v4) != 1) return false;
  std::array<unsigned char, 16> mapped{};
  mapped[10] = mapped[11] = 0xff;
  std::memcpy(mapped.data() + 12, &v4, sizeof v4);
  return X509_check_ip(certificate, mapped.data(), mapped.size(), 0) == 1;
}

/// Whether a certificate's extended key usage, if it has one, includes what `shower` needs. OpenSSL's own check
/// of the purpose also accepts the usages of "server gated cryptography", which are no serverAuth.
inline bool allows(X509* certificate, Shower shower) {
  const std::uint32_t needed = shower == Shower::server ? XKU_SSL_SERVER : XKU_SSL_CLIENT;
  return (X509_get_extended_key_usage(certificate) & needed) != 0;  // all bits are set where there is none
}

/// Says why the certificate of a client can't be described to an authorizer; empty if it can. Never throws.
inline std::string description_fault(const X509& certificate) noexcept {
  try {
    Peer peer;
    describe_certificate(certificate, peer);
    return {};
  } catch (const StateError& error) {
    return error.detail();
  } catch (...) {
    return "no memory";
  }
}

/// The verify callback of all links: OpenSSL calls it for every error, and for every certificate that is good.
inline int check_peer_certificate(int is_good, X509_STORE_CTX* checked) {
  SSL* const ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(checked, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* const peer_check = static_cast<PeerCheck*>(SSL_get_ex_data(ssl, peer_check_index()));
  // The one that is checked: the peer's own at depth 0, where it is trusted itself the copy that is.
  X509* const certificate = X509_STORE_CTX_get_current_cert(checked);
  const bool is_leaf = X509_STORE_CTX_get_error_depth(checked) == 0 && certificate != nullptr;
  if (is_leaf && is_good == 0 && X509_STORE_CTX_get_error(checked) == X509_V_ERR_IP_ADDRESS_MISMATCH &&
      names_mapped_address(certificate, SSL_get0_param(ssl))) {
    X509_STORE_CTX_set_error(checked, X509_V_OK);
    is_good = 1;
  }
  if (is_leaf && is_good == 1 && !allows(certificate, peer_check->shower)) {
    X509_STORE_CTX_set_error(checked, X509_V_ERR_INVALID_PURPOSE);
    is_good = 0;
  }
  std::string excess;
  if (is_leaf && is_good == 1 && peer_check->shower == Shower::client) {
    excess = description_fault(*certificate);
    if (!excess.empty()) {
      X509_STORE_CTX_set_error(checked, X509_V_ERR_INVALID_EXTENSION);
      is_good = 0;
    }
  }
  if (is_good == 0) {
    const int error = X509_STORE_CTX_get_error(checked);
    const bool is_about_name =
        error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH;
    peer_check->fault.clear();
    if (is_about_name && is_leaf && !names_a_host(certificate)) {
      peer_check->fault = "it has no subject alternative name, and the common name does not count";
    } else if (error == X509_V_ERR_INVALID_PURPOSE && is_leaf && !allows(certificate, peer_check->shower)) {
      peer_check->fault = peer_check->shower == Shower::server
                              ? "its extended key usage does not include serverAuth"
                              : "its extended key usage does not include clientAuth";
    } else if (!excess.empty()) {
      peer_check->fault = std::move(excess);
    }
  }
  return peer_check->next != nullptr ? peer_check->next(is_good, checked) : is_good;
}

/// Has the certificate that the peer shows checked for what `shower` needs, in addition to its chain.
/// Set on the link and not on its context, so that a context of the user's own cannot weaken it; a verify
/// callback set in that context still decides last.
inline void check_peer(SSL* ssl, Shower shower, int mode) {
  const bool is_server = shower == Shower::server;
  auto peer_check = std::make_unique<PeerCheck>(PeerCheck{shower, SSL_get_verify_callback(ssl), {}});
  if (SSL_set_purpose(ssl, is_server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT) != 1 ||
      SSL_set_trust(ssl, is_server ? X509_TRUST_SSL_SERVER : X509_TRUST_SSL_CLIENT) != 1 ||
      SSL_set_ex_data(ssl, peer_check_index(), peer_check.get()) != 1) {
    throw StateError(StateErrc::tls_failed, "checks of the peer's certificate: " + take_openssl_message());
  }
  (void)peer_check.release();  // freed with `ssl`
  SSL_set_verify(ssl, mode, check_peer_certificate);
}

/// Sets the host name that a client sends (SNI); null sends none. Returns false if memory does not suffice. The macro
/// of OpenSSL that does this contains a cast that compilers warn about.
inline bool ask_for_name(SSL* ssl, const char* name) {
  return SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name)) == 1;
}

/// Has a client accept only a server whose certificate names `name` in its subject alternative name, and ask for
/// it by that name if it is a DNS name.
inline void expect_server(SSL* ssl, const ServerName& name) {
  X509_VERIFY_PARAM* const verify = SSL_get0_param(ssl);
  // All three are set, to nothing where they do not apply: a context of the user's own may expect something else.
  const auto* address = reinterpret_cast<const unsigned char*>(name.address_bytes.data());
  const bool is_set =
      name.is_address()
          ? X509_VERIFY_PARAM_set1_ip(verify, address, name.address_bytes.size()) == 1 &&
                X509_VERIFY_PARAM_set1_host(verify, nullptr, 0) == 1 && ask_for_name(ssl, nullptr)
          : X509_VERIFY_PARAM_set1_ip(verify, nullptr, 0) == 1 &&
                X509_VERIFY_PARAM_set1_host(verify, name.text.data(), name.text.size()) == 1 &&
                ask_for_name(ssl, name.text.c_str());
  if (!is_set) {
    throw StateError(StateErrc::tls_failed,
                     "expecting the name " + quoted_text(name.text) + ": " + take_openssl_message());
  }
  X509_VERIFY_PARAM_set_hostflags(verify,
                                  X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  check_peer(ssl, Shower::server, SSL_VERIFY_PEER);
}

/// What is wrong with the peer's certificate, for an error's detail.
inline std::string certificate_fault(const SSL* ssl, std::string_view expected_name) {
  const long error = SSL_get_verify_result(ssl);
  std::string text = X509_verify_cert_error_string(error);
  if (error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH) {
    text += ", expected '" + std::string(expected_name) + "'";
  } else if (error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT ||
             error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN ||
             error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY) {
    text += ", and none of those that are trusted here";
  }
  const auto* peer_check = static_cast<const PeerCheck*>(SSL_get_ex_data(ssl, peer_check_index()));
  if (peer_check != nullptr && !peer_check->fault.empty()) text += ": " + peer_check->fault;
  return text;
}

}  // namespace syncstate::tcp::detail

#endif
