"""What the tests of portforward as a service share: a server of the test's own, rules that lead to it, and sockets that
are given to the program as systemd gives them."""
import os
import re
import socket

from support import DEADLINE, WRAPPER, ProgramTest, binary, is_reset, poll_until, receive


WAITING = 0.4  # seconds after which a client that is not served yet counts as waiting


class ServiceTest(ProgramTest):
    """A server of its own, which says who it is, and rules that forward to it."""

    def setUp(self):
        super().setUp()
        self.server = self.listener()
        self.port = self.server.getsockname()[1]

    def listener(self, host="127.0.0.1", backlog=1024):
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.addCleanup(s.close)
        s.settimeout(DEADLINE)
        s.bind((host, 0))
        s.listen(backlog)
        return s

    def rule(self, options="", bind="127.0.0.1 0", port=None):
        return "%s 127.0.0.1 %d %s" % (bind, port or self.port, options)

    def forward(self, *args, listeners=1, **popen):
        """Starts it and reads its lines; program.addresses has where it listens."""
        program = self.start("portforward", *args, **popen)
        program.addresses = []
        for _ in range(listeners):
            line = program.read_line()
            found = re.fullmatch(r"portforward: listening on (?:\[([0-9a-f:.]+)\]:|([0-9.]+):|(unix:.*?))([0-9]*),"
                                 r" forwarding to \S+\n", line)
            self.assertTrue(found, (line, program.errors()))
            program.addresses.append((found[1] or found[2] or found[3], int(found[4] or 0)))
        self.program = program
        if listeners:
            program.address = program.addresses[0]
            self.fds = program.fds()
        return program

    def file(self, name, *lines):
        path = os.path.join(self.cwd, name)
        with open(path, "w") as f:
            f.write("".join(line + "\n" for line in lines))
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path

    def accept(self, server=None):
        s, _ = (server or self.server).accept()
        self.addCleanup(s.close)
        s.settimeout(DEADLINE)
        return s

    def ends(self, address=None, **options):
        """A connection through the forwarder: the client's socket and the server's."""
        client = self.connect(address or self.program, **options)
        server = self.accept()
        self.exchange(client, server)
        return client, server

    def exchange(self, client, server):
        for a, b in ((client, server), (server, client)):
            a.sendall(b"through")
            self.assertEqual(receive(b, 7), b"through")

    def assert_waits(self, server=None):
        """Nobody is let through for a while."""
        (server or self.server).settimeout(WAITING)
        with self.assertRaises(TimeoutError):
            (server or self.server).accept()
        (server or self.server).settimeout(DEADLINE)

    def assert_refused(self, address=None, **options):
        """A client is reset; it may have come as far as to connect."""
        try:
            client = self.connect(address or self.program, **options)
        except ConnectionResetError:
            return
        self.assertTrue(is_reset(client), "a client is served that should be reset")
        client.close()

    def close(self, *sockets):
        for s in sockets:
            s.close()

    def signal(self, number):
        self.program.process.send_signal(number)

    def event(self, pattern, count=1):
        """Waits until so many events match."""
        return poll_until(lambda: len(re.findall(pattern, self.program.events())) >= count and self.program.events(),
                          "%d of %s in %r" % (count, pattern, self.program.events()))


def activated(test, sockets, *args, **options):
    """Starts it as systemd would, with these sockets."""
    fds = [s.fileno() for s in sockets]

    def hand_over():
        copies = [os.dup(fd) for fd in fds]  # above the targets, or they would be overwritten
        high = [os.dup2(fd, 100 + i) for i, fd in enumerate(copies)]
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i)
            os.close(fd)
        for fd in copies:
            if fd >= 3 + len(fds):
                os.close(fd)

    script = 'LISTEN_PID=$$ LISTEN_FDS=%d; export LISTEN_PID LISTEN_FDS; exec "$@"' % len(fds)
    command = ["/bin/sh", "-c", script, "sh"] + WRAPPER + [binary("portforward")]
    expected = options.pop("listeners", len(fds))
    real_start = test.start
    test.start = lambda name, *a, **popen: real_start(command, *a, **popen)
    try:
        return test.forward(*args, listeners=expected, preexec_fn=hand_over, close_fds=False, **options)
    finally:
        test.start = real_start
