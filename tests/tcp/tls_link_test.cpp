// The traps of a TLS link, each sprung on purpose, over real sockets.
#include "syncstate/tcp/tls_link.hpp"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "support/catch.hpp"
#include "tcp/link_harness.hpp"

namespace tls_link_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::testing::contains_text;

// A server link with a raw client at the other end, both through their handshake.
struct WithRawClient {
  explicit WithRawClient(int buffer_bytes = 0, ss::tcp::TlsLinkOptions options = {}) {
    SocketPair pair = connected_pair(buffer_bytes);
    peer = std::make_unique<RawPeer>(std::move(pair.client), false);
    handle = pair.server.get();
    link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), server_context(),
                                "10.0.0.1", options);
    link->start(owner);
  }

  void exchange() {
    peer->take();
    peer->flush();
  }
  bool open() {
    return run_until(
        io, [&] { return owner->opened == 1 && peer->is_open(); }, [&] { exchange(); });
  }
  // Runs the link until nothing more happens by itself.
  void settle() {
    for (std::size_t ran = 1; ran > 0;) {
      io.restart();
      ran = io.poll();
    }
  }

  asio::io_context io;
  std::shared_ptr<Owner> owner = std::make_shared<Owner>();
  std::unique_ptr<RawPeer> peer;
  int handle = -1;  // the link's
  std::shared_ptr<TlsLink> link;
};

}  // namespace

TEST_CASE("two links open, agree on the channel binding, and carry bytes both ways") {
  asio::io_context io;
  LinkPair links(io);
  REQUIRE(run_until(io, [&] { return links.is_open(); }));
  CHECK(links.server_owner->info.channel_binding.size() == 32);
  CHECK(links.server_owner->info.channel_binding == links.client_owner->info.channel_binding);
  CHECK(links.server_owner->info.peer.address == "10.0.0.1");
  CHECK(links.server_owner->info.peer.certificate_subject.empty());
  CHECK(links.client_owner->info.peer.address == "10.0.0.2");

  const std::string up = pattern(3'000'000);
  const std::string down = pattern(2'000'001);
  links.client_owner->outbox = up;
  links.server_owner->outbox = down;
  links.client->wake();
  links.server->wake();
  REQUIRE(run_until(io, [&] {
    return links.server_owner->received.size() >= up.size() &&
           links.client_owner->received.size() >= down.size();
  }));
  CHECK(links.server_owner->received == up);
  CHECK(links.client_owner->received == down);

  LinkPair others(io);
  REQUIRE(run_until(io, [&] { return others.is_open(); }));
  CHECK(others.server_owner->info.channel_binding != links.server_owner->info.channel_binding);
}

TEST_CASE("a link takes bytes that come one at a time") {
  WithRawClient t;
  const std::string text = pattern(20'000);
  bool has_written = false;
  REQUIRE(run_until(
      t.io, [&] { return t.owner->received.size() >= text.size(); },
      [&] {
        t.peer->take();
        if (t.peer->is_open() && !std::exchange(has_written, true)) t.peer->write(text);
        t.peer->flush(1);
      }));
  CHECK(t.owner->received == text);
}

TEST_CASE("frames that come together with the end of the handshake are read") {
  WithRawClient t;
  REQUIRE(run_until(
      t.io, [&] { return t.peer->is_open(); },
      [&] {
        t.peer->take();
        if (!t.peer->is_open()) t.peer->flush();
      }));
  t.peer->write("first");  // the client's Finished has not been sent yet: one segment holds both
  CHECK(t.owner->opened == 0);
  t.peer->flush();
  REQUIRE(run_until(t.io, [&] { return !t.owner->received.empty(); }));
  CHECK(t.owner->received == "first");
}

TEST_CASE("bytes already decrypted raise no readiness, and are read all the same") {
  WithRawClient t;
  REQUIRE(t.open());
  // Small records, so that many lie in one read-ahead; a little more than a turn's worth, so that a turn ends
  // when OpenSSL holds the rest and the socket nothing.
  const std::string text = pattern(GENERATE(range(66'500u, 84'000u, 700u)));
  for (std::size_t at = 0; at < text.size(); at += 700) t.peer->write(std::string_view(text).substr(at, 700));
  while (t.peer->flush()) {
  }
  REQUIRE(run_until(
      t.io, [&] { return t.owner->received.size() >= text.size(); }, [&] { t.peer->flush(); }));
  CHECK(t.owner->received == text);
}

TEST_CASE("a turn reads no more than its share, and goes on by itself") {
  WithRawClient t;
  REQUIRE(t.open());
  const std::string text = pattern(200'000);
  t.peer->write(text);
  REQUIRE(run_until(t.io, [&] { return !t.peer->flush(); }));  // all of it is in the kernels' buffers
  std::size_t turns = 0;
  while (t.owner->received.size() < text.size() && turns < 1'000) {
    const std::size_t before = t.owner->received.size();
    t.io.restart();
    REQUIRE(t.io.run_one_for(10s) == 1);
    CHECK(t.owner->received.size() - before <= (std::size_t{80} << 10));
    ++turns;
    t.peer->flush();
  }
  CHECK(t.owner->received == text);
}

TEST_CASE("a turn reads no more than 1,024 records, however small they are") {
  WithRawClient t;
  REQUIRE(t.open());
  constexpr std::size_t records = 3'000;
  for (std::size_t i = 0; i < records; ++i) t.peer->write("x");
  while (t.peer->flush()) {
  }
  std::size_t most = 0;
  for (int turns = 0; t.owner->received.size() < records && turns < 1'000; ++turns) {
    const std::size_t before = t.owner->received.size();
    t.io.restart();
    REQUIRE(t.io.run_one_for(10s) == 1);
    most = std::max(most, t.owner->received.size() - before);
    t.peer->flush();
  }
  CHECK(t.owner->received.size() == records);
  CHECK(most <= 1'024);
}

TEST_CASE("produce is not called while earlier bytes are not wholly taken") {
  WithRawClient t(4'096);
  REQUIRE(t.open());
  const std::string text = pattern(4'000'000);
  t.owner->outbox = text;
  t.link->wake();
  t.settle();
  const int produced = t.owner->produced;
  CHECK(!t.owner->outbox.empty());
  CHECK(text.size() - t.owner->outbox.size() < 1'000'000);  // and the kernel holds little
  for (int i = 0; i < 100; ++i) {
    t.link->wake();
    t.settle();
  }
  CHECK(t.owner->produced == produced);

  // Input is taken meanwhile.
  t.peer->write("still here");
  t.peer->flush();
  t.settle();
  CHECK(t.owner->received == "still here");
  CHECK(t.owner->produced == produced);

  REQUIRE(run_until(
      t.io, [&] { return t.peer->received.size() >= text.size(); }, [&] { t.exchange(); }));
  CHECK(t.peer->received == text);
  CHECK(t.owner->outbox.empty());
}

TEST_CASE("no more than one frame is in flight") {
  WithRawClient t(4'096);
  constexpr std::size_t frame = 1'000;
  t.owner->frame_bytes = frame;
  REQUIRE(t.open());
  t.owner->outbox = pattern(1'000'000);
  t.link->wake();
  t.settle();
  // What the kernel took arrives, though the link does nothing more; all else must be one frame.
  const std::size_t produced = 1'000'000 - t.owner->outbox.size();
  REQUIRE(produced > 2 * frame);
  REQUIRE(run_until(
      t.io, [&] { return produced - t.peer->received.size() <= frame; }, [&] { t.peer->take(); }, false));
}

TEST_CASE("the kernel's queue of unsent bytes is short") {
  WithRawClient t;
  REQUIRE(t.open());
  t.owner->outbox = pattern(30'000'000);
  t.link->wake();
  t.settle();
  REQUIRE(!t.owner->outbox.empty());
  int unsent = 0;
  REQUIRE(::ioctl(t.handle, SIOCOUTQNSD, &unsent) == 0);
  CHECK(unsent > 0);
  CHECK(unsent <= 128 << 10);  // 64 KiB, and the kernel's rounding
}

TEST_CASE("a wake in the middle of a turn is not lost") {
  WithRawClient t;
  REQUIRE(t.open());
  t.settle();
  t.owner->when_bytes = [&] {
    t.owner->outbox += "answer";
    t.link->wake();
    CHECK(t.peer->received.empty());
  };
  t.peer->write("question");
  t.peer->flush();
  REQUIRE(run_until(
      t.io, [&] { return !t.peer->received.empty(); }, [&] { t.exchange(); }));
  CHECK(t.peer->received == "answer");
}

TEST_CASE("the peer's key update is obeyed while our socket is full") {
  WithRawClient t(4'096);
  REQUIRE(t.open());
  const std::string text = pattern(3'000'000);
  t.owner->outbox = text;
  t.link->wake();
  t.settle();
  REQUIRE(!t.owner->outbox.empty());

  std::string sent;
  for (int round = 0; round < 5; ++round) {
    REQUIRE(SSL_key_update(t.peer->ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
    t.peer->write("after an update;");
    sent += "after an update;";
    t.peer->flush();
    t.settle();
    CHECK(t.owner->closed == 0);
  }
  // Both directions go on, each under its new keys.
  REQUIRE(run_until(
      t.io, [&] { return t.peer->received.size() >= text.size() && t.owner->received.size() >= sent.size(); },
      [&] { t.exchange(); }));
  CHECK(t.peer->received == text);
  CHECK(t.owner->received == sent);
  CHECK(t.owner->closed == 0);
}

TEST_CASE("key updates in both directions in the middle of traffic") {
  WithRawClient t(4'096);
  REQUIRE(t.open());
  const std::string down = pattern(1'000'000);
  const std::string up = pattern(1'000'000);
  t.owner->outbox = down;
  t.link->wake();
  std::size_t written = 0;
  REQUIRE(run_until(
      t.io, [&] { return t.peer->received.size() >= down.size() && t.owner->received.size() >= up.size(); },
      [&] {
        if (written < up.size()) {
          if (written % 200'000 == 0) SSL_key_update(t.peer->ssl(), SSL_KEY_UPDATE_REQUESTED);
          t.peer->write(std::string_view(up).substr(written, 1'000));
          written += 1'000;
        }
        t.exchange();
      }));
  CHECK(t.peer->received == down);
  CHECK(t.owner->received == up);
}

TEST_CASE("a peer that asks for more key updates than a minute has is closed at once, whatever it reads") {
  const bool reads = GENERATE(true, false);
  WithRawClient t(4'096);
  REQUIRE(t.open());
  if (!reads) {  // the link can't send its answers: they are kept
    t.owner->outbox = pattern(2'000'000);
    t.link->wake();
    t.settle();
    REQUIRE(!t.owner->outbox.empty());
  }
  const std::size_t allowed = ss::tcp::TlsLinkOptions().key_updates_per_minute;
  const auto ask = [&](std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
      SSL_key_update(t.peer->ssl(), SSL_KEY_UPDATE_REQUESTED);
      t.peer->write("x");
    }
    while (t.peer->flush()) {
    }
  };
  ask(allowed);
  REQUIRE(run_until(
      t.io, [&] { return t.owner->received.size() == allowed; },
      [&] { reads ? t.exchange() : (void)t.peer->flush(); }));
  CHECK(t.owner->closed == 0);

  // All in one piece: what comes after the first of them is not looked at any more.
  ask(50);
  REQUIRE(run_until(
      t.io, [&] { return t.owner->closed == 1; }, [&] { t.peer->flush(); }));
  CHECK(t.owner->reason == ss::StateErrc::tls_failed);
  CHECK_THAT(t.owner->detail, contains_text("key updates"));
  CHECK(t.owner->received.size() == allowed);
}

TEST_CASE("a close while we write ends the link once, and raises no SIGPIPE") {
  const bool says_goodbye = GENERATE(true, false);
  WithRawClient t(4'096);
  REQUIRE(t.open());
  t.owner->outbox = pattern(4'000'000);
  t.link->wake();
  t.settle();
  if (says_goodbye) {
    SSL_shutdown(t.peer->ssl());
    t.peer->flush();
  }
  t.peer->close();  // with unread bytes: a reset
  t.owner->outbox += "more";
  t.link->wake();
  REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
  t.settle();
  CHECK(t.owner->closed == 1);
  CHECK(t.owner->reason == StateErrc::link_closed);
}

TEST_CASE("what the peer said before it closed is heard, though our writing fails first") {
  WithRawClient t;
  REQUIRE(t.open());
  t.settle();
  t.owner->outbox = "not read by the peer";
  t.link->wake();
  t.settle();
  t.peer->write("goodbye");
  t.peer->flush();
  t.peer->close();
  t.owner->when_bytes = [&] { t.link->wake(); };
  // The posted turn writes before any readiness is looked at.
  t.owner->outbox = pattern(100'000);
  t.link->wake();
  REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
  CHECK(t.owner->received == "goodbye");
  CHECK(t.owner->reason == StateErrc::link_closed);
}

TEST_CASE("the reason of a lost link is told") {
  WithRawClient t;
  REQUIRE(t.open());
  SECTION("close_notify") {
    SSL_shutdown(t.peer->ssl());
    t.peer->flush();
    REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
    CHECK(t.owner->detail == "closed by the peer");
  }
  SECTION("a truncated stream") {
    t.peer->close();
    REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
    CHECK_THAT(t.owner->detail, contains_text("without a goodbye"));
  }
  SECTION("a reset") {
    const linger hard{1, 0};
    ::setsockopt(t.peer->handle(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    t.peer->close();
    REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
    CHECK_THAT(t.owner->detail, contains_text("reset"));
  }
  CHECK(t.owner->reason == StateErrc::link_closed);
  CHECK(t.owner->closed == 1);
}

TEST_CASE("bytes that are no TLS end the link") {
  WithRawClient t;
  REQUIRE(t.open());
  const std::string noise = pattern(100);
  ::send(t.peer->handle(), noise.data(), noise.size(), MSG_NOSIGNAL);
  REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
  CHECK(t.owner->reason == StateErrc::tls_failed);
}

TEST_CASE("a graceful close sends what is left, then the end") {
  WithRawClient t(4'096);
  REQUIRE(t.open());
  const std::string text = pattern(500'000);
  t.owner->outbox = text;
  t.link->close_gracefully();
  REQUIRE(run_until(
      t.io, [&] { return t.peer->saw_close_notify; }, [&] { t.exchange(); }));
  CHECK(t.peer->received == text);
  CHECK(t.owner->closed == 0);  // lingers until the peer has closed, too
  t.peer->write("too late");
  t.peer->flush();
  t.settle();
  CHECK(t.owner->received.empty());
  t.peer->close();
  REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
  CHECK(t.owner->reason == StateErrc::link_closed);
  CHECK(t.owner->detail == "closed by this side");
}

TEST_CASE("a graceful close gives up on a peer that does not read") {
  WithRawClient t(4'096, {.handshake_time = 5s, .close_time = 20ms});
  REQUIRE(t.open());
  t.owner->outbox = pattern(4'000'000);
  t.link->close_gracefully();
  REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
  CHECK(t.owner->reason == StateErrc::link_closed);
}

TEST_CASE("a handshake that does not come to an end is given up") {
  WithRawClient t(0, {.handshake_time = 20ms});
  REQUIRE(run_until(t.io, [&] { return t.owner->closed > 0; }));
  CHECK(t.owner->opened == 0);
  CHECK(t.owner->reason == StateErrc::peer_silent);
  CHECK_THAT(t.owner->detail, contains_text("too long"));
}

TEST_CASE("abort is safe inside every callback, and its owner is let go") {
  WithRawClient t;
  const std::string where = GENERATE("on_open", "on_bytes", "produce");
  INFO(where);
  bool is_inside = false;
  const auto abort = [&] {
    is_inside = true;
    t.link->abort();
    t.link->abort();
    t.link->wake();
    t.link->close_gracefully();
    CHECK(t.owner->closed == 0);  // never from inside
    is_inside = false;
  };
  t.owner->when_closed = [&] { CHECK(!is_inside); };
  if (where == "on_open") t.owner->when_open = abort;
  if (where == "on_bytes") t.owner->when_bytes = abort;
  if (where == "produce") t.owner->when_produce = abort;
  bool has_written = false;
  REQUIRE(run_until(
      t.io, [&] { return t.owner->closed > 0; },
      [&] {
        if (t.peer->is_open() && !std::exchange(has_written, true)) t.peer->write("hello");
        t.exchange();
      }));
  t.settle();
  CHECK(t.owner->closed == 1);
  CHECK(t.owner->reason == StateErrc::link_closed);
  CHECK(t.owner.use_count() == 1);
  CHECK(t.link.use_count() == 1);
}

TEST_CASE("link and owner may hold each other: the end of either kind frees both") {
  auto io = std::make_unique<asio::io_context>();
  LinkPair links(*io);
  REQUIRE(run_until(*io, [&] { return links.is_open(); }));
  links.server_owner->when_closed = [link = links.server] {};
  links.client_owner->when_closed = [link = links.client] {};
  const std::weak_ptr<Owner> server = links.server_owner;
  const std::weak_ptr<Owner> client = links.client_owner;
  const std::shared_ptr<TlsLink> kept = links.client;
  links.server_owner.reset();
  links.client_owner.reset();
  links.server.reset();
  links.client.reset();
  CHECK(!server.expired());
  CHECK(!client.expired());

  SECTION("closed") {
    kept->abort();
    REQUIRE(run_until(*io, [&] { return client.expired(); }));
    // The server's owner is let go after its call; the cycle through its own callback goes with it.
    REQUIRE(run_until(*io, [&] { return server.expired(); }));
  }
  SECTION("the context is destroyed first") {
    io.reset();
    CHECK(client.expired());
    CHECK(server.expired());
    kept->wake();
    kept->close_gracefully();
    kept->abort();
  }
}

TEST_CASE("the client refuses a server that is not the one it means") {
  asio::io_context io;
  const support::Certificate stranger = support::make_certificate({.common_name = "stranger"});
  const support::Certificate expired = support::make_certificate({.not_after = "20210101000000Z"});
  const support::Certificate elsewhere = support::make_certificate({.alternative_names = "DNS:example.org"});
  const auto server = [](const support::Certificate& c) {
    return TlsContext(ServerTls::from_pem(c.pem, c.key_pem));
  };
  const auto trusting = [](const support::Certificate& c) { return TlsContext(ClientTls::from_pem(c.pem)); };
  const auto refuses = [&](TlsContext server_tls, TlsContext client_tls, const std::string& host,
                           const std::string& why) {
    LinkPair links(io, std::move(server_tls), std::move(client_tls), host);
    REQUIRE(run_until(io, [&] { return links.client_owner->closed > 0 && links.server_owner->closed > 0; }));
    CHECK(links.client_owner->opened == 0);
    CHECK(links.client_owner->reason == StateErrc::certificate_rejected);
    CHECK_THAT(links.client_owner->detail, contains_text(why));
    CHECK(links.server_owner->opened == 0);
    CHECK(links.server_owner->reason == StateErrc::tls_failed);
    CHECK_THAT(links.server_owner->detail, contains_text("alert"));
  };
  SECTION("another authority") {
    refuses(server(stranger), client_context(), "localhost",
            "self-signed certificate, and none of those that are trusted here");
  }
  SECTION("expired") { refuses(server(expired), trusting(expired), "localhost", "expired"); }
  SECTION("another host name") {
    refuses(server(elsewhere), trusting(elsewhere), "localhost", "expected 'localhost'");
  }
  SECTION("another address") {
    refuses(server_context(), client_context(), "127.0.0.2", "expected '127.0.0.2'");
  }
  SECTION("another name asked for") {
    refuses(server_context(),
            TlsContext(ClientTls::from_pem(ss::tcp::test_data::certificate_pem).verify_name("example.org")),
            "localhost", "expected 'example.org'");
  }
  SECTION("a context of the user's own that forgot to verify") {
    const std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    refuses(server_context(), TlsContext(ClientTls::from_context(context.get())), "localhost", "self-signed");
  }
}

TEST_CASE("the client accepts name, address, v6 address, and the name asked for") {
  asio::io_context io;
  const auto accepts = [&](TlsContext client_tls, const std::string& host) {
    LinkPair links(io, server_context(), std::move(client_tls), host);
    INFO(host);
    CHECK(run_until(io, [&] { return links.is_open(); }));
  };
  accepts(client_context(), "localhost");
  accepts(client_context(), "127.0.0.1");
  accepts(client_context(), "::1");
  accepts(TlsContext(ClientTls::from_pem(ss::tcp::test_data::certificate_pem).verify_name("localhost")),
          "10.1.2.3");
}

TEST_CASE("mutual TLS: the subject of the client's certificate is told, a client without one refused") {
  asio::io_context io;
  const support::Certificate authority = support::make_certificate({.common_name = "clients"});
  const support::Certificate alice = support::make_certificate({.common_name = "alice, the first",
                                                                .alternative_names = "",
                                                                .issuer = &authority,
                                                                .is_authority = false});
  const support::Certificate stranger = support::make_certificate({.common_name = "stranger"});
  const ServerTls tls =
      ServerTls::from_pem(ss::tcp::test_data::certificate_pem, ss::tcp::test_data::private_key_pem)
          .require_client_certificates_pem(authority.pem);
  CHECK(tls.requires_client_certificates());
  const ClientTls client = ClientTls::from_pem(ss::tcp::test_data::certificate_pem);

  SECTION("alice") {
    LinkPair links(io, TlsContext(tls), TlsContext(client.with_certificate_pem(alice.pem, alice.key_pem)));
    REQUIRE(run_until(io, [&] { return links.is_open(); }));
    CHECK(links.server_owner->info.peer.certificate_subject == "CN=alice\\, the first");
  }
  SECTION("nobody") {
    LinkPair links(io, TlsContext(tls), TlsContext(client));
    REQUIRE(run_until(io, [&] { return links.server_owner->closed > 0 && links.client_owner->closed > 0; }));
    CHECK(links.server_owner->opened == 0);
    CHECK(links.server_owner->reason == StateErrc::tls_failed);
    CHECK(links.client_owner->reason == StateErrc::certificate_rejected);
    CHECK_THAT(links.client_owner->detail, contains_text("this client has none"));
  }
  SECTION("a stranger") {
    LinkPair links(io, TlsContext(tls),
                   TlsContext(client.with_certificate_pem(stranger.pem, stranger.key_pem)));
    REQUIRE(run_until(io, [&] { return links.server_owner->closed > 0 && links.client_owner->closed > 0; }));
    CHECK(links.server_owner->opened == 0);
    CHECK(links.server_owner->reason == StateErrc::certificate_rejected);
    CHECK(links.client_owner->reason == StateErrc::certificate_rejected);
  }
}

TEST_CASE("TLS 1.2 is refused both ways") {
  SocketPair pair = connected_pair();
  asio::io_context io;
  const auto owner = std::make_shared<Owner>();
  const bool peer_is_server = GENERATE(true, false);
  const auto context = RawPeer::make_context(peer_is_server);
  SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
  RawPeer peer(std::move(peer_is_server ? pair.server : pair.client), peer_is_server, context);
  auto socket = ss::tcp::adopt(io.get_executor(), std::move(peer_is_server ? pair.client : pair.server));
  std::shared_ptr<TlsLink> link =
      peer_is_server ? TlsLink::make_client(std::move(socket), client_context(), "localhost", "10.0.0.1")
                     : TlsLink::make_server(std::move(socket), server_context(), "10.0.0.1");
  link->start(owner);
  REQUIRE(run_until(
      io, [&] { return owner->closed > 0; },
      [&] {
        peer.take();
        peer.flush();
      }));
  CHECK(owner->opened == 0);
  CHECK(owner->reason == StateErrc::tls_failed);
}

TEST_CASE("a server whose context of the user's own allows TLS 1.2 does not") {
  SocketPair pair = connected_pair();
  asio::io_context io;
  const auto owner = std::make_shared<Owner>();
  const auto context = RawPeer::make_context(false);
  SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
  RawPeer peer(std::move(pair.client), false, context);
  const auto own = RawPeer::make_context(true);
  SSL_CTX_set_max_proto_version(own.get(), TLS1_2_VERSION);
  const auto link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)),
                                         TlsContext(ServerTls::from_context(own.get())), "10.0.0.1");
  link->start(owner);
  REQUIRE(run_until(
      io, [&] { return owner->closed > 0; },
      [&] {
        peer.take();
        peer.flush();
      }));
  CHECK(owner->opened == 0);
  CHECK(owner->reason == StateErrc::tls_failed);
}

}  // namespace tls_link_test
