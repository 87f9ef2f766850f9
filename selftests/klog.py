#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The kernel's log has no complaint since boot. This test is the last, so it covers
all tests."""
import os
import re

import lib
from lib import debugfs

COMPLAINT = re.compile(
    r"WARNING:|BUG:|Oops|general protection|KASAN|UBSAN|KCSAN(?!_STRICT)|KMEMLEAK|"
    r"refcount_t|INFO: (task|rcu)|rcu.*(stall|self-detected)|"
    r"possible (circular|recursive|irq)|suspicious RCU|inconsistent lock|"
    r"sleeping function|scheduling while atomic|Call Trace|"
    r"unregister_netdevice: waiting|Unable to handle|bad unlock|"
    r"skb_over_panic|page allocation failure|ODEBUG|kmemleak: (?!.*(initialized|started))")


def log():
    """Returns all lines of the log. Fails if the first one is missing."""
    lines = []
    first = None
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    while True:
        try:
            record = os.read(fd, 8192).decode(errors="replace")
        except BlockingIOError:
            break
        except BrokenPipeError:     # overwritten while we read
            continue
        head, _, text = record.partition(";")
        first = first or head.split(",")[1]
        lines.append(text.partition("\n")[0])
    os.close(fd)
    lib.equal(first, "0", "the first record that is left (see log_buf_len)")
    return lines


def leaks():
    """kmemleak finds no unreferenced memory that is old enough to be a leak."""
    kmemleak = debugfs.path("kmemleak")
    # The first scan may find memory whose only reference was moving.
    for _ in range(2):
        kmemleak.write_text("scan")
    assert not kmemleak.read_text(), kmemleak.read_text()


def clean():
    bad = [line for line in log() if COMPLAINT.search(line)]
    assert not bad, "\n".join(bad)


if __name__ == "__main__":
    lib.run([("no memory is lost", leaks),
             ("no complaint in the kernel's log", clean)], always=True)
