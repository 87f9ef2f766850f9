# SPDX-License-Identifier: GPL-2.0
"""strongSwan, an IKE daemon, on hosts: how it starts, what it is told, and which SAs it has
and gives to the kernel."""
import contextlib
import functools
import os
import pathlib
import re
import subprocess
import tempfile

from . import wait
from .command import sh
from .verdict import equal
from .vici import Vici
from .wait import TIMEOUT

DAEMON = "charon-systemd"
NEEDS = ["ip", DAEMON]

# Of the IKE_SA, and of the CHILD_SA
NAMES = {"ike": "minesp", "child": "child"}

# Two daemons have to agree, and on a slow machine each takes its time.
SECONDS = 3 * TIMEOUT
wait_for = functools.partial(wait.wait_for, seconds=SECONDS)

STRONGSWAN = """
charon-systemd {{
    load_modular = no
    load = random nonce aes sha1 sha2 hmac kdf gmp openssl kernel-netlink socket-default vici
    delete_rekeyed_delay = 1
    {settings}
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
            flush_line = yes
        }}
    }}
}}
"""

# What is proposed for ESP, and what the kernel has then: names of the algorithms, bytes of
# the keys, bits of the ICV; whether ESN
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


class Ike:
    """strongSwan on a host. settings: more of them, as strongswan.conf has them"""

    def __init__(self, host, folder, settings):
        self.host = host
        self.dir = pathlib.Path(folder, host.name)
        self.dir.mkdir()
        self.socket = self.dir / "vici"
        conf = self.dir / "strongswan.conf"
        conf.write_text(STRONGSWAN.format(
            dir=self.dir, vici=self.socket,
            settings="\n".join(f"{name} = {value}" for name, value in settings.items())))
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", host.ns, DAEMON],
            env={**os.environ, "STRONGSWAN_CONF": str(conf)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @functools.cached_property
    def vici(self):
        """As soon as it listens"""
        def connection():
            with contextlib.suppress(OSError):
                return Vici(self.socket)

        found = wait_for("strongSwan listens", connection)
        found.ask("load-shared", {"id": "ike", "type": "IKE", "data": "not a secret"})
        return found

    def configure(self, connection, child):
        """Replaces what it was told before. connection, child: as swanctl.conf has them"""
        self.vici.ask("load-conn", {NAMES["ike"]: {
            "version": "2",
            "proposals": ["aes128-sha256-modp2048"],
            "local": {"auth": "psk", "id": self.host.name},
            "remote": {"auth": "psk", "id": self.host.peer},
            "children": {NAMES["child"]: child},
            **connection,
        }})

    def initiate(self, kind="child"):
        """The CHILD_SA, with an IKE_SA if there is none; kind "ike": the IKE_SA"""
        self.vici.ask("initiate", {kind: NAMES[kind], "timeout": f"{SECONDS}000"})

    def rekey(self, kind="child", reauth="no"):
        """Begins with it."""
        self.vici.ask("rekey", {kind: NAMES[kind], "reauth": reauth})

    def terminate(self):
        self.vici.ask("terminate", {"ike": NAMES["ike"], "timeout": f"{SECONDS}000"})

    def established(self):
        """{SPIs of an IKE_SA: {those of its CHILD_SAs}}, as the daemon has them, whatever
        state they are in."""
        return {(sa["initiator-spi"], sa["responder-spi"]):
                {int(child[way], 16) for child in sa["child-sas"].values()
                 for way in ("spi-in", "spi-out") if way in child}
                for event in self.vici.list("list-sas", "list-sa")
                for sa in event.values()}

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self):
        log = self.dir / "log"
        return log.read_text() if log.exists() else "no log"

    def _states(self):
        """What ip(8) says of each SA"""
        return re.split(r"(?m)^src ", sh(f"ip -n {self.host.ns} xfrm state"))[1:]

    def sas(self):
        """{SPI: what was negotiated} of the SAs, as the kernel has them, see SUITES"""
        found = {}
        for sa in self._states():
            spi = int(re.search(r"spi (0x\w+)", sa)[1], 16)
            found[spi] = [(name, len(key) // 2, icv) for name, key, icv in re.findall(
                r"(?:aead|enc|auth-trunc) (\S+) ?(?:0x(\S+))? ?(\d*)", sa)]
            if re.search(r"flag .*\besn\b", sa):
                found[spi].append("esn")
        return found

    def paths(self):
        """{(source, destination)} of the SAs' packets: addresses, or those in UDP, as
        ADDRESS:PORT"""
        found = set()
        for sa in self._states():
            ends = re.match(r"(\S+) dst (\S+)", sa).groups()
            udp = re.search(r"encap type espinudp sport (\d+) dport (\d+)", sa)
            found.add(tuple(map(":".join, zip(ends, udp.groups()))) if udp else ends)
        return found


@contextlib.contextmanager
def running(*hosts, **settings):
    """strongSwan on each of these hosts: a list of Ike"""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ikes = []
        for h in hosts:
            ikes.append(Ike(h, folder, settings))
            stack.callback(ikes[-1].stop)
        yield ikes


@contextlib.contextmanager
def explained(ikes):
    """Adds the ends of their logs to what the block raises."""
    try:
        yield
    except Exception as e:
        logs = "\n".join(i.log()[-3000:] for i in ikes)
        raise AssertionError(f"{e}\n{logs}") from e


def negotiated(ikes, minimal, algorithms):
    """Checks that the hosts have the same two SAs, with these algorithms. minimal: the
    hosts on which they are minimal; on the others they are stock."""
    def agreed():
        sas = [i.sas() for i in ikes]
        return sas[0] == sas[1] and len(sas[0]) == 2 and sas[0]

    sas = wait_for("both hosts have the same two SAs", agreed)
    for spi, found in sas.items():
        equal(found, algorithms, f"what was negotiated for {spi:#x}")
    for i in ikes:
        wanted = set(sas) if i.host in minimal else set()
        wait_for(f"minimal SAs of {i.host.name}: {wanted}",
                 lambda: i.host.listed().keys() == wanted)
    return set(sas)


def rekey(ikes, n, sender):
    """The n-th host rekeys the CHILD_SA under traffic.Numbered: there is a new pair of SAs,
    some packets, and the old one is gone."""
    def children():
        return [set().union(*i.established().values()) for i in ikes]

    old, = {frozenset(c) for c in children()}
    ikes[n].rekey()
    wait_for("new SAs", lambda: all(c - old for c in children()))
    sender.goes_on()
    wait_for("old SAs gone", lambda: not any(c & old for c in children()))
