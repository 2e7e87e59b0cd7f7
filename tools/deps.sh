#!/bin/sh
# Installs what is missing of what a target needs, with apt-get. Silent when nothing is missing. Elsewhere than on
# Debian and its kin it names what is missing and goes on: the build says what it cannot do without.
#
#   tools/deps.sh build|test|coverage|fuzz|valgrind|bench-forward|bench-python...
set -eu

missing=""

# need PACKAGE COMMAND...: the package is missing if the command fails.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

for what in "$@"; do
    case $what in
    build)
        need build-essential sh -c "${CC:-cc} --version && command -v make"
        need cmake command -v cmake
        need pkg-config command -v pkg-config
        need libc-ares-dev pkg-config --exists libcares
        ;;
    test)
        need build-essential sh -c "${CXX:-c++} --version"
        need check pkg-config --exists check
        need iproute2 command -v ip # network namespaces; who may not make any does without
        need mandoc command -v mandoc
        need openssl command -v openssl # tests of TLS make a certificate
        need patch command -v patch
        need python3 command -v python3
        need python3-venv python3 -c "import ensurepip" # the Python package is tested on other versions where they are
        need python3-dev python3 -c "import os, sysconfig; os.stat(sysconfig.get_path('include') + '/Python.h')"
        need rsync command -v rsync # a peer that is small; nginx, PostgreSQL and sshd are used where they are
        ;;
    coverage) need gcc sh -c "command -v gcov" ;; # it comes with gcc
    fuzz)
        need clang sh -c "${CLANG:-clang} --version"
        need libclang-rt-dev sh -c "echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' |
            ${CLANG:-clang} -fsanitize=fuzzer,address,undefined -x c - -o /dev/null"
        need llvm sh -c "command -v llvm-symbolizer || ls /usr/lib/llvm-*/bin/llvm-symbolizer"
        ;;
    valgrind) need "valgrind libc6-dbg" command -v valgrind ;;
    bench-forward)
        PATH=$PATH:/usr/sbin:/sbin # where the servers are, and not everybody looks
        need python3 command -v python3
        need "valgrind libc6-dbg" command -v valgrind
        need strace command -v strace
        for server in haproxy nginx rinetd; do
            need "$server" command -v "$server"
        done
        need libnginx-mod-stream test -e /usr/lib/nginx/modules/ngx_stream_module.so
        need socat command -v socat
        need redir command -v redir
        ;;
    bench-python) # Debian's own Python is what is measured, unless another is asked for
        need python3 test -e /usr/bin/python3
        need python3-dev sh -c "ls /usr/include/python3*/Python.h"
        need python3-uvloop /usr/bin/python3 -c "import uvloop"
        need "valgrind libc6-dbg" command -v valgrind
        ;;
    *)
        echo "deps.sh: unknown set of packages: $what" >&2
        exit 2
        ;;
    esac
done

[ -n "$missing" ] || exit 0
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
missing=${missing% }

sudo=""
if [ "$(id -u)" != 0 ]; then
    sudo=sudo
fi
if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! command -v sudo >/dev/null; }; then
    echo "deps.sh: missing, and not installed (no apt-get, or neither root nor sudo): $missing" >&2
    exit 0
fi

echo "deps.sh: installing with apt-get: $missing"
apt() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null >/dev/null
}

# Packages with a server start it, and have it started ever after; modules restart it. Here they are wanted as programs
# only, and a server that runs already is left alone.
as_root() {
    $sudo sh -c "$1"
}
policy=/usr/sbin/policy-rc.d
servers=$(printf '%s\n' $missing | grep -e haproxy -e nginx -e rinetd || true)
if [ -n "$servers" ] && [ ! -e $policy ]; then
    trap 'as_root "rm -f $policy"' EXIT
    trap 'exit 1' HUP INT TERM
    as_root "printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy"
fi

apt update || echo "deps.sh: apt-get update failed; trying with the lists that are there" >&2
if ! apt install --no-install-recommends $missing; then
    echo "deps.sh: apt-get could not install: $missing" >&2
    exit 1
fi
for server in $servers; do
    as_root "update-rc.d $server disable; ! command -v systemctl || systemctl disable $server" >/dev/null 2>&1 || true
done
