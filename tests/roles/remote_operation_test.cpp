// How something asked of a remote ends: once, and as whoever ends it first says.
#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/detail/remote/remote_operation.hpp"
#include "syncstate/error.hpp"
#include "syncstate/types.hpp"

namespace remote_operation_test {

namespace ss = syncstate;
using ss::StateErrc;
using ss::detail::Operation;

namespace {

struct Told {
  int times = 0;
  std::error_code error;
  std::string detail;
  ss::UpdateId id = 0;
};

std::shared_ptr<Operation> tells(Told& told) {
  return Operation::create([&told](std::error_code error, const std::string& detail, ss::UpdateId id) {
    told = {told.times + 1, error, detail, id};
  });
}

}  // namespace

TEST_CASE("an operation that ended stays as it is") {
  Told told;
  const auto operation = tells(told);
  CHECK_FALSE(operation->is_finished());
  CHECK(operation->mark_sent());
  CHECK(operation->is_sent());
  CHECK(operation->finish({}, {}, ss::Position{3, 7}));
  CHECK(operation->is_finished());
  CHECK_FALSE(operation->is_sent());
  CHECK_FALSE(operation->finish(StateErrc::stopped));
  CHECK_FALSE(operation->mark_sent());
  operation->give_up("too late");
  CHECK(told.times == 1);
  CHECK_FALSE(told.error);
  CHECK(operation->result() == ss::Position{3, 7});
  CHECK(told.id == 7);  // a function may take the update id alone
}

TEST_CASE("what is given up is unavailable as long as it was not sent, and then nobody knows") {
  const bool is_sent = GENERATE(false, true);
  const StateErrc expected = is_sent ? StateErrc::outcome_unknown : StateErrc::unavailable;
  Told told;
  const auto operation = tells(told);
  if (is_sent) CHECK(operation->mark_sent());
  if (is_sent) CHECK(operation->mark_sent());  // once more, on another link
  operation->give_up("waited for nothing");
  CHECK(told.times == 1);
  CHECK(told.error == expected);
  CHECK(told.detail == "waited for nothing");
  CHECK_FALSE(operation->mark_sent());
  try {
    (void)operation->result();
    FAIL("it has no result");
  } catch (const ss::StateError& error) {
    CHECK(error.code() == expected);
  }
}

TEST_CASE("of several threads that end an operation one does, and what it was sent as is what is told") {
  constexpr std::size_t rounds = 20'000;
  std::vector<Told> told(rounds);
  std::vector<std::shared_ptr<Operation>> operations;
  for (Told& one : told) operations.push_back(tells(one));
  std::vector<char> went_out(rounds);
  std::vector<char> was_answered(rounds);
  std::vector<char> had_ended(rounds);  // when `give_up` was back
  std::atomic<std::size_t> arrivals = 0;
  // Each thread does its part of a round when all have come there.
  const auto in_rounds = [&](auto part) {
    for (std::size_t round = 0; round < rounds; ++round) {
      ++arrivals;
      while (arrivals < 2 * (round + 1)) std::this_thread::yield();
      part(round);
    }
  };
  std::thread other([&] {
    in_rounds([&](std::size_t round) {
      if (round % 2 == 0) went_out[round] = operations[round]->mark_sent();
      was_answered[round] = operations[round]->finish({}, {}, ss::Position{1, 3});
    });
  });
  in_rounds([&](std::size_t round) {
    operations[round]->give_up("waited for nothing");
    had_ended[round] = operations[round]->is_finished();
  });
  other.join();
  for (std::size_t round = 0; round < rounds; ++round) {
    REQUIRE(had_ended[round] != 0);
    REQUIRE(operations[round]->is_finished());
    REQUIRE(told[round].times == 1);
    REQUIRE((was_answered[round] != 0) == !told[round].error);
    REQUIRE(told[round].id == (was_answered[round] != 0 ? 3U : 0U));
    // Certainly not run, if it never went out; and what went out was not called that.
    const bool is_unknown = told[round].error == StateErrc::outcome_unknown;
    if (was_answered[round] == 0) REQUIRE(is_unknown == (went_out[round] != 0));
  }
}

}  // namespace remote_operation_test
