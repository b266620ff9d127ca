// The in-process transport: servers and remotes on virtual time, for tests that wait for nothing.
#ifndef SYNCSTATE_INPROC_HPP
#define SYNCSTATE_INPROC_HPP

#include "syncstate/inproc/port.hpp"              // IWYU pragma: export
#include "syncstate/inproc/state_remote.hpp"      // IWYU pragma: export
#include "syncstate/inproc/state_server.hpp"      // IWYU pragma: export
#include "syncstate/inproc/virtual_executor.hpp"  // IWYU pragma: export
#include "syncstate/inproc/wire.hpp"              // IWYU pragma: export

#endif
