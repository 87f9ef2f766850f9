# SPDX-License-Identifier: GPL-2.0
"""libreswan, an IKE daemon: how to start and to configure it."""
import functools

from . import ike
from .command import sh

PROGRAMS = "/usr/libexec/ipsec"
NEEDS = ["certutil", "ip", f"{PROGRAMS}/pluto"]


class Ike(ike.Daemon):
    def __init__(self, folder, host):
        super().__init__(folder, host)
        self.conf = self.dir / "conf"
        self.conf.touch()
        (self.dir / "secrets").write_text(f': PSK "{ike.SECRET}"\n')
        sh(f"certutil -N -d sql:{self.dir} --empty-password")
        self.start(f"{PROGRAMS}/pluto", "--nofork", "--logfile", f"{self.dir}/log",
                   "--rundir", f"{self.dir}", "--config", f"{self.conf}",
                   "--secretsfile", f"{self.dir}/secrets", "--ipsecdir", f"{self.dir}",
                   "--nssdir", f"{self.dir}")

    @functools.cached_property
    def _control(self):
        """The control socket. Waits for it, and makes the daemon listen for IKE."""
        path = self.dir / "pluto.ctl"
        ike.wait_for("libreswan is there", path.exists)
        _run("whack", path, "--listen")
        return path

    def configure(self, **words):
        """Replaces the configuration. words: as in ipsec.conf"""
        self.conf.write_text("\n\t".join((
            "conn minesp", "authby=secret", "leftupdown=%disabled",
            f"leftid=@{self.host.name}", f"rightid=@{self.host.peer}",
            *map("=".join, words.items()))) + "\n")
        said = _run("addconn", self._control, f"--config {self.conf} minesp")
        # addconn never exits with an error. libreswan 4 prints nothing on success.
        assert not said or "added" in said, said

    def initiate(self):
        _run("whack", self._control, "--name minesp --initiate")

    def rekey(self):
        """Starts a rekey, and does not wait for its end."""
        _run("whack", self._control, f"--name minesp --asynchronous {_rekey()}")

    def terminate(self):
        _run("whack", self._control, "--name minesp --terminate")


def _run(program, control, words):
    return sh(f"{PROGRAMS}/{program} --ctlsocket {control} {words}")


@functools.cache
def _rekey():
    """Returns the option of whack, which has another name before libreswan 5."""
    child = "--rekey-child"
    return child if child in sh(f"{PROGRAMS}/whack --help") else "--rekey-ipsec"
