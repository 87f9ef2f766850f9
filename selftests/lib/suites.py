# SPDX-License-Identifier: GPL-2.0
"""The cipher suites of minesp: their words for ip xfrm, and an implementation with the
cryptography library, which seals and opens ESP packets."""
import hmac

from .verdict import equal
from .xflag import XFLAG_IMPLICIT_IV

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import (
        AESCCM,
        AESGCM,
        ChaCha20Poly1305,
    )
    from cryptography.hazmat.primitives.cmac import CMAC
except ImportError:
    AESGCM = None   # run() skips the test


class Suite:
    """A cipher suite and its key.

    words: for ip xfrm
    ivlen, block, icv: lengths in bytes
    scapy: arguments of SecurityAssociation, if Scapy has the suite
    wireshark: fields of Wireshark's table of SAs after SPI and addresses, if Wireshark
               has the suite
    checks: whether Wireshark can check the ICV, too"""
    ivlen, block, scapy, wireshark, checks = 8, 4, None, None, True

    def seal(self, head, high, iv, plain):
        """Returns an ESP packet. head: SPI and SN. high: the upper half of an ESN in 4
        bytes, or empty. iv: ivlen bytes or more"""

    def open(self, esp, high):
        """Returns the content of an ESP packet; raises an exception if the ICV is invalid."""


class Aead(Suite):
    """An AEAD, or AES-GMAC, which only authenticates."""

    def __init__(self, algorithm, cipher, key, salt, icv, scapy=None,
                 wireshark=None, encrypts=True, implicit=False):
        self.icv, self.encrypts, self.implicit = icv, encrypts, implicit
        key, self.salt = bytes(range(key)), bytes(range(160, 160 + salt))
        whole = "0x" + (key + self.salt).hex()
        self.words = f"aead {algorithm} {whole} {icv * 8}"
        self.cipher = cipher(key)
        if implicit:
            self.ivlen = 0
            self.words += f" {XFLAG_IMPLICIT_IV}"
            return
        if scapy:
            self.scapy = dict(crypt_algo=scapy, crypt_key=key + self.salt,
                              crypt_icv_size=icv)
        if wireshark:
            self.wireshark = wireshark, whole, "NULL", ""

    def _inputs(self, head, high, iv):
        """Returns the nonce and the associated data."""
        if self.implicit:
            iv = (high or bytes(4)) + head[4:]      # the SN in 8 bytes
        return self.salt + iv, head[:4] + high + head[4:]

    def seal(self, head, high, iv, plain):
        iv = iv[:self.ivlen]
        nonce, aad = self._inputs(head, high, iv)
        if self.encrypts:
            return head + iv + self.cipher.encrypt(nonce, plain, aad)
        return head + iv + plain + self.cipher.encrypt(nonce, b"",
                                                       aad + iv + plain)

    def open(self, esp, high):
        head, iv, text = esp[:8], esp[8:8 + self.ivlen], esp[8 + self.ivlen:]
        nonce, aad = self._inputs(head, high, iv)
        if self.encrypts:
            return self.cipher.decrypt(nonce, text, aad)
        plain, tag = text[:-self.icv], text[-self.icv:]
        self.cipher.decrypt(nonce, tag, aad + iv + plain)
        return plain


def aes_ecb(key, block):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def cmac(key, data):
    mac = CMAC(algorithms.AES(key))
    mac.update(data)
    return mac.finalize()[:12]


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def xcbc(key, data):
    """RFC 3566."""
    k1, k2, k3 = (aes_ecb(key, bytes([n]) * 16) for n in (1, 2, 3))
    *blocks, last = [data[i:i + 16] for i in range(0, len(data), 16)]
    mac = bytes(16)
    for block in blocks:
        mac = aes_ecb(k1, xor(mac, block))
    if len(last) < 16:
        last, k2 = (last + b"\x80" + bytes(15))[:16], k3
    return aes_ecb(k1, xor(xor(mac, last), k2))[:12]


def sha2(name, icv):
    return lambda key, data: hmac.digest(key, data, name)[:icv]


# {name for ip xfrm: length of key and ICV, ICV function, names for Scapy, Wireshark}
AUTHS = {
    "hmac(sha256)": (32, 16, sha2("sha256", 16), "SHA2-256-128",
                     "HMAC-SHA-256-128 [RFC4868]"),
    "hmac(sha512)": (64, 32, sha2("sha512", 32), "SHA2-512-256",
                     "HMAC-SHA-512-256 [RFC4868]"),
    "xcbc(aes)": (16, 12, xcbc, None, "ANY 96 bit authentication [no checking]"),
    "cmac(aes)": (16, 12, cmac, "AES-CMAC-96",
                  "ANY 96 bit authentication [no checking]"),
}
# {name for ip xfrm: length of salt, IV and block, names for Scapy, Wireshark}
ENCS = {
    "cbc(aes)": (0, 16, 16, "AES-CBC", "AES-CBC [RFC3602]"),
    "rfc3686(ctr(aes))": (4, 8, 4, "AES-CTR", "AES-CTR [RFC3686]"),
    "ecb(cipher_null)": (0, 0, 4, "NULL", "NULL"),
}


class Authenc(Suite):
    """A cipher and an authenticator, which the crypto API combines."""

    def __init__(self, enc, key, auth):
        salt, self.ivlen, self.block, scapy, wireshark = ENCS[enc]
        keylen, self.icv, self.mac, s_auth, w_auth = AUTHS[auth]
        self.enc = enc
        self.key, self.salt = bytes(range(key)), bytes(range(160, 160 + salt))
        self.authkey = bytes(range(64, 64 + keylen))
        whole = "0x" + (self.key + self.salt).hex() if key else ""
        self.words = (f"enc {enc} '{whole}' "
                      f"auth-trunc {auth} 0x{self.authkey.hex()} {self.icv * 8}")
        if s_auth:
            self.scapy = dict(crypt_algo=scapy, crypt_key=self.key + self.salt,
                              auth_algo=s_auth, auth_key=self.authkey)
        self.wireshark = wireshark, whole, w_auth, "0x" + self.authkey.hex()
        self.checks = "no checking" not in w_auth

    def _cipher(self, iv):
        if "cbc" in self.enc:
            return Cipher(algorithms.AES(self.key), modes.CBC(iv))
        return Cipher(algorithms.AES(self.key),
                      modes.CTR(self.salt + iv + b"\0\0\0\1"))

    def seal(self, head, high, iv, plain):
        iv = iv[:self.ivlen]
        if self.ivlen:
            plain = self._cipher(iv).encryptor().update(plain)
        packet = head + iv + plain
        return packet + self.mac(self.authkey, packet + high)

    def open(self, esp, high):
        packet, icv = esp[:-self.icv], esp[-self.icv:]
        equal(icv, self.mac(self.authkey, packet + high), "ICV")
        iv, text = packet[8:8 + self.ivlen], packet[8 + self.ivlen:]
        return self._cipher(iv).decryptor().update(text) if self.ivlen else text


GCM, CCM = "rfc4106(gcm(aes))", "rfc4309(ccm(aes))"
GMAC, CHACHA = "rfc4543(gcm(aes))", "rfc7539esp(chacha20,poly1305)"


def explicit_iv():
    """Yields (name, suite) of all suites that send their IV, or have none."""
    for key in (16, 24, 32):
        yield f"AES-GCM-16 {key * 8}", Aead(
            GCM, AESGCM, key, 4, 16, "AES-GCM",
            "AES-GCM with 16 octet ICV [RFC4106]")
    yield "ChaCha20-Poly1305", Aead(CHACHA, ChaCha20Poly1305, 32, 4, 16,
                                    "CHACHA20-POLY1305")
    for icv, keys in ((8, (16, 32)), (16, (16, 24))):
        for key in keys:
            yield f"AES-CCM-{icv} {key * 8}", Aead(
                CCM, lambda k, n=icv: AESCCM(k, n), key, 3, icv, "AES-CCM")
    for key in (16, 32):
        yield f"AES-GMAC {key * 8}", Aead(GMAC, AESGCM, key, 4, 16,
                                          encrypts=False)
    for enc, keys in (("cbc(aes)", (16, 32, 24, 16)),
                      ("rfc3686(ctr(aes))", (16, 32, 24, 16)),
                      ("ecb(cipher_null)", (0, 0, 0, 0))):
        for key, auth in zip(keys, AUTHS):
            yield f"{enc} {key * 8}, {auth}", Authenc(enc, key, auth)


def implicit_iv():
    """Yields (name, suite) of all suites with an implicit IV."""
    yield "AES-GCM-16", Aead(GCM, AESGCM, 16, 4, 16, implicit=True)
    yield "AES-CCM-8", Aead(CCM, lambda k: AESCCM(k, 8), 16, 3, 8, implicit=True)
    yield "ChaCha20-Poly1305", Aead(CHACHA, ChaCha20Poly1305, 32, 4, 16,
                                    implicit=True)
