#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""SNs from the clock follow the clock, run ahead of it by at most sn_ahead, and never
repeat, whatever is deleted, added again, unloaded or set. tools/crash.py tests that SNs do
not repeat after a power failure."""
import contextlib
import errno
import itertools
import os
import re
import socket
import struct
import subprocess
import threading
import time

import lib
from lib import kmod, scapy_peer, seqno, share, traffic

try:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    AESGCM = None

CLOCK = lib.XFLAG_CLOCK
LAST = 2 ** 32 - 1


def now():
    return time.clock_gettime(time.CLOCK_REALTIME)


class Sender(scapy_peer.Peer):
    """Host a sends with SNs from the clock. Host b records the SNs."""

    def __init__(self, a, b, tick_us, epoch, ahead, words=CLOCK, **more):
        a.settings(sn_tick_us=tick_us, sn_epoch=int(epoch), sn_ahead=ahead,
                   **more)
        self.tick, self.epoch, self.ahead = tick_us / 1e6, int(epoch), ahead
        super().__init__(a, b, "transport", 4, 4, words=words)
        self.wire.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 24)
        self.wire.setblocking(False)

    def ticks(self, seconds):
        return int((seconds - self.epoch) / self.tick)

    def send(self, data=b"x"):
        """Returns whether the packet was sent. False: refused with EBUSY."""
        try:
            self.app.send(data)
            return True
        except OSError as e:
            lib.equal(e.errno, errno.EBUSY, "error")
            return False

    def recorded(self):
        return seqno.recorded(self.wire, lib.SPI[self.b.name])

    def oseq(self):
        said = lib.sh(f"ip -n {self.a.ns} -s xfrm state list "
                      f"spi {lib.SPI['b']:#x}")
        return int(re.search(r"oseq (0x[0-9a-f]+)", said)[1], 16)

    def again(self):
        """Deletes the SAs and adds them again, with the same keys."""
        self.a.sas("transport", 4, 4, CLOCK)


def sender(tick_us, ahead, **more):
    return scapy_peer.meet(Sender, tick_us, now() - 1000, ahead, **more)


def different(found):
    sns, ivs = {f[0] for f in found}, {f[1] for f in found}
    lib.equal((len(sns), len(ivs)), (len(found), len(found)),
              "different SNs and IVs")


def follows():
    """At a low rate, the SN is the tick and the IV is the SN."""
    with sender(1000, 1000) as p:
        before = p.ticks(now())
        for i in range(20):
            begin = p.ticks(now())
            # Wait for a new tick and a token. The bucket is empty at first.
            lib.wait_for("a tick", lambda: p.ticks(now()) > max(
                begin, before + 1000 * (not i)))
            early = p.ticks(now())
            assert p.send()
            late = p.ticks(now())
            (sn, iv, _), = p.recorded()
            # The first SN is above all SNs that might have been sent before.
            assert early <= sn <= late + (not i) * 1000, (early, sn, late)
            lib.equal(iv, sn, "IV")
            lib.equal(p.oseq(), sn, "oseq")
            if not i:
                lib.wait_for("the clock", lambda: p.ticks(now()) > sn)
        said = p.a.listed()[lib.SPI["b"]]
        wanted = {"SN": "clock", "last-sent": str(sn), "ESN": "no", "fresh": "no",
                  "tick-us": "1000", "epoch": str(p.epoch), "ahead": "1000",
                  "sender": "0", "source": p.a.address(4), "destination": p.b.address(4)}
        lib.equal({k: said[k] for k in wanted}, wanted, "/proc/net/minesp")
        lib.equal(p.a.errors(), {}, "errors")


def bucket():
    """Average rate of one packet a tick, with bursts of sn_ahead packets. The bucket is
    empty when the module is loaded."""
    kmod.unload()
    made = now()
    kmod.load()
    with sender(250000, 10) as p:
        last = sent = most = 0
        ready = now()
        while most < p.ahead - 1 or now() < ready + 6:
            assert now() < ready + 6 + lib.TIMEOUT, f"at most {most} ahead"
            early = p.ticks(now())
            ok = p.send()
            late = p.ticks(now())
            if ok:
                (sn, _, _), = p.recorded()
                sent += 1
                assert last < sn and early <= sn <= late + p.ahead, \
                    (last, early, sn, late)
                most, last = max(most, sn - late), sn
                burst = now() - ready > 3
            else:
                # Packets are refused only if the SN would be too far ahead.
                assert not last or last + 1 > early + p.ahead, (last, early)
                lib.equal(p.oseq(), last, "oseq")
                if not sent or burst:
                    burst = False
                    # The bucket fills while nothing is sent.
                    was = now()
                    lib.wait_for("a tick", lambda: now() > was + 0.3)
        # Refused packets do not count against the SA's limits.
        lib.equal(p.a.carried(lib.SPI["b"])[1], sent, "ip -s xfrm state")
        # One token a tick, and none when the module is loaded
        assert sent <= p.ticks(now()) - p.ticks(made) + 1, sent
        assert set(p.a.errors()) == {"OutAhead", "XfrmOutStateProtoError"}, \
            p.a.errors()


def senders():
    """With several senders at once, SNs are unique, and in order for each sender."""
    with sender(1000, 100) as p:
        threads, each = 4, 150

        def work(i):
            for n in range(each):
                while not p.send(struct.pack(">II", i, n)):
                    time.sleep(0.0005)

        workers = [threading.Thread(target=work, args=(i,))
                   for i in range(threads)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        found = p.recorded()
        lib.equal(len(found), threads * each, "packets")
        different(found)
        cipher = AESGCM(scapy_peer.KEY[:-4])
        by_thread = {}
        for sn, iv, text in found:
            plain = cipher.decrypt(
                scapy_peer.KEY[-4:] + struct.pack(">Q", iv), text,
                struct.pack(">II", lib.SPI["b"], sn))
            i, n = struct.unpack_from(">II", plain, 8)
            by_thread.setdefault(i, []).append((n, sn))
        for got in by_thread.values():
            seqno.increasing([sn for _, sn in sorted(got)])


def burst(p, most=60):
    """Sends until the bucket is empty, but no more than most packets."""
    sent = 0
    while sent < most and p.send():
        sent += 1
    return p.recorded()


def tokens(seconds):
    """Lets the bucket fill for this time."""
    end = now() + seconds
    lib.wait_for("tokens", lambda: now() > end)


def added_again():
    """An SA is deleted and added again while its SNs are ahead of the clock."""
    with sender(20000, 50) as p:
        found = []
        for _ in range(12):
            lib.wait_for("a token", p.send)
            found += burst(p)
            p.again()
        assert len(found) > 24, len(found)
        seqno.increasing([f[0] for f in found])
        different(found)
    # Within one tick, with SNs that are not ahead
    with sender(1000000, 5) as p:
        tokens(7)
        found = []
        for _ in range(3):
            assert p.send()
            found += p.recorded()
            p.again()
        seqno.increasing([f[0] for f in found])
        # A counter restarts at 1. Only the salt of the SA makes its IVs unique.
        p.a.settings(sn_mode=0)
        found = []
        for _ in range(3):
            p.a.sas("transport", 4, 4)
            found += burst(p, 10)
        lib.equal([f[0] for f in found], [*range(1, 11)] * 3, "counter SNs")
        lib.equal(len({f[1] for f in found}), 30, "different IVs")


def elsewhere():
    """A key moves from one namespace to another, and back. Then new namespaces use the
    key."""
    epoch, found = now() - 1000, []
    for _ in range(2):
        with lib.hosts() as hosts:
            for n in range(3):
                tokens(2)
                p = Sender(hosts[n % 2], hosts[1 - n % 2], 100000, epoch, 100)
                found += burst(p)
                p.close()
                p.a.ip("xfrm policy flush\nxfrm state flush")
    seqno.increasing([f[0] for f in found])
    different(found)
    assert len(found) > 6 * 15, len(found)


def reloaded():
    """The module is unloaded and loaded again at once while SNs are ahead of the clock."""
    epoch = now() - 1000
    with lib.hosts() as (a, b):
        found = []
        for _ in range(4):
            p = Sender(a, b, 50000, epoch, 40)
            tokens(1)
            found += burst(p)
            p.close()
            a.ip("xfrm state flush\nxfrm policy flush")
            kmod.unload()
            kmod.load()
        seqno.increasing([f[0] for f in found])
        different(found)
        assert len(found) > 4 * 15, len(found)


@contextlib.contextmanager
def clock_restored():
    """Lets the block set the clock, then restores the clock and reloads minesp, which
    remembers the latest time."""
    offset = now() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME,
                           time.clock_gettime(time.CLOCK_BOOTTIME) + offset)
        kmod.unload()
        kmod.load()


def clock_set():
    """SNs follow the clock forward, but not back. Each step back is counted once."""
    with clock_restored(), sender(1000, 100) as p:
        def one():
            lib.wait_for("a token", p.send)
            return p.recorded()[-1][0]

        sns = [one()]
        time.clock_settime(time.CLOCK_REALTIME, now() + 3600)
        early = p.ticks(now())
        sns.append(one())
        assert early <= sns[-1] <= p.ticks(now()) + 1, (early, sns)
        for _ in range(2):
            time.clock_settime(time.CLOCK_REALTIME, now() - 600)
            sns += [one() for _ in range(3)]
        seqno.increasing(sns)
        # SNs go on, and do not wait for the clock to catch up.
        assert sns[-1] - sns[1] < 20000, sns
        lib.equal(p.a.stats()["ClockSetBack"], 2, "ClockSetBack")
        time.clock_settime(time.CLOCK_REALTIME, now() + 1200)
        sns.append(one())
        seqno.increasing(sns)
        lib.equal(p.a.stats()["ClockSetBack"], 2, "ClockSetBack")


@contextlib.contextmanager
def monitor(host):
    """Yields a function that returns the expire events so far, "soft" and "hard"."""
    with subprocess.Popen(
            ["ip", "-n", host.ns, "xfrm", "monitor", "expire"],
            stdout=subprocess.PIPE) as proc:
        os.set_blocking(proc.stdout.fileno(), False)
        said = []

        def events():
            said.append(proc.stdout.read() or b"")
            return [("soft", "hard")[int(n)] for n in
                    re.findall(rb"hard (\d)", b"".join(said))]

        def listens():
            with host.inside(), open("/proc/thread-self/net/netlink") as f:
                return any(line.split()[1:3] == ["6", str(proc.pid)] and
                           int(line.split()[3], 16) for line in f)

        lib.wait_for("ip xfrm monitor", listens)
        try:
            yield events
        finally:
            proc.terminate()


def epoch_that_ends(seconds, tick):
    """Returns an epoch that leaves a new SA SNs for this many seconds, or one more."""
    return int(now() + seconds + 1 - LAST * tick)


def idle_end():
    """The clock uses up the SNs of an SA that sends nothing."""
    with lib.hosts() as (a, b), monitor(a) as events:
        begin = now()
        a.settings(sn_tick_us=1000, sn_epoch=epoch_that_ends(15, 1e-3))
        a.ip(f"xfrm state add src {a.address(4)} dst {b.address(4)} proto esp "
             f"spi 0x1000 {lib.AEAD} {lib.KEYS[128]} 128 {CLOCK}")
        lib.wait_for("soft", lambda: events()[:1] == ["soft"])
        assert now() - begin > 10, now() - begin
        lib.wait_for("hard", lambda: events() == ["soft", "hard"])
        assert now() - begin > 14, now() - begin
        lib.equal(lib.sh(f"ip -n {a.ns} xfrm state"), "", "SAs")


def busy_end():
    """An SA sends nothing after its last SN, and expires."""
    with lib.hosts() as (a, b), monitor(a) as events:
        tick = 0.01
        p = Sender(a, b, 10000, epoch_that_ends(12, tick), 500)
        found = []
        while now() < p.epoch + LAST * tick + 5:
            with contextlib.suppress(AssertionError):   # the SA is gone
                p.send()
            found += p.recorded()
            if found and found[-1][0] == LAST:
                break
        lib.equal(found[-1][0], LAST, "last SN")
        assert now() < p.epoch + LAST * tick, "ended by the clock"
        seqno.increasing([f[0] for f in found])
        lib.wait_for("events", lambda: sorted(events()) == [
            "hard", "hard", "soft", "soft"])
        for _ in range(3):
            with contextlib.suppress(OSError):
                p.app.send(b"x")
        lib.equal(p.recorded(), [], "packets after the end")
        p.close()


def refused():
    year = 31536000
    with lib.hosts() as (a, b):
        def add(words):
            return a.ip(f"xfrm state add src {a.address(4)} dst {b.address(4)} "
                        f"proto esp spi 0x1000 {lib.AEAD} {lib.KEYS[128]} 128 "
                        f"{words}", check=False)

        fresh = lib.XFLAG_FRESH
        for settings, words, message in (
                ({}, CLOCK, "no epoch"),
                ({}, fresh, "no epoch"),
                ({"sn_mode": 1}, "", "no epoch"),
                ({"rx_fresh": 1}, "", "no epoch"),
                ({"sn_mode": 0, "rx_fresh": 0, "sn_epoch": int(now()) + 100},
                 CLOCK, "clock is before"),
                ({"sn_epoch": int(now()) - 2 * year, "sn_tick_us": 10000},
                 CLOCK, "no SNs left"),
                ({}, "extra-flag 0x0c000000", "contradictory"),
                ({}, "extra-flag 0x30000000", "contradictory"),
                ({}, "extra-flag 0x06000000", "need a minimal SA"),
                ({"enabled": 0}, CLOCK, "need a minimal SA")):
            a.settings(**settings)
            said = add(words)
            assert message in said, f"{words}: {said!r}, not {message!r}"
            lib.equal(lib.sh(f"ip -n {a.ns} xfrm state"), "", "SAs")
        # With the right settings SAs are taken. minesp warns if the tick changes.
        a.settings(enabled=1)
        lib.equal(add(f"flag esn replay-window 32 {CLOCK}"), "", "ESN")
        a.ip("xfrm state flush")
        a.settings(sn_tick_us=100000)
        said = add(CLOCK)
        assert "changed since the last SA" in said, said
        a.ip("xfrm state flush")
        lib.equal(add(CLOCK), "", "the same again")
        for name, bad in (("sn_mode", 2), ("sn_tick_us", 0),
                          ("sn_tick_us", 1000001), ("sn_ahead", 0),
                          ("sn_ahead", 1000001), ("sn_epoch", -1),
                          ("rx_fresh", 2), ("rx_max_age_ms", 86400001),
                          ("rx_max_ahead_ms", -1)):
            was = a.sysctl(f"net.minesp.{name}")
            try:
                a.settings(**{name: bad})
            except OSError:
                lib.equal(a.sysctl(f"net.minesp.{name}"), was, name)
                continue
            raise AssertionError(f"net.minesp.{name} took {bad}")


def chosen():
    """extra-flag or the namespace choose clock or counter. extra-flag wins."""
    with sender(1000, 1000, words="") as p:
        for mode, words, clock in ((0, "", False), (1, "", True),
                                   (0, CLOCK, True),
                                   (1, lib.XFLAG_COUNTER, False)):
            p.a.settings(sn_mode=mode)
            p.a.sas("transport", 4, 4, words)
            lib.equal(p.a.listed()[lib.SPI["b"]]["SN"],
                      "clock" if clock else "counter", f"{mode} {words}")
            lib.wait_for("a token", p.send)
            lib.equal(p.recorded()[-1][0] == 1, not clock, "SN 1")


def cases():
    yield "SNs follow the clock", follows
    yield "the module is loaded again", reloaded
    for n, (name, function) in enumerate((
            ("a bucket of tokens", bucket), ("several senders", senders),
            ("an SA is added again", added_again),
            ("a key moves to other namespaces", elsewhere),
            ("clock or counter", chosen), ("what is refused", refused),
            ("the end of an idle SA", idle_end), ("the end of a busy SA", busy_end))):
        if share.mine(n):
            yield name, function
    for peer, windows in (("stock", (0, 1, 32, 128)), ("minimal", (32,))):
        for n, (family, window) in enumerate(itertools.product((4, 6), windows)):
            if share.mine(n):
                yield (f"{peer} peer, IPv{family}, replay window {window}",
                       lambda p=peer, f=family, w=window: traffic.talk(
                           p, "transport", f, f, [1, 1400, 4000], window=w,
                           sn_mode=1, sn_tick_us=100, sn_ahead=100000,
                           sn_epoch=int(now()) - 100))
        yield (f"{peer} peer, ESN", lambda p=peer: traffic.talk(
            p, "tunnel", 6, 4, [1, 1400, 4000], "flag esn", window=4096,
            sn_mode=1, sn_tick_us=100, sn_ahead=100000,
            sn_epoch=int(now()) - 100))
    for esn in ("", "flag esn"):
        yield (f"implicit IV {esn}", lambda w=esn: traffic.talk(
            "minimal", "transport", 6, 6, [1, 1400, 4000],
            f"{lib.XFLAG_IMPLICIT_IV_CLOCK} {w}", window=4096 if w else 0,
            sn_tick_us=100, sn_ahead=100000, sn_epoch=int(now()) - 100))
    yield "the clock is set", clock_set


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping"],
            imports=["scapy", "cryptography"])
