// What an authenticated client may make a server hold, and for how long.
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "protocol/session_harness.hpp"
#include "support/catch.hpp"

namespace syncstate::testing::holding_test {
namespace {

using Hosted = detail::HostedMap<std::string, std::string>;

/// A server session with one map, open on as many channels as the test wants.
struct OneMap {
  explicit OneMap(const Limits& limits = {}) : server(limits) {
    server.authenticate();
    map = std::make_shared<Hosted>(make_master<std::string>(2, "-"), Limits{});
    server.maps[map->hash()] = map;
  }
  void open(wire::ChannelId channel) {
    wire::Open open;
    open.channel = channel;
    open.hash = map->hash();
    open.key_type = open.value_type = "string";
    server.feed(frame_of(open));
    server.feed(frame_of(wire::GetSender{channel, 0}));
  }
  void send_part(wire::ChannelId channel, std::size_t bytes) {
    const Bytes body(bytes, std::byte{1});
    wire::EventPart part;
    part.channel = channel;
    part.bytes = body;
    server.feed(frame_of(part));
  }
  void send_event(wire::ChannelId channel, std::uint64_t number, std::size_t bytes) {
    const Bytes body(bytes, std::byte{1});
    wire::EventMessage event;
    event.channel = channel;
    event.number = number;
    event.bytes = body;
    server.feed(frame_of(event));
  }

  ServerSide server;
  std::shared_ptr<Hosted> map;
};

}  // namespace

TEST_CASE("the bytes of events in flight are bounded, whatever their number", "[protocol][guarantee_7]") {
  Limits limits;
  limits.event_bytes_in_flight = 1'000;
  OneMap t(limits);
  t.open(1);
  t.send_event(1, 1, 600);
  t.send_event(1, 2, 400);
  CHECK(t.server.log.closes.empty());
  SECTION("one byte more") {
    t.send_event(1, 3, 1);
    CHECK(t.server.log.close_reason() == StateErrc::busy);
  }
  SECTION("as many again, once their hooks have run, though nobody has read the answers") {
    t.server.session.answer({1, 1, 600}, 0);
    t.send_event(1, 3, 600);
    CHECK(t.server.log.closes.empty());
    t.send_event(1, 4, 1);
    CHECK(t.server.log.close_reason() == StateErrc::busy);
  }
  SECTION("closing the channel gives nothing back: they are held until they have run") {
    t.server.feed(frame_of(wire::CloseChannel{1}));
    t.open(2);
    t.send_event(2, 1, 1);
    CHECK(t.server.log.close_reason() == StateErrc::busy);
  }
  SECTION("a single event always fits") {
    t.server.session.answer({1, 1, 600}, 0);
    t.server.session.answer({1, 2, 400}, 0);
    t.send_event(1, 3, 5'000);
    CHECK(t.server.log.closes.empty());
    t.server.session.answer({1, 3, 5'000}, 0);
    t.send_event(1, 4, 1'000);
    CHECK(t.server.log.closes.empty());
  }
}

TEST_CASE("the events of a link that are not whole have the room of one", "[protocol][guarantee_7]") {
  Limits limits;
  limits.event_bytes = 1'000;
  OneMap t(limits);
  for (wire::ChannelId channel = 1; channel <= 10; ++channel) {
    t.open(channel);
    t.send_part(channel, 100);
  }
  CHECK(t.server.log.closes.empty());
  /// One byte more: the event is too large. What came of it goes, and the session goes on.
  const auto check_dropped = [&](wire::ChannelId channel) {
    const std::size_t before = t.server.session.buffered_bytes();
    t.send_part(channel, 1);
    CHECK(t.server.session.buffered_bytes() < before);
    CHECK(t.server.log.closes.empty());
  };
  SECTION("one byte more, on any channel") { check_dropped(3); }
  SECTION("an event that becomes whole gives its room back") {
    t.send_event(1, 1, 0);
    t.send_part(2, 100);
    CHECK(t.server.log.closes.empty());
    check_dropped(2);
  }
  SECTION("a channel that is closed gives its room back") {
    t.server.feed(frame_of(wire::CloseChannel{1}));
    t.send_part(2, 100);
    CHECK(t.server.log.closes.empty());
    check_dropped(2);
  }
}

TEST_CASE("an upload that does not go on is given up, and its link lives on", "[protocol]") {
  ServerSide server;
  server.authenticate();
  wire::Open open;
  open.channel = 1;
  open.hash = MapHash();
  open.key_type = open.value_type = "string";
  server.feed(frame_of(open));
  TimePoint now = t0;
  const Bytes byte(1, std::byte{1});
  const Bytes heartbeat{std::byte{1}, std::byte{4}};
  // Heartbeats all the while: the client is there, it just does not go on. Half a second a tick, as in a lane.
  const auto pass = [&](std::chrono::milliseconds time, std::chrono::milliseconds upload_every) {
    for (const TimePoint until = now + time; now < until;) {
      now += 500ms;
      server.feed(heartbeat, now);
      if (upload_every > 0ms && (now - t0) % upload_every == 0ms) {
        wire::Upload upload;
        upload.channel = 1;
        upload.bytes = byte;
        server.feed(frame_of(upload), now);
      }
      server.tick(now);
    }
  };
  const auto was_refused = [&] {
    for (const OwnedFrame& frame : split_frames(server.take_all())) {
      if (frame.kind != wire::FrameKind::refused) continue;
      CHECK(wire::decode_body<wire::Refused>(frame.body).reason == StateErrc::peer_silent);
      return true;
    }
    return false;
  };
  SECTION("nothing comes") {
    pass(14'500ms, 0ms);
    CHECK_FALSE(was_refused());
    pass(1'500ms, 0ms);
    CHECK(was_refused());
  }
  SECTION("empty pieces come") {
    for (int i = 0; i < 40; ++i) {
      now += 500ms;
      wire::Upload upload;
      upload.channel = 1;
      server.feed(frame_of(upload), now);
      server.tick(now);
    }
    CHECK(was_refused());
  }
  SECTION("a byte now and then") {
    pass(599'500ms, 10s);
    CHECK_FALSE(was_refused());
    pass(1s, 10s);
    CHECK(was_refused());
  }
  CHECK(server.log.closes.empty());
  CHECK(server.log.lines.back() == "closed 1");  // so that who waits for the map is asked
  // What is still under way of it is ignored, and the map may be asked for again.
  wire::Upload late;
  late.channel = 1;
  late.bytes = byte;
  server.feed(frame_of(late), now);
  open.channel = 2;
  server.feed(frame_of(open), now);
  CHECK(kinds_of(server.take_all()).back() == static_cast<int>(wire::FrameKind::upload_wanted));
  CHECK(server.log.closes.empty());
}

TEST_CASE("lists that nobody reads hold no maps, and are made when they are read",
          "[protocol][guarantee_7]") {
  const auto hash_of = [](std::uint8_t i) { return MapHash({std::byte{i}}); };
  ServerSide server;
  server.authenticate();
  server.answers = false;
  for (wire::ChannelId id = 1; id <= 3; ++id) {
    server.feed(frame_of(wire::List{id}));
    server.session.send_hosted(id, server.list);
  }
  CHECK(server.list.calls == 0);
  for (std::uint8_t i = 1; i <= 3; ++i) server.list.maps.insert(hash_of(i));
  ClientSide client;
  client.authenticate();
  for (int i = 0; i < 3; ++i) client.session.list();
  client.feed(server.take_all());
  std::vector<std::string> heads;
  for (const std::string& line : client.log.lines) {
    if (line.rfind("hosted", 0) == 0) heads.push_back(line);
  }
  CHECK(heads == std::vector<std::string>{"hosted 1 3", "hosted 2 3", "hosted 3 3"});
  CHECK(server.list.calls == 3);  // one for each map: what is short answers all that wait
}

TEST_CASE("a client keeps within the bytes that its server takes", "[protocol]") {
  wire::Welcome welcome;
  welcome.proof = wire::make_proof("secret", wire::ProofRole::server, test_binding());
  welcome.event_bytes_in_flight = 77;
  ClientSide client;
  client.session.on_open("secret", test_binding(), t0);
  client.take();
  client.feed(frame_of(welcome));
  CHECK(client.session.event_bytes_in_flight() == 77);
}

TEST_CASE("a revoked channel sends no diff and takes no event, and is refused behind its answers",
          "[protocol]") {
  OneMap t;
  wire::Open open;
  open.channel = 1;
  open.hash = t.map->hash();
  open.key_type = open.value_type = "string";
  open.mode = wire::FollowMode::every_step;
  t.server.feed(frame_of(open));
  t.server.feed(frame_of(wire::GetSender{1, 0}));
  t.send_event(1, 1, 5);
  t.server.take_all();
  t.server.log.lines.clear();
  t.server.session.revoke(1);
  t.server.session.revoke(1);
  CHECK_FALSE(t.server.session.is_followed(1));
  CHECK(t.server.session.take_revoked().empty());  // an event of it is not answered

  t.map->transact([](StateMap<std::string, std::string>& map) { map.set("k000000", "secret"); });
  CHECK(t.server.take_all().empty());
  t.send_event(1, 2, 5);
  t.send_part(1, 5);
  t.server.feed(frame_of(wire::EventType{1, "other"}));
  t.server.feed(frame_of(wire::Follow{1, {}, wire::FollowMode::merged}));
  CHECK(t.server.log.lines.empty());
  CHECK(t.server.take_all().empty());

  t.server.session.answer({1, 1, 5}, 0);
  CHECK(t.server.session.take_revoked().empty());  // the answer is not sent
  const auto sent = split_frames(t.server.take_all());
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].kind == wire::FrameKind::answer);
  CHECK(t.server.session.take_revoked() == std::vector<wire::ChannelId>{1});
  CHECK_FALSE(t.server.session.has_revoked());
  CHECK(t.server.log.closes.empty());
  CHECK(t.server.session.held_bytes() == t.server.session.counted_bytes());
}

}  // namespace syncstate::testing::holding_test
