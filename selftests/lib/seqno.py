# SPDX-License-Identifier: GPL-2.0
"""Sequence numbers on the wire, of ESP over IPv4 and IPv6."""
import contextlib
import struct

# EtherType, offset of the protocol number, offset of ESP
FRAMES = ((b"\x08\0", 23, 14 + 20), (b"\x86\xdd", 20, 14 + 40))


def recorded(wire, spi):
    """Returns [(SN, IV, the rest)] of an SA's packets that are waiting in a socket of
    Host.wire(). The socket must not block."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frame = wire.recv(1 << 16)
            for ethertype, protocol, esp in FRAMES:
                if frame[12:14] == ethertype and frame[protocol] == 50:
                    to, sn, iv = struct.unpack_from(">IIQ", frame, esp)
                    if to == spi:
                        found.append((sn, iv, frame[esp + 16:]))
    return found


def increasing(sns):
    for one, two in zip(sns, sns[1:]):
        assert one < two, f"SN {two} after {one}"
