# SPDX-License-Identifier: GPL-2.0
"""An IKE daemon of any kind on a host: its process, its log, and the SAs that it adds to
the kernel."""
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

# Two daemons must agree, and each is slow on a slow machine.
SECONDS = 3 * TIMEOUT
wait_for = functools.partial(wait.wait_for, seconds=SECONDS)

SECRET = "not a secret, but long enough for SHA-512"


class Daemon:
    """Base class. A derived class starts the process and talks to it."""

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
        """Returns what ip(8) prints for each SA."""
        return re.split(r"(?m)^src ", sh(f"ip -n {self.host.ns} xfrm state"))[1:]

    def sas(self):
        """Returns {SPI: algorithms} of the kernel's SAs, in the form of
        strongswan.SUITES."""
        found = {}
        for sa in self._states():
            spi = int(re.search(r"spi (0x\w+)", sa)[1], 16)
            found[spi] = [(name, len(key) // 2, icv) for name, key, icv in re.findall(
                r"(?:aead|enc|auth-trunc) (\S+) ?(?:0x(\S+))? ?(\d*)", sa)]
            if re.search(r"flag .*\besn\b", sa):
                found[spi].append("esn")
        return found

    def paths(self):
        """Returns {(source, destination)} of the SAs' packets: addresses, or with ESP in
        UDP ADDRESS:PORT."""
        found = set()
        for sa in self._states():
            ends = re.match(r"(\S+) dst (\S+)", sa).groups()
            udp = re.search(r"encap type espinudp sport (\d+) dport (\d+)", sa)
            found.add(tuple(map(":".join, zip(ends, udp.groups()))) if udp else ends)
        return found

    def children(self):
        """Returns the SPIs of the CHILD_SAs."""
        return set(self.sas())


@contextlib.contextmanager
def running(*daemons):
    """Runs daemons, and yields them in a list. daemons: (class, host, more arguments) each"""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ikes = []
        for kind, *args in daemons:
            ikes.append(kind(folder, *args))
            stack.callback(ikes[-1].stop)
        yield ikes


@contextlib.contextmanager
def explained(ikes):
    """Adds the ends of the daemons' logs to an exception that the block raises."""
    try:
        yield
    except Exception as e:
        logs = "\n".join(i.log()[-3000:] for i in ikes)
        raise AssertionError(f"{e}\n{logs}") from e


def negotiated(ikes, minimal, algorithms):
    """Checks that the hosts have the same two SAs, with these algorithms; returns their
    SPIs. minimal: the hosts where the SAs are minimal; they are stock on the others"""
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
    """Waits until the SAs of both hosts are between a and b. b: address of b. of_a, seen:
    address of a in the SAs of a, and of b. Each is ADDRESS:PORT with ESP in UDP"""
    for i, end in zip(ikes, (of_a, seen)):
        wait_for(f"SAs of {i.host.name} between {end} and {b}",
                 lambda: i.paths() == {(end, b), (b, end)})


def through(nat, ikes):
    """Waits until the SAs use UDP, between b and the public address and port of a."""
    between(ikes, *(f"{h.address(nat.family)}:4500" for h in (nat.b, nat.a)),
            ":".join(map(str, nat.public)))


def rekey(ikes, n, sender):
    """Makes the n-th host rekey the CHILD_SA during traffic. Waits for a new pair of SAs,
    for some packets, and until the old pair is gone. sender: a traffic.Numbered"""
    def children():
        return [i.children() for i in ikes]

    old, = {frozenset(c) for c in children()}
    ikes[n].rekey()
    wait_for("new SAs", lambda: all(c - old for c in children()))
    sender.goes_on()
    wait_for("old SAs gone", lambda: not any(c & old for c in children()))
