"""The programs of docs/python: each is run as its page prints it, and used as its reader would use it.

A program is what stands in a block of Python on a page. In the place of the page's ports it gets some that were free a
moment ago; if one of them was taken since, it is started again with others.
"""
import asyncore
import functools
import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import ssl
except ImportError:
    ssl = None

from support import DEADLINE, ROOT, until

PAGES = os.path.join(ROOT, "docs", "python")
PORTS = ("8007", "8008", "8025", "8080", "8443")


def programs():
    """{(page, heading, number): text} of all pages."""
    found = {}
    for name in sorted(name for name in os.listdir(PAGES) if name.endswith(".md")):
        with open(os.path.join(PAGES, name)) as file:
            text = file.read()
        heading = number = None
        for match in re.finditer(r"^#+ ([^\n]*)$|^( *)```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            if match.group(1):
                heading, number = match.group(1), 0
            else:
                number += 1
                found[name[:-3], heading, number] = match.group(3)
    return found


RUN = set()


def of(page, heading, number=1):
    """Gives the test the program that stands there."""
    key = page, heading, number
    RUN.add(key)

    def decorate(test):
        @functools.wraps(test)
        def method(self):
            test(self, programs()[key])

        return method

    return decorate


def free_port():
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return sock.getsockname()[1]


def receive(sock, end):
    """What comes until it ends so; all of it if `end` is None."""
    data = b""
    while end is None or not data.endswith(end):
        more = sock.recv(65536)
        if not more:
            break
        data += more
    return data


class Pages(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="asyncore-test-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    # -- Starting programs

    def spawn(self, words):
        process = subprocess.Popen([sys.executable, "-u"] + words, cwd=self.folder, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(self.stop, process)
        return process

    def stop(self, process):
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()

    def output(self, program, status=0, **ports):
        """Runs a program to its end. ports: p8080=PORT."""
        for name, port in ports.items():
            program = program.replace(name[1:], str(port))
        process = self.spawn(["-c", program])
        output = process.communicate(timeout=DEADLINE)[0].decode()
        self.assertEqual(process.returncode, status, output)
        return output

    def listens(self, process, port):
        """Waits for that; False if it ended."""

        def known():
            try:
                socket.create_connection(("localhost", port)).close()
                return True
            except OSError:
                return process.poll() is not None

        until(known, lambda: time.sleep(0.01))
        return process.poll() is None

    def serve(self, program):
        """Starts a server: (process, its ports in the order of PORTS)."""
        for _ in range(5):
            ports = {port: free_port() for port in PORTS if port in program}
            text = re.sub("|".join(ports), lambda match: str(ports[match.group()]), program)
            process = self.spawn(["-c", text])
            if all(self.listens(process, port) for port in ports.values()):
                return [process] + list(ports.values())
            print(process.communicate()[0].decode())
        raise AssertionError("it does not listen")

    def connect(self, port):
        sock = socket.create_connection(("localhost", port), timeout=DEADLINE)
        self.addCleanup(sock.close)
        return sock

    def echo(self, sock):
        data = os.urandom(100000)
        for at in range(0, len(data), 10000):
            piece = data[at:at + 10000]
            sock.sendall(piece)
            received = b""
            while len(received) < len(piece):
                more = sock.recv(65536)
                self.assertTrue(more)
                received += more
            self.assertEqual(received, piece)

    # -- asyncore

    @of("asyncore", "asyncore")
    def test_echo(self, program):
        self.echo(self.connect(self.serve(program)[1]))

    @of("asyncore", "dispatcher")
    def test_client(self, program):
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            port = listener.getsockname()[1]
            self.assertIn("failed: ", self.output(program, p8080=port))
            listener.listen(1)
            listener.settimeout(DEADLINE)
            process = self.spawn(["-c", program.replace("8080", str(port))])
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(DEADLINE)
                self.assertEqual(receive(conn, b"\r\n\r\n"), b"GET / HTTP/1.0\r\n\r\n")
                conn.sendall(b"HTTP/1.0 200 OK\r\n\r\nbody")
            self.assertEqual(process.communicate(timeout=DEADLINE)[0], b"HTTP/1.0 200 OK\r\n\r\nbody")
            self.assertEqual(process.returncode, 0)

    @of("asyncore", "Timers")
    def test_timers(self, program):
        self.assertIn(self.output(program), ("tick\ndone\n", "tick\ntick\ndone\n"))

    @of("asyncore", "Idle timeouts")
    def test_idle_timeout(self, program):
        port = self.serve(program)[1]
        begin = time.monotonic()
        sock = self.connect(port)
        self.echo(sock)
        self.assertEqual(receive(sock, None), b"are you asleep?\n")
        self.assertGreater(time.monotonic() - begin, 0.49)

    @of("asyncore", "Engines")
    def test_engines(self, program):
        name = "python" if asyncore._extension is None else "poll"
        self.assertEqual(self.output(program), "served by %s\n" % name)

    @of("asyncore", "Threads")
    def test_threads(self, program):
        self.assertEqual(self.output(program), "the sum is 4999950000\n")

    def tls_server(self, program):
        if ssl is None or shutil.which("openssl") is None:
            self.skipTest("no ssl in this Python, or no openssl to make a certificate with")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out",
                        "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                       check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.serve(program)[1]

    @of("asyncore", "TLS")
    def test_tls_server(self, program):
        port = self.tls_server(program)
        context = ssl.create_default_context(cafile=os.path.join(self.folder, "cert.pem"))
        with context.wrap_socket(self.connect(port), server_hostname="localhost") as sock:
            self.echo(sock)

    @of("asyncore", "TLS", 2)
    def test_tls_client(self, program):
        port = self.tls_server(programs()["asyncore", "TLS", 1])
        self.assertRegex(self.output(program, p8443=port), "^hello over TLSv1.[0-9]\n$")

    @of("asyncore", "asyncio")
    def test_asyncio(self, program):
        lines = self.output(program).splitlines()
        self.assertEqual(sorted(lines), ["a task of asyncio's", "a timer of asyncore's"])

    # -- asynchat

    @of("asynchat", "asynchat")
    def test_lines(self, program):
        sock = self.connect(self.serve(program)[1])
        sock.sendall(b"hello\r\nqu")
        self.assertEqual(receive(sock, b"\n"), b"HELLO\r\n")
        sock.sendall(b"it\r\n")
        self.assertEqual(receive(sock, None), b"QUIT\r\n")

    @of("asynchat", "Input")
    def test_records(self, program):
        self.assertEqual(self.output(program), "b'hello'\nb', world'\n")

    @of("asynchat", "Output")
    def test_file(self, program):
        data = os.urandom(300000)
        with open(os.path.join(self.folder, "data"), "wb") as file:
            file.write(data)
        self.assertEqual(receive(self.connect(self.serve(program)[1]), None), data)

    @of("asynchat", "Marks")
    def test_marks(self, program):
        sock = self.connect(self.serve(program)[1])
        self.echo(sock)
        # A client that does not read is stopped: of endless data only so much is taken, though the peer lives.
        sock.settimeout(1)
        sent = 0
        with self.assertRaises(socket.timeout):
            while sent < 100 << 20:
                sent += sock.send(bytes(65536))
        self.assertGreater(sent, 262144)

    # -- smtpd

    def mail(self, port, text=b"Subject: hello\r\n\r\ntext\r\n"):
        with smtplib.SMTP("localhost", port, timeout=DEADLINE) as client:
            return client.sendmail("a@b", ["c@d"], text)

    @of("smtpd", "smtpd")
    def test_mail(self, program):
        process, port = self.serve(program)
        self.assertEqual(self.mail(port), {})
        with self.assertRaises(smtplib.SMTPDataError) as caught:
            self.mail(port, b"Subject: x\r\n\r\n" + b"y" * 900 + b"\r\n" + b"z" * 900)
        self.assertEqual(caught.exception.smtp_code, 452)
        process.kill()
        self.assertIn(b"a@b ['c@d'] 20\n", process.communicate()[0])

    @of("smtpd", "smtpd", 2)
    def test_mail_commands(self, program):
        port = self.serve(program)[1]
        client = smtplib.SMTP("localhost", port, timeout=DEADLINE)
        self.addCleanup(client.close)
        self.assertEqual(client.docmd("PING"), (250, b"pong"))
        self.assertEqual(client.docmd("PING", "x"), (250, b"pong x"))
        self.assertEqual(client.getreply()[0], 421)

    def test_the_servers_of_the_command_line(self):
        for words in (["-m", "smtpd"], ["-m", "libasyncore", "-m", "smtpd"]):
            for _ in range(5):
                port = free_port()
                process = self.spawn(words + ["-n", "-c", "DebuggingServer", "--timeout", "0.5", "localhost:%d" % port])
                if self.listens(process, port):
                    break
            self.assertEqual(self.mail(port), {})
            with smtplib.SMTP("localhost", port, timeout=DEADLINE) as client:
                self.assertEqual(client.getreply()[0], 421)
            process.kill()
            self.assertIn(b"b'Subject: hello'\n", process.communicate()[0])

    # -- Moving

    @of("migration", "From the modules that Python had")
    def test_install(self, program):
        self.assertRegex(self.output(program), r"^libasyncore \d+\.\d+\.\d+\n$")

    def members(self, program):
        """What is the same in every step on the way to asyncio."""
        _, port, *status = self.serve(program)
        first, second = self.connect(port), None
        first.sendall(b"alone\n")
        self.assertEqual(receive(first, b"\n"), b"alone\n")
        second = self.connect(port)
        second.sendall(b"tw")
        second.sendall(b"o\nmore\n")
        self.assertEqual(receive(second, b"more\n"), b"two\nmore\n")
        self.assertEqual(receive(first, b"more\n"), b"two\nmore\n")
        for port in status:
            self.assertEqual(receive(self.connect(port), None), b"2 members\n")
        second.close()
        for port in status:
            until(lambda: receive(self.connect(port), None) == b"1 members\n", lambda: None, "a member stays")
        first.sendall(b"alone\n")
        self.assertEqual(receive(first, b"\n"), b"alone\n")

    @of("migration", "Towards asyncio")
    def test_the_program_that_moves(self, program):
        self.members(program)

    @of("migration", "1. asyncio runs the loop")
    def test_step_1(self, program):
        self.members(program)

    @of("migration", "2. New parts are asyncio's")
    def test_step_2(self, program):
        self.members(program)

    @of("migration", "3. One class at a time")
    def test_step_3(self, program):
        self.members(program)

    @of("migration", "4. The last one")
    def test_step_4(self, program):
        self.members(program)

    def test_every_program_is_run(self):
        self.assertEqual(set(programs()), RUN)


class Links(unittest.TestCase):
    """What pages link to is there: files, and headings in them."""

    def anchors(self, path):
        with open(path) as file:
            headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", file.read(), flags=re.DOTALL), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def test_links(self):
        for name in sorted(os.listdir(PAGES)):
            if not name.endswith(".md"):
                continue
            with open(os.path.join(PAGES, name)) as file:
                text = file.read()
            for target in re.findall(r"\]\(([^)]*)\)", text):
                path, _, anchor = target.partition("#")
                path = os.path.join(PAGES, path or name)
                self.assertTrue(os.path.exists(path), (name, target))
                if anchor:
                    self.assertIn(anchor, self.anchors(path), (name, target))


if __name__ == "__main__":
    unittest.main()
