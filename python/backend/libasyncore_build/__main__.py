"""python -m libasyncore_build DIRECTORY: builds for this interpreter into DIRECTORY/python-X.Y.

That is to be put on PYTHONPATH. The three modules are at the top there on every version: who puts the directory on
PYTHONPATH, which comes before the standard library, wants them. What was compiled is kept beside it, in
DIRECTORY/.python-X.Y, for the next time.
"""
import shutil
import sys
import tempfile
from pathlib import Path

from . import archives, compiled, tree, wanted


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m libasyncore_build DIRECTORY")
    target = Path(sys.argv[1], "python-%d.%d" % sys.version_info[:2])
    objects = Path(sys.argv[1], "." + target.name)
    with tempfile.TemporaryDirectory() as scratch:
        built = compiled(scratch, wanted(), objects)
        if target.exists():
            shutil.rmtree(str(target))
        archives.write_directory(target, tree.installed(built, top=True), built is not None)
    print("%s: libasyncore %s %s the extension" % (target, tree.version(), "without" if built is None else "with"))


main()
