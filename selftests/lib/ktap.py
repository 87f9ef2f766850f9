# SPDX-License-Identifier: GPL-2.0
"""Runs the cases of a test program, and reports in KTAP for kselftest."""
import importlib.util
import os
import pathlib
import shutil
import sys
import time
import traceback

from . import fixtures, kmod
from .verdict import Skip

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "kselftest"))
import ksft  # noqa: E402

# No case starts after this time, in seconds since 1970.
END = float(os.environ.get("MINESP_END", "inf"))

print_msg = ksft.print_msg


def run(cases, needs=(), imports=(), always=False):
    """Runs cases, an iterable of (name, function); exits with a status for kselftest.
    A case fails if it raises an exception, and is skipped if it raises Skip. If the
    iterable raises Skip, all cases are skipped. With words on the command line, only cases
    run whose names contain all words. needs, imports: programs and Python modules; if one
    is missing, all cases are skipped. always: run after END, too"""
    ksft.print_header()
    missing = [c for c in needs if not shutil.which(c)]
    missing += [m for m in imports if not importlib.util.find_spec(m)]
    try:
        if os.geteuid() or missing:
            raise Skip(f"needs {' '.join(missing) or 'root'}")
        if not kmod.loaded("minesp"):
            kmod.load()
        cases = [c for c in cases if all(word in c[0] for word in sys.argv[1:])]
    except Skip as e:
        print(f"1..0 # SKIP {e}")
        sys.exit(ksft.KSFT_SKIP)
    ksft.set_plan(len(cases))
    if not cases:
        ksft.exit_fail()
    with fixtures.kept:
        for name, function in cases:
            try:
                if time.time() > END and not always:
                    raise Skip("there is no time left")
                function()
                ksft.test_result_pass(name)
            except Skip as e:
                ksft.test_result_skip(f"{name} ({' '.join(str(e).split())})")
            except Exception:
                ksft.test_result_fail(name)
                for line in traceback.format_exc().splitlines():
                    ksft.print_msg(line[:2000])
            sys.stdout.flush()
    ksft.finished()
