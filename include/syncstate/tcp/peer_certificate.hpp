// What a server tells its authorizer about the certificate of a client.
#ifndef SYNCSTATE_TCP_PEER_CERTIFICATE_HPP
#define SYNCSTATE_TCP_PEER_CERTIFICATE_HPP

#include <arpa/inet.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "syncstate/error.hpp"
#include "syncstate/peer.hpp"

namespace syncstate::tcp::detail {

/// What the certificate of a client may hold: a server keeps this text for each link, and the subject for each map besides.
inline constexpr std::size_t most_certificate_names = 256;
inline constexpr std::size_t most_subject_bytes = std::size_t{4} << 10;
inline constexpr std::size_t most_certificate_text_bytes = std::size_t{16}
                                                           << 10;  ///< subject, names, serial number

/// The subject of a certificate as text, RFC 2253.
inline std::string subject_of(const X509& certificate) {
  struct Free {
    void operator()(BIO* bio) const { BIO_free(bio); }
  };
  const std::unique_ptr<BIO, Free> text(BIO_new(BIO_s_mem()));
  if (!text) return {};
  X509_NAME_print_ex(text.get(), X509_get_subject_name(&certificate), 0, XN_FLAG_RFC2253);
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

/// The serial number of a certificate, as `openssl x509 -serial` prints it: two upper-case hexadecimal digits for each
/// byte, with a '-' in front of a negative number.
inline std::string serial_of(const X509& certificate) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  const ASN1_INTEGER* const serial = X509_get0_serialNumber(&certificate);
  const unsigned char* const bytes = ASN1_STRING_get0_data(serial);
  const auto size = static_cast<std::size_t>(ASN1_STRING_length(serial));
  std::string text;
  if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER) text += '-';
  for (std::size_t i = 0; i < size; ++i) {
    text += digits[bytes[i] >> 4U];
    text += digits[bytes[i] & 15U];
  }
  return size == 0 ? "00" : text;
}

/// One subject alternative name: "DNS:x", "IP:x", "URI:x" or "email:x"; empty for a name of another kind.
///
/// The text behind the colon is exactly what the certificate holds, whatever bytes these are.
inline std::string name_of(const GENERAL_NAME& name) {
  int type = 0;
  const void* const value = GENERAL_NAME_get0_value(&name, &type);
  const auto text_of = [value] {
    const auto* const string = static_cast<const ASN1_STRING*>(value);
    const auto* const data = reinterpret_cast<const char*>(ASN1_STRING_get0_data(string));
    return std::string(data, static_cast<std::size_t>(ASN1_STRING_length(string)));
  };
  switch (type) {
    case GEN_DNS: return "DNS:" + text_of();
    case GEN_URI: return "URI:" + text_of();
    case GEN_EMAIL: return "email:" + text_of();
    case GEN_IPADD: {
      const std::string bytes = text_of();
      std::array<char, INET6_ADDRSTRLEN> text{};
      const int family = bytes.size() == 4 ? AF_INET : AF_INET6;
      if (bytes.size() != 4 && bytes.size() != 16) return {};
      if (::inet_ntop(family, bytes.data(), text.data(), text.size()) == nullptr) return {};
      return std::string("IP:") + text.data();
    }
    default: return {};
  }
}

/// The subject alternative names of a certificate, in its order.
/// Errors: `tls_failed` for more than `most_certificate_names`, and for names that can't be read.
inline std::vector<std::string> names_of(const X509& certificate) {
  struct Free {
    void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
  };
  int found = 0;
  const std::unique_ptr<GENERAL_NAMES, Free> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, &found, nullptr)));
  std::vector<std::string> texts;
  if (!names) {
    ERR_clear_error();
    if (found == -1) return texts;  // the certificate has none
    throw StateError(
        StateErrc::tls_failed,
        "its subject alternative names can't be read: use a certificate with one such extension");
  }
  const int count = sk_GENERAL_NAME_num(names.get());
  if (count > static_cast<int>(most_certificate_names)) {
    throw StateError(StateErrc::tls_failed, "it holds " + std::to_string(count) +
                                                " names: use one with at most " +
                                                std::to_string(most_certificate_names));
  }
  texts.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    std::string text = name_of(*sk_GENERAL_NAME_value(names.get(), i));
    if (!text.empty()) texts.push_back(std::move(text));
  }
  return texts;
}

/// Tells what a client's certificate says.
/// Errors    : `tls_failed` for a certificate that says more than a server keeps, or whose names can't be read; `peer` is
///             unchanged then.
/// Complexity: O(bytes of the certificate), which `Limits::certificate_chain_bytes` bounds.
inline void describe_certificate(const X509& certificate, Peer& peer) {
  std::string subject = subject_of(certificate);
  if (subject.size() > most_subject_bytes) {
    throw StateError(StateErrc::tls_failed, "its subject takes " + std::to_string(subject.size()) +
                                                " bytes as text: use one of at most " +
                                                std::to_string(most_subject_bytes));
  }
  std::string serial = serial_of(certificate);
  std::vector<std::string> names = names_of(certificate);
  std::size_t bytes = subject.size() + serial.size();
  for (const std::string& name : names) bytes += name.size();
  if (bytes > most_certificate_text_bytes) {
    throw StateError(StateErrc::tls_failed, "its subject, names and serial number take " +
                                                std::to_string(bytes) +
                                                " bytes as text: use a certificate where they take at most " +
                                                std::to_string(most_certificate_text_bytes));
  }
  peer.certificate_subject = std::move(subject);
  peer.certificate_serial = std::move(serial);
  peer.certificate_names = std::move(names);
}

}  // namespace syncstate::tcp::detail

#endif
