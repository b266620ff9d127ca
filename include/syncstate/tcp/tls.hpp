// Which certificates a server shows and a client trusts: cheap descriptions, read when the server or remote
// is made.
#ifndef SYNCSTATE_TCP_TLS_HPP
#define SYNCSTATE_TCP_TLS_HPP

#include "syncstate/detail/requirements.hpp"

#include <openssl/crypto.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "syncstate/error.hpp"
#include "syncstate/tcp/tls_algorithms.hpp"

namespace syncstate::tcp {

namespace detail {

/// PEM text, or the name of the file it is in. Private keys are wiped when the last copy goes.
class PemSource {
 public:
  static PemSource file(std::string name) { return PemSource(true, std::move(name)); }
  static PemSource text(std::string_view pem) { return PemSource(false, std::string(pem)); }

  PemSource() = default;
  [[nodiscard]] bool is_set() const { return text_ != nullptr; }
  [[nodiscard]] bool is_file() const { return is_file_; }
  /// The file's name or the PEM text.
  [[nodiscard]] const std::string& value() const { return *text_; }

 private:
  struct Wipe {
    void operator()(std::string* text) const {
      OPENSSL_cleanse(text->data(), text->size());
      delete text;
    }
  };
  PemSource(bool is_file, std::string text)
      : is_file_(is_file), text_(new std::string(std::move(text)), Wipe{}) {}

  bool is_file_ = false;
  std::shared_ptr<std::string> text_;
};

/// Shares a context that the user made.
inline std::shared_ptr<SSL_CTX> share_context(SSL_CTX* context) {
  if (context == nullptr) throw StateError(StateErrc::invalid_option, "from_context: the SSL_CTX is null");
  SSL_CTX_up_ref(context);
  return {context, SSL_CTX_free};
}

}  // namespace detail

class TlsContext;

/// A server's certificate and key, and whether clients must show one too.
///
/// A value; nothing is read before the server starts, which throws StateErrc::invalid_option with the file's
/// name and the reason if a certificate or key is missing or unusable.
class ServerTls {
 public:
  /// Nothing: `start` refuses it.
  ServerTls() = default;

  /// PEM files: the certificate, followed by its chain if it has one, and its unencrypted private key.
  static ServerTls from_files(std::string certificate_file, std::string key_file) {
    ServerTls tls;
    tls.certificate_ = detail::PemSource::file(std::move(certificate_file));
    tls.key_ = detail::PemSource::file(std::move(key_file));
    return tls;
  }

  /// The same as text.
  static ServerTls from_pem(std::string_view certificate_pem, std::string_view key_pem) {
    ServerTls tls;
    tls.certificate_ = detail::PemSource::text(certificate_pem);
    tls.key_ = detail::PemSource::text(key_pem);
    return tls;
  }

  /// A context of the user's own, shared. TLS 1.3 without resumption is enforced on every link all the same, and so are
  /// the groups and cipher suites below: those set in the context have no effect.
  static ServerTls from_context(SSL_CTX* context) {
    ServerTls tls;
    tls.context_ = detail::share_context(context);
    return tls;
  }

  /// Mutual TLS: clients must show a certificate that one of this PEM file's certificates vouches for.
  [[nodiscard]] ServerTls require_client_certificates(std::string ca_file) const {
    ServerTls tls = *this;
    tls.client_authority_ = detail::PemSource::file(std::move(ca_file));
    return tls;
  }

  /// The same, the certificates as PEM text.
  [[nodiscard]] ServerTls require_client_certificates_pem(std::string_view ca_pem) const {
    ServerTls tls = *this;
    tls.client_authority_ = detail::PemSource::text(ca_pem);
    return tls;
  }

  /// Takes part in these key exchange groups only: names as OpenSSL writes them, the preferred one first, with ':'
  /// between them. Without it, X25519, P-256 and P-384. Clients choose among
  /// them, and the server pays before it knows who they are: a handshake with ffdhe8192 costs 200 times as much.
  [[nodiscard]] ServerTls with_groups(std::string names) const {
    ServerTls tls = *this;
    tls.algorithms_.groups = std::move(names);
    return tls;
  }

  /// Takes part in these TLS 1.3 cipher suites only: their standard names, the preferred one first, with ':' between
  /// them. Without it, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256 and TLS_AES_128_GCM_SHA256.
  [[nodiscard]] ServerTls with_cipher_suites(std::string names) const {
    ServerTls tls = *this;
    tls.algorithms_.cipher_suites = std::move(names);
    return tls;
  }

  /// Whether a client without a valid certificate is refused.
  [[nodiscard]] bool requires_client_certificates() const {
    constexpr int required = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    return client_authority_.is_set() ||
           (context_ && (SSL_CTX_get_verify_mode(context_.get()) & required) == required);
  }

 private:
  friend class TlsContext;

  detail::PemSource certificate_;
  detail::PemSource key_;
  detail::PemSource client_authority_;
  detail::TlsAlgorithms algorithms_;
  std::shared_ptr<SSL_CTX> context_;
};

/// Whom a client trusts, and the certificate it shows when the server asks for one.
///
/// A value; nothing is read before the remote is made, which throws StateErrc::invalid_option with the file's
/// name and the reason if a certificate or key is missing or unusable.
class ClientTls {
 public:
  /// Nothing: the remote refuses it.
  ClientTls() = default;

  /// Trusts servers whose certificate is in this PEM file, or is vouched for by one that is.
  static ClientTls trusting_file(std::string pem_file) {
    ClientTls tls;
    tls.trusted_ = detail::PemSource::file(std::move(pem_file));
    return tls;
  }

  /// The same as text.
  static ClientTls from_pem(std::string_view ca_pem) {
    ClientTls tls;
    tls.trusted_ = detail::PemSource::text(ca_pem);
    return tls;
  }

  /// Trusts what this machine trusts (OpenSSL's default certificate store).
  static ClientTls trusting_system() {
    ClientTls tls;
    tls.trusts_system_ = true;
    return tls;
  }

  /// A context of the user's own, shared. TLS 1.3, verification of chain and name, and the groups and cipher suites
  /// below are enforced on every link all the same. A verify callback set in the context still decides.
  static ClientTls from_context(SSL_CTX* context) {
    ClientTls tls;
    tls.context_ = detail::share_context(context);
    return tls;
  }

  /// Shows this certificate (followed by its chain if it has one) to a server that asks: mutual TLS. PEM
  /// files.
  [[nodiscard]] ClientTls with_certificate(std::string certificate_file, std::string key_file) const {
    ClientTls tls = *this;
    tls.certificate_ = detail::PemSource::file(std::move(certificate_file));
    tls.key_ = detail::PemSource::file(std::move(key_file));
    return tls;
  }

  /// The same as text.
  [[nodiscard]] ClientTls with_certificate_pem(std::string_view certificate_pem,
                                               std::string_view key_pem) const {
    ClientTls tls = *this;
    tls.certificate_ = detail::PemSource::text(certificate_pem);
    tls.key_ = detail::PemSource::text(key_pem);
    return tls;
  }

  /// Expects this name or numeric address in the server's certificate, instead of the endpoint's host.
  [[nodiscard]] ClientTls verify_name(std::string name) const {
    ClientTls tls = *this;
    tls.expected_name_ = std::move(name);
    return tls;
  }

  /// Takes part in these key exchange groups only: names as OpenSSL writes them, the preferred one first, with ':'
  /// between them. Without it, X25519, P-256 and P-384.
  [[nodiscard]] ClientTls with_groups(std::string names) const {
    ClientTls tls = *this;
    tls.algorithms_.groups = std::move(names);
    return tls;
  }

  /// Takes part in these TLS 1.3 cipher suites only: their standard names, the preferred one first, with ':' between
  /// them. Without it, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256 and TLS_AES_128_GCM_SHA256.
  [[nodiscard]] ClientTls with_cipher_suites(std::string names) const {
    ClientTls tls = *this;
    tls.algorithms_.cipher_suites = std::move(names);
    return tls;
  }

  /// The name given to `verify_name`; empty: the endpoint's host.
  [[nodiscard]] const std::string& expected_name() const { return expected_name_; }

 private:
  friend class TlsContext;

  detail::PemSource trusted_;
  bool trusts_system_ = false;
  detail::PemSource certificate_;
  detail::PemSource key_;
  std::string expected_name_;
  detail::TlsAlgorithms algorithms_;
  std::shared_ptr<SSL_CTX> context_;
};

}  // namespace syncstate::tcp

#endif
