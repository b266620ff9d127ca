# cmake -D WORK_DIR=... -P check_layers_notices.cmake
#
# Breaks each rule of check_layers.cmake once, in a copy of the headers, and expects it to notice.

cmake_minimum_required(VERSION 3.25)
get_filename_component(include_dir "${CMAKE_CURRENT_LIST_DIR}/../../include" ABSOLUTE)
set(copy "${WORK_DIR}/broken")

# Adds `line` to the copy of `file`; the check must fail, and name that file.
function(expect_noticed file line)
  file(REMOVE_RECURSE "${copy}")
  file(COPY "${include_dir}/" DESTINATION "${copy}")
  file(APPEND "${copy}/${file}" "\n${line}\n")
  execute_process(COMMAND "${CMAKE_COMMAND}" -D "INCLUDE_DIR=${copy}" -D "WORK_DIR=${WORK_DIR}" ${ARGN} -P
                          "${CMAKE_CURRENT_LIST_DIR}/check_layers.cmake"
                  RESULT_VARIABLE result OUTPUT_QUIET ERROR_VARIABLE error)
  if(result EQUAL 0 OR NOT error MATCHES "${file}|in the end")
    message(FATAL_ERROR "Nobody noticed `${line}` in ${file}:\n${error}")
  endif()
endfunction()

expect_noticed(syncstate/types.hpp "#include <asio/io_context.hpp>")
expect_noticed(syncstate/types.hpp "#include <openssl/ssl.h>")
expect_noticed(syncstate/types.hpp "#include <sys/socket.h>")
expect_noticed(syncstate/types.hpp "#include <mutex>")
expect_noticed(syncstate/types.hpp "#include \"syncstate/tcp.hpp\"")
expect_noticed(syncstate/types.hpp "#include \"syncstate/threads/thread_executor.hpp\"")
expect_noticed(syncstate/link.hpp "#include \"syncstate/inproc/virtual_executor.hpp\"")
expect_noticed(syncstate/types.hpp "inline auto t = std::chrono::steady_clock::now();")
expect_noticed(syncstate/link.hpp "inline auto t = std::chrono::system_clock::now();")
expect_noticed(syncstate/protocol/broken.hpp "#include <thread>")
expect_noticed(syncstate/tcp/broken.hpp "void f() { std::this_thread::sleep_for(1s); }")
foreach(file IN ITEMS state_map.hpp diff.hpp hook.hpp codec/rules.hpp detail/model/ring.hpp)
  expect_noticed(syncstate/${file} "#include \"syncstate/protocol/frame.hpp\"")
  expect_noticed(syncstate/${file} "#include \"syncstate/server_core.hpp\"")
endforeach()
expect_noticed(syncstate/protocol/frame.hpp "#include \"syncstate/state_map.hpp\"")
expect_noticed(syncstate/protocol/frame.hpp "#include \"syncstate/detail/model/ring.hpp\"")
expect_noticed(syncstate/detail/wire/wire_entries.hpp "#include \"syncstate/detail/server/lane.hpp\"")
expect_noticed(syncstate/detail/server/lane.hpp "#include \"syncstate/detail/remote/remote_map.hpp\"")
expect_noticed(syncstate/detail/remote/remote_map.hpp "#include \"syncstate/detail/replica/view_slot.hpp\"")
expect_noticed(syncstate/detail/replica/view_slot.hpp "#include \"syncstate/protocol/frame.hpp\"")
expect_noticed(syncstate/server_core.hpp "#include \"syncstate/remote_core.hpp\"")
expect_noticed(syncstate/remote_core.hpp "#include \"syncstate/detail/server/lane.hpp\"")
expect_noticed(syncstate/replica.hpp "#include \"syncstate/remote_client.hpp\"")
expect_noticed(syncstate/threads/own_thread.hpp "#include \"syncstate/replica.hpp\"")
# By another way than an include line that the patterns know.
expect_noticed(syncstate/types.hpp "#define SYNCSTATE_ASIO <asio/version.hpp>\n#include SYNCSTATE_ASIO"
               -D "COMPILER=${COMPILER}")
message(STATUS "Every broken rule was noticed")
