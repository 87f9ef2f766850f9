#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""strongSwan, an IKE daemon, on both hosts. It negotiates keys, SPIs and suites with a
stock peer and with a minimal peer. It rekeys again and again under traffic, and no packet
is lost."""
import lib
from lib import ike, share, strongswan, traffic

PORT = 6000


@lib.fixture
def daemons(peer):
    """The daemons take long to start, so all suites share them."""
    with lib.hosts() as (a, b):
        if peer == "stock":
            b.settings(enabled=0)
        with ike.running((strongswan.Ike, a), (strongswan.Ike, b)) as ikes:
            yield ikes


def minimal(ikes, peer):
    """The hosts whose SAs are minimal"""
    return {i.host for i in ikes if peer == "minimal" or i.host.name == "a"}


def configure(ikes, mode, inner, outer, proposals, encap=False):
    """Configures both daemons. encap: use UDP, as if there were a NAT."""
    kind = "inner" if mode == "tunnel" else "outer"
    for i in ikes:
        me, peer = i.host.name, i.host.peer
        i.configure({
            "local_addrs": [lib.ADDRESSES["outer", outer][me]],
            "remote_addrs": [lib.ADDRESSES["outer", outer][peer]],
            "encap": "yes" if encap else "no",
        }, {
            "mode": mode,
            "local_ts": [f"{lib.ADDRESSES[kind, inner][me]}[udp/{PORT}]"],
            "remote_ts": [f"{lib.ADDRESSES[kind, inner][peer]}[udp/{PORT}]"],
            "esp_proposals": proposals,
        })


def suite(ikes, peer, rekeys, mode, inner, outer, proposal, encap=False):
    a, b = (i.host for i in ikes)
    kind = "inner" if mode == "tunnel" else "outer"
    algorithms = strongswan.SUITES[proposal]
    before = {h: h.stats() for h in (a, b)}
    configure(ikes, mode, inner, outer, [proposal], encap)
    ikes[0].initiate()
    ike.negotiated(ikes, minimal(ikes, peer), algorithms)
    for path in ikes[0].paths():
        lib.equal([end.endswith(":4500") for end in path], [encap] * 2, f"UDP: {path}")
    with traffic.Numbered(traffic.pair(a, b, inner, kind, PORT)) as sender:
        for n in range(rekeys):
            ike.rekey(ikes, n % 2, sender)
        lib.equal(sender.lost(), [], f"lost of {sender.sent}")
        traffic.went_as_esp(a, b, peer, sender.sent, before)
    ike.negotiated(ikes, minimal(ikes, peer), algorithms)
    for h in (a, b):
        lib.equal(h.errors(), {}, "errors")
    ikes[0].terminate()


def unsuitable(ikes, peer):
    """An SA uses stock ESP if the first proposal is a suite that minimal ESP lacks."""
    before = {i: i.host.stats()["StockKey"] for i in ikes}
    configure(ikes, "tunnel", 4, 4, ["aes128gcm8", "aes128gcm16"])
    ikes[0].initiate()
    lib.wait_for("both hosts have SAs", lambda: all(len(i.sas()) == 2 for i in ikes))
    for i in ikes:
        lib.equal({str(found) for found in i.sas().values()},
                  {str([("rfc4106(gcm(aes))", 20, "64")])}, "what was negotiated")
        lib.equal(i.host.listed(), {}, "minimal SAs")
        lib.equal(i.host.stats()["StockKey"] - before[i], 2, "StockKey")
    ikes[0].terminate()


def session(peer, *args, test=suite, **more):
    ikes = daemons(peer)
    try:
        with ike.explained(ikes):
            test(ikes, peer, *args, **more)
    except Exception:
        daemons.cache_clear()   # new daemons for the next suite
        raise


def cases():
    for n, proposal in enumerate(strongswan.SUITES):
        mode = lib.MODES[n % len(lib.MODES)]
        rekeys = 2 if n else 6
        if n and not share.mine(n):     # the first proposal on each kernel
            continue
        yield (f"{proposal}, stock peer, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}",
               lambda r=rekeys, m=mode, p=proposal: session("stock", r, *m, p))
    for n, proposal in enumerate(("aes128gcm16", "aes256-sha512-esn")):
        mode = lib.MODES[n]
        yield (f"{proposal}, minimal peer, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}",
               lambda m=mode, p=proposal: session("minimal", 2, *m, p))
    for peer, mode in ("stock", lib.MODES[0]), ("minimal", lib.MODES[2]):
        yield (f"in UDP, {peer} peer, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}",
               lambda p=peer, m=mode: session(p, 2, *m, "aes128gcm16", encap=True))
    yield "unsuitable proposals first", lambda: session("minimal", test=unsuitable)


if __name__ == "__main__":
    lib.run(cases(), needs=strongswan.NEEDS)
