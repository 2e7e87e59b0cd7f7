"""How connections through portforward end, on copy, splice and auto: a clean end is an end of stream after the last
byte, each way by itself; every other end is a reset to both, and what came before it is a prefix."""
import random
import signal
import socket
import time
import unittest

from forward_support import (ENDLESS, MB, ForwardTest, exchange, late_reset, push, pushed, smaller,
                             until_reset)
from support import pattern, poll_until, receive, receive_all, reset

SIDES = ("client", "server")
RESET_BY = ("client-reset", "remote-reset")


class EndsTest(ForwardTest):
    def each_side(self, check, *options, **forwarder):
        """check(f, a, b, side) on each path, with a the client and b the server, then the other way round. It returns
        the reason that the log must give, or None if it has looked itself."""
        def sides(f):
            for side in (0, 1):
                ends = f.pair()
                reason = check(f, ends[side], ends[1 - side], side)
                if reason:
                    f.line_of(f.used[-1], reason)
                for s in ends:
                    s.close()
                f.gone()
        self.on_each_path(sides, *options, **forwarder)

    def assert_counts(self, f, side, sent, delivered, reason):
        """The log counts what the socket of the peer took: no less than the peer got, no more than was sent."""
        line = f.line_of(f.used[-1], reason)
        counted = line.down if side else line.up
        self.assertLessEqual(delivered, counted, line)
        self.assertLessEqual(counted, sent, line)


class HalfClose(EndsTest):
    def answer_later(self, f, a, b, side):
        question, answer = pattern(smaller(3 * MB)), pattern(smaller(5 * MB), seed=7)
        join = self.in_thread(receive_all, b)
        a.sendall(question)
        a.shutdown(socket.SHUT_WR)
        self.assertTrue(join() == question)
        end = time.monotonic() + 5
        f.rests()
        time.sleep(max(0, end - time.monotonic()))  # the answer takes its time
        join = self.in_thread(b.sendall, answer)
        self.assertTrue(receive(a, len(answer)) == answer)
        join()
        b.shutdown(socket.SHUT_WR)
        self.assertEqual(a.recv(1), b"")
        line = f.line_of(f.used[side], "closed")
        self.assertEqual((line.up, line.down), ((len(question), len(answer)), (len(answer), len(question)))[side])
        self.assertGreaterEqual(line.ms, 4990)

    def test_answer_after_five_seconds(self):
        def check(f):
            pairs = [f.pair(), f.pair()]
            self.at_once(*[(SIDES[side], self.answer_later, f, pairs[side][side], pairs[side][1 - side], side)
                           for side in (0, 1)])
        self.on_each_path(check)

    def test_answer_while_the_question_is_stuck(self):
        """The end of a's stream is behind bytes that b does not read; b's answer and end pass them."""
        def check(f, a, b, side):
            sent = push(a)
            a.shutdown(socket.SHUT_WR)
            b.sendall(b"meanwhile")
            b.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(a), b"meanwhile")
            f.rests()
            self.assertTrue(receive_all(b) == pushed(sent))
            return "closed"
        self.each_side(check)

    def test_bytes_after_the_others_end(self):
        """One way ended, the other flows in pieces, each passed on by itself."""
        def check(f, a, b, side):
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(b), b"")
            for i in range(200):
                b.sendall(b"piece %03d" % i)
                self.assertEqual(receive(a, 9), b"piece %03d" % i)
            b.close()
            self.assertEqual(a.recv(1), b"")
            return "closed"
        self.each_side(check)

    def test_answers_and_closes_at_once(self):
        answer = pattern(100000)

        def check(f):
            for i in range(100):
                client, server = f.pair()
                server.sendall(answer[:1 + i * 1000])
                server.close()
                self.assertTrue(receive_all(client) == answer[:1 + i * 1000])
                client.close()
            for i, client in enumerate(f.used):
                line = f.line_of(client, "closed")
                if f.used.count(client) == 1:  # else its port came again
                    self.assertEqual(line.down, 1 + i * 1000)
        self.on_each_path(check)

    def test_all_said_while_connecting(self):
        """The client has sent all and ended before there is a remote to tell."""
        def check(f):
            client = f.client()
            data = pattern(300000)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            poll_until(lambda: f.sockets() == 2, "it connects")
            f.rests()
            server = f.accept()
            self.assertTrue(receive_all(server) == data)
            server.sendall(b"the answer")
            server.close()
            self.assertEqual(receive_all(client), b"the answer")
            f.line_of(f.used[-1], "closed")
        self.on_each_path(check, server=self.full_listener)


class BothEnd(EndsTest):
    def stopped(self, f, *actions):
        """What the forwarder finds when it wakes up has all happened by then, and it is told in one batch."""
        f.program.process.send_signal(signal.SIGSTOP)
        for action in actions:
            action()
        f.program.process.send_signal(signal.SIGCONT)

    def test_both_end_in_one_batch(self):
        def check(f):
            for i in range(30):
                ends = f.pair()
                data = [pattern(chosen, seed=3) for chosen in ((0, 0), (5, 0), (0, 70000), (70000, 70000))[i % 4]]
                exchange(*ends)
                self.stopped(f, *[lambda s=s, d=d: (s.sendall(d), s.shutdown(socket.SHUT_WR))
                                  for s, d in list(zip(ends, data))[::1 if i % 8 < 4 else -1]])
                self.assertEqual(receive_all(ends[1]), data[0])
                self.assertEqual(receive_all(ends[0]), data[1])
                line = f.line_of(f.used[-1], "closed")
                self.assertEqual((line.up, line.down), (len(data[0]) + 10, len(data[1]) + 10))
                for s in ends:
                    s.close()
        self.on_each_path(check)

    def test_both_end_while_both_are_stuck(self):
        def check(f):
            client, server = f.pair()
            join = self.in_thread(push, server, ENDLESS, 2)
            up, down = push(client), join()
            self.stopped(f, lambda: client.shutdown(socket.SHUT_WR), lambda: server.shutdown(socket.SHUT_WR))
            f.rests()
            join = self.in_thread(receive_all, server)
            self.assertTrue(receive_all(client) == pushed(down, 2))
            self.assertTrue(join() == pushed(up))
            line = f.line_of(f.used[-1], "closed")
            self.assertEqual((line.up, line.down), (up, down))
        self.on_each_path(check)

    def test_end_and_reset_in_one_batch(self):
        """The kernel tells both in one event, and of an end only when asked: the pair must not wait for b for ever."""
        def check(f, a, b, side):
            exchange(a, b)
            self.stopped(f, lambda: a.sendall(b"the end"), lambda: a.shutdown(socket.SHUT_WR), lambda: reset(a))
            return RESET_BY[side]
        self.each_side(check)

    def test_answer_and_reset_before_the_next_request(self):
        """All in one batch: the request that cannot be sent is no reason to drop the answer that came before, nor to
        take the reset for an end of stream. (17384 are read in two pieces, and Nagle's rule would hold back the
        second.)"""
        def check(f, a, b, side):
            for size in (10, 17384, 50000):
                if size != 10:
                    a, b = f.pair()[::-1 if side else 1]
                exchange(a, b)
                answer = pattern(size)
                self.stopped(f, lambda: b.sendall(b"too late"), lambda: a.sendall(answer), lambda: reset(a))
                self.assertTrue(until_reset(b) == answer)
                f.line_of(f.used[-1], RESET_BY[side])
        self.each_side(check)

    def test_both_reset_in_one_batch(self):
        def check(f, a, b, side):
            exchange(a, b)
            self.stopped(f, lambda: reset(a), lambda: reset(b))
            f.gone()
            f.line_of(f.used[-1], *RESET_BY)
        self.each_side(check)


class Resets(EndsTest):
    """Each from both sides: `a` resets, `b` must hear of it."""

    def test_open(self):
        def check(f, a, b, side):
            exchange(a, b)
            reset(a)
            self.assertEqual(until_reset(b), b"")
            return RESET_BY[side]
        self.each_side(check)

    def test_before_a_byte(self):
        def check(f, a, b, side):
            reset(a)
            self.assertEqual(until_reset(b), b"")
            return RESET_BY[side]
        self.each_side(check)

    def test_after_bytes(self):
        def check(f, a, b, side):
            for size in (100000, smaller(4 * MB)):
                if size > 100000:
                    a, b = f.pair()[::-1 if side else 1]
                data = pattern(size)
                join = self.in_thread(receive, b, size // 2)
                a.sendall(data)
                first = join()
                reset(a)
                got = first + until_reset(b)
                self.assertTrue(data.startswith(got), "%d bytes, not a prefix" % len(got))
                self.assert_counts(f, side, size, len(got), RESET_BY[side])
        self.each_side(check)

    def test_half_closed_by_the_other(self):
        def check(f, a, b, side):
            b.sendall(b"question")
            b.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(a), b"question")
            a.sendall(b"half of the ans")
            self.assertEqual(receive(b, 15), b"half of the ans")
            f.rests(0.2)
            reset(a)
            self.assertEqual(until_reset(b), b"")
            return RESET_BY[side]
        self.each_side(check)

    def test_end_then_reset_while_the_answer_is_pending(self):
        """b has read a clean end already: that it is over shows as an error of the socket."""
        def check(f, a, b, side):
            a.sendall(b"question")
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(b), b"question")
            f.rests(0.2)
            reset(a)
            late_reset(b)
            f.line_of(f.used[-1], RESET_BY[side])
            f.rests(0.2)
        self.each_side(check)

    def test_end_then_reset_before_the_end_was_passed_on(self):
        """a's end is behind bytes that b does not read. b must not take what it gets for all of it."""
        def check(f, a, b, side):
            sent = push(a)
            a.shutdown(socket.SHUT_WR)
            f.rests(0.2)
            reset(a)
            f.gone()
            got = until_reset(b)
            self.assertTrue(pushed(sent).startswith(got))
            self.assert_counts(f, side, sent, len(got), RESET_BY[side])
        self.each_side(check)

    def test_sender_resets_when_back_pressured(self):
        def check(f, a, b, side):
            sent = push(a)
            f.rests(0.2)
            reset(a)
            f.gone()
            got = until_reset(b)
            self.assertTrue(pushed(sent).startswith(got), "%d bytes, not a prefix" % len(got))
            self.assert_counts(f, side, sent, len(got), RESET_BY[side])
        self.each_side(check)

    def test_reader_resets_when_back_pressured(self):
        def check(f, a, b, side):
            push(b)
            reset(a)
            self.assertEqual(until_reset(b), b"")
            return RESET_BY[side]
        self.each_side(check)

    def test_reader_resets_under_a_sender_that_waits(self):
        def check(f, a, b, side):
            join = self.in_thread(b.sendall, bytes(ENDLESS))
            self.assertEqual(len(receive(a, 8 * MB)), 8 * MB)
            reset(a)
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                join()
            return RESET_BY[side]
        self.each_side(check)

    def test_reset_when_both_ways_are_stuck(self):
        def check(f, a, b, side):
            join = self.in_thread(push, b, ENDLESS, 2)
            sent = push(a)
            join()
            f.rests(0.2)
            reset(a)
            self.assertTrue(pushed(sent).startswith(until_reset(b)))
            return RESET_BY[side]
        self.each_side(check)

    def test_half_closed_and_stuck(self):
        """a's end was passed on, b's bytes are stuck on their way to a, and a resets."""
        def check(f, a, b, side):
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(b), b"")
            push(b)
            f.rests(0.2)
            reset(a)
            f.gone()
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                b.sendall(bytes(64 * MB))
            return RESET_BY[side]
        self.each_side(check)

    def test_answer_then_close_with_unread_bytes(self):
        """The server's close is a reset, for it has not read the request; its answer comes before."""
        def check(f):
            for i in range(50):
                client, server = f.pair()
                answer = pattern(2 + i * 1000)
                client.sendall(b"a request that nobody reads")
                self.assertEqual(len(server.recv(100, socket.MSG_PEEK)), 27)
                server.sendall(answer)
                server.close()
                self.assertTrue(until_reset(client) == answer)
                client.close()
            f.gone()
            for i, client in enumerate(f.used):
                line = f.line_of(client, "remote-reset")
                if f.used.count(client) == 1:
                    self.assertEqual((line.up, line.down), (27, 2 + i * 1000))
        self.on_each_path(check)

    def test_storm(self):
        """Ends of all kinds at random moments: what arrives is a prefix, and an end only where one was sent."""
        def check(f):
            chance, reasons = random.Random(f.path), {}
            for _ in range(smaller(150, 3)):
                ends = f.pair()
                side = chance.randint(0, 1)
                a, b = ends[side], ends[1 - side]
                data = pushed(chance.randint(0, 300000), seed=chance.randint(1, 9))
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
                    reasons[f.used[-1]] = RESET_BY[side]
                reset(b) if chance.random() < 0.5 else b.close()
                a.close()
            for client, reason in reasons.items():
                if f.used.count(client) == 1:  # else its port came again
                    f.line_of(client, reason)
        self.on_each_path(check)


class Connecting(EndsTest):
    def test_client_resets_while_connecting(self):
        def check(f):
            clients = [f.client() for _ in range(5)]
            clients[0].sendall(b"never read")
            clients[1].sendall(b"nor this")
            clients[1].shutdown(socket.SHUT_WR)
            poll_until(lambda: f.sockets() == 10, "it connects")
            f.rests()
            for client in clients:
                reset(client)
            for client in f.used:
                line = f.line_of(client, "client-reset")
                self.assertEqual((line.up, line.down), (0, 0))
            f.gone()
            f.rests()
        self.on_each_path(check, server=self.full_listener)

    def test_client_resets_just_as_the_remote_is_reached(self):
        """The server has the connection already, which the forwarder hears together with the reset: an end of stream
        would tell the server that all is well."""
        def check(f):
            client = f.client()
            client.sendall(b"never said")
            poll_until(lambda: f.sockets() == 2, "it connects")
            f.program.process.send_signal(signal.SIGSTOP)
            reset(client)  # before the connection is there: so it is told first
            server = f.accept()  # the queue has room again, and the kernel tries once more
            f.program.process.send_signal(signal.SIGCONT)
            until_reset(server)
            f.line_of(f.used[-1], "client-reset")
        self.on_each_path(check, server=self.full_listener)

    def test_server_resets_just_as_it_is_reached(self):
        """All that connect can tell is that it failed; but the server was there, and that it reset is what was."""
        def check(f):
            client = f.client()
            client.sendall(b"hello?")
            poll_until(lambda: f.sockets() == 2, "it connects")
            f.program.process.send_signal(signal.SIGSTOP)
            reset(f.accept())
            f.program.process.send_signal(signal.SIGCONT)
            self.assertEqual(until_reset(client), b"")
            line = f.line_of(f.used[-1], "remote-reset")
            self.assertEqual((line.up, line.down), (0, 0))
        self.on_each_path(check, server=self.full_listener)

    def test_refused_after_a_while(self):
        """The listener goes while the forwarder waits for it: the next attempt of the kernel's is refused."""
        def check(f):
            client = f.client()
            client.sendall(b"hello?")
            poll_until(lambda: f.sockets() == 2, "it connects")
            f.server.close()
            self.assertEqual(until_reset(client), b"")
            f.line_of(f.used[-1], "connect-refused")
        self.on_each_path(check, server=self.full_listener)

    def test_refused(self):
        def check(f):
            for data in (b"", b"hello?", bytes(MB)):
                try:
                    client = f.client()
                    client.sendall(data)
                    self.assertEqual(until_reset(client), b"")
                except (ConnectionResetError, BrokenPipeError):
                    pass  # it saw the reset before it got so far
            for client in filter(None, f.used):
                line = f.line_of(client, "connect-refused")
                self.assertEqual((line.up, line.down), (0, 0))
            f.server.close()
        self.on_each_path(check, server=self.deaf_listener)


if __name__ == "__main__":
    unittest.main()
