#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A peer that shares no code with the kernel: Scapy. It builds ESP packets, which
minesp has to accept, or drop for a reason that a counter names. It opens the
packets that minesp sends, field by field. Cases alternate between net.minesp.offload 0
and 1, with GRO."""
import contextlib
import os
import random

import lib
from lib import inbound, kmod, offloading, scapy_peer

try:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
    from scapy.layers.ipsec import ESP
    from scapy.layers.l2 import Ether
except ImportError:
    IP = None

KEY, HEADER, IV, ICV = (scapy_peer.KEY, scapy_peer.HEADER, scapy_peer.IV, scapy_peer.ICV)


def receive(mode, inner, outer):
    """Payloads of every alignment, and padding of various lengths and contents"""
    with scapy_peer.peer(mode, inner, outer) as p:
        before = p.a.stats()["InPackets"]
        for n in [*range(10), 1300]:
            data = random.randbytes(n)
            nh, payload = p.datagram(data)
            p.deliver(p.esp(payload, nh), data)
        nh, payload = p.datagram(b"padded")
        for padding in (b"", b"\0" * 4, random.randbytes(7),
                        bytes(range(1, 256))):
            p.deliver(p.esp(payload, nh, padding=padding), b"padded")
        lib.equal(p.a.errors(), {}, "errors")
        lib.equal(p.a.stats()["InPackets"] - before, 15, "InPackets")


def send(mode, inner, outer):
    """Checks every field of the packets that minesp sends."""
    with scapy_peer.peer(mode, inner, outer) as p:
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
            # Scapy's own decryption loses the padding. This raises if the ICV is
            # invalid. RFC 4106: the nonce is salt and IV, the ICV covers SPI and SN.
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
    """An SA sends packets with these SNs and then nothing, not even in the clear."""
    with scapy_peer.meet(scapy_peer.Peer, "transport", 4, 4, words=words) as p:
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


def grown():
    with scapy_peer.peer() as p:
        nh, payload = p.datagram(b"x" * 20)
        whole = p.esp(payload, nh)
        before = p.counters()
        for n in range(1, 33):
            p.send(p.frame(whole + bytes(n)))
        p.counts(before, InIcvWrong=32, XfrmInStateProtoError=32)
        p.deliver(whole, b"x" * 20)


def no_next_header(mode, inner, outer):
    """Next Header 0 is dropped, because hop-by-hop options do not follow ESP. Without
    netfilter, xfrm returns the Next Header to IPv4, and 22 reads as -EINVAL there."""
    with scapy_peer.peer(mode, inner, outer) as p:
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
    with scapy_peer.peer() as p:
        nh, payload = p.datagram(b"x")
        before = p.counters()
        wrong = [*range(256), lib.SPI["a"] + 1, lib.SPI["b"] + 1, 0xffffffff]
        for spi in wrong:
            p.send(p.frame(p.esp(payload, nh, spi=spi)))
        p.counts(before, XfrmInNoStates=len(wrong))
        p.still_works()


def replay_off():
    with scapy_peer.peer(window=0) as p:
        nh, payload = p.datagram(b"x")
        esp = p.esp(payload, nh)
        for _ in range(3):
            p.deliver(esp, b"x")


def headers():
    """Options and extension headers in front of ESP."""
    with scapy_peer.peer("transport", 4, 4) as p:
        nh, payload = p.datagram(b"options")
        packet = p.frame(p.esp(payload, nh))
        packet.options = b"\x01" * 8
        p.send(packet)
        lib.equal(p.app.recv(100), b"options", "data")
    with scapy_peer.peer("transport", 6, 6) as p:
        nh, payload = p.datagram(b"headers")
        p.deliver(p.esp(payload, nh), b"headers",
                  [IPv6ExtHdrHopByHop(nh=60), IPv6ExtHdrDestOpt(nh=50)])
        lib.equal(p.a.errors(), {}, "errors")


def inner_is_not_ip():
    """Packets in a tunnel that are not IP are dropped. A peer with the key may send them."""
    with scapy_peer.peer("tunnel", 4, 4) as p:
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
        yield f"dummy packets, {name}", lambda args=args: inbound.dummy(*args)
        yield f"Next Header 0, {name}", lambda args=args: no_next_header(*args)
    # RFC 4303 3.3.3: a packet whose SN would be 0 again is not sent.
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
        yield f"truncated, IPv{f}", lambda f=f: inbound.truncated(f)
        yield f"fragments, IPv{f}", lambda f=f: inbound.fragments(f)
    yield "changed bits", inbound.changed
    yield "appended bytes", grown
    yield "absurd Pad Length", inbound.pad_length
    yield "reserved and unknown SPIs", spis
    for window in (1, 32, 128):
        yield f"replay, window {window}", lambda n=window: inbound.replay(n)
    yield "replay, window 0", replay_off
    yield "options and extension headers", headers
    yield "a tunnel without IP in it", inner_is_not_ip


if __name__ == "__main__":
    lib.run(offloading.alternately(cases()), needs=["ethtool", "ip"],
            imports=["scapy", "cryptography"])
