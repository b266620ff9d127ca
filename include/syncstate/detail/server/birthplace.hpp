// Where the life of a hosted map began.
#ifndef SYNCSTATE_DETAIL_SERVER_BIRTHPLACE_HPP
#define SYNCSTATE_DETAIL_SERVER_BIRTHPLACE_HPP

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// The process in which the life of a hosted map began. `ServerCore` makes one for each map; `HostedSlot` asks it.
///
/// Threads: any.
class Birthplace {
 public:
  Birthplace() = default;
  Birthplace(const Birthplace&) = delete;
  Birthplace& operator=(const Birthplace&) = delete;
  virtual ~Birthplace() = default;

  /// Returns whether it began in another process, from which this one was forked off. False after `forget`.
  [[nodiscard]] virtual bool is_elsewhere() const = 0;
  /// Another life begins, in this process.
  virtual void move_here() = 0;
  /// From now on it does not matter.
  virtual void forget() = 0;
};

}  // namespace syncstate::detail

#endif
