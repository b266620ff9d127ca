#include "systems/system.hpp"

#include "systems/start.hpp"

namespace benchmarks {

std::unique_ptr<System> start_system(SystemKind kind, const SystemOptions& options) {
  switch (kind) {
    case SystemKind::bare_tcp: return start_floor(false, options);
    case SystemKind::bare_tls: return start_floor(true, options);
    case SystemKind::redis: return start_redis(false, options);
    case SystemKind::redis_set: return start_redis(true, options);
    case SystemKind::nats: return start_nats(false, options);
    case SystemKind::nats_kv: return start_nats(true, options);
    case SystemKind::syncstate: return start_syncstate(options);
  }
  return nullptr;
}

}  // namespace benchmarks
