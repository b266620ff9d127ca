// Small cases whose instructions run.sh counts under callgrind. Prints a line for each: its name, and how many
// operations were counted.
//
// Every case runs `operations` once before it is counted, so that memory was allocated and functions were bound.
// Chance is no part of it: OpenSSL's random numbers, which hash seeds and epochs are made of, come from a counter.
#include "counted.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/harness.hpp"
#include "support/sample_map.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/remote/diff_assembler.hpp"
#include "syncstate/detail/server/hosted_map.hpp"
#include "syncstate/protocol/client_session.hpp"
#include "syncstate/protocol/server_session.hpp"
#include "syncstate/replica.hpp"
#include "syncstate/syncstate.hpp"

namespace {

using namespace benchmarks;
namespace ss = syncstate;
namespace wire = syncstate::protocol;
using Hosted = ss::detail::HostedMap<std::string, std::string>;
using Receiver = ss::detail::SinkReceiver<std::string, std::string>;

constexpr std::size_t size = 10'000;
constexpr std::size_t piece_bytes = ss::Limits{}.piece_bytes;

template <class F>
void count(const char* name, std::size_t operations, F f) {
  f();
  std::printf("%s %zu\n", name, operations);
  run_counted(f);
}

/// Numbers below `size` that look random and are the same everywhere, unlike those of `std::shuffle`.
std::size_t scattered(std::size_t i) { return i * 7'919 % size; }

std::vector<std::string> scattered_keys(std::size_t number) {
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < number; ++i) keys.push_back(sample_key(scattered(i)));
  return keys;
}

Map make_master() { return fill(Map(ss::Role::master), size); }

/// A remote that does nothing but tell whose sink it has.
struct SinkOnly {
  void init(const Map&) {}
  ss::Diff<std::string, std::string> fetch_updates(const Map& map, ss::UpdateId) {
    return {map, map.epoch(), map.update_id(), map.update_id()};
  }
  ss::Subscription follow(const Map&, std::shared_ptr<ss::DiffSink<std::string, std::string>> s) {
    sink = std::move(s);
    return ss::Subscription(std::make_shared<int>());
  }
  std::shared_ptr<ss::DiffSink<std::string, std::string>> sink;
};

/// A replica, and what a remote gives it encoded diffs by.
struct Follower {
  explicit Follower(const std::shared_ptr<SinkOnly>& remote = std::make_shared<SinkOnly>())
      : Follower(fill(Map(remote), size), remote) {}
  Follower(Map map, const std::shared_ptr<SinkOnly>& remote)
      : frozen(ss::detail::MapAccess::frozen(map)), replica(std::move(map)), receiver(frozen, remote->sink) {}

  std::shared_ptr<const ss::detail::FrozenState<std::string, std::string>> frozen;
  ss::Replica<std::string, std::string> replica;
  Receiver receiver;
};

void count_reads() {
  const Map map = make_master();
  const std::vector<std::string> keys = scattered_keys(1'000);
  std::vector<ss::Ordinal> ordinals;
  for (const std::string& key : keys) ordinals.push_back(map.key(key));

  count("get_by_key", keys.size(), [&] {
    for (const std::string& key : keys) keep(*map.get(key));
  });
  count("get_by_ordinal", keys.size(), [&] {
    for (const ss::Ordinal ordinal : ordinals) keep(map[ordinal]);
  });
  const Follower follower;
  count("view_get", keys.size(), [&] {
    for (const std::string& key : keys) keep(*follower.replica.view().get(key));
  });
}

void count_commits() {
  Map map = make_master();
  const std::vector<std::string> keys = scattered_keys(1'000);
  const std::string value = sample_value(7);
  for (std::size_t i = 0; i < 5'000; ++i) map.set(keys[i % keys.size()], value);  // the log is full

  count("commit_one_key", keys.size(), [&] {
    for (const std::string& key : keys) map.set(key, value);
  });
  count("commit_100_keys", keys.size() / 100, [&] {
    for (std::size_t i = 0; i < keys.size(); i += 100) {
      auto change = map.begin_modification();
      for (std::size_t k = 0; k < 100; ++k) change.set(keys[i + k], value);
      change.commit();
    }
  });
  const ss::UpdateId head = map.update_id();
  count("diff_of_1000_keys", 1, [&] { keep(map.diff(head - 10, head)); });
}

void count_encoding() {
  Hosted hosted(make_master(), ss::Limits{});
  const std::vector<std::string> keys = scattered_keys(1'000);
  const std::string value = sample_value(7);
  ss::Bytes bytes;
  const auto commit = [&](std::size_t first, std::size_t number) {
    return hosted.transact([&](Map& map) {
      for (std::size_t i = first; i < first + number; ++i) map.set(keys[i], value);
    });
  };
  commit(0, keys.size());

  count("transact_and_encode_a_step", 100, [&] {
    for (std::size_t i = 0; i < 100; ++i) {
      const ss::UpdateId head = commit(i, 1);
      bytes.clear();
      hosted.encode_merged(head - 1, piece_bytes, bytes);
    }
  });
  ss::UpdateId head = 0;
  count("transact_and_encode_1000_keys", 1, [&] {
    head = commit(0, keys.size());
    bytes.clear();
    hosted.encode_merged(head - 1, piece_bytes, bytes);
  });
  count("encode_a_transfer_of_1000_keys", 1, [&] {
    bytes.clear();
    wire::PassCursor cursor{.from = head - 1, .target = head};
    while (hosted.encode_pass(cursor, piece_bytes, bytes) == wire::PassPiece::entries) {
    }
  });

  Follower follower;
  ss::UpdateId at = 0;
  count("decode_and_show_1000_keys", 1, [&] {
    if (follower.receiver.close({.epoch = 1, .from = at, .upto = at + 1, .is_full = false}, bytes))
      throw std::runtime_error("a diff was refused");
    ++at;
  });
  count("decode_and_show_a_step", 1'000, [&] {
    for (std::size_t i = 0; i < 1'000; ++i, ++at) {
      if (follower.receiver.step({.epoch = 1, .from = at, .upto = at + 1, .is_full = false}, scattered(i),
                                 ss::as_byte_view(value)))
        throw std::runtime_error("a step was refused");
    }
  });
}

/// Both sessions of a connection and what their owners would do, without a link in between.
class Connection {
 public:
  Connection() : hosted_(std::make_shared<Hosted>(make_master(), limits_)) {
    const ss::Bytes binding(32, std::byte{7});
    server_.on_open(wire::keep_passwords({"secret"}), binding, false, now_);
    client_.on_open("secret", binding, now_);
    exchange();
    wire::Open open;
    open.hash = hosted_->hash();
    open.keys_hash = hosted_->keys_hash();
    open.key_type = open.value_type = "string";
    open.mode = wire::FollowMode::merged;
    channel_ = client_.open(open);
    client_.get_sender(channel_, 0);
    exchange();
  }

  /// An event goes to the server, changes a key, and comes back as a diff and an answer.
  void round_trip(const std::string& value) {
    const ss::ByteView bytes = ss::as_byte_view(value);
    auto event = std::make_shared<const ss::SerializedEvent>(
        ss::SerializedEvent{"string", ss::Bytes(bytes.begin(), bytes.end())});
    client_.send_event(channel_, ++sent_, std::move(event));
    exchange();
    if (answered_ != sent_ || follower_.replica.update_id() != sent_)
      throw std::runtime_error("a round trip did not come to its end");
  }

 private:
  void exchange() {
    while (client_.wants_to_send() || server_.wants_to_send()) {
      bytes_.clear();
      client_.produce(bytes_);
      server_.on_bytes(bytes_, now_, [this](const auto& action) { perform(action); });
      bytes_.clear();
      server_.produce(bytes_);
      client_.on_bytes(bytes_, now_, [this](const auto& action) { perform(action); });
    }
  }

  void perform(const wire::OpenAsked& a) {
    server_.opened(a.open.channel, hosted_);
    if (const auto early = server_.early_ask_of(a.open.channel)) perform(*early);
  }
  void perform(const wire::SenderAsked& a) { server_.give_sender(a.channel, 77); }
  void perform(const wire::EventCame& a) {
    const std::string value(ss::as_string_view(a.bytes));
    server_.answer(a.ticket, hosted_->transact([&](Map& map) { map.set(key_, value); }));
  }
  void perform(const wire::StepCame& a) {
    if (follower_.receiver.step({a.epoch, a.from, a.upto, false}, a.ordinal, a.value))
      throw std::runtime_error("a step was refused");
  }
  void perform(const wire::EventAnswered& a) { answered_ = a.number; }
  void perform(const wire::CloseSession& a) { throw std::runtime_error(a.detail); }
  template <class Other>
  void perform(const Other&) {}

  const ss::Limits limits_{};
  const ss::TimePoint now_ = ss::TimePoint{} + std::chrono::hours(1);
  const std::string key_ = sample_key(size / 2);
  std::shared_ptr<Hosted> hosted_;
  Follower follower_;
  wire::ServerSession server_{limits_, now_};
  wire::ClientSession client_{limits_, now_};
  wire::ChannelId channel_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t answered_ = 0;
  ss::Bytes bytes_;
};

void count_round_trips() {
  Connection connection;
  const std::string value = sample_value(7);
  count("session_round_trip_of_an_event", 100, [&] {
    for (std::size_t i = 0; i < 100; ++i) connection.round_trip(value);
  });
}

void count_freezing() {
  std::vector<Map> maps;
  for (int i = 0; i < 2; ++i) {
    maps.emplace_back(ss::Role::master);
    for (std::size_t k = 0; k < size; ++k) maps.back().push(sample_key(scattered(k)), sample_value(k));
  }
  std::size_t next = 0;
  count("freeze_of_10000_keys", 1, [&] { maps[next++].freeze(); });
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    fix_random_numbers();
    count_reads();
    count_commits();
    count_encoding();
    count_round_trips();
    count_freezing();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "count_instructions: %s\n", error.what());
    return 1;
  }
  return 0;
}
