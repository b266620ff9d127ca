// The public behaviour of a map, and every misuse refused by name with the map unchanged.
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/archetypes.hpp"
#include "support/catch.hpp"
#include "syncstate/syncstate.hpp"

namespace syncstate {

template <class K, class V>
class MasterHandle {};  // the concepts only pass it on

namespace testing::state_map_test {
namespace {

using Map = StateMap<std::string, std::string>;
using TextDiff = Diff<std::string, std::string>;
using detail::MapAccess;

template <class F>
std::error_code error_of(F f) {
  try {
    f();
  } catch (const StateError& error) {
    return error.code();
  }
  return {};
}

std::string printed(const auto& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

void push_letters(Map& map) {
  map.push("b", "2");
  map.push("a", "1");
  map.push("c", "3");
}

Map make_map(Role role, MapOptions options = {}) {
  Map map(role, options);
  push_letters(map);
  map.freeze();
  return map;
}

// All that can be seen of a map.
std::string face(const Map& map) {
  std::ostringstream out;
  out << map.is_frozen() << " " << map.epoch() << " " << map.update_id() << " " << map.size();
  if (map.is_frozen()) out << " " << map << " " << map.hash() << " " << TextDiff::full(map);
  return out.str();
}

// `f` throws this error, and the map is as it was.
#define CHECK_REFUSED(map, errc, ...)                                 \
  do {                                                                \
    const std::string face_before = face(map);                        \
    CHECK(error_of([&] { (void)(__VA_ARGS__); }) == StateErrc::errc); \
    CHECK(face(map) == face_before);                                  \
  } while (false)

// Says what it was asked, and gives what it was told to give.
struct ScriptedRemote {
  void init(const Map&, Duration timeout) {
    inits.push_back(timeout);
    if (init_error) throw StateError(init_error);
  }
  TextDiff fetch_updates(const Map& map, UpdateId upto) {
    asked.emplace_back(map.update_id(), upto);
    if (const bool is_of_another = map.epoch() != 0 && map.epoch() != master->epoch();
        is_of_another && !fetch_error) {
      return TextDiff::full(*master);
    }
    if (fetch_error) throw StateError(fetch_error);
    return master->diff(map.update_id(), upto);
  }

  Map* master = nullptr;
  std::error_code init_error;
  std::error_code fetch_error;
  std::vector<Duration> inits;
  std::vector<std::pair<UpdateId, UpdateId>> asked;
};

Map map_of(const std::shared_ptr<ScriptedRemote>& remote) {
  Map map(remote);
  push_letters(map);
  return map;
}

// A value whose copies fail when told to.
struct Fragile {
  explicit Fragile(int n) : number(n) {}
  Fragile(const Fragile& other) : number(other.number) {
    if (copies_left >= 0 && copies_left-- == 0) throw std::runtime_error("no more copies");
  }
  Fragile& operator=(const Fragile& other) {
    Fragile copy(other);
    number = copy.number;
    return *this;
  }
  Fragile(Fragile&&) noexcept = default;
  Fragile& operator=(Fragile&&) noexcept = default;

  int number;
  static inline int copies_left = -1;
};

}  // namespace
}  // namespace testing::state_map_test

template <>
struct Codec<testing::state_map_test::Fragile> {
  static void encode(const testing::state_map_test::Fragile& value, ByteWriter& out) {
    out.put_varint(static_cast<std::uint64_t>(value.number));
  }
  static testing::state_map_test::Fragile decode(ByteReader& in) {
    return testing::state_map_test::Fragile(static_cast<int>(in.read_varint()));
  }
  static std::string type_name() { return "fragile"; }
};

namespace testing::state_map_test {

static_assert(StateKey<KeyArchetype> && StateValue<ValueArchetype> && StateValue<KeyArchetype>);
static_assert(!StateKey<ValueArchetype> && !StateKey<double> && !StateValue<std::unique_ptr<int>>);
static_assert(Hook<HookArchetype, int, int, int> && Hook<ContextHookArchetype, int, int, int>);
static_assert(!Hook<int, int, int, int> && !Hook<void (*)(int), int, int, int>);
static_assert(InitHook<InitHookArchetype, int, int> && !InitHook<HookArchetype, int, int>);
static_assert(Remote<RemoteArchetype, int, int> && Remote<DummyRemote, std::string, bool>);
static_assert(Remote<ScriptedRemote, std::string, std::string> && !Remote<ScriptedRemote, int, int>);
static_assert(!Remote<EventBroadcasterArchetype, int, int>);
static_assert(EventBroadcaster<EventBroadcasterArchetype> && !EventBroadcaster<RemoteArchetype>);
// A broadcaster may say the position, too.
struct PositionBroadcaster {
  Position send_event(const MapHash&, const SerializedEvent&) { return {3, 4}; }
};
static_assert(EventBroadcaster<PositionBroadcaster>);

// A position stands for its update id where one is wanted, and is compared with positions alone.
template <class A, class B>
concept Equatable =
    requires(const A& a, const B& b) { a == b; } || requires(const A& a, const B& b) { a != b; };
template <class A, class B>
concept Comparable = requires(const A& a, const B& b) { a < b; } || requires(const A& a, const B& b) {
  a >= b;
} || requires(const A& a, const B& b) { a <=> b; };
static_assert(std::convertible_to<Position, UpdateId> && !std::convertible_to<UpdateId, Position>);
static_assert(std::equality_comparable<Position> && !Comparable<Position, Position>);
static_assert(!Equatable<Position, UpdateId> && !Equatable<UpdateId, Position>);
static_assert(!Equatable<Position, int> && !Equatable<int, Position> && !Equatable<Position, bool>);
static_assert(!Equatable<Position, double> && !Equatable<Position, std::size_t>);
static_assert(Position{1, 2} == Position{1, 2} && Position{1, 2} != Position{2, 2} &&
              Position{1, 2} != Position{1, 3});
static_assert(std::invocable<void (*)(std::error_code, UpdateId), std::error_code, Position>);
static_assert(std::is_move_constructible_v<Subscription> && !std::is_copy_constructible_v<Subscription>);
static_assert(!std::is_copy_constructible_v<Modification<int, int>> && !std::is_default_constructible_v<Map>);

TEST_CASE("a map of archetypes works") {
  StateMap<KeyArchetype, ValueArchetype> map(std::make_shared<RemoteArchetype>());
  map.push(KeyArchetype(2), ValueArchetype(20));
  map.push(KeyArchetype(1), ValueArchetype(10));
  map.freeze();
  CHECK(map.at(KeyArchetype(1)).number() == 10);
  CHECK(map[Ordinal(1)].number() == 20);
  CHECK(map.sync() == 0);
  Diff<KeyArchetype, ValueArchetype> diff(map, 7, 0, 1);
  diff.set(KeyArchetype(2), ValueArchetype(21));
  CHECK(map.apply(diff));
  CHECK(map.get(KeyArchetype(2))->number() == 21);
}

TEST_CASE("hooks are called with what they take") {
  Map map = make_map(Role::master);
  const Event<int> event{5};
  HookArchetype two;
  ContextHookArchetype three;
  detail::call_hook(two, map, event, EventContext{});
  detail::call_hook(three, map, event, EventContext{});
  std::string seen;
  auto hook = [&](Map&, const Event<int>& e, const EventContext& from) {
    seen = from.peer_address + std::to_string(e.content);
  };
  detail::call_hook(hook, map, event, EventContext{"127.0.0.1", "", map.hash()});
  CHECK(seen == "127.0.0.15");
}

TEST_CASE("an open map is read by key, and refuses the rest") {
  Map map(Role::master);
  push_letters(map);
  CHECK(map.size() == 3);
  CHECK(*map.get("b") == "2");
  CHECK(map.at("a") == "1");
  CHECK((map.contains("c") && !map.contains("d")));
  CHECK(map.get("d") == nullptr);
  CHECK((map.epoch() == 0 && map.update_id() == 0 && !map.is_frozen()));
  CHECK_REFUSED(map, key_not_found, map.at("d"));
  CHECK_REFUSED(map, duplicate_key, map.push("a", "x"));
  CHECK_REFUSED(map, unfrozen, map.hash());
  CHECK_REFUSED(map, unfrozen, map.begin());
  CHECK_REFUSED(map, unfrozen, map.end());
  CHECK_REFUSED(map, unfrozen, map.key("a"));
  CHECK_REFUSED(map, unfrozen, map[Ordinal(0)]);
  CHECK_REFUSED(map, unfrozen, map.set("a", "x"));
  CHECK_REFUSED(map, unfrozen, map.begin_modification());
  CHECK_REFUSED(map, unfrozen, map.diff(0, 0));
  CHECK_REFUSED(map, unfrozen, map.sync());
  CHECK_REFUSED(map, unfrozen, map.set_update_id(1));
  CHECK_REFUSED(map, unfrozen, TextDiff::full(map));
  CHECK_REFUSED(map, unfrozen, TextDiff(map, 1, 0, 1));
  CHECK_REFUSED(map, unfrozen, map.apply(make_map(Role::master).diff(0, 0)));
  CHECK(map.at("a") == "1");

  Map replica(Role::replica);
  push_letters(replica);
  CHECK_REFUSED(replica, unfrozen, replica.set("a", "x"));
}

TEST_CASE("a frozen master") {
  Map map = make_map(Role::master);
  CHECK((map.is_frozen() && map.epoch() != 0 && map.update_id() == 0 && map.size() == 3));
  CHECK_REFUSED(map, frozen, map.push("d", "4"));
  CHECK_REFUSED(map, key_not_found, map.set("d", "4"));
  CHECK_REFUSED(map, key_not_found, map.at("d"));
  CHECK_REFUSED(map, key_not_found, map.key("d"));
  CHECK_REFUSED(map, key_not_found, map[Ordinal(3)]);
  CHECK_REFUSED(map, key_not_found, map.begin_modification().set("a", "x").set("d", "4").commit());
  CHECK_REFUSED(map, wrong_position, map.diff(1, 0));
  CHECK_REFUSED(map, wrong_position, map.diff(1, 5));
  CHECK(map.get("d") == nullptr);

  CHECK(map.set("a", "1") == 1);  // an equal value is a change
  CHECK(map.diff(0, 1).size() == 1);
  CHECK(map.diff(1, 0).is_empty());
  CHECK(map.key("b") == Ordinal(1));
  CHECK(map[map.key("c")] == "3");
  CHECK(map.sync() == 1);
  CHECK(map.set_update_id(9) == 1);
  map.freeze();  // nothing to wait for
  CHECK(printed(map) == "{a: 1, b: 2, c: 3}");
  CHECK(printed(map.diff(0, 1)) == "diff 0..1 {a: 1}");
  CHECK(printed(TextDiff::full(map)) == "full diff 0..1 {a: 1}");

  std::string order;
  for (auto& [key, value] : map) order += key + value;
  for (const auto& [key, value] : map.diff(0, 1).changes()) order += key + value;
  for (auto& [key, value] : TextDiff::full(map).changes()) order += key + value;
  CHECK(order == "a1b2c3a1a1");
  CHECK(map.begin()->first == "a");
}

TEST_CASE("an empty map, and a map of flags") {
  StateMap<int, bool> empty(Role::master);
  empty.freeze();
  CHECK((empty.size() == 0 && empty.begin() == empty.end() && empty.get(1) == nullptr));

  StateMap<int, bool> flags(Role::master);
  for (const int key : {3, -1, 2}) flags.push(key, key > 0);
  flags.freeze();
  flags.set(3, false);
  CHECK((!*flags.get(-1) && *flags.get(2) && !*flags.get(3)));
  CHECK(printed(flags.diff(0, 1)) == "diff 0..1 {3: 0}");
}

TEST_CASE("a modification is one commit, or none") {
  Map map = make_map(Role::master);
  {
    auto modification = map.begin_modification();
    modification.set("a", "x").set("b", "y").set("a", "z");
    CHECK(
        (*modification.get("a") == "z" && *modification.get("c") == "3" && modification.get("d") == nullptr));
    CHECK(*map.get("a") == "1");
  }
  CHECK(printed(map) == "{a: 1, b: 2, c: 3}");
  CHECK(map.update_id() == 0);
  CHECK(map.begin_modification().commit() == 0);
  CHECK(map.begin_modification().set("a", "x").set("c", "y").commit() == 1);
  CHECK(printed(map) == "{a: x, b: 2, c: y}");

  auto modification = map.begin_modification();
  CHECK(modification.set("b", "1").commit() == 2);
  CHECK(modification.commit() == 2);
  CHECK(modification.set("b", "2").commit() == 3);

  modification.set("b", "lost");
  Map other(Role::master);
  other.push("else", "");
  other.freeze();
  map = other;
  CHECK_REFUSED(map, hash_mismatch, modification.commit());
}

TEST_CASE("a replica is moved by its master alone") {
  Map master = make_map(Role::master);
  auto remote = std::make_shared<ScriptedRemote>();
  remote->master = &master;
  Map map = map_of(remote);
  map.freeze(std::chrono::seconds(2));
  CHECK(remote->inits == std::vector<Duration>{std::chrono::seconds(2)});
  CHECK(map.hash() == master.hash());
  CHECK(map.epoch() == 0);
  CHECK_REFUSED(map, frozen, map.set("a", "x"));
  CHECK_REFUSED(map, frozen, map.begin_modification());
  CHECK_REFUSED(map, frozen, map.push("d", "4"));

  for (const char* value : {"v1", "v2", "v3", "v4"}) master.set("b", value);
  CHECK(map.set_update_id(0) == 0);
  CHECK(remote->asked.empty());
  CHECK(map.set_update_id(2) == 2);
  CHECK((*map.get("b") == "v2" && map.epoch() == master.epoch()));
  CHECK(map.set_update_id(1) == 2);
  CHECK(map.set_update_id(99) == 4);  // a wish: nobody waits for commits that do not exist
  CHECK(remote->asked == std::vector<std::pair<UpdateId, UpdateId>>{{0, 2}, {2, 99}});
  master.set("c", "v5");
  remote->fetch_error = StateErrc::unavailable;
  CHECK_REFUSED(map, unavailable, map.sync());
  CHECK_REFUSED(map, unavailable, map.set_update_id(5));
  remote->fetch_error.clear();
  CHECK(map.sync() == 5);
  CHECK(map.sync() == 5);
  CHECK(printed(map) == printed(master));
}

TEST_CASE("set_update_id of a position ends in its epoch, or changes nothing") {
  Map master = make_map(Role::master);
  auto remote = std::make_shared<ScriptedRemote>();
  remote->master = &master;
  Map map = map_of(remote);
  CHECK_REFUSED(map, unfrozen, map.set_update_id(Position{1, 1}));
  map.freeze();
  for (const char* value : {"v1", "v2", "v3", "v4"}) master.set("b", value);
  const Position old = master.position();
  CHECK(old == Position{master.epoch(), 4});
  using Asked = std::vector<std::pair<UpdateId, UpdateId>>;
  const auto take_asked = [&] { return std::exchange(remote->asked, {}); };

  // Within the epoch it is as by number: the one wished for, or the head.
  CHECK(map.set_update_id(Position{old.epoch, 2}) == 2);
  CHECK(map.position() == Position{old.epoch, 2});
  CHECK(take_asked() == Asked{{0, 2}});
  CHECK(map.set_update_id(Position{old.epoch, 1}) == 2);
  CHECK(map.set_update_id(map.position()) == 2);
  CHECK(take_asked().empty());
  CHECK(map.set_update_id(Position{old.epoch, 99}) == 4);
  CHECK(take_asked() == Asked{{2, 99}});

  // Another epoch takes one request, whatever the two numbers are.
  CHECK_REFUSED(map, epoch_changed, map.set_update_id(Position{old.epoch + 1, 1}));
  CHECK_REFUSED(map, epoch_changed, map.set_update_id(Position{old.epoch + 1, 9}));
  CHECK_REFUSED(map, epoch_changed, map.set_update_id(Position{}));
  CHECK(take_asked().size() == 3);
  remote->fetch_error = StateErrc::unavailable;
  CHECK_REFUSED(map, unavailable, map.set_update_id(Position{old.epoch + 1, 1}));
  remote->fetch_error.clear();
  remote->asked.clear();

  Map restarted = make_map(Role::master);
  restarted.set("c", "new");
  remote->master = &restarted;
  CHECK_REFUSED(map, epoch_changed, map.set_update_id(Position{old.epoch, 5}));  // a write that was lost
  CHECK(take_asked() == Asked{{4, 5}});
  CHECK(map.set_update_id(old) == 4);
  CHECK(take_asked().empty());
  CHECK(map.set_update_id(restarted.position()) == 1);
  CHECK(map.position() == restarted.position());
  CHECK(printed(map) == printed(restarted));
  CHECK(take_asked().size() == 1);
  CHECK_REFUSED(map, epoch_changed, map.set_update_id(old));

  // Where no request can bring it there.
  Map alone = make_map(Role::replica);
  CHECK(alone.set_update_id(Position{}) == 0);
  CHECK_REFUSED(alone, epoch_changed, alone.set_update_id(old));
  CHECK(restarted.set_update_id(Position{restarted.epoch(), 7}) == 1);
  CHECK_REFUSED(restarted, epoch_changed, restarted.set_update_id(old));
  MapAccess::begin_transaction(restarted);
  restarted.set("a", "x");
  CHECK(restarted.position() == Position{restarted.epoch(), 1});
  CHECK(error_of([&] { restarted.set_update_id(restarted.position()); }) == StateErrc::in_transaction);
  MapAccess::commit_transaction(restarted);
  CHECK(restarted.position() == Position{restarted.epoch(), 2});
}

TEST_CASE("a broadcaster of the user's may answer with an update id or with a position") {
  Map master = make_map(Role::master);
  auto remote = std::make_shared<ScriptedRemote>();
  remote->master = &master;
  Map map = map_of(remote);
  map.freeze();
  const auto sends = [&](auto answer) {
    struct Broadcaster {
      decltype(answer) send_event(const MapHash&, const SerializedEvent& event) {
        master->set("a", Event<std::string>::deserialize(event.bytes).content);
        if constexpr (std::same_as<decltype(answer), Position>)
          return master->position();
        else
          return master->update_id();
      }
      Map* master;
    } broadcaster{&master};
    static_assert(EventBroadcaster<Broadcaster>);
    return broadcaster;
  };
  const auto write = [&](auto broadcaster, const std::string& value) {
    const auto at = broadcaster.send_event(map.hash(), serialize_event(Event<std::string>{value}));
    CHECK(map.set_update_id(at) == UpdateId{at});
    CHECK(map.at("a") == value);
    UpdateId told = 0;
    const std::function<void(UpdateId)> callback = [&](UpdateId id) { told = id; };
    callback(at);
    CHECK(told == map.update_id());
  };
  write(sends(UpdateId{}), "by number");
  write(sends(Position{}), "by position");
}

TEST_CASE("freeze with an unreachable server leaves a frozen, readable map") {
  auto remote = std::make_shared<ScriptedRemote>();
  remote->init_error = StateErrc::unavailable;
  Map map = map_of(remote);
  CHECK(error_of([&] { map.freeze(); }) == StateErrc::unavailable);
  CHECK((map.is_frozen() && map.at("a") == "1"));
  CHECK(map.hash() == make_map(Role::master).hash());
  map.freeze(Duration::zero());  // only closes
  CHECK(remote->inits == std::vector<Duration>{std::chrono::seconds(5)});
  remote->init_error.clear();
  map.freeze(std::chrono::milliseconds(1));
  CHECK(remote->inits.size() == 2);
  CHECK(error_of([] { Map nowhere(std::shared_ptr<ScriptedRemote>{}); }) == StateErrc::invalid_option);
}

TEST_CASE("a dummy remote never has news and never fails") {
  Map map(std::make_shared<DummyRemote>());
  push_letters(map);
  map.freeze();
  CHECK((map.sync() == 0 && map.set_update_id(7) == 0 && map.epoch() == 0));
  CHECK(map.apply(make_map(Role::master).diff(0, 0)));  // takes the epoch
  CHECK(map.sync() == 0);
}

TEST_CASE("apply is all or nothing, and refuses by name") {
  Map master = make_map(Role::master);
  for (const char* value : {"v1", "v2", "v3", "v4"}) master.set("b", value);
  const Epoch epoch = master.epoch();
  Map map = make_map(Role::replica);
  CHECK_REFUSED(map, wrong_position, map.apply(master.diff(1, 2)));  // fresh, but not from the beginning
  CHECK(map.apply(master.diff(0, 2)));
  CHECK_REFUSED(map, wrong_position, map.apply(master.diff(3, 4)));  // one commit too late
  CHECK_FALSE(map.apply(master.diff(0, 1)));
  CHECK_FALSE(map.apply(master.diff(1, 2)));
  CHECK_FALSE(map.apply(master.diff(2, 2)));
  CHECK(*map.get("b") == "v2");
  CHECK(map.apply(master.diff(1, 3)));
  CHECK(*map.get("b") == "v3");

  Map other(Role::master);
  other.push("a", "1");
  other.freeze();
  CHECK_REFUSED(map, hash_mismatch, map.apply(other.diff(0, 0)));

  Map restarted = make_map(Role::master);
  restarted.set("c", "new");
  CHECK_REFUSED(map, wrong_epoch, map.apply(restarted.diff(0, 1)));
  CHECK_REFUSED(map, wrong_epoch, map.apply(restarted.diff(0, 1), EpochPolicy::hold));
  CHECK_REFUSED(map, epoch_changed, map.apply(TextDiff::full(restarted), EpochPolicy::hold));
  CHECK_REFUSED(map, wrong_position, map.apply(TextDiff(map, 5, 0, 0, true).set("a", "x")));
  CHECK(map.apply(TextDiff::full(restarted)));
  CHECK(printed(map) == "{a: 1, b: 2, c: new}");  // b came back to its initial value
  CHECK(map.epoch() == restarted.epoch());
  CHECK(map.update_id() == 1);
  CHECK_REFUSED(map, wrong_epoch, map.apply(master.diff(0, 4)));

  // A full diff of the own epoch resets what it does not name, from wherever the map stands.
  CHECK(map.apply(TextDiff(map, restarted.epoch(), 0, 5, true).set("a", "x")));
  CHECK(printed(map) == "{a: x, b: 2, c: 3}");
  CHECK(printed(map.diff(1, 5)) == "diff 1..5 {a: x, c: 3}");

  CHECK_FALSE(master.apply(master.diff(0, 4)));
  CHECK_REFUSED(master, frozen, master.apply(TextDiff(master, epoch, 4, 5).set("a", "x")));
  CHECK_REFUSED(master, wrong_position, master.apply(TextDiff(master, epoch, 5, 6)));
  CHECK_REFUSED(master, wrong_epoch, master.apply(restarted.diff(0, 1)));
  CHECK_REFUSED(master, wrong_epoch, master.apply(TextDiff::full(restarted)));
}

TEST_CASE("a diff names its keys in ascending order, below the head too") {
  Map master = make_map(Role::master);
  for (const char* key : {"c", "a", "b", "a", "c"}) master.set(key, std::string(key) + "!");
  CHECK(printed(master.diff(0, 3)) == "diff 0..3 {a: a!, b: b!, c: c!}");
  CHECK(printed(master.diff(0, 2)) == "diff 0..2 {a: a!, c: c!}");
  CHECK(printed(master.diff(1, 4)) == "diff 1..4 {a: a!, b: b!}");
  CHECK(printed(master.diff(0, 5)) == "diff 0..5 {a: a!, b: b!, c: c!}");
  CHECK(printed(master.diff(3, 5)) == "diff 3..5 {a: a!, c: c!}");
  CHECK(printed(TextDiff::full(master)) == "full diff 0..5 {a: a!, b: b!, c: c!}");
}

TEST_CASE("diffs of one's own: set, merge, compress") {
  Map map = make_map(Role::replica);
  CHECK(error_of([&] { TextDiff(map, 1, 3, 2); }) == StateErrc::wrong_position);
  TextDiff diff(map, 1, 0, 1);
  CHECK(error_of([&] { diff.set("d", "4"); }) == StateErrc::key_not_found);
  diff.set("c", "x").set("a", "y").set("c", "z");
  CHECK(printed(diff) == "diff 0..1 {c: z, a: y}");
  CHECK(printed(diff.compress().compress()) == "diff 0..1 {a: y, c: z}");
  CHECK((diff.size() == 2 && !diff.is_empty() && !diff.is_full() && diff.epoch() == 1));

  CHECK(error_of([&] { diff.merge(TextDiff(map, 1, 2, 3)); }) == StateErrc::wrong_position);
  CHECK(error_of([&] { diff.merge(TextDiff(map, 2, 1, 2)); }) == StateErrc::wrong_epoch);
  Map other(Role::master);
  other.freeze();
  CHECK(error_of([&] { diff.merge(other.diff(0, 0)); }) == StateErrc::hash_mismatch);
  CHECK(printed(diff) == "diff 0..1 {a: y, c: z}");
  diff.merge(TextDiff(map, 1, 0, 3).set("b", "w").set("c", "v"));
  CHECK(printed(diff.compress()) == "diff 0..3 {a: y, b: w, c: v}");
  CHECK(error_of([&] { diff.merge(TextDiff(map, 1, 4, 5)); }) == StateErrc::wrong_position);  // one too late
  diff.merge(TextDiff(map, 1, 1, 2).set("b", "older"));
  CHECK(printed(diff) == "diff 0..3 {a: y, b: w, c: v}");
  diff.merge(TextDiff(map, 2, 0, 1, true).set("b", "u"));
  CHECK(printed(diff) == "full diff 0..1 {b: u}");
  diff.merge(TextDiff(map, 2, 1, 2).set("a", "t"));
  CHECK(printed(diff.compress()) == "full diff 0..2 {a: t, b: u}");
}

TEST_CASE("many changes in any order keep one value for each key") {
  StateMap<int, int> map(Role::master);
  for (int key = 0; key < 1000; ++key) map.push(key, 0);
  map.freeze();
  auto modification = map.begin_modification();
  for (int i = 0; i < 5000; ++i) modification.set(i * 617 % 1000, i);
  CHECK(modification.commit() == 1);
  const Diff<int, int> diff = map.diff(0, 1);
  CHECK(diff.size() == 1000);
  for (int i = 4000; i < 5000; ++i) REQUIRE(map.at(i * 617 % 1000) == i);
}

TEST_CASE("a transaction shows its own writes and hides them from everyone else until it commits") {
  Map map = make_map(Role::master);
  map.set("a", "one");
  MapAccess::begin_transaction(map);
  CHECK(map.set("a", "two") == 1);
  CHECK(map.begin_modification().set("b", "three").commit() == 1);
  (void)map.begin_modification().set("c", "never");
  CHECK((map.at("a") == "two" && map[map.key("b")] == "three" && map.update_id() == 1));
  CHECK(printed(map) == "{a: two, b: three, c: 3}");
  CHECK(MapAccess::value(map, 0) == "one");
  CHECK(MapAccess::pending(map).size() == 2);
  CHECK(printed(map.diff(0, 9)) == "diff 0..1 {a: one}");
  CHECK(printed(Map(map)) == "{a: one, b: 2, c: 3}");

  Map other = make_map(Role::master);
  CHECK_REFUSED(map, in_transaction, map.freeze());
  CHECK_REFUSED(map, in_transaction, map.sync());
  CHECK_REFUSED(map, in_transaction, map.set_update_id(0));
  CHECK_REFUSED(map, in_transaction, map.apply(other.diff(0, 0)));
  CHECK_REFUSED(map, in_transaction, map = other);
  CHECK_REFUSED(map, in_transaction, map = make_map(Role::master));
  CHECK_REFUSED(map, in_transaction, Map(std::move(map)).size());
  CHECK_REFUSED(map, in_transaction, other = std::move(map));
  CHECK_REFUSED(map, in_transaction, MapAccess::begin_transaction(map));
  CHECK_REFUSED(map, frozen, map.push("d", "4"));
  CHECK_REFUSED(map, key_not_found, map.set("d", "4"));

  CHECK(MapAccess::commit_transaction(map) == 2);
  CHECK_FALSE(MapAccess::in_transaction(map));
  CHECK(printed(map.diff(1, 2)) == "diff 1..2 {a: two, b: three}");

  MapAccess::begin_transaction(map);
  map.set("a", "gone");
  MapAccess::rollback_transaction(map);
  CHECK(printed(map) == "{a: two, b: three, c: 3}");
  MapAccess::begin_transaction(map);
  CHECK(MapAccess::commit_transaction(map) == 2);  // set nothing: no commit
}

TEST_CASE("copies and moves") {
  Map master = make_map(Role::master);
  master.set("a", "x");
  const Epoch epoch = master.epoch();
  Map copy = master;
  CHECK((copy.epoch() != epoch && copy.epoch() != 0 && copy.update_id() == 1));
  CHECK(copy.set("b", "y") == 2);
  CHECK((master.update_id() == 1 && *master.get("b") == "2"));
  CHECK(printed(copy.diff(0, 1)) == "diff 0..1 {a: x}");
  Map moved = std::move(copy);
  CHECK(moved.update_id() == 2);
  Map assigned(Role::replica);
  assigned = master;
  CHECK((assigned.epoch() != epoch && assigned.set("c", "z") == 2));
  assigned = std::move(master);
  CHECK((assigned.epoch() == epoch && assigned.update_id() == 1 && *assigned.get("a") == "x"));
  master = assigned;
  CHECK((master.update_id() == 1 && master.epoch() != epoch));

  Map replica = make_map(Role::replica);
  replica.apply(assigned.diff(0, 1));
  Map twin = replica;
  CHECK((twin.epoch() == epoch && twin.update_id() == 1 && MapAccess::role(twin) == Role::replica));
  MapAccess::become_master(twin);
  CHECK((twin.epoch() != epoch && twin.set("a", "w") == 2));

  Map open(Role::master);
  open.push("k", "v");
  Map open_copy = open;
  open_copy.push("l", "w");
  CHECK((open.size() == 1 && open_copy.size() == 2));
}

TEST_CASE("a container that grows moves its maps, so that masters keep their epochs") {
  std::vector<Map> maps;
  std::vector<Epoch> epochs;
  for (int i = 0; i < 20; ++i) {
    maps.push_back(make_map(Role::master));
    maps.back().set("a", std::to_string(i));
    epochs.push_back(maps.back().epoch());
  }
  for (std::size_t i = 0; i < maps.size(); ++i) {
    CHECK(maps[i].epoch() == epochs[i]);
    CHECK(*maps[i].get("a") == std::to_string(i));
    CHECK(maps[i].diff(0, 1).size() == 1);
    CHECK(maps[i].set("b", "next") == 2);
  }
  maps.erase(maps.begin(), maps.begin() + 5);
  CHECK(maps.front().epoch() == epochs[5]);

  Map open(Role::master);
  open.push("b", "2");
  Map moved = std::move(open);
  moved.push("a", "1");
  moved.freeze();
  CHECK(printed(moved) == "{a: 1, b: 2}");

  static_assert(std::is_nothrow_move_constructible_v<Map> && std::is_nothrow_swappable_v<TextDiff>);
  static_assert(std::is_nothrow_move_constructible_v<TextDiff> &&
                std::is_nothrow_move_assignable_v<TextDiff>);
  using Changes = Modification<std::string, std::string>;
  static_assert(std::is_nothrow_move_constructible_v<Changes> && std::is_nothrow_move_assignable_v<Changes>);
  using TextEvent = Event<std::string>;
  static_assert(std::is_nothrow_move_constructible_v<TextEvent> &&
                std::is_nothrow_move_assignable_v<TextEvent>);
  static_assert(std::is_nothrow_move_constructible_v<SerializedEvent> &&
                std::is_nothrow_move_assignable_v<SerializedEvent>);
  static_assert(std::is_nothrow_move_constructible_v<Subscription> &&
                std::is_nothrow_move_assignable_v<Subscription>);
  static_assert(std::is_nothrow_copy_constructible_v<MapHash> &&
                std::is_nothrow_copy_constructible_v<Ordinal>);
}

TEST_CASE("a map moved out of an open transaction refuses everything but its end and assignment") {
  Map master = make_map(Role::master);
  master.set("a", "committed");
  const Epoch epoch = master.epoch();
  MapAccess::begin_transaction(master);
  master.set("a", "pending");
  Map moved = std::move(master);
  Map again = std::move(moved);

  // The source is what and where it was: still the same open transaction.
  CHECK(MapAccess::in_transaction(master));
  CHECK((*master.get("a") == "pending" && master.epoch() == epoch && master.update_id() == 1));
  CHECK(MapAccess::commit_transaction(master) == 2);
  CHECK(printed(master.diff(0, 2)) == "diff 0..2 {a: pending}");

  for (Map* map : {&moved, &again}) {
    const auto refuses = [&](auto f) {
      return error_of([&] { (void)f(*map); }) == StateErrc::in_transaction;
    };
    CHECK(refuses([](Map& m) {
      m.push("d", "4");
      return 0;
    }));
    CHECK(refuses([](Map& m) {
      m.freeze();
      return 0;
    }));
    CHECK(refuses([](Map& m) { return m.is_frozen(); }));
    CHECK(refuses([](Map& m) { return m.epoch(); }));
    CHECK(refuses([](Map& m) { return m.update_id(); }));
    CHECK(refuses([](Map& m) { return m.position(); }));
    CHECK(refuses([](Map& m) { return m.set_update_id(Position{1, 1}); }));
    CHECK(refuses([](Map& m) { return m.get("a"); }));
    CHECK(refuses([](Map& m) { return m.at("a"); }));
    CHECK(refuses([](Map& m) { return m.at(Ordinal(0)); }));
    CHECK(refuses([](Map& m) { return m[Ordinal(0)]; }));
    CHECK(refuses([](Map& m) { return m.contains("a"); }));
    CHECK(refuses([](Map& m) { return m.size(); }));
    CHECK(refuses([](Map& m) { return m.key("a"); }));
    CHECK(refuses([](Map& m) { return m.hash(); }));
    CHECK(refuses([](Map& m) { return m.begin(); }));
    CHECK(refuses([](Map& m) { return m.end(); }));
    CHECK(refuses([](Map& m) { return printed(m); }));
    CHECK(refuses([](Map& m) { return m.set("a", "x"); }));
    CHECK(refuses([](Map& m) { return m.begin_modification().commit(); }));
    CHECK(refuses([](Map& m) { return m.set_update_id(1); }));
    CHECK(refuses([](Map& m) { return m.sync(); }));
    CHECK(refuses([&](Map& m) { return m.apply(master.diff(0, 2)); }));
    CHECK(refuses([](Map& m) { return m.diff(0, 1); }));
    CHECK(refuses([](Map& m) { return TextDiff::full(m); }));
    CHECK(refuses([](Map& m) { return TextDiff(m, 1, 0, 1); }));
    CHECK(refuses([](Map& m) { return Map(m); }));
    CHECK(refuses([](Map& m) {
      Map to(Role::master);
      to = m;
      return 0;
    }));
    CHECK(refuses([](Map& m) {
      Map to(Role::master);
      to = std::move(m);
      return 0;
    }));
  }

  moved = make_map(Role::master);
  CHECK((moved.is_frozen() && moved.set("a", "new") == 1 && *moved.get("a") == "new"));
  const Map copied_to = moved;
  again = copied_to;
  CHECK((again.size() == 3 && *again.get("a") == "new"));
}

TEST_CASE("braces mean a key, also where a key is one number") {
  struct Seat {
    int number = 0;
    auto operator<=>(const Seat&) const = default;
  };
  struct Guest {
    std::string name;
    int age = 0;
  };
  StateMap<Seat, Guest> map(Role::master);
  map.push({2}, {"Ann", 30});
  map.push({1}, {"Ben", 40});
  map.push({}, {});
  map.freeze();
  CHECK(map.at({2}).name == "Ann");
  CHECK(map.at({}).name.empty());
  CHECK(map.get({1})->name == "Ben");
  CHECK((map.contains({2}) && !map.contains({3})));
  CHECK(map.key({2}).index() == 2);
  CHECK(map[map.key({1})].age == 40);
  CHECK(map[Ordinal{1}].age == 40);
  CHECK(map.at(Ordinal{1}).age == 40);
  const Ordinal kept = map.key({1});
  CHECK(map.at(kept).age == 40);
  CHECK(map.set({2}, {"Cid", 50}) == 1);
  auto modification = map.begin_modification();
  modification.set({1}, {"Dee", 60}).set({}, {});
  CHECK(modification.get({1})->name == "Dee");
  CHECK(modification.commit() == 2);
  Diff<Seat, Guest> diff(map, map.epoch(), 2, 3);
  diff.set({2}, {"Eve", 70});
  CHECK(diff.size() == 1);

  StateMap<std::optional<std::uint32_t>, int> optional_keys(Role::master);
  optional_keys.push({2U}, 20);
  optional_keys.push({}, 10);
  optional_keys.freeze();
  CHECK((optional_keys.at({2U}) == 20 && optional_keys.at({}) == 10));
  StateMap<std::uint32_t, int> numbers(Role::master);
  numbers.push(7, 70);
  numbers.freeze();
  CHECK((numbers.at(7) == 70 && numbers.at(Ordinal(0)) == 70));
}

TEST_CASE("a value that can't be copied leaves the map as it was") {
  using FragileMap = StateMap<int, Fragile>;
  Fragile::copies_left = -1;
  FragileMap master(Role::master);
  for (int key = 0; key < 20; ++key) master.push(key, Fragile(key));
  const auto numbers = [](const FragileMap& map) {
    std::vector<int> all{static_cast<int>(map.update_id())};
    for (const auto& [key, value] : map) all.push_back(value.number);
    for (const auto& [key, value] : map.diff(0, ~UpdateId{0}).changes()) all.push_back(key);
    return all;
  };
  // Fails at copy 0, 1, 2, ... until it passes; every failure must leave no trace.
  const auto until_it_passes = [&](FragileMap& map, auto action) {
    int failures = 0;
    for (;; ++failures) {
      const bool was_frozen = map.is_frozen();
      const std::vector<int> before = was_frozen ? numbers(map) : std::vector<int>{};
      Fragile::copies_left = failures;
      try {
        action();
        Fragile::copies_left = -1;
        return failures;
      } catch (const std::runtime_error&) {
        Fragile::copies_left = -1;
        REQUIRE(map.is_frozen() == was_frozen);
        if (was_frozen) REQUIRE(numbers(map) == before);
        if (!was_frozen) REQUIRE(map.at(19).number == 19);
      }
    }
  };
  CHECK(until_it_passes(master, [&] { master.freeze(); }) > 0);
  FragileMap replica = MapAccess::make_map<int, Fragile>(Role::replica, MapAccess::frozen(master), nullptr);
  CHECK(until_it_passes(master, [&] { master.set(3, Fragile(100)); }) > 0);
  auto modification = master.begin_modification();
  for (int key = 15; key > 4; --key) modification.set(key, Fragile(key + 200));
  CHECK(until_it_passes(master, [&] { modification.commit(); }) > 0);
  CHECK((master.update_id() == 2 && master.at(5).number == 205 && master.at(15).number == 215));

  MapAccess::begin_transaction(master);
  for (int key = 0; key < 12; ++key) master.set(key, Fragile(key + 300));
  CHECK(until_it_passes(master, [&] { MapAccess::commit_transaction(master); }) > 0);

  const auto diff = master.diff(0, 3);
  CHECK(until_it_passes(replica, [&] { replica.apply(diff); }) > 0);
  CHECK(numbers(replica) == numbers(master));
  const Diff<int, Fragile> other =
      Diff<int, Fragile>(replica, 77, 0, 9, true).set(19, Fragile(5)).set(1, Fragile(6));
  CHECK(until_it_passes(replica, [&] { replica.apply(other); }) > 0);
  CHECK((replica.at(0).number == 0 && replica.at(19).number == 5 && replica.update_id() == 9));
}

TEST_CASE("the log keeps what its bounds allow") {
  Map map = make_map(Role::master, {.log_diffs = 3});
  for (int i = 1; i <= 5; ++i) map.set("a", std::to_string(i));
  CHECK_FALSE(MapAccess::log(map).reaches_back_to(1));
  for (UpdateId id = 2; id < 5; ++id) {
    const auto step = map.diff(id, id + 1);
    CHECK(step.upto_update_id() == id + 1);
    REQUIRE(step.size() == 1);
    CHECK((*step.changes().begin()).second == std::to_string(id + 1));
  }
  CHECK(MapAccess::log(map).reach(2, 4) == 4);
  CHECK(MapAccess::log(map).reach(5, 9) == 5);
  CHECK(map.diff(2, 3).upto_update_id() == 3);
  CHECK(map.diff(1, 2).upto_update_id() == 5);

  Map small = make_map(Role::master, {.log_bytes = 1000});
  small.set("a", "1");
  small.set("b", "2");
  CHECK(small.diff(0, 1).upto_update_id() == 1);
  small.set("c", std::string(2000, 'x'));  // larger than the log: there is none for a while
  CHECK(small.diff(0, 1).upto_update_id() == 3);
  small.set("a", "4");
  small.set("a", "5");
  CHECK(small.diff(3, 4).upto_update_id() == 4);
  CHECK(small.diff(2, 4).upto_update_id() == 5);
}

TEST_CASE("the recency index walks from the newest change to the oldest") {
  Map map = make_map(Role::master);
  const auto walk = [&](UpdateId from) {
    std::string order;
    MapAccess::for_each_changed_since(map, from, [&](std::uint32_t ordinal, const std::string& value) {
      order += std::to_string(ordinal) + value + " ";
      return true;
    });
    return order;
  };
  CHECK(walk(0).empty());
  map.set("a", "p");
  map.set("b", "q");
  map.set("a", "r");
  map.set("a", "s");
  CHECK(walk(0) == "0s 1q ");
  CHECK(walk(2) == "0s ");
  CHECK(walk(4).empty());
  CHECK((MapAccess::changed_at(map, 0) == 4 && MapAccess::changed_at(map, 1) == 2));
  CHECK(MapAccess::changed_at(map, 2) == 0);
}

TEST_CASE("events travel as bytes with the name of their type") {
  const Event<std::string> event{"hello"};
  const SerializedEvent serialized = serialize_event(event);
  CHECK(serialized.type_name == type_name<std::string>());
  CHECK(as_string_view(serialized.bytes) == "hello");
  CHECK(Event<std::string>::deserialize(event.serialize()).content == "hello");
  CHECK(error_of([] { (void)Event<int>::deserialize(ByteView()); }) == StateErrc::decode_error);
}

TEST_CASE("a subscription ends once, with the last of it") {
  int ended = 0;
  {
    Subscription one([&ended] { ++ended; });
    Subscription two = std::move(one);
    CHECK((ended == 0 && two && !one));
  }
  CHECK(ended == 1);
  Subscription guarded(std::make_shared<int>(1));
  guarded.reset();
  CHECK_FALSE(guarded);
}

}  // namespace testing::state_map_test
}  // namespace syncstate
