#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""SAs that a program adds by PF_KEY (RFC 2367), as setkey does. Of the suites that
PF_KEY has, the same are minimal or refused. An SA ends with its SNs."""
import errno
import itertools
import os
import socket
import struct
import time

import lib
from lib import spare

AF_KEY, PF_KEY_V2 = 15, 2
SADB_ADD, SADB_SATYPE_ESP, SADB_SASTATE_MATURE = 3, 3, 1
EXT_SA, EXT_SRC, EXT_DST, EXT_AUTH, EXT_ENCRYPT = 1, 5, 6, 8, 9

# Numbers from linux/pfkeyv2.h, and the length of the key in bytes
AUTHS = {"hmac(sha512)": (7, 64), "xcbc(aes)": (9, 16)}
WEAK_AUTHS = {"none": (0, 0), "hmac(sha1)": (3, 20),
              "hmac(sha256), 96 bits": (5, 32)}
ENCS = {"cbc(aes)": (12, 16), "rfc3686(ctr(aes))": (13, 20),
        "ecb(cipher_null)": (11, 0)}
WEAK_ENCS = {"cbc(des3_ede)": (3, 24)}


def extension(kind, body):
    body += bytes(-(4 + len(body)) % 8)
    return struct.pack("=HH", (4 + len(body)) // 8, kind) + body


def address(kind, ip):
    return extension(kind, struct.pack("=BBHHH4s8x", 0, 32, 0, socket.AF_INET, 0,
                                       socket.inet_aton(ip)))


def key(kind, length):
    return extension(kind, struct.pack("=HH", length * 8, 0) +
                     bytes(range(1, 1 + length)))


def add(host, spi, auth, enc):
    """Asks for an SA; returns the errno."""
    body = (extension(EXT_SA, struct.pack(">I", spi) + struct.pack(
                "=BBBBI", 32, SADB_SASTATE_MATURE, auth[0], enc[0], 0)) +
            address(EXT_SRC, spare.SRC) + address(EXT_DST, spare.DST) +
            (key(EXT_AUTH, auth[1]) if auth[0] else b"") +
            key(EXT_ENCRYPT, enc[1]))
    head = struct.pack("=BBBBHHII", PF_KEY_V2, SADB_ADD, 0, SADB_SATYPE_ESP,
                       2 + len(body) // 8, 0, spi, os.getpid())
    try:
        sock = host.socket(AF_KEY, socket.SOCK_RAW, PF_KEY_V2)
    except OSError as e:
        raise lib.Skip("a kernel without PF_KEY") from e
    with sock:
        sock.send(head + body)
        return sock.recv(1 << 16)[2]


def taken():
    with spare.host() as a:
        for spi, (auth, enc) in enumerate(itertools.product(
                AUTHS.values(), ENCS.values()), 0x1000):
            lib.equal((add(a, spi, auth, enc), spi in a.listed()), (0, True),
                      f"errno, and minimal: {auth, enc}")


def refused():
    """minesp refuses these suites. Stock ESP accepts them."""
    pairs = [*itertools.product(WEAK_AUTHS.values(), ENCS.values()),
             *itertools.product(AUTHS.values(), WEAK_ENCS.values())]
    with spare.host() as a:
        for spi, (auth, enc) in enumerate(pairs, 0x1000):
            a.settings(enabled=1)
            assert add(a, spi, auth, enc) in (errno.EINVAL, errno.EOPNOTSUPP), (
                f"taken: {auth, enc}")
            a.settings(enabled=0)
            lib.equal(add(a, spi, auth, enc), 0, f"errno, stock: {auth, enc}")
        lib.equal(a.listed(), {}, "minimal SAs")


def ends():
    """An SA with SNs from the clock ends 2^32 ticks of a microsecond after the epoch."""
    with spare.host() as a:
        a.settings(sn_mode=1, sn_tick_us=1,
                   sn_epoch=int(time.time()) - (2 ** 32 // 10 ** 6 - 8))
        lib.equal(add(a, 0x1000, AUTHS["xcbc(aes)"], ENCS["cbc(aes)"]), 0, "errno")
        lib.equal(a.listed()[0x1000]["SN"], "clock", "SN")
        lib.wait_for("the end of the SA", lambda: not a.listed())


def cases():
    yield "suites that are minimal", taken
    yield "suites that are refused", refused
    yield "the end of the SNs", ends


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"])
