"""Maps that are not exactly a dict: subclasses, with methods of their own, and what only looks like one."""
import asyncore
import collections
import functools
import gc
import os
import socket
import weakref
from collections import OrderedDict, UserDict

from support import Case, until


class Sub(dict):
    pass


class Own:
    """Has what a map needs, and neither a dict behind it nor weak references to it."""

    __slots__ = ("entries",)

    def __init__(self):
        self.entries = []

    def items(self):
        return list(self.entries)

    def get(self, key, default=None):
        return next((value for at, value in self.entries if at == key), default)

    def values(self):
        return [value for _, value in self.entries]

    def __bool__(self):
        return bool(self.entries)

    def __contains__(self, key):
        return any(at == key for at, _ in self.entries)

    def __setitem__(self, key, value):
        self.entries = [entry for entry in self.entries if entry[0] != key] + [(key, value)]

    def __delitem__(self, key):
        self.entries = [entry for entry in self.entries if entry[0] != key]

    def clear(self):
        self.entries = []


KINDS = [Sub, OrderedDict, lambda: collections.defaultdict(list), UserDict, Own]
TURNS = [asyncore.poll, asyncore.poll2, lambda timeout, map: asyncore.loop(timeout, True, map, 1)]


class Reader(asyncore.dispatcher):
    def __init__(self, sock, map, calls):
        asyncore.dispatcher.__init__(self, sock, map)
        self.calls = calls

    def writable(self):
        return False

    def handle_read(self):
        self.calls.append((self, self.recv(100)))

    def handle_close(self):
        self.calls.append((self, "close"))
        self.close()


class Mappings(Case):
    def each(self):
        """(map, turn) for each kind of map, each way to serve it."""
        for kind in KINDS:
            for turn in TURNS:
                map = kind()
                yield map, functools.partial(turn, 0.05, map)
                asyncore.close_all(map, ignore_all=True)

    def test_channels_come_and_go(self):
        for map, turn in self.each():
            calls = []
            for _ in range(3):
                a, b = self.pair()
                channel = Reader(a, map, calls)
                b.send(b"one")
                until(lambda: calls, turn)
                self.assertEqual(calls, [(channel, b"one")])
                b.close()
                until(lambda: not map, turn)
                self.assertEqual(calls[1], (channel, "close"))
                del calls[:]

    def test_they_are_served_in_the_order_of_the_map(self):
        for map, turn in self.each():
            calls, ends = [], [self.pair() for _ in range(5)]
            channels = [Reader(a, map, calls) for a, _ in reversed(ends)]
            for _, b in ends:
                b.send(b"x")
            turn()
            self.assertEqual([channel for channel, _ in calls], channels)

    def test_who_left_in_the_same_turn_is_not_called(self):
        for map, turn in self.each():
            calls = []

            class Killer(Reader):
                def handle_read(self):
                    Reader.handle_read(self)
                    other.close()

            a, b = self.pair()
            c, d = self.pair()
            first = Killer(a, map, calls)
            other = Reader(c, map, calls)
            b.send(b"x")
            d.send(b"x")
            for _ in range(3):
                turn()
            self.assertEqual(calls, [(first, b"x")])

    def test_a_plain_item_is_replaced_while_its_descriptor_stays(self):
        for map, turn in self.each():
            calls = []
            a, b = self.pair()
            old = Reader(a, map, calls)
            turn()
            new = Reader(a.dup(), {}, calls)
            map[old._fileno] = new
            b.send(b"x")
            until(lambda: calls, turn)
            self.assertEqual(calls, [(new, b"x")])
            new.socket.close()

    def test_a_number_that_was_closed_and_made_again_is_the_new_channel_s(self):
        for map, turn in self.each():
            calls = []
            a, b = self.pair()
            old = Reader(a, map, calls)
            turn()
            number = old._fileno
            old.close()
            c, d = self.pair()
            if c.fileno() != number:
                os.dup2(c.fileno(), number)
                c.close()
                c = socket.socket(fileno=number)
            new = Reader(c, map, calls)
            d.send(b"x")
            until(lambda: calls, turn)
            self.assertEqual(calls, [(new, b"x")])
            new.close()

    def test_keys_that_are_no_descriptors_fail_as_they_did(self):
        for map, turn in self.each():
            map["a"] = Reader(self.pair()[0], {}, [])
            with self.assertRaises(TypeError):
                turn()
            map.clear()

    def test_the_map_goes_with_its_last_reference(self):
        for kind in (Sub, OrderedDict, UserDict):
            map = kind()
            channel = Reader(self.pair()[0], map, [])
            asyncore.poll(0, map)
            gone = weakref.ref(map)
            channel._map = None
            del map, channel
            gc.collect()
            self.assertIsNone(gone())

    def test_a_map_that_takes_no_weak_references_leaves_no_descriptor(self):
        counts = []
        for _ in range(3):
            map = Own()
            Reader(self.pair()[0], map, [])
            asyncore.poll(0, map)
            map.clear()
            counts.append(len(os.listdir("/proc/self/fd")))
        self.assertEqual([after - before for before, after in zip(counts, counts[1:])], [2, 2])

    def test_items_that_fail_leave_the_loop(self):
        class Failing(Sub):
            def items(self):
                raise ZeroDivisionError

        map = Failing()
        Reader(self.pair()[0], map, [])
        for turn in TURNS:
            self.assertRaises(ZeroDivisionError, turn, 0, map)

    def test_a_get_that_fails_leaves_the_loop(self):
        class Failing(Sub):
            def get(self, key, default=None):
                raise KeyboardInterrupt

        map = Failing()
        a, b = self.pair()
        Reader(a, map, [])
        b.send(b"x")
        for turn in TURNS:
            self.assertRaises(KeyboardInterrupt, turn, 0, map)

    def test_a_predicate_that_empties_the_map(self):
        for map, turn in self.each():
            class Emptier(Reader):
                def readable(self):
                    map.clear()
                    return True

            channels = [cls(self.pair()[0], map, []) for cls in (Reader, Emptier, Reader)]
            turn()
            self.assertFalse(map)
            for channel in channels:
                channel.socket.close()
