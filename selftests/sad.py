#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Direct input, from the SPI straight to the SA: which packets are direct, which are
not and still arrive, what the table forgets, and rekeying under traffic."""
import contextlib
import functools
import operator
import random
import socket
import subprocess
import threading
import time

import lib
from lib import process, scapy_peer, share, traffic, xfrm

SIZES = [*range(1, 20), 1400, 4000]
# One kernel goes through all rekey indexes, the others only through the wrap.
REKEYS = 300 if share.mine(0) else 60
RACE_SECONDS = 10
PORT = 5001


def is_direct(host, spi):
    return host.listed()[spi]["direct"] == "yes"


def direct(mode, inner, outer, words=""):
    """All packets are direct but the first, which proves the SA."""
    kind = "inner" if mode == "tunnel" else "outer"
    with lib.hosts() as (a, b):
        for h in (a, b):
            h.sas(mode, inner, outer, words)
        traffic.udp(a, b, inner, kind, SIZES)
        for h in (a, b):
            stats = h.stats()
            lib.equal((stats["InDirect"], stats["InLookup"]),
                      (stats["InPackets"] - 1, 1), "InDirect, InLookup")
            lib.equal(h.errors(), {}, "errors")
            lib.equal((is_direct(h, lib.SPI[h.name]),
                       is_direct(h, lib.SPI[h.peer])), (True, False),
                      "direct: in, out")
            sas = h.listed()
            lib.equal(sas[lib.SPI[h.peer]]["last-sent"],
                      str(stats["OutPackets"]), "last SN sent")
            lib.equal(sas[lib.SPI[h.name]]["last-rcvd"],
                      str(stats["InPackets"]), "last SN received")


def sa(host, spi, dst=None, src=None, words="", check=True, verb="add",
       mode="transport"):
    """Adds an inbound SA for an address of the host, or for dst."""
    family = 6 if ":" in (dst or "") else 4
    dst = dst or host.address(4)
    src = src or lib.ADDRESSES["outer", family]["b"]
    return host.ip(f"xfrm state {verb} src {src} dst {dst} proto esp "
                   f"spi {spi:#x} reqid 1 mode {mode} replay-window 32 "
                   f"{lib.AEAD} {lib.KEYS[128]} 128 {words}", check)


def way(p, spi, data=b"x", seq=None):
    """Sends one packet by Scapy, which has to arrive. Returns "direct" or
    "lookup"."""
    before = p.a.stats()
    nh, payload = p.datagram(data)
    p.deliver(p.esp(payload, nh, spi=spi, seq=seq), data)
    after = p.a.stats()
    moved = [after[k] - before[k] for k in ("InDirect", "InLookup")]
    assert sum(moved) == 1, moved
    return "direct" if moved[0] else "lookup"


def collision():
    """Two SAs share a slot. The first that proves itself keeps it until it is deleted."""
    with scapy_peer.peer() as p:
        slots = int(p.a.sysctl("net.minesp.sad_slots"))
        one, two = 0x2000, 0x2000 + (slots // 2 << 8)
        for spi in (one, two):
            sa(p.a, spi)
        wanted = ["lookup", "lookup", "direct", "lookup", "direct", "lookup"]
        lib.equal([way(p, (one, two)[i % 2]) for i in range(6)], wanted, "ways")
        lib.equal((is_direct(p.a, one), is_direct(p.a, two)), (True, False),
                  "direct")
        p.a.ip(f"xfrm state delete src {p.b.address(4)} dst {p.a.address(4)} "
               f"proto esp spi {one:#x}")
        lib.wait_for("the slot is free", lambda: one not in p.a.listed())
        lib.equal([way(p, two) for _ in range(2)], ["lookup", "direct"], "ways")


def two_addresses():
    """Two addresses of the host use the same SPI."""
    with scapy_peer.peer() as p:
        other = "192.0.2.11"
        p.a.ip(f"""
            addr add {other}/24 dev veth0
            xfrm policy add src {p.b.address(4)}/32 dst {other}/32 dir in \
                tmpl src {p.b.address(4)} dst {other} proto esp reqid 1 mode transport
        """)
        sa(p.a, lib.SPI["a"], dst=other)
        lib.equal([way(p, lib.SPI["a"]) for _ in range(2)],
                  ["lookup", "direct"], "ways")
        with p.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as app:
            app.bind((other, PORT))
            datagram = bytes(scapy_peer.IP(src=p.b.address(4), dst=other) /
                             scapy_peer.UDP(sport=1, dport=PORT) / b"y")[20:]
            for _ in range(2):
                packet = p.frame(p.esp(datagram, 17, seq=p.seq + 10))
                packet.dst = other
                p.seq += 20
                p.send(packet)
                lib.equal(app.recv(100), b"y", "data")
        lib.equal(way(p, lib.SPI["a"]), "direct", "way")
        lib.equal(p.a.errors(), {}, "errors")


def proved_only():
    """Only a packet with a valid ICV gets its SA into the table."""
    with scapy_peer.peer() as p:
        nh, payload = p.datagram(b"x")
        esp = p.esp(payload, nh)
        before = p.counters()
        for bad in (scapy_peer.spoilt(esp), esp[:30], esp[:-5]):
            p.send(p.frame(bad))
        p.counts(before, InLookup=3, InIcvWrong=2, InTruncated=1,
                 XfrmInStateProtoError=3)
        lib.equal(is_direct(p.a, lib.SPI["a"]), False, "direct")
        p.deliver(esp, b"x")
        lib.equal(is_direct(p.a, lib.SPI["a"]), True, "direct")
        # Invalid packets for an SA in the table are dropped, too.
        before = p.counters()
        p.send(p.frame(esp))
        p.send(p.frame(scapy_peer.spoilt(p.esp(payload, nh))))
        p.counts(before, InDirect=2, InIcvWrong=1, XfrmInStateSeqError=1,
                 XfrmInStateProtoError=1)
        # A dummy packet proves its SA, too.
        sa(p.a, 0x3000)
        p.send(p.frame(p.esp(b"", scapy_peer.DUMMY, spi=0x3000)))
        lib.wait_for("direct", lambda: is_direct(p.a, 0x3000))


def forgotten():
    """A deleted SA leaves the table at once, and its SPI is free for another SA."""
    with scapy_peer.peer() as p:
        ident = (f"src {p.b.address(4)} dst {p.a.address(4)} proto esp "
                 f"spi {lib.SPI['a']:#x}")
        for gone in (f"xfrm state delete {ident}", "xfrm state flush",
                     "xfrm state deleteall"):
            lib.equal([way(p, lib.SPI["a"], seq=n) for n in (1, 2)],
                      ["lookup", "direct"], "ways")
            p.a.ip(gone)
            nh, payload = p.datagram(b"x")
            before = p.counters()
            p.send(p.frame(p.esp(payload, nh)))
            p.counts(before, InLookup=1, XfrmInNoStates=1)
            sa(p.a, lib.SPI["a"])
        # An update leaves the SA in its slot.
        for n in (1, 2):
            way(p, lib.SPI["a"], seq=n)
        sa(p.a, lib.SPI["a"], verb="update")
        lib.equal(way(p, lib.SPI["a"], seq=3), "direct", "way")


def mark():
    """An SA with a mark receives only packets with this mark."""
    with scapy_peer.peer() as p:
        sa(p.a, 0x2000, words="mark 1 mask 0xff")
        p.a.ip(f"xfrm state delete src {p.b.address(4)} dst {p.a.address(4)} "
               f"proto esp spi {lib.SPI['a']:#x}")
        p.a.sh("tc qdisc add dev veth0 ingress")
        p.a.sh("tc filter add dev veth0 parent ffff: matchall action skbedit mark 1")
        lib.equal([way(p, 0x2000) for _ in range(2)], ["lookup", "direct"],
                  "ways")
        p.a.sh("tc qdisc del dev veth0 ingress")
        nh, payload = p.datagram(b"x")
        before = p.counters()
        p.send(p.frame(p.esp(payload, nh, spi=0x2000)))
        p.counts(before, InLookup=1, XfrmInNoStates=1)


def slots():
    """net.minesp.sad_slots: its valid values, and changes under traffic."""
    with lib.hosts() as (a, b):
        lib.equal(a.sysctl("net.minesp.sad_slots"), "1024", "default")
        for bad in ("0", "1", "3", "1000", "2097152", "-2", "x", "4294967296"):
            try:
                a.sysctl("net.minesp.sad_slots", bad)
            except OSError:
                continue
            raise AssertionError(f"net.minesp.sad_slots took {bad}")
        for h in (a, b):
            h.sas("transport", 4, 4)
        stop = threading.Event()

        def resize():
            while not stop.is_set():
                b.sysctl("net.minesp.sad_slots", 1 << random.randint(1, 20))

        resizer = threading.Thread(target=resize)
        resizer.start()
        try:
            for _ in range(5):
                traffic.udp(a, b, 4, "outer", SIZES)
        finally:
            stop.set()
            resizer.join()
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")
        traffic.udp(a, b, 4, "outer", SIZES)
        lib.equal(is_direct(b, lib.SPI["b"]), True, "direct")


def ah_around():
    """ESP in AH: xfrm itself looks up the inner SA, because AH comes first."""
    with lib.hosts() as (a, b):
        for h in (a, b):
            h.sas("transport", 4, 4)
            me, peer = (lib.ADDRESSES["outer", 4][n] for n in (h.name, h.peer))
            ah = f"auth hmac(sha256) 0x{bytes(32).hex()} mode transport reqid 2"
            both = "tmpl src {0} dst {1} proto esp reqid 1 mode transport " \
                   "tmpl src {0} dst {1} proto ah reqid 2 mode transport"
            h.ip(f"""
                xfrm state add src {me} dst {peer} proto ah spi {0x3000 + ord(h.peer):#x} {ah}
                xfrm state add src {peer} dst {me} proto ah spi {0x3000 + ord(h.name):#x} {ah}
                xfrm policy update src {me}/32 dst {peer}/32 dir out {both.format(me, peer)}
                xfrm policy update src {peer}/32 dst {me}/32 dir in {both.format(peer, me)}
            """)
        traffic.udp(a, b, 4, "outer", SIZES)
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")
        lib.equal(b.stats()["InDirect"], 0, "InDirect")


def interface(kind):
    """Packets of an XFRM interface, or of VTI, arrive on that interface."""
    with lib.hosts() as (a, b):
        for h in (a, b):
            h.sas("tunnel", 4, 4)
            me, peer = (lib.ADDRESSES["outer", 4][n] for n in (h.name, h.peer))
            i_me, i_peer = (lib.ADDRESSES["inner", 4][n]
                            for n in (h.name, h.peer))
            sa_words = (f"proto esp reqid 1 mode tunnel replay-window 1024 "
                        f"{lib.AEAD} {lib.KEYS[128]} 128 sel src 0.0.0.0/0 dst 0.0.0.0/0")
            if kind == "xfrm":
                link, words = "type xfrm dev veth0 if_id 7", "if_id 7"
            else:
                link = f"type vti local {me} remote {peer} key 7"
                words = "mark 7"
            tmpl = "proto esp reqid 1 mode tunnel"
            h.ip(f"""
                xfrm policy flush
                xfrm state flush
                link add tun0 {link}
                link set tun0 up
                route replace {i_peer} dev tun0 src {i_me}
                xfrm state add src {me} dst {peer} spi {lib.SPI[h.peer]:#x} {sa_words} {words}
                xfrm state add src {peer} dst {me} spi {lib.SPI[h.name]:#x} {sa_words} {words}
                xfrm policy add dir out tmpl src {me} dst {peer} {tmpl} {words}
                xfrm policy add dir in tmpl src {peer} dst {me} {tmpl} {words}
            """)
        traffic.udp(a, b, 4, "inner", SIZES)
        for h in (a, b):
            lib.equal(h.errors(), {}, "errors")
            said = lib.sh(f"ip -n {h.ns} -s -j link show tun0")
            assert f'"packets":{h.stats()["InPackets"]}' in said.replace(" ", ""), said
            if kind == "xfrm":
                lib.equal(h.stats()["InDirect"], h.stats()["InPackets"] - 1,
                          "InDirect")


def rekey():
    """SAs replace one another under traffic, through the wrap of the rekey index. The
    old and the new SA are direct at the same time. No packet is lost."""
    with lib.hosts() as (a, b):
        me, peer = a.address(4), b.address(4)
        head = f"src {me} dst {peer} proto esp"
        words = (f"mode transport replay-window 128 {lib.AEAD} "
                 f"{lib.KEYS[128]} 128")
        spi = int(lib.sh("minesp spi sa 77 250 2>/dev/null"), 0)
        for h in (a, b):
            h.ip(f"xfrm state add {head} spi {spi:#x} reqid 1 {words}")
        b.ip(f"xfrm policy add src {me}/32 dst {peer}/32 dir in "
             f"tmpl {head} mode transport")
        a.ip(f"xfrm policy add src {me}/32 dst {peer}/32 dir out "
             f"tmpl {head} reqid 1 mode transport")
        stop, sent, got = threading.Event(), [0], []
        # One ip(8) for each host, which reads commands while it runs
        ips = {h: subprocess.Popen(["ip", "-n", h.ns, "-batch", "-"],
                                   stdin=subprocess.PIPE, text=True)
               for h in (a, b)}

        def ip(host, lines, spi):
            """Runs lines; returns when the host has the SA with this SPI."""
            ips[host].stdin.write(lines)
            ips[host].stdin.flush()
            lib.wait_for(f"SPI {spi:#x}", lambda: spi in host.listed())

        sink = b.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=1)
        sink.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, 1 << 24)
        sink.bind((peer, PORT))

        def send():
            # Packets stay in order, so all that were sent before an arrival have arrived.
            with (traffic.one_cpu(),
                  a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source):
                source.connect((peer, PORT))
                while not stop.is_set():
                    source.send(b"%d" % sent[0])
                    sent[0] += 1
                    time.sleep(0.002)

        def receive():
            while not stop.is_set() or len(got) < sent[0]:
                try:
                    got.append(int(sink.recv(100)))
                except TimeoutError:
                    if stop.is_set():
                        break

        threads = [threading.Thread(target=t) for t in (send, receive)]
        for t in threads:
            t.start()
        try:
            for n in range(2, REKEYS + 2):
                old = spi
                spi = old & ~255 | old + 1 & 255    # minesp spi next
                if n == 2:
                    lib.equal(int(lib.sh(f"minesp spi next {old} 2>/dev/null"), 0),
                              spi, "next SPI")
                add = f"xfrm state add {head} spi {spi:#x} reqid {n} {words}\n"
                ip(b, add, spi)
                ip(a, add, spi)
                ips[a].stdin.write(
                    f"xfrm policy update src {me}/32 dst {peer}/32 dir out "
                    f"tmpl {head} reqid {n} mode transport\n")
                ips[a].stdin.flush()
                # Wait until the new SA is in use, and all packets of the old SA have
                # arrived.
                lib.wait_for("traffic on the new SA",
                             lambda: int(a.listed()[spi]["last-sent"]))
                mark = sent[0]
                lib.wait_for("arrivals", lambda: len(got) > mark)
                if n % 50 == 0:
                    lib.equal((is_direct(b, old), is_direct(b, spi)),
                              (True, True), "direct: old, new")
                for h in (a, b):
                    ips[h].stdin.write(f"xfrm state delete {head} spi {old:#x}\n")
                    ips[h].stdin.flush()
        finally:
            stop.set()
            for t in threads:
                t.join()
            for running in ips.values():
                running.stdin.close()
                lib.equal(running.wait(lib.TIMEOUT), 0, "ip -batch")
        lib.equal((sorted(set(range(sent[0])) - set(got)), len(got)),
                  ([], sent[0]), "packets lost, packets received")
        stats = b.stats()
        lib.equal((stats["InLookup"], stats["InDirect"]),
                  (REKEYS + 1, sent[0] - REKEYS - 1), "InLookup, InDirect")
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


def race():
    """Several processes add, use, update and delete the same SAs at once, while others
    list the SAs and change the table's size."""
    with scapy_peer.peer() as p:
        spis = [0x2000 + i for i in range(4)] + [lib.SPI["a"]]
        src, dst = p.b.address(4), p.a.address(4)
        slots_of = p.a.sysctl("net.minesp.sad_slots")
        end = time.monotonic() + RACE_SECONDS
        nh, payload = p.datagram(b"x")
        frames = [p.ethernet(p.frame(p.esp(payload, nh, spi=spi)))
                  for spi in spis for _ in range(10)]

        def configure(rand, netlink):
            spi = rand.choice(spis)
            what = rand.random()
            if what < 0.45:
                netlink.add(src, dst, spi, scapy_peer.KEY,
                            packets=rand.choice((3, 1000)))
            elif what < 0.6:
                netlink.update(src, dst, spi, scapy_peer.KEY)
            elif what < 0.98:
                netlink.delete(dst, spi)
            else:
                netlink.flush()

        def hit(rand, _):
            with contextlib.suppress(OSError):
                for _ in range(20):
                    p.wire.send(rand.choice(frames))

        def look(rand, _):
            p.a.sysctl("net.minesp.sad_slots", 1 << rand.randint(1, 12))
            p.a.listed()

        def work(function, seed):
            rand, netlink = random.Random(seed), xfrm.Xfrm(p.a)
            while time.monotonic() < end:
                function(rand, netlink)

        process.join([
            process.start(work, function, seed) for seed, function in
            enumerate((configure, configure, configure, hit, hit, look))])
        stats = p.a.stats()
        assert stats["InDirect"] > 100 and stats["InLookup"] > 100, stats
        # Input still works, and the only errors are those of missing SAs. A packet that
        # is still under way may be a replay for the new SA.
        p.a.sysctl("net.minesp.sad_slots", slots_of)
        xfrm.Xfrm(p.a).flush()
        sa(p.a, lib.SPI["a"])
        p.drain()
        ways = [way(p, lib.SPI["a"], seq=10000 + n) for n in range(3)]
        lib.equal(ways, ["lookup", "direct", "direct"], "ways")
        lib.equal(p.a.errors().keys() -
                  {"XfrmInNoStates", "XfrmInStateInvalid", "XfrmInStateExpired",
                   "XfrmInStateSeqError"}, set(), "errors")


def migrating():
    """An SA moves to another address and back, under traffic to both."""
    with scapy_peer.peer("tunnel") as p:
        ours = [p.a.address(4), "192.0.2.11"]
        p.a.ip(f"addr add {ours[1]}/24 dev veth0")
        selector = p.b.address(4, "inner"), p.a.address(4, "inner")

        def packet(to, data, seq):
            nh, payload = p.datagram(data)
            packet = p.frame(p.esp(payload, nh, seq=seq))
            packet.dst = ours[to]
            return packet

        stop = threading.Event()
        replays = [p.ethernet(packet(i, b"x", 1)) for i in (0, 1)]

        def flood():
            while not stop.is_set():
                for frame in replays:
                    p.wire.send(frame)

        p.send(packet(0, b"x", 1))
        lib.equal(p.app.recv(9), b"x", "data")
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for n in range(1, 61):
                to = n % 2
                lib.equal(xfrm.migrate(
                    p.a, selector, (p.b.address(4), ours[1 - to]),
                    (p.b.address(4), ours[to]),
                    direction=xfrm.XFRM_POLICY_IN), 0, "error")
                for i in (0, 1):
                    p.send(packet(to, b"%d" % n, 2 * n + i))
                    lib.equal(p.app.recv(9), b"%d" % n, "data")
        finally:
            stop.set()
            thread.join()
        lib.wait_for("one SA is left", lambda: len(p.a.listed()) == 2)
        stats = p.a.stats()
        assert stats["InDirect"] > 100, stats
        lib.equal(stats["InPackets"], 121, "InPackets")


def spi_tool():
    drawn = {int(lib.sh("minesp spi"), 16) for _ in range(64)}
    lib.equal(len(drawn), 64, "different SPIs")
    lib.equal((functools.reduce(operator.or_, drawn),
               functools.reduce(operator.and_, drawn)), (0xffffffff, 0),
              "all bits vary")
    assert min(drawn) > 255, drawn
    for words, wanted in (("sa 1", "0x00000100"), ("sa 0xffffff 255", "0xffffffff"),
                          ("next 0x1ff", "0x00000100"),
                          ("next 0x12345678", "0x12345679")):
        lib.equal(lib.sh(f"minesp spi {words} 2>/dev/null").strip(), wanted,
                  words)
    assert "observer of the network" in lib.sh("minesp spi sa 1 2>&1 >/dev/null")
    lib.equal(lib.sh("minesp spi 2>&1 >/dev/null"), "", "the price of random")
    for bad in ("sa", "sa 0", "sa 16777216", "sa 1 256", "next 255", "next x",
                "sa -1", "what"):
        lib.equal(lib.sh(f"minesp spi {bad} 2>/dev/null || echo no"), "no\n",
                  bad)
    with lib.hosts() as (a, _):
        a.sysctl("net.minesp.sad_slots", 8)
        for n in (1, 2, 3, 4):
            spi = a.sh("minesp spi free 2>/dev/null").strip()
            lib.equal(int(spi, 0), n << 8, "free SPI")
            sa(a, int(spi, 0))
        said = a.sh("minesp spi free", check=False)
        assert "no slot is free" in said, said


def cases():
    for n, args in enumerate(lib.MODES):
        if share.mine(n):
            yield "direct, {}, IPv{} in IPv{}".format(*args), lambda args=args: direct(*args)
    yield ("direct, ESN", lambda: direct("transport", 6, 6, "flag esn"))
    yield "two SAs with one slot", collision
    yield "two addresses with one SPI", two_addresses
    yield "only an ICV opens the table", proved_only
    yield "SAs are forgotten", forgotten
    yield "marks", mark
    yield "net.minesp.sad_slots", slots
    yield "AH around ESP", ah_around
    yield "XFRM interfaces", lambda: interface("xfrm")
    yield "VTI", lambda: interface("vti")
    if share.mine(1):
        yield "minesp spi", spi_tool
    yield f"{REKEYS} rekeys under traffic", rekey
    yield "an SA migrates under traffic", migrating
    yield "everything at once", race


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "tc", "minesp"],
            imports=["scapy", "cryptography"])
