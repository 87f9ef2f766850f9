#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Random requests for SAs, as netlink messages that ip(8) would not make. Stock ESP shows
what the kernel accepts. Of these requests, minesp accepts exactly those that its
documentation says. A refused request leaves nothing behind. With net.minesp.enabled=2,
stock ESP takes the other requests.

MINESP_REQUESTS: the number of requests (800). MINESP_SEED: their seed."""
import os
import random

import lib
from lib import request, spare, xflag, xfrm

COUNT = int(os.environ.get("MINESP_REQUESTS", 800))


def random_requests(count):
    rand = random.Random(lib.SEED)
    taken = refused = 0
    with spare.host() as host:
        host.settings(sn_epoch=1, sn_tick_us=1000)
        sock = xfrm.Xfrm(host)
        for i in range(count):
            r = request.Request(rand)
            what = f"MINESP_SEED={lib.SEED} request {i}: {r}"
            stock = not r.send(sock, xflag.STOCK | r.extra & request.OSEQ_MAY_WRAP)
            sock.flush()
            minimal = not r.send(sock, xflag.MINIMAL | r.extra)
            lib.equal(minimal, stock and r.documented(), what)
            sock.flush()
            if not r.extra & ~0xff:
                either = not r.send(sock, r.extra)
                lib.equal((either, bool(host.listed())), (stock, minimal),
                          f"{what}: taken, and minimal, with enabled=2")
                sock.flush()
            taken, refused = taken + minimal, refused + (not minimal)
        lib.equal(lib.sh(f"ip -n {host.ns} xfrm state"), "", "SAs left behind")
    assert taken > count // 10 < refused, (taken, refused)


def cases():
    yield f"{COUNT} random requests, seed {lib.SEED}", lambda: random_requests(COUNT)


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"])
