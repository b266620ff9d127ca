// What a remote keeps, forgets and asks again when its link or one of its maps is refused or lost.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/played_server.hpp"

namespace syncstate::testing::remote_core_test {
namespace {

using protocol::ChannelId;

constexpr Duration most_first_wait = BackoffOptions{}.first;

}  // namespace

// Status.

TEST_CASE("a status is as old as its state, however often its reason is told") {
  World world;
  world.port->set_unreachable(true);
  const TimePoint start = world.time.now();
  const auto remote = world.connect();
  world.time.advance(100s);
  CHECK(remote->status().state == LinkState::connecting);
  CHECK(remote->status().since == start);

  world.port->set_unreachable(false);
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  const TimePoint live = remote->status().since;
  CHECK(live == world.time.now());
  world.time.advance(100s);
  CHECK(remote->status().since == live);

  world.port->set_unreachable(true);
  const TimePoint cut = world.time.now();
  world.port->cut_all();
  world.time.advance(100s);
  CHECK(remote->status().state == LinkState::stale);
  CHECK(remote->status().since == cut);
}

// The pace of new attempts.

TEST_CASE("after a new password or a live link the wait for the next attempt is short again") {
  const bool is_live_between = GENERATE(false, true);
  CAPTURE(is_live_between);
  PlayedServer played;
  for (int round = 0; round < 5; ++round) {
    for (int failures = 0; failures < 10; ++failures) {  // the waits grow up to 30 s
      played.last().abort();
      played.wait_for_next();
    }
    const std::size_t before = played.peers.size();
    if (is_live_between) {
      played.welcome();
    } else {
      played.remote->set_password(password);
      played.world.time.run_ready();
      REQUIRE(played.peers.size() == before + 1);
    }
    played.last().abort();
    CHECK(played.wait_for_next() <= most_first_wait);
  }
}

TEST_CASE("a password that was accepted, or is another one, does not wait as the refused one does") {
  const bool is_accepted = GENERATE(false, true);
  CAPTURE(is_accepted);
  PlayedServer played;
  played.end(StateErrc::unauthorized);
  CHECK(played.remote->status().state == LinkState::failed);
  if (is_accepted) {
    CHECK(played.wait_for_next() >= BackoffOptions{}.unauthorized / 2);
    played.welcome();
  } else {
    const std::size_t before = played.peers.size();
    played.remote->set_password(password);
    played.world.time.run_ready();
    REQUIRE(played.peers.size() == before + 1);
    // A refusal of the former one says nothing about this one.
    CHECK(played.remote->status().state == LinkState::connecting);
  }
  played.end(StateErrc::busy);
  CHECK(played.wait_for_next() <= most_first_wait);
}

TEST_CASE("a map that is busy is asked for again within a second, and a refused one within half a minute") {
  PlayedServer played;
  played.welcome();
  Map map = played.make_map();
  // How long the remote waits before it opens the map again.
  const auto wait_for_next = [&](StateErrc reason) {
    const std::size_t before = played.opens();
    const TimePoint start = played.world.time.now();
    played.refuse(played.last_channel(), reason);
    while (played.opens() == before && played.world.time.now() - start < 60s) played.pass(1s);
    return played.world.time.now() - start;
  };
  for (int i = 0; i < 10; ++i) CHECK(wait_for_next(StateErrc::busy) <= 2s);
  Duration longest{};
  for (int i = 0; i < 10; ++i) longest = (std::max)(longest, wait_for_next(StateErrc::forbidden));
  CHECK(longest > 10s);
  CHECK(longest <= 31s);
}

// What is asked.

TEST_CASE("a server that does not say what makes the difference does not keep a refusal from the caller") {
  RemoteCoreOptions options;
  options.request_timeout = 3s;
  PlayedServer played(options);
  played.welcome();
  const Map map = played.make_map("another");
  const Sent sent = Sent::send(played.world, played.remote, map.hash(), set_key("key00", "x"));
  played.last().send(
      protocol::Refused{played.last_channel(), StateErrc::hash_mismatch, "on purpose", make_master().hash()});
  played.world.time.run_ready();
  REQUIRE(played.last().find<protocol::Fetch>());
  CHECK_FALSE(sent.is_finished());
  played.pass(4s);
  REQUIRE(sent.is_finished());
  CHECK(sent.error() == StateErrc::hash_mismatch);
}

namespace {

/// An initial state that is fetched, by the pieces that a test sends.
struct Fetched {
  explicit Fetched(const PlayedServer& played, const Limits& limits = {})
      : collector(
            std::make_shared<detail::StateFetcher<std::string, std::string>>(make_master().hash(), limits)) {
    played.remote->core().fetch_state(make_master().hash(), type_name<std::string>(),
                                      type_name<std::string>(), collector, done);
  }

  std::shared_ptr<detail::StateFetcher<std::string, std::string>> collector;
  std::shared_ptr<detail::Operation> done = detail::Operation::create();
};

/// The initial state of `make_master`, or of another one with a longer value.
Bytes entries_of_master(std::size_t keys, const std::string& value = "-") {
  Bytes bytes;
  ByteWriter out(bytes);
  for (std::size_t i = 0; i < keys; ++i) {
    out.put_sized(key_name(i));
    out.put_sized(value);
  }
  return bytes;
}

}  // namespace

TEST_CASE("a fetch whose link was lost starts over on the next one") {
  PlayedServer played;
  played.welcome();
  const Fetched fetched(played);
  const auto send_piece = [&](const Bytes& entries) {
    played.world.time.run_ready();
    const auto asked = played.last().find<protocol::Fetch>();
    REQUIRE(asked);
    played.last().send(protocol::StatePiece{asked->request, entries});
    played.world.time.run_ready();
    return asked->request;
  };
  send_piece(entries_of_master(2));
  played.last().abort();
  played.wait_for_next();
  played.welcome();
  played.last().send(protocol::StateEnd{send_piece(entries_of_master(4))});
  played.world.time.run_ready();
  REQUIRE(fetched.done->is_finished());
  REQUIRE_FALSE(fetched.done->result().epoch);  // it did not fail
  CHECK(fetched.collector->frozen());
  CHECK(played.remote->status().state == LinkState::live);
}

TEST_CASE("what a request had staged that was given up takes no room any more") {
  RemoteCoreOptions options;
  options.limits.staged_bytes = 100'000;
  PlayedServer played(options);
  played.welcome();
  const Bytes entries = entries_of_master(1, std::string(60'000, 'v'));
  const auto fetch = [&] {
    Fetched fetched(played, options.limits);
    played.world.time.run_ready();
    played.last().send(protocol::StatePiece{played.last().all<protocol::Fetch>().back().request, entries});
    played.world.time.run_ready();
    return fetched;
  };
  const Fetched given_up = fetch();
  REQUIRE_FALSE(given_up.done->is_finished());
  played.remote->core().cancel(given_up.done, make_error_code(StateErrc::unavailable));
  played.pass(1s);
  const Fetched second = fetch();
  CHECK_FALSE(second.done->is_finished());
  const Fetched third = fetch();
  REQUIRE(third.done->is_finished());  // two of them are too much
  CHECK(error_of([&] { third.done->result(); }) == StateErrc::too_large);
}

// Maps.

TEST_CASE("a map of which no copy lives takes no channel of the link") {
  PlayedServer played;
  played.welcome();
  {
    const Map map = played.make_map();
    played.open(played.last_channel());
    played.pass(1s);
    CHECK_FALSE(played.last().find<protocol::CloseChannel>());
  }
  played.pass(1s);
  REQUIRE(played.last().find<protocol::CloseChannel>());
  CHECK(played.last().find<protocol::CloseChannel>()->channel == played.last_channel());
}

TEST_CASE("a map that was refused is opened again as soon as one of its followers is served") {
  PlayedServer played;
  played.welcome();
  const Map map = played.make_map();
  const ChannelId of_map = played.last_channel();
  const Follower follower{Map(map)};
  played.world.time.run_ready();
  const ChannelId of_follower = played.last_channel();
  REQUIRE(of_follower != of_map);
  played.refuse(of_map, StateErrc::init_failed);
  CHECK(follower.status().state == LinkState::failed);
  const std::size_t before = played.opens();
  played.open(of_follower);
  CHECK(played.opens() == before + 1);
  played.open(played.last_channel());
  const Sent sent = played.send(map);
  played.answer(played.last_channel(), 1);
  REQUIRE(sent.is_finished());
  CHECK_FALSE(sent.error());
}

TEST_CASE("news of another epoch's head do not make a follower live, whatever their numbers are") {
  PlayedServer played;
  played.welcome();
  const Map asked = played.make_map();
  played.open(played.last_channel());
  Map master = make_master();
  master.set("key00", "x");
  Map map(asked);
  REQUIRE(map.apply(master.diff(0, 1)));
  const Follower follower{std::move(map)};
  played.world.time.run_ready();
  const ChannelId channel = played.last_channel();
  played.last().send(protocol::Opened{channel, {master.epoch() + 1, 5}});
  Bytes news;
  ByteWriter out(news);
  protocol::HeartbeatEntry{channel, 0}.encode(out);
  played.last().send_frame(static_cast<std::uint8_t>(protocol::FrameKind::heartbeat), news);
  played.world.time.run_ready();
  CHECK(played.remote->status().state == LinkState::live);
  CHECK(follower.status().state != LinkState::live);
  CHECK(follower.age() == Duration::max());
}

TEST_CASE("under hold the news of another master's head are no news of the one that is held") {
  World world;
  const auto remote = world.connect();
  const Handle handle = world.host();
  const Follower follower{world.make_map(remote), {.epoch_policy = EpochPolicy::hold}};
  handle.modify([](Map& map) { map.set("key00", "held"); });
  REQUIRE(world.wait([&] { return follower.update_id() == 1; }));
  world.restart();
  world.host();
  REQUIRE(world.wait([&] { return follower.status().reason == StateErrc::epoch_changed; }));
  const Duration age = follower.age();
  world.time.advance(100s);  // many heartbeats
  CHECK(follower.status().state == LinkState::failed);
  CHECK(follower.status().reason == StateErrc::epoch_changed);
  CHECK(follower.age() == age + 100s);
}

// Events.

TEST_CASE("events that waited for room when their link was lost are sent one by one on the next") {
  PlayedServer played;
  protocol::Welcome one_event;
  one_event.events_in_flight = 1;
  played.welcome(one_event);
  const Map map = played.make_map();
  played.open(played.last_channel());
  std::vector<Sent> sent;
  for (int i = 0; i < 3; ++i) sent.push_back(played.send(map));
  CHECK(played.numbers() == std::vector<std::uint64_t>{1});
  played.last().abort();
  played.wait_for_next();
  played.welcome(one_event);
  played.open(played.last_channel());
  std::vector<std::uint64_t> expected;
  for (std::uint64_t number = 1; number <= 3; ++number) {
    expected.push_back(number);
    CHECK(played.numbers() == expected);
    played.answer(played.last_channel(), number);
    CHECK(sent[static_cast<std::size_t>(number) - 1].is_finished());
  }
}

TEST_CASE("what a refused map had sent leaves its room on the link to the events of others") {
  protocol::Welcome limits;
  const bool is_by_bytes = GENERATE(false, true);
  CAPTURE(is_by_bytes);
  (is_by_bytes ? limits.event_bytes_in_flight : limits.events_in_flight) = 1;
  PlayedServer played;
  played.welcome(limits);
  const Map refused = played.make_map("a");
  const ChannelId channel = played.last_channel();
  played.open(channel);
  const Map other = played.make_map("b");
  played.open(played.last_channel());
  const Sent first = played.send(refused);
  const Sent second = played.send(other);
  REQUIRE(played.last().all<protocol::EventMessage>().size() == 1);
  played.refuse(channel, StateErrc::forbidden);
  REQUIRE(first.is_finished());
  CHECK(first.error() == StateErrc::forbidden);
  REQUIRE(played.last().all<protocol::EventMessage>().size() == 2);
  played.answer(played.last_channel(), 1);
  REQUIRE(second.is_finished());
  CHECK_FALSE(second.error());
  const Sent third = played.send(other);
  CHECK(played.last().all<protocol::EventMessage>().size() == 3);
}

TEST_CASE("events are numbered from 1 for each sender that a server gives") {
  PlayedServer played;
  played.welcome();
  const Map map = played.make_map();
  played.open(played.last_channel());
  Sent sent = played.send(map);
  played.answer(played.last_channel(), 1);
  REQUIRE(sent.is_finished());
  played.last().abort();
  played.wait_for_next();
  played.sender = 100;  // the server has forgotten the other one
  played.welcome();
  played.open(played.last_channel());
  sent = played.send(map);
  CHECK(played.numbers() == std::vector<std::uint64_t>{1});
  played.answer(played.last_channel(), 1);
  REQUIRE(sent.is_finished());
  CHECK_FALSE(sent.error());
}

}  // namespace syncstate::testing::remote_core_test
