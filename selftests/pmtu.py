#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Path MTU discovery over minesp works as over esp4 and esp6: the same MTU is
found, what fits arrives, TCP gets through. And what no IP packet can hold is
refused."""
import contextlib
import errno
import socket

import interop
import lib

NARROW = 1300       # the MTU of the last link, in bytes; the first has 1500
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
PORT = 6000


@contextlib.contextmanager
def path():
    """Host a, a router, host b, with the narrow link before b."""
    a, b, r = (lib.Host(name) for name in "abr")
    try:
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
                route add {lib.ADDRESSES[kind, 4][h.peer]} via 203.0.113.1 dev veth0 src {h.address(4, kind)}
                route add {lib.ADDRESSES[kind, 6][h.peer]} via fe80::1 dev veth0 src {h.address(6, kind)}
            """)
        yield a, b
    finally:
        for h in (a, b, r):
            h.delete()


def found(mode, inner, outer, words, suite=lib.SUITE):
    """The path MTU that a finds, in bytes of the inner packet; and does that
    much get through?"""
    kind = "inner" if mode == "tunnel" else "outer"
    with path() as (a, b):
        for h in (a, b):
            h.sas(mode, inner, outer, words, suite)
        source, sink = (h.socket(lib.families(h.address(inner)),
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

        lib.wait_for("a smaller path MTU", learnt)
        most = bytes(mtu() - headers)
        source.send(most)
        lib.equal(len(sink.recv(1 << 16)), len(most), "bytes")
        try:
            source.send(most + b"x")
        except OSError as e:
            lib.equal(e.errno, errno.EMSGSIZE, "error")
        else:
            raise AssertionError("more than the path MTU was sent")
        result = first, mtu()
        source.close()
        sink.close()
        interop.tcp(a, b, inner, kind)
        return result


def same_as_stock(*args, **more):
    lib.equal(found(*args, "", **more), found(*args, lib.XFLAG_STOCK, **more),
              "MTU of the link, of the path")


def implicit_iv(*args):
    """8 bytes less of overhead."""
    lib.equal(found(*args, lib.XFLAG_IMPLICIT_IV),
              tuple(n + 8 for n in found(*args, "")),
              "MTU of the link, of the path")


def too_big(family):
    """UDP's longest datagram, which ESP pushes over the 65535 of IP."""
    with lib.hosts() as (a, b):
        for h in (a, b):
            h.sas("transport", family, family)
        longest = 65507 if family == 4 else 65527
        overhead = 8 + 8 + 2 + 16
        source, sink = (h.socket(lib.families(h.address(family)),
                                 socket.SOCK_DGRAM) for h in (a, b))
        sink.setsockopt(socket.SOL_SOCKET, interop.SO_RCVBUFFORCE, 1 << 22)
        sink.bind((b.address(family), PORT))
        for n in (longest, longest - overhead + 2):
            try:
                source.sendto(bytes(n), sink.getsockname()[:2])
            except OSError as e:
                lib.equal(e.errno, errno.EMSGSIZE, "error")
            else:
                raise AssertionError(f"{n} bytes were sent")
        lib.equal(a.stats()["OutTooBig"], 2, "OutTooBig")
        # The most that fits, on a multiple of four with the trailer.
        most = (65535 - (20 if family == 4 else 0) - overhead + 2) // 4 * 4 - 2 - 8
        source.sendto(bytes(most), sink.getsockname()[:2])
        lib.equal(len(sink.recv(1 << 16)), most, "bytes")
        source.close()
        sink.close()


def cases():
    for mode, inner, outer in lib.MODES:
        yield (f"path MTU, {mode}, IPv{inner} in IPv{outer}",
               lambda args=(mode, inner, outer): same_as_stock(*args))
    yield "path MTU, AES-CBC, transport", lambda: same_as_stock(
        "transport", 6, 6, suite=lib.CBC)
    yield "path MTU, AES-CBC, tunnel", lambda: same_as_stock(
        "tunnel", 6, 4, suite=lib.CBC)
    yield "path MTU, implicit IV", lambda: implicit_iv("tunnel", 4, 4)
    for family in (4, 6):
        yield f"too big for IPv{family}", lambda f=family: too_big(f)


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"])
