# SPDX-License-Identifier: GPL-2.0
"""The SAs that most tests use: modes, SPIs, keys, and suites in the words of ip xfrm."""

# mode, family of the inner header, family of the outer header
MODES = [("transport", 4, 4), ("transport", 6, 6), ("tunnel", 4, 4),
         ("tunnel", 6, 6), ("tunnel", 4, 6), ("tunnel", 6, 4)]

SPI = {"a": 0x100a, "b": 0x100b}    # of the inbound SA of a, and of b

# AES-GCM keys with four bytes of salt, by key length in bits
SALT = "a0a1a2a3"
KEYS = {bits: "0x" + bytes(range(bits // 8)).hex() + SALT
        for bits in (128, 192, 256)}
AEAD = "aead rfc4106(gcm(aes))"
SUITE = f"{AEAD} {KEYS[128]} 128"
# AES-CBC, with blocks of 16 bytes
CBC = (f"enc cbc(aes) 0x{bytes(range(16)).hex()} "
       f"auth-trunc hmac(sha256) 0x{bytes(range(32)).hex()} 128")
