# SPDX-License-Identifier: GPL-2.0
"""Kernel modules: minesp itself, esp4 and esp6, and their offloads.

MINESP_KO is the path of minesp.ko. Without MINESP_KO, modprobe loads minesp. Modules for
tests only are in selftests/ of the build directory, or without MINESP_KO beside the tests.
"""
import contextlib
import functools
import os
import pathlib
import socket

from . import libc
from .command import sh
from .verdict import Skip
from .wait import TIMEOUT, wait_for

OFFLOADS = ("esp4_offload", "esp6_offload")


def loaded(module):
    return os.path.isdir(f"/sys/module/{module}")


def refcount(module):
    """Returns the reference count of a module."""
    with open(f"/sys/module/{module}/refcnt") as f:
        return int(f.read())


@functools.cache
def depends(ko):
    """Returns the modules that a module's file depends on."""
    return list(filter(None, sh(f"modinfo -F depends {ko}").strip().split(",")))


def _load(name, ko, parameters):
    """Loads a module from its file, or with modprobe if there is none."""
    if not ko:
        sh(f"modprobe {name} {parameters}")
        return
    # insmod does not load what the module depends on.
    missing = [m for m in depends(ko) if not loaded(m)]
    if missing:
        sh(f"modprobe -a {' '.join(missing)}")
    sh(f"insmod {ko} {parameters}")


def load(parameters=""):
    """Loads minesp."""
    _load("minesp", os.environ.get("MINESP_KO"), parameters)


def load_helper(name, parameters=""):
    """Loads selftests/NAME/NAME.ko, a module for tests. Raises Skip if there is none."""
    tests = pathlib.Path(__file__).resolve().parents[1]
    if "MINESP_KO" in os.environ:
        tests = pathlib.Path(os.environ["MINESP_KO"]).resolve().parents[1] / "selftests"
    ko = tests / name / f"{name}.ko"
    if not ko.exists() and sh(f"modprobe -n {name}", check=False):
        raise Skip(f"no module {name}")
    _load(name, ko.exists() and ko, parameters)


def image():
    """Returns the content of minesp's file, for insert()."""
    ko = os.environ.get("MINESP_KO") or sh("modinfo -F filename minesp").strip()
    return pathlib.Path(ko).read_bytes()


def insert(image):
    """Loads a module from an image. Raises OSError with the errno of init_module()."""
    libc.call("init_module", image, len(image), b"")


def _receive():
    """Makes every CPU receive a packet. In 7.3, skb_consume_udp() puts a datagram that
    has been read in a list of the CPU that allocated it. The CPU frees the datagram, and
    so releases its SA, when it receives again."""
    cpus = os.sched_getaffinity(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            sock.sendto(b"", ("127.0.0.1", 9))
    os.sched_setaffinity(0, cpus)


def wait_gone(what, condition, seconds=TIMEOUT):
    """Waits until the kernel has freed deleted SAs and condition() is true."""
    if not condition():
        sh("ip link set lo up")
        wait_for(what, lambda: _receive() or condition(), seconds)


def unload(name="minesp"):
    """Unloads minesp or another module. Waits, because the kernel frees the SAs of a
    namespace, and their ciphers, a little later than the namespace."""
    def gone():
        sh(f"rmmod {name}", check=False)
        return not loaded(name)

    if loaded(name):
        wait_gone(f"rmmod {name}", gone)


def released():
    """Waits until there is no minimal SA, and no packet that holds one."""
    wait_gone("all SAs are gone", lambda: refcount("minesp") == 0)


def load_offloads(check=True):
    sh(f"modprobe -a {' '.join(OFFLOADS)}", check)


def unload_offloads():
    """Unloads the offloads. Once net.minesp.offload has been 1, minesp holds them until it is
    unloaded."""
    for module in OFFLOADS:
        unload(module)


def restore():
    """Unloads the offloads, which hold esp4 and esp6, and loads esp4, esp6 and minesp if
    missing."""
    if any(map(loaded, OFFLOADS)):
        unload()
        unload_offloads()
    sh("modprobe -a esp4 esp6", check=False)
    if not loaded("minesp"):
        load()


@contextlib.contextmanager
def restored():
    """Calls restore() after the block."""
    try:
        yield
    finally:
        restore()
