// Resolves host names, anew at each attempt. A caller that gives up does not wait for the system.
#ifndef SYNCSTATE_TCP_RESOLVER_HPP
#define SYNCSTATE_TCP_RESOLVER_HPP

#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/async/asio.hpp"
#include "syncstate/tcp/endpoint.hpp"
#include "syncstate/tcp/native_socket.hpp"
#include "syncstate/threads/own_thread.hpp"

#include <asio/posix/stream_descriptor.hpp>

namespace syncstate::tcp::detail {

/// What a name stands for: addresses, or why there are none.
struct Resolved {
  std::vector<SocketAddress> addresses;
  std::string failure;
};

/// Asks the system for a host exactly as it is typed.
inline Resolved resolve_as_typed(const Endpoint& endpoint, int flags) {
  struct FreeList {
    void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
  };
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  const int system_error = errno;
  const std::unique_ptr<addrinfo, FreeList> list(found);
  Resolved resolved;
  if (error != 0) {
    resolved.failure =
        error == EAI_SYSTEM ? std::generic_category().message(system_error) : ::gai_strerror(error);
    return resolved;
  }
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) {
    SocketAddress address;
    if (at->ai_addrlen > sizeof address.storage) continue;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
    resolved.addresses.push_back(address);
  }
  if (resolved.addresses.empty()) resolved.failure = "no address";
  return resolved;
}

/// Asks the system; `flags` as for getaddrinfo. Blocks unless they include AI_NUMERICHOST.
///
/// A final dot is no part of an address or of a name in the system's file of hosts, so a host that is not found
/// with it is asked for without.
inline Resolved resolve_now(Endpoint endpoint, int flags) {
  Resolved resolved = resolve_as_typed(endpoint, flags);
  if (!resolved.addresses.empty() || !endpoint.host.ends_with('.')) return resolved;
  endpoint.host.pop_back();
  return resolve_as_typed(endpoint, flags);
}

/// One look-up of a name that is not numeric.
///
/// getaddrinfo can't be called off, and Asio's resolver makes its context's destructor wait for it. So each
/// look-up has a thread to itself, which owns all it touches and reports by a byte in a pipe. That the pipe is closed would
/// not do: a child that was forked off meanwhile has a copy of the end that is written to.
class NameLookup {
 public:
  /// Errors: std::system_error where there is no thread or pipe to be had.
  NameLookup(const asio::any_io_executor& executor, const Endpoint& endpoint)
      : result_(std::make_shared<Result>()), done_(executor) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
      throw std::system_error(errno, std::generic_category(), "pipe");
    }
    NativeSocket reading(ends[0]);
    NativeSocket writing(ends[1]);
    done_.assign(reading.get());
    (void)reading.release();
    syncstate::detail::start_thread(syncstate::detail::ThreadKind::resolver, [result = result_, endpoint,
                                                                              end = std::move(writing)] {
      Resolved resolved = resolve_now(endpoint, AI_ADDRCONFIG);
      {
        const std::lock_guard lock(result->mutex);
        result->resolved = std::move(resolved);
      }
      // If nobody waits any more, that fails; SIGPIPE is blocked in threads of the library.
      (void)!::write(end.get(), "", 1);
    }).detach();
  }

  /// Calls `f(error)` when there is something to `take`.
  template <class F>
  void async_wait(F f) {
    done_.async_wait(asio::posix::stream_descriptor::wait_read, std::move(f));
  }

  /// What was found.
  [[nodiscard]] Resolved take() {
    const std::lock_guard lock(result_->mutex);
    return std::move(result_->resolved);
  }

 private:
  struct Result {
    std::mutex mutex;
    Resolved resolved;
  };

  std::shared_ptr<Result> result_;
  asio::posix::stream_descriptor done_;
};

}  // namespace syncstate::tcp::detail

#endif
