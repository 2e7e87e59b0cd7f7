#!/usr/bin/env bash
# hello_http, portforward before it, and http_client fetching a page through both. Stops what it started, whatever
# happens; exits 0 only if every program did what it should.
#
#   tools/demo.sh BIN_DIR
set -euo pipefail

bin=${1:?usage: tools/demo.sh BIN_DIR}
scratch=$(mktemp -d)
declare -A pids=()

clean_up() {
    if [ ${#pids[@]} != 0 ]; then
        kill -KILL "${pids[@]}" || true
        wait "${pids[@]}" || true
    fi 2>/dev/null
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "demo: $*" >&2
    exit 1
}

# within_10_s COMMAND...: asks twenty times a second until it is so.
within_10_s() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        if "$@"; then
            return 0
        fi
        sleep 0.05
    done
    return 1
}

# Started once it has printed its first line, or once it has ended without one.
started_or_ended() {
    [ "$(wc -l <"$scratch/$1")" -gt 0 ] || ! kill -0 "${pids[$1]}" 2>/dev/null
}

# start NAME ARGUMENT...: sets `port` from the first line, "NAME: listening on 127.0.0.1:PORT...".
start() {
    local name=$1 line
    shift
    : >"$scratch/$name"
    "$bin/$name" "$@" >>"$scratch/$name" &
    pids[$name]=$!
    within_10_s started_or_ended "$name" || fail "$name: said nothing for ten seconds"
    line=$(head -n 1 "$scratch/$name")
    if [[ ! $line =~ ^$name:\ listening\ on\ 127\.0\.0\.1:([0-9]+) ]]; then
        fail "$name: did not start: ${line:-it ended without a word}"
    fi
    port=${BASH_REMATCH[1]}
}

ended() {
    ! kill -0 "$1" 2>/dev/null
}

# stop NAME: it must end by itself, with 0.
stop() {
    local pid=${pids[$1]} status=0
    kill -TERM "$pid" 2>/dev/null || fail "$1: ended before it was stopped"
    within_10_s ended "$pid" || fail "$1: did not stop within ten seconds of SIGTERM"
    wait "$pid" || status=$?
    unset "pids[$1]"
    [ "$status" = 0 ] || fail "$1: exit status $status when stopped, expected 0"
}

for program in hello_http portforward http_client; do
    [ -x "$bin/$program" ] || fail "$bin/$program: not built"
done

start hello_http -p 0
hello_port=$port
start portforward -p 0 -r 127.0.0.1 -P "$hello_port"
url=http://127.0.0.1:$port/kongxx

echo "\$ http_client $url"
before=$(date +%s%N)
answer=$(timeout 10 "$bin/http_client" "$url") || fail "http_client: exit status $? for $url"
after=$(date +%s%N)
echo "$answer"
[[ $answer == *"Hello kongxx!"* ]] || fail "$url: the answer does not say \"Hello kongxx!\""

stop portforward
stop hello_http
echo "demo: hello_http on :$hello_port answered through portforward on :$port in $(((after - before) / 1000000)) ms;" \
    "both stopped cleanly"
