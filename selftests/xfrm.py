# SPDX-License-Identifier: GPL-2.0
"""What ip(8) cannot ask of xfrm: its netlink messages, include/uapi/linux/xfrm.h."""
import socket
import struct

NETLINK_XFRM = 6
XFRM_MSG_NEWSA, XFRM_MSG_DELSA, XFRM_MSG_UPDSA = 0x10, 0x11, 0x1a
XFRM_MSG_FLUSHSA, XFRM_MSG_MIGRATE = 0x1c, 0x21
XFRMA_ENCAP, XFRMA_MIGRATE, XFRMA_ALG_AEAD = 4, 17, 18
XFRM_POLICY_IN, XFRM_POLICY_OUT, XFRM_MODE_TUNNEL = 0, 1, 1
INFINITE = 2 ** 64 - 1
UDP_ENCAP_ESPINUDP = 2


class Xfrm:
    """A netlink socket of a host's. What asks returns the error number, 0 for
    none."""

    def __init__(self, host):
        self.sock = host.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                                NETLINK_XFRM)

    def ask(self, message, body):
        self.sock.send(struct.pack("=IHHII", 16 + len(body), message, 0x405, 1,
                                   0) + body)
        return -struct.unpack_from("=i", self.sock.recv(1 << 16), 16)[0]

    def add(self, src, dst, spi, key, message=XFRM_MSG_NEWSA, packets=INFINITE):
        """An SA with AES-GCM, transport mode, no replay window. key: bytes.
        packets: that it carries before it expires."""
        sa = (bytes(56) + _address(dst) +
              struct.pack(">IB3x", spi, socket.IPPROTO_ESP) + _address(src) +
              struct.pack("=4Q", *[INFINITE] * 3, packets) + bytes(32 + 32 + 16) +
              struct.pack("=IHBBB7x", 1, socket.AF_INET, 0, 0, 0))
        aead = struct.pack("=64sII", b"rfc4106(gcm(aes))", len(key) * 8, 128)
        return self.ask(message, sa + _attribute(XFRMA_ALG_AEAD, aead + key))

    def update(self, src, dst, spi, key):
        return self.add(src, dst, spi, key, XFRM_MSG_UPDSA)

    def delete(self, dst, spi):
        return self.ask(XFRM_MSG_DELSA, _address(dst) + struct.pack(
            ">I", spi) + struct.pack("=HBx", socket.AF_INET,
                                     socket.IPPROTO_ESP))

    def flush(self):
        return self.ask(XFRM_MSG_FLUSHSA, bytes([socket.IPPROTO_ESP]))


def _address(text):
    return socket.inet_pton(socket.AF_INET, text).ljust(16, b"\0")


def _attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def migrate(host, selector, old, new, encap=False, direction=XFRM_POLICY_OUT):
    """Moves the tunnel of an IPv4 policy, its SA included.
    selector, old, new: (source, destination)."""
    policy = (_address(selector[1]) + _address(selector[0]) +
              struct.pack("=8xHBBB3xiIIB3x", socket.AF_INET, 32, 32, 0, 0, 0,
                          0, direction))
    move = (_address(old[1]) + _address(old[0]) + _address(new[1]) +
            _address(new[0]) +
            struct.pack("=BBxxIHH", socket.IPPROTO_ESP, XFRM_MODE_TUNNEL, 1,
                        socket.AF_INET, socket.AF_INET))
    body = policy + _attribute(XFRMA_MIGRATE, move)
    if encap:
        body += _attribute(XFRMA_ENCAP, struct.pack(
            "=HHHH16x", UDP_ENCAP_ESPINUDP, socket.htons(4500),
            socket.htons(4500), 0))
    return Xfrm(host).ask(XFRM_MSG_MIGRATE, body)
