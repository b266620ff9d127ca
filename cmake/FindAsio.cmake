# Finds standalone Asio, which has no CMake package of its own.
#
# Sets Asio_FOUND and Asio_VERSION, and makes the target Asio::Asio. In this order it uses
#
#   the target Asio::Asio, if there is one already;
#   the target asio::asio, which the packages of vcpkg and Conan make;
#   Asio_INCLUDE_DIR, if it is set: the folder that has asio.hpp;
#   a package `asio` that makes the target asio::asio;
#   the folder with asio/version.hpp that CMake finds.

if(TARGET Asio::Asio)
  set(Asio_FOUND TRUE)
  return()
endif()

if(NOT TARGET asio::asio AND NOT Asio_INCLUDE_DIR)
  find_package(asio CONFIG QUIET)
endif()
if(TARGET asio::asio)
  set(Asio_source asio::asio)
  set(Asio_version_folder "")  # stays empty where only a generator expression says it
  get_target_property(Asio_folders asio::asio INTERFACE_INCLUDE_DIRECTORIES)
  foreach(folder IN LISTS Asio_folders)
    string(REGEX REPLACE "^\\$<[^<>]*(<[^<>]*>)?:(.+)>$" "\\2" folder "${folder}")
    if(EXISTS "${folder}/asio/version.hpp")
      set(Asio_version_folder "${folder}")
    endif()
  endforeach()
else()
  find_path(Asio_INCLUDE_DIR NAMES asio/version.hpp DOC "The folder that has asio.hpp")
  mark_as_advanced(Asio_INCLUDE_DIR)
  set(Asio_source "${Asio_INCLUDE_DIR}")
  set(Asio_version_folder "${Asio_INCLUDE_DIR}")
endif()

if(Asio_version_folder)
  # ASIO_VERSION is 102201 for 1.22.1.
  file(STRINGS "${Asio_version_folder}/asio/version.hpp" version_line REGEX "^#define ASIO_VERSION [0-9]+")
  string(REGEX MATCH "[0-9]+" version_number "${version_line}")
  if(version_number)
    math(EXPR version_major "${version_number} / 100000")
    math(EXPR version_minor "${version_number} / 100 % 1000")
    math(EXPR version_patch "${version_number} % 100")
    set(Asio_VERSION "${version_major}.${version_minor}.${version_patch}")
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Asio REQUIRED_VARS Asio_source VERSION_VAR Asio_VERSION)

if(Asio_FOUND)
  find_package(Threads REQUIRED)
  add_library(Asio::Asio INTERFACE IMPORTED)
  target_link_libraries(Asio::Asio INTERFACE Threads::Threads)
  if(TARGET asio::asio)
    target_link_libraries(Asio::Asio INTERFACE asio::asio)
  else()
    target_include_directories(Asio::Asio INTERFACE "${Asio_INCLUDE_DIR}")
  endif()

  # Asio 1.22 looks for <experimental/coroutine> under Clang, finds none in libstdc++ and leaves co_spawn and
  # awaitable out, although <coroutine> is there and works once it is told so.
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND Asio_version_folder)
    include(CheckCXXSourceCompiles)
    include(CMakePushCheckState)
    cmake_push_check_state(RESET)
    set(CMAKE_REQUIRED_FLAGS "-std=c++20")
    set(CMAKE_REQUIRED_INCLUDES "${Asio_version_folder}")
    set(CMAKE_REQUIRED_QUIET ON)
    check_cxx_source_compiles(
      "#include <coroutine>
       #include <asio/detail/config.hpp>
       #ifdef ASIO_HAS_CO_AWAIT
       #error Asio knows
       #endif
       std::suspend_never never;
       int main() {}"
      Asio_MUST_BE_TOLD_OF_COROUTINES)
    cmake_pop_check_state()
    if(Asio_MUST_BE_TOLD_OF_COROUTINES)
      target_compile_definitions(Asio::Asio INTERFACE ASIO_HAS_CO_AWAIT=1)
    endif()
  endif()
endif()
