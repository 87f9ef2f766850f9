# SPDX-License-Identifier: GPL-2.0
"""A spare host: it has SAs without traffic, and no peer."""
import contextlib
import functools

from . import kmod
from .command import sh
from .host import ADDRESSES, namespaces
from .wait import wait_for

SRC, DST = (ADDRESSES["outer", 4][h] for h in "ab")


@functools.cache
def load_offloads():
    """The kernel loads the offloads when an SA names a device, and they hold esp4 and
    esp6. Loaded before, they do not change the references."""
    sh(f"modprobe -a {' '.join(kmod.OFFLOADS)}", check=False)


@contextlib.contextmanager
def host():
    """A host. When it goes, its SAs have to release the modules that they hold."""
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
    """Adds an SA by ip xfrm; returns what ip printed."""
    return host.ip(f"xfrm state add src {SRC} dst {DST} proto esp spi {spi} "
                   f"mode {mode} {words}", check)
