# SPDX-License-Identifier: GPL-2.0
"""Hosts: network namespaces, and the wire between two of them.

Each host has its outer address on its end of the wire, and its inner address on lo.
"""
import contextlib
import itertools
import os
import pathlib
import re
import socket

from . import libc
from .command import sh
from .sa import SPI, SUITE
from .wait import TIMEOUT

SO_RCVBUFFORCE = 33     # asm-generic/socket.h; Python lacks it

ADDRESSES = {
    ("outer", 4): {"a": "192.0.2.1", "b": "192.0.2.2"},
    ("outer", 6): {"a": "2001:db8::1", "b": "2001:db8::2"},
    ("inner", 4): {"a": "198.51.100.1", "b": "198.51.100.2"},
    ("inner", 6): {"a": "2001:db8:1::1", "b": "2001:db8:1::2"},
}

# Counters of minesp that do not count errors
NO_ERRORS = {"InPackets", "OutPackets", "InDummies", "InDirect", "InLookup", "StockSpi",
             "StockMode", "StockEncap", "StockTfcPad", "StockSnWrap", "StockSuite",
             "StockKey"}


class Host:
    """A network namespace, made by namespaces(). name: "a" or "b", or "r" for a router
    between them"""
    numbers = itertools.count()

    def __init__(self, name):
        self.name = name
        self.peer = "b" if name == "a" else "a"
        self.ns = f"minesp-{name}-{os.getpid()}-{next(self.numbers)}"
        self.mac = f"02:00:00:00:00:0{name}"

    def delete(self):
        sh(f"ip netns del {self.ns}", check=False)

    @contextlib.contextmanager
    def inside(self):
        """Moves this thread into the namespace for the block."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.ns}", os.O_RDONLY)
        libc.call("setns", there, libc.CLONE_NEWNET)
        try:
            yield
        finally:
            libc.call("setns", here, libc.CLONE_NEWNET)
            os.close(here)
            os.close(there)

    def ip(self, lines, check=True):
        """Runs lines of ip(8) in one call."""
        return sh(f"ip -n {self.ns} -batch -", check, lines)

    def sh(self, command, check=True, stdin=None):
        """Runs a command in the namespace, but with the /sys and the /etc of the machine."""
        with self.inside():
            return sh(command, check, stdin)

    def settings(self, **values):
        """Sets sysctls of net.minesp."""
        for name, value in values.items():
            self.sysctl(f"net.minesp.{name}", value)

    def socket(self, family, kind, proto=0, timeout=TIMEOUT):
        with self.inside():
            sock = socket.socket(family, kind, proto)
        sock.settimeout(timeout)
        return sock

    def wire(self, device="veth0", room=0):
        """Returns a socket that receives all frames of a device and can send frames.
        room: size of its receive buffer in bytes, if the default is too small"""
        sock = self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        if room:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room)
        sock.bind((device, 0))
        return sock

    def sysctl(self, name, value=None):
        with self.inside():
            path = pathlib.Path("/proc/sys", name.replace(".", "/"))
            if value is None:
                return path.read_text().strip()
            path.write_text(f"{value}\n")

    def _counters(self, name):
        with self.inside():
            text = pathlib.Path("/proc/thread-self/net", name).read_text()
        return {k: int(v) for k, v in map(str.split, text.splitlines())}

    def stats(self):
        """Returns the counters of minesp."""
        return self._counters("minesp_stat")

    def counters(self):
        """Returns the counters of xfrm and minesp."""
        return self._counters("xfrm_stat") | self.stats()

    def errors(self, before={}):
        """Returns the error counters of xfrm and minesp that have changed, with the
        differences: since before, or since the host was made."""
        moved = {k: v - before.get(k, 0) for k, v in self.counters().items()
                 if k not in NO_ERRORS}
        return {k: v for k, v in moved.items() if v}

    def listed(self):
        """Returns the minimal SAs in /proc/net/minesp as {SPI: {heading: field}}."""
        with self.inside(), open("/proc/thread-self/net/minesp") as f:
            heading, *lines = map(str.split, f)
        return {int(line[0], 16): dict(zip(heading, line)) for line in lines}

    def address(self, family, kind="outer"):
        return ADDRESSES[kind, family][self.name]

    def carried(self, spi):
        """Returns the bytes and packets that an SA has carried, from ip -s xfrm state."""
        said = sh(f"ip -n {self.ns} -s xfrm state list spi {spi:#x}")
        current = said.split("lifetime current:")[1]
        return tuple(map(int, re.search(r"(\d+)\(bytes\), (\d+)\(packets\)",
                                        current).groups()))

    def sas(self, mode, inner, outer, words="", suite=SUITE, window=1024):
        """Replaces all SAs and policies by new ones for traffic with the peer. words:
        added to each SA"""
        kind = "inner" if mode == "tunnel" else "outer"
        me, peer = (f"{ADDRESSES[kind, inner][h]}/{32 if inner == 4 else 128}"
                    for h in (self.name, self.peer))
        o_me, o_peer = (ADDRESSES["outer", outer][h]
                        for h in (self.name, self.peer))
        sa = (f"reqid 1 mode {mode} replay-window {window} "
              f"{suite} {words}")
        esp = f"proto esp reqid 1 mode {mode}"
        self.ip(f"""
            xfrm policy flush
            xfrm state flush
            xfrm state add src {o_me} dst {o_peer} proto esp spi {SPI[self.peer]:#x} {sa} \
                sel src {me} dst {peer}
            xfrm state add src {o_peer} dst {o_me} proto esp spi {SPI[self.name]:#x} {sa} \
                sel src {peer} dst {me}
            xfrm policy add src {me} dst {peer} dir out tmpl src {o_me} dst {o_peer} {esp}
            xfrm policy add src {peer} dst {me} dir in tmpl src {o_peer} dst {o_me} {esp}
        """)


_gro = _offload = False     # see gro()


@contextlib.contextmanager
def gro(enabled=True, offload=False):
    """Makes hosts() enable GRO in this block, so that esp4_offload and esp6_offload
    receive ESP. offload: makes it set net.minesp.offload, too, so that minesp does. Needs
    ethtool."""
    global _gro, _offload
    _gro, _offload = enabled, offload
    try:
        yield
    finally:
        _gro = _offload = False


@contextlib.contextmanager
def namespaces(names, link=lambda *hosts: ""):
    """Makes hosts with these names. link: returns one more line for ip(8), given the hosts"""
    made = [Host(name) for name in names]
    try:
        # One call, because starting a program takes long in an emulated machine.
        sh("ip -batch -", stdin="\n".join([*(f"netns add {h.ns}" for h in made),
                                           link(*made)]))
        yield made
    finally:
        sh("ip -force -batch -", False, "\n".join(f"netns del {h.ns}" for h in made))


@contextlib.contextmanager
def hosts(mtu=1500):
    """Makes two hosts and a wire between them, which carries only the tests' traffic."""
    def wire(a, b):
        return (f"link add veth0 address {a.mac} mtu {mtu} netns {a.ns} type veth "
                f"peer name veth0 address {b.mac} mtu {mtu} netns {b.ns}")

    with namespaces("ab", wire) as (a, b):
        for h, peer in ((a, b), (b, a)):
            for name, value in (("accept_ra", 0), ("router_solicitations", 0),
                                ("accept_dad", 0), ("addr_gen_mode", 1)):
                h.sysctl(f"net.ipv6.conf.veth0.{name}", value)
            # The hosts have no link-local addresses, so the neighbours are static.
            h.ip(f"""
                link set lo up
                addr add {h.address(4)}/24 dev veth0
                addr add {h.address(6)}/64 dev veth0 nodad
                addr add {h.address(4, 'inner')}/32 dev lo
                addr add {h.address(6, 'inner')}/128 dev lo nodad
                link set veth0 up
                neigh replace {peer.address(4)} lladdr {peer.mac} dev veth0
                neigh replace {peer.address(6)} lladdr {peer.mac} dev veth0
                neigh replace {peer.address(4, 'inner')} lladdr {peer.mac} dev veth0
                route add {peer.address(4, 'inner')} dev veth0 src {h.address(4, 'inner')}
                route add {peer.address(6, 'inner')} via {peer.address(6)} dev veth0 \
                    src {h.address(6, 'inner')}
            """)
            if _gro:
                # With TSO on, veth does not pass packets to GRO.
                h.sh("ethtool -K veth0 gro on tso off")
            if _offload:
                h.settings(offload=1)
        yield a, b


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET
