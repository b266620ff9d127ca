// The map that syncstate serves where it is measured, and the events that change it.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_SYNCSTATE_SERVER_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_SYNCSTATE_SERVER_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "support/sample_map.hpp"
#include "syncstate/event.hpp"
#include "syncstate/tcp/state_remote.hpp"
#include "syncstate/tcp/state_server.hpp"
#include "syncstate/tcp/test_data.hpp"
#include "systems/server.hpp"

namespace benchmarks {

/// Sets one key.
struct SetOne {
  std::string key, value;
};
using SetEvent = syncstate::Event<SetOne>;

/// Another key each time, as the number says, and a value that tells the number.
[[nodiscard]] inline SetEvent set_sample(std::uint64_t number, std::size_t keys) {
  return SetEvent{SetOne{sample_key(number % keys), sample_value(number)}};
}

[[nodiscard]] inline syncstate::tcp::ServerOptions sample_server_options() {
  return {.endpoint = "127.0.0.1:0",
          .tls = syncstate::tcp::ServerTls::from_pem(syncstate::tcp::test_data::certificate_pem,
                                                     syncstate::tcp::test_data::private_key_pem),
          .password = "benchmark"};
}

[[nodiscard]] inline syncstate::tcp::RemoteOptions sample_remote_options(const std::string& endpoint) {
  return {.endpoint = endpoint,
          .tls = syncstate::tcp::ClientTls::from_pem(syncstate::tcp::test_data::certificate_pem),
          .password = "benchmark"};
}

/// Hosts a map of so many keys until the parent is done.
inline void serve_sample_map(ChildDuty& duty, std::size_t keys,
                             syncstate::tcp::ServerOptions options = sample_server_options()) {
  syncstate::tcp::TcpStateServer<std::string, std::string, SetOne> server(std::move(options));
  server.add_hook([](Map& map, const SetEvent& event) { map.set(event.content.key, event.content.value); });
  server.host(fill(Map(syncstate::Role::master), keys));
  server.start();
  duty.listens_at(server.endpoint());
  duty.wait_for_end();
}

}  // namespace benchmarks

#endif
