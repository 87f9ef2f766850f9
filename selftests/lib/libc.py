# SPDX-License-Identifier: GPL-2.0
"""Functions of the C library that Python lacks."""
import ctypes
import struct

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def call(function, *args):
    """Calls a function; raises OSError if it does not return 0."""
    if getattr(_libc, function)(*args):
        raise OSError(ctypes.get_errno(), function)


def vmsplice(fd, memory, count):
    """Puts the first count bytes of a buffer into a pipe without a copy."""
    iov = struct.pack("@PN", ctypes.addressof(ctypes.c_char.from_buffer(memory)), count)
    if _libc.vmsplice(fd, iov, 1, 0) != count:
        raise OSError(ctypes.get_errno(), "vmsplice")
