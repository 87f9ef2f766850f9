# SPDX-License-Identifier: GPL-2.0
"""ESP in UDP (RFC 3948)."""
import contextlib
import socket

from . import xfrm
from .host import family_of

PORT = 4500
UDP_ENCAP = 100     # Python does not have it
WORDS = f"encap espinudp {PORT} {PORT} 0.0.0.0"     # for ip xfrm state add


@contextlib.contextmanager
def ike(host, family=4, port=PORT):
    """The socket of an IKE daemon: the kernel takes ESP out of it, and keepalives."""
    with host.socket(family_of(host.address(family)), socket.SOCK_DGRAM) as sock:
        sock.bind((host.address(family), port))
        sock.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, xfrm.UDP_ENCAP_ESPINUDP)
        yield sock
