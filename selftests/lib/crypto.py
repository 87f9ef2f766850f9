# SPDX-License-Identifier: GPL-2.0
"""Asynchronous ciphers. The crypto API prefers such a cipher for SAs that are added in
this block:

    with crypto.async_aead() as cipher:
        ...
"""
import contextlib
import errno
import os
import pathlib
import re
import socket
import struct

from . import kmod
from .command import sh
from .verdict import Skip
from .wait import wait_for

GCM = "rfc4106(gcm(aes))"

NETLINK_CRYPTO = 21
CRYPTO_MSG_NEWALG, CRYPTO_MSG_DELALG = 0x10, 0x11
CRYPTOCFGA_PRIORITY_VAL = 1
CRYPTO_ALG_TYPE_AEAD, CRYPTO_ALG_TYPE_MASK = 3, 0xf


class AsyncAead:
    """The loaded module async_aead; modinfo describes its parameters."""
    parameters = pathlib.Path("/sys/module/async_aead/parameters")

    def users(self):
        """Returns how many SAs use the cipher."""
        return kmod.refcount("async_aead")

    def get(self, name):
        return int((self.parameters / name).read_text())

    def set(self, **values):
        for name, value in values.items():
            (self.parameters / name).write_text(f"{value}\n")

    def completed(self):
        """Returns how many requests of each kind have completed by a callback."""
        return {kind: self.get(kind) for kind in ("encrypted", "decrypted")}

    def holds(self, n):
        """Waits until n requests are waiting."""
        wait_for(f"{n} requests wait", lambda: self.get("waiting") == n)


@contextlib.contextmanager
def async_aead(name=GCM, **values):
    """Loads async_aead for the block. values: its parameters"""
    kmod.unload("async_aead")   # a failed case may have left it
    kmod.load_helper("async_aead", f"alg={name}")
    cipher = AsyncAead()
    # Newer kernels test the cipher after the module has been loaded.
    wait_for(f"the kernel has tested async-{name}", lambda: _drivers(name).get(
        f"async-{name}", {}).get("selftest") == "passed")
    try:
        cipher.set(**values)
        yield cipher
    finally:
        cipher.set(hold=0)
        kmod.unload("async_aead")


def _drivers(name):
    """Returns {driver: its fields in /proc/crypto} of an algorithm."""
    found = {}
    for entry in pathlib.Path("/proc/crypto").read_text().split("\n\n"):
        fields = dict(re.findall(r"^(\S+)\s*: (.*)$", entry, re.MULTILINE))
        if fields.get("name") == name:
            found[fields["driver"]] = fields
    return found


def _ask(message, driver, priority=None):
    """Returns the errno of the answer."""
    body = struct.pack("=64s64s64sIIII", b"", driver.encode(), b"",
                       CRYPTO_ALG_TYPE_AEAD, CRYPTO_ALG_TYPE_MASK, 0, 0)
    if priority is not None:
        body += struct.pack("=HHI", 8, CRYPTOCFGA_PRIORITY_VAL, priority)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                       NETLINK_CRYPTO) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), message, 0x5, 1, 0) +
                  body)
        return -struct.unpack_from("=i", sock.recv(1 << 16), 16)[0]


class Pcrypt:
    """An instance of pcrypt, the kernel's template that spreads work over CPUs."""

    def __init__(self, name, driver):
        self.name, self.driver = name, driver
        self.unused = 0
        self.unused = self.users()

    def users(self):
        """Returns how many SAs use the cipher."""
        return int(_drivers(self.name)[self.driver]["refcnt"]) - self.unused

    def completed(self):
        """pcrypt does not count requests."""
        return {}


@contextlib.contextmanager
def pcrypt(name=GCM):
    """Adds an instance of pcrypt for the block, around the cipher that async_aead wraps.
    Loading async_aead makes the kernel create that cipher."""
    if os.path.exists("/proc/lockdep"):
        raise Skip("lockdep takes two locks of the kernel's padata for one")
    sh("modprobe -a crypto_user pcrypt", check=False)
    with async_aead(name):
        pass
    _, wrapped = max((int(fields["priority"]), driver) for driver, fields in
                     _drivers(name).items() if fields["async"] == "no")
    driver = f"pcrypt({wrapped})"
    err = _ask(CRYPTO_MSG_NEWALG, driver, 10000)
    if err:
        raise Skip(f"no {driver}: {errno.errorcode[err]}")
    try:
        yield Pcrypt(name, driver)
    finally:
        kmod.released()
        wait_for(f"{driver} is given up",
                 lambda: not _ask(CRYPTO_MSG_DELALG, driver))


def using(cipher, function, *args):
    """Calls function(*args) with a cipher: async_aead or pcrypt."""
    with cipher():
        function(*args)
