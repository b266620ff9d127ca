// Limits with which nothing could work are refused before anything is started with them.
#include "syncstate/limits.hpp"

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "syncstate/detail/check_limits.hpp"

namespace syncstate::testing::limits_test {
namespace {

using namespace std::chrono_literals;

struct BadLimit {
  std::string name;
  void (*set)(Limits&);
};

const std::vector<BadLimit>& bad_limits() {
  static const std::vector<BadLimit> all = {
      {"authentication_time", [](Limits& l) { l.authentication_time = -1ms; }},
      {"pending_links", [](Limits& l) { l.pending_links = 0; }},
      {"links", [](Limits& l) { l.links = 0; }},
      {"links_per_address", [](Limits& l) { l.links_per_address = 0; }},
      {"failed_proofs_per_minute", [](Limits& l) { l.failed_proofs_per_minute = 0; }},
      {"unproven_links_per_minute", [](Limits& l) { l.unproven_links_per_minute = 0; }},
      {"client_hello_bytes", [](Limits& l) { l.client_hello_bytes = 511; }},
      {"frame_bytes_before_authentication", [](Limits& l) { l.frame_bytes_before_authentication = 127; }},
      {"frame_bytes", [](Limits& l) { l.frame_bytes = l.frame_bytes_before_authentication - 1; }},
      {"piece_bytes", [](Limits& l) { l.piece_bytes = 0; }},
      {"upload_silence", [](Limits& l) { l.upload_silence = 0ms; }},
      {"upload_patience", [](Limits& l) { l.upload_patience = 0ms; }},
      {"upload_time", [](Limits& l) { l.upload_time = 0ms; }},
      {"events_in_flight", [](Limits& l) { l.events_in_flight = 0; }},
      {"event_bytes_in_flight", [](Limits& l) { l.event_bytes_in_flight = 0; }},
      {"requests_in_flight", [](Limits& l) { l.requests_in_flight = 0; }},
      {"heartbeat_every", [](Limits& l) { l.heartbeat_every = 0ms; }},
      {"silence", [](Limits& l) { l.silence = l.heartbeat_every; }},
  };
  return all;
}

}  // namespace

TEST_CASE("servers and remotes refuse limits with which nothing could work, by name") {
  World world;
  for (const BadLimit& bad : bad_limits()) {
    INFO(bad.name);
    Limits limits;
    bad.set(limits);
    const auto is_named = contains_text("Limits::" + bad.name + " is ");
    ServerCoreOptions server;
    server.passwords = {password};
    server.limits = limits;
    CHECK_THROWS_WITH((ServerCore<std::string, std::string, Command>::create(server, world.time.make_pool())),
                      is_named);
    RemoteCoreOptions remote;
    remote.password = password;
    remote.limits = limits;
    CHECK_THROWS_WITH(detail::RemoteCore::create(world.time.make_executor(), nullptr, remote), is_named);
  }
}

TEST_CASE("the smallest limits that are allowed serve a client") {
  Limits limits;
  limits.pending_links = limits.links = limits.links_per_address = 1;
  limits.failed_proofs_per_minute = limits.unproven_links_per_minute = 1;
  limits.frame_bytes_before_authentication = detail::least_frame_bytes;
  limits.piece_bytes = limits.events_in_flight = limits.event_bytes_in_flight = limits.requests_in_flight = 1;
  limits.silence = limits.heartbeat_every + 1ms;
  ServerCoreOptions options;
  options.limits = limits;
  World world(options);
  const auto remote = world.connect();
  const Map map = world.make_map(remote, 2);
  CHECK(remote->send_event(map.hash(), set_key("key00", "a")) == 1);
}

}  // namespace syncstate::testing::limits_test
