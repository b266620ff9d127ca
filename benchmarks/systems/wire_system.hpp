// A system whose clients are bare connections that speak a dialect: the floor and the peers.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_WIRE_SYSTEM_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_WIRE_SYSTEM_HPP

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/tcp_info.hpp"
#include "systems/dialect.hpp"
#include "systems/loop.hpp"
#include "systems/server.hpp"
#include "systems/system.hpp"
#include "systems/wire.hpp"

namespace benchmarks {

class WireSystem final : public System {
 public:
  WireSystem(std::unique_ptr<Server> server, std::unique_ptr<Dialect> dialect)
      : server_(std::move(server)), dialect_(std::move(dialect)), context_(wire::make_client_context()) {}

  [[nodiscard]] bool merges() const override { return dialect_->merges(); }
  [[nodiscard]] double server_cpu_seconds() const override { return server_->cpu_seconds(); }
  [[nodiscard]] double server_resident_bytes() const override { return server_->resident_bytes(); }

  [[nodiscard]] std::size_t server_open_files() const override { return server_->open_files(); }
  [[nodiscard]] double received_bytes() const override {
    return benchmarks::received_bytes(first_subscriber().wire.handle());
  }

  void stall(bool is_stalled) override {
    const Link& link = first_subscriber();
    if (is_stalled) {
      loop_.remove(link.wire.handle());
    } else {
      loop_.add(link.wire.handle(), static_cast<std::uint32_t>(&link - links_.data()));
    }
  }

  void add_publisher() override {
    wire::Wire wire = open();
    dialect_->greet_as_publisher(wire, context_.get());
    publishers_.push_back(links_.size());
    add(std::move(wire), true, publishers_.size() - 1);
  }

  void add_subscribers(std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      wire::Wire wire = open();
      dialect_->greet_as_subscriber(wire, context_.get());
      add(std::move(wire), false, subscribers_++);
    }
  }

  void publish(std::size_t publisher, std::uint64_t number) override {
    Link& link = links_[publishers_[publisher]];
    dialect_->write_update(publisher, number, link.out);
    ++link.published;
  }

  void flush() override {
    for (const std::size_t at : publishers_) {
      Link& link = links_[at];
      if (link.published == 0) continue;
      dialect_->write_end_of_batch(link.index, std::exchange(link.published, 0), link.out);
      send(at);
    }
  }

  void turn(Clock::duration limit, Witness& witness) override {
    loop_.turn(limit, [&](std::uint32_t at) {
      Link& link = links_[at];
      if (link.wire.has_rest()) {
        link.wire.send_rest();
        watch(at);
      }
      if (!link.wire.receive([&](std::string_view bytes) { take(link, bytes, witness); })) {
        throw std::runtime_error("a server has closed a connection");
      }
      if (!link.out.empty() && link.published == 0) send(at);
    });
  }

 private:
  struct Link {
    wire::Wire wire;
    bool is_publisher;
    std::size_t index;          // among the publishers or subscribers
    std::size_t published = 0;  // what `out` holds of updates
    std::string out;            // not sent yet
    std::string in;             // the beginning of what has not come whole
    bool is_watched = false;    // for room to write
  };

  [[nodiscard]] const Link& first_subscriber() const {
    return *std::find_if(links_.begin(), links_.end(), [](const Link& link) { return !link.is_publisher; });
  }

  [[nodiscard]] wire::Wire open() const { return wire::Wire(wire::connect(server_->port())); }

  void add(wire::Wire wire, bool is_publisher, std::size_t index) {
    wire.stop_blocking();
    loop_.add(wire.handle(), static_cast<std::uint32_t>(links_.size()));
    links_.push_back(Link{std::move(wire), is_publisher, index, 0, {}, {}});
  }

  void send(std::size_t at) {
    Link& link = links_[at];
    link.wire.send(link.out);
    link.out.clear();
    watch(at);
  }

  void watch(std::size_t at) {
    Link& link = links_[at];
    if (link.is_watched == link.wire.has_rest()) return;
    link.is_watched = link.wire.has_rest();
    loop_.watch_writing(link.wire.handle(), static_cast<std::uint32_t>(at), link.is_watched);
  }

  void take(Link& link, std::string_view bytes, Witness& witness) {
    if (!link.in.empty()) {
      link.in += bytes;
      link.in.erase(0, read(link, link.in, witness));
    } else {
      link.in = bytes.substr(read(link, bytes, witness));
    }
  }

  std::size_t read(Link& link, std::string_view text, Witness& witness) {
    if (link.is_publisher) {
      std::size_t answered = 0;
      const std::size_t size = dialect_->read_answers(link.index, text, answered, link.out);
      if (answered > 0) witness.answered(link.index, answered);
      return size;
    }
    delivered_.clear();
    const std::size_t size = dialect_->read_deliveries(text, delivered_, link.out);
    for (const std::uint64_t number : delivered_) witness.delivered(link.index, number);
    return size;
  }

  std::unique_ptr<Server> server_;
  std::unique_ptr<Dialect> dialect_;
  wire::Context context_;
  Loop loop_;
  std::vector<Link> links_;
  std::vector<std::size_t> publishers_;  // places in `links_`
  std::size_t subscribers_ = 0;
  std::vector<std::uint64_t> delivered_;
};

}  // namespace benchmarks

#endif
