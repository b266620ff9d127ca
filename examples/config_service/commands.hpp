// The commands that ask once: get, set, dump, status.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_COMMANDS_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_COMMANDS_HPP

#include <chrono>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <string>

#include "client.hpp"
#include "document.hpp"
#include "failure.hpp"
#include "read_value.hpp"
#include "write_json.hpp"

namespace config_service {

/// Prints the value of a leaf, or everything below a pointer.
inline ExitCode get(const ClientOptions& options, const std::string& pointer) {
  const auto remote = make_remote(options);
  wait_until_live(remote, options);
  const Map map = attach(remote, options);
  if (!JsonWriter(map, stdout).write(pointer)) throw no_leaf(map, pointer);
  return ExitCode::success;
}

inline ExitCode dump(const ClientOptions& options) { return get(options, ""); }

inline ExitCode set(const ClientOptions& options, const std::string& pointer, const std::string& text) {
  const Json value = read_value(text);
  const auto remote = make_remote(options);
  wait_until_live(remote, options);
  const Map map = attach(remote, options);
  if (!is_pointer(pointer) || !map.contains(pointer)) throw no_leaf(map, pointer);

  const auto begin = std::chrono::steady_clock::now();
  const syncstate::Position at =
      remote->send_event(map.hash(), syncstate::Event<SetLeaf>{SetLeaf{pointer, value}});
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begin;
  std::cout << "update " << at.update_id << ", answered in " << std::fixed << std::setprecision(3)
            << taken.count() << " ms\n";
  return ExitCode::success;
}

inline ExitCode status(const ClientOptions& options) {
  const auto remote = make_remote(options);
  try {
    wait_until_live(remote, options);
  } catch (const Failure&) {
    std::cout << "link       " << describe(remote->status()) << "\n";
    throw;
  }
  std::cout << "link       live, " << printable(options.connect) << "\n";
  const auto maps = fitting_maps(remote->hosted(), options, [](const auto&) { return true; });
  if (maps.empty()) std::cout << "maps       none\n";
  for (const auto& info : maps) {
    std::cout << "hash       " << info.hash.hex() << "\n"
              << "types      " << printable(info.key_type) << " -> " << printable(info.value_type) << "\n"
              << "keys       " << info.keys << "\n";
    if (!is_document(info)) continue;
    Map map = remote->attach<std::string, Json>(info.hash);
    map.sync();
    std::cout << "update id  " << map.update_id() << "\n"
              << "epoch      " << std::hex << map.epoch() << std::dec << "\n";
  }
  return ExitCode::success;
}

}  // namespace config_service

#endif
