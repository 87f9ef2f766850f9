# SPDX-License-Identifier: GPL-2.0
"""Traffic between two hosts: UDP, TCP and ping, which must arrive; a flood of UDP, which
need not arrive; and numbered datagrams, which show the losses."""
import contextlib
import hashlib
import os
import random
import select
import socket
import threading
import time

from .host import ADDRESSES, SO_RCVBUFFORCE, family_of, hosts
from .sa import SPI, SUITE
from .verdict import equal
from .wait import TIMEOUT, throttled, wait_for

TCP_BYTES = 1 << 20


def connected(*ends, port):
    """Returns a UDP socket on each of two hosts, connected to each other. ends: (host, its
    address, the address that the other host sees)"""
    socks = []
    for (host, address, _), (_, _, peer) in zip(ends, reversed(ends)):
        sock = host.socket(family_of(address), socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        sock.bind((address, port))
        sock.connect((peer, port))
        socks.append(sock)
    return socks


def pair(a, b, family, kind, port):
    """Returns a UDP socket on a and one on b, connected to each other."""
    return connected(*((h, *[h.address(family, kind)] * 2) for h in (a, b)), port=port)


def udp(a, b, family, kind, sizes):
    """Sends datagrams from a to b and back, and checks that they arrive unchanged."""
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
    """Sends a stream from source to sink, and compares the hashes at both ends."""
    stream(source, source.address(family, kind), sink, sink.address(family, kind), size)


def stream(source, src, sink, dst, size, port=8888):
    """Does the same as tcp(), between any addresses of the hosts."""
    listener = sink.socket(family_of(dst), socket.SOCK_STREAM)
    listener.bind((dst, port))
    listener.listen()
    got = hashlib.sha256()

    def receive():
        conn, _ = listener.accept()
        conn.settimeout(TIMEOUT)
        while data := conn.recv(1 << 16):
            got.update(data)
        conn.close()

    receiver = threading.Thread(target=receive)
    receiver.start()
    sock = source.socket(listener.family, socket.SOCK_STREAM)
    sock.bind((src, 0))
    sock.connect(listener.getsockname()[:2])
    data = random.Random(2).randbytes(size)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    equal(sock.recv(1), b"", "what comes back")     # waits for the last segments
    sock.close()
    receiver.join(TIMEOUT)
    listener.close()
    equal(got.hexdigest(), hashlib.sha256(data).hexdigest(), "sum")


def ping(a, b, family, kind):
    a.sh(f"ping -q -c 3 -i 0.05 -W {TIMEOUT} {b.address(family, kind)}")


@contextlib.contextmanager
def one_cpu():
    """Keeps this thread on one CPU. On another CPU, later packets could overtake earlier
    ones."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def carried(minimal, n, before=None):
    """Checks that minesp has carried n packets each way on hosts with minimal SAs, and not
    on the others. minimal: {host: whether its SAs are minimal}. before: {host: its stats()
    before these packets}"""
    for h, wanted in minimal.items():
        now = h.stats()
        for name in "InPackets", "OutPackets":
            came = now[name] - (before[h][name] if before else 0)
            equal(came >= n, wanted, f"{came} minesp {name} of {h.name}: enough")


def went_as_esp(a, b, peer, n, before=None):
    """Checks that minesp on a has carried n packets each way. The same must hold on b for
    a minimal peer, and must not for a stock peer. before: see carried()"""
    carried({a: True, b: peer == "minimal"}, n, before)


def talk(peer, mode, inner, outer, sizes, words="", suite=SUITE, window=1024,
         before=lambda a, b: contextlib.nullcontext(), **settings):
    """Sends ping, UDP and TCP between new hosts. The SAs of a are minimal, those of b are
    "minimal" or "stock", as peer says. before: context manager around the traffic, called
    with the hosts. settings: sysctls of net.minesp on both"""
    kind = "inner" if mode == "tunnel" else "outer"
    with hosts() as (a, b), before(a, b):
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
                # Two CPUs that send at the same time reorder packets. Their SNs
                # from the clock may be far apart, because an emulated CPU may
                # stop for 100 ms.
                errors.pop("XfrmInStateSeqError", None)
            elif minimal:
                # The last segments of TCP may still be on their way.
                for name, which in ((h.name, "In"), (h.peer, "Out")):
                    wait_for(
                        f"ip -s xfrm state agrees with {which}Packets",
                        lambda: h.carried(SPI[name])[1] ==
                        h.stats()[f"{which}Packets"])
                    # esp4_offload counts a large packet once.
                    if peer == "minimal":
                        equal(a.carried(SPI[name]), b.carried(SPI[name]),
                              "bytes and packets of an SA, at both ends")
            equal(errors, {}, "errors")


@contextlib.contextmanager
def flood(a, b, family):
    """Two threads send UDP, one in each direction, while the block runs. They ignore
    errors, such as a missing SA or route."""
    stop = threading.Event()
    socks = [(h.socket(family_of(h.address(family)), socket.SOCK_DGRAM),
              ADDRESSES["outer", family][h.peer]) for h in (a, b)]

    def send(sock, to, seed):
        rand = random.Random(seed)
        while not stop.is_set():
            with throttled(), contextlib.suppress(OSError):
                sock.sendto(bytes(rand.choice((1, 100, 1400, 5000))), (to, 9))

    threads = [threading.Thread(target=send, args=(*s, i))
               for i, s in enumerate(socks)]
    for t in threads:
        t.start()
    try:
        yield
    finally:
        stop.set()
        for t in threads:
            t.join()
        for sock, _ in socks:
            sock.close()


class Numbered(threading.Thread):
    """Sends numbered datagrams from the first of two connected sockets to the second and
    back, until lost() is called or the block ends."""

    def __init__(self, ends):
        super().__init__(daemon=True)
        self.ends = ends
        self.sent, self.there, self.back, self.done = 0, set(), set(), False

    def run(self):
        at_a, at_b = self.ends
        end = None
        while not end or (time.monotonic() < end and self.sent - 1 not in self.back):
            if not self.done:
                self.sent += 1
                # A datagram that cannot be sent counts as lost.
                with contextlib.suppress(OSError):
                    at_a.send(b"%d" % (self.sent - 1))
            elif not end:
                end = time.monotonic() + TIMEOUT
            while readable := select.select(self.ends, [], [], 0.01)[0]:
                for sock in readable:
                    with contextlib.suppress(OSError):
                        data = sock.recv(100)
                        (self.there if sock is at_b else self.back).add(int(data))
                        if sock is at_b:
                            sock.send(data)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done = True
        self.join()
        for sock in self.ends:
            sock.close()

    def goes_on(self, n=20):
        """Waits until n datagrams that are sent from now on have come back."""
        first = self.sent
        wait_for("traffic", lambda: sum(i >= first for i in self.back.copy()) >= n)

    def lost(self):
        """Stops, and waits for the last datagram; returns which did not come back."""
        self.done = True
        self.join()
        return sorted(set(range(self.sent)) - self.back)


def arrives(host):
    """Waits until minesp on the host receives packets."""
    was = host.stats()["InPackets"]
    wait_for("traffic", lambda: host.stats()["InPackets"] > was)
