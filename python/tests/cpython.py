"""Runs one of CPython's test modules on our modules, which are first on sys.path.

    cpython.py [--from FOLDER] test_NAME

Up to 3.11 a module that comes first on sys.path is taken. Since 3.12 the tests bring copies of asyncore, asynchat and
smtpd along (test.support.asyncore, ...): ours are put in their places. --from: the file is another installation's.
"""
import importlib
import importlib.util
import os
import sys
import unittest

NAMES = ("asyncore", "asynchat", "smtpd")


def check(asyncore):
    """The tests are of our modules, and of the extension where it was asked for."""
    if not hasattr(asyncore, "__libasyncore__"):
        sys.exit("cpython.py: %s is not ours" % asyncore.__file__)
    if (asyncore._extension is None) != (os.environ.get("ASYNCORE_PURE", "") not in ("", "0")):
        sys.exit("cpython.py: the extension is %s" % (asyncore._extension,))


def main(argv):
    # The script's own folder has tests with the names of CPython's.
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != own]
    for name in NAMES:
        module = importlib.import_module(name)
        if name == "asyncore":
            check(module)
        if sys.version_info >= (3, 12):
            put(module, "test.support", name)
            put(module, "test", name)
    if argv[1] == "--from":
        load(argv[2], argv[3])
        argv = argv[:1] + argv[3:]
    unittest.main(module=None, argv=["cpython.py", "test." + argv[1]])


def put(module, package, name):
    setattr(importlib.import_module(package), name, module)
    sys.modules[package + "." + name] = module


def load(folder, name):
    """Imports FOLDER/NAME.py as test.NAME."""
    spec = importlib.util.spec_from_file_location("test." + name, os.path.join(folder, name + ".py"))
    module = importlib.util.module_from_spec(spec)
    put(module, "test", name)
    spec.loader.exec_module(module)


main(sys.argv)
