"""portforward and names: what it does when the name server is slow, dead, or changes its mind (name_server.py).

A TTL is 5 s at least, so the tests wait for many seconds each: they run all at once, each with programs of its own."""
import os
import re
import signal
import socket
import threading
import time
import unittest

from name_server import NameServer
from support import DEADLINE, SLOWER, ProgramTest, has_ipv6, is_reset, poll_until, receive

TTL = 5
SLACK = 0.3  # seconds: clocks are not compared more closely
SOON = 1.5 * SLOWER  # seconds: at once, on a machine that does much besides


class Backends:
    """Servers on several addresses and one port; each sends its address to a client, and then echoes."""

    def __init__(self, *hosts):
        for _ in range(50):
            self.listeners = {}
            try:
                self.listen(hosts[0], 0)
                self.port = self.listeners[hosts[0]].getsockname()[1]
                for host in hosts[1:]:
                    self.listen(host, self.port)
                return
            except OSError:  # the port is another's at one of them
                self.close()
        raise AssertionError("no port is free on all of %s" % (hosts,))

    def listen(self, host, port=None):
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listeners[host] = s
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, self.port if port is None else port))
        s.listen(64)
        threading.Thread(target=self._serve, args=(s, host), daemon=True).start()

    def _serve(self, listener, host):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._echo, args=(client, host), daemon=True).start()

    @staticmethod
    def _echo(client, host):
        with client:
            try:
                client.sendall(host.encode() + b"\n")
                data = client.recv(4096)
                while data:
                    client.sendall(data)
                    data = client.recv(4096)
            except OSError:
                pass

    def close(self):
        for s in self.listeners.values():
            try:
                s.shutdown(socket.SHUT_RDWR)  # wakes accept
            except OSError:
                pass
            s.close()


class Names(ProgramTest):
    def setUp(self):
        super().setUp()
        self.names = NameServer()
        self.addCleanup(self.names.close)

    def backends(self, *hosts):
        backends = Backends(*hosts)
        self.addCleanup(backends.close)
        return backends

    def forward(self, hosts, port, *options):
        return self.serve("portforward", *options, "127.0.0.1 0 %s %d" % (hosts, port),
                          env={"PORTFORWARD_NAMESERVERS": self.names.address})

    @staticmethod
    def greeting(client):
        line = b""
        while not line.endswith(b"\n"):
            data = client.recv(1)
            if not data:
                raise AssertionError("an end of stream after %r: nothing that fails may look like one" % line)
            line += data
        return line.decode().strip()

    def served_by(self, program):
        """Who serves a new client: an address, or "reset"."""
        with socket.socket() as client:
            client.settimeout(DEADLINE)
            try:
                client.connect(program.address)
                return self.greeting(client)
            except ConnectionResetError:
                return "reset"

    @staticmethod
    def events(program, word):
        return [line for line in program.errors().splitlines() if word in line]

    def assert_told_once(self, program, event):
        """Lines are gathered, so it may come a little later."""
        poll_until(lambda: self.events(program, event), "a line with %r" % event)
        self.assertEqual(len(self.events(program, event)), 1, program.errors())

    def assert_echoes(self, client, data=b"anybody there?"):
        client.sendall(data)
        self.assertEqual(receive(client, len(data)), data)

    def finish(self, program, before=None):
        if before is not None:
            self.assert_fds_return(program, before)
        self.assert_no_spin(program)
        self.assert_stops(program, errors=None)

    # -- What changes --

    def test_a_change_is_seen_after_its_ttl(self):
        backends = self.backends("127.0.0.2", "127.0.0.3")
        self.names.set("web.test", ["127.0.0.2"], ttl=TTL)
        program = self.forward("web.test", backends.port)
        old = self.connect(program)
        self.assertEqual(self.greeting(old), "127.0.0.2")
        asked = self.names.questions("web.test")[0]
        self.names.set("web.test", ["127.0.0.3"])
        while self.served_by(program) == "127.0.0.2":
            self.assertLess(time.monotonic() - asked, DEADLINE)
            time.sleep(0.02)
        self.assertEqual(self.served_by(program), "127.0.0.3")
        self.assertGreaterEqual(time.monotonic() - asked, TTL)
        self.assertLess(time.monotonic() - asked, TTL + SOON)
        self.assertEqual(len(self.names.questions("web.test")), 2)
        self.assert_echoes(old)  # what is connected stays
        self.assert_told_once(program, "web.test:%d has changed: 127.0.0.3:%d" % ((backends.port,) * 2))
        old.close()
        self.finish(program)

    def test_a_name_that_is_gone_is_still_served(self):
        backends = self.backends("127.0.0.2")
        self.names.set("web.test", ["127.0.0.2"], ttl=TTL)
        program = self.forward("web.test", backends.port)
        self.assertEqual(self.served_by(program), "127.0.0.2")
        self.names.set("web.test", None)
        poll_until(lambda: self.events(program, "is not found"), "a line about a name that is gone")
        for _ in range(3):
            self.assertEqual(self.served_by(program), "127.0.0.2")
        asked = len(self.names.questions("web.test"))
        poll_until(lambda: len(self.names.questions("web.test")) >= asked + 1, "asked again")
        self.assertEqual(self.served_by(program), "127.0.0.2")
        self.assert_told_once(program, "is not found")
        self.finish(program)

    # -- What is absent --

    def test_a_name_absent_at_start_is_served_once_it_is_there(self):
        backends = self.backends("127.0.0.2")
        program = self.forward("web.test", backends.port)
        poll_until(lambda: self.events(program, "is not found"), "a line about a name that is absent")
        before = program.fds()
        self.assertEqual([self.served_by(program) for _ in range(10)], ["reset"] * 10)
        self.names.set("web.test", ["127.0.0.2"])
        there = time.monotonic()
        while self.served_by(program) == "reset":
            self.assertLess(time.monotonic() - there, DEADLINE)
            time.sleep(0.02)
        self.assertLess(time.monotonic() - there, TTL + SOON)
        self.assertEqual(self.served_by(program), "127.0.0.2")
        self.assert_told_once(program, "is not found: name not found; it has no address so far")
        self.assert_told_once(program, "is found: 127.0.0.2:%d" % backends.port)
        self.finish(program, before)

    def test_clients_of_a_first_lookup_wait_for_it(self):
        backends = self.backends("127.0.0.2")
        self.names.set("web.test", ["127.0.0.2"], delay=1)
        program = self.forward("web.test", backends.port)
        self.assertEqual(program.errors(), "")
        clients = [self.connect(program) for _ in range(20)]
        for client in clients:
            self.assertEqual(self.greeting(client), "127.0.0.2")
            self.assert_echoes(client)
            client.close()
        self.assertEqual(self.events(program, "is not found"), [])
        self.finish(program)

    # -- Name servers that are slow or dead --

    def test_a_slow_name_server_delays_no_byte(self):
        backends = self.backends("127.0.0.2")
        self.names.set("web.test", ["127.0.0.2"], ttl=TTL)
        program = self.forward("web.test", backends.port)
        client = self.connect(program)
        self.greeting(client)
        self.names.set("web.test", delay=1.7)  # less than what counts as silence
        poll_until(lambda: len(self.names.questions("web.test")) > 1, "asked again")
        rounds = 0
        while time.monotonic() < self.names.questions("web.test")[1] + 1.5:
            self.assert_echoes(client)
            self.assertEqual(self.served_by(program), "127.0.0.2")
            rounds += time.monotonic() < self.names.questions("web.test")[1] + 1.5
        self.assertGreater(rounds, 3)
        self.assertEqual(self.events(program, "is not found"), [])
        client.close()
        self.finish(program)

    def test_a_dead_name_server_leaves_what_was_known(self):
        backends = self.backends("127.0.0.2", "127.0.0.3")
        self.names.set("web.test", ["127.0.0.2"], ttl=TTL)
        program = self.forward("web.test", backends.port)
        client = self.connect(program)
        self.greeting(client)
        self.names.silent("web.test")
        poll_until(lambda: len(self.names.questions("web.test")) > 1, "asked again")
        while not self.events(program, "is not found"):
            begin = time.monotonic()
            self.assert_echoes(client)
            self.assertEqual(self.served_by(program), "127.0.0.2")
            self.assertLess(time.monotonic() - begin, SOON)
            self.assertLess(begin - self.names.questions("web.test")[1], DEADLINE)
            time.sleep(0.01)
        self.assertEqual(self.served_by(program), "127.0.0.2")
        self.assert_told_once(program, "no name server answers; its last addresses stay in use")
        self.names.set("web.test", ["127.0.0.3"])
        poll_until(lambda: self.served_by(program) == "127.0.0.3", "the new address")
        self.assert_told_once(program, "is found: 127.0.0.3:%d" % backends.port)
        self.assert_told_once(program, "is not found")
        self.assert_echoes(client)
        client.close()
        self.finish(program)

    def test_a_reload_keeps_what_is_known(self):
        backends = self.backends("127.0.0.2")
        self.names.set("web.test", ["127.0.0.2"], ttl=60)
        path = os.path.join(self.cwd, "rules")
        self.addCleanup(os.remove, path)
        with open(path, "w") as f:
            f.write("127.0.0.1 0 web.test %d\n" % backends.port)
        program = self.serve("portforward", "-c", path, env={"PORTFORWARD_NAMESERVERS": self.names.address})
        self.assertEqual(self.served_by(program), "127.0.0.2")
        self.names.silent("web.test")
        with open(path, "a") as f:
            f.write("127.0.0.2 0 web.test %d [name=second]\n" % backends.port)
        program.process.send_signal(signal.SIGHUP)
        self.assert_told_once(program, "reloaded: 2 rules")
        self.assertEqual(self.served_by(program), "127.0.0.2")
        self.assertEqual(len(self.names.questions("web.test")), 1)
        self.finish(program)

    def test_a_program_that_looks_a_name_up_can_be_stopped(self):
        self.names.silent("web.test")
        program = self.forward("web.test", 9)
        client = self.connect(program)  # waits in the queue
        poll_until(lambda: self.names.questions("web.test"), "asked")
        begin = time.monotonic()
        self.assert_stops(program, errors=None)
        self.assertLess(time.monotonic() - begin, SOON)
        self.assertTrue(is_reset(client))

    # -- Several addresses --

    def test_remotes_are_tried_in_order(self):
        backends = self.backends("127.0.0.2", "127.0.0.3")
        self.names.set("refuses.test", ["127.0.0.4"], ttl=60)
        self.names.set("two.test", ["127.0.0.2"], ttl=60)
        program = self.forward("absent.test,refuses.test,two.test,127.0.0.3", backends.port)
        poll_until(lambda: self.served_by(program) == "127.0.0.2", "an answer of all names")
        self.assertEqual([self.served_by(program) for _ in range(5)], ["127.0.0.2"] * 5)
        backends.listeners["127.0.0.2"].shutdown(socket.SHUT_RDWR)
        backends.listeners.pop("127.0.0.2").close()
        self.assertEqual([self.served_by(program) for _ in range(5)], ["127.0.0.3"] * 5)
        self.finish(program)

    def test_an_address_that_failed_is_first_again_after_a_while(self):
        backends = self.backends("127.0.0.2")
        self.names.set("web.test", ["127.0.0.4", "127.0.0.2"], ttl=60)
        program = self.forward("web.test", backends.port)
        begin = time.monotonic()
        self.assertEqual(self.served_by(program), "127.0.0.2")
        failed = time.monotonic()
        backends.listen("127.0.0.4")
        while self.served_by(program) == "127.0.0.2":
            self.assertLess(time.monotonic() - begin, DEADLINE)
            time.sleep(0.02)
        self.assertGreaterEqual(time.monotonic() - begin, 10)  # FAILED_FOR
        self.assertLess(time.monotonic() - failed, 10 + SOON)
        self.finish(program)

    def test_a_dead_address_costs_its_share_of_the_time_only(self):
        backends = self.backends("127.0.0.2")
        full = socket.socket()  # whose queue is full: connecting to it takes for ever
        self.addCleanup(full.close)
        full.bind(("127.0.0.4", backends.port))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            self.addCleanup(filler.close)
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        self.names.set("web.test", ["127.0.0.4", "127.0.0.2"], ttl=60)
        program = self.forward("web.test", backends.port, "--connect", "4s")
        begin = time.monotonic()
        self.assertEqual(self.served_by(program), "127.0.0.2")
        self.assertGreaterEqual(time.monotonic() - begin, 2 - SLACK)
        self.assertLess(time.monotonic() - begin, 2 + SOON)
        begin = time.monotonic()
        self.assertEqual(self.served_by(program), "127.0.0.2")  # the dead one comes last now
        self.assertLess(time.monotonic() - begin, SOON)
        self.finish(program)

    @unittest.skipUnless(has_ipv6(), "no IPv6 on this machine")
    def test_ipv6_addresses_are_as_good(self):
        backends = self.backends("::1")
        self.names.set("six.test", ["::1"])
        self.names.set("both.test", ["127.0.0.4", "::1"])
        for name in ("six.test", "both.test"):
            program = self.forward(name, backends.port)
            self.assertEqual(self.served_by(program), "::1")
            self.assertTrue(re.search(r"remote=\[::1\]:%d\b" % backends.port,
                                      poll_until(program.errors, "a line of the connection")))
            self.finish(program)


class AtOnce(unittest.TestSuite):
    """All tests at the same time, each in a thread, told in their order."""

    def run(self, result, debug=False):
        runs = [(test, unittest.TestResult()) for test in self]
        threads = [threading.Thread(target=test.run, args=(one,)) for test, one in runs]
        for thread in threads:
            thread.start()
        for thread, (test, one) in zip(threads, runs):
            thread.join()
            result.startTest(test)
            result.failures += one.failures
            result.errors += one.errors
            for skipped, why in one.skipped:
                result.addSkip(skipped, why)
            if one.wasSuccessful() and not one.skipped:
                result.addSuccess(test)
            result.stopTest(test)
        return result


def load_tests(loader, _tests, _pattern):
    return AtOnce(loader.loadTestsFromTestCase(Names))


if __name__ == "__main__":
    unittest.main()
