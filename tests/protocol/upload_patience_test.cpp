// What sessions do when an upload takes long, and when another client's upload was whole first.
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"

namespace upload_patience_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("a server session tells after each patience that an upload goes on, until it ends", "[protocol]") {
  ServerSide server;
  server.authenticate();
  wire::Open open;
  open.channel = 1;
  open.key_type = open.value_type = "string";
  server.feed(frame_of(open));
  TimePoint now = t0;
  // A byte every second, and a tick every half second, as in a lane.
  const auto pass = [&](std::chrono::milliseconds time) {
    server.log.lines.clear();
    for (const TimePoint until = now + time; now < until;) {
      now += 500ms;
      if ((now - t0) % 1s == 0ms) {
        wire::Upload upload;
        upload.channel = 1;
        const Bytes byte(1, std::byte{1});
        upload.bytes = byte;
        server.feed(frame_of(upload), now);
      }
      server.tick(now);
    }
    std::size_t told = 0;
    for (const std::string& line : server.log.lines) told += line == "upload goes on 1" ? 1 : 0;
    return told;
  };
  CHECK(pass(5s) == 0);  // counted from the first tick on
  CHECK(pass(500ms) == 1);
  CHECK(pass(4'500ms) == 0);
  CHECK(pass(500ms) == 1);
  CHECK(pass(50s) == 10);
  server.feed(frame_of(wire::UploadEnd{1}), now);
  CHECK(server.log.lines.back() == "upload ended 1");
  now += 20s;
  server.feed(raw_frame(static_cast<unsigned>(wire::FrameKind::heartbeat)), now);
  server.log.lines.clear();
  server.tick(now);
  CHECK(server.log.lines == Lines{});
}

TEST_CASE("a client whose map was opened while it uploads sends no more of it", "[protocol]") {
  const auto map = std::make_shared<detail::HostedMap<std::string, std::string>>(
      make_master<std::string>(100, "value"), Limits{});
  Limits limits;
  limits.piece_bytes = 64;
  ClientSide client(limits);
  client.authenticate();
  wire::Open open;
  open.hash = map->hash();
  open.keys_hash = map->keys_hash();
  open.key_type = open.value_type = "string";
  const auto channel = client.session.open(open);
  client.take_all();
  client.feed(frame_of(wire::UploadWanted{channel}));
  client.session.upload(channel, map);
  REQUIRE(kinds_of(client.take()).front() == static_cast<int>(wire::FrameKind::upload));
  wire::Opened opened;
  opened.channel = channel;
  opened.head = {9, 0};
  client.feed(frame_of(opened));
  CHECK(client.log.closes.empty());
  for (const int kind : kinds_of(client.take_all())) {
    CHECK(kind != static_cast<int>(wire::FrameKind::upload));
    CHECK(kind != static_cast<int>(wire::FrameKind::upload_end));
  }
  // An open channel is not asked for an upload.
  client.feed(frame_of(wire::UploadWanted{channel}));
  CHECK(client.log.close_reason() == StateErrc::protocol_error);
}

}  // namespace upload_patience_test
