// Which links a server has, so that no address can take the room of all others.
#ifndef SYNCSTATE_DETAIL_SERVER_LINK_TABLE_HPP
#define SYNCSTATE_DETAIL_SERVER_LINK_TABLE_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "syncstate/executor.hpp"
#include "syncstate/limits.hpp"

namespace syncstate::detail {

/// Counts links by address, bounds those that are not authenticated yet, and remembers failed proofs.
///
/// Threads: every member from any thread.
class LinkTable {
 public:
  using LinkId = std::uint64_t;

  explicit LinkTable(const Limits& limits) : limits_(&limits) {}

  struct Admission {
    bool is_admitted = false;
    std::optional<LinkId> evicted;  ///< a pending link to close so that the newcomer has room
  };

  /// A connection was accepted. Where the pending ones are too many, the address that holds most of them
  /// gives way: the newcomer itself if it comes from there, else the oldest one from there.
  Admission admit(LinkId link, const std::string& address) {
    const std::lock_guard lock(mutex_);
    if (total_ >= limits_->links || count_of(address) >= limits_->links_per_address) return {};
    Admission admission;
    if (pending_.size() >= limits_->pending_links) {
      const std::string crowded = most_pending();
      if (crowded.empty() || crowded == address) return {};
      const auto oldest = std::find_if(pending_.begin(), pending_.end(),
                                       [&](const Pending& p) { return p.address == crowded; });
      admission.evicted = oldest->link;
      pending_.erase(oldest);
    }
    pending_.push_back(Pending{link, address});
    ++total_;
    ++addresses_[address].links;
    admission.is_admitted = true;
    return admission;
  }

  /// The link proved itself.
  void authenticated(LinkId link) {
    const std::lock_guard lock(mutex_);
    drop_pending(link);
  }

  /// The link is gone.
  void closed(LinkId link, const std::string& address) {
    const std::lock_guard lock(mutex_);
    drop_pending(link);
    --total_;
    const auto found = addresses_.find(address);
    if (found == addresses_.end()) return;
    --found->second.links;
    forget_idle(found);
  }

  /// A proof from this address did not hold.
  void proof_failed(const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    if (now - swept_at_ >= std::chrono::minutes(1)) sweep(now);
    auto& failures = addresses_[address].failed_proofs;
    failures.push_back(now);
    if (failures.size() > limits_->failed_proofs_per_minute) failures.pop_front();
  }

  /// True while this address has used up its wrong proofs of a minute.
  bool is_barred(const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    const auto found = addresses_.find(address);
    if (found == addresses_.end()) return false;
    auto& failures = found->second.failed_proofs;
    while (!failures.empty() && now - failures.front() >= std::chrono::minutes(1)) failures.pop_front();
    return failures.size() >= limits_->failed_proofs_per_minute;
  }

  [[nodiscard]] std::size_t total() const {
    const std::lock_guard lock(mutex_);
    return total_;
  }

 private:
  struct Pending {
    LinkId link;
    std::string address;
  };
  struct Address {
    std::size_t links = 0;
    std::deque<TimePoint> failed_proofs;
  };

  /// Forgets addresses that have no link, and no failed proof within the last minute.
  void sweep(TimePoint now) {
    swept_at_ = now;
    for (auto at = addresses_.begin(); at != addresses_.end();) {
      auto& failures = at->second.failed_proofs;
      while (!failures.empty() && now - failures.front() >= std::chrono::minutes(1)) failures.pop_front();
      at = at->second.links == 0 && failures.empty() ? addresses_.erase(at) : std::next(at);
    }
  }

  [[nodiscard]] std::size_t count_of(const std::string& address) const {
    const auto found = addresses_.find(address);
    return found == addresses_.end() ? 0 : found->second.links;
  }

  [[nodiscard]] std::string most_pending() const {
    std::map<std::string, std::size_t> counts;
    std::string most;
    for (const Pending& p : pending_) {
      const std::size_t count = ++counts[p.address];
      if (most.empty() || count > counts[most]) most = p.address;
    }
    return most;
  }

  void drop_pending(LinkId link) {
    std::erase_if(pending_, [&](const Pending& p) { return p.link == link; });
  }

  void forget_idle(std::map<std::string, Address>::iterator at) {
    if (at->second.links == 0 && at->second.failed_proofs.empty()) addresses_.erase(at);
  }

  const Limits* limits_;
  mutable std::mutex mutex_;
  std::list<Pending> pending_;  // the oldest first
  std::map<std::string, Address> addresses_;
  std::size_t total_ = 0;
  TimePoint swept_at_{};
};

}  // namespace syncstate::detail

#endif
