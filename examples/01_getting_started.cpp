// Getting started: a master, a map, an event, and a replica that follows, in one process over real TLS.
#include <syncstate/syncstate.hpp>      // the model, no I/O
#include <syncstate/tcp.hpp>            // TLS over TCP
#include <syncstate/tcp/test_data.hpp>  // a certificate for trying things out: its private key is published

#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <variant>

namespace ss = syncstate;

struct ChangeValue {  // an aggregate of encodable members is encodable
  std::string key, value;
};
using MyEvent = std::variant<ChangeValue>;
using Map = ss::StateMap<std::string, std::string>;

int main() {
  // The master: whoever knows the password may bring a map and send events; only the hooks change it.
  ss::tcp::TcpStateServer<std::string, std::string, MyEvent> server(
      ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                             .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                 ss::tcp::test_data::private_key_pem),
                             .password = "HelloWorld"});
  server.add_hook([](Map& state, const ss::Event<MyEvent>& event) {
    std::visit([&](const ChangeValue& e) { state.set(e.key, e.value); }, event.content);
  });
  server.start();  // returns; stop() or the destructor ends it

  // A client, usually in another process: a map is its keys with their initial values.
  auto remote = std::make_shared<ss::tcp::TcpStateRemote>(
      ss::tcp::RemoteOptions{.endpoint = server.endpoint(),  // "127.0.0.1:43121"
                             .tls = ss::tcp::ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
                             .password = "HelloWorld"});
  Map map(remote);
  map.push("0", "Message 0");
  map.push("1", "Message 1");
  map.freeze();  // closes the key set; the server now hosts the map

  ss::Position at = remote->send_event(map.hash(), ss::Event<MyEvent>{ChangeValue{"1", "Updated"}});
  map.set_update_id(at);  // moves this copy forward, when the user says so
  std::cout << "the map:     " << map << "\n";
  if (map.at("1") != "Updated") return 1;

  // A replica follows in the background, and is read from any thread at the speed of memory.
  ss::Replica<std::string, std::string> replica(std::move(map));
  replica.on_update([](const auto& diff, const auto& before) {  // once per applied diff, after it is visible
    for (auto& [key, value] : diff.changes()) {
      std::cout << key + ": " + before.at(key) + " -> " + value + "\n";
    }
  });
  at = remote->send_event(replica.hash(), ss::Event<MyEvent>{ChangeValue{"0", "Updated, too"}});
  if (!replica.wait_for(at, std::chrono::seconds(10))) return 1;

  const auto view = replica.view();  // one whole state, for as long as you keep it
  std::cout << "the replica: " << view.at("0") << ", " << view.at("1") << " (update " << view.update_id()
            << ")\n";
  return view.at("0") == "Updated, too" && view.at("1") == "Updated" ? 0 : 1;
}
