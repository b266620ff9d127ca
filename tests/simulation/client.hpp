// A client's process: a real remote, maps, replicas and sinks on it, and the events it sent.
#ifndef SYNCSTATE_TESTS_SIMULATION_CLIENT_HPP
#define SYNCSTATE_TESTS_SIMULATION_CLIENT_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "simulation/chance.hpp"
#include "simulation/executors.hpp"
#include "simulation/followers.hpp"
#include "simulation/master.hpp"
#include "simulation/network.hpp"
#include "simulation/oracle.hpp"
#include "simulation/trace.hpp"
#include "syncstate/remote_client.hpp"

namespace syncstate::simulation {

/// The remote that users have, on a simulated network.
class SimulatedRemote final : public RemoteClient {
 public:
  explicit SimulatedRemote(std::shared_ptr<detail::RemoteCore> core) : RemoteClient(std::move(core)) {
    this->core().start();
  }
  ~SimulatedRemote() { core().stop(); }
  using RemoteClient::core;
};

/// An event and what its sender was told.
struct SentEvent {
  MapHash hash;
  Command command;
  std::shared_ptr<detail::Operation> done;
};

/// One process with a remote. It may die and come back as another.
class Client {
 public:
  Client(std::string name, inproc::VirtualTime& time, const std::shared_ptr<Network>& network,
         const RemoteCoreOptions& options, const std::vector<std::shared_ptr<const Map>>& models,
         Oracle& oracle, Chance& chance, Trace& trace,
         std::shared_ptr<const std::function<void()>> after_step)
      : name_(std::move(name)),
        time_(&time),
        oracle_(&oracle),
        chance_(&chance),
        trace_(&trace),
        executor_(std::make_shared<ProcessExecutor>(time.make_executor(), clock_, std::move(after_step))),
        remote_(std::make_shared<SimulatedRemote>(detail::RemoteCore::create(
            executor_, std::make_shared<NetworkConnector>(network, executor_, name_), options))) {
    for (const auto& model : models) {
      auto& mine = maps_.emplace_back();
      mine.sender = oracle.new_sender();
      mine.maps.push_back(push_like(*model));
      mine.ear = std::make_shared<Ear>(name_ + "'s ear", model->hash(), oracle, trace);
      mine.subscription = remote_->follow(mine.maps.front(), mine.ear);
    }
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] SimulatedRemote& remote() { return *remote_; }
  [[nodiscard]] Clock& clock() { return *clock_; }
  [[nodiscard]] Slowness& callback_slowness() { return *callback_slowness_; }
  [[nodiscard]] std::vector<std::unique_ptr<WatchedReplica>>& replicas() { return replicas_; }
  [[nodiscard]] std::vector<SentEvent>& sent() { return sent_; }
  [[nodiscard]] const Ear& ear(std::size_t map) const { return *maps_[map].ear; }
  /// The first is at its initial state, the others are where they were moved to.
  [[nodiscard]] std::vector<Map>& maps(std::size_t map) { return maps_[map].maps; }

  void send(std::size_t map, Command command) {
    Mine& mine = maps_[map];
    command.sender = mine.sender;
    command.number = ++mine.last_number;
    const MapHash hash = mine.maps.front().hash();
    auto done = std::make_shared<detail::EventCall>(
        serialize_event(Event<Command>{command}),
        [this, alive = std::weak_ptr<void>(alive_), map, command](std::error_code error,
                                                                  const std::string& detail, Position at) {
          if (!alive.expired()) answered(map, command, error, detail, at);  // a dead process is told nothing
        });
    sent_.push_back({hash, command, done});
    remote_->core().send_event(hash, std::move(done));
  }

  /// A replica of a copy of the map that is anywhere between the initial state and the newest it was moved to.
  void add_replica(std::size_t map, ReplicaOptions options, bool sees_every_step) {
    Map copy = chance_->pick(maps_[map].maps);
    const std::string name = name_ + "'s replica " + std::to_string(++last_replica_);
    trace_->add(name, " begins at ", copy.update_id());
    if (chance_->one_in(2)) {
      options.executor = std::make_shared<SlowExecutor>(time_->make_executor(), callback_slowness_, *chance_);
    }
    replicas_.push_back(std::make_unique<WatchedReplica>(name, std::move(copy), std::move(options),
                                                         sees_every_step, *oracle_, *trace_));
  }

  /// Moves a copy of the map along as users do, and keeps it to begin from later.
  ///
  /// `has_whole_log`: the master's log reaches back to any position, so a move ends where it was wished to.
  void move_map(std::size_t map, bool has_whole_log) {
    Map copy = chance_->pick(maps_[map].maps);
    const Position before{copy.epoch(), copy.update_id()};
    const UpdateId wish = before.update_id + chance_->below(5);
    const bool has_wish = chance_->one_in(2);
    const Life* const life = oracle_->find_life(copy.hash(), before.epoch);
    const bool was_there = life != nullptr && life->head() >= wish;
    try {
      if (has_wish) {
        copy.set_update_id(wish);
      } else {
        copy.sync();
      }
    } catch (const StateError& error) {
      trace_->add(name_, "'s map does not move: ", error.what());
      if (before != Position{copy.epoch(), copy.update_id()})
        trace_->fail("a map has moved though it could not be");
      return;
    }
    const Position after{copy.epoch(), copy.update_id()};
    trace_->add(name_, "'s map moves from ", before.update_id, " to ", after.update_id);
    State values;
    for (const auto& [key, value] : copy) values.push_back(value);
    // Where the master was not there yet, the way may lead to wherever it is by the end of it.
    if (has_wish && has_whole_log && was_there && before.epoch == after.epoch && after.update_id > wish) {
      trace_->fail(name_, "'s map was to move to ", wish, ", not beyond");
    }
    oracle_->check_step(name_ + "'s map", copy.hash(), before, after);
    oracle_->check_state(name_ + "'s map", copy.hash(), after, values);
    maps_[map].maps.push_back(std::move(copy));
    if (maps_[map].maps.size() > 6) maps_[map].maps.erase(maps_[map].maps.begin() + 1);
  }

  void look() {
    for (const auto& replica : replicas_) replica->look();
  }

 private:
  struct Mine {
    std::uint32_t sender = 0;
    std::uint64_t last_number = 0;
    std::vector<Map> maps;
    std::shared_ptr<Ear> ear;
    Subscription subscription;
  };

  Map push_like(const Map& model) {
    Map map(remote_);
    for (const auto& [key, value] : model) map.push(key, value);
    map.freeze(0ms);
    return map;
  }

  /// Guarantee 5, as far as it can be seen when the answer comes.
  void answered(std::size_t map, const Command& command, std::error_code error, const std::string& detail,
                Position at) {
    const std::string text =
        name_ + "'s event " + std::to_string(command.number) + " of sender " + std::to_string(command.sender);
    trace_->add(text, error ? " ends: " + error.message() : " is answered " + std::to_string(at.update_id));
    const Run* const run = oracle_->find_run({command.sender, command.number});
    if (!error) {
      if (run == nullptr) return trace_->fail(text, " is answered, and never ran");
      if (run->threw || at != Position{run->epoch, run->update_id}) {
        return trace_->fail(text, " is answered ", at.update_id, " of epoch ", at.epoch,
                            ", and committed as ", run->update_id, " of epoch ", run->epoch);
      }
      maps_[map].ear->answered(run->epoch, at.update_id);
    } else if (error == StateErrc::hook_failed) {
      if (run == nullptr || !run->threw ||
          detail.find(command.what == Command::What::throw_early ? "early" : "late") == std::string::npos) {
        trace_->fail(text, " is told of a hook that did not throw so: ", detail);
      }
    } else if (error != StateErrc::outcome_unknown && run != nullptr) {
      trace_->fail(text, " ends as certainly not run, and was");
    }
  }

  std::string name_;
  inproc::VirtualTime* time_;
  Oracle* oracle_;
  Chance* chance_;
  Trace* trace_;
  std::shared_ptr<Clock> clock_ = std::make_shared<Clock>();
  std::shared_ptr<Slowness> callback_slowness_ = std::make_shared<Slowness>();
  std::shared_ptr<ProcessExecutor> executor_;
  std::shared_ptr<SimulatedRemote> remote_;
  std::vector<Mine> maps_;
  std::vector<SentEvent> sent_;
  std::vector<std::unique_ptr<WatchedReplica>> replicas_;
  std::size_t last_replica_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // last, so first to go
};

}  // namespace syncstate::simulation

#endif
