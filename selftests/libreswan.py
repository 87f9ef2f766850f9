#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""libreswan, an IKE daemon, with strongSwan and with itself, also from behind a NAT: tunnels
come up with its default proposals and with others, and are rekeyed under traffic."""
import contextlib

import lib
from lib import ike, libreswan, nat, share, strongswan, traffic

PORT = 6000

# The settings of libreswan, and strongSwan's name for the suite that results; None: minesp
# lacks that suite
DEFAULTS = {}, "aes256gcm16-esn"
CHOSEN = {"esp": "aes_gcm128", "esn": "no"}, "aes128gcm16"
SHA1 = {"esp": "aes128-sha1,aes_gcm128", "esn": "no"}, None
ALGORITHMS = {**strongswan.SUITES, None: strongswan.UNSUITABLE["aes128-sha1"]}

# Counters of packets that arrive before their SA is there, or while it is being added
EARLY = "XfrmAcquireError", "XfrmInStateInvalid"


@lib.fixture
def daemons(peer, natted):
    """libreswan on a, and the peer's daemon on b, with or without a NAT in between. The
    daemons take long to start, so all cases share them."""
    with contextlib.ExitStack() as stack:
        if natted:
            n = nat.Nat(*stack.enter_context(lib.namespaces("abr")))
            a, b = n.a, n.b
        else:
            n, (a, b) = None, stack.enter_context(lib.hosts())
        yield n, stack.enter_context(ike.running((libreswan.Ike, a), (peer.Ike, b)))


def tunnel(i, me, peer, family, words, suite):
    """Configures a daemon's tunnel between these addresses. family: that of its payload"""
    ours, theirs = (f"{lib.ADDRESSES['inner', family][name]}/{32 if family == 4 else 128}"
                    for name in (i.host.name, i.host.peer))
    if isinstance(i, libreswan.Ike):
        i.configure(left=me, right=peer, leftsubnet=ours, rightsubnet=theirs, **words)
    else:
        i.configure({"local_addrs": [me], "remote_addrs": [peer]},
                    {"local_ts": [ours], "remote_ts": [theirs],
                     "esp_proposals": [f"{suite}-modp2048"]})


def session(peer, natted, enabled, inner, outer, words, suite):
    """enabled: net.minesp.enabled of a, and of b"""
    n, ikes = daemons(peer, natted)
    a, b = hosts = [i.host for i in ikes]
    before = {h: h.stats() for h in hosts}
    errors = {h: h.errors() for h in hosts}
    for h, mode in zip(hosts, enabled):
        h.settings(enabled=mode)
    seen = a.address(outer)
    if natted:
        seen = nat.ROUTER[outer][0]
        n.map(seen, 5001)
    for i, ends in zip(ikes, ((a.address(outer), b.address(outer)), (b.address(outer), seen))):
        tunnel(i, *ends, inner, words, suite)
    ikes[0].initiate()
    if natted:
        ike.through(n, ikes)
    minimal = {h: bool(suite and mode) for h, mode in zip(hosts, enabled)}

    def negotiated():
        return ike.negotiated(ikes, [h for h in hosts if minimal[h]], ALGORITHMS[suite])

    negotiated()
    if not suite:
        lib.equal([h.stats()["StockSuite"] - before[h]["StockSuite"] for h in hosts], [2, 2],
                  "StockSuite")
    with traffic.Numbered(traffic.pair(a, b, inner, "inner", PORT)) as sender:
        for i in 0, 1:
            ike.rekey(ikes, i, sender)
        sender.lost()
    negotiated()
    # libreswan sends by new SAs before the host that has asked for them has added them.
    # No other packet is lost.
    early = {a: sender.there - sender.back, b: set(range(sender.sent)) - sender.there}
    for h, lost in early.items():
        counted = h.errors(errors[h])
        lib.equal(sum(counted.pop(name, 0) for name in EARLY), len(lost), "packets before SAs")
        lib.equal(counted, {}, "errors")
    assert peer == libreswan or not early[a], f"strongSwan was early: {early[a]}"
    traffic.carried(minimal, len(sender.back), before)
    ikes[0].terminate()
    ike.wait_for("no SAs", lambda: not any(i.sas() for i in ikes))


def explained(peer, natted, *args):
    try:
        with ike.explained(daemons(peer, natted)[1]):
            session(peer, natted, *args)
    except Exception:
        daemons.cache_clear()   # new daemons for the next case
        raise


CASES = {
    "aes_gcm128": (libreswan, False, (1, 1), 4, 6, *CHOSEN),
    "defaults, stock peer": (libreswan, False, (2, 0), 6, 6, *DEFAULTS),
    "NAT, strongSwan, aes_gcm128": (strongswan, True, (1, 1), 4, 4, *CHOSEN),
    "NAT, strongSwan, defaults, stock behind it": (strongswan, True, (0, 1), 4, 6, *DEFAULTS),
    "SHA-1 first": (libreswan, False, (2, 2), 4, 4, *SHA1),
}


def cases():
    for n, (name, args) in enumerate(CASES.items()):
        if share.mine(n):
            yield name, lambda a=args: explained(*a)


if __name__ == "__main__":
    lib.run(cases(), needs=[*libreswan.NEEDS, *strongswan.NEEDS, "conntrack", "nft"])
