"""What the tests of portforward's data path share: forwarders on each of the data paths, what their log said, and
network namespaces.

Helpers in C are in $HELPERS (default: build/tests of this tree).
"""
import collections
import contextlib
import ctypes
import functools
import os
import re
import select
import shutil
import socket
import subprocess
import threading
import unittest

from support import BIN, DEADLINE, SLOWER, WRAPPER, ProgramTest, binary, pattern, poll_until, receive, sanitized

HELPERS = os.path.abspath(os.environ.get("HELPERS") or os.path.join(os.path.dirname(BIN), "tests"))
PATHS = ("copy", "splice", "auto")
PIPES = 32  # that a forwarder may keep open for good
MB = 1 << 20
STALLED = 0.3  # seconds without room: what is on its way through loopback has long arrived
ENDLESS = 256 * MB  # more than the kernel's buffers of two connections hold
LATE = 1 * SLOWER  # seconds: how late a timer may seem to be on a machine that others use
CHECKED = sanitized("portforward")

LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) rule=(?P<rule>\S+) client=(?P<client>\S+) "
                  r"remote=(?P<remote>\S+) up=(?P<up>\d+) down=(?P<down>\d+) ms=(?P<ms>\d+) end=(?P<end>[a-z-]+)")
Line = collections.namedtuple("Line", "time rule client remote up down ms end")


def smaller(count, by=8):
    """A size or a count, less where a checker makes everything slow."""
    return count // by if CHECKED else count


def helper(name):
    return os.path.join(HELPERS, name)


@functools.lru_cache(maxsize=None)
def endless(seed):
    """What push() sends again and again, twice: a piece of it may begin anywhere."""
    return pattern(MB, seed) * 2


def push(s, size=ENDLESS, seed=1):
    """Sends until nothing more is taken, and returns how much was."""
    data = memoryview(endless(seed))
    sent = 0
    timeout = s.gettimeout()
    s.setblocking(False)
    while sent < size and select.select([], [s], [], STALLED)[1]:
        try:
            at = sent % MB
            sent += s.send(data[at:at + min(MB, size - sent)])
        except BlockingIOError:
            pass
    s.settimeout(timeout)
    return sent


def pushed(size, seed=1):
    """The bytes that push() sent."""
    return (endless(seed) * (size // MB // 2 + 1))[:size]


def until_reset(s):
    """What comes before the reset. An end of stream is an error: nothing may look like one."""
    data = bytearray()
    while True:
        try:
            piece = s.recv(1 << 18)
        except ConnectionResetError:
            return bytes(data)
        if not piece:
            raise AssertionError("an end of stream after %d bytes, where a reset was due" % len(data))
        data += piece


def late_reset(s):
    """A reset of a socket that has read an end of stream: only the socket's error tells."""
    error = poll_until(lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "a reset after the end of the stream")
    if error not in (32, 104):  # EPIPE, ECONNRESET
        raise AssertionError("not a reset: %s" % os.strerror(error))


class Forwarder:
    """A forwarder on one data path, and the server behind it.

    `rule`: the whole RULE, with %d for the server's port; without, the server is somebody else's. `server`: a function
    that makes its listener.
    `before`: a command to be put before (nsenter)."""

    def __init__(self, test, path, *options, rule="127.0.0.1 0 127.0.0.1 %d", server=None, before=(), **popen):
        self.test, self.path = test, path
        self.used = []  # clients' addresses
        if "%d" in rule:
            self.server = (server or test.listener)()
            rule %= self.server.getsockname()[1]
        command = list(before) + WRAPPER + [binary("portforward"), "--data-path", path]
        self.program = test.start(command, *options, rule, **popen)
        line = self.program.read_line()
        found = re.fullmatch(r"portforward: listening on (\S+):([0-9]+), forwarding to \S+\n", line)
        if not found:
            raise AssertionError("first line %r; stderr: %r" % (line, self.program.errors()))
        self.address = self.program.address = (found.group(1).strip("[]"), int(found.group(2)))
        self.sockets_before, self.others_before, self.pipes_before = self.descriptors()

    def descriptors(self):
        """How many descriptors it has: sockets, ends of pipes, others."""
        links = []
        folder = "/proc/%d/fd" % self.program.pid
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(os.path.join(folder, fd)))
        sockets = sum(link.startswith("socket:") for link in links)
        pipes = sum(link.startswith("pipe:") for link in links)
        return sockets, len(links) - sockets - pipes, pipes

    def sockets(self):
        """Of connections: two for each pair once it connects."""
        return self.descriptors()[0] - self.sockets_before

    def client(self, **options):
        try:
            s = self.test.connect(self.program, **options)
        except ConnectionResetError:
            self.used.append(None)  # a client all the same
            raise
        self.used.append("%s:%d" % s.getsockname()[:2])
        return s

    def accept(self):
        s, address = self.server.accept()
        self.test.addCleanup(s.close)
        if address in self.test.strangers:
            s.close()
            return self.accept()
        s.settimeout(DEADLINE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def pair(self, **options):
        """A connection through it: the client's socket and the server's."""
        client = self.client(**options)
        return client, self.accept()

    def lines(self):
        """What the log says of connections that ended, by client (whose port may come again), and its other lines."""
        found, others = collections.defaultdict(list), []
        for text in self.program.errors().splitlines():
            match = LINE.fullmatch(text)
            if match:
                line = Line(**match.groupdict())
                found[line.client].append(line._replace(up=int(line.up), down=int(line.down), ms=int(line.ms)))
            else:
                others.append(text)
        return found, others

    def line_of(self, client, *ends):
        """The log's line about a client (its address), which must say that it ended so, or so."""
        def there():
            lines = self.lines()[0][client]
            return lines if len(lines) >= self.used.count(client) else None
        line = poll_until(there, "a line of %s in the log: %s" % (client, self.program.errors()[-2000:]))[-1]
        self.test.assertIn(line.end, ends, line)
        return line

    def gone(self):
        poll_until(lambda: self.sockets() == 0, "every connection has ended on %s; sockets left: %d, log %r" % (
            self.path, self.sockets(), self.program.errors()[-2000:]))

    def rests(self, seconds=0.4):
        """It uses no CPU."""
        self.test.assert_no_spin(self.program, seconds)

    def assert_descriptors_return(self):
        """But for pipes, of which it may keep some for the next."""
        sockets, others, pipes = self.descriptors()
        self.test.assertEqual((sockets, others), (self.sockets_before, self.others_before))
        self.test.assertLessEqual(pipes - self.pipes_before, 2 * PIPES)

    def serves(self):
        client, server = self.pair()
        exchange(client, server)
        client.close()
        server.close()

    def finish(self, *events):
        """Whatever happened: no descriptor too many, no CPU, still serving, a line for each connection, a clean stop.
        `events`: what other lines of the log must match, each any number of times."""
        self.gone()
        self.rests(0.2)
        if self.server.fileno() >= 0:
            self.serves()
        self.gone()
        self.assert_descriptors_return()
        self.test.assertEqual(self.program.stop(), 0, self.program.errors())
        found, others = self.lines()
        told = collections.Counter({client: len(lines) for client, lines in found.items()})
        used = collections.Counter(self.used)
        unknown = used.pop(None, 0)
        self.test.assertEqual((used - told, sum((told - used).values())), ({}, unknown), "connections, and their lines")
        for text in others:
            self.test.assertTrue(any(re.fullmatch(event, text) for event in events), "stderr: %r" % text)


def exchange(a, b, data=b"over there"):
    for x, y in ((a, b), (b, a)):
        x.sendall(data)
        got = receive(y, len(data))
        if got != data:
            raise AssertionError("%r came for %r" % (got, data))


class ForwardTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.strangers = set()  # addresses of those that connected to a server past the forwarder

    def listener(self, host="127.0.0.1", port=0, backlog=4096):
        s = socket.socket()
        self.addCleanup(s.close)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.settimeout(DEADLINE)
        s.bind((host, port))
        s.listen(backlog)
        return s

    def full_listener(self, host="127.0.0.1", port=0):
        """From here on connects to this listener stay under way, for its queue is full, until somebody accepts."""
        server = self.listener(host, port, backlog=0)
        for _ in range(2):
            s = socket.socket()
            self.addCleanup(s.close)
            s.bind((host, 0))
            self.strangers.add(s.getsockname())
            s.setblocking(False)
            s.connect_ex(server.getsockname())
            select.select([], [s], [], 0.2)
        return server

    def deaf_listener(self):
        """A port where connections are refused, and which nobody else gets."""
        s = socket.socket()
        self.addCleanup(s.close)
        s.bind(("127.0.0.1", 0))
        return s

    def at_once(self, *checks):
        """Runs all of them side by side: (name, function, arguments...). Most of the time each of them waits."""
        failures = []
        for name, join in [(check[0], self.in_thread(*check[1:])) for check in checks]:
            try:
                join(4 * DEADLINE)  # longer than what hangs in it, which can say what that is
            except (Exception, AssertionError) as error:  # told below, by name
                failures.append((name, error))
        if failures:
            raise AssertionError("at " + "; ".join("%s: %s" % failure for failure in failures)) from failures[0][1]

    def on_each_path(self, check, *options, events=(), **forwarder):
        """check(forwarder) with one on each data path, all at once; each must be fit as ever afterwards."""
        def whole(path):
            f = Forwarder(self, path, *options, **forwarder)
            check(f)
            f.finish(*events)
        self.at_once(*[(path, whole, path) for path in PATHS])

    def on_path_after_path(self, check, *options, events=(), **forwarder):
        """The same one after the other: for what needs the whole machine."""
        for path in PATHS:
            with self.subTest(path=path):
                f = Forwarder(self, path, *options, **forwarder)
                check(f)
                f.finish(*events)

    def stream(self, s, send, receive_, seed, largest=MB, late=0):
        """Starts stream.c at one end of a connection (seed 1 or 2, the other end the other); the returned join() ends
        when all was sent and received."""
        process = subprocess.Popen(
            [helper("stream")] + [str(n) for n in (send, seed, receive_, 3 - seed, largest, late)],
            stdin=s.fileno(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        def end():
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()

        def join():
            output = process.stdout.read()
            self.assertEqual(process.wait(), 0, output.decode())

        self.addCleanup(end)
        s.close()  # the process has it
        return join


# -- Network namespaces -----------------------------------------------------------------------------------------------


def may_unshare():
    command = ["unshare", "-n", "ip", "link", "set", "lo", "up"]
    return all(shutil.which(name) for name in ("unshare", "nsenter", "ip")) and subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


needs_namespaces = unittest.skipUnless(may_unshare(), "no network namespaces: not root, or no ip, unshare or nsenter")


class Namespace:
    """A network namespace. It lives as long as a process in it: cat, which ends with the test at the latest."""

    def __init__(self, test):
        script = "ip link set lo up && echo && exec cat >/dev/null"
        self.process = subprocess.Popen(["unshare", "-n", "sh", "-c", script],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        test.addCleanup(self.end)
        if self.process.stdout.readline() != b"\n":
            raise AssertionError("no namespace")
        self.path = "/proc/%d/ns/net" % self.process.pid
        self.before = ["nsenter", "--net=" + self.path, "--"]

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def run(self, *command):
        subprocess.run(self.before + list(command), check=True, stdin=subprocess.DEVNULL)

    def set(self, name, value):
        """A sysctl of this namespace."""
        self.run("sh", "-c", "echo '%s' >/proc/sys/%s" % (value, name.replace(".", "/")))

    def call(self, function, *args, **options):
        """Calls it in a thread that is in the namespace: sockets made there belong to it for good."""
        outcome = []

        def body():
            libc = ctypes.CDLL(None, use_errno=True)
            try:
                with open(self.path) as f:
                    if libc.setns(f.fileno(), 0) < 0:
                        raise OSError(ctypes.get_errno(), "setns")
                outcome.append((function(*args, **options), None))
            except BaseException as error:  # raised below
                outcome.append((None, error))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if outcome[0][1]:
            raise outcome[0][1]
        return outcome[0][0]

    def join(self, other, own_address, other_address):
        """A cable (veth) between the two, with an address at either end."""
        names = "end%d" % other.process.pid, "end%d" % self.process.pid
        self.run("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1],
                 "netns", str(other.process.pid))
        for namespace, name, address in ((self, names[0], own_address), (other, names[1], other_address)):
            namespace.run("ip", "address", "add", address + "/24", "dev", name)
            namespace.run("ip", "link", "set", name, "up")
        return names
