// The links that share an executor: commits reach all of them by one wake-up.
#ifndef SYNCSTATE_DETAIL_SERVER_LANE_HPP
#define SYNCSTATE_DETAIL_SERVER_LANE_HPP

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "syncstate/detail/server/fan_out_pace.hpp"
#include "syncstate/detail/server/followers.hpp"
#include "syncstate/detail/server/sender_table.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/protocol/server_session.hpp"

namespace syncstate::detail {

class ServerLink;

/// What became of an event, for the link it came on.
struct EventAnswer {
  protocol::EventTicket event;
  EventOutcome outcome;
};

/// The links of one I/O executor: commits reach all of them by one wake-up.
///
/// Threads : `map_changed`, `answer` and `post` from any thread; the rest on the lane's executor.
class Lane : public std::enable_shared_from_this<Lane> {
 public:
  /// `tick`: how often its links look at the time, see `tick_period`. `share`: the part of the executor's time that
  /// goes at least into bringing commits to followers while there are more and more; see
  /// `tcp::ServerOptions::fan_out_share`.
  Lane(std::shared_ptr<Executor> executor, Duration tick, double share = 1)
      : executor_(std::move(executor)), tick_(tick), pace_(share) {}

  [[nodiscard]] Executor& executor() { return *executor_; }

  /// How often its links look at the time.
  [[nodiscard]] Duration tick() const { return tick_; }

  /// A map committed: its followers on this lane have something to send.
  void map_changed(const protocol::DiffSource* map) {
    std::unique_lock lock(mutex_);
    note_change(map);
    if (!is_resting_) schedule_round(lock);
  }

  /// Events were run; their link hears of it, if it is still there. `changed` is the map that they committed to,
  /// or null: commits and answers take one wake-up. `end` ends the session after the answers: the bytes of the next event
  /// were wrong.
  void answer(std::weak_ptr<ServerLink> link, std::vector<EventAnswer> answers,
              const protocol::DiffSource* changed = nullptr,
              std::optional<protocol::CloseSession> end = std::nullopt) {
    std::unique_lock lock(mutex_);
    if (changed != nullptr) note_change(changed);
    answers_.push_back(ReadyAnswers{std::move(link), std::move(answers), std::move(end)});
    schedule_round(lock);
  }

  /// Complexity: O(log links).
  void add(const std::shared_ptr<ServerLink>& link);
  /// Complexity: O(log links), and O(channels) of this one.
  void remove(const ServerLink* link);

  /// One more channel of `link` has the map open. Complexity: O(1).
  void add_follower(const protocol::DiffSource* map, ServerLink* link) {
    const auto followers = followers_.try_emplace(map, map->head().update_id).first;
    followers->second.add_channel(link);
  }
  /// One channel of `link` less; the last one takes the link along. Complexity: O(1).
  void remove_follower(const protocol::DiffSource* map, const ServerLink* link) {
    const auto found = followers_.find(map);
    if (found == followers_.end()) return;
    found->second.remove_channel(link);
    if (found->second.empty()) followers_.erase(found);
  }

  /// The links there are now; they stay alive while this is held. Complexity: O(links).
  [[nodiscard]] std::vector<std::shared_ptr<ServerLink>> links() const {
    std::vector<std::shared_ptr<ServerLink>> alive;
    for (const auto& [id, weak] : links_) {
      if (auto link = weak.lock()) alive.push_back(std::move(link));
    }
    return alive;
  }

 private:
  struct ReadyAnswers {
    std::weak_ptr<ServerLink> link;
    std::vector<EventAnswer> answers;
    std::optional<protocol::CloseSession> end;
  };

  /// With the mutex held. Complexity: O(1).
  void note_change(const protocol::DiffSource* map) {
    constexpr std::size_t most_looked_at = 8;  // comparing up to 8 is faster than hashing
    if (changed_.size() <= most_looked_at) {
      if (std::find(changed_.begin(), changed_.end(), map) != changed_.end()) return;
    } else {
      if (changed_set_.empty()) changed_set_.insert(changed_.begin(), changed_.end());
      if (!changed_set_.insert(map).second) return;
    }
    changed_.push_back(map);
  }

  /// One round is posted, however many ask for it before it runs. Lets go of the lock, which the round needs
  /// at once.
  void schedule_round(std::unique_lock<std::mutex>& lock) {
    if (is_round_due_) return;
    is_round_due_ = true;
    lock.unlock();
    executor_->defer([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->run_round();
    });
  }

  void run_round();

  static constexpr std::size_t few = 4;  // followers that are woken in no time

  /// The followers woken last have had their turns: for a while, what commits bring is merged.
  void rest() {
    const TimePoint now = executor_->now();
    const Duration time = pace_.rest(now);
    if (time == Duration::zero()) return;
    {
      const std::lock_guard lock(mutex_);
      is_resting_ = true;
    }
    executor_->post_at(now + time, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      {
        const std::lock_guard lock(self->mutex_);
        self->is_resting_ = false;
      }
      self->run_round();
    });
  }

  void schedule_tick() {
    is_ticking_ = true;
    executor_->post_at(executor_->now() + tick_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->run_tick();
    });
  }

  void run_tick();

  std::shared_ptr<Executor> executor_;
  const Duration tick_;
  std::mutex mutex_;
  bool is_round_due_ = false;
  bool is_resting_ = false;
  std::vector<const protocol::DiffSource*> changed_;
  std::unordered_set<const protocol::DiffSource*> changed_set_;  // the same where they are many, else empty
  std::vector<ReadyAnswers> answers_;
  // On the executor only:
  // By id, so that their order is that of their coming. Weak: the transport keeps them, and they keep this lane.
  std::map<std::uint64_t, std::weak_ptr<ServerLink>> links_;
  std::unordered_map<const protocol::DiffSource*, Followers> followers_;
  FanOutPace pace_;
  bool is_ticking_ = false;
};

}  // namespace syncstate::detail

#endif
