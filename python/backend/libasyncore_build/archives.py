"""Wheels and sdists. The same files give the same bytes: names in order, one time for all of them, nobody's user id.

The time is $SOURCE_DATE_EPOCH, or the start of 1980, the earliest that a zip file can say.
"""
import base64
import gzip
import hashlib
import io
import os
import sys
import sysconfig
import tarfile
import time
import zipfile
from pathlib import Path

from . import tree

EARLIEST = 315532800
LATEST = 4354819199  # a zip file's years end with 2107

SUMMARY = "asyncore, asynchat and smtpd for Python 3.8 and later: a drop-in, with the loop in C"
CLASSIFIERS = """\
Development Status :: 4 - Beta
Intended Audience :: Developers
License :: OSI Approved :: MIT License
Operating System :: POSIX :: Linux
Programming Language :: C
Programming Language :: Python :: 3
Programming Language :: Python :: 3.8
Programming Language :: Python :: 3.9
Programming Language :: Python :: 3.10
Programming Language :: Python :: 3.11
Programming Language :: Python :: 3.12
Programming Language :: Python :: 3.13
Programming Language :: Python :: Implementation :: CPython
Topic :: Internet
Topic :: Software Development :: Libraries :: Python Modules
Typing :: Typed""".splitlines()


def epoch():
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return EARLIEST
    if not text.isdecimal():
        raise SystemExit("libasyncore: SOURCE_DATE_EPOCH is no number of seconds: " + text)
    return min(max(int(text), EARLIEST), LATEST)


def metadata():
    lines = ["Metadata-Version: 2.1", "Name: " + tree.NAME, "Version: " + tree.version(), "Summary: " + SUMMARY]
    lines += ["License: MIT", "Keywords: asyncore asynchat smtpd sockets epoll", "Platform: Linux"]
    lines += ["Classifier: " + classifier for classifier in CLASSIFIERS]
    lines += ["Requires-Python: >=3.8", "Description-Content-Type: text/markdown"]
    readme = (tree.ROOT / "python" / "README.md").read_text(encoding="utf-8")
    return ("\n".join(lines) + "\n\n" + readme).encode()


def dist_info():
    return "%s-%s.dist-info" % (tree.NAME, tree.version())


def metadata_files():
    """What stands in the .dist-info directory and does not depend on the wheel."""
    return {
        dist_info() + "/LICENSE": (tree.ROOT / "LICENSE").read_bytes(),
        dist_info() + "/METADATA": metadata(),
    }


def tag(native):
    if not native:
        return "py3-none-any"
    python = "cp%d%d" % sys.version_info[:2]
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return "%s-%s%s-%s" % (python, python, sys.abiflags, platform)


def contents(names, native):
    """All files of a wheel but RECORD, by name: bytes. `names` has paths, or bytes."""
    wheel = "Wheel-Version: 1.0\nGenerator: libasyncore_build\nRoot-Is-Purelib: %s\nTag: %s\n"
    made = {name: value if isinstance(value, bytes) else value.read_bytes() for name, value in names.items()}
    made.update(metadata_files())
    made[dist_info() + "/WHEEL"] = (wheel % (str(not native).lower(), tag(native))).encode()
    return made


def record(made):
    """The text of RECORD: of every file the digest and the size."""
    lines = []
    for name in sorted(made):
        digest = base64.urlsafe_b64encode(hashlib.sha256(made[name]).digest()).rstrip(b"=").decode()
        lines.append("%s,sha256=%s,%d\n" % (name, digest, len(made[name])))
    return "".join(lines + [dist_info() + "/RECORD,,\n"]).encode()


def mode(name):
    return 0o755 if name.endswith(".so") else 0o644


def write_wheel(directory, names, native):
    made = contents(names, native)
    name = "%s-%s-%s.whl" % (tree.NAME, tree.version(), tag(native))
    when = time.gmtime(epoch())[:6]
    with zipfile.ZipFile(os.path.join(directory, name), "w", zipfile.ZIP_DEFLATED) as archive:
        # The .dist-info comes last, as installers like it, and RECORD at its end.
        order = sorted(made, key=lambda path: (path.startswith(dist_info()), path))
        for path, content in [(path, made[path]) for path in order] + [(dist_info() + "/RECORD", record(made))]:
            info = zipfile.ZipInfo(path, when)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: the next line has a meaning
            info.external_attr = (0o100000 | mode(path)) << 16
            archive.writestr(info, content)
    return name


def write_directory(directory, names, native):
    """What a wheel would install, with its .dist-info, into a new directory."""
    made = contents(names, native)
    made[dist_info() + "/RECORD"] = record(made)
    for name, content in made.items():
        target = Path(directory, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode(name))


def write_sdist(directory, names):
    base = "%s-%s" % (tree.NAME, tree.version())
    made = {name: path.read_bytes() for name, path in names.items()}
    made["PKG-INFO"] = metadata()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(made):
            info = tarfile.TarInfo(base + "/" + name)
            info.size, info.mtime = len(made[name]), epoch()
            info.mode = 0o755 if os.access(str(names.get(name, "")), os.X_OK) else 0o644
            archive.addfile(info, io.BytesIO(made[name]))
    target = base + ".tar.gz"
    with open(os.path.join(directory, target), "wb") as file:
        with gzip.GzipFile("", "wb", 9, file, epoch()) as archive:
            archive.write(packed.getvalue())
    return target
