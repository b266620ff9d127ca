// Guarantee 6: all that the hooks of one event do commits as one update id, or none of it.
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"

namespace syncstate::testing::g06_hook_transaction_test {
namespace {

using Texts = std::vector<std::string>;

/// A server whose hooks a test brings along.
struct HookWorld {
  template <class... Hooks>
  explicit HookWorld(Hooks... hooks)
      : port(std::make_shared<
             inproc::Port>()),  // here, for Clang 14 takes an initializer at the member for none
        server(time, port, ServerCoreOptions{.passwords = {password}}),
        handle(start(std::move(hooks)...)) {}

  template <class... Hooks>
  Handle start(Hooks... hooks) {
    (server.add_hook(std::move(hooks)), ...);
    server.start();
    return server.host(make_master(3));
  }
  UpdateId send(const std::string& what) { return remote->send_event(handle.hash(), Change{{what, "", ""}}); }
  Texts state() {
    map.sync();
    return values_of(map);
  }

  inproc::VirtualTime time;
  std::shared_ptr<inproc::Port> port;
  Server server;
  Handle handle;
  std::shared_ptr<Remote> remote =
      std::make_shared<Remote>(time, port, RemoteCoreOptions{.password = password, .seed = 1});
  Map map = remote->attach<std::string, std::string>(handle.hash());
};

}  // namespace

TEST_CASE("guarantee 6: all hooks of one event commit together, as one update id") {
  HookWorld world(
      [](Map& map, const Change&) {
        map.set("key00", "first");
        map.set("key01", "first");
      },
      [](Map& map, const Change&) {
        CHECK(map.at("key00") == "first");  // the second hook reads what the first one set
        map.set("key01", "second");
      });
  CHECK(world.send("go") == 1);
  CHECK(world.handle.update_id() == 1);
  CHECK(world.state() == Texts{"first", "second", "-"});
  CHECK(world.map.update_id() == 1);
}

TEST_CASE("guarantee 6: a hook that throws takes the whole event back, and the sender learns the reason") {
  bool is_second_run = false;
  HookWorld world(
      [](Map& map, const Change& event) {
        map.set("key00", event.content.what);
        map.begin_modification().set("key01", event.content.what).commit();
      },
      [&](Map& map, const Change& event) {
        is_second_run = true;
        map.set("key02", event.content.what);
        if (event.content.what == "text") throw std::runtime_error("the door is locked");
        if (event.content.what == "number") throw 42;
        if (event.content.what == "state error") map.set("no such key", "");
      });
  for (const std::string what : {"text", "number", "state error"}) {
    INFO(what);
    is_second_run = false;
    std::string said;
    try {
      world.send(what);
      said = "nothing was thrown";
    } catch (const StateError& error) {
      CHECK(error.code() == (what == "state error" ? StateErrc::key_not_found : StateErrc::hook_failed));
      said = what == "state error" ? error.what() : error.detail();
    }
    CHECK(is_second_run);
    if (what == "text") CHECK(said == "the door is locked");
    if (what == "state error") CHECK_THAT(said, contains_text("no such key"));
    CHECK(world.state() == Texts{"-", "-", "-"});
    CHECK(world.handle.update_id() == 0);
  }
  // The map goes on.
  CHECK(world.send("fine") == 1);
  CHECK(world.state() == Texts{"fine", "fine", "fine"});
}

TEST_CASE("guarantee 6: in a hook the map is the open transaction") {
  std::vector<std::pair<std::string, std::error_code>> refused;
  HookWorld world([&](Map& map, const Change&) {
    CHECK(map.update_id() == 0);
    CHECK(map.set("key00", "a") == 0);
    CHECK(map.update_id() == 0);
    CHECK(map.at("key00") == "a");

    // A modification joins when it commits, and not before.
    auto change = map.begin_modification();
    change.set("key01", "b").set("key00", "c");
    CHECK(map.at("key01") == "-");
    CHECK(*change.get("key01") == "b");
    CHECK(change.commit() == 0);
    CHECK(map.at("key01") == "b");
    CHECK(map.at("key00") == "c");
    { auto dropped = map.begin_modification().set("key02", "never"); }

    const Diff<std::string, std::string> diff(map, map.epoch(), 0, 1);
    Map other = make_master(3);
    const auto try_to = [&](const char* what, auto f) { refused.emplace_back(what, error_of(f)); };
    try_to("freeze", [&] { map.freeze(); });
    try_to("apply", [&] { map.apply(diff); });
    try_to("sync", [&] { map.sync(); });
    try_to("set_update_id", [&] { map.set_update_id(1); });
    try_to("copy assignment", [&] { map = other; });
    try_to("move assignment", [&] { map = std::move(other); });
    try_to("assignment of it", [&] {
      Map target = make_master(3);
      target = std::move(map);
    });
  });
  CHECK(world.send("go") == 1);
  REQUIRE(refused.size() == 7);
  for (const auto& [what, code] : refused) {
    INFO(what);
    CHECK(code == StateErrc::in_transaction);
  }
  CHECK(world.state() == Texts{"c", "b", "-"});
}

TEST_CASE("guarantee 6: an event that sets nothing makes no commit and is answered with the head") {
  HookWorld world([](Map& map, const Change& event) {
    if (event.content.what == "set") map.set("key00", "x");
    if (event.content.what == "empty modification") map.begin_modification().commit();
  });
  CHECK(world.send("nothing") == 0);
  CHECK(world.send("set") == 1);
  CHECK(world.send("nothing") == 1);
  CHECK(world.send("empty modification") == 1);
  CHECK(world.handle.update_id() == 1);
  CHECK(world.handle.modify([](Map&) {}).update_id == 1);
}

TEST_CASE("guarantee 6: setting an equal value is a change") {
  HookWorld world([](Map& map, const Change&) { map.set("key00", "-"); });
  Follower replica(Map(world.map), {});
  Texts named;
  replica.on_update([&](const Diff<std::string, std::string>& diff) {
    for (const auto& [key, value] : diff.changes()) named.push_back(key + "=" + value);
  });
  CHECK(world.send("go") == 1);
  CHECK(world.send("go") == 2);
  REQUIRE(replica.wait_for(2, 1s));
  world.time.run_ready();
  CHECK(named == Texts{"key00=-", "key00=-"});
}

TEST_CASE("guarantee 6: while a hook runs, everyone else sees the state before it") {
  HookWorld* inside = nullptr;
  HookWorld world([&](Map& map, const Change&) {
    map.set("key00", "half");
    // On virtual time a hook that waits lets everyone else run.
    const auto reader = inside->remote->attach<std::string, std::string>(inside->handle.hash());
    Map copy = reader;
    copy.sync();
    CHECK(values_of(copy) == Texts{"-", "-", "-"});
    CHECK(inside->handle.update_id() == 0);
    map.set("key01", "whole");
  });
  inside = &world;
  CHECK(world.send("go") == 1);
  CHECK(world.state() == Texts{"half", "whole", "-"});
}

TEST_CASE(
    "guarantee 6: changing a map through its handle inside its own hook is refused, and harms nothing") {
  std::optional<Handle> handle;
  std::error_code code;
  HookWorld world([&](Map& map, const Change&) {
    map.set("key00", "hook");
    code = error_of([&] { handle->modify([](Map& m) { m.set("key01", "never"); }); });
  });
  handle = world.handle;
  CHECK(world.send("go") == 1);
  CHECK(code == StateErrc::would_deadlock);
  CHECK(world.state() == Texts{"hook", "-", "-"});
}

TEST_CASE("guarantee 6: a change through a handle is a transaction like a hook's") {
  HookWorld world([](Map&, const Change&) {});
  const auto fails = [](Map& map) {
    map.set("key00", "x");
    throw std::logic_error("no");
  };
  CHECK_THROWS_AS(world.handle.modify(fails), std::logic_error);
  CHECK(world.handle.update_id() == 0);
  CHECK(world.handle
            .modify([](Map& map) {
              map.set("key00", "x");
              CHECK(error_of([&] { map.freeze(); }) == StateErrc::in_transaction);
              map.set("key01", "y");
            })
            .update_id == 1);
  CHECK(world.state() == Texts{"x", "y", "-"});
}

TEST_CASE("guarantee 6: an init hook changes the map by commits of its own, before anyone sees it") {
  World world;
  world.restart({}, false);
  std::vector<UpdateId> ids;
  world.server->add_init_hook([&](const Handle& map) {
    ids.push_back(map.modify([](Map& m) {
      m.set("key00", "a");
      m.set("key01", "a");
    }));
    ids.push_back(map.modify([](Map& m) { m.set("key01", "b"); }));
    CHECK_THROWS_AS(map.modify([](Map& m) {
      m.set("key02", "never");
      throw std::runtime_error("no");
    }),
                    std::runtime_error);
  });
  world.server->start();
  const auto remote = world.connect();
  Map map = world.make_map(remote, 3);
  CHECK(ids == std::vector<UpdateId>{1, 2});
  CHECK(map.sync() == 2);
  CHECK(values_of(map) == Texts{"a", "b", "-"});
}

}  // namespace syncstate::testing::g06_hook_transaction_test
