"""docs/simulation.md: its protocol and its test, compiled as they are printed, and run."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIB = os.path.join(os.path.dirname(os.environ["BIN"]), "lib")


class Simulation(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        with open(os.path.join(ROOT, "docs", "simulation.md")) as file:
            self.code = "\n".join(re.findall(r"```c\n(.*?)```", file.read(), re.S))

    def run_program(self, code):
        source, program = (os.path.join(self.directory, name) for name in ("sum.c", "sum"))
        with open(source, "w") as file:
            file.write(code)
        flags = ["-fsanitize=" + os.environ["SANITIZE"]] if os.environ.get("SANITIZE") else []  # as the library
        subprocess.run(
            [os.environ.get("CC", "cc"), "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror",
             "-I" + os.path.join(ROOT, "include"), source, "-o", program, "-L" + LIB, "-lasyncore",
             "-Wl,-rpath," + LIB] + flags,
            check=True)
        result = subprocess.run([program], stdout=subprocess.PIPE, text=True, timeout=120)
        return result.returncode, result.stdout

    def test_the_printed_test_passes(self):
        self.assertEqual(self.run_program(self.code), (0, "1000 seeds, all well\n"))

    def test_the_fault_that_the_page_proposes_is_found_by_a_hundred_seeds(self):
        broken = self.code.replace("memcpy(sum->line + sum->used, data, n);\n    sum->used += n;",
                                   "memcpy(sum->line, data, n);\n    sum->used = n;")
        self.assertNotEqual(broken, self.code)
        status, output = self.run_program(broken)
        self.assertEqual(status, 1)
        self.assertLessEqual(int(re.match(r"seed (\d+): got", output).group(1)), 100)


if __name__ == "__main__":
    unittest.main()
