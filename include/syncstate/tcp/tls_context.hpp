// An SSL_CTX made from a description: TLS 1.3 only, no resumption, no early data.
#ifndef SYNCSTATE_TCP_TLS_CONTEXT_HPP
#define SYNCSTATE_TCP_TLS_CONTEXT_HPP

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/error.hpp"
#include "syncstate/tcp/certificate_rules.hpp"
#include "syncstate/tcp/server_name.hpp"
#include "syncstate/tcp/tls.hpp"
#include "syncstate/tcp/tls_algorithms.hpp"
#include "syncstate/tcp/tls_error.hpp"

namespace syncstate::tcp {

namespace detail {

template <auto free>
struct FreeWith {
  template <class T>
  void operator()(T* object) const {
    free(object);
  }
};
using BioPtr = std::unique_ptr<BIO, FreeWith<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, FreeWith<X509_free>>;
using PrivateKeyPtr = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using SslPtr = std::unique_ptr<SSL, FreeWith<SSL_free>>;

/// "the certificate file 'x'" or "the certificate".
inline std::string name_of(const PemSource& source, const char* what) {
  return source.is_file() ? std::string(what) + " file '" + source.value() + "'" : what;
}

[[noreturn]] inline void refuse_pem(const PemSource& source, const char* what, const std::string& why) {
  throw StateError(StateErrc::invalid_option, name_of(source, what) + ": " + why);
}

/// Calls `use` with a BIO over the PEM text; text read from a file is wiped afterwards.
template <class Use>
auto with_pem(const PemSource& source, const char* what, Use use) {
  struct Wiped {
    std::string text;
    ~Wiped() { OPENSSL_cleanse(text.data(), text.size()); }
  } wiped;
  const std::string* pem = &source.value();
  if (source.is_file()) {
    struct Close {
      void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::unique_ptr<std::FILE, Close> file(std::fopen(source.value().c_str(), "rbe"));
    if (!file) refuse_pem(source, what, std::generic_category().message(errno));
    // Sized once: a string that grows leaves copies of a key behind, and so does a buffer of the stream.
    std::setvbuf(file.get(), nullptr, _IONBF, 0);
    constexpr std::size_t most = std::size_t{4} << 20;
    wiped.text.resize(most);
    errno = 0;
    const std::size_t size = std::fread(wiped.text.data(), 1, most, file.get());
    if (std::ferror(file.get()) != 0) refuse_pem(source, what, std::generic_category().message(errno));
    if (size == most) refuse_pem(source, what, "larger than 4 MiB");
    wiped.text.resize(size);
    pem = &wiped.text;
  }
  BioPtr bio(BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())));
  if (!bio) throw std::bad_alloc();
  return use(bio.get());
}

/// At least one certificate.
inline std::vector<X509Ptr> read_certificates(const PemSource& source, const char* what) {
  return with_pem(source, what, [&](BIO* bio) {
    ERR_clear_error();
    std::vector<X509Ptr> certificates;
    while (X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr)) {
      certificates.emplace_back(certificate);
    }
    const unsigned long error = ERR_peek_last_error();
    ERR_clear_error();
    const bool is_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    if (!is_end) refuse_pem(source, what, openssl_message(error));
    if (certificates.empty()) refuse_pem(source, what, "no certificate in PEM form in it");
    return certificates;
  });
}

inline PrivateKeyPtr read_private_key(const PemSource& source) {
  return with_pem(source, "the private key", [&](BIO* bio) {
    ERR_clear_error();
    // Without a callback OpenSSL would ask for a pass phrase on the terminal.
    const auto no_pass_phrase = [](char*, int, int, void*) { return -1; };
    PrivateKeyPtr key(PEM_read_bio_PrivateKey(bio, nullptr, no_pass_phrase, nullptr));
    if (!key) {
      const unsigned long error = ERR_peek_last_error();
      ERR_clear_error();
      const int library = ERR_GET_LIB(error);
      const int reason = ERR_GET_REASON(error);
      const bool has_none = (library == ERR_LIB_PEM && reason == PEM_R_NO_START_LINE) ||
                            (library == ERR_LIB_OSSL_DECODER && reason == ERR_R_UNSUPPORTED);
      const bool is_encrypted = library == ERR_LIB_PEM && reason == PEM_R_BAD_PASSWORD_READ;
      refuse_pem(source, "the private key",
                 has_none       ? "no private key in PEM form in it"
                 : is_encrypted ? "it is encrypted; an unencrypted one is needed"
                                : openssl_message(error));
    }
    return key;
  });
}

inline void use_certificate(SSL_CTX* context, const PemSource& certificate, const PemSource& key) {
  std::vector<X509Ptr> chain = read_certificates(certificate, "the certificate");
  const PrivateKeyPtr private_key = read_private_key(key);
  ERR_clear_error();
  if (SSL_CTX_use_certificate(context, chain.front().get()) != 1) {
    refuse_pem(certificate, "the certificate", take_openssl_message());
  }
  for (std::size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context, chain[i].get()) != 1) {
      refuse_pem(certificate, "the certificate", take_openssl_message());
    }
  }
  if (SSL_CTX_use_PrivateKey(context, private_key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    refuse_pem(key, "the private key",
               "it does not belong to " + name_of(certificate, "the certificate") + " (" +
                   take_openssl_message() + ")");
  }
}

/// Makes every certificate in `source` a trust anchor, roots or not: naming one is trusting it.
inline void trust(SSL_CTX* context, const PemSource& source, bool names_client_authorities) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  const char* const what = names_client_authorities ? "the clients' authorities" : "the trusted certificates";
  for (const X509Ptr& certificate : read_certificates(source, what)) {
    ERR_clear_error();
    if (X509_STORE_add_cert(store, certificate.get()) != 1 ||
        (names_client_authorities && SSL_CTX_add_client_CA(context, certificate.get()) != 1)) {
      refuse_pem(source, what, take_openssl_message());
    }
  }
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
}

}  // namespace detail

/// A ready SSL_CTX, shared by all links of a server or remote.
///
/// Threads: may be used from any number of threads.
/// Errors : making one throws StateErrc::invalid_option, the detail names the file and OpenSSL's reason.
class TlsContext {
 public:
  explicit TlsContext(const ServerTls& tls) : algorithms_(tls.algorithms_) {
    detail::expect_usable(algorithms_);
    if (tls.context_) {
      context_ = tls.context_;
      is_users_context_ = true;
      if (tls.client_authority_.is_set()) {
        throw StateError(StateErrc::invalid_option,
                         "from_context: set the client authorities in the SSL_CTX itself");
      }
    } else {
      if (!tls.certificate_.is_set()) {
        throw StateError(StateErrc::invalid_option,
                         "tls: a server needs a certificate: ServerTls::from_files");
      }
      context_ = make_context(TLS_server_method());
      detail::use_certificate(context_.get(), tls.certificate_, tls.key_);
      certificate_name_ = detail::name_of(tls.certificate_, "the certificate");
      if (tls.client_authority_.is_set()) {
        detail::trust(context_.get(), tls.client_authority_, true);
        authority_name_ = detail::name_of(tls.client_authority_, "the clients' authorities");
      }
    }
    requires_client_certificates_ = tls.requires_client_certificates();
  }

  explicit TlsContext(const ClientTls& tls) : algorithms_(tls.algorithms_) {
    detail::expect_usable(algorithms_);
    if (!tls.expected_name_.empty()) expected_name_ = parse_server_name(tls.expected_name_);
    if (tls.context_) {
      context_ = tls.context_;
      is_users_context_ = true;
      if (tls.certificate_.is_set()) {
        throw StateError(StateErrc::invalid_option,
                         "from_context: set the certificate in the SSL_CTX itself");
      }
      return;
    }
    context_ = make_context(TLS_client_method());
    if (tls.trusts_system_) {
      if (SSL_CTX_set_default_verify_paths(context_.get()) != 1) {
        throw StateError(StateErrc::invalid_option,
                         "tls: the system's trusted certificates: " + detail::take_openssl_message());
      }
    } else if (tls.trusted_.is_set()) {
      detail::trust(context_.get(), tls.trusted_, false);
    } else {
      throw StateError(StateErrc::invalid_option,
                       "tls: whom should a client trust? ClientTls::trusting_file or trusting_system");
    }
    if (tls.certificate_.is_set()) {
      detail::use_certificate(context_.get(), tls.certificate_, tls.key_);
      certificate_name_ = detail::name_of(tls.certificate_, "the certificate");
    }
  }

  /// What one link of a server speaks TLS with.
  [[nodiscard]] detail::SslPtr make_server_ssl() const {
    detail::SslPtr ssl = make_ssl();
    int mode = SSL_get_verify_mode(ssl.get());
    if (requires_client_certificates_) mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    if ((mode & SSL_VERIFY_PEER) != 0) detail::check_peer(ssl.get(), detail::Shower::client, mode);
    SSL_set_num_tickets(ssl.get(), 0);
    SSL_set_accept_state(ssl.get());
    return ssl;
  }

  /// What one link of a client speaks TLS with; it accepts only a server whose certificate names `host`, or
  /// the name given to `ClientTls::verify_name`.
  /// Errors: as `name_for`.
  [[nodiscard]] detail::SslPtr make_client_ssl(const std::string& host) const {
    detail::SslPtr ssl = make_ssl();
    detail::expect_server(ssl.get(), name_for(host));
    SSL_set_connect_state(ssl.get());
    return ssl;
  }

  /// The SSL_CTX itself, its owner this object.
  [[nodiscard]] SSL_CTX* native() const { return context_.get(); }
  /// What links offer and accept.
  [[nodiscard]] const detail::TlsAlgorithms& algorithms() const { return algorithms_; }
  /// Whether the SSL_CTX is one that the user made.
  [[nodiscard]] bool is_users_context() const { return is_users_context_; }
  /// Whether a client without a valid certificate is refused.
  [[nodiscard]] bool requires_client_certificates() const { return requires_client_certificates_; }
  /// What errors call the certificate that this side shows, and those that it verifies clients by: with the file's
  /// name where there is one.
  [[nodiscard]] const std::string& certificate_name() const { return certificate_name_; }
  [[nodiscard]] const std::string& authority_name() const { return authority_name_; }

  /// What a client expects in the certificate of a server at an endpoint with this host.
  /// Errors: StateErrc::invalid_option for what can't be a host.
  [[nodiscard]] ServerName name_for(const std::string& host) const {
    return expected_name_ ? *expected_name_ : parse_server_name(host);
  }

 private:
  [[nodiscard]] std::shared_ptr<SSL_CTX> make_context(const SSL_METHOD* method) const {
    ERR_clear_error();
    std::shared_ptr<SSL_CTX> context(SSL_CTX_new(method), SSL_CTX_free);
    if (!context) throw StateError(StateErrc::tls_failed, "SSL_CTX_new: " + detail::take_openssl_message());
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context.get(), 0);
    detail::use_algorithms(context.get(), algorithms_);
    return context;
  }

  [[nodiscard]] detail::SslPtr make_ssl() const {
    ERR_clear_error();
    detail::SslPtr ssl(SSL_new(context_.get()));
    if (!ssl) throw StateError(StateErrc::tls_failed, "SSL_new: " + detail::take_openssl_message());
    // Set on every link and not on the context, so that a context of the user's own has no say in it.
    if (SSL_set_min_proto_version(ssl.get(), TLS1_3_VERSION) != 1 ||
        SSL_set_max_proto_version(ssl.get(), 0) != 1) {
      throw StateError(StateErrc::tls_failed, "TLS 1.3 is not available: " + detail::take_openssl_message());
    }
    if (is_users_context_) detail::use_algorithms(ssl.get(), algorithms_);
    SSL_clear_options(ssl.get(), SSL_OP_NO_TLSv1_3 | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_set_options(ssl.get(), SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
    SSL_set_max_early_data(ssl.get(), 0);
    SSL_set_recv_max_early_data(ssl.get(), 0);
    SSL_set_mode(ssl.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
    // One system call for a record's header and body, and for all records that came together.
    SSL_set_read_ahead(ssl.get(), 1);
    return ssl;
  }

  detail::TlsAlgorithms algorithms_;
  std::shared_ptr<SSL_CTX> context_;
  bool is_users_context_ = false;
  std::string certificate_name_ = "the certificate of the SSL_CTX";
  std::string authority_name_;
  std::optional<ServerName> expected_name_;
  bool requires_client_certificates_ = false;
};

}  // namespace syncstate::tcp

#endif
