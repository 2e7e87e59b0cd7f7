"""Builds the Python package libasyncore: what pip and other frontends call (PEP 517 and PEP 660).

Nothing but Python is needed, and a C compiler with Python's headers for the extension. Without them the wheel has the
Python modules alone, and a line on stderr says why. The config setting `extension`, or $ASYNCORE_EXTENSION, can be
"yes" (it is an error if there cannot be one), "no" or "auto".

tree.py      what there is to pack, and under which names
extension.py the compiler
archives.py  wheels and sdists, the same bytes for the same files
__main__.py  `make python`: the same without an archive
"""
import os
import sys
import tempfile
from pathlib import Path

from . import archives, extension, tree


def get_requires_for_build_wheel(config_settings=None):
    return []


get_requires_for_build_editable = get_requires_for_build_sdist = get_requires_for_build_wheel


def wanted(config_settings=None):
    """Whether there is to be an extension: "yes", "no" or "auto"."""
    value = (config_settings or {}).get("extension") or os.environ.get("ASYNCORE_EXTENSION") or "auto"
    if value not in ("yes", "no", "auto"):
        raise SystemExit("libasyncore: extension is yes, no or auto, not: %s" % (value,))
    return value


def compiled(directory, want, objects=None):
    """Builds the extension in the directory; returns its path, or None if there is none. `objects`: see build()."""
    if want == "no":
        return None
    obstacle = extension.obstacle()
    if obstacle is None:
        return extension.build(Path(directory), objects)
    if want == "yes":
        raise SystemExit("libasyncore: no extension: " + obstacle)
    print("libasyncore: built without the extension: " + obstacle, file=sys.stderr)
    return None


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name = archives.dist_info()
    for path, content in archives.metadata_files().items():
        target = Path(metadata_directory, path)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    return name


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with tempfile.TemporaryDirectory() as scratch:
        built = compiled(scratch, wanted(config_settings))
        return archives.write_wheel(wheel_directory, tree.installed(built, tree.at_the_top(built)), built is not None)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """The modules are used from the tree, and the extension is built there."""
    built = compiled(tree.MODULES / "asyncore", wanted(config_settings))
    paths = [tree.PACKAGE.parent] + ([tree.MODULES] if tree.REMOVED else [])
    pth = "".join("%s\n" % path for path in paths).encode()
    return archives.write_wheel(wheel_directory, {"libasyncore.pth": pth}, built is not None)


def build_sdist(sdist_directory, config_settings=None):
    return archives.write_sdist(sdist_directory, tree.sources())
