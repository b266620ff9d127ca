// A client that comes anew: until its replica can be read, beside what Redis needs to load the same.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/sample_map.hpp"
#include "support/tcp_info.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "systems/proxy.hpp"
#include "systems/redis_load.hpp"
#include "systems/syncstate_server.hpp"
#include "tcp/cases.hpp"

#include <asio/io_context.hpp>

namespace benchmarks {
namespace {

namespace ss = syncstate;
using Replica = ss::Replica<std::string, std::string>;

/// Hosts a map, and sets as many of its keys as it is told: 'h' a hundredth, 'a' all.
void serve(ChildDuty& duty, std::size_t keys) {
  ss::tcp::TcpStateServer<std::string, std::string, SetOne> server(sample_server_options());
  const auto handle = server.host(fill(Map(ss::Role::master), keys));
  server.start();
  duty.listens_at(server.endpoint());
  while (const auto word = duty.next_word()) {
    const std::size_t step = *word == 'h' ? 100 : 1;
    handle.modify([&](Map& map) {
      for (std::size_t i = 0; i < keys; i += step) map.set(sample_key(i), sample_value(keys + i));
    });
  }
}

struct Join {
  double milliseconds;
  double bytes;  // received, with the handshake
};

/// Runs a client's context until its replica shows `head`; it begins with nothing but its keys and their values.
Join join(const std::string& endpoint, std::size_t keys, ss::UpdateId head) {
  asio::io_context context(1);
  Map map = fill(Map(std::make_shared<ss::tcp::TcpStateRemote>(context, sample_remote_options(endpoint))),
                 keys, ss::Duration::zero());
  const auto start = Clock::now();
  std::optional<Replica> replica(std::move(map));
  while (replica->epoch() == 0 || replica->update_id() < head) context.run_one();
  const Join result{microseconds(Clock::now() - start) / 1e3, received_bytes(*tcp_connections().begin())};
  replica.reset();
  context.run();
  return result;
}

/// The same of a client that knows only the hash.
Join join_by_hash(const std::string& endpoint, const ss::MapHash& hash, ss::UpdateId head) {
  const auto start = Clock::now();
  const auto remote = std::make_shared<ss::tcp::TcpStateRemote>(sample_remote_options(endpoint));
  Replica replica(remote->attach<std::string, std::string>(hash));
  if (!replica.wait_for(head, std::chrono::seconds(60)))
    throw std::runtime_error("a replica did not come along");
  return {microseconds(Clock::now() - start) / 1e3, received_bytes(*tcp_connections().begin())};
}

void report_join(Report& report, const std::string& what, const Join& join) {
  report.add(what + ", time", "ms", join.milliseconds);
  report.add(what + ", received", "KiB", join.bytes / 1024);
}

void measure(const Settings& settings, Report& report, std::size_t keys, bool counts_round_trips) {
  keys = settings.count(keys, 2'000);
  ForkedServer server([&](ChildDuty& duty) { serve(duty, keys); });
  std::optional<Proxy> proxy;
  if (counts_round_trips) proxy.emplace(server.port());
  const auto load = start_redis_load(keys);

  const ss::MapHash hash = fill(Map(ss::Role::master), keys).hash();
  ss::UpdateId head = 0;
  double all_changed = missing;
  for (const char change : {'n', 'h', 'a'}) {
    const std::string what = change == 'n'   ? "nothing changed"
                             : change == 'h' ? "1 % changed"
                                             : "all changed";
    if (change != 'n') {
      server.tell(change);
      ++head;
      join(server.endpoint(), keys, head);  // so that the change is done
    }
    const Join direct = join(server.endpoint(), keys, head);
    report_join(report, what, direct);
    if (change == 'a') all_changed = direct.milliseconds;
    if (proxy) {
      join(proxy->endpoint(), keys, head);
      const ProxyCounts& counts = proxy->counts();
      const auto bytes = static_cast<double>(counts.bytes_to_client + counts.bytes_to_server);
      report.add(what + ", round trips after the handshake", "", static_cast<double>(counts.round_trips),
                 change == 'n' ? "≤ 2" : "");
      report.add(what + ", both ways after the handshake", "KiB", bytes / 1024, change == 'n' ? "< 1" : "");
    }
    if (change == 'n')
      report_join(report, "only the hash is known, nothing changed",
                  join_by_hash(server.endpoint(), hash, head));
  }
  report_join(report, "only the hash is known, all changed", join_by_hash(server.endpoint(), hash, head));

  const double redis = load ? load->load_ms() : missing;
  report.add("Redis: MGET of all, keys known, into a vector", "ms", redis);
  report.add("all changed: Redis : syncstate", "", redis / all_changed, counts_round_trips ? "" : "≥ 5");
}

}  // namespace

void measure_join_100k(const Settings& settings, Report& report) { measure(settings, report, 100'000, true); }
void measure_join_1m(const Settings& settings, Report& report) {
  measure(settings, report, 1'000'000, false);
}

}  // namespace benchmarks
