#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Power failures. A machine that sends with SNs from the clock is killed without
warning at random moments, boots again with the same keys and sends again. What
it sends is recorded out here: no SN and no IV repeats, and a stock esp4 with a
replay window, in a machine of its own, takes all of it. The same machine also
sends with SNs from a counter, and these do repeat.

usage: tools/crash.py RELEASE [ROUNDS]

Prints KTAP. More packets are sent than the clock ticks, so SNs run ahead of the clock, by
more than a boot takes. A machine that simply started at the clock would repeat SNs, and
fail.
"""
import contextlib
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BOOT = 120          # seconds that a machine may take until it sends
SECONDS = 6         # it lives for so long at most after its first packet
TICK_US, AHEAD = 500000, 2000       # 1000 seconds ahead
CLOCK, COUNTER = 0x1001, 0x1002     # SPIs
KEY = {CLOCK: "0x" + "11" * 16 + "a0a1a2a3",
       COUNTER: "0x" + "22" * 16 + "a0a1a2a3"}
MAC = "02:00:00:00:00:0"            # and the last digit of the address

# $dev is the one card.
COMMON = """
set -e
modprobe -a virtio_pci virtio_net
dev=$(cd /sys/class/net; echo */device); dev=${dev%%/*}
settings() { for s; do echo ${s#*=} > /proc/sys/net/minesp/${s%=*}; done; }
sa() {  # spi host key words
    echo "xfrm state add src 192.0.2.1 dst 192.0.2.$2 proto esp spi $1" \\
        "reqid $2 aead rfc4106(gcm(aes)) $3 128 $4"
}
"""

SENDER = COMMON + """
modprobe minesp
settings sn_epoch=EPOCH sn_tick_us=TICK_US sn_ahead=AHEAD
ip -batch - <<END
link set $dev up
addr add 192.0.2.1/24 dev $dev
$(for h in 2 3; do
    echo neigh replace 192.0.2.$h lladdr MAC$h dev $dev
    echo xfrm policy add src 192.0.2.1 dst 192.0.2.$h dir out \\
        tmpl proto esp reqid $h mode transport
done)
$(sa CLOCK 2 KEY_CLOCK "extra-flag 0x04000000")
$(sa COUNTER 3 KEY_COUNTER "extra-flag 0x08000000")
END
exec 9<> <(:)
while :; do
    for h in 2 3; do echo x > /dev/udp/192.0.2.$h/9 || :; done
    read -t 0.002 -u 9 || :
done 2> /dev/null
"""

PEER = COMMON + """
ip -batch - <<END
link set $dev up
addr add 192.0.2.2/24 dev $dev
neigh replace 192.0.2.1 lladdr MAC1 dev $dev
$(sa CLOCK 2 KEY_CLOCK "replay-window 32")
END
end=$((SECONDS + 120))
until [ "$(ip -s xfrm state | sed -n 's/.*, \\([0-9]*\\)(packets).*/\\1/p' |
        tail -1)" = COUNT ]; do
    echo ready > /dev/udp/192.0.2.1/9
    [ $SECONDS -lt $end ] || break
    sleep 0.2
done
ip -s xfrm state | grep -A1 "lifetime current"
! grep -v '\\<0$' /proc/net/xfrm_stat
echo no error
"""


class Machine:
    """A virtual machine with one network card, whose other end is here."""

    def __init__(self, release, address, script, **words):
        words.update(CLOCK=CLOCK, COUNTER=COUNTER, KEY_CLOCK=KEY[CLOCK],
                     KEY_COUNTER=KEY[COUNTER], MAC=MAC)
        for word in sorted(words, key=len, reverse=True):
            script = script.replace(word, str(words[word]))
        here, there, commands = (pathlib.Path(f"build/{release}/crash.{end}")
                                 for end in ("here", "there", "sh"))
        for path in (here, there):
            path.unlink(missing_ok=True)
        commands.write_text(script)
        self.there = str(there)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(here))
        self.process = subprocess.Popen(
            [TOP / "tools/device.sh", release, commands,
             "-netdev", f"dgram,id=n0,local.type=unix,local.path={there},"
                        f"remote.type=unix,remote.path={here}",
             "-device", f"virtio-net-pci,netdev=n0,mac={MAC}{address}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True)
        os.set_blocking(self.process.stdout.fileno(), False)

    def frame(self, seconds):
        """The next one that it sends, or None."""
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1 << 16)
        except TimeoutError:
            return None

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.sock.close()


def esp(frame):
    """(SPI, SN, IV) of an ESP packet, or None."""
    if frame[12:14] != b"\x08\0" or frame[23] != 50:
        return None
    return struct.unpack_from(">IIQ", frame, 14 + 20)


def life(release, epoch):
    """What one machine sends from its boot to its sudden end."""
    machine = Machine(release, 1, SENDER, EPOCH=epoch, TICK_US=TICK_US,
                      AHEAD=AHEAD)
    frames, end = [], time.monotonic() + BOOT
    try:
        while time.monotonic() < end:
            frame = machine.frame(0.1)
            if frame and esp(frame):
                if not frames:
                    end = time.monotonic() + random.uniform(0, SECONDS)
                frames.append(frame)
            if machine.process.poll() is not None:
                raise AssertionError("ended: " + machine.process.stdout.read())
    finally:
        machine.kill()
    assert frames, "nothing was sent"
    return frames


def taken(release, frames):
    """A stock peer gets what was recorded, in that order."""
    machine = Machine(release, 2, PEER, COUNT=len(frames))
    try:
        end = time.monotonic() + BOOT
        while b"ready" not in (machine.frame(1) or b""):
            assert time.monotonic() < end, "the peer is not ready"
        for frame in frames:
            machine.sock.sendto(frame, machine.there)
        machine.process.wait(BOOT)
        said = machine.process.stdout.read()
        assert f" {len(frames)}(packets)" in said and "no error" in said, said
    finally:
        machine.kill()


def main(release, rounds):
    os.chdir(TOP)       # the path of a UNIX socket has to be short
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))   # and machines end, too
    results = []

    def verdict(what, function):
        try:
            function()
            results.append(True)
            print(f"ok {len(results)} {what}", flush=True)
        except Exception as e:
            results.append(False)
            print(f"not ok {len(results)} {what}")
            print("\n".join(f"# {line}" for line in (str(e) or repr(e)).splitlines()),
                  flush=True)

    epoch = int(time.time()) - 3600
    lives = []
    print("TAP version 13\n1..5")

    def crash():
        for i in range(rounds):
            lives.append(life(release, epoch))
            print(f"# life {i + 1}: {len(lives[-1])} packets", flush=True)

    def sent(spi, life):
        return [esp(f)[1:] for f in life if esp(f)[0] == spi]

    def all_lives():
        assert len(lives) == rounds, f"{len(lives)} lives"
        return lives

    def never_repeats():
        sns = [sn for life in all_lives() for sn, _ in sent(CLOCK, life)]
        assert len(sns) > rounds, f"{len(sns)} packets only"
        for one, two in zip(sns, sns[1:]):
            assert one < two, f"SN {two} after {one}"

    def no_iv_repeats():
        for spi in (CLOCK, COUNTER):
            ivs = [iv for life in all_lives() for _, iv in sent(spi, life)]
            assert len(set(ivs)) == len(ivs), f"an IV repeats, SPI {spi:#x}"

    def counter_repeats():
        firsts = {sn for life in all_lives() for sn, _ in sent(COUNTER, life)[:1]}
        assert firsts == {1}, f"the first SNs were {firsts}"

    verdict(f"{rounds} power failures", crash)
    verdict("no SN from the clock repeats", never_repeats)
    verdict("no IV repeats", no_iv_repeats)
    verdict("SNs from a counter repeat", counter_repeats)
    verdict("a stock peer with a replay window takes all", lambda: taken(
        release, [f for life in all_lives() for f in life if esp(f)[0] == CLOCK]))
    return not all(results)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3))
