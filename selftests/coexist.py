#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""minesp works beside esp4 and esp6: SAs of both kinds, before, while and after
minesp is loaded, with modules loaded and unloaded in any order. Cases alternate between
net.minesp.offload 0 and 1, with GRO."""
import contextlib
import errno
import pathlib
import random
import re
import socket

import lib
from lib import (
    inbound,
    kmod,
    nat,
    offloading,
    pmtu,
    process,
    scapy_peer,
    share,
    suites,
    traffic,
    xfrm,
)

SIZES = [*range(1, 9), 1400, 4000]
UDP_GRO = 104   # linux/udp.h; Python lacks it
BURST = 100     # below the size of veth's ring
BACKLOG = pathlib.Path("/proc/sys/net/core/netdev_max_backlog")
MODPROBE = pathlib.Path("/proc/sys/kernel/modprobe")
RCU = pathlib.Path("/sys/module/rcutree/parameters")


def talk(a, b, family):
    traffic.udp(a, b, family, "outer", SIZES)


def is_minimal(host, family):
    """Returns whether a minimal SA carries a packet."""
    before = host.stats()["OutPackets"] if kmod.loaded("minesp") else 0
    with host.socket(lib.family_of(host.address(family)),
                     socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (lib.ADDRESSES["outer", family][host.peer], 9))
    after = host.stats()["OutPackets"] if kmod.loaded("minesp") else 0
    return after > before


@contextlib.contextmanager
def written(path, value):
    """Changes a setting of the kernel during the block."""
    was = path.read_text()
    path.write_text(f"{value}\n")
    try:
        yield
    finally:
        path.write_text(was)


def before_and_after(enabled):
    """A stock SA that is older than minesp works while and after minesp is loaded."""
    def load():
        kmod.load()
        for h in (a, b):
            h.settings(offload=int(enabled))

    with kmod.restored(), contextlib.ExitStack() as stack:
        kmod.unload()
        with lib.gro(enabled):
            a, b = stack.enter_context(lib.hosts())
        for family in (4, 6):
            for h in (a, b):
                h.sas("transport", family, family)
            talk(a, b, family)
            load()
            for _ in range(2):
                lib.equal(is_minimal(a, family), False, "minimal")
                talk(a, b, family)
                lib.sh("rmmod minesp")
                # An SA that is added now is stock, too.
                for h in (a, b):
                    h.sas("transport", family, family)
                talk(a, b, family)
                load()
            kmod.unload()
            talk(a, b, family)


def migrated_from_before():
    """A stock SA from before minesp is there stays stock when it migrates. The kernel has
    accepted minesp's bits with it, and ignored them."""
    with kmod.restored():
        kmod.unload()
        with lib.hosts() as (a, b):
            a.sas("tunnel", 4, 4, lib.XFLAG_CLOCK)
            kmod.load()
            new = "192.0.2.99"
            lib.equal(xfrm.migrate_peer(a, b, new), 0, "error")
            assert new in a.ip(f"xfrm state list dst {new}"), "the SA has not moved"
            lib.equal(a.listed(), {}, "minimal SAs")


def both_kinds(enabled):
    """Both kinds in one namespace, between the same addresses, at the same time"""
    with (lib.gro(enabled, enabled), lib.hosts() as (a, b),
          offloading.decrypts(b, enabled, 0x2000)):
        kinds = {(4, 80): lib.XFLAG_MINIMAL, (4, 81): lib.XFLAG_STOCK,
                 (6, 80): lib.XFLAG_STOCK, (6, 81): lib.XFLAG_MINIMAL}
        for h, way in (a, ("out", "in")), (b, ("in", "out")):
            for i, ((family, port), flag) in enumerate(kinds.items()):
                for d, (source, sink) in enumerate(((a, b), (b, a))):
                    src, dst = source.address(family), sink.address(family)
                    ports = f"proto udp {('dport', 'sport')[d]} {port}"
                    h.ip(f"""
                        xfrm state add src {src} dst {dst} proto esp spi {0x2000 + 2 * i + d:#x} \
                            reqid {port} mode transport replay-window 32 \
                            {lib.AEAD} {lib.KEYS[128]} 128 {flag}
                        xfrm policy add src {src} dst {dst} {ports} dir {way[d]} \
                            tmpl src {src} dst {dst} proto esp reqid {port} mode transport
                    """)
        for (family, port), flag in kinds.items():
            ends = [h.socket(lib.family_of(h.address(family)), socket.SOCK_DGRAM)
                    for h in (a, b)]
            ends[1].bind((b.address(family), port))
            before = a.stats(), b.stats()
            for n in SIZES:
                ends[0].sendto(bytes(n), ends[1].getsockname()[:2])
                data, back = ends[1].recvfrom(1 << 16)
                ends[1].sendto(data, back[:2])
                lib.equal(ends[0].recv(1 << 16), bytes(n), "data")
            for h, was in zip((a, b), before):
                moved = {k: h.stats()[k] - was[k]
                         for k in ("InPackets", "OutPackets")}
                n = len(SIZES) if flag == lib.XFLAG_MINIMAL else 0
                lib.equal(moved, {"InPackets": n, "OutPackets": n}, "minesp")
            for sock in ends:
                sock.close()
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


def udp_encapsulated():
    """Stock SAs with UDP encapsulation still work."""
    with lib.hosts() as (a, b), nat.ike(a), nat.ike(b):
        for h in (a, b):
            h.sas("tunnel", 4, 4, f"{lib.XFLAG_STOCK} {nat.WORDS}")
        traffic.udp(a, b, 4, "inner", SIZES)
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


def second_copy(enabled):
    """A second copy by another name is refused. The first copy still works."""
    # Keep the paths, because coverage is counted by path.
    image = re.sub(b"minesp(?!/)", b"minesq", kmod.image())
    try:
        kmod.insert(image)
    except OSError as e:
        lib.equal(e.errno, errno.EBUSY, "error")
    else:
        lib.sh("rmmod minesq")
        raise AssertionError("it was loaded")
    with lib.gro(enabled, enabled), lib.hosts() as (a, b), offloading.decrypts(b, enabled):
        for h in (a, b):
            h.sas("transport", 4, 4)
        talk(a, b, 4)
        lib.equal(a.stats()["InDirect"], len(SIZES) - 1, "InDirect")


def unload_refused(enabled):
    """minesp is in use while minimal SAs exist. esp4 and esp6 are in use while minesp
    needs them, and so are their offloads."""
    with kmod.restored():
        with lib.hosts() as (a, b):
            a.settings(offload=int(enabled))
            a.sas("transport", 4, 4)
            said = lib.sh("rmmod minesp", check=False)
            assert "in use" in said, said
            said = lib.sh("rmmod esp4; rmmod esp6", check=False)
            assert said.count("in use") == 2, said
            a.ip("xfrm state flush")
            if enabled:
                said = lib.sh("rmmod esp4_offload; rmmod esp6_offload", check=False)
                assert said.count("in use") == 2, said
            kmod.unload()
            lib.sh(f"rmmod {' '.join(kmod.OFFLOADS)}", check=enabled)
            lib.equal(kmod.loaded("minesp"), False, "minesp loaded")
            # A stock SA holds esp4, but not minesp.
            kmod.load()
            a.sas("transport", 4, 4, lib.XFLAG_STOCK)
            lib.sh("rmmod minesp")
            said = lib.sh("rmmod esp4", check=False)
            assert "in use" in said, said
        lib.wait_for("rmmod esp4", lambda: "in use" not in
                     lib.sh("rmmod esp4 2>&1", check=False))


def any_order(seed):
    """Modules are loaded and unloaded at random. Traffic works every few steps. Each time
    that minesp is loaded, net.minesp.offload becomes 0 or 1."""
    rand = random.Random(seed)
    modules = ("esp4", "esp6", *kmod.OFFLOADS, "xfrm_interface", "minesp", "minesp")
    with kmod.restored(), lib.gro(), lib.hosts() as (a, b):
        for step in range(40):
            module = rand.choice(modules)
            if kmod.loaded(module):
                lib.sh(f"rmmod {module}", check=False)  # may be in use
            elif module == "minesp":
                kmod.load()
                for h in (a, b):
                    h.settings(offload=rand.randrange(2))
            else:
                lib.sh(f"modprobe {module}")
            if step % 4 == 3:
                family = rand.choice((4, 6))
                words = rand.choice(("", lib.XFLAG_STOCK))
                for h in (a, b):
                    h.sas("transport", family, family, words)
                talk(a, b, family)
                lib.equal(is_minimal(a, family),
                          kmod.loaded("minesp") and not words, "minimal")
                if rand.random() < 0.7:
                    for h in (a, b):
                        h.ip("xfrm policy flush\nxfrm state flush")


def padded_frames():
    """Dummies that are shorter than the smallest Ethernet frame"""
    suite = suites.Authenc("ecb(cipher_null)", 0, "xcbc(aes)")
    with scapy_peer.suite_peer("transport", 4, 4, suite) as p:
        before = p.counters()
        for n in range(6):
            p.send(p.frame(p.esp(random.randbytes(n), scapy_peer.DUMMY)))
        p.counts(before, InDummies=6)
        p.still_works()


def not_by_gro(family):
    """GRO looks into tunnels, whose headers the ICV does not cover. It also looks at
    packets that are not for this host, such as those that it has sent. The output-mark
    of an SA is set after its lookup."""
    with scapy_peer.meet(scapy_peer.Peer, "transport", family, family,
                         words="mark 0 mask 0xff output-mark 1 mask 0xff") as p:
        p.app.send(b"away")
        away = p.capture()
        # To esp6_offload, the source address looks like an extension header before ESP.
        header = p.ip(4, "outer", proto=50) if family == 4 else scapy_peer.IPv6(
            src="3200::1", dst=p.a.address(6), nh=50)
        nh, payload = p.datagram(b"inside")
        p.send(away)
        p.send(p.frame(p.esp(payload, nh), [header]))
        p.still_works()
        lib.equal(p.a.stats()["InPackets"], 1, "InPackets")


@contextlib.contextmanager
def offloads(enabled=False):
    """Loads esp4_offload and esp6_offload, and makes hosts with GRO, for the block.
    enabled: whether minimal SAs use offload, too"""
    with kmod.restored(), lib.gro(True, enabled):
        kmod.load_offloads()
        yield


def offload_loaded(enabled, peer, mode, inner, outer):
    """esp4_offload and esp6_offload must not take minimal SAs for their own: in
    software when sending, in GRO when receiving."""
    with offloads(enabled):
        traffic.talk(peer, mode, inner, outer, SIZES)
        if peer == "minimal":
            inbound.dummy(mode, inner, outer)
            inbound.replay(32)
            not_by_gro(outer)
        if (peer, outer) == ("minimal", 4):
            padded_frames()


def in_udp(family, offload):
    """From 6.8 on, a socket with UDP_ENCAP and UDP_GRO passes ESP in UDP to the GRO of
    ESP. minesp leaves it to the socket."""
    @contextlib.contextmanager
    def sockets(*hosts):
        with contextlib.ExitStack() as stack:
            for h in hosts:
                sock = stack.enter_context(nat.ike(h, family))
                sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            yield

    with offloads():
        traffic.talk("minimal", "transport", family, family, SIZES, nat.WORDS,
                     before=sockets, offload=offload)


def burst():
    """More packets come at once than the backlog of netif_rx() takes. The packets that
    minesp takes back from esp4_offload do not go through the backlog."""
    with offloads(), written(BACKLOG, BURST // 5), lib.hosts() as (a, b):
        for h in (a, b):
            h.sas("transport", 4, 4)
        source, sink = traffic.pair(a, b, 4, "outer", 7777)
        with source, sink:
            a.sh("tc qdisc add dev veth0 root plug limit 1000000")    # bytes
            for _ in range(BURST):
                source.send(b"x")
            a.sh("tc qdisc change dev veth0 root plug release_indefinite")
            for n in range(BURST):
                try:
                    sink.recv(10)
                except TimeoutError:
                    raise AssertionError(f"{n} of {BURST} packets came") from None


def migrated():
    """An SA that migrates keeps its kind, whatever the settings are then. An SA that
    minimal ESP cannot migrate stays where it is."""
    with lib.hosts() as (a, b):
        new = "192.0.2.99"
        for minimal in (True, False):
            a.sysctl("net.minesp.enabled", int(minimal))
            a.sas("tunnel", 4, 4)
            a.sysctl("net.minesp.enabled", int(not minimal))
            lib.equal(xfrm.migrate_peer(a, b, new), 0, "error")
            said = lib.sh(f"ip -n {a.ns} -s xfrm state list dst {new}")
            assert new in said, said
            lib.equal("1000000" in said, minimal, "minimal")
        a.sysctl("net.minesp.enabled", 1)
        a.settings(sn_epoch=1)
        # SNs from the clock, freshness, an implicit IV
        for words in (f"{lib.XFLAG_CLOCK} flag esn", f"{lib.XFLAG_FRESH} flag esn",
                      lib.XFLAG_IMPLICIT_IV):
            a.sas("tunnel", 4, 4, words)
            assert xfrm.migrate_peer(a, b, new), words
            lib.equal(lib.sh(f"ip -n {a.ns} xfrm state list dst {new}"), "",
                      f"SA that has moved: {words}")


def migration_and_nat():
    """An SA migrates behind a NAT, and away from it."""
    with lib.hosts() as (a, b):
        selector = a.address(4, "inner"), b.address(4, "inner")
        places = [(a.address(4), f"192.0.2.{n}") for n in (2, 98, 99)]
        seen = {}
        for flag in lib.XFLAG_MINIMAL, lib.XFLAG_STOCK:
            a.sas("tunnel", 4, 4, flag)
            seen[flag] = []
            for n, encap in enumerate((True, False)):
                lib.equal(xfrm.migrate(a, selector, *places[n:n + 2], encap=encap), 0,
                          "error")
                said = lib.sh(f"ip -n {a.ns} xfrm state list dst {places[n + 1][1]}")
                assert places[n + 1][1] in said, said
                seen[flag].append("encap type espinudp sport 4500 dport 4500" in said)
            lib.equal(len(a.listed()), 2 if flag == lib.XFLAG_MINIMAL else 0, "minimal SAs")
        # The result of the last migration differs between kernels.
        lib.equal(seen[lib.XFLAG_MINIMAL], seen[lib.XFLAG_STOCK], "encapsulation")
        assert seen[lib.XFLAG_MINIMAL][0], "no encapsulation"


def while_it_goes(module):
    """Loading minesp while esp4 or esp6 is being unloaded fails with EBUSY, and changes
    nothing."""
    if not RCU.is_dir():
        raise lib.Skip("RCU cannot be made slow")
    image = kmod.image()
    state = pathlib.Path(f"/sys/module/{module}/initstate")

    def refused():
        kmod.unload()
        lib.sh("modprobe -a esp4 esp6")
        going = process.start(lib.sh, f"rmmod {module}")
        with contextlib.suppress(OSError):      # the module is gone
            lib.wait_for("it goes", lambda: state.read_text() == "going\n")
        try:
            kmod.insert(image)
        except OSError as e:
            lib.equal((e.errno, kmod.loaded("minesp")), (errno.EBUSY, False), "error")
            return True
        finally:
            process.join([going])

    # Unloading takes an RCU grace period, which these settings extend to up to a second.
    with (kmod.restored(), written(MODPROBE, ""),
          written(RCU / "jiffies_till_first_fqs", 1000),
          written(RCU / "jiffies_till_next_fqs", 1000)):
        lib.wait_for("minesp is refused", refused, 10 * lib.TIMEOUT)


def alone():
    """Without esp4 and esp6, minesp receives ESP itself."""
    with kmod.restored():
        # This loads the other modules, because later nothing is loaded on demand.
        traffic.talk("minimal", "transport", 4, 4, [1])
        kmod.unload()
        with written(MODPROBE, "/bin/false"):
            lib.wait_for("esp4 and esp6 are gone", lambda: not lib.sh(
                "rmmod esp4 esp6 2>&1 | grep 'in use'", check=False))
            kmod.load()
            for mode in (("transport", 4, 4), ("tunnel", 4, 6)):
                traffic.talk("minimal", *mode, SIZES)
                # minesp's error handlers get ICMP errors about its packets.
                pmtu.found(*mode, "")
            with lib.hosts() as (a, _):
                try:
                    a.settings(offload=1)
                except OSError as e:
                    lib.equal(e.errno, errno.EOPNOTSUPP, "error")
                else:
                    raise AssertionError("net.minesp.offload without the offloads")
                lib.equal(a.sysctl("net.minesp.offload"), "0", "net.minesp.offload")
                said = a.ip("xfrm state add src 192.0.2.1 dst 192.0.2.2 proto "
                            f"esp spi 0x1000 {lib.AEAD} {lib.KEYS[128]} 128 "
                            f"{lib.XFLAG_STOCK}", check=False)
                assert "no stock ESP" in said, said
            kmod.unload()


def cases():
    for n, case in enumerate((
            ("stock SAs from before minesp", before_and_after),
            ("both kinds in one namespace", both_kinds),
            ("a second copy of the module", second_copy),
            ("rmmod is refused while there are SAs", unload_refused))):
        yield from offloading.either(n, *case)
    yield "a stock SA from before minesp that migrates", migrated_from_before
    yield "UDP-encapsulated SAs of esp4", udp_encapsulated
    for seed in filter(share.mine, (1, 2, 3)):
        yield f"modules in any order, {seed}", lambda s=seed: any_order(s)
    for p, peer in enumerate(("stock", "minimal")):
        for n, mode in enumerate((("transport", 4, 4), ("tunnel", 6, 6), ("tunnel", 4, 6))):
            for offload in 0, 1:
                if share.mine(n + p + offload):
                    yield (f"esp4_offload and esp6_offload, offload {offload}, {peer} peer, "
                           f"{mode[0]}, IPv{mode[1]} in IPv{mode[2]}",
                           lambda args=(offload, peer, *mode): offload_loaded(*args))
    for family in 4, 6:
        for offload in 0, 1:
            # The last share is that of the oldest kernel, which lacks this GRO.
            if share.mine(offload ^ (family == 6)):
                yield (f"ESP in UDP and UDP_GRO, IPv{family}, offload {offload}",
                       lambda f=family, o=offload: in_udp(f, o))
    yield "a burst", burst
    for module in ("esp4", "esp6"):
        yield (f"loaded while {module} is unloaded",
               lambda m=module: while_it_goes(m))
    yield "SAs that migrate", migrated
    yield "SAs that migrate behind a NAT and away from it", migration_and_nat
    yield "without esp4 and esp6", alone


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping", "ethtool", "tc"],
            imports=["scapy", "cryptography"])
