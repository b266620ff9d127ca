// A master's process: a real server core with hooks that tell the oracle what they do.
#ifndef SYNCSTATE_TESTS_SIMULATION_MASTER_HPP
#define SYNCSTATE_TESTS_SIMULATION_MASTER_HPP

#include <cstddef>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "simulation/chance.hpp"
#include "simulation/executors.hpp"
#include "simulation/network.hpp"
#include "simulation/oracle.hpp"
#include "syncstate/server_core.hpp"

namespace syncstate::simulation {

using Core = ServerCore<std::string, std::string, Command>;
using Handle = MasterHandle<std::string, std::string>;

inline const std::string password = "HelloWorld";
inline const std::string counter_key = "count";

/// What hooks throw on purpose.
struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The keys that a command sets, in a map of so many.
inline std::vector<std::size_t> keys_set_by(const Command& command, std::size_t keys) {
  std::size_t count = 1;
  if (command.what == Command::What::set_nothing) count = 0;
  if (command.what == Command::What::set_some) count = 1 + keys / 3;
  if (command.what == Command::What::set_all) count = keys;
  std::vector<std::size_t> set;
  for (std::size_t i = 0; i < count; ++i) set.push_back((command.first_key + i) % keys);
  return set;
}

/// One life of the server. The first hook does what the event says, the second counts events in a key of its own: both
/// or neither are seen.
class Master {
 public:
  Master(inproc::VirtualTime& time, Network& network, Oracle& oracle, Chance& chance, Trace& trace,
         const ServerCoreOptions& options, std::shared_ptr<const std::function<void()>> after_step)
      : network_(&network),
        oracle_(&oracle),
        chance_(&chance),
        trace_(&trace),
        pool_(std::make_shared<SlowPool>(time, slowness_, chance)),
        executor_(std::make_shared<ProcessExecutor>(time.make_executor(), clock_, std::move(after_step))),
        core_(Core::create(options, pool_)),
        lane_(core_->add_lane(executor_)) {
    core_->add_hook([this](Map& map, const Event<Command>& event) { do_as_told(map, event.content); });
    core_->add_hook([this](Map& map, const Event<Command>& event) { count(map, event.content); });
    core_->add_init_hook([this](const Handle& handle) { init(handle); });
    core_->start();
    network_->listen(executor_, [this](std::shared_ptr<NetworkEnd> end, const std::string& address) {
      return core_->accept(lane_, address, [&end] { return std::move(end); });
    });
  }
  Master(const Master&) = delete;
  Master& operator=(const Master&) = delete;

  /// The process dies here and now; what it had not sent is never sent.
  void die(bool clients_hear) {
    pool_->stop();
    network_->kill_server(clients_hear);
    core_->stop();
  }

  /// Ends in good order.
  void stop() { core_->stop(); }

  [[nodiscard]] Core& core() { return *core_; }
  [[nodiscard]] detail::Lane& lane() { return *lane_; }
  [[nodiscard]] Clock& clock() { return *clock_; }
  [[nodiscard]] Slowness& slowness() { return *slowness_; }
  /// The maps that live here.
  [[nodiscard]] const std::map<MapHash, Handle>& handles() const { return handles_; }

  /// A change that comes from the master's own process.
  void modify(const Handle& handle, std::size_t key, const std::string& value) {
    handle.modify([&](Map& map) {
      oracle_->commit(map.hash(), map.epoch(), {{key, value}});
      map.set(oracle_->keys(map.hash())[key], value);
      trace_->add("the master sets ", oracle_->keys(map.hash())[key], " as ", map.update_id() + 1);
    });
  }

 private:
  void init(const Handle& handle) {
    oracle_->begin(handle.hash(), handle.epoch());
    trace_->add("a map of ", oracle_->keys(handle.hash()).size(), " keys comes to live");
    handles_.emplace(handle.hash(), handle);
    if (chance_->one_in(3)) modify(handle, 0, "by an init hook");
  }

  void do_as_told(Map& map, const Command& command) {
    oracle_->run(map.hash(), map.epoch(), command);
    const auto& keys = oracle_->keys(map.hash());
    changes_.clear();
    for (const std::size_t key : keys_set_by(command, keys.size())) {
      map.set(keys[key], command.value);
      changes_[key] = command.value;
    }
    if (command.what == Command::What::throw_early) throw Refusal("early");
  }

  void count(Map& map, const Command& command) {
    UpdateId id = map.update_id();
    if (!changes_.empty()) {
      const auto& keys = oracle_->keys(map.hash());
      const auto key =
          static_cast<std::size_t>(std::lower_bound(keys.begin(), keys.end(), counter_key) - keys.begin());
      // From what the map says: so a commit that is lost or doubled shows.
      const auto text = std::to_string(std::stoull("0" + map.at(counter_key)) + 1);
      map.set(counter_key, text);
      changes_[key] = text;
      if (command.what == Command::What::throw_late) throw Refusal("late");
      oracle_->commit(map.hash(), map.epoch(), changes_);
      ++id;
    }
    oracle_->ran(command, id);
    trace_->add("event ", command.number, " of sender ", command.sender, " runs, and is at ", id);
  }

  Network* network_;
  Oracle* oracle_;
  Chance* chance_;
  Trace* trace_;
  std::shared_ptr<Clock> clock_ = std::make_shared<Clock>();
  std::shared_ptr<Slowness> slowness_ = std::make_shared<Slowness>();
  std::shared_ptr<SlowPool> pool_;
  std::shared_ptr<ProcessExecutor> executor_;
  std::shared_ptr<Core> core_;
  std::shared_ptr<detail::Lane> lane_;
  std::map<MapHash, Handle> handles_;
  std::map<std::size_t, std::string> changes_;  // of the event that runs
};

}  // namespace syncstate::simulation

#endif
