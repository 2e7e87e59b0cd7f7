"""portforward between a client and a server that both misbehave."""
import errno
import hashlib
import os
import random
import resource
import select
import signal
import socket
import time
import unittest

from support import (DEADLINE, WRAPPER, ProgramTest, binary, free_port, has_ipv6, pattern, poll_until, receive,
                     receive_all, reset, sanitized)

MB = 1 << 20
MEMORY = 24 * MB
STALLED = 0.3  # seconds without room: what is on its way through loopback has long arrived
ENDLESS = 256 * MB  # more than the kernel's buffers of two connections hold


class Flow:
    """One direction: `size` bytes in writes of random sizes, hashed at both ends, then its end."""

    block = pattern(4 * MB + 7) + pattern(4 * MB + 7, seed=2)

    def __init__(self, size, seed):
        self.size, self.sent = size, 0
        self.random = random.Random(seed)
        self.hash_sent, self.hash_received = hashlib.sha256(), hashlib.sha256()

    def send(self, s):
        while self.sent < self.size:
            at = self.sent % (len(self.block) // 2)
            n = min(self.random.randint(1, 1 << self.random.randint(1, 20)), self.size - self.sent)
            piece = memoryview(self.block)[at:at + n]
            s.sendall(piece)
            self.hash_sent.update(piece)
            self.sent += len(piece)
        s.shutdown(socket.SHUT_WR)

    def receive(self, s):
        buffer = bytearray(MB)
        n = s.recv_into(buffer)
        while n:
            self.hash_received.update(memoryview(buffer)[:n])
            n = s.recv_into(buffer)
        return self.hash_received.hexdigest()

    def check(self, test):
        test.assertEqual(self.sent, self.size)
        test.assertEqual(self.hash_received.hexdigest(), self.hash_sent.hexdigest())


def push(s, size=ENDLESS, seed=1):
    """Sends until nothing more is taken, and returns how much was."""
    data = memoryview(pattern(2 * MB, seed))
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
    return (pattern(MB, seed) * (size // MB + 1))[:size]


def until_reset(s):
    """What comes before the reset. An end of stream is an error: nothing may look like one."""
    data = bytearray()
    while True:
        try:
            piece = s.recv(1 << 16)
        except ConnectionResetError:
            return bytes(data)
        if not piece:
            raise AssertionError("an end of stream after %d bytes, where a reset was due" % len(data))
        data += piece


class ForwardTest(ProgramTest):
    def listener(self, host="127.0.0.1", port=0, backlog=1024):
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.addCleanup(s.close)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.settimeout(DEADLINE)
        s.bind((host, port))
        s.listen(backlog)
        return s

    def forward(self, remote, *args, host=None, **popen):
        """Starts a forwarder to an address, or to a listener."""
        if isinstance(remote, socket.socket):
            remote = remote.getsockname()
        host = host or remote[0]
        program = self.start("portforward", "-p", 0, "-r", host, "-P", remote[1], *args, **popen)
        line = program.read_line()
        shown = "[%s]" % host if ":" in host else host
        self.assertRegex(line, r"\Aportforward: listening on \S+:[0-9]+, forwarding to ")
        self.assertEqual(line.split("forwarding to ")[1], "%s:%d\n" % (shown, remote[1]), line)
        local, _, port = line.split()[3].rstrip(",").rpartition(":")
        program.address = (local.strip("[]"), int(port))
        return program

    def setUp(self):
        super().setUp()
        self.server = self.listener()

    def both_ends(self, program=None, server=None):
        """A connection through the forwarder: the client's socket and the server's."""
        client = self.connect(program or self.program)
        accepted, _ = (server or self.server).accept()
        accepted.settimeout(DEADLINE)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.addCleanup(accepted.close)
        return client, accepted

    def start_forward(self, *args, **popen):
        self.program = self.forward(self.server, *args, **popen)
        self.fds = self.program.fds()

    def assert_serves(self):
        client, server = self.both_ends()
        self.exchange(client, server)
        client.close()
        server.close()

    def assert_resets(self, program, data=b""):
        """A client of this program is reset, be it that it never got to see its connection open."""
        try:
            client = self.connect(program)
            client.sendall(data)
            self.assertEqual(until_reset(client), b"")
            client.close()
        except (ConnectionResetError, BrokenPipeError):
            pass

    def exchange(self, a, b, data=b"over there"):
        for x, y in ((a, b), (b, a)):
            x.sendall(data)
            self.assertEqual(receive(y, len(data)), data)

    def finish(self, errors=""):
        """Whatever happened: no descriptor too many, still serving, no word, and a clean stop."""
        self.assert_fds_return(self.program, self.fds)
        self.assert_serves()
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program, errors=errors)


class Bytes(ForwardTest):
    def both_ways(self, size):
        client, server = self.both_ends()
        up, down = Flow(size, 1), Flow(size, 2)
        joins = [self.in_thread(*work) for work in ((up.send, client), (up.receive, server), (down.send, server))]
        down.receive(client)
        for join in joins:
            join()
        up.check(self)
        down.check(self)
        client.close()
        server.close()

    def test_both_ways_at_once(self):
        self.start_forward()
        self.both_ways(48 * MB)
        self.finish()

    def test_several_flows_at_once(self):
        self.start_forward()
        joins = []
        flows = []
        for i in range(4):
            client, server = self.both_ends()
            flows += [Flow(6 * MB, 10 + i), Flow(5 * MB, 20 + i)]
            for flow, a, b in ((flows[-2], client, server), (flows[-1], server, client)):
                joins += [self.in_thread(flow.send, a), self.in_thread(flow.receive, b)]
        for join in joins:
            join()
        for flow in flows:
            flow.check(self)
        self.assert_fds_return(self.program, self.fds)  # both ends of every pair have ended by themselves
        self.finish()

    def test_small_messages_in_step(self):
        self.start_forward()
        client, server = self.both_ends()
        for i in range(2000):
            self.exchange(client, server, b"%064d" % i)
        client.close()
        server.close()
        self.finish()

    def test_small_writes_do_not_wait(self):
        """With Nagle's algorithm on either end the second write waits for the first one's delayed acknowledgement."""
        self.start_forward()
        ends = self.both_ends()
        for a, b in (ends, ends[::-1]):
            times = []
            for _ in range(31):
                start = time.monotonic()
                a.sendall(b"head")
                self.assertEqual(receive(b, 4), b"head")
                a.sendall(b"body")
                self.assertEqual(receive(b, 4), b"body")
                times.append(time.monotonic() - start)
                b.sendall(b"answer")
                self.assertEqual(receive(a, 6), b"answer")
            self.assertLess(sorted(times)[15], 0.03)
        for s in ends:
            s.close()
        self.finish()

    def test_server_speaks_first(self):
        self.start_forward()
        client, server = self.both_ends()
        server.sendall(b"220 ready\r\n")
        self.assertEqual(receive(client, 11), b"220 ready\r\n")
        client.close()
        server.close()
        self.finish()


class BackPressure(ForwardTest):
    def setUp(self):
        super().setUp()
        self.start_forward()

    def assert_bounded(self, limit=MEMORY):
        if not sanitized("portforward"):
            self.assertLess(self.program.memory(), limit)

    def check_sleeping_reader(self, sender, reader):
        sent = push(sender)
        self.assertLess(sent, ENDLESS, "the sender is not stopped")
        self.assert_bounded()
        self.assert_no_spin(self.program)
        reader.sendall(b"the other direction is open")
        self.assertEqual(receive(sender, 27), b"the other direction is open")
        sender.shutdown(socket.SHUT_WR)
        self.assertTrue(receive_all(reader) == pushed(sent))
        reader.close()
        sender.close()
        self.finish()

    def test_client_sleeps(self):
        client, server = self.both_ends()
        self.check_sleeping_reader(server, client)

    def test_server_sleeps(self):
        client, server = self.both_ends()
        self.check_sleeping_reader(client, server)

    def test_many_sleep(self):
        pairs = [self.both_ends() for _ in range(24)]
        joins = [self.in_thread(push, s, ENDLESS) for client, server in pairs for s in (client, server)]
        sent = [join() for join in joins]
        self.assertLess(max(sent), ENDLESS)
        self.assert_bounded(MEMORY)
        self.assert_no_spin(self.program)
        before = self.program.memory("VmRSS")
        for client, server in pairs:
            reset(client)
            server.close()
        self.assert_fds_return(self.program, self.fds)
        if not sanitized("portforward"):
            self.assertLessEqual(self.program.memory("VmRSS"), before)
        self.finish()

    def test_both_write_before_they_read(self):
        client, server = self.both_ends()
        join = self.in_thread(push, server, ENDLESS, 2)
        up, down = push(client), join()
        self.assertLess(max(up, down), ENDLESS)
        self.assert_no_spin(self.program)
        join = self.in_thread(receive, server, up)
        self.assertTrue(receive(client, down) == pushed(down, 2))
        self.assertTrue(join() == pushed(up))
        client.close()
        server.close()
        self.finish()

    def test_end_waits_for_what_is_stuck(self):
        client, server = self.both_ends()
        sent = push(client)
        client.shutdown(socket.SHUT_WR)
        server.sendall(b"meanwhile")
        server.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_all(client), b"meanwhile")
        self.assert_no_spin(self.program)
        self.assertTrue(receive_all(server) == pushed(sent))
        client.close()
        server.close()
        self.finish()

    @unittest.skipIf(os.environ.get("ASYNCORE_ENGINE", "epoll") != "epoll", "looks into epoll's set")
    def test_end_seen_while_bytes_are_stuck(self):
        """The last byte is in the forwarder's own buffer when both streams have ended, which the kernel then says."""
        client, server = self.both_ends()
        server.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(1), b"")
        sent = self.push_until_kept(client)
        client.shutdown(socket.SHUT_WR)
        self.assert_no_spin(self.program)
        self.assertTrue(receive_all(server) == pushed(sent))
        client.close()
        server.close()
        self.finish()

    @unittest.skipIf(os.environ.get("ASYNCORE_ENGINE", "epoll") != "epoll", "looks into epoll's set")
    def test_reset_seen_while_bytes_are_stuck(self):
        """What the forwarder had read by then goes out before the reset, if there is room for it."""
        client, server = self.both_ends()
        sent = self.push_until_kept(client)
        self.program.process.send_signal(signal.SIGSTOP)
        had = sent - unread(self.program, client)
        reset(client)
        data = bytearray()
        while select.select([server], [], [], STALLED)[0]:
            data += server.recv(MB)
        self.program.process.send_signal(signal.SIGCONT)
        data += until_reset(server)
        self.assertTrue(pushed(sent).startswith(data))
        self.assertGreaterEqual(len(data), had)
        server.close()
        self.finish()

    def push_until_kept(self, client):
        """Sends until the forwarder keeps the last of it itself, and returns how much was sent."""
        sent = 0
        while not self.stopped_reading():
            client.sendall(pushed(sent + 16384)[sent:])
            sent += 16384
            poll_until(lambda: unread(self.program, client) == 0 or self.stopped_reading(), "it is read")
        return sent

    def stopped_reading(self):
        """Whether the server's socket takes no more, so that the client's bytes are kept."""
        set_ = [fd for fd in os.listdir("/proc/%d/fd" % self.program.pid)
                if os.readlink("/proc/%d/fd/%s" % (self.program.pid, fd)) == "anon_inode:[eventpoll]"]
        with open("/proc/%d/fdinfo/%s" % (self.program.pid, set_[0])) as f:
            wanted = [int(line.split()[3], 16) for line in f if line.startswith("tfd:")]
        return any(events & select.EPOLLOUT for events in wanted)

    def test_slow_reader_after_close(self):
        client, server = self.both_ends()
        sent = push(server)
        server.close()  # nothing was sent to it: this is a clean end
        self.assert_no_spin(self.program)
        self.assertTrue(receive_all(client) == pushed(sent))
        client.close()
        self.finish()


def unread(program, client):
    """Bytes that have come from the client and that the program has not read."""
    ports = [":%04X" % port for port in (program.address[1], client.getsockname()[1])]
    with open("/proc/net/tcp") as f:
        for row in f.read().splitlines()[1:]:
            field = row.split()
            if field[1].endswith(ports[0]) and field[2].endswith(ports[1]):
                return int(field[4].split(":")[1], 16)
    raise AssertionError("no such connection")


class HalfClose(ForwardTest):
    def setUp(self):
        super().setUp()
        self.start_forward()

    def check(self, first, second):
        question, answer = pattern(3 * MB), pattern(5 * MB, seed=7)
        join = self.in_thread(receive_all, second)
        first.sendall(question)
        first.shutdown(socket.SHUT_WR)
        self.assertTrue(join() == question)
        self.assert_no_spin(self.program)  # and as long as that the answer is not there
        join = self.in_thread(second.sendall, answer)
        self.assertTrue(receive(first, len(answer)) == answer)
        join()
        second.shutdown(socket.SHUT_WR)
        self.assertEqual(first.recv(1), b"")
        self.assert_fds_return(self.program, self.fds)
        self.finish()

    def test_client_first(self):
        client, server = self.both_ends()
        self.check(client, server)

    def test_server_first(self):
        client, server = self.both_ends()
        self.check(server, client)

    def test_both_at_once(self):
        for i in range(200):
            client, server = self.both_ends()
            for a, b in ((client, server), (server, client)):
                a.sendall(b"bye")
                a.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(client), b"bye")
            self.assertEqual(receive_all(server), b"bye")
            client.close()
            server.close()
        self.finish()

    def test_end_without_a_byte(self):
        client, server = self.both_ends()
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(server.recv(1), b"")
        server.close()
        self.assertEqual(client.recv(1), b"")
        client.close()
        self.finish()

    def test_answers_and_closes_at_once(self):
        answer = pattern(100000)
        for i in range(200):
            client, server = self.both_ends()
            server.sendall(answer[:1 + i * 500])
            server.close()
            self.assertTrue(receive_all(client) == answer[:1 + i * 500])
            client.close()
        self.finish()

    def test_whole_exchange_sent_while_connecting(self):
        """The client has said all and ended before there is a remote to tell."""
        server = self.listener(backlog=0)
        fill_backlog(self, server)
        self.program = self.forward(server)
        self.fds = self.program.fds()
        client = self.connect(self.program)
        client.sendall(b"all of it")
        client.shutdown(socket.SHUT_WR)
        poll_until(lambda: self.program.fds() == self.fds + 2, "the forwarder connects")
        self.assert_no_spin(self.program)
        accepted = accept_from(self, server, self.program)
        self.assertEqual(receive_all(accepted), b"all of it")
        accepted.sendall(b"the answer")
        accepted.close()
        self.assertEqual(receive_all(client), b"the answer")
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program)


def fill_backlog(test, server):
    """From here on connects to the server stay under way: its queue is full."""
    for _ in range(2):
        s = socket.socket()
        test.addCleanup(s.close)
        s.setblocking(False)
        s.connect_ex(server.getsockname())
        select.select([], [s], [], 0.2)


def accept_from(test, server, program):
    """Empties the queue up to the connection that comes from the program."""
    inodes = {os.readlink("/proc/%d/fd/%s" % (program.pid, fd)) for fd in os.listdir("/proc/%d/fd" % program.pid)}
    while True:
        accepted, address = server.accept()
        accepted.settimeout(DEADLINE)
        test.addCleanup(accepted.close)
        with open("/proc/net/tcp") as f:
            for row in f.read().splitlines()[1:]:
                field = row.split()
                if int(field[1].rpartition(":")[2], 16) == address[1] and "socket:[%s]" % field[9] in inodes:
                    return accepted


class Resets(ForwardTest):
    """Each from both sides: `a` resets, `b` must hear of it."""

    def setUp(self):
        super().setUp()
        self.start_forward()

    def each_side(self, check):
        for side in (0, 1):
            ends = self.both_ends()
            with self.subTest(resets=("client", "server")[side]):
                check(ends[side], ends[1 - side])
            for s in ends:
                s.close()
        self.finish()

    def test_open(self):
        def check(a, b):
            reset(a)
            self.assertEqual(until_reset(b), b"")
        self.each_side(check)

    def test_after_bytes(self):
        data = pattern(100000)

        def check(a, b):
            a.sendall(data)
            self.assertTrue(receive(b, 50000) == data[:50000])
            reset(a)
            self.assertTrue(data[50000:].startswith(until_reset(b)))
        self.each_side(check)

    def test_after_a_message(self):
        def check(a, b):
            a.sendall(b"last words")
            self.assertEqual(receive(b, 10), b"last words")
            b.sendall(b"are heard")
            self.assertEqual(receive(a, 9), b"are heard")
            reset(a)
            self.assertEqual(until_reset(b), b"")
        self.each_side(check)

    def test_half_closed_by_the_other(self):
        def check(a, b):
            b.sendall(b"question")
            b.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(a), b"question")
            a.sendall(b"half of the ans")
            self.assertEqual(receive(b, 15), b"half of the ans")
            reset(a)
            self.assertEqual(until_reset(b), b"")
        self.each_side(check)

    def test_half_closed_by_itself(self):
        """b has read a clean end already: that it is over shows as an error of the socket."""
        def check(a, b):
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(b), b"")
            self.assert_no_spin(self.program, 0.2)
            reset(a)
            error = poll_until(lambda: b.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "an error at the peer")
            self.assertIn(error, (errno.EPIPE, errno.ECONNRESET))
        self.each_side(check)

    def test_sender_resets_when_back_pressured(self):
        def check(a, b):
            sent = push(a)
            reset(a)
            poll_until(lambda: self.program.fds() == self.fds, "the pair has ended")
            self.assertTrue(pushed(sent).startswith(until_reset(b)))
        self.each_side(check)

    def test_reader_resets_when_back_pressured(self):
        def check(a, b):
            push(b)
            reset(a)
            self.assertEqual(until_reset(b), b"")
        self.each_side(check)

    def test_reset_when_both_ways_are_stuck(self):
        def check(a, b):
            join = self.in_thread(push, b, ENDLESS, 2)
            sent = push(a)
            join()
            reset(a)
            self.assertTrue(pushed(sent).startswith(until_reset(b)))
        self.each_side(check)

    def test_half_closed_and_stuck(self):
        """b's end of stream was passed on, a's bytes are stuck on their way to b, and b resets."""
        def check(a, b):
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(b), b"")
            push(b)
            reset(a)
            poll_until(lambda: self.program.fds() == self.fds, "the pair has ended")
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                b.sendall(bytes(64 * MB))
        self.each_side(check)

    def test_answer_then_close_with_unread_bytes(self):
        """The server's close is a reset, for it has not read the request; its answer comes before."""
        for _ in range(50):
            client, server = self.both_ends()
            client.sendall(b"a request that nobody reads")
            self.assertEqual(len(server.recv(100, socket.MSG_PEEK)), 27)
            server.sendall(b"no")
            server.close()
            self.assertEqual(until_reset(client), b"no")
            client.close()
        self.finish()

    def test_answer_and_reset_before_the_next_request(self):
        """All in one turn: the request that cannot be sent is no reason to drop the answer that came before."""
        def check(a, b):
            self.exchange(a, b)
            self.program.process.send_signal(signal.SIGSTOP)
            b.sendall(b"too late")
            a.sendall(b"the answer")
            reset(a)
            self.program.process.send_signal(signal.SIGCONT)
            self.assertEqual(until_reset(b), b"the answer")
        self.each_side(check)

    def test_end_and_reset_at_once(self):
        """The kernel tells both in one event, and of an end only when asked: the pair must not wait for b for ever."""
        def check(a, b):
            self.exchange(a, b)
            self.program.process.send_signal(signal.SIGSTOP)
            a.sendall(b"the end")
            a.shutdown(socket.SHUT_WR)
            reset(a)
            self.program.process.send_signal(signal.SIGCONT)
            poll_until(lambda: self.program.fds() == self.fds, "the pair has ended")
        self.each_side(check)

    def test_client_resets_while_connecting(self):
        server = self.listener(backlog=0)
        fill_backlog(self, server)
        program = self.forward(server)
        before = program.fds()
        clients = [self.connect(program) for _ in range(5)]
        clients[0].sendall(b"never read")
        poll_until(lambda: program.fds() == before + 10, "the forwarder connects")
        self.assert_no_spin(program)
        for client in clients:
            reset(client)
        self.assert_fds_return(program, before)
        self.assert_stops(program)

    def test_storm(self):
        """Ends of all kinds at random moments: what arrives is a prefix, and an end only where one was sent."""
        chance = random.Random(3)
        for _ in range(300):
            ends = self.both_ends()
            a, b = ends if chance.random() < 0.5 else ends[::-1]
            data = pattern(chance.randint(0, 300000), seed=chance.randint(1, 99))
            clean = chance.random() < 0.5
            b.sendall(b"x" * chance.randint(0, 3))
            a.settimeout(0)
            sent = a.send(data) if data else 0
            if clean:
                a.shutdown(socket.SHUT_WR)
                self.assertTrue(receive_all(b) == data[:sent])
            else:
                reset(a)
                self.assertTrue(data.startswith(until_reset(b)))
            reset(b) if chance.random() < 0.5 else b.close()
            a.close()
        self.finish()


class Remotes(ForwardTest):
    def test_refused(self):
        port = free_port()
        program = self.forward(("127.0.0.1", port))
        before = program.fds()
        for _ in range(20):
            self.assert_resets(program, b"hello?")
        self.assert_fds_return(program, before)
        self.assert_stops(program)
        self.assertEqual(program.ends(), ["connect-refused"] * 20)

    def test_nobody_reads_the_errors(self):
        command = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh"] + WRAPPER + [binary("portforward")]
        program = self.start(command, "-p", 0, "-r", "127.0.0.1", "-P", free_port())
        program.address = ("127.0.0.1", int(program.read_line().split(",")[0].split(":")[2]))
        program.process.stdout.close()
        for _ in range(3):
            self.assert_resets(program)
        self.assert_stops(program)

    def test_refused_beside_an_open_one(self):
        self.start_forward()
        client, server = self.both_ends()
        self.server.close()
        self.assert_resets(self.program)
        self.exchange(client, server)
        client.close()
        server.close()
        self.server = self.listener(port=self.server_port)
        self.assert_fds_return(self.program, self.fds)
        self.assert_serves()
        self.assert_stops(self.program, errors=None)

    def setUp(self):
        super().setUp()
        self.server_port = self.server.getsockname()[1]

    def test_name(self):
        self.program = self.forward(self.server, host="localhost")
        self.fds = self.program.fds()
        for _ in range(20):
            self.assert_serves()
        self.assert_stops(self.program)

    def test_name_that_does_not_resolve(self):
        program = self.forward(("does-not-exist.invalid", 80))
        for _ in range(6):
            self.assert_resets(program)
        self.assert_stops(program, errors=None)
        self.assertEqual(program.ends(), ["no-address"] * 6)

    def test_stops_while_resolving(self):
        program = self.forward(("does-not-exist.invalid", 80))
        for _ in range(5):
            try:
                self.connect(program)
            except ConnectionResetError:  # it is known already that there is no such name
                pass
        self.assert_stops(program, errors=None)

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_ipv6(self):
        self.server = self.listener("::1")
        self.start_forward("-l", "::1")
        self.assertEqual(self.program.address[0], "::1")
        self.finish()

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_ipv6_to_ipv4(self):
        self.start_forward("--local-ip=::1")
        self.finish()

    def test_local_name(self):
        self.start_forward("-l", "localhost")
        self.finish()


class Many(ForwardTest):
    def test_at_once(self):
        self.start_forward()
        pairs = [self.both_ends() for _ in range(300)]
        self.assertEqual(self.program.fds(), self.fds + 600)
        for i, (client, server) in enumerate(pairs):
            self.exchange(client, server, b"pair %d" % i)
        chance = random.Random(1)
        chance.shuffle(pairs)
        for i, pair in enumerate(pairs):
            (reset, socket.socket.close)[i % 2](pair[i // 2 % 2])
        for i, pair in enumerate(pairs):
            pair[1 - i // 2 % 2].close()
        self.finish()

    def test_in_sequence(self):
        self.start_forward()
        self.assert_serves()
        before = self.program.memory("VmRSS")
        for i in range(2000):
            ends = self.both_ends()
            self.exchange(*ends, b"number %d" % i)
            first, second = ends if i % 2 else ends[::-1]
            if i % 4 < 2:
                first.close()
                self.assertEqual(second.recv(1), b"")
            else:
                reset(first)
                self.assertEqual(until_reset(second), b"")
            second.close()
        self.assert_fds_return(self.program, self.fds)
        if not sanitized("portforward"):
            self.assertLess(self.program.memory("VmRSS") - before, MB // 2, "memory grows with each connection")
        self.finish()

    def test_idle(self):
        self.start_forward()
        pairs = [self.both_ends() for _ in range(50)]
        for client, server in pairs:
            self.exchange(client, server)
        for client, server in pairs[:10]:
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(server.recv(1), b"")
        for client, server in pairs[10:20]:
            server.shutdown(socket.SHUT_WR)
            self.assertEqual(client.recv(1), b"")
        for sender in (pairs[0][1], pairs[11][0], pairs[20][0], pairs[21][1]):
            push(sender)
        self.assert_no_spin(self.program, 1)
        for client, server in pairs:
            client.close()
            server.close()
        self.finish()

    @unittest.skipIf(WRAPPER, "a checker needs descriptors too")
    def few_descriptors(self, rest):
        """Room for 20 pairs and so many descriptors more."""
        self.start_forward("--data-path=copy")
        limit = self.fds + 40 + rest
        resource.prlimit(self.program.pid, resource.RLIMIT_NOFILE, (limit, limit))
        clients = [s for s in [self.connect_or_reset() for _ in range(limit)] if s]
        self.server.settimeout(0.5)
        servers = []
        try:
            while True:
                servers.append(self.server.accept()[0])
                self.addCleanup(servers[-1].close)
        except socket.timeout:
            pass
        self.server.settimeout(DEADLINE)
        self.assertEqual(len(servers), (limit - self.fds) // 2)
        self.assert_no_spin(self.program, 1)
        for s in servers + clients:
            s.close()
        self.drain()
        self.assert_fds_return(self.program, self.fds)
        self.assert_serves()
        self.assert_stops(self.program, errors=None)

    def connect_or_reset(self):
        try:
            return self.connect(self.program)
        except ConnectionResetError:
            return None

    def drain(self):
        """Takes the connections of clients that are gone, until there are no more."""
        def none_left():
            if select.select([self.server], [], [], 0)[0]:
                self.server.accept()[0].close()
                return False
            return self.program.fds() == self.fds

        poll_until(none_left, "all of them have ended")

    def test_no_descriptor_for_the_client(self):
        self.few_descriptors(0)

    def test_no_descriptor_for_the_remote(self):
        self.few_descriptors(1)


class Stopping(ForwardTest):
    def check(self, *numbers):
        self.start_forward()
        pairs = [self.both_ends() for _ in range(20)]
        for client, server in pairs[:10]:
            self.exchange(client, server)
        pairs[0][0].shutdown(socket.SHUT_WR)
        self.assertEqual(pairs[0][1].recv(1), b"")
        push(pairs[1][0])
        start = time.monotonic()
        for number in numbers[:-1]:
            self.program.process.send_signal(number)
            poll_until(self.program.events, "it says so")
            self.exchange(*pairs[10])
        self.assert_stops(self.program, numbers[-1], errors=None)
        self.assertLess(time.monotonic() - start, DEADLINE / 3)
        for client, server in pairs[2:]:  # none of these streams came to its end
            self.assertEqual(until_reset(client), b"")
            self.assertEqual(until_reset(server), b"")
        until_reset(pairs[0][0])

    def test_sigterm_twice(self):
        self.check(signal.SIGTERM, signal.SIGTERM)

    def test_sigint_while_it_drains(self):
        self.check(signal.SIGTERM, signal.SIGINT)

    def test_sigint(self):
        self.check(signal.SIGINT)


class CommandLine(ForwardTest):
    def test_bad_options(self):
        remote = ("-r", "127.0.0.1")
        for args, words in (
                ((), ("remote-ip",)),
                (("-p", "8080"), ("remote-ip",)),
                (("-x",), ("-x",)),
                (("--wrong", "-r", "127.0.0.1"), ("--wrong",)),
                (("-r",), ("-r",)),
                (("--remote-port",), ("--remote-port",)),
                (remote + ("--help=yes",), ("--help=yes",)),
                (remote + ("stray",), ("stray",)),
                (remote + ("-p", "65536"), ("local-port", "65536")),
                (remote + ("-p", "-1"), ("local-port", "-1")),
                (remote + ("-p", "http"), ("local-port", "http")),
                (remote + ("-p", "80 "), ("local-port", "80 ")),
                (remote + ("-p", ""), ("local-port",)),
                (remote + ("-P", "0"), ("remote-port", "0")),
                (remote + ("-P", "99999999999999999999"), ("remote-port", "99999999999999999999")),
                (remote + ("-P", "0x50"), ("remote-port", "0x50")),
                (("-r", ""), ("remote-ip",)),
                (remote + ("-l", "unix:s"), ("unix:s",)),
                (("-r", "unix:@s"), ("unix:@s",)),
        ):
            with self.subTest(args=args):
                self.assert_fails(self.run_program("portforward", *args), 2, "portforward: ", *words)

    def test_cannot_listen(self):
        port = self.server.getsockname()[1]
        for args, words in (
                (("-p", port), ("127.0.0.1", str(port), "address already in use")),
                (("-p", 0, "-l", "192.0.2.1"), ("192.0.2.1", "cannot assign requested address")),
                (("-p", 0, "-l", "does-not-exist.invalid"), ("does-not-exist.invalid",)),
        ):
            with self.subTest(args=args):
                self.assert_fails(self.run_program("portforward", "-r", "127.0.0.1", *args), 1, "portforward: ", *words)

    def test_help_and_version(self):
        for option in ("-h", "--help"):
            code, out, errors = self.run_program("portforward", option)
            self.assertEqual((code, errors), (0, ""))
            for name in ("-l, --local-ip", "-p, --local-port", "-r, --remote-ip", "-P, --remote-port"):
                self.assertIn(name, out.decode())
        for option in ("-V", "--version"):
            code, out, errors = self.run_program("portforward", option)
            self.assertEqual((code, errors), (0, ""))
            self.assertRegex(out.decode(), r"\Aportforward [0-9]+\.[0-9]+\.[0-9]+\n\Z")

    def test_starts_again_at_once(self):
        """Where connections that it closed first have left the port in TIME_WAIT."""
        for _ in range(10):
            self.start_forward()
            client, server = self.both_ends()
            server.close()
            self.assertEqual(client.recv(1), b"")
            client.close()
            self.assert_fds_return(self.program, self.fds)
            self.assert_stops(self.program)
            again = self.start("portforward", "-p", self.program.address[1], "-r", "127.0.0.1")
            if again.read_line():  # else somebody else has taken the port, unless it is so every time
                self.assert_stops(again)
                return
        self.fail(again.errors())

    def test_nobody_hears(self):
        for redirection, args in ((">/dev/full", ["--help"]), (">/dev/full", ["-p", "0", "-r", "127.0.0.1"]),
                                  (">&-", ["-p", "0", "-r", "127.0.0.1"]), (">&- <&-", ["-p", "0", "-r", "127.0.0.1"])):
            with self.subTest(redirection=redirection, args=args):
                command = ["/bin/sh", "-c", 'exec "$@" ' + redirection, "sh"] + WRAPPER + [binary("portforward")]
                self.assert_fails(self.run_program(command, *args), 1, "portforward: standard output: ")

    def test_long_options(self):
        host, port = self.server.getsockname()
        self.program = self.start("portforward", "--local-ip=127.0.0.1", "--local-port=0", "--remote-ip", host,
                                  "--remote-port", port)
        line = self.program.read_line()
        self.assertTrue(line.endswith(", forwarding to %s:%d\n" % (host, port)), line)
        self.program.address = ("127.0.0.1", int(line.split(":")[2].split(",")[0]))
        self.assert_serves()
        self.assert_stops(self.program)

    def test_defaults(self):
        """Only -r: port 80 of 127.0.0.1, to port 80. Who may not listen there hears just that."""
        program = self.start("portforward", "-r", "192.0.2.1")
        line = program.read_line()
        if line:
            self.assertEqual(line, "portforward: listening on 127.0.0.1:80, forwarding to 192.0.2.1:80\n")
            self.assert_stops(program)
        else:
            self.assertEqual(program.wait(), 1)
            self.assert_one_line(program.errors(), "portforward: ", "127.0.0.1 port 80: ")


class UnixQueue(ForwardTest):
    """A Unix listener with a full queue refuses with EAGAIN, and the kernel tells nobody when there is room."""

    def setUp(self):
        super().setUp()
        self.name = "\0asyncore-test-%s" % os.urandom(8).hex()
        self.queue = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.queue.close)
        self.queue.bind(self.name)
        self.queue.listen(0)
        self.queue.settimeout(DEADLINE)

    def start_unix(self, *args, others="", port="-"):
        program = self.start("portforward", *args, "127.0.0.1 0 unix:@%s%s %s" % (self.name[1:], others, port))
        program.address = ("127.0.0.1", int(program.read_line().split(":")[2].split(",")[0]))
        return program

    def test_clients_wait_for_a_place(self):
        program = self.start_unix()
        clients = [self.connect(program) for _ in range(8)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        poll_until(lambda: program.fds() > 8 + len(clients), "they connect")
        told = set()
        for _ in clients:
            server, _ = self.queue.accept()
            with server:
                server.settimeout(DEADLINE)
                told.add(receive(server, 1))
                server.sendall(b"!")
        self.assertEqual(told, {b"%d" % number for number in range(8)})
        self.assertEqual([receive_all(client) for client in clients], [b"!"] * 8)

    def test_no_longer_than_connect(self):
        program = self.start_unix("--connect", "300ms")
        clients = [self.connect(program) for _ in range(6)]
        poll_until(lambda: program.errors().count("end=connect-timeout") >= 4, "those behind the queue are given up")
        self.assert_no_spin(program)
        reset = [client for client in clients if select.select([client], [], [], 0)[0]]
        self.assertGreaterEqual(len(reset), 4)
        for client in reset:
            self.assertEqual(until_reset(client), b"")

    def fill(self):
        """Until connects find no room."""
        while True:
            s = socket.socket(socket.AF_UNIX)
            self.addCleanup(s.close)
            s.setblocking(False)
            try:
                s.connect(self.name)
            except BlockingIOError:
                return

    def test_the_next_remote_is_tried_meanwhile(self):
        self.fill()
        host, port = self.server.getsockname()
        program = self.start_unix(others=",%s" % host, port=port)
        for _ in range(2):
            client = self.connect(program)
            client.sendall(b"here")
            server, _ = self.server.accept()
            with server:
                server.settimeout(DEADLINE)
                self.assertEqual(receive(server, 4), b"here")

    def test_a_place_is_waited_for_if_the_others_refuse(self):
        """All remotes are tried, then the queue is waited for: its listener may yet come to accept."""
        self.fill()
        port = self.server.getsockname()[1]
        self.server.close()
        program = self.start_unix(others=",127.0.0.1", port=port)
        client = self.connect(program)
        client.sendall(b"at last")
        poll_until(lambda: program.fds() > 8, "it connects")
        self.assertEqual(select.select([client], [], [], 0.2)[0], [])
        while True:
            server, _ = self.queue.accept()
            with server:
                server.settimeout(DEADLINE)
                server.setblocking(True)
                if select.select([server], [], [], 0.3)[0] and server.recv(7) == b"at last":
                    return


if __name__ == "__main__":
    unittest.main()
