// Which links a server has, so that no address can take the room of all others.
#ifndef SYNCSTATE_DETAIL_SERVER_LINK_TABLE_HPP
#define SYNCSTATE_DETAIL_SERVER_LINK_TABLE_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <ratio>
#include <string>
#include <vector>

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
  /// Complexity: O(pending links), and O(addresses) once a minute, or once in so many newcomers as there are addresses.
  Admission admit(LinkId link, const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    if (total_ >= limits_->links || limits_->pending_links == 0) return {};
    if (now - swept_at_ >= std::chrono::minutes(1)) sweep(now);
    if (addresses_.size() >= limits_->addresses) forget_most(now);
    const auto at = addresses_.try_emplace(address).first;
    Admission admission;
    if (at->second.links >= limits_->links_per_address || !has_credit(at->second, now) ||
        !make_room(at->second, admission)) {
      forget_idle(at, now);
      return {};
    }
    pending_.push_back(Pending{link, &at->second});
    ++total_;
    ++at->second.links;
    ++at->second.pending;
    ++at->second.unproven;
    admission.is_admitted = true;
    return admission;
  }

  /// The link proved itself: it is held against its address no longer.
  void authenticated(LinkId link) {
    const std::lock_guard lock(mutex_);
    const auto found = find_pending(link);
    if (found == pending_.end()) return;
    found->address->unproven = std::max(0.0, found->address->unproven - 1);
    drop_pending(found);
  }

  /// The link is gone.
  void closed(LinkId link, const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    if (const auto found = find_pending(link); found != pending_.end()) drop_pending(found);
    --total_;
    const auto found = addresses_.find(address);
    if (found == addresses_.end()) return;
    --found->second.links;
    forget_idle(found, now);
  }

  /// A proof from this address did not hold.
  void proof_failed(const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    auto& failures = addresses_[address].failed_proofs;
    failures.push_back(now);
    if (failures.size() > limits_->failed_proofs_per_minute) failures.erase(failures.begin());
  }

  /// True while this address has used up its wrong proofs of a minute.
  bool is_barred(const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    const auto found = addresses_.find(address);
    if (found == addresses_.end()) return false;
    drop_old_failures(found->second, now);
    return found->second.failed_proofs.size() >= limits_->failed_proofs_per_minute;
  }

  [[nodiscard]] std::size_t total() const {
    const std::lock_guard lock(mutex_);
    return total_;
  }

  /// How many addresses are remembered.
  [[nodiscard]] std::size_t addresses() const {
    const std::lock_guard lock(mutex_);
    return addresses_.size();
  }

 private:
  struct Address {
    std::size_t links = 0;
    std::size_t pending = 0;
    // Links that have not proved themselves, yet or ever: falls by the limit in a minute.
    double unproven = 0;
    TimePoint unproven_as_of{};
    std::vector<TimePoint> failed_proofs;  // the oldest first, and few; empty it takes next to nothing
  };
  struct Pending {
    LinkId link;
    Address* address;  // nodes of a map stay where they are; an address with a link is not forgotten
  };
  using Addresses = std::map<std::string, Address>;

  static void drop_old_failures(Address& address, TimePoint now) {
    auto& failures = address.failed_proofs;
    const auto is_old = [&](TimePoint at) { return now - at >= std::chrono::minutes(1); };
    failures.erase(failures.begin(), std::find_if_not(failures.begin(), failures.end(), is_old));
  }

  void let_unproven_fall(Address& address, TimePoint now) const {
    if (now <= address.unproven_as_of) return;
    const std::chrono::duration<double, std::ratio<60>> minutes = now - address.unproven_as_of;
    const double fallen = minutes.count() * static_cast<double>(limits_->unproven_links_per_minute);
    address.unproven = std::max(0.0, address.unproven - fallen);
    address.unproven_as_of = now;
  }

  [[nodiscard]] bool has_credit(Address& address, TimePoint now) const {
    let_unproven_fall(address, now);
    return address.unproven + 1 <= static_cast<double>(limits_->unproven_links_per_minute);
  }

  /// Evicts a pending link where there are too many; false if the newcomer's own address is the crowded one.
  bool make_room(const Address& newcomer, Admission& admission) {
    if (pending_.size() < limits_->pending_links) return true;
    const auto more = [](const Pending& a, const Pending& b) {
      return a.address->pending < b.address->pending;
    };
    const Address* const crowded = std::max_element(pending_.begin(), pending_.end(), more)->address;
    if (crowded == &newcomer) return false;
    const auto oldest = std::find_if(pending_.begin(), pending_.end(),
                                     [&](const Pending& p) { return p.address == crowded; });
    admission.evicted = oldest->link;
    drop_pending(oldest);
    return true;
  }

  [[nodiscard]] std::list<Pending>::iterator find_pending(LinkId link) {
    return std::find_if(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.link == link; });
  }

  void drop_pending(std::list<Pending>::iterator at) {
    --at->address->pending;
    pending_.erase(at);
  }

  /// Forgets an address that has no link, and nothing held against it.
  Addresses::iterator forget_idle(Addresses::iterator at, TimePoint now) {
    Address& address = at->second;
    if (address.links != 0) return std::next(at);
    drop_old_failures(address, now);
    let_unproven_fall(address, now);
    const bool is_idle = address.unproven == 0 && address.failed_proofs.empty();
    return is_idle ? addresses_.erase(at) : std::next(at);
  }

  void sweep(TimePoint now) {
    swept_at_ = now;
    for (auto at = addresses_.begin(); at != addresses_.end();) at = forget_idle(at, now);
  }

  /// Too many addresses are remembered, those of an attacker who has many: the ones that failed once go first, and
  /// where they are not most of them, all that have no link.
  void forget_most(TimePoint now) {
    sweep(now);
    const auto forget = [this](auto is_forgotten) {
      std::erase_if(addresses_,
                    [&](const auto& entry) { return entry.second.links == 0 && is_forgotten(entry.second); });
    };
    forget([](const Address& address) { return address.unproven <= 1 && address.failed_proofs.size() <= 1; });
    if (addresses_.size() > limits_->addresses / 2) {
      forget([](const Address&) { return true; });
    }
  }

  const Limits* limits_;
  mutable std::mutex mutex_;
  std::list<Pending> pending_;  // the oldest first
  Addresses addresses_;
  std::size_t total_ = 0;
  TimePoint swept_at_{};
};

}  // namespace syncstate::detail

#endif
