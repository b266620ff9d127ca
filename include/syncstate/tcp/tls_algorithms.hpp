// Which key exchange groups and cipher suites a TLS link takes part in.
#ifndef SYNCSTATE_TCP_TLS_ALGORITHMS_HPP
#define SYNCSTATE_TCP_TLS_ALGORITHMS_HPP

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "syncstate/error.hpp"
#include "syncstate/tcp/tls_error.hpp"

namespace syncstate::tcp::detail {

/// The key exchange groups and TLS 1.3 cipher suites of one side, as OpenSSL's lists: names with ':' between them.
///
/// The client chooses the group, and its server pays for it before it knows anything about that client. So both lists
/// name only what is cheap: with ffdhe8192 a stranger's replayed ClientHello would cost 200 times as much as with X25519.
struct TlsAlgorithms {
  std::string groups = "X25519:P-256:P-384";
  std::string cipher_suites = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
};

/// Calls `use` with each name of a list.
template <class Use>
void for_each_name(std::string_view list, Use use) {
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = (std::min)(list.find(':', begin), list.size());
    use(std::string(list.substr(begin, end - begin)));
    begin = end + 1;
  }
}

inline bool is_tls13_suite(SSL_CTX* scratch, const std::string& name) {
  if (name.empty() || SSL_CTX_set_ciphersuites(scratch, name.c_str()) != 1) return false;
  const STACK_OF(SSL_CIPHER)* suites = SSL_CTX_get_ciphers(scratch);
  for (int i = 0; i < sk_SSL_CIPHER_num(suites); ++i) {
    const SSL_CIPHER* suite = sk_SSL_CIPHER_value(suites, i);
    if (name == SSL_CIPHER_standard_name(suite))
      return SSL_CIPHER_get_version(suite) == std::string("TLSv1.3");
  }
  return false;
}

/// Errors: `invalid_option` for a name that this OpenSSL does not know or that TLS 1.3 cannot use; the detail quotes it.
inline void expect_usable(const TlsAlgorithms& algorithms) {
  // One name at a time: newer versions of OpenSSL skip unknown names in a list without a word.
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> scratch(SSL_CTX_new(TLS_method()), SSL_CTX_free);
  if (!scratch) throw std::bad_alloc();
  for_each_name(algorithms.groups, [&](const std::string& name) {
    if (!name.empty() && SSL_CTX_set1_groups_list(scratch.get(), name.c_str()) == 1) return;
    ERR_clear_error();
    throw StateError(StateErrc::invalid_option, "with_groups: OpenSSL knows no group '" + name + "', in '" +
                                                    algorithms.groups + "'; give names like X25519:P-256");
  });
  for_each_name(algorithms.cipher_suites, [&](const std::string& name) {
    if (is_tls13_suite(scratch.get(), name)) return;
    ERR_clear_error();
    throw StateError(StateErrc::invalid_option,
                     "with_cipher_suites: '" + name + "' is no TLS 1.3 cipher suite, in '" +
                         algorithms.cipher_suites + "'; give names like TLS_AES_128_GCM_SHA256");
  });
}

/// Has the link offer and accept these, whatever its SSL_CTX says.
/// Errors: `tls_failed` with OpenSSL's reason.
inline void use_algorithms(SSL* ssl, const TlsAlgorithms& algorithms) {
  if (SSL_set1_groups_list(ssl, algorithms.groups.c_str()) != 1 ||
      SSL_set_ciphersuites(ssl, algorithms.cipher_suites.c_str()) != 1) {
    throw StateError(StateErrc::tls_failed, "groups and cipher suites: " + take_openssl_message());
  }
}

/// The same for every link of a context of ours, which takes the time to read the lists only once.
inline void use_algorithms(SSL_CTX* context, const TlsAlgorithms& algorithms) {
  if (SSL_CTX_set1_groups_list(context, algorithms.groups.c_str()) != 1 ||
      SSL_CTX_set_ciphersuites(context, algorithms.cipher_suites.c_str()) != 1) {
    throw StateError(StateErrc::tls_failed, "groups and cipher suites: " + take_openssl_message());
  }
}

}  // namespace syncstate::tcp::detail

#endif
