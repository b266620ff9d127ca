// Links of strangers live on a lane of their own, and leave it when their clients have proven themselves.
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::entry_lane_test {
namespace {

using Core = ServerCore<std::string, std::string, Command>;

/// A link that does what a transport does, by hand: it says what was asked of it.
struct HandLink final : Link {
  void wake() override { ++wakes; }
  void close_gracefully() override { is_closing = true; }
  void abort() override { is_aborted = true; }
  void move_on(detail::UniqueFunction<void()> given) override { then = std::move(given); }

  int wakes = 0;
  bool is_closing = false;
  bool is_aborted = false;
  detail::UniqueFunction<void()> then;
};

/// Counts what is posted to another executor.
struct CountedExecutor final : Executor {
  explicit CountedExecutor(std::shared_ptr<Executor> given) : executor(std::move(given)) {}
  [[nodiscard]] TimePoint now() const override { return executor->now(); }
  void post(Task task) override {
    ++posted;
    executor->post(std::move(task));
  }
  void post_at(TimePoint when, Task task) override { executor->post_at(when, std::move(task)); }
  [[nodiscard]] bool runs_here() const override { return executor->runs_here(); }
  bool wait_until(TimePoint limit, detail::UniqueFunction<bool()> is_done) override {
    return executor->wait_until(limit, std::move(is_done));
  }
  void wake_waiters() override { executor->wake_waiters(); }

  std::shared_ptr<Executor> executor;
  int posted = 0;
};

/// A server with a lane for strangers and one for the others, and room for one stranger.
struct Entry {
  explicit Entry(Limits limits = {}) {
    ServerCoreOptions options;
    options.passwords = {password};
    options.limits = limits;
    core = Core::create(std::move(options), time.make_pool());
    entry_lane = core->add_entry_lane(entry_executor);
    lane = core->add_lane(executor);
    core->host(make_master());
    core->start();
  }
  ~Entry() {
    core->stop();
    time.run_ready();
    if (owner) owner->on_closed({}, {});
    time.run_ready();
  }

  void connect(const std::string& address = "192.0.2.1") {
    owner = core->accept(
        entry_lane, address, [&] { return link; }, lane);
    REQUIRE(owner);
    owner->on_open(LinkInfo{Peer{address, {}}, binding});
  }
  /// A proof, and behind it in the same piece of bytes the wish to open the map.
  [[nodiscard]] Bytes proof_and_open(const std::string& word = password) const {
    protocol::Hello hello;
    hello.proof = protocol::make_proof(word, protocol::ProofRole::client, binding);
    Bytes bytes;
    protocol::append_frame(bytes, hello);
    protocol::append_frame(bytes, open_of(make_master().hash()));
    return bytes;
  }
  /// The kinds of the frames that the link would send now.
  std::vector<protocol::FrameKind> sent() {
    std::vector<protocol::FrameKind> kinds;
    for (;;) {
      Bytes bytes;
      owner->produce(bytes);
      if (bytes.empty()) return kinds;
      protocol::FrameReader frames(1 << 20);
      frames.feed(bytes, [&](const protocol::Frame& frame) {
        kinds.push_back(frame.kind);
        return true;
      });
    }
  }

  inproc::VirtualTime time;
  std::shared_ptr<CountedExecutor> entry_executor = std::make_shared<CountedExecutor>(time.make_executor());
  std::shared_ptr<CountedExecutor> executor = std::make_shared<CountedExecutor>(time.make_executor());
  std::shared_ptr<Core> core;
  std::shared_ptr<detail::Lane> entry_lane;
  std::shared_ptr<detail::Lane> lane;
  std::shared_ptr<HandLink> link = std::make_shared<HandLink>();
  std::shared_ptr<LinkOwner> owner;
  Bytes binding = Bytes(32, std::byte{7});
};

using Kinds = std::vector<protocol::FrameKind>;

}  // namespace

TEST_CASE("what comes behind a proof is looked at on the next lane only") {
  Entry t;
  t.connect();
  CHECK(t.entry_lane->links().size() == 1);
  t.owner->on_bytes(t.proof_and_open());
  REQUIRE(t.link->then);
  CHECK(t.entry_lane->links().empty());
  t.time.run_ready();
  CHECK(t.sent() == Kinds{protocol::FrameKind::welcome});  // and no map was opened

  t.link->then();
  t.time.run_ready();
  CHECK(t.lane->links().size() == 1);
  CHECK(t.sent() == Kinds{protocol::FrameKind::opened});
}

TEST_CASE("a proof that comes byte by byte moves its link as well, and a wrong one does not") {
  Entry t;
  t.connect();
  const bool is_right = GENERATE(true, false);
  for (const std::byte byte : t.proof_and_open(is_right ? password : "guess")) {
    if (t.link->then || t.link->is_closing) break;
    t.owner->on_bytes(ByteView(&byte, 1));
  }
  CHECK(static_cast<bool>(t.link->then) == is_right);
  CHECK(t.link->is_closing == !is_right);
  CHECK(t.entry_lane->links().size() == (is_right ? 0 : 1));
  if (!is_right) CHECK(t.sent() == Kinds{protocol::FrameKind::goodbye});
}

TEST_CASE("a link that is between two lanes when its server stops is ended on the next one") {
  Entry t;
  t.connect();
  t.owner->on_bytes(t.proof_and_open());
  REQUIRE(t.link->then);
  t.core->stop();
  t.time.run_ready();  // the lanes have ended all links that they know
  CHECK(!t.link->is_closing);
  t.link->then();
  CHECK(t.link->is_closing);
  CHECK(t.sent() == Kinds{protocol::FrameKind::welcome, protocol::FrameKind::goodbye});
}

TEST_CASE("a link is not evicted any more once its client has proven itself") {
  Limits limits;
  limits.pending_links = 1;
  Entry t(limits);
  t.connect("192.0.2.1");
  const auto newcomer = std::make_shared<HandLink>();
  std::shared_ptr<LinkOwner> second;
  const auto connect_newcomer = [&] {
    second = t.core->accept(
        t.entry_lane, "192.0.2.2", [&] { return newcomer; }, t.lane);
    REQUIRE(second);
  };
  SECTION("the eviction is on its way") {
    connect_newcomer();
    t.owner->on_bytes(t.proof_and_open());
    REQUIRE(t.link->then);
    t.time.run_ready();
    CHECK(!t.link->is_aborted);
  }
  SECTION("the link is through") {
    t.owner->on_bytes(t.proof_and_open());
    connect_newcomer();
    t.time.run_ready();
    CHECK(!t.link->is_aborted);
  }
  SECTION("without a proof it is") {
    connect_newcomer();
    t.time.run_ready();
    CHECK(t.link->is_aborted);
  }
  second->on_closed({}, {});
}

TEST_CASE("what is posted for a link that is between two lanes runs on the next one, after its arrival") {
  Entry t;
  t.connect();
  const auto link = t.entry_lane->links().at(0);
  std::string ran;
  const auto post = [&](const std::string& what) {
    detail::ServerLink::post(link, [&ran, what, lane = t.lane](detail::ServerLink& l) {
      ran += what + (l.lane() == lane ? " on the next;" : " on the first;");
    });
  };
  post("before");
  t.time.run_ready();
  post("meanwhile");
  t.owner->on_bytes(t.proof_and_open());
  REQUIRE(t.link->then);
  post("between");
  t.executor->post([&] { t.link->then(); });  // as a transport does, at the end of its turn
  t.time.run_ready();
  post("after");
  t.time.run_ready();
  CHECK(ran == "before on the first;meanwhile on the next;between on the next;after on the next;");
}

TEST_CASE("a stranger on the entry lane is closed when its time is over") {
  Entry t;
  t.connect();
  t.time.advance(Limits{}.authentication_time + 1s);
  CHECK(t.link->is_closing);
}

TEST_CASE("commits do not wake the lane of strangers") {
  Entry t;
  t.connect();
  t.time.run_ready();
  const int entry_before = t.entry_executor->posted;
  const int before = t.executor->posted;
  auto handle = t.core->host(make_master(3));
  handle.modify([](Map& map) { map.set("key00", "x"); });
  t.time.run_ready();
  CHECK(t.entry_executor->posted == entry_before);
  CHECK(t.executor->posted > before);
}

}  // namespace syncstate::testing::entry_lane_test
