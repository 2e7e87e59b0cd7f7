"""Random programs on asyncore and asynchat, and what is called in them: run with two asyncores and compared.

    traces.py FIRST COUNT      runs the programs of these seeds, prints a line "SEED: what was called" for each

Everything is decided by the seed: which channels there are, what their handlers do, what their peers send, how the
turns are made. The sockets are AF_UNIX pairs, which deliver at once, so that readiness is the same each time.

A channel that left its map is not to be called any more, which is one of the bugs that are mended: what it is called
all the same is not written down, and does nothing.
"""
import os
import random
import socket
import sys
import warnings

warnings.simplefilter("ignore")

import asynchat
import asyncore

TURNS = 12


class World:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.map = {}
        self.calls = []
        self.channels = []
        self.peers = []
        self.turn = self.random.choice([asyncore.poll, asyncore.poll2,
                                        lambda timeout, map: asyncore.loop(timeout, False, map, 1),
                                        lambda timeout, map: asyncore.loop(timeout, True, map, 1)])
        if os.environ.get("ASYNCORE_ENGINE") == "select":
            self.turn = asyncore.poll  # select(2) tells no hang-up, on which poll2 acts

    def note(self, *words):
        self.calls.append(" ".join(str(word) for word in words))

    def data(self):
        size = self.random.choice([0, 1, 2, 3, 5, 20, 300, 70000])
        return bytes(self.random.choice(b"ab\r\n") for _ in range(min(size, 300))) * (size // 300 or 1)

    def add(self):
        a, b = socket.socketpair()
        b.setblocking(False)
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        cls = self.random.choice([Plain, WithSend, WithSend, Chat, Chat])
        if self.random.random() < 0.5:
            cls = BARE[cls]
        self.channels.append(cls(self, len(self.channels), a))
        self.peers.append(b)

    def run(self):
        for _ in range(self.random.randint(1, 4)):
            self.add()
        for _ in range(TURNS):
            for _ in range(self.random.randint(0, 3)):
                self.interfere()
            try:
                self.turn(0, self.map)
            except Exception as error:
                self.note("left:", type(error).__name__)
            self.note("|")
            for channel in self.channels:
                self.note(channel.state())
        for channel in self.channels:
            channel.close()
        for peer in self.peers:
            peer.close()
        return self.calls

    def interfere(self):
        """What a peer, or the program between two turns, does."""
        at = self.random.randrange(len(self.channels))
        channel, peer = self.channels[at], self.peers[at]
        what = self.random.choice(["send", "send", "send", "recv", "recv", "shutdown", "close", "push", "own", "add"])
        try:
            if what == "send":
                peer.send(self.data())
            elif what == "recv":
                self.note("peer", at, "got", len(peer.recv(self.random.choice([10, 100000]))))
            elif what == "shutdown":
                peer.shutdown(self.random.choice([socket.SHUT_WR, socket.SHUT_RDWR]))
            elif what == "close" and self.random.random() < 0.3:
                peer.close()
            elif what == "push" and not channel.gone():
                channel.output(self.data())
            elif what == "own" and not channel.gone():
                channel.act()
            elif what == "add" and len(self.channels) < 6:
                self.add()
        except Exception as error:
            self.note("peer", at, type(error).__name__)


class Mixin:
    """Handlers that write themselves down, and do what the seed says."""

    def __init__(self, world, number, sock):
        self.world = world
        self.number = number
        self.wants = [True, world.random.random() < 0.5]
        self.half = world.random.random() < 0.2  # handle_close does not close
        self.base.__init__(self, sock, world.map)
        self.fd = self._fileno

    def note(self, *words):
        self.world.note(self.number, *words)

    def gone(self):
        return self.world.map.get(self.fd) is not self

    def state(self):
        words = [self.number, int(self.connected), int(self.gone())]
        for name in ("out_buffer", "ac_in_buffer"):
            words.append(len(getattr(self, name, b"")))
        if hasattr(self, "producer_fifo"):
            words.extend([len(self.producer_fifo), repr(self.get_terminator())])
        return " ".join(str(word) for word in words)

    def act(self):
        """One of the things that handlers do."""
        choice = self.world.random
        what = choice.choice(["nothing"] * 8 + ["wants", "wants", "output", "output", "close", "neighbour", "raise",
                                                "oserror", "done"])
        if what == "wants":
            self.wants = [choice.random() < 0.8, choice.random() < 0.5]
        elif what == "output":
            self.output(self.world.data())
        elif what == "close" and choice.random() < 0.5:
            self.note("closes")
            self.close()
        elif what == "neighbour" and choice.random() < 0.5:
            other = choice.choice(self.world.channels)
            self.note("closes", other.number)
            other.close()
        elif what == "raise" and choice.random() < 0.5:
            raise ValueError("made up")
        elif what == "oserror" and choice.random() < 0.5:
            raise OSError(choice.choice([32, 104, 111, 110]), "made up")
        elif what == "done" and hasattr(self, "close_when_done") and choice.random() < 0.3:
            self.close_when_done()

    def handle_read(self):
        if not self.gone():
            self.note("read")
            self.act()
            if not self.gone():
                self.input()

    def handle_write(self):
        if not self.gone():
            self.note("write")
            self.act()
            if not self.gone():
                self.base.handle_write(self)

    def handle_expt(self):
        if not self.gone():
            self.note("expt")

    def handle_close(self):
        if not self.gone():
            self.note("close", type(sys.exc_info()[1]).__name__)
            self.act()
            if not self.half:
                self.close()

    def handle_error(self):
        if not self.gone():
            (_, function, _), kind, value, _ = asyncore.compact_traceback()
            self.note("error", function, kind.__name__, value)
            if self.world.random.random() < 0.7:
                self.handle_close()

    def log_info(self, message, type="info"):
        self.note("log", type, message)


class Wants:
    """Overrides the predicates."""

    def readable(self):
        return self.base.readable(self) and self.wants[0]

    def writable(self):
        return self.base.writable(self) and self.wants[1]


class BarePlain(Mixin, asyncore.dispatcher):
    base = asyncore.dispatcher

    def input(self):
        self.note("got", self.recv(self.world.random.choice([1, 10, 65536]))[:50])

    def output(self, data):
        self.note("sent", self.send(data))


class BareWithSend(BarePlain, asyncore.dispatcher_with_send):
    base = asyncore.dispatcher_with_send


class BareChat(Mixin, asynchat.async_chat):
    base = asynchat.async_chat

    def __init__(self, world, number, sock):
        Mixin.__init__(self, world, number, sock)
        self.ac_in_buffer_size = world.random.choice([1, 7, 65536])
        self.ac_out_buffer_size = world.random.choice([5, 512, 65536])
        self.choose()

    def choose(self):
        self.set_terminator(self.world.random.choice([b"\n", b"\r\n", b"aba", 1, 5, 1000, None, 0]))

    def input(self):
        asynchat.async_chat.handle_read(self)

    def output(self, data):
        if self.world.random.random() < 0.3:
            self.push_with_producer(asynchat.simple_producer(data, self.world.random.choice([3, 512])))
        elif self.world.random.random() < 0.3:
            self.push_with_producer(data)
        else:
            self.push(data)

    def collect_incoming_data(self, data):
        self.note("collect", data[:50], len(data), len(self.ac_in_buffer))
        self.act()

    def found_terminator(self):
        self.note("found", repr(self.get_terminator()), len(self.ac_in_buffer))
        if self.world.random.random() < 0.5:
            self.choose()
        self.act()


class Plain(Wants, BarePlain):
    pass


class WithSend(Wants, BareWithSend):
    pass


class Chat(Wants, BareChat):
    pass


BARE = {Plain: BarePlain, WithSend: BareWithSend, Chat: BareChat}


def main(first, count):
    for seed in range(first, first + count):
        print("%d: %s" % (seed, "; ".join(World(seed).run())))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
