// Follows a remote that can only be asked: fetches what is new, again and again.
#ifndef SYNCSTATE_DETAIL_REPLICA_REPLICA_POLLER_HPP
#define SYNCSTATE_DETAIL_REPLICA_REPLICA_POLLER_HPP

#include <exception>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/replica/replica_core.hpp"
#include "syncstate/error.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/remote.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/status.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Feeds a replica's core from `fetch_updates`. What fails is told as status and tried again at the same
/// pace.
///
/// Threads : runs on the core's executor alone.
/// Lifetime: kept by the core until it is closed. A fetch under way keeps both alive, so that nobody waits
/// for it.
template <class K, class V>
class ReplicaPoller final : public std::enable_shared_from_this<ReplicaPoller<K, V>> {
 public:
  ReplicaPoller(StateMap<K, V>&& map, const std::shared_ptr<ReplicaCore<K, V>>& core, Duration every)
      : map_(std::move(map)), core_(core), every_(every) {
    status_.since = core->now();
  }

  void start(Executor& executor) {
    executor.post([weak = this->weak_from_this()] { poll(weak); });
  }

 private:
  static void poll(const std::weak_ptr<ReplicaPoller>& weak) {
    const auto self = weak.lock();
    const auto core = self != nullptr ? self->core_.lock() : nullptr;
    if (core == nullptr || core->is_closed()) return;
    self->fetch(*core);
    if (core->is_closed()) return;
    Executor& executor = core->executor();
    executor.post_at(executor.now() + self->every_, [weak] { poll(weak); });
  }

  void fetch(ReplicaCore<K, V>& core) {
    const TimePoint asked = core.now();  // the answer is the head as of some time after this
    try {
      const Diff<K, V> diff = MapAccess::remote(map_)->fetch_updates(map_, ~UpdateId{0});
      if (!core.accept(Diff<K, V>(diff), asked)) {
        map_.apply(diff);
        core.on_current(asked);
      }
      tell(core, LinkState::live, {}, {});
    } catch (const StateError& error) {
      const bool is_lost = error.code() == StateErrc::unavailable;
      const LinkState lost =
          status_.state == LinkState::connecting ? LinkState::connecting : LinkState::stale;
      tell(core, is_lost ? lost : LinkState::failed, error.code(), error.detail());
    } catch (const std::system_error& error) {
      core.report_error();
      tell(core, LinkState::failed, error.code(), error.what());
    } catch (const std::exception& error) {
      core.report_error();
      tell(core, LinkState::failed, std::make_error_code(std::errc::io_error), error.what());
    } catch (...) {
      core.report_error();
      tell(core, LinkState::failed, std::make_error_code(std::errc::io_error), {});
    }
  }

  void tell(ReplicaCore<K, V>& core, LinkState state, std::error_code reason, std::string detail) {
    if (state != status_.state) status_.since = core.now();
    status_.state = state;
    status_.reason = reason;
    status_.detail = std::move(detail);
    core.on_status(status_);
  }

  StateMap<K, V> map_;  // where we are, for the remote; its values are what the core was given
  const std::weak_ptr<ReplicaCore<K, V>> core_;
  const Duration every_;
  LinkStatus status_;
};

}  // namespace syncstate::detail

#endif
