"""portforward while its rules change and while it ends: reload, hand-over of listeners, drain, stop."""
import os
import re
import signal
import socket
import threading
import time
import unittest

from service_support import ServiceTest, activated
from support import DEADLINE, free_port, is_reset, poll_until, receive, receive_all


class Reload(ServiceTest):
    def configure(self, *lines):
        return self.file("x.conf", *lines)

    def reload(self, *lines, says=r"[^t] reloaded: "):
        count = len(re.findall(says, self.program.events()))
        if lines:
            self.configure(*lines)
        self.signal(signal.SIGHUP)
        self.event(says, count + 1)

    def test_a_hundred_times_under_load(self):
        """No client is refused, and those that are there notice nothing."""
        path = self.configure(self.rule("[idle=1m]", "127.0.0.1 %d" % free_port()))
        self.forward("-c", path)
        kept = [self.ends() for _ in range(5)]
        done, over = threading.Event(), threading.Event()

        def serve():
            while not over.is_set():
                try:
                    s, _ = self.server.accept()
                except TimeoutError:
                    continue
                s.settimeout(DEADLINE)
                s.sendall(receive_all(s))
                s.close()

        def load():
            count = 0
            while not done.is_set():
                s = socket.create_connection(self.program.address, DEADLINE)
                s.sendall(b"%08d" % count)
                s.shutdown(socket.SHUT_WR)
                if receive_all(s) != b"%08d" % count:
                    raise AssertionError("connection %d was cut" % count)
                s.close()
                count += 1
            return count

        self.server.settimeout(0.2)
        joins = [self.in_thread(f) for f in (load, load, serve)]
        for i in range(100):
            self.reload(self.rule("[idle=%dm,name=n%d]" % (i + 2, i), "127.0.0.1 %d" % self.program.address[1]),
                        *[self.rule()] * (i % 2))
            for pair in kept:
                self.exchange(*pair)
        done.set()
        counts = [join() for join in joins[:2]]
        over.set()
        joins[2]()
        self.assertGreater(sum(counts), 100)
        for pair in kept:
            self.close(*pair)
        self.assert_stops(self.program, errors=None)
        self.assertEqual(set(self.program.ends()), {"closed"})
        self.assertIn(" rule=n99 ", self.program.errors())

    def test_opens_and_closes(self):
        path = self.configure(self.rule())
        self.forward("-c", path)
        pair = self.ends()
        other = self.listener()
        self.reload("127.0.0.1 0 127.0.0.1 %d" % self.port, "127.0.0.2 0 127.0.0.1 %d" % other.getsockname()[1])
        new = re.search(r"listening on 127\.0\.0\.2:([0-9]+), forwarding to 127\.0\.0\.1:%d\n" % other.getsockname()[1],
                        self.program.events())
        client = self.connect(("127.0.0.2", int(new[1])))
        self.exchange(client, self.accept(other))
        self.close(*self.ends())
        self.reload("127.0.0.2 0 127.0.0.1 %d" % other.getsockname()[1])
        with self.assertRaises(ConnectionRefusedError):
            self.connect(self.program)
        self.exchange(*pair)
        self.close(*pair)
        self.assert_stops(self.program, signal.SIGINT, errors=None)

    def test_changed_options_are_of_new_connections(self):
        path = self.configure(self.rule("[max=1]"))
        self.forward("-c", path)
        first = self.ends()
        second = self.connect(self.program)
        self.assert_waits()
        self.reload(self.rule("[max=2]"))
        server = self.accept()
        self.exchange(second, server)
        self.connect(self.program)
        self.assert_waits()
        other = self.listener()
        self.reload(self.rule("[max=0]", port=other.getsockname()[1]))
        self.close(self.accept(other))
        self.exchange(*first)
        self.assert_stops(self.program, signal.SIGINT, errors=None)

    def test_counts_go_on(self):
        """A reload forgets nobody who is there already."""
        path = self.configure(self.rule("[max-per-source=2]"))
        self.forward("-c", path)
        pairs = [self.ends() for _ in range(2)]
        for _ in range(3):
            self.reload()
        self.assert_refused()
        self.close(*pairs[0])
        poll_until(lambda: self.program.fds() == self.fds + 2, "the pair has ended")
        self.close(*self.ends())
        self.assert_stops(self.program, signal.SIGINT, errors=None)

    def test_a_wrong_file_keeps_the_old(self):
        path = self.configure(self.rule("[max=1]"))
        self.forward("-c", path)
        pair = self.ends()
        for line in ("127.0.0.1 0 nothing", "allow all", "include /"):
            self.reload(self.rule(bind="127.0.0.2 0"), line, says="not reloaded")
            self.assertIn("%s:2: " % path, self.program.events())
        os.unlink(path)
        self.reload(says="not reloaded")
        self.reload("# empty", says="not reloaded")
        self.exchange(*pair)
        self.close(*pair)
        self.close(*self.ends())
        self.assertNotIn("listening", self.program.events())
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program, errors=None)

    def test_a_bind_that_fails_keeps_the_old(self):
        """New listeners that were opened before are closed again, and nothing else has changed."""
        path = self.configure(self.rule("[max=1]"))
        self.forward("-c", path)
        pair = self.ends()
        busy = self.listener()
        self.reload(self.rule("[max=5]"), self.rule(bind="127.0.0.2 0"),
                    self.rule(bind="127.0.0.1 %d" % busy.getsockname()[1]), says="not reloaded")
        self.assertIn("%s:3: cannot listen on 127.0.0.1 port %d: Address already in use\n"
                      % (path, busy.getsockname()[1]), self.program.events())
        self.assert_fds_return(self.program, self.fds + 2)
        waiting = self.connect(self.program)
        self.assert_waits()  # max is still 1
        self.exchange(*pair)
        self.close(waiting, *pair)
        self.assert_stops(self.program, signal.SIGINT, errors=None)

    def check_hand_over(self, before, after):
        port = free_port()
        path = self.configure(self.rule(bind="%s %d" % (before, port)))
        self.forward("-c", path, listeners=2 if before == "*" else 1)
        address = ("127.0.0.1", port)
        pair = self.ends(address)
        inode = inode_of_listener(port)
        waiting = socket.socket()
        self.addCleanup(waiting.close)
        self.program.process.send_signal(signal.SIGSTOP)
        waiting.connect(address)  # into the queue of the old rule's listener
        self.configure(self.rule(bind="%s %d" % (after, port)))
        self.signal(signal.SIGHUP)
        self.program.process.send_signal(signal.SIGCONT)
        self.event("[^t] reloaded: ")
        self.assertEqual(inode_of_listener(port), inode)
        self.close(waiting, self.accept(), *pair)
        self.close(*self.ends(address))
        self.assert_stops(self.program, errors=None)

    def test_from_both_families_to_one(self):
        self.check_hand_over("*", "0.0.0.0")

    def test_from_one_family_to_both(self):
        self.check_hand_over("0.0.0.0", "*")

    def test_a_hand_over_sets_the_heirs_options(self):
        mine = self.listener("0.0.0.0")
        port = mine.getsockname()[1]
        path = self.configure(self.rule("[keepalive=1/2/3]", "0.0.0.0 %d" % port))
        activated(self, [mine], "-c", path)
        self.reload(self.rule("[keepalive=7/8/9]", "* %d" % port))
        self.assertEqual([mine.getsockopt(socket.IPPROTO_TCP, option)
                          for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)], [7, 8, 9])
        self.assert_stops(self.program, errors=None)

    def test_a_hand_over_that_is_taken_back(self):
        port, busy = free_port(), self.listener()
        path = self.configure(self.rule(bind="0.0.0.0 %d" % port))
        self.forward("-c", path)
        for _ in range(2):
            self.reload(self.rule(bind="* %d" % port), self.rule(bind="127.0.0.1 %d" % busy.getsockname()[1]),
                        says="not reloaded")
            self.close(*self.ends(("127.0.0.1", port)))
        self.reload(self.rule(bind="* %d" % port))
        self.close(*self.ends(("127.0.0.1", port)))
        self.assert_stops(self.program, errors=None)

    def test_what_is_queued_at_a_rule_that_goes_is_served(self):
        path = self.configure(self.rule(), self.rule(bind="127.0.0.2 0"))
        self.forward("-c", path, listeners=2)
        self.signal(signal.SIGSTOP)
        clients = [self.connect(self.program.addresses[1]) for _ in range(20)]
        self.configure(self.rule())
        self.signal(signal.SIGHUP)
        self.signal(signal.SIGCONT)
        for client in clients:
            self.exchange_any(client)
        with self.assertRaises(ConnectionRefusedError):
            self.connect(self.program.addresses[1])
        self.assert_stops(self.program, signal.SIGINT, errors=None)

    def exchange_any(self, client):
        """Of connections whose other ends are accepted in any order."""
        client.sendall(b"x" * 7)
        self.assertEqual(receive(self.accept(), 7), b"x" * 7)

    def test_rules_of_the_command_line_stay(self):
        self.forward(self.rule())
        self.reload()
        self.close(*self.ends())
        self.assert_stops(self.program, errors=None)


def inode_of_listener(port):
    with open("/proc/net/tcp") as f:
        for row in f.read().splitlines()[1:]:
            field = row.split()
            if field[3] == "0A" and int(field[1].rpartition(":")[2], 16) == port:
                return field[9]
    return None


class Drain(ServiceTest):
    def test_nothing_to_wait_for(self):
        self.forward(self.rule())
        start = time.monotonic()
        self.assert_stops(self.program)
        self.assertLess(time.monotonic() - start, DEADLINE / 3)

    def test_waits_for_the_last(self):
        self.forward(self.rule())
        pairs = [self.ends() for _ in range(3)]
        self.signal(signal.SIGTERM)
        self.event("stopping: 3 connections")
        with self.assertRaises(ConnectionRefusedError):
            self.connect(self.program)
        for pair in pairs:
            self.exchange(*pair)
            self.assertIsNone(self.program.process.poll())
            self.close(*pair)
        self.assertEqual(self.program.wait(), 0)
        self.assertEqual(self.program.ends(), ["closed"] * 3)

    def test_accepts_what_is_queued(self):
        """All who were connected when the signal came are served, though none of them was accepted."""
        self.forward(self.rule())
        self.signal(signal.SIGSTOP)
        clients = [self.connect(self.program) for _ in range(200)]
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        for client in clients:
            client.sendall(b"question")
        for _ in clients:
            server = self.accept()
            self.assertEqual(receive(server, 8), b"question")
            server.sendall(b"answer")
            server.close()
        for client in clients:
            self.assertEqual(receive_all(client), b"answer")
            client.close()
        self.assertEqual(self.program.wait(), 0)
        self.assertEqual(self.program.ends(), ["closed"] * 200)

    def test_queued_beyond_the_limit_are_reset(self):
        self.forward(self.rule("[max=2]"))
        pairs = [self.ends() for _ in range(2)]
        third = self.connect(self.program)
        self.assert_waits()
        self.signal(signal.SIGTERM)
        self.assertTrue(is_reset(third))
        for pair in pairs:
            self.close(*pair)
        self.assertEqual(self.program.wait(), 0)

    def test_deadline(self):
        self.forward(self.rule(), "--drain", "700ms")
        client, server = self.ends()
        start = time.monotonic()
        self.signal(signal.SIGTERM)
        self.assertTrue(is_reset(client))
        self.assertGreaterEqual(time.monotonic() - start, 0.69)
        self.assertTrue(is_reset(server))
        self.assertEqual(self.program.wait(), 0)
        self.assertEqual(self.program.ends(), ["drain-deadline"])

    def test_no_time_at_all(self):
        self.forward(self.rule(), "--drain=0")
        client, server = self.ends()
        self.assertEqual(self.program.stop(), 0)
        self.assertTrue(is_reset(client))
        self.assertEqual(self.program.ends(), ["drain-deadline"])

    def stops_at_once(self, number):
        self.forward(self.rule(), "--drain", "1h")
        client, server = self.ends()
        self.signal(signal.SIGTERM)
        self.event("stopping")
        self.assertEqual(self.program.stop(number), 0)
        self.assertTrue(is_reset(client))
        self.assertTrue(is_reset(server))
        self.assertEqual(self.program.ends(), ["stopped"])

    def test_second_sigterm(self):
        self.stops_at_once(signal.SIGTERM)

    def test_sigint_after_sigterm(self):
        self.stops_at_once(signal.SIGINT)

    def test_sighup_is_nothing_by_then(self):
        self.forward(self.rule())
        pair = self.ends()
        self.signal(signal.SIGTERM)
        self.event("stopping")
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self.signal(number)
        self.event("1 connections")
        with self.assertRaises(ConnectionRefusedError):
            self.connect(self.program)
        self.close(*pair)
        self.assertEqual(self.program.wait(), 0)
        self.assertNotIn("reloaded", self.program.events())


if __name__ == "__main__":
    unittest.main()
