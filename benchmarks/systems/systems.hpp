// Several systems beside each other.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_SYSTEMS_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_SYSTEMS_HPP

#include <memory>
#include <vector>

#include "systems/system.hpp"

namespace benchmarks {

/// Systems that run side by side. Start all before any client connects: a server is a fork of this process, and would
/// hold the connections open that it finds.
class Systems {
 public:
  Systems() = default;
  Systems(const Systems&) = delete;
  Systems& operator=(const Systems&) = delete;
  /// The last one first: it holds what tells the others to end.
  ~Systems() {
    while (!all_.empty()) all_.pop_back();
  }

  /// Null where it is not installed.
  System* start(SystemKind kind, const SystemOptions& options = {}) {
    auto system = start_system(kind, options);
    if (!system) return nullptr;
    all_.push_back(std::move(system));
    return all_.back().get();
  }

 private:
  std::vector<std::unique_ptr<System>> all_;
};

}  // namespace benchmarks

#endif
