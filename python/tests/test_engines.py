"""set_engine(), get_engine() and $ASYNCORE_ENGINE."""
import asyncore
import fcntl
import os
import resource
import socket
import threading
import unittest
import weakref

from support import Case, Trace, run

EXTENDED = asyncore._extension is not None
NAMES = {"epoll": "epoll", "poll": "poll", "select": "select", "io_uring": "epoll"}


class Engines(Case):
    def setUp(self):
        Case.setUp(self)
        self.addCleanup(asyncore._serving.engines.pop, id(self.map), None)

    def expect(self, name, map=None):
        self.assertEqual(asyncore.get_engine(self.map if map is None else map), name if EXTENDED else "python")

    def serve_once(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        b.send(b"x")
        self.until(lambda: channel.calls)
        self.assertEqual(channel.calls, ["read"])
        return channel

    def test_each_serves(self):
        for name, found in NAMES.items():
            asyncore.set_engine(name, self.map)
            self.expect(found)
            self.serve_once().close()
            self.expect(found)

    def test_a_map_that_has_channels_changes_its_engine(self):
        self.serve_once()
        for name in ("poll", "select", "epoll"):
            asyncore.set_engine(name, self.map)
            self.serve_once()
            self.expect(name)

    def test_the_default_map_is_socket_map(self):
        self.addCleanup(asyncore.set_engine, None)
        asyncore.set_engine("poll")
        self.expect("poll", asyncore.socket_map)
        self.assertEqual(asyncore.get_engine(), "poll" if EXTENDED else "python")
        self.assertNotIn(id(self.map), asyncore._serving.engines)

    def test_none_undoes_it(self):
        usual = asyncore.get_engine(self.map)
        asyncore.set_engine("select" if usual != "select" else "poll", self.map)
        asyncore.set_engine(None, self.map)
        self.assertEqual(asyncore.get_engine(self.map), usual)
        asyncore.set_engine(None, self.map)

    def test_an_unknown_name_is_refused_by_name_and_nothing_changes(self):
        asyncore.set_engine("poll", self.map)
        for name in ("kqueue", "", "EPOLL", b"epoll", 1, ["epoll"]):
            with self.assertRaises(ValueError) as caught:
                asyncore.set_engine(name, self.map)
            self.assertIn(repr(name), str(caught.exception))
        self.expect("poll")

    def test_not_while_the_map_is_served(self):
        def choose():
            try:
                asyncore.set_engine("poll", self.map)
            except RuntimeError as error:
                refused.append(str(error))

        def from_a_thread():
            thread = threading.Thread(target=choose)
            thread.start()
            thread.join()

        refused = []
        usual = asyncore.get_engine(self.map)
        asyncore.call_later(0, choose, map=self.map)
        asyncore.call_later(0, from_a_thread, map=self.map)
        asyncore.loop(map=self.map)
        self.assertEqual(refused, ["set_engine: the map is being served"] * 2)
        self.assertEqual(asyncore.get_engine(self.map), usual)

    def test_a_map_that_nobody_else_has_is_not_kept_for_ever(self):
        class Map(dict):
            pass

        map = Map()
        asyncore.set_engine("poll", map)
        gone = weakref.ref(map)
        del map
        asyncore.set_engine("poll", self.map)
        self.assertIsNone(gone())

    def test_of_a_map_that_is_not_exactly_a_dict(self):
        class Map(dict):
            pass

        map = Map()
        asyncore.set_engine("poll", map)
        self.expect("poll", map)
        asyncore.set_engine(None, map)

    def test_a_child_of_fork_has_the_same(self):
        status, output = run("""
import asyncore, os, socket, sys
asyncore.set_engine("poll")
a, b = socket.socketpair()
asyncore.dispatcher(a)
asyncore.loop(0, count=1)
before = asyncore.get_engine()
if os.fork():
    sys.exit(os.wait()[1] != 0)
assert asyncore.get_engine() == before
asyncore.loop(0, count=1)
assert asyncore.get_engine() == before
""")
        self.assertEqual((status, output), (0, ""))

    def test_the_environment_chooses_for_all(self):
        code = "import asyncore; print(asyncore.get_engine({}), asyncore.get_engine())"
        for name, found in NAMES.items():
            status, output = run(code, env=dict(os.environ, ASYNCORE_ENGINE=name))
            found = found if EXTENDED else "python"
            self.assertEqual((status, output), (0, "%s %s\n" % (found, found)))

    @unittest.skipUnless(EXTENDED, "the loop is Python's here")
    def test_an_unknown_name_of_the_environment_is_told(self):
        code = "import asyncore, socket; a, b = socket.socketpair(); asyncore.dispatcher(a); asyncore.loop(0, count=1)"
        status, output = run(code, env=dict(os.environ, ASYNCORE_ENGINE="swift"))
        self.assertEqual(status, 1)
        self.assertTrue(output.endswith("\nValueError: ASYNCORE_ENGINE: no such engine: swift\n"), output)

    @unittest.skipUnless(EXTENDED, "the loop is Python's here")
    def test_it_is_what_waits(self):
        # select(2) has a limit, which the others have not.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 1100:
            self.skipTest("this machine allows no more than %d descriptors" % hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        a, b = self.pair()
        channel = Trace(socket.socket(fileno=fcntl.fcntl(a.fileno(), fcntl.F_DUPFD_CLOEXEC, 1030)), self.map)
        b.send(b"x")
        for name in ("select", "epoll"):
            asyncore.set_engine(name, self.map)
            if name == "select":
                self.assertRaises(ValueError, asyncore.poll, 0, self.map)
            else:
                asyncore.poll(0, self.map)
        self.assertEqual(channel.calls, ["read"])


if __name__ == "__main__":
    unittest.main()
