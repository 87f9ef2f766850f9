# SPDX-License-Identifier: GPL-2.0
"""Sequence numbers on the wire, of ESP over IPv4 and IPv6."""
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
