// The events of one map that wait for its hooks: encoded, in queues that take turns.
#ifndef SYNCSTATE_DETAIL_SERVER_EVENT_TURNS_HPP
#define SYNCSTATE_DETAIL_SERVER_EVENT_TURNS_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/detail/server/byte_share.hpp"
#include "syncstate/detail/server/owning_chain.hpp"
#include "syncstate/detail/server/peer_bytes.hpp"
#include "syncstate/hook.hpp"
#include "syncstate/protocol/server_session.hpp"

namespace syncstate::detail {

class Lane;
class ServerLink;
struct EventInlet;

/// An event that waits. Its bytes are in the buffer of its batch.
struct WaitingEvent {
  protocol::EventTicket ticket;
  std::uint64_t sender = 0;
  std::size_t end = 0;  ///< where its bytes end; they begin where those of the event before end
  bool is_allowed = false;
};

/// Events of one link that came together, with their encodings in one buffer.
///
/// Threads: one at a time: the link's lane until `EventTurns::push`, then the map's executor.
class EventBatch {
 public:
  /// `all` counts what all batches hold.
  EventBatch(std::shared_ptr<EventInlet> from, const SharedBytesCount& all)
      : from_(std::move(from)), share_(all) {
    share_.take(held_bytes());
  }

  /// Adds an event. Returns false if all batches would hold more than `most` bytes with it.
  ///
  /// Counts the memory that is taken, not what is used of it.
  /// Complexity: O(bytes), amortised.
  bool add(WaitingEvent event, ByteView bytes, std::size_t most) {
    if (!make_room(events_, 1, most) || !make_room(bytes_, bytes.size(), most)) return false;
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    event.end = bytes_.size();
    events_.push_back(event);
    return true;
  }

  [[nodiscard]] const std::shared_ptr<EventInlet>& from() const { return from_; }
  [[nodiscard]] std::size_t remaining() const { return events_.size() - next_; }

  /// The first event that has not been taken.
  [[nodiscard]] const WaitingEvent& front() const { return events_[next_]; }
  /// The encoding of `front()`.
  [[nodiscard]] ByteView front_bytes() const {
    const std::size_t begin = next_ == 0 ? 0 : events_[next_ - 1].end;
    return ByteView(bytes_).subspan(begin, events_[next_].end - begin);
  }
  void pop() { ++next_; }
  void drop_all() { next_ = events_.size(); }

  /// Makes an empty batch for another link of what this one allocated; false if that is too much to keep for nothing.
  bool recycle() {
    if (events_.capacity() > most_kept_events || bytes_.capacity() > most_kept_bytes) return false;
    from_.reset();  // never the last reference: the caller of `finish` or `push` has one
    events_.clear();
    bytes_.clear();
    next_ = 0;
    share_.give_back(share_.bytes());
    return true;
  }
  void begin(std::shared_ptr<EventInlet> from) {
    from_ = std::move(from);
    share_.take(held_bytes());
  }

  std::unique_ptr<EventBatch> following;  ///< for `OwningChain`

 private:
  // What a map keeps for its next batch, uncounted: some 14 KiB.
  static constexpr std::size_t most_kept_events = 128;
  static constexpr std::size_t most_kept_bytes = std::size_t{8} << 10;
  static constexpr std::size_t least_bytes = 128;
  static constexpr std::size_t block_bytes = 16;  // what the allocator adds to each of three blocks, about

  [[nodiscard]] std::size_t held_bytes() const;

  template <class T>
  bool make_room(std::vector<T>& in, std::size_t more, std::size_t most) {
    const std::size_t needed = in.size() + more;
    const std::size_t before = in.capacity();
    if (needed <= before) return true;
    const std::size_t room = (std::max)({needed, before + before / 2, least_bytes / sizeof(T)});
    const std::size_t bytes = (room - before) * sizeof(T);
    if (!share_.take(bytes, most)) {
      share_.give_back(bytes);
      return false;
    }
    in.reserve(room);
    return true;
  }

  std::shared_ptr<EventInlet> from_;
  std::vector<WaitingEvent> events_;
  Bytes bytes_;
  std::size_t next_ = 0;
  ByteShare share_;
};

/// Events that run in the order in which they came: those of one link, or of several that share a sender.
///
/// Threads: guarded by the mutex of its `EventTurns`.
struct EventQueue {
  EventQueue() = default;
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;
  /// Does not recurse, however many queues have become parts of each other.
  ~EventQueue() {
    auto next = std::move(merged_into);
    while (next && next.use_count() == 1) {
      auto after = std::move(next->merged_into);
      next = std::move(after);
    }
  }

  OwningChain<std::unique_ptr<EventBatch>> batches;
  std::size_t links = 0;                    ///< open ones whose events go here
  bool is_in_turn = false;                  ///< it waits for its turn, or has it
  std::shared_ptr<EventQueue> merged_into;  ///< null, or the queue that this one has become a part of
  std::shared_ptr<EventQueue> following;    ///< for `OwningChain`
};

/// Where the events of one link for one map come in; made when the link gets a sender for the map.
struct EventInlet {
  EventInlet(std::weak_ptr<ServerLink> from, std::shared_ptr<Lane> answers_on, EventContext sent_by)
      : link(std::move(from)),
        lane(std::move(answers_on)),
        context(std::move(sent_by)),
        peer_bytes(context.peer ? certificate_bytes(*context.peer) + context.certificate_subject.size() : 0) {
  }

  const std::weak_ptr<ServerLink> link;
  const std::shared_ptr<Lane> lane;
  const EventContext context;
  const std::size_t peer_bytes;  ///< what the context keeps of the peer's certificate when the link is gone
  /// Wrong bytes were found among the events: the session ends, and no other event of the link runs on this map.
  std::atomic<bool> is_over{false};
  // On the link's lane only:
  std::unique_ptr<EventBatch> arriving;  ///< what came and was not pushed yet, or null
  bool has_arrived = false;              ///< the link will have it pushed
  // Guarded by the mutex of the `EventTurns`:
  std::shared_ptr<EventQueue> queue;
  std::size_t waiting = 0;  ///< batches that were pushed and are not done
  bool is_open = true;
};

inline std::size_t EventBatch::held_bytes() const {
  return sizeof *this + 3 * block_bytes + events_.capacity() * sizeof(WaitingEvent) + bytes_.capacity() +
         from_->peer_bytes;
}

/// Decides whose turn it is among the events that wait for the hooks of one map.
///
/// Each link has a queue. Queues take turns of `turn_events` events, so an event waits for one turn of each other link,
/// however many events those links have sent. The queues of links that are gone share one turn of each round, so
/// reconnecting gains nobody more turns.
///
/// The events of a sender run in their order even if they come over two links because the first one was lost: see `join`.
///
/// Threads: `take`, `finish` and `turn_left` on the map's executor, `add` and `push` on the link's lane; the rest from any thread.
class EventTurns {
 public:
  /// How many events of one queue run before another queue has its turn.
  static constexpr std::size_t turn_events = 16;

  /// `all` counts what waits for all maps of the server; `most` is its limit, in bytes.
  EventTurns(SharedBytesCount all, std::size_t most) : all_(std::move(all)), most_(most) {}
  EventTurns(const EventTurns&) = delete;
  EventTurns& operator=(const EventTurns&) = delete;
  /// Drops what waits: a batch keeps its inlet, which keeps the queue that has the batch.
  ~EventTurns() {
    OwningChain<std::unique_ptr<EventBatch>> dropped;
    if (current_) dropped.append(resolve(current_)->batches);
    for (Queues* const waiting : {&live_, &gone_}) {
      while (!waiting->is_empty()) dropped.append(waiting->pop_front()->batches);
    }
  }

  /// Gives a new inlet a queue of its own.
  void open(EventInlet& inlet) {
    inlet.queue = std::make_shared<EventQueue>();
    inlet.queue->links = 1;
  }

  /// Returns the queue that the inlet's events go into; it may become a part of another one later.
  [[nodiscard]] std::shared_ptr<EventQueue> queue_of(EventInlet& inlet) {
    const std::lock_guard lock(mutex_);
    return resolve(inlet.queue);
  }

  /// Moves what waits in `other` to the queue of an open inlet, and what comes for `other` from now on: a sender whose
  /// events went there sends over this inlet, too.
  ///
  /// The events that wait in the two queues run in any order: they have no sender and no link in common.
  /// Complexity: O(log queues), amortised.
  void join(EventInlet& inlet, std::shared_ptr<EventQueue> other) {
    const std::lock_guard lock(mutex_);
    const std::shared_ptr<EventQueue> into = resolve(inlet.queue);
    const std::shared_ptr<EventQueue> from = resolve(other);
    if (into == from) return;
    into->batches.append(from->batches);
    into->links += std::exchange(from->links, 0);
    from->merged_into = into;  // if it waits for its turn, it leaves its place when that comes
    if (!into->batches.is_empty()) give_turn(into);
  }

  /// The link is gone, or has closed its last channel of this map. What waits still runs.
  void close(EventInlet& inlet) {
    const std::lock_guard lock(mutex_);
    if (std::exchange(inlet.is_open, false)) --resolve(inlet.queue)->links;
  }

  /// Returns whether no event waits or runs in the queue of this inlet.
  [[nodiscard]] bool is_idle(EventInlet& inlet) {
    const std::lock_guard lock(mutex_);
    return inlet.waiting == 0 && !resolve(inlet.queue)->is_in_turn;
  }

  /// Keeps an event that came, until `push`. Returns false if too many bytes wait.
  [[nodiscard]] bool add(const std::shared_ptr<EventInlet>& inlet, const WaitingEvent& event,
                         ByteView bytes) {
    if (!inlet->arriving) inlet->arriving = make_batch(inlet);
    if (inlet->arriving->add(event, bytes, most_)) return true;
    if (inlet->arriving->remaining() == 0) inlet->arriving.reset();  // a batch without an event takes no room
    return false;
  }

  /// Queues the events that were added. Returns true if the caller has to see to it that `take` is called.
  [[nodiscard]] bool push(EventInlet& inlet) {
    if (!inlet.arriving) return false;
    const std::lock_guard lock(mutex_);
    ++inlet.waiting;
    const auto& queue = resolve(inlet.queue);
    queue->batches.push_back(std::move(inlet.arriving));
    give_turn(queue);
    return !std::exchange(is_running_, true);
  }

  /// The caller of `push` could not see to it: the next `push` asks for it again.
  void not_run() {
    const std::lock_guard lock(mutex_);
    is_running_ = false;
  }

  /// Returns the batch whose turn it is, to be given back by `finish`. Returns null if nothing waits; the next `push` asks
  /// for `take` then.
  [[nodiscard]] std::unique_ptr<EventBatch> take() {
    OwningChain<std::unique_ptr<EventBatch>> dropped;  // freed without the lock
    const std::lock_guard lock(mutex_);
    while (current_ || next_turn()) {
      while (!current_->batches.is_empty()) {
        auto batch = current_->batches.pop_front();
        if (!batch->from()->is_over) return batch;
        --batch->from()->waiting;
        dropped.push_back(std::move(batch));
      }
      end_turn();
    }
    is_running_ = false;
    return nullptr;
  }

  /// Takes back a batch of which `count` events were run. `is_turn_over`: even if the turn has events left. Returns false if
  /// nothing waits; the next `push` asks for `take` then.
  [[nodiscard]] bool finish(std::unique_ptr<EventBatch> batch, std::size_t count, bool is_turn_over) {
    const auto inlet = batch->from();  // freed without the lock, like the batch
    const std::lock_guard lock(mutex_);
    turn_left_ -= (std::min)(turn_left_, count);
    const bool was_merged = current_->merged_into != nullptr;
    if (batch->remaining() != 0) {
      resolve(current_)->batches.push_front(std::move(batch));
    } else {
      --inlet->waiting;
      keep(batch);
    }
    if (was_merged) {
      const auto queue = resolve(current_);
      current_.reset();
      if (!queue->batches.is_empty()) give_turn(queue);
    } else if (turn_left_ == 0 || is_turn_over || current_->batches.is_empty()) {
      end_turn();
    }
    if (!current_ && live_.is_empty() && gone_.is_empty()) is_running_ = false;
    return is_running_;
  }

  /// Returns how many events may run in this turn still.
  [[nodiscard]] std::size_t turn_left() const { return turn_left_; }

  /// Returns whether no other queue waits for its turn. A hint: it may change at any time.
  [[nodiscard]] bool is_alone() const { return waiting_queues_.load(std::memory_order_relaxed) == 0; }

 private:
  using Queues = OwningChain<std::shared_ptr<EventQueue>>;

  std::unique_ptr<EventBatch> make_batch(const std::shared_ptr<EventInlet>& inlet) {
    {
      const std::lock_guard lock(mutex_);
      if (spare_) {
        spare_->begin(inlet);
        return std::move(spare_);
      }
    }
    return std::make_unique<EventBatch>(inlet, all_);
  }

  void keep(std::unique_ptr<EventBatch>& batch) {
    if (!spare_ && batch->recycle()) spare_ = std::move(batch);
  }

  /// Returns what has become of this queue; `queue` points at it from now on.
  static const std::shared_ptr<EventQueue>& resolve(std::shared_ptr<EventQueue>& queue) {
    while (queue->merged_into) {
      if (queue->merged_into->merged_into) {
        auto later = queue->merged_into->merged_into;
        queue->merged_into = std::move(later);
      }
      auto next = queue->merged_into;
      queue = std::move(next);
    }
    return queue;
  }

  /// Puts a queue behind the others, unless it waits for its turn already or has it.
  void give_turn(const std::shared_ptr<EventQueue>& queue) {
    if (std::exchange(queue->is_in_turn, true)) return;
    place(queue);
  }
  void place(const std::shared_ptr<EventQueue>& queue) {
    const bool is_live = queue->links > 0;
    (is_live ? live_ : gone_).push_back(queue);
    if (is_live) ++live_count_;
    count_waiting(1);
  }
  void count_waiting(std::size_t more) {
    waiting_queues_.store(waiting_queues_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }

  /// Makes the next queue the current one; false if none waits.
  bool next_turn() {
    while (true) {
      const bool is_turn_of_gone = !gone_.is_empty() && (round_left_ == 0 || live_.is_empty());
      if (!is_turn_of_gone && live_.is_empty()) return false;
      auto queue = (is_turn_of_gone ? gone_ : live_).pop_front();
      count_waiting(std::size_t{0} - 1);
      if (!is_turn_of_gone) --live_count_;
      if (queue->merged_into) continue;  // it left its place
      if (is_turn_of_gone) {
        round_left_ = live_count_;
      } else {
        if (round_left_ > 0) --round_left_;
        if (queue->links == 0) {  // the links are gone since it came to wait
          place(queue);
          continue;
        }
      }
      current_ = std::move(queue);
      turn_left_ = turn_events;
      return true;
    }
  }

  void end_turn() {
    const auto queue = std::exchange(current_, nullptr);
    if (queue->batches.is_empty()) {
      queue->is_in_turn = false;
    } else {
      place(queue);
    }
  }

  const SharedBytesCount all_;
  const std::size_t most_;
  mutable std::mutex mutex_;
  Queues live_;                                 // of open links
  Queues gone_;                                 // of links that are gone
  std::size_t live_count_ = 0;                  // queues in `live_`
  std::size_t round_left_ = 0;                  // turns of `live_` before the next one of `gone_`
  std::shared_ptr<EventQueue> current_;         // the one that has its turn, or null
  std::size_t turn_left_ = 0;                   // events that it may run still
  bool is_running_ = false;                     // `take` will be called, or a batch is out
  std::unique_ptr<EventBatch> spare_;           // empty: room for the events of the next batch
  std::atomic<std::size_t> waiting_queues_{0};  // in `live_` and `gone_`
};

}  // namespace syncstate::detail

#endif
