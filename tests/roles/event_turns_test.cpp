// Whose turn it is among the events that wait for a map's hooks.
#include "syncstate/detail/server/event_turns.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/detail/server/sender_table.hpp"
#include "syncstate/limits.hpp"

namespace syncstate::detail {
namespace {

constexpr std::size_t much = std::size_t{1} << 30;
using InletPtr = std::shared_ptr<EventInlet>;

/// The events of a map as its links and its executor see them; what runs is written down.
struct Stage {
  explicit Stage(std::size_t most = much) : turns(bytes, most), senders(limits) {}

  InletPtr make_inlet() {
    auto inlet = std::make_shared<EventInlet>(std::weak_ptr<ServerLink>(), nullptr, EventContext{});
    turns.open(*inlet);
    return inlet;
  }

  std::uint64_t hold(const InletPtr& inlet, std::uint64_t sender) {
    SenderTable::Held held =
        senders.hold(sender, detail::SenderOwner{"", "192.0.2.1"}, turns.queue_of(*inlet));
    turns.join(*inlet, std::move(held.queue));
    return held.sender;
  }

  bool add(const InletPtr& inlet, std::uint64_t sender, std::uint64_t number, std::size_t size = 3) {
    const Bytes content(size, static_cast<std::byte>(number));
    protocol::EventTicket ticket;
    ticket.channel = 1;
    ticket.number = number;
    return turns.add(inlet, WaitingEvent{ticket, sender, 0, true}, content);
  }
  /// As `add`, where there is room.
  void keep(const InletPtr& inlet, std::uint64_t sender, std::uint64_t number) {
    if (!add(inlet, sender, number)) FAIL("no room for number " << number);
  }

  void push(const InletPtr& inlet) { is_asked_for = turns.push(*inlet) || is_asked_for; }

  void send(const InletPtr& inlet, std::uint64_t sender, std::uint64_t number) {
    keep(inlet, sender, number);
    push(inlet);
  }

  /// What happened to an event whose turn it was.
  struct Done {
    std::uint64_t sender;
    std::uint64_t number;
    SenderTable::Verdict verdict;
    InletPtr from;
  };

  /// Runs one batch, `most` events of it at most; returns false if none waited.
  bool run_some(std::size_t most, bool is_turn_over = false) {
    auto batch = turns.take();
    if (!batch) {
      is_asked_for = false;
      return false;
    }
    if (!is_asked_for) FAIL("`push` did not ask for `take`");
    const std::size_t count = std::min({most, batch->remaining(), turns.turn_left()});
    for (std::size_t i = 0; i < count; ++i) {
      const WaitingEvent event = batch->front();
      const ByteView content = batch->front_bytes();
      const auto is_right = [&](std::byte byte) {
        return byte == static_cast<std::byte>(event.ticket.number);
      };
      if (!std::all_of(content.begin(), content.end(), is_right)) FAIL("the bytes of another event");
      EventOutcome outcome;
      const auto verdict = senders.look_up(event.sender, event.ticket.number, outcome);
      if (verdict == SenderTable::Verdict::run) senders.record(event.sender, event.ticket.number, {});
      done.push_back(Done{event.sender, event.ticket.number, verdict, batch->from()});
      batch->pop();
    }
    if (!turns.finish(std::move(batch), count, is_turn_over)) is_asked_for = false;
    return true;
  }

  void run_all() {
    while (run_some(EventTurns::turn_events)) {
    }
  }

  std::vector<std::uint64_t> numbers_run(std::uint64_t sender) const {
    std::vector<std::uint64_t> numbers;
    for (const Done& event : done) {
      if (event.sender == sender && event.verdict == SenderTable::Verdict::run)
        numbers.push_back(event.number);
    }
    return numbers;
  }

  Limits limits;
  SharedBytesCount bytes = std::make_shared<std::atomic<std::size_t>>(0);
  EventTurns turns;
  SenderTable senders;
  std::vector<Done> done;
  bool is_asked_for = false;  ///< `take` has to be called
};

using Numbers = std::vector<std::uint64_t>;

Numbers up_to(std::uint64_t last) {
  Numbers numbers;
  for (std::uint64_t number = 1; number <= last; ++number) numbers.push_back(number);
  return numbers;
}

}  // namespace

TEST_CASE("events that wait count what they keep of their sender's certificate") {
  Stage stage;
  const auto peer = std::make_shared<Peer>();
  peer->certificate_names.assign(256, std::string(60, 'n'));
  auto inlet = std::make_shared<EventInlet>(std::weak_ptr<ServerLink>(), nullptr,
                                            EventContext{{}, {}, MapHash{}, peer});
  stage.turns.open(*inlet);
  const auto plain = stage.make_inlet();
  const std::size_t before = *stage.bytes;
  const std::uint64_t other = stage.hold(plain, 0);
  stage.send(plain, other, 1);
  const std::size_t of_plain = *stage.bytes - before;
  const std::uint64_t sender = stage.hold(inlet, 0);
  stage.send(inlet, sender, 1);
  const std::size_t of_named = *stage.bytes - before - of_plain;
  CHECK(of_named >= of_plain + 256 * (60 + sizeof(std::string)));
  while (stage.run_some(16)) {
  }
  CHECK(*stage.bytes == before);
}

TEST_CASE("events that still wait when their map goes are freed") {
  SharedBytesCount bytes;
  {
    Stage stage;
    bytes = stage.bytes;
    const bool is_gone = GENERATE(false, true);
    for (int i = 0; i < 3; ++i) {
      const InletPtr inlet = stage.make_inlet();
      const std::uint64_t sender = stage.hold(inlet, 0);
      for (std::uint64_t number = 1; number <= 40; ++number) stage.send(inlet, sender, number);
      if (is_gone) stage.turns.close(*inlet);
    }
    REQUIRE(stage.run_some(3));  // one of them has its turn
    REQUIRE(*bytes > 0);
  }
  CHECK(*bytes == 0);
}

TEST_CASE("an event waits for one turn of each other link, however many events those links have sent") {
  Stage stage;
  constexpr std::size_t links = 16;
  std::vector<InletPtr> inlets;
  for (std::size_t i = 0; i < links; ++i) {
    inlets.push_back(stage.make_inlet());
    const std::uint64_t sender = stage.hold(inlets.back(), 0);
    for (std::uint64_t number = 1; number <= 1'024; ++number) {
      stage.keep(inlets.back(), sender, number);
    }
    stage.push(inlets.back());
  }
  const InletPtr honest = stage.make_inlet();
  const std::uint64_t sender = stage.hold(honest, 0);
  stage.send(honest, sender, 1);
  const auto is_done = [&] { return !stage.done.empty() && stage.done.back().from == honest; };
  while (!is_done()) REQUIRE(stage.run_some(EventTurns::turn_events));
  CHECK(stage.done.size() == links * EventTurns::turn_events + 1);
}

TEST_CASE("a turn takes as many events from batches of one event as from a large batch") {
  Stage stage;
  const InletPtr large = stage.make_inlet();
  const std::uint64_t large_sender = stage.hold(large, 0);
  for (std::uint64_t number = 1; number <= 100; ++number) stage.keep(large, large_sender, number);
  stage.push(large);
  const InletPtr small = stage.make_inlet();
  const std::uint64_t small_sender = stage.hold(small, 0);
  for (std::uint64_t number = 1; number <= 40; ++number) stage.send(small, small_sender, number);
  while (stage.done.size() < 4 * EventTurns::turn_events) REQUIRE(stage.run_some(EventTurns::turn_events));
  CHECK(stage.numbers_run(large_sender) == up_to(2 * EventTurns::turn_events));
  CHECK(stage.numbers_run(small_sender) == up_to(2 * EventTurns::turn_events));
}

TEST_CASE("the queues of links that are gone share one turn of each round") {
  Stage stage;
  constexpr std::size_t gone = 100;
  for (std::size_t i = 0; i < gone; ++i) {
    const InletPtr inlet = stage.make_inlet();
    const std::uint64_t sender = stage.hold(inlet, 0);
    for (std::uint64_t number = 1; number <= 100; ++number) stage.keep(inlet, sender, number);
    stage.push(inlet);
    stage.turns.close(*inlet);
  }
  const InletPtr honest = stage.make_inlet();
  const std::uint64_t sender = stage.hold(honest, 0);
  for (std::uint64_t number = 1; number <= 3; ++number) {
    stage.done.clear();
    stage.run_some(
        EventTurns::turn_events);  // the queues of links that are gone have more than one turn in between
    stage.run_some(EventTurns::turn_events);
    stage.send(honest, sender, number);
    stage.done.clear();
    while (stage.done.empty() || stage.done.back().from != honest) {
      REQUIRE(stage.run_some(EventTurns::turn_events));
    }
    // While the links of all those queues were open, each had a turn.
    if (number > 1) CHECK(stage.done.size() <= 2 * EventTurns::turn_events + 1);
  }
  stage.run_all();
  CHECK(stage.done.size() > gone);
}

TEST_CASE(
    "a sender's events run in their order over two links, though the first was lost with events waiting") {
  const bool is_noticed = GENERATE(false, true);  // whether the server knows that the first link is lost
  const bool repeats = GENERATE(false, true);
  Stage stage;
  const InletPtr other = stage.make_inlet();  // keeps the executor busy, and turns in rounds
  const std::uint64_t other_sender = stage.hold(other, 0);
  for (std::uint64_t number = 1; number <= 200; ++number) stage.keep(other, other_sender, number);
  stage.push(other);
  const InletPtr first = stage.make_inlet();
  const std::uint64_t sender = stage.hold(first, 0);
  for (std::uint64_t number = 1; number <= 100; ++number) stage.keep(first, sender, number);
  stage.push(first);
  for (int turns = 0; turns < 3; ++turns) stage.run_some(EventTurns::turn_events);
  if (is_noticed) {
    stage.senders.release(sender, stage.turns.is_idle(*first));
    stage.turns.close(*first);
  }
  const InletPtr second = stage.make_inlet();
  REQUIRE(stage.hold(second, sender) == sender);
  for (std::uint64_t number = repeats ? 10 : 101; number <= 120; ++number) {
    stage.keep(second, sender, number);
  }
  stage.push(second);
  stage.run_all();
  CHECK(stage.numbers_run(sender) == up_to(120));
  for (const auto& event : stage.done) REQUIRE(event.verdict != SenderTable::Verdict::unknown);
  CHECK(stage.numbers_run(other_sender) == up_to(200));
}

TEST_CASE("a link that takes over the senders of two lost links runs the events of each in their order") {
  Stage stage;
  const InletPtr a = stage.make_inlet();
  const InletPtr b = stage.make_inlet();
  const std::uint64_t of_a = stage.hold(a, 0);
  const std::uint64_t of_b = stage.hold(b, 0);
  for (std::uint64_t number = 1; number <= 40; ++number) {
    stage.keep(a, of_a, number);
    stage.keep(b, of_b, number);
  }
  stage.push(a);
  stage.push(b);
  stage.run_some(5);  // the turn of `a` goes on
  stage.turns.close(*a);
  const InletPtr both = stage.make_inlet();
  stage.hold(both, of_b);
  stage.hold(both, of_a);
  for (std::uint64_t number = 41; number <= 60; ++number) {
    stage.keep(both, of_a, number);
    stage.keep(both, of_b, number);
  }
  stage.push(both);
  stage.run_all();
  CHECK(stage.numbers_run(of_a) == up_to(60));
  CHECK(stage.numbers_run(of_b) == up_to(60));
}

TEST_CASE("nothing of a link runs behind wrong bytes, and other links go on") {
  Stage stage;
  const InletPtr wrong = stage.make_inlet();
  const InletPtr right = stage.make_inlet();
  const std::uint64_t wrong_sender = stage.hold(wrong, 0);
  const std::uint64_t right_sender = stage.hold(right, 0);
  for (std::uint64_t number = 1; number <= 3; ++number) {
    stage.send(wrong, wrong_sender, number);
    stage.send(right, right_sender, number);
  }
  stage.run_some(1, true);
  wrong->is_over = true;
  stage.run_all();
  stage.send(wrong, wrong_sender, 4);  // it was under way
  stage.run_all();
  CHECK(stage.numbers_run(wrong_sender) == up_to(1));
  CHECK(stage.numbers_run(right_sender) == up_to(3));
  CHECK(stage.turns.is_idle(*wrong));
  CHECK(*stage.bytes == 0);
}

TEST_CASE("what waits is counted as the memory that it takes, and given back") {
  Stage stage(100'000);
  const InletPtr inlet = stage.make_inlet();
  const std::uint64_t sender = stage.hold(inlet, 0);
  std::uint64_t number = 0;
  while (stage.add(inlet, sender, ++number, 100)) {
    if (number % 10 == 0) stage.push(inlet);
    REQUIRE(number < 100'000 / 100);
  }
  stage.push(inlet);
  // The encodings are most of it, and all of it is counted: no event waits for less than its bytes.
  CHECK(number * 100 > 100'000 / 3);
  CHECK(*stage.bytes >= (number - 1) * (100 + sizeof(WaitingEvent)));
  CHECK(*stage.bytes <= 100'000);
  stage.run_all();
  CHECK(*stage.bytes == 0);
  CHECK(stage.numbers_run(sender) == up_to(number - 1));
  CHECK(stage.add(inlet, sender, number, 100));
  CHECK_FALSE(stage.add(inlet, sender, number + 1, 100'000));
  stage.push(inlet);
  stage.run_all();
  CHECK(*stage.bytes == 0);
}

TEST_CASE("queues that become parts of each other without end are freed without recursion") {
  Stage stage;
  std::vector<InletPtr> inlets{stage.make_inlet()};
  stage.hold(inlets.back(), 0);
  for (int i = 0; i < 100'000; ++i) {
    const InletPtr next = stage.make_inlet();
    stage.turns.join(*next, inlets.back()->queue);
    inlets.back() = next;
  }
  const std::weak_ptr<EventQueue> last = inlets.back()->queue;
  inlets.clear();
  CHECK_FALSE(last.expired());  // the first sender leads to it
  stage.senders.release(0, true);
}

TEST_CASE(
    "whatever links do, each sender's events run once and in order, and an honest link waits a bounded "
    "time") {
  const auto seed = GENERATE(range(1U, 16U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
  Stage stage;

  struct Client {
    std::vector<std::uint64_t> senders;
    std::vector<std::uint64_t> last_sent;
    std::vector<std::set<std::uint64_t>> unanswered;
    InletPtr link;
  };
  std::vector<Client> clients(8);
  std::vector<std::pair<InletPtr, std::vector<std::uint64_t>>>
      half_open;  // lost, which the server has not noticed
  std::size_t open_links = 0;
  const auto connect = [&](Client& client) {
    client.link = stage.make_inlet();
    ++open_links;
    for (std::size_t i = 0; i < client.senders.size(); ++i) {
      const std::uint64_t given = stage.hold(client.link, client.senders[i]);
      if (client.senders[i] != 0) REQUIRE(given == client.senders[i]);
      client.senders[i] = given;
      for (const std::uint64_t number : client.unanswered[i]) {
        stage.keep(client.link, given, number);
      }
    }
    stage.push(client.link);
  };
  const auto notice = [&](const InletPtr& link, const std::vector<std::uint64_t>& senders) {
    for (const std::uint64_t sender : senders) stage.senders.release(sender, stage.turns.is_idle(*link));
    stage.turns.close(*link);
    --open_links;
  };
  std::map<std::uint64_t, std::pair<Client*, std::size_t>> owners;
  for (Client& client : clients) {
    const std::size_t senders = 1 + random() % 2;
    client.senders.assign(senders, 0);
    client.last_sent.assign(senders, 0);
    client.unanswered.resize(senders);
    connect(client);
    for (std::size_t i = 0; i < senders; ++i) owners[client.senders[i]] = {&client, i};
  }
  const InletPtr honest = stage.make_inlet();
  const std::uint64_t honest_sender = stage.hold(honest, 0);
  std::uint64_t honest_sent = 0;
  std::size_t honest_waits_since = 0;
  std::size_t honest_bound = 0;
  bool is_honest_waiting = false;

  std::size_t seen = 0;
  const auto look = [&] {
    for (; seen < stage.done.size(); ++seen) {
      const auto& event = stage.done[seen];
      if (event.verdict == SenderTable::Verdict::unknown)
        FAIL("number " << event.number << " comes too late");
      if (event.from == honest) {
        CHECK(seen - honest_waits_since <= honest_bound);
        is_honest_waiting = false;
        continue;
      }
      auto& [client, i] = owners.at(event.sender);
      if (event.from == client->link) client->unanswered[i].erase(event.number);  // other answers are lost
    }
  };

  for (int step = 0; step < 2'000; ++step) {
    Client& client = clients[random() % clients.size()];
    const auto in_flight = [&] {
      std::size_t count = 0;
      for (const auto& numbers : client.unanswered) count += numbers.size();
      return count;
    };
    if (chance(30) && in_flight() < 900) {  // a few events, or many, of any of its senders
      for (std::size_t count = chance(10) ? 100 : 1 + random() % 5; count > 0; --count) {
        const std::size_t i = random() % client.senders.size();
        client.unanswered[i].insert(++client.last_sent[i]);
        stage.keep(client.link, client.senders[i], client.last_sent[i]);
      }
      stage.push(client.link);
    }
    if (chance(5)) {  // its link is lost, and another one comes
      if (chance(30)) {
        half_open.emplace_back(client.link, client.senders);
      } else {
        notice(client.link, client.senders);
      }
      if (chance(20)) client.unanswered[0].clear();  // it gives up what it does not know about
      connect(client);
    }
    if (!half_open.empty() && chance(10)) {
      notice(half_open.front().first, half_open.front().second);
      half_open.erase(half_open.begin());
    }
    if (!is_honest_waiting && chance(20)) {
      is_honest_waiting = true;
      honest_waits_since = stage.done.size();
      // A turn of each other link, one for the links that are gone, and the turn that is under way.
      honest_bound = (open_links + 2) * EventTurns::turn_events;
      stage.send(honest, honest_sender, ++honest_sent);
    }
    if (stage.is_asked_for && chance(50)) stage.run_some(1 + random() % EventTurns::turn_events, chance(20));
    look();
  }
  stage.run_all();
  look();
  CHECK_FALSE(is_honest_waiting);
  for (const Client& client : clients) {
    for (std::size_t i = 0; i < client.senders.size(); ++i) {
      INFO("sender " << client.senders[i]);
      CHECK(stage.numbers_run(client.senders[i]) == up_to(client.last_sent[i]));
    }
  }
  CHECK(stage.numbers_run(honest_sender) == up_to(honest_sent));
  CHECK(*stage.bytes == 0);
}

}  // namespace syncstate::detail
