// A server on virtual time, reached over a port.
#ifndef SYNCSTATE_INPROC_STATE_SERVER_HPP
#define SYNCSTATE_INPROC_STATE_SERVER_HPP

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "syncstate/error.hpp"
#include "syncstate/inproc/port.hpp"
#include "syncstate/inproc/virtual_executor.hpp"
#include "syncstate/server_core.hpp"

namespace syncstate::inproc {

/// The server core behind a port: the same roles and sessions as over TCP, on one thread and a clock that the
/// test moves.
///
/// Threads: one, that of the `VirtualTime`.
/// End    : the destructor stops it.
/// Fork   : there is no thread to lose; a forked child has its own copy of everything, which goes on as before.
template <class K, class V, class E>
class StateServer {
 public:
  StateServer(VirtualTime& time, std::shared_ptr<Port> port, ServerCoreOptions options)
      : executor_(time.make_executor()),
        port_(std::move(port)),
        core_(ServerCore<K, V, E>::create(std::move(options), time.make_pool())),
        lane_(core_->add_lane(executor_)) {}
  StateServer(const StateServer&) = delete;
  StateServer& operator=(const StateServer&) = delete;
  ~StateServer() { stop(); }

  template <Hook<K, V, E> H>
  void add_hook(H hook) {
    core_->add_hook(std::move(hook));
  }
  template <InitHook<K, V> H>
  void add_init_hook(H hook) {
    core_->add_init_hook(std::move(hook));
  }
  MasterHandle<K, V> host(StateMap<K, V> map) { return core_->host(std::move(map)); }

  void start() {
    core_->start();
    port_->listen(executor_,
                  [core = core_, lane = lane_](std::shared_ptr<WireEnd> end, const std::string& address) {
                    return core->accept(lane, address, [&end] { return std::move(end); });
                  });
    is_listening_ = true;
  }

  void stop() {
    if (std::exchange(is_listening_, false)) port_->close();
    core_->stop();
    try {
      executor_->run_blocking([] {});  // the links hear of it before anyone may end the virtual world
    } catch (const StateError&) {      // that has ended already, or we are one of its tasks
    }
  }

  /// As the core's.
  void set_passwords(std::vector<std::string> current, std::vector<std::string> retired = {}) {
    core_->set_passwords(std::move(current), std::move(retired));
  }
  template <std::predicate<const Peer&> F>
  std::size_t disconnect(F is_meant) {
    return core_->disconnect(std::move(is_meant));
  }
  void recheck() { core_->recheck(); }

  [[nodiscard]] ServerCore<K, V, E>& core() { return *core_; }

 private:
  std::shared_ptr<VirtualExecutor> executor_;
  std::shared_ptr<Port> port_;
  std::shared_ptr<ServerCore<K, V, E>> core_;
  std::shared_ptr<syncstate::detail::Lane> lane_;
  bool is_listening_ = false;
};

}  // namespace syncstate::inproc

#endif
