# SPDX-License-Identifier: GPL-2.0
"""A peer that shares no code with the kernel: Scapy, on a raw socket of host b, whose
kernel has no SA. Host a runs minesp.

Scapy takes seconds to import on a slow machine, so only tests that need it import this
module. The module exports classes of Scapy, too, such as scapy_peer.IP.
"""
import contextlib
import random
import select
import socket
import struct

from . import nat, seqno
from .host import family_of, hosts
from .sa import KEYS, SPI, SUITE
from .verdict import equal
from .wait import TIMEOUT, wait_for

try:
    from scapy.layers.inet import ICMP, IP, UDP  # noqa: F401 (for tests)
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import ESP, SecurityAssociation, _ESPPlain
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import checksum
except ImportError:
    IP = None   # run() skips the test

KEY = bytes.fromhex(KEYS[128][2:])
PORT = 5000
DUMMY = 59                  # Next Header of dummy packets, RFC 4303 2.6
HEADER, IV, ICV = 8, 8, 16  # lengths in bytes, with AES-GCM


class Peer:
    """Scapy on host b, and a socket on host a that receives the data. encap: use ESP in UDP"""
    block = 4   # bytes that padding aligns to

    def __init__(self, a, b, mode, inner, outer, window=32, words="",
                 suite=SUITE, encap=False):
        self.a, self.b, self.mode = a, b, mode
        self.inner, self.outer = inner, outer
        self.kind = "inner" if mode == "tunnel" else "outer"
        self.encap, self.source, self.sport = encap, b.address(outer), nat.PORT
        a.sas(mode, inner, outer, f"{nat.WORDS} {words}" if encap else words, suite, window)
        self.tx = SecurityAssociation(ESP, spi=SPI["a"], crypt_algo="AES-GCM",
                                      crypt_key=KEY)
        self.seq = 0
        self.wire = b.wire()
        self.app = a.socket(family_of(a.address(inner)), socket.SOCK_DGRAM)
        self.app.bind((a.address(inner, self.kind), PORT))
        self.app.connect((b.address(inner, self.kind), PORT))

    def close(self):
        self.wire.close()
        self.app.close()

    @property
    def addresses(self):
        """The addresses of the outer header, as bytes"""
        return b"".join(socket.inet_pton(family_of(x), x)
                        for x in (self.source, self.a.address(self.outer)))

    def ip(self, family, kind, **fields):
        layer = IP if family == 4 else IPv6
        return layer(src=self.b.address(family, kind),
                     dst=self.a.address(family, kind), **fields)

    def datagram(self, data):
        """Returns what ESP carries: (Next Header, bytes)."""
        packet = self.ip(self.inner, self.kind) / UDP(sport=PORT, dport=PORT) / Raw(data)
        whole = bytes(packet)
        if self.mode == "tunnel":
            return (4 if self.inner == 4 else 41), whole
        return 17, whole[20 if self.inner == 4 else 40:]

    def esp(self, payload, nh, seq=None, spi=SPI["a"], padding=None,
            padlen=None):
        """Returns an ESP packet as bytes. padding: default as in RFC 4303"""
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

    def payload(self, esp, length=None, summed=None):
        """Returns the payload of IP, as bytes. length: of UDP, default correct. summed: the
        checksum of UDP, default as in RFC 3948"""
        if not self.encap:
            return esp
        n = 8 + len(esp)
        head = struct.pack(">HHH", self.sport, nat.PORT, n if length is None else length)
        if summed is None:
            summed = 0 if self.outer == 4 else checksum(self.addresses + struct.pack(
                ">II", n, socket.IPPROTO_UDP) + head + esp) or 0xffff
        return head + struct.pack(">H", summed) + esp

    def frame(self, esp, headers=(), **udp):
        """Returns ESP in an IP packet. headers: between IP and ESP. udp: see payload()"""
        packet = self.ip(self.outer, "outer")
        packet.src = self.source
        if not headers:
            setattr(packet, "proto" if self.outer == 4 else "nh",
                    socket.IPPROTO_UDP if self.encap else socket.IPPROTO_ESP)
        for header in headers:
            packet /= header
        return packet / Raw(self.payload(esp, **udp))

    def ethernet(self, packet):
        """Returns an IP packet in an Ethernet frame to a, as bytes."""
        return bytes(Ether(src=self.b.mac, dst=self.a.mac) / packet)

    def send(self, packet):
        """Sends an IP packet. Pads short frames, as Ethernet does."""
        self.wire.send(self.ethernet(packet).ljust(60, b"\0"))

    def deliver(self, esp, data, headers=()):
        """Sends ESP, and checks that the data arrives."""
        self.send(self.frame(esp, headers))
        equal(self.app.recv(1 << 16), data, "data")

    def arrived(self):
        """Yields what has arrived so far. The socket must not block."""
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self.app.recv(1 << 16)

    def drain(self):
        """Drops what has arrived, because unread data holds its SA."""
        self.app.setblocking(False)
        list(self.arrived())
        self.app.settimeout(TIMEOUT)

    def still_works(self):
        data = b"still here"
        nh, payload = self.datagram(data)
        self.deliver(self.esp(payload, nh), data)

    def warm(self):
        """With net.minesp.offload, sends until GRO decrypts the packets of the SA: as from
        the fourth packet at the latest. Packet sockets do not see such a packet as ESP."""
        if self.a.sysctl("net.minesp.offload") == "0":
            return
        with contextlib.closing(self.a.wire()) as wire:
            wire.setblocking(False)
            for _ in range(4):
                self.still_works()
                if not seqno.recorded(wire, SPI["a"]):
                    return
        raise AssertionError("GRO does not decrypt")

    def counts(self, before, **wanted):
        """Waits until exactly these counters have changed since before, by these numbers.
        Ignores InDirect and InLookup unless they are wanted."""
        ways = {"InDirect", "InLookup"} - wanted.keys()

        def moved():
            now = self.counters()
            return {k: now[k] - before[k] for k in now.keys() - ways
                    if now[k] != before[k]}

        try:
            wait_for("counters", lambda: moved() == wanted)
        except AssertionError:
            raise AssertionError(f"counters: {moved()}, not {wanted}") from None
        assert not select.select([self.app], [], [], 0)[0], "a dropped packet was delivered"

    def counters(self):
        return self.a.counters()

    def capture(self):
        """Returns the next ESP packet that a sends."""
        while True:
            packet = Ether(self.wire.recv(1 << 16)).payload
            if packet.src == self.a.address(self.outer) and ESP in packet:
                return packet


class SuitePeer(Peer):
    """A peer with any suite, which seals packets without Scapy. esn: the upper half of
    ESNs; 0 for no ESN. words: added to the SAs"""

    def __init__(self, a, b, mode, inner, outer, suite, esn=0, window=32, words="",
                 encap=False):
        self.suite = suite
        self.block = suite.block
        self.high = struct.pack(">I", esn) if esn else b""
        if esn:
            words += f" flag esn replay-seq-hi {esn} replay-oseq-hi {esn}"
        super().__init__(a, b, mode, inner, outer, window, words, suite.words, encap)

    def seal(self, plain):
        return self.suite.seal(struct.pack(">II", plain.spi, plain.seq),
                               self.high, random.randbytes(16), plain.data +
                               plain.padding + bytes([plain.padlen, plain.nh]))


def spoilt(esp):
    """Returns the ESP packet with an invalid ICV."""
    return esp[:-1] + bytes([esp[-1] ^ 1])


@contextlib.contextmanager
def meet(kind, *args, mtu=1500, **more):
    """Makes two hosts, and a peer of class kind between them."""
    with hosts(mtu) as (a, b):
        with contextlib.closing(kind(a, b, *args, **more)) as p:
            yield p


@contextlib.contextmanager
def peer(mode="transport", inner=4, outer=4, window=32, mtu=1500):
    with meet(Peer, mode, inner, outer, window, mtu=mtu) as p:
        p.warm()
        yield p


def suite_peer(mode, inner, outer, suite):
    return meet(SuitePeer, mode, inner, outer, suite)
