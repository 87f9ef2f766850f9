# SPDX-License-Identifier: GPL-2.0
"""Kernel modules: minesp itself, esp4 and esp6, and their offloads.

MINESP_KO names the file of minesp; without it modprobe looks for minesp.
"""
import contextlib
import functools
import os
import pathlib
import socket

from . import libc
from .command import sh
from .wait import wait_for

OFFLOADS = ("esp4_offload", "esp6_offload")


def loaded(module):
    return os.path.isdir(f"/sys/module/{module}")


def refcount(module):
    """How many references there are on a module."""
    with open(f"/sys/module/{module}/refcnt") as f:
        return int(f.read())


@functools.cache
def depends(ko):
    """The modules that a module's file depends on."""
    return list(filter(None, sh(f"modinfo -F depends {ko}").strip().split(",")))


def load(parameters=""):
    """Loads minesp."""
    ko = os.environ.get("MINESP_KO")
    if not ko:
        sh(f"modprobe minesp {parameters}")
        return
    # insmod does not load what the module depends on.
    missing = [m for m in depends(ko) if not loaded(m)]
    if missing:
        sh(f"modprobe -a {' '.join(missing)}")
    sh(f"insmod {ko} {parameters}")


def image():
    """The file of minesp, as insert() takes it."""
    ko = os.environ.get("MINESP_KO") or sh("modinfo -F filename minesp").strip()
    return pathlib.Path(ko).read_bytes()


def insert(image):
    """Loads a module from an image; raises OSError with the errno of init_module()."""
    libc.call("init_module", image, len(image), b"")


def _receive():
    """Makes every CPU receive a packet. On Linux 7.3 packets that have been freed, and the
    SAs that they hold, may wait for that."""
    cpus = os.sched_getaffinity(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            sock.sendto(b"", ("127.0.0.1", 9))
    os.sched_setaffinity(0, cpus)


def _wait_for(what, condition):
    """Waits until SAs are gone that no namespace has any more."""
    if not condition():
        sh("ip link set lo up")
        wait_for(what, lambda: _receive() or condition())


def unload():
    """Unloads minesp. Waits, since the SAs of a namespace die a little after it does."""
    def gone():
        sh("rmmod minesp", check=False)
        return not loaded("minesp")

    if loaded("minesp"):
        _wait_for("rmmod minesp", gone)


def released():
    """Waits until no minimal SA is left, nor a packet that has one."""
    _wait_for("all SAs are gone", lambda: refcount("minesp") == 0)


@contextlib.contextmanager
def restored():
    """Afterwards minesp is loaded and esp4 and esp6 can be, whatever the block did."""
    try:
        yield
    finally:
        sh(f"rmmod {' '.join(OFFLOADS)}", check=False)
        sh("modprobe -a esp4 esp6", check=False)
        if not loaded("minesp"):
            load()
