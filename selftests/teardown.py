#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""SAs and namespaces are deleted, and the module is unloaded, under traffic."""
import random

import lib
from lib import crypto, kmod, share, traffic

ROUNDS = 3


def sas_come_and_go(family):
    with lib.hosts() as (a, b), traffic.flood(a, b, family):
        for _ in range(ROUNDS):
            for h in (a, b):
                h.sas("transport", family, family)
            traffic.arrives(b)
            # Update the SA in use, then delete SAs in three ways.
            src, dst = a.address(family), b.address(family)
            ident = f"src {src} dst {dst} proto esp spi {lib.SPI['b']:#x}"
            b.ip(f"xfrm state update {ident} reqid 1 mode transport "
                 f"replay-window 128 {lib.AEAD} {lib.KEYS[128]} 128")
            traffic.arrives(b)
            b.ip(f"xfrm state delete {ident}")
            a.ip("xfrm state flush")
            b.ip("xfrm state deleteall")
    kmod.released()


def expire():
    """A hard limit ends an SA between two packets."""
    with lib.hosts() as (a, b), traffic.flood(a, b, 4):
        for _ in range(3):
            a.sas("transport", 4, 4)
            b.sas("transport", 4, 4, "limit packet-hard 50")
            lib.wait_for("SAs expire", lambda: not lib.sh(
                f"ip -n {b.ns} xfrm state"))
        lib.equal(b.errors().get("InIcvWrong"), None, "InIcvWrong")
    kmod.released()


def module(family):
    """The module is unloaded as soon as possible, and loaded again."""
    with lib.hosts() as (a, b), traffic.flood(a, b, family):
        for _ in range(ROUNDS):
            for h in (a, b):
                h.sas("transport", family, family)
            traffic.arrives(b)
            for h in (a, b):
                h.ip("xfrm state flush")
            kmod.unload()
            lib.equal(kmod.loaded("minesp"), False, "minesp loaded")
            kmod.load()


def namespace(family):
    for _ in range(ROUNDS):
        with lib.hosts() as (a, b), traffic.flood(a, b, family):
            for h in (a, b):
                h.sas("transport", family, family)
            traffic.arrives(b)
            random.choice((a, b)).delete()
        # The other namespace and the sockets are gone now.
    kmod.released()


def cases():
    for f in (4, 6):
        yield f"SAs come and go, IPv{f}", lambda f=f: sas_come_and_go(f)
        yield f"rmmod, IPv{f}", lambda f=f: module(f)
        yield f"a namespace is deleted, IPv{f}", lambda f=f: namespace(f)
    yield "SAs expire", expire
    for c, cipher in enumerate((crypto.async_aead, crypto.pcrypt)):
        for n, (what, function) in enumerate((("SAs come and go", sas_come_and_go),
                                              ("rmmod", module),
                                              ("a namespace is deleted", namespace))):
            if share.mine(n + c):
                yield (f"{cipher.__name__}: {what}",
                       lambda c=cipher, f=function: crypto.using(c, f, 4))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"])
