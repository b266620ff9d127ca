// Questions whose link is cut in between, wherever that is.
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <system_error>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"

namespace syncstate::testing::cut_test {

TEST_CASE("what is asked of a server is answered though the link is cut in between, wherever that is") {
  const std::string question = GENERATE("freeze", "attach", "sync", "hosted", "differing key", "event");
  INFO(question);
  for (std::size_t cut_after = 0; cut_after < 900; cut_after += 5) {
    ServerCoreOptions options;
    options.allow_uploads = question != "differing key";
    options.limits.piece_bytes = 20;
    World world(options);
    const Handle handle = world.host(6);
    handle.modify([](Map& map) { map.set("key01", "x"); });
    const auto remote = world.connect();
    Map known = world.make_map(remote, 6);
    world.port->faults().read_bytes = 1;
    // Cuts the links when every executor had so many turns.
    const auto executor = world.time.make_executor();
    const auto left = std::make_shared<std::size_t>(cut_after);
    const auto cut = std::make_shared<std::function<void()>>();
    *cut = [&world, executor, left, weak = std::weak_ptr(cut)] {
      const auto again = weak.lock();
      if (!again) return;
      if (*left == 0) return world.port->cut_all();
      --*left;
      executor->post([again] { (*again)(); });
    };
    executor->post([cut] { (*cut)(); });
    INFO("cut after " << cut_after << " turns");
    Map map(remote);
    if (question == "freeze") {
      push_keys(map, 9);
      REQUIRE_NOTHROW(map.freeze());
      CHECK(remote->hosted().size() == 2);
    } else if (question == "attach") {
      map = remote->attach<std::string, std::string>(handle.hash());
      REQUIRE(map.size() == 6);
    } else if (question == "sync") {
      REQUIRE(known.sync() == 1);
      REQUIRE(known.at("key01") == "x");
    } else if (question == "hosted") {
      REQUIRE(remote->hosted().size() == 1);
    } else if (question == "event") {
      REQUIRE(remote->send_event(handle.hash(), set_key("key02", "y")).update_id == 2);
      REQUIRE(world.runs.size() == 1);
    } else {
      for (std::size_t i = 0; i < 6; ++i) map.push(key_name(i), i >= 4 ? "other" : "-");
      std::error_code code;
      std::string detail;
      try {
        map.freeze();
      } catch (const StateError& error) {
        code = error.code();
        detail = error.detail();
      }
      REQUIRE(code == StateErrc::hash_mismatch);
      REQUIRE_THAT(detail, contains_text("key04"));
    }
  }
}

}  // namespace syncstate::testing::cut_test
