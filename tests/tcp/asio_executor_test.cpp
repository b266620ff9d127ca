// The roles' executor over Asio, and the thread that runs one.
#include "syncstate/tcp/asio_executor.hpp"

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/tcp/io_thread.hpp"

namespace asio_executor_test {

namespace {

using namespace std::chrono_literals;
using syncstate::TimePoint;
using syncstate::tcp::AsioExecutor;
using syncstate::tcp::IoThread;

}  // namespace

TEST_CASE("tasks run in the order posted, timed ones when due, none inside the call") {
  asio::io_context io;
  const bool on_strand = GENERATE(true, false);
  const auto executor =
      on_strand ? AsioExecutor::on_strand(io.get_executor()) : AsioExecutor::on_single_thread(io);
  std::vector<int> order;
  const TimePoint now = executor->now();
  executor->post_at(now + 20ms, [&] { order.push_back(5); });
  executor->post_at(now + 10ms, [&] { order.push_back(3); });
  executor->post_at(now + 10ms, [&] { order.push_back(4); });
  executor->post([&] {
    CHECK(executor->runs_here());
    order.push_back(1);
    executor->post([&] { order.push_back(2); });
    CHECK(order.size() == 1);
  });
  CHECK(order.empty());
  CHECK(!executor->runs_here());
  io.run();  // ends by itself: nothing is left
  // On a slow machine the first timers may be due before the second task was posted.
  std::vector<int> posted;
  std::vector<int> timed;
  for (const int which : order) (which < 3 ? posted : timed).push_back(which);
  CHECK(posted == std::vector{1, 2});
  CHECK(timed == std::vector{3, 4, 5});
  CHECK(executor->now() >= now + 20ms);
}

TEST_CASE("what a task defers runs after it, before the context's other handlers") {
  asio::io_context io;
  const bool on_strand = GENERATE(true, false);
  const auto executor =
      on_strand ? AsioExecutor::on_strand(io.get_executor()) : AsioExecutor::on_single_thread(io);
  std::vector<int> order;
  executor->defer([&] { order.push_back(2); });  // from elsewhere it is posted
  CHECK(order.empty());
  executor->post([&] {
    asio::post(executor->asio_executor(), [&] { order.push_back(6); });
    executor->defer([&] {
      order.push_back(4);
      executor->defer([&] { order.push_back(5); });
    });
    order.push_back(3);
  });
  io.run();
  CHECK(order == std::vector{2, 3, 4, 5, 6});
}

TEST_CASE("tasks that defer without end let the context's other handlers have their turn") {
  asio::io_context io;
  const auto executor = AsioExecutor::on_single_thread(io);
  bool is_over = false;
  std::function<void()> again = [&] {
    if (!is_over) executor->defer(again);
  };
  executor->post([&] {
    asio::post(io, [&] { is_over = true; });
    again();
  });
  io.run();
  CHECK(is_over);
}

TEST_CASE("a handler that runs the context itself gets what it deferred before") {
  asio::io_context io;
  const auto executor = AsioExecutor::on_single_thread(io);
  bool has_run = false;
  executor->post([&] {
    executor->defer([&] { has_run = true; });
    asio::post(executor->asio_executor(), [&, executor] { const AsioExecutor::Handler handler(executor); });
    io.run_one();
    CHECK(has_run);
  });
  io.run();
}

TEST_CASE("a thread that looks before it sleeps does what others do") {
  IoThread thread(syncstate::detail::ThreadKind::io, 1ms);
  thread.start();
  const auto executor = thread.executor();
  for (int i = 0; i < 100; ++i) {
    std::atomic<bool> is_done = false;
    const auto finish = [&] {
      is_done = true;
      executor->wake_waiters();
    };
    // In turns while it looks, after it has gone to sleep, and by a timer.
    if (i % 3 == 1) executor->wait_until(executor->now() + 2ms, [] { return false; });
    i % 3 == 2 ? executor->post_at(executor->now() + 2ms, finish) : executor->post(finish);
    CHECK(executor->wait_until(executor->now() + 10s, [&] { return is_done.load(); }));
  }
  CHECK(!executor->wait_until(executor->now() + 5ms, [] { return false; }));
}

TEST_CASE("stop destroys what has not run, and lets the context end") {
  asio::io_context io;
  const auto executor = AsioExecutor::on_strand(io.get_executor());
  const auto token = std::make_shared<int>();
  bool has_run = false;
  executor->post_at(executor->now() + 1h, [token, &has_run] { has_run = true; });
  executor->post([token] {});
  io.poll();
  CHECK(token.use_count() == 2);
  executor->post([token, &has_run] { has_run = true; });
  executor->stop();
  CHECK(token.use_count() == 1);
  executor->post([token, &has_run] { has_run = true; });
  executor->post_at(executor->now(), [token, &has_run] { has_run = true; });
  CHECK(token.use_count() == 1);
  io.restart();
  io.run();  // does not wait for an hour
  CHECK(!has_run);
}

TEST_CASE("an executor let go takes its timed tasks along") {
  asio::io_context io;
  auto executor = AsioExecutor::on_strand(io.get_executor());
  const auto token = std::make_shared<int>();
  executor->post_at(executor->now() + 1h, [token] {});
  io.poll();
  executor.reset();
  CHECK(token.use_count() == 1);
  io.restart();
  io.run();
}

TEST_CASE("a strand's tasks run one at a time on many threads") {
  asio::io_context io;
  const auto executor = AsioExecutor::on_strand(io.get_executor());
  int count = 0;  // no atomic: the race detector says if they overlap
  for (int i = 0; i < 1'000; ++i) {
    executor->post([&] { ++count; });
    executor->post_at(executor->now() + std::chrono::microseconds(i), [&] { ++count; });
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { io.run(); });
  for (std::thread& thread : threads) thread.join();
  CHECK(count == 2'000);
}

TEST_CASE("waiting sleeps until woken or too late") {
  IoThread thread(syncstate::detail::ThreadKind::io);
  thread.start();
  const auto executor = thread.executor();
  std::atomic<bool> is_done = false;
  executor->post([&, executor] {
    is_done = true;
    executor->wake_waiters();
  });
  CHECK(executor->wait_until(executor->now() + 10s, [&] { return is_done.load(); }));
  CHECK(!executor->wait_until(executor->now() + 5ms, [] { return false; }));
}

TEST_CASE("an I/O thread ends with what it has not run, and leaves its executor harmless") {
  const auto token = std::make_shared<int>();
  std::shared_ptr<AsioExecutor> executor;
  {
    IoThread thread(syncstate::detail::ThreadKind::io);
    thread.start();
    executor = thread.executor();
    executor->post_at(executor->now() + 1h, [token, executor] {});
    std::promise<bool> ran;
    executor->post([&] { ran.set_value(executor->runs_here()); });
    CHECK(ran.get_future().get());
    CHECK(!executor->runs_here());
  }
  CHECK(token.use_count() == 1);
  executor->post([token] {});
  CHECK(token.use_count() == 1);
  CHECK(!executor->runs_here());
}

TEST_CASE("an I/O thread may be destroyed on itself") {
  auto thread = std::make_unique<IoThread>(syncstate::detail::ThreadKind::io);
  thread->start();
  const auto executor = thread->executor();
  std::promise<void> ended;
  auto guard = std::shared_ptr<void>(nullptr, [&](void*) { ended.set_value(); });
  executor->post_at(executor->now() + 1h, [guard = std::move(guard)] {});
  executor->post([&] { thread.reset(); });
  ended.get_future().get();  // the timed task was destroyed: the thread has come to its end
}

}  // namespace asio_executor_test
