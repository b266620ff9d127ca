# cmake -D WAY=installed|subdirectory -D SOURCE_DIR=... -D BUILD_DIR=... -P run.cmake
#
# Builds and runs the consumer beside this file with syncstate installed, or as a subdirectory.

set(work_dir "${BUILD_DIR}/package_${WAY}")
set(prefix "${work_dir}/prefix")
# Made anew each time: a file that is no longer installed must not be found from last time.
file(REMOVE_RECURSE "${work_dir}")

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

set(include_dir "${SOURCE_DIR}/include")
if(WAY STREQUAL "installed")
  run("${CMAKE_COMMAND}" --install "${BUILD_DIR}" --prefix "${prefix}")
  set(include_dir "${prefix}/include")
  # Where CMake before 3.23, and Meson, which know no file sets, find the include folder.
  file(GLOB_RECURSE exports "${prefix}/*/syncstate*-targets.cmake")
  list(LENGTH exports count)
  if(NOT count EQUAL 3)
    message(FATAL_ERROR "The three libraries should be exported: ${exports}")
  endif()
  foreach(export IN LISTS exports)
    file(READ "${export}" text)
    if(NOT text MATCHES "set_target_properties[^)]*INTERFACE_INCLUDE_DIRECTORIES \"[^\"]*{_IMPORT_PREFIX}/include\"")
      message(FATAL_ERROR "${export} has no include folder outside of a file set")
    endif()
  endforeach()
endif()

run("${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${CMAKE_CURRENT_LIST_DIR}" -B "${work_dir}/build" -D WAY=${WAY}
    -D "SYNCSTATE_SOURCE_DIR=${SOURCE_DIR}" -D "SYNCSTATE_INCLUDE_DIR=${include_dir}" -D "CMAKE_PREFIX_PATH=${prefix}"
    -D "CMAKE_CXX_COMPILER=${COMPILER}" -D "CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}")
run("${CMAKE_COMMAND}" --build "${work_dir}/build")
run("${work_dir}/build/consumer")
