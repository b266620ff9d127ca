// A shared library that is compiled with -fvisibility=hidden and opened by dlopen.
#include "plugin/interface.hpp"

namespace plugin_test {
namespace {

void set_in_diff(Diff& diff, int first, int last, int value) {
  for (int key = first; key >= last; --key) diff.set(key, value);
}
void set_in_modification(Modification& modification, int first, int last, int value) {
  for (int key = first; key >= last; --key) modification.set(key, value);
}
bool catches(void (*thrower)(), syncstate::StateErrc error) {
  try {
    thrower();
  } catch (const syncstate::StateError& caught) {
    return caught.code() == error && caught.detail() == "thrown by the program";
  }
  return false;
}
std::error_code run_blocking(syncstate::SerialExecutor& executor, const std::function<void()>& task) {
  try {
    executor.run_blocking([&] { task(); });
    return {};
  } catch (const syncstate::StateError& error) {
    return error.code();
  }
}

}  // namespace
}  // namespace plugin_test

extern "C" __attribute__((visibility("default"))) void plugin_functions(plugin_test::Functions& out) {
  using namespace plugin_test;
  out.make_error = [](syncstate::StateErrc error, std::error_code& code) { code = error; };
  out.is_error = [](const std::error_code& code, syncstate::StateErrc error) { return code == error; };
  out.is_ours = [](const std::error_category& category) { return syncstate::is_state_category(category); };
  out.throw_error = [](syncstate::StateErrc error) {
    throw syncstate::StateError(error, "thrown by the plugin");
  };
  out.catches = catches;
  out.address_of_category = []() -> const void* { return &syncstate::state_category(); };
  out.set_in_diff = set_in_diff;
  out.set_in_modification = set_in_modification;
  out.get_from_map = [](const Map& map, int key) { return map.get(key); };
  out.set_number = [](Numbers& numbers, std::uint64_t number, int value) { numbers[number] = value; };
  out.make_pool = [](std::size_t threads) { return std::make_shared<syncstate::HookPool>(threads); };
  out.pool_runs_here = [](const syncstate::HookPool& pool) { return pool.runs_here(); };
  out.join = [](syncstate::HookPool& pool) { pool.join(); };
  out.run_blocking = run_blocking;
  out.make_executor = [] { return std::make_shared<syncstate::ThreadExecutor>(); };
  // With the names of the classes: not by a virtual call, which ends in the code of the side that made the object.
  out.executor_runs_here = [](const syncstate::ThreadExecutor& executor) {
    return executor.ThreadExecutor::runs_here();
  };
  out.make_asio_executor = [](asio::io_context& context) {
    return syncstate::tcp::AsioExecutor::on_single_thread(context);
  };
  out.asio_executor_runs_here = [](const syncstate::tcp::AsioExecutor& executor) {
    return executor.AsioExecutor::runs_here();
  };
}
