# The three libraries, by what they ask of a user:
#
#   syncstate::syncstate   model, protocol, roles, threads, inproc   OpenSSL::Crypto, threads
#   syncstate::json        nlohmann::json as a value                 + nlohmann_json
#   syncstate::tcp         TLS over TCP, completion tokens           + Asio, OpenSSL::SSL
#
# A header belongs to the library by the folder it is in; a new file needs no line here.

find_package(Threads REQUIRED)
# Without a version: before 3.18 CMake can't read that of OpenSSL 3. The headers check it, too.
find_package(OpenSSL REQUIRED)
if(OPENSSL_VERSION AND OPENSSL_VERSION VERSION_LESS 3.0)
  message(FATAL_ERROR "syncstate needs OpenSSL 3.0 or newer; found: ${OPENSSL_VERSION} in ${OPENSSL_INCLUDE_DIR}")
endif()
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json 3.10 QUIET)
endif()
find_package(Asio 1.22 QUIET)

set(include_dir "${PROJECT_SOURCE_DIR}/include")

file(GLOB_RECURSE syncstate_headers CONFIGURE_DEPENDS "${include_dir}/syncstate/*.hpp")
file(GLOB_RECURSE syncstate_tcp_headers CONFIGURE_DEPENDS "${include_dir}/syncstate/tcp/*.hpp"
     "${include_dir}/syncstate/async/*.hpp")
file(GLOB tcp_umbrella CONFIGURE_DEPENDS "${include_dir}/syncstate/tcp.hpp")
file(GLOB syncstate_json_headers CONFIGURE_DEPENDS "${include_dir}/syncstate/codec_json.hpp")
list(APPEND syncstate_tcp_headers ${tcp_umbrella})
list(REMOVE_ITEM syncstate_headers ${syncstate_tcp_headers} ${syncstate_json_headers})

# A plain include folder and no file set, which neither CMake before 3.23 nor Meson understands.
include(GNUInstallDirs)
function(syncstate_add_library name)
  add_library(${name} INTERFACE)
  target_compile_features(${name} INTERFACE cxx_std_20)
  target_include_directories(${name} INTERFACE "$<BUILD_INTERFACE:${include_dir}>"
                                               "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
endfunction()

syncstate_add_library(syncstate)
add_library(syncstate::syncstate ALIAS syncstate)
target_link_libraries(syncstate INTERFACE OpenSSL::Crypto Threads::Threads)

if(TARGET nlohmann_json::nlohmann_json)
  syncstate_add_library(syncstate_json)
  add_library(syncstate::json ALIAS syncstate_json)
  set_target_properties(syncstate_json PROPERTIES EXPORT_NAME json)
  target_link_libraries(syncstate_json INTERFACE syncstate nlohmann_json::nlohmann_json)
else()
  message(STATUS "syncstate: no nlohmann_json 3.10 or newer, so there is no syncstate::json")
endif()

if(TARGET Asio::Asio)
  syncstate_add_library(syncstate_tcp)
  add_library(syncstate::tcp ALIAS syncstate_tcp)
  set_target_properties(syncstate_tcp PROPERTIES EXPORT_NAME tcp)
  target_link_libraries(syncstate_tcp INTERFACE syncstate Asio::Asio OpenSSL::SSL)
else()
  message(STATUS "syncstate: no Asio 1.22 or newer, so there is no syncstate::tcp; Asio_INCLUDE_DIR says where it is")
endif()
