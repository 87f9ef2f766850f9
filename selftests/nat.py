#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""ESP in UDP, with stock and minimal peers."""
import contextlib

import lib
from lib import crypto, nat, suites, traffic

SIZES = [*range(1, 17), *range(1380, 1480), 4000, 65000]


def talk(peer, mode, inner, outer, words="", **more):
    traffic.talk(peer, mode, inner, outer, SIZES, f"{nat.WORDS} {words}",
                 before=lambda a, b: sockets(a, b, outer), **more)


@contextlib.contextmanager
def sockets(a, b, family):
    with nat.ike(a, family), nat.ike(b, family):
        yield


@lib.fixture
def hosts(peer):
    """For all suites"""
    with lib.hosts() as (a, b), contextlib.ExitStack() as stack:
        if peer == "stock":
            b.settings(enabled=0)
        for family in 4, 6:
            stack.enter_context(sockets(a, b, family))
        yield a, b


def suite(peer, suite):
    a, b = hosts(peer)
    errors = a.errors(), b.errors()
    for mode, inner, outer in lib.MODES[:1] + lib.MODES[-1:]:
        kind = "inner" if mode == "tunnel" else "outer"
        before = {h: h.stats() for h in (a, b)}
        for h in (a, b):
            h.sas(mode, inner, outer, nat.WORDS, suite.words)
        traffic.udp(a, b, inner, kind, SIZES)
        traffic.went_as_esp(a, b, peer, len(SIZES), before)
    lib.equal((a.errors(), b.errors()), errors, "errors")


def cases():
    for peer in "stock", "minimal":
        for mode in lib.MODES:
            yield ("{} peer, {}, IPv{} in IPv{}".format(peer, *mode),
                   lambda p=peer, m=mode: talk(p, *m))
        for words in "flag esn", lib.XFLAG_IMPLICIT_IV:
            if peer == "minimal" or words != lib.XFLAG_IMPLICIT_IV:
                yield (f"{peer} peer, {words}",
                       lambda p=peer, w=words: talk(p, "transport", 4, 4, w))
        for name, s in suites.explicit_iv():
            yield f"{peer} peer, {name}", lambda p=peer, s=s: suite(p, s)
    for mode in lib.MODES[:3]:
        yield ("asynchronous, {}, IPv{} in IPv{}".format(*mode),
               lambda m=mode: crypto.using(crypto.async_aead, talk, "minimal", *m))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"], imports=["cryptography"])
