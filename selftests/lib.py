# SPDX-License-Identifier: GPL-2.0
"""What the tests of minesp share: the module, hosts with a wire between them,
SAs and policies for every mode and family, counters, verdicts.

A host is a network namespace. Two of them, a and b, have an address for the
outer header on their end of the wire, and one for the inner header on lo.
"""
import contextlib
import ctypes
import functools
import importlib.util
import itertools
import multiprocessing
import os
import pathlib
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "kselftest"))
import ksft  # noqa: E402

# include/uapi/linux/minesp.h
XFLAG_MINIMAL = "extra-flag 0x01000000"
XFLAG_STOCK = "extra-flag 0x02000000"
XFLAG_CLOCK = "extra-flag 0x04000000"
XFLAG_COUNTER = "extra-flag 0x08000000"
XFLAG_FRESH = "extra-flag 0x10000000"
XFLAG_ANY_AGE = "extra-flag 0x20000000"
XFLAG_IMPLICIT_IV = "extra-flag 0xc0000000"     # with a new key
XFLAG_IMPLICIT_IV_CLOCK = "extra-flag 0x44000000"

# AES-GCM as ip xfrm takes it: the key and four bytes of salt, by key bits
SALT = "a0a1a2a3"
KEYS = {bits: "0x" + bytes(range(bits // 8)).hex() + SALT
        for bits in (128, 192, 256)}
AEAD = "aead rfc4106(gcm(aes))"
SUITE = f"{AEAD} {KEYS[128]} 128"
# AES-CBC, whose blocks have 16 bytes
CBC = (f"enc cbc(aes) 0x{bytes(range(16)).hex()} "
       f"auth-trunc hmac(sha256) 0x{bytes(range(32)).hex()} 128")

ADDRESSES = {
    ("outer", 4): {"a": "192.0.2.1", "b": "192.0.2.2"},
    ("outer", 6): {"a": "2001:db8::1", "b": "2001:db8::2"},
    ("inner", 4): {"a": "198.51.100.1", "b": "198.51.100.2"},
    ("inner", 6): {"a": "2001:db8:1::1", "b": "2001:db8:1::2"},
}
SPI = {"a": 0x100a, "b": 0x100b}    # of the SA by which a, and b, receives

# mode, family of the inner header, family of the outer one
MODES = [("transport", 4, 4), ("transport", 6, 6), ("tunnel", 4, 4),
         ("tunnel", 6, 6), ("tunnel", 4, 6), ("tunnel", 6, 4)]

# Counters of minesp that say which way packets went, not that any was dropped
NO_ERRORS = {"InPackets", "OutPackets", "InDummies", "InDirect", "InLookup"}

# Seconds that anything may take which is not a test by itself. A kernel that checks
# itself is several times slower.
TIMEOUT = 100 if (os.path.exists("/proc/lockdep") or
                  os.uname().release.endswith("-races")) else 20

# From when on no test begins, in seconds since 1970
END = float(os.environ.get("MINESP_END", "inf"))


class Skip(Exception):
    """The test cannot be run here."""


_libc = ctypes.CDLL(None, use_errno=True)


def libc(function, *args):
    """One that returns 0, or leaves an errno."""
    if getattr(_libc, function)(*args):
        raise OSError(ctypes.get_errno(), function)


def sh(command, check=True, stdin=None):
    """Runs a shell command; returns what it printed."""
    # Starting a program takes long in an emulated machine: no shell for words
    # that need none.
    shell = bool(set(command) & set("|&;<>$"))
    done = subprocess.run(command if shell else shlex.split(command),
                          shell=shell, text=True, input=stdin, close_fds=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check and done.returncode:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def wait_for(what, condition, seconds=TIMEOUT):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds} seconds: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def breath():
    """Afterwards sleeps three times as long as this took: what goes on all the time
    leaves the CPUs some for the rest, however slow they are."""
    began = time.monotonic()
    yield
    time.sleep(max(0.001, 3 * (time.monotonic() - began)))


def debugfs(name):
    """A path in debugfs."""
    top = pathlib.Path("/sys/kernel/debug")
    if not os.path.ismount(top):
        sh(f"mount -t debugfs debugfs {top}", check=False)
    if not (top / name).exists():
        raise Skip(f"a kernel without debugfs's {name}")
    return top / name


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, not {wanted!r}")


def process(function, *args):
    """Starts a process, which ends no later than this one."""
    said = tempfile.TemporaryFile("w+")

    def body():
        try:
            function(*args)
        except Exception:
            said.write(traceback.format_exc())
            said.flush()
            sys.exit(1)

    p = multiprocessing.get_context("fork").Process(target=body, daemon=True)
    p.said = said
    p.start()
    return p


def ended(processes):
    """Waits until they have ended, and well."""
    why = []
    for p in processes:
        p.join()
        p.said.seek(0)
        if p.exitcode:
            why.append(f"exit code {p.exitcode}: {p.said.read()}")
        p.said.close()
    assert not why, "\n".join(why)


# The module. MINESP_KO names its file; without it modprobe looks for minesp.

def loaded(module):
    return os.path.isdir(f"/sys/module/{module}")


@functools.cache
def needs(ko):
    """The modules that it depends on."""
    return list(filter(None, sh(f"modinfo -F depends {ko}").strip().split(",")))


def load(parameters=""):
    ko = os.environ.get("MINESP_KO")
    if not ko:
        sh(f"modprobe minesp {parameters}")
        return
    # insmod does not see to that.
    missing = [m for m in needs(ko) if not loaded(m)]
    if missing:
        sh(f"modprobe -a {' '.join(missing)}")
    sh(f"insmod {ko} {parameters}")


def image():
    """The module's file, as init_module() wants it."""
    ko = os.environ.get("MINESP_KO") or sh("modinfo -F filename minesp").strip()
    return pathlib.Path(ko).read_bytes()


def unload():
    """Waits, since the SAs of a namespace die a little after it does."""
    if loaded("minesp"):
        def gone():
            sh("rmmod minesp", check=False)
            return not loaded("minesp")

        wait_for("rmmod minesp", gone)


def released():
    """Waits until no minimal SA is left, nor a packet that has one."""
    refcnt = pathlib.Path("/sys/module/minesp/refcnt")
    wait_for("all SAs are gone", lambda: refcnt.read_text() == "0\n")


# Network namespaces

SO_RCVBUFFORCE = 33     # linux/socket.h; Python does not have it
CLONE_NEWNET = 0x40000000


class Host:
    """A network namespace; namespaces() makes them. name: "a" or "b"."""
    numbers = itertools.count()

    def __init__(self, name):
        self.name = name
        self.peer = "b" if name == "a" else "a"
        self.ns = f"minesp-{name}-{os.getpid()}-{next(self.numbers)}"
        self.mac = f"02:00:00:00:00:0{name}"

    def delete(self):
        sh(f"ip netns del {self.ns}", check=False)

    @contextlib.contextmanager
    def inside(self):
        """This thread, in the namespace."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.ns}", os.O_RDONLY)
        libc("setns", there, CLONE_NEWNET)
        try:
            yield
        finally:
            libc("setns", here, CLONE_NEWNET)
            os.close(here)
            os.close(there)

    def ip(self, lines, check=True):
        """Runs lines of ip(8), one call for all."""
        return sh(f"ip -n {self.ns} -batch -", check, lines)

    def sh(self, command, check=True):
        return sh(f"ip netns exec {self.ns} {command}", check)

    def settings(self, **values):
        """Those of net.minesp."""
        for name, value in values.items():
            self.sysctl(f"net.minesp.{name}", value)

    def socket(self, family, kind, proto=0, timeout=TIMEOUT):
        with self.inside():
            sock = socket.socket(family, kind, proto)
        sock.settimeout(timeout)
        return sock

    def wire(self, device="veth0", room=0):
        """A socket that gets all frames of a device, and sends them. room: bytes
        that it keeps until they are read, if more than usual."""
        sock = self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        if room:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room)
        sock.bind((device, 0))
        return sock

    def sysctl(self, name, value=None):
        with self.inside():
            path = pathlib.Path("/proc/sys", name.replace(".", "/"))
            if value is None:
                return path.read_text().strip()
            path.write_text(f"{value}\n")

    def _counters(self, name):
        with self.inside():
            text = pathlib.Path("/proc/thread-self/net", name).read_text()
        return {k: int(v) for k, v in map(str.split, text.splitlines())}

    def stats(self):
        """The counters of minesp."""
        return self._counters("minesp_stat")

    def errors(self):
        """All error counters of xfrm and minesp that are not 0."""
        both = self._counters("xfrm_stat") | self.stats()
        return {k: v for k, v in both.items()
                if v and k not in NO_ERRORS}

    def listed(self):
        """Its minimal SAs, /proc/net/minesp as {SPI: {heading: field}}."""
        with self.inside(), open("/proc/thread-self/net/minesp") as f:
            heading, *lines = map(str.split, f)
        return {int(line[0], 16): dict(zip(heading, line)) for line in lines}

    def address(self, family, kind="outer"):
        return ADDRESSES[kind, family][self.name]

    def carried(self, spi):
        """Packets that an SA has carried, as ip -s xfrm state says."""
        said = sh(f"ip -n {self.ns} -s xfrm state list spi {spi:#x}")
        current = said.split("lifetime current:")[1]
        return int(current.split("(bytes),")[1].split("(packets)")[0])

    def sas(self, mode, inner, outer, words="", suite=SUITE, window=1024):
        """Its SAs and policies with its peer, the only ones from now on.
        words are added to each SA."""
        kind = "inner" if mode == "tunnel" else "outer"
        me, peer = (f"{ADDRESSES[kind, inner][h]}/{32 if inner == 4 else 128}"
                    for h in (self.name, self.peer))
        o_me, o_peer = (ADDRESSES["outer", outer][h]
                        for h in (self.name, self.peer))
        sa = (f"reqid 1 mode {mode} replay-window {window} "
              f"{suite} {words}")
        esp = f"proto esp reqid 1 mode {mode}"
        self.ip(f"""
            xfrm policy flush
            xfrm state flush
            xfrm state add src {o_me} dst {o_peer} proto esp spi {SPI[self.peer]:#x} {sa} sel src {me} dst {peer}
            xfrm state add src {o_peer} dst {o_me} proto esp spi {SPI[self.name]:#x} {sa} sel src {peer} dst {me}
            xfrm policy add src {me} dst {peer} dir out tmpl src {o_me} dst {o_peer} {esp}
            xfrm policy add src {peer} dst {me} dir in tmpl src {o_peer} dst {o_me} {esp}
        """)


# Whether hosts that are made receive by way of GRO, where esp4_offload and
# esp6_offload wait for ESP. Needs ethtool.
GRO = False


@contextlib.contextmanager
def namespaces(names, link=lambda *hosts: ""):
    """Hosts with these names. link: makes one more line for ip(8) of them."""
    made = [Host(name) for name in names]
    try:
        # One call, since starting a program takes long in an emulated machine.
        sh("ip -batch -", stdin="\n".join([*(f"netns add {h.ns}" for h in made),
                                           link(*made)]))
        yield made
    finally:
        sh("ip -force -batch -", False, "\n".join(f"netns del {h.ns}" for h in made))


@contextlib.contextmanager
def hosts(mtu=1500):
    """Two hosts with a wire between them. Nothing is on it but what the tests
    send."""
    def wire(a, b):
        return (f"link add veth0 address {a.mac} mtu {mtu} netns {a.ns} type veth "
                f"peer name veth0 address {b.mac} mtu {mtu} netns {b.ns}")

    with namespaces("ab", wire) as (a, b):
        for h, peer in ((a, b), (b, a)):
            for name, value in (("accept_ra", 0), ("router_solicitations", 0),
                                ("accept_dad", 0), ("addr_gen_mode", 1)):
                h.sysctl(f"net.ipv6.conf.veth0.{name}", value)
            # fe80:: is not made by itself, so neighbours are told.
            h.ip(f"""
                link set lo up
                addr add {h.address(4)}/24 dev veth0
                addr add {h.address(6)}/64 dev veth0 nodad
                addr add {h.address(4, 'inner')}/32 dev lo
                addr add {h.address(6, 'inner')}/128 dev lo nodad
                link set veth0 up
                neigh replace {peer.address(4)} lladdr {peer.mac} dev veth0
                neigh replace {peer.address(6)} lladdr {peer.mac} dev veth0
                neigh replace {peer.address(4, 'inner')} lladdr {peer.mac} dev veth0
                route add {peer.address(4, 'inner')} dev veth0 src {h.address(4, 'inner')}
                route add {peer.address(6, 'inner')} via {peer.address(6)} dev veth0 src {h.address(6, 'inner')}
            """)
            if GRO:
                # With TSO, veth takes no packets to GRO.
                h.sh("ethtool -K veth0 gro on tso off")
        yield a, b


def families(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def readable(sock, seconds):
    return bool(select.select([sock], [], [], seconds)[0])


# Verdicts

_kept = contextlib.ExitStack()


def keep(context):
    """Enters a context, which is left when all cases have been run."""
    return _kept.enter_context(context)


def run(cases, needs=(), imports=(), always=False):
    """Runs (name, function) after (name, function); exits as kselftest wants.
    A case fails by raising, and is skipped by raising Skip; all are if what yields
    them does so. With words on the command line only cases with all of them in
    their names are run. needs, imports: programs and Python modules without which
    all are skipped. always: also after END."""
    ksft.print_header()
    missing = [c for c in needs if not shutil.which(c)]
    missing += [m for m in imports if not importlib.util.find_spec(m)]
    try:
        if os.geteuid() or missing:
            raise Skip(f"needs {' '.join(missing) or 'root'}")
        if not loaded("minesp"):
            load()
        cases = [c for c in cases if all(word in c[0] for word in sys.argv[1:])]
    except Skip as e:
        print(f"1..0 # SKIP {e}")
        sys.exit(ksft.KSFT_SKIP)
    ksft.set_plan(len(cases))
    if not cases:
        ksft.exit_fail()
    with _kept:
        for name, function in cases:
            try:
                if time.time() > END and not always:
                    raise Skip("there is no time left")
                function()
                ksft.test_result_pass(name)
            except Skip as e:
                ksft.test_result_skip(f"{name} ({e})")
            except Exception:
                ksft.test_result_fail(name)
                for line in traceback.format_exc().splitlines():
                    ksft.print_msg(line[:2000])
            sys.stdout.flush()
    ksft.finished()
