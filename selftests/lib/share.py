# SPDX-License-Identifier: GPL-2.0
"""MINESP_SHARE: this run's share of the cases that do not depend on the kernel, such as
2/3: the second of three. make check gives each kernel one share. Without MINESP_SHARE, a
run has all cases."""
import os

_SHARE, _SHARES = map(int, os.environ.get("MINESP_SHARE", "1/1").split("/"))


def mine(n):
    """Returns whether this run has the n-th shared case of a program."""
    return n % _SHARES == _SHARE - 1
