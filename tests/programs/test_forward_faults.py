"""portforward under a kernel that answers as it seldom does (awkward.c): the same bytes, the same ends, the same
reasons; and under very many short connections, on copy, splice and auto."""
import collections
import os
import random
import re
import select
import socket
import subprocess
import threading
import unittest

from forward_support import (CHECKED, MB, PATHS, Forwarder, ForwardTest, Namespace, helper, late_reset,
                             needs_namespaces, pushed, smaller, until_reset)
from support import poll_until, receive, reset

RESET_BY = ("client-reset", "remote-reset")


class AwkwardTest(ForwardTest):
    def awkward(self, path, seed, one_in, *options, **forwarder):
        env = {"LD_PRELOAD": helper("awkward.so"), "AWKWARD": "%d:%d" % (seed, one_in)}
        if CHECKED:  # awkward.so comes before the checker's own library, and means to
            env["ASAN_OPTIONS"] = ":".join([os.environ.get("ASAN_OPTIONS", ""), "verify_asan_link_order=0"])
        return Forwarder(self, path, *options, env=env, **forwarder)

    def finish(self, f, *kinds):
        """As ever; and these kinds of calls were awkward at least once."""
        f.finish("awkward: .*", r"\S+ portforward: rule=\S+ refused=0 denied=0 failed=\d+ error=.*")
        counts = dict(re.findall(r" ([a-z-]+) (\d+)", f.program.errors().splitlines()[-1]))
        for kind in kinds:
            self.assertGreater(int(counts[kind]), 0, (f.path, kind, counts))
        return counts

    def on_each_path(self, check, seed, one_in, kinds, *options, **forwarder):
        def whole(path):
            f = self.awkward(path, seed, one_in, *options, **forwarder)
            check(f)
            self.finish(f, *kinds, *(("splice",) if path == "splice" else ()))
        self.at_once(*[(path, whole, path) for path in PATHS])


class Script:
    """What a client and a server do to each other, from a seed: they send, end, reset, or fall silent. The reason of
    the end follows from it, and what each receives."""

    def __init__(self, test, f, seed, lock):
        self.test, self.f, self.seed = test, f, seed
        self.chance = random.Random(seed)
        with lock:
            self.ends = f.pair()
            self.client = f.used[-1]
        self.open = [True, True]
        self.sent = [0, 0]

    def send(self, side, size):
        data = pushed(size, seed=self.seed % 7)
        join = self.test.in_thread(self.ends[side].sendall, data)
        got = receive(self.ends[1 - side], size)
        join()
        self.test.assertTrue(got == data, "script %d: %d of %d bytes" % (self.seed, len(got), size))
        self.sent[side] += size

    def end(self, side):
        self.ends[side].shutdown(socket.SHUT_WR)
        self.test.assertEqual(self.ends[1 - side].recv(1), b"", "script %d" % self.seed)
        self.open[side] = False

    def talk(self):
        for _ in range(self.chance.randint(0, 8)):
            side = self.chance.randint(0, 1)
            if not self.open[side]:
                side = 1 - side
            self.send(side, self.chance.choice((1, 100, 5000, 70000, smaller(1500000))))
            if all(self.open) and self.chance.random() < 0.15:
                self.end(side)

    def is_reset(self, side):
        """This end hears of a reset, whatever it heard before."""
        if self.open[1 - side]:
            self.test.assertEqual(until_reset(self.ends[side]), b"", "script %d" % self.seed)
        else:
            late_reset(self.ends[side])

    def close(self):
        for side in self.chance.choice(((0, 1), (1, 0))):
            if self.open[side]:
                self.end(side)
        return "closed"

    def reset(self):
        side = self.chance.randint(0, 1)
        reset(self.ends[side])
        self.is_reset(1 - side)
        return RESET_BY[side]

    def reset_after_bytes(self):
        side = self.open.index(True)
        data = pushed(self.chance.randint(1, 200000))
        self.ends[side].sendall(data)
        reset(self.ends[side])
        got = until_reset(self.ends[1 - side])
        self.test.assertTrue(data.startswith(got), "script %d: %d bytes, not a prefix" % (self.seed, len(got)))
        self.sent[side] += len(got)
        return RESET_BY[side]

    def fall_silent(self):
        for side in (0, 1):
            self.is_reset(side)
        return "idle-timeout" if all(self.open) else "half-timeout"

    def run(self):
        self.talk()
        finish = self.chance.choice((self.close,) * 5 + (self.reset,) * 3 + (self.reset_after_bytes,) * 2 +
                                    (self.fall_silent,))
        reason = finish()
        line = self.f.line_of(self.client, reason)
        if finish == self.reset_after_bytes:  # the log counts what the socket took, of which not all need have arrived
            self.test.assertLessEqual(tuple(self.sent), (line.up, line.down))
        else:
            self.test.assertEqual((line.up, line.down), tuple(self.sent), "script %d" % self.seed)
        for s in self.ends:
            s.close()


class Scripts(AwkwardTest):
    def scripts(self, f, seeds):
        """All of them, four at a time."""
        lock, left = threading.Lock(), list(seeds)

        def some():
            while left:
                seed = left.pop()
                try:
                    Script(self, f, seed, lock).run()
                except Exception as error:
                    raise AssertionError("script %d: %r" % (seed, error)) from error
        self.at_once(*[(str(i), some) for i in range(4)])

    def test_scripts_in_peace(self):
        """The scripts themselves are right: nothing is awkward here."""
        def whole(path):
            f = Forwarder(self, path, "--idle", "3s", "--half", "2s")
            self.scripts(f, range(20))
            f.finish()
        self.at_once(*[(path, whole, path) for path in PATHS])

    def test_scripts_under_many_faults(self):
        self.on_each_path(lambda f: self.scripts(f, range(100, 160)), 1, 3,
                          ("recv", "send", "connect", "accept", "wait"), "--idle", "3s", "--half", "2s")

    def test_scripts_under_some_faults(self):
        self.on_each_path(lambda f: self.scripts(f, range(200, 260)), 2, 12, ("recv", "send", "wait"),
                          "--idle", "3s", "--half", "2s")


class Streams(AwkwardTest):
    def both_ways(self, f, size, count=1, **options):
        """So many connections at once, the ends of which send so much each."""
        joins = []
        for client, server in [f.pair() for _ in range(count)]:
            joins += [self.stream(client, size, size, 1, **options), self.stream(server, size, size, 2, **options)]
        for join in joins:
            join()
        for client in f.used[-count:]:
            line = f.line_of(client, "closed")
            self.assertEqual((line.up, line.down), (size, size))

    def test_stream_under_faults(self):
        """Very many faults, and so few that large pieces are made and splicing goes on for a while."""
        self.on_each_path(lambda f: self.both_ways(f, smaller(48 * MB)), 1, 2, ("recv", "send"))
        self.on_each_path(lambda f: self.both_ways(f, smaller(96 * MB)), 1, 25, ())

    def test_splice_that_is_refused_with_bytes_in_the_pipe(self):
        """The reader sleeps, so that pipes hold bytes; from then on splicing may be refused at any time."""
        def check(f):
            for _ in range(4):
                self.both_ways(f, smaller(4 * MB, 2), 8, late=300)

        def whole(path):
            f = self.awkward(path, 5, 3)
            check(f)
            self.finish(f, *(("splice", "refused-splice", "pipe") if path == "splice" else ()))
        self.at_once(*[(path, whole, path) for path in PATHS if path != "copy"])


class Connects(AwkwardTest):
    def test_refused(self):
        def check(f):
            for _ in range(30):
                try:
                    self.assertEqual(until_reset(f.client()), b"")
                except ConnectionResetError:
                    pass
            for client in filter(None, f.used):
                f.line_of(client, "connect-refused")
            f.server.close()

        def whole(path):
            f = self.awkward(path, 3, 2, server=self.deaf_listener)
            check(f)
            self.finish(f, "connect", "accept")
        self.at_once(*[(path, whole, path) for path in PATHS])

    def test_clients_that_come_and_go(self):
        """Reset at once, before, while or after the forwarder accepts and connects."""
        def check(f):
            chance = random.Random(f.path)
            for _ in range(100):
                try:
                    client = f.client()
                    if chance.random() < 0.5:
                        client.sendall(b"gone")
                    reset(client)
                except ConnectionResetError:
                    pass
            poll_until(lambda: sum(map(len, f.lines()[0].values())) == len(f.used), "a line for each")
            while select.select([f.server], [], [], 0)[0]:
                f.accept().close()
            for client in filter(None, f.used):
                f.line_of(client, "client-reset")

        def whole(path):
            f = self.awkward(path, 4, 3)
            check(f)
            self.finish(f, "connect", "accept")
        self.at_once(*[(path, whole, path) for path in PATHS])


@needs_namespaces
class ShortConnections(ForwardTest):
    """In a namespace of its own, whose ports in TIME_WAIT are in nobody's way."""

    def setUp(self):
        super().setUp()
        self.namespace = Namespace(self)

    def begin(self, path):
        """short_connections.c, and a forwarder to it: the function that lets them have so many connections."""
        process = subprocess.Popen(self.namespace.before + [helper("short_connections"), "64"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        port = int(process.stdout.readline())
        f = Forwarder(self, path, rule="127.0.0.1 0 127.0.0.1 %d" % port, before=self.namespace.before)

        def run(count, ways):
            process.stdin.write(b"%d %d %s\n" % (f.address[1], count, ways.encode()))
            process.stdin.flush()
            self.assertEqual(process.stdout.readline().decode(), "%d connections\n" % count, path)
            f.gone()
        return f, run

    def time_waits(self, f):
        with open("/proc/%d/net/tcp" % f.program.pid) as table:
            return sum(row.split()[3] == "06" for row in table.read().splitlines()[1:])

    def test_a_hundred_thousand(self):
        count = smaller(50000)
        for path in PATHS:
            with self.subTest(path=path):
                f, run = self.begin(path)
                run(400, "CScs")
                poll_until(lambda: f.lines()[0], "lines")  # what is made once for all is made
                memory, waits = f.program.memory("VmRSS"), self.time_waits(f)
                run(count, "CS")
                self.assertLessEqual(self.time_waits(f), waits, "resets leave ports in TIME_WAIT")
                run(count, "cs")
                f.rests()
                if not CHECKED:
                    self.assertLess(f.program.memory("VmRSS") - memory, MB // 2, "memory grows with each connection")
                f.assert_descriptors_return()
                self.assertEqual(f.program.stop(), 0, f.program.errors()[-2000:])
                self.check_lines(f, count)

    def check_lines(self, f, count):
        lines, others = f.lines()
        ends = collections.Counter((line.end, line.up, line.down) for of_one in lines.values() for line in of_one)
        self.assertEqual(ends, {("client-reset", 16, 16): 100 + count // 2, ("remote-reset", 32, 16): 100 + count // 2,
                                ("closed", 16, 16): 200 + count})
        self.assertEqual(others, [])


if __name__ == "__main__":
    unittest.main()
