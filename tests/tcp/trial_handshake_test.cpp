// Certificates that nobody could connect with are refused by start() and reload_tls(), and by the remote that is to
// show them, with the file and the reason.
#include "syncstate/tcp/trial_handshake.hpp"

#include <openssl/ssl.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "syncstate/tcp.hpp"
#include "tcp/link_harness.hpp"

namespace trial_handshake_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::StateError;
using ss::testing::contains_text;
using support::Certificate;
using support::CertificateOptions;
using support::make_certificate;
using Server = ss::tcp::TcpStateServer<std::string, std::string, std::string>;

// A server's certificate and key in files, in a folder that goes away with the test.
struct Files {
  Files() {
    std::string name = (std::filesystem::temp_directory_path() / "syncstate-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    certificate = (folder / "a server.crt").string();
    key = (folder / "a server.key").string();
    authority = (folder / "an authority.crt").string();
  }
  ~Files() { std::filesystem::remove_all(folder); }
  void write(const Certificate& c) const {
    std::ofstream(certificate) << c.pem;
    std::ofstream(key) << c.key_pem;
  }
  [[nodiscard]] ServerTls tls() const { return ServerTls::from_files(certificate, key); }
  std::filesystem::path folder;
  std::string certificate;
  std::string key;
  std::string authority;
};

ss::tcp::ServerOptions options_with(const ServerTls& tls) {
  return {.endpoint = "127.0.0.1:0", .tls = tls, .password = "a password"};
}

// Whether a client that trusts `trusted` comes through to the server.
bool reaches(const Server& server, const Certificate& trusted) {
  ss::StateMap<std::string, std::string> map(std::make_shared<ss::tcp::TcpStateRemote>(ss::tcp::RemoteOptions{
      .endpoint = server.endpoint(), .tls = ClientTls::from_pem(trusted.pem), .password = "a password"}));
  map.push("a", "1");
  try {
    map.freeze(20s);
    return true;
  } catch (const StateError&) {
    return false;
  }
}

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const StateError& error) {
    CHECK(error.code() == StateErrc::invalid_option);
    return error.detail();
  }
  return "not refused";
}

}  // namespace

TEST_CASE("a certificate that no client can use is refused at start and on reload, and nothing changes") {
  const Files files;
  const Certificate good = make_certificate({});
  files.write(good);
  Server running(options_with(files.tls()));
  running.start();
  REQUIRE(reaches(running, good));

  const auto refused = [&](const CertificateOptions& options, const char* why) {
    const Certificate bad = make_certificate(options);
    INFO(options.key_type << " " << options.extended_key_usage << " " << options.not_after << ": " << why);
    files.write(bad);
    const auto check = [&](const std::string& detail) {
      CHECK_THAT(detail, contains_text(why));
      CHECK_THAT(detail, contains_text("the certificate file '" + files.certificate + "'"));
    };
    Server server(options_with(files.tls()));
    check(refusal([&] { server.start(); }));
    check(refusal([&] { running.reload_tls(); }));
    check(refusal([&] { running.reload_tls(files.tls()); }));
    // The same as text has no file.
    Server from_text(options_with(ServerTls::from_pem(bad.pem, bad.key_pem)));
    CHECK_THAT(refusal([&] { from_text.start(); }), contains_text(why));
    // What was refused can be mended, and started then.
    files.write(good);
    CHECK_NOTHROW(server.start());
    CHECK(reaches(server, good));
  };
  refused({.key_type = "P-224"}, "its key is EC secp224r1");
  refused({.key_type = "secp256k1"}, "its key is EC secp256k1");
  refused({.key_type = "brainpoolP256r1"}, "its key is EC brainpoolP256r1");
  refused({.key_type = "brainpoolP384r1"}, "no TLS 1.3 handshake can use it");
  refused({.key_type = "DSA"}, "");
  refused({.key_type = "RSA-1024"}, "");
  refused({.key_type = "RSA-PSS-SHA1"}, "");
  refused({.extended_key_usage = "clientAuth"}, "its extended key usage does not include serverAuth");
  refused({.extended_key_usage = "codeSigning"}, "its extended key usage does not include serverAuth");
  refused({.extended_key_usage = "anyExtendedKeyUsage"},
          "its extended key usage does not include serverAuth");
  refused({.extended_key_usage = "msSGC"}, "its extended key usage does not include serverAuth");
  refused({.key_usage = "critical,keyCertSign"}, "its key usage does not include digitalSignature");
  refused({.not_after = "20210101000000Z"}, "to 2021-01-01 00:00:00 UTC, and the clock here says");
  refused({.not_before = "21250101000000Z"}, "it is valid from 2125-01-01");
  CHECK(reaches(running, good));
}

TEST_CASE("every certificate that clients can use starts a server that they reach") {
  const auto works = [](const CertificateOptions& options) {
    INFO(options.key_type << " " << options.extended_key_usage);
    const Certificate c = make_certificate(options);
    Server server(options_with(ServerTls::from_pem(c.pem, c.key_pem)));
    CHECK_NOTHROW(server.start());
    CHECK(reaches(server, c));
  };
  works({.key_type = "P-256"});
  works({.key_type = "P-384"});
  works({.key_type = "P-521"});
  works({.key_type = "Ed25519"});
  works({.key_type = "Ed448"});
  works({.key_type = "RSA-2048"});
  works({.key_type = "RSA-PSS-2048"});
  works({.is_authority = false, .extended_key_usage = "serverAuth"});
  works({.extended_key_usage = "serverAuth,clientAuth"});
}

TEST_CASE("authorities that can vouch for no client are refused, and nothing changes") {
  const Files files;
  const Certificate good = make_certificate({});
  files.write(good);
  Server running(options_with(files.tls()));
  running.start();
  const auto start_with = [&](const std::string& authorities) {
    std::ofstream(files.authority) << authorities;
    const ServerTls tls = files.tls().require_client_certificates(files.authority);
    Server server(options_with(tls));
    const std::string detail = refusal([&] { server.start(); });
    if (detail != "not refused") {
      // The clock goes on between the two.
      const auto until_clock = [](const std::string& text) {
        return text.substr(0, text.find(", and the clock"));
      };
      CHECK(until_clock(refusal([&] { running.reload_tls(tls); })) == until_clock(detail));
      CHECK_THAT(detail, contains_text("file '" + files.authority + "'"));
    }
    return detail;
  };
  const std::string expired = make_certificate({.not_after = "20210101000000Z"}).pem;
  const std::string for_servers = make_certificate({.extended_key_usage = "serverAuth"}).pem;
  const std::string authority = make_certificate({.key_usage = "critical,keyCertSign"}).pem;
  const std::string client =
      make_certificate({.is_authority = false, .extended_key_usage = "clientAuth"}).pem;
  CHECK_THAT(start_with(expired), contains_text("certificate has expired"));
  CHECK_THAT(start_with(for_servers), contains_text("for other purposes"));
  CHECK_THAT(start_with(for_servers + expired), contains_text("no client can be verified by it"));
  CHECK(start_with(authority) == "not refused");
  CHECK(start_with(client) == "not refused");
  CHECK(start_with(expired + authority) == "not refused");  // one that is good is enough
  CHECK(reaches(running, good));                            // which was never asked to show a certificate
}

TEST_CASE("a remote refuses a certificate of its own that no server would take") {
  const Certificate server = make_certificate({});
  const auto make = [&](const CertificateOptions& options) {
    const Certificate own = make_certificate(options);
    return refusal([&] {
      ss::tcp::TcpStateRemote remote(ss::tcp::RemoteOptions{
          .endpoint = "127.0.0.1:1",
          .tls = ClientTls::from_pem(server.pem).with_certificate_pem(own.pem, own.key_pem),
          .password = "a password"});
    });
  };
  CHECK(make({.alternative_names = ""}) == "not refused");
  CHECK(make({.key_type = "Ed25519"}) == "not refused");
  CHECK(make({.extended_key_usage = "clientAuth"}) == "not refused");
  CHECK_THAT(make({.key_type = "P-224"}), contains_text("its key is EC secp224r1"));
  CHECK_THAT(make({.key_type = "secp256k1"}), contains_text("its key is EC secp256k1"));
  CHECK_THAT(make({.extended_key_usage = "serverAuth"}), contains_text("does not include clientAuth"));
  CHECK_THAT(make({.not_after = "20210101000000Z"}), contains_text("servers would refuse it"));
}

TEST_CASE("a context of the user's own is tried, too; callbacks that a trial can't satisfy do no harm") {
  const std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  Server server(options_with(ServerTls::from_context(context.get())));
  SECTION("without a certificate") {
    CHECK_THAT(refusal([&] { server.start(); }), contains_text("the certificate of the SSL_CTX: "));
  }
  SECTION("with one") {
    const std::shared_ptr<SSL_CTX> good = RawPeer::make_context(true);
    CHECK_NOTHROW(Server(options_with(ServerTls::from_context(good.get()))).start());
  }
  SECTION("a callback that insists on a name") {
    const std::shared_ptr<SSL_CTX> good = RawPeer::make_context(true);
    SSL_CTX_set_tlsext_servername_callback(
        good.get(), +[](SSL* ssl, int*, void*) {
          return SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) == nullptr ? SSL_TLSEXT_ERR_ALERT_FATAL
                                                                               : SSL_TLSEXT_ERR_OK;
        });
    CHECK_NOTHROW(Server(options_with(ServerTls::from_context(good.get()))).start());
  }
}

}  // namespace trial_handshake_test
