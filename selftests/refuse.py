#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Which SAs are minimal, and which are refused. Each refusal says what is wrong,
leaves nothing behind, and names stock ESP if stock ESP accepts the SA."""

import lib
from lib import algorithms, kmod, share, spare

KEY = lib.KEYS[128]


def key(length):
    """Returns a key of this many bytes, as ip xfrm takes it."""
    return "0x" + bytes(range(1, 1 + length)).hex() if length else "''"


def refused(words, message, **where):
    """If the message names stock ESP, stock ESP accepts the SA: by extra-flag, and by
    net.minesp.enabled=2 with a warning and a counter. Otherwise, enabled=2 refuses the
    SA, too."""
    def became_stock():
        return sum(n for name, n in host.stats().items() if name.startswith("Stock"))

    with spare.host() as host:
        def add(enabled, more=""):
            host.sysctl("net.minesp.enabled", enabled)
            before = kmod.refcount("minesp"), became_stock()
            said = spare.add(host, f"{words} {more}", check=False, **where)
            there = lib.sh(f"ip -n {host.ns} xfrm state")
            lib.wait_for("the SA does not hold minesp",
                         lambda: kmod.refcount("minesp") == before[0])
            host.ip("xfrm state flush")
            return said, bool(there), became_stock() - before[1]

        said, there, stock = add(1)
        assert message in said, f"said {said!r}, not {message!r}"
        lib.equal((there, stock), (False, 0), "SAs left behind, and stock")
        way_out = said.endswith("; or use stock ESP (extra-flag 0x02000000).\n")
        if way_out:
            lib.equal(add(1, lib.XFLAG_STOCK)[:2], ("", True), "stock by extra-flag")
        said, there, stock = add(2)
        assert message in said, f"said {said!r}, not {message!r}"
        lib.equal((there, stock, "SA uses stock ESP" in said),
                  (way_out, int(way_out), way_out),
                  "stock by enabled=2, counted, and with a warning")
        # An SA that needs a feature of minimal ESP does not become stock.
        for settings in {"sn_mode": 1}, {"rx_fresh": 1}:
            host.settings(sn_epoch=1, **settings)
            assert not add(2)[1], f"stock with {settings}"
            host.settings(**{name: 0 for name in settings})


def weak(words, message):
    """Algorithms that minesp refuses, and that stock ESP accepts if the kernel has them"""
    with spare.host() as host:
        said = spare.add(host, f"{words} {lib.XFLAG_STOCK}", check=False)
    refused(words, "algorithm not found" if "algorithm not found" in said else message)


def minimal(enabled, words, wanted):
    with spare.host() as host:
        host.sysctl("net.minesp.enabled", enabled)
        before = kmod.refcount("minesp"), kmod.refcount("esp4")
        spare.add(host, f"{lib.AEAD} {KEY} 128 {words}")
        now = kmod.refcount("minesp"), kmod.refcount("esp4")
        lib.equal((now[0] - before[0], now[1] - before[1]),
                  (1, 0) if wanted else (0, 1), "references (minesp, esp4)")
        # The kernel dumps the extra-flag that was requested.
        if words:
            said = lib.sh(f"ip -n {host.ns} -s xfrm state")
            asked = f"{int(words.split()[1], 0):x}"
            assert asked in said.split("extra_flag")[1], said


def default_of_module():
    kmod.unload()
    try:
        kmod.load("enabled=0")
        with spare.host() as host:
            lib.equal(host.sysctl("net.minesp.enabled"), "0", "default")
    finally:
        kmod.unload()
        kmod.load()
    with spare.host() as host:
        lib.equal(host.sysctl("net.minesp.enabled"), "2", "default")


def sysctl_range():
    with spare.host() as host:
        for bad in ("3", "-1", "x"):
            try:
                host.sysctl("net.minesp.enabled", bad)
            except OSError:
                continue
            raise AssertionError(f"net.minesp.enabled took {bad}")
        lib.equal(host.sysctl("net.minesp.enabled"), "2", "enabled")


def cases():
    for enabled in 1, 2:
        yield f"minimal by net.minesp.enabled={enabled}", lambda e=enabled: minimal(e, "", True)
    yield "stock by net.minesp.enabled", lambda: minimal(0, "", False)
    yield ("minimal by extra-flag",
           lambda: minimal(0, lib.XFLAG_MINIMAL, True))
    yield "stock by extra-flag", lambda: minimal(1, lib.XFLAG_STOCK, False)
    yield "default of the module", default_of_module
    yield "range of net.minesp.enabled", sysctl_range
    yield from (case for n, case in enumerate(refusals()) if share.mine(n))


def refusals():
    gcm = f"{lib.AEAD} {KEY}"
    for spi in ("0", "1", "255"):
        yield (f"SPI {spi}",
               lambda s=spi: refused(f"{gcm} 128", "SPIs 0-255", spi=s))
    yield ("BEET", lambda: refused(f"{gcm} 128", "no BEET or IPTFS",
                                   mode="beet"))
    yield ("TCP encapsulation",
           lambda: refused(f"{gcm} 128 encap espintcp 4500 4500 0.0.0.0",
                           "no such encapsulation; use encap espinudp"))
    yield ("TFC padding",
           lambda: refused(f"{gcm} 128 tfcpad 512", "no TFC padding",
                           mode="tunnel"))
    yield ("oseq-may-wrap",
           lambda: refused(f"{gcm} 128 extra-flag oseq-may-wrap",
                           "oseq-may-wrap repeats nonces"))
    for bits in (64, 96):
        yield (f"ICV of {bits} bits",
               lambda n=bits: refused(f"{gcm} {n}", "(4 of salt) and a 128-bit ICV"))
    yield ("AES-CCM-12",
           lambda: refused(f"aead rfc4309(ccm(aes)) {key(19)} 96",
                           "(3 of salt), 64 or 128-bit ICV"))
    cbc, sha256 = f"enc cbc(aes) {key(16)}", f"auth-trunc hmac(sha256) {key(32)}"
    for enc in (cbc, "enc ecb(cipher_null) ''"):
        yield (f"{enc.split()[1]} without authentication",
               lambda e=enc: refused(e, "no authenticator; use auth-trunc"))
    for cipher, length in algorithms.WEAK_CIPHERS.items():
        yield (f"the cipher {cipher}", lambda c=cipher, n=length: weak(
            f"enc {c} {key(n)} {sha256} 128", "weak or unsupported cipher"))
    for mac, (length, icv) in algorithms.WEAK_AUTHS.items():
        words = f"{cbc} auth-trunc {mac} {key(length)} {icv}"
        yield (f"the authenticator {mac}", lambda w=words: weak(
            w, "weak or unsupported authenticator"))
    yield ("digest_null",
           lambda: refused(f"{cbc} auth digest_null ''",
                           "weak or unsupported authenticator"))
    # ip's auth means the kernel's default ICV, 96 bits.
    yield ("HMAC-SHA2-256 of 96 bits",
           lambda: refused(f"{cbc} auth hmac(sha256) {key(32)}",
                           "use auth-trunc, a key of 32 bytes and a 128-bit ICV"))
    for mac, (length, right) in algorithms.AUTHS.items():
        for n, icv in ((length, right - 32), (length - 1, right),
                       (length + 8, right), (0, right)):
            yield (f"{mac} with a key of {n} bytes, {icv} bits",
                   lambda m=mac, n=n, i=icv: refused(
                       f"{cbc} auth-trunc {m} {key(n)} {i}",
                       f"a key of {algorithms.AUTHS[m][0]} bytes"))
    for cipher, n, right in (("cbc(aes)", 17, "16, 24 or 32"), ("cbc(aes)", 0, "16, 24 or 32"),
                             ("rfc3686(ctr(aes))", 16, "20, 28 or 36")):
        yield (f"{cipher} with a key of {n} bytes",
               lambda c=cipher, n=n, r=right: refused(f"enc {c} {key(n)} {sha256} 128",
                                                      f"use a key of {r} bytes"))
    yield ("NULL encryption with a key",
           lambda: refused(f"enc ecb(cipher_null) {key(16)} {sha256} 128",
                           "has no key"))
    new = lib.XFLAG_IMPLICIT_IV
    for name, words in (("AES-CCM-16", f"aead rfc4309(ccm(aes)) {key(19)} 128"),
                        ("AES-GMAC", f"aead rfc4543(gcm(aes)) {key(20)} 128"),
                        ("AES-CTR", f"enc rfc3686(ctr(aes)) {key(20)} {sha256} 128")):
        yield (f"an implicit IV with {name}",
               lambda w=words: refused(f"{w} {new}", "implicit IV needs AES-GCM"))
    yield ("an implicit IV that nothing keeps unique",
           lambda: refused(f"{gcm} 128 extra-flag 0x40000000",
                           "implicit IV needs clock SNs"))
    yield ("a key that is too short",
           lambda: refused(f"{lib.AEAD} {KEY[:-2]} 128",
                           "a key of 20, 28 or 36 bytes (4 of salt)"))
    for flags in ("0x03000000", "0x0a000000", "0x42000000", "0x82000000"):
        yield (f"extra-flag {flags}",
               lambda f=flags: refused(f"{gcm} 128 extra-flag {f}",
                                       "need a minimal SA"))


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"])
