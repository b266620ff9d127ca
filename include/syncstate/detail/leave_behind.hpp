// Keeps what a forked child must not destroy.
#ifndef SYNCSTATE_DETAIL_LEAVE_BEHIND_HPP
#define SYNCSTATE_DETAIL_LEAVE_BEHIND_HPP

#include <atomic>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Keeps its arguments until the process ends, and never runs their destructors.
///
/// For a forked child. There, destroying a thread, a condition variable or a socket of the parent would wait for ever
/// for a thread that does not exist, or take the socket out of an epoll set that parent and child share. What is left
/// behind stays reachable, so leak checkers report nothing.
/// Threads: any. It takes no lock.
template <class... T>
void leave_behind(T&&... things) {
  static_assert((std::is_rvalue_reference_v<T&&> && ...), "give away what is to be left behind: std::move");
  struct Kept {
    std::tuple<std::remove_cvref_t<T>...> things;
    Kept* next;
  };
  static std::atomic<Kept*> all{nullptr};
  Kept* const kept = new Kept{std::tuple<std::remove_cvref_t<T>...>(std::move(things)...), nullptr};
  kept->next = all.load(std::memory_order_relaxed);
  while (!all.compare_exchange_weak(kept->next, kept, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

/// Returns the detail of the `stopped` that is thrown there; `what` names the object, as in "this server".
inline std::string forked_text(const char* what) {
  return std::string(what) +
         " works in the process that started it, and this is a child that was forked off later, without its "
         "threads; "
         "after fork(), make a new one, or start it only then";
}

}  // namespace syncstate::detail

#endif
