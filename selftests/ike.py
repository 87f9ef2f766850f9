#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A real IKE daemon, strongSwan, on both hosts: it negotiates keys, SPIs and
suites, with a stock peer and a minimal one, and rekeys again and again under
traffic that loses no packet."""
import functools
import os
import pathlib
import re
import select
import subprocess
import tempfile
import threading
import time

import lib
from lib import share, traffic

DAEMON = "charon-systemd"
PORT = 6000

STRONGSWAN = """
charon-systemd {{
    load_modular = no
    load = random nonce aes sha1 sha2 hmac kdf gmp openssl kernel-netlink socket-default vici
    delete_rekeyed_delay = 1
    syslog {{
    }}
    plugins {{
        vici {{
            socket = unix://{vici}
        }}
    }}
    filelog {{
        log {{
            path = {dir}/log
            default = 1
        }}
    }}
}}
swanctl {{
    load = random
}}
"""

SWANCTL = """
connections {{
    minesp {{
        version = 2
        local_addrs = {me}
        remote_addrs = {peer}
        proposals = aes128-sha256-modp2048
        encap = {encap}
        local {{
            auth = psk
            id = {name}
        }}
        remote {{
            auth = psk
            id = {other}
        }}
        children {{
            child {{
                mode = {mode}
                local_ts = {ts}
                remote_ts = {other_ts}
                esp_proposals = {proposal}
            }}
        }}
    }}
}}
secrets {{
    ike {{
        secret = "not a secret"
    }}
}}
"""


class Ike:
    """strongSwan on a host."""

    def __init__(self, host, folder):
        self.host = host
        self.dir = pathlib.Path(folder, host.name)
        self.dir.mkdir()
        self.vici = self.dir / "vici"
        self.conf = self.dir / "strongswan.conf"
        self.conf.write_text(STRONGSWAN.format(dir=self.dir, vici=self.vici))
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", host.ns, DAEMON],
            env={**os.environ, "STRONGSWAN_CONF": str(self.conf)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @functools.cache    # once
    def wait(self):
        lib.wait_for("strongSwan listens", lambda: "uptime" in self.swanctl(
            "--stats", check=False))

    def swanctl(self, words, check=True):
        return lib.sh(f"env STRONGSWAN_CONF={self.conf} swanctl {words} "
                      f"--uri unix://{self.vici}", check)

    def configure(self, mode, inner, outer, proposal, encap=False):
        """encap: as if there were a NAT."""
        kind = "inner" if mode == "tunnel" else "outer"
        ts, other_ts = (f"{lib.ADDRESSES[kind, inner][n]}[udp/{PORT}]"
                        for n in (self.host.name, self.host.peer))
        conf = self.dir / "swanctl.conf"
        conf.write_text(SWANCTL.format(
            me=self.host.address(outer), name=self.host.name,
            peer=lib.ADDRESSES["outer", outer][self.host.peer],
            other=self.host.peer, mode=mode, ts=ts, other_ts=other_ts,
            proposal=proposal, encap="yes" if encap else "no"))
        self.swanctl(f"--load-all --noprompt --file {conf}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(lib.TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self):
        log = self.dir / "log"
        return log.read_text() if log.exists() else "no log"

    def sas(self):
        """{SPI: what was negotiated} of the SAs, as the kernel has them: names of
        the algorithms, bytes of the keys, bits of the ICV; whether ESN."""
        said = lib.sh(f"ip -n {self.host.ns} xfrm state")
        found = {}
        for sa in re.split(r"(?m)^src ", said)[1:]:
            spi = int(re.search(r"spi (0x\w+)", sa)[1], 16)
            found[spi] = [(name, len(key) // 2, icv) for name, key, icv in re.findall(
                r"(?:aead|enc|auth-trunc) (\S+) ?(?:0x(\S+))? ?(\d*)", sa)]
            if re.search(r"flag .*\besn\b", sa):
                found[spi].append("esn")
        return found


@lib.fixture
def daemons(peer):
    """They take long to start, so all suites use the same."""
    with lib.hosts() as (a, b), tempfile.TemporaryDirectory() as folder:
        if peer == "stock":
            b.settings(enabled=0)
        both = []
        try:
            for h in (a, b):
                both.append(Ike(h, folder))
            yield both
        finally:
            for i in both:
                i.stop()


class Traffic(threading.Thread):
    """Numbered datagrams from a to b, and back, until lost() is asked for, or the
    block that it is for ends."""

    def __init__(self, a, b, family, kind):
        super().__init__(daemon=True)
        self.ends = traffic.pair(a, b, family, kind, PORT)
        self.sent, self.back, self.done = 0, set(), False

    def run(self):
        at_a, at_b = self.ends
        end = None
        while not end or (time.monotonic() < end and len(self.back) < self.sent):
            if not self.done:
                at_a.send(b"%d" % self.sent)
                self.sent += 1
            elif not end:
                end = time.monotonic() + lib.TIMEOUT
            while readable := select.select(self.ends, [], [], 0.01)[0]:
                for sock in readable:
                    data = sock.recv(100)
                    if sock is at_b:
                        sock.send(data)
                    else:
                        self.back.add(int(data))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done = True
        self.join()
        for sock in self.ends:
            sock.close()

    def lost(self):
        """Stops; returns which of them did not come back."""
        self.done = True
        self.join()
        return sorted(set(range(self.sent)) - self.back)


def negotiated(ikes, peer, algorithms):
    """Both hosts have the same SAs, run by whom they should be."""
    def agreed():
        sas = [i.sas() for i in ikes]
        return sas[0] == sas[1] and len(sas[0]) == 2 and sas[0]

    sas = lib.wait_for("both hosts have the same two SAs", agreed)
    for spi, found in sas.items():
        lib.equal(found, algorithms, f"what was negotiated for {spi:#x}")
    for i in ikes:
        wanted = set(sas) if peer == "minimal" or i.host.name == "a" else set()
        lib.wait_for(f"minimal SAs of {i.host.name}: {wanted}",
                     lambda: i.host.listed().keys() == wanted)


def suite(ikes, peer, rekeys, mode, inner, outer, proposal, algorithms, encap=False):
    a, b = (i.host for i in ikes)
    before = {h: h.stats() for h in (a, b)}
    for i in ikes:
        i.configure(mode, inner, outer, proposal, encap)
    ikes[0].swanctl("--initiate --child child --timeout 20")
    negotiated(ikes, peer, algorithms)
    said = lib.sh(f"ip -n {a.ns} xfrm state")
    lib.equal(said.count("encap type espinudp"), 2 if encap else 0, "SAs in UDP")
    with Traffic(a, b, inner, "inner" if mode == "tunnel" else "outer") as sender:
        spis = set(ikes[0].sas())
        for n in range(rekeys):
            ikes[n % 2].swanctl("--rekey --child child")
            # A new pair, some packets, and the old one gone
            lib.wait_for("new SAs", lambda: set(ikes[0].sas()) - spis)
            sent = sender.sent
            lib.wait_for("packets", lambda: sender.sent > sent + 20)
            lib.wait_for("old SAs gone", lambda: len(ikes[0].sas()) == 2 and
                         not set(ikes[0].sas()) & spis)
            spis = set(ikes[0].sas())
        lib.equal(sender.lost(), [], f"lost of {sender.sent}")
        traffic.went_as_esp(a, b, peer, sender.sent, before)
    negotiated(ikes, peer, algorithms)
    for h in (a, b):
        lib.equal(h.errors(), {}, "errors")
    ikes[0].swanctl("--terminate --ike minesp --timeout 20")


def unsuitable(ikes, peer):
    """What minimal ESP does not have, and is proposed first, comes up as stock."""
    before = {i: i.host.stats()["StockKey"] for i in ikes}
    for i in ikes:
        i.configure("tunnel", 4, 4, "aes128gcm8,aes128gcm16")
    ikes[0].swanctl("--initiate --child child --timeout 20")
    lib.wait_for("both hosts have SAs", lambda: all(len(i.sas()) == 2 for i in ikes))
    for i in ikes:
        lib.equal({str(found) for found in i.sas().values()},
                  {str([("rfc4106(gcm(aes))", 20, "64")])}, "what was negotiated")
        lib.equal(i.host.listed(), {}, "minimal SAs")
        lib.equal(i.host.stats()["StockKey"] - before[i], 2, "StockKey")
    ikes[0].swanctl("--terminate --ike minesp --timeout 20")


CBC, SHA256 = ("cbc(aes)", 16, ""), ("hmac(sha256)", 32, "128")
SUITES = {
    "aes128gcm16": [("rfc4106(gcm(aes))", 20, "128")],
    "aes256gcm16-esn": [("rfc4106(gcm(aes))", 36, "128"), "esn"],
    "chacha20poly1305": [("rfc7539esp(chacha20,poly1305)", 36, "128")],
    "aes128ccm8": [("rfc4309(ccm(aes))", 19, "64")],
    "aes128gmac": [("rfc4543(gcm(aes))", 20, "128")],
    "aes128-sha256": [SHA256, CBC],
    "aes256-sha512-esn": [("hmac(sha512)", 64, "256"), ("cbc(aes)", 32, ""),
                          "esn"],
    "aes128ctr-sha256": [SHA256, ("rfc3686(ctr(aes))", 20, "")],
    "null-sha256": [SHA256, ("ecb(cipher_null)", 0, "")],
    "aes128-aesxcbc": [("xcbc(aes)", 16, "96"), CBC],
    "aes128-aescmac": [("cmac(aes)", 16, "96"), CBC],
}


def session(peer, *args, test=suite, **more):
    ikes = daemons(peer)
    try:
        for i in ikes:
            i.wait()
        test(ikes, peer, *args, **more)
    except Exception as e:
        daemons.cache_clear()   # new ones for the next suite
        logs = "\n".join(i.log()[-3000:] for i in ikes)
        raise AssertionError(f"{e}\n{logs}") from e


def cases():
    for n, (proposal, algorithms) in enumerate(SUITES.items()):
        mode = lib.MODES[n % len(lib.MODES)]
        rekeys = 2 if n else 6
        if n and not share.mine(n):     # the first one on each kernel
            continue
        yield (f"{proposal}, stock peer, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}",
               lambda r=rekeys, m=mode, p=proposal, a=algorithms:
               session("stock", r, *m, p, a))
    for n, proposal in enumerate(("aes128gcm16", "aes256-sha512-esn")):
        mode = lib.MODES[n]
        yield (f"{proposal}, minimal peer, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}",
               lambda m=mode, p=proposal: session("minimal", 2, *m, p, SUITES[p]))
    for peer, mode in ("stock", lib.MODES[0]), ("minimal", lib.MODES[2]):
        yield (f"in UDP, {peer} peer, {mode[0]}, IPv{mode[1]} in IPv{mode[2]}",
               lambda p=peer, m=mode: session(p, 2, *m, "aes128gcm16",
                                              SUITES["aes128gcm16"], encap=True))
    yield "unsuitable proposals first", lambda: session("minimal", test=unsuitable)


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", DAEMON, "swanctl"])
