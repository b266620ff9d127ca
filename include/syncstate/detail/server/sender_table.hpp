// Who sent which event: what makes an event take effect at most once.
#ifndef SYNCSTATE_DETAIL_SERVER_SENDER_TABLE_HPP
#define SYNCSTATE_DETAIL_SERVER_SENDER_TABLE_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "syncstate/detail/model/random.hpp"
#include "syncstate/detail/server/answer_room.hpp"
#include "syncstate/detail/server/kept_answers.hpp"
#include "syncstate/limits.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// The peer that asks for a sender.
struct SenderOwner {
  std::string identity;  ///< what its verified certificate says; empty without one
  std::string address;   ///< what limits count it by

  /// The name under which its senders are counted: addresses come and go, identities do not.
  [[nodiscard]] std::pair<std::string, std::string> account() const {
    return {identity, identity.empty() ? address : std::string()};
  }
};

struct EventQueue;

/// The senders of one map: for each the highest number run, and the last answers.
///
/// A sender's id is a random number of 64 bits that only the client that was given it knows; a peer of another identity
/// can't have it even so. Room is shared fairly: what must be forgotten is taken from the owner that has most.
///
/// Memory : `Limits::senders_per_map` senders with `Limits::answers_per_sender` answers each, and
///          `Limits::answer_bytes_per_map` in all, at most; more senders only while more are held by open channels, of
///          which each link has one per map, charged to that link. All tables of a server share an `AnswerRoom`. What is
///          counted is the memory that is taken, not what is used of it.
/// Threads: every member from any thread.
class SenderTable final : AnswerRoom::Holder {
 public:
  /// `room`: of all maps of the server, or null where there is no other map.
  explicit SenderTable(const Limits& limits, std::shared_ptr<AnswerRoom> room = nullptr)
      : most_senders_(limits.senders_per_map),
        most_answers_(limits.answers_per_sender),
        most_answer_bytes_(limits.answer_bytes_per_map),
        room_(std::move(room)) {
    if (room_) room_->enter(this);
  }
  ~SenderTable() override {
    if (!room_) return;
    room_->leave(this);
    room_->give_back(taken_bytes());
  }

  /// What a sender takes, besides its answers.
  static constexpr std::size_t sender_bytes = 288;
  /// What an owner takes, besides its name.
  static constexpr std::size_t owner_bytes = 304;

  struct Held {
    std::uint64_t sender;
    std::shared_ptr<EventQueue> queue;  ///< where its events wait
  };

  /// Returns `known` if that is a sender of this identity, else a new one; never 0. It is not forgotten before
  /// `release`, however long it is silent, because its link would not notice. May be held several times: a client whose
  /// link is lost comes back before the server has noticed the loss. Its events go to `queue` from now on, or to the one
  /// that they go to already.
  /// Complexity: O(log owners).
  Held hold(std::uint64_t known, const SenderOwner& owner, std::shared_ptr<EventQueue> queue) {
    const std::lock_guard lock(mutex_);
    const auto found = senders_.find(known);
    if (found == senders_.end() || found->second.account->key->first != owner.identity)
      return add_held(owner, std::move(queue));
    Sender& sender = found->second;
    Account& account = account_of(owner);
    Account& former = *sender.account;
    std::list<std::uint64_t>& from = sender.holders == 0 ? former.idle : former.held;
    account.held.splice(account.held.begin(), from, sender.place);
    if (sender.holders++ == 0) count_idle(former, former.idle.size());
    former.answer_bytes -= sender.answers.bytes();
    account.answer_bytes += sender.answers.bytes();
    sender.account = &account;
    if (&former != &account) drop_if_empty(former);
    if (!sender.queue) sender.queue = std::move(queue);
    return Held{known, sender.queue};
  }

  /// Ends one `hold`. Never throws. `is_queue_idle`: no event of this sender waits.
  void release(std::uint64_t sender, bool is_queue_idle) {
    std::shared_ptr<EventQueue> queue;  // freed without the lock
    bool is_over = false;
    {
      const std::lock_guard lock(mutex_);
      const auto found = senders_.find(sender);
      if (found == senders_.end() || found->second.holders == 0 || --found->second.holders > 0) return;
      Account& account = *found->second.account;
      account.idle.splice(account.idle.begin(), account.held, found->second.place);
      count_idle(account, account.idle.size());
      if (is_queue_idle) queue.swap(found->second.queue);
      is_over = cover();
    }
    if (is_over) room_->make_room();
  }

  /// Forgets a sender for which its client has no more use; a sender that is held stays.
  void forget(std::uint64_t sender) {
    const std::lock_guard lock(mutex_);
    const auto found = senders_.find(sender);
    if (found != senders_.end() && found->second.holders == 0) erase_idle(found);
    uncover(2 * step_bytes());
  }

  /// What the table says of an event that is about to run.
  enum class Verdict { run, repeat, unknown };

  /// `run`: never seen. `repeat`: `outcome` is its old answer. `unknown`: the event may have run, which is not known any
  /// more.
  Verdict look_up(std::uint64_t sender, std::uint64_t number, EventOutcome& outcome) {
    const std::lock_guard lock(mutex_);
    Sender* const known = touch(sender);
    if (known == nullptr) return Verdict::unknown;
    if (number > known->highest) return Verdict::run;
    const EventOutcome* const kept = known->answers.find(number);
    if (kept == nullptr) return Verdict::unknown;
    outcome = *kept;
    return Verdict::repeat;
  }

  /// The event was run, and this came of it. `number` is above all that were recorded for this sender.
  /// Complexity: O(1), amortised over the bytes that are forgotten at a time; touches what all maps share once in
  ///             `AnswerRoom::step_bytes()`.
  void record(std::uint64_t sender, std::uint64_t number, EventOutcome outcome) {
    {
      const std::lock_guard lock(mutex_);
      Sender* const known = touch(sender);
      if (known == nullptr) return;
      known->highest = number;
      if (most_answers_ == 0) return;
      const std::size_t before = known->answers.bytes();
      if (known->answers.size() >= most_answers_) known->answers.pop_oldest();
      known->answers.push(number, std::move(outcome));
      const std::size_t after = known->answers.bytes();
      if (after == before) return;
      known->account->answer_bytes += after - before;
      bytes_ += after - before;
      if (bytes_ > most_answer_bytes_) {
        try {
          make_room(most_answer_bytes_ - most_answer_bytes_ / 8, sender);
        } catch (const std::bad_alloc&) {
          // The event was run, and its answer is kept; the next one tries again.
        }
      }
      if (!cover()) return;
    }
    room_->make_room();
  }

  /// Returns what the answers take that are kept, and the senders that nobody holds.
  [[nodiscard]] std::size_t answer_bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

  /// How many senders are remembered.
  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return senders_.size();
  }

 private:
  struct Account;
  using Ranks = std::multimap<std::size_t, Account*>;

  /// The senders of one owner.
  struct Account {
    const std::pair<std::string, std::string>* key = nullptr;
    std::list<std::uint64_t> idle;  // those that nobody holds, the latest first
    std::list<std::uint64_t> held;
    std::size_t answer_bytes = 0;  // of all of them
    std::size_t idle_bytes = 0;    // of those that nobody holds, besides their answers
    Ranks::iterator rank;          // among all accounts, by the number of idle senders

    [[nodiscard]] std::size_t bytes() const { return answer_bytes + idle_bytes; }
  };

  struct Sender {
    std::uint64_t highest = 0;
    KeptAnswers answers;
    std::size_t holders = 0;
    Account* account = nullptr;
    std::list<std::uint64_t>::iterator place;  // in the account's list
    std::shared_ptr<EventQueue> queue;         // where its events go; null if none waits and nobody holds it
  };
  using Senders = std::unordered_map<std::uint64_t, Sender>;

  Account& account_of(const SenderOwner& owner) {
    auto key = owner.account();
    if (const auto found = accounts_.find(key); found != accounts_.end()) return found->second;
    Ranks rank;
    rank.emplace(0, nullptr);
    const auto added = accounts_.try_emplace(std::move(key)).first;
    Account& account = added->second;  // from here on nothing can fail
    account.key = &added->first;
    auto node = rank.extract(rank.begin());
    if (node) node.mapped() = &account;  // always: GCC's -Wnull-dereference does not know
    account.rank = ranks_.insert(std::move(node));
    return account;
  }

  void drop_if_empty(Account& account) {
    if (!account.idle.empty() || !account.held.empty()) return;
    ranks_.erase(account.rank);
    accounts_.erase(accounts_.find(*account.key));
  }

  /// Moves the account to its place among the others. Allocates nothing, so that `release` can't fail.
  void count_idle(Account& account, std::size_t idle) {
    const auto& [identity, address] = *account.key;
    const std::size_t bytes =
        idle == 0 ? 0 : owner_bytes + identity.size() + address.size() + idle * sender_bytes;
    bytes_ += bytes - account.idle_bytes;
    account.idle_bytes = bytes;
    auto node = ranks_.extract(account.rank);
    if (node) node.key() = idle;  // always: GCC's -Wnull-dereference does not know
    account.rank = ranks_.insert(std::move(node));
  }

  Held add_held(const SenderOwner& owner, std::shared_ptr<EventQueue> queue) {
    std::uint64_t sender = random_nonzero_u64();
    while (senders_.contains(sender)) sender = random_nonzero_u64();
    if (senders_.size() >= most_senders_) forget_one();
    Account& account = account_of(owner);
    std::list<std::uint64_t> place{sender};
    Sender& added = senders_[sender];
    account.held.splice(account.held.begin(), place);
    added.holders = 1;
    added.account = &account;
    added.place = account.held.begin();
    added.queue = std::move(queue);
    return Held{sender, added.queue};
  }

  /// Forgets a sender that is idle, if there is one: the one idle for longest, of the owner that has most of them.
  void forget_one() {
    Account& largest = *ranks_.rbegin()->second;
    if (!largest.idle.empty()) erase_idle(senders_.find(largest.idle.back()));
  }

  void erase_idle(Senders::iterator sender) {
    Account& account = *sender->second.account;
    take_out_idle(sender);
    drop_if_empty(account);
  }

  /// As `erase_idle`; the account stays, even if it is empty now.
  void take_out_idle(Senders::iterator sender) {
    Account& account = *sender->second.account;
    bytes_ -= sender->second.answers.bytes();
    account.answer_bytes -= sender->second.answers.bytes();
    account.idle.erase(sender->second.place);
    senders_.erase(sender);
    count_idle(account, account.idle.size());
  }

  void forget_answers(Sender& sender, std::size_t count) {
    const std::size_t before = sender.answers.bytes();
    sender.answers.forget(count);
    const std::size_t freed = before - sender.answers.bytes();
    sender.account->answer_bytes -= freed;
    bytes_ -= freed;
  }

  // AnswerRoom::Holder

  [[nodiscard]] std::size_t taken_bytes() const override { return covered_.load(std::memory_order_relaxed); }

  void shrink_to(std::size_t enough) noexcept override {
    const std::lock_guard lock(mutex_);
    try {
      if (bytes_ > enough) make_room(enough, 0);
    } catch (const std::bad_alloc&) {
      // Other tables may do better.
    }
    uncover(0);
  }

  [[nodiscard]] std::size_t step_bytes() const { return room_ ? room_->step_bytes() : 0; }

  /// Takes what is held of the room of all maps, or gives back what is not. Returns true if `AnswerRoom::make_room` must be
  /// called, without the mutex.
  [[nodiscard]] bool cover() {
    if (!room_) return false;
    const std::size_t covered = taken_bytes();
    if (bytes_ > covered) {
      const std::size_t more = (bytes_ - covered + step_bytes() - 1) / step_bytes() * step_bytes();
      covered_.store(covered + more, std::memory_order_relaxed);
      return room_->take(more);
    }
    uncover(2 * step_bytes());
    return false;
  }

  /// Gives back what is taken of the room of all maps and not held, if that is more than `spare` bytes.
  void uncover(std::size_t spare) {
    const std::size_t covered = taken_bytes();
    if (!room_ || covered - bytes_ <= spare) return;
    const std::size_t kept = (bytes_ + step_bytes() - 1) / step_bytes() * step_bytes();
    covered_.store(kept, std::memory_order_relaxed);
    room_->give_back(covered - kept);
  }

  /// Forgets until no more than `enough` bytes are held, of the owners that have most: senders that nobody holds, then the
  /// older half of the answers of the held one that has most, and so on. The last answer of `kept` stays.
  /// `record` frees an eighth of the room at a time, so that looking for these owners costs little per event.
  /// Complexity: O(owners × log owners + senders × log senders + answers forgotten), of the owners concerned.
  void make_room(std::size_t enough, std::uint64_t kept) {
    const auto is_smaller = [](const auto& a, const auto& b) { return a.first < b.first; };
    std::vector<std::pair<std::size_t, Account*>> by_bytes;
    by_bytes.reserve(accounts_.size());
    for (auto& [key, account] : accounts_) by_bytes.emplace_back(account.bytes(), &account);
    std::make_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
    while (bytes_ > enough && !by_bytes.empty()) {
      std::pop_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
      Account& largest = *by_bytes.back().second;
      by_bytes.pop_back();
      // Down to the next owner's size, and below, so that each turn gets somewhere.
      const std::size_t next = by_bytes.empty() ? 0 : by_bytes.front().first;
      const std::size_t surplus = bytes_ - enough;
      const std::size_t wanted = largest.bytes() - (std::min)(largest.bytes(), surplus);
      const bool has_more = shrink(largest, (std::max)(next - next / 8, wanted), kept);
      if (has_more) {
        by_bytes.emplace_back(largest.bytes(), &largest);
        std::push_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
      }
      drop_if_empty(largest);
    }
    if (senders_.bucket_count() > 8 * (senders_.size() + 8)) senders_.rehash(0);
  }

  /// Forgets of one owner until it takes no more than `enough` bytes. Returns false if that can't be reached.
  bool shrink(Account& account, std::size_t enough, std::uint64_t kept) {
    while (account.bytes() > enough && !account.idle.empty() && account.idle.back() != kept) {
      take_out_idle(senders_.find(account.idle.back()));
    }
    if (account.bytes() <= enough) return !account.idle.empty() || !account.held.empty();
    const auto is_smaller = [](const Sender* a, const Sender* b) {
      return a->answers.bytes() < b->answers.bytes();
    };
    std::vector<Sender*> by_bytes;
    by_bytes.reserve(account.held.size());
    for (const std::uint64_t id : account.held) {
      Sender& sender = senders_.find(id)->second;
      if (sender.answers.size() > (id == kept ? 1 : 0)) by_bytes.push_back(&sender);
    }
    std::make_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
    const auto found = senders_.find(kept);
    const Sender* const spared = found == senders_.end() ? nullptr : &found->second;
    while (account.bytes() > enough && !by_bytes.empty()) {
      std::pop_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
      Sender& largest = *by_bytes.back();
      forget_answers(largest, std::max<std::size_t>(largest.answers.size() / 2, 1));
      if (largest.answers.size() > (&largest == spared ? 1 : 0)) {
        std::push_heap(by_bytes.begin(), by_bytes.end(), is_smaller);
      } else {
        by_bytes.pop_back();
      }
    }
    return account.bytes() <= enough;
  }

  Sender* touch(std::uint64_t sender) {
    const auto found = senders_.find(sender);
    if (found == senders_.end()) return nullptr;
    Sender& known = found->second;
    if (known.holders == 0) {
      known.account->idle.splice(known.account->idle.begin(), known.account->idle, known.place);
    }
    return &known;
  }

  mutable std::mutex mutex_;
  std::size_t most_senders_;
  std::size_t most_answers_;
  std::size_t most_answer_bytes_;
  std::shared_ptr<AnswerRoom> room_;
  std::size_t bytes_ = 0;  // of all accounts
  // Invariant: at least `bytes_` outside of the mutex, and taken from the room. Written with the mutex held.
  std::atomic<std::size_t> covered_{0};
  Senders senders_;
  std::map<std::pair<std::string, std::string>, Account> accounts_;
  Ranks ranks_;  // the account with most idle senders is the last
};

}  // namespace syncstate::detail

#endif
