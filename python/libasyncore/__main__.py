"""python -m libasyncore: runs a program with this package's asyncore, asynchat and smtpd, or tells which ones win."""
import sys

USAGE = """\
usage: python -m libasyncore PROGRAM [ARGUMENT...]
       python -m libasyncore -m MODULE [ARGUMENT...]
       python -m libasyncore -c COMMAND [ARGUMENT...]
       python -m libasyncore --which | --version | --help
"""

HELP = USAGE + """
Runs a Python program as `python PROGRAM ARGUMENT...` would, with libasyncore's asyncore, asynchat and smtpd in the
place of the standard library's.

  --which    tells which of these modules an import in this environment gets, and why
  --version  prints libasyncore's version
  --help     prints this
"""


def fail(text):
    sys.stderr.write(text)
    sys.exit(2)


def main(words):
    if not words:
        fail(USAGE)
    first = words[0]
    if first in ("-h", "--help"):
        print(HELP, end="")
    elif first == "--version":
        import libasyncore

        print("libasyncore", libasyncore.__version__)
    elif first == "--which":
        from libasyncore import _which

        _which.tell()
    elif first in ("-m", "-c") and len(words) == 1:
        fail("libasyncore: %s: what is to be run?\n%s" % (first, USAGE))
    elif first.startswith("-") and first not in ("-m", "-c"):
        fail("libasyncore: unknown option: %s\n%s" % (first, USAGE))
    else:
        from libasyncore import _run

        _run.run(words)


main(sys.argv[1:])
