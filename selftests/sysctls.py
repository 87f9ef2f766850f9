#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Random writes to net.minesp. A write has its documented effect, and no other. While
several processes write, and SAs are added and deleted with the resulting settings, older
SAs lose no packet and keep their SNs in order. Other namespaces keep their values.

MINESP_SYSCTLS: the number of writes in each case (400). MINESP_SEED: their seed, which
is in the name of each case with random writes."""
import errno
import os
import pathlib
import random
import threading
import time

import lib
from lib import process, seqno, traffic, xfrm

COUNT = int(os.environ.get("MINESP_SYSCTLS", 400))
WRITERS = 3
CHANGES = 50
SIZES = [*range(1, 16), 1400]   # none that IP would fragment

NET_MINESP = pathlib.Path("/proc/sys/net/minesp")
RANGES = {
    "enabled": (0, 2), "sad_slots": (2, 1 << 20), "sn_mode": (0, 1),
    "sn_tick_us": (1, 1000000), "sn_epoch": (0, 2 ** 32 - 1),
    "sn_ahead": (1, 1000000), "sn_active": (0, 1), "sn_skew_ms": (0, 60000),
    "iv_sender": (0, 255), "offload": (0, 1), "rx_fresh": (0, 1),
    "rx_max_age_ms": (0, 86400000), "rx_max_ahead_ms": (0, 86400000),
}
KEPT = "kept"       # accepted without effect


def documented(name, value):
    low, high = RANGES[name]
    return low <= value <= high and (
        name != "sad_slots" or value.bit_count() == 1)


def anything(rand, name):
    """Returns a write: bytes, offset, and the value that it sets; None: it is refused."""
    low, high = RANGES[name]
    n = rand.choice((rand.randint(low, high), low, high, low - 1, high + 1,
                     1 << rand.randrange(24), -rand.getrandbits(40),
                     2 ** 32 + low, 2 ** 64 + low, 10 ** 30))
    value = n if documented(name, n) else None
    text = rand.choice((str(n), str(n), hex(n), f"0{n:o}"))
    kind = rand.randrange(16)
    if kind == 0:       # the first number counts
        text += rand.choice((" ", "\t", "\n")) + rand.choice(
            (str(low), "x", "\0", "-1\n", " " * 10000, "x" * 10000))
    elif kind == 1:
        text = rand.choice((" ", "\t\n \n", " " * 1000)) + text
    elif kind == 2:     # only the first page counts
        text, value = " " * 4096 + text, None
    elif kind == 3:
        text, value = text + rand.choice(("x", ",", "\0", ".5", "-", ";1")), None
    elif kind == 4:
        text, value = rand.choice(("+", "--", "- ", "x", "\0", "0" * 30)) + text, None
    elif kind == 5:
        text, value = rand.choice((" ", "\n\n", "-", "x" * 20000)), None
    elif kind == 6:
        return b"\xff" + rand.randbytes(rand.randrange(300)), 0, None
    elif kind == 7:
        return b"", 0, KEPT
    elif kind == 8:     # not at the beginning: sysctl_writes_strict
        return text.encode(), rand.choice((1, 4096, 2 ** 40)), KEPT
    return text.encode(), 0, value


def write(name, data, offset):
    """Returns the error number, 0 for none."""
    fd = os.open(NET_MINESP / name, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
    except OSError as e:
        return e.errno
    finally:
        os.close(fd)
    return 0


def read(name):
    return int((NET_MINESP / name).read_text())


def values():
    return {name: read(name) for name in RANGES}


def values_of(*hosts):
    """Returns the values of this namespace, and of these hosts."""
    all_values = [values()]
    for h in hosts:
        with h.inside():
            all_values.append(values())
    return all_values


def each():
    """One process writes. Half way it adds an SA, so that there is a table."""
    rand = random.Random(lib.SEED)
    refused = 0
    with lib.hosts() as (a, b):
        others = values_of(b)
        with a.inside():
            lib.equal({p.name for p in NET_MINESP.iterdir()}, RANGES.keys(),
                      "settings")
            wanted = values()
            for i in range(COUNT):
                if i == COUNT // 2:
                    a.sas("transport", 4, 4, "extra-flag 0x29000000")
                name = rand.choice([*RANGES])
                data, offset, value = anything(rand, name)
                what = f"{i}: {data[:60]!r} at {offset} to {name}"
                err = write(name, data, offset)
                if value is None:
                    refused += 1
                elif value != KEPT:
                    wanted[name] = value
                lib.equal(err, errno.EINVAL if value is None else 0,
                          f"error of {what}")
                lib.equal(values(), wanted, f"values after {what}")
        lib.equal(values_of(b), others, "values of other namespaces")
    assert COUNT // 10 < refused < COUNT * 9 // 10, refused


def without_effect():
    """A write without effect does not undo a write that happens at the same time."""
    stop, errors = threading.Event(), set()
    written, writes = threading.Condition(), 0

    def idle():
        nonlocal writes
        with a.inside():
            while not stop.is_set():
                errors.add(write("sad_slots", b"", 0))
                with written:
                    writes += 1
                    written.notify()

    def ended():
        """Waits until the current write has ended."""
        with written:
            before = writes
            assert written.wait_for(lambda: writes > before, lib.TIMEOUT), "no write ends"

    with lib.hosts() as (a, b):
        a.sas("transport", 4, 4)    # a table, which takes time to change
        thread = threading.Thread(target=idle)
        thread.start()
        try:
            with a.inside():
                for n in range(CHANGES):
                    slots = 1 << 17 + n % 4     # takes time to allocate
                    lib.equal(write("sad_slots", b"%d" % slots, 0), 0, "error")
                    ended()
                    lib.equal(read("sad_slots"), slots, "sad_slots")
        finally:
            stop.set()
            thread.join()
    lib.equal(errors, {0}, "errors of writes without effect")


def writer(host, seed):
    rand = random.Random(seed)
    names = [name for name in RANGES if name != "sn_active"]    # sn_active=0 would stop traffic
    with host.inside():
        for i in range(COUNT // WRITERS):
            name = rand.choice(names)
            data, offset, value = anything(rand, name)
            lib.equal(write(name, data, offset),
                      errno.EINVAL if value is None else 0,
                      f"error of {i}: {data[:60]!r} at {offset} to {name}")
            now = read(name)
            assert documented(name, now), f"{name} is {now}"


def adder(host, seed):
    """Adds and deletes SAs with the current settings, without traffic. They are few,
    because xfrm's table grows at eight SAs, and xfrm may miss an SA meanwhile."""
    rand, sock, taken = random.Random(seed), xfrm.Xfrm(host), 0
    for _ in range(COUNT):
        spi, dst = 0x2000 + rand.randrange(4), host.address(4)
        if rand.randrange(2):
            err = sock.add("192.0.2.99", dst, spi, rand.randbytes(20))
            assert err in (0, errno.EEXIST, errno.EINVAL), err
            taken += not err
        else:
            sock.delete(dst, spi)
    assert taken > COUNT // 50, f"{taken} SAs were taken"


def at_once(kind, **settings):
    with lib.hosts() as (a, b):
        for h in (a, b):
            h.settings(**settings)
            h.sas("transport", 4, 4)
        others = values_of(b)
        # On the sender's wire, packets are in the order in which they got SNs.
        wire = a.wire(room=1 << 24)
        wire.setblocking(False)
        sns = []
        processes = [process.start(f, a, f"{lib.SEED} {kind} {n}")
                     for n, f in enumerate((adder, *[writer] * WRITERS))]
        while any(p.is_alive() for p in processes):
            traffic.udp(a, b, 4, "outer", SIZES)
            sns += [sn for sn, *_ in seqno.recorded(wire, lib.SPI["b"])]
        wire.close()
        process.join(processes)
        assert len(sns) > 2 * len(SIZES), f"{len(sns)} packets only"
        seqno.increasing(sns)
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")
        lib.equal(values_of(b), others, "values of other namespaces")


def cases():
    yield f"{COUNT} writes, one by one, seed {lib.SEED}", each
    yield "writes without effect", without_effect
    for kind, settings in (
            ("with a counter", {}), ("of esp4", {"enabled": 0}),
            ("with a clock", dict(
                sn_mode=1, rx_fresh=1, sn_tick_us=100, sn_ahead=100000,
                sn_epoch=int(time.time()) - 100))):
        yield (f"{COUNT} writes at once, under traffic, SAs {kind}, seed {lib.SEED}",
               lambda k=kind, s=settings: at_once(k, **s))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"])
