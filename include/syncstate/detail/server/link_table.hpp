// Which links a server has, so that no address can take the room of all others.
#ifndef SYNCSTATE_DETAIL_SERVER_LINK_TABLE_HPP
#define SYNCSTATE_DETAIL_SERVER_LINK_TABLE_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <ratio>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/detail/server/pending_links.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/protocol/passwords.hpp"

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
  /// Complexity: O(log addresses), and O(addresses) once a minute, or once per `Limits::addresses` newcomers.
  Admission admit(LinkId link, const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    if (total_ >= limits_->links || limits_->pending_links == 0) return {};
    if (now - swept_at_ >= std::chrono::minutes(1)) sweep(now);
    if (addresses_.size() >= limits_->addresses) forget_most(now);
    const auto at = addresses_.try_emplace(address).first;
    Admission admission;
    if (at->second.links >= limits_->links_per_address || !has_credit(at->second, now) ||
        !make_room(address, admission)) {
      forget_idle(at, now);
      return {};
    }
    pending_.add(link, address);
    ++total_;
    ++at->second.links;
    ++at->second.unproven.level;
    admission.is_admitted = true;
    return admission;
  }

  /// The link proved itself: it is held against its address no longer.
  void authenticated(LinkId link) {
    const std::lock_guard lock(mutex_);
    const std::string* const address = pending_.address_of(link);
    if (address == nullptr) return;
    double& unproven = addresses_[*address].unproven.level;
    unproven = (std::max)(0.0, unproven - 1);
    pending_.remove(link);
  }

  /// The link is gone.
  void closed(LinkId link, const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    pending_.remove(link);
    --total_;
    const auto found = addresses_.find(address);
    if (found == addresses_.end()) return;
    --found->second.links;
    forget_idle(found, now);
  }

  /// Counts a checked proof of a link of this address. Returns false if the address has used up its failed proofs: then
  /// the proof must not be told to be right or wrong, and is not counted either.
  ///
  /// A wrong proof counts for a minute. A right one takes back what failed before, but in a minute no more failed proofs
  /// than the limit: a peer that knows one password and guesses another one in turn can guess twice as often, not
  /// without end. A proof of a retired password counts as no failed proof, and its link as no unproven one, the latter
  /// for as many links in a minute as an address may leave unproven.
  ///
  /// Checking and counting are one step, so links that prove themselves on several threads at once have no more guesses.
  bool proof_checked(LinkId link, const std::string& address, protocol::ProofStanding standing,
                     TimePoint now) {
    const std::lock_guard lock(mutex_);
    Address& at = addresses_[address];
    drop_old_failures(at, now);
    if (is_barred(at)) return false;
    switch (standing) {
      case protocol::ProofStanding::right: forgive_failures(at); break;
      case protocol::ProofStanding::retired: give_back_link(link, at, now); break;
      case protocol::ProofStanding::wrong: add_failure(at, now); break;
    }
    return true;
  }

  /// A proof from this address did not hold.
  void proof_failed(const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    Address& at = addresses_[address];
    drop_old_failures(at, now);
    add_failure(at, now);
  }

  /// True while this address has used up its wrong proofs of a minute.
  bool is_barred(const std::string& address, TimePoint now) {
    const std::lock_guard lock(mutex_);
    const auto found = addresses_.find(address);
    if (found == addresses_.end()) return false;
    drop_old_failures(found->second, now);
    return is_barred(found->second);
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
  /// A number that rises by events and falls by a limit in a minute.
  struct Falling {
    double level = 0;
    TimePoint as_of{};

    void fall(TimePoint now, std::size_t by_in_a_minute) {
      if (now <= as_of) return;
      const std::chrono::duration<double, std::ratio<60>> minutes = now - as_of;
      level = (std::max)(0.0, level - minutes.count() * static_cast<double>(by_in_a_minute));
      as_of = now;
    }
  };
  struct FailedProof {
    TimePoint at;
    bool is_forgiven;  ///< a right proof took it back; it is kept to count how many were
  };
  struct Address {
    std::size_t links = 0;
    Falling unproven;    ///< links that have not proved themselves, yet or ever
    Falling given_back;  ///< unproven links that a proof of a retired password took back
    std::vector<FailedProof>
        failed_proofs;  ///< of the last minute, the oldest first; at most twice the limit
  };
  using Addresses = std::map<std::string, Address>;

  static void drop_old_failures(Address& address, TimePoint now) {
    auto& failures = address.failed_proofs;
    const auto is_old = [&](const FailedProof& failed) { return now - failed.at >= std::chrono::minutes(1); };
    failures.erase(failures.begin(), std::find_if_not(failures.begin(), failures.end(), is_old));
  }

  static std::size_t forgiven_failures(const Address& address) {
    return static_cast<std::size_t>(
        std::count_if(address.failed_proofs.begin(), address.failed_proofs.end(),
                      [](const FailedProof& failed) { return failed.is_forgiven; }));
  }

  [[nodiscard]] bool is_barred(const Address& address) const {
    return address.failed_proofs.size() - forgiven_failures(address) >= limits_->failed_proofs_per_minute;
  }

  void add_failure(Address& address, TimePoint now) const {
    if (!is_barred(address)) address.failed_proofs.push_back(FailedProof{now, false});
  }

  /// The oldest ones first, as many in a minute as may fail in a minute.
  void forgive_failures(Address& address) const {
    std::size_t forgiven = forgiven_failures(address);
    for (FailedProof& failed : address.failed_proofs) {
      if (forgiven >= limits_->failed_proofs_per_minute) return;
      if (!std::exchange(failed.is_forgiven, true)) ++forgiven;
    }
  }

  /// The link has proved a retired password: its address may leave another link unproven.
  void give_back_link(LinkId link, Address& address, TimePoint now) {
    if (pending_.address_of(link) == nullptr) return;
    address.given_back.fall(now, limits_->unproven_links_per_minute);
    if (address.given_back.level + 1 > static_cast<double>(limits_->unproven_links_per_minute)) return;
    ++address.given_back.level;
    address.unproven.level = (std::max)(0.0, address.unproven.level - 1);
  }

  [[nodiscard]] bool has_credit(Address& address, TimePoint now) const {
    address.unproven.fall(now, limits_->unproven_links_per_minute);
    return address.unproven.level + 1 <= static_cast<double>(limits_->unproven_links_per_minute);
  }

  /// Evicts a pending link where there are too many; false if the newcomer's own address is the crowded one.
  bool make_room(const std::string& newcomer, Admission& admission) {
    if (pending_.size() < limits_->pending_links) return true;
    if (pending_.most_crowded() == newcomer) return false;
    admission.evicted = pending_.oldest_of_most_crowded();
    pending_.remove(*admission.evicted);
    return true;
  }

  /// Forgets an address that has no link, and nothing held against it.
  Addresses::iterator forget_idle(Addresses::iterator at, TimePoint now) {
    Address& address = at->second;
    if (address.links != 0) return std::next(at);
    drop_old_failures(address, now);
    for (Falling* number : {&address.unproven, &address.given_back}) {
      number->fall(now, limits_->unproven_links_per_minute);
    }
    const bool is_idle =
        address.unproven.level == 0 && address.given_back.level == 0 && address.failed_proofs.empty();
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
    forget([](const Address& address) {
      return address.unproven.level <= 1 && address.given_back.level <= 1 &&
             address.failed_proofs.size() <= 1;
    });
    if (addresses_.size() > limits_->addresses / 2) {
      forget([](const Address&) { return true; });
    }
  }

  const Limits* limits_;
  mutable std::mutex mutex_;
  PendingLinks pending_;
  Addresses addresses_;
  std::size_t total_ = 0;
  TimePoint swept_at_{};
};

}  // namespace syncstate::detail

#endif
