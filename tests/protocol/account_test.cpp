// What a client makes a server session hold is charged to its account, and bounded by it.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "protocol/session_harness.hpp"
#include "support/catch.hpp"
#include "support/counted_new.hpp"
#include "syncstate/detail/server/link_table.hpp"
#include "syncstate/inproc.hpp"
#include "syncstate/server_core.hpp"

namespace syncstate::testing::account_test {
namespace {

using Hosted = detail::HostedMap<std::string, std::string>;

constexpr std::size_t kibibyte = 1'024;
constexpr std::size_t mebibyte = 1'024 * kibibyte;

wire::Open open_of(wire::ChannelId channel, const MapHash& hash, const std::string& type = "string") {
  wire::Open open;
  open.channel = channel;
  open.hash = hash;
  open.key_type = open.value_type = type;
  open.mode = wire::FollowMode::merged;
  return open;
}

/// A server session that one client makes hold as much as it can; nothing is read from it.
class Greedy {
 public:
  explicit Greedy(const Limits& given = {})
      : limits(given),
        all(std::make_shared<wire::ServerAccount>(limits)),
        map(std::make_shared<Hosted>(make_master<std::string>(2, "-"), Limits{})) {
    session.emplace(limits, t0, all);
    session->on_open(passwords(), test_binding(), false, t0);
    feed(hello_frame());
    Bytes out;
    session->produce(out);
    log.lines.clear();
    before_ = live_bytes;
  }

  void feed(ByteView bytes) {
    session->on_bytes(bytes, t0, [this](const auto& action) { this->perform(action); });
    log.lines.clear();
    log.lines.shrink_to_fit();
    if (grown() > most_grown) most_grown = grown();
  }
  template <class Message>
  void send(const Message& message) {
    feed(frame_of(message));
  }
  void open(wire::ChannelId channel) { send(open_of(channel, map->hash())); }

  [[nodiscard]] bool is_over() const { return session->is_over(); }
  /// The memory that the session took since its client proved itself.
  [[nodiscard]] std::size_t grown() const {
    return live_bytes > before_ ? static_cast<std::size_t>(live_bytes - before_) : 0;
  }

  const Limits limits;
  std::shared_ptr<wire::ServerAccount> all;
  std::shared_ptr<Hosted> map;
  CountedList list;
  std::optional<wire::ServerSession> session;
  ActionLog log;
  std::size_t most_grown = 0;
  bool answers_opens = true;
  std::vector<wire::EventTicket> tickets;

 private:
  template <class Action>
  void perform(const Action& action) {
    if constexpr (std::is_same_v<Action, wire::CloseSession>) {
      log(action);
    } else if constexpr (std::is_same_v<Action, wire::OpenAsked>) {
      if (!answers_opens) return;
      if (action.open.hash == map->hash()) {
        session->opened(action.open.channel, map);
      } else {
        session->want_upload(action.open.channel);
      }
    } else if constexpr (std::is_same_v<Action, wire::SenderAsked>) {
      session->give_sender(action.channel, 77);
    } else if constexpr (std::is_same_v<Action, wire::FollowAsked>) {
      session->follow(action.follow);
    } else if constexpr (std::is_same_v<Action, wire::DiffAsked>) {
      session->send_diff(action.ask);
    } else if constexpr (std::is_same_v<Action, wire::HeadAsked>) {
      session->send_head(action.ask);
    } else if constexpr (std::is_same_v<Action, wire::FetchAsked>) {
      session->send_initial(action.fetch.request, map);
    } else if constexpr (std::is_same_v<Action, wire::ListAsked>) {
      list.maps.insert(map->hash());
      session->send_hosted(action.request, list);
    } else if constexpr (std::is_same_v<Action, wire::EventCame>) {
      // Each event fails with the longest text there is.
      session->answer_error(action.ticket, StateErrc::hook_failed, std::string(512, 'x'));
    }
  }

  std::ptrdiff_t before_ = 0;
};

/// What a client can send, at its worst.
struct Attack {
  const char* name;
  std::function<void(Greedy&)> run;
};

std::string long_type(std::size_t number, std::size_t size = wire::most_type_bytes) {
  std::string type = std::to_string(number);
  type.resize(size, 't');
  return type;
}

constexpr std::size_t many = 3'000;

const std::vector<Attack>& attacks() {
  static const std::vector<Attack> all{
      {"opens that wait",
       [](Greedy& g) {
         g.answers_opens = false;
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) g.send(open_of(i, MapHash()));
       }},
      {"opens with long types",
       [](Greedy& g) {
         g.answers_opens = false;
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) {
           g.send(open_of(i, MapHash(), std::string(100 * kibibyte, 'x')));
         }
       }},
      {"opens that are followed",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) g.open(i);
       }},
      {"uploads",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) g.send(open_of(i, MapHash()));
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) {
           wire::Upload upload;
           const Bytes bytes(kibibyte);
           upload.channel = i;
           upload.bytes = bytes;
           g.send(upload);
         }
       }},
      {"event types, all different",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= 1'000 && !g.is_over(); ++i) {
           g.open(i);
           g.send(wire::EventType{i, long_type(i)});
         }
       }},
      {"event types of a MiB",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= 1'000 && !g.is_over(); ++i) {
           g.open(i);
           g.send(wire::EventType{i, long_type(i, mebibyte - 100)});
         }
       }},
      {"parts of events",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= 1'000; ++i) g.open(i);
         const Bytes bytes(1'001);
         for (std::size_t i = 0; i < many && !g.is_over(); ++i) {
           g.send(wire::EventPart{1 + i % 1'000, bytes});
         }
       }},
      {"events whose answers are not read",
       [](Greedy& g) {
         g.open(1);
         g.send(wire::GetSender{1, 0});
         g.send(wire::EventType{1, "type"});
         for (std::uint64_t i = 1; i <= many && !g.is_over(); ++i) {
           g.send(wire::EventMessage{1, i, {}});
         }
       }},
      {"events on all channels",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= 1'000; ++i) {
           g.open(i);
           g.send(wire::GetSender{i, 0});
         }
         for (std::uint64_t i = 1; i <= many && !g.is_over(); ++i) {
           g.send(wire::EventMessage{1 + i % 1'000, i, {}});
         }
       }},
      {"senders asked for",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) {
           g.open(i);
           g.send(wire::GetSender{i, 0});
           g.send(wire::CloseChannel{i});
         }
       }},
      {"senders asked for early",
       [](Greedy& g) {
         g.answers_opens = false;
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) {
           g.send(open_of(i, MapHash()));
           g.send(wire::GetSender{i, i});
         }
       }},
      {"heads asked for",
       [](Greedy& g) {
         g.open(1);
         for (wire::ChannelId i = 2; i <= 100'000 && !g.is_over(); ++i) g.send(wire::GetUpdateId{i, 1});
       }},
      {"diffs asked for",
       [](Greedy& g) {
         g.open(1);
         for (wire::ChannelId i = 2; i <= many && !g.is_over(); ++i) {
           g.send(wire::GetDiff{i, 1, Position{}, 0});
         }
       }},
      {"requests on channels that are closed",
       [](Greedy& g) {
         g.open(1);
         g.send(wire::CloseChannel{1});
         for (wire::ChannelId i = 2; i <= 100'000 && !g.is_over(); ++i) {
           g.send(wire::GetDiff{i, 1, Position{}, 0});
         }
       }},
      {"fetches",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) {
           g.send(wire::Fetch{i, g.map->hash(), "string", "string"});
         }
       }},
      {"fetches with long types",
       [](Greedy& g) {
         const std::string type(100 * kibibyte, 't');
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) {
           g.send(wire::Fetch{i, g.map->hash(), type, type});
         }
       }},
      {"lists",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= many && !g.is_over(); ++i) g.send(wire::List{i});
       }},
      {"channels opened and closed",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= 100'000 && !g.is_over(); ++i) {
           g.open(i);
           g.send(wire::CloseChannel{i});
         }
       }},
      {"streams begun and ended",
       [](Greedy& g) {
         for (wire::ChannelId i = 1; i <= 1'000; ++i) {
           g.open(i);
           g.send(wire::Unfollow{i});
         }
       }},
      {"heartbeats",
       [](Greedy& g) {
         Bytes body;
         while (body.size() < mebibyte - 100) body.push_back(std::byte{1});
         body.resize(body.size() / 2 * 2);
         Bytes frame;
         const std::size_t start = wire::open_frame(frame);
         frame.push_back(static_cast<std::byte>(wire::FrameKind::heartbeat));
         frame.insert(frame.end(), body.begin(), body.end());
         wire::close_frame(frame, start);
         for (int i = 0; i < 10 && !g.is_over(); ++i) g.feed(frame);
       }},
      {"half a frame, byte by byte",
       [](Greedy& g) {
         const Bytes frame = frame_of(wire::EventPart{1, Bytes(mebibyte - 100)});
         g.feed(ByteView(frame).first(10));
         for (std::size_t at = 10; at + 1'000 < frame.size(); at += 1'000) {
           g.feed(ByteView(frame).subspan(at, 1'000));
         }
       }},
  };
  return all;
}

}  // namespace

TEST_CASE("all that a client makes a session hold is charged, bounded, and given back",
          "[protocol][account]") {
  const Attack& attack = attacks()[GENERATE(range(std::size_t{0}, attacks().size()))];
  INFO("attack: " << attack.name);
  Greedy g;
  attack.run(g);
  const std::size_t held = g.session->held_bytes();
  INFO("charged " << held << ", taken " << g.grown() << ", at most " << g.most_grown);
  CHECK(held == g.session->counted_bytes());
  // The charge is an upper bound, and none that is far from what is taken: besides, the allocator rounds up.
  CHECK(g.grown() <= held + held / 8 + 4 * kibibyte);
  // A single frame of a MiB is whole for a moment, and lies there decoded.
  CHECK(g.most_grown <= g.limits.link_bytes + 4 * mebibyte);
  CHECK(held <= g.limits.link_bytes + 2 * mebibyte);
  if (g.is_over()) {
    CHECK((g.log.close_reason() == StateErrc::busy || g.log.close_reason() == StateErrc::too_large));
    CHECK(g.log.closes.at(0).detail.size() > 10);
  }
  CHECK(g.all->bytes() <= held + 3 * 64 * kibibyte);
  Bytes out;
  while (g.session->wants_to_send()) {
    out = Bytes();
    g.session->produce(out);
    if (out.empty()) break;
  }
  g.session->fail(StateErrc::stopped, "the end", g.log);
  g.session.reset();
  CHECK(g.all->bytes() == 0);
}

TEST_CASE("where all links hold as much as they may, none gets more than its own room, whatever it sends",
          "[protocol][account]") {
  const Attack& attack = attacks()[GENERATE(range(std::size_t{0}, attacks().size()))];
  INFO("attack: " << attack.name);
  Greedy g;
  REQUIRE(g.all->take(g.limits.all_link_bytes));  // others have it
  attack.run(g);
  // What came as one may be beyond it for as long as it takes to see that.
  const std::size_t held = g.session->held_bytes();
  INFO("charged " << held << ", at most " << g.most_grown << ", over: " << g.is_over());
  CHECK((g.is_over() || held <= g.limits.own_link_bytes));
  if (g.is_over()) {
    CHECK((g.log.close_reason() == StateErrc::busy || g.log.close_reason() == StateErrc::too_large));
  }
  CHECK(g.most_grown <= g.limits.own_link_bytes + 4 * mebibyte);
  g.session->fail(StateErrc::stopped, "the end", g.log);
  g.session.reset();
  CHECK(g.all->bytes() == g.limits.all_link_bytes);
  g.all->give_back(g.limits.all_link_bytes);
}

TEST_CASE("what was asked for and is answered is charged no longer", "[protocol][account]") {
  Greedy g;
  const auto read_all = [&g] {
    Bytes out;
    do {
      out.clear();
      g.session->produce(out);
    } while (!out.empty());
  };
  g.open(1);
  read_all();
  const std::size_t before = g.session->held_bytes();
  for (wire::ChannelId i = 2; i < 202; i += 4) {
    g.send(wire::GetUpdateId{i, 1});
    g.send(wire::GetDiff{i + 1, 1, Position{}, 0});
    g.send(wire::Fetch{i + 2, g.map->hash(), "string", "string"});
    g.send(wire::List{i + 3});
  }
  REQUIRE(!g.is_over());
  CHECK(g.session->held_bytes() > before);
  read_all();
  CHECK(g.session->held_bytes() == before);
}

TEST_CASE("a channel's name of its events is kept once for all channels of a link", "[protocol][account]") {
  Greedy g;
  for (wire::ChannelId i = 1; i <= 500; ++i) g.open(i);
  const std::size_t before = g.grown();
  for (wire::ChannelId i = 1; i <= 500; ++i) g.send(wire::EventType{i, long_type(0)});
  CHECK_FALSE(g.is_over());
  CHECK(g.grown() - before <= 3 * wire::most_type_bytes);
}

TEST_CASE("the name of a type is bounded", "[protocol][account]") {
  Greedy g;
  SECTION("of events: one byte more ends the session") {
    g.open(1);
    g.send(wire::EventType{1, long_type(1)});
    CHECK_FALSE(g.is_over());
    g.send(wire::EventType{1, long_type(1, wire::most_type_bytes + 1)});
    CHECK(g.log.close_reason() == StateErrc::too_large);
  }
  SECTION("of a map: the channel is refused, and the session goes on") {
    g.send(open_of(1, g.map->hash(), long_type(1, wire::most_type_bytes + 1)));
    Bytes out;
    g.session->produce(out);
    const auto frames = split_frames(out);
    REQUIRE(frames.size() == 1);
    REQUIRE(frames[0].kind == wire::FrameKind::refused);
    CHECK(wire::decode_body<wire::Refused>(frames[0].body).reason == StateErrc::too_large);
    CHECK_FALSE(g.is_over());
  }
}

TEST_CASE("a link's own room is not taken by others", "[protocol][account]") {
  Limits limits;
  limits.all_link_bytes = 512 * kibibyte;
  limits.link_bytes = 512 * kibibyte;
  limits.own_link_bytes = 64 * kibibyte;
  const auto all = std::make_shared<wire::ServerAccount>(limits);
  wire::LinkAccount first(limits, all);
  wire::LinkAccount second(limits, all);
  wire::LinkAccount honest(limits, all);
  first.take(512 * kibibyte);
  CHECK(all->bytes() == 448 * kibibyte);
  CHECK_THROWS_AS(first.take(1), StateError);
  CHECK(first.bytes() == 512 * kibibyte);
  second.take(128 * kibibyte);
  CHECK(all->bytes() == 512 * kibibyte);
  CHECK_THROWS_AS(second.take(1), StateError);
  CHECK(second.bytes() == 128 * kibibyte);
  honest.take(64 * kibibyte);
  CHECK_THROWS_AS(honest.take(1), StateError);
  honest.give_back(64 * kibibyte);
  first.give_back(512 * kibibyte);
  // The step that the account keeps for the next time is a small one.
  CHECK(all->bytes() <= 128 * kibibyte);
  second.give_back(128 * kibibyte);
}

TEST_CASE("what is held already counts against what is asked for next", "[protocol][account]") {
  Limits limits;
  limits.link_bytes = 256 * kibibyte;
  const auto all = std::make_shared<wire::ServerAccount>(limits);
  wire::LinkAccount account(limits, all);
  account.add(300 * kibibyte);
  CHECK_THROWS_AS(account.expect_room(), StateError);
  CHECK_THROWS_AS(account.take(1), StateError);
  account.give_back(50 * kibibyte);
  CHECK_NOTHROW(account.expect_room());
  CHECK_NOTHROW(account.take(1));
  account.give_back(250 * kibibyte + 1);
}

TEST_CASE("what is held beyond the room of all links ends the link that took it last, and no other",
          "[protocol][account]") {
  Limits limits;
  limits.all_link_bytes = 1 * mebibyte;
  limits.own_link_bytes = 64 * kibibyte;
  const auto all = std::make_shared<wire::ServerAccount>(limits);
  wire::LinkAccount first(limits, all);
  wire::LinkAccount second(limits, all);
  wire::LinkAccount honest(limits, all);
  first.add(1 * mebibyte);
  CHECK_NOTHROW(first.expect_room());
  second.add(512 * kibibyte);
  CHECK_THROWS_AS(second.expect_room(), StateError);
  CHECK_NOTHROW(first.expect_room());
  honest.add(64 * kibibyte);
  CHECK_NOTHROW(honest.expect_room());
  second.give_back(512 * kibibyte);
  CHECK_NOTHROW(second.expect_room());
  first.give_back(1 * mebibyte);
  honest.give_back(64 * kibibyte);
}

TEST_CASE("an address that is remembered takes less than 0.75 KiB", "[protocol][account]") {
  const bool has_failures = GENERATE(false, true);
  constexpr std::size_t count = 1'000;
  const Limits limits;
  detail::LinkTable table(limits);
  std::vector<std::string> addresses;
  for (std::size_t i = 0; i < count; ++i) {
    addresses.push_back("2001:db8:1234:5678:9abc:def0:1234:" + std::to_string(1'000 + i));
  }
  const std::ptrdiff_t before = live_bytes;
  std::uint64_t link = 0;
  for (const std::string& address : addresses) {
    ++link;
    static_cast<void>(table.admit(link, address, t0));
    if (has_failures) {
      // As many as may fail, and as many that right proofs took back.
      const auto proves = [&](std::size_t times, wire::ProofStanding standing) {
        for (; times > 0; --times) CHECK(table.proof_checked(link, address, standing, t0));
      };
      for (const std::size_t wrong : {limits.failed_proofs_per_minute - 1, std::size_t{1}}) {
        proves(wrong, wire::ProofStanding::wrong);
        proves(1, wire::ProofStanding::right);
      }
      proves(limits.failed_proofs_per_minute, wire::ProofStanding::wrong);
    }
    table.closed(link, address, t0);
  }
  REQUIRE(table.addresses() == count);
  const auto taken = static_cast<std::size_t>(live_bytes - before);
  CHECK(taken <= count * (has_failures ? 768 : 256));
  CHECK(taken >= count * (has_failures ? 512 : 128));
}

TEST_CASE("a connection that gets no link, or closes without a proof, leaves nothing behind",
          "[protocol][account][guarantee_9]") {
  struct IdleLink final : Link {
    void wake() override {}
    void close_gracefully() override {}
    void abort() override {}
  };
  ServerCoreOptions options;
  options.passwords = {"secret"};
  options.limits.links = 1;
  options.limits.unproven_links_per_minute = 1'000'000;
  inproc::VirtualTime time;
  const auto core = ServerCore<std::string, std::string, std::string>::create(options, time.make_pool());
  const auto lane = core->add_entry_lane(time.make_executor());
  core->start();
  const auto make_link = [] { return std::make_shared<IdleLink>(); };
  const auto fail = []() -> std::shared_ptr<Link> { throw std::bad_alloc(); };
  const auto come_and_go = [&](int times) {
    for (; times > 0; --times) {
      CHECK_THROWS_AS(core->accept(lane, "192.0.2.1", fail), std::bad_alloc);
      const auto owner = core->accept(lane, "192.0.2.1", make_link);
      REQUIRE(owner);  // the one that failed has no place
      CHECK(core->accept(lane, "192.0.2.1", make_link) == nullptr);
      owner->on_open(LinkInfo{Peer{.address = "192.0.2.1"}, test_binding()});
      owner->on_closed({}, {});
    }
    time.run_ready();
  };
  come_and_go(100);
  CHECK(core->link_count() == 0);
  const std::ptrdiff_t before = live_bytes;
  come_and_go(1'000);
  CHECK(live_bytes - before < 8'000);
  // No link is expected, so nothing waits for one.
  const auto held = std::make_shared<int>(0);
  CHECK(core->disconnect([held](const Peer&) { return true; }) == 0);
  CHECK(held.use_count() == 1);
}

}  // namespace syncstate::testing::account_test
