#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""minesp interoperates with esp4 and esp6, and with itself: each mode, each pair
of families, each key length, ESN, several replay windows; ping, UDP of every
size, TCP both ways; also with GSO and GRO."""
import contextlib
import socket

import lib
from lib import offloading, share, suites, traffic

EVERY_SIZE = [*range(1, 1601), 4000, 9000, 65000]     # the MTU is 1500
SOME_SIZES = [*range(1, 17), *range(1380, 1500), 4000, 65000]


def replay_window(window):
    # A window of 1 drops late packets. A single CPU keeps packets in order.
    with traffic.one_cpu() if window == 1 else contextlib.nullcontext():
        traffic.talk("stock", "tunnel", 6, 4, SOME_SIZES, window=window)


def offloaded(peer, mode, inner, outer, words="", suite=lib.SUITE):
    """With GSO and GRO. ip -s xfrm state still counts every segment."""
    with lib.gro():
        traffic.talk(peer, mode, inner, outer, SOME_SIZES, words, suite, offload=1,
                     before=lambda a, b: offloading.decrypts(a))


def empty(receiver, family):
    """minesp delivers a packet that ends with its IP header. Stock ESP does not."""
    kind = lib.family_of(lib.ADDRESSES["outer", family]["a"]), socket.SOCK_RAW, 253
    with lib.hosts() as (a, b):
        b.settings(enabled=int(receiver == "minimal"))
        for h in (a, b):
            h.sas("transport", family, family)
        with b.socket(*kind) as sink, a.socket(*kind) as source:
            source.sendto(b"", (b.address(family), 0))
            if receiver == "minimal":
                header = sink.recv(100)     # empty with IPv6
                lib.equal(len(header), 20 if family == 4 else 0, "bytes")
            errors = {} if receiver == "minimal" else {"XfrmInStateProtoError": 1}
            lib.wait_for("counters", lambda: b.errors() == errors)
            lib.equal(a.stats()["OutPackets"], 1, "OutPackets")


def cases():
    for peer in ("stock", "minimal"):
        for n, (mode, inner, outer) in enumerate(lib.MODES):
            sizes = EVERY_SIZE if peer == "stock" and share.mine(n) else SOME_SIZES
            yield (f"{peer} peer, {mode}, IPv{inner} in IPv{outer}",
                   lambda p=peer, m=mode, i=inner, o=outer, s=sizes:
                   traffic.talk(p, m, i, o, s))
    for bits in (192, 256):
        yield (f"key of {bits} bits",
               lambda n=bits: traffic.talk("stock", "transport", 4, 4, SOME_SIZES,
                                           suite=f"{lib.AEAD} {lib.KEYS[n]} 128"))
    for window in (0, 1, 32, 128):
        yield (f"replay window {window}",
               lambda n=window: replay_window(n))
    for peer in ("stock", "minimal"):
        yield (f"ESN, {peer} peer",
               lambda p=peer: traffic.talk(p, "transport", 6, 6, SOME_SIZES, "flag esn"))
    for p, peer in enumerate(("stock", "minimal")):
        for n, args in enumerate(lib.MODES):
            if share.mine(n + p):
                yield ("offload, {} peer, {}, IPv{} in IPv{}".format(peer, *args),
                       lambda p=peer, args=args: offloaded(p, *args))
    yield ("offload, ESN",
           lambda: offloaded("stock", "transport", 4, 4, "flag esn"))
    yield ("offload, AES-CBC",
           lambda: offloaded("stock", "tunnel", 4, 4, suite=suites.Authenc(
               "cbc(aes)", 16, "hmac(sha256)").words))
    for receiver in ("stock", "minimal"):
        for family in (4, 6):
            yield (f"nothing in a packet, IPv{family}, {receiver} receiver",
                   lambda r=receiver, f=family: empty(r, f))


if __name__ == "__main__":
    lib.run(cases(), needs=["ethtool", "ip", "ping"])
