// TLS over TCP: servers, remotes and replicas for real processes.
#ifndef SYNCSTATE_TCP_HPP
#define SYNCSTATE_TCP_HPP

#include "syncstate/async/async_wait_for.hpp"  // IWYU pragma: export
#include "syncstate/replica.hpp"               // IWYU pragma: export
#include "syncstate/syncstate.hpp"             // IWYU pragma: export
#include "syncstate/tcp/state_remote.hpp"      // IWYU pragma: export
#include "syncstate/tcp/state_server.hpp"      // IWYU pragma: export
#include "syncstate/tcp/tls.hpp"               // IWYU pragma: export

#endif
