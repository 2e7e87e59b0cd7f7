"""The extension _asyncore: python/src/*.c with the library's own files, compiled into one shared object.

The compiler is $CC, or the one that Python was built with, or cc. $CPPFLAGS, $CFLAGS and $LDFLAGS come after the flags
given here. Nothing of the library is exported: another copy of it in the process is not mixed up with this one.
"""
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import tree

OLDEST, NEWEST = (3, 8), (3, 13)  # what it was tried on
FLAGS = """-std=c11 -D_GNU_SOURCE -DNDEBUG -O2 -Wall -Wextra -fPIC -pthread -fvisibility=hidden
    -fno-semantic-interposition -ffunction-sections -fdata-sections""".split()
FLAGS.append('-DPyMODINIT_FUNC=__attribute__((visibility("default"))) PyObject *')  # 3.8's is not visible
EXPORTS = "{ global: PyInit_*; local: *; };\n"


def words(variable):
    return shlex.split(os.environ.get(variable, ""))


def compiler():
    """The compiler's command as a list, or None. A $CC that is not there is not replaced by another."""
    chosen = words("CC")
    for command in [chosen] if chosen else [shlex.split(sysconfig.get_config_var("CC") or ""), ["cc"]]:
        if command and shutil.which(command[0]):
            return command
    return None


def headers():
    """Where Python's headers are: directories."""
    paths = [sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
    return list(dict.fromkeys(path for path in paths if path))


def obstacle():
    """Why no extension can be built here, or None."""
    if sys.implementation.name != "cpython":
        return "it is for CPython, and this is " + sys.implementation.name
    if not sys.platform.startswith("linux"):
        return "it is for Linux, and this is " + sys.platform
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        return "it has not been tried on Python %d.%d" % sys.version_info[:2]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it has not been tried without the interpreter's lock"
    if not tree.extension_sources():
        return "python/src has no C files"
    if compiler() is None:
        return "no C compiler (%s)" % (os.environ.get("CC") or "cc")
    if not any(Path(path, "Python.h").exists() for path in headers()):
        return "no Python.h in " + " or ".join(headers())
    return None


def run(command):
    """Runs the compiler in the tree, so that no path of this machine gets into what it makes."""
    done = subprocess.run(command, cwd=str(tree.ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    if output:
        sys.stderr.write(output)
    if done.returncode != 0:
        raise SystemExit("libasyncore: the compiler failed: " + " ".join(map(shlex.quote, command)))


def build(directory):
    """Compiles and links; returns the path of the extension in the directory."""
    target = directory.resolve() / ("_asyncore" + sysconfig.get_config_var("EXT_SUFFIX"))
    command = compiler()
    flags = FLAGS + ["-Iinclude"] + ["-I" + path for path in headers()] + words("CPPFLAGS") + words("CFLAGS")
    paths = tree.extension_sources() + tree.library_sources()
    with tempfile.TemporaryDirectory() as scratch:
        objects = [os.path.join(scratch, path.stem + ".o") for path in paths]
        commands = [
            command + flags + ["-c", path.relative_to(tree.ROOT).as_posix(), "-o", made]
            for path, made in zip(paths, objects)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, commands))
        exports = os.path.join(scratch, "exports")
        Path(exports).write_text(EXPORTS, encoding="ascii")
        link = ["-shared", "-pthread", "-Wl,--gc-sections", "-Wl,--version-script=" + exports]
        run(command + link + words("CFLAGS") + objects + ["-o", str(target)] + words("LDFLAGS"))
    return target
