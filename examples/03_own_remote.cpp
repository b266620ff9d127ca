// A Remote of your own: where the state lives in something that is no byte stream, a database say, it takes a
// few lines to follow it with the same maps and replicas. This one can't be subscribed to, so the replica
// polls.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <syncstate/replica.hpp>
#include <syncstate/syncstate.hpp>
#include <utility>
#include <vector>

namespace ss = syncstate;
using Map = ss::StateMap<std::string, int>;

struct SetStock {
  std::string item;
  int count;
};

/// Stands for the database: a table of changes, numbered from 1.
struct Warehouse {
  std::mutex mutex;
  std::vector<SetStock> changes;
};

class WarehouseRemote {
 public:
  explicit WarehouseRemote(std::shared_ptr<Warehouse> warehouse) : warehouse_(std::move(warehouse)) {}

  /// Called by `map.freeze()`: throw StateError if the other side can't serve this map.
  void init(const Map& map) {
    if (!map.contains("apples"))
      throw ss::StateError(ss::StateErrc::not_hosted, "no warehouse without apples");
  }

  /// What happened since the map's position.
  ss::Diff<std::string, int> fetch_updates(const Map& map, ss::UpdateId upto) {
    const std::lock_guard lock(warehouse_->mutex);
    const ss::UpdateId from = map.update_id();
    const ss::UpdateId head = std::max(from, std::min<ss::UpdateId>(upto, warehouse_->changes.size()));
    ss::Diff<std::string, int> diff(map, epoch, from, head);
    for (ss::UpdateId id = from; id < head; ++id) {
      diff.set(warehouse_->changes[id].item, warehouse_->changes[id].count);
    }
    return diff;
  }

  /// What makes it an EventBroadcaster: events go the same way.
  ss::UpdateId send_event(const ss::MapHash&, const ss::SerializedEvent& event) {
    SetStock change = ss::Event<SetStock>::deserialize(event.bytes).content;
    const std::lock_guard lock(warehouse_->mutex);
    warehouse_->changes.push_back(std::move(change));
    return warehouse_->changes.size();
  }

 private:
  static constexpr ss::Epoch epoch = 1;  // this history never starts anew

  std::shared_ptr<Warehouse> warehouse_;
};

static_assert(ss::Remote<WarehouseRemote, std::string, int>);
static_assert(ss::EventBroadcaster<WarehouseRemote>);

int main() {
  const auto remote = std::make_shared<WarehouseRemote>(std::make_shared<Warehouse>());
  Map map(remote);
  map.push("apples", 0);
  map.push("pears", 0);
  map.freeze();

  ss::Replica<std::string, int> replica(std::move(map),
                                        ss::ReplicaOptions{.poll_every = std::chrono::milliseconds(1)});
  remote->send_event(replica.hash(), ss::serialize_event(ss::Event<SetStock>{{"apples", 12}}));
  const auto id = remote->send_event(replica.hash(), ss::serialize_event(ss::Event<SetStock>{{"pears", 7}}));
  if (!replica.wait_for(id, std::chrono::seconds(10))) return 1;

  const auto view = replica.view();
  for (const auto& [item, count] : view) std::cout << item << ": " << count << "\n";
  return view.at("apples") == 12 && view.at("pears") == 7 ? 0 : 1;
}
