# SPDX-License-Identifier: GPL-2.0
"""An IKE daemon, whichever, on a host: its process, its log, and which SAs it gives to the
kernel."""
import contextlib
import functools
import pathlib
import re
import subprocess
import tempfile

from . import wait
from .command import sh
from .verdict import equal
from .wait import TIMEOUT

# Two daemons have to agree, and on a slow machine each takes its time.
SECONDS = 3 * TIMEOUT
wait_for = functools.partial(wait.wait_for, seconds=SECONDS)

SECRET = "not a secret, but long enough for SHA-512"


class Daemon:
    """Those that derive from it start the process, and know how to talk to it."""

    def __init__(self, folder, host):
        self.host = host
        self.dir = pathlib.Path(folder, host.name)
        self.dir.mkdir()

    def start(self, *words, **how):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.host.ns, *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)

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
        """{SPI: what was negotiated} of the SAs, as the kernel has them, see
        strongswan.SUITES"""
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

    def children(self):
        """The SPIs of its CHILD_SAs"""
        return set(self.sas())


@contextlib.contextmanager
def running(*daemons):
    """Daemons, in a list: of each the class, the host, and more arguments."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ikes = []
        for kind, *args in daemons:
            ikes.append(kind(folder, *args))
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


def between(ikes, b, of_a, seen):
    """Waits until the SAs' packets go between b and these: an address of a's, and what b
    takes for it. All with a port if they go in UDP"""
    for i, end in zip(ikes, (of_a, seen)):
        wait_for(f"SAs of {i.host.name} between {end} and {b}",
                 lambda: i.paths() == {(end, b), (b, end)})


def through(nat, ikes):
    """Waits until they go in UDP, between b and where the NAT has put a."""
    between(ikes, *(f"{h.address(nat.family)}:4500" for h in (nat.b, nat.a)),
            ":".join(map(str, nat.public)))


def rekey(ikes, n, sender):
    """The n-th host rekeys the CHILD_SA under traffic.Numbered: there is a new pair of SAs,
    some packets, and the old one is gone."""
    def children():
        return [i.children() for i in ikes]

    old, = {frozenset(c) for c in children()}
    ikes[n].rekey()
    wait_for("new SAs", lambda: all(c - old for c in children()))
    sender.goes_on()
    wait_for("old SAs gone", lambda: not any(c & old for c in children()))
