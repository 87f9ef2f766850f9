#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""net.minesp.offload on networks that lose, copy and reorder packets, and whose MTU
changes; with large UDP packets, with tunnels in ESP, and with ESP in ESP. The lifetime of
an SA ends within a large packet, and so does the lower half of an ESN. SNs from the
clock."""
import concurrent.futures
import contextlib
import socket
import struct
import threading
import time

import lib
from lib import frame, kmod, offloading, pmtu, seqno, share, suites, traffic, xfrm

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
    of an SA twice. Yields a list, which has these packets after the block."""
    seen, stop = [], threading.Event()

    def watch():
        while True:
            try:
                packet, address = wire.recvfrom(1 << 16)
            except TimeoutError:
                if stop.is_set():
                    return
                continue
            esp = frame.payload(packet, socket.IPPROTO_ESP)
            if esp and address[2] == socket.PACKET_OUTGOING:
                seen.append(esp)

    with contextlib.closing(host.wire(room=1 << 24)) as wire:
        wire.settimeout(0.1)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            stop.set()
            watcher.join()
    assert len(seen) >= least, f"only {len(seen)} packets"
    lib.equal(len({esp[:8] for esp in seen}), len(seen), "packets with an SN of their own")


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


@contextlib.contextmanager
def gateway():
    """a forwards between b, behind a tunnel, and a third host r."""
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
        a.ip(f"xfrm policy add src {b.address(4)} dst 203.0.113.2 dir fwd tmpl "
             f"src {b.address(4)} dst {a.address(4)} proto esp reqid 1 mode tunnel")
        yield a, b, r


def through_gateway():
    """A gateway forwards large packets: to ESP, and from ESP, where GRO has made them."""
    with gateway() as (a, b, r):
        ends = r, "203.0.113.2", b, b.address(4), SIZE
        with unique(a, SEGMENTS), offloading.splits(a, times=1):
            traffic.stream(*ends)
        with contextlib.closing(a.wire("to-r", room=1 << 24)) as wire:
            wire.setblocking(False)
            traffic.stream(*ends[2:4], *ends[:2], SIZE)
            sizes = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet, address = wire.recvfrom(1 << 16)
                    if address[2] == socket.PACKET_OUTGOING:
                        sizes.append(len(packet))
        assert max(sizes) > 1514, f"{len(sizes)} packets, none of them is large"
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


def udp_segments():
    """A router sends large UDP packets through a tunnel. A socket cannot send such packets
    into ESP itself."""
    size, count = 1000, 20
    with gateway() as (a, b, r):
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


def limited(unit, soft, hard, mode, inner, outer):
    """Every segment counts for the limits of an SA, and none leaves after the last one."""
    kind = "inner" if mode == "tunnel" else "outer"
    with (hosts() as (a, b), xfrm.listen(a, xfrm.XFRMNLGRP_EXPIRE) as monitor,
          b.socket(lib.family_of(b.address(inner)), socket.SOCK_STREAM) as listener,
          a.socket(listener.family, socket.SOCK_STREAM) as source):
        monitor.setblocking(False)
        a.sas(mode, inner, outer, f"limit {unit}-soft {soft} limit {unit}-hard {hard}")
        b.sas(mode, inner, outer)
        # No FIN gets an answer: without this, the sockets would stay, and hold their SAs.
        for sock in source, listener:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        listener.bind((b.address(inner, kind), 8888))
        listener.listen()
        source.bind((a.address(inner, kind), 0))
        events = []

        def expired():
            with contextlib.suppress(BlockingIOError):
                source.send(bytes(1 << 16))
            with contextlib.suppress(BlockingIOError):
                conn.recv(1 << 20)
            with contextlib.suppress(BlockingIOError):
                while True:
                    events.append(xfrm.expiry(monitor.recv(1 << 16), lib.SPI["b"]))
            return any(event and event[0] for event in events)

        with unique(a, 100) as seen, offloading.splits(a):
            source.connect(listener.getsockname()[:2])
            conn, _ = listener.accept()
            with conn:
                conn.setblocking(False)
                source.setblocking(False)
                lib.wait_for("the end of the SA", expired)
        (_, *at_soft), (_, *at_hard) = events = [event for event in events if event]
        lib.equal([event[0] for event in events], [0, 1], "soft and hard")
        for limit, at in (soft, at_soft), (hard, at_hard):
            if unit == "packet":
                lib.equal(at[1], limit, "packets")
            else:
                assert limit <= at[0] < limit + 1500, f"{at} bytes, not {limit}"
        lib.equal(len(seen), at_hard[1], "packets sent")
        lib.wait_for("all packets", lambda: b.carried(lib.SPI["b"]) == tuple(at_hard))
    kmod.released()


def upper_half(suite, mode, inner, outer):
    """The upper half of an ESN changes within a large packet. With an implicit IV, the SN
    of a segment is its IV."""
    kind = "inner" if mode == "tunnel" else "outer"
    start = 2 ** 32 - 100
    with hosts() as (a, b):
        for h in (a, b):
            h.sas(mode, inner, outer, f"flag esn replay-seq {start} replay-oseq {start}",
                  suite.words)
        with unique(a, 150) as seen, offloading.splits(a), offloading.decrypts(b):
            traffic.tcp(a, b, inner, kind, SIZE // 4)
        low = [sn for _, sn in (struct.unpack_from(">II", esp) for esp in seen)]
        lib.equal(sorted(low, key=lambda sn: (sn < start, sn)),
                  [(start + 1 + n) % 2 ** 32 for n in range(len(seen))], "SNs")
        for esp, sn in zip(seen, low):
            suite.open(esp, struct.pack(">I", sn < start))
        if suite.ivlen:
            lib.equal(len({esp[8:8 + suite.ivlen] for esp in seen}), len(seen), "IVs")
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


def clock(words):
    """SNs from the clock increase, and are never more than sn_ahead ahead of the clock."""
    tick, ahead, epoch = 0.01, 100, int(time.time()) - 1000
    with hosts() as (a, b), contextlib.closing(a.wire(room=1 << 24)) as wire:
        wire.setblocking(False)
        for h in (a, b):
            h.settings(sn_tick_us=int(tick * 1e6), sn_ahead=ahead, sn_epoch=epoch)
            h.sas("transport", 4, 4, words)
        found = []

        def look():
            sns = [sn for sn, *_ in seqno.recorded(wire, lib.SPI["b"])]
            found.extend(sns)
            most = (time.time() - epoch) / tick + ahead
            assert max(sns, default=0) <= most, f"{max(sns)}, not {most}"

        at_a, at_b = traffic.pair(a, b, 4, "outer", 7777)
        with at_a, at_b, contextlib.suppress(OSError):
            for _ in range(100 * ahead):
                at_a.send(bytes(1000))
                look()
        lib.equal(a.errors(), {"OutAhead": 1, "XfrmOutStateProtoError": 1}, "errors")
        # An SA may start above the clock.
        assert len(found) >= ahead / 2, f"only {len(found)} packets"
        traffic.tcp(a, b, 4, "outer", SIZE // 8)
        look()
        seqno.increasing(found)


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
    yield "TCP through a gateway", through_gateway
    yield "GRE with checksums, transport mode", lambda: tunnelled(
        "transport", "gre local {me} remote {peer} csum")
    yield "GRE, tunnel mode", lambda: tunnelled("tunnel", "gre local {me} remote {peer}")
    yield "VXLAN, tunnel mode", lambda: tunnelled(
        "tunnel", "vxlan id 7 local {me} remote {peer} dstport 4789")
    for n, (limits, args) in enumerate((
            (("packet", 101, 200), ("transport", 4, 4)),
            (("byte", 100001, 200001), ("tunnel", 4, 4)),
            (("packet", 101, 200), ("tunnel", 6, 6)),
            (("byte", 100001, 200001), ("transport", 6, 6)))):
        if share.mine(n):
            yield ("{0} limits, {3}, IPv{4} in IPv{5}".format(*limits, *args),
                   lambda limits=limits, args=args: limited(*limits, *args))
    known = [(f"{name}, implicit IV", suite) for name, suite in suites.implicit_iv()]
    known.append(next(suites.explicit_iv()))
    for n, ((name, suite), args) in enumerate(zip(known, lib.MODES)):
        if share.mine(n):
            yield (f"the upper half of an ESN, {name}, " + "{}, IPv{} in IPv{}".format(*args),
                   lambda suite=suite, args=args: upper_half(suite, *args))
    for n, (name, words) in enumerate((("", lib.XFLAG_CLOCK),
                                       (", implicit IV", lib.XFLAG_IMPLICIT_IV_CLOCK))):
        if share.mine(n + 1):
            yield f"SNs from the clock{name}", lambda words=words: clock(words)
    for family in 4, 6:
        yield f"ESP in ESP, IPv{family}", lambda family=family: nested(family)


if __name__ == "__main__":
    lib.run(cases(), needs=["ethtool", "ip", "tc"], imports=["cryptography"])
