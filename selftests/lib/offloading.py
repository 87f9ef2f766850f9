# SPDX-License-Identifier: GPL-2.0
"""net.minesp.offload, with GRO, for cases that also run without it."""
import contextlib

from . import seqno, share
from .host import gro
from .sa import SPI


def either(n, name, function):
    """Yields the n-th case of a program for lib.run(), with offload, without it, or both.
    The case calls function(whether it is with offload)."""
    for enabled in map(bool, share.offloads(n)):
        yield f"{name}, offload" if enabled else name, lambda e=enabled: function(e)


def alternately(cases):
    """Yields the cases of a program, some with offload and the others without it."""
    for n, (name, function) in enumerate(cases):
        yield from either(n, name, lambda enabled, f=function: using(enabled, f))


def using(enabled, function, *args):
    """Calls function(*args), which makes hosts with offload, or without it."""
    with gro(enabled, enabled):
        function(*args)


@contextlib.contextmanager
def decrypts(host, enabled=True, spi=None, device="veth0"):
    """Checks that GRO decrypts most packets that minesp receives in this block, if offload
    is enabled: packet sockets do not see these as ESP. spi: of the SA that receives them,
    if not of Host.sas()"""
    with contextlib.closing(host.wire(device, room=1 << 24)) as wire:
        wire.setblocking(False)
        before = host.stats()["InPackets"]
        yield
        came = host.stats()["InPackets"] - before
        by_ip = len(seqno.recorded(wire, spi or SPI[host.name]))
    assert not enabled or by_ip < came / 2, f"{by_ip} of {came} packets came as ESP"


def _sent_by_ip(host):
    """Returns how many packets IP has sent. A large packet counts once."""
    with host.inside():
        heading, values = (line.split() for line in open("/proc/thread-self/net/snmp")
                           if line.startswith("Ip:"))
        six = dict(map(str.split, open("/proc/thread-self/net/snmp6")))
    return int(values[heading.index("OutRequests")]) + int(six["Ip6OutRequests"])


@contextlib.contextmanager
def splits(host, enabled=True, times=2):
    """Checks that the host sends large packets in this block, if offload is enabled, and
    that the network device's queue splits them. times: how often IP sends each: plaintext
    and ESP, or only ESP if the host forwards it"""
    before = host.stats()["OutPackets"], _sent_by_ip(host)
    yield
    esp, by_ip = (now - was for now, was in zip(
        (host.stats()["OutPackets"], _sent_by_ip(host)), before))
    assert not enabled or esp * times > by_ip, f"{esp} ESP packets of {by_ip} packets"
