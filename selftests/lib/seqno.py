# SPDX-License-Identifier: GPL-2.0
"""Sequence numbers on the wire, of ESP over IPv4 and IPv6, and what a receiver does with
them."""
import contextlib
import socket
import struct

from . import frame


def recorded(wire, spi):
    """Returns [(SN, IV, the rest)] of an SA's packets that are waiting in a socket of
    Host.wire(). The socket must not block."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            esp = frame.payload(wire.recv(1 << 16), socket.IPPROTO_ESP)
            if esp:
                to, sn, iv = struct.unpack_from(">IIQ", esp)
                if to == spi:
                    found.append((sn, iv, esp[16:]))
    return found


def increasing(sns):
    for one, two in zip(sns, sns[1:]):
        assert one < two, f"SN {two} after {one}"


class Window:
    """The replay window of a receiver (RFC 4303, section 3.4.3)."""

    def __init__(self, size):
        self.size, self.top, self.seen = size, 0, set()

    def receive(self, sn):
        """Returns why the receiver drops a packet with this SN, "replay" or "late"; None if
        it takes the packet."""
        if sn <= self.top - self.size:
            return "late"
        if sn in self.seen:
            return "replay"
        self.seen.add(sn)
        self.top = max(self.top, sn)
