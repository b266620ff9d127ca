// The servers that are measured: a process each, of ours or of somebody else's.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_SERVER_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_SERVER_HPP

#include <netinet/in.h>

#include <string>

#include "support/child_process.hpp"

namespace benchmarks {

using support::ChildDuty;
using support::ChildProcess;

/// A server in a process of its own, which ends with this.
class Server {
 public:
  Server() = default;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  virtual ~Server() = default;

  /// Where it listens on 127.0.0.1.
  [[nodiscard]] virtual in_port_t port() const = 0;
  [[nodiscard]] virtual double cpu_seconds() const = 0;
  [[nodiscard]] virtual double resident_bytes() const = 0;
};

/// One that runs our code: `serve(ChildDuty&)` in a fork of this process, which says its port, or `host:port`.
class ForkedServer final : public Server {
 public:
  template <class F>
  explicit ForkedServer(F serve) : process_(serve) {}

  [[nodiscard]] const std::string& endpoint() const { return process_.endpoint(); }
  [[nodiscard]] in_port_t port() const override {
    const std::string& where = endpoint();
    return static_cast<in_port_t>(std::stoi(where.substr(where.rfind(':') + 1)));
  }
  [[nodiscard]] double cpu_seconds() const override { return process_.cpu_seconds(); }
  [[nodiscard]] double resident_bytes() const override { return process_.resident_bytes(); }

 private:
  ChildProcess process_;
};

}  // namespace benchmarks

#endif
