// Marks functions and classes of which all shared libraries of a process must use the same one.
#ifndef SYNCSTATE_DETAIL_VISIBILITY_HPP
#define SYNCSTATE_DETAIL_VISIBILITY_HPP

#include "syncstate/detail/requirements.hpp"

// Use it on functions with static variables whose address or value has a meaning, and on exception classes, which are
// caught by their type. Without it, every shared library that is compiled with -fvisibility=hidden has its own.
//
// It does not reach everything: a program without exported symbols (-rdynamic, ENABLE_EXPORTS) does not share its static
// variables with a library that is opened by dlopen. So error codes are compared by the name of their category, what depends
// on a seed keeps the seed in itself, and executors and pools keep the threads that run their tasks in themselves: whichever
// side asks, it is told whether a wait would be for its own end.
//
// These depend on it, and see only half where the two sides of a wait have static variables of their own:
// - `RunningHooks`, `HookWaits`: a hook waits for an event, where one side hosts the map of the hook, and the other side made
//   the remote that the hook asks. Such a wait ends with its time limit.
// - `HookWaitGraph`: hooks of two servers wait for each other by `modify`, where each side made one of the servers. Nothing
//   ends that.
#if defined(__GNUC__)
#define SYNCSTATE_VISIBLE [[gnu::visibility("default")]]
#else
#define SYNCSTATE_VISIBLE
#endif

#endif
