"""portforward's data path: every byte, in order, once, on copy, splice and auto, whoever reads or writes how.

PORTFORWARD_GB=N sends so many gigabytes each way at once instead of 2."""
import array
import fcntl
import os
import random
import re
import select
import socket
import termios
import time
import unittest

from forward_support import (CHECKED, ENDLESS, MB, PATHS, STALLED, Forwarder, ForwardTest, Namespace, endless, exchange,
                             needs_namespaces, push, pushed, smaller)
from support import DEADLINE, pattern, poll_until, receive, receive_all

MEMORY = 24 * MB  # of a forwarder with a few connections, however much they carry
SEGMENT = 1448


class Bytes(ForwardTest):
    def assert_bounded(self, f, limit=MEMORY):
        if not CHECKED:
            self.assertLess(f.program.memory(), limit, f.path)

    def both_ways(self, f, size, **options):
        """One connection, the two ends of which send so much each; what the log says of it."""
        client, server = f.pair()
        joins = [self.stream(client, size, size, 1, **options), self.stream(server, size, size, 2, **options)]
        for join in joins:
            join()
        line = f.line_of(f.used[-1], "closed")
        self.assertEqual((line.up, line.down), (size, size))

    def test_gigabytes_both_ways_at_once(self):
        size = int(os.environ.get("PORTFORWARD_GB", "2")) << 30

        def check(f):
            start = time.monotonic()
            self.both_ways(f, smaller(size))
            print("%s: %d MB each way at once: %.1f s, %.2f s of CPU, VmHWM %d kB" % (
                f.path, smaller(size) >> 20, time.monotonic() - start, f.program.cpu(), f.program.memory() >> 10))
            self.assert_bounded(f)
        self.on_path_after_path(check)

    def test_small_writes_both_ways_at_once(self):
        """Pieces as they were written, some large and most of them small: the path changes all the time."""
        self.on_path_after_path(lambda f: self.both_ways(f, smaller(16 * MB), largest=20000))

    def test_both_write_before_they_read(self):
        """Each end sends until it is stopped, up to 64 MB, and only then reads: no stuck way must hold the other."""
        def check(f):
            self.both_ways(f, 64 * MB, late=1000 * STALLED)
            self.assert_bounded(f)
        self.on_path_after_path(check)

    def test_more_bulk_than_pipes_and_buffers(self):
        """48 connections stuck both ways, and then all flowing: who gets no pipe and no large buffer does without."""
        def check(f):
            joins = []
            for _ in range(48):
                client, server = f.pair()
                joins += [self.stream(client, smaller(6 * MB), smaller(5 * MB), 1, late=1000 * STALLED),
                          self.stream(server, smaller(5 * MB), smaller(6 * MB), 2, late=1000 * STALLED)]
            for join in joins:
                join()
            for client in f.used:
                line = f.line_of(client, "closed")
                self.assertEqual((line.up, line.down), (smaller(6 * MB), smaller(5 * MB)))
            self.assert_bounded(f, 2 * MEMORY)
        self.on_path_after_path(check)

    def test_messages_between_bulk(self):
        """A flow that turns from bulk to messages and back: each message is there without a further byte."""
        def check(f):
            client, server = f.pair()
            for i in range(10):
                for a, b in ((client, server), (server, client)):
                    data = pattern(smaller(3 * MB) + i, seed=i + 1)
                    join = self.in_thread(a.sendall, data)
                    self.assertTrue(receive(b, len(data)) == data, "bulk %d on %s" % (i, f.path))
                    join()
                for j in range(50):
                    exchange(client, server, b"%d of %d" % (j, i))
            client.close()
            server.close()
            self.assertEqual(f.line_of(f.used[-1], "closed").up, f.line_of(f.used[-1], "closed").down)
        self.on_each_path(check)

    def test_server_speaks_first(self):
        def check(f):
            client, server = f.pair()
            server.sendall(b"220 ready\r\n")
            self.assertEqual(receive(client, 11), b"220 ready\r\n")
            f.rests(0.2)
            server.close()
            self.assertEqual(client.recv(1), b"")
            client.close()
            line = f.line_of(f.used[-1], "closed")
            self.assertEqual((line.up, line.down), (0, 11))
        self.on_each_path(check)


class Urgent(ForwardTest):
    def each_way(self, check):
        def both(f):
            for side in (0, 1):
                ends = f.pair()
                check(f, ends[side], ends[1 - side])
                for s in ends:
                    s.close()
                f.line_of(f.used[-1], "closed")
        self.on_each_path(both)

    def test_urgent_byte_alone(self):
        def check(f, a, b):
            exchange(a, b)
            a.send(b"!", socket.MSG_OOB)
            self.assertEqual(receive(b, 1), b"!")
            f.rests(0.2)
            exchange(a, b)
        self.each_way(check)

    def test_urgent_byte_between_messages(self):
        def check(f, a, b):
            for i in range(50):
                a.sendall(b"before %d " % i)
                a.send(b"!", socket.MSG_OOB)
                a.sendall(b" after")
                expected = b"before %d ! after" % i
                self.assertEqual(receive(b, len(expected)), expected)
                exchange(b, a)
        self.each_way(check)

    def test_urgent_byte_amid_bulk(self):
        """The reader sleeps, so that the urgent byte is met while bytes are stuck, then amid what flows."""
        def check(f, a, b):
            data = pattern(smaller(8 * MB))

            def send():
                for _ in range(3):
                    a.sendall(data)
                    a.send(b"!", socket.MSG_OOB)
                a.sendall(data)
                a.shutdown(socket.SHUT_WR)
            join = self.in_thread(send)
            f.rests()
            got = receive_all(b)
            join()
            self.assertTrue(got == (data + b"!") * 3 + data, "%d bytes on %s" % (len(got), f.path))
            exchange_end(b, a)
        self.each_way(check)

    def test_urgent_byte_is_the_last(self):
        """Urgent, then the end at once: neither is lost, and a forwarder that must not read it now does not spin."""
        def check(f, a, b):
            data = pattern(smaller(8 * MB))
            sent = push(a)
            a.settimeout(0)
            last = b""
            try:
                a.send(b"!", socket.MSG_OOB)
                last = b"!"
            except BlockingIOError:
                pass  # no room for it: the end alone
            a.shutdown(socket.SHUT_WR)
            f.rests()
            self.assertTrue(receive_all(b) == pushed(sent) + last)
            b.sendall(data[:1000])
            a.settimeout(DEADLINE)
            exchange_end(b, a, data[:1000])
        self.each_way(check)


def exchange_end(b, a, before=b""):
    """b, too, ends its stream."""
    b.shutdown(socket.SHUT_WR)
    if receive_all(a) != before:
        raise AssertionError("not the end of the answer")


class SleepingReaders(ForwardTest):
    def test_reader_sleeps(self):
        """Nothing flows, nothing spins, the other direction is open, and then all of it is there."""
        def check(f):
            for side in (0, 1):
                ends = f.pair()
                sender, reader = ends[side], ends[1 - side]
                sent = push(sender)
                self.assertLess(sent, ENDLESS, "the sender is not stopped")
                f.rests()
                reader.sendall(b"the other direction is open")
                self.assertEqual(receive(sender, 27), b"the other direction is open")
                sender.shutdown(socket.SHUT_WR)
                f.rests(0.2)
                self.assertTrue(receive_all(reader) == pushed(sent), f.path)
                reader.close()
                sender.close()
                line = f.line_of(f.used[-1], "closed")
                self.assertEqual((line.up, line.down), ((sent, 27), (27, sent))[side])
        self.on_each_path(check)

    def test_slow_reader_after_the_end(self):
        """The sender has sent all, ended and closed; the last megabyte and the end are in forwarder and kernel."""
        def check(f):
            for side in (0, 1):
                ends = f.pair()
                sender, reader = ends[side], ends[1 - side]
                sent = push(sender)
                sender.shutdown(socket.SHUT_WR)
                data = bytearray()
                chance = random.Random(side)
                while True:
                    piece = reader.recv(chance.randint(1, 1 << chance.randint(4, 18)))
                    if not piece:
                        break
                    data += piece
                    if chance.random() < 0.02:
                        time.sleep(0.01)  # that is what makes it slow
                self.assertTrue(data == pushed(sent), "%d of %d bytes on %s" % (len(data), sent, f.path))
                exchange_end(reader, sender)
                sender.close()
                reader.close()
                f.line_of(f.used[-1], "closed")
        self.on_each_path(check)

    def test_reader_of_one_byte_at_a_time(self):
        """Windows that open by a little: what the forwarder holds goes out by and by, and in order."""
        def check(f):
            client, server = f.pair(receive_buffer=4096)
            size = smaller(2 * MB, 16)
            join = self.in_thread(server.sendall, pushed(size))
            data = bytearray()
            while len(data) < size:
                data += client.recv(1 if len(data) % 3 else 777)
            join()
            self.assertTrue(data == pushed(size))
            client.close()
            server.close()
        self.on_each_path(check)

    def bound(self, f, connections):
        """What --check says that so many connections take at most, in bytes."""
        rule = "127.0.0.1 0 127.0.0.1 80"
        code, out, errors = self.run_program("portforward", "--data-path", f.path, "--check", rule)
        found = re.search(r"memory: .*\* ([0-9.]+) KiB, and ([0-9.]+) MiB for all", out.decode())
        self.assertTrue(found, (code, out, errors))
        return connections * float(found.group(1)) * 1024 + float(found.group(2)) * MB

    @needs_namespaces
    def test_a_thousand_sleep(self):
        """Small buffers in the kernel, in a namespace of its own, so that it is not the kernel that holds gigabytes."""
        count = smaller(1000)
        namespace = Namespace(self)
        for name in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
            namespace.set(name, "4096 16384 65536")

        def check(f):
            before = f.program.memory("VmRSS")
            pairs = [namespace.call(f.pair) for _ in range(count)]
            sent = push_all([server for _, server in pairs])
            f.rests()
            memory = f.program.memory() - before
            print("%s: %d sleeping readers, %d bytes a connection" % (f.path, count, memory / count))
            if not CHECKED:
                self.assertLess(memory, self.bound(f, count), f.path)
            for (client, server), size in zip(pairs, sent):
                server.close()
                self.assertTrue(receive_all(client) == pushed(size))
                client.close()
        for path in PATHS:
            with self.subTest(path=path):
                f = Forwarder(self, path, server=lambda: namespace.call(self.listener), before=namespace.before)
                namespace.call(check, f)
                namespace.call(f.finish)


def push_all(sockets):
    """push() on all of them at once: how much each has taken when none takes more."""
    data = memoryview(endless(1))
    sent = {s.fileno(): 0 for s in sockets}
    known = {s.fileno(): s for s in sockets}
    poll = select.epoll()
    for s in sockets:
        s.setblocking(False)
        poll.register(s, select.EPOLLOUT)
    while True:
        ready = poll.poll(STALLED)
        if not ready:
            break
        for fd, _ in ready:
            at = sent[fd] % MB
            sent[fd] += known[fd].send(data[at:at + 65536])
    poll.close()
    for s in sockets:
        s.settimeout(DEADLINE)
    return [sent[s.fileno()] for s in sockets]


@needs_namespaces
class Segments(ForwardTest):
    """Each slot of a pipe takes a piece of a segment, so that segments of an Ethernet's size fill a pipe long before
    its bytes do, and 'try again' then means the pipe, not the socket."""

    def setUp(self):
        super().setUp()
        self.far, self.near = Namespace(self), Namespace(self)
        far, near = self.far.join(self.near, "192.0.2.1", "192.0.2.2")
        self.far.run("ip", "link", "set", far, "gso_max_segs", "1")
        self.near.run("ip", "link", "set", near, "gso_max_segs", "1")

    def pipe_bytes(self, program):
        """The fewest bytes in any pipe of the program's that is not empty; 0: all are."""
        counts = []
        folder = "/proc/%d/fd" % program.pid
        for fd in os.listdir(folder):
            path = os.path.join(folder, fd)
            if os.readlink(path).startswith("pipe:") and int(fd) > 2:
                end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                count = array.array("i", [0])
                fcntl.ioctl(end, termios.FIONREAD, count)
                os.close(end)
                counts.append(count[0])
        return min(filter(None, counts), default=0)

    def each_path(self, check):
        for path in PATHS:
            with self.subTest(path=path):
                f = Forwarder(self, path, rule="192.0.2.2 0 127.0.0.1 %d", before=self.near.before,
                              server=lambda: self.near.call(self.listener))
                self.far.call(check, f)
                self.far.call(f.finish)

    def test_segments_fill_the_pipe(self):
        """Four connections whose segments take turns: no two of one connection lie side by side in memory."""
        size = 12 * MB

        def check(f):
            pairs = [f.pair() for _ in range(4)]
            join = self.in_thread(self.send_segments, [client for client, _ in pairs], size)
            f.rests(0.5)  # the readers sleep
            if f.path == "splice":
                held = poll_until(lambda: (f.rests(), self.pipe_bytes(f.program))[1], "bytes wait in a pipe")
                self.assertLess(held, 128 << 10, "it is not segments that fill the pipe")
                print("splice: %d bytes of segments fill a pipe" % held)
            joins = [self.in_thread(receive_all, server) for _, server in pairs]
            join()
            for got in [join() for join in joins]:
                self.assertTrue(got == pattern(size), "%d of %d bytes on %s" % (len(got), size, f.path))
            for client, server in pairs:
                server.close()
                client.close()
            for client in f.used:
                self.assertEqual(f.line_of(client, "closed").up, size)
        self.each_path(check)

    def send_segments(self, clients, size):
        data = memoryview(pattern(size))
        for at in range(0, size, SEGMENT):
            for client in clients:
                client.sendall(data[at:at + SEGMENT])
        for client in clients:
            client.shutdown(socket.SHUT_WR)

    def test_segments_both_ways(self):
        def check(f):
            size = smaller(24 * MB)
            client, server = f.pair()
            joins = [self.stream(client, size, size, 1, largest=1), self.stream(server, size, size, 2, largest=1)]
            for join in joins:
                join()
            f.line_of(f.used[-1], "closed")
        self.each_path(check)


if __name__ == "__main__":
    unittest.main()
