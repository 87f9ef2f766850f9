#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every cipher suite, in every mode: with esp4 and esp6, and with peers that
share no code with the kernel: the cryptography library, Scapy and Wireshark, as
far as they know the suite. And implicit IVs (RFC 8750), which esp4 and esp6 do
not know."""
import contextlib
import hmac
import random
import struct
import tempfile

import lib
from lib import scapy_peer, traffic

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import (
        AESCCM,
        AESGCM,
        ChaCha20Poly1305,
    )
    from cryptography.hazmat.primitives.cmac import CMAC
    from scapy.layers.ipsec import ESP, SecurityAssociation
    from scapy.utils import wrpcap
except ImportError:
    AESGCM = None

TCP_BYTES = 1 << 17


def sizes(suite):
    """Every alignment."""
    return [*range(1, 1 + suite.block), 1300]


class Suite:
    """What it needs to know of itself:

    words: for ip xfrm
    ivlen, block, icv: in bytes
    scapy: the arguments of a SecurityAssociation, if Scapy has the suite
    wireshark: how its table of SAs names it, without SPI and addresses, if it
               has the suite
    checks: whether Wireshark can check the ICV, too"""
    ivlen, block, scapy, wireshark, checks = 8, 4, None, None, True

    def seal(self, head, high, iv, plain):
        """An ESP packet. head: SPI and SN, in bytes. high: the upper half of an
        ESN in 4 bytes, or none. iv: as many bytes as the suite takes of it."""

    def open(self, esp, high):
        """What is in an ESP packet; raises when the ICV is wrong."""


class Aead(Suite):
    def __init__(self, algorithm, cipher, key, salt, icv, scapy=None,
                 wireshark=None, encrypts=True, implicit=False):
        self.icv, self.encrypts, self.implicit = icv, encrypts, implicit
        key, self.salt = bytes(range(key)), bytes(range(160, 160 + salt))
        whole = "0x" + (key + self.salt).hex()
        self.words = f"aead {algorithm} {whole} {icv * 8}"
        self.cipher = cipher(key)
        if implicit:
            self.ivlen = 0
            self.words += f" {lib.XFLAG_IMPLICIT_IV}"
            return
        if scapy:
            self.scapy = dict(crypt_algo=scapy, crypt_key=key + self.salt,
                              crypt_icv_size=icv)
        if wireshark:
            self.wireshark = wireshark, whole, "NULL", ""

    def _inputs(self, head, high, iv):
        """Nonce and associated data."""
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


# ip xfrm: length of the key, ICV, ICV of a key and data, Scapy, Wireshark
AUTHS = {
    "hmac(sha256)": (32, 16, sha2("sha256", 16), "SHA2-256-128",
                     "HMAC-SHA-256-128 [RFC4868]"),
    "hmac(sha512)": (64, 32, sha2("sha512", 32), "SHA2-512-256",
                     "HMAC-SHA-512-256 [RFC4868]"),
    "xcbc(aes)": (16, 12, xcbc, None, "ANY 96 bit authentication [no checking]"),
    "cmac(aes)": (16, 12, cmac, "AES-CMAC-96",
                  "ANY 96 bit authentication [no checking]"),
}
# ip xfrm: salt, IV, block, Scapy, Wireshark
ENCS = {
    "cbc(aes)": (0, 16, 16, "AES-CBC", "AES-CBC [RFC3602]"),
    "rfc3686(ctr(aes))": (4, 8, 4, "AES-CTR", "AES-CTR [RFC3686]"),
    "ecb(cipher_null)": (0, 0, 4, "NULL", "NULL"),
}


class Halves(Suite):
    """A cipher and an authenticator."""

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
        lib.equal(icv, self.mac(self.authkey, packet + high), "ICV")
        iv, text = packet[8:8 + self.ivlen], packet[8 + self.ivlen:]
        return self._cipher(iv).decryptor().update(text) if self.ivlen else text


GCM, CCM = "rfc4106(gcm(aes))", "rfc4309(ccm(aes))"
GMAC, CHACHA = "rfc4543(gcm(aes))", "rfc7539esp(chacha20,poly1305)"


def suites():
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
            yield f"{enc} {key * 8}, {auth}", Halves(enc, key, auth)


def implicit():
    yield "AES-GCM-16", Aead(GCM, AESGCM, 16, 4, 16, implicit=True)
    yield "AES-CCM-8", Aead(CCM, lambda k: AESCCM(k, 8), 16, 3, 8, implicit=True)
    yield "ChaCha20-Poly1305", Aead(CHACHA, ChaCha20Poly1305, 32, 4, 16,
                                    implicit=True)


class Peer(scapy_peer.Peer):
    """Speaks any suite. esn: the upper half of ESNs; 0 for no ESN."""

    def __init__(self, a, b, mode, inner, outer, suite, esn=0, window=32):
        self.suite = suite
        self.block = suite.block
        self.high = struct.pack(">I", esn) if esn else b""
        super().__init__(
            a, b, mode, inner, outer, window, suite=suite.words, words=esn and
            f"flag esn replay-seq-hi {esn} replay-oseq-hi {esn}" or "")
        self.scapy = {}
        for h in (a, b) if suite.scapy and not esn else ():
            tunnel = None
            if mode == "tunnel":
                layer = scapy_peer.IP if outer == 4 else scapy_peer.IPv6
                tunnel = layer(src=lib.ADDRESSES["outer", outer][h.peer],
                               dst=h.address(outer))
            self.scapy[h.name] = SecurityAssociation(
                ESP, spi=lib.SPI[h.name], tunnel_header=tunnel, **suite.scapy)

    def seal(self, plain):
        return self.suite.seal(struct.pack(">II", plain.spi, plain.seq),
                               self.high, random.randbytes(16), plain.data +
                               plain.padding + bytes([plain.padlen, plain.nh]))

    def scapy_delivers(self, data):
        self.seq += 1
        packet = (self.ip(self.inner, self.kind) /
                  scapy_peer.UDP(sport=scapy_peer.PORT, dport=scapy_peer.PORT) /
                  scapy_peer.Raw(data))
        self.send(self.scapy["a"].encrypt(packet, seq_num=self.seq))
        lib.equal(self.app.recv(1 << 16), data, "data from Scapy")

    def scapy_opens(self, packet, data):
        opened = self.scapy["b"].decrypt(packet.copy())
        lib.equal(bytes(opened[scapy_peer.UDP].payload), data, "data for Scapy")


def alone(a, b, mode, inner, outer, suite, esn=0):
    """Both ways; returns what minesp has sent, and the data that is in it."""
    sent = []
    with contextlib.closing(Peer(a, b, mode, inner, outer, suite, esn)) as p:
        ivs = set()
        for n in sizes(suite):
            data = random.randbytes(n)
            nh, payload = p.datagram(data)
            p.deliver(p.esp(payload, nh), data)
            p.app.send(data)
            packet = p.capture()
            sent.append((packet, data))
            esp = bytes(packet[ESP])
            ivs.add(esp[8:8 + suite.ivlen])
            plain = suite.open(esp, p.high)
            padlen, got = plain[-2:]
            end = len(plain) - 2 - padlen
            lib.equal((len(plain) % suite.block, padlen < suite.block, got),
                      (0, True, nh), "alignment, padding, Next Header")
            lib.equal(plain[end:-2], bytes(range(1, 1 + padlen)), "padding")
            assert plain[:end].endswith(data), "data"
            lib.equal(len(esp), 8 + suite.ivlen + len(plain) + suite.icv,
                      "length")
            if p.scapy and n in (1, 2, 1300):
                p.scapy_delivers(data)
                p.scapy_opens(packet, data)
        if suite.ivlen:
            lib.equal(len(ivs), len(sent), "different IVs")
        # Whatever is changed, the ICV tells.
        data = b"unchanged"
        nh, payload = p.datagram(data)
        whole = p.esp(payload, nh)
        bad = range(4, len(whole), 7)
        before = p.counters()
        for i in bad:
            changed = bytearray(whole)
            changed[i] ^= 1
            p.send(p.frame(bytes(changed)))
        p.counts(before, InIcvWrong=len(bad), XfrmInStateProtoError=len(bad))
        p.deliver(whole, data)
    return sent


@lib.fixture
def hosts(peer):
    """Making hosts takes long, so all suites use the same."""
    with lib.hosts() as (a, b):
        if peer == "stock":
            b.settings(enabled=0)
        yield a, b


captured = []   # what alone() has returned: (suite, what minesp has sent)


def others(suite, modes):
    """In these modes, and with ESN, with the peers that are not the kernel."""
    a, b = hosts("others")
    sent = []
    for mode in modes:
        try:
            sent += alone(a, b, *mode, suite)
        except Exception as e:
            raise AssertionError(f"{mode}: {e}") from e
    alone(a, b, "transport", 4, 4, suite, esn=7)
    if suite.wireshark:
        captured.append((suite, sent))


def kernel(peer, suite):
    """In every mode, and with ESNs whose upper half changes, with the kernel as
    the peer."""
    cases = [(*mode, "") for mode in lib.MODES]
    start = 2 ** 32 - 4     # six packets are enough to change it
    esn = f"flag esn replay-seq {start} replay-oseq {start}"
    cases += [("transport", 6, 6, esn), ("tunnel", 4, 4, esn)]
    a, b = hosts(peer)
    errors = [h.errors() for h in (a, b)]
    for mode, inner, outer, words in cases:
        kind = "inner" if mode == "tunnel" else "outer"
        before = {h: h.stats() for h in (a, b)}
        for h in (a, b):
            h.sas(mode, inner, outer, words, suite.words)
        try:
            traffic.udp(a, b, inner, kind, sizes(suite) + [4000])
            traffic.went_as_esp(a, b, peer, len(sizes(suite)), before)
        except AssertionError as e:
            raise AssertionError(f"{mode, inner, outer, words}: {e}") from e
    traffic.tcp(a, b, inner, kind, TCP_BYTES)
    traffic.tcp(b, a, inner, kind, TCP_BYTES)
    lib.equal([h.errors() for h in (a, b)], errors, "errors")


def ivs(a, b, suite):
    """Of 50 packets of a new SA."""
    with contextlib.closing(Peer(a, b, "transport", 4, 4, suite)) as p:
        found, before = [], b""
        for _ in range(50):
            p.app.send(b"the same")
            esp = bytes(p.capture()[ESP])
            iv = esp[8:8 + suite.ivlen]
            assert iv not in before, "an IV that has been on the wire"
            before += esp
            found.append((esp[4:8], iv))
        return found


def unpredictable(suite):
    """RFC 3602 3: neither half of an IV repeats, nor do two IVs differ by as much
    as two others, nor is one the XOR of SN and something; also when the key is
    added again. Fails by chance once in 10^14 runs."""
    with lib.hosts() as (a, b):
        found = ivs(a, b, suite) + ivs(a, b, suite)
    numbers = [int.from_bytes(iv, "big") for _, iv in found]
    halves = [n & 2 ** 64 - 1 for n in numbers] + [n >> 64 for n in numbers]
    steps = [y - x for x, y in zip(numbers, numbers[1:])]
    masks = [n ^ int.from_bytes(sn, "big")
             for half in (halves[:100], halves[100:])
             for (sn, _), n in zip(found, half)]
    for values in (halves, steps, masks):
        lib.equal(len(set(values)), len(values), "different values")


def unique(suite):
    """The IV is the SN, XORed with what each SA has of its own."""
    with lib.hosts() as (a, b):
        salts = [{int.from_bytes(iv, "big") ^ int.from_bytes(sn, "big")
                  for sn, iv in ivs(a, b, suite)} for _ in range(2)]
    lib.equal([len(s) for s in salts], [1, 1], "salts of an SA")
    assert salts[0] != salts[1], "two SAs with one salt"


def wireshark():
    """It opens all that was captured, finds the ICV right and the data in it. All
    at once, since it takes long to start: each suite has a source of its own then."""
    if not captured:
        raise lib.Skip("none of these suites was captured")
    words, frames = [], []
    for n, (suite, sent) in enumerate(captured, 1):
        enc, key, auth, authkey = suite.wireshark
        sources = {"IPv4": f"192.0.2.{n}", "IPv6": f"2001:db8::{n:x}"}
        for family, source in sources.items():
            words.append(f'-o \'uat:esp_sa:"{family}","{source}","*",'
                         f'"{lib.SPI["b"]:#010x}","{enc}","{key}","{auth}","{authkey}"\'')
        for packet, _ in sent:
            packet = packet.copy()
            packet.src = sources[f"IPv{packet.version}"]
            frames.append(scapy_peer.Ether(src=bytes(6), dst=bytes(6)) / packet)
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        wrpcap(file.name, frames)
        said = lib.sh(
            f"tshark -r {file.name} -o esp.enable_encryption_decode:TRUE "
            f"-o esp.enable_authentication_check:TRUE {' '.join(words)} "
            f"-d udp.port=={scapy_peer.PORT},data -T fields -e esp.icv_good -e udp.payload")
    got = [line.split("\t") for line in said.splitlines() if "\t" in line]
    lib.equal(len(got), len(frames), "packets that Wireshark has read")
    for suite, sent in captured:
        for _, data in sent:
            icv, payload = got.pop(0)
            lib.equal(payload.replace(":", ""), data.hex(), "data for Wireshark")
            if suite.checks:
                lib.equal(icv, "1", "Wireshark finds the ICV right")


def cases():
    for n, (name, suite) in enumerate(suites()):
        yield f"{name}: stock peer", lambda s=suite: kernel("stock", s)
        # Python is slow in emulation. Modes and suites know nothing of each other.
        two = lib.MODES[n % 6], lib.MODES[(n + 3) % 6]
        yield f"{name}: other peers", lambda s=suite, m=two: others(s, m)
    for enc, check in (("cbc(aes)", unpredictable), ("rfc3686(ctr(aes))", unique)):
        yield (f"{enc}: IVs", lambda s=Halves(enc, 16, "hmac(sha256)"), c=check:
               c(s))
    for name, suite in implicit():
        yield (f"{name}, implicit IV: minimal peer",
               lambda s=suite: kernel("minimal", s))
        yield (f"{name}, implicit IV: other peers",
               lambda s=suite: others(s, lib.MODES))
    yield "Wireshark opens what minesp has sent", wireshark


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping", "tshark"],
            imports=["scapy", "cryptography"])
