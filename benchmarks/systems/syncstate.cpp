// syncstate as it is measured beside the floor and the peers: everything of the clients on one user's io_context.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/sample_map.hpp"
#include "support/tcp_info.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "systems/proxy.hpp"
#include "systems/server.hpp"
#include "systems/start.hpp"
#include "systems/syncstate_server.hpp"

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

namespace benchmarks {
namespace {

namespace ss = syncstate;
using namespace std::chrono_literals;

struct Publisher {
  std::shared_ptr<ss::tcp::TcpStateRemote> remote;
  Map map;
};

/// Returns when the server hosts the map.
Publisher make_publisher(std::shared_ptr<ss::tcp::TcpStateRemote> remote, asio::io_context& context,
                         std::size_t keys) {
  // To freeze waits for the server, and so wants another thread to run the context.
  auto frozen = std::async(std::launch::async, [&] { return fill(Map(remote), keys); });
  while (frozen.wait_for(0s) != std::future_status::ready) context.run_one_for(1ms);
  return {std::move(remote), frozen.get()};
}

/// With a context of its own.
class Apart final : public ApartPublisher {
 public:
  Apart(const std::string& endpoint, std::size_t keys)
      : keys_(keys), publisher_(make_publisher(connect(context_, endpoint), context_, keys)) {}
  ~Apart() override {
    publisher_.map = Map(ss::Role::replica);
    publisher_.remote.reset();
    context_.run();
  }

  void run(std::size_t in_flight, const std::atomic<bool>& stop,
           const std::function<std::uint64_t()>& next) override {
    std::size_t unanswered = 0;
    while (!stop || unanswered > 0) {
      for (; !stop && unanswered < in_flight; ++unanswered) {
        publisher_.remote->async_send_event(publisher_.map.hash(), set_sample(next(), keys_),
                                            [&](std::error_code error, ss::UpdateId) {
                                              if (error) throw std::system_error(error, "an event");
                                              --unanswered;
                                            });
      }
      context_.run_one();
    }
  }

 private:
  static std::shared_ptr<ss::tcp::TcpStateRemote> connect(asio::io_context& context,
                                                          const std::string& endpoint) {
    auto options = sample_remote_options(endpoint);
    options.context_has_one_thread = true;
    return std::make_shared<ss::tcp::TcpStateRemote>(context, std::move(options));
  }

  std::size_t keys_;
  asio::io_context context_{1};
  Publisher publisher_;
};

class Syncstate final : public System {
 public:
  Syncstate(SystemKind kind, const SystemOptions& options)
      : keys_(options.keys),
        spins_(kind == SystemKind::syncstate_spinning),
        server_([kind, keys = keys_](ChildDuty& duty) {
          ss::tcp::ServerOptions server = sample_server_options();
          server.hooks_on_io_threads = kind != SystemKind::syncstate;
          if (kind == SystemKind::syncstate_spinning) server.spin = 100us;
          serve_sample_map(duty, keys, std::move(server));
        }),
        work_(context_.get_executor()) {
    if (options.can_stall) proxy_.emplace(server_.port());
  }

  ~Syncstate() override {
    subscribers_.clear();
    publishers_.clear();
    work_.reset();
    context_.run();
  }

  [[nodiscard]] bool merges() const override { return true; }
  [[nodiscard]] double server_cpu_seconds() const override { return server_.cpu_seconds(); }
  [[nodiscard]] double server_resident_bytes() const override { return server_.resident_bytes(); }

  [[nodiscard]] std::size_t server_open_files() const override { return server_.open_files(); }
  [[nodiscard]] double received_bytes() const override {
    return benchmarks::received_bytes(first_subscriber_);
  }
  void stall(bool is_stalled) override { proxy_.value().stall(is_stalled); }

  void add_publisher() override { publishers_.push_back(make_publisher(connect(), context_, keys_)); }

  [[nodiscard]] std::unique_ptr<ApartPublisher> make_apart_publisher() override {
    return std::make_unique<Apart>(server_.endpoint(), keys_);
  }

  void add_subscribers(std::size_t count) override {
    // So many at a time: a server takes so many newcomers at once.
    constexpr std::size_t together = 64;
    if (subscribers_.empty()) {
      const std::set<int> before = tcp_connections();
      add_subscribers_together(1);
      const std::set<int> after = tcp_connections();
      first_subscriber_ =
          *std::find_if(after.begin(), after.end(), [&](int one) { return !before.contains(one); });
      --count;
    }
    while (count > 0) {
      const std::size_t newcomers = std::min(count, together);
      count -= newcomers;
      add_subscribers_together(newcomers);
    }
  }

  void publish(std::size_t publisher, std::uint64_t number) override {
    auto& [remote, map] = publishers_[publisher];
    remote->async_send_event(map.hash(), set_sample(number, keys_),
                             [this, publisher](std::error_code error, ss::UpdateId) {
                               if (error) {
                                 failure_ = error;
                               } else {
                                 witness_->answered(publisher, 1);
                               }
                             });
  }
  void flush() override {}

  void turn(Clock::duration limit, Witness& witness) override {
    if (failure_) throw std::system_error(failure_, "an event");
    witness_ = &witness;
    if (limit == endless && spins_) {
      // As a thread of ours does; here the context is the user's.
      const auto end = Clock::now() + 100us;
      while (context_.poll_one() == 0) {
        if (Clock::now() < end) continue;
        context_.run_one();
        return;
      }
    } else if (limit == endless) {
      context_.run_one();
    } else if (limit <= Clock::duration::zero()) {
      context_.poll_one();
    } else {
      context_.run_one_for(limit);
    }
  }

 private:
  using Replica = ss::Replica<std::string, std::string>;
  std::shared_ptr<ss::tcp::TcpStateRemote> connect(bool is_first_subscriber = false) {
    const bool is_indirect = proxy_ && is_first_subscriber;
    auto options = sample_remote_options(is_indirect ? proxy_->endpoint() : server_.endpoint());
    options.context_has_one_thread = true;
    // Behind the proxy it is the client that hears nothing for long, and must not leave for that.
    if (is_indirect) options.limits.silence = 60s;
    return std::make_shared<ss::tcp::TcpStateRemote>(context_, std::move(options));
  }

  void add_subscribers_together(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      Map map = fill(Map(connect(subscribers_.empty())), keys_, ss::Duration::zero());
      subscribers_.push_back(std::make_unique<Replica>(std::move(map)));
    }
    for (std::size_t i = subscribers_.size() - count; i < subscribers_.size(); ++i) {
      run_until([&] { return subscribers_[i]->epoch() != 0; });
      wait_for_news(i);
    }
  }

  template <class F>
  void run_until(F is_done) {
    const auto end = Clock::now() + 60s;
    while (!is_done()) {
      context_.run_one_for(100ms);
      if (Clock::now() > end) throw std::runtime_error("syncstate's clients did not get through");
    }
  }

  /// Tells the witness of the next state that the subscriber shows, and so on.
  void wait_for_news(std::size_t subscriber) {
    const Replica& shown = *subscribers_[subscriber];
    subscribers_[subscriber]->on_reached(shown.update_id() + 1,
                                         [this, subscriber, &shown](std::error_code error) {
                                           if (error) return;
                                           witness_->delivered(subscriber, shown.update_id());
                                           wait_for_news(subscriber);
                                         });
  }

  std::size_t keys_;
  bool spins_;
  ForkedServer server_;
  std::optional<Proxy> proxy_;  // before the first subscriber
  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<Publisher> publishers_;
  std::vector<std::unique_ptr<Replica>> subscribers_;
  int first_subscriber_ = -1;  // the socket
  std::error_code failure_;
  Witness* witness_ = nullptr;
};

}  // namespace

std::unique_ptr<System> start_syncstate(SystemKind kind, const SystemOptions& options) {
  return std::make_unique<Syncstate>(kind, options);
}

}  // namespace benchmarks
