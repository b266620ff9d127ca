// A small world of masters, remotes and replicas to which everything happens at random, on virtual time.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/inproc_world.hpp"

namespace syncstate::testing {
namespace {

struct SimulationOptions {
  bool has_restarts = false;  ///< the master is replaced now and then, and loses its maps
  bool has_deafness = false;  ///< links fall silent without being cut
};

/// Checks while it runs that no replica goes back or shows a state that the master never had.
class Simulation {
 public:
  Simulation(unsigned seed, SimulationOptions options)
      : options_(options), random_(seed), world_(server_options()) {
    for (std::size_t r = 0; r < remote_count; ++r) {
      Client& client = clients_.emplace_back();
      RemoteCoreOptions remote_options;
      remote_options.limits.piece_bytes = 300;
      client.remote = world_.connect(remote_options);
      for (std::size_t m = 0; m < key_counts.size(); ++m) {
        Map map(client.remote);
        push_keys(map, key_counts[m]);
        map.freeze(0ms);
        const bool is_every_step = below(3) == 0;
        client.replicas.push_back(
            std::make_unique<Follower>(Map(map), ReplicaOptions{.every_step = is_every_step}));
        client.maps.push_back(std::move(map));
        client.seen.emplace_back();
      }
    }
  }

  void run(int actions) {
    for (int i = 0; i < actions; ++i) {
      act();
      world_.run_steps(below(60), std::chrono::milliseconds(below(3) == 0 ? below(2'000) : 0));
      check_replicas();
    }
  }

  void heal_and_settle() {
    auto& faults = world_.port->faults();
    faults = inproc::WireFaults{};
    world_.port->set_unreachable(false);
    world_.port->resume_reading();
    world_.time.advance(120s);
    for (Client& client : clients_) {
      for (std::size_t m = 0; m < client.maps.size(); ++m) {
        REQUIRE(client.replicas[m]->status().state == LinkState::live);
        Map copy = client.maps[m];
        REQUIRE_NOTHROW(copy.sync());
        REQUIRE(client.replicas[m]->epoch() == copy.epoch());
        REQUIRE(client.replicas[m]->update_id() == copy.update_id());
        REQUIRE(values_of(client.replicas[m]->view()) == values_of(copy));
        REQUIRE(client.replicas[m]->age() <= 6s);
      }
    }
  }

  /// Every event ran at most once; one that was answered did, one that was `unavailable` did not.
  void check_events() {
    std::map<std::string, int> runs;
    for (const std::string& value : world_.runs) ++runs[value];
    std::size_t answered = 0;
    for (const auto& [value, sent] : events_) {
      INFO("event " << value);
      REQUIRE(sent.is_finished());
      const std::error_code error = sent.error();
      REQUIRE(runs[value] <= 1);
      if (!error) {
        ++answered;
        REQUIRE(runs[value] == 1);
      } else if (error == StateErrc::unavailable) {
        REQUIRE(runs[value] == 0);
      } else {
        // An event may be too early for a remote that could not introduce its map yet, or to a master that
        // restarted.
        REQUIRE((error == StateErrc::outcome_unknown || error == StateErrc::not_hosted));
      }
    }
    CHECK(answered > 0);
  }

 private:
  static constexpr std::size_t remote_count = 3;
  static constexpr std::array<std::size_t, 2> key_counts{3, 40};

  struct Seen {
    Epoch epoch = 0;
    UpdateId update_id = 0;
  };
  struct Client {
    std::shared_ptr<Remote> remote;
    std::vector<Map> maps;
    std::vector<std::unique_ptr<Follower>> replicas;
    std::vector<Seen> seen;
  };

  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }

  static ServerCoreOptions server_options() {
    ServerCoreOptions options;
    options.limits.piece_bytes = 300;
    options.map_options.log_diffs = 10;
    return options;
  }

  void act() {
    auto& faults = world_.port->faults();
    switch (below(12)) {
      case 0: world_.port->cut_all(); break;
      case 1: world_.port->set_unreachable(below(3) == 0); break;
      case 2: faults.read_bytes = 1 + below(400); break;
      case 3: faults.buffer_bytes = 1 + below(3'000); break;
      case 4:
        if (!options_.has_deafness) break;
        faults.is_client_deaf = below(3) == 0;
        faults.is_server_deaf = below(4) == 0;
        world_.port->resume_reading();
        break;
      case 5:
        if (options_.has_restarts && below(4) == 0) world_.restart(server_options());
        break;
      default: send(); break;
    }
  }

  void send() {
    Client& client = clients_[below(remote_count)];
    const std::size_t m = below(2);
    const std::string value = std::to_string(events_.size()) + std::string(below(20), '.');
    const std::string key = key_name(below(static_cast<std::uint32_t>(key_counts[m])));
    const Change change = below(4) == 0 ? set_all(value) : set_key(key, value);
    events_.emplace_back(value, Sent::send(world_, client.remote, client.maps[m].hash(), change));
  }

  void check_replicas() {
    for (Client& client : clients_) {
      for (std::size_t m = 0; m < client.maps.size(); ++m) {
        const auto view = client.replicas[m]->view();
        Seen& seen = client.seen[m];
        REQUIRE((view.epoch() != seen.epoch || view.update_id() >= seen.update_id));
        seen = {view.epoch(), view.update_id()};
        // Two replicas at one position show the same.
        auto& known = states_[{m, view.epoch(), view.update_id()}];
        auto values = values_of(view);
        if (known.empty()) known = values;
        REQUIRE(known == values);
      }
    }
  }

  SimulationOptions options_;
  std::mt19937 random_;
  World world_;
  std::vector<Client> clients_;
  std::vector<std::pair<std::string, Sent>> events_;
  std::map<std::tuple<std::size_t, Epoch, UpdateId>, std::vector<std::string>> states_;
};

}  // namespace

TEST_CASE(
    "whatever the links and the master do, every replica ends equal to the master and no event runs twice") {
  const auto seed = GENERATE(range(1u, 41u));
  const SimulationOptions options{.has_restarts = seed % 2 == 0, .has_deafness = seed % 4 >= 2};
  INFO("seed " << seed);
  Simulation simulation(seed, options);
  simulation.run(300);
  simulation.heal_and_settle();
  simulation.check_events();
}

TEST_CASE("what is asked of a server is answered though the link is cut in between, wherever that is") {
  const std::string question = GENERATE("freeze", "attach", "sync", "hosted", "differing key", "event");
  INFO(question);
  for (std::size_t cut_after = 0; cut_after < 900; cut_after += 5) {
    ServerCoreOptions options;
    options.allow_uploads = question != "differing key";
    options.limits.piece_bytes = 20;
    World world(options);
    const Handle handle = world.host(6);
    handle.modify([](Map& map) { map.set("key01", "x"); });
    const auto remote = world.connect();
    Map known = world.make_map(remote, 6);
    world.port->faults().read_bytes = 1;
    // Cuts the links when every executor had so many turns.
    const auto executor = world.time.make_executor();
    const auto left = std::make_shared<std::size_t>(cut_after);
    const auto cut = std::make_shared<std::function<void()>>();
    *cut = [&world, executor, left, weak = std::weak_ptr(cut)] {
      const auto again = weak.lock();
      if (!again) return;
      if (*left == 0) return world.port->cut_all();
      --*left;
      executor->post([again] { (*again)(); });
    };
    executor->post([cut] { (*cut)(); });
    INFO("cut after " << cut_after << " turns");
    Map map(remote);
    if (question == "freeze") {
      push_keys(map, 9);
      REQUIRE_NOTHROW(map.freeze());
      CHECK(remote->hosted().size() == 2);
    } else if (question == "attach") {
      map = remote->attach<std::string, std::string>(handle.hash());
      REQUIRE(map.size() == 6);
    } else if (question == "sync") {
      REQUIRE(known.sync() == 1);
      REQUIRE(known.at("key01") == "x");
    } else if (question == "hosted") {
      REQUIRE(remote->hosted().size() == 1);
    } else if (question == "event") {
      REQUIRE(remote->send_event(handle.hash(), set_key("key02", "y")) == 2);
      REQUIRE(world.runs.size() == 1);
    } else {
      for (std::size_t i = 0; i < 6; ++i) map.push(key_name(i), i >= 4 ? "other" : "-");
      std::error_code code;
      std::string detail;
      try {
        map.freeze();
      } catch (const StateError& error) {
        code = error.code();
        detail = error.detail();
      }
      REQUIRE(code == StateErrc::hash_mismatch);
      REQUIRE_THAT(detail, contains_text("key04"));
    }
  }
}

}  // namespace syncstate::testing
