#include "systems/system.hpp"

#include "systems/start.hpp"

namespace benchmarks {

std::string_view name_of(SystemKind kind) {
  switch (kind) {
    case SystemKind::bare_tcp: return "bare TCP";
    case SystemKind::bare_tls: return "bare TLS";
    case SystemKind::redis: return "Redis PUBLISH";
    case SystemKind::redis_set: return "Redis SET";
    case SystemKind::redis_state: return "Redis SET + PUBLISH";
    case SystemKind::nats: return "NATS";
    case SystemKind::nats_kv: return "JetStream KV";
    case SystemKind::syncstate: return "syncstate";
    case SystemKind::syncstate_inline: return "syncstate, hooks on I/O threads";
    case SystemKind::syncstate_spinning: return "syncstate, that and spinning";
  }
  return "unknown";
}

std::unique_ptr<System> start_system(SystemKind kind, const SystemOptions& options) {
  switch (kind) {
    case SystemKind::bare_tcp: return start_floor(false, options);
    case SystemKind::bare_tls: return start_floor(true, options);
    case SystemKind::redis: return start_redis(RedisWrites::publish, options);
    case SystemKind::redis_set: return start_redis(RedisWrites::set, options);
    case SystemKind::redis_state: return start_redis(RedisWrites::set_and_publish, options);
    case SystemKind::nats: return start_nats(false, options);
    case SystemKind::nats_kv: return start_nats(true, options);
    case SystemKind::syncstate:
    case SystemKind::syncstate_inline:
    case SystemKind::syncstate_spinning: return start_syncstate(kind, options);
  }
  return nullptr;
}

}  // namespace benchmarks
