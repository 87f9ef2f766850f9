# SPDX-License-Identifier: GPL-2.0
"""The kernel's debugfs."""
import os
import pathlib

from .command import sh
from .verdict import Skip


def path(name):
    """Returns a path in debugfs. Mounts debugfs first if necessary."""
    top = pathlib.Path("/sys/kernel/debug")
    if not os.path.ismount(top):
        sh(f"mount -t debugfs debugfs {top}", check=False)
    if not (top / name).exists():
        raise Skip(f"a kernel without debugfs's {name}")
    return top / name
