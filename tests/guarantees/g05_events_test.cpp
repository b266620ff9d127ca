// Guarantee 5: events run in the order sent and at most once, and the answer says what became of each.
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::g05_events_test {
namespace {

using Texts = std::vector<std::string>;

/// A raw client with an open map, and the sender id that the master gave it.
struct RawSender {
  RawSender(World& w, const MapHash& hash, std::uint64_t known_sender = 0) : world(w) {
    peer = connect_raw(world.time, *world.port, password);
    protocol::Open open;
    open.channel = 1;
    open.hash = hash;
    open.key_type = type_name<std::string>();
    open.value_type = type_name<std::string>();
    peer->send(open);
    peer->send(protocol::GetSender{1, known_sender});
    peer->send(protocol::EventType{1, type_name<Command>()});
    world.time.run_ready();
    sender = peer->find<protocol::SenderMessage>().value().sender;
  }

  /// Sends an event and gives the frame that answers it.
  RawPeer::Received send(std::uint64_t number, const Change& event) {
    const std::size_t before = peer->received().size();
    const Bytes bytes = event.serialize();
    protocol::EventMessage message;
    message.channel = 1;
    message.number = number;
    message.bytes = bytes;
    peer->send(message);
    world.time.run_ready();
    REQUIRE(peer->received().size() == before + 1);
    return peer->received().back();
  }
  UpdateId answer_of(std::uint64_t number, const Change& event) {
    const auto frame = send(number, event);
    REQUIRE(frame.kind == protocol::FrameKind::answer);
    return protocol::decode_body<protocol::Answer>(frame.body).update_id;
  }
  protocol::AnswerError error_of(std::uint64_t number, const Change& event) {
    const auto frame = send(number, event);
    REQUIRE(frame.kind == protocol::FrameKind::answer_error);
    return protocol::decode_body<protocol::AnswerError>(frame.body);
  }

  World& world;
  std::shared_ptr<RawPeer> peer;
  std::uint64_t sender = 0;
};

/// Sends an event that changes nothing, so that the next one is sent at once.
void get_sender(World& world, const std::shared_ptr<Remote>& remote, const Map& map) {
  CHECK(remote->send_event(map.hash(), Change{{"nothing", "", ""}}).update_id == 0);
  world.runs.clear();
}

}  // namespace

TEST_CASE(
    "guarantee 5: one sender's events on one map run in the order sent, each answered with its update id") {
  World world;
  const auto remote = world.connect();
  const Map map = world.make_map(remote);
  std::vector<Sent> sent;
  Texts values;
  for (int i = 1; i <= 1'500; ++i) {  // more than may be in flight at once
    values.push_back(std::to_string(i));
    sent.push_back(Sent::send(world, remote, map.hash(), set_key("key00", values.back())));
  }
  REQUIRE(world.wait([&] { return sent.back().is_finished(); }));
  CHECK(world.runs == values);
  for (std::size_t i = 0; i < sent.size(); ++i) REQUIRE(sent[i].result() == i + 1);
}

TEST_CASE("guarantee 5: events take effect at most once, wherever the link is cut") {
  bool was_cut = true;
  std::size_t repeats = 0;
  for (std::size_t cut_after = 0; was_cut; ++cut_after) {
    World world;
    const auto remote = world.connect();
    const Map map = world.make_map(remote, 1);
    world.port->faults().read_bytes = 1;  // each task brings one byte, so every byte is a place to cut
    std::vector<Sent> sent;
    for (const char* value : {"a", "b", "c"}) {
      sent.push_back(Sent::send(world, remote, map.hash(), set_key("key00", value)));
    }
    world.run_steps(cut_after);
    was_cut = !sent.back().is_finished();
    const bool had_run = !world.runs.empty() && !sent.front().is_finished();
    if (had_run) ++repeats;
    world.port->cut_all();
    INFO("cut after " << cut_after << " steps");
    REQUIRE(world.wait([&] { return sent.back().is_finished(); }));
    REQUIRE(world.runs == Texts{"a", "b", "c"});
    REQUIRE(sent[0].result() == 1);
    REQUIRE(sent[1].result() == 2);
    REQUIRE(sent[2].result() == 3);
  }
  CHECK(repeats > 0);  // some cuts came after an event had run and before its answer was there
}

TEST_CASE("guarantee 5: events take effect at most once over a second cut during the repeat") {
  for (std::size_t first = 60; first < 180; first += 12) {
    for (std::size_t second = 20; second < 500; second += 23) {
      World world;
      const auto remote = world.connect();
      const Map map = world.make_map(remote, 1);
      world.port->faults().read_bytes = 2;
      std::vector<Sent> sent;
      for (const char* value : {"a", "b"}) {
        sent.push_back(Sent::send(world, remote, map.hash(), set_key("key00", value)));
      }
      world.run_steps(first);
      world.port->cut_all();
      world.run_steps(second, 60s);
      world.port->cut_all();
      INFO("cut after " << first << " and " << second << " steps");
      REQUIRE(world.wait([&] { return sent.back().is_finished(); }));
      REQUIRE(world.runs == Texts{"a", "b"});
      REQUIRE(sent[0].result() == 1);
      REQUIRE(sent[1].result() == 2);
    }
  }
}

TEST_CASE("guarantee 5: a repeat gets its old answer and does not run") {
  World world;
  const Handle handle = world.host();
  RawSender raw(world, handle.hash());
  CHECK(raw.answer_of(1, set_key("key00", "a")) == 1);
  CHECK(raw.answer_of(2, Change{{"nothing", "", "n"}}) == 1);
  const auto failure = raw.error_of(3, Change{{"fail", "key00", "no"}});
  CHECK(failure.reason == StateErrc::hook_failed);
  CHECK(raw.answer_of(4, set_key("key00", "b")) == 2);

  CHECK(raw.answer_of(1, set_key("key00", "a")) == 1);
  CHECK(raw.answer_of(2, Change{{"nothing", "", "n"}}) == 1);
  const auto again = raw.error_of(3, Change{{"fail", "key00", "no"}});
  CHECK(again.reason == StateErrc::hook_failed);
  CHECK(again.detail == failure.detail);
  CHECK(world.runs == Texts{"a", "n", "no", "b"});

  // Over another link the sender is the same, and so are its answers.
  raw.peer->abort();
  RawSender later(world, handle.hash(), raw.sender);
  CHECK(later.sender == raw.sender);
  CHECK(later.answer_of(4, set_key("key00", "b")) == 2);
  CHECK(later.answer_of(5, set_key("key00", "c")) == 3);
  CHECK(world.runs == Texts{"a", "n", "no", "b", "c"});
}

TEST_CASE(
    "guarantee 5: of each sender the last 1,024 answers are kept, and what is older is never run again") {
  World world;
  const Handle handle = world.host();
  RawSender raw(world, handle.hash());
  for (std::uint64_t number = 1; number <= 1'030; ++number) {
    REQUIRE(raw.answer_of(number, set_key("key00", "v")) == number);
  }
  const std::size_t runs = world.runs.size();
  CHECK(raw.error_of(6, set_key("key00", "v")).reason == StateErrc::outcome_unknown);
  CHECK(raw.answer_of(7, set_key("key00", "v")) == 7);
  CHECK(raw.answer_of(1'030, set_key("key00", "v")) == 1'030);
  CHECK(world.runs.size() == runs);
  CHECK(handle.update_id() == 1'030);
}

TEST_CASE("guarantee 5: the master gives out sender ids, and an event's sender is that of its channel") {
  World world;
  const Handle handle = world.host();
  RawSender raw(world, handle.hash());
  const RawSender other(world, handle.hash());
  CHECK(raw.sender != 0);
  CHECK(other.sender != raw.sender);
  // A sender that the master does not know, as one of an earlier epoch, gets a new id.
  const RawSender stranger(world, handle.hash(), 12'345);
  CHECK(stranger.sender != 12'345);
  CHECK(stranger.sender != 0);

  // Without a sender nothing runs.
  const auto peer = connect_raw(world.time, *world.port, password);
  peer->send(open_of(handle.hash()));
  peer->send(protocol::EventType{1, type_name<Command>()});
  const Bytes bytes = set_key("key00", "a").serialize();
  protocol::EventMessage message;
  message.channel = 1;
  message.number = 1;
  message.bytes = bytes;
  peer->send(message);
  world.time.run_ready();
  CHECK(peer->goodbye() == StateErrc::protocol_error);
  CHECK(world.runs.empty());
  CHECK(raw.answer_of(1, set_key("key00", "b")) == 1);
}

TEST_CASE("guarantee 5: an unanswered event is repeated only within the epoch it was first sent to") {
  World world;
  const auto remote = world.connect();
  const Map map = world.make_map(remote, 1);
  get_sender(world, remote, map);
  world.port->faults().is_client_deaf = true;  // events get through, answers do not
  const Sent sent = Sent::send(world, remote, map.hash(), set_key("key00", "sent"));
  world.time.run_ready();
  CHECK(world.runs == Texts{"sent"});
  CHECK_FALSE(sent.is_finished());

  world.restart();
  world.port->cut_all();
  world.port->faults().is_client_deaf = false;
  const Sent unsent = Sent::send(world, remote, map.hash(), set_key("key00", "unsent"));
  REQUIRE(world.wait([&] { return sent.is_finished() && unsent.is_finished(); }));
  CHECK(sent.error() == StateErrc::outcome_unknown);
  // What had not left yet goes to whoever is the master now.
  CHECK(unsent.result() == 1);
  CHECK(world.runs == Texts{"sent", "unsent"});
}

TEST_CASE("guarantee 5: a remote sends no event before it has its sender, and asks for its old one again") {
  World world;
  world.server.reset();
  std::vector<std::shared_ptr<RawPeer>> masters;
  RawPeer::listen(world.time, *world.port,
                  [&](const std::shared_ptr<RawPeer>& peer) { masters.push_back(peer); });
  const auto remote = world.connect();
  Map map(remote);
  push_keys(map, 1);
  map.freeze(0ms);
  CHECK(error_of([&] { remote->init(map, 1ms); }) == StateErrc::unavailable);
  const auto open_again = [&](Epoch epoch) {
    const std::size_t links = masters.size();
    if (links > 0 && masters.back()->is_open()) {
      masters.back()->abort();
      REQUIRE(world.wait([&] { return masters.size() > links; }));
    }
    world.time.run_ready();  // the channel binding is there
    masters.back()->send_welcome(password);
    world.time.run_ready();
    const auto open = masters.back()->find<protocol::Open>();
    REQUIRE(open);
    masters.back()->send(protocol::Opened{open->channel, {epoch, 1}});
    world.time.run_ready();
    return open->channel;
  };
  const auto ask = [&] { return masters.back()->find<protocol::GetSender>(); };
  const auto event = [&] { return masters.back()->find<protocol::EventMessage>(); };
  const auto give = [&](protocol::ChannelId channel, std::uint64_t sender) {
    masters.back()->send(protocol::SenderMessage{channel, sender});
    world.time.run_ready();
  };

  auto channel = open_again(7);
  CHECK_FALSE(ask());  // a map that is only opened takes no sender
  const Sent first = Sent::send(world, remote, map.hash(), set_key("key00", "a"));
  const Sent second = Sent::send(world, remote, map.hash(), set_key("key00", "b"));
  world.time.run_ready();
  CHECK(masters.back()->all<protocol::GetSender>().size() == 1);
  CHECK(ask()->sender == 0);
  CHECK_FALSE(event());
  give(channel, 77);
  CHECK(masters.back()->all<protocol::EventMessage>().size() == 2);

  // The next link asks with `open`, for the same sender, and repeats nothing before it has it.
  channel = open_again(7);
  CHECK(ask()->sender == 77);
  CHECK_FALSE(event());
  give(channel, 77);
  CHECK(event()->number == 1);
  masters.back()->send(protocol::Answer{channel, 1, 2});
  world.time.run_ready();
  CHECK(first.result() == 2);
  CHECK_FALSE(second.is_finished());

  SECTION("the master has forgotten it") {
    channel = open_again(7);
    CHECK(ask()->sender == 77);
    give(channel, 78);
    CHECK(second.error() == StateErrc::outcome_unknown);
    CHECK_FALSE(event());
    Sent::send(world, remote, map.hash(), set_key("key00", "c"));
    world.time.run_ready();
    CHECK(event()->number == 1);
  }
  SECTION("the master is another one") {
    channel = open_again(8);
    CHECK(second.error() == StateErrc::outcome_unknown);  // whatever sender it will give
    give(channel, 77);
    Sent::send(world, remote, map.hash(), set_key("key00", "c"));
    world.time.run_ready();
    CHECK(event()->number == 1);
  }
  SECTION("the link is lost before the sender comes") {
    channel = open_again(7);
    channel = open_again(7);
    CHECK(ask()->sender == 77);
    give(channel, 77);
    CHECK(event()->number == 2);
  }
}

TEST_CASE(
    "guarantee 5: a client that comes back before its lost link is noticed goes on as the same sender") {
  World world;
  const Handle handle = world.host();
  RawSender lost(world, handle.hash());
  CHECK(lost.answer_of(1, set_key("key00", "a")) == 1);
  CHECK(lost.answer_of(2, set_key("key00", "b")) == 2);
  RawSender back(world, handle.hash(), lost.sender);
  CHECK(back.sender == lost.sender);
  CHECK(back.answer_of(2, set_key("key00", "b")) == 2);
  CHECK(back.answer_of(3, set_key("key00", "c")) == 3);
  // What was still under way on the lost link takes effect once.
  CHECK(lost.answer_of(3, set_key("key00", "c")) == 3);
  CHECK(world.runs == Texts{"a", "b", "c"});
  lost.peer->abort();
  world.time.run_ready();
  CHECK(back.answer_of(4, set_key("key00", "d")) == 4);
}

TEST_CASE("guarantee 5: channels that send no event take no place among the senders") {
  ServerCoreOptions options;
  options.limits.senders_per_map = 1;
  World world(options);
  const Handle handle = world.host();
  RawSender idle(world, handle.hash());
  CHECK(idle.answer_of(1, set_key("key00", "a")) == 1);
  idle.peer->abort();
  world.time.run_ready();
  std::vector<std::unique_ptr<Follower>> followers;
  for (int i = 0; i < 5; ++i) {
    const auto remote = world.connect();
    Map map = world.make_map(remote);
    CHECK(map.sync() == 1);
    followers.push_back(std::make_unique<Follower>(std::move(map), ReplicaOptions{}));
    REQUIRE(followers.back()->wait_for(1, 1s));
  }
  RawSender back(world, handle.hash(), idle.sender);
  CHECK(back.sender == idle.sender);
  CHECK(back.answer_of(1, set_key("key00", "a")) == 1);
}

TEST_CASE("guarantee 5: a link that asks for senders over and over takes one place of them") {
  ServerCoreOptions options;
  options.limits.senders_per_map = 3;
  World world(options);
  const Handle handle = world.host();
  RawSender idle(world, handle.hash());
  CHECK(idle.answer_of(1, set_key("key00", "a")) == 1);
  idle.peer->abort();
  world.time.run_ready();
  const auto peer = connect_raw(world.time, *world.port, password);
  for (protocol::ChannelId channel = 1; channel <= 100; ++channel) {
    peer->send(open_of(handle.hash(), channel));
    peer->send(protocol::GetSender{channel, channel % 3 == 0 ? channel : 0});
    peer->send(protocol::CloseChannel{channel});
    world.time.run_ready();
  }
  const auto given = peer->all<protocol::SenderMessage>();
  CHECK(given.size() == 100);
  RawSender back(world, handle.hash(), idle.sender);
  CHECK(back.sender == idle.sender);
  CHECK(back.answer_of(1, set_key("key00", "a")) == 1);
  // The last of them is remembered, in case its client comes back.
  CHECK(RawSender(world, handle.hash(), given[99].sender).sender == given[99].sender);
  CHECK(RawSender(world, handle.hash(), given[98].sender).sender != given[98].sender);
}

TEST_CASE("guarantee 5: `unavailable` means certainly not run, `outcome_unknown` that it may have run") {
  World world;
  const auto remote = world.connect();
  const Map map = world.make_map(remote, 1);

  SECTION("never sent") {
    world.port->set_unreachable(true);
    world.port->cut_all();
    world.time.advance(1s);
    CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "a")); }) == StateErrc::unavailable);
    world.port->set_unreachable(false);
    REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
    world.time.advance(60s);
    CHECK(world.runs.empty());
  }
  SECTION("not sent, because the sender that was asked for did not come") {
    world.port->faults().is_server_deaf = true;
    CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "a")); }) == StateErrc::unavailable);
    world.port->faults().is_server_deaf = false;
    world.port->resume_reading();
    world.time.advance(120s);
    CHECK(world.runs.empty());
    CHECK(remote->send_event(map.hash(), set_key("key00", "b")).update_id == 1);
  }
  SECTION("sent, not answered, and it did not run") {
    get_sender(world, remote, map);
    world.port->faults().is_server_deaf = true;
    CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "a")); }) ==
          StateErrc::outcome_unknown);
    CHECK(world.runs.empty());
    world.port->cut_all();
    world.time.run_ready();
    world.port->faults().is_server_deaf = false;
    // Whoever gave up does not expect it to run later on.
    world.time.advance(120s);
    CHECK(world.runs.empty());
    CHECK(remote->send_event(map.hash(), set_key("key00", "b")).update_id == 1);
    CHECK(world.runs == Texts{"b"});
  }
  SECTION("sent, not answered, and it did run") {
    get_sender(world, remote, map);
    world.port->faults().is_client_deaf = true;
    CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "a")); }) ==
          StateErrc::outcome_unknown);
    CHECK(world.runs == Texts{"a"});
    world.port->faults().is_client_deaf = false;
    world.port->resume_reading();
    world.time.advance(120s);
    CHECK(remote->send_event(map.hash(), set_key("key00", "b")).update_id == 2);
    CHECK(world.runs == Texts{"a", "b"});
  }
}

TEST_CASE("guarantee 5: who sent an event reads its effect with set_update_id or wait_for") {
  World world;
  const auto remote = world.connect();
  Map map = world.make_map(remote, 2);
  Follower replica(Map(map), {});
  for (int i = 0; i < 20; ++i) {
    const std::string value = std::to_string(i);
    const Position at = remote->send_event(map.hash(), set_key("key00", value));
    CHECK(map.set_update_id(at) == at.update_id);
    CHECK(map.position() == at);
    CHECK(map.at("key00") == value);
    REQUIRE(replica.wait_for(at, 1s));
    CHECK(replica.view().position() == at);
    CHECK(replica.view().at("key00") == value);
    remote->send_event(map.hash(), set_key("key01", value));
  }
  CHECK_FALSE(replica.wait_for(1'000, 1s));
}

}  // namespace syncstate::testing::g05_events_test
