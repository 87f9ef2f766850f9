#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""minesp talks with esp4 and esp6, and with itself: each mode, each pair of
families, each key length, ESN, every replay window; ping, UDP of every size,
TCP both ways."""
import contextlib
import hashlib
import os
import random
import socket
import threading

import lib

TCP_BYTES = 1 << 20
EVERY_SIZE = [*range(1, 1601), 4000, 9000, 65000]     # the wire takes 1500
SOME_SIZES = [*range(1, 17), *range(1380, 1500), 4000, 65000]


def pair(a, b, family, kind, port):
    """A UDP socket on a and one on b, connected with each other."""
    ends = []
    for h in (a, b):
        sock = h.socket(lib.family_of(h.address(family)), socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 22)
        sock.bind((h.address(family, kind), port))
        ends.append(sock)
    at_a, at_b = ends
    at_a.connect(at_b.getsockname()[:2])
    at_b.connect(at_a.getsockname()[:2])
    return at_a, at_b


def udp(a, b, family, kind, sizes):
    """Datagrams from a to b and back, unchanged."""
    rand = random.Random(1)
    at_a, at_b = pair(a, b, family, kind, 7777)
    for i in range(0, len(sizes), 16):
        sent = {n: rand.randbytes(n) for n in sizes[i:i + 16]}
        for source, sink in (at_a, at_b), (at_b, at_a):
            for data in sent.values():
                source.send(data)
            came = {}
            for _ in sent:
                try:
                    data = sink.recv(1 << 16)
                except TimeoutError:
                    raise AssertionError(
                        f"lost: {sorted(sent.keys() - came.keys())} bytes")
                came[len(data)] = data
            assert came == sent, "datagrams came changed"
    at_a.close()
    at_b.close()


def tcp(source, sink, family, kind, size=TCP_BYTES):
    """A stream from source to sink; the same sum at both ends."""
    listener = sink.socket(lib.family_of(sink.address(family)),
                           socket.SOCK_STREAM)
    listener.bind((sink.address(family, kind), 8888))
    listener.listen()
    got = hashlib.sha256()

    def receive():
        conn, _ = listener.accept()
        conn.settimeout(lib.TIMEOUT)
        while data := conn.recv(1 << 16):
            got.update(data)
        conn.close()

    receiver = threading.Thread(target=receive)
    receiver.start()
    sock = source.socket(listener.family, socket.SOCK_STREAM)
    sock.bind((source.address(family, kind), 0))
    sock.connect(listener.getsockname()[:2])
    data = random.Random(2).randbytes(size)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    lib.equal(sock.recv(1), b"", "what comes back")     # or segments come later
    sock.close()
    receiver.join(lib.TIMEOUT)
    listener.close()
    lib.equal(got.hexdigest(), hashlib.sha256(data).hexdigest(), "sum")


def ping(a, b, family, kind):
    a.sh(f"ping -q -c 3 -i 0.05 -W {lib.TIMEOUT} {b.address(family, kind)}")


def went_as_esp(a, b, peer, n, before=None):
    """n packets each way, by way of minesp on the one side and, for a stock
    peer, not on the other. before: {host: its stats() before these packets}"""
    for h in (a, b):
        now = h.stats()
        minimal = h is a or peer == "minimal"
        for name in "InPackets", "OutPackets":
            came = now[name] - (before[h][name] if before else 0)
            lib.equal(came >= n, minimal, f"minesp {name}")


def talk(peer, mode, inner, outer, sizes, words="", suite=lib.SUITE, window=1024,
         **settings):
    """settings: those of net.minesp on either side."""
    kind = "inner" if mode == "tunnel" else "outer"
    with lib.hosts() as (a, b):
        if peer == "stock":
            b.settings(enabled=0)
        for h in (a, b):
            h.settings(**settings)
            h.sas(mode, inner, outer, words, suite, window)
        ping(a, b, inner, kind)
        udp(a, b, inner, kind, sizes)
        tcp(a, b, inner, kind)
        tcp(b, a, inner, kind)
        went_as_esp(a, b, peer, len(sizes))
        for h in (a, b):
            minimal = h is a or peer == "minimal"
            errors = h.errors()
            if 0 < window <= 32 or window and settings.get("sn_mode"):
                # Two CPUs that send at once reorder packets on the wire. With
                # SNs from the clock they are far apart: an emulated CPU may
                # stand still for 100 ms.
                errors.pop("XfrmInStateSeqError", None)
            elif minimal:
                # The last segments of TCP may still be on their way.
                for name, which in ((h.name, "In"), (h.peer, "Out")):
                    lib.wait_for(
                        f"ip -s xfrm state agrees with {which}Packets",
                        lambda: h.carried(lib.SPI[name]) ==
                        h.stats()[f"{which}Packets"])
            lib.equal(errors, {}, "errors")


@contextlib.contextmanager
def one_cpu():
    """A thread that changes its CPU may overtake its own packets."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def replay_window(window):
    # A window of 1 has no room for what comes late.
    with one_cpu() if window == 1 else contextlib.nullcontext():
        talk("stock", "tunnel", 6, 4, SOME_SIZES, window=window)


def cases():
    for peer in ("stock", "minimal"):
        for mode, inner, outer in lib.MODES:
            sizes = EVERY_SIZE if peer == "stock" else SOME_SIZES
            yield (f"{peer} peer, {mode}, IPv{inner} in IPv{outer}",
                   lambda p=peer, m=mode, i=inner, o=outer, s=sizes:
                   talk(p, m, i, o, s))
    for bits in (192, 256):
        yield (f"key of {bits} bits",
               lambda n=bits: talk("stock", "transport", 4, 4, SOME_SIZES,
                                   suite=f"{lib.AEAD} {lib.KEYS[n]} 128"))
    for window in (0, 1, 32, 128):
        yield (f"replay window {window}",
               lambda n=window: replay_window(n))
    for peer in ("stock", "minimal"):
        yield (f"ESN, {peer} peer",
               lambda p=peer: talk(p, "transport", 6, 6, SOME_SIZES,
                                   "flag esn"))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping"])
