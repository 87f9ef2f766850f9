# SPDX-License-Identifier: GPL-2.0
"""MINESP_SHARE: this run's share of the cases that do not depend on the kernel, such as
2/3: the second of three. make check gives each kernel one share. Without MINESP_SHARE, a
run has all cases."""
import os

_SHARE, _SHARES = map(int, os.environ.get("MINESP_SHARE", "1/1").split("/"))


def mine(n):
    """Returns whether this run has the n-th shared case of a program."""
    return n % _SHARES == _SHARE - 1


def offloads(n):
    """Returns the values of net.minesp.offload with which this run has the n-th case of a
    program. With MINESP_SHARE it is one value, which differs between the first two shares."""
    return [(n + _SHARE) % 2] if _SHARES > 1 else [0, 1]
