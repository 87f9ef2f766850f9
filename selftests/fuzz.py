#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Mutated packets, and packets with a valid ICV and random content, for minimal SAs of
every suite and mode: plain, in UDP, and through GRO. Only data that was sent is delivered,
and minesp still works. klog.py checks the kernel's log.

MINESP_FUZZ: the number of packets for each suite and mode (300). MINESP_SEED: the seed,
which is in the name of each case."""
import contextlib
import os
import random
import socket
import struct

import lib
from lib import kmod, nat, scapy_peer, share, suites

COUNT = int(os.environ.get("MINESP_FUZZ", 300))
XFRM_MAX_DEPTH = 6      # the number of SAs that a packet may pass
LENGTHS = (0, 1, 8, 15, 16, 40, 200)
WAYS = ("plain", "UDP", "GRO")


def mutated(rand, esp, other):
    """Returns esp, in most cases changed. One draw of bits is faster than several."""
    n = len(esp)
    bits = rand.getrandbits(64)
    kind, at, end, some = (bits & 15, (bits >> 4 & 0xffff) % n,
                           (bits >> 20 & 0xffff) % n, bits >> 36)
    if kind < 6:
        new = bytearray(esp)
        new[at] ^= 1 << (some & 7)
        for _ in range(kind * 4):
            bits = rand.getrandbits(19)
            new[(bits >> 3) % n] ^= 1 << (bits & 7)
        return bytes(new)
    if kind < 8:
        # Changes a byte of SPI, SN or IV, or of where the trailer may be, by a little.
        at = (3, 4, 7, 11, 15, n - 1, n - 12, n - 16, n - 18)[at % 9]
        value = esp[at] + (1, 2, 255, 254)[some & 3] & 255
        return esp[:at] + bytes([value]) + esp[at + 1:]
    if kind < 10:
        return esp[:at]
    if kind < 12:
        return esp[:at] + rand.randbytes(1 + (some & 63)) + esp[at:]
    if at > end:
        at, end = end, at
    if kind == 12:
        fill = (b"\0", b"\xff", b"\x3b", bytes([some & 255]))[some >> 8 & 3]
        return esp[:at] + fill * (end - at) + esp[end:]
    if kind == 13:
        return esp[:at] + other[at:]
    return esp[:at] + esp[end:]


class Wire:
    """Makes frames for host a, faster than Scapy"""

    def __init__(self, p):
        self.v4, self.addresses, self.payload = p.outer == 4, p.addresses, p.payload
        self.protocol = socket.IPPROTO_UDP if p.encap else socket.IPPROTO_ESP
        mac = [bytes.fromhex(h.mac.replace(":", "")) for h in (p.a, p.b)]
        self.ether = mac[0] + mac[1] + (b"\x08\0" if self.v4 else b"\x86\xdd")

    def ip(self, payload, options=b"", fragment=0, ident=0):
        header = struct.pack(">BBHHHBB", 0x45 + len(options) // 4, 0,
                             20 + len(options) + len(payload), ident, fragment,
                             64, self.protocol)
        rest = self.addresses + options
        summed = scapy_peer.checksum(header + b"\0\0" + rest)
        return self.ether + header + struct.pack(">H", summed) + rest + payload

    def ip6(self, payload, following=None):
        return (self.ether + struct.pack(">IHBB", 6 << 28, len(payload),
                                         following or self.protocol, 64) +
                self.addresses + payload)

    def frame(self, esp):
        esp = self.payload(esp)
        return self.ip(esp) if self.v4 else self.ip6(esp)

    def frames(self, rand, esp):
        """Returns frames of esp, some with options or extension headers in front, some
        in fragments."""
        kind = rand.randrange(32)
        if kind > 2 or not esp:
            return [self.frame(esp)]
        esp = self.payload(esp)
        if kind == 0:
            n = 1 + rand.randrange(10)
            junk = rand.choice((b"\1" * 4 * n, rand.randbytes(4 * n)))
            if self.v4:
                return [self.ip(esp, options=junk)]
            junk = rand.choice((b"\1\0" * 3 + rand.randbytes(8 * (n - 1)),
                                rand.randbytes(8 * n - 2)))
            return [self.ip6(bytes([self.protocol, (len(junk) + 2) // 8 - 1]) + junk + esp,
                             rand.choice((0, 43, 60)))]
        cut = rand.randrange(0, len(esp), 8)
        overlap = rand.choice((0, 0, 8, -8))
        ident = rand.getrandbits(16)
        out = []
        for start, data, more in ((0, esp[:cut], 1),
                                  (max(0, cut + overlap), esp[cut:], 0)):
            if self.v4:
                out.append(self.ip(data, b"", more << 13 | start // 8, ident))
            else:
                out.append(self.ip6(struct.pack(">BBHI", self.protocol, 0, start | more,
                                                ident) + data, 44))
        rand.shuffle(out)
        return out


class Peer(scapy_peer.SuitePeer):
    def __init__(self, a, b, *args, encap):
        super().__init__(a, b, *args, window=0, encap=encap)
        self.fast = Wire(self)
        self.app.setblocking(False)


def taken(p):
    """Returns how many packets had a valid ICV."""
    stats = p.a.stats()
    return sum(stats[k] for k in ("InPackets", "InDummies", "InPadLength",
                                  "InNextHeader"))


def dropped(p, rand, count):
    """Mutated ESP must not arrive. Unchanged ESP may."""
    sent, originals = set(), []
    for n in LENGTHS:
        data = rand.randbytes(n + 8)
        nh, payload = p.datagram(data)
        originals.append(p.esp(payload, nh))
        sent.add(data)
    before = taken(p)
    whole = 0
    for i in range(count):
        esp = rand.choice(originals)
        if rand.randrange(16):
            while esp in originals:
                esp = mutated(rand, esp, rand.choice(originals))
        else:
            whole += 1
        for frame in p.fast.frames(rand, esp):
            with contextlib.suppress(OSError):      # too long for the wire
                p.wire.send(frame)
        if not i % 64:
            for data in p.arrived():
                assert data in sent, f"packet {i}: {data!r} arrived"
    for data in p.arrived():
        assert data in sent, f"{data!r} arrived"
    got = taken(p) - before
    assert got <= whole, f"{got} ICVs were right, of {whole}"
    assert got > whole // 4, f"only {got} of {whole} were taken"


def anything(p, rand, count):
    """A peer with the key may send anything, also ESP in ESP."""
    # In GRO, the first packet with another IPsec packet inside is lost.
    whole = p.a.sysctl("net.minesp.offload") == "0"
    before = taken(p)
    nested = short = 0
    # UDP drops ESP that is shorter than an IP header.
    least = p.encap * (20 if p.fast.v4 else 40)
    for i in range(count):
        n = rand.choice((0, 1, 2, 20, 40, 60, 200))
        n += -(n + 2) % p.block
        padlen = rand.choice((0, 1, n, n - 1 & 255, n + 1 & 255, rand.getrandbits(8)))
        inner = rand.randbytes(n)
        if n >= 20 and rand.randrange(2):
            inner = bytes([rand.choice((0x45, 0x46, 0x60, 0x40, 0x4f))]) + inner[1:]
        nh = rand.choice((0, 1, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 94, 108,
                          255, rand.getrandbits(8)))
        if not rand.randrange(16):
            depth = rand.randrange(1, 9)    # up to more than xfrm accepts
            for _ in range(depth):
                inner, nh = p.esp(inner, nh), 50
            padlen = -(len(inner) + 2) % p.block
            inner += bytes(padlen)
            # An SA with UDP encapsulation does not accept the inner ESP without UDP.
            if p.mode == "transport" and not p.encap:
                nested += whole * min(depth, XFRM_MAX_DEPTH - 1)
        whole |= nh in (50, 51, 108) and padlen <= len(inner)
        esp = p.esp(inner, nh, seq=i + 1, padding=b"", padlen=padlen)
        short += len(esp) < least
        p.wire.send(p.fast.frame(esp))
        if not i % 64:
            list(p.arrived())
    lib.equal(taken(p) - before, count + nested - short, "packets whose ICV was right")
    list(p.arrived())


def fuzz(suite, name, modes):
    with lib.gro(), lib.hosts() as (a, b):
        for mode, way in modes:
            seed = f"{lib.SEED} {name} {mode}"
            rand = random.Random(seed)
            a.settings(offload=int(way == "GRO"))
            with nat.ike(a, mode[2]), contextlib.closing(
                    Peer(a, b, *mode, suite, encap=way == "UDP")) as p:
                try:
                    dropped(p, rand, COUNT)
                    anything(p, rand, COUNT // 8)
                    p.app.settimeout(lib.TIMEOUT)
                    data = rand.randbytes(20)
                    nh, payload = p.datagram(data)
                    p.wire.send(p.fast.frame(p.esp(payload, nh)))
                    lib.equal(p.app.recv(1 << 16), data, "data")
                except Exception as e:
                    raise AssertionError(
                        f"MINESP_SEED={lib.SEED} {mode} {way}: {e}") from e
    kmod.released()


def cases():
    known = [case for case in suites.explicit_iv() if "192" not in case[0]]
    known += [(f"{name}, implicit IV", suite) for name, suite in suites.implicit_iv()]
    for i, (name, suite) in enumerate(known):
        # Each mode with every second suite, each time by another way
        modes = [(mode, WAYS[(i // 2 + j) % len(WAYS)])
                 for j, mode in enumerate(lib.MODES[i % 2::2])]
        if share.mine(i):
            yield (f"{name}, seed {lib.SEED}",
                   lambda s=suite, n=name, m=modes: fuzz(s, n, m))


if __name__ == "__main__":
    lib.run(cases(), needs=["ethtool", "ip"],
            imports=["scapy", "cryptography"])
