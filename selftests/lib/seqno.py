# SPDX-License-Identifier: GPL-2.0
"""Sequence numbers on the wire, in ESP over IPv4."""
import contextlib
import struct

ESP = 14 + 20   # the offset of ESP in a frame


def recorded(wire, spi):
    """[(SN, IV, the rest)] of the packets of an SA that are waiting in a socket which
    does not block, such as Host.wire()."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frame = wire.recv(1 << 16)
            if frame[12:14] == b"\x08\0" and frame[23] == 50:
                to, sn, iv = struct.unpack_from(">IIQ", frame, ESP)
                if to == spi:
                    found.append((sn, iv, frame[ESP + 16:]))
    return found


def increasing(sns):
    for one, two in zip(sns, sns[1:]):
        assert one < two, f"SN {two} after {one}"
