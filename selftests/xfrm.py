# SPDX-License-Identifier: GPL-2.0
"""What ip(8) cannot ask of xfrm: its netlink messages, include/uapi/linux/xfrm.h."""
import socket
import struct

NETLINK_XFRM = 6
XFRM_MSG_MIGRATE = 0x21
XFRMA_ENCAP, XFRMA_MIGRATE = 4, 17
XFRM_POLICY_OUT, XFRM_MODE_TUNNEL = 1, 1
UDP_ENCAP_ESPINUDP = 2


def _ask(host, message, body):
    """Returns the error number, 0 for none."""
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), message, 0x5, 1, 0) +
                  body)
        return -struct.unpack_from("=i", sock.recv(1 << 16), 16)[0]


def _address(text):
    return socket.inet_pton(socket.AF_INET, text).ljust(16, b"\0")


def _attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def migrate(host, selector, old, new, encap=False):
    """Moves the tunnel of an outbound IPv4 policy, its SA included.
    selector, old, new: (source, destination)."""
    policy = (_address(selector[1]) + _address(selector[0]) +
              struct.pack("=8xHBBB3xiIIB3x", socket.AF_INET, 32, 32, 0, 0, 0,
                          0, XFRM_POLICY_OUT))
    move = (_address(old[1]) + _address(old[0]) + _address(new[1]) +
            _address(new[0]) +
            struct.pack("=BBxxIHH", socket.IPPROTO_ESP, XFRM_MODE_TUNNEL, 1,
                        socket.AF_INET, socket.AF_INET))
    body = policy + _attribute(XFRMA_MIGRATE, move)
    if encap:
        body += _attribute(XFRMA_ENCAP, struct.pack(
            "=HHHH16x", UDP_ENCAP_ESPINUDP, socket.htons(4500),
            socket.htons(4500), 0))
    return _ask(host, XFRM_MSG_MIGRATE, body)
