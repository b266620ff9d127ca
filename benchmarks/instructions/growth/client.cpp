// Costs of a remote by the number of maps, followers and requests that it has besides.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "growth/growth.hpp"
#include "support/harness.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/wire/wire_entries.hpp"
#include "syncstate/inproc/virtual_executor.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/remote_core.hpp"
#include "syncstate/syncstate.hpp"

namespace {

using namespace benchmarks;
using namespace std::chrono_literals;
namespace ss = syncstate;
namespace wire = syncstate::protocol;
using ss::detail::EventCall;
using ss::detail::Operation;
using ss::detail::RemoteCore;
using Map = ss::StateMap<std::string, std::string>;

/// Takes everything at once, and keeps the frames that came.
class Wire final : public ss::Link, public ss::Connector {
 public:
  std::shared_ptr<ss::Link> connect(std::shared_ptr<ss::LinkOwner> owner) override {
    owner_ = std::move(owner);
    return std::shared_ptr<ss::Link>(std::shared_ptr<void>(), this);
  }
  void wake() override {}
  void close_gracefully() override {}
  void abort() override {}

  /// The server's welcome.
  void welcome() {
    owner_->on_open({{}, ss::Bytes(32)});
    wire::Welcome welcome;
    welcome.proof = wire::make_proof("secret", wire::ProofRole::server, ss::Bytes(32));
    send(welcome);
  }
  template <class Message>
  void send(const Message& message) {
    ss::Bytes frame;
    wire::append_frame(frame, message);
    owner_->on_bytes(frame);
  }
  /// Everything that the remote has to send goes.
  void take() {
    for (;;) {
      ss::Bytes out;
      owner_->produce(out);
      if (out.empty()) return;
    }
  }

 private:
  std::shared_ptr<ss::LinkOwner> owner_;
};

/// A remote with `maps` maps, each open on channel 1, 2, ...
struct Client {
  explicit Client(std::size_t maps) {
    core->start();
    time.run_ready();
    link->welcome();
    for (std::size_t i = 0; i < maps; ++i) {
      Map map(ss::Role::master);
      map.push("key", std::to_string(i));
      map.freeze();
      core->open(identify(map), Operation::create());
      kept.push_back(std::move(map));
      time.run_ready();
      link->send(wire::Opened{i + 1, {7, 0}});
    }
    link->take();
    last_id = maps;
    // What is done for the first time, and a tick.
    send_event();
    time.advance(250ms);
  }
  ~Client() {
    core->stop();
    time.run_ready();
  }

  static ss::detail::MapIdentity identify(const Map& map) {
    ss::detail::MapIdentity identity;
    identity.hash = map.hash();
    identity.key_type = identity.value_type = "string";
    identity.initial = [frozen = ss::detail::MapAccess::frozen(map)] {
      return std::make_shared<ss::detail::FrozenSource<std::string, std::string>>(frozen);
    };
    return identity;
  }

  /// An event of the first map, and its answer.
  void send_event() {
    const auto call = std::make_shared<EventCall>(ss::SerializedEvent{});
    core->send_event(kept.front().hash(), call);
    time.run_ready();
    link->take();
    if (number == 0) {  // the first one waits for its sender
      link->send(wire::SenderMessage{1, 99});
      link->take();
    }
    link->send(wire::Answer{1, ++number, number});
    require_finished(*call);
  }

  void ask_head(bool is_answered = true) {
    const auto done = Operation::create();
    core->fetch_head(identify(kept.front()), std::make_shared<ss::Position>(), done);
    time.run_ready();
    link->take();
    ++last_id;
    if (!is_answered) return waiting.push_back(done);
    link->send(wire::UpdateIdMessage{last_id, {7, 1}});
    require_finished(*done);
  }

  static void require_finished(const Operation& operation) {
    if (!operation.is_finished()) throw std::logic_error("what is counted was not done");
  }

  ss::inproc::VirtualTime time;
  std::shared_ptr<Wire> link = std::make_shared<Wire>();
  std::shared_ptr<RemoteCore> core =
      RemoteCore::create(time.make_executor(), link,
                         {.password = "secret", .limits = {.requests_in_flight = 100'000}, .seed = 1});
  std::vector<Map> kept;
  std::vector<std::shared_ptr<Operation>> waiting;
  std::uint64_t number = 0;
  wire::ChannelId last_id = 0;
};

GrowthCase::Prepare with_maps(void (*operation)(Client&)) {
  return [operation](std::size_t maps) {
    const auto client = std::make_shared<Client>(maps);
    return [client, operation] { operation(*client); };
  };
}

const GrowthCase event{"event and its answer, n maps on the remote", Growth::constant, 100,
                       with_maps([](Client& client) { client.send_event(); })};

const GrowthCase request{"request and its answer, n maps on the remote", Growth::constant, 100,
                         with_maps([](Client& client) { client.ask_head(); })};

const GrowthCase tick{"tick of a remote with n maps at rest", Growth::constant, 100,
                      with_maps([](Client& client) { client.time.advance(250ms); })};

const GrowthCase cancel{"operation given up, n maps on the remote", Growth::constant, 100,
                        with_maps([](Client& client) {
                          const auto done = Operation::create();
                          client.core->cancel(done, ss::make_error_code(ss::StateErrc::unavailable));
                          client.time.run_ready();
                        })};

const GrowthCase one_of_many{"request and its answer, n requests unanswered", Growth::constant, 100,
                             [](std::size_t n) {
                               const auto client = std::make_shared<Client>(1);
                               for (std::size_t i = 0; i < n; ++i) client->ask_head(false);
                               return [client] { client->ask_head(); };
                             }};

}  // namespace
