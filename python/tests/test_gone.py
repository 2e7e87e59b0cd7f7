"""Channels that are gone, memory and all, before the loop comes to them: nobody keeps them but the map.

Each program runs in a child whose freed memory is filled with rubbish, so that touching it is a crash.
"""
import os
import subprocess
import sys
import unittest

from support import DEADLINE

START = """
import asyncore, gc, socket, threading
map, ends = {}, []

class Plain(asyncore.dispatcher_with_send):
    def handle_read(self):
        self.recv(100)

def add(cls=Plain):
    a, b = socket.socketpair()
    ends.extend((a, b))
    cls(a, map)
    return a.fileno(), b

def rubbish():
    return [bytearray(b"\\377" * size) for size in range(16, 600)]
"""


class Gone(unittest.TestCase):
    def run_program(self, text):
        environment = dict(os.environ, PYTHONMALLOC="debug", PYTHONPATH=os.pathsep.join(sys.path))
        result = subprocess.run([sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", START + text],
                                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=DEADLINE)
        self.assertEqual((result.returncode, result.stdout.decode()), (0, "well\n"))

    def test_a_predicate_takes_the_others_out(self):
        self.run_program("""
class Taker(Plain):
    def readable(self):
        for fd in list(map):
            if fd != self._fileno:
                del map[fd]
        self.rubbish = rubbish()
        return True

add(Taker)
for _ in range(50):
    add()
for turn in (asyncore.poll, asyncore.poll2):
    turn(0, map)
asyncore.loop(0, True, map, 3)
print("well")
""")

    def test_another_thread_takes_one_out_whose_event_comes(self):
        self.run_program("""
for _ in range(20):
    for use_poll in (False, True):
        fd, peer = add()
        def take():
            del map[fd]
            kept = rubbish()
            peer.send(b"x")
        add()
        thread = threading.Timer(0.01, take)
        thread.start()
        asyncore.loop(0.2, use_poll, map, 1)
        thread.join()
        map.clear()
print("well")
""")

    def test_a_handler_takes_those_out_that_are_ready(self):
        self.run_program("""
class Taker(Plain):
    def handle_read(self):
        self.recv(100)
        for fd in list(map):
            if fd != self._fileno:
                del map[fd]
        self.rubbish = rubbish()

for turn in (asyncore.poll, asyncore.poll2):
    for _ in range(20):
        _, peer = add(Taker)
        peers = [add()[1] for _ in range(20)]
        turn(0, map)
        for each in [peer] + peers:
            each.send(b"x")
        turn(0, map)
        map.clear()
        while ends:
            ends.pop().close()
print("well")
""")

    def test_a_channel_at_the_address_of_the_one_before(self):
        self.run_program("""
class Counting(Plain):
    count = 0
    def handle_read(self):
        Counting.count += len(self.recv(100))

for _ in range(200):
    a, b = socket.socketpair()
    fd = a.fileno()
    Counting(a, map)
    asyncore.poll2(0, map)
    del map[fd], a  # with its socket: the next pair gets the number, the next channel perhaps the address
    c, d = socket.socketpair()
    Counting(c, map)
    d.send(b"x")
    asyncore.poll2(0, map)
    map.clear()
assert Counting.count == 200, Counting.count
print("well")
""")


if __name__ == "__main__":
    unittest.main()
