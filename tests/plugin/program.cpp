// Nothing means something by its address alone: a program and a plugin that is compiled with -fvisibility=hidden know
// each other's errors, and go on with each other's maps and diffs. Called with the path of the plugin.
//
// The program exports no symbols, so both have static variables of their own: the worst case.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>

#include "plugin/interface.hpp"
#include "syncstate/protocol/session.hpp"

namespace {

namespace ss = syncstate;
using namespace plugin_test;

int failures = 0;

void expect(bool is_right, const char* what) {
  if (is_right) return;
  ++failures;
  std::printf("not so: %s\n", what);
}

void throw_error() { throw ss::StateError(ss::StateErrc::busy, "thrown by the program"); }

void test_errors(const Functions& plugin) {
  for (int number = 1; number <= 32; ++number) {
    const auto error = static_cast<ss::StateErrc>(number);
    const auto other = static_cast<ss::StateErrc>(number + 1);
    std::error_code code;
    plugin.make_error(error, code);
    expect(code == error && error == code, "the program knows the plugin's error");
    expect(!(code != error) && code != other, "and knows it from others");
    expect(plugin.is_error(ss::make_error_code(error), error), "the plugin knows the program's error");
    expect(!plugin.is_error(ss::make_error_code(error), other), "and knows it from others");
    expect(ss::is_state_category(code.category()), "the program knows the plugin's category");
    expect(code != std::error_code(number, std::generic_category()), "another category is another error");
    expect(!plugin.is_error(std::error_code(number, std::generic_category()), error), "also to the plugin");
  }
  expect(plugin.is_ours(ss::state_category()), "the plugin knows the program's category");
  expect(!plugin.is_ours(std::generic_category()), "and knows it from others");
  expect(plugin.catches(throw_error, ss::StateErrc::busy), "the plugin catches what the program throws");
  try {
    plugin.throw_error(ss::StateErrc::unavailable);
    expect(false, "the plugin throws");
  } catch (const ss::StateError& error) {
    expect(error.code() == ss::StateErrc::unavailable, "the program knows what the plugin throws");
    expect(error.detail() == "thrown by the plugin", "with its detail");
    expect(ss::protocol::reason_of(error) == ss::StateErrc::unavailable, "a peer is told the same");
  }
}

/// True if the diff names each of these keys once, with this value from `first_of_plugin` on.
bool names_once(const Diff& diff, int keys, int first_of_plugin) {
  if (diff.size() != static_cast<std::size_t>(keys)) return false;
  Diff compressed(diff);
  compressed.compress();
  int next = 0;
  for (const auto& [key, value] : compressed.changes()) {
    if (key != next++ || value != (key >= first_of_plugin ? 2 : 1)) return false;
  }
  return true;
}

void test_maps(const Functions& plugin) {
  constexpr int keys = 200;
  Map map(ss::Role::master);
  for (int key = 0; key < keys; ++key) map.push(key, 0);
  map.freeze();
  for (int key = 0; key < keys; ++key) {
    const int* const value = plugin.get_from_map(map, key);
    expect(value != nullptr && *value == 0, "the plugin finds keys of the program's map");
  }
  // In descending order, so that an index is made: by the program, then used by the plugin, and the other way round.
  Diff diff(map, 1, 0, 1);
  for (int key = keys - 1; key >= 0; --key) diff.set(key, 1);
  plugin.set_in_diff(diff, keys - 1, 50, 2);
  expect(names_once(diff, keys, 50), "a diff of both names each key once");
  Diff other(map, 1, 0, 1);
  plugin.set_in_diff(other, keys - 1, 0, 2);
  for (int key = 49; key >= 0; --key) other.set(key, 1);
  expect(names_once(other, keys, 50), "a diff that the plugin began, too");

  auto modification = map.begin_modification();
  for (int key = keys - 1; key >= 0; --key) modification.set(key, 1);
  plugin.set_in_modification(modification, keys - 1, 50, 2);
  for (int key = 0; key < keys; ++key) {
    expect(*modification.get(key) == (key >= 50 ? 2 : 1), "a modification of both shows the last value");
  }
  expect(modification.commit() == 1, "it is one commit");
  expect(names_once(map.diff(0, 1), keys, 50), "the commit names each key once");

  Numbers numbers;
  for (std::uint64_t number = 0; number < keys; ++number) numbers[number] = 1;
  for (std::uint64_t number = 0; number < keys; ++number) plugin.set_number(numbers, number, 2);
  expect(numbers.size() == keys && numbers.at(7) == 2, "a table of numbers has each once");
}

std::error_code run_blocking(ss::SerialExecutor& executor, const std::function<void()>& task) {
  try {
    executor.run_blocking([&] { task(); });
    return {};
  } catch (const ss::StateError& error) {
    return error.code();
  }
}

/// Waits until it is set. What does not come for half a minute waits for itself.
void expect_soon(std::future<void> done, const char* what) {
  if (done.wait_for(std::chrono::seconds(30)) == std::future_status::ready) return;
  std::printf("waits for ever: %s\n", what);
  std::fflush(stdout);
  std::_Exit(1);
}

/// What one task in a pool of the other side, or of this one, is told by both.
void test_pool(const Functions& plugin, std::shared_ptr<ss::HookPool> pool) {
  const auto lane = pool->make_serial();
  expect(!plugin.pool_runs_here(*pool) && !pool->runs_here(), "no task of the pool runs here yet");
  std::promise<void> done;
  lane->post([&] {
    expect(plugin.pool_runs_here(*pool), "the plugin knows that it is in a task of the pool");
    expect(pool->runs_here(), "and so does the program");
    expect(lane->runs_here(), "and that it is in this executor's");
    const auto fail = [] { expect(false, "a task never runs inside another of its executor"); };
    expect(plugin.run_blocking(*lane, fail) == ss::StateErrc::would_deadlock,
           "the plugin may not wait there");
    expect(run_blocking(*lane, fail) == ss::StateErrc::would_deadlock, "nor may the program");
    done.set_value();
  });
  expect_soon(done.get_future(), "a task of a pool for its own end");

  // The other thread's task waits for this one, so this one may not wait for that; whose code waits first makes no difference.
  for (const bool plugin_is_first : {false, true}) {
    const auto other = pool->make_serial();
    const auto run = [&](bool by_plugin, ss::SerialExecutor& where) {
      const std::function<void()> nothing = [] {};
      return by_plugin ? plugin.run_blocking(where, nothing) : run_blocking(where, nothing);
    };
    std::promise<void> is_in_first, first_done, second_done;
    std::promise<void> is_in_second;
    std::error_code first, second;
    lane->post([&] {
      is_in_first.set_value();
      is_in_second.get_future().wait();
      first = run(plugin_is_first, *other);
      first_done.set_value();
    });
    other->post([&] {
      is_in_first.get_future().wait();
      is_in_second.set_value();
      second = run(!plugin_is_first, *lane);
      second_done.set_value();
    });
    expect_soon(first_done.get_future(), "one of two hooks that wait for each other");
    expect_soon(second_done.get_future(), "the other of two hooks that wait for each other");
    // The one that began to wait last was told, and so the other one could go on.
    expect((first == ss::StateErrc::would_deadlock && !second) ||
               (second == ss::StateErrc::would_deadlock && !first),
           "one of two hooks that wait for each other is told so");
  }

  std::promise<void> joined;
  lane->post([&] {
    plugin.join(*pool);
    joined.set_value();
  });
  expect_soon(joined.get_future(), "a hook of the plugin, which ends the pool, for its own end");
}

void test_executors(const Functions& plugin) {
  for (const auto& executor : {std::make_shared<ss::ThreadExecutor>(), plugin.make_executor()}) {
    std::promise<void> done;
    expect(!plugin.executor_runs_here(*executor), "no task of the executor runs here");
    executor->post([&] {
      expect(plugin.executor_runs_here(*executor), "the plugin knows that it is in a task of the executor");
      expect(executor->ThreadExecutor::runs_here(), "and so does the program");
      done.set_value();
    });
    expect_soon(done.get_future(), "a task of an executor");
  }
  asio::io_context context;
  for (const auto& executor :
       {ss::tcp::AsioExecutor::on_single_thread(context), plugin.make_asio_executor(context)}) {
    bool has_run = false;
    expect(!plugin.asio_executor_runs_here(*executor), "no handler of the context runs here");
    executor->post([&] {
      has_run = true;
      expect(plugin.asio_executor_runs_here(*executor),
             "the plugin knows that it is in a task on the context");
      expect(executor->AsioExecutor::runs_here(), "and so does the program");
    });
    context.run();
    context.restart();
    expect(has_run, "the context runs what both sides post");
    expect(!plugin.asio_executor_runs_here(*executor), "afterwards it does not run here");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) throw std::invalid_argument("needs the path of the plugin");
  void* const library = ::dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(::dlerror());
  const auto fill = reinterpret_cast<FillFunctions>(::dlsym(library, "plugin_functions"));
  if (fill == nullptr) throw std::runtime_error("the plugin has no plugin_functions");
  Functions plugin{};
  fill(plugin);
  // Else this test would not test what it is for.
  expect(plugin.address_of_category() != &ss::state_category(), "program and plugin have a category each");
  test_errors(plugin);
  test_maps(plugin);
  test_pool(plugin, std::make_shared<ss::HookPool>(2));
  test_pool(plugin, plugin.make_pool(2));
  test_executors(plugin);
  if (failures == 0) std::puts("the program and its plugin agree");
  return failures == 0 ? 0 : 1;
}
