// What a server may not make a client's session do: each field of each frame within the client's own limits.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"

namespace hostile_frames_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using Lines = std::vector<std::string>;
using wire::ChannelId;
using wire::FollowMode;

std::shared_ptr<const SerializedEvent> make_event() {
  auto event = std::make_shared<SerializedEvent>();
  event->type_name = "string";
  event->bytes = Bytes(3);
  return event;
}

/// A client whose channel 1 is open and followed, and has sent events 1 .. `events`.
struct Victim : ClientSide {
  explicit Victim(const Limits& own_limits = {}, std::uint64_t events = 0) : ClientSide(own_limits) {
    authenticate();
    wire::Open open;
    open.mode = FollowMode::merged;
    session.open(open);
    session.get_sender(1, 0);
    feed(frame_of(wire::Opened{1, {9, 0}}));
    feed(frame_of(wire::SenderMessage{1, 77}));
    for (std::uint64_t number = 1; number <= events; ++number) session.send_event(1, number, make_event());
    take_all();
    log.lines.clear();
  }

  [[nodiscard]] bool is_broken() const { return log.close_reason() == StateErrc::protocol_error; }
};

wire::DiffMessage diff_of(ChannelId stream, Epoch epoch, bool is_full = false) {
  wire::DiffMessage diff;
  diff.stream = stream;
  diff.epoch = epoch;
  diff.is_full = is_full;
  diff.advance = 1;
  return diff;
}

wire::ValuePart part_of(ChannelId stream, std::uint64_t total, std::uint64_t offset, ByteView bytes) {
  return wire::ValuePart{stream, 0, total, offset, bytes};
}

}  // namespace

TEST_CASE("answers are no more than the events that were sent and not answered", "[protocol][guarantee_10]") {
  const auto answers = [](std::uint64_t number, std::uint64_t more) {
    return frame_of(wire::Answer{1, number, 5, more});
  };
  const std::uint64_t most = ~std::uint64_t{0};
  SECTION("all of them at once") {
    Victim client({}, 3);
    client.feed(answers(1, 2));
    CHECK(client.log.lines == Lines{"answer 1 1 5", "answer 1 2 6", "answer 1 3 7"});
  }
  SECTION("none was sent") {
    Victim client;
    client.feed(answers(1, 0));
    CHECK(client.log.lines.size() == 1);
    CHECK(client.is_broken());
  }
  SECTION("more than any limit") {
    for (const std::uint64_t more : {std::uint64_t{3}, std::uint64_t{1'023}, most - 8, most - 1}) {
      INFO(more);
      Victim client({}, 3);
      client.feed(frame_of(wire::Answer{1, 1, 1, more}));
      CHECK(client.log.lines.size() == 1);
      CHECK(client.is_broken());
    }
  }
  SECTION("one beyond the last number") {
    Victim client({}, 3);
    client.feed(answers(2, 2));
    CHECK(client.log.lines.size() == 1);
    CHECK(client.is_broken());
  }
  SECTION("more often than sent") {
    Victim client({}, 2);
    client.feed(answers(1, 0));
    client.feed(frame_of(wire::AnswerError{1, 2, StateErrc::hook_failed, ""}));
    CHECK(client.log.lines.size() == 2);
    client.feed(frame_of(wire::AnswerError{1, 2, StateErrc::hook_failed, ""}));
    CHECK(client.is_broken());
  }
  SECTION("an event that waits in the client") {
    Limits limits;
    limits.piece_bytes = 1;
    Victim client(limits, 1);
    client.session.send_event(1, 2, make_event());
    client.feed(answers(2, 0));
    CHECK(client.is_broken());
  }
  SECTION("of a request") {
    Victim client({}, 1);
    const ChannelId request = client.session.list();
    client.feed(frame_of(wire::Answer{request, 1, 1}));
    CHECK(client.is_broken());
  }
  SECTION("of a channel that was closed: not heard") {
    Victim client({}, 3);
    client.session.close_channel(1);
    client.feed(frame_of(wire::Answer{1, 1, 1, most - 8}));
    CHECK(client.log.lines.empty());
  }
}

TEST_CASE("a server's windows are bounded by the client's own limits", "[protocol][guarantee_10]") {
  ClientSide client;
  client.session.on_open("secret", test_binding(), t0);
  wire::Welcome welcome;
  welcome.proof = wire::make_proof("secret", wire::ProofRole::server, test_binding());
  welcome.events_in_flight = welcome.event_bytes_in_flight = ~std::uint64_t{0};
  client.feed(frame_of(welcome));
  REQUIRE(client.session.is_authenticated());
  CHECK(client.session.events_in_flight() == client.limits.events_in_flight);
  CHECK(client.session.event_bytes_in_flight() == client.limits.event_bytes_in_flight);
}

TEST_CASE("an answer is of the kind that was asked for, and comes once", "[protocol][guarantee_10]") {
  enum Kind { head, diff, state, list };
  const auto ask = [](Victim& client, int kind) {
    switch (kind) {
      case head: return client.session.get_update_id(1);
      case diff: return client.session.get_diff(1, {9, 0}, 5);
      case state: return client.session.fetch(MapHash(), "string", "string");
      default: return client.session.list();
    }
  };
  const auto answer = [](ChannelId id, int kind) {
    switch (kind) {
      case head: return frame_of(wire::UpdateIdMessage{id, {9, 5}});
      case diff: return frame_of(diff_of(id, 9));
      case state: return frame_of(wire::StateEnd{id});
      default: return frame_of(wire::Hosted{id, false, {}});
    }
  };
  const int asked = GENERATE(0, 1, 2, 3);
  const int answered = GENERATE(0, 1, 2, 3);
  INFO("asked " << asked << ", answered " << answered);
  {
    Victim client;
    const ChannelId id = ask(client, asked);
    client.feed(answer(id, answered));
    CHECK(client.log.lines.size() == 1);
    CHECK(client.is_broken() == (asked != answered));
    if (asked != answered) return;
    client.feed(answer(id, answered));
    // A second diff may be one of a channel that was given up, as far as the client can tell: it is not heard.
    CHECK(client.is_broken() == (asked != diff));
    CHECK(client.log.lines.size() == (asked == diff ? 1 : 2));
  }
  {  // given up: dropped as long as it comes, and still of its kind
    Victim client;
    const ChannelId id = ask(client, asked);
    client.session.forget_request(id);
    client.feed(answer(id, (answered + 1) % 4));
    CHECK(client.is_broken());
  }
  {
    Victim client;
    const ChannelId id = ask(client, asked);
    client.session.forget_request(id);
    client.feed(answer(id, asked));
    CHECK(client.log.lines.empty());
    CHECK(client.session.staged_bytes() == 0);
  }
  {  // refused twice
    Victim client;
    const ChannelId id = ask(client, asked);
    client.feed(frame_of(wire::Refused{id, StateErrc::busy, "", {}}));
    client.feed(frame_of(wire::Refused{id, StateErrc::busy, "", {}}));
    CHECK(client.log.lines.size() == 1);
  }
}

TEST_CASE("frames of channels do not name requests", "[protocol][guarantee_10]") {
  const int kind = GENERATE(range(0, 6));
  Victim client;
  const ChannelId id = client.session.list();
  const Bytes frames[] = {frame_of(wire::Opened{id, {9, 0}}),
                          frame_of(wire::UploadWanted{id}),
                          frame_of(diff_of(id, 9)),
                          frame_of(part_of(id, 9, 0, {})),
                          frame_of(wire::AnswerError{id, 1, StateErrc::busy, ""}),
                          frame_of(wire::SenderMessage{id, 77})};
  client.feed(frames[kind]);
  CHECK(client.is_broken());
}

TEST_CASE("what was asked about a channel ends with it, and its late answer is dropped", "[protocol]") {
  const bool is_refused = GENERATE(false, true);
  Limits limits;
  limits.requests_in_flight = 2;
  Victim client(limits);
  const ChannelId head = client.session.get_update_id(1);
  const ChannelId diff = client.session.get_diff(1, {9, 0}, 5);
  CHECK_FALSE(client.session.has_room_for_request());
  if (is_refused) {
    client.feed(frame_of(wire::Refused{1, StateErrc::stopped, "", {}}));
  } else {
    client.session.close_channel(1);
  }
  // The server counts the diff until it has sent it, so it counts here, too.
  CHECK(client.session.has_room_for_request());
  const ChannelId list = client.session.list();
  CHECK_FALSE(client.session.has_room_for_request());
  client.log.lines.clear();
  client.feed(frame_of(wire::UpdateIdMessage{head, {9, 5}}));
  CHECK_FALSE(client.session.has_room_for_request());
  SECTION("an answer in pieces") {
    client.feed(frame_of(wire::Transfer{diff, {}}));
    client.feed(frame_of(part_of(diff, 0, 0, {})));
    CHECK_FALSE(client.session.has_room_for_request());
    client.feed(frame_of(diff_of(diff, 9)));
  }
  SECTION("a refusal") { client.feed(frame_of(wire::Refused{diff, StateErrc::not_hosted, "", {}})); }
  CHECK(client.session.has_room_for_request());
  CHECK(client.log.lines.empty());
  CHECK(client.session.staged_bytes() == 0);
  client.feed(frame_of(wire::Hosted{list, false, {}}));
  CHECK(client.log.lines.size() == 1);
  client.feed(frame_of(diff_of(diff, 9)));  // a second answer makes no more room
  CHECK(client.log.lines.size() == 1);
  CHECK_FALSE(client.session.is_over());
}

TEST_CASE("requests that were given up count until they are answered", "[protocol]") {
  Limits limits;
  limits.requests_in_flight = 3;
  Victim client(limits);
  std::vector<ChannelId> ids;
  while (client.session.has_room_for_request()) ids.push_back(client.session.list());
  REQUIRE(ids.size() == 3);
  for (const ChannelId id : ids) client.session.forget_request(id);
  CHECK_FALSE(client.session.has_room_for_request());
  client.feed(frame_of(wire::Hosted{ids[1], true, {}}));
  CHECK_FALSE(client.session.has_room_for_request());
  client.feed(frame_of(wire::Hosted{ids[1], false, {}}));
  CHECK(client.session.has_room_for_request());
  CHECK(client.log.lines.empty());
}

TEST_CASE("parts of values are bounded over all streams", "[protocol][guarantee_10]") {
  Limits limits;
  limits.staged_bytes = 100'000;
  Victim client(limits);
  wire::Open open;
  open.mode = FollowMode::merged;
  for (int i = 0; i < 3; ++i) client.session.open(open);
  const Bytes part(30'000);
  /// The stream is refused to the role, and closed at the server; the link lives.
  const auto check_given_up = [&](ChannelId stream) {
    CHECK_FALSE(client.session.is_over());
    REQUIRE_FALSE(client.log.lines.empty());
    CHECK_THAT(client.log.lines.back(), contains_text("refused " + std::to_string(stream) + " 20"));
    Bytes out;
    client.session.produce(out);
    const auto closes = frame_of(wire::CloseChannel{stream});
    CHECK(std::search(out.begin(), out.end(), closes.begin(), closes.end()) != out.end());
  };
  SECTION("dropped with its stream, or by another frame of it") {
    for (int round = 0; round < 20; ++round) {
      client.feed(frame_of(part_of(1, 1'000'000, 0, part)));
      CHECK(client.session.staged_bytes() >= part.size());
      if (round % 2 == 0) client.feed(frame_of(diff_of(1, 9)));
    }
    client.session.close_channel(1);
    CHECK(client.session.staged_bytes() == 0);
    CHECK_FALSE(client.session.is_over());
  }
  SECTION("many streams: the one that passes the limit is given up, and the others go on") {
    client.session.open(open);
    for (ChannelId stream = 1; stream <= 4; ++stream)
      client.feed(frame_of(part_of(stream, 1'000'000, 0, part)));
    check_given_up(4);
    CHECK(client.session.staged_bytes() >= 3 * part.size());
    CHECK(client.session.staged_bytes() <= limits.staged_bytes);
    client.feed(frame_of(diff_of(1, 9)));
    client.feed(frame_of(part_of(4, 1'000'000, part.size(), part)));  // it was under way
    CHECK_FALSE(client.session.is_over());
  }
  SECTION("a value beyond the limit for values") {
    client.feed(frame_of(part_of(2, Limits().value_bytes + 1, 0, part)));
    check_given_up(2);
    CHECK_THAT(client.log.lines.back(),
               contains_text("value_bytes is " + std::to_string(Limits().value_bytes)));
  }
  SECTION("of a request, which fails alone") {
    const ChannelId request = client.session.get_diff(1, {9, 0}, 5);
    client.feed(frame_of(part_of(request, Limits().value_bytes + 1, 0, part)));
    CHECK_THAT(client.log.lines.back(), contains_text("refused " + std::to_string(request) + " 20"));
    client.feed(frame_of(part_of(request, 1'000'000, 0, part)));
    client.feed(frame_of(diff_of(request, 9)));
    CHECK(client.session.staged_bytes() == 0);
    CHECK_FALSE(client.session.is_over());
  }
  SECTION("a value takes no more than its size while it grows") {
    const Bytes piece(10'000);
    for (std::size_t offset = 0; offset < 50'000; offset += piece.size())
      client.feed(frame_of(part_of(1, 51'000, offset, piece)));
    CHECK(client.session.staged_bytes() >= 50'000);
    CHECK(client.session.staged_bytes() <= 51'000);
    CHECK_FALSE(client.session.is_over());
  }
  SECTION("what the role stages counts too") {
    client.session.set_staged(2, 80'000);
    client.session.set_staged(2, 70'001);
    CHECK(client.session.staged_bytes() == 70'001);
    client.feed(frame_of(part_of(1, 1'000'000, 0, part)));
    check_given_up(1);
    CHECK(client.session.staged_bytes() == 70'001);
  }
}

TEST_CASE("a value beyond the client's limit is refused however it comes, and nothing else is",
          "[protocol][guarantee_10]") {
  Limits limits;
  limits.value_bytes = 100;
  Victim client(limits);
  wire::Open open;
  open.mode = FollowMode::merged;
  client.session.open(open);
  client.feed(frame_of(wire::Opened{2, {9, 0}}));
  client.feed(frame_of(diff_of(2, 9)));
  client.feed(frame_of(diff_of(1, 9)));
  client.log.lines.clear();
  // Together they are more than one value may be.
  const auto entries_of = [](std::size_t last_bytes) {
    Bytes bytes;
    ByteWriter out(bytes);
    for (const std::size_t size : {std::size_t{100}, std::size_t{100}, last_bytes}) {
      out.put_varint(bytes.size());
      out.put_sized(std::string(size, 'v'));
    }
    return bytes;
  };
  const ChannelId request = client.session.get_diff(1, {9, 0}, 5);
  const auto frame_with = [&](int kind, std::size_t size) {
    const Bytes entries = entries_of(size);
    const Bytes value(size);
    wire::DiffMessage diff = diff_of(kind == 3 ? request : 1, 9);
    diff.entries = entries;
    if (kind == 0) return frame_of(wire::Step{1, 0, value});
    if (kind == 1) return frame_of(wire::Transfer{1, entries});
    return frame_of(diff);
  };
  const int kind = GENERATE(0, 1, 2, 3);  // a step, a piece of a diff, a diff that is followed, or asked for
  const ChannelId stream = kind == 3 ? request : 1;
  SECTION("as large as allowed") {
    client.feed(frame_with(kind, 100));
    REQUIRE(client.log.lines.size() == 1);
    CHECK_THAT(client.log.lines.back(), !contains_text("refused"));
  }
  SECTION("larger by a byte") {
    client.feed(frame_with(kind, 101));
    REQUIRE(client.log.lines.size() == 1);
    CHECK_THAT(client.log.lines.back(), contains_text("refused " + std::to_string(stream) + " 20"));
    CHECK_THAT(client.log.lines.back(), contains_text("value_bytes is 100"));
    client.log.lines.clear();
    client.feed(frame_with(kind == 3 ? 2 : kind, 5));
    CHECK(client.log.lines.size() == (kind == 3 ? 1 : 0));  // what still comes on the stream is dropped
    client.log.lines.clear();
    client.feed(frame_of(wire::Step{2, 0, Bytes(100)}));
    CHECK(client.log.lines.size() == 1);
  }
  CHECK_FALSE(client.session.is_over());
}

TEST_CASE("a diff that is whole frees what was staged", "[protocol]") {
  Victim client;
  client.session.set_staged(1, 1'000);
  client.feed(frame_of(diff_of(1, 9)));
  CHECK(client.session.staged_bytes() == 0);
  const ChannelId request = client.session.get_diff(1, {9, 0}, 5);
  client.session.set_staged(request, 1'000);
  client.feed(frame_of(diff_of(request, 9)));
  CHECK(client.session.staged_bytes() == 0);
}

TEST_CASE("a list beyond the client's limits fails, and the link goes on", "[protocol][guarantee_10]") {
  Limits limits;
  limits.maps = 3;
  SECTION("maps") {}
  SECTION("bytes") {
    limits.maps = 1'000;
    limits.staged_bytes = 3'000;
  }
  Victim client(limits);
  const ChannelId request = client.session.list();
  Bytes maps;
  ByteWriter out(maps);
  for (int i = 0; i < 4; ++i) {
    wire::HostedMapInfo{MapHash(), MapHash(), std::string(800, 'k'), "v", 1}.encode(out);
  }
  for (const bool more : {true, true, false}) client.feed(frame_of(wire::Hosted{request, more, maps}));
  REQUIRE(client.log.lines.size() == 1);
  CHECK_THAT(client.log.lines[0],
             contains_text("refused 2 " + std::to_string(static_cast<int>(StateErrc::too_large))));
  CHECK(client.session.staged_bytes() == 0);
  CHECK_FALSE(client.session.is_over());
  client.feed(frame_of(wire::Hosted{request, false, {}}));  // it ended already
  CHECK(client.is_broken());
}

TEST_CASE("a heartbeat names a stream once", "[protocol][guarantee_10]") {
  Victim client;
  Bytes body;
  ByteWriter out(body);
  wire::HeartbeatEntry{1, 5}.encode(out);
  for (int i = 0; i < 3; ++i) client.feed(raw_frame(4, body));
  CHECK(client.log.lines == Lines(3, "head 1 5"));
  wire::HeartbeatEntry{1, 5}.encode(out);
  client.feed(raw_frame(4, body));
  CHECK(client.log.lines.size() == 5);
  CHECK(client.is_broken());
}

TEST_CASE("a stream has few full diffs", "[protocol][guarantee_10]") {
  Victim client;
  Epoch epoch = 9;
  for (int i = 0; i < 8; ++i) client.feed(frame_of(diff_of(1, ++epoch, true)));
  CHECK(client.log.lines.size() == 8);
  client.feed(frame_of(diff_of(1, ++epoch, true)));
  CHECK(client.is_broken());
}

TEST_CASE("a session's actions are bounded by the bytes that came, whatever they say",
          "[protocol][guarantee_10]") {
  // The largest frames that a server may send, of each kind that has no end of its own.
  Victim client({}, 1'000);
  const auto fed = [&](const Bytes& frame) {
    client.log.lines.clear();
    client.feed(frame);
    return client.log.lines.size();
  };
  Bytes heads;
  ByteWriter out(heads);
  for (int i = 0; i < 100'000; ++i) wire::HeartbeatEntry{1, 5}.encode(out);
  CHECK(fed(raw_frame(4, heads)) <= 2);

  Victim other({}, 1'000);
  std::size_t actions = 0;
  std::size_t bytes = 0;
  for (std::uint64_t number = 1; !other.session.is_over() && number < 100; ++number) {
    const Bytes frame = frame_of(wire::Answer{1, number, 1, 1});
    bytes += frame.size();
    other.feed(frame);
  }
  actions = other.log.lines.size();
  CHECK(actions <= bytes);
}

}  // namespace hostile_frames_test
