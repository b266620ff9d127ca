// One run: a master, clients and a network to which everything happens that may, in an order that one seed decides.
#ifndef SYNCSTATE_TESTS_SIMULATION_SIMULATION_HPP
#define SYNCSTATE_TESTS_SIMULATION_SIMULATION_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "simulation/chance.hpp"
#include "simulation/client.hpp"
#include "simulation/executors.hpp"
#include "simulation/master.hpp"
#include "simulation/network.hpp"
#include "simulation/oracle.hpp"
#include "simulation/repeater.hpp"
#include "simulation/trace.hpp"

namespace syncstate::simulation {

/// What one run was made of.
struct Tally {
  std::size_t events = 0;
  std::size_t faults = 0;
  std::size_t steps = 0;
  std::size_t replicas = 0;
  std::uint64_t digest = 0;
};

/// Runs real sessions, a real server core and real remotes in one thread on virtual time, and holds all that is seen
/// against the oracle after every step.
///
/// The same seed gives the same run, byte for byte.
class Simulation {
 public:
  static constexpr std::size_t least_events = 400;
  static constexpr std::size_t least_faults = 20;

  explicit Simulation(std::uint64_t seed)
      : openssl_(seed), chance_(seed), repeater_executor_(time_.make_executor()) {
    const std::vector<std::size_t> key_counts{3, chance_.between(6, 30)};
    for (const std::size_t keys : key_counts) {
      Map map(Role::master);
      for (std::size_t i = 0; i + 1 < keys; ++i) map.push("key" + std::to_string(100 + i), "-");
      map.push(counter_key, "");
      map.freeze();
      oracle_.know(map);
      models_.push_back(std::make_shared<const Map>(std::move(map)));
    }
    server_options_.passwords = {password};
    server_options_.on_error = [this](const std::exception_ptr& error) { thrown("the master", error); };
    server_options_.map_options.log_diffs = chance_.one_in(2) ? 8 : 4'096;
    Limits& limits = server_options_.limits;
    limits.piece_bytes = piece_bytes;
    limits.events_in_flight = events_in_flight;
    limits.answers_per_sender = chance_.one_in(2) ? 4 : 1'024;
    limits.senders_per_map = chance_.one_in(3) ? 3 : 65'536;
    limits.transfer_rounds = static_cast<unsigned>(chance_.between(1, 3));
    start_master();
    const std::size_t clients = chance_.between(3, 4);
    for (std::size_t i = 0; i < clients; ++i) add_client();
    repeater_ = make_repeater();
    repeater_->start();
  }
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;
  ~Simulation() {
    repeater_->stop();
    if (master_) master_->stop();
    clients_.clear();
    time_.run_ready();
    master_.reset();
    time_.run_ready();
  }

  /// Ends early where something is wrong.
  void run() {
    while ((tally_.events < least_events || tally_.faults < least_faults) && !trace_.has_failed()) {
      act();
      step(chance_.below(60), chance_.one_in(2) ? chance_.between(0ms, 1'500ms) : Duration::zero());
    }
    if (!trace_.has_failed()) heal();
    if (!trace_.has_failed()) check_settled();
    tally_.digest = trace_.digest();
  }

  [[nodiscard]] const Trace& trace() const { return trace_; }
  [[nodiscard]] const Tally& tally() const { return tally_; }

 private:
  static constexpr std::size_t piece_bytes = 250;
  // What `produce` may give: control frames, one turn more than a piece, answers for another piece.
  static constexpr std::size_t most_frame_bytes = 16 * piece_bytes;
  // What a server may keep for one link: answers in flight, each with the reason and with room for another, a frame that is
  // not whole, a few control frames.
  static constexpr std::size_t events_in_flight = 32;
  static constexpr std::size_t most_link_bytes = events_in_flight * 250 + 1'500;

  // Time.

  void step(std::size_t count, Duration limit) {
    std::size_t steps = 0;
    time_.run_until(
        [&] {
          after_step();
          return steps++ >= count || trace_.has_failed();
        },
        limit);
  }
  void pass(Duration duration) {
    time_.run_until(
        [this] {
          after_step();
          return trace_.has_failed();
        },
        duration);
  }

  void after_step() {
    ++tally_.steps;
    for (const auto& client : clients_) client->look();
    if (tally_.steps % 16 != 0 || !master_) return;
    for (const auto& link : master_->lane().links()) {
      const std::size_t bytes = link->session().buffered_bytes();
      if (bytes > most_link_bytes)
        trace_.fail("a link of ", link->peer().address, " keeps ", bytes, " bytes");
    }
  }

  /// Hooks throw on purpose; nothing else does.
  void thrown(const char* who, const std::exception_ptr& error) {
    try {
      std::rethrow_exception(error);
    } catch (const Refusal&) {
    } catch (const std::exception& unexpected) {
      trace_.fail(who, " caught an exception: ", unexpected.what());
    }
  }

  // Who there is.

  void start_master() {
    trace_.add("a master starts");
    master_ =
        std::make_unique<Master>(time_, *network_, oracle_, chance_, trace_, server_options_, after_step_);
    if (chance_.one_in(3)) master_->slowness().most = std::chrono::milliseconds(chance_.between(1, 400));
  }

  void add_client() {
    RemoteCoreOptions options;
    options.password = password;
    options.on_error = [this](const std::exception_ptr& error) { thrown("a client", error); };
    options.limits.piece_bytes = piece_bytes;
    options.limits.events_in_flight = chance_.one_in(3) ? 4 : 1'024;
    options.event_timeout = chance_.one_in(2) ? 10'000ms : 60'000ms;
    options.backoff.most = chance_.one_in(2) ? 30'000ms : 2'000ms;
    options.seed = 1 + chance_.below(1'000'000'000);
    const std::string name = "client " + std::to_string(++last_client_);
    trace_.add(name, " starts");
    clients_.push_back(std::make_unique<Client>(name, time_, network_, options, models_, oracle_, chance_,
                                                trace_, after_step_));
    for (std::size_t map = 0; map < models_.size(); ++map) add_replica(*clients_.back(), map);
  }

  void add_replica(Client& client, std::size_t map) {
    ReplicaOptions options;
    options.every_step = chance_.one_in(3);
    options.epoch_policy = chance_.one_in(6) ? EpochPolicy::hold : EpochPolicy::accept;
    client.add_replica(map, options, options.every_step && has_whole_log());
    ++tally_.replicas;
  }

  [[nodiscard]] bool has_whole_log() const { return server_options_.map_options.log_diffs > 8; }

  std::shared_ptr<Repeater> make_repeater() {
    Map map = *models_.back();
    return std::make_shared<Repeater>("the repeater", std::move(map), network_, repeater_executor_,
                                      server_options_.limits, oracle_, chance_, trace_);
  }

  // What happens.

  void act() {
    // Most of the time there is somebody to talk to.
    if (!master_ && chance_.one_in(8)) start_master();
    if (network_->weather().is_unreachable && chance_.one_in(8)) network_->weather().is_unreachable = false;
    switch (chance_.below(20)) {
      case 0: return fault();
      case 1: return chance_.one_in(2) ? fault() : change_weather();
      case 2:
        return clients_[chance_.below(clients_.size())]->move_map(chance_.below(models_.size()),
                                                                  has_whole_log());
      case 3: return join_or_leave();
      case 4: return modify();
      case 5:
      case 6: ++tally_.events; return repeater_->send(command());
      default: break;
    }
    Client& client = *clients_[chance_.below(clients_.size())];
    const std::size_t burst = chance_.one_in(6) ? chance_.between(2, 12) : 1;
    for (std::size_t i = 0; i < burst; ++i) {
      ++tally_.events;
      client.send(chance_.below(models_.size()), command());
    }
  }

  Command command() {
    Command command;
    const std::size_t what = chance_.below(12);
    if (what == 0) command.what = Command::What::set_all;
    if (what == 1) command.what = Command::What::set_nothing;
    if (what == 2) command.what = Command::What::throw_early;
    if (what == 3) command.what = Command::What::throw_late;
    if (what == 4 || what == 5) command.what = Command::What::set_some;
    command.first_key = static_cast<std::uint32_t>(chance_.below(30));
    command.value = "v" + std::to_string(++last_value_);
    if (chance_.one_in(4)) command.value += std::string(chance_.below(100), '.');
    if (chance_.one_in(10)) command.value += std::string(chance_.below(2'500), ':');  // goes in parts
    return command;
  }

  void modify() {
    if (!master_ || master_->handles().empty()) return;
    const auto& handles = master_->handles();
    auto at = handles.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(chance_.below(handles.size())));
    master_->modify(at->second, chance_.below(3), "m" + std::to_string(++last_value_));
  }

  void join_or_leave() {
    Client& client = *clients_[chance_.below(clients_.size())];
    auto& replicas = client.replicas();
    const std::size_t map = chance_.below(models_.size());
    if (replicas.size() > 2 && chance_.one_in(2)) {
      const std::size_t which = chance_.below(replicas.size());
      trace_.add(replicas[which]->name(), " leaves");
      if (chance_.one_in(2)) return replicas[which]->end_in_callback();
      replicas.erase(replicas.begin() + static_cast<std::ptrdiff_t>(which));
    } else if (replicas.size() < 5) {
      add_replica(client, map);
    }
    std::erase_if(replicas, [](const auto& replica) { return replica->has_ended(); });
  }

  void change_weather() {
    Weather& weather = network_->weather();
    const std::vector<std::size_t> reads{1, 7, 60, 700, 65'536};
    const std::vector<std::size_t> capacities{1, 100, 2'000, 65'536};
    weather.most_read_bytes = chance_.pick(reads);
    weather.capacity_bytes = chance_.pick(capacities);
    weather.most_delay = std::chrono::milliseconds(chance_.between(0, 40));
    trace_.add("reads of ", weather.most_read_bytes, ", ", weather.capacity_bytes, " under way");
  }

  void fault() {
    ++tally_.faults;
    switch (chance_.below(11)) {
      case 0:
      case 1:
      case 2: return cut_some_link();
      case 3:
      case 4: return stall_some_link();
      case 5: return jump_some_clock();
      case 6: {
        auto& weather = network_->weather();
        weather.is_unreachable = !weather.is_unreachable;
        return trace_.add(weather.is_unreachable ? "the master can't be reached"
                                                 : "the master can be reached again");
      }
      case 7: return kill_or_start_master();
      case 8: return replace_some_client();
      case 9:
        if (!master_) return;
        master_->slowness().most =
            std::chrono::milliseconds(chance_.one_in(2) ? 0 : chance_.between(1, 15'000));
        return trace_.add("hooks take up to ", master_->slowness().most.count(), " ms");
      default: {
        Client& client = *clients_[chance_.below(clients_.size())];
        client.callback_slowness().most =
            std::chrono::milliseconds(chance_.one_in(2) ? 0 : chance_.between(1, 20'000));
        return trace_.add(client.name(), "'s callbacks take up to ", client.callback_slowness().most.count(),
                          " ms");
      }
    }
  }

  void cut_some_link() {
    const auto links = network_->clients();
    if (links.empty()) return;
    const auto& client = chance_.pick(links);
    const auto server = client->peer();
    if (!server) return;
    const Hearing hearing{!chance_.one_in(3), !chance_.one_in(3)};
    trace_.add(client->name(), " is to be cut; hears of it: client ", hearing.client, ", server ",
               hearing.server);
    switch (chance_.below(3)) {
      case 0: client->cut(hearing.client); return server->cut(hearing.server);
      case 1: return client->cut_after(chance_.between(1, 600), hearing);
      default: return server->cut_after(chance_.between(1, 300), Hearing{hearing.server, hearing.client});
    }
  }

  void stall_some_link() {
    const auto links = network_->clients();
    if (links.empty()) return;
    const auto& client = chance_.pick(links);
    const auto server = client->peer();
    const bool is_long = chance_.one_in(40);
    const auto time =
        is_long ? chance_.between(600'000ms, 2 * 3'600'000ms) : chance_.between(100ms, 40'000ms);
    trace_.add(client->name(), " stalls for ",
               std::chrono::duration_cast<std::chrono::milliseconds>(time).count(), " ms");
    if (!chance_.one_in(3)) client->stall_until(time_.now() + time);
    if (server && !chance_.one_in(3)) server->stall_until(time_.now() + time);
    if (is_long) pass(time);
  }

  void jump_some_clock() {
    Clock* clock = &clients_[chance_.below(clients_.size())]->clock();
    if (master_ && chance_.one_in(3)) clock = &master_->clock();
    const auto jump =
        chance_.one_in(4) ? chance_.between(60'000ms, 7'200'000ms) : chance_.between(0ms, 20'000ms);
    clock->ahead += jump;
    trace_.add("a clock jumps by ", std::chrono::duration_cast<std::chrono::milliseconds>(jump).count(),
               " ms");
  }

  void kill_or_start_master() {
    if (!master_) return start_master();
    const bool clients_hear = !chance_.one_in(3);
    trace_.add("the master dies; clients hear of it: ", clients_hear);
    master_->die(clients_hear);
    dead_.push_back(std::move(master_));  // its tasks that are left find nothing to do
    if (chance_.one_in(2)) start_master();
  }

  void replace_some_client() {
    const std::size_t which = chance_.below(clients_.size());
    trace_.add(clients_[which]->name(), " dies");
    for (const auto& link : network_->clients()) {
      if (link->name().rfind(clients_[which]->name() + " ", 0) != 0) continue;
      link->die();
      if (const auto server = link->peer()) server->cut(!chance_.one_in(3));
    }
    clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(which));
    add_client();
  }

  // The end.

  /// All faults are over: whatever was lost comes back by itself.
  void heal() {
    trace_.add("all faults are over");
    network_->weather() = Weather{};
    if (!master_) start_master();
    master_->slowness().most = 0ms;
    for (const auto& link : network_->clients()) {
      link->forget_faults();
      if (const auto server = link->peer()) server->forget_faults();
    }
    for (auto& client : clients_) client->callback_slowness().most = 0ms;
    pass(150s);
  }

  void check_settled() {
    // One link a client: those whose other end is gone were found out.
    const std::size_t links = master_->lane().links().size();
    if (links != clients_.size() + 1) trace_.fail("the master keeps ", links, " links");
    for (auto& client : clients_) {
      if (client->remote().status().state != LinkState::live) {
        trace_.fail(client->name(), " has not come back: ", client->remote().status().reason.message(), " ",
                    client->remote().status().detail);
      }
      for (const SentEvent& event : client->sent()) check_fate(*client, event);
      for (std::size_t map = 0; map < models_.size(); ++map) check_map(*client, map);
    }
  }

  void check_fate(const Client& client, const SentEvent& event) {
    const std::string text = client.name() + "'s event " + std::to_string(event.command.number);
    if (!event.done->is_finished()) return trace_.fail(text, " has no end");
    const bool has_run = oracle_.find_run({event.command.sender, event.command.number}) != nullptr;
    std::error_code error;
    try {
      event.done->result();
    } catch (const StateError& thrown) {
      error = thrown.code();
    }
    if (has_run && error && error != StateErrc::hook_failed && error != StateErrc::outcome_unknown) {
      trace_.fail(text, " ended as certainly not run, and ran later");
    }
  }

  void check_map(Client& client, std::size_t map) {
    const MapHash hash = models_[map]->hash();
    const auto handle = master_->handles().find(hash);
    if (handle == master_->handles().end()) return trace_.fail("a map has not come back to the master");
    const Position head{handle->second.epoch(), handle->second.update_id()};
    const Life* const life = oracle_.find_life(hash, head.epoch);
    if (life == nullptr || life->head() != head.update_id) return trace_.fail("the master has lost count");
    if (client.ear(map).position() != head) trace_.fail(client.name(), "'s ear is not at the head");
    for (const auto& replica : client.replicas()) {
      if (replica->has_ended() || replica->hash() != hash) continue;
      const auto view = replica->replica().view();
      const LinkStatus status = replica->replica().status();
      if (replica->holds() && view.epoch() != head.epoch && status.reason == StateErrc::epoch_changed)
        continue;
      if (view.position() != head) {
        trace_.fail(replica->name(), " ends at ", view.update_id(), ", the master at ", head.update_id, "; ",
                    to_string(status.state), " ", status.reason.message());
      }
      if (values_of(view) != life->states.back())
        trace_.fail(replica->name(), " does not end equal to the master");
      if (status.state != LinkState::live)
        trace_.fail(replica->name(), " is ", to_string(status.state), ": ", status.reason.message(), " ",
                    status.detail);
      if (replica->replica().age() > 6s) trace_.fail(replica->name(), " does not know that it is up to date");
    }
  }

  SeededOpenssl openssl_;
  Chance chance_;
  inproc::VirtualTime time_;
  Trace trace_{[this] { return time_.now(); }};
  Oracle oracle_{trace_};
  std::shared_ptr<const std::function<void()>> after_step_ =
      std::make_shared<const std::function<void()>>([this] { after_step(); });
  std::shared_ptr<Network> network_ = std::make_shared<Network>(chance_, trace_, most_frame_bytes);
  std::shared_ptr<Executor> repeater_executor_;
  std::vector<std::shared_ptr<const Map>> models_;
  ServerCoreOptions server_options_;
  std::unique_ptr<Master> master_;
  std::vector<std::unique_ptr<Master>> dead_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::shared_ptr<Repeater> repeater_;
  Tally tally_;
  std::size_t last_client_ = 0;
  std::size_t last_value_ = 0;
};

}  // namespace syncstate::simulation

#endif
