#!/bin/sh
# An arrow only ever points down. Programs use the public headers alone; and in the library only src/os_*.c and
# src/names_*.c know the kernel: everything else goes through the os table, or a simulated kernel could not take
# its place. The second rule is read off the objects: what a file calls is an undefined symbol in it, whatever
# macros and comments make of its text.
#
#   tests/layers.sh NM ARCHIVE SOURCE_DIR
set -eu
export LC_ALL=C

if [ $# != 3 ]; then
    echo "layers.sh: usage: layers.sh NM ARCHIVE SOURCE_DIR" >&2
    exit 2
fi
nm=$1 archive=$2 source=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# -- Programs include the two public headers and those of their own folder.

for program in "$source"/examples/*.[ch] "$source"/portforward/*.[ch] "$source"/python/src/*.[ch]; do
    [ -e "$program" ] || continue
    sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$program" | while read -r header; do
        case $header in
        asyncore.h | asynchat.h) continue ;;
        */*) ;;
        *) [ -e "$(dirname "$program")/$header" ] && continue ;;
        esac
        echo "layers.sh: ${program#"$source"/} includes \"$header\": programs see asyncore.h and asynchat.h only" >&2
        echo x >>"$scratch/failed"
    done
done

# -- The library's files call one another and what of libc neither enters the kernel nor takes memory.

allowed() { # NAME
    case $1 in
    strdup | strndup | strsignal) false ;; # memory, or text that is not the thread's own
    mem[a-z]* | str[a-z]* | stpcpy | bcmp) ;;
    snprintf | vsnprintf | sscanf | vsscanf | inet_ntop | inet_pton | qsort | bsearch | getenv | secure_getenv) ;;
    hton[ls] | ntoh[ls]) ;; # calls where nothing is optimised
    errno_location | fdelt | ctype_* | assert_fail | stack_chk_fail | tls_get_addr | _GLOBAL_OFFSET_TABLE_) ;;
    pthread_self | pthread_equal | pthread_once | pthread_atfork | pthread_mutex_* | register_atfork | dso_handle) ;;
    gcov_* | asan_* | ubsan_* | tsan_* | lsan_* | sanitizer_*) ;;
    *) false ;;
    esac
}

"$nm" -A -g "$archive" >"$scratch/nm"
awk '$(NF - 1) ~ /^[TDBRVW]$/ { print $NF }' "$scratch/nm" | sort -u >"$scratch/own"
awk '$(NF - 1) == "U" || $(NF - 1) == "w" { split($1, at, ":"); sub(/\.o$/, "", at[2]); print $NF, at[2] }' \
    "$scratch/nm" | sort >"$scratch/calls"

# file_of FUNCTION: the source file that defines it.
file_of() {
    awk -v name="$1" '$NF == name && $(NF - 1) == "T" { split($1, at, ":"); sub(/\.o$/, "", at[2]); print at[2] }' "$scratch/nm"
}

# The exceptions: what a function that has no map, and so no os table, is there to do.
except() { # FUNCTION NAME...
    file=$(file_of "$1")
    if [ -z "$file" ]; then
        echo "layers.sh: $archive: no $1 in it, which has an exception here" >&2
        exit 1
    fi
    shift
    for name in "$@"; do
        echo "$name $file" >>"$scratch/exceptions"
    done
}
except asyncore_destroy_free free # the program's own memory goes back to the program's malloc
except asyncore_log_stderr fprintf stderr

join -v 1 "$scratch/calls" "$scratch/own" | while read -r name file; do
    case $file in os_*.c | names_*.c) continue ;; esac
    # The simulated kernel has memory of its own, which is not the library's.
    case $file:$name in sim_*.c:malloc | sim_*.c:calloc | sim_*.c:realloc | sim_*.c:free | sim_*.c:strdup) continue ;; esac
    # __read_chk is read, checked; __isoc23_strtoul is strtoul.
    plain=$(echo "$name" | sed 's/^__isoc[0-9]*_//; s/^__\(.*\)_chk$/\1/; s/^__//')
    if ! allowed "$name" && ! allowed "$plain" && ! grep -qxF "$plain $file" "$scratch/exceptions"; then
        echo "layers.sh: src/$file calls $plain: go through the os table (src/os.h), or allow it in tests/layers.sh" >&2
        echo x >>"$scratch/failed"
    fi
done

# Objects cannot tell one free() from another, so that file is read: it has a single one.
freeing=$(file_of asyncore_destroy_free)
frees=$(sed 's,/\*.*\*/,,; /^ *\*/d' "$source/src/$freeing" | grep -cE '(^|[^A-Za-z0-9_>.])free *\(' || true)
if [ "$frees" != 1 ]; then
    echo "layers.sh: src/$freeing: free() $frees times; asyncore_destroy_free has one, the rest goes through os->free" >&2
    echo x >>"$scratch/failed"
fi

[ ! -e "$scratch/failed" ]
