#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A peer that shares no code with the kernel: Scapy builds ESP packets that
minesp has to accept, or to drop for a reason that a counter names, and opens
what minesp sends, field by field.

Host a runs minesp. Host b is Scapy, on a raw socket; its kernel has no SA."""
import contextlib
import os
import random
import select
import socket

import lib
from lib import kmod

try:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from scapy.layers.inet import IP, UDP, fragment
    from scapy.layers.inet6 import (
        IPv6,
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
        IPv6ExtHdrHopByHop,
        fragment6,
    )
    from scapy.layers.ipsec import ESP, SecurityAssociation, _ESPPlain
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
except ImportError:
    IP = None

KEY = bytes.fromhex(lib.KEYS[128][2:])
PORT = 5000
DUMMY = 59                  # Next Header of dummy packets, RFC 4303 2.6
HEADER, IV, ICV = 8, 8, 16  # bytes of an AES-GCM packet


class Peer:
    """Scapy on host b, and a socket on host a that gets what arrives."""
    block = 4   # bytes that padding aligns to

    def __init__(self, a, b, mode, inner, outer, window=32, words="",
                 suite=lib.SUITE):
        self.a, self.b, self.mode = a, b, mode
        self.inner, self.outer = inner, outer
        self.kind = "inner" if mode == "tunnel" else "outer"
        a.sas(mode, inner, outer, words, suite, window)
        self.tx = SecurityAssociation(ESP, spi=lib.SPI["a"],
                                      crypt_algo="AES-GCM", crypt_key=KEY)
        self.seq = 0
        self.sent = 0
        self.wire = b.wire()
        self.app = a.socket(lib.family_of(a.address(inner)), socket.SOCK_DGRAM)
        self.app.bind((a.address(inner, self.kind), PORT))
        self.app.connect((b.address(inner, self.kind), PORT))

    def close(self):
        self.wire.close()
        self.app.close()

    def ip(self, family, kind, **fields):
        layer = IP if family == 4 else IPv6
        return layer(src=self.b.address(family, kind),
                     dst=self.a.address(family, kind), **fields)

    def datagram(self, data):
        """What ESP carries: (Next Header, bytes)."""
        packet = self.ip(self.inner, self.kind) / UDP(sport=PORT, dport=PORT) / Raw(data)
        whole = bytes(packet)
        if self.mode == "tunnel":
            return (4 if self.inner == 4 else 41), whole
        return 17, whole[20 if self.inner == 4 else 40:]

    def esp(self, payload, nh, seq=None, spi=lib.SPI["a"], padding=None,
            padlen=None):
        """An ESP packet, as bytes. Without padding as RFC 4303 pads."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        if padding is None:
            padding = bytes(range(1, 1 + -(len(payload) + 2) % self.block))
        plain = _ESPPlain(spi=spi, seq=seq, iv=random.randbytes(IV),
                          data=payload, padding=padding, nh=nh,
                          padlen=len(padding) if padlen is None else padlen)
        return self.seal(plain)

    def seal(self, plain):
        return bytes(self.tx.crypt_algo.encrypt(self.tx, plain,
                                                self.tx.crypt_key, ICV))

    def frame(self, esp, headers=()):
        """The IP packet around ESP: headers stand between the two."""
        packet = self.ip(self.outer, "outer")
        if not headers:
            setattr(packet, "proto" if self.outer == 4 else "nh", 50)
        for header in headers:
            packet /= header
        return packet / Raw(esp)

    def send(self, packet):
        """As Ethernet does: short frames are padded."""
        self.wire.send(bytes(Ether(src=self.b.mac, dst=self.a.mac) /
                             packet).ljust(60, b"\0"))

    def deliver(self, esp, data, headers=()):
        """Sends ESP which has to arrive as data."""
        self.send(self.frame(esp, headers))
        lib.equal(self.app.recv(1 << 16), data, "data")

    def arrived(self):
        """What has arrived until now; the socket must not block."""
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self.app.recv(1 << 16)

    def drain(self):
        """Forgets what has arrived; until then it holds its SA."""
        self.app.setblocking(False)
        list(self.arrived())
        self.app.settimeout(lib.TIMEOUT)

    def still_works(self):
        data = b"still here"
        nh, payload = self.datagram(data)
        self.deliver(self.esp(payload, nh), data)

    def counts(self, before, **wanted):
        """Waits until exactly these counters have moved since before. How an
        SA was found only counts where it is asked for."""
        ways = {"InDirect", "InLookup"} - wanted.keys()

        def moved():
            now = self.counters()
            return {k: now[k] - before[k] for k in now.keys() - ways
                    if now[k] != before[k]}

        try:
            lib.wait_for("counters", lambda: moved() == wanted)
        except AssertionError:
            raise AssertionError(f"counters: {moved()}, not {wanted}") from None
        assert not select.select([self.app], [], [], 0)[0], "a dropped packet was delivered"

    def counters(self):
        return self.a.counters()

    def capture(self):
        """The next ESP packet that a sends."""
        while True:
            packet = Ether(self.wire.recv(1 << 16)).payload
            if packet.src == self.a.address(self.outer) and ESP in packet:
                return packet


@contextlib.contextmanager
def meet(kind, *args, mtu=1500, **more):
    """A peer of that class, between two new hosts."""
    with lib.hosts(mtu) as (a, b):
        with contextlib.closing(kind(a, b, *args, **more)) as p:
            yield p


def spoilt(esp):
    """Its ICV is wrong."""
    return esp[:-1] + bytes([esp[-1] ^ 1])


def peer(mode="transport", inner=4, outer=4, window=32, mtu=1500):
    return meet(Peer, mode, inner, outer, window, mtu=mtu)


def receive(mode, inner, outer):
    """Every alignment; padding of every length, and of any content."""
    with peer(mode, inner, outer) as p:
        for n in [*range(10), 1300]:
            data = random.randbytes(n)
            nh, payload = p.datagram(data)
            p.deliver(p.esp(payload, nh), data)
        nh, payload = p.datagram(b"padded")
        for padding in (b"", b"\0" * 4, random.randbytes(7),
                        bytes(range(1, 256))):
            p.deliver(p.esp(payload, nh, padding=padding), b"padded")
        lib.equal(p.a.errors(), {}, "errors")
        lib.equal(p.a.stats()["InPackets"], 15, "InPackets")


def send(mode, inner, outer):
    """Every field of what minesp sends."""
    with peer(mode, inner, outer) as p:
        ivs = set()
        for seq, n in enumerate([*range(10), 1300], start=1):
            data = random.randbytes(n)
            p.app.send(data)
            packet = p.capture()
            esp = packet[ESP]
            lib.equal(esp.spi, lib.SPI["b"], "SPI")
            lib.equal(esp.seq, seq, "SN")
            iv = esp.data[:IV]
            ivs.add(iv)
            # Scapy's own decryption loses the padding. Raises when the ICV is
            # wrong; RFC 4106: the nonce is salt and IV, SPI and SN are covered.
            plain = AESGCM(KEY[:-4]).decrypt(KEY[-4:] + iv, esp.data[IV:],
                                             bytes(esp)[:HEADER])
            padlen, nh = plain[-2:]
            end = len(plain) - 2 - padlen
            lib.equal(len(plain) % 4, 0, "alignment")
            assert padlen < 4, f"padding of {padlen} bytes"
            lib.equal(plain[end:-2], bytes(range(1, 1 + padlen)), "padding")
            lib.equal(len(esp), HEADER + IV + len(plain) + ICV, "length")
            plain = plain[:end]
            if mode == "tunnel":
                lib.equal(nh, 4 if inner == 4 else 41, "Next Header")
                plain = (IP if inner == 4 else IPv6)(plain)
                lib.equal(plain.src, p.a.address(inner, "inner"), "source")
                udp = plain[UDP]
            else:
                lib.equal(nh, 17, "Next Header")
                udp = UDP(plain)
            lib.equal(bytes(udp.payload), data, "data")
            if outer == 4:
                good = packet.copy()
                del good.chksum
                lib.equal(packet.chksum, IP(bytes(good)).chksum, "IP checksum")
                lib.equal(packet.len, len(packet), "IP length")
            else:
                lib.equal(packet.plen, len(packet) - 40, "IP length")
        lib.equal(len(ivs), seq, "different IVs")
        lib.equal(p.a.stats()["OutPackets"], seq, "OutPackets")


def worn_out(words, wanted):
    """An SA that may send packets with these SNs, and no more; not in the clear,
    either."""
    with meet(Peer, "transport", 4, 4, words=words) as p:
        found = []
        for _ in wanted:
            p.app.send(b"one more")
            found.append(p.capture()[ESP].seq)
        lib.equal(found, wanted, "SNs")
        if "time" in words:
            lib.wait_for("the end of the SA", lambda: f"{lib.SPI['b']:08x}" not in
                         lib.sh(f"ip -n {p.a.ns} xfrm state"))
        for _ in range(3):
            with contextlib.suppress(OSError):
                p.app.send(b"one too many")
        p.wire.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = p.wire.recv(1 << 16)
                assert (ESP not in Ether(frame) and
                        b"one too many" not in frame), f"sent, too: {frame}"
        lib.equal(p.a.stats()["OutPackets"], len(wanted), "OutPackets")


def dummy(mode, inner, outer):
    with peer(mode, inner, outer) as p:
        before = p.counters()
        for n in (0, 1, 2, 3, 64, 1400):
            p.send(p.frame(p.esp(random.randbytes(n), DUMMY)))
        # What a dummy carries may look like anything.
        _, payload = p.datagram(b"not for you")
        p.send(p.frame(p.esp(payload, DUMMY)))
        p.counts(before, InDummies=7)
        # Or replaying one would wear out the SA.
        lib.equal(p.a.carried(lib.SPI["a"]), 0, "ip -s xfrm state")
        p.still_works()


def truncated(outer):
    """Cut at every byte."""
    with peer("transport", outer, outer) as p:
        nh, payload = p.datagram(b"x" * 20)
        whole = p.esp(payload, nh)
        shortest = HEADER + IV + 2 + ICV
        before = p.counters()
        for n in range(len(whole)):
            p.send(p.frame(whole[:n]))
        cut = len(whole) - shortest
        p.counts(before, XfrmInHdrError=HEADER, InTruncated=shortest - HEADER,
                 InIcvWrong=cut, XfrmInStateProtoError=len(whole) - HEADER)
        # None of this has used up the SN.
        p.deliver(whole, b"x" * 20)


def changed():
    """One bit of every byte."""
    with peer() as p:
        nh, payload = p.datagram(b"x" * 20)
        whole = p.esp(payload, nh)
        before = p.counters()
        for i in range(len(whole)):
            bad = bytearray(whole)
            bad[i] ^= 1 << i % 8
            p.send(p.frame(bytes(bad)))
        p.counts(before, XfrmInNoStates=4, InIcvWrong=len(whole) - 4,
                 XfrmInStateProtoError=len(whole) - 4)
        p.deliver(whole, b"x" * 20)
        said = lib.sh(f"ip -n {p.a.ns} -s xfrm state list spi {lib.SPI['a']:#x}")
        assert f"failed {len(whole) - 4}" in said, said


def grown():
    with peer() as p:
        nh, payload = p.datagram(b"x" * 20)
        whole = p.esp(payload, nh)
        before = p.counters()
        for n in range(1, 33):
            p.send(p.frame(whole + bytes(n)))
        p.counts(before, InIcvWrong=32, XfrmInStateProtoError=32)
        p.deliver(whole, b"x" * 20)


def pad_length():
    """A right ICV around a Pad Length that reaches out of the packet."""
    with peer() as p:
        before = p.counters()
        bad = 0
        for n in (0, 1, 2, 30, 254):
            for padlen in {n + 1, min(n + 3, 255), 255}:
                # DUMMY would be no excuse.
                for nh in (17, DUMMY):
                    p.send(p.frame(p.esp(bytes(n), nh, padding=b"",
                                         padlen=padlen)))
                    bad += 1
        p.counts(before, InPadLength=bad, XfrmInStateProtoError=bad)
        # Padding and nothing else: an empty payload, so the shortest of what
        # is right. UDP finds it too short; nothing else does.
        p.send(p.frame(p.esp(b"", 17, padding=bytes(254))))
        p.counts(before, InPadLength=bad, XfrmInStateProtoError=bad,
                 InPackets=1)
        p.still_works()


def no_next_header(mode, inner, outer):
    """Next Header 0: hop-by-hop options do not follow ESP. Without netfilter, where
    xfrm returns the Next Header to IPv4, 22 reads as -EINVAL there."""
    with peer(mode, inner, outer) as p:
        _, payload = p.datagram(b"x")
        bad = (0,) if os.path.exists("/proc/sys/net/netfilter") else (0, 22)
        before = p.counters()
        for nh in bad:
            p.send(p.frame(p.esp(payload, nh)))
        p.counts(before, InNextHeader=len(bad), XfrmInStateProtoError=len(bad))
        p.still_works()
    kmod.released()


def spis():
    """SPIs 0-255 are reserved; others are unknown."""
    with peer() as p:
        nh, payload = p.datagram(b"x")
        before = p.counters()
        wrong = [*range(256), lib.SPI["a"] + 1, lib.SPI["b"] + 1, 0xffffffff]
        for spi in wrong:
            p.send(p.frame(p.esp(payload, nh, spi=spi)))
        p.counts(before, XfrmInNoStates=len(wrong))
        p.still_works()


def replay(window):
    with peer(window=window) as p:
        nh, payload = p.datagram(b"x")

        def packet(seq):
            return p.esp(payload, nh, seq=seq)

        first = packet(1000)
        p.deliver(first, b"x")
        before = p.counters()
        for esp in (first, packet(1000), packet(1000 - window), packet(1),
                    packet(0)):
            p.send(p.frame(esp))
        p.counts(before, XfrmInStateSeqError=5)
        if window > 1:
            oldest = packet(1000 - window + 1)
            p.deliver(oldest, b"x")
            before = p.counters()
            p.send(p.frame(oldest))
            p.counts(before, XfrmInStateSeqError=1)
        # What failed its ICV has not moved the window.
        before = p.counters()
        p.send(p.frame(spoilt(packet(2000000))))
        p.counts(before, InIcvWrong=1, XfrmInStateProtoError=1)
        p.deliver(packet(1001), b"x")
        p.deliver(packet(0xffffffff), b"x")


def replay_off():
    with peer(window=0) as p:
        nh, payload = p.datagram(b"x")
        esp = p.esp(payload, nh)
        for _ in range(3):
            p.deliver(esp, b"x")


def fragments(outer):
    """ESP that IP has to put together: the skb then has a frag list."""
    with peer("transport", outer, outer) as p:
        for n in (2000, 8000):
            data = random.randbytes(n)
            nh, payload = p.datagram(data)
            esp = p.esp(payload, nh)
            if outer == 4:
                parts = fragment(p.frame(esp), 1000)
            else:
                parts = fragment6(p.frame(esp, [IPv6ExtHdrFragment(id=n, nh=50)]),
                                  1000)
            random.shuffle(parts)
            for part in parts:
                p.send(part)
            lib.equal(p.app.recv(1 << 16), data, "data")
        lib.equal(p.a.errors(), {}, "errors")


def headers():
    """Options and extension headers in front of ESP."""
    with peer("transport", 4, 4) as p:
        nh, payload = p.datagram(b"options")
        packet = p.frame(p.esp(payload, nh))
        packet.options = b"\x01" * 8
        p.send(packet)
        lib.equal(p.app.recv(100), b"options", "data")
    with peer("transport", 6, 6) as p:
        nh, payload = p.datagram(b"headers")
        p.deliver(p.esp(payload, nh), b"headers",
                  [IPv6ExtHdrHopByHop(nh=60), IPv6ExtHdrDestOpt(nh=50)])
        lib.equal(p.a.errors(), {}, "errors")


def inner_is_not_ip():
    """What a tunnel carries has to be IP; whoever has the key may err."""
    with peer("tunnel", 4, 4) as p:
        before = p.counters()
        for payload, nh in ((b"", 4), (b"x", 4), (b"", 41), (b"x" * 39, 41),
                            (b"x" * 100, 17), (b"x" * 100, 255)):
            p.send(p.frame(p.esp(payload, nh)))
        p.counts(before, InPackets=6, XfrmInStateModeError=6)
        p.still_works()


def cases():
    for mode, inner, outer in lib.MODES:
        name = f"{mode}, IPv{inner} in IPv{outer}"
        args = mode, inner, outer
        yield f"receive, {name}", lambda args=args: receive(*args)
        yield f"send, {name}", lambda args=args: send(*args)
        yield f"dummy packets, {name}", lambda args=args: dummy(*args)
        yield f"Next Header 0, {name}", lambda args=args: no_next_header(*args)
    # RFC 4303 3.3.3: an SN that would be 0 again is not sent.
    last = 0xffffffff
    yield "no SNs left", lambda: worn_out(f"replay-oseq {last - 3}",
                                          [last - 2, last - 1, last])
    for words in ("", " flag esn"):
        for limit, sns in (("packet-hard 3", [1, 2, 3]),
                           ("byte-hard 40", [1, 2, 3]),     # of 16 bytes each
                           ("time-use-hard 1", [1])):
            yield (f"limit {limit}{words}", lambda w=words, n=limit, s=sns:
                   worn_out(f"limit {n}{w}", s))
    for f in (4, 6):
        yield f"truncated, IPv{f}", lambda f=f: truncated(f)
        yield f"fragments, IPv{f}", lambda f=f: fragments(f)
    yield "changed bits", changed
    yield "appended bytes", grown
    yield "absurd Pad Length", pad_length
    yield "reserved and unknown SPIs", spis
    for window in (1, 32, 128):
        yield f"replay, window {window}", lambda n=window: replay(n)
    yield "replay, window 0", replay_off
    yield "options and extension headers", headers
    yield "a tunnel without IP in it", inner_is_not_ip


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"],
            imports=["scapy", "cryptography"])
