// Who is asked for a map that several clients could bring.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"
#include "syncstate/detail/server/upload_order.hpp"

namespace syncstate::testing::upload_test {
namespace {

/// The keys that the tests' clients bring, and the map of them.
constexpr std::size_t keys = 3;

MapHash hash_brought(const std::string& initial = "brought") { return make_master(keys, initial).hash(); }

/// A client that, asked for the map, sends a little of it from time to time and never ends.
struct Trickler {
  /// The first value sent has `first_bytes`, all others one.
  Trickler(World& world, const std::string& address, Duration every, std::size_t first_bytes = 1)
      : first(first_bytes),
        peer(connect_raw(world.time, *world.port, password, address)),
        executor(world.time.make_executor()) {
    peer->send(open_of(hash_brought()));
    world.time.run_ready();
    trickle(every);
  }
  Trickler(const Trickler&) = delete;
  Trickler& operator=(const Trickler&) = delete;
  ~Trickler() { *is_over = true; }

  [[nodiscard]] bool was_asked() const { return peer->find<protocol::UploadWanted>().has_value(); }
  [[nodiscard]] bool was_opened() const { return peer->find<protocol::Opened>().has_value(); }

  void trickle(Duration every) {
    executor->post_at(executor->now() + every, [this, every, is_over = is_over] {
      if (*is_over || !peer->is_open()) return;
      peer->send_frame(static_cast<std::uint8_t>(protocol::FrameKind::heartbeat), {});
      if (was_asked()) send_some();
      trickle(every);
    });
  }

  void send_some() {
    Bytes entry;
    ByteWriter out(entry);
    out.put_sized("key" + std::to_string(1'000'000 + ++sent));
    out.put_sized(std::string(sent == 1 ? first : 1, 'v'));
    peer->send(upload_of(entry));
  }

  std::size_t first;
  std::shared_ptr<RawPeer> peer;
  std::shared_ptr<inproc::VirtualExecutor> executor;
  std::shared_ptr<bool> is_over = std::make_shared<bool>(false);
  std::uint64_t sent = 0;
};

/// How long an owner of the map waits for it to be hosted.
Duration time_to_freeze(World& world, const std::string& initial = "brought") {
  const auto remote = world.connect();
  Map map(remote);
  push_keys(map, keys, initial);
  const TimePoint began = world.time.now();
  map.freeze(30min);
  CHECK(map.hash() == hash_brought(initial));
  return world.time.now() - began;
}

}  // namespace

TEST_CASE("an upload that goes on byte by byte keeps an owner of the map out for a moment only") {
  World world;
  const auto every = GENERATE(as<Duration>(), 10s, 1s, 100ms);
  Trickler slow(world, "192.0.2.1", every);
  REQUIRE(slow.was_asked());
  CHECK(time_to_freeze(world) <= Limits{}.upload_patience + 2s);
  CHECK(world.connect()->hosted().size() == 1);
  // The map is there: the slow one has it, too, and what it still sends of it harms nobody.
  CHECK(slow.was_opened());
  world.time.advance(30s);
  CHECK(slow.peer->is_open());
  slow.peer->send(protocol::UploadEnd{1});
  slow.peer->send(protocol::List{2});
  world.time.run_ready();
  CHECK(slow.peer->find<protocol::Hosted>().has_value());
  slow.send_some();  // after its end it is nobody's wish
  world.time.run_ready();
  CHECK(slow.peer->goodbye() == StateErrc::protocol_error);
}

TEST_CASE("an owner of a map is asked soon, however many links trickle it, and sooner at another address") {
  const bool is_elsewhere = GENERATE(false, true);
  constexpr std::size_t tricklers = 40;
  World world;
  std::vector<std::unique_ptr<Trickler>> slow;
  for (std::size_t i = 0; i < tricklers; ++i) {
    slow.push_back(std::make_unique<Trickler>(world, is_elsewhere ? "192.0.2.1" : "127.0.0.1", 1s));
  }
  const Duration time = time_to_freeze(world);
  const Duration patience = Limits{}.upload_patience;
  // At least two places are free for others after each patience, once four are taken.
  CHECK(time <= (is_elsewhere ? 2 : tricklers / 2 + 2) * (patience + 1s));
  std::size_t asked = 0;
  for (const auto& one : slow) asked += one->was_asked() ? 1 : 0;
  CHECK(asked <= (is_elsewhere ? 4 : tricklers));
  for (const auto& one : slow) {
    CHECK(one->peer->is_open());
    CHECK(one->was_opened());
  }
}

TEST_CASE("uploads that make way give their bytes back, and no more than four are taken at a time") {
  // There is room for four first pieces, each as the value it is and as the one of a hosted map, and a little more.
  constexpr std::size_t first_bytes = 20'000;
  ServerCoreOptions options;
  options.limits.all_map_bytes = 12 * first_bytes;
  World world(options);
  std::vector<std::unique_ptr<Trickler>> slow;
  for (std::size_t i = 0; i < 30; ++i) {
    slow.push_back(std::make_unique<Trickler>(world, "127.0.0.1", 500ms, first_bytes));
  }
  CHECK(time_to_freeze(world) <= 3min);
  for (const auto& one : slow) {
    CHECK_FALSE(one->peer->find<protocol::Refused>());
    CHECK(one->was_opened());
  }
}

TEST_CASE("an upload that comes to nothing gives its bytes back") {
  enum class End { another_was_first, channel_closed, link_lost, wrong };
  const auto end = GENERATE(End::another_was_first, End::channel_closed, End::link_lost, End::wrong);
  CAPTURE(static_cast<int>(end));
  // There is room for two such uploads, each as the value it is and as the one of a hosted map.
  constexpr std::size_t value_bytes = 50'000;
  ServerCoreOptions options;
  options.limits.all_map_bytes = 5 * value_bytes;
  World world(options);
  std::vector<std::shared_ptr<RawPeer>> losers;
  for (int i = 0; i < 6; ++i) {
    const std::string initial = "brought " + std::to_string(i);
    const auto loser = connect_raw(world.time, *world.port, password, "192.0.2." + std::to_string(i));
    losers.push_back(loser);
    loser->send(open_of(hash_brought(initial)));
    world.time.run_ready();
    REQUIRE(loser->find<protocol::UploadWanted>());
    Bytes entry;
    ByteWriter out(entry);
    out.put_sized(std::string_view("key"));
    out.put_sized(std::string(value_bytes, 'v'));
    loser->send(upload_of(entry));
    world.time.run_ready();
    CHECK_FALSE(loser->find<protocol::Refused>());
    if (end == End::channel_closed) loser->send(protocol::CloseChannel{1});
    if (end == End::link_lost) loser->abort();
    if (end == End::wrong) loser->send(protocol::UploadEnd{1});
    CHECK(time_to_freeze(world, initial) <= Limits{}.upload_patience + 2s);
    if (end == End::another_was_first) CHECK(loser->find<protocol::Opened>());
    if (end == End::wrong) CHECK(loser->goodbye() == StateErrc::hash_mismatch);
    // The bytes are given back while the link lives, not only because it is gone.
    CHECK(loser->is_open() == (end == End::another_was_first || end == End::channel_closed));
  }
}

TEST_CASE("a map that a client brought counts while it is hosted") {
  constexpr std::size_t value_bytes = 50'000;
  ServerCoreOptions options;
  options.limits.all_map_bytes = 3 * value_bytes;
  World world(options);
  for (const char key : {'a', 'b'}) {
    CAPTURE(key);
    const std::string name(1, key);
    const std::string value(value_bytes, key);
    Map map(Role::master);
    map.push(name, value);
    map.freeze();
    Bytes entry;
    ByteWriter out(entry);
    out.put_sized(name);
    out.put_sized(value);
    const auto peer = connect_raw(world.time, *world.port, password);
    peer->send(open_of(map.hash()));
    world.time.run_ready();
    peer->send(upload_of(entry));
    peer->send(protocol::UploadEnd{1});
    world.time.run_ready();
    const auto refused = peer->find<protocol::Refused>();
    if (key == 'a') {
      CHECK_FALSE(refused);
      CHECK(peer->find<protocol::Opened>());
    } else {
      REQUIRE(refused);
      CHECK(refused->reason == StateErrc::busy);
    }
  }
}

TEST_CASE("several whole uploads of one map end with one map that all of them have") {
  World world;
  world.restart({}, false);
  int init_hooks = 0;
  world.server->add_init_hook([&](const auto&) { ++init_hooks; });
  world.server->start();
  std::vector<std::shared_ptr<RawPeer>> owners;
  for (int i = 0; i < 4; ++i) {
    owners.push_back(connect_raw(world.time, *world.port, password, "192.0.2." + std::to_string(i)));
    owners.back()->send(open_of(hash_brought()));
  }
  Bytes entries;
  ByteWriter out(entries);
  for (std::size_t i = 0; i < keys; ++i) {
    out.put_sized(key_name(i));
    out.put_sized(std::string_view("brought"));
  }
  // All are asked in the end, as none of them brings anything.
  for (int step = 0; step < 40 && !owners.back()->find<protocol::UploadWanted>(); ++step) {
    for (const auto& owner : owners) {
      owner->send_frame(static_cast<std::uint8_t>(protocol::FrameKind::heartbeat), {});
    }
    world.time.advance(500ms);
  }
  bool is_first = true;
  for (const auto& owner : owners) {
    if (!owner->find<protocol::UploadWanted>()) continue;
    protocol::Upload upload;
    upload.channel = 1;
    // What the first one brings has another hash: it is empty.
    if (!std::exchange(is_first, false)) upload.bytes = entries;
    owner->send(upload);
    owner->send(protocol::UploadEnd{1});
  }
  world.time.run_ready();
  CHECK(owners[0]->goodbye() == StateErrc::hash_mismatch);
  CHECK(init_hooks == 1);
  for (std::size_t i = 1; i < owners.size(); ++i) {
    INFO("owner " << i);
    CHECK(owners[i]->all<protocol::Opened>().size() == 1);
    CHECK(owners[i]->is_open());
  }
  CHECK(world.connect()->hosted().size() == 1);
}

TEST_CASE("a wrong upload ends its own session, and those beside it go on") {
  World world;
  Trickler slow(world, "192.0.2.1", 1s);
  const auto wrong = connect_raw(world.time, *world.port, password, "192.0.2.2");
  wrong->send(open_of(hash_brought()));
  world.time.advance(7s);
  REQUIRE(wrong->find<protocol::UploadWanted>().has_value());
  wrong->send(protocol::UploadEnd{1});
  world.time.run_ready();
  CHECK(wrong->goodbye() == StateErrc::hash_mismatch);
  CHECK(slow.peer->is_open());
  CHECK(time_to_freeze(world) <= Limits{}.upload_patience + 2s);
  CHECK(slow.was_opened());
}

TEST_CASE("owners of a large map that all bring it slowly do not make way for each other for ever") {
  // Each needs some twenty times the patience for the map.
  World world;
  Map large(Role::master);
  constexpr std::size_t large_keys = 100;
  push_keys(large, large_keys, "brought");
  large.freeze();
  struct Owner {
    std::shared_ptr<RawPeer> peer;
    std::size_t next = 0;
    bool is_done = false;
  };
  std::vector<Owner> owners(10);
  for (Owner& owner : owners) {
    owner.peer = connect_raw(world.time, *world.port, password);
    owner.peer->send(open_of(large.hash()));
    world.time.run_ready();
  }
  const auto is_hosted = [&] {
    for (const Owner& owner : owners) {
      if (owner.peer->find<protocol::Opened>()) return true;
    }
    return false;
  };
  const TimePoint began = world.time.now();
  while (!is_hosted() && world.time.now() - began < 5min) {
    for (Owner& owner : owners) {
      owner.peer->send_frame(static_cast<std::uint8_t>(protocol::FrameKind::heartbeat), {});
      if (!owner.peer->find<protocol::UploadWanted>() || owner.is_done) continue;
      if (owner.next == large_keys) {
        owner.is_done = true;
        owner.peer->send(protocol::UploadEnd{1});
        continue;
      }
      Bytes entry;
      ByteWriter out(entry);
      out.put_sized(key_name(owner.next++));
      out.put_sized(std::string_view("brought"));
      owner.peer->send(upload_of(entry));
    }
    world.time.advance(1s);
  }
  CHECK(world.time.now() - began <= 110s);
  CHECK(is_hosted());
}

TEST_CASE("addresses, their links and the links' channels are asked in turn") {
  detail::UploadOrder order;
  const auto next = [&] { return order.next().value_or(detail::ChannelOfLink{0, 0}); };
  CHECK(order.is_empty());
  CHECK(next() == detail::ChannelOfLink{0, 0});
  for (protocol::ChannelId channel = 1; channel <= 3; ++channel) order.add("a", {1, channel});
  order.add("a", {2, 1});
  order.add("b", {3, 1});
  order.add("c", {4, 1});
  order.remove("c", {4, 1});
  order.remove("c", {4, 1});
  order.remove("a", {9, 1});
  CHECK(next() == detail::ChannelOfLink{1, 1});
  CHECK(next() == detail::ChannelOfLink{3, 1});
  CHECK(next() == detail::ChannelOfLink{2, 1});
  order.add("b", {3, 2});
  CHECK(next() == detail::ChannelOfLink{1, 2});
  CHECK(next() == detail::ChannelOfLink{3, 2});
  CHECK_FALSE(order.is_empty());
  CHECK(next() == detail::ChannelOfLink{1, 3});
  CHECK(order.is_empty());
}

}  // namespace syncstate::testing::upload_test
