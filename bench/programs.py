"""What the two benchmarks have in common: programs that are started, pinned, measured and ended; options; a network
namespace."""

import argparse
import contextlib
import ctypes
import fcntl
import functools
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import time
from collections import Counter

BIN = os.environ.get("BIN") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "bin")
LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE = 60      # seconds until a program that says nothing counts as hung
FEW = 8            # connections where messages are counted one by one
LOST = 3           # the loads' exit status when bytes were lost or changed


class Failure(Exception):
    """Something did not run, so there is no figure; the others can still be taken."""


class Lost(Failure):
    """Bytes were lost or changed."""


def say(text):
    print(text.rstrip(), flush=True)


# -- Programs ---------------------------------------------------------------------------------------------------------


def prepare_child(processor):
    """In the child: it dies with us, however we die, and stays on its processor."""
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if processor is not None:
        os.sched_setaffinity(0, {processor})


def run_time(pid):
    """Seconds of processor time of a process, to the nanosecond while it sleeps."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


class Program:
    """A child process that talks in lines. Leaving its `with` kills it, if it has not ended by then."""

    def __init__(self, command, processor=None, pass_fds=(), env=None):
        self.name = os.path.basename(command[0])
        self.text = b""
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=pass_fds, env=env,
                preexec_fn=lambda: prepare_child(processor))
        except OSError as error:
            raise Failure(f"{self.name}: {error.strerror}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def line(self, patience=PATIENCE):
        """The next line that it prints."""
        deadline = time.monotonic() + patience
        while b"\n" not in self.text:
            left = max(0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                raise Failure(f"{self.name}: silent for {patience:.0f} s")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                self.fail(self.process.wait(), "ended")
            self.text += data
        line, self.text = self.text.split(b"\n", 1)
        return line.decode()

    def expect(self, expected):
        line = self.line()
        if line != expected:
            raise Failure(f"{self.name}: says {line}, not {expected}")

    def fail(self, status, what):
        raise (Lost if status == LOST else Failure)(f"{self.name}: {what}, exit status {status}")

    def go_on(self, text=""):
        """Answers a line that it waits after."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: the next line(), which it does not print, tells that
            self.process.stdin.write(text.encode() + b"\n")

    def end(self, signal_number=None):
        """It ends, by itself at the end of its input, or of a signal."""
        if signal_number:
            self.process.send_signal(signal_number)
        else:
            self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name}: does not end") from None

    def finish(self):
        """It ends by itself, and well."""
        status = self.end()
        if status:
            self.fail(status, "failed")

    def cpu(self):
        return run_time(self.process.pid)

    def peak_memory(self):
        return self.memory("VmHWM")

    def memory(self, what="VmRSS"):
        """Bytes."""
        with open(f"/proc/{self.process.pid}/status") as file:
            match = re.search(what + r":\s*(\d+) kB", file.read())
        if not match:
            raise Failure(f"{self.name}: gone")
        return int(match[1]) * 1024


class Listener(Program):
    """A server that prints where it listens. Several can be started before the first is asked for its port."""

    @functools.cached_property
    def port(self):
        line = self.line()
        match = re.search(r"listening on 127\.0\.0\.1:(\d+)(.*)", line)
        if not match:
            raise Failure(f"{self.name}: does not say where it listens: {line}")
        self.remark = match[2].strip()
        return int(match[1])


def read_result(program):
    """A load's last line, as a dict."""
    words = program.line().split()
    return dict(zip(words[::2], map(float, words[1::2])))


def calls_of(summary):
    """strace -c's table: percent, seconds, each, calls, errors or nothing, name."""
    calls = Counter()
    for line in summary.splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    if not calls:
        raise Failure("strace: no summary was written")
    return calls


# -- Messages one at a time, to be counted ----------------------------------------------------------------------------


def round_trips(port, count, stack):
    """`count` messages of 64 bytes, one at a time, over connections that stay open as long as the stack."""
    connections = []
    try:
        for _ in range(FEW):
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)))
            round_trip(connections[-1])  # or it would be chance how many clients a server finds waiting at once
        for number in range(count):
            round_trip(connections[number % FEW])
    except OSError as error:
        raise Failure(f"the server is gone: {error}") from None


def round_trip(connection):
    message, echo = bytes(range(64)), b""
    connection.sendall(message)
    while message.startswith(echo) and len(echo) < 64:
        data = connection.recv(64)
        if not data:
            break
        echo += data
    if echo != message:
        raise Failure("the echo is not what was sent")


def callgrind(out):
    """The command that counts a program's instructions into the file `out`."""
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--log-file=/dev/null"]


def instructions_of(out):
    try:
        with open(out) as file:
            return int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.M)[1])
    except (OSError, TypeError):
        raise Failure("valgrind: no profile was written") from None


# -- Options ----------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def positive(convert):
    def parse(text):
        value = convert(text)
        if not 0 < value < 1e6:
            raise ValueError
        return value
    parse.__name__ = "positive number"
    return parse


def names_of(known):
    def parse(text):
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no such name (there are {', '.join(known)}): {name}")
        return [name for name in known if name in names]
    return parse


def at_most(value, goal, digits, base=""):
    met = round(value, digits) <= round(goal, digits)
    return f"goal: at most {base}{goal:.{digits}f}, {'met' if met else 'MISSED'}"


# -- What the machine allows ------------------------------------------------------------------------------------------


def choose_processors():
    """One for what is measured, one for the loads."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        say("one processor: servers and loads share it, and the ratios are worth less")
    return allowed[0], allowed[1 % len(allowed)]


def allow_descriptors():
    """How many files may be open, as many as there can be."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def isolate():
    """A network namespace of our own, with its loopback interface up: nobody else's packets, nobody else's ports."""
    if os.geteuid() != 0:
        say("not root: no network namespace of its own, so other traffic of this machine may disturb")
        return False
    if LIBC.unshare(0x40000000) != 0:  # CLONE_NEWNET
        say(f"no network namespace of its own ({os.strerror(ctypes.get_errno())}): other traffic may disturb")
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    return True
