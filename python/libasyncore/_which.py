"""Tells which asyncore, asynchat and smtpd an import gets, and why: `python -m libasyncore --which`."""
import os
import sys
import sysconfig
from importlib import metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import libasyncore

ADVICE = """\
To have libasyncore's: run `python -m libasyncore PROGRAM`, or call libasyncore.install() before the first import of
them, or put this directory on PYTHONPATH: %s"""


def entry_of(file):
    """The place in sys.path where the module stands that the file is, or its directory; None if nowhere."""
    folder = os.path.dirname(file)
    if os.path.basename(file) == "__init__.py":
        folder = os.path.dirname(folder)
    for number, entry in enumerate(sys.path):
        if os.path.realpath(entry) == os.path.realpath(folder):
            return number
    return None


def place(number, file):
    return "sys.path[%d], %s" % (number, sys.path[number] or os.getcwd()) if number is not None else file


def is_standard(number):
    return number is not None and os.path.realpath(sys.path[number]) == os.path.realpath(sysconfig.get_path("stdlib"))


def find(name):
    """The file that an import of the name gets, or None."""
    try:
        spec = find_spec(name)
    except ValueError:  # it is imported, and does not say from where
        return getattr(sys.modules.get(name), "__file__", None)
    return spec.origin if spec else None


def installers(file):
    """", of NAME VERSION", with the other distributions that say the file is theirs; empty if none does."""
    found = []
    for distribution in metadata.distributions():
        for path in distribution.files or ():
            if path.name == os.path.basename(file) and os.path.realpath(str(path.locate())) == os.path.realpath(file):
                found.append("%s %s" % (distribution.metadata["Name"], distribution.version))
    return "".join(", of " + name for name in sorted(set(found)) if not name.startswith("libasyncore "))


def explain(name):
    """(whose module it is, its file, why): three texts."""
    file = find(name)
    if file is None:
        return "nobody's", "not found", "neither %s nor sys.path has one" % libasyncore.__name__
    number = entry_of(file)
    if libasyncore._is_ours(name, file):
        if any(isinstance(finder, libasyncore._Finder) for finder in sys.meta_path):
            return "libasyncore's", file, "libasyncore.install() was called"
        return "libasyncore's", file, "it comes first, in %s" % place(number, file)
    if is_standard(number):
        return "the standard library's", file, "it comes first, in %s" % place(number, file)
    if os.path.dirname(os.path.dirname(file)) == os.path.dirname(os.path.dirname(libasyncore.MODULES)):
        return "another distribution's", file, "it was installed over libasyncore's" + installers(file)
    return "somebody else's", file, "it comes first, in %s%s" % (place(number, file), installers(file))


def folder_of_asyncore():
    """The directory of the asyncore that an import gets, if it is libasyncore's; else of the one that it would be."""
    file = find("asyncore")
    if file is not None and libasyncore._is_ours("asyncore", file):
        return os.path.dirname(file)
    return os.path.join(libasyncore.MODULES, "asyncore")


def unsuitable():
    """Why the extension is not made for this Python, or None."""
    if sys.implementation.name != "cpython" or not (3, 8) <= sys.version_info[:2] <= (3, 13):
        this = (sys.implementation.name,) + sys.version_info[:2]
        return "it is for CPython 3.8 to 3.13, and this is %s %d.%d" % this
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it needs the interpreter's lock"
    return None


def extension():
    """What there is of the extension, and whether it can be loaded."""
    if os.environ.get("ASYNCORE_PURE", "") not in ("", "0"):
        return "not used: ASYNCORE_PURE is set"
    path = os.path.join(folder_of_asyncore(), "_asyncore" + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"))
    if not os.path.exists(path):
        lack = "there was no C compiler or Python.h, or none was wanted, or this is the source tree"
        return "none, all is Python: %s\n    %s is missing" % (unsuitable() or lack, path)
    try:
        module_from_spec(spec_from_file_location("asyncore._asyncore", path))
    except ImportError as error:
        return "not used: %s\n    %s" % (error, path)
    return path


def tell():
    rows = [(name,) + explain(name) for name in libasyncore.NAMES]
    lines = ["%s: %s, %s\n    %s" % row for row in rows] + ["extension: " + extension()]
    if not all(row[1] == "libasyncore's" for row in rows):
        lines.append(ADVICE % libasyncore.MODULES)
    print("\n".join(lines))
