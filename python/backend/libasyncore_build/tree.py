"""What the tree has: the files of a sdist, and those of an installed package by the names they get there.

The tree and an unpacked sdist have the same shape, so that either can be built from.

The three modules are packages in libasyncore/modules/; the extension is a part of asyncore. Python 3.12 has none of
its own any more, and from there on they are also at the top, where `import asyncore` finds them. Before 3.12 they are
not, in a wheel made for one version: site-packages comes after the standard library, and nothing would ever look at
them. A wheel without the extension is for every version and therefore has them.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAME = "libasyncore"
PACKAGE = ROOT / "python" / NAME
MODULES = PACKAGE / "modules"
REMOVED = sys.version_info >= (3, 12)  # the standard library's modules are
LEFT_OUT = {".pyc", ".so", ".o", ".swp"}


def version():
    """The library's: include/asyncore.h has it."""
    text = (ROOT / "include" / "asyncore.h").read_text(encoding="utf-8")
    found = re.search(r'^#define ASYNCORE_VERSION "([0-9.]+)"', text, re.MULTILINE)
    if not found:
        raise SystemExit("libasyncore: include/asyncore.h: no ASYNCORE_VERSION")
    return found.group(1)


def files(directory):
    """The files of a directory and below, in order, without what programs have left there."""
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix not in LEFT_OUT and "__pycache__" not in path.parts
        and not path.name.startswith(".") and not path.name.endswith("~")
    ]


def library_sources():
    """The C files that are linked into the extension. It looks no names up in the background, and simulates nothing."""
    return [
        path
        for path in sorted((ROOT / "src").glob("*.c"))
        if not path.name.startswith("sim_") and path.name != "names_cares.c"
    ]


def extension_sources():
    return sorted((ROOT / "python" / "src").glob("*.c"))


def headers():
    """What they include, of the tree."""
    return [path for folder in ("include", "src", "python/src") for path in sorted((ROOT / folder).glob("*.h"))]


def at_the_top(built):
    """Whether the three modules are installed at the top as well."""
    return REMOVED or built is None


def installed(built, top):
    """The installed files by name: paths. `built` is the extension or None."""
    names = {path.relative_to(PACKAGE.parent).as_posix(): path for path in files(PACKAGE)}
    modules = {path.relative_to(MODULES).as_posix(): path for path in files(MODULES)}
    if built is not None:
        modules["asyncore/" + built.name] = built
    names.update(("%s/modules/%s" % (NAME, name), path) for name, path in modules.items())
    if top:
        names.update(modules)
    return names


def sources():
    """The files of a sdist, by name: all that a wheel is made of, its tests and its documentation."""
    paths = [ROOT / "pyproject.toml", ROOT / "LICENSE"]
    paths += [path for path in sorted((ROOT / "include").glob("*.h")) if not path.name.endswith("_sim.h")]
    paths += library_sources()
    paths += [path for path in sorted((ROOT / "src").glob("*.h")) if not path.name.startswith("sim")]
    paths += files(ROOT / "python") + files(ROOT / "docs" / "python")
    return {path.relative_to(ROOT).as_posix(): path for path in paths}
