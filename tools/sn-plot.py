#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Draws the SNs of ESP packets over time, in a terminal.

usage: tcpdump -tt -l -n esp | tools/sn-plot.py NAME=SPI ...

Prints for each SA the number of packets, and how many of their SNs are repeats.
"""
import re
import sys

WIDTH, HEIGHT = 64, 16
MARKS = "o+x*"
PACKET = re.compile(r"^(\d+\.\d+) .*spi=(0x[0-9a-f]+),seq=(0x[0-9a-f]+)", re.MULTILINE)


def main(names):
    marks = dict(zip(names.values(), MARKS))
    packets = [(float(time), names[spi], int(sn, 16))
               for time, spi, sn in PACKET.findall(sys.stdin.read()) if spi in names]
    if not packets:
        sys.exit("no ESP packet of these SPIs")
    start, end = packets[0][0], packets[-1][0]
    top = max(sn for _, _, sn in packets)
    rows = [[" "] * WIDTH for _ in range(HEIGHT)]
    for time, name, sn in packets:
        x = int((time - start) / (end - start or 1) * (WIDTH - 1))
        y = int(sn / top * (HEIGHT - 1))
        rows[HEIGHT - 1 - y][x] = marks[name]
    print("\n   SN")
    for n, row in enumerate(rows):
        label = {0: top, HEIGHT - 1: 0}.get(n, "")
        print(f"{label:>5} |{''.join(row).rstrip()}")
    print(f"      +{'-' * WIDTH}> time, {end - start:.0f} s\n")
    for name in names.values():
        sns = [sn for _, n, sn in packets if n == name]
        print(f"  {marks[name]}  {name}: {len(sns)} packets, "
              f"{len(sns) - len(set(sns)) or 'no'} SN repeats")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main({spi: name for name, spi in (word.split("=") for word in sys.argv[1:])})
