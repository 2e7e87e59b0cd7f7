"""What the tests of this directory share: sockets, channels that write down what is called, a patient wait."""
import asyncore
import os
import select
import socket
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
ROOT = os.path.dirname(PACKAGE)
SLOWER = int(os.environ.get("CK_TIMEOUT_MULTIPLIER") or 1)
DEADLINE = 30 * SLOWER  # seconds: how long anything may take before it counts as hanging

POLLS = [asyncore.poll, asyncore.poll2]


def until(condition, turn, what="nothing happened"):
    """Calls turn() until condition() is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("still not after %s s: %s" % (DEADLINE, what))
        turn()


def waits(map):
    """Whether a loop, in another thread, waits for the map."""
    serving = asyncore._serving.maps.get(id(map))
    extension = asyncore._extension
    return bool(serving is not None and serving.waits) or (extension is not None and extension.waiting(map))


class Case(unittest.TestCase):
    """Closes what was opened; nothing is kept of a map that nobody serves any more."""

    def setUp(self):
        self.map = {}
        if hasattr(asyncore, "_serving"):
            self.addCleanup(self.assertEqual, asyncore._serving.maps, {})
        self.addCleanup(asyncore.close_all, ignore_all=True)
        self.addCleanup(self.close_map)

    def close_map(self):
        asyncore.close_all(self.map, ignore_all=True)

    def fork(self, code):
        """Runs code() in a child, where it must end without an exception."""
        pid = os.fork()
        if pid == 0:
            try:
                code()
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def pair(self, kind=socket.SOCK_STREAM):
        """Two connected sockets."""
        a, b = socket.socketpair(socket.AF_UNIX, kind)
        self.addCleanup(a.close)
        self.addCleanup(b.close)
        b.settimeout(DEADLINE)
        return a, b

    def tcp(self):
        """Two connected sockets of TCP, over the loopback."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            a = socket.create_connection(listener.getsockname())
            b, _ = listener.accept()
        self.addCleanup(a.close)
        self.addCleanup(b.close)
        b.settimeout(DEADLINE)
        return a, b

    def until(self, condition, what="nothing happened", poll=asyncore.poll):
        """Serves the test's map until the condition holds."""
        until(condition, lambda: poll(0.05, self.map), what)


class Trace(asyncore.dispatcher):
    """Writes down the names of the handlers that are called, into a list that several may share."""

    name = ""
    wants = (True, False)

    def __init__(self, sock=None, map=None, calls=None, name=""):
        self.calls = [] if calls is None else calls
        self.name = name
        asyncore.dispatcher.__init__(self, sock, map)

    def note(self, what):
        self.calls.append(self.name + what)

    def readable(self):
        return self.wants[0]

    def writable(self):
        return self.wants[1]

    def handle_read(self):
        self.note("read")
        self.recv(65536)

    def handle_write(self):
        self.note("write")

    def handle_expt(self):
        self.note("expt")

    def handle_connect(self):
        self.note("connect")

    def handle_close(self):
        self.note("close")
        self.close()

    def handle_error(self):
        self.note("error:" + type(sys.exc_info()[1]).__name__)
        self.close()


def run(code, *args, **kwargs):
    """Runs a piece of Python in a process of its own, with the same modules. (status, output)."""
    kwargs.setdefault("timeout", DEADLINE)
    process = subprocess.run([sys.executable, "-c", code] + list(args), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)
    return process.returncode, process.stdout.decode("utf-8", "replace")


def idle_cpu(seconds, serve):
    """CPU seconds that serve(seconds) took."""
    before = time.process_time()
    serve(seconds)
    return time.process_time() - before


def has_poll():
    return hasattr(select, "poll")
