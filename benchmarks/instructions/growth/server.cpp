// Costs of a server's session and core: what one frame or commit takes, by what else there is.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "growth/growth.hpp"
#include "support/harness.hpp"
#include "syncstate/detail/server/followers.hpp"
#include "syncstate/detail/server/hosted_map.hpp"
#include "syncstate/detail/server/lane.hpp"
#include "syncstate/detail/server/link_table.hpp"
#include "syncstate/inproc.hpp"
#include "syncstate/protocol/proof.hpp"
#include "syncstate/protocol/server_session.hpp"
#include "syncstate/syncstate.hpp"

namespace {

using namespace benchmarks;
namespace ss = syncstate;
namespace wire = syncstate::protocol;
using TextMap = ss::StateMap<std::string, std::string>;
using Hosted = ss::detail::HostedMap<std::string, std::string>;

const std::string password = "secret";

TextMap small_map(std::size_t number) {
  TextMap map(ss::Role::master);
  map.push("key " + std::to_string(number), "-");
  map.freeze();
  return map;
}

template <class Message>
ss::Bytes frame_of(const Message& message) {
  ss::Bytes bytes;
  wire::append_frame(bytes, message);
  return bytes;
}

wire::Open open_of(wire::ChannelId channel, const ss::MapHash& hash) {
  wire::Open open;
  open.channel = channel;
  open.hash = hash;
  open.key_type = open.value_type = ss::type_name<std::string>();
  open.mode = wire::FollowMode::merged;
  return open;
}

ss::MapHash hash_number(std::size_t number) {
  std::array<std::byte, 32> bytes{};
  for (std::size_t i = 0; i < sizeof number; ++i) bytes[i] = static_cast<std::byte>(number >> (8 * i));
  return ss::MapHash(bytes);
}

/// A session on which `n` maps are followed.
class ManyMaps final : public wire::HostedSource {
 public:
  explicit ManyMaps(std::size_t n) {
    limits_.maps = n;
    session_.emplace(limits_, now_);
    const ss::Bytes binding(32, std::byte{7});
    session_->on_open(wire::keep_passwords({password}), binding, false, now_);
    wire::Hello hello;
    hello.proof = wire::make_proof(password, wire::ProofRole::client, binding);
    feed(frame_of(hello));
    for (std::size_t i = 1; i <= n; ++i) {
      maps.push_back(std::make_shared<Hosted>(small_map(i), limits_));
      feed(frame_of(open_of(i, maps.back()->hash())));
    }
    produce_all();
  }

  void feed(ss::ByteView bytes) {
    session_->on_bytes(bytes, now_, [this](const auto& action) { this->perform(action); });
  }
  void produce_all() {
    while (session_->wants_to_send()) {
      out_.clear();
      session_->produce(out_);
    }
  }
  void commit(std::size_t i) {
    maps[i]->transact([i](TextMap& map) { map.set("key " + std::to_string(i + 1), "changed"); });
  }
  wire::ServerSession& session() { return *session_; }

  std::vector<std::shared_ptr<Hosted>> maps;

  std::optional<ss::MapHash> encode_hosted(const std::optional<ss::MapHash>&, ss::Bytes&) override {
    return std::nullopt;
  }

 private:
  void perform(const wire::OpenAsked& a) { session_->opened(a.open.channel, maps.back()); }
  void perform(const wire::SenderAsked& a) { session_->give_sender(a.channel, 77); }
  void perform(const wire::DiffAsked& a) { session_->send_diff(a.ask); }
  void perform(const wire::HeadAsked& a) { session_->send_head(a.ask); }
  void perform(const wire::FetchAsked& a) { session_->send_initial(a.fetch.request, maps.front()); }
  void perform(const wire::ListAsked& a) { session_->send_hosted(a.request, *this); }
  void perform(const wire::EventCame& a) {
    commit(0);
    session_->answer(a.ticket, maps[0]->head().update_id);
  }
  template <class Other>
  void perform(const Other&) {}

  ss::Limits limits_;
  ss::TimePoint now_ = ss::TimePoint{} + std::chrono::hours(1);
  std::optional<wire::ServerSession> session_;
  ss::Bytes out_;
};

const GrowthCase commit_on_link{"commit of one map sent on a link that follows n maps", Growth::constant, 50,
                                [](std::size_t n) {
                                  const auto link = std::make_shared<ManyMaps>(n);
                                  return [link] {
                                    link->commit(3);
                                    link->session().map_changed(link->maps[3].get());
                                    link->produce_all();
                                  };
                                }};

const GrowthCase event_on_link{"event and its answer on a link that follows n maps", Growth::constant, 50,
                               [](std::size_t n) {
                                 const auto link = std::make_shared<ManyMaps>(n);
                                 link->feed(frame_of(wire::GetSender{1, 0}));
                                 link->produce_all();
                                 return [link] {
                                   link->feed(frame_of(wire::EventMessage{1, 1, {}}));
                                   link->produce_all();
                                 };
                               }};

const GrowthCase silent_wake{"a link that follows n maps asks if there is something to send",
                             Growth::constant, 50, [](std::size_t n) {
                               const auto link = std::make_shared<ManyMaps>(n);
                               return [link] { keep(link->session().wants_to_send()); };
                             }};

const GrowthCase requests_on_link{"get_update_id, get_diff, fetch and list on a link that follows n maps",
                                  Growth::constant, 50, [](std::size_t n) {
                                    const auto link = std::make_shared<ManyMaps>(n);
                                    return [link, n] {
                                      const auto hash = link->maps[0]->hash();
                                      const std::string type = ss::type_name<std::string>();
                                      link->feed(frame_of(wire::GetUpdateId{n + 1, 1}));
                                      link->feed(frame_of(wire::GetDiff{n + 2, 1, ss::Position{}, 0}));
                                      link->feed(frame_of(wire::Fetch{n + 3, hash, type, type}));
                                      link->feed(frame_of(wire::List{n + 4}));
                                      link->produce_all();
                                    };
                                  }};

const GrowthCase close_on_link{"close_channel on a link that follows n maps", Growth::logarithmic, 50,
                               [](std::size_t n) {
                                 const auto link = std::make_shared<ManyMaps>(n);
                                 return [link] { link->feed(frame_of(wire::CloseChannel{3})); };
                               }};

/// A client of a server on virtual time, which says what it is told to and reads nothing.
class ClientLink final : public ss::LinkOwner {
 public:
  void on_open(const ss::LinkInfo& info) override {
    wire::Hello hello;
    hello.proof = wire::make_proof(password, wire::ProofRole::client, info.channel_binding);
    send(hello);
  }
  void on_bytes(ss::ByteView) override {}
  void produce(ss::Bytes& out) override { out.swap(out_); }
  void on_closed(std::error_code, const std::string&) override {}

  template <class Message>
  void send(const Message& message) {
    wire::append_frame(out_, message);
    if (link) link->wake();
  }

  std::shared_ptr<ss::Link> link;

 private:
  ss::Bytes out_;
};

struct Event {
  std::string text;
};

/// A server and as many clients as are asked for.
class World {
 public:
  explicit World(std::size_t maps = 0) {
    ss::ServerCoreOptions options;
    options.passwords = {password};
    options.limits.maps = maps + 10'000;
    server.emplace(time, port, std::move(options));
    for (std::size_t i = 0; i < maps; ++i) hosted.push_back(server->host(small_map(i)));
    server->start();
  }
  ~World() {
    for (const auto& client : clients) client->link->abort();
    server.reset();
    time.run_ready();
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  ClientLink& connect(const std::string& address = "192.0.2.1") {
    clients.push_back(std::make_shared<ClientLink>());
    executors.push_back(time.make_executor());
    clients.back()->link = port->connect(executors.back(), clients.back(), address);
    clients.back()->link->wake();
    time.run_ready();
    return *clients.back();
  }

  ss::inproc::VirtualTime time;
  std::shared_ptr<ss::inproc::Port> port = std::make_shared<ss::inproc::Port>();
  std::optional<ss::inproc::StateServer<std::string, std::string, Event>> server;
  std::vector<ss::MasterHandle<std::string, std::string>> hosted;
  std::vector<std::shared_ptr<ss::Executor>> executors;
  std::vector<std::shared_ptr<ClientLink>> clients;
};

const GrowthCase close_waiting{"close_channel where n channels wait for the map", Growth::logarithmic, 50,
                               [](std::size_t n) {
                                 const auto world = std::make_shared<World>();
                                 ClientLink& client = world->connect();
                                 for (std::size_t i = 1; i <= n; ++i) client.send(open_of(i, hash_number(1)));
                                 world->time.run_ready();
                                 return [world, n] {
                                   world->clients[0]->send(wire::CloseChannel{n / 2});
                                   world->time.run_ready();
                                 };
                               }};

/// `n` links, of 16 addresses, wait for one map; the first of them was asked for it.
std::shared_ptr<World> many_that_wait(std::size_t n) {
  const auto world = std::make_shared<World>();
  for (std::size_t i = 0; i < n; ++i) {
    world->connect("192.0.2." + std::to_string(i % 16)).send(open_of(1, hash_number(1)));
  }
  world->time.run_ready();
  return world;
}

const GrowthCase close_one_waiting{"close_channel where n links wait for the map", Growth::logarithmic, 20,
                                   [](std::size_t n) {
                                     const auto world = many_that_wait(n);
                                     return [world, n] {
                                       world->clients[n / 2]->send(wire::CloseChannel{1});
                                       world->time.run_ready();
                                     };
                                   }};

const GrowthCase close_one_asked{"close_channel of an upload for which n links wait", Growth::logarithmic, 20,
                                 [](std::size_t n) {
                                   const auto world = many_that_wait(n);
                                   return [world] {
                                     world->clients[0]->send(wire::CloseChannel{1});
                                     world->time.run_ready();
                                   };
                                 }};

const GrowthCase close_uploading{"close_channel of an upload for which n channels wait", Growth::logarithmic,
                                 50, [](std::size_t n) {
                                   const auto world = std::make_shared<World>();
                                   ClientLink& client = world->connect();
                                   for (std::size_t i = 1; i <= n; ++i)
                                     client.send(open_of(i, hash_number(1)));
                                   world->time.run_ready();
                                   return [world] {
                                     world->clients[0]->send(wire::CloseChannel{1});
                                     world->time.run_ready();
                                   };
                                 }};

const GrowthCase close_among_uploads{"close_channel where n maps are awaited", Growth::logarithmic, 50,
                                     [](std::size_t n) {
                                       const auto world = std::make_shared<World>();
                                       ClientLink& client = world->connect();
                                       for (std::size_t i = 1; i <= n; ++i)
                                         client.send(open_of(i, hash_number(i)));
                                       world->time.run_ready();
                                       return [world, n] {
                                         world->clients[0]->send(wire::CloseChannel{n / 2});
                                         world->time.run_ready();
                                       };
                                     }};

const GrowthCase open_followed{"open and close of a map that n links follow", Growth::logarithmic, 20,
                               [](std::size_t n) {
                                 const auto world = std::make_shared<World>(1);
                                 for (std::size_t i = 0; i < n; ++i) {
                                   world->connect().send(open_of(1, world->hosted[0].hash()));
                                 }
                                 world->connect();
                                 world->time.run_ready();
                                 return [world] {
                                   ClientLink& last = *world->clients.back();
                                   last.send(open_of(1, world->hosted[0].hash()));
                                   last.send(wire::CloseChannel{1});
                                   world->time.run_ready();
                                 };
                               }};

const GrowthCase list_of_maps{"list of n maps", Growth::linear, 50, [](std::size_t n) {
                                const auto world = std::make_shared<World>(n);
                                world->connect();
                                return [world] {
                                  world->clients[0]->send(wire::List{1});
                                  world->time.run_ready();
                                };
                              }};

const GrowthCase lists_at_once{"list n times at once", Growth::linear, 20, [](std::size_t n) {
                                 const auto world = std::make_shared<World>(100);
                                 world->connect();
                                 return [world, n] {
                                   for (std::size_t i = 1; i <= n; ++i)
                                     world->clients[0]->send(wire::List{i});
                                   world->time.run_ready();
                                 };
                               }};

const GrowthCase link_ends{"a link that has nothing open ends, of n", Growth::logarithmic, 20,
                           [](std::size_t n) {
                             const auto world = std::make_shared<World>(1);
                             for (std::size_t i = 0; i < n; ++i) world->connect();
                             return [world] {
                               world->clients[3]->link->abort();
                               world->time.run_ready();
                             };
                           }};

/// A table whose room for pending links is full, each link from an address of its own.
struct FullTable {
  explicit FullTable(std::size_t n) {
    limits.pending_links = n;
    for (std::size_t i = 0; i < n; ++i) admit();
  }
  void admit() {
    ++last;
    table.admit(last, "address " + std::to_string(last), now);
  }

  ss::Limits limits;
  ss::detail::LinkTable table{limits};
  const ss::TimePoint now{};
  std::uint64_t last = 0;
};

const GrowthCase newcomers{"newcomers where n links are pending, one gives way to each", Growth::logarithmic,
                           256, [](std::size_t n) {
                             auto full = std::make_shared<FullTable>(n);
                             return [full] {
                               for (int i = 0; i < 16; ++i) full->admit();
                             };
                           }};

const GrowthCase proofs{"a proof of one of n pending links", Growth::logarithmic, 256, [](std::size_t n) {
                          auto full = std::make_shared<FullTable>(n);
                          return [full, n] { full->table.authenticated(full->last - n / 2); };
                        }};

}  // namespace
