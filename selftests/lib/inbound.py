# SPDX-License-Identifier: GPL-2.0
"""Inbound processing: packets of the Scapy peer that minesp must accept, or must drop
and count. Several tests run these cases, each under other conditions."""
import random

from .command import sh
from .sa import SPI
from .scapy_peer import DUMMY, HEADER, ICV, IV, peer, spoilt
from .verdict import equal

try:
    from scapy.layers.inet import fragment
    from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6
except ImportError:
    fragment = None     # run() skips the test


def dummy(mode, inner, outer):
    """Dummy packets, short and long."""
    with peer(mode, inner, outer) as p:
        before = p.counters()
        carried = p.a.carried(SPI["a"])
        for n in (0, 1, 2, 3, 64, 1400):
            p.send(p.frame(p.esp(random.randbytes(n), DUMMY)))
        # The payload of a dummy packet may look like a datagram.
        _, payload = p.datagram(b"not for you")
        p.send(p.frame(p.esp(payload, DUMMY)))
        p.counts(before, InDummies=7)
        # The SA must not count dummies: replayed dummies would use up its lifetime.
        equal(p.a.carried(SPI["a"]), carried, "ip -s xfrm state")
        p.still_works()


def truncated(outer):
    """Packets truncated at every byte."""
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
        # The truncated packets have not used up the SN.
        p.deliver(whole, b"x" * 20)


def changed():
    """Packets with one bit changed, once for every byte."""
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
        said = sh(f"ip -n {p.a.ns} -s xfrm state list spi {SPI['a']:#x}")
        assert f"failed {len(whole) - 4}" in said, said


def pad_length():
    """Packets with a valid ICV, and a Pad Length that exceeds the packet."""
    with peer() as p:
        before = p.counters()
        bad = 0
        for n in (0, 1, 2, 30, 254):
            for padlen in {n + 1, min(n + 3, 255), 255}:
                # The check applies to dummies, too.
                for nh in (17, DUMMY):
                    p.send(p.frame(p.esp(bytes(n), nh, padding=b"",
                                         padlen=padlen)))
                    bad += 1
        p.counts(before, InPadLength=bad, XfrmInStateProtoError=bad)
        # A packet with only padding is valid ESP. UDP then drops the empty payload.
        p.send(p.frame(p.esp(b"", 17, padding=bytes(254))))
        p.counts(before, InPadLength=bad, XfrmInStateProtoError=bad,
                 InPackets=1)
        p.still_works()


def replay(window):
    """Replayed packets, and SNs at the edges of the replay window."""
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
        # A packet with an invalid ICV does not move the window.
        before = p.counters()
        p.send(p.frame(spoilt(packet(2000000))))
        p.counts(before, InIcvWrong=1, XfrmInStateProtoError=1)
        p.deliver(packet(1001), b"x")
        p.deliver(packet(0xffffffff), b"x")


def fragments(outer):
    """ESP in IP fragments: the reassembled skb has a frag list."""
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
            equal(p.app.recv(1 << 16), data, "data")
        equal(p.a.errors(), {}, "errors")
