# SPDX-License-Identifier: GPL-2.0
"""Waiting for a condition, and how long a test may wait."""
import contextlib
import os
import time

# Seconds that anything may take which is not a test by itself. A kernel that checks
# itself is several times slower.
TIMEOUT = 100 if (os.path.exists("/proc/lockdep") or
                  os.uname().release.endswith("-races")) else 20


def wait_for(what, condition, seconds=TIMEOUT):
    """Waits until condition() is true, and returns what it returned."""
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
    """Sleeps three times as long as the block took. A loop that never pauses leaves
    the other threads some CPU time this way, however slow the machine is."""
    began = time.monotonic()
    yield
    time.sleep(max(0.001, 3 * (time.monotonic() - began)))
