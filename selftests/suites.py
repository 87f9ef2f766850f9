#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every cipher suite in every mode, with esp4 and esp6, and with peers that share
no code with the kernel: the cryptography library, Scapy and Wireshark, as far as
they have the suite. Also implicit IVs (RFC 8750), which esp4 and esp6 lack. Suites
alternate between net.minesp.offload 0 and 1, with GRO."""
import contextlib
import random
import tempfile

import lib
from lib import offloading, scapy_peer, share, suites, traffic

try:
    from scapy.layers.ipsec import ESP, SecurityAssociation
    from scapy.utils import wrpcap
except ImportError:
    ESP = None

TCP_BYTES = 1 << 17


class Peer(scapy_peer.SuitePeer):
    """If Scapy has the suite, it also encrypts and decrypts packets."""

    def __init__(self, a, b, mode, inner, outer, suite, esn=0):
        super().__init__(a, b, mode, inner, outer, suite, esn)
        self.scapy = {}
        for h in (a, b) if suite.scapy and not esn else ():
            tunnel = None
            if mode == "tunnel":
                layer = scapy_peer.IP if outer == 4 else scapy_peer.IPv6
                tunnel = layer(src=lib.ADDRESSES["outer", outer][h.peer],
                               dst=h.address(outer))
            self.scapy[h.name] = SecurityAssociation(
                ESP, spi=lib.SPI[h.name], tunnel_header=tunnel, **suite.scapy)

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


def sizes(suite):
    """Returns sizes of data for every alignment."""
    return [*range(1, 1 + suite.block), 1300]


def alone(a, b, mode, inner, outer, suite, esn=0):
    """Sends both ways. Returns the packets that minesp has sent, each with its data."""
    sent = []
    with contextlib.closing(Peer(a, b, mode, inner, outer, suite, esn)) as p:
        p.warm()
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
        # The ICV detects every change.
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
def hosts(peer, enabled):
    """Making hosts takes long, so all suites share them. enabled: net.minesp.offload"""
    with lib.gro(enabled, enabled), lib.hosts() as (a, b):
        if peer == "stock":
            b.settings(enabled=0)
        yield a, b


captured = []   # (suite, the packets that alone() has returned)


def others(suite, modes, enabled):
    """Tests these modes, and ESN, with the peers other than the kernel."""
    a, b = hosts("others", enabled)
    sent = []
    for mode in modes:
        try:
            sent += alone(a, b, *mode, suite)
        except Exception as e:
            raise AssertionError(f"{mode}: {e}") from e
    alone(a, b, "transport", 4, 4, suite, esn=7)
    if suite.wireshark:
        captured.append((suite, sent))


def kernel(peer, suite, enabled):
    """Tests every mode, and ESN with a change of the upper half, with the kernel as the
    peer."""
    cases = [(*mode, "") for mode in lib.MODES]
    start = 2 ** 32 - 4     # six packets are enough to change the upper half
    esn = f"flag esn replay-seq {start} replay-oseq {start}"
    cases += [("transport", 6, 6, esn), ("tunnel", 4, 4, esn)]
    a, b = hosts(peer, enabled)
    errors = [h.errors() for h in (a, b)]
    with offloading.decrypts(a, enabled):
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
    """Returns SN and IV of 50 packets of a new SA."""
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
    """RFC 3602 3: no half of an IV repeats, no difference of successive IVs repeats, and
    no two IVs have the same XOR with their SNs, also when the key is added again. Fails
    by chance once in 10^14 runs."""
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
    """The IV is the XOR of the SN and a salt that differs between SAs."""
    with lib.hosts() as (a, b):
        salts = [{int.from_bytes(iv, "big") ^ int.from_bytes(sn, "big")
                  for sn, iv in ivs(a, b, suite)} for _ in range(2)]
    lib.equal([len(s) for s in salts], [1, 1], "salts of an SA")
    assert salts[0] != salts[1], "two SAs with one salt"


def wireshark():
    """Wireshark opens all captured packets, and finds valid ICVs and the data. It reads
    all packets at once, because it takes long to start. So each suite gets its own source
    address."""
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
                lib.equal(icv in ("1", "True"), True, "Wireshark finds the ICV right")


def cases():
    for n, (name, suite) in enumerate(suites.explicit_iv()):
        yield from offloading.either(
            n, f"{name}: stock peer",
            lambda enabled, s=suite: kernel("stock", s, enabled))
        # Two modes, because Python is slow in emulation. Modes and suites do not depend on
        # each other.
        two = lib.MODES[n % 6], lib.MODES[(n + 3) % 6]
        if share.mine(n):
            yield from offloading.either(
                n, f"{name}: other peers",
                lambda enabled, s=suite, m=two: others(s, m, enabled))
    for n, (enc, check) in enumerate((("cbc(aes)", unpredictable),
                                      ("rfc3686(ctr(aes))", unique))):
        suite = suites.Authenc(enc, 16, "hmac(sha256)")
        yield from offloading.either(
            n, f"{enc}: IVs",
            lambda enabled, s=suite, c=check: offloading.using(enabled, c, s))
    for n, (name, suite) in enumerate(suites.implicit_iv()):
        yield from offloading.either(
            n, f"{name}, implicit IV: minimal peer",
            lambda enabled, s=suite: kernel("minimal", s, enabled))
        if share.mine(n):
            yield from offloading.either(
                n, f"{name}, implicit IV: other peers",
                lambda enabled, s=suite: others(s, lib.MODES, enabled))
    yield "Wireshark opens what minesp has sent", wireshark


if __name__ == "__main__":
    lib.run(cases(), needs=["ethtool", "ip", "ping", "tshark"],
            imports=["scapy", "cryptography"])
