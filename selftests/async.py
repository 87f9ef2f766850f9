#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Crypto that completes later, on another CPU (pcrypt) or in a work queue
(cryptd): the same traffic, the same malformed packets."""
import contextlib
import os
import pathlib

import lib
from lib import crypto, inbound, kmod, scapy_peer, traffic

SIZES = [*range(1, 17), *range(1440, 1480), 4000, 65000]
BURST = 200     # packets
TRACING = pathlib.Path("/sys/kernel/tracing")


@contextlib.contextmanager
def completions():
    """Yields a function: how often minesp's callbacks have been called."""
    probes = TRACING / "kprobe_events"
    if not probes.exists():
        raise lib.Skip("no kprobe events to count completions with")
    names = ("minesp_input_done", "minesp_output_done")

    def write(path, text):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, text.encode())
        os.close(fd)

    for name in names:
        write(probes, f"p:minesp/{name} {name}\n")
    write(TRACING / "events/minesp/enable", "1\n")
    try:
        yield lambda: {
            fields[0]: int(fields[1]) for fields in map(
                str.split, (TRACING / "kprobe_profile").read_text().splitlines())
            if fields[0] in names}
    finally:
        write(TRACING / "events/minesp/enable", "0\n")
        for name in names:
            write(probes, f"-:minesp/{name}\n")


def talk(template, *mode, name="rfc4106(gcm(aes))", **more):
    with (crypto.preferred(template, name) as users,
          completions() as calls):
        with lib.hosts() as (a, b):
            a.sas(*mode, **more)
            lib.equal(users(), 2, "SAs with the cipher")
        traffic.talk("minimal", *mode, SIZES, **more)
        for name, n in calls().items():
            assert n > len(SIZES), f"{name} called {n} times only"


@contextlib.contextmanager
def short_queue():
    """cryptd, with room for one operation on each CPU."""
    kmod.unload()
    drivers = [m for m in ("aesni_intel", "ghash_clmulni_intel", "crypto_simd",
                           "cryptd") if kmod.loaded(m)]
    lib.sh(f"modprobe -ra {' '.join(drivers)} cryptd", check=False)
    try:
        if kmod.loaded("cryptd"):
            raise lib.Skip("cryptd is in use")
        lib.sh("modprobe cryptd cryptd_max_cpu_qlen=1")
        kmod.load()
        yield
    finally:
        kmod.unload()
        lib.sh("modprobe -r cryptd", check=False)
        lib.sh(f"modprobe -a {' '.join(drivers)} cryptd")
        kmod.load()


def congested():
    """Packets that the cipher has no room for are dropped, and counted."""
    with short_queue(), crypto.preferred("cryptd"), lib.hosts() as (a, b):
        for h in (a, b):
            h.sas("transport", 4, 4)
        at_a, at_b = traffic.pair(a, b, 4, "outer", scapy_peer.PORT)
        sent = [str(i).encode() for i in range(BURST)]
        with traffic.one_cpu():
            for data in sent:
                at_a.send(data)
        out = lib.wait_for("all are encrypted or dropped", lambda: (
            s := a.stats())["OutPackets"] + s["OutCryptoError"] == BURST and s)
        into = lib.wait_for("all are decrypted or dropped", lambda: (
            s := b.stats())["InPackets"] + s["InCryptoError"] ==
            out["OutPackets"] and s)
        assert out["OutCryptoError"] and out["OutPackets"], out
        for _ in range(into["InPackets"]):
            assert at_b.recv(100) in sent
        at_a.send(b"again")
        lib.equal(at_b.recv(100), b"again", "data")
        at_a.close()
        at_b.close()


def cases():
    yield "cryptd: its queue is full", congested
    for kind in ("pcrypt", "cryptd"):
        for mode in (("transport", 4, 4), ("transport", 6, 6),
                     ("tunnel", 6, 4)):
            yield (f"{kind}: traffic, {mode[0]} IPv{mode[1]} in IPv{mode[2]}",
                   lambda t=kind, m=mode: talk(t, *m))
        for name, words in (("authenc(hmac(sha256),cbc(aes))", ""),
                            ("authencesn(hmac(sha256),cbc(aes))", "flag esn")):
            yield (f"{kind}: traffic, {name}",
                   lambda t=kind, n=name, w=words: talk(
                       t, "tunnel", 4, 4, name=n, suite=lib.CBC, words=w))
        yield (f"{kind}: traffic, implicit IV", lambda t=kind: talk(
            t, "transport", 6, 6, words=lib.XFLAG_IMPLICIT_IV))
        for what, function, args in (
                ("dummy packets", inbound.dummy, ("transport", 4, 4)),
                ("dummy packets, tunnel", inbound.dummy, ("tunnel", 4, 6)),
                ("changed bits", inbound.changed, ()),
                ("truncated", inbound.truncated, (6,)),
                ("absurd Pad Length", inbound.pad_length, ()),
                ("fragments", inbound.fragments, (4,)),
                ("replay", inbound.replay, (32,))):
            yield (f"{kind}: {what}",
                   lambda t=kind, f=function, x=args: crypto.using(t, f, *x))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping"],
            imports=["scapy", "cryptography"])
