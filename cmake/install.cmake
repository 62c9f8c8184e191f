# What `cmake --install` puts in place: the library, include/octet, the command, and find_package(octet) -> octet::octet.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(octet_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/octet)

install(TARGETS octet EXPORT octetTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/octet DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET octet_cli)
  install(TARGETS octet_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

install(EXPORT octetTargets NAMESPACE octet:: DESTINATION ${octet_cmake_dir})
configure_package_config_file(cmake/octetConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/octetConfig.cmake
  INSTALL_DESTINATION ${octet_cmake_dir})
# Before 1.0 a minor version may change the API (docs/versioning.md).
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/octetConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/octetConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/octetConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/cmake/Findutf8proc.cmake DESTINATION ${octet_cmake_dir})
