// The folder that server and clients of one machine share: certificate, key, password. Made on first use.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CREDENTIALS_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CREDENTIALS_HPP

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "failure.hpp"
#include "read_json.hpp"

namespace config_service {

namespace fs = std::filesystem;

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

/// A password is the file's contents, without the line end that editors add.
inline std::string read_password(const std::string& path) {
  std::string password = read_file(path, "the password file");
  if (password.ends_with('\n')) password.pop_back();
  if (password.ends_with('\r')) password.pop_back();
  if (password.empty()) throw Failure(ExitCode::file, "the password file " + path + " is empty");
  return password;
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

/// Writes a file that must not be there yet, whole or not at all.
inline void write_new_file(const fs::path& path, std::string_view text, int mode) {
  const std::string draft = path.string() + ".draft";
  const auto fail = [&](const std::string& what) {
    const int error = errno;
    throw Failure(ExitCode::file, what + " can't be written: " + std::strerror(error));
  };
  ::unlink(draft.c_str());
  const int file = ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0) fail(draft);
  const auto written = ::write(file, text.data(), text.size());
  const bool is_whole = written == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0;
  if (::close(file) != 0 || !is_whole) fail(draft);
  if (::rename(draft.c_str(), path.c_str()) != 0) fail(path.string());
}

inline void make_certificate_files(const fs::path& certificate_file, const fs::path& key_file) {
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
  write_new_file(key_file, secret, 0600);
  OPENSSL_cleanse(secret.data(), secret.size());
  write_new_file(certificate_file, text_of(certificate_text.get()), 0644);
}

inline void make_password_file(const fs::path& path) {
  std::array<unsigned char, 24> random{};
  require(RAND_bytes(random.data(), static_cast<int>(random.size())) == 1);
  std::string password;
  for (const unsigned char byte : random) {
    constexpr std::string_view digits = "0123456789abcdef";
    password += digits[byte >> 4U];
    password += digits[byte & 15U];
  }
  write_new_file(path, password + "\n", 0600);
}

/// The paths in use, and which of them were made just now.
struct Credentials {
  fs::path certificate;
  fs::path key;
  fs::path password;
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
  Credentials files{certificate, key, password_file};
  if (!certificate.empty() && !password_file.empty()) return files;

  std::error_code error;
  fs::create_directories(folder, error);
  const int lock =
      ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // of two that start at once, one makes
  if (lock < 0 || ::flock(lock, LOCK_EX) != 0) {
    throw Failure(ExitCode::file, "the folder " + folder + " can't be used: " +
                                      (error ? error.message() : std::string(std::strerror(errno))) +
                                      "; --dir names another");
  }
  const std::unique_ptr<const int, void (*)(const int*)> unlock(&lock,
                                                                [](const int* file) { ::close(*file); });

  if (files.certificate.empty()) {
    files.certificate = fs::path(folder) / "server.crt";
    files.key = fs::path(folder) / "server.key";
    const bool has_certificate = fs::exists(files.certificate);
    if (has_certificate != fs::exists(files.key)) {
      throw Failure(ExitCode::file,
                    folder + " holds one of server.crt and server.key: remove it, or bring the other");
    }
    if (!has_certificate) {
      make_certificate_files(files.certificate, files.key);
      files.is_certificate_new = true;
    }
  }
  if (files.password.empty()) {
    files.password = fs::path(folder) / "password";
    if (!fs::exists(files.password)) {
      make_password_file(files.password);
      files.is_password_new = true;
    }
  }
  return files;
}

}  // namespace config_service

#endif
