# SPDX-License-Identifier: GPL-2.0
"""Shell commands."""
import shlex
import subprocess


def sh(command, check=True, stdin=None):
    """Runs a shell command; returns what it printed."""
    # Starting a program takes long in an emulated machine, so start a shell only
    # for commands that need it.
    shell = bool(set(command) & set("|&;<>$"))
    done = subprocess.run(command if shell else shlex.split(command),
                          shell=shell, text=True, input=stdin, close_fds=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check and done.returncode:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}")
    return done.stdout
