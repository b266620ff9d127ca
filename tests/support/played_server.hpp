// A remote in a world whose server is played by the test.
#ifndef SYNCSTATE_TESTS_SUPPORT_PLAYED_SERVER_HPP
#define SYNCSTATE_TESTS_SUPPORT_PLAYED_SERVER_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing {

/// A remote whose server is played by hand, connection by connection.
struct PlayedServer {
  explicit PlayedServer(RemoteCoreOptions options = {}) {
    world.server.reset();
    RawPeer::listen(world.time, *world.port,
                    [this](const std::shared_ptr<RawPeer>& peer) { peers.push_back(peer); });
    remote = world.connect(std::move(options));
    world.time.run_ready();
    REQUIRE(peers.size() == 1);
  }

  /// The server's end of the last connection.
  [[nodiscard]] RawPeer& last() const { return *peers.back(); }

  /// Lets the remote in.
  void welcome(const protocol::Welcome& limits = {}) {
    last().send_welcome(password, limits);
    world.time.run_ready();
    REQUIRE(remote->status().state == LinkState::live);
  }
  /// Ends the session, as a server does that has a reason.
  void end(StateErrc reason) {
    last().send(protocol::Goodbye{reason, "on purpose"});
    world.time.run_ready();
    last().abort();
    world.time.run_ready();
  }
  /// Waits until the remote connects again. Returns how long that took.
  Duration wait_for_next() {
    const std::size_t before = peers.size();
    const TimePoint start = world.time.now();
    REQUIRE(world.wait([&] { return peers.size() > before; }));
    world.time.run_ready();
    return world.time.now() - start;
  }

  /// A map that the remote asks for; it is not open yet.
  Map make_map(const std::string& initial = "-") {
    Map map(remote);
    push_keys(map, 4, initial);
    map.freeze(0ms);
    REQUIRE(error_of([&] { remote->init(map, 1ms); }) == StateErrc::unavailable);
    return map;
  }
  [[nodiscard]] std::size_t opens() const { return last().all<protocol::Open>().size(); }
  [[nodiscard]] protocol::ChannelId last_channel() const {
    return last().all<protocol::Open>().back().channel;
  }
  void open(protocol::ChannelId channel) {
    last().send(protocol::Opened{channel, {7, 0}});
    world.time.run_ready();
    give_senders();
  }
  void refuse(protocol::ChannelId channel, StateErrc reason) {
    last().send(protocol::Refused{channel, reason, "on purpose", {}});
    world.time.run_ready();
  }
  /// Lets as many seconds pass, with a server that is alive.
  void pass(std::chrono::seconds time) {
    for (; time > 0s; time -= 1s) {
      last().send_frame(4, {});
      world.time.advance(1s);
    }
  }

  /// Sends an event that sets a key.
  Sent send(const Map& map, const std::string& value = "x") {
    Sent sent = Sent::send(world, remote, map.hash(), set_key("key00", value));
    world.time.run_ready();
    give_senders();
    return sent;
  }
  /// Gives each channel of the last connection the sender that was asked for on it.
  void give_senders() {
    for (const auto& ask : last().all<protocol::GetSender>()) {
      if (given.emplace(peers.size(), ask.channel).second)
        last().send(protocol::SenderMessage{ask.channel, sender});
    }
    world.time.run_ready();
  }
  void answer(protocol::ChannelId channel, std::uint64_t number) {
    protocol::Answer answer;
    answer.channel = channel;
    answer.number = number;
    answer.update_id = number;
    last().send(answer);
    world.time.run_ready();
  }
  /// The numbers of the events that came over the last connection.
  [[nodiscard]] std::vector<std::uint64_t> numbers() const {
    std::vector<std::uint64_t> found;
    for (const auto& event : last().all<protocol::EventMessage>()) found.push_back(event.number);
    return found;
  }

  World world;
  std::vector<std::shared_ptr<RawPeer>> peers;  ///< the server's end of each connection
  std::set<std::pair<std::size_t, protocol::ChannelId>>
      given;                  ///< channels that have their sender, by connection
  std::uint64_t sender = 99;  ///< that channels are given
  std::shared_ptr<Remote> remote;
};

}  // namespace syncstate::testing

#endif
