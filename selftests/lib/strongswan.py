# SPDX-License-Identifier: GPL-2.0
"""strongSwan, an IKE daemon: how to start and to configure it, and which SAs it has."""
import contextlib
import functools
import os

from . import ike
from .vici import Vici

DAEMON = "charon-systemd"
NEEDS = ["ip", DAEMON]

# Names of the IKE_SA and of the CHILD_SA in the configuration
NAMES = {"ike": "minesp", "child": "child"}

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

# {proposal for ESP: the kernel's SA}: names of the algorithms, lengths of the keys in
# bytes and of the ICV in bits, "esn" with ESN
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
# A suite that minimal ESP lacks
UNSUITABLE = {"aes128-sha1": [("hmac(sha1)", 20, "96"), CBC]}


class Ike(ike.Daemon):
    """settings: more settings, as in strongswan.conf"""

    def __init__(self, folder, host, settings={}):
        super().__init__(folder, host)
        self.socket = self.dir / "vici"
        conf = self.dir / "strongswan.conf"
        conf.write_text(STRONGSWAN.format(
            dir=self.dir, vici=self.socket,
            settings="\n".join(f"{name} = {value}" for name, value in settings.items())))
        self.start(DAEMON, env={**os.environ, "STRONGSWAN_CONF": str(conf)})

    @functools.cached_property
    def vici(self):
        """The connection to the daemon. Waits until the daemon listens."""
        def connection():
            with contextlib.suppress(OSError):
                return Vici(self.socket)

        found = ike.wait_for("strongSwan listens", connection)
        found.ask("load-shared", {"id": "ike", "type": "IKE", "data": ike.SECRET})
        return found

    def configure(self, connection, child):
        """Replaces the configuration. connection, child: as in swanctl.conf"""
        self.vici.ask("load-conn", {NAMES["ike"]: {
            "version": "2",
            "proposals": ["aes128-sha256-modp2048"],
            "local": {"auth": "psk", "id": self.host.name},
            "remote": {"auth": "psk", "id": self.host.peer},
            "children": {NAMES["child"]: child},
            **connection,
        }})

    def initiate(self, kind="child"):
        """Initiates the CHILD_SA, with an IKE_SA if there is none. kind "ike": only the IKE_SA"""
        self.vici.ask("initiate", {kind: NAMES[kind], "timeout": f"{ike.SECONDS}000"})

    def rekey(self, kind="child", reauth="no"):
        """Starts a rekey, and does not wait for its end."""
        self.vici.ask("rekey", {kind: NAMES[kind], "reauth": reauth})

    def terminate(self):
        self.vici.ask("terminate", {"ike": NAMES["ike"], "timeout": f"{ike.SECONDS}000"})

    def established(self):
        """Returns {SPIs of an IKE_SA: {SPIs of its CHILD_SAs}} of the daemon's SAs in all
        states."""
        return {(sa["initiator-spi"], sa["responder-spi"]):
                {int(child[way], 16) for child in sa["child-sas"].values()
                 for way in ("spi-in", "spi-out") if way in child}
                for event in self.vici.list("list-sas", "list-sa")
                for sa in event.values()}

    def children(self):
        return set().union(*self.established().values())
