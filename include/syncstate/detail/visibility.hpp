// Marks functions and classes of which all shared libraries of a process must use the same one.
#ifndef SYNCSTATE_DETAIL_VISIBILITY_HPP
#define SYNCSTATE_DETAIL_VISIBILITY_HPP

#include "syncstate/detail/requirements.hpp"

// Use it on functions with static variables whose address or value has a meaning, and on exception classes, which are
// caught by their type. Without it, every shared library that is compiled with -fvisibility=hidden has its own.
//
// It does not reach everything: a program without exported symbols (-rdynamic, ENABLE_EXPORTS) does not share its
// static variables with a library that is opened by dlopen. So nothing here depends on it alone: error codes are
// compared by the name of their category, and what depends on a seed keeps the seed in itself.
#if defined(__GNUC__)
#define SYNCSTATE_VISIBLE [[gnu::visibility("default")]]
#else
#define SYNCSTATE_VISIBLE
#endif

#endif
