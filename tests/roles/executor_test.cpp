// The executors that roles run on: virtual time, one thread, and the pool that hooks share.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/inproc/virtual_executor.hpp"
#include "syncstate/threads/hook_pool.hpp"
#include "syncstate/threads/thread_executor.hpp"

namespace executor_test {

namespace {

using namespace std::chrono_literals;
using syncstate::StateErrc;
using syncstate::StateError;
using syncstate::inproc::VirtualTime;

constexpr auto test_limit = 60s;  // a limit, not a pause: nothing here takes that long

/// Something that several threads tell and one waits for.
class Flag {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    is_set_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, test_limit, [this] { return is_set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_set_ = false;
};

template <class F>
std::error_code code_of(F&& f) {
  try {
    f();
  } catch (const StateError& error) {
    return error.code();
  }
  return {};
}

}  // namespace

TEST_CASE("virtual time runs tasks by time, then in the order posted") {
  VirtualTime time;
  const auto start = time.now();
  const auto a = time.make_executor();
  const auto b = time.make_executor();
  std::vector<std::string> ran;
  const auto note = [&](const char* what) { return [&ran, what] { ran.emplace_back(what); }; };

  a->post_at(start + 2s, note("a at 2 s"));
  b->post_at(start + 1s, note("b at 1 s"));
  a->post(note("a now"));
  b->post([&] {
    ran.emplace_back("b now");
    a->post(note("a from b"));
  });
  CHECK(ran.empty());  // never inside post

  CHECK(time.run_ready() == 3);
  CHECK(ran == std::vector<std::string>{"a now", "b now", "a from b"});
  CHECK(time.now() == start);
  CHECK(time.next_time() == start + 1s);

  ran.clear();
  CHECK(time.advance(1500ms) == 1);
  CHECK(time.now() == start + 1500ms);
  a->post_at(start, note("a overdue"));  // runs now, not in the past
  CHECK(time.advance(1s) == 2);
  CHECK(ran == std::vector<std::string>{"b at 1 s", "a overdue", "a at 2 s"});
  CHECK(time.pending() == 0);
}

TEST_CASE("a task sees the virtual time that it was posted for") {
  VirtualTime time;
  const auto executor = time.make_executor();
  const auto start = time.now();
  std::vector<syncstate::TimePoint> seen;
  executor->post_at(start + 3s, [&] {
    seen.push_back(executor->now());
    executor->post_at(executor->now() + 1s, [&] { seen.push_back(executor->now()); });
  });
  time.advance(10s);
  CHECK(seen == std::vector<syncstate::TimePoint>{start + 3s, start + 4s});
}

TEST_CASE("a virtual wait moves the time only as far as needed") {
  VirtualTime time;
  const auto executor = time.make_executor();
  const auto start = time.now();
  bool done = false;
  executor->post_at(start + 5s, [&] { done = true; });
  CHECK_FALSE(executor->wait_until(start + 4s, [&] { return done; }));
  CHECK(time.now() == start + 4s);
  CHECK(executor->wait_until(start + 100s, [&] { return done; }));
  CHECK(time.now() == start + 5s);
  CHECK_FALSE(time.run_until([] { return false; }, 7s));
  CHECK(time.now() == start + 12s);
  CHECK_FALSE(executor->wait_until(syncstate::TimePoint::max(), [] { return false; }));  // nothing can come
  CHECK(time.now() == start + 12s);
}

TEST_CASE("a task that waits on another virtual executor never lets its own run beside it") {
  VirtualTime time;
  const auto a = time.make_executor();
  const auto b = time.make_executor();
  std::vector<std::string> ran;
  a->post([&] {
    ran.emplace_back("a begins");
    CHECK(a->runs_here());
    CHECK_FALSE(b->runs_here());
    bool done = false;
    b->post([&] {
      CHECK(a->runs_here());  // it is on the stack, so waiting for it would never end
      CHECK(b->runs_here());
      done = true;
    });
    CHECK(b->wait_until(b->now() + 1s, [&] { return done; }));
    ran.emplace_back("a ends");
  });
  a->post([&] { ran.emplace_back("a again"); });
  time.run_ready();
  CHECK(ran == std::vector<std::string>{"a begins", "a ends", "a again"});
  CHECK_FALSE(a->runs_here());
}

TEST_CASE("virtual executors drop their tasks when they or their time end") {
  const auto alive = std::make_shared<int>();
  {
    VirtualTime time;
    auto executor = time.make_executor();
    const auto survivor = time.make_executor();
    executor->post([alive] {});
    survivor->post([alive] {});
    executor.reset();
    CHECK(alive.use_count() == 2);
    auto outlives = time.make_executor();
    outlives->post([alive, outlives] {});  // a circle, unless the time breaks it
  }
  CHECK(alive.use_count() == 1);
}

TEST_CASE("run_blocking on virtual executors keeps the order and refuses circles") {
  VirtualTime time;
  const auto pool = time.make_pool();
  const auto a = pool->make_serial();
  const auto b = pool->make_serial();
  std::vector<std::string> ran;
  b->post([&] { ran.emplace_back("b earlier"); });
  a->post([&] { ran.emplace_back("a is not asked"); });
  b->run_blocking([&] { ran.emplace_back("b blocking"); });
  CHECK(ran == std::vector<std::string>{"b earlier", "b blocking"});

  std::error_code own;
  std::error_code circle;
  a->post([&] {
    own = code_of([&] { a->run_blocking([] {}); });
    b->run_blocking([&] { circle = code_of([&] { a->run_blocking([] {}); }); });
  });
  time.run_ready();
  CHECK(own == StateErrc::would_deadlock);
  CHECK(circle == StateErrc::would_deadlock);

  ran.clear();
  a->post([&] { ran.emplace_back("never"); });
  pool->stop();
  time.run_ready();
  CHECK(ran.empty());
  CHECK(code_of([&] { a->run_blocking([] {}); }) == StateErrc::stopped);
  CHECK(code_of([&] { pool->make_serial()->run_blocking([] {}); }) == StateErrc::stopped);
}

TEST_CASE("a thread executor runs in order on one thread") {
  syncstate::ThreadExecutor executor;
  CHECK_FALSE(executor.runs_here());
  std::vector<int> ran;
  bool here = true;
  std::atomic<bool> done{false};
  for (int i = 0; i < 100; ++i) {
    executor.post([&, i] {
      ran.push_back(i);
      here = here && executor.runs_here();
    });
  }
  executor.post([&] {
    done = true;
    executor.wake_waiters();
  });
  REQUIRE(executor.wait_until(executor.now() + test_limit, [&] { return done.load(); }));
  REQUIRE(ran.size() == 100);
  for (int i = 0; i < 100; ++i) CHECK(ran[static_cast<std::size_t>(i)] == i);
  CHECK(here);
  CHECK_FALSE(executor.wait_until(executor.now(), [] { return false; }));
}

TEST_CASE("a thread executor runs timers by their time, not their order") {
  syncstate::ThreadExecutor executor;
  const auto start = executor.now();
  std::vector<int> ran;
  Flag done;
  executor.post_at(start + 30ms, [&] {
    ran.push_back(3);
    done.set();
  });
  executor.post_at(start + 10ms, [&] { ran.push_back(1); });
  executor.post_at(start + 20ms, [&] { ran.push_back(2); });
  REQUIRE(done.wait());
  CHECK(executor.now() >= start + 30ms);
  CHECK(ran == std::vector<int>{1, 2, 3});
}

TEST_CASE("a thread executor ends with its tasks unrun, on its own thread too") {
  const auto alive = std::make_shared<int>();
  {
    syncstate::ThreadExecutor executor;
    executor.post_at(executor.now() + 1h, [alive] { FAIL("an hour has not passed"); });
  }
  CHECK(alive.use_count() == 1);

  Flag gone;
  auto executor = std::make_shared<syncstate::ThreadExecutor>();
  syncstate::ThreadExecutor* const raw = executor.get();
  raw->post([&gone, executor = std::move(executor)]() mutable {
    executor.reset();  // the last one: the executor ends on its own thread
    gone.set();
  });
  CHECK(gone.wait());
}

TEST_CASE("the hook pool runs one task at a time per executor, in order, and executors beside each other") {
  syncstate::HookPool pool(2);
  const auto a = pool.make_serial();
  const auto b = pool.make_serial();

  // Both tasks wait for the other to have begun: that needs two threads at the same time.
  std::latch both(2);
  a->post([&] { both.arrive_and_wait(); });
  b->post([&] { both.arrive_and_wait(); });

  constexpr int count = 2'000;
  std::vector<int> ran;
  std::atomic<int> inside{0};
  std::atomic<bool> overlapped{false};
  for (int i = 0; i < count; ++i) {
    a->post([&, i] {
      if (inside.fetch_add(1) != 0) overlapped = true;
      ran.push_back(i);
      inside.fetch_sub(1);
    });
    b->post([] {});
  }
  a->run_blocking([] {});
  CHECK_FALSE(overlapped);
  REQUIRE(ran.size() == count);
  for (int i = 0; i < count; ++i) REQUIRE(ran[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("a busy executor does not starve the others of the pool") {
  syncstate::HookPool pool(1);
  const auto busy = pool.make_serial();
  const auto other = pool.make_serial();
  std::atomic<bool> served{false};
  Flag done;
  std::function<void()> again = [&] {
    if (served) {
      done.set();
    } else {
      busy->post([&] { again(); });
    }
  };
  busy->post([&] { again(); });
  other->post([&] { served = true; });
  CHECK(done.wait());
}

TEST_CASE("run_blocking runs an idle executor's task on the calling thread, after what was posted") {
  Flag release;  // before the pool, whose thread looks at them until its end
  Flag taken;
  syncstate::HookPool pool(1);
  const auto serial = pool.make_serial();
  const auto blocker = pool.make_serial();
  std::thread::id ran_on;
  serial->run_blocking([&] {
    ran_on = std::this_thread::get_id();
    CHECK(serial->runs_here());
    CHECK_FALSE(blocker->runs_here());
  });
  CHECK(ran_on == std::this_thread::get_id());

  // The only thread is taken; the caller must do the earlier work itself.
  blocker->post([&] {
    taken.set();
    release.wait();
  });
  REQUIRE(taken.wait());
  std::vector<int> ran;
  serial->post([&] { ran.push_back(1); });
  serial->post([&] { ran.push_back(2); });
  serial->run_blocking([&] { ran.push_back(3); });
  CHECK(ran == std::vector<int>{1, 2, 3});
  release.set();
}

TEST_CASE("dispatch runs an idle executor's task here, and never waits for a busy one") {
  Flag started;
  Flag release;
  Flag done;
  Flag second;
  syncstate::HookPool pool(1);
  const auto serial = pool.make_serial();
  std::thread::id ran_on;
  std::atomic<bool> has_returned = false;
  serial->dispatch([&] {
    CHECK(serial->runs_here());
    ran_on = std::this_thread::get_id();
    serial->dispatch([&] {
      CHECK(has_returned);  // a serial executor never runs two at once
      second.set();
    });
    has_returned = true;
  });
  REQUIRE(second.wait());
  CHECK(ran_on == std::this_thread::get_id());

  serial->post([&] {
    started.set();
    release.wait();
  });
  REQUIRE(started.wait());
  serial->dispatch([&] {
    ran_on = std::this_thread::get_id();
    done.set();
  });
  CHECK(ran_on == std::this_thread::get_id());  // still the first one
  release.set();
  REQUIRE(done.wait());
  CHECK(ran_on != std::this_thread::get_id());
  pool.stop();
  const auto token = std::make_shared<int>();
  serial->dispatch([token] {});
  CHECK(token.use_count() == 1);
}

TEST_CASE("hooks of one map that wait for another map's get through a pool of one thread") {
  syncstate::HookPool pool(1);
  const auto a = pool.make_serial();
  const auto b = pool.make_serial();
  std::vector<int> ran;
  Flag done;
  a->post([&] {
    b->post([&] { ran.push_back(1); });
    b->run_blocking([&] { ran.push_back(2); });  // the pool's thread is this one
    done.set();
  });
  REQUIRE(done.wait());
  CHECK(ran == std::vector<int>{1, 2});
}

TEST_CASE("a circle of executors that wait for each other is refused, over several pools too") {
  syncstate::HookPool pool(2);
  syncstate::HookPool other_pool(1);
  const auto a = pool.make_serial();
  const auto b = pool.make_serial();
  const auto c = other_pool.make_serial();
  std::latch all_busy(3);
  std::atomic<int> refused{0};
  std::atomic<int> ran{0};
  const auto wait_for = [&](const std::shared_ptr<syncstate::SerialExecutor>& next) {
    return [&all_busy, &refused, &ran, next] {
      all_busy.arrive_and_wait();  // all three run now, so each finds the next one busy
      if (code_of([&] { next->run_blocking([&] { ++ran; }); }) == StateErrc::would_deadlock) ++refused;
    };
  };
  a->post(wait_for(b));
  b->post(wait_for(c));
  c->post(wait_for(a));
  a->run_blocking([] {});
  b->run_blocking([] {});
  c->run_blocking([] {});
  CHECK(refused == 1);  // the last to close the circle; the others get their turn
  CHECK(ran == 2);

  std::error_code own;
  a->run_blocking([&] { own = code_of([&] { a->run_blocking([] {}); }); });
  CHECK(own == StateErrc::would_deadlock);
}

TEST_CASE("run_blocking from many threads at once keeps every executor serial") {
  syncstate::HookPool pool(2);
  constexpr int lanes = 3;
  constexpr int threads = 4;
  constexpr int rounds = 500;
  std::vector<std::shared_ptr<syncstate::SerialExecutor>> serials;
  std::vector<int> counts(lanes, 0);  // plain ints: a race would show under TSan, and as a lost count
  for (int i = 0; i < lanes; ++i) serials.push_back(pool.make_serial());
  std::vector<std::thread> callers;
  for (int t = 0; t < threads; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; i < rounds; ++i) {
        const auto lane = static_cast<std::size_t>((t + i) % lanes);
        serials[lane]->post([&counts, lane] { ++counts[lane]; });
        serials[lane]->run_blocking([&counts, lane] { ++counts[lane]; });
      }
    });
  }
  for (auto& caller : callers) caller.join();
  int sum = 0;
  for (const auto& serial : serials) serial->run_blocking([] {});
  for (const int count : counts) sum += count;
  CHECK(sum == 2 * threads * rounds);
}

TEST_CASE("the hook pool has timers") {
  syncstate::HookPool pool(2);
  const auto serial = pool.make_serial();
  const auto start = serial->now();
  std::vector<int> ran;
  Flag done;
  serial->post_at(start + 1h, [] { FAIL("an hour has not passed"); });
  serial->post_at(start + 20ms, [&] {
    ran.push_back(2);
    done.set();
  });
  serial->post_at(start + 10ms, [&] { ran.push_back(1); });
  REQUIRE(done.wait());
  CHECK(serial->now() >= start + 20ms);
  CHECK(ran == std::vector<int>{1, 2});
}

TEST_CASE("a stopped pool starts nothing, ends waits, and waits for what runs") {
  const auto alive = std::make_shared<int>();
  syncstate::HookPool pool(1);
  const auto serial = pool.make_serial();
  const auto other = pool.make_serial();
  Flag started;
  Flag release;
  std::atomic<bool> ended{false};
  serial->post([&] {
    started.set();
    release.wait();
    ended = true;
  });
  REQUIRE(started.wait());
  serial->post([alive] { FAIL("must not start"); });
  other->post([alive] { FAIL("must not start"); });
  serial->post_at(serial->now() + 1h, [alive] {});

  std::error_code waiter_saw;
  std::thread waiter([&] {
    waiter_saw = code_of([&] { serial->run_blocking([&alive] { FAIL("must not run, " << alive); }); });
    release.set();  // so the running task ends only after the waiter was sent away
  });
  // The waiter may come before the stop or after it: both end as stopped.
  pool.stop();
  CHECK(ended);
  waiter.join();
  CHECK(waiter_saw == StateErrc::stopped);
  CHECK(alive.use_count() == 1);
  serial->post([alive] {});
  CHECK(alive.use_count() == 1);
  CHECK(code_of([&] { other->run_blocking([] {}); }) == StateErrc::stopped);
  pool.stop();
}

TEST_CASE("a pool may be stopped, and ended, by one of its own tasks") {
  Flag done;
  auto pool = std::make_shared<syncstate::HookPool>(2);
  const auto serial = pool->make_serial();
  const auto raw = pool.get();
  serial->post([&done, raw, pool = std::move(pool)]() mutable {
    raw->stop();
    pool.reset();
    done.set();
  });
  CHECK(done.wait());
}

}  // namespace executor_test
