"""The same random programs on the standard library's modules and on these: the same calls, in the same order.

$TRACES is how many programs (150); $TRACE is the first one's seed (1).
"""
import os
import subprocess
import sys
import tempfile
import unittest

from support import DEADLINE, HERE

COUNT = int(os.environ.get("TRACES") or 150)
FIRST = int(os.environ.get("TRACE") or 1)


class Traces(unittest.TestCase):
    @unittest.skipIf(sys.version_info >= (3, 12), "this Python's standard library has no asyncore to compare with")
    def test_the_same_calls(self):
        outputs = []
        for options in (["-E"], []):
            with tempfile.TemporaryFile() as output:
                subprocess.run([sys.executable, "-W", "ignore"] + options + [os.path.join(HERE, "traces.py"), str(FIRST),
                                                                             str(COUNT)],
                               stdin=subprocess.DEVNULL, stdout=output, check=True, timeout=DEADLINE + COUNT)
                output.seek(0)
                outputs.append(output.read().decode().splitlines())
        self.assertEqual(len(outputs[0]), COUNT)
        for standard, ours in zip(*outputs):
            if standard != ours:
                self.fail(self.difference(standard, ours))

    def difference(self, standard, ours):
        seed = standard.partition(":")[0]
        standard, ours = standard.split("; "), ours.split("; ")
        at = next((i for i, (a, b) in enumerate(zip(standard, ours)) if a != b), min(len(standard), len(ours)))
        return "TRACE=%s: call %d: standard library %r, here %r, after %r" % (
            seed, at, standard[at:at + 3], ours[at:at + 3], standard[max(0, at - 8):at])


if __name__ == "__main__":
    unittest.main()
