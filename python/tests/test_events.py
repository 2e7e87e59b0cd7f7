"""Turns: what is asked, what is waited for, who is called, in which order; and what of it was mended."""
import asyncore
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import unittest
from unittest import mock

from support import DEADLINE, POLLS, Case, Trace, idle_cpu, run


class Duck:
    """No dispatcher, and served all the same."""

    accepting = False

    def __init__(self, calls, raises=None):
        self.calls = calls
        self.raises = raises

    def readable(self):
        return [1]

    def writable(self):
        return {}

    def step(self, name):
        self.calls.append(name)
        if self.raises:
            raise self.raises

    def handle_read_event(self):
        self.step("read")

    def handle_write_event(self):
        self.step("write")

    def handle_expt_event(self):
        self.step("expt")

    def handle_close(self):
        self.calls.append("close")

    def handle_error(self):
        self.calls.append("error")


class Steps(Case):
    """read, write, _exception, readwrite."""

    def test_what_a_handler_raises_goes_to_handle_error(self):
        for error in (Exception, BaseException, GeneratorExit, OSError(errno.ECONNREFUSED, ""),
                      OSError(errno.EBADF, "")):
            for step in (asyncore.read, asyncore.write, asyncore._exception):
                calls = []
                step(Duck(calls, error))
                self.assertEqual(calls[1:], ["error"])

    def test_three_exceptions_leave_the_loop(self):
        for error in (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
            for step in (asyncore.read, asyncore.write, asyncore._exception,
                         lambda duck: asyncore.readwrite(duck, select.POLLIN)):
                self.assertRaises(error, step, Duck([], error))

    def test_readwrite_has_an_order(self):
        calls = []
        asyncore.readwrite(Duck(calls), select.POLLIN | select.POLLOUT | select.POLLPRI | select.POLLHUP)
        self.assertEqual(calls, ["read", "write", "expt", "close"])

    def test_readwrite_tells_lost_connections_from_errors(self):
        for number, expected in ((errno.ECONNRESET, "close"), (errno.EPIPE, "close"), (errno.EBADF, "close"),
                                 (errno.ETIMEDOUT, "error"), (errno.ECONNREFUSED, "error")):
            calls = []
            asyncore.readwrite(Duck(calls, OSError(number, "")), select.POLLIN)
            self.assertEqual(calls, ["read", expected])

    def test_the_exception_is_the_current_one_in_handle_error_and_handle_close(self):
        class Channel(Duck):
            def handle_error(self):
                seen.append(sys.exc_info()[1])

            handle_close = handle_error

        for error in (ValueError(), OSError(errno.EPIPE, "")):
            seen = []
            asyncore.readwrite(Channel([], error), select.POLLIN)
            self.assertEqual(seen, [error])
            self.assertIsNotNone(error.__traceback__)
            self.assertEqual(sys.exc_info(), (None, None, None))

    def test_a_bare_raise_in_handle_error_leaves_the_loop(self):
        class Channel(Duck):
            def handle_error(self):
                raise

        for step in (asyncore.read, asyncore.write):
            self.assertRaises(ZeroDivisionError, step, Channel([], ZeroDivisionError()))


class Turns(Case):
    def test_ducks_are_served_by_truth_alone(self):
        for poll in POLLS:
            a, b = self.pair()
            b.send(b"x")
            calls = []
            poll(0, {a.fileno(): Duck(calls)})
            self.assertEqual(calls, ["read"])

    def test_all_reads_then_all_writes_in_poll(self):
        calls = []
        for name in "ab":
            a, b = self.pair()
            b.send(b"x")
            Trace(a, self.map, calls, name).wants = (True, True)
        asyncore.poll(0, self.map)
        self.assertEqual(calls, ["aread", "bread", "awrite", "bwrite"])

    def test_channel_after_channel_in_poll2(self):
        calls = []
        for name in "ab":
            a, b = self.pair()
            b.send(b"x")
            Trace(a, self.map, calls, name).wants = (True, True)
        asyncore.poll2(0, self.map)
        self.assertEqual(calls, ["aread", "awrite", "bread", "bwrite"])

    def test_an_urgent_byte_is_an_exceptional_event(self):
        for poll in POLLS:
            a, b = self.tcp()
            channel = Trace(a, self.map)
            b.send(b"!", socket.MSG_OOB)
            self.until(lambda: "expt" in channel.calls, poll=poll)
            channel.close()

    def test_a_listener_is_not_written_to(self):
        for poll in POLLS:
            a, b = self.pair()
            channel = Trace(a, self.map)
            channel.wants = (False, True)
            channel.accepting = True
            poll(0, self.map)
            self.assertEqual(channel.calls, [])
            channel.close()

    def test_every_channel_is_asked_both_questions_in_every_turn(self):
        class Asked(Trace):
            def readable(self):
                self.note("r?")
                return False

            def writable(self):
                self.note("w?")
                return False

        a, b = self.pair()
        channel = Asked(a, self.map)
        for poll in POLLS:
            del channel.calls[:]
            poll(0, self.map)
            self.assertEqual(channel.calls, ["r?", "w?"])

    def test_what_a_predicate_raises_leaves_the_loop(self):
        class Bad(Trace):
            def readable(self):
                raise ZeroDivisionError

        a, b = self.pair()
        Bad(a, self.map)
        for poll in POLLS:
            self.assertRaises(ZeroDivisionError, poll, 0, self.map)

    def test_an_empty_map_does_not_wait(self):
        before = time.monotonic()
        for poll in POLLS:
            poll(DEADLINE, self.map)
        asyncore.loop(DEADLINE, map=self.map)
        self.assertLess(time.monotonic() - before, DEADLINE / 2)

    def test_nothing_to_wait_for_is_a_wait_all_the_same(self):
        a, b = self.pair()
        Trace(a, self.map).wants = (False, False)
        for poll in POLLS:
            before = time.monotonic()
            poll(0.1, self.map)
            self.assertGreaterEqual(time.monotonic() - before, 0.099)

    def test_loop_counts_turns(self):
        a, b = self.pair()
        Trace(a, self.map)
        for count, turns in ((3, 3), (2.5, 3), (0, 0), (-1, 0)):
            for use_poll, name in ((False, "poll"), (True, "poll2")):
                with mock.patch.object(asyncore, name) as poll:
                    asyncore.loop(0.5, use_poll, self.map, count)
                self.assertEqual(poll.call_args_list, [mock.call(0.5, self.map)] * turns)

    def test_loop_ends_when_the_map_is_empty(self):
        for use_poll in (False, True):
            a, b = self.pair()
            channel = Trace(a, self.map)
            b.close()
            asyncore.loop(DEADLINE, use_poll, self.map)
            self.assertEqual(channel.calls[-1], "close")

    def test_the_default_map_is_looked_up_at_each_call(self):
        a, b = self.pair()
        b.send(b"x")
        channel = Trace(a, self.map)
        with mock.patch.object(asyncore, "socket_map", self.map):
            asyncore.poll(0)
            asyncore.loop(0, count=1)
        self.assertIn("read", channel.calls)

    def test_select_is_looked_up_at_each_turn(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        with mock.patch.object(select, "select", return_value=([], [], [])) as fake:
            asyncore.poll(7, self.map)
        fake.assert_called_once_with([a.fileno()], [], [a.fileno()], 7)
        channel.wants = (False, False)
        with mock.patch.object(time, "sleep") as sleep:
            asyncore.poll(7, self.map)
        sleep.assert_called_once_with(7)

    def test_maps_may_have_foreign_entries_that_are_not_polled(self):
        class Idle(Duck):
            def readable(self):
                return False

        asyncore.poll(0, {"name": Idle([]), None: Idle([])})

    def test_a_negative_timeout_is_refused_by_poll_and_for_ever_in_poll2(self):
        a, b = self.pair()
        b.send(b"x")
        channel = Trace(a, self.map)
        self.assertRaises(ValueError, asyncore.poll, -1, self.map)
        asyncore.poll2(-1, self.map)
        self.assertEqual(channel.calls, ["read"])

    def test_a_loop_within_a_handler(self):
        for use_poll in (False, True):
            inner, outer = {}, self.map
            a, b = self.pair()
            c, d = self.pair()
            b.send(b"x")
            d.send(b"y")

            class Outer(Trace):
                def handle_read(self):
                    self.note("outer")
                    self.recv(1)
                    asyncore.loop(1, use_poll, inner, 1)
                    asyncore.loop(0, use_poll, outer, 1)

            calls = []
            Outer(a, outer, calls)
            Trace(c, inner, calls, "inner")
            asyncore.loop(1, use_poll, outer, 1)
            self.assertEqual(calls, ["outer", "innerread"])
            asyncore.close_all(outer)
            asyncore.close_all(inner)

    def test_a_signal_handler_that_raises_leaves_the_loop(self):
        class Alarm(Exception):
            pass

        def ring(number, frame):
            raise Alarm

        old = signal.signal(signal.SIGALRM, ring)
        self.addCleanup(signal.signal, signal.SIGALRM, old)
        a, b = self.pair()
        Trace(a, self.map)
        for use_poll in (False, True):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            self.assertRaises(Alarm, asyncore.loop, DEADLINE, use_poll, self.map)


class Mended(Case):
    """Bugs of the standard library's that are none here: docs/python/differences.md has a line for each."""

    def test_a_stale_event_reaches_no_new_channel_of_the_number(self):
        # GH-75114: one handler closes its neighbour, and a new channel gets its descriptor.
        for poll in POLLS:
            for wants in ((True, False), (False, True)):
                calls = []
                pairs = [self.pair(), self.pair()]
                fresh, other = self.pair()
                channels = [Trace(a, self.map, calls, name) for (a, b), name in zip(pairs, "01")]
                fd = channels[1]._fileno

                class First(Trace):
                    def act(self):
                        self.wants = (False, False)
                        channels[1].close()
                        os.dup2(fresh.fileno(), fd)
                        new = Trace(socket.socket(fileno=fd), self._map, calls, "new")
                        new.wants = (True, True)

                    handle_read = handle_write = act

                channels[0].del_channel()
                channels[1].wants = wants
                self.map.clear()
                first = First(pairs[0][0], self.map, calls)
                first.wants = wants
                channels[1].add_channel()
                for a, b in pairs:
                    b.send(b"x")
                poll(1, self.map)
                self.assertEqual(calls, [])
                asyncore.close_all(self.map)

    def test_a_channel_that_closes_gets_no_further_step(self):
        # In poll2: GH-57581, handle_close twice.
        for poll in POLLS:
            a, b = self.pair()
            channel = Trace(a, self.map)
            channel.wants = (True, True)
            b.close()
            poll(1, self.map)
            self.assertEqual(channel.calls, ["read", "close"])

    def test_readwrite_alone_stops_as_well(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        b.close()
        asyncore.readwrite(channel, select.POLLIN | select.POLLOUT | select.POLLHUP)
        self.assertEqual(channel.calls, ["read", "close"])

    def test_a_descriptor_closed_behind_the_loop_is_a_lost_connection(self):
        for use_poll in (False, True):
            a, b = self.pair()
            c, d = self.pair()
            d.send(b"x")
            calls = []
            Trace(a, self.map, calls, "lost")
            Trace(c, self.map, calls, "other")
            a.close()
            asyncore.loop(0.1, use_poll, self.map, 3)
            self.assertEqual(calls.count("lostclose"), 1)
            self.assertIn("otherread", calls)
            asyncore.close_all(self.map)

    def test_what_the_loop_opens_for_itself_passes_for_no_closed_channel(self):
        # The numbers of the closed ones are the lowest that are free when the loop begins.
        code = """
import asyncore, os, socket, sys
class Channel(asyncore.dispatcher):
    def writable(self):
        return False
    def handle_close(self):
        closed.append(self.socket.detach())
        self.close()
    def handle_read(self):
        raise SystemExit("something to read?")
    def handle_error(self):
        raise
closed, map = [], {}
pairs = [socket.socketpair() for _ in range(5)]
channels = [Channel(pair[0], map) for pair in pairs]
if sys.argv[2] == "child":
    asyncore.loop(0, sys.argv[1] == "poll", map, 2)
    if os.fork():
        sys.exit(os.wait()[1] != 0)
for channel in channels[:4]:
    os.close(channel._fileno)
for _ in range(20):
    if len(closed) < 4:
        asyncore.loop(0.1, sys.argv[1] == "poll", map, 1)
assert len(closed) == 4 and list(map.values()) == channels[4:], (closed, map)
"""
        for engine in ("epoll", "poll", "select"):
            for use_poll in ("select", "poll"):
                for where in ("parent", "child"):
                    status, output = run(code, use_poll, where, env=dict(os.environ, ASYNCORE_ENGINE=engine))
                    self.assertEqual((status, output), (0, ""), (engine, use_poll, where))

    def test_the_bad_descriptor_is_the_current_exception_in_handle_close(self):
        class Channel(Trace):
            def handle_close(self):
                seen.append(sys.exc_info()[1].errno)
                self.close()

        seen = []
        a, b = self.pair()
        Channel(a, self.map)
        a.close()
        asyncore.poll(0, self.map)
        self.assertEqual(seen, [errno.EBADF])

    def test_a_negative_descriptor_in_the_map(self):
        for use_poll in (False, True):
            channel = Trace(map=self.map)
            self.map[-1] = channel
            channel._fileno = -1
            asyncore.loop(0, use_poll, self.map, 2)
            self.assertEqual((channel.calls, self.map), (["close"], {}))

    def test_closing_in_a_predicate_does_not_end_the_loop(self):
        # GH-55087: the first channel was asked already when the second one closes it.
        class Closer(Trace):
            def writable(self):
                victim.close()
                return False

        for use_poll in (False, True):
            a, b = self.pair()
            c, d = self.pair()
            victim = Trace(a, self.map)
            channel = Closer(c, self.map)
            asyncore.loop(0, use_poll, self.map, 2)
            self.assertEqual(victim.calls, [])
            channel.close()

    def test_an_error_of_select_that_is_nobodys_still_leaves_the_loop(self):
        a, b = self.pair()
        Trace(a, self.map)
        for error in (OSError(errno.EBADF, ""), OSError(errno.ENOMEM, ""), ValueError()):
            with mock.patch.object(select, "select", side_effect=error):
                self.assertRaises(type(error), asyncore.poll, 0, self.map)

    def test_half_a_millisecond_is_a_wait(self):
        # poll2 cut it to none, and a loop span.
        a, b = self.pair()
        Trace(a, self.map)
        for poll in POLLS:
            before = time.monotonic()
            poll(0.0005, self.map)
            self.assertGreaterEqual(time.monotonic() - before, 0.0005)

    def test_descriptors_past_the_limit_of_select(self):
        if asyncore.get_engine(self.map) == "select":
            self.skipTest("$ASYNCORE_ENGINE is select")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 1100:
            self.skipTest("no more than %d descriptors" % hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        a, b = self.tcp()
        high = socket.socket(fileno=fcntl.fcntl(a.fileno(), fcntl.F_DUPFD_CLOEXEC, 1030))
        channel = Trace(high, self.map)
        asyncore.poll(0, self.map)
        self.assertEqual(channel.calls, [])
        channel.wants = (True, True)
        b.send(b"x")
        asyncore.poll(1, self.map)
        self.assertEqual(channel.calls, ["read", "write"])
        b.send(b"!", socket.MSG_OOB)
        self.until(lambda: "expt" in channel.calls)
        channel.wants = (True, False)
        a.close()
        b.close()
        self.until(lambda: "close" in channel.calls)
        fd = channel._fileno = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 1030)
        channel.add_channel()
        os.close(fd)
        del channel.calls[:]
        asyncore.poll(0, self.map)
        self.assertEqual((channel.calls, self.map), (["close"], {}))

    def test_a_listener_without_descriptors_rests(self):
        class Listener(Trace):
            def handle_accept(self):
                self.note("accept")
                raise OSError(self.number, "")

            def log_info(self, message, type="info"):
                self.note(type)

        for use_poll in (False, True):
            for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                listener = Listener(map=self.map)
                listener.number = number
                listener.create_socket()
                listener.bind(("127.0.0.1", 0))
                listener.listen(5)
                with socket.create_connection(listener.socket.getsockname()):
                    before = time.monotonic()
                    asyncore.loop(0.02, use_poll, self.map, 4)  # the first turn accepts, and the others wait
                    calls = list(listener.calls)
                    if time.monotonic() - before < 0.1:  # else this process was kept waiting
                        self.assertEqual(calls, ["accept", "warning"])
                    self.until(lambda: listener.calls.count("accept") >= 2)
                    self.assertGreaterEqual(time.monotonic() - before, 0.1)
                    self.assertTrue(listener.accepting)
                listener.close()
                self.assertNotIn(id(self.map), asyncore._serving.maps)  # the timer went with the listener

    def test_the_listener_takes_up_again_when_descriptors_are_there(self):
        status, output = run("""
import asyncore, os, resource, socket
class Server(asyncore.dispatcher):
    served = 0
    def writable(self): return False
    def handle_accepted(self, sock, addr):
        self.served += 1; sock.close()
    def handle_error(self): raise
server = Server(); server.create_socket(); server.bind(("127.0.0.1", 0)); server.listen(5)
asyncore.loop(0.01, count=1)  # it has what it needs for waking
client = socket.create_connection(server.socket.getsockname())
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True: taken.append(os.dup(0))
except OSError: pass
asyncore.loop(0.05, count=3)
assert server.served == 0 and server.accepting
for fd in taken: os.close(fd)
while not server.served: asyncore.loop(1, count=1)
""")
        self.assertEqual((status, output), (0, ""))

    def test_other_errors_of_accept_are_told(self):
        class Listener(Trace):
            def handle_accept(self):
                raise OSError(errno.EPERM, "")

        a, b = self.pair()
        b.send(b"x")
        listener = Listener(a, self.map)
        listener.accepting = True
        asyncore.poll(1, self.map)
        self.assertEqual(listener.calls, ["error:PermissionError"])

    def test_running_out_in_a_channel_that_does_not_accept_is_told(self):
        class Channel(Trace):
            def handle_read(self):
                raise OSError(errno.EMFILE, "")

        for poll in POLLS:
            a, b = self.pair()
            b.send(b"x")
            channel = Channel(a, self.map)
            poll(1, self.map)
            self.assertEqual(channel.calls, ["error:OSError"])

    def test_a_failing_handler_that_closes_its_neighbours(self):
        class Wild(Trace):
            def handle_read(self):
                for channel in list(self._map.values()):
                    channel.close()
                raise ZeroDivisionError

        for poll in POLLS:
            calls = []
            for name in "abc":
                a, b = self.pair()
                b.send(b"x")
                Wild(a, self.map, calls, name)
            poll(1, self.map)
            self.assertEqual((calls, self.map), (["aerror:ZeroDivisionError"], {}))


class CloseAll(Case):
    class Failing(Duck):
        def close(self):
            self.step("close")

    def test_what_it_lets_pass(self):
        for error in (OSError(errno.EBADF, ""), None):
            calls = []
            map = {1: self.Failing(calls, error), 2: self.Failing(calls)}
            asyncore.close_all(map)
            self.assertEqual((calls, map), (["close", "close"], {}))

    def test_what_it_raises(self):
        for error in (OSError(errno.EPIPE, ""), ZeroDivisionError()):
            map = {1: self.Failing([], error)}
            self.assertRaises(type(error), asyncore.close_all, map)
            self.assertEqual(len(map), 1)
            asyncore.close_all(map, ignore_all=True)
            self.assertEqual(map, {})

    def test_what_it_always_raises(self):
        for error in (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
            self.assertRaises(error, asyncore.close_all, {1: self.Failing([], error)}, ignore_all=True)


class Traceback(unittest.TestCase):
    def test_compact_traceback(self):
        def inner():
            raise KeyError("x")

        try:
            inner()
        except KeyError as error:
            (file, function, line), kind, value, info = asyncore.compact_traceback()
        self.assertEqual((os.path.basename(file), function, kind), ("test_events.py", "inner", KeyError))
        self.assertEqual(value.args, ("x",))
        self.assertTrue(info.endswith("[%s|inner|%s]" % (file, line)))
        self.assertEqual(info.count("["), 2)

    def test_without_an_exception(self):
        self.assertRaises(AssertionError, asyncore.compact_traceback)


if __name__ == "__main__":
    unittest.main()
