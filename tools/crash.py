#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Power failures. A machine that sends with SNs from the clock is killed without
warning, boots again and sends again with the same keys. This program records its
packets, and forwards them to the peer: a machine that runs all the time, with stock
ESP and a replay window. No SN and no IV may repeat, and the peer must accept all
packets. The first machine also sends with SNs from a counter, and these repeat.

usage: tools/crash.py RELEASE [LIVES]

Prints KTAP. A life lasts until a power failure. Lives differ in the clock at boot, in
the time when the module is loaded, and in the time of the power failure. All
combinations occur in 35 lives. MINESP_SEED repeats the random times.

One life in six begins with a boot, and the RTC sets its clock. The others save the CPU
time of a boot: they continue from a machine that was saved after it had booted and
before it loaded the module, and date(1) sets the clock to what the RTC would show. All
of these begin with the same random numbers.

This program alone chooses the machine's clock. It computes from the SNs when the last
SN was made, because the SNs of an SA that sends faster than the clock ticks stay
sn_ahead above the clock. By its clock the machine loads the module right after that
time, or later. A life begins with a burst. If SNs simply started at the clock, the next
life would repeat them, and the test would fail.
"""
import collections
import os
import random
import re
import sys
import time

from machine import BOOT, Machine, esp, run

EPOCH = 1767225600
MICRO = 1000000
SA = collections.namedtuple("SA", "tick ahead words")   # tick: in microseconds
COUNT, CLOCK = "extra-flag 0x08000000", "extra-flag 0x04000000"
SAS = {0x1001: SA(100000, 10000, CLOCK),                # 1000 seconds ahead
       0x1002: SA(10000, 100, CLOCK),                   # one second
       0x1003: SA(1000, 1000, CLOCK + " flag esn"),
       0x1004: SA(10000, 1000, COUNT)}
COUNTER = 0x1004

# How a life begins: description, seconds without power or the time of the RTC, and steps
KINDS = [
    ("off for minutes", 300, "wait load add send"),
    ("off for no time", 0, "wait load add send"),
    ("its RTC is slow", -3, "wait load add send"),
    ("its RTC has lost the time", "2000-01-01T00:00:00", "load correct add send"),
    ("its clock is a day ahead when SAs are added", 86400, "load add correct send"),
    ("the module is loaded late", 0, "wait idle load add send"),
    ("sn_ahead was saved for a burst", 0, "wait load add idle send"),
]
# When a life ends: description, and at most how many seconds after its first packet; None:
# before the first packet can be expected
ENDS = [("soon", 1), ("at its first packet", 0), ("late", 5), ("during its boot", None),
        ("at its first packet", 0)]

BOOTS = 6       # every sixth life begins with a boot

SENDER = """
exec 8< /dev/ttyS0
echo "== ready"
until [ "$life" ]; do read -r -u 8 life; done
eval "$life"
# Waits until the clock is past the last SN
wait() { until [ ${EPOCHREALTIME/./} -ge $after ]; do pause 0.02; done; }
idle() { pause 2; }
load() { loaded=$SECONDS; modprobe minesp; }
# Sets the clock so that the module was loaded after the last SN
correct() { date -s @$((after / 1000000 + 2 + SECONDS - loaded)) > /dev/null; }
add() {
    settings sn_epoch=$epoch
    ip -batch - <<END
link set $dev up
addr add 192.0.2.1/24 dev $dev
neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev $dev
END
    eval "$states"
}
send() {
    for port in $ports; do exec {port}<> /dev/udp/192.0.2.2/$port; sockets+=" $port"; done
    for _ in {1..100}; do all; done
    while :; do all; pause 0.05; done
} 2> /dev/null
all() { for socket in $sockets; do echo x >&$socket || :; done; }
for step in $steps; do
    $step
done
"""
# Adds an SA and its policy
ADD = """
settings sn_tick_us={tick} sn_ahead={ahead}
ip -batch - <<END
xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto 17 dport {spi} dir out \\
    tmpl proto esp reqid {spi} mode transport
{state}
END
"""

# When asked, the peer prints for each SA: SPI, accepted packets, three error counters.
PEER = """
ip -batch - <<END
link set $dev up
addr add 192.0.2.2/24 dev $dev
$states
END
echo "== ready"
while read -r asked; do
    [ "$asked" ] || continue
    echo $(ip -s xfrm state | sed -n '
        s/.* spi 0x0*\\([0-9a-f]*\\).*/sa \\1/p
        s/.* \\([0-9]*\\)(packets).*/\\1/p
        s/.*replay-window \\([0-9]*\\) replay \\([0-9]*\\) failed \\([0-9]*\\).*/\\1 \\2 \\3 end/p'
    ) "== $asked"
done < /dev/ttyS0
"""


def state(spi, words):
    return (f"xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi {spi} reqid {spi} "
            f"mode transport replay-window 32 aead rfc4106(gcm(aes)) 0x{spi:040x} 128 {words}")


def start_peer(release):
    states = "\n".join(state(spi, "flag esn" if "esn" in sa.words else "")
                       for spi, sa in SAS.items())
    return Machine(release, "crash-peer", 2, PEER, states=states)


def taken(peer, question):
    """Returns {SPI: [packets, below the window, repeated, forged]}. question: must be new"""
    peer.type(question)
    said = peer.wait(lambda said: re.search(rf"(.*) == {question}$", said, re.M),
                     "the peer's answer")[1]
    return {int(spi, 16): [int(n) for n in numbers.split()] for spi, numbers
            in re.findall(r"\bsa (\w+)((?: \d+){4}) end", said)}


def start_sender(release, *options, life=""):
    """life: what it runs at once, if not empty"""
    states = "".join(ADD.format(tick=sa.tick, ahead=sa.ahead, spi=spi,
                                state=state(spi, sa.words)) for spi, sa in SAS.items())
    return Machine(release, "crash", 1, SENDER, *options, life=life, epoch=EPOCH,
                   states=states, ports=" ".join(map(str, SAS)))


class World:
    """The state that outlives the machine."""

    def __init__(self, release):
        self.release = release
        self.peer = start_peer(release)
        self.lives = []                 # [(SPI, SN, IV), ...] each
        self.clock = (EPOCH + 86400) * MICRO
        # The shortest time to the first packet, without a boot and with a boot
        self.first = [BOOT, BOOT]
        self.saved = f"build/{release}/crash.saved"
        machine = start_sender(release)
        machine.wait(lambda said: "== ready" in said, "the machine")
        machine.save(self.saved)

    def start(self, boots, begin, steps):
        """Starts a machine. self.clock is the time when the last SN was made."""
        if isinstance(begin, int):
            begin = time.strftime("%Y-%m-%dT%H:%M:%S",
                                  time.gmtime(self.clock // MICRO + begin))
        life = f"after={self.clock} steps='{steps}'"
        if boots:
            return start_sender(self.release, "-rtc", f"base={begin}", life=life)
        machine = start_sender(self.release, "-incoming", f"exec:cat {self.saved}")
        machine.type(f"date -s '{begin.replace('T', ' ')}' > /dev/null; {life}")
        return machine

    def life(self, boots, kind, end):
        """Returns what one machine sends until its power failure."""
        packets, began = [], time.monotonic()
        limit = began + (BOOT if end is not None else random.uniform(0, self.first[boots]))

        def carry(frame):
            if frame and (packet := esp(frame)):
                packets.append(packet)
                self.peer.send(frame)

        machine = self.start(boots, *kind)
        while time.monotonic() < limit:
            carry(machine.frame(0.05))
            # Discard what the peer sends, because QEMU polls while its socket is full.
            while self.peer.frame(0):
                pass
            assert machine.alive(), f"ended: {machine.console()}"
            if len(packets) == 1:
                self.first[boots] = min(self.first[boots], time.monotonic() - began)
            if packets and end is not None:
                limit = min(limit, time.monotonic() + random.uniform(0, end))
                end = None
        machine.kill()
        while frame := machine.frame(0):    # sent before the failure
            carry(frame)
        assert packets or end is None, f"nothing was sent: {machine.console()}"
        begin, steps = kind
        if packets and "wait" in steps:
            self.clock += max(begin, 0) * MICRO     # its RTC was right
        for spi, _, iv in packets:
            if spi != COUNTER:
                sa = SAS[spi]
                self.clock = max(self.clock, EPOCH * MICRO + (iv - sa.ahead + 1) * sa.tick)
        self.lives.append(packets)
        return packets

    def sent(self, spi):
        return [(sn, iv) for life in self.lives for which, sn, iv in life if which == spi]


def main(release, count):
    seed = int(os.environ.get("MINESP_SEED") or random.randrange(1 << 32))
    random.seed(seed)
    world = None

    def crash():
        nonlocal world
        print(f"# MINESP_SEED={seed}", flush=True)
        world = World(release)
        world.peer.wait(lambda said: "== ready" in said, "the peer")
        for i in range(count):
            (begins, *kind), (ends, end) = KINDS[i % len(KINDS)], ENDS[i % len(ENDS)]
            boots, before = i % BOOTS == 0, os.times()
            packets = world.life(boots, kind, end)
            cost = sum(os.times()[2:4]) - sum(before[2:4])
            print(f"# life {i + 1}: {'it boots; ' * boots}{begins}; it ends {ends}: "
                  f"{len(packets)} packets, {cost:.1f} s of a processor", flush=True)

    def all_lives():
        assert world and len(world.lives) == count, "there are lives missing"
        return world.lives

    def never_repeats():
        all_lives()
        for spi in SAS.keys() - {COUNTER}:
            sent = world.sent(spi)
            assert len(sent) > count / 2, f"{len(sent)} packets only, SPI {spi:#x}"
            for (_, one), (sn, two) in zip(sent, sent[1:]):
                assert one < two and sn == two & 0xffffffff, \
                    f"SN {sn}, IV {two} after {one}, SPI {spi:#x}"

    def no_iv_repeats():
        lives = all_lives()
        for spi in SAS:
            # With a counter IVs are random numbers. Only lives with a boot have new ones.
            which = lives[::BOOTS] if spi == COUNTER else lives
            ivs = [iv for life in which for of, _, iv in life if of == spi]
            assert len(set(ivs)) == len(ivs), f"an IV repeats, SPI {spi:#x}"

    def counter_repeats():
        firsts = [[sn for spi, sn, _ in life if spi == COUNTER][:1] for life in all_lives()]
        assert all(first in ([], [1]) for first in firsts) and firsts.count([1]) > 1, firsts

    def peer_takes():
        all_lives()
        right = {spi: [len(world.sent(spi)), 0, 0, 0] for spi in SAS.keys() - {COUNTER}}
        end, n = time.monotonic() + BOOT, 0
        while not right.items() <= (said := taken(world.peer, f"clocks{n}")).items():
            assert time.monotonic() < end, (right, said)
            n += 1

    def peer_refuses():
        all_lives()
        packets, below, repeated, forged = taken(world.peer, "counter")[COUNTER]
        assert below + repeated > 0 == forged, (packets, below, repeated, forged)
        assert packets + below + repeated == len(world.sent(COUNTER)), packets

    return run([
        (f"{count} power failures", crash),
        ("no SN from the clock repeats", never_repeats),
        ("no IV repeats", no_iv_repeats),
        ("SNs from a counter repeat", counter_repeats),
        ("a stock peer with a replay window takes all from the clock", peer_takes),
        ("and refuses what repeats", peer_refuses)])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40))
