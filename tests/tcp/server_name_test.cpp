// What a host that a user typed means: as a value, in a certificate, and over a connection to it.
#include "syncstate/tcp/server_name.hpp"

#include <openssl/ssl.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "syncstate/tcp.hpp"
#include "tcp/link_harness.hpp"

namespace server_name_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::StateError;
using ss::tcp::parse_server_name;
using ss::tcp::ServerName;
using ss::testing::contains_text;
using support::Certificate;
using support::make_certificate;

// What the client of a link to `host` says in its ClientHello; "-": nothing.
std::string sent_name(const std::string& host) {
  asio::io_context io;
  SocketPair pair = connected_pair();
  RawPeer server(std::move(pair.server), true);
  const auto owner = std::make_shared<Owner>();
  const auto client = TlsLink::make_client(ss::tcp::adopt(io.get_executor(), std::move(pair.client)),
                                           client_context(), host, "10.0.0.1");
  client->start(owner);
  REQUIRE(run_until(
      io, [&] { return server.is_open() || owner->closed > 0; },
      [&] {
        server.take();
        server.flush();
      }));
  const char* name = SSL_get_servername(server.ssl(), TLSEXT_NAMETYPE_host_name);
  return name == nullptr ? "-" : name;
}

const std::string long_label(63, 'a');

}  // namespace

TEST_CASE("a host is what is meant, not how it is typed") {
  const auto text = [](std::string_view typed) { return parse_server_name(typed).text; };
  const auto is_address = [](std::string_view typed) { return parse_server_name(typed).is_address(); };
  CHECK(text("localhost") == "localhost");
  CHECK(text("localhost.") == "localhost");
  CHECK(text("LocalHost") == "localhost");
  CHECK(text("a-b_c.1.example") == "a-b_c.1.example");
  CHECK(text("xn--gre-6ka8i.example") == "xn--gre-6ka8i.example");
  CHECK(text(long_label + ".example") == long_label + ".example");
  CHECK_FALSE(is_address("localhost."));
  CHECK_FALSE(is_address("1.example"));
  CHECK_FALSE(is_address("300.1.1.1"));

  for (const char* typed :
       {"127.0.0.1", "127.0.0.1.", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "::ffff:127.0.0.1",
        "::FFFF:7f00:1", "0:0:0:0:0:ffff:127.0.0.1", "[::ffff:127.0.0.1]", "::ffff:127.0.0.1%lo"}) {
    INFO(typed);
    CHECK(parse_server_name(typed) == ServerName{"127.0.0.1", std::string("\x7f\0\0\1", 4)});
  }
  CHECK(text("::1") == "::1");
  CHECK(text("[::1]") == "::1");
  CHECK(text("0:0::1") == "::1");
  CHECK(text("FE80::A") == "fe80::a");
  CHECK(text("fe80::1%eth0") == "fe80::1");
  CHECK(text("[fe80::1%2]") == "fe80::1");
  CHECK(parse_server_name("fe80::1%eth0") == parse_server_name("fe80::1"));
  CHECK(parse_server_name("::1").address_bytes == std::string(15, '\0') + "\1");
  CHECK_THROWS_AS(parse_server_name("[localhost]"), StateError);
  CHECK(text("::127.0.0.1") == "::127.0.0.1");  // another address than 127.0.0.1
}

TEST_CASE("what is no host is refused, as the host of an endpoint and as the name to verify") {
  using namespace std::string_literals;
  const std::string host = GENERATE_COPY(values<std::string>({".",
                                                              "..",
                                                              ".example.com",
                                                              ".localhost",
                                                              "a..b",
                                                              "localhost..",
                                                              "a.b..",
                                                              "*",
                                                              "*.example.com",
                                                              "local host",
                                                              "localhost\n",
                                                              "a\tb",
                                                              "a/b",
                                                              "user@host",
                                                              "a,b",
                                                              "größe.example",
                                                              "localhost\0"s,
                                                              "localhost\0.evil.example"s,
                                                              "127.0.0.1\0x"s,
                                                              "\0"s,
                                                              "\x1b[31mred",
                                                              "a%eth0",
                                                              "127.0.0.1%eth0",
                                                              "::g",
                                                              ":::",
                                                              "fe80::1%",
                                                              "1:2:3",
                                                              "::1\0"s,
                                                              "[]",
                                                              "::ffff:127.0.0.1.2",
                                                              long_label + "a.example",
                                                              std::string(200, 'a') + "." + long_label,
                                                              "127.0.0.1:80"}));
  const auto refuses = [&](const char* what, auto use) {
    INFO(what << " " << host);
    try {
      use();
      FAIL("not refused");
    } catch (const StateError& error) {
      CHECK(error.code() == StateErrc::invalid_option);
      // Nothing that steers a terminal.
      CHECK(std::string_view(error.detail()).find_first_of("\x1b\n\t") == std::string_view::npos);
    }
  };
  refuses("name", [&] { (void)parse_server_name(host); });
  refuses("verify_name", [&] {
    (void)TlsContext(ClientTls::from_pem(ss::tcp::test_data::certificate_pem).verify_name(host));
  });
  refuses("endpoint", [&] { (void)ss::tcp::parse_endpoint(host + ":80"); });
  refuses("v6 endpoint", [&] { (void)ss::tcp::parse_endpoint("[" + host + "]:80"); });
  refuses("link", [&] { (void)client_context().make_client_ssl(host); });
  refuses("remote", [&] {
    ss::tcp::RemoteOptions options{.endpoint = "localhost:1", .password = "p"};
    options.tls = ClientTls::from_pem(ss::tcp::test_data::certificate_pem).verify_name(host);
    (void)ss::tcp::TcpStateRemote(options);
  });
}

TEST_CASE("a certificate is matched against what is meant") {
  const auto accepts = [](const std::string& alternative_names, const std::string& host) {
    const Certificate c = make_certificate({.alternative_names = alternative_names});
    const bool is_asked_for = GENERATE_COPY(false, true);  // by `verify_name`
    INFO(host << " for " << alternative_names << ", asked for: " << is_asked_for);
    asio::io_context io;
    ClientTls tls = ClientTls::from_pem(c.pem);
    if (is_asked_for) tls = tls.verify_name(host);
    LinkPair links(io, TlsContext(ServerTls::from_pem(c.pem, c.key_pem)), TlsContext(tls),
                   is_asked_for ? "192.0.2.1" : host);
    REQUIRE(run_until(io, [&] { return links.is_open() || links.client_owner->closed > 0; }));
    return links.is_open();
  };
  CHECK(accepts("DNS:example.org", "example.org."));
  CHECK(accepts("DNS:example.org", "EXAMPLE.ORG"));
  CHECK(accepts("DNS:EXAMPLE.org", "example.org."));
  CHECK(accepts("IP:fe80::1", "fe80::1%eth0"));
  CHECK(accepts("IP:fe80::1", "fe80::1%no-such-device"));
  CHECK(accepts("IP:127.0.0.1", "::ffff:127.0.0.1"));
  CHECK(accepts("IP:127.0.0.1", "::ffff:7f00:1"));
  CHECK(accepts("IP:127.0.0.1", "127.1"));
  CHECK(accepts("IP:127.0.0.1", "127.0.0.1."));
  CHECK(accepts("IP:::1", "[::1]"));
  CHECK(accepts("IP:::1", "0:0:0:0:0:0:0:1"));
  // The certificate may hold the mapped form, too.
  CHECK(accepts("IP:::ffff:127.0.0.1", "::ffff:127.0.0.1"));
  CHECK(accepts("IP:::ffff:127.0.0.1", "127.0.0.1"));
  CHECK_FALSE(accepts("IP:::ffff:127.0.0.1", "127.0.0.2"));
  CHECK_FALSE(accepts("IP:127.0.0.2", "::ffff:127.0.0.1"));
  CHECK_FALSE(accepts("IP:::127.0.0.1", "127.0.0.1"));
  CHECK_FALSE(accepts("IP:fe80::2", "fe80::1%eth0"));
  CHECK_FALSE(accepts("DNS:example.org", "example.com."));
  CHECK_FALSE(accepts("DNS:sub.example.org", "example.org"));
  CHECK_FALSE(accepts("DNS:fe80::1", "fe80::1"));
}

TEST_CASE("a client asks for a server by its name, never by an address") {
  CHECK(sent_name("localhost") == "localhost");
  CHECK(sent_name("localhost.") == "localhost");
  CHECK(sent_name("LOCALHOST") == "localhost");
  for (const char* address :
       {"127.0.0.1", "127.0.0.1.", "127.1", "::1", "[::1]", "::ffff:127.0.0.1", "fe80::1%eth0"}) {
    CHECK(sent_name(address) == "-");
  }
}

TEST_CASE("a server is reached by every way to type its host", "[tcp]") {
  using Server = ss::tcp::TcpStateServer<std::string, std::string, std::string>;
  const auto options = [](const std::string& endpoint) {
    return ss::tcp::ServerOptions{
        .endpoint = endpoint,
        .tls = ServerTls::from_pem(ss::tcp::test_data::certificate_pem, ss::tcp::test_data::private_key_pem),
        .password = "a password"};
  };
  Server v4(options("127.0.0.1:0"));
  Server v6(options("[::1]:0"));
  v4.start();
  v6.start();
  const auto port = [](const Server& server) {
    return std::to_string(ss::tcp::parse_endpoint(server.endpoint()).port);
  };
  const auto reaches = [](const std::string& endpoint) {
    INFO(endpoint);
    ss::StateMap<std::string, std::string> map(std::make_shared<ss::tcp::TcpStateRemote>(
        ss::tcp::RemoteOptions{.endpoint = endpoint,
                               .tls = ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
                               .password = "a password"}));
    map.push("a", "1");
    CHECK_NOTHROW(map.freeze(20s));
  };
  for (const char* host : {"127.0.0.1", "localhost", "localhost.", "LOCALHOST.", "127.1", "127.0.0.1.",
                           "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"}) {
    reaches(host + (":" + port(v4)));
  }
  for (const char* host : {"[::1]", "[0::1]"}) reaches(host + (":" + port(v6)));
}

}  // namespace server_name_test
