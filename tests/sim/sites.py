#!/usr/bin/env python3
"""The coverage list of torture: every place of the library that calls the os layer, how often it was reached, and how
often that call was made to fail.

    sites.py TORTURE SOURCES SITES...

TORTURE is the executable, SOURCES the library's directory, and each of SITES what `torture --sites=FILE` wrote. The
places are found in the text; the return addresses in SITES become lines by addr2line. Exits with 1 if a place was
never made to fail and is not among the exceptions.
"""
import collections
import pathlib
import re
import subprocess
import sys

CALL = re.compile(r"\bos->(\w+)\(|(?<!\*)\b(map_alloc)\(")
OTHERS = re.compile(r"(os|names|sim)_.*")  # the os layer's own files
NEVER_FAIL = {  # void, or no result that says so
    "names_close": "releases",
    "names_cancel": "releases",
    "names_event": "tells",
    "names_deadline": "tells",
    "signal_close": "releases",
    "interface_index": "0 is an answer",
    "timerfd_set": "fails only for wrong arguments (timerfd_settime(2))",
}
EXCEPTIONS = {  # (file, function that it is in, what is called, which of them): reason
    ("watch.c", "change_post", "map_alloc", 1): "another thread's change: threads are not simulated (test_watch)",
    ("engine_epoll.c", "epoll_set", "epoll_ctl", 3): "a duplicate's: descriptors have none here (test_watch)",
    **{("splice.c", *site): "the simulated kernel does not splice (test_splice)" for site in (
        ("asyncore_pipe_open", "pipe", 1), ("asyncore_pipe_close", "close", 1), ("asyncore_pipe_close", "close", 2),
        ("asyncore_pipe_read", "read", 1), ("look", "getsockopt", 1), ("end_or_urgent", "recv", 1),
        ("splice_in", "splice", 1), ("splice_out", "splice", 1))},
}


def places(sources):
    """(file, line) -> (function called, function it is in, which of its calls in that function, from 1)."""
    found, seen = {}, collections.Counter()
    for path in sorted(pathlib.Path(sources).glob("*.[ch]")):
        if OTHERS.fullmatch(path.stem):
            continue
        inside = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            head = re.match(r"(?!static const|struct|enum|#|typedef)[A-Za-z].*?\b(\w+)\(", line)
            inside = head.group(1) if head else inside
            call = CALL.search(line)
            if call and not (inside == "map_alloc" or line.startswith(("static", " *", "/*"))):
                called = call.group(1) or call.group(2)
                seen[path.name, inside, called] += 1
                if called not in ("free", "now"):
                    found[path.name, number] = (called, inside, seen[path.name, inside, called])
    return found


def base_of(executable):
    for line in subprocess.run(["nm", executable], capture_output=True, text=True, check=True).stdout.splitlines():
        if line.endswith(" __executable_start"):
            return int(line.split()[0], 16)
    sys.exit(f"{executable} has no __executable_start")


def resolve(executable, addresses):
    """Each address -> the lines of it, innermost first: [(file, line)...]. A return address lies behind its call."""
    base = base_of(executable)
    asked = "".join(f"{base + address - 1:#x}\n" for address in addresses)
    out = subprocess.run(["addr2line", "-a", "-i", "-e", executable], input=asked, capture_output=True, text=True,
                         check=True).stdout
    lines, which = {}, -1
    for line in out.splitlines():
        if line.startswith("0x"):
            which += 1
            lines[addresses[which]] = []
            continue
        path, _, number = line.partition(" ")[0].rpartition(":")
        lines[addresses[which]].append((pathlib.Path(path).name, int(number) if number.isdigit() else 0))
    return lines


def counts(executable, files, found):
    reached, failed = collections.Counter(), collections.Counter()
    records = [line.split() for name in files for line in open(name, encoding="ascii")]
    lines = resolve(executable, sorted({int(record[0], 16) for record in records}))
    for record in records:
        place = next((place for place in lines[int(record[0], 16)] if place in found), None)
        if place:
            reached[place] += int(record[1])
            failed[place] += int(record[2])
    return reached, failed


def main():
    executable, sources, *files = sys.argv[1:]
    found = places(sources)
    reached, failed = counts(executable, files, found)
    missing = excepted = 0
    for place, (call, inside, which) in found.items():
        reason = NEVER_FAIL.get(call) or EXCEPTIONS.get((place[0], inside, call, which))
        state = ""
        if reason:
            state = f"({reason})"
            excepted += 1
        elif failed[place] == 0:
            state = "NEVER FAILED" if reached[place] else "NEVER REACHED"
            missing += 1
        print(f"{place[0] + ':' + str(place[1]):<22} {call:<15} {inside:<20} reached {reached[place]:>9} "
              f"failed {failed[place]:>7} {state}".rstrip())
    print(f"{len(found)} call sites: {len(found) - missing - excepted} made to fail, {excepted} that cannot, "
          f"{missing} missing")
    return missing > 0


if __name__ == "__main__":
    sys.exit(main())
