// A client without a remote: speaks by a session of its own, and repeats its events as often as it likes.
#ifndef SYNCSTATE_TESTS_SIMULATION_REPEATER_HPP
#define SYNCSTATE_TESTS_SIMULATION_REPEATER_HPP

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "simulation/master.hpp"
#include "simulation/network.hpp"
#include "simulation/oracle.hpp"
#include "simulation/trace.hpp"
#include "syncstate/event.hpp"
#include "syncstate/protocol/client_session.hpp"

namespace syncstate::simulation {

/// Sends each event any number of times, over any number of links: the master must run it once at most, and give the
/// same answer each time.
class Repeater final : public LinkOwner, public std::enable_shared_from_this<Repeater> {
 public:
  Repeater(std::string name, Map map, std::shared_ptr<Network> network, std::shared_ptr<Executor> executor,
           const Limits& limits, Oracle& oracle, Chance& chance, Trace& trace)
      : name_(std::move(name)),
        map_(std::move(map)),
        network_(std::move(network)),
        executor_(std::move(executor)),
        limits_(limits),
        oracle_(&oracle),
        chance_(&chance),
        trace_(&trace) {}

  void start() {
    connect();
    schedule_tick();
  }
  void stop() {
    is_stopped_ = true;
    if (link_) link_->abort();
    link_.reset();
  }

  /// One new event, or one or two old ones once more.
  void send(const Command& like) {
    if (!channel_ || in_flight_ >= limits_.events_in_flight / 2) return;
    if (sent_.empty() || chance_->one_in(2)) {
      Command command = like;
      command.sender = tag_;
      command.number = ++last_number_;
      sent_.push_back(command);
      put(command, sender_);
    } else {
      put(chance_->pick(sent_), sender_);
      if (chance_->one_in(2)) put(sent_.back(), sender_);
    }
    // As its earlier self, whom a new master does not know, and an old one may have forgotten.
    if (!former_.empty() && chance_->one_in(4)) {
      const auto& [sender, command] = chance_->pick(former_);
      put(command, sender);
    }
    link_->wake();
  }

  // LinkOwner

  void on_open(const LinkInfo& info) override {
    session_.emplace(limits_, executor_->now());
    session_->on_open(password, info.channel_binding, executor_->now());
    link_->wake();
  }
  void on_bytes(ByteView bytes) override {
    if (!session_) return;
    session_->on_bytes(bytes, executor_->now(), [this](const auto& action) { this->perform(action); });
    if (link_ && session_->wants_to_send()) link_->wake();
  }
  void produce(Bytes& out) override {
    if (session_) session_->produce(out);
  }
  void on_closed(std::error_code, const std::string&) override {
    link_.reset();
    session_.reset();
    channel_.reset();
    in_flight_ = 0;
    if (is_stopped_) return;
    executor_->post_at(executor_->now() + chance_->between(0ms, 3'000ms), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->connect();
    });
  }

 private:
  void connect() {
    if (!is_stopped_) link_ = network_->connect(executor_, shared_from_this(), name_);
  }

  void schedule_tick() {
    executor_->post_at(executor_->now() + 1s, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self || self->is_stopped_) return;
      if (self->session_) {
        self->session_->on_tick(self->executor_->now(), [&](const auto& action) { self->perform(action); });
        if (self->link_ && self->session_ && self->session_->wants_to_send()) self->link_->wake();
      }
      self->schedule_tick();
    });
  }

  void put(const Command& command, std::uint64_t sender) {
    ++in_flight_;
    session_->send_event(*channel_, sender, command.number,
                         std::make_shared<const SerializedEvent>(serialize_event(Event<Command>{command})));
    // An answer names no sender, so only those of the present self can be told apart by their numbers.
    if (sender != sender_) ambiguous_.insert(command.number);
  }

  void perform(const protocol::ServerAuthenticated&) {
    protocol::Open open;
    open.hash = map_.hash();
    open.key_type = open.value_type = type_name<std::string>();
    open.sender = sender_;
    session_->open(open);
  }
  void perform(const protocol::UploadAsked& action) {
    session_->upload(action.channel, std::make_shared<detail::FrozenSource<std::string, std::string>>(
                                         detail::MapAccess::frozen(map_)));
  }
  void perform(const protocol::ChannelOpened& action) {
    channel_ = action.channel;
    ambiguous_.clear();
    if (action.sender == sender_) return;
    for (const Command& command : sent_) former_.emplace_back(sender_, command);
    sent_.clear();
    last_number_ = 0;
    sender_ = action.sender;
    tag_ = oracle_->new_sender();
  }
  void perform(const protocol::EventAnswered& action) {
    --in_flight_;
    if (ambiguous_.contains(action.number)) return;
    const Run* const run = oracle_->find_run({tag_, action.number});
    if (run == nullptr || run->threw || run->update_id != action.update_id) {
      trace_->fail(name_, " is answered ", action.update_id, " for event ", action.number,
                   ", which did not commit as that");
    }
  }
  void perform(const protocol::EventRefused& action) {
    --in_flight_;
    if (ambiguous_.contains(action.number)) return;
    const Run* const run = oracle_->find_run({tag_, action.number});
    if (action.reason == StateErrc::hook_failed) {
      if (run == nullptr || !run->threw) trace_->fail(name_, " is told of a hook that did not throw");
    } else if (action.reason != StateErrc::outcome_unknown && action.reason != StateErrc::stopped) {
      trace_->fail(name_, " is refused an event: ", make_error_code(action.reason).message());
    }
  }
  void perform(const protocol::CloseSession& action) {
    if (action.reason == StateErrc::protocol_error || action.reason == StateErrc::decode_error) {
      trace_->fail(name_, " is sent off: ", action.detail);
    }
    if (link_) link_->close_gracefully();
  }
  template <class Other>
  void perform(const Other&) {}

  std::string name_;
  Map map_;
  std::shared_ptr<Network> network_;
  std::shared_ptr<Executor> executor_;
  Limits limits_;
  Oracle* oracle_;
  Chance* chance_;
  Trace* trace_;
  std::shared_ptr<Link> link_;
  std::optional<protocol::ClientSession> session_;
  std::optional<protocol::ChannelId> channel_;
  std::uint64_t sender_ = 0;
  std::uint32_t tag_ = 0;
  std::uint64_t last_number_ = 0;
  std::size_t in_flight_ = 0;
  std::vector<Command> sent_;
  std::vector<std::pair<std::uint64_t, Command>> former_;
  std::set<std::uint64_t> ambiguous_;
  bool is_stopped_ = false;
};

}  // namespace syncstate::simulation

#endif
