# cmake -D SOURCE_DIR=... -D BUILD_DIR=... -D GENERATOR=... -D COMPILER=... -P configure.cmake
#
# What CMake says to users of an installed copy: where something is missing, and where Asio comes from. Configures one small
# project for each case, and compiles nothing.

cmake_minimum_required(VERSION 3.25)
set(work_dir "${BUILD_DIR}/package_configure")
set(prefix "${work_dir}/prefix")
file(REMOVE_RECURSE "${work_dir}")
execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD_DIR}" --prefix "${prefix}" OUTPUT_QUIET
                COMMAND_ERROR_IS_FATAL ANY)

# A project that runs `code`; `result` (0 or 1) and a regular expression for its output are what is expected.
function(expect name result output code)
  file(WRITE "${work_dir}/${name}/CMakeLists.txt"
       "cmake_minimum_required(VERSION 3.16)\nproject(${name} LANGUAGES CXX)\n${code}")
  execute_process(COMMAND "${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${work_dir}/${name}" -B "${work_dir}/${name}/build"
                          -D "CMAKE_PREFIX_PATH=${prefix}" -D "CMAKE_CXX_COMPILER=${COMPILER}" ${ARGN}
                  RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  # CMake wraps what it prints.
  string(REGEX REPLACE "[ \n]+" " " text "${text}")
  if(NOT status EQUAL result OR NOT text MATCHES "${output}")
    message(FATAL_ERROR "${name}: expected result ${result} and `${output}`, but got ${status} and:\n${text}")
  endif()
endfunction()

set(without_asio -D CMAKE_DISABLE_FIND_PACKAGE_Asio=ON)
set(without_json -D CMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON)
set(all "find_package(syncstate REQUIRED COMPONENTS tcp json)\n")
expect(nothing_missing 0 "done" "${all}")
expect(no_asio 1 "syncstate::tcp needs standalone Asio 1.22 or newer, which was not found.*Asio_INCLUDE_DIR" "${all}"
       ${without_asio})
expect(no_json 1 "syncstate::json needs nlohmann_json 3.10 or newer, which was not found.*CMAKE_PREFIX_PATH" "${all}"
       ${without_json})
expect(neither 1 "syncstate::tcp needs .*syncstate::json needs " "${all}" ${without_asio} ${without_json})
expect(unknown_component 1 "there is no component udp: the components are core, json and tcp"
       "find_package(syncstate REQUIRED COMPONENTS udp)\n")
expect(not_needed 0 "core 1, json FALSE, tcp FALSE"
       [[find_package(syncstate REQUIRED OPTIONAL_COMPONENTS tcp json)
get_target_property(folders syncstate::syncstate INTERFACE_INCLUDE_DIRECTORIES)
if(NOT folders)
  message(FATAL_ERROR "no include folder")
endif()
if(TARGET syncstate::syncstate)
  set(core 1)
endif()
message(STATUS "core ${core}, json ${syncstate_json_FOUND}, tcp ${syncstate_tcp_FOUND}")
]] ${without_asio} ${without_json})
# A copy that was installed where nlohmann_json was missing.
file(COPY "${prefix}/" DESTINATION "${work_dir}/prefix_without_json")
file(GLOB_RECURSE json_exports "${work_dir}/prefix_without_json/*/syncstate_json-targets.cmake")
file(REMOVE ${json_exports})
expect(not_installed 1 "prefix_without_json was installed where nlohmann_json 3.10 or newer was not found" "${all}"
       -D "CMAKE_PREFIX_PATH=${work_dir}/prefix_without_json")

# An Asio of the user's is the one that is used, whether it is a target or a package, and an old one is refused.
foreach(version IN ITEMS 101202 103002)
  file(WRITE "${work_dir}/asio_${version}/asio/version.hpp" "#define ASIO_VERSION ${version} // 1.x\n")
endforeach()
set(is_used [[
find_package(syncstate REQUIRED COMPONENTS tcp)
get_target_property(libraries Asio::Asio INTERFACE_LINK_LIBRARIES)
if(NOT "asio::asio" IN_LIST libraries)
  message(FATAL_ERROR "asio::asio is not used: ${libraries}")
endif()
message(STATUS "used ${Asio_VERSION}")
]])
foreach(folder IN ITEMS [[${asio_folder}]] [[$<BUILD_INTERFACE:${asio_folder}>]] [[$<$<CONFIG:Release>:${asio_folder}>]])
  expect(asio_target 0 "used 1.30.2"
         "add_library(asio::asio INTERFACE IMPORTED)
set_target_properties(asio::asio PROPERTIES INTERFACE_INCLUDE_DIRECTORIES \"${folder}\")\n${is_used}"
         -D "asio_folder=${work_dir}/asio_103002" -D "Asio_INCLUDE_DIR=/found/before")
endforeach()
expect(asio_hidden 0 "used " "add_library(asio::asio INTERFACE IMPORTED)\n${is_used}")
expect(old_asio 1 "syncstate::tcp needs standalone Asio 1.22 or newer" "${all}"
       -D "Asio_INCLUDE_DIR=${work_dir}/asio_101202")
file(WRITE "${work_dir}/packages/asio-config.cmake" "add_library(asio::asio INTERFACE IMPORTED)
set_target_properties(asio::asio PROPERTIES INTERFACE_INCLUDE_DIRECTORIES \"${work_dir}/asio_103002\")\n")
expect(asio_package 0 "used 1.30.2" "${is_used}" -D "asio_DIR=${work_dir}/packages")
message(STATUS "Every case was as expected")
