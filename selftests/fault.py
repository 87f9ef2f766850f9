#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Allocations fail: each one in turn while SAs are added, packets are sent and received,
namespaces are made and the module is loaded; many at random under traffic, also with
crypto that completes later, and with net.minesp.offload. No packet leaves in the clear,
no packet is delivered that was not sent, no operation is half done, and everything works
again afterwards. klog.py finds memory leaks. Pages of vmalloc() and of per-CPU memory do
not fail. The test needs CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC,
CONFIG_FAULT_INJECTION_DEBUG_FS and CONFIG_FAULT_INJECTION_STACKTRACE_FILTER.

MINESP_FAULT: the number of rounds (1). MINESP_SEED: the seed of the requests for SAs."""
import contextlib
import errno
import fcntl
import itertools
import os
import pathlib
import random
import socket
import struct

import lib
from lib import (
    crypto,
    debugfs,
    kmod,
    libc,
    nat,
    offloading,
    request,
    scapy_peer,
    spare,
    suites,
    traffic,
    xflag,
    xfrm,
)

try:
    from scapy.layers.inet import fragment
except ImportError:
    fragment = None

ROUNDS = int(os.environ.get("MINESP_FAULT", 1))
REQUESTS = 10               # SAs, each added until no allocation is left to fail
RANDOM_PACKETS = 400
SECRET = b"not to be seen "
TUNSETIFF = 0x400454ca
IFF_TUN, IFF_TAP, IFF_NAPI, IFF_NAPI_FRAGS, IFF_NO_PI = 1, 2, 0x10, 0x20, 0x1000


def text():
    """Returns about where the module's code starts and ends."""
    module = pathlib.Path("/sys/module/minesp")
    start = int((module / "sections/.text").read_text(), 16)
    return start, start + int((module / "coresize").read_text())


def function(name):
    """Returns where a function of the kernel starts and ends."""
    with open("/proc/kallsyms") as f:
        symbols = sorted((int(line.split()[0], 16), line.split()[2]) for line in f)
    return next((here, after) for (here, n), (after, _) in
                itertools.pairwise(symbols) if n == name)


@contextlib.contextmanager
def faults(percent=0, sleeping=True, code=(0, 2 ** 64 - 1), depth=32, verbose=0, times=-1):
    """Makes allocations fail in calls from this code: the one that a thread selects by
    its fail-nth, and a percentage of all. sleeping: also those that may sleep. depth: how
    many calls below the code. verbose: 1 logs failures that would cause a warning. times:
    how many of a percentage fail; by default there is no limit"""
    where = [debugfs.path(name) for name in ("failslab", "fail_page_alloc")]

    def setting(**values):
        for name, value in values.items():
            for path in where:
                (path / name.replace("_", "-")).write_text(f"{value}\n")

    setting(verbose=verbose, interval=1, times=times, require_start=hex(code[0]),
            require_end=hex(code[1]), stacktrace_depth=depth,
            ignore_gfp_wait="NY"[not sleeping])
    (where[1] / "min-order").write_text("0\n")
    setting(probability=percent)
    try:
        yield
    finally:
        setting(probability=0, require_start=0, require_end=hex(2 ** 64 - 1))


failures = []   # for each act(), whether an allocation failed
sends = []      # for each sending(), how many allocations failed in minesp


def each(act, first=1, step=1):
    """Calls act() again and again, each time with another failing allocation: number
    first, then step further on, until none is left to fail. Yields whether one failed,
    and what act() returned or raised."""
    with open("/proc/thread-self/fail-nth", "r+b", buffering=0) as nth:
        fd = nth.fileno()
        for n in itertools.count(first, step):
            os.pwrite(fd, b"%d" % n, 0)
            try:
                result = act()
            except (OSError, MemoryError) as e:
                result = e
            finally:
                failed = not int(os.pread(fd, 16, 0))
                os.pwrite(fd, b"0", 0)
            failures.append(failed)
            yield failed, result
            if not failed:
                return


def adding():
    """Minimal and stock SAs are added completely or not at all."""
    rand = random.Random(lib.SEED)
    refused = 0
    with spare.host() as host, faults():
        host.settings(sn_epoch=1, sn_tick_us=1000)
        sock = xfrm.Xfrm(host)
        for i in range(REQUESTS):
            # Every fourth request, with the smallest table
            host.settings(sad_slots=1024 if i % 4 else 2)
            stock = not rand.randrange(8)
            while True:
                r = request.Request(rand)
                extra = xflag.STOCK if stock else xflag.MINIMAL | r.extra
                if r.documented() and not r.send(sock, extra):
                    break
            sock.flush()
            for failed, err in each(lambda: r.send(sock, extra)):
                what = f"MINESP_SEED={lib.SEED} request {i}, {r}: {err}"
                if isinstance(err, OSError):        # no memory for the answer
                    lib.equal(err.errno, errno.ENOBUFS, what)
                    sock.sock.close()
                    sock = xfrm.Xfrm(host)
                else:
                    assert failed or not err, what
                    lib.equal(sock.count(), int(not err), what)
                    refused += bool(err)
                sock.flush()
                lib.equal(sock.count(), 0, what)
    assert refused > REQUESTS, f"only {refused} were refused"


def replaced():
    """An SA is added after one that got no memory for its place in the list. It stays in
    the list when the kernel destroys the other."""
    with spare.host() as host:
        sock = xfrm.Xfrm(host)
        held = kmod.refcount("minesp")

        def add(spi):
            return sock.add(spare.SRC, spare.DST, spi, bytes(20))

        # An xarray tries to allocate a node twice.
        with faults(100, code=function("__xa_alloc_cyclic"), times=2):
            errors = [add(0x1000), add(0x2000)]
        lib.equal(errors, [errno.ENOMEM, 0], "errors")
        if kmod.refcount("minesp") != held + 2:
            raise lib.Skip("the first SA was destroyed too early")
        lib.wait_for("the first SA is destroyed",
                     lambda: kmod.refcount("minesp") == held + 1)
        lib.equal(list(host.listed()), [0x2000], "SAs in the list")
        sock.flush()


def resizing():
    """sad_slots changes while there is a table."""
    with spare.host() as host, faults(code=text()):
        spare.add(host, lib.SUITE)
        with host.inside():
            fd = os.open("/proc/sys/net/minesp/sad_slots", os.O_RDWR)
        before, old = len(failures), host.sysctl("net.minesp.sad_slots")
        for slots in (2, 64, 65536):
            for failed, result in each(lambda: os.pwrite(fd, b"%d\n" % slots, 0)):
                new = str(slots)
                if isinstance(result, OSError):
                    lib.equal(result.errno, errno.ENOMEM, "error")
                    new = old
                lib.equal(host.sysctl("net.minesp.sad_slots"), new, "sad_slots")
                host.settings(sad_slots=old)
        os.close(fd)
        lib.equal(host.sysctl("net.minesp.sad_slots"), "1024", "sad_slots")
    assert any(failures[before:]), "nothing failed"


def namespaces():
    """A namespace is made completely or not at all."""
    def unshare():
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            libc.call("unshare", libc.CLONE_NEWNET)
            libc.call("setns", here, libc.CLONE_NEWNET)
        finally:
            os.close(here)

    with faults(code=text()):
        results = [result for _, result in each(unshare)]
    *errors, last = results
    lib.equal(last, None, "with all the memory")
    for e in errors:
        assert not e or e.errno == errno.ENOMEM, e
    assert any(errors), "nothing failed"


def loading(first):
    """The module is loaded completely or not at all. Only every third allocation fails,
    because loading takes seconds."""
    image = kmod.image()
    kmod.unload()
    before = len(failures)
    try:
        with faults(code=function("do_init_module")):
            for failed, result in each(
                    lambda: kmod.insert(image), first, 3):
                lib.equal(kmod.loaded("minesp"), result is None, "loaded")
                assert failed or not result, result
                kmod.unload()
    finally:
        kmod.load()
    assert any(failures[before:]), "nothing failed"


class Wire:
    """Checks what a host sends."""

    def __init__(self, host):
        self.sock = host.wire(room=1 << 22)
        self.sock.setblocking(False)

    def no_secrets(self):
        """Checks what the host has sent since the last call. Returns how many packets
        these were."""
        seen = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self.sock.recvfrom(1 << 16)
                # Packets that come out of a tunnel are seen here, too.
                if address[2] == socket.PACKET_OUTGOING:
                    assert SECRET not in frame, f"sent in clear: {frame.hex()}"
                    seen += 1
        return seen


@contextlib.contextmanager
def peer(mode, inner, outer, suite, way):
    enabled = way == "offload"
    with (lib.gro(enabled, enabled), lib.hosts() as (a, b), nat.ike(a, outer),
          contextlib.closing(scapy_peer.SuitePeer(a, b, mode, inner, outer, suite,
                                                  encap=way == "in UDP")) as p):
        yield p


def sending(*args):
    with peer(*args) as p, faults():
        wire = Wire(p.a)
        page = os.memfd_create("page")
        os.write(page, SECRET * 80)
        for n in (1, 80, 600, "page"):      # fits, just does not fit, needs fragments
            def send():
                if n == "page":             # is not in linear memory
                    return os.sendfile(p.app.fileno(), page, 0, 80 * len(SECRET))
                return p.app.send(SECRET * n)

            send()
            wire.no_secrets()
            for failed, result in each(send):
                sent = wire.no_secrets()
                assert failed or sent and result >= len(SECRET), (sent, result)
        os.close(page)
        # Few of these packets need memory in minesp, and in some modes none.
        sends.append(p.a.stats()["OutNoMemory"])


@contextlib.contextmanager
def tun(host, gro=False):
    """Yields a tun device, or with gro a tap device whose packets go to GRO. The host
    receives a packet before write() returns. A socket listens, too, so packets are
    cloned."""
    lib.sh("modprobe tun")
    with host.inside():
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack(
            "16sH22x", b"tun0", IFF_NO_PI | (
                IFF_TAP | IFF_NAPI | IFF_NAPI_FRAGS if gro else IFF_TUN)))
    with contextlib.closing(os.fdopen(fd, "r+b", buffering=0)):
        host.ip(f"link set tun0 {f'address {host.mac}' if gro else ''} up")
        with host.wire("tun0"):
            yield fd


def receiving(mode, inner, outer, suite, way):
    gro = way == "offload"
    with peer(mode, inner, outer, suite, way) as p, faults(), tun(p.a, gro) as fd:
        p.warm()
        p.app.setblocking(False)

        def write():
            for packet in ip:
                if gro:     # with the payload outside linear memory
                    frame = p.ethernet(packet)
                    os.writev(fd, [part for part in (frame[:60], frame[60:]) if part])
                else:
                    os.write(fd, bytes(packet))

        if gro:
            with offloading.decrypts(p.a, device="tun0"):
                ip = [p.frame(p.esp(*p.datagram(SECRET)[::-1]))]
                write()
                lib.equal(list(p.arrived()), [SECRET], "delivered")
        for n, good, cut in itertools.product((1, 80), (True, False), (0, 600)):
            if cut and outer == 6:
                continue
            data = SECRET * n
            nh, payload = p.datagram(data)
            ip = []

            def make():
                esp = p.esp(payload, nh)
                packet = p.frame(esp if good else scapy_peer.spoilt(esp))
                ip[:] = fragment(packet, cut) if cut else [packet]

            make()
            for failed, result in each(write):
                got = list(p.arrived())
                if good and not failed:
                    # The thread ksoftirqd may be the one that delivers.
                    lib.wait_for("the packet", lambda: got.extend(p.arrived()) or got)
                    lib.equal((set(got), result), ({data}, None), "delivered")
                assert not got or good and set(got) == {data}, f"{got} was delivered"
                make()
        # UDP itself makes the copy that minesp would make.
        assert way == "in UDP" or p.a.stats()["InNoMemory"], "none failed in minesp"


def silent():
    """If minesp cannot allocate memory for the fragments of a packet, it does not log
    that, because the sender chooses their number."""
    def logged():
        return lib.sh("dmesg").count("FAULT_INJECTION: forcing a failure")

    # With this depth, only allocations by minesp itself fail, not those in core functions.
    with scapy_peer.peer() as p, faults(code=text(), depth=6, verbose=1), tun(p.a) as fd:
        nh, payload = p.datagram(SECRET * 80)
        before = logged()

        def write():
            for packet in fragment(p.frame(p.esp(payload, nh)), 24):
                os.write(fd, bytes(packet))

        list(each(write))
        lib.equal(p.app.recv(1 << 16), SECRET * 80, "data")
        assert p.a.stats()["InNoMemory"], "none failed in minesp"
        lib.equal(logged() - before, 0, "lines in the log")


def at_random(mode, inner, outer, way=""):
    """Two minimal hosts, traffic both ways at once"""
    kind = "inner" if mode == "tunnel" else "outer"
    gro = way == "offload"
    with lib.gro(gro, gro), lib.hosts() as (a, b):
        for h in (a, b):
            h.sas(mode, inner, outer)
        ends = traffic.pair(a, b, inner, kind, scapy_peer.PORT)
        wires = [Wire(h) for h in (a, b)]
        sent, got, seen = set(), 0, 0
        for end in ends:
            end.setblocking(False)

        def collect():
            received = []
            for end in ends:
                with contextlib.suppress(OSError):
                    while True:
                        received.append(end.recv(1 << 16))
            assert sent.issuperset(received), f"{received} was delivered"
            return received

        with faults(10, sleeping=False):
            for i in range(RANDOM_PACKETS):
                data = SECRET * random.choice((1, 80, 600)) + str(i).encode()
                sent.add(data)
                for end in ends:
                    with contextlib.suppress(OSError):
                        end.send(data)
                got += len(collect())
                seen += sum(wire.no_secrets() for wire in wires)
        assert min(got, seen) > RANDOM_PACKETS // 10, f"only {got} of {seen} arrived"
        for h in (a, b):
            stats = h.stats()
            # minesp needs memory to send few of these packets. sending() tests those.
            assert stats["InNoMemory"], stats
            lib.equal(stats["InIcvWrong"], 0, "wrong ICVs")
        for end, data in zip(ends, (SECRET + b"here", SECRET + b"there")):
            sent.add(data)
            end.send(data)
            lib.wait_for("it works again", lambda: data in collect())
        for end in ends:    # or they keep the namespaces
            end.close()


def enough():
    lib.print_msg(f"{sum(failures)} allocations have failed in turn")
    assert sum(failures) > 1000 * ROUNDS, f"only {sum(failures)}"
    assert any(sends), "none failed in minesp while it sent"


def cases():
    debugfs.path("failslab")
    known = dict(suites.explicit_iv())
    # Modes and suites do not depend on each other.
    gcm, cbc = "AES-GCM-16 128", "cbc(aes) 128, hmac(sha256)"
    chosen = [(gcm, mode, "") for mode in lib.MODES[1::2]]
    chosen += [(cbc, mode, "") for mode in lib.MODES[::5]]
    chosen += [(gcm, mode, "in UDP") for mode in lib.MODES[::3]]
    chosen += [(gcm, lib.MODES[1], "offload")]
    for i in range(ROUNDS):
        n = f", round {i + 1}" if ROUNDS > 1 else ""
        yield f"adding SAs, seed {lib.SEED}{n}", adding
        yield f"an SA after one without memory{n}", replaced
        yield f"resizing the table{n}", resizing
        yield f"making namespaces{n}", namespaces
        first = random.randint(1, 3)
        yield f"loading the module, from {first}{n}", lambda f=first: loading(f)
        for name, mode, way in chosen:
            for what in (sending, receiving):
                yield (", ".join(filter(None, (what.__name__, name, str(mode), way))) + n,
                       lambda w=what, s=known[name], m=mode, way=way: w(*m, s, way))
        yield f"many fragments{n}", silent
        yield f"at random{n}", lambda: at_random(*lib.MODES[2])
        yield f"at random, offload{n}", lambda: at_random(*lib.MODES[0], "offload")
        for mode in lib.MODES[:2]:
            yield (f"at random, async_aead, {mode}{n}",
                   lambda m=mode: crypto.using(crypto.async_aead, at_random, *m))
    yield "there were enough allocations", enough


if __name__ == "__main__":
    lib.run(cases(), needs=["ethtool", "ip"], imports=["scapy", "cryptography"])
