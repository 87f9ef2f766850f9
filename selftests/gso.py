#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""net.minesp.offload on networks that lose, copy and reorder packets, and whose MTU
changes; with large UDP packets, with tunnels in ESP, and with ESP in ESP."""
import concurrent.futures
import contextlib
import socket
import struct
import threading

import lib
from lib import frame, pmtu, share, traffic

SIZE = 1 << 20
SEGMENTS = SIZE // 1500
PACKETS = 10
UDP_SEGMENT = 103       # linux/udp.h; Python does not have it
INSIDE = {"a": "203.0.113.1", "b": "203.0.113.2"}


def sas(h, templates, family=4, ends=None):
    """SAs between the outer addresses for each (number, mode), the innermost first. ends:
    the addresses of the policies, {host: address}; by default the outer addresses."""
    me, peer = h.address(family), lib.ADDRESSES["outer", family][h.peer]
    inner = ends or {h.name: me, h.peer: peer}
    lines = []
    for names, way in (h.name + h.peer, "out"), (h.peer + h.name, "in"):
        src, dst = (me if name == h.name else peer for name in names)
        spi = 0x1000 if src < dst else 0x2000
        lines += [f"xfrm state add src {src} dst {dst} proto esp spi {spi + n:#x} reqid {n} "
                  f"mode {mode} replay-window 1024 {lib.SUITE}" for n, mode in templates]
        tmpl = " ".join(f"tmpl src {src} dst {dst} proto esp reqid {n} mode {mode}"
                        for n, mode in templates)
        sel = "src {} dst {}".format(*(inner[name] for name in names))
        lines.append(f"xfrm policy add {sel} dir {way} {tmpl}")
    h.ip("\n".join(lines))


@contextlib.contextmanager
def on(*hosts):
    for h in hosts:
        h.settings(offload=1)
    yield


@contextlib.contextmanager
def hosts():
    with lib.gro(), lib.hosts() as (a, b), on(a, b):
        yield a, b


@contextlib.contextmanager
def unique(host, least):
    """Checks that the host sends at least this many ESP packets during the block, and no SN
    of an SA twice."""
    seen, stop = [], threading.Event()

    def watch():
        while True:
            try:
                esp = frame.payload(wire.recv(1 << 16), socket.IPPROTO_ESP)
            except TimeoutError:
                if stop.is_set():
                    return
                continue
            # The socket sees only outgoing ESP, because GRO decrypts incoming ESP first.
            if esp:
                seen.append(struct.unpack_from(">II", esp))

    with contextlib.closing(host.wire(room=1 << 24)) as wire:
        wire.settimeout(0.1)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
    assert len(seen) >= least, f"only {len(seen)} packets"
    lib.equal(len(set(seen)), len(seen), "packets with an SN of their own")


def tunnelled(mode, words):
    """Large packets of a tunnel arrive in ESP, and no SN is sent twice."""
    with hosts() as (a, b):
        for h in (a, b):
            sas(h, [(1, mode)])
        for h in (a, b):
            me, peer = h.address(4), lib.ADDRESSES["outer", 4][h.peer]
            h.ip(f"""
                link add tun7 type {words.format(me=me, peer=peer)}
                addr add {INSIDE[h.name]}/24 dev tun7
                link set tun7 up
            """)
        with unique(a, 2 * SEGMENTS), concurrent.futures.ThreadPoolExecutor() as pool:
            # Two at a time, so that two CPUs send
            both = [pool.submit(traffic.stream, a, INSIDE["a"], b, INSIDE["b"], SIZE, port)
                    for port in (8888, 8889)]
            for one in both:
                one.result()
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


def disturbed(mode, words):
    """The network loses, copies, delays and reorders packets. Those of a are large packets
    that are not split yet, those of b are segments."""
    with hosts() as (a, b):
        b.settings(offload=0)
        for h in (a, b):
            h.sas(mode, 4, 4, words)
            h.sh("tc qdisc add dev veth0 root netem limit 10000 "
                 "delay 2ms loss 2% duplicate 5% reorder 25%")
        kind = "inner" if mode == "tunnel" else "outer"
        with unique(a, SEGMENTS):
            traffic.tcp(a, b, 4, kind, SIZE)
        traffic.tcp(b, a, 4, kind, SIZE)
        # A copy of a large packet gets SNs of its own. A copy of a segment is a replay.
        lib.equal(b.errors(), {}, "errors of b")
        lib.equal(list(a.errors()), ["XfrmInStateSeqError"], "errors of a")


def mtu_changes(mode):
    """The MTU of the link changes during a stream."""
    kind = "inner" if mode == "tunnel" else "outer"
    with hosts() as (a, b), concurrent.futures.ThreadPoolExecutor() as pool:
        for h in (a, b):
            h.sas(mode, 4, 4)
        with unique(a, 6 * SEGMENTS):
            stream = pool.submit(traffic.tcp, a, b, 4, kind, 6 * SIZE)
            changes = 0
            while not stream.done():
                a.ip(f"link set veth0 mtu {(1280, 1500)[changes % 2]}")
                sent = a.stats()["OutPackets"]
                lib.wait_for("packets", lambda: stream.done() or
                             a.stats()["OutPackets"] > sent + 100)
                changes += 1
            stream.result()
        assert changes > 1, f"only {changes} changes"
        errors = a.errors()
        # xfrm counts this error when it tells a socket of the new MTU.
        errors.pop("XfrmOutStateModeError", None)
        lib.equal((errors, b.errors()), ({}, {}), "errors")


def path_mtu(*args):
    lib.equal(pmtu.found(*args, "", before=on), pmtu.found(*args, lib.XFLAG_STOCK),
              "MTU of the link, of the path")


def udp_segments():
    """A router sends large UDP packets through a tunnel. A socket cannot send such packets
    into ESP itself."""
    size, count = 1000, 20
    with hosts() as (a, b), lib.namespaces("r") as [r]:
        a.sysctl("net.ipv4.ip_forward", 1)
        a.ip(f"""
            link add to-r type veth peer name veth0 netns {r.ns}
            addr add 203.0.113.1/24 dev to-r
            link set to-r up
        """)
        r.ip("""
            addr add 203.0.113.2/24 dev veth0
            link set veth0 up
            route add default via 203.0.113.1
        """)
        b.ip(f"route add 203.0.113.0/24 via {a.address(4)}")
        for h in (a, b):
            sas(h, [(1, "tunnel")], ends={"a": "203.0.113.2", "b": b.address(4)})
        with (b.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
              r.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
              contextlib.closing(a.wire("to-r")) as wire):
            sink.bind((b.address(4), 7777))
            source.connect(sink.getsockname())
            source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
            with unique(a, count):
                source.send(b"".join(bytes([n]) * size for n in range(count)))
                came = [sink.recv(1 << 16) for _ in range(count)]
            lib.equal(sorted(came), [bytes([n]) * size for n in range(count)], "datagrams")
            while len(packet := wire.recv(1 << 16)) < count * size:
                assert packet[12:14] != b"\x08\x00", "the large packet was split too early"
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")
        lib.equal(a.stats()["OutPackets"], count, "OutPackets")


def nested(family):
    """ESP in ESP, both in transport mode."""
    with hosts() as (a, b):
        for h in (a, b):
            sas(h, [(1, "transport"), (2, "transport")], family)
        at_a, at_b = traffic.pair(a, b, family, "outer", 7777)
        with at_a, at_b:
            for n in range(PACKETS):
                at_a.send(bytes([n]))
                lib.equal(at_b.recv(10), bytes([n]), "data")
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")
        lib.equal(b.stats()["InPackets"], 2 * PACKETS, "InPackets")


def cases():
    yield "a network that loses, copies and reorders, transport mode", lambda: disturbed(
        "transport", "")
    yield "a network that loses, copies and reorders, tunnel mode, ESN", lambda: disturbed(
        "tunnel", "flag esn")
    for mode in "transport", "tunnel":
        yield f"an MTU that changes, {mode} mode", lambda mode=mode: mtu_changes(mode)
    for n, args in enumerate(lib.MODES):
        if share.mine(n):
            yield ("path MTU, {}, IPv{} in IPv{}".format(*args),
                   lambda args=args: path_mtu(*args))
    yield "UDP's segments through a router", udp_segments
    yield "GRE with checksums, transport mode", lambda: tunnelled(
        "transport", "gre local {me} remote {peer} csum")
    yield "GRE, tunnel mode", lambda: tunnelled("tunnel", "gre local {me} remote {peer}")
    yield "VXLAN, tunnel mode", lambda: tunnelled(
        "tunnel", "vxlan id 7 local {me} remote {peer} dstport 4789")
    for family in 4, 6:
        yield f"ESP in ESP, IPv{family}", lambda family=family: nested(family)


if __name__ == "__main__":
    lib.run(cases(), needs=["ethtool", "ip", "tc"])
