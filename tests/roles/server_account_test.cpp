// What all links of a server hold is back to nothing when the links are gone, however they went.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/counted_new.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"
#include "syncstate/detail/server/byte_share.hpp"
#include "syncstate/types.hpp"

namespace syncstate::testing::server_account_test {
namespace {

namespace wire = syncstate::protocol;

ServerCoreOptions without_own_room() {
  ServerCoreOptions options;
  options.limits.own_link_bytes = 0;
  return options;
}

wire::Open open_of(wire::ChannelId channel, const MapHash& hash) {
  wire::Open open;
  open.channel = channel;
  open.hash = hash;
  open.key_type = open.value_type = type_name<std::string>();
  open.mode = wire::FollowMode::every_step;
  return open;
}

/// Has the server hold channels, requests, a name of events and half an event, and reads what it is told.
void be_greedy(RawPeer& peer, const MapHash& hosted) {
  for (wire::ChannelId i = 1; i <= 50; ++i) peer.send(open_of(i, hosted));
  for (wire::ChannelId i = 51; i <= 60; ++i) peer.send(open_of(i, MapHash()));  // nobody has that map
  peer.send(wire::EventType{1, "type"});
  for (wire::ChannelId i = 61; i <= 200; ++i) peer.send(wire::GetUpdateId{i, 1 + i % 50});
  const Bytes part(300'000);
  peer.send(wire::EventPart{1, part});
  Bytes frame;
  wire::append_frame(frame, wire::EventPart{1, part});
  peer.send_bytes(ByteView(frame).first(200'000));
}

}  // namespace

TEST_CASE("the account of a server is empty again when its links are gone", "[account]") {
  const bool is_aborted = GENERATE(true, false);
  World world(without_own_room());
  const MapHash hosted = world.host().hash();
  std::size_t before = 0;
  {
    std::vector<std::shared_ptr<RawPeer>> peers;
    for (int i = 0; i < 5; ++i) {
      peers.push_back(RawPeer::connect(world.time, *world.port));
      peers.back()->send_hello(password);
      world.time.run_ready();
      be_greedy(*peers.back(), hosted);
      world.time.run_ready();
      REQUIRE(peers.back()->is_open());
      CHECK(world.server->core().link_bytes() >= before + 500'000);
      before = world.server->core().link_bytes();
    }
    if (is_aborted) {
      for (const auto& peer : peers) peer->abort();
    }  // else they are silent for too long
    CHECK(world.wait([&] { return world.server->core().link_count() == 0; }));
    world.time.run_ready();  // the last one is told
  }
  CHECK(world.server->core().link_bytes() == 0);
}

TEST_CASE("the answers kept for the senders of all maps of a server have one limit",
          "[account][guarantee_5]") {
  constexpr std::size_t most = 60'000;
  ServerCoreOptions options;
  options.limits.all_answer_bytes = most;
  World world(options);
  const auto remote = world.connect();
  std::vector<Map> maps;
  for (int i = 0; i < 5; ++i) maps.push_back(world.make_map(remote, 2, std::to_string(i)));
  std::size_t sent = 0;
  for (int round = 0; round < 60; ++round) {
    for (const Map& map : maps) {
      const Sent event =
          Sent::send(world, remote, map.hash(), Change{{"fail", key_name(0), std::string(500, 'x')}});
      REQUIRE(world.wait([&] { return event.is_finished(); }));
      CHECK(event.error() == StateErrc::hook_failed);
      REQUIRE(world.server->core().answer_bytes() <= most);
      ++sent;
    }
  }
  CHECK(world.server->core().answer_bytes() >= most / 2);
  CHECK(world.runs.size() == sent);
}

TEST_CASE("a link is charged for the senders that it has", "[account]") {
  constexpr wire::ChannelId count = 500;
  World world(without_own_room());
  std::vector<MapHash> maps;
  for (wire::ChannelId i = 0; i < count; ++i) maps.push_back(world.host(1, std::to_string(i)).hash());
  const auto peer = connect_raw(world.time, *world.port, password);
  for (wire::ChannelId i = 1; i <= count; ++i) peer->send(open_of(i, maps[i - 1]));
  world.time.run_ready();
  const std::size_t charged_before = world.server->core().link_bytes();
  const std::ptrdiff_t live_before = live_bytes;
  for (wire::ChannelId i = 1; i <= count; ++i) peer->send(wire::GetSender{i, 0});
  world.time.run_ready();
  const auto taken = static_cast<std::size_t>(live_bytes - live_before);
  const std::size_t charged = world.server->core().link_bytes() - charged_before;
  REQUIRE(peer->is_open());
  CHECK(taken >= count * 500);
  // The account takes its bytes in steps of 64 KiB, and the client keeps what it was told.
  constexpr std::size_t slack = 100'000;
  INFO("taken " << taken << ", charged " << charged);
  CHECK(taken <= charged + slack);
  CHECK(charged <= 3 * taken + slack);
  for (wire::ChannelId i = 1; i <= count; ++i) peer->send(wire::CloseChannel{i});
  world.time.run_ready();
  CHECK(world.server->core().link_bytes() <= count * 150 + 2 * 64 * 1'024);
}

TEST_CASE("a link is charged for the senders that it had", "[account]") {
  const bool asks = GENERATE(true, false);
  ServerCoreOptions options = without_own_room();
  options.limits.link_bytes = 50'000;
  World world(options);
  const auto peer = connect_raw(world.time, *world.port, password);
  // Of each map the link keeps which sender was made last, for as long as it lives.
  for (wire::ChannelId i = 1; i <= 1'000 && peer->is_open(); ++i) {
    peer->send(open_of(i, world.host(1, std::to_string(i)).hash()));
    if (asks) peer->send(wire::GetSender{i, 0});
    peer->send(wire::CloseChannel{i});
    world.time.run_ready();
  }
  if (asks) {
    CHECK(peer->goodbye() == StateErrc::busy);
  } else {
    CHECK(peer->is_open());
  }
}

TEST_CASE("what a client brings counts for the memory that it takes, under way and hosted", "[account]") {
  struct Shape {
    std::size_t keys;
    std::size_t key_bytes;
    std::size_t value_bytes;
  };
  // Just beyond a power of two: half of the room of a table is not used.
  const auto shape = GENERATE(Shape{16'400, 10, 1}, Shape{16'400, 60, 20}, Shape{4'100, 200, 300},
                              Shape{33, 10, 100'000}, Shape{1, 10, 5'000'000}, Shape{4'100, 10, 16});
  INFO(shape.keys << " keys of " << shape.key_bytes << " bytes, values of " << shape.value_bytes);
  ServerCoreOptions options;
  options.limits.all_map_bytes = 100'000'000;
  World world(options);
  Bytes initial;
  MapHash hash;
  {
    Map map(Role::master);
    ByteWriter out(initial);
    for (std::size_t i = 0; i < shape.keys; ++i) {
      std::string key = std::to_string(100'000 + i);
      key.resize(shape.key_bytes, 'k');
      const std::string value(shape.value_bytes, 'v');
      map.push(key, value);
      out.put_sized(key);
      out.put_sized(value);
    }
    map.freeze();
    hash = map.hash();
  }
  const auto peer = connect_raw(world.time, *world.port, password);
  peer->send(testing::open_of(hash));
  world.time.run_ready();
  const std::ptrdiff_t before = live_bytes;
  std::size_t most_taken_beyond = 0;
  const auto taken = [&] {
    return static_cast<std::size_t>(std::max<std::ptrdiff_t>(live_bytes - before, 0));
  };
  std::size_t under_way = 0;
  for (std::size_t at = 0; at < initial.size(); at += 50'000) {
    wire::Upload upload;
    upload.channel = 1;
    upload.bytes = ByteView(initial).subspan(at, std::min<std::size_t>(50'000, initial.size() - at));
    peer->send(upload);
    world.time.run_ready();
    under_way = world.server->core().map_bytes();
    most_taken_beyond = std::max(most_taken_beyond, taken() - std::min(taken(), under_way));
  }
  // What the raw client and its link hold of a piece.
  constexpr std::size_t slack = 200'000;
  CHECK(most_taken_beyond <= slack);
  peer->send(wire::UploadEnd{1});
  world.time.run_ready();
  REQUIRE(peer->find<wire::Opened>());
  const std::size_t hosted = taken();
  const std::size_t counted = world.server->core().map_bytes();
  INFO("taken " << hosted << ", counted " << counted);
  CHECK(hosted <= counted + slack);
  CHECK(counted <= hosted + hosted / 2 + slack);
  CHECK(counted == under_way);
}

TEST_CASE("a share of bytes gives back all that it took, however it ends", "[account]") {
  const auto all = std::make_shared<std::atomic<std::size_t>>(0);
  {
    detail::ByteShare one(all);
    detail::ByteShare other(all);
    CHECK(one.take(100, 150));
    CHECK(other.take(50, 150));       // exactly what is allowed
    CHECK_FALSE(other.take(1, 150));  // counted all the same: the caller gives it up
    other.give_back(1);
    CHECK(*all == 150);
    CHECK(one.set(80, 150));
    CHECK(*all == 130);
    CHECK(one.set(100, 150));
    CHECK_FALSE(one.set(101, 150));
    CHECK_FALSE(one.set(100, 149));  // less than before, and still too much
    CHECK(*all == 150);
    detail::ByteShare moved(std::move(one));
    CHECK(moved.bytes() == 100);
    CHECK(*all == 150);
  }
  CHECK(*all == 0);
}

TEST_CASE("what waits for hooks counts until it has run, and not longer", "[account]") {
  const auto how = GENERATE(as<std::string>{}, "run", "link lost", "server gone");
  CAPTURE(how);
  auto world = std::make_unique<World>();
  const Handle handle = world->host();
  const auto core = world->server->core().shared_from_this();
  const auto remote = world->connect();
  const Map map = world->make_map(remote);
  CHECK(core->event_bytes() == 0);
  handle.modify([&](Map&) {  // the map is busy, so that events wait
    for (int i = 0; i < 100; ++i) {
      Sent::send(*world, remote, map.hash(), set_key(key_name(0), std::string(1'000, 'x')));
    }
    world->time.run_ready();
    CHECK(core->event_bytes() >= 100'000);
    CHECK(world->runs.empty());
    if (how == "link lost") world->port->cut_all();
    if (how == "server gone") core->stop();
  });
  world->time.run_ready();
  if (how == "server gone") {
    CHECK(world->runs.empty());
  } else {
    CHECK(world->runs.size() == 100);
  }
  if (how != "server gone") CHECK(core->event_bytes() == 0);
  // As many again have room again.
  if (how == "run") {
    const Sent again = Sent::send(*world, remote, map.hash(), set_key(key_name(0), "again"));
    REQUIRE(world->wait([&] { return again.is_finished(); }));
    CHECK(core->event_bytes() == 0);
  }
}

TEST_CASE("the senders of a link that is gone may be forgotten, however it went", "[account][guarantee_5]") {
  const auto how = GENERATE(as<std::string>{}, "stays", "lost", "silent", "disconnected", "wrong bytes",
                            "goodbye", "channel closed");
  CAPTURE(how);
  ServerCoreOptions options;
  options.limits.senders_per_map = 1;
  World world(options);
  const Handle handle = world.host();
  const auto sender_of = [&](RawPeer& peer, wire::ChannelId channel, std::uint64_t known) {
    peer.forget();
    peer.send(open_of(channel, handle.hash()));
    peer.send(wire::GetSender{channel, known});
    world.time.run_ready();
    const auto given = peer.find<wire::SenderMessage>();
    REQUIRE(given);
    return given->sender;
  };
  const auto first = connect_raw(world.time, *world.port, password, "192.0.2.1");
  const std::uint64_t sender = sender_of(*first, 1, 0);
  if (how == "lost") first->abort();
  if (how == "silent") world.time.advance(20s);
  if (how == "disconnected") world.server->disconnect([](const Peer&) { return true; });
  if (how == "wrong bytes") first->send_frame(255, {});
  if (how == "goodbye") first->send(wire::Goodbye{StateErrc::link_closed, ""});
  if (how == "channel closed") first->send(wire::CloseChannel{1});
  world.time.run_ready();
  CHECK(first->is_open() == (how == "stays" || how == "channel closed"));

  // Another client takes the one place that there is.
  const auto other = connect_raw(world.time, *world.port, password, "192.0.2.2");
  CHECK(sender_of(*other, 1, 0) != sender);
  const auto again = connect_raw(world.time, *world.port, password, "192.0.2.1");
  CHECK((sender_of(*again, 1, sender) == sender) == (how == "stays"));
}

}  // namespace syncstate::testing::server_account_test
