// Which links of a server are through, and what is to end some of them.
#ifndef SYNCSTATE_DETAIL_SERVER_LIVE_LINKS_HPP
#define SYNCSTATE_DETAIL_SERVER_LIVE_LINKS_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "syncstate/error_handler.hpp"
#include "syncstate/link.hpp"

namespace syncstate::detail {

class ServerLink;

/// Tells which peers `disconnect` is about.
using PeerTest = std::function<bool(const Peer&)>;

/// Knows every link of a server by its number, so that links can be found by what their peers are.
///
/// A link is expected from its accept on, and settled once its client has proved itself. `ServerCore` calls `expect` and `closed`, `ServerLink` has the core call `settle`; `find` is for `disconnect`.
/// What a peer is, is known only of settled links: so a test is kept for as long as links exist that were expected when
/// it came, and each of these is tested when it settles.
///
/// Memory  : some 150 bytes for each link, and the tests that wait: none waits longer than `Limits::authentication_time`.
/// Threads   : every member from any thread. Tests run on the thread that calls `find` or `settle`, with no lock held.
/// Complexity: `expect`, `closed`: O(log links). `settle`: also O(tests that wait). `find`: O(links).
class LiveLinks {
 public:
  using LinkId = std::uint64_t;

  /// A connection was accepted: returns its number. Numbers ascend.
  [[nodiscard]] LinkId expect() {
    const std::lock_guard lock(mutex_);
    expected_.insert(expected_.end(), next_);
    return next_++;
  }

  /// The client of this link has proved itself. Returns false if a test that came meanwhile is for this peer: then the
  /// caller ends the link. An exception of a test counts as true, and goes to `on_error`.
  [[nodiscard]] bool settle(LinkId id, const std::shared_ptr<ServerLink>& link,
                            const std::shared_ptr<const Peer>& peer, const ErrorHandler& on_error) {
    std::vector<std::shared_ptr<const PeerTest>> tests;
    std::vector<WaitingTest> dropped;  // users' code, which goes without the lock
    {
      const std::lock_guard lock(mutex_);
      settled_.emplace(id, Settled{link, peer, false});
      for (const WaitingTest& waiting : tests_) {
        if (id < waiting.before) tests.push_back(waiting.test);
      }
      expected_.erase(id);
      dropped = drop_tests();
    }
    bool is_meant = false;
    for (const auto& test : tests) {
      bool result = true;
      contain(on_error, [&] { result = (*test)(*peer); });
      is_meant = is_meant || result;
    }
    if (is_meant) take({id});
    return !is_meant;
  }

  /// The link is gone, or was never let in.
  void closed(LinkId id) {
    std::vector<WaitingTest> dropped;
    const std::lock_guard lock(mutex_);
    expected_.erase(id);
    settled_.erase(id);
    dropped = drop_tests();
  }

  /// The settled links whose peers `test` is true for, each once: a later call does not find them again. Links that are
  /// expected now are tested when they settle.
  /// Errors: what the test throws; no link is found then.
  [[nodiscard]] std::vector<std::shared_ptr<ServerLink>> find(PeerTest test) {
    const auto shared = std::make_shared<const PeerTest>(std::move(test));
    std::vector<std::pair<LinkId, std::shared_ptr<const Peer>>> candidates;
    LinkId before = 0;
    {
      const std::lock_guard lock(mutex_);
      before = next_;
      candidates.reserve(settled_.size());
      for (const auto& [id, link] : settled_) {
        if (!link.is_found) candidates.emplace_back(id, link.peer);
      }
      if (!expected_.empty()) tests_.push_back(WaitingTest{shared, before});
    }
    std::vector<LinkId> meant;
    try {
      for (const auto& [id, peer] : candidates) {
        if ((*shared)(*peer)) meant.push_back(id);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      std::erase_if(tests_, [&](const WaitingTest& waiting) { return waiting.test == shared; });
      throw;
    }
    return take(meant);
  }

  /// All settled links.
  [[nodiscard]] std::vector<std::shared_ptr<ServerLink>> all() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<ServerLink>> links;
    links.reserve(settled_.size());
    for (const auto& [id, settled] : settled_) {
      if (auto link = settled.link.lock()) links.push_back(std::move(link));
    }
    return links;
  }

  /// How many tests wait for links to settle.
  [[nodiscard]] std::size_t waiting_tests() const {
    const std::lock_guard lock(mutex_);
    return tests_.size();
  }

 private:
  struct Settled {
    std::weak_ptr<ServerLink> link;
    std::shared_ptr<const Peer> peer;
    bool is_found;
  };
  struct WaitingTest {
    std::shared_ptr<const PeerTest> test;
    LinkId before;  ///< for links with smaller numbers
  };

  std::vector<std::shared_ptr<ServerLink>> take(const std::vector<LinkId>& ids) {
    std::vector<std::shared_ptr<ServerLink>> links;
    const std::lock_guard lock(mutex_);
    for (const LinkId id : ids) {
      const auto at = settled_.find(id);
      if (at == settled_.end() || std::exchange(at->second.is_found, true)) continue;
      if (auto link = at->second.link.lock()) links.push_back(std::move(link));
    }
    return links;
  }

  /// With the mutex held: takes out the tests that no link waits for any more. The caller destroys them without it.
  [[nodiscard]] std::vector<WaitingTest> drop_tests() {
    std::vector<WaitingTest> dropped;
    if (tests_.empty()) return dropped;
    const LinkId oldest = expected_.empty() ? next_ : *expected_.begin();
    std::vector<WaitingTest> kept;
    kept.reserve(tests_.size());
    dropped.reserve(tests_.size());
    for (WaitingTest& waiting : tests_) {
      (waiting.before > oldest ? kept : dropped).push_back(std::move(waiting));
    }
    tests_ = std::move(kept);
    return dropped;
  }

  mutable std::mutex mutex_;
  LinkId next_ = 1;
  std::set<LinkId> expected_;
  std::map<LinkId, Settled> settled_;
  std::vector<WaitingTest> tests_;
};

}  // namespace syncstate::detail

#endif
