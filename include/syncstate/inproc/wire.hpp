// A link inside one process: two queues of bytes, with the faults a test asks for.
#ifndef SYNCSTATE_INPROC_WIRE_HPP
#define SYNCSTATE_INPROC_WIRE_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/executor.hpp"
#include "syncstate/link.hpp"

namespace syncstate::inproc {

/// How a wire treats what it carries; may be changed while it does.
struct WireFaults {
  std::size_t read_bytes = (std::numeric_limits<std::size_t>::max)();  ///< what one read brings at most
  std::size_t buffer_bytes = std::size_t{128} << 10;  ///< in flight one way before the sender has to wait
  bool is_client_deaf = false;                        ///< the client reads nothing
  bool is_server_deaf = false;                        ///< the server reads nothing
};

/// One end of a wire.
class WireEnd final : public Link, public std::enable_shared_from_this<WireEnd> {
 public:
  WireEnd(std::shared_ptr<Executor> executor, std::shared_ptr<const WireFaults> faults, bool is_client)
      : executor_(std::move(executor)), faults_(std::move(faults)), is_client_(is_client) {}

  /// Joins two ends and opens them; the owners hear of it from their executors.
  static void join(const std::shared_ptr<WireEnd>& a, std::shared_ptr<LinkOwner> a_owner,
                   const std::shared_ptr<WireEnd>& b, std::shared_ptr<LinkOwner> b_owner,
                   const LinkInfo& info) {
    a->peer_ = b;
    b->peer_ = a;
    a->open(std::move(a_owner), info);
    b->open(std::move(b_owner), info);
  }

  void wake() override {
    if (std::exchange(is_pumping_, true)) return;
    post([](WireEnd& self) {
      self.is_pumping_ = false;
      self.pump();
    });
  }

  void close_gracefully() override {
    post([](WireEnd& self) {
      self.is_closing_ = true;
      self.pump();
    });
    executor_->post_at(executor_->now() + std::chrono::seconds(1),
                       [guard = CloseAtEnd(shared_from_this())] {});
  }

  void close_without_waiting() override {
    post([](WireEnd& self) {
      self.pump();
      self.close(StateErrc::link_closed, "closed");
    });
  }

  void abort() override {
    post([](WireEnd& self) { self.close(StateErrc::link_closed, "aborted"); });
  }

  /// Cuts the wire here: what is under way to this end is lost, and both ends hear of it.
  void cut() {
    post([](WireEnd& self) { self.close(StateErrc::link_closed, "cut"); });
  }

  /// Reads what waits, after a fault that kept it from doing so was lifted.
  void resume_reading() {
    post([](WireEnd& self) { self.read(); });
  }

  [[nodiscard]] bool is_open() const { return owner_ != nullptr; }
  [[nodiscard]] std::size_t waiting_bytes() const { return inbox_.size(); }
  /// All bytes that ever came in here.
  [[nodiscard]] std::uint64_t bytes_received() const { return bytes_received_; }

 private:
  /// Closes when its task has run, or is dropped because the virtual world ends: link and owner hold each
  /// other.
  class CloseAtEnd {
   public:
    explicit CloseAtEnd(std::shared_ptr<WireEnd> end) : end_(std::move(end)) {}
    CloseAtEnd(CloseAtEnd&&) = default;
    CloseAtEnd& operator=(CloseAtEnd&&) = delete;
    ~CloseAtEnd() {
      if (end_) end_->close(StateErrc::link_closed, "closed");
    }

   private:
    std::shared_ptr<WireEnd> end_;
  };

  template <class F>
  void post(F f) {
    executor_->post([self = shared_from_this(), f = std::move(f)] { f(*self); });
  }

  void open(std::shared_ptr<LinkOwner> owner, const LinkInfo& info) {
    owner_ = std::move(owner);
    post([info](WireEnd& self) {
      if (const auto alive = self.owner_) alive->on_open(info);
    });
  }

  /// Takes bytes from the owner while the peer has room for them.
  void pump() {
    const auto peer = peer_.lock();
    const auto owner = owner_;
    if (!owner || !peer) return;
    while (owner_ && peer->inbox_.size() < faults_->buffer_bytes) {
      Bytes out;
      owner->produce(out);
      if (out.empty()) {
        if (is_closing_) close(StateErrc::link_closed, "closed");
        return;
      }
      peer->inbox_.insert(peer->inbox_.end(), out.begin(), out.end());
      peer->bytes_received_ += out.size();
      peer->resume_reading();
    }
    is_waiting_for_room_ = true;
  }

  [[nodiscard]] bool is_deaf() const {
    return is_client_ ? faults_->is_client_deaf : faults_->is_server_deaf;
  }

  void read() {
    const auto owner = owner_;
    if (!owner || is_deaf() || inbox_.empty()) return;
    const std::size_t size = (std::min)(inbox_.size(), std::max<std::size_t>(faults_->read_bytes, 1));
    const Bytes piece(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(size));
    inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(size));
    owner->on_bytes(piece);
    if (!inbox_.empty()) resume_reading();
    const auto peer = peer_.lock();
    if (peer && std::exchange(peer->is_waiting_for_room_, false)) peer->wake();
    if (is_peer_closed_ && inbox_.empty()) close(StateErrc::link_closed, "the peer closed");
  }

  void close(StateErrc reason, const char* detail) {
    const auto owner = std::exchange(owner_, nullptr);
    if (!owner) return;
    if (const auto peer = peer_.lock()) {
      peer->post([](WireEnd& self) {
        self.is_peer_closed_ = true;
        if (self.inbox_.empty() || self.is_deaf()) self.close(StateErrc::link_closed, "the peer closed");
      });
    }
    owner->on_closed(make_error_code(reason), detail);
  }

  std::shared_ptr<Executor> executor_;
  std::shared_ptr<const WireFaults> faults_;
  bool is_client_;
  std::weak_ptr<WireEnd> peer_;
  std::shared_ptr<LinkOwner> owner_;
  Bytes inbox_;
  std::uint64_t bytes_received_ = 0;
  bool is_pumping_ = false;
  bool is_closing_ = false;
  bool is_peer_closed_ = false;
  bool is_waiting_for_room_ = false;
};

}  // namespace syncstate::inproc

#endif
