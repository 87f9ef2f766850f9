#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Freshness: by the receiver's own clock, an SN has to be of about now. The peer
is Scapy, whose clock may be wrong."""
import contextlib
import time

import lib
from lib import scapy_peer, traffic

TICK_US = 1000
AGE = AHEAD = 3     # seconds
FRESH = lib.XFLAG_FRESH


class Peer(scapy_peer.Peer):
    """A peer that sends with SNs from its clock; a receives."""

    def __init__(self, a, b, window, words):
        self.epoch = int(time.time()) - 1000
        a.settings(sn_tick_us=TICK_US, sn_epoch=self.epoch,
                   rx_max_age_ms=AGE * 1000, rx_max_ahead_ms=AHEAD * 1000)
        super().__init__(a, b, "transport", 4, 4, window, words)

    def packet(self, data=b"x", skew=0):
        """Returns ESP whose SN is that of skew seconds from now."""
        sn = int((time.time() + skew - self.epoch) * 1e6 / TICK_US)
        nh, payload = self.datagram(data)
        return self.esp(payload, nh, seq=sn)

    def dropped(self, esp, **counters):
        before = self.counters()
        self.send(self.frame(esp))
        self.counts(before, **counters)

    def old(self, esp):
        self.dropped(esp, InTooOld=1, XfrmInStateProtoError=1)

    def new(self, esp):
        self.dropped(esp, InTooNew=1, XfrmInStateProtoError=1)


def peer(window=32, words=FRESH):
    return scapy_peer.meet(Peer, window, words)


def window(size):
    """Packets that are too old or too new are dropped, with any replay window."""
    with peer(size) as p:
        for skew in (-900, -AGE - 1):
            p.old(p.packet(skew=skew))
        p.old(p.esp(b"", scapy_peer.DUMMY, seq=1))
        for skew in (3600, AHEAD + 1):
            p.new(p.packet(skew=skew))
        # These have not moved the window. Packets within the limits are delivered.
        for skew in (-AGE + 1, 0, AHEAD - 1):
            p.deliver(p.packet(bytes([skew % 256]), skew), bytes([skew % 256]))


def replayed(size):
    """Replays are dropped by the window, and once they are too old."""
    with peer(size) as p:
        first = p.packet()
        p.deliver(first, b"x")
        if size:
            p.dropped(first, XfrmInStateSeqError=1)
        else:
            p.deliver(first, b"x")
        end = time.time() + AGE + 0.5
        lib.wait_for("age", lambda: time.time() > end)
        # The window of the new SA is empty, as after a reboot, and would accept the
        # replay.
        p.a.sas("transport", 4, 4, FRESH, window=size)
        p.old(first)
        p.deliver(p.packet(b"y"), b"y")


def forged():
    """The ICV is checked before freshness."""
    with peer() as p:
        esp = p.packet(skew=-900)
        p.dropped(scapy_peer.spoilt(esp), InIcvWrong=1,
                  XfrmInStateProtoError=1)


def chosen():
    """extra-flag or the namespace choose freshness. extra-flag wins. Without freshness,
    SNs of a counter are accepted."""
    with peer() as p:
        for on, words, fresh in ((0, "", False), (1, "", True), (0, FRESH, True),
                                 (1, lib.XFLAG_ANY_AGE, False)):
            p.a.settings(rx_fresh=on)
            p.a.sas("transport", 4, 4, words)
            nh, payload = p.datagram(b"z")
            counter = p.esp(payload, nh, seq=1)
            if fresh:
                p.old(counter)
            else:
                p.deliver(counter, b"z")


def clocks(skew):
    """A clock-based sender and a receiver whose epochs differ."""
    with lib.hosts() as (a, b):
        epoch = int(time.time()) - 1000
        for h, off in ((a, skew), (b, 0)):
            h.settings(sn_mode=1, rx_fresh=1, sn_tick_us=TICK_US, sn_ahead=1000,
                       sn_epoch=epoch + off, rx_max_age_ms=AGE * 1000,
                       rx_max_ahead_ms=AHEAD * 1000)
            h.sas("transport", 4, 4)
        with a.socket(2, 2) as one, b.socket(2, 2) as two:
            two.bind((b.address(4), 9))
            one.connect((b.address(4), 9))

            def sent():
                with contextlib.suppress(OSError):
                    return one.send(b"x")

            lib.wait_for("a token", sent)
            if abs(skew) < AGE:
                lib.equal(two.recv(9), b"x", "data")
                lib.equal(b.errors(), {}, "errors")
            else:
                which = "InTooOld" if skew > 0 else "InTooNew"
                lib.wait_for(which, lambda: b.stats()[which] == 1)


def cases():
    for size in (0, 1, 32, 128):
        yield f"age, replay window {size}", lambda n=size: window(n)
        yield f"replays, replay window {size}", lambda n=size: replayed(n)
    yield "forged packets", forged
    yield "fresh or any age", chosen
    for skew in (-60, -1, 1, 60):
        yield f"clocks {skew} seconds apart", lambda n=skew: clocks(n)
    for words, name in (("", "32 bits"), ("flag esn", "ESN")):
        yield f"both ends by the clock, {name}", lambda w=words: traffic.talk(
            "minimal", "transport", 6, 6, [1, 1400, 4000], w,
            window=4096 if w else 0, sn_mode=1, rx_fresh=1, sn_tick_us=100,
            sn_ahead=100000, sn_epoch=int(time.time()) - 100)


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping"],
            imports=["scapy", "cryptography"])
