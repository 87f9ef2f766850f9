#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Prints the instructions per packet of the cipher, of the module that implements ESP, and
of each function. The instructions of the cipher are the least that ESP can cost.

usage: tools/bench/functions.py COUNTS CONSOLE PACKETS LINES

COUNTS is the output of count.c, CONSOLE that of guest.sh.
"""
import bisect
import collections
import re
import sys

# Functions, or modules that contain them. Functions of the rest of the kernel that they
# call, such as memset(), are not included.
CIPHER = re.compile(
    r"^(_*(crypto|aead|skcipher|scatterwalk|simd|kernel_fpu|irq_fpu|aes|aesni|gcm|gcmaes|"
    r"rfc4106|helper_rfc4106|ghash|ctr|cbc|sha256|hmac|chacha|poly1305|authenc)(_|$)|gcm|"
    r".*\[(aesni.intel|ghash_clmulni_intel|crypto_\w+|gcm|ctr|cbc|authenc\w*|chacha\w*|"
    r"poly1305\w*|libchacha\w*|libpoly1305|sha256\w*|libsha256|libaes\w*)\])")
OWN = re.compile(r".*\[(minesp|esp[46](_offload)?)\]")


def main(counts, console, packets, lines):
    with open(console, errors="replace") as f:
        symbols = sorted((int(m[1], 16), m[2].strip()) for m in
                         re.finditer(r"SYMBOL ([0-9a-f]+) (\S+(?: \[\S+\])?)", f.read()))
    addresses = [address for address, _ in symbols]
    total = collections.Counter()
    with open(counts) as f:
        for address, count in (line.split() for line in f):
            n = bisect.bisect_right(addresses, int(address, 16)) - 1
            user = n < 0 or not int(address, 16) >> 63
            total["(user space)" if user else symbols[n][1]] += int(count)
    print(f"{sum(total.values()) / packets:8.0f} all")
    for pattern, what in (CIPHER, "the cipher: functions with *"), (OWN, "ESP's own module"):
        part = sum(count for name, count in total.items() if pattern.match(name))
        print(f"{part / packets:8.0f} {what}")
    for name, count in total.most_common(lines):
        print(f"{count / packets:8.1f} {'*' if CIPHER.match(name) else ' '} {name}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
