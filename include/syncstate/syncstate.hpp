// The model, all of it: maps, diffs, events, hooks, remotes. No I/O, no threads.
#ifndef SYNCSTATE_SYNCSTATE_HPP
#define SYNCSTATE_SYNCSTATE_HPP

#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"
#include "syncstate/concepts.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/dummy_remote.hpp"
#include "syncstate/error.hpp"
#include "syncstate/event.hpp"
#include "syncstate/hook.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/modification.hpp"
#include "syncstate/remote.hpp"
#include "syncstate/state_map.hpp"
#include "syncstate/status.hpp"
#include "syncstate/types.hpp"

#endif
