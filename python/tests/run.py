#!/usr/bin/env python3
"""Runs one group of the package's tests on one interpreter.

    run.py VERSION GROUP [ARGUMENT...]
    run.py found

VERSION: 3.8 to 3.13, or "system" for /usr/bin/python3. An interpreter is looked for among pyenv's, then on the PATH.
Exit status 77, with a line that says why, where there is none: CTest then counts the tests as skipped. `found` prints
the interpreters that there are, and which of them have CPython's own tests.

GROUP:
    build      the extension, for the groups below
    own        the tests of this directory (ARGUMENTs: names of modules, classes or methods)
    cpython    CPython's own test_asyncore, test_asynchat, test_smtpd: of each version up to 3.11, 3.11's on later ones
    clients    CPython's test_smtplib, test_ftplib, test_poplib of the version, whose servers stand on these modules
    install    the package installed, used and taken away: test_install.py (ARGUMENTs: options of unittest)

$ASYNCORE_PURE: 1, as if it were not set, for the modules in Python; 0 for the extension.
$PYTHON_BUILD is the folder that `build` builds in, and where the modules with the extension are.
$PYTHON_MODULES is the folder with the modules; python-X.Y of $PYTHON_BUILD, or libasyncore/modules of this tree.
$PYTHON_SANITIZE: sanitizers to build the extension with, and to run it under.
"""
import glob
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
BACKEND = os.path.join(PACKAGE, "backend")
PURE = os.environ.setdefault("ASYNCORE_PURE", "1") not in ("", "0")
BUILD = os.environ.get("PYTHON_BUILD")
SANITIZE = os.environ.get("PYTHON_SANITIZE")
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
SLOWER = int(os.environ.get("CK_TIMEOUT_MULTIPLIER") or 1)
CORE = ("test_asyncore", "test_asynchat", "test_smtpd")
CLIENTS = ("test_smtplib", "test_ftplib", "test_poplib")
GROUPS = ("build", "own", "cpython", "clients", "install")
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


def modules(python):
    """The folder with the modules."""
    if os.environ.get("PYTHON_MODULES"):
        return os.path.abspath(os.environ["PYTHON_MODULES"])
    if PURE or not BUILD:
        return os.path.join(PACKAGE, "libasyncore", "modules")
    return os.path.join(os.path.abspath(BUILD), "python-" + version_of(python))


def runtime():
    """ASan's shared object, which must be there before any other."""
    command = shlex.split(os.environ.get("CC") or "cc") + ["-print-file-name=libasan.so"]
    path = subprocess.run(command, stdout=subprocess.PIPE).stdout.decode().strip()
    if not os.path.isabs(path):
        skip("the compiler has no libasan.so")
    return path


def sanitized():
    """The environment of an interpreter that runs an extension with sanitizers."""
    if not SANITIZE:
        return {}
    # What Python keeps until it ends is no leak to tell of; its own allocator would hide what is used when freed.
    return {"LD_PRELOAD": runtime(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}


def start(python, *args):
    """An interpreter with these modules, in an empty folder of its own."""
    folder = tempfile.TemporaryDirectory()
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join((modules(python), PACKAGE, HERE)),
                       PYTHONDONTWRITEBYTECODE="1", **sanitized())
    environment.pop("PYTHONWARNINGS", None)
    process = subprocess.Popen([python] + list(args), cwd=folder.name, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.folder = folder
    return process


def finish(process, name):
    """Waits for it, prints what it said in the end or, where it failed, all of it. Whether it was well."""
    try:
        output = process.communicate(timeout=240 * SLOWER)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0].decode("utf-8", "replace") + "\nno end after %d s\n" % (240 * SLOWER)
    process.folder.cleanup()
    good = process.returncode == 0
    summary = [line for line in output.splitlines() if line.startswith(("Ran ", "OK", "FAILED"))]
    print("%s: %s" % (name, " ".join(summary) or "status %d" % process.returncode))
    if not good:
        print(output)
    return good


def obstacle(python):
    """Why there can be no extension for the interpreter; or ""."""
    code = "from libasyncore_build import extension; print(extension.obstacle() or '')"
    return subprocess.run([python, "-B", "-c", code], env=dict(os.environ, PYTHONPATH=BACKEND), check=True,
                          stdout=subprocess.PIPE).stdout.decode().strip()


def build(python):
    flags = "-O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize=" + SANITIZE if SANITIZE else ""
    environment = dict(os.environ, PYTHONPATH=BACKEND, ASYNCORE_EXTENSION="yes", CFLAGS=flags, LDFLAGS=flags)
    return subprocess.call([python, "-B", "-m", "libasyncore_build", BUILD], env=environment)


def run_own(python, names):
    """All of them in a few processes at the same time, since they mostly wait."""
    own = sorted(os.path.basename(path)[:-3] for path in glob.glob(os.path.join(HERE, "test_*.py")))
    own = [name for name in own if name not in ("test_archives", "test_install")]
    parts = [names] if names else [own[first::4] for first in range(4)]
    processes = [(part, start(python, "-W", "default", "-W", "error::ResourceWarning", "-m", "unittest", *part))
                 for part in parts]
    return all([finish(process, " ".join(part)) for part, process in processes])


def run_suites(python, suites, folder):
    """CPython's suites, at the same time, since they mostly wait; those of `folder` if it is not the interpreter's."""
    processes = []
    for suite in suites:
        args = ["--from", folder, suite] if folder else [suite]
        processes.append((suite, start(python, "-W", "ignore", os.path.join(HERE, "cpython.py"), *args)))
    return all([finish(process, suite) for suite, process in processes])


def run_cpython(python, group, suites):
    folder = None
    if group == "cpython" and version_of(python) in ("3.12", "3.13"):
        folder = test_folder(find("3.11"), suites[0])
        if folder is None:
            skip("Python 3.11 with its tests, which these come from, is not here")
    elif test_folder(python, suites[0]) is None:
        skip("%s has no test.%s" % (python, suites[0]))
    return run_suites(python, suites, folder)


def found():
    """Two lines on the interpreters: which there are, and which run CPython's suites."""
    here = [version for version in VERSIONS + ("system",) if find(version)]
    gone = [version for version in VERSIONS + ("system",) if version not in here]
    print("Python: tests run on %s%s" % (" ".join(here), "; not here: " + " ".join(gone) if gone else ""))
    suites = [version for version in here if test_folder(find(version), CLIENTS[0])]
    print("Python: CPython's suites run on " + (" ".join(suites) or "none"))
    return 0


def main(argv):
    if argv[1:] == ["found"]:
        return found()
    if len(argv) < 3 or argv[1] not in VERSIONS + ("system",) or argv[2] not in GROUPS:
        print(__doc__, file=sys.stderr)
        return 2
    version, group, names = argv[1], argv[2], argv[3:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    python = find(version)
    if python is None:
        skip("Python %s is not here" % version)
    print("%s: Python %s, %s" % (python, version_of(python), "pure" if PURE else "with the extension"))
    if group == "install":
        return subprocess.call([sys.executable, "-B", os.path.join(HERE, "test_install.py"), *names],
                               env=dict(os.environ, PYTHON=python))
    if not PURE and obstacle(python):
        skip("no extension: " + obstacle(python))
    if group == "build":
        return build(python)
    if group == "own":
        return 0 if run_own(python, names) else 1
    return 0 if run_cpython(python, group, names or (CORE if group == "cpython" else CLIENTS)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
