"""The README's echo server, compiled as it is printed and talked to."""
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIB = os.path.join(os.path.dirname(os.environ["BIN"]), "lib")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connect(port, server):
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Readme(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        with open(os.path.join(ROOT, "README.md")) as file:
            (code,) = re.findall(r"```c\n(.*?)```", file.read(), re.S)
        source = os.path.join(self.directory, "echo.c")
        with open(source, "w") as file:
            file.write(code)
        self.program = os.path.join(self.directory, "echo")
        flags = ["-fsanitize=" + os.environ["SANITIZE"]] if os.environ.get("SANITIZE") else []  # as the library
        subprocess.run(
            [os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Werror", "-I" + os.path.join(ROOT, "include"), source,
             "-o", self.program, "-L" + LIB, "-lasyncore", "-Wl,-rpath," + LIB] + flags,
            check=True)

    def test_the_printed_server_echoes(self):
        port = free_port()
        server = subprocess.Popen([self.program, str(port)])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        with connect(port, server) as client:
            client.sendall(b"x" * 300000)
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: client.recv(65536), b""))
        self.assertEqual(received, b"x" * 300000)

    def test_an_address_in_use_is_one_line_and_exit_1(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            result = subprocess.run([self.program, str(taken.getsockname()[1])], stderr=subprocess.PIPE, text=True)
        self.assertEqual((result.returncode, result.stderr), (1, "echo: Address already in use\n"))


if __name__ == "__main__":
    unittest.main()
