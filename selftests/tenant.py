#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A tenant is root in a user namespace, and nobody outside. The tenant must not affect the
host's SNs, its log or its network devices. Meanwhile the host carries traffic."""
import contextlib
import os
import socket
import struct
import time

import lib
from lib import libc, process, seqno, tenant, traffic, xfrm

WAYS = {"at once": tenant.AT_ONCE, "one by one": tenant.ONE_BY_ONE}
GCM = f"mode transport {lib.AEAD} {lib.KEYS[128]} 128"
SA = "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp"
FIRST, SAS = 0x1000, 20000
RTM_DELLINK = 17


def now():
    return time.clock_gettime(time.CLOCK_REALTIME)


@contextlib.contextmanager
def clock_moved(seconds):
    """The host's clock is wrong during the block, as before NTP has set it."""
    offset = now() - time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, now() + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.monotonic() + offset)


def logged():
    """Returns how many lines minesp has written to the kernel's log."""
    return lib.sh("dmesg").count("minesp: ")


def send(t, packets, **settings):
    """The tenant sends with SNs from the clock."""
    t.sh("\n".join(f"echo {value} > /proc/sys/net/minesp/{name}"
                   for name, value in settings.items()))
    t.ip(f"""
        link add dummy0 type dummy
        link set dummy0 up
        addr replace 192.0.2.1/24 dev dummy0
        neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev dummy0
        xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out tmpl proto esp reqid 1 mode transport
        {SA} spi 0x1000 reqid 1 {GCM} {lib.XFLAG_CLOCK}
    """)

    def sent():
        t.sh("ping -q -c 1 -W 0.01 192.0.2.2", check=False)
        return int(t.sh("grep OutPackets /proc/net/minesp_stat").split()[1]) >= packets

    lib.wait_for("the tenant has sent", sent)


def host_sn(tick, epoch, ahead):
    """Returns by how many ticks the first SN of a new SA of the host is ahead of the
    clock."""
    with lib.hosts() as (a, b):
        a.settings(sn_tick_us=int(tick * 1e6), sn_epoch=epoch, sn_ahead=ahead)
        a.sas("transport", 4, 4, lib.XFLAG_CLOCK)
        wire = b.wire()
        wire.setblocking(False)
        with a.socket(2, 2) as sock:
            def sent():
                with contextlib.suppress(OSError):
                    return sock.sendto(b"x", (b.address(4), 9))

            lib.wait_for("a token", sent, 2 * ahead * tick + lib.TIMEOUT)
        found = []
        lib.wait_for("the packet", lambda: found.extend(
            seqno.recorded(wire, lib.SPI["b"])) or found)
        return found[0][0] - int((now() - epoch) / tick)


def clock_ahead():
    """SNs that a tenant makes while the clock is wrong do not affect the host."""
    epoch = int(now()) - 3600
    with clock_moved(86400), tenant.tenant() as t:
        send(t, 3, sn_epoch=epoch, sn_tick_us=1000, sn_ahead=100000)
    with tenant.tenant() as t:
        ahead = host_sn(1, epoch, 20)
        assert -2 <= ahead <= 20, f"the first SN is {ahead} s ahead of the clock"
        # They do not affect another tenant, either.
        send(t, 3, sn_epoch=epoch, sn_tick_us=1000, sn_ahead=100)
        sn = int(t.sh("tail -n 1 /proc/net/minesp").split()[4])
        assert sn / 1000 < now() - epoch + 60, f"SN {sn}"


def bucket():
    """A tenant's SNs that run ahead of the clock do not affect the host."""
    epoch = int(now()) - 3600
    # Wait until nothing else affects the SAs of the host.
    lib.wait_for("a full bucket", lambda: host_sn(0.01, epoch, 500) < 100, 60)
    with tenant.tenant() as t:
        send(t, 1, sn_epoch=epoch, sn_tick_us=1000000, sn_ahead=1000000)
        ahead = host_sn(0.01, epoch, 500)
        assert ahead < 100, f"{ahead} ticks ahead"


def log():
    """The tenant's warnings do not reach the kernel's log. The host's do."""
    epoch = int(now()) - 3600
    with tenant.tenant() as t, lib.namespaces("a") as [h]:
        before = logged()
        for i in range(20):
            t.sh(f"echo {epoch - i} > /proc/sys/net/minesp/sn_epoch")
            t.ip(f"{SA} spi {0x2000 + i:#x} reqid {i + 1} {GCM} {lib.XFLAG_CLOCK}")
        lib.equal(logged() - before, 0, "lines in the log")
        for i in range(2):
            h.settings(sn_epoch=epoch - i)
            h.ip(f"{SA} spi {0x2000 + i:#x} reqid {i + 1} {GCM} {lib.XFLAG_CLOCK}")
        lib.equal(logged() - before, 1, "lines in the log")


def list_of_sas(made):
    """Only users who may list SAs by ip xfrm state may read /proc/net/minesp."""
    with tenant.tenant(WAYS[made]) as t:
        t.ip(f"{SA} spi 0x1234 {GCM}")
        said = t.sh("cat /proc/net/minesp")
        assert "0x00001234" in said, said
        said = lib.sh(f"{tenant.NOBODY} cat /proc/net/minesp 2>&1", check=False)
        assert "not permitted" in said, said
        # The tenant cannot read the host's list, either.
        said = t.sh(f"cat /proc/{os.getpid()}/net/minesp 2>&1", check=False)
        assert "0x" not in said, said


def netlink(pid, protocol):
    """Returns a netlink socket in the network namespace of a process."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    libc.call("setns", there, libc.CLONE_NEWNET)
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    finally:
        libc.call("setns", here, libc.CLONE_NEWNET)
        os.close(here)
        os.close(there)


def request(sock, message, body):
    """Sends a request, and waits for the answer."""
    sock.send(struct.pack("=IHHII", 16 + len(body), message, 0x5, 1, 0) + body)
    lib.equal(struct.unpack_from("=i", sock.recv(1 << 16), 16)[0], 0, "error")


def removed_meanwhile(t, spi):
    """Returns whether a network device of the host is gone before the list of the tenant's
    SAs has been read. The removal waits until all deleted SAs are gone, such as one of the
    tenant's."""
    name = f"gone{spi:x}"
    lib.sh(f"ip link add {name} type dummy")
    index = socket.if_nametoindex(name)
    links, sas = netlink("self", 0), netlink(t.shell.pid, xfrm.NETLINK_XFRM)
    begun, begins = os.pipe()

    def read():
        fd = os.open(f"/proc/{t.shell.pid}/net/minesp", os.O_RDONLY)
        os.write(begins, b"x")
        os.pread(fd, 1, 1 << 40)    # beyond the end, so this reads the whole list
        os.write(begins, struct.pack("d", time.monotonic()))

    reader = process.start(read)
    os.read(begun, 1)
    request(sas, xfrm.XFRM_MSG_DELSA, socket.inet_aton("192.0.2.2").ljust(16, b"\0") +
            struct.pack(">I", spi) + struct.pack("=HBx", socket.AF_INET, 50))
    request(links, RTM_DELLINK, struct.pack("=BxHiII", 0, 0, index, 0, 0))
    gone = time.monotonic()
    process.join([reader])
    ended, = struct.unpack("d", os.read(begun, 8))
    for fd in begun, begins:
        os.close(fd)
    links.close()
    sas.close()
    return gone < ended


def readers():
    """Reading a long list of SAs does not delay the removal of a network device."""
    with tenant.tenant() as t:
        t.ip("\n".join(f"{SA} spi {spi:#x} reqid {spi} {GCM}"
                       for spi in range(FIRST, FIRST + SAS)))
        # Both take about as long, so the device need not be gone first each time.
        assert any(removed_meanwhile(t, FIRST + i) for i in range(20)), \
            "a device was never gone before the list had been read"


def beside_traffic(attack):
    """Meanwhile the host's own SAs carry every packet."""
    with lib.hosts() as (a, b):
        for h in (a, b):
            h.sas("transport", 4, 4)
        flood = process.start(lambda: [
            traffic.udp(a, b, 4, "outer", [1, 1400]) for _ in range(10)])
        try:
            attack()
        finally:
            process.join([flood])
        traffic.udp(a, b, 4, "outer", [1, 1400])
        lib.equal((a.errors(), b.errors()), ({}, {}), "errors")


def cases():
    for name, attack in (("a clock that is ahead", clock_ahead),
                         ("SNs that run ahead", bucket),
                         ("the kernel's log", log),
                         ("who reads a list of SAs", readers)):
        yield name, lambda attack=attack: beside_traffic(attack)
    for made in WAYS:
        yield (f"the list of SAs, namespaces made {made}",
               lambda m=made: list_of_sas(m))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping", "setpriv", "unshare"])
