"""The extension as a whole: that it is what is tested where it is asked for, and who gets it."""
import asynchat
import asyncore
import importlib.util
import os
import select
import sys
import types
import unittest
from unittest import mock

from support import Case, run

PURE = os.environ.get("ASYNCORE_PURE", "") not in ("", "0")


class Loaded(unittest.TestCase):
    def test_these_tests_run_on_what_they_are_named_for(self):
        python = (types.FunctionType,) * 4
        c = (types.MethodDescriptorType, types.MethodDescriptorType, types.MethodDescriptorType,
             types.BuiltinFunctionType)
        self.assertEqual(asyncore._extension is None, PURE)
        self.assertEqual((type(asyncore.dispatcher.recv), type(asyncore.dispatcher_with_send.send),
                          type(asynchat.async_chat.push), type(asyncore.loop)), python if PURE else c)


@unittest.skipIf(PURE, "this is about the extension")
class Cost(Case):
    def test_a_timer_that_is_not_due_is_not_looked_at_by_python(self):
        asked = []

        def noted(name):
            method = getattr(asyncore._serving.Serving, name)

            def note(self, *args):
                asked.append(name)
                return method(self, *args)
            return mock.patch.object(asyncore._serving.Serving, name, note)

        a, b = self.pair()
        channel = asyncore.dispatcher_with_send(a, self.map)
        channel.handle_read = lambda: channel.recv(10)
        timer = asyncore.call_later(1000, asked.append, map=self.map)
        with noted("run"), noted("bound"):
            for _ in range(20):
                b.send(b"x")
                asyncore.loop(1, True, self.map, 1)
            self.assertEqual(asked, [])
            asyncore.call_later(0, asked.append, "timer", map=self.map)
            asyncore.loop(1, True, self.map, 1)
            self.assertEqual(asked, ["run", "timer"])
        timer.cancel()


class Green:
    """Another select."""

    asked = 0

    def __getattr__(self, name):
        return getattr(select, name)

    def select(self, *args):
        self.asked += 1
        return select.select(*args)


SERVE = """
import asyncore, socket
a, b = socket.socketpair()
class Channel(asyncore.dispatcher_with_send):
    def handle_read(self): self.got = self.recv(10)
channel = Channel(a)
b.send(b"x")
asyncore.loop(1, count=1)
assert channel.got == b"x"
channel.close(); b.close()
"""

INTERPRETERS = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
serve = sys.argv[1]
for isolated in (True, False) * 3:
    if sys.version_info < (3, 9): made = interpreters.create()
    elif sys.version_info < (3, 13): made = interpreters.create(isolated=isolated)
    else: made = interpreters.create("isolated" if isolated else "legacy")
    failed = interpreters.run_string(made, serve + "assert asyncore._extension is None")
    assert failed is None, failed
    interpreters.destroy(made)
exec(serve)
print(asyncore._extension is None)
"""


class Copies(Case):
    """Only one asyncore, of the main interpreter, has the extension."""

    def test_a_second_copy_with_another_select_goes_through_it(self):
        # As eventlet makes one: a module of its own, in which names are replaced afterwards.
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])
        spec = importlib.util.spec_from_file_location("asyncore_green", asyncore.__file__,
                                                      submodule_search_locations=asyncore.__path__)
        copy = sys.modules["asyncore_green"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(copy)
        copy.select = Green()
        for module in (copy, asyncore):
            a, b = self.pair()
            channel = module.dispatcher_with_send(a, self.map)
            channel.handle_read = lambda: calls.append(channel.recv(10))
            calls = []
            b.send(b"x")
            module.loop(1, False, self.map, 1)
            self.assertEqual((calls, copy.select.asked), ([b"x"], 1))
            channel.close()

    def test_other_interpreters_are_served_by_python_and_leave_nothing_to_the_main_one(self):
        status, output = run(INTERPRETERS, SERVE)
        self.assertEqual((status, output.splitlines()[-1:]), (0, [str(PURE)]), output)


if __name__ == "__main__":
    unittest.main()
