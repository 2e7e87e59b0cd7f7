#!/usr/bin/env python3
"""Builds the extension _asyncore for the Python that runs this: build_extension.py FOLDER [compiler options]

It becomes FOLDER/_asyncore.SUFFIX, with the library's sources in it. What it takes is a C compiler ($CC, or else cc) and
Python's headers. Objects of the library are kept in FOLDER/.objects as long as no source is newer.
"""
import concurrent.futures
import os
import pathlib
import shlex
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPTIONS = ["-std=gnu11", "-O2", "-g", "-DNDEBUG", "-D_GNU_SOURCE", "-fPIC", "-fno-plt", "-fvisibility=hidden", "-Wall",
           "-Wextra"]


def library_sources():
    """All but the simulated kernel and the c-ares resolver: the modules look no names up by the library."""
    return [path for path in sorted((ROOT / "src").glob("*.c"))
            if not path.name.startswith("sim_") and path.name != "names_cares.c"]


def is_old(target, sources):
    return not target.exists() or any(path.stat().st_mtime >= target.stat().st_mtime for path in sources)


def run(command):
    done = subprocess.run([str(word) for word in command], stderr=subprocess.PIPE, universal_newlines=True)
    if done.stderr:
        sys.stderr.write(done.stderr)
    return done.returncode == 0


def build(folder, options=()):
    """The extension's path, or None where it cannot be built."""
    folder = pathlib.Path(folder)
    objects = folder / ".objects"
    objects.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(os.environ.get("CC", "cc")) + OPTIONS + list(options)
    includes = ["-I", ROOT / "include", "-I", sysconfig.get_paths()["include"]]
    headers = list((ROOT / "include").glob("*.h")) + list((ROOT / "src").glob("*.h")) + [
        ROOT / "python/src/_asyncore.h", pathlib.Path(__file__)]
    jobs, linked = [], []
    for source in library_sources() + sorted((ROOT / "python/src").glob("*.c")):
        target = objects / (source.stem + ".o")
        linked.append(target)
        if is_old(target, headers + [source]):
            jobs.append(compiler + includes + ["-c", source, "-o", target])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        if not all(pool.map(run, jobs)):
            return None
    extension = folder / ("_asyncore" + sysconfig.get_config_var("EXT_SUFFIX"))
    if is_old(extension, linked) and not run(compiler + ["-shared", "-o", extension] + linked + ["-lpthread"]):
        return None
    return extension


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: build_extension.py FOLDER [compiler options]")
    built = build(sys.argv[1], sys.argv[2:])
    if built is None:
        sys.exit("build_extension.py: the extension could not be built")
    print(built)
