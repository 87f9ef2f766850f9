# SPDX-License-Identifier: GPL-2.0
"""A tenant: an unprivileged user who is root in a user namespace, and has a network
namespace in it."""
import contextlib
import shlex
import subprocess

from .verdict import Skip

NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups"
# With one call, the network namespace exists before the user namespace maps its owner.
AT_ONCE = "unshare --user --map-root-user --net"
ONE_BY_ONE = "unshare --user --map-root-user unshare --net"
_END = "--- the end of what a command printed:"


class Tenant:
    """A shell of the tenant."""

    def __init__(self, shell):
        self.shell = shell

    def sh(self, command, check=True):
        """Runs a shell command; returns what it printed."""
        self.shell.stdin.write(f"{command}\nset -- $?; echo; echo '{_END}' $1\n")
        self.shell.stdin.flush()
        said = ""
        for line in self.shell.stdout:
            if line.startswith(_END):
                break
            said += line
        else:
            raise AssertionError(f"the tenant's shell has died: {said}")
        status = int(line.split()[-1])
        if check and status:
            raise AssertionError(f"{command}: exit {status}\n{said}")
        return said[:-1]

    def ip(self, lines, check=True):
        """Runs lines of ip(8) in one call."""
        return self.sh(f"ip -batch - << 'END'\n{lines}\nEND", check)


@contextlib.contextmanager
def tenant(made=ONE_BY_ONE):
    with subprocess.Popen(shlex.split(f"{NOBODY} {made} sh"), text=True, cwd="/",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as shell:
        t = Tenant(shell)
        try:
            if t.sh("id -u").strip() != "0":
                raise Skip("no user namespaces")
        except (AssertionError, BrokenPipeError, OSError) as e:
            raise Skip(f"no user namespaces for an unprivileged user: {e}") from None
        try:
            yield t
        finally:
            shell.stdin.close()
