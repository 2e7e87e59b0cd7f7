"""Many connections: what one more costs, and what the idle ones cost the others.

The peers are another process's, since a descriptor limit of 20,000 is common and both ends would go past it.
"""
import asyncore
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import unittest

from support import DEADLINE, Case, until

C = asyncore._extension is not None
SPARE = 100  # descriptors for everything else


class Peers:
    """A process with many connections to an address, of which it uses the last, at a command."""

    def __init__(self, address, count):
        self.commands, theirs = socket.socketpair()
        self.commands.settimeout(DEADLINE)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.commands.close()
                self.live(theirs, address, count)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        theirs.close()

    @staticmethod
    def live(commands, address, count):
        sockets = []
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address)
            sockets.append(sock)
        sockets[-1].settimeout(DEADLINE)
        while True:
            message = commands.recv(100)
            if not message:
                os._exit(0)
            sockets[-1].sendall(message)
            commands.sendall(sockets[-1].recv(100))

    def close(self):
        self.commands.close()
        os.kill(self.pid, signal.SIGKILL)  # where the server failed it waits for a place in the listener's queue
        os.waitpid(self.pid, 0)


class Echo(asyncore.dispatcher_with_send):
    def handle_read(self):
        data = self.recv(100)
        if data:
            self.send(data)


class Server(asyncore.dispatcher):
    """Accepts; writes down what each hundred connections took of the processor, and how often who was asked."""

    def __init__(self, address, map, one_by_one):
        asyncore.dispatcher.__init__(self, map=map)
        self.one_by_one = one_by_one  # in each turn
        self.create_socket(socket.AF_UNIX)
        self.bind(address)
        self.listen(128)
        self.accepted = 0
        self.marks = []

    def writable(self):
        return False

    def handle_accept(self):
        accepted = self.accept()
        while accepted is not None:
            self.handle_accepted(*accepted)
            accepted = None if self.one_by_one else self.accept()

    def handle_accepted(self, sock, address):
        Echo(sock, self._map)
        self.accepted += 1
        if self.accepted % 100 == 0:
            self.marks.append((time.process_time(), asked()))


def asked():
    return asyncore._extension.counts()[2] if C else 0


class Many(Case):
    def limit(self, count):
        """Room for so many descriptors, or the test is skipped."""
        if asyncore.get_engine(self.map) == "select":
            self.skipTest("$ASYNCORE_ENGINE is select, which has no room for %d connections" % count)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < count + SPARE:
            self.skipTest("a process may have no more than %d descriptors: %d connections need more" % (hard, count))
        if soft != resource.RLIM_INFINITY and soft < count + SPARE:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count + SPARE, hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def serve(self, count, one_by_one=False):
        """A server with so many connections, and the peers."""
        self.limit(count)
        with tempfile.TemporaryDirectory() as folder:
            address = os.path.join(folder, "s")
            server = Server(address, self.map, one_by_one)
            peers = Peers(address, count)
            self.addCleanup(peers.close)
            until(lambda: server.accepted == count, lambda: asyncore.loop(1, map=self.map, count=1),
                  "not all were accepted")
        return server, peers

    def talk(self, peers, messages):
        """Sends messages through the last connection, one after the other; how often anybody was asked meanwhile."""
        before = asked()
        connections = len(self.map)
        for i in range(messages):
            message = b"%d" % i
            peers.commands.sendall(message)
            asyncore.loop(DEADLINE, map=self.map, count=1)
            self.assertEqual((peers.commands.recv(100), len(self.map)), (message, connections))
        return asked() - before

    def test_a_message_among_5000_idle_connections(self):
        server, peers = self.serve(5000)
        self.talk(peers, 10)
        if C:
            start = time.monotonic()
            count = self.talk(peers, 50)
            again = 64 * (1 + (time.monotonic() - start) / 0.01)  # they might have changed unnoticed
            self.assertLess(count, 50 * 6 + again)

    @unittest.skipUnless(C, "it is the extension's: Python's turns ask all of them")
    def test_the_10000th_connection_costs_what_the_100th_does_and_19000_are_served(self):
        if asyncore.get_engine(self.map) == "poll":
            self.skipTest("$ASYNCORE_ENGINE is poll, which goes through all of them in each turn")
        server, peers = self.serve(19000, True)
        self.talk(peers, 10)
        costs = [(after[0] - before[0], after[1] - before[1])
                 for before, after in zip(server.marks, server.marks[1:])]
        few, many = costs[:30], costs[85:115]
        # How many were asked is exact, but for those that are asked again every 10 ms.
        self.assertLess(min(cost[1] for cost in many), min(cost[1] for cost in few) + 100)
        # It is to be 1.2 at most, which a benchmark shows; this notices what goes through all of them.
        self.assertLess(min(cost[0] for cost in many), 2 * min(cost[0] for cost in few))


if __name__ == "__main__":
    unittest.main()
