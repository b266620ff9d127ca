// Guarantee 4: from any update id of the epoch a replica gets a diff that names exactly the keys set since.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::g04_resume_test {
namespace {

struct History {
  /// Every commit sets one to three of the keys, or again the key that was set last.
  History(const Handle& handle, std::size_t keys, UpdateId commits, unsigned seed) {
    std::mt19937 random(seed);
    set_by.resize(1);
    std::string last = key_name(0);
    for (UpdateId id = 1; id <= commits; ++id) {
      auto& names = set_by.emplace_back();
      const std::size_t count = random() % 4;
      for (std::size_t i = 0; i < count; ++i) names.insert(key_name(random() % keys));
      if (names.empty()) names.insert(last);
      handle.modify([&](Map& map) {
        for (const std::string& key : names) map.set(key, std::to_string(id));
      });
      last = *names.rbegin();
      for (const std::string& key : names) state[key] = std::to_string(id);
    }
  }
  [[nodiscard]] std::set<std::string> set_since(UpdateId from) const {
    std::set<std::string> names;
    for (std::size_t id = from + 1; id < set_by.size(); ++id)
      names.insert(set_by[id].begin(), set_by[id].end());
    return names;
  }

  std::vector<std::set<std::string>> set_by;  ///< by update id
  std::map<std::string, std::string> state;
};

}  // namespace

TEST_CASE(
    "guarantee 4: a follower resumes from any update id with exactly the keys set since, without a log too") {
  constexpr std::size_t keys = 30;
  constexpr UpdateId commits = 100;
  const std::size_t log_diffs = GENERATE(0u, 4'096u);
  const auto seed = GENERATE(range(1u, 5u));
  World world;
  const Handle handle = world.host(keys, "-", MapOptions{.log_diffs = log_diffs});
  const History history(handle, keys, commits, seed);
  const auto peer = connect_raw(world.time, *world.port, password);
  for (UpdateId from = 0; from <= commits; ++from) {
    peer->forget();
    protocol::Open open;
    open.channel = from + 1;
    open.hash = handle.hash();
    open.key_type = type_name<std::string>();
    open.value_type = type_name<std::string>();
    open.position = {handle.epoch(), from};
    open.mode = protocol::FollowMode::merged;
    peer->send(open);
    world.time.run_ready();
    INFO("from " << from << ", seed " << seed);
    REQUIRE(peer->find<protocol::Opened>().has_value());
    std::vector<std::string> named;
    const auto note = [&](std::uint64_t ordinal, ByteView value) {
      named.push_back(key_name(ordinal));
      REQUIRE(as_string_view(value) == history.state.at(named.back()));
    };
    if (from == commits) {
      REQUIRE(peer->received().size() == 1);  // nothing was set since, so nothing is sent
    } else if (const auto step = peer->find<protocol::Step>()) {
      REQUIRE(from + 1 == commits);
      note(step->ordinal, step->value);
    } else {
      REQUIRE(peer->received().size() == 2);
      const Bytes& body = peer->received()[1].body;
      const auto diff = protocol::decode_body<protocol::DiffMessage>(body);
      REQUIRE(from + diff.advance == commits);
      REQUIRE_FALSE(diff.is_full);
      protocol::for_each_entry(diff.entries, note);
    }
    const std::set<std::string> once(named.begin(), named.end());
    REQUIRE(once.size() == named.size());
    REQUIRE(once == history.set_since(from));
    peer->send(protocol::CloseChannel{from + 1});
  }
}

TEST_CASE("guarantee 4: sync from any position fetches exactly the keys set since, without a log too") {
  constexpr std::size_t keys = 30;
  const std::size_t log_diffs = GENERATE(0u, 4'096u);
  World world;
  const Handle handle = world.host(keys, "-", MapOptions{.log_diffs = log_diffs});
  const auto remote = world.connect();
  std::vector<Map> at;  // copies left behind on the way
  Map map = world.make_map(remote, keys);
  for (unsigned part = 0; part < 20; ++part) {
    at.push_back(map);
    const History part_of_it(handle, keys, 10, part);
    REQUIRE(map.sync() == 10 * (part + 1));
  }
  for (Map& old : at) {
    const UpdateId from = old.update_id();
    const auto diff = remote->fetch_updates(old, ~UpdateId{0});
    REQUIRE(diff.from_update_id() == from);
    REQUIRE(diff.upto_update_id() == 200);
    REQUIRE(old.apply(diff));
    REQUIRE(values_of(old) == values_of(map));
  }
  const auto nothing = remote->fetch_updates(map, ~UpdateId{0});
  CHECK(nothing.is_empty());
}

TEST_CASE("guarantee 4: a replica that was away for any time resumes with one diff") {
  World world;
  const Handle handle = world.host(30, "-", MapOptions{.log_diffs = 2});
  const auto remote = world.connect();
  Follower replica(world.make_map(remote, 30), {});
  REQUIRE(world.wait([&] { return replica.epoch() != 0; }));
  std::vector<std::pair<UpdateId, UpdateId>> steps;
  std::vector<std::string> named;
  replica.on_update([&](const auto& diff) {
    steps.emplace_back(diff.from_update_id(), diff.upto_update_id());
    for (const auto& [key, value] : diff.changes()) named.push_back(key);
  });
  for (unsigned part = 0; part < 5; ++part) {
    world.port->set_unreachable(true);
    world.port->cut_all();
    world.time.advance(1h);
    const UpdateId from = handle.update_id();
    const History away(handle, 30, 50, part);
    world.port->set_unreachable(false);
    REQUIRE(replica.wait_for(handle.update_id(), 120s));
    world.time.run_ready();
    CHECK(steps == std::vector<std::pair<UpdateId, UpdateId>>{{from, from + 50}});
    std::sort(named.begin(), named.end());
    const auto expected = away.set_since(0);
    CHECK(named == std::vector<std::string>(expected.begin(), expected.end()));
    steps.clear();
    named.clear();
  }
}

}  // namespace syncstate::testing::g04_resume_test
