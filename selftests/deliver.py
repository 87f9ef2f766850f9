#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The path of a packet after minesp has decrypted it: netfilter, taps, tc, devices below
and above. Most cases compare this path with that of stock SAs. With net.minesp.offload they
compare it with Documentation/offload.rst. Other cases check that minesp does not write to
memory that packets share with files and processes."""
import collections
import contextlib
import itertools
import json
import mmap
import os
import random
import select
import socket
import struct
import tempfile

import lib
from lib import kmod, libc, nat, nfqueue, offloading, share, traffic

try:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    AESGCM = None   # run() skips the test

PORT, OTHER_PORT = 7001, 7002
PACKETS = 6
KINDS = {"minimal": lib.XFLAG_MINIMAL, "stock": lib.XFLAG_STOCK}
OFFLOAD = dict.fromkeys((0, 1), lib.XFLAG_MINIMAL)      # net.minesp.offload
SO_NO_CHECK, UDP_NO_CHECK6_TX = 11, 101     # Python does not have them

# Rules that count for Watch: in each hook, for received packets, for packets to send
COUNTED = {
    "esp": "meta l4proto esp",
    "udp": "meta l4proto udp",
    "large esp": "meta l4proto esp meta length > 2000",
    "large tcp": "meta l4proto tcp meta length > 2000",
}
RECEIVED = {
    "ipsec": "meta l4proto udp meta ipsec exists",
    "no ipsec": "meta l4proto udp meta ipsec missing",
    "policy": "meta l4proto udp ipsec in reqid 1",
    "SPI": f"meta l4proto udp ipsec in spi {lib.SPI['b']:#x}",
    "new": "meta l4proto udp ct state new",
    "known": "meta l4proto udp ct state established",
    "mark": "meta l4proto udp meta mark 0",
    "no veth": 'meta l4proto udp meta iifname != "veth0"',
}
# The destination port and the length of a datagram of send(). Where it is not encrypted, it
# is behind a header and an IV of ESP, and in tunnel mode behind the inner IP header, too.
DATAGRAM = struct.pack(">HH", PORT, 9)
SENT = {f"clear {what}": f"meta l4proto esp @th,{8 * (16 + n + 2)},32 0x{DATAGRAM.hex()}"
        for what, n in (("udp", 0), ("IPv4", 20), ("IPv6", 40))}


class Watch:
    """Counts what a host sees, by rules of nftables, filters of tc at veth0, and packet
    sockets on devices."""

    def __init__(self, host):
        self.host = host

        def chain(hook, priority, *parts, device=""):
            rules = "\n".join(f'{words} counter comment "{name}"'
                              for part in parts for name, words in part.items())
            return (f"chain {hook} {{\n"
                    f"type filter hook {hook} {device} priority {priority};\n{rules}\n}}")

        # host.sh() is faster than "ip netns exec" and "tc -n", which mount /sys.
        host.sh("nft -f -", stdin=f"""
            table inet watch {{
                {chain("prerouting", "mangle", COUNTED, RECEIVED)}
                {chain("input", "filter", COUNTED, RECEIVED)}
                {chain("output", "filter", COUNTED, SENT)}
                {chain("postrouting", "filter", COUNTED, SENT)}
                chain address {{
                    type nat hook prerouting priority dstnat;
                }}
                chain late {{
                    type filter hook prerouting priority 0;
                }}
            }}
            table netdev watch {{
                {chain("ingress", "filter", COUNTED, device="device veth0")}
                {chain("egress", "filter", COUNTED, SENT, device="device veth0")}
            }}
        """)
        host.sh("tc -batch -", stdin="\n".join([
            "qdisc add dev veth0 clsact",
            *(f"filter add dev veth0 {way} protocol {ip} pref {10 * n + i} "
              f"flower ip_proto {proto:#x} action pass"
              for way in ("ingress", "egress")
              for n, ip in ((4, "ip"), (6, "ipv6"))
              for i, proto in enumerate((50, 17)))]))
        self.taps = []
        self.listen("veth0")
        self.total = collections.Counter()
        self.clean = True   # nothing has been counted since moved()
        self.tc = None      # "ingress" or "egress": count there in tc, too; slower

    def close(self):
        for tap in self.taps:
            tap.close()

    def listen(self, device):
        tap = self.host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        tap.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 20)
        tap.setblocking(False)
        tap.bind((device, 3))
        self.taps.append(tap)

    @contextlib.contextmanager
    def rule(self, chain, rule):
        """Adds a rule to one of the empty chains during the block."""
        self.host.sh(f"nft add rule inet watch {chain} {rule}")
        try:
            yield
        finally:
            self.host.sh(f"nft flush chain inet watch {chain}")

    def _nft(self):
        said = self.host.sh("nft -j list ruleset")
        for part in json.loads(said)["nftables"]:
            if "comment" in part.get("rule", ()):
                count, = (e["counter"]["packets"] for e in part["rule"]["expr"]
                          if "counter" in e)
                yield f"{part['rule']['chain']} {part['rule']['comment']}", count

    def _tc(self):
        said = self.host.sh(f"tc -s -j filter show dev veth0 {self.tc}")
        for part in json.loads(said):
            for action in part.get("options", {}).get("actions", ()):
                yield f"tc {self.tc} {part['pref']}", action["stats"]["packets"]

    def _taps(self):
        for tap in self.taps:
            # Its device may be gone.
            with contextlib.suppress(BlockingIOError, OSError):
                while True:
                    data, (device, *_) = tap.recvfrom(1 << 16)
                    proto = data[9] if data[0] >> 4 == 4 else data[6]
                    if proto in (6, 17, 50):
                        yield f"tap {device} {proto}{' large' * (len(data) > 2000)}", 1
                    if proto == 50 and DATAGRAM in data:
                        yield f"tap {device} clear", 1

    def moved(self):
        """Returns what has been counted since the last call, without zeros."""
        taps = collections.Counter(name for name, _ in self._taps())
        total = collections.Counter(dict([*self._nft(), *(self._tc() if self.tc else ())]))
        moved = total - self.total
        self.total, self.clean = total, True
        return dict(moved + taps)


def receiver(b, address, device=None, port=PORT):
    sock = b.socket(lib.family_of(address), socket.SOCK_DGRAM)
    if device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    sock.bind((address, port))
    return sock


def receive(a, b, sink, n):
    """Returns the next n datagrams, sorted, because the first one of an SA may be late."""
    came = []
    try:
        for _ in range(n):
            came.append(sink.recv(1 << 16))
    except TimeoutError:
        raise AssertionError(f"{len(came)} of {n} came; errors: {a.errors()}, "
                             f"{b.errors()}") from None
    return sorted(came)


def send(a, b, inner, kind, sink, sends=PACKETS):
    """Sends datagrams from a, and checks that they arrive at the socket sink."""
    with a.socket(sink.family, socket.SOCK_DGRAM) as source:
        source.bind((a.address(inner, kind), 0))
        for n in range(sends):
            source.sendto(bytes([n]), (lib.ADDRESSES[kind, inner]["b"], PORT))
    came = receive(a, b, sink, sends)
    lib.equal([data[0] for data in came], [*range(sends)], "datagrams")


def warm(a, b, inner, kind, sink):
    """Sends until GRO can decrypt the packets of an SA, one by one. minesp may find the SA by
    its SPI after the first packet, and how this kernel takes the SA after the third."""
    for _ in range(3):
        send(a, b, inner, kind, sink, 1)


def alike(a, b, watch, sink, mode, inner, outer, sas=None, offload=False):
    """Sends to minimal SAs of b, then to stock SAs, and checks that b sees the same.
    Returns what b sees. sas: a function that sets up the SAs of b with a flag, in place
    of Host.sas(). offload: compares net.minesp.offload=0 and 1 instead"""
    kind = "inner" if mode == "tunnel" else "outer"
    seen = {}
    a.sas(mode, inner, outer)
    if not watch.clean:
        watch.moved()
    for name, flag in (OFFLOAD if offload else KINDS).items():
        watch.clean = False
        if offload:
            b.settings(offload=name)
        if sas:
            sas(flag)
        else:
            b.sas(mode, inner, outer, flag)
        if offload:
            warm(a, b, inner, kind, sink)
            watch.moved()
        before, errors = b.stats(), b.errors()
        send(a, b, inner, kind, sink)
        seen[name] = watch.moved()
        now = b.stats()
        lib.equal(now["InPackets"] - before["InPackets"],
                  0 if name == "stock" else PACKETS, "InPackets")
        lib.equal(b.errors(), errors, "errors")
    (one, first), (two, second) = seen.items()
    differ = {k: (first.get(k, 0), second.get(k, 0)) for k in first.keys() | second.keys()
              if first.get(k) != second.get(k)}
    lib.equal(differ, {}, f"what differs ({one}, {two})")
    return first


@contextlib.contextmanager
def watched(gro=False):
    with contextlib.ExitStack() as stack:
        with lib.gro(gro):
            a, b = stack.enter_context(lib.hosts())
        yield a, b, stack.enter_context(contextlib.closing(Watch(b)))


@lib.fixture
def common(gro):
    """Two hosts and a Watch, for the cases that do not change them"""
    with watched(gro) as (a, b, watch):
        yield a, b, watch


def fresh(gro=False):
    """Returns the common hosts and their Watch, without SAs."""
    a, b, watch = common(gro)
    watch.clean = False
    for h in (a, b):
        h.ip("xfrm state flush\nxfrm policy flush")
    return a, b, watch


def sent(mode, inner, outer, offload):
    """Returns what the sender of PACKETS datagrams sees (Documentation/offload.rst)."""
    wanted = [f"{hook} {what}" for hook in ("output", "postrouting")
              for what in ("udp", "esp")]
    wanted += ["egress esp", f"tc egress {outer}0", "tap veth0 50"]
    if offload:
        clear = f"clear IPv{inner}" if mode == "tunnel" else "clear udp"
        wanted += [f"{hook} {clear}" for hook in ("output", "postrouting", "egress")]
    return dict.fromkeys(wanted, PACKETS)


def came(mode, inner, outer, offload=0):
    """Returns what the receiver of PACKETS datagrams sees. In transport mode the plaintext
    passes PREROUTING and INPUT of netfilter, but neither ingress nor taps. In tunnel mode
    it passes all of them. With offload=1 only the plaintext does."""
    hooks = "prerouting", "input"
    wanted = [f"{hook} {what}" for hook in hooks
              for what in ("udp", "ipsec", "policy", "SPI", "mark")]
    if not offload:
        wanted += [f"{hook} esp" for hook in (*hooks, "ingress")]
        wanted += [f"tc ingress {outer}0", "tap veth0 50"]
    if offload or mode == "tunnel":
        wanted += ["ingress udp", f"tc ingress {inner}1", "tap veth0 17"]
    return dict.fromkeys(wanted, PACKETS)


def tracked(got):
    """Checks that conntrack has seen each datagram, and returns what else was counted."""
    for hook in "prerouting", "input":
        lib.equal(got.pop(f"{hook} new", 0) + got.pop(f"{hook} known", 0), PACKETS,
                  "conntrack")
    return got


def seen(gro):
    """Packets in each mode pass what they pass with stock SAs."""
    if gro:
        # With the offloads, GRO would decrypt the packets of stock SAs.
        fresh()
        kmod.restore()
    with contextlib.ExitStack() as stack:
        a, b, watch = common(gro)
        watch.tc, watch.clean = "ingress", False
        stack.callback(setattr, watch, "tc", None)
        for mode, inner, outer in lib.MODES:
            kind = "inner" if mode == "tunnel" else "outer"
            with receiver(b, b.address(inner, kind)) as sink:
                got = alike(a, b, watch, sink, mode, inner, outer)
            lib.equal(tracked(got), came(mode, inner, outer),
                      f"{mode}, IPv{inner} in IPv{outer}")


# What is counted of large packets, with offload=1: at the sender, and at the receiver
LARGE = [{f"{hook} large {what}" for hook in ("output", "postrouting")
          for what in ("esp", "tcp")} | {"egress large esp"},
         {f"{hook} large tcp" for hook in ("ingress", "prerouting", "input")} |
         {"tap veth0 6 large"}]


def others(mode, inner, outer):
    """What Documentation/offload.rst says of what others see of a packet"""
    kind = "inner" if mode == "tunnel" else "outer"
    args = mode, inner, outer
    with watched(gro=True) as (a, b, watch), contextlib.closing(Watch(a)) as sender:
        for offload in 0, 1:
            watch.tc, sender.tc = "ingress", "egress"
            for h in (a, b):
                h.settings(offload=offload)
                h.sas(*args)
            with receiver(b, b.address(inner, kind)) as sink:
                warm(a, b, inner, kind, sink)
                for w in watch, sender:
                    w.moved()
                send(a, b, inner, kind, sink)
            for w, wanted in ((sender, sent(*args, offload)), (watch, came(*args, offload))):
                got = w.moved()
                lib.equal(tracked(got) if w is watch else got, wanted,
                          f"{w.host.name}, offload={offload}")
            watch.tc = sender.tc = None
            traffic.tcp(a, b, inner, kind, 1 << 18)
            large = [{name for name in w.moved() if "large" in name} for w in (sender, watch)]
            # Without offload, GRO merges the packets of a tunnel, too.
            if offload or mode == "transport":
                lib.equal(large, LARGE if offload else [set(), set()],
                          f"large packets, offload={offload}")
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


# Rules about the packets of b, {their DSCP: rule}. In prerouting and input the SA is b's.
PREROUTING = {1: "meta l4proto esp",
              2: "meta l4proto udp meta ipsec exists ipsec in reqid 1",
              3: "meta l4proto udp meta ipsec missing"}
INPUT = {4: "meta l4proto esp", 5: "meta l4proto udp ipsec in reqid 1"}
ROUTING, OUTPUT = 6, {7: "meta l4proto udp rt ipsec exists"}
# The DSCP of packets that arrive, with offload=0, with offload=1, and of fragments
ARRIVE = {0: [0, 3], 1: [0, 1, 3, 4, 6], "fragments": [0, 3]}


def drop(family, host, stack, **chains):
    """Drops packets by rules like those above, until the stack ends."""
    field = "ip dscp" if family == 4 else "ip6 dscp"
    host.sh("nft -f -", stdin="\n".join(["table inet decide {", *(
        line for hook, rules in chains.items() for line in (
            f"chain {hook} {{", f"type filter hook {hook} priority 0;",
            *(f"{field} {dscp} {rule} drop" for dscp, rule in rules.items()), "}")), "}"]))
    stack.callback(host.sh, "nft delete table inet decide")


def firewall(family):
    """Rules about IPsec apply with offload=0 and 1. Rules about ESP do not apply to the
    packets of an SA that has received before, with 1, but to its first packet and to
    fragments."""
    a, b, _ = fresh(True)
    address = b.address(family)
    with (contextlib.ExitStack() as stack, receiver(b, address) as sink,
          a.socket(sink.family, socket.SOCK_DGRAM) as source):
        drop(family, b, stack, prerouting=PREROUTING, input=INPUT)
        drop(family, a, stack, output=OUTPUT)
        # The rule must come before the one for local addresses.
        rule = f"-{family} -batch -"
        b.sh(f"ip {rule}", stdin=f"""
            rule add pref 2 lookup local
            rule del pref 0
            rule add pref 1 ipproto esp tos {4 * ROUTING:#x} prohibit
        """)
        stack.callback(b.sh, f"ip {rule}", stdin="""
            rule add pref 0 lookup local
            rule del pref 1
            rule del pref 2
        """)

        def sent(dscp, size=1):
            source.setsockopt(*((socket.IPPROTO_IP, socket.IP_TOS) if family == 4 else
                                (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)), 4 * dscp)
            source.sendto(bytes([dscp]) * size, (address, PORT))

        def arrived():
            """Returns the DSCP of what has arrived. The last packet is not dropped."""
            sent(0, 2)
            came = []
            while len(data := sink.recv(1 << 16)) != 2:
                came.append(data[0])
            return came

        for offload in 0, 1:
            for h in (a, b):
                h.settings(offload=offload)
                h.sas("transport", family, family)
            sent(1)
            lib.equal(arrived(), [], f"the first packet, offload={offload}")
            warm(a, b, family, "outer", sink)
            for kind, size in (offload, 1), ("fragments", 4000):
                for dscp in range(ROUTING + 1):
                    sent(dscp, size)
                lib.equal(arrived(), ARRIVE[kind], f"{kind}, offload={offload}")
                try:
                    sent(*OUTPUT)
                except PermissionError:
                    pass
                else:
                    raise AssertionError(f"sent, offload={offload}")


def reverse_path():
    """rp_filter applies to ESP with offload=0, but never to a packet that has been ESP."""
    a, b, _ = fresh(True)
    with (receiver(b, b.address(4, "inner")) as sink, contextlib.ExitStack() as stack,
          a.socket(sink.family, socket.SOCK_DGRAM) as source):
        source.bind((a.address(4, "inner"), 0))
        b.ip("link add other type dummy\nlink set other up")
        stack.callback(b.ip, "link del other")
        for offload in 0, 1:
            for h in (a, b):
                h.settings(offload=offload)
                h.sas("tunnel", 4, 4)
            warm(a, b, 4, "inner", sink)
            came = []
            for kind in "inner", "outer":
                route = f"{a.address(4, kind)}/32 dev other"
                b.ip(f"route prepend {route}")
                for strict in 1, 0:
                    b.sysctl("net.ipv4.conf.veth0.rp_filter", strict)
                    source.sendto(f"{kind} {strict}".encode(), sink.getsockname())
                # The second packet is not dropped.
                while (data := sink.recv(100).decode()) != f"{kind} 0":
                    came.append(data)
                b.ip(f"route del {route}")
            lib.equal(came, ["inner 1", "outer 1"][:1 + offload],
                      f"arrived, offload={offload}")


DEVICES = ("VRF", "VLAN", "macvlan", "bridge", "bond")


def put_on(kind, a, b, gro):
    """Moves the addresses of b from veth0 to dev0, a device above it."""
    moved = [(a, b)] if kind != "VLAN" else [(a, b), (b, a)]
    add = {"VRF": "dev0 type vrf table 10",
           "VLAN": "link veth0 name dev0 type vlan id 5",
           # With the MAC address of veth0
           "macvlan": "link veth0 name dev0 type macvlan mode passthru",
           "bridge": f"dev0 address {b.mac} type bridge",
           "bond": f"dev0 address {b.mac} type bond mode active-backup"}[kind]
    for peer, h in moved:
        h.ip(f"link add {add}")
        if kind in ("bridge", "bond", "VRF"):
            h.ip("link set veth0 down\nlink set veth0 master dev0\nlink set veth0 up")
        h.sysctl("net.ipv6.conf.dev0.addr_gen_mode", 1)
        h.sysctl("net.ipv6.conf.dev0.accept_dad", 0)
        at = "veth0" if kind == "VRF" else "dev0"
        h.ip(f"""
            addr flush dev veth0
            link set dev0 up
            addr add {h.address(4)}/24 dev {at}
            addr add {h.address(6)}/64 dev {at} nodad
        """)
        if kind == "VRF":
            h.ip(f"""
                addr del {h.address(4, 'inner')}/32 dev lo
                addr add {h.address(4, 'inner')}/32 dev dev0
            """)
        # For tunnel mode. GRO is on by default.
        if not gro:
            h.sh("ethtool -K dev0 gro off")
    if kind == "VLAN":
        a.ip(f"""
            neigh replace {b.address(4)} lladdr {b.mac} dev dev0
            neigh replace {b.address(6)} lladdr {b.mac} dev dev0
            neigh replace {b.address(4, 'inner')} lladdr {b.mac} dev dev0
            route replace {b.address(4, 'inner')} dev dev0 src {a.address(4, 'inner')}
        """)


def device(kind, offload=False):
    """ESP for an address on a device above veth0. IP processes it before it is decrypted,
    also with offload=1."""
    with watched(gro=offload) as (a, b, watch):
        put_on(kind, a, b, offload)
        watch.listen("dev0")
        # put_on() may take a link down, which leaves an error in its packet sockets:
        # read the error, too.
        watch.clean = False
        modes = ("transport", 4, 4), ("transport", 6, 6), ("tunnel", 4, 4)
        for mode, inner, outer in modes[1:2] if offload else modes[kind != "VRF":]:
            way = "inner" if mode == "tunnel" else "outer"
            with receiver(b, b.address(inner, way), kind == "VRF" and "dev0") as sink:
                got = alike(a, b, watch, sink, mode, inner, outer, offload=offload)
            lib.equal(got["tap veth0 50"], PACKETS, "ESP on veth0")
            lib.equal(got["tap dev0 50"], PACKETS, "ESP on the device above")
            lib.equal(got["input no veth"], PACKETS, "input on the device above")
        if offload and kind in ABOVE:
            interface(a, b, watch, *ABOVE[kind], offload)


# Interfaces above some devices
ABOVE = {"VLAN": ("xfrm", "transport", 6), "bridge": ("vti", "tunnel", 4),
         "macvlan": ("external", "tunnel", 4)}


def interface(a, b, watch, kind, mode, family, offload=False):
    """Packets of an XFRM interface, or of VTI, arrive on that interface. IP processes them
    before they are decrypted, also with offload=1."""
    words = "mark 7" if kind == "vti" else "if_id 7"
    with contextlib.ExitStack() as stack:
        me, peer = b.address(family), a.address(family)
        six, anyone = ("6", "::/0") if family == 6 else ("", "0.0.0.0/0")
        b.ip("link add tun0 type " + {
            "xfrm": "xfrm dev veth0 if_id 7",
            "external": "xfrm external",
            "vti": f"vti{six} local {me} remote {peer} key 7"}[kind])
        b.sysctl("net.ipv6.conf.tun0.addr_gen_mode", 1)
        b.ip("link set tun0 up")
        stack.callback(b.ip, "link del tun0")
        watch.listen("tun0")

        def sas(flag):
            b.ip(f"""
                xfrm policy flush
                xfrm state flush
                xfrm state add src {peer} dst {me} proto esp spi {lib.SPI['b']:#x} \
                    reqid 1 mode {mode} replay-window 1024 {lib.SUITE} {words} {flag}
                xfrm policy add src {anyone} dst {anyone} dir in \
                    tmpl src {peer} dst {me} proto esp reqid 1 mode {mode} {words}
            """)

        way = "inner" if mode == "tunnel" else "outer"
        with receiver(b, b.address(family, way)) as sink:
            got = alike(a, b, watch, sink, mode, family, family, sas, offload)
        lib.equal(got["input esp"], PACKETS, "ESP")
        lib.equal(got["input no veth"], PACKETS, "input on the interface")


def marked():
    """Netfilter may change the mark of a packet before its SA is looked up, also with
    offload=1."""
    a, b, watch = fresh(True)
    with receiver(b, b.address(4)) as sink:
        got = alike(a, b, watch, sink, "transport", 4, 4, lambda flag: b.sas(
            "transport", 4, 4, f"{flag} mark 0 mask 0xff"), True)
    lib.equal(got["input esp"], PACKETS, "ESP")


@lib.fixture
def beyond(gro):
    """A third host, to which b of common(gro) forwards"""
    _, b, _ = common(gro)
    with lib.namespaces("r") as [r]:
        b.sysctl("net.ipv4.ip_forward", 1)
        b.sysctl("net.ipv6.conf.all.forwarding", 1)
        b.ip(f"link add to-r type veth peer name veth0 netns {r.ns}")
        for h, link, n in (b, "to-r", 1), (r, "veth0", 2):
            h.sysctl(f"net.ipv6.conf.{link}.accept_dad", 0)
            h.ip(f"""
                addr add 203.0.113.{n}/24 dev {link}
                addr add 2001:db8:2::{n}/64 dev {link} nodad
                link set {link} up
            """)
        yield r, {4: "203.0.113.2", 6: "2001:db8:2::2"}


def dnat(family, where, offload=False):
    """DNAT of decrypted packets, to an address of this host or of another host"""
    a, b, watch = fresh(offload)
    r, addresses = beyond(offload)
    host, to = (r, addresses[family])
    if where == "this host":
        host, to = b, b.address(family, "inner")
    new = f"ip to {to}" if family == 4 else f"ip6 to [{to}]"
    with (watch.rule("address", f"udp dport {PORT} meta ipsec exists dnat "
                     f"{new}:{OTHER_PORT}"), receiver(host, to, port=OTHER_PORT) as sink):
        if offload:
            for h in (a, b):
                h.settings(offload=1)
                h.sas("transport", family, family)
            warm(a, b, family, "outer", sink)
            watch.moved()
            send(a, b, family, "outer", sink)
            got = watch.moved()
            lib.equal(got.get("ingress udp"), PACKETS, "packets that GRO decrypts")
        else:
            got = alike(a, b, watch, sink, "transport", family, family)
    lib.equal(got.get("input udp", 0), PACKETS if where == "this host" else 0, "input")


def port_unreachable(family):
    """The ICMP error for a decrypted packet returns in ESP."""
    a, b, watch = fresh()
    before = a.errors(), b.errors()
    moved = {}
    for name, flag in KINDS.items():
        for h in (a, b):
            h.sas("transport", family, family, flag)
        watch.moved()
        with a.socket(lib.family_of(a.address(family)), socket.SOCK_DGRAM) as sock:
            sock.connect((b.address(family), OTHER_PORT))
            for _ in range(2):
                sock.send(b"x")
                try:
                    sock.recv(1)
                except ConnectionRefusedError:
                    pass
                else:
                    raise AssertionError("no error")
        moved[name] = watch.moved()
    lib.equal(moved["minimal"], moved["stock"], "minimal, and stock")
    lib.equal((a.errors(), b.errors()), before, "errors")


def in_order():
    """In the first burst of a new SA, no packet overtakes another."""
    wrong = []
    with lib.hosts() as (a, b):
        # Packets that are sent within 300 ms arrive at once.
        a.sh("tc qdisc add dev veth0 root netem slot 300ms 300ms")
        for (mode, inner, outer), name in itertools.product(lib.MODES[:4], KINDS):
            kind = "inner" if mode == "tunnel" else "outer"
            for h in (a, b):
                h.sas(mode, inner, outer, KINDS[name])
            with (receiver(b, b.address(inner, kind)) as sink,
                  a.socket(sink.family, socket.SOCK_DGRAM) as source):
                for n in range(50):
                    source.sendto(bytes([n]), sink.getsockname()[:2])
                came = [sink.recv(1)[0] for _ in range(50)]
            if came != [*range(50)]:
                wrong.append(f"{name}, {mode}, IPv{outer}: {came}")
    assert not wrong, "\n".join(wrong)


# Packets that this program makes itself

def checksum(data):
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff or 0xffff


def udp(a, family, data, sport=PORT, dport=PORT, kind="outer", check=True):
    """Returns a UDP datagram from a to b."""
    head = struct.pack(">HHHH", sport, dport, 8 + len(data), 0)
    if not check:
        return head + data
    pseudo = b"".join(socket.inet_pton(lib.family_of(x), x) for x in (
        a.address(family, kind), lib.ADDRESSES[kind, family]["b"]))
    pseudo += struct.pack(">II", 8 + len(data), socket.IPPROTO_UDP)
    return head[:6] + struct.pack(">H", checksum(pseudo + head + data)) + data


def ip(a, family, proto, data, kind="outer"):
    """Returns an IP packet from a to b."""
    src, dst = (socket.inet_pton(lib.family_of(x), x) for x in (
        a.address(family, kind), lib.ADDRESSES[kind, family]["b"]))
    if family == 6:
        return struct.pack(">IHBB", 6 << 28, len(data), proto, 64) + src + dst + data
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, proto, 0) + src + dst
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + data


def esp(spi, seq, payload, proto):
    """Returns ESP around a payload: the header, and the rest."""
    key = bytes.fromhex(lib.KEYS[128][2:])
    head, iv = struct.pack(">II", spi, seq), random.randbytes(8)
    pad = -(len(payload) + 2) % 4
    plain = payload + bytes(range(1, 1 + pad)) + bytes([pad, proto])
    return head, iv + AESGCM(key[:16]).encrypt(key[16:] + iv, plain, head)


def frame(a, b, packet):
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86dd
    return b"".join(bytes.fromhex(h.mac.replace(":", "")) for h in (b, a)) + struct.pack(
        ">H", kind) + packet


def inbound_sa(b, family, spi, flag, mode="transport", more="", kind="outer"):
    src, dst = (lib.ADDRESSES[kind, family][h] for h in "ab")
    return (f"xfrm state add src {src} dst {dst} proto esp spi {spi:#x} reqid 1 mode {mode} "
            f"replay-window 32 {lib.SUITE} {flag} {more}")


def by_ip(family):
    """IP processes some packets before they are decrypted, also with offload=1. IP drops a
    packet that is not for this host, so its SN is still unused. GRO decrypts the others."""
    a, b, watch = fresh(True)
    b.settings(offload=1)
    b.ip(inbound_sa(b, family, 0x2000, lib.XFLAG_MINIMAL, kind="inner"))
    address = b.address(family, "inner")
    seq = itertools.count(1)
    with contextlib.closing(a.wire()) as wire, receiver(b, address) as sink:
        def packet(data):
            return b"".join(esp(0x2000, next(seq), udp(a, family, data, kind="inner"), 17))

        def whole(payload, proto=50):
            return frame(a, b, ip(a, family, proto, payload, "inner"))

        def arrives(frame, data):
            wire.send(frame)
            lib.equal(receive(a, b, sink, 1), [data], "data")

        for _ in range(3):
            arrives(whole(packet(b"before")), b"before")
        watch.moved()
        for data, other in (
                (b"another MAC", lambda one: b"\2\0\0\0\0\x0f" + whole(one)[6:]),
                (b"VLAN", lambda one: whole(one)[:12] + b"\x81\0\0\5" + whole(one)[12:]),
                (b"tunnel", lambda one: whole(whole(one)[14:], 4 if family == 4 else 41))):
            one = packet(data)
            wire.send(other(one))
            arrives(whole(one), data)
        lib.equal(watch.moved().get("tap veth0 17"), 3, "packets that GRO decrypts")

        arrives(whole(packet(b"padding")) + bytes(9), b"padding")
        if family == 6:
            # Destination options: a PadN option of 6 bytes
            arrives(whole(bytes.fromhex("3200010400000000") + packet(b"options"), 60),
                    b"options")
        got = watch.moved()
        lib.equal((got.get("input esp"), got.get("tap veth0 17")), (1 + (family == 6), None),
                  "ESP and plaintext")

        # An SA may outlive its address.
        one = packet(b"address")
        b.ip(f"addr del {address} dev lo")
        wire.send(whole(one))
        lib.wait_for("the packet", lambda: any(k.startswith("tap") for k in watch.moved()))
        b.ip(f"addr add {address} dev lo {'nodad' * (family == 6)}")
        arrives(whole(one), b"address")


def many_times_in_udp():
    """ESP in UDP in ESP, and so on: as deep as xfrm accepts, and deeper. The outermost
    SA is minimal or stock. The other SAs are stock."""
    moved = {}
    a, b, watch = fresh()
    watch.moved()
    with (nat.ike(b), contextlib.closing(a.wire()) as wire,
          receiver(b, b.address(4)) as sink):
        for name, flag in KINDS.items():
            b.ip("\n".join(["xfrm state flush", inbound_sa(b, 4, 0x2000, flag), *(
                inbound_sa(b, 4, 0x3000 + n, lib.XFLAG_STOCK,
                           more=nat.WORDS) for n in range(8))]))
            before = b.counters()
            # XFRM_MAX_DEPTH is 6.
            for seq, depth in enumerate((0, 0, 1, 5, 6, 8, 5), start=1):
                packet = udp(a, 4, bytes([depth]))
                for n in range(depth):
                    packet = udp(a, 4, b"".join(esp(0x3000 + n, seq, packet, 17)),
                                 4500, 4500, check=False)
                wire.send(frame(a, b, ip(a, 4, 50, b"".join(esp(0x2000, seq, packet, 17)))))
                if depth < 6:
                    lib.equal(sink.recv(10), bytes([depth]), "data")
                else:
                    dropped = before["XfrmInBufferError"] + 1 + (depth > 6)
                    lib.wait_for("a packet too deep is dropped", lambda:
                                 b.counters()["XfrmInBufferError"] == dropped)
            moved[name] = watch.moved() | {
                k: v - before[k] for k, v in b.counters().items() if k.startswith("Xfrm")}
        lib.equal(moved["minimal"], moved["stock"], "minimal, and stock")


def in_tunnel(mode, offload=False):
    """ESP for this host inside ESP in tunnel mode. offload: with GRO, but without stock SAs"""
    apps = {h: lib.ADDRESSES["inner", 4][h] for h in "ab"}
    with lib.gro(offload), lib.hosts() as (a, b):
        b.settings(offload=int(offload))
        if mode == "tunnel":
            apps = {"a": "198.51.100.11", "b": "198.51.100.12"}
            for h, peer in (a, b), (b, a):
                h.ip(f"""
                    addr add {apps[h.name]}/32 dev lo
                    neigh replace {apps[h.peer]} lladdr {peer.mac} dev veth0
                    route add {apps[h.peer]} dev veth0 src {apps[h.name]}
                """)
        how = (f"reqid 2 mode {mode}", "reqid 1 mode tunnel")
        src, dst = ([lib.ADDRESSES[kind, 4][h] for kind in ("inner", "outer")] for h in "ab")
        tmpl = " ".join(f"tmpl src {src[n]} dst {dst[n]} proto esp {how[n]}" for n in (0, 1))
        for name in ["minimal"] if offload else KINDS:
            for h, way in (a, "out"), (b, "in"):
                h.ip("\n".join(["xfrm state flush", "xfrm policy flush", *(
                    f"xfrm state add src {src[n]} dst {dst[n]} proto esp spi {0x2000 + n:#x} "
                    f"{how[n]} replay-window 1024 {lib.SUITE} {KINDS[name]}" for n in (0, 1)),
                    f"xfrm policy add src {apps['a']} dst {apps['b']} dir {way} "
                    f"priority 2 {tmpl}"]))
            # XFRM interfaces need this policy. Their module may be loaded.
            b.ip(f"xfrm policy add src {src[0]} dst {dst[0]} proto esp dir in priority 1 "
                 f"tmpl src {src[1]} dst {dst[1]} proto esp {how[1]}")
            before = b.stats()["InPackets"]
            with (receiver(b, apps["b"]) as sink,
                  a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source):
                source.bind((apps["a"], PORT))
                # GRO can only decrypt what comes after the first packets of an SA.
                for _ in range(2):
                    for n in range(PACKETS):
                        source.sendto(bytes([n]) * 100, sink.getsockname())
                    lib.equal([data[0] for data in receive(a, b, sink, PACKETS)],
                              [*range(PACKETS)], f"datagrams, {name}")
            lib.equal(b.stats()["InPackets"] - before,
                      4 * PACKETS if name == "minimal" else 0, "InPackets")
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


# Packets that a netfilter queue holds

@contextlib.contextmanager
def queued(family):
    """A netfilter queue of decrypted packets, whose SA is already direct. Afterwards all
    SAs are deleted."""
    a, b, watch = fresh()
    for h in (a, b):
        h.sas("transport", family, family)
    with (receiver(b, b.address(family)) as sink,
          a.socket(sink.family, socket.SOCK_DGRAM) as source):
        def send(data):
            source.sendto(data, sink.getsockname()[:2])

        for _ in range(2):
            send(b"before")
            lib.equal(sink.recv(100), b"before", "data")
        with (contextlib.closing(nfqueue.Queue(b)) as queue,
              watch.rule("late", "meta l4proto udp queue num 0")):
            yield a, b, queue, send, sink
    fresh()


def accepted(family):
    """A packet waits in a queue until it is accepted. Then it is delivered."""
    with queued(family) as (a, b, queue, send, sink):
        for n in range(3):
            send(bytes([n]))
            number = queue.take()
            assert not select.select([sink], [], [], 0)[0], "it did not wait"
            queue.accept(number)
            lib.equal(sink.recv(10), bytes([n]), "data")


def held(family):
    """A packet in a queue holds its SA and minesp until the queue is gone."""
    with kmod.restored():
        with queued(family) as (a, b, queue, send, sink):
            send(b"held")
            queue.take()
            for h in (a, b):
                h.ip("xfrm state flush\nxfrm policy flush")
            for _ in range(3):
                said = lib.sh("rmmod minesp", check=False)
                assert "in use" in said, said
        kmod.unload()


# Memory that packets share with files and processes

FILE = 256 << 10


def splice(sock, source, offset, count):
    """Sends a part of a file, without a copy if the kernel can."""
    out, into = os.pipe()
    os.splice(source, into, count, offset_src=offset)
    os.splice(out, sock.fileno(), count)
    os.close(out)
    os.close(into)


def vmsplice(sock, memory, count):
    """Sends the first bytes of memory, likewise."""
    out, into = os.pipe()
    libc.vmsplice(into, memory, count)
    os.splice(out, sock.fileno(), count)
    os.close(out)
    os.close(into)


def file_sent(enabled, mode, inner, outer):
    """Sending pages of a file or of a process does not change them."""
    kind = "inner" if mode == "tunnel" else "outer"
    data = random.randbytes(FILE)
    a, b, _ = fresh(enabled)
    errors = a.errors(), b.errors()
    with tempfile.TemporaryFile() as file, contextlib.closing(
            mmap.mmap(-1, 1 << 16)) as memory:
        for h in (a, b):
            h.settings(offload=int(enabled))
            h.sas(mode, inner, outer)
        file.write(data)
        file.flush()
        memory[:] = data[:len(memory)]
        to = b.address(inner, kind)
        with receiver(b, to) as sink, a.socket(sink.family, socket.SOCK_DGRAM) as source:
            source.bind((a.address(inner, kind), 0))
            source.connect((to, PORT))
            for n in range(3):
                splice(source, file.fileno(), n * 5000, 1200)
                lib.equal(sink.recv(1 << 16), data[n * 5000:][:1200], "data")
                vmsplice(source, memory, 1200)
                lib.equal(sink.recv(1 << 16), data[:1200], "data")
        with a.socket(lib.family_of(to), socket.SOCK_STREAM) as source, b.socket(
                lib.family_of(to), socket.SOCK_STREAM) as sink:
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sink.bind((to, PORT))
            sink.listen()
            source.bind((a.address(inner, kind), 0))
            source.connect((to, PORT))
            conn, _ = sink.accept()
            with conn, offloading.splits(a, enabled):
                conn.settimeout(lib.TIMEOUT)
                sent = 0
                while sent < FILE:
                    n = os.sendfile(source.fileno(), file.fileno(), sent,
                                    min(FILE - sent, 1 << 15))
                    got = b""
                    while len(got) < n:
                        got += conn.recv(n - len(got))
                    assert got == data[sent:sent + n], "data"
                    sent += n
        file.seek(0)
        assert file.read() == data, "the file has changed"
        assert memory[:] == data[:len(memory)], "the memory has changed"
        lib.equal((a.errors(), b.errors()), errors, "errors")


def file_received(enabled, mode, inner, outer):
    """ESP in the pages of a file is not decrypted in place. The file is sent by UDP, and
    tc makes the UDP header an ESP header: the ports become the SPI, the rest the SN."""
    kind = "inner" if mode == "tunnel" else "outer"
    spi = PORT << 16 | OTHER_PORT
    a, b, _ = fresh(enabled)
    b.settings(offload=int(enabled))
    errors = b.errors()
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        b.sas(mode, inner, outer)
        b.ip(inbound_sa(b, outer, spi, lib.XFLAG_MINIMAL, mode, "sel src {} dst {}".format(
            *(lib.ADDRESSES[kind, inner][h] for h in "ab"))))
        if outer == 4:
            become = "protocol ip", "munge ip protocol set 0x32 pipe action csum ip4h"
        else:
            become = "protocol ipv6", "munge ip6 nexthdr set 0x32"
        a.sh("tc -batch -", stdin=f"""
            qdisc replace dev veth0 clsact
            filter add dev veth0 egress {become[0]} pref 5 flower ip_proto udp \\
                dst_port {OTHER_PORT} action pedit ex {become[1]}
        """)
        stack.callback(a.sh, "tc qdisc del dev veth0 clsact")
        # GRO can only decrypt what comes after the first packets of an SA.
        stack.enter_context(offloading.decrypts(b, enabled, spi))
        with (receiver(b, b.address(inner, kind)) as sink, a.socket(
                lib.family_of(b.address(outer)), socket.SOCK_DGRAM) as source):
            source.bind((a.address(outer), PORT))
            source.connect((b.address(outer), OTHER_PORT))
            source.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
            if outer == 6:
                source.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_TX, 1)
            for n in range(7):
                data = random.randbytes(1000 + 4 * n)
                packet = udp(a, inner, data, kind=kind)
                proto = 17
                if mode == "tunnel":
                    packet = ip(a, inner, 17, packet, kind)
                    proto = 4 if inner == 4 else 41
                # 8 bytes of header, 8 of IV, 2 of trailer and the padding, 16 of ICV
                length = 8 + 8 + len(packet) + 2 + -(len(packet) + 2) % 4 + 16
                _, rest = esp(spi, length << 16, packet, proto)
                lib.equal(8 + len(rest), length, "length")
                file.seek(0)
                file.write(rest)
                file.flush()
                splice(source, file.fileno(), 0, len(rest))
                lib.equal(receive(a, b, sink, 1), [data], "data")
                file.seek(0)
                assert file.read() == rest, "the file has changed"
        lib.equal(b.errors(), errors, "errors")


def cases():
    # These are first, because TCP sockets of other cases keep their SAs for a while.
    for f in 4, 6:
        yield f"NFQUEUE, IPv{f}", lambda f=f: accepted(f)
        yield f"NFQUEUE and the end of minesp, IPv{f}", lambda f=f: held(f)
    for gro in False, True:
        yield (f"netfilter, tc and taps, GRO {'on' if gro else 'off'}",
               lambda gro=gro: seen(gro))
    for n, args in enumerate(itertools.product((4, 6), ("this host", "another host"))):
        if share.mine(n):
            yield "DNAT, IPv{}, to {}".format(*args), lambda args=args: dnat(*args)
    for kind in DEVICES:
        yield kind, lambda kind=kind: device(kind)
    interfaces = (("xfrm", "tunnel", 4), ("vti", "tunnel", 6), ("external", "tunnel", 4),
                  ("external", "tunnel", 6), ("xfrm", "transport", 6), ("vti", "tunnel", 4))
    for n, args in enumerate(interfaces):
        if share.mine(n):
            yield ("{} interface, {}, IPv{}".format(*args),
                   lambda args=args: interface(*fresh(), *args))
    for f in 4, 6:
        yield f"ICMP error, IPv{f}", lambda f=f: port_unreachable(f)
    yield "order at the beginning of an SA", in_order
    yield "ESP in UDP in ESP, and so on", many_times_in_udp
    for mode in "transport", "tunnel":
        yield f"{mode} mode in a tunnel", lambda mode=mode: in_tunnel(mode)
    for n, args in enumerate(lib.MODES):
        name = "{}, IPv{} in IPv{}".format(*args)
        if share.mine(n):
            yield f"a file sent, {name}", lambda a=args: file_sent(False, *a)
        if share.mine(n + 1):
            yield f"a file received, {name}", lambda a=args: file_received(False, *a)
    # These are last. From the first of them on, GRO decrypts the packets of stock SAs.
    for n, args in enumerate((("transport", 4, 4), ("tunnel", 6, 6), ("tunnel", 4, 6))):
        if share.mine(n):
            yield ("offload: what others see, {}, IPv{} in IPv{}".format(*args),
                   lambda args=args: others(*args))
    for n, args in enumerate(lib.MODES):
        name = "{}, IPv{} in IPv{}".format(*args)
        if share.mine(n + 1):
            yield f"offload: a file sent, {name}", lambda a=args: file_sent(True, *a)
        if share.mine(n + 2):
            yield f"offload: a file received, {name}", lambda a=args: file_received(True, *a)
    for n, args in enumerate(itertools.product((4, 6), ("this host", "another host"))):
        if share.mine(n + 1):
            yield ("offload: DNAT, IPv{}, to {}".format(*args),
                   lambda args=args: dnat(*args, True))
    if share.mine(1):
        yield "offload: rp_filter", reverse_path
    for n, f in enumerate((4, 6)):
        if share.mine(n):
            yield f"offload: rules of a firewall, IPv{f}", lambda f=f: firewall(f)
        if share.mine(n + 1):
            yield f"offload: not by GRO, IPv{f}", lambda f=f: by_ip(f)
    if share.mine(2):
        yield "offload: an SA with a mark", marked
    for n, kind in enumerate(DEVICES):
        if share.mine(n):
            yield f"offload: {kind}", lambda kind=kind: device(kind, True)
    for n, args in enumerate((interfaces[4], interfaces[1], interfaces[2])):
        if share.mine(n):
            yield ("offload: {} interface, {}, IPv{}".format(*args),
                   lambda args=args: interface(*fresh(True), *args, True))
    for n, mode in enumerate(("transport", "tunnel")):
        if share.mine(n + 2):
            yield f"offload: {mode} mode in a tunnel", lambda mode=mode: in_tunnel(mode, True)


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "nft", "tc", "ethtool"], imports=["cryptography"])
