// Waiting for a replica as an Asio operation.
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/async/async_wait_for.hpp"
#include "syncstate/replica.hpp"
#include "syncstate/state_map.hpp"

#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/strand.hpp>
#include <asio/use_awaitable.hpp>

namespace async_wait_for_test {

namespace ss = syncstate;
using Map = ss::StateMap<std::string, int>;
using Replica = ss::Replica<std::string, int>;

namespace {

struct FollowedRemote {
  void init(const Map&) {}
  ss::Diff<std::string, int> fetch_updates(const Map& map, ss::UpdateId) {
    return {map, map.epoch(), map.update_id(), map.update_id()};
  }
  ss::Subscription follow(const Map&, std::shared_ptr<ss::DiffSink<std::string, int>> to) {
    sink = std::move(to);
    return ss::Subscription();
  }
  std::shared_ptr<ss::DiffSink<std::string, int>> sink;
};

template <class M>
M with_keys(M map) {
  map.push("a", 0);
  map.freeze();
  return map;
}

struct World {
  void step() {
    const ss::UpdateId from = master.update_id();
    master.set("a", static_cast<int>(from) + 1);
    REQUIRE_FALSE(remote->sink->on_diff(master.diff(from, from + 1)));
  }

  Map master = with_keys(Map(ss::Role::master));
  std::shared_ptr<FollowedRemote> remote = std::make_shared<FollowedRemote>();
  std::optional<Replica> replica{std::in_place, with_keys(Map(remote))};
  asio::io_context context;
};

}  // namespace

TEST_CASE("async_wait_for completes on the handler's executor, never inside the call") {
  World world;
  std::vector<std::string> calls;
  const auto strand = asio::make_strand(world.context);
  const auto note = [&](std::string name) {
    return asio::bind_executor(strand, [&calls, &strand, name](std::error_code code) {
      CHECK(strand.running_in_this_thread());
      calls.push_back(name + (code ? ": " + code.message() : ""));
    });
  };
  ss::async_wait_for(*world.replica, 0, note("zero"));
  ss::async_wait_for(*world.replica, 1, note("one"));
  ss::async_wait_for(*world.replica, 2, note("two"));
  CHECK(calls.empty());
  world.step();
  CHECK(calls.empty());
  world.context.poll();
  CHECK(calls == std::vector<std::string>{"zero", "one"});
  CHECK_FALSE(world.context.stopped());  // the wait for 2 is work
  world.replica.reset();
  world.context.run();
  REQUIRE(calls.size() == 3);
  CHECK(calls.back() == "two: stopped");
}

TEST_CASE("async_wait_for can be cancelled") {
  World world;
  asio::cancellation_signal signal;
  std::vector<std::error_code> codes;
  const auto wait = [&](ss::UpdateId id) {
    ss::async_wait_for(*world.replica, id,
                       asio::bind_cancellation_slot(
                           signal.slot(), asio::bind_executor(world.context, [&](std::error_code code) {
                             codes.push_back(code);
                           })));
  };
  wait(1);
  signal.emit(asio::cancellation_type::terminal);
  world.context.run();
  REQUIRE(codes.size() == 1);
  CHECK(codes[0] == asio::error::operation_aborted);
  world.step();  // reaches what nobody waits for any more
  world.context.restart();
  world.context.run();
  CHECK(codes.size() == 1);

  wait(1);
  signal.emit(asio::cancellation_type::terminal);  // too late: it is reached already
  world.context.restart();
  world.context.run();
  REQUIRE(codes.size() == 2);
  CHECK_FALSE(codes[1]);
}

TEST_CASE("async_wait_for takes a position, which is never reached in another epoch") {
  World world;
  std::vector<std::string> calls;
  const auto wait = [&](ss::Position at, std::string name) {
    ss::async_wait_for(*world.replica, at,
                       asio::bind_executor(world.context, [&calls, name](std::error_code code) {
                         calls.push_back(name + (code == ss::StateErrc::epoch_changed ? ": other epoch"
                                                 : code                               ? ": bad"
                                                                                      : ""));
                       }));
  };
  for (int i = 0; i < 5; ++i) world.step();
  const ss::Position old = world.replica->position();
  Map next = with_keys(Map(ss::Role::master));
  next.set("a", 50);
  wait(old, "old 5");
  wait({old.epoch, 6}, "old 6");
  wait(next.position(), "next 1");
  world.context.poll();
  CHECK(calls == std::vector<std::string>{"old 5"});
  REQUIRE_FALSE(world.remote->sink->on_diff(ss::Diff<std::string, int>::full(next)));
  wait(old, "old 5");
  world.context.run();
  std::sort(calls.begin(), calls.end());
  CHECK(calls == std::vector<std::string>{"next 1", "old 5", "old 5: other epoch", "old 6: other epoch"});

  // Cancelled while its epoch is still to come, and stopped with the replica.
  asio::cancellation_signal signal;
  std::vector<std::error_code> codes;
  const auto note = [&] {
    return asio::bind_executor(world.context, [&](std::error_code code) { codes.push_back(code); });
  };
  ss::async_wait_for(*world.replica, ss::Position{next.epoch() + 1, 0},
                     asio::bind_cancellation_slot(signal.slot(), note()));
  ss::async_wait_for(*world.replica, ss::Position{next.epoch() + 2, 0}, note());
  signal.emit(asio::cancellation_type::terminal);
  world.replica.reset();
  world.context.restart();
  world.context.run();
  CHECK(codes == std::vector<std::error_code>{asio::error::operation_aborted, ss::StateErrc::stopped});
}

#if defined(ASIO_HAS_CO_AWAIT)
TEST_CASE("async_wait_for can be awaited") {
  World world;
  std::vector<std::string> calls;
  asio::co_spawn(
      world.context,
      [&]() -> asio::awaitable<void> {
        co_await ss::async_wait_for(*world.replica, 1, asio::use_awaitable);
        calls.push_back("one: " + std::to_string(world.replica->view().at("a")));
        try {
          co_await ss::async_wait_for(*world.replica, 2, asio::use_awaitable);
        } catch (const std::system_error& error) {
          calls.push_back(error.code().message());
        }
      },
      asio::detached);
  world.context.poll();
  CHECK(calls.empty());
  world.step();
  world.context.poll();
  CHECK(calls == std::vector<std::string>{"one: 1"});
  world.master = with_keys(Map(ss::Role::master));
  world.master.set("a", 5);
  REQUIRE_FALSE(world.remote->sink->on_diff(ss::Diff<std::string, int>::full(world.master)));
  world.context.run();
  REQUIRE(calls.size() == 2);
  CHECK(calls[1] == make_error_code(ss::StateErrc::epoch_changed).message());
}
#endif

}  // namespace async_wait_for_test
