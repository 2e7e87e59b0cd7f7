"""bench/forward, quickly, with ours and the bare loops; and beside forwarders that are wrong on purpose."""
import json
import os
import sys
import tempfile
import unittest

from support import DEADLINE, ROOT, ProgramTest, binary

BENCH = os.path.join(ROOT, "bench", "forward")

# Forwards each connection in both directions, but for what CHANGE does with what it has read.
WRONG = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            ends = listener.accept()[0], socket.create_connection(("127.0.0.1", int(sys.argv[2])))
            for end, peer in (ends, ends[::-1]):
                selector.register(end, selectors.EVENT_READ, peer)
            continue
        try:
            data = bytearray(key.fileobj.recv(65536))
            CHANGE
            key.data.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (key.fileobj, key.data):
                selector.unregister(end)
                end.close()
            break
"""


class BenchForward(ProgramTest):
    def bench(self, *args):
        """(exit code, the file of figures, stdout, stderr)"""
        figures = os.path.join(self.cwd, "figures")
        with tempfile.TemporaryFile() as file:
            program = self.start([sys.executable, BENCH], "--quick", "--base", "bare-copy", "--rounds", "1", "--json",
                                 figures, *args, stdout=file)
            code = program.process.wait(8 * DEADLINE)
            file.seek(0)
            out = file.read().decode()
        result = None
        if os.path.exists(figures):
            with open(figures) as file:
                result = json.load(file)
            os.unlink(figures)
        return code, result, out, program.errors()

    def wrong(self, name, change):
        path = os.path.join(self.cwd, name)
        with open(path, "w") as file:
            file.write(WRONG.replace("CHANGE", change))
        self.addCleanup(os.unlink, path)
        return "%s=%s %s {port} {remote}" % (name, sys.executable, path)

    def test_a_figure_in_each_column_for_ours_and_the_bare_loops(self):
        code, result, out, errors = self.bench("--only", "portforward", "--section", "bulk,trips,connections,memory")
        self.assertEqual((code, errors), (0, ""), out)
        expected = {"bulk-own", "bulk-all", "bulk-machine", "bulk-over-splice", "bulk-over-copy", "trip-cpu",
                    "connect-cpu", "idle-silent", "idle-used", "idle-peak"}
        for name in ("portforward", "bare-copy", "bare-splice"):
            self.assertLessEqual(expected, set(result["forwarders"][name]), name)
            self.assertRegex(out, r"(?m)^%s +\d" % name)
        self.assertGreater(result["forwarders"]["portforward"]["bulk-own"]["median"], 0)
        self.assertIn("control, trip-cpu: ", out)

    def test_instructions_and_calls_of_a_bare_loop_are_what_one_counts_by_hand(self):
        if os.environ.get("SANITIZE"):
            self.skipTest("neither valgrind nor strace bears a sanitizer")
        _, result, out, errors = self.bench("--only", "bare-copy", "--section", "instructions,calls")
        figures = result["forwarders"].get("bare-copy", {})
        if "left out" in out:
            self.skipTest("valgrind or strace is not installed")
        self.assertEqual(errors, "")
        self.assertAlmostEqual(figures["trip-calls"]["median"], 6, delta=0.5)  # twice: wait, receive, send
        self.assertTrue(150 < figures["trip-instructions"]["median"] < 700, figures)

    def test_a_forwarder_that_changes_a_byte_is_named_in_every_section(self):
        add = self.wrong("flips", "data[-1:] = bytes((b + 1) % 256 for b in data[-1:])")
        code, result, _, errors = self.bench("--only", "bare-copy", "--section", "bulk,trips,connections,memory",
                                             "--add", add)
        self.assertEqual(code, 1)
        for section in ("bulk", "round trips", "connections", "memory"):
            self.assertRegex(errors, r"(?m)^bench/forward: flips: %s: LOST OR CHANGED BYTES: " % section)
        self.assertEqual({failure.split(":")[0] for failure in result["failures"]}, {"flips"})

    def test_a_forwarder_that_loses_bytes_is_named(self):
        add = self.wrong("loses", "if len(data) > 60000: data = data[1:]")
        code, _, _, errors = self.bench("--only", "bare-copy", "--section", "bulk,trips", "--add", add)
        self.assertEqual(code, 1)
        self.assertIn("loses: bulk: LOST OR CHANGED BYTES: ", errors)
        self.assertNotIn("loses: round trips", errors)

    def test_a_forwarder_that_does_not_start_fails_with_its_own_words(self):
        code, _, _, errors = self.bench("--only", "bare-copy", "--section", "memory", "--add",
                                        "broken=%s --no-such-option {port}" % binary("portforward"))
        self.assertEqual(code, 1)
        self.assert_one_line(errors, "broken: memory: does not start: ", "no-such-option")

    def test_wrong_usage_says_what_and_which(self):
        for args, words in ((("--only", "nobody"), ("no such name", "nobody")),
                            (("--rounds", "0"), ("--rounds", "0")),
                            (("--section", "bulk,naps"), ("no such name", "naps")),
                            (("--add", "portforward=true"), ("--add", "portforward=true"))):
            code, _, out, errors = self.bench(*args)
            self.assertEqual((code, out), (2, ""))
            self.assert_one_line(errors, "bench/forward: ", *words)


if __name__ == "__main__":
    unittest.main()
