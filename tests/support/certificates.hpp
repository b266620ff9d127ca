// Certificates made while a test runs: good ones, expired ones, ones for another host.
#ifndef SYNCSTATE_TESTS_SUPPORT_CERTIFICATES_HPP
#define SYNCSTATE_TESTS_SUPPORT_CERTIFICATES_HPP

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace support {

/// A certificate and its private key, both as PEM text.
struct Certificate {
  std::string pem;
  std::string key_pem;
};

/// What a certificate says.
struct CertificateOptions {
  std::string common_name = "syncstate test";
  std::string alternative_names = "DNS:localhost,IP:127.0.0.1,IP:::1";  ///< empty: none
  std::string not_before = "20200101000000Z";
  std::string not_after = "21260101000000Z";
  const Certificate* issuer = nullptr;  ///< null: signs itself
  bool is_authority = true;
  std::string key_type = "P-256";    ///< see `make_key`
  std::string extended_key_usage{};  ///< "clientAuth,1.2.3"; empty: none
  std::string key_usage{};           ///< empty: what fits `is_authority`
};

/// Makes a private key: "Ed25519", "Ed448", "RSA-2048", "RSA-PSS-2048" (any size), "RSA-PSS-SHA1" (usable with SHA-1
/// alone), "DSA", else an EC key on the curve of that name.
inline std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> make_key(const std::string& type) {
  using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
  using ContextPtr = std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)>;
  const auto check = [](bool is_good) {
    if (!is_good) throw std::runtime_error("OpenSSL made no key");
  };
  const auto generate = [&](EVP_PKEY_CTX* context) {
    EVP_PKEY* key = nullptr;
    check(EVP_PKEY_generate(context, &key) == 1);
    return KeyPtr(key, EVP_PKEY_free);
  };
  const auto context_of = [&](const char* algorithm) {
    ContextPtr context(EVP_PKEY_CTX_new_from_name(nullptr, algorithm, nullptr), EVP_PKEY_CTX_free);
    check(context && EVP_PKEY_keygen_init(context.get()) == 1);
    return context;
  };
  if (type == "Ed25519" || type == "Ed448") return generate(context_of(type.c_str()).get());
  if (type == "RSA-PSS-SHA1") {
    const ContextPtr context = context_of("RSA-PSS");
    check(EVP_PKEY_CTX_set_rsa_keygen_bits(context.get(), 2'048) == 1);
    check(EVP_PKEY_CTX_set_rsa_pss_keygen_md(context.get(), EVP_sha1()) == 1);
    check(EVP_PKEY_CTX_set_rsa_pss_keygen_mgf1_md(context.get(), EVP_sha1()) == 1);
    return generate(context.get());
  }
  for (const std::string prefix : {"RSA-PSS-", "RSA-"}) {
    if (!type.starts_with(prefix)) continue;
    const ContextPtr context = context_of(prefix == "RSA-" ? "RSA" : "RSA-PSS");
    check(EVP_PKEY_CTX_set_rsa_keygen_bits(context.get(), std::stoi(type.substr(prefix.size()))) == 1);
    return generate(context.get());
  }
  if (type == "DSA") {
    const ContextPtr making(EVP_PKEY_CTX_new_from_name(nullptr, "DSA", nullptr), EVP_PKEY_CTX_free);
    check(making && EVP_PKEY_paramgen_init(making.get()) == 1);
    std::size_t bits = 2'048;
    const OSSL_PARAM sizes[] = {OSSL_PARAM_construct_size_t(OSSL_PKEY_PARAM_FFC_PBITS, &bits),
                                OSSL_PARAM_construct_end()};
    check(EVP_PKEY_CTX_set_params(making.get(), sizes) == 1);
    const KeyPtr parameters = generate(making.get());
    const ContextPtr context(EVP_PKEY_CTX_new_from_pkey(nullptr, parameters.get(), nullptr),
                             EVP_PKEY_CTX_free);
    check(context && EVP_PKEY_keygen_init(context.get()) == 1);
    return generate(context.get());
  }
  KeyPtr key(EVP_EC_gen(type.c_str()), EVP_PKEY_free);
  check(key != nullptr);
  return key;
}

/// Makes a certificate, signed with SHA-256 or what the signer's key demands.
inline Certificate make_certificate(const CertificateOptions& options) {
  const auto check = [](bool is_good) {
    if (!is_good) throw std::runtime_error("OpenSSL made no certificate");
  };
  const auto as_pem = [&](auto write) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), BIO_free);
    check(write(bio.get()) == 1);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    return std::string(data, static_cast<std::size_t>(size));
  };
  const auto read_bio = [](const std::string& pem) {
    return std::unique_ptr<BIO, decltype(&BIO_free)>(
        BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  };
  using X509Ptr = std::unique_ptr<X509, decltype(&X509_free)>;
  using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

  const KeyPtr key = make_key(options.key_type);
  const X509Ptr certificate(X509_new(), X509_free);
  check(key && certificate);
  X509* x = certificate.get();
  static std::int64_t serial = 1'000;
  X509_set_version(x, X509_VERSION_3);
  ASN1_INTEGER_set_int64(X509_get_serialNumber(x), ++serial);
  check(ASN1_TIME_set_string_X509(X509_getm_notBefore(x), options.not_before.c_str()) == 1);
  check(ASN1_TIME_set_string_X509(X509_getm_notAfter(x), options.not_after.c_str()) == 1);
  X509_NAME* name = X509_get_subject_name(x);
  const auto* common_name = reinterpret_cast<const unsigned char*>(options.common_name.c_str());
  check(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, common_name, -1, -1, 0) == 1);
  X509_set_pubkey(x, key.get());

  X509Ptr issuer(nullptr, X509_free);
  KeyPtr issuer_key(nullptr, EVP_PKEY_free);
  if (options.issuer != nullptr) {
    issuer.reset(PEM_read_bio_X509(read_bio(options.issuer->pem).get(), nullptr, nullptr, nullptr));
    issuer_key.reset(
        PEM_read_bio_PrivateKey(read_bio(options.issuer->key_pem).get(), nullptr, nullptr, nullptr));
    check(issuer && issuer_key);
  }
  X509* const signer = issuer ? issuer.get() : x;
  X509_set_issuer_name(x, X509_get_subject_name(signer));

  X509V3_CTX context;
  X509V3_set_ctx(&context, signer, x, nullptr, nullptr, 0);
  const auto extend = [&](int what, const std::string& value) {
    const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
        X509V3_EXT_conf_nid(nullptr, &context, what, value.c_str()), X509_EXTENSION_free);
    check(extension && X509_add_ext(x, extension.get(), -1) == 1);
  };
  extend(NID_basic_constraints, options.is_authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
  const std::string usual =
      options.is_authority ? "critical,digitalSignature,keyCertSign" : "critical,digitalSignature";
  extend(NID_key_usage, options.key_usage.empty() ? usual : options.key_usage);
  if (!options.extended_key_usage.empty()) extend(NID_ext_key_usage, options.extended_key_usage);
  extend(NID_subject_key_identifier, "hash");
  if (options.issuer != nullptr) extend(NID_authority_key_identifier, "keyid");
  if (!options.alternative_names.empty()) extend(NID_subject_alt_name, options.alternative_names);
  EVP_PKEY* const signing = issuer_key ? issuer_key.get() : key.get();
  int digest = NID_undef;
  EVP_PKEY_get_default_digest_nid(signing, &digest);
  const EVP_MD* hash = digest == NID_undef ? nullptr : EVP_sha256();  // Ed25519 and Ed448 hash themselves
  if (options.key_type == "RSA-PSS-SHA1" && !issuer_key) hash = EVP_sha1();
  check(X509_sign(x, signing, hash) > 0);

  return {as_pem([&](BIO* bio) { return PEM_write_bio_X509(bio, x); }), as_pem([&](BIO* bio) {
            return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
          })};
}

}  // namespace support

#endif
