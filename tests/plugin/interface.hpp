// What the program of this test and its plugin say to each other.
#ifndef SYNCSTATE_TESTS_PLUGIN_INTERFACE_HPP
#define SYNCSTATE_TESTS_PLUGIN_INTERFACE_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <system_error>
#include <unordered_map>

#include "syncstate/state_map.hpp"
#include "syncstate/tcp/asio_executor.hpp"
#include "syncstate/threads/hook_pool.hpp"
#include "syncstate/threads/thread_executor.hpp"

namespace plugin_test {

using Map = syncstate::StateMap<int, int>;
using Diff = syncstate::Diff<int, int>;
using Modification = syncstate::Modification<int, int>;
using Numbers = std::unordered_map<std::uint64_t, int, syncstate::detail::NumberHash>;

/// The plugin's functions. `plugin_functions` fills one of these; all else in the plugin is hidden.
struct Functions {
  void (*make_error)(syncstate::StateErrc error, std::error_code& out);
  bool (*is_error)(const std::error_code& code, syncstate::StateErrc error);
  bool (*is_ours)(const std::error_category& category);
  void (*throw_error)(syncstate::StateErrc error);
  bool (*catches)(void (*thrower)(), syncstate::StateErrc error);
  const void* (*address_of_category)();
  void (*set_in_diff)(Diff& diff, int first, int last, int value);  // from `first` down to `last`
  void (*set_in_modification)(Modification& modification, int first, int last, int value);
  const int* (*get_from_map)(const Map& map, int key);
  void (*set_number)(Numbers& numbers, std::uint64_t number, int value);
  std::shared_ptr<syncstate::HookPool> (*make_pool)(std::size_t threads);
  bool (*pool_runs_here)(const syncstate::HookPool& pool);
  void (*join)(syncstate::HookPool& pool);
  // Runs `task` on `executor`; returns the error.
  std::error_code (*run_blocking)(syncstate::SerialExecutor& executor, const std::function<void()>& task);
  std::shared_ptr<syncstate::ThreadExecutor> (*make_executor)();
  bool (*executor_runs_here)(const syncstate::ThreadExecutor& executor);
  std::shared_ptr<syncstate::tcp::AsioExecutor> (*make_asio_executor)(asio::io_context& context);
  bool (*asio_executor_runs_here)(const syncstate::tcp::AsioExecutor& executor);
};
using FillFunctions = void (*)(Functions&);

}  // namespace plugin_test

#endif
