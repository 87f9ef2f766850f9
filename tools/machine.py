# SPDX-License-Identifier: GPL-2.0
"""A small machine of tools/device.sh whose network card is connected to this program, and
KTAP output for the programs that start such machines."""
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
BOOT = 120          # limit in seconds for one step of a machine

# Skips work that is useless here, and takes a third of an emulated boot.
# no_timer_check: on a busy host the check sometimes fails, and the kernel stops.
QUICK = ("mitigations=off no5lvl lsm= cryptomgr.notests no_timer_check "
         "initcall_blacklist=load_system_certificate_list")

# Prints "== booted" first. $dev is the network card. pause starts no process. settings writes
# sysctls of net.minesp.
COMMON = """
echo "== booted"
set -e
modprobe -a virtio_pci virtio_net
dev=$(cd /sys/class/net; echo */device); dev=${dev%%/*}
exec 9<> <(:)
pause() { read -t $1 -u 9 || :; }
settings() { for s; do echo ${s#*=} > /proc/sys/net/minesp/${s%=*}; done; }
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
    """name: of its files in build/RELEASE. host: the last digit of its MAC address (a sleep
    would undo a MAC address that ip(8) set). options: of QEMU. environment: of device.sh.
    variables: of the script"""

    def __init__(self, release, name, host, script, *options, environment=None,
                 **variables):
        here, there, commands = (pathlib.Path(f"build/{release}/{name}.{end}")
                                 for end in ("here", "there", "sh"))
        here.unlink(missing_ok=True)
        commands.write_text("".join(f"{variable}={shlex.quote(str(value))}\n"
                                    for variable, value in variables.items()) +
                            COMMON + script)
        self.there, self.text = there, ""
        self.qmp, self.path = None, f"build/{release}/{name}.qmp"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(here))
        self.command = [
            TOP / "tools/device.sh", release, commands,
            "-netdev", f"dgram,id=n0,local.type=unix,local.path={there},"
                       f"remote.type=unix,remote.path={here}",
            "-device", f"virtio-net-pci,netdev=n0,mac=02:00:00:00:00:0{host}",
            "-qmp", f"unix:{self.path},server=on,wait=off", *options]
        self.environment = {**os.environ, "DEVICE_APPEND": QUICK, **(environment or {})}
        self.boots = 0 if "-incoming" in options else 3     # attempts
        self.start()
        atexit.register(self.kill)

    def start(self):
        self.there.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        os.set_blocking(self.process.stdout.fileno(), False)

    def alive(self):
        """Returns whether the machine runs. In emulation, the kernel sometimes panics while
        it boots. The machine then boots again. So do not type before it has booted."""
        if self.process.poll() is None:
            return True
        self.boots -= 1
        if (self.boots <= 0 or "== booted" in self.console() or
                "Kernel panic" not in self.text):
            return False
        print(f"# it boots again: {self.text!r}", flush=True)
        self.process.stdin.close()
        self.process.stdout.close()
        self.text = ""
        self.start()
        return True

    def frame(self, seconds):
        """Returns the next frame that the machine sends, or None."""
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            return None

    def send(self, frame):
        """Sends a frame to the machine. Waits until its card has room."""
        self.sock.settimeout(BOOT)
        self.sock.sendto(frame, str(self.there))

    def console(self):
        """Returns all output of the machine so far."""
        said = self.process.stdout.read() or b""
        self.text += said.decode(errors="replace").replace("\r", "")
        return self.text

    def wait(self, condition, what):
        """Waits until condition(console) is true; returns its result."""
        end = time.monotonic() + BOOT
        while not (result := condition(self.console())):
            assert self.alive() and time.monotonic() < end, \
                f"not in time: {what}\n{self.console()}"
            time.sleep(0.05)
        return result

    def type(self, line):
        """Types a line on the console. QEMU may lose the first newline before it resumes a
        saved machine."""
        self.process.stdin.write(f"\n{line}\n".encode())
        self.process.stdin.flush()

    def monitor(self):
        self.qmp = self.qmp or Qmp(self.path)
        return self.qmp

    def save(self, path):
        """Saves the machine in a file, and stops it."""
        self.monitor().do("migrate-set-parameters", **{"max-bandwidth": 1 << 33})
        self.monitor().do("migrate", uri=f"exec:cat > {path}")
        end = time.monotonic() + BOOT
        while (status := self.monitor().do("query-migrate").get("status")) != "completed":
            assert status != "failed" and time.monotonic() < end, f"not saved: {status}"
            time.sleep(0.05)
        self.kill()

    def kill(self):
        """Cuts the machine's power. Also runs when this program ends."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        atexit.unregister(self.kill)    # so that Python closes the files of this machine


def esp(frame):
    """Returns (SPI, SN, IV) of an ESP packet, or None."""
    if frame[12:14] != b"\x08\0" or frame[23] != 50:
        return None
    return struct.unpack_from(">IIQ", frame, 14 + 20)


def run(cases):
    """Runs cases, (what, function) each; returns the status for sys.exit()."""
    os.chdir(TOP)       # the path of a UNIX socket must be short
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))   # runs kill(), too
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
