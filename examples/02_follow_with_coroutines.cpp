// Server, remote and replica on an io_context of your own, without a further thread for any of them: one
// coroutine sends events, another follows what they change.
#include <syncstate/syncstate.hpp>
#include <syncstate/tcp.hpp>
#include <syncstate/tcp/test_data.hpp>

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/use_awaitable.hpp>

#include <chrono>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

namespace ss = syncstate;
using Map = ss::StateMap<std::string, int>;
using Replica = ss::Replica<std::string, int>;
using Remote = ss::tcp::TcpStateRemote;

struct Move {
  int metres;
};

constexpr int moves = 5;

asio::awaitable<void> drive(std::shared_ptr<Remote> remote, ss::MapHash hash) {
  for (int i = 0; i < moves; ++i) {
    const ss::Event<Move> event{Move{10}};
    const ss::Position at = co_await remote->async_send_event(hash, event, asio::use_awaitable);
    std::cout << "sent move " << at.update_id << "\n";
  }
}

asio::awaitable<int> follow(Replica& replica) {
  for (ss::UpdateId id = 1; id <= moves; ++id) {
    co_await ss::async_wait_for(replica, id, asio::use_awaitable);
    const auto view = replica.view();
    std::cout << "at " << view.at("position") << " m, update " << view.update_id() << "\n";
  }
  co_return replica.view().at("position");
}

int main() {
  asio::io_context context;
  ss::tcp::TcpStateServer<std::string, int, Move> server(
      context,
      ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                             .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                 ss::tcp::test_data::private_key_pem),
                             .password = "HelloWorld"});
  server.add_hook([](Map& state, const ss::Event<Move>& event) {
    state.set("position", state.at("position") + event.content.metres);
  });
  server.start();

  const auto remote = std::make_shared<Remote>(
      context,
      ss::tcp::RemoteOptions{.endpoint = server.endpoint(),
                             .tls = ss::tcp::ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
                             .password = "HelloWorld"});
  Map map(remote);
  map.push("position", 0);
  // Zero: only close the key set. To wait for the server here would be to wait for this very thread.
  map.freeze(ss::Duration::zero());
  Replica replica(std::move(map));

  int reached = 0;
  int running = 2;
  const auto one_has_ended = [&] {  // both, for a coroutine that still waits keeps its remote, which keeps it
    if (--running == 0) context.stop();
  };
  asio::co_spawn(context, drive(remote, replica.hash()), [&](std::exception_ptr) { one_has_ended(); });
  asio::co_spawn(context, follow(replica), [&](std::exception_ptr error, int position) {
    if (error == nullptr) reached = position;
    one_has_ended();
  });
  context.run_for(std::chrono::seconds(30));
  return reached == moves * 10 ? 0 : 1;
}
