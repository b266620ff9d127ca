// How each system is started; `start_system` chooses.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_START_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_START_HPP

#include <memory>

#include "systems/system.hpp"

namespace benchmarks {

/// What an update is to Redis.
enum class RedisWrites { publish, set, set_and_publish };

[[nodiscard]] std::unique_ptr<System> start_floor(bool is_tls, const SystemOptions& options);
/// Null where redis-server is not installed.
[[nodiscard]] std::unique_ptr<System> start_redis(RedisWrites writes, const SystemOptions& options);
/// Null where nats-server is not installed.
[[nodiscard]] std::unique_ptr<System> start_nats(bool keeps_state, const SystemOptions& options);
[[nodiscard]] std::unique_ptr<System> start_syncstate(SystemKind kind, const SystemOptions& options);

}  // namespace benchmarks

#endif
