// Where an in-process server listens and its clients connect: the place to break links on purpose.
#ifndef SYNCSTATE_INPROC_PORT_HPP
#define SYNCSTATE_INPROC_PORT_HPP

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/executor.hpp"
#include "syncstate/inproc/wire.hpp"
#include "syncstate/link.hpp"

namespace syncstate::inproc {

/// A rendezvous inside one process. One server listens at a time; when it is gone, another may.
///
/// Threads: all executors that meet here belong to one thread (virtual time).
class Port : public std::enable_shared_from_this<Port> {
 public:
  /// Takes the server's end of a new wire; null refuses it.
  using Accept =
      std::function<std::shared_ptr<LinkOwner>(std::shared_ptr<WireEnd>, const std::string& address)>;

  void listen(std::shared_ptr<Executor> executor, Accept accept) {
    server_executor_ = std::move(executor);
    accept_ = std::move(accept);
  }
  void close() { accept_ = nullptr; }

  /// Faults of every wire of this port, also of those that exist.
  [[nodiscard]] WireFaults& faults() { return *faults_; }

  /// While set, the server can't be reached; wires that exist go on.
  void set_unreachable(bool is_unreachable) { is_unreachable_ = is_unreachable; }

  /// Cuts every wire.
  void cut_all() {
    for (const auto& weak : client_ends_) {
      if (const auto end = weak.lock()) end->cut();
    }
    client_ends_.clear();
  }

  /// Has every end read what waits, after deafness was lifted.
  void resume_reading() {
    for (const auto& ends : {client_ends_, server_ends_}) {
      for (const auto& weak : ends) {
        if (const auto end = weak.lock()) end->resume_reading();
      }
    }
  }

  /// How many connections were made so far.
  [[nodiscard]] std::uint64_t connections() const { return connections_; }

  /// The clients' ends of the wires there are, for tests that count bytes.
  [[nodiscard]] std::vector<std::shared_ptr<WireEnd>> client_ends() const {
    std::vector<std::shared_ptr<WireEnd>> alive;
    for (const auto& weak : client_ends_) {
      if (auto end = weak.lock(); end && end->is_open()) alive.push_back(std::move(end));
    }
    return alive;
  }

  /// A client from `address` connects.
  std::shared_ptr<Link> connect(const std::shared_ptr<Executor>& executor, std::shared_ptr<LinkOwner> owner,
                                const std::string& address) {
    const auto client = std::make_shared<WireEnd>(executor, faults_, true);
    if (!accept_ || is_unreachable_) return refuse(executor, client, std::move(owner), "nobody listens");
    const auto server = std::make_shared<WireEnd>(server_executor_, faults_, false);
    auto server_owner = accept_(server, address);
    if (!server_owner) return refuse(executor, client, std::move(owner), "the server has no room");
    LinkInfo info;
    info.peer.address = address;
    ++connections_;
    ByteWriter(info.channel_binding).put_u64_be(connections_);  // fresh on every wire, equal at both ends
    client_ends_.push_back(client);
    server_ends_.push_back(server);
    WireEnd::join(client, std::move(owner), server, std::move(server_owner), info);
    return client;
  }

 private:
  static std::shared_ptr<Link> refuse(const std::shared_ptr<Executor>& executor,
                                      const std::shared_ptr<WireEnd>& end, std::shared_ptr<LinkOwner> owner,
                                      std::string why) {
    executor->post([owner = std::move(owner), why = std::move(why)] {
      owner->on_closed(make_error_code(StateErrc::link_closed), why);
    });
    return end;
  }

  std::shared_ptr<WireFaults> faults_ = std::make_shared<WireFaults>();
  std::shared_ptr<Executor> server_executor_;
  Accept accept_;
  std::vector<std::weak_ptr<WireEnd>> client_ends_;
  std::vector<std::weak_ptr<WireEnd>> server_ends_;
  std::uint64_t connections_ = 0;
  bool is_unreachable_ = false;
};

/// Connects a remote to a port.
class PortConnector final : public Connector {
 public:
  PortConnector(std::shared_ptr<Port> port, std::shared_ptr<Executor> executor, std::string address)
      : port_(std::move(port)), executor_(std::move(executor)), address_(std::move(address)) {}

  std::shared_ptr<Link> connect(std::shared_ptr<LinkOwner> owner) override {
    return port_->connect(executor_, std::move(owner), address_);
  }

 private:
  std::shared_ptr<Port> port_;
  std::shared_ptr<Executor> executor_;
  std::string address_;
};

}  // namespace syncstate::inproc

#endif
