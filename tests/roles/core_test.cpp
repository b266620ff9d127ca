// The server core and the remote core: hosting, opening, sending, ending, over in-process links.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"
#include "syncstate/threads/hook_pool.hpp"
#include "syncstate/threads/thread_executor.hpp"

namespace syncstate::testing::core_test {
namespace {

using Texts = std::vector<std::string>;
using Core = ServerCore<std::string, std::string, Command>;

constexpr auto test_limit = 60s;  // a limit, not a pause: nothing here takes that long

ServerCoreOptions with_password(ServerCoreOptions options = {}) {
  options.passwords = {password};
  return options;
}

/// A core without links, on threads.
std::shared_ptr<Core> make_core(const std::shared_ptr<HookPool>& pool) {
  return Core::create(with_password(), pool);
}

/// A remote on a thread, for a port that belongs to that thread.
class ThreadRemote final : public RemoteClient {
 public:
  ThreadRemote(const std::shared_ptr<Executor>& executor, const std::shared_ptr<inproc::Port>& port)
      : RemoteClient(detail::RemoteCore::create(
            executor, std::make_shared<inproc::PortConnector>(port, executor, "127.0.0.1"),
            RemoteCoreOptions{.password = password})) {
    core().start();
  }
  ~ThreadRemote() { core().stop(); }
  using RemoteClient::core;
};

Map make_map_of(const std::shared_ptr<Remote>& remote, const Texts& keys) {
  Map map(remote);
  for (const std::string& key : keys) map.push(key, "-");
  return map;
}

}  // namespace

// --- Hosting.

TEST_CASE("a process hosts its own map") {
  World world;
  const Handle handle = world.host();
  CHECK(handle.hash() == make_master().hash());
  CHECK(handle.epoch() != 0);
  CHECK(handle.update_id() == 0);
  CHECK(error_of([&] { world.host(); }) == StateErrc::already_hosted);
  CHECK(error_of([&] { world.server->host(Map(Role::master)); }) == StateErrc::unfrozen);

  // A client's equal map is the same one, and not uploaded.
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  CHECK(handle.modify([](Map& m) { m.set("key01", "x"); }).update_id == 1);
  CHECK(map.sync() == 1);
  CHECK(map.epoch() == handle.epoch());
}

TEST_CASE("a hosted replica becomes a master with a fresh epoch and the state it had") {
  World world;
  Map replica(Role::replica);
  push_keys(replica, 4);
  replica.freeze();
  Map master = make_master();
  master.set("key00", "kept");
  master.set("key01", "kept");
  REQUIRE(replica.apply(master.diff(0, 2)));
  const Handle handle = world.server->host(std::move(replica));
  CHECK(handle.epoch() != master.epoch());
  CHECK(handle.update_id() == 2);
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  CHECK(map.sync() == 2);
  CHECK(values_of(map) == Texts{"kept", "kept", "-", "-"});

  // It has no remote any more.
  auto former = world.connect();
  Map followed = make_map_of(former, {"a"});
  followed.freeze(0ms);
  const std::weak_ptr<Remote> weak = std::exchange(former, nullptr);
  world.server->host(std::move(followed));
  CHECK(weak.expired());
}

TEST_CASE("what a server can't host is refused by name") {
  ServerCoreOptions options;
  options.limits.maps = 2;
  options.limits.value_bytes = 100;
  World world(options);
  const std::string longest(100, 'x');
  CHECK(error_of([&] { world.host(1, longest + "x"); }) == StateErrc::too_large);
  world.host(1, longest);
  const Handle handle = world.host(2);
  CHECK(error_of([&] { world.host(3); }) == StateErrc::busy);
  const auto remote = world.connect();
  CHECK(error_of([&] { world.make_map(remote, 3); }) == StateErrc::busy);
  CHECK_NOTHROW(world.make_map(remote, 2));
  CHECK(error_of([&] { world.make_map(remote, 1, longest + "x"); }) != std::error_code());

  // A hook is held to the same limit.
  const auto set = [&](const std::string& value) -> UpdateId {
    return handle.modify([&](Map& map) { map.set("key00", value); });
  };
  CHECK(error_of([&] { set(longest + "x"); }) == StateErrc::too_large);
  const auto send = [&](const std::string& value) -> UpdateId {
    return remote->send_event(handle.hash(), set_key("key00", value));
  };
  CHECK(error_of([&] { send(longest + "x"); }) == StateErrc::too_large);
  CHECK(handle.update_id() == 0);
  CHECK(set(longest) == 1);
  CHECK(send(longest) == 2);
  world.server->stop();
  CHECK(error_of([&] { world.host(4); }) == StateErrc::stopped);
}

TEST_CASE("a server without a password does not start, and takes hooks only before it does") {
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();
  const auto start_with = [&](ServerCoreOptions options) {
    Server server(time, port, std::move(options));
    return error_of([&] { server.start(); });
  };
  CHECK(start_with({}) == StateErrc::invalid_option);
  CHECK(start_with({.passwords = {""}}) == StateErrc::invalid_option);
  CHECK(start_with({.passwords = {"good", ""}}) == StateErrc::invalid_option);
  CHECK(start_with({.passwords = {""}, .allow_empty_password = true}) == std::error_code());

  Server server(time, port, with_password());
  server.add_init_hook([](const Handle&) {});
  server.host(make_master());
  CHECK(error_of([&] { server.add_init_hook([](const Handle&) {}); }) == StateErrc::already_started);
  server.add_hook([](Map&, const Change&) {});
  server.start();
  CHECK(error_of([&] { server.start(); }) == StateErrc::already_started);
  CHECK(error_of([&] { server.add_hook([](Map&, const Change&) {}); }) == StateErrc::already_started);
  CHECK(error_of([&] { server.add_init_hook([](const Handle&) {}); }) == StateErrc::already_started);
  server.stop();
  CHECK(error_of([&] { server.start(); }) == StateErrc::stopped);
}

TEST_CASE("a server takes each of its passwords") {
  ServerCoreOptions options;
  options.passwords = {"new", "old"};
  World world(options);
  for (const char* word : {"new", "old"}) {
    const auto remote = world.connect(RemoteCoreOptions{.password = word});
    CHECK_NOTHROW(world.make_map(remote));
  }
  CHECK(error_of([&] { world.make_map(world.connect(RemoteCoreOptions{.password = "older"})); }) ==
        StateErrc::unauthorized);
}

// --- Init hooks.

TEST_CASE("init hooks run in the order added, once for a map, before anyone sees it") {
  World world;
  world.restart({}, false);
  Texts order;
  for (const std::string name : {"first", "second"}) {
    world.server->add_init_hook([&order, name](const Handle& handle) {
      order.push_back(name);
      handle.modify([&](Map& map) { map.set("key00", map.at("key00") + " " + name); });
    });
  }
  world.server->start();
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  map.sync();
  CHECK(map.at("key00") == "- first second");
  CHECK(map.update_id() == 2);
  const auto other = world.connect();
  CHECK_NOTHROW(world.make_map(other));
  CHECK(order == Texts{"first", "second"});
}

TEST_CASE("an init hook that fails is told to everyone who waits for the map, and may succeed later") {
  World world;
  world.restart({}, false);
  bool is_failing = true;
  std::optional<Handle> kept;
  world.server->add_init_hook([&](const Handle& handle) {
    kept = handle;
    handle.modify([](Map& map) { map.set("key00", "half done"); });
    if (is_failing) throw std::runtime_error("the disk is full");
  });
  world.server->start();
  const auto remote = world.connect();
  const auto other = world.connect();
  Map map = make_map_of(remote, {"key00"});
  Map same = make_map_of(other, {"key00"});
  same.freeze(0ms);
  Follower replica(Map(same), {});
  const auto freeze = [&] { map.freeze(); };
  CHECK(error_of(freeze) == StateErrc::init_failed);
  CHECK(detail_of(freeze) == "the disk is full");
  CHECK(map.is_frozen());
  CHECK(map.at("key00") == "-");
  world.time.run_ready();
  CHECK(replica.status().state == LinkState::failed);
  CHECK(replica.status().reason == StateErrc::init_failed);
  REQUIRE(kept);
  CHECK(error_of([&] { kept->modify([](Map&) {}); }) == StateErrc::stopped);
  CHECK(remote->hosted().empty());
  CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "x")); }) == StateErrc::init_failed);
  CHECK(remote->status().state == LinkState::live);  // one map's misfortune is not the link's

  is_failing = false;
  CHECK_NOTHROW(map.freeze());
  CHECK(map.sync() == 1);
  CHECK(map.at("key00") == "half done");
  // The replica that was refused is served by and by, without being asked to.
  REQUIRE(world.wait([&] { return replica.status().state == LinkState::live; }));
  CHECK(replica.update_id() == 1);
}

TEST_CASE("host reports what an init hook throws, and may be called again") {
  World world;
  world.restart({}, false);
  int calls = 0;
  world.server->add_init_hook([&](const Handle&) {
    if (++calls == 1) throw std::runtime_error("not yet");
    if (calls == 2) throw 1;
  });
  CHECK(error_of([&] { world.host(); }) == StateErrc::init_failed);
  CHECK(error_of([&] { world.host(); }) == StateErrc::init_failed);
  CHECK_NOTHROW(world.host());
}

// --- Uploads and refusals.

TEST_CASE("where uploads are refused a client is told not_hosted, or which key makes the difference") {
  ServerCoreOptions options;
  options.allow_uploads = false;
  World world(options);
  world.host(40);
  const auto remote = world.connect();
  CHECK_NOTHROW(world.make_map(remote, 40));
  CHECK(error_of([&] { world.make_map(remote, 41); }) == StateErrc::not_hosted);
  Map map(remote);
  for (std::size_t i = 0; i < 40; ++i) map.push(key_name(i), i == 17 || i == 30 ? "other" : "-");
  const auto freeze = [&] { map.freeze(); };
  CHECK(error_of(freeze) == StateErrc::hash_mismatch);
  CHECK_THAT(detail_of(freeze), contains_text("key17") && !contains_text("key30"));
  CHECK(map.is_frozen());
  CHECK(remote->status().state == LinkState::live);
}

TEST_CASE("where uploads are allowed, other initial values make just another map") {
  World world;
  const auto remote = world.connect();
  const Map a = world.make_map(remote, 4, "a");
  const Map b = world.make_map(remote, 4, "b");
  CHECK(a.hash() != b.hash());
  CHECK(remote->hosted().size() == 2);
  CHECK(remote->send_event(a.hash(), set_key("key00", "x")).update_id == 1);
  CHECK(remote->send_event(b.hash(), set_key("key00", "y")).update_id == 1);
}

TEST_CASE("an uploaded map is what was frozen, however it is cut into pieces") {
  const std::size_t piece_bytes = GENERATE(1u, 17u, 65'536u);
  World world;
  RemoteCoreOptions options;
  options.limits.piece_bytes = piece_bytes;
  const auto remote = world.connect(options);
  Map map(remote);
  for (std::size_t i = 0; i < 60; ++i) map.push(key_name(i), std::string(i * 3, 'v'));
  map.freeze();
  const auto copy = remote->attach<std::string, std::string>(map.hash());
  CHECK(values_of(copy) == values_of(map));
}

TEST_CASE("a map that a client brings keeps as much of its history as the server says") {
  const std::size_t kept = GENERATE(0u, 3u, 100u);
  ServerCoreOptions options;
  options.map_options.log_diffs = kept;
  World world(options);
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  for (int i = 1; i <= 5; ++i) remote->send_event(map.hash(), set_key("key00", std::to_string(i)));
  INFO("a log of " << kept << " commits");
  CHECK(map.set_update_id(2) == (kept < 5 ? 5 : 2));  // the head, where the log no longer reaches
  CHECK(map.at("key00") == (kept < 5 ? "5" : "2"));
}

TEST_CASE("attach makes a replica of a map that is known by its hash alone") {
  World world;
  const Handle handle = world.host(50, std::string(1'000, 'i'));
  handle.modify([](Map& map) { map.set("key07", "x"); });
  const auto remote = world.connect();
  Map map = remote->attach<std::string, std::string>(handle.hash());
  CHECK(map.hash() == handle.hash());
  CHECK(map.update_id() == 0);
  CHECK(map.at("key07") == std::string(1'000, 'i'));
  CHECK(map.sync() == 1);
  CHECK(map.at("key07") == "x");
  CHECK(remote->send_event(map.hash(), set_key("key07", "y")).update_id == 2);
  Follower replica(std::move(map), {});
  REQUIRE(replica.wait_for(2, 1s));
  CHECK(replica.view().at("key07") == "y");

  CHECK(error_of([&] { static_cast<void>(remote->attach<std::string, std::string>(MapHash())); }) ==
        StateErrc::not_hosted);
  const auto attach_numbers = [&] {
    static_cast<void>(remote->attach<std::string, std::int64_t>(handle.hash()));
  };
  CHECK(error_of(attach_numbers) == StateErrc::type_mismatch);
  CHECK_THAT(detail_of(attach_numbers), contains_text("{string: i64}") && contains_text("{string: string}"));
}

TEST_CASE("hosted lists the maps of the server") {
  World world;
  const auto remote = world.connect();
  CHECK(remote->hosted().empty());
  std::vector<MapHash> hashes;
  // More than a server looks at in a row, twice.
  constexpr std::size_t count = 150;
  for (std::size_t keys = 1; keys <= count; ++keys) hashes.push_back(world.host(keys).hash());
  const auto maps = remote->hosted();
  REQUIRE(maps.size() == count);
  for (const auto& map : maps) {
    CHECK(map.key_type == type_name<std::string>());
    CHECK(map.value_type == type_name<std::string>());
    REQUIRE((map.keys >= 1 && map.keys <= count));
    CHECK(map.hash == std::exchange(hashes[map.keys - 1], MapHash()));  // each once
  }
}

// --- Freeze, sync and the network.

TEST_CASE("freeze without time closes the key set and asks nobody") {
  World world;
  const auto remote = world.connect();
  Map map = make_map_of(remote, {"a", "b"});
  map.freeze(0ms);
  CHECK(map.is_frozen());
  world.time.run_ready();
  CHECK(remote->hosted().empty());
  CHECK(error_of([&] { remote->send_event(map.hash(), set_key("a", "x")); }) == StateErrc::not_hosted);
  map.freeze();
  CHECK(remote->hosted().size() == 1);
  CHECK(remote->send_event(map.hash(), set_key("a", "x")).update_id == 1);
}

TEST_CASE("freeze without a server ends as unavailable, with the map frozen, and the remote goes on trying") {
  World world;
  world.port->set_unreachable(true);
  const auto remote = world.connect();
  Map map = make_map_of(remote, {"a", "b"});
  const TimePoint start = world.time.now();
  CHECK(error_of([&] { map.freeze(); }) == StateErrc::unavailable);
  CHECK(world.time.now() - start == 5s);
  CHECK(map.is_frozen());
  CHECK(map.at("a") == "-");
  CHECK(remote->status().state == LinkState::connecting);
  CHECK(error_of([&] { map.freeze(1s); }) == StateErrc::unavailable);
  CHECK(error_of([&] { map.sync(); }) == StateErrc::unavailable);
  CHECK(error_of([&] { static_cast<void>(remote->hosted()); }) == StateErrc::unavailable);
  CHECK(map.update_id() == 0);

  world.port->set_unreachable(false);
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  world.time.run_ready();
  CHECK(remote->hosted().size() == 1);  // what freeze began was done meanwhile
  CHECK_NOTHROW(map.freeze());
  CHECK(remote->send_event(map.hash(), set_key("a", "x")).update_id == 1);
  CHECK(map.sync() == 1);

  // Unavailable again: the map stays as it is.
  world.port->set_unreachable(true);
  world.port->cut_all();
  CHECK(error_of([&] { map.sync(); }) == StateErrc::unavailable);
  CHECK(error_of([&] { map.set_update_id(5); }) == StateErrc::unavailable);
  CHECK(map.set_update_id(1) == 1);  // there already: nobody is asked
  CHECK(map.update_id() == 1);
  CHECK(map.at("a") == "x");
}

TEST_CASE("a server that stops says so, and blocking calls end") {
  World world;
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  world.server->stop();
  world.time.run_ready();
  CHECK(remote->status().state == LinkState::stale);
  CHECK(remote->status().reason == StateErrc::stopped);
  CHECK(error_of([&] { map.sync(); }) == StateErrc::unavailable);
}

TEST_CASE("every step reaches a replica as long as the log does, and merged diffs beyond") {
  World world;
  const Handle handle = world.host(4, "-", MapOptions{.log_diffs = 20});
  const auto remote = world.connect();
  Follower replica(world.make_map(remote), ReplicaOptions{.every_step = true});
  REQUIRE(world.wait([&] { return replica.epoch() != 0; }));
  std::vector<std::pair<UpdateId, UpdateId>> steps;
  replica.on_update(
      [&](const auto& diff) { steps.emplace_back(diff.from_update_id(), diff.upto_update_id()); });
  const auto commit = [&](UpdateId count) {
    for (UpdateId i = 0; i < count; ++i) handle.modify([](Map& map) { map.set("key00", "x"); });
    REQUIRE(replica.wait_for(handle.update_id(), 120s));
    world.time.run_ready();
  };
  commit(20);
  CHECK(steps.size() == 20);
  // While the link is lost the log loses sight of where the replica stands.
  steps.clear();
  world.port->cut_all();
  commit(100);
  REQUIRE_FALSE(steps.empty());
  CHECK(steps.front().first == 20);
  CHECK(steps.back().second == 120);
  CHECK(steps.size() < 100);
  for (std::size_t i = 1; i < steps.size(); ++i) CHECK(steps[i].first == steps[i - 1].second);
}

// --- Several of everything.

TEST_CASE("several maps and replicas share one remote, and several remotes one server") {
  World world;
  std::vector<std::shared_ptr<Remote>> remotes;
  std::vector<std::unique_ptr<Follower>> replicas;
  std::vector<MapHash> hashes;
  for (int r = 0; r < 3; ++r) {
    remotes.push_back(world.connect());
    for (std::size_t keys = 1; keys <= 4; ++keys) {
      const Map map = world.make_map(remotes.back(), keys);
      if (r == 0) hashes.push_back(map.hash());
      for (int i = 0; i < 2; ++i) replicas.push_back(std::make_unique<Follower>(Map(map), ReplicaOptions{}));
    }
  }
  CHECK(world.port->connections() == 3);
  for (std::size_t round = 1; round <= 5; ++round) {
    for (std::size_t m = 0; m < hashes.size(); ++m) {
      const std::string value = std::to_string(m) + "/" + std::to_string(round);
      CHECK(remotes[(m + round) % 3]->send_event(hashes[m], set_key("key00", value)).update_id == round);
    }
    if (round == 3) world.port->cut_all();
    for (const auto& replica : replicas) {
      REQUIRE(replica->wait_for(round, 120s));
      const auto m = replica->view().size() - 1;
      CHECK(replica->view().at("key00") == std::to_string(m) + "/" + std::to_string(round));
    }
  }
}

TEST_CASE("hooks learn where an event comes from, and for which map") {
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();
  Server server(time, port, with_password());
  std::vector<EventContext> contexts;
  server.add_hook([&](Map&, const Change&, const EventContext& context) { contexts.push_back(context); });
  server.start();
  const Handle a = server.host(make_master(1));
  const Handle b = server.host(make_master(2));
  const auto near =
      std::make_shared<Remote>(time, port, RemoteCoreOptions{.password = password}, "192.0.2.7");
  const auto far =
      std::make_shared<Remote>(time, port, RemoteCoreOptions{.password = password}, "2001:db8::1");
  for (const auto& remote : {near, far}) {
    static_cast<void>(remote->attach<std::string, std::string>(a.hash()));
    static_cast<void>(remote->attach<std::string, std::string>(b.hash()));
  }
  near->send_event(a.hash(), set_key("", ""));
  far->send_event(b.hash(), set_key("", ""));
  REQUIRE(contexts.size() == 2);
  CHECK(contexts[0].peer_address == "192.0.2.7");
  CHECK(contexts[0].map == a.hash());
  CHECK(contexts[0].certificate_subject.empty());
  CHECK(contexts[1].peer_address == "2001:db8::1");
  CHECK(contexts[1].map == b.hash());
}

TEST_CASE("a sender with an open link is not forgotten for those that come and go") {
  ServerCoreOptions options;
  options.limits.senders_per_map = 4;
  World world(options);
  const auto remote = world.connect();
  const Map map = world.make_map(remote);
  CHECK(remote->send_event(map.hash(), set_key("key00", "x")).update_id == 1);
  const auto others_come_and_go = [&] {
    for (int i = 0; i < 20; ++i) {
      const auto other = world.connect();
      const Map theirs = world.make_map(other);
      other->send_event(theirs.hash(), Change{{"nothing", "", ""}});
    }
  };
  others_come_and_go();
  CHECK(remote->send_event(map.hash(), set_key("key00", "y")).update_id == 2);
  // Its link lost, it is one of many, and forgotten among them: a new one goes on in its place.
  world.port->set_unreachable(true);
  world.port->cut_all();
  world.time.run_ready();
  world.port->set_unreachable(false);
  others_come_and_go();
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  CHECK(remote->send_event(map.hash(), set_key("key00", "z")).update_id == 3);
}

TEST_CASE("links that come, send events and go gain no more turns than one link") {
  constexpr std::size_t links = 6;
  constexpr std::size_t turn = detail::EventTurns::turn_events;
  World world;
  world.restart({}, false);
  std::function<void()> meanwhile;
  world.server->add_hook([&](Map&, const Change& event) {
    if (event.content.value == "hold") meanwhile();  // the hooks of this map wait for that
  });
  world.server->start();
  const Handle handle = world.host(1);
  const auto join = [&] {
    auto remote = world.connect();
    static_cast<void>(remote->attach<std::string, std::string>(handle.hash()));
    return remote;
  };
  const auto send = [&](const std::shared_ptr<Remote>& remote, const char* value) {
    return Sent::send(world, remote, handle.hash(), Change{{"nothing", "", value}});
  };
  const auto honest = join();
  const auto holder = join();
  meanwhile = [&] {
    for (std::size_t i = 0; i < links; ++i) {
      auto flood = join();
      for (std::size_t n = 0; n < 2 * turn; ++n) send(flood, "flood");
      world.time.run_ready();
      flood.reset();
      world.time.run_ready();
    }
    send(honest, "honest");
    world.time.run_ready();
  };
  send(holder, "hold");
  world.time.run_ready();
  REQUIRE(world.runs.size() == 2 + links * 2 * turn);
  const auto at = std::find(world.runs.begin(), world.runs.end(), "honest") - world.runs.begin();
  CHECK(at <= static_cast<std::ptrdiff_t>(2 * turn));
}

// --- Status.

TEST_CASE("status callbacks hear the status of now and every change, on the remote's own thread") {
  World world;
  world.port->set_unreachable(true);
  const auto remote = world.connect();
  std::vector<LinkState> states;
  std::vector<std::error_code> refused;
  const std::weak_ptr<Remote> weak = remote;
  remote->on_status([&, weak](const LinkStatus& status) {
    states.push_back(status.state);
    const auto self = weak.lock();
    CHECK(self->status() == status);
    refused.push_back(error_of([&] { static_cast<void>(self->hosted()); }));
    throw std::runtime_error("stays with the callback");
  });
  world.time.advance(2s);
  world.port->set_unreachable(false);
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  const TimePoint live_since = remote->status().since;
  world.time.advance(10s);
  CHECK(remote->status().since == live_since);
  world.port->cut_all();
  world.time.run_ready();
  CHECK(remote->status().since == world.time.now());
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  // The first is the status as it was, without a reason; the second says why there is no link.
  CHECK(states == std::vector<LinkState>{LinkState::connecting, LinkState::connecting, LinkState::live,
                                         LinkState::stale, LinkState::live});
  CHECK(std::count(refused.begin(), refused.end(), StateErrc::would_deadlock) ==
        static_cast<std::ptrdiff_t>(refused.size()));
}

TEST_CASE("a status callback hears the last status, whenever it was registered", "[race]") {
  // Registered after each step of the way from no link to a live one and back.
  bool is_under_way = true;
  for (std::size_t steps = 0; is_under_way; ++steps) {
    INFO("after " << steps << " steps");
    World world;
    const auto remote = world.connect();
    const auto replica = std::make_unique<Follower>(
        [&] {
          Map map(remote);
          push_keys(map, 4);
          map.freeze(0ms);
          return map;
        }(),
        ReplicaOptions{});
    world.run_steps(steps);
    is_under_way = replica->status().state != LinkState::live;
    std::vector<LinkStatus> of_remote;
    std::vector<LinkStatus> of_replica;
    remote->on_status([&](const LinkStatus& status) { of_remote.push_back(status); });
    replica->on_status([&](const LinkStatus& status) { of_replica.push_back(status); });
    CHECK(of_remote.empty());  // never on the thread that registers
    CHECK(of_replica.empty());
    world.time.advance(1s);
    REQUIRE_FALSE(of_remote.empty());
    REQUIRE_FALSE(of_replica.empty());
    CHECK(of_remote.back() == remote->status());
    CHECK(of_replica.back() == replica->status());
    CHECK(of_remote.back().state == LinkState::live);
    CHECK(of_replica.back().state == LinkState::live);
    // And every later change, each once.
    const std::size_t heard = of_remote.size();
    world.port->cut_all();
    REQUIRE(world.wait([&] { return remote->status().state == LinkState::stale; }));
    REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
    world.time.advance(10s);
    REQUIRE(of_remote.size() == heard + 2);
    CHECK(of_remote[heard].state == LinkState::stale);
    CHECK(of_remote.back() == remote->status());
    CHECK(of_replica.back() == replica->status());
    CHECK(std::count_if(of_replica.begin(), of_replica.end(),
                        [](const LinkStatus& status) { return status.state == LinkState::stale; }) == 1);
  }
}

TEST_CASE("a view read after on_update, and the diffs told, miss nothing, whenever it was registered",
          "[race]") {
  bool is_under_way = true;
  for (std::size_t steps = 0; is_under_way; ++steps) {
    INFO("after " << steps << " steps");
    World world;
    const Handle handle = world.host();
    const auto remote = world.connect();
    Follower replica(world.make_map(remote), {});
    for (int i = 1; i <= 3; ++i) {
      handle.modify([&](Map& map) { map.set(key_name(static_cast<std::size_t>(i)), std::to_string(i)); });
    }
    world.run_steps(steps);
    handle.modify([&](Map& map) { map.set("key00", "last"); });
    is_under_way = replica.update_id() < 3;
    std::vector<std::pair<UpdateId, std::map<std::string, std::string>>> changes;
    std::vector<std::error_code> reached;
    replica.on_update([&](const auto& diff) {
      auto& [upto, values] = changes.emplace_back();
      upto = diff.upto_update_id();
      for (const auto& [key, value] : diff.changes()) values[key] = value;
    });
    for (UpdateId id = 0; id <= 4; ++id) {
      replica.on_reached(id, [&](std::error_code code) { reached.push_back(code); });
    }
    const auto view = replica.view();
    std::map<std::string, std::string> state;
    for (const auto& [key, value] : view) state[key] = value;
    REQUIRE(replica.wait_for(4, 10s));
    world.time.run_ready();
    for (const auto& [upto, values] : changes) {
      if (upto <= view.update_id()) continue;
      for (const auto& [key, value] : values) state[key] = value;
    }
    for (const auto& [key, value] : replica.view()) CHECK(state[key] == value);
    CHECK(reached == std::vector<std::error_code>(5));
  }
}

TEST_CASE("a status callback of a stopped remote is not called") {
  World world;
  const auto remote = world.connect();
  int calls = 0;
  remote->on_status([&](const LinkStatus&) { ++calls; });
  world.time.advance(1s);
  const int before = calls;
  CHECK(before > 0);
  remote->core().stop();
  remote->on_status([&](const LinkStatus&) { ++calls; });
  world.time.advance(60s);
  CHECK(calls == before);
}

namespace {

/// Runs `call` on virtual time; it fails at once, instead of never, if nothing ends it. Returns how long it took.
template <class F>
Duration time_of(World& world, F&& call) {
  const TimePoint began = world.time.now();
  const auto is_over = std::make_shared<bool>(false);
  world.clock->post_at(began + 1h, [is_over] {
    if (!*is_over) throw std::logic_error("the call was not ended after an hour");
  });
  call();
  *is_over = true;
  return world.time.now() - began;
}

}  // namespace

TEST_CASE("every request ends at its limit, whether there is no link or the server says nothing") {
  ServerCoreOptions server;
  server.limits.silence = 1h;  // the link itself is not given up
  World world(server);
  RemoteCoreOptions options;
  options.request_timeout = 2s;
  options.event_timeout = 3s;
  options.limits.silence = 1h;
  const auto remote = world.connect(options);
  Map map = world.make_map(remote);
  remote->send_event(map.hash(), set_key("key00", "w"));  // from here on events leave at once
  Map fresh(remote);
  push_keys(fresh, 3);
  fresh.freeze(0ms);
  const bool is_linked = GENERATE(true, false);
  if (is_linked) {
    world.port->faults().is_server_deaf = true;
  } else {
    world.port->set_unreachable(true);
    world.port->cut_all();
    world.time.run_ready();
  }
  struct Request {
    const char* name;
    Duration least;
    Duration most;
    std::function<void()> ask;
  };
  const std::vector<Request> requests = {
      {"hosted", 2s, 2s, [&] { (void)remote->hosted(); }},
      {"attach", 2s, 2s, [&] { (void)remote->attach<std::string, std::string>(map.hash()); }},
      {"sync", 2s, 2s, [&] { map.sync(); }},
      {"set_update_id", 2s, 2s, [&] { map.set_update_id(9); }},
      {"head", 2s, 2s, [&] { (void)remote->head(map); }},
      {"freeze", 4s, 4s, [&] { fresh.freeze(4s); }},
      {"send_event", 3s, 3s + 250ms, [&] { remote->send_event(map.hash(), set_key("key00", "x")); }},
  };
  for (const Request& request : requests) {
    INFO(request.name << (is_linked ? " with a link" : " without a link"));
    std::error_code error;
    const Duration took = time_of(world, [&] { error = error_of(request.ask); });
    const bool may_have_run = is_linked && std::string(request.name) == "send_event";
    CHECK(error == (may_have_run ? StateErrc::outcome_unknown : StateErrc::unavailable));
    CHECK(took >= request.least);
    CHECK(took <= request.most);
  }
  // The same of one that nobody waits for in person.
  const Sent sent = Sent::send(world, remote, map.hash(), set_key("key00", "y"));
  CHECK(world.wait([&] { return sent.is_finished(); }, 3s + 250ms));
  CHECK(remote->status().state == (is_linked ? LinkState::live : LinkState::stale));
}

TEST_CASE("what is too late says whether there was a link, and what came of the answer") {
  World world;
  RemoteCoreOptions options;
  options.request_timeout = 2s;
  options.event_timeout = 3s;
  const auto remote = world.connect(options);
  const auto text_of = [](auto&& call) {
    try {
      call();
    } catch (const StateError& error) {
      CHECK((error.code() == StateErrc::unavailable || error.code() == StateErrc::outcome_unknown));
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  SECTION("no link") {
    world.port->set_unreachable(true);
    world.port->cut_all();
    const std::string text = text_of([&] { (void)remote->hosted(); });
    CHECK_THAT(text, contains_text("there was no live link within request_timeout (2000 ms)"));
    CHECK_THAT(text, contains_text("nobody listens"));
    const std::string once = "no server was reached";
    CHECK(text.find(once) == text.rfind(once));
  }
  SECTION("a state that comes too slowly") {
    const MapHash hash = world.host(40, std::string(50'000, 'x')).hash();
    REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
    // One read each half second, as if the line were slow.
    world.port->faults().read_bytes = 100'000;
    world.port->faults().is_client_deaf = true;
    std::function<void()> let_some_through = [&] {
      world.port->faults().is_client_deaf = false;
      world.port->resume_reading();
      world.clock->post([&] { world.port->faults().is_client_deaf = true; });
      world.clock->post_at(world.time.now() + 500ms, [&] { let_some_through(); });
    };
    let_some_through();
    std::string text = text_of([&] { (void)remote->attach<std::string, std::string>(hash); });
    CHECK_THAT(text, contains_text("the link is live"));
    CHECK_THAT(text, contains_text("request_timeout (2000 ms)"));
    const std::size_t at = text.find("; ");
    REQUIRE(at != std::string::npos);
    const long bytes = std::strtol(text.c_str() + at + 2, nullptr, 10);
    CHECK(bytes >= 60'000);
    CHECK(bytes <= 600'000);
    CHECK_THAT(text, contains_text(" bytes of the initial state have come"));
  }
  SECTION("an event without an answer") {
    const Map map = world.make_map(remote);
    world.port->faults().is_server_deaf = true;
    const std::string text = text_of([&] { remote->send_event(map.hash(), set_key("key00", "x")); });
    CHECK_THAT(text, contains_text("event_timeout (3000 ms)"));
  }
}

TEST_CASE("every blocking call is refused on the remote's own thread") {
  World world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  world.time.run_ready();
  std::vector<std::error_code> refused;
  const std::weak_ptr<Remote> weak = remote;  // the callback lives as long as the remote
  remote->on_status([&, weak](const LinkStatus&) {
    const auto self = weak.lock();
    const auto note = [&](auto call) { refused.push_back(error_of(call)); };
    note([&] { map.freeze(); });
    note([&] { map.sync(); });
    note([&] { static_cast<void>(self->head(map)); });
    note([&] { static_cast<void>(self->hosted()); });
    note([&] { static_cast<void>(self->attach<std::string, std::string>(map.hash())); });
    note([&] { self->send_event(map.hash(), set_key("key00", "x")); });
  });
  world.time.run_ready();
  world.port->cut_all();
  world.time.run_ready();
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  REQUIRE(refused.size() >= 12);
  CHECK(std::count(refused.begin(), refused.end(), StateErrc::would_deadlock) ==
        static_cast<std::ptrdiff_t>(refused.size()));
  CHECK(world.runs.empty());
}

// --- What waits while the link is away.

TEST_CASE("what a server refused is asked for again as soon as there is another link") {
  const bool is_map_refused = GENERATE(true, false);  // or only to follow it
  bool is_allowed = false;
  ServerCoreOptions options;
  options.authorizer = [&](const Peer&, Action action, const MapHash&) {
    return is_allowed || (!is_map_refused && action != Action::follow);
  };
  World world(options);
  world.host();
  const auto remote = world.connect();
  Map map = make_map_of(remote, {"key00", "key01", "key02", "key03"});
  map.freeze(0ms);
  Follower replica(std::move(map), {});
  REQUIRE(world.wait([&] { return replica.status().reason == StateErrc::forbidden; }));
  is_allowed = true;
  world.port->cut_all();
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::stale; }));
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  world.time.run_ready();
  CHECK(replica.status().state == LinkState::live);
}

TEST_CASE("what waits for a link ends with the reason when the server refuses it") {
  const auto ends = [](const char* what, auto call) {
    INFO(what);
    World world;
    world.host();
    const auto remote = world.connect();
    Map map = world.make_map(remote);
    world.port->set_unreachable(true);
    world.port->cut_all();
    world.time.run_ready();
    world.server->set_passwords({"another password"});
    const auto executor = world.time.make_executor();
    executor->post_at(world.time.now() + 300ms, [&] { world.port->set_unreachable(false); });
    const TimePoint start = world.time.now();
    CHECK(error_of([&] { call(*remote, map); }) == StateErrc::unauthorized);
    CHECK(world.time.now() - start < 4s);  // before any of them would have been given up
    CHECK(world.runs.empty());
  };
  ends("freeze", [](Remote& remote, Map&) {
    Map another(remote.shared_from_this());
    push_keys(another, 2);
    another.freeze();
  });
  ends("sync", [](Remote&, Map& map) { map.sync(); });
  ends("head", [](Remote& remote, Map& map) { static_cast<void>(remote.head(map)); });
  ends("hosted", [](Remote& remote, Map&) { static_cast<void>(remote.hosted()); });
  ends("attach", [](Remote& remote, Map& map) {
    static_cast<void>(remote.attach<std::string, std::string>(map.hash()));
  });
  ends("event", [](Remote& remote, Map& map) { remote.send_event(map.hash(), set_key("key00", "x")); });
}

TEST_CASE("an event that was sent is not called refused because the next link is") {
  World world;
  const auto remote = world.connect();
  const Map map = world.make_map(remote);
  remote->send_event(map.hash(), set_key("key00", "first"));
  world.port->faults().is_client_deaf = true;  // its answer is lost
  const Sent sent = Sent::send(world, remote, map.hash(), set_key("key00", "second"));
  REQUIRE(world.wait([&] { return world.runs.size() == 2; }));
  world.server->set_passwords({"another password"});
  world.port->cut_all();
  world.port->faults().is_client_deaf = false;
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::failed; }));
  CHECK(remote->status().reason == StateErrc::unauthorized);
  CHECK_FALSE(sent.is_finished());
  CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "third")); }) ==
        StateErrc::unauthorized);
  remote->set_password("another password");
  REQUIRE(world.wait([&] { return sent.is_finished(); }));
  CHECK(UpdateId{sent.result()} == 2);
  CHECK(world.runs == Texts{"first", "second"});
}

TEST_CASE("what a request had staged when its link was cut is no part of another master's state") {
  constexpr std::size_t keys = 40;
  World world;
  const Handle former = world.host(keys);
  const auto remote = world.connect();
  Map map = world.make_map(remote, keys);
  former.modify([](Map& m) {
    for (std::size_t i = 0; i < keys; ++i) m.set(key_name(i), std::string(50'000, 'f'));
  });
  const auto executor = world.time.make_executor();
  const std::uint64_t before = world.port->client_ends().front()->bytes_received();
  bool is_restarted = false;
  int looks = 0;
  std::function<void()> look = [&] {
    if (world.port->client_ends().front()->bytes_received() - before < 500'000) {
      if (++looks < 1'000) executor->post(look);  // behind what moves the transfer on
      return;
    }
    world.restart();  // in the middle of the transfer
    world.host(keys).modify([](Map& m) { m.set("key01", "new"); });
    is_restarted = true;
  };
  executor->post(look);
  CHECK(map.sync() == 1);
  REQUIRE(is_restarted);
  Texts expected(keys, "-");
  expected[1] = "new";
  CHECK((values_of(map) == expected));  // not printed: the former values are long
}

TEST_CASE("a replica that has ended has nothing sent any more") {
  World world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  const Map map = world.make_map(remote);
  const auto commit = [&] { return handle.modify([](Map& m) { m.set("key00", std::string(1'000, 'x')); }); };
  auto replica = std::make_unique<Follower>(Map(map), ReplicaOptions{});
  REQUIRE(replica->wait_for(commit(), 1s));
  replica.reset();
  world.time.run_ready();
  const auto end = world.port->client_ends().front();
  const std::uint64_t before = end->bytes_received();
  commit();
  world.time.run_ready();
  CHECK(end->bytes_received() == before);
}

// --- Ends, in every order.

TEST_CASE("server, remote, map and replica may end in any order") {
  std::vector<int> order{0, 1, 2, 3};
  do {
    INFO("order " << order[0] << order[1] << order[2] << order[3]);
    World world;
    auto remote = world.connect();
    auto map = std::make_unique<Map>(world.make_map(remote));
    auto replica = std::make_unique<Follower>(Map(*map), ReplicaOptions{});
    const MapHash hash = map->hash();
    const Sent sent = Sent::send(world, remote, hash, set_key("key00", "x"));
    for (const int what : order) {
      if (what == 0) world.server.reset();
      if (what == 1) remote.reset();
      if (what == 2) map.reset();
      if (what == 3) replica.reset();
      world.run_steps(2);
    }
    world.time.advance(60s);
    CHECK(sent.is_finished());
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("a replica that ends while a diff for it is under way harms no other") {
  for (std::size_t steps = 0; steps < 12; ++steps) {
    World world;
    const Handle handle = world.host();
    const auto remote = world.connect();
    Follower stays(world.make_map(remote), {});
    auto goes = std::make_unique<Follower>(world.make_map(remote), ReplicaOptions{});
    REQUIRE(world.wait([&] { return stays.epoch() != 0 && goes->epoch() != 0; }));
    handle.modify([](Map& map) { map.set("key00", "x"); });
    world.run_steps(steps);
    goes.reset();
    INFO("after " << steps << " steps");
    REQUIRE(stays.wait_for(1, 1s));
    world.time.advance(1s);
    CHECK(world.port->connections() == 1);  // the link was not given up for it
    CHECK(stays.status().state == LinkState::live);
  }
}

TEST_CASE("a remote outlives its maps, and a map comes back to it") {
  World world;
  const auto remote = world.connect();
  MapHash hash;
  {
    const Map map = world.make_map(remote);
    hash = map.hash();
  }
  CHECK(remote->send_event(hash, set_key("key00", "x")).update_id == 1);
  world.port->cut_all();
  CHECK(remote->send_event(hash, set_key("key00", "y")).update_id == 2);
  // The server loses the map, and no copy of it lives here: nobody can bring it back.
  world.restart();
  world.time.run_ready();
  const auto code = error_of([&] { remote->send_event(hash, set_key("key00", "z")); });
  CHECK(code == StateErrc::not_hosted);
  Map again = world.make_map(remote);
  CHECK(again.hash() == hash);
  CHECK(remote->send_event(hash, set_key("key00", "z")).update_id == 1);
  CHECK(again.sync() == 1);
}

TEST_CASE("what waits for a remote that ends is told, and nothing hangs") {
  World world;
  world.port->set_unreachable(true);
  auto remote = world.connect();
  Map map = make_map_of(remote, {"key00"});
  CHECK(error_of([&] { map.freeze(10ms); }) == StateErrc::unavailable);
  const Sent unsent = Sent::send(world, remote, map.hash(), set_key("key00", "x"));
  world.time.run_ready();
  CHECK_FALSE(unsent.is_finished());
  const auto list = detail::Operation::create();
  remote->core().list(std::make_shared<std::vector<HostedMapInfo>>(), list);
  const auto head = detail::Operation::create();
  remote->core().fetch_head(
      detail::MapIdentity{map.hash(), {}, "string", "string", [] { return nullptr; }, {}},
      std::make_shared<Position>(), head);
  world.time.run_ready();
  CHECK_FALSE((list->is_finished() || head->is_finished()));
  remote->core().stop();
  world.time.run_ready();
  CHECK(unsent.error() == StateErrc::stopped);
  CHECK(error_of([&] { list->result(); }) == StateErrc::stopped);
  CHECK(error_of([&] { head->result(); }) == StateErrc::stopped);
  CHECK(error_of([&] { remote->send_event(map.hash(), set_key("key00", "x")); }) == StateErrc::stopped);
  CHECK(error_of([&] { map.sync(); }) == StateErrc::stopped);
}

// --- Threads.

TEST_CASE("a master is changed through its handle from any number of threads") {
  const auto pool = std::make_shared<HookPool>(2);
  const auto core = make_core(pool);
  const Handle handle = core->host(make_master(4, "0"));
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&handle, t] {
      for (int i = 0; i < 200; ++i) {
        handle.modify(
            [&](Map& map) { map.set(key_name(t), std::to_string(std::stoi(map.at(key_name(t))) + 1)); });
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(handle.update_id() == 800);
  handle.modify([](Map& map) { CHECK(values_of(map) == Texts{"200", "200", "200", "200"}); });
  CHECK_THROWS_AS(handle.modify([](Map&) { throw std::logic_error("no"); }), std::logic_error);
  core->stop();
  CHECK(error_of([&] { handle.modify([](Map&) {}); }) == StateErrc::stopped);
  CHECK(handle.update_id() == 800);
}

namespace {

/// Serves the core in this process, on a thread of its own.
template <class CorePtr>
std::shared_ptr<inproc::Port> listen_on(const std::shared_ptr<ThreadExecutor>& thread, const CorePtr& core) {
  auto port = std::make_shared<inproc::Port>();
  port->listen(thread, [core, lane = core->add_lane(thread)](std::shared_ptr<inproc::WireEnd> end,
                                                             const std::string& address) {
    return core->accept(lane, address, [&end] { return std::move(end); });
  });
  return port;
}

/// Returns when the thread has done what that leaves to do.
template <class AnyCore>
void stop_and_drain(AnyCore& core, ThreadExecutor& thread) {
  core.stop();
  std::promise<void> is_drained;
  thread.post([&] { is_drained.set_value(); });
  CHECK(is_drained.get_future().wait_for(test_limit) == std::future_status::ready);
}

}  // namespace

TEST_CASE("once a hook was slow, what is done before the next one does not wait for its end") {
  const auto thread = std::make_shared<ThreadExecutor>();
  const auto core = make_core(std::make_shared<HookPool>(2));
  std::promise<void> release;
  core->add_hook([&, released = release.get_future().share()](Map& map, const Change& event) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
    while (event.content.what == "slow" && std::chrono::steady_clock::now() < until) {
    }
    if (event.content.what == "stop") released.wait_for(test_limit);
    map.set("key00", event.content.value);
  });
  core->start();
  const Handle handle = core->host(make_master(1));
  const auto port = listen_on(thread, core);
  {
    const auto remote = std::make_shared<ThreadRemote>(thread, port);
    Map map = remote->attach<std::string, std::string>(handle.hash());
    const auto send = [&](const char* what) {
      auto call = std::make_shared<detail::EventCall>(serialize_event(Change{{what, "", what}}));
      remote->core().send_event(handle.hash(), call);
      return call;
    };
    const auto is_over = [&](const std::shared_ptr<detail::EventCall>& call) {
      return thread->wait_until(thread->now() + test_limit, [&] { return call->is_finished(); });
    };
    CHECK(is_over(send("slow")));
    // These come in one batch; each may be the one before the hook that does not end.
    std::vector<std::shared_ptr<detail::EventCall>> quick;
    std::promise<void> is_sent;
    std::shared_ptr<detail::EventCall> stopped;
    thread->post([&] {
      for (int i = 0; i < 20; ++i) quick.push_back(send("quick"));
      stopped = send("stop");
      is_sent.set_value();
    });
    is_sent.get_future().wait();
    for (const auto& call : quick) CHECK(is_over(call));
    CHECK_FALSE(stopped->is_finished());
    CHECK(map.sync() == 21);
    release.set_value();
    CHECK(is_over(stopped));
  }
  stop_and_drain(*core, *thread);
}

TEST_CASE("what comes one by one while a hook runs is run in the order it came") {
  const auto thread = std::make_shared<ThreadExecutor>();
  const auto core = make_core(std::make_shared<HookPool>(1));
  std::promise<void> release;
  core->add_hook([&, released = release.get_future().share()](Map& map, const Change& event) {
    if (event.content.what == "stop") released.wait_for(test_limit);
    map.set("key00", event.content.value);
  });
  core->start();
  const Handle handle = core->host(make_master(1));
  const auto port = listen_on(thread, core);
  {
    const auto remote = std::make_shared<ThreadRemote>(thread, port);
    Map map = remote->attach<std::string, std::string>(handle.hash());
    std::vector<std::shared_ptr<detail::EventCall>> calls;
    for (const char* what : {"stop", "second", "third", "fourth"}) {
      calls.push_back(std::make_shared<detail::EventCall>(serialize_event(Change{{what, "", what}})));
      remote->core().send_event(handle.hash(), calls.back());
      // It has arrived: it left when its sender came, before the first list, and the second one was asked for after it.
      for (int i = 0; i < 2; ++i) CHECK(remote->hosted().size() == 1);
    }
    release.set_value();
    for (UpdateId id = 1; const auto& call : calls) {
      CHECK(thread->wait_until(thread->now() + test_limit, [&] { return call->is_finished(); }));
      CHECK(call->result().update_id == id++);
    }
    map.sync();
    CHECK(map.at("key00") == "fourth");
  }
  stop_and_drain(*core, *thread);
}

TEST_CASE("an event waits for a few events of each other link, not for all that those links have sent") {
  constexpr std::size_t links = 16;
  constexpr std::size_t events = 1'024;
  const auto thread = std::make_shared<ThreadExecutor>();
  const auto core = make_core(std::make_shared<HookPool>(1));
  std::promise<void> release;
  std::size_t runs = 0;
  std::atomic<std::size_t> runs_before{0};
  core->add_hook([&, released = release.get_future().share()](Map&, const Change& event) {
    if (event.content.what == "stop") released.wait_for(test_limit);
    if (event.content.what == "honest") runs_before = runs;
    ++runs;
  });
  core->start();
  const Handle handle = core->host(make_master(1));
  const auto port = listen_on(thread, core);
  {
    std::vector<Map> maps;
    const auto join = [&] {
      auto remote = std::make_shared<ThreadRemote>(thread, port);
      maps.push_back(remote->attach<std::string, std::string>(handle.hash()));
      return remote;
    };
    const auto send = [&](const ThreadRemote& remote, const char* what) {
      auto call = std::make_shared<detail::EventCall>(serialize_event(Change{{what, "", what}}));
      remote.core().send_event(handle.hash(), call);
      return call;
    };
    // They leave when their sender comes, before the first list, and arrive before the second one is asked for.
    const auto wait_until_they_came = [](ThreadRemote& remote) {
      for (int i = 0; i < 2; ++i) REQUIRE(remote.hosted().size() == 1);
    };
    const auto holder = join();
    send(*holder, "stop");
    wait_until_they_came(*holder);
    std::vector<std::shared_ptr<ThreadRemote>> floods;
    for (std::size_t i = 0; i < links; ++i) {
      floods.push_back(join());
      for (std::size_t n = 0; n < events; ++n) send(*floods.back(), "flood");
    }
    for (const auto& flood : floods) wait_until_they_came(*flood);
    const auto honest = join();
    const auto call = send(*honest, "honest");
    wait_until_they_came(*honest);
    release.set_value();
    REQUIRE(thread->wait_until(thread->now() + test_limit, [&] { return call->is_finished(); }));
    // A turn of each link, and what is under way.
    CHECK(runs_before <= (links + 2) * detail::EventTurns::turn_events);
  }
  stop_and_drain(*core, *thread);
}

TEST_CASE("one map's slow hook does not hold up another map, nor the link they share") {
  const auto thread = std::make_shared<ThreadExecutor>();
  const auto pool = std::make_shared<HookPool>(2);
  const auto core = make_core(pool);
  std::promise<void> is_slow_running;
  std::promise<void> release;
  core->add_hook([&, released = release.get_future().share()](Map& map, const Change& event) {
    if (event.content.what == "slow") {
      is_slow_running.set_value();
      released.wait();
    }
    map.set("key00", event.content.value);
  });
  core->start();
  const Handle slow = core->host(make_master(1));
  const Handle quick = core->host(make_master(2));
  const auto port = listen_on(thread, core);
  {
    const auto remote = std::make_shared<ThreadRemote>(thread, port);
    Map slow_map = remote->attach<std::string, std::string>(slow.hash());
    Map quick_map = remote->attach<std::string, std::string>(quick.hash());
    const auto done = std::make_shared<detail::EventCall>(serialize_event(Change{{"slow", "", "s"}}));
    remote->core().send_event(slow.hash(), done);
    REQUIRE(is_slow_running.get_future().wait_for(test_limit) == std::future_status::ready);
    for (UpdateId id = 1; id <= 20; ++id)
      CHECK(remote->send_event(quick.hash(), set_key("key00", "q")).update_id == id);
    CHECK(quick_map.sync() == 20);
    CHECK(slow_map.sync() == 0);  // readers do not wait for the hook either
    CHECK_FALSE(done->is_finished());
    release.set_value();
    CHECK(thread->wait_until(thread->now() + test_limit, [&] { return done->is_finished(); }));
    CHECK(done->result().update_id == 1);
    CHECK(slow_map.sync() == 1);
  }
  stop_and_drain(*core, *thread);
}

}  // namespace syncstate::testing::core_test
