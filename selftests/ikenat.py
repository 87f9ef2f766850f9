#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""strongSwan on both sides of a NAT, which it detects itself: rekeying, keepalives,
mappings and addresses that change, a virtual IP, reauthentication, its default proposals;
with minimal SAs on either side, and on both."""
import contextlib
import socket
import struct

import lib
from lib import ike, nat, share, strongswan, traffic

PORT = 6000
AEAD, ESN, SHA1 = "aes128gcm16", "aes256gcm16-esn", "aes128-sha1"
ALGORITHMS = strongswan.SUITES | strongswan.UNSUITABLE
POOLS = {"IPv4": "198.51.100.16/28", "IPv6": "2001:db8:2::/120"}
VIRTUAL = {4: "198.51.100.17", 6: "2001:db8:2::1"}      # the first address of each pool


@lib.fixture
def behind():
    """The daemons take long to start, so all cases share them."""
    with lib.namespaces("abr") as hosts:
        n = nat.Nat(*hosts)
        # A keepalive is due after one second without traffic.
        settings = {"keep_alive": 1, "make_before_break": "yes"}
        with ike.running(*((strongswan.Ike, h, settings) for h in (n.a, n.b))) as ikes:
            yield n, ikes


class Session:
    """An IKE_SA of host a, behind the NAT, with host b. minimal: the names of the hosts
    whose SAs are minimal. mode "virtual": tunnel mode, and a gets addresses from b."""

    def __init__(self, minimal, mode="tunnel", family=4, proposal=AEAD, outer=4):
        self.nat, self.ikes = behind()
        self.hosts = self.nat.a, self.nat.b
        self.minimal = {h: h.name in minimal for h in self.hosts}
        self.mode, self.family, self.proposal, self.outer = mode, family, proposal, outer
        self.proposals = {"esp_proposals": [proposal]}
        # Where both are minimal, stock ESP is refused.
        self.enable(1 if all(self.minimal.values()) else 2)
        self.nat.map(nat.ROUTER[outer][0], 5001)
        self.stats = {h: h.stats() for h in self.hosts}
        self.counted = {h: h.errors() for h in self.hosts}

    def enable(self, mode):
        for h in self.hosts:
            h.settings(enabled=mode if self.minimal[h] else 0)

    def configure(self, **words):
        """Configures both daemons. words: more settings for both connections"""
        at_a, at_b = self.ikes
        a, b = (h.address(self.family, "inner") for h in self.hosts)
        of_a, of_b = {"local_ts": [a], "remote_ts": [b]}, {"local_ts": [b], "remote_ts": [a]}
        to_b, to_a = {"remote_addrs": [self.nat.b.address(self.outer)]}, {}
        if self.mode == "transport":
            of_a = of_b = dict.fromkeys(("local_ts", "remote_ts"), [f"dynamic[udp/{PORT}]"])
        elif self.mode == "virtual":
            del of_a["local_ts"], of_b["remote_ts"]     # the default is the virtual IP
            at_b.vici.ask("load-pool", {name: {"addrs": addresses}
                                        for name, addresses in POOLS.items()})
            to_b["vips"], to_a["pools"] = ["0.0.0.0", "::"], [*POOLS]
        for i, connection, child in (at_a, to_b, of_a), (at_b, to_a, of_b):
            i.configure({**connection, **words}, {
                "mode": "transport" if self.mode == "transport" else "tunnel",
                **self.proposals, **child})

    def initiate(self):
        self.configure()
        self.ikes[0].initiate()
        self.through_nat()
        return self.negotiated()

    def negotiated(self):
        """Returns the SPIs of the two SAs that both hosts have."""
        minimal = [h for h in self.hosts if self.minimal[h]]
        return ike.negotiated(self.ikes, minimal, ALGORITHMS[self.proposal])

    def through_nat(self):
        ike.through(self.nat, self.ikes)

    def another_ike_sa(self, n, **how):
        """The n-th host rekeys the IKE_SA."""
        def all_of_them():
            return [i.established().keys() for i in self.ikes]

        old = all_of_them()[0]
        self.ikes[n].rekey("ike", **how)
        ike.wait_for("a new IKE_SA in place of the old one", lambda: all(
            len(new) == 1 and not new & old for new in all_of_them()))

    def traffic(self):
        me, peer = (h.address(self.family, "outer" if self.mode == "transport" else "inner")
                    for h in self.hosts)
        if self.mode == "virtual":
            me = VIRTUAL[self.family]
        seen = self.nat.public[0] if self.mode == "transport" else me
        return traffic.Numbered(traffic.connected((self.nat.a, me, seen),
                                                  (self.nat.b, peer, peer), port=PORT))

    def errors(self):
        """Returns the errors that each host has counted in this session."""
        return [h.errors(self.counted[h]) for h in self.hosts]

    def end(self, sent):
        """Checks that this many packets went each way as ESP, by minesp where SAs are
        minimal. Ends the session."""
        traffic.carried(self.minimal, sent, self.stats)
        self.ikes[0].terminate()
        ike.wait_for("no SAs", lambda: not any(i.sas() for i in self.ikes))

    def no_loss(self, sender):
        lib.equal(sender.lost(), [], f"lost of {sender.sent}")
        lib.equal(self.errors(), [{}, {}], "errors")
        self.end(sender.sent)

    def some_loss(self, sender):
        """The daemon has changed the addresses of SAs, policies and routes, one after the
        other. Meanwhile xfrm drops and counts packets, but minesp drops none."""
        lost = sender.lost()
        for counted in self.errors():
            lib.equal([name for name in counted if "Proto" in name or name[:4] != "Xfrm"],
                      [], "errors")
        self.end(sender.sent - len(lost))


def rekeying(s):
    s.initiate()
    with s.traffic() as sender:
        for n in 0, 1:
            ike.rekey(s.ikes, n, sender)
        for n in 0, 1:
            s.another_ike_sa(n)
            sender.goes_on()
        s.through_nat()
        s.negotiated()
        s.no_loss(sender)


def keepalives(s):
    """Keepalives reach b, which does not count them. Then traffic goes on."""
    s.initiate()
    with s.traffic() as sender:
        sender.goes_on()
        lib.equal(sender.lost(), [], f"lost of {sender.sent}")
    address, port = s.nat.public
    ends = socket.inet_aton(address), struct.pack(">HH", port, nat.PORT)

    def is_keepalive(frame):
        # Source, ports, and the payload of UDP after length and checksum
        return (frame[26:30], frame[34:38], frame[42:]) == (*ends, b"\xff")

    counted = [h.counters() for h in s.hosts]
    with s.nat.b.wire() as wire:
        for _ in range(2):
            while not is_keepalive(wire.recv(1 << 16)):
                pass
    lib.equal([h.counters() for h in s.hosts], counted, "what was counted")
    with s.traffic() as sender:
        sender.goes_on()
        s.no_loss(sender)


def mappings(s):
    """Mappings change under traffic. b learns of the change only by ESP."""
    s.initiate()
    changes = [*zip(nat.ROUTER[s.outer], (5002, 5003))]
    if s.mode == "transport":
        del changes[1]
    with s.traffic() as sender:
        for new in changes:
            sender.goes_on()
            s.nat.map(*new)
            s.through_nat()
            sender.goes_on()
        # The IKE_SA has moved, too.
        ike.rekey(s.ikes, 1, sender)
        s.through_nat()
        s.negotiated()
        s.some_loss(sender)


def moves(s):
    """MOBIKE: a leaves the NAT, and comes back."""
    spis = s.initiate()
    there = nat.OUTSIDE[s.outer]
    inside, outside = (f"{x}/{32 if s.outer == 4 else '128 nodad'} dev veth0"
                       for x in (s.nat.a.address(s.outer), there))
    # Without this route, the daemons may move to the other family.
    away = f"blackhole {s.nat.b.address(4 if s.outer == 6 else 6)}"
    with contextlib.ExitStack() as stack:
        s.nat.a.ip(f"route add {away}")
        stack.callback(s.nat.a.ip, f"route del {away}")
        sender = stack.enter_context(s.traffic())
        sender.goes_on()
        s.nat.a.ip(f"addr add {outside}\naddr del {inside}")
        ike.between(s.ikes, s.nat.b.address(s.outer), there, there)
        sender.goes_on()
        lib.equal(s.negotiated(), spis, "SPIs")
        s.nat.a.ip(f"addr add {inside}\naddr del {outside}")
        s.through_nat()
        sender.goes_on()
        lib.equal(s.negotiated(), spis, "SPIs")
        s.some_loss(sender)


def roadwarrior(s):
    def addresses():
        said = lib.sh(f"ip -n {s.nat.a.ns} addr show dev veth0")
        return [address for address in VIRTUAL.values() if f" {address}/" in said]

    s.initiate()
    lib.equal(addresses(), [*VIRTUAL.values()], "virtual IPs")
    with s.traffic() as sender:
        for n in 0, 1:
            ike.rekey(s.ikes, n, sender)
        s.no_loss(sender)
    lib.equal(addresses(), [], "virtual IPs afterwards")


def childless(s):
    """An IKE_SA starts without a CHILD_SA, and gets one later."""
    s.configure(childless="force")
    s.ikes[0].initiate("ike")
    for i in s.ikes:
        lib.equal([*i.established().values()], [set()], "SPIs of each IKE_SA")
        lib.equal(i.sas(), {}, "SAs")
    s.ikes[0].initiate()
    with s.traffic() as sender:
        ike.rekey(s.ikes, 1, sender)
        s.through_nat()
        s.negotiated()
        s.no_loss(sender)


def reauthentication(s):
    """Make before break: only packets that b sends by the new SAs before a has them are
    lost."""
    spis = s.initiate()
    with s.traffic() as sender:
        # The kernel sends by the newest SA, whose age it knows in seconds. This traffic
        # takes more than one second.
        sender.goes_on(120)
        s.another_ike_sa(0, reauth="yes")
        lib.equal(s.negotiated() & spis, set(), "old SAs")
        sender.goes_on()
        lost = sender.lost()
    lib.equal(sender.sent - len(sender.there), 0, "lost on their way to b")
    lib.equal(s.errors(), [{"XfrmAcquireError": len(lost)} if lost else {}, {}], "errors")
    s.end(sender.sent - len(lost))


def defaults(s):
    """Neither configuration has proposals for ESP. minesp has the suite that strongSwan
    prefers."""
    s.enable(2)
    s.proposals = {}
    s.initiate()
    with s.traffic() as sender:
        ike.rekey(s.ikes, 0, sender)
        s.negotiated()
        s.no_loss(sender)


def unsuitable(s):
    """The first proposal is a suite that minesp lacks. The SAs are stock."""
    s.enable(2)
    s.proposals = {"esp_proposals": [SHA1, AEAD]}
    s.proposal = SHA1
    stock = {h: 2 if minimal else 0 for h, minimal in s.minimal.items()}
    s.minimal = dict.fromkeys(s.hosts, False)
    s.initiate()
    for h, wanted in stock.items():
        lib.equal(h.stats()["StockSuite"] - s.stats[h]["StockSuite"], wanted, "StockSuite")
    with s.traffic() as sender:
        sender.goes_on()
        s.no_loss(sender)


def session(test, *args):
    try:
        with ike.explained(behind()[1]):
            test(Session(*args))
    except Exception:
        behind.cache_clear()    # new daemons for the next case
        raise


CASES = [
    (rekeying, "a"),
    (rekeying, "b", "tunnel", 6, AEAD, 6),
    (rekeying, "ab", "transport"),
    (keepalives, "a"),
    (keepalives, "b"),
    (keepalives, "ab", "transport"),
    (mappings, "a"),
    (mappings, "b", "transport"),
    (mappings, "ab", "tunnel", 6, ESN, 6),
    (moves, "a", "tunnel", 6, AEAD, 6),
    (moves, "b"),
    (moves, "ab", "tunnel", 4, ESN),
    (roadwarrior, "a", "virtual", 4, ESN),
    (roadwarrior, "b", "virtual", 6),
    (roadwarrior, "ab", "virtual"),
    (childless, "a", "tunnel", 6),
    (childless, "b", "transport"),
    (childless, "ab"),
    (reauthentication, "a"),
    (reauthentication, "b", "tunnel", 6),
    (reauthentication, "ab", "tunnel", 4, ESN),
    (defaults, "a"),
    (defaults, "b", "tunnel", 6, AEAD, 6),
    (defaults, "ab", "transport"),
    (unsuitable, "a", "transport"),
    (unsuitable, "b"),
    (unsuitable, "ab", "tunnel", 6),
]
WHOSE = {"a": "minimal behind it, stock peer", "b": "stock behind it, minimal peer",
         "ab": "both minimal"}


def cases():
    for n, (test, minimal, *how) in enumerate(CASES):
        # Most tests run on each kernel, each time with minimal SAs on another side.
        if share.mine(n + n // 3):
            yield (", ".join([test.__name__, WHOSE[minimal], *map(str, how)]),
                   lambda t=test, args=(minimal, *how): session(t, *args))


if __name__ == "__main__":
    lib.run(cases(), needs=[*strongswan.NEEDS, "conntrack", "nft"])
