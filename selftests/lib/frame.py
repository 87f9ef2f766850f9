# SPDX-License-Identifier: GPL-2.0
"""Ethernet frames with IPv4 without options, or IPv6 without extension headers."""
import socket

# {EtherType: address family, offsets of the protocol number and of the source address,
# length of the headers}
_HEADERS = {b"\x08\x00": (socket.AF_INET, 23, 26, 14 + 20),
            b"\x86\xdd": (socket.AF_INET6, 20, 22, 14 + 40)}


def payload(frame, protocol):
    """Returns what an IP packet of this protocol carries; None if the frame has none."""
    _, number, _, end = _HEADERS.get(frame[12:14], (0, 0, 0, 0))
    return frame[end:] if end and frame[number] == protocol else None


def addresses(frame):
    """Returns the source and the destination address of an IP packet."""
    family, _, src, end = _HEADERS[frame[12:14]]
    n = 4 if family == socket.AF_INET else 16
    return [socket.inet_ntop(family, frame[at:at + n]) for at in (src, src + n)]
