// Handles SIGINT and SIGTERM on a thread of its own, whatever other threads wait for.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_ON_SIGNAL_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_ON_SIGNAL_HPP

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <csignal>
#include <functional>
#include <system_error>
#include <thread>
#include <utility>

namespace config_service {

/// Calls a function at the first SIGINT or SIGTERM. While this object lives, these signals do not end the program.
class OnSignal {
 public:
  explicit OnSignal(std::function<void()> f) {
    signals_.async_wait([f = std::move(f)](std::error_code cancelled, int) {
      if (!cancelled) f();
    });
    thread_ = std::thread([this] { context_.run(); });
  }
  OnSignal(const OnSignal&) = delete;
  OnSignal& operator=(const OnSignal&) = delete;
  ~OnSignal() {
    context_.stop();
    thread_.join();
  }

 private:
  asio::io_context context_;
  asio::signal_set signals_{context_, SIGINT, SIGTERM};
  std::thread thread_;
};

}  // namespace config_service

#endif
