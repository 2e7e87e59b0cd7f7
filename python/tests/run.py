#!/usr/bin/env python3
"""Runs one group of the package's tests on one interpreter.

    run.py VERSION GROUP [ARGUMENT...]

VERSION: 3.8 to 3.13, or "system" for /usr/bin/python3. An interpreter is looked for among pyenv's, then on the PATH.
Exit status 77, with a line that says why, where there is none: CTest then counts the tests as skipped.

GROUP:
    own        the tests of this directory (ARGUMENTs: names of modules, classes or methods)
    cpython    CPython's own test_asyncore, test_asynchat, test_smtpd: of each version up to 3.11, 3.11's on later ones
    install    the package installed, used and taken away: test_install.py (ARGUMENTs: options of unittest)
    clients    CPython's test_smtplib, test_ftplib, test_poplib of the version, whose servers stand on these modules

$PYTHON_MODULES is the folder with the modules; libasyncore/modules of this tree unless set.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
MODULES = os.path.abspath(os.environ.get("PYTHON_MODULES") or os.path.join(PACKAGE, "libasyncore", "modules"))
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
SLOWER = int(os.environ.get("CK_TIMEOUT_MULTIPLIER") or 1)
CORE = ("test_asyncore", "test_asynchat", "test_smtpd")
CLIENTS = ("test_smtplib", "test_ftplib", "test_poplib")
SKIPPED = 77


def version_of(python):
    """(major, minor) of an interpreter; None if it does not run (pyenv leaves commands that do not)."""
    try:
        result = subprocess.run([python, "-E", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode().strip() if result.returncode == 0 else None


def pyenv_versions():
    if not shutil.which("pyenv"):
        return []
    root = subprocess.run(["pyenv", "root"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().strip()
    return sorted(glob.glob(os.path.join(glob.escape(root), "versions", "*", "bin"))) if root else []


def find(version):
    """The path of an interpreter, or None."""
    if version == "system":
        return "/usr/bin/python3" if version_of("/usr/bin/python3") in VERSIONS else None
    name = "python" + version
    for folder in pyenv_versions() + [None]:
        python = shutil.which(name, path=folder)
        if python and version_of(python) == version:
            return python
    return None


def test_folder(python, suite):
    """Where an interpreter has CPython's tests; None without that suite (Debian's have some of them)."""
    if python is None:
        return None
    code = "import os, test.support; print(os.path.dirname(test.__file__))"
    result = subprocess.run([python, "-E", "-W", "ignore", "-c", code], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL)
    folder = result.stdout.decode().strip() if result.returncode == 0 else ""
    return folder if folder and os.path.exists(os.path.join(folder, suite + ".py")) else None


def skip(why):
    print("skipped: " + why)
    sys.exit(SKIPPED)


def start(python, *args):
    """An interpreter with these modules, in an empty folder of its own."""
    folder = tempfile.TemporaryDirectory()
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join((MODULES, PACKAGE, HERE)), PYTHONDONTWRITEBYTECODE="1")
    environment.setdefault("ASYNCORE_PURE", "1")
    environment.pop("PYTHONWARNINGS", None)
    process = subprocess.Popen([python] + list(args), cwd=folder.name, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.folder = folder
    return process


def finish(process, name):
    """Waits for it, prints what it said in the end or, where it failed, all of it. Whether it was well."""
    try:
        output = process.communicate(timeout=120 * SLOWER)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0].decode("utf-8", "replace") + "\nno end after %d s\n" % (120 * SLOWER)
    process.folder.cleanup()
    good = process.returncode == 0
    summary = [line for line in output.splitlines() if line.startswith(("Ran ", "OK", "FAILED"))]
    print("%s: %s" % (name, " ".join(summary) or "status %d" % process.returncode))
    if not good:
        print(output)
    return good


def run_own(python, names):
    modules = sorted(os.path.basename(path)[:-3] for path in glob.glob(os.path.join(HERE, "test_*.py")))
    modules = [name for name in modules if name not in ("test_archives", "test_install")]
    return finish(start(python, "-W", "default", "-W", "error::ResourceWarning", "-m", "unittest",
                        *(names or modules)), "own")


def run_suites(python, suites, folder):
    """CPython's suites, at the same time, since they mostly wait; those of `folder` if it is not the interpreter's."""
    processes = []
    for suite in suites:
        args = ["--from", folder, suite] if folder else [suite]
        processes.append((suite, start(python, "-W", "ignore", os.path.join(HERE, "cpython.py"), *args)))
    return all([finish(process, suite) for suite, process in processes])


def main(argv):
    if len(argv) < 3 or argv[1] not in VERSIONS + ("system",) or argv[2] not in ("own", "cpython", "clients", "install"):
        print(__doc__, file=sys.stderr)
        return 2
    version, group, names = argv[1], argv[2], argv[3:]
    python = find(version)
    if python is None:
        skip("Python %s is not here" % version)
    print("%s: Python %s" % (python, version_of(python)))
    if group == "own":
        return 0 if run_own(python, names) else 1
    suites = names or (CORE if group == "cpython" else CLIENTS)
    if group == "install":
        return subprocess.call([sys.executable, "-B", os.path.join(HERE, "test_install.py"), *names],
                               env=dict(os.environ, PYTHON=python))
    folder = None
    if group == "cpython" and version_of(python) in ("3.12", "3.13"):
        folder = test_folder(find("3.11"), suites[0])
        if folder is None:
            skip("Python 3.11 with its tests, which these come from, is not here")
    elif test_folder(python, suites[0]) is None:
        skip("%s has no test.%s" % (python, suites[0]))
    return 0 if run_suites(python, suites, folder) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
