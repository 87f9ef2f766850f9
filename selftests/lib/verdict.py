# SPDX-License-Identifier: GPL-2.0
"""How a case tells its verdict: it passes when it returns, is skipped when it raises
Skip, and fails when it raises anything else."""


class Skip(Exception):
    """The test cannot run here."""


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, not {wanted!r}")
