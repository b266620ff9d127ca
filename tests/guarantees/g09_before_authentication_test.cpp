// Guarantee 9: an unauthenticated peer gets nothing, and costs bounded memory and bounded time.
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::g09_before_authentication_test {
namespace {

/// What the program holds now. Sanitizers bring an allocator of their own, of which this knows nothing.
std::size_t bytes_in_use() { return mallinfo2().uordblks + mallinfo2().hblkhd; }

Bytes bytes_of(std::initializer_list<unsigned> list) {
  Bytes bytes;
  for (const unsigned b : list) bytes.push_back(static_cast<std::byte>(b));
  return bytes;
}

}  // namespace

TEST_CASE(
    "guarantee 9: the server says nothing before the client's proof, and a goodbye to whoever has none") {
  World world;
  const Handle handle = world.host();
  const auto peer = RawPeer::connect(world.time, *world.port);
  CHECK(peer->received_bytes() == 0);

  SECTION("a map is asked for instead") {
    peer->send(open_of(handle.hash()));
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::protocol_error);
  }
  SECTION("the list of maps is asked for instead") {
    peer->send(protocol::List{1});
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::protocol_error);
  }
  SECTION("a wrong proof, and more behind it") {
    peer->send_hello("wrong");
    peer->send(open_of(handle.hash()));
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::unauthorized);
  }
  SECTION("an empty password") {
    peer->send_hello("");
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::unauthorized);
  }
  SECTION("the proof of the server, sent back to its maker") {
    protocol::Hello hello;
    Bytes binding;
    ByteWriter(binding).put_u64_be(world.port->connections());
    hello.proof = protocol::make_proof(password, protocol::ProofRole::server, binding);
    peer->send(hello);
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::unauthorized);
  }
  SECTION("a proof made for another channel") {
    protocol::Hello hello;
    Bytes binding;
    ByteWriter(binding).put_u64_be(world.port->connections() + 1);
    hello.proof = protocol::make_proof(password, protocol::ProofRole::client, binding);
    peer->send(hello);
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::unauthorized);
  }
  SECTION("a version that does not exist yet") {
    protocol::Hello hello;
    hello.oldest_version = hello.newest_version = protocol::protocol_version + 1;
    peer->send(hello);
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::version_mismatch);
  }
  SECTION("something else altogether") {
    peer->send_bytes(as_byte_view("GET / HTTP/1.1\r\n\r\n"));
    world.time.run_ready();
    peer->send_bytes(as_byte_view(std::string(500, ' ')));
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::protocol_error);
  }
  CHECK(peer->received().size() == 1);  // the goodbye, and no word about maps
  CHECK_FALSE(peer->is_open());
  CHECK(world.server->core().link_count() == 0);
}

TEST_CASE("guarantee 9: a frame of more than 1 KiB is refused by its length, before it came") {
  World world;
  for (const Bytes& length : {bytes_of({0x81, 0x08}), bytes_of({0xff, 0xff, 0xff, 0xff, 0x0f}),
                              bytes_of({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})}) {
    const auto peer = RawPeer::connect(world.time, *world.port);
    peer->send_bytes(length);
    world.time.run_ready();
    CHECK(peer->goodbye() == StateErrc::too_large);
    CHECK_FALSE(peer->is_open());
  }
  // As long as allowed: it is waited for, within the time there is.
  const auto peer = RawPeer::connect(world.time, *world.port);
  peer->send_bytes(bytes_of({0x80, 0x08}));
  world.time.run_ready();
  CHECK(peer->is_open());
}

TEST_CASE("guarantee 9: an unauthenticated peer has 5 s from accept, whatever it sends meanwhile") {
  World world;
  const auto silent = RawPeer::connect(world.time, *world.port);
  const auto slow = RawPeer::connect(world.time, *world.port);
  Bytes hello;
  protocol::append_frame(hello, protocol::Hello{});
  for (std::size_t i = 0; i < 9; ++i) {
    slow->send_bytes(ByteView(hello).subspan(i, 1));
    world.time.advance(500ms);
    CHECK(silent->is_open());
    CHECK(slow->is_open());
  }
  world.time.advance(1s);
  for (const auto& peer : {silent, slow}) {
    CHECK_FALSE(peer->is_open());
    CHECK(peer->goodbye() == StateErrc::peer_silent);
  }
  CHECK(world.server->core().link_count() == 0);
}

TEST_CASE(
    "guarantee 9: an unauthenticated peer costs memory for one small frame, not for what it sends or "
    "claims") {
  World world;
  std::vector<std::shared_ptr<RawPeer>> peers;
  for (int i = 0; i < 100; ++i) peers.push_back(RawPeer::connect(world.time, *world.port));
  const std::size_t before = bytes_in_use();
  for (const auto& peer : peers) peer->send_bytes(bytes_of({0x80, 0x08}));
  for (int round = 0; round < 20; ++round) {
    for (const auto& peer : peers) peer->send_bytes(Bytes(50, std::byte{1}));
    world.time.run_ready();
  }
  for (const auto& peer : peers) REQUIRE(peer->is_open());
  const std::size_t after = bytes_in_use();
  INFO("from " << before << " to " << after << " bytes");
  CHECK(after <= before + peers.size() * 4'096);
  // Whoever goes on sending is out.
  for (const auto& peer : peers) peer->send_bytes(Bytes(50, std::byte{1}));
  world.time.run_ready();
  for (const auto& peer : peers) CHECK_FALSE(peer->is_open());
}

TEST_CASE("guarantee 9: pending links are few, and the address that holds most of them gives way") {
  ServerCoreOptions options;
  options.limits.pending_links = 4;
  World world(options);
  const auto connect = [&](const std::string& address) {
    return RawPeer::connect(world.time, *world.port, address);
  };
  std::vector<std::shared_ptr<RawPeer>> crowd;
  for (int i = 0; i < 3; ++i) crowd.push_back(connect("198.51.100.1"));
  const auto bystander = connect("198.51.100.2");
  CHECK_FALSE(connect("198.51.100.1")->is_open());  // the crowd gets no more room

  const auto newcomer = connect("198.51.100.3");
  world.time.run_ready();
  CHECK(newcomer->is_open());
  CHECK_FALSE(crowd[0]->is_open());  // the oldest of them
  CHECK(crowd[1]->is_open());
  CHECK(bystander->is_open());
  newcomer->send_hello(password);
  world.time.run_ready();
  CHECK(newcomer->find<protocol::Welcome>().has_value());

  // Who has proved himself is pending no more: there is room for one.
  CHECK(connect("198.51.100.1")->is_open());
  CHECK_FALSE(connect("198.51.100.1")->is_open());
}

TEST_CASE("guarantee 9: after ten wrong proofs within a minute an address is refused, others are not") {
  World world;
  for (int i = 0; i < 10; ++i) {
    const auto peer = connect_raw(world.time, *world.port, "wrong", "198.51.100.1");
    CHECK(peer->goodbye() == StateErrc::unauthorized);
  }
  // Even the right password is not looked at now, so that guessing on is of no use.
  CHECK(connect_raw(world.time, *world.port, password, "198.51.100.1")->goodbye() == StateErrc::busy);
  CHECK(
      connect_raw(world.time, *world.port, password, "198.51.100.2")->find<protocol::Welcome>().has_value());
  world.time.advance(61s);
  CHECK(
      connect_raw(world.time, *world.port, password, "198.51.100.1")->find<protocol::Welcome>().has_value());
}

TEST_CASE("guarantee 9: a password that is withdrawn is not taken from links that are open already") {
  World world;
  const auto early = RawPeer::connect(world.time, *world.port);
  const auto proved = connect_raw(world.time, *world.port, password);
  world.server->core().set_passwords({"the next one"});
  early->send_hello(password);
  world.time.run_ready();
  CHECK(early->goodbye() == StateErrc::unauthorized);
  CHECK(proved->is_open());
  CHECK(connect_raw(world.time, *world.port, "the next one")->find<protocol::Welcome>().has_value());
  for (const auto& unusable : {std::vector<std::string>{}, {""}, {"good", ""}}) {
    CHECK(error_of([&] { world.server->core().set_passwords(unusable); }) == StateErrc::invalid_option);
  }
}

TEST_CASE("guarantee 9: no password at all is not taken, even where an empty one is") {
  ServerCoreOptions options;
  options.allow_empty_password = true;
  options.passwords = {""};
  World world(options);
  CHECK(error_of([&] { world.server->core().set_passwords({}); }) == StateErrc::invalid_option);
  CHECK(connect_raw(world.time, *world.port, "")->find<protocol::Welcome>().has_value());
}

TEST_CASE("guarantee 9: who says nothing in time has not guessed a password") {
  World world;
  for (int i = 0; i < 12; ++i) RawPeer::connect(world.time, *world.port, "198.51.100.1");
  world.time.advance(6s);
  CHECK(world.server->core().link_count() == 0);
  CHECK(
      connect_raw(world.time, *world.port, password, "198.51.100.1")->find<protocol::Welcome>().has_value());
}

TEST_CASE("guarantee 9: a client with the wrong password is told so, and keeps trying at the slowest pace") {
  World world;
  const auto remote = world.connect(RemoteCoreOptions{.password = "wrong"});
  Map map(remote);
  push_keys(map, 4);
  CHECK(error_of([&] { map.freeze(); }) == StateErrc::unauthorized);
  CHECK(map.is_frozen());
  CHECK(map.at("key00") == "-");
  CHECK(remote->status().state == LinkState::failed);
  CHECK(remote->status().reason == StateErrc::unauthorized);
  CHECK(error_of([&] { map.freeze(); }) == StateErrc::unauthorized);
  CHECK(error_of([&] { map.sync(); }) == StateErrc::unauthorized);
  const auto connections = world.port->connections();
  world.time.advance(10min);
  const auto tries = world.port->connections() - connections;
  CHECK(tries >= 10);
  CHECK(tries <= 120);
  ServerCoreOptions options;
  options.passwords = {"wrong"};
  world.restart(options);
  CHECK(world.wait([&] { return remote->status().state == LinkState::live; }));
}

TEST_CASE("guarantee 9: a client tells a server without the password nothing but its hello") {
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();
  std::shared_ptr<RawPeer> impostor;
  RawPeer::listen(time, *port, [&](const std::shared_ptr<RawPeer>& peer) { impostor = peer; });
  const auto remote =
      std::make_shared<Remote>(time, port, RemoteCoreOptions{.password = password, .seed = 1});
  Map map(remote);
  push_keys(map, 4);
  CHECK(error_of([&] { map.freeze(100ms); }) == StateErrc::unavailable);
  REQUIRE(impostor);

  SECTION("a wrong proof") { impostor->send_welcome("guess"); }
  SECTION("the client's own proof, sent back") {
    protocol::Welcome welcome;
    welcome.proof = impostor->find<protocol::Hello>().value().proof;
    impostor->send(welcome);
  }
  time.run_ready();
  REQUIRE(impostor->received().size() == 2);
  CHECK(impostor->received()[0].kind == protocol::FrameKind::hello);
  CHECK(impostor->goodbye() == StateErrc::unauthorized);
  CHECK(remote->status().state == LinkState::failed);
  CHECK(remote->status().reason == StateErrc::unauthorized);
}

}  // namespace syncstate::testing::g09_before_authentication_test
