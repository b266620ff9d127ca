// What peers without a proof of the password can do to a server: nothing that others notice.
#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "hostile/attacker.hpp"
#include "hostile/target.hpp"
#include "support/catch.hpp"

namespace hostile::strangers_test {
namespace {

/// What one connection costs a server before it has proved itself: OpenSSL's state, most of it.
constexpr double stranger_bytes = 96 * kibibyte;
/// What the server may take besides, whatever comes: its allocator's rounding, queues of the moment.
constexpr double slack_bytes = 4 * mebibyte;

TargetOptions with_short_times() {
  TargetOptions options;
  options.limits.authentication_time = 1s;
  return options;
}

/// `count` sockets, or fewer where the machine does not let us open so many.
std::size_t as_many_as_allowed(std::size_t count) {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  constexpr rlim_t others = 200;
  return limit.rlim_max == RLIM_INFINITY ? count : std::min<std::size_t>(count, limit.rlim_max - others);
}

TEST_CASE("hostile: who connects and says nothing is closed once the time to authenticate is over") {
  Target target(with_short_times());
  target.remember_memory();
  std::vector<NativeSocket> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(connect_from("127.0.0.2", target.endpoint()));
  target.check_still_serves();
  target.check_lets_in();
  for (const NativeSocket& socket : silent) REQUIRE(waits_for_close(socket));
  target.check_files_are_closed();
  target.check_memory("100 silent connections", 100 * stranger_bytes + slack_bytes);
}

TEST_CASE("hostile: who shakes hands and says nothing is told that it was silent for too long") {
  Target target(with_short_times());
  target.remember_memory();
  std::vector<std::unique_ptr<Attacker>> silent;
  for (int i = 0; i < 50; ++i) {
    silent.push_back(std::make_unique<Attacker>("127.0.0.2", target.endpoint()));
    REQUIRE(silent.back()->shake_hands());
  }
  target.check_still_serves();
  target.check_lets_in();
  for (const auto& attacker : silent) REQUIRE(attacker->goodbye() == ss::StateErrc::peer_silent);
  silent.clear();
  target.check_files_are_closed();
  target.check_memory("50 silent TLS clients", 50 * stranger_bytes + slack_bytes);
}

TEST_CASE("hostile: a byte now and then buys no time") {
  Target target(with_short_times());
  SECTION("within the TLS handshake") {
    Attacker slow("127.0.0.2", target.endpoint());
    slow.peer().think();
    // The server's end of the connection is what is waited for; the limit sets the pace of the bytes.
    bool is_sent = true;
    while (is_sent && !slow.is_closed()) {
      is_sent = slow.peer().flush(1);
      pollfd ready{slow.peer().handle(), POLLIN, 0};
      ::poll(&ready, 1, 20);
    }
    CHECK(slow.is_closed());
    CHECK(slow.peer().unsent_bytes() > 0);  // it had more to say
  }
  SECTION("within the first frame") {
    Attacker slow("127.0.0.2", target.endpoint());
    REQUIRE(slow.shake_hands());
    protocol::Hello hello;
    hello.proof = slow.proof();
    ss::Bytes bytes;
    protocol::append_frame(bytes, hello);
    std::size_t sent = 0;
    while (sent < bytes.size() && slow.peer().received.empty() && !slow.is_closed()) {
      slow.send_bytes(ss::ByteView(bytes).subspan(sent++, 1));
      pollfd ready{slow.peer().handle(), POLLIN, 0};
      ::poll(&ready, 1, 100);
      slow.peer().take();
    }
    CHECK(sent < bytes.size());
    CHECK(slow.goodbye() == ss::StateErrc::peer_silent);
  }
  target.check_still_serves();
  target.check_files_are_closed();
}

TEST_CASE("hostile: a stranger's frame of any large length is refused by its length") {
  Target target;
  target.remember_memory();
  const auto goodbye_after = [&](std::initializer_list<int> bytes) {
    Attacker attacker("127.0.0.2", target.endpoint());
    REQUIRE(attacker.shake_hands());
    attacker.send_bytes(bytes);
    return attacker.goodbye();
  };
  CHECK(goodbye_after({0x81, 0x08}) == ss::StateErrc::too_large);                    // 1,025
  CHECK(goodbye_after({0xff, 0xff, 0xff, 0xff, 0x0f}) == ss::StateErrc::too_large);  // 2^32-1
  CHECK(goodbye_after({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}) ==
        ss::StateErrc::too_large);  // 2^63
  target.check_still_serves();
  target.check_files_are_closed();
  target.check_memory("lengths without bytes", slack_bytes);
}

TEST_CASE("hostile: a flood of connections holds as many places as are granted to strangers, and no more") {
  const bool is_from_one = GENERATE(true, false);
  TargetOptions options;
  options.limits.authentication_time = 3s;
  Target target(options);
  target.remember_memory();
  const std::size_t count = as_many_as_allowed(3'000);
  std::vector<NativeSocket> flood;
  std::size_t most_files = 0;
  for (std::size_t i = 0; i < count; ++i) {
    flood.push_back(connect_from(is_from_one ? "127.0.0.2" : address_number(i), target.endpoint()));
    if (i % 250 != 249) continue;
    target.check_still_serves();
    most_files = std::max(most_files, target.more_files());
  }
  target.check_lets_in();
  // Some are accepted and already given up in the same moment, and a newcomer of ours is among them.
  constexpr std::size_t in_transit = 40;
  CHECK(most_files <= options.limits.pending_links + in_transit);
  for (const NativeSocket& socket : flood) REQUIRE(waits_for_close(socket));
  target.check_files_are_closed();
  target.check_memory(
      is_from_one ? "a flood of connections from one address" : "a flood of connections from many",
      static_cast<double>(options.limits.pending_links + in_transit) * stranger_bytes + slack_bytes);
}

TEST_CASE("hostile: an address has as many links as an address is granted, other addresses have theirs") {
  TargetOptions options;
  options.limits.links_per_address = 40;
  Target target(options);
  target.remember_memory();
  std::vector<std::unique_ptr<Attacker>> links;
  for (std::size_t i = 0; i < options.limits.links_per_address; ++i) {
    links.push_back(std::make_unique<Attacker>("127.0.0.2", target.endpoint()));
    REQUIRE(links.back()->log_in());
  }
  for (int i = 0; i < 20; ++i) {
    Attacker beyond("127.0.0.2", target.endpoint());
    CHECK_FALSE(beyond.shake_hands());
  }
  Attacker other("127.0.0.3", target.endpoint());
  CHECK(other.log_in());
  target.check_still_serves();
  target.check_lets_in();
  for (const auto& link : links) CHECK_FALSE(link->is_closed());
  target.check_memory("40 links of one address", 41 * stranger_bytes + slack_bytes);
}

TEST_CASE("hostile: who guesses passwords is soon not heard any more, and nobody else suffers from it") {
  Target target;
  target.remember_memory();
  const std::size_t guesses = ss::Limits().failed_proofs_per_minute;
  const auto say_hello = [&](const std::string& from, std::string_view word) -> std::optional<ss::StateErrc> {
    Attacker attacker(from, target.endpoint());
    if (attacker.log_in(word)) return std::nullopt;
    return attacker.goodbye();
  };
  SECTION("one after the other") {
    for (std::size_t i = 0; i < guesses; ++i) {
      CHECK(say_hello("127.0.0.2", "guess " + std::to_string(i)) == ss::StateErrc::unauthorized);
    }
    for (int i = 0; i < 5; ++i) CHECK(say_hello("127.0.0.2", "another guess") == ss::StateErrc::busy);
  }
  SECTION("on links that were opened side by side") {
    std::vector<std::unique_ptr<Attacker>> links;
    for (std::size_t i = 0; i < 3 * guesses; ++i) {
      links.push_back(std::make_unique<Attacker>("127.0.0.2", target.endpoint()));
      REQUIRE(links.back()->shake_hands());
    }
    for (std::size_t i = 0; i < links.size(); ++i) {
      CHECK_FALSE(links[i]->log_in("guess"));
      CHECK(links[i]->goodbye() == (i < guesses ? ss::StateErrc::unauthorized : ss::StateErrc::busy));
    }
  }
  // The right password is not looked at either, or guessing on would pay.
  CHECK(say_hello("127.0.0.2", password) == ss::StateErrc::busy);
  CHECK_FALSE(say_hello("127.0.0.3", password));
  target.check_still_serves();
  target.check_lets_in();
  target.check_files_are_closed();
  target.check_memory("password guessing", 3 * static_cast<double>(guesses) * stranger_bytes + slack_bytes);
}

/// A whole session of an honest peer: one event, answered.
std::unique_ptr<Attacker> recorded_session(const Target& target) {
  auto client = std::make_unique<Attacker>("127.0.0.2", target.endpoint());
  client->keeps_plain = true;
  client->peer().keeps_sent = true;
  REQUIRE(client->log_in());
  client->send(open_frame(1, target.home_hash()));
  client->send(protocol::GetSender{1, 0});
  REQUIRE(client->wait_for<protocol::SenderMessage>());
  protocol::EventType type;
  type.channel = 1;
  type.type = ss::type_name<Set>();
  client->send(type);
  const ss::Bytes content = Event{{"b", "recorded"}}.serialize();
  protocol::EventMessage event;
  event.channel = 1;
  event.number = 1;
  event.bytes = content;
  client->send(event);
  REQUIRE(client->wait_for<protocol::Answer>());
  return client;
}

TEST_CASE("hostile: a recorded session is worth nothing on another connection") {
  Target target;
  const auto recorded = recorded_session(target);
  target.check_still_serves();
  CHECK(target.replica().view().at("b") == "recorded");
  const ss::UpdateId before = target.replica().update_id();
  SECTION("replayed record by record, as it was on the wire") {
    const NativeSocket again = connect_from("127.0.0.3", target.endpoint());
    send_raw(again, recorded->peer().all_sent);
    CHECK(waits_for_close(again));  // its Finished belongs to another handshake
  }
  SECTION("what it said, said again inside another TLS session") {
    Attacker again("127.0.0.3", target.endpoint());
    REQUIRE(again.shake_hands());
    again.send_bytes(recorded->plain_sent);
    CHECK(again.goodbye() == ss::StateErrc::unauthorized);
  }
  SECTION("the proof of a channel, shown on another while that is open") {
    Attacker other("127.0.0.3", target.endpoint());
    REQUIRE(other.shake_hands());
    protocol::Hello hello;
    hello.proof = recorded->proof();
    other.send(hello);
    CHECK(other.goodbye() == ss::StateErrc::unauthorized);
  }
  CHECK_FALSE(recorded->is_closed());
  target.check_still_serves();
  CHECK(target.replica().update_id() == before + 1);  // by the honest client: nothing else was run
}

TEST_CASE("hostile: TLS 1.2 is refused by a running server") {
  Target target;
  const auto context = harness::RawPeer::make_context(false);
  REQUIRE(SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION) == 1);
  Attacker old("127.0.0.2", target.endpoint(), context);
  CHECK_FALSE(old.shake_hands());
  CHECK(old.peer().is_at_end);
  target.check_still_serves();
  target.check_files_are_closed();
}

TEST_CASE("hostile: random bytes of a stranger end its connection, and nothing else") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto random_bytes = [&](std::size_t most) {
    std::string bytes(std::uniform_int_distribution<std::size_t>(1, most)(random), '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    return bytes;
  };
  Target target;
  target.remember_memory();
  for (int i = 0; i < 100; ++i) {
    const NativeSocket socket = connect_from("127.0.0.2", target.endpoint());
    std::string bytes = random_bytes(4'000);
    // Half of them begin like a handshake record, of any length, so that OpenSSL reads on.
    if (i % 2 == 0) bytes.insert(0, "\x16\x03\x01");
    send_raw(socket, bytes);
    ::shutdown(socket.get(), SHUT_WR);
    REQUIRE(waits_for_close(socket));
  }
  target.check_still_serves();
  for (int i = 0; i < 50; ++i) {
    Attacker attacker("127.0.0.2", target.endpoint());
    REQUIRE(attacker.shake_hands());
    std::string bytes = random_bytes(2'000);
    if (i % 2 == 0) bytes.insert(0, "\x29\x01SYNC\x01\x01");  // a hello whose proof is random
    attacker.send_bytes(ss::as_byte_view(bytes));
    attacker.end_sending();
    REQUIRE(attacker.waits_for_close());
  }
  target.check_still_serves();
  target.check_files_are_closed();
  target.check_memory("random bytes", 10 * stranger_bytes + slack_bytes);
}

TEST_CASE("hostile: a stranger that floods the server with key updates is closed at once") {
  TargetOptions options;
  options.limits.authentication_time = 10 * patience;  // so that nothing else closes it
  Target target(options);
  target.remember_memory();
  Attacker attacker("127.0.0.2", target.endpoint());
  REQUIRE(attacker.shake_hands());
  attacker.reads = false;
  for (int i = 0; i < 500; ++i) {  // each asks for an answer
    SSL_key_update(attacker.peer().ssl(), SSL_KEY_UPDATE_REQUESTED);
    SSL_do_handshake(attacker.peer().ssl());
  }
  attacker.flush();
  attacker.reads = true;
  CHECK(attacker.waits_for_close());
  target.check_still_serves();
  target.check_files_are_closed();
  target.check_memory("a flood of key updates", stranger_bytes + slack_bytes);
}

TEST_CASE("hostile: a server out of file descriptors serves those it has, and comes back") {
  TargetOptions options;
  options.open_files = 60;
  options.limits.authentication_time = 2s;
  Target target(options);
  std::vector<NativeSocket> crowd;
  for (int i = 0; i < 150; ++i) {
    crowd.push_back(connect_from(address_number(static_cast<std::size_t>(i)), target.endpoint()));
    if (i % 30 == 0) target.check_still_serves();
  }
  // It has all it may have: the others wait in the kernel until there is room.
  const auto until = std::chrono::steady_clock::now() + patience;
  while (target.more_files() + 5 < options.open_files && std::chrono::steady_clock::now() < until) {
    target.check_still_serves();
  }
  CHECK(target.more_files() + 5 >= options.open_files);
  CHECK(target.more_files() <= options.open_files);
  target.check_still_serves();
  SECTION("when the crowd is closed for its silence") {
    for (const NativeSocket& socket : crowd) REQUIRE(waits_for_close(socket));
  }
  SECTION("when the crowd leaves") { crowd.clear(); }
  target.check_lets_in();
  target.check_still_serves();
  target.check_files_are_closed();
}

}  // namespace
}  // namespace hostile::strangers_test
