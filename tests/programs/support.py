"""Starts the built programs and talks to them: what the tests of this directory share.

The programs come from the directory $BIN (default: build/bin of this tree). $PROGRAM_WRAPPER, if set, is put before
every command ("valgrind -q --error-exitcode=99 --leak-check=full"). Every program runs in an empty directory of its
own, which must be empty again when the test ends; what a test started and did not stop is killed then, by its pid.
"""
import functools
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.abspath(os.environ.get("BIN") or os.path.join(ROOT, "build", "bin"))
WRAPPER = shlex.split(os.environ.get("PROGRAM_WRAPPER", ""))
SLOWER = int(os.environ.get("CK_TIMEOUT_MULTIPLIER") or 1) * (5 if WRAPPER else 1)
DEADLINE = 30 * SLOWER  # seconds: how long anything may take before it counts as hanging


def binary(name):
    return os.path.join(BIN, name)


def sanitized(name):
    """Whether memory figures of the program mean nothing, since a checker keeps what was freed."""
    with open(binary(name), "rb") as f:
        code = f.read()
    return bool(WRAPPER) or b"__asan_init" in code or b"__tsan_init" in code


def poll_until(condition, what, seconds=None):
    """Waits until condition() is true and returns what it returned; fails with `what` at the deadline."""
    end = time.monotonic() + (seconds or DEADLINE)
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError("still not after %s s: %s" % (seconds or DEADLINE, what))
        time.sleep(0.01)


def free_port(host="127.0.0.1"):
    """A port that was free a moment ago, for programs that cannot choose one. Be ready to try again."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.bind((host, 0))
        return s.getsockname()[1]


def has_ipv6():
    try:
        free_port("::1")
        return True
    except OSError:
        return False


def listening_port(pid):
    """The TCP port that a process listens on, or None: for programs that do not print it."""
    inodes = set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            inodes.add(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
        except FileNotFoundError:
            pass
    for table in ("tcp", "tcp6"):
        with open("/proc/%d/net/%s" % (pid, table)) as f:
            for row in f.read().splitlines()[1:]:
                field = row.split()
                if field[3] == "0A" and "socket:[%s]" % field[9] in inodes:
                    return int(field[1].rpartition(":")[2], 16)
    return None


class Program:
    """A running program. Its stdout is a pipe unless told otherwise, its stderr a file that errors() reads."""

    def __init__(self, command, cwd, stdout=subprocess.PIPE, env=None, **popen):
        self.command = command
        self.error_file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=self.error_file,
            env=dict(os.environ, **(env or {})), **popen)
        self.pid = self.process.pid
        self.address = None  # (host, port) once the listening line was read

    def read_line(self):
        """One line of stdout, without reading past it; '' at its end."""
        line = b""
        end = time.monotonic() + DEADLINE
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise AssertionError("%s: no line on stdout; stderr: %r" % (self.command, self.errors()))
            byte = os.read(self.process.stdout.fileno(), 1)
            if not byte:
                break
            line += byte
        return line.decode()

    def read_listening_line(self, name):
        line = self.read_line()
        found = re.fullmatch(re.escape(name) + r": listening on (?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]+)"
                             r"(?:, [^\n]+)?\n", line)
        if not found:
            raise AssertionError("%s: first line %r; stderr: %r" % (self.command, line, self.errors()))
        self.address = (found.group(1) or found.group(2), int(found.group(3)))

    def wait(self):
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s did not end; stderr: %r" % (self.command, self.errors())) from None

    def stop(self, number=signal.SIGTERM):
        """Sends the signal and returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def errors(self):
        # pread: the program shares the file's position, and must go on writing at the end.
        return os.pread(self.error_file.fileno(), 1 << 26, 0).decode(errors="backslashreplace")

    def fds(self):
        """Open descriptors, but for pipes beyond the standard descriptors: a forwarder keeps those it spliced with."""
        count = 0
        for fd in os.listdir("/proc/%d/fd" % self.pid):
            try:
                count += int(fd) <= 2 or not os.readlink("/proc/%d/fd/%s" % (self.pid, fd)).startswith("pipe:")
            except FileNotFoundError:
                pass
        return count

    def events(self):
        """What errors() has but the lines of a forwarder's connections, and without times."""
        lines = [re.sub(r"\A[0-9TZ:.-]+ (?=portforward: )", "", line) for line in self.errors().splitlines(True)]
        return "".join(line for line in lines if not re.match(r"[0-9TZ:.-]+ rule=\S+ client=", line))

    def ends(self):
        """The reasons of the ends of a forwarder's connections."""
        return re.findall(r"^[0-9TZ:.-]+ rule=\S+ client=.* end=(\S+)$", self.errors(), re.M)

    def memory(self, field="VmHWM"):
        """Bytes: VmHWM is the peak, VmRSS the present."""
        with open("/proc/%d/status" % self.pid) as f:
            return int(re.search(r"^%s:\s+(\d+) kB" % field, f.read(), re.M).group(1)) * 1024

    def cpu(self):
        """Seconds of CPU used so far."""
        with open("/proc/%d/schedstat" % self.pid) as f:
            return int(f.read().split()[0]) / 1e9

    def discard(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.error_file.close()


class ProgramTest(unittest.TestCase):
    """A test case that can start programs, and cleans up after them."""

    def setUp(self):
        self.cwd = tempfile.mkdtemp(prefix="asyncore-test-")
        self.addCleanup(self._check_directory)

    def _check_directory(self):
        left = os.listdir(self.cwd)
        shutil.rmtree(self.cwd)
        self.assertEqual(left, [], "files left behind")

    def start(self, name, *args, **popen):
        """Starts $BIN/name (or a command: a list) and returns its Program."""
        command = WRAPPER + [binary(name)] if isinstance(name, str) else list(name)
        program = Program(command + [str(a) for a in args], self.cwd, **popen)
        self.addCleanup(program.discard)
        return program

    def serve(self, name, *args, **popen):
        """Starts a server of ours and waits until it listens; see Program.address."""
        program = self.start(name, *args, **popen)
        program.read_listening_line(name)
        return program

    def run_program(self, name, *args, **popen):
        """Runs to the end: (exit code, stdout as bytes, stderr as text)."""
        with tempfile.TemporaryFile() as out:
            program = self.start(name, *args, stdout=out, **popen)
            code = program.wait()
            out.seek(0)
            return code, out.read(), program.errors()

    def assert_fails(self, result, code, *words):
        """`result` of run_program: this exit code, nothing on stdout, one line on stderr with all these words."""
        self.assertEqual(result[0], code, result)
        self.assertEqual(result[1], b"", result)
        self.assert_one_line(result[2], *words)

    def assert_one_line(self, text, *words):
        self.assertRegex(text, r"\A[^\n]+\n\Z")
        for word in words:
            self.assertIn(word.lower(), text.lower())

    def assert_stops(self, program, number=signal.SIGTERM, errors=""):
        self.assertEqual(program.stop(number), 0, program.errors())
        if errors is not None:
            # A forwarder may still have connections whose ends were closed just now.
            self.assertEqual(re.sub(r"portforward: stopping: .*\n", "", program.events()), errors)

    def assert_fds_return(self, program, before):
        """The descriptors of a server are back to a former count of program.fds()."""
        poll_until(lambda: program.fds() == before,
                   "%d descriptors again; %d now" % (before, program.fds()))

    def assert_no_spin(self, program, seconds=0.4):
        """A program that has nothing to do uses no CPU, once it has done what there was."""
        def rests():
            before = program.cpu()
            time.sleep(seconds)
            return program.cpu() - before < seconds / 10
        poll_until(rests, "the program rests; it uses the CPU while nothing happens", DEADLINE / 3)

    def connect(self, program, **options):
        """A client of a program, or of an address; closed when the test ends."""
        s = connect(program.address if isinstance(program, Program) else program, **options)
        self.addCleanup(s.close)
        return s

    def in_thread(self, function, *args):
        """Runs function aside; the returned join(seconds) gives its result, or raises what it raised."""
        outcome = []

        def body():
            try:
                outcome.append((function(*args), None))
            except BaseException as error:  # handed to join()
                outcome.append((None, error))

        thread = threading.Thread(target=body, daemon=True)
        thread.start()

        def join(seconds=DEADLINE):
            thread.join(seconds)
            if not outcome:
                raise AssertionError("%s hangs" % function)
            if outcome[0][1]:
                raise outcome[0][1]
            return outcome[0][0]

        return join


def connect(address, source=None, receive_buffer=0):
    s = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    s.settimeout(DEADLINE)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        s.bind((source, 0))
    s.connect(address)
    return s


def receive(s, size):
    """Exactly so many bytes, fewer only at the end of the stream."""
    data = bytearray()
    while len(data) < size:
        piece = s.recv(min(size - len(data), 1 << 16))
        if not piece:
            break
        data += piece
    return bytes(data)


def receive_all(s):
    """Everything up to the end of the stream. A reset raises."""
    return receive(s, 1 << 40)


def reset(s):
    """Closes so that the peer gets a reset and not an end of stream."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def is_reset(s):
    """Whether the connection ends in a reset, whatever comes before."""
    try:
        receive_all(s)
        return False
    except ConnectionResetError:
        return True


@functools.lru_cache(maxsize=None)
def pattern_block(seed):
    block = bytearray()
    state = seed
    while len(block) < 65521:  # a prime: no piece of a round size repeats in step with it
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        block += state.to_bytes(8, "little")[3:]
    return bytes(block[:65521])


def pattern(size, seed=1):
    """Bytes whose every stretch is different, so that a lost or doubled piece shows."""
    block = pattern_block(seed)
    return (block * (size // len(block) + 1))[:size] if size else b""
