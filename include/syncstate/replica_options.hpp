// How a replica follows.
#ifndef SYNCSTATE_REPLICA_OPTIONS_HPP
#define SYNCSTATE_REPLICA_OPTIONS_HPP

#include <chrono>
#include <memory>

#include "syncstate/error_handler.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/types.hpp"

namespace syncstate {

struct ReplicaOptions {
  /// True: one diff, and one callback, for every commit, as long as the master's log reaches and the
  /// callbacks keep up with 4,096 diffs or 16 MiB of them. False: who is behind gets merged diffs.
  bool every_step = false;
  /// What to do when the master was restarted.
  EpochPolicy epoch_policy = EpochPolicy::accept;
  /// How often a remote that can't be followed is asked. Must be above zero.
  Duration poll_every = std::chrono::seconds(1);
  /// Where callbacks run, and polling, which blocks. Null: on a thread of the replica's own, started when
  /// first needed; where the remote lives on virtual time, on that.
  std::shared_ptr<Executor> executor = nullptr;
  /// Told what a callback threw, on the thread that it ran on. Without it that is dropped.
  ErrorHandler on_error = nullptr;
};

}  // namespace syncstate

#endif
