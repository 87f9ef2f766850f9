# SPDX-License-Identifier: GPL-2.0
"""The netlink messages of xfrm (include/uapi/linux/xfrm.h) for what ip(8) cannot do."""
import socket
import struct

NETLINK_XFRM = 6
XFRM_MSG_NEWSA, XFRM_MSG_DELSA, XFRM_MSG_UPDSA = 0x10, 0x11, 0x1a
XFRM_MSG_FLUSHSA, XFRM_MSG_MIGRATE, XFRM_MSG_GETSADINFO = 0x1c, 0x21, 0x23
XFRM_MSG_EXPIRE, XFRMNLGRP_EXPIRE = 0x18, 2
XFRM_MSG_MAPPING, XFRMNLGRP_MAPPING = 0x26, 8
XFRMA_ALG_AUTH, XFRMA_ALG_CRYPT, XFRMA_ENCAP, XFRMA_SRCADDR = 1, 2, 4, 13
XFRMA_MIGRATE, XFRMA_ALG_AEAD, XFRMA_ALG_AUTH_TRUNC, XFRMA_MARK = 17, 18, 20, 21
XFRMA_TFCPAD, XFRMA_REPLAY_ESN_VAL, XFRMA_SA_EXTRA_FLAGS = 22, 23, 24
XFRMA_IF_ID = 31
XFRM_POLICY_IN, XFRM_POLICY_OUT, XFRM_MODE_TUNNEL = 0, 1, 1
INFINITE = 2 ** 64 - 1
UDP_ENCAP_ESPINUDP = 2


class Xfrm:
    """A netlink socket of a host. A request returns an errno, or 0."""

    def __init__(self, host):
        self.sock = host.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                                NETLINK_XFRM)

    def ask(self, message, body):
        self.sock.send(struct.pack("=IHHII", 16 + len(body), message, 0x405, 1,
                                   0) + body)
        return -struct.unpack_from("=i", self.sock.recv(1 << 16), 16)[0]

    def add(self, src, dst, spi, key, message=XFRM_MSG_NEWSA, packets=INFINITE):
        """Adds an SA with AES-GCM, transport mode and no replay window. key: bytes.
        packets: how many the SA carries before it expires"""
        return self.ask(message, usersa(src, dst, spi, packets) + attribute(
            XFRMA_ALG_AEAD, algorithm("rfc4106(gcm(aes))", key, 128)))

    def update(self, src, dst, spi, key):
        return self.add(src, dst, spi, key, XFRM_MSG_UPDSA)

    def delete(self, dst, spi):
        return self.ask(XFRM_MSG_DELSA, _address(dst) + struct.pack(
            ">I", spi) + struct.pack("=HBx", socket.AF_INET,
                                     socket.IPPROTO_ESP))

    def count(self):
        """Returns the number of SAs."""
        self.sock.send(struct.pack("=IHHIII", 20, XFRM_MSG_GETSADINFO, 1, 1, 0, 0))
        # After the netlink header, the flags and the attribute's header
        return struct.unpack_from("=I", self.sock.recv(1 << 16), 24)[0]

    def flush(self):
        return self.ask(XFRM_MSG_FLUSHSA, bytes([socket.IPPROTO_ESP]))


def listen(host, group):
    """Returns a netlink socket that receives a group of messages to key managers."""
    sock = host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
    sock.bind((0, 1 << group - 1))
    return sock


def expiry(message, spi):
    """Returns (hard, bytes, packets) of XFRM_MSG_EXPIRE for the SPI, or None."""
    kind, = struct.unpack_from("=H", message, 4)
    whose, = struct.unpack_from(">I", message, 16 + 56 + 16)
    if (kind, whose) == (XFRM_MSG_EXPIRE, spi):
        return (message[16 + len(usersa())], *struct.unpack_from(
            "=QQ", message, 16 + 56 + 24 + 16 + 64))


def _address(text):
    return socket.inet_pton(socket.AF_INET, text).ljust(16, b"\0")


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def usersa(src="192.0.2.1", dst="192.0.2.2", spi=0, packets=INFINITE, mode=0,
           flags=0, window=0, family=socket.AF_INET):
    """Returns a struct xfrm_usersa_info."""
    return (bytes(56) + _address(dst) +
            struct.pack(">IB3x", spi, socket.IPPROTO_ESP) + _address(src) +
            struct.pack("=4Q", *[INFINITE] * 3, packets) + bytes(32 + 32 + 16) +
            struct.pack("=IHBBB7x", 1, family, mode, window, flags))


def userpolicy(family, direction):
    """Returns a struct xfrm_userpolicy_info that lets all packets pass without IPsec."""
    return (struct.pack("=40xH14x", family) + bytes(64 + 32) +
            struct.pack("=8xBB6x", direction, 0))


def algorithm(name, key, icv=None):
    """Returns a struct xfrm_algo, or with icv (in bits) an xfrm_algo_aead or _auth."""
    return (struct.pack("=64sI", name.encode(), len(key) * 8) +
            (b"" if icv is None else struct.pack("=I", icv)) + key)


def migrate(host, selector, old, new, encap=False, direction=XFRM_POLICY_OUT):
    """Migrates the tunnel of an IPv4 policy, and its SA. selector, old, new: (source,
    destination)"""
    policy = (_address(selector[1]) + _address(selector[0]) +
              struct.pack("=8xHBBB3xiIIB3x", socket.AF_INET, 32, 32, 0, 0, 0,
                          0, direction))
    move = (_address(old[1]) + _address(old[0]) + _address(new[1]) +
            _address(new[0]) +
            struct.pack("=BBxxIHH", socket.IPPROTO_ESP, XFRM_MODE_TUNNEL, 1,
                        socket.AF_INET, socket.AF_INET))
    body = policy + attribute(XFRMA_MIGRATE, move)
    if encap:
        body += attribute(XFRMA_ENCAP, struct.pack(
            "=HHHH16x", UDP_ENCAP_ESPINUDP, socket.htons(4500),
            socket.htons(4500), 0))
    return Xfrm(host).ask(XFRM_MSG_MIGRATE, body)


def migrate_peer(a, b, address):
    """Moves the tunnel from a to b that Host.sas() has made over IPv4: b gets another
    address."""
    return migrate(a, (a.address(4, "inner"), b.address(4, "inner")),
                   (a.address(4), b.address(4)), (a.address(4), address))
