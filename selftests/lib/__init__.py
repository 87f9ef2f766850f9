# SPDX-License-Identifier: GPL-2.0
"""The library of the tests. Test programs import from here, never from each other.

    import lib                      # what most tests need: the names below
    from lib import traffic         # one concept, one module: traffic.udp()

Imports inside the library must not form a cycle. The modules imported here need only
Python's standard library.
"""
from .command import sh
from .fixtures import fixture
from .host import ADDRESSES, SO_RCVBUFFORCE, family_of, gro, hosts, namespaces
from .ktap import print_msg, run
from .sa import AEAD, CBC, KEYS, MODES, SPI, SUITE
from .seed import SEED
from .verdict import Skip, equal
from .wait import TIMEOUT, throttled, wait_for
from .xflag import (
    XFLAG_ANY_AGE,
    XFLAG_CLOCK,
    XFLAG_COUNTER,
    XFLAG_FRESH,
    XFLAG_IMPLICIT_IV,
    XFLAG_IMPLICIT_IV_CLOCK,
    XFLAG_MINIMAL,
    XFLAG_STOCK,
)

__all__ = [
    "ADDRESSES", "AEAD", "CBC", "KEYS", "MODES", "SEED", "SO_RCVBUFFORCE", "SPI", "SUITE",
    "Skip", "TIMEOUT", "XFLAG_ANY_AGE", "XFLAG_CLOCK", "XFLAG_COUNTER", "XFLAG_FRESH",
    "XFLAG_IMPLICIT_IV", "XFLAG_IMPLICIT_IV_CLOCK", "XFLAG_MINIMAL", "XFLAG_STOCK",
    "equal", "family_of", "fixture", "gro", "hosts", "namespaces", "print_msg", "run", "sh",
    "throttled", "wait_for",
]
