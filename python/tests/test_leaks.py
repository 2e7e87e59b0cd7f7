"""What is left of connections that ended, in all the ways that there are: nothing.

$LEAKS is how many connections there are (4,000); with some ten thousands the last lines say what the memory did.
"""
import asynchat
import asyncore
import collections
import gc
import os
import resource
import socket
import struct
import sys
import tracemalloc
import unittest
import weakref

from support import Case

COUNT = int(os.environ.get("LEAKS") or 4000)
WARM = 600  # connections before the counting begins: caches, spare wakers, interned names
LINE = b"a line\nand half of"


class Kept:
    """Every channel is known for as long as it lives."""

    alive = weakref.WeakSet()

    def __init__(self, sock, map):
        super().__init__(sock, map)
        self.alive.add(self)

    def handle_error(self):
        sys.exc_info()
        self.close()


class Echo(Kept, asyncore.dispatcher_with_send):
    def handle_read(self):
        data = self.recv(100)
        if data:
            self.send(data)

    def handle_close(self):
        self.close()


class Asked(Echo):
    """Overrides the predicates."""

    def readable(self):
        return True

    def writable(self):
        return bool(self.out_buffer)


class Chat(Kept, asynchat.async_chat):
    def __init__(self, sock, map):
        super().__init__(sock, map)
        self.set_terminator(b"\n")

    def collect_incoming_data(self, data):
        self._collect_incoming_data(data)

    def found_terminator(self):
        self.push(self._get_data())
        self.push_with_producer(asynchat.simple_producer(b"x" * 1000))


class Marked(Chat):
    def __init__(self, sock, map):
        super().__init__(sock, map)
        self.set_marks(100, 1000)
        self.set_idle_timeout(30)


class Failing(Echo):
    def handle_read(self):
        self.recv(3)
        raise ValueError(self)


class Closing(Echo):
    def handle_read(self):
        self.send(self.recv(3))
        self.close()


class Leaving(Echo):
    """Leaves the loop."""

    def handle_read(self):
        self.close()
        raise asyncore.ExitNow(self)


def quietly(turn):
    try:
        turn()
    except asyncore.ExitNow:
        pass


# Ways to end; each has the channel, its peer and a function that makes a turn.


def peer_closes(channel, peer, turn):
    peer.close()
    turn()
    turn()


def peer_resets(channel, peer, turn):
    if peer.family == socket.AF_INET:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer_closes(channel, peer, turn)


def closes(channel, peer, turn):
    channel.close()


def closed_behind(channel, peer, turn):
    if channel._fileno is not None:
        os.close(channel.socket.detach())
        turn()
        channel.close()


def taken_out(channel, peer, turn):
    channel._map.pop(channel._fileno, None)
    turn()
    channel.socket.close()


def dropped_full(channel, peer, turn):
    """It has more to send than anybody takes."""
    if channel.connected:
        (getattr(channel, "push", None) or channel.send)(b"x" * 300000)
    channel.close()


def overridden(channel, peer, turn):
    """By attributes of its own, which are cycles."""
    channel.readable = lambda: channel.connected
    channel.handle_close = channel.handle_error
    channel.myself = channel
    peer_closes(channel, peer, turn)


def timed(channel, peer, turn):
    if channel.connected:
        asyncore.call_later(0, channel.close, map=channel._map)
        asyncore.call_later(30, channel.close, map=channel._map).cancel()
        turn()
    channel.close()


def of_another_class(channel, peer, turn):
    channel.__class__ = type("Another", (type(channel),), {"readable": lambda self: True})
    turn()
    peer_closes(channel, peer, turn)


KINDS = [Echo, Asked, Chat, Marked, Failing, Closing, Leaving]
ENDS = [peer_closes, peer_resets, closes, closed_behind, taken_out, dropped_full, overridden, timed, of_another_class]
TURNS = [lambda map: asyncore.poll(0, map), lambda map: asyncore.poll2(0, map),
         lambda map: asyncore.loop(0, False, map, 2), lambda map: asyncore.loop(0.0001, True, map, 2)]


class Leaks(Case):
    def tcp_pair(self):
        peer = socket.create_connection(self.listener.getsockname())
        return self.listener.accept()[0], peer

    def connection(self, number):
        """One that begins, and ends; every combination of kind, end, turn and map comes up."""
        kind, rest = KINDS[number % len(KINDS)], number // len(KINDS)
        end, rest = ENDS[rest % len(ENDS)], rest // len(ENDS)
        serve, rest = TURNS[rest % len(TURNS)], rest // len(TURNS)
        map = self.map if rest % 2 else {}
        sock, peer = self.tcp_pair() if number % 5 == 0 else socket.socketpair()
        with peer:
            channel = kind(sock, map)
            peer.send(LINE)
            quietly(lambda: serve(map))
            end(channel, peer, lambda: quietly(lambda: serve(map)))
            channel.close()
            sock.close()
            serve(map)  # it was emptied, perhaps with nobody told
        self.assertEqual(map, {})

    def state(self):
        """Everything that there may be too much of."""
        gc.collect()
        kinds = collections.Counter(type(obj).__name__ for obj in gc.get_objects())
        counts = asyncore._extension.counts()[:2] if asyncore._extension else ()
        return {"kinds": kinds, "engines, entries": counts, "blocks": sys.getallocatedblocks(),
                "memory": tracemalloc.get_traced_memory()[0], "descriptors": len(os.listdir("/proc/self/fd")),
                "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}

    def test_nothing_is_left_of_connections(self):
        self.listener = socket.socket()
        self.addCleanup(self.listener.close)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        every = len(KINDS) * len(ENDS) * len(TURNS) * 2
        for number in range(max(WARM, every)):
            self.connection(number)
        self.state()  # which has caches of its own
        states = [self.state()]
        for number in range(COUNT):
            self.connection(number)
            if number == COUNT // 2 or number == COUNT - 1:
                states.append(self.state())
        self.expect_no_growth(*states)

    def expect_no_growth(self, first, middle, last):
        grown = {kind: count - first["kinds"][kind] for kind, count in last["kinds"].items()
                 if count > first["kinds"][kind] + 20}
        told = {name: last[name] - first[name] for name in ("blocks", "memory", "descriptors", "resident")}
        if COUNT >= 10000:
            print("%d connections: %s, %s, engines and entries %s" % (COUNT, told, grown or "no objects",
                                                                      last["engines, entries"]))
        self.assertEqual((list(Kept.alive), grown), ([], {}))
        self.assertLessEqual(told["descriptors"], 0)  # fewer where engines that earlier tests left were dropped
        for then, now in zip(first["engines, entries"], last["engines, entries"]):
            self.assertLessEqual(now, then)
        # A table of Python's own may grow, once. Per connection it is less than any object has.
        for name, most in (("memory", 10), ("blocks", 0.1)):
            self.assertLess(min(middle[name] - first[name], last[name] - middle[name]), most * COUNT / 2, name)


if __name__ == "__main__":
    unittest.main()
