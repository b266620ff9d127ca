// What peers make a server hold: one account for each link, and one for all of them.
#ifndef SYNCSTATE_PROTOCOL_MEMORY_ACCOUNT_HPP
#define SYNCSTATE_PROTOCOL_MEMORY_ACCOUNT_HPP

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "syncstate/error.hpp"
#include "syncstate/limits.hpp"

namespace syncstate::protocol {

/// The bytes that all links of one server hold together, beyond `Limits::own_link_bytes` of each.
///
/// Used by `LinkAccount`, which takes and gives back in steps.
/// Threads: every member from any thread.
class ServerAccount {
 public:
  explicit ServerAccount(const Limits& limits) : most_(limits.all_link_bytes) {}
  ServerAccount(const ServerAccount&) = delete;
  ServerAccount& operator=(const ServerAccount&) = delete;
  ~ServerAccount() { assert(bytes() == 0); }

  /// Returns false, and takes nothing, if this would exceed the limit.
  [[nodiscard]] bool take(std::size_t bytes) {
    if (bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= most_) return true;
    give_back(bytes);
    return false;
  }
  /// Counts bytes that are held already, even beyond the limit.
  void add(std::size_t bytes) { bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void give_back(std::size_t bytes) { bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  [[nodiscard]] std::size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  const std::size_t most_;
  std::atomic<std::size_t> bytes_{0};
};

/// The bytes that one link holds in a server: its session charges them, and ends when they exceed a limit.
///
/// Threads   : one at a time, as its session.
/// Complexity: O(1); the account of the server is touched once in `step_bytes`.
class LinkAccount {
 public:
  /// `server` may be null: the link is then bounded by its own limit alone.
  LinkAccount(const Limits& limits, std::shared_ptr<ServerAccount> server)
      : most_(limits.link_bytes),
        own_((std::min)(limits.own_link_bytes, limits.link_bytes)),
        covered_(own_),
        server_(std::move(server)) {}
  LinkAccount(const LinkAccount&) = delete;
  LinkAccount& operator=(const LinkAccount&) = delete;
  ~LinkAccount() {
    assert(bytes_ == 0);  // else somebody forgot to give back
    if (server_) server_->give_back(covered_ - own_);
  }

  /// Charges bytes that are about to be held.
  /// Errors: `busy`, and nothing is charged, beyond `Limits::link_bytes` or `Limits::all_link_bytes`.
  void take(std::size_t bytes) {
    if (bytes_ + bytes > (std::min)(covered_, most_)) cover(bytes);
    bytes_ += bytes;
  }

  /// Charges bytes that are held already, such as half a frame or an answer. Beyond the limits the next `expect_room` or
  /// `take` throws.
  void add(std::size_t bytes) {
    bytes_ += bytes;
    if (bytes_ > covered_) cover_anyway();
  }

  void give_back(std::size_t bytes) {
    assert(bytes <= bytes_);
    bytes_ -= bytes;
    if (covered_ > own_ && covered_ - bytes_ > 2 * step_bytes) uncover();
  }

  /// Errors: `busy` while more is held than `Limits::link_bytes`, or than `Limits::all_link_bytes` had room for when `add`
  ///         charged it. Links that held theirs before are not asked to go.
  void expect_room() const {
    if (bytes_ > most_) refuse("this link", bytes_, "Limits::link_bytes", most_);
    if (is_beyond_all_) refuse_for_all();
  }

  /// What is charged now.
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t step_bytes = std::size_t{64} << 10;

  [[noreturn]] static void refuse(const char* who, std::size_t bytes, const char* limit, std::size_t most) {
    throw StateError(StateErrc::busy, std::string(who) + " would hold " + std::to_string(bytes) +
                                          " bytes in the server, and " + limit + " is " +
                                          std::to_string(most) +
                                          ": read what the server sends, or ask for less at a time");
  }

  [[noreturn]] static void refuse_for_all() {
    throw StateError(StateErrc::busy,
                     "all links together hold as much as Limits::all_link_bytes allows: try again later");
  }

  void cover(std::size_t bytes) {
    const std::size_t wanted = bytes_ + bytes;
    if (wanted > most_) refuse("this link", wanted, "Limits::link_bytes", most_);
    if (wanted <= covered_) return;
    const std::size_t more = steps(wanted - covered_);
    if (server_ && !server_->take(more)) refuse_for_all();
    covered_ += more;
  }

  void cover_anyway() {
    const std::size_t more = steps(bytes_ - covered_);
    if (server_ && !server_->take(more)) {
      server_->add(more);
      is_beyond_all_ = true;
    }
    covered_ += more;
  }

  void uncover() {
    const std::size_t kept = (std::max)(own_, bytes_ + step_bytes);
    if (server_) server_->give_back(covered_ - kept);
    covered_ = kept;
    is_beyond_all_ = false;
  }

  static std::size_t steps(std::size_t bytes) { return (bytes + step_bytes - 1) / step_bytes * step_bytes; }

  const std::size_t most_;
  const std::size_t own_;
  std::size_t bytes_ = 0;
  // Invariant: covered_ - own_ is taken from the server's account.
  std::size_t covered_;
  bool is_beyond_all_ = false;  // `add` covered more than the server had room for
  std::shared_ptr<ServerAccount> server_;
};

}  // namespace syncstate::protocol

#endif
