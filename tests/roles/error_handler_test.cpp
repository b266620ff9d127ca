// What code of users throws is contained wherever it is called, and told to `on_error`.
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"

namespace syncstate::testing::error_handler_test {
namespace {

/// Keeps what an `on_error` is told, and throws itself: that must be harmless, too.
struct Reports {
  std::vector<std::string> texts;

  ErrorHandler handler() {
    return [this](const std::exception_ptr& error) {
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& e) {
        texts.emplace_back(e.what());
      } catch (...) {
        texts.emplace_back("no exception");
      }
      throw std::runtime_error("the handler's own");
    };
  }
};

/// What a `Fragile` does when it is encoded or decoded: nothing as a rule.
struct Fate {
  std::function<void()> encode;
  std::function<void()> decode;
};
inline Fate fate;

/// A value whose codec throws when the test says so.
struct Fragile {
  int number = 0;
};

struct Throw {
  std::string what;
};

}  // namespace
}  // namespace syncstate::testing::error_handler_test

template <>
struct syncstate::Codec<syncstate::testing::error_handler_test::Fragile> {
  using Fragile = testing::error_handler_test::Fragile;
  static void encode(const Fragile& value, ByteWriter& out) {
    const auto& fate = testing::error_handler_test::fate;
    if (fate.encode) fate.encode();
    Codec<int>::encode(value.number, out);
  }
  static Fragile decode(ByteReader& in) {
    const auto& fate = testing::error_handler_test::fate;
    if (fate.decode) fate.decode();
    return {Codec<int>::decode(in)};
  }
  static std::string type_name() { return "fragile"; }
};

namespace syncstate::testing::error_handler_test {
namespace {

using FragileMap = StateMap<std::string, Fragile>;
using FragileServer = inproc::StateServer<std::string, Fragile, int>;

/// A server of fragile values whose hook sets "a" to the event's number, and its remotes.
struct FragileWorld {
  FragileWorld() {
    fate = {};
    ServerCoreOptions options;
    options.passwords = {password};
    options.on_error = server_reports.handler();
    server = std::make_unique<FragileServer>(time, port, std::move(options));
    server->add_hook([](FragileMap& map, const Event<int>& event) { map.set("a", Fragile{event.content}); });
    server->start();
  }
  FragileWorld(const FragileWorld&) = delete;
  FragileWorld& operator=(const FragileWorld&) = delete;
  ~FragileWorld() {
    fate = {};
    server.reset();
    time.run_ready();
  }

  std::shared_ptr<Remote> connect() {
    return std::make_shared<Remote>(
        time, port, RemoteCoreOptions{.password = password, .on_error = remote_reports.handler(), .seed = 1});
  }
  static FragileMap make_map(const std::shared_ptr<Remote>& remote) {
    FragileMap map(remote);
    map.push("a", Fragile{1});
    map.push("b", Fragile{2});
    return map;
  }

  inproc::VirtualTime time;
  std::shared_ptr<inproc::Port> port = std::make_shared<inproc::Port>();
  Reports server_reports;
  Reports remote_reports;
  std::unique_ptr<FragileServer> server;
};

void throw_error() { throw std::out_of_range("fragile"); }
void throw_number() { throw 7; }

}  // namespace

TEST_CASE("what hooks throw is told to the sender and to on_error") {
  inproc::VirtualTime time;
  const auto port = std::make_shared<inproc::Port>();
  Reports reports;
  ServerCoreOptions options;
  options.passwords = {password};
  options.on_error = reports.handler();
  inproc::StateServer<std::string, std::string, Throw> server(time, port, std::move(options));
  server.add_hook([](Map&, const Event<Throw>& event) {
    if (event.content.what.empty()) throw 7;
    throw std::runtime_error(event.content.what);
  });
  bool init_throws = true;
  server.add_init_hook([&](const Handle&) {
    if (init_throws) throw std::runtime_error("not today");
  });
  server.start();
  const auto remote =
      std::make_shared<Remote>(time, port, RemoteCoreOptions{.password = password, .seed = 1});
  Map map(remote);
  push_keys(map, 2);
  CHECK(error_of([&] { map.freeze(); }) == StateErrc::init_failed);
  CHECK(reports.texts == std::vector<std::string>{"not today"});
  CHECK(error_of([&] { server.host(make_master(3)); }) == StateErrc::init_failed);
  CHECK(reports.texts.size() == 2);
  init_throws = false;
  map.freeze();
  CHECK(error_of([&] { remote->send_event(map.hash(), Event<Throw>{{"a reason"}}); }) ==
        StateErrc::hook_failed);
  CHECK(error_of([&] { remote->send_event(map.hash(), Event<Throw>{{""}}); }) == StateErrc::hook_failed);
  CHECK(reports.texts == std::vector<std::string>{"not today", "not today", "a reason", "no exception"});
}

TEST_CASE("what a status callback throws goes to the remote's on_error, and the others are called") {
  World world;
  Reports reports;
  RemoteCoreOptions options;
  options.on_error = reports.handler();
  const auto remote = world.connect(std::move(options));
  int calls = 0;
  remote->on_status([](const LinkStatus&) { throw std::runtime_error("status"); });
  remote->on_status([&](const LinkStatus&) { ++calls; });
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  // Each hears the status of now, and then that the link is live.
  CHECK(calls == 2);
  CHECK(reports.texts == std::vector<std::string>{"status", "status"});
}

TEST_CASE("a codec that throws on the server costs the one session, wherever it does") {
  void (*const how)() = GENERATE(as<void (*)()>{}, &throw_error, &throw_number);
  FragileWorld world;
  const auto remote = world.connect();
  FragileMap map = FragileWorld::make_map(remote);

  SECTION("decoding an upload") {
    fate.decode = how;
    CHECK(error_of([&] { map.freeze(); }) == StateErrc::decode_error);
  }
  SECTION("encoding it again, to verify its hash") {
    // The client encodes 4 values: 2 for the hash and 2 to send; what comes then is the server.
    const auto left = std::make_shared<int>(4);
    fate.encode = [left, how] {
      if (--*left < 0) how();
    };
    CHECK(error_of([&] { map.freeze(); }) == StateErrc::protocol_error);
  }
  SECTION("encoding a diff for a client that asks for one") {
    map.freeze();
    CHECK(remote->send_event(map.hash(), Event<int>{5}).update_id == 1);
    fate.encode = how;
    CHECK(error_of([&] { map.sync(); }) == StateErrc::protocol_error);
  }
  REQUIRE_FALSE(world.server_reports.texts.empty());
  CHECK(world.server_reports.texts.front() == (how == &throw_error ? "fragile" : "no exception"));

  fate = {};
  const auto other = world.connect();
  FragileMap good = FragileWorld::make_map(other);
  CHECK_NOTHROW(good.freeze());
  const UpdateId id = other->send_event(good.hash(), Event<int>{9});
  good.set_update_id(id);
  CHECK(good.at("a").number == 9);
}

TEST_CASE("a value that can't be encoded is refused while its hook runs, before anyone follows it") {
  FragileWorld world;
  const auto remote = world.connect();
  FragileMap map = FragileWorld::make_map(remote);
  map.freeze();
  fate.encode = &throw_error;
  CHECK(error_of([&] { remote->send_event(map.hash(), Event<int>{5}); }) == StateErrc::hook_failed);
  CHECK(world.server_reports.texts == std::vector<std::string>{"fragile"});
  fate = {};
  CHECK(map.sync() == 0);
  CHECK(remote->status().state == LinkState::live);
}

TEST_CASE("a codec that throws at the client costs its link, which comes back") {
  void (*const how)() = GENERATE(as<void (*)()>{}, &throw_error, &throw_number);
  FragileWorld world;
  const auto remote = world.connect();
  FragileMap map = FragileWorld::make_map(remote);

  SECTION("encoding an upload") {
    const auto left = std::make_shared<int>(2);
    fate.encode = [left, how] {
      if (--*left < 0) how();
    };
    CHECK(error_of([&] { map.freeze(); }) == StateErrc::protocol_error);
  }
  SECTION("decoding a diff") {
    map.freeze();
    CHECK(remote->send_event(map.hash(), Event<int>{5}).update_id == 1);
    fate.decode = how;
    CHECK(error_of([&] { map.sync(); }) == StateErrc::decode_error);
  }
  REQUIRE_FALSE(world.remote_reports.texts.empty());
  CHECK(world.remote_reports.texts.front() == (how == &throw_error ? "fragile" : "no exception"));
  CHECK(world.server_reports.texts.empty());
  CHECK(remote->status().state == LinkState::failed);

  fate = {};
  CHECK(world.time.run_until([&] { return remote->status().state == LinkState::live; }, 120s));
  CHECK_NOTHROW(map.freeze());
}

}  // namespace syncstate::testing::error_handler_test
