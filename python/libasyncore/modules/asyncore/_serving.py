"""What belongs to a map besides its channels: who serves it, its timers, calls from other threads.

A map is any dict, which takes neither attributes nor weak references. What there is to keep of one therefore stands in
`maps` under its id(), and holds the map, so that no other one gets that number. It goes when nobody serves the map
and no timer or call is left.

Threads. A map is served by one thread at a time (`threads` knows which). Others may call `post` and `wake`, and set
timers. In turns made by Python `waits` has an entry while the channels are asked what they want, and waited for;
whoever changes something then sets the waker, whose descriptor the wait includes. It is there from before the asking,
or a change between the two would be seen by nobody until the wait ends. The extension's loop is woken by wake_engine.

The waker is an eventfd, or a pipe where Python has none. It is lent to the first turn that may need it, for as long as
the map is served: loop(count=1) again and again makes no descriptor. A child of fork() makes new ones, since the old
ones would wake its parent.
"""
import heapq
import os
import sys
from _thread import RLock, get_ident
from collections import deque

TIMERS_PER_TURN = 1024  # a burst of timers must not starve the channels
SPARE_WAKERS = 4  # kept for the next loop

ENGINES = ("epoll", "poll", "select", "io_uring")  # the library's names

maps = {}  # id(map): Serving
engines = {}  # id(map): (map, the name of the engine that was chosen for it)
lock = RLock()  # who comes, who goes, and which wakers are lent; signal handlers may come in between
spare = []
wake_engine = None  # the extension's


class Waker:
    """A descriptor that becomes readable when set() is called, from any thread or signal handler."""

    __slots__ = ("reader", "writer")

    def __init__(self):
        if hasattr(os, "eventfd"):
            self.reader = self.writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.reader, self.writer = os.pipe()
            os.set_blocking(self.reader, False)
            os.set_blocking(self.writer, False)

    def apart(self, map):
        """Whether no channel of the map has a number of these."""
        try:
            return self.reader not in map and self.writer not in map
        except TypeError:
            return True  # it is no map, as its first turn will find

    def set(self):
        try:
            os.write(self.writer, b"\1\0\0\0\0\0\0\0")
        except OSError:
            pass  # it is full, hence set

    def clear(self):
        try:
            while len(os.read(self.reader, 4096)) == 4096:
                pass
        except OSError:
            pass  # it was not set

    def close(self):
        os.close(self.reader)
        if self.writer != self.reader:
            os.close(self.writer)


class Timer:
    """What call_later() and call_every() return: a call that is still to come."""

    __slots__ = ("function", "args", "deadline", "period", "background", "serving")

    def __init__(self, serving, function, args, deadline, period):
        self.serving = serving
        self.function = function
        self.args = args
        self.deadline = deadline
        self.period = period
        self.background = False

    def cancel(self):
        """The function will not be called any more. Cancelling twice, or afterwards, is nothing."""
        serving = self.serving
        if serving is not None:
            self.serving = self.function = self.args = None
            serving.cancelled += 1
            if not self.background:
                serving.foreground -= 1
            serving.tidy()

    def pending(self):
        """Whether the function will be called."""
        return self.serving is not None

    def set_background(self, on=True):
        """A timer in the background does not keep loop() running when no channel is left."""
        on = bool(on)
        if on != self.background:
            self.background = on
            if self.serving is not None:
                self.serving.foreground += -1 if on else 1


Timer.__name__ = Timer.__qualname__ = "timer"
Timer.__module__ = "asyncore"


class Serving:
    """See above."""

    __slots__ = ("map", "users", "threads", "waits", "waker", "timers", "order", "foreground", "cancelled", "calls",
                 "changed")

    def __init__(self, map):
        self.map = map
        self.users = 0
        self.threads = {}  # thread: how many loops and turns of it are under way
        self.waits = []  # an entry for each that asks or waits
        self.waker = None
        self.timers = []  # a heap of (deadline, order, timer)
        self.order = 0
        self.foreground = 0  # timers that keep a loop running
        self.cancelled = 0  # timers that are still in the heap
        self.calls = deque()
        self.changed = None  # a function that is told of descriptors that leave the map

    def begin_wait(self, timeout=None):
        """A turn of Python's begins, whose wait others may end, unless it is none (a timeout of 0)."""
        if timeout != 0 and self.waker is None:
            self.take_waker()
        self.waits.append(None)

    def take_waker(self):
        with lock:
            try:
                self.waker = lend(self.map)
            except OSError:
                pass  # no descriptor is left: it is served all the same, and other threads wait for its turns

    def end_wait(self):
        if self.waits:  # a child of fork() begins anew
            self.waits.pop()

    def keeps(self):
        """Whether a loop has to go on though the map is empty."""
        return self.foreground > 0 or bool(self.calls)

    def add(self, function, args, delay, period, now):
        timer = Timer(self, function, args, now + delay, period)
        self.foreground += 1
        self.push(timer)
        return timer

    def push(self, timer):
        self.order += 1
        heapq.heappush(self.timers, (timer.deadline, self.order, timer))

    def tidy(self):
        """Cancelled timers leave the heap once they are most of it, or at its top."""
        if self.cancelled > 64 and self.cancelled * 2 > len(self.timers):
            self.timers[:] = [entry for entry in self.timers if entry[2].serving is not None]
            heapq.heapify(self.timers)
            self.cancelled = 0
        while self.timers and self.timers[0][2].serving is None:
            heapq.heappop(self.timers)
            self.cancelled -= 1
        with lock:
            forget(self)

    def bound(self, timeout, now):
        """How long to wait at most: `timeout` (None: for ever), or less if there is something to run earlier."""
        if self.calls:
            return 0
        if not self.timers:
            return timeout
        left = max(0, self.timers[0][0] - now)
        return left if timeout is None or timeout < 0 or left < timeout else timeout

    def run(self, now, call):
        """Runs what is due, by call(function, args): calls as they came, timers in the order of their deadlines."""
        for _ in range(len(self.calls)):
            function, args = self.calls.popleft()
            call(function, args)
        last = self.order
        for _ in range(TIMERS_PER_TURN):
            if not self.timers or self.timers[0][0] > now or self.timers[0][1] > last:
                break
            timer = heapq.heappop(self.timers)[2]
            if timer.serving is None:
                self.cancelled -= 1
                continue
            function, args = timer.function, timer.args
            if timer.period is None:
                timer.serving = timer.function = timer.args = None
                if not timer.background:
                    self.foreground -= 1
            else:
                missed = int((now - timer.deadline) / timer.period)
                timer.deadline += (missed + 1) * timer.period
                self.push(timer)
            call(function, args)
        if self.cancelled:
            self.tidy()  # what was cancelled behind one that ran is at the top now


def lend(map):
    """A waker for the map, under the number of no channel: one closed behind the loop must go on looking so."""
    others = []
    try:
        while True:
            waker = spare.pop() if spare else Waker()
            if waker.apart(map):
                return waker
            others.append(waker)
    finally:
        for other in others:
            other.close()


def enter(map):
    """This thread serves the map from now on; leave() follows."""
    with lock:
        serving = of(map)
        serving.users += 1
        me = get_ident()
        serving.threads[me] = serving.threads.get(me, 0) + 1
        return serving


def leave(serving):
    """The counterpart of enter()."""
    with lock:
        serving.users -= 1
        me = get_ident()
        depth = serving.threads[me] - 1 if me in serving.threads else 0
        if depth > 0:
            serving.threads[me] = depth
        else:
            serving.threads.pop(me, None)
        if serving.users <= 0:
            forget(serving)


def forget(serving):
    """Nobody serves the map, or a timer of it was cancelled: drops what is not needed any more. With the lock held."""
    if serving.users > 0:
        return
    waker, serving.waker = serving.waker, None
    if waker is not None:
        waker.clear()
        if len(spare) < SPARE_WAKERS:
            spare.append(waker)
        else:
            waker.close()
    if serving.timers or serving.calls or maps.get(id(serving.map)) is not serving:
        return
    del maps[id(serving.map)]
    if serving.calls:  # of a signal handler that came in between
        of(serving.map).calls.extend(serving.calls)


def post(map, function, args):
    """Any thread: the loop will call it."""
    with lock:
        of(map).calls.append((function, args))
    wake(map)


def of(map):
    """What is kept of the map, with the lock held until something was put into it."""
    serving = maps.get(id(map))
    return maps.setdefault(id(map), Serving(map)) if serving is None else serving


def wake(map):
    """Any thread, and signal handlers: a wait for this map ends."""
    if wake_engine is not None:
        wake_engine(map)
    serving = maps.get(id(map))
    if serving is not None and serving.waits:
        waker = serving.waker
        if waker is not None:
            waker.set()


def left(map, fd):
    """Any thread: a descriptor was taken out of the map, and may be closed."""
    serving = maps.get(id(map))
    if serving is not None:
        if serving.changed is not None:
            serving.changed(fd)
        wake(map)


def choose_engine(map, name):
    """The map will be served by that engine; None: by the default. Dicts cannot be referenced weakly: the choice holds
    the map, until it is undone, or another choice finds that nobody else has the map."""
    with lock:
        serving = maps.get(id(map))
        if serving is not None and serving.users > 0:
            raise RuntimeError("set_engine: the map is being served")
        for key in list(engines) if hasattr(sys, "getrefcount") else ():
            if sys.getrefcount(engines[key][0]) <= 2:
                del engines[key]
        if name is None:
            engines.pop(id(map), None)
        else:
            engines[id(map)] = map, name


def elsewhere(map):
    """Whether the map is being served, and not by this thread: its channels are then that thread's."""
    serving = maps.get(id(map))
    return serving is not None and bool(serving.threads) and get_ident() not in serving.threads


def after_fork():
    """In the child: of the threads only this one is left, and wakers are shared with the parent."""
    global lock
    lock = RLock()
    old = spare[:]
    del spare[:]
    me = get_ident()
    for serving in maps.values():
        serving.threads = {me: serving.threads[me]} if me in serving.threads else {}
        serving.users = serving.threads.get(me, 0)
        serving.waits = []
        if serving.waker is not None:
            old.append(serving.waker)
            try:
                serving.waker = lend(serving.map)
            except OSError:
                serving.waker = None
    for waker in old:
        waker.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
