// Calls that are due when a replica has reached an update id.
#ifndef SYNCSTATE_DETAIL_REPLICA_PENDING_WAITS_HPP
#define SYNCSTATE_DETAIL_REPLICA_PENDING_WAITS_HPP

#include <map>
#include <memory>
#include <system_error>
#include <utility>

#include "syncstate/detail/unique_function.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Functions by the update id that they wait for; each is taken out before it is called, so it is called
/// once.
///
/// Threads: the owner's lock.
class PendingWaits {
 public:
  using Function = UniqueFunction<void(std::error_code)>;
  using Calls = std::multimap<UpdateId, std::shared_ptr<Function>>;

  void add(UpdateId id, std::shared_ptr<Function> function) { calls_.emplace(id, std::move(function)); }

  /// False if it was taken already.
  bool remove(UpdateId id, const std::shared_ptr<Function>& function) {
    const auto [first, last] = calls_.equal_range(id);
    for (auto it = first; it != last; ++it) {
      if (it->second != function) continue;
      calls_.erase(it);
      return true;
    }
    return false;
  }

  /// Moves those that wait for `id` or less to `out`, in ascending order; allocates nothing.
  void take_upto(UpdateId id, Calls& out) noexcept {
    while (!calls_.empty() && calls_.begin()->first <= id) out.insert(calls_.extract(calls_.begin()));
  }

  void take_all(Calls& out) noexcept { out.merge(calls_); }

 private:
  Calls calls_;
};

}  // namespace syncstate::detail

#endif
