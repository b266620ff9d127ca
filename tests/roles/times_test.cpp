// The times in Limits and options are the times: on virtual time, with long and with short ones.
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"
#include "syncstate/detail/tick_period.hpp"

namespace syncstate::testing::times_test {

namespace {

using std::chrono::milliseconds;

/// A heartbeat, and the silence that goes with it.
struct Pace {
  milliseconds heartbeat;
  milliseconds silence;
};

Limits limits_of(const Pace& pace) {
  Limits limits;
  limits.heartbeat_every = pace.heartbeat;
  limits.silence = pace.silence;
  return limits;
}

Pace some_pace() {
  return GENERATE(Pace{1ms, 10ms}, Pace{10ms, 50ms}, Pace{100ms, 300ms}, Pace{240ms, 1'000ms},
                  Pace{5'000ms, 15'000ms});
}

/// How late an action may be that is due at a pace.
Duration slack_of(const Pace& pace) { return (std::max)(milliseconds(1), pace.heartbeat / 4); }

std::size_t heartbeats(const RawPeer& peer) {
  std::size_t count = 0;
  for (const auto& frame : peer.received()) count += frame.kind == protocol::FrameKind::heartbeat ? 1 : 0;
  return count;
}

/// When `is_true` became so, to the millisecond; at most `limit` from now.
template <class F>
Duration time_until(inproc::VirtualTime& time, F is_true, Duration limit) {
  const TimePoint began = time.now();
  while (!is_true() && time.now() - began < limit) time.advance(1ms);
  return time.now() - began;
}

/// A server by hand and a remote that is live with it.
struct ByHand {
  explicit ByHand(const Limits& limits) {
    RawPeer::listen(time, *port, [this](const std::shared_ptr<RawPeer>& peer) { master = peer; });
    remote = std::make_shared<Remote>(time, port,
                                      RemoteCoreOptions{.password = password, .limits = limits, .seed = 1});
    time.run_ready();
  }

  inproc::VirtualTime time;
  std::shared_ptr<inproc::Port> port = std::make_shared<inproc::Port>();
  std::shared_ptr<RawPeer> master;
  std::shared_ptr<Remote> remote;
};

}  // namespace

TEST_CASE("a client sends heartbeats as often as it was told, and leaves a silent server in time") {
  const Pace pace = some_pace();
  INFO("heartbeat " << pace.heartbeat.count() << " ms, silence " << pace.silence.count() << " ms");
  ByHand t(limits_of(pace));
  REQUIRE(t.master);
  t.master->send_welcome(password);
  t.time.run_ready();
  REQUIRE(t.remote->status().state == LinkState::live);
  // This server reads nothing any more either: what it is told can't even be sent.
  const bool is_full = GENERATE(false, true);
  if (is_full) t.port->faults().buffer_bytes = 0;
  const auto gone = [&] { return t.remote->status().state != LinkState::live; };
  const Duration took = time_until(t.time, gone, 10 * pace.silence);
  CHECK(took >= pace.silence);
  CHECK(took <= pace.silence + slack_of(pace) + 1ms);
  CHECK(t.remote->status().reason == StateErrc::peer_silent);
  t.time.run_ready();
  if (!is_full) {
    const auto least = pace.silence / (pace.heartbeat + slack_of(pace) + 1ms);
    CHECK(heartbeats(*t.master) >= static_cast<std::size_t>(least) - 1);
    CHECK(heartbeats(*t.master) <= static_cast<std::size_t>(pace.silence / pace.heartbeat) + 1);
    CHECK(t.master->goodbye() == StateErrc::peer_silent);
  }
}

TEST_CASE("a server sends heartbeats as often as it was told, and leaves a silent client in time") {
  const Pace pace = some_pace();
  INFO("heartbeat " << pace.heartbeat.count() << " ms, silence " << pace.silence.count() << " ms");
  ServerCoreOptions options;
  options.limits = limits_of(pace);
  World world(std::move(options));
  const auto peer = connect_raw(world.time, *world.port, password);
  world.time.run_ready();
  REQUIRE(world.server->core().link_count() == 1);
  const bool is_full = GENERATE(false, true);
  if (is_full) world.port->faults().buffer_bytes = 0;
  const auto gone = [&] { return world.server->core().link_count() == 0; };
  const Duration took = time_until(world.time, gone, 10 * pace.silence);
  CHECK(took >= pace.silence);
  CHECK(took <= pace.silence + slack_of(pace) + 1ms);
  world.time.run_ready();
  if (!is_full) {
    const auto least = pace.silence / (pace.heartbeat + slack_of(pace) + 1ms);
    CHECK(heartbeats(*peer) >= static_cast<std::size_t>(least) - 1);
    CHECK(heartbeats(*peer) <= static_cast<std::size_t>(pace.silence / pace.heartbeat) + 1);
    CHECK(peer->goodbye() == StateErrc::peer_silent);
  }
}

TEST_CASE("links whose silence is short stay live for as long as both sides are there") {
  const Pace pace = some_pace();
  // The other side may have the usual limits, if the silence is long enough for the heartbeats that it was told.
  const bool is_of_server = GENERATE(true, false);
  const bool is_of_client = GENERATE(true, false);
  if (!is_of_server && !is_of_client) return;
  if (is_of_server != is_of_client && pace.silence < 30ms) return;
  ServerCoreOptions options;
  if (is_of_server) options.limits = limits_of(pace);
  World world(std::move(options));
  RemoteCoreOptions client;
  if (is_of_client) client.limits = limits_of(pace);
  const auto remote = world.connect(std::move(client));
  Follower replica(world.make_map(remote), {});
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::live; }));
  const auto since = remote->status().since;
  world.time.advance(50 * pace.silence);
  CHECK(remote->status().state == LinkState::live);
  CHECK(remote->status().since == since);
  CHECK(world.port->connections() == 1);
}

TEST_CASE("only a link whose client has a shorter silence than the server looks at the time by itself") {
  ServerCoreOptions options;
  options.limits = limits_of(some_pace());
  World world(std::move(options));
  const auto first = connect_raw(world.time, *world.port, password);
  world.time.run_ready();
  const std::size_t tasks = world.time.pending();
  const auto second = connect_raw(world.time, *world.port, password);
  second->send_frame(static_cast<std::uint8_t>(protocol::FrameKind::heartbeat), {});
  world.time.run_ready();
  REQUIRE(world.server->core().link_count() == 2);
  // All links of the server are looked at together.
  CHECK(world.time.pending() == tasks);
}

TEST_CASE("a client that leaves after a short silence hears from the server in time") {
  World world;
  const auto first = connect_raw(world.time, *world.port, password);
  world.time.run_ready();
  const std::size_t tasks = world.time.pending();
  const auto second = connect_raw(world.time, *world.port, password);
  second->send(protocol::ClientLimits{protocol::usual_frame_bytes, 300});
  world.time.run_ready();
  CHECK(world.time.pending() == tasks + 1);
  world.time.advance(10s);
  CHECK(heartbeats(*second) >= 10'000 / 150);
  CHECK(heartbeats(*second) <= 100);
  CHECK(heartbeats(*first) == 2);
  second->abort();
  world.time.advance(1s);
  CHECK(world.time.pending() == tasks);  // it ended with the link
}

TEST_CASE("a stranger has the time that was given to it, and no more") {
  const milliseconds given = GENERATE(10ms, 60ms, 400ms, 5'000ms);
  ServerCoreOptions options;
  options.limits.authentication_time = given;
  World world(std::move(options));
  const auto stranger = RawPeer::connect(world.time, *world.port);
  REQUIRE(world.server->core().link_count() == 1);
  const bool is_full = GENERATE(false, true);
  if (is_full) world.port->faults().buffer_bytes = 0;
  const auto gone = [&] { return world.server->core().link_count() == 0; };
  const Duration took = time_until(world.time, gone, 10 * given);
  CHECK(took >= given);
  CHECK(took <= given + given / 4 + 1ms);
}

TEST_CASE("a server that does not answer the hello is left after the client's time for it") {
  const milliseconds given = GENERATE(10ms, 60ms, 400ms, 5'000ms);
  Limits limits;
  limits.authentication_time = given;
  ByHand t(limits);
  REQUIRE(t.master);
  REQUIRE(t.master->is_open());
  const bool is_full = GENERATE(false, true);
  if (is_full) t.port->faults().buffer_bytes = 0;
  const auto told = [&] { return static_cast<bool>(t.remote->status().reason); };
  const Duration took = time_until(t.time, told, 10 * given);
  CHECK(t.remote->status().reason == StateErrc::peer_silent);
  CHECK(took >= given);
  CHECK(took <= given + given / 4 + 1ms);
}

TEST_CASE("an upload has the times that were given to it") {
  const milliseconds given = GENERATE(20ms, 100ms, 1'000ms);
  const bool goes_on = GENERATE(false, true);
  INFO("given " << given.count() << " ms; bytes " << (goes_on ? "come" : "do not come"));
  ServerCoreOptions options;
  (goes_on ? options.limits.upload_time : options.limits.upload_silence) = given;
  World world(std::move(options));
  const auto owner = connect_raw(world.time, *world.port, password);
  protocol::Open open;
  open.channel = 1;
  open.key_type = open.value_type = "string";
  open.hash = make_master(4).hash();
  owner->send(open);
  world.time.run_ready();
  REQUIRE(owner->find<protocol::UploadWanted>());
  Bytes bytes;
  ByteWriter(bytes).put_varint(1'000'000);  // of the first key, which comes byte by byte
  const auto refused = [&] {
    if (goes_on) {
      protocol::Upload upload;
      upload.channel = 1;
      upload.bytes = bytes;
      owner->send(upload);
      bytes.assign(1, std::byte{'x'});
    }
    return owner->find<protocol::Refused>().has_value();
  };
  const Duration took = time_until(world.time, refused, 10 * given);
  REQUIRE(owner->find<protocol::Refused>());
  CHECK(owner->find<protocol::Refused>()->reason == StateErrc::peer_silent);
  CHECK(took >= given);
  CHECK(took <= given + given / 2 + 2ms);  // counted from the first look on
}

TEST_CASE("after each patience another client is asked for a map") {
  const milliseconds given = GENERATE(20ms, 100ms, 1'000ms);
  ServerCoreOptions options;
  options.limits.upload_patience = given;
  World world(std::move(options));
  protocol::Open open;
  open.channel = 1;
  open.key_type = open.value_type = "string";
  open.hash = make_master(4).hash();
  const auto first = connect_raw(world.time, *world.port, password);
  first->send(open);
  world.time.run_ready();
  REQUIRE(first->find<protocol::UploadWanted>());
  const auto second = connect_raw(world.time, *world.port, password, "192.0.2.2");
  second->send(open);
  world.time.run_ready();
  REQUIRE_FALSE(second->find<protocol::UploadWanted>());
  const Duration took = time_until(
      world.time, [&] { return second->find<protocol::UploadWanted>().has_value(); }, 10 * given);
  CHECK(took >= given);
  CHECK(took <= given + given / 2 + 2ms);
}

TEST_CASE("an event that nobody waits for by a blocking call ends at its time, too") {
  const milliseconds given = GENERATE(20ms, 100ms, 10'000ms);
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();  // nobody listens
  const auto remote = std::make_shared<Remote>(
      time, port, RemoteCoreOptions{.password = password, .event_timeout = given, .seed = 1});
  const auto call = std::make_shared<detail::EventCall>(serialize_event(set_key("a", "b")));
  Map map(remote);
  push_keys(map, 2);
  CHECK(error_of([&] { map.freeze(1ms); }) == StateErrc::unavailable);
  remote->core().send_event(map.hash(), call);
  const Duration took = time_until(
      time, [&] { return call->is_finished(); }, 10 * given);
  CHECK(took >= given);
  CHECK(took <= given + given / 4 + 1ms);
  CHECK(error_of([&] { call->result(); }) == StateErrc::unavailable);
}

TEST_CASE("a look at the time comes four times within the shortest time") {
  Limits limits;
  CHECK(detail::tick_period(limits, 500ms, 500ms) == 125ms);  // of the half second
  CHECK(detail::tick_period(limits, 500ms, 10s) == 500ms);
  for (const auto time : {&Limits::heartbeat_every, &Limits::authentication_time, &Limits::upload_silence,
                          &Limits::upload_patience, &Limits::upload_time, &Limits::silence}) {
    Limits shorter;
    shorter.*time = 40ms;
    CHECK(detail::tick_period(shorter, 500ms, 10s) == 10ms);
    shorter.*time = 1ms;
    CHECK(detail::tick_period(shorter, 500ms, 10s) == 1ms);
  }
  CHECK(detail::tick_period(limits, 500ms, 40ms) == 10ms);
}

}  // namespace syncstate::testing::times_test
