"""The tutorials' programs, unchanged."""
import os
import signal
import socket
import subprocess
import sys
import time
import unittest

from support import DEADLINE, ROOT, until

PROGRAMS = os.path.join(os.path.dirname(ROOT), "shared", "programs")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@unittest.skipUnless(os.path.isdir(PROGRAMS), "../shared/programs is not beside the project")
class Programs(unittest.TestCase):
    """The programs that people learned asyncore from."""

    def start(self, name, *args):
        process = subprocess.Popen([sys.executable, "-u", "-m", "libasyncore", os.path.join(PROGRAMS, name)] +
                                   [str(arg) for arg in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        self.addCleanup(self.stop, process)
        return process

    def stop(self, process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def server(self, name):
        """Starts a server on a port that was free a moment ago. (process, port)."""
        for _ in range(5):
            port = free_port()
            process = self.start(name, port)
            if self.answers(process, port):
                return process, port
        raise AssertionError("%s does not listen" % name)

    def answers(self, process, port):
        def listens():
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return True
            except ConnectionRefusedError:
                return process.poll() is not None

        until(listens, lambda: time.sleep(0.01))
        return process.poll() is None

    def echo(self, port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(DEADLINE)
            data = os.urandom(200000)
            received = b""
            for at in range(0, len(data), 20000):
                sock.sendall(data[at:at + 20000])
                while len(received) < at + 20000:
                    received += sock.recv(65536)
            self.assertEqual(received, data)

    def test_echo_server(self):
        self.echo(self.server("echo_server.py")[1])

    def test_echo_server_logging(self):
        process, port = self.server("echo_server_logging.py")
        self.echo(port)
        process.send_signal(signal.SIGINT)
        self.assertIn(b"conn_made: client_address=127.0.0.1", process.communicate(timeout=DEADLINE)[0])

    def test_hello_http_and_http_client(self):
        _, port = self.server("hello_http.py")
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(DEADLINE)
            sock.sendall(b"GET /kongxx HTTP/1.0\r\nHost: x\r\n\r\n")
            answer = b""
            while True:
                data = sock.recv(65536)
                if not data:
                    break
                answer += data
        self.assertIn(b"<body>\r\nHello kongxx! \r\n</body>", answer)

    def test_http_client_ends_by_itself(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            listener.settimeout(DEADLINE)
            client = self.start("http_client.py", "127.0.0.1", listener.getsockname()[1], "/x")
            conn, _ = listener.accept()
            conn.settimeout(DEADLINE)
            request = b""
            while b"\r\n\r\n" not in request:
                request += conn.recv(1000)
            conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"a" * 50000)
            conn.close()
        self.assertEqual(client.communicate(timeout=DEADLINE)[0], b"HTTP/1.0 200 OK\r\n\r\n" + b"a" * 50000)
        self.assertEqual((client.returncode, request), (0, b"GET /x HTTP/1.0\r\n\r\n"))

    def test_forwarder(self):
        _, target = self.server("echo_server.py")
        port = free_port()
        process = self.start("forwarder.py", "-l", "127.0.0.1", "-p", port, "-r", "127.0.0.1", "-P", target)
        self.assertTrue(self.answers(process, port))
        self.echo(port)


if __name__ == "__main__":
    unittest.main()
