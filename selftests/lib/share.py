# SPDX-License-Identifier: GPL-2.0
"""MINESP_SHARE: which share this run has of the cases that no kernel makes differ, such
as 2/3: the second of three. make check shares them out among the kernels. Without it
this run has them all."""
import os

_SHARE, _SHARES = map(int, os.environ.get("MINESP_SHARE", "1/1").split("/"))


def mine(n):
    """Whether this run has the n-th of a program's cases that are shared out."""
    return n % _SHARES == _SHARE - 1
