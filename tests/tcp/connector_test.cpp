// From endpoints to an open link, and from a listening socket to accepted ones.
#include "syncstate/tcp/connector.hpp"

#include <sys/resource.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/tcp/acceptor.hpp"
#include "tcp/link_harness.hpp"

#include <asio/strand.hpp>

namespace connector_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::StateError;
using ss::tcp::Acceptor;
using ss::tcp::ConnectorOptions;
using ss::tcp::Endpoint;
using ss::tcp::TlsConnector;
using ss::testing::contains_text;

// Accepts, and is a server to whoever comes.
struct Server {
  explicit Server(asio::io_context& io_, TlsContext tls_ = server_context(),
                  const Endpoint& at = {"127.0.0.1", 0})
      : io(io_), tls(std::move(tls_)), acceptor(io.get_executor(), ss::tcp::listen_on(at)) {
    acceptor.start([this](NativeSocket socket, std::string address) {
      addresses.push_back(address);
      owners.push_back(std::make_shared<Owner>());
      links.push_back(
          TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(socket)), tls, address));
      links.back()->start(owners.back());
    });
  }
  [[nodiscard]] Endpoint endpoint() const { return ss::tcp::parse_endpoint(acceptor.endpoint()); }

  asio::io_context& io;
  TlsContext tls;
  std::vector<std::string> addresses;
  std::vector<std::shared_ptr<Owner>> owners;
  std::vector<std::shared_ptr<TlsLink>> links;
  Acceptor acceptor;
};

// A port at which nobody listens.
Endpoint closed_port() {
  const NativeSocket listener = ss::tcp::listen_on({"127.0.0.1", 0});
  return ss::tcp::numeric_endpoint(ss::tcp::local_address(listener.get()));
}

// A server whose certificate is of no use to the client.
TlsContext stranger_context() {
  const support::Certificate stranger = support::make_certificate({.common_name = "stranger"});
  return TlsContext(ServerTls::from_pem(stranger.pem, stranger.key_pem));
}

}  // namespace

TEST_CASE("a connector finds its server by name, and frames travel") {
  asio::io_context io;
  Server server(io);
  const std::string host = GENERATE("127.0.0.1", "localhost");
  TlsConnector connector(io.get_executor(), {{host, server.endpoint().port}}, client_context());
  const auto owner = std::make_shared<Owner>();
  const std::shared_ptr<ss::Link> link = connector.connect(owner);
  CHECK(owner->opened == 0);
  REQUIRE(run_until(io, [&] { return owner->opened == 1; }));
  CHECK(owner->info.peer.address == "127.0.0.1");
  REQUIRE(server.addresses.size() == 1);
  CHECK(server.addresses.front() == "127.0.0.1");

  owner->outbox = "up";
  link->wake();
  REQUIRE(run_until(io, [&] { return server.owners.front()->received == "up"; }));
  server.owners.front()->outbox = "down";
  server.links.front()->wake();
  REQUIRE(run_until(io, [&] { return owner->received == "down"; }));

  link->close_gracefully();
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
  CHECK(owner.use_count() == 1);
  CHECK(link.use_count() == 1);
}

TEST_CASE("a connector works on a strand of a context with several threads") {
  asio::io_context io;
  Server server(io);
  const asio::any_io_executor strand = asio::make_strand(io.get_executor());
  TlsConnector connector(strand, {server.endpoint()}, client_context());
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->opened == 1; }));
}

TEST_CASE("every endpoint is tried in turn") {
  asio::io_context io;
  Server stranger(io, stranger_context());
  Server server(io);
  TlsConnector connector(io.get_executor(),
                         {closed_port(), {"no..such..name", 1}, stranger.endpoint(), server.endpoint()},
                         client_context());
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->opened == 1; }));
  CHECK(owner->closed == 0);
  CHECK(stranger.addresses.size() == 1);
  CHECK(server.addresses.size() == 1);
}

TEST_CASE("the last failure is reported, with the endpoint and the reason") {
  asio::io_context io;
  const auto owner = std::make_shared<Owner>();
  const auto fails = [&](std::vector<Endpoint> endpoints, ConnectorOptions options = {}) {
    TlsConnector connector(io.get_executor(), std::move(endpoints), client_context(), options);
    const auto link = connector.connect(owner);
    CHECK(owner->closed == 0);
    REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
    CHECK(owner->opened == 0);
    CHECK(link.use_count() == 1);
  };
  SECTION("refused") {
    const Endpoint nobody = closed_port();
    fails({nobody});
    CHECK(owner->reason == StateErrc::unavailable);
    CHECK(owner->detail == to_string(nobody) + ": Connection refused");
  }
  SECTION("refused at an address that was looked up") {
    const Endpoint nobody{"localhost", closed_port().port};
    fails({nobody});
    CHECK(owner->reason == StateErrc::unavailable);
    CHECK_THAT(owner->detail, contains_text(to_string(nobody) + " at "));
  }
  SECTION("no such name") {
    fails({{"no..such..name", 1}});
    CHECK(owner->reason == StateErrc::unavailable);
    CHECK_THAT(owner->detail, contains_text("no..such..name:1: "));
  }
  SECTION("a stranger's certificate") {
    Server stranger(io, stranger_context());
    fails({closed_port(), stranger.endpoint()});
    CHECK(owner->reason == StateErrc::certificate_rejected);
    CHECK_THAT(owner->detail, contains_text(to_string(stranger.endpoint()) + ": the server's certificate: "));
  }
  SECTION("a server that says nothing") {
    const NativeSocket mute = ss::tcp::listen_on({"127.0.0.1", 0});  // the kernel accepts for it
    ConnectorOptions options;
    options.link.handshake_time = 20ms;
    fails({ss::tcp::numeric_endpoint(ss::tcp::local_address(mute.get()))}, options);
    CHECK(owner->reason == StateErrc::peer_silent);
  }
}

TEST_CASE("an attempt can be called off at any stage") {
  asio::io_context io;
  const NativeSocket mute = ss::tcp::listen_on({"127.0.0.1", 0});
  const Endpoint silent = ss::tcp::numeric_endpoint(ss::tcp::local_address(mute.get()));
  const std::string host = GENERATE("localhost", "127.0.0.1");
  const int handlers = GENERATE(range(0, 6));
  INFO(host << " after " << handlers << " handlers");
  TlsConnector connector(io.get_executor(), {{host, silent.port}}, client_context());
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  for (int i = 0; i < handlers; ++i) io.poll_one();
  link->wake();
  if (handlers % 2 == 0) link->abort();
  link->close_gracefully();
  link->abort();
  CHECK(owner->closed == 0);
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
  CHECK(owner->reason == StateErrc::link_closed);
  io.restart();
  io.run();  // nothing is left behind that would keep the context busy
  CHECK(owner->closed == 1);
  CHECK(owner.use_count() == 1);
  CHECK(link.use_count() == 1);
}

TEST_CASE("a context destroyed amid an attempt lets the owner go") {
  auto io = std::make_unique<asio::io_context>();
  const NativeSocket mute = ss::tcp::listen_on({"127.0.0.1", 0});
  const Endpoint silent = ss::tcp::numeric_endpoint(ss::tcp::local_address(mute.get()));
  const std::string host = GENERATE("localhost", "127.0.0.1");
  const int handlers = GENERATE(range(0, 6));
  auto connector = std::make_unique<TlsConnector>(
      io->get_executor(), std::vector<Endpoint>{{host, silent.port}}, client_context());
  auto owner = std::make_shared<Owner>();
  const std::weak_ptr<Owner> watched = owner;
  const auto link = connector->connect(owner);
  owner->when_closed = [link] {};  // a cycle, as a session and its link are
  owner.reset();
  for (int i = 0; i < handlers; ++i) io->poll_one();
  CHECK(!watched.expired());
  io.reset();
  CHECK(watched.expired());
  link->abort();
}

TEST_CASE("a connector needs an endpoint that can be reached") {
  asio::io_context io;
  CHECK_THROWS_AS(TlsConnector(io.get_executor(), {}, client_context()), StateError);
  CHECK_THROWS_AS(TlsConnector(io.get_executor(), {{"localhost", 0}}, client_context()), StateError);
}

TEST_CASE("an acceptor says where it listens, and who comes") {
  asio::io_context io;
  Server server(io, server_context(), {"::", 0});  // v4 too, mapped into v6
  CHECK(server.acceptor.endpoint().starts_with("[::]:"));
  TlsConnector connector(io.get_executor(), {{"127.0.0.1", server.endpoint().port}}, client_context());
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->opened == 1; }));
  CHECK(server.addresses.front() == "127.0.0.1");
}

TEST_CASE("an address in use is an error with the system's reason") {
  const NativeSocket listener = ss::tcp::listen_on({"127.0.0.1", 0});
  const Endpoint taken = ss::tcp::numeric_endpoint(ss::tcp::local_address(listener.get()));
  try {
    const NativeSocket second = ss::tcp::listen_on(taken);
    FAIL("not refused");
  } catch (const StateError& error) {
    CHECK(error.code() == std::errc::address_in_use);
    CHECK_THAT(error.detail(), contains_text(to_string(taken)));
  }
  CHECK_THROWS_AS(ss::tcp::listen_on({"no..such..name", 0}), StateError);
  CHECK_THROWS_AS(Acceptor(asio::io_context().get_executor(), NativeSocket()), StateError);
}

TEST_CASE("an acceptor out of descriptors pauses, and comes back") {
  asio::io_context io;
  Server server(io);
  std::vector<NativeSocket> clients;
  const auto connect = [&] {
    const ss::tcp::detail::Resolved to = ss::tcp::detail::resolve_now(server.endpoint(), AI_NUMERICHOST);
    NativeSocket client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(client.get(), to.addresses[0].data(), to.addresses[0].size) == 0);
    clients.push_back(std::move(client));
  };
  connect();
  REQUIRE(run_until(io, [&] { return server.addresses.size() == 1; }));

  connect();
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{static_cast<rlim_t>(clients.back().get()),
                    before.rlim_max};  // every number below is taken
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  io.restart();
  std::size_t handlers = 0;
  const auto until = std::chrono::steady_clock::now() + 50ms;
  while (std::chrono::steady_clock::now() < until)
    handlers += io.run_for(until - std::chrono::steady_clock::now());
  const std::size_t accepted = server.addresses.size();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(accepted == 1);
  CHECK(handlers < 10);  // it does not spin

  REQUIRE(run_until(io, [&] { return server.addresses.size() == 2; }));
}

TEST_CASE("a stopped acceptor accepts nothing, and keeps no context busy") {
  asio::io_context io;
  auto server = std::make_unique<Server>(io);
  const Endpoint at = server->endpoint();
  server->acceptor.stop();
  io.run();
  const auto owner = std::make_shared<Owner>();
  TlsConnector connector(io.get_executor(), {at}, client_context());
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
  CHECK(owner->reason == StateErrc::unavailable);
}

}  // namespace connector_test
