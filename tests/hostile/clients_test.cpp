// What clients that know the password can do to a server: use up what they are granted, and no more.
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <initializer_list>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hostile/attacker.hpp"
#include "hostile/target.hpp"
#include "support/catch.hpp"

namespace hostile::clients_test {
namespace {

/// What the server may take besides what is said, whatever comes: its allocator's rounding, queues of the moment.
constexpr double slack_bytes = 8 * mebibyte;

/// "I am still here", with no position.
constexpr std::initializer_list<int> heartbeat = {1, static_cast<int>(protocol::FrameKind::heartbeat)};

std::unique_ptr<Attacker> logged_in(const Target& target, const std::string& from = "127.0.0.2") {
  auto attacker = std::make_unique<Attacker>(from, target.endpoint());
  REQUIRE(attacker->log_in());
  return attacker;
}

void send_upload(Attacker& attacker, protocol::ChannelId channel, ss::ByteView bytes) {
  protocol::Upload upload;
  upload.channel = channel;
  upload.bytes = bytes;
  attacker.send(upload);
}

/// Brings a map to the server; false if that refuses it.
bool bring(Attacker& attacker, protocol::ChannelId channel, const InitialState& state) {
  attacker.send(open_frame(channel, state.map.hash()));
  if (!attacker.wait_for<protocol::UploadWanted>()) return false;
  send_upload(attacker, channel, state.bytes);
  attacker.send(protocol::UploadEnd{channel});
  return attacker.wait_for<protocol::Opened>().has_value();
}

/// Opens a map, gets a sender, and says what type events have, so that some can be sent.
void open_for_events(Attacker& attacker, protocol::ChannelId channel, const ss::MapHash& hash) {
  attacker.send(open_frame(channel, hash));
  attacker.send(protocol::GetSender{channel, 0});
  REQUIRE(attacker.wait_for<protocol::SenderMessage>());
  protocol::EventType type;
  type.channel = channel;
  type.type = ss::type_name<Set>();
  attacker.send(type);
}

TEST_CASE("hostile: a client's frame of any large length is refused by its length") {
  Target target;
  target.remember_memory();
  const auto goodbye_after = [&](std::initializer_list<int> bytes) {
    const auto attacker = logged_in(target);
    attacker->send_bytes(bytes);
    return attacker->goodbye();
  };
  CHECK(goodbye_after({0x81, 0x80, 0x40}) == ss::StateErrc::too_large);              // 1 MiB and 1
  CHECK(goodbye_after({0xff, 0xff, 0xff, 0xff, 0x0f}) == ss::StateErrc::too_large);  // 2^32-1
  CHECK(goodbye_after({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}) ==
        ss::StateErrc::too_large);  // 2^63
  // The same within frames: as the length of a type's name, and of a key in an initial state.
  CHECK(goodbye_after({7, static_cast<int>(protocol::FrameKind::event_type), 1, 0xff, 0xff, 0xff, 0xff,
                       0x0f}) == ss::StateErrc::decode_error);
  {
    const auto attacker = logged_in(target);
    attacker->send(open_frame(1, made_up_hash(1)));
    REQUIRE(attacker->wait_for<protocol::UploadWanted>());
    ss::Bytes key;
    ss::ByteWriter(key).put_varint(std::uint64_t{1} << 63);
    send_upload(*attacker, 1, key);
    const auto refused = attacker->wait_for<protocol::Refused>();
    REQUIRE(refused);
    CHECK(refused->reason == ss::StateErrc::too_large);
  }
  target.check_still_serves();
  target.check_files_are_closed();
  target.check_memory("a client's lengths without bytes", slack_bytes);
}

TEST_CASE(
    "hostile: an upload that does not go on, or does not end, makes way for who waits for the same map") {
  const bool goes_on = GENERATE(false, true);
  TargetOptions options;
  (goes_on ? options.limits.upload_time : options.limits.upload_silence) = 1s;
  Target target(options);
  target.remember_memory();
  const auto build = [](Map map) {
    for (int i = 100; i < 200; ++i) map.push(std::to_string(i), "initial");
    return map;
  };
  Map copy = build(Map(ss::Role::master));
  copy.freeze();
  const auto attacker = logged_in(target);
  attacker->send(open_frame(1, copy.hash()));
  REQUIRE(attacker->wait_for<protocol::UploadWanted>());

  auto waits = std::async(std::launch::async, [&] {
    Map map = build(Map(target.connect()));
    map.freeze(patience);
    return map.update_id();
  });
  // The attacker goes on saying that it is there, and in one case a little of the map each time.
  std::optional<protocol::Refused> refused;
  const auto until = std::chrono::steady_clock::now() + patience;
  for (std::uint32_t i = 0; !refused && std::chrono::steady_clock::now() < until; ++i) {
    attacker->send_bytes(heartbeat);
    if (goes_on) {
      ss::Bytes entry;
      ss::ByteWriter out(entry);
      out.put_sized("key " + std::to_string(1'000'000 + i));
      out.put_sized(std::string_view("value"));
      send_upload(*attacker, 1, entry);
    }
    pollfd ready{attacker->peer().handle(), POLLIN, 0};
    if (::poll(&ready, 1, 20) == 1) refused = attacker->wait_for<protocol::Refused>();
  }
  REQUIRE(refused);
  CHECK(refused->channel == 1);
  CHECK(refused->reason == ss::StateErrc::peer_silent);
  CHECK(waits.get() == 0);
  CHECK_FALSE(attacker->is_closed());  // it may do other things
  target.check_still_serves();
  target.check_memory(goes_on ? "an upload without end" : "an upload that stalls", slack_bytes);
}

TEST_CASE("hostile: an initial state of more keys or bytes than allowed is refused while it comes") {
  TargetOptions options;
  options.limits.keys_per_map = 10'000;
  options.limits.map_bytes = std::size_t{4} << 20;
  options.limits.all_map_bytes = std::size_t{10} << 20;
  Target target(options);
  target.remember_memory();
  const auto wanted = [&](Attacker& attacker, protocol::ChannelId channel) {
    attacker.send(open_frame(channel, made_up_hash(channel)));
    REQUIRE(attacker.wait_for<protocol::UploadWanted>());
  };
  /// The upload is refused; the link lives.
  const auto check_refused = [](Attacker& attacker) {
    const auto refused = attacker.wait_for<protocol::Refused>();
    REQUIRE(refused);
    CHECK(refused->reason == ss::StateErrc::too_large);
    CHECK_FALSE(attacker.is_closed());
  };
  SECTION("keys") {
    const auto attacker = logged_in(target);
    wanted(*attacker, 1);
    std::uint32_t keys = 0;
    for (; keys < 12'000; keys += 1'000) {
      ss::Bytes entries;
      ss::ByteWriter out(entries);
      for (std::uint32_t i = 0; i < 1'000; ++i) {
        out.put_sized(std::to_string(10'000'000 + keys + i));
        out.put_sized(std::string_view());
      }
      send_upload(*attacker, 1, entries);
    }
    check_refused(*attacker);
  }
  SECTION("bytes") {
    const auto attacker = logged_in(target);
    wanted(*attacker, 1);
    std::uint32_t number = 0;
    const std::string value(100'000, 'v');
    for (; number < 50; ++number) {
      ss::Bytes entry;
      ss::ByteWriter out(entry);
      out.put_sized(std::to_string(10'000'000 + number));
      out.put_sized(value);
      send_upload(*attacker, 1, entry);
    }
    check_refused(*attacker);
  }
  SECTION("bytes of one value that does not end") {
    const auto attacker = logged_in(target);
    wanted(*attacker, 1);
    ss::Bytes begin;
    ss::ByteWriter out(begin);
    out.put_sized(std::string_view("key"));
    out.put_varint(std::size_t{16} << 20);
    send_upload(*attacker, 1, begin);
    const ss::Bytes piece(100'000);
    for (int i = 0; i < 50; ++i) send_upload(*attacker, 1, piece);
    check_refused(*attacker);
  }
  SECTION("bytes of many maps together") {
    const auto attacker = logged_in(target);
    ss::Bytes entry;
    ss::ByteWriter out(entry);
    out.put_sized(std::string_view("key"));
    out.put_sized(std::string(1'000'000, 'v'));
    protocol::ChannelId channel = 1;
    std::optional<protocol::Refused> refused;
    const auto fill = [&] {
      const protocol::ChannelId first = channel;
      refused.reset();
      for (; !refused && channel < first + 50; channel += 2) {
        wanted(*attacker, channel);
        send_upload(*attacker, channel, ss::ByteView(entry).first(500'000));
        send_upload(*attacker, channel, ss::ByteView(entry).subspan(500'000));
        attacker->send(protocol::List{channel + 1});  // the answer comes after the refusal, if there is one
        while (const auto frame = attacker->next_frame()) {
          if (frame->kind == protocol::FrameKind::hosted) break;
          if (frame->kind != protocol::FrameKind::refused) continue;
          refused = protocol::decode_body<protocol::Refused>(frame->body);
          break;
        }
      }
      REQUIRE(refused);
      CHECK(refused->reason == ss::StateErrc::busy);
      // Four of them have room: each counts as the value it is and as the one it will be. The fifth needs three times
      // its size for a moment, when what came of it moves to a larger room.
      CHECK(channel == first + 2 * 5);
      CHECK_FALSE(attacker->is_closed());
    };
    fill();
    // What is given up gives its room back, over and over: all of it, or the next ones would have less.
    for (int round = 0; round < 3; ++round) {
      for (protocol::ChannelId open = channel - 2 * 5; open < channel; open += 2) {
        attacker->send(protocol::CloseChannel{open});
      }
      fill();
    }
  }
  target.check_still_serves();
  target.check_lets_in();
  target.check_memory("initial states beyond the limits",
                      static_cast<double>(options.limits.all_map_bytes) + slack_bytes);
}

TEST_CASE("hostile: a server hosts as many maps as it may, and refuses more of them as busy") {
  TargetOptions options;
  const bool is_default = GENERATE(false, true);
  if (!is_default) options.limits.maps = 20;
  Target target(options);
  target.remember_memory();
  // One has as many channels as there may be maps, so that it takes two to go beyond.
  const auto first = logged_in(target);
  const auto second = logged_in(target);
  const auto map_number = [](std::size_t i) { return initial_state({{"key", "map " + std::to_string(i)}}); };
  std::size_t count = 1;  // the honest client's
  for (; count < options.limits.maps; ++count) REQUIRE(bring(*first, count, map_number(count)));
  second->send(open_frame(1, map_number(count).map.hash()));
  const auto refused = second->wait_for<protocol::Refused>();
  REQUIRE(refused);
  CHECK(refused->reason == ss::StateErrc::busy);
  // What is hosted can be opened still.
  second->send(open_frame(2, map_number(1).map.hash()));
  CHECK(second->wait_for<protocol::Opened>());
  target.check_still_serves();
  target.check_lets_in();
  target.check_memory(is_default ? "as many small maps as a server hosts" : "20 small maps",
                      static_cast<double>(count) * 16 * kibibyte + slack_bytes);
}

TEST_CASE("hostile: hashes that nobody uploads hold no places for longer than an upload may be silent") {
  TargetOptions options;
  options.limits.maps = 20;
  options.limits.upload_silence = 1s;
  Target target(options);
  const auto attacker = logged_in(target);
  for (protocol::ChannelId channel = 1; channel < options.limits.maps; ++channel) {
    attacker->send(open_frame(channel, made_up_hash(channel)));
    REQUIRE(attacker->wait_for<protocol::UploadWanted>());
  }
  const auto honest = target.connect();
  Map map(honest);
  map.push("another", "map");
  CHECK_THROWS_AS(map.freeze(patience), ss::StateError);  // busy: as many maps as there may be
  const auto refused = attacker->wait_for<protocol::Refused>();
  REQUIRE(refused);
  CHECK(refused->reason == ss::StateErrc::peer_silent);
  CHECK_NOTHROW(map.freeze(patience));
  target.check_still_serves();
}

/// A frame with an event; `content` lives as long as it.
protocol::EventMessage event_frame(protocol::ChannelId channel, std::uint64_t number, ss::ByteView content) {
  protocol::EventMessage event;
  event.channel = channel;
  event.number = number;
  event.bytes = content;
  return event;
}

TEST_CASE("hostile: a flood of events ends its link as busy once as many wait as one may have in flight") {
  const bool is_large = GENERATE(false, true);
  TargetOptions options;
  options.limits.event_bytes_in_flight = std::size_t{4} << 20;
  Target target(options);
  const auto attacker = logged_in(target);
  const InitialState held = initial_state({{"held", "the hook waits"}});
  REQUIRE(bring(*attacker, 1, held));
  open_for_events(*attacker, 2, held.map.hash());
  target.remember_memory();
  const ss::Bytes content = Event{{"held", std::string(is_large ? 500'000 : 10, 'x')}}.serialize();
  std::uint64_t sent = 0;
  for (bool is_open = true; is_open && sent < 100'000;) {
    ss::Bytes frames;
    for (int i = 0; i < (is_large ? 1 : 100); ++i) {
      protocol::append_frame(frames, event_frame(2, ++sent, content));
    }
    is_open = attacker->send_bytes(frames) && !attacker->is_closed();
    if (sent % 1'000 == 0) target.check_still_serves();
  }
  CHECK(attacker->goodbye() == ss::StateErrc::busy);
  target.check_still_serves();
  target.check_lets_in();
  const double granted = static_cast<double>(is_large ? options.limits.event_bytes_in_flight
                                                      : options.limits.events_in_flight * 512);
  target.check_memory(is_large ? "a flood of large events" : "a flood of small events",
                      2 * granted + slack_bytes);
  target.let_go();
  // What waited is run or let go: the map can be used again.
  const auto later = logged_in(target);
  open_for_events(*later, 1, held.map.hash());
  later->send(event_frame(1, 1, content));
  CHECK(later->wait_for<protocol::Answer>());
}

TEST_CASE("hostile: a flood of events over ever new links is turned away event by event") {
  TargetOptions options;
  options.limits.event_bytes_in_flight = std::size_t{4} << 20;
  options.limits.all_event_bytes = std::size_t{12} << 20;
  Target target(options);
  const InitialState held = initial_state({{"held", "the hook waits"}});
  REQUIRE(bring(*logged_in(target), 1, held));
  target.remember_memory();
  // Each link sends less than it may, and leaves.
  const ss::Bytes content = Event{{"held", std::string(500'000, 'x')}}.serialize();
  for (int links = 1; links <= 10; ++links) {
    const auto attacker = logged_in(target);
    open_for_events(*attacker, 1, held.map.hash());
    for (std::uint64_t number = 1; number <= 8; ++number) {
      attacker->send(event_frame(1, number, content));
    }
    if (links > 3) {  // the room is taken by what the first three left behind
      const auto refused = attacker->wait_for<protocol::AnswerError>();
      REQUIRE(refused);
      CHECK(refused->reason == ss::StateErrc::busy);
    }
    attacker->send(protocol::List{2});  // the link goes on; and its answer says that the events have come
    CHECK(attacker->wait_for<protocol::Hosted>());
  }
  target.check_memory(
      "a flood of events over many links",
      static_cast<double>(options.limits.all_event_bytes + options.limits.event_bytes_in_flight) +
          slack_bytes);
  // There is room for as much again once they have run, and again: what waited was given back.
  target.let_go();
  const ss::Bytes again = Event{{"held", std::string(500'000, 'y')}}.serialize();
  const std::size_t enough = 2 * options.limits.all_event_bytes / again.size() + 1;
  const auto later = logged_in(target);
  open_for_events(*later, 1, held.map.hash());
  for (std::uint64_t number = 1; number <= enough; ++number) {
    later->send(event_frame(1, number, again));
    const auto frame = later->wait_for<protocol::Answer>();
    if (!frame) FAIL("number " << number << " of " << enough << " has no room");
  }
}

TEST_CASE(
    "hostile: a client that reads nothing costs nothing while updates go by, and is kept while it is heard") {
  Target target;
  ss::UpdateId last = target.replica().update_id() + updates;
  target.start_updates();  // the log of diffs, and what else is made once
  REQUIRE(target.replica().wait_for(last, patience));
  const auto deaf = logged_in(target);
  deaf->send(open_frame(1, target.home_hash(), protocol::FollowMode::merged));
  REQUIRE(deaf->wait_for<protocol::DiffMessage>());
  deaf->reads = false;
  target.remember_memory();
  target.start_updates();
  last += updates;
  std::size_t heartbeats = 0;
  while (!target.replica().wait_for(last, 20ms)) {
    REQUIRE(++heartbeats < 10'000);
    REQUIRE(deaf->send_bytes(heartbeat));
  }
  target.check_still_serves();
  target.check_memory("100,000 updates beside a client that does not read", mebibyte);

  // It still has its link, on which it finds its way to the head: what it slept through is one diff.
  deaf->reads = true;
  ss::UpdateId position = last - updates;
  std::size_t frames = 0;
  while (position < last) {
    const auto frame = deaf->next_frame();
    REQUIRE(frame);
    ++frames;
    if (frame->kind == protocol::FrameKind::step) ++position;
    if (frame->kind == protocol::FrameKind::diff) {
      position += protocol::decode_body<protocol::DiffMessage>(frame->body).advance;
    }
  }
  CHECK(frames < updates / 2);
  target.check_still_serves();
}

TEST_CASE("hostile: who asks and does not read is ended before the answers take much memory") {
  TargetOptions options;
  options.limits.maps = 300;
  Target target(options);
  const auto owner = logged_in(target, "127.0.0.3");
  for (std::size_t i = 1; i < options.limits.maps - 1; ++i) {
    REQUIRE(bring(*owner, i, initial_state({{"key", std::to_string(i)}})));
  }
  const InitialState large = initial_state({{"key", std::string(1'000'000, 'v')}});
  const protocol::ChannelId channel = options.limits.maps;
  owner->send(open_frame(channel, large.map.hash()));
  REQUIRE(owner->wait_for<protocol::UploadWanted>());
  for (ss::ByteView rest = large.bytes; !rest.empty();) {
    const ss::ByteView piece = rest.first(std::min<std::size_t>(rest.size(), 500'000));
    send_upload(*owner, channel, piece);
    rest = rest.subspan(piece.size());
  }
  owner->send(protocol::UploadEnd{channel});
  REQUIRE(owner->wait_for<protocol::Opened>());

  target.remember_memory();
  // All is sent before anything is read; the goodbye comes after what the kernel holds.
  const auto flood = [&](std::size_t count, auto ask) {
    const auto attacker = logged_in(target);
    attacker->reads = false;
    for (protocol::ChannelId request = 1; request <= count && !attacker->peer().is_at_end; ++request) {
      attacker->offer_frame(ask(request));
      if (request % 100 == 0) attacker->flush();
    }
    target.check_still_serves();
    attacker->reads = true;
    const auto reason = attacker->goodbye();
    // A goodbye that is not read within a second is lost; on a slow build that may happen.
    if (!is_sanitized || reason) CHECK(reason == ss::StateErrc::busy);
  };
  const std::size_t beyond = 2 * options.limits.requests_in_flight;
  SECTION("for the list of maps") {
    flood(beyond, [](protocol::ChannelId request) { return protocol::List{request}; });
  }
  SECTION("for an initial state") {
    flood(beyond, [&](protocol::ChannelId request) {
      protocol::Fetch fetch;
      fetch.request = request;
      fetch.hash = large.map.hash();
      fetch.key_type = fetch.value_type = ss::type_name<std::string>();
      return fetch;
    });
  }
  SECTION("for what is refused at once") {
    flood(20'000, [&](protocol::ChannelId request) {
      protocol::Fetch fetch;
      fetch.request = request;
      fetch.key_type = fetch.value_type = std::string(300, 'x');
      return fetch;
    });
  }
  target.check_still_serves();
  target.check_memory("answers that nobody reads", slack_bytes);
}

TEST_CASE("hostile: parts of events on many channels have the room of one event together") {
  Target target;
  target.remember_memory();
  const auto attacker = logged_in(target);
  constexpr protocol::ChannelId channels = 500;
  for (protocol::ChannelId channel = 1; channel <= channels; ++channel) {
    attacker->send(open_frame(channel, target.home_hash()));
    REQUIRE(attacker->wait_for<protocol::Opened>());
  }
  const ss::Bytes part(100'000);
  for (protocol::ChannelId channel = 1; channel <= channels && !attacker->is_closed(); ++channel) {
    protocol::EventPart message;
    message.channel = channel;
    message.bytes = part;
    attacker->send(message);
  }
  // Those that are too large are dropped as they come.
  CHECK_FALSE(attacker->is_closed());
  target.check_still_serves();
  target.check_files_are_closed();
  target.check_memory("parts of events on 500 channels", slack_bytes);
}

TEST_CASE("hostile: channels that are opened and closed without end leave nothing behind") {
  TargetOptions options;
  options.limits.senders_per_map = 1'000;
  Target target(options);
  const auto attacker = logged_in(target);
  protocol::ChannelId channel = 0;
  const auto churn = [&](int times) {
    for (int i = 0; i < times; ++i) {
      attacker->send(open_frame(++channel, target.home_hash(), protocol::FollowMode::merged));
      attacker->send(protocol::CloseChannel{channel});
      if (i % 100 == 99) {
        attacker->send(open_frame(++channel, target.home_hash()));
        REQUIRE(attacker->wait_for<protocol::Opened>());
        attacker->send(protocol::CloseChannel{channel});
      }
    }
  };
  churn(2'000);
  target.remember_memory();
  churn(10'000);
  target.check_still_serves();
  target.check_memory("10,000 channels opened and closed", mebibyte);
}

TEST_CASE("hostile: random bytes of a client in any state of its session end that, and nothing else") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto random_bytes = [&](std::size_t most) {
    ss::Bytes bytes(std::uniform_int_distribution<std::size_t>(1, most)(random));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    return bytes;
  };
  // A whole frame of a kind that clients send, whose body is random but for the channel it begins with.
  const auto random_frame = [&] {
    ss::Bytes frame;
    const std::size_t start = protocol::open_frame(frame);
    frame.push_back(static_cast<std::byte>(1 + random() % 28));
    frame.push_back(static_cast<std::byte>(random() % 3));
    const ss::Bytes rest = random_bytes(40);
    frame.insert(frame.end(), rest.begin(), rest.end());
    protocol::close_frame(frame, start);
    return frame;
  };
  Target target;
  target.remember_memory();
  const ss::UpdateId before = target.replica().update_id();
  for (int i = 0; i < 120; ++i) {
    const auto attacker = logged_in(target);
    switch (i % 3) {
      case 0: break;
      case 1:
        attacker->send(open_frame(1, target.home_hash(), protocol::FollowMode::merged));
        REQUIRE(attacker->wait_for<protocol::DiffMessage>());
        break;
      default:
        attacker->send(open_frame(1, made_up_hash(static_cast<std::size_t>(i))));
        REQUIRE(attacker->wait_for<protocol::UploadWanted>());
    }
    if (i % 2 == 0) {
      attacker->send_bytes(random_bytes(2'000));
    } else {
      for (int k = 0; k < 20 && attacker->send_bytes(random_frame()); ++k) {
      }
    }
    attacker->end_sending();
    REQUIRE(attacker->waits_for_close());
  }
  target.check_still_serves();
  CHECK(target.replica().update_id() == before + 1);
  target.check_files_are_closed();
  target.check_memory("random bytes of clients", slack_bytes);
}

TEST_CASE("hostile: a client that floods its server with key updates is closed at once, and may come again") {
  TargetOptions options;
  options.limits.silence = 10 * patience;  // so that nothing else closes it
  Target target(options);
  target.remember_memory();
  for (int i = 0; i < 5; ++i) {
    const auto attacker = logged_in(target);
    attacker->reads = i % 2 == 0;
    for (int k = 0; k < 500; ++k) {
      SSL_key_update(attacker->peer().ssl(), SSL_KEY_UPDATE_REQUESTED);
      SSL_do_handshake(attacker->peer().ssl());
    }
    attacker->flush();
    attacker->reads = true;
    CHECK(attacker->waits_for_close());
    target.check_still_serves();
  }
  target.check_files_are_closed();
  target.check_memory("a client's flood of key updates", slack_bytes);
}

}  // namespace
}  // namespace hostile::clients_test
