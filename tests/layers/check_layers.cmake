# cmake -D COMPILER=g++ [-D INCLUDE_DIR=...] -P check_layers.cmake
#
# The layers of include/syncstate: who may include whom, who may know a thread, a clock, Asio or TLS.
#
#   model      syncstate.hpp and what it includes   no thread, no clock, no socket
#   protocol   protocol/                            the same: bytes and time in, actions out
#   roles      the other headers outside a folder   an Executor tells the time: no clock; threads/ where none is given
#   threads    threads/                             threads and the clock
#   transports inproc/ tcp/ and their umbrellas     only tcp/, tcp.hpp and async/ know Asio and TLS

cmake_minimum_required(VERSION 3.25)
if(NOT INCLUDE_DIR)
  get_filename_component(INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/../../include" ABSOLUTE)
endif()

set(threads "<(thread|mutex|shared_mutex|condition_variable|future|stop_token|semaphore|latch|barrier)>")
set(clock "::now *\\(|std::time *\\(|gettimeofday|clock_gettime")
set(sockets "<(sys/socket|sys/epoll|netinet/.*|arpa/.*|netdb|poll|unistd)\\.h>")
set(asio_or_tls "<(asio[./].*|boost/.*|openssl/ssl.*|openssl/bio.*|openssl/err.*)>")
set(network_layers "\"syncstate/(tcp\\.hpp|tcp/.*|async/.*)\"")
set(thread_layer "\"syncstate/threads/.*\"")
set(transport_layers "\"syncstate/(inproc\\.hpp|inproc/.*)\"")
# The layers above the model, and the role headers outside of a folder.
set(roles "(server_core|remote_core|remote_client|replica|replica_options|link)\\.hpp")
set(role_parts "detail/(server|remote|replica)/.*")
set(sleep "sleep_for|sleep_until|usleep *\\(|nanosleep *\\(")

set(problems "")

# Complains of every line in `file` that matches `pattern`, comments aside.
function(forbid file pattern why)
  file(STRINGS "${INCLUDE_DIR}/${file}" lines REGEX "${pattern}")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "//.*" "" code "${line}")
    if(code MATCHES "${pattern}")
      list(APPEND problems "${file}: ${why}: ${line}")
    endif()
  endforeach()
  set(problems "${problems}" PARENT_SCOPE)
endfunction()

# The headers of ours that `roots` include, however far down, and the roots themselves.
function(reached_from roots out)
  set(reached "")
  while(roots)
    list(POP_FRONT roots file)
    if(file IN_LIST reached OR NOT EXISTS "${INCLUDE_DIR}/${file}")
      continue()
    endif()
    list(APPEND reached "${file}")
    file(STRINGS "${INCLUDE_DIR}/${file}" lines REGEX "^#include \"syncstate/")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "^#include \"([^\"]+)\".*" "\\1" included "${line}")
      list(APPEND roots "${included}")
    endforeach()
  endwhile()
  set(${out} "${reached}" PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE all RELATIVE "${INCLUDE_DIR}" "${INCLUDE_DIR}/syncstate/*.hpp")
set(without_network "${all}")
list(FILTER without_network EXCLUDE REGEX "^syncstate/(tcp\\.hpp|tcp/|async/)")
set(without_transports "${without_network}")
list(FILTER without_transports EXCLUDE REGEX "^syncstate/(threads/|inproc\\.hpp|inproc/)")
set(protocol "${all}")
list(FILTER protocol INCLUDE REGEX "^syncstate/protocol/")
reached_from("syncstate/syncstate.hpp;${protocol}" pure)

# Nobody sleeps, the tests least of all: they wait for the thing itself.
file(GLOB_RECURSE tests RELATIVE "${INCLUDE_DIR}" "${CMAKE_CURRENT_LIST_DIR}/../*.cpp"
     "${CMAKE_CURRENT_LIST_DIR}/../*.hpp")
foreach(file IN LISTS all tests)
  forbid(${file} "${sleep}" "sleeps")
endforeach()
foreach(file IN LISTS without_network)
  forbid(${file} "${asio_or_tls}" "knows Asio or TLS")
  set(forbidden "${sockets}")
  if(file MATCHES "^syncstate/threads/")  # which ask for the process id
    string(REPLACE "|unistd" "" forbidden "${sockets}")
  endif()
  forbid(${file} "${forbidden}" "knows sockets")
  forbid(${file} "${network_layers}" "includes a layer above it")
endforeach()
foreach(file IN LISTS without_transports)
  forbid(${file} "${transport_layers}" "includes a layer above it")
  forbid(${file} "(_clock|Clock)${clock}" "reads a clock")
endforeach()
foreach(file IN LISTS pure)
  forbid(${file} "${threads}" "the model and the protocol know no threads")
  forbid(${file} "${thread_layer}" "includes a layer above it")
  forbid(${file} "${clock}" "the model and the protocol read no clock")
endforeach()

# What the headers of a folder may not include directly: each role knows nothing of the others, the protocol nothing of maps,
# and none of them what is above it.
function(keep_apart folder_pattern forbidden)
  set(files "${all}")
  list(FILTER files INCLUDE REGEX "^syncstate/${folder_pattern}")
  if(NOT files)
    message(FATAL_ERROR "No header is in ${folder_pattern}: check_layers must be told where they are")
  endif()
  foreach(file IN LISTS files)
    forbid(${file} "\"syncstate/(${forbidden})\"" "its layer may not include this")
  endforeach()
  set(problems "${problems}" PARENT_SCOPE)
endfunction()

reached_from("syncstate/syncstate.hpp" model)
foreach(file IN LISTS model)
  forbid(${file} "\"syncstate/(protocol/.*|threads/.*|detail/wire/.*|${role_parts}|${roles})\""
         "the model knows neither the protocol nor roles")
endforeach()
keep_apart("codec/" "protocol/.*|threads/.*|detail/(model|wire)/.*|${role_parts}|${roles}|state_map\\.hpp")
keep_apart("detail/model/" "protocol/.*|threads/.*|detail/wire/.*|${role_parts}|${roles}")
keep_apart("protocol/" "codec/.*|codec.*\\.hpp|detail/(model|wire)/.*|${role_parts}|${roles}|(state_map|diff|hook|remote)\\.hpp")
keep_apart("detail/wire/" "threads/.*|${role_parts}|${roles}")
keep_apart("detail/server/" "threads/.*|detail/(remote|replica)/.*|(remote_core|remote_client|replica|replica_options)\\.hpp")
keep_apart("detail/remote/" "threads/.*|detail/(server|replica)/.*|(server_core|replica|replica_options)\\.hpp")
keep_apart("detail/replica/" "protocol/.*|detail/(server|remote|wire)/.*|(server_core|remote_core|remote_client)\\.hpp")
keep_apart("threads/" "protocol/.*|detail/(model|wire)/.*|${role_parts}|${roles}")
keep_apart("server_core\\.hpp" "detail/(remote|replica)/.*|(remote_core|remote_client|replica|replica_options)\\.hpp")
keep_apart("remote_(core|client)\\.hpp" "detail/(server|replica)/.*|(server_core|replica|replica_options)\\.hpp")
keep_apart("replica\\.hpp" "protocol/.*|detail/(server|remote|wire)/.*|(server_core|remote_core|remote_client)\\.hpp")

# What the patterns can't see, the compiler does: all that these headers include in the end, the system's too.
if(COMPILER)
  list(TRANSFORM without_network REPLACE ".+" "#include \"\\0\"" OUTPUT_VARIABLE includes)
  list(FILTER includes EXCLUDE REGEX "codec_json")  # needs nlohmann_json
  list(JOIN includes "\n" includes)
  if(NOT WORK_DIR)
    set(WORK_DIR "${CMAKE_CURRENT_BINARY_DIR}")
  endif()
  file(WRITE "${WORK_DIR}/without_network.cpp" "${includes}\n")
  execute_process(COMMAND "${COMPILER}" -std=c++20 -I "${INCLUDE_DIR}" -M "${WORK_DIR}/without_network.cpp"
                  OUTPUT_VARIABLE dependencies COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^ \n]*(/asio\\.hpp|/asio/|/openssl/ssl\\.h)[^ \n]*" found "${dependencies}")
  if(found)
    list(APPEND problems "the headers outside of tcp/ and async/ include in the end: ${found}")
  endif()
endif()

if(problems)
  list(JOIN problems "\n  " problems)
  message(FATAL_ERROR "The layers do not hold:\n  ${problems}")
endif()
list(LENGTH all count)
list(LENGTH pure pure_count)
message(STATUS "The layers hold: ${count} headers, ${pure_count} of them pure")
