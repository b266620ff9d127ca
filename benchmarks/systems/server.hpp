// The servers that are measured: a process each, of ours or of somebody else's.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_SERVER_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_SERVER_HPP

#include <netinet/in.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

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
  /// How many descriptors it has open: one for each connection, besides what never changes.
  [[nodiscard]] virtual std::size_t open_files() const = 0;
};

/// One that runs our code: `serve(ChildDuty&)` in a fork of this process, which says its port, or `host:port`.
class ForkedServer final : public Server {
 public:
  template <class F>
  explicit ForkedServer(F serve)
      : process_([serve, inherited = open_handles()](ChildDuty& duty) {
          // Else it would keep connections of this process open, and what tells other servers to end.
          for (const int handle : inherited) ::close(handle);
          serve(duty);
        }) {}

  [[nodiscard]] const std::string& endpoint() const { return process_.endpoint(); }
  [[nodiscard]] in_port_t port() const override {
    const std::string& where = endpoint();
    return static_cast<in_port_t>(std::stoi(where.substr(where.rfind(':') + 1)));
  }
  [[nodiscard]] double cpu_seconds() const override { return process_.cpu_seconds(); }
  [[nodiscard]] double resident_bytes() const override { return process_.resident_bytes(); }
  [[nodiscard]] std::size_t open_files() const override { return process_.open_files(); }
  /// Says a word to `ChildDuty::next_word`.
  void tell(char word) { process_.tell(word); }

 private:
  /// All but the standard ones.
  static std::vector<int> open_handles() {
    std::vector<int> handles;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      const int handle = std::stoi(entry.path().filename().string());
      if (handle > STDERR_FILENO) handles.push_back(handle);
    }
    return handles;
  }

  ChildProcess process_;
};

}  // namespace benchmarks

#endif
