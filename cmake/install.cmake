# `cmake --install`: the headers, a package for find_package(syncstate) and our finder for Asio.
#
# Each library has an export file of its own, so that a user without Asio or nlohmann_json can still have the rest.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/syncstate")

foreach(target IN ITEMS syncstate syncstate_json syncstate_tcp)
  if(TARGET ${target})
    install(TARGETS ${target} EXPORT ${target}-targets)
    foreach(header IN LISTS ${target}_headers)
      file(RELATIVE_PATH folder "${include_dir}" "${header}")
      get_filename_component(folder "${folder}" DIRECTORY)
      install(FILES "${header}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/${folder}")
    endforeach()
    install(EXPORT ${target}-targets NAMESPACE syncstate:: DESTINATION "${package_dir}")
  endif()
endforeach()

configure_package_config_file(cmake/syncstate-config.cmake.in "${PROJECT_BINARY_DIR}/syncstate-config.cmake"
                              INSTALL_DESTINATION "${package_dir}")
# Before 1.0 a minor version may change anything.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/syncstate-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)

install(FILES "${PROJECT_BINARY_DIR}/syncstate-config.cmake" "${PROJECT_BINARY_DIR}/syncstate-config-version.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/FindAsio.cmake" DESTINATION "${package_dir}")
