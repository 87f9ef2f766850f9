# SPDX-License-Identifier: GPL-2.0
"""Which implementation of an algorithm the kernel's crypto API prefers.

    with crypto.preferred("pcrypt"):
        ...     # SAs that are added here use it
"""
import contextlib
import errno
import os
import pathlib
import re
import socket
import struct

from .command import sh
from .verdict import Skip
from .wait import wait_for

NETLINK_CRYPTO = 21
CRYPTO_MSG_NEWALG, CRYPTO_MSG_DELALG = 0x10, 0x11
CRYPTOCFGA_PRIORITY_VAL = 1
CRYPTO_ALG_TYPE_AEAD, CRYPTO_ALG_TYPE_MASK = 3, 0xf


def _ask(message, driver, priority=None):
    body = struct.pack("=64s64s64sIIII", b"", driver.encode(), b"",
                       CRYPTO_ALG_TYPE_AEAD, CRYPTO_ALG_TYPE_MASK, 0, 0)
    if priority is not None:
        body += struct.pack("=HHI", 8, CRYPTOCFGA_PRIORITY_VAL, priority)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                       NETLINK_CRYPTO) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), message, 0x5, 1, 0) +
                  body)
        return -struct.unpack_from("=i", sock.recv(1 << 16), 16)[0]


def drivers(name):
    """{driver: its fields in /proc/crypto} of an algorithm."""
    found = {}
    for entry in pathlib.Path("/proc/crypto").read_text().split("\n\n"):
        fields = dict(re.findall(r"^(\S+)\s*: (.*)$", entry, re.MULTILINE))
        if fields.get("name") == name:
            found[fields["driver"]] = fields
    return found


# Implementations that any machine has. They complete at once, which cryptd expects of
# what it wraps.
GENERIC = {
    "rfc4106(gcm(aes))": "rfc4106(gcm_base(ctr(aes-generic),ghash-generic))",
    "authenc(hmac(sha256),cbc(aes))":
        "authenc(hmac(sha256-generic),cbc(aes-generic))",
    "authencesn(hmac(sha256),cbc(aes))":
        "authencesn(hmac(sha256-generic),cbc(aes-generic))",
}


@contextlib.contextmanager
def preferred(template, name="rfc4106(gcm(aes))"):
    """SAs that are added in this block use that template around a generic implementation.
    Yields a function that returns how many users it has."""
    generic = GENERIC[name]
    if template == "cryptd" and os.uname().release.startswith("6.1."):
        raise Skip("the cryptd of 6.1 fails the kernel's own test of it")
    if template == "pcrypt" and os.path.exists("/proc/lockdep"):
        raise Skip("lockdep takes two locks of the kernel's padata for one")
    sh("modprobe -a crypto_user pcrypt cryptd", check=False)
    made = f"{template}({generic})"
    for driver, priority in ((generic, 1), (made, 10000)):
        err = _ask(CRYPTO_MSG_NEWALG, driver, priority)
        if err not in (0, errno.EEXIST):
            raise Skip(f"no {driver}: {errno.errorcode[err]}")
    unused = int(drivers(name)[made]["refcnt"])
    try:
        yield lambda: int(drivers(name)[made]["refcnt"]) - unused
    finally:
        # SAs give it up a little after they are deleted.
        for driver in (made, generic):
            wait_for(f"{driver} is given up",
                     lambda: not _ask(CRYPTO_MSG_DELALG, driver))


def using(template, function, *args):
    """Calls a function whose SAs use that template."""
    with preferred(template):
        function(*args)
