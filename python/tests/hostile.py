"""Random hostile programs: hostile.py FIRST COUNT makes so many, of the seeds from FIRST on.

Each makes some maps and channels of odd classes, and lets everything that Python can be called from (predicates,
handlers, attributes, keys, queues, finalizers, timers, other threads, children) do anything to any of them, loops in
loops included. Nothing is expected of it but that the interpreter lives, and that the loop comes back.
"""
import collections
import faulthandler
import gc
import os
import random
import signal
import socket
import sys
import threading
import weakref

import asynchat
import asyncore

STEPS = 120  # things that one program does
DEEPEST = 4  # within each other
NAMES = ("_map", "_fileno", "connected", "accepting", "readable", "writable", "handle_read", "handle_read_event",
         "debug", "producer_fifo", "_asyncore_in", "_asyncore_out", "_asyncore_tls", "terminator", "socket",
         "initiate_send", "send")


class World:
    """What there is to do things to, and the chance."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.left = STEPS
        self.depth = 0
        self.maps = [{}, {}, Map(), collections.UserDict()]
        self.channels = []
        self.ends = []
        self.threads = []
        self.actions = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("do_")]
        self.rare = [self.rare_fork, self.rare_thread]

    def act(self, often=1.0):
        """Anything; what comes of it is nobody's."""
        if world is not self or self.left <= 0 or self.depth >= DEEPEST or self.random.random() > often:
            return
        self.left -= 1
        self.depth += 1
        try:
            self.random.choice(self.rare if self.random.random() < 0.01 else self.actions)()
        except Exception:
            pass
        finally:
            self.depth -= 1

    def some(self):
        return self.random.choice(self.channels or [None])

    def map(self):
        return self.random.choice(self.maps)

    def value(self, *more):
        """Something that an attribute was not made for."""
        kinds = [None, 0, 1, -1, 2 ** 70, "x", b"x", True, False, [], [b"ab", 1], (b"ab", 9), {},
                 self.map(), self.some(),
                 Flag(), Number(self.random.randrange(40)), Queue([b"x"]),
                 collections.deque([b"x", None, Producer()]),
                 bytearray(b"xy"), lambda *args: self.act(0.5)]
        return self.random.choice(kinds + list(more))

    # -- channels

    def do_make(self):
        a, b = socket.socketpair()
        b.setblocking(False)
        self.ends.append(b)
        self.channels.append(self.random.choice(CLASSES)(a, self.map()))

    do_make_too = do_make_more = do_make

    def do_close(self):
        self.some().close()

    def do_leave(self):
        self.some().del_channel(self.random.choice([None, self.map()]))

    def do_enter(self):
        self.some().add_channel(self.random.choice([None, self.map()]))

    def do_forget(self):
        del self.channels[:self.random.randrange(4)]

    def do_close_behind(self):
        os.close(self.some().socket.detach())

    def do_swap_socket(self):
        self.some().socket = self.random.choice(self.ends)

    def do_hang_up(self):
        self.ends.pop(self.random.randrange(len(self.ends))).close()

    def do_speak(self):
        for end in self.ends:
            end.send(b"a line\nand 5" * self.random.choice([1, 3000]))

    do_speak_again = do_speak

    # -- maps

    def do_take(self):
        map = self.map()
        key = self.random.choice(list(map))
        map.pop(self.random.choice([key, float(key), Number(key)]))

    def do_clear(self):
        self.map().clear()

    def do_pop(self):
        self.map().popitem()

    def do_put(self):
        channel = self.some()
        other = self.random.choice(list(self.map()) or [3])
        key = self.random.choice([channel._fileno, other, self.random.randrange(60)])
        self.map()[self.random.choice([key, key, Number(key)])] = self.random.choice([channel, channel, self.value()])

    def do_update(self):
        self.map().update(self.map())

    # -- attributes and classes

    def do_set(self):
        channel = self.some()
        setattr(channel, self.random.choice(NAMES), self.value(getattr(channel, "_fileno", 3)))

    do_set_too = do_set

    def do_delete(self):
        delattr(self.some(), self.random.choice(NAMES))

    def do_dict(self):
        self.some().__dict__[Colliding(self.random.choice(NAMES))] = self.value()

    def do_change_class(self):
        self.some().__class__ = self.random.choice(CLASSES)

    def do_new_class(self):
        channel = self.some()
        channel.__class__ = type("New", (type(channel),), {self.random.choice(NAMES): self.value()})

    def do_patch(self):
        cls = type(self.some())
        if cls not in CLASSES:
            setattr(cls, self.random.choice(NAMES), self.value())

    def do_finalize(self):
        self.channels[0].finalizers = [weakref.ref(self.some(), lambda ref: self.act())]

    def do_collect(self):
        gc.collect()

    # -- calls

    def do_call(self):
        name = self.random.choice(("send", "push", "recv", "handle_read", "initiate_send", "set_terminator", "readable",
                                   "writable", "push_with_producer", "handle_read_event", "handle_write_event",
                                   "close_when_done", "discard_buffers", "set_idle_timeout"))
        args = [self.value(b"x" * 100000, memoryview(b"abc"), 65536, 0.001)] * self.random.choice([0, 1, 1, 1, 1, 2])
        getattr(self.some(), name)(*args)

    do_call_too = do_call

    def do_loop(self):
        asyncore.loop(0, self.random.choice([True, False]), self.map(), self.random.choice([1, 2, 3]))

    def do_poll(self):
        self.random.choice([asyncore.poll, asyncore.poll2])(0, self.map())

    do_loop_too = do_loop_again = do_loop

    def do_short_wait(self):
        asyncore.poll(0.002, self.map())

    def do_later(self):
        asyncore.call_later(0, self.act, map=self.map()).set_background()

    def do_soon(self):
        asyncore.call_soon_threadsafe(self.act, map=self.map())

    def do_engine(self):
        asyncore.set_engine(self.random.choice(["epoll", "poll", "select", "x", None, 5]), self.map())

    def do_close_all(self):
        asyncore.close_all(self.map(), ignore_all=True)

    # -- rare

    def rare_fork(self):
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()  # what locks it held would be held in the child for ever
        pid = os.fork()
        if pid == 0:
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(30)
            try:
                for _ in range(5):
                    self.act()
            finally:
                os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if status != 0:
            os._exit(status >> 8 or 99)  # the child said why

    def rare_thread(self):
        def run():
            for _ in range(5):
                self.depth -= 1  # it is not within what the others do
                self.act()
                self.depth += 1

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)


world = None


def act(often=0.2):
    if world is not None:
        world.act(often)


class Map(dict):
    def get(self, key, default=None):
        act(0.05)
        return dict.get(self, key, default)


class Flag:
    def __bool__(self):
        act()
        if world is not None and world.random.random() < 0.2:
            raise KeyError("bool")
        return True

    def __len__(self):
        act()
        return 3


class Number(int):
    def __eq__(self, other):
        act(0.1)
        return int.__eq__(self, other)

    __hash__ = int.__hash__

    def __index__(self):
        act(0.1)
        return int(self)


class Queue(list):
    def __bool__(self):
        act()
        return len(self) != 0


class Producer:
    def more(self):
        act()
        return world.random.choice([b"", b"more", 5])


class Colliding(str):
    """A key that is looked at whenever that name is."""

    def __new__(cls, name):
        self = str.__new__(cls, name + "?")
        self.name = name
        return self

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        act(0.1)
        return False


class Quiet(asyncore.dispatcher):
    def log_info(self, message, type="info"):
        pass


class Plain(Quiet):
    def handle_read(self):
        act()
        self.recv(world.random.choice([10, 5000, 70000]))

    def handle_write(self):
        act()

    def handle_close(self):
        act()
        self.close()


class Asking(Plain):
    def readable(self):
        act(0.1)
        return True

    def writable(self):
        act(0.1)
        return world.random.choice([True, False, Flag()])

    def __del__(self):
        act()


class Sending(asyncore.dispatcher_with_send, Quiet):
    def handle_read(self):
        self.send(self.recv(8192))
        act()

    def handle_error(self):
        act()
        self.close()


class Dying(Sending):
    def __del__(self):
        act()


class Talking(asynchat.async_chat, Quiet):
    def __init__(self, sock=None, map=None):
        asynchat.async_chat.__init__(self, sock, map)
        self.set_terminator(b"\n")

    def collect_incoming_data(self, data):
        act(0.05)

    def found_terminator(self):
        act(0.05)
        self.set_terminator(world.random.choice([b"\n", 5, None, b"and", bytearray(b"\n"), True]))
        self.push(b"an answer\n")


class Odd(Talking):
    @property
    def _fileno(self):
        act(0.05)
        return self.__dict__.get("fileno")

    @_fileno.setter
    def _fileno(self, value):
        act(0.05)
        self.__dict__["fileno"] = value


class Nosy(Sending):
    def __getattribute__(self, name):
        act(0.01)
        return object.__getattribute__(self, name)


class Setting(Sending):
    def __setattr__(self, name, value):
        act(0.02)
        asyncore.dispatcher.__setattr__(self, "".join(name), value)


class Slotted(Plain):
    __slots__ = ("connected", "_map")


CLASSES = [Quiet, Plain, Asking, Sending, Sending, Dying, Talking, Talking, Odd, Nosy, Setting, Slotted]


def program(seed):
    global world
    world = World(seed)
    try:
        for _ in range(6):
            world.do_make()
        while world.left > 0:
            world.act()
    finally:
        made, world = world, None
        for thread in made.threads:
            thread.join()
        for map in made.maps:
            asyncore.close_all(map, ignore_all=True)
            asyncore._serving.maps.pop(id(map), None)
        for sock in made.ends:
            sock.close()
        made.__dict__.clear()
        gc.collect()


def main(first, count):
    faulthandler.enable()
    sys.unraisablehook = lambda unraisable: None
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(60, exit=True)
        sys.stdout.write("%d\n" % seed)
        sys.stdout.flush()
        program(seed)
    print("alive")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
