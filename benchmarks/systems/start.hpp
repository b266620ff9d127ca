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
/// `is_tuned`: with the options for short hooks and one thread; else with those that one gets without asking.
[[nodiscard]] std::unique_ptr<System> start_syncstate(bool is_tuned, const SystemOptions& options);

}  // namespace benchmarks

#endif
