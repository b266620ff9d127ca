// Who may do what: the authorizer is asked for each action, and what it refuses is `forbidden` and costs nobody else.
#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::authorizer_test {
namespace {

constexpr std::array ordinary_actions{Action::init, Action::follow, Action::fetch, Action::send_event};

/// Allows the ordinary actions but those that are listed to everybody, and all of them to the owner of 127.0.0.1.
struct Rules {
  std::vector<Action> refused;
  std::vector<std::tuple<std::string, Action, MapHash>> asked{};

  ServerCoreOptions options() {
    ServerCoreOptions options;
    options.authorizer = [this](const Peer& peer, Action action, const MapHash& map) {
      asked.emplace_back(peer.address, action, map);
      const auto is_in = [action](const auto& list) {
        return std::find(list.begin(), list.end(), action) != list.end();
      };
      return is_in(ordinary_actions) && (peer.address == "127.0.0.1" || !is_in(refused));
    };
    return options;
  }
  [[nodiscard]] bool was_asked(const std::string& address, Action action, const MapHash& map) const {
    return std::find(asked.begin(), asked.end(), std::tuple(address, action, map)) != asked.end();
  }
};

constexpr const char* guest_address = "198.51.100.1";

std::shared_ptr<Remote> connect_guest(World& world) {
  return std::make_shared<Remote>(world.time, world.port, RemoteCoreOptions{.password = password, .seed = 2},
                                  guest_address);
}

/// A guest's map that equals the one that is hosted.
Map guest_map(World& world, const std::shared_ptr<Remote>& guest, std::size_t keys = 4) {
  return world.make_map(guest, keys);
}

}  // namespace

TEST_CASE("the authorizer of the documentation allows no action that it does not name") {
  const Authorizer authorizer = [](const Peer& peer, Action action, const MapHash&) {
    switch (action) {
      case Action::init:
      case Action::follow:
      case Action::fetch: return true;
      case Action::send_event: return peer.certificate_subject == "CN=dispatcher";
    }
    return false;  // an action of a later version
  };
  const Peer guest{.address = guest_address};
  const Peer dispatcher{.address = guest_address, .certificate_subject = "CN=dispatcher"};
  const auto allowed_to = [&](const Peer& peer) {
    std::vector<int> allowed;
    for (int number = 0; number < 256; ++number) {
      if (authorizer(peer, static_cast<Action>(number), MapHash())) allowed.push_back(number);
    }
    return allowed;
  };
  CHECK(allowed_to(guest) == std::vector<int>{0, 1, 2});
  CHECK(allowed_to(dispatcher) == std::vector<int>{0, 1, 2, 3});
  CHECK(to_string(static_cast<Action>(4)) == "unknown");
}

TEST_CASE("a peer that may not init a map is told forbidden, and may use one that is hosted") {
  Rules rules{{Action::init}};
  World world(rules.options());
  const auto guest = connect_guest(world);
  Map map(guest);
  push_keys(map, 4);
  CHECK(error_of([&] { map.freeze(); }) == StateErrc::forbidden);
  CHECK(map.is_frozen());
  CHECK(rules.was_asked(guest_address, Action::init, map.hash()));
  CHECK(guest->status().state == LinkState::live);  // the link itself is well
  CHECK(guest->hosted().empty());

  const Map owners = world.make_map(world.connect());
  CHECK_NOTHROW(map.freeze());
  CHECK(guest->send_event(map.hash(), set_key("key01", "x")).update_id == 1);
  CHECK(map.sync() == 1);
}

TEST_CASE("a peer that may not follow reads by asking, and sends events") {
  Rules rules{{Action::follow}};
  World world(rules.options());
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  Map map = guest_map(world, guest);
  Follower replica{Map(map)};
  CHECK(world.wait([&] { return replica.status().state == LinkState::failed; }));
  CHECK(replica.status().reason == StateErrc::forbidden);
  CHECK(guest->status().state == LinkState::live);
  CHECK(guest->send_event(map.hash(), set_key("key01", "x")).update_id == 1);
  CHECK(map.sync() == 1);
  CHECK(map.at("key01") == "x");
  CHECK(replica.view().at("key01") == "-");  // readable all the same

  // Allowed later, it follows without anybody's doing.
  rules.refused.clear();
  CHECK(world.wait([&] { return replica.view().at("key01") == "x"; }));
  CHECK(replica.status().state == LinkState::live);
}

TEST_CASE("a peer that may not fetch follows, and sees nothing listed") {
  Rules rules{{Action::fetch}};
  World world(rules.options());
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  Map map = guest_map(world, guest);
  CHECK(error_of([&] { map.sync(); }) == StateErrc::forbidden);
  CHECK(error_of([&] { map.set_update_id(7); }) == StateErrc::forbidden);
  CHECK(error_of([&] { (void)guest->head(map); }) == StateErrc::forbidden);
  CHECK(error_of([&] { (void)guest->attach<std::string, std::string>(handle.hash()); }) ==
        StateErrc::forbidden);
  CHECK(guest->hosted().empty());
  CHECK(world.connect()->hosted().size() == 1);
  Follower replica{std::move(map)};
  CHECK(handle.modify([](Map& state) { state.set("key02", "y"); }).update_id == 1);
  CHECK(replica.wait_for(1, 10s));
}

TEST_CASE("an event that is forbidden runs no hook, and the next one may") {
  Rules rules{{Action::send_event}};
  World world(rules.options());
  const Handle handle = world.host();
  const auto guest = connect_guest(world);
  Map map = guest_map(world, guest);
  CHECK(error_of([&] { guest->send_event(map.hash(), set_key("key01", "no")); }) == StateErrc::forbidden);
  CHECK(world.runs.empty());
  CHECK(handle.update_id() == 0);
  rules.refused.clear();
  CHECK(guest->send_event(map.hash(), set_key("key01", "yes")).update_id == 1);
  CHECK(world.runs == std::vector<std::string>{"yes"});
}

TEST_CASE("a repeat of a forbidden event gets its old answer, whatever is allowed by then") {
  Rules rules{{Action::send_event}};
  World world(rules.options());
  const Handle handle = world.host();
  const auto peer = connect_raw(world.time, *world.port, password, guest_address);
  peer->send(open_of(handle.hash()));
  peer->send(protocol::GetSender{1, 0});
  world.time.run_ready();
  const SerializedEvent event = serialize_event(set_key("key01", "x"));
  const auto send = [&](std::uint64_t number) {
    peer->forget();
    peer->send(protocol::EventType{1, event.type_name});
    protocol::EventMessage message;
    message.channel = 1;
    message.number = number;
    message.bytes = event.bytes;
    peer->send(message);
    world.time.run_ready();
    const auto error = peer->find<protocol::AnswerError>();
    return error ? error->reason : StateErrc{};
  };
  CHECK(send(1) == StateErrc::forbidden);
  rules.refused.clear();
  CHECK(send(1) == StateErrc::forbidden);
  CHECK(send(2) == StateErrc{});
  CHECK(world.runs.size() == 1);
}

TEST_CASE("a peer that may do nothing with a map can't tell whether it is hosted") {
  Rules rules{{Action::init, Action::follow, Action::fetch, Action::send_event}};
  World world(rules.options());
  const auto guest = connect_guest(world);
  const auto freeze_error = [&](std::size_t keys) {
    Map map(guest);
    push_keys(map, keys);
    return error_of([&] { map.freeze(); });
  };
  const Handle handle = world.host(4);
  CHECK(freeze_error(4) == StateErrc::forbidden);
  CHECK(freeze_error(5) == StateErrc::forbidden);
  CHECK(error_of([&] { (void)guest->attach<std::string, std::string>(handle.hash()); }) ==
        StateErrc::forbidden);
  CHECK(error_of([&] { (void)guest->attach<std::string, std::string>(MapHash()); }) == StateErrc::forbidden);
  CHECK(handle.update_id() == 0);
}

TEST_CASE("who waits for another's upload, and may not init, is not asked to take it over") {
  Rules rules{{Action::init}};
  World world(rules.options());
  const protocol::Open open = open_of(make_master(4).hash());
  const auto owner = connect_raw(world.time, *world.port, password, "127.0.0.1");
  owner->send(open);
  world.time.run_ready();
  REQUIRE(owner->find<protocol::UploadWanted>());
  const auto guest = connect_raw(world.time, *world.port, password, guest_address);
  guest->send(open);
  world.time.run_ready();
  CHECK_FALSE(guest->find<protocol::Refused>());
  owner->abort();
  world.time.run_ready();
  CHECK_FALSE(guest->find<protocol::UploadWanted>());
  REQUIRE(guest->find<protocol::Refused>());
  CHECK(guest->find<protocol::Refused>()->reason == StateErrc::forbidden);
  // The map is free for whoever may bring it.
  CHECK_NOTHROW(world.make_map(world.connect()));
}

TEST_CASE("following, a diff and the head are asked about each time, not when the channel was opened") {
  Rules rules{{}};
  World world(rules.options());
  const Handle handle = world.host();
  const auto peer = connect_raw(world.time, *world.port, password, guest_address);
  peer->send(open_of(handle.hash()));
  world.time.run_ready();
  REQUIRE(peer->find<protocol::Opened>());
  rules.refused = {Action::follow, Action::fetch};
  peer->send(protocol::GetUpdateId{2, 1});
  peer->send(protocol::GetDiff{3, 1, {}, 1});
  protocol::Follow follow;
  follow.channel = 1;
  follow.mode = protocol::FollowMode::merged;
  peer->send(follow);
  world.time.run_ready();
  const auto refused = peer->all<protocol::Refused>();
  REQUIRE(refused.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(refused[i].reason == StateErrc::forbidden);
  CHECK(refused[0].channel == 2);
  CHECK(refused[1].channel == 3);
  CHECK(refused[2].channel == 1);
  handle.modify([](Map& map) { map.set("key01", "secret"); });
  world.time.run_ready();
  CHECK_FALSE(peer->find<protocol::DiffMessage>());
  CHECK_FALSE(peer->find<protocol::Step>());
  CHECK(peer->is_open());
}

TEST_CASE("each request asks for its own action, whatever else is allowed") {
  // Every set of actions, so that each action is allowed alone and refused alone.
  const auto bits = GENERATE(range(0u, 16u));
  std::vector<Action> refused;
  for (std::size_t i = 0; i < ordinary_actions.size(); ++i) {
    if ((bits >> i & 1) == 0) refused.push_back(ordinary_actions[i]);
  }
  const auto may = [&](Action action) {
    return std::find(refused.begin(), refused.end(), action) == refused.end();
  };
  const bool may_any = refused.size() < ordinary_actions.size();
  CAPTURE(may(Action::init), may(Action::follow), may(Action::fetch), may(Action::send_event));
  Rules rules{{}};
  World world(rules.options());
  const Handle handle = world.host(4);
  const MapHash unknown = make_master(5).hash();
  const auto peer = connect_raw(world.time, *world.port, password, guest_address);
  // Channels 1, 2 and 3 are open from a time when everything was allowed.
  for (protocol::ChannelId channel = 1; channel <= 3; ++channel) peer->send(open_of(handle.hash(), channel));
  peer->send(protocol::GetSender{1, 0});
  const SerializedEvent event = serialize_event(set_key("key01", "x"));
  peer->send(protocol::EventType{1, event.type_name});
  world.time.run_ready();
  REQUIRE(peer->all<protocol::Opened>().size() == 3);
  rules.refused = refused;
  rules.asked.clear();

  /// Whether a request was refused; `forbidden` is the only reason there is.
  const auto is_refused = [&](protocol::ChannelId id) {
    for (const auto& refusal : peer->all<protocol::Refused>()) {
      if (refusal.channel != id) continue;
      CHECK(refusal.reason == StateErrc::forbidden);
      return true;
    }
    return false;
  };
  protocol::ChannelId last = 3;
  const auto is_open_refused = [&](const MapHash& map, protocol::FollowMode mode) {
    peer->send(open_of(map, ++last, mode));
    world.time.run_ready();
    const bool refuses = is_refused(last);
    if (!refuses) peer->send(protocol::CloseChannel{last});
    world.time.run_ready();
    return refuses;
  };
  CHECK(is_open_refused(handle.hash(), protocol::FollowMode::none) == !may_any);
  CHECK(is_open_refused(handle.hash(), protocol::FollowMode::merged) == !may(Action::follow));
  CHECK(is_open_refused(handle.hash(), protocol::FollowMode::every_step) == !may(Action::follow));
  CHECK(is_open_refused(unknown, protocol::FollowMode::none) == !may(Action::init));
  CHECK(is_open_refused(unknown, protocol::FollowMode::merged) ==
        !(may(Action::init) && may(Action::follow)));

  peer->send(protocol::GetUpdateId{++last, 2});
  world.time.run_ready();
  CHECK(is_refused(last) == !may(Action::fetch));
  CHECK(peer->find<protocol::UpdateIdMessage>().has_value() == may(Action::fetch));

  peer->send(protocol::GetDiff{++last, 2, {}, 1});
  world.time.run_ready();
  CHECK(is_refused(last) == !may(Action::fetch));

  protocol::Fetch fetch;
  fetch.request = ++last;
  fetch.hash = handle.hash();
  fetch.key_type = fetch.value_type = type_name<std::string>();
  peer->send(fetch);
  world.time.run_ready();
  CHECK(is_refused(last) == !may(Action::fetch));
  CHECK(peer->find<protocol::StateEnd>().has_value() == may(Action::fetch));

  peer->send(protocol::List{++last});
  world.time.run_ready();
  REQUIRE(peer->find<protocol::Hosted>());
  CHECK(!peer->find<protocol::Hosted>()->maps.empty() == may(Action::fetch));

  protocol::EventMessage message;
  message.channel = 1;
  message.number = 1;
  message.bytes = event.bytes;
  peer->send(message);
  world.time.run_ready();
  CHECK(peer->find<protocol::Answer>().has_value() == may(Action::send_event));
  CHECK(peer->find<protocol::AnswerError>().has_value() == !may(Action::send_event));
  CHECK(world.runs.size() == (may(Action::send_event) ? 1 : 0));

  protocol::Follow follow;
  follow.channel = 3;
  follow.mode = protocol::FollowMode::merged;
  peer->send(follow);
  world.time.run_ready();
  CHECK(is_refused(3) == !may(Action::follow));
  handle.modify([](Map& map) { map.set("key02", "secret"); });
  world.time.run_ready();
  // Channel 2 followed nothing, and the diff that was asked for came before the change.
  const auto diffs = peer->all<protocol::DiffMessage>();
  const auto is_of_3 = [](const protocol::DiffMessage& diff) { return diff.stream == 3; };
  const auto is_step_of_3 = [](const protocol::Step& step) { return step.stream == 3; };
  const auto steps = peer->all<protocol::Step>();
  const bool shows = std::any_of(diffs.begin(), diffs.end(), is_of_3) ||
                     std::any_of(steps.begin(), steps.end(), is_step_of_3);
  CHECK(shows == may(Action::follow));

  // What is open is closed by a recheck, unless its own action is allowed.
  peer->forget();
  world.server->recheck();
  world.time.run_ready();
  CHECK(is_refused(1) == !may_any);
  CHECK(is_refused(2) == !may_any);
  CHECK_FALSE(is_refused(3));  // refused before, or it follows
  CHECK(peer->is_open());
}

TEST_CASE("an upload is taken back by a recheck only from a peer that may not init") {
  const auto bits = GENERATE(range(0u, 16u));
  Rules rules{{}};
  World world(rules.options());
  const auto peer = connect_raw(world.time, *world.port, password, guest_address);
  peer->send(open_of(make_master(4).hash()));
  world.time.run_ready();
  REQUIRE(peer->find<protocol::UploadWanted>());
  for (std::size_t i = 0; i < ordinary_actions.size(); ++i) {
    if ((bits >> i & 1) == 0) rules.refused.push_back(ordinary_actions[i]);
  }
  const bool may_init = (bits & 1) != 0;  // `init` is the first of them
  CAPTURE(bits);
  world.server->recheck();
  world.time.run_ready();
  CHECK(peer->find<protocol::Refused>().has_value() == !may_init);
}

TEST_CASE("where uploads are refused, the map that has the same keys is named only to who may fetch it") {
  Rules rules{{Action::fetch}};
  ServerCoreOptions options = rules.options();
  options.allow_uploads = false;
  World world(options);
  const Handle handle = world.host(4);
  const auto freeze_error = [&](const std::shared_ptr<Remote>& remote) {
    Map other(remote);
    push_keys(other, 4, "another initial value");
    return error_of([&] { other.freeze(); });
  };
  CHECK(freeze_error(connect_guest(world)) == StateErrc::not_hosted);
  CHECK(freeze_error(world.connect()) == StateErrc::hash_mismatch);
}

TEST_CASE("an authorizer that throws has refused, and on_error is told") {
  ServerCoreOptions options;
  std::size_t reports = 0;
  options.authorizer = [](const Peer&, Action, const MapHash&) -> bool {
    throw std::runtime_error("no idea");
  };
  options.on_error = [&](const std::exception_ptr&) { ++reports; };
  World world(options);
  const auto remote = world.connect();
  Map map(remote);
  push_keys(map, 4);
  CHECK(error_of([&] { map.freeze(); }) == StateErrc::forbidden);
  CHECK(reports > 0);
  CHECK(remote->status().state == LinkState::live);
}

}  // namespace syncstate::testing::authorizer_test
