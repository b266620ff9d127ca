// What a user of a TCP server relies on at its end.

#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "support/catch.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/test_data.hpp"

namespace contract_test {

namespace ss = syncstate;
using namespace std::chrono_literals;

TEST_CASE(
    "a hook may ask where the server listens, and is refused a new certificate, while stop waits for the "
    "hook "
    "to end",
    "[tcp]") {
  using Map = ss::StateMap<std::string, std::string>;
  auto server = std::make_unique<ss::tcp::TcpStateServer<std::string, std::string, int>>(
      ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                             .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                 ss::tcp::test_data::private_key_pem),
                             .password = "HelloWorld"});
  const auto host = [&](const std::string& key) {
    Map map(ss::Role::master);
    map.push(key, "");
    map.freeze();
    return server->host(std::move(map));
  };
  const auto handle = host("one");
  const auto other = host("two");
  server->start();
  const std::string endpoint = server->endpoint();

  std::promise<void> runs;
  std::promise<std::pair<std::error_code, std::string>> asked;
  std::thread changer([&] {
    handle.modify([&](Map&) {
      runs.set_value();
      try {
        for (;;) other.modify([](Map&) {});  // until the server stops
      } catch (const ss::StateError&) {
        std::error_code error;
        try {
          server->reload_tls();
        } catch (const ss::StateError& refused) {
          error = refused.code();
        }
        asked.set_value({error, server->endpoint()});
      }
    });
  });
  runs.get_future().wait();
  std::thread stopper([&] { server->stop(); });
  auto answer = asked.get_future();
  const bool is_answered = answer.wait_for(60s) == std::future_status::ready;
  CHECK(is_answered);
  if (!is_answered) std::terminate();  // neither thread would ever end
  const auto [error, where] = answer.get();
  CHECK(error == ss::StateErrc::stopped);
  CHECK(where == endpoint);
  changer.join();
  stopper.join();
}

}  // namespace contract_test
