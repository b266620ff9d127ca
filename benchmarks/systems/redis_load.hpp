// A Redis that holds as many keys as a map of ours, for a client that loads them all.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_REDIS_LOAD_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_REDIS_LOAD_HPP

#include <cstddef>
#include <memory>

namespace benchmarks {

class RedisLoad {
 public:
  RedisLoad() = default;
  RedisLoad(const RedisLoad&) = delete;
  RedisLoad& operator=(const RedisLoad&) = delete;
  virtual ~RedisLoad() = default;

  /// Connects, and has all values in strings of a vector: the fastest a client can do that knows the keys. Milliseconds.
  virtual double load_ms() = 0;
};

/// Sets so many keys of the sample map; null where Redis is not installed.
[[nodiscard]] std::unique_ptr<RedisLoad> start_redis_load(std::size_t keys);

}  // namespace benchmarks

#endif
