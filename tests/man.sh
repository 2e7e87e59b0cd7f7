#!/bin/sh
# The man pages are without a warning of whoever formats them here: man(1) with groff, mandoc(1).
#
#   tests/man.sh SOURCE_DIR
set -eu

if [ $# != 1 ]; then
    echo "man.sh: usage: man.sh SOURCE_DIR" >&2
    exit 2
fi
formatters=0
failed=0

# silent COMMAND...: neither fails nor says anything.
silent() {
    if ! said=$("$@" 2>&1 >/dev/null) || [ -n "$said" ]; then
        printf 'man.sh: %s\n%s\n' "$*" "$said" >&2
        failed=1
    fi
}

# What mandoc finds in the page itself; pages that are not installed here are no fault of it.
lint() {
    mandoc -T lint -W warning "$1" | grep -E ': (WARNING|ERROR|UNSUPP): ' >&2 || true
}

if command -v man >/dev/null && command -v groff >/dev/null; then
    formatters=1
    for page in "$1"/docs/man/*.[1-8]; do
        LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 silent man --warnings -l "$page"
    done
fi
if command -v mandoc >/dev/null; then
    formatters=1
    for page in "$1"/docs/man/*.[1-8]; do
        silent lint "$page"
    done
fi
if [ $formatters = 0 ]; then
    echo "skipped: neither man with groff nor mandoc is here"
    exit 77
fi
exit $failed
