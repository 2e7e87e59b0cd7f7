"""What the tests of the package's archives and of its installation share. $PYTHON is the interpreter that they are
about, or else the one that runs them."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("asyncore", "asynchat", "smtpd")
WHERE = "import asyncore, asynchat, smtpd; print(asyncore.__file__, asynchat.__file__, smtpd.__file__, sep='\\n')"
VERSION = re.search(r'define ASYNCORE_VERSION "(.*?)"', (ROOT / "include/asyncore.h").read_text()).group(1)
PYTHON = os.environ.get("PYTHON") or sys.executable
LIMIT = 120 * int(os.environ.get("CK_TIMEOUT_MULTIPLIER") or 1)


def environment(**changes):
    """This process's, without what would change an installation."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PIP_", "ASYNCORE_", "VIRTUAL_ENV", "SOURCE_DATE"))
    }
    clean.update(PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_CACHE_DIR="1", PIP_CONFIG_FILE=os.devnull)
    clean.update(PIP_ROOT_USER_ACTION="ignore", PYTHONWARNINGS="ignore::DeprecationWarning")
    clean.update(CFLAGS="-O0")  # it is quicker
    clean.update(changes)
    return clean


def run(*command, status=0, cwd="/", **changes):
    """Runs a command away from the tree; returns its output, stderr included."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          cwd=str(cwd), env=environment(**changes), timeout=LIMIT)
    text = done.stdout.decode(errors="replace")
    if done.returncode != status:
        raise AssertionError("%s: status %d\n%s" % (command, done.returncode, text))
    return text


def build(python, into, hook="wheel", **changes):
    """Calls the backend of the tree, as a frontend does; returns the archive's path."""
    code = "import sys, libasyncore_build as b; print('made', getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
    tree = changes.pop("tree", ROOT)
    text = run(python, "-c", code, hook, into, cwd=tree, PYTHONPATH=str(tree / "python" / "backend"), **changes)
    return Path(into, re.search(r"^made (.*)$", text, re.MULTILINE).group(1))


class Scratch(unittest.TestCase):
    """A directory of the test's own."""

    def setUp(self):
        self.directory = Path(tempfile.mkdtemp(prefix="asyncore-test-"))
        self.addCleanup(shutil.rmtree, str(self.directory), True)

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path
