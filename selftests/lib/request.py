# SPDX-License-Identifier: GPL-2.0
"""Random requests for SAs, as netlink messages, and whether minesp accepts them according
to the documentation."""
import socket
import struct

from . import xfrm
from .algorithms import (
    AEADS,
    AUTHS,
    DEFAULT_ICV,
    ENCS,
    IMPLICITS,
    WEAK_AUTHS,
    WEAK_CIPHERS,
)
from .xflag import ANY_AGE, CLOCK, COUNTER, FRESH, IMPLICIT_IV, NEW_KEY

OSEQ_MAY_WRAP = 2
TRANSPORT, TUNNEL = 0, 1
# Attributes that minesp ignores, so their content is random
OTHERS = [*{*range(1, 40)} - {xfrm.XFRMA_ALG_AUTH, xfrm.XFRMA_ALG_CRYPT,
                              xfrm.XFRMA_ALG_AEAD, xfrm.XFRMA_ALG_AUTH_TRUNC,
                              xfrm.XFRMA_ENCAP, xfrm.XFRMA_TFCPAD,
                              xfrm.XFRMA_SA_EXTRA_FLAGS}]


class Request:
    """A random request. extra: its extra-flags, without those that say minimal or stock"""

    def __init__(self, rand):
        def often(value, *others):
            """Returns value in five of six calls."""
            return value if rand.randrange(6) else rand.choice(others)

        self.fields = dict(
            spi=often(0x1000 + rand.getrandbits(16), 0, 1, 255, 256, 2 ** 32 - 1),
            mode=often(rand.choice((TRANSPORT, TUNNEL)), 2, 3, 4, 5, 255),
            flags=often(0, 1, 2, 4, 8, 32, 64, 128, rand.getrandbits(8)),
            window=often(32, 0, 1, 33, 64, 255),
            family=often(socket.AF_INET, socket.AF_INET6, 0, 77))
        self.extra = 0
        if not rand.randrange(3):
            for bit in (CLOCK, COUNTER, FRESH, ANY_AGE, IMPLICIT_IV, NEW_KEY):
                self.extra |= rand.choice((0, 0, 0, bit))
            self.extra |= rand.choice((0, 0, 0, 1, OSEQ_MAY_WRAP, 3))
        self.aead = self.enc = self.auth = None
        self.attributes = []
        if rand.randrange(2):
            name = often(rand.choice([*AEADS]), "gcm(aes)", "ccm(aes)", "cbc(aes)",
                         "", "x" * 63)
            keys, icvs = AEADS.get(name, ({20}, {128}))
            self.aead = (name, often(rand.choice([*keys]), 0, 1, 19, 21, 37, 64),
                         often(rand.choice([*icvs]), 0, 8, 32, 96, 104, 127, 256))
        if not self.aead or not rand.randrange(20):
            name = often(rand.choice([*ENCS]), *WEAK_CIPHERS, "ecb(aes)",
                         "rfc4106(gcm(aes))", "")
            keys = ENCS.get(name, {WEAK_CIPHERS.get(name, 16)})
            self.enc = name, often(rand.choice([*keys]), 0, 7, 17, 20, 33, 64)
        if not self.aead and rand.randrange(12) or not rand.randrange(20):
            name = often(rand.choice([*AUTHS]), *WEAK_AUTHS,
                         "digest_null", "sha256", "")
            key, icv = (AUTHS | WEAK_AUTHS).get(name, (0, 0))
            self.auth = (name, often(key, 0, 1, 16, 31, 33, 65, 200),
                         often(icv, 0, 8, 96, 128, 160, 4096, None))
        if not rand.randrange(12):
            self.enc = None
        if self.aead:
            name, key, icv = self.aead
            self.attributes.append((xfrm.XFRMA_ALG_AEAD, xfrm.algorithm(
                name, rand.randbytes(key), icv)))
        if self.enc:
            name, key = self.enc
            self.attributes.append((xfrm.XFRMA_ALG_CRYPT, xfrm.algorithm(
                name, rand.randbytes(key))))
        if self.auth:
            name, key, icv = self.auth
            kind = xfrm.XFRMA_ALG_AUTH if icv is None else xfrm.XFRMA_ALG_AUTH_TRUNC
            self.attributes.append((kind, xfrm.algorithm(
                name, rand.randbytes(key), icv)))
        self.encap = xfrm.UDP_ENCAP_ESPINUDP
        if not rand.randrange(10):
            self.encap = rand.choice((xfrm.UDP_ENCAP_ESPINUDP,) * 3 + (0, 1, 7, 99))
            self.attributes.append((xfrm.XFRMA_ENCAP, struct.pack(
                "=HHHH16x", self.encap, 4500, 4500, 0)))
        self.tfcpad = 0
        if not rand.randrange(15):
            self.tfcpad = rand.choice((0, 1, 512, 2 ** 32 - 1))
            self.attributes.append((xfrm.XFRMA_TFCPAD,
                                    struct.pack("=I", self.tfcpad)))
        if self.fields["flags"] & 128 or not rand.randrange(8):
            words, window = rand.choice(((1, 32), (4, 128), (128, 4096), (1, 33),
                                         (0, 0), (4, 0)))
            self.attributes.append((xfrm.XFRMA_REPLAY_ESN_VAL, struct.pack(
                "=6I", words, 0, 0, 0, 0, window) + bytes(4 * words)))
        for kind, lengths in ((xfrm.XFRMA_MARK, (8,)), (xfrm.XFRMA_IF_ID, (4,)),
                              (xfrm.XFRMA_SRCADDR, (16,)),
                              (rand.choice(OTHERS), (0, 1, 4, 8, 100))):
            if not rand.randrange(20):
                self.attributes.append((kind, rand.randbytes(rand.choice(lengths))))

    def send(self, sock, extra):
        return sock.ask(xfrm.XFRM_MSG_NEWSA, xfrm.usersa(**self.fields) + b"".join(
            xfrm.attribute(*a) for a in
            (*self.attributes, (xfrm.XFRMA_SA_EXTRA_FLAGS, struct.pack("=I", extra)))))

    def documented(self):
        """Returns whether a minimal SA can be like this according to reference.rst and
        clock.rst, in a namespace with an epoch."""
        extra, esn = self.extra, self.fields["flags"] & 128
        if self.aead:
            name, key, icv = self.aead
            keys, icvs = AEADS.get(name, ((), ()))
            suite = key in keys and icv in icvs
            implicit = (name, icv) in IMPLICITS
        else:
            implicit = False
            suite = self.enc and self.auth and self.auth[0] in AUTHS
            if suite:
                mac, key, icv = self.auth
                if not icv:
                    icv = DEFAULT_ICV[mac]
                suite = (self.enc[1] in ENCS.get(self.enc[0], ()) and
                         (key, icv) == AUTHS[mac])
        return bool(
            suite and self.fields["spi"] > 255 and
            self.fields["mode"] in (TRANSPORT, TUNNEL) and
            self.encap == xfrm.UDP_ENCAP_ESPINUDP and
            not self.tfcpad and not extra & OSEQ_MAY_WRAP and
            not (extra & CLOCK and extra & COUNTER) and
            not (extra & FRESH and extra & ANY_AGE) and
            # The epoch is so long ago that the clock exceeds 32 bits.
            (esn or not extra & CLOCK) and
            (not extra & IMPLICIT_IV or implicit and extra & (CLOCK | NEW_KEY)))

    def __str__(self):
        return (f"{self.fields} extra {self.extra:#x} aead {self.aead} "
                f"enc {self.enc} auth {self.auth} encap {self.encap} "
                f"tfcpad {self.tfcpad} {[a[0] for a in self.attributes]}")
