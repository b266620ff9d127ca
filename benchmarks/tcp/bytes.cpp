// What one update of one value is on the wire, TLS included.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "support/sample_map.hpp"
#include "support/tcp_info.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "systems/server.hpp"
#include "systems/syncstate_server.hpp"
#include "systems/system.hpp"
#include "tcp/cases.hpp"

namespace benchmarks {
namespace {

namespace ss = syncstate;

/// Sends one update after the other; waits for each.
class OneByOne final : public Witness {
 public:
  explicit OneByOne(System& system) : system_(system) {
    system.add_publisher();
    system.add_subscribers(1);
    run(10);
  }

  void answered(std::size_t /*publisher*/, std::size_t /*count*/) override {}
  void delivered(std::size_t /*subscriber*/, std::uint64_t /*number*/) override { is_delivered_ = true; }

  /// Returns what the subscriber has received for each.
  double run(std::size_t count) {
    const double before = system_.received_bytes();
    for (std::size_t i = 0; i < count; ++i) {
      is_delivered_ = false;
      system_.publish(0, ++number_);
      system_.flush();
      while (!is_delivered_) system_.turn(System::endless, *this);
    }
    return (system_.received_bytes() - before) / static_cast<double>(count);
  }

 private:
  System& system_;
  std::uint64_t number_ = 0;
  bool is_delivered_ = false;
};

/// An integer that no trick makes small.
std::int64_t integer(std::uint64_t number) { return static_cast<std::int64_t>(number) * 1'000'003; }
std::string short_text(std::uint64_t number) { return sample_value(number).substr(12); }

/// The same with a map of ours whose values are of another type; `value(number)` makes them. The master changes them.
template <class F>
double bytes_of_ours(std::size_t count, F value) {
  using V = decltype(value(0));
  const auto fill_map = [&](ss::StateMap<std::string, V> map) {
    for (std::size_t i = 0; i < sample_keys; ++i) map.push(sample_key(i), value(i));
    map.freeze();
    return map;
  };
  ForkedServer server([&](ChildDuty& duty) {
    ss::tcp::TcpStateServer<std::string, V, SetOne> master(sample_server_options());
    const auto handle = master.host(fill_map(ss::StateMap<std::string, V>(ss::Role::master)));
    master.start();
    duty.listens_at(master.endpoint());
    for (std::uint64_t number = 1; duty.next_word(); ++number) {
      handle.modify([&](auto& map) { map.set(sample_key(number % sample_keys), value(number)); });
    }
  });
  const auto remote = std::make_shared<ss::tcp::TcpStateRemote>(sample_remote_options(server.endpoint()));
  ss::Replica<std::string, V> replica(fill_map(ss::StateMap<std::string, V>(remote)));
  ss::UpdateId last = 0;
  const auto change = [&] {
    server.tell('c');
    if (!replica.wait_for(++last, std::chrono::seconds(10)))
      throw std::runtime_error("a change did not come");
  };
  change();
  const int socket = *tcp_connections().begin();
  const double before = received_bytes(socket);
  for (std::size_t i = 0; i < count; ++i) change();
  return (received_bytes(socket) - before) / static_cast<double>(count);
}

}  // namespace

void measure_bytes(const Settings& settings, Report& report) {
  const std::size_t count = settings.count(1'000, 50);
  const auto add = [&](SystemKind kind, const char* what, double bytes) {
    report.add_beside(name_of(kind), what, "bytes", bytes);
  };
  // The peers carry text: an integer has ten digits there.
  const struct {
    const char* name;
    std::size_t bytes;
  } values[] = {{"an `int64`", 10}, {"a string of 4", 4}, {"a string of 16", 16}};
  for (const SystemKind kind : {SystemKind::redis, SystemKind::nats, SystemKind::nats_kv}) {
    for (const auto& value : values) {
      const auto system = start_system(kind, {.value_bytes = value.bytes});
      add(kind, value.name, system ? OneByOne(*system).run(count) : missing);
    }
  }
  const double ours[] = {bytes_of_ours(count, integer), bytes_of_ours(count, short_text),
                         bytes_of_ours(count, sample_value)};
  for (std::size_t i = 0; i < 3; ++i) add(SystemKind::syncstate, values[i].name, ours[i]);
  report.add("syncstate: an `int64`", "bytes", ours[0], "≤ 32");
  report.add("syncstate: a string of 4", "bytes", ours[1], "≤ 32");
}

}  // namespace benchmarks
