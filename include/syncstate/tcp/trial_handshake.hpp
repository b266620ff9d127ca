// A handshake in memory that tells, before anybody connects, whether a certificate can be used.
#ifndef SYNCSTATE_TCP_TRIAL_HANDSHAKE_HPP
#define SYNCSTATE_TCP_TRIAL_HANDSHAKE_HPP

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <array>
#include <cstddef>
#include <ctime>
#include <memory>
#include <new>
#include <string>

#include "syncstate/error.hpp"
#include "syncstate/tcp/certificate_rules.hpp"
#include "syncstate/tcp/tls_algorithms.hpp"
#include "syncstate/tcp/tls_context.hpp"
#include "syncstate/tcp/tls_error.hpp"

namespace syncstate::tcp::detail {

/// What the other side of a trial says of the certificate that it was shown; empty: it is good.
struct TrialVerdict {
  Shower shower;
  std::string fault;
};

/// `2026-11-28 15:00:00 UTC`
inline std::string text_of_time(const std::tm& time) {
  std::array<char, 64> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%F %T UTC", &time)};
}

/// When a certificate is good for, and what this machine's clock says.
inline std::string text_of_validity(const X509* certificate) {
  std::tm from{};
  std::tm to{};
  std::tm now{};
  const std::time_t seconds = std::time(nullptr);
  if (ASN1_TIME_to_tm(X509_get0_notBefore(certificate), &from) != 1 ||
      ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &to) != 1 || ::gmtime_r(&seconds, &now) == nullptr) {
    return "its times can't be read";
  }
  return "it is valid from " + text_of_time(from) + " to " + text_of_time(to) + ", and the clock here says " +
         text_of_time(now);
}

/// "EC secp224r1", "RSA of 1024 bits", ...
inline std::string text_of_key(const X509* certificate) {
  const EVP_PKEY* key = X509_get0_pubkey(certificate);
  if (key == nullptr) return "of an unknown kind";
  const char* type = EVP_PKEY_get0_type_name(key);
  std::array<char, 64> group{};
  const bool has_group = EVP_PKEY_get_group_name(key, group.data(), group.size(), nullptr) == 1;
  ERR_clear_error();
  if (has_group && group[0] != '\0') return std::string(type) + " " + group.data();
  return std::string(type) + " of " + std::to_string(EVP_PKEY_get_bits(key)) + " bits";
}

/// Verifies the certificate that was shown as if it were trusted itself: its times, its purpose, the strength of
/// its key, but not who issued it.
inline int verify_alone(X509_STORE_CTX* checked, void* verdict) {
  X509* const certificate = X509_STORE_CTX_get0_cert(checked);
  const std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> trusted(
      sk_X509_new_null(), [](STACK_OF(X509) * stack) { sk_X509_free(stack); });
  if (!trusted || sk_X509_push(trusted.get(), certificate) == 0) return 0;
  X509_STORE_CTX_set0_trusted_stack(checked, trusted.get());
  X509_STORE_CTX_set_flags(checked, X509_V_FLAG_PARTIAL_CHAIN);
  const int result = X509_verify_cert(checked);
  if (result == 1) return 1;

  auto& [shower, fault] = *static_cast<TrialVerdict*>(verdict);
  const int error = X509_STORE_CTX_get_error(checked);
  const bool is_server = shower == Shower::server;
  fault = X509_verify_cert_error_string(error);
  if (error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID) {
    fault += ": " + text_of_validity(certificate);
  } else if (error == X509_V_ERR_INVALID_PURPOSE) {
    fault += !allows(certificate, shower) ? std::string(": its extended key usage does not include ") +
                                                (is_server ? "serverAuth" : "clientAuth")
                                          : std::string(": its key usage does not include digitalSignature");
  } else if (error == X509_V_ERR_EE_KEY_TOO_SMALL || error == X509_V_ERR_CA_KEY_TOO_SMALL) {
    fault += ": its key is " + text_of_key(certificate);
  } else if (const std::string excess = is_server ? "" : description_fault(*certificate); !excess.empty()) {
    fault += ": " + excess;
  }
  return result;
}

/// Two ends of a handshake over memory.
class TrialHandshake {
 public:
  TrialHandshake(SslPtr server, SslPtr client) : server_(std::move(server)), client_(std::move(client)) {
    BIO* one = nullptr;
    BIO* other = nullptr;
    if (!server_ || !client_ || BIO_new_bio_pair(&one, 0, &other, 0) != 1) throw std::bad_alloc();
    SSL_set_bio(server_.get(), one, one);
    SSL_set_bio(client_.get(), other, other);
  }

  /// Runs it to its end; false if it failed, or waits for something other than the other side.
  bool run() {
    // A flight of one side may need many turns where it holds a long chain; a few kilobytes travel in each.
    constexpr int most_turns = 10'000;
    for (int turn = 0; turn < most_turns; ++turn) {
      const Progress client = advance(client_.get());
      const Progress server = advance(server_.get());
      if (client == Progress::failed || server == Progress::failed) return false;
      if (client == Progress::done && server == Progress::done) return true;
    }
    return false;
  }

  /// OpenSSL's first reason, of the side that found it; 0: none was given.
  [[nodiscard]] unsigned long error() const { return error_; }

 private:
  enum class Progress { waits, done, failed };

  Progress advance(SSL* ssl) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl);
    if (result == 1) return Progress::done;
    const int why = SSL_get_error(ssl, result);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return Progress::waits;
    error_ = take_openssl_error();
    return Progress::failed;
  }

  SslPtr server_;
  SslPtr client_;
  unsigned long error_ = 0;
};

/// The other side of a trial: a context that shows nothing yet, and as strict as the tried one.
inline std::shared_ptr<SSL_CTX> make_trial_context(const TlsContext& tried, const SSL_METHOD* method,
                                                   TrialVerdict& verdict) {
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(method), SSL_CTX_free);
  if (!context) throw std::bad_alloc();
  SSL_CTX_set_security_level(context.get(), SSL_CTX_get_security_level(tried.native()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_num_tickets(context.get(), 0);
  use_algorithms(context.get(), tried.algorithms());
  SSL_CTX_set_cert_verify_callback(context.get(), verify_alone, &verdict);
  return context;
}

/// A certificate for the server of a trial, made on the spot.
inline void use_fresh_certificate(SSL_CTX* context) {
  const PrivateKeyPtr key(EVP_EC_gen("P-256"));
  const X509Ptr certificate(X509_new());
  const bool is_made = key && certificate && X509_set_version(certificate.get(), X509_VERSION_3) == 1 &&
                       X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0) != nullptr &&
                       X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3'600) != nullptr &&
                       X509_set_pubkey(certificate.get(), key.get()) == 1 &&
                       X509_sign(certificate.get(), key.get(), EVP_sha256()) > 0 &&
                       SSL_CTX_use_certificate(context, certificate.get()) == 1 &&
                       SSL_CTX_use_PrivateKey(context, key.get()) == 1;
  if (!is_made)
    throw StateError(StateErrc::tls_failed, "a certificate for a trial: " + take_openssl_message());
}

/// Throws what a trial that failed has to say.
inline void report_trial(const TlsContext& tried, const TrialHandshake& trial, const TrialVerdict& verdict) {
  const std::string who = verdict.shower == Shower::server ? "clients" : "servers";
  const auto refuse = [&](const std::string& why) {
    throw StateError(StateErrc::invalid_option, tried.certificate_name() + ": " + why);
  };
  if (!verdict.fault.empty()) refuse(who + " would refuse it: " + verdict.fault);
  const unsigned long error = trial.error();
  const int reason = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
  switch (reason) {
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_UNSUPPORTED_PROTOCOL:  // for want of a key that TLS 1.3 knows, the server offers none
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: {  // for the same reason a client shows none
      const X509* certificate = SSL_CTX_get0_certificate(tried.native());
      const std::string key =
          certificate == nullptr ? "there is none" : "its key is " + text_of_key(certificate);
      return refuse("no TLS 1.3 handshake can use it: " + key +
                    "; use an EC key on P-256, P-384 or P-521, an Ed25519 key, or RSA of 2048 bits or more");
    }
    case SSL_R_CALLBACK_FAILED:
    case SSL_R_CERT_CB_ERROR:
      // A callback of the user's own context may want to see a name or state that a trial does not have.
      if (tried.is_users_context()) return;
      break;
    default: break;
  }
  // What waits for something outside, as a callback of the user's own context may, has no error.
  if (error == 0 && tried.is_users_context()) return;
  refuse("a TLS 1.3 handshake with it fails: " + openssl_message(error));
}

/// Why none of the certificates that clients are verified by can vouch for a client; empty if one can.
inline std::string fault_of_authorities(SSL_CTX* context) {
  const std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> authorities(
      X509_STORE_get1_all_certs(SSL_CTX_get_cert_store(context)),
      [](STACK_OF(X509) * stack) { sk_X509_pop_free(stack, X509_free); });
  if (!authorities) throw std::bad_alloc();
  std::string fault;
  for (int i = 0; i < sk_X509_num(authorities.get()); ++i) {
    X509* const authority = sk_X509_value(authorities.get(), i);
    const std::unique_ptr<X509_STORE_CTX, void (*)(X509_STORE_CTX*)> verification(X509_STORE_CTX_new(),
                                                                                  X509_STORE_CTX_free);
    if (!verification ||
        X509_STORE_CTX_init(verification.get(), SSL_CTX_get_cert_store(context), authority, nullptr) != 1) {
      throw std::bad_alloc();
    }
    X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(verification.get()),
                                     SSL_CTX_get_security_level(context));
    // Trusted itself, it is checked for its times and the strength of its key.
    const bool is_strong = X509_verify_cert(verification.get()) == 1;
    // As an authority, or as the certificate that a client shows.
    const bool is_for_clients = X509_check_purpose(authority, X509_PURPOSE_SSL_CLIENT, 1) == 1 ||
                                X509_check_purpose(authority, X509_PURPOSE_SSL_CLIENT, 0) == 1;
    if (is_strong && is_for_clients) return {};
    fault = is_strong ? "it is for other purposes than to vouch for clients"
                      : X509_verify_cert_error_string(X509_STORE_CTX_get_error(verification.get()));
    const int error = X509_STORE_CTX_get_error(verification.get());
    if (error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID) {
      fault += ": " + text_of_validity(authority);
    }
  }
  ERR_clear_error();
  return fault;
}

/// Tries a handshake with a client of ours that trusts the server's very certificate.
///
/// Tells what no client could connect to: a key that fits no signature algorithm of TLS 1.3, an extended key usage
/// without serverAuth, a key that is too weak, a certificate that is expired or not yet valid. The names in it are
/// not looked at: what clients call this server is up to them.
/// Errors    : StateErrc::invalid_option with the certificate's file, and what is wrong with it; also where clients
///             must show certificates and no authority can vouch for any.
/// Complexity: one TLS handshake, about a millisecond with ECDSA.
inline void try_server(const TlsContext& tried) {
  if (tried.requires_client_certificates() && !tried.is_users_context()) {
    const std::string fault = fault_of_authorities(tried.native());
    if (!fault.empty()) {
      throw StateError(StateErrc::invalid_option,
                       tried.authority_name() + ": no client can be verified by it: " + fault);
    }
  }
  TrialVerdict verdict{Shower::server, {}};
  const std::shared_ptr<SSL_CTX> context = make_trial_context(tried, TLS_client_method(), verdict);
  SslPtr client(SSL_new(context.get()));
  if (!client) throw std::bad_alloc();
  check_peer(client.get(), Shower::server, SSL_VERIFY_PEER);
  SSL_set_connect_state(client.get());
  SslPtr server = tried.make_server_ssl();
  SSL_set_verify(server.get(), SSL_VERIFY_NONE, nullptr);  // this client has no certificate to show
  TrialHandshake trial(std::move(server), std::move(client));
  if (!trial.run()) report_trial(tried, trial, verdict);
}

/// Tries a handshake with a server of ours that asks for a certificate, if the client has one to show.
/// Errors    : StateErrc::invalid_option with the certificate's file, and what is wrong with it.
/// Complexity: as `try_server`.
inline void try_client(const TlsContext& tried) {
  if (SSL_CTX_get0_certificate(tried.native()) == nullptr) return;
  TrialVerdict verdict{Shower::client, {}};
  const std::shared_ptr<SSL_CTX> context = make_trial_context(tried, TLS_server_method(), verdict);
  use_fresh_certificate(context.get());
  SslPtr server(SSL_new(context.get()));
  if (!server) throw std::bad_alloc();
  check_peer(server.get(), Shower::client, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
  SSL_set_accept_state(server.get());
  SslPtr client = tried.make_client_ssl("localhost");
  SSL_set_verify(client.get(), SSL_VERIFY_NONE, nullptr);  // the server's certificate is nobody's
  TrialHandshake trial(std::move(server), std::move(client));
  if (!trial.run()) report_trial(tried, trial, verdict);
}

}  // namespace syncstate::tcp::detail

#endif
