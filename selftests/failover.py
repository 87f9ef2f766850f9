#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Two gateways share an SA whose SNs come from the clock. One gateway is active, the other
stands by and takes over. The peer uses stock ESP."""
import collections
import contextlib
import errno
import itertools
import math
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import lib
from lib import process, seqno, share, suites, traffic

GATEWAY, PEER = "192.0.2.1", "192.0.2.2"    # both gateways have the first address
# (both gateways, peer, length of the prefix)
ADDRESSES = {4: (GATEWAY, PEER, 24), 6: ("2001:db8::1", "2001:db8::2", 64)}
SPI, PORT = 0x1001, 9
TICK_US, AHEAD = 50000, 20     # a run-ahead of a second
SKEW = 1                        # seconds between the clocks of the gateways
SITES = [(4, False), (6, True), (6, False), (4, True)]      # at the same time: family, ESN
FAILOVERS = int(os.environ.get("MINESP_FAILOVERS", 40)) // len(SITES)
BELOW = 150     # With ESN, SNs begin this many ticks below 2 * 2**32.
LATE = lib.TIMEOUT              # seconds by which a busy machine may be late


def add(family=4):
    """Returns the ip command for the gateways' SA, to which the caller adds words."""
    gateway, peer, _ = ADDRESSES[family]
    return f"xfrm state add src {gateway} dst {peer} proto esp spi {SPI} mode transport"


ADD = add()
# One suite of each kind in counter mode
SUITES = ("AES-GCM-16 128", "AES-CCM-8 128", "ChaCha20-Poly1305",
          "rfc3686(ctr(aes)) 128, hmac(sha256)")


def lan(a, b, c):
    """Returns ip commands for two gateways and a peer that bridges them."""
    return "\n".join([f"link add lan address {c.mac} netns {c.ns} type bridge"] + [
        f"link add veth0 address {h.mac} netns {h.ns} type veth "
        f"peer name {h.name} netns {c.ns}" for h in (a, b)])


def nodad(family):
    return "nodad" if family == 6 else ""


def lan_up(c, family=4):
    _, peer, length = ADDRESSES[family]
    c.ip(f"""
        link set lo up
        addr add {peer}/{length} dev lan {nodad(family)}
        link set lan up
        link set dev a master lan up
        link set dev b master lan up
    """)


def stock_peer(c, window=32, suite=lib.SUITE, family=4, sn=None):
    """Makes c the peer. sn: if given, the SA has ESN and starts at this SN. Returns a
    socket that gets the packets that c receives."""
    gateway, peer, _ = ADDRESSES[family]
    esn = f"flag esn replay-seq {sn & 0xffffffff} replay-seq-hi {sn >> 32}" if sn else ""
    lan_up(c, family)
    c.settings(enabled=0)
    c.ip(f"""
        {add(family)} replay-window {window} {suite} {esn}
        xfrm policy add src {gateway} dst {peer} dir in tmpl proto esp mode transport
    """)
    wire = c.wire("lan", room=1 << 24)
    wire.setblocking(False)
    return wire


class Gateway:
    """Sends to the peer from the address that both gateways have."""

    def __init__(self, host, peer, epoch, tick_us, suite, family, esn, sender, **settings):
        self.host, self.epoch, self.tick_us, self.sender = host, epoch, tick_us, sender
        self.sent = 0
        gateway, to, length = ADDRESSES[family]
        self.sa = f"{add(family)} {suite} {lib.XFLAG_CLOCK}"
        if esn:
            self.sa += " flag esn replay-window 32"
        host.ip(f"""
            link set lo up
            addr add {gateway}/{length} dev veth0 {nodad(family)}
            link set veth0 up
            neigh replace {to} lladdr {peer.mac} dev veth0 nud permanent
            xfrm policy add src {gateway} dst {to} dir out tmpl proto esp mode transport
        """)
        # A gateway sets these after boot, before it adds an SA.
        host.settings(sn_active=0, sn_epoch=epoch, sn_tick_us=tick_us, sn_ahead=AHEAD,
                      iv_sender=sender, **settings)
        host.ip(self.sa)
        self.sock = host.socket(lib.family_of(to), socket.SOCK_DGRAM)
        self.sock.connect((to, PORT))

    def ticks(self):
        return (time.time() - self.epoch) * 1e6 / self.tick_us

    def active(self, value):
        self.host.settings(sn_active=value)

    def send(self):
        """Returns 0 or the error."""
        try:
            self.sock.send(b"x")
        except OSError as e:
            return e.errno
        self.sent += 1
        return 0

    def send_all(self):
        """Sends until the run-ahead is used up."""
        end = time.monotonic() + LATE
        while not self.send():
            assert time.monotonic() < end, "packets take longer than a tick"

    def reboots(self):
        """Loses all state. The flush also removes the SA from the socket's cached route."""
        self.active(0)
        self.host.ip(f"xfrm state flush\n{self.sa}")


class Site:
    """Gateways a and b, and peer c. late: the seconds by which b's clock is late. slow: the
    microseconds by which a tick of b is longer. senders: iv_sender of a, and of b"""

    def __init__(self, a, b, c, window, late=SKEW, slow=0, suite=lib.SUITE, family=4,
                 esn=False, senders=(0, 0), **settings):
        sn = 2 * 2**32 - BELOW if esn else 1000 * 1000000 // TICK_US
        now, age = int(time.time()), sn * TICK_US // 1000000
        epoch = now - age
        # The time when the lower half of the SN starts again at 0
        self.crossing = epoch + 2 * 2**32 * TICK_US / 1e6 if esn else 0
        self.peer = c
        self.wire = stock_peer(c, window, suite, family, sn if esn else None)
        to = ADDRESSES[family][1]
        self.sink = c.socket(lib.family_of(to), socket.SOCK_DGRAM)
        self.sink.bind((to, PORT))
        self.a = Gateway(a, c, epoch, TICK_US, suite, family, esn, senders[0], **settings)
        # A later epoch makes a clock late by whole seconds. With a longer tick, too, the
        # clock of b is late by up to one second more.
        tick = TICK_US + slow
        self.b = Gateway(b, c, math.ceil(now - (age - late) * tick / TICK_US), tick, suite,
                         family, esn, senders[1], **settings)

    def recorded(self):
        return seqno.recorded(self.wire, SPI)

    def carried(self):
        return self.peer.carried(SPI)[1]


@contextlib.contextmanager
def site(*args, **kwargs):
    with lib.namespaces("abc", lan) as hosts:
        yield Site(*hosts, *args, **kwargs)


def take_over(old, new, skew, crashes):
    """The new gateway sends nothing before the skew has passed."""
    if crashes:
        old.reboots()
    else:
        old.active(0)
        lib.equal(old.send(), errno.ENETDOWN, "error of the one that stands by")
    began = time.monotonic()
    new.active(1)
    while err := new.send():
        lib.equal(err, errno.EBUSY, "error of the one that takes over")
        assert time.monotonic() < began + skew + LATE, "it does not take over"
        time.sleep(0.002)
    took = time.monotonic() - began
    assert took > skew, f"it took over in {took} seconds"


def fail_overs(s, seed, skew):
    """The active gateway sends as much as it can, or at a lower rate. Its last SN is as
    far ahead of its clock as allowed."""
    rand = random.Random(seed)
    old, new = s.a, s.b
    done = 0
    while done < FAILOVERS or time.time() < s.crossing + SKEW:
        done += 1
        take_over(old, new, skew, rand.randrange(2))
        end, pause = time.monotonic() + rand.uniform(0, 1), rand.choice((0, 0.01, 0.4))
        while time.monotonic() < end:
            new.send()
            time.sleep(pause)
        new.send_all()
        old, new = new, old


def nothing_repeats(window, seed, family, esn):
    with site(window, family=family, esn=esn, sn_skew_ms=SKEW * 1000) as s:
        fail_overs(s, seed, SKEW)
        sent = s.a.sent + s.b.sent
        assert sent > 2 * FAILOVERS, f"{sent} packets only"
        lib.wait_for("the peer has all", lambda: s.carried() >= sent)
        found = s.recorded()
        lib.equal(len(found), sent, "packets")
        ivs = [iv for _, iv, _ in found]
        seqno.increasing(ivs)
        lib.equal([iv & 0xffffffff for iv in ivs], [sn for sn, *_ in found], "IVs")
        lib.equal(ivs[-1] >> 32, 2 if esn else 0, "upper half of the last SN")
        lib.equal((s.carried(), s.peer.errors()), (sent, {}), "packets that the peer took")


class Tap:
    """Sees what the peer gets, and knows what the peer's replay window must drop: how many
    packets for which reason, and how many with which sender ID."""

    def __init__(self, s, window):
        self.s, self.window, self.ivs = s, seqno.Window(window), []
        self.why, self.whose = collections.Counter(), collections.Counter()

    def read(self):
        """Reads what has arrived; returns whether that is all that was sent."""
        for sn, iv, _ in self.s.recorded():
            lib.equal(iv & 0xffffffff, sn, "lower half of the IV")
            self.ivs.append(iv)
            if why := self.window.receive(iv & (1 << 56) - 1):
                self.why[why] += 1
                self.whose[iv >> 56] += 1
        return len(self.ivs) == self.s.a.sent + self.s.b.sent

    def met(self):
        """Returns whether both gateways have sent the same SN."""
        self.read()
        return self.why["replay"] > 0


def overlap(old, new, pause, goes_on):
    """The new gateway takes over, and the old one sends as long as goes_on() is true.
    Returns for how many seconds the old one has sent."""
    began, sent, lasted = time.monotonic(), new.sent, 0
    new.active(1)
    while (on := goes_on()) or new.sent == sent:
        if on:
            old.send()
            lasted = time.monotonic() - began
        new.send()
        assert time.monotonic() < began + LATE, "it does not take over, or SNs do not meet"
        time.sleep(pause)
    return lasted


def both_for_a_while(window, seed, family, esn):
    """The old gateway goes on sending after the new one has taken over. No IV repeats. The
    peer drops exactly what its replay window must drop: packets with an SN that the other
    gateway has used, and packets below the window. With ESN, the peer takes the latter for
    packets with a higher SN, and their ICV is wrong.

    The peer drops no packet of the new gateway if sn_skew_ms covers how far the old one's
    clock is ahead, plus how long the old one goes on."""
    rand = random.Random(seed)
    with site(window, late=0, slow=rand.randrange(1, 50), family=family, esn=esn,
              senders=(1, 2), sn_skew_ms=SKEW * 1000) as s, traffic.one_cpu():
        tap, old, new, done = Tap(s, window), s.a, s.b, 0
        old.active(1)
        lib.wait_for("a token", lambda: not old.send())
        while done < FAILOVERS // 3 or time.time() < s.crossing + SKEW:
            if rand.randrange(2):
                old.send_all()
            pause, before = rand.choice((0.01, 0.05, 0.2)), tap.whose[new.sender]
            if done == 0:   # at least once, the two send the same SN
                lasted = overlap(old, new, 0.01, lambda: not tap.met())
            else:
                end = time.monotonic() + rand.uniform(0, 1.5 * SKEW)
                lasted = overlap(old, new, pause, lambda: time.monotonic() < end)
            done += 1
            rand.choice((old.reboots, lambda: old.active(0)))()
            lib.equal(old.send(), errno.ENETDOWN, "error of the one that stands by")
            end = time.monotonic() + rand.uniform(0, 0.5)
            while time.monotonic() < end:
                new.send()
                time.sleep(pause)
            lib.wait_for("the tap has seen all", tap.read)
            # Two ticks for rounding, because SNs are whole ticks
            ticks = max(0, old.ticks() - new.ticks()) + lasted * 1e6 / TICK_US + 2
            if ticks < SKEW * 1e6 / TICK_US:
                lib.equal(tap.whose[new.sender], before, "dropped packets of the new one")
            old, new = new, old

        # Two IVs differ in the sender ID or, of one gateway, in the SN.
        for gateway in s.a, s.b:
            ivs = [iv for iv in tap.ivs if iv >> 56 == gateway.sender]
            lib.equal(len(ivs), gateway.sent, "packets with this sender ID")
            seqno.increasing(ivs)
        lib.equal(tap.window.top >> 32, 2 if esn else 0, "upper half of the last SN")
        taken = len(tap.ivs) - tap.why.total()
        lib.wait_for("the peer has all", lambda: s.carried() >= taken)
        errors = collections.Counter(XfrmInStateSeqError=tap.why["replay"])
        errors["XfrmInStateProtoError" if esn else "XfrmInStateSeqError"] += tap.why["late"]
        lib.equal((s.carried(), s.peer.errors()), (taken, dict(+errors)),
                  "packets that the peer took, and dropped")


def at_once(check, window):
    """Runs several sites at the same time, because a fail-over is mostly waiting."""
    process.join([process.start(check, window, f"{lib.SEED} {window} {n}", *how)
                  for n, how in enumerate(SITES)])


def without_skew():
    """SNs repeat if the clocks differ by more than sn_skew_ms."""
    with site(32, sn_skew_ms=0) as s:
        take_over(s.b, s.a, 0, False)
        full = time.monotonic() + AHEAD * TICK_US / 1e6
        lib.wait_for("a full bucket", lambda: time.monotonic() > full)
        s.a.send_all()
        take_over(s.a, s.b, 0, False)
        s.b.send_all()
        lib.wait_for("replays", lambda: s.peer.errors().get("XfrmInStateSeqError"))
        sns = [sn for sn, *_ in s.recorded()]
        assert len({*sns}) < len(sns), sns


def both(suite, senders):
    """Both gateways send. Returns {SN: IV} for each one."""
    with site(4096, late=0, suite=suite, senders=senders, sn_skew_ms=0) as s:
        gateways = s.a, s.b
        for gateway in gateways:
            gateway.active(1)
        for gateway in gateways:
            lib.wait_for("a token", lambda g=gateway: not g.send())
        found = {}
        end = time.monotonic() + LATE
        while True:
            for gateway in gateways:
                s.recorded()
                gateway.send_all()
                found.setdefault(gateway, {}).update(
                    {sn: iv for sn, iv, _ in s.recorded()})
            sns = [set(of) for of in found.values()]
            if sns[0] & sns[1]:
                return list(found.values())
            assert time.monotonic() < end, "SNs do not meet"


def senders(suite):
    one, two = both(suite, (1, 255))
    for sender, ivs in (1, one), (255, two):
        lib.equal(ivs, {sn: sender << 56 | sn for sn in ivs}, "IVs")
    assert not {*one.values()} & {*two.values()}, "a nonce repeats"


def same_sender():
    one, two = both(lib.SUITE, (0, 0))
    assert {*one.values()} & {*two.values()}, "no nonce repeats"


def no_room():
    """An implicit IV is the SN, so it has no room for a sender ID. AES-CBC needs none,
    because its IVs are random."""
    with site(32) as s:
        host = s.a.host
        host.settings(iv_sender=7)
        host.ip("xfrm state flush")
        said = host.ip(f"{ADD} {lib.SUITE} {lib.XFLAG_IMPLICIT_IV_CLOCK}", check=False)
        assert "no room for a sender ID; set net.minesp.iv_sender=0" in said, said
        host.ip(f"{ADD} {lib.CBC} {lib.XFLAG_CLOCK}")


def standing_by():
    """A gateway that stands by sends nothing. Refused packets do not count against the
    SA's limits. SAs with a counter still send."""
    with site(32) as s:
        for _ in range(10):
            lib.equal(s.a.send(), errno.ENETDOWN, "error")
        lib.equal(s.a.host.errors(), {"OutStandby": 10, "XfrmOutStateProtoError": 10},
                  "errors")
        lib.equal(s.a.host.carried(SPI), (0, 0), "bytes and packets")
        lib.equal(s.a.host.listed()[SPI]["last-sent"], "0", "SN")
        s.a.host.ip("xfrm state flush")
        s.a.host.ip(f"{ADD} {lib.SUITE} {lib.XFLAG_COUNTER}")
        lib.equal(s.a.send(), 0, "error")
        lib.equal(s.recorded()[0][0], 1, "SN")


def under_traffic():
    """sn_active takes effect at once: no packet leaves after one has been refused."""
    def sender(s):
        while True:
            s.a.send()

    def refused(s):
        """Returns the counters after one more packet has been refused."""
        before = s.a.host.stats()["OutStandby"]
        lib.wait_for("a refused packet",
                     lambda: s.a.host.stats()["OutStandby"] > before)
        return s.a.host.stats()

    with site(4096, sn_skew_ms=0) as s:
        s.a.host.settings(sn_tick_us=1, sn_ahead=1000000)
        s.a.reboots()
        p = process.start(sender, s)
        try:
            for _ in range(50):
                s.a.active(1)
                lib.wait_for("traffic", s.recorded)
                s.a.active(0)
                before = refused(s)
                after = refused(s)
                lib.equal(after["OutPackets"], before["OutPackets"], "OutPackets")
        finally:
            p.terminate()
            p.join()


@contextlib.contextmanager
def sensor(epoch, tick_us, words=""):
    """Gateways a and b, which receive, and c, which sends to a by the socket out"""
    sa = f"{lib.SUITE} {lib.XFLAG_CLOCK} {words}"
    with lib.namespaces("abc", lan) as (a, b, c), c.socket(
            socket.AF_INET, socket.SOCK_DGRAM) as out:
        for h in a, b, c:
            h.settings(sn_epoch=epoch, sn_tick_us=tick_us, sn_ahead=AHEAD)
        lan_up(c)
        for h in a, b:
            h.ip(f"link set lo up\naddr add {GATEWAY}/24 dev veth0\nlink set veth0 up")
        c.ip(f"""
            neigh replace {GATEWAY} lladdr {a.mac} dev lan nud permanent
            xfrm state add src {PEER} dst {GATEWAY} proto esp spi {SPI} {sa}
            xfrm policy add src {PEER} dst {GATEWAY} dir out tmpl proto esp mode transport
        """)
        out.connect((GATEWAY, PORT))
        yield a, b, c, out


def sent(sock, data):
    """Sends the data as soon as there is a token."""
    def taken():
        with contextlib.suppress(OSError):
            return sock.send(data)

    lib.wait_for("a token", taken)


def receiving_esn():
    """A gateway that has received nothing for 2**32 ticks infers a wrong upper half of the
    SN. It receives again after its SA is added anew with the SN of a minute ago."""
    passed = 2 * 3600           # seconds; more than 2**32 ticks of a microsecond
    with sensor(int(time.time()) - passed, 1, "flag esn replay-window 32") as (
            a, _, _, out), a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind((GATEWAY, PORT))
        sa = (f"xfrm state add src {PEER} dst {GATEWAY} proto esp spi {SPI} "
              f"replay-window 4096 flag esn {lib.SUITE}")
        a.ip(sa)
        sent(out, b"before")
        lib.wait_for("an error", lambda: a.stats()["InIcvWrong"] == 1)
        sn = (passed - 60) * 1000000
        a.ip(f"""
            xfrm state flush
            {sa} replay-seq {sn & 0xffffffff} replay-seq-hi {sn >> 32}
        """)
        sent(out, b"after")
        lib.equal(sink.recv(9), b"after", "data")
        lib.equal(a.stats()["InIcvWrong"], 1, "packets whose ICV is wrong")


def receiving():
    """Both gateways may receive. The replay window of the gateway that takes over is
    empty, so freshness has to reject packets that were recorded long ago."""
    age = 2
    with sensor(int(time.time()) - 1000, TICK_US) as (a, b, c, out):
        sinks = []
        for h in a, b:
            h.settings(rx_max_age_ms=age * 1000)
            h.ip(f"xfrm state add src {PEER} dst {GATEWAY} proto esp spi {SPI} "
                 f"replay-window 32 {lib.SUITE} {lib.XFLAG_FRESH}")
            sinks.append(h.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sinks[-1].bind((GATEWAY, PORT))
        tap = a.wire()

        def frame():
            while True:
                data = tap.recv(1 << 16)
                if data[12:14] == b"\x08\0" and data[23] == 50:
                    return data

        sent(out, b"old")
        lib.equal(sinks[0].recv(9), b"old", "data")
        old, made = frame(), time.monotonic()
        lib.wait_for("age", lambda: time.monotonic() > made + age + 0.1)
        c.ip(f"neigh replace {GATEWAY} lladdr {b.mac} dev lan nud permanent")
        inject = c.wire("b")
        to_b = bytes.fromhex(b.mac.replace(":", ""))
        inject.send(to_b + old[6:])
        lib.wait_for("InTooOld", lambda: b.stats()["InTooOld"] == 1)
        tap_b = b.wire()
        sent(out, b"new")
        lib.equal(sinks[1].recv(9), b"new", "data")
        # A fresh packet may be replayed to the gateway that has not received it.
        data = tap_b.recv(1 << 16)
        a_mac = bytes.fromhex(a.mac.replace(":", ""))
        c.wire("a").send(a_mac + data[6:])
        lib.equal(sinks[0].recv(9), b"new", "data")


KEEPALIVED = """
global_defs {{
    enable_script_security
    script_user root
    vrrp_notify_fifo {fifo}
    vrrp_notify_fifo_script {script}
}}
vrrp_instance test {{
    state BACKUP
    nopreempt
    interface veth0
    virtual_router_id 51
    version 3
    priority {priority}
    advert_int 0.3
    virtual_ipaddress {{
        {address}/24
    }}
}}
"""
NOTIFY = """#!/bin/sh
active() { echo $1 > /proc/sys/net/minesp/sn_active; }
trap 'active 0' EXIT
trap exit INT TERM
while read -r kind name state priority; do
    case $state in
    MASTER) active 1 ;;
    *) active 0 ;;
    esac
done < "$1"
"""


class Node:
    """A gateway whose address and sn_active keepalived manages"""

    def __init__(self, host, number, folder, epoch):
        self.host, self.process = host, None
        self.file = pathlib.Path(folder, host.name)
        self.log = pathlib.Path(f"{self.file}.log")
        script = pathlib.Path(folder, "notify")
        script.write_text(NOTIFY)
        script.chmod(0o755)
        self.file.write_text(KEEPALIVED.format(
            priority=100 - number, address=GATEWAY, script=script, fifo=f"{self.file}.fifo"))
        host.settings(sn_epoch=epoch, sn_tick_us=TICK_US, sn_ahead=AHEAD, iv_sender=number)
        host.ip(f"""
            link set lo up
            addr add 192.0.2.{10 + number}/24 dev veth0
            xfrm policy add src {GATEWAY} dst {PEER} dir out tmpl proto esp mode transport
        """)

    def boot(self):
        self.host.settings(sn_active=0)
        self.host.ip(f"{ADD} {lib.SUITE} {lib.XFLAG_CLOCK}\nlink set veth0 up")
        pids = [word for option in "prcb" for word in (f"-{option}", f"{self.file}.{option}")]
        with self.host.inside(), open(self.log, "a") as log:
            self.process = subprocess.Popen(
                ["keepalived", "-n", "-l", "-P", "-f", self.file, *pids],
                stdout=log, stderr=log, start_new_session=True)

    def dies(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # The script stands by when it ends. It must not read from the next keepalived's FIFO.
        lib.wait_for("the script ends", lambda: not self.is_active())
        self.host.ip(f"link set veth0 down\nxfrm state flush\n"
                     f"addr del {GATEWAY}/24 dev veth0", check=False)

    def stops(self):
        """Stops only keepalived, and in good order, so the gateway then stands by."""
        self.process.terminate()
        self.process.wait()
        lib.wait_for("standing by", lambda: not self.is_active())
        self.host.ip("xfrm state flush")

    def is_active(self):
        return self.host.sysctl("net.minesp.sn_active") == "1"


def keepalived():
    """When the active gateway dies or stops, the other one answers the peer's pings."""
    if not shutil.which("keepalived"):
        raise lib.Skip("needs keepalived")
    with lib.namespaces("abc", lan) as (a, b, c), tempfile.TemporaryDirectory(
            dir="/run") as folder:
        epoch = int(time.time()) - 1000
        wire = stock_peer(c)
        nodes = [Node(a, 1, folder, epoch), Node(b, 2, folder, epoch)]
        try:
            for node in nodes:
                node.boot()
            for how in "dies", "stops", "dies", "stops":
                node = lib.wait_for("an active gateway", lambda: next(
                    (n for n in nodes if n.is_active()), None))
                for _ in range(3):
                    lib.wait_for("an answer", lambda: "1 received" in c.sh(
                        f"ping -c 1 -W 1 {GATEWAY}", check=False))
                getattr(node, how)()
                node.boot()
        finally:
            for node in nodes:
                node.dies()
        found = seqno.recorded(wire, SPI)
        seqno.increasing([sn for sn, *_ in found])
        lib.equal({iv >> 56 for _, iv, _ in found}, {1, 2},
                  "\n".join(["senders", *(node.log.read_text() for node in nodes)]))
        lib.equal(c.errors(), {}, "errors")


def cases():
    for n, ((check, what), window) in enumerate(itertools.product(
            ((nothing_repeats, ""), (both_for_a_while, ", both send for a while")),
            (32, 128))):
        if not n or share.mine(n):      # the first one on each kernel
            yield (f"fail-overs{what}, replay window {window}, seed {lib.SEED}",
                   lambda c=check, w=window: at_once(c, w))
    yield "clocks that differ by more than sn_skew_ms", without_skew
    yield "standing by", standing_by
    yield "standing by, under traffic", under_traffic
    known = dict(suites.explicit_iv())
    for n, name in enumerate(SUITES):
        if share.mine(n):
            yield (f"both send, iv_sender, {name}",
                   lambda s=known[name].words: senders(s))
    yield "both send, without iv_sender", same_sender
    yield "iv_sender and other IVs", no_room
    yield "both receive", receiving
    yield "both receive, ESN", receiving_esn
    yield "keepalived", keepalived


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"], imports=["cryptography"])
