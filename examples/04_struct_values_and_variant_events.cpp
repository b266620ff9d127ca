// Structs as values, a variant as the event: the lobby of a game. A hook that throws refuses the event:
// nothing of it is kept, and its sender learns why.
#include <chrono>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <syncstate/syncstate.hpp>
#include <syncstate/tcp.hpp>
#include <syncstate/tcp/test_data.hpp>
#include <utility>
#include <variant>
#include <vector>

namespace ss = syncstate;

enum class Phase : std::uint8_t { open, running };

struct Seat {
  int room;
  int number;
  friend auto operator<=>(const Seat&, const Seat&) = default;  // keys need an order
};
struct Player {
  std::string name;
  int score;
  std::vector<std::string> badges;
};
struct Table {
  Phase phase;
  std::optional<Player> player;
};

struct Sit {
  Seat seat;
  std::string name;
};
struct Score {
  Seat seat;
  int points;
};
struct Leave {
  Seat seat;
};
using LobbyEvent = std::variant<Sit, Score, Leave>;
using Lobby = ss::StateMap<Seat, Table>;

/// What each event does: one function per alternative.
struct Rules {
  Lobby& lobby;

  void operator()(const Sit& e) const {
    if (lobby.at(e.seat).player) throw std::runtime_error("the seat is taken");
    lobby.set(e.seat, Table{Phase::running, Player{e.name, 0, {}}});
  }
  void operator()(const Score& e) const {
    Table table = lobby.at(e.seat);
    if (!table.player) throw std::runtime_error("nobody sits there");
    table.player->score += e.points;
    if (table.player->score >= 100) table.player->badges.push_back("century");
    lobby.set(e.seat, std::move(table));
  }
  void operator()(const Leave& e) const { lobby.set(e.seat, Table{Phase::open, std::nullopt}); }
};

int main() {
  ss::tcp::TcpStateServer<Seat, Table, LobbyEvent> server(
      ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                             .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                 ss::tcp::test_data::private_key_pem),
                             .password = "HelloWorld",
                             .allow_uploads = false});  // only the map that this process hosts
  server.add_hook(
      [](Lobby& lobby, const ss::Event<LobbyEvent>& event) { std::visit(Rules{lobby}, event.content); });
  Lobby lobby(ss::Role::master);
  for (int number = 0; number < 4; ++number) lobby.push(Seat{1, number}, Table{Phase::open, std::nullopt});
  lobby.freeze();
  const ss::MapHash hash = server.host(std::move(lobby)).hash();
  server.start();

  // A client that knows nothing but the hash gets the initial state from the server, and verifies it by the
  // hash.
  const auto remote = std::make_shared<ss::tcp::TcpStateRemote>(
      ss::tcp::RemoteOptions{.endpoint = server.endpoint(),
                             .tls = ss::tcp::ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
                             .password = "HelloWorld"});
  ss::Replica<Seat, Table> replica(remote->attach<Seat, Table>(hash));

  const auto send = [&](LobbyEvent event) {
    return remote->send_event(hash, ss::Event<LobbyEvent>{std::move(event)});
  };
  send(Sit{{1, 2}, "Ada"});
  try {
    send(Sit{{1, 2}, "Bob"});
    return 1;  // Ada sits there
  } catch (const ss::StateError& error) {
    if (error.code() != ss::StateErrc::hook_failed) return 1;
    std::cout << "Bob was refused: " << error.detail() << "\n";
  }
  const ss::Position at = send(Score{{1, 2}, 120});
  if (!replica.wait_for(at, std::chrono::seconds(10))) return 1;

  const auto view = replica.view();
  const std::optional<Player>& player = view.at(Seat{1, 2}).player;
  if (!player || player->name != "Ada" || player->score != 120 || player->badges.size() != 1) return 1;
  std::cout << player->name << " has " << player->score << " points and the badge " << player->badges.front()
            << "\n";
  return 0;
}
