// A remote on virtual time, connected to a port.
#ifndef SYNCSTATE_INPROC_STATE_REMOTE_HPP
#define SYNCSTATE_INPROC_STATE_REMOTE_HPP

#include <memory>
#include <string>
#include <utility>

#include "syncstate/inproc/port.hpp"
#include "syncstate/inproc/virtual_executor.hpp"
#include "syncstate/remote_client.hpp"

namespace syncstate::inproc {

/// The remote of an in-process server. Blocking calls run the virtual world until they are done.
///
/// Threads: one, that of the `VirtualTime`.
/// Fork   : there is no thread to lose; a forked child has its own copy of everything, which goes on as before.
class StateRemote final : public RemoteClient {
 public:
  StateRemote(VirtualTime& time, std::shared_ptr<Port> port, RemoteCoreOptions options,
              std::string address = "127.0.0.1")
      : StateRemote(time.make_executor(), std::move(port), std::move(options), std::move(address)) {}
  ~StateRemote() { core().stop(); }

  using RemoteClient::core;

 private:
  StateRemote(const std::shared_ptr<Executor>& executor, std::shared_ptr<Port> port,
              RemoteCoreOptions options, std::string address)
      : RemoteClient(syncstate::detail::RemoteCore::create(
            executor, std::make_shared<PortConnector>(std::move(port), executor, std::move(address)),
            std::move(options))) {
    start();
  }
};

}  // namespace syncstate::inproc

#endif
