# SPDX-License-Identifier: GPL-2.0
"""ESP in UDP (RFC 3948): the socket that it needs, a NAT, and the kernel's messages to key
managers about the NAT."""
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
UDP_ENCAP = 100     # linux/udp.h; Python lacks it
IP_XFRM_POLICY, IPV6_XFRM_POLICY = 17, 35


def words(sport=PORT, dport=PORT):
    """Returns words for ip xfrm state add."""
    return f"encap espinudp {sport} {dport} 0.0.0.0"


WORDS = words()


@contextlib.contextmanager
def ike(host, family=4, port=PORT):
    """Opens the socket of an IKE daemon. The kernel takes ESP and keepalives out of it. Like
    a daemon's, the socket bypasses IPsec. Otherwise policies for all of UDP would drop the
    packets that it receives."""
    with (xfrm.Xfrm(host).sock,
          host.socket(family_of(host.address(family)), socket.SOCK_DGRAM) as sock):
        # Opening the netlink socket loads xfrm_user, which these options need.
        level, option = ((socket.IPPROTO_IP, IP_XFRM_POLICY) if family == 4 else
                         (socket.IPPROTO_IPV6, IPV6_XFRM_POLICY))
        for way in xfrm.XFRM_POLICY_IN, xfrm.XFRM_POLICY_OUT:
            sock.setsockopt(level, option, xfrm.userpolicy(sock.family, way))
        sock.bind((host.address(family), port))
        sock.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, xfrm.UDP_ENCAP_ESPINUDP)
        yield sock


class Mappings:
    """The messages about changed mappings that a key manager of a host receives."""

    def __init__(self, host):
        self.sock = xfrm.listen(host, xfrm.XFRMNLGRP_MAPPING)

    def close(self):
        self.sock.close()

    def next(self):
        """Returns the next message: (SPI, old address, old port, new address, new port)."""
        message = self.sock.recv(1 << 16)
        equal(struct.unpack_from("=H", message, 4)[0], xfrm.XFRM_MSG_MAPPING, "message")
        _, spi, family, _, _, old, new, old_port, new_port = struct.unpack_from(
            ">16sI2sB1xI16s16sHH", message, 16)
        family = int.from_bytes(family, sys.byteorder)
        old, new = (socket.inet_ntop(family, x[:4 if family == socket.AF_INET else 16])
                    for x in (old, new))
        return spi, old, old_port, new, new_port

    def waiting(self):
        """Yields the messages that have arrived so far."""
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self.next()
        self.sock.settimeout(TIMEOUT)

    def none(self):
        equal([*self.waiting()], [], "new mappings")

    def drain(self):
        list(self.waiting())


# The router's addresses, and an address that a test may add to a
ROUTER = {4: ("203.0.113.1", "203.0.113.7"), 6: ("2001:db8:3::1", "2001:db8:3::7")}
OUTSIDE = {4: "203.0.113.9", 6: "2001:db8:3::9"}


class Nat:
    """Host a, behind a router that translates its address, and host b. The router does not
    translate the address OUTSIDE."""

    def __init__(self, a, b, r):
        self.a, self.b, self.r = a, b, r
        r.sysctl("net.ipv4.ip_forward", 1)
        r.sysctl("net.ipv6.conf.all.forwarding", 1)
        for h in a, b:
            link, mac = f"to-{h.name}", f"02:00:00:00:01:0{h.name}"
            r.ip(f"""
                link add {link} address {mac} type veth peer name veth0 address {h.mac} netns {h.ns}
                link set {link} up
            """)
            h.ip("link set lo up\nlink set veth0 up")
            for family, bits in (4, "32"), (6, "128 nodad"):
                # Static neighbours: ESP in transport mode would protect their discovery, too.
                router, _ = ROUTER[family]
                me, inner = h.address(family), h.address(family, "inner")
                r.ip(f"""
                    addr add {router}/{bits} dev {link}
                    route add {me} dev {link}
                    neigh add {me} lladdr {h.mac} dev {link}
                """)
                h.ip(f"""
                    addr add {me}/{bits} dev veth0
                    addr add {inner}/{bits} dev lo
                    route add {router} dev veth0
                    neigh add {router} lladdr {mac} dev veth0
                    route add default via {router} dev veth0
                    route add {ADDRESSES["inner", family][h.peer]} via {router} \
                        dev veth0 src {inner}
                """)
        # On lo, because IPv6 may masquerade with any address of the link.
        r.ip("link set lo up")
        for family, bits in (4, "32"), (6, "128"):
            r.ip(f"""
                addr add {ROUTER[family][1]}/{bits} dev lo
                route add {OUTSIDE[family]} dev to-a
            """)

    def map(self, address, port):
        """Makes the NAT forget its mappings, and map port 4500 of a to this address and port.
        The address also sets the version of IP of the outer packets."""
        self.public = address, port
        self.family = 6 if ":" in address else 4
        me, ip, family = ((self.a.address(4), "ip", "ipv4") if self.family == 4 else
                          (self.a.address(6), "ip6", "ipv6"))
        how = ("masquerade to " if address == ROUTER[self.family][0] else
               f"snat to {address if self.family == 4 else f'[{address}]'}")
        sh(f"ip netns exec {self.r.ns} nft -f -", stdin=f"""
            table {ip} nat
            delete table {ip} nat
            table {ip} nat {{
                chain post {{
                    type nat hook postrouting priority srcnat
                    {ip} saddr {me} udp sport {PORT} {how}:{port}
                    {ip} saddr {me} masquerade
                }}
                chain forward {{
                    type filter hook forward priority 0
                    {ip} daddr {me} ct state new drop
                }}
                chain input {{
                    type filter hook input priority 0
                    udp dport 4500-5999 drop
                }}
            }}
        """)
        self.r.sh(f"conntrack -F -f {family}")

    def sas(self, mode, inner, flags=("", ""), suite=SUITE):
        """Replaces the SAs and policies of a and b. flags: further words for a, and for b"""
        self.mode, self.inner, self.flags, self.suite = mode, inner, flags, suite
        self.b.ip("xfrm state flush")
        self.a.sas(mode, inner, self.family, f"{WORDS} {flags[0]}", suite)
        self.heard()

    def _selectors(self):
        """Returns the addresses that IPsec protects: of b, and of a."""
        if self.mode == "tunnel":
            return self.b.address(self.inner, "inner"), self.a.address(self.inner, "inner")
        return self.b.address(self.family), self.public[0]

    def _sas(self, verb, oseq=0):
        """Returns lines of ip(8) for both SAs of b."""
        (peer, port), me = self.public, self.b.address(self.family)
        s_me, s_peer = self._selectors()
        sa = (f"reqid 1 mode {self.mode} replay-window 1024 {self.suite} {self.flags[1]} "
              f"replay-oseq")
        return f"""
            xfrm state {verb} src {me} dst {peer} proto esp spi {SPI["a"]:#x} \
                {sa} {oseq} {words(PORT, port)} sel src {s_me} dst {s_peer}
            xfrm state {verb} src {peer} dst {me} proto esp spi {SPI["b"]:#x} \
                {sa} 0 {words(port, PORT)} sel src {s_peer} dst {s_me}
        """

    def heard(self):
        """Replaces the SAs and policies of b for the current mapping, as an IKE daemon does
        when it learns the mapping. Keeps the last SN that was sent."""
        said = sh(f"ip -n {self.b.ns} xfrm state list spi {SPI['a']:#x}")
        oseq = re.search(r"oseq (0x\w+)", said)
        me, peer = self.b.address(self.family), self.public[0]
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
        """Does the same if only the port has changed: updates the SAs."""
        self.b.ip(self._sas("update"))

    def pair(self, port):
        """Returns a UDP socket on a and one on b, connected to each other."""
        kind = "inner" if self.mode == "tunnel" else "outer"
        me, peer = (h.address(self.inner, kind) for h in (self.a, self.b))
        return connected((self.a, me, me if kind == "inner" else self.public[0]),
                         (self.b, peer, peer), port=port)


@contextlib.contextmanager
def behind():
    """Makes a Nat, and opens the sockets that the two hosts need."""
    with namespaces("abr") as hosts:
        nat = Nat(*hosts)
        with ike(nat.a), ike(nat.b), ike(nat.a, 6), ike(nat.b, 6):
            yield nat
