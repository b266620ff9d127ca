// Hostile servers over real TLS: a remote ends when it is told to, takes bounded memory, and others go on.
#include <malloc.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hostile/evil_server.hpp"
#include "support/catch.hpp"
#include "support/child_process.hpp"
#include "support/process_memory.hpp"
#include "support/sanitized.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/test_data.hpp"

namespace servers_test {

namespace {

using namespace std::chrono_literals;
namespace ss = syncstate;
namespace protocol = syncstate::protocol;
using hostile::EvilLink;
using hostile::EvilServer;
using Map = ss::StateMap<std::string, std::string>;
using Event = ss::Event<std::string>;
using Server = ss::tcp::TcpStateServer<std::string, std::string, std::string>;
using Remote = ss::tcp::TcpStateRemote;

constexpr auto patience = 30s;  // a limit, not a pause
constexpr std::size_t keys = 64;
const std::string password = "a password";

std::shared_ptr<Remote> connect(const std::string& endpoint, ss::Limits limits = {}) {
  return std::make_shared<Remote>(ss::tcp::RemoteOptions{
      .endpoint = endpoint,
      .tls = ss::tcp::ClientTls::from_pem(std::string(ss::tcp::test_data::certificate_pem)),
      .password = password,
      .event_timeout = 500ms,
      .request_timeout = 500ms,
      .limits = limits});
}

Map make_map(const std::shared_ptr<Remote>& remote) {
  Map map(remote);
  for (std::size_t i = 0; i < keys; ++i) map.push("key" + std::to_string(i), "-");
  return map;
}

/// Opens what the client opens, until a map is followed; returns the stream.
protocol::ChannelId open_all(EvilLink& link) {
  link.welcome(password);
  for (;;) {
    const auto open = link.await<protocol::Open>();
    link.send(protocol::Opened{open.channel, {7, 0}});
    if (open.mode != protocol::FollowMode::none) return open.channel;
  }
}

ss::Bytes many(const ss::Bytes& frame) {
  ss::Bytes all;
  while (all.size() < 64 * 1'024) all.insert(all.end(), frame.begin(), frame.end());
  return all;
}

template <class Message>
ss::Bytes frame_of(const Message& message) {
  ss::Bytes frame;
  protocol::append_frame(frame, message);
  return frame;
}

struct Evil {
  const char* what;
  EvilServer::Script script;
};

/// What a server may send without an end, and what it may send once to be waited for.
std::vector<Evil> evils() {
  const auto without_end = [](EvilLink& link, const ss::Bytes& bytes) {
    while (link.send_bytes(bytes)) {
    }
  };
  return {
      {"answers to all events there are",
       [=](EvilLink& link) {
         open_all(link);
         const auto ask = link.await<protocol::GetSender>();
         link.send(protocol::SenderMessage{ask.channel, 99});
         const auto event = link.await<protocol::EventMessage>();
         without_end(link, frame_of(protocol::Answer{event.channel, 1, 1, ~std::uint64_t{0} - 2}));
       }},
      {"empty transfers",
       [=](EvilLink& link) {
         protocol::Transfer transfer;
         transfer.stream = open_all(link);
         without_end(link, many(frame_of(transfer)));
       }},
      {"heartbeats that name a stream again and again",
       [=](EvilLink& link) {
         const auto stream = open_all(link);
         ss::Bytes body;
         ss::ByteWriter out(body);
         out.put_u8(static_cast<std::uint8_t>(protocol::FrameKind::heartbeat));
         for (int i = 0; i < 300'000; ++i) protocol::HeartbeatEntry{stream, 0}.encode(out);
         ss::Bytes frame;
         ss::ByteWriter(frame).put_sized(body);
         without_end(link, frame);
       }},
      {"full diffs of ever new masters",
       [=](EvilLink& link) {
         protocol::DiffMessage diff;
         diff.stream = open_all(link);
         diff.is_full = true;
         for (diff.epoch = 100; link.send(diff); ++*diff.epoch) {
         }
       }},
      {"lists without an end",
       [=](EvilLink& link) {
         open_all(link);
         const auto list = link.await<protocol::List>();
         without_end(link, many(frame_of(protocol::Hosted{list.channel, true, {}})));
       }},
      {"nothing but welcome",
       [](EvilLink& link) {
         link.welcome(password);
         for (;;) link.await<protocol::Goodbye>();
       }},
  };
}

/// A good server with a remote of its own, which must go on.
struct Honest {
  Honest() {
    server.add_hook([](Map& map, const Event& event) { map.set("key0", event.content); });
    server.start();
    remote = connect(server.endpoint());
    Map map = make_map(remote);
    map.freeze(patience);
    hash = map.hash();
  }
  void check() { CHECK(remote->send_event(hash, Event{"on"}).update_id == ++commits); }

  Server server{ss::tcp::ServerOptions{
      .endpoint = "127.0.0.1:0",
      .tls = ss::tcp::ServerTls::from_pem(std::string(ss::tcp::test_data::certificate_pem),
                                          std::string(ss::tcp::test_data::private_key_pem)),
      .password = password}};
  std::shared_ptr<Remote> remote;
  ss::MapHash hash;
  ss::UpdateId commits = 0;
};

}  // namespace

TEST_CASE("a remote ends whatever its server sends, and others go on", "[guarantee_10]") {
  std::signal(SIGPIPE, SIG_IGN);  // the evil server's writes
  Honest honest;
  for (const Evil& evil : evils()) {
    INFO(evil.what);
    const EvilServer server(evil.script);
    auto remote = connect(server.endpoint());
    auto map = std::make_unique<Map>(make_map(remote));
    try {
      map->freeze(500ms);
    } catch (const ss::StateError&) {
      // Whether this server lets it be opened does not matter.
    }
    auto replica = std::make_unique<ss::Replica<std::string, std::string>>(Map(*map), ss::ReplicaOptions{});
    CHECK_THROWS_AS(remote->send_event(map->hash(), Event{"x"}), ss::StateError);
    CHECK_THROWS_AS(remote->hosted(), ss::StateError);
    honest.check();
    // On another thread, so that a hang is a failure and not the end of the test.
    auto ended = std::async(std::launch::async, [&] {
      replica.reset();
      map.reset();
      remote.reset();
    });
    REQUIRE(ended.wait_for(patience) == std::future_status::ready);
    honest.check();
  }
}

TEST_CASE("a transfer without an end takes bounded memory", "[guarantee_10]") {
  std::signal(SIGPIPE, SIG_IGN);
  constexpr std::size_t mebibyte = std::size_t{1} << 20;
  ss::Limits limits;
  limits.staged_bytes = 64 * mebibyte;
  // The server is another process: what it takes itself is not the client's.
  const support::ChildProcess server([&](support::ChildDuty& duty) {
    const EvilServer evil([&](EvilLink& link) {
      const auto stream = open_all(link);
      const ss::Bytes part(512 * 1'024);
      for (std::uint64_t ordinal = 0; ordinal < keys; ++ordinal) {
        for (std::size_t offset = 0; offset < limits.value_bytes; offset += part.size()) {
          if (!link.send(protocol::ValuePart{stream, ordinal, limits.value_bytes, offset, part})) return;
        }
      }
    });
    duty.listens_at(evil.endpoint());
    duty.wait_for_end();
  });
  ::malloc_trim(0);  // what earlier tests left free would hide what this client takes
  const support::ProcessMemory memory;
  memory.forget_peak();
  const double before = memory.resident_bytes();
  std::promise<void> too_large;  // outlives the replica
  const auto remote = connect(server.endpoint(), limits);
  Map map = make_map(remote);
  map.freeze(patience);
  ss::Replica<std::string, std::string> replica(Map(map), ss::ReplicaOptions{});
  replica.on_status([&, is_told = false](const ss::LinkStatus& status) mutable {
    if (status.reason == ss::StateErrc::too_large && !std::exchange(is_told, true)) too_large.set_value();
  });
  CHECK(too_large.get_future().wait_for(patience) == std::future_status::ready);
  // What is staged, the one value that passes the limit, as it came and decoded, and OpenSSL, threads and frames.
  const double most = static_cast<double>(limits.staged_bytes + 2 * limits.value_bytes + 16 * mebibyte);
  const double taken = memory.peak_resident_bytes() - before;
  INFO("took " << taken / mebibyte << " MiB at the peak, " << most / mebibyte << " MiB are allowed");
  if (!support::is_sanitized) CHECK(taken < most);
  CHECK(replica.view().at("key0") == "-");
}

}  // namespace servers_test
