#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Crypto that completes later, by our module async_aead and by the kernel's pcrypt: the
same traffic and malformed packets as in other tests, a congested cipher, and SAs and
namespaces that are deleted while packets are in crypto."""
import contextlib
import functools
import pathlib

import lib
from lib import crypto, inbound, kmod, scapy_peer, share, traffic

SIZES = [*range(1, 17), *range(1440, 1480), 4000, 65000]
LIMIT, MORE = 10, 7     # packets that the cipher has room for, and packets beyond that

# Ciphers, which differ in when the callback comes
WAYS = {"async_aead": crypto.async_aead,
        "async_aead, early": functools.partial(crypto.async_aead, early=1),
        "pcrypt": crypto.pcrypt}


def talk(way, *mode, name=crypto.GCM, **more):
    with way(name) as cipher:
        with lib.hosts() as (a, b):
            a.sas(*mode, **more)
            lib.equal(cipher.users(), 2, "SAs with the cipher")
        before = cipher.completed()
        traffic.talk("minimal", *mode, SIZES, **more)
        for kind, n in cipher.completed().items():
            n -= before[kind]
            assert n > len(SIZES), f"only {n} were {kind} later"


def at_once():
    """An asynchronous cipher completes each request at once."""
    with crypto.async_aead(sync=1) as cipher:
        before = cipher.completed()
        traffic.talk("minimal", "transport", 4, 4, SIZES)
        inbound.dummy("transport", 4, 4)
        lib.equal(cipher.completed(), before, "what completed later")


def congested_output():
    """Packets for which the cipher has no room are dropped and counted."""
    with (crypto.async_aead() as cipher, lib.hosts() as (a, b),
          contextlib.ExitStack() as stack):
        for h in (a, b):
            h.sas("transport", 4, 4)
        at_a, at_b = map(stack.enter_context,
                         traffic.pair(a, b, 4, "outer", scapy_peer.PORT))
        sent = [b"%03d" % i for i in range(LIMIT + MORE)]
        cipher.set(hold=1, limit=LIMIT)
        for data in sent:
            at_a.send(data)
        lib.equal(a.errors(), {"OutCryptoError": MORE, "XfrmOutStateProtoError": MORE},
                  "errors")
        cipher.set(hold=0)
        lib.equal(sorted(at_b.recv(100) for _ in range(LIMIT)), sent[:LIMIT],
                  "what arrives")
        at_a.send(b"again")
        lib.equal(at_b.recv(100), b"again", "data")
        lib.equal(a.stats()["OutPackets"], LIMIT + 1, "OutPackets")


def congested_input():
    with crypto.async_aead() as cipher, scapy_peer.peer() as p:
        sent = [b"%03d" % i for i in range(LIMIT + MORE)]
        before = p.counters()
        cipher.set(hold=1, limit=LIMIT)
        for data in sent:
            nh, payload = p.datagram(data)
            p.send(p.frame(p.esp(payload, nh)))
        p.counts(before, InCryptoError=MORE, XfrmInStateProtoError=MORE)
        cipher.set(hold=0)
        lib.equal(sorted(p.app.recv(100) for _ in range(LIMIT)), sent[:LIMIT],
                  "what arrives")
        p.still_works()


def replay():
    """A packet is received twice before the replay window has its SN."""
    with crypto.async_aead() as cipher, scapy_peer.peer() as p:
        nh, payload = p.datagram(b"x")
        esp = p.esp(payload, nh)
        before = p.counters()
        cipher.set(hold=1)
        for _ in range(2):
            p.send(p.frame(esp))
        cipher.holds(2)
        cipher.set(hold=0)
        lib.equal(p.app.recv(100), b"x", "data")
        p.counts(before, InPackets=2, XfrmInStateSeqError=1)
        p.still_works()


def sas_go():
    """SAs are deleted while packets are in crypto. The packets hold the SAs and the
    module."""
    with crypto.async_aead() as cipher, scapy_peer.peer() as p:
        cipher.set(hold=1)
        p.app.send(b"out")
        nh, payload = p.datagram(b"in")
        p.send(p.frame(p.esp(payload, nh)))
        cipher.holds(2)
        p.a.ip("xfrm policy flush\nxfrm state flush")
        lib.sh("rmmod minesp", check=False)
        assert kmod.loaded("minesp"), "minesp went away"
        lib.equal(cipher.users(), 2, "SAs with the cipher")
        cipher.set(hold=0)
        p.close()       # its socket and received packets would also hold them
        kmod.released()


def exits(host):
    """Deletes a namespace, and waits until minesp waits for packets in it."""
    def waits():
        for path in pathlib.Path("/proc").glob("[0-9]*/stack"):
            try:
                if "minesp_net_exit" in path.read_text():
                    return True
            except OSError:     # the task has ended
                pass
        return False

    # The stack of kthreadd. ARM does not show the stacks of other tasks.
    stack = pathlib.Path("/proc/2/stack")
    if not stack.exists() or not stack.read_text():
        raise lib.Skip("a kernel that does not show where a task waits")
    host.delete()
    lib.wait_for("minesp waits", waits)


def namespace_goes_output():
    """A namespace is deleted while it encrypts the answer to a ping, which no socket in
    the namespace has sent."""
    with crypto.async_aead() as cipher, scapy_peer.peer() as p:
        # The ping comes in the clear.
        p.a.ip("xfrm policy flush\n"
               f"xfrm policy add src {p.a.address(4)} dst {p.b.address(4)} dir out "
               "tmpl proto esp reqid 1 mode transport")
        p.close()       # the socket would hold the namespace
        cipher.set(hold=1)
        ping = p.ip(4, "outer") / scapy_peer.ICMP()
        with p.b.wire() as wire:
            wire.send(p.ethernet(ping))
            cipher.holds(1)
            exits(p.a)
            cipher.set(hold=0)
            kmod.released()


def namespace_goes_input():
    """A namespace is deleted while it decrypts a packet whose device has left the
    namespace."""
    with crypto.async_aead() as cipher, scapy_peer.peer() as p:
        nh, payload = p.datagram(b"x")
        cipher.set(hold=1)
        p.send(p.frame(p.esp(payload, nh)))
        cipher.holds(1)
        p.a.ip(f"link set veth0 netns {p.b.ns} name moved")
        p.close()       # the socket would hold the namespace
        exits(p.a)
        cipher.set(hold=0)
        kmod.released()


def cases():
    yield "its queue is full, output", congested_output
    yield "its queue is full, input", congested_input
    yield "replay while it decrypts", replay
    yield "it completes at once after all", at_once
    yield "SAs are deleted meanwhile", sas_go
    yield "a namespace is deleted meanwhile, output", namespace_goes_output
    yield "a namespace is deleted meanwhile, input", namespace_goes_input
    for i, (name, way) in enumerate(WAYS.items()):
        for n, mode in enumerate((("transport", 4, 4), ("transport", 6, 6),
                                  ("tunnel", 6, 4))):
            if share.mine(i + n):
                yield (f"{name}: traffic, {mode[0]} IPv{mode[1]} in IPv{mode[2]}",
                       lambda w=way, m=mode: talk(w, *m))
        for n, (what, mode, args) in enumerate((
                ("AES-CBC", ("tunnel", 4, 4),
                 {"name": "authenc(hmac(sha256),cbc(aes))", "suite": lib.CBC}),
                ("AES-CBC with ESN", ("tunnel", 4, 4),
                 {"name": "authencesn(hmac(sha256),cbc(aes))", "suite": lib.CBC,
                  "words": "flag esn"}),
                ("implicit IV", ("transport", 6, 6), {"words": lib.XFLAG_IMPLICIT_IV}))):
            if share.mine(i + n):
                yield (f"{name}: traffic, {what}",
                       lambda w=way, m=mode, x=args: talk(w, *m, **x))
        for n, (what, function, args) in enumerate((
                ("dummy packets", inbound.dummy, ("transport", 4, 4)),
                ("dummy packets, tunnel", inbound.dummy, ("tunnel", 4, 6)),
                ("changed bits", inbound.changed, ()),
                ("truncated", inbound.truncated, (6,)),
                ("absurd Pad Length", inbound.pad_length, ()),
                ("fragments", inbound.fragments, (4,)),
                ("replay", inbound.replay, (32,)))):
            if share.mine(i + n):
                yield (f"{name}: {what}",
                       lambda w=way, f=function, x=args: crypto.using(w, f, *x))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip", "ping"],
            imports=["scapy", "cryptography"])
