// The end of a remote on a context of the user's.
#include <chrono>
#include <optional>
#include <string>
#include <system_error>

#include "support/catch.hpp"
#include "syncstate/tcp/state_remote.hpp"
#include "syncstate/tcp/state_server.hpp"
#include "syncstate/tcp/test_data.hpp"

#include <asio/io_context.hpp>

namespace remote_end_test {

namespace ss = syncstate;
using namespace std::chrono_literals;

TEST_CASE(
    "a remote that ends takes its connection and what waits along, also where nothing holds it any more") {
  ss::tcp::TcpStateServer<std::string, int, int> server(
      ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                             .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                 ss::tcp::test_data::private_key_pem),
                             .password = "secret"});
  server.start();

  asio::io_context context;
  std::optional<std::error_code> answer;
  {
    ss::tcp::TcpStateRemote remote(context,
                                   {.endpoint = server.endpoint(),
                                    .tls = ss::tcp::ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
                                    .password = "secret"});
    const auto limit = std::chrono::steady_clock::now() + 10s;
    while (remote.status().state != ss::LinkState::live && std::chrono::steady_clock::now() < limit) {
      context.run_one_for(1s);
    }
    REQUIRE(remote.status().state == ss::LinkState::live);
    remote.async_send_event(ss::MapHash(), ss::Event<int>{1},
                            [&](std::error_code error, ss::UpdateId) { answer = error; });
  }
  // As long as the connection was there, the context would have work to do.
  context.restart();
  context.run_for(10s);
  CHECK(context.stopped());
  REQUIRE(answer);
  CHECK(*answer == ss::StateErrc::stopped);
}

}  // namespace remote_end_test
