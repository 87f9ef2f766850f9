#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The unit tests of minesp/kunit, which cover pure arithmetic. They need CONFIG_KUNIT
and CONFIG_KUNIT_DEBUGFS."""
import os
import pathlib
import re

import lib
from lib import debugfs


def results():
    """Yields (suite and case, whether it passed, its output)."""
    ko = pathlib.Path(os.environ.get("MINESP_KO", "")).parent / "kunit/minesp_kunit.ko"
    if ko.exists():
        lib.sh("modprobe kunit")
        lib.sh(f"insmod {ko}")
    else:
        try:
            lib.sh("modprobe minesp_kunit")
        except AssertionError as e:
            raise lib.Skip("no minesp_kunit") from e
    try:
        for path in sorted(debugfs.path("kunit").glob("minesp_*/results")):
            said = []
            for line in path.read_text().splitlines():
                verdict = re.match(r" +(not )?ok \d+ (\w+)", line)
                said.append(line.strip())
                if verdict:
                    yield f"{path.parent.name}: {verdict[2]}", not verdict[1], said
                    said = []
    finally:
        lib.sh("rmmod minesp_kunit")


def check(passed, said):
    assert passed, "\n".join(said)


def cases():
    found = list(results())
    yield "there are unit tests", lambda: check(found, ["none"])
    for name, passed, said in found:
        yield name, lambda p=passed, s=said: check(p, s)


if __name__ == "__main__":
    lib.run(cases())
