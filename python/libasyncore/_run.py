"""Runs a program as the interpreter itself does, after install().

The program sees its own sys.argv, sys.path[0] and __main__. When it ends with an exception, the traceback starts in the
program, and the exit status is the interpreter's. Options of the interpreter, such as -W, come before -m libasyncore.
"""
import io
import os
import runpy
import sys
import types
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pkgutil import get_importer

import libasyncore


def refuse(text, status):
    sys.stderr.write("libasyncore: %s\n" % text)
    sys.exit(status)


def run(words):
    """Runs PROGRAM, -m MODULE or -c COMMAND with arguments; returns when the program has ended well."""
    libasyncore.install()
    way = {"-m": run_module, "-c": run_command}.get(words[0])
    try:
        if way:
            way(words[1], words[2:])
        else:
            run_program(words[0], words[1:])
    except BaseException as error:
        sys.excepthook = shortened(sys.excepthook, error)
        raise  # the interpreter knows what status it ends with


def shortened(hook, error):
    """An excepthook that shows the exception as if there were nobody between the interpreter and the program."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next

    def show(kind, value, whole):
        if value is error:
            whole = error.__traceback__ = trace
        hook(kind, value, whole)

    return show


def path_is_safe():
    """Whether the interpreter was told to add nothing of the program's to sys.path."""
    return bool(sys.flags.isolated or getattr(sys.flags, "safe_path", False))


def new_main():
    """A __main__ as a program finds it; the one that holds it so far only started it."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    if sys.version_info < (3, 14):
        main.__dict__["__annotations__"] = {}
    sys.modules["__main__"] = main
    return main


def run_module(name, arguments):
    try:
        found = find_spec(name)
    except (ImportError, AttributeError, ValueError) as error:
        refuse("cannot find module %s: %s" % (name, error), 1)
    if found is None:
        refuse("no module named %s" % name, 1)
    sys.argv = ["-m"] + arguments  # the module's path takes the place of -m
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_command(text, arguments):
    sys.argv = ["-c"] + arguments
    if not path_is_safe():
        sys.path[0] = ""
    exec(compile(text, "<string>", "exec", dont_inherit=True), new_main().__dict__)


def run_program(path, arguments):
    sys.argv = [path] + arguments
    if path.endswith(".pyc") or get_importer(path) is not None:
        run_packed(path)
        return
    try:
        with io.open_code(os.path.abspath(path)) as file:
            text = file.read()
    except OSError as error:
        refuse("cannot open %s: %s" % (path, error.strerror), 2)
    if not path_is_safe():
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    main = new_main()
    main.__file__ = path if sys.version_info < (3, 9) else os.path.abspath(path)
    main.__cached__ = None
    main.__loader__ = SourceFileLoader("__main__", main.__file__)
    exec(compile(text, main.__file__, "exec", dont_inherit=True), main.__dict__)


def run_packed(path):
    """Runs a directory or a zip file with a __main__.py, or a compiled file: runpy knows how."""
    if not path_is_safe():
        sys.path[0] = os.path.dirname(os.path.realpath(path))
        if not path.endswith(".pyc"):
            del sys.path[0]  # the thing itself comes there
    runpy.run_path(path, run_name="__main__")
