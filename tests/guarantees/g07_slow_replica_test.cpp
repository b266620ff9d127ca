// Guarantee 7: a replica that falls behind costs the master a position and a frame, and never more.
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::g07_slow_replica_test {
namespace {

/// What the program holds now. Sanitizers bring an allocator of their own, of which this knows nothing.
std::size_t bytes_in_use() { return mallinfo2().uordblks + mallinfo2().hblkhd; }

/// A second port of the world's server, with faults of its own.
std::shared_ptr<inproc::Port> make_port(World& world) {
  auto port = std::make_shared<inproc::Port>();
  const std::shared_ptr<Executor> executor = world.time.make_executor();
  auto& core = world.server->core();
  port->listen(executor, [&core, lane = core.add_lane(executor)](std::shared_ptr<inproc::WireEnd> end,
                                                                 const std::string& address) {
    return core.accept(lane, address, [&end] { return std::move(end); });
  });
  return port;
}

void follow(RawPeer& peer, const MapHash& hash, Position at = {}) {
  protocol::Open open;
  open.channel = 1;
  open.hash = hash;
  open.key_type = type_name<std::string>();
  open.value_type = type_name<std::string>();
  open.position = at;
  open.mode = protocol::FollowMode::merged;
  peer.send(open);
}

void send_heartbeat(RawPeer& peer) {
  peer.send_frame(static_cast<std::uint8_t>(protocol::FrameKind::heartbeat), {});
}

std::size_t count(const RawPeer& peer, protocol::FrameKind kind) {
  std::size_t n = 0;
  for (const auto& frame : peer.received()) n += frame.kind == kind ? 1 : 0;
  return n;
}

}  // namespace

TEST_CASE(
    "guarantee 7: a replica that reads nothing for 100,000 updates costs nothing and gets one merged diff") {
  constexpr UpdateId commits = 100'000;
  World world;
  const Handle handle = world.host(50, std::string(20, '-'), MapOptions{.log_diffs = 16});
  const auto slow_port = make_port(world);
  const auto slow = connect_raw(world.time, *slow_port, password);
  follow(*slow, handle.hash());
  world.time.run_ready();
  const auto wire = slow_port->client_ends().at(0);
  slow_port->faults().is_client_deaf = true;

  std::size_t bytes_before = 0;
  for (UpdateId id = 1; id <= commits; ++id) {
    handle.modify(
        [id](Map& map) { map.set(key_name(id % 50), std::string(20, static_cast<char>('a' + id % 26))); });
    world.time.run_ready();
    if (id == 10'000) bytes_before = bytes_in_use();  // the wire is full by now
  }
  CHECK(wire->waiting_bytes() <= slow_port->faults().buffer_bytes + Limits().piece_bytes + 1'024);
  const std::size_t bytes_after = bytes_in_use();
  INFO("from " << bytes_before << " to " << bytes_after << " bytes");
  CHECK(bytes_after <= bytes_before + 32'768);

  slow_port->faults().is_client_deaf = false;
  slow_port->resume_reading();
  world.time.run_ready();
  const auto steps = slow->all<protocol::Step>();
  CHECK(steps.size() < 10'000);  // those that were on the wire
  const auto diffs = slow->all<protocol::DiffMessage>();
  REQUIRE(diffs.size() == 2);  // the first word, and all that came after the wire was full
  CHECK(diffs[1].advance == commits - steps.size());
  CHECK(slow->received().back().kind == protocol::FrameKind::diff);
  std::size_t named = 0;
  protocol::for_each_entry(ByteView(slow->received().back().body).last(diffs[1].entries.size()),
                           [&](std::uint64_t, ByteView) { ++named; });
  CHECK(named == 50);
}

TEST_CASE("guarantee 7: every replica gets what it can read, whoever else reads nothing") {
  World world;
  const Handle handle = world.host(50);
  const auto slow_port = make_port(world);
  const auto slow = connect_raw(world.time, *slow_port, password);
  follow(*slow, handle.hash());
  world.time.run_ready();
  slow_port->faults().is_client_deaf = true;
  const auto remote = world.connect();
  Follower fast(world.make_map(remote, 50), {});
  for (UpdateId id = 1; id <= 2'000; ++id) {
    handle.modify([id](Map& map) { map.set(key_name(id % 50), std::string(200, 'x') + std::to_string(id)); });
    REQUIRE(fast.wait_for(id, 0ms));
    REQUIRE(fast.update_id() == id);
  }
}

TEST_CASE("guarantee 7: whoever sends heartbeats is kept, however little it reads") {
  World world;
  const Handle handle = world.host();
  const auto slow_port = make_port(world);
  const auto slow = connect_raw(world.time, *slow_port, password);
  follow(*slow, handle.hash());
  world.time.run_ready();
  slow_port->faults().is_client_deaf = true;
  for (int i = 0; i < 120; ++i) {  // ten minutes
    handle.modify([](Map& map) { map.set("key00", std::string(4'000, 'x')); });
    send_heartbeat(*slow);
    world.time.advance(5s);
  }
  CHECK(slow->is_open());
  CHECK(world.server->core().link_count() == 1);
  handle.modify([](Map& map) { map.set("key00", "last"); });
  slow_port->faults().is_client_deaf = false;
  slow_port->resume_reading();
  world.time.run_ready();
  UpdateId at = 0;
  for (const auto& diff : slow->all<protocol::DiffMessage>()) at += diff.advance;
  at += slow->all<protocol::Step>().size();
  CHECK(at == 121);
}

TEST_CASE("guarantee 7: a peer from which nothing came for 15 s loses its link, reading or not") {
  const bool is_deaf = GENERATE(false, true);
  World world;
  const Handle handle = world.host();
  const auto peer = connect_raw(world.time, *world.port, password);
  follow(*peer, handle.hash());
  world.time.run_ready();
  world.port->faults().is_client_deaf = is_deaf;
  if (is_deaf) handle.modify([](Map& map) { map.set("key00", std::string(1'000'000, 'x')); });
  world.time.advance(14'400ms);
  CHECK(world.server->core().link_count() == 1);
  world.time.advance(1'200ms);
  if (is_deaf) world.time.advance(1s);  // the goodbye does not get through
  CHECK(world.server->core().link_count() == 0);
  if (!is_deaf) CHECK(peer->goodbye() == StateErrc::peer_silent);
}

TEST_CASE("guarantee 7: the master sends a heartbeat every 5 s, with the head of each map followed") {
  World world;
  const Handle handle = world.host();
  handle.modify([](Map& map) { map.set("key00", "x"); });
  const auto peer = connect_raw(world.time, *world.port, password);
  follow(*peer, handle.hash());
  for (int i = 0; i < 12; ++i) {
    world.time.advance(5s);
    send_heartbeat(*peer);
  }
  const std::size_t heartbeats = count(*peer, protocol::FrameKind::heartbeat);
  CHECK(heartbeats >= 11);
  CHECK(heartbeats <= 12);
  for (const auto& frame : peer->received()) {
    if (frame.kind != protocol::FrameKind::heartbeat) continue;
    ByteReader in(frame.body);
    const auto entry = protocol::HeartbeatEntry::decode(in);
    CHECK(entry.channel == 1);
    CHECK(entry.update_id == 1);
    CHECK(in.is_at_end());
  }
}

TEST_CASE("guarantee 7: a replica reports its position with its heartbeat and acknowledges nothing besides") {
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();
  std::shared_ptr<RawPeer> master;
  RawPeer::listen(time, *port, [&](const std::shared_ptr<RawPeer>& peer) { master = peer; });
  const auto remote =
      std::make_shared<Remote>(time, port, RemoteCoreOptions{.password = password, .seed = 1});
  Map map(remote);
  push_keys(map, 4);
  map.freeze(0ms);
  Follower replica(std::move(map), {});
  time.run_ready();
  REQUIRE(master);
  master->send_welcome(password);
  time.run_ready();
  const auto opens = master->all<protocol::Open>();
  REQUIRE(opens.size() == 2);  // the map, and the replica that follows it
  const auto stream = opens[1].channel;
  CHECK(opens[1].mode == protocol::FollowMode::merged);
  for (const auto& open : opens) master->send(protocol::Opened{open.channel, {7, 2}});
  protocol::DiffMessage first;
  first.stream = stream;
  first.epoch = 7;
  first.advance = 2;
  master->send(first);
  const Bytes value(1, std::byte{'x'});
  for (int i = 0; i < 100; ++i) {
    protocol::Step step;
    step.stream = stream;
    step.value = value;
    master->send(step);
  }
  time.run_ready();
  CHECK(replica.update_id() == 102);
  master->forget();
  time.advance(5'500ms);
  REQUIRE(master->received().size() == 1);
  REQUIRE(master->received()[0].kind == protocol::FrameKind::heartbeat);
  ByteReader in(master->received()[0].body);
  const auto entry = protocol::HeartbeatEntry::decode(in);
  CHECK(entry.channel == stream);
  CHECK(entry.update_id == 102);

  // This master says nothing more: after 15 s it is left, and sought again.
  time.advance(9s);
  CHECK(replica.status().state == LinkState::live);
  const auto connections = port->connections();
  time.run_until([&] { return replica.status().state != LinkState::live; }, 1s);
  CHECK(replica.status().state == LinkState::stale);
  CHECK(replica.status().reason == StateErrc::peer_silent);
  CHECK(replica.view().at("key00") == "x");
  time.advance(1s);
  CHECK(port->connections() == connections + 1);
}

TEST_CASE("guarantee 7: a replica that was cut off for its silence resumes") {
  World world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), {});
  REQUIRE(world.wait([&] { return replica.epoch() != 0; }));
  world.port->faults().is_server_deaf = true;  // its heartbeats do not get through
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::stale; }));
  CHECK(replica.status().reason == StateErrc::peer_silent);
  world.port->faults().is_server_deaf = false;
  handle.modify([](Map& map) { map.set("key00", "meanwhile"); });
  REQUIRE(replica.wait_for(1, 120s));
  CHECK(replica.view().at("key00") == "meanwhile");
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::live; }));
}

}  // namespace syncstate::testing::g07_slow_replica_test
