#include "systems/system.hpp"

#include "systems/start.hpp"

namespace benchmarks {

std::unique_ptr<System> start_system(SystemKind kind, const SystemOptions& options) {
  switch (kind) {
    case SystemKind::bare_tcp: return start_floor(false, options);
    case SystemKind::bare_tls: return start_floor(true, options);
    case SystemKind::redis: return nullptr;
    case SystemKind::redis_set: return nullptr;
    case SystemKind::nats: return nullptr;
    case SystemKind::nats_kv: return nullptr;
    case SystemKind::syncstate: return start_syncstate(options);
  }
  return nullptr;
}

}  // namespace benchmarks
