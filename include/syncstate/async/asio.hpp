// The one header that knows which Asio this is: Debian 12's 1.22 up to current standalone Asio.
#ifndef SYNCSTATE_ASYNC_ASIO_HPP
#define SYNCSTATE_ASYNC_ASIO_HPP

#include "syncstate/detail/requirements.hpp"

// Asio 1.22 uses this header without including it, and libc++ 19 and newer no longer include it indirectly.
#include <exception>

// Without it Asio would look for Boost wherever a compiler hides that it speaks C++11.
#ifndef ASIO_STANDALONE
#define ASIO_STANDALONE 1
#endif

// Asio does not detect -fno-rtti.
#if !defined(ASIO_NO_TYPEID) && !defined(__cpp_rtti)
#define ASIO_NO_TYPEID 1
#endif

#include <asio/version.hpp>

#if ASIO_VERSION < 102200
#error "syncstate needs standalone Asio 1.22 or newer"
#endif

#include <asio/any_io_executor.hpp>
#include <asio/error.hpp>

#if __has_include(<asio/as_tuple.hpp>)
#include <asio/as_tuple.hpp>
#else
#include <asio/experimental/as_tuple.hpp>
#endif

// Everywhere else only what both ends of that range have is used: io_context and its executor_type, strand<>,
// steady_timer::expires_at and cancel(), post(executor, f), async_wait on sockets and descriptors,
// async_initiate, ip::make_address. Not used, because newer Asio dropped or renamed it: io_service,
// io_context::strand, io_context::post, deadline_timer, buffer_cast, address::from_string, resolver::query,
// cancel(error_code&) of timers, asio_handler_invoke.

namespace syncstate::async {

#if __has_include(<asio/as_tuple.hpp>)
using asio::as_tuple;
using asio::as_tuple_t;
#else
using asio::experimental::as_tuple;
using asio::experimental::as_tuple_t;
#endif

}  // namespace syncstate::async

#endif
