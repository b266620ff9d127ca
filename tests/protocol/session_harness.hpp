// What the protocol's tests share: both sessions driven byte by byte on virtual time, their actions as text.
#ifndef SYNCSTATE_TESTS_PROTOCOL_SESSION_HARNESS_HPP
#define SYNCSTATE_TESTS_PROTOCOL_SESSION_HARNESS_HPP

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/detail/remote/diff_assembler.hpp"
#include "syncstate/detail/server/hosted_map.hpp"
#include "syncstate/protocol/client_session.hpp"
#include "syncstate/protocol/server_session.hpp"

namespace syncstate::testing {

using namespace std::chrono_literals;
namespace wire = syncstate::protocol;

/// Virtual time: it passes only where a test adds to it.
inline constexpr TimePoint t0 = TimePoint{} + 1h;

inline std::string to_hex(ByteView bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (const std::byte b : bytes) {
    text += digits[std::to_integer<unsigned>(b) >> 4];
    text += digits[std::to_integer<unsigned>(b) & 15];
  }
  return text;
}

inline Bytes to_bytes(std::string_view text) {
  const ByteView view = as_byte_view(text);
  return Bytes(view.begin(), view.end());
}

template <class Message>
Bytes frame_of(const Message& message) {
  Bytes out;
  wire::append_frame(out, message);
  return out;
}

/// A frame with any kind and body, also such as no message has.
inline Bytes raw_frame(unsigned kind, ByteView body = {}) {
  Bytes out;
  const std::size_t start = wire::open_frame(out);
  out.push_back(static_cast<std::byte>(kind));
  out.insert(out.end(), body.begin(), body.end());
  wire::close_frame(out, start);
  return out;
}

/// One frame with a copy of its body.
struct OwnedFrame {
  wire::FrameKind kind{};
  Bytes body;
};

inline std::vector<OwnedFrame> split_frames(ByteView bytes) {
  std::vector<OwnedFrame> frames;
  wire::FrameReader reader(std::size_t{1} << 30);
  reader.feed(bytes, [&](const wire::Frame& frame) {
    frames.push_back({frame.kind, Bytes(frame.body.begin(), frame.body.end())});
    return true;
  });
  return frames;
}

inline std::vector<int> kinds_of(ByteView bytes) {
  std::vector<int> kinds;
  for (const OwnedFrame& frame : split_frames(bytes)) kinds.push_back(static_cast<int>(frame.kind));
  return kinds;
}

/// Writes every action down as a line, whatever bytes it shows copied; may do something more with it.
class ActionLog {
 public:
  std::vector<std::string> lines;
  std::vector<wire::CloseSession> closes;

  void operator()(const wire::ProofChecked&) {}
  void operator()(const wire::ClientAuthenticated&) { lines.emplace_back("authenticated"); }
  void operator()(const wire::ServerAuthenticated&) { lines.emplace_back("authenticated"); }
  void operator()(const wire::OpenAsked& a) { add("open", a.open.channel, a.open.hash.hex()); }
  void operator()(const wire::UploadCame& a) { add("upload", a.channel, to_hex(a.bytes)); }
  void operator()(const wire::UploadEnded& a) { add("upload ended", a.channel); }
  void operator()(const wire::UploadGoesOn& a) { add("upload goes on", a.channel); }
  void operator()(const wire::ChannelClosed& a) { add("closed", a.channel); }
  void operator()(const wire::FetchAsked& a) { add("fetch", a.fetch.request, a.fetch.hash.hex()); }
  void operator()(const wire::ListAsked& a) { add("list", a.request); }
  void operator()(const wire::SenderAsked& a) { add("sender asked", a.channel, a.known); }
  void operator()(const wire::EventCame& a) {
    add("event", a.ticket.channel, a.sender, a.ticket.number, *a.type, to_hex(a.bytes));
  }
  void operator()(const wire::FollowAsked&) {}  // the answers tell
  void operator()(const wire::DiffAsked&) {}
  void operator()(const wire::HeadAsked&) {}
  void operator()(const wire::ChannelOpened& a) { add("opened", a.channel, a.head.epoch, a.head.update_id); }
  void operator()(const wire::SenderGiven& a) { add("sender", a.channel, a.sender); }
  void operator()(const wire::UploadAsked& a) { add("upload asked", a.channel); }
  void operator()(const wire::ChannelRefused& a) {
    add("refused", a.channel, static_cast<int>(a.reason), a.detail, a.other ? a.other->hex() : "");
  }
  void operator()(const wire::UpdateIdCame& a) {
    add("update id", a.request, a.head.epoch, a.head.update_id);
  }
  void operator()(const wire::StateCame& a) { add("state", a.request, to_hex(a.bytes)); }
  void operator()(const wire::StateEnded& a) { add("state ended", a.request); }
  void operator()(const wire::HostedCame& a) {
    add("hosted", a.request, a.maps.size());
    for (const auto& map : a.maps) add("  map", map.hash.hex(), map.key_type, map.value_type, map.keys);
  }
  void operator()(const wire::DiffStaged& a) { add("staged", a.stream, to_hex(a.entries)); }
  void operator()(const wire::ValueStaged& a) { add("value staged", a.stream, a.ordinal, to_hex(a.value)); }
  void operator()(const wire::DiffCame& a) {
    add(a.is_full ? "full diff" : "diff", a.stream, a.epoch, a.from, a.upto, to_hex(a.entries));
  }
  void operator()(const wire::StepCame& a) {
    add("step", a.stream, a.epoch, a.from, a.upto, a.ordinal, to_hex(a.value));
  }
  void operator()(const wire::EventAnswered& a) { add("answer", a.channel, a.number, a.update_id); }
  void operator()(const wire::EventRefused& a) {
    add("answer error", a.channel, a.number, static_cast<int>(a.reason), a.detail);
  }
  void operator()(const wire::HeadHeard& a) { add("head", a.channel, a.head); }
  void operator()(const wire::CloseSession& a) {
    closes.push_back(a);
    add("close", static_cast<int>(a.reason), a.detail);
  }

  /// The reason of the one end of the session; 0 if it goes on.
  [[nodiscard]] StateErrc close_reason() const { return closes.size() == 1 ? closes[0].reason : StateErrc{}; }

 private:
  static std::string text(const std::string& s) { return s; }
  static std::string text(const char* s) { return s; }
  template <class N>
    requires std::is_integral_v<N>
  static std::string text(N n) {
    return std::to_string(n);
  }
  template <class... Parts>
  void add(const char* name, const Parts&... parts) {
    std::string line = name;
    ((line += ' ', line += text(parts)), ...);
    lines.push_back(std::move(line));
  }
};

inline Bytes test_binding() { return Bytes(32, std::byte{7}); }

inline std::shared_ptr<const wire::Passwords> passwords(std::vector<std::string> list = {"secret"}) {
  return std::make_shared<const wire::Passwords>(std::move(list));
}

inline Bytes hello_frame(std::string_view secret = "secret", ByteView binding = test_binding()) {
  wire::Hello hello;
  hello.proof = wire::make_proof(secret, wire::ProofRole::client, binding);
  return frame_of(hello);
}

inline Bytes welcome_frame(std::string_view secret = "secret", ByteView binding = test_binding()) {
  wire::Welcome welcome;
  welcome.proof = wire::make_proof(secret, wire::ProofRole::server, binding);
  return frame_of(welcome);
}

/// Lists maps one by one, and counts how often it was asked.
class CountedList final : public wire::HostedSource {
 public:
  std::optional<MapHash> encode_hosted(const std::optional<MapHash>& after, Bytes& out) override {
    ++calls;
    const auto at = after ? maps.upper_bound(*after) : maps.begin();
    if (at == maps.end()) return std::nullopt;
    ByteWriter writer(out);
    wire::HostedMapInfo{*at, MapHash(), "string", "string", 1}.encode(writer);
    return std::next(at) == maps.end() ? std::nullopt : std::optional(*at);
  }

  std::set<MapHash> maps;
  std::size_t calls = 0;
};

/// A server session, its actions, and the maps it is to answer `open` with.
struct ServerSide {
  explicit ServerSide(const Limits& l = {}) : limits(l), session(limits, t0) {}

  Limits limits;
  wire::ServerSession session;
  ActionLog log;
  std::map<MapHash, std::shared_ptr<wire::DiffSource>> maps;
  CountedList list;
  bool answers = true;  ///< answers `open`, `fetch` and `list` itself
  std::vector<std::string> events;

  /// The hello has been and gone.
  void authenticate() {
    session.on_open(passwords(), test_binding(), false, t0);
    feed(hello_frame());
    take();
    log.lines.clear();
  }

  void feed(ByteView bytes, TimePoint now = t0) {
    session.on_bytes(bytes, now, [this](const auto& action) { this->perform(action); });
  }
  /// Answers `open`, and the ask for a sender that came with it.
  void open(wire::ChannelId channel, std::shared_ptr<wire::DiffSource> map) {
    if (!session.opened(channel, std::move(map))) return;
    if (const auto early = session.early_ask_of(channel)) perform(*early);
  }
  void tick(TimePoint now) {
    session.on_tick(now, [this](const auto& action) { this->perform(action); });
  }
  /// As the session's, once it has heard of every commit.
  bool wants_to_send() {
    session.look_at_maps();
    return session.wants_to_send();
  }
  /// What one call of `produce` gives.
  Bytes take() {
    session.look_at_maps();
    Bytes out;
    session.produce(out);
    return out;
  }
  Bytes take_all() {
    Bytes all;
    while (wants_to_send()) {
      const Bytes some = take();
      if (some.empty()) break;
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

 private:
  template <class Action>
  void perform(const Action& action) {
    log(action);
    if (!answers) return;
    if constexpr (std::is_same_v<Action, wire::OpenAsked>) {
      const auto found = maps.find(action.open.hash);
      if (found == maps.end()) {
        session.want_upload(action.open.channel);
      } else {
        open(action.open.channel, found->second);
      }
    } else if constexpr (std::is_same_v<Action, wire::SenderAsked>) {
      session.give_sender(action.channel, 77);
    } else if constexpr (std::is_same_v<Action, wire::FollowAsked>) {
      if (!session.follow(action.follow)) log(wire::ChannelClosed{action.follow.channel});
    } else if constexpr (std::is_same_v<Action, wire::DiffAsked>) {
      session.send_diff(action.ask);
    } else if constexpr (std::is_same_v<Action, wire::HeadAsked>) {
      session.send_head(action.ask);
    } else if constexpr (std::is_same_v<Action, wire::FetchAsked>) {
      const auto found = maps.find(action.fetch.hash);
      if (found == maps.end()) {
        session.refuse(action.fetch.request, StateErrc::not_hosted, "");
      } else {
        session.send_initial(action.fetch.request, found->second);
      }
    } else if constexpr (std::is_same_v<Action, wire::ListAsked>) {
      list.maps.clear();
      for (const auto& entry : maps) list.maps.insert(entry.first);
      session.send_hosted(action.request, list);
    }
  }
};

/// A client session and its actions.
struct ClientSide {
  explicit ClientSide(const Limits& l = {}) : limits(l), session(limits, t0) {}

  Limits limits;
  wire::ClientSession session;
  ActionLog log;

  void authenticate() {
    session.on_open("secret", test_binding(), t0);
    take();
    feed(welcome_frame());
    log.lines.clear();
  }

  void feed(ByteView bytes, TimePoint now = t0) { session.on_bytes(bytes, now, log); }
  void tick(TimePoint now) { session.on_tick(now, log); }
  Bytes take() {
    Bytes out;
    session.produce(out);
    return out;
  }
  Bytes take_all() {
    Bytes all;
    while (session.wants_to_send()) {
      const Bytes some = take();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
};

/// Carries bytes until neither side has anything to send.
inline void exchange(ClientSide& client, ServerSide& server, TimePoint now = t0) {
  while (client.session.wants_to_send() || server.wants_to_send()) {
    server.feed(client.take(), now);
    client.feed(server.take(), now);
  }
}

/// A frozen master with `count` keys "k000", "k001", ... and these initial values.
template <class V>
StateMap<std::string, V> make_master(std::uint32_t count, const V& initial, MapOptions options = {}) {
  StateMap<std::string, V> map(Role::master, options);
  for (std::uint32_t i = 0; i < count; ++i) {
    std::string digits = std::to_string(i);
    map.push("k" + std::string(6 - digits.size(), '0') + digits, initial);
  }
  map.freeze(0s);
  return map;
}

/// Sets keys by ordinal in one commit.
template <class V>
UpdateId commit(detail::HostedMap<std::string, V>& map,
                const std::vector<std::pair<std::uint32_t, V>>& changes) {
  return map.transact([&](StateMap<std::string, V>& state) {
    for (const auto& change : changes) {
      state.set(detail::MapAccess::frozen(state)->key(change.first), change.second);
    }
  });
}

/// The state that a client puts together from what comes on one stream.
template <class V>
class StateFollower : public detail::DiffAssembler<std::string, V> {
 public:
  using Frozen = std::shared_ptr<const detail::FrozenState<std::string, V>>;
  explicit StateFollower(Frozen frozen)
      : detail::DiffAssembler<std::string, V>(frozen), frozen_(frozen), state_(frozen->initial_values()) {}

  [[nodiscard]] const std::vector<V>& state() const { return state_; }
  [[nodiscard]] Position position() const override { return at_; }
  /// Where each diff led.
  [[nodiscard]] const std::vector<UpdateId>& ends() const { return ends_; }

  /// Takes frames as a client's session and role do.
  void take_actions(wire::ClientSession& session, ByteView bytes) {
    session.on_bytes(bytes, t0, [this](const auto& action) { this->perform(action); });
  }

  bool is_closed = false;
  std::string close_text;

 private:
  std::error_code take(Diff<std::string, V> diff) override {
    if (!diff.is_full() && diff.from_update_id() != at_.update_id) return StateErrc::wrong_position;
    if (diff.is_full()) state_ = frozen_->initial_values();
    for (const auto& change : detail::MapAccess::diff_ordinals(diff)) state_[change.first] = change.second;
    at_ = {diff.epoch(), diff.upto_update_id()};
    ends_.push_back(at_.update_id);
    return {};
  }

  void perform(const wire::DiffStaged& a) { this->stage(a.entries); }
  void perform(const wire::ValueStaged& a) { this->stage_value(a.ordinal, a.value); }
  void perform(const wire::DiffCame& a) {
    if (this->close({a.epoch, a.from, a.upto, a.is_full}, a.entries)) wire::break_off("does not follow");
  }
  void perform(const wire::StepCame& a) {
    if (this->step({a.epoch, a.from, a.upto, false}, a.ordinal, a.value)) wire::break_off("does not follow");
  }
  void perform(const wire::CloseSession& a) {
    is_closed = true;
    close_text = a.detail;
  }
  template <class Other>
  void perform(const Other&) {}

  Frozen frozen_;
  std::vector<V> state_;
  Position at_;
  std::vector<UpdateId> ends_;
};

}  // namespace syncstate::testing

#endif
