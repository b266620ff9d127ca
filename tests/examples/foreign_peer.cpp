// A foreign program that talks to config_service: a server that hosts what config_service would not, and a client that
// sends what it would not.
//
//   foreign_peer serve CERTIFICATE KEY PASSWORD WHAT [ENDPOINT]
//     prints where it listens; ends when its standard input ends. "unlisted": prints "asked" when a client asks what it
//     hosts, and never answers that
//   foreign_peer set ENDPOINT CERTIFICATE PASSWORD POINTER KIND_OF_VALUE
//     prints "update <id>", or the error
#include <exception>
#include <future>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <syncstate/tcp/state_remote.hpp>
#include <syncstate/tcp/state_server.hpp>
#include <utility>
#include <vector>

#include "config_service/document.hpp"

namespace {

using config_service::Json;
using config_service::Map;
using config_service::SetLeaf;

Map document(const std::string& pointer, Json value) {
  Map map(syncstate::Role::master);
  map.push(pointer, std::move(value));
  map.freeze();
  return map;
}

std::vector<Map> documents(const std::string& what) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  std::vector<Map> maps;
  const auto add = [&](const std::string& pointer, Json value) {
    maps.push_back(document(pointer, std::move(value)));
  };
  if (what == "one" || what == "hanging" || what == "unlisted") add("/a", 1);
  if (what == "many") {
    for (int i = 0; i < 17; ++i) add("/a", i);
  }
  if (what == "latin1")
    add("/a",
        "gr\xfc"
        "e\x1b[31m");
  if (what == "names")
    add("/a", Json{{"gr\xfc"
                    "e\u202e",
                    Json::array({infinity})}});
  if (what == "keys") add("no pointer", 1);
  if (what == "levels") add(std::string(1'001, '/'), 1);
  return maps;
}

int serve(const std::string& certificate, const std::string& key, const std::string& password,
          const std::string& what, const std::string& endpoint) {
  std::promise<void> ended;
  const auto end = ended.get_future().share();
  const auto authorize = [end, what](const syncstate::Peer&, syncstate::Action action,
                                     const syncstate::MapHash&) {
    if (what == "unlisted" && action == syncstate::Action::fetch) {
      std::cout << "asked" << std::endl;
      end.wait();
    }
    return true;
  };
  syncstate::tcp::TcpStateServer<std::string, Json, SetLeaf> server(
      syncstate::tcp::ServerOptions{.endpoint = endpoint,
                                    .tls = syncstate::tcp::ServerTls::from_files(certificate, key),
                                    .password = password,
                                    .allow_uploads = what != "unlisted",
                                    .authorizer = authorize});
  server.add_hook([end, what](Map&, const syncstate::Event<SetLeaf>&) {
    if (what == "hanging") end.wait();
  });
  for (Map& map : documents(what)) server.host(std::move(map));
  server.start();
  std::cout << server.endpoint() << std::endl;
  std::cin.ignore(std::numeric_limits<std::streamsize>::max());
  ended.set_value();
  return 0;
}

Json value_of(const std::string& kind) {
  Json deepest = Json::array();
  for (int i = 1; i < 64; ++i) deepest = Json::array({std::move(deepest)});
  if (kind == "number") return 7;
  if (kind == "deepest") return deepest;
  if (kind == "latin1")
    return Json::array(
        {"gr\xfc"
         "e"});
  if (kind == "latin1_name")
    return Json{
        {"gr\xfc"
         "e",
         1}};
  if (kind == "infinity") return Json{{"a", -std::numeric_limits<double>::infinity()}};
  if (kind == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (kind == "bytes") return Json::binary({1, 2});
  throw std::runtime_error("no such value: " + kind);
}

int set(const std::string& endpoint, const std::string& certificate, const std::string& password,
        const std::string& pointer, const std::string& kind) {
  const auto remote = std::make_shared<syncstate::tcp::TcpStateRemote>(
      syncstate::tcp::RemoteOptions{.endpoint = endpoint,
                                    .tls = syncstate::tcp::ClientTls::trusting_file(certificate),
                                    .password = password});
  const auto map = remote->attach<std::string, Json>(remote->hosted().at(0).hash);
  const syncstate::UpdateId id =
      remote->send_event(map.hash(), syncstate::Event<SetLeaf>{{pointer, value_of(kind)}});
  std::cout << "update " << id << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  try {
    if ((args.size() == 5 || args.size() == 6) && args[0] == "serve") {
      return serve(args[1], args[2], args[3], args[4], args.size() == 6 ? args[5] : "127.0.0.1:0");
    }
    if (args.size() == 6 && args[0] == "set") return set(args[1], args[2], args[3], args[4], args[5]);
    throw std::runtime_error("see the first lines of the source");
  } catch (const std::exception& error) {
    std::cout << error.what() << "\n";
    return 1;
  }
}
