#!/usr/bin/env python3
"""The package's archives, byte for byte, and what is compiled for them."""
import hashlib
import os
import re
import tarfile
import unittest
import zipfile

from install_support import PYTHON, VERSION, Scratch, build, run


class Archives(Scratch):
    """What is in them, byte for byte."""

    def setUp(self):
        super().setUp()
        for name in ("one", "two"):
            (self.directory / name).mkdir()

    def copy(self):
        """The tree as a sdist has it, somewhere else, at another time, and with what programs leave behind."""
        with tarfile.open(str(build(PYTHON, self.directory, "sdist"))) as archive:
            archive.extractall(str(self.directory))
        tree = self.directory / ("libasyncore-" + VERSION)
        for path in tree.rglob("*.py"):
            os.utime(str(path), (10**9, 10**9))
        for rubbish in ("modules/.x.swp", "__pycache__/x.pyc", "modules/asyncore/_asyncore.old.so", "x.py~"):
            path = tree / "python" / "libasyncore" / rubbish
            path.parent.mkdir(exist_ok=True)
            path.write_text("")
        return tree

    def twice(self, hook):
        """The digests of two archives, of the tree and of its copy."""
        first = build(PYTHON, self.directory / "one", hook)
        second = build(PYTHON, self.directory / "two", hook, tree=self.copy())
        self.assertEqual(first.name, second.name)
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]

    def test_the_same_tree_gives_the_same_sdist(self):
        self.assertEqual(*self.twice("sdist"))

    def test_the_same_tree_gives_the_same_wheel(self):
        self.assertEqual(*self.twice("wheel"))

    def test_the_time_is_the_one_that_is_given(self):
        sdist = build(PYTHON, self.directory, "sdist", SOURCE_DATE_EPOCH="1600000000")
        with tarfile.open(str(sdist)) as archive:
            self.assertEqual({1600000000}, {info.mtime for info in archive})
        self.assertEqual(1600000000, int.from_bytes(sdist.read_bytes()[4:8], "little"))
        wheel = build(PYTHON, self.directory, SOURCE_DATE_EPOCH="1600000000", ASYNCORE_EXTENSION="no")
        with zipfile.ZipFile(str(wheel)) as archive:
            self.assertEqual({(2020, 9, 13, 12, 26, 40)}, {info.date_time for info in archive.infolist()})
        with self.assertRaisesRegex(AssertionError, "SOURCE_DATE_EPOCH is no number of seconds: x"):
            build(PYTHON, self.directory, "sdist", SOURCE_DATE_EPOCH="x")

    def test_the_sdist_has_the_library(self):
        with tarfile.open(str(build(PYTHON, self.directory, "sdist"))) as archive:
            names = [info.name for info in archive]
        self.assertEqual(sorted(names), names)
        self.assertEqual({"libasyncore-" + VERSION}, {name.split("/")[0] for name in names})
        names = {name.split("/", 1)[1] for name in names}
        self.assertLessEqual({"PKG-INFO", "pyproject.toml", "LICENSE", "include/asyncore.h", "include/asynchat.h",
                              "src/loop.c", "src/os.h", "src/os_linux.c", "python/tests/test_install.py",
                              "python/libasyncore/__init__.py"}, names)
        self.assertEqual([], [name for name in names if re.search(r"sim_|cares|__pycache__|\.(pyc|so|swp)$", name)])

    def test_the_metadata_says_what_the_header_says(self):
        wheel = build(PYTHON, self.directory, ASYNCORE_EXTENSION="no")
        with zipfile.ZipFile(str(wheel)) as archive:
            text = archive.read("libasyncore-%s.dist-info/METADATA" % VERSION).decode()
        self.assertIn("\nName: libasyncore\nVersion: %s\n" % VERSION, text)
        self.assertIn("\nRequires-Python: >=3.8\n", text)

    def test_the_extension_exports_nothing_of_the_library(self):
        wheel = build(PYTHON, self.directory, ASYNCORE_EXTENSION="yes")
        with zipfile.ZipFile(str(wheel)) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".so"))
            archive.extract(name, str(self.directory))
        symbols = run("nm", "-D", "--defined-only", self.directory / name).split()[2::3]
        self.assertEqual(["PyInit__asyncore"], symbols)

    def test_what_changed_is_compiled_again(self):
        tree = self.copy()

        def make(status=0, **changes):
            text = run(PYTHON, "-m", "libasyncore_build", self.directory / "build", status=status,
                       PYTHONPATH=str(tree / "python" / "backend"), ASYNCORE_EXTENSION="yes", **changes)
            objects = (self.directory / "build").glob(".python-*/*.o")
            return text, {path.name: path.stat().st_mtime_ns for path in objects}

        first = make()[1]
        self.assertEqual(first, make()[1])
        source = tree / "src" / "address.c"
        source.write_text(source.read_text() + "\n#error spoilt\n")
        self.assertIn("error spoilt", make(1)[0])
        source.write_text(source.read_text().replace("#error spoilt", ""))
        changed = make()[1]
        self.assertEqual({"address.o"}, {name for name in first if first[name] != changed[name]})
        (tree / "src" / "os.h").touch()
        self.assertEqual([], [name for name, when in make()[1].items() if when == changed[name]])
        again = make()[1]
        self.assertEqual([], [name for name, when in make(CPPFLAGS="-DX")[1].items() if when == again[name]])


if __name__ == "__main__":
    unittest.main()
