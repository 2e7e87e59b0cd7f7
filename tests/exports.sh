#!/bin/sh
# Compares three lists of names: what the headers declare, what tests/exports.txt says, what the shared library
# exports. An export is a promise for the life of the soname, so a change must show in a diff of exports.txt.
#
#   tests/exports.sh NM LIBRARY INCLUDE_DIR           compares
#   tests/exports.sh --declared INCLUDE_DIR           prints the headers' names: the new exports.txt
set -eu
export LC_ALL=C

declared() {
    cat "$1"/*.h | tr '\n' ' ' | sed 's/ASYNCORE_API/\n&/g' |
        sed -n 's/^ASYNCORE_API [^(;]*[ *]\(async[a-z]*_[a-z0-9_]*\)(.*/\1/p' | sort
}

if [ "${1-}" = --declared ] && [ $# = 2 ]; then
    declared "$2"
    exit
fi
if [ $# != 3 ]; then
    echo "exports.sh: usage: exports.sh NM LIBRARY INCLUDE_DIR" >&2
    exit 2
fi

list=$(dirname "$0")/exports.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
declared "$3" >"$scratch/declared"
"$1" -D --defined-only "$2" >"$scratch/nm"
awk '$2 == "T" { print $3 }' "$scratch/nm" | sort >"$scratch/exported"
failed=0

# compare WHAT FILE: every name of exports.txt is in FILE, and no other.
compare() {
    for name in $(comm -23 "$list" "$2"); do
        echo "exports.sh: in exports.txt and not $1: $name" >&2
        failed=1
    done
    for name in $(comm -13 "$list" "$2"); do
        echo "exports.sh: $1 and not in exports.txt: $name" >&2
        failed=1
    done
}

if ! [ -s "$list" ]; then
    echo "exports.sh: no names in $list" >&2
    exit 1
fi
compare "declared in a header" "$scratch/declared"
compare "exported" "$scratch/exported"

# Copy relocations make data symbols a trap; weak and indirect functions have no place here either.
for name in $(awk '$2 != "T" { print $3 }' "$scratch/nm"); do
    echo "exports.sh: exported, but no plain function: $name" >&2
    failed=1
done
exit $failed
