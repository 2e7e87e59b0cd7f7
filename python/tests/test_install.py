#!/usr/bin/env python3
"""The package as it is installed for one interpreter: without a network, in a venv that has pip and nothing else.
run.py goes through the interpreters."""
import json
import re
import shutil
import tarfile
import tempfile
import textwrap
import unittest
import zipfile
from pathlib import Path

from install_support import NAMES, PYTHON, ROOT, VERSION, WHERE, Scratch, build, run


COMPILING = ((3, 8), (3, 13))


class OnEach:
    """The tests of one interpreter; `python` and `version` are set by the subclass made below.

    The wheel has the extension on all of them; what is compiled besides, in the other ways to install, is on COMPILING.
    """

    python = version = None

    @classmethod
    def setUpClass(cls):
        cls.shared = Path(tempfile.mkdtemp(prefix="asyncore-test-"))
        cls.venv = cls.shared / "venv"
        try:
            run(cls.python, "-m", "venv", cls.venv)
            cls.wheel = build(cls.python, cls.shared, ASYNCORE_EXTENSION="yes")
        except AssertionError as error:
            shutil.rmtree(str(cls.shared))
            lack = re.search("No module named ensurepip|ensurepip is not|no Python.h in .*|no C compiler.*", str(error))
            if not lack:
                raise
            raise unittest.SkipTest("%s: %s" % (cls.python, lack.group()))
        cls.extension = "yes" if cls.version in COMPILING else "no"
        cls.bin = cls.venv / "bin" / "python"
        cls.site = Path(run(cls.bin, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        cls.before = cls.listing()
        cls.is_installed = False

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(str(cls.shared))

    @classmethod
    def listing(cls):
        return sorted(str(path) for path in cls.site.rglob("*") if "pip" not in path.relative_to(cls.site).parts[0])

    def pip(self, *words, **changes):
        return run(self.bin, "-m", "pip", *words, **changes)

    def uninstall(self):
        if self.is_installed:
            self.pip("uninstall", "--yes", "libasyncore")
        type(self).is_installed = False

    def install(self, *words, **changes):
        """Installs for this test alone."""
        self.uninstall()
        self.addCleanup(self.uninstall)
        type(self).is_installed = True
        self.pip("install", *words, **changes)

    def use_installed(self):
        """What is installed is used, and left as it was."""
        if not self.is_installed:
            self.pip("install", self.wheel)
            type(self).is_installed = True

    def code(self, text, *words, **changes):
        return run(self.bin, "-c", textwrap.dedent(text), *words, **changes)

    def of_the_top(self):
        return self.version >= (3, 12)

    def expect_modules(self, places, directory):
        for name, place in zip(NAMES, places.split()):
            self.assertEqual(str(Path(directory, name, "__init__.py")), place)

    # -- The wheel ------------------------------------------------------------------------------------------------

    def test_the_tag_says_what_is_in_the_wheel(self):
        python = "cp%d%d" % self.version
        with zipfile.ZipFile(str(self.wheel)) as archive:
            names = archive.namelist()
            info = archive.read("libasyncore-%s.dist-info/WHEEL" % VERSION).decode()
        native = [name for name in names if name.endswith(".so")]
        self.assertTrue(self.wheel.name.startswith("libasyncore-%s-%s-%s-linux_" % (VERSION, python, python)))
        self.assertIn("Root-Is-Purelib: false\nTag: %s-%s-linux_" % (python, python), info)
        places = ["libasyncore/modules/asyncore/", "asyncore/"][: 1 + self.of_the_top()]
        self.assertEqual(sorted(places), sorted(name[: name.index("_asyncore.")] for name in native))

    def test_a_wheel_has_what_it_needs_and_nothing_else(self):
        with zipfile.ZipFile(str(self.wheel)) as archive:
            names = archive.namelist()
        tops = {name.split("/")[0] for name in names}
        expected = {"libasyncore", "libasyncore-%s.dist-info" % VERSION}
        self.assertEqual(expected | set(NAMES if self.of_the_top() else ()), tops)
        for name in NAMES:
            self.assertIn("libasyncore/modules/%s/__init__.py" % name, names)
        self.assertEqual([], [name for name in names if "__pycache__" in name or name.endswith((".c", ".h", ".pyc"))])
        self.assertEqual(len(set(names)), len(names))

    def test_the_record_is_of_the_files(self):
        with zipfile.ZipFile(str(self.wheel)) as archive:
            record = archive.read("libasyncore-%s.dist-info/RECORD" % VERSION).decode().splitlines()
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        listed = {line.split(",")[0]: line.split(",")[2] for line in record}
        self.assertEqual(set(sizes), set(listed))
        self.assertEqual([], [name for name in sizes if listed[name] and int(listed[name]) != sizes[name]])

    # -- Installing -----------------------------------------------------------------------------------------------

    def test_an_installed_wheel_gives_the_modules_and_goes_whole(self):
        self.install(self.wheel)
        places = self.code(WHERE)
        if self.of_the_top():
            self.expect_modules(places, self.site)
        else:
            self.assertNotIn(str(self.venv), places)
        self.expect_modules(self.code("import libasyncore; libasyncore.install(); " + WHERE),
                            self.site / "libasyncore" / "modules")
        self.assertIn("libasyncore %s\n" % VERSION, run(self.bin, "-m", "libasyncore", "--version"))
        self.uninstall()
        self.assertEqual(self.before, self.listing())

    def test_the_extension_loads(self):
        self.use_installed()
        self.code("import libasyncore; libasyncore.install(); import asyncore; from asyncore import _asyncore")

    def test_a_sdist_installs(self):
        sdist = build(self.bin, self.directory, "sdist")
        self.install(sdist, ASYNCORE_EXTENSION=self.extension)
        self.code("import libasyncore; libasyncore.install(); import asyncore, asynchat, smtpd; "
                  "assert (asyncore._extension is None) == (%r == 'no')" % self.extension)
        self.assertIn("libasyncore", self.pip("check") + self.pip("list"))

    def test_the_tree_installs(self):
        self.install(ROOT, ASYNCORE_EXTENSION="no")
        self.code("import libasyncore; libasyncore.install(); import asyncore")

    def test_an_editable_installation_uses_the_tree(self):
        copy = self.directory / "tree"
        sdist = build(self.bin, self.directory, "sdist")
        with tarfile.open(str(sdist)) as archive:
            archive.extractall(str(self.directory))
        (self.directory / ("libasyncore-" + VERSION)).rename(copy)
        self.install("--editable", copy, ASYNCORE_EXTENSION=self.extension)
        modules = copy / "python" / "libasyncore" / "modules"
        self.expect_modules(self.code("import libasyncore; libasyncore.install(); " + WHERE), modules)
        if self.of_the_top():
            self.expect_modules(self.code(WHERE), modules)
        (modules / "asyncore" / "added.py").write_text("")
        self.code("import libasyncore; libasyncore.install(); import asyncore.added; "
                  "assert (asyncore._extension is None) == (%r == 'no')" % self.extension)
        self.uninstall()
        self.assertEqual(self.before, self.listing())

    def test_without_a_compiler_the_modules_are_python(self):
        wheel = build(self.bin, self.directory, CC="/nonexistent/cc")
        self.assertEqual("libasyncore-%s-py3-none-any.whl" % VERSION, wheel.name)
        self.install(wheel)
        self.code("import libasyncore; libasyncore.install(); import asyncore, asynchat, smtpd")
        places = self.code(WHERE)
        if self.of_the_top():
            self.expect_modules(places, self.site)
        else:
            self.assertNotIn(str(self.venv), places)

    def test_an_extension_that_is_asked_for_is_not_left_out(self):
        with self.assertRaisesRegex(AssertionError, "libasyncore: no extension: "):
            build(self.bin, self.directory, CC="/nonexistent/cc", ASYNCORE_EXTENSION="yes")
        with self.assertRaisesRegex(AssertionError, "extension is yes, no or auto, not: perhaps"):
            build(self.bin, self.directory, ASYNCORE_EXTENSION="perhaps")
        self.assertEqual([], list(self.directory.iterdir()))

    def test_a_directory_for_pythonpath_wins(self):
        text = run(self.bin, "-m", "libasyncore_build", self.directory, PYTHONPATH=str(ROOT / "python" / "backend"),
                   ASYNCORE_EXTENSION=self.extension)
        made = self.directory / ("python-%d.%d" % self.version)
        self.assertIn(str(made), text)
        self.expect_modules(self.code(WHERE, PYTHONPATH=str(made)), made)
        modules = made / "libasyncore" / "modules"
        self.expect_modules(self.code(WHERE, PYTHONPATH=str(modules)), modules)
        for name in ("stale.py", "stale.so"):
            (made / name).write_text("")
        run(self.bin, "-m", "libasyncore_build", self.directory, PYTHONPATH=str(ROOT / "python" / "backend"),
            ASYNCORE_EXTENSION="no")
        self.assertEqual([], list(made.rglob("stale.py")) + list(made.rglob("*.so")))

    # -- Which ones win ---------------------------------------------------------------------------------------------

    def test_which_tells_the_truth(self):
        self.use_installed()
        text = run(self.bin, "-m", "libasyncore", "--which")
        places = self.code(WHERE).split()
        for name, place in zip(NAMES, places):
            whose = "libasyncore's" if self.of_the_top() else "the standard library's"
            self.assertIn("%s: %s, %s\n" % (name, whose, place), text)
        self.assertEqual(not self.of_the_top(), "To have libasyncore's" in text)

    def test_which_knows_why(self):
        self.use_installed()
        modules = self.site / "libasyncore" / "modules"
        ours = "asyncore: libasyncore's, %s/asyncore/__init__.py\n    " % modules
        text = run(self.bin, "-m", "libasyncore", "--which", PYTHONPATH=str(modules))
        self.assertIn(ours + "it comes first, in sys.path[1]", text)
        self.write("asyncore.py", "")
        text = run(self.bin, "-m", "libasyncore", "--which", PYTHONPATH=str(self.directory))
        self.assertIn("asyncore: somebody else's, %s/asyncore.py\n    it comes first" % self.directory, text)
        self.write("sitecustomize.py", "import libasyncore; libasyncore.install()")
        text = run(self.bin, "-m", "libasyncore", "--which", PYTHONPATH=str(self.directory))
        self.assertIn(ours + "libasyncore.install() was called", text)

    def test_which_knows_of_the_extension(self):
        self.use_installed()

        def told(**changes):
            text = run(self.bin, "-m", "libasyncore", "--which", **changes)
            return text[text.index("extension: "):].split("\nTo have")[0]

        code = "import libasyncore; libasyncore.install(); import asyncore._asyncore as a; print(a.__file__)"
        place = Path(self.code(code).strip())
        if self.of_the_top():
            place = self.site / "asyncore" / place.name
        self.assertEqual("extension: %s" % place, told().strip())
        self.assertEqual("extension: not used: ASYNCORE_PURE is set", told(ASYNCORE_PURE="1").strip())
        self.addCleanup(place.write_bytes, place.read_bytes())
        place.unlink()
        self.assertRegex(told(), "none, all is Python: .*C compiler.*\n    %s is missing" % re.escape(str(place)))
        place.write_bytes(b"")
        self.assertRegex(told(), "extension: not used: .*too short.*\n    %s" % re.escape(str(place)))
        program = "import sys; sys.version_info = (3, 14); from libasyncore import _which; print(_which.unsuitable())"
        self.assertEqual("it is for CPython 3.8 to 3.13, and this is cpython 3.14\n", self.code(program))

    def test_install_refuses_when_another_one_is_imported(self):
        self.use_installed()
        self.write("asynchat.py", "")
        self.code(
            """
            import sys, asynchat, libasyncore
            before = list(sys.meta_path)
            try:
                libasyncore.install()
            except RuntimeError as error:
                assert "another asynchat is already imported" in str(error), error
                assert asynchat.__file__ in str(error), error
            else:
                raise SystemExit("no RuntimeError")
            assert sys.meta_path == before
            """,
            PYTHONPATH=str(self.directory),
        )

    def test_install_wins_over_the_path_and_may_be_called_again(self):
        self.use_installed()
        self.write("asyncore.py", "")
        places = self.code(
            """
            import sys, libasyncore
            libasyncore.install()
            sys.path.insert(0, sys.argv[1])
            libasyncore.install()
            import asyncore
            libasyncore.install()
            assert len([f for f in sys.meta_path if type(f).__module__ == "libasyncore"]) == 1
            import importlib
            importlib.reload(asyncore)
            """ + WHERE,
            self.directory,
        )
        self.expect_modules(places, self.site / "libasyncore" / "modules")

    # -- Running programs -------------------------------------------------------------------------------------------

    PROGRAM = """
        # -*- coding: latin-1 -*-
        import pickle, sys
        class Thing:
            pass
        import asyncore
        thing = pickle.loads(pickle.dumps(Thing()))
        print(sys.argv, sys.path[0], __name__, __file__, sys.modules["__main__"].Thing is Thing, ascii("\xe9"))
        print(sorted(set(globals()) - {"__warningregistry__"}), __spec__, __package__, __doc__)
        print(asyncore.__file__, file=sys.stderr)
        """

    def test_a_program_sees_what_it_sees_without(self):
        self.use_installed()
        self.write("asyncore.py", "")
        program = self.write("a folder/program.py", self.PROGRAM)
        program.write_bytes(textwrap.dedent(self.PROGRAM).encode("latin-1"))
        link = self.directory / "link"
        link.symlink_to(program)
        for path in (program, link, "a folder/program.py"):
            plain = run(self.bin, path, "one", "-m", "--which", cwd=self.directory).splitlines()
            ours = run(self.bin, "-m", "libasyncore", path, "one", "-m", "--which", cwd=self.directory).splitlines()
            place = str(self.site / "libasyncore" / "modules" / "asyncore" / "__init__.py")
            self.assertIn(place, ours)
            self.assertNotIn(place, plain)
            self.assertEqual([line for line in plain if ".py" not in line or "program" in line],
                             [line for line in ours if ".py" not in line or "program" in line])

    def both(self, *words, status=0, ours=None):
        """The outputs of the interpreter alone and of libasyncore for the same words."""
        plain = run(self.bin, *words, cwd=self.directory, status=status)
        return plain, run(self.bin, "-m", "libasyncore", *(ours or words), cwd=self.directory, status=status)

    def test_modules_and_commands_run_as_they_do_without(self):
        self.use_installed()
        self.write("package/__init__.py", "")
        self.write("package/__main__.py", "import sys; print(sys.argv, sys.path, __name__, __package__, __file__)")
        self.assertEqual(*self.both("-m", "package", "one", "-c"))
        self.assertEqual(*self.both("-c", "import sys; print(sys.argv, sys.path, __name__)", "one", "-m"))
        self.assertEqual(*self.both(self.directory / "package", "one"))
        with zipfile.ZipFile(str(self.directory / "z"), "w") as archive:
            archive.writestr("__main__.py", "import sys; print(sys.argv, sys.path, __name__, __package__)")
        self.assertEqual(*self.both(self.directory / "z", "one"))
        self.assertIn("__main__", run(self.bin, "-m", "libasyncore", "-c", "import smtpd; print(__name__)"))

    def test_a_program_ends_as_it_does_without(self):
        self.use_installed()
        self.write("raises.py", "import sys\ndef f():\n    1/0\nsys.excepthook and f()\n")
        self.write("wrong.py", "def f(:\n")
        self.write("hooks.py", "import sys\nsys.excepthook = lambda *a: print('hook', a[0], a[2].tb_lineno)\n1/0\n")
        self.write("exits.py", "import atexit, sys\natexit.register(print, 'last')\nsys.exit('why')\n")
        for name in ("raises.py", "wrong.py", "hooks.py", "exits.py"):
            with self.subTest(name):
                self.assertEqual(*self.both(self.directory / name, status=1))
        self.write("status.py", "raise SystemExit(7)")
        self.assertEqual(*self.both(self.directory / "status.py", status=7))
        self.write("stopped.py", "import os, time\ndef f():\n    os.kill(os.getpid(), 2)\n    time.sleep(60)\nf()\n")
        self.assertEqual(*self.both(self.directory / "stopped.py", status=-2))

    def test_safe_path_is_kept(self):
        self.use_installed()
        self.write("helper.py", "")
        program = self.write("program.py", "import helper")
        for option in ["-I"] + (["-P"] if self.version >= (3, 11) else []):
            text = run(self.bin, option, "-m", "libasyncore", program, status=1)
            self.assertIn("No module named 'helper'", text)

    def test_wrong_use_is_one_clear_line(self):
        self.use_installed()
        for words, status, text in (
            (["/nonexistent/x.py"], 2, "libasyncore: cannot open /nonexistent/x.py: No such file or directory\n"),
            (["-m", "nowhere"], 1, "libasyncore: no module named nowhere\n"),
            (["-m", "nowhere.x"], 1, "libasyncore: cannot find module nowhere.x: No module named 'nowhere'\n"),
            (["--what"], 2, "libasyncore: unknown option: --what\nusage: "),
            (["-m"], 2, "libasyncore: -m: what is to be run?\nusage: "),
            ([], 2, "usage: python -m libasyncore PROGRAM"),
        ):
            with self.subTest(words):
                self.assertTrue(run(self.bin, "-m", "libasyncore", *words, status=status).startswith(text))
        self.assertIn("--which", run(self.bin, "-m", "libasyncore", "--help"))


class OnLater(OnEach):
    """From 3.12 on the modules stand where other distributions install theirs."""

    def test_which_knows_what_was_installed_over_it(self):
        self.install(self.wheel)
        (self.site / "asyncore" / "__init__.py").write_text("# another one\n")
        info = self.site / "rival-1.0.dist-info"
        info.mkdir()
        self.addCleanup(shutil.rmtree, str(info))
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
        (info / "RECORD").write_text("asyncore/__init__.py,,\nrival-1.0.dist-info/RECORD,,\n")
        text = run(self.bin, "-m", "libasyncore", "--which")
        self.assertIn("asyncore: another distribution's, ", text)
        self.assertIn("\n    it was installed over libasyncore's, of rival 1.0\n", text)
        self.assertIn("asynchat: libasyncore's, ", text)


def load_tests(loader, tests, pattern):
    code = "import json, sys; print(json.dumps(sys.version_info[:2]))"
    version = tuple(json.loads(run(PYTHON, "-c", code)))
    each = type("On%d_%d" % version, (OnLater if version >= (3, 12) else OnEach, Scratch),
                {"python": PYTHON, "version": version})
    return loader.loadTestsFromTestCase(each)


if __name__ == "__main__":
    unittest.main()
