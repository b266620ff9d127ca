// A peer that speaks frames by hand over an in-process wire: what a hostile or a foreign implementation
// sends.
#ifndef SYNCSTATE_TESTS_SUPPORT_RAW_PEER_HPP
#define SYNCSTATE_TESTS_SUPPORT_RAW_PEER_HPP

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/codec.hpp"
#include "syncstate/inproc/port.hpp"
#include "syncstate/inproc/virtual_executor.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/proof.hpp"

namespace syncstate::testing {

/// One end of a wire, as client or as server.
class RawPeer final : public std::enable_shared_from_this<RawPeer> {
 public:
  struct Received {
    protocol::FrameKind kind;
    Bytes body;
  };

  static std::shared_ptr<RawPeer> connect(inproc::VirtualTime& time, inproc::Port& port,
                                          const std::string& address = "192.0.2.1") {
    auto peer = std::make_shared<RawPeer>();
    peer->executor_ = time.make_executor();
    peer->link_ = port.connect(peer->executor_, std::make_shared<Ear>(peer), address);
    time.run_ready();
    return peer;
  }

  /// Listens on the port; `on_peer` gets each client that connects, and keeps it.
  template <class F>
  static void listen(inproc::VirtualTime& time, inproc::Port& port, F on_peer) {
    std::shared_ptr<Executor> executor = time.make_executor();
    port.listen(executor, [executor, on_peer](std::shared_ptr<inproc::WireEnd> end, const std::string&) {
      auto peer = std::make_shared<RawPeer>();
      peer->executor_ = executor;
      peer->link_ = std::move(end);
      on_peer(peer);
      return std::make_shared<Ear>(peer);
    });
  }

  template <class Message>
  void send(const Message& message) {
    protocol::append_frame(out_, message);
    link_->wake();
  }
  void send_bytes(ByteView bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    link_->wake();
  }
  /// A frame of any kind and body.
  void send_frame(std::uint8_t kind, ByteView body) {
    const std::size_t start = protocol::open_frame(out_);
    out_.push_back(static_cast<std::byte>(kind));
    out_.insert(out_.end(), body.begin(), body.end());
    protocol::close_frame(out_, start);
    link_->wake();
  }
  void send_hello(const std::string& word) {
    protocol::Hello hello;
    hello.proof = protocol::make_proof(word, protocol::ProofRole::client, binding_);
    send(hello);
  }
  void send_welcome(const std::string& word, protocol::Welcome welcome = {}) {
    welcome.proof = protocol::make_proof(word, protocol::ProofRole::server, binding_);
    send(welcome);
  }
  void abort() { link_->abort(); }

  /// The first frame of this kind from number `from` on.
  template <class Message>
  [[nodiscard]] std::optional<Message> find(std::size_t from = 0) const {
    for (std::size_t i = from; i < received_.size(); ++i) {
      if (received_[i].kind == Message::kind) return protocol::decode_body<Message>(received_[i].body);
    }
    return std::nullopt;
  }
  template <class Message>
  [[nodiscard]] std::vector<Message> all() const {
    std::vector<Message> found;
    for (const Received& frame : received_) {
      if (frame.kind == Message::kind) found.push_back(protocol::decode_body<Message>(frame.body));
    }
    return found;
  }
  [[nodiscard]] const std::vector<Received>& received() const { return received_; }
  [[nodiscard]] std::uint64_t received_bytes() const { return received_bytes_; }
  [[nodiscard]] bool is_open() const { return is_open_; }
  /// Why the other side ended the session; 0 if it did not say.
  [[nodiscard]] StateErrc goodbye() const {
    const auto said = find<protocol::Goodbye>();
    return said ? said->reason : StateErrc{};
  }
  void forget() { received_.clear(); }

 private:
  /// Hears for a peer without keeping it: the peer holds the link, and the link its owner.
  class Ear final : public LinkOwner {
   public:
    explicit Ear(std::weak_ptr<RawPeer> peer) : peer_(std::move(peer)) {}

    void on_open(const LinkInfo& info) override {
      if (const auto peer = peer_.lock()) {
        peer->binding_ = info.channel_binding;
        peer->is_open_ = true;
      }
    }
    void on_bytes(ByteView bytes) override {
      if (const auto peer = peer_.lock()) peer->take(bytes);
    }
    void produce(Bytes& out) override {
      if (const auto peer = peer_.lock()) out.swap(peer->out_);
    }
    void on_closed(std::error_code, const std::string&) override {
      if (const auto peer = peer_.lock()) peer->is_open_ = false;
    }

   private:
    std::weak_ptr<RawPeer> peer_;
  };

  void take(ByteView bytes) {
    received_bytes_ += bytes.size();
    frames_.feed(bytes, [this](const protocol::Frame& frame) {
      received_.push_back({frame.kind, Bytes(frame.body.begin(), frame.body.end())});
      return true;
    });
  }

  std::shared_ptr<Executor> executor_;
  std::shared_ptr<Link> link_;
  Bytes binding_;
  Bytes out_;
  protocol::FrameReader frames_{std::numeric_limits<std::size_t>::max()};
  std::vector<Received> received_;
  std::uint64_t received_bytes_ = 0;
  bool is_open_ = false;
};

/// Asks for a map of strings.
inline protocol::Open open_of(const MapHash& hash, protocol::ChannelId channel = 1,
                              protocol::FollowMode mode = protocol::FollowMode::none) {
  protocol::Open open;
  open.channel = channel;
  open.hash = hash;
  open.key_type = type_name<std::string>();
  open.value_type = type_name<std::string>();
  open.mode = mode;
  return open;
}

/// Entries of an initial state, which must outlive the message.
inline protocol::Upload upload_of(ByteView entries, protocol::ChannelId channel = 1) {
  protocol::Upload upload;
  upload.channel = channel;
  upload.bytes = entries;
  return upload;
}

/// A client that has proved itself.
inline std::shared_ptr<RawPeer> connect_raw(inproc::VirtualTime& time, inproc::Port& port,
                                            const std::string& word,
                                            const std::string& address = "192.0.2.1") {
  auto peer = RawPeer::connect(time, port, address);
  peer->send_hello(word);
  time.run_ready();
  return peer;
}

}  // namespace syncstate::testing

#endif
