// Links of strangers live on a lane of their own, and leave it when their clients have proven themselves.
#include <cstddef>
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
  void close_without_waiting() override { is_left = true; }
  void abort() override { is_aborted = true; }
  void move_on(detail::UniqueFunction<void()> given) override { then = std::move(given); }

  int wakes = 0;
  bool is_closing = false;
  bool is_left = false;  // closed without waiting
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

  void connect(const std::string& address = "192.0.2.1") { connect_as(Peer{.address = address}); }
  void connect_as(const Peer& peer) {
    owner = core->accept(
        entry_lane, peer.address, [&] { return link; }, lane);
    REQUIRE(owner);
    owner->on_open(LinkInfo{peer, binding});
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

TEST_CASE("a stranger is told when its server stops") {
  Entry t;
  t.connect();
  t.core->stop();
  t.time.run_ready();
  CHECK(t.link->is_closing);
  CHECK(t.sent() == Kinds{protocol::FrameKind::goodbye});
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
  CHECK(t.link->is_left);
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

TEST_CASE(
    "disconnect ends a link that is between two lanes on the next one, and one whose proof comes later") {
  Entry t;
  t.connect();
  const auto everybody = [](const Peer&) { return true; };
  SECTION("it is between two lanes") {
    t.owner->on_bytes(t.proof_and_open());
    REQUIRE(t.link->then);
    CHECK(t.core->disconnect(everybody) == 1);
    CHECK(t.core->disconnect(everybody) == 0);  // it was found already
    CHECK(!t.link->is_closing);
    t.executor->post([&] { t.link->then(); });  // as a transport does, at the end of its turn
    t.time.run_ready();
    CHECK(t.lane->links().size() == 1);
  }
  SECTION("its proof has not come") {
    CHECK(t.core->disconnect(everybody) == 0);
    t.time.run_ready();
    CHECK(!t.link->is_closing);
    t.owner->on_bytes(t.proof_and_open());
    CHECK(!t.link->then);  // it stays where it is, to say goodbye
    CHECK(t.sent() == Kinds{protocol::FrameKind::welcome, protocol::FrameKind::goodbye});
    CHECK(t.link->is_closing);
    return;
  }
  CHECK(t.link->is_closing);
  const Kinds sent = t.sent();
  REQUIRE(!sent.empty());
  CHECK(sent.back() == protocol::FrameKind::goodbye);
}

TEST_CASE("a link is charged for what its client's certificate says, and for its subject with each map") {
  Peer peer{.address = "192.0.2.1", .certificate_subject = "CN=" + std::string(2'000, 's')};
  for (int i = 0; i < 256; ++i)
    peer.certificate_names.push_back("DNS:" + std::string(50, 'n') + std::to_string(i));
  Limits limits;
  limits.own_link_bytes = 0;
  Entry t(limits);
  std::size_t bare = 0;
  {
    t.connect();
    bare = t.entry_lane->links().at(0)->session().held_bytes();
    t.owner->on_closed({}, {});
  }
  t.connect_as(peer);
  const auto link = t.entry_lane->links().at(0);
  const std::size_t with_names = link->session().held_bytes();
  CHECK(with_names >= bare + 2'000 + 256 * (54 + sizeof(std::string)));
  CHECK(with_names <= bare + 2'000 + 256 * (54 + sizeof(std::string) + 64) + 200);
  CHECK(t.core->link_bytes() >= with_names);  // a stranger's, too

  const MapHash other = t.core->host(make_master(5)).hash();
  t.owner->on_bytes(t.proof_and_open());
  t.link->then();
  t.time.run_ready();
  t.sent();
  const auto ask = [&](const auto&... messages) {
    Bytes bytes;
    (protocol::append_frame(bytes, messages), ...);
    t.owner->on_bytes(bytes);
    t.time.run_ready();
    t.sent();
    return link->session().held_bytes();
  };
  const std::size_t with_map = link->session().held_bytes();
  const std::size_t with_sender = ask(protocol::GetSender{1, 0});
  CHECK(with_sender >= with_map + 2'000);
  auto second = open_of(other);
  second.channel = 2;
  CHECK(ask(second, protocol::GetSender{2, 0}) >= with_sender + 2'000);
  // With the channels of a map its share goes.
  CHECK(ask(protocol::CloseChannel{2}) < with_sender + 1'000);
  CHECK(ask(protocol::CloseChannel{1}) < with_names + 2'000);
}

}  // namespace syncstate::testing::entry_lane_test
