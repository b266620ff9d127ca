// Which certificates each side accepts, in real handshakes over real sockets.
#include "syncstate/tcp/certificate_rules.hpp"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "tcp/link_harness.hpp"

namespace certificate_rules_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::testing::contains_text;
using support::Certificate;
using support::make_certificate;

TlsContext server_of(const Certificate& c) { return TlsContext(ServerTls::from_pem(c.pem, c.key_pem)); }
ClientTls trusting(const Certificate& c) { return ClientTls::from_pem(c.pem); }

// A context of the user's own that trusts `trusted`, and shows `own` if it is not null.
std::shared_ptr<SSL_CTX> own_context(bool is_server, const Certificate& trusted, const Certificate* own) {
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method()),
                                   SSL_CTX_free);
  const auto read = [](const std::string& pem, auto reader) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
        BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
    return reader(bio.get(), nullptr, nullptr, nullptr);
  };
  const std::unique_ptr<X509, decltype(&X509_free)> anchor(read(trusted.pem, PEM_read_bio_X509), X509_free);
  REQUIRE(X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), anchor.get()) == 1);
  X509_STORE_set_flags(SSL_CTX_get_cert_store(context.get()), X509_V_FLAG_PARTIAL_CHAIN);
  if (own != nullptr) {
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(read(own->pem, PEM_read_bio_X509),
                                                                  X509_free);
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(read(own->key_pem, PEM_read_bio_PrivateKey),
                                                                  EVP_PKEY_free);
    REQUIRE(SSL_CTX_use_certificate(context.get(), certificate.get()) == 1);
    REQUIRE(SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1);
  }
  return context;
}

void accepts(const TlsContext& server, const TlsContext& client, const std::string& host = "localhost") {
  asio::io_context io;
  LinkPair links(io, server, client, host);
  INFO("host " << host);
  CHECK(run_until(
      io, [&] { return links.is_open() || links.client_owner->closed + links.server_owner->closed > 0; }));
  CHECK(links.client_owner->detail == "");
  CHECK(links.server_owner->detail == "");
  CHECK(links.is_open());
}

// What the client says when it refuses the server's certificate, as it must.
std::string refusal(const TlsContext& server, const TlsContext& client,
                    const std::string& host = "localhost") {
  asio::io_context io;
  LinkPair links(io, server, client, host);
  INFO("host " << host);
  REQUIRE(run_until(io, [&] { return links.client_owner->opened + links.client_owner->closed > 0; }));
  CHECK(links.client_owner->opened == 0);
  CHECK(links.client_owner->reason == StateErrc::certificate_rejected);
  return links.client_owner->detail;
}

// The client refuses the server's certificate for that reason.
void refuses(const TlsContext& server, const TlsContext& client, const std::string& why,
             const std::string& host = "localhost") {
  INFO("expected: " << why);
  CHECK_THAT(refusal(server, client, host), contains_text(why));
}

// The server refuses the client's certificate.
void server_refuses(const TlsContext& server, const TlsContext& client, const std::string& why) {
  asio::io_context io;
  LinkPair links(io, server, client);
  REQUIRE(run_until(io, [&] { return links.server_owner->opened + links.server_owner->closed > 0; }));
  CHECK(links.server_owner->opened == 0);
  CHECK(links.server_owner->reason == StateErrc::certificate_rejected);
  CHECK_THAT(links.server_owner->detail, contains_text(why));
}

// What an authority issues for `usage`, good for localhost by name.
Certificate issued(const Certificate& authority, const std::string& usage) {
  return make_certificate({.alternative_names = "DNS:localhost",
                           .issuer = &authority,
                           .is_authority = false,
                           .extended_key_usage = usage});
}

}  // namespace

TEST_CASE("a common name is no host name: a server's certificate names its host in the SAN") {
  const bool is_own_context = GENERATE(false, true);
  const auto client = [&](const Certificate& c) {
    return is_own_context ? TlsContext(ClientTls::from_context(own_context(false, c, nullptr).get()))
                          : TlsContext(trusting(c));
  };
  const Certificate bare = make_certificate({.common_name = "localhost", .alternative_names = ""});
  refuses(server_of(bare), client(bare), "no subject alternative name");
  refuses(server_of(bare), client(bare), "expected 'localhost'");
  // An address in the common name, and a SAN without a host.
  const Certificate numeric = make_certificate({.common_name = "127.0.0.1", .alternative_names = ""});
  refuses(server_of(numeric), client(numeric), "expected '127.0.0.1'", "127.0.0.1");
  const Certificate mail =
      make_certificate({.common_name = "localhost", .alternative_names = "email:a@example.org"});
  refuses(server_of(mail), client(mail), "expected 'localhost'");
  const Certificate address =
      make_certificate({.common_name = "localhost", .alternative_names = "IP:127.0.0.1"});
  const std::string said = refusal(server_of(address), client(address));
  CHECK_THAT(said, contains_text("expected 'localhost'"));
  CHECK_THAT(said, !contains_text("no subject alternative name"));  // it has one
  accepts(server_of(address), client(address), "127.0.0.1");
  const Certificate named = make_certificate({.common_name = "x", .alternative_names = "DNS:localhost"});
  accepts(server_of(named), client(named));
  // A host name is not an address, nor the other way round.
  const Certificate text = make_certificate({.alternative_names = "DNS:127.0.0.1"});
  refuses(server_of(text), client(text), "expected '127.0.0.1'", "127.0.0.1");
}

TEST_CASE("a user's context that asks for less does not weaken the check of the name") {
  const Certificate bare = make_certificate({.common_name = "localhost", .alternative_names = ""});
  const auto context = own_context(false, bare, nullptr);
  X509_VERIFY_PARAM* const verify = SSL_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT);
  X509_VERIFY_PARAM_set1_host(verify, "other", 5);
  SSL_CTX_set_purpose(context.get(), X509_PURPOSE_ANY);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  refuses(server_of(bare), TlsContext(ClientTls::from_context(context.get())), "expected 'localhost'");
  refuses(server_of(bare), TlsContext(ClientTls::from_context(context.get()).verify_name("localhost")),
          "expected 'localhost'", "127.0.0.1");
}

TEST_CASE("a wildcard stands for one whole label, the first of three or more") {
  const bool is_own_context = GENERATE(false, true);
  const auto connect = [&](const std::string& pattern, const std::string& host, bool is_good) {
    INFO("'" << pattern << "', own context " << is_own_context);
    const Certificate wild = make_certificate({.alternative_names = "DNS:" + pattern});
    std::shared_ptr<SSL_CTX> own = own_context(false, wild, nullptr);
    // The flags of the user's own context do not count.
    X509_VERIFY_PARAM_set_hostflags(
        SSL_CTX_get0_param(own.get()),
        X509_CHECK_FLAG_MULTI_LABEL_WILDCARDS | X509_CHECK_FLAG_SINGLE_LABEL_SUBDOMAINS);
    const TlsContext client(is_own_context ? ClientTls::from_context(own.get()) : trusting(wild));
    is_good ? accepts(server_of(wild), client, host)
            : refuses(server_of(wild), client, "expected '" + host + "'", host);
  };
  connect("*.example.com", "a.example.com", true);
  connect("*.EXAMPLE.com", "a.example.com", true);
  connect("*.a.example.com", "b.a.example.com", true);
  connect("*.example.com", "example.com", false);
  connect("*.example.com", "a.b.example.com", false);
  connect("*.example.com", "a.example.org", false);
  // A part of a label.
  connect("f*.example.com", "foo.example.com", false);
  connect("*o.example.com", "foo.example.com", false);
  connect("f*o.example.com", "foo.example.com", false);
  connect("xn--*.example.com", "xn--foo.example.com", false);
  // Not the first label, or more than one.
  connect("foo.*.com", "foo.example.com", false);
  connect("foo.example.*", "foo.example.com", false);
  connect("*.*.com", "foo.example.com", false);
  connect("**.example.com", "foo.example.com", false);
  // Too much at once.
  connect("*.com", "example.com", false);
  connect("*.", "localhost", false);
  connect("*", "localhost", false);
  // A name that begins with a dot stands for no other name, and an address is no name.
  connect(".example.com", "foo.example.com", false);
  connect("*.0.0.1", "127.0.0.1", false);
  connect("127.0.0.1", "127.0.0.1", false);
}

TEST_CASE("an extended key usage must include serverAuth where a server shows the certificate") {
  const Certificate authority = make_certificate({.common_name = "authority"});
  const bool is_own_context = GENERATE(false, true);
  const bool is_trusted_itself = GENERATE(false, true);  // the certificate, not only its issuer
  const auto connect = [&](const std::string& usage, const char* why) {
    INFO("usage '" << usage << "', own context " << is_own_context << ", itself " << is_trusted_itself);
    const Certificate server =
        is_trusted_itself
            ? make_certificate(
                  {.alternative_names = "DNS:localhost", .is_authority = false, .extended_key_usage = usage})
            : issued(authority, usage);
    const Certificate& trusted = is_trusted_itself ? server : authority;
    std::shared_ptr<SSL_CTX> own = own_context(false, trusted, nullptr);
    SSL_CTX_set_purpose(own.get(), X509_PURPOSE_ANY);
    const TlsContext client(is_own_context ? ClientTls::from_context(own.get()) : trusting(trusted));
    why == nullptr ? accepts(server_of(server), client) : refuses(server_of(server), client, why);
  };
  connect("", nullptr);
  connect("serverAuth", nullptr);
  connect("serverAuth,clientAuth", nullptr);
  connect("critical,codeSigning,serverAuth", nullptr);
  connect("clientAuth", "serverAuth");
  connect("codeSigning", "serverAuth");
  connect("anyExtendedKeyUsage", "serverAuth");
  connect("msSGC", "serverAuth");
  connect("nsSGC", "serverAuth");
}

TEST_CASE("an extended key usage must include clientAuth where a client shows the certificate") {
  const Certificate authority = make_certificate({.common_name = "authority"});
  const Certificate server = make_certificate({});
  const bool is_own_context = GENERATE(false, true);
  const auto connect = [&](const std::string& usage, const char* why) {
    INFO("usage '" << usage << "', own context " << is_own_context);
    const Certificate own = issued(authority, usage);
    std::shared_ptr<SSL_CTX> context = own_context(true, authority, &server);
    SSL_CTX_set_purpose(context.get(), X509_PURPOSE_ANY);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    const TlsContext accepting(
        is_own_context
            ? ServerTls::from_context(context.get())
            : ServerTls::from_pem(server.pem, server.key_pem).require_client_certificates_pem(authority.pem));
    const TlsContext client(trusting(server).with_certificate_pem(own.pem, own.key_pem));
    why == nullptr ? accepts(accepting, client) : server_refuses(accepting, client, why);
  };
  connect("", nullptr);
  connect("clientAuth", nullptr);
  connect("serverAuth,clientAuth", nullptr);
  connect("serverAuth", "clientAuth");
  connect("codeSigning", "clientAuth");
  connect("anyExtendedKeyUsage", "clientAuth");
}

TEST_CASE("an authority whose extended key usage is for one side vouches for that side alone") {
  const Certificate root = make_certificate({.common_name = "root"});
  const auto chain_over = [&](const std::string& usage) {
    const Certificate between =
        make_certificate({.common_name = "between", .issuer = &root, .extended_key_usage = usage});
    Certificate leaf = issued(between, "");
    leaf.pem += between.pem;
    return leaf;
  };
  accepts(server_of(chain_over("serverAuth")), TlsContext(trusting(root)));
  refuses(server_of(chain_over("clientAuth")), TlsContext(trusting(root)), "purpose");
}

TEST_CASE("a client's certificate needs no name at all") {
  const Certificate authority = make_certificate({.common_name = "authority"});
  const Certificate server = make_certificate({});
  const Certificate own = make_certificate(
      {.common_name = "alice", .alternative_names = "", .issuer = &authority, .is_authority = false});
  accepts(TlsContext(
              ServerTls::from_pem(server.pem, server.key_pem).require_client_certificates_pem(authority.pem)),
          TlsContext(trusting(server).with_certificate_pem(own.pem, own.key_pem)));
}

TEST_CASE(
    "a client's certificate that says more than a server keeps is refused, and the client hears of it") {
  const Certificate authority = make_certificate({.common_name = "authority"});
  const Certificate server = make_certificate({});
  const auto own_with = [&](int count) {
    std::string names;
    for (int i = 0; i < count; ++i) names += (i == 0 ? "DNS:n" : ",DNS:n") + std::to_string(i);
    return make_certificate({.alternative_names = names, .issuer = &authority, .is_authority = false});
  };
  const Certificate many = own_with(256);
  const Certificate too_many = own_with(257);
  const TlsContext accepting(
      ServerTls::from_pem(server.pem, server.key_pem).require_client_certificates_pem(authority.pem));
  accepts(accepting, TlsContext(trusting(server).with_certificate_pem(many.pem, many.key_pem)));
  const TlsContext client(trusting(server).with_certificate_pem(too_many.pem, too_many.key_pem));
  server_refuses(accepting, client, "it holds 257 names: use one with at most 256");

  // Nor is it kept where a callback of the user's takes whatever comes.
  const auto lax = own_context(true, authority, &server);
  SSL_CTX_set_verify(lax.get(), SSL_VERIFY_PEER, [](int, X509_STORE_CTX* checked) {
    X509_STORE_CTX_set_error(checked, X509_V_OK);
    return 1;
  });
  asio::io_context io;
  LinkPair links(io, TlsContext(ServerTls::from_context(lax.get())), client);
  REQUIRE(run_until(io, [&] { return links.server_owner->opened + links.server_owner->closed > 0; }));
  CHECK(links.server_owner->opened == 0);
  CHECK(links.server_owner->reason == StateErrc::tls_failed);
  CHECK_THAT(links.server_owner->detail, contains_text("it holds 257 names"));
}

TEST_CASE("a server tells nothing of a client's certificate that was not verified") {
  const Certificate authority = make_certificate({.common_name = "authority"});
  const Certificate server = make_certificate({});
  const auto make_client = [](const Certificate* issuer, const std::string& usage, const std::string& until) {
    return make_certificate({.common_name = "alice",
                             .alternative_names = "DNS:alice.example.com",
                             .not_after = until,
                             .issuer = issuer,
                             .is_authority = false,
                             .extended_key_usage = usage});
  };
  const std::string later = "21260101000000Z";
  // The user's callback accepts every certificate, and leaves OpenSSL's finding as it is.
  const auto lax = own_context(true, authority, &server);
  SSL_CTX_set_verify(lax.get(), SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
  const auto told = [&](const Certificate& own) {
    asio::io_context io;
    LinkPair links(io, TlsContext(ServerTls::from_context(lax.get())),
                   TlsContext(trusting(server).with_certificate_pem(own.pem, own.key_pem)));
    REQUIRE(run_until(io, [&] { return links.is_open(); }));
    return links.server_owner->info.peer;
  };
  const auto check_untold = [&](const Certificate& own) {
    const ss::Peer peer = told(own);
    CHECK(peer.address == "10.0.0.1");
    CHECK(peer.certificate_subject.empty());
    CHECK(peer.certificate_serial.empty());
    CHECK(peer.certificate_names.empty());
  };
  SECTION("verified") {
    const ss::Peer peer = told(make_client(&authority, "clientAuth", later));
    CHECK(peer.certificate_subject == "CN=alice");
    CHECK(!peer.certificate_serial.empty());
    CHECK(peer.certificate_names == std::vector<std::string>{"DNS:alice.example.com"});
  }
  SECTION("signed by itself") { check_untold(make_client(nullptr, "clientAuth", later)); }
  SECTION("of another authority with the same name") {
    const Certificate other = make_certificate({.common_name = "authority"});
    check_untold(make_client(&other, "clientAuth", later));
  }
  SECTION("expired") { check_untold(make_client(&authority, "clientAuth", "20210101000000Z")); }
  SECTION("for servers only") { check_untold(make_client(&authority, "serverAuth", later)); }
}

TEST_CASE("what a client's certificate says is bounded in all") {
  const auto description_of = [](const support::CertificateOptions& options) {
    const Certificate made = make_certificate(options);
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
        BIO_new_mem_buf(made.pem.data(), static_cast<int>(made.pem.size())), BIO_free);
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(
        PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
    ss::Peer peer;
    try {
      ss::tcp::detail::describe_certificate(*certificate, peer);
    } catch (const ss::StateError& error) {
      CHECK(peer.certificate_subject.empty());
      return error.detail();
    }
    CHECK(!peer.certificate_subject.empty());
    return std::string();
  };
  const auto names_of_bytes = [](std::size_t bytes) {
    std::string names;
    for (int i = 0; i < 200; ++i)
      names += (i == 0 ? "URI:x:" : ",URI:x:") + std::string(bytes / 200 - 6, 'n');
    return names;
  };
  CHECK(description_of({.alternative_names = names_of_bytes(16'000)}).empty());
  CHECK_THAT(description_of({.alternative_names = names_of_bytes(16'600)}),
             contains_text("bytes as text: use a certificate where they take at most 16384"));
  CHECK(description_of({.alternative_names = ""}).empty());
}

TEST_CASE("a verify callback of the user's own has the last word, and learns what ours refused") {
  const Certificate client_only = make_certificate(
      {.common_name = "localhost", .alternative_names = "", .extended_key_usage = "clientAuth"});
  const auto context = own_context(false, client_only, nullptr);
  static int refused;
  refused = 0;
  SECTION("it accepts what is refused") {
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, [](int is_good, X509_STORE_CTX*) {
      if (is_good == 0) ++refused;
      return 1;
    });
    accepts(server_of(client_only), TlsContext(ClientTls::from_context(context.get())));
    CHECK(refused > 0);
  }
  SECTION("it refuses what is good") {
    const Certificate good = make_certificate({});
    const auto strict = own_context(false, good, nullptr);
    SSL_CTX_set_verify(strict.get(), SSL_VERIFY_PEER, [](int, X509_STORE_CTX* checked) {
      X509_STORE_CTX_set_error(checked, X509_V_ERR_APPLICATION_VERIFICATION);
      return 0;
    });
    refuses(server_of(good), TlsContext(ClientTls::from_context(strict.get())), "application verification");
  }
}

}  // namespace certificate_rules_test
