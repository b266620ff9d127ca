// The folder that server and clients of one machine share: certificate, key, password. Made on first use.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CREDENTIALS_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CREDENTIALS_HPP

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/file.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "failure.hpp"
#include "printable.hpp"
#include "private_files.hpp"

namespace config_service {

/// Where the folder is unless --dir says so.
inline std::string default_folder() {
  if (const char* config = std::getenv("XDG_CONFIG_HOME"); config != nullptr && *config == '/') {
    return std::string(config) + "/syncstate-config";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return std::string(home) + "/.config/syncstate-config";
  }
  return "syncstate-config";
}

template <auto F>
struct Free {
  template <class T>
  void operator()(T* object) const {
    F(object);
  }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using CertificatePtr = std::unique_ptr<X509, Free<X509_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;
using BioPtr = std::unique_ptr<BIO, Free<BIO_free>>;

inline void require(bool worked) {
  if (!worked) throw Failure(ExitCode::unexpected, "OpenSSL could not make a certificate");
}

/// Self-signed, for this machine only: localhost, 127.0.0.1 and ::1. Valid for ten years.
inline CertificatePtr make_certificate(EVP_PKEY* key) {
  CertificatePtr certificate(X509_new());
  X509* const x509 = certificate.get();
  require(x509 != nullptr && X509_set_version(x509, X509_VERSION_3) == 1);

  std::uint64_t serial = 0;
  require(RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial)) == 1);
  require(ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), serial >> 1U | 1U) == 1);
  require(X509_gmtime_adj(X509_getm_notBefore(x509), -3'600) != nullptr);
  require(X509_gmtime_adj(X509_getm_notAfter(x509), 3'652L * 24 * 3'600) != nullptr);
  require(X509_set_pubkey(x509, key) == 1);

  X509_NAME* const name = X509_get_subject_name(x509);
  const std::string_view text = "syncstate config_service, development certificate";
  require(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                     reinterpret_cast<const unsigned char*>(text.data()),
                                     static_cast<int>(text.size()), -1, 0) == 1);
  require(X509_set_issuer_name(x509, name) == 1);

  X509V3_CTX context{};
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, x509, x509, nullptr, nullptr, 0);
  for (const auto& [id, value] :
       {std::pair{NID_basic_constraints, "critical,CA:FALSE"},
        std::pair{NID_key_usage, "critical,digitalSignature"}, std::pair{NID_ext_key_usage, "serverAuth"},
        std::pair{NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1"}}) {
    const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, id, value));
    require(extension != nullptr && X509_add_ext(x509, extension.get(), -1) == 1);
  }
  require(X509_sign(x509, key, EVP_sha256()) > 0);
  return certificate;
}

/// Everything that was written to a memory BIO.
inline std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

inline void make_certificate_files(int folder) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  require(key != nullptr);
  const CertificatePtr certificate = make_certificate(key.get());
  const BioPtr key_text(BIO_new(BIO_s_secmem()));
  const BioPtr certificate_text(BIO_new(BIO_s_mem()));
  require(key_text != nullptr && certificate_text != nullptr);
  require(PEM_write_bio_PKCS8PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) ==
          1);
  require(PEM_write_bio_X509(certificate_text.get(), certificate.get()) == 1);
  std::string secret = text_of(key_text.get());
  write_private_file(folder, "server.key", secret);
  OPENSSL_cleanse(secret.data(), secret.size());
  write_private_file(folder, "server.crt", text_of(certificate_text.get()));
}

inline void make_password_file(int folder) {
  std::array<unsigned char, 24> random{};
  require(RAND_bytes(random.data(), static_cast<int>(random.size())) == 1);
  std::string password;
  for (const unsigned char byte : random) {
    constexpr std::string_view digits = "0123456789abcdef";
    password += digits[byte >> 4U];
    password += digits[byte & 15U];
  }
  write_private_file(folder, "password", password + "\n");
}

/// A file of the folder.
inline PrivateFile file_in(const std::string& path, const Descriptor& folder, const std::string& name) {
  return {path + "/" + name, folder.get(), name};
}

/// The files in use, and which of them were made just now.
struct Credentials {
  Descriptor folder;  // the files below are opened in it; closed if all were named
  PrivateFile certificate;
  PrivateFile key;
  PrivateFile password;
  bool is_certificate_new = false;
  bool is_password_new = false;
};

/// What `serve` uses: the files named, or those of the folder, which are made if they are missing.
/// Errors: Failure.
inline Credentials credentials_for_server(const std::string& folder, const std::string& certificate,
                                          const std::string& key, const std::string& password_file) {
  if (certificate.empty() != key.empty()) {
    throw Failure(ExitCode::command_line, "--cert and --key belong together");
  }
  Credentials files;
  files.certificate.path = certificate;
  files.key.path = key;
  files.password.path = password_file;
  if (!certificate.empty() && !password_file.empty()) return files;

  files.folder = open_private_folder(folder, true);
  const int opened = files.folder.get();
  // Of two that start at once, one makes the files.
  if (::flock(opened, LOCK_EX) != 0) {
    throw Failure(ExitCode::file,
                  "the folder " + printable(folder) + " can't be locked: " + std::strerror(errno));
  }
  if (certificate.empty()) {
    const bool has_certificate = has_entry(opened, "server.crt");
    if (has_certificate != has_entry(opened, "server.key")) {
      throw Failure(
          ExitCode::file,
          printable(folder) + " holds one of server.crt and server.key: remove it, or bring the other");
    }
    if (!has_certificate) make_certificate_files(opened);
    files.is_certificate_new = !has_certificate;
    files.certificate = file_in(folder, files.folder, "server.crt");
    files.key = file_in(folder, files.folder, "server.key");
  }
  if (password_file.empty()) {
    files.is_password_new = !has_entry(opened, "password");
    if (files.is_password_new) make_password_file(opened);
    files.password = file_in(folder, files.folder, "password");
  }
  ::flock(opened, LOCK_UN);
  return files;
}

}  // namespace config_service

#endif
