// Failed proofs are counted by address: what a client with a former or a wrong password costs the others behind its
// address, and what a peer that guesses gains.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::lockout_test {
namespace {

constexpr const char* shared_address = "198.51.100.1";

/// Connects from the shared address and proves `word`; returns the reason of the goodbye, or no error where the server
/// let the peer in.
StateErrc prove(World& world, const std::string& word) {
  const auto peer = connect_raw(world.time, *world.port, word, shared_address);
  return peer->find<protocol::Welcome>() ? StateErrc{} : peer->goodbye();
}

std::shared_ptr<Remote> connect_from_shared_address(World& world, const std::string& word,
                                                    std::uint64_t seed) {
  return std::make_shared<Remote>(world.time, world.port, RemoteCoreOptions{.password = word, .seed = seed},
                                  shared_address);
}

}  // namespace

TEST_CASE("a proof of a retired password is unauthorized, and costs its address no failed proof") {
  World world;
  world.server->core().set_passwords({"the new one", "another"}, {password, "older"});
  for (int i = 0; i < 50; ++i) {
    CHECK(prove(world, i % 2 == 0 ? password : "older") == StateErrc::unauthorized);
  }
  CHECK(prove(world, "the new one") == StateErrc{});
  // A wrong one still counts.
  for (int i = 0; i < 20; ++i) prove(world, "wrong");
  CHECK(prove(world, "the new one") == StateErrc::busy);
}

TEST_CASE("passwords are retired at construction too, and a current password is never a retired one") {
  ServerCoreOptions options;
  options.passwords = {password};
  options.retired_passwords = {"old", password};
  World world(options);
  for (int i = 0; i < 20; ++i) CHECK(prove(world, "old") == StateErrc::unauthorized);
  CHECK(prove(world, password) == StateErrc{});
  // Retired means retired until the next call.
  world.server->core().set_passwords({password});
  for (int i = 0; i < 20; ++i) prove(world, "old");
  CHECK(prove(world, password) == StateErrc::busy);
  CHECK(error_of([&] { world.server->core().set_passwords({}, {password}); }) == StateErrc::invalid_option);
}

TEST_CASE("a peer that knows a retired password can't connect without end") {
  ServerCoreOptions options;
  options.limits.unproven_links_per_minute = 6;
  options.retired_passwords = {"old"};
  World world(options);
  int refused = 0;
  for (int i = 0; i < 100; ++i) refused += prove(world, "old") == StateErrc::unauthorized ? 1 : 0;
  CHECK(refused == 12);  // six links are given back, and six are held against the address
  CHECK(world.port->connections() == 12);
  world.time.advance(61s);
  CHECK(prove(world, password) == StateErrc{});
}

TEST_CASE("a barred address is told busy, whether its proof is right, retired or wrong") {
  World world;
  world.server->core().set_passwords({password}, {"old"});
  for (int i = 0; i < 10; ++i) CHECK(prove(world, "guess") == StateErrc::unauthorized);
  for (int i = 0; i < 5; ++i) {
    for (const char* word : {"HelloWorld", "old", "guess"}) CHECK(prove(world, word) == StateErrc::busy);
  }
  // None of them counted: the first ten are a minute old now.
  world.time.advance(61s);
  CHECK(prove(world, password) == StateErrc{});
}

TEST_CASE("a right proof gives credit back for the proofs that failed before") {
  World world;
  for (int i = 0; i < 9; ++i) CHECK(prove(world, "wrong") == StateErrc::unauthorized);
  CHECK(prove(world, password) == StateErrc{});
  for (int i = 0; i < 9; ++i) CHECK(prove(world, "wrong") == StateErrc::unauthorized);
  CHECK(prove(world, password) == StateErrc{});
}

TEST_CASE("a peer that alternates right proofs and guesses has twice the guesses of a minute, not more") {
  const std::size_t rights_between = GENERATE(1u, 3u, 9u);
  ServerCoreOptions options;
  options.passwords = {password, "the one that is guessed"};
  World world(options);
  std::vector<TimePoint> guesses;
  for (int i = 0; i < 600; ++i) {
    world.time.advance(500ms);
    for (std::size_t k = 0; k < rights_between; ++k) prove(world, password);
    if (prove(world, "guess " + std::to_string(i)) == StateErrc::unauthorized)
      guesses.push_back(world.time.now());
  }
  CHECK(guesses.size() >= 50);
  for (std::size_t i = 20; i < guesses.size(); ++i) {
    INFO("guess " << i);
    REQUIRE(guesses[i] - guesses[i - 20] >= 60s);
  }
}

TEST_CASE("a client tries a refused password again at a minute's pace, whatever the seed") {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    INFO("seed " << seed);
    World world;
    const auto remote = connect_from_shared_address(world, "wrong", seed);
    std::vector<std::uint64_t> connections;
    for (int minute = 0; minute < 20; ++minute) {
      world.time.advance(1min);
      connections.push_back(world.port->connections());
    }
    for (std::size_t i = 1; i < connections.size(); ++i) {
      REQUIRE(connections[i] - connections[i - 1] >= 1);
      REQUIRE(connections[i] - connections[i - 1] <= 2);
    }
    CHECK(remote->status().state == LinkState::failed);
    CHECK(remote->status().reason == StateErrc::unauthorized);
  }
}

TEST_CASE("clients that try a refused password do not do so at the same time") {
  World world;
  std::vector<std::shared_ptr<Remote>> remotes;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    remotes.push_back(connect_from_shared_address(world, "wrong", seed));
  }
  world.time.advance(1s);
  REQUIRE(world.port->connections() == 8);
  std::uint64_t most = 0;
  for (int second = 0; second < 60; ++second) {
    const std::uint64_t before = world.port->connections();
    world.time.advance(1s);
    most = std::max(most, world.port->connections() - before);
  }
  CHECK(world.port->connections() >= 16);
  CHECK(most <= 3);
}

TEST_CASE("one forgotten client does not keep out those that share its address") {
  const bool was_valid = GENERATE(true, false);
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    INFO((was_valid ? "a retired password" : "a password that never was valid") << ", seed " << seed);
    World world;
    if (was_valid) {
      world.server->core().set_passwords({password}, {"yesterday's"});
    }
    const auto forgotten = connect_from_shared_address(world, "yesterday's", seed);
    for (int round = 0; round < 15; ++round) {
      world.time.advance(std::chrono::seconds(7 + (seed * 13 + static_cast<std::uint64_t>(round) * 29) % 60));
      const auto other =
          connect_from_shared_address(world, password, 1'000 * seed + static_cast<std::uint64_t>(round));
      REQUIRE(world.wait([&] { return other->status().state == LinkState::live; }, 1s));
    }
    CHECK(forgotten->status().reason == StateErrc::unauthorized);
  }
}

TEST_CASE("a fleet of clients with a retired password keeps out nobody") {
  World world;
  world.server->core().set_passwords({password}, {"yesterday's"});
  std::vector<std::shared_ptr<Remote>> fleet;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    fleet.push_back(connect_from_shared_address(world, "yesterday's", seed));
  }
  for (int round = 0; round < 20; ++round) {
    world.time.advance(17s);
    const auto other = connect_from_shared_address(world, password, 1);
    REQUIRE(world.wait([&] { return other->status().state == LinkState::live; }, 1s));
  }
  // And once the server takes it again, all of them come back by themselves.
  world.server->core().set_passwords({password, "yesterday's"});
  CHECK(world.wait(
      [&] {
        return std::all_of(fleet.begin(), fleet.end(),
                           [](const auto& remote) { return remote->status().state == LinkState::live; });
      },
      61s));
}

TEST_CASE("the index of a proven password is the first of the current ones that equals it") {
  const Bytes binding(32, std::byte{7});
  const protocol::Passwords passwords({"a", "b", "a"}, {"b", "c"});
  const auto check = [&](std::string_view word) {
    return protocol::check_client_proof(protocol::make_proof(word, protocol::ProofRole::client, binding),
                                        passwords, binding);
  };
  CHECK(check("a").standing == protocol::ProofStanding::right);
  CHECK(check("a").index == 0);
  CHECK(check("b").standing == protocol::ProofStanding::right);
  CHECK(check("b").index == 1);
  CHECK(check("c").standing == protocol::ProofStanding::retired);
  CHECK(check("").standing == protocol::ProofStanding::wrong);
}

}  // namespace syncstate::testing::lockout_test
