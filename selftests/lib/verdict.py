# SPDX-License-Identifier: GPL-2.0
"""The verdict of a case: it passes if it returns, is skipped if it raises Skip, and fails
if it raises any other exception."""


class Skip(Exception):
    """The test cannot run here."""


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, not {wanted!r}")
