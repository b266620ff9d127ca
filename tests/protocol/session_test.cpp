// Hello, time, and bytes from whoever is no peer of ours: both sessions, without a socket.
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"

namespace session_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using wire::FollowMode;
using wire::FrameKind;

/// The error with which a side said goodbye in `bytes`; 0 if it did not.
StateErrc goodbye_in(ByteView bytes) {
  const auto frames = split_frames(bytes);
  if (frames.empty() || frames.back().kind != FrameKind::goodbye) return StateErrc{};
  return wire::decode_body<wire::Goodbye>(frames.back().body).reason;
}

using Map = StateMap<std::string, std::string>;
using Hosted = detail::HostedMap<std::string, std::string>;

std::shared_ptr<Hosted> host(std::uint32_t keys = 4, const Limits& limits = {}) {
  return std::make_shared<Hosted>(make_master<std::string>(keys, "-"), limits);
}

wire::Open open_of(const Hosted& map, wire::ChannelId channel, FollowMode mode = FollowMode::none) {
  wire::Open open;
  open.channel = channel;
  open.hash = map.hash();
  open.keys_hash = map.keys_hash();
  open.key_type = open.value_type = "string";
  open.mode = mode;
  return open;
}

const std::vector<FrameKind>& all_kinds() {
  static const std::vector<FrameKind> kinds = [] {
    std::vector<FrameKind> list;
    for (int i = 1; i <= 4; ++i) list.push_back(static_cast<FrameKind>(i));
    for (int i = 16; i <= 28; ++i) list.push_back(static_cast<FrameKind>(i));
    for (int i = 32; i <= 47; ++i) list.push_back(static_cast<FrameKind>(i));
    return list;
  }();
  return kinds;
}

}  // namespace

// Who is there

TEST_CASE("each side proves that it knows the password, the client first", "[protocol][guarantee_9]") {
  ClientSide client;
  ServerSide server;
  client.session.on_open("secret", test_binding(), t0);
  server.session.on_open(passwords(), test_binding(), false, t0);
  CHECK(server.take().empty());  // not a byte before the client's proof
  const Bytes hello = client.take();
  CHECK(kinds_of(hello) == std::vector<int>{1});
  CHECK(hello == hello_frame());
  server.feed(ByteView(hello).first(hello.size() - 1));
  CHECK(server.take().empty());
  CHECK_FALSE(server.session.is_authenticated());
  server.feed(ByteView(hello).last(1));
  CHECK(server.session.is_authenticated());
  CHECK(server.log.lines == std::vector<std::string>{"authenticated"});
  const Bytes welcome = server.take();
  CHECK(welcome == welcome_frame());
  client.feed(welcome);
  CHECK(client.session.is_authenticated());
  CHECK(client.log.lines == std::vector<std::string>{"authenticated"});
}

TEST_CASE("a proof is the HMAC-SHA-256 of role and channel binding that every implementation computes",
          "[protocol][guarantee_9]") {
  Bytes binding(32);
  for (std::size_t i = 0; i < binding.size(); ++i) binding[i] = static_cast<std::byte>(i);
  const auto proof = [&](std::string_view password, wire::ProofRole role) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const std::byte byte : wire::make_proof(password, role, binding)) {
      const auto number = std::to_integer<unsigned>(byte);
      text += {digits[number >> 4], digits[number & 0xf]};
    }
    return text;
  };
  // What OpenSSL prints for these, the password in hexadecimal digits:
  //   { printf client; printf %b "$(printf '\\x%02x' $(seq 0 31))"; } |
  //     openssl mac -digest SHA256 -macopt hexkey:736563726574 HMAC
  CHECK(proof("secret", wire::ProofRole::client) ==
        "19bf57800fc7f50893f96f9f4cef5d4944a61cfe1d56cbd5b49c575925dd263a");
  CHECK(proof("secret", wire::ProofRole::server) ==
        "4e6f5f868599bde89b07746b7490bc354a99d6c54b60042af0242e33879e5567");
  // All bytes of a password count, a NUL and those above 0x7f too, and so do those beyond a block of SHA-256.
  const std::string odd("pass\0word\xff", 10);
  CHECK(proof(odd, wire::ProofRole::client) ==
        "b692a3106e82b7d70df5eb085aa74c9a79c03bfff9ee129bbaa6972b418c5c21");
  CHECK(proof(odd, wire::ProofRole::server) ==
        "0b5da19838162ec3877d705a62fb5b57deeeb5ad5c9e4202a3d9ea192a52ff02");
  const std::string longer(65, 'k');
  CHECK(proof(longer, wire::ProofRole::client) ==
        "a0b0d8ba065a3b8598d2397a1f0e29cb0bf9ea7ad01f7631b5d9cb153a28525b");
  CHECK(proof(longer, wire::ProofRole::server) ==
        "eaf02d7ebdb847958a46c292a354a7cf31b7c56b8f4a8ebbf61f9010d08ba88a");
  // An empty password, with mutual TLS, is a key like any other, and not the one of the call before.
  CHECK(proof("", wire::ProofRole::client) ==
        "aa44e554e85c2fc9248dd21d85e4793aa95e3a6e67325eafd9f23de113f20656");
  CHECK(proof("", wire::ProofRole::server) ==
        "34eb69a5c5395109ee103ea2490e98f448b60097f49aaaac8bffa3cbdfe5abe5");
}

TEST_CASE("a proof that does not hold gets a goodbye and no proof", "[protocol][guarantee_9]") {
  ServerSide server;
  server.session.on_open(passwords(), test_binding(), false, t0);
  Bytes hello;
  SECTION("another password") { hello = hello_frame("guess"); }
  SECTION("an empty password") { hello = hello_frame(""); }
  SECTION("another channel: a proof that was overheard and is replayed") {
    hello = hello_frame("secret", Bytes(32, std::byte{8}));
  }
  SECTION("the server's proof of this very channel") {
    wire::Hello reflected;
    reflected.proof = wire::make_proof("secret", wire::ProofRole::server, test_binding());
    hello = frame_of(reflected);
  }
  SECTION("one bit off") {
    hello = hello_frame();
    hello.back() ^= std::byte{1};
  }
  server.feed(hello);
  CHECK(server.log.close_reason() == StateErrc::unauthorized);
  CHECK_FALSE(server.session.is_authenticated());
  const Bytes out = server.take();
  CHECK(kinds_of(out) == std::vector<int>{3});
  CHECK(goodbye_in(out) == StateErrc::unauthorized);
  server.feed(hello_frame());  // too late
  CHECK(server.take().empty());
  CHECK(server.log.closes.size() == 1);
}

TEST_CASE("a client leaves a server that does not know the password", "[protocol][guarantee_9]") {
  ClientSide client;
  client.session.on_open("secret", test_binding(), t0);
  wire::Welcome welcome;
  SECTION("that says nothing") { welcome.proof = {}; }
  SECTION("that sends the client's own proof back") {
    welcome.proof = wire::make_proof("secret", wire::ProofRole::client, test_binding());
  }
  SECTION("that heard a proof on another channel") {
    welcome.proof = wire::make_proof("secret", wire::ProofRole::server, Bytes(32, std::byte{8}));
  }
  SECTION("that knows another password") {
    welcome.proof = wire::make_proof("guess", wire::ProofRole::server, test_binding());
  }
  client.feed(frame_of(welcome));
  CHECK(client.log.close_reason() == StateErrc::unauthorized);
  CHECK_FALSE(client.session.is_authenticated());
}

TEST_CASE("several passwords are taken while one is being replaced", "[protocol]") {
  for (const std::string password : {"old", "new"}) {
    ServerSide server;
    server.session.on_open(passwords({"old", "new"}), test_binding(), false, t0);
    server.feed(hello_frame(password));
    CHECK(server.session.is_authenticated());
    CHECK(server.take() == welcome_frame(password));
  }
  ServerSide none;
  none.session.on_open(passwords({}), test_binding(), false, t0);
  none.feed(hello_frame(""));
  CHECK(none.log.close_reason() == StateErrc::unauthorized);
}

TEST_CASE("an address with too many wrong proofs is busy, whatever it proves", "[protocol]") {
  ServerSide server;
  server.session.on_open(passwords(), test_binding(), true, t0);
  server.feed(hello_frame());
  CHECK(server.log.close_reason() == StateErrc::busy);
  CHECK(goodbye_in(server.take()) == StateErrc::busy);
}

TEST_CASE("an address that is barred while a proof is checked is busy, whatever the proof", "[protocol]") {
  for (const std::string password : {"secret", "former", "guess"}) {
    INFO(password);
    const auto known = std::make_shared<const wire::Passwords>(std::vector<std::string>{"secret"},
                                                               std::vector<std::string>{"former"});
    const Limits limits;
    wire::ServerSession session(limits, t0);
    session.on_open(known, test_binding(), false, t0);
    StateErrc closed{};
    session.on_bytes(hello_frame(password), t0, [&](const auto& action) {
      using Action = std::decay_t<decltype(action)>;
      if constexpr (std::is_same_v<Action, wire::ProofChecked>) session.set_busy(true);
      if constexpr (std::is_same_v<Action, wire::CloseSession>) closed = action.reason;
    });
    CHECK(closed == StateErrc::busy);
    CHECK_FALSE(session.is_authenticated());
    Bytes out;
    session.produce(out);
    CHECK(goodbye_in(out) == StateErrc::busy);
  }
}

TEST_CASE("peers without a common version say so", "[protocol]") {
  wire::Hello hello;
  hello.proof = wire::make_proof("secret", wire::ProofRole::client, test_binding());
  const auto reason_for = [&](std::uint64_t oldest, std::uint64_t newest) {
    hello.oldest_version = oldest;
    hello.newest_version = newest;
    ServerSide server;
    server.session.on_open(passwords(), test_binding(), false, t0);
    server.feed(frame_of(hello));
    return server.log.close_reason();
  };
  CHECK(reason_for(2, 3) == StateErrc::version_mismatch);
  CHECK(reason_for(0, 0) == StateErrc::version_mismatch);
  CHECK(reason_for(1, 9) == StateErrc{});
  CHECK(reason_for(0, 1) == StateErrc{});

  ClientSide client;
  client.session.on_open("secret", test_binding(), t0);
  wire::Welcome welcome;
  welcome.version = 2;
  welcome.proof = wire::make_proof("secret", wire::ProofRole::server, test_binding());
  client.feed(frame_of(welcome));
  CHECK(client.log.close_reason() == StateErrc::version_mismatch);

  ServerSide other;
  other.session.on_open(passwords(), test_binding(), false, t0);
  other.feed(raw_frame(1, to_bytes("HTTP/1.1 200 OK, and then some more bytes")));
  CHECK(other.log.close_reason() == StateErrc::decode_error);
}

TEST_CASE("before a peer is authenticated no other frame is taken", "[protocol][guarantee_9]") {
  for (const FrameKind kind : all_kinds()) {
    INFO("kind " << static_cast<int>(kind));
    ServerSide server;
    server.session.on_open(passwords(), test_binding(), false, t0);
    server.feed(raw_frame(static_cast<unsigned>(kind), Bytes(40)));
    CHECK(server.log.close_reason() != StateErrc{});
    if (kind != FrameKind::hello) CHECK(server.log.close_reason() == StateErrc::protocol_error);
    CHECK(server.log.lines.size() == 1);
    CHECK(kinds_of(server.take()) == std::vector<int>{3});

    ClientSide client;
    client.session.on_open("secret", test_binding(), t0);
    client.feed(raw_frame(static_cast<unsigned>(kind), Bytes(40)));
    CHECK(client.log.close_reason() != StateErrc{});
    CHECK(client.log.lines.size() == 1);
  }
}

TEST_CASE("an unauthenticated peer costs a kilobyte at most", "[protocol][guarantee_9]") {
  ServerSide server;
  server.session.on_open(passwords(), test_binding(), false, t0);
  const Bytes head{std::byte{0x81}, std::byte{0x08}};  // 1,025
  SECTION("the length alone is enough to end it") {
    server.feed(head);
    CHECK(server.log.close_reason() == StateErrc::too_large);
  }
  SECTION("1,024 is waited for") {
    server.feed(Bytes{std::byte{0x80}, std::byte{0x08}});
    CHECK(server.log.closes.empty());
  }
  SECTION("a client trusts a server no more than that either") {
    ClientSide client;
    client.session.on_open("secret", test_binding(), t0);
    client.feed(head);
    CHECK(client.log.close_reason() == StateErrc::too_large);
  }
  SECTION("afterwards a megabyte") {
    server.feed(hello_frame());
    server.feed(Bytes{std::byte{0x80}, std::byte{0x80}, std::byte{0x40}});  // 2^20
    CHECK(server.log.closes.empty());
    ServerSide other;
    other.authenticate();
    other.feed(Bytes{std::byte{0x81}, std::byte{0x80}, std::byte{0x40}});
    CHECK(other.log.close_reason() == StateErrc::too_large);
  }
}

// Time

TEST_CASE("a peer has five seconds to prove itself", "[protocol][guarantee_9]") {
  ServerSide server;
  server.session.on_open(passwords(), test_binding(), false, t0 + 1s);
  const Bytes hello = hello_frame();
  for (std::size_t i = 0; i + 1 < hello.size(); ++i) server.feed(ByteView(hello).subspan(i, 1), t0 + 4s);
  server.tick(t0 + 4999ms);
  CHECK(server.log.closes.empty());
  server.tick(t0 + 5s);  // from accept, not from the last byte
  CHECK(server.log.close_reason() == StateErrc::peer_silent);

  ClientSide client;
  client.session.on_open("secret", test_binding(), t0);
  client.tick(t0 + 4999ms);
  CHECK(client.log.closes.empty());
  client.tick(t0 + 5s);
  CHECK(client.log.close_reason() == StateErrc::peer_silent);
}

TEST_CASE("heartbeats go out every five seconds, and a silent peer is left after fifteen",
          "[protocol][guarantee_7]") {
  ClientSide client;
  ServerSide server;
  client.authenticate();
  server.authenticate();
  SECTION("heartbeats") {
    client.tick(t0 + 4999ms);
    server.tick(t0 + 4999ms);
    CHECK_FALSE(client.session.wants_to_send());
    CHECK_FALSE(server.session.wants_to_send());
    client.tick(t0 + 5s);
    server.tick(t0 + 5s);
    CHECK(kinds_of(client.take()) == std::vector<int>{4});
    CHECK(kinds_of(server.take()) == std::vector<int>{4});
    client.tick(t0 + 9999ms);
    CHECK_FALSE(client.session.wants_to_send());
  }
  SECTION("silence") {
    client.tick(t0 + 14999ms);
    server.tick(t0 + 14999ms);
    CHECK(client.log.closes.empty());
    CHECK(server.log.closes.empty());
    client.tick(t0 + 15s);
    server.tick(t0 + 15s);
    CHECK(client.log.close_reason() == StateErrc::peer_silent);
    CHECK(server.log.close_reason() == StateErrc::peer_silent);
    CHECK(goodbye_in(server.take()) == StateErrc::peer_silent);
  }
  SECTION("whoever sends heartbeats is kept, however little it reads") {
    const auto map = host();
    server.maps[map->hash()] = map;
    server.feed(frame_of(open_of(*map, 1, FollowMode::merged)));
    server.take_all();
    for (int second = 0; second < 3600; second += 5) {
      commit<std::string>(*map, {{0, std::to_string(second)}});
      server.feed(raw_frame(4), t0 + std::chrono::seconds(second));
      server.tick(t0 + std::chrono::seconds(second + 5));
    }
    CHECK(server.log.closes.empty());
    CHECK(server.take().size() < 100);  // one heartbeat and one diff, not 720 of them
  }
}

TEST_CASE("heartbeats say where both sides stand", "[protocol]") {
  ClientSide client;
  ServerSide server;
  client.authenticate();
  server.authenticate();
  const auto map = host();
  server.maps[map->hash()] = map;
  const auto channel = client.session.open(open_of(*map, 0, FollowMode::merged));
  commit<std::string>(*map, {{0, "a"}});
  exchange(client, server);
  commit<std::string>(*map, {{1, "b"}});
  client.tick(t0 + 5s);
  const auto beat = split_frames(client.take());
  REQUIRE(beat.size() == 1);
  ByteReader in(beat[0].body);
  const auto entry = wire::HeartbeatEntry::decode(in);
  CHECK(entry.channel == channel);
  CHECK(entry.update_id == 1);
  server.tick(t0 + 5s);
  client.feed(server.take());
  CHECK(std::count(client.log.lines.begin(), client.log.lines.end(), "head 1 2") == 1);
}

TEST_CASE("however often a peer wants heartbeats, no more of them name the streams",
          "[protocol][guarantee_7]") {
  const auto silence = GENERATE(0ms, 750ms, 6'000ms);
  const auto every = (std::max)(10ms, silence / 3);
  ClientSide client;
  ServerSide server;
  client.session.on_open("secret", test_binding(), t0);
  client.take();
  wire::Welcome welcome;
  welcome.silence_ms = static_cast<std::uint64_t>(silence.count());
  welcome.proof = wire::make_proof("secret", wire::ProofRole::server, test_binding());
  client.feed(frame_of(welcome));
  server.authenticate();
  server.feed(frame_of(wire::ClientLimits{wire::usual_frame_bytes, welcome.silence_ms}));
  const auto map = host();
  server.maps[map->hash()] = map;
  client.session.open(open_of(*map, 0, FollowMode::merged));
  exchange(client, server);

  std::size_t from_client = 0, naming_from_client = 0, from_server = 0, naming_from_server = 0;
  const auto count = [](const Bytes& bytes, std::size_t& all, std::size_t& naming) {
    for (const auto& frame : split_frames(bytes)) {
      if (frame.kind != FrameKind::heartbeat) continue;
      ++all;
      if (!frame.body.empty()) ++naming;
    }
  };
  for (auto time = 0ms; time <= 60s; time += 5ms) {
    client.feed(raw_frame(4), t0 + time);  // both sides hear from the other one
    server.feed(raw_frame(4), t0 + time);
    client.tick(t0 + time);
    server.tick(t0 + time);
    count(client.take_all(), from_client, naming_from_client);
    count(server.take_all(), from_server, naming_from_server);
  }
  // As many as the silence needs, and the streams about every 5 s, as without it.
  CHECK(from_client == static_cast<std::size_t>(60s / every));
  CHECK(from_server == from_client);
  CHECK(naming_from_client >= 12);
  CHECK(naming_from_client <= 15);
  CHECK(naming_from_server == naming_from_client);
}

// Bytes that are no frames

TEST_CASE("no length is believed", "[protocol][guarantee_10]") {
  Bytes bytes;
  StateErrc reason{};
  SECTION("2^32 - 1") {
    ByteWriter(bytes).put_varint(0xFFFFFFFF);
    reason = StateErrc::too_large;
  }
  SECTION("2^63") {
    ByteWriter(bytes).put_varint(std::uint64_t{1} << 63);
    reason = StateErrc::too_large;
  }
  SECTION("no end") {
    bytes.assign(64, std::byte{0xFF});
    reason = StateErrc::too_large;
  }
  SECTION("nothing") {
    bytes = {std::byte{0}};
    reason = StateErrc::protocol_error;
  }
  SECTION("a longer form than needed") {
    bytes = {std::byte{0x85}, std::byte{0x00}};
    reason = StateErrc::protocol_error;
  }
  ServerSide server;
  server.authenticate();
  server.feed(bytes);
  CHECK(server.log.close_reason() == reason);
  CHECK(goodbye_in(server.take()) == reason);
  ClientSide client;
  client.authenticate();
  for (const std::byte b : bytes) client.feed(ByteView(&b, 1));
  CHECK(client.log.close_reason() == reason);
}

TEST_CASE("what a peer never sends ends the session", "[protocol][guarantee_10]") {
  const auto is_for_server = [](FrameKind kind) {
    return (kind >= FrameKind::open && kind <= FrameKind::event) || kind == FrameKind::get_sender ||
           kind == FrameKind::limits;
  };
  const auto is_for_client = [](FrameKind kind) {
    return kind >= FrameKind::opened && kind != FrameKind::get_sender && kind != FrameKind::limits;
  };
  for (int number = 0; number < 256; ++number) {
    const auto kind = static_cast<FrameKind>(number);
    if (kind == FrameKind::heartbeat || kind == FrameKind::goodbye) continue;
    INFO("kind " << number);
    const bool is_known = std::find(all_kinds().begin(), all_kinds().end(), kind) != all_kinds().end();
    if (!is_known || !is_for_server(kind)) {
      ServerSide server;
      server.authenticate();
      server.feed(raw_frame(static_cast<unsigned>(number), Bytes(8)));
      CHECK(server.log.close_reason() == StateErrc::protocol_error);
    }
    if (!is_known || !is_for_client(kind)) {
      ClientSide client;
      client.authenticate();
      client.feed(raw_frame(static_cast<unsigned>(number), Bytes(8)));
      CHECK(client.log.close_reason() == StateErrc::protocol_error);
    }
  }
}

// One frame of every kind, as each side sends them in a lively session.

namespace {

std::vector<Bytes> client_script(const Hosted& map) {
  std::vector<Bytes> script;
  script.push_back(raw_frame(4));
  script.push_back(frame_of(open_of(map, 1)));
  auto other = open_of(map, 2, FollowMode::merged);
  script.push_back(frame_of(other));
  auto missing = open_of(map, 3);
  missing.hash = MapHash::from_hex(std::string(64, 'a'));
  script.push_back(frame_of(missing));
  wire::Upload upload;
  upload.channel = 3;
  const Bytes piece = to_bytes("\x01k\x01v");
  upload.bytes = piece;
  script.push_back(frame_of(upload));
  script.push_back(frame_of(wire::UploadEnd{3}));
  wire::Follow follow;
  follow.channel = 1;
  follow.mode = FollowMode::every_step;
  script.push_back(frame_of(follow));
  script.push_back(frame_of(wire::GetUpdateId{4, 1}));
  script.push_back(frame_of(wire::GetDiff{5, 1, {}, 7}));
  script.push_back(frame_of(wire::Fetch{6, map.hash(), "string", "string"}));
  script.push_back(frame_of(wire::List{7}));
  script.push_back(frame_of(wire::GetSender{1, 5}));
  script.push_back(frame_of(wire::EventType{1, "string"}));
  wire::EventPart part;
  part.channel = 1;
  part.bytes = piece;
  script.push_back(frame_of(part));
  wire::EventMessage event;
  event.channel = 1;
  event.number = 1;
  event.bytes = piece;
  script.push_back(frame_of(event));
  script.push_back(frame_of(wire::Unfollow{1}));
  script.push_back(frame_of(wire::CloseChannel{2}));
  script.push_back(frame_of(wire::Goodbye{StateErrc::stopped, "the end"}));
  return script;
}

/// To a client that opened channels 1 and 2, both followed, and asked for 3 (a diff), 4 (a state) and 5 (the
/// list).
std::vector<Bytes> server_script() {
  std::vector<Bytes> script;
  const Epoch epoch = 0x1234;
  wire::HeartbeatEntry beat{1, 5};
  Bytes body;
  ByteWriter writer(body);
  beat.encode(writer);
  script.push_back(raw_frame(4, body));
  script.push_back(frame_of(wire::Opened{1, {epoch, 5}}));
  script.push_back(frame_of(wire::SenderMessage{1, 77}));
  script.push_back(frame_of(wire::UploadWanted{2}));
  const Bytes entries{std::byte{0}, std::byte{1}, std::byte{'x'}, std::byte{2}, std::byte{0}};
  wire::Transfer transfer;
  transfer.stream = 1;
  transfer.entries = entries;
  script.push_back(frame_of(transfer));
  wire::ValuePart part;
  part.stream = 1;
  part.ordinal = 3;
  part.total = 5;
  part.bytes = entries;
  script.push_back(frame_of(part));
  wire::DiffMessage diff;
  diff.stream = 1;
  diff.epoch = epoch;
  diff.advance = 5;
  diff.entries = entries;
  script.push_back(frame_of(diff));
  wire::Step step;
  step.stream = 1;
  step.ordinal = 2;
  step.value = entries;
  script.push_back(frame_of(step));
  diff.stream = 3;
  script.push_back(frame_of(diff));
  diff.stream = 1;
  diff.is_full = true;
  diff.epoch = epoch + 1;
  diff.advance = 2;
  script.push_back(frame_of(diff));
  wire::StatePiece piece;
  piece.request = 4;
  piece.bytes = entries;
  script.push_back(frame_of(piece));
  script.push_back(frame_of(wire::StateEnd{4}));
  Bytes info;
  ByteWriter info_writer(info);
  wire::HostedMapInfo{MapHash(), MapHash(), "string", "i64", 9}.encode(info_writer);
  wire::Hosted hosted;
  hosted.request = 5;
  hosted.maps = info;
  hosted.more = true;
  script.push_back(frame_of(hosted));
  hosted.more = false;
  script.push_back(frame_of(hosted));
  script.push_back(frame_of(wire::UpdateIdMessage{6, {epoch, 5}}));
  script.push_back(frame_of(wire::Answer{1, 1, 5}));
  script.push_back(frame_of(wire::AnswerError{1, 2, StateErrc::hook_failed, "no"}));
  script.push_back(frame_of(wire::Refused{2, StateErrc::hash_mismatch, "the keys are the same", MapHash()}));
  script.push_back(frame_of(wire::Goodbye{StateErrc::stopped, "the end"}));
  return script;
}

void prepare(ServerSide& server, const std::shared_ptr<Hosted>& map) {
  server.authenticate();
  server.maps[map->hash()] = map;
}

void prepare(ClientSide& client, const Hosted& map) {
  client.authenticate();
  client.session.open(open_of(map, 0, FollowMode::merged));
  client.session.get_sender(1, 0);
  client.session.open(open_of(map, 0, FollowMode::merged));
  client.session.get_diff(1, {}, 9);
  client.session.fetch(map.hash(), "string", "string");
  client.session.list();
  client.session.get_update_id(1);
  for (const std::uint64_t number : {1U, 2U}) {
    client.session.send_event(1, number, std::make_shared<const SerializedEvent>());
  }
  client.take_all();
}

Bytes join(const std::vector<Bytes>& parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace

TEST_CASE("frames that come byte by byte do what they do at once", "[protocol]") {
  const auto map = host();
  const Bytes to_server = join(client_script(*map));
  const Bytes to_client = join(server_script());
  ServerSide whole_server;
  ClientSide whole_client;
  prepare(whole_server, map);
  prepare(whole_client, *map);
  whole_server.feed(to_server);
  whole_client.feed(to_client);
  CHECK(whole_server.log.lines.size() == 11);
  CHECK(whole_server.log.close_reason() == StateErrc::link_closed);
  CHECK(whole_client.log.lines.size() == 20);
  CHECK(whole_client.log.close_reason() == StateErrc::stopped);
  CHECK(whole_client.log.closes.at(0).detail == "the end");

  for (const std::size_t size : {1U, 2U, 3U, 7U, 64U}) {
    INFO("pieces of " << size);
    ServerSide server;
    ClientSide client;
    prepare(server, map);
    prepare(client, *map);
    for (std::size_t i = 0; i < to_server.size(); i += size) {
      server.feed(ByteView(to_server).subspan(i, std::min(size, to_server.size() - i)));
    }
    for (std::size_t i = 0; i < to_client.size(); i += size) {
      client.feed(ByteView(to_client).subspan(i, std::min(size, to_client.size() - i)));
    }
    CHECK(server.log.lines == whole_server.log.lines);
    CHECK(client.log.lines == whole_client.log.lines);
  }
}

TEST_CASE("bytes cut off or changed anywhere end the session at worst, with an error that says so",
          "[protocol][guarantee_10]") {
  const auto map = host();
  const auto is_sound = [](const ActionLog& log, bool is_over) {
    if (log.closes.size() > 1 || is_over != (log.closes.size() == 1)) return false;
    return log.closes.empty() || make_error_code(log.closes[0].reason);
  };
  const auto run = [&](const std::vector<Bytes>& script, std::size_t at, ByteView changed, bool to_server) {
    if (to_server) {
      ServerSide server;
      prepare(server, map);
      for (std::size_t i = 0; i < at; ++i) server.feed(script[i]);
      server.feed(changed);
      server.take_all();
      for (std::size_t i = at + 1; i < script.size(); ++i) server.feed(script[i]);
      server.take_all();
      return is_sound(server.log, server.session.is_over());
    }
    ClientSide client;
    prepare(client, *map);
    for (std::size_t i = 0; i < at; ++i) client.feed(script[i]);
    client.feed(changed);
    for (std::size_t i = at + 1; i < script.size(); ++i) client.feed(script[i]);
    client.take_all();
    return is_sound(client.log, client.session.is_over());
  };
  for (const bool to_server : {true, false}) {
    const std::vector<Bytes> script = to_server ? client_script(*map) : server_script();
    for (std::size_t at = 0; at < script.size(); ++at) {
      const Bytes& frame = script[at];
      for (std::size_t i = 0; i < frame.size(); ++i) {
        // The rest of the session follows a frame that was cut: it is read as its end.
        if (!run(script, at, ByteView(frame).first(i), to_server)) {
          FAIL("frame " << at << " cut to " << i << (to_server ? " to the server" : " to the client"));
        }
        // A body that is too short for its kind, within a frame that is whole.
        if (i > 1 && frame.size() < 128) {
          const Bytes shorter =
              raw_frame(std::to_integer<unsigned>(frame[1]), ByteView(frame).subspan(2, i - 2));
          if (!run(script, at, shorter, to_server)) FAIL("frame " << at << " with a body of " << i - 2);
        }
        for (const unsigned value : {0x00U, 0x01U, 0x7FU, 0x80U, 0xFFU}) {
          Bytes changed = frame;
          changed[i] = static_cast<std::byte>(value);
          if (!run(script, at, changed, to_server))
            FAIL("frame " << at << " byte " << i << " set to " << value);
        }
      }
    }
  }
}

TEST_CASE("random bytes end the session at worst", "[protocol][guarantee_10]") {
  const auto map = host();
  const auto seed = GENERATE(range(0U, 200U));
  INFO("seed " << seed);
  std::mt19937 rng(seed);
  const auto noise = [&] {
    // Half of them frames with a body of noise, which get further.
    const auto list = client_script(*map);
    Bytes body(rng() % 40);
    for (std::byte& b : body) b = static_cast<std::byte>(rng() % 4 == 0 ? rng() : rng() % 4);
    return rng() % 2 == 0 ? body
                          : raw_frame(static_cast<unsigned>(all_kinds()[rng() % all_kinds().size()]), body);
  };
  ServerSide server;
  ClientSide client;
  const bool is_authenticated = rng() % 4 != 0;
  if (is_authenticated) {
    prepare(server, map);
    prepare(client, *map);
  } else {
    server.session.on_open(passwords(), test_binding(), false, t0);
    client.session.on_open("secret", test_binding(), t0);
  }
  for (int i = 0; i < 30; ++i) {
    server.feed(noise());
    client.feed(noise());
    server.take_all();
    client.take_all();
  }
  CHECK(server.log.closes.size() == (server.session.is_over() ? 1U : 0U));
  CHECK(client.log.closes.size() == (client.session.is_over() ? 1U : 0U));
  if (!is_authenticated) CHECK_FALSE(server.session.is_authenticated());
}

TEST_CASE("an exception in what is done for a session ends the session, not the process", "[protocol]") {
  ServerSide server;
  server.authenticate();
  int closes = 0;
  const auto sink = [&](const auto& action) {
    if constexpr (std::is_same_v<std::decay_t<decltype(action)>, wire::ListAsked>) throw std::bad_alloc();
    if constexpr (std::is_same_v<std::decay_t<decltype(action)>, wire::CloseSession>) ++closes;
  };
  CHECK_NOTHROW(server.session.on_bytes(frame_of(wire::List{1}), t0, sink));
  CHECK(closes == 1);
  CHECK(server.session.is_over());
}

}  // namespace session_test
