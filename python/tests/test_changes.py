"""What changes while a map is served: descriptors, the dict, classes, instances, processes, threads.

A kernel set that is kept between turns gets each of them wrong unless it is told. The channels override no predicate
here, since those that do are asked in every turn anyway.
"""
import asynchat
import asyncore
import contextlib
import fcntl
import functools
import gc
import itertools
import os
import random
import resource
import select
import signal
import socket
import sys
import threading
import time
import types
import unittest
from unittest import mock

from support import DEADLINE, SLOWER, Case, until

WAYS = {
    "poll": lambda timeout, map: asyncore.poll(timeout, map),
    "poll2": lambda timeout, map: asyncore.poll2(timeout, map),
    "loop": lambda timeout, map: asyncore.loop(timeout, False, map, 1),
    "loop with poll2": lambda timeout, map: asyncore.loop(timeout, True, map, 1),
}


def in_ways(ways):
    """Tests get turn(timeout), in each of these ways, with a map of its own."""
    def decorate(test):
        @functools.wraps(test)
        def run(self):
            for way in ways:
                with self.subTest(way=way):
                    self.map = {}
                    test(self, lambda timeout, map=None: WAYS[way](timeout, self.map if map is None else map))
                    self.close_map()
        return run
    return decorate


all_ways = in_ways(WAYS)
two_ways = in_ways(["poll", "loop with poll2"])  # for tests that take a while


class Plain(asyncore.dispatcher_with_send):
    """Its predicates are the library's."""

    def __init__(self, sock, map, calls=None, name=""):
        self.calls = [] if calls is None else calls
        self.name = name
        asyncore.dispatcher_with_send.__init__(self, sock, map)

    def handle_read(self):
        data = self.recv(100)
        if data:
            self.calls.append(self.name + data.decode())

    def handle_close(self):
        self.calls.append(self.name + "close")
        self.close()

    def handle_error(self):
        self.calls.append(sys.exc_info()[1])
        self.close()


class Ways(Case):
    """What its tests share."""

    def plain(self, calls=None, name="", kind=Plain):
        """A channel that was served once, and its peer."""
        a, b = self.pair()
        return kind(a, self.map, calls, name), b

    def expect(self, turn, channel, calls):
        """Turns until the channel has these calls, and one more: it gets no others."""
        until(lambda: len(channel.calls) >= len(calls), lambda: turn(0.05), "%s of %s" % (channel.calls, calls))
        turn(0)
        self.assertEqual(channel.calls, calls)
        del channel.calls[:]

    def rests(self, turn):
        """A turn that waits until its time is over, and does not spin."""
        before, cpu = time.monotonic(), time.process_time()
        turn(0.2)
        self.assertGreaterEqual(time.monotonic() - before, 0.199)
        self.assertLess(time.process_time() - cpu, 0.1)


class Descriptors(Ways):
    @two_ways
    def test_one_that_is_closed_behind_a_loop_is_told_within_a_second(self, turn):
        channel, b = self.plain()
        other, _ = self.plain()
        turn(0)
        os.close(channel.socket.detach())
        before = time.monotonic()
        turn(DEADLINE)
        self.assertLess(time.monotonic() - before, DEADLINE / 2)
        self.assertEqual((channel.calls, list(self.map.values())), (["close"], [other]))

    @two_ways
    def test_one_that_is_closed_in_the_middle_of_a_wait_is_told_when_it_ends(self, turn):
        channel, b = self.plain()
        other, _ = self.plain()
        turn(0)
        timer = threading.Timer(0.05, lambda: os.close(channel.socket.detach()))
        timer.start()
        turn(0.2)
        timer.join()
        until(lambda: channel.calls, lambda: turn(1.2))
        self.assertEqual(channel.calls, ["close"])

    @two_ways
    def test_another_file_that_took_the_number_is_waited_for(self, turn):
        channel, b = self.plain()
        c, d = self.pair()
        turn(0)
        os.dup2(c.fileno(), channel._fileno)
        d.send(b"x")
        turn(DEADLINE)
        self.expect(turn, channel, ["x"])

    @all_ways
    def test_a_duplicate_of_a_closed_one_makes_no_event_and_no_spin(self, turn):
        calls = []
        channel, b = self.plain(calls)
        other, _ = self.plain(calls)
        turn(0)
        copy = os.dup(channel._fileno)
        channel.close()
        b.send(b"x")
        self.rests(turn)
        self.assertEqual(calls, [])
        os.close(copy)

    @two_ways
    def test_a_duplicate_of_one_that_was_closed_behind_makes_no_spin(self, turn):
        channel, b = self.plain()
        other, _ = self.plain()
        turn(0)
        copy = os.dup(channel._fileno)
        os.close(channel.socket.detach())
        b.send(b"x")
        until(lambda: "close" in channel.calls, lambda: turn(DEADLINE))
        del channel.calls[:]
        self.rests(turn)
        self.assertEqual(channel.calls, [])
        os.close(copy)

    @all_ways
    def test_a_child_that_holds_a_closed_one_makes_no_event_and_no_spin(self, turn):
        calls = []
        channel, b = self.plain(calls)
        other, _ = self.plain(calls)
        turn(0)
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(into)
            os.read(out, 1)
            os._exit(0)
        channel.close()
        b.send(b"x")
        self.rests(turn)
        self.assertEqual(calls, [])
        os.close(into)
        os.close(out)
        os.waitpid(child, 0)

    @all_ways
    def test_a_new_channel_of_the_number_gets_its_own_events_alone(self, turn):
        calls = []
        channel, b = self.plain(calls, "old ")
        turn(0)
        b.send(b"x")
        fd = channel._fileno
        channel.close()
        c, d = self.pair()
        if c.fileno() != fd:
            os.dup2(c.fileno(), fd)
            c = socket.socket(fileno=fd)
        new = Plain(c, self.map, calls, "new ")
        turn(0)
        self.assertEqual(calls, [])
        d.send(b"y")
        self.expect(turn, new, ["new y"])


class Processes(Ways):
    @all_ways
    def test_a_child_serves_for_itself_and_the_parent_loses_nothing(self, turn):
        channel, b = self.plain()
        other, d = self.plain()
        turn(0)

        def child():
            channel.close()
            turn(0)
            d.send(b"child")
            self.expect(turn, other, ["child"])
            new, f = self.plain()
            f.send(b"new")
            self.expect(turn, new, ["new"])

        self.fork(child)
        b.send(b"x")
        self.expect(turn, channel, ["x"])
        d.send(b"y")
        self.expect(turn, other, ["y"])

    @all_ways
    def test_fork_in_a_handler(self, turn):
        class Forking(Plain):
            def handle_read(self):
                Plain.handle_read(self)
                case.fork(self.child)

        case = self
        channel, b = self.plain(kind=Forking)
        other, d = self.plain()

        def child():
            other.close()
            new, f = self.plain()
            f.send(b"new")
            self.expect(turn, new, ["new"])

        channel.child = child
        b.send(b"x")
        self.expect(turn, channel, ["x"])
        d.send(b"y")
        self.expect(turn, other, ["y"])


class Nested(Ways):
    @all_ways
    def test_a_loop_in_a_handler_serves_the_others(self, turn):
        calls = []

        class Outer(Plain):
            def handle_read(self):
                calls.append("in")
                self.recv(10)
                d.send(b"y")
                turn(1)
                calls.append("out")

        channel, b = self.plain(calls, kind=Outer)
        other, d = self.plain(calls)
        turn(0)
        b.send(b"x")
        turn(1)
        self.assertEqual(calls, ["in", "y", "out"])

    @all_ways
    def test_a_loop_in_a_handler_that_empties_the_map(self, turn):
        calls = []

        class Outer(Plain):
            def handle_read(self):
                asyncore.close_all(self._map)
                turn(0)
                new = Plain(c, self._map, calls)
                until(lambda: calls, lambda: turn(1))
                new.close()

        c, d = self.pair()
        d.send(b"new")
        channel, b = self.plain(calls, kind=Outer)
        other, e = self.plain(calls)
        b.send(b"x")
        e.send(b"y")
        turn(1)
        self.assertEqual((calls, self.map), (["new"], {}))


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def engines():
    """How many there are; without the extension always one less than before."""
    return asyncore._extension.counts()[0] if asyncore._extension else next(fewer)


fewer = itertools.count(0, -1)


class Kept(Ways):
    def rounds(self, once):
        """once() leaves no descriptor, the first few times apart: some are kept for the next loop."""
        for _ in range(8):
            once()
        before = descriptors()
        for _ in range(100):
            once()
        return descriptors() - before

    @all_ways
    def test_nothing_of_a_map_that_was_emptied(self, turn):
        def closed():
            a, b = socket.socketpair()
            channel = Plain(a, self.map)
            turn(0)
            channel.close()
            b.close()

        def cleared():
            a, b = socket.socketpair()
            Plain(a, self.map)
            turn(0)
            before = engines()
            self.map.clear()
            a.close()
            b.close()
            turn(0)
            self.assertEqual(engines(), before - 1)

        for once in (closed, cleared):
            self.assertLessEqual(self.rounds(once), 0)

    @all_ways
    def test_little_of_maps_that_were_dropped(self, turn):
        # Up to 3.11 a dict does not say that it goes: 64 that were are kept at most.
        def once():
            map = {}
            a, b = socket.socketpair()
            Plain(a, map)
            turn(0, map)
            a.close()
            b.close()

        self.assertLessEqual(self.rounds(once), 0 if sys.version_info >= (3, 12) else 64 * 3)


# What may be done to a map; `spare` has channels by their descriptors.


def put(map, spare, random):
    map[random.choice(list(spare))] = spare[random.choice(list(spare))]


def swap(map, spare, random):
    if len(map) > 1:
        a, b = random.sample(sorted(map), 2)
        map[a], map[b] = map[b], map[a]


def delete(map, spare, random):
    if map:
        del map[random.choice(sorted(map))]


def take(map, spare, random):
    map.pop(random.choice(sorted(spare)), None)


def last(map, spare, random):
    if map:
        map.popitem()


def default(map, spare, random):
    fd = random.choice(sorted(spare))
    map.setdefault(fd, spare[fd])


def clear(map, spare, random):
    map.clear()


def update(map, spare, random):
    map.update({fd: spare[fd] for fd in random.sample(sorted(spare), 3)})


def merge(map, spare, random):
    dict.__init__(map, {fd: spare[fd] for fd in random.sample(sorted(spare), 2)})


def nothing(map, spare, random):
    pass


OPERATIONS = [put, swap, delete, take, last, default, clear, update, merge, nothing, nothing]


class Dicts(Ways):
    """A map is a dict, and anybody may do to it what is done to dicts."""

    COUNT = 7  # channels

    def channels(self, calls):
        """Channels with something to read, by their descriptors; they are in no map."""
        class Noting(Plain):
            def handle_read(self):
                calls.append(self.name)
                self.act()

        made = {}
        for name in range(self.COUNT):
            a, b = self.pair()
            b.send(b"x")
            channel = Noting(a, {}, calls, name)
            made[a.fileno()] = channel
        for fd, channel in made.items():
            channel._map.clear()
            channel._map = self.map
            channel._fileno = fd
        return made

    def expected(self, map, acts):
        """What a turn does: acts are made to the dict, one after each call."""
        calls = []
        for fd, channel in list(map.items()):
            if map.get(fd) is channel:
                calls.append(channel.name)
                next(acts)(map)
        return calls

    def acts(self, seed, channels):
        source = random.Random(seed)
        while True:
            operation = source.choice(OPERATIONS)
            yield lambda map: operation(map, channels, source)

    @all_ways
    def test_whatever_is_done_to_it_between_turns_and_in_handlers(self, turn):
        calls = []
        channels = self.channels(calls)
        for seed in range(30):
            self.map.clear()
            model, acts = {}, self.acts(seed, channels)
            mine = self.acts(seed, channels)
            for channel in channels.values():
                channel.act = lambda: next(mine)(self.map)
            for step in range(20):
                next(acts)(model)
                next(mine)(self.map)
                expected = self.expected(model, acts)
                del calls[:]
                turn(0)
                self.assertEqual((calls, list(self.map.items())), (expected, list(model.items())),
                                 "seed %d, step %d" % (seed, step))
        self.map.clear()
        for channel in channels.values():
            channel.close()

    @all_ways
    def test_what_another_thread_takes_out_is_not_called(self, turn):
        channel, b = self.plain()
        other, d = self.plain()
        turn(0)
        fd = channel._fileno
        worker = threading.Thread(target=self.map.pop, args=(fd,))
        worker.start()
        worker.join()
        b.send(b"x")
        d.send(b"y")
        self.expect(turn, other, ["y"])
        self.assertEqual(channel.calls, [])
        self.map[fd] = channel
        self.expect(turn, channel, ["x"])

    @all_ways
    def test_another_object_under_the_key_gets_no_further_step(self, turn):
        class Both(Plain):
            def writable(self):
                return True

            def handle_read(self):
                self.calls.append("read")
                self._map[self._fileno] = other

            def handle_write(self):
                self.calls.append(self.name + "write")

        channel, b = self.plain(kind=Both)
        other, d = self.plain(channel.calls, "other ", kind=Both)
        del self.map[other._fileno]
        turn(0)
        del channel.calls[:]
        b.send(b"x")
        turn(1)
        self.assertEqual(channel.calls, ["read"])
        self.map.clear()
        channel.close()
        other.close()

    @all_ways
    def test_mappings_that_are_not_exactly_dicts(self, turn):
        class Map(dict):
            asked = 0

            def items(self):
                Map.asked += 1
                return dict.items(self)

        self.map = Map()
        channel, b = self.plain()
        before = Map.asked
        turn(0)
        self.assertEqual(Map.asked, before + 1)
        b.send(b"x")
        self.expect(turn, channel, ["x"])
        del self.map[channel._fileno]
        b.send(b"x")
        turn(0)
        self.map[channel._fileno] = channel
        self.expect(turn, channel, ["x"])

    @all_ways
    def test_keys_that_are_no_plain_numbers(self, turn):
        class Number(int):
            pass

        channel, b = self.plain()
        turn(0)
        fd = channel._fileno
        del self.map[fd]
        self.map[Number(fd)] = channel
        b.send(b"x")
        self.expect(turn, channel, ["x"])
        self.map["name"] = channel
        self.assertRaises(TypeError, turn, 0)
        del self.map["name"]
        b.send(b"y")
        self.expect(turn, channel, ["y"])


class Classes(Ways):
    def quiet(self, turn, channel, b):
        """The channel does not want to read; what was sent is read once it does."""
        b.send(b"x")
        turn(0.01)
        self.assertEqual(channel.calls, [])

    @all_ways
    def test_a_predicate_put_on_a_class_and_taken_off(self, turn):
        def never(self):
            return False

        kind = type("Sub", (Plain,), {})
        channel, b = self.plain(kind=kind)
        for owner in (kind, Plain, asyncore.dispatcher, asyncore.dispatcher_with_send):
            turn(0)
            with mock.patch.object(owner, "readable", never, create=True):
                self.quiet(turn, channel, b)
            self.expect(turn, channel, ["x"])
        kind.readable = never
        self.quiet(turn, channel, b)
        del kind.readable
        self.expect(turn, channel, ["x"])
        kind.__bases__ = type("Base", (Plain,), {"readable": never}),
        self.quiet(turn, channel, b)
        kind.__bases__ = Plain,
        self.expect(turn, channel, ["x"])

    @all_ways
    def test_a_predicate_put_on_an_instance_and_taken_off(self, turn):
        channel, b = self.plain()
        turn(0)
        channel.readable = lambda: False
        self.quiet(turn, channel, b)
        del channel.readable
        self.expect(turn, channel, ["x"])
        with mock.patch.object(channel, "readable", return_value=False) as asked:
            self.quiet(turn, channel, b)
        self.assertTrue(asked.called)
        self.expect(turn, channel, ["x"])

    @all_ways
    def test_a_handler_put_on_a_class_or_an_instance(self, turn):
        channel, b = self.plain()
        b.send(b"x")
        self.expect(turn, channel, ["x"])
        for owner in (Plain, asyncore.dispatcher):
            for name in ("handle_read", "handle_read_event"):
                if owner is not Plain and name == "handle_read":
                    continue
                handler = mock.Mock(side_effect=lambda: channel.calls.append(channel.recv(9).decode() * 2))
                with mock.patch.object(owner, name, handler, create=True):
                    b.send(b"x")
                    self.expect(turn, channel, ["xx"])
                    self.assertTrue(handler.called)
        for name in ("handle_read", "handle_read_event"):
            setattr(channel, name, lambda: channel.calls.append(channel.recv(9).decode() * 3))
            b.send(b"x")
            self.expect(turn, channel, ["xxx"])
            delattr(channel, name)
        b.send(b"x")
        self.expect(turn, channel, ["x"])

    @all_ways
    def test_another_class(self, turn):
        class Deaf(Plain):
            def readable(self):
                return False

        channel, b = self.plain()
        turn(0)
        channel.__class__ = Deaf
        self.quiet(turn, channel, b)
        channel.__class__ = Plain
        self.expect(turn, channel, ["x"])

    @two_ways
    def test_dunder_dict(self, turn):
        # Nobody is told of that: it counts within a second.
        channel, b = self.plain()
        turn(0)
        channel.__dict__["readable"] = lambda: False
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            turn(0.01)
        self.quiet(turn, channel, b)
        del channel.__dict__["readable"]
        self.expect(turn, channel, ["x"])
        channel.__dict__.update(connected=False, connecting=True)
        until(lambda: channel.connected, lambda: turn(0.01), "the end of the connecting")

    @all_ways
    def test_more_classes_than_are_remembered(self, turn):
        calls, kinds, peers = [], [], []
        for i in range(40):
            kinds.append(type("Kind%d" % i, (Plain,), {}))
            peers.append(self.plain(calls, "%d" % i, kinds[-1])[1])
        turn(0)
        for kind in kinds[::2]:
            kind.readable = lambda self: False
        for b in peers:
            b.send(b"x")
        turn(0)
        self.assertEqual(calls, ["%dx" % i for i in range(1, 40, 2)])
        for kind in kinds[::2]:
            del kind.readable
        turn(0)
        self.assertEqual(calls[20:], ["%dx" % i for i in range(0, 40, 2)])


class Quiet(asynchat.async_chat):
    def __init__(self, sock, map, calls=None, name=""):
        asynchat.async_chat.__init__(self, sock, map)


class Queues(Ways):
    """The queue of an async_chat is a deque, which tells nobody that it changed."""

    @all_ways
    def test_close_when_done_counts_in_the_next_turn(self, turn):
        channel, b = self.plain(kind=Quiet)
        turn(0)
        turn(0)
        channel.close_when_done()
        turn(0)
        self.assertEqual((self.map, b.recv(1)), ({}, b""))

    @all_ways
    def test_a_push_that_queues_and_raises_counts_in_the_next_turn(self, turn):
        class Raising(Quiet):
            raises = False

            def initiate_send(self):
                if self.raises:
                    self.raises = False
                    raise ZeroDivisionError
                Quiet.initiate_send(self)

        channel, b = self.plain(kind=Raising)
        turn(0)
        turn(0)
        channel.raises = True
        self.assertRaises(ZeroDivisionError, channel.push, b"x")
        turn(0)
        self.assertEqual(b.recv(1), b"x")

    @all_ways
    def test_a_producer_counts_in_the_next_turn(self, turn):
        channel, b = self.plain(kind=Quiet)
        turn(0)
        turn(0)
        channel.initiate_send = lambda: None
        channel.push_with_producer(asynchat.simple_producer(b"xy", 1))
        del channel.initiate_send
        turn(0)
        turn(0)
        self.assertEqual(b.recv(9), b"xy")

    @all_ways
    def test_what_others_put_into_it_is_sent_in_the_next_wait(self, turn):
        channel, b = self.plain(kind=Quiet)
        turn(0)
        turn(0)
        channel.producer_fifo.append(b"x")
        before = time.monotonic()
        turn(DEADLINE)
        self.assertEqual(b.recv(9), b"x")
        self.assertLess(time.monotonic() - before, 0.5 * SLOWER)

    @all_ways
    def test_what_others_took_out_of_it_is_no_reason_to_be_called(self, turn):
        channel, b = self.plain(kind=Quiet)
        b.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                channel.socket.send(b"x" * 100000)
        channel.push(b"y")
        turn(0)
        channel.discard_buffers()
        with contextlib.suppress(BlockingIOError):
            while True:
                b.recv(1000000)
        channel.handle_write = mock.Mock()
        turn(0)
        self.assertFalse(channel.handle_write.called)


class Errors(Ways):
    @all_ways
    def test_an_exception_without_a_frame_has_a_traceback_and_is_forgotten(self, turn):
        class Framed(Plain):
            handle_read_event = len

            def handle_error(self):
                self.calls.append(asyncore.compact_traceback()[1])
                self.close()

        channel, b = self.plain(kind=Framed)
        b.send(b"x")
        turn(1)
        self.assertEqual((channel.calls, sys.exc_info()), ([TypeError], (None, None, None)))

    @all_ways
    def test_what_was_handled_before_is_restored(self, turn):
        class Failing(Plain):
            def handle_read(self):
                raise ValueError

            def handle_error(self):
                self.calls.append((type(sys.exc_info()[1]), type(sys.exc_info()[1].__context__)))
                self.close()

        channel, b = self.plain(kind=Failing)
        b.send(b"x")
        try:
            raise KeyError
        except KeyError as error:
            turn(1)
            self.assertIs(sys.exc_info()[1], error)
        self.assertEqual(channel.calls, [(ValueError, KeyError)])

    @all_ways
    def test_an_interrupt_in_the_middle_of_a_wait_leaves_it(self, turn):
        old = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, old)
        channel, b = self.plain()
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        before = time.monotonic()
        self.assertRaises(KeyboardInterrupt, turn, DEADLINE)
        self.assertLess(time.monotonic() - before, DEADLINE / 2)
        timer.join()
        b.send(b"x")
        self.expect(turn, channel, ["x"])


class Replaced(Ways):
    """Who puts something else in the place of the system's waits gets all of them: gevent, eventlet, tests."""

    def serve(self, turn):
        """Whether a turn has served a channel, and what the peer's data has become."""
        channel, b = self.plain()
        turn(0)
        b.send(b"x")
        turn(1)
        self.assertEqual(channel.calls, ["x"])

    @in_ways(["poll", "loop"])
    def test_select_select(self, turn):
        with mock.patch.object(select, "select", side_effect=select.select) as fake:
            self.serve(turn)
        self.assertEqual(fake.call_count, 2)
        self.serve(turn)
        self.assertEqual(fake.call_count, 2)

    @in_ways(["poll2", "loop with poll2"])
    def test_select_poll(self, turn):
        with mock.patch.object(select, "poll", side_effect=select.poll) as fake:
            self.serve(turn)
        self.assertEqual(fake.call_count, 2)
        self.serve(turn)
        self.assertEqual(fake.call_count, 2)

    @all_ways
    def test_a_module_select_of_asyncores_own(self, turn):
        fake = types.SimpleNamespace(**vars(select))
        fake.select = mock.Mock(side_effect=select.select)
        fake.poll = mock.Mock(side_effect=select.poll)
        with mock.patch.object(asyncore, "select", fake):
            self.serve(turn)
        self.assertEqual(fake.select.call_count + fake.poll.call_count, 2)

    def test_the_function_for_a_turn(self):
        for use_poll, name in ((False, "poll"), (True, "poll2")):
            with mock.patch.object(asyncore, name, side_effect=getattr(asyncore, name)) as fake:
                self.serve(lambda timeout: asyncore.loop(timeout, use_poll, self.map, 1))
            self.assertEqual(fake.call_count, 2)

    @all_ways
    def test_socket_socket(self, turn):
        with mock.patch.object(socket.socket, "recv", lambda sock, size: b"fake" if size > 1 else b""):
            channel, b = self.plain()
            b.send(b"x")
            turn(1)
            self.assertEqual(channel.calls, ["fake"])
        channel.calls.clear()
        self.expect(turn, channel, ["x"])

    @all_ways
    def test_descriptors_past_the_limit_of_select(self, turn):
        if asyncore.get_engine(self.map) == "select":
            self.skipTest("$ASYNCORE_ENGINE is select")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 1100:
            self.skipTest("no more than %d descriptors" % hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
        try:
            a, b = self.pair()
            high = socket.socket(fileno=fcntl.fcntl(a.fileno(), fcntl.F_DUPFD_CLOEXEC, 1030))
            channel = Plain(high, self.map)
            other, d = self.plain()
            for _ in range(3):
                b.send(b"x")
                d.send(b"y")
                self.expect(turn, channel, ["x"])
                self.expect(turn, other, ["y"])
            channel.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    unittest.main()
