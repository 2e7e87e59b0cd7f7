"""Each program against the Python original that it is the counterpart of: the client of one, the server of the other.

The originals are read from ../shared/programs beside the project, and run by a Python that has asyncore in its standard
library (2.7, or 3.6 to 3.11). Where either is missing all of this is skipped, with a line that says so.
"""
import glob
import os
import shutil
import signal
import subprocess
import sys
import unittest

from support import (ROOT, ProgramTest, binary, connect, listening_port, pattern, poll_until, receive)

ORIGINALS = os.path.join(os.path.dirname(ROOT), "shared", "programs")
NAMES = ["python3.%d" % minor for minor in range(11, 5, -1)] + ["python2.7"]


def pyenv_versions():
    if not shutil.which("pyenv"):
        return []
    root = subprocess.run(["pyenv", "root"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().strip()
    return glob.glob(os.path.join(glob.escape(root), "versions", "*", "bin")) if root else []


def has_asyncore(python):
    # -E: PYTHONPATH may lead to a replacement of asyncore, and the original is what is wanted.
    try:
        return subprocess.run([python, "-E", "-c", "import asyncore, asynchat"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_pythons():
    """The newest Python 3 with asyncore, and 2.7: the two dialects that the originals are written for."""
    found = []
    folders = [None] + sorted(pyenv_versions())
    for names in (NAMES[:-1], NAMES[-1:]):
        places = (shutil.which(name, path=folder) for name in names for folder in folders)
        python = next((place for place in places if place and has_asyncore(place)), None)
        if python:
            found.append(python)
    return found


class Interop(ProgramTest):
    python = None  # set by load_tests

    def original(self, name, *args, **popen):
        """Starts one of the originals. -E as above, -W: they are told that asyncore will go."""
        return self.start([self.python, "-E", "-u", "-W", "ignore", os.path.join(ORIGINALS, name)], *args, **popen)

    def original_server(self, name, *args):
        """One that listens on a port of the kernel's choice, which only the kernel tells."""
        program = self.original(name, *args)

        def port():
            self.assertIsNone(program.process.poll(), program.errors())
            return listening_port(program.pid)

        program.address = ("127.0.0.1", poll_until(port, "%s listens" % name))
        return program

    def url(self, program, path):
        return "http://%s:%d%s" % (program.address + (path,))

    def exchange(self, address, data):
        """Sends all of it while reading what comes back, until as much came."""
        with connect(address) as s:
            join = self.in_thread(s.sendall, data)
            back = receive(s, len(data))
            join()
            return back

    def end(self, program):
        """Ours stops by itself when told so; an original dies of the signal."""
        code = program.stop(signal.SIGTERM)
        self.assertEqual(code, -signal.SIGTERM if program.command[0] == self.python else 0, program.errors())

    # -- http_client and hello_http --

    def test_our_client_at_their_server(self):
        server = self.original_server("hello_http.py", 0)
        code, out, err = self.run_program("http_client", self.url(server, "/kongxx"))
        self.assertEqual((code, out, err), (0, b"<html>\r\n<body>\r\nHello kongxx! \r\n</body>\r\n</html>\r\n", ""))
        code, out, err = self.run_program("http_client", "-i", self.url(server, "/kongxx"))
        self.assertTrue(out.startswith(b"HTTP/1.0 200 OK\r\nContent-type: text/html\r\n\r\n<html>"), out)
        self.end(server)

    def test_their_client_at_our_server(self):
        server = self.serve("hello_http", "-p", 0)
        host, port = server.address
        code, out, err = self.finish(self.original("http_client.py", host, port, "/kongxx"))
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.startswith(b"HTTP/1.1 200 OK\r\n"), out)
        self.assertIn(b"Hello kongxx!", out)
        code, out, err = self.finish(self.original("http_client.py", host, port, "/%zz"))
        self.assertTrue(out.startswith(b"HTTP/1.1 400 Bad Request\r\n"), out)
        self.end(server)

    def finish(self, program):
        out = b""
        while True:
            line = program.read_line()
            if not line:
                return program.wait(), out, program.errors()
            out += line.encode()

    # -- The echo servers --

    def test_echo_servers_give_the_same(self):
        theirs = self.original_server("echo_server.py", 0)
        ours = self.serve("echo_server", "-p", 0)
        self.compare_echoes(theirs, ours)
        self.end(theirs)
        self.end(ours)

    def test_logging_echo_servers_give_the_same(self):
        theirs = self.original_server("echo_server_logging.py", 0)
        ours = self.serve("echo_server_logging", "-p", 0)
        self.compare_echoes(theirs, ours)
        for program in (theirs, ours):  # both name the client when it comes and when it goes
            with connect(program.address) as s:
                s.sendall(b"x")
                self.assertEqual(receive(s, 1), b"x")
                who = "%s:%d" % s.getsockname()
            for event in ("conn_made", "conn_closed"):
                poll_until(lambda: any(event in line and who in line for line in program.errors().splitlines()),
                           "%s of %s" % (event, who))
            self.end(program)

    def compare_echoes(self, theirs, ours):
        for size in (1, 1000, 8192, 100000, 1 << 20):
            data = pattern(size, size)
            self.assertTrue(self.exchange(theirs.address, data) == self.exchange(ours.address, data) == data, size)

    # -- The forwarders: theirs closes both ends at the first end of stream --

    def test_their_forwarder_before_our_echo_server(self):
        server = self.serve("echo_server", "-p", 0)
        host, port = server.address
        forwarder = self.original_server("forwarder.py", "-p", 0, "-r", host, "-P", port)
        before = server.fds()
        data = pattern(300000)
        self.assertTrue(self.exchange(forwarder.address, data) == data)
        self.assert_fds_return(server, before)
        self.end(forwarder)
        self.end(server)

    def test_their_forwarder_before_our_http_server(self):
        server = self.serve("hello_http", "-p", 0)
        host, port = server.address
        forwarder = self.original_server("forwarder.py", "-p", 0, "-r", host, "-P", port)
        with connect(forwarder.address) as s:  # kept alive: the end of the stream might overtake the answer in it
            for name in (b"kongxx", b"again"):
                s.sendall(b"GET /%s HTTP/1.1\r\n\r\n" % name)
                answer = b""
                while b"</html>" not in answer:
                    answer += s.recv(65536) or self.fail("the end after %r" % answer)
                self.assertIn(b"Hello %s!" % name, answer)
        self.end(forwarder)
        self.end(server)

    def portforward(self, server):
        if not os.path.exists(binary("portforward")):
            self.skipTest("portforward is not built")
        host, port = server.address
        return self.serve("portforward", "-l", "127.0.0.1", "-p", 0, "-r", host, "-P", port)

    def test_our_forwarder_before_their_echo_servers(self):
        for name in ("echo_server.py", "echo_server_logging.py"):
            server = self.original_server(name, 0)
            forwarder = self.portforward(server)
            data = pattern(1 << 20)
            self.assertTrue(self.exchange(forwarder.address, data) == data)
            self.end(forwarder)
            self.end(server)

    def test_our_forwarder_before_their_http_server(self):
        server = self.original_server("hello_http.py", 0)
        forwarder = self.portforward(server)
        code, out, err = self.run_program("http_client", self.url(forwarder, "/kongxx"))
        self.assertEqual((code, err), (0, ""))
        self.assertIn(b"Hello kongxx!", out)
        self.end(forwarder)
        self.end(server)

    def test_our_forwarder_between_their_client_and_our_server(self):
        server = self.serve("hello_http", "-p", 0)
        forwarder = self.portforward(server)
        host, port = forwarder.address
        code, out, err = self.finish(self.original("http_client.py", host, port, "/kongxx"))
        self.assertEqual((code, err), (0, ""))
        self.assertIn(b"Hello kongxx!", out)
        self.end(forwarder)
        self.end(server)


def load_tests(loader, tests, pattern):
    """The whole class once for each Python."""
    suite = unittest.TestSuite()
    for python in find_pythons():
        version = os.path.basename(python).replace(".", "_")
        suite.addTests(loader.loadTestsFromTestCase(type("Interop_" + version, (Interop,), {"python": python})))
    return suite


def reason_to_skip():
    if not os.path.isdir(ORIGINALS):
        return "../shared/programs is not here"
    if not find_pythons():
        return "no Python with asyncore (2.7, or 3.6 to 3.11) is here"
    return None


if __name__ == "__main__":
    reason = reason_to_skip()
    if reason:
        print("test_interop: skipped: " + reason)
        sys.exit(77)
    unittest.main()
