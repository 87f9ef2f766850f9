# SPDX-License-Identifier: GPL-2.0
"""A spare host, which has SAs, but no traffic and no peer."""
import contextlib
import functools

from . import kmod
from .host import ADDRESSES, namespaces
from .wait import wait_for

SRC, DST = (ADDRESSES["outer", 4][h] for h in "ab")


@functools.cache
def load_offloads():
    """Loads the offloads, which hold references to esp4 and esp6. Otherwise the kernel
    would load them when an SA names a device, and the reference counts would change."""
    kmod.load_offloads(check=False)


@contextlib.contextmanager
def host():
    """Makes a host. Checks that its SAs release their modules when the host is deleted."""
    def held():
        return kmod.refcount("minesp"), kmod.refcount("esp4")

    load_offloads()
    before = held()
    with namespaces("a") as [made]:
        yield made
    try:
        wait_for("the modules are released", lambda: held() == before)
    except AssertionError:
        raise AssertionError(f"references (minesp, esp4): {held()}, "
                             f"not {before}") from None


def add(host, words, check=True, spi="0x1000", mode="transport"):
    """Adds an SA with ip xfrm; returns what ip printed."""
    return host.ip(f"xfrm state add src {SRC} dst {DST} proto esp spi {spi} "
                   f"mode {mode} {words}", check)
