// Hooks that throw, that wait for themselves, that are slow, and that still wait when their server stops.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"
#include "syncstate/detail/hook_waits.hpp"
#include "syncstate/detail/remote/remote_operation.hpp"

namespace syncstate::testing::hooks_test {
namespace {

using Texts = std::vector<std::string>;

/// Returns how often `part` is in `text`.
std::size_t count_of(const std::string& part, const std::string& text) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

/// Returns what a blocking call throws; the code is 0 if it returns.
struct Failed {
  std::error_code code;
  std::string detail;
  std::string what;
};

template <class F>
Failed failure_of(F&& call) {
  try {
    call();
  } catch (const StateError& error) {
    return {error.code(), error.detail(), error.what()};
  }
  return {};
}

/// An exception with a text of a test's choice.
struct TextError : std::exception {
  explicit TextError(const char* t) : text(t) {}
  [[nodiscard]] const char* what() const noexcept override { return text; }
  const char* text;
};

/// A server whose only hook, or init hook, does what a test says.
struct ThrowingWorld : World {
  ThrowingWorld() : World() {
    ServerCoreOptions options;
    options.on_error = [this](const std::exception_ptr& error) { reports.push_back(error); };
    restart(std::move(options), false);
    server->add_hook([this](Map& map, const Change& event) {
      if (in_hook) in_hook(map, event);
    });
    server->add_init_hook([this](const Handle& handle) {
      if (in_init_hook) in_init_hook(handle);
    });
    server->start();
  }

  detail::UniqueFunction<void(Map&, const Change&)> in_hook;
  detail::UniqueFunction<void(const Handle&)> in_init_hook;
  std::vector<std::exception_ptr> reports;
};

struct Thrown {
  std::string name;
  void (*run)();
  StateErrc code;            ///< that the sender of an event learns
  std::string detail;        ///< that the sender of an event learns
  std::string in_init_hook;  ///< the detail of `init_failed`
};

void throw_nested(std::size_t depth) {
  try {
    if (depth == 0) throw std::runtime_error("the innermost");
    throw_nested(depth - 1);
  } catch (...) {
    std::throw_with_nested(std::runtime_error("level " + std::to_string(depth)));
  }
}

const std::vector<Thrown>& all_thrown() {
  const auto message = [](StateErrc code) { return make_error_code(code).message(); };
  static const std::vector<Thrown> all = {
      {"a text", [] { throw std::runtime_error("the door is locked"); }, StateErrc::hook_failed,
       "the door is locked", "the door is locked"},
      {"a number", [] { throw 42; }, StateErrc::hook_failed, "it threw something that is no std::exception",
       "it threw something that is no std::exception"},
      {"no text at all", [] { throw TextError(nullptr); }, StateErrc::hook_failed, "", ""},
      {"a code that says something about the event",
       [] { throw StateError(StateErrc::forbidden, "not on Sundays"); }, StateErrc::forbidden,
       "not on Sundays", "not on Sundays: " + message(StateErrc::forbidden)},
      {"a code alone", [] { throw StateError(StateErrc::busy); }, StateErrc::busy, "",
       message(StateErrc::busy)},
      {"the code that is told anyway", [] { throw StateError(StateErrc::hook_failed, "why"); },
       StateErrc::hook_failed, "why", "why: " + message(StateErrc::hook_failed)},
      {"the code that init hooks are told by", [] { throw StateError(StateErrc::init_failed, "why"); },
       StateErrc::hook_failed, "why: " + message(StateErrc::init_failed), "why"},
      {"a system error with one of our codes",
       [] { throw std::system_error(make_error_code(StateErrc::key_not_found), "lobby"); },
       StateErrc::key_not_found, "lobby", "lobby: " + message(StateErrc::key_not_found)},
      {"a system error with one of our codes alone",
       [] { throw std::system_error(make_error_code(StateErrc::key_not_found)); }, StateErrc::key_not_found,
       "", message(StateErrc::key_not_found)},
      {"a code of the system",
       [] { throw std::system_error(make_error_code(std::errc::no_space_on_device), "log"); },
       StateErrc::hook_failed, "log: " + make_error_code(std::errc::no_space_on_device).message(),
       "log: " + make_error_code(std::errc::no_space_on_device).message()},
      {"a number that is no code", [] { throw StateError(static_cast<StateErrc>(4'711), "far"); },
       StateErrc::hook_failed, "far: unknown syncstate error", "far: unknown syncstate error"},
      {"nested exceptions", [] { throw_nested(2); }, StateErrc::hook_failed, "level 2", "level 2"},
      {"a code with a nested exception",
       [] {
         try {
           throw std::runtime_error("the reason");
         } catch (...) {
           std::throw_with_nested(StateError(StateErrc::too_large, "a name"));
         }
       },
       StateErrc::too_large, "a name", "a name: " + message(StateErrc::too_large)},
  };
  return all;
}

}  // namespace

TEST_CASE("the sender of an event learns what a hook threw, once", "[guarantee_6]") {
  ThrowingWorld world;
  const auto remote = world.connect();
  Map map = world.make_map(remote);
  for (const Thrown& thrown : all_thrown()) {
    INFO(thrown.name);
    world.reports.clear();
    world.in_hook = [&](Map& state, const Change&) {
      state.set(key_name(0), "never");
      thrown.run();
    };
    const Failed failed = failure_of([&] { remote->send_event(map.hash(), Change{{"nothing", "", "x"}}); });
    CHECK(failed.code == thrown.code);
    CHECK(failed.detail == thrown.detail);
    CHECK(count_of(failed.code.message(), failed.what) == 1);
    CHECK(world.reports.size() == 1);  // whole, with its nested exceptions
    CHECK(map.sync() == 0);
    CHECK(map.at(key_name(0)) == "-");
  }
  // What the map itself throws in a hook is a `StateError` like any other.
  world.in_hook = [](Map& state, const Change&) { state.set("no such key", ""); };
  CHECK(error_of([&] {
          remote->send_event(map.hash(), Change{{"nothing", "", "x"}});
        }) == StateErrc::key_not_found);
  world.in_hook = [](Map& state, const Change&) { state.freeze(); };
  CHECK(error_of([&] {
          remote->send_event(map.hash(), Change{{"nothing", "", "x"}});
        }) == StateErrc::in_transaction);
}

TEST_CASE("no code that a hook throws says that its event may have run, or that the link is bad",
          "[guarantee_6]") {
  ThrowingWorld world;
  const auto remote = world.connect();
  const Map map = world.make_map(remote);
  const std::vector<StateErrc> never{
      StateErrc::unavailable,   StateErrc::outcome_unknown, StateErrc::stopped,
      StateErrc::unauthorized,  StateErrc::link_closed,     StateErrc::peer_silent,
      StateErrc::tls_failed,    StateErrc::not_hosted,      StateErrc::would_deadlock,
      StateErrc::epoch_changed, StateErrc::protocol_error,  StateErrc::certificate_rejected};
  for (int number = 0; number <= 64; ++number) {
    const auto code = static_cast<StateErrc>(number);
    CAPTURE(number);
    world.in_hook = [code](Map&, const Change&) { throw StateError(code, "upstream"); };
    const Failed failed = failure_of([&] { remote->send_event(map.hash(), Change{{"nothing", "", "x"}}); });
    CHECK((failed.code == code || failed.code == StateErrc::hook_failed));
    CHECK(std::find(never.begin(), never.end(), failed.code) == never.end());
    // The text says what the code does not say.
    const std::string message = make_error_code(code).message();
    CHECK(failed.detail == (failed.code == code ? "upstream" : "upstream: " + message));
    CHECK(count_of(failed.code.message(), failed.what) == 1);
  }
  CHECK(remote->status().state == LinkState::live);
}

TEST_CASE("init_failed tells what an init hook threw, once", "[guarantee_6]") {
  ThrowingWorld world;
  const auto remote = world.connect();
  for (const Thrown& thrown : all_thrown()) {
    INFO(thrown.name);
    world.reports.clear();
    world.in_init_hook = [&](const Handle&) { thrown.run(); };
    const auto check = [&](const Failed& failed) {
      CHECK(failed.code == StateErrc::init_failed);
      CHECK(failed.detail == thrown.in_init_hook);
      CHECK(count_of(failed.code.message(), failed.what) == 1);
    };
    check(failure_of([&] { world.host(); }));
    Map map(remote);
    push_keys(map, 5);
    check(failure_of([&] { map.freeze(); }));
    CHECK(world.reports.size() == 2);
  }
}

TEST_CASE("what a change by modify throws comes back unchanged", "[guarantee_6]") {
  ThrowingWorld world;
  const Handle handle = world.host();
  for (const Thrown& thrown : all_thrown()) {
    INFO(thrown.name);
    std::string direct;
    std::string through;
    const auto text_of = [](auto&& call) -> std::string {
      try {
        call();
      } catch (const std::system_error& error) {
        return error.code().category().name() + std::to_string(error.code().value()) + error.what();
      } catch (const std::exception& error) {
        return error.what() == nullptr ? "null" : error.what();
      } catch (int number) {
        return std::to_string(number);
      }
      return "nothing was thrown";
    };
    CHECK(text_of([&] {
            handle.modify([&](Map& map) {
              map.set(key_name(0), "never");
              thrown.run();
            });
          }) == text_of(thrown.run));
    CHECK(handle.update_id() == 0);
  }
  CHECK(world.reports.empty());  // its caller has it
}

TEST_CASE("a text of many megabytes is cut wherever it goes to a peer", "[guarantee_10]") {
  static const std::string huge(std::size_t{8} << 20, 'h');
  constexpr std::size_t most = 700;  // a text of 512 bytes, and the frame around it
  ThrowingWorld world;
  const bool is_state_error = GENERATE(false, true);
  CAPTURE(is_state_error);
  const auto throw_huge = [is_state_error] {
    if (is_state_error) throw StateError(StateErrc::forbidden, huge);
    throw TextError(huge.c_str());
  };
  const auto peer = connect_raw(world.time, *world.port, password);
  // Bytes that came until now and are not counted.
  const auto bytes_for = [&](auto&& act) {
    const std::uint64_t before = peer->received_bytes();
    act();
    world.time.run_ready();
    return peer->received_bytes() - before;
  };
  SECTION("of a hook") {
    const Handle handle = world.host();
    world.in_hook = [&](Map&, const Change&) { throw_huge(); };
    peer->send(open_of(handle.hash()));
    peer->send(protocol::GetSender{1, 0});
    world.time.run_ready();
    const SerializedEvent event = serialize_event(set_key(key_name(0), "x"));
    CHECK(bytes_for([&] {
            peer->send(protocol::EventType{1, event.type_name});
            protocol::EventMessage message;
            message.channel = 1;
            message.number = 1;
            message.bytes = event.bytes;
            peer->send(message);
          }) < most);
    REQUIRE(peer->find<protocol::AnswerError>());
    CHECK(peer->find<protocol::AnswerError>()->detail.size() == protocol::peer_text_bytes);
    // Nor is more of it kept for repeats.
    CHECK(world.server->core().answer_bytes() < 20'000);
  }
  SECTION("of an init hook") {
    world.in_init_hook = [&](const Handle&) { throw_huge(); };
    CHECK(failure_of([&] { world.host(); }).detail.size() == protocol::peer_text_bytes);
    const Map map = make_master(5);
    peer->send(open_of(map.hash()));
    world.time.run_ready();
    REQUIRE(peer->find<protocol::UploadWanted>());
    Bytes entries;
    ByteWriter out(entries);
    for (const auto& [key, value] : map) {
      out.put_sized(key);
      out.put_sized(value);
    }
    CHECK(bytes_for([&] {
            peer->send(upload_of(entries));
            peer->send(protocol::UploadEnd{1});
          }) < most);
    REQUIRE(peer->find<protocol::Refused>());
    CHECK(peer->find<protocol::Refused>()->reason == StateErrc::init_failed);
  }
  SECTION("of what is thrown for a session") {
    CHECK(protocol::CloseSession([&] {
            try {
              throw_huge();
              return protocol::CloseSession{};
            } catch (...) {
              return protocol::close_for_exception();
            }
          }())
              .detail.size() == protocol::peer_text_bytes);
  }
}

TEST_CASE("modify inside a hook or a modify of the same map would deadlock, and leaves both whole",
          "[guarantee_6]") {
  ThrowingWorld world;
  std::vector<std::error_code> codes;
  const auto nested = [&](const Handle& handle) {
    codes.push_back(error_of([&] { handle.modify([](Map& map) { map.set(key_name(1), "never"); }); }));
  };
  const auto outer = [&](const Handle& handle, const std::string& value) {
    return handle.modify([&](Map& map) {
      map.set(key_name(0), value);
      nested(handle);
      map.set(key_name(2), value);
    });
  };
  std::vector<UpdateId> ids;
  world.in_init_hook = [&](const Handle& handle) {
    ids.push_back(outer(handle, "init hook"));
    ids.push_back(handle.modify([](Map& map) { map.set(key_name(3), "another"); }));
  };
  const Handle handle = world.host();
  CHECK(ids == std::vector<UpdateId>{1, 2});
  CHECK(codes == std::vector<std::error_code>(1, StateErrc::would_deadlock));
  codes.clear();
  const auto remote = world.connect();
  Map map = remote->attach<std::string, std::string>(handle.hash());
  map.sync();
  CHECK(values_of(map) == Texts{"init hook", "-", "init hook", "another"});

  CHECK(outer(handle, "modify").update_id == 3);
  world.in_hook = [&](Map& state, const Change&) {
    state.set(key_name(0), "hook");
    nested(handle);
    state.set(key_name(2), "hook");
  };
  CHECK(remote->send_event(map.hash(), Change{{"nothing", "", "x"}}).update_id == 4);
  CHECK(codes == std::vector<std::error_code>(2, StateErrc::would_deadlock));
  map.sync();
  CHECK(values_of(map) == Texts{"hook", "-", "hook", "another"});
}

TEST_CASE("an event that a hook sends to its own map and waits for is refused at once", "[guarantee_5]") {
  ThrowingWorld world;
  const Handle handle = world.host();
  const Handle other = world.host(5);
  const auto remote = world.connect();
  const auto fresh = world.connect();
  const Map map = world.make_map(remote);
  const Map copy = world.make_map(fresh);
  Failed failed;
  Duration took{};
  const auto send_to_itself = [&](const std::shared_ptr<Remote>& by) {
    const TimePoint began = world.time.now();
    failed = failure_of([&] { by->send_event(map.hash(), set_key(key_name(1), "inner")); });
    took = world.time.now() - began;
  };
  const auto check_refused = [&](const std::string& where) {
    INFO(where);
    CHECK(failed.code == StateErrc::would_deadlock);
    CHECK_THAT(failed.detail, contains_text("a hook waits for this event"));
    CHECK(took < 1s);
    world.time.advance(60s);  // it was never sent
    CHECK(std::count(world.runs.begin(), world.runs.end(), "inner") == 0);
    failed = {};
  };
  int depth = 0;
  detail::UniqueFunction<void()> act;
  world.in_hook = [&](Map&, const Change& event) {
    if (event.content.value == "outer" && depth++ == 0) act();
  };
  const auto send_outer = [&] {
    depth = 0;
    return remote->send_event(map.hash(), set_key(key_name(0), "outer"));
  };

  act = [&] { send_to_itself(remote); };
  CHECK(send_outer().update_id == 1);
  check_refused("over the remote that the event came by");

  act = [&] { send_to_itself(fresh); };
  CHECK(send_outer().update_id == 2);
  check_refused("over another remote");

  act = [&] {
    // The link is lost: the remote can't know to which life of the map it will lead.
    world.port->cut_all();
    send_to_itself(fresh);
  };
  (void)failure_of([&] { send_outer(); });
  check_refused("before the map is open on the link");
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));

  handle.modify([&](Map&) { send_to_itself(remote); });
  check_refused("in a change by modify");

  act = [&] { other.modify([&](Map&) { send_to_itself(remote); }); };
  send_outer();
  check_refused("in a change of another map inside the hook");

  act = {};
  handle.modify([&](Map&) {
    failed = failure_of([&] { remote->send_event(other.hash(), set_key(key_name(0), "to another map")); });
  });
  CHECK(failed.code == StateErrc::not_hosted);  // this remote does not have that map
  const Map five = world.make_map(remote, 5);
  handle.modify([&](Map&) {
    failed = failure_of([&] { remote->send_event(five.hash(), set_key(key_name(0), "to another map")); });
  });
  CHECK(failed.code == std::error_code());
  CHECK(world.runs.back() == "to another map");

  // The answer is not waited for: the event runs after the hook.
  std::optional<Sent> sent;
  handle.modify([&](Map&) {
    sent = Sent::send(world, remote, map.hash(), set_key(key_name(1), "later"));
    world.time.advance(1s);
    CHECK_FALSE(sent->is_finished());
  });
  REQUIRE(world.wait([&] { return sent->is_finished(); }, 1s));
  CHECK(sent->error() == std::error_code());
  CHECK(world.runs.back() == "later");
}

TEST_CASE("waits of hooks that lead back to where they began are refused, and no others") {
  using detail::HookWaits;
  const auto map = [](Epoch epoch) { return detail::MapLife{MapHash(), epoch}; };
  int a = 0;
  int b = 0;
  int c = 0;
  CHECK_FALSE(HookWaits::add(&a, {map(1)}, map(1)));
  CHECK(HookWaits::add(&a, {map(1)}, map(2)));
  CHECK(HookWaits::add(&b, {map(3)}, map(2)));  // many may wait for one
  CHECK(HookWaits::add(&c, {map(2)}, map(4)));
  CHECK_FALSE(HookWaits::add(&b, {map(4), map(5)}, map(1)));  // 1 waits for 2, and 2 for 4
  CHECK_FALSE(HookWaits::add(&b, {map(5), map(4)}, map(1)));
  CHECK(HookWaits::add(&b, {map(4)}, map(3)));  // `b` waits anew: 3 waits for nothing any more
  HookWaits::remove(&c);
  CHECK(HookWaits::add(&b, {map(4), map(5)}, map(1)));
  HookWaits::remove(&a);
  HookWaits::remove(&b);
  HookWaits::remove(&b);
  CHECK(HookWaits::add(&a, {map(2)}, map(1)));
  HookWaits::remove(&a);
  // A hook within a hook: both maps wait.
  CHECK(HookWaits::add(&a, {map(1), map(2)}, map(3)));
  CHECK_FALSE(HookWaits::add(&b, {map(3)}, map(1)));
  CHECK_FALSE(HookWaits::add(&b, {map(3)}, map(2)));
  HookWaits::remove(&a);
}

TEST_CASE("a thread runs the hooks of each map that it is within, the innermost first") {
  using detail::MapLife;
  using detail::RunningHooks;
  const MapLife outer{make_master(1).hash(), 7};
  const MapLife inner{make_master(2).hash(), 8};
  CHECK(RunningHooks::maps_here().empty());
  {
    const RunningHooks of_outer(outer.hash, outer.epoch);
    {
      const RunningHooks of_inner(inner.hash, inner.epoch);
      CHECK((RunningHooks::maps_here() == std::vector<MapLife>{inner, outer}));
    }
    CHECK((RunningHooks::maps_here() == std::vector<MapLife>{outer}));
  }
  CHECK_FALSE(RunningHooks::is_any_here());
}

TEST_CASE("a hook that waits for a change by modify is part of a circle, until the change has run") {
  using detail::HookWaits;
  using detail::ModifyWait;
  const detail::MapLife own{MapHash(), 7};
  const detail::MapLife other{MapHash(), 8};
  const auto is_waiting = [&] {
    int probe = 0;
    const bool is_free = HookWaits::add(&probe, {other}, own);
    HookWaits::remove(&probe);
    return !is_free;
  };
  {
    ModifyWait of_no_hook;
    CHECK(of_no_hook.begin(other));
    CHECK_FALSE(is_waiting());
  }
  const detail::RunningHooks running(own.hash, own.epoch);
  {
    ModifyWait wait;
    CHECK(wait.begin(other));
    CHECK(is_waiting());
    wait.end();
    CHECK_FALSE(is_waiting());
  }
  {
    ModifyWait wait;
    CHECK(wait.begin(other));
  }
  CHECK_FALSE(is_waiting());
  int event = 0;
  CHECK(HookWaits::add(&event, {other}, own));
  {
    ModifyWait wait;
    CHECK_FALSE(wait.begin(other));
  }
  HookWaits::remove(&event);
  CHECK_FALSE(is_waiting());
}

TEST_CASE("a hook waits for no event any more that was given up, answered or never sent", "[guarantee_5]") {
  const detail::MapLife own{MapHash(), 7};
  const detail::MapLife other{MapHash(), 8};
  const auto make_waiting = [&] {
    const detail::RunningHooks running(own.hash, own.epoch);
    auto call = std::make_shared<detail::EventCall>(SerializedEvent{});
    call->wait_on_this_thread();
    return call;
  };
  const auto is_waiting = [&] {
    int probe = 0;
    const bool is_free = detail::HookWaits::add(&probe, {other}, own);
    detail::HookWaits::remove(&probe);
    return !is_free;
  };
  auto call = make_waiting();
  CHECK_FALSE(detail::RunningHooks::is_any_here());
  CHECK_FALSE(call->may_wait_for(own.hash, own.epoch));
  CHECK_FALSE(is_waiting());
  CHECK(call->may_wait_for(other.hash, other.epoch));
  CHECK(is_waiting());
  SECTION("given up") {
    call->give_up("");
    CHECK_FALSE(is_waiting());
    // The remote may learn of the map's epoch only now.
    CHECK(call->may_wait_for(other.hash, other.epoch));
    CHECK_FALSE(is_waiting());
  }
  SECTION("answered") {
    call->finish({});
    CHECK_FALSE(is_waiting());
  }
  SECTION("never sent") {
    call.reset();
    CHECK_FALSE(is_waiting());
  }
  call.reset();
  SECTION("before anyone sees that it has ended") {
    struct WatchedCall final : detail::EventCall {
      using EventCall::EventCall;
      void ending() noexcept override {
        EventCall::ending();
        check();
      }
      detail::UniqueFunction<void()> check;
    };
    bool was_waiting = true;
    bool was_finished = true;
    WatchedCall watched{SerializedEvent{}};
    {
      const detail::RunningHooks running(own.hash, own.epoch);
      watched.wait_on_this_thread();
    }
    REQUIRE(watched.may_wait_for(other.hash, other.epoch));
    watched.check = [&] {
      was_finished = watched.is_finished();
      was_waiting = is_waiting();
      // The remote learns of the map's epoch at this moment.
      CHECK(watched.may_wait_for(other.hash, other.epoch));
    };
    watched.finish({});
    CHECK_FALSE(was_finished);
    CHECK_FALSE(was_waiting);
    CHECK_FALSE(is_waiting());
  }
  // A thread that runs no hook may wait for everything, and is no part of a circle.
  auto free = std::make_shared<detail::EventCall>(SerializedEvent{});
  free->wait_on_this_thread();
  CHECK(free->may_wait_for(own.hash, own.epoch));
  CHECK_FALSE(is_waiting());
}

TEST_CASE("a hook may wait for an event of a map with the same hash on another server", "[guarantee_5]") {
  World upstream;
  const Handle above = upstream.host();
  World world;
  world.restart({}, false);
  // One clock for both: the hook drives the other world while it waits.
  const auto remote = upstream.connect();
  const Map copy = upstream.make_map(remote);
  std::error_code code;
  world.server->add_hook([&](Map& map, const Change& event) {
    code = error_of([&] { remote->send_event(map.hash(), event); });
  });
  world.server->start();
  const Handle handle = world.host();
  REQUIRE(handle.hash() == above.hash());
  const auto client = world.connect();
  const Map map = world.make_map(client);
  CHECK(client->send_event(map.hash(), set_key(key_name(0), "relayed")).update_id == 1);
  CHECK(code == std::error_code());
  CHECK(upstream.runs == Texts{"relayed"});
}

TEST_CASE("no event runs and nothing changes once the server is stopped", "[guarantee_5]") {
  ThrowingWorld world;
  const Handle handle = world.host();
  const auto remote = world.connect();
  const Map map = world.make_map(remote);
  CHECK(remote->send_event(map.hash(), Change{{"nothing", "", "first"}}).update_id == 0);
  world.runs.clear();
  const auto send = [&](const std::string& value) {
    return Sent::send(world, remote, map.hash(), set_key(key_name(0), value));
  };

  SECTION("by a hook, with more events in its turn") {
    world.in_hook = [&](Map&, const Change&) { world.server->core().stop(); };
    std::vector<Sent> sent;
    for (int i = 0; i < 20; ++i) sent.push_back(send(std::to_string(i)));
    world.time.advance(60s);
    CHECK(world.runs == Texts{"0"});
    CHECK(handle.update_id() == 1);  // what runs comes to its end
    for (const Sent& event : sent) {
      REQUIRE(event.is_finished());
      // They were sent, and no answer came. The first one did run.
      CHECK(event.error() == StateErrc::outcome_unknown);
    }
  }
  SECTION("before the events' turn") {
    handle.modify([&](Map&) {
      // The map is busy: what comes waits for its hooks.
      const Sent event = send("waits");
      world.time.run_ready();
      CHECK(world.runs.empty());
      world.server->core().stop();
    });
    world.time.advance(60s);
    CHECK(world.runs.empty());
    CHECK(handle.update_id() == 0);
  }
  const auto unchanged = [](Map&) { FAIL("a change of a map whose server is stopped"); };
  CHECK(error_of([&] { handle.modify(unchanged); }) == StateErrc::stopped);
}

TEST_CASE("a stopped server says so to whatever would change it") {
  World world;
  ServerCore<std::string, std::string, Command>& core = world.server->core();
  const auto remote = world.connect();
  REQUIRE(world.wait([&] { return remote->status().state == LinkState::live; }));
  CHECK_NOTHROW(core.set_passwords({password, "other"}));
  CHECK_NOTHROW(core.recheck());
  CHECK(core.disconnect([](const Peer&) { return false; }) == 0);
  world.server->stop();
  const auto check = [](const std::string& call, auto&& f) {
    INFO(call);
    const Failed failed = failure_of(f);
    CHECK(failed.code == StateErrc::stopped);
    CHECK_THAT(failed.detail, contains_text(call));
  };
  check("set_passwords", [&] { core.set_passwords({"another"}); });
  check("recheck", [&] { core.recheck(); });
  check("disconnect", [&] { core.disconnect([](const Peer&) { return true; }); });
  check("add_hook", [&] { core.add_hook([](Map&, const Change&) {}); });
  check("add_init_hook", [&] { core.add_init_hook([](const Handle&) {}); });
  CHECK(error_of([&] { core.start(); }) == StateErrc::stopped);
  CHECK(error_of([&] { world.host(); }) == StateErrc::stopped);
}

TEST_CASE("an event that was sent when its remote ends may have run, and one that was not sent has not",
          "[guarantee_5]") {
  World world;
  auto remote = world.connect();
  const Map map = world.make_map(remote);
  CHECK(remote->send_event(map.hash(), set_key(key_name(0), "first")).update_id == 1);
  world.port->faults().is_server_deaf = true;
  const auto core = remote->core().shared_from_this();
  const Sent sent = Sent::send(world, remote, map.hash(), set_key(key_name(0), "sent"));
  world.time.run_ready();
  const Sent asked = Sent::send(world, remote, map.hash(), set_key(key_name(0), "not sent"));
  core->stop();
  const Sent late = Sent::send(world, remote, map.hash(), set_key(key_name(0), "after the end"));
  world.time.run_ready();
  REQUIRE(sent.is_finished());
  CHECK(sent.error() == StateErrc::outcome_unknown);
  REQUIRE(asked.is_finished());
  REQUIRE(late.is_finished());
  CHECK(late.error() == StateErrc::stopped);
}

TEST_CASE("an event that is not waited for ends with its time limit, too", "[guarantee_5]") {
  World world;
  RemoteCoreOptions options;
  options.event_timeout = 3s;
  const auto remote = world.connect(options);
  const Map map = world.make_map(remote);
  CHECK(remote->send_event(map.hash(), set_key(key_name(0), "first")).update_id == 1);
  const bool is_sent = GENERATE(false, true);
  CAPTURE(is_sent);
  if (is_sent) {
    world.port->faults().is_server_deaf = true;
  } else {
    world.port->set_unreachable(true);
    world.port->cut_all();
    world.time.run_ready();
  }
  const Sent event = Sent::send(world, remote, map.hash(), set_key(key_name(0), "late"));
  world.time.advance(2'900ms);
  CHECK_FALSE(event.is_finished());
  world.time.advance(500ms);  // a remote looks at its clock four times a second
  REQUIRE(event.is_finished());
  CHECK(event.error() == (is_sent ? StateErrc::outcome_unknown : StateErrc::unavailable));
  CHECK(world.runs == Texts{"first"});
}

TEST_CASE("a cancelled event that was sent may have run, and one that was not sent never runs",
          "[guarantee_5]") {
  World world;
  const auto remote = world.connect();
  const Map map = world.make_map(remote);
  CHECK(remote->send_event(map.hash(), set_key(key_name(0), "first")).update_id == 1);
  const bool is_sent = GENERATE(false, true);
  CAPTURE(is_sent);
  if (is_sent) {
    world.port->faults().is_server_deaf = true;
  } else {
    world.port->set_unreachable(true);
    world.port->cut_all();
    world.time.run_ready();
  }
  const auto cancelled = make_error_code(std::errc::operation_canceled);
  const Sent event = Sent::send(world, remote, map.hash(), set_key(key_name(0), "cancelled"));
  world.time.run_ready();
  CHECK(event.done->is_sent() == is_sent);
  remote->core().cancel(event.done, cancelled);
  world.time.run_ready();
  REQUIRE(event.is_finished());
  CHECK(event.error() == (is_sent ? make_error_code(StateErrc::outcome_unknown) : cancelled));
  world.port->faults().is_server_deaf = false;
  world.port->set_unreachable(false);
  world.port->resume_reading();
  world.time.advance(120s);
  CHECK(world.runs == (is_sent ? Texts{"first", "cancelled"} : Texts{"first"}));
  // What came too late for the caller takes the number of no other event.
  CHECK(remote->send_event(map.hash(), set_key(key_name(0), "next")).update_id == (is_sent ? 3 : 2));
}

TEST_CASE("an event of number 0 is told that it never runs", "[guarantee_5]") {
  World world;
  const Handle handle = world.host();
  const auto peer = connect_raw(world.time, *world.port, password);
  peer->send(open_of(handle.hash()));
  peer->send(protocol::GetSender{1, 0});
  world.time.run_ready();
  const SerializedEvent event = serialize_event(set_key(key_name(0), "x"));
  peer->send(protocol::EventType{1, event.type_name});
  const auto send = [&](std::uint64_t number) {
    protocol::EventMessage message;
    message.channel = 1;
    message.number = number;
    message.bytes = event.bytes;
    peer->send(message);
    world.time.run_ready();
  };
  for (const bool is_first : {true, false}) {
    CAPTURE(is_first);
    peer->forget();
    send(0);
    REQUIRE(peer->find<protocol::AnswerError>());
    CHECK(peer->find<protocol::AnswerError>()->reason == StateErrc::protocol_error);
    CHECK_THAT(peer->find<protocol::AnswerError>()->detail, contains_text("number 1"));
    CHECK(world.runs.size() == (is_first ? 0 : 1));
    if (is_first) send(1);
  }
  CHECK(handle.update_id() == 1);
  CHECK(peer->is_open());
}

namespace {

/// Hook executors whose tasks run when the test says so, and whose clock the hooks move.
class ManualPool final : public ExecutorPool {
 public:
  class Serial final : public SerialExecutor {
   public:
    explicit Serial(ManualPool& pool) : pool_(&pool) {}
    [[nodiscard]] TimePoint now() const override { return pool_->now; }
    void post(Task task) override { pool_->tasks.emplace_back(this, std::move(task)); }
    void post_at(TimePoint, Task task) override { post(std::move(task)); }
    [[nodiscard]] bool runs_here() const override { return is_running_; }
    bool wait_until(TimePoint, detail::UniqueFunction<bool()> is_done) override { return is_done(); }
    void wake_waiters() override {}
    void run_blocking(Task task) override { run(task); }
    void run(Task& task) {
      is_running_ = true;
      task();
      is_running_ = false;
    }

   private:
    ManualPool* pool_;
    bool is_running_ = false;
  };

  [[nodiscard]] std::shared_ptr<SerialExecutor> make_serial() override {
    serials.push_back(std::make_shared<Serial>(*this));
    return serials.back();
  }
  void stop() override { tasks.clear(); }

  /// Runs the next task; false if there is none.
  bool run_one() {
    if (tasks.empty()) return false;
    auto [serial, task] = std::move(tasks.front());
    tasks.pop_front();
    serial->run(task);
    return true;
  }

  TimePoint now = TimePoint{} + 1h;
  std::vector<std::shared_ptr<Serial>> serials;
  std::deque<std::pair<Serial*, Executor::Task>> tasks;
};

}  // namespace

TEST_CASE("the hooks of one map give the thread to others after 200 us, however many events wait") {
  constexpr std::size_t events = 64;
  inproc::VirtualTime time;
  const auto pool = std::make_shared<ManualPool>();
  const auto core =
      ServerCore<std::string, std::string, Command>::create(ServerCoreOptions{.passwords = {password}}, pool);
  const auto hook_takes = GENERATE(as<Duration>(), 100us, 30us, 300us, 5ms);
  CAPTURE(std::chrono::duration_cast<std::chrono::microseconds>(hook_takes).count());
  std::vector<std::string> runs;
  core->add_hook([&](Map& map, const Change& event) {
    runs.push_back(event.content.value);
    map.set(key_name(0), event.content.value);
    pool->now += hook_takes;
  });
  core->start();
  const auto executor = time.make_executor();
  const auto lane = core->add_lane(executor);
  const auto port = std::make_shared<inproc::Port>();
  port->listen(executor, [&](std::shared_ptr<inproc::WireEnd> end, const std::string& address) {
    return core->accept(lane, address, [&end] { return std::move(end); });
  });
  const Handle slow = core->host(make_master(4));
  const Handle other = core->host(make_master(5));
  const auto peer = connect_raw(time, *port, password);
  const SerializedEvent sample = serialize_event(set_key(key_name(0), "x"));
  for (const auto& [channel, handle] : {std::pair(1u, &slow), std::pair(2u, &other)}) {
    peer->send(open_of(handle->hash(), channel));
    peer->send(protocol::GetSender{channel, 0});
    peer->send(protocol::EventType{channel, sample.type_name});
  }
  time.run_ready();
  const auto send = [&](protocol::ChannelId channel, std::uint64_t number, const std::string& value) {
    const SerializedEvent event = serialize_event(set_key(key_name(0), value));
    protocol::EventMessage message;
    message.channel = channel;
    message.number = number;
    message.bytes = event.bytes;
    peer->send(message);
  };
  for (std::uint64_t number = 1; number <= events; ++number) send(1, number, "slow");
  time.run_ready();
  send(2, 1, "other");
  time.run_ready();

  // Events came, so the server has asked for a thread, once for each map, before anything is waited for.
  REQUIRE(pool->tasks.size() == 2);
  CHECK(runs.empty());
  const TimePoint began = pool->now;
  REQUIRE(pool->run_one());
  // It began no further hook after its time, and answers up to 16 short ones at a time.
  const Duration took = pool->now - began;
  CHECK(took >= 200us);
  CHECK(took <= 200us + 16 * std::min<Duration>(hook_takes, 100us) + hook_takes);
  CHECK(runs.size() < events);
  CHECK(std::count(runs.begin(), runs.end(), "other") == 0);
  REQUIRE(pool->run_one());
  CHECK(runs.back() == "other");  // it waited for one slice
  std::size_t slices = 0;
  while (pool->run_one()) {
    if (++slices > 2 * events) FAIL("slices without an end: " << runs.size() << " events have run");
    time.run_ready();
  }
  CHECK(runs.size() == events + 1);
  CHECK(slow.update_id() == events);
  time.run_ready();
  std::uint64_t answered = 0;
  for (const auto& answer : peer->all<protocol::Answer>()) answered += 1 + answer.more;
  CHECK(answered == events + 1);
  core->stop();
  time.run_ready();
}

}  // namespace syncstate::testing::hooks_test
