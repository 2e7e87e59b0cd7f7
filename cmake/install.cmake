# What is installed, and how others find it: pkg-config (asyncore.pc) and find_package(asyncore).

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/asyncore")

install(FILES include/asyncore.h include/asynchat.h include/asyncore_sim.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS asyncore_shared EXPORT asyncoreTargets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(TARGETS asyncore_static EXPORT asyncoreStaticTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")

# Two sets, because only the static library needs c-ares at hand where a program is linked.
install(EXPORT asyncoreTargets NAMESPACE asyncore:: DESTINATION "${package_dir}")
install(EXPORT asyncoreStaticTargets NAMESPACE asyncore:: DESTINATION "${package_dir}")
configure_package_config_file(cmake/asyncoreConfig.cmake.in "${PROJECT_BINARY_DIR}/asyncoreConfig.cmake"
    INSTALL_DESTINATION "${package_dir}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/asyncoreConfigVersion.cmake" COMPATIBILITY SameMajorVersion)
install(FILES "${PROJECT_BINARY_DIR}/asyncoreConfig.cmake" "${PROJECT_BINARY_DIR}/asyncoreConfigVersion.cmake"
    DESTINATION "${package_dir}")

# Paths in asyncore.pc are relative to it, so that --prefix and DESTDIR need no second configuration.
set(pc_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
file(RELATIVE_PATH pc_to_prefix "/prefix/${pc_dir}" "/prefix")
string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
set(pc_requires_private "")
if(ASYNCORE_HAVE_CARES)
    set(pc_requires_private "libcares")
endif()
configure_file(cmake/asyncore.pc.in "${PROJECT_BINARY_DIR}/asyncore.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/asyncore.pc" DESTINATION "${pc_dir}")

if(top_level)
    install(FILES docs/man/portforward.1 DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
    install(FILES docs/man/portforward.conf.5 DESTINATION "${CMAKE_INSTALL_MANDIR}/man5")
endif()

# systemd's unit names the program by its full path, which is known when it is installed: --prefix may come that late.
if(top_level)
    install(CODE "
        set(portforward \"${CMAKE_INSTALL_BINDIR}/portforward\")
        if(NOT IS_ABSOLUTE \"\${portforward}\")
            set(portforward \"\${CMAKE_INSTALL_PREFIX}/\${portforward}\")
        endif()
        configure_file(\"${PROJECT_SOURCE_DIR}/contrib/portforward.service.in\"
            \"${PROJECT_BINARY_DIR}/portforward.service\" @ONLY)")
    install(FILES "${PROJECT_BINARY_DIR}/portforward.service" DESTINATION lib/systemd/system)
endif()
