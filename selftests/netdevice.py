#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A minimal SA is never offloaded to a network device: not to one that supports offload,
not to a bond, which asks its slaves, and not to another. Stock SAs still can be."""
import contextlib
import os

import lib
from lib import kmod, spare

KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
# How the kernel refuses a minimal SA: it checks the type first, or TFC padding
REFUSED = ("Type doesn't support offload" if KERNEL < (6, 13) else
           "TFC padding can't be offloaded")


@contextlib.contextmanager
def device(kind):
    """Yields a spare host, and the name of a device in it."""
    kmod.released()
    with spare.host() as h:
        if kind == "netdevsim":
            if lib.sh("modprobe netdevsim 2>&1", check=False):
                raise lib.Skip("a kernel without netdevsim")
            with h.inside(), open("/sys/bus/netdevsim/new_device", "w") as f:
                f.write("77 1")
            # ip netns exec mounts the /sys of the namespace. h.sh() does not.
            name = lib.wait_for("the device", lambda: lib.sh(
                f"ip netns exec {h.ns} ls /sys/bus/netdevsim/devices/netdevsim77/net",
                check=False).strip())
        elif kind == "bond":
            h.ip("link add bond7 type bond mode active-backup")
            name = "bond7"
        else:
            name = "lo"
        h.ip(f"link set {name} up")
        try:
            yield h, name
        finally:
            h.ip("xfrm state flush")
            if kind == "netdevsim":
                with open("/sys/bus/netdevsim/del_device", "w") as f:
                    f.write("77")


def offload(kind, direction):
    with device(kind) as (h, name):
        words = f"{lib.SUITE} offload dev {name} dir {direction}"
        before = kmod.refcount("minesp")
        said = spare.add(h, words, check=False)
        assert REFUSED in said, f"said {said!r}"
        lib.equal(h.ip("xfrm state"), "", "SAs left behind")
        lib.wait_for("the module is released",
                     lambda: kmod.refcount("minesp") == before)
        said = spare.add(h, f"{words} {lib.XFLAG_STOCK}", check=False)
        shown = h.ip("xfrm state")
        if kind == "bond":  # a bond asks its slaves, and this one has none
            assert said and REFUSED not in said, f"said {said!r}"
        else:
            lib.equal(said, "", "what ip said of a stock SA")
            lib.equal("offload" in shown, kind == "netdevsim", f"offload in {shown}")
        h.ip("xfrm state flush")
        # The TFC padding that keeps a minimal SA from devices is not shown.
        spare.add(h, lib.SUITE)
        shown = h.ip("xfrm state")
        assert "tfcpad" not in shown and "offload" not in shown, shown


def cases():
    for kind in ("lo", "bond", "netdevsim"):
        for direction in ("in", "out"):
            yield (f"offload dev {kind} dir {direction}",
                   lambda k=kind, d=direction: offload(k, d))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"])
