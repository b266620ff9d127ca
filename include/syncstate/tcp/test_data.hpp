// A certificate for tests, whose private key everybody knows.
#ifndef SYNCSTATE_TCP_TEST_DATA_HPP
#define SYNCSTATE_TCP_TEST_DATA_HPP

#include <string_view>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::tcp::test_data {

/// Self-signed, ECDSA P-256, for "localhost", 127.0.0.1 and ::1, valid until 2126; its subject reads
/// "CN=syncstate TEST certificate - not for production". It may vouch for other certificates, so tests of
/// mutual TLS can use it for the clients too.
///
/// Whoever trusts it trusts everybody: its private key stands below. For tests on one machine, and nothing
/// else.
inline constexpr std::string_view certificate_pem = R"(-----BEGIN CERTIFICATE-----
MIIB1jCCAXygAwIBAgICA+kwCgYIKoZIzj0EAwIwOjE4MDYGA1UEAwwvc3luY3N0
YXRlIFRFU1QgY2VydGlmaWNhdGUgLSBub3QgZm9yIHByb2R1Y3Rpb24wIBcNMjAw
MTAxMDAwMDAwWhgPMjEyNjAxMDEwMDAwMDBaMDoxODA2BgNVBAMML3N5bmNzdGF0
ZSBURVNUIGNlcnRpZmljYXRlIC0gbm90IGZvciBwcm9kdWN0aW9uMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAE12YZ+iLolVIkeCN3MRZvFsAI3HQshkQhkMTXqqVG
o35fzz/YkxALV1ZHBsSs/p4apzPSSZuTqvxYgSYasstTbaNwMG4wDwYDVR0TAQH/
BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAoQwHQYDVR0OBBYEFFoSKCmZGo+yr7qhdhab
s3jZ2SYgMCwGA1UdEQQlMCOCCWxvY2FsaG9zdIcEfwAAAYcQAAAAAAAAAAAAAAAA
AAAAATAKBggqhkjOPQQDAgNIADBFAiEAzGAspcPfZmqUD0fb933/HQHmwJfg4qEw
lGlt8NFQZ2sCIERiGyD7wVV0YtcIJOqBjjkEf1eHfY26aXCoyeTc4qxu
-----END CERTIFICATE-----
)";

/// The private key of `certificate_pem`.
inline constexpr std::string_view private_key_pem = R"(-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghlHz+tQ6vMCLhJYj
fo+8l7WouXuMrtbOArJDgZfEjCmhRANCAATXZhn6IuiVUiR4I3cxFm8WwAjcdCyG
RCGQxNeqpUajfl/PP9iTEAtXVkcGxKz+nhqnM9JJm5Oq/FiBJhqyy1Nt
-----END PRIVATE KEY-----
)";

}  // namespace syncstate::tcp::test_data

#endif
