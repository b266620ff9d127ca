# What our own programs are compiled with, and users never see.

set(CMAKE_CXX_EXTENSIONS OFF)

if(syncstate_is_top_level AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(SYNCSTATE_CCACHE ccache DOC "Compiler cache, used where there is one")
  if(SYNCSTATE_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${SYNCSTATE_CCACHE}")
  endif()
endif()

set(SYNCSTATE_SANITIZE "" CACHE STRING "Sanitizers for our own programs: \"address,undefined\", \"thread\" or none")
# On in our presets only: a compiler that we have not tried may warn of more.
option(SYNCSTATE_WARNINGS_AS_ERRORS "Stop at a warning in our own programs" OFF)

# Linked PRIVATE by tests, examples and benchmarks.
add_library(syncstate_development INTERFACE)
set_target_properties(syncstate_development PROPERTIES EXCLUDE_FROM_ALL ON)
target_compile_features(syncstate_development INTERFACE cxx_std_20)
target_compile_options(
  syncstate_development
  INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
            $<$<BOOL:${SYNCSTATE_WARNINGS_AS_ERRORS}>:-Werror>
            # GCC 12 at -O2 warns of overlapping copies inside std::string's own operator+ (its bug 105329).
            $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)

# What users may compile with, besides. The numbered examples link it: they use what users use, and have nothing else in
# them. GCC's -Wnull-dereference says nothing unless it optimizes: .ci/run looks at what it says then.
add_library(syncstate_strict INTERFACE)
set_target_properties(syncstate_strict PROPERTIES EXCLUDE_FROM_ALL ON)
target_compile_options(
  syncstate_strict INTERFACE -Wold-style-cast -Wnull-dereference -Wswitch-enum
                             $<$<CXX_COMPILER_ID:GNU>:-Wuseless-cast -Wlogical-op>)

if(SYNCSTATE_SANITIZE)
  target_compile_options(syncstate_development INTERFACE -fsanitize=${SYNCSTATE_SANITIZE} -fno-sanitize-recover=all
                                                         -fno-omit-frame-pointer)
  target_link_options(syncstate_development INTERFACE -fsanitize=${SYNCSTATE_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # What GCC adds for the sanitizers makes it see uninitialized members in libstdc++. And it says that TSan does
    # not model std::atomic_thread_fence, which Asio uses.
    target_compile_options(syncstate_development INTERFACE -Wno-maybe-uninitialized -Wno-tsan)
  elseif(SYNCSTATE_SANITIZE MATCHES "undefined")
    # Clang 14 can't assemble coroutines with `function`: "Cannot represent a difference across sections". `vptr` opens a
    # pipe to look whether an object's memory can be read, and calls the object wrong where there is none: tests run
    # out of descriptors on purpose.
    target_compile_options(syncstate_development INTERFACE -fno-sanitize=function,vptr)
  endif()
endif()

# Seconds after which a test has failed.
set(SYNCSTATE_TEST_TIMEOUT 300 CACHE STRING "Seconds after which a test has failed")

# A file's own code costs little beside the headers and the library's inline functions, which files share in this way.
option(SYNCSTATE_UNITY_BUILD "Compile the files of our larger programs several at a time" ON)
