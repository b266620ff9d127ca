// Whose a sender is: an id is of use to the identity that it was given to, and to no other.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"
#include "support/raw_peer.hpp"

namespace syncstate::testing::sender_identity_test {
namespace {

/// Says of a link's peer that it has a certificate.
class Certified final : public LinkOwner {
 public:
  Certified(std::shared_ptr<LinkOwner> owner, std::string subject)
      : owner_(std::move(owner)), subject_(std::move(subject)) {}

  void on_open(const LinkInfo& info) override {
    LinkInfo certified = info;
    certified.peer.certificate_subject = subject_;
    owner_->on_open(certified);
  }
  void on_bytes(ByteView bytes) override { owner_->on_bytes(bytes); }
  void produce(Bytes& out) override { owner_->produce(out); }
  void on_closed(std::error_code reason, const std::string& detail) override {
    owner_->on_closed(reason, detail);
  }

 private:
  std::shared_ptr<LinkOwner> owner_;
  std::string subject_;
};

/// A server that takes the clients of some addresses for the subjects of certificates.
struct CertifiedWorld {
  explicit CertifiedWorld(Limits limits = {}) {
    ServerCoreOptions options;
    options.passwords = {password};
    options.limits = limits;
    options.on_error = [this](std::exception_ptr error) {
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& reported) {
        errors.emplace_back(reported.what());
      }
    };
    core = ServerCore<std::string, std::string, Command>::create(std::move(options), time.make_pool());
    core->add_hook([this](Map& map, const Change& event) {
      runs.push_back(event.content.value);
      if (event.content.value == "fail") throw std::runtime_error("the hook fails");
      map.set(event.content.key, event.content.value);
    });
    const std::shared_ptr<Executor> executor = time.make_executor();
    const auto lane = core->add_lane(executor);
    hash = core->host(make_master(2)).hash();
    core->start();
    port->listen(executor, [this, lane](std::shared_ptr<inproc::WireEnd> end, const std::string& address) {
      return std::make_shared<Certified>(core->accept(lane, address, [&end] { return std::move(end); }),
                                         subjects[address]);
    });
  }
  CertifiedWorld(const CertifiedWorld&) = delete;
  CertifiedWorld& operator=(const CertifiedWorld&) = delete;
  ~CertifiedWorld() {
    port->close();
    core->stop();
    time.run_ready();
  }

  inproc::VirtualTime time;
  std::shared_ptr<inproc::Port> port = std::make_shared<inproc::Port>();
  std::map<std::string, std::string> subjects;  ///< by address; none: no certificate
  std::shared_ptr<ServerCore<std::string, std::string, Command>> core;
  MapHash hash;
  std::vector<std::string> runs;
  std::vector<std::string> errors;  ///< what the server reported
};

/// A client that has a sender on channel 1.
struct Client {
  Client(CertifiedWorld& w, const std::string& address, std::uint64_t known = 0)
      : world(w), peer(connect_raw(w.time, *w.port, password, address)) {
    peer->send(open_of(world.hash));
    peer->send(protocol::GetSender{1, known});
    peer->send(protocol::EventType{1, type_name<Command>()});
    world.time.run_ready();
    sender = peer->find<protocol::SenderMessage>().value().sender;
  }
  /// The update id that the event is answered with, or 0 for an error.
  UpdateId send(std::uint64_t number, const std::string& value) {
    const Bytes bytes = set_key("key00", value).serialize();
    protocol::EventMessage event;
    event.channel = 1;
    event.number = number;
    event.bytes = bytes;
    peer->forget();
    peer->send(event);
    world.time.run_ready();
    const auto answer = peer->find<protocol::Answer>();
    return answer ? answer->update_id : 0;
  }
  void leave() {
    peer->abort();
    world.time.run_ready();
  }

  CertifiedWorld& world;
  std::shared_ptr<RawPeer> peer;
  std::uint64_t sender = 0;
};

}  // namespace

TEST_CASE("a sender whose id another identity knows is not given to it") {
  CertifiedWorld world;
  world.subjects = {{"192.0.2.1", "CN=alice"}, {"192.0.2.2", "CN=bob"}, {"198.51.100.1", "CN=alice"}};
  Client alice(world, "192.0.2.1");
  CHECK(alice.send(1, "a") == 1);
  const bool is_away = GENERATE(false, true);
  INFO((is_away ? "while it is away" : "while it is there"));
  if (is_away) alice.leave();
  for (const char* address : {"192.0.2.2", "192.0.2.3"}) {
    Client other(world, address, alice.sender);
    CHECK(other.sender != alice.sender);
    CHECK(other.send(1'000'000, address) != 0);  // jumps its own number only
  }
  Client back(world, "198.51.100.1", alice.sender);
  CHECK(back.sender == alice.sender);
  CHECK(back.send(1, "a") == 1);  // the old answer
  CHECK(back.send(2, "b") == 4);
  CHECK(world.runs == std::vector<std::string>{"a", "192.0.2.2", "192.0.2.3", "b"});
}

TEST_CASE("a client that asks for many senders takes the room of no other identity and no other address") {
  Limits limits;
  limits.senders_per_map = 50;
  CertifiedWorld world(limits);
  const bool have_certificates = GENERATE(false, true);
  if (have_certificates) world.subjects = {{"192.0.2.1", "CN=alice"}, {"192.0.2.2", "CN=mallory"}};
  std::vector<std::uint64_t> honest;
  for (int i = 0; i < 20; ++i) {
    Client client(world, "192.0.2.1");
    CHECK(client.send(1, "a") != 0);
    honest.push_back(client.sender);
    client.leave();
  }
  for (int i = 0; i < 200; ++i) Client(world, "192.0.2.2").leave();
  for (std::size_t i = 0; i < honest.size(); ++i) {
    Client back(world, "192.0.2.1", honest[i]);
    CHECK(back.sender == honest[i]);
    CHECK(back.send(1, "a") == i + 1);
    back.leave();
  }
}

TEST_CASE("a link has one sender for a map at a time, and one of its making is remembered") {
  CertifiedWorld world;
  Client client(world, "192.0.2.1");
  protocol::ChannelId channel = 1;
  const auto ask_on_next_channel = [&](std::uint64_t known) {
    client.peer->forget();
    client.peer->send(open_of(world.hash, ++channel));
    client.peer->send(protocol::GetSender{channel, known});
    world.time.run_ready();
  };
  const auto sender_of_next_channel = [&](std::uint64_t known) {
    client.peer->send(protocol::CloseChannel{channel});
    ask_on_next_channel(known);
    return client.peer->find<protocol::SenderMessage>().value().sender;
  };
  const std::uint64_t first = client.sender;
  const std::uint64_t second = sender_of_next_channel(0);
  CHECK(second != first);
  CHECK(sender_of_next_channel(second) == second);
  const std::uint64_t third = sender_of_next_channel(first);  // which was forgotten for the second
  CHECK(third != first);
  CHECK(sender_of_next_channel(third) == third);
  // The channel is open still.
  ask_on_next_channel(0);
  CHECK_FALSE(client.peer->find<protocol::SenderMessage>());
  CHECK(client.peer->goodbye() == StateErrc::protocol_error);
}

TEST_CASE("no text that a server reports or sends names the id of a sender") {
  CertifiedWorld world;
  std::string texts;
  std::vector<std::uint64_t> ids;
  const auto misbehave = [&](auto how) {
    Client client(world, "192.0.2.1");
    ids.push_back(client.sender);
    client.peer->forget();
    how(*client.peer);
    world.time.run_ready();
    for (const RawPeer::Received& frame : client.peer->received()) {
      for (const std::byte byte : frame.body) texts += static_cast<char>(byte);
    }
    client.leave();
  };
  const auto event_of = [](std::uint64_t number, const Bytes& bytes) {
    protocol::EventMessage event;
    event.channel = 1;
    event.number = number;
    event.bytes = bytes;
    return event;
  };
  const Bytes failing = set_key("key00", "fail").serialize();
  const Bytes broken(3, std::byte{0xFF});
  misbehave([&](RawPeer& peer) { peer.send(event_of(1, failing)); });
  misbehave([&](RawPeer& peer) { peer.send(event_of(1, broken)); });
  misbehave([&](RawPeer& peer) { peer.send(event_of(0, failing)); });
  misbehave([&](RawPeer& peer) {
    peer.send(event_of(7, failing));
    peer.send(event_of(6, failing));
  });
  misbehave([&](RawPeer& peer) { peer.send(protocol::GetSender{1, ids.back()}); });
  misbehave([&](RawPeer& peer) { peer.send(protocol::GetSender{2, ids.back()}); });
  misbehave([&](RawPeer& peer) { peer.send(protocol::SenderMessage{1, ids.back()}); });

  CHECK(world.errors.size() >= 2);  // else this looks at nothing
  for (const std::string& error : world.errors) texts += error + "\n";
  for (const std::uint64_t id : ids) {
    std::ostringstream hex;
    hex << std::hex << id;
    CHECK(texts.find(std::to_string(id)) == std::string::npos);
    CHECK(texts.find(hex.str()) == std::string::npos);
  }
}

}  // namespace syncstate::testing::sender_identity_test
