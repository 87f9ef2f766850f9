# SPDX-License-Identifier: GPL-2.0
"""A netfilter queue, which holds packets until a test accepts them."""
import socket
import struct

NETLINK_NETFILTER = 12
QUEUE = 3                       # NFNL_SUBSYS_QUEUE
PACKET, VERDICT, CONFIG = 0, 1, 2
BIND, COPY_META, NF_ACCEPT = 1, 1, 1
CFG_CMD, CFG_PARAMS = 1, 2      # NFQA_CFG_*
HEADER = 1                      # NFQA_PACKET_HDR
VERDICT_HDR = 2                 # NFQA_VERDICT_HDR


class Queue:
    """Queue 0 of a host. Closing the queue drops the packets in it."""

    def __init__(self, host):
        self.sock = host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._ask(CONFIG, CFG_CMD, struct.pack(">BxH", BIND, 0))
        self._ask(CONFIG, CFG_PARAMS, struct.pack(">IB", 0, COPY_META))

    def close(self):
        self.sock.close()

    def _ask(self, message, kind, data, ack=True):
        attribute = struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
        body = struct.pack(">BBH", socket.AF_UNSPEC, 0, 0) + attribute
        self.sock.send(struct.pack("=IHHII", 16 + len(body), QUEUE << 8 | message,
                                   5 if ack else 1, 1, 0) + body)
        if ack:
            error = struct.unpack_from("=i", self.sock.recv(1 << 16), 16)[0]
            if error:
                raise OSError(-error, "netfilter queue")

    def take(self):
        """Waits for a packet; returns its number in the queue."""
        answer = self.sock.recv(1 << 16)
        at = 20     # after the headers of netlink and netfilter
        while at < len(answer):
            length, kind = struct.unpack_from("=HH", answer, at)
            if kind == HEADER:
                return struct.unpack_from(">I", answer, at + 4)[0]
            at += length + -length % 4
        raise AssertionError(f"not a packet: {answer.hex()}")

    def accept(self, number):
        """Releases a packet."""
        self._ask(VERDICT, VERDICT_HDR, struct.pack(">II", NF_ACCEPT, number), ack=False)
