"""asyncore, asynchat and smtpd for every Python from 3.8 on.

Python 3.12 has these modules no more. There this package installs them where `import asyncore` finds them, and nothing
else is needed. Up to 3.11 the standard library's come first; install() makes these win, in the program, or
`python -m libasyncore PROGRAM` from outside, or PYTHONPATH with the directory libasyncore.MODULES.
`python -m libasyncore --which` tells which asyncore an import would get, and why.
"""
import os
import sys
from importlib.machinery import PathFinder

__all__ = ["MODULES", "NAMES", "install"]

NAMES = ("asyncore", "asynchat", "smtpd")

#: The directory that has the three modules, as packages.
MODULES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "modules")


class _Finder:
    """The first of sys.meta_path after install(): it knows the three names, whatever sys.path says."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [MODULES]) if name in NAMES else None


def _is_ours(name, file):
    """Whether the file is one that this package has for the module, or a copy of it."""
    mine = os.path.join(MODULES, name, "__init__.py")
    try:
        if os.path.samefile(file, mine):
            return True
        with open(file, "rb") as theirs, open(mine, "rb") as ours:
            return theirs.read() == ours.read()
    except (OSError, TypeError):
        return False


def install():
    """Make the three names mean this package's modules in this process, wherever they are imported from now on.

    Call it before anything imports them; what is imported already cannot be replaced in those who hold it. Calling it
    twice does no harm. Processes that are started from this one do as they are told themselves.

    Raises RuntimeError, and changes nothing, if another asyncore, asynchat or smtpd is already imported.
    """
    for name in NAMES:
        if name not in sys.modules:
            continue
        file = getattr(sys.modules[name], "__file__", None)
        if not _is_ours(name, file):
            raise RuntimeError(
                "libasyncore.install(): another %s is already imported (%s); call it before that" % (name, file)
            )
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def __getattr__(name):
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("libasyncore")
        except metadata.PackageNotFoundError:
            return "unknown"  # used from its source tree
    raise AttributeError("module 'libasyncore' has no attribute %r" % name)
