// A network of links on virtual time that delays, stalls, cuts at any byte, and forgets to say so.
#ifndef SYNCSTATE_TESTS_SIMULATION_NETWORK_HPP
#define SYNCSTATE_TESTS_SIMULATION_NETWORK_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "simulation/chance.hpp"
#include "simulation/trace.hpp"
#include "syncstate/bytes.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/link.hpp"

namespace syncstate::simulation {

using namespace std::chrono_literals;

/// How all links carry bytes now.
struct Weather {
  std::size_t most_read_bytes = 65'536;  ///< a read brings 1 to so many
  std::size_t capacity_bytes = 65'536;   ///< under way one way before the sender has to wait
  std::chrono::milliseconds most_delay{5};
  bool is_unreachable = false;  ///< for new links
};

/// Who hears of a cut: an end that does not has to find out by itself.
struct Hearing {
  bool client = true;
  bool server = true;
};

/// What the ends of all links share.
struct NetworkState {
  Chance* chance;
  Trace* trace;
  Weather weather{};
  std::size_t most_frame_bytes = 0;  ///< what one `produce` may give at most
};

/// One end of a link.
///
/// A piece of bytes is under way for a while and read in chunks of any size; a sender is asked for more only while
/// less than the capacity is under way, as a kernel would.
class NetworkEnd final : public Link, public std::enable_shared_from_this<NetworkEnd> {
 public:
  NetworkEnd(std::shared_ptr<Executor> executor, std::shared_ptr<const NetworkState> network,
             std::string name)
      : executor_(std::move(executor)), network_(std::move(network)), name_(std::move(name)) {}

  static void join(const std::shared_ptr<NetworkEnd>& client, std::shared_ptr<LinkOwner> client_owner,
                   const std::shared_ptr<NetworkEnd>& server, std::shared_ptr<LinkOwner> server_owner,
                   const LinkInfo& info) {
    client->peer_ = server;
    server->peer_ = client;
    server->open(std::move(server_owner), info);
    client->open(std::move(client_owner), info);
  }

  // Link

  void wake() override {
    if (std::exchange(is_pump_posted_, true)) return;
    post([](NetworkEnd& self) {
      self.is_pump_posted_ = false;
      self.pump();
    });
  }
  void close_gracefully() override {
    post([](NetworkEnd& self) {
      self.is_closing_ = true;
      self.pump();
    });
    executor_->post_at(executor_->now() + 1s, [guard = CloseAtEnd(shared_from_this())] {});
  }
  void abort() override {
    post([](NetworkEnd& self) { self.close("aborted"); });
  }

  // Faults

  [[nodiscard]] bool is_open() const { return owner_ != nullptr; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::shared_ptr<NetworkEnd> peer() const { return peer_.lock(); }

  /// Nothing that is under way to here arrives before `when`.
  void stall_until(TimePoint when) { stalled_until_ = when; }
  /// The link is cut when so many more bytes have come in here.
  void cut_after(std::size_t bytes, Hearing hearing) {
    cut_at_ = received_bytes_ + bytes;
    cut_hearing_ = hearing;
  }
  /// What was to go wrong here and has not yet does not.
  void forget_faults() {
    stalled_until_ = TimePoint{};
    cut_at_.reset();
  }
  /// What is under way to here is lost, and so is all that is sent from now on. Call for both ends.
  void cut(bool hears_of_it) {
    is_cut_ = true;
    inbox_.clear();
    if (hears_of_it) post([](NetworkEnd& self) { self.close("cut"); });
  }
  /// Its process died: it says nothing any more. What it held is given back.
  void die() {
    is_cut_ = true;
    is_dead_ = true;
    inbox_.clear();
    post([](NetworkEnd& self) { self.close("dead"); });
  }

 private:
  /// Closes when its task has run, or is dropped because the virtual world ends: link and owner hold each other.
  class CloseAtEnd {
   public:
    explicit CloseAtEnd(std::shared_ptr<NetworkEnd> end) : end_(std::move(end)) {}
    CloseAtEnd(CloseAtEnd&&) = default;
    CloseAtEnd& operator=(CloseAtEnd&&) = delete;
    ~CloseAtEnd() {
      if (end_) end_->close("closed");
    }

   private:
    std::shared_ptr<NetworkEnd> end_;
  };

  template <class F>
  void post(F f) {
    executor_->post([self = shared_from_this(), f = std::move(f)] { f(*self); });
  }

  void open(std::shared_ptr<LinkOwner> owner, const LinkInfo& info) {
    owner_ = std::move(owner);
    const auto wait = network_->chance->between(0ms, 2 * network_->weather.most_delay);
    executor_->post_at(executor_->now() + wait, [self = shared_from_this(), info] {
      const auto alive = self->owner_;
      if (!alive) return;
      alive->on_open(info);
      self->is_carrying_ = true;
      self->pump();
      self->schedule_read();
    });
  }

  void pump() {
    const auto peer = peer_.lock();
    const auto owner = owner_;
    if (!owner || !is_carrying_ || is_dead_) return;
    while (owner_ && under_way_to(peer) < network_->weather.capacity_bytes) {
      Bytes out;
      owner->produce(out);
      if (out.empty()) {
        if (is_closing_) close("closed");
        return;
      }
      if (out.size() > network_->most_frame_bytes) {
        network_->trace->fail(name_, " has ", out.size(), " bytes in flight at once");
      }
      if (is_cut_ || !peer) {
        lost_bytes_ += out.size();  // the kernel keeps them for a peer that is not there
      } else {
        peer->inbox_.insert(peer->inbox_.end(), out.begin(), out.end());
        peer->schedule_read();
      }
    }
    is_waiting_for_room_ = true;
  }

  [[nodiscard]] std::size_t under_way_to(const std::shared_ptr<NetworkEnd>& peer) const {
    return is_cut_ || !peer ? lost_bytes_ : peer->inbox_.size();
  }

  void schedule_read() {
    if (inbox_.empty() || !is_carrying_ || std::exchange(is_read_posted_, true)) return;
    const TimePoint soon = executor_->now() + network_->chance->between(0ms, network_->weather.most_delay);
    executor_->post_at(std::max(soon, stalled_until_), [self = shared_from_this()] {
      self->is_read_posted_ = false;
      self->read();
    });
  }

  void read() {
    const auto owner = owner_;
    if (!owner || is_cut_ || inbox_.empty()) return;
    if (executor_->now() < stalled_until_) return schedule_read();
    const std::size_t most = std::min(network_->weather.most_read_bytes, inbox_.size());
    std::size_t size = network_->chance->between(1, most);
    if (cut_at_) size = std::min<std::size_t>(size, static_cast<std::size_t>(*cut_at_ - received_bytes_));
    const Bytes piece(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(size));
    inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(size));
    received_bytes_ += size;
    network_->trace->digest(piece);
    const auto peer = peer_.lock();
    if (!piece.empty()) owner->on_bytes(piece);
    if (cut_at_ && received_bytes_ == *cut_at_) {
      network_->trace->add(name_, " is cut after ", received_bytes_, " bytes");
      cut_at_.reset();
      cut(cut_hearing_.client);
      if (peer) peer->cut(cut_hearing_.server);
      return;
    }
    schedule_read();
    if (peer && std::exchange(peer->is_waiting_for_room_, false)) peer->wake();
    if (is_peer_closed_ && inbox_.empty()) close("the peer closed");
  }

  void close(const char* why) {
    const auto owner = std::exchange(owner_, nullptr);
    if (!owner) return;
    if (const auto peer = peer_.lock(); peer && !is_cut_) {
      peer->post([](NetworkEnd& self) {
        self.is_peer_closed_ = true;
        if (self.inbox_.empty()) self.close("the peer closed");
      });
    }
    if (!is_dead_) network_->trace->add(name_, " closes: ", why);
    owner->on_closed(make_error_code(StateErrc::link_closed), why);
  }

  std::shared_ptr<Executor> executor_;
  std::shared_ptr<const NetworkState> network_;
  std::string name_;
  std::weak_ptr<NetworkEnd> peer_;
  std::shared_ptr<LinkOwner> owner_;
  Bytes inbox_;
  std::uint64_t received_bytes_ = 0;
  std::size_t lost_bytes_ = 0;
  std::optional<std::uint64_t> cut_at_;
  Hearing cut_hearing_;
  TimePoint stalled_until_{};
  bool is_carrying_ = false;
  bool is_pump_posted_ = false;
  bool is_read_posted_ = false;
  bool is_waiting_for_room_ = false;
  bool is_closing_ = false;
  bool is_peer_closed_ = false;
  bool is_cut_ = false;
  bool is_dead_ = false;
};

/// Where one master at a time listens, and clients connect.
class Network {
 public:
  using Accept =
      std::function<std::shared_ptr<LinkOwner>(std::shared_ptr<NetworkEnd>, const std::string& address)>;

  Network(Chance& chance, Trace& trace, std::size_t most_frame_bytes)
      : state_(std::make_shared<NetworkState>(NetworkState{&chance, &trace, {}, most_frame_bytes})) {}

  [[nodiscard]] Weather& weather() { return state_->weather; }

  void listen(std::shared_ptr<Executor> executor, Accept accept) {
    server_executor_ = std::move(executor);
    accept_ = std::move(accept);
  }

  /// The master's process dies; `clients_hear` as when its machine goes on, and says that nobody is there.
  void kill_server(bool clients_hear) {
    accept_ = nullptr;
    for (const auto& client : clients()) {
      if (const auto server = client->peer()) server->die();
      client->cut(clients_hear);
    }
  }

  std::shared_ptr<Link> connect(const std::shared_ptr<Executor>& executor, std::shared_ptr<LinkOwner> owner,
                                const std::string& who) {
    const std::string name = who + " link " + std::to_string(++connections_);
    const auto client = std::make_shared<NetworkEnd>(executor, state_, name);
    if (!accept_ || state_->weather.is_unreachable) return refuse(executor, client, std::move(owner));
    const auto server = std::make_shared<NetworkEnd>(server_executor_, state_, name + " at the server");
    auto server_owner = accept_(server, who);
    if (!server_owner) return refuse(executor, client, std::move(owner));
    LinkInfo info;
    info.peer.address = who;
    ByteWriter(info.channel_binding).put_u64_be(connections_);
    state_->trace->add(name, " opens");
    clients_.push_back(client);
    NetworkEnd::join(client, std::move(owner), server, std::move(server_owner), info);
    return client;
  }

  /// The clients' ends of the links there are.
  [[nodiscard]] std::vector<std::shared_ptr<NetworkEnd>> clients() {
    std::vector<std::shared_ptr<NetworkEnd>> open;
    for (const auto& weak : clients_) {
      if (auto end = weak.lock(); end && (end->is_open() || (end->peer() && end->peer()->is_open()))) {
        open.push_back(std::move(end));
      }
    }
    clients_.assign(open.begin(), open.end());
    return open;
  }

 private:
  static std::shared_ptr<Link> refuse(const std::shared_ptr<Executor>& executor,
                                      const std::shared_ptr<NetworkEnd>& end,
                                      std::shared_ptr<LinkOwner> owner) {
    executor->post([owner = std::move(owner)] {
      owner->on_closed(make_error_code(StateErrc::link_closed), "nobody listens");
    });
    return end;
  }

  std::shared_ptr<NetworkState> state_;
  std::shared_ptr<Executor> server_executor_;
  Accept accept_;
  std::vector<std::weak_ptr<NetworkEnd>> clients_;
  std::uint64_t connections_ = 0;
};

/// Connects one client.
class NetworkConnector final : public Connector {
 public:
  NetworkConnector(std::shared_ptr<Network> network, std::shared_ptr<Executor> executor, std::string who)
      : network_(std::move(network)), executor_(std::move(executor)), who_(std::move(who)) {}

  std::shared_ptr<Link> connect(std::shared_ptr<LinkOwner> owner) override {
    return network_->connect(executor_, std::move(owner), who_);
  }

 private:
  std::shared_ptr<Network> network_;
  std::shared_ptr<Executor> executor_;
  std::string who_;
};

}  // namespace syncstate::simulation

#endif
