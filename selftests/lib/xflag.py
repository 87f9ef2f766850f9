# SPDX-License-Identifier: GPL-2.0
"""The extra-flags of an SA (include/uapi/linux/minesp.h): the bits, and words of ip xfrm
for the usual ones."""

(MINIMAL, STOCK, CLOCK, COUNTER, FRESH, ANY_AGE, IMPLICIT_IV, NEW_KEY) = (
    1 << n for n in range(24, 32))


def words(bits):
    return f"extra-flag {bits:#010x}"


XFLAG_MINIMAL = words(MINIMAL)
XFLAG_STOCK = words(STOCK)
XFLAG_CLOCK = words(CLOCK)
XFLAG_COUNTER = words(COUNTER)
XFLAG_FRESH = words(FRESH)
XFLAG_ANY_AGE = words(ANY_AGE)
XFLAG_IMPLICIT_IV = words(IMPLICIT_IV | NEW_KEY)    # a counter needs a new key
XFLAG_IMPLICIT_IV_CLOCK = words(IMPLICIT_IV | CLOCK)
