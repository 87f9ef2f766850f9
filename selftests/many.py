#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Many inbound SAs in one namespace are added, get a packet each, and are deleted. The
test prints the memory of an SA, and of an SA of esp4. It checks that a packet takes about
the same time with many SAs as with few.

MINESP_SAS: the number of SAs (1000, because emulation is slow)."""
import os
import random
import struct
import time

import lib
from lib import kmod, scapy_peer

try:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    AESGCM = None

SAS = int(os.environ.get("MINESP_SAS", 1000))
FEW, BATCH = 100, 1000
FIRST = 0x1000


def add_all(p, first, last, words=""):
    """Adds SAs, each with its own reqid. With a shared reqid, the kernel would walk
    through all SAs for each new one."""
    ends = f"src {p.b.address(4)} dst {p.a.address(4)} proto esp"
    rest = (f"mode transport replay-window 32 {lib.AEAD} {lib.KEYS[128]} 128 "
            f"{words}")
    p.a.ip("".join(f"xfrm state add {ends} spi {n << 8:#x} reqid {n} {rest}\n"
                   for n in range(first, last)))


def _allocated():
    with open("/proc/slabinfo") as f:
        slabs = [line.split() for line in f.readlines()[2:]]
    with open("/proc/meminfo") as f:
        tables = dict(line.split(":") for line in f)["VmallocUsed"]
    return sum(int(s[1]) * int(s[3]) for s in slabs) + \
        int(tables.split()[0]) * 1024


def allocated():
    """Returns the bytes of the kernel's own objects and tables, once RCU has freed what
    it holds back."""
    least, since = _allocated(), time.monotonic()
    while time.monotonic() < since + 6:     # kfree_rcu() collects for 5 seconds
        time.sleep(0.2)
        if (now := _allocated()) < least:
            least, since = now, time.monotonic()
    return least


def hit(p, sas, seq):
    """Sends a packet to each SA; returns seconds per packet."""
    # Scapy makes one packet. To copy and change it is a hundred times faster.
    nh, payload = p.datagram(b"x")
    esp = p.esp(payload, nh)
    head = p.ethernet(p.frame(esp))[:-len(esp)]
    padding = bytes(range(1, 1 + -(len(payload) + 2) % 4))
    plain = payload + padding + bytes([len(padding), nh])
    cipher = AESGCM(scapy_peer.KEY[:-4])
    frames = []
    for n in sas:
        esph, iv = struct.pack(">II", n << 8, seq), os.urandom(scapy_peer.IV)
        frames.append(head + esph + iv + cipher.encrypt(
            scapy_peer.KEY[-4:] + iv, plain, esph))
    was = p.a.stats()["InPackets"]
    begin = time.monotonic()
    for frame in frames:
        p.wire.send(frame)
    lib.wait_for("packets", lambda: p.a.stats()["InPackets"] == was + len(frames))
    seconds = time.monotonic() - begin
    p.drain()
    return seconds / len(frames)


def empty(p):
    """Deletes all SAs. The peer's socket may keep an SA in its cached route."""
    p.a.ip("xfrm state flush")
    kmod.wait_gone("all SAs are gone", lambda: max(
        p.a.listed(), default=0) < FIRST << 8, 300)


def many():
    few, many, memory = 0, 0, {}
    with scapy_peer.peer() as p:
        p.a.ip(f"xfrm policy update src {p.b.address(4)}/32 "
               f"dst {p.a.address(4)}/32 dir in tmpl proto esp mode transport")
        slots = 2
        while slots < 2 * SAS:
            slots *= 2
        p.a.sysctl("net.minesp.sad_slots", slots)
        # Stock SAs come first, so that the tables of xfrm have grown.
        for kind, words in (("stock", lib.XFLAG_STOCK), ("minimal", ""),
                            ("stock", lib.XFLAG_STOCK)):
            empty(p)
            before = allocated()
            add_all(p, FIRST, FIRST + FEW, words)
            if kind == "minimal":
                few = min(hit(p, range(FIRST, FIRST + FEW), seq)
                          for seq in range(1, 21))
            add_all(p, FIRST + FEW, FIRST + SAS, words)
            memory[kind] = (allocated() - before) / SAS
            if kind == "minimal":
                for n in range(0, SAS, BATCH):      # one packet to each
                    hit(p, range(FIRST + n, FIRST + min(n + BATCH, SAS)), 100)
                lib.equal(p.a.stats()["InLookup"], SAS, "InLookup")
                sample = random.sample(range(FIRST, FIRST + SAS), FEW)
                many = min(hit(p, sample, seq) for seq in range(101, 121))
                lib.equal(p.a.stats()["InLookup"], SAS, "InLookup, all direct")
        empty(p)
        lib.equal(p.a.errors(), {}, "errors")
    lib.print_msg(
        f"{SAS} SAs: {memory['minimal']:.0f} bytes each, "
        f"{memory['stock']:.0f} with esp4; a packet takes "
        f"{many / few:.2f} times what it "
        f"takes with {FEW} SAs")
    # Emulated time is not exact, above all beside other machines, so the limit is wide.
    # A list of 100000 SAs would exceed it.
    assert many < 10 * few, f"{many} and {few} seconds a packet"


if __name__ == "__main__":
    lib.run([(f"{SAS} SAs", many)], needs=["ip"],
            imports=["scapy", "cryptography"])
