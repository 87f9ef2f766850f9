#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every cipher suite: with esp4 and esp6, with ESN, and with a peer that shares
no code with the kernel, the cryptography library."""
import random
import struct

import interop
import lib
import packets

try:
    from cryptography.hazmat.primitives.ciphers.aead import (AESCCM, AESGCM,
                                                             ChaCha20Poly1305)
except ImportError:
    AESGCM = None

SIZES = [*range(1, 34), 1400, 4000]


class Suite:
    """algorithm: as ip xfrm names it. key, salt, icv: in bytes. cipher: makes
    the AEAD of a key."""

    def __init__(self, algorithm, key, salt, icv, cipher, encrypts=True):
        self.salt, self.icv, self.encrypts = bytes(range(160, 160 + salt)), icv, encrypts
        key = bytes(range(key))
        self.words = (f"aead {algorithm} 0x{(key + self.salt).hex()} {icv * 8}")
        self.cipher = cipher(key)

    def seal(self, spi, seq, iv, plain):
        """An ESP packet."""
        head = struct.pack(">II", spi, seq)
        if not self.encrypts:
            return head + iv + plain + self.cipher.encrypt(
                self.salt + iv, b"", head + iv + plain)
        return head + iv + self.cipher.encrypt(self.salt + iv, plain, head)

    def open(self, esp):
        """What is in it; raises when the ICV is wrong."""
        head, iv, text = esp[:8], esp[8:16], esp[16:]
        if not self.encrypts:
            plain, tag = text[:-self.icv], text[-self.icv:]
            self.cipher.decrypt(self.salt + iv, tag, head + iv + plain)
            return plain
        return self.cipher.decrypt(self.salt + iv, text, head)


def suites():
    gcm, ccm = "rfc4106(gcm(aes))", "rfc4309(ccm(aes))"
    for key in (16, 24, 32):
        yield f"AES-GCM-16, {key * 8} bits", Suite(gcm, key, 4, 16, AESGCM)
        for icv in (8, 16):
            yield (f"AES-CCM-{icv}, {key * 8} bits",
                   Suite(ccm, key, 3, icv, lambda k, n=icv: AESCCM(k, n)))
        yield (f"AES-GMAC, {key * 8} bits",
               Suite("rfc4543(gcm(aes))", key, 4, 16, AESGCM, False))
    yield "ChaCha20-Poly1305", Suite("rfc7539esp(chacha20,poly1305)", 32, 4, 16,
                                     ChaCha20Poly1305)


class Peer(packets.Peer):
    """Speaks any suite."""

    def __init__(self, a, b, mode, inner, outer, suite):
        self.suite = suite
        super().__init__(a, b, mode, inner, outer, suite=suite.words)

    def seal(self, plain):
        return self.suite.seal(plain.spi, plain.seq, plain.iv, plain.data +
                               plain.padding + bytes([plain.padlen, plain.nh]))


def both_ways(suite, mode, inner, outer):
    with packets.meet(Peer, mode, inner, outer, suite) as p:
        ivs = set()
        for n in (*SIZES[:-2], 1300):
            data = random.randbytes(n)
            nh, payload = p.datagram(data)
            whole = p.esp(payload, nh)
            p.deliver(whole, data)
            p.app.send(data)
            esp = bytes(p.capture()[packets.ESP])
            ivs.add(esp[8:16])
            plain = suite.open(esp)
            padlen, got = plain[-2:]
            end = len(plain) - 2 - padlen
            lib.equal((len(plain) % 4, padlen < 4, got), (0, True, nh),
                      "alignment, padding, Next Header")
            lib.equal(plain[end:-2], bytes(range(1, 1 + padlen)), "padding")
            assert plain[:end].endswith(data), "data"
            lib.equal(len(esp), 16 + len(plain) + suite.icv, "length")
        lib.equal(len(ivs), len(SIZES) - 1, "different IVs")
        # Every byte counts.
        before = p.counters()
        whole = p.esp(payload, nh)
        for i in range(4, len(whole), 7):
            bad = bytearray(whole)
            bad[i] ^= 1
            p.send(p.frame(bytes(bad)))
        bad = len(range(4, len(whole), 7))
        p.counts(before, InIcvWrong=bad, XfrmInStateProtoError=bad)
        p.deliver(whole, data)


def cases():
    for name, suite in suites():
        for mode in (("transport", 4, 4), ("tunnel", 4, 6)):
            yield (f"{name}, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}, alone",
                   lambda s=suite, m=mode: both_ways(s, *m))
        if "192" in name:
            continue
        for mode in (("transport", 6, 6), ("tunnel", 4, 4)):
            yield (f"{name}, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}, stock peer",
                   lambda s=suite, m=mode: interop.talk("stock", *m, SIZES,
                                                        suite=s.words))
        yield (f"{name}, ESN, stock peer", lambda s=suite: interop.talk(
            "stock", "transport", 4, 4, SIZES, "flag esn", s.words))


if __name__ == "__main__":
    if not AESGCM or not packets.IP:
        print("1..0 # SKIP needs python3-scapy and python3-cryptography")
        raise SystemExit(4)
    lib.run(cases(), needs=["ip", "ping"])
