// What a user of server and remote relies on when links break and peers misbehave, beyond the ten guarantees.

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

using namespace syncstate;
using namespace syncstate::testing;

TEST_CASE("events of several maps that were in flight when a link broke stay within the limit of the next link") {
  World world;
  const auto remote = world.connect();
  Map one = world.make_map(remote, 2);
  Map two = world.make_map(remote, 3);
  world.port->faults().is_server_deaf = true;
  std::vector<Sent> sent;
  for (int i = 0; i < 600; ++i) sent.push_back(Sent::send(world, remote, one.hash(), set_key("key00", "a")));
  for (int i = 0; i < 1'000; ++i) sent.push_back(Sent::send(world, remote, two.hash(), set_key("key00", "b")));
  for (int i = 0; i < 1'000; ++i) sent.push_back(Sent::send(world, remote, one.hash(), set_key("key00", "c")));
  world.run_steps(4'000, 100ms);
  world.port->cut_all();
  world.port->faults().is_server_deaf = false;
  REQUIRE(world.wait([&] { return sent.back().is_finished() && sent[1'599].is_finished(); }));
  for (const Sent& event : sent) CHECK_FALSE(event.error());
  CHECK(world.runs.size() == sent.size());
  CHECK(world.port->connections() == 2);
}

TEST_CASE("maps of other types are told apart on one remote, though their hashes are equal") {
  World world;
  const auto remote = world.connect();
  Map map = world.make_map(remote, 1, "a");
  StateMap<std::string, std::vector<std::byte>> other(remote);
  other.push(key_name(0), {std::byte{'a'}});
  CHECK(error_of([&] { other.freeze(); }) == StateErrc::type_mismatch);
  CHECK(detail_of([&] { other.sync(); }) ==
        "this remote knows the map as {string: string}, not as {string: bytes}");
  CHECK(other.hash() == map.hash());
  Replica<std::string, std::vector<std::byte>> replica(std::move(other));
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::failed; }));
  CHECK(replica.status().reason == StateErrc::type_mismatch);
  CHECK(map.sync() == 0);
}
