# SPDX-License-Identifier: GPL-2.0
"""Waiting for a condition, with a time limit."""
import contextlib
import os
import time

# Limit in seconds for one step of a test. A kernel that checks itself is several times
# slower.
TIMEOUT = 100 if (os.path.exists("/proc/lockdep") or
                  os.uname().release.endswith("-races")) else 20


def wait_for(what, condition, seconds=TIMEOUT):
    """Waits until condition() is true; returns its result."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds} seconds: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def throttled():
    """Sleeps three times as long as the block took, so that a busy loop leaves CPU time
    to other threads even on a slow machine."""
    began = time.monotonic()
    yield
    time.sleep(max(0.001, 3 * (time.monotonic() - began)))
