// A remote whose server is hostile or broken: it costs that link what our own limits say, and nobody else anything.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/played_server.hpp"

namespace syncstate::testing::hostile_server_test {
namespace {

using protocol::ChannelId;

/// A server that lets the remote in, and then is hostile.
struct HostileWorld : PlayedServer {
  explicit HostileWorld(RemoteCoreOptions options = {}) : PlayedServer(std::move(options)) { welcome(); }

  /// The remote has ended the session for this reason, says so, and finds a good server again.
  void check_ended(StateErrc reason) {
    world.time.run_ready();
    CHECK(last().goodbye() == reason);
    CHECK_FALSE(last().is_open());
    CHECK(remote->status().state == LinkState::failed);
    CHECK(remote->status().reason == reason);
    world.restart();
    REQUIRE(world.wait([this] { return remote->status().state == LinkState::live; }));
  }
};

const std::string dirty =
    std::string("no\0thing \x1B]0;owned\x07", 20) + "\xE2\x80\xAE" + std::string(1'000'000, '\n');

bool is_clean(const std::string& text) {
  return text.size() <= 512 + 200 && text.find("\xE2\x80\xAE") == std::string::npos &&
         std::none_of(text.begin(), text.end(), [](char c) {
           const auto b = static_cast<unsigned char>(c);
           return b < 32 || b == 127;
         });
}

std::string what_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const StateError& error) {
    return error.what();
  }
  return "nothing was thrown\n";
}

}  // namespace

TEST_CASE("texts of a server come through to what() cut and cleaned", "[guarantee_10]") {
  // `frame_bytes` is 1 MiB: the longest text that a server can send.
  const std::string text = dirty.substr(0, 1'000'000);
  HostileWorld hostile;
  SECTION("the answer to an event") {
    const Map map = hostile.make_map();
    hostile.open(hostile.last_channel());
    const Sent sent = hostile.send(map, "x");
    hostile.last().send(protocol::AnswerError{hostile.last_channel(), 1, StateErrc::hook_failed, text});
    hostile.world.time.run_ready();
    REQUIRE(sent.error() == StateErrc::hook_failed);
    CHECK(is_clean(what_of([&] { (void)sent.result(); })));
  }
  SECTION("a refusal") {
    const Map map = hostile.make_map();
    hostile.last().send(protocol::Refused{hostile.last_channel(), StateErrc::forbidden, text, {}});
    hostile.world.time.run_ready();
    const std::string what = what_of([&] { (void)hostile.send(map, "x").result(); });
    CHECK_THAT(what, contains_text("owned"));
    CHECK(is_clean(what));
  }
  SECTION("a goodbye") {
    hostile.last().send(protocol::Goodbye{StateErrc::stopped, text});
    hostile.world.time.run_ready();
    CHECK(is_clean(hostile.remote->status().detail));
    CHECK_THAT(hostile.remote->status().detail, contains_text("owned"));
  }
  SECTION("the types of a list") {
    const auto maps = std::make_shared<std::vector<HostedMapInfo>>();
    const auto done = detail::Operation::create();
    hostile.remote->core().list(maps, done);
    hostile.world.time.run_ready();
    Bytes body;
    ByteWriter out(body);
    HostedMapInfo{MapHash(), MapHash(), text.substr(0, 1'000), text.substr(0, 1'000), 1}.encode(out);
    hostile.last().send(protocol::Hosted{1, false, body});
    hostile.world.time.run_ready();
    REQUIRE(done->is_finished());
    REQUIRE(maps->size() == 1);
    CHECK(is_clean(maps->front().key_type));
    CHECK(is_clean(maps->front().value_type));
  }
}

TEST_CASE("answers to events that were not sent end the session at once", "[guarantee_10]") {
  const auto [number, more] = GENERATE(std::pair{std::uint64_t{1}, ~std::uint64_t{0} - 1},
                                       std::pair{std::uint64_t{1}, std::uint64_t{1'000'000}},
                                       std::pair{std::uint64_t{2}, std::uint64_t{0}});
  HostileWorld hostile;
  const Map map = hostile.make_map();
  hostile.open(hostile.last_channel());
  const Sent sent = hostile.send(map, "x");
  hostile.last().send(protocol::Answer{hostile.last_channel(), number, 1, more});
  hostile.check_ended(StateErrc::protocol_error);
}

TEST_CASE("a heartbeat makes a replica current only where it stands at the head", "[age]") {
  HostileWorld hostile;
  const Map map = hostile.make_map();
  hostile.open(hostile.last_channel());
  const bool every_step = GENERATE(false, true);
  Follower replica(Map(map), ReplicaOptions{.every_step = every_step});
  hostile.world.time.run_ready();
  const ChannelId stream = hostile.last_channel();
  hostile.last().send(protocol::Opened{stream, {7, 3}});
  hostile.world.time.run_ready();
  CHECK(replica.age() == Duration::max());
  CHECK(replica.status().state == LinkState::connecting);
  const auto heartbeat = [&](UpdateId head) {
    Bytes body;
    ByteWriter out(body);
    protocol::HeartbeatEntry{stream, head}.encode(out);
    hostile.last().send_frame(4, body);
    hostile.world.time.run_ready();
  };
  const auto step = [&](UpdateId advance) {
    protocol::DiffMessage diff;
    diff.stream = stream;
    if (replica.epoch() == 0) diff.epoch = 7;
    diff.advance = advance;
    hostile.last().send(diff);
    hostile.world.time.run_ready();
  };
  heartbeat(3);  // it is behind
  CHECK(replica.age() == Duration::max());
  step(1);
  // A single step is not the head; a merged diff was when it was made.
  CHECK(replica.age() == (every_step ? Duration::max() : 0ms));
  CHECK(replica.status().state == (every_step ? LinkState::connecting : LinkState::live));
  step(2);
  CHECK(replica.update_id() == 3);
  CHECK(replica.age() == 0ms);
  CHECK(replica.status().state == LinkState::live);
  hostile.world.time.advance(2s);
  CHECK(replica.age() == 2s);
  heartbeat(5);
  CHECK(replica.age() == 2s);
  hostile.world.time.advance(2s);
  heartbeat(5);
  CHECK(replica.age() == 4s);
  heartbeat(3);
  CHECK(replica.age() == 0ms);
  hostile.world.time.advance(1s);
  step(1);
  // Where the head is now, a step does not say, nor a step after it: what is shown is as new as the news about the head.
  CHECK(replica.age() == (every_step ? 1s : 0s));
  hostile.world.time.advance(1s);
  step(1);
  CHECK(replica.age() == (every_step ? 2s : 0s));
  // The news came while it was behind: where it is reached late, its age counts from the news on.
  heartbeat(7);
  hostile.world.time.advance(3s);
  step(2);
  REQUIRE(replica.update_id() == 7);
  CHECK(replica.age() == (every_step ? 3s : 0s));
  heartbeat(7);  // nothing is missing
  CHECK(replica.age() == 0s);
}

TEST_CASE("a heartbeat about another epoch makes no replica current, whatever the numbers are", "[age]") {
  HostileWorld hostile;
  const Map map = hostile.make_map();
  hostile.open(hostile.last_channel());
  const bool every_step = GENERATE(false, true);
  const EpochPolicy policy = GENERATE(EpochPolicy::accept, EpochPolicy::hold);
  Follower replica(Map(map), ReplicaOptions{.every_step = every_step, .epoch_policy = policy});
  hostile.world.time.run_ready();
  const auto lead_on = [&](Epoch epoch, UpdateId advance, bool is_full) {
    protocol::DiffMessage diff;
    diff.stream = hostile.last_channel();
    diff.epoch = epoch;
    diff.advance = advance;
    diff.is_full = is_full;
    hostile.last().send(diff);
    hostile.world.time.run_ready();
  };
  hostile.last().send(protocol::Opened{hostile.last_channel(), {7, 3}});
  lead_on(7, 3, false);
  REQUIRE(replica.position() == Position{7, 3});
  REQUIRE(replica.status().state == LinkState::live);

  // The next master stands at a lower update id, and has sent no diff yet.
  const std::shared_ptr<RawPeer> before = hostile.peers.back();
  before->abort();
  REQUIRE(hostile.world.wait([&] { return hostile.peers.back() != before; }));
  hostile.world.time.run_ready();
  hostile.last().send_welcome(password);
  hostile.world.time.run_ready();
  for (const auto& open : hostile.last().all<protocol::Open>()) {
    hostile.last().send(protocol::Opened{open.channel, {8, 2}});
  }
  hostile.world.time.run_ready();
  const Duration age = replica.age();
  hostile.world.time.advance(1s);
  for (const UpdateId head : {UpdateId{2}, UpdateId{3}, UpdateId{0}}) {
    Bytes body;
    ByteWriter out(body);
    protocol::HeartbeatEntry{hostile.last_channel(), head}.encode(out);
    hostile.last().send_frame(4, body);
    hostile.world.time.run_ready();
    CHECK(replica.age() == age + 1s);
    CHECK(replica.status().state != LinkState::live);
  }
  lead_on(8, 2, true);
  CHECK(replica.position() == (policy == EpochPolicy::accept ? Position{8, 2} : Position{7, 3}));
  CHECK(replica.age() == (policy == EpochPolicy::accept ? 0s : age + 1s));
}

TEST_CASE("an answer's position is of the epoch that its channel was opened in", "[events]") {
  HostileWorld hostile;
  const Map map = hostile.make_map();
  hostile.open(hostile.last_channel());  // in epoch 7
  const Sent first = hostile.send(map, "a");
  const Sent second = hostile.send(map, "b");
  hostile.last().send(protocol::Answer{hostile.last_channel(), 1, 5, 0});
  hostile.world.time.run_ready();
  CHECK(first.position() == Position{7, 5});

  const std::shared_ptr<RawPeer> before = hostile.peers.back();
  before->abort();
  REQUIRE(hostile.world.wait([&] { return hostile.peers.back() != before; }));
  hostile.world.time.run_ready();
  hostile.given.clear();
  hostile.last().send_welcome(password);
  hostile.world.time.run_ready();
  const Epoch next = GENERATE(Epoch{7}, Epoch{8});
  hostile.last().send(protocol::Opened{hostile.last_channel(), {next, 6}});
  hostile.world.time.run_ready();
  hostile.give_senders();
  if (next == 7) {  // the same master: the repeat is answered
    hostile.last().send(protocol::Answer{hostile.last_channel(), 2, 6, 0});
    hostile.world.time.run_ready();
    CHECK(second.position() == Position{7, 6});
  } else {
    REQUIRE(second.is_finished());
    CHECK(second.error() == StateErrc::outcome_unknown);
    const Sent third = hostile.send(map, "c");
    hostile.last().send(protocol::Answer{hostile.last_channel(), 1, 6, 0});
    hostile.world.time.run_ready();
    CHECK(third.position() == Position{8, 6});
  }
}

TEST_CASE("what a server refuses is asked for again, and not too often", "[retry]") {
  // Ten minutes of refusals: of the map itself, and of following it.
  const bool is_of_follower = GENERATE(false, true);
  const StateErrc reason = GENERATE(StateErrc::forbidden, StateErrc::type_mismatch, StateErrc::not_hosted,
                                    StateErrc::too_large, StateErrc::init_failed, StateErrc::busy);
  INFO((is_of_follower ? "following" : "the map") << ": " << make_error_code(reason).message());
  HostileWorld hostile;
  const Map map = hostile.make_map();
  Follower replica(Map(map), {});
  hostile.world.time.run_ready();
  std::size_t asked = 0;
  std::set<ChannelId> seen;
  const auto answer_opens = [&] {
    for (const auto& open : hostile.last().all<protocol::Open>()) {
      if (!seen.insert(open.channel).second) continue;
      const bool follows = open.mode != protocol::FollowMode::none;
      if (follows == is_of_follower) {
        hostile.last().send(protocol::Refused{open.channel, reason, "", {}});
        ++asked;
      } else {
        hostile.last().send(protocol::Opened{open.channel, {7, 0}});
      }
    }
    hostile.last().forget();
    hostile.world.time.run_ready();
  };
  TimePoint last = hostile.world.time.now();
  Duration longest{};
  for (int tick = 0; tick < 2'400; ++tick) {
    const std::size_t before = asked;
    answer_opens();
    if (asked != before) {
      longest = std::max(longest, hostile.world.time.now() - last);
      last = hostile.world.time.now();
    }
    if (tick % 4 == 0) hostile.last().send_frame(4, {});
    hostile.world.time.advance(250ms);
  }
  CHECK(hostile.remote->status().state == LinkState::live);
  CHECK(replica.status().state == LinkState::failed);
  CHECK(replica.status().reason == reason);
  // `BackoffOptions::most` is 30 s; `busy` passes sooner: within a second.
  const Duration slowest = reason == StateErrc::busy ? 2s : 31s;
  CHECK(longest <= slowest);
  CHECK(asked >= static_cast<std::size_t>(600s / slowest));
  // Asked again at every look at the time, that would be 2,400 times.
  CHECK(asked <= (reason == StateErrc::busy ? 1'200U : 100U));
}

TEST_CASE("answers may come in any order", "[guarantee_5]") {
  HostileWorld hostile;
  const Map map = hostile.make_map();
  const ChannelId channel = hostile.last_channel();
  hostile.open(channel);
  std::vector<Sent> sent;
  for (int i = 0; i < 6; ++i) sent.push_back(hostile.send(map, "x"));
  for (const std::uint64_t number : {4U, 6U, 1U, 3U}) {
    hostile.last().send(protocol::Answer{channel, number, number + 10});
    hostile.world.time.run_ready();
    CHECK(sent[number - 1].is_finished());
    CHECK(sent[number - 1].result() == number + 10);
  }
  const Sent seventh = hostile.send(map, "x");
  hostile.last().send(protocol::Answer{channel, 2, 20});
  hostile.last().send(protocol::Answer{channel, 5, 21});
  hostile.last().send(protocol::Answer{channel, 7, 22});
  hostile.world.time.run_ready();
  CHECK(sent[1].result() == 20);
  CHECK(sent[4].result() == 21);
  CHECK(seventh.result() == 22);
  CHECK(hostile.remote->status().state == LinkState::live);
  SECTION("but each once") {
    hostile.send(map, "x");
    hostile.last().send(protocol::Answer{channel, 5, 21});
    hostile.check_ended(StateErrc::protocol_error);
  }
}

TEST_CASE("events whose channel is refused are repeated on the next one", "[guarantee_5]") {
  RemoteCoreOptions options;
  options.limits.events_in_flight = 2;
  HostileWorld hostile(options);
  const Map map = hostile.make_map();
  const ChannelId channel = hostile.last_channel();
  hostile.open(channel);
  const Sent first = hostile.send(map, "x");
  const Sent second = hostile.send(map, "y");
  hostile.last().forget();
  hostile.last().send(protocol::Refused{channel, StateErrc::busy, "", {}});
  hostile.world.time.run_ready();
  hostile.pass(5s);
  REQUIRE(hostile.last().find<protocol::Open>().has_value());
  hostile.open(hostile.last_channel());
  const auto events = hostile.last().all<protocol::EventMessage>();
  REQUIRE(events.size() == 2);
  CHECK(events[0].number == 1);
  CHECK(events[1].number == 2);
  hostile.last().send(protocol::Answer{hostile.last_channel(), 1, 8, 1});
  hostile.world.time.run_ready();
  CHECK(first.result() == 8);
  CHECK(second.result() == 9);
}

TEST_CASE("requests that a server does not answer are bounded, and given up they take nothing",
          "[guarantee_10]") {
  RemoteCoreOptions options;
  options.limits.requests_in_flight = 4;
  HostileWorld hostile(options);
  const Map map = hostile.make_map();
  hostile.open(hostile.last_channel());
  std::vector<std::shared_ptr<detail::Operation>> operations;
  const auto maps = std::make_shared<std::vector<HostedMapInfo>>();
  const auto ask = [&] {
    operations.push_back(detail::Operation::create());
    hostile.remote->core().list(maps, operations.back());
    hostile.world.time.run_ready();
  };
  for (int i = 0; i < 20; ++i) {
    ask();
    operations.back()->give_up("");
    hostile.pass(1s);
  }
  const auto lists = hostile.last().all<protocol::List>();
  REQUIRE(lists.size() == 4);  // no more than that, however long it goes on
  CHECK(maps.use_count() == 1);
  ask();
  CHECK(hostile.last().all<protocol::List>().size() == 4);
  CHECK(maps.use_count() == 2);
  // A late answer makes room, and is not taken for one to a newer question.
  hostile.last().send(protocol::Hosted{lists[0].channel, false, {}});
  hostile.world.time.run_ready();
  REQUIRE(hostile.last().all<protocol::List>().size() == 5);
  CHECK_FALSE(operations.back()->is_finished());
  hostile.last().send(protocol::Hosted{hostile.last().all<protocol::List>().back().channel, false, {}});
  hostile.world.time.run_ready();
  CHECK(operations.back()->is_finished());
  CHECK(hostile.remote->status().state == LinkState::live);
}

TEST_CASE("a transfer without an end is ended by its bytes; what is shown stays, and the link lives",
          "[guarantee_10]") {
  RemoteCoreOptions options;
  options.limits.staged_bytes = 300'000;
  HostileWorld hostile(options);
  const Map map = hostile.make_map();
  hostile.open(hostile.last_channel());
  Follower replica(Map(map), {});
  hostile.world.time.run_ready();
  const ChannelId stream = hostile.last_channel();
  hostile.open(stream);
  const std::string kind = GENERATE("entries", "values", "parts", "the same key again");
  INFO(kind);
  const std::string value(90'000, 'x');
  const std::size_t rounds = kind == "the same key again" ? 50 : 4;
  for (std::uint64_t i = 0; i < rounds; ++i) {
    const std::uint64_t ordinal = kind == "the same key again" ? 0 : i;
    Bytes entries;
    ByteWriter out(entries);
    out.put_varint(ordinal);
    out.put_sized(value);
    if (kind == "values") {
      hostile.last().send(protocol::ValuePart{stream, ordinal, value.size(), 0, as_byte_view(value)});
    } else if (kind == "parts") {
      hostile.last().send(protocol::ValuePart{stream, 0, 1'000'000, i * value.size(), as_byte_view(value)});
    } else {
      hostile.last().send(protocol::Transfer{stream, entries});
    }
    hostile.world.time.run_ready();
  }
  if (kind == "the same key again") {  // takes no more than one
    CHECK(hostile.remote->status().state == LinkState::live);
    return;
  }
  CHECK(values_of(replica.view()) == std::vector<std::string>(4, "-"));
  CHECK(replica.status().state == LinkState::failed);
  CHECK(replica.status().reason == StateErrc::too_large);
  CHECK_THAT(replica.status().detail, contains_text("Limits::staged_bytes is 300000"));
  CHECK(hostile.remote->status().state == LinkState::live);
  const auto closed = hostile.last().find<protocol::CloseChannel>();
  REQUIRE(closed);
  CHECK(closed->channel == stream);
  // It is asked for again, at the pace of refusals, and may be well then.
  hostile.last().forget();
  hostile.pass(31s);
  const auto again = hostile.last().find<protocol::Open>();
  REQUIRE(again);
  hostile.last().send(protocol::Opened{again->channel, {7, 0}});
  protocol::DiffMessage diff;
  diff.stream = again->channel;
  diff.epoch = 7;
  diff.advance = 1;
  hostile.last().send(diff);
  hostile.world.time.run_ready();
  CHECK(replica.update_id() == 1);
  CHECK(replica.status().state == LinkState::live);
}

TEST_CASE("a map that a server refuses for another one is compared within our limits", "[guarantee_10]") {
  RemoteCoreOptions options;
  options.limits.map_bytes = 100'000;
  HostileWorld hostile(options);
  const Map map = hostile.make_map();
  hostile.last().send(protocol::Refused{hostile.last_channel(), StateErrc::hash_mismatch,
                                        "the keys are the same", MapHash(std::array<std::byte, 32>{})});
  hostile.world.time.run_ready();
  const auto fetch = hostile.last().find<protocol::Fetch>();
  REQUIRE(fetch.has_value());
  const Sent waiting = hostile.send(map, "x");
  CHECK_FALSE(waiting.is_finished());
  SECTION("that is never sent") { hostile.pass(6s); }
  SECTION("that has no end") {
    const Bytes entry = [] {
      Bytes bytes;
      ByteWriter out(bytes);
      out.put_sized(std::string("key00"));
      out.put_varint(std::uint64_t{10'000'000});
      out.put(ByteView(Bytes(50'000)));
      return bytes;
    }();
    protocol::StatePiece piece;
    piece.request = fetch->request;
    piece.bytes = entry;
    for (int i = 0; i < 100; ++i) hostile.last().send(piece);
    hostile.world.time.run_ready();
  }
  REQUIRE(waiting.is_finished());
  CHECK(waiting.error() == StateErrc::hash_mismatch);
  CHECK(hostile.remote->status().state == LinkState::live);
}

TEST_CASE("with many maps on a remote each is let go of, and each event answered", "[guarantee_7]") {
  HostileWorld hostile;
  hostile.world.restart();
  REQUIRE(hostile.world.wait([&] {
    hostile.last().abort();
    return hostile.remote->status().state == LinkState::live;
  }));
  constexpr std::size_t count = 200;
  std::vector<Map> maps;
  for (std::size_t i = 0; i < count; ++i) {
    Map map(hostile.remote);
    push_keys(map, 1, std::to_string(i));
    map.freeze(10s);
    maps.push_back(std::move(map));
  }
  std::vector<Sent> sent;
  for (int round = 0; round < 20; ++round) {  // more than fit the link at once
    for (const Map& map : maps) {
      sent.push_back(Sent::send(hostile.world, hostile.remote, map.hash(), set_key("key00", "x")));
    }
  }
  REQUIRE(hostile.world.wait(
      [&] { return std::all_of(sent.begin(), sent.end(), [](const Sent& s) { return s.is_finished(); }); }));
  for (const Sent& each : sent) CHECK_FALSE(each.error());
}

}  // namespace syncstate::testing::hostile_server_test
