"""portforward's timers, and whom it connects to: on copy, splice and auto, never early, and late only as the machine
is."""
import signal
import socket
import time
import unittest

from forward_support import (LATE, PATHS, Forwarder, ForwardTest, Namespace, exchange, late_reset, needs_namespaces,
                             push, pushed, until_reset)
from support import poll_until, receive, receive_all

TICK = 0.002  # seconds: the forwarder's clock counts ms, ours began a little before or after


def connecting_to(port):
    """Whether any socket of this machine is in SYN_SENT to 127.0.0.1 and this port."""
    with open("/proc/net/tcp") as f:
        return any(line.split()[2:4] == ["0100007F:%04X" % port, "02"] for line in f)


class TimesTest(ForwardTest):
    def assert_took(self, seconds, took, what):
        self.assertGreaterEqual(took, seconds - TICK, "%s is early" % what)
        self.assertLess(took, seconds + LATE, "%s is late" % what)

    def ends_after(self, f, seconds, since, sockets, end):
        """The sockets are all reset so long after `since`, which the log calls by this name."""
        for s in sockets:
            self.assertEqual(until_reset(s), b"")
        self.assert_took(seconds, time.monotonic() - since, end)
        return f.line_of(f.used[-1], end)


class Idle(TimesTest):
    def test_idle(self):
        def check(f):
            start = time.monotonic()
            pair = f.pair()
            line = self.ends_after(f, 1, start, pair, "idle-timeout")
            self.assert_took(1, line.ms / 1000, "the log's time")
            pair = f.pair()
            for _ in range(3):
                start = time.monotonic()
                exchange(*pair)
            self.ends_after(f, 1, start, pair, "idle-timeout")
        self.on_each_path(check, "--idle", "1s")

    def test_idle_to_the_tick(self):
        """Many that fall silent at different moments: each has its time to itself, and none has less."""
        def check(f):
            starts, waits = {}, []
            for i in range(30):
                client, server = f.pair()
                starts[f.used[-1]] = (i, time.monotonic())
                client.sendall(b"x")
                receive(server, 1)
                waits.append(self.in_thread(self.reset_at, client))
                time.sleep(0.011)
            late = []
            for (i, start), wait in zip(starts.values(), waits):
                took = wait() - start
                self.assertGreaterEqual(took, 0.7 - TICK, "number %d is early" % i)
                late.append(took - 0.7)
            self.assertLess(sorted(late)[15], LATE / 2)
            self.assertLess(max(late), LATE)
            for client in f.used:
                f.line_of(client, "idle-timeout")
        self.on_each_path(check, "--idle", "700ms")

    def reset_at(self, s):
        until_reset(s)
        return time.monotonic()

    def test_a_byte_now_and_then_keeps_it_alive(self):
        """In either direction."""
        def check(f):
            def now_and_then(a, b, used):
                for _ in range(6):
                    time.sleep(0.4)
                    start = time.monotonic()
                    a.sendall(b".")
                    self.assertEqual(receive(b, 1), b".")
                for s in (a, b):
                    self.assertEqual(until_reset(s), b"")
                self.assert_took(1, time.monotonic() - start, "idle")
                f.line_of(used, "idle-timeout")
            ends = [f.pair() for _ in range(2)]
            self.at_once(("client", now_and_then, *ends[0], f.used[0]),
                         ("server", now_and_then, *ends[1][::-1], f.used[1]))
        self.on_each_path(check, "--idle", "1s")

    def test_stuck_is_idle(self):
        """Nobody reads, so nothing moves: bytes in flight are no sign of life."""
        def check(f):
            client, server = f.pair()
            sent = push(client)
            f.line_of(f.used[-1], "idle-timeout")
            self.assertTrue(pushed(sent).startswith(until_reset(server)))
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                client.sendall(b"more")
        self.on_each_path(check, "--idle", "1s")

    def test_no_idle_timeout(self):
        def check(f):
            pair = f.pair()
            time.sleep(2)
            exchange(*pair)
            for s in pair:
                s.close()
        self.on_each_path(check, "--idle", "none")


class Life(TimesTest):
    def test_life_ends_what_flows(self):
        def check(f):
            start = time.monotonic()
            client, server = f.pair()

            def send():
                while True:
                    server.sendall(b"alive" * 2000)
                    time.sleep(0.001)
            join = self.in_thread(send)
            until_reset(client)
            self.assert_took(2, time.monotonic() - start, "life")
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                join()
            line = f.line_of(f.used[-1], "life-timeout")
            self.assert_took(2, line.ms / 1000, "the log's time")
        self.on_each_path(check, "--life", "2s")

    def test_life_ends_what_is_silent_half_closed_or_stuck(self):
        def check(f):
            start = time.monotonic()
            silent, half, stuck = f.pair(), f.pair(), f.pair()
            half[0].shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(half[1]), b"")
            push(stuck[1])
            self.assertEqual(until_reset(silent[0]), b"")
            self.assert_took(1.5, time.monotonic() - start, "life")
            self.assertEqual(until_reset(silent[1]), b"")
            self.assertEqual(until_reset(half[0]), b"")
            late_reset(half[1])
            until_reset(stuck[0])
            for client in f.used:
                f.line_of(client, "life-timeout")
        self.on_each_path(check, "--life", "1500ms")

    def test_the_nearest_deadline_comes_first(self):
        def check(f):
            start = time.monotonic()
            pair = f.pair()
            self.ends_after(f, 1, start, pair, "idle-timeout")
            start = time.monotonic()
            pair = f.pair()
            for _ in range(3):
                time.sleep(0.5)
                exchange(*pair)
            self.ends_after(f, 2, start, pair, "life-timeout")
            start = time.monotonic()
            client, server = f.pair()
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(server), b"")
            self.assertEqual(until_reset(client), b"")
            self.assert_took(0.5, time.monotonic() - start, "half")
            late_reset(server)
            f.line_of(f.used[-1], "half-timeout")
        self.on_each_path(check, "--life", "2s", "--idle", "1s", "--half", "500ms")


class Half(TimesTest):
    def half_closed(self, f, side, what):
        ends = f.pair()
        used = f.used[-1]
        a, b = ends[side], ends[1 - side]
        a.sendall(b"question")
        start = time.monotonic()
        a.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_all(b), b"question")
        return used, a, b, start, what

    def silent(self, f, used, a, b, start, what):
        self.assertEqual(until_reset(a), b"")
        self.assert_took(1, time.monotonic() - start, what)
        late_reset(b)
        f.line_of(used, "half-timeout")

    def flowing(self, f, used, a, b, start, what):
        """The answer comes in pieces, for longer than the timer is, and then stops."""
        for _ in range(6):
            time.sleep(0.4)
            start = time.monotonic()
            b.sendall(b"piece")
            self.assertEqual(receive(a, 5), b"piece")
        self.silent(f, used, a, b, start, what)

    def test_half_timer_is_extended_by_flow_and_ends_in_a_reset(self):
        def check(f):
            cases = [(self.silent, f, *self.half_closed(f, side, "silent")) for side in (0, 1)]
            cases += [(self.flowing, f, *self.half_closed(f, side, "flowing")) for side in (0, 1)]
            self.at_once(*[("%s %d" % (case[-1], i % 2), *case) for i, case in enumerate(cases)])
        self.on_each_path(check, "--half", "1s")

    def test_half_timer_begins_at_the_end_of_stream(self):
        """However long it was silent before."""
        def check(f):
            client, server = f.pair()
            time.sleep(1.5)
            start = time.monotonic()
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(server), b"")
            self.silent(f, f.used[-1], client, server, start, "half")
        self.on_each_path(check, "--half", "1s")

    def test_answer_that_nobody_reads(self):
        """Half closed, and the answer is stuck: it does not flow, so it does not count."""
        def check(f):
            used, a, b, _, _ = self.half_closed(f, 0, "")
            sent = push(b)
            f.line_of(used, "half-timeout")
            self.assertTrue(pushed(sent).startswith(until_reset(a)))
        self.on_each_path(check, "--half", "1s")


class Connecting(TimesTest):
    """A dead remote is one whose queue is full: connects get no answer."""

    def rule(self, addresses):
        return "127.0.0.1 0 %s %%d" % addresses

    def port_of(self, *hosts):
        """A port that is free at all these addresses, and which stays ours: sockets that refuse."""
        while True:
            holders = [self.deaf_listener()]
            port = holders[0].getsockname()[1]
            try:
                for host in hosts:
                    s = socket.socket()
                    self.addCleanup(s.close)
                    holders.append(s)
                    s.bind((host, port))
                return holders
            except OSError:
                continue

    def test_dead(self):
        def check(f):
            start = time.monotonic()
            client = f.client()
            client.sendall(b"hello?")
            line = self.ends_after(f, 1, start, (client,), "connect-timeout")
            self.assert_took(1, line.ms / 1000, "the log's time")
            self.assertEqual((line.up, line.down), (0, 0))
            f.server.close()
        self.on_each_path(check, "--connect", "1s", server=self.full_listener)

    def test_client_ends_while_the_remote_is_dead(self):
        def check(f):
            start = time.monotonic()
            client = f.client()
            client.sendall(b"all of it")
            client.shutdown(socket.SHUT_WR)
            f.rests(0.2)
            self.ends_after(f, 1, start, (client,), "connect-timeout")
            f.server.close()
        self.on_each_path(check, "--connect", "1s", server=self.full_listener)

    def test_refused_then_the_next(self):
        """127.0.0.1 refuses, 127.0.0.2 serves: no client notices, the first or a later one."""
        def check(f):
            for _ in range(10):
                start = time.monotonic()
                client, server = f.pair()
                exchange(client, server)
                self.assertLess(time.monotonic() - start, LATE)
                client.close()
                server.close()
                self.assertEqual(f.line_of(f.used[-1], "closed").remote, "127.0.0.2:%d" % f.server.getsockname()[1])

        def whole(path):
            _, server = self.port_of("127.0.0.2")
            server.listen()
            f = Forwarder(self, path, "--connect", "2s", rule=self.rule("127.0.0.1,127.0.0.2"), server=lambda: server)
            check(f)
            f.finish(".*127.0.0.1.*")
        self.at_once(*[(path, whole, path) for path in PATHS])

    def test_all_refuse(self):
        def whole(path):
            holders = self.port_of("127.0.0.2", "127.0.0.3")
            f = Forwarder(self, path, rule=self.rule("127.0.0.1,127.0.0.2,127.0.0.3"), server=lambda: holders[0])
            for _ in range(3):
                try:
                    client = f.client()
                    client.sendall(b"anybody?")
                    self.assertEqual(until_reset(client), b"")
                except (ConnectionResetError, BrokenPipeError):
                    pass
            for client in filter(None, f.used):
                f.line_of(client, "connect-refused")
            holders[0].close()
            f.finish(".*127.0.0.*")
        self.at_once(*[(path, whole, path) for path in PATHS])

    def test_dead_then_the_next(self):
        """A dead address gets its share of the time, so that the next is reached within it; and is tried last for a
        while."""
        def whole(path):
            while True:
                dead = self.full_listener()
                try:
                    server = self.listener("127.0.0.2", dead.getsockname()[1])
                    break
                except OSError:
                    dead.close()
            f = Forwarder(self, path, "--connect", "2s", rule=self.rule("127.0.0.1,127.0.0.2"), server=lambda: server)
            took = []
            for _ in range(2):
                start = time.monotonic()
                pair = f.pair()
                exchange(*pair)
                took.append(time.monotonic() - start)
                for s in pair:
                    s.close()
            self.assertGreaterEqual(took[0], 0.5)
            self.assertLess(took[0], 2)
            self.assertLess(took[1], LATE)
            f.finish(".*127.0.0.1.*")
        self.at_once(*[(path, whole, path) for path in PATHS])

    def test_refused_as_the_next_client_comes(self):
        """Both in one turn: the second client is tried all the same, and finds the server that has come back."""
        server = self.full_listener()
        port = server.getsockname()[1]
        f = Forwarder(self, "auto", rule="127.0.0.1 0 127.0.0.1 %d" % port)
        first = f.client()
        poll_until(lambda: f.sockets() == 2, "it connects")
        f.program.process.send_signal(signal.SIGSTOP)
        server.close()
        poll_until(lambda: not connecting_to(port), "the kernel asks again, and is refused")
        second = f.client()
        try:
            server = self.listener(port=port)
        finally:
            f.program.process.send_signal(signal.SIGCONT)
        self.assertEqual(until_reset(first), b"")
        second.sendall(b"again")
        f.server = server
        self.assertEqual(receive(f.accept(), 5), b"again")


@needs_namespaces
class WithoutIpv6(TimesTest):
    """Where IPv6 is switched off, ::1 is not available: a lack of this machine, but not of the next address."""

    def test_localhost_of_both_families(self):
        space = Namespace(self)
        space.set("net.ipv6.conf.all.disable_ipv6", 1)
        space.set("net.ipv6.conf.lo.disable_ipv6", 1)
        f = Forwarder(self, "auto", rule="127.0.0.1 0 ::1,127.0.0.1 %d", before=space.before,
                      server=lambda: space.call(self.listener))
        for _ in range(2):
            client = space.call(f.client)
            exchange(client, f.accept())
            self.assertEqual(client.getpeername(), f.address)


@needs_namespaces
class Vanished(TimesTest):
    """A peer whose cable was cut says nothing: keepalive finds it, idle for 1 s, then 2 probes a second apart."""

    def across(self, path, far, near, *hosts):
        """A forwarder in the near namespace, which listens at the first host and has its server at the second."""
        return Forwarder(self, path, "--keepalive", "1s/1s/2", rule="%s 0 %s %%d" % hosts, before=near.before,
                         server=lambda: (far if hosts[1] == "192.0.2.1" else near).call(self.listener, hosts[1]))

    def vanish(self, hosts, alive, reason):
        """The far ends vanish; those that are left are reset after 1 + 2 s, no earlier, and it is said who was lost."""
        far, near = Namespace(self), Namespace(self)
        link, _ = far.join(near, "192.0.2.1", "192.0.2.2")
        fs = [self.across(path, far, near, *hosts) for path in PATHS]
        pairs = [(near if alive == 0 else far).call(f.pair) for f in fs]
        for pair in pairs:
            exchange(*pair)
        start = time.monotonic()
        far.run("ip", "link", "set", link, "down")
        for pair in pairs:
            self.assertEqual(until_reset(pair[alive]), b"")
        took = time.monotonic() - start
        self.assertGreaterEqual(took, 3 - TICK - LATE)  # the last byte went a little before the cable
        self.assertLess(took, 4 + LATE)
        for f in fs:
            f.line_of(f.used[0], reason)
            f.gone()
            f.rests(0.2)
            self.assertEqual(f.program.stop(), 0, f.program.errors())

    def nobody(self):
        """Silence for longer than keepalive takes is no reason to end, where the kernel at the other end answers."""
        far, near = Namespace(self), Namespace(self)
        far.join(near, "192.0.2.1", "192.0.2.2")
        pair = far.call(self.across("auto", far, near, "192.0.2.2", "127.0.0.1").pair)
        time.sleep(4.5)
        exchange(*pair)

    def test_a_vanished_peer_is_found_by_keepalive(self):
        self.at_once(("client", self.vanish, ("192.0.2.2", "127.0.0.1"), 1, "client-lost"),
                     ("remote", self.vanish, ("127.0.0.1", "192.0.2.1"), 0, "remote-lost"),
                     ("nobody", self.nobody))


if __name__ == "__main__":
    unittest.main()
