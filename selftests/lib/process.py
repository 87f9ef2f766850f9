# SPDX-License-Identifier: GPL-2.0
"""Functions that run in processes of their own."""
import multiprocessing
import sys
import tempfile
import traceback


def start(function, *args):
    """Starts function(*args) in a process, which ends no later than this one."""
    said = tempfile.TemporaryFile("w+")

    def body():
        try:
            function(*args)
        except Exception:
            said.write(traceback.format_exc())
            said.flush()
            sys.exit(1)

    p = multiprocessing.get_context("fork").Process(target=body, daemon=True)
    p.said = said
    p.start()
    return p


def join(processes):
    """Waits until all processes have ended; fails if one of them failed."""
    why = []
    for p in processes:
        p.join()
        p.said.seek(0)
        if p.exitcode:
            why.append(f"exit code {p.exitcode}: {p.said.read()}")
        p.said.close()
    assert not why, "\n".join(why)
