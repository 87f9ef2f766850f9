#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""net.minesp.offload where packets do not come from a socket, or do not go to one:
tunnels in ESP, and ESP in ESP."""
import concurrent.futures
import contextlib
import struct
import threading

import lib
from lib import traffic

SIZE = 1 << 20
PACKETS = 10
INSIDE = {"a": "203.0.113.1", "b": "203.0.113.2"}


def sas(h, templates):
    """SAs between the outer addresses for each (number, mode), the innermost first."""
    me, peer = h.address(4), lib.ADDRESSES["outer", 4][h.peer]
    lines = []
    for src, dst, way in (me, peer, "out"), (peer, me, "in"):
        spi = 0x1000 if src < dst else 0x2000
        lines += [f"xfrm state add src {src} dst {dst} proto esp spi {spi + n:#x} reqid {n} "
                  f"mode {mode} replay-window 1024 {lib.SUITE}" for n, mode in templates]
        tmpl = " ".join(f"tmpl src {src} dst {dst} proto esp reqid {n} mode {mode}"
                        for n, mode in templates)
        lines.append(f"xfrm policy add src {src} dst {dst} dir {way} {tmpl}")
    h.ip("\n".join(lines))


@contextlib.contextmanager
def hosts():
    with lib.gro(), lib.hosts() as (a, b):
        for h in (a, b):
            h.settings(offload=1)
        yield a, b


@contextlib.contextmanager
def numbers(host):
    """(SPI, SN) of the ESP that a host sends. GRO decrypts what arrives before this sees it."""
    seen, stop = [], threading.Event()

    def watch():
        while True:
            try:
                frame = wire.recv(1 << 16)
            except TimeoutError:
                if stop.is_set():
                    return
                continue
            if frame[12:14] == b"\x08\x00" and frame[23] == 50:
                seen.append(struct.unpack(">II", frame[34:42]))

    with contextlib.closing(host.wire(room=1 << 24)) as wire:
        wire.settimeout(0.1)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            stop.set()
            watcher.join()


def tunnelled(mode, words):
    """A tunnel's large packets in ESP. They arrive, and no SN comes twice."""
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
        with numbers(a) as seen, concurrent.futures.ThreadPoolExecutor() as pool:
            # Two at a time, so that two CPUs send
            both = [pool.submit(traffic.stream, a, INSIDE["a"], b, INSIDE["b"], SIZE, port)
                    for port in (8888, 8889)]
            for one in both:
                one.result()
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")
        assert len(seen) > 2 * SIZE // 1500, f"only {len(seen)} packets"
        lib.equal(len(set(seen)), len(seen), "packets with an SN of their own")


def nested():
    """ESP in ESP, both in transport mode"""
    with hosts() as (a, b):
        for h in (a, b):
            sas(h, [(1, "transport"), (2, "transport")])
        at_a, at_b = traffic.pair(a, b, 4, "outer", 7777)
        with at_a, at_b:
            for n in range(PACKETS):
                at_a.send(bytes([n]))
                lib.equal(at_b.recv(10), bytes([n]), "data")
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")
        lib.equal(b.stats()["InPackets"], 2 * PACKETS, "InPackets")


def cases():
    yield "GRE with checksums, transport mode", lambda: tunnelled(
        "transport", "gre local {me} remote {peer} csum")
    yield "GRE, tunnel mode", lambda: tunnelled("tunnel", "gre local {me} remote {peer}")
    yield "VXLAN, tunnel mode", lambda: tunnelled(
        "tunnel", "vxlan id 7 local {me} remote {peer} dstport 4789")
    yield "ESP in ESP", nested


if __name__ == "__main__":
    lib.run(cases(), needs=["ethtool", "ip"])
