// What the compiler and its libraries must offer. Each header of ours includes this one before its own code, directly
// or by another header.
//
// If something is missing, compilation ends here with one error that says what: the #error, and an #include of a file
// that does not exist, because compilers go on after an #error and would report hundreds of others.
#ifndef SYNCSTATE_DETAIL_REQUIREMENTS_HPP
#define SYNCSTATE_DETAIL_REQUIREMENTS_HPP

#if __cplusplus < 202002L
#error \
    "syncstate needs C++20: compile with -std=c++20 or a newer standard (CMake: target_compile_features cxx_std_20)"
#include "syncstate/see_the_error_above"
#endif

#if defined(__SIZEOF_SIZE_T__) && __SIZEOF_SIZE_T__ < 8
#error \
    "syncstate needs a 64-bit target: std::size_t has fewer than 64 bits here (with GCC and Clang, do not use -m32)"
#include "syncstate/see_the_error_above"
#endif

#if !defined(__cpp_exceptions)
#error "syncstate needs exceptions: compile without -fno-exceptions"
#include "syncstate/see_the_error_above"
#endif

#if !__has_include(<openssl/opensslv.h>)
#error \
    "syncstate needs the headers of OpenSSL 3.0 or newer, and there is no <openssl/opensslv.h> (Debian: libssl-dev)"
#include "syncstate/see_the_error_above"
#endif

#include <openssl/opensslv.h>

#if defined(LIBRESSL_VERSION_NUMBER) || defined(OPENSSL_IS_BORINGSSL) || defined(OPENSSL_IS_AWSLC) || \
    OPENSSL_VERSION_NUMBER < 0x30000000L
#error \
    "syncstate needs OpenSSL 3.0 or newer: these are headers of LibreSSL, BoringSSL, AWS-LC or an older OpenSSL"
#include "syncstate/see_the_error_above"
#endif

#endif
