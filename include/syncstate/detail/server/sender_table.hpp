// Who sent which event: what makes an event take effect at most once.
#ifndef SYNCSTATE_DETAIL_SERVER_SENDER_TABLE_HPP
#define SYNCSTATE_DETAIL_SERVER_SENDER_TABLE_HPP

#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "syncstate/detail/model/random.hpp"
#include "syncstate/error.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// What became of an event.
struct EventOutcome {
  UpdateId update_id = 0;
  StateErrc error{};                            ///< 0: it was run
  std::shared_ptr<const std::string> detail{};  ///< null: nothing to say; shared, for it is kept and told

  [[nodiscard]] static EventOutcome failed(StateErrc error, std::string detail = {}) {
    return {0, error, detail.empty() ? nullptr : std::make_shared<const std::string>(std::move(detail))};
  }
  [[nodiscard]] std::size_t detail_bytes() const { return detail ? detail->size() : 0; }
};

struct EventQueue;

/// The senders of one map: for each the highest number run, and the last answers.
///
/// Memory : `Limits::senders_per_map` senders with `Limits::answers_per_sender` answers each, and
///          `Limits::answer_bytes_per_map` in all, at most; more only while more are held by open channels.
/// Threads: every member from any thread.
class SenderTable {
 public:
  explicit SenderTable(const Limits& limits)
      : most_senders_(limits.senders_per_map),
        most_answers_(limits.answers_per_sender),
        most_answer_bytes_(limits.answer_bytes_per_map) {}

  /// The sender itself while it is known, a new one for 0 or one that was forgotten.
  std::uint64_t admit(std::uint64_t sender) {
    const std::lock_guard lock(mutex_);
    return admit_locked(sender);
  }

  struct Held {
    std::uint64_t sender;
    std::shared_ptr<EventQueue> queue;  ///< where its events wait
  };

  /// As `admit`; but a sender that is held is not forgotten before `release`, however long it is silent: its link would not
  /// notice. Its events go to `queue` from now on, or to the one that they go to already.
  Held hold(std::uint64_t sender, std::shared_ptr<EventQueue> queue) {
    const std::lock_guard lock(mutex_);
    sender = admit_locked(sender);
    Sender& held = senders_[sender];
    if (held.holders++ == 0) idle_.erase(held.use);
    if (!held.queue) held.queue = std::move(queue);
    return Held{sender, held.queue};
  }

  /// `is_queue_idle`: no event of this sender waits.
  void release(std::uint64_t sender, bool is_queue_idle) {
    std::shared_ptr<EventQueue> queue;  // freed without the lock
    const std::lock_guard lock(mutex_);
    const auto found = senders_.find(sender);
    if (found == senders_.end() || found->second.holders == 0) return;
    if (--found->second.holders > 0) return;
    found->second.use = idle_.insert(idle_.begin(), sender);
    if (is_queue_idle) queue.swap(found->second.queue);
  }

  /// What the table says of an event that is about to run.
  enum class Verdict { run, repeat, unknown };

  /// `run`: never seen. `repeat`: `outcome` is its old answer. `unknown`: it may have run, nobody knows any
  /// more.
  Verdict look_up(std::uint64_t sender, std::uint64_t number, EventOutcome& outcome) {
    const std::lock_guard lock(mutex_);
    Sender* const known = touch(sender);
    if (known == nullptr) return Verdict::unknown;
    if (number > known->highest) return Verdict::run;
    for (const auto& [kept, answer] : known->answers) {
      if (kept != number) continue;
      outcome = answer;
      return Verdict::repeat;
    }
    return Verdict::unknown;
  }

  /// The event was run, and this came of it.
  void record(std::uint64_t sender, std::uint64_t number, EventOutcome outcome) {
    const std::lock_guard lock(mutex_);
    Sender* const known = touch(sender);
    if (known == nullptr) return;
    known->highest = number;
    answer_bytes_ += bytes_of(outcome);
    known->answers.emplace_back(number, std::move(outcome));
    if (known->answers.size() > most_answers_) forget_answer(*known);
    while (answer_bytes_ > most_answer_bytes_ && !idle_.empty() && idle_.back() != sender) forget_one();
    // Senders that all have their channels open share the room, too.
    while (answer_bytes_ > most_answer_bytes_ && known->answers.size() > 1) forget_answer(*known);
  }

  /// What the answers take that are kept.
  [[nodiscard]] std::size_t answer_bytes() const {
    const std::lock_guard lock(mutex_);
    return answer_bytes_;
  }

 private:
  struct Sender {
    std::uint64_t highest = 0;
    std::deque<std::pair<std::uint64_t, EventOutcome>> answers;
    std::list<std::uint64_t>::iterator use;  // its place among the idle ones, if nobody holds it
    std::size_t holders = 0;
    std::shared_ptr<EventQueue> queue;  // where its events go; null if none waits and nobody holds it
  };

  std::uint64_t admit_locked(std::uint64_t sender) {
    if (sender != 0 && touch(sender) != nullptr) return sender;
    do {
      sender = random_u64();
    } while (sender == 0 || senders_.contains(sender));
    if (senders_.size() >= most_senders_ && !idle_.empty()) forget_one();
    senders_[sender].use = idle_.insert(idle_.begin(), sender);
    return sender;
  }

  static std::size_t bytes_of(const EventOutcome& outcome) {
    return sizeof(std::pair<std::uint64_t, EventOutcome>) + outcome.detail_bytes();
  }

  /// Forgets the sender that was idle for longest, of those that nobody holds; there is one.
  void forget_one() {
    const auto found = senders_.find(idle_.back());
    for (const auto& answer : found->second.answers) answer_bytes_ -= bytes_of(answer.second);
    senders_.erase(found);
    idle_.pop_back();
  }

  /// Forgets the sender's oldest answer.
  void forget_answer(Sender& sender) {
    answer_bytes_ -= bytes_of(sender.answers.front().second);
    sender.answers.pop_front();
  }

  Sender* touch(std::uint64_t sender) {
    const auto found = senders_.find(sender);
    if (found == senders_.end()) return nullptr;
    if (found->second.holders == 0) idle_.splice(idle_.begin(), idle_, found->second.use);
    return &found->second;
  }

  mutable std::mutex mutex_;
  std::size_t most_senders_;
  std::size_t most_answers_;
  std::size_t most_answer_bytes_;
  std::size_t answer_bytes_ = 0;
  std::list<std::uint64_t> idle_;  // those that nobody holds, the latest first
  std::unordered_map<std::uint64_t, Sender> senders_;
};

}  // namespace syncstate::detail

#endif
