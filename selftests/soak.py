#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Everything at once, for a time: traffic both ways over SAs of all kinds, some of them
stock, some in UDP; SAs that are rekeyed, deleted and added again; SPI tables that change
their size; namespaces that are deleted under traffic; minesp, esp4, esp6 and their
offloads, which are unloaded. While minesp, esp4 and esp6 are in use, rmmod has to fail.

A packet that arrives was sent, and arrives once. Only ESP leaves. A packet is lost only
if its SA was deleted, and never on a connection of stock SAs, which outlive the module.
Afterwards all connections work, and nothing is left.

One case has net.minesp.offload 1 and GRO. It uses only ciphers that never complete later,
because Documentation/offload.rst warns of the others on a veth device.

MINESP_SOAK: the duration of each case in seconds (15), but at least until minesp was loaded
anew once.
MINESP_SEED: decides what each process does, but not the order between processes. The
name of the case contains the seed."""
import contextlib
import ctypes
import errno
import fcntl
import itertools
import multiprocessing
import os
import pathlib
import random
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time

import lib
from lib import kmod, nat, process, suites, traffic, xflag, xfrm

SECONDS = int(os.environ.get("MINESP_SOAK", 15))
PAIRS = 2
PORT = 6000
SIZES = (4, 100, 1400, 3000)
# Words in the names of suites whose ciphers never complete later
SYNCHRONOUS = ("ChaCha20", "cipher_null")

# The kinds of the SAs of each connection, on a and on b
STOCK, MINIMAL = xflag.STOCK, xflag.MINIMAL
KINDS = [(STOCK, STOCK), (MINIMAL, MINIMAL), (MINIMAL, STOCK), (STOCK, MINIMAL),
         (MINIMAL, MINIMAL)]
# Errors of packets whose SA is deleted, of ICMP about such packets, and of packets that
# get no SN
EXPECTED = {"XfrmInNoStates", "XfrmInStateInvalid", "XfrmOutNoStates",
            "XfrmOutStateInvalid", "XfrmOutStateProtoError", "OutExpired",
            "OutAhead", "XfrmOutPolBlock"}

SO_ATTACH_FILTER, PACKET_OUTGOING, PACKET_TYPE = 26, 4, 0xfffff004
ETHER, IPV4, IPV6, FRAGMENT = 14, 20, 40, 8     # bytes of headers
LDB, LDH, JEQ, JSET, RET = 0x30, 0x28, 0x15, 0x45, 0x06     # linux/filter.h
# A filter that takes outgoing IP packets other than ESP and ESP in UDP. It checks only the
# first fragment of a UDP datagram. A line is a label, or has a code, a constant, and the
# labels to jump to if true and if false. Without a label, the next line follows.
NOT_ESP = (
    (LDB, PACKET_TYPE), (JEQ, PACKET_OUTGOING, "", "ignore"),
    (LDH, 12), (JEQ, 0x86dd, "IPv6"), (JEQ, 0x0800, "", "ignore"),
    (LDB, ETHER + 9), (JEQ, socket.IPPROTO_ESP, "ignore"), (JEQ, socket.IPPROTO_UDP, "", "take"),
    (LDH, ETHER + 6), (JSET, 0x1fff, "ignore"),
    (LDH, ETHER + IPV4 + 2), (JEQ, nat.PORT, "ignore", "take"),
    "IPv6",
    (LDB, ETHER + 6), (JEQ, socket.IPPROTO_ESP, "ignore"),
    (JEQ, socket.IPPROTO_FRAGMENT, "fragment"), (JEQ, socket.IPPROTO_UDP, "", "take"),
    (LDH, ETHER + IPV6 + 2), (JEQ, nat.PORT, "ignore", "take"),
    "fragment",
    (LDB, ETHER + IPV6), (JEQ, socket.IPPROTO_ESP, "ignore"),
    (JEQ, socket.IPPROTO_UDP, "", "take"),
    (LDH, ETHER + IPV6 + 2), (JSET, 0xfff8, "ignore"),
    (LDH, ETHER + IPV6 + FRAGMENT + 2), (JEQ, nat.PORT, "ignore", "take"),
    "ignore", (RET, 0), "take", (RET, 0xffff))


def assembled(program):
    """Returns the bytes of a filter."""
    lines, labels = [], {}
    for line in program:
        if isinstance(line, str):
            labels[line] = len(lines)
        else:
            lines.append(line)
    return b"".join(
        struct.pack("=HBBI", code, *(labels[to] - n - 1 if to else 0
                                     for to in (*jumps, "", "")[:2]), constant)
        for n, (code, constant, *jumps) in enumerate(lines))


def not_esp(host):
    """Returns a socket that gets the packets that leave in the clear."""
    wire = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3), 0)
    code = assembled(NOT_ESP)
    program = ctypes.create_string_buffer(code)
    wire.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack(
        "@HP", len(code) // 8, ctypes.addressof(program)))
    wire.bind(("veth0", 0))
    return wire


class Ip:
    """ip(8) on a host. It reads commands while it runs, because starting it takes longer
    than a command."""

    def __init__(self, host):
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "ip", "-n", host.ns, "-force", "-batch", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)

    def __call__(self, lines):
        """Runs lines; returns when they are done."""
        self.process.stdin.write(f"{lines}\nxfrm state count\n")
        self.process.stdin.flush()
        said = [self.process.stdout.readline()]
        while "SAD count" not in said[-1]:
            assert said[-1], f"ip has ended: {said}"
            said.append(self.process.stdout.readline())
        assert "failed" not in "".join(said), f"{lines}: {said}"

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Connection:
    """UDP both ways. The ends are 0 and 1. A direction is the number of its sender."""

    def __init__(self, hosts, n, rand, offload):
        self.hosts, self.n, self.kinds = hosts, n, KINDS[n]
        self.mode, inner, outer = rand.choice(lib.MODES)
        self.generation, self.key = 0, rand.getrandbits(32)
        implicit = STOCK not in self.kinds and rand.randrange(2)
        suite = rand.choice([
            suite for suite in (suites.implicit_iv if implicit else suites.explicit_iv)()
            if not offload or any(word in suite[0] for word in SYNCHRONOUS)])
        self.suite = suite[1].words.split(" extra-flag")[0]
        # ESP in UDP and SNs from the clock do not use offload, so one connection has neither.
        plain = offload and self.kinds == (MINIMAL, MINIMAL)
        udp, clock = ("", 0) if plain else (nat.WORDS, xflag.CLOCK)
        self.words = " ".join(rand.choice(("", words)) for words in ("flag esn", udp))
        self.flags = [kind | (kind == MINIMAL and
                              (rand.choice((0, clock)) |
                               implicit * (xflag.IMPLICIT_IV | xflag.NEW_KEY)))
                      for kind in self.kinds]
        kind = "inner" if self.mode == "tunnel" else "outer"
        self.inner, self.outer = ([h.address(*x) for h in hosts] for x in
                                  ((inner, kind), (outer, "outer")))
        self.name = (f"{n}: {self.mode} {inner} in {outer}, {suite[0]} "
                     f"{self.words}, {self.flags[0]:#x} and {self.flags[1]:#x}")
        self.socks = []
        for h, address in zip(hosts, self.inner):
            sock = h.socket(lib.family_of(address), socket.SOCK_DGRAM, 0, 0)
            sock.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 22)
            sock.bind((address, PORT + n))
            self.socks.append(sock)
        self.sends, self.tried, self.since = True, [0, 0], [0, 0]
        self.sent, self.got = [set(), set()], [set(), set()]

    def stock(self):
        return self.kinds == (STOCK, STOCK)

    def sa(self, verb, end, direction, generation):
        """Returns a line for ip(8)."""
        src, dst = self.outer[direction], self.outer[1 - direction]
        line = (f"xfrm state {verb} src {src} dst {dst} proto esp "
                f"spi {0x100 + 2 * self.n + direction << 8 | generation & 255:#x}")
        if verb != "add":
            return line + "\n"
        rand = random.Random(f"{self.key} {direction} {generation}")
        suite = re.sub("0x[0-9a-f]{16,}", lambda m: "0x" + rand.randbytes(
            len(m[0]) // 2 - 1).hex(), self.suite)
        return (f"{line} reqid {self.n + 1} mode {self.mode} replay-window 4096 "
                f"{suite} {self.words} extra-flag {self.flags[end]:#x} "
                f"sel src {self.inner[direction]} dst {self.inner[1 - direction]}\n")

    def policies(self, end):
        for direction, way in (end, "out"), (1 - end, "in"):
            yield (f"xfrm policy add src {self.inner[direction]} "
                   f"dst {self.inner[1 - direction]} proto udp "
                   f"sport {PORT + self.n} dport {PORT + self.n} dir {way} "
                   f"tmpl src {self.outer[direction]} "
                   f"dst {self.outer[1 - direction]} proto esp "
                   f"reqid {self.n + 1} mode {self.mode}\n")

    def data(self, direction, i):
        """Returns the data of the datagram with this number."""
        head = struct.pack(">IIBB", i, self.key, self.n, direction)
        return head + bytes([i & 255]) * SIZES[i % len(SIZES)]

    def traffic(self):
        for d in 0, 1:
            if self.sends:
                i = self.tried[d]
                self.tried[d] += 1
                with contextlib.suppress(OSError):      # no SA
                    self.socks[d].sendto(self.data(d, i), (self.inner[1 - d],
                                                           PORT + self.n))
                    self.sent[d].add(i)
            with contextlib.suppress(BlockingIOError):
                while True:
                    data = self.socks[1 - d].recv(1 << 16)
                    i = int.from_bytes(data[:4], "big")
                    assert i < self.tried[d] and data == self.data(d, i), \
                        f"{self.name}: nobody has sent {data}"
                    assert i not in self.got[d], f"{self.name}: {i} came twice"
                    self.got[d].add(i)

    def settle(self, check):
        """Waits until all that was sent until now has arrived."""
        upto = [*self.tried]

        def lost():
            check()
            return [(d, i) for d in (0, 1) for i in self.sent[d].copy()
                    if self.since[d] <= i < upto[d] and i not in self.got[d]]

        try:
            lib.wait_for(f"all that was sent arrives, {self.name}",
                         lambda: not lost())
        except AssertionError as e:
            missing = lost()
            raise AssertionError("\n".join((
                f"{e}: {len(missing)} of {[u - s for u, s in zip(upto, self.since)]}",
                f"(direction, number): {missing[:20]}",
                *(f"{h.name}: {h.errors()}, {h.sh('nstat -as').split()}"
                  for h in self.hosts),
                *pathlib.Path("/proc/net/softnet_stat").read_text().splitlines(),
            ))) from None
        self.forgive(upto)

    def forgive(self, upto=None):
        """What was sent until now may be lost."""
        self.since = upto or [*self.tried]
        for d in 0, 1:
            self.sent[d] -= {i for i in self.sent[d].copy() if i < self.since[d]}


def grow(host):
    """xfrm may miss an SA while its table grows, so this makes the table grow first."""
    spis = itertools.count(0x1000)

    def grown():
        host.ip("".join(
            f"xfrm state add src 192.0.2.9 dst 192.0.2.9 proto esp "
            f"spi {spi:#x} {lib.SUITE} {lib.XFLAG_STOCK}\n"
            for spi in itertools.islice(spis, 16)))
        said = lib.sh(f"ip -n {host.ns} -s xfrm state count")
        return int(re.search(r"buckets count (\d+)", said)[1]) >= 64

    lib.wait_for("a large table", grown)
    host.ip("xfrm state flush")


class Pair:
    """Two hosts, the connections between them, and the thread that uses them."""

    def __init__(self, hosts, rand, offload):
        self.hosts, self.rand, self.offload = hosts, rand, offload
        self.connections = [Connection(hosts, n, rand, offload) for n in range(len(KINDS))]
        self.ips = [Ip(h) for h in hosts]
        self.wires = [not_esp(h) for h in hosts]
        self.ikes = contextlib.ExitStack()
        for h in hosts:
            for family in 4, 6:
                self.ikes.enter_context(nat.ike(h, family))
        self.failed, self.stop, self.rekeys = None, threading.Event(), 0
        for end, h in enumerate(hosts):
            # A fragment of a datagram that is lost in a tunnel holds its SA and the
            # module for this time. If the machine stalls for as long, a datagram is
            # lost that should arrive.
            h.sysctl("net.ipv4.ipfrag_time", lib.TIMEOUT // 2)
            h.sysctl("net.ipv6.ip6frag_time", lib.TIMEOUT // 2)
            # ICMP about a packet in a tunnel would quote it in the clear.
            self.ips[end]("".join([line for c in self.connections
                                   for line in c.policies(end)] + [
                f"xfrm policy add src {any} dst {any} dir out action block "
                f"priority 1\n" for any in ("0.0.0.0/0", "::/0")]))
        self.stock, *self.others = self.connections
        self.add(self.stock)
        self.thread = threading.Thread(target=self.send)
        self.thread.start()

    def close(self):
        self.stop.set()
        self.thread.join()
        for x in (*self.ips, *self.wires, self.ikes,
                  *(s for c in self.connections for s in c.socks)):
            x.close()

    def send(self):
        try:
            while not self.stop.is_set():
                with lib.throttled():
                    for c in self.connections:
                        c.traffic()
        except Exception as e:
            self.failed = e

    def check(self):
        if self.failed:
            raise self.failed
        for wire in self.wires:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame = wire.recv(1 << 16)
                    # IPv6 itself sends multicast.
                    assert frame[0] & 1, f"left in the clear: {frame}"

    def add(self, c):
        for end in 0, 1:
            self.ips[end](c.sa("add", end, 0, c.generation) +
                          c.sa("add", end, 1, c.generation))
        c.forgive()
        c.sends = True

    def delete(self, c):
        c.settle(self.check)
        for end in 0, 1:
            self.ips[end](c.sa("delete", end, 0, c.generation) +
                          c.sa("delete", end, 1, c.generation))
        c.generation += 1

    def rekey(self, c):
        """Rekeys without loss: the receiver gets the new SA earlier than the sender, and
        keeps the old SA longer."""
        a, b = self.ips
        old, new = c.generation, c.generation + 1
        a(c.sa("add", 0, 1, new))
        b(c.sa("add", 1, 1, new) + c.sa("add", 1, 0, new))
        a(c.sa("add", 0, 0, new) + c.sa("delete", 0, 0, old))
        b(c.sa("delete", 1, 1, old))
        c.settle(self.check)
        a(c.sa("delete", 0, 1, old))
        b(c.sa("delete", 1, 0, old))
        c.generation = new
        self.rekeys += 1

    def step(self):
        """Does something at random."""
        c, h = self.rand.choice(self.connections), self.rand.choice(self.hosts)
        what = self.rand.randrange(8)
        if what < 4 or what == 4 and c.stock():
            self.rekey(c)
        elif what == 4:
            self.delete(c)
            self.add(c)
        elif what == 5:
            h.sysctl("net.minesp.sad_slots", 1 << self.rand.randint(1, 14))
        elif what == 6:
            h.listed()
            h.errors()
        else:
            said = lib.sh("rmmod minesp esp4 esp6 2>&1", check=False)
            lib.equal(said.count("in use"), 3, f"refusals of rmmod in {said}")
        self.check()

    def begin(self):
        """Sets up what is lost when the module is unloaded."""
        for h in self.hosts:
            h.settings(sn_tick_us=1000, sn_ahead=10000, sn_epoch=int(time.time()) - 100,
                       offload=self.offload)
        for c in self.others:
            self.add(c)

    def works(self):
        """Checks that each connection works, and that only expected errors were counted."""
        def got():
            self.check()
            return [len(got) for c in self.connections for got in c.got]

        was = got()
        lib.wait_for("traffic on all connections", lambda: all(
            now > n + 4 for now, n in zip(got(), was)))
        for h in self.hosts:
            stats = h.stats()
            assert stats["InPackets"] and stats["OutPackets"], stats
            lib.equal(h.errors().keys() - EXPECTED, set(), f"errors of {h.ns}")


@contextlib.contextmanager
def locked(path, how):
    """Holds a lock: shared while there are minimal SAs, exclusive to unload minesp."""
    with open(path) as f:
        fcntl.flock(f, how)
        yield


def pair(rand, hosts, path, quiet, calm, steps, offload):
    with contextlib.ExitStack() as stack:
        with locked(path, fcntl.LOCK_SH):
            p = stack.enter_context(contextlib.closing(Pair(hosts, rand, offload)))
        last = False
        while not last:
            last = calm.is_set()
            with locked(path, fcntl.LOCK_SH):
                p.begin()
                while not (quiet.is_set() or calm.is_set()):
                    p.step()
                    with steps.get_lock():
                        steps.value += 1
                p.works()
                # Traffic ends first, because a fragment that is left would hold minesp.
                for c in p.others:
                    c.sends = False
                    p.delete(c)
            lib.wait_for("minesp", lambda: not quiet.is_set() or calm.is_set(),
                         10 * lib.TIMEOUT)
        p.delete(p.stock)
        lib.print_msg(f"{sum(len(g) for c in p.connections for g in c.got)} "
                      f"datagrams, {p.rekeys} rekeys")
        for h in hosts:
            lib.equal(lib.sh(f"ip -n {h.ns} xfrm state"), "", "SAs that are left")


def take_offload(offload):
    """Makes minesp take the offload, and so hold the modules, while nobody unloads them."""
    if offload:
        pathlib.Path("/proc/sys/net/minesp/offload").write_text("1")


def modules(rand, path, quiet, calm, steps, offload):
    """Loads minesp anew after some steps, and loads and unloads other modules all the
    time."""
    n, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end and not calm.is_set():
        until = steps.value + rand.randint(5, 20)
        while steps.value < until and not calm.is_set():
            with lib.throttled():
                lib.sh(f"{rand.choice(('modprobe -a', 'rmmod'))} "
                       f"{rand.choice(('xfrm_interface', *kmod.OFFLOADS))}",
                       check=False)
        quiet.set()
        with locked(path, fcntl.LOCK_EX):
            kmod.unload()
            for module in rand.sample(("esp4", "esp6", *kmod.OFFLOADS), 3):
                lib.sh(f"rmmod {module}", check=False)
            kmod.load()
            take_offload(offload)
            quiet.clear()
        n += 1
    lib.print_msg(f"minesp was loaded {n} times, {steps.value} steps")


def visitors(rand, path, calm, offload):
    """Deletes namespaces under traffic."""
    chacha = dict(suites.explicit_iv())["ChaCha20-Poly1305"]
    suite = chacha.words if offload else lib.SUITE
    while not calm.is_set():
        family = rand.choice((4, 6))
        with (lib.hosts() as hosts, locked(path, fcntl.LOCK_SH),
              traffic.flood(*hosts, family)):
            for h in hosts:
                h.settings(offload=offload)
                h.sas("transport", family, family, lib.XFLAG_MINIMAL, suite)
            traffic.arrives(hosts[1])
            rand.choice(hosts).delete()


def passing(rand, calm):
    """Adds and deletes SAs, whatever is loaded. They are minimal or stock, or refused
    while neither is available."""
    with lib.namespaces("a") as [host]:
        sock = xfrm.Xfrm(host)
        src, dst = host.address(4), lib.ADDRESSES["outer", 4]["b"]
        while not calm.is_set():
            err = sock.add(src, dst, 0x1000, rand.randbytes(20))
            assert err in (0, errno.EPROTONOSUPPORT), err
            time.sleep(rand.uniform(0, 0.1))
            sock.delete(dst, 0x1000)
            time.sleep(rand.uniform(0, 0.5))


def soak(offload):
    context = multiprocessing.get_context("fork")
    quiet, calm, steps = context.Event(), context.Event(), context.Value("i")

    def until_calm(function, *args):
        """Runs a function that ends when calm is set, and sets calm when it ends, so that
        all processes end together."""
        try:
            function(*args)
        finally:
            calm.set()

    with contextlib.ExitStack() as stack:
        stack.enter_context(kmod.restored())
        stack.enter_context(lib.gro(offload))
        take_offload(offload)
        path = stack.enter_context(tempfile.NamedTemporaryFile()).name
        everything = [(modules, path, quiet, calm, steps, offload),
                      (visitors, path, calm, offload), (passing, calm)]
        for _ in range(PAIRS):
            hosts = stack.enter_context(lib.hosts())
            for h in hosts:
                grow(h)
            everything.append((pair, hosts, path, quiet, calm, steps, offload))
        process.join([
            process.start(until_calm, function, random.Random(f"{lib.SEED} {n}"), *args)
            for n, (function, *args) in enumerate(everything)])
        kmod.unload()
        lib.equal(kmod.loaded("minesp"), False, "minesp loaded")


if __name__ == "__main__":
    lib.run([(f"{SECONDS} seconds, offload {n}, seed {lib.SEED}", lambda n=n: soak(n))
             for n in (0, 1)],
            needs=["ethtool", "ip", "nstat", "stdbuf"], imports=["cryptography"])
