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
    -fno-semantic-interposition -fno-plt -ffunction-sections -fdata-sections""".split()
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


def compile_all(objects, command):
    """Compiles what has changed since its object was made, by the same command; returns the objects."""
    stamp = objects / "command"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != repr(command):
        for old in objects.glob("*.o"):
            old.unlink()
        stamp.write_text(repr(command), encoding="utf-8")
    changed = max(path.stat().st_mtime for path in tree.headers() + list(Path(__file__).parent.glob("*.py")))
    made, commands = [], []
    for path in tree.extension_sources() + tree.library_sources():
        target = objects / (path.stem + ".o")
        made.append(target)
        if not target.exists() or target.stat().st_mtime <= max(changed, path.stat().st_mtime):
            commands.append(command + ["-c", path.relative_to(tree.ROOT).as_posix(), "-o", str(target)])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, commands))
    return made


def build(directory, objects=None):
    """Compiles and links; returns the path of the extension in the directory. `objects` is a directory that keeps the
    objects for the next time."""
    if objects is None:
        with tempfile.TemporaryDirectory() as scratch:
            return build(directory, Path(scratch))
    objects = objects.resolve()
    objects.mkdir(parents=True, exist_ok=True)
    target = directory.resolve() / ("_asyncore" + sysconfig.get_config_var("EXT_SUFFIX"))
    flags = FLAGS + ["-Iinclude"] + ["-I" + path for path in headers()] + words("CPPFLAGS") + words("CFLAGS")
    made = compile_all(objects, compiler() + flags)
    exports = objects / "exports"
    exports.write_text(EXPORTS, encoding="ascii")
    link = ["-shared", "-pthread", "-Wl,--gc-sections", "-Wl,--version-script=%s" % exports] + words("CFLAGS")
    run(compiler() + link + [str(path) for path in made] + ["-o", str(target)] + words("LDFLAGS"))
    return target
