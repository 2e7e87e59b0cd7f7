"""Arguments that nothing was made for raise what they raise in the standard library."""
import os
import subprocess
import sys
import unittest

from support import DEADLINE, HERE


class Arguments(unittest.TestCase):
    @unittest.skipIf(sys.version_info >= (3, 12), "this Python's standard library has no asyncore to compare with")
    def test_the_same_exceptions(self):
        outputs = []
        for options in (["-E"], []):
            command = [sys.executable, "-B", "-W", "ignore"] + options + [os.path.join(HERE, "arguments.py")]
            output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
                                    timeout=2 * DEADLINE).stdout
            outputs.append(output.decode().splitlines())
        self.assertGreater(len(outputs[0]), 4000)
        self.assertEqual([(standard, ours) for standard, ours in zip(*outputs) if standard != ours], [])


if __name__ == "__main__":
    unittest.main()
