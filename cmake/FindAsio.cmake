# Finds standalone Asio, which has no CMake package of its own.
#
# Sets Asio_FOUND and Asio_VERSION, reads Asio_INCLUDE_DIR as a hint, and makes the target Asio::Asio, unless
# there is one already: whoever brings their own Asio makes that target first.

if(TARGET Asio::Asio)
  set(Asio_FOUND TRUE)
  return()
endif()

find_path(Asio_INCLUDE_DIR NAMES asio/version.hpp DOC "The folder that has asio.hpp")

if(Asio_INCLUDE_DIR)
  # ASIO_VERSION is 102201 for 1.22.1.
  file(STRINGS "${Asio_INCLUDE_DIR}/asio/version.hpp" version_line REGEX "^#define ASIO_VERSION [0-9]+")
  string(REGEX MATCH "[0-9]+" version_number "${version_line}")
  if(version_number)
    math(EXPR version_major "${version_number} / 100000")
    math(EXPR version_minor "${version_number} / 100 % 1000")
    math(EXPR version_patch "${version_number} % 100")
    set(Asio_VERSION "${version_major}.${version_minor}.${version_patch}")
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Asio REQUIRED_VARS Asio_INCLUDE_DIR VERSION_VAR Asio_VERSION)
mark_as_advanced(Asio_INCLUDE_DIR)

if(Asio_FOUND)
  find_package(Threads REQUIRED)
  add_library(Asio::Asio INTERFACE IMPORTED)
  target_include_directories(Asio::Asio INTERFACE "${Asio_INCLUDE_DIR}")
  target_link_libraries(Asio::Asio INTERFACE Threads::Threads)

  # Asio 1.22 looks for <experimental/coroutine> under Clang, finds none in libstdc++ and leaves co_spawn and
  # awaitable out, although <coroutine> is there and works once it is told so.
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    include(CheckCXXSourceCompiles)
    include(CMakePushCheckState)
    cmake_push_check_state(RESET)
    set(CMAKE_REQUIRED_FLAGS "-std=c++20")
    set(CMAKE_REQUIRED_INCLUDES "${Asio_INCLUDE_DIR}")
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
