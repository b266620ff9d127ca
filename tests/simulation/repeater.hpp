// A client without a remote: speaks by a session of its own, and repeats its events as often as it likes.
#ifndef SYNCSTATE_TESTS_SIMULATION_REPEATER_HPP
#define SYNCSTATE_TESTS_SIMULATION_REPEATER_HPP

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
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
/// same answer each time. On a new link it goes on as itself, or as one of its earlier selves, which a new master does
/// not know, and an old one may have forgotten.
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
    if (self_.sent.empty() || chance_->one_in(2)) {
      Command command = like;
      command.sender = self_.tag;
      command.number = ++self_.last_number;
      self_.sent.push_back(command);
      put(command);
    } else {
      put(chance_->pick(self_.sent));
      if (chance_->one_in(2)) put(self_.sent.back());
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
  /// A sender as the master knows it, and its tag in the oracle.
  struct Self {
    std::uint64_t sender = 0;
    std::uint32_t tag = 0;
    std::uint64_t last_number = 0;
    std::vector<Command> sent{};
  };

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

  void put(const Command& command) {
    ++in_flight_;
    session_->send_event(*channel_, command.number,
                         std::make_shared<const SerializedEvent>(serialize_event(Event<Command>{command})));
  }

  void perform(const protocol::ServerAuthenticated&) {
    protocol::Open open;
    open.hash = map_.hash();
    open.key_type = open.value_type = type_name<std::string>();
    const auto channel = session_->open(open);
    if (!former_.empty() && chance_->one_in(3)) {
      std::swap(self_, former_[chance_->below(former_.size())]);
    }
    is_sender_asked_ = chance_->one_in(2);
    if (is_sender_asked_) session_->get_sender(channel, self_.sender);
  }
  void perform(const protocol::UploadAsked& action) {
    session_->upload(action.channel, std::make_shared<detail::FrozenSource<std::string, std::string>>(
                                         detail::MapAccess::frozen(map_)));
  }
  void perform(const protocol::ChannelOpened& action) {
    if (!is_sender_asked_) session_->get_sender(action.channel, self_.sender);
  }
  void perform(const protocol::SenderGiven& action) {
    channel_ = action.channel;
    if (action.sender == self_.sender) return;
    if (!self_.sent.empty()) former_.push_back(std::move(self_));
    self_ = Self{action.sender, oracle_->new_sender(), 0, {}};
  }
  void perform(const protocol::EventAnswered& action) {
    --in_flight_;
    const Run* const run = oracle_->find_run({self_.tag, action.number});
    if (run == nullptr || run->threw || run->update_id != action.update_id) {
      trace_->fail(name_, " is answered ", action.update_id, " for event ", action.number,
                   ", which did not commit as that");
    }
  }
  void perform(const protocol::EventRefused& action) {
    --in_flight_;
    const Run* const run = oracle_->find_run({self_.tag, action.number});
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
  bool is_sender_asked_ = false;  // on the channel of now
  std::size_t in_flight_ = 0;
  Self self_;
  std::vector<Self> former_;
  bool is_stopped_ = false;
};

}  // namespace syncstate::simulation

#endif
