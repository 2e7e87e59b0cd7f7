"""A name server for tests: says about a name what the test last set, over UDP, on a port of the loopback interface.

    with NameServer() as names:
        names.set("web.test", ["127.0.0.2", "::1"], ttl=5)
        names.set("web.test", delay=3)                      the same, slowly
        names.set("web.test", None)                         it does not exist (as every name that was not set)
        names.silent("web.test")                            no answer
        names.questions("web.test")                         when it was asked for (time.monotonic): its A questions
"""
import collections
import heapq
import select
import socket
import struct
import threading
import time

A, AAAA = 1, 28
NXDOMAIN = 3

Name = collections.namedtuple("Name", "addresses ttl delay silent")


def read_name(packet, at):
    labels = []
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("ascii"))
        at += 1 + packet[at]
    return ".".join(labels).lower(), at + 1


def record(address, ttl):
    """An answer's record; its name is the question's (a pointer to byte 12)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    data = socket.inet_pton(family, address)
    return struct.pack("!HHHIH", 0xC00C, AAAA if ":" in address else A, 1, ttl, len(data)) + data


class NameServer:
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.lock = threading.Lock()
        self.names, self.asked, self.waiting = {}, [], []
        self.failure = None
        self.wakeup, self.stopped = socket.socketpair()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.wakeup.close()
        self.thread.join()
        self.stopped.close()
        self.socket.close()
        if self.failure:
            raise self.failure

    def set(self, name, addresses=(), ttl=None, delay=0):
        """addresses None: none such, left out: those of before, as is ttl (else 5)."""
        with self.lock:
            old = self.names.get(name, Name(None, 5, 0, False))
            self.names[name] = Name(old.addresses if addresses == () else addresses,
                                    old.ttl if ttl is None else ttl, delay, False)

    def silent(self, name):
        with self.lock:
            self.names[name] = self.names.get(name, Name(None, 5, 0, False))._replace(silent=True)

    def questions(self, name):
        with self.lock:
            return [when for when, asked, kind in self.asked if asked == name and kind == A]

    def _answer(self, packet, client):
        number, flags, count = struct.unpack_from("!HHH", packet)
        name, end = read_name(packet, 12)
        kind = struct.unpack_from("!H", packet, end)[0]
        now = time.monotonic()
        with self.lock:
            self.asked.append((now, name, kind))
            known = self.names.get(name, Name(None, 5, 0, False))
        if known.silent or flags & 0x8000 or count != 1:
            return
        records = [record(a, known.ttl) for a in known.addresses or [] if (":" in a) == (kind == AAAA)]
        flags = 0x8580 | (NXDOMAIN if known.addresses is None else 0)
        head = struct.pack("!HHHHHH", number, flags, 1, len(records), 0, 0)
        answer = head + packet[12:end + 4] + b"".join(records)
        heapq.heappush(self.waiting, (now + known.delay, len(self.asked), answer, client))

    def _run(self):
        try:
            while True:
                wait = max(0, self.waiting[0][0] - time.monotonic()) if self.waiting else None
                ready = select.select([self.socket, self.stopped], [], [], wait)[0]
                if self.stopped in ready:
                    return
                if ready:
                    self._answer(*self.socket.recvfrom(512))
                while self.waiting and self.waiting[0][0] <= time.monotonic():
                    self.socket.sendto(*heapq.heappop(self.waiting)[2:])
        except Exception as error:  # raised by close(): a test must not pass for want of answers
            self.failure = error
