"""The same random programs on the standard library's modules and on these: the same calls, in the same order.

$TRACES is how many programs (150); $TRACE is the first one's seed (1). $ASYNCORE_ENGINE is the engine; both epoll and
poll unless it is set: the extension serves what is ready in the order of the map, whatever told it.
"""
import asyncore
import os
import subprocess
import sys
import tempfile
import unittest

from support import DEADLINE, HERE

COUNT = int(os.environ.get("TRACES") or 150)
FIRST = int(os.environ.get("TRACE") or 1)

ENGINES = [os.environ.get("ASYNCORE_ENGINE", "")]
if asyncore._extension is not None and not ENGINES[0]:
    ENGINES = ["epoll", "poll"]


class Traces(unittest.TestCase):
    def traces(self, *options, **environment):
        """A line for each program."""
        with tempfile.TemporaryFile() as output:
            program = [os.path.join(HERE, "traces.py"), str(FIRST), str(COUNT)]
            subprocess.run([sys.executable, "-W", "ignore", *options, *program],
                           stdin=subprocess.DEVNULL, stdout=output, check=True, timeout=DEADLINE + COUNT,
                           env=dict(os.environ, **environment))
            output.seek(0)
            lines = output.read().decode().splitlines()
        self.assertEqual(len(lines), COUNT)
        return lines

    @unittest.skipIf(sys.version_info >= (3, 12), "this Python's standard library has no asyncore to compare with")
    def test_the_same_calls(self):
        standard = self.traces("-E")
        for engine in ENGINES:
            for theirs, ours in zip(standard, self.traces(ASYNCORE_ENGINE=engine)):
                if theirs != ours:
                    self.fail(engine + " " + self.difference(theirs, ours))

    def difference(self, standard, ours):
        seed = standard.partition(":")[0]
        standard, ours = standard.split("; "), ours.split("; ")
        at = next((i for i, (a, b) in enumerate(zip(standard, ours)) if a != b), min(len(standard), len(ours)))
        return "TRACE=%s: call %d: standard library %r, here %r, after %r" % (
            seed, at, standard[at:at + 3], ours[at:at + 3], standard[max(0, at - 8):at])


if __name__ == "__main__":
    unittest.main()
