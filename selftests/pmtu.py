#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Path MTU discovery over minesp works as over esp4 and esp6: the same MTU is found,
packets that fit arrive, and TCP gets through. Redirects work, too. Packets that are
too long for IP are refused. The kernel's own test, net/pmtu.sh, passes for VTI."""
import errno
import pathlib
import socket

import lib
from lib import pmtu, share

try:
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.inet6 import ICMPv6ND_Redirect, ICMPv6NDOptRedirectedHdr, IPv6
    from scapy.layers.l2 import Ether
except ImportError:
    IP = None

PORT = 6000

NET = pathlib.Path(__file__).resolve().parents[1] / "net"
PARAMETER = pathlib.Path("/sys/module/minesp/parameters/enabled")
# The cases of net/pmtu.sh with ESP, two thirds of them in UDP
VTI = [f"pmtu_vti{version}_{kind}exception" for version in (4, 6)
       for kind in ("", "udp_", "udp_routed_")]


def same_as_stock(*args, **more):
    lib.equal(pmtu.found(*args, "", **more), pmtu.found(*args, lib.XFLAG_STOCK, **more),
              "MTU of the link, of the path")


def implicit_iv(*args):
    """An implicit IV saves 8 bytes of overhead."""
    lib.equal(pmtu.found(*args, lib.XFLAG_IMPLICIT_IV),
              tuple(n + 8 for n in pmtu.found(*args, "")),
              "MTU of the link, of the path")


def too_big(family):
    """The longest UDP datagram, which ESP makes longer than the 65535 bytes of IP"""
    with lib.hosts() as (a, b):
        for h in (a, b):
            h.sas("transport", family, family)
        longest = 65507 if family == 4 else 65527
        overhead = 8 + 8 + 2 + 16
        source, sink = (h.socket(lib.family_of(h.address(family)),
                                 socket.SOCK_DGRAM) for h in (a, b))
        sink.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 22)
        sink.bind((b.address(family), PORT))
        for n in (longest, longest - overhead + 2):
            try:
                source.sendto(bytes(n), sink.getsockname()[:2])
            except OSError as e:
                lib.equal(e.errno, errno.EMSGSIZE, "error")
            else:
                raise AssertionError(f"{n} bytes were sent")
        lib.equal(a.stats()["OutTooBig"], 2, "OutTooBig")
        # The longest datagram that fits. With the trailer, it is a multiple of four.
        most = (65535 - (20 if family == 4 else 0) - overhead + 2) // 4 * 4 - 2 - 8
        source.sendto(bytes(most), sink.getsockname()[:2])
        lib.equal(len(sink.recv(1 << 16)), most, "bytes")
        source.close()
        sink.close()


def redirected(family, words):
    """The router, b, redirects a to another router. The redirect quotes ESP."""
    far = {4: "203.0.113.9", 6: "2001:db8:9::9"}[family]
    old, new = {4: (lib.ADDRESSES["outer", 4]["b"], "192.0.2.77"),
                6: ("fe80::b", "fe80::77")}[family]
    with lib.hosts() as (a, b):
        me = a.address(family)
        a.ip(f"""
            addr add fe80::a/64 dev veth0 nodad
            neigh replace {old} lladdr {b.mac} dev veth0
            neigh replace {new} lladdr 02:00:00:00:00:77 dev veth0
            route add {far} via {old} dev veth0
            xfrm state add src {me} dst {far} proto esp spi 0x1000 \
                reqid 1 mode transport {lib.SUITE} {words}
            xfrm policy add src {me} dst {far} dir out \
                tmpl src {me} dst {far} proto esp reqid 1 mode transport
        """)
        wire = b.wire()
        with a.socket(lib.family_of(far), socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (far, 9))
        while far not in (quoted := Ether(wire.recv(1 << 16))).summary():
            pass
        if family == 4:
            redirect = (IP(src=old, dst=me) / ICMP(type=5, code=1, gw=new) /
                        quoted.payload)
        else:
            redirect = (IPv6(src=old, dst="fe80::a", hlim=255) /
                        ICMPv6ND_Redirect(tgt=new, dst=far) /
                        ICMPv6NDOptRedirectedHdr(pkt=quoted.payload))
        wire.send(bytes(Ether(src=b.mac, dst=a.mac) / redirect))
        lib.wait_for(f"a route via {new}", lambda: f"via {new}" in lib.sh(
            f"ip -n {a.ns} route get {far} from {me}"))
        wire.close()


def of_kernel(name):
    """A case of net/pmtu.sh, in namespaces that refuse stock ESP"""
    if not (NET / "nettest").exists():
        raise lib.Skip("needs net/nettest; build it with make -C ../net")
    default = PARAMETER.read_text()
    PARAMETER.write_text("1")
    try:
        said = lib.sh(f"cd {NET}; PATH=.:$PATH ./pmtu.sh {name} 2>&1", check=False)
    finally:
        PARAMETER.write_text(default)
    assert "[ OK ]" in said, said


def cases():
    for family in (4, 6):
        for kind, words in (("minimal", ""), ("stock", lib.XFLAG_STOCK)):
            yield (f"a redirect, IPv{family}, {kind}",
                   lambda f=family, w=words: redirected(f, w))
    for n, args in enumerate(lib.MODES):
        if share.mine(n):
            yield ("path MTU, {}, IPv{} in IPv{}".format(*args),
                   lambda args=args: same_as_stock(*args))
    yield "path MTU, AES-CBC, transport", lambda: same_as_stock(
        "transport", 6, 6, suite=lib.CBC)
    yield "path MTU, AES-CBC, tunnel", lambda: same_as_stock(
        "tunnel", 6, 4, suite=lib.CBC)
    yield "path MTU, implicit IV", lambda: implicit_iv("tunnel", 4, 4)
    for family in (4, 6):
        yield f"too big for IPv{family}", lambda f=family: too_big(f)
    for n, name in enumerate(VTI):
        if share.mine(n):
            yield f"net/pmtu.sh, {name}", lambda name=name: of_kernel(name)


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"], imports=["scapy"])
