"""The interpreters that the tests of the package run on: $PYTHONS (paths, with spaces between), or what there is of
python3.8 to python3.13 on PATH and under pyenv, with the system's python3."""
import json
import os
import shutil
import subprocess
from pathlib import Path

OLDEST, NEWEST = (3, 8), (3, 13)
ASK = "import json, sys; print(json.dumps([sys.version_info[:2], sys.implementation.name, sys.base_prefix]))"


def candidates():
    if os.environ.get("PYTHONS"):
        return os.environ["PYTHONS"].split()
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    found = [str(path) for path in sorted(pyenv.glob("3.*/bin/python3"))]
    found += ["/usr/bin/python3"]
    names = ["python%d.%d" % (OLDEST[0], minor) for minor in range(OLDEST[1], NEWEST[1] + 1)]
    return found + [path for path in map(shutil.which, names) if path]


def ask(python):
    """(version, prefix), or None if it does not run or is none that the package is for."""
    done = subprocess.run([python, "-I", "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode != 0:
        return None
    version, implementation, prefix = json.loads(done.stdout.decode())
    if implementation != "cpython" or not OLDEST <= tuple(version) <= NEWEST:
        return None
    return tuple(version), prefix


def found():
    """(version, path) of each, the oldest first; of two that are one installation, one."""
    seen = {}
    for python in candidates():
        if not os.path.exists(python):
            continue
        answer = ask(python)
        if answer:
            seen.setdefault(answer, python)
    return sorted((version, path) for (version, _), path in seen.items())
