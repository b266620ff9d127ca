// What becomes of links that are through when passwords, certificates or the authorizer's answers change.
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::living_links_test {
namespace {

constexpr const char* guest_address = "198.51.100.1";

/// What guests may do; the owner of 127.0.0.1 may do everything.
struct Rights {
  bool init = true;
  bool follow = true;
  bool fetch = true;
  bool send_event = true;
  std::vector<std::size_t> indices{};  ///< the password index of each peer that was asked about

  ServerCoreOptions options() {
    ServerCoreOptions options;
    options.authorizer = [this](const Peer& peer, Action action, const MapHash&) {
      indices.push_back(peer.password_index);
      const bool is_owner = peer.address == "127.0.0.1";
      switch (action) {
        case Action::init: return is_owner || init;
        case Action::follow: return is_owner || follow;
        case Action::fetch: return is_owner || fetch;
        case Action::send_event: return is_owner || send_event;
      }
      return false;
    };
    return options;
  }
};

std::shared_ptr<Remote> connect_guest(World& world, const std::string& word = password,
                                      std::uint64_t seed = 2) {
  return std::make_shared<Remote>(world.time, world.port, RemoteCoreOptions{.password = word, .seed = seed},
                                  guest_address);
}

bool is_live(const std::shared_ptr<Remote>& remote) { return remote->status().state == LinkState::live; }

bool is_of_guest(const Peer& peer) { return peer.address == guest_address; }

}  // namespace

// disconnect

TEST_CASE(
    "disconnect ends the links that are meant, and clients with a current password are back in a second") {
  World world;
  const Handle handle = world.host();
  const auto owner = world.connect();
  const auto guest = connect_guest(world);
  const Map map = world.make_map(owner);
  Follower follower{world.make_map(guest)};
  REQUIRE(world.wait([&] { return follower.status().state == LinkState::live; }));
  const auto connections = world.port->connections();
  CHECK(world.server->disconnect(is_of_guest) == 1);
  REQUIRE(world.wait([&] { return !is_live(guest); }, 1s));
  CHECK(guest->status().state == LinkState::stale);  // lost, and not refused
  CHECK(guest->status().reason == StateErrc::link_closed);
  CHECK(is_live(owner));
  REQUIRE(world.wait([&] { return is_live(guest); }, 1s));
  CHECK(world.port->connections() == connections + 1);
  CHECK(owner->send_event(map.hash(), set_key("key01", "x")).update_id == 1);
  CHECK(follower.wait_for(1, 10s));
  CHECK(world.server->disconnect([](const Peer&) { return false; }) == 0);
}

TEST_CASE("disconnect after a new password throws out the clients that do not know it") {
  World world;
  const auto stale = connect_guest(world, password);
  REQUIRE(world.wait([&] { return is_live(stale); }));
  world.server->set_passwords({"the new one", password});
  const auto fresh = connect_guest(world, "the new one", 3);
  REQUIRE(world.wait([&] { return is_live(fresh); }));
  world.server->set_passwords({"the new one"}, {password});
  CHECK(is_live(stale));
  // The index is that of the time of the proof: both were 0 then.
  CHECK(world.server->disconnect([](const Peer& peer) { return peer.password_index == 0; }) == 2);
  REQUIRE(world.wait([&] { return stale->status().state == LinkState::failed; }, 2s));
  CHECK(stale->status().reason == StateErrc::unauthorized);
  REQUIRE(world.wait([&] { return is_live(fresh); }, 1s));
}

TEST_CASE("the authorizer and hooks are told which password was proved, also when the order changes later") {
  Rights rights;
  auto options = rights.options();
  options.passwords = {"first", "second"};
  World world(options);
  std::vector<std::size_t> told;
  // World's own hook runs as well; this one is for the context.
  world.restart(std::move(options), false);
  world.server->add_hook([&](Map&, const Change&, const EventContext& from) {
    REQUIRE(from.peer);
    CHECK(from.peer->address == from.peer_address);
    told.push_back(from.peer->password_index);
  });
  world.server->start();
  const Handle handle = world.host();
  const auto by_first = connect_guest(world, "first");
  const auto by_second = connect_guest(world, "second", 3);
  const auto send = [&](const std::shared_ptr<Remote>& remote) {
    Map map = world.make_map(remote);
    remote->send_event(map.hash(), set_key("key01", "x"));
  };
  send(by_first);
  send(by_second);
  CHECK(told == std::vector<std::size_t>{0, 1});
  world.server->set_passwords({"second", "first"});
  rights.indices.clear();
  send(by_second);
  CHECK(told == std::vector<std::size_t>{0, 1, 1});
  CHECK(std::count(rights.indices.begin(), rights.indices.end(), 1U) ==
        static_cast<std::ptrdiff_t>(rights.indices.size()));
  CHECK(world.server->disconnect([](const Peer& peer) { return peer.password_index == 1; }) == 1);
  REQUIRE(world.wait([&] { return !is_live(by_second); }, 1s));
  REQUIRE(world.wait([&] { return is_live(by_second); }, 1s));
  send(by_second);
  CHECK(told == std::vector<std::size_t>{0, 1, 1, 0});
}

TEST_CASE("disconnect also catches links that have not proved themselves yet") {
  World world;
  const auto early = RawPeer::connect(world.time, *world.port, guest_address);
  const auto bystander = RawPeer::connect(world.time, *world.port, "198.51.100.2");
  CHECK(world.server->disconnect(is_of_guest) == 0);
  const auto late = RawPeer::connect(world.time, *world.port, guest_address);
  CHECK(early->is_open());
  for (const auto& peer : {early, bystander, late}) peer->send_hello(password);
  world.time.run_ready();
  CHECK(early->goodbye() == StateErrc::link_closed);
  CHECK_FALSE(early->is_open());
  CHECK(bystander->is_open());
  CHECK(late->is_open());  // it came after the call
}

TEST_CASE("a test of disconnect is kept only for links that were there") {
  const ErrorHandler ignore = nullptr;
  detail::LiveLinks links;
  const auto held = std::make_shared<int>(0);
  const auto test = [held](const Peer& peer) { return peer.address == "a"; };
  const auto peer = [](const char* address) {
    return std::make_shared<const Peer>(Peer{.address = address});
  };
  CHECK(links.find(test).empty());
  CHECK(held.use_count() == 2);  // nobody was expected: nothing is kept
  const auto first = links.expect();
  const auto second = links.expect();
  const auto refused = links.expect();
  CHECK(links.find(test).empty());
  const auto third = links.expect();
  CHECK(links.waiting_tests() == 1);
  CHECK_FALSE(links.settle(first, nullptr, peer("a"), ignore));
  CHECK(links.settle(third, nullptr, peer("a"), ignore));
  links.closed(second);
  CHECK(links.waiting_tests() == 1);
  links.closed(refused);
  CHECK(links.waiting_tests() == 0);
  CHECK(held.use_count() == 2);
}

TEST_CASE("what a test of disconnect throws ends nothing, or the one link that it was kept for") {
  int reported = 0;
  ServerCoreOptions options;
  options.on_error = [&](const std::exception_ptr&) { ++reported; };
  World world(options);
  const auto guest = connect_guest(world);
  REQUIRE(world.wait([&] { return is_live(guest); }));
  const auto early = RawPeer::connect(world.time, *world.port, "198.51.100.2");
  const auto throwing = [](const Peer&) -> bool { throw std::runtime_error("on purpose"); };
  CHECK_THROWS_AS(world.server->disconnect(throwing), std::runtime_error);
  CHECK(is_live(guest));
  early->send_hello(password);
  world.time.run_ready();
  CHECK(early->is_open());  // the call failed, so nothing of it is kept

  const auto later = RawPeer::connect(world.time, *world.port, "198.51.100.3");
  const auto throws_later = [](const Peer& peer) -> bool {
    if (peer.address == "198.51.100.3") throw std::runtime_error("on purpose");
    return false;
  };
  CHECK(world.server->disconnect(throws_later) == 0);
  later->send_hello(password);
  world.time.run_ready();
  CHECK(later->goodbye() == StateErrc::link_closed);
  CHECK(reported == 1);
}

TEST_CASE("an event that was under way when its link was ended takes effect once, and is answered") {
  World world;
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  Map map = world.make_map(guest);
  for (int i = 0; i < 50; ++i) {
    INFO("after " << i << " steps");
    const auto sent = Sent::send(world, guest, map.hash(), set_key("key01", std::to_string(i)));
    world.run_steps(static_cast<std::size_t>(i));
    world.server->disconnect(is_of_guest);
    REQUIRE(world.wait([&] { return sent.is_finished(); }, 5s));
    REQUIRE(sent.result() == static_cast<UpdateId>(i) + 1);
  }
  CHECK(world.runs.size() == 50);
}

// set_password

TEST_CASE("a call after set_password waits for the new proof, and does not hear how the former one ended") {
  World world;
  const Handle handle = world.host();
  const auto guest = connect_guest(world, "wrong");
  REQUIRE(world.wait([&] { return guest->status().state == LinkState::failed; }));
  CHECK(error_of([&] { world.make_map(guest); }) == StateErrc::unauthorized);
  guest->set_password(password);
  CHECK_NOTHROW(world.make_map(guest));
  CHECK(is_live(guest));
}

TEST_CASE("set_password while a connection is being made proves the new password, once") {
  World world;
  const Handle handle = world.host();
  for (int steps = 0; steps < 12; ++steps) {
    INFO("after " << steps << " steps");
    const auto guest = connect_guest(world, "retired", static_cast<std::uint64_t>(steps) + 2);
    world.server->set_passwords({password}, {"retired"});  // so that guesses bar nobody
    world.run_steps(static_cast<std::size_t>(steps));
    guest->set_password(password);
    REQUIRE(world.wait([&] { return is_live(guest); }, 1s));
    REQUIRE(world.wait([&] { return world.server->core().link_count() == 1; }, 1s));
  }
}

// recheck

TEST_CASE("recheck stops the diffs of a client that may not follow any longer, and gives them back") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  Follower follower{world.make_map(guest)};
  Follower owners{world.make_map(world.connect())};
  REQUIRE(world.wait([&] {
    return follower.status().state == LinkState::live && owners.status().state == LinkState::live;
  }));
  rights.follow = false;
  handle.modify([](Map& state) { state.set("key01", "before"); });
  REQUIRE(follower.wait_for(1, 10s));  // nobody asked again
  world.server->recheck();
  handle.modify([](Map& state) { state.set("key01", "secret"); });
  REQUIRE(world.wait([&] { return follower.status().state == LinkState::failed; }, 1s));
  CHECK(follower.status().reason == StateErrc::forbidden);
  CHECK(owners.wait_for(2, 10s));
  CHECK(follower.view().at("key01") == "before");
  CHECK(is_live(guest));
  // Nothing of it goes out to the guest any more.
  CHECK(guest->send_event(handle.hash(), set_key("key02", "by the guest")).update_id == 3);
  CHECK(follower.view().at("key02") == "-");
  rights.follow = true;
  REQUIRE(world.wait([&] { return follower.view().at("key02") == "by the guest"; }, 61s));
  CHECK(follower.view().at("key01") == "secret");
}

TEST_CASE("recheck closes a channel when nothing is allowed on it, behind the answers to its events") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host();
  const auto peer = connect_raw(world.time, *world.port, password, guest_address);
  peer->send(open_of(handle.hash()));
  world.time.run_ready();
  peer->send(protocol::GetSender{1, 0});
  world.time.run_ready();
  REQUIRE(peer->find<protocol::SenderMessage>());
  const SerializedEvent event = serialize_event(set_key("key01", "x"));
  protocol::EventMessage message;
  message.channel = 1;
  message.bytes = event.bytes;
  peer->send(protocol::EventType{1, event.type_name});
  for (message.number = 1; message.number <= 5; ++message.number) peer->send(message);
  // The events have come, and their hooks have not run.
  REQUIRE(world.wait([&] { return !world.runs.empty(); }, 1s));
  rights = Rights{.init = false, .follow = false, .fetch = false, .send_event = false};
  world.server->recheck();
  world.time.run_ready();
  CHECK(world.runs.size() == 5);
  std::uint64_t answered = 0;
  std::optional<std::uint64_t> answered_before_refusal;
  for (const auto& frame : peer->received()) {
    if (frame.kind == protocol::FrameKind::answer) {
      answered += protocol::decode_body<protocol::Answer>(frame.body).more + 1;
    }
    if (frame.kind == protocol::FrameKind::refused) answered_before_refusal = answered;
  }
  REQUIRE(answered_before_refusal);
  CHECK(*answered_before_refusal == 5);
  CHECK(peer->all<protocol::Refused>().size() == 1);
  CHECK(peer->find<protocol::Refused>()->reason == StateErrc::forbidden);
  CHECK(peer->is_open());
  // Its maps are closed: what is asked there now is refused.
  peer->forget();
  peer->send(protocol::GetUpdateId{2, 1});
  world.time.run_ready();
  CHECK(peer->find<protocol::Refused>());
  CHECK_FALSE(peer->find<protocol::UpdateIdMessage>());
}

namespace {

/// A guest by hand that follows a map on channel 1 and sends events there.
struct SendingGuest {
  SendingGuest(World& world, const MapHash& hash)
      : peer(connect_raw(world.time, *world.port, password, guest_address)) {
    peer->send(open_of(hash, 1, protocol::FollowMode::merged));
    world.time.run_ready();
    peer->send(protocol::GetSender{1, 0});
    world.time.run_ready();
    peer->send(protocol::EventType{1, event.type_name});
    message.channel = 1;
    message.bytes = event.bytes;
  }
  SendingGuest(const SendingGuest&) = delete;
  SendingGuest& operator=(const SendingGuest&) = delete;

  void send_one() {
    ++message.number;
    peer->send(message);
  }
  [[nodiscard]] bool is_refused() const { return peer->find<protocol::Refused>().has_value(); }

  std::shared_ptr<RawPeer> peer;
  SerializedEvent event = serialize_event(set_key("key01", "x"));
  protocol::EventMessage message;
};

}  // namespace

TEST_CASE("a revoked channel takes no more events, so its refusal does not wait for them") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host();
  SendingGuest guest(world, handle.hash());
  // Events are always under way, as from a client that never pauses.
  const auto go_on_until = [&](auto is_reached) {
    for (int i = 0; i < 200; ++i) {
      if (is_reached()) return true;
      guest.send_one();
      world.run_steps(1);
    }
    return false;
  };
  REQUIRE(go_on_until([&] { return world.runs.size() >= 10; }));
  rights.follow = false;
  world.server->recheck();
  REQUIRE(go_on_until([&] { return guest.is_refused(); }));
  world.time.run_ready();
  // What ran is answered, and nothing else is.
  std::uint64_t answered = 0;
  for (const auto& answer : guest.peer->all<protocol::Answer>()) answered += answer.more + 1;
  CHECK(answered == world.runs.size());
  CHECK(answered < guest.message.number);
  CHECK(guest.peer->is_open());
}

TEST_CASE("no diff goes out on a revoked channel while its refusal waits for an event") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host();
  SendingGuest guest(world, handle.hash());
  guest.send_one();
  REQUIRE(world.wait([&] { return !world.runs.empty(); }, 1s));
  rights.follow = false;
  world.server->recheck();
  handle.modify([](Map& state) { state.set("key02", "secret"); });
  REQUIRE(world.wait([&] { return guest.is_refused(); }, 1s));
  CHECK(guest.peer->find<protocol::Answer>());
  for (const auto& frame : guest.peer->received()) {
    CHECK(as_string_view(frame.body).find("secret") == std::string_view::npos);
  }
}

TEST_CASE("an event that was under way when its right was taken has an effect, or is forbidden") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  std::size_t forbidden = 0;
  std::size_t expected_runs = 0;
  for (int i = 0; i < 40; ++i) {
    INFO("after " << i << " steps");
    Map map = world.make_map(guest);
    const auto sent = Sent::send(world, guest, map.hash(), set_key("key01", std::to_string(i)));
    const auto behind = Sent::send(world, guest, map.hash(), set_key("key01", std::to_string(i)));
    world.run_steps(static_cast<std::size_t>(i));
    rights = Rights{.init = false, .follow = false, .fetch = false, .send_event = false};
    world.server->recheck();
    REQUIRE(world.wait([&] { return sent.is_finished() && behind.is_finished(); }, 1s));
    for (const Sent& one : {sent, behind}) {
      const std::error_code error = one.error();
      if (error) CHECK(error == StateErrc::forbidden);
      error ? ++forbidden : ++expected_runs;
    }
    CHECK(world.runs.size() == expected_runs);
    rights = Rights{};
  }
  CHECK(forbidden > 0);
  CHECK(expected_runs > 0);
}

TEST_CASE("a channel that was refused by recheck is open again as soon as somebody asks") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  Map map = world.make_map(guest);
  rights = Rights{.init = false, .follow = false, .fetch = false, .send_event = false};
  world.server->recheck();
  world.time.run_ready();
  CHECK(error_of([&] { guest->send_event(map.hash(), set_key("key01", "x")); }) == StateErrc::forbidden);
  rights = Rights{};
  map.sync();
  CHECK(guest->send_event(map.hash(), set_key("key01", "x")).update_id == 1);
}

TEST_CASE("recheck keeps a channel on which one action is allowed still") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  Map map = world.make_map(guest);
  rights = Rights{.init = false, .follow = false, .fetch = false, .send_event = true};
  const auto connections = world.port->connections();
  world.server->recheck();
  CHECK(guest->send_event(map.hash(), set_key("key01", "x")).update_id == 1);
  CHECK(error_of([&] { map.sync(); }) == StateErrc::forbidden);
  CHECK(world.port->connections() == connections);
}

TEST_CASE("recheck breaks off a transfer of what may not be read any longer") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host(64, std::string(20'000, 'i'));
  const auto peer = connect_raw(world.time, *world.port, password, guest_address);
  peer->send(open_of(handle.hash()));
  world.time.run_ready();
  handle.modify([](Map& state) {
    for (std::size_t i = 0; i < 64; ++i) state.set(key_name(i), std::string(20'000, 's'));
  });
  protocol::Fetch fetch;
  fetch.request = 2;
  fetch.hash = handle.hash();
  fetch.key_type = fetch.value_type = type_name<std::string>();
  peer->send(fetch);
  peer->send(protocol::GetDiff{3, 1, {}, 1});
  // Both are under way.
  REQUIRE(
      world.wait([&] { return peer->find<protocol::StatePiece>() && peer->received_bytes() > 300'000; }, 1s));
  REQUIRE_FALSE(peer->find<protocol::StateEnd>());
  rights.fetch = false;
  world.server->recheck();
  world.time.run_ready();
  CHECK_FALSE(peer->find<protocol::StateEnd>());
  CHECK_FALSE(peer->find<protocol::DiffMessage>());
  const auto refused = peer->all<protocol::Refused>();
  REQUIRE(refused.size() == 2);
  for (const auto& one : refused) CHECK(one.reason == StateErrc::forbidden);
  CHECK(peer->is_open());
}

TEST_CASE("a follower that is refused in the middle of a transfer stages nothing for later") {
  Rights rights;
  World world(rights.options());
  const Handle handle = world.host(64, std::string(20'000, 'i'));
  const auto guest = connect_guest(world);
  Follower follower{world.make_map(guest, 64, std::string(20'000, 'i'))};
  REQUIRE(world.wait([&] { return follower.status().state == LinkState::live; }));
  for (int round = 0; round < 40; ++round) {
    INFO("after " << round << " steps");
    const std::string value(20'000, static_cast<char>('a' + round % 26));
    const UpdateId id = handle.modify([&](Map& state) {
      for (std::size_t i = 0; i < 64; ++i) state.set(key_name(i), value);
    });
    world.run_steps(static_cast<std::size_t>(round) * 2);
    rights.follow = false;
    world.server->recheck();
    REQUIRE(world.wait(
        [&] { return follower.status().state == LinkState::failed || follower.update_id() == id; }));
    rights.follow = true;
    handle.modify([](Map& state) { state.set("key00", "another"); });
    REQUIRE(follower.wait_for(id + 1, 61s));
    REQUIRE(follower.view().at("key00") == "another");
    REQUIRE(follower.view().at("key63") == value);
  }
}

TEST_CASE("recheck takes an upload from a client that may not bring maps any longer, and asks the next one") {
  Rights rights;
  World world(rights.options());
  const protocol::Open open = open_of(make_master(4).hash());
  const auto guest = connect_raw(world.time, *world.port, password, guest_address);
  guest->send(open);
  world.time.run_ready();
  REQUIRE(guest->find<protocol::UploadWanted>());
  const auto second = connect_raw(world.time, *world.port, password, "198.51.100.2");
  second->send(open);
  const auto owner = connect_raw(world.time, *world.port, password, "127.0.0.1");
  owner->send(open);
  world.time.run_ready();
  CHECK_FALSE(owner->find<protocol::UploadWanted>());
  rights.init = false;
  world.server->recheck();
  world.time.run_ready();
  REQUIRE(guest->find<protocol::Refused>());
  CHECK(guest->find<protocol::Refused>()->reason == StateErrc::forbidden);
  // The second one waited with a right that it has not any longer.
  REQUIRE(second->find<protocol::Refused>());
  CHECK(second->find<protocol::Refused>()->reason == StateErrc::forbidden);
  CHECK_FALSE(second->find<protocol::UploadWanted>());
  CHECK(owner->find<protocol::UploadWanted>());
}

TEST_CASE("a map that another client brings is not opened for who lost its rights while it waited") {
  Rights rights;
  rights.init = false;
  auto options = rights.options();
  options.limits.upload_silence = 1s;
  World world(options);
  const auto owner = connect_raw(world.time, *world.port, password, "127.0.0.1");
  const protocol::Open open = open_of(make_master(4).hash());
  owner->send(open);
  world.time.run_ready();
  const auto guest = connect_raw(world.time, *world.port, password, guest_address);
  guest->send(open);
  const auto other = connect_raw(world.time, *world.port, password, "198.51.100.2");
  other->send(open);
  world.time.run_ready();
  CHECK_FALSE(guest->find<protocol::Refused>());
  rights = Rights{.init = false, .follow = false, .fetch = false, .send_event = false};
  world.server->recheck();
  // The owner does not bring it, so the next one is asked.
  CHECK_NOTHROW(world.make_map(world.connect()));
  for (const auto& peer : {guest, other}) {
    CHECK_FALSE(peer->find<protocol::Opened>());
    REQUIRE(peer->find<protocol::Refused>());
    CHECK(peer->find<protocol::Refused>()->reason == StateErrc::forbidden);
  }
}

TEST_CASE("a map that comes while a right to it goes is not opened") {
  Rights rights;
  World world(rights.options());
  const auto owner = connect_raw(world.time, *world.port, password, "127.0.0.1");
  const protocol::Open open = open_of(make_master(4).hash());
  owner->send(open);
  world.time.run_ready();
  REQUIRE(owner->find<protocol::UploadWanted>());
  const auto guest = connect_raw(world.time, *world.port, password, guest_address);
  guest->send(open);
  world.time.run_ready();
  rights = Rights{.init = false, .follow = false, .fetch = false, .send_event = false};
  world.server->recheck();
  owner->abort();
  CHECK_NOTHROW(world.make_map(world.connect()));
  CHECK_FALSE(guest->find<protocol::Opened>());
  CHECK(guest->find<protocol::Refused>());
}

TEST_CASE(
    "a map that another client brings is not opened for a client that lost the right to it while it came") {
  Rights rights;
  World world(rights.options());
  const Map brought = make_master(4);
  protocol::Open open = open_of(brought.hash());
  const auto owner = connect_raw(world.time, *world.port, password, "127.0.0.1");
  owner->send(open);
  world.time.run_ready();
  REQUIRE(owner->find<protocol::UploadWanted>());
  SECTION("as one who follows it") { open.mode = protocol::FollowMode::merged; }
  SECTION("as one who only has it open") {}
  const auto guest = connect_raw(world.time, *world.port, password, guest_address);
  guest->send(open);
  world.time.run_ready();
  CHECK_FALSE(guest->find<protocol::Refused>());
  const bool follows = open.mode != protocol::FollowMode::none;
  rights = Rights{.init = false, .follow = false, .fetch = follows, .send_event = false};
  Bytes state;
  ByteWriter out(state);
  for (const auto& [key, value] : brought) {
    out.put_sized(key);
    out.put_sized(value);
  }
  owner->send(upload_of(state));
  owner->send(protocol::UploadEnd{1});
  world.time.run_ready();
  CHECK(owner->find<protocol::Opened>());
  CHECK_FALSE(guest->find<protocol::Opened>());
  REQUIRE(guest->find<protocol::Refused>());
  CHECK(guest->find<protocol::Refused>()->reason == StateErrc::forbidden);
}

}  // namespace syncstate::testing::living_links_test
