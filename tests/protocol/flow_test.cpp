// What the two sessions do together once they trust each other: maps, events, requests, turns.
#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"

namespace flow_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using wire::FollowMode;
using wire::FrameKind;
using Lines = std::vector<std::string>;
using Hosted = detail::HostedMap<std::string, std::string>;

std::shared_ptr<Hosted> host(std::uint32_t keys, const std::string& initial = "-",
                             const Limits& limits = {}) {
  return std::make_shared<Hosted>(make_master<std::string>(keys, initial), limits);
}

wire::Open open_of(const Hosted& map, FollowMode mode = FollowMode::none) {
  wire::Open open;
  open.hash = map.hash();
  open.keys_hash = map.keys_hash();
  open.key_type = open.value_type = "string";
  open.mode = mode;
  return open;
}

/// Both sides, authenticated.
struct Pair {
  explicit Pair(const Limits& limits = {}) : client(limits), server(limits) {
    client.authenticate();
    server.authenticate();
  }
  void settle() { exchange(client, server); }
  Lines take_lines() { return std::exchange(client.log.lines, {}); }

  ClientSide client;
  ServerSide server;
};

std::shared_ptr<const SerializedEvent> make_event(std::string text, std::string type = "string") {
  return std::make_shared<const SerializedEvent>(SerializedEvent{std::move(type), to_bytes(text)});
}

/// The entry (ordinal, value) in hexadecimal digits.
std::string entry_hex(std::uint32_t ordinal, const std::string& value) {
  Bytes out;
  detail::append_entry(ordinal, value, out);
  return to_hex(out);
}

}  // namespace

// Maps

TEST_CASE("a hosted map is opened, followed and left", "[protocol]") {
  Pair pair;
  const auto map = host(4);
  pair.server.maps[map->hash()] = map;
  const std::string epoch = std::to_string(map->head().epoch);
  commit<std::string>(*map, {{2, "x"}});
  const auto channel = pair.client.session.open(open_of(*map));
  pair.settle();
  CHECK(pair.take_lines() == Lines{"opened 1 " + epoch + " 1"});

  pair.client.session.follow(channel, {}, FollowMode::merged);
  pair.settle();
  CHECK(pair.take_lines() == Lines{"diff 1 " + epoch + " 0 1 " + entry_hex(2, "x")});
  commit<std::string>(*map, {{0, "a"}});
  pair.settle();
  CHECK(pair.take_lines() == Lines{"step 1 " + epoch + " 1 2 0 61"});
  commit<std::string>(*map, {{0, "b"}, {1, "c"}});
  commit<std::string>(*map, {{0, "d"}});
  pair.settle();
  CHECK(pair.take_lines() == Lines{"diff 1 " + epoch + " 2 4 " + entry_hex(0, "d") + entry_hex(1, "c")});

  pair.client.session.unfollow(channel);
  commit<std::string>(*map, {{0, "e"}});
  pair.settle();
  CHECK(pair.take_lines().empty());
  pair.client.session.close_channel(channel);
  pair.settle();
  CHECK(pair.server.log.lines.back() == "closed 1");
}

TEST_CASE("a client that closes a channel keeps within the requests that the server counts", "[protocol]") {
  Limits limits;
  limits.requests_in_flight = 1;
  Pair pair(limits);
  const auto map = host(4);
  pair.server.maps[map->hash()] = map;
  commit<std::string>(*map, {{2, "x"}});
  for (int round = 0; round < 3; ++round) {
    const auto channel = pair.client.session.open(open_of(*map));
    pair.settle();
    pair.take_lines();
    REQUIRE(pair.client.session.has_room_for_request());
    pair.client.session.get_diff(channel, {}, 1);
    pair.client.session.close_channel(channel);
    // As a role does that has more to ask, before the server has sent anything.
    const auto next = pair.client.session.open(open_of(*map));
    pair.server.feed(pair.client.take_all());
    while (pair.client.session.has_room_for_request()) pair.client.session.list();
    pair.server.feed(pair.client.take_all());
    CHECK(pair.server.log.closes.empty());
    pair.settle();
    CHECK(pair.client.session.has_room_for_request());
    pair.client.session.close_channel(next);
  }
  CHECK_FALSE(pair.client.session.is_over());
}

TEST_CASE("a map that is not hosted is uploaded in pieces", "[protocol]") {
  Limits limits;
  limits.piece_bytes = 16;
  Pair pair(limits);
  const auto map = host(5, "initial value");
  const auto channel = pair.client.session.open(open_of(*map));
  pair.settle();
  CHECK(pair.take_lines() == Lines{"upload asked 1"});
  pair.server.log.lines.clear();
  pair.client.session.upload(channel, map);
  pair.settle();
  std::string all;
  for (const std::string& line : pair.server.log.lines) {
    if (line.rfind("upload 1 ", 0) == 0) {
      all += line.substr(9);
      CHECK(line.size() <= 9 + 2 * 16);
    }
  }
  protocol::InitialCursor cursor;
  Bytes expected;
  map->encode_initial(cursor, 1 << 20, expected);
  CHECK(all == to_hex(expected));
  CHECK(pair.server.log.lines.back() == "upload ended 1");
  pair.server.session.opened(channel, map);
  pair.settle();
  CHECK(pair.take_lines().size() == 1);
}

TEST_CASE("a refusal says why, and the channel is gone", "[protocol]") {
  Pair pair;
  pair.server.answers = false;
  const auto map = host(2);
  const auto channel = pair.client.session.open(open_of(*map, FollowMode::merged));
  pair.settle();
  const MapHash other = MapHash::from_hex(std::string(64, 'b'));
  pair.server.session.refuse(channel, StateErrc::hash_mismatch, "the keys are the same", other);
  pair.settle();
  CHECK(pair.take_lines() == Lines{"refused 1 15 the keys are the same " + other.hex()});
  // What was under way is not held against the client.
  pair.client.session.close_channel(channel);
  pair.settle();
  CHECK(pair.server.log.closes.empty());
  const auto next = pair.client.session.open(open_of(*map));
  pair.settle();
  pair.server.session.refuse(next, StateErrc::type_mismatch, std::string(511, 'x') + "\xC3\xA4");
  pair.settle();
  CHECK(pair.take_lines() == Lines{"refused 2 16 " + std::string(511, 'x') + " "});  // no half of an umlaut
}

TEST_CASE("a position ahead of the master is refused", "[protocol]") {
  Pair pair;
  const auto map = host(2);
  pair.server.maps[map->hash()] = map;
  auto open = open_of(*map, FollowMode::merged);
  open.position = {map->head().epoch, 3};
  pair.client.session.open(open);
  pair.settle();
  CHECK(pair.client.log.lines.back() == "refused 1 5 this position lies ahead of the master ");
}

TEST_CASE("the initial state and the list of maps are there for the asking", "[protocol]") {
  Limits limits;
  limits.piece_bytes = 64;
  Pair pair(limits);
  for (std::uint32_t keys = 1; keys <= 3; ++keys) {
    const auto map = host(keys);
    pair.server.maps[map->hash()] = map;
  }
  const auto [hash, source] = *pair.server.maps.begin();
  pair.client.session.fetch(hash, "string", "string");
  pair.client.session.list();
  pair.client.session.fetch(MapHash(), "string", "string");
  pair.settle();
  const Lines lines = pair.take_lines();
  std::string state;
  for (const std::string& line : lines) {
    if (line.rfind("state 1 ", 0) == 0) state += line.substr(8);
  }
  protocol::InitialCursor cursor;
  Bytes expected;
  source->encode_initial(cursor, 1 << 20, expected);
  CHECK(state == to_hex(expected));
  CHECK(std::count(lines.begin(), lines.end(), "state ended 1") == 1);
  CHECK(std::count(lines.begin(), lines.end(), "hosted 2 3") == 1);  // of two frames
  CHECK(std::count(lines.begin(), lines.end(), "refused 3 25  ") == 1);
}

TEST_CASE("one diff is there for the asking", "[protocol]") {
  Pair pair;
  const auto map = host(4);
  pair.server.maps[map->hash()] = map;
  const Epoch epoch = map->head().epoch;
  const std::string e = std::to_string(epoch);
  const auto channel = pair.client.session.open(open_of(*map));
  pair.settle();
  pair.take_lines();
  for (int i = 1; i <= 5; ++i) commit<std::string>(*map, {{0, std::to_string(i)}});
  pair.client.session.get_update_id(channel);
  pair.client.session.get_diff(channel, {}, 3);
  pair.client.session.get_diff(channel, {epoch, 2}, 99);
  pair.client.session.get_diff(channel, {epoch, 4}, 2);
  pair.client.session.get_diff(channel, {epoch + 1, 4}, 4);
  pair.client.session.get_diff(channel, {epoch, 6}, 7);
  pair.settle();
  const Lines lines = pair.take_lines();
  for (const std::string& line : {"update id 2 " + e + " 5", "diff 3 " + e + " 0 3 " + entry_hex(0, "3"),
                                  "diff 4 " + e + " 2 5 " + entry_hex(0, "5"), "diff 5 " + e + " 4 4 ",
                                  "full diff 6 " + e + " 0 5 " + entry_hex(0, "5"),
                                  std::string("refused 7 5 this position lies ahead of the master ")}) {
    INFO(line);
    CHECK(std::count(lines.begin(), lines.end(), line) == 1);
  }
  CHECK(lines.size() == 6);
}

TEST_CASE("whatever breaks the order of a channel's life ends the session", "[protocol][guarantee_10]") {
  ServerSide server;
  server.authenticate();
  const auto map = host(2);
  server.maps[map->hash()] = map;
  auto open = open_of(*map);
  open.channel = 5;
  wire::Follow follow;
  follow.channel = 5;
  StateErrc expected = StateErrc::protocol_error;
  SECTION("a channel of number 0") {
    open.channel = 0;
    server.feed(frame_of(open));
  }
  SECTION("a channel opened twice") {
    server.feed(frame_of(open));
    server.feed(frame_of(open));
  }
  SECTION("a channel's number again, after it was closed") {
    server.feed(frame_of(open));
    server.feed(frame_of(wire::CloseChannel{5}));
    server.feed(frame_of(open));
  }
  SECTION("a request with a channel's number") {
    server.feed(frame_of(open));
    server.feed(frame_of(wire::List{5}));
  }
  SECTION("a channel that was never opened") { server.feed(frame_of(wire::CloseChannel{1})); }
  SECTION("an event before the map is open") {
    server.answers = false;
    server.feed(frame_of(open));
    wire::EventMessage event;
    event.channel = 5;
    server.feed(frame_of(event));
  }
  SECTION("an event on a channel that has no sender") {
    server.feed(frame_of(open));
    wire::EventMessage event;
    event.channel = 5;
    server.feed(frame_of(event));
  }
  SECTION("an event before the sender that was asked for is given") {
    server.feed(frame_of(open));
    server.answers = false;
    server.feed(frame_of(wire::GetSender{5, 0}));
    CHECK(server.log.closes.empty());
    wire::EventMessage event;
    event.channel = 5;
    server.feed(frame_of(event));
  }
  SECTION("a sender asked for twice") {
    server.feed(frame_of(open));
    server.feed(frame_of(wire::GetSender{5, 0}));
    CHECK(server.log.closes.empty());
    server.feed(frame_of(wire::GetSender{5, 77}));
  }
  SECTION("a sender asked for twice before the map is open") {
    server.answers = false;
    server.feed(frame_of(open));
    server.feed(frame_of(wire::GetSender{5, 0}));
    CHECK(server.log.closes.empty());
    server.feed(frame_of(wire::GetSender{5, 0}));
  }
  SECTION("a sender for a channel that was never opened") { server.feed(frame_of(wire::GetSender{1, 0})); }
  SECTION("an upload that nobody asked for") {
    server.feed(frame_of(open));
    wire::Upload upload;
    upload.channel = 5;
    server.feed(frame_of(upload));
  }
  SECTION("the end of an upload that nobody asked for") {
    server.feed(frame_of(open));
    server.feed(frame_of(wire::UploadEnd{5}));
  }
  SECTION("a second follow, whose diffs could not be told from those of the first") {
    server.feed(frame_of(open));
    server.feed(frame_of(follow));
    server.feed(frame_of(wire::Unfollow{5}));
    server.feed(frame_of(follow));
  }
  SECTION("a position without an epoch") {
    open.position = {0, 1};
    server.feed(frame_of(open));
  }
  SECTION("to follow without a mode") {
    server.feed(frame_of(open));
    follow.mode = FollowMode::none;
    server.feed(frame_of(follow));
    expected = StateErrc::decode_error;
  }
  SECTION("an unknown mode") {
    Bytes frame = frame_of(open);
    frame.back() = std::byte{3};
    server.feed(frame);
    expected = StateErrc::decode_error;
  }
  SECTION("bytes behind a message") {
    server.feed(raw_frame(19, Bytes{std::byte{5}, std::byte{0}}));
    expected = StateErrc::decode_error;
  }
  CHECK(server.log.close_reason() == expected);
}

TEST_CASE("a client does not take what it has not asked for", "[protocol][guarantee_10]") {
  ClientSide client;
  client.authenticate();
  const auto map = host(2);
  client.session.open(open_of(*map, FollowMode::merged));
  const auto request = client.session.get_diff(1, {9, 4}, 5);
  wire::DiffMessage diff;
  diff.stream = 1;
  diff.epoch = 9;
  diff.advance = 3;
  wire::Step step;
  step.stream = 1;
  wire::ValuePart part;
  part.stream = 1;
  part.total = 10;
  const Bytes five(5);
  part.bytes = five;
  StateErrc expected = StateErrc::protocol_error;
  SECTION("a stream of number 0") {
    diff.stream = 0;
    client.feed(frame_of(diff));
  }
  SECTION("a stream that was never opened") {
    diff.stream = 3;
    client.feed(frame_of(diff));
  }
  SECTION("a step before the epoch is known") { client.feed(frame_of(step)); }
  SECTION("a diff before the epoch is known") {
    diff.epoch.reset();
    client.feed(frame_of(diff));
  }
  SECTION("an epoch of 0") {
    diff.epoch = 0;
    client.feed(frame_of(diff));
  }
  SECTION("an open map without an epoch") { client.feed(frame_of(wire::Opened{1, {0, 0}})); }
  SECTION("another epoch without its whole state") {
    client.feed(frame_of(diff));
    diff.epoch = 10;
    client.feed(frame_of(diff));
  }
  SECTION("a full diff that leads back") {
    client.feed(frame_of(diff));
    diff.is_full = true;
    diff.advance = 2;
    client.feed(frame_of(diff));
  }
  SECTION("an update id beyond 64 bits") {
    client.feed(frame_of(diff));
    diff.advance = ~std::uint64_t{0};
    client.feed(frame_of(diff));
  }
  SECTION("a step in answer to a request") {
    step.stream = request;
    client.feed(frame_of(step));
  }
  SECTION("a step within a transfer") {
    client.feed(frame_of(diff));
    wire::Transfer transfer;
    transfer.stream = 1;
    client.feed(frame_of(transfer));
    client.feed(frame_of(step));
  }
  SECTION("a channel that was never opened") { client.feed(frame_of(wire::Opened{9, {9, 0}})); }
  SECTION("a channel that is open already") {
    client.feed(frame_of(wire::Opened{1, {9, 0}}));
    CHECK(client.log.closes.empty());
    client.feed(frame_of(wire::Opened{1, {9, 0}}));
  }
  SECTION("a sender that was not asked for") {
    client.feed(frame_of(wire::Opened{1, {9, 0}}));
    CHECK(client.log.closes.empty());
    client.feed(frame_of(wire::SenderMessage{1, 77}));
  }
  SECTION("a sender twice") {
    client.session.get_sender(1, 0);
    client.feed(frame_of(wire::Opened{1, {9, 0}}));
    client.feed(frame_of(wire::SenderMessage{1, 77}));
    CHECK(client.log.closes.empty());
    client.feed(frame_of(wire::SenderMessage{1, 77}));
  }
  SECTION("a sender before the channel is open") {
    client.session.get_sender(1, 0);
    client.feed(frame_of(wire::SenderMessage{1, 77}));
  }
  SECTION("a sender for a channel that was never opened") {
    client.feed(frame_of(wire::SenderMessage{9, 77}));
  }
  SECTION("a sender of 0") {
    client.session.get_sender(1, 0);
    client.feed(frame_of(wire::Opened{1, {9, 0}}));
    client.feed(frame_of(wire::SenderMessage{1, 0}));
    expected = StateErrc::decode_error;
  }
  SECTION("an upload twice") {
    client.feed(frame_of(wire::UploadWanted{1}));
    CHECK(client.log.closes.empty());
    client.feed(frame_of(wire::UploadWanted{1}));
  }
  SECTION("an upload of an open map") {
    client.feed(frame_of(wire::Opened{1, {9, 0}}));
    client.feed(frame_of(wire::UploadWanted{1}));
  }
  SECTION("an answer to what was never asked") {
    const auto kind = GENERATE(0, 1, 2, 3, 4, 5, 6);
    wire::StatePiece piece;
    piece.request = 9;
    const Bytes answers[] = {frame_of(wire::Refused{9, StateErrc::busy, "", {}}),
                             frame_of(wire::UpdateIdMessage{9, {9, 0}}),
                             frame_of(piece),
                             frame_of(wire::StateEnd{9}),
                             frame_of(wire::Answer{9, 1, 1}),
                             frame_of(wire::AnswerError{9, 1, StateErrc::busy, ""}),
                             frame_of(wire::Answer{1, 1, 1, 1'024})};  // more than may be in flight
    client.feed(answers[kind]);
  }
  SECTION("a list") { client.feed(frame_of(wire::Hosted{2, false, {}})); }
  SECTION("a part of a value without its beginning") {
    part.offset = 5;
    client.feed(frame_of(part));
  }
  SECTION("a part that leaves a gap") {
    client.feed(frame_of(part));
    part.offset = 6;
    part.bytes = ByteView(five).first(3);
    client.feed(frame_of(part));
  }
  SECTION("a part of another value") {
    client.feed(frame_of(part));
    part.offset = 5;
    part.ordinal = 1;
    client.feed(frame_of(part));
  }
  SECTION("a part of another length") {
    client.feed(frame_of(part));
    part.offset = 5;
    part.total = 11;
    client.feed(frame_of(part));
  }
  SECTION("more than the whole value") {
    part.total = 4;
    client.feed(frame_of(part));
  }
  SECTION("an error that is none") {
    client.feed(raw_frame(34, Bytes(3)));
    expected = StateErrc::decode_error;
  }
  SECTION("an unknown flag") {
    client.feed(raw_frame(40, Bytes{std::byte{1}, std::byte{4}, std::byte{0}}));
    expected = StateErrc::decode_error;
  }
  CHECK(client.log.close_reason() == expected);
}

TEST_CASE("what is staged of a value that changes in mid-part is dropped", "[protocol]") {
  ClientSide client;
  client.authenticate();
  const auto map = host(4);
  client.session.open(open_of(*map, FollowMode::merged));
  wire::ValuePart part;
  part.stream = 1;
  part.ordinal = 2;
  part.total = 6;
  const Bytes old = to_bytes("old");
  part.bytes = old;
  client.feed(frame_of(part));
  SECTION("it begins anew") {}
  SECTION("another frame of the stream comes between") {
    wire::Transfer transfer;
    transfer.stream = 1;
    client.feed(frame_of(transfer));
  }
  const Bytes fresh = to_bytes("new");
  part.bytes = fresh;
  client.feed(frame_of(part));
  client.feed(raw_frame(4));  // a heartbeat is no frame of the stream
  part.offset = 3;
  client.feed(frame_of(part));
  CHECK(client.log.lines.back() == "value staged 1 2 " + to_hex(to_bytes("newnew")));
  CHECK(client.log.closes.empty());
}

// Events

TEST_CASE("a channel gets a sender when its client asks for one, also before the map is open",
          "[protocol][guarantee_5]") {
  Pair pair;
  const auto map = host(2);
  const std::string epoch = std::to_string(map->head().epoch);
  pair.server.maps[map->hash()] = map;
  const auto follower = pair.client.session.open(open_of(*map));
  const auto early = pair.client.session.open(open_of(*map));
  pair.client.session.get_sender(early, 5);
  pair.settle();
  CHECK(pair.take_lines() == Lines{"opened " + std::to_string(follower) + " " + epoch + " 0",
                                   "opened " + std::to_string(early) + " " + epoch + " 0", "sender 2 77"});
  pair.client.session.get_sender(follower, 0);
  pair.settle();
  CHECK(pair.take_lines() == Lines{"sender 1 77"});
  const auto asks = [&] {
    return std::count_if(pair.server.log.lines.begin(), pair.server.log.lines.end(),
                         [](const std::string& line) { return line.rfind("sender asked", 0) == 0; });
  };
  CHECK(asks() == 2);

  // An ask that waits for an upload is answered after it.
  const auto late = host(3);
  const auto channel = pair.client.session.open(open_of(*late));
  pair.client.session.get_sender(channel, 0);
  pair.settle();
  CHECK(pair.take_lines() == Lines{"upload asked 3"});
  CHECK(asks() == 2);
  pair.server.open(channel, late);
  CHECK(asks() == 3);
  CHECK(pair.server.session.early_ask_of(channel) == std::nullopt);  // each ask is given once
  pair.settle();
  CHECK(pair.take_lines().back() == "sender 3 77");
  // One for a channel that was closed meanwhile is dropped.
  pair.client.session.close_channel(channel);
  pair.client.session.get_sender(channel, 0);
  pair.settle();
  pair.server.session.give_sender(channel, 78);
  pair.server.feed(frame_of(wire::GetSender{channel, 0}));
  pair.settle();
  CHECK(pair.take_lines().empty());
  CHECK(asks() == 3);
}

TEST_CASE("events name their type once, and large ones go in parts", "[protocol][guarantee_5]") {
  Limits limits;
  limits.piece_bytes = 8;
  limits.event_bytes = 20;
  Pair pair(limits);
  const auto map = host(2);
  pair.server.maps[map->hash()] = map;
  const auto channel = pair.client.session.open(open_of(*map));
  pair.client.session.get_sender(channel, 0);
  pair.settle();
  pair.server.log.lines.clear();
  pair.client.session.send_event(channel, 1, make_event("short"));
  pair.client.session.send_event(channel, 2, make_event("twenty bytes exactly"));
  pair.client.session.send_event(channel, 3, make_event("", "bytes"));
  Bytes sent;
  while (pair.client.session.wants_to_send()) {
    const Bytes some = pair.client.take();
    sent.insert(sent.end(), some.begin(), some.end());
  }
  CHECK(kinds_of(sent) == std::vector<int>{26, 28, 27, 27, 28, 26, 28});
  pair.server.feed(sent);
  CHECK(pair.server.log.lines == Lines{"event 1 77 1 string " + to_hex(to_bytes("short")),
                                       "event 1 77 2 string " + to_hex(to_bytes("twenty bytes exactly")),
                                       "event 1 77 3 bytes "});
  pair.client.session.send_event(channel, 4, make_event("twenty-one bytes, now"));
  pair.server.log.lines.clear();
  pair.client.log.lines.clear();
  pair.settle();
  // It is answered, and has not come to the role. The link lives.
  CHECK(pair.server.log.lines.empty());
  REQUIRE(pair.client.log.lines.size() == 1);
  CHECK_THAT(pair.client.log.lines.front(),
             contains_text("an event of 21 bytes, and Limits::event_bytes is 20"));
  CHECK_FALSE(pair.server.session.is_over());
  CHECK_FALSE(pair.client.session.is_over());
}

TEST_CASE("an answer comes after the diff that holds its effect, on whichever channel the map is followed",
          "[protocol][guarantee_5]") {
  Pair pair;
  const auto map = host(4);
  const auto other = host(5);
  pair.server.maps[map->hash()] = map;
  pair.server.maps[other->hash()] = other;
  const auto asking = pair.client.session.open(open_of(*map));
  pair.client.session.get_sender(asking, 0);
  const auto following = pair.client.session.open(open_of(*map, FollowMode::merged));
  const auto stepping = pair.client.session.open(open_of(*map, FollowMode::every_step));
  pair.client.session.open(open_of(*other, FollowMode::merged));
  pair.settle();
  for (std::uint64_t number = 1; number <= 3; ++number) {
    pair.client.session.send_event(asking, number, make_event("e"));
  }
  pair.settle();
  pair.take_lines();
  pair.server.session.answer({asking, 1}, commit<std::string>(*map, {{0, "a"}}));
  pair.server.session.answer_error({asking, 2}, StateErrc::hook_failed, "no");
  pair.server.session.answer({asking, 3}, commit<std::string>(*map, {{1, "b"}}));
  pair.settle();
  const Lines lines = pair.take_lines();
  const auto place = [&](const std::string& start) {
    return std::find_if(lines.begin(), lines.end(),
                        [&](const std::string& line) { return line.rfind(start, 0) == 0; }) -
           lines.begin();
  };
  const auto first = place("answer 1 1 1");
  const auto second = place("answer error 1 2 17 no");
  const auto third = place("answer 1 3 2");
  REQUIRE(third < static_cast<std::ptrdiff_t>(lines.size()));
  CHECK(place("diff " + std::to_string(following)) < first);
  CHECK(place("step " + std::to_string(stepping)) < first);
  CHECK(first < second);
  CHECK(second < third);  // answers keep the order of their events
  CHECK(std::count_if(lines.begin() + third, lines.end(),
                      [](const std::string& line) { return line.rfind("step", 0) == 0; }) == 0);
}

TEST_CASE("answers in a row go in one frame", "[protocol][guarantee_5]") {
  Pair pair;
  const auto map = host(4);
  pair.server.maps[map->hash()] = map;
  const auto channel = pair.client.session.open(open_of(*map));
  pair.client.session.get_sender(channel, 0);
  pair.settle();
  for (std::uint64_t number = 1; number <= 7; ++number) {
    pair.client.session.send_event(channel, number, make_event("e"));
  }
  pair.settle();
  pair.take_lines();
  auto& server = pair.server.session;
  server.answer({channel, 1}, 10);
  server.answer({channel, 2}, 11);
  server.answer({channel, 3}, 12);
  server.answer_error({channel, 4}, StateErrc::hook_failed, "no");
  server.answer({channel, 5}, 13);
  server.answer({channel, 6}, 13);  // set nothing
  server.answer({channel, 7}, 15);  // another sender's commit lies between
  const Bytes bytes = pair.server.take_all();
  CHECK(kinds_of(bytes) == std::vector{43, 44, 43, 43, 43});
  pair.client.feed(bytes);
  CHECK(pair.take_lines() == Lines{"answer 1 1 10", "answer 1 2 11", "answer 1 3 12",
                                   "answer error 1 4 17 no", "answer 1 5 13", "answer 1 6 13",
                                   "answer 1 7 15"});
}

TEST_CASE("no answer speaks of events beyond the last number", "[protocol][guarantee_10]") {
  const auto [number, update_id, more] =
      GENERATE(std::tuple{~std::uint64_t{0}, UpdateId{1}, std::uint64_t{1}},
               std::tuple{std::uint64_t{1}, ~UpdateId{0}, std::uint64_t{1}},
               std::tuple{std::uint64_t{7}, UpdateId{7}, ~std::uint64_t{6}});
  ClientSide client;
  client.authenticate();
  client.feed(frame_of(wire::Answer{1, number, update_id, more}));
  CHECK(client.log.close_reason() == StateErrc::decode_error);
}

TEST_CASE("of answers in a row those go whose diffs have gone", "[protocol][guarantee_5]") {
  Limits limits;
  limits.piece_bytes = 1;  // a step at a time
  Pair pair(limits);
  const auto map = host(4, "-", limits);
  pair.server.maps[map->hash()] = map;
  const auto channel = pair.client.session.open(open_of(*map, FollowMode::every_step));
  pair.client.session.get_sender(channel, 0);
  pair.settle();
  for (std::uint64_t number = 1; number <= 5; ++number) {
    pair.client.session.send_event(channel, number, make_event("e"));
  }
  pair.settle();
  pair.take_lines();
  for (std::uint64_t number = 1; number <= 5; ++number) {
    pair.server.session.answer({channel, number}, commit<std::string>(*map, {{0, std::to_string(number)}}));
  }
  std::size_t steps = 0;
  std::size_t answers = 0;
  while (pair.server.wants_to_send()) {
    pair.client.feed(pair.server.take());
    for (const std::string& line : pair.take_lines()) {
      if (line.rfind("answer ", 0) == 0) ++answers;
      if (line.rfind("diff ", 0) == 0 || line.rfind("step ", 0) == 0) ++steps;
      CHECK(answers <= steps);
    }
  }
  CHECK(steps == 5);
  CHECK(answers == 5);
}

TEST_CASE("an answer waits for a transfer that holds its effect", "[protocol][guarantee_5]") {
  Limits limits;
  limits.piece_bytes = 64;
  Pair pair(limits);
  const auto map = host(100, "-", limits);
  pair.server.maps[map->hash()] = map;
  wire::ChannelId channel = 0;
  SECTION("on the channel that asks") {
    channel = pair.client.session.open(open_of(*map, FollowMode::merged));
  }
  SECTION("on another channel") {
    channel = pair.client.session.open(open_of(*map));
    pair.client.session.open(open_of(*map, FollowMode::merged));
  }
  pair.client.session.get_sender(channel, 0);
  pair.settle();
  pair.take_lines();
  pair.client.session.send_event(channel, 1, make_event("e"));
  pair.settle();
  std::vector<std::pair<std::uint32_t, std::string>> all;
  for (std::uint32_t i = 0; i < 100; ++i) all.emplace_back(i, "a value of some length");
  pair.server.session.answer({channel, 1}, commit<std::string>(*map, all));
  for (;;) {
    const Bytes piece = pair.server.take();
    if (piece.empty()) break;
    pair.client.feed(piece);
    const auto kinds = kinds_of(piece);
    const bool has_answer = std::count(kinds.begin(), kinds.end(), 43) != 0;
    const bool is_last = !pair.server.wants_to_send();
    CHECK(has_answer == is_last);
  }
  const Lines lines = pair.take_lines();
  CHECK(lines.size() > 10);
  CHECK(lines.back() == "answer 1 1 1");
  CHECK(lines.at(lines.size() - 2).rfind("diff ", 0) == 0);
}

TEST_CASE("events in flight are bounded, and closing the channel does not help", "[protocol][guarantee_7]") {
  Limits limits;
  limits.events_in_flight = 4;
  ServerSide server(limits);
  server.authenticate();
  const auto map = host(2);
  server.maps[map->hash()] = map;
  auto open = open_of(*map);
  wire::EventMessage event;
  open.channel = event.channel = 1;
  server.feed(frame_of(open));
  server.feed(frame_of(wire::GetSender{1, 0}));
  for (int i = 0; i < 4; ++i) server.feed(frame_of(event));
  SECTION("one more") {
    server.feed(frame_of(event));
    CHECK(server.log.close_reason() == StateErrc::busy);
  }
  SECTION("one more, on another channel") {
    server.feed(frame_of(wire::CloseChannel{1}));
    open.channel = event.channel = 2;
    server.feed(frame_of(open));
    server.feed(frame_of(wire::GetSender{2, 0}));
    CHECK(server.log.closes.empty());
    server.feed(frame_of(event));
    CHECK(server.log.close_reason() == StateErrc::busy);
  }
  SECTION("as many again, once they are answered") {
    for (std::uint64_t i = 0; i < 4; ++i) server.session.answer({1, i}, 0);
    server.take_all();
    for (int i = 0; i < 4; ++i) server.feed(frame_of(event));
    CHECK(server.log.closes.empty());
  }
  SECTION("as many again, once they are answered to a channel that is gone") {
    server.session.answer({1, 0}, 0);
    server.feed(frame_of(wire::CloseChannel{1}));
    for (std::uint64_t i = 1; i < 4; ++i) server.session.answer({1, i}, 0);
    open.channel = event.channel = 2;
    server.feed(frame_of(open));
    server.feed(frame_of(wire::GetSender{2, 0}));
    for (int i = 0; i < 4; ++i) server.feed(frame_of(event));
    CHECK(server.log.closes.empty());
    server.feed(frame_of(event));
    CHECK(server.log.close_reason() == StateErrc::busy);
  }
}

TEST_CASE("requests in flight are bounded, and so is what waits for a client that does not read",
          "[protocol][guarantee_7]") {
  ServerSide server;
  server.authenticate();
  server.answers = false;
  const auto map = host(2);
  std::uint64_t sent = 0;
  wire::ChannelId id = 0;
  SECTION("requests") {
    server.answers = true;
    server.maps[map->hash()] = map;
    while (server.log.closes.empty() && sent < 10'000) {
      server.feed(frame_of(wire::Fetch{++id, map->hash(), "string", "string"}));
      ++sent;
    }
    CHECK(sent == 1'025);
  }
  SECTION("refusals") {
    while (server.log.closes.empty() && sent < 100'000) {
      auto open = open_of(*map);
      open.channel = ++id;
      server.feed(frame_of(open));
      server.session.refuse(id, StateErrc::type_mismatch, std::string(500, 'x'));
      ++sent;
    }
    CHECK(sent < 3'000);
    CHECK(server.take().size() < (std::size_t{2} << 20));
  }
  CHECK(server.log.close_reason() == StateErrc::busy);
}

// Turns

TEST_CASE("frames of different maps and requests take turns, at most 64 KiB each", "[protocol]") {
  Pair pair;
  const auto big = host(64, std::string(20'000, 'i'));
  const auto busy = host(65, std::string(20'000, 'j'));
  pair.server.maps[big->hash()] = big;
  pair.server.maps[busy->hash()] = busy;
  for (std::uint32_t i = 0; i < 64; ++i) {
    commit<std::string>(*big, {{i, std::string(20'000, 'x')}});
    commit<std::string>(*busy, {{i, std::string(20'000, 'y')}});
  }
  pair.client.session.open(open_of(*big, FollowMode::merged));   // 1
  pair.client.session.open(open_of(*busy, FollowMode::merged));  // 2
  pair.client.session.fetch(big->hash(), "string", "string");    // 3
  pair.server.feed(pair.client.take());
  pair.client.feed(pair.server.take());  // opened, and the first turn
  std::vector<std::uint64_t> turns;
  while (pair.server.wants_to_send()) {
    for (const OwnedFrame& frame : split_frames(pair.server.take())) {
      ByteReader in(frame.body);
      turns.push_back(in.read_varint());
      CHECK(frame.body.size() <= 64 * 1024 + 32);
    }
  }
  REQUIRE(turns.size() > 30);
  for (std::size_t i = 0; i + 2 < 30; ++i) {
    INFO("turn " << i);
    std::vector<std::uint64_t> three(turns.begin() + static_cast<std::ptrdiff_t>(i),
                                     turns.begin() + static_cast<std::ptrdiff_t>(i) + 3);
    std::sort(three.begin(), three.end());
    CHECK(three == std::vector<std::uint64_t>{1, 2, 3});
  }
}

TEST_CASE("nothing is queued for a slow replica but its position", "[protocol][guarantee_7]") {
  Pair pair;
  const auto map = host(100);
  pair.server.maps[map->hash()] = map;
  pair.client.session.open(open_of(*map, FollowMode::merged));
  pair.settle();
  for (std::uint32_t i = 0; i < 50'000; ++i) commit<std::string>(*map, {{i % 100, std::to_string(i)}});
  const Bytes all = pair.server.take_all();
  CHECK(all.size() < 1'000);
  CHECK(split_frames(all).size() == 1);
}

}  // namespace flow_test
