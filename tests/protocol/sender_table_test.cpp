// Who sent which event, and what is remembered of it.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/allocated_bytes.hpp"
#include "support/catch.hpp"
#include "support/sanitized.hpp"
#include "syncstate/detail/server/answer_room.hpp"
#include "syncstate/detail/server/event_turns.hpp"
#include "syncstate/detail/server/sender_table.hpp"

namespace syncstate::testing::sender_table_test {
namespace {

using detail::AnswerRoom;
using detail::EventOutcome;
using detail::SenderOwner;
using detail::SenderTable;
using Verdict = SenderTable::Verdict;

const SenderOwner here{"", "192.0.2.1"};
const SenderOwner there{"", "192.0.2.2"};

std::uint64_t hold(SenderTable& table, std::uint64_t known, const SenderOwner& owner) {
  return table.hold(known, owner, nullptr).sender;
}

/// A sender of a client that came and went.
std::uint64_t add_idle(SenderTable& table, const SenderOwner& owner = here) {
  const std::uint64_t sender = hold(table, 0, owner);
  table.release(sender, true);
  return sender;
}

/// True while the table knows the sender; looks without making it the latest used.
bool is_known(SenderTable& table, std::uint64_t sender, const SenderOwner& owner = here) {
  const std::uint64_t held = hold(table, sender, owner);
  table.release(held, true);
  if (held != sender) table.forget(held);
  return held == sender;
}

EventOutcome long_outcome() { return EventOutcome::failed(StateErrc::hook_failed, std::string(500, '.')); }

Verdict look_up(SenderTable& table, std::uint64_t sender, std::uint64_t number) {
  EventOutcome outcome;
  return table.look_up(sender, number, outcome);
}

}  // namespace

TEST_CASE("an event runs once, and a repeat gets its old answer", "[protocol][guarantee_5]") {
  SenderTable table{Limits{}};
  const std::uint64_t sender = hold(table, 0, here);
  CHECK(sender != 0);
  CHECK(hold(table, sender, here) == sender);
  CHECK(hold(table, 0, here) != sender);
  EventOutcome outcome;
  CHECK(table.look_up(sender, 1, outcome) == Verdict::run);
  table.record(sender, 1, {7});
  CHECK(table.look_up(sender, 3, outcome) == Verdict::run);
  table.record(sender, 3, EventOutcome::failed(StateErrc::hook_failed, "no"));
  CHECK(table.look_up(sender, 1, outcome) == Verdict::repeat);
  CHECK(outcome.update_id == 7);
  CHECK(table.look_up(sender, 3, outcome) == Verdict::repeat);
  CHECK(outcome.error == StateErrc::hook_failed);
  CHECK(*outcome.detail == "no");
  CHECK(table.look_up(sender, 2, outcome) == Verdict::unknown);  // passed over: its outcome is not known
  CHECK(table.look_up(sender, 0, outcome) == Verdict::unknown);
  CHECK(table.look_up(sender ^ 1, 1, outcome) == Verdict::unknown);
}

TEST_CASE("a sender's answers are found while they come and go", "[protocol][guarantee_5]") {
  Limits limits;
  limits.answers_per_sender = 7;
  SenderTable table(limits);
  const std::uint64_t sender = hold(table, 0, here);
  for (std::uint64_t number = 2; number <= 200; number += 2) {
    table.record(sender, number, {number * 10});
    for (std::uint64_t old = 1; old <= number; ++old) {
      EventOutcome outcome;
      const bool is_kept = old % 2 == 0 && old + 2 * 7 > number;
      REQUIRE((table.look_up(sender, old, outcome) == Verdict::repeat) == is_kept);
      if (is_kept) REQUIRE(outcome.update_id == old * 10);
    }
  }
  CHECK(look_up(table, sender, 201) == Verdict::run);
}

TEST_CASE("answers are remembered within a number of bytes, and senders that nobody holds give way",
          "[protocol][guarantee_5]") {
  Limits limits;
  limits.answer_bytes_per_map = 100'000;
  SenderTable table(limits);
  const std::uint64_t held = hold(table, 0, here);
  table.record(held, 1, {1});
  for (int i = 0; i < 1'000; ++i) {
    const std::uint64_t sender = add_idle(table);
    table.record(sender, 1, long_outcome());
    REQUIRE(look_up(table, sender, 1) == Verdict::repeat);  // not its own answer
    REQUIRE(table.answer_bytes() <= 100'000);
  }
  CHECK(look_up(table, held, 1) == Verdict::repeat);
  table.release(held, true);
  for (int i = 0; i < 1'000; ++i) table.record(add_idle(table), 1, long_outcome());
  CHECK(look_up(table, held, 1) == Verdict::unknown);
}

TEST_CASE("senders that are all held share the room for answers", "[protocol][guarantee_5]") {
  Limits limits;
  limits.answer_bytes_per_map = 100'000;
  SenderTable table(limits);
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 20; ++i) held.push_back(hold(table, 0, here));
  for (std::uint64_t number = 1; number <= 100; ++number) {
    for (const std::uint64_t sender : held) {
      table.record(sender, number, long_outcome());
      REQUIRE(look_up(table, sender, number) == Verdict::repeat);
      REQUIRE(table.answer_bytes() <= 100'000);
    }
  }
  for (const std::uint64_t sender : held) {
    CHECK(look_up(table, sender, 1) == Verdict::unknown);  // forgotten, and never run again
    CHECK(look_up(table, sender, 99) == Verdict::repeat);
  }
}

TEST_CASE("the room for answers is taken from the owner whose answers take most of it",
          "[protocol][guarantee_5]") {
  const bool are_held = GENERATE(false, true);
  INFO((are_held ? "held" : "idle"));
  Limits limits;
  limits.answer_bytes_per_map = 100'000;
  SenderTable table(limits);
  const std::uint64_t honest = add_idle(table, there);
  for (std::uint64_t number = 1; number <= 50; ++number) table.record(honest, number, {number});
  // A lot of senders, idle or not, whose events have long answers.
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t sender = hold(table, 0, here);
    for (std::uint64_t number = 1; number <= 20; ++number) table.record(sender, number, long_outcome());
    if (!are_held) table.release(sender, true);
    REQUIRE(table.answer_bytes() <= 100'000);
  }
  for (std::uint64_t number = 1; number <= 50; ++number) {
    REQUIRE(look_up(table, honest, number) == Verdict::repeat);
  }
}

TEST_CASE("answers and senders are remembered within bounds", "[protocol][guarantee_5]") {
  Limits limits;
  limits.answers_per_sender = 3;
  limits.senders_per_map = 2;
  SenderTable table(limits);
  const std::uint64_t first = add_idle(table);
  for (std::uint64_t number = 1; number <= 4; ++number) table.record(first, number, {number});
  CHECK(look_up(table, first, 1) == Verdict::unknown);
  CHECK(look_up(table, first, 2) == Verdict::repeat);
  const std::uint64_t second = add_idle(table);
  CHECK(is_known(table, first));  // used later than the second
  add_idle(table);
  CHECK(table.size() == 2);
  CHECK(look_up(table, second, 1) == Verdict::unknown);
  CHECK(look_up(table, first, 4) == Verdict::repeat);
  CHECK_FALSE(is_known(table, second));  // forgotten: a new identity
}

TEST_CASE("a sender that an open channel holds is not forgotten", "[protocol][guarantee_5]") {
  Limits limits;
  limits.senders_per_map = 2;
  SenderTable table(limits);
  const std::uint64_t held = hold(table, 0, here);
  CHECK(hold(table, held, here) == held);
  table.record(held, 1, {1});
  for (int i = 0; i < 5; ++i) add_idle(table);
  CHECK(look_up(table, held, 1) == Verdict::repeat);
  table.forget(held);
  CHECK(look_up(table, held, 1) == Verdict::repeat);
  table.release(held, true);
  for (int i = 0; i < 5; ++i) add_idle(table);
  CHECK(look_up(table, held, 1) == Verdict::repeat);  // held twice
  table.release(held, true);
  for (int i = 0; i < 5; ++i) add_idle(table);
  CHECK(look_up(table, held, 1) == Verdict::unknown);
}

TEST_CASE("a sender that its client gives up makes room", "[protocol][guarantee_5]") {
  SenderTable table{Limits{}};
  const std::uint64_t sender = hold(table, 0, here);
  table.record(sender, 1, {1});
  table.release(sender, true);
  table.forget(sender);
  CHECK(table.size() == 0);
  CHECK(table.answer_bytes() == 0);
  table.release(sender, true);  // of one that is gone: nothing
  table.forget(sender);
  CHECK_FALSE(is_known(table, sender));
}

TEST_CASE("a full table forgets a sender of the owner that has most idle ones", "[protocol][guarantee_5]") {
  Limits limits;
  limits.senders_per_map = 100;
  SenderTable table(limits);
  std::vector<std::uint64_t> honest;
  for (int i = 0; i < 40; ++i) {
    honest.push_back(add_idle(table, there));
    table.record(honest.back(), 1, {1});
  }
  std::vector<std::uint64_t> flood;
  for (int i = 0; i < 1'000; ++i) flood.push_back(add_idle(table, here));
  CHECK(table.size() == 100);
  for (const std::uint64_t sender : honest) CHECK(look_up(table, sender, 1) == Verdict::repeat);
  // Of the flood's own the latest are left.
  CHECK_FALSE(is_known(table, flood[939]));
  CHECK(is_known(table, flood[941]));
  // An identity counts as one owner, wherever it comes from.
  for (int i = 0; i < 1'000; ++i) add_idle(table, SenderOwner{"CN=many", "198.51.100." + std::to_string(i)});
  std::size_t left = 0;
  for (const std::uint64_t sender : honest) left += look_up(table, sender, 1) == Verdict::repeat ? 1 : 0;
  CHECK(left >= 33);  // a third of the room is theirs
  CHECK(table.size() == 100);
}

TEST_CASE("a sender is given to its own identity only, from any address", "[protocol][guarantee_5]") {
  SenderTable table{Limits{}};
  const SenderOwner alice{"CN=alice", "192.0.2.1"};
  const SenderOwner bob{"CN=bob", "192.0.2.1"};
  const std::uint64_t hers = add_idle(table, alice);
  table.record(hers, 1, {1});
  CHECK(hold(table, hers, bob) != hers);
  CHECK(hold(table, hers, here) != hers);  // no identity at all
  CHECK(hold(table, hers, SenderOwner{"CN=alice", "198.51.100.9"}) == hers);
  const std::uint64_t anonymous = add_idle(table, here);
  CHECK(hold(table, anonymous, alice) != anonymous);
  CHECK(hold(table, anonymous, there) == anonymous);  // a client that moved
  CHECK(look_up(table, hers, 1) == Verdict::repeat);
}

TEST_CASE("senders that move from address to address are counted where they are", "[protocol][guarantee_5]") {
  Limits limits;
  limits.senders_per_map = 10;
  SenderTable table(limits);
  std::vector<std::uint64_t> moved;
  for (int i = 0; i < 8; ++i) moved.push_back(add_idle(table, here));
  for (const std::uint64_t sender : moved) {
    CHECK(hold(table, sender, there) == sender);
    table.release(sender, true);
  }
  const std::uint64_t first = add_idle(table, here);
  const std::uint64_t second = add_idle(table, here);
  add_idle(table, here);  // of `there`, which has most now, one goes
  CHECK(table.size() == 10);
  CHECK(is_known(table, first));
  CHECK(is_known(table, second));
  CHECK_FALSE(is_known(table, moved.front(), there));
}

TEST_CASE("what senders and their answers count for is the memory that they take", "[protocol][account]") {
  enum class Kind { own_address, own_identity, one_owner, short_answers, long_answers, large_buffers };
  const auto kind = GENERATE(Kind::own_address, Kind::own_identity, Kind::one_owner, Kind::short_answers,
                             Kind::long_answers, Kind::large_buffers);
  CAPTURE(static_cast<int>(kind));
  std::size_t taken = 0;
  std::size_t counted = 0;
  const std::ptrdiff_t before = live_bytes;
  {
    SenderTable table{Limits{}};
    const bool has_answers = kind >= Kind::short_answers;
    for (std::size_t i = 0; i < (has_answers ? 20 : 5'000); ++i) {
      std::string name = std::to_string(i);
      if (kind == Kind::own_identity) name.resize(2'000, '.');
      const SenderOwner owner{kind == Kind::own_identity ? name : "",
                              kind == Kind::one_owner ? "here" : "[2001:db8:0:" + name + "::]/64"};
      // The link is lost while events wait: their queue stays with the sender.
      const std::uint64_t sender = table.hold(0, owner, std::make_shared<detail::EventQueue>()).sender;
      table.release(sender, false);
      // One more than half of a ring: as much of it as possible is unused.
      for (std::uint64_t number = 1; has_answers && number <= 513; ++number) {
        EventOutcome outcome{number};
        if (kind == Kind::long_answers) outcome = long_outcome();
        if (kind == Kind::large_buffers) {
          std::string detail = "no";
          detail.reserve(10'000);
          outcome = EventOutcome::failed(StateErrc::hook_failed, std::move(detail));
        }
        table.record(sender, number, std::move(outcome));
      }
    }
    taken = static_cast<std::size_t>(live_bytes - before);
    counted = table.answer_bytes();
  }
  const std::ptrdiff_t left = live_bytes - before;
  CHECK(left == 0);
  INFO("taken " << taken << ", counted " << counted);
  CHECK(taken <= counted + counted / 50 + 2'048);
  // The allocator that AddressSanitizer has rounds nothing up, which is part of what is counted.
  if (!support::is_sanitized) CHECK(counted <= taken + taken / 4);
}

TEST_CASE("answers that are forgotten give their room back", "[protocol][account]") {
  Limits limits;
  limits.answer_bytes_per_map = 400'000;
  SenderTable table(limits);
  const std::ptrdiff_t before = live_bytes;
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 100; ++i) {
    held.push_back(hold(table, 0, here));
    for (std::uint64_t number = 1; number <= 300; ++number) table.record(held.back(), number, {number});
    REQUIRE(table.answer_bytes() <= 400'000);
  }
  const auto taken = static_cast<std::size_t>(live_bytes - before);
  CHECK(taken <= 400'000 + held.size() * SenderTable::sender_bytes + 10'000);
  for (const std::uint64_t sender : held) CHECK(look_up(table, sender, 300) == Verdict::repeat);
}

TEST_CASE("answers of an owner that has one sender are kept within the number that is allowed",
          "[protocol][account]") {
  Limits limits;
  limits.answers_per_sender = GENERATE(as<std::size_t>(), 0, 1, 8);
  SenderTable table(limits);
  const std::uint64_t sender = hold(table, 0, here);
  const std::ptrdiff_t before = live_bytes;
  for (std::uint64_t number = 1; number <= 100; ++number) table.record(sender, number, {number});
  // No room for another one is made before the oldest goes.
  CHECK(live_bytes - before <= static_cast<std::ptrdiff_t>(limits.answers_per_sender * 40 + 24));
  const auto kept = limits.answers_per_sender == 0 ? Verdict::unknown : Verdict::repeat;
  CHECK(look_up(table, sender, 100) == kept);
  CHECK(look_up(table, sender, 100 - limits.answers_per_sender) == Verdict::unknown);
}

TEST_CASE("the maps of a server share the room for answers, and the largest gives way",
          "[protocol][account]") {
  constexpr std::size_t most = 400'000;
  const bool are_held = GENERATE(false, true);
  INFO((are_held ? "held" : "idle"));
  const auto room = std::make_shared<AnswerRoom>(most);
  {
    std::vector<std::unique_ptr<SenderTable>> tables;
    for (int i = 0; i < 20; ++i) tables.push_back(std::make_unique<SenderTable>(Limits{}, room));
    SenderTable small(Limits{}, room);
    const std::uint64_t honest = hold(small, 0, there);
    for (std::uint64_t number = 1; number <= 20; ++number) small.record(honest, number, {number});
    for (int round = 0; round < 100; ++round) {
      for (const auto& table : tables) {
        const std::uint64_t sender = hold(*table, 0, here);
        if (!are_held) table->release(sender, true);
        for (std::uint64_t number = 1; number <= 10; ++number) {
          table->record(sender, number, long_outcome());
          REQUIRE(room->bytes() <= most);
        }
        REQUIRE(look_up(*table, sender, 10) == Verdict::repeat);  // not the one that just came
      }
    }
    std::size_t held = small.answer_bytes();
    for (const auto& table : tables) held += table->answer_bytes();
    CHECK(held <= room->bytes());
    CHECK(held >= most * 3 / 4);  // no more is forgotten than necessary
    for (std::uint64_t number = 1; number <= 20; ++number) {
      CHECK(look_up(small, honest, number) == Verdict::repeat);
    }
    tables.pop_back();
    CHECK(room->bytes() <= held + 20 * room->step_bytes());
  }
  CHECK(room->bytes() == 0);
}

TEST_CASE("an answer that has to go for the sake of other maps is forgotten, and never run again",
          "[protocol][account][guarantee_5]") {
  constexpr std::size_t most = 100'000;
  const auto room = std::make_shared<AnswerRoom>(most);
  SenderTable first(Limits{}, room);
  SenderTable second(Limits{}, room);
  const std::uint64_t sender = hold(first, 0, here);
  for (std::uint64_t number = 1; number <= 100; ++number) first.record(sender, number, long_outcome());
  CHECK(look_up(first, sender, 1) == Verdict::repeat);
  // As many senders as there are links, each with one answer: more than there is room for.
  std::vector<std::uint64_t> others;
  for (int i = 0; i < 1'000; ++i) {
    others.push_back(hold(second, 0, there));
    second.record(others.back(), 1, long_outcome());
    REQUIRE(room->bytes() <= most);
  }
  CHECK(look_up(first, sender, 1) == Verdict::unknown);
  CHECK(look_up(first, sender, 101) == Verdict::run);
  for (const std::uint64_t other : others) CHECK(look_up(second, other, 1) != Verdict::run);
  CHECK(look_up(second, others.back(), 1) == Verdict::repeat);
}

TEST_CASE("senders that nobody holds share the room of all maps, too", "[protocol][account]") {
  constexpr std::size_t most = 200'000;
  const auto room = std::make_shared<AnswerRoom>(most);
  SenderTable first(Limits{}, room);
  SenderTable second(Limits{}, room);
  for (int i = 0; i < 2'000; ++i) {
    const std::uint64_t sender = add_idle(i % 2 == 0 ? first : second, here);
    REQUIRE(room->bytes() <= most);
    REQUIRE(is_known(i % 2 == 0 ? first : second, sender));
  }
  CHECK(first.size() + second.size() <= most / SenderTable::sender_bytes);
  CHECK(first.size() + second.size() >= most / SenderTable::sender_bytes / 2);
}

TEST_CASE("maps that make room for each other at the same time come to an end", "[protocol][account]") {
  constexpr std::size_t most = 100'000;
  constexpr std::size_t threads = 4;
  const auto room = std::make_shared<AnswerRoom>(most);
  std::vector<std::thread> running;
  for (std::size_t t = 0; t < threads; ++t) {
    running.emplace_back([&room] {
      for (int life = 0; life < 20; ++life) {
        SenderTable table(Limits{}, room);
        for (int i = 0; i < 20; ++i) {
          const std::uint64_t sender = hold(table, 0, here);
          for (std::uint64_t number = 1; number <= 50; ++number) table.record(sender, number, long_outcome());
          table.release(sender, true);
        }
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  CHECK(room->bytes() == 0);
}

TEST_CASE("a text that is cut gives back the memory of the rest", "[protocol][account]") {
  CHECK(protocol::shorten(std::string(1'000'000, 'x')).capacity() <= 2 * protocol::peer_text_bytes);
}

}  // namespace syncstate::testing::sender_table_test
