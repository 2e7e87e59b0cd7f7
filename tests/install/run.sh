#!/bin/sh
# Installs the build into a temporary prefix and builds a program outside the tree against it, in the four ways
# that there are: pkg-config and find_package, shared and static. Each program must run and say what it should.
#
#   tests/install/run.sh CMAKE BUILD_DIR CC [FLAGS]
set -eu
unset DESTDIR

cmake=$1 build=$2 cc=$3 flags=${4-}
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
prefix=$scratch/prefix

fail() {
    echo "install: $*" >&2
    exit 1
}

# quietly COMMAND...: its output is shown only if it fails.
quietly() {
    "$@" >"$scratch/output" 2>&1 || {
        cat "$scratch/output" >&2
        fail "failed: $*"
    }
}

# check HOW PROGRAM shared|static: runs it, and looks at what it was linked with.
check() {
    said=$(LD_LIBRARY_PATH=$lib "$2") || fail "$1: the program failed"
    [ "$said" = "heard $version $version" ] || fail "$1: expected \"heard $version $version\", got \"$said\""
    needs=static
    if readelf -d "$2" | grep -q 'NEEDED.*libasyncore\.so\.0]'; then
        needs=shared
    fi
    [ "$needs" = "$3" ] || fail "$1: linked $needs, expected $3"
}

quietly "$cmake" --install "$build" --prefix "$prefix"
pc=$(find "$prefix" -name asyncore.pc)
[ -n "$pc" ] || fail "no asyncore.pc installed"
lib=$(dirname "$(dirname "$pc")")
version=$(sed -n 's/^#define ASYNCORE_VERSION "\(.*\)"/\1/p' "$prefix/include/asyncore.h")
[ -n "$version" ] || fail "no ASYNCORE_VERSION in asyncore.h"

# -- What is there, and nothing else.

[ "$(ls "$prefix/include")" = "asynchat.h
asyncore.h
asyncore_sim.h" ] || fail "headers: $(ls "$prefix/include")"
[ "$(readlink "$lib/libasyncore.so")" = libasyncore.so.0 ] || fail "libasyncore.so is not a link to libasyncore.so.0"
[ "$(readlink "$lib/libasyncore.so.0")" = "libasyncore.so.$version" ] || fail "libasyncore.so.0 is no link to .$version"
readelf -d "$lib/libasyncore.so" | grep -q 'SONAME.*\[libasyncore\.so\.0]' || fail "soname is not libasyncore.so.0"
[ -f "$lib/libasyncore.a" ] || fail "no libasyncore.a"
[ -x "$prefix/bin/portforward" ] && [ "$(ls "$prefix/bin")" = portforward ] || fail "programs: $(ls "$prefix/bin")"
[ -f "$prefix/share/man/man1/portforward.1" ] || fail "no portforward.1"
[ -f "$prefix/share/man/man5/portforward.conf.5" ] || fail "no portforward.conf.5"

# What systemd itself finds in the unit, where there is systemd.
unit=$prefix/lib/systemd/system/portforward.service
grep -qx "ExecStart=$prefix/bin/portforward -c /etc/portforward.conf" "$unit" || fail "the unit starts another program"
if command -v systemd-analyze >/dev/null; then
    said=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep portforward || true)
    [ -z "$said" ] || fail "systemd-analyze: $said"
fi

# -- find_package

cp "$here/CMakeLists.txt" "$here/user.c" "$scratch"
quietly "$cmake" -S "$scratch" -B "$scratch/user" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_C_FLAGS="$flags"
quietly "$cmake" --build "$scratch/user"
check "find_package, asyncore::asyncore" "$scratch/user/user_shared" shared
check "find_package, asyncore::asyncore_static" "$scratch/user/user_static" static

# -- pkg-config; the linker takes the archive only where there is no .so, hence the order

export PKG_CONFIG_PATH="$lib/pkgconfig"
[ "$(pkg-config --modversion asyncore)" = "$version" ] || fail "asyncore.pc: version is not $version"
quietly "$cc" $flags "$here/user.c" -o "$scratch/pc_shared" $(pkg-config --cflags --libs asyncore)
check "pkg-config" "$scratch/pc_shared" shared
rm "$lib"/libasyncore.so*
quietly "$cc" $flags "$here/user.c" -o "$scratch/pc_static" $(pkg-config --static --cflags --libs asyncore)
check "pkg-config --static" "$scratch/pc_static" static
