"""bench/python, quickly, with the modules in Python alone, which need no compiler; and what is made of its results."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.etree.ElementTree as ET

from support import DEADLINE, ROOT, ProgramTest, binary

BENCH = os.path.join(ROOT, "bench", "python")
FIGURES = os.path.join(ROOT, "bench", "figures.py")
RESULTS = {
    "machine": {"processor": "<Some> & other", "processors": 2, "kernel": "6.1", "python": "3.11.2", "uvloop": "0.17.0",
                "idle": 5000, "sends": 20000, "bases": {}},
    "quick": False,
    "sections": {
        "instructions": {"3.8": {"values": [5501], "each": []}, "3.11": {"values": [4500], "each": []}},
        "echo": {"control": {"values": [1, 1.01], "each": [8e-6]}, "ours": {"values": [0.8, 0.9, 0.81], "each": [7.5]},
                 "bare": {"values": [90.0], "each": [4]}},
        "lines": {"ours": {"values": [3.99], "each": [0.5]}},
        "bulk": {"ours": {"values": [1.2], "each": [0.5]}},
        "sends": {"ours": {"values": [0.0012], "each": [0.08], "bound": True}},
    },
}


class BenchPython(ProgramTest):
    def bench(self, *args):
        """(exit code, the results, stdout, stderr)"""
        out = os.path.join(self.cwd, "figures")
        with tempfile.TemporaryFile() as file:
            program = self.start([sys.executable, BENCH], "--quick", "--python", sys.executable, "--rounds", "1",
                                 "--seconds", "0.05", "--idle", "100", "--out", out, *args, stdout=file)
            code = program.process.wait(8 * DEADLINE)
            file.seek(0)
            text = file.read().decode()
        results = None
        if os.path.exists(out):
            with open(os.path.join(out, "figures.json")) as file:
                results = json.load(file)
            ET.parse(os.path.join(out, "figures.svg"))
            shutil.rmtree(out)
        return code, results, text, program.errors()

    def test_every_section_has_a_figure_of_the_modules_in_python_alone(self):
        code, results, out, errors = self.bench("--only", "pure,asyncio", "--section",
                                                "echo,idle,lines,bulk,sends,accept,memory")
        self.assertEqual((code, errors), (0, ""), out)
        # From Python 3.12 on they are what others are compared with, and so beside themselves.
        pure = "control" if sys.version_info >= (3, 12) else "pure"
        for section, row in (("echo", "pure"), ("idle", "asyncio"), ("lines", pure), ("replies", pure), ("bulk", pure),
                             ("accept", "asyncio"), ("memory", "pure")):
            with self.subTest(section):
                self.assertIn(row, results["sections"][section])
                self.assertRegex(out, "(?m)^%s: " % section)
        self.assertGreater(results["sections"]["echo"]["pure"]["values"][0], 0)

    def test_a_server_that_runs_other_modules_than_the_row_says_is_a_failure(self):
        code, _, _, errors = self.bench("--only", "stdlib", "--section", "bulk", "--python", self.other_python())
        self.assertEqual(code, 1)
        self.assertRegex(errors, r"(?m)^bench/python: bulk: .*: runs with Python alone$")

    def other_python(self):
        """An interpreter that finds libasyncore's modules before its own."""
        path = os.path.join(self.cwd, "python")
        modules = os.path.join(ROOT, "python", "libasyncore", "modules")
        with open(path, "w") as file:
            file.write("#!/bin/sh\nASYNCORE_PURE=1 PYTHONPATH=%s exec %s \"$@\"\n" % (modules, sys.executable))
        os.chmod(path, 0o755)
        self.addCleanup(os.unlink, path)
        return path

    def test_wrong_usage_says_what_and_which(self):
        for args, words in ((("--only", "nobody"), ("no such name", "nobody")),
                            (("--rounds", "0"), ("--rounds", "0")),
                            (("--section", "echo,naps"), ("no such name", "naps"))):
            code, _, out, errors = self.bench(*args)
            self.assertEqual((code, out), (2, ""))
            self.assert_one_line(errors, "bench/python: ", *words)

    def test_an_interpreter_that_is_not_there_is_named(self):
        code, _, out, errors = self.bench("--python", "/nowhere/python3")
        self.assertEqual((code, out), (1, ""))
        self.assert_one_line(errors, "bench/python: ", "/nowhere/python3", "No such file")


class Loads(unittest.TestCase):
    """A server that is wrong is noticed."""

    def run_load(self, serve, load, *args):
        """The exit status of a load that one connection of serve(socket) answers."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def accept():
                with listener.accept()[0] as client, contextlib.suppress(ConnectionResetError):
                    serve(client)
            thread = threading.Thread(target=accept, daemon=True)
            thread.start()
            done = subprocess.run([binary(load), str(listener.getsockname()[1]), *args], input=b"\n", timeout=DEADLINE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            thread.join(DEADLINE)
        return done.returncode, done.stdout.decode().split(), done.stderr.decode()

    def lines(self, answer):
        """load_lines with a server that answers answer(lines)."""
        def serve(client):
            with client.makefile("rb") as file:
                self.received = file.readlines()
            client.sendall(answer(self.received))
        return self.run_load(serve, "load_lines", "0.001")

    def test_lines_are_numbers_in_order_and_right_answers_are_taken(self):
        code, out, errors = self.lines(lambda lines: b"%d %s" % (len(lines), lines[-1]))
        self.assertEqual((code, errors, out), (0, "", ["ready", "lines", str(len(self.received))]))
        self.assertEqual(self.received, [b"%063d\n" % number for number in range(len(self.received))])

    def test_a_line_too_few_another_last_line_and_no_answer_are_losses(self):
        for answer in (lambda lines: b"%d %s" % (len(lines) - 1, lines[-1]),
                       lambda lines: b"%d %s" % (len(lines), lines[-2]), lambda lines: b""):
            code, _, errors = self.lines(answer)
            self.assertEqual((code, errors), (3, "load_lines: the answer: not the lines that were sent\n"))

    def replies(self, reply):
        def serve(client):
            with client.makefile("rb") as file:
                for line in file:
                    self.sizes.add(len(line))
                    client.sendall(reply(line))
        self.sizes = set()
        return self.run_load(serve, "load_echo", "1", "64", "0.05", "0", "lines")

    def test_messages_that_are_lines_have_one_newline_and_it_ends_them(self):
        code, out, errors = self.replies(lambda line: line)
        self.assertEqual((code, errors, self.sizes), (0, "", {64}))
        self.assertGreater(int(out[out.index("messages") + 1]), 0)

    def test_a_reply_that_differs_in_a_byte_is_a_loss(self):
        code, _, errors = self.replies(lambda line: line[:-1] + b"\r")
        self.assertEqual((code, errors), (3, "load_echo: echo: what came back is not what was sent\n"))


class Figures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def draw(self, results, page="before\n<!-- figures: bench/figures.py writes what is between here -->\nold\n"
             "<!-- and here -->\nafter\n"):
        for name, text in (("results.json", json.dumps(results)), ("benchmarks.md", page)):
            with open(self.path(name), "w") as file:
                file.write(text)
        subprocess.run([sys.executable, "-B", FIGURES, self.path("results.json"), self.folder], check=True)
        with open(self.path("benchmarks.md")) as file:
            return file.read()

    def rows(self, page):
        return {cells[0]: cells[1:] for cells in
                ([cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line)}

    def test_goals_are_met_from_their_side_and_only_at_their_value(self):
        rows = self.rows(self.draw(RESULTS))
        self.assertEqual(rows["libasyncore, Python 3.8"][3:], ["at most 5,500", "MISSED"])
        self.assertEqual(rows["libasyncore, Python 3.11"][3:], ["at most 4,500", "met"])
        page = self.draw(dict(RESULTS, sections={"lines": RESULTS["sections"]["lines"]}))
        self.assertEqual(self.rows(page)["libasyncore"], ["3.99", "", "0.500", "at least 4", "MISSED"])
        page = self.draw(dict(RESULTS, sections={"bulk": RESULTS["sections"]["bulk"]}))
        self.assertEqual(self.rows(page)["libasyncore"], ["1.20", "", "0", "at least 1.2", "met"])

    def test_a_ratio_whose_other_side_was_not_waited_for_is_a_bound(self):
        page = self.draw(dict(RESULTS, sections={"sends": RESULTS["sections"]["sends"]}))
        self.assertEqual(self.rows(page)["libasyncore"][0], "< 0.0012")

    def test_the_median_of_the_rounds_counts(self):
        page = self.draw(dict(RESULTS, sections={"echo": RESULTS["sections"]["echo"]}))
        self.assertEqual(self.rows(page)["libasyncore"], ["0.810", "0.800 to 0.900", "7.50", "at most 0.95", "met"])

    def test_no_goal_counts_where_something_else_is_compared_with(self):
        machine = dict(RESULTS["machine"], bases={"echo": "bare epoll loop in C"})
        page = self.draw(dict(RESULTS, machine=machine, sections={"echo": RESULTS["sections"]["echo"]}))
        self.assertEqual(self.rows(page)["libasyncore"][3:], ["", ""])
        self.assertIn("here over bare epoll loop in C", page)

    def test_the_table_takes_the_place_of_the_old_one_and_of_nothing_else(self):
        page = self.draw(RESULTS)
        self.assertTrue(page.startswith("before\n<!--") and page.endswith("<!-- and here -->\nafter\n"), page)
        self.assertNotIn("old", page)
        self.assertEqual(self.draw(RESULTS, page), page)
        self.assertEqual(self.draw(RESULTS, "no place for it\n"), "no place for it\n")

    def test_the_chart_is_xml_whose_bars_stay_in_their_room(self):
        self.draw(RESULTS)
        tree = ET.parse(self.path("figures.svg"))
        rects = [e for e in tree.iter() if e.tag.endswith("rect") and e.get("class") not in ("page", "room")]
        room = next(e for e in tree.iter() if e.get("class") == "room")
        left, width = float(room.get("x")), float(room.get("width"))
        self.assertEqual(len(rects), 7)  # the control is left out
        for rect in rects:
            self.assertLessEqual(left, float(rect.get("x")))
            self.assertLessEqual(float(rect.get("x")) + float(rect.get("width")), left + width)
        self.assertIn("<Some> & other", "".join(tree.getroot().itertext()))
        self.assertEqual(sum(e.get("class") == "missed" for e in rects), 2)


if __name__ == "__main__":
    unittest.main()
