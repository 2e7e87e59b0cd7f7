"""A map served from a running asyncio loop.

A turn is the ordinary one, poll() with no wait; asyncio only tells when to make it. The channels stand in an epoll
set, whose descriptor asyncio watches. The set is a hint and no more: who is ready, and is still there, poll() finds
out. So a descriptor that was closed, or used again, while it stood in the set does no harm but a turn for nothing; if
what the set reports is not so, it is built anew.
"""
import asyncio
import select

LONGEST = 30.0  # seconds without a turn, as for loop(): predicates may have changed without a word

CHECKED = select.POLLIN | select.POLLOUT | select.POLLPRI


def epoll_for(map):
    """Under the number of no channel: one that was closed behind the loop must go on looking so."""
    epoll, others = select.epoll(), []
    while epoll.fileno() in map:
        others.append(epoll)
        epoll = select.epoll()
    for other in others:
        other.close()
    return epoll


class Set:
    """The channels of a map as epoll has them, and whether asyncio was told that it is readable."""

    def __init__(self, loop, map, waker):
        self.loop = loop
        self.map = map
        self.waker = waker
        self.woken = None
        self.open()

    def open(self):
        self.epoll = epoll_for(self.map)
        self.registered = {}  # fd: (channel, flags)
        if self.waker is not None:
            self.epoll.register(self.waker.reader, select.EPOLLIN)
        self.loop.add_reader(self.epoll.fileno(), self.readable)

    def close(self):
        self.loop.remove_reader(self.epoll.fileno())
        self.epoll.close()

    def readable(self):
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)

    def forget(self, fd):
        """The descriptor leaves the map, and may be closed."""
        if self.registered.pop(fd, None) is not None:
            self.unregister(fd)

    def unregister(self, fd):
        try:
            self.epoll.unregister(fd)
        except (OSError, ValueError):
            pass  # it was closed

    def update(self, wanted):
        """Brings the set to {fd: (channel, flags)}. Whether one of them is always ready, as files are."""
        always = False
        for fd in [fd for fd in self.registered if fd not in wanted]:
            self.forget(fd)
        for fd, entry in wanted.items():
            old = self.registered.get(fd)
            if old is not None and old[0] is entry[0] and old[1] == entry[1]:
                continue
            try:
                if old is not None and old[0] is entry[0]:
                    self.epoll.modify(fd, entry[1])
                else:
                    self.unregister(fd)
                    self.epoll.register(fd, entry[1])
                self.registered[fd] = entry
            except (OSError, ValueError):
                self.registered.pop(fd, None)
                always = True  # a file, or a closed descriptor, which poll() will bury
        return always

    def stale(self):
        """Whether it reports what is not so. Takes the wake-up away."""
        reported = [fd for fd, _ in self.epoll.poll(0)]
        if self.waker is not None and self.waker.reader in reported:
            reported.remove(self.waker.reader)
            self.waker.clear()
        pollster = select.poll()
        for fd in reported:
            if fd not in self.registered:
                return True
            pollster.register(fd, self.registered[fd][1] & CHECKED)
        return len(pollster.poll(0)) < len(reported)

    async def wait(self, timeout):
        self.woken = self.loop.create_future()
        timer = self.loop.call_later(timeout, self.readable)
        try:
            await self.woken
        finally:
            timer.cancel()
            self.woken = None


def wanted(asked, r, w, e):
    """{fd: (channel, flags)} of what _ask() found."""
    found = {}
    for fds, flag in ((r, select.EPOLLIN), (w, select.EPOLLOUT), (e, select.EPOLLPRI)):
        for fd in fds:
            found[fd] = asked[fd], found[fd][1] | flag if fd in found else flag
    return found


async def serve(asyncore, map):
    """asyncore.serve_in_asyncio()."""
    if not hasattr(select, "epoll"):
        raise RuntimeError("serve_in_asyncio: there is no epoll here")
    serving = asyncore._serving.enter(map)
    watched = None
    try:
        if serving.changed is not None:
            raise RuntimeError("serve_in_asyncio: the map is being served already")
        serving.take_waker()
        watched = Set(asyncio.get_running_loop(), map, serving.waker)
        serving.changed = watched.forget
        while map or serving.keeps():
            serving.begin_wait()
            try:
                r, w, e, asked = asyncore._ask(map)
                busy = watched.update(wanted(asked, r, w, e)) or any(asyncore._holds(asked[fd]) for fd in r)
                timeout = 0 if busy else asyncore._bounded(serving, LONGEST)
                if timeout > 0:
                    await watched.wait(timeout)
                else:
                    await asyncio.sleep(0)
            finally:
                serving.end_wait()
            if watched.stale():
                watched.close()
                watched.open()
            asyncore.poll(0, map)
    finally:
        if watched is not None:
            serving.changed = None
            watched.close()
        asyncore._serving.leave(serving)
