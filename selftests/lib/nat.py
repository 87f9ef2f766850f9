# SPDX-License-Identifier: GPL-2.0
"""ESP in UDP (RFC 3948): the socket that it needs, a NAT, and what the key managers hear
of it."""
import contextlib
import re
import socket
import struct
import sys

from . import xfrm
from .command import sh
from .host import ADDRESSES, family_of, namespaces
from .sa import SPI, SUITE
from .traffic import connected
from .verdict import equal
from .wait import TIMEOUT

PORT = 4500
UDP_ENCAP = 100     # Python does not have it
IP_XFRM_POLICY, IPV6_XFRM_POLICY = 17, 35


def words(sport=PORT, dport=PORT):
    """For ip xfrm state add"""
    return f"encap espinudp {sport} {dport} 0.0.0.0"


WORDS = words()


@contextlib.contextmanager
def ike(host, family=4, port=PORT):
    """The socket of an IKE daemon: the kernel takes ESP out of it, and keepalives. As that
    of any daemon it needs no IPsec itself, or policies for all of UDP would drop what it
    receives."""
    with (xfrm.Xfrm(host).sock,
          host.socket(family_of(host.address(family)), socket.SOCK_DGRAM) as sock):
        # The netlink socket makes the kernel load what knows these options.
        level, option = ((socket.IPPROTO_IP, IP_XFRM_POLICY) if family == 4 else
                         (socket.IPPROTO_IPV6, IPV6_XFRM_POLICY))
        for way in xfrm.XFRM_POLICY_IN, xfrm.XFRM_POLICY_OUT:
            sock.setsockopt(level, option, xfrm.userpolicy(sock.family, way))
        sock.bind((host.address(family), port))
        sock.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, xfrm.UDP_ENCAP_ESPINUDP)
        yield sock


class Mappings:
    """What a key manager of a host hears of changed mappings."""

    def __init__(self, host):
        self.sock = host.socket(socket.AF_NETLINK, socket.SOCK_RAW, xfrm.NETLINK_XFRM)
        self.sock.bind((0, 1 << xfrm.XFRMNLGRP_MAPPING - 1))

    def close(self):
        self.sock.close()

    def next(self):
        """The next one: (SPI, old address, old port, new address, new port)."""
        message = self.sock.recv(1 << 16)
        equal(struct.unpack_from("=H", message, 4)[0], xfrm.XFRM_MSG_MAPPING, "message")
        _, spi, family, _, _, old, new, old_port, new_port = struct.unpack_from(
            ">16sI2sB1xI16s16sHH", message, 16)
        family = int.from_bytes(family, sys.byteorder)
        old, new = (socket.inet_ntop(family, x[:4 if family == socket.AF_INET else 16])
                    for x in (old, new))
        return spi, old, old_port, new, new_port

    def none(self):
        """None is waiting."""
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(f"a new mapping: {self.next()}")

    def drain(self):
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.next()
        self.sock.settimeout(TIMEOUT)


class Nat:
    """Host a, behind a router that translates its address, and host b. The outer packets
    are IPv4. What a sends from the address outside is not translated."""
    public = "203.0.113.1", 5001     # what b sees of a
    outside = "203.0.113.9"          # not an address of a's, until somebody makes it one

    def __init__(self, a, b, r):
        self.a, self.b, self.r = a, b, r
        r.sysctl("net.ipv4.ip_forward", 1)
        for h in a, b:
            link = f"to-{h.name}"
            r.ip(f"link add {link} type veth peer name veth0 netns {h.ns}")
            r.ip(f"""
                link set {link} up
                addr add 203.0.113.1/32 dev {link}
                route add {h.address(4)} dev {link}
            """)
            peers = {family: ADDRESSES["inner", family][h.peer] for family in (4, 6)}
            h.ip(f"""
                link set lo up
                link set veth0 up
                addr add {h.address(4)}/32 dev veth0
                route add 203.0.113.1 dev veth0
                route add default via 203.0.113.1 dev veth0
                addr add {h.address(4, "inner")}/32 dev lo
                addr add {h.address(6, "inner")}/128 dev lo nodad
                route add {peers[4]} via 203.0.113.1 dev veth0 src {h.address(4, "inner")}
                route add {peers[6]} dev veth0 src {h.address(6, "inner")}
            """)
        r.ip(f"""
            addr add 203.0.113.7/32 dev to-b
            route add {self.outside} dev to-a
        """)
        self.map(*self.public)

    def map(self, address, port):
        """The NAT forgets what it knew, and takes this for a's port 4500."""
        self.public = address, port
        how = "masquerade to " if address == "203.0.113.1" else f"snat to {address}"
        sh(f"ip netns exec {self.r.ns} nft -f -", stdin=f"""
            table ip nat
            delete table ip nat
            table ip nat {{
                chain post {{
                    type nat hook postrouting priority srcnat
                    ip saddr {self.a.address(4)} udp sport {PORT} {how}:{port}
                    ip saddr {self.a.address(4)} masquerade
                }}
                chain forward {{
                    type filter hook forward priority 0
                    ip daddr {self.a.address(4)} ct state new drop
                }}
                chain input {{
                    type filter hook input priority 0
                    udp dport 4500-5999 drop
                }}
            }}
        """)
        self.r.sh("conntrack -F")

    def sas(self, mode, inner, flags=("", ""), suite=SUITE):
        """New SAs and policies on both. flags: further words for a, and for b."""
        self.mode, self.inner, self.flags, self.suite = mode, inner, flags, suite
        self.b.ip("xfrm state flush")
        self.a.sas(mode, inner, 4, f"{WORDS} {flags[0]}", suite)
        self.heard()

    def _selectors(self):
        """What IPsec protects, of b and of a."""
        if self.mode == "tunnel":
            return self.b.address(self.inner, "inner"), self.a.address(self.inner, "inner")
        return self.b.address(4), self.public[0]

    def _sas(self, verb, oseq=0):
        """Both SAs of b"""
        (peer, port), me = self.public, self.b.address(4)
        s_me, s_peer = self._selectors()
        sa = (f"reqid 1 mode {self.mode} replay-window 1024 {self.suite} {self.flags[1]} "
              f"replay-oseq")
        return f"""
            xfrm state {verb} src {me} dst {peer} proto esp spi {SPI["a"]:#x} {sa} {oseq} {words(PORT, port)} sel src {s_me} dst {s_peer}
            xfrm state {verb} src {peer} dst {me} proto esp spi {SPI["b"]:#x} {sa} 0 {words(port, PORT)} sel src {s_peer} dst {s_me}
        """

    def heard(self):
        """What the IKE daemon of b does when it knows where a is: all anew, but for the
        last SN that was sent."""
        said = sh(f"ip -n {self.b.ns} xfrm state list spi {SPI['a']:#x}")
        oseq = re.search(r"oseq (0x\w+)", said)
        me, peer = self.b.address(4), self.public[0]
        s_me, s_peer = self._selectors()
        esp = f"proto esp reqid 1 mode {self.mode}"
        self.b.ip(f"""
            xfrm policy flush
            xfrm state flush
            {self._sas("add", oseq and oseq[1] or 0)}
            xfrm policy add src {s_me} dst {s_peer} dir out tmpl src {me} dst {peer} {esp}
            xfrm policy add src {s_peer} dst {s_me} dir in tmpl src {peer} dst {me} {esp}
        """)

    def port_heard(self):
        """The same when only the port has changed: the SAs stay."""
        self.b.ip(self._sas("update"))

    def pair(self, port):
        """A UDP socket on a and one on b, connected to each other."""
        kind = "inner" if self.mode == "tunnel" else "outer"
        me, peer = (h.address(self.inner, kind) for h in (self.a, self.b))
        return connected((self.a, me, me if kind == "inner" else self.public[0]),
                         (self.b, peer, peer), port=port)


@contextlib.contextmanager
def behind():
    """A Nat, and the sockets that the two hosts need."""
    with namespaces("abr") as hosts:
        nat = Nat(*hosts)
        with ike(nat.a), ike(nat.b):
            yield nat
