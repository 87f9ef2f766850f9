# SPDX-License-Identifier: GPL-2.0
"""Path MTU discovery through a router with a narrow link."""
import contextlib
import errno
import socket

from . import traffic
from .host import ADDRESSES, family_of, namespaces
from .sa import SUITE
from .verdict import equal
from .wait import wait_for

NARROW = 1300       # MTU of the last link in bytes; that of the first is 1500
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
PORT = 6000


@contextlib.contextmanager
def path():
    """Makes host a, a router, and host b behind the narrow link."""
    with namespaces("abr") as (a, b, r):
        r.sysctl("net.ipv4.ip_forward", 1)
        r.sysctl("net.ipv6.conf.all.forwarding", 1)
        for h, mtu in (a, 1500), (b, NARROW):
            v4, v6 = h.address(4), h.address(6)
            kind, link = "inner", f"to-{h.name}"
            r.ip(f"link add {link} mtu {mtu} type veth "
                 f"peer name veth0 mtu {mtu} netns {h.ns}")
            h.sysctl("net.ipv6.conf.veth0.accept_dad", 0)
            r.sysctl(f"net.ipv6.conf.{link}.accept_dad", 0)
            r.ip(f"""
                link set {link} up
                addr add 203.0.113.1/32 dev {link}
                addr add fe80::1/64 dev {link} nodad
                route add {v4} dev {link}
                route add {v6} dev {link}
            """)
            h.ip(f"""
                link set veth0 up
                addr add {v4}/32 dev veth0
                addr add {v6}/128 dev veth0 nodad
                addr add {h.address(4, kind)}/32 dev lo
                addr add {h.address(6, kind)}/128 dev lo nodad
                route add 203.0.113.1 dev veth0
                route add default via 203.0.113.1 dev veth0
                route add default via fe80::1 dev veth0
                route add {ADDRESSES[kind, 4][h.peer]} via 203.0.113.1 dev veth0 \
                    src {h.address(4, kind)}
                route add {ADDRESSES[kind, 6][h.peer]} via fe80::1 dev veth0 \
                    src {h.address(6, kind)}
            """)
        yield a, b


def found(mode, inner, outer, words, suite=SUITE,
          before=lambda a, b: contextlib.nullcontext()):
    """Returns the MTU of the first link and the path MTU that a finds, in bytes of the
    inner packet. Checks that packets of the path MTU arrive, and that longer ones are
    refused. before: context manager around the traffic, called with the hosts"""
    kind = "inner" if mode == "tunnel" else "outer"
    with path() as (a, b), before(a, b):
        for h in (a, b):
            h.sas(mode, inner, outer, words, suite)
        source, sink = (h.socket(family_of(h.address(inner)),
                                 socket.SOCK_DGRAM) for h in (a, b))
        sink.bind((b.address(inner, kind), PORT))
        source.connect((b.address(inner, kind), PORT))
        if inner == 4:
            level, get = socket.IPPROTO_IP, IP_MTU
            source.setsockopt(level, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        else:
            level, get = socket.IPPROTO_IPV6, IPV6_MTU
            source.setsockopt(level, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)
        headers = (20 if inner == 4 else 40) + 8

        def mtu():
            return source.getsockopt(level, get)

        first = mtu()
        source.send(bytes(first - headers))     # fits the first link only

        def learnt():
            with contextlib.suppress(OSError):
                source.send(bytes(first - headers))
            return mtu() < first

        wait_for("a smaller path MTU", learnt)
        most = bytes(mtu() - headers)
        source.send(most)
        equal(len(sink.recv(1 << 16)), len(most), "bytes")
        try:
            source.send(most + b"x")
        except OSError as e:
            equal(e.errno, errno.EMSGSIZE, "error")
        else:
            raise AssertionError("more than the path MTU was sent")
        result = first, mtu()
        source.close()
        sink.close()
        traffic.tcp(a, b, inner, kind)
        return result
