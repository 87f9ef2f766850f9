#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Sleep. A machine sends with SNs from the clock, is suspended, wakes up, and sends again,
several times. It is suspended to idle, or to RAM, where only the RTC runs. The RTC may be set
while it sleeps, or its clock after it wakes up. Before it sleeps, its SNs run ahead of the
clock. This program records its packets, and sends some of them back, at once or after the
sleep, to SAs of the machine that check freshness. When it falls asleep, packets are being
encrypted and decrypted, and others are in a qdisc.

usage: tools/sleep.py RELEASE [TIMES]

TIMES: how often each kind of sleep is repeated (1). Prints KTAP.
"""
import os
import pathlib
import re
import subprocess
import sys
import time

from machine import BOOT, Machine, esp, run

ASLEEP = 4                  # seconds, at least
EPOCH = 1767225600
TICK, AHEAD = 0.01, 1       # in seconds
# SPIs of two outbound SAs. Packets of HELD come back only when they are old.
LIVE, HELD = 0x1001, 0x1002
OLD, FRESH = 3, 10          # packets that come back after each sleep
UNDER_WAY = 5               # packets in encryption, in decryption and in the qdisc during a sleep

# How the machine sleeps, and by how many seconds its RTC is set while it sleeps and its clock
# after it wakes up
SLEEPS = [("freeze", 0, 0), ("mem", 0, 0), ("mem", 3600, 0), ("mem", 0, 3600), ("mem", 0, -1)]

# The machine prints on separate lines: sleep; awake; later, the counters of its SAs and of
# minesp; done. lives() adds minimal and stock SAs that live for two seconds, or for 1000, and
# minimal SAs whose SNs end then.
DEVICE = """
modprobe minesp
settings sn_epoch=$epoch sn_tick_us=10000 sn_ahead=100 rx_max_age_ms=1000 rx_max_ahead_ms=4000
sa() {  # source destination SPI words
    ip xfrm state add src 192.0.2.$1 dst 192.0.2.$2 proto esp spi $3 reqid $3 \\
        mode transport aead 'rfc4106(gcm(aes))' 0x$(printf %040x $3) 128 ${@:4}
}
short=0x2000
lives() {
    for seconds in 2 1000; do
        sa 1 2 $((++short)) extra-flag 0x04000000 limit time-hard $seconds
        sa 1 2 $((++short)) extra-flag 0x02000000 limit time-hard $seconds
        # The last SN, 2^32 - 1, has this tick.
        settings sn_epoch=$((EPOCHSECONDS + seconds - (1 << 32) / 100))
        sa 1 2 $((++short)) extra-flag 0x04000000
        settings sn_epoch=$epoch
    done
}
# While the machine falls asleep, the card has no carrier, and the kernel may empty its qdisc.
# So packets wait in the qdisc of a veth device, whose peer hands them to the card.
ip -batch - <<END
link set $dev up
link add v0 type veth peer name v1
link set v0 address 02:00:00:00:00:01 up
link set v1 up
addr add 192.0.2.1/24 dev v0
neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev v0
END
tc -batch - <<END
qdisc add dev v1 ingress
filter add dev v1 ingress matchall action mirred egress redirect dev $dev
qdisc add dev v0 root plug limit 1000000
qdisc change dev v0 root plug release_indefinite
END
plug() { tc qdisc change dev v0 root plug $1; }
for spi in $live $held; do
    ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto 17 dport $spi dir out \\
        tmpl proto esp reqid $spi mode transport
done
# Two SAs use async_aead, which can hold requests.
sa 1 2 $live extra-flag 0x04000000
sa 2 1 $held extra-flag 0x18000000
insmod /async_aead.ko
sa 2 1 $live extra-flag 0x18000000
sa 1 2 $held extra-flag 0x04000000
cipher=/sys/module/async_aead/parameters
# Earlier packets may be dropped.
until read state < /sys/class/net/$dev/operstate && [ $state = up ]; do pause 0.05; done
exec 5<> /dev/udp/192.0.2.2/$live 6<> /dev/udp/192.0.2.2/$held
one() { echo x >&5 && : $((++sent)) || :; } 2> /dev/null
other() { echo x >&6 || :; } 2> /dev/null
all() { one; other; }
# Puts $1 packets into decryption, encryption and the qdisc until the machine is awake.
under_way() {
    echo Y > $cipher/hold
    enough=$((sent + $1))
    until [ $sent -ge $enough ]; do one; pause 0.02; done
    until read waiting < $cipher/waiting && [ $waiting -ge $1 ]; do pause 0.02; done
    until read waiting < $cipher/waiting && [ $waiting -ge $((2 * $1)) ]; do
        other; pause 0.02
    done
    plug block
    enough=$((sent + $1))
    until [ $sent -ge $enough ]; do one; pause 0.02; done
}
send() {  # until $1 more fresh packets have come back
    enough=$(($(count InPackets) + $1))
    until [ $(count InPackets) -ge $enough ]; do
        for _ in {1..20}; do all; pause 0.05; done
    done
    # Waits for all other packets, too, before the counters are read or the machine sleeps
    waits=0
    until [ $(($(count InPackets) + $(count InTooOld) + $(count InTooNew))) -ge \\
            $((sent + asked)) ]; do
        pause 0.05
        [ $((++waits)) != 200 ] || lost
    done
}
lost() {  # says where a packet may be
    echo "sent $sent asked $asked"
    grep -v '[[:blank:]]0$' /proc/net/minesp_stat /proc/net/xfrm_stat
    cat /proc/net/minesp /proc/net/snmp /proc/net/softnet_stat $cipher/waiting
    ip -s link show
    tc -s qdisc show
}
# Reads the file as a whole, because numbers become longer.
count() {
    while read name value; do [ $name != $1 ] || echo $value; done <<< "$(< /proc/net/minesp_stat)"
}
modprobe button     # the power button wakes the machine up from idle
sent=0 asked=0
send $fresh
for sleep in $sleeps; do
    lives
    for _ in {1..120}; do all; done
    send 0
    under_way $under_way
    echo "== sleep ${sleep%=*}"
    until echo ${sleep%=*} > /sys/power/state; do pause 0.1; done
    [ ${sleep#*=} = 0 ] || date -s @$((EPOCHSECONDS + ${sleep#*=})) > /dev/null
    plug release_indefinite
    echo N > $cipher/hold
    echo "== awake"
    : $((asked += old))
    send $fresh
    echo "== InTooOld $(count InTooOld) ClockSetBack $(count ClockSetBack)"
    ip -s xfrm state | sed -n 's/^src \\([^ ]*\\).*/from \\1/p; s/.* spi \\(0x[0-9a-f]*\\).*/\\1/p
        s/.* \\([0-9]*\\)(packets).*/\\1 end/p' | tr '\\n' ' '
    echo
    echo "== counted"
done
echo "== OutPackets $(count OutPackets) done"
ip xfrm state flush
ip xfrm policy flush
exec 5>&- 6>&-      # their routes have SAs
for module in minesp async_aead; do
    until rmmod $module 2> /dev/null; do pause 0.1; done
done
echo "== removed"
pause 100
"""


def back(frame):
    """Returns the frame with both ends swapped. This does not change IP's checksum."""
    return frame[6:12] + frame[:6] + frame[12:26] + frame[30:34] + frame[26:30] + frame[34:]


class Sleeper:
    def __init__(self, release, times):
        self.sleeps = SLEEPS * times
        self.sent = {LIVE: [], HELD: []}    # (when, SN, IV, frame) each
        self.asleep = []        # (start, end, seconds added), by time.monotonic()
        self.rtc = pathlib.Path(f"build/{release}/sleep.rtc").absolute()    # for libfaketime
        self.set_rtc(0)
        self.machine = Machine(
            release, "sleep", 1, DEVICE,
            environment={
                "DEVICE_SUSPENDS": "1",
                "DEVICE_PRELOAD": subprocess.check_output(
                    ["faketime", "-m", "now", "printenv", "LD_PRELOAD"], text=True).strip(),
                "FAKETIME_TIMESTAMP_FILE": str(self.rtc),
                "FAKETIME_CACHE_DURATION": "1",     # seconds, less than ASLEEP
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DEVICE_FILES": f"build/{release}/selftests/async_aead/async_aead.ko"},
            epoch=EPOCH, live=LIVE, held=HELD, old=OLD, fresh=FRESH, under_way=UNDER_WAY,
            sleeps=" ".join(f"{how}={by}" for how, _, by in self.sleeps))

    def set_rtc(self, ahead):
        """Sets the RTC this many seconds ahead of its time. libfaketime may read at any time."""
        new = self.rtc.with_suffix(".new")
        new.write_text(f"+{ahead}")
        os.replace(new, self.rtc)

    def carry(self, seconds):
        frame = self.machine.frame(seconds)
        packet = esp(frame) if frame else None
        if packet and packet[0] in self.sent:
            self.sent[packet[0]].append((time.monotonic(), *packet[1:], frame))
            if packet[0] == LIVE:
                self.machine.send(back(frame))

    def until(self, word, count, what=lambda: None):
        """Carries frames until the machine has printed the word count times."""
        end = time.monotonic() + BOOT
        while self.machine.console().count(f"== {word}") < count:
            self.carry(0.05)
            what()
            assert self.machine.alive() and time.monotonic() < end, \
                f"not in time: {word}, {count}\n{self.machine.console()}"

    def sleep(self, n, how, rtc, by):
        self.until("sleep", n + 1)
        if how == "mem":
            while self.machine.monitor().do("query-status")["status"] != "suspended":
                self.carry(0.05)
        began = time.monotonic()
        self.set_rtc(sum(ahead for _, ahead, _ in self.sleeps[:n + 1]))
        while time.monotonic() < began + ASLEEP:
            self.carry(0.05)
        ended = time.monotonic()
        old = self.sent[HELD][-OLD:]
        self.wake(n, how)
        self.asleep.append((began, ended, max(rtc + by, 0)))
        for *_, frame in old:
            self.machine.send(back(frame))
        self.until("counted", n + 1)

    def wake(self, n, how):
        """Wakes the machine up. Tries again if it was not asleep yet."""
        pressed = 0

        def press():
            nonlocal pressed
            if time.monotonic() > pressed + 5:
                if how == "freeze":
                    self.machine.monitor().do("system_powerdown")    # its power button
                elif self.machine.monitor().do("query-status")["status"] == "suspended":
                    self.machine.monitor().do("system_wakeup")
                pressed = time.monotonic()

        self.until("awake", n + 1, press)

    def run(self):
        for n, (how, *by) in enumerate(self.sleeps):
            self.sleep(n, how, *by)
            print(f"# {how}: awake after {self.asleep[-1][1] - self.asleep[-1][0]:.1f} s",
                  flush=True)
        self.until("OutPackets", 1)
        self.until("removed", 1)

    def counted(self):
        """Yields after each sleep: {counter: value}, {(source, SPI): packets}."""
        assert len(self.asleep) == len(self.sleeps), "it did not sleep and wake up"
        for block in self.machine.console().split("== awake")[1:]:
            yield (dict(re.findall(r"(\w+) (\d+)", re.search(r"== (InTooOld.*)", block)[1])),
                   {(who, int(spi, 16)): int(packets) for who, spi, packets in
                    re.findall(r"from (\S+) (0x\w+) (\d+) end", block)})


def main(release, times):
    sleeper = None

    def sleeps():
        nonlocal sleeper
        sleeper = Sleeper(release, times)
        sleeper.run()

    def never_repeats():
        list(sleeper.counted())
        for spi, sent in sleeper.sent.items():
            if spi == HELD:     # its cipher completes requests in any order
                sent = sorted(sent, key=lambda packet: packet[2])
            for (_, _, one, _), (_, sn, two, _) in zip(sent, sent[1:]):
                assert one < two and sn == two, f"SN {sn}, IV {two} after {one}, SPI {spi:#x}"

    def under_way():
        """Packets under way when the machine falls asleep leave after it wakes up."""
        list(sleeper.counted())
        for spi, sent in sleeper.sent.items():
            for began, ended, _ in sleeper.asleep:
                late = [packet for packet in sent if packet[0] > began][:UNDER_WAY]
                last = [packet for packet in sent if packet[0] < began][-1]
                assert late[0][0] > ended, f"SPI {spi:#x}: sent while it slept"
                passed = (late[-1][1] - last[1]) * TICK - (began - last[0])
                assert passed < AHEAD + 1.1, f"SPI {spi:#x}: the SN is {passed} s late"

    def none_lost():
        left = int(re.search(r"== OutPackets (\d+) done", sleeper.machine.console())[1])
        seen = sum(map(len, sleeper.sent.values()))
        assert seen == left, f"{left} sent, {seen} seen"

    def removed():
        list(sleeper.counted())
        assert "== removed" in sleeper.machine.console()

    def time_passes():
        list(sleeper.counted())
        sent = sleeper.sent[LIVE]
        for began, ended, added in sleeper.asleep:
            before = [packet for packet in sent if packet[0] < ended][-1]
            after = [packet for packet in sent if packet[0] > ended][UNDER_WAY]
            passed = (after[1] - before[1]) * TICK
            least = ended - began + added
            most = after[0] - before[0] + added
            # The RTC counts whole seconds.
            assert least - AHEAD - 1.1 < passed < most + AHEAD + 1.1, \
                f"{passed} s by the SNs, {least} to {most} by the clock"

    def fresh():
        packets = 0
        for _, sas in sleeper.counted():
            assert sas["192.0.2.2", LIVE] >= packets + FRESH, sas
            packets = sas["192.0.2.2", LIVE]

    def old():
        for n, (values, sas) in enumerate(sleeper.counted(), 1):
            assert int(values["InTooOld"]) >= n * (OLD + 2 * UNDER_WAY), values
            assert not sas["192.0.2.2", HELD], sas

    def lifetimes():
        for n, (_, sas) in enumerate(sleeper.counted()):
            left = [("192.0.2.1", 0x2001 + i) in sas for i in range(6 * n, 6 * n + 6)]
            assert not any(left[:3]), f"not gone after sleep {n + 1}: {left[:3]}"
            assert left[3] == left[4], f"left after sleep {n + 1}: minimal, stock: {left[3:5]}"
            assert left[5] or sleeper.asleep[n][2], f"its SNs have ended after sleep {n + 1}"

    def set_back():
        backs = 0
        for (_, _, by), (values, _) in zip(sleeper.sleeps, sleeper.counted()):
            backs += by < 0
            assert int(values["ClockSetBack"]) == backs, values

    return run([
        (f"{len(SLEEPS) * times} sleeps", sleeps),
        ("no SN and no IV repeats", never_repeats),
        ("packets in the cipher and in a qdisc go on their way", under_way),
        ("no packet is lost", none_lost),
        ("SNs go on while it sleeps", time_passes),
        ("what is sent after it has woken up is fresh", fresh),
        ("what was sent before is not", old),
        ("SAs whose lifetime or SNs ended while it slept are gone", lifetimes),
        ("a clock that is set back is counted, sleep is not", set_back),
        ("SAs and modules go away afterwards", removed)])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1))
