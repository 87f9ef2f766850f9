# SPDX-License-Identifier: GPL-2.0
"""A small machine of tools/device.sh, whose network card ends in this program. What the
programs share that start such machines, and what they print: KTAP."""
import atexit
import contextlib
import json
import os
import pathlib
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BOOT = 120          # seconds that a machine may take for anything

# What a kernel does in vain here, a third of its boot when it is emulated
# no_timer_check: on a busy host the check fails now and then, and the kernel stops
QUICK = ("mitigations=off no5lvl lsm= cryptomgr.notests no_timer_check "
         "initcall_blacklist=load_system_certificate_list")

# $dev is the one card. pause needs no process.
COMMON = """
set -e
modprobe -a virtio_pci virtio_net
dev=$(cd /sys/class/net; echo */device); dev=${dev%%/*}
exec 9<> <(:)
pause() { read -t $1 -u 9 || :; }
"""


class Qmp:
    """QEMU's monitor."""

    def __init__(self, path):
        end = time.monotonic() + BOOT
        self.sock = socket.socket(socket.AF_UNIX)
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                self.sock.connect(path)
                break
            assert time.monotonic() < end, "QEMU does not listen"
            time.sleep(0.05)
        self.file = self.sock.makefile("rw")
        self.file.readline()
        self.do("qmp_capabilities")

    def do(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while "return" not in (said := json.loads(self.file.readline())):
            assert "error" not in said, said
        return said["return"]


class Machine:
    """name: that of its files in build/RELEASE. host: the last digit of its MAC address,
    which is another one after it has slept if ip(8) sets it. Further options are QEMU's.
    environment: of device.sh. What else has a name is a variable of the script."""

    def __init__(self, release, name, host, script, *options, environment=None,
                 **variables):
        here, there, commands = (pathlib.Path(f"build/{release}/{name}.{end}")
                                 for end in ("here", "there", "sh"))
        for path in (here, there):
            path.unlink(missing_ok=True)
        commands.write_text("".join(f"{variable}={shlex.quote(str(value))}\n"
                                    for variable, value in variables.items()) +
                            COMMON + script)
        self.there, self.text = str(there), ""
        self.qmp, self.path = None, f"build/{release}/{name}.qmp"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(here))
        self.process = subprocess.Popen(
            [TOP / "tools/device.sh", release, commands,
             "-netdev", f"dgram,id=n0,local.type=unix,local.path={there},"
                        f"remote.type=unix,remote.path={here}",
             "-device", f"virtio-net-pci,netdev=n0,mac=02:00:00:00:00:0{host}",
             "-qmp", f"unix:{self.path},server=on,wait=off", *options],
            env={**os.environ, "DEVICE_APPEND": QUICK, **(environment or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        atexit.register(self.kill)
        os.set_blocking(self.process.stdout.fileno(), False)

    def frame(self, seconds):
        """The next one that it sends, or None."""
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            return None

    def send(self, frame):
        """Waits until the machine's card has room."""
        self.sock.settimeout(BOOT)
        self.sock.sendto(frame, self.there)

    def console(self):
        """All that it has said."""
        said = self.process.stdout.read() or b""
        self.text += said.decode(errors="replace").replace("\r", "")
        return self.text

    def wait(self, condition, what):
        """Until condition(console) gives something, which is returned."""
        end = time.monotonic() + BOOT
        while not (result := condition(self.console())):
            assert self.process.poll() is None and time.monotonic() < end, \
                f"not in time: {what}\n{self.console()}"
            time.sleep(0.05)
        return result

    def type(self, line):
        """QEMU may lose one byte, before it goes on with what save() has saved."""
        self.process.stdin.write(f"\n{line}\n".encode())
        self.process.stdin.flush()

    def monitor(self):
        self.qmp = self.qmp or Qmp(self.path)
        return self.qmp

    def save(self, path):
        """The machine, in a file; and stops it."""
        self.monitor().do("migrate-set-parameters", **{"max-bandwidth": 1 << 33})
        self.monitor().do("migrate", uri=f"exec:cat > {path}")
        end = time.monotonic() + BOOT
        while (status := self.monitor().do("query-migrate").get("status")) != "completed":
            assert status != "failed" and time.monotonic() < end, f"not saved: {status}"
            time.sleep(0.05)
        self.kill()

    def kill(self):
        """Its power fails. It also does when this program ends."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def esp(frame):
    """(SPI, SN, IV) of an ESP packet, or None."""
    if frame[12:14] != b"\x08\0" or frame[23] != 50:
        return None
    return struct.unpack_from(">IIQ", frame, 14 + 20)


def run(cases):
    """cases: (what, function) each. The result is for sys.exit()."""
    os.chdir(TOP)       # the path of a UNIX socket has to be short
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))   # and machines end, too
    print(f"TAP version 13\n1..{len(cases)}", flush=True)
    failed = 0
    for n, (what, function) in enumerate(cases, 1):
        try:
            function()
            print(f"ok {n} {what}", flush=True)
        except Exception as e:
            failed += 1
            print(f"not ok {n} {what}")
            print("\n".join(f"# {line}" for line in (str(e) or repr(e)).splitlines()),
                  flush=True)
    return failed > 0
