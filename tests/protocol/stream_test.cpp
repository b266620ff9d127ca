// Streams of diffs: from any position to the head, against a naive source and against hosted maps.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"

namespace stream_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using wire::DiffStream;
using wire::FollowMode;
using wire::FrameKind;
using Values = std::vector<std::string>;
using Hosted = detail::HostedMap<std::string, std::string>;

/// Keeps every state there ever was, and looks everything up in them: slow, and plain to see right.
class NaiveSource final : public wire::DiffSource {
 public:
  explicit NaiveSource(std::size_t keys)
      : history_{Values(keys, "-")}, changed_{std::vector<UpdateId>(keys)} {}

  void commit(const std::map<std::size_t, std::string>& changes) {
    history_.push_back(history_.back());
    changed_.push_back(changed_.back());
    for (const auto& change : changes) {
      history_.back()[change.first] = change.second;
      changed_.back()[change.first] = now();
    }
  }
  [[nodiscard]] UpdateId now() const { return history_.size() - 1; }
  [[nodiscard]] const Values& state(UpdateId id) const { return history_.at(id); }

  Epoch epoch = 0xE0;
  UpdateId log_from = 0;                           ///< how far back the log reaches
  std::function<void()> before_encoding{};         ///< somebody else, who is quick
  std::shared_ptr<wire::PinnedSnapshot> pinned{};  ///< another transfer's snapshot, if there is one

  bool encode_initial(wire::InitialCursor&, std::size_t, Bytes&) const override { return false; }
  [[nodiscard]] Position head() const override { return {epoch, now()}; }

  std::optional<UpdateId> encode_merged(UpdateId from, std::size_t budget, Bytes& out) override {
    interrupt();
    Bytes entries;
    for (std::uint32_t i = 0; i < history_[0].size(); ++i) {
      if (changed_.back()[i] > from) detail::append_entry(i, history_.back()[i], entries);
    }
    if (entries.size() > budget) return std::nullopt;
    out.insert(out.end(), entries.begin(), entries.end());
    return now();
  }

  wire::PassPiece encode_pass(wire::PassCursor& cursor, std::size_t, Bytes& out) override {
    interrupt();
    const UpdateId at = cursor.snapshot ? cursor.snapshot->update_id() : now();
    return one_entry(cursor, at, out);
  }
  wire::PassPiece encode_logged(wire::PassCursor& cursor, std::size_t, Bytes& out) override {
    interrupt();
    if (cursor.from < log_from) return wire::PassPiece::lost;
    return one_entry(cursor, cursor.target, out);
  }
  [[nodiscard]] UpdateId logged_upto(UpdateId from, UpdateId upto) const override {
    return from < log_from ? from : std::min(upto, now());
  }
  std::shared_ptr<const wire::PinnedSnapshot> pin_snapshot(UpdateId at_least) override {
    if (!pinned || pinned->update_id() < at_least) pinned = std::make_shared<wire::PinnedSnapshot>(now());
    return pinned;
  }

 private:
  void interrupt() {
    if (before_encoding) before_encoding();
  }
  wire::PassPiece one_entry(wire::PassCursor& cursor, UpdateId at, Bytes& out) {
    while (cursor.ordinal < history_[0].size()) {
      const std::uint32_t i = cursor.ordinal++;
      const UpdateId changed = changed_.at(at)[i];
      if (changed <= cursor.from || changed > cursor.target) continue;
      detail::append_entry(i, history_.at(at)[i], out);
      return wire::PassPiece::entries;
    }
    return wire::PassPiece::finished;
  }

  std::vector<Values> history_;
  std::vector<std::vector<UpdateId>> changed_;
};

wire::Open plain_open(Position at, FollowMode mode) {
  wire::Open open;
  open.position = at;
  open.mode = mode;
  return open;
}

std::shared_ptr<const detail::FrozenState<std::string, std::string>> frozen_keys(std::uint32_t count) {
  return detail::MapAccess::frozen(make_master<std::string>(count, "-"));
}

/// A client of one stream.
struct Reader {
  Reader(std::uint32_t keys, Position at, FollowMode mode) : Reader(frozen_keys(keys), at, mode) {}
  Reader(StateFollower<std::string>::Frozen frozen, Position at, FollowMode mode)
      : follower(std::move(frozen)) {
    client.authenticate();
    id = client.session.open(plain_open(at, mode));
  }
  void take(ByteView frames) { follower.take_actions(client.session, frames); }

  ClientSide client;
  StateFollower<std::string> follower;
  wire::ChannelId id;
};

Bytes one_frame(DiffStream& stream) {
  Bytes out;
  stream.produce(out);
  return out;
}

Bytes all_frames(DiffStream& stream, int most = 10'000) {
  Bytes out;
  for (int i = 0; stream.produce(out); ++i) REQUIRE(i < most);
  return out;
}

Limits small_pieces(std::size_t bytes) {
  Limits limits;
  limits.piece_bytes = bytes;
  return limits;
}

}  // namespace

TEST_CASE("a stream leads from any position to the head", "[protocol][guarantee_4]") {
  const Limits limits;
  const auto source = std::make_shared<NaiveSource>(4);
  for (int i = 1; i <= 5; ++i) source->commit({{static_cast<std::size_t>(i % 2), std::to_string(i)}});
  SECTION("from the initial state: the epoch is told") {
    DiffStream stream(1, source, {}, FollowMode::merged, limits);
    Reader reader(4, {}, FollowMode::merged);
    reader.take(one_frame(stream));
    CHECK_FALSE(stream.is_behind());
    CHECK(reader.follower.state() == source->state(5));
    CHECK(reader.follower.position() == source->head());
    CHECK(one_frame(stream).empty());
  }
  SECTION("from the initial state of a master that has no commit yet") {
    const auto fresh = std::make_shared<NaiveSource>(4);
    DiffStream stream(1, fresh, {}, FollowMode::merged, limits);
    CHECK(to_hex(one_frame(stream)) ==
          "0c2801"
          "02"
          "00000000000000e0"
          "00");
    CHECK_FALSE(stream.is_behind());
  }
  SECTION("one commit of one key is a step") {
    DiffStream stream(1, source, {source->epoch, 4}, FollowMode::merged, limits);
    CHECK(to_hex(one_frame(stream)) ==
          "04270101"
          "35");
  }
  SECTION("from another epoch: a full diff, relative to the initial state") {
    DiffStream stream(1, source, {0xD0, 99}, FollowMode::merged, limits);
    Reader reader(4, {0xD0, 99}, FollowMode::merged);
    reader.take(one_frame(stream));
    CHECK(reader.follower.state() == source->state(5));
    CHECK(reader.follower.position() == source->head());
  }
  SECTION("from another epoch, to a master at its initial state") {
    const auto fresh = std::make_shared<NaiveSource>(4);
    DiffStream stream(1, fresh, {0xD0, 99}, FollowMode::merged, limits);
    CHECK(to_hex(one_frame(stream)) ==
          "0c2801"
          "03"
          "00000000000000e0"
          "00");
  }
}

TEST_CASE("every_step is served commit by commit while the log reaches", "[protocol]") {
  const Limits limits;
  const auto source = std::make_shared<NaiveSource>(4);
  for (int i = 1; i <= 6; ++i) source->commit({{0, std::to_string(i)}, {1, std::to_string(i)}});
  source->log_from = 2;
  DiffStream from_log(1, source, {source->epoch, 2}, FollowMode::every_step, limits);
  Reader reader(4, {source->epoch, 2}, FollowMode::every_step);
  reader.follower.close({source->epoch, 0, 2, true}, {});
  reader.take(all_frames(from_log));
  CHECK(reader.follower.ends() == std::vector<UpdateId>{2, 3, 4, 5, 6});

  DiffStream too_old(1, source, {}, FollowMode::every_step, limits);
  Reader merged(4, {}, FollowMode::every_step);
  merged.take(all_frames(too_old));
  CHECK(merged.follower.ends() == std::vector<UpdateId>{6});

  SECTION("a commit between the look at the head and the encoding is not merged in") {
    source->before_encoding = [&] {
      source->before_encoding = nullptr;
      source->commit({{2, "quick"}, {3, "quick"}});
    };
    source->commit({{0, "7"}});
    reader.take(all_frames(from_log));
    CHECK(reader.follower.ends() == std::vector<UpdateId>{2, 3, 4, 5, 6, 7, 8});
  }
  SECTION("nor is one that comes while a large step is on its way") {
    const Limits tiny = small_pieces(16);
    DiffStream stream(1, source, source->head(), FollowMode::every_step, tiny);
    source->commit({{0, "a value"}, {1, "a value"}, {2, "a value"}, {3, "a value"}});
    reader.take(one_frame(stream));
    CHECK(reader.follower.ends().back() == 6);
    source->commit({{0, "next"}});
    reader.take(all_frames(stream));
    CHECK(reader.follower.ends() == std::vector<UpdateId>{2, 3, 4, 5, 6, 7, 8});
  }
  CHECK(reader.follower.state() == source->state(source->now()));
}

TEST_CASE("one diff ends exactly where it was to end, while the log reaches", "[protocol][guarantee_2]") {
  const Limits limits = small_pieces(16);
  const auto source = std::make_shared<NaiveSource>(4);
  for (int i = 1; i <= 6; ++i)
    source->commit({{0, "the value " + std::to_string(i)}, {1, "and another one"}});
  UpdateId upto = 6;
  UpdateId expected = 6;
  SECTION("at the head") {}
  SECTION("below the head") { upto = expected = 3; }
  SECTION("beyond the head: at the head as it is") { upto = 99; }
  SECTION("at the head, which moves on") {
    source->before_encoding = [&] {
      if (source->now() < 20) source->commit({{2, "later"}});
    };
  }
  SECTION("below the head, and the log is lost in mid-transfer: at the head") {
    upto = 3;
    expected = 6;
    source->before_encoding = [&, calls = 0]() mutable {
      if (++calls == 2) source->log_from = 1;
    };
  }
  ClientSide client;
  client.authenticate();
  client.session.open({});
  const auto request = client.session.get_diff(1, {}, upto);
  DiffStream stream(request, source, {}, upto, limits);
  Bytes out;
  for (int i = 0; !stream.is_done(); ++i) {
    REQUIRE(i < 100);
    REQUIRE(stream.produce(out));
  }
  CHECK_FALSE(stream.produce(out));
  StateFollower<std::string> follower(frozen_keys(4));
  follower.take_actions(client.session, out);
  CHECK(follower.position().update_id == expected);
  CHECK(follower.state() == source->state(expected));
}

TEST_CASE("a diff too large for a frame goes in pieces, and shows nothing before it is whole",
          "[protocol][guarantee_3]") {
  const Limits limits = small_pieces(16);
  const auto source = std::make_shared<NaiveSource>(5);
  source->commit({{0, "0123456"}, {1, "1123456"}, {2, "2123456"}, {3, "3123456"}});
  DiffStream stream(1, source, {}, FollowMode::merged, limits);
  Reader reader(5, {}, FollowMode::merged);
  int pieces = 0;
  while (stream.is_behind()) {
    CHECK(reader.follower.ends().empty());
    CHECK(stream.at() == Position{});
    if (++pieces == 2) source->commit({{0, "later"}, {3, "later"}});
    reader.take(one_frame(stream));
  }
  CHECK(pieces == 4);  // 0, 1, 2, and a closing one with the new values of 0 and 3
  CHECK(reader.follower.ends() == std::vector<UpdateId>{2});
  CHECK(reader.follower.state() == source->state(2));
}

TEST_CASE("a transfer ends on a snapshot, even where every key changes between any two pieces",
          "[protocol]") {
  const Limits limits = small_pieces(16);
  const auto source = std::make_shared<NaiveSource>(5);
  const auto change_all = [&] {
    const std::string text = "value " + std::to_string(source->now());
    source->commit({{0, text}, {1, text}, {2, text}, {3, text}, {4, text}});
  };
  change_all();
  source->before_encoding = change_all;
  DiffStream stream(1, source, {}, FollowMode::merged, limits);
  Reader reader(5, {}, FollowMode::merged);
  for (int i = 0; reader.follower.ends().empty(); ++i) {
    REQUIRE(i < 50);
    reader.take(one_frame(stream));
  }
  const UpdateId end = reader.follower.ends().front();
  CHECK(reader.follower.state() == source->state(end));
  CHECK(source->pinned->update_id() == end);
}

TEST_CASE("a snapshot that another transfer pinned has every key that the passes left out", "[protocol]") {
  Limits limits = small_pieces(16);
  limits.transfer_rounds = 1;
  const auto source = std::make_shared<NaiveSource>(5);
  source->commit({{0, "0123456"}, {1, "1123456"}, {2, "2123456"}, {3, "3123456"}});
  DiffStream stream(1, source, {}, FollowMode::merged, limits);
  Reader reader(5, {}, FollowMode::merged);
  reader.take(one_frame(stream));  // key 0, of a pass up to update 1
  // Another transfer pins a snapshot at 1. Then key 3 changes, so this pass leaves it out.
  source->pinned = std::make_shared<wire::PinnedSnapshot>(1);
  source->commit({{3, "later and longer"}, {4, "later and longer"}});
  while (reader.follower.ends().empty()) reader.take(one_frame(stream));
  CHECK(reader.follower.ends().front() == 1);
  CHECK(reader.follower.state() == source->state(1));
  reader.take(all_frames(stream));
  CHECK(reader.follower.state() == source->state(2));
}

// Hosted maps

namespace {

/// A value that is not its own bytes, and can be large.
struct Record {
  std::string text;
  std::int64_t number = 0;
  friend bool operator==(const Record&, const Record&) = default;
};

}  // namespace

TEST_CASE("values larger than a frame are cut at byte level", "[protocol]") {
  const Limits limits = small_pieces(100);
  const auto check = [&](const auto& small, const auto& large, const auto& changed) {
    using V = std::decay_t<decltype(small)>;
    const auto map = std::make_shared<detail::HostedMap<std::string, V>>(make_master<V>(4, small), limits);
    const auto frozen = map->read([](const auto& state) { return detail::MapAccess::frozen(state); });
    commit<V>(*map, {{1, large}, {2, large}});
    DiffStream stream(1, map, {}, FollowMode::merged, limits);
    ClientSide client;
    client.authenticate();
    client.session.open(plain_open({}, FollowMode::merged));
    StateFollower<V> follower(frozen);
    int parts = 0;
    while (stream.is_behind()) {
      const Bytes frame = one_frame(stream);
      CHECK(frame.size() < 120);
      if (kinds_of(frame).at(0) == 42) ++parts;
      follower.take_actions(client.session, frame);
      if (parts == 5 && map->head().update_id == 1) commit<V>(*map, {{1, changed}});  // in mid-part
    }
    CHECK(parts >= 15);
    CHECK(follower.ends() == std::vector<UpdateId>{2});
    CHECK(follower.state() == std::vector<V>{small, changed, large, small});
    // The same out of the log, one diff and step by step.
    StateFollower<V> exact(frozen);
    const auto request = client.session.get_diff(1, {}, 1);
    DiffStream one(request, map, {}, UpdateId{1}, limits);
    Bytes out;
    while (!one.is_done()) one.produce(out);
    exact.take_actions(client.session, out);
    CHECK(exact.state() == std::vector<V>{small, large, large, small});
    StateFollower<V> steps(frozen);
    const auto other = client.session.open(plain_open({}, FollowMode::every_step));
    DiffStream stepping(other, map, {}, FollowMode::every_step, limits);
    steps.take_actions(client.session, all_frames(stepping));
    CHECK(steps.ends() == std::vector<UpdateId>{1, 2});
    CHECK(steps.state() == follower.state());
  };
  SECTION("strings") { check(std::string("-"), std::string(1'000, 'x'), std::string(700, 'y')); }
  SECTION("values with a codec") {
    check(Record{"-", 0}, Record{std::string(1'000, 'x'), 1}, Record{std::string(700, 'y'), 2});
  }
  SECTION("a value that just fills a frame") {
    check(std::string("-"), std::string(1'000, 'x'), std::string(100, 'y'));
    check(std::string("-"), std::string(1'000, 'x'), std::string(98, 'y'));
    check(std::string("-"), std::string(1'000, 'x'), std::string(99, 'y'));
  }
}

TEST_CASE("a value beyond the limit is refused on the master, and nothing was changed", "[protocol]") {
  Limits limits;
  limits.value_bytes = 10;
  const auto map = std::make_shared<Hosted>(make_master<std::string>(2, "-"), limits);
  CHECK_THROWS_AS(commit<std::string>(*map, {{0, "fits"}, {1, "does not fit"}}), StateError);
  CHECK(map->head().update_id == 0);
  CHECK(commit<std::string>(*map, {{0, "ten bytes!"}}) == 1);
}

TEST_CASE("transfers share one snapshot of a hosted map", "[protocol]") {
  const Limits limits = small_pieces(64);
  const auto map = std::make_shared<Hosted>(make_master<std::string>(20, "-"), limits);
  const auto change_all = [&] {
    const std::string text = "a value of some length " + std::to_string(map->head().update_id);
    std::vector<std::pair<std::uint32_t, std::string>> changes;
    for (std::uint32_t i = 0; i < 20; ++i) changes.emplace_back(i, text);
    commit<std::string>(*map, changes);
  };
  change_all();
  const auto first = map->pin_snapshot(1);
  const auto second = map->pin_snapshot(1);
  CHECK(first == second);
  change_all();
  CHECK(map->pin_snapshot(1) == first);
  std::vector<std::shared_ptr<const wire::PinnedSnapshot>> later;
  const auto read_first = [&] {
    wire::PassCursor cursor;
    cursor.target = 1;
    cursor.snapshot = first;
    Bytes out;
    return map->encode_pass(cursor, 1'000, out);
  };
  for (int i = 0; i < 3; ++i) {
    later.push_back(map->pin_snapshot(map->head().update_id));
    CHECK(later.back() != first);
    CHECK(map->pin_snapshot(1) == later.back());  // the newest, which lasts longest
    change_all();
  }
  CHECK(read_first() == wire::PassPiece::entries);
  later.push_back(map->pin_snapshot(map->head().update_id));
  CHECK(read_first() == wire::PassPiece::lost);  // four are enough
  later.clear();

  std::vector<std::unique_ptr<DiffStream>> streams;
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 6; ++i) {
    streams.push_back(std::make_unique<DiffStream>(1, map, Position{}, FollowMode::merged, limits));
    readers.push_back(std::make_unique<Reader>(
        map->read([](const auto& state) { return detail::MapAccess::frozen(state); }), Position{},
        FollowMode::merged));
  }
  std::map<UpdateId, Values> history;
  for (int round = 0; round < 2'000; ++round) {
    bool is_everyone_done = true;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (!readers[i]->follower.ends().empty()) continue;
      is_everyone_done = false;
      change_all();
      const std::string text = "a value of some length " + std::to_string(map->head().update_id - 1);
      history[map->head().update_id] = Values(20, text);
      readers[i]->take(one_frame(*streams[i]));
    }
    if (is_everyone_done) break;
  }
  for (const auto& reader : readers) {
    REQUIRE_FALSE(reader->follower.ends().empty());
    CHECK(reader->follower.state() == history.at(reader->follower.ends().front()));
  }
}

TEST_CASE("replicas that do not read keep no other transfer from its end", "[protocol][guarantee_7]") {
  const Limits limits = small_pieces(64);
  const std::uint32_t keys = 12;
  const auto map = std::make_shared<Hosted>(make_master<std::string>(keys, "-"), limits);
  const auto frozen = map->read([](const auto& state) { return detail::MapAccess::frozen(state); });
  std::vector<Values> history{Values(keys, "-")};
  const auto change_all = [&] {
    const std::string text = "a value of some length " + std::to_string(history.size());
    std::vector<std::pair<std::uint32_t, std::string>> changes;
    for (std::uint32_t i = 0; i < keys; ++i) changes.emplace_back(i, text);
    commit<std::string>(*map, changes);
    history.push_back(Values(keys, text));
  };
  change_all();
  std::vector<std::unique_ptr<DiffStream>> streams;
  std::vector<std::unique_ptr<Reader>> readers;
  const auto serve = [&](std::size_t i) {
    change_all();
    readers[i]->take(one_frame(*streams[i]));
  };
  // Each stalls in the middle of its snapshot, which is of another time than all others.
  for (std::size_t i = 0; i < 9; ++i) {
    streams.push_back(std::make_unique<DiffStream>(1, map, Position{}, FollowMode::merged, limits));
    readers.push_back(std::make_unique<Reader>(frozen, Position{}, FollowMode::merged));
    for (int pieces = 0; pieces < 6; ++pieces) serve(i);
    CHECK(readers[i]->follower.ends().empty());
  }
  // The last to come ends, and so does each of the others once it reads on.
  for (std::size_t i = streams.size(); i-- > 0;) {
    for (int pieces = 0; readers[i]->follower.ends().empty(); ++pieces) {
      REQUIRE(pieces < 50);
      serve(i);
    }
    CHECK_FALSE(readers[i]->follower.is_closed);
    CHECK(readers[i]->follower.state() == history.at(readers[i]->follower.ends().front()));
  }
}

TEST_CASE("whatever the writer does, every stream leads to the master's state at each of its ends",
          "[protocol][guarantee_2][guarantee_3]") {
  const auto seed = GENERATE(range(0U, 150U));
  INFO("seed " << seed);
  std::mt19937 rng(seed);
  const auto keys = static_cast<std::uint32_t>(1 + rng() % 30);
  Limits limits = small_pieces(20 + rng() % 100);
  limits.transfer_rounds = static_cast<unsigned>(rng() % 4);
  MapOptions options;
  options.log_diffs = rng() % 2 == 0 ? rng() % 10 : 4'096;
  const auto map = std::make_shared<Hosted>(make_master<std::string>(keys, "-", options), limits);
  const auto frozen = map->read([](const auto& state) { return detail::MapAccess::frozen(state); });

  std::vector<Values> history{Values(keys, "-")};
  const auto change = [&] {
    std::vector<std::pair<std::uint32_t, std::string>> changes;
    Values next = history.back();
    for (std::uint32_t i = 0; i < keys; ++i) {
      if (rng() % 3 != 0) continue;
      next[i] = std::string(rng() % (rng() % 8 == 0 ? 300 : 12), static_cast<char>('a' + rng() % 26));
      changes.emplace_back(i, next[i]);
    }
    if (changes.empty()) return;
    std::shuffle(changes.begin(), changes.end(), rng);
    commit<std::string>(*map, changes);
    history.push_back(std::move(next));
  };

  struct Flow {
    Flow(const StateFollower<std::string>::Frozen& frozen_state) : follower(frozen_state) {
      client.authenticate();
    }
    ClientSide client;
    StateFollower<std::string> follower;
    std::unique_ptr<DiffStream> stream;
    FollowMode mode = FollowMode::merged;
    std::optional<UpdateId> upto;
    std::size_t seen = 0;
    bool is_of_other_life = false;
  };
  std::vector<std::unique_ptr<Flow>> flows;
  for (int i = 0; i < 4; ++i) change();
  for (int i = 0; i < 6; ++i) {
    auto flow = std::make_unique<Flow>(frozen);
    Position at;
    if (rng() % 3 == 0) {
      at = {map->head().epoch ^ 1U, rng() % 9};  // of another life
      flow->follower.close({at.epoch, 0, at.update_id, true}, {});
      flow->seen = 1;
      flow->is_of_other_life = true;
    }
    if (rng() % 3 == 0) {
      flow->upto = rng() % 8;
      flow->client.session.open({});
      const auto request = flow->client.session.get_diff(1, at, *flow->upto);
      flow->stream = std::make_unique<DiffStream>(request, map, at, *flow->upto, limits);
    } else {
      flow->mode = rng() % 2 == 0 ? FollowMode::merged : FollowMode::every_step;
      flow->client.session.open(plain_open(at, flow->mode));
      flow->stream = std::make_unique<DiffStream>(1, map, at, flow->mode, limits);
    }
    flows.push_back(std::move(flow));
  }
  const auto serve = [&](Flow& flow) {
    const Bytes frame = one_frame(*flow.stream);
    if (frame.empty()) return false;
    if (split_frames(frame).size() != 1) FAIL("not one frame");
    flow.follower.take_actions(flow.client.session, frame);
    if (flow.follower.is_closed) FAIL(flow.follower.close_text);
    for (; flow.seen < flow.follower.ends().size(); ++flow.seen) {
      const UpdateId end = flow.follower.ends()[flow.seen];
      REQUIRE(end < history.size());
      if (flow.follower.state() != history[end]) FAIL("another state than the master had at " << end);
      if (flow.mode == FollowMode::every_step && options.log_diffs > 1'000 && !flow.is_of_other_life) {
        CHECK(end == flow.seen + 1);
      }
    }
    return true;
  };
  for (int i = 0; i < 400; ++i) {
    if (rng() % 3 == 0) change();
    serve(*flows[rng() % flows.size()]);
  }
  for (const auto& flow : flows) {
    for (int i = 0; serve(*flow); ++i) {
      if (i == 100'000) FAIL("no end");
    }
    if (flow->upto) {
      CHECK(flow->stream->is_done());
    } else {
      CHECK(flow->follower.position() == map->head());
      CHECK(flow->follower.state() == history.back());
    }
  }
}

}  // namespace stream_test
