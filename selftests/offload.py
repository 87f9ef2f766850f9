#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""esp4_offload and esp6_offload never process a minimal SA, in any order of loading, and
also if an unprivileged user has them loaded. Features of newer kernels: an SA's direction,
its CPU, IPTFS, the message that moves it."""
import contextlib
import socket
import struct
import time

import lib
from lib import kmod, spare, tenant, traffic, xflag, xfrm

SIZES = [1, 1400, 4000]
XFRM_MSG_GETSA, XFRM_MSG_MIGRATE_STATE = 0x12, 0x29
XFRMA_SA_DIR, XFRMA_SA_PCPU = 33, 35
XFRM_SA_DIR_OUT = b"\2"
XFRM_MODE_IPTFS = 5
SOL_NETLINK, NETLINK_EXT_ACK, NLM_F_DUMP = 270, 11, 0x300
USERSA = len(xfrm.usersa())
KEY = bytes.fromhex(lib.KEYS[128][2:])
GCM = f"{lib.AEAD} {lib.KEYS[128]} 128"


def talks(a, b, family):
    """UDP and TCP work both ways, and minesp carries them."""
    before = a.stats(), b.stats()
    traffic.udp(a, b, family, "outer", SIZES)
    traffic.tcp(a, b, family, "outer", 100000)
    for h, was in zip((a, b), before):
        for name in ("InPackets", "OutPackets"):
            assert h.stats()[name] >= was[name] + len(SIZES), name
        lib.equal(h.errors(), {}, "errors")


def order(steps, words=""):
    """Minimal SAs work, whether they were added before or after a step."""
    with kmod.restored():
        kmod.unload()
        kmod.unload_offloads()
        with contextlib.ExitStack() as stack:
            made = []
            for step in steps:
                step()
                if not kmod.loaded("minesp"):
                    continue
                for family in (4, 6):
                    a, b = stack.enter_context(lib.hosts())
                    for h in (a, b):
                        h.settings(sn_epoch=int(time.time()) - 100, sn_tick_us=100,
                                   sn_ahead=100000)
                        h.sas("transport", family, family, words)
                    made.append((a, b, family))
                for a, b, family in made:
                    talks(a, b, family)


def by_tenant():
    """An unprivileged user has the offloads loaded by adding a stock SA."""
    def load():
        with tenant.tenant() as t:
            t.ip("link set lo up\n" + "".join(
                f"xfrm state add src {a} dst {b} proto esp spi 0x1000 mode transport "
                f"{GCM} {lib.XFLAG_STOCK} offload dev lo dir out\n" for a, b in (
                    ("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2"))))
        lib.equal([kmod.loaded(m) for m in kmod.OFFLOADS], [True, True], "loaded")

    order((kmod.load, load))


def directions():
    """An SA with a direction works in that direction."""
    kmod.released()
    with spare.host() as h:
        if spare.add(h, f"{GCM} {lib.XFLAG_STOCK} dir out", check=False):
            raise lib.Skip("a kernel, or an ip, without dir")
    with lib.hosts() as (a, b):
        for h in (a, b):
            out, back = h.address(4), h.peer
            peer = lib.ADDRESSES["outer", 4][back]
            sa = f"proto esp reqid 1 mode transport {GCM}"
            h.ip(f"""
                xfrm state add src {out} dst {peer} spi {lib.SPI[back]:#x} {sa} dir out
                xfrm state add src {peer} dst {out} spi {lib.SPI[h.name]:#x} \
                    {sa} replay-window 32 dir in
                xfrm policy add src {out} dst {peer} dir out tmpl proto esp reqid 1 mode transport
                xfrm policy add src {peer} dst {out} dir in tmpl proto esp reqid 1 mode transport
            """)
            assert "dir out" in h.ip("xfrm state"), h.ip("xfrm state")
        talks(a, b, 4)
        assert a.stats()["InDirect"] > 0, a.stats()


def attributes(h):
    """Returns the attributes that the kernel dumps of the only SA of a host."""
    sock = h.socket(socket.AF_NETLINK, socket.SOCK_RAW, xfrm.NETLINK_XFRM)
    sock.send(struct.pack("=IHHII", 16, XFRM_MSG_GETSA, NLM_F_DUMP | 1, 1, 0))
    message = sock.recv(1 << 16)
    at, end, found = 16 + USERSA, struct.unpack_from("=I", message)[0], {}
    while at < end:
        length, kind = struct.unpack_from("=HH", message, at)
        found[kind] = message[at + 4:at + length]
        at += length + 3 & ~3
    return found


def per_cpu():
    """An SA that belongs to a CPU carries the packets that this CPU sends."""
    cpu = struct.pack("=I", 0)
    with lib.hosts() as (a, b):
        for flags in (xflag.STOCK, xflag.MINIMAL):
            a.ip("xfrm state flush")
            err = xfrm.Xfrm(a).ask(xfrm.XFRM_MSG_NEWSA, xfrm.usersa(
                a.address(4), b.address(4), 0x3000) + b"".join(
                    xfrm.attribute(kind, data) for kind, data in (
                        (XFRMA_SA_PCPU, cpu), (XFRMA_SA_DIR, XFRM_SA_DIR_OUT),
                        (xfrm.XFRMA_SA_EXTRA_FLAGS, struct.pack("=I", flags)),
                        (xfrm.XFRMA_ALG_AEAD,
                         xfrm.algorithm("rfc4106(gcm(aes))", KEY, 128)))))
            has = not err and attributes(a).get(XFRMA_SA_PCPU) == cpu
            if not has and flags == xflag.STOCK:
                raise lib.Skip("a kernel without SAs for one CPU")
            assert has, f"error {err}"
        a.ip(f"xfrm policy add src {a.address(4)} dst {b.address(4)} dir out "
             "tmpl proto esp reqid 1 mode transport")
        before = a.stats()["OutPackets"]
        a.sh(f"taskset 1 ping -c 1 -W 1 {b.address(4)}", check=False)
        lib.equal(a.stats()["OutPackets"] - before, 1, "OutPackets")
        lib.equal(a.errors(), {}, "errors")


def iptfs():
    """IPTFS is refused. The message names IPTFS, and stock ESP as the alternative. Older
    versions of ip lack IPTFS, so this uses netlink."""
    kmod.released()
    with spare.host() as h:
        h.settings(enabled=1)
        sock = xfrm.Xfrm(h).sock
        sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        body = xfrm.usersa(spi=0x1000, mode=XFRM_MODE_IPTFS) + xfrm.attribute(
            XFRMA_SA_DIR, XFRM_SA_DIR_OUT) + xfrm.attribute(
                xfrm.XFRMA_ALG_AEAD, xfrm.algorithm("rfc4106(gcm(aes))", KEY, 128))
        sock.send(struct.pack("=IHHII", 16 + len(body), xfrm.XFRM_MSG_NEWSA, 0x405, 1, 0) +
                  body)
        said = sock.recv(1 << 16)
        assert struct.unpack_from("=i", said, 16)[0], "it was taken"
        lib.equal(h.ip("xfrm state"), "", "SAs left behind")
        if b"minesp: " not in said:
            raise lib.Skip("a kernel without IPTFS")
        assert b"IPTFS" in said and b"0x02000000" in said, said


def move(a, b, new):
    """Moves the SA from a to b by XFRM_MSG_MIGRATE_STATE; returns the error."""
    old, source, new = (socket.inet_aton(address).ljust(16, b"\0")
                        for address in (b.address(4), a.address(4), new))
    return xfrm.Xfrm(a).ask(
        XFRM_MSG_MIGRATE_STATE,
        # A struct xfrm_user_migrate_state: which SA, from where to where, its mark,
        old + struct.pack(">I", lib.SPI["b"]) +
        struct.pack("=HBx", socket.AF_INET, socket.IPPROTO_ESP) + new + source +
        # its selector, then reqid, flags and family
        bytes(8 + 40) + struct.pack("=H14x", socket.AF_INET) +
        struct.pack("=IIHxx", 1, 0, socket.AF_INET))


def moved():
    """An SA that XFRM_MSG_MIGRATE_STATE moves keeps its kind, and continues from its
    SN. An SA that cannot be moved stays where it is."""
    new = "192.0.2.99"
    with lib.hosts() as (a, b):
        a.sas("tunnel", 4, 4, lib.XFLAG_STOCK)
        if move(a, b, new):
            raise lib.Skip("a kernel without XFRM_MSG_MIGRATE_STATE")
        a.sas("tunnel", 4, 4)
        a.sh(f"ping -c 3 -i 0.01 -W 0.01 {b.address(4, 'inner')}", check=False)
        sent = a.listed()[lib.SPI["b"]]["last-sent"]
        assert sent != "0", sent
        lib.equal(move(a, b, new), 0, "error")
        # listed() returns the moved SA, because it is the last one with this SPI.
        now = a.listed()[lib.SPI["b"]]
        lib.equal((now["destination"], now["last-sent"]), (new, sent), "the SA")
        a.settings(sn_epoch=1)
        a.sas("tunnel", 4, 4, f"{lib.XFLAG_CLOCK} flag esn")
        assert move(a, b, new), "an SA with SNs from the clock has moved"
        lib.equal(a.ip(f"xfrm state list dst {new}"), "", "SA that has moved")


def migrated():
    """minesp also sends by the copy that migration makes of an SA."""
    with kmod.restored(), lib.hosts() as (a, b):
        kmod.load_offloads()
        new = "192.0.2.99"
        a.ip(f"neigh replace {new} lladdr {b.mac} dev veth0")
        a.sas("tunnel", 4, 4)
        lib.equal(xfrm.migrate_peer(a, b, new), 0, "error")
        before = a.stats()["OutPackets"]
        a.sh(f"ping -c 3 -i 0.01 -W 0.01 {b.address(4, 'inner')}", check=False)
        lib.equal(a.stats()["OutPackets"] - before, 3, "OutPackets")
        lib.equal(a.errors(), {}, "errors")


def cases():
    for name, steps in (
            ("before minesp", (kmod.load_offloads, kmod.load)),
            ("after minesp", (kmod.load, kmod.load_offloads)),
            ("again and again", (kmod.load, kmod.load_offloads,
                                 kmod.unload_offloads, kmod.load_offloads))):
        yield f"offloads loaded {name}", lambda s=steps: order(s)
    yield ("offloads loaded before minesp, SNs from the clock",
           lambda: order((kmod.load_offloads, kmod.load), lib.XFLAG_CLOCK))
    yield "offloads loaded by an unprivileged user", by_tenant
    yield "an SA's direction", directions
    yield "an SA's CPU", per_cpu
    yield "IPTFS", iptfs
    yield "offloads loaded, an SA that migrates", migrated
    yield "an SA that is moved by XFRM_MSG_MIGRATE_STATE", moved


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "setpriv", "unshare", "taskset", "ping"])
