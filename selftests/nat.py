#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""ESP in UDP: with stock and minimal peers; through a NAT that changes its mapping; and,
field by field, with a peer that shares no code with the kernel."""
import contextlib
import itertools
import os
import random
import socket
import struct
import time

import lib
from lib import crypto, frame, nat, pmtu, scapy_peer, share, suites, traffic, xflag

try:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from scapy.layers.inet import IP, UDP, fragment
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
except ImportError:
    IP = None

PORT = 6000
SIZES = [*range(1, 17), *range(1380, 1480), 4000, 65000]
# With every suite, the ESP of this payload is at least as long as an IPv6 header. Linux
# discards shorter ESP in UDP over IPv6, and does not count it. Only minesp pads such packets.
SHORTEST = 11


def talk(peer, mode, inner, outer, words="", **more):
    traffic.talk(peer, mode, inner, outer, SIZES, f"{nat.WORDS} {words}",
                 before=lambda a, b: sockets(a, b, outer), **more)


@contextlib.contextmanager
def sockets(a, b, family):
    with nat.ike(a, family), nat.ike(b, family):
        yield


@lib.fixture
def hosts(peer):
    """Two hosts for all suites"""
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


KINDS = [("minimal", "minimal"), ("minimal", "stock"), ("stock", "minimal")]


@lib.fixture
def behind():
    """A NAT for all cases that need one"""
    with nat.behind() as n:
        for h in n.a, n.b:
            h.settings(sn_tick_us=1000, sn_ahead=1000, sn_epoch=int(time.time()) - 1000)
        yield n


def goes_to(n, end):
    """Returns the address and port to which host b sends a datagram of that end."""
    with n.b.wire() as wire:
        end.send(b"where to?")
        while True:
            data = wire.recv(1 << 16)
            if udp := frame.payload(data, socket.IPPROTO_UDP):
                src, dst = frame.addresses(data)
                if src == n.b.address(n.family):
                    return dst, struct.unpack_from(">H", udp, 2)[0]


def through(suite, kinds, mode, inner, outer, words="", bits=0, sn_mode=0):
    """The NAT changes its mapping under traffic. kinds: those of the SAs of a, and of b.
    words: added to each SA. bits: further extra-flags of minimal SAs"""
    n = behind()
    router = nat.ROUTER[outer]
    hosts = n.a, n.b
    n.map(router[0], 5001)
    for h in hosts:
        h.settings(sn_mode=sn_mode)
    flags = {"stock": xflag.STOCK, "minimal": xflag.MINIMAL | bits}
    n.sas(mode, inner, [f"{words} {xflag.words(flags[kind])}" for kind in kinds], suite.words)
    before = {h: h.stats() for h in hosts}
    shortest = SHORTEST if "stock" in kinds else 0
    with contextlib.closing(nat.Mappings(n.b)) as mappings, contextlib.ExitStack() as stack:
        at_a, at_b = map(stack.enter_context, n.pair(PORT))

        def one_way(source, sink):
            data = random.randbytes(random.randrange(shortest, 3000))
            source.send(data)
            lib.equal(sink.recv(1 << 16), data, "data")

        def both_ways():
            for _ in range(5):
                one_way(at_a, at_b)
                one_way(at_b, at_a)
            mappings.none()

        both_ways()
        # First another port. In tunnel mode, then another address, too.
        changes = [((router[0], 5002), n.port_heard)]
        if mode == "tunnel":
            changes.append(((router[1], 5003), n.heard))
        for new, daemon in changes:
            old = n.public
            n.map(*new)
            lib.equal(goes_to(n, at_b), old, "where b sends to at first")
            mappings.none()
            one_way(at_a, at_b)
            lib.equal(mappings.next(), (lib.SPI["b"], *old, *new), "mapping")
            lib.equal(goes_to(n, at_b), old, "where b sends to when it is told")
            mappings.drain()
            daemon()
            both_ways()
        if mode == "tunnel":
            traffic.tcp(n.a, n.b, inner, "inner", 1 << 17)
            traffic.tcp(n.b, n.a, inner, "inner", 1 << 17)
    traffic.carried({h: kind == "minimal" for h, kind in zip(hosts, kinds)}, 10, before)
    clock = sn_mode or bits & xflag.CLOCK
    for h, kind in zip(hosts, kinds):
        lib.equal(h.errors(), {}, "errors")
        if kind == "minimal":
            lib.equal(h.listed()[lib.SPI["b"]]["SN"], "clock" if clock else "counter", "SNs")


class Peer(scapy_peer.Peer):
    def capture(self):
        """Returns the next UDP packet that a sends."""
        while True:
            packet = Ether(self.wire.recv(1 << 17)).payload
            if packet.src == self.a.address(self.outer) and UDP in packet:
                return packet


@contextlib.contextmanager
def scapy(mode, inner, outer, mtu=1500, **more):
    with lib.hosts(mtu) as (a, b), nat.ike(a, outer) as ike, contextlib.closing(
            Peer(a, b, mode, inner, outer, encap=True, **more)) as p:
        p.ike = ike
        yield p


@lib.fixture
def direct():
    """Yields the counter for packets whose SA is known from an earlier packet: InDirect, or
    InLookup on early 6.1 kernels, which do not take an SA from minesp for ESP in UDP."""
    with scapy("transport", 4, 4) as p:
        for _ in range(3):      # the second may make the SA known
            before = p.a.stats()
            p.still_works()
        way = "InDirect" if p.a.stats()["InDirect"] > before["InDirect"] else "InLookup"
    assert way == "InDirect" or os.uname().release.startswith("6.1."), way
    yield way


def send(mode, inner, outer):
    """Checks each field of the UDP header, and opens the ESP after it."""
    # b's kernel answers by ICMP unless it has a socket.
    with scapy(mode, inner, outer, mtu=65535) as p, nat.ike(p.b, outer):
        for seq, n in enumerate((*range(9), 1300, 65000), start=1):
            data = random.randbytes(n)
            p.app.send(data)
            packet = p.capture()
            udp = packet[UDP]
            lib.equal((udp.sport, udp.dport), (nat.PORT, nat.PORT), "ports")
            whole = bytes(udp)
            lib.equal(udp.len, len(whole), "UDP length")
            lib.equal(packet.len if outer == 4 else packet.plen + 40, len(bytes(packet)),
                      "IP length")
            if outer == 4:
                lib.equal((packet.proto, udp.chksum), (17, 0), "protocol, checksum")
                good = packet.copy()
                del good.chksum
                lib.equal(packet.chksum, IP(bytes(good)).chksum, "IP checksum")
            else:
                right = packet.copy()
                del right[UDP].chksum
                lib.equal((packet.nh, udp.chksum), (17, IPv6(bytes(right))[UDP].chksum),
                          "Next Header, checksum")
            esp = scapy_peer.ESP(whole[8:])
            lib.equal((esp.spi, esp.seq), (lib.SPI["b"], seq), "SPI, SN")
            iv, text = esp.data[:scapy_peer.IV], esp.data[scapy_peer.IV:]
            plain = AESGCM(scapy_peer.KEY[:-4]).decrypt(
                scapy_peer.KEY[-4:] + iv, text, bytes(esp)[:scapy_peer.HEADER])
            assert data in plain, "not the data"
        lib.equal(p.a.errors(), {}, "errors")


def receive(mode, inner, outer):
    """Packets with a valid checksum or, with IPv4, without one; the first by lookup, then
    direct; fragments; and trailing bytes, which UDP cuts off."""
    with scapy(mode, inner, outer) as p:
        def deliver(packets, data):
            for packet in packets:
                p.send(packet)
            lib.equal(p.app.recv(1 << 16), data, "data")

        def esp(data):
            nh, payload = p.datagram(data)
            return p.esp(payload, nh)

        before = p.counters()
        deliver([p.frame(esp(b"first"))], b"first")
        p.counts(before, InPackets=1, InLookup=1)
        before = p.counters()
        for n in range(1, 9):
            data = random.randbytes(n)
            deliver([p.frame(esp(data))], data)
        p.counts(before, InPackets=8, **{direct(): 8})
        packet = (IP if outer == 4 else IPv6)(bytes(p.frame(esp(b"checksum"))))
        del packet[UDP].chksum      # Scapy writes the valid one.
        deliver([packet], b"checksum")
        if outer == 4:
            packet = esp(b"trailing")
            deliver([p.frame(packet + b"junk", length=8 + len(packet))], b"trailing")
        data = random.randbytes(3000)
        if outer == 4:
            parts = fragment(p.frame(esp(data)), 1000)
        else:
            parts = fragment6(p.ip(6, "outer") / IPv6ExtHdrFragment(id=1, nh=17) /
                              Raw(p.payload(esp(data))), 1000)
        random.shuffle(parts)
        deliver(parts, data)
        lib.equal(p.a.errors(), {}, "errors")


def malformed(outer):
    """Truncated packets, and packets with wrong lengths and checksums, are dropped. Packets
    other than ESP reach the socket. Keepalives do not."""
    with scapy("transport", outer, outer) as p:
        nh, payload = p.datagram(b"x" * 20)
        whole = p.esp(payload, nh)
        shortest = scapy_peer.HEADER + scapy_peer.IV + 2 + scapy_peer.ICV
        # UDP itself drops ESP that is shorter than an IP header.
        first = 20 if outer == 4 else 40
        before = p.counters()
        for n in range(len(whole)):
            p.send(p.frame(whole[:n]))
        counts = {"InIcvWrong": len(whole) - max(first, shortest),
                  "XfrmInStateProtoError": len(whole) - first}
        if first < shortest:
            counts["InTruncated"] = shortest - first
        p.counts(before, **counts)
        for n in range(9):
            lib.equal(p.ike.recv(100), whole[:n], "for the daemon")
        p.still_works()
        before = p.counters()
        p.send(p.frame(b"\xff"))                        # a keepalive
        for length in 0, 7, len(whole) + 9, 0xffff:     # 8 is valid without data
            if length or outer == 4:                    # 0 is valid for jumbograms
                p.send(p.frame(whole, length=length))
        p.send(p.frame(whole, summed=0x1234))
        if outer == 6:
            p.send(p.frame(whole, summed=0))
        p.send(p.frame(bytes(4) + b"IKE"))
        p.send(p.frame(bytes(4) + whole))
        lib.equal(p.ike.recv(100), bytes(4) + b"IKE", "for the daemon")
        lib.equal(p.ike.recv(100), bytes(4) + whole, "for the daemon")
        p.counts(before)
        # These packets have not used up the SN.
        p.deliver(whole, b"x" * 20)


def mismatch(outer):
    """Plain ESP for an SA that needs UDP, and the reverse, by lookup and direct"""
    with scapy("transport", outer, outer) as p:
        def esp():
            nh, payload = p.datagram(b"x")
            return p.esp(payload, nh)

        for wrong, right, known in (False, True, "InDirect"), (True, False, direct()):
            for way in "InLookup", known:
                before = p.counters()
                p.encap = wrong
                p.send(p.frame(esp()))
                p.counts(before, XfrmInStateMismatch=1, **{way: 1})
                p.encap = right
                p.send(p.frame(esp()))
                lib.equal(p.app.recv(100), b"x", "data")
            p.drain()
            p.a.sas("transport", outer, outer, "", window=32)
            p.seq = 0


def mappings(outer):
    """Packets with an invalid ICV, replays and late packets do not move the peer. The
    newest valid packet does."""
    with scapy("transport", outer, outer) as p, contextlib.closing(
            nat.Mappings(p.a)) as heard:
        nh, payload = p.datagram(b"x")
        me = p.b.address(outer)

        def packet(seq):
            return p.esp(payload, nh, seq=seq)

        newest = packet(10)
        p.deliver(newest, b"x")
        before = p.counters()
        p.sport = 6001
        p.send(p.frame(newest))
        p.send(p.frame(scapy_peer.spoilt(packet(11))))
        p.send(p.frame(packet(10)))
        p.counts(before, InIcvWrong=1, XfrmInStateProtoError=1, XfrmInStateSeqError=2)
        p.deliver(packet(9), b"x")
        heard.none()
        p.sport = 6002
        p.deliver(packet(11), b"x")
        lib.equal(heard.next(), (lib.SPI["a"], me, nat.PORT, me, 6002), "mapping")
        # minesp reports a move until the SA is updated, also to another address.
        there = {4: "192.0.2.77", 6: "2001:db8::77"}[outer]
        p.source = there
        p.send(p.frame(packet(12)))
        p.source = me
        lib.equal(heard.next(), (lib.SPI["a"], me, nat.PORT, there, 6002), "mapping")
        heard.none()
        # A daemon may add the SA anew, with its replay state.
        p.a.sas("transport", outer, outer, f"{nat.WORDS} replay-seq 12", window=32)
        p.sport = 6003
        p.deliver(packet(9), b"x")
        heard.none()
        p.deliver(packet(13), b"x")
        lib.equal(heard.next(), (lib.SPI["a"], me, nat.PORT, me, 6003), "mapping")


def copies(outer):
    """A copy from another port arrives while the original is decrypted."""
    with crypto.async_aead() as cipher, scapy("transport", outer, outer) as p, \
            contextlib.closing(nat.Mappings(p.a)) as heard:
        nh, payload = p.datagram(b"x")
        me = p.b.address(outer)

        def original_first():
            """Returns whether the copy has not moved the peer. A copy that is decrypted
            first moves it."""
            esp = p.esp(payload, nh)
            before = p.counters()
            cipher.set(hold=1)
            for p.sport in nat.PORT, 6001:
                p.send(p.frame(esp))
            cipher.holds(2)
            cipher.set(hold=0)
            lib.equal(p.app.recv(100), b"x", "data")
            p.counts(before, InPackets=2, XfrmInStateSeqError=1)
            try:
                heard.none()
                return True
            except AssertionError:
                return False

        assert any(original_first() for _ in range(10)), "copies move the peer"
        p.sport = 6002
        p.still_works()
        lib.equal(heard.next(), (lib.SPI["a"], me, nat.PORT, me, 6002), "mapping")
        p.drain()


def path_mtu(*mode):
    """The path MTU is the same as with stock SAs in UDP."""
    mtus = [pmtu.found(*mode, f"{nat.WORDS} {flag}", before=lambda a, b: sockets(
        a, b, mode[2])) for flag in (lib.XFLAG_STOCK, lib.XFLAG_MINIMAL)]
    lib.equal(mtus[1], mtus[0], "MTU of the link, of the path")


def ways():
    """Yields (what is special, suite, kinds, mode, further arguments) for through(). Every
    suite with an explicit IV goes through the NAT."""
    esn = {"words": "flag esn replay-seq-hi 1 replay-oseq-hi 1"}
    found = [(", ESN", kinds, mode, esn) for kinds, mode in zip(KINDS, lib.MODES[2:])]
    clock = {"bits": xflag.CLOCK}
    found += [(", clock", KINDS[0], lib.MODES[1], clock),
              (", clock by sn_mode", KINDS[1], lib.MODES[5], {"sn_mode": 1}),
              (", clock", KINDS[2], lib.MODES[2], clock)]
    found += [("", kinds, mode, {}) for i, kinds in enumerate(KINDS)
              for mode in lib.MODES[i:] + lib.MODES[:i]]
    known = list(suites.explicit_iv())
    assert len(found) >= len(known), "some suites do not go through the NAT"
    for (name, suite), (what, *way) in zip(itertools.cycle(known), found):
        yield name + what, suite, *way
    implicit = dict(suites.implicit_iv())
    for name, what, mode, bits in (
            ("AES-GCM-16", "", lib.MODES[3], xflag.NEW_KEY),
            ("ChaCha20-Poly1305", "", lib.MODES[4], xflag.NEW_KEY),
            ("AES-CCM-8", ", clock", lib.MODES[1], xflag.CLOCK)):
        # ip(8) keeps only the last extra-flag of an SA, so these bits replace the suite's.
        yield (f"{name}, implicit IV{what}", implicit[name], KINDS[0], mode,
               {"bits": xflag.IMPLICIT_IV | bits})


def cases():
    for i, peer in enumerate(("stock", "minimal")):
        for n, mode in enumerate(lib.MODES):
            if share.mine(i + n):
                yield ("{} peer, {}, IPv{} in IPv{}".format(peer, *mode),
                       lambda p=peer, m=mode: talk(p, *m))
        for words in "flag esn", lib.XFLAG_IMPLICIT_IV:
            if peer == "minimal" or words != lib.XFLAG_IMPLICIT_IV:
                yield (f"{peer} peer, {words}",
                       lambda p=peer, w=words: talk(p, "transport", 4, 4, w))
    # These make the shortest packets.
    yield ("minimal peer, transport, IPv6, AES-CCM-8, implicit IV", lambda: talk(
        "minimal", "transport", 6, 6, suite=dict(suites.implicit_iv())["AES-CCM-8"].words))
    for n, (name, s) in enumerate(suites.explicit_iv()):
        if share.mine(n):
            yield f"stock peer, {name}", lambda s=s: suite("stock", s)
    for mode in lib.MODES[:3]:
        yield ("asynchronous, {}, IPv{} in IPv{}".format(*mode),
               lambda m=mode: crypto.using(crypto.async_aead, talk, "minimal", *m))
    for n, (what, s, kinds, mode, more) in enumerate(ways()):
        if share.mine(n):
            yield ("NAT, {} behind it, {} peer, {}, IPv{} in IPv{}, ".format(*kinds, *mode) +
                   what, lambda a=(s, kinds, *mode), m=more: through(*a, **m))
    for mode in lib.MODES:
        name = "{}, IPv{} in IPv{}".format(*mode)
        yield f"send, {name}", lambda m=mode: send(*m)
        yield f"receive, {name}", lambda m=mode: receive(*m)
        if mode in lib.MODES[1:3]:
            yield f"path MTU, {name}", lambda m=mode: path_mtu(*m)
    for mode in lib.MODES[:2]:
        yield (f"send, asynchronous, IPv{mode[1]}",
               lambda m=mode: crypto.using(crypto.async_aead, send, *m))
    for family in (4, 6):
        yield f"malformed, IPv{family}", lambda f=family: malformed(f)
        yield f"with UDP and without, IPv{family}", lambda f=family: mismatch(f)
        yield f"what moves the peer, IPv{family}", lambda f=family: mappings(f)
        yield f"a copy while it is decrypted, IPv{family}", lambda f=family: copies(f)


if __name__ == "__main__":
    lib.run(cases(), needs=["conntrack", "ip", "nft", "ping"],
            imports=["cryptography", "scapy"])
