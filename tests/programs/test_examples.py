"""The programs of examples/, tried with what users and peers do to them."""
import os
import re
import resource
import select
import signal
import socket
import sys
import threading
import time
import unittest

from support import (DEADLINE, WRAPPER, ProgramTest, binary, connect, free_port, has_ipv6, pattern, poll_until,
                     receive, receive_all, reset, sanitized)

ECHO_SERVERS = ("echo_server", "echo_server_logging")
SERVERS = ECHO_SERVERS + ("hello_http",)
PROGRAMS = SERVERS + ("http_client",)
MEGABYTE = 1 << 20


class CommandLine(ProgramTest):
    def test_help(self):
        for name in PROGRAMS:
            for option in ("--help", "-h"):
                code, out, err = self.run_program(name, option)
                self.assertEqual((code, err), (0, ""))
                self.assertTrue(out.startswith(b"usage: " + name.encode() + b" "), out)
                self.assertIn(b"--help", out)

    def test_help_names_every_option(self):
        for name in SERVERS:
            out = self.run_program(name, "--help")[1].decode()
            for word in ("--address", "-l", "--port", "-p", "127.0.0.1", "8008" if name == "hello_http" else "8007"):
                self.assertIn(word, out, name)

    def test_help_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            program = self.start("echo_server", "--help", stdout=full)
            self.assertEqual(program.wait(), 1)
        self.assert_one_line(program.errors(), "echo_server: standard output", "No space left")

    def test_unknown_options(self):
        for name in PROGRAMS:
            for args, named in ((["-x"], "-x"), (["--nonsense"], "--nonsense"), (["--help=yes"], "--help=yes"),
                                (["--nonsense=5"], "--nonsense=5"), (["-hx"], None)):
                with self.subTest(name=name, args=args):
                    if named:
                        self.assert_fails(self.run_program(name, *args), 2, name + ": ", named)
                    else:
                        self.assertEqual(self.run_program(name, *args)[0], 0)

    def test_letters_in_one_argument(self):
        self.assert_fails(self.run_program("http_client", "-ix", "http://127.0.0.1/"), 2, "unknown option: -x")
        self.assert_fails(self.run_program("http_client", "-xi", "http://127.0.0.1/"), 2, "unknown option: -x")

    def test_missing_values(self):
        for name in SERVERS:
            for option in ("-p", "--port", "-l", "--address"):
                with self.subTest(name=name, option=option):
                    self.assert_fails(self.run_program(name, option), 2, name + ": ", "value: " + option)

    def test_unexpected_arguments(self):
        for name in SERVERS:
            for args in (["stray"], ["-p", "0", "stray"], ["--", "stray"], ["stray", "-p", "0"]):
                with self.subTest(name=name, args=args):
                    self.assert_fails(self.run_program(name, *args), 2, name + ": ", "stray")
        self.assert_fails(self.run_program("http_client", "http://127.0.0.1:1/", "stray"), 2, "http_client: ", "stray")
        self.assert_fails(self.run_program("http_client"), 2, "http_client: ", "URL")

    def test_ports_that_are_none(self):
        for name in SERVERS:
            for port in (
                    "65536", "-1", "+1", "", "abc", "80x", " 80", "0x50", "99999999999999999999999", "8.5",
                    "http"):
                with self.subTest(name=name, port=port):
                    self.assert_fails(self.run_program(name, "-p", port), 2, name + ": ", "port", ": %s\n" % port)

    def test_listening_line(self):
        for name in SERVERS:
            program = self.start(name, "-p", "0")
            found = re.fullmatch(name + r": listening on 127\.0\.0\.1:([1-9][0-9]*)\n", program.read_line())
            self.connect(("127.0.0.1", int(found.group(1))))
            self.assertEqual(program.stop(), 0)
            self.assertEqual(program.read_line(), "", "one line, and no more")

    def test_address_and_port_are_used(self):
        for name in SERVERS:
            for attempt in range(20):  # a port that is free now may not be in a moment
                port = free_port("127.0.0.2")
                program = self.start(name, "--address", "127.0.0.2", "--port=%d" % port)
                if program.read_line():
                    break
            connect(("127.0.0.2", port)).close()
            self.assertEqual(program.stop(), 0)

    def test_any_address(self):
        for address in ("", "*", "0.0.0.0"):
            program = self.serve("echo_server", "-l", address, "-p", "0")
            self.assertEqual(program.address[0], "0.0.0.0")
            s = self.connect(("127.0.0.3", program.address[1]))
            s.sendall(b"any")
            self.assertEqual(receive(s, 3), b"any")
            self.assert_stops(program)

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_ipv6(self):
        for name in SERVERS:
            program = self.serve(name, "-l", "::1", "-p", "0")
            self.assertEqual(program.address[0], "::1")
            self.connect(program)
            self.assertEqual(program.stop(), 0)

    def test_unix_sockets(self):
        for name in SERVERS:
            path = os.path.join(self.cwd, name)
            program = self.start(name, "-l", "unix:" + path, "-p", "0")
            self.assertEqual(program.read_line(), "%s: listening on unix:%s\n" % (name, path))
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(path)
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                self.assertTrue(client.recv(1))
            self.assertEqual(program.stop(), 0)  # and that the socket is gone is seen at the end of the test
            code, _, err = self.run_program(name, "-l", "unix:/nonexistent/socket")
            self.assertEqual(code, 1)
            self.assertIn("/nonexistent/socket", err)

    def test_address_in_use(self):
        for name in SERVERS:
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen(1)
                port = taken.getsockname()[1]
                code, out, err = self.run_program(name, "-p", port)
            self.assertEqual((code, out), (1, b""))
            self.assert_one_line(err.splitlines(True)[-1], name + ": ", "127.0.0.1", str(port), "in use")
            if name != "echo_server_logging":
                self.assert_one_line(err)

    def test_address_of_another_machine(self):
        for name in SERVERS:  # 192.0.2.0/24 is for documents: nobody has it
            result = self.run_program(name, "-l", "192.0.2.1", "-p", "0")
            self.assert_fails(result, 1, name + ": ", "192.0.2.1", "assign")

    def test_address_that_is_none(self):
        for name in SERVERS:
            for address in ("nosuch.invalid", "127.0.0.256", "1.2.3", "::g", "127.0.0.1:80"):
                with self.subTest(name=name, address=address):
                    self.assert_fails(self.run_program(name, "-l", address, "-p", "0"), 1, name + ": ", address)

    def test_port_is_usable_again_at_once(self):
        program = self.serve("echo_server", "-p", "0")
        client = self.connect(program)
        client.sendall(b"x")
        self.assertEqual(receive(client, 1), b"x")
        self.assert_stops(program)  # the server closes first: its side is in TIME_WAIT
        again = self.serve("echo_server", "-p", program.address[1])
        self.assertEqual(again.address, program.address)
        self.assert_stops(again)


class Signals(ProgramTest):
    def test_idle_servers(self):
        for name in SERVERS:
            for number in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(name=name, number=number):
                    program = self.serve(name, "-p", "0")
                    self.assert_stops(program, number, errors=None if "logging" in name else "")

    def test_open_connections_see_the_end(self):
        for name in SERVERS:
            program = self.serve(name, "-p", "0")
            clients = [self.connect(program) for _ in range(20)]
            for client in clients[:10]:
                client.sendall(b"G")
            self.assertEqual(program.stop(), 0)
            for client in clients:
                try:
                    self.assertIn(receive_all(client), (b"", b"G"))
                except ConnectionResetError:
                    pass

    def test_connection_with_queued_output(self):
        program = self.serve("echo_server", "-p", "0")
        client = self.connect(program, receive_buffer=4096)
        fill(client)
        self.assert_stops(program)

    def test_many_signals(self):
        program = self.serve("hello_http", "-p", "0")
        for _ in range(5):
            program.process.send_signal(signal.SIGINT)
            program.process.send_signal(signal.SIGTERM)
        self.assertEqual(program.wait(), 0)

    def test_others_are_served_while_one_stalls(self):
        program = self.serve("echo_server", "-p", "0")
        fill(self.connect(program, receive_buffer=4096))
        client = self.connect(program)
        client.sendall(b"still here")
        self.assertEqual(receive(client, 10), b"still here")
        self.assert_no_spin(program)
        self.assert_stops(program)


class Limits(ProgramTest):
    """More clients than there are descriptors for."""

    def ask(self, client):
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        self.assertTrue(client.recv(1))

    def test_listener_rests_without_descriptors(self):
        for name in SERVERS:
            with self.subTest(name=name):
                limit = 40 if WRAPPER else 20  # valgrind takes some
                program = self.serve(
                    name, "-p", "0", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
                before = program.fds()
                clients = [connect(program.address) for _ in range(60)]
                self.ask(clients[0])
                self.assert_no_spin(program)
                for client in clients[:-1]:
                    client.close()
                self.ask(clients[-1])
                clients[-1].close()
                self.assert_fds_return(program, before)
                self.assertEqual(program.stop(), 0)

    @unittest.skipIf(WRAPPER, "valgrind has a limit of its own")
    def test_select_serves_as_many_as_it_can(self):
        count = 1100  # select has room for 1024
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 2 * count:
            self.skipTest("the limit of descriptors is %d" % hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for name in SERVERS:
            with self.subTest(name=name):
                program = self.serve(name, "-p", "0", env={"ASYNCORE_ENGINE": "select"})
                before = program.fds()
                clients = [connect(program.address) for _ in range(count)]
                self.ask(clients[0])
                for client in clients[1024:]:  # beyond, where none can be served: closed, and told
                    self.assertEqual(receive_all(client), b"")
                self.assertIn("cannot serve ", program.errors())
                for client in clients:
                    client.close()
                self.assert_fds_return(program, before)
                self.ask(self.connect(program))
                self.assertEqual(program.stop(), 0)


class StandardOutput(ProgramTest):
    def test_closed(self):
        for name in SERVERS:
            code, _, err = self.run_program(name, "-p", "0", preexec_fn=lambda: os.close(1))
            self.assertEqual(code, 1)
            self.assert_one_line(err.splitlines(True)[-1], name + ": standard output", "Bad file descriptor")

    def test_full(self):
        for name in SERVERS:
            with open("/dev/full", "w") as full:
                program = self.start(name, "-p", "0", stdout=full)
                self.assertEqual(program.wait(), 1)
            self.assert_one_line(program.errors().splitlines(True)[-1], name + ": standard output", "No space left")

    def test_reader_goes_after_the_first_line(self):
        for name in SERVERS:
            program = self.serve(name, "-p", "0")
            program.process.stdout.close()
            client = self.connect(program)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.assertTrue(client.recv(1))
            self.assertEqual(program.stop(), 0)

    def test_all_standard_descriptors_closed(self):
        # The first sockets must not become stdin, stdout and stderr.
        def close_all():
            for fd in (0, 1, 2):
                os.close(fd)

        code, out, err = self.run_program("echo_server", "-p", "0", preexec_fn=close_all)
        self.assertEqual((code, out, err), (1, b"", ""))


def fill(client):
    """Sends without reading until the server takes no more for a while; how much that was."""
    client.setblocking(False)
    sent = 0
    while select.select([], [client], [], 1)[1]:
        try:
            sent += client.send(bytes(65536))
        except BlockingIOError:
            pass
    client.settimeout(DEADLINE)
    return sent


class Echo:
    """What both echo servers must do."""

    name = None

    def setUp(self):
        super().setUp()
        self.program = self.serve(self.name, "-p", "0")

    def echo(self, client, data):
        client.sendall(data)
        self.assertEqual(receive(client, len(data)), data)

    def test_one_byte_at_a_time(self):
        client = self.connect(self.program)
        for i in range(256):
            self.echo(client, bytes([i]))

    def test_every_size(self):
        client = self.connect(self.program)
        for size in (1, 2, 1023, 1024, 1025, 8191, 8192, 8193, 65535, 65536, 65537, 200000):
            data = pattern(size, size)
            join = self.in_thread(client.sendall, data)
            self.assertEqual(receive(client, size), data)
            join()

    def test_reader_slower_than_the_writer(self):
        data = pattern(8 * MEGABYTE)
        client = self.connect(self.program, receive_buffer=8192)
        join = self.in_thread(client.sendall, data)
        back = bytearray()
        while len(back) < len(data):
            if len(back) < 100000:
                time.sleep(0.005)  # lets the queue fill; afterwards as fast as it comes
            piece = client.recv(1000 if len(back) < 100000 else 30000)
            self.assertTrue(piece, "the end after %d bytes" % len(back))
            back += piece
        join()
        self.assertTrue(bytes(back) == data)

    def test_client_that_never_reads_is_no_longer_read(self):
        before = self.program.memory("VmRSS")
        clients = [self.connect(self.program, receive_buffer=4096) for _ in range(4)]
        for client in clients:
            self.assertLess(fill(client), 64 * MEGABYTE)
        if not sanitized(self.name):
            self.assertLess(self.program.memory() - before, 8 * MEGABYTE)
        self.assert_no_spin(self.program)
        for client in clients:
            reset(client)
        self.echo(self.connect(self.program), b"alive")

    def test_half_closed_client_gets_all_of_it(self):
        data = pattern(2 * MEGABYTE)
        client = self.connect(self.program, receive_buffer=8192)

        def write():
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        join = self.in_thread(write)
        self.assertTrue(receive_all(client) == data)
        join()

    def test_half_closed_client_that_reads_only_afterwards(self):
        # The end of the stream comes while the kernel takes no more from the server, which still holds bytes.
        client = self.connect(self.program, receive_buffer=4096)
        sent = fill(client)
        client.shutdown(socket.SHUT_WR)
        self.assert_no_spin(self.program)
        self.assertEqual(len(receive_all(client)), sent)

    def test_end_without_a_byte(self):
        client = self.connect(self.program)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_all(client), b"")

    def test_send_and_close_at_once(self):
        before = self.program.fds()
        for _ in range(50):
            client = connect(self.program.address)
            client.sendall(b"gone")
            client.close()
        self.echo(self.connect(self.program), b"alive")
        self.assert_fds_return(self.program, before + 1)

    def test_hundred_clients_at_once(self):
        clients = [self.connect(self.program) for _ in range(100)]
        for turn in range(3):
            messages = [pattern(700 + i, i + 1000 * turn + 1) for i in range(100)]
            for client, message in zip(clients, messages):
                client.sendall(message)
            for client, message in zip(reversed(clients), reversed(messages)):
                self.assertEqual(receive(client, len(message)), message)

    def test_resets(self):
        before = self.program.fds()
        for i in range(50):
            client = connect(self.program.address)
            if i % 2:
                client.sendall(pattern(5000))
            reset(client)
        self.echo(self.connect(self.program), b"alive")
        self.assert_fds_return(self.program, before + 1)

    def test_descriptors_after_two_hundred_connections(self):
        before = self.program.fds()
        for i in range(200):
            client = connect(self.program.address)
            if i % 3:
                self.echo(client, b"x" * i)
            client.close()
        self.assert_fds_return(self.program, before)
        self.assert_stops(self.program, errors=None)

    def test_idle_clients_cost_no_cpu(self):
        for _ in range(50):
            self.echo(self.connect(self.program), b"x")
        self.assert_no_spin(self.program)

    def test_urgent_data(self):
        client = self.connect(self.program)
        self.echo(client, b"before")
        client.send(b"!", socket.MSG_OOB)
        self.echo(client, b"after")
        self.assert_no_spin(self.program)


class EchoServer(Echo, ProgramTest):
    name = "echo_server"

    def test_says_nothing(self):
        client = self.connect(self.program)
        self.echo(client, b"x")
        reset(client)
        self.echo(self.connect(self.program), b"y")
        self.assert_stops(self.program, errors="")


class EchoServerLogging(Echo, ProgramTest):
    name = "echo_server_logging"

    def wait_for(self, text, program=None):
        program = program or self.program
        poll_until(lambda: text in program.errors(), "%r in the log, which is %r" % (text, program.errors()))

    def test_a_line_per_event(self):
        client = self.connect(self.program)
        who = "%s:%d" % client.getsockname()
        self.echo(client, b"12345")
        client.close()
        self.wait_for("conn_closed: " + who)
        self.assert_stops(self.program, errors=None)
        events = re.findall(r"^info: (\w+): (.*)$", self.program.errors(), re.M)
        self.assertEqual(events, [
            ("bind", "address=127.0.0.1 port=0"), ("listen", "backlog=128"), ("conn_made", who),
            ("handle_read", who + ": 5 bytes"), ("handle_write", who + ": 5 bytes, 0 left"),
            ("handle_close", who + ": end of stream"), ("conn_closed", who)])

    def test_a_reset_is_told(self):
        client = self.connect(self.program)
        who = "%s:%d" % client.getsockname()
        self.echo(client, b"x")
        reset(client)
        self.wait_for("handle_close: %s: Connection reset by peer" % who)
        self.wait_for("conn_closed: " + who)

    def test_denied_address(self):
        program = self.serve(self.name, "-p", "0", "-d", "127.0.0.2", "--deny=127.0.0.4", "-d", "::1")
        before = program.fds()
        for source in ("127.0.0.2", "127.0.0.4"):
            client = self.connect(program, source=source)
            self.assertEqual(receive_all(client), b"")
            self.wait_for("info: denied: %s:%d\n" % client.getsockname(), program)
        self.assert_fds_return(program, before)
        for source in ("127.0.0.1", "127.0.0.3"):
            self.echo(self.connect(program, source=source), b"welcome")
        self.assertEqual(program.stop(), 0)

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_denied_address_at_a_listener_for_both_families(self):
        program = self.serve(self.name, "-l", "::", "-p", "0", "-d", "127.0.0.2", "-d", "::1")
        port = program.address[1]
        self.assertEqual(receive_all(self.connect(("127.0.0.1", port), source="127.0.0.2")), b"")
        self.assertEqual(receive_all(self.connect(("::1", port))), b"")
        self.echo(self.connect(("127.0.0.1", port)), b"welcome")

    def test_addresses_that_cannot_be_denied(self):
        for text in ("", "nonsense", "127.0.0.300", "unix:/tmp/x", "127.0.0.1:80"):
            self.assert_fails(self.run_program(self.name, "-d", text), 2, "deny: " + text)
        self.assert_fails(self.run_program(self.name, *["-d127.0.0.1"] * 65), 2, "too many")
        self.assert_fails(self.run_program(self.name, "-d"), 2, "value: -d")


class Hello(ProgramTest):
    """The protocol, byte by byte, against hello_http."""

    def setUp(self):
        super().setUp()
        self.program = self.serve("hello_http", "-p", "0")

    def send(self, data, half_close=False):
        client = self.connect(self.program)
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return client

    def answer(self, client, head_only=False):
        """(status code, headers with lower-case names, body) of the next answer."""
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            byte = client.recv(1)
            if not byte:
                raise AssertionError("the end within the head %r" % bytes(head))
            head += byte
        lines = head.decode().split("\r\n")[:-2]
        self.assertRegex(lines[0], r"\AHTTP/1\.1 [1-5][0-9][0-9] [A-Z]")
        headers = dict((name.lower(), value) for name, value in (line.split(": ", 1) for line in lines[1:]))
        self.assertEqual(len(headers), len(lines) - 1, "no header twice")
        code = int(lines[0].split()[1])
        body = b"" if head_only or code < 200 else receive(client, int(headers["content-length"]))
        return code, headers, body

    def one(self, data, **kwargs):
        """The answer to these bytes, which must be the only one, followed by a clean end."""
        client = self.send(data)
        result = self.answer(client, **kwargs)
        self.assertEqual(receive_all(client), b"")
        return result

    def assert_greets(self, answer, name, keeps_alive):
        code, headers, body = answer
        self.assertEqual(code, 200)
        self.assertIn(b"Hello %s!" % name, body)
        self.assertEqual(headers["connection"], "keep-alive" if keeps_alive else "close")
        self.assertTrue(headers["content-type"].startswith("text/html"))

    def assert_refused(self, data, code):
        got, headers, body = self.one(data)
        self.assertEqual((got, headers["connection"]), (code, "close"), (data[:100], body))
        self.assertIn(b"%d" % code, body)
        return headers

    def test_http_10(self):
        self.assert_greets(self.one(b"GET /kongxx HTTP/1.0\r\n\r\n"), b"kongxx", False)
        self.assert_greets(self.one(b"GET /kongxx HTTP/1.0\r\nHost: localhost\r\n\r\n"), b"kongxx", False)

    def test_http_11(self):
        self.assert_greets(self.one(b"GET /kongxx HTTP/1.1\r\nConnection: close\r\n\r\n"), b"kongxx", False)
        client = self.send(b"GET /kongxx HTTP/1.1\r\n\r\n")
        self.assert_greets(self.answer(client), b"kongxx", True)
        client.sendall(b"GET /again HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assert_greets(self.answer(client), b"again", True)

    def test_keep_alive_of_http_10(self):
        client = self.send(b"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        self.assert_greets(self.answer(client), b"a", True)
        client.sendall(b"GET /b HTTP/1.0\r\n\r\n")  # it holds for one request
        self.assert_greets(self.answer(client), b"b", False)
        self.assertEqual(receive_all(client), b"")

    def test_connection_lists(self):
        for value, keeps in ((b"x, close", False), (b"CLOSE", False), (b"close , keep-alive", False), (b"closed", True),
                             (b"keep-alive\r\nConnection: close", False), (b"close\r\nConnection: keep-alive", False),
                             (b" close\t", False), (b"", True), (b",,close,", False), (b"x-close", True)):
            client = self.send(b"GET /x HTTP/1.1\r\nConnection: %s\r\n\r\n" % value)
            self.assert_greets(self.answer(client), b"x", keeps)

    def test_line_ends_without_cr(self):
        self.assert_greets(self.one(b"GET /kongxx HTTP/1.0\n\n"), b"kongxx", False)
        self.assert_greets(self.one(b"GET /kongxx HTTP/1.0\nHost: x\r\n\n"), b"kongxx", False)

    def test_empty_lines_before_a_request(self):
        self.assert_greets(self.one(b"\r\n\r\n\nGET /kongxx HTTP/1.0\r\n\r\n"), b"kongxx", False)

    def test_names(self):
        for target, name in (("/", ""), ("/a/b", "a/b"), ("/%6bongxx", "kongxx"), ("/a%20b", "a b"), ("/a+b", "a+b"),
                             ("/%3Cscript%3E", "&lt;script&gt;"), ("/<b>", "&lt;b&gt;"), ("/a&b", "a&amp;b"),
                             ("/%22'", "&quot;&#39;"), ("/%e7%8e%8b", "\u738b"), ("/\u738b", "\u738b"), ("/%25", "%"),
                             ("/x?name=y", "x"), ("/x#y", "x"), ("/?", ""), ("//", "/"), ("/%2541", "%41"),
                             ("http://localhost/x", "x"), ("HTTP://localhost:80/a%26?b", "a&amp;")):
            with self.subTest(target=target):
                self.assert_greets(self.one(b"GET %s HTTP/1.0\r\n\r\n" % target.encode()), name.encode(), False)

    def test_length_of_names(self):
        self.assert_greets(self.one(b"GET /" + b"'" * 256 + b" HTTP/1.0\r\n\r\n"), b"&#39;" * 256, False)
        self.assert_greets(self.one(b"GET /" + b"%22" * 256 + b" HTTP/1.0\r\n\r\n"), b"&quot;" * 256, False)
        self.assert_refused(b"GET /" + b"x" * 257 + b" HTTP/1.0\r\n\r\n", 414)
        self.assert_refused(b"GET /" + b"x" * 7000 + b" HTTP/1.0\r\n\r\n", 414)
        self.assert_refused(b"GET /" + b"x" * 9000 + b" HTTP/1.0\r\n\r\n", 414)
        self.assert_refused(b"GET /" + b"x" * MEGABYTE + b" HTTP/1.0\r\n\r\n", 414)
        self.assert_greets(self.one(b"GET /x?" + b"y" * 7000 + b" HTTP/1.0\r\n\r\n"), b"x", False)

    def test_head_request(self):
        client = self.send(b"HEAD /kongxx HTTP/1.1\r\n\r\nGET /kongxx HTTP/1.1\r\n\r\n")
        code, headers, _ = self.answer(client, head_only=True)
        self.assertEqual(code, 200)
        got = self.answer(client)
        self.assert_greets(got, b"kongxx", True)
        self.assertEqual(headers, got[1])

    def test_what_is_no_request(self):
        for data in (
                b"GET /x\r\n\r\n", b"GET\r\n\r\n", b"x\r\n", b"GET / HTTP/1.1 \r\n\r\n",
                b" GET / HTTP/1.1\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n", b"GET / HTTP/1\r\n\r\n",
                b"GET / HTTP/1.\r\n\r\n", b"GET / http/1.1\r\n\r\n", b"GET / HTTP/11.1\r\n\r\n",
                b"GET / HTTP/1.10\r\n\r\n", b"GET / HTTP/a.b\r\n\r\n", b"GET / HTTPS/1.1\r\n\r\n",
                b"get / HTTP/1.1\r\n\r\n", b"G{T / HTTP/1.1\r\n\r\n", b"GET x HTTP/1.1\r\n\r\n",
                b"GET * HTTP/1.1\r\n\r\n", b"GET http://localhost HTTP/1.1\r\n\r\n",
                b"GET ftp://x/ HTTP/1.1\r\n\r\n", b"GET /%zz HTTP/1.1\r\n\r\n", b"GET /%4 HTTP/1.1\r\n\r\n",
                b"GET /% HTTP/1.1\r\n\r\n", b"GET /%00 HTTP/1.1\r\n\r\n", b"GET /a\tb HTTP/1.1\r\n\r\n",
                b"GET /%-1 HTTP/1.1\r\n\r\n", b"GET /% 1 HTTP/1.1\r\n\r\n", b"GET /%0x HTTP/1.1\r\n\r\n",
                b"GET /a\0b HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\0\r\n\r\n", b"GET /a\rb HTTP/1.1\r\n\r\n",
                b"\0\r\n", b"\x16\x03\x01\x02\n", bytes(range(1, 256)) + b"\n"):
            with self.subTest(data=data):
                self.assert_refused(data, 400)

    def test_what_is_no_header(self):
        for line in (b"nonsense", b": x", b"Host : x", b" folded: x", b"\tfolded: x", b"a\0b: x", b"a: b\0", b"a: b\rc",
                     b"Content-Length: -1", b"Content-Length: ", b"Content-Length: 1 2", b"Content-Length: 0x10",
                     b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 99999999999999999999999999",
                     b"Content-Length: 1, 1"):
            with self.subTest(line=line):
                self.assert_refused(b"GET /x HTTP/1.1\r\n" + line + b"\r\n\r\n", 400)

    def test_other_methods(self):
        for method in (
                b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"M-SEARCH", b"GETS",
                b"GE"):
            headers = self.assert_refused(method + b" /x HTTP/1.1\r\nHost: x\r\n\r\n", 405)
            self.assertEqual(headers["allow"], "GET, HEAD")

    def test_other_versions(self):
        self.assert_refused(b"GET / HTTP/2.0\r\n\r\n", 505)
        self.assert_refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)
        client = self.send(b"GET /x HTTP/1.2\r\n\r\n")
        self.assert_greets(self.answer(client), b"x", True)

    def test_heads_that_are_too_long(self):
        self.assert_refused(b"GET / HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431)
        self.assert_refused(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n", 431)
        self.assert_refused(b"\r\n" * 40000, 431)
        self.assert_refused(b"x" * 4 * MEGABYTE, 414)
        client = self.send(b"GET /x HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n")
        self.assert_greets(self.answer(client), b"x", True)

    def test_endless_line(self):
        client = self.connect(self.program)
        before = self.program.memory("VmRSS")
        client.sendall(b"GET /" + b"x" * 20 * MEGABYTE)
        self.assertEqual(self.answer(client)[0], 414)
        if not sanitized("hello_http"):
            self.assertLess(self.program.memory() - before, 4 * MEGABYTE)

    def test_bodies_are_skipped(self):
        for body in (b"x", b"GET /no HTTP/1.1\r\n\r\n", b"\r\n", pattern(MEGABYTE)):
            client = self.send(b"GET /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body +
                               b"GET /y HTTP/1.0\r\n\r\n")
            self.assert_greets(self.answer(client), b"x", True)
            self.assert_greets(self.answer(client), b"y", False)
            self.assertEqual(receive_all(client), b"")

    def test_same_length_twice(self):
        request = b"GET /x HTTP/1.0\r\nContent-Length: 3\r\ncontent-length:3\r\n\r\nabc"
        self.assert_greets(self.one(request), b"x", False)

    def test_body_of_length_zero(self):
        self.assert_greets(self.one(b"GET /x HTTP/1.0\r\nContent-Length: 0\r\n\r\n"), b"x", False)

    def test_bodies_that_are_too_long(self):
        length = 8 * MEGABYTE
        self.assert_refused(b"GET /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length + bytes(length), 413)
        self.assert_refused(b"GET /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MEGABYTE + 1), 413)

    def test_chunked_bodies_are_not_mistaken_for_requests(self):
        body = b"0\r\n\r\nGET /y HTTP/1.1\r\n\r\n"
        self.assert_refused(b"GET /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body, 501)

    def test_expect_continue(self):
        client = self.send(b"GET /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual(self.answer(client)[0], 100)
        client.sendall(b"abc")
        self.assert_greets(self.answer(client), b"x", True)

    def test_byte_by_byte(self):
        request = b"GET /kongxx HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" * 2
        client = self.connect(self.program)
        for byte in request:
            client.sendall(bytes([byte]))
            time.sleep(0.0005)  # so that they do not come together; nothing depends on it
        for _ in range(2):
            self.assert_greets(self.answer(client), b"kongxx", True)

    def test_cut_anywhere(self):
        request = b"GET /kongxx HTTP/1.1\r\nA: b\r\n\r\n"
        for cut in range(1, len(request)):
            client = self.send(request[:cut])
            self.assertEqual(select.select([client], [], [], 0.005)[0], [], "no answer to a part")
            client.sendall(request[cut:])
            self.assert_greets(self.answer(client), b"kongxx", True)

    def test_pipelined_requests(self):
        count = 2000
        client = self.connect(self.program)
        join = self.in_thread(client.sendall, b"".join(b"GET /n%d HTTP/1.1\r\n\r\n" % i for i in range(count)))
        for i in range(count):
            self.assert_greets(self.answer(client), b"n%d" % i, True)
        join()

    def test_nothing_is_answered_after_the_last(self):
        for last, code in (
                (b"GET /x HTTP/1.0\r\n\r\n", 200), (b"nonsense\r\n\r\n", 400),
                (b"POST / HTTP/1.1\r\n\r\n", 405)):
            client = self.send(b"GET /a HTTP/1.1\r\n\r\n" + last + b"GET /b HTTP/1.1\r\n\r\n" * 5000)
            self.assertEqual(self.answer(client)[0], 200)
            self.assertEqual(self.answer(client)[0], code)
            self.assertEqual(receive_all(client), b"")

    def test_no_reset_destroys_the_answer(self):
        # The client goes on sending long after the error, and reads only then.
        client = self.send(b"nonsense\r\n")
        poll_until(lambda: client.recv(1, socket.MSG_PEEK), "the answer")
        for _ in range(64):
            client.sendall(bytes(65536))
        self.assertEqual(self.answer(client)[0], 400)
        self.assertEqual(receive_all(client), b"")

    def test_half_closed_client_gets_its_answers(self):
        requests = b"GET /kongxx HTTP/1.1\r\n\r\n" * 3000  # more answers than the socket's buffers hold
        client = self.connect(self.program, receive_buffer=4096)

        def write():
            client.sendall(requests)
            client.shutdown(socket.SHUT_WR)

        join = self.in_thread(write)
        self.assertEqual(receive_all(client).count(b"Hello kongxx!"), 3000)
        join()

    def test_half_closed_client_of_the_last_answer(self):
        before = self.program.fds()
        for data in (b"GET /x HTTP/1.0\r\n\r\n", b"nonsense\r\n", b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 9000):
            client = self.send(data, half_close=True)
            self.answer(client)
            self.assertEqual(receive_all(client), b"")
        self.assert_fds_return(self.program, before)  # and not only when the time is up

    def test_half_closed_within_a_request(self):
        before = self.program.fds()
        for data in (b"", b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc"):
            self.assertEqual(receive_all(self.send(data, half_close=True)), b"")
        self.assert_fds_return(self.program, before)

    def test_client_that_does_not_read(self):
        before = self.program.memory("VmRSS")
        client = self.connect(self.program, receive_buffer=4096)
        client.setblocking(False)
        sent = 0
        while select.select([], [client], [], 1)[1]:
            try:
                sent += client.send(b"GET /x HTTP/1.1\r\n\r\n" * 3000)
            except BlockingIOError:
                pass
        self.assertLess(sent, 64 * MEGABYTE)
        if not sanitized("hello_http"):
            self.assertLess(self.program.memory() - before, 8 * MEGABYTE)
        self.assert_no_spin(self.program)
        other = self.send(b"GET /x HTTP/1.0\r\n\r\n")
        self.assert_greets(self.answer(other), b"x", False)

    def test_hundred_clients_at_once(self):
        clients = [self.connect(self.program) for _ in range(100)]
        for cut in (slice(0, 10), slice(10, None)):
            for i, client in enumerate(clients):
                client.sendall((b"GET /client%d HTTP/1.1\r\n\r\n" % i)[cut])
        for i, client in reversed(list(enumerate(clients))):
            self.assert_greets(self.answer(client), b"client%d" % i, True)

    def test_resets(self):
        before = self.program.fds()
        for data in (b"", b"GET /", b"GET /x HTTP/1.1\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n" * 2000, b"nonsense\r\n"):
            for _ in range(10):
                client = connect(self.program.address)
                client.sendall(data)
                reset(client)
        self.assert_fds_return(self.program, before)
        self.assert_stops(self.program)

    def test_descriptors_after_two_hundred_connections(self):
        before = self.program.fds()
        for i in range(200):
            client = connect(self.program.address)
            client.sendall((b"GET /x HTTP/1.0\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n", b"nonsense\r\n", b"GET")[i % 4])
            if i % 4 != 3:
                self.answer(client)
            client.close()
        self.assert_fds_return(self.program, before)
        self.assert_stops(self.program)


class HelloTimeout(ProgramTest):
    def test_slow_clients_are_closed(self):
        program = self.serve("hello_http", "-p", "0", "--timeout", "1")
        before = program.fds()
        start = time.monotonic()
        idle = self.connect(program)
        within = self.connect(program)
        within.sendall(b"GET / HTTP/1.1\r\nHo")
        kept = self.connect(program)
        kept.sendall(b"GET /x HTTP/1.1\r\n\r\n")
        body = self.connect(program)
        body.sendall(b"GET /x HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")
        refused = self.connect(program)  # which got the end of the stream, and does not end its own
        refused.sendall(b"nonsense\r\n")
        self.assertIn(b"400 Bad Request", receive_all(refused))
        stalled = self.connect(program, receive_buffer=4096)
        stalled.sendall(b"GET /x HTTP/1.1\r\n\r\n" * 3000)
        for client in (idle, within, body):
            self.assertEqual(receive_all(client), b"")
        self.assertIn(b"Hello x!", receive_all(kept))
        self.assertGreaterEqual(time.monotonic() - start, 0.95)
        self.assert_fds_return(program, before)
        self.assert_no_spin(program)
        self.assert_stops(program)

    def test_dripping_does_not_help(self):
        program = self.serve("hello_http", "-p", "0", "-t", "1")
        client = self.connect(program)
        end = time.monotonic() + DEADLINE
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < end:
                client.sendall(b"\n")
                time.sleep(0.02)

    def test_requests_in_time_are_served(self):
        program = self.serve("hello_http", "-p", "0", "-t", "2")
        client = self.connect(program)
        for _ in range(6):  # more than two seconds in all
            client.sendall(b"GET /x HTTP/1.1\r\n\r\n")
            self.assertIn(b"200 OK", client.recv(65536))
            time.sleep(0.5)

    def test_values(self):
        for text in ("0", "-1", "x", "", "86401", "1.5"):
            self.assert_fails(self.run_program("hello_http", "-t", text), 2, "seconds", ": %s\n" % text)


class Peer:
    """An HTTP server for one connection: reads a request, then runs `script(socket)`; `request` is what it read."""

    def __init__(self, test, script, host="127.0.0.1"):
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        test.addCleanup(self.listener.close)
        self.listener.bind((host, 0))
        self.listener.listen(1)
        self.listener.settimeout(DEADLINE)
        self.port = self.listener.getsockname()[1]
        self.url = "http://%s:%d" % ("[%s]" % host if ":" in host else host, self.port)
        self.request = b""
        self.script = script
        self.join = test.in_thread(self.run)

    def run(self):
        client, _ = self.listener.accept()
        client.settimeout(DEADLINE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while not self.request.endswith(b"\r\n\r\n"):
                piece = client.recv(65536)
                if not piece:
                    return
                self.request += piece
            self.script(client)
        finally:
            client.close()


def sender(*pieces, reset_after=False, pause=0.002):
    """A script for Peer: sends these pieces apart from each other, then closes."""
    def script(client):
        try:
            for i, piece in enumerate(pieces):
                if i:
                    time.sleep(pause)
                client.sendall(piece)
        except OSError:
            pass  # the client had enough
        if reset_after:
            time.sleep(pause)
            reset(client)
    return script


def single_bytes(data):
    return [data[i:i + 1] for i in range(len(data))]


class Client(ProgramTest):
    def fetch(self, *pieces, args=(), path="/", **kwargs):
        """Runs http_client against a peer that answers these pieces."""
        peer = Peer(self, sender(*pieces, **kwargs))
        result = self.run_program("http_client", *args, peer.url + path)
        peer.join()
        self.peer = peer
        return result

    def assert_body(self, body, *pieces, **kwargs):
        self.assertEqual(self.fetch(*pieces, **kwargs), (0, body, ""))

    def assert_bad(self, out, word, *pieces, **kwargs):
        code, got, err = self.fetch(*pieces, **kwargs)
        self.assertEqual((code, got), (1, out), err)
        self.assert_one_line(err, "http_client: ", self.peer.url, word)

    def test_content_length(self):
        self.assert_body(b"hello", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        self.assert_body(b"hello", *single_bytes(b"HTTP/1.1 200 OK\r\ncontent-length:5 \r\n\r\nhello"))
        self.assert_body(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assert_body(b"hello", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello")

    def test_bytes_after_the_body_are_not_printed(self):
        self.assert_body(b"hello", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more")
        self.assert_body(b"", b"HTTP/1.1 204 No Content\r\n\r\nmore")
        self.assert_body(b"", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nmore")
        self.assert_body(b"x", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nmore")

    def test_does_not_wait_for_the_end_of_stream(self):
        done = threading.Event()

        def script(client):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            done.wait(DEADLINE)

        peer = Peer(self, script)
        self.assertEqual(self.run_program("http_client", peer.url), (0, b"hello", ""))
        done.set()

    def test_until_the_end(self):
        self.assert_body(b"hello", b"HTTP/1.0 200 OK\r\n\r\nhello")
        self.assert_body(b"hello\r\n\0\xff", *single_bytes(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello\r\n\0\xff"))
        self.assert_body(b"", b"HTTP/1.0 200 OK\r\n\r\n")
        self.assert_body(b"x", b"HTTP/1.0 200\r\n\r\nx")
        self.assert_body(b"x", b"HTTP/1.0 200 OK\n\nx")

    def test_chunked(self):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for body in (
                b"5\r\nhello\r\n0\r\n\r\n", b"1\r\nh\r\n4;name=value\r\nello\r\n0\r\n\r\n",
                b"005\r\nhello\r\n000\r\nTrailer: x\r\nOther: y\r\n\r\n", b"5 \r\nhello\r\n0;x\r\n\r\n",
                b"5\nhello\n0\n\n"):
            self.assert_body(b"hello", head + body)
            self.assert_body(b"hello", *single_bytes(head + body))
        self.assert_body(b"", head + b"0\r\n\r\n")
        self.assert_body(b"0\r\n\r\n", head + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n")
        self.assert_body(pattern(0xABCDE), head + b"aBcDe\r\n" + pattern(0xABCDE) + b"\r\n0\r\n\r\n")
        both = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\ntransfer-encoding: CHUNKED\r\n\r\n"
        self.assert_body(b"ab", both + b"2\r\nab\r\n0\r\n\r\n")

    def test_include(self):
        head = b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"
        for option in ("-i", "--include"):
            self.assert_body(head + b"hello", head + b"5\r\nhello\r\n0\r\nT: u\r\n\r\n", args=[option])
        self.assert_body(head + b"hello", *single_bytes(head + b"5\r\nhello\r\n0\r\nT: u\r\n\r\n"), args=["-i"])

    def test_option_after_the_url(self):
        peer = Peer(self, sender(b"HTTP/1.0 200 OK\r\n\r\nhello"))
        self.assertEqual(self.run_program("http_client", peer.url, "-i"), (0, b"HTTP/1.0 200 OK\r\n\r\nhello", ""))

    def test_interim_answers(self):
        self.assert_body(b"hello", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"
                                   b"HTTP/1.1 200 OK\r\n\r\nhello")

    def test_request(self):
        for path, target in (
                ("", "/"), ("/", "/"), ("/a/b?c=d&e", "/a/b?c=d&e"), ("?x=y", "/?x=y"), ("/a#b", "/a"),
                ("#b", "/"), ("/a?b#c?d", "/a?b"), ("/%41", "/%41"), ("//", "//"),
                ("/?http://x/", "/?http://x/")):
            self.assert_body(b"", b"HTTP/1.0 200 OK\r\n\r\n", path=path)
            lines = self.peer.request.decode().split("\r\n")
            self.assertEqual(lines[0], "GET %s HTTP/1.1" % target)
            self.assertIn("Host: 127.0.0.1:%d" % self.peer.port, lines)
            self.assertIn("Connection: close", lines)

    def test_request_longer_than_any_buffer(self):
        path = "/" + "x" * 100000
        self.assert_body(b"ok", b"HTTP/1.0 200 OK\r\n\r\nok", path=path)
        self.assertIn(("GET %s HTTP/1.1\r\n" % path).encode(), self.peer.request)

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_ipv6(self):
        peer = Peer(self, sender(b"HTTP/1.0 200 OK\r\n\r\nhello"), "::1")
        self.assertEqual(self.run_program("http_client", peer.url + "/x"), (0, b"hello", ""))
        self.assertIn(b"\r\nHost: [::1]:%d\r\n" % peer.port, peer.request)

    def test_name(self):
        peer = Peer(self, sender(b"HTTP/1.0 200 OK\r\n\r\nhello"))
        self.assertEqual(self.run_program("http_client", "HTTP://localhost:%d" % peer.port), (0, b"hello", ""))
        self.assertIn(b"\r\nHost: localhost:%d\r\n" % peer.port, peer.request)

    def test_status_of_failure(self):
        for status, word in (("404 Not Found", "404 Not Found"), ("500", "500"), ("400 Bad\x1b[31m", "400 Bad?[31m")):
            answer = "HTTP/1.1 %s\r\nContent-Length: 4\r\n\r\nsorry" % status
            self.assert_bad(b"sorr", word, answer.encode())
        self.assert_bad(b"sorry", "503 Busy", b"HTTP/1.1 503 Busy\r\n\r\nsorry")
        self.assert_body(b"moved", b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\nmoved")

    def test_short_bodies(self):
        self.assert_bad(b"hell", "ended before", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell")
        self.assert_bad(b"", "ended before", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        self.assert_bad(b"", "ended before", b"HTTP/1.1 200 OK\r\nContent-Le")
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for rest, out in (
                (b"", b""), (b"5", b""), (b"5\r\nhel", b"hel"), (b"5\r\nhello", b"hello"),
                (b"5\r\nhello\r\n", b"hello"), (b"5\r\nhello\r\n0\r\n", b"hello"),
                (b"5\r\nhello\r\n0\r\nT: u\r\n", b"hello")):
            self.assert_bad(out, "ended before", chunked + rest)
        self.assert_bad(b"", "without an answer")
        self.assert_bad(b"", "without an answer", b"HTTP/1.1 20")

    def test_answers_that_are_none(self):
        for data in (
                b"hello\r\n\r\n", b"\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n",
                b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n",
                b"HTTP/1.1 000 x\r\n\r\n", b"HTTP/1.1 200\0\r\n\r\n", b"HTTP/1.1 20\r\n\r\n", b"<html>" * 5000,
                b"\0" * 70000):
            self.assert_bad(b"", "not HTTP", data)
        self.assert_bad(b"", "no header", b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n")
        self.assert_bad(b"", "too long", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\n")
        self.assert_bad(b"", "too long", b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 50000 + b"\r\n")
        self.assert_bad(b"", "too long", b"HTTP/1.1 100 Continue\r\n\r\n" * 20000)
        for length in (b"", b"x", b"-5", b"5 5", b"99999999999999999999999", b"5\r\nContent-Length: 6"):
            self.assert_bad(b"", "Content-Length", b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nhello")
        self.assert_bad(b"", "transfer encoding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n")
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for size in (
                b"\r\n", b"x\r\n", b"-1\r\nx\r\n", b"5x\r\nhello\r\n", b" 5\r\nhello\r\n",
                b"fffffffffffffffff\r\n", b"0x5\r\nhello\r\n"):
            self.assert_bad(b"", "chunk size", chunked + size)
        self.assert_bad(b"hello", "chunk of another size", chunked + b"5\r\nhello!\r\n0\r\n\r\n")
        self.assert_bad(b"", "too long", chunked + b"1" * 70000)
        self.assert_bad(b"", "too long", chunked + b"0\r\n" + b"T: u\r\n" * 50000)

    def test_reset(self):
        self.assert_bad(b"", "reset", reset_after=True)
        code, out, err = self.fetch(b"HTTP/1.1 200 OK\r\n\r\nhello", reset_after=True, pause=0.1)
        self.assertEqual(code, 1)
        self.assertIn(out, (b"", b"hello"))  # a reset may overtake what came before it
        self.assert_one_line(err, "reset")

    def test_refused(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))  # and does not listen
            url = "http://127.0.0.1:%d/" % s.getsockname()[1]
            self.assert_fails(self.run_program("http_client", url), 1, "http_client: " + url, "refused")

    def test_name_that_does_not_exist(self):
        url = "http://nosuch.invalid/"
        self.assert_fails(self.run_program("http_client", url), 1, "http_client: %s: " % url)

    def test_bad_urls(self):
        for url in (
                "", "/", "127.0.0.1", "https://127.0.0.1/", "ftp://x/", "http:/127.0.0.1/", "http://",
                "http:///x", "http://:80/", "http://127.0.0.1:x/", "http://127.0.0.1:65536/",
                "http://127.0.0.1:0/", "http://127.0.0.1:-1/", "http://127.0.0.1:99999999999999999999/",
                "http://127.0.0.1:80:80/", "http://user@127.0.0.1/", "http://[::1/", "http://[127.0.0.1]/",
                "http://[]/", "http://[::1]x/", "http://[::1]:x/", "http://::1/", "http://a b/",
                "http://[unix:/tmp/x]/", "http://unix:x", "http://*/", "http://" + "x" * 5000 + "/",
                "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/\x7f",
                "http://[" + "1:" * 200 + "]/"):
            with self.subTest(url=url):
                result = self.run_program("http_client", url)
                self.assertEqual((result[0], result[1]), (2, b""), result)
                if "\n" not in url:
                    self.assert_one_line(result[2], "http_client: ", "URL", url)

    def test_any_size_in_little_memory(self):
        size = 64 * MEGABYTE
        block = pattern(MEGABYTE)
        peer = Peer(self, sender(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, *[block] * 64, pause=0))
        program = self.start("http_client", peer.url)
        out = program.process.stdout.fileno()
        time.sleep(0.3)  # nobody reads: whatever it would hoard it hoards now
        if not sanitized("http_client"):
            self.assertLess(program.memory(), 12 * MEGABYTE)
        self.assert_no_spin(program)
        got = 0
        while got < size:
            piece = os.read(out, 65536)
            self.assertTrue(piece, "the end after %d bytes; stderr: %r" % (got, program.errors()))
            start = got % MEGABYTE
            self.assertTrue((block + block)[start:start + len(piece)] == piece)
            got += len(piece)
        self.assertEqual(os.read(out, 1), b"")
        self.assertEqual((program.wait(), program.errors()), (0, ""))
        peer.join()

    def test_reader_that_closes(self):
        peer = Peer(self, sender(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(65536)] * 100, pause=0))
        program = self.start("http_client", peer.url)
        self.assertEqual(os.read(program.process.stdout.fileno(), 10), bytes(10))
        program.process.stdout.close()
        self.assertEqual((program.wait(), program.errors()), (1, ""))

    def test_stdout_that_fails(self):
        with open("/dev/full", "w") as full:
            peer = Peer(self, sender(b"HTTP/1.1 200 OK\r\n\r\nhello"))
            program = self.start("http_client", peer.url, stdout=full)
            self.assertEqual(program.wait(), 1)
        self.assert_one_line(program.errors(), "http_client: standard output", "No space left")
        peer = Peer(self, sender(b"HTTP/1.1 200 OK\r\n\r\nhello"))
        code, _, err = self.run_program("http_client", peer.url, preexec_fn=lambda: os.close(1))
        self.assertEqual(code, 1)
        self.assert_one_line(err, "http_client: standard output", "Bad file descriptor")

    def test_flags_of_stdout_are_restored(self):
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        self.addCleanup(os.close, write_end)
        peer = Peer(self, sender(b"HTTP/1.1 200 OK\r\n\r\nhello"))
        self.assertEqual(self.start("http_client", peer.url, stdout=write_end).wait(), 0)
        self.assertTrue(os.get_blocking(write_end))
        self.assertEqual(os.read(read_end, 10), b"hello")

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            done = threading.Event()

            def script(client):
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
                done.wait(DEADLINE)

            peer = Peer(self, script)
            program = self.start("http_client", peer.url)
            self.assertEqual(os.read(program.process.stdout.fileno(), 10), b"hello")
            self.assertEqual(program.stop(number), 1, "what is printed is not all")
            self.assert_one_line(program.errors(), peer.url, "interrupted")
            done.set()

    def test_signal_while_nobody_reads(self):
        peer = Peer(self, sender(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(65536)] * 100, pause=0))
        program = self.start("http_client", peer.url)
        os.read(program.process.stdout.fileno(), 1)
        self.assertEqual(program.stop(), 1)

    def test_against_hello_http(self):
        server = self.serve("hello_http", "-p", "0")
        url = "http://%s:%d/" % server.address
        code, out, err = self.run_program("http_client", url + "kongxx")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(b"Hello kongxx!", out)
        code, out, err = self.run_program("http_client", "-i", url + "%00")
        self.assertEqual(code, 1)
        self.assertTrue(out.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
        self.assert_one_line(err, url + "%00: 400 Bad Request")
        self.assert_stops(server)


if __name__ == "__main__":
    for program_name in PROGRAMS:
        if not os.access(binary(program_name), os.X_OK):
            sys.exit("test_examples: not built: " + binary(program_name))
    unittest.main()
