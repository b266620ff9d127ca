// The macros that headers of other libraries define, and that could be names of ours. A program may include such a
// header before ours, so ours use none of these names.
//
// The standard library, OpenSSL, Asio and nlohmann_json come first: that they bear these macros is not ours to promise.
#ifndef SYNCSTATE_TESTS_HEADERS_COMMON_MACROS_HPP
#define SYNCSTATE_TESTS_HEADERS_COMMON_MACROS_HPP

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <asio/any_io_executor.hpp>
#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/cancellation_type.hpp>
#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/system_executor.hpp>
#include <asio/version.hpp>
#include <atomic>
#include <bit>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <compare>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <iosfwd>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <ratio>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

// Not a character of C++, so a use of one of these names does not compile.
#define SYNCSTATE_TESTS_TAKEN @

// X11/X.h, X11/Xlib.h, X11/Xutil.h
#undef None
#define Above SYNCSTATE_TESTS_TAKEN
#define AllValues SYNCSTATE_TESTS_TAKEN
#define Always SYNCSTATE_TESTS_TAKEN
#define Below SYNCSTATE_TESTS_TAKEN
#define Bool SYNCSTATE_TESTS_TAKEN
#define Complex SYNCSTATE_TESTS_TAKEN
#define Convex SYNCSTATE_TESTS_TAKEN
#define CurrentTime SYNCSTATE_TESTS_TAKEN
#define CursorShape SYNCSTATE_TESTS_TAKEN
#define DestroyAll SYNCSTATE_TESTS_TAKEN
#define Expose SYNCSTATE_TESTS_TAKEN
#define False SYNCSTATE_TESTS_TAKEN
#define FocusIn SYNCSTATE_TESTS_TAKEN
#define FocusOut SYNCSTATE_TESTS_TAKEN
#define KeyPress SYNCSTATE_TESTS_TAKEN
#define KeyRelease SYNCSTATE_TESTS_TAKEN
#define NoSymbol SYNCSTATE_TESTS_TAKEN
#define None SYNCSTATE_TESTS_TAKEN
#define Nonconvex SYNCSTATE_TESTS_TAKEN
#define ScreenCount SYNCSTATE_TESTS_TAKEN
#define Status SYNCSTATE_TESTS_TAKEN
#define Success SYNCSTATE_TESTS_TAKEN
#define True SYNCSTATE_TESTS_TAKEN
#define Unsorted SYNCSTATE_TESTS_TAKEN
#define XValue SYNCSTATE_TESTS_TAKEN

// Qt without QT_NO_KEYWORDS
#define emit SYNCSTATE_TESTS_TAKEN
#define forever SYNCSTATE_TESTS_TAKEN
#define foreach SYNCSTATE_TESTS_TAKEN
#define signals SYNCSTATE_TESTS_TAKEN
#define slots SYNCSTATE_TESTS_TAKEN

// glibc's sys/sysmacros.h, BSD's sys/param.h
#undef major
#undef makedev
#undef minor
#undef MAX
#undef MIN
#undef howmany
#undef roundup
#define MAX SYNCSTATE_TESTS_TAKEN
#define MIN SYNCSTATE_TESTS_TAKEN
#define howmany SYNCSTATE_TESTS_TAKEN
#define major SYNCSTATE_TESTS_TAKEN
#define makedev SYNCSTATE_TESTS_TAKEN
#define minor SYNCSTATE_TESTS_TAKEN
#define roundup SYNCSTATE_TESTS_TAKEN

// complex.h, and what other headers and programs call their own
#undef I
#define DEBUG SYNCSTATE_TESTS_TAKEN
#define ERROR SYNCSTATE_TESTS_TAKEN
#define FALSE SYNCSTATE_TESTS_TAKEN
#define I SYNCSTATE_TESTS_TAKEN
#define IN SYNCSTATE_TESTS_TAKEN
#define NO SYNCSTATE_TESTS_TAKEN
#define OUT SYNCSTATE_TESTS_TAKEN
#define TRUE SYNCSTATE_TESTS_TAKEN
#define YES SYNCSTATE_TESTS_TAKEN
#define check SYNCSTATE_TESTS_TAKEN
#undef linux
#define linux 1
#undef unix
#define unix 1
#define require SYNCSTATE_TESTS_TAKEN

// Macros with arguments, which leave `(std::max)(a, b)` alone.
#define assume(x) SYNCSTATE_TESTS_TAKEN
#define isset(a, i) SYNCSTATE_TESTS_TAKEN
#define likely(x) SYNCSTATE_TESTS_TAKEN
#define max(a, b) SYNCSTATE_TESTS_TAKEN
#define min(a, b) SYNCSTATE_TESTS_TAKEN
#define timeout(ms) SYNCSTATE_TESTS_TAKEN
#define unlikely(x) SYNCSTATE_TESTS_TAKEN
#define verify(x) SYNCSTATE_TESTS_TAKEN

#endif
