// What a handshake costs is not for a stranger to choose.
#include <sys/socket.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "hostile/attacker.hpp"
#include "hostile/evil_server.hpp"
#include "support/catch.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/hello_guard.hpp"
#include "tcp/link_harness.hpp"

namespace tls_handshake_limits_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::StateError;
using ss::testing::contains_text;
namespace data = ss::tcp::test_data;

std::shared_ptr<SSL_CTX> client_with(const char* groups, const char* suites = nullptr) {
  auto context = RawPeer::make_context(false);
  REQUIRE(SSL_CTX_set1_groups_list(context.get(), groups) == 1);
  if (suites != nullptr) REQUIRE(SSL_CTX_set_ciphersuites(context.get(), suites) == 1);
  return context;
}

// A link of a server, and a raw client of any kind.
struct Handshake {
  Handshake(const ServerTls& tls, std::shared_ptr<SSL_CTX> client, ss::tcp::TlsLinkOptions options = {}) {
    SocketPair pair = connected_pair();
    peer = std::make_unique<RawPeer>(std::move(pair.client), false, std::move(client));
    link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), TlsContext(tls),
                                "10.0.0.1", options);
    link->start(owner);
  }
  // Runs until the link is open or closed; true if it is open.
  bool opens() {
    const bool is_over = run_until(
        io, [&] { return (owner->opened == 1 && peer->is_open()) || owner->closed == 1; },
        [&] {
          peer->take();
          peer->flush();
        });
    REQUIRE(is_over);
    return owner->closed == 0;
  }
  [[nodiscard]] int group() const { return static_cast<int>(SSL_get_negotiated_group(peer->ssl())); }

  asio::io_context io;
  std::shared_ptr<Owner> owner = std::make_shared<Owner>();
  std::unique_ptr<RawPeer> peer;
  std::shared_ptr<TlsLink> link;
};

ServerTls server_tls() { return ServerTls::from_pem(data::certificate_pem, data::private_key_pem); }

// A server that takes connections with a bare socket, for clients that speak no TLS.
struct RawClient {
  explicit RawClient(ss::tcp::TlsLinkOptions options = {}) {
    SocketPair pair = connected_pair();
    socket = std::move(pair.client);
    link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), server_context(),
                                "10.0.0.1", options);
    link->start(owner);
  }
  void send(std::string_view bytes) {
    REQUIRE(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
  }
  bool is_refused() {
    return run_until(io, [&] { return owner->closed == 1; });
  }

  asio::io_context io;
  std::shared_ptr<Owner> owner = std::make_shared<Owner>();
  NativeSocket socket;
  std::shared_ptr<TlsLink> link;
};

std::string number(std::size_t value, std::size_t width) {
  std::string bytes;
  for (std::size_t i = width; i-- > 0;) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}
std::string record(std::string_view content, char kind = 22) {
  return kind + std::string("\3\1", 2) + number(content.size(), 2) + std::string(content);
}
std::string client_hello(std::size_t claimed) { return std::string(1, '\1') + number(claimed, 3); }

// A client's context that shows this certificate.
std::shared_ptr<SSL_CTX> client_showing(const support::Certificate& certificate) {
  auto context = RawPeer::make_context(false);
  const auto leaf = std::move(
      ss::tcp::detail::read_certificates(ss::tcp::detail::PemSource::text(certificate.pem), "a certificate")
          .front());
  const auto key = ss::tcp::detail::read_private_key(ss::tcp::detail::PemSource::text(certificate.key_pem));
  REQUIRE(SSL_CTX_use_certificate(context.get(), leaf.get()) == 1);
  REQUIRE(SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1);
  return context;
}

// Why a remote with these options can't use its server.
std::string refusal_of_remote(ss::tcp::RemoteOptions options) {
  options.tls = ClientTls::from_pem(data::certificate_pem);
  options.password = "a password";
  const auto remote = std::make_shared<ss::tcp::TcpStateRemote>(std::move(options));
  ss::StateMap<std::string, std::string> map(remote);
  map.push("a key", "");
  try {
    map.freeze(hostile::patience);
  } catch (const StateError& error) {
    return error.what();
  }
  return "none";
}

bool passes(ss::tcp::detail::HelloGuard& guard, std::string_view bytes) {
  return guard.passes(ss::as_byte_view(bytes));
}

}  // namespace

TEST_CASE("key exchange groups that are dear to the server are refused") {
  const std::string groups = GENERATE("ffdhe8192", "ffdhe6144", "ffdhe4096", "ffdhe3072", "ffdhe2048",
                                      "P-521", "X448", "P-521:ffdhe8192");
  Handshake t(server_tls(), client_with(groups.c_str()));
  CHECK(!t.opens());
  CHECK(t.owner->reason == StateErrc::tls_failed);
  CHECK_THAT(t.owner->detail, contains_text("no suitable key share"));
}

TEST_CASE("X25519, P-256 and P-384 are taken, also after a share of a group that is not") {
  const auto [groups, expected] =
      GENERATE(table<std::string, int>({{"X25519", NID_X25519},
                                        {"P-256", NID_X9_62_prime256v1},
                                        {"P-384", NID_secp384r1},
                                        {"ffdhe8192:X25519", NID_X25519},
                                        {"P-521:ffdhe2048:P-384", NID_secp384r1}}));
  Handshake t(server_tls(), client_with(groups.c_str()));
  CHECK(t.opens());
  CHECK(t.group() == expected);
}

TEST_CASE("groups and cipher suites can be chosen, and hold for a context of the user's own, too") {
  const bool is_users = GENERATE(false, true);
  const auto context = RawPeer::make_context(true);
  REQUIRE(SSL_CTX_set1_groups_list(context.get(), "ffdhe8192:P-521:X25519") == 1);
  const ServerTls tls = is_users ? ServerTls::from_context(context.get()) : server_tls();

  CHECK(!Handshake(tls, client_with("ffdhe8192")).opens());
  CHECK(!Handshake(tls, client_with("X25519", "TLS_AES_128_CCM_SHA256")).opens());
  CHECK(Handshake(tls.with_groups("P-521"), client_with("P-521")).opens());
  CHECK(!Handshake(tls.with_groups("P-521"), client_with("X25519")).opens());
  const char* const suite = "TLS_CHACHA20_POLY1305_SHA256";
  CHECK(Handshake(tls.with_cipher_suites(suite), client_with("X25519", suite)).opens());
  CHECK(!Handshake(tls.with_cipher_suites(suite), client_with("X25519", "TLS_AES_256_GCM_SHA384")).opens());
}

TEST_CASE("a client offers its own groups and cipher suites, with a context of the user's own, too") {
  const bool is_users = GENERATE(false, true);
  const auto context = RawPeer::make_context(false);
  REQUIRE(SSL_CTX_load_verify_locations(context.get(), nullptr, "/") == 1);
  X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()),
                      ss::tcp::detail::read_certificates(
                          ss::tcp::detail::PemSource::text(data::certificate_pem), "the certificate")
                          .front()
                          .get());
  const ClientTls tls =
      is_users ? ClientTls::from_context(context.get()) : ClientTls::from_pem(data::certificate_pem);
  const auto opens = [](const ServerTls& server, const ClientTls& client) {
    asio::io_context io;
    LinkPair links(io, TlsContext(server), TlsContext(client));
    REQUIRE(run_until(io, [&] { return links.is_open() || links.client_owner->closed == 1; }));
    return links.is_open();
  };
  CHECK(opens(server_tls(), tls));
  CHECK(!opens(server_tls().with_groups("ffdhe2048"), tls));
  CHECK(opens(server_tls().with_groups("ffdhe2048"), tls.with_groups("ffdhe2048")));
  const std::string suite = "TLS_AES_128_CCM_SHA256";
  CHECK(!opens(server_tls().with_cipher_suites(suite), tls));
  CHECK(opens(server_tls().with_cipher_suites(suite), tls.with_cipher_suites(suite)));
}

TEST_CASE(
    "a list of groups or cipher suites that can't be used is refused, and the name that is wrong is said") {
  const auto refusal = [](auto tls) {
    try {
      const TlsContext context(tls);
    } catch (const StateError& error) {
      CHECK(error.code() == StateErrc::invalid_option);
      return error.detail();
    }
    return std::string("not refused");
  };
  const ClientTls client = ClientTls::from_pem(data::certificate_pem);
  for (const std::string wrong : {"X25518", "", "ffdhe", "rsa"}) {
    CHECK_THAT(refusal(server_tls().with_groups("X25519:" + wrong)), contains_text("'" + wrong + "'"));
    CHECK_THAT(refusal(client.with_groups(wrong + ":X25519")), contains_text("'" + wrong + "'"));
  }
  // One that TLS 1.2 alone has is of no use, either.
  for (const std::string wrong : {"AES", "", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}) {
    CHECK_THAT(refusal(server_tls().with_cipher_suites("TLS_AES_128_GCM_SHA256:" + wrong)),
               contains_text("'" + wrong + "'"));
    CHECK_THAT(refusal(client.with_cipher_suites(wrong)), contains_text("'" + wrong + "'"));
  }
  CHECK_THROWS_AS(TlsContext(ServerTls::from_context(RawPeer::make_context(true).get()).with_groups("no")),
                  StateError);
}

TEST_CASE("a ClientHello that claims to be long is refused when its length is read") {
  const std::size_t limit = ss::tcp::TlsLinkOptions().client_hello_bytes;
  const std::string claim = client_hello(limit + 1) + std::string(48, 'x');
  SECTION("in one record") {
    RawClient t;
    t.send(record(claim));
    CHECK(t.is_refused());
    CHECK(t.owner->reason == StateErrc::tls_failed);
    CHECK_THAT(t.owner->detail, contains_text("a ClientHello of " + std::to_string(limit + 1) + " bytes"));
  }
  SECTION("in records of one byte") {
    RawClient t;
    for (const char byte : claim.substr(0, 4)) t.send(record({&byte, 1}));
    CHECK(t.is_refused());
    CHECK_THAT(t.owner->detail, contains_text("a ClientHello of"));
  }
  SECTION("one that is as long as allowed is waited for") {
    RawClient t;
    t.send(record(client_hello(limit) + std::string(limit - 1, '\0')));
    for (int i = 0; i < 10; ++i) t.io.poll();
    CHECK(t.owner->closed == 0);
    t.send(record("x"));  // now it is whole, and nonsense
    CHECK(t.is_refused());
    CHECK_THAT(t.owner->detail, !contains_text("a ClientHello of"));
  }
}

TEST_CASE("the guard follows records and messages however they are cut") {
  const std::string fine = record(client_hello(10) + std::string(10, 'a')) + record("\1", 20) +
                           record(std::string(300, 'b'), 23) +
                           record(client_hello(20) + std::string(15, 'c')) + record(std::string(5, 'c'));
  const std::string wrong = record(client_hello(21));
  const std::size_t cut = GENERATE(1u, 2u, 3u, 7u, 64u, 10'000u);
  ss::tcp::detail::HelloGuard guard(20);
  for (std::size_t at = 0; at < fine.size(); at += cut) CHECK(passes(guard, fine.substr(at, cut)));
  bool passed = true;
  for (std::size_t at = 0; passed && at < wrong.size(); at += cut)
    passed = passes(guard, wrong.substr(at, cut));
  CHECK(!passed);
  CHECK(guard.refused_bytes() == 21);
}

TEST_CASE("a second ClientHello, after the server asked for another share, is guarded too") {
  ss::tcp::TlsLinkOptions options;
  Handshake t(server_tls(), client_with("ffdhe8192:X25519"), options);
  t.peer->think();
  t.peer->flush();
  char answer = 0;
  REQUIRE(
      run_until(t.io, [&] { return ::recv(t.peer->handle(), &answer, 1, MSG_PEEK | MSG_DONTWAIT) == 1; }));
  CHECK(t.owner->closed == 0);
  const std::string claim = record(client_hello(options.client_hello_bytes + 1));
  REQUIRE(::send(t.peer->handle(), claim.data(), claim.size(), MSG_NOSIGNAL) > 0);
  REQUIRE(run_until(t.io, [&] { return t.owner->closed == 1; }));
  CHECK_THAT(t.owner->detail, contains_text("a ClientHello of"));
}

TEST_CASE("a client's certificates may take so many bytes together") {
  const support::Certificate authority = support::make_certificate({.common_name = "an authority"});
  const support::Certificate client =
      support::make_certificate({.common_name = "a client", .issuer = &authority, .is_authority = false});
  const auto context = client_showing(client);
  const auto read = [](const std::string& pem) {
    return std::move(
        ss::tcp::detail::read_certificates(ss::tcp::detail::PemSource::text(pem), "a certificate").front());
  };
  const ServerTls tls = server_tls().require_client_certificates_pem(authority.pem);
  CHECK(Handshake(tls, context).opens());
  for (int i = 0; i < 60; ++i)
    REQUIRE(SSL_CTX_add1_chain_cert(context.get(), read(authority.pem).get()) == 1);
  Handshake t(tls, context);
  CHECK(!t.opens());
  CHECK_THAT(t.owner->detail, contains_text("excessive message size"));
  ss::tcp::TlsLinkOptions options;
  options.certificate_chain_bytes = 100'000;
  CHECK(Handshake(tls, context, options).opens());
}

TEST_CASE("a client closes a link whose server sends session tickets without end") {
  SocketPair pair = connected_pair();
  asio::io_context io;
  RawPeer server(std::move(pair.server), true);
  const auto owner = std::make_shared<Owner>();
  const auto link = TlsLink::make_client(ss::tcp::adopt(io.get_executor(), std::move(pair.client)),
                                         client_context(), "localhost", "10.0.0.2");
  link->start(owner);
  const auto exchange = [&] {
    server.take();
    server.flush();
  };
  REQUIRE(run_until(
      io, [&] { return owner->opened == 1 && server.is_open(); }, exchange));
  for (int i = 0; i < 50; ++i) {
    REQUIRE(SSL_new_session_ticket(server.ssl()) == 1);
    server.write("x");
  }
  CHECK(run_until(
      io, [&] { return owner->closed == 1; }, exchange));
  CHECK_THAT(owner->detail, contains_text("session tickets"));
  CHECK(owner->received.size() <= ss::tcp::TlsLinkOptions().key_updates_per_minute);
}

TEST_CASE("the limits that a server is given hold for the handshakes of its links", "[tcp]") {
  using Server = ss::tcp::TcpStateServer<std::string, std::string, int>;
  ss::tcp::ServerOptions options{.endpoint = "127.0.0.1:0", .tls = server_tls(), .password = "a password"};
  options.limits.authentication_time = 10 * hostile::patience;  // so that nothing else closes a link
  SECTION("the bytes of a ClientHello") {
    options.limits.client_hello_bytes = 1'000;
    Server server(options);
    server.start();
    const NativeSocket socket = hostile::connect_from("127.0.0.1", server.endpoint());
    REQUIRE(hostile::send_raw(socket, record(client_hello(1'001))));
    CHECK(hostile::waits_for_close(socket));
  }
  SECTION("the bytes of a client's certificates") {
    const support::Certificate authority = support::make_certificate({.common_name = "an authority"});
    const support::Certificate client =
        support::make_certificate({.common_name = "a client", .issuer = &authority, .is_authority = false});
    options.limits.certificate_chain_bytes = 100;
    options.tls = options.tls.require_client_certificates_pem(authority.pem);
    Server server(options);
    server.start();
    hostile::Attacker peer("127.0.0.1", server.endpoint(), client_showing(client));
    peer.shake_hands();  // as far as the client knows, it may have done that
    CHECK(peer.waits_for_close());
  }
  SECTION("key updates") {
    options.limits.key_updates_per_minute = 2;
    Server server(options);
    server.start();
    hostile::Attacker peer("127.0.0.1", server.endpoint());
    REQUIRE(peer.shake_hands());
    for (int i = 0; i < 3; ++i) {
      REQUIRE(SSL_key_update(peer.peer().ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
      REQUIRE(SSL_do_handshake(peer.peer().ssl()) == 1);
    }
    CHECK(peer.waits_for_close());
  }
}

TEST_CASE("the limits that a remote is given hold for the handshakes of its links", "[tcp]") {
  // OpenSSL sends two session tickets behind each handshake unless it is told not to.
  const hostile::EvilServer server([](hostile::EvilLink& link) {
    link.welcome("a password");
    link.await<ss::protocol::Goodbye>();
  });
  ss::tcp::RemoteOptions options{.endpoint = server.endpoint()};
  SECTION("the bytes of the server's certificates") {
    options.limits.certificate_chain_bytes = 100;
    CHECK_THAT(refusal_of_remote(options), contains_text("excessive message size"));
  }
  SECTION("session tickets") {
    options.limits.key_updates_per_minute = 1;
    CHECK_THAT(refusal_of_remote(options), contains_text("too many key updates or session tickets"));
  }
}

}  // namespace tls_handshake_limits_test
